import { expect } from "chai";
import type { BaseContract, ContractTransactionResponse, Interface, Log, Result, TransactionReceipt } from "ethers";
import { concat, keccak256 } from "ethers";
import type { Suite } from "./suite.ts";

/** `Decision.sol` by name: the number is the position in the enum (pins.test.ts reads it from the source). */
export const DECISIONS = [
  "ServiceUnknown",
  "Allowed",
  "ImageUnknown",
  "ImageRemoved",
  "ImagePending",
  "ImageRetired",
  "ServiceTcbNotUpToDate",
  "ServiceDeviceNotAllowed",
  "ReleasePaused",
  "TeeSuspended",
  "TcbNotAccepted",
  "PlatformNotAllowed",
  "PlatformKindMismatch",
  "DeviceNotAllowed",
  "KmsImageNotAllowed",
  "PolicyUnavailable",
] as const;
export type DecisionName = (typeof DECISIONS)[number];

export const MAX_PAUSE = 14 * 86_400;
export const MAX_TEXT = 512;
export const UNKNOWN_KINDS = [0, 5, 16, 255] as const;
export const STATE = { unknown: 0n, allowed: 1n, revoked: 2n } as const;

type RawLog = Pick<Log, "topics" | "data">;

/** One step of the hash chain, from the raw log: what an auditor computes without any ABI. */
export const chainLog = (head: string, log: RawLog): string =>
  keccak256(concat([head, keccak256(concat([...log.topics, log.data]))]));

/** The result of a call by name: tables of functions need no method of its own for each. */
export function send(contract: BaseContract, name: string, args: readonly unknown[]) {
  return contract.getFunction(name)(...args) as Promise<ContractTransactionResponse>;
}

/** A struct that a view returned, as a plain object: TypeChain's types hide that ethers can do that. */
export const fieldsOf = (struct: object): Record<string, unknown> => (struct as Result).toObject();

/** Numbers as ethers reports them, so that expectations can be written as plain numbers. */
const normal = (value: unknown): unknown => (typeof value === "number" ? BigInt(value) : value);

/**
 * Sends a change of the policy and checks everything that holds for each: exactly one event, its name and every field, encoded canonically, the version
 * raised by one, the block before, and the head as the fold of the raw log.
 */
export async function expectChange(
  { policy }: Pick<Suite, "policy">,
  act: () => Promise<ContractTransactionResponse>,
  event: string,
  fields: Readonly<Record<string, unknown>>,
): Promise<TransactionReceipt> {
  const [version, previousBlock, head] = await Promise.all([
    policy.policyVersion(),
    policy.lastUpdateBlock(),
    policy.historyHead(),
  ]);
  const receipt = await (await act()).wait();
  if (!receipt) throw new Error("no receipt");
  const address = await policy.getAddress();
  expect(
    receipt.logs.map((log) => log.address),
    "every log is the policy's",
  ).to.deep.equal([address]);
  const [log] = receipt.logs;
  if (!log) throw new Error("no log");
  const abi = policy.interface as Interface;
  const parsed = abi.parseLog(log);
  if (!parsed) throw new Error(`a log that is no event: ${log.topics[0]}`);
  expect(parsed.name).to.equal(event);
  const { timestamp } = (await policy.runner?.provider?.getBlock(receipt.blockNumber)) ?? { timestamp: 0 };
  // Times that are stored and that the caller does not expect to be others are the block's.
  const times = parsed.fragment.inputs.filter(
    ({ name }) => name === "since" || (event === "ResumeRelease" && name === "until"),
  );
  const expected = {
    ...Object.fromEntries(times.map(({ name }) => [name, timestamp])),
    ...fields,
    policyVersion: version + 1n,
    previousBlock,
  };
  expect(parsed.args.toObject()).to.deep.equal(
    Object.fromEntries(Object.entries(expected).map(([name, value]) => [name, normal(value)])),
  );
  const canonical = abi.encodeEventLog(parsed.fragment, [...parsed.args]);
  expect({ topics: [...log.topics], data: log.data }, "canonical encoding").to.deep.equal(canonical);
  expect(await policy.policyVersion(), "policyVersion").to.equal(version + 1n);
  expect(await policy.lastUpdateBlock(), "lastUpdateBlock").to.equal(BigInt(receipt.blockNumber));
  expect(await policy.historyHead(), "historyHead").to.equal(chainLog(head, log));
  return receipt;
}

/** Checks that a change is refused with this custom error and exactly these values. */
export async function expectRefusal(
  { policy }: Pick<Suite, "policy">,
  act: () => Promise<unknown>,
  error: string,
  ...values: readonly unknown[]
): Promise<void> {
  await expect(act())
    .to.be.revertedWithCustomError(policy, error)
    .withArgs(...values);
}

/** The timestamp of the latest block, in seconds. */
export async function now({ connection }: Pick<Suite, "connection">): Promise<number> {
  return connection.networkHelpers.time.latest();
}

/** What `decide` says, by name. */
export async function decide(
  { policy }: Pick<Suite, "policy">,
  question: { kind: number; platformId: string; deviceId: string; tcbStatus: number },
): Promise<DecisionName | undefined> {
  const { kind, platformId, deviceId, tcbStatus } = question;
  return DECISIONS[Number(await policy.decide(kind, platformId, deviceId, tcbStatus))];
}
