import { sha256 } from "@noble/hashes/sha2.js";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { concatBytes, decodeUtf8, fromHex, type Hex, toHex } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";
import { isJsonArray, isJsonObject, type JsonObject, parseJson } from "../json.ts";

/*
 * How dstack binds an app's configuration into the machine before it starts: by the TD's MR_CONFIG_ID, or by SEV-SNP's HOST_DATA.
 *
 *   version 1   MR_CONFIG_ID = 0x01 ‖ compose_hash ‖ 15 zero bytes
 *   version 2   MR_CONFIG_ID = 0x02 ‖ Keccak-256(compose_hash ‖ app_id ‖ key provider ‖ key_provider_id) ‖ 15 zero bytes; key provider: one byte,
 *               none 0, local-sgx 1, kms 2, tpm 3
 *   version 3   h = SHA-256("dstack-mr-config-v3:" ‖ 0x00 ‖ the document's exact bytes); HOST_DATA = h, MR_CONFIG_ID = 0x03 ‖ h ‖ 15 zero bytes
 *
 * Source: dstack-types/src/mr_config.rs of Dstack-TEE/dstack.
 */

/** A configuration document, version 3. Fields left out were not configured. */
export interface MrConfig {
  /** 32 bytes. */
  readonly composeHash: Hex;
  /** 20 bytes. */
  readonly appId: Hex | undefined;
  /** 20 bytes. */
  readonly instanceId: Hex | undefined;
  readonly keyProvider: string;
  readonly keyProviderId: Hex | undefined;
  /** 32 bytes. */
  readonly gpuPolicyHash: Hex | undefined;
  /** 32 bytes each. */
  readonly initScriptHashes: readonly Hex[] | undefined;
}

const FIELDS = new Set(["version", "app_id", "compose_hash", "instance_id", "key_provider", "key_provider_id"])
  .add("gpu_policy_hash")
  .add("init_script_hashes");

/**
 * Reads an mr-config.json, version 3. Strict: known fields only, lower-case hex of the right widths.
 *
 * @throws KeysteadError `text/not-utf8`, `json/*`, `mr-config/malformed` {field}, `mr-config/unknown-version`
 * @example
 * parseMrConfig(bytes).composeHash; // "0x86e59625…"
 */
export function parseMrConfig(bytes: Uint8Array): MrConfig {
  const value = parseJson(decodeUtf8(bytes, "mr-config"), "mr-config");
  if (!isJsonObject(value)) throw malformed("mr-config", "is not an object");
  if (value.version !== 3) {
    throw new KeysteadError("mr-config/unknown-version", "the configuration document is not of version 3", {
      argument: "mr-config",
      remedy: "Give the document of a machine that binds version 3, as its vm-config states it.",
    });
  }
  for (const key of Object.keys(value)) if (!FIELDS.has(key)) throw malformed(key, "is not a known field");
  if (typeof value.key_provider !== "string") throw malformed("key_provider", "is not a string");
  const composeHash = hexField(value, "compose_hash", 32);
  if (composeHash === undefined) throw malformed("compose_hash", "is missing");
  const scripts = value.init_script_hashes;
  if (scripts !== undefined && !isJsonArray(scripts)) throw malformed("init_script_hashes", "is not an array");
  return {
    composeHash,
    appId: hexField(value, "app_id", 20),
    instanceId: hexField(value, "instance_id", 20),
    keyProvider: value.key_provider,
    keyProviderId: hexField(value, "key_provider_id", undefined),
    gpuPolicyHash: hexField(value, "gpu_policy_hash", 32),
    initScriptHashes: scripts?.map((script) => checkHex("init_script_hashes", script, 32)),
  };
}

/**
 * What binds a configuration document: the HOST_DATA of a SEV-SNP machine, and the middle of a TD's MR_CONFIG_ID.
 *
 * @returns 32 bytes
 * @example
 * computeMrConfigHash(bytes); // "0x783f0057…"
 */
export function computeMrConfigHash(mrConfig: Uint8Array): Hex {
  return toHex(sha256(concatBytes(new TextEncoder().encode("dstack-mr-config-v3:\0"), mrConfig)));
}

