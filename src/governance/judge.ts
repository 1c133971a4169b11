import { type ParamType, ZeroHash } from "ethers";
import type { Deployment } from "../chain/deployment.ts";
import { hiddenIn, lookalikeWords } from "../core/printable.ts";
import { quoteText } from "../core/text.ts";
import type { KnownParties } from "../protocol/dangers.ts";
import { contextOf } from "./check.ts";
import {
  type DecodeContext,
  type DecodedCall,
  decodeCall,
  flattenCalls,
  recogniseCall,
  type Warning,
} from "./decode.ts";
import { gasWarning } from "./gas.ts";
import type { Operation } from "./operation.ts";
import { type Call, hex } from "./safe-hash.ts";
import { checkUndo } from "./undo.ts";
import { formatDuration, formatTime } from "./words.ts";

/** Which of a proposal's two operations something is about. */
export type JudgedPart = "operation" | "rollback";

/** A warning, and where in the proposal it belongs. */
export interface JudgedWarning extends Warning {
  readonly part: JudgedPart;
  /** E.g. `call 1`, `rollback call 2`, `title`. */
  readonly where: string;
}

/** What an operation and its rollback do, and everything about them that must not be overlooked. */
export interface Judgement {
  readonly calls: readonly DecodedCall[];
  /** The rollback's calls; empty where there is none. */
  readonly rollback: readonly DecodedCall[];
  readonly warnings: readonly JudgedWarning[];
}

/** How bad a list of warnings is: what verdicts, reports and exit codes follow from. */
export type Verdict = "unsafe" | "unsure" | "fine";

/**
 * The worst of some warnings.
 *
 * @example
 * verdictOf([]); // "fine"
 */
export function verdictOf(warnings: readonly Pick<Warning, "severity">[]): Verdict {
  if (warnings.some(({ severity }) => severity === "unsafe")) return "unsafe";
  return warnings.length > 0 ? "unsure" : "fine";
}

/**
 * What a deployment's record says about who holds what, as the catalogue of dangerous calls takes it.
 *
 * @example
 * knownParties(deployment).parties?.guardianSafe;
 */
export function knownParties({ contracts, safes, delaySeconds }: Deployment): KnownParties {
  return {
    parties: {
      timelock: contracts.timelock.address,
      governanceSafe: safes.governance.address,
      guardianSafe: safes.guardian.address,
    },
    delay: BigInt(delaySeconds),
  };
}

/** Longer than an operation has any reason to wait: the timelock's longest delay, doubled for a dismissal, and half of it more. */
const LONGEST_WAIT = 90n * 86_400n;
/** Before these tools, and after them: a time outside of that is not when anybody proposed anything. 2024-01-01 and 2100-01-01. */
const EARLIEST_TIME = 1_704_067_200n;
const LATEST_TIME = 4_102_444_800n;

/**
 * Judges an operation and its rollback by what they say: dangerous calls, a rollback that undoes something else, delays and times that cannot be meant,
 * texts that hide or imitate. It needs no chain; with the deployment's record it knows whose roles are whose.
 *
 * @example
 * verdictOf(judgeOperation(operation, deployment).warnings); // "fine"
 */
export function judgeOperation(operation: Operation, deployment?: Deployment): Judgement {
  const known = deployment === undefined ? JUDGED.get(operation) : undefined;
  if (known !== undefined) return known;
  const judged = judge(operation, deployment);
  if (deployment === undefined) JUDGED.set(operation, judged);
  return judged;
}

/** Operations do not change, and report, headline and verdict all rest on the same judgement. */
const JUDGED = new WeakMap<Operation, Judgement>();

function judge(operation: Operation, deployment: Deployment | undefined): Judgement {
  const context: DecodeContext = {
    ...contextOf(operation),
    known: deployment === undefined ? { delay: operation.timelock?.delay } : knownParties(deployment),
  };
  const calls = operation.calls.map((call) => decodeCall(call, context));
  const rollback = (operation.rollback?.calls ?? []).map((call) => decodeCall(call, context));
  const warnings: JudgedWarning[] = [
    ...warningsOf(calls, "operation"),
    ...warningsOf(rollback, "rollback"),
    ...judgeRollback(operation, rollback, context, deployment),
    ...judgeTerms(operation, deployment),
    ...judgeTexts(operation, context),
    ...judgeGas(operation),
  ];
  return { calls, rollback, warnings };
}

