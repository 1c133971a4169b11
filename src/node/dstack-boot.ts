import { createHash } from "node:crypto";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from "../core/json.ts";
import { NO_DEVICE } from "./facts.ts";

/*
 * What dstack-kms posts to /bootAuth/app and /bootAuth/kms, release by release (dstack, kms/src/main_service/upgrade_authority.rs at each tag):
 *
 *   0.5.4, 0.5.5        no variant: TDX alone. Registers and the event log beside; the aggregates are made of them
 *   0.5.6 to 0.5.16     `attestationMode`, no registers
 *   0.6.0               `teeVariant` in its place
 *   0.6.4 and later     key epochs and launch tickets, whose bodies are not published yet: whatever names one is denied
 *
 * Read as auth-eth reads it (its server's schema): six fields are required, hashes are hex of any case with or without `0x`, and empty is zero. One
 * difference: auth-eth pads a short value on the left, where it may match another one. Here a short value is denied.
 */

/** The machines that dstack-kms knows, by their names in `teeVariant` and `attestationMode`. */
export const TEE_VARIANTS = [
  "dstack-tdx",
  "dstack-gcp-tdx",
  "dstack-nitro-enclave",
  "dstack-amd-sev-snp",
  "dstack-aws-nitro-tpm",
] as const;

/** A machine as dstack-kms describes it, checked. Empty hashes are zeros, as DstackAuth takes them. */
export interface BootInfo {
  /** Undefined if the request names none, as before 0.5.6. */
  readonly teeVariant: (typeof TEE_VARIANTS)[number] | undefined;
  readonly appId: Hex;
  readonly composeHash: Hex;
  /** Zeros where what was given is the same for many machines: no device list can mean it. */
  readonly deviceId: Hex;
  readonly mrAggregated: Hex;
  readonly mrSystem: Hex;
  readonly osImageHash: Hex;
  readonly tcbStatus: string;
  /** Why such a request is denied whatever the chain says, as a sentence in ASCII; undefined: it is the chain's to say. */
  readonly denied: string | undefined;
}

/** auth-eth's limits. */
const MAX_TCB_STATUS = 128;
const MAX_ADVISORIES = 128;
const MAX_ADVISORY = 256;

const sha256 = (bytes: Uint8Array | string): Hex => toHex(createHash("sha256").update(bytes).digest());

/**
 * Device ids that many machines share: of a Nitro enclave (dstack 0.5.6 and later hash an empty string, later ones the `i` of `i-0123…`), of a PPID or a chip id
 * that is empty or all zeros (a host masks it), and of a quote header without user data (0.5.4).
 */
const SHARED_DEVICES: ReadonlySet<Hex> = new Set([
  ...["", "i"].map(sha256),
  ...[16, 20, 32, 64].map((length) => sha256(new Uint8Array(length))),
]);

/**
 * dstack-kms's request, checked. Fields that are not known decide nothing, but for those that name a key epoch or a launch ticket.
 *
 * @throws KeysteadError `dstack/bad-request` {field}; those of `parseJson`
 * @example
 * const { appId, denied } = parseBootInfo(body);
 */
