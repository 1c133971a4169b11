import type { AuthorizeRequest } from "../chain/authorize.ts";
import type { DstackTexts } from "../chain/dstack-facts.ts";
import type { Hex } from "../core/bytes.ts";
import type { DecisionName, TcbStatusName } from "../core/decision.ts";
import type { TeeKind } from "../core/image.ts";
import type { Watch } from "./watch.ts";

/** What verified evidence says of a machine, as far as a decision depends on it. Make it with `factsOf`. */
export interface MachineFacts {
  readonly kind: Exclude<TeeKind, "dstack">;
  /** Every register that the evidence shows, by its name in the image's register table, at its natural width. */
  readonly registers: Readonly<Record<string, Hex>>;
  readonly tcbStatus: TcbStatusName;
  /** The hardware, hashed to 32 bytes; zeros where the evidence names none. */
  readonly deviceId: Hex;
}

/** A machine that asks for a service's keys. */
export interface ReleaseQuestion {
  /** 20 bytes, lower-case. */
  readonly serviceId: Hex;
  readonly machine: MachineFacts;
  /**
   * Canonical bytes of the image, or of the platform, that the machine says it is: tried instead of those that the history names. It must match the evidence
   * and be registered like any other.
   */
  readonly image?: Hex | undefined;
  readonly platform?: Hex | undefined;
}

/** A machine that wants to run as a KMS node. */
export type KmsQuestion = Omit<ReleaseQuestion, "serviceId">;

/** A block that a decision rests on. */
export interface BasisBlock {
  readonly number: number;
  readonly hash: Hex;
  /** Seconds since 1970. */
  readonly timestamp: number;
  readonly stateRoot: Hex;
}

/** What a decision rests on, for receipts, logs and people. Endpoints by the names of the configuration, never by URL. */
export interface DecisionBasis {
  readonly chainId: number;
  readonly registry: Hex;
  readonly policy: Hex;
  /** The finalized block whose state every value was proved against. */
  readonly block: BasisBlock;
  /** Endpoints that gave this very block, of how many, and how many must. */
  readonly agreed: readonly string[];
  readonly endpoints: number;
  readonly quorum: number;
  /** Endpoints whose own `authorize` call gave the same answer; empty where there was no image to ask about. */
  readonly confirmedBy: readonly string[];
  /** The code that the two proxies run, proved and pinned. */
  readonly implementations: { readonly registry: Hex; readonly policy: Hex };
  /** The newer block that was also asked whether it denies; undefined if the endpoints agreed on none. */
  readonly head: BasisBlock | undefined;
  /** Who denied what the finalized block allows: the newer block, or the clock (an image whose end has come since). */
  readonly tightenedBy: "head" | "clock" | undefined;
}

/** The answer. Only `allowed` releases; `decision` says why not, by the contract's name. */
export interface ReleaseDecision {
  readonly allowed: boolean;
  readonly decision: DecisionName;
  /** The service; zeros for a KMS node. */
  readonly serviceId: Hex;
  /** The registered image whose registers all equal the machine's; undefined if there is none. */
  readonly imageId: Hex | undefined;
  readonly platformId: Hex | undefined;
  /** The service's current key epoch; 0 for a KMS node. */
  readonly keyEpoch: number;
  /** The history head, proved at the block: the service's, or for a KMS node the policy's. */
  readonly historyHead: Hex;
  readonly policyVersion: number;
  readonly basis: DecisionBasis;
}

/**
 * Decides from proven chain state. Every method fails closed with a `KeysteadError`, all of them "can't check" (HTTP 503): `chain/unreachable`,
 * `chain/stale`, `chain/disagreement`, `chain/finality-reversed`, `chain/future-block`, `chain/unproven`, `chain/unknown-implementation`,
 * `chain/decision-mismatch`. Other codes are about the question: `image/…` for a hint that is no image, `chain/history-too-long` where a hint is needed.
 */
export interface Decider extends Pick<Watch, "refresh" | "start" | "stop" | "status"> {
  readonly decide: (question: ReleaseQuestion) => Promise<ReleaseDecision>;
  readonly decideKms: (question: KmsQuestion) => Promise<ReleaseDecision>;
  /**
   * The answer to several requests that mean the same machine, of which `choose` picks the telling one by its index. What `decide` is made of.
   */
  readonly decideAmong: (
    requests: readonly AuthorizeRequest[],
    choose: (decisions: readonly DecisionName[]) => number,
  ) => Promise<ReleaseDecision>;
  /** Whether a service was ever created: one proof, whatever is asked about it afterwards. */
  readonly serviceExists: (serviceId: Hex) => Promise<boolean>;
  /** What dstack-kms asks about its authorization server. */
  readonly dstackFacts: () => Promise<DstackFacts>;
}

/** What dstack-kms asks about its authorization server. */
export interface DstackFacts extends DstackTexts {
  readonly chainId: number;
  /** The DstackAuth contract that answers the same questions on chain. */
  readonly dstackAuth: Hex;
}
