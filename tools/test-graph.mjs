// Which tests a change can reach: by the imports of TypeScript files, and by the contracts for tests that deploy them.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const IMPORT = /(?:from|import)\s*\(?\s*["'](\.{1,2}\/[^"']+)["']/g;
const PATH_IN_TEXT = /["'`]((?:src|test|scripts|deploy|tools|web|testing)\/[\w./-]+\.\w+)["'`]/g;
const TYPES = "typechain-types";

/** Files that differ from `revision`, those that git does not track yet included. */
export function changedFiles(root, revision) {
  const git = (...args) => {
    const { status, stdout, stderr } = spawnSync("git", args, { cwd: root, encoding: "utf8" });
    if (status !== 0) throw new Error(`git ${args.join(" ")}: ${stderr.trim()}`);
    return stdout.split("\n").filter(Boolean);
  };
  return [...new Set([...git("diff", "--name-only", revision), ...git("ls-files", "--others", "--exclude-standard")])];
}

function importsOf(root, file, known) {
  const cached = known.get(file);
  if (cached !== undefined) return cached;
  const text = existsSync(join(root, file)) ? readFileSync(join(root, file), "utf8") : "";
  const found = [...text.matchAll(IMPORT)].map(([, path]) => relative(root, resolve(root, dirname(file), path)));
  found.push(...[...text.matchAll(PATH_IN_TEXT)].map(([, path]) => path)); // programs that a test starts
  known.set(file, found);
  return found;
}

/** The tests among `tests` which import a changed file, directly or through others. */
export function testsOf(root, changed, tests) {
  const known = new Map();
  const wanted = new Set(changed);
  const contracts = changed.some((file) => file.startsWith("contracts/"));
  const everything = changed.some((file) =>
    /^(package(-lock)?\.json|hardhat\.config\.ts|tsconfig.*\.json)$/.test(file),
  );
  const reaches = (test) => {
    const seen = new Set([test]);
    for (const file of seen) {
      if (wanted.has(file)) return true;
      if (contracts && file.startsWith(TYPES)) return true;
      for (const next of importsOf(root, file, known)) if (/\.(ts|tsx|mjs|json)$/.test(next)) seen.add(next);
    }
    return false;
  };
  const documents = changed.some((file) => file.endsWith(".md"));
  return tests.filter((test) => everything || (documents && test.startsWith("test/docs/")) || reaches(test));
}
