import { fromHex, type Hex, toHex } from "../../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../../core/errors.ts";
import { computeOsImageHash, parseChecksumFile, parseDigestFile } from "../../../core/evidence/dstack.ts";
import { isJsonObject, type JsonObject, parseJson } from "../../../core/json.ts";
import type { MeasuredRegister, MeasurementSource, Provenance } from "../../../core/measurement.ts";
import { type InputFile, type Io, inputFile } from "../../io.ts";
import type { ReaderArguments, ReaderOption } from "./reader.ts";

/** No compose file, app.json, event log or platform table is larger: real ones are under 100 KB. */
export const TEXT_LIMIT = 4 * 1024 * 1024;
/** Kernels, initial RAM disks and archives. */
export const BLOB_LIMIT = 512 * 1024 * 1024;

/** Options that say which dstack OS image a machine boots. */
export const OS_IMAGE_OPTIONS: readonly ReaderOption[] = [
  { flags: "--os-image <file>", description: "the dstack OS image's sha256sum.txt or digest.txt" },
  { flags: "--os-image-hash <hex>", description: "the dstack OS image's hash, where no file is at hand" },
];

/** The event log of a running machine, beside what else is known of it. */
export const EVENT_LOG_OPTION: ReaderOption = {
  flags: "--event-log <file>",
  description: "the machine's event log, to replay against RTMR3 and to read the compose hash from",
};

/**
 * An option's text; undefined where it was not given.
 *
 * @example
 * const size = textOption(options, "size");
 */
export function textOption(options: ReaderArguments["options"], name: string): string | undefined {
  const value = options[name];
  return typeof value === "string" ? value : undefined;
}

/**
 * The bytes of an option in hex.
 *
 * @throws KeysteadError `hex/malformed`, `measure/option-width` unless it has `width` bytes
 * @example
 * hexOption(options, "rootfs", "--rootfs", 32);
 */
export function hexOption(
  options: ReaderArguments["options"],
  name: string,
  flag: string,
  width: number,
): Uint8Array | undefined {
  const text = textOption(options, name);
  if (text === undefined) return undefined;
  const bytes = fromHex(text, flag);
  if (bytes.length === width) return bytes;
  throw new KeysteadError("measure/option-width", `${flag} has ${bytes.length} bytes, not ${width}`, {
    argument: flag,
    remedy: `Give ${2 * width} hex digits.`,
  });
}

/**
 * The error for an option that an input cannot be measured without.
 *
 * @example
 * throw missingOption("--vcpus", "the number of virtual CPUs");
 */
export function missingOption(flag: string, what: string): KeysteadError {
  return new KeysteadError("measure/missing-option", `${flag} is needed: ${what}`, {
    argument: flag,
    remedy: `Add ${flag}.`,
  });
}

/**
 * A file that may be absent.
 *
 * @throws KeysteadError as `io.readFile`, but for `input/not-found`
 * @example
 * const prelaunch = await readOptional(io, "prelaunch.sh", "prelaunch_script");
 */
export async function readOptional(io: Io, name: string, argument: string): Promise<InputFile | undefined> {
  try {
    return await io.readFile(name, { limit: TEXT_LIMIT, argument });
  } catch (error) {
    if (isKeysteadError(error, "input/not-found")) return undefined;
    throw error;
  }
}

/** A value from the command line as a source of its own, so that provenance names it. */
export function optionSource(flag: string, value: string): MeasurementSource {
  return inputFile(flag, new TextEncoder().encode(value)).source;
}

/** One register with where it is from. */
export function measured(value: Hex, how: Provenance, source: MeasurementSource, formula: string): MeasuredRegister {
  return { value, how, source, formula };
}

/** A dstack OS image as the options name it. */
export interface OsImage {
  readonly register: MeasuredRegister;
  readonly unchecked: readonly string[];
}

/**
 * The OS image hash that the options give: computed from sha256sum.txt, read from digest.txt, or stated.
 *
 * @throws KeysteadError as `io.readFile`; `dstack/checksum-file`; `measure/two-os-images` where file and hash disagree
 * @example
 * const osImage = await readOsImage(io, options);
 */
export async function readOsImage(io: Io, options: ReaderArguments["options"]): Promise<OsImage | undefined> {
  const stated = hexOption(options, "osImageHash", "--os-image-hash", 32);
  const name = textOption(options, "osImage");
  const found = name === undefined ? undefined : await readOsImageFile(io, name);
  if (stated === undefined) return found;
  const value = toHex(stated);
  if (found !== undefined) {
    if (found.register.value === value) return found;
    throw new KeysteadError("measure/two-os-images", `${name} and --os-image-hash name different images`, {
      argument: "--os-image-hash",
      remedy: "Give one of the two, or find out which image is meant.",
      details: { file: found.register.value, stated: value },
    });
  }
  return {
    register: measured(value, "read", optionSource("--os-image-hash", value), "stated on the command line"),
    unchecked: ["That the stated OS image hash is of the image that the machine boots: give its sha256sum.txt."],
  };
}

async function readOsImageFile(io: Io, name: string): Promise<OsImage> {
  const file = await io.readFile(name, { limit: TEXT_LIMIT, argument: "--os-image" });
  try {
    return {
      register: measured(parseDigestFile(file.bytes), "read", file.source, "the digest that the file states"),
      unchecked: [`That ${name} belongs to the OS image: give the image's sha256sum.txt to have the hash computed.`],
    };
  } catch (error) {
    if (!isKeysteadError(error, "dstack/digest-file")) throw error;
  }
  parseChecksumFile(file.bytes);
  return {
    register: measured(computeOsImageHash(file.bytes), "computed", file.source, "SHA-256 of sha256sum.txt"),
    unchecked: [`That the OS image's files have the checksums that ${name} lists (sha256sum -c).`],
  };
}

/**
 * A file as a JSON object, for telling what it is; undefined where it is something else.
 *
 * @example
 * detect: (file) => jsonObject(file)?.manifest_version !== undefined
 */
export function jsonObject(file: InputFile): JsonObject | undefined {
  if (file.bytes.length > TEXT_LIMIT || file.bytes[0] !== 0x7b) return undefined;
  try {
    const value = parseJson(new TextDecoder().decode(file.bytes), file.name);
    return isJsonObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