/**
 * One step's own transaction, taken apart: what signing `cancel` or `rollback` does, and not what the proposal does.
 *
 * @example
 * renderCalls(stepCalls(operation, planStep(operation, "cancel"))); // ["1. timelock 0x…: cancel the scheduled operation 0x…"]
 */
export function stepCalls(
  operation: Operation,
  { calls }: { readonly calls: readonly Call[] },
  deployment?: Deployment,
): readonly DecodedCall[] {
  const known = deployment === undefined ? { delay: operation.timelock?.delay } : knownParties(deployment);
  return calls.map((call) => decodeCall(call, { ...contextOf(operation), known }));
}

/** Steps of the operation itself and of its rollback. */
const ROLLBACK_STEPS: readonly string[] = ["rollback", "rollback-execute"];

/**
 * The warnings that stand against a step. Whoever signs or sends the operation is answerable for its rollback too, which becomes executable with it; a
 * cancellation does no harm, whatever it cancels, and must never wait for anybody's consent.
 *
 * @param step undefined: the proposal as a whole
 * @param accepted codes that somebody who knows better accepts
 * @example
 * warningsFor(judgement.warnings, "cancel"); // []
 */
export function warningsFor(
  warnings: readonly JudgedWarning[],
  step: string | undefined,
  accepted: readonly string[] = [],
): readonly JudgedWarning[] {
  if (step === "cancel") return [];
  const own = step !== undefined && ROLLBACK_STEPS.includes(step);
  return warnings.filter(({ part, code }) => !accepted.includes(code) && (!own || part === "rollback"));
}

function* warningsOf(calls: readonly DecodedCall[], part: JudgedPart): Generator<JudgedWarning> {
  for (const [i, call] of calls.entries()) {
    const where = `${part === "rollback" ? "rollback " : ""}call ${i + 1}`;
    for (const { warnings } of flattenCalls([call])) for (const one of warnings) yield { ...one, part, where };
  }
}

const unsafe = (part: JudgedPart, where: string, code: string, message: string): JudgedWarning => ({
  ...{ severity: "unsafe" as const, part, where, code, message },
});
const unsure = (part: JudgedPart, where: string, code: string, message: string): JudgedWarning => ({
  ...{ severity: "unsure" as const, part, where, code, message },
});

/** What no transaction can hold could be signed by everybody, and never executed. */
function judgeGas(operation: Operation): readonly JudgedWarning[] {
  const message = gasWarning(operation);
  return message === undefined ? [] : [unsafe("operation", "calls", "operation/too-much-gas", message)];
}

/** A rollback undoes exactly its operation, by a Safe that is of this deployment. */
function judgeRollback(
  operation: Operation,
  decoded: readonly DecodedCall[],
  context: DecodeContext,
  deployment: Deployment | undefined,
): readonly JudgedWarning[] {
  const { rollback, safe, cancellers } = operation;
  if (rollback === null) return [];
  const { left, foreign } = checkUndo(operation, context);
  const found = foreign.map((i) =>
    unsafe(
      "rollback",
      `rollback call ${i + 1}`,
      "rollback/does-something-else",
      `it undoes no call of this operation: it would ${decoded[i]?.words.sentence}`,
    ),
  );
  for (const i of left) {
    found.push(
      unsafe("rollback", `call ${i + 1}`, "rollback/leaves-something", "no call of the rollback undoes this call"),
    );
  }
  const recorded = deployment === undefined ? [] : Object.values(deployment.safes).map(({ address }) => address);
  const known = [safe.address, ...cancellers.map(({ address }) => address), ...recorded];
  const accountable = deployment !== undefined || operation.timelock !== null;
  if (accountable && !known.includes(rollback.safe.address)) {
    const message = `Safe ${rollback.safe.address} would make it, which neither proposes nor can cancel this operation`;
    found.push(unsafe("rollback", "rollback.safe", "rollback/other-safe", message));
  }
  return found;
}

