import { ZeroHash } from "ethers";
import { DISMISSAL_DELAYS, dismissalOf } from "../chain/dismissal.ts";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Lane } from "../protocol/functions.ts";
import { type CallLane, lanesOf, requireSound } from "./check.ts";
import { buildIntent, expandIntent, type IntentInput } from "./intents.ts";
import {
  formatOperation,
  type MeasurementClaim,
  type Operation,
  type OperationContracts,
  parseOperation,
  type Rollback,
  rollbackId,
  type StartState,
  type TimelockTerms,
  timelockSide,
} from "./operation.ts";
import { headline } from "./report.ts";
import { type Call, hex, type SafeRef } from "./safe-hash.ts";

/** Who governs: the platform's Safes and timelock, and, for calls of a service's own admin, that account. */
export interface Parties {
  readonly governance: SafeRef;
  readonly guardian: SafeRef;
  /** The platform timelock's delay in seconds, at least its minimum. A dismissal waits at least twice the minimum. */
  readonly delay: bigint;
  /** The minimum itself. Default: `delay`. */
  readonly minDelay?: bigint;
  /** The account that holds the service's office: a Safe, or a timelock that this Safe proposes to. */
  readonly account?: {
    readonly safe: SafeRef;
    readonly timelock?: { readonly address: string; readonly delay: bigint };
  };
}

/** What an operation is made from. */
export interface ProposalInput {
  readonly id: string;
  /** Default: what it does, counted. */
  readonly title?: string | undefined;
  readonly chainId: bigint;
  readonly contracts: OperationContracts;
  readonly parties: Parties;
  readonly intents: readonly IntentInput[];
  /** Operation id that must be done first. */
  readonly predecessor?: Hex | undefined;
  readonly measurements?: readonly MeasurementClaim[] | undefined;
  /** Seconds since 1970: when it is proposed. */
  readonly time: bigint;
  readonly block?: bigint | null | undefined;
  /** The state that it starts from, as `readStartState` reads it for the same operation without one. */
  readonly start?: StartState | null | undefined;
}

/** A way for calls to go. */
interface Route {
  readonly safe: SafeRef;
  readonly timelock: { readonly address: string; readonly delay: bigint } | null;
}

/**
 * Makes an operation of intents: the lane follows from the calls, the way from the lane. Loosening and upgrades go from the governance
 * Safe through the timelock; tightening goes from the guardian Safe at once; a service's own calls go the way of the account that holds
 * the office. A rollback comes with it wherever every call has an inverse.
 *
 * @throws KeysteadError `operation/no-calls`, `operation/crossed-lane` and the other codes of `checkOperation`, `operation/no-account`,
 * `operation/malformed` {field}, `intent/unknown`, `intent/bad-argument` {name}
 * @example
 * buildOperation({ id: "007-tdx", chainId: 1n, contracts, parties, time, intents: [{ intent: "enable-tee", arguments: { kind: "tdx" } }] });
 */
export function buildOperation(input: ProposalInput): Operation {
  const { id, chainId, contracts, parties, predecessor = hex(ZeroHash) } = input;
  const built = input.intents.flatMap(expandIntent).map((intent) => buildIntent(intent, contracts));
  const calls = built.map(({ call }) => call);
  const lane = laneOf(calls, contracts);
  const dismissal = dismissalOf(calls, predecessor, contracts.timelock);
  const route = routeOf(calls, contracts, dismissal === undefined ? parties : patient(parties));
  const timelock = termsOf(route, { chainId, calls }, predecessor, id);
  const inverses = built.flatMap(({ inverse }) => (inverse === undefined ? [] : [inverse])).reverse();
  const draft: Operation = {
    id,
    title: input.title ?? "",
    ...{ lane, chainId, safe: route.safe, timelock, calls, contracts },
    cancellers: timelock?.address === contracts.timelock && dismissal === undefined ? [parties.guardian] : [],
    rollback: null,
    measurements: input.measurements ?? [],
    assumptions: { time: input.time, block: input.start?.block ?? input.block ?? null, start: input.start ?? null },
  };
  const rollback = inverses.length === calls.length ? rollbackOf(draft, inverses, parties) : null;
  const operation: Operation = { ...draft, title: input.title ?? headline(draft).effect, rollback };
  requireSound(operation);
  return parseOperation(formatOperation(operation));
}

