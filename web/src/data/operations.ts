import { AbiCoder, Interface } from "ethers/abi";
import { keccak256 } from "ethers/crypto";
import { TIMELOCK_ABI } from "../../../src/chain/abi/timelock.ts";
import type { LocatedLog } from "../../../src/chain/logs.ts";
import type { Hex } from "../../../src/core/bytes.ts";

/** One call of an operation. */
export interface TimelockCall {
  readonly target: Hex;
  /** Wei. */
  readonly value: bigint;
  readonly data: Hex;
}

/** `pending` waits out its delay; `ready` may be executed. */
export type OperationStatus = "pending" | "ready" | "done" | "cancelled";

/** One scheduled operation and what became of it, as the timelock's logs tell it. Times in seconds since 1970. */
export interface TimelockEntry {
  readonly id: Hex;
  readonly calls: readonly TimelockCall[];
  readonly predecessor: Hex;
  readonly salt: Hex;
  readonly scheduledAt: number;
  readonly readyAt: number;
  readonly status: OperationStatus;
  /** When it was executed or cancelled; 0 if neither. */
  readonly endedAt: number;
  readonly transaction: Hex;
  /** Whether the calls hash to the id. Where they do not, the endpoint shows other calls than were scheduled. */
  readonly genuine: boolean;
  /** Whether the timelock's view says something else. */
  readonly disputed: boolean;
}

const TIMELOCK = new Interface(TIMELOCK_ABI);
const ZERO_WORD: Hex = `0x${"00".repeat(32)}`;

interface Draft {
  id: Hex;
  calls: TimelockCall[];
  predecessor: Hex;
  salt: Hex;
  scheduledAt: number;
  readyAt: number;
  done: boolean;
  cancelled: boolean;
  endedAt: number;
  transaction: Hex;
}

/**
 * Folds a timelock's logs, in chain order, to its operations, oldest first.
 *
 * @param now the block's time, in seconds since 1970
 * @example
 * foldOperations(located, block.timestamp).filter(({ status }) => status === "pending");
 */
export function foldOperations(located: readonly LocatedLog[], now: number): readonly TimelockEntry[] {
  const drafts = new Map<Hex, Draft>();
  for (const { log, block } of located) {
    const parsed = parse(log);
    if (parsed === null) continue;
    const { name, args } = parsed;
    const id = String(args.id).toLowerCase() as Hex;
    const draft = drafts.get(id);
    if (name === "CallScheduled") {
      const call: TimelockCall = { target: lower(args.target), value: BigInt(args.value), data: lower(args.data) };
      // an operation that was cancelled may be scheduled again under the same id
      if (draft === undefined || draft.cancelled) {
        drafts.delete(id);
        const readyAt = block.timestamp + Number(args.delay);
        const open = { done: false, cancelled: false, endedAt: 0, salt: ZERO_WORD, transaction: log.transactionHash };
        const predecessor = lower(args.predecessor);
        drafts.set(id, { id, calls: [call], predecessor, scheduledAt: block.timestamp, readyAt, ...open });
      } else draft.calls.push(call);
    } else if (draft === undefined) continue;
    else if (name === "CallSalt") draft.salt = lower(args.salt);
    else if (name === "CallExecuted") {
      draft.done = true;
      draft.endedAt = block.timestamp;
    } else if (name === "Cancelled") {
      draft.cancelled = true;
      draft.endedAt = block.timestamp;
    }
  }
  return [...drafts.values()].map(({ done, cancelled, ...draft }) => {
    const status = done ? "done" : cancelled ? "cancelled" : now < draft.readyAt ? "pending" : "ready";
    return { ...draft, status, genuine: isGenuine(draft), disputed: false };
  });
}

function parse(log: LocatedLog["log"]) {
  try {
    return TIMELOCK.parseLog({ topics: [...log.topics], data: log.data });
  } catch {
    return null; // no event of a timelock: its roles, or something that it does not have
  }
}

/** OpenZeppelin's `hashOperationBatch`, or `hashOperation` for what was scheduled as a single call. */
function isGenuine({ id, calls, predecessor, salt }: Omit<Draft, "done" | "cancelled">): boolean {
  const coder = AbiCoder.defaultAbiCoder();
  const tail = [predecessor, salt];
  const [targets, values, data] = [calls.map((c) => c.target), calls.map((c) => c.value), calls.map((c) => c.data)];
  const batch = coder.encode(
    ["address[]", "uint256[]", "bytes[]", "bytes32", "bytes32"],
    [targets, values, data, ...tail],
  );
  if (keccak256(batch) === id) return true;
  if (calls.length !== 1) return false;
  const single = coder.encode(
    ["address", "uint256", "bytes", "bytes32", "bytes32"],
    [targets[0], values[0], data[0], ...tail],
  );
  return keccak256(single) === id;
}

function lower(value: unknown): Hex {
  return String(value).toLowerCase() as Hex;
}
