import type { Hex } from "../core/bytes.ts";
import type { KeysteadError } from "../core/errors.ts";
import type { ImageStatus } from "../core/state.ts";

/* What is so, as it was just read. Nothing here is ever stored. */

/** An operation at the timelock. */
export interface OperationFacts {
  readonly id: Hex;
  readonly state: "waiting" | "ready" | "expired" | "done" | "cancelled";
  /** When it may be executed, seconds since 1970. */
  readonly readyAt: number;
  /** From when on it can no longer be executed, seconds since 1970; undefined where that never comes. */
  readonly expiresAt?: number | undefined;
  readonly calls: readonly { readonly to: string; readonly data: Hex }[];
}

/** A Safe, as it is now. */
export interface SafeFacts {
  readonly address: string;
  readonly version: string;
  readonly owners: readonly string[];
  readonly threshold: number;
  readonly nonce: bigint;
}

/** An image that a service lists or listed. */
export interface ImageFacts {
  readonly status: ImageStatus;
  /** When it leaves the status by time alone; 0: it does not. */
  readonly until: number;
  /** When its latest event was logged. */
  readonly changed: number;
}

/** An entry of one of the policy's lists. */
export interface EntryFacts {
  readonly state: "allowed" | "revoked";
  /** The image, as text; what people compare. */
  readonly text: string;
  /** The time of its latest event. */
  readonly changed: number;
}

/** What the chain says, at one block. */
export interface ChainFacts {
  readonly block: number;
  /** The block's time. */
  readonly time: number;
  /** Why something is not proven; empty: histories are proven complete. */
  readonly unproven: readonly string[];
  readonly implementations: Readonly<Record<"policy" | "registry", string>>;
  readonly service:
    | {
        readonly admin: string;
        readonly upgradeable: boolean;
        readonly noticePeriod: number;
        readonly keyEpoch: number;
      }
    | undefined;
  readonly images: ReadonlyMap<Hex, ImageFacts>;
  readonly platforms: ReadonlyMap<Hex, EntryFacts>;
  readonly kmsImages: ReadonlyMap<Hex, EntryFacts>;
  /** The KMS identities that the policy names: root fingerprints, and who signs receipts. */
  readonly identities: ReadonlySet<Hex>;
  readonly receiptSigners: ReadonlySet<Hex>;
  /** TEE kinds to which keys may be released. */
  readonly enabledTees: ReadonlySet<string>;
  readonly pausedUntil: number;
  readonly minDelay: number;
  readonly operations: readonly OperationFacts[];
  readonly governance: SafeFacts;
  readonly guardian: SafeFacts;
  /** The Safe that is the service's admin; undefined where the admin is none. */
  readonly admin: SafeFacts | undefined;
}

/** A release that a node signed: of the service's keys to a machine, or of the root secret to another node. */
export interface ReceiptFacts {
  /** What was signed: the same release shown twice, or by two nodes, is one. */
  readonly digest: Hex;
  readonly type: "keys" | "root";
  readonly imageId: Hex;
  readonly issuedAt: number;
}

/** What a node says of itself. */
export interface NodeFacts {
  /** Answers on its monitoring endpoints. */
  readonly up: boolean;
  /** Would release keys now. */
  readonly ready: boolean;
  /** Why it is not up or not ready, or is of another deployment. */
  readonly problem: string | undefined;
  /** Takes evidence under test roots: what it released says nothing about hardware. Possible on development chains alone. */
  readonly testTee: boolean;
  /** The root secret's fingerprint: nodes that give the same keys have the same. */
  readonly environmentKey: Hex | undefined;
  /** What it released to the service's machines and to other nodes, each signature checked; undefined: it shows no receipts. */
  readonly receipts: readonly ReceiptFacts[] | undefined;
}

/** What is known of a machine. */
export interface MachineFacts {
  /** Whether `/vm_updates` answers; undefined: the plan names none. */
  readonly up: boolean | undefined;
  readonly problem: string | undefined;
  /** Whether its quote is of the image that the plan says; undefined: the plan names no quote. */
  readonly quote: "as-planned" | "differs" | "unreadable" | undefined;
  /** Which registers differ. */
  readonly differs: readonly string[];
}

/** Everything, at one moment. What could not be read is an error in its place, and never an empty answer. */
export interface Facts {
  /** This machine's clock, seconds since 1970. */
  readonly now: number;
  readonly chain: ChainFacts | KeysteadError;
  readonly nodes: ReadonlyMap<string, NodeFacts>;
  readonly machines: ReadonlyMap<string, MachineFacts>;
  /** Proposal folders at hand: id → whether the folder is there. */
  readonly folders: ReadonlySet<string>;
}
