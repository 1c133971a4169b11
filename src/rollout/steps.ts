import { KeysteadError } from "../core/errors.ts";
import type { Condition } from "./conditions.ts";
import type { Inputs } from "./inputs.ts";
import { type LeftOut, PLAN, type Step } from "./step.ts";
import { contracts, measurements, retireStep, revokeStep, serviceImage } from "./steps-governance.ts";
import { delivery, machines, nodes, oldMachineStep } from "./steps-operations.ts";

/** What no program can check. */
export const STATEMENTS: Readonly<Record<string, string>> = {
  "changelog-reviewed": "the changelogs of everything that changes were read",
  "tested-outside-production": "the whole rollout was played outside production, with the way back",
  "stakeholders-told": "users and operators know what changes, and when",
};

/**
 * Derives the steps of a rollout: only what changes needs steps, and each stands after all that it depends on.
 *
 * @throws KeysteadError `rollout/final-service` (a final service takes no further image), `rollout/no-change`, `rollout/one-node`
 * @example
 * const { steps, leftOut } = deriveSteps(plan.inputs);
 */
export function deriveSteps(inputs: Inputs): { readonly steps: readonly Step[]; readonly leftOut: readonly LeftOut[] } {
  const steps: Step[] = [];
  const leftOut: LeftOut[] = [];
  const add = (made: readonly Step[] | LeftOut) => {
    if ("reason" in made) leftOut.push(made);
    else steps.push(...made);
  };
  requireSense(inputs);
  steps.push(staging());
  add(contracts(inputs));
  add(measurements(inputs, has(steps, "contracts")));
  add(serviceImage(inputs, has(steps, "contracts")));
  add(governance(inputs, steps));
  add(nodes(inputs, last(steps)));
  add(machines(inputs, last(steps)));
  steps.push(delivery(inputs, last(steps)));
  for (const made of cleanup(inputs)) add(made);
  return { steps, leftOut };
}

const has = (steps: readonly Step[], id: string): boolean => steps.some((step) => step.id === id);
const last = (steps: readonly Step[]): string => steps.at(-1)?.id ?? "staging";

function requireSense({ application, kms, contracts, service, nodes }: Inputs): void {
  if (application === null && kms === null && contracts.length === 0) {
    throw new KeysteadError("rollout/no-change", "nothing changes: application, KMS image and contracts stay", {
      argument: "definition",
      remedy: "Name what is new: application, kms or contracts.",
    });
  }
  if (application !== null && !service.upgradeable && application.old?.image.id !== application.new.image.id) {
    throw new KeysteadError("rollout/final-service", `the service ${service.id} is final: it takes no further image`, {
      argument: "service",
      remedy: "Create a service for the new image; this one stays as it is, for ever.",
    });
  }
  if (kms !== null && kms.old !== null && nodes.length < 2) {
    throw new KeysteadError(
      "rollout/one-node",
      "the KMS image changes and there is one node: replacing it stops all releases",
      {
        argument: "nodes",
        remedy: "Run a second node first; it gets the root secret from the running one.",
      },
    );
  }
}

function staging(): Step {
  return {
    id: "staging",
    phase: "staging",
    title: "Play the rollout outside production, back up, and run the checklist",
    needs: [],
    governance: "none",
    who: "the operator",
    preconditions: [],
    proposal: null,
    commands: [
      `keystead rollout backup ${PLAN}`,
      `keystead rollout preflight ${PLAN}`,
      ...Object.keys(STATEMENTS).map((item) => `keystead rollout acknowledge ${PLAN} ${item} --by NAME`),
    ],
    duration: "as long as your tests take",
    downtime: "none",
    check: Object.keys(STATEMENTS).map((item) => ({ is: "acknowledged", item })),
    rollback: [],
  };
}

function governance(inputs: Inputs, before: readonly Step[]): readonly Step[] {
  const { application, contracts: upgrades, kms } = inputs;
  const check: Condition[] = [
    ...upgrades.map(({ contract, to }): Condition => ({ is: "implementation", contract, address: to })),
    ...(application === null
      ? []
      : ([
          ...(application.new.platform === null
            ? []
            : [{ is: "platform", id: application.new.platform.id, state: "allowed" } as const]),
          { is: "image", id: application.new.image.id, state: "receives-keys" },
          { is: "tee-enabled", tee: application.new.image.text.split(":")[0] ?? "" },
        ] satisfies Condition[])),
    ...(kms === null ? [] : ([{ is: "kms-image", id: kms.new.image.id, state: "allowed" }] satisfies Condition[])),
    { is: "not-paused" },
  ];
  return [
    {
      id: "governance",
      phase: "governance",
      title: "Governance complete: everything new is in force on chain",
      needs: before.map(({ id }) => id),
      governance: "none",
      who: "nobody: time and the steps before",
      preconditions: [],
      proposal: null,
      commands: [`keystead rollout status ${PLAN}`],
      duration: "until the last delay and the notice period are over",
      downtime: "none",
      check,
      rollback: [],
    },
  ];
}

function cleanup(inputs: Inputs): readonly (readonly Step[] | LeftOut)[] {
  const old = inputs.application?.old ?? null;
  const stopped = old === null ? [] : inputs.machines.filter(({ runs }) => runs === "old").map(oldMachineStep);
  const needs = ["delivery", ...stopped.map(({ id }) => id)];
  return [
    old === null ? { id: "old-machines", reason: "there is no older version" } : stopped,
    retireStep(inputs, needs),
    revokeStep(inputs, needs),
  ];
}
