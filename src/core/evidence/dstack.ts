import { sha256 } from "@noble/hashes/sha2.js";
import { concatBytes, decodeUtf8, fromHex, type Hex, isZero, toHex } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";

/*
 * What dstack calls an image, and the aggregates that its authorisation contracts receive.
 *
 *   compose_hash   SHA-256 of the exact bytes of app-compose.json; guests never normalise
 *   os_image_hash  SHA-256 of sha256sum.txt, which the image's digest.txt states in hex
 *   kp             SHA-256 of the key-provider event's payload, or 32 zero bytes where it is absent or empty (as at boot-mr-done)
 *
 * Source: dstack-attest/src/attestation.rs of Dstack-TEE/dstack; the table per platform is in mr_system and mr_aggregated below.
 */

/** Registers of a TD, as dstack aggregates them, 48 bytes each. `rtmr3` is the replay up to the moment that is asked about. */
export interface TdxAggregateInputs {
  readonly variant: "tdx";
  readonly mrtd: Hex;
  readonly rtmr0: Hex;
  readonly rtmr1: Hex;
  readonly rtmr2: Hex;
  readonly rtmr3: Hex;
  readonly mrConfigId: Hex;
  readonly mrOwner: Hex;
  readonly mrOwnerConfig: Hex;
  /** Payload of the key-provider event, `0x` where there is none yet. */
  readonly keyProvider: Hex;
}

/** TDX on Google Cloud, measured through its vTPM. PCRs have 32 bytes. */
export interface GcpAggregateInputs {
  readonly variant: "gcp-tdx";
  readonly osImageHash: Hex;
  readonly pcr0: Hex;
  readonly pcr2: Hex;
  /** PCR 14 as replayed from the runtime events. */
  readonly pcr14: Hex;
  readonly keyProvider: Hex;
}

/** EC2 with NitroTPM. PCRs have 48 bytes. */
export interface NitroTpmAggregateInputs {
  readonly variant: "nitro-tpm";
  readonly pcr4: Hex;
  readonly pcr7: Hex;
  readonly pcr12: Hex;
  readonly pcr14: Hex;
  readonly keyProvider: Hex;
}

/** A Nitro Enclave. PCRs have 48 bytes. */
export interface NitroEnclaveAggregateInputs {
  readonly variant: "nitro-enclave";
  readonly pcr0: Hex;
  readonly pcr1: Hex;
  readonly pcr2: Hex;
}

/** SEV-SNP: MEASUREMENT has 48 bytes, HOST_DATA 32. */
export interface SnpAggregateInputs {
  readonly variant: "snp";
  readonly measurement: Hex;
  readonly hostData: Hex;
}

/** What mr_system and mr_aggregated are made of, per platform. */
export type AggregateInputs =
  | TdxAggregateInputs
  | GcpAggregateInputs
  | NitroTpmAggregateInputs
  | NitroEnclaveAggregateInputs
  | SnpAggregateInputs;

/** dstack's aggregates, 32 bytes each. */
export interface Aggregates {
  readonly mrSystem: Hex;
  readonly mrAggregated: Hex;
}

/**
 * mr_system (platform and key provider) and mr_aggregated (everything measured so far):
 *
 * | variant | mr_system | mr_aggregated |
 * |---|---|---|
 * | tdx | mrtd ‖ rtmr0 ‖ rtmr1 ‖ rtmr2 ‖ kp | mrtd ‖ rtmr0 … rtmr3 [‖ mr_config_id ‖ mr_owner ‖ mr_owner_config, if any is not zero] |
 * | gcp-tdx | os_image_hash ‖ kp | pcr0 ‖ pcr2 ‖ pcr14 |
 * | nitro-tpm | pcr4 ‖ pcr7 ‖ pcr12 ‖ kp | pcr4 ‖ pcr7 ‖ pcr12 ‖ pcr14 |
 * | nitro-enclave | pcr0 ‖ pcr1 ‖ pcr2 | the same |
 * | snp | measurement | measurement ‖ host_data |
 *
 * each the SHA-256 of the bytes joined.
 *
 * @throws KeysteadError `dstack/register-width` {register, expected, actual}
 * @example
 * computeAggregates({ variant: "snp", measurement, hostData }).mrAggregated;
 */
