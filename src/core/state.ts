import type { Hex } from "./bytes.ts";
import type { ServiceEvent } from "./events.ts";
import { EMPTY_HEAD, foldHistory, type HistoryEntry } from "./history.ts";

/*
 * A service's whole state, rebuilt from its verified logs alone: what ServiceStore.sol stores, and what it leaves to the logs (texts, images, secrets).
 * Whatever depends on the time of asking is computed by `viewService` and `isImageActive` for a given time.
 */

/** No account. */
export const ZERO_ADDRESS: Hex = `0x${"00".repeat(20)}`;

/** One event and the time of its block, in seconds since 1970. */
export interface TimedEntry<E> extends HistoryEntry<E> {
  readonly timestamp: number;
  /** What `block.number` was in the contract, where that is not the number of the log's block. */
  readonly number?: number | undefined;
}

/** The life of an image, as in IKmsRegistry. */
export type ImageListing = "listed" | "removed";

/** Whether an image may receive keys at a given time, and why not. */
export type ImageStatus = "pending" | "active" | "retiring" | "retired" | "removed";

/** An image under a service. Times in seconds since 1970. */
export interface ServiceImage {
  readonly imageId: Hex;
  /** Canonical bytes. */
  readonly image: Hex;
  readonly kind: number;
  readonly mask: number;
  /** Untrusted text. */
  readonly description: string;
  readonly activeFrom: number;
  /** From when on it may not receive keys any more; 0: no end. */
  readonly activeUntil: number;
  readonly listing: ImageListing;
  /** Untrusted text: why it was removed. */
  readonly reason?: string | undefined;
  /** Whether it counts on the service's listed devices only: decided when it was listed. */
  readonly restrictsDevices: boolean;
  /** The number of the event that listed it last. */
  readonly listedBy: number;
}

/** One publication of secrets sealed to the KMS's environment key. */
export interface SealedSecrets {
  /** Untrusted text; empty: the secrets that came with a sealed service. */
  readonly name: string;
  readonly ciphertext: Hex;
  /** From when on it counts, in seconds since 1970. */
  readonly effectiveFrom: number;
  /** The number of the event that published it. */
  readonly publishedBy: number;
}

/** A service as its logs tell it, with no regard to the time of asking. */
export interface ServiceState {
  readonly exists: boolean;
  readonly upgradeable: boolean;
  readonly creator: Hex;
  /** Untrusted text. */
  readonly description: string;
  readonly admin: Hex;
  readonly pendingAdmin: Hex;
  /** Guardian before `nextGuardianFrom`, and after. */
  readonly guardian: Hex;
  readonly nextGuardian: Hex;
  readonly nextGuardianFrom: number;
  /** The last guardian that left before `guardian` came, and when. */
  readonly formerGuardian: Hex;
  readonly formerGuardianLeft: number;
  readonly noticePeriod: number;
  readonly keyEpoch: number;
  /** When the key was rotated last; 0: never. */
  readonly rotatedAt: number;
  readonly tcbRule: boolean;
  readonly tcbRuleEnds: number;
  readonly restrictDevices: boolean;
  readonly sequence: number;
  readonly lastUpdateBlock: number;
  readonly historyHead: Hex;
  readonly images: ReadonlyMap<Hex, ServiceImage>;
  /** Every device that was ever listed → from when on it counts; 0: taken off the list. */
  readonly devices: ReadonlyMap<Hex, number>;
  /** Every publication by name, oldest first, without those withdrawn; {@link secretsAt} says which one counts. */
  readonly secrets: ReadonlyMap<string, readonly SealedSecrets[]>;
  /** The numbers of events that this version does not know: where there are any, the state may be incomplete. */
  readonly notUnderstood: readonly number[];
}

/** What IKmsRegistry.service answers. */
export interface ServiceView {
  readonly exists: boolean;
  readonly upgradeable: boolean;
  readonly admin: Hex;
  readonly pendingAdmin: Hex;
  readonly guardian: Hex;
  readonly noticePeriod: number;
  readonly keyEpoch: number;
  readonly requireUpToDateTcb: boolean;
  readonly restrictDevices: boolean;
  readonly tcbRuleEnds: number;
  readonly nextGuardian: Hex;
  readonly nextGuardianFrom: number;
  readonly formerGuardian: Hex;
  readonly formerGuardianUntil: number;
  readonly rotatedAt: number;
  readonly sequence: number;
  readonly lastUpdateBlock: number;
  readonly historyHead: Hex;
}

type Draft = { -readonly [K in keyof ServiceState]: ServiceState[K] } & {
  images: Map<Hex, ServiceImage>;
  devices: Map<Hex, number>;
  secrets: Map<string, readonly SealedSecrets[]>;
  notUnderstood: number[];
};

/**
 * Rebuilds a service from its events, oldest first. Give verified entries (`verifyServiceHistory`): this function believes what it reads.
 *
 * @example
 * const state = rebuildService(entries);
 * for (const image of state.images.values()) console.log(image.imageId, imageStatus(image, now));
 */
