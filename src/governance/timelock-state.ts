import { Interface, id } from "ethers";
import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { scanLogs } from "../chain/logs.ts";
import { callView } from "../chain/reads.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";

/**
 * Where an operation stands at its timelock. `unset`: never scheduled, or cancelled. `expired`: it was ready for the whole of the timelock's grace period
 * and was not executed; it can be scheduled again, under the same id.
 */
export type TimelockPhase = "unset" | "waiting" | "ready" | "expired" | "done";

/** What a timelock answers about one operation at a block. */
export interface TimelockState {
  readonly phase: TimelockPhase;
  /** From when on it can be executed, seconds since 1970; undefined while `unset` or `done`. For one that `expired`, from when on it could. */
  readonly readyAt: bigint | undefined;
  /** From when on it can no longer be executed, seconds since 1970; undefined where `readyAt` is, and at a timelock whose operations never expire. */
  readonly expiresAt: bigint | undefined;
  /** The shortest delay that it takes for new operations, seconds. */
  readonly minDelay: bigint;
}

const TIMELOCK_VIEWS = new Interface([
  "function getTimestamp(bytes32 id) view returns (uint256)",
  "function getMinDelay() view returns (uint256)",
  "function hasRole(bytes32 role, address account) view returns (bool)",
  "function GRACE_PERIOD() view returns (uint256)",
]);
const CANCELLED = toHex(fromHex(id("Cancelled(bytes32)"), "topic"));
/** TimelockController: the timestamp of an operation that is done. */
const DONE = 1n;

const lower = (address: string): Hex => toHex(fromHex(address, "address"));

/**
 * Where an operation stands, judged by the block's own time.
 *
 * @throws KeysteadError `chain/not-this-contract` where no timelock stands there; as `Client.request`
 * @example
 * (await fetchTimelockState(client, block, timelock, operationId)).phase;
 */
export async function fetchTimelockState(
  client: Client,
  block: Block,
  timelock: string,
  operationId: Hex,
): Promise<TimelockState> {
  const ask = (name: string, args: readonly unknown[]) =>
    callView(client, TIMELOCK_VIEWS, lower(timelock), block, name, args);
  const [[timestamp], [minDelay], grace] = await Promise.all([
    ask("getTimestamp", [operationId]),
    ask("getMinDelay", []),
    fetchGracePeriod(client, block, timelock),
  ]);
  const at = BigInt(timestamp);
  const readyAt = at <= DONE ? undefined : at;
  const expiresAt = readyAt === undefined || grace === undefined ? undefined : readyAt + grace;
  return { phase: phaseAt(at, expiresAt, BigInt(block.timestamp)), readyAt, expiresAt, minDelay: BigInt(minDelay) };
}

function phaseAt(timestamp: bigint, expiresAt: bigint | undefined, now: bigint): TimelockPhase {
  if (timestamp === 0n) return "unset";
  if (timestamp === DONE) return "done";
  if (now < timestamp) return "waiting";
  return expiresAt !== undefined && now >= expiresAt ? "expired" : "ready";
}

/**
 * For how long a timelock's operations can be executed once they are ready, seconds; undefined where they never expire: at OpenZeppelin's own
 * TimelockController, which has no such view.
 *
 * @throws KeysteadError as `Client.request`
 * @example
 * await fetchGracePeriod(client, block, timelock); // 1209600n
 */
export async function fetchGracePeriod(client: Client, block: Block, timelock: string): Promise<bigint | undefined> {
  try {
    const [grace] = await callView(client, TIMELOCK_VIEWS, lower(timelock), block, "GRACE_PERIOD", []);
    return BigInt(grace);
  } catch (error) {
    if (isKeysteadError(error, "chain/reverted") || isKeysteadError(error, "chain/not-this-contract")) return undefined;
    throw error;
  }
}

/**
 * Whether an account holds one of the timelock's roles, e.g. `PROPOSER_ROLE`.
 *
 * @example
 * await holdsRole(client, block, timelock, "PROPOSER_ROLE", safe);
 */
export async function holdsRole(
  client: Client,
  block: Block,
  timelock: string,
  role: "PROPOSER_ROLE" | "EXECUTOR_ROLE" | "CANCELLER_ROLE",
  account: string,
): Promise<boolean> {
  const [held] = await callView(client, TIMELOCK_VIEWS, lower(timelock), block, "hasRole", [id(role), account]);
  return held === true;
}

/**
 * The block in which an operation was last cancelled; undefined if it never was, up to `block`.
 *
 * @param fromBlock a block before which it cannot have been
 * @throws KeysteadError as `scanLogs`
 * @example
 * await findCancellation(client, block, timelock, operationId, deployment.block);
 */
export async function findCancellation(
  client: Client,
  block: Block,
  timelock: string,
  operationId: Hex,
  fromBlock: number,
): Promise<number | undefined> {
  const logs = await scanLogs(
    client,
    { address: lower(timelock), topics: [CANCELLED, operationId] },
    fromBlock,
    block.number,
  );
  return logs.at(-1)?.blockNumber;
}
