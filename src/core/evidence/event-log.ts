import { sha384 } from "@noble/hashes/sha2.js";
import { concatBytes, decodeUtf8, equalBytes, fromHex, type Hex, isZero, toHex } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from "../json.ts";

/*
 * dstack's event log. It proves nothing by itself: what it says counts once its digests, extended in order, give the RTMRs of a verified
 * quote. Digests of RTMR3 are therefore never taken from the file: each is recomputed from the event it stands for, so that a forged payload
 * beside an honest digest is refused. RTMR0 to 2 belong to firmware and kernel; their payloads are no preimages, so their digests are used
 * as given and their payloads mean nothing.
 *
 * Formats: cc-eventlog of Dstack-TEE/dstack (TdxEvent, RuntimeEvent).
 *   v1 digest = SHA-384(LE32(type) ‖ ":" ‖ name ‖ ":" ‖ payload)
 *   v2 digest = SHA-384(JCS {"name","payload": hex,"type"})
 *   rtmr' = SHA-384(rtmr ‖ digest), from 48 zero bytes
 */

/** The event type of every dstack runtime event, in both versions. */
export const DSTACK_RUNTIME_EVENT = 0x08000001;
/** Most events that one log may hold: real ones have under 100, and replaying costs time. */
export const MAX_EVENTS = 10_000;

const DIGEST_BYTES = 48;
const EVENT_FIELDS = new Set([
  "imr",
  "event_type",
  "digest",
  "event",
  "event_payload",
  "version",
  "hash_input",
  "preimage",
]);

/** The names of the four runtime registers, by IMR index. */
export const RTMR_NAMES = ["rtmr0", "rtmr1", "rtmr2", "rtmr3"] as const;
export type RtmrName = (typeof RTMR_NAMES)[number];

/** How an event's digest is formed. */
export type EventVersion = 1 | 2;

/** One event, its digest as it extends the register. */
export interface LogEvent {
  readonly imr: 0 | 1 | 2 | 3;
  readonly eventType: number;
  readonly name: string;
  readonly payload: Uint8Array;
  readonly version: EventVersion;
  /** 48 bytes: recomputed for RTMR3, as given for RTMR0 to 2. */
  readonly digest: Uint8Array;
}

/** A log whose RTMR3 digests all stand for their events. */
export interface EventLog {
  readonly events: readonly LogEvent[];
}

/** A log and, where the file is a guest agent's quote response, the quote beside it. */
export interface EventLogFile {
  readonly log: EventLog;
  readonly quote: Uint8Array | undefined;
}

/** What dstack's own events say, each the first of its name before `system-ready`. Widths are checked. */
export interface DstackFacts {
  /** 20 bytes. */
  readonly appId: Hex | undefined;
  /** 32 bytes. */
  readonly composeHash: Hex | undefined;
  /** 20 bytes, or `0x` where the app asked for none. */
  readonly instanceId: Hex | undefined;
  /** 32 bytes: what the KMS answered, or absent. */
  readonly osImageHash: Hex | undefined;
  /** 32 bytes: images of dstack 0.4 measured this in place of an OS image hash. */
  readonly rootfsHash: Hex | undefined;
  /** The payload of the key-provider event and, where it is the usual JSON, what it names. */
  readonly keyProvider: { readonly payload: Hex; readonly name?: string; readonly id?: string } | undefined;
  /** Whether `boot-mr-done` was seen. */
  readonly bootDone: boolean;
  /** Whether `system-ready` was seen: without it the machine was still starting. */
  readonly ready: boolean;
  /** Names of facts that came more than once before `system-ready`; the first counted. */
  readonly repeated: readonly string[];
  /** Names of RTMR3 events after `system-ready`: extended by the application, in order. */
  readonly applicationEvents: readonly string[];
}

/** What {@link verifyEventLog} compared, and what it could not. */
export interface ReplayCheck {
  readonly checked: readonly RtmrName[];
  /** Registers whose events the log leaves out (logs are often stripped to RTMR3). */
  readonly unchecked: readonly RtmrName[];
}

/**
 * Reads a dstack event log: a JSON array of events. Strict: only known fields, digests of 48 bytes, RTMR3 made of runtime events only, and
 * each RTMR3 digest equal to the one recomputed from its event (a digest left empty, as in stripped logs, is filled in).
 *
 * @throws KeysteadError `json/*`, `event-log/malformed` {index}, `event-log/too-many-events`, `event-log/unknown-event-type` {index},
 * `event-log/unknown-version` {index}, `event-log/ambiguous-name` {index}, `event-log/event-digest` {index, event, computed, given}
 * @example
 * const log = parseEventLog(bytes);
 * replayEventLog(log).rtmr3;
 */
