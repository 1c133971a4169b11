import { abortActions, nextActions } from "../../src/rollout/actions.ts";
import { assess } from "../../src/rollout/assess.ts";
import type { ChainFacts, Facts, OperationFacts } from "../../src/rollout/facts.ts";
import { operationIdOf } from "../../src/rollout/operations.ts";
import type { Plan } from "../../src/rollout/plan.ts";
import { CREATED, chainGoverned, DAY, DELIVERED, facts, JOINED, machineUp, nodeUp, planOf } from "./rollout.ts";

/* A rollout of everything, and where it stands by facts that a test gives. */

export const plan = planOf();
export const states = (given: Facts, of: Plan = plan) =>
  Object.fromEntries(assess(of, given).steps.map(({ step, state }) => [step.id, state]));
export const alarms = (given: Facts, of: Plan = plan) => assess(of, given).alarms.map(({ code }) => code);
export const nextOf = (given: Facts, of: Plan = plan) => nextActions(of, assess(of, given), given, "plan.json");
export const abortOf = (given: Facts, of: Plan = plan) => abortActions(of, assess(of, given), given, "plan.json");

export const operation = (id: string, state: OperationFacts["state"], readyAt = CREATED + 3 * DAY): OperationFacts => {
  const step = plan.steps.find((one) => one.id === id);
  const operationId = step === undefined ? undefined : operationIdOf(plan, step);
  if (operationId === undefined) throw new Error(`${id} has no operation`);
  return { id: operationId, state, readyAt, calls: [] };
};
export const governed = (changes: Partial<ChainFacts> = {}) => facts({ chain: chainGoverned(changes) });
export const bothUp = new Map([
  ["web-old", machineUp],
  ["web-new", machineUp],
]);
export const nodesReplaced = (receipts = JOINED.map((one) => ({ ...one, type: "root" as "root" | "keys" }))) =>
  new Map([
    ["north", nodeUp({ receipts })],
    ["south", nodeUp({ receipts })],
  ]);
export const everywhere = [...JOINED, ...DELIVERED];
