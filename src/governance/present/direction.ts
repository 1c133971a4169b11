import type { DecodedCall } from "../decode.ts";
import { LANE_RULES } from "../lanes.ts";

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

/** Functions of the lane `admin`, whose direction their lane does not tell. Arguments are as `DecodedCall` shows them. */
const ADMIN: Readonly<Record<string, Direction | ((argument: (name: string) => string) => Direction)>> = {
  grantRole: "power",
  revokeRole: "power",
  renounceRole: "power",
  updateDelay: "power",
  extendPause: "tightens",
  setGatewayAppId: "neither",
  setAppImplementation: "neither",
  createService: "neither",
  createServiceWithImage: "neither",
  addSecretKeyByImage: "neither",
  restrictServiceDevices: "tightens",
  retireImageFromService: "tightens",
  rotateServiceKey: "neither",
  publishSealedSecrets: "neither",
  extendNoticePeriod: "tightens",
  setServiceGuardian: "power",
  setDevice: (argument) => (argument("allowed") === "true" ? "loosens" : "tightens"),
  setRequireUpToDateTcb: (argument) => (argument("required") === "true" ? "tightens" : "loosens"),
  transferServiceAdmin: "power",
  acceptServiceAdmin: "power",
  renounceServiceAdmin: "power",
};

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
  const rule = LANE_RULES[contract][name];
  if (rule === undefined) return "unknown";
  if (rule.lane === "grant") return "loosens";
  if (rule.lane === "revoke") return "tightens";
  if (rule.lane === "upgrade") return "code";
  const own = ADMIN[name];
  if (own === undefined) return "unknown";
  return typeof own === "string"
    ? own
    : own((wanted) => call.arguments.find((argument) => argument.name === wanted)?.value ?? "");
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
