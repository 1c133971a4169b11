import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import hre from "hardhat";
import type { DeployedContract, Deployment } from "../src/chain/deployment.ts";
import { KeysteadError } from "../src/core/errors.ts";
import { type Connection, fetchChainId, type Log, silent } from "./connection.ts";
import { type KeysteadModule, runModule } from "./journal.ts";
import keysteadModule from "./modules/Keystead.ts";
import { checkParameters, type DeploymentParameters, ensureSafes } from "./parameters.ts";
import { DEPLOYMENTS_FOLDER, writeDeployment } from "./record.ts";
import type { SafeState } from "./safe/account.ts";
import { verifyDeployment } from "./verify.ts";

/** What may be set beside the parameters; tests use it, operators don't need to. */
export interface DeployOptions {
  /** Where journal and record go; default `deploy/deployments`. On Hardhat's in-process network, default: nothing is kept. */
  readonly folder?: string;
  /** Default `deploy/modules/Keystead.ts`. */
  readonly module?: KeysteadModule;
}

/**
 * Deploys all of Keystead and proves it: checks the parameters, creates or takes the Safes, deploys timelock, policy, registry and adapter
 * through Ignition (interrupted, it resumes), then asserts from the chain that code, slots, initialisation, delay and role matrix are as
 * published. Only then is the deployment recorded and returned. The deployer, the connection's first account, holds no role at any time.
 *
 * @returns the deployment, as recorded in `deploy/deployments/<network>.json`
 * @throws KeysteadError `deploy/verification-failed` with `details.differences`, and the errors of {@link checkParameters} and
 *   {@link runModule}
 * @example
 * const deployment = await deployKms(await hre.network.create(), readParameters("default"), console.log);
 */
export async function deployKms(
  connection: Connection,
  parameters: DeploymentParameters,
  log: Log = silent,
  options: DeployOptions = {},
): Promise<Deployment> {
  const network = connection.networkName;
  const keeps = options.folder !== undefined || connection.networkConfig.type !== "edr-simulated";
  const folder = keeps ? (options.folder ?? DEPLOYMENTS_FOLDER) : mkdtempSync(join(tmpdir(), "keystead-"));
  try {
    const chainId = await fetchChainId(connection);
    log(`network ${network}, chain ${chainId}: checking the parameters`);
    await checkParameters(connection, parameters);
    const safes = await ensureSafes(connection, parameters, log);
    const contracts = await runModule(connection, options.module ?? keysteadModule, {
      folder: join(folder, network),
      artifacts: hre.artifacts,
      log,
      parameters: {
        Keystead: {
          governanceSafe: safes.governance.address,
          guardianSafe: safes.guardian.address,
          delaySeconds: BigInt(parameters.delaySeconds),
        },
      },
    });
    const unproven: Deployment = {
      schema: 1,
      network,
      chainId,
      block: Math.min(...Object.values(contracts).map((contract) => contract.block)),
      delaySeconds: parameters.delaySeconds,
      safes: { governance: describeSafe(safes.governance), guardian: describeSafe(safes.guardian) },
      contracts: {
        timelock: pick(contracts, "timelock"),
        policyImplementation: pick(contracts, "policyImplementation"),
        policy: pick(contracts, "policy"),
        registryImplementation: pick(contracts, "registryImplementation"),
        registry: pick(contracts, "registry"),
        dstackAuth: pick(contracts, "dstackAuth"),
      },
      roles: [],
    };
    log("checking code, slots, initialisation, delay and every role event");
    const { differences, roles } = await verifyDeployment(connection, unproven, hre.artifacts);
    if (differences.length > 0) {
      throw new KeysteadError(
        "deploy/verification-failed",
        `what stands on chain is not what is published:\n- ${differences.join("\n- ")}`,
        {
          remedy: "do not use these contracts; find out how they came to differ, and deploy again under another name",
          details: { differences },
        },
      );
    }
    const deployment = { ...unproven, roles };
    if (keeps) log(`recorded in ${writeDeployment(deployment, folder)}`);
    return deployment;
  } finally {
    if (!keeps) rmSync(folder, { recursive: true, force: true });
  }
}

function describeSafe({ address, version, owners, threshold }: SafeState) {
  return { address, version, owners, threshold };
}

function pick(contracts: Readonly<Record<string, DeployedContract>>, name: string): DeployedContract {
  const contract = contracts[name];
  if (contract === undefined) {
    throw new KeysteadError("deploy/ignition-failed", `the module deploys no ${name}`, {
      argument: "module",
      remedy: "use deploy/modules/Keystead.ts",
    });
  }
  return contract;
}
