/*
 * The contracts' answer, computed here from storage words: KmsRegistry.authorize, PlatformPolicy.decide and authorizeKms, check by check and in their order.
 * test/chain/authorize.differential.test.ts holds it against the contracts on random states.
 */

/** `contracts/types/Decision.sol` by name; the index is the number in the enum. */
export const DECISIONS = [
  "ServiceUnknown",
  "Allowed",
  "ImageUnknown",
  "ImageRemoved",
  "ImagePending",
  "ImageRetired",
  "ServiceTcbNotUpToDate",
  "ServiceDeviceNotAllowed",
  "ReleasePaused",
  "TeeSuspended",
  "TcbNotAccepted",
  "PlatformNotAllowed",
  "PlatformKindMismatch",
  "DeviceNotAllowed",
  "KmsImageNotAllowed",
  "PolicyUnavailable",
] as const;
/** The answer to "may this machine have this service's keys?". */
export type DecisionName = (typeof DECISIONS)[number];

/** `contracts/types/TcbStatus.sol` by name; the index is the bit position. */
export const TCB_STATUS_NAMES = [
  "UpToDate",
  "SWHardeningNeeded",
  "ConfigurationNeeded",
  "ConfigurationAndSWHardeningNeeded",
  "OutOfDate",
  "OutOfDateConfigurationNeeded",
  "Revoked",
  "NotApplicable",
  "RelaunchAdvised",
  "RelaunchAdvisedConfigurationNeeded",
] as const;
/** A TCB status as the contracts know it. */
export type TcbStatusName = (typeof TCB_STATUS_NAMES)[number];

/** The words that a decision may depend on, read when they are needed. Zero is what storage holds where nothing was written. */
export interface DecisionWords {
  /** `ServiceStore.Service.word`: `admin:160 ‖ noticePeriod:24 ‖ flags:8 ‖ sequence:32 ‖ lastUpdateBlock:32`, low bits first. */
  readonly service: () => bigint;
  /** Its third slot: `pendingAdmin:160 ‖ keyEpoch:16 ‖ tcbRuleEnds:40 ‖ rotatedAt:40`. */
  readonly rules: () => bigint;
  /** `ImageWord`: `activeFrom:40 ‖ activeUntil:40 ‖ state:8 ‖ kind:8 ‖ mask:32 ‖ restrictsDevices:8`. */
  readonly image: () => bigint;
  /** From when on the service lets the device count, 40 bits. */
  readonly serviceDevice: () => bigint;
  /** `PlatformPolicy.Gate`: `pausedUntil:40 ‖ enabledKinds:8 ‖ restrictedKinds:8 ‖ acceptedTcb:128`. */
  readonly gate: () => bigint;
  /** `IPlatformPolicy.Entry` of the platform: `state:8 ‖ kind:8 ‖ mask:32 ‖ since:40`. */
  readonly platform: () => bigint;
  /** Whether the policy lists the device for a kind. */
  readonly policyDevice: (kind: number) => bigint;
}

const EXISTS = 1n << 184n;
const REQUIRE_UP_TO_DATE_TCB = 8n << 184n;
const LISTED = 1;
const REMOVED = 2;
const ENTRY_ALLOWED = 1;
const UP_TO_DATE = 0;

const bits = (word: bigint, from: number, width: number): number => Number(BigInt.asUintN(width, word >> BigInt(from)));

/**
 * What `KmsRegistry.authorize` answers in a block with this time.
 *
 * @param tcbStatus bit position, see {@link TCB_STATUS_NAMES}
 * @param now the block's time, in seconds since 1970
 * @example
 * authorize(words, 0, block.timestamp); // "Allowed"
 */