export function computeAggregates(inputs: AggregateInputs): Aggregates {
  switch (inputs.variant) {
    case "tdx": {
      const registers = widths(48, inputs, ["mrtd", "rtmr0", "rtmr1", "rtmr2"]);
      const [rtmr3] = widths(48, inputs, ["rtmr3"]);
      const config = widths(48, inputs, ["mrConfigId", "mrOwner", "mrOwnerConfig"]);
      return {
        mrSystem: hash(...registers, keyProviderHash(inputs.keyProvider)),
        mrAggregated: hash(...registers, ...(rtmr3 ? [rtmr3] : []), ...(config.every(isZero) ? [] : config)),
      };
    }
    case "gcp-tdx": {
      const image = widths(32, inputs, ["osImageHash"]);
      return {
        mrSystem: hash(...image, keyProviderHash(inputs.keyProvider)),
        mrAggregated: hash(...widths(32, inputs, ["pcr0", "pcr2", "pcr14"])),
      };
    }
    case "nitro-tpm": {
      const boot = widths(48, inputs, ["pcr4", "pcr7", "pcr12"]);
      return {
        mrSystem: hash(...boot, keyProviderHash(inputs.keyProvider)),
        mrAggregated: hash(...boot, ...widths(48, inputs, ["pcr14"])),
      };
    }
    case "nitro-enclave": {
      const both = hash(...widths(48, inputs, ["pcr0", "pcr1", "pcr2"]));
      return { mrSystem: both, mrAggregated: both };
    }
    case "snp": {
      const measurement = widths(48, inputs, ["measurement"]);
      return {
        mrSystem: hash(...measurement),
        mrAggregated: hash(...measurement, ...widths(32, inputs, ["hostData"])),
      };
    }
  }
}

/**
 * The compose hash of an app-compose.json: SHA-256 of its exact bytes.
 *
 * @returns 32 bytes
 * @example
 * computeComposeHash(bytes); // "0x3efecc42…"
 */
export function computeComposeHash(appCompose: Uint8Array): Hex {
  return toHex(sha256(appCompose));
}

/**
 * The OS image hash of a dstack image: SHA-256 of its sha256sum.txt.
 *
 * @returns 32 bytes
 * @example
 * computeOsImageHash(bytes);
 */
export function computeOsImageHash(sha256sum: Uint8Array): Hex {
  return toHex(sha256(sha256sum));
}

/**
 * Reads an image's digest.txt: 64 hex digits, and at most white space around them.
 *
 * @returns the OS image hash, 32 bytes
 * @throws KeysteadError `text/not-utf8`, `dstack/digest-file`
 * @example
 * parseDigestFile(bytes); // "0x14ad42d0…"
 */
export function parseDigestFile(bytes: Uint8Array): Hex {
  const text = decodeUtf8(bytes, "digest.txt").trim();
  if (!/^[0-9a-fA-F]{64}$/.test(text)) {
    throw new KeysteadError("dstack/digest-file", "digest.txt does not hold 64 hex digits", {
      argument: "digest.txt",
      remedy: "Give the digest.txt of the dstack OS image, or its sha256sum.txt.",
    });
  }
  return toHex(fromHex(text, "digest.txt"));
}

/** One line of a sha256sum.txt. */
export interface ChecksumLine {
  readonly sha256: Hex;
  readonly name: string;
}

/**
 * Reads a sha256sum.txt as the tool of that name writes it: `HEX  NAME` or `HEX *NAME` a line.
 *
 * @throws KeysteadError `text/not-utf8`, `dstack/checksum-file` {line}
 * @example
 * parseChecksumFile(bytes).find(({ name }) => name === "rootfs.img.verity");
 */
export function parseChecksumFile(bytes: Uint8Array): readonly ChecksumLine[] {
  const lines = decodeUtf8(bytes, "sha256sum.txt").split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines.map((text, index) => {
    const digest = text.slice(0, 64);
    const name = text.slice(66);
    const separator = text.slice(64, 66);
    if (!/^[0-9a-f]{64}$/.test(digest) || (separator !== "  " && separator !== " *") || name === "") {
      throw new KeysteadError("dstack/checksum-file", `sha256sum.txt is malformed at line ${index + 1}`, {
        argument: "sha256sum.txt",
        remedy: "Give the sha256sum.txt of the dstack OS image, unchanged.",
        details: { line: index + 1 },
      });
    }
    return { sha256: toHex(fromHex(digest, "sha256sum.txt")), name };
  });
}

/** Values of `dstack-cloud status`, or of any text that states them a line each. */
export interface StatusValues {
  /** Name as in {@link STATUS_NAMES} → value. */
  readonly values: Readonly<Record<string, Hex>>;
  /** Line of each, from 1. */
  readonly lines: Readonly<Record<string, number>>;
}

/** Names that a status line may start with, and the width of their values in bytes. */
export const STATUS_NAMES: Readonly<Record<string, number>> = {
  MRTD: 48,
  RTMR0: 48,
  RTMR1: 48,
  RTMR2: 48,
  RTMR3: 48,
  OS_IMAGE_HASH: 32,
  COMPOSE_HASH: 32,
  MR_AGGREGATED: 32,
  MR_SYSTEM: 32,
};

