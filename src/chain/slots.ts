import { keccak_256 } from "@noble/hashes/sha3.js";
import { utf8ToBytes } from "@noble/hashes/utils.js";
import { concatBytes, fromHex, type Hex, toHex } from "../core/bytes.ts";

/*
 * Where the proxies keep what proofs are about. Layouts: contracts/registry/ServiceStore.sol, contracts/policy/PlatformPolicy.sol,
 * contracts/registry/Words.sol; formulas: ERC-7201, ERC-1967, Solidity's "Layout of State Variables in Storage".
 */

/** ERC-1967: `keccak256("eip1967.proxy.implementation") - 1`. */
export const IMPLEMENTATION_SLOT: Hex = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc";

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
 * The slots of a service: its word, and its history head after it.
 *
 * @param serviceId 20 bytes
 * @example
 * const { word, head } = serviceSlots("0x…");
 */
export function serviceSlots(serviceId: Hex): { readonly word: Hex; readonly head: Hex } {
  const key = fromHex(`${serviceId}${"00".repeat(12)}`, "serviceId");
  const base = fromHex(namespaceSlot("keystead.storage.KmsRegistry"), "slot");
  const word = toHex(keccak_256(concatBytes(key, base)));
  return { word, head: slotHex(BigInt(word) + 1n) };
}

/**
 * The slots of the policy: its history head, and version and latest block after it.
 *
 * @example
 * const { head, counters } = policySlots();
 */
export function policySlots(): { readonly head: Hex; readonly counters: Hex } {
  const base = BigInt(namespaceSlot("keystead.storage.PlatformPolicy"));
  return { head: slotHex(base + 1n), counters: slotHex(base + 2n) };
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

function slotHex(slot: bigint): Hex {
  return `0x${(slot & (2n ** 256n - 1n)).toString(16).padStart(64, "0")}`;
}
