import { isKeysteadError } from "../core/errors.ts";
import type { Status, StepStatus } from "./assess.ts";
import type { Facts } from "./facts.ts";
import type { Plan } from "./plan.ts";
import { days, GOVERNANCE_NONCE, GUARDIAN_NONCE, ONCE_EXECUTED, PLAN, type Step, WHILE_IT_WAITS } from "./step.ts";
import { adminCommands } from "./steps-governance.ts";

/** Something that someone can do now. */
export interface Action {
  readonly step: string;
  readonly title: string;
  readonly who: string;
  readonly governance: Step["governance"];
  /** In order. Lines that are no command say what to do by hand. */
  readonly commands: readonly string[];
  /** What it costs or must be known before. */
  readonly note: string;
}

/**
 * What can be done next, by whom: the steps that are ready, each cut down to what is still to be done of it.
 *
 * @param file the plan's name, for the commands
 * @example
 * nextActions(plan, assess(plan, facts), facts, "rollout.json");
 */
export function nextActions(plan: Plan, status: Status, facts: Facts, file: string): readonly Action[] {
  return status.steps.flatMap((one) => {
    // what was cancelled is proposed anew under another number, by a plan with another first one: never by itself
    if (one.state !== "ready") return [];
    const { step } = one;
    const commands = dueCommands(plan, one, facts).map((command) => fill(command, plan, facts, file));
    const { title, who, governance } = step;
    return [{ step: step.id, title, who, governance, commands, note: noteOf(step) }];
  });
}

function noteOf({ governance, downtime }: Step): string {
  return governance === "none" ? "needs no governance" : `downtime: ${downtime}`;
}

/** A proposal is written once, then scheduled, then executed: what was done is not offered again. */
function dueCommands(plan: Plan, { step, operation }: StepStatus, facts: Facts): readonly string[] {
  if (step.proposal === null) return dueStatements(plan, step);
  const [propose, verify, simulate, ...signed] = step.commands;
  // the way back is played, and the operation scheduled; then executed
  const [schedule, execute] = step.governance === "timelock" ? [signed.slice(0, 3), signed.slice(3)] : [signed, []];
  if (operation?.state === "ready") return [simulate ?? "", ...execute];
  const written = facts.folders.has(step.proposal.id);
  return [...(written ? [] : [propose ?? ""]), verify ?? "", simulate ?? "", ...schedule];
}

/** What was acknowledged is not asked for again. */
function dueStatements({ acknowledgements }: Plan, step: Step): readonly string[] {
  const said = acknowledgements.map(({ item }) => ` acknowledge ${PLAN} ${item} `);
  return step.commands.filter((command) => !said.some((one) => command.includes(one)));
}

/** Puts into a command what is only known now. `ahead`: transactions of each Safe that come before it. */
function fill(
  command: string,
  { inputs }: Plan,
  { chain, now }: Facts,
  file: string,
  ahead: { readonly governance: number; readonly guardian: number } = { governance: 0, guardian: 0 },
): string {
  const filled = command
    .replaceAll(PLAN, file)
    .replace("--last-moment UNTIL", `--last-moment ${now + inputs.cleanup.graceSeconds}`);
  if (isKeysteadError(chain)) return filled;
  return filled
    .replaceAll(GOVERNANCE_NONCE, String(chain.governance.nonce + BigInt(ahead.governance)))
    .replaceAll(GUARDIAN_NONCE, String(chain.guardian.nonce + BigInt(ahead.guardian)));
}

/**
 * The way back from exactly here: what stops or undoes the rollout, in an order in which the old version receives keys throughout. Operations that wait are
 * cancelled first, for they are the only thing that time makes worse; traffic goes back before machines stop; nodes go back one at a time;
 * what was registered is taken back last, since it hurts nobody while nothing runs it. What goes through the timelock is printed as far as it can be done
 * now: asked again once its delay is over, the rest is printed. Commands are meant in the order of the list: each Safe's nonces go on from one to the next.
 *
 * @param file the plan's name, for the commands
 * @example
 * abortActions(plan, assess(plan, facts), facts, "rollout.json");
 */
