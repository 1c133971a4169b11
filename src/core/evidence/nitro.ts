import { equalBytes, fromHex, type Hex, isZero, toHex } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";
import { NITRO_PCRS } from "../image.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from "../json.ts";
import type { Finding } from "../measurement.ts";
import { type CborMap, type CborValue, decodeCbor } from "./cbor.ts";

/*
 * AWS Nitro Enclaves: the attestation document (COSE_Sign1, RFC 9052, over a CBOR map) with the fields and bounds of AWS's "Attestation process"
 * specification, and the PCR JSON of nitro-cli.
 */

/** The protected header that every document has: algorithm ES384, nothing else. */
const PROTECTED = Uint8Array.of(0xa1, 0x01, 0x38, 0x22);
const SIGNATURE_BYTES = 96;
const PCR_BYTES = 48;
const MAX_PCRS = NITRO_PCRS;
/** Several times what the Nitro Security Module can return (12 KiB); bounds what decoding may allocate. */
const MAX_DOCUMENT_BYTES = 65_536;
const FIELDS: ReadonlySet<string> = new Set([
  "module_id",
  "digest",
  "timestamp",
  "pcrs",
  "certificate",
  "cabundle",
  "public_key",
  "user_data",
  "nonce",
]);

/** A parsed attestation document. Parsing says what it claims; whether the Nitro hypervisor signed it is a verifier's to say. */
export interface NitroDocument {
  readonly moduleId: string;
  readonly digest: "SHA384";
  /** Milliseconds since 1970, as the document says. */
  readonly timestampMs: bigint;
  /** PCR index → 48 bytes, ascending. */
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
  /** The leaf certificate, DER. */
  readonly certificate: Uint8Array;
  /** The chain from the root down to the leaf's issuer, DER. */
  readonly caBundle: readonly Uint8Array[];
  readonly publicKey: Uint8Array | undefined;
  readonly userData: Uint8Array | undefined;
  readonly nonce: Uint8Array | undefined;
  /** The protected header as signed. */
  readonly protected: Uint8Array;
  /** The payload as signed. */
  readonly payload: Uint8Array;
  /** ECDSA P-384, r ‖ s. */
  readonly signature: Uint8Array;
  /** Whether PCR0 is all zeros, which marks an enclave in debug mode. */
  readonly debug: boolean;
}

const refuse = (code: string, message: string, details: Readonly<Record<string, unknown>> = {}) =>
  new KeysteadError(`nitro/${code}`, message, {
    argument: "document",
    remedy: "Give the attestation document as the Nitro Security Module returned it, in binary, hex or base64.",
    details,
  });

/**
 * Reads an AWS Nitro attestation document: one untagged COSE_Sign1 in strict CBOR, with known fields only. The payload's own map
 * may be of indefinite length, as in documents written since mid-2025 (before: definite); nothing else may.
 *
 * @throws KeysteadError `nitro/too-large`, `nitro/not-cose-sign1`, `nitro/tagged`, `nitro/unknown-algorithm`, `nitro/unprotected-header`, `nitro/signature-length`,
 * `nitro/unknown-field` {field}, `nitro/bad-field` {field}, and those of `decodeCbor`
 * @example
 * parseNitroDocument(bytes).pcrs.get(0);
 */
export function parseNitroDocument(bytes: Uint8Array): NitroDocument {
  if (bytes.length > MAX_DOCUMENT_BYTES) {
    throw refuse("too-large", `no document has ${bytes.length} bytes`, {
      bytes: bytes.length,
      limit: MAX_DOCUMENT_BYTES,
    });
  }
  if (bytes[0] === 0xd2)
    throw refuse("tagged", "the COSE_Sign1 carries a CBOR tag, which the Nitro Security Module does not write");
  const cose = decodeCbor(bytes, "document");
  if (!Array.isArray(cose) || cose.length !== 4)
    throw refuse("not-cose-sign1", "this is not a COSE_Sign1: an array of four");
  const [protectedHeader, unprotected, payload, signature]: readonly (CborValue | undefined)[] = cose;
  if (
    !(protectedHeader instanceof Uint8Array) ||
    !(payload instanceof Uint8Array) ||
    !(signature instanceof Uint8Array)
  ) {
    throw refuse("not-cose-sign1", "protected header, payload and signature must be byte strings");
  }
  if (!equalBytes(protectedHeader, PROTECTED)) {
    throw refuse("unknown-algorithm", "the protected header is not exactly the algorithm ES384", {
      header: toHex(protectedHeader),
    });
  }
  if (!(unprotected instanceof Map) || unprotected.size !== 0) {
    throw refuse("unprotected-header", "the unprotected header must be an empty map");
  }
  if (signature.length !== SIGNATURE_BYTES) {
    throw refuse(
      "signature-length",
      `an ES384 signature has ${SIGNATURE_BYTES} bytes and this has ${signature.length}`,
      {
        expected: SIGNATURE_BYTES,
        actual: signature.length,
      },
    );
  }
  const fields = decodeCbor(payload, "document payload", "indefinite-map");
  if (!(fields instanceof Map)) throw refuse("bad-field", "the payload is not a map", { field: "payload" });
  const map: CborMap = fields;
  for (const key of map.keys()) {
    if (typeof key !== "string" || !FIELDS.has(key)) {
      throw refuse("unknown-field", `the payload has the unknown field ${JSON.stringify(String(key))}`, {
        field: String(key),
      });
    }
  }
  const pcrs = readPcrs(map.get("pcrs"));
  const pcr0 = pcrs.get(0);
  return {
    moduleId: readText(map, "module_id"),
    digest: readDigest(map),
    timestampMs: readTimestamp(map),
    pcrs,
    certificate: readBytes(map.get("certificate"), "certificate", 1, 1024),
    caBundle: readBundle(map.get("cabundle")),
    publicKey: readOptional(map, "public_key", 1, 1024),
    userData: readOptional(map, "user_data", 0, 512),
    nonce: readOptional(map, "nonce", 0, 512),
    protected: protectedHeader,
    payload,
    signature,
    debug: pcr0 !== undefined && isZero(pcr0),
  };
}

