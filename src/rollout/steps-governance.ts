import type { Hex } from "../core/bytes.ts";
import { parseImage, type TeeKind } from "../core/image.ts";
import type { IntentInput } from "../governance/intents.ts";
import type { Condition } from "./conditions.ts";
import type { Inputs, Measured } from "./inputs.ts";
import {
  days,
  GOVERNANCE_NONCE,
  GUARDIAN_NONCE,
  type LeftOut,
  ONCE_EXECUTED,
  PLAN,
  type Step,
  WHILE_IT_WAITS,
} from "./step.ts";

/* Steps that someone signs: the platform's governance, and the service's admin. */

const proposalId = ({ proposals, id }: Inputs, offset: number, what: string): string =>
  `${String(proposals.first + offset).padStart(3, "0")}-${id}-${what}`;

/**
 * Commands of a proposal's life, in order: written, checked, scheduled, and executed once the delay is over; `next` says which of them are due. The
 * guardian's need no timelock.
 */
function proposalCommands(inputs: Inputs, step: string, id: string, way: "timelock" | "guardian"): readonly string[] {
  const folder = `${inputs.proposals.folder}/${id}`;
  const record = `--deployment ${inputs.deployment.file}`;
  const signed = (name: string) => [
    `keystead sign ${folder} --step ${name} --nonce ${way === "guardian" ? GUARDIAN_NONCE : GOVERNANCE_NONCE} ${record}   (each owner)`,
    `keystead execute ${folder} --step ${name} ${record}`,
  ];
  return [
    `keystead rollout propose ${PLAN} ${step}`,
    `keystead verify ${folder} ${record}`,
    `keystead simulate ${folder} ${record}`,
    ...(way === "timelock" ? [`keystead simulate ${folder} --rollback ${record}`, ...signed("schedule")] : []),
    ...signed("execute"),
  ];
}

/** How a proposal is stopped while it waits, by the guardian Safe, and undone afterwards. */
function proposalRollback(inputs: Inputs, id: string, way: "timelock" | "guardian"): readonly string[] {
  const folder = `${inputs.proposals.folder}/${id}`;
  const record = `--deployment ${inputs.deployment.file}`;
  const nonce = way === "guardian" ? GUARDIAN_NONCE : GOVERNANCE_NONCE;
  const { guardian } = inputs.deployment;
  return [
    `${WHILE_IT_WAITS}keystead sign ${folder} --step cancel --safe ${guardian} --nonce ${GUARDIAN_NONCE} ${record}`,
    `${WHILE_IT_WAITS}keystead cancel ${folder} --safe ${guardian} ${record}`,
    `${ONCE_EXECUTED}keystead sign ${folder} --step rollback --nonce ${nonce} ${record}`,
    `${ONCE_EXECUTED}keystead rollback ${folder} --step rollback ${record}`,
    ...(way === "guardian"
      ? []
      : [
          `${ONCE_EXECUTED}${days(inputs.deployment.delaySeconds)} later: keystead sign ${folder} --step rollback-execute --nonce ${nonce} ${record}`,
          `${ONCE_EXECUTED}then: keystead rollback ${folder} --step rollback-execute ${record}`,
        ]),
  ];
}

const waits = (delay: number) => `a day for signatures, then ${days(delay)} in the timelock`;

export function contracts(inputs: Inputs): readonly Step[] | LeftOut {
  if (inputs.contracts.length === 0) return { id: "contracts", reason: "no contract changes" };
  const id = proposalId(inputs, 0, "contracts");
  return [
    {
      id: "contracts",
      phase: "contracts",
      title: `Upgrade ${inputs.contracts.map(({ contract }) => contract).join(" and ")} through governance`,
      needs: ["pins"],
      governance: "timelock",
      who: "the governance Safe's owners",
      preconditions: inputs.contracts.map(({ contract, from }) => ({ is: "implementation", contract, address: from })),
      proposal: {
        id,
        intents: inputs.contracts.map(({ contract, from, to }) => ({
          intent: "upgrade",
          arguments: { contract, implementation: to, previous: from },
        })),
        after: null,
      },
      commands: proposalCommands(inputs, "contracts", id, "timelock"),
      duration: waits(inputs.deployment.delaySeconds),
      downtime: "none: proxies change code between two blocks",
      check: inputs.contracts.map(({ contract, to }) => ({ is: "implementation", contract, address: to })),
      rollback: proposalRollback(inputs, id, "timelock"),
    },
  ];
}

/** Platforms under the application and under the KMS's own nodes: keys are released to neither on a platform that is not allowed. */
export function platformsOf({ application, kms }: Inputs, which: "old" | "new"): readonly { id: Hex; text: string }[] {
  const found = [application?.[which]?.platform, kms?.[which]?.platform].flatMap((platform) => platform ?? []);
  return [...new Map(found.map((platform) => [platform.id, platform])).values()];
}

