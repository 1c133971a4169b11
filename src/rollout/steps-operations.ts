import type { Hex } from "../core/bytes.ts";
import type { Condition } from "./conditions.ts";
import type { Inputs, Machine, RolloutNode } from "./inputs.ts";
import { type LeftOut, PLAN, type Step } from "./step.ts";

/* Steps that need no governance: nodes one at a time, new machines before old ones stop, and delivery seen. */

export function nodes(inputs: Inputs, before: string): readonly Step[] | LeftOut {
  const { kms } = inputs;
  if (kms === null) return { id: "nodes", reason: "the KMS image does not change" };
  let needs = before;
  return inputs.nodes.map((node, i): Step => {
    const step = nodeStep(inputs, node, {
      image: kms.new.image.id,
      replaces: kms.old?.image.id ?? null,
      times: i + 1,
      needs,
    });
    needs = step.id;
    return step;
  });
}

interface Place {
  readonly image: Hex;
  /** The image of the older node; null where none is replaced. */
  readonly replaces: Hex | null;
  /** How many nodes run the new image once this one does. */
  readonly times: number;
  readonly needs: string;
}

function nodeStep({ created }: Inputs, node: RolloutNode, { image, replaces, times, needs }: Place): Step {
  const proxy = node.vsockProxy === null ? [] : [`${node.vsockProxy}   (before the enclave: it has no other way out)`];
  return {
    id: `node-${node.name}`,
    phase: "nodes",
    title: replaces !== null ? `Replace the KMS node ${node.name}` : `Start the KMS node ${node.name}`,
    needs: [needs],
    governance: "none",
    who: "the KMS's operator",
    preconditions: [
      { is: "kms-image", id: image, state: "allowed" },
      ...(replaces !== null ? ([{ is: "another-node-ready", node: node.name }] satisfies Condition[]) : []),
    ],
    proposal: null,
    commands: [...(replaces !== null ? [node.stop] : []), ...proxy, node.start],
    duration: "ten minutes a node",
    downtime: replaces !== null ? "none: another node releases keys meanwhile" : "none: nothing depends on it yet",
    check: [
      { is: "node-ready", node: node.name },
      // the first node of all has nobody to get the root secret from
      ...(replaces !== null
        ? ([{ is: "node-joined", node: node.name, image, replaces, times, since: created }] satisfies Condition[])
        : []),
    ],
    rollback: replaces !== null ? [node.stop, ...proxy, node.restore] : [node.stop],
  };
}

export function machines(inputs: Inputs, before: string): readonly Step[] | LeftOut {
  const fresh = inputs.machines.filter(({ runs }) => runs === "new");
  if (inputs.application === null) return { id: "machines", reason: "the application does not change" };
  if (fresh.length === 0) return { id: "machines", reason: "the plan names no machine of the new image" };
  const steps = fresh.map((machine) => machineStep(machine, before));
  const old = inputs.machines.filter(({ runs }) => runs === "old");
  if (old.length === 0) return steps;
  return [
    ...steps,
    {
      id: "traffic",
      phase: "machines",
      title: "Switch traffic to the new machines; the old ones go on running",
      needs: steps.map(({ id }) => id),
      governance: "none",
      who: "the application's operator",
      preconditions: fresh.map(({ name }) => ({ is: "machine-as-planned", machine: name })),
      proposal: null,
      commands: [
        "switch your load balancer or DNS to the new machines, and watch the errors",
        `keystead rollout acknowledge ${PLAN} traffic-switched --by NAME`,
      ],
      duration: "as long as your DNS entries live",
      downtime: "none: both versions run",
      check: [{ is: "acknowledged", item: "traffic-switched" }],
      rollback: ["switch traffic back to the old machines: they still run and still receive keys"],
    },
  ];
}

function machineStep(machine: Machine, needs: string): Step {
  return {
    id: `machine-${machine.name}`,
    phase: "machines",
    title: `Start the new machine ${machine.name} beside the old ones`,
    needs: [needs],
    governance: "none",
    who: "the application's operator",
    preconditions: [{ is: "nodes-ready", least: 1 }],
    proposal: null,
    commands: [machine.start ?? `start ${machine.name} from the new image`],
    duration: "a few minutes a machine",
    downtime: "none: the old machines go on serving",
    check: [{ is: "machine-as-planned", machine: machine.name }],
    rollback: [machine.stop ?? `stop ${machine.name}`],
  };
}

export function delivery(inputs: Inputs, before: string): Step {
  const { application, created } = inputs;
  const images = application === null ? [] : [application.new, ...(application.old === null ? [] : [application.old])];
  return {
    id: "delivery",
    phase: "delivery",
    title: "Verify key delivery end to end: every node, to the new image and to the old",
    needs: [before],
    governance: "none",
    who: "the operator",
    preconditions: [{ is: "nodes-ready", least: inputs.nodes.length }],
    proposal: null,
    commands: [`keystead rollout verify ${PLAN}`],
    duration: "a minute",
    downtime: "none",
    check:
      images.length === 0
        ? [{ is: "nodes-ready", least: inputs.nodes.length }]
        : inputs.nodes.flatMap(({ name }) =>
            images.map(({ image }): Condition => ({ is: "delivered", node: name, image: image.id, since: created })),
          ),
    rollback: [],
  };
}

export function oldMachineStep({ name, stop }: Machine): Step {
  return {
    id: `old-machine-${name}`,
    phase: "cleanup",
    title: `Stop the old machine ${name}`,
    needs: ["delivery"],
    governance: "none",
    who: "the application's operator",
    preconditions: [{ is: "acknowledged", item: "traffic-switched" }],
    proposal: null,
    commands: [stop ?? `stop ${name}`],
    duration: "a few minutes a machine",
    downtime: "none: traffic is on the new machines",
    check: [{ is: "machine-stopped", machine: name }],
    rollback: [`start ${name} again: its image receives keys until it is retired`],
  };
}
