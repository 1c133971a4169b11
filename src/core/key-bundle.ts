import { utf8ToBytes } from "@noble/hashes/utils.js";
import { concatBytes, decodeUtf8, fromHex, type Hex, joinBytes, toHex } from "./bytes.ts";
import { KeysteadError } from "./errors.ts";
import { type DeploymentId, encodeUint } from "./release.ts";

/*
 * What is inside a sealed answer, binary so that both sides can wipe it: keys of a service, or root secrets.
 *
 *   keys   "KSK1" ‖ chainId 32 ‖ registry 20 ‖ serviceId 20 ‖ keyEpoch 2 ‖ count 4 ‖ count × (rootEpoch 2 ‖ keyEpoch 2 ‖ n 1 ‖ purpose n ‖ m 1 ‖ key m)
 *   roots  "KSR1" ‖ chainId 32 ‖ registry 20 ‖ count 2 ‖ count × (rootEpoch 2 ‖ secret 32)
 */

/** Purposes for which every answer has a key. */
export const STANDARD_PURPOSES = ["disk", "env", "identity-k256", "application"] as const;
/** What a purpose's name may be. `env` is the X25519 key to which secrets are sealed, `identity-k256` a secp256k1 key; others are 32 random-looking bytes. */
export const PURPOSE_PATTERN: RegExp = /^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$/;
/** Key epochs in one answer: the newest ones. */
export const MAX_EPOCHS = 1024;

/** One key. */
export interface ReleasedKey {
  /** Which of the KMS's root secrets it comes from. */
  readonly rootEpoch: number;
  /** Which of the service's epochs it belongs to. */
  readonly keyEpoch: number;
  readonly purpose: string;
  readonly key: Uint8Array;
}

/** A service's keys. */
export interface KeyBundle extends DeploymentId {
  readonly serviceId: Hex;
  /** The current epoch. */
  readonly keyEpoch: number;
  /** For every epoch from the current one down (at most {@link MAX_EPOCHS}), every root epoch and every purpose. */
  readonly keys: readonly ReleasedKey[];
}

/** The KMS's root secrets. */
export interface RootBundle extends DeploymentId {
  readonly roots: readonly { readonly rootEpoch: number; readonly secret: Uint8Array }[];
}

const KEYS_MAGIC = utf8ToBytes("KSK1");
const ROOTS_MAGIC = utf8ToBytes("KSR1");

/**
 * Writes a service's keys. The caller wipes the result.
 *
 * @throws KeysteadError `number/out-of-range`, `hex/malformed`
 * @example
 * const plaintext = encodeKeyBundle(bundle);
 */
export function encodeKeyBundle(bundle: KeyBundle): Uint8Array {
  const { chainId, registry, serviceId, keyEpoch, keys } = bundle;
  const head = [
    KEYS_MAGIC,
    encodeUint(chainId, 32),
    fromHex(registry, "registry"),
    fromHex(serviceId, "serviceId"),
    encodeUint(keyEpoch, 2),
    encodeUint(keys.length, 4),
  ];
  const each = keys.flatMap(({ rootEpoch, keyEpoch: epoch, purpose, key }) => [
    encodeUint(rootEpoch, 2),
    encodeUint(epoch, 2),
    encodeUint(purpose.length, 1),
    utf8ToBytes(purpose),
    encodeUint(key.length, 1),
    key,
  ]);
  return joinBytes([...head, ...each]);
}

/**
 * Reads what {@link encodeKeyBundle} wrote. The keys are views into `bytes`: wiping it wipes them.
 *
 * @throws KeysteadError `bundle/malformed`
 * @example
 * const disk = parseKeyBundle(plaintext).keys.find(({ purpose }) => purpose === "disk");
 */
export function parseKeyBundle(bytes: Uint8Array): KeyBundle {
  const read = reader(bytes, KEYS_MAGIC);
  const chainId = read.bigint(32);
  const registry = toHex(read.bytes(20));
  const serviceId = toHex(read.bytes(20));
  const keyEpoch = read.number(2);
  const keys: ReleasedKey[] = [];
  for (let left = read.number(4); left > 0; left -= 1) {
    const rootEpoch = read.number(2);
    const epoch = read.number(2);
    const purpose = decodeUtf8(read.bytes(read.number(1)), "purpose");
    if (!PURPOSE_PATTERN.test(purpose)) throw malformed("a purpose has a name that none may have");
    keys.push({ rootEpoch, keyEpoch: epoch, purpose, key: read.bytes(read.number(1)) });
  }
  read.end();
  return { chainId, registry, serviceId, keyEpoch, keys };
}

/**
 * Writes root secrets. The caller wipes the result.
 *
 * @throws KeysteadError `number/out-of-range`, `hex/malformed`
 * @example
 * const plaintext = encodeRootBundle({ chainId, registry, roots });
 */
export function encodeRootBundle({ chainId, registry, roots }: RootBundle): Uint8Array {
  return concatBytes(
    ROOTS_MAGIC,
    encodeUint(chainId, 32),
    fromHex(registry, "registry"),
    encodeUint(roots.length, 2),
    ...roots.flatMap(({ rootEpoch, secret }) => [encodeUint(rootEpoch, 2), secret]),
  );
}

/**
 * Reads what {@link encodeRootBundle} wrote. The secrets are views into `bytes`.
 *
 * @throws KeysteadError `bundle/malformed`
 * @example
 * const { roots } = parseRootBundle(plaintext);
 */
export function parseRootBundle(bytes: Uint8Array): RootBundle {
  const read = reader(bytes, ROOTS_MAGIC);
  const chainId = read.bigint(32);
  const registry = toHex(read.bytes(20));
  const count = read.number(2);
  const roots = Array.from({ length: count }, () => ({ rootEpoch: read.number(2), secret: read.bytes(32) }));
  read.end();
  return { chainId, registry, roots };
}

const malformed = (why: string) =>
  new KeysteadError("bundle/malformed", `the opened answer is malformed: ${why}`, {
    argument: "bundle",
    remedy: "Use versions of node and agent that fit each other.",
  });

/** Reads from the front; what is not there is an error, and so is what is left. */
function reader(all: Uint8Array, magic: Uint8Array) {
  let at = 0;
  const bytes = (length: number): Uint8Array => {
    if (at + length > all.length) throw malformed(`it ends after ${all.length} bytes`);
    at += length;
    return all.subarray(at - length, at);
  };
  const bigint = (length: number) => BigInt(toHex(bytes(length)));
  if (toHex(bytes(magic.length)) !== toHex(magic)) throw malformed("it does not begin as this version's answers do");
  return {
    bytes,
    bigint,
    number: (length: number) => Number(bigint(length)),
    end: () => {
      if (at !== all.length) throw malformed(`${all.length - at} bytes follow its end`);
    },
  };
}
