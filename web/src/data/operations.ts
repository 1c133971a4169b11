import type { LocatedLog } from "../../../src/chain/logs.ts";
import { foldOperations, type ScheduledCall } from "../../../src/chain/operations.ts";
import type { Hex } from "../../../src/core/bytes.ts";
import type { RawLog } from "../../../src/core/events.ts";

/** `pending` waits out its delay; `ready` may be executed. */
export type OperationStatus = "pending" | "ready" | "done" | "cancelled";

/** One scheduled operation and what became of it, as the timelock's logs tell it. Times in seconds since 1970. */
export interface TimelockEntry {
  readonly id: Hex;
  readonly calls: readonly ScheduledCall[];
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

/**
 * A timelock's operations with their times, from its logs in chain order.
 *
 * @param now the block's time, in seconds since 1970
 * @example
 * timeOperations(located, block.timestamp).filter(({ status }) => status === "pending");
 */
export function timeOperations(located: readonly LocatedLog[], now: number): readonly TimelockEntry[] {
  const times = new Map(located.map(({ log, block }) => [log, block.timestamp]));
  const timeOf = (log: RawLog | undefined) => (log === undefined ? 0 : (times.get(log) ?? 0));
  return foldOperations(located.map(({ log }) => log)).operations.map((operation) => {
    const { id, calls, predecessor, salt, delay, scheduled, executed, cancelled, genuine } = operation;
    const scheduledAt = timeOf(scheduled);
    const readyAt = scheduledAt + Number(delay);
    const waits = now < readyAt ? "pending" : "ready";
    const status = executed !== undefined ? "done" : cancelled !== undefined ? "cancelled" : waits;
    const endedAt = timeOf(executed ?? cancelled);
    const transaction = scheduled.transactionHash;
    return {
      id,
      calls,
      predecessor,
      salt,
      scheduledAt,
      readyAt,
      status,
      endedAt,
      transaction,
      genuine,
      disputed: false,
    };
  });
}
