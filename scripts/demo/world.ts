import { type ContractTransactionResponse, Interface } from "ethers";
import type { Connection } from "../../deploy/connection.ts";
import type { DeploymentParameters } from "../../deploy/parameters.ts";
import { executeThroughSafe, extractRevertData } from "../../deploy/safe/account.ts";
import type { Deployment } from "../../src/chain/deployment.ts";
import { DECISIONS } from "../../src/core/decision.ts";
import { buildTimelockOperation, type TimelockCall, type TimelockOperation } from "../../src/governance/timelock.ts";
import {
  GovernanceTimelock__factory,
  type KmsRegistry,
  KmsRegistry__factory,
  type PlatformPolicy,
  PlatformPolicy__factory,
} from "../../typechain-types/index.ts";
import { did } from "./stage.ts";

export const HOUR = 3600;
export const DAY = 24 * HOUR;

type Signer = Awaited<ReturnType<Connection["ethers"]["getSigners"]>>[number];

/** Who acts, and on what. */
export interface World {
  readonly connection: Connection;
  readonly deployment: Deployment;
  readonly registry: KmsRegistry;
  readonly policy: PlatformPolicy;
  /** Owners whose signatures reach the threshold. */
  readonly governanceSigners: readonly string[];
  readonly guardianSigners: readonly string[];
  readonly deployer: Signer;
  /** The admin of the services. */
  readonly ada: Signer;
  /** A stranger. */
  readonly eve: Signer;
}

export async function enter(
  connection: Connection,
  deployment: Deployment,
  parameters: DeploymentParameters,
): Promise<World> {
  const signers = await connection.ethers.getSigners();
  const [deployer, ada, eve] = [signers[0], signers[7], signers[8]];
  if (!deployer || !ada || !eve) throw new Error("the network has fewer than nine accounts");
  return {
    connection,
    deployment,
    registry: KmsRegistry__factory.connect(deployment.contracts.registry.address, ada),
    policy: PlatformPolicy__factory.connect(deployment.contracts.policy.address, ada),
    governanceSigners: signersOf(parameters.governance),
    guardianSigners: signersOf(parameters.guardian),
    deployer,
    ada,
    eve,
  };
}

function signersOf(safe: DeploymentParameters["governance"]): readonly string[] {
  if (!("owners" in safe)) throw new Error("the demo creates its own Safes");
  return safe.owners.slice(0, safe.threshold);
}

/** A machine's request, as a key-delivery node asks it: the decision's name. */
export async function decide(
  { registry }: World,
  request: { serviceId: string; imageId: string; platformId: string; deviceId: string; tcbStatus: number },
): Promise<string> {
  const decision = await registry.authorize(request);
  return DECISIONS[Number(decision)] ?? `decision ${decision}`;
}

export function operation(
  { deployment }: World,
  id: string,
  calls: readonly Omit<TimelockCall, "value">[],
): TimelockOperation {
  return buildTimelockOperation({
    id,
    chainId: deployment.chainId,
    timelock: deployment.contracts.timelock.address,
    calls: calls.map((call) => ({ ...call, value: 0n })),
    delaySeconds: BigInt(deployment.delaySeconds),
  });
}

/** The governance Safe signs and sends: two of its three owners. */
export async function bySafe({ connection, deployment, governanceSigners }: World, data: string): Promise<void> {
  await executeThroughSafe(connection, {
    safe: deployment.safes.governance.address,
    signers: governanceSigners,
    calls: [{ to: deployment.contracts.timelock.address, data }],
  });
}

/** The guardian Safe signs and sends: no timelock, no waiting. */
export async function byGuardian({ connection, deployment, guardianSigners }: World, to: string, data: string) {
  return executeThroughSafe(connection, {
    safe: deployment.safes.guardian.address,
    signers: guardianSigners,
    calls: [{ to, data }],
  });
}

export async function schedule(world: World, { schedule: data, id }: TimelockOperation, what: string): Promise<void> {
  await bySafe(world, data);
  const hours = world.deployment.delaySeconds / HOUR;
  did(`scheduled through Safe and timelock: ${what} (operation ${id}, executable in ${hours} h)`);
}

export async function execute(world: World, { execute: data, id }: TimelockOperation): Promise<void> {
  await bySafe(world, data);
  did(`executed: operation ${id}`);
}

/** Lets time pass on the local chain. */
export async function wait({ connection }: World, seconds: number, why: string): Promise<void> {
  await connection.provider.request({ method: "evm_increaseTime", params: [seconds] });
  await connection.provider.request({ method: "evm_mine", params: [] });
  const days = seconds / DAY;
  did(
    `${days >= 1 ? `${days.toFixed(days % 1 === 0 ? 0 : 1)} days` : `${(seconds / HOUR).toFixed(1)} h`} pass: ${why}`,
  );
}

const ERRORS = [
  KmsRegistry__factory.createInterface(),
  PlatformPolicy__factory.createInterface(),
  GovernanceTimelock__factory.createInterface(),
  new Interface(["error Error(string)", "error Panic(uint256)"]),
];

/** Sends nothing: asks the node whether the call would go through, and names the contract's error if not. */
export async function outcomeOf(world: World, from: string, to: string, data: string): Promise<string> {
  try {
    await world.connection.ethers.provider.call({ from, to, data });
    return "accepted";
  } catch (error) {
    return errorName(extractRevertData(error), error);
  }
}

/** Sends a transaction that must fail, for real: mined and reverted, or refused by the node before. */
export async function outcomeOfSending(world: World, from: Signer, to: string, data: string): Promise<string> {
  try {
    const sent = await from.sendTransaction({ to, data, gasLimit: 1_000_000n });
    await sent.wait();
    return "accepted";
  } catch {
    return outcomeOf(world, from.address, to, data);
  }
}

/** The same through a Safe: what its inner call reverted with. */
export async function outcomeOfSafe(attempt: () => Promise<unknown>): Promise<string> {
  try {
    await attempt();
    return "accepted";
  } catch (error) {
    const reason: unknown = Reflect.get(Reflect.get(Object(error), "details") ?? {}, "reason");
    return errorName(typeof reason === "string" ? reason : extractRevertData(error), error);
  }
}

function errorName(data: string | undefined, error: unknown): string {
  if (data === undefined) return error instanceof Error ? error.message : String(error);
  for (const contract of ERRORS) {
    const parsed = contract.parseError(data);
    if (parsed !== null) return parsed.name;
  }
  return data.slice(0, 10);
}

export async function mined(sent: Promise<ContractTransactionResponse>): Promise<{ gasUsed: bigint }> {
  const receipt = await (await sent).wait();
  if (receipt === null) throw new Error("a transaction was not mined");
  return receipt;
}
