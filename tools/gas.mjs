#!/usr/bin/env node
// Runs the gas benchmark with an option, which `hardhat run` would not pass on:
//
//   npm run gas -- [--check | --update]
import { spawnSync } from "node:child_process";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

const args = process.argv.slice(2);
if (args.length > 1) {
  console.error("usage: npm run gas -- [--check | --update]");
  process.exit(2);
}
const { status, error } = spawnSync("hardhat", ["run", "scripts/gas-benchmark.ts"], {
  cwd: dirname(dirname(fileURLToPath(import.meta.url))),
  stdio: "inherit",
  env: { ...process.env, KEYSTEAD_GAS_MODE: args[0] ?? "" },
  shell: process.platform === "win32",
});
if (error) throw error;
process.exit(status ?? 1);
