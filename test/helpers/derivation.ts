import { x25519 } from "@noble/curves/ed25519.js";
import { computeAddress, SigningKey, toBeHex } from "ethers";
import { fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import { hkdfByHand } from "./hpke.ts";

/*
 * The protocol's derivations written a second time, from the text of its documentation: HKDF out of HMAC alone, X25519 of @noble, scalars by bigint,
 * addresses of ethers. It shares nothing with src/node/keys.ts but that text.
 */

const text = (value: string) => new TextEncoder().encode(value);
const join = (...parts: readonly Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));
const number = (value: number | bigint, bytes: number) => fromHex(toBeHex(value, bytes), "number");
const enc = (...parts: readonly Uint8Array[]) => join(...parts.map((part) => join(number(part.length, 4), part)));
const K256_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const scalar = (seed: Uint8Array) => number((BigInt(toHex(seed)) % (K256_ORDER - 1n)) + 1n, 32);
const expand = (ikm: Uint8Array, length: number, ...parts: readonly Uint8Array[]) =>
  hkdfByHand(ikm, text("keystead/v1"), enc(...parts), length);

/** Where a derivation starts. */
export interface Place {
  readonly root: Uint8Array;
  readonly chainId: bigint;
  readonly registry: Hex;
}

const deployment = ({ chainId, registry }: Place) => [number(chainId, 32), fromHex(registry, "registry")];

/** A service's key for a purpose. */
export function purposeKeyByHand(place: Place, serviceId: Hex, keyEpoch: number, purpose: string): Uint8Array {
  const service = fromHex(serviceId, "service");
  const secret = expand(place.root, 32, text("service"), ...deployment(place), service, number(keyEpoch, 2));
  return purpose === "identity-k256"
    ? scalar(expand(secret, 48, text("purpose"), text(purpose)))
    : expand(secret, 32, text("purpose"), text(purpose));
}

/** The private key that signs receipts. */
export function receiptKeyByHand(place: Place): SigningKey {
  return new SigningKey(toHex(scalar(expand(place.root, 48, text("receipt"), ...deployment(place)))));
}

/** The address that signs receipts. */
export function receiptSignerByHand(place: Place): string {
  return computeAddress(receiptKeyByHand(place)).toLowerCase();
}

/** The KMS's X25519 key. */
export function kmsKeyByHand(place: Place): Uint8Array {
  return expand(place.root, 32, text("environment"), ...deployment(place));
}

/** The public half of an X25519 key. */
export function publicByHand(privateKey: Uint8Array): Hex {
  return toHex(x25519.getPublicKey(privateKey));
}

/** What the key agent's 32 bytes become. */
export function dstackRootByHand(agentKey: Uint8Array, rootEpoch: number): Uint8Array {
  return expand(agentKey, 32, text("dstack-root"), number(rootEpoch, 2));
}