export function authorize(words: DecisionWords, tcbStatus: number, now: number): DecisionName {
  const image = decodeImageWord(words.image());
  if (image.state !== LISTED) {
    if (image.state === REMOVED) return "ImageRemoved";
    return (words.service() & EXISTS) === 0n ? "ServiceUnknown" : "ImageUnknown";
  }
  if (now < image.activeFrom) return "ImagePending";
  if (image.activeUntil !== 0 && now >= image.activeUntil) return "ImageRetired";
  if (tcbStatus !== UP_TO_DATE && (words.service() & REQUIRE_UP_TO_DATE_TCB) !== 0n) {
    const { tcbRuleEnds } = decodeServiceRules(words.rules());
    if (tcbRuleEnds === 0 || now < tcbRuleEnds) return "ServiceTcbNotUpToDate";
  }
  if (image.restrictsDevices) {
    const allowedFrom = bits(words.serviceDevice(), 0, 40);
    if (allowedFrom === 0 || now < allowedFrom) return "ServiceDeviceNotAllowed";
  }
  return decideByPolicy(words, image.kind, tcbStatus, now);
}

/**
 * What `PlatformPolicy.authorizeKms` answers in a block with this time: whether a machine may run as a KMS node.
 *
 * @param kmsImage the `IPlatformPolicy.Entry` of the image among the KMS images
 * @example
 * authorizeKms(entry, words, 0, block.timestamp);
 */
export function authorizeKms(
  kmsImage: bigint,
  words: Pick<DecisionWords, "gate" | "platform" | "policyDevice">,
  tcbStatus: number,
  now: number,
): DecisionName {
  const entry = decodeEntry(kmsImage);
  return entry.state === ENTRY_ALLOWED ? decideByPolicy(words, entry.kind, tcbStatus, now) : "KmsImageNotAllowed";
}

/**
 * What `PlatformPolicy.decide` answers in a block with this time.
 *
 * @example
 * decideByPolicy(words, 1, 0, block.timestamp);
 */
export function decideByPolicy(
  words: Pick<DecisionWords, "gate" | "platform" | "policyDevice">,
  kind: number,
  tcbStatus: number,
  now: number,
): DecisionName {
  const gate = words.gate();
  if (now < bits(gate, 0, 40)) return "ReleasePaused";
  const has = (kinds: bigint) => ((kinds >> BigInt(kind)) & 1n) === 1n;
  if (!has(BigInt.asUintN(8, gate >> 40n))) return "TeeSuspended";
  const accepted = BigInt.asUintN(16, BigInt.asUintN(128, gate >> 56n) >> BigInt(kind << 4));
  if (((accepted >> BigInt(tcbStatus)) & 1n) === 0n) return "TcbNotAccepted";
  const platform = decodeEntry(words.platform());
  if (platform.state !== ENTRY_ALLOWED) return "PlatformNotAllowed";
  if (platform.kind !== kind) return "PlatformKindMismatch";
  if (has(BigInt.asUintN(8, gate >> 48n)) && bits(words.policyDevice(kind), 0, 8) === 0) return "DeviceNotAllowed";
  return "Allowed";
}

/**
 * An image's record (contracts/registry/Words.sol).
 *
 * @example
 * decodeImageWord(word).activeUntil; // seconds since 1970, 0: no end
 */
export function decodeImageWord(word: bigint): {
  readonly activeFrom: number;
  readonly activeUntil: number;
  readonly state: number;
  readonly kind: number;
  readonly restrictsDevices: boolean;
} {
  return {
    activeFrom: bits(word, 0, 40),
    activeUntil: bits(word, 40, 40),
    state: bits(word, 80, 8),
    kind: bits(word, 88, 8),
    restrictsDevices: bits(word, 128, 1) === 1,
  };
}

/**
 * A service's third slot (contracts/registry/ServiceStore.sol).
 *
 * @example
 * decodeServiceRules(word).keyEpoch;
 */
export function decodeServiceRules(word: bigint): { readonly keyEpoch: number; readonly tcbRuleEnds: number } {
  return { keyEpoch: bits(word, 160, 16), tcbRuleEnds: bits(word, 176, 40) };
}

/**
 * Whether a service's word is that of a service that exists.
 *
 * @example
 * serviceExists(0n); // false
 */
export function serviceExists(word: bigint): boolean {
  return (word & EXISTS) !== 0n;
}

function decodeEntry(word: bigint): { readonly state: number; readonly kind: number } {
  return { state: bits(word, 0, 8), kind: bits(word, 8, 8) };
}
