import { fromHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { imageId } from "../core/image.ts";
import { INTERFACES } from "./abis.ts";
import { identityId } from "./effects.ts";
import type { OperationContracts } from "./operation.ts";
import { asHex, type ParameterKind, parseParameter } from "./parameters.ts";
import { type Call, hex } from "./safe-hash.ts";

/** One argument of an intent. */
export interface Parameter {
  readonly name: string;
  readonly kind: ParameterKind;
  readonly help: string;
  /** Taken where none is given. An argument without a default is required. */
  readonly default?: string;
  /** May be left out; it serves the rollback alone. */
  readonly optional?: boolean;
}

/** Arguments as they were given, and as they were parsed. */
type Parsed = Readonly<Record<string, unknown>>;

/** Something that governance can want, as one call. */
export interface Intent {
  readonly summary: string;
  readonly parameters: readonly Parameter[];
  /** Which function, with its arguments in order. */
  readonly call: (a: Parsed) => IntentCall;
  /** The call that undoes it, where one follows from the arguments. */
  readonly inverse?: (a: Parsed) => IntentCall | undefined;
}

interface IntentCall {
  readonly contract: keyof OperationContracts;
  readonly function: string;
  readonly arguments: readonly unknown[];
}

const p = (name: string, kind: ParameterKind, help: string, more: Partial<Parameter> = {}): Parameter => ({
  ...{ name, kind, help },
  ...more,
});
const description = p("description", "text", "what people will read beside it; public");
const reason = p("reason", "text", "why; public");
const kind = p("kind", "tee", "tdx, snp, nitro or dstack");
const statuses = p("statuses", "tcb", "TCB statuses with commas between them, e.g. UpToDate,SWHardeningNeeded");
const device = p("device", "bytes32", "the device's id");
const serviceId = p("service", "service", "the service's id");
const image = p("image", "bytes32", "the image's id");

/** What both sorts of service are created with. */
const serviceRules = [
  description,
  p("devices", "devices", "the only devices that count, with commas between them; empty: any", { default: "" }),
  p("up-to-date-tcb", "boolean", "insist on TCB status UpToDate", { default: "false" }),
  p("salt", "bytes32", "tells services of one creator apart", { default: `0x${"00".repeat(32)}` }),
];

const policy = (name: string, ...args: readonly unknown[]): IntentCall => ({
  ...{ contract: "policy" as const, function: name },
  arguments: args,
});
const registry = (name: string, ...args: readonly unknown[]): IntentCall => ({
  ...{ contract: "registry" as const, function: name },
  arguments: args,
});
const idOf = (bytes: unknown): string => imageId(fromHex(String(bytes), "image"));
const identityOf = (a: Parsed): readonly unknown[] => [
  ...[a["root-epoch"], a["environment-key"], a["receipt-signer"], a["evidence-hash"]],
];
const contractOf = (value: unknown): keyof OperationContracts =>
  value === "policy" || value === "registry" ? value : "timelock";
const on = (a: Parsed, name: string, ...args: readonly unknown[]): IntentCall => ({
  ...{ contract: contractOf(a.contract), function: name },
  arguments: args,
});

/** The reason that a rollback gives; whoever uses it explains more where people read. */
const UNDO = "rollback";

/** Everything that can be proposed by name. */
export const INTENTS: Readonly<Record<string, Intent>> = {
  "allow-platform": {
    summary: "allow a platform (firmware and OS) for all services",
    parameters: [p("image", "image:platform", "the platform, as text or canonical hex"), description],
    call: (a) => policy("allowPlatform", a.image, a.description),
    inverse: (a) => policy("revokePlatform", idOf(a.image), UNDO),
  },
  "revoke-platform": {
    summary: "take a platform off the list, at once",
    parameters: [p("platform", "bytes32", "the platform's id"), reason],
    call: (a) => policy("revokePlatform", a.platform, a.reason),
  },
  "allow-kms-image": {
    summary: "let an image run as a KMS node and receive the root secret",
    parameters: [p("image", "image:sealed", "the image, as text or canonical hex"), description],
    call: (a) => policy("allowKmsImage", a.image, a.description),
    inverse: (a) => policy("revokeKmsImage", idOf(a.image), UNDO),
  },
  "revoke-kms-image": {
    summary: "take a KMS image off the list, at once",
    parameters: [image, reason],
    call: (a) => policy("revokeKmsImage", a.image, a.reason),
  },
  "enable-tee": {
    summary: "let keys be released to a TEE kind",
    parameters: [kind],
    call: (a) => policy("enableTee", a.kind),
    inverse: (a) => policy("suspendTee", a.kind, UNDO),
  },
  "suspend-tee": {
    summary: "stop every release to a TEE kind, at once",
    parameters: [kind, reason],
    call: (a) => policy("suspendTee", a.kind, a.reason),
    inverse: (a) => policy("enableTee", a.kind),
  },
  "accept-tcb": {
    summary: "accept TCB statuses for a TEE kind",
    parameters: [kind, statuses],
    call: (a) => policy("acceptTcb", a.kind, a.statuses),
    inverse: (a) => policy("rejectTcb", a.kind, a.statuses),
  },
  "reject-tcb": {
    summary: "no longer accept TCB statuses for a TEE kind, at once",
    parameters: [kind, statuses],
    call: (a) => policy("rejectTcb", a.kind, a.statuses),
    inverse: (a) => policy("acceptTcb", a.kind, a.statuses),
  },
  "allow-device": {
    summary: "put a device on a TEE kind's list",
    parameters: [kind, device],
    call: (a) => policy("allowDevice", a.kind, a.device),
    inverse: (a) => policy("revokeDevice", a.kind, a.device),
  },
  "revoke-device": {
    summary: "take a device off a TEE kind's list, at once",
    parameters: [kind, device],
    call: (a) => policy("revokeDevice", a.kind, a.device),
    inverse: (a) => policy("allowDevice", a.kind, a.device),
  },
  "restrict-devices": {
    summary: "let only listed devices of a TEE kind count, at once",
    parameters: [kind],
    call: (a) => policy("restrictDevices", a.kind),
    inverse: (a) => policy("unrestrictDevices", a.kind),
  },
  "unrestrict-devices": {
    summary: "let any device of a TEE kind count",
    parameters: [kind],
    call: (a) => policy("unrestrictDevices", a.kind),
    inverse: (a) => policy("restrictDevices", a.kind),
  },
  "publish-kms-identity": {
    summary: "publish a KMS node's public keys",
    parameters: [
      p("root-epoch", "epoch", "which root secret it derives from"),
      p("environment-key", "bytes32", "its X25519 public key"),
      p("receipt-signer", "address", "the address that signs its receipts"),
      p("evidence-hash", "bytes32", "keccak256 of the evidence that binds these keys to a KMS image"),
    ],
    call: (a) => policy("publishKmsIdentity", identityOf(a)),
    inverse: (a) => policy("revokeKmsIdentity", identityId(identityOf(a)), UNDO),
  },
  "revoke-kms-identity": {
    summary: "declare a KMS node's public keys untrusted, at once",
    parameters: [p("identity", "bytes32", "the identity's id"), reason],
    call: (a) => policy("revokeKmsIdentity", a.identity, a.reason),
  },
  "set-gateway-app-id": {
    summary: "set the gateway that dstack machines are told to use",
    parameters: [
      p("gateway", "text", "an app id, several, or empty"),
      p("previous", "text", "the one now set, for the rollback", { optional: true }),
    ],
    call: (a) => policy("setGatewayAppId", a.gateway),
    inverse: (a) => (a.previous === undefined ? undefined : policy("setGatewayAppId", a.previous)),
  },
  "set-app-implementation": {
    summary: "set the app implementation that dstack's tools are told about",
    parameters: [
      p("implementation", "address", "its address"),
      p("previous", "address", "the one now set, for the rollback", { optional: true }),
    ],
    call: (a) => policy("setAppImplementation", a.implementation),
    inverse: (a) => (a.previous === undefined ? undefined : policy("setAppImplementation", a.previous)),
  },
  "pause-release": {
    summary: "pause every release, at once; it lapses by itself",
    parameters: [p("duration", "duration", "how long, at most 14d"), reason],
    call: (a) => policy("pauseRelease", a.duration, a.reason),
    inverse: () => policy("resumeRelease"),
  },
  "extend-pause": {
    summary: "move the end of a pause in force",
    parameters: [p("duration", "duration", "from execution on, at most 14d")],
    call: (a) => policy("extendPause", a.duration),
  },
  "resume-release": {
    summary: "lift a pause before it lapses",
    parameters: [],
    call: () => policy("resumeRelease"),
  },
  upgrade: {
    summary: "replace a proxy's implementation",
    parameters: [
      p("contract", "contract", "policy or registry"),
      p("implementation", "address", "the new implementation, deployed"),
      p("call", "bytes", "calldata of its initialiser", { default: "0x" }),
      p("previous", "address", "the implementation now behind the proxy, for the rollback", { optional: true }),
    ],
    call: (a) =>
      a.call === "0x" ? on(a, "upgradeTo", a.implementation) : on(a, "upgradeToAndCall", a.implementation, a.call),
    inverse: (a) => (a.previous === undefined ? undefined : on(a, "upgradeTo", a.previous)),
  },
  "grant-role": {
    summary: "give a role to a contract",
    parameters: [
      p("contract", "contract", "whose role"),
      p("role", "role", "its name"),
      p("account", "address", "who"),
    ],
    call: (a) => on(a, "grantRole", a.role, a.account),
    inverse: (a) => on(a, "revokeRole", a.role, a.account),
  },
  "revoke-role": {
    summary: "take a role away",
    parameters: [
      p("contract", "contract", "whose role"),
      p("role", "role", "its name"),
      p("account", "address", "who"),
    ],
    call: (a) => on(a, "revokeRole", a.role, a.account),
    inverse: (a) => on(a, "grantRole", a.role, a.account),
  },
  "renounce-role": {
    summary: "give up a role that the account itself holds",
    parameters: [
      p("contract", "contract", "whose role"),
      p("role", "role", "its name"),
      p("account", "address", "the account that gives it up: the one that makes the call"),
    ],
    call: (a) => on(a, "renounceRole", a.role, a.account),
  },
  "set-delay": {
    summary: "change the timelock's minimum delay",
    parameters: [
      p("delay", "duration", "the new minimum"),
      p("previous", "duration", "the minimum now, for the rollback", { optional: true }),
    ],
    call: (a) => on(a, "updateDelay", a.delay),
    inverse: (a) => (a.previous === undefined ? undefined : on(a, "updateDelay", a.previous)),
  },
  veto: {
    summary: "cancel an operation that waits in the timelock, whoever scheduled it",
    parameters: [p("operation", "bytes32", "the timelock's id of it")],
    call: (a) => on(a, "cancel", a.operation),
  },
  "create-service": {
    summary: "create a service whose images may change, with or without its first one",
    parameters: [
      p("admin", "address", "who governs it"),
      ...serviceRules,
      p("notice", "duration", "how long later images wait before they get keys"),
      p("image", "image:service", "the first image, active at once", { optional: true }),
      p("image-description", "text", "what people will read beside the image; public", { default: "" }),
    ],
    call: (a) => {
      const config = [a.admin, a.notice, a.description, a.devices, a["up-to-date-tcb"]];
      if (a.image === undefined) return registry("createService", config, a.salt);
      return registry("createServiceWithImage", config, a.salt, a.image, a["image-description"]);
    },
  },
  "create-sealed": {
    summary: "create a service of exactly one image, that nobody can ever change",
    parameters: [
      p("image", "image:sealed", "the image, as text or canonical hex"),
      ...serviceRules,
      p("secrets", "bytes", "sealed to the environment key, for ever", { default: "0x" }),
    ],
    call: (a) =>
      registry("addSecretKeyByImage", ...[a.image, a.devices, a["up-to-date-tcb"], a.salt, a.description, a.secrets]),
  },
  "add-image": {
    summary: "list an image under a service",
    parameters: [serviceId, p("image", "image:service", "the image, as text or canonical hex"), description],
    call: (a) => registry("addImageToService", a.service, a.image, a.description),
    inverse: (a) => registry("removeImageFromService", a.service, idOf(a.image), UNDO),
  },
  "remove-image": {
    summary: "remove an image from a service, at once",
    parameters: [serviceId, image, reason],
    call: (a) => registry("removeImageFromService", a.service, a.image, a.reason),
  },
  "remove-images": {
    summary: "remove several images from a service, at once, skipping those that are gone",
    parameters: [serviceId, p("images", "devices", "the images' ids, separated by commas"), reason],
    call: (a) => registry("removeImagesFromService", a.service, a.images, a.reason),
  },
  "withdraw-secrets": {
    summary: "withdraw a service's published secrets that are not in force yet",
    parameters: [serviceId, reason],
    call: (a) => registry("withdrawPendingSecrets", a.service, a.reason),
  },
  "restrict-service-devices": {
    summary: "bind a service's images, from now on, to listed devices",
    parameters: [serviceId, p("devices", "devices", "the devices' ids, separated by commas")],
    call: (a) => registry("restrictServiceDevices", a.service, a.devices),
  },
  "retire-image": {
    summary: "end an image's time under a service",
    parameters: [serviceId, image, p("last-moment", "time", "seconds since 1970")],
    call: (a) => registry("retireImageFromService", a.service, a.image, a["last-moment"]),
  },
  "rotate-key": {
    summary: "start a service's next key epoch",
    parameters: [serviceId],
    call: (a) => registry("rotateServiceKey", a.service),
  },
  "publish-secrets": {
    summary: "publish sealed secrets of a service",
    parameters: [serviceId, p("name", "text", "their name"), p("ciphertext", "bytes", "sealed to the environment key")],
    call: (a) => registry("publishSealedSecrets", a.service, a.name, a.ciphertext),
  },
  "extend-notice": {
    summary: "lengthen a service's notice period; it can never be shortened",
    parameters: [serviceId, p("period", "duration", "the new notice period")],
    call: (a) => registry("extendNoticePeriod", a.service, a.period),
  },
  "set-service-guardian": {
    summary: "name the account that may remove a service's images",
    parameters: [serviceId, p("guardian", "address", "who; zero for none")],
    call: (a) => registry("setServiceGuardian", a.service, a.guardian),
  },
  "set-device": {
    summary: "allow a device for a service, or take it away",
    parameters: [serviceId, device, p("allowed", "boolean", "true or false")],
    call: (a) => registry("setDevice", a.service, a.device, a.allowed),
  },
  "set-tcb-rule": {
    summary: "insist on TCB status UpToDate for a service, or no longer",
    parameters: [serviceId, p("required", "boolean", "true or false")],
    call: (a) => registry("setRequireUpToDateTcb", a.service, a.required),
  },
  "transfer-admin": {
    summary: "offer a service's office of admin to another account",
    parameters: [serviceId, p("to", "address", "who may accept it")],
    call: (a) => registry("transferServiceAdmin", a.service, a.to),
  },
  "accept-admin": {
    summary: "take over a service's office of admin",
    parameters: [serviceId],
    call: (a) => registry("acceptServiceAdmin", a.service),
  },
  "renounce-admin": {
    summary: "give up a service's office of admin, for ever",
    parameters: [serviceId],
    call: (a) => registry("renounceServiceAdmin", a.service),
  },
};

/** An intent by name, with its arguments as texts. */
export interface IntentInput {
  readonly intent: string;
  readonly arguments: Readonly<Record<string, string>>;
}

/** A call that does what was asked, and the one that undoes it, where there is one. */
export interface BuiltIntent {
  readonly call: Call;
  readonly inverse: Call | undefined;
}

const refuse = (argument: string, message: string, remedy: string) =>
  new KeysteadError("intent/bad-argument", message, { argument, remedy, details: { name: argument } });

/**
 * Builds the call of an intent. The intent `call` takes any address, value and data, and is shown as what it is.
 *
 * @throws KeysteadError `intent/unknown`, `intent/bad-argument` {name}, and those of the image and hex parsers
 * @example
 * buildIntent({ intent: "enable-tee", arguments: { kind: "tdx" } }, contracts).call.data;
 */
export function buildIntent(input: IntentInput, contracts: OperationContracts): BuiltIntent {
  const { intent: name, arguments: given } = input;
  if (name === "call") return { call: buildArbitraryCall(given), inverse: undefined };
  const intent = Object.hasOwn(INTENTS, name) ? INTENTS[name] : undefined;
  if (intent === undefined) {
    throw new KeysteadError("intent/unknown", `there is no intent ${JSON.stringify(name)}`, {
      argument: "intent",
      remedy: `Give one of ${Object.keys(INTENTS).join(", ")}, call.`,
    });
  }
  const parsed = parseArguments(intent.parameters, given);
  if (name === "upgrade" && parsed.contract === "timelock") {
    throw refuse("contract", "the timelock is no proxy: it cannot be upgraded", "Give policy or registry.");
  }
  const build = ({ contract, function: method, arguments: args }: IntentCall): Call => {
    try {
      const data = hex(INTERFACES[contract].encodeFunctionData(method, args));
      return { to: contracts[contract], value: 0n, data };
    } catch (cause) {
      const found = cause instanceof Error ? cause.message : String(cause);
      throw refuse(name, `${method} of the ${contract} cannot take these arguments: ${found}`, "Give values that fit.");
    }
  };
  const inverse = intent.inverse?.(parsed);
  return { call: build(intent.call(parsed)), inverse: inverse === undefined ? undefined : build(inverse) };
}

/** What takes both offices from a guardian, for a successor or for nobody: the calls that GovernanceTimelock lets no guardian cancel. */
export const DISMISS_GUARDIAN = "dismiss-guardian";
export const DISMISS_PARAMETERS: readonly Parameter[] = [
  p("account", "address", "the guardian that is dismissed"),
  p("successor", "address", "who takes its offices in the same moment; default: nobody", { optional: true }),
];

/**
 * The intents that an intent stands for: itself, but for `dismiss-guardian`.
 *
 * @throws KeysteadError `intent/bad-argument`
 * @example
 * expandIntent({ intent: "dismiss-guardian", arguments: { account } }).length; // 2
 */
export function expandIntent(input: IntentInput): readonly IntentInput[] {
  if (input.intent !== DISMISS_GUARDIAN) return [input];
  const { account, successor } = parseArguments(DISMISS_PARAMETERS, input.arguments);
  return [
    ["policy", "GUARDIAN_ROLE"],
    ["timelock", "CANCELLER_ROLE"],
  ].flatMap(([contract = "", role = ""]) => {
    const of = (intent: string, holder: unknown) => ({
      intent,
      arguments: { contract, role, account: String(holder) },
    });
    return [...(successor === undefined ? [] : [of("grant-role", successor)]), of("revoke-role", account)];
  });
}

/** The arguments of the intent `call`. */
export const CALL_PARAMETERS: readonly Parameter[] = [
  p("to", "address", "whom"),
  p("value", "wei", "wei", { default: "0" }),
  p("data", "bytes", "calldata", { default: "0x" }),
];

function buildArbitraryCall(given: Readonly<Record<string, string>>): Call {
  const { to, value, data } = parseArguments(CALL_PARAMETERS, given);
  return { to: String(to), value: BigInt(String(value)), data: asHex(data) };
}

function parseArguments(parameters: readonly Parameter[], given: Readonly<Record<string, string>>): Parsed {
  for (const name of Object.keys(given)) {
    if (!parameters.some((parameter) => parameter.name === name)) {
      const known = parameters.map((parameter) => parameter.name).join(", ");
      throw refuse(name, `${name} is no argument of this intent`, `Give ${known === "" ? "none" : known}.`);
    }
  }
  const parsed: Record<string, unknown> = {};
  for (const parameter of parameters) {
    const text = Object.hasOwn(given, parameter.name) ? given[parameter.name] : parameter.default;
    if (text !== undefined) parsed[parameter.name] = parseParameter(parameter.kind, text, parameter.name);
    else if (parameter.optional !== true) {
      throw refuse(parameter.name, `${parameter.name} is missing`, `Give ${parameter.help}.`);
    }
  }
  return parsed;
}