/**
 * Reads the measurement lines among what a status command prints: `RTMR3: HEX`, `OS_IMAGE_HASH = HEX`, in either case, with or without `0x`,
 * terminal colours and log prefixes. Lines with other names are passed over; a line that has a known name must have a value of its width, and
 * two lines of one name must agree.
 *
 * @throws KeysteadError `text/not-utf8`, `dstack/status-value` {name, line}, `dstack/status-conflict` {name, line}, `dstack/status-empty`,
 * `dstack/status-too-large`
 * @example
 * parseStatus(bytes).values.OS_IMAGE_HASH;
 */
export function parseStatus(bytes: Uint8Array): StatusValues {
  const values: Record<string, Hex> = {};
  const lines: Record<string, number> = {};
  if (bytes.length > MAX_STATUS_BYTES) {
    throw new KeysteadError("dstack/status-too-large", `the status has ${bytes.length} bytes`, {
      argument: "status",
      remedy: `Give what the command printed, at most ${MAX_STATUS_BYTES} bytes.`,
    });
  }
  const text = stripColours(decodeUtf8(bytes, "status"));
  for (const [index, line] of text.split("\n").entries()) {
    const found = statusLine(line);
    if (found === undefined) continue;
    const [name, width, digits] = found;
    const at = index + 1;
    const bare = digits.startsWith("0x") ? digits.slice(2) : digits;
    if (bare.length !== 2 * width || !/^[0-9a-fA-F]*$/.test(bare)) {
      throw new KeysteadError("dstack/status-value", `line ${at} gives ${name} no value of ${width} bytes in hex`, {
        argument: "status",
        remedy: "Copy the whole line; wrapped or shortened values cannot be used.",
        details: { name, line: at },
      });
    }
    const value = toHex(fromHex(bare, name));
    if (values[name] !== undefined && values[name] !== value) {
      throw new KeysteadError(
        "dstack/status-conflict",
        `line ${at} gives ${name} another value than line ${lines[name]}`,
        {
          argument: "status",
          remedy: "Give the status of one machine.",
          details: { name, line: at },
        },
      );
    }
    values[name] = value;
    lines[name] ??= at;
  }
  if (Object.keys(values).length === 0) {
    throw new KeysteadError("dstack/status-empty", "the text states no measurement", {
      argument: "status",
      remedy: `Give lines that start with one of ${Object.keys(STATUS_NAMES).join(", ")}.`,
    });
  }
  return { values, lines };
}

/** A line's known name, its width and what follows; undefined where the line is about something else. */
function statusLine(line: string): [string, number, string] | undefined {
  if (line.length > MAX_STATUS_LINE) return undefined;
  const [, spelling, stated, word] = STATUS_LINE.exec(line.trimEnd()) ?? [];
  if (spelling === undefined) return undefined;
  const name = spelling.toUpperCase().replace(/[ -]/g, "_");
  const width = STATUS_NAMES[name];
  const value = (stated ?? word ?? "").replace(/,$/, "").replace(/^(["'])(.*)\1$/, "$2");
  return width === undefined ? undefined : [name, width, value];
}

/**
 * A name at the start, or after white space, a quote or a list's dash. After a colon or an equals sign everything is its value; after a space
 * alone, one word to the line's end is (so that prose about a register is not taken for its value).
 */
const STATUS_LINE = new RegExp(
  `(?:^|[\\s"'-])(${Object.keys(STATUS_NAMES).join("|").replaceAll("_", "[_ -]")})["']?(?:\\s*[:=]\\s*(.*)|\\s+(\\S+))$`,
  "i",
);
const MAX_STATUS_LINE = 512;
const MAX_STATUS_BYTES = 1024 * 1024;
const ESCAPE = String.fromCharCode(0x1b);

/** Text without the escape sequences that colour it (ECMA-48 SGR). */
function stripColours(text: string): string {
  const [first = "", ...rest] = text.split(`${ESCAPE}[`);
  return first + rest.map((part) => part.replace(/^[0-9;]*m/, "")).join("");
}

function keyProviderHash(payload: Hex): Uint8Array {
  const bytes = fromHex(payload, "keyProvider");
  return bytes.length === 0 ? new Uint8Array(32) : sha256(bytes);
}

function hash(...parts: readonly Uint8Array[]): Hex {
  return toHex(sha256(concatBytes(...parts)));
}

function widths<K extends string>(
  width: number,
  inputs: Readonly<Record<K, Hex>>,
  names: readonly K[],
): readonly Uint8Array[] {
  return names.map((name) => {
    const bytes = fromHex(inputs[name], name);
    requireWidth(name, bytes, width);
    return bytes;
  });
}

function requireWidth(register: string, bytes: Uint8Array, width: number): void {
  if (bytes.length === width) return;
  throw new KeysteadError("dstack/register-width", `${register} has ${bytes.length} bytes, not ${width}`, {
    argument: register,
    remedy: `Give ${width} bytes.`,
    details: { register, expected: width, actual: bytes.length },
  });
}