export function parseEventLog(bytes: Uint8Array): EventLog {
  return readEvents(parseJson(decodeUtf8(bytes, "event log"), "event log"));
}

/**
 * As {@link parseEventLog}, of JSON that was parsed already.
 *
 * @throws KeysteadError as {@link parseEventLog}
 * @example
 * parseEventLogValue(tcbInfo.event_log);
 */
export function parseEventLogValue(value: JsonValue): EventLog {
  return readEvents(value);
}

/**
 * Reads either a bare event log or the response of a guest agent's quote call, `{ "quote": hex, "event_log": array or JSON text, … }`.
 *
 * @throws KeysteadError as {@link parseEventLog}, and `hex/malformed` for the quote
 * @example
 * const { log, quote } = parseEventLogFile(bytes);
 */
export function parseEventLogFile(bytes: Uint8Array): EventLogFile {
  const value = parseJson(decodeUtf8(bytes, "event log"), "event log");
  if (!isJsonObject(value)) return { log: readEvents(value), quote: undefined };
  const inner = value.event_log;
  if (inner === undefined) throw malformed(undefined, 'the object has no "event_log"');
  const quote = value.quote;
  if (quote !== undefined && typeof quote !== "string") throw malformed(undefined, '"quote" is not a string');
  return {
    log: readEvents(typeof inner === "string" ? parseJson(inner, "event_log") : inner),
    quote: quote === undefined || quote === "" ? undefined : fromHex(quote, "quote"),
  };
}

/**
 * The digest of a runtime event.
 *
 * @throws KeysteadError `event-log/unknown-version`
 * @example
 * computeEventDigest("app-id", fromHex("deadbeef", "payload"), 1); // 67b4be4e…
 */
export function computeEventDigest(name: string, payload: Uint8Array, version: EventVersion): Uint8Array {
  return sha384(encodeEvent(name, payload, version));
}

/**
 * The bytes that an event's digest is the hash of.
 *
 * v2 is canonical JSON (RFC 8785) of an object whose keys are already sorted and whose values are strings and one integer: for those,
 * JSON.stringify's escapes are the canonical ones.
 *
 * @throws KeysteadError `event-log/unknown-version`
 * @example
 * encodeEvent("compose-hash", fromHex("abcd", "payload"), 2); // {"name":"compose-hash","payload":"abcd","type":134217729}
 */
export function encodeEvent(name: string, payload: Uint8Array, version: EventVersion): Uint8Array {
  const utf8 = new TextEncoder();
  switch (version) {
    case 1:
      return concatBytes(Uint8Array.of(0x01, 0x00, 0x00, 0x08), utf8.encode(`:${name}:`), payload);
    case 2:
      return utf8.encode(JSON.stringify({ name, payload: toHex(payload).slice(2), type: DSTACK_RUNTIME_EVENT }));
    default:
      throw new KeysteadError("event-log/unknown-version", `event version ${String(version)} is not known`, {
        argument: "version",
        remedy: "Use 1 or 2.",
      });
  }
}

/**
 * Extends a register: SHA-384(register ‖ digest).
 *
 * @param register 48 bytes
 * @param digest at most 48 bytes, padded with zeros at the end
 * @throws KeysteadError `event-log/digest-length`
 * @example
 * extendRegister(new Uint8Array(48), digest);
 */
export function extendRegister(register: Uint8Array, digest: Uint8Array): Uint8Array {
  if (register.length !== DIGEST_BYTES || digest.length > DIGEST_BYTES) {
    throw new KeysteadError("event-log/digest-length", "a register has 48 bytes and extends by at most 48", {
      argument: "digest",
      remedy: "Give a SHA-384 or SHA-256 digest.",
    });
  }
  const block = new Uint8Array(2 * DIGEST_BYTES);
  block.set(register);
  block.set(digest, DIGEST_BYTES);
  return sha384(block);
}

/**
 * All four registers as the log's digests, extended in order, leave them. A register without events is 48 zero bytes.
 *
 * @example
 * replayEventLog(log).rtmr3; // "0x…"
 */
export function replayEventLog(log: EventLog): Readonly<Record<RtmrName, Hex>> {
  const registers = RTMR_NAMES.map((_, imr) =>
    log.events
      .filter((event) => event.imr === imr)
      .reduce<Uint8Array>((register, event) => extendRegister(register, event.digest), new Uint8Array(DIGEST_BYTES)),
  );
  const [rtmr0, rtmr1, rtmr2, rtmr3] = registers.map(toHex);
  if (rtmr0 === undefined || rtmr1 === undefined || rtmr2 === undefined || rtmr3 === undefined) {
    throw malformed(undefined, "a register is missing");
  }
  return { rtmr0, rtmr1, rtmr2, rtmr3 };
}