/**
 * The MR_CONFIG_ID of a TD: of version 1 with a compose hash, of version 3 with {@link computeMrConfigHash}.
 *
 * @returns 48 bytes
 * @throws KeysteadError `mr-config/malformed` unless the hash has 32 bytes
 * @example
 * encodeMrConfigId(1, composeHash); // "0x013efecc42…"
 */
export function encodeMrConfigId(version: 1 | 3, hash: Hex): Hex {
  return toHex(
    concatBytes(Uint8Array.of(version), fromHex(checkHex("hash", hash.slice(2), 32), "hash"), new Uint8Array(15)),
  );
}

/** What a version 2 MR_CONFIG_ID is made of. */
export interface MrConfigV2 {
  /** 32 bytes. */
  readonly composeHash: Hex;
  /** 20 bytes. */
  readonly appId: Hex;
  /** As the key-provider event names it: `none`, `local-sgx`, `kms` or `tpm`. */
  readonly keyProvider: string;
  /** Any length; `0x`: none. */
  readonly keyProviderId: Hex;
}

/** By their numbers (dstack-types, KeyProviderKind). */
const PROVIDERS: readonly string[] = ["none", "local-sgx", "kms", "tpm"];

/**
 * The MR_CONFIG_ID of a TD, version 2: of dstack 0.5 where the key provider has an id.
 *
 * @returns 48 bytes; undefined if the key provider is not one that dstack numbers
 * @example
 * encodeMrConfigIdV2({ composeHash, appId, keyProvider: "kms", keyProviderId }); // "0x02…"
 */
export function encodeMrConfigIdV2({ composeHash, appId, keyProvider, keyProviderId }: MrConfigV2): Hex | undefined {
  const provider = PROVIDERS.indexOf(keyProvider);
  if (provider === -1) return undefined;
  const parts = [composeHash, appId].map((hash) => fromHex(hash, "hash"));
  const digest = keccak_256(concatBytes(...parts, Uint8Array.of(provider), fromHex(keyProviderId, "key_provider_id")));
  return toHex(concatBytes(Uint8Array.of(2), digest, new Uint8Array(15)));
}

/**
 * Checks that a machine was started with a configuration document.
 *
 * @param bytes the document's exact bytes
 * @param registers of the machine: `host_data` (SEV-SNP) or `mr_config_id` (TDX)
 * @throws KeysteadError `mr-config/not-bound` {register, expected, actual}; `mr-config/malformed` where no such register is given
 * @example
 * verifyMrConfig(bytes, snpRegisters(report));
 */
export function verifyMrConfig(bytes: Uint8Array, registers: Readonly<Record<string, Hex>>): void {
  const hash = computeMrConfigHash(bytes);
  const [register, expected] =
    registers.host_data === undefined
      ? (["mr_config_id", encodeMrConfigId(3, hash)] as const)
      : (["host_data", hash] as const);
  const actual = registers[register];
  if (actual === undefined) throw malformed(register, "is not among the machine's registers");
  if (actual !== expected) {
    throw new KeysteadError("mr-config/not-bound", `${register} of the machine is not of this configuration document`, {
      argument: "mr-config",
      remedy: "Give the document of that machine, byte for byte; otherwise distrust it.",
      details: { register, expected, actual },
    });
  }
}

function hexField(object: JsonObject, field: string, width: number | undefined): Hex | undefined {
  const value = object[field];
  return value === undefined ? undefined : checkHex(field, value, width);
}

function checkHex(field: string, value: unknown, width: number | undefined): Hex {
  if (typeof value !== "string" || !/^[0-9a-f]*$/.test(value) || value.length % 2 !== 0 || value === "") {
    throw malformed(field, "is not lower-case hex");
  }
  if (width !== undefined && value.length !== 2 * width) throw malformed(field, `has not ${width} bytes`);
  return `0x${value}`;
}

function malformed(field: string, why: string): KeysteadError {
  return new KeysteadError("mr-config/malformed", `${field} ${why}`, {
    argument: field,
    remedy: "Give mr-config.json as dstack wrote it.",
    details: { field },
  });
}
