import type { Block } from "../chain/block.ts";
import type { Hex } from "../core/bytes.ts";
import type { PolicyEvent, ServiceEvent } from "../core/events.ts";
import type { Fault, FaultCode, HeadBasis, Verdict, VerifiedHistory } from "../core/history.ts";
import type { PolicyState } from "../core/policy-state.ts";
import type { ServiceState, TimedEntry } from "../core/state.ts";
import type { Anchor } from "./anchor.ts";

/**
 * What makes an audit broken, beside a history's own faults: `false-proof` the endpoint handed out a storage proof that proves nothing ·
 * `state-differs` the contract's views say something else than its history · `withheld` the registry has more services than the endpoint shows.
 */
export interface AuditFault extends Omit<Fault, "code"> {
  readonly code: FaultCode | "false-proof" | "state-differs" | "withheld";
}

/**
 * Why an audit that found nothing wrong is not proven.
 *
 * `no-storage-proof` the endpoint offers no `eth_getProof` here · `unknown-header` the block's header can't be hashed by this version ·
 * `unknown-events` events that this version does not know: the state may be incomplete · `pointers-disagree` the blocks that the endpoint gives are not
 * those that the history names, so times are not to be trusted
 */
export interface Reason {
  readonly code: "no-storage-proof" | "unknown-header" | "unknown-events" | "pointers-disagree";
  readonly message: string;
}

/** One value that the contract's view gives and the history does not, or the other way round. */
export interface Difference {
  /** Which value, e.g. `service.admin`, `image 0x….activeFrom`. */
  readonly what: string;
  readonly rebuilt: string;
  readonly contract: string;
}

/** What was found about one history. */
export interface Audit<S, E> {
  readonly verdict: Verdict;
  /** What the head rests on. The order, number and content of events rest on the same; the times of blocks rest on the endpoint's word. */
  readonly basis: HeadBasis;
  readonly faults: readonly AuditFault[];
  readonly reasons: readonly Reason[];
  readonly differences: readonly Difference[];
  /** The block at which everything was read. */
  readonly block: Block;
  readonly head: Hex;
  /** How many events the contract counts. */
  readonly count: number;
  /** The verified events, oldest first; empty if the history is broken. */
  readonly entries: readonly TimedEntry<E>[];
  /** The state rebuilt from them; undefined if the history is broken. */
  readonly state: S | undefined;
}

/** What was found about a service. */
export interface ServiceAudit extends Audit<ServiceState, ServiceEvent> {
  readonly serviceId: Hex;
}

/** What was found about the policy. */
export type PolicyAudit = Audit<PolicyState, PolicyEvent>;

/**
 * Puts a verified history, the state rebuilt from it and the comparison with the views into one verdict. Anything wrong makes it broken; anything that
 * can't be known keeps it from being proven.
 *
 * @example
 * const audit = concludeAudit({ anchor, block, verified, entries, state, differences, notUnderstood: state.notUnderstood });
 */
export function concludeAudit<S, E>(found: {
  readonly anchor: Anchor;
  readonly block: Block;
  readonly verified: VerifiedHistory<E>;
  readonly entries: readonly TimedEntry<E>[];
  readonly state: S | undefined;
  readonly differences: readonly Difference[];
  readonly notUnderstood: readonly number[];
}): Audit<S, E> {
  const { anchor, block, verified, entries, state, differences, notUnderstood } = found;
  const reasons: Reason[] = [...anchor.reasons];
  const faults: AuditFault[] = [...anchor.faults, ...verified.faults];
  if (notUnderstood.length !== 0) {
    const message = `this version does not know what happened in ${list(notUnderstood)}`;
    reasons.push({ code: "unknown-events", message });
  }
  if (verified.faults.length === 0 && !verified.pointers.agree) {
    const message = `from event ${verified.pointers.firstDisagreement} on, the endpoint's blocks are not those that the history names`;
    reasons.push({ code: "pointers-disagree", message });
  }
  if (differences.length !== 0) {
    const message = `the contract says otherwise in ${differences.length} places: ${differences.map(({ what }) => what).join(", ")}`;
    faults.push({ code: "state-differs", message });
  }
  const broken = faults.length !== 0;
  const verdict = broken ? "broken" : anchor.basis === "proof" && reasons.length === 0 ? "proven" : "consistent";
  return {
    verdict,
    basis: anchor.basis,
    faults,
    reasons,
    differences,
    block,
    head: anchor.head,
    count: anchor.count,
    entries,
    state,
  };
}

/**
 * The worst of several verdicts; `proven` for none.
 *
 * @example
 * worstVerdict(["proven", "consistent"]); // "consistent"
 */
export function worstVerdict(verdicts: readonly Verdict[]): Verdict {
  if (verdicts.includes("broken")) return "broken";
  return verdicts.includes("consistent") ? "consistent" : "proven";
}

function list(numbers: readonly number[]): string {
  const shown = numbers.slice(0, 5).join(", ");
  return numbers.length > 5 ? `${numbers.length} events (${shown}, …)` : `event ${shown}`;
}
