import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { type JsonValue, parseJson } from "../core/json.ts";
import { LANES, type Lane } from "../protocol/functions.ts";
import { fieldReaders } from "./fields.ts";
import { type Call, hex, MAX_NONCE, MULTI_SEND_CALL_ONLY, SAFE_VERSIONS, type SafeRef } from "./safe-hash.ts";
import { buildTimelockOperation, type TimelockOperation } from "./timelock.ts";

/** The `format` of `operation.json`. */
export const OPERATION_FORMAT = "keystead.operation/1";

/** How a batch goes through a timelock. */
export interface TimelockTerms {
  readonly address: string;
  /** Operation that must be done first; 32 zero bytes if none. */
  readonly predecessor: Hex;
  readonly salt: Hex;
  /** Seconds between scheduling and execution. */
  readonly delay: bigint;
}

/** What undoes an operation once it is done. */
export interface Rollback {
  readonly safe: SafeRef;
  /** Null: one direct Safe transaction, at once. */
  readonly timelock: TimelockTerms | null;
  readonly calls: readonly Call[];
}

/** A saved measurement that a call's image must agree with. */
export interface MeasurementClaim {
  /** Index of the call. */
  readonly call: number;
  /** File in the proposal's folder. */
  readonly file: string;
  readonly sha256: Hex;
  /** Files that the measurement was made from and that are kept in the folder. */
  readonly sources: readonly { readonly file: string; readonly sha256: Hex }[];
}

/** The contracts that an operation is about. */
export interface OperationContracts {
  readonly policy: string;
  readonly registry: string;
  readonly timelock: string;
}

/** One fact of the chain's state, by a name that says which. */
export interface Fact {
  readonly name: string;
  readonly value: string;
}

/** The state that an operation starts from, at one block. */
export interface StartState {
  readonly block: bigint;
  readonly hash: Hex;
  readonly facts: readonly Fact[];
}

/** A change of the contracts: the one source of everything that a signer, executor or auditor sees. */
export interface Operation {
  /** `NNN-slug`, the name of its folder. */
  readonly id: string;
  readonly title: string;
  readonly lane: Lane;
  readonly chainId: bigint;
  /** Who makes it: proposes it at the timelock, or does it. */
  readonly safe: SafeRef;
  /** Null: one direct Safe transaction. */
  readonly timelock: TimelockTerms | null;
  readonly calls: readonly Call[];
  readonly contracts: OperationContracts;
  /** Safes beside `safe` that can cancel it while it waits. */
  readonly cancellers: readonly SafeRef[];
  readonly rollback: Rollback | null;
  readonly measurements: readonly MeasurementClaim[];
  /** When it was proposed (seconds since 1970), and the block whose state was looked at, if any was. */
  readonly assumptions: {
    readonly time: bigint;
    readonly block: bigint | null;
    /** The state that it starts from, where a chain was looked at: what later states are compared with. */
    readonly start: StartState | null;
  };
}

const refuse = (field: string, rule: string, found: unknown) =>
  new KeysteadError("operation/malformed", `${field} ${rule}; found ${JSON.stringify(found)?.slice(0, 100)}`, {
    argument: field,
    remedy: "Restore operation.json from where it was reviewed, or propose the operation again.",
    details: { field },
  });

const { object, list, matching, uint, address, bytes, oneOf } = fieldReaders(refuse);

/**
 * Reads an `operation.json`: every field checked, none unknown, one spelling for each value. Whether the operation makes sense is
 * `checkOperation`'s to say.
 *
 * @throws KeysteadError `operation/malformed` {field}, and those of `parseJson`
 * @example
 * const operation = parseOperation(text);
 */
