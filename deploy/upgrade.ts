import { join } from "node:path";
import { buildModule } from "@nomicfoundation/hardhat-ignition/modules";
import { upgrades } from "@openzeppelin/hardhat-upgrades";
import { getAddress, Interface } from "ethers";
import hre from "hardhat";
import { compareCode } from "../src/chain/code.ts";
import type { DeployedContract, DeployedContractName, Deployment } from "../src/chain/deployment.ts";
import { KeysteadError } from "../src/core/errors.ts";
import { buildTimelockOperation, type TimelockCall, type TimelockOperation } from "../src/governance/timelock.ts";
import { type Connection, fetchChainId, type Log, silent } from "./connection.ts";
import { runModule } from "./journal.ts";
import { checkAppendOnly } from "./layout.ts";
import { DEPLOYMENTS_FOLDER } from "./record.ts";
import { fetchInitializedVersion, INITIALIZERS_DISABLED, PUBLISHED_SOURCES, verifyDeployment } from "./verify.ts";

/** Which contracts an upgrade puts behind the proxies. */
export interface UpgradeSpec {
  /** Names the operation; part of its salt and of the journal's folder: lower-case letters, digits, hyphens. */
  readonly id: string;
  /** Names of the new implementations, simple or `path:Name`. */
  readonly policy: string;
  readonly registry: string;
  /** Calldata of an initialiser of the new version, run in the upgrade's own call; default: none. */
  readonly policyCall?: string;
  readonly registryCall?: string;
}

/** An upgrade that governance can schedule. */
export interface PreparedUpgrade {
  readonly id: string;
  /** The new implementations, deployed and verified. */
  readonly policyImplementation: DeployedContract;
  readonly registryImplementation: DeployedContract;
  /** Both proxies in one batch. */
  readonly operation: TimelockOperation;
  /** Both proxies back to the implementations that they have now; executable only after `operation`. */
  readonly rollback: TimelockOperation;
}

const PROXY_ABI = new Interface([
  "function upgradeTo(address newImplementation)",
  "function upgradeToAndCall(address newImplementation, bytes data) payable",
  "function implementation() view returns (address)",
  "function getMinDelay() view returns (uint256)",
]);

/**
 * Prepares an upgrade of both proxies: proves that the deployed implementations are the ones that the new ones are compared with, checks
 * storage layouts and initialisers with OpenZeppelin's plugin, proves that layouts are only appended to (so that rolling back is safe), deploys the new
 * implementations through Ignition (interrupted, it resumes), compares their code with the build, and builds the timelock's calldata. It changes
 * neither proxy.
 *
 * @param options.folder where the journal goes; default `deploy/deployments`
 * @throws KeysteadError `upgrade/bad-id`, `upgrade/not-as-recorded`, `upgrade/unsafe` (the plugin's report), `upgrade/not-only-appended`,
 *   `upgrade/wrong-code`, `upgrade/not-locked`, and the errors of {@link runModule}
 * @example
 * const spec = { id: "v2", policy: "PlatformPolicyV2", registry: "KmsRegistryV2" };
 * const { operation } = await prepareUpgrade(connection, readDeployment("sepolia"), spec);
 */
