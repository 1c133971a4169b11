import type { Hex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { printable } from "../core/printable.ts";
import type { StepStatus } from "./assess.ts";
import { testEvidence } from "./deliver.ts";
import type { ChainFacts, EntryFacts, Facts, OperationFacts } from "./facts.ts";
import { operationIdOf, rollbackIdOf } from "./operations.ts";
import type { Plan } from "./plan.ts";

/** Something that is wrong, wherever the rollout stands. */
export interface Alarm {
  readonly code:
    | "chain-unreadable"
    | "not-proven"
    | "wrong-measurement"
    | "foreign-operation"
    | "out-of-order"
    | "node-down"
    | "no-node"
    | "quote-differs"
    | "old-machine-down"
    | "old-cut-off"
    | "operation-cancelled"
    | "paused"
    | "admin-changed"
    | "test-evidence";
  readonly says: string;
}

/** Alarms that say that something could not be known, not that it is wrong. */
const UNKNOWN: ReadonlySet<Alarm["code"]> = new Set(["chain-unreadable", "not-proven", "test-evidence"]);

/**
 * Whether an alarm only says that something could not be checked.
 *
 * @example
 * alarms.every(isUnknown);
 */
export const isUnknown = ({ code }: Alarm): boolean => UNKNOWN.has(code);

/**
 * Everything that is wrong or not as the plan supposes, in the order of what to look at first.
 *
 * @example
 * findAlarms(plan, facts, assess(plan, facts).steps);
 */
export function findAlarms(plan: Plan, facts: Facts, steps: readonly StepStatus[]): readonly Alarm[] {
  const chain = isKeysteadError(facts.chain)
    ? [alarm("chain-unreadable", `the chain could not be read (${facts.chain.code}): ${facts.chain.message}`)]
    : chainAlarms(plan, facts.chain, steps);
  return [...nodeAlarms(facts), ...machineAlarms(plan, facts, steps), ...chain];
}

/** Whether the new version was seen to get its keys, and is to stay: until then the old one must be there. */
const isVerified = (steps: readonly StepStatus[]): boolean =>
  steps.some(({ step, state }) => step.id === "delivery" && state === "done") &&
  !steps.some(({ state }) => state === "undone");

const alarm = (code: Alarm["code"], says: string): Alarm => ({ code, says: printable(says, 500) });

function nodeAlarms({ nodes }: Facts): readonly Alarm[] {
  if (nodes.size === 0) return [];
  const down = [...nodes].filter(([, node]) => !node.ready);
  const alarms = down.map(([name, { up, problem }]) =>
    alarm(
      "node-down",
      `${name} ${up ? "releases no keys" : "does not answer"}${problem === undefined ? "" : `: ${problem}`}`,
    ),
  );
  const test = [...nodes].filter(([, { testTee }]) => testTee).map(([name]) => name);
  alarms.push(...testEvidence(test).map((says) => alarm("test-evidence", says)));
  return down.length < nodes.size
    ? alarms
    : [alarm("no-node", "no node releases keys: no machine can start"), ...alarms];
}

function machineAlarms({ inputs }: Plan, { machines }: Facts, steps: readonly StepStatus[]): readonly Alarm[] {
  const delivered = isVerified(steps);
  return inputs.machines.flatMap(({ name, runs }) => {
    const machine = machines.get(name);
    if (machine?.quote === "differs" && machine.up !== false) {
      const registers = machine.differs.join(", ");
      return [alarm("quote-differs", `${name} runs another image than the plan says: ${registers} differ`)];
    }
    if (runs === "new" || delivered || machine?.up !== false) return [];
    return [alarm("old-machine-down", `${name} does not answer, and the new version is not verified yet`)];
  });
}

function chainAlarms(plan: Plan, chain: ChainFacts, steps: readonly StepStatus[]): readonly Alarm[] {
  const { inputs } = plan;
  const found: Alarm[] = [];
  if (chain.unproven.length > 0) found.push(alarm("not-proven", chain.unproven.join("; ")));
  if (chain.time < chain.pausedUntil) found.push(alarm("paused", "all releases are paused"));
  if (chain.service !== undefined && chain.service.admin.toLowerCase() !== inputs.service.admin.toLowerCase()) {
    found.push(alarm("admin-changed", `the service's admin is ${chain.service.admin} now`));
  }
  found.push(...wrongMeasurements(plan, chain));
  for (const { step, operation, state } of steps) {
    if (operation?.state === "cancelled" && state !== "done" && state !== "undone") {
      const again = "if it is still wanted, make a new plan with another proposals.first";
      found.push(alarm("operation-cancelled", `${step.id}: its operation was cancelled at the timelock; ${again}`));
    }
  }
  for (const operation of foreignOperations(plan, chain)) {
    found.push(alarm("foreign-operation", `operation ${operation.id} waits at the timelock and is not of this plan`));
  }
  const old = inputs.application?.old?.image.id;
  const delivered = isVerified(steps);
  const status = old === undefined ? undefined : chain.images.get(old)?.status;
  if (!delivered && old !== undefined && status !== "active" && status !== "retiring") {
    found.push(
      alarm(
        "old-cut-off",
        `the old image is ${status ?? "not listed"}: its machines get no keys, and delivery is not verified yet`,
      ),
    );
  }
  for (const { step, state } of steps) {
    if (state !== "done" || step.phase !== "cleanup") continue;
    const open = steps.filter(({ step: { id }, state }) => step.needs.includes(id) && state !== "done");
    if (open.length > 0) {
      found.push(
        alarm(
          "out-of-order",
          `${step.id} is done, and ${open.map(({ step: { id } }) => id).join(", ")} should have come before`,
        ),
      );
    }
  }
  return found;
}

/** Images that came after the plan was made and that it does not know. */
function wrongMeasurements({ inputs }: Plan, chain: ChainFacts): readonly Alarm[] {
  const { application, kms, created } = inputs;
  const known = new Set<Hex | undefined>([
    ...[application?.new, application?.old, kms?.new, kms?.old].flatMap((one) => [one?.image.id, one?.platform?.id]),
  ]);
  const images = [...chain.images].filter(
    ([id, { status, changed }]) =>
      !known.has(id) && changed >= created && ["pending", "active", "retiring"].includes(status),
  );
  const entries = (list: ReadonlyMap<Hex, EntryFacts>) =>
    [...list].filter(([id, { state, changed }]) => !known.has(id) && changed >= created && state === "allowed");
  return [
    ...images.map(([id, { status }]) =>
      alarm(
        "wrong-measurement",
        `the service lists the image ${id} (${status}) since the plan was made, and the plan does not know it`,
      ),
    ),
    ...entries(chain.platforms).map(([id]) =>
      alarm(
        "wrong-measurement",
        `the platform ${id} was allowed since the plan was made, and the plan does not know it`,
      ),
    ),
    ...entries(chain.kmsImages).map(([id]) =>
      alarm(
        "wrong-measurement",
        `the KMS image ${id} was allowed since the plan was made, and the plan does not know it`,
      ),
    ),
  ];
}

/**
 * Operations that wait at the timelock and are neither steps of the plan nor their way back.
 *
 * @example
 * foreignOperations(plan, chain).length; // 0
 */
export function foreignOperations(plan: Plan, chain: ChainFacts): readonly OperationFacts[] {
  const own = new Set(plan.steps.flatMap((step) => [operationIdOf(plan, step), rollbackIdOf(plan, step)]));
  return chain.operations.filter(({ id, state }) => (state === "waiting" || state === "ready") && !own.has(id));
}