export function parseOperation(text: string): Operation {
  const document = object(parseJson(text, "operation.json"), "operation", [
    ...["format", "id", "title", "lane", "chainId", "safe", "timelock", "calls", "contracts", "cancellers"],
    ...["rollback", "measurements", "assumptions"],
  ]);
  if (document.format !== OPERATION_FORMAT) throw refuse("format", `must be ${OPERATION_FORMAT}`, document.format);
  const lane = oneOf(document.lane, "lane", LANES);
  const contracts = object(document.contracts, "contracts", ["policy", "registry", "timelock"]);
  const assumptions = object(document.assumptions, "assumptions", ["time", "block", "start"]);
  const time = uint(assumptions.time, "assumptions.time", 40n);
  return {
    id: matching(document.id, "id", /^\d{3}-[a-z0-9]+(-[a-z0-9]+)*$/, "must be three digits, a hyphen and a slug"),
    title: matching(document.title, "title", /^[^\p{Cc}\p{Cf}\u2028\u2029]{1,200}$/u, "must be one line of text"),
    lane,
    chainId: uint(document.chainId, "chainId", 256n),
    safe: safeRef(document.safe, "safe"),
    timelock: timelock(document.timelock, "timelock"),
    calls: calls(document.calls, "calls"),
    contracts: {
      policy: address(contracts.policy, "contracts.policy"),
      registry: address(contracts.registry, "contracts.registry"),
      timelock: address(contracts.timelock, "contracts.timelock"),
    },
    cancellers: list(document.cancellers, "cancellers").map((item, i) => safeRef(item, `cancellers[${i}]`)),
    rollback: rollback(document.rollback),
    measurements: list(document.measurements, "measurements").map((item, i) => claim(item, `measurements[${i}]`)),
    assumptions: {
      time,
      block: assumptions.block === null ? null : uint(assumptions.block, "assumptions.block", 64n),
      start: startState(assumptions.start),
    },
  };
}

/**
 * The text that {@link parseOperation} reads back, always the same for the same operation.
 *
 * @example
 * writeFileSync("operation.json", formatOperation(operation));
 */
export function formatOperation(operation: Operation): string {
  const { id, title, lane, chainId, safe, timelock, calls, contracts, cancellers, rollback, measurements } = operation;
  return formatJson({
    format: OPERATION_FORMAT,
    ...{ id, title, lane, chainId, safe, timelock, calls, contracts, cancellers, rollback, measurements },
    assumptions: operation.assumptions,
  });
}

/**
 * JSON as every file of a proposal is written: two spaces, whole numbers of the chain as decimal strings, one newline at the end.
 *
 * @example
 * formatJson({ chainId: 1n }); // '{\n  "chainId": "1"\n}\n'
 */
export function formatJson(value: unknown): string {
  return `${JSON.stringify(value, (_, field) => (typeof field === "bigint" ? field.toString() : field), 2)}\n`;
}

/** What a proposal's folder calls the way back's own operation. */
export const rollbackId = (id: string): string => `${id}-rollback`;

/**
 * The timelock's side of an operation or of its rollback: salt, operation id, and the calldata of its life.
 *
 * @throws KeysteadError those of `buildTimelockOperation`
 * @example
 * timelockSide(operation, operation.timelock, operation.id).schedule;
 */
export function timelockSide(
  operation: { readonly chainId: bigint; readonly calls: readonly Call[] },
  terms: Omit<TimelockTerms, "salt">,
  id: string,
): TimelockOperation & { readonly schedule: Hex; readonly execute: Hex; readonly cancel: Hex } {
  const built = buildTimelockOperation({
    id,
    chainId: operation.chainId,
    timelock: terms.address,
    calls: operation.calls,
    delaySeconds: terms.delay,
    predecessor: terms.predecessor,
  });
  return { ...built, schedule: hex(built.schedule), execute: hex(built.execute), cancel: hex(built.cancel) };
}

/** More than any operation touches. */
const MAX_FACTS = 4096;