export async function prepareUpgrade(
  connection: Connection,
  deployment: Deployment,
  spec: UpgradeSpec,
  log: Log = silent,
  options: { readonly folder?: string } = {},
): Promise<PreparedUpgrade> {
  if (!/^[a-z0-9][a-z0-9-]*$/.test(spec.id)) {
    throw new KeysteadError("upgrade/bad-id", `${JSON.stringify(spec.id)} is no id of an upgrade`, {
      argument: "id",
      remedy: "use lower-case letters, digits and hyphens, for example 007-v2",
    });
  }
  log("checking that the deployed implementations are the ones recorded and built here");
  await requireAsRecorded(connection, deployment);

  const { contracts } = deployment;
  const plugin = await upgrades(hre, connection as Parameters<typeof upgrades>[1]);
  for (const [current, next, constructorArgs] of [
    [contracts.policyImplementation.source, spec.policy, []],
    [contracts.registryImplementation.source, spec.registry, [contracts.policy.address]],
  ] as const) {
    log(`${next}: storage layout and initialisers, against ${current}`);
    const [from, to] = [
      await connection.ethers.getContractFactory(current),
      await connection.ethers.getContractFactory(next),
    ];
    // The plugin needs the arguments and its types don't know it, so they go in by a name of their own.
    const validation = { kind: "uups" as const, constructorArgs: [...constructorArgs] };
    try {
      await plugin.validateUpgrade(from, to, validation);
    } catch (cause) {
      throw new KeysteadError("upgrade/unsafe", `${next} cannot follow ${current}: ${String(cause)}`, {
        argument: next,
        remedy:
          "keep every storage variable where it is, append new ones, and keep initialisers disabled in the constructor",
        cause,
      });
    }
    await checkAppendOnly(current, next);
  }

  const implementations = await runModule(connection, upgradeModule(spec, contracts.policy.address), {
    folder: join(options.folder ?? DEPLOYMENTS_FOLDER, `${deployment.network}-${spec.id}`),
    artifacts: hre.artifacts,
    parameters: {},
    log,
  });
  const policyImplementation = await requireCode(
    connection,
    implementations.policyImplementation,
    contracts.policy.address,
  );
  const registryImplementation = await requireCode(
    connection,
    implementations.registryImplementation,
    contracts.policy.address,
  );

  const delaySeconds = await fetchMinDelay(connection, contracts.timelock.address);
  const build = (id: string, calls: readonly TimelockCall[], predecessor?: string) =>
    buildTimelockOperation({
      id,
      chainId: deployment.chainId,
      timelock: contracts.timelock.address,
      calls,
      delaySeconds,
      ...(predecessor === undefined ? {} : { predecessor }),
    });
  const operation = build(`${spec.id}-upgrade`, [
    upgradeCall(contracts.policy.address, policyImplementation.address, spec.policyCall),
    upgradeCall(contracts.registry.address, registryImplementation.address, spec.registryCall),
  ]);
  const rollback = build(
    `${spec.id}-rollback`,
    [
      upgradeCall(contracts.policy.address, contracts.policyImplementation.address),
      upgradeCall(contracts.registry.address, contracts.registryImplementation.address),
    ],
    operation.operationId,
  );
  return { id: spec.id, policyImplementation, registryImplementation, operation, rollback };
}

/** The deployment as it is once the upgrade has been executed; its rollback leads back to the one it came from. */
export function applyUpgrade(deployment: Deployment, upgrade: PreparedUpgrade): Deployment {
  const { policyImplementation, registryImplementation } = upgrade;
  return { ...deployment, contracts: { ...deployment.contracts, policyImplementation, registryImplementation } };
}

/**
 * Checks a deployment on chain as {@link verifyDeployment} does, with implementations built from what the deployment names, which may be later
 * versions than the first.
 */
export function verifyUpgraded(connection: Connection, deployment: Deployment) {
  const { policyImplementation, registryImplementation } = deployment.contracts;
  const sources: Record<DeployedContractName, string> = {
    ...PUBLISHED_SOURCES,
    policyImplementation: policyImplementation.source,
    registryImplementation: registryImplementation.source,
  };
  return verifyDeployment(connection, deployment, hre.artifacts, sources);
}

/**
 * The deployment as it was before an upgrade, if both proxies run that code again: after a rollback the record names code that no longer runs.
 *
 * @param before the record that was kept when the upgrade was recorded; undefined where none was
 * @returns undefined where nothing was rolled back
 * @throws KeysteadError `upgrade/half-rolled-back` where one proxy went back and the other did not
 * @example
 * const back = await findRolledBack(connection, deployment, readDeploymentBefore("sepolia", "v2"));
 */
export async function findRolledBack(
  connection: Connection,
  deployment: Deployment,
  before: Deployment | undefined,
): Promise<Deployment | undefined> {
  if (before === undefined) return undefined;
  const proxies = [
    ["policy", "policyImplementation"],
    ["registry", "registryImplementation"],
  ] as const;
  const back: string[] = [];
  const forward: string[] = [];
  for (const [proxy, name] of proxies) {
    const now = await implementationOf(connection, deployment.contracts[proxy].address);
    if (now === deployment.contracts[name].address) forward.push(proxy);
    else if (now === before.contracts[name].address) back.push(proxy);
  }
  if (back.length === proxies.length) return before;
  if (back.length === 0) return undefined;
  throw new KeysteadError(
    "upgrade/half-rolled-back",
    `${back.join()} runs the previous code, ${forward.join()} does not`,
    {
      argument: "deployment",
      remedy: "find out who changed one of them alone; nothing is recorded",
    },
  );
}

