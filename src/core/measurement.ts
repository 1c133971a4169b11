import type { Hex } from "./bytes.ts";
import { KeysteadError } from "./errors.ts";
import {
  checkImage,
  encodeImage,
  formatImage,
  IMAGE_KINDS,
  type Image,
  type ImageUse,
  imageId,
  type TeeKind,
} from "./image.ts";

/**
 * Where a register's value is from: `computed` here from the source, `read` in evidence or a statement that says so, or looked up in a `table`
 * of known platforms.
 */
export type Provenance = "computed" | "read" | "table";

/** A file (or standard input) that a measurement was made from. */
export interface MeasurementSource {
  /** As the user named it. */
  readonly name: string;
  /** SHA-256 of its exact bytes. */
  readonly sha256: Hex;
  /** Its length in bytes. */
  readonly bytes: number;
}

/** One register, and how its value was come by. */
export interface MeasuredRegister {
  /** At the register's natural width. */
  readonly value: Hex;
  readonly how: Provenance;
  readonly source: MeasurementSource;
  /** How the value follows from the source: a formula, an offset, a table's row. */
  readonly formula: string;
}

/** Something about a measurement that its reader must know. `unsafe`: a machine like this must not get keys. */
export interface Finding {
  /** Stable, e.g. `evidence/debug`. */
  readonly code: string;
  readonly severity: "unsafe" | "warning";
  readonly message: string;
}

/** What an input says about a machine or an image, register by register. */
export interface Measurement {
  readonly kind: TeeKind;
  /** The reader that made it, e.g. `quote`. */
  readonly input: string;
  /** By the names of the image's register table; not every register need be there. */
  readonly registers: Readonly<Record<string, MeasuredRegister>>;
  /** What else the input says, for people: name → value. */
  readonly facts: Readonly<Record<string, string>>;
  readonly sources: readonly MeasurementSource[];
  readonly findings: readonly Finding[];
  /** What was taken from the input and not checked, one sentence each. */
  readonly unchecked: readonly string[];
}

/**
 * The registers that an image gets unless others are chosen, where the input has them. Everything that describes what runs is in; what another
 * rule judges, or what differs between machines of one image, is out:
 *
 * - TDX: rtmr0 (firmware configuration and ACPI tables, which the host supplies) is in: it makes one image per VM size. mr_seam and
 *   mr_signer_seam (the TDX module) are the TCB policy's to judge; mr_config_id, mr_owner and mr_owner_config are the host's free text.
 * - SEV-SNP: host_data is in, since launch configuration may be bound to it alone; the id-block registers name a signer, not a workload.
 * - Nitro: pcr3 (IAM role) and pcr4 (instance) differ between accounts and machines, pcr8 names a signer; the enclave itself extends pcr16 and above,
 *   and where applications share a base image one of those is what tells them apart.
 * - dstack: mr_system and mr_aggregated follow from VM size and the other two.
 */
export const DEFAULT_REGISTERS: Readonly<Record<TeeKind, Readonly<Record<"service" | "platform", readonly string[]>>>> =
  {
    tdx: {
      service: ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"],
      platform: ["mrtd", "rtmr0", "rtmr1", "rtmr2"],
    },
    snp: { service: ["measurement", "host_data"], platform: ["measurement"] },
    nitro: { service: ["pcr0", "pcr1", "pcr2"], platform: ["pcr1"] },
    dstack: { service: ["os_image_hash", "compose_hash"], platform: ["os_image_hash"] },
  };

/**
 * Nitro PCRs whose meaning AWS defines: 0 to 2 are in every image, 3 (IAM role), 4 (instance) and 8 (signer) do not say what runs. Every other one that is
 * not zero was extended by what runs in the enclave.
 */
const DEFINED_PCRS: ReadonlySet<string> = new Set(["pcr0", "pcr1", "pcr2", "pcr3", "pcr4", "pcr8"]);

/**
 * Registers that hold something, that nothing but the machine's own software gives a meaning, and that an image does not name. Applications on a shared
 * base image differ there alone: an image without them is that of all of these applications.
 *
 * @param named the image's registers
 * @returns names, e.g. `["pcr16"]`
 * @example
 * unnamedRegisters("nitro", registerValues(measurement), ["pcr0", "pcr1", "pcr2"]);
 */
export function unnamedRegisters(
  kind: TeeKind,
  values: Readonly<Record<string, Hex>>,
  named: readonly string[],
): readonly string[] {
  if (kind !== "nitro") return [];
  return Object.entries(values)
    .filter(([name, value]) => !DEFINED_PCRS.has(name) && !named.includes(name) && /[^0]/.test(value.slice(2)))
    .map(([name]) => name);
}

