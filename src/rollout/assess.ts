import type { Hex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { type Alarm, findAlarms } from "./alarms.ts";
import { type Condition, evaluate, type Finding } from "./conditions.ts";
import type { Facts, OperationFacts } from "./facts.ts";
import { operationIdOf, rollbackIdOf } from "./operations.ts";
import type { Plan } from "./plan.ts";
import type { Step } from "./step.ts";

/** Where a step stands. `undone`: what it did was taken back since. */
export type StepState = "done" | "ready" | "waiting" | "blocked" | "failed" | "unknown" | "undone";

/** A step with everything that was found about it. */
export interface StepStatus {
  readonly step: Step;
  readonly state: StepState;
  /** One sentence for people. */
  readonly says: string;
  /** Until when it waits, seconds since 1970; undefined: on no time. */
  readonly until: number | undefined;
  readonly check: readonly { readonly condition: Condition; readonly finding: Finding }[];
  readonly preconditions: readonly { readonly condition: Condition; readonly finding: Finding }[];
  /** The operation at the timelock that the step consists of, where it was scheduled. */
  readonly operation: OperationFacts | undefined;
  /** The operation that undoes it, where that was scheduled. */
  readonly wayBack: OperationFacts | undefined;
}

/** Where a rollout stands. */
export interface Status {
  readonly steps: readonly StepStatus[];
  readonly alarms: readonly Alarm[];
  /**
   * `finished`: every step is done. `unknown`: something that decides could not be read. `going-back`: a part was taken back, and more is to be.
   * `rolled-back`: nothing of it is in force any more.
   */
  readonly standing: "finished" | "under-way" | "blocked" | "failed" | "unknown" | "going-back" | "rolled-back";
}

/**
 * Where a rollout stands: every condition of every step held against what was just read.
 *
 * @example
 * assess(plan, await readFacts(plan)).steps.find(({ state }) => state === "ready");
 */
export function assess(plan: Plan, facts: Facts): Status {
  const steps: StepStatus[] = [];
  for (const step of plan.steps) steps.push(stepStatus(plan, step, facts, steps));
  const now = goesBack(steps) ? steps.map(notForward) : steps;
  return { steps: now, alarms: findAlarms(plan, facts, now), standing: standingOf(now) };
}

const CANCELLED = "its operation was cancelled at the timelock";

/** Whether anything was taken back, or waits to be. */
const goesBack = (steps: readonly StepStatus[]): boolean =>
  steps.some(({ state, wayBack }) => state === "undone" || wayBack?.state === "waiting" || wayBack?.state === "ready");

/** Half of it is gone: whoever goes forward now goes without it. A cancelled operation is what going back makes of it. */
function notForward(one: StepStatus): StepStatus {
  if (one.state === "failed" && one.operation?.state === "cancelled") {
    return { ...one, state: "undone", says: CANCELLED };
  }
  if (one.state !== "ready") return one;
  return { ...one, state: "blocked", says: "the rollout is taken back: to go forward again, make a new plan" };
}

/** Whether a step leaves something that would have to be taken back: statements of people do not. */
const changes = ({ step }: StepStatus): boolean =>
  step.rollback.length > 0 && !step.check.every(({ is }) => is === "acknowledged");

function standingOf(steps: readonly StepStatus[]): Status["standing"] {
  const open = steps.filter(({ state }) => state !== "done");
  if (open.length === 0) return "finished";
  if (open.some(({ state }) => state === "failed")) return "failed";
  if (goesBack(steps)) {
    const left = steps.filter(changes).filter(({ state }) => state !== "undone" && state !== "blocked");
    if (left.length === 0) return "rolled-back";
    return left.some(({ state }) => state === "unknown") ? "unknown" : "going-back";
  }
  if (open.some(({ state }) => state === "ready" || state === "waiting")) return "under-way";
  return open.some(({ state }) => state === "unknown") ? "unknown" : "blocked";
}

function stepStatus(plan: Plan, step: Step, facts: Facts, before: readonly StepStatus[]): StepStatus {
  const hold = (conditions: readonly Condition[]) =>
    conditions.map((condition) => ({ condition, finding: evaluate(condition, facts, plan.acknowledgements) }));
  const check = hold(step.check);
  const preconditions = hold(step.preconditions);
  const operation = operationOf(operationIdOf(plan, step), facts);
  const wayBack = operationOf(rollbackIdOf(plan, step), facts);
  const of = (state: StepState, says: string, until?: number): StepStatus => ({
    ...{ step, state, says, until, check, preconditions, operation, wayBack },
  });
  const open = check.filter(({ finding }) => finding.holds !== "yes");
  const missing = before.filter(({ step: { id }, state }) => step.needs.includes(id) && state !== "done");
  // a statement that was made before its time says nothing
  const early = missing.length > 0 && step.check.every(({ is }) => is === "acknowledged");
  if (wayBack?.state === "waiting") {
    return of("waiting", `its way back may be executed from ${isoMinute(wayBack.readyAt)} on`, wayBack.readyAt);
  }
  if (open.length === 0 && !early && wayBack?.state === "ready") {
    return of("done", "the delay of its way back is over: execute that");
  }
  if (open.length === 0 && !early) return of("done", check.map(({ finding }) => finding.says).join("; ") || "done");
  if (open.length === check.length && wasTakenBack(plan, facts, step, operation, wayBack)) {
    return of("undone", `taken back: ${open.map(({ finding }) => finding.says).join("; ")}`);
  }
  if (operation?.state === "waiting") {
    return of("waiting", `scheduled; may be executed from ${isoMinute(operation.readyAt)} on`, operation.readyAt);
  }
  if (operation?.state === "done") {
    return of("failed", `executed, and yet ${open.map(({ finding }) => finding.says).join("; ")}`);
  }
  const [blocking] = missing;
  if (blocking !== undefined) {
    const until = missing.map((one) => one.until ?? 0).reduce((a, b) => Math.max(a, b), 0);
    return of(
      "blocked",
      `waits for ${missing.map(({ step: { id } }) => id).join(", ")}`,
      until === 0 ? undefined : until,
    );
  }
  if (step.phase === "governance") return gate(open, of);
  if (open.some(({ finding }) => finding.holds === "unknown")) {
    const blind = open.filter(({ finding }) => finding.holds === "unknown");
    // a step that is yet to be taken can be taken where only its result can't be seen
    if (isKeysteadError(facts.chain) || step.commands.length === 0) {
      return of("unknown", blind.map(({ finding }) => finding.says).join("; "));
    }
  }
  const wrong = preconditions.filter(({ finding }) => finding.holds !== "yes");
  if (wrong.length > 0) {
    const blind = wrong.some(({ finding }) => finding.holds === "unknown");
    return of(blind ? "unknown" : "blocked", wrong.map(({ finding }) => finding.says).join("; "));
  }
  if (operation?.state === "cancelled") return of("failed", CANCELLED);
  const differs = open.find(({ finding }) => finding.says.includes("quote is not of the image"));
  if (differs !== undefined) return of("failed", differs.finding.says);
  if (operation?.state === "expired") {
    return of("ready", `it expired${atMinute(" on ", operation.expiresAt)}: schedule it again, with new signatures`);
  }
  if (operation?.state === "ready") {
    return of("ready", `its delay is over: execute it${atMinute(" before ", operation.expiresAt)}`);
  }
  return of("ready", open.map(({ finding }) => finding.says).join("; "));
}

const atMinute = (word: string, seconds: number | undefined): string =>
  seconds === undefined ? "" : `${word}${isoMinute(seconds)}`;

/** Nothing is to be done at the gate: it opens by itself, or something before it is not as it seemed. */
function gate(
  open: readonly { readonly finding: Finding }[],
  of: (state: StepState, says: string, until?: number) => StepStatus,
): StepStatus {
  const says = open.map(({ finding }) => finding.says).join("; ");
  if (open.some(({ finding }) => finding.holds === "unknown")) return of("unknown", says);
  const times = open.flatMap(({ finding }) => (finding.until === undefined ? [] : [finding.until]));
  return times.length === open.length ? of("waiting", says, Math.max(...times)) : of("blocked", says);
}

/** A time as people read it, to the minute. */
function isoMinute(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 16)}Z`;
}

/** Whether what a step did, and none of which holds, was undone on chain: by its way back, by the guardian, or by the service's admin. */
function wasTakenBack(
  { inputs }: Plan,
  { chain }: Facts,
  { check, governance }: Step,
  operation: OperationFacts | undefined,
  wayBack: OperationFacts | undefined,
): boolean {
  if (isKeysteadError(chain) || check.length === 0) return false;
  return check.every((condition) => {
    switch (condition.is) {
      case "implementation": {
        const from = inputs.contracts.find(({ contract }) => contract === condition.contract)?.from;
        return (
          wayBack?.state === "done" && chain.implementations[condition.contract].toLowerCase() === from?.toLowerCase()
        );
      }
      case "platform":
      case "kms-image":
      case "identity":
      case "tee-enabled":
        // it was executed, so it was so
        return governance === "timelock" && operation?.state === "done";
      case "image": {
        const image = chain.images.get(condition.id);
        return condition.state === "listed" && image?.status === "removed" && image.changed >= inputs.created;
      }
      default:
        return false;
    }
  });
}

function operationOf(id: Hex | undefined, facts: Facts): OperationFacts | undefined {
  if (isKeysteadError(facts.chain)) return undefined;
  return id === undefined ? undefined : facts.chain.operations.find((operation) => operation.id === id);
}
