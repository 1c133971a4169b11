import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Interface } from "ethers";
import { type CompiledCode, compareCode } from "../chain/code.ts";
import { KeysteadError } from "../core/errors.ts";

/** One contract of a build. */
export interface Build extends CompiledCode {
  /** `path:Name` of its source. */
  readonly source: string;
}

/** Where Hardhat puts what it builds, in a checkout of this project. */
export const BUILD_FOLDER: string = join(import.meta.dirname, "..", "..", "artifacts");

/**
 * Every deployable contract of a build: what code on chain is compared with.
 *
 * @param folder Hardhat's `artifacts`
 * @throws KeysteadError `build/none` where nothing was built there
 * @example
 * const builds = await readBuilds();
 */
export async function readBuilds(folder: string = BUILD_FOLDER): Promise<readonly Build[]> {
  const builds: Build[] = [];
  try {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    for (const entry of entries) {
      if (!entry.isFile() || !entry.name.endsWith(".json") || entry.parentPath.includes("build-info")) continue;
      const artifact = JSON.parse(await readFile(join(entry.parentPath, entry.name), "utf8"));
      const { sourceName, contractName, deployedBytecode, immutableReferences, inputSourceName } = artifact;
      if (typeof deployedBytecode !== "string" || !/^0x([0-9a-f]{2})+$/i.test(deployedBytecode)) continue;
      builds.push({
        source: `${String(sourceName ?? inputSourceName)}:${String(contractName)}`,
        ...{ deployedBytecode, immutableReferences: immutableReferences ?? {} },
      });
    }
  } catch (cause) {
    throw noBuild(folder, cause);
  }
  if (builds.length === 0) throw noBuild(folder);
  return builds.sort((a, b) => (a.source < b.source ? -1 : 1));
}

const noBuild = (folder: string, cause?: unknown) =>
  new KeysteadError("build/none", `there is no build in ${folder} to compare code with`, {
    argument: "build",
    remedy: "Build the sources that were deployed: npm run build.",
    cause,
  });

/**
 * The contract that code on chain was built from, outside of its immutables, which must be among some addresses.
 *
 * @example
 * findBuild(code, builds, [implementation, policy])?.source; // "contracts/policy/PlatformPolicy.sol:PlatformPolicy"
 */
export function findBuild(code: string, builds: readonly Build[], immutables: readonly string[]): Build | undefined {
  return builds.find((build) => compareCode(code, build, immutables).length === 0);
}

/** The build of a source, by `path:Name`. */
export const buildOf = (builds: readonly Build[], source: string): Build | undefined =>
  builds.find((build) => build.source === source);

/**
 * Functions of a contract's interface that code does not dispatch: its selectors stand in the code. Another contract's implementation lacks most of them,
 * whoever built it.
 *
 * @example
 * missingFunctions(code, INTERFACES.policy); // [] for any version of the policy
 */
export function missingFunctions(code: string, abi: Interface): readonly string[] {
  const missing: string[] = [];
  const digits = code.toLowerCase();
  abi.forEachFunction((item) => {
    // PUSHn drops leading zero bytes
    const selector = item.selector.slice(2).replace(/^(00)+/, "");
    const push = (0x5f + selector.length / 2).toString(16);
    if (!digits.includes(`${push}${selector}`)) missing.push(item.name);
  });
  return missing;
}