export function parseBootInfo(text: string): BootInfo {
  const body = parseJson(text, "body");
  if (!isJsonObject(body)) throw badRequest("body", "is not an object");
  const short: string[] = [];
  const hash = (field: string, bytes: number, optional = false): Hex => {
    const digits = hexDigits(body, field, optional);
    if (digits.length > 2 * bytes) throw badRequest(field, `has more than ${bytes} bytes`);
    if (digits.length > 0 && digits.length < 2 * bytes) short.push(`${field} has fewer than ${bytes} bytes`);
    return toHex(fromHex(digits.padStart(2 * bytes, "0"), field));
  };
  const appId = hash("appId", 20);
  hash("instanceId", 20);
  const hashes = {
    composeHash: hash("composeHash", 32),
    osImageHash: hash("osImageHash", 32),
    mrAggregated: hash("mrAggregated", 32),
    mrSystem: hash("mrSystem", 32, true),
  };
  const variant = readVariant(body);
  const chipId = variant === "dstack-amd-sev-snp" && hexDigits(body, "deviceId").length === 128;
  // A chip id as it is, from a dstack that does not hash it: hashed, it is what dstack and this node call the device elsewhere.
  const given = chipId ? sha256(fromHex(hexDigits(body, "deviceId"), "deviceId")) : hash("deviceId", 32);
  checkAdvisories(body.advisoryIds ?? []);
  const { tcbStatus = "" } = body;
  if (typeof tcbStatus !== "string" || tcbStatus.length > MAX_TCB_STATUS) {
    throw badRequest("tcbStatus", "is not a status");
  }
  const teeVariant = TEE_VARIANTS.find((known) => known === variant);
  const unknown = variant !== undefined && teeVariant === undefined ? "TEE variant is not known" : undefined;
  return {
    teeVariant,
    appId,
    ...hashes,
    deviceId: teeVariant === "dstack-nitro-enclave" || SHARED_DEVICES.has(given) ? NO_DEVICE : given,
    tcbStatus,
    denied: beyondEpochZero(body) ?? unknown ?? short[0],
  };
}

/** `teeVariant`, or its name before 0.6.0. */
function readVariant({ teeVariant, attestationMode }: JsonObject): string | undefined {
  const variant = teeVariant ?? attestationMode;
  for (const [field, value] of Object.entries({ teeVariant, attestationMode })) {
    if (value === undefined) continue;
    if (typeof value !== "string" || value === "") throw badRequest(field, "is not the name of a TEE");
    if (value !== variant) throw badRequest(field, "contradicts teeVariant");
  }
  return variant as string | undefined;
}

/**
 * Why a request of dstack 0.6.4 or later cannot be answered here: it names a key epoch other than 0, or a launch ticket. The bodies of those releases could not
 * be read, so any field whose name speaks of either counts, however deep.
 */
function beyondEpochZero(value: JsonValue): string | undefined {
  if (isJsonArray(value)) return value.map(beyondEpochZero).find((found) => found !== undefined);
  if (!isJsonObject(value)) return undefined;
  for (const [name, part] of Object.entries(value)) {
    const found = /epoch/i.test(name) && !isNothing(part) ? "Key epochs other than 0 are not supported" : undefined;
    const ticket = /ticket/i.test(name) && !isNothing(part) ? "Launch tickets are not supported" : undefined;
    const denied = found ?? ticket ?? beyondEpochZero(part);
    if (denied !== undefined) return denied;
  }
  return undefined;
}

/** 0 as a number, as text or as hex of any width; no text; nothing. */
function isNothing(value: JsonValue): boolean {
  return value === null || value === 0 || (typeof value === "string" && /^(?:0x)?0*$/i.test(value));
}

function checkAdvisories(advisoryIds: JsonValue): void {
  const list = isJsonArray(advisoryIds) && advisoryIds.length <= MAX_ADVISORIES;
  if (list && advisoryIds.every((id) => typeof id === "string" && id.length <= MAX_ADVISORY)) return;
  throw badRequest("advisoryIds", "is not a list of advisories");
}

/** The digits of a hex field, lower-case and without `0x`. */
function hexDigits(body: JsonObject, field: string, optional = false): string {
  const text = body[field] ?? (optional && !(field in body) ? "" : undefined);
  const digits = typeof text === "string" ? /^(?:0x)?([0-9a-fA-F]*)$/.exec(text)?.[1] : undefined;
  if (digits === undefined) throw badRequest(field, "is not hex");
  return digits.toLowerCase();
}

function badRequest(field: string, why: string): KeysteadError {
  return new KeysteadError("dstack/bad-request", `${field} ${why}`, {
    argument: field,
    remedy: "Send what dstack-kms sends.",
    details: { field },
  });
}
