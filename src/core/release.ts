import { secp256k1 } from "@noble/curves/secp256k1.js";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { utf8ToBytes } from "@noble/hashes/utils.js";
import { concatBytes, fromHex, type Hex, toHex } from "./bytes.ts";
import { KeysteadError } from "./errors.ts";

/*
 * The release protocol, version 1, as far as both sides share it: what receipts say and how they are signed. What evidence is bound to is in binding.ts, what travels in
 * release-wire.ts, what is sealed in key-bundle.ts and sealed-secrets.ts.
 */

/** The protocol's name and version, as `/v1/info` gives it. */
export const RELEASE_PROTOCOL = "keystead/v1";
/** HPKE `info` of a service's keys; the `aad` is the receipt's digest. */
export const RELEASE_INFO = "keystead/v1/release";
/** HPKE `info` of the root secrets that a second node receives; the `aad` is the receipt's digest. */
export const ROOT_INFO = "keystead/v1/root";
/** Stands for "the KMS itself" where evidence names a service: no service has this id. */
export const KMS_SUBJECT: Hex = `0x${"00".repeat(20)}`;

/**
 * Joins parts so that no two different lists give the same bytes: each part after its length, four bytes, big-endian. `enc` of the protocol.
 *
 * @example
 * encodeParts(utf8ToBytes("ab"), Uint8Array.of(1)); // 00000002 6162 00000001 01
 */
export function encodeParts(...parts: readonly Uint8Array[]): Uint8Array {
  return concatBytes(...parts.flatMap((part) => [encodeUint(part.length, 4), part]));
}

/**
 * An unsigned number in `bytes` bytes, big-endian.
 *
 * @throws KeysteadError `number/out-of-range` {value, bytes}
 * @example
 * encodeUint(258, 2); // Uint8Array [1, 2]
 */
export function encodeUint(value: number | bigint, bytes: number): Uint8Array {
  const number = BigInt(value);
  const digits = number.toString(16).padStart(2 * bytes, "0");
  if (number < 0n || digits.length > 2 * bytes) {
    throw new KeysteadError("number/out-of-range", `${value} does not fit ${bytes} bytes`, {
      remedy: "Give a number that is not negative and fits.",
      details: { value: String(value), bytes },
    });
  }
  return fromHex(digits, "number");
}

/** The deployment that a key, a receipt or a ciphertext belongs to. */
export interface DeploymentId {
  readonly chainId: bigint;
  /** The registry's proxy, 20 bytes in hex. */
  readonly registry: Hex;
}

/** What a receipt says of a release of a service's keys. */
export interface KeyRelease {
  readonly serviceId: Hex;
  readonly imageId: Hex;
  readonly platformId: Hex;
  /** The current epoch: keys were released from this one down. */
  readonly keyEpoch: number;
  /** keccak-256 of the quote, report or document, binary. */
  readonly evidenceHash: Hex;
  /** keccak-256 of the X25519 public key that the keys are sealed to. */
  readonly recipientKeyHash: Hex;
  /** The block at which the chain was asked. */
  readonly blockNumber: bigint;
  readonly blockHash: Hex;
  /** The service's history head in that block. */
  readonly historyHead: Hex;
  readonly policyVersion: bigint;
  /** Seconds since 1970. */
  readonly issuedAt: bigint;
}

/** What a receipt says of the root secrets' way to another node. */
export interface RootRelease {
  readonly imageId: Hex;
  readonly platformId: Hex;
  /** The newest root epoch: all that the node held were released. */
  readonly rootEpoch: number;
  readonly evidenceHash: Hex;
  readonly recipientKeyHash: Hex;
  readonly blockNumber: bigint;
  readonly blockHash: Hex;
  /** The policy's history head in that block. */
  readonly policyHead: Hex;
  readonly policyVersion: bigint;
  /** Seconds since 1970. */
  readonly issuedAt: bigint;
}

/** The public key to which a service's environment secrets are sealed. */
export interface SecretsKey {
  readonly serviceId: Hex;
  readonly rootEpoch: number;
  readonly keyEpoch: number;
  /** X25519, 32 bytes. */
  readonly publicKey: Hex;
}