export function abortActions(plan: Plan, status: Status, facts: Facts, file: string): readonly Action[] {
  const by = (id: string) => status.steps.find(({ step }) => step.id === id);
  const begun = status.steps.filter((one) => hasBegun(one, facts, plan));
  const ahead = { governance: 0, guardian: 0 };
  const undo = (one: StepStatus, title: string, commands = one.step.rollback, note = ""): Action => ({
    ...{ step: one.step.id, title, who: one.step.who, governance: one.step.governance, note },
    commands: commands.map((line) => {
      const filled = fill(line.replace(WHILE_IT_WAITS, "").replace(ONCE_EXECUTED, ""), plan, facts, file, ahead);
      if (line.includes(GOVERNANCE_NONCE)) ahead.governance += 1;
      if (line.includes(GUARDIAN_NONCE)) ahead.guardian += 1;
      return filled;
    }),
  });
  const actions: Action[] = [];
  for (const one of status.steps) {
    if (one.operation?.state !== "waiting" && one.operation?.state !== "ready") continue;
    const cancel = one.step.rollback.filter((line) => line.startsWith(WHILE_IT_WAITS));
    const who = "the governance Safe's owners, or the guardian Safe's";
    actions.push({
      ...undo(
        one,
        `Cancel the operation of ${one.step.id}`,
        cancel.map((line) => line.replace(WHILE_IT_WAITS, "")),
      ),
      ...{ who, note: "first, for time works against it" },
    });
  }
  const revoke = by("revoke");
  if (revoke?.state === "done") {
    actions.push(throughTimelock(revoke, "Allow again what was revoked", plan, undo));
  }
  actions.push(...restoreOldImage(plan, status, facts, undo));
  const traffic = by("traffic");
  const switched = plan.acknowledgements.some(({ item }) => item === "traffic-switched");
  const serves = plan.inputs.machines.some(
    ({ name, runs }) => runs === "new" && facts.machines.get(name)?.up !== false,
  );
  if (traffic !== undefined && switched && serves)
    actions.push(undo(traffic, "Switch traffic back to the old machines"));
  for (const one of begun.filter(({ step }) => step.id.startsWith("old-machine-"))) {
    actions.push(undo(one, `Start ${one.step.id.replace("old-machine-", "")} again`));
  }
  actions.push(
    ...begun
      .filter(({ step }) => step.id.startsWith("machine-"))
      .map((one) => undo(one, `Stop the new machine ${one.step.id.replace("machine-", "")}`)),
  );
  actions.push(...nodesBack(plan, begun, undo, file));
  const image = by("service-image");
  if (image?.state === "done")
    actions.push(undo(image, "Remove the new image from the service", image.step.rollback, "at once"));
  actions.push(...strangers(plan, facts, file));
  for (const id of ["measurements", "contracts"]) {
    const one = by(id);
    if (one === undefined || one.state === "undone") continue;
    if (one.operation?.state !== "done" && one.state !== "done") continue;
    if (id === "contracts") actions.push(throughTimelock(one, "Roll the contracts back", plan, undo));
    else {
      const back = one.step.rollback.filter((line) => line.startsWith(ONCE_EXECUTED));
      actions.push(undo(one, "Take the new measurements back", back, "at once"));
    }
  }
  actions.push({
    ...{
      step: "delivery",
      title: "See that the old version still receives keys",
      who: "the operator",
      governance: "none",
      note: "",
    },
    commands: [`keystead rollout verify ${file} --only old`, `keystead rollout status ${file}`],
  });
  return actions;
}

/** Steps without a trace of their own may have been begun: their check alone says whether they were finished. */
function hasBegun({ step, state, check }: StepStatus, facts: Facts, { inputs }: Plan): boolean {
  if (state === "done") return true;
  if (step.id.startsWith("node-")) {
    const node = facts.nodes.get(step.id.replace("node-", ""));
    return inputs.kms?.old !== null && node?.ready !== true;
  }
  return (
    step.id.startsWith("machine-") && check.some(({ finding }) => finding.says.includes("quote is not of the image"))
  );
}

type Undo = (one: StepStatus, title: string, commands?: readonly string[], note?: string) => Action;

/** How many commands of a way back through the timelock come before its delay. */
const TO_SCHEDULE = 2;

/** A way back that waits: what can be done of it now. */
function throughTimelock(one: StepStatus, title: string, { inputs }: Plan, undo: Undo): Action {
  const lines = one.step.rollback.filter((line) => line.startsWith(ONCE_EXECUTED));
  const { wayBack } = one;
  if (wayBack?.state === "waiting") {
    const from = new Date(wayBack.readyAt * 1000).toISOString();
    return undo(one, title, [`keystead rollout abort ${PLAN}`], `it waits in the timelock: again from ${from} on`);
  }
  if (wayBack?.state === "ready") {
    const rest = lines.slice(TO_SCHEDULE).map((line) => line.replace(/^.*?: .*?: (?=keystead )/, ""));
    return undo(one, title, rest, "its delay is over");
  }
  const note = `through the timelock: in ${days(inputs.deployment.delaySeconds)} abort prints the rest; what is new serves the old version meanwhile`;
  return undo(one, title, lines.slice(0, TO_SCHEDULE), note);
}