/**
 * RTMR3 as it stood when boot was done: replayed up to and including the first `boot-mr-done`; undefined where there is none.
 *
 * @example
 * replayToBootDone(log); // "0x…"
 */
export function replayToBootDone(log: EventLog): Hex | undefined {
  let register: Uint8Array = new Uint8Array(DIGEST_BYTES);
  for (const event of runtimeEvents(log)) {
    register = extendRegister(register, event.digest);
    if (event.name === "boot-mr-done") return toHex(register);
  }
  return undefined;
}

/**
 * Compares the replayed registers with those of a quote. RTMR3 is always compared where it is given. RTMR0 to 2 are compared where the log
 * has events for them, and listed as unchecked where it has none though the quote's register is not zero.
 *
 * @param given registers read from a quote, 48 bytes each
 * @throws KeysteadError `event-log/rtmr-mismatch` {register, replayed, given}
 * @example
 * const { unchecked } = verifyEventLog(log, { rtmr3: quote.registers.rtmr3 });
 */
export function verifyEventLog(log: EventLog, given: Readonly<Partial<Record<RtmrName, Hex>>>): ReplayCheck {
  const replayed = replayEventLog(log);
  const checked: RtmrName[] = [];
  const unchecked: RtmrName[] = [];
  for (const [imr, register] of RTMR_NAMES.entries()) {
    const value = given[register];
    if (value === undefined) continue;
    const stripped = imr < 3 && !log.events.some((event) => event.imr === imr);
    if (stripped && !isZero(fromHex(value, register))) {
      unchecked.push(register);
    } else if (replayed[register] !== value) {
      throw new KeysteadError(
        "event-log/rtmr-mismatch",
        `the event log replays to another ${register} than the quote's`,
        {
          argument: "event log",
          remedy:
            "Take the quote and the event log from the same machine in the same call; otherwise distrust the log.",
          details: { register, replayed: replayed[register], given: value },
        },
      );
    } else {
      checked.push(register);
    }
  }
  return { checked, unchecked };
}

/**
 * What dstack says about the machine, by its own rule: of each name the first RTMR3 event before `system-ready`. Later events come from the
 * application and could claim anything.
 *
 * @throws KeysteadError `event-log/fact-length` {event, expected, actual}
 * @example
 * readDstackFacts(log).composeHash; // "0x…", 32 bytes
 */
export function readDstackFacts(log: EventLog): DstackFacts {
  const events = runtimeEvents(log);
  const end = events.findIndex(({ name }) => name === "system-ready");
  const system = end < 0 ? events : events.slice(0, end);
  const first = (name: string) => system.find((event) => event.name === name)?.payload;
  const fixed = (name: string, ...widths: readonly number[]): Hex | undefined => {
    const payload = first(name);
    if (payload === undefined) return undefined;
    if (!widths.includes(payload.length)) {
      throw new KeysteadError(
        "event-log/fact-length",
        `${name} has ${payload.length} bytes, not ${widths.join(" or ")}`,
        {
          argument: "event log",
          remedy: "This is no log of a dstack machine that Keystead knows; do not rely on it.",
          details: { event: name, expected: widths, actual: payload.length },
        },
      );
    }
    return toHex(payload);
  };
  const facts = [
    "app-id",
    "compose-hash",
    "instance-id",
    "os-image-hash",
    "rootfs-hash",
    "key-provider",
    "boot-mr-done",
  ];
  return {
    appId: fixed("app-id", 20),
    composeHash: fixed("compose-hash", 32),
    instanceId: fixed("instance-id", 20, 0),
    osImageHash: fixed("os-image-hash", 32),
    rootfsHash: fixed("rootfs-hash", 32),
    keyProvider: readKeyProvider(first("key-provider")),
    bootDone: first("boot-mr-done") !== undefined,
    ready: end >= 0,
    repeated: facts.filter((name) => system.filter((event) => event.name === name).length > 1),
    applicationEvents: end < 0 ? [] : events.slice(end + 1).map(({ name }) => name),
  };
}

function runtimeEvents(log: EventLog): readonly LogEvent[] {
  return log.events.filter(({ imr }) => imr === 3);
}

function readKeyProvider(payload: Uint8Array | undefined): DstackFacts["keyProvider"] {
  if (payload === undefined) return undefined;
  const hex = toHex(payload);
  try {
    const value = parseJson(decodeUtf8(payload, "key-provider"), "key-provider");
    const name = isJsonObject(value) ? value.name : undefined;
    const id = isJsonObject(value) ? value.id : undefined;
    if (typeof name === "string" && typeof id === "string") return { payload: hex, name, id };
  } catch {
    // The payload is bound by its bytes; naming what it says is a courtesy.
  }
  return { payload: hex };
}

