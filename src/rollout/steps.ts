import { KeysteadError } from "../core/errors.ts";
import type { Condition } from "./conditions.ts";
import type { Inputs } from "./inputs.ts";
import { type LeftOut, PLAN, type Step } from "./step.ts";
import {
  contracts,
  measurements,
  newKinds,
  platformsOf,
  retireStep,
  revokeStep,
  serviceImage,
} from "./steps-governance.ts";
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
  const proposals = [contracts(inputs), measurements(inputs, inputs.contracts.length > 0)].flatMap((made) =>
    "reason" in made ? [] : made.filter(({ proposal }) => proposal?.after === null),
  );
  steps.push(staging(proposals));
  add(understanding(inputs));
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

function requireSense(inputs: Inputs): void {
  const { application, kms, contracts, service, nodes, tcb } = inputs;
  const untold = newKinds(inputs).find((kind) => tcb[kind] === undefined);
  if (untold !== undefined) {
    throw new KeysteadError(
      "rollout/no-tcb",
      `${untold} machines are not enabled, and which TCB statuses to accept is not said`,
      {
        argument: "tcb",
        remedy: `Say it in the definition, e.g. tcb: { ${untold}: UpToDate }.`,
        details: { kind: untold },
      },
    );
  }
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

/** @param proposals steps whose proposals can be written now: the checklist plays their way back */
function staging(proposals: readonly Step[]): Step {
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
      ...proposals.map(({ id }) => `keystead rollout propose ${PLAN} ${id}`),
      ...Object.keys(STATEMENTS).map((item) => `keystead rollout acknowledge ${PLAN} ${item} --by NAME`),
      `keystead rollout preflight ${PLAN}`,
    ],
    duration: "as long as your tests take",
    downtime: "none",
    check: Object.keys(STATEMENTS).map((item) => ({ is: "acknowledged", item })),
    rollback: [],
  };
}

/** A node releases nothing under contracts whose code it was not told to trust: it must know the new code before that runs. */
function understanding(inputs: Inputs): readonly Step[] | LeftOut {
  if (inputs.contracts.length === 0) return { id: "pins", reason: "no contract changes" };
  const pins = inputs.contracts.map(
    ({ contract, to, codeHash }) => `${contract}: { address: "${to}", codeHash: "${codeHash}" }`,
  );
  return [
    {
      id: "pins",
      phase: "staging",
      title: "Let every node know the new contracts' code, before it runs",
      needs: ["staging"],
      governance: "none",
      who: "the KMS's operator",
      preconditions: [],
      proposal: null,
      commands: [
        ...pins.map((pin) => `add to implementations in each node's configuration: ${pin}`),
        "restart the nodes, one at a time: wait until one is ready before the next",
        ...inputs.nodes.map(({ name }) => `keystead rollout acknowledge ${PLAN} pins-${name} --by NAME`),
      ],
      duration: "a few minutes a node",
      downtime: "none with two nodes or more",
      check: inputs.nodes.map(({ name }) => ({ is: "acknowledged", item: `pins-${name}` })),
      rollback: ["none needed: a pin allows nothing by itself"],
    },
  ];
}

function governance(inputs: Inputs, before: readonly Step[]): readonly Step[] {
  const { application, contracts: upgrades, kms } = inputs;
  const check: Condition[] = [
    ...platformsOf(inputs, "new").map(({ id }): Condition => ({ is: "platform", id, state: "allowed" })),
    ...upgrades.map(({ contract, to }): Condition => ({ is: "implementation", contract, address: to })),
    ...(application === null
      ? []
      : ([
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
