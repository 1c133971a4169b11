import { decodeUtf8, type Hex } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";
import { isJsonObject, type JsonObject, parseJson } from "../json.ts";
import { computeComposeHash } from "./dstack.ts";
import {
  type DstackFacts,
  type EventLog,
  parseEventLogValue,
  RTMR_NAMES,
  type RtmrName,
  readDstackFacts,
  verifyEventLog,
} from "./event-log.ts";

/*
 * What people hold of a running dstack machine: the guest agent's answer to Info, or the same from a cloud's API. Inside is `tcb_info`, an object or the text of
 * one, and inside that `app_compose`, the very text whose hash was measured. It is the agent's word and no proof, but it can be held against itself: the log must
 * replay to the registers, and every compose hash, app id and OS image hash in it must be the same one.
 *
 * Source: guest-agent/src/rpc_service.rs of Dstack-TEE/dstack (Info, TcbInfo).
 */

/** An answer that does not contradict itself. */
export interface GuestInfo {
  /** The exact bytes of the app-compose.json; undefined if the machine does not show it (`public_tcbinfo` off). */
  readonly appCompose: Uint8Array | undefined;
  /** 32 bytes: of the bytes, or as it is stated. */
  readonly composeHash: Hex;
  /** 32 bytes. */
  readonly osImageHash: Hex | undefined;
  readonly name: string | undefined;
  readonly log: EventLog | undefined;
  readonly facts: DstackFacts | undefined;
  /** MRTD and RTMR0 to 3 as stated, 48 bytes each. */
  readonly registers: Readonly<Partial<Record<"mrtd" | RtmrName, Hex>>>;
  /** Registers that the log replays to. */
  readonly checked: readonly RtmrName[];
}

/** Fields that may be stated at both levels, with their widths in bytes. */
const STATED = { app_id: 20, compose_hash: 32, os_image_hash: 32 } as const;

/**
 * Whether a JSON object is an Info or a tcb_info answer.
 *
 * @example
 * isGuestInfo({ tcb_info: "{…}" }); // true
 */
export function isGuestInfo(value: JsonObject): boolean {
  return value.tcb_info !== undefined || (value.app_compose !== undefined && value.mrtd !== undefined);
}

/**
 * Reads an Info or tcb_info answer and holds it against itself.
 *
 * @throws KeysteadError `json/*`; `guest-info/malformed` {field}; `guest-info/contradiction` {field, …}; those of `parseEventLog`, `verifyEventLog`
 * @example
 * const { appCompose, composeHash } = parseGuestInfo(bytes);
 */
export function parseGuestInfo(bytes: Uint8Array): GuestInfo {
  const outer = objectOf(decodeUtf8(bytes, "info"), "info");
  const tcb = outer.tcb_info === undefined ? outer : objectOf(outer.tcb_info, "tcb_info");
  const registers: Partial<Record<"mrtd" | RtmrName, Hex>> = {};
  for (const name of ["mrtd", ...RTMR_NAMES] as const) {
    const value = hexOf(tcb, name, 48);
    if (value !== undefined) registers[name] = value;
  }
  const stated = Object.fromEntries(
    Object.entries(STATED).map(([field, width]) => [field, oneOf(field, [tcb, outer], width)]),
  ) as Record<keyof typeof STATED, Hex | undefined>;

  const log = eventLogOf(tcb.event_log);
  const facts = log === undefined ? undefined : readDstackFacts(log);
  const { mrtd: _, ...rtmrs } = registers;
  const checked = log === undefined ? [] : verifyEventLog(log, rtmrs).checked;

  const compose = tcb.app_compose;
  if (compose !== undefined && typeof compose !== "string") throw malformed("app_compose", "is not a text");
  const appCompose = compose === undefined || compose === "" ? undefined : new TextEncoder().encode(compose);
  const composeHash = agree("compose_hash", [
    appCompose === undefined ? undefined : computeComposeHash(appCompose),
    facts?.composeHash,
    stated.compose_hash,
  ]);
  if (composeHash === undefined) throw malformed("app_compose", "is missing, and so is every compose hash");
  agree("app_id", [facts?.appId, stated.app_id]);
  const osImageHash = agree("os_image_hash", [facts?.osImageHash, stated.os_image_hash]);
  const name = typeof outer.app_name === "string" ? outer.app_name : undefined;
  return { appCompose, composeHash, osImageHash, name, log, facts, registers, checked };
}

/** The one value that all sources name; empty ones count as none. */
function agree(field: string, values: readonly (Hex | undefined)[]): Hex | undefined {
  const named = [...new Set(values.filter((value) => value !== undefined))];
  if (named.length > 1) {
    throw new KeysteadError(
      "guest-info/contradiction",
      `the answer contradicts itself: it has ${named.length} values of ${field}`,
      {
        argument: field,
        remedy: "Ask the machine again, in one call. If it stays so, distrust it: the text is not what was measured.",
        details: { field, values: named },
      },
    );
  }
  return named[0];
}

function oneOf(field: string, objects: readonly JsonObject[], width: number): Hex | undefined {
  return agree(
    field,
    objects.map((object) => hexOf(object, field, width)),
  );
}

function eventLogOf(value: JsonObject[string] | undefined): EventLog | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  return parseEventLogValue(typeof value === "string" ? parseJson(value, "event_log") : value);
}

/** An object, or the text of one. */
function objectOf(value: JsonObject[string], field: string): JsonObject {
  const parsed = typeof value === "string" ? parseJson(value, field) : value;
  // a text inside of a text, as a shell that quotes an answer leaves it
  const inner = typeof parsed === "string" ? parseJson(parsed, field) : parsed;
  if (!isJsonObject(inner)) throw malformed(field, "is not an object");
  return inner;
}

function hexOf(object: JsonObject, field: string, width: number): Hex | undefined {
  const value = object[field];
  if (value === undefined || value === null || value === "") return undefined;
  const digits = typeof value === "string" ? /^(?:0x)?([0-9a-fA-F]*)$/.exec(value)?.[1] : undefined;
  if (digits?.length !== 2 * width) throw malformed(field, `is not ${width} bytes of hex`);
  return `0x${digits.toLowerCase()}`;
}

function malformed(field: string, why: string): KeysteadError {
  return new KeysteadError("guest-info/malformed", `${field} ${why}`, {
    argument: field,
    remedy: "Give the whole answer of the guest agent's Info, or its tcb_info.",
    details: { field },
  });
}