/** TEE kinds that the rollout brings and to which no keys may be released yet. */
export function newKinds({ application, kms, already }: Inputs): readonly TeeKind[] {
  const kinds = [application?.new, kms?.new].flatMap((one) => (one === undefined ? [] : [kindOf(one.image.text)]));
  return [...new Set(kinds)].filter((kind) => !already.tees.includes(kind));
}

const kindOf = (text: string): TeeKind => parseImage(text).kind;

export function measurements(inputs: Inputs, afterContracts: boolean): readonly Step[] | LeftOut {
  const { kms, already } = inputs;
  const intents: IntentInput[] = [];
  const check: Condition[] = [];
  for (const kind of newKinds(inputs)) {
    intents.push({ intent: "enable-tee", arguments: { kind } });
    intents.push({ intent: "accept-tcb", arguments: { kind, statuses: inputs.tcb[kind] ?? "" } });
    check.push({ is: "tee-enabled", tee: kind });
  }
  for (const { id, text } of platformsOf(inputs, "new")) {
    if (already.platforms.includes(id)) continue;
    intents.push({ intent: "allow-platform", arguments: { image: text, description: `rollout ${inputs.id}` } });
    check.push({ is: "platform", id, state: "allowed" });
  }
  if (kms !== null && !already.kmsImage) {
    const { image } = kms.new;
    intents.push({ intent: "allow-kms-image", arguments: { image: image.text, description: `rollout ${inputs.id}` } });
    check.push({ is: "kms-image", id: image.id, state: "allowed" });
  }
  const identity = kms?.identity ?? null;
  if (identity !== null && !already.identity) {
    intents.push({
      intent: "publish-kms-identity",
      arguments: {
        "root-epoch": String(identity.rootEpoch),
        "environment-key": identity.environmentKey,
        "receipt-signer": identity.receiptSigner,
        "evidence-hash": identity.evidenceHash,
      },
    });
    check.push({ is: "identity", environmentKey: identity.environmentKey });
  }
  if (intents.length === 0) {
    return {
      id: "measurements",
      reason: "the policy allows the platform and the KMS image already, or neither changes",
    };
  }
  const id = proposalId(inputs, 1, "measurements");
  return [
    {
      id: "measurements",
      phase: "measurements",
      title: `Register through governance: ${intents.map(({ intent }) => intent).join(", ")}`,
      // not before: what is registered rests on the code that it is registered in
      needs: [afterContracts ? "contracts" : "staging"],
      governance: "timelock",
      who: "the governance Safe's owners",
      preconditions: [],
      proposal: { id, intents, after: afterContracts ? proposalId(inputs, 0, "contracts") : null },
      commands: proposalCommands(inputs, "measurements", id, "timelock"),
      duration: waits(inputs.deployment.delaySeconds),
      downtime: "none",
      check,
      // what was loosened is tightened at once
      rollback: proposalRollback(inputs, id, "guardian"),
    },
  ];
}

/** A word as a shell takes it for one: file names may hold anything. */
const shellWord = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;

/** How an image was measured, as a command whose output a proposal keeps. */
function measureCommand({ measuring }: Measured, file: string): string {
  const options = Object.entries(measuring.options).flatMap(([name, value]) => {
    const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    return value === false ? [] : value === true ? [flag] : [flag, value];
  });
  return `${["keystead", "measure", measuring.as, ...measuring.inputs, ...options, "--json"].map(shellWord).join(" ")} > ${file}`;
}

/**
 * How the service's admin makes a call: with a key of their own, or through a Safe. A Safe's signers see where the image comes from, for its proposal keeps the
 * measurement; a call by an account alone leaves no proposal that could.
 */
export function adminCommands(inputs: Inputs, intent: string, options: string, measured?: Measured): readonly string[] {
  const { service, deployment } = inputs;
  if (service.adminKind === "account") {
    const key = "(the admin's key in KEYSTEAD_SENDER_KEY)";
    return [
      `keystead service ${intent} --service ${service.id} ${options} --deployment ${deployment.file} --send   ${key}`,
    ];
  }
  const account =
    service.adminKind === "safe"
      ? `--safe ${service.admin} --safe-version VERSION --safe-nonce NONCE`
      : `--safe SAFE --safe-version VERSION --safe-nonce NONCE --safe-timelock ${service.admin} --safe-timelock-delay DELAY`;
  const file = `${inputs.id}-${intent}.measurement.json`;
  return [
    ...(measured === undefined ? [] : [measureCommand(measured, file)]),
    `keystead propose ${intent} --id ID --service ${service.id} ${options} ${measured === undefined ? "" : `--measurement ${file} `}--deployment ${deployment.file} ${account}`,
    "then verify, sign and execute that proposal like any other",
  ];
}

