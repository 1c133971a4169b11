import { utf8ToBytes } from "@noble/hashes/utils.js";
import { concatBytes, fromHex, type Hex, toHex } from "./bytes.ts";
import { KeysteadError } from "./errors.ts";
import { type DeploymentId, encodeParts, encodeUint } from "./release.ts";
import { open, type Sealed, seal, X25519_BYTES } from "./seal.ts";

/*
 * Environment secrets: what `publishSealedSecrets` and `addSecretKeyByImage` carry. Sealed to a service's environment key (`/v1/secrets-key/:service`),
 * opened in the machine with the key for the purpose `env` of the same epochs.
 *
 *   "KSS1" ‖ rootEpoch 2 ‖ keyEpoch 2 ‖ enc 32 ‖ ciphertext (plaintext + 16)
 *
 * Service, chain, registry, name and both epochs are in the `aad`: a ciphertext moved to another service, name or deployment does not open.
 */

/** HPKE `info` of environment secrets. */
export const SECRETS_INFO = "keystead/v1/secrets";

const MAGIC = utf8ToBytes("KSS1");
const HEAD_BYTES = MAGIC.length + 4;

/** Where a ciphertext belongs. */
export interface SecretsContext extends DeploymentId {
  readonly serviceId: Hex;
  /** The name it is published under; empty for the secrets of a service that is not upgradeable. */
  readonly name: string;
}

/** Which keys a ciphertext was sealed to. */
export interface SecretsEpochs {
  readonly rootEpoch: number;
  readonly keyEpoch: number;
}

function secretsSealContext(context: SecretsContext, { rootEpoch, keyEpoch }: SecretsEpochs) {
  const aad = encodeParts(
    utf8ToBytes("secrets"),
    encodeUint(context.chainId, 32),
    fromHex(context.registry, "registry"),
    fromHex(context.serviceId, "serviceId"),
    utf8ToBytes(context.name),
    encodeUint(rootEpoch, 2),
    encodeUint(keyEpoch, 2),
  );
  return { info: utf8ToBytes(SECRETS_INFO), aad };
}

/**
 * Seals secrets to a service's environment key.
 *
 * @param key the X25519 public key with its epochs, checked to be the node's
 * @throws KeysteadError `seal/bad-key`, `number/out-of-range`, `hex/malformed`
 * @example
 * const ciphertext = await sealSecrets(utf8ToBytes("A=1\n"), key, { chainId, registry, serviceId, name: "env" });
 */
export async function sealSecrets(
  plaintext: Uint8Array,
  key: SecretsEpochs & { readonly publicKey: Uint8Array },
  context: SecretsContext,
): Promise<Uint8Array> {
  const { enc, ciphertext } = await seal(key.publicKey, plaintext, secretsSealContext(context, key));
  return concatBytes(MAGIC, encodeUint(key.rootEpoch, 2), encodeUint(key.keyEpoch, 2), enc, ciphertext);
}

/**
 * Reads which epochs' key opens a ciphertext, and its parts.
 *
 * @throws KeysteadError `secrets/malformed`
 * @example
 * const { rootEpoch, keyEpoch } = parseSealedSecrets(bytes);
 */
export function parseSealedSecrets(bytes: Uint8Array): SecretsEpochs & Sealed {
  if (bytes.length < HEAD_BYTES + X25519_BYTES + 16 || toHex(bytes.subarray(0, MAGIC.length)) !== toHex(MAGIC)) {
    throw new KeysteadError("secrets/malformed", "these bytes are no sealed secrets of this version", {
      argument: "ciphertext",
      remedy: "Give the bytes that sealing wrote, whole.",
    });
  }
  const number = (offset: number) => Number(toHex(bytes.subarray(offset, offset + 2)));
  return {
    rootEpoch: number(MAGIC.length),
    keyEpoch: number(MAGIC.length + 2),
    enc: bytes.slice(HEAD_BYTES, HEAD_BYTES + X25519_BYTES),
    ciphertext: bytes.slice(HEAD_BYTES + X25519_BYTES),
  };
}

/**
 * Opens secrets with the `env` key of the epochs that they name.
 *
 * @throws KeysteadError `secrets/malformed`, `seal/not-opened`
 * @example
 * const plaintext = await openSecrets(bytes, envKey, { chainId, registry, serviceId, name: "env" });
 */
export async function openSecrets(
  bytes: Uint8Array,
  privateKey: Uint8Array,
  context: SecretsContext,
): Promise<Uint8Array> {
  const sealed = parseSealedSecrets(bytes);
  return await open(privateKey, sealed, secretsSealContext(context, sealed));
}
