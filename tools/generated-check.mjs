#!/usr/bin/env node
// Fails if what is generated and committed is not what the sources give: generates the types anew, in place, and asks git what changed.
//
//   npm run generated:check
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const GENERATED = "typechain-types";

const run = (command, args, stdio) => {
  const result = spawnSync(command, args, { cwd: root, encoding: "utf8", stdio });
  if (result.error) throw result.error;
  return result;
};

// From nothing, so that types of contracts which are gone don't linger.
rmSync(join(root, GENERATED), { recursive: true, force: true });
const build = run("hardhat", ["build", "--force", "--no-tests"], "inherit");
if (build.status !== 0) process.exit(build.status ?? 1);

// Not time stamps and not an earlier state of this folder: what git would commit.
const status = run("git", ["status", "--porcelain", "--untracked-files=all", "--", GENERATED], "pipe");
if (status.status !== 0) {
  console.error(`generated-check: git can't tell what changed: ${status.stderr.trim()}`);
  process.exit(1);
}
if (status.stdout !== "") {
  console.error(`${GENERATED} is not what the contracts give:\n${status.stdout}`);
  console.error("It is generated anew now: look at it, and commit it with the contracts.");
  process.exit(1);
}
console.log(`${GENERATED} is up to date`);