export function rebuildService(entries: readonly TimedEntry<ServiceEvent>[]): ServiceState {
  const draft: Draft = {
    exists: false,
    upgradeable: false,
    creator: ZERO_ADDRESS,
    description: "",
    admin: ZERO_ADDRESS,
    pendingAdmin: ZERO_ADDRESS,
    guardian: ZERO_ADDRESS,
    nextGuardian: ZERO_ADDRESS,
    nextGuardianFrom: 0,
    formerGuardian: ZERO_ADDRESS,
    formerGuardianLeft: 0,
    noticePeriod: 0,
    keyEpoch: 0,
    rotatedAt: 0,
    tcbRule: false,
    tcbRuleEnds: 0,
    restrictDevices: false,
    sequence: 0,
    lastUpdateBlock: 0,
    historyHead: EMPTY_HEAD,
    images: new Map(),
    devices: new Map(),
    secrets: new Map(),
    notUnderstood: [],
  };
  for (const entry of entries) {
    draft.exists = true;
    draft.sequence = entry.sequence;
    draft.lastUpdateBlock = entry.number ?? entry.log.blockNumber;
    draft.historyHead = foldHistory(draft.historyHead, entry.log);
    if (entry.event === undefined) draft.notUnderstood.push(entry.sequence);
    else apply(draft, entry.event, entry.sequence);
  }
  return draft;
}

function apply(draft: Draft, event: ServiceEvent, sequence: number): void {
  switch (event.name) {
    case "create_service":
      draft.upgradeable = true;
      draft.creator = event.args.creator;
      draft.admin = event.args.creator;
      draft.pendingAdmin = event.args.pendingAdmin;
      draft.noticePeriod = event.args.noticePeriod;
      draft.tcbRule = event.args.requireUpToDateTcb;
      draft.description = event.args.description;
      return;
    case "add_secret_key_by_image":
      draft.creator = event.args.creator;
      draft.tcbRule = event.args.requireUpToDateTcb;
      draft.description = event.args.description;
      listImage(draft, event.args, sequence);
      return;
    case "add_image_to_service":
      listImage(draft, event.args, sequence);
      return;
    case "remove_image_from_service":
      changeImage(draft, event.args.imageId, { listing: "removed", reason: event.args.reason });
      return;
    case "retire_image_from_service":
      changeImage(draft, event.args.imageId, { activeUntil: event.args.activeUntil });
      return;
    case "rotate_service_key":
      draft.keyEpoch = event.args.keyEpoch;
      draft.rotatedAt = event.args.since;
      return;
    case "publish_sealed_secrets": {
      const { name, ciphertext, effectiveFrom } = event.args;
      const before = draft.secrets.get(name) ?? [];
      draft.secrets.set(name, [...before, { name, ciphertext, effectiveFrom, publishedBy: sequence }]);
      return;
    }
    case "withdraw_pending_secrets":
      withdrawSecrets(draft, event.args.since, event.args.before);
      return;
    case "extend_notice_period":
      draft.noticePeriod = event.args.noticePeriod;
      return;
    case "set_service_guardian":
      changeGuardian(draft, event.args.previous, event.args.effectiveFrom);
      draft.nextGuardian = event.args.guardian;
      draft.nextGuardianFrom = event.args.effectiveFrom;
      return;
    case "set_device":
      draft.restrictDevices = true;
      // The one image of a service that is not upgradeable stands in the log before the devices that came with it.
      if (!draft.upgradeable) for (const id of draft.images.keys()) changeImage(draft, id, { restrictsDevices: true });
      draft.devices.set(event.args.deviceId, event.args.allowed ? event.args.effectiveFrom : 0);
      return;
    case "set_require_up_to_date_tcb":
      draft.tcbRule = true;
      draft.tcbRuleEnds = event.args.required ? 0 : event.args.effectiveFrom;
      return;
    case "transfer_service_admin":
      draft.pendingAdmin = event.args.pendingAdmin;
      return;
    case "accept_service_admin":
      draft.admin = event.args.admin;
      draft.pendingAdmin = ZERO_ADDRESS;
      return;
    case "renounce_service_admin":
      draft.admin = ZERO_ADDRESS;
      draft.pendingAdmin = ZERO_ADDRESS;
      return;
  }
}

function listImage(
  draft: Draft,
  { imageId, image, description, activeFrom }: Pick<ServiceImage, "imageId" | "image" | "description" | "activeFrom">,
  sequence: number,
): void {
  draft.images.set(imageId, {
    imageId,
    image,
    ...imageHeader(image),
    description,
    activeFrom,
    activeUntil: 0,
    listing: "listed",
    restrictsDevices: draft.restrictDevices,
    listedBy: sequence,
  });
}