const implementationOf = async (connection: Connection, proxy: string): Promise<string> => {
  const data = PROXY_ABI.encodeFunctionData("implementation");
  const answer = await connection.ethers.provider.call({ to: proxy, data });
  return getAddress(String(PROXY_ABI.decodeFunctionResult("implementation", answer)[0]));
};

/** Whether both proxies already have an upgrade's implementations. */
export async function isExecuted(
  connection: Connection,
  deployment: Deployment,
  upgrade: PreparedUpgrade,
): Promise<boolean> {
  return (
    (await implementationOf(connection, deployment.contracts.policy.address)) ===
      upgrade.policyImplementation.address &&
    (await implementationOf(connection, deployment.contracts.registry.address)) ===
      upgrade.registryImplementation.address
  );
}

/** The timelock's delay as it is now: one that was raised since deployment would make the scheduling revert. */
async function fetchMinDelay(connection: Connection, timelock: string): Promise<bigint> {
  const data = PROXY_ABI.encodeFunctionData("getMinDelay");
  const answer = await connection.ethers.provider.call({ to: timelock, data });
  return BigInt(PROXY_ABI.decodeFunctionResult("getMinDelay", answer)[0]);
}

function upgradeModule(spec: UpgradeSpec, policy: string) {
  return buildModule("Upgrade", (m) => ({
    policyImplementation: m.contract(spec.policy, [], { id: "policyImplementation" }),
    registryImplementation: m.contract(spec.registry, [policy], { id: "registryImplementation" }),
  }));
}

function upgradeCall(proxy: string, implementation: string, call = "0x"): TimelockCall {
  const data =
    call === "0x"
      ? PROXY_ABI.encodeFunctionData("upgradeTo", [implementation])
      : PROXY_ABI.encodeFunctionData("upgradeToAndCall", [implementation, call]);
  return { to: proxy, value: 0n, data };
}

async function requireAsRecorded(connection: Connection, deployment: Deployment): Promise<void> {
  const chainId = await fetchChainId(connection);
  const differences: string[] = chainId === deployment.chainId ? [] : [`the chain's id is ${chainId}`];
  for (const name of ["policyImplementation", "registryImplementation"] as const) {
    const { address, source } = deployment.contracts[name];
    const code = await connection.ethers.provider.getCode(address);
    const artifact = await hre.artifacts.readArtifact(source);
    const allowed = [address, deployment.contracts.policy.address];
    differences.push(...compareCode(code, artifact, allowed).map((difference) => `${name}: ${difference}`));
  }
  if (differences.length > 0) {
    throw new KeysteadError(
      "upgrade/not-as-recorded",
      `the deployed implementations are not the ones built here:\n- ${differences.join("\n- ")}`,
      {
        argument: "deployment",
        remedy:
          "check out the version that was deployed beside the new one, so that layouts are compared with what really runs",
        details: { differences },
      },
    );
  }
}

async function requireCode(connection: Connection, contract: DeployedContract | undefined, policy: string) {
  if (contract === undefined) throw new Error("the upgrade module names its contracts otherwise");
  const code = await connection.ethers.provider.getCode(contract.address);
  const artifact = await hre.artifacts.readArtifact(contract.source);
  const differences = compareCode(code, artifact, [contract.address, policy]);
  if (differences.length > 0) {
    throw new KeysteadError(
      "upgrade/wrong-code",
      `${contract.source} at ${contract.address}: ${differences.join("; ")}`,
      {
        remedy: "do not schedule this upgrade; move the upgrade's journal away and prepare it again",
        details: { differences },
      },
    );
  }
  if ((await fetchInitializedVersion(connection, contract.address)) !== INITIALIZERS_DISABLED) {
    throw new KeysteadError(
      "upgrade/not-locked",
      `anyone can initialise ${contract.source} at ${contract.address} itself`,
      {
        remedy: "call _disableInitializers() in its constructor; the plugin's checks do not notice when it is missing",
      },
    );
  }
  return contract;
}
