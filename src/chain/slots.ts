import { keccak_256 } from "@noble/hashes/sha3.js";
import { utf8ToBytes } from "@noble/hashes/utils.js";
import { concatBytes, fromHex, type Hex, toHex } from "../core/bytes.ts";

/*
 * Where the proxies keep what proofs are about. Layouts: contracts/registry/ServiceStore.sol, contracts/policy/PlatformPolicy.sol,
 * contracts/registry/Words.sol; formulas: ERC-7201, ERC-1967, Solidity's "Layout of State Variables in Storage".
 */

/** ERC-1967: `keccak256("eip1967.proxy.implementation") - 1`. */
export const IMPLEMENTATION_SLOT: Hex = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc";

const REGISTRY_BASE = namespaceSlot("keystead.storage.KmsRegistry");
const SERVICES_SLOTS = {
  head: slotHex(BigInt(REGISTRY_BASE) + 1n),
  count: slotHex(BigInt(REGISTRY_BASE) + 2n),
} as const;
const POLICY_BASE = BigInt(namespaceSlot("keystead.storage.PlatformPolicy"));
const POLICY_SLOTS = {
  gate: slotHex(POLICY_BASE),
  head: slotHex(POLICY_BASE + 1n),
  counters: slotHex(POLICY_BASE + 2n),
  gatewayAppId: slotHex(POLICY_BASE + 7n),
  appImplementation: slotHex(POLICY_BASE + 8n),
} as const;
/** The policy's texts have 512 bytes at most. */
const MAX_STRING_SLOTS = 16;

/**
 * The base slot of an ERC-7201 namespace: `keccak256(keccak256(id) - 1) & ~0xff`.
 *
 * @example
 * namespaceSlot("keystead.storage.KmsRegistry"); // "0xcbba…2e00"
 */
export function namespaceSlot(id: string): Hex {
  const inner = BigInt(toHex(keccak_256(utf8ToBytes(id)))) - 1n;
  const outer = BigInt(toHex(keccak_256(fromHex(slotHex(inner), "slot"))));
  return slotHex(outer & ~0xffn);
}

/**
 * The slots of a service: its word, its history head after it, and key epoch and pending TCB rule after that.
 *
 * @param serviceId 20 bytes
 * @example
 * const { word, head, rules } = serviceSlots("0x…");
 */
export function serviceSlots(serviceId: Hex): { readonly word: Hex; readonly head: Hex; readonly rules: Hex } {
  const word = mappingSlot(`${serviceId}${"00".repeat(12)}`, REGISTRY_BASE);
  return { word, head: slotHex(BigInt(word) + 1n), rules: slotHex(BigInt(word) + 2n) };
}

/**
 * The slots of the chain over all services: its head, and how many services there are.
 *
 * @example
 * const { head, count } = servicesSlots();
 */
export function servicesSlots(): { readonly head: Hex; readonly count: Hex } {
  return SERVICES_SLOTS;
}

/**
 * The slot of an image's record under a service.
 *
 * @example
 * imageSlot(serviceSlots(serviceId).word, imageId);
 */
export function imageSlot(serviceWordSlot: Hex, imageId: Hex): Hex {
  return mappingSlot(imageId, slotHex(BigInt(serviceWordSlot) + 6n));
}

/**
 * The slot that says from when on a service lets a device count.
 *
 * @example
 * serviceDeviceSlot(serviceSlots(serviceId).word, deviceId);
 */
export function serviceDeviceSlot(serviceWordSlot: Hex, deviceId: Hex): Hex {
  return mappingSlot(deviceId, slotHex(BigInt(serviceWordSlot) + 7n));
}

/**
 * The slots of the policy: the gate, its history head, version and latest block, the gateway's id, the app implementation.
 *
 * @example
 * const { head, counters } = policySlots();
 */
export function policySlots(): {
  readonly gate: Hex;
  readonly head: Hex;
  readonly counters: Hex;
  readonly gatewayAppId: Hex;
  readonly appImplementation: Hex;
} {
  return POLICY_SLOTS;
}

/**
 * The slot of a platform's or a KMS image's entry.
 *
 * @param id 32 bytes
 * @example
 * policyEntrySlot("platform", platformId);
 */
export function policyEntrySlot(list: "platform" | "kmsImage", id: Hex): Hex {
  return mappingSlot(id, slotHex(POLICY_BASE + (list === "platform" ? 3n : 4n)));
}

/**
 * The slot that says whether the policy lists a device for a TEE kind.
 *
 * @example
 * policyDeviceSlot(1, deviceId);
 */
export function policyDeviceSlot(kind: number, deviceId: Hex): Hex {
  return mappingSlot(deviceId, mappingSlot(slotHex(BigInt(kind)), slotHex(POLICY_BASE + 6n)));
}

/**
 * A `string` in storage, from its own slot: the length in bytes, and the text itself if it is short, or else the slots that hold it.
 *
 * @throws nothing: a word that no compiler writes reads as an empty text
 * @example
 * const { length, short, slots } = stringLayout(policySlots().gatewayAppId, word);
 */
export function stringLayout(
  slot: Hex,
  word: bigint,
): { readonly length: number; readonly short: Uint8Array | undefined; readonly slots: readonly Hex[] } {
  const last = Number(word & 0xffn);
  if (last % 2 === 0) {
    const length = Math.min(last / 2, 31);
    return { length, short: fromHex(slotHex(word), "word").subarray(0, length), slots: [] };
  }
  const length = Number(BigInt.asUintN(32, (word - 1n) / 2n));
  const first = BigInt(toHex(keccak_256(fromHex(slot, "slot"))));
  const count = Math.min(Math.ceil(length / 32), MAX_STRING_SLOTS);
  return { length, short: undefined, slots: Array.from({ length: count }, (_, at) => slotHex(first + BigInt(at))) };
}

/**
 * Event count and latest block in a service's word: `admin:160 ‖ noticePeriod:24 ‖ flags:8 ‖ sequence:32 ‖ lastUpdateBlock:32`, low bits first.
 *
 * @example
 * decodeServiceWord(word).sequence;
 */
export function decodeServiceWord(word: bigint): { readonly sequence: number; readonly lastUpdateBlock: number } {
  return { sequence: Number((word >> 192n) & 0xffffffffn), lastUpdateBlock: Number(word >> 224n) };
}

/**
 * Event count and latest block of the policy: `policyVersion:64 ‖ lastUpdateBlock:40`, low bits first.
 *
 * @example
 * decodePolicyCounters(word).policyVersion;
 */
export function decodePolicyCounters(word: bigint): {
  readonly policyVersion: number;
  readonly lastUpdateBlock: number;
} {
  return { policyVersion: Number(word & (2n ** 64n - 1n)), lastUpdateBlock: Number((word >> 64n) & (2n ** 40n - 1n)) };
}

/** The slot of a mapping's value: `keccak256(key ‖ slot)` for a key of 32 bytes. */
function mappingSlot(key: Hex, slot: Hex): Hex {
  return toHex(keccak_256(concatBytes(fromHex(key, "key"), fromHex(slot, "slot"))));
}

/**
 * 32 bytes of hex.
 *
 * @example
 * slotHex(1n); // "0x00…01"
 */
export function slotHex(slot: bigint): Hex {
  return `0x${(slot & (2n ** 256n - 1n)).toString(16).padStart(64, "0")}`;
}
