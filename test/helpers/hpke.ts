import { createDecipheriv, createHmac } from "node:crypto";
import { x25519 } from "@noble/curves/ed25519.js";

/*
 * The receiving side of HPKE written a second time, from RFC 9180's text: X25519 of @noble, HMAC and ChaCha20-Poly1305 of OpenSSL. It shares nothing with
 * src/core/seal.ts (@hpke, X25519 of WebCrypto, HKDF of @noble) but the RFC.
 */

const text = (value: string) => new TextEncoder().encode(value);
const join = (...parts: readonly Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));
const KEM_SUITE = join(text("KEM"), Uint8Array.of(0x00, 0x20));
const HPKE_SUITE = join(text("HPKE"), Uint8Array.of(0x00, 0x20, 0x00, 0x01, 0x00, 0x03));

const hmac = (key: Uint8Array, message: Uint8Array) =>
  new Uint8Array(createHmac("sha256", key).update(message).digest());
const extract = (salt: Uint8Array, ikm: Uint8Array) => hmac(salt.length === 0 ? new Uint8Array(32) : salt, ikm);
function expand(prk: Uint8Array, info: Uint8Array, length: number): Uint8Array {
  let block: Uint8Array = new Uint8Array(0);
  let out: Uint8Array = new Uint8Array(0);
  for (let counter = 1; out.length < length; counter += 1) {
    block = hmac(prk, join(block, info, Uint8Array.of(counter)));
    out = join(out, block);
  }
  return out.subarray(0, length);
}
const labeledExtract = (suite: Uint8Array, salt: Uint8Array, label: string, ikm: Uint8Array) =>
  extract(salt, join(text("HPKE-v1"), suite, text(label), ikm));
const labeledExpand = (suite: Uint8Array, prk: Uint8Array, label: string, info: Uint8Array, length: number) =>
  expand(prk, join(Uint8Array.of(length >> 8, length & 0xff), text("HPKE-v1"), suite, text(label), info), length);

/** Opens a message in base mode (RFC 9180, 5.1.1), sequence number 0. */
export function openByHand(
  privateKey: Uint8Array,
  { enc, ciphertext }: { readonly enc: Uint8Array; readonly ciphertext: Uint8Array },
  { info, aad }: { readonly info: Uint8Array; readonly aad: Uint8Array },
): Uint8Array {
  const empty = new Uint8Array(0);
  const dh = x25519.getSharedSecret(privateKey, enc);
  const eae = labeledExtract(KEM_SUITE, empty, "eae_prk", dh);
  const kemContext = join(enc, x25519.getPublicKey(privateKey));
  const shared = labeledExpand(KEM_SUITE, eae, "shared_secret", kemContext, 32);
  const context = join(
    Uint8Array.of(0),
    labeledExtract(HPKE_SUITE, empty, "psk_id_hash", empty),
    labeledExtract(HPKE_SUITE, empty, "info_hash", info),
  );
  const secret = labeledExtract(HPKE_SUITE, shared, "secret", empty);
  const key = labeledExpand(HPKE_SUITE, secret, "key", context, 32);
  const nonce = labeledExpand(HPKE_SUITE, secret, "base_nonce", context, 12);
  const cipher = createDecipheriv("chacha20-poly1305", key, nonce, { authTagLength: 16 });
  cipher.setAuthTag(ciphertext.subarray(-16));
  cipher.setAAD(aad, { plaintextLength: ciphertext.length - 16 });
  return new Uint8Array(Buffer.concat([cipher.update(ciphertext.subarray(0, -16)), cipher.final()]));
}

/** HKDF-SHA256 (RFC 5869) out of HMAC alone. */
export function hkdfByHand(ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Uint8Array {
  return expand(extract(salt, ikm), info, length);
}