/** Registers to add to, or leave out of, the default choice. */
export interface RegisterChoice {
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
}

/** A canonical image in all its spellings, and what it leaves open. */
export interface BuiltImage {
  readonly image: Image;
  readonly bytes: Uint8Array;
  readonly id: Hex;
  readonly text: string;
  /** Registers of the kind that the image leaves out and that therefore match anything. */
  readonly omitted: readonly { readonly name: string; readonly why: "not-chosen" | "not-measured" }[];
}

/**
 * Builds the canonical image of some registers for a use: the defaults of {@link DEFAULT_REGISTERS}, more or fewer by `choice`.
 *
 * @throws KeysteadError `measure/unknown-register`, `measure/register-not-measured` (one asked for by name is not in the input),
 * `measure/register-required` (one left out by name is required), and everything that `checkImage` says, e.g. `image/missing-registers`
 * where the input lacks a required register and `image/zero-register` for debug evidence
 * @example
 * buildImage("nitro", { pcr0, pcr1, pcr2, pcr8 }, "service", { include: ["pcr8"] }).text;
 */
export function buildImage(
  kind: TeeKind,
  values: Readonly<Record<string, Hex>>,
  use: ImageUse,
  choice: RegisterChoice = {},
): BuiltImage {
  const spec = IMAGE_KINDS[kind];
  const include = choice.include ?? [];
  const exclude = choice.exclude ?? [];
  for (const name of [...include, ...exclude]) {
    if (spec.registers.some((known) => known.name === name)) continue;
    throw new KeysteadError("measure/unknown-register", `${kind} has no register ${JSON.stringify(name)}`, {
      argument: "register",
      remedy: `Use ${spec.registers.map((known) => known.name).join(", ")}.`,
      details: { kind, name },
    });
  }
  const absent = include.find((name) => !Object.hasOwn(values, name));
  if (absent !== undefined) {
    throw new KeysteadError("measure/register-not-measured", `the input does not say what ${absent} is`, {
      argument: "include",
      remedy: "Leave it out, or measure an input that has it.",
      details: { kind, name: absent },
    });
  }
  const required = exclude.find((name) => spec.required[use].includes(name));
  if (required !== undefined) {
    throw new KeysteadError(
      "measure/register-required",
      `a ${kind} image for use as ${use} cannot leave out ${required}`,
      {
        argument: "exclude",
        remedy: `Leave out others only: ${spec.required[use].join(", ")} are required.`,
        details: { kind, name: required },
      },
    );
  }
  const defaults = DEFAULT_REGISTERS[kind][use === "platform" ? "platform" : "service"];
  const registers: Record<string, Hex> = {};
  const omitted: BuiltImage["omitted"][number][] = [];
  for (const { name } of spec.registers) {
    const wanted = (defaults.includes(name) || include.includes(name)) && !exclude.includes(name);
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    if (wanted && value !== undefined) registers[name] = value;
    else omitted.push({ name, why: wanted ? "not-measured" : "not-chosen" });
  }
  const image: Image = { kind, registers };
  const bytes = encodeImage(image);
  checkImage(bytes, use);
  return { image, bytes, id: imageId(bytes), text: formatImage(image), omitted };
}

/**
 * The registers that a platform image leaves out when its user leaves `exclude` out of the service image: the same, but for those that a platform
 * must have.
 *
 * @example
 * platformExclude("tdx", ["rtmr0"]); // ["rtmr0"]: one image for every VM size
 */
export function platformExclude(kind: TeeKind, exclude: readonly string[]): readonly string[] {
  return exclude.filter((name) => !IMAGE_KINDS[kind].required.platform.includes(name));
}

/**
 * The plain register values of a measurement, as {@link buildImage} takes them.
 *
 * @example
 * buildImage(measurement.kind, registerValues(measurement), "service");
 */
export function registerValues(measurement: Measurement): Readonly<Record<string, Hex>> {
  return Object.fromEntries(Object.entries(measurement.registers).map(([name, { value }]) => [name, value]));
}

/**
 * Whether anything found makes a machine like this unfit to get keys.
 *
 * @example
 * if (isUnsafe(measurement)) process.exitCode = 1;
 */
export function isUnsafe(measurement: Measurement): boolean {
  return measurement.findings.some(({ severity }) => severity === "unsafe");
}