export function serviceImage(inputs: Inputs, afterContracts: boolean): readonly Step[] | LeftOut {
  const { application, already, service } = inputs;
  if (application === null) return { id: "service-image", reason: "the application's measurements do not change" };
  if (already.image) return { id: "service-image", reason: "the service lists the new image already" };
  const { image } = application.new;
  return [
    {
      id: "service-image",
      phase: "measurements",
      title: "List the new image under the service",
      needs: [afterContracts ? "contracts" : "staging"],
      governance: "service-admin",
      who: `the service's admin ${service.admin}`,
      preconditions: [],
      proposal: null,
      commands: adminCommands(
        inputs,
        "add-image",
        `--image ${image.text} --description "rollout ${inputs.id}"`,
        application.new,
      ),
      duration: service.empty
        ? "a minute: the first image is active at once"
        : `a minute, then the notice period of ${days(service.noticePeriod)}`,
      downtime: "none: the old image goes on receiving keys",
      check: [{ is: "image", id: image.id, state: "listed" }],
      rollback: adminCommands(inputs, "remove-image", `--image ${image.id} --reason "rollout ${inputs.id} abandoned"`),
    },
  ];
}

export function retireStep(inputs: Inputs, needs: readonly string[]): readonly Step[] | LeftOut {
  const { application, cleanup: wish, service } = inputs;
  const old = application?.old ?? null;
  if (application === null || old === null) return { id: "retire-image", reason: "there is no older image" };
  if (old.image.id === application.new.image.id) return { id: "retire-image", reason: "the image is the same" };
  if (wish.image === "keep") return { id: "retire-image", reason: "the definition says to keep the old image" };
  const retires = wish.image === "retire";
  return [
    {
      id: "retire-image",
      phase: "cleanup",
      title: retires ? "Retire the old image" : "Remove the old image",
      needs,
      governance: "service-admin",
      who: `the service's admin ${service.admin}`,
      preconditions: [{ is: "image", id: application.new.image.id, state: "receives-keys" }],
      proposal: null,
      commands: retires
        ? adminCommands(inputs, "retire-image", `--image ${old.image.id} --last-moment UNTIL`)
        : adminCommands(inputs, "remove-image", `--image ${old.image.id} --reason "superseded by ${inputs.id}"`),
      duration: retires ? `a minute; the old image ends ${days(wish.graceSeconds)} later` : "a minute",
      downtime: "none: nothing runs the old image any more",
      check: [{ is: "image", id: old.image.id, state: "ends" }],
      rollback: [
        `an end can't be put off: to use the old image again, remove it and list it anew; it then waits out the notice period of ${days(service.noticePeriod)}`,
      ],
    },
  ];
}

export function revokeStep(inputs: Inputs, needs: readonly string[]): readonly Step[] | LeftOut {
  const { kms, cleanup: wish } = inputs;
  const intents: IntentInput[] = [];
  const check: Condition[] = [];
  const kept = new Set(platformsOf(inputs, "new").map(({ id }) => id));
  for (const { id } of wish.platform === "revoke" ? platformsOf(inputs, "old") : []) {
    if (kept.has(id)) continue;
    intents.push({ intent: "revoke-platform", arguments: { platform: id, reason: `after rollout ${inputs.id}` } });
    check.push({ is: "platform", id, state: "not-allowed" });
  }
  if (wish.kmsImage === "revoke" && kms?.old && kms.old.image.id !== kms.new.image.id) {
    intents.push({
      intent: "revoke-kms-image",
      arguments: { image: kms.old.image.id, reason: `after rollout ${inputs.id}` },
    });
    check.push({ is: "kms-image", id: kms.old.image.id, state: "not-allowed" });
  }
  if (intents.length === 0) {
    return { id: "revoke", reason: "the definition keeps the old platform and KMS image, or neither changed" };
  }
  const id = proposalId(inputs, 2, "revoke");
  return [
    {
      id: "revoke",
      phase: "cleanup",
      title: `Revoke what was replaced: ${intents.map(({ intent }) => intent).join(", ")}`,
      needs: [...needs, ...(kms === null ? [] : inputs.nodes.map(({ name }) => `node-${name}`))],
      governance: "guardian",
      who: "the guardian Safe's owners",
      preconditions: [],
      proposal: { id, intents, after: null },
      commands: proposalCommands(inputs, "revoke", id, "guardian"),
      duration: "as long as it takes to collect signatures; no delay",
      downtime: "none: nothing runs on what is revoked",
      check,
      rollback: proposalRollback(inputs, id, "timelock").filter((line) => line.startsWith(ONCE_EXECUTED)),
    },
  ];
}
