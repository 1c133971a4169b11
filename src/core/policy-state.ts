import type { Hex } from "./bytes.ts";
import type { PolicyEvent } from "./events.ts";
import { EMPTY_HEAD, foldHistory } from "./history.ts";
import { imageHeader, type TimedEntry, ZERO_ADDRESS } from "./state.ts";

/* The policy's whole state, rebuilt from its verified logs alone: what PlatformPolicy.sol stores, and the texts that it leaves to the logs. */

/** Whether an entry is in force. */
export type EntryState = "allowed" | "revoked";

/** A platform or a KMS image on the list. */
export interface PolicyEntry {
  readonly id: Hex;
  readonly state: EntryState;
  /** Canonical bytes. */
  readonly image: Hex;
  readonly kind: number;
  readonly mask: number;
  /** When the state was set, in seconds since 1970. */
  readonly since: number;
  /** Untrusted text. */
  readonly description: string;
  /** Untrusted text: why it was revoked. */
  readonly reason?: string | undefined;
}

/** A KMS node's public keys. */
export interface KmsIdentity {
  readonly id: Hex;
  readonly state: EntryState;
  readonly rootEpoch: number;
  readonly environmentKey: Hex;
  readonly receiptSigner: Hex;
  readonly evidenceHash: Hex;
  /** Untrusted text: why it was revoked. */
  readonly reason?: string | undefined;
}

/** What holds for one TEE kind. */
export interface TeeRules {
  readonly enabled: boolean;
  readonly devicesRestricted: boolean;
  /** TCB statuses as bits (contracts/types/TcbStatus.sol). */
  readonly acceptedTcb: number;
  /** Every device that was ever listed, and whether it still is; they count only where devices are restricted. */
  readonly devices: ReadonlyMap<Hex, boolean>;
}

/** The policy as its logs tell it. */
export interface PolicyState {
  readonly platforms: ReadonlyMap<Hex, PolicyEntry>;
  readonly kmsImages: ReadonlyMap<Hex, PolicyEntry>;
  readonly kmsIdentities: ReadonlyMap<Hex, KmsIdentity>;
  /** By the kind's number; 0 for the devices of KMS nodes. A kind that no event names is absent: nothing holds for it. */
  readonly tees: ReadonlyMap<number, TeeRules>;
  /** The end of the latest pause, in seconds since 1970; 0: there was none. */
  readonly pausedUntil: number;
  /** Untrusted text. */
  readonly gatewayAppId: string;
  readonly appImplementation: Hex;
  readonly policyVersion: number;
  readonly lastUpdateBlock: number;
  readonly historyHead: Hex;
  /** The numbers of events that this version does not know: where there are any, the state may be incomplete. */
  readonly notUnderstood: readonly number[];
}

type Tee = { -readonly [K in Exclude<keyof TeeRules, "devices">]: TeeRules[K] } & { devices: Map<Hex, boolean> };
type Draft = { -readonly [K in Exclude<keyof PolicyState, "tees">]: PolicyState[K] } & {
  platforms: Map<Hex, PolicyEntry>;
  kmsImages: Map<Hex, PolicyEntry>;
  kmsIdentities: Map<Hex, KmsIdentity>;
  tees: Map<number, Tee>;
  notUnderstood: number[];
};

/**
 * Rebuilds the policy from its events, oldest first. Give verified entries (`verifyPolicyHistory`): this function believes what it reads.
 *
 * @example
 * rebuildPolicy(entries).tees.get(1)?.enabled; // whether TDX machines may have keys
 */
export function rebuildPolicy(entries: readonly TimedEntry<PolicyEvent>[]): PolicyState {
  const draft: Draft = {
    platforms: new Map(),
    kmsImages: new Map(),
    kmsIdentities: new Map(),
    tees: new Map(),
    pausedUntil: 0,
    gatewayAppId: "",
    appImplementation: ZERO_ADDRESS,
    policyVersion: 0,
    lastUpdateBlock: 0,
    historyHead: EMPTY_HEAD,
    notUnderstood: [],
  };
  for (const entry of entries) {
    draft.policyVersion = entry.sequence;
    draft.lastUpdateBlock = entry.number ?? entry.log.blockNumber;
    draft.historyHead = foldHistory(draft.historyHead, entry.log);
    if (entry.event === undefined) draft.notUnderstood.push(entry.sequence);
    else apply(draft, entry.event);
  }
  return draft;
}

function apply(draft: Draft, event: PolicyEvent): void {
  switch (event.name) {
    case "allow_platform":
      allow(draft.platforms, event.args.platformId, event.args);
      return;
    case "revoke_platform":
      revoke(draft.platforms, event.args.platformId, event.args);
      return;
    case "allow_kms_image":
      allow(draft.kmsImages, event.args.imageId, event.args);
      return;
    case "revoke_kms_image":
      revoke(draft.kmsImages, event.args.imageId, event.args);
      return;
    case "enable_tee":
      teeOf(draft, event.args.kind).enabled = true;
      return;
    case "suspend_tee":
      teeOf(draft, event.args.kind).enabled = false;
      return;
    case "accept_tcb":
    case "reject_tcb":
      teeOf(draft, event.args.kind).acceptedTcb = event.args.accepted;
      return;
    case "allow_device":
      teeOf(draft, event.args.kind).devices.set(event.args.deviceId, true);
      return;
    case "revoke_device":
      teeOf(draft, event.args.kind).devices.set(event.args.deviceId, false);
      return;
    case "restrict_devices":
      teeOf(draft, event.args.kind).devicesRestricted = true;
      return;
    case "unrestrict_devices":
      teeOf(draft, event.args.kind).devicesRestricted = false;
      return;
    case "publish_kms_identity": {
      const { identityId: id, rootEpoch, environmentKey, receiptSigner, evidenceHash } = event.args;
      const state = "allowed";
      draft.kmsIdentities.set(id, { id, state, rootEpoch, environmentKey, receiptSigner, evidenceHash });
      return;
    }
    case "revoke_kms_identity": {
      const { identityId, reason } = event.args;
      const known = draft.kmsIdentities.get(identityId);
      if (known !== undefined) draft.kmsIdentities.set(identityId, { ...known, state: "revoked", reason });
      return;
    }
    case "set_gateway_app_id":
      draft.gatewayAppId = event.args.gatewayAppId;
      return;
    case "set_app_implementation":
      draft.appImplementation = event.args.appImplementation;
      return;
    case "pause_release":
    case "extend_pause":
    case "resume_release":
      draft.pausedUntil = event.args.until;
      return;
  }
}

function teeOf(draft: Draft, kind: number): Tee {
  const known = draft.tees.get(kind);
  if (known !== undefined) return known;
  const tee: Tee = { enabled: false, devicesRestricted: false, acceptedTcb: 0, devices: new Map() };
  draft.tees.set(kind, tee);
  return tee;
}

function allow(
  entries: Map<Hex, PolicyEntry>,
  id: Hex,
  { image, description, since }: { readonly image: Hex; readonly description: string; readonly since: number },
): void {
  entries.set(id, { id, state: "allowed", image, ...imageHeader(image), since, description });
}

function revoke(
  entries: Map<Hex, PolicyEntry>,
  id: Hex,
  { reason, since }: { readonly reason: string; readonly since: number },
): void {
  const known = entries.get(id);
  if (known !== undefined) entries.set(id, { ...known, state: "revoked", since, reason });
}
