import type { HardhatEthersSigner } from "@nomicfoundation/hardhat-ethers/types";
import { id, type TransactionResponse, ZeroHash } from "ethers";
import {
  type GovernanceTimelock,
  GovernanceTimelock__factory,
  type KmsRegistry,
  KmsRegistry__factory,
  type PlatformPolicy,
  PlatformPolicy__factory,
} from "../../typechain-types/index.ts";
import { connection } from "./connection.ts";
import { KIND, PLATFORM } from "./images.ts";
import { contractSigner, DAY, deploy } from "./suite.ts";

const { ethers, networkHelpers } = connection;

/** The delay of the timelock under test, seconds. */
export const DELAY = 2 * DAY;
export const GRACE = 14 * DAY;

export const ROLE = {
  admin: ZeroHash,
  proposer: id("PROPOSER_ROLE"),
  executor: id("EXECUTOR_ROLE"),
  canceller: id("CANCELLER_ROLE"),
  governor: id("keystead.GOVERNOR"),
  guardian: id("keystead.GUARDIAN"),
} as const;

/** A call of an operation. */
export interface TimelockCall {
  readonly to: string;
  readonly value?: bigint;
  readonly data: string;
}

/** An operation, as `scheduleBatch` takes it. */
export interface Batch {
  readonly calls: readonly TimelockCall[];
  readonly predecessor?: string;
  readonly salt?: string;
}

const partsOf = ({ calls, predecessor = ZeroHash, salt = ZeroHash }: Batch) =>
  [
    calls.map(({ to }) => to),
    calls.map(({ value = 0n }) => value),
    calls.map(({ data }) => data),
    predecessor,
    salt,
  ] as const;

/** The suite under a real timelock; contract accounts stand for the two Safes and a stranger's Safe. */
export interface TimelockWorld {
  readonly timelock: GovernanceTimelock;
  readonly policy: PlatformPolicy;
  readonly registry: KmsRegistry;
  /** Where the timelock, the policy and the registry are. */
  readonly at: { readonly timelock: string; readonly policy: string; readonly registry: string };
  readonly governance: HardhatEthersSigner;
  readonly guardian: HardhatEthersSigner;
  readonly successor: HardhatEthersSigner;
  readonly eve: HardhatEthersSigner;
  readonly grant: (to: string, role: string, account: string) => TimelockCall;
  readonly revoke: (to: string, role: string, account: string) => TimelockCall;
  readonly idOf: (batch: Batch) => Promise<string>;
  /** Schedules as the governance Safe; answers the operation's id. */
  readonly schedule: (batch: Batch, delay?: number) => Promise<string>;
  readonly execute: (batch: Batch) => Promise<TransactionResponse>;
  /** Schedules, waits and executes. */
  readonly enact: (batch: Batch, delay?: number) => Promise<TransactionResponse>;
}

/** Timelock, policy with TDX open, and registry, as they stand after a deployment. */
export async function timelockWorld(): Promise<TimelockWorld> {
  const [deployer, eve] = await ethers.getSigners();
  if (!deployer || !eve) throw new Error("two accounts are needed");
  const account = async () => contractSigner(connection, await deploy(connection, "Actor"));
  const [governance, guardian, successor] = [await account(), await account(), await account()];
  const timelockAt = await deploy(connection, "GovernanceTimelock", [DELAY, governance.address, guardian.address]);
  const policyInit = PlatformPolicy__factory.createInterface().encodeFunctionData("initialize", [
    timelockAt,
    guardian.address,
  ]);
  const policyAt = await deploy(connection, "ERC1967Proxy", [await deploy(connection, "PlatformPolicy"), policyInit]);
  const registryInit = KmsRegistry__factory.createInterface().encodeFunctionData("initialize", [timelockAt]);
  const registryCode = await deploy(connection, "KmsRegistry", [policyAt]);
  const registryAt = await deploy(connection, "ERC1967Proxy", [registryCode, registryInit]);
  const timelock = GovernanceTimelock__factory.connect(timelockAt, deployer);
  const policy = PlatformPolicy__factory.connect(policyAt, deployer);
  const governor = policy.connect(await contractSigner(connection, timelockAt));
  await governor.enableTee(KIND.tdx);
  await governor.acceptTcb(KIND.tdx, 1);
  await governor.allowPlatform(PLATFORM.tdx, "");

  const schedule = async (batch: Batch, delay = DELAY) => {
    await timelock.connect(governance).scheduleBatch(...mutable(batch), delay);
    return idOf(batch);
  };
  const idOf = (batch: Batch) => timelock.hashOperationBatch(...mutable(batch));
  const execute = (batch: Batch) => timelock.connect(governance).executeBatch(...mutable(batch));
  const { interface: abi } = timelock;
  return {
    ...{ timelock, policy, registry: KmsRegistry__factory.connect(registryAt, deployer) },
    ...{ governance, guardian, successor, eve, schedule, execute, idOf },
    at: { timelock: timelockAt, policy: policyAt, registry: registryAt },
    grant: (to, role, of) => ({ to, data: abi.encodeFunctionData("grantRole", [role, of]) }),
    revoke: (to, role, of) => ({ to, data: abi.encodeFunctionData("revokeRole", [role, of]) }),
    enact: async (batch, delay = DELAY) => {
      await schedule(batch, delay);
      await networkHelpers.time.increase(delay);
      return execute(batch);
    },
  };
}

/** typechain's arguments are mutable. */
function mutable(batch: Batch): [string[], bigint[], string[], string, string] {
  const [targets, values, payloads, predecessor, salt] = partsOf(batch);
  return [targets, values, payloads, predecessor, salt];
}

/** The calls that take both offices from a guardian; with a successor, each office is given first. */
export function dismissal(
  { grant, revoke, at }: Pick<TimelockWorld, "grant" | "revoke" | "at">,
  outgoing: string,
  incoming?: string,
): readonly TimelockCall[] {
  const offices = [
    [at.policy, ROLE.guardian],
    [at.timelock, ROLE.canceller],
  ] as const;
  return offices.flatMap(([to, role]) => [
    ...(incoming === undefined ? [] : [grant(to, role, incoming)]),
    revoke(to, role, outgoing),
  ]);
}