function startState(value: JsonValue | undefined): StartState | null {
  if (value === null) return null;
  const given = object(value, "assumptions.start", ["block", "hash", "facts"]);
  const facts = list(given.facts, "assumptions.start.facts");
  if (facts.length > MAX_FACTS) throw refuse("assumptions.start.facts", "are too many", facts.length);
  return {
    block: uint(given.block, "assumptions.start.block", 64n),
    hash: bytes(given.hash, "assumptions.start.hash", 32),
    facts: facts.map((item, i) => {
      const at = `assumptions.start.facts[${i}]`;
      const fact = object(item, at, ["name", "value"]);
      if (typeof fact.value !== "string" || fact.value.length > 4096) {
        throw refuse(`${at}.value`, "must be a text", fact.value);
      }
      return { name: matching(fact.name, `${at}.name`, /^[\x20-\x7e]{1,400}$/, "must be a name"), value: fact.value };
    }),
  };
}

function rollback(value: JsonValue | undefined): Rollback | null {
  if (value === null) return null;
  const given = object(value, "rollback", ["safe", "timelock", "calls"]);
  return {
    safe: safeRef(given.safe, "rollback.safe"),
    timelock: timelock(given.timelock, "rollback.timelock"),
    calls: calls(given.calls, "rollback.calls"),
  };
}

function safeRef(value: JsonValue | undefined, field: string): SafeRef {
  const given = object(value, field, ["address", "version", "multiSend", "nonce"]);
  const version = oneOf(given.version, `${field}.version`, SAFE_VERSIONS);
  const multiSend = address(given.multiSend, `${field}.multiSend`);
  if (!MULTI_SEND_CALL_ONLY[version].includes(multiSend)) {
    throw refuse(`${field}.multiSend`, `must be Safe ${version}'s MultiSendCallOnly`, multiSend);
  }
  const nonce = uint(given.nonce, `${field}.nonce`, 256n);
  if (nonce > MAX_NONCE)
    throw refuse(`${field}.nonce`, `must be at most ${MAX_NONCE}: no Safe has got so far`, given.nonce);
  return { address: address(given.address, `${field}.address`), version, multiSend, nonce };
}

function timelock(value: JsonValue | undefined, field: string): TimelockTerms | null {
  if (value === null) return null;
  const given = object(value, field, ["address", "predecessor", "salt", "delay"]);
  return {
    address: address(given.address, `${field}.address`),
    predecessor: bytes(given.predecessor, `${field}.predecessor`, 32),
    salt: bytes(given.salt, `${field}.salt`, 32),
    delay: uint(given.delay, `${field}.delay`, 256n),
  };
}

function calls(value: JsonValue | undefined, field: string): readonly Call[] {
  const given = list(value, field);
  if (given.length === 0) throw refuse(field, "must hold at least one call", value);
  return given.map((item, i) => {
    const call = object(item, `${field}[${i}]`, ["to", "value", "data"]);
    return {
      to: address(call.to, `${field}[${i}].to`),
      value: uint(call.value, `${field}[${i}].value`, 256n),
      data: bytes(call.data, `${field}[${i}].data`),
    };
  });
}

/** Files of a measurement live in one folder, under plain names: nothing leads out of it. */
const ATTACHMENT = /^measurements\/[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,99}$/;

function claim(value: JsonValue, field: string): MeasurementClaim {
  const given = object(value, field, ["call", "file", "sha256", "sources"]);
  const { call } = given;
  if (typeof call !== "number" || !Number.isSafeInteger(call) || call < 0) {
    throw refuse(`${field}.call`, "must be the index of a call", call);
  }
  return {
    call,
    file: matching(given.file, `${field}.file`, ATTACHMENT, "must be a file in measurements/"),
    sha256: bytes(given.sha256, `${field}.sha256`, 32),
    sources: list(given.sources, `${field}.sources`).map((item, i) => {
      const source = object(item, `${field}.sources[${i}]`, ["file", "sha256"]);
      return {
        file: matching(source.file, `${field}.sources[${i}].file`, ATTACHMENT, "must be a file in measurements/"),
        sha256: bytes(source.sha256, `${field}.sources[${i}].sha256`, 32),
      };
    }),
  };
}
