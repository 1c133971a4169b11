// The main job from beginning to end, on a local chain with real Safe contracts:
//
//   npm run demo                       Hardhat's in-process chain
//   npm run demo -- --network anvil    anvil, started if none runs
//
// Every step says what it does; every claim is checked; the exit code is the verdict. The chapters: scripts/demo/chapters.ts
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import hre from "hardhat";
import { ANVIL_PORT, startAnvil } from "../deploy/anvil.ts";
import { deployKms } from "../deploy/kms.ts";
import { readParameters } from "../deploy/parameters.ts";
import { verifyDeployment } from "../deploy/verify.ts";
import { isKeysteadError } from "../src/core/errors.ts";
import {
  audit,
  emergency,
  governanceOpensThePlatform,
  sealedService,
  services,
  upgradeAndBack,
} from "./demo/chapters.ts";
import { chapter, check, conclude, detail, did } from "./demo/stage.ts";
import { DAY, enter } from "./demo/world.ts";

const networkName = hre.globalOptions.network ?? "default";
const anvil =
  networkName === "anvil" && !(await answers(ANVIL_PORT)) ? await startAnvil({ port: ANVIL_PORT }) : undefined;
// Where Ignition keeps its journal: a demo leaves nothing behind.
const folder = mkdtempSync(join(tmpdir(), "keystead-demo-"));
try {
  const connection = await hre.network.create(networkName);
  try {
    const parameters = { ...readParameters(networkName), delaySeconds: 2 * DAY };
    chapter(
      "Deployment",
      "Real Safe contracts at their canonical addresses, a governance Safe behind a timelock of 48 hours, a guardian Safe, both contracts behind proxies. The deployer gets no role.",
    );
    const deployment = await deployKms(connection, parameters, did, { folder });
    for (const { contract, role, holders } of deployment.roles) {
      if (holders.length > 0) detail(`${contract.padEnd(8)} ${role.padEnd(19)} ${holders.join(", ")}`);
    }
    const { differences } = await verifyDeployment(connection, deployment, hre.artifacts);
    check("code, slots, initialisation, delay and the role matrix are as published", differences.length === 0);

    const world = await enter(connection, deployment, parameters);
    await governanceOpensThePlatform(world);
    const ids = await services(world);
    await sealedService(world);
    await emergency(world, ids);
    await upgradeAndBack(world, ids, folder);
    await audit(world);
    process.exitCode = conclude();
  } finally {
    await connection.close();
  }
} catch (error) {
  if (!isKeysteadError(error)) throw error;
  console.error(`\n${error.code}: ${error.message}\n${error.remedy}`);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
  await anvil?.stop();
}

async function answers(port: number): Promise<boolean> {
  try {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_chainId", params: [] });
    const headers = { "content-type": "application/json" };
    return (await fetch(`http://127.0.0.1:${port}`, { method: "POST", headers, body })).ok;
  } catch {
    return false;
  }
}
