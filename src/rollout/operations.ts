import type { Hex } from "../core/bytes.ts";
import { rollbackId, timelockSide } from "../governance/operation.ts";
import { buildOperation, type Parties, type ProposalInput } from "../governance/propose.ts";
import { hex, MULTI_SEND_CALL_ONLY } from "../governance/safe-hash.ts";
import type { Plan } from "./plan.ts";
import type { Step } from "./step.ts";

/** What stands for a Safe where only the timelock's side counts: version and nonce are no part of it. */
const ANY_SAFE = { version: "1.4.1", multiSend: MULTI_SEND_CALL_ONLY["1.4.1"][0] ?? "", nonce: 0n } as const;

/**
 * What a step's proposal is made from, but for who signs it: the same for everyone who has the plan.
 *
 * @example
 * buildOperation({ ...proposalInput(plan, step), parties });
 */
export function proposalInput(
  { inputs, steps }: Pick<Plan, "inputs" | "steps">,
  step: Step,
): Omit<ProposalInput, "parties"> {
  const { deployment, created } = inputs;
  const { policy, registry, timelock } = deployment;
  const { id = "", intents = [], after = null } = step.proposal ?? {};
  const first = after === null ? undefined : steps.find(({ proposal }) => proposal?.id === after);
  const predecessor = first === undefined ? undefined : operationIdOf({ inputs, steps }, first);
  return {
    ...{ id, intents, chainId: BigInt(deployment.chainId), contracts: { policy, registry, timelock } },
    ...{ time: BigInt(created), predecessor },
  };
}

/**
 * The id that a step's proposal has at the timelock. It follows from the plan alone: neither nonces nor the delay are part of it. Undefined for
 * steps that do not go through the timelock.
 *
 * @throws KeysteadError those of `buildOperation`
 * @example
 * operationIdOf(plan, step);
 */
export function operationIdOf(plan: Pick<Plan, "inputs" | "steps">, step: Step): Hex | undefined {
  return idsOf(plan, step)?.id;
}

/**
 * The id of the operation that undoes a step's, where that goes through the timelock too.
 *
 * @example
 * rollbackIdOf(plan, step);
 */
export function rollbackIdOf(plan: Pick<Plan, "inputs" | "steps">, step: Step): Hex | undefined {
  return idsOf(plan, step)?.rollback;
}

interface Ids {
  readonly id: Hex | undefined;
  readonly rollback: Hex | undefined;
}

/** A step belongs to one plan and never changes: its ids are worked out once. */
const known = new WeakMap<Step, Ids>();

function idsOf(plan: Pick<Plan, "inputs" | "steps">, step: Step): Ids | undefined {
  if (step.proposal === null) return undefined;
  const ids = known.get(step) ?? computeIds(plan, step);
  known.set(step, ids);
  return ids;
}

function computeIds(plan: Pick<Plan, "inputs" | "steps">, step: Step): Ids {
  const { deployment } = plan.inputs;
  const parties: Parties = {
    governance: { address: deployment.governance, ...ANY_SAFE },
    guardian: { address: deployment.guardian, ...ANY_SAFE },
    delay: BigInt(deployment.delaySeconds),
  };
  const operation = buildOperation({ ...proposalInput(plan, step), parties });
  const { timelock, rollback, chainId, id } = operation;
  return {
    id: timelock === null ? undefined : hex(timelockSide(operation, timelock, id).operationId),
    rollback:
      rollback?.timelock == null
        ? undefined
        : hex(timelockSide({ chainId, calls: rollback.calls }, rollback.timelock, rollbackId(id)).operationId),
  };
}