/** As `ServiceStore._guardians` at the time of the event: it took effect at once where nobody was guardian, else after the notice period. */
function changeGuardian(draft: Draft, previous: Hex, effectiveFrom: number): void {
  const now = previous === ZERO_ADDRESS ? effectiveFrom : effectiveFrom - draft.noticePeriod;
  if (draft.nextGuardianFrom !== 0 && now >= draft.nextGuardianFrom && draft.guardian !== ZERO_ADDRESS) {
    draft.formerGuardian = draft.guardian;
    draft.formerGuardianLeft = draft.nextGuardianFrom;
  }
  draft.guardian = previous;
}

function withdrawSecrets(draft: Draft, since: number, before: number): void {
  for (const [name, publications] of draft.secrets) {
    draft.secrets.set(
      name,
      publications.filter(({ effectiveFrom }) => effectiveFrom <= since || effectiveFrom >= before),
    );
  }
}

function changeImage(draft: Draft, imageId: Hex, change: Partial<ServiceImage>): void {
  const image = draft.images.get(imageId);
  if (image !== undefined) draft.images.set(imageId, { ...image, ...change });
}

/**
 * Kind and mask as they stand in canonical bytes: `version ‖ kind ‖ mask:u32 BE ‖ …`. Zero where the bytes are too short to say.
 *
 * @example
 * imageHeader("0x01010000001f…"); // { kind: 1, mask: 31 }
 */
export function imageHeader(image: Hex): { readonly kind: number; readonly mask: number } {
  const part = (from: number, to: number) => Number.parseInt(image.slice(from, to), 16) || 0;
  return image.length < 14 ? { kind: 0, mask: 0 } : { kind: part(4, 6), mask: part(6, 14) };
}

/**
 * The secrets that count at a time: of each name's publications in force, the latest.
 *
 * @param now seconds since 1970
 * @example
 * secretsAt(state, block.timestamp).get("env")?.ciphertext;
 */
export function secretsAt({ secrets }: Pick<ServiceState, "secrets">, now: number): Map<string, SealedSecrets> {
  const found = new Map<string, SealedSecrets>();
  for (const [name, publications] of secrets) {
    const latest = publications.findLast(({ effectiveFrom }) => effectiveFrom <= now);
    if (latest !== undefined) found.set(name, latest);
  }
  return found;
}

/**
 * The secrets that are published and not in force yet, oldest first.
 *
 * @param now seconds since 1970
 * @example
 * pendingSecrets(state, block.timestamp).length;
 */
export function pendingSecrets({ secrets }: Pick<ServiceState, "secrets">, now: number): SealedSecrets[] {
  return [...secrets.values()]
    .flatMap((publications) => publications.filter(({ effectiveFrom }) => effectiveFrom > now))
    .sort((a, b) => a.publishedBy - b.publishedBy);
}

/**
 * A service as `IKmsRegistry.service` shows it at a time: rules whose loosening has taken effect are shown as loosened.
 *
 * @param now seconds since 1970
 * @example
 * viewService(rebuildService(entries), block.timestamp).guardian;
 */
export function viewService(state: ServiceState, now: number): ServiceView {
  const changing = state.nextGuardianFrom > now;
  const changed = state.nextGuardianFrom !== 0 && !changing;
  const leaves = changed && state.guardian !== ZERO_ADDRESS;
  const former = leaves ? state.guardian : state.formerGuardian;
  const until = (leaves ? state.nextGuardianFrom : state.formerGuardianLeft) + state.noticePeriod;
  const mayStop = former !== ZERO_ADDRESS && now < until;
  const tcbRule = state.tcbRule && (state.tcbRuleEnds === 0 || now < state.tcbRuleEnds);
  return {
    exists: state.exists,
    upgradeable: state.upgradeable,
    admin: state.admin,
    pendingAdmin: state.pendingAdmin,
    guardian: changed ? state.nextGuardian : state.guardian,
    noticePeriod: state.noticePeriod,
    keyEpoch: state.keyEpoch,
    requireUpToDateTcb: tcbRule,
    restrictDevices: state.restrictDevices,
    tcbRuleEnds: tcbRule ? state.tcbRuleEnds : 0,
    nextGuardian: changing ? state.nextGuardian : ZERO_ADDRESS,
    nextGuardianFrom: changing ? state.nextGuardianFrom : 0,
    formerGuardian: mayStop ? former : ZERO_ADDRESS,
    formerGuardianUntil: mayStop ? until : 0,
    rotatedAt: state.rotatedAt,
    sequence: state.sequence,
    lastUpdateBlock: state.lastUpdateBlock,
    historyHead: state.historyHead,
  };
}

/**
 * Where an image stands in its life at a time. It may receive keys, as far as its service goes, while it is `active` or `retiring`.
 *
 * @param now seconds since 1970
 * @example
 * imageStatus(image, now) === "pending";
 */
export function imageStatus(image: ServiceImage, now: number): ImageStatus {
  if (image.listing === "removed") return "removed";
  if (image.activeUntil !== 0 && now >= image.activeUntil) return "retired";
  if (now < image.activeFrom) return "pending";
  return image.activeUntil === 0 ? "active" : "retiring";
}