const badField = (field: string, what: string) => refuse("bad-field", `the payload's ${field} ${what}`, { field });

function readText(map: CborMap, field: string): string {
  const value = map.get(field);
  if (typeof value !== "string" || value === "") throw badField(field, "is not a text");
  return value;
}

function readDigest(map: CborMap): "SHA384" {
  if (map.get("digest") !== "SHA384") throw badField("digest", "is not SHA384");
  return "SHA384";
}

function readTimestamp(map: CborMap): bigint {
  const value = map.get("timestamp");
  if (typeof value !== "bigint" || value <= 0n) throw badField("timestamp", "is not a positive integer");
  return value;
}

function readBytes(value: CborValue | undefined, field: string, least: number, most: number): Uint8Array {
  if (!(value instanceof Uint8Array) || value.length < least || value.length > most) {
    throw badField(field, `is not a byte string of ${least} to ${most} bytes`);
  }
  return value;
}

function readOptional(map: CborMap, field: string, least: number, most: number): Uint8Array | undefined {
  const value = map.get(field);
  return value === undefined || value === null ? undefined : readBytes(value, field, least, most);
}

function readBundle(value: CborValue | undefined): readonly Uint8Array[] {
  if (!Array.isArray(value) || value.length === 0) throw badField("cabundle", "is not a list of certificates");
  const items: readonly CborValue[] = value;
  return items.map((item) => readBytes(item, "cabundle", 1, 1024));
}

function readPcrs(value: CborValue | undefined): ReadonlyMap<number, Uint8Array> {
  if (!(value instanceof Map) || value.size === 0 || value.size > MAX_PCRS) {
    throw badField("pcrs", `is not a map of 1 to ${MAX_PCRS} registers`);
  }
  const map: CborMap = value;
  const entries: [number, Uint8Array][] = [];
  for (const [key, pcr] of map) {
    if (typeof key !== "bigint" || key < 0n || key >= BigInt(MAX_PCRS))
      throw badField("pcrs", `has the index ${String(key)}`);
    entries.push([Number(key), readBytes(pcr, `pcrs[${key}]`, PCR_BYTES, PCR_BYTES)]);
  }
  return new Map(entries.sort(([a], [b]) => a - b));
}

/** What `nitro-cli build-enclave` or `describe-eif` says about an enclave image file. */
export interface NitroPcrs {
  /** PCR index → 48 bytes, ascending. */
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
  /** What nitro-cli calls its hash, where it says. */
  readonly hashAlgorithm: string | undefined;
  /** Whether text before the JSON (nitro-cli's progress lines) was passed over. */
  readonly skippedText: boolean;
  /** Whether these are an enclave's that runs in debug mode: its documents will hold zeros, and not these PCRs. */
  readonly debugMode: boolean;
}

/**
 * Reads the JSON that nitro-cli prints: of `build-enclave` and `describe-eif` an object with `Measurements`, of `describe-enclaves` an array of such
 * objects, one a running enclave; or the value of `Measurements` itself. Progress lines before it, as in a captured terminal, are passed over.
 *
 * @throws KeysteadError `nitro/no-measurements`, `nitro/several-enclaves` {names}, `nitro/bad-pcr` {name}, `nitro/unknown-hash`, and those of `parseJson`
 * @example
 * parseNitroPcrs('{"Measurements":{"PCR0":"…","PCR1":"…","PCR2":"…"}}').pcrs.get(2);
 */
