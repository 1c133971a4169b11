import { contextOf } from "../check.ts";
import { decodeCall } from "../decode.ts";
import type { Operation } from "../operation.ts";
import type { PlannedTransaction, StepName } from "../transactions.ts";
import { formatDuration, formatTime } from "../words.ts";
import { type Names, nameIn } from "./names.ts";
import { type Change, changesOf, stoppers } from "./summary.ts";

/** What one step does, as a signer asks it. */
export interface StepStory {
  /** One sentence. */
  readonly does: string;
  /** What gets looser or tighter by it, sooner or later; empty where it only stops something. */
  readonly changes: readonly Change[];
  /** Until when it can be stopped, and by whom. */
  readonly stop: string;
}

/**
 * Tells a step of a proposal: what it does, what changes, until when it can be stopped and by whom.
 *
 * @param now seconds since 1970, for when a delay would be over
 * @example
 * storyOf(operation, planStep(operation, "schedule"), names, 1_764_000_000n).does;
 */
export function storyOf(operation: Operation, planned: PlannedTransaction, names: Names, now: bigint): StepStory {
  const context = contextOf(operation);
  const { rollback } = operation;
  const of = (calls: Operation["calls"]) =>
    changesOf(
      calls.map((call) => decodeCall(call, context)),
      names,
    );
  const forward = () => of(operation.calls);
  const back = () => (rollback === null ? [] : of(rollback.calls));
  const told: Readonly<Record<StepName, () => StepStory>> = {
    schedule: () => scheduling(operation, names, now, operation.timelock?.delay ?? 0n, forward()),
    execute: () => executing(operation, names, planned, forward()),
    cancel: () => ({
      does: "Cancels the proposal while it waits in the timelock: what it would change does not happen.",
      changes: [],
      stop: "Not at all, and it needs no stopping: the same proposal can be scheduled again, with its whole delay.",
    }),
    rollback: () => rollingBack(operation, names, now, back()),
    "rollback-execute": () => ({
      does: "Makes the rollback happen now, if its delay is over: it undoes what the proposal did.",
      changes: back(),
      stop: "Not any more, once this is executed.",
    }),
  };
  return told[planned.name]();
}

function scheduling(
  operation: Operation,
  names: Names,
  now: bigint,
  delay: bigint,
  changes: readonly Change[],
): StepStory {
  return {
    does: `Puts the proposal into the timelock. Nothing changes before it is executed, at the earliest ${formatDuration(delay)} later.`,
    changes,
    stop: `Until it is executed, at the earliest ${formatTime(now + delay)} if this is sent now: by ${stoppers(operation, names)}, each alone.`,
  };
}

function executing(
  operation: Operation,
  names: Names,
  { safe }: PlannedTransaction,
  changes: readonly Change[],
): StepStory {
  const { timelock, rollback } = operation;
  const name = nameIn(operation, names);
  const undo =
    rollback === null
      ? "Nothing that follows from it undoes it."
      : `${name(rollback.safe.address)} can undo it afterwards, ${rollback.timelock === null ? "at once" : `after ${formatDuration(rollback.timelock.delay)}`}.`;
  return timelock === null
    ? {
        does: `Does it at once: ${name(safe.address)} makes the calls itself, with no delay.`,
        changes,
        stop: `Not any more, once this is executed. ${undo}`,
      }
    : {
        does: "Makes the proposal happen now, if its delay is over.",
        changes,
        stop: `Until this is executed: by ${stoppers(operation, names)}, each alone. ${undo}`,
      };
}

function rollingBack(operation: Operation, names: Names, now: bigint, changes: readonly Change[]): StepStory {
  const { rollback } = operation;
  const delay = rollback?.timelock?.delay;
  if (delay === undefined) {
    return {
      does: "Undoes, at once, what the proposal did.",
      changes,
      stop: "Not any more, once this is executed.",
    };
  }
  return {
    does: `Puts the rollback into the timelock. Nothing changes before it is executed, at the earliest ${formatDuration(delay)} later.`,
    changes,
    stop: `Until it is executed, at the earliest ${formatTime(now + delay)} if this is sent now: by ${stoppers(operation, names)}, each alone.`,
  };
}
