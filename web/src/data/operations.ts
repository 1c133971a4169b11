import { type Dismissal, dismissalOf } from "../../../src/chain/dismissal.ts";
import type { LocatedLog } from "../../../src/chain/logs.ts";
import { foldOperations, type ScheduledCall } from "../../../src/chain/operations.ts";
import type { Hex } from "../../../src/core/bytes.ts";
import type { RawLog } from "../../../src/core/events.ts";

/** `pending` waits out its delay; `ready` may be executed; `expired` was ready, and was not executed in time. */
export type OperationStatus = "pending" | "ready" | "expired" | "done" | "cancelled";

/** One scheduled operation and what became of it, as the timelock's logs tell it. Times in seconds since 1970. */
export interface TimelockEntry {
  readonly id: Hex;
  readonly calls: readonly ScheduledCall[];
  readonly predecessor: Hex;
  readonly salt: Hex;
  readonly scheduledAt: number;
  readonly readyAt: number;
  /** From when on it can no longer be executed; 0 where that never comes. */
  readonly expiresAt: number;
  /** What it dismisses; then a proposer alone can cancel it. */
  readonly dismissal: Dismissal | undefined;
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
 * @param terms the timelock's address, and for how many seconds a ready operation can be executed: undefined where operations never expire
 * @example
 * timeOperations(located, block.timestamp, { timelock, grace: 1_209_600 }).filter(({ status }) => status === "pending");
 */
export function timeOperations(
  located: readonly LocatedLog[],
  now: number,
  { timelock, grace }: { readonly timelock: Hex; readonly grace: number | undefined },
): readonly TimelockEntry[] {
  const times = new Map(located.map(({ log, block }) => [log, block.timestamp]));
  const timeOf = (log: RawLog | undefined) => (log === undefined ? 0 : (times.get(log) ?? 0));
  return foldOperations(located.map(({ log }) => log)).operations.map((operation) => {
    const { id, calls, predecessor, salt, delay, scheduled, executed, cancelled, genuine } = operation;
    const scheduledAt = timeOf(scheduled);
    const readyAt = scheduledAt + Number(delay);
    const expiresAt = grace === undefined ? 0 : readyAt + grace;
    const waits = now < readyAt ? "pending" : expiresAt !== 0 && now >= expiresAt ? "expired" : "ready";
    const made = calls.map(({ target, value, data }) => ({ to: target, value, data }));
    const dismissal = grace === undefined ? undefined : dismissalOf(made, predecessor, timelock);
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
      expiresAt,
      dismissal,
      status,
      endedAt,
      transaction,
      genuine,
      disputed: false,
    };
  });
}