/**
 * One at a time, the broken ones first: a node that works serves while another goes back. Then in the reverse of the order in which they went forward: how many
 * have changed is all that receipts show.
 */
function nodesBack({ inputs }: Plan, begun: readonly StepStatus[], undo: Undo, file: string): readonly Action[] {
  const nodes = begun.filter(({ step }) => step.id.startsWith("node-")).reverse();
  const sorted = [...nodes].sort((a, b) => Number(a.state === "done") - Number(b.state === "done"));
  return sorted.map((one) => {
    const name = one.step.id.replace("node-", "");
    const unseen = `if it kept its root secret no receipt shows it: keystead rollout acknowledge ${file} node-back-${name} --by NAME`;
    const note = inputs.kms?.old ? `one at a time: wait until it is ready before the next; ${unseen}` : "";
    return undo(one, `Bring the node ${name} back to the old image`, one.step.rollback, note);
  });
}

function restoreOldImage(plan: Plan, status: Status, facts: Facts, undo: Undo): readonly Action[] {
  const old = plan.inputs.application?.old;
  const retire = status.steps.find(({ step }) => step.id === "retire-image");
  if (old == null || retire?.state !== "done" || isKeysteadError(facts.chain)) return [];
  const image = facts.chain.images.get(old.image.id);
  if (image?.status === "retiring") {
    const until = new Date(image.until * 1000).toISOString();
    return [
      undo(
        retire,
        "Remove and list the old image anew, or go forward",
        relist(plan),
        `it receives keys until ${until}; listed anew, it waits out the notice period`,
      ),
    ];
  }
  return [
    undo(
      retire,
      "List the old image anew",
      relist(plan).slice(-1),
      "it waits out the notice period: until then only the new image receives keys, so keep that running",
    ),
  ];
}

function relist({ inputs }: Plan): readonly string[] {
  const old = inputs.application?.old;
  if (old == null) return [];
  return [
    ...adminCommands(inputs, "remove-image", `--image ${old.image.id} --reason "to be listed anew"`).slice(0, 1),
    ...adminCommands(inputs, "add-image", `--image ${old.image.text} --description "back to it"`).slice(0, 1),
  ];
}

/** What was registered and is not in the plan goes at once: by the service's admin, or by the guardian. */
function strangers(plan: Plan, facts: Facts, file: string): readonly Action[] {
  const { inputs } = plan;
  if (isKeysteadError(facts.chain)) return [];
  const known = new Set(
    [inputs.application?.new, inputs.application?.old, inputs.kms?.new, inputs.kms?.old].flatMap((one) => [
      one?.image.id,
      one?.platform?.id,
    ]),
  );
  const wrong = [...facts.chain.images].filter(
    ([id, { status, changed }]) =>
      !known.has(id) && changed >= inputs.created && ["pending", "active", "retiring"].includes(status),
  );
  const actions: Action[] = wrong.map(([id]) => ({
    ...{
      step: "service-image",
      title: `Remove the image ${id}, which the plan does not know`,
      governance: "service-admin",
      note: "at once",
    },
    who: `the service's admin ${inputs.service.admin}, or its guardian`,
    commands: adminCommands(inputs, "remove-image", `--image ${id} --reason "not in rollout ${inputs.id}"`),
  }));
  const lists = [
    ["revoke-platform", "platform", facts.chain.platforms],
    ["revoke-kms-image", "image", facts.chain.kmsImages],
  ] as const;
  for (const [intent, option, list] of lists) {
    for (const [id, { state, changed }] of list) {
      if (known.has(id) || changed < inputs.created || state !== "allowed") continue;
      actions.push({
        ...{
          step: "measurements",
          title: `Revoke ${id}, which the plan does not know, if nobody else needs it`,
          governance: "guardian",
          note: "at once",
        },
        who: "the guardian Safe's owners",
        commands: [
          `keystead propose ${intent} --id ID --${option} ${id} --reason "not in rollout ${inputs.id}" --deployment ${inputs.deployment.file} --guardian-nonce NONCE --nonce NONCE`,
          `keystead rollout status ${file}`,
        ],
      });
    }
  }
  return actions;
}