export function parseNitroPcrs(text: string): NitroPcrs {
  const start = /^[ \t]*(?:\{|\[\s*[{\]])/m.exec(text)?.index ?? 0;
  const value = onlyEnclave(parseJson(text.slice(start), "PCR file"));
  const found = isJsonObject(value) && isJsonObject(value.Measurements) ? value.Measurements : value;
  const names = isJsonObject(found) ? Object.keys(found).filter((name) => /^PCR[0-9]+$/.test(name)) : [];
  if (!isJsonObject(found) || names.length === 0) {
    throw new KeysteadError("nitro/no-measurements", "the JSON has no Measurements with PCR0, PCR1, …", {
      argument: "PCR file",
      remedy: "Give what nitro-cli build-enclave or nitro-cli describe-eif printed.",
    });
  }
  const measurements: JsonObject = found;
  const algorithm = measurements.HashAlgorithm;
  if (algorithm !== undefined && !(typeof algorithm === "string" && /^sha384\b/i.test(algorithm))) {
    throw new KeysteadError("nitro/unknown-hash", `HashAlgorithm is not Sha384 but ${JSON.stringify(algorithm)}`, {
      argument: "PCR file",
      remedy: "Build the enclave image with SHA-384, nitro-cli's default.",
    });
  }
  const entries = names.map((name): [number, Uint8Array] => {
    const index = Number(name.slice(3));
    const hex = measurements[name];
    if (name !== `PCR${index}` || index >= MAX_PCRS || typeof hex !== "string" || !/^[0-9a-fA-F]{96}$/.test(hex)) {
      throw new KeysteadError("nitro/bad-pcr", `${name} is not a register of ${PCR_BYTES} bytes in hex`, {
        argument: "PCR file",
        remedy: `Give PCR0 to PCR${MAX_PCRS - 1} as ${2 * PCR_BYTES} hex digits each.`,
        details: { name },
      });
    }
    return [index, fromHex(hex, name)];
  });
  return {
    pcrs: new Map(entries.sort(([a], [b]) => a - b)),
    hashAlgorithm: typeof algorithm === "string" ? algorithm : undefined,
    skippedText: text.slice(0, start).trim() !== "",
    debugMode: isJsonObject(value) && hasDebugFlag(value.Flags),
  };
}

/** `describe-enclaves` prints the machine's enclaves as an array; which of several is meant, nothing in it says. */
function onlyEnclave(value: JsonValue): JsonValue {
  if (!isJsonArray(value) || value.length === 0) return value;
  const [only, ...others] = value;
  if (only !== undefined && others.length === 0) return only;
  const names = value.map((enclave, index) => {
    const { EnclaveName: name, EnclaveID: id } = isJsonObject(enclave) ? enclave : {};
    return typeof name === "string" ? name : typeof id === "string" ? id : `number ${index}`;
  });
  throw new KeysteadError("nitro/several-enclaves", `there are ${value.length} enclaves: ${names.join(", ")}`, {
    argument: "PCR file",
    remedy: "Give the object of the one that is meant, or what nitro-cli describe-eif prints of its image.",
    details: { names },
  });
}

/** One flag, or several with a separator or in a list. */
function hasDebugFlag(flags: JsonValue | undefined): boolean {
  const texts = isJsonArray(flags) ? flags : [flags];
  return texts.some((text) => typeof text === "string" && /\bDEBUG_MODE\b/.test(text));
}

/**
 * PCRs by their names in the image's register table: all 32.
 *
 * @example
 * buildImage("nitro", nitroRegisters(document), "service", { include: ["pcr8"] });
 */
export function nitroRegisters({
  pcrs,
}: {
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
}): Readonly<Record<string, Hex>> {
  const registers: Record<string, Hex> = {};
  for (let index = 0; index < MAX_PCRS; index += 1) {
    const value = pcrs.get(index);
    if (value !== undefined) registers[`pcr${index}`] = toHex(value);
  }
  return registers;
}

/**
 * What is wrong or unusual with the enclave that PCRs describe.
 *
 * @example
 * nitroFindings(document).some(({ code }) => code === "evidence/debug");
 */
export function nitroFindings({
  pcrs,
  debugMode = false,
}: {
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
  readonly debugMode?: boolean;
}): readonly Finding[] {
  if (debugMode) {
    const message =
      "DEBUG: nitro-cli says DEBUG_MODE: the host can read this enclave, and its documents hold zeros, not the PCRs that are printed here";
    return [{ code: "evidence/debug", severity: "unsafe", message }];
  }
  const zero = [0, 1, 2].filter((index) => {
    const value = pcrs.get(index);
    return value !== undefined && isZero(value);
  });
  if (zero.length === 0) return [];
  return [
    {
      code: "evidence/debug",
      severity: "unsafe",
      message: `DEBUG: ${zero.map((index) => `PCR${index}`).join(", ")} all zeros: an enclave in debug mode, whose console and memory the host can read`,
    },
  ];
}