/** The structs that a node signs, as EIP-712 types. */
export const SIGNED_TYPES = {
  KeyRelease: [
    { name: "serviceId", type: "bytes20" },
    { name: "imageId", type: "bytes32" },
    { name: "platformId", type: "bytes32" },
    { name: "keyEpoch", type: "uint16" },
    { name: "evidenceHash", type: "bytes32" },
    { name: "recipientKeyHash", type: "bytes32" },
    { name: "blockNumber", type: "uint64" },
    { name: "blockHash", type: "bytes32" },
    { name: "historyHead", type: "bytes32" },
    { name: "policyVersion", type: "uint64" },
    { name: "issuedAt", type: "uint64" },
  ],
  RootRelease: [
    { name: "imageId", type: "bytes32" },
    { name: "platformId", type: "bytes32" },
    { name: "rootEpoch", type: "uint16" },
    { name: "evidenceHash", type: "bytes32" },
    { name: "recipientKeyHash", type: "bytes32" },
    { name: "blockNumber", type: "uint64" },
    { name: "blockHash", type: "bytes32" },
    { name: "policyHead", type: "bytes32" },
    { name: "policyVersion", type: "uint64" },
    { name: "issuedAt", type: "uint64" },
  ],
  SecretsKey: [
    { name: "serviceId", type: "bytes20" },
    { name: "rootEpoch", type: "uint16" },
    { name: "keyEpoch", type: "uint16" },
    { name: "publicKey", type: "bytes32" },
  ],
} as const satisfies Readonly<Record<string, readonly { readonly name: string; readonly type: string }[]>>;

/** What each type's values are. */
export interface SignedMessages {
  readonly KeyRelease: KeyRelease;
  readonly RootRelease: RootRelease;
  readonly SecretsKey: SecretsKey;
}
/** The name of one of {@link SIGNED_TYPES}. */
export type SignedType = keyof SignedMessages;

/** Where and by what sort of node something was signed. */
export interface SigningContext extends DeploymentId {
  /** Whether the node takes evidence under test roots. It signs in another domain then, so such a receipt never passes for a real one. */
  readonly testTee: boolean;
}

/** The EIP-712 domain's version. */
export const DOMAIN_VERSION = "1";

/**
 * The EIP-712 domain: `Keystead`, version 1, the chain and the registry; `Keystead TEST TEE` where test roots are taken.
 *
 * @example
 * new ethers.TypedDataEncoder({ KeyRelease: [...SIGNED_TYPES.KeyRelease] }); // hash(…) with this domain gives the same digest
 */
export function buildDomain({ chainId, registry, testTee }: SigningContext): {
  readonly name: string;
  readonly version: string;
  readonly chainId: bigint;
  readonly verifyingContract: Hex;
} {
  const name = testTee ? "Keystead TEST TEE" : "Keystead";
  return { name, version: DOMAIN_VERSION, chainId, verifyingContract: registry };
}

