import { keccak_256 } from "@noble/hashes/sha3.js";
import { utf8ToBytes } from "@noble/hashes/utils.js";
import { type FieldType, type FieldValue, readField } from "./abi.ts";
import { fromHex, type Hex, toHex } from "./bytes.ts";
import { KeysteadError } from "./errors.ts";

/*
 * Every event of the two proxies, as data, and a strict decoder for them. Strict means that a log has one reading: it must be, byte for byte, what
 * `abi.encode` makes of the fields that are read from it. test/core/events.test.ts holds the tables against the compiled contracts.
 */

/** A log as an endpoint reports it, checked for shape and nothing else (see `parseLog`). */
export interface RawLog {
  /** The emitting contract, lower-case. */
  readonly address: Hex;
  readonly topics: readonly Hex[];
  readonly data: Hex;
  readonly blockNumber: number;
  readonly blockHash: Hex;
  readonly transactionHash: Hex;
  readonly logIndex: number;
}

/** The events of a service: each ends with `sequence` and `previousBlock` and is chained into the service's head. */
export const SERVICE_EVENTS = {
  create_service: [
    "CreateService",
    "bytes20 indexed serviceId",
    "address indexed creator",
    "address indexed pendingAdmin",
    "uint24 noticePeriod",
    "bool requireUpToDateTcb",
    "string description",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  add_secret_key_by_image: [
    "AddSecretKeyByImage",
    "bytes20 indexed serviceId",
    "address indexed creator",
    "bytes32 indexed imageId",
    "bytes image",
    "bool requireUpToDateTcb",
    "string description",
    "uint40 activeFrom",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  add_image_to_service: [
    "AddImageToService",
    "bytes20 indexed serviceId",
    "address indexed actor",
    "bytes32 indexed imageId",
    "bytes image",
    "string description",
    "uint40 activeFrom",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  remove_image_from_service: [
    "RemoveImageFromService",
    "bytes20 indexed serviceId",
    "address indexed actor",
    "bytes32 indexed imageId",
    "string reason",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  retire_image_from_service: [
    "RetireImageFromService",
    "bytes20 indexed serviceId",
    "address indexed admin",
    "bytes32 indexed imageId",
    "uint40 previousUntil",
    "uint40 activeUntil",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  rotate_service_key: [
    "RotateServiceKey",
    "bytes20 indexed serviceId",
    "address indexed admin",
    "uint16 keyEpoch",
    "uint40 since",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  publish_sealed_secrets: [
    "PublishSealedSecrets",
    "bytes20 indexed serviceId",
    "address indexed actor",
    "string name",
    "bytes ciphertext",
    "uint40 effectiveFrom",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  withdraw_pending_secrets: [
    "WithdrawPendingSecrets",
    "bytes20 indexed serviceId",
    "address indexed actor",
    "string reason",
    "uint40 since",
    "uint40 before",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  extend_notice_period: [
    "ExtendNoticePeriod",
    "bytes20 indexed serviceId",
    "address indexed admin",
    "uint24 previous",
    "uint24 noticePeriod",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  set_service_guardian: [
    "SetServiceGuardian",
    "bytes20 indexed serviceId",
    "address indexed admin",
    "address indexed guardian",
    "address previous",
    "uint40 effectiveFrom",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  set_device: [
    "SetDevice",
    "bytes20 indexed serviceId",
    "address indexed actor",
    "bytes32 indexed deviceId",
    "bool allowed",
    "uint40 effectiveFrom",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  set_require_up_to_date_tcb: [
    "SetRequireUpToDateTcb",
    "bytes20 indexed serviceId",
    "address indexed actor",
    "bool required",
    "uint40 effectiveFrom",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  transfer_service_admin: [
    "TransferServiceAdmin",
    "bytes20 indexed serviceId",
    "address indexed admin",
    "address indexed pendingAdmin",
    "address previousPending",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  accept_service_admin: [
    "AcceptServiceAdmin",
    "bytes20 indexed serviceId",
    "address indexed admin",
    "address indexed previous",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
  renounce_service_admin: [
    "RenounceServiceAdmin",
    "bytes20 indexed serviceId",
    "address indexed previous",
    "uint32 sequence",
    "uint40 previousBlock",
  ],
} as const;

const TAIL = ["uint64 policyVersion", "uint40 previousBlock"] as const;

/** The events of the policy: each ends with `policyVersion` and `previousBlock` and is chained into the policy's head. */
export const POLICY_EVENTS = {
  allow_platform: [
    "AllowPlatform",
    "bytes32 indexed platformId",
    "address indexed actor",
    "bytes image",
    "string description",
    ...TAIL,
  ],
  revoke_platform: ["RevokePlatform", "bytes32 indexed platformId", "address indexed actor", "string reason", ...TAIL],
  enable_tee: ["EnableTee", "uint8 indexed kind", "address indexed actor", ...TAIL],
  suspend_tee: ["SuspendTee", "uint8 indexed kind", "address indexed actor", "string reason", ...TAIL],
  accept_tcb: [
    "AcceptTcb",
    "uint8 indexed kind",
    "address indexed actor",
    "uint16 previous",
    "uint16 accepted",
    ...TAIL,
  ],
  reject_tcb: [
    "RejectTcb",
    "uint8 indexed kind",
    "address indexed actor",
    "uint16 previous",
    "uint16 accepted",
    ...TAIL,
  ],
  allow_device: ["AllowDevice", "uint8 indexed kind", "bytes32 indexed deviceId", "address indexed actor", ...TAIL],
  revoke_device: ["RevokeDevice", "uint8 indexed kind", "bytes32 indexed deviceId", "address indexed actor", ...TAIL],
  restrict_devices: ["RestrictDevices", "uint8 indexed kind", "address indexed actor", ...TAIL],
  unrestrict_devices: ["UnrestrictDevices", "uint8 indexed kind", "address indexed actor", ...TAIL],
  allow_kms_image: [
    "AllowKmsImage",
    "bytes32 indexed imageId",
    "address indexed actor",
    "bytes image",
    "string description",
    ...TAIL,
  ],
  revoke_kms_image: ["RevokeKmsImage", "bytes32 indexed imageId", "address indexed actor", "string reason", ...TAIL],
  publish_kms_identity: [
    "PublishKmsIdentity",
    "bytes32 indexed identityId",
    "address indexed actor",
    "uint16 rootEpoch",
    "bytes32 environmentKey",
    "address receiptSigner",
    "bytes32 evidenceHash",
    ...TAIL,
  ],
  revoke_kms_identity: [
    "RevokeKmsIdentity",
    "bytes32 indexed identityId",
    "address indexed actor",
    "string reason",
    ...TAIL,
  ],
  set_gateway_app_id: ["SetGatewayAppId", "address indexed actor", "string previous", "string gatewayAppId", ...TAIL],
  set_app_implementation: [
    "SetAppImplementation",
    "address indexed actor",
    "address indexed appImplementation",
    "address previous",
    ...TAIL,
  ],
  pause_release: ["PauseRelease", "address indexed actor", "uint40 until", "string reason", ...TAIL],
  extend_pause: ["ExtendPause", "address indexed actor", "uint40 previous", "uint40 until", ...TAIL],
  resume_release: ["ResumeRelease", "address indexed actor", "uint40 previous", ...TAIL],
} as const;

/** Events of both proxies that are OpenZeppelin's own and part of no hash chain: roles, upgrades, initialisation. */
export const GOVERNED_EVENTS = {
  initialized: ["Initialized", "uint64 version"],
  role_admin_changed: [
    "RoleAdminChanged",
    "bytes32 indexed role",
    "bytes32 indexed previousAdminRole",
    "bytes32 indexed newAdminRole",
  ],
  role_granted: ["RoleGranted", "bytes32 indexed role", "address indexed account", "address indexed sender"],
  role_revoked: ["RoleRevoked", "bytes32 indexed role", "address indexed account", "address indexed sender"],
  upgraded: ["Upgraded", "address indexed implementation"],
} as const;

type Table = Readonly<Record<string, readonly [string, ...string[]]>>;
type FieldName<F> = F extends `${string} indexed ${infer N}` ? N : F extends `${string} ${infer N}` ? N : never;
type TypeOfField<F> = F extends `${infer T} ${string}` ? (T extends FieldType ? T : never) : never;
type Fields<E extends readonly string[]> = E extends readonly [string, ...infer Rest extends readonly string[]]
  ? { readonly [F in Rest[number] as FieldName<F>]: FieldValue<TypeOfField<F>> }
  : never;
type EventOf<T extends Table> = { [K in keyof T & string]: { readonly name: K; readonly args: Fields<T[K]> } }[keyof T &
  string];

/** A decoded event of a service, told apart by `name`. Numbers are plain numbers (the widest is 40 bits), bytes are lower-case hex. */
export type ServiceEvent = EventOf<typeof SERVICE_EVENTS>;
/** A decoded event of the policy, told apart by `name`. */
export type PolicyEvent = EventOf<typeof POLICY_EVENTS>;
/** A decoded event that is part of no hash chain. */
export type GovernedEvent = EventOf<typeof GOVERNED_EVENTS>;

interface Field {
  readonly name: string;
  readonly type: FieldType;
  readonly indexed: boolean;
}
interface EventSpec {
  readonly name: string;
  readonly solidityName: string;
  readonly topic0: Hex;
  readonly fields: readonly Field[];
}

function specs(table: Table): ReadonlyMap<Hex, EventSpec> {
  return new Map(
    Object.entries(table).map(([name, [solidityName, ...rest]]) => {
      const fields = rest.map((text): Field => {
        const parts = text.split(" ");
        return { type: parts[0] as FieldType, name: parts.at(-1) ?? "", indexed: parts.length === 3 };
      });
      const signature = `${solidityName}(${fields.map(({ type }) => type).join(",")})`;
      const topic0 = toHex(keccak_256(utf8ToBytes(signature)));
      return [topic0, { name, solidityName, topic0, fields }];
    }),
  );
}

const SERVICE = specs(SERVICE_EVENTS);
const POLICY = specs(POLICY_EVENTS);
const GOVERNED = specs(GOVERNED_EVENTS);

/**
 * The topic0 of an event of either contract by its name in tools.
 *
 * @throws KeysteadError `event/unknown` for a name that no table holds
 * @example
 * topicOf("create_service"); // "0x…", 32 bytes
 */
export function topicOf(
  name: keyof typeof SERVICE_EVENTS | keyof typeof POLICY_EVENTS | keyof typeof GOVERNED_EVENTS,
): Hex {
  for (const table of [SERVICE, POLICY, GOVERNED]) {
    for (const spec of table.values()) if (spec.name === name) return spec.topic0;
  }
  throw unknownEvent(name);
}

/**
 * Whether a log is one of OpenZeppelin's own (roles, upgrades), which no hash chain covers. Everything else that a proxy emits must be chained.
 *
 * @example
 * const chained = logs.filter((log) => !isGovernedLog(log));
 */
export function isGovernedLog(log: RawLog): boolean {
  return log.topics[0] !== undefined && GOVERNED.has(log.topics[0]);
}

/**
 * A service's log as a typed event.
 *
 * @throws KeysteadError `event/unknown` {topic0} for an event that this version does not know; `event/malformed` {event, field} unless topics and data
 * are exactly what the contract's `abi.encode` makes of the fields
 * @example
 * const event = decodeServiceEvent(log);
 * if (event.name === "add_image_to_service") console.log(event.args.activeFrom);
 */
export function decodeServiceEvent(log: RawLog): ServiceEvent {
  return decode(SERVICE, log) as ServiceEvent;
}

/**
 * A policy's log as a typed event.
 *
 * @throws KeysteadError as {@link decodeServiceEvent}
 * @example
 * decodePolicyEvent(log).args.policyVersion;
 */
export function decodePolicyEvent(log: RawLog): PolicyEvent {
  return decode(POLICY, log) as PolicyEvent;
}

/**
 * A log of OpenZeppelin's own events as a typed event.
 *
 * @throws KeysteadError as {@link decodeServiceEvent}
 * @example
 * decodeGovernedEvent(log).name; // "role_granted"
 */
export function decodeGovernedEvent(log: RawLog): GovernedEvent {
  return decode(GOVERNED, log) as GovernedEvent;
}

function decode(table: ReadonlyMap<Hex, EventSpec>, log: RawLog): { name: string; args: Record<string, unknown> } {
  const topic0 = log.topics[0];
  const spec = topic0 === undefined ? undefined : table.get(topic0);
  if (spec === undefined) throw unknownEvent(topic0 ?? "a log without topics");
  const malformed = (field: string, why: string) =>
    new KeysteadError("event/malformed", `${spec.solidityName}.${field} is malformed: ${why}`, {
      argument: "log",
      remedy: "Fetch the log from another endpoint: no version of the contracts emits this.",
      details: { event: spec.name, field },
    });

  const indexed = spec.fields.filter((field) => field.indexed);
  if (log.topics.length !== indexed.length + 1) {
    throw malformed("topics", `${log.topics.length} topics where ${indexed.length + 1} belong`);
  }
  const data = fromHex(log.data, "log.data");
  const headBytes = 32 * (spec.fields.length - indexed.length);
  const args: Record<string, unknown> = {};
  let topic = 1;
  let head = 0;
  let tail = headBytes;
  for (const { name, type, indexed: isTopic } of spec.fields) {
    const fail = (why: string) => malformed(name, why);
    if (isTopic) {
      args[name] = readField(type, fromHex(log.topics[topic++] ?? "", "log.topics"), 0, 32, fail).value;
    } else {
      const read = readField(type, data, head, tail, fail);
      args[name] = read.value;
      head += 32;
      tail = read.tail;
    }
  }
  if (tail !== data.length) throw malformed("data", `${data.length} bytes where ${tail} belong`);
  return { name: spec.name, args };
}

function unknownEvent(topic0: string): KeysteadError {
  return new KeysteadError("event/unknown", `no event of this version of the contracts has the topic ${topic0}`, {
    argument: "log",
    remedy: "Upgrade keystead: the contracts may have been upgraded to a version that says more.",
    details: { topic0 },
  });
}