/** The same with the delay that a dismissal needs. */
function patient(parties: Parties): Parties {
  const least = DISMISSAL_DELAYS * (parties.minDelay ?? parties.delay);
  return parties.delay >= least ? parties : { ...parties, delay: least };
}

function laneOf(calls: readonly Call[], contracts: OperationContracts): Lane {
  const lanes = new Set(
    calls.flatMap((call) => lanesOf(call, { contracts })).map((rule) => (rule === "unknown" ? "admin" : rule.lane)),
  );
  const [lane, other] = lanes;
  if (lane === undefined) {
    throw new KeysteadError("operation/no-calls", "an operation needs at least one call", {
      argument: "intents",
      remedy: "Give at least one intent.",
    });
  }
  if (other !== undefined) {
    throw new KeysteadError(
      "operation/crossed-lane",
      `calls of the lanes ${[...lanes].join(" and ")} in one operation`,
      {
        argument: "intents",
        remedy: "Propose one operation a lane: what tightens must not wait for what loosens.",
        details: { lanes: [...lanes] },
      },
    );
  }
  return lane;
}

function routeOf(calls: readonly Call[], contracts: OperationContracts, parties: Parties): Route {
  const platform: Route = {
    safe: parties.governance,
    timelock: { address: contracts.timelock, delay: parties.delay },
  };
  const rules = calls.flatMap((call) => lanesOf(call, { contracts }));
  const named = (by: string) => (rule: CallLane) => rule !== "unknown" && rule.by === by;
  if (rules.some(named("governor")) || rules.some(named("timelock"))) return platform;
  const own = parties.account;
  if (calls.every((call) => call.to !== contracts.registry) && rules.some(named("guardian"))) {
    return { safe: parties.guardian, timelock: null };
  }
  if (rules.every((rule) => rule === "unknown")) {
    return own === undefined ? platform : { safe: own.safe, timelock: own.timelock ?? null };
  }
  if (own === undefined) {
    throw new KeysteadError("operation/no-account", "a service's call needs the Safe that holds the office", {
      argument: "account",
      remedy: "Name the Safe of the service's admin or guardian, and the timelock between, if there is one.",
    });
  }
  return { safe: own.safe, timelock: rules.some(named("guardian")) ? null : (own.timelock ?? null) };
}

function termsOf(
  route: Route,
  operation: { readonly chainId: bigint; readonly calls: readonly Call[] },
  predecessor: Hex,
  id: string,
): TimelockTerms | null {
  if (route.timelock === null) return null;
  const terms = { ...route.timelock, predecessor };
  return { ...terms, salt: hex(timelockSide(operation, terms, id).salt) };
}

/** The way back, from the next nonces on: what undoes a grant is a revocation, by the guardian at once. */
function rollbackOf(operation: Operation, calls: readonly Call[], parties: Parties): Rollback | null {
  const { contracts, chainId, id, safe, timelock } = operation;
  const removes = calls.some(
    (call) => call.to === contracts.registry && lanesOf(call, { contracts }).some(isGuardians),
  );
  // a timelock that is a service's admin can't remove at once, and the service's guardian is not known here
  if (removes && timelock !== null) return null;
  const route = routeOf(calls, contracts, parties);
  const used = timelock === null ? 1n : 2n;
  const predecessor = timelock === null ? hex(ZeroHash) : hex(timelockSide(operation, timelock, id).operationId);
  return {
    safe: route.safe.address === safe.address ? { ...route.safe, nonce: safe.nonce + used } : route.safe,
    timelock: termsOf(route, { chainId, calls }, predecessor, rollbackId(id)),
    calls,
  };
}

const isGuardians = (rule: CallLane): boolean => rule !== "unknown" && rule.by === "guardian";