/** Delays and times that cannot be meant. */
function judgeTerms(operation: Operation, deployment: Deployment | undefined): readonly JudgedWarning[] {
  const { timelock, rollback, assumptions, contracts } = operation;
  const found: JudgedWarning[] = [];
  const terms = [
    ["operation", "timelock.delay", timelock],
    ["rollback", "rollback.timelock.delay", rollback?.timelock ?? null],
  ] as const;
  for (const [part, where, at] of terms) {
    if (at === null) continue;
    const shown = formatDuration(at.delay);
    if (at.delay === 0n) {
      found.push(unsafe(part, where, "terms/no-delay", "nobody could see it coming: it waits for no time at all"));
    } else if (at.delay > LONGEST_WAIT) {
      found.push(unsafe(part, where, "terms/delay-absurd", `it would wait ${shown}, longer than 90 days`));
    } else if (deployment !== undefined && at.address === contracts.timelock) {
      const recorded = BigInt(deployment.delaySeconds);
      if (at.delay < recorded) {
        const message = `it would wait ${shown}, the deployment's record says at least ${formatDuration(recorded)}`;
        found.push(unsafe(part, where, "terms/delay-short", message));
      }
    }
  }
  const { time, block, start } = assumptions;
  if (time < EARLIEST_TIME || time > LATEST_TIME) {
    const message = `it says that it was proposed at ${formatTime(time)}, which cannot be`;
    found.push(unsafe("operation", "assumptions.time", "terms/time-absurd", message));
  }
  if (start !== null && block !== start.block) {
    const message = `it was proposed looking at block ${block ?? "none"}, and records the state of block ${start.block}`;
    found.push(unsafe("operation", "assumptions.block", "terms/block-contradicts", message));
  }
  if (start !== null && start.hash === ZeroHash) {
    found.push(unsafe("operation", "assumptions.start.hash", "terms/block-absurd", "no block has the hash zero"));
  }
  return found;
}

/** Titles and texts that hide something, or look like other words; a title that names another direction than the operation's. */
function judgeTexts(operation: Operation, context: DecodeContext): readonly JudgedWarning[] {
  const { title, lane, calls, rollback } = operation;
  const texts: [JudgedPart, string, string][] = [["operation", "title", title]];
  for (const [part, list] of [
    ["operation", calls],
    ["rollback", rollback?.calls ?? []],
  ] as const) {
    for (const [i, call] of list.entries()) {
      for (const text of textsIn(call, context)) {
        texts.push([part, `${part === "rollback" ? "rollback " : ""}call ${i + 1}`, text]);
      }
    }
  }
  const found: JudgedWarning[] = [];
  for (const [part, where, text] of texts) {
    const hidden = hiddenIn(text);
    if (hidden.length > 0) {
      const message = `a text holds what is not seen (${hidden.join(", ")}): ${quoteText(text)}`;
      found.push(unsure(part, where, "text/hidden", message));
    }
    const imitated = lookalikeWords(text);
    if (imitated.length > 0) {
      const message = `${imitated.map((word) => quoteText(word)).join(", ")} has letters that imitate others`;
      found.push(unsure(part, where, "text/lookalike", message));
    }
  }
  const said = /^\s*(grant|revoke|upgrade|admin)\b/i.exec(title)?.[1]?.toLowerCase();
  if (said !== undefined && said !== lane) {
    const message = `the title says ${said}, and the operation's lane is ${lane}`;
    found.push(unsure("operation", "title", "text/other-lane", message));
  }
  return found;
}

/** Every text among a call's arguments, as it is. */
function textsIn(call: Call, context: DecodeContext): readonly string[] {
  const recognised = recogniseCall(call, context);
  if (recognised === undefined) return [];
  const { name, inputs, values } = recognised;
  if (name === "multicall") {
    return [...values[0]].flatMap((data) => textsIn({ to: call.to, value: 0n, data: hex(String(data)) }, context));
  }
  const walk = (type: ParamType, value: unknown): readonly string[] => {
    if (type.baseType === "string") return [String(value)];
    const list: readonly unknown[] = Array.isArray(value) ? [...value] : [];
    const child = type.arrayChildren;
    if (child !== null) return list.flatMap((item) => walk(child, item));
    return (type.components ?? []).flatMap((component, i) => walk(component, list[i]));
  };
  return inputs.flatMap((input, i) => walk(input, values[i]));
}
