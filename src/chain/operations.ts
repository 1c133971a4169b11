import { keccak_256 } from "@noble/hashes/sha3.js";
import { AbiCoder, Interface } from "ethers/abi";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import type { RawLog } from "../core/events.ts";
import { TIMELOCK_ABI } from "./abi/timelock.ts";

/*
 * What a timelock's logs tell of its operations. No hash chain covers these logs: whoever reads them holds them against the timelock's views. One thing they
 * prove by themselves: an operation's id is the hash of its calls.
 */

/** One call of an operation, as it was logged. */
export interface ScheduledCall {
  readonly target: Hex;
  /** Wei. */
  readonly value: bigint;
  readonly data: Hex;
}

/** One scheduled operation and what became of it. */
export interface ScheduledOperation {
  readonly id: Hex;
  readonly calls: readonly ScheduledCall[];
  readonly predecessor: Hex;
  /** Zero where it was scheduled with none: then the timelock logs none. */
  readonly salt: Hex;
  /** Seconds between scheduling and the first moment in which it may be executed. */
  readonly delay: bigint;
  readonly scheduled: RawLog;
  /** The last log of its execution. */
  readonly executed: RawLog | undefined;
  readonly cancelled: RawLog | undefined;
  /** Whether the calls hash to the id. Where they do not, the endpoint shows other calls than were scheduled, or not all of them. */
  readonly genuine: boolean;
}

/** A change of the minimum delay. */
export interface DelayChange {
  readonly log: RawLog;
  readonly from: bigint;
  readonly to: bigint;
}

const TIMELOCK = new Interface(TIMELOCK_ABI);
const ZERO_WORD: Hex = `0x${"00".repeat(32)}`;
/** More calls do not fit into a block. */
const MAX_CALLS = 1024;

interface Draft extends Omit<ScheduledOperation, "genuine" | "calls"> {
  calls: (ScheduledCall | undefined)[];
  salt: Hex;
  executed: RawLog | undefined;
  cancelled: RawLog | undefined;
}

/**
 * Folds a timelock's logs to its operations, in the order in which they were (last) scheduled, and the changes of its minimum delay.
 *
 * @param logs oldest first; logs that are no timelock's are passed over
 * @example
 * foldOperations(await scanLogs(client, { address: timelock }, deployedAt, block.number)).operations.filter(({ genuine }) => !genuine); // []
 */
export function foldOperations(logs: readonly RawLog[]): {
  readonly operations: readonly ScheduledOperation[];
  readonly delays: readonly DelayChange[];
} {
  const drafts = new Map<Hex, Draft>();
  const delays: DelayChange[] = [];
  for (const log of logs) {
    const parsed = parse(log);
    if (parsed === null) continue;
    const { name, args } = parsed;
    if (name === "MinDelayChange") {
      delays.push({ log, from: BigInt(args.oldDuration), to: BigInt(args.newDuration) });
      continue;
    }
    if (args.id === undefined) continue;
    const id = lower(args.id);
    const draft = drafts.get(id);
    if (name === "CallScheduled") {
      // an operation that was cancelled, or expired, can be scheduled again under the same id
      const { blockNumber, transactionHash } = draft?.scheduled ?? log;
      const again = blockNumber !== log.blockNumber || transactionHash !== log.transactionHash;
      const fresh = draft === undefined || draft.cancelled !== undefined || again;
      const open = fresh ? schedule(id, log, args.predecessor, args.delay) : draft;
      const index = Number(args.index);
      if (index < MAX_CALLS) {
        open.calls[index] = { target: lower(args.target), value: BigInt(args.value), data: lower(args.data) };
      }
      if (fresh) drafts.delete(id);
      drafts.set(id, open);
    } else if (draft === undefined) continue;
    else if (name === "CallSalt") draft.salt = lower(args.salt);
    else if (name === "CallExecuted") draft.executed = log;
    else if (name === "Cancelled") draft.cancelled = log;
  }
  const operations = [...drafts.values()].map((draft) => {
    const calls = draft.calls.flatMap((call) => (call === undefined ? [] : [call]));
    return { ...draft, calls, genuine: isGenuine({ ...draft, calls }) };
  });
  return { operations, delays };
}

function schedule(id: Hex, log: RawLog, predecessor: unknown, delay: unknown): Draft {
  const open = { salt: ZERO_WORD, executed: undefined, cancelled: undefined };
  return { id, calls: [], predecessor: lower(predecessor), delay: BigInt(String(delay)), scheduled: log, ...open };
}

function parse(log: RawLog) {
  try {
    return TIMELOCK.parseLog(log);
  } catch {
    return null; // a topic of the timelock's over data that is none
  }
}

/** OpenZeppelin's `hashOperationBatch`, or `hashOperation` for what was scheduled as a single call. */
function isGenuine({ id, calls, predecessor, salt }: Omit<ScheduledOperation, "genuine">): boolean {
  const hash = (types: readonly string[], values: readonly unknown[]) =>
    toHex(
      keccak_256(
        fromHex(
          AbiCoder.defaultAbiCoder().encode([...types, "bytes32", "bytes32"], [...values, predecessor, salt]),
          "calls",
        ),
      ),
    );
  const [targets, values, data] = [calls.map((c) => c.target), calls.map((c) => c.value), calls.map((c) => c.data)];
  if (hash(["address[]", "uint256[]", "bytes[]"], [targets, values, data]) === id) return true;
  return calls.length === 1 && hash(["address", "uint256", "bytes"], [targets[0], values[0], data[0]]) === id;
}

function lower(value: unknown): Hex {
  return String(value).toLowerCase() as Hex;
}
