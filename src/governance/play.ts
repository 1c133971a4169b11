import { fetchBlock } from "../chain/block.ts";
import { fromHex, toHex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { contextOf, type Difference } from "./check.ts";
import type { Warning } from "./decode.ts";
import { deriveExpectedState } from "./effects.ts";
import type { PlayedTransaction } from "./fork.ts";
import { executionOf, type Life, lifeOf, type Part } from "./life.ts";
import { type Play, type PlayedStep, playSafe, RELAYER } from "./play-safe.ts";
import { compareEffects, type DomainChange, observe, type SlotChange, watchedOf } from "./state-diff.ts";
import { fetchTimelockState, type TimelockPhase } from "./timelock-state.ts";
import { playUpgrade } from "./upgrade-play.ts";
import { formatTime } from "./words.ts";

/**
 * From the copied state again: the upgrade, its rollback, and the upgrade once more.
 *
 * @param start a snapshot of the copied state
 * @param phase where the operation stood there
 * @throws KeysteadError as `Client.request`
 * @example
 * const { differences } = await playThereAndBack(play, start, "unset", deployment.block);
 */
export async function playThereAndBack(play: Play, start: string, phase: TimelockPhase, fromBlock: number | undefined) {
  if (fromBlock === undefined) {
    return {
      differences: [],
      unjudged: ["whether the upgrade can be rolled back: name the deployment's record with --deployment"],
    };
  }
  const { fork, operation, onProgress } = play;
  await fork.restore(start);
  const life = (part: Part) => lifeOf(operation, part);
  const differences = await playUpgrade({
    ...{ fork, operation, fromBlock, onProgress, stranger: RELAYER },
    prepare: (part) => prepareLife(play, life(part), part === "operation" ? phase : "unset").then(() => {}),
    execute: async (part) => {
      const { transaction } = await playSafe(play, "execute", life(part).safe, executionOf(life(part)));
      return fork.trace(transaction.hash);
    },
  });
  return { differences, unjudged: [] };
}

/** Everything before the execution: scheduled, and the delay over. */
async function prepareLife(play: Play, life: Life, phase: TimelockPhase): Promise<readonly PlayedStep[]> {
  const { fork, onProgress } = play;
  const { terms, side } = life;
  const steps: PlayedStep[] = [];
  if (terms === null || side === null) return steps;
  if (phase === "unset" || phase === "expired") {
    onProgress("the Safe schedules it");
    const schedule = [{ to: terms.address, value: 0n, data: side.schedule }];
    steps.push((await playSafe(play, "schedule", life.safe, schedule)).step);
  }
  const block = await fetchBlock(fork.client, "latest");
  const { readyAt } = await fetchTimelockState(
    fork.client,
    block,
    terms.address,
    toHex(fromHex(side.operationId, "id")),
  );
  if (readyAt !== undefined && readyAt > (await fork.now())) {
    onProgress(`the clock moves to ${formatTime(readyAt)}`);
    await fork.warpTo(readyAt);
  }
  return steps;
}

/** What became of a play, and what changed by it. */
export interface Played {
  readonly steps: readonly PlayedStep[];
  readonly changes: readonly DomainChange[];
  readonly slots: readonly SlotChange[];
  readonly differences: readonly Difference[];
  /** What could not be judged and should be. */
  readonly warnings: readonly Warning[];
  readonly unjudged: readonly string[];
  /** Everything that the execution logged. */
  readonly logs: PlayedTransaction["logs"];
}

/**
 * Plays one of a proposal's operations from where it stands to its end. What fails is a difference.
 *
 * @param before where the operation itself stands, if its way back is played: what is not done is played first
 * @throws KeysteadError `rollback/none`, `simulate/other-hash`; as `Client.request`
 * @example
 * const { changes } = await playPart(play, "operation", "unset", "done");
 */
export async function playPart(play: Play, part: Part, phase: TimelockPhase, before: TimelockPhase): Promise<Played> {
  const { operation } = play;
  if (part === "rollback" && before !== "done") {
    const first = await playLife(play, lifeOf(operation, "operation"), before);
    if (first.differences.length > 0) return first;
  }
  return playLife(play, lifeOf(operation, part), phase);
}

/** Plays one operation from where it stands to its end. */
async function playLife(play: Play, life: Life, phase: TimelockPhase): Promise<Played> {
  const { operation, fork, onProgress } = play;
  const steps: PlayedStep[] = [];
  const watched = watchedOf(operation, life.calls);
  const { terms, side } = life;
  try {
    steps.push(...(await prepareLife(play, life, phase)));
    const before = await observe(fork.client, watched);
    play.looked(before.readers.keys());
    onProgress("the Safe executes it");
    const value = life.calls.reduce((sum, call) => sum + call.value, 0n);
    const { step, transaction } = await playSafe(play, "execute", life.safe, executionOf(life));
    steps.push(step);
    const after = await observe(fork.client, watched).catch((error: unknown) => {
      if (!isKeysteadError(error, "chain/reverted") && !isKeysteadError(error, "chain/not-this-contract")) throw error;
      return error.message;
    });
    if (typeof after === "string") {
      const failure = { field: "execute", code: "simulate/view-fails", message: `afterwards a view fails: ${after}` };
      return { ...failed(steps, failure), unjudged: ["what else changes: a view fails"] };
    }
    const { changes: raw } = await fork.trace(transaction.hash);
    const expected = deriveExpectedState(life.calls, contextOf(operation));
    const compared = compareEffects({
      ...{ operation, calls: life.calls, expected, before, after, raw },
      own: { safe: life.safe.address, timelock: terms?.address, operationId: side?.operationId, value },
    });
    return { steps, ...compared, logs: transaction.logs };
  } catch (error) {
    if (!isKeysteadError(error, "fork/reverted")) throw error;
    const next =
      steps.length === 0 && terms !== null && (phase === "unset" || phase === "expired") ? "schedule" : "execute";
    const failure = { field: next, code: "simulate/reverted", message: error.message };
    return { ...failed(steps, failure), unjudged: ["what it would change: it fails"] };
  }
}

const failed = (steps: readonly PlayedStep[], failure: Difference): Played => ({
  ...{ steps, changes: [], slots: [], differences: [failure], warnings: [], unjudged: [], logs: [] },
});
