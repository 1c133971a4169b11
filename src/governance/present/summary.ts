import { quoteText } from "../../core/text.ts";
import { contextOf } from "../check.ts";
import { type DecodedCall, decodeCall } from "../decode.ts";
import { judgeOperation } from "../judge.ts";
import type { Operation } from "../operation.ts";
import type { Provenance } from "../provenance.ts";
import { formatDuration, formatTime } from "../words.ts";
import { DIRECTION_WORDS, DIRECTIONS, type Direction, directionOf, leavesOf } from "./direction.ts";
import { clip, either, type Row, renderRows, shortenHex } from "./layout.ts";
import { type Names, nameIn, withNames } from "./names.ts";

/** One thing that changes, as a sentence. */
export interface Change {
  readonly direction: Direction;
  /** Without register values and ids in full: those stand with the calls. */
  readonly text: string;
}

/** What a signer has to know of a proposal before anything else. */
export interface Summary {
  readonly changes: readonly Change[];
  /** How long it waits, and from when on it can happen. */
  readonly delay: string;
  /** Who can stop it, and until when. */
  readonly veto: readonly string[];
  /** What happens if it is wrong, what could not be checked, what undoes it. */
  readonly risk: readonly string[];
}

/** Longest sentence of one change: three lines of a terminal. */
const SENTENCE = 200;

/**
 * The calls of an operation as changes, the most dangerous direction first.
 *
 * @param calls as `decodeCall` gives them
 * @example
 * changesOf(decodeOperation(operation), new Map())[0]?.direction; // "loosens"
 */
export function changesOf(calls: readonly DecodedCall[], names: Names): readonly Change[] {
  const found = leavesOf(calls).map((call): Change => {
    const unsafe = call.warnings.some(({ severity }) => severity === "unsafe");
    const text = clip(shortenHex(withNames(call.words.sentence, names)), SENTENCE);
    return { direction: unsafe ? "unknown" : directionOf(call), text };
  });
  return DIRECTIONS.flatMap((direction) => found.filter((change) => change.direction === direction));
}

const IF_WRONG: Readonly<Record<Direction, string>> = {
  unknown: "part of it could not be read: it may do anything that its Safe and the timelock may do.",
  code: "new code decides from then on who gets keys, and who may change that.",
  power: "somebody else may decide from then on, or decisions wait for another time.",
  loosens: "machines that it lets in get keys; keys that were given out cannot be taken back.",
  tightens: "machines that still need keys are refused, until the timelock undoes it.",
  neither: "no machine gets keys through it; see the calls for what it changes.",
};

/**
 * Sums a proposal up: effect, delay, veto, risk. All of it follows from the operation and the files kept with it; nothing from a chain.
 *
 * @param names from the record or an address book; without any, parties are named by their part and whole address
 * @example
 * summarise(operation, provenance).veto; // who can stop it, and until when
 */
export function summarise(operation: Operation, provenance: Provenance, names: Names = new Map()): Summary {
  const { timelock, safe, cancellers, assumptions } = operation;
  const name = nameIn(operation, names);
  const context = contextOf(operation);
  const calls = operation.calls.map((call) => decodeCall(call, context));
  const changes = changesOf(calls, names);
  const earliest = timelock === null ? 0n : assumptions.time + timelock.delay;
  return {
    changes,
    delay:
      timelock === null
        ? "none: it works as soon as the Safe executes it."
        : `${formatDuration(timelock.delay)} in the timelock, once scheduled. Earliest: ${formatTime(earliest)}, had it been scheduled when it was proposed.`,
    veto:
      timelock === null
        ? [`nobody, once ${name(safe.address)} executes it.`]
        : [
            "until it is executed, each of these alone can cancel it:",
            ...[...new Set([safe, ...cancellers].map(({ address }) => address))].map((one) => `- ${name(one)}`),
          ],
    risk: [...risksOf(changes, operation, provenance), undoing(operation, name)],
  };
}

