import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { HardhatPlugin } from "hardhat/types/plugins";

/**
 * Sorts what TypeChain wrote. Its two index files list contracts in the order of Hardhat's compilation jobs, which differs between a clean and an incremental build; the
 * committed files must not.
 */
export const stableTypes: HardhatPlugin = {
  id: "keystead-stable-types",
  hookHandlers: {
    solidity: async () => ({
      default: async () => ({
        processArtifactsAfterSuccessfulBuild: async ({ config, globalOptions }) => {
          if (globalOptions.noTypechain) return;
          const folder = config.typechain.outDir;
          if (folder === undefined) return;
          sortLines(join(folder, "index.ts"), /^export (?:type )?\{ (\w+?)(?:__factory)? \}/);
          sortLines(
            join(folder, "hardhat.d.ts"),
            /^ *(?:getContractFactory|getContractAt|deployContract)\(name: '(\w+)'/,
          );
        },
      }),
    }),
  },
};

/** Sorts each run of neighbouring lines that match, by the name that the pattern captures and then by their text. */
function sortLines(path: string, pattern: RegExp): void {
  const before = readFileSync(path, "utf8");
  const after: string[] = [];
  let run: string[] = [];
  const nameOf = (line: string) => pattern.exec(line)?.[1] ?? "";
  const flush = () => {
    after.push(...run.sort((a, b) => compare(nameOf(a), nameOf(b)) || compare(a, b)));
    run = [];
  };
  for (const line of before.split("\n")) {
    if (pattern.test(line)) run.push(line.trim());
    else {
      flush();
      after.push(line);
    }
  }
  flush();
  const sorted = after.join("\n");
  if (sorted !== before) writeFileSync(path, sorted);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