const hashText = (text: string) => keccak_256(utf8ToBytes(text));
const DOMAIN_TYPE = hashText("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
const TYPE_HASHES = new Map<string, Uint8Array>(
  Object.entries(SIGNED_TYPES).map(([name, fields]) => [
    name,
    hashText(`${name}(${fields.map((field) => `${field.type} ${field.name}`).join(",")})`),
  ]),
);

/**
 * The 32 bytes that a node signs (EIP-712). A receipt's digest is also the `aad` of what it was given for.
 *
 * @throws KeysteadError `receipt/malformed` {field} where a value does not have its type
 * @example
 * hashSigned("KeyRelease", release, { chainId: 1n, registry, testTee: false });
 */
export function hashSigned<T extends SignedType>(
  type: T,
  message: SignedMessages[T],
  context: SigningContext,
): Uint8Array {
  const domainHash = hashDomain(context);
  const values = new Map<string, unknown>(Object.entries(message));
  const words = SIGNED_TYPES[type].map((field) => encodeField(field.name, field.type, values.get(field.name)));
  const struct = keccak_256(concatBytes(TYPE_HASHES.get(type) ?? new Uint8Array(0), ...words));
  return keccak_256(concatBytes(Uint8Array.of(0x19, 0x01), domainHash, struct));
}

let latestDomain: { readonly key: string; readonly hash: Uint8Array } | undefined;

/** The domain's hash. The latest is kept: a node signs in one domain alone. */
function hashDomain(context: SigningContext): Uint8Array {
  const { name, version, chainId, verifyingContract } = buildDomain(context);
  const key = `${name}/${version}/${chainId}/${verifyingContract}`;
  if (latestDomain?.key === key) return latestDomain.hash;
  const hash = keccak_256(
    concatBytes(
      DOMAIN_TYPE,
      hashText(name),
      hashText(version),
      encodeUint(chainId, 32),
      encodeField("verifyingContract", "address", verifyingContract),
    ),
  );
  latestDomain = { key, hash };
  return hash;
}

/** Begins what is signed of a sealed answer: unlike EIP-712's first byte, and unlike every receipt. */
const SEALING_LABEL = utf8ToBytes("keystead/v1/sealing");

/**
 * The 32 bytes that a node signs of a sealed answer: keccak-256 of enc("keystead/v1/sealing", receipt digest, encapsulated key). HPKE's base mode does not
 * say who sealed: anybody can, to a public key and under a digest that stand in the request and in the receipt. Only whoever made the encapsulated key, and
 * the recipient, know the secret that a ciphertext under it opens with; so a signature of it is one of the ciphertext.
 *
 * @param receiptDigest 32 bytes; chain, registry and kind of node are in it
 * @param enc 32 bytes
 * @example
 * const sealedBy = recoverSigner(hashSealing(digest, fromHex(sealed.enc, "enc")), sealed.signature);
 */
export function hashSealing(receiptDigest: Uint8Array, enc: Uint8Array): Uint8Array {
  return keccak_256(encodeParts(SEALING_LABEL, receiptDigest, enc));
}

/** One value in 32 bytes: fixed bytes at the left, numbers and addresses at the right. */
function encodeField(name: string, type: string, value: unknown): Uint8Array {
  const [, kind = "", size = ""] = /^(uint|bytes|address)(\d*)$/.exec(type) ?? [];
  const width = kind === "uint" ? Number(size) / 8 : kind === "address" ? 20 : Number(size);
  if (kind === "uint" && (typeof value === "bigint" || typeof value === "number")) {
    encodeUint(value, width);
    return encodeUint(value, 32);
  }
  if (kind !== "uint" && typeof value === "string" && /^0x[0-9a-f]*$/.test(value) && value.length === 2 + 2 * width) {
    const word = new Uint8Array(32);
    word.set(fromHex(value, name), kind === "address" ? 32 - width : 0);
    return word;
  }
  throw new KeysteadError("receipt/malformed", `${name} is not a ${type}`, {
    argument: name,
    remedy: "Give lower-case hex of the type's width, or a number.",
    details: { field: name, type },
  });
}

/**
 * The Ethereum address of a secp256k1 public key.
 *
 * @param publicKey compressed or not
 * @example
 * addressOf(secp256k1.getPublicKey(privateKey)); // "0x…", 20 bytes, lower-case
 */
export function addressOf(publicKey: Uint8Array): Hex {
  const point = secp256k1.Point.fromBytes(publicKey).toBytes(false);
  return toHex(keccak_256(point.subarray(1)).subarray(12));
}

/**
 * Who signed a digest: the address recovered from a signature r ‖ s ‖ v (65 bytes, v 27 or 28, s in the lower half).
 *
 * @throws KeysteadError `receipt/bad-signature`
 * @example
 * if (recoverSigner(hashSigned("KeyRelease", release, context), signature) !== published.receiptSigner) …
 */
export function recoverSigner(digest: Uint8Array, signature: Hex): Hex {
  const bad = (cause?: unknown) =>
    new KeysteadError("receipt/bad-signature", "the signature is not one of secp256k1 over this digest", {
      argument: "signature",
      remedy: "Refuse what it stands under.",
      cause,
    });
  const bytes = fromHex(signature, "signature");
  const v = bytes[64];
  if (bytes.length !== 65 || (v !== 27 && v !== 28)) throw bad();
  try {
    const parsed = secp256k1.Signature.fromBytes(bytes.subarray(0, 64), "compact");
    if (parsed.hasHighS()) throw bad();
    return addressOf(
      parsed
        .addRecoveryBit(v - 27)
        .recoverPublicKey(digest)
        .toBytes(true),
    );
  } catch (cause) {
    throw bad(cause);
  }
}

/**
 * keccak-256, as receipts use it for evidence and public keys.
 *
 * @example
 * const evidenceHash = hashForReceipt(quote);
 */
export function hashForReceipt(bytes: Uint8Array): Hex {
  return toHex(keccak_256(bytes));
}