function risksOf(changes: readonly Change[], operation: Operation, provenance: Provenance): readonly string[] {
  const [worst] = changes;
  const warnings = judgeOperation(operation).warnings.length;
  const images = changes.some(({ text }) => / (platform|image) /.test(text) && /\b(allow|let the|list)\b/.test(text));
  return [
    `If it is wrong: ${IF_WRONG[worst?.direction ?? "neither"]}`,
    ...(warnings === 0 ? [] : [`${warnings} ${warnings === 1 ? "warning" : "warnings"} below: read every one.`]),
    ...(images && provenance.reports.length === 0
      ? ["No measurement was given: where its images come from is not shown."]
      : []),
  ];
}

function undoing(operation: Operation, name: (address: string) => string): string {
  const { rollback } = operation;
  if (rollback === null) return "Undo: nothing follows from it; have the inverse proposed before it is executed.";
  // an undo that does something else is no undo: nobody may count on it
  const doubts = judgeOperation(operation).warnings.filter(({ part }) => part === "rollback").length;
  if (doubts > 0)
    return `Undo: DON'T COUNT ON IT: ${doubts} ${doubts === 1 ? "warning" : "warnings"} on the rollback below.`;
  const by = name(rollback.safe.address);
  return rollback.timelock === null
    ? `Undo: by ${by}, at once.`
    : `Undo: by ${by}, after ${formatDuration(rollback.timelock.delay)} in the timelock.`;
}

/** How many changes are listed before the rest is only counted. */
const LISTED = 5;

/**
 * The changes as rows, as many as a screen has room for; what is left out is counted by its direction, loudly.
 *
 * @param room lines for all of them
 * @example
 * changeRows(summary.changes, 8);
 */
export function changeRows(changes: readonly Change[], room: number): readonly Row[] {
  const rowOf = ({ direction, text }: Change): Row => ["", `${DIRECTION_WORDS[direction]}: ${text}`];
  const rows: Row[] = [];
  for (const change of changes.slice(0, LISTED)) {
    const next = [...rows, rowOf(change)];
    const left = changes.length - next.length;
    if (rows.length > 0 && renderRows(next).length + (left > 0 ? 1 : 0) > room) break;
    rows.push(rowOf(change));
  }
  const rest = changes.slice(rows.length);
  if (rest.length === 0) return rows;
  const counts = DIRECTIONS.flatMap((direction) => {
    const count = rest.filter((change) => change.direction === direction).length;
    return count === 0 ? [] : [`${count} ${DIRECTION_WORDS[direction]}`];
  });
  return [...rows, ["", `AND ${rest.length} MORE, read all of them below: ${counts.join(", ")}`]];
}

/** Lines of a report's first screen, heading and verdict included. */
export const SCREEN_LINES = 25;

/**
 * A summary as text of at most 19 lines and 80 columns: effect, delay, veto, risk.
 *
 * @example
 * renderSummary(summarise(operation, provenance), operation.title).join("\n");
 */
export function renderSummary(summary: Summary, title: string): readonly string[] {
  const { changes, delay, veto, risk } = summary;
  const rest = renderRows([
    ["Delay", delay],
    ["Veto", ...(veto.length > 5 ? [...veto.slice(0, 4), `- and ${veto.length - 4} more, listed below`] : veto)],
    ["Risk", ...risk],
  ]);
  const [first, ...more] = changeRows(changes, SCREEN_LINES - 7 - rest.length);
  const effect: readonly Row[] =
    first === undefined ? [["Effect", "NOTHING: it makes no call"]] : [["Effect", ...first.slice(1)], ...more];
  return [...renderRows([["Title", clip(quoteText(title), 65)], ...effect]), ...rest];
}

/** The parties that can stop something, as one phrase. */
export const stoppers = (operation: Operation, names: Names): string =>
  either(
    [...new Set([operation.safe, ...operation.cancellers].map(({ address }) => address))].map(nameIn(operation, names)),
  );