function readEvents(value: JsonValue): EventLog {
  if (!isJsonArray(value)) throw malformed(undefined, "it is not an array of events");
  if (value.length > MAX_EVENTS) {
    throw new KeysteadError("event-log/too-many-events", `the event log has ${value.length} events`, {
      argument: "event log",
      remedy: `Give a log of at most ${MAX_EVENTS} events.`,
    });
  }
  let ready = false;
  const events = value.map((item, index) => {
    if (!isJsonObject(item)) throw malformed(index, "it is not an object");
    const event = readEvent(item, index, ready);
    if (event.imr === 3 && event.name === "system-ready") ready = true;
    return event;
  });
  return { events };
}

function readEvent(item: JsonObject, index: number, ready: boolean): LogEvent {
  for (const key of Object.keys(item)) {
    if (!EVENT_FIELDS.has(key)) throw malformed(index, `it has an unknown field ${JSON.stringify(key)}`);
  }
  const imr = item.imr;
  if (imr !== 0 && imr !== 1 && imr !== 2 && imr !== 3) throw malformed(index, "imr is not 0, 1, 2 or 3");
  const eventType = item.event_type;
  if (typeof eventType !== "number" || !Number.isInteger(eventType) || eventType < 0 || eventType > 0xffffffff) {
    throw malformed(index, "event_type is not an unsigned 32-bit integer");
  }
  const name = item.event;
  if (typeof name !== "string" || !name.isWellFormed()) throw malformed(index, "event is not a string of Unicode text");
  const payload = hexField(item, "event_payload", index);
  const given = hexField(item, "digest", index);
  const version = readVersion(item.version, index);
  if (imr < 3) {
    if (given.length !== DIGEST_BYTES) throw malformed(index, `its digest has ${given.length} bytes, not 48`);
    return { imr, eventType, name, payload, version, digest: given };
  }

  if (eventType !== DSTACK_RUNTIME_EVENT) {
    throw new KeysteadError(
      "event-log/unknown-event-type",
      `event ${index} extends RTMR3 with event type ${eventType}, whose digest cannot be recomputed`,
      {
        argument: "event log",
        remedy: "Keystead reads RTMR3 logs of dstack runtime events (type 134217729) only.",
        details: { index, eventType },
      },
    );
  }
  // v1 joins name and payload with colons: with a colon in the name, two different events share one digest.
  if (version === 1 && !ready && name.includes(":")) {
    throw new KeysteadError("event-log/ambiguous-name", `event ${index} has a colon in its name before system-ready`, {
      argument: "event log",
      remedy: "dstack's own events have none; the log was altered, so do not rely on it.",
      details: { index, event: name },
    });
  }
  const preimage = encodeEvent(name, payload, version);
  const digest = sha384(preimage);
  if (given.length !== 0 && !equalBytes(given, digest)) {
    throw new KeysteadError(
      "event-log/event-digest",
      `event ${index} (${JSON.stringify(name)}) does not have the digest that it claims`,
      {
        argument: "event log",
        remedy: "Name, payload or digest was altered; do not rely on this log.",
        details: { index, event: name, computed: toHex(digest), given: toHex(given) },
      },
    );
  }
  for (const key of ["hash_input", "preimage"]) {
    if (item[key] !== undefined && item[key] !== null && !equalBytes(hexField(item, key, index), preimage)) {
      throw malformed(index, `its ${key} is not what its digest is made of`);
    }
  }
  return { imr, eventType, name, payload, version, digest };
}

function readVersion(value: JsonValue | undefined, index: number): EventVersion {
  if (value === undefined || value === 1) return 1;
  if (value === 2) return 2;
  throw new KeysteadError("event-log/unknown-version", `event ${index} has a version that is not known`, {
    argument: "event log",
    remedy: "Keystead knows versions 1 and 2; upgrade it if dstack has a newer one.",
    details: { index },
  });
}

function hexField(item: JsonObject, key: string, index: number): Uint8Array {
  const value = item[key];
  if (typeof value !== "string") throw malformed(index, `${key} is not a string`);
  if (!/^[0-9a-fA-F]*$/.test(value) || value.length % 2 !== 0) throw malformed(index, `${key} is not hex`);
  return fromHex(value, key);
}

function malformed(index: number | undefined, why: string): KeysteadError {
  const where = index === undefined ? "the event log is malformed" : `event ${index} is malformed`;
  return new KeysteadError("event-log/malformed", `${where}: ${why}`, {
    argument: "event log",
    remedy: "Give the JSON array that dstack's guest agent returns as event_log.",
    details: index === undefined ? {} : { index },
  });
}
