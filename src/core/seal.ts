import { Chacha20Poly1305 } from "@hpke/chacha20poly1305";
import { CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "@hpke/core";
import { expand, extract, hkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { KeysteadError } from "./errors.ts";

/*
 * HPKE (RFC 9180), base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, one message for each encapsulation. Everything that Keystead
 * seals is sealed here; test/core/release.test.ts holds it against the RFC's vectors.
 */

type Bytes = ArrayBufferLike | ArrayBufferView;

const view = (bytes: Bytes): Uint8Array =>
  ArrayBuffer.isView(bytes) ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array(bytes);

/**
 * The KDF with HKDF from @noble/hashes. @hpke/core's own goes through WebCrypto, two calls to each HMAC: a sealing makes some twenty, and each is a job for
 * the process's thread pool and a turn of the event loop, which together cost more than all that is computed.
 */
class SynchronousHkdf extends HkdfSha256 {
  override async extract(salt: Bytes, ikm: Bytes): Promise<ArrayBuffer> {
    return own(extract(sha256, view(ikm), salt.byteLength === 0 ? undefined : view(salt))).buffer;
  }
  override async expand(prk: Bytes, info: Bytes, length: number): Promise<ArrayBuffer> {
    return own(expand(sha256, view(prk), view(info), length)).buffer;
  }
  override async extractAndExpand(salt: Bytes, ikm: Bytes, info: Bytes, length: number): Promise<ArrayBuffer> {
    return own(hkdf(sha256, view(ikm), view(salt), view(info), length)).buffer;
  }
}

/** DHKEM(X25519, HKDF-SHA256) with that KDF. */
class X25519Kem extends DhkemX25519HkdfSha256 {
  constructor() {
    super();
    const kdf = new SynchronousHkdf();
    // RFC 9180, 4.1: "KEM" and the KEM's number
    kdf.init(Uint8Array.of(...new TextEncoder().encode("KEM"), this.id >> 8, this.id & 0xff));
    this._kdf = kdf;
  }
}

const own = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(bytes);

const suite = new CipherSuite({ kem: new X25519Kem(), kdf: new SynchronousHkdf(), aead: new Chacha20Poly1305() });

/** Bytes of an X25519 key and of an encapsulated key. */
export const X25519_BYTES = 32;

/** A sealed message. */
export interface Sealed {
  /** The encapsulated key, 32 bytes. */
  readonly enc: Uint8Array;
  /** As long as the plaintext, and 16 bytes. */
  readonly ciphertext: Uint8Array;
}

/** What a message is sealed under beside the key: what it is for (`info`), and what it belongs to (`aad`). */
export interface SealContext {
  readonly info: Uint8Array;
  readonly aad: Uint8Array;
}

/** An X25519 key pair. The caller wipes the private key. */
export interface SealKeyPair {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

/**
 * A new X25519 key pair.
 *
 * @example
 * const { publicKey, privateKey } = await generateSealKeyPair();
 */
export async function generateSealKeyPair(): Promise<SealKeyPair> {
  const pair = await suite.kem.generateKeyPair();
  return {
    privateKey: new Uint8Array(await suite.kem.serializePrivateKey(pair.privateKey)),
    publicKey: new Uint8Array(await suite.kem.serializePublicKey(pair.publicKey)),
  };
}

/**
 * Seals a message to an X25519 public key, with a new encapsulation each time.
 *
 * @param publicKey 32 bytes
 * @throws KeysteadError `seal/bad-key` for a key of another length, or one of the points whose shared secret is zero
 * @example
 * const { enc, ciphertext } = await seal(recipientPublicKey, plaintext, { info, aad: digest });
 */
export async function seal(publicKey: Uint8Array, plaintext: Uint8Array, context: SealContext): Promise<Sealed> {
  const copy = own(plaintext);
  try {
    const recipientPublicKey = await suite.kem.deserializePublicKey(own(publicKey));
    const sender = await suite.createSenderContext({ recipientPublicKey, info: own(context.info) });
    const ciphertext = await sender.seal(copy, own(context.aad));
    return { enc: new Uint8Array(sender.enc), ciphertext: new Uint8Array(ciphertext) };
  } catch (cause) {
    throw new KeysteadError("seal/bad-key", "nothing can be sealed to this X25519 public key", {
      argument: "publicKey",
      remedy: "Give the 32 bytes of a key pair that was made at random.",
      cause,
    });
  } finally {
    copy.fill(0);
  }
}

/**
 * Opens a message with an X25519 private key.
 *
 * @throws KeysteadError `seal/not-opened`, without saying why: another key, other context, altered bytes
 * @example
 * const plaintext = await open(privateKey, sealed, { info, aad: digest });
 */
export async function open(privateKey: Uint8Array, sealed: Sealed, context: SealContext): Promise<Uint8Array> {
  const copy = own(privateKey);
  try {
    const recipientKey = await suite.kem.deserializePrivateKey(copy);
    const recipient = await suite.createRecipientContext({
      recipientKey,
      enc: own(sealed.enc),
      info: own(context.info),
    });
    return new Uint8Array(await recipient.open(own(sealed.ciphertext), own(context.aad)));
  } catch (cause) {
    throw new KeysteadError("seal/not-opened", "the sealed message does not open with this key and context", {
      argument: "sealed",
      remedy: "Check that it was sealed to this key, for this purpose, and was not altered.",
      cause,
    });
  } finally {
    copy.fill(0);
  }
}
