import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { contextOf } from "./check.ts";
import { recogniseCall } from "./decode.ts";
import { deriveExpectedState } from "./effects.ts";
import { askQuestion, footprintOf } from "./footprint.ts";
import type { Operation } from "./operation.ts";
import { describeQuestion, describeValue } from "./questions.ts";
import type { Call } from "./safe-hash.ts";
import { formatDuration, formatTime } from "./words.ts";

/** What the chain says of an effect that no expected state can name, since it depends on when it happened or on what was there. */
export interface Observation {
  /** Index of the call. */
  readonly call: number;
  /** A sentence, e.g. `releases are paused until 2026-11-29 23:00Z, 1 h from then`. */
  readonly sentence: string;
  /** Whether it is as the call wants it; null where only its words can be given. */
  readonly holds: boolean | null;
}

/** Fields that move with every event, whoever makes it. */
const RESTLESS = new Set(["sequence", "lastUpdateBlock", "historyHead"]);

/**
 * Asks what calls did whose effect does not follow from the calls alone: a pause, above all.
 *
 * @param block the state that is asked
 * @param sent whether the calls were made in that very block; else time has passed, and what lapsed meanwhile is said and held against nobody
 * @throws KeysteadError as `Client.request`
 * @example
 * (await observeCalls(client, block, operation, life.calls, true))[0]?.sentence;
 */
export async function observeCalls(
  client: Client,
  block: Block,
  operation: Operation,
  calls: readonly Call[],
  sent: boolean,
): Promise<readonly Observation[]> {
  const context = contextOf(operation);
  const indices = new Set(deriveExpectedState(calls, context).underived.map(({ call }) => call));
  const found: Observation[] = [];
  for (const index of indices) {
    const call = calls[index];
    if (call === undefined) continue;
    const recognised = recogniseCall(call, context);
    for (const question of footprintOf([call], operation)) {
      const answer = await askQuestion(client, block, question);
      if (question.view === "releasePausedUntil()" && recognised?.certain === true) {
        const until = BigInt(answer.get("") ?? "0");
        found.push({ call: index, ...judgePause(recognised.name, recognised.named, until, block, sent) });
        continue;
      }
      for (const [field, value] of answer) {
        if (RESTLESS.has(field)) continue;
        const sentence = `${describeQuestion(question, field)} is ${describeValue(question, field, value)}`;
        found.push({ call: index, sentence, holds: null });
      }
    }
  }
  return found;
}

/** A pause runs from the block that it was made in; lifting one leaves none in force. */
function judgePause(
  name: string,
  named: Readonly<Record<string, unknown>>,
  until: bigint,
  block: Block,
  sent: boolean,
): Omit<Observation, "call"> {
  const now = BigInt(block.timestamp);
  if (name === "resumeRelease") {
    return until <= now
      ? { sentence: "releases are not paused any more", holds: true }
      : { sentence: `releases are paused until ${formatTime(until)}`, holds: sent ? false : null };
  }
  if (until <= now) {
    return sent
      ? { sentence: "releases are NOT paused", holds: false }
      : { sentence: `releases are not paused now: the last pause ended ${formatTime(until)}`, holds: null };
  }
  const wanted = now + BigInt(String(named.duration ?? 0));
  const left = `releases are paused until ${formatTime(until)}, ${formatDuration(until - now)} from block ${block.number}`;
  return { sentence: left, holds: sent ? until === wanted : null };
}
