import { functionRecord, type Direction as RecordedDirection } from "../../protocol/functions.ts";
import type { DecodedCall } from "../decode.ts";

/**
 * What a call does to trust, as a signer asks it. `code` replaces what decides from then on; `power` changes who may decide or how long
 * decisions wait; `neither` changes nothing about who gets keys; `unknown` could not be read.
 */
export type Direction = "loosens" | "tightens" | "code" | "power" | "neither" | "unknown";

/** Each direction as people read it, the most dangerous first: what comes first is shown first. */
export const DIRECTION_WORDS: Readonly<Record<Direction, string>> = {
  unknown: "UNKNOWN",
  code: "REPLACES CODE",
  power: "MOVES POWER",
  loosens: "LOOSENS",
  tightens: "TIGHTENS",
  neither: "NEITHER LOOSENS NOR TIGHTENS",
};

/** Directions in the order in which they are shown. */
export const DIRECTIONS = Object.keys(DIRECTION_WORDS).filter((word): word is Direction => word in DIRECTION_WORDS);

/** Functions whose arguments tell the direction. Arguments are as `DecodedCall` shows them. */
const BY_ARGUMENT: Readonly<Record<string, (argument: (name: string) => string) => Direction>> = {
  setDevice: (argument) => (argument("allowed") === "true" ? "loosens" : "tightens"),
  setRequireUpToDateTcb: (argument) => (argument("required") === "true" ? "tightens" : "loosens"),
};

/** The protocol's directions by the words that signers see. */
const SHOWN = {
  ...{ loosens: "loosens", tightens: "tightens", neither: "neither" },
  ...{ upgrades: "code", roles: "power" },
} as const satisfies Readonly<Record<RecordedDirection, Direction>>;

/**
 * What one call does to trust. Calls that only carry others (a MultiSend, a timelock's batch) have the direction of what they carry: ask
 * {@link leavesOf} for those.
 *
 * @example
 * directionOf(decodeCall(call, context)); // "loosens"
 */
export function directionOf(call: DecodedCall): Direction {
  const { contract, signature } = call;
  if (signature === undefined || contract === undefined) return "unknown";
  // a Safe that changes itself: owners, threshold, modules, guards, handlers
  if (contract === "safe") return "power";
  if (contract === "multiSend") return "unknown";
  const name = signature.slice(0, signature.indexOf("("));
  const record = functionRecord(contract, name);
  if (record === undefined) return "unknown";
  return (
    BY_ARGUMENT[name]?.((wanted) => call.arguments.find((argument) => argument.name === wanted)?.value ?? "") ??
    SHOWN[record.direction]
  );
}

const CARRIERS = new Set(["multicall", "multiSend", "schedule", "scheduleBatch", "execute", "executeBatch"]);

/**
 * The calls that do something, inside those that only carry others. An upgrade stands for itself, and so do the calls of its initialiser.
 *
 * @example
 * leavesOf(decodeOperation(operation)).map(directionOf);
 */
export function leavesOf(calls: readonly DecodedCall[]): readonly DecodedCall[] {
  return calls.flatMap((call) => {
    const name = call.signature?.slice(0, call.signature.indexOf("("));
    const carries = name !== undefined && CARRIERS.has(name) && call.calls.length > 0;
    return [...(carries ? [] : [call]), ...leavesOf(call.calls)];
  });
}
