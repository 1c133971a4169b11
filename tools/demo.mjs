#!/usr/bin/env node
// Plays the demo, from a clean clone with as little compilation as it needs: the contracts that it deploys, not every mock.
//
//   npm run demo -- [--network anvil]
import { spawnSync } from "node:child_process";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

/** What the demo deploys; their imports come along. */
const CONTRACTS = [
  "contracts/registry/KmsRegistry.sol",
  "contracts/policy/PlatformPolicy.sol",
  "contracts/governance/GovernanceTimelock.sol",
  "contracts/dstack/DstackAuth.sol",
  "npm:@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol",
  "contracts/mocks/KmsRegistryV2.sol",
  "contracts/mocks/PlatformPolicyV2.sol",
];

const run = (...args) => {
  const { status, error } = spawnSync("hardhat", args, {
    cwd: dirname(dirname(fileURLToPath(import.meta.url))),
    stdio: "inherit",
    shell: process.platform === "win32",
  });
  if (error) throw error;
  return status ?? 1;
};

console.error("keystead: compiling the contracts; half a minute the first time …");
// Types are committed, of all contracts; these few would take the others' places.
const built = run("build", "--no-tests", "--no-typechain", ...CONTRACTS);
process.exitCode = built === 0 ? run("run", "--no-compile", ...process.argv.slice(2), "scripts/demo.ts") : built;
