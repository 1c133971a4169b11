import { sha256 } from "@noble/hashes/sha2.js";
import { decodeUtf8, fromHex, type Hex, toHex } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";
import type { Image } from "../image.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from "../json.ts";
import { computeEventDigest, extendRegister } from "./event-log.ts";
import { computeLaunchDigest, readLaunchInputs } from "./snp-launch.ts";

/*
 * SecretVM (SCRT Labs): what a docker-compose file becomes on a machine of a published image.
 *
 * On TDX the workload is RTMR3, extended by the initial RAM disk in one of two ways, by which key service the machine uses:
 *   extends       pad48(SHA-256(compose)), pad48(rootfs_data), [pad48(SHA-256(docker-files archive))]
 *   dstack-events app-id, compose-hash, os-image-hash, [docker-files-hash] as dstack v1 events
 * The other registers depend on image version, environment, VM size and host, and are looked up in the publisher's table (tdx.csv).
 * On SEV-SNP everything is in the launch digest: kernel, initrd and a command line that carries the compose and rootfs hashes (sev.json).
 *
 * Rows may share MRTD and RTMR0 to 2, prod and dev ones too: only rootfs_data, thus RTMR3, tells them apart.
 */

/** One row of tdx.csv. */
export interface TdxPlatform {
  /** VM size (template_name), e.g. `small`. */
  readonly size: string;
  /** Environment (vm_type): `prod`, `dev`, … */
  readonly environment: string;
  /** Image version (artifacts_ver), e.g. `v0.0.25`. */
  readonly version: string;
  readonly mrtd: Hex;
  readonly rtmr0: Hex;
  readonly rtmr1: Hex;
  readonly rtmr2: Hex;
  /** rootfs_data, 32 bytes. */
  readonly rootfs: Hex;
  /** host_id: hosts with equal firmware share one. */
  readonly host: string;
  /** The row's line in the file, from 1. */
  readonly line: number;
}

/** One entry of sev.json. */
export interface SnpPlatform {
  readonly environment: string;
  readonly version: string;
  /** rootfs_hash, 32 bytes, as it stands on the kernel command line. */
  readonly rootfs: Hex;
  /** What the command line has beyond the usual, e.g. `pci=realloc,nocrs`. */
  readonly cmdlineExtra: string;
  /** The entry, for the launch digest. */
  readonly entry: JsonObject;
  /** Its place in the file, from 0. */
  readonly index: number;
}

/** Which machine is meant. What is left out matches every row. */
export interface PlatformQuery {
  readonly size?: string | undefined;
  readonly environment?: string | undefined;
  readonly version?: string | undefined;
  /** A host id or the beginning of one. */
  readonly host?: string | undefined;
}

/** How RTMR3 is extended. */
export type Rtmr3Scheme =
  | { readonly scheme: "extends" }
  /** `appId`: 20 bytes. */
  | { readonly scheme: "dstack-events"; readonly appId: Uint8Array };

/** What goes into RTMR3. */
export interface Rtmr3Inputs {
  /** The exact bytes of the docker-compose file. */
  readonly compose: Uint8Array;
  /** SHA-256 of the root file system as the table states it, 32 bytes. */
  readonly rootfs: Uint8Array;
  /** SHA-256 of the archive of additional files, 32 bytes, where the machine has one. */
  readonly dockerFilesHash?: Uint8Array | undefined;
}

/** Virtual CPUs by VM size. */
export const SECRETVM_VCPUS: ReadonlyMap<string, number> = new Map([
  ["small", 1],
  ["medium", 2],
  ["large", 4],
  ["2xlarge", 8],
  ["4xlarge", 16],
]);

const TDX_COLUMNS = {
  template_name: 0,
  vm_type: 0,
  artifacts_ver: 0,
  mrtd: 48,
  rtmr0: 48,
  rtmr1: 48,
  rtmr2: 48,
  rootfs_data: 32,
  host_id: 0,
} as const;
const MAX_ROWS = 100_000;

/**
 * RTMR3 of a SecretVM machine, from the exact bytes of its compose file.
 *
 * @throws KeysteadError `secretvm/input` {field} where a hash has not 32 bytes or the app id not 20
 * @example
 * computeRtmr3({ compose, rootfs }, { scheme: "extends" }); // "0x5427…"
 */
export function computeRtmr3(inputs: Rtmr3Inputs, { scheme, ...how }: Rtmr3Scheme): Hex {
  const { rootfs, dockerFilesHash } = inputs;
  requireWidth("rootfs", rootfs, 32);
  if (dockerFilesHash !== undefined) requireWidth("docker-files hash", dockerFilesHash, 32);
  const composeHash = sha256(inputs.compose);
  let digests: readonly Uint8Array[];
  if (scheme === "extends") {
    digests = [composeHash, rootfs, ...(dockerFilesHash === undefined ? [] : [dockerFilesHash])];
  } else {
    const appId = "appId" in how ? how.appId : new Uint8Array();
    requireWidth("app id", appId, 20);
    const events: [string, Uint8Array][] = [
      ["app-id", appId],
      ["compose-hash", composeHash],
      ["os-image-hash", rootfs],
    ];
    if (dockerFilesHash !== undefined) events.push(["docker-files-hash", dockerFilesHash]);
    digests = events.map(([name, payload]) => computeEventDigest(name, payload, 1));
  }
  return toHex(digests.reduce<Uint8Array>((register, digest) => extendRegister(register, digest), new Uint8Array(48)));
}

/**
 * Reads tdx.csv: a header line naming the columns (in any order), then one row a line, without quoting. Either line ending.
 *
 * @throws KeysteadError `text/not-utf8`, `secretvm/table` {line}
 * @example
 * const table = parseTdxTable(bytes);
 */
export function parseTdxTable(bytes: Uint8Array): readonly TdxPlatform[] {
  const lines = decodeUtf8(bytes, "platform table").split("\n");
  if (lines.at(-1) === "") lines.pop();
  if (lines.length > MAX_ROWS) throw tableError(undefined, `it has more than ${MAX_ROWS} rows`);
  const header = fields(lines[0] ?? "");
  for (const name of Object.keys(TDX_COLUMNS)) {
    if (header.filter((column) => column === name).length !== 1) throw tableError(1, `it must have one column ${name}`);
  }
  return lines.slice(1).map((text, index) => {
    const line = index + 2;
    const row = fields(text);
    if (row.length !== header.length)
      throw tableError(line, `it has ${row.length} fields and the header ${header.length}`);
    const cell = (name: keyof typeof TDX_COLUMNS): string => {
      const value = row[header.indexOf(name)] ?? "";
      if (value === "" || value.includes('"')) throw tableError(line, `${name} is empty or quoted`);
      return value;
    };
    const digest = (name: "mrtd" | "rtmr0" | "rtmr1" | "rtmr2" | "rootfs_data"): Hex =>
      tableHex(cell(name), TDX_COLUMNS[name], name, line);
    return {
      size: cell("template_name"),
      environment: cell("vm_type"),
      version: cell("artifacts_ver"),
      mrtd: digest("mrtd"),
      rtmr0: digest("rtmr0"),
      rtmr1: digest("rtmr1"),
      rtmr2: digest("rtmr2"),
      rootfs: digest("rootfs_data"),
      host: cell("host_id"),
      line,
    };
  });
}

/**
 * Reads sev.json: an array of launch inputs with `vm_type`, `artifacts_ver`, `rootfs_hash` and optional `cmdline_extra`.
 *
 * @throws KeysteadError `text/not-utf8`, `json/*`, `secretvm/table` {index}
 * @example
 * const table = parseSnpTable(bytes);
 */
export function parseSnpTable(bytes: Uint8Array): readonly SnpPlatform[] {
  const value = parseJson(decodeUtf8(bytes, "platform table"), "platform table");
  if (!isJsonArray(value)) throw tableError(undefined, "it is not an array");
  if (value.length > MAX_ROWS) throw tableError(undefined, `it has more than ${MAX_ROWS} entries`);
  return value.map((entry, index) => {
    if (!isJsonObject(entry)) throw tableError(index, "it is not an object");
    const text = (key: string): string => {
      const field = entry[key];
      if (typeof field !== "string" || field === "") throw tableError(index, `${key} is not text`);
      return field;
    };
    // Refuse a damaged entry now, not when it is chosen.
    readLaunchInputs(entry, { cmdline: "", vcpus: 1 });
    return {
      environment: text("vm_type"),
      version: text("artifacts_ver"),
      rootfs: tableHex(text("rootfs_hash"), 32, "rootfs_hash", index),
      cmdlineExtra: entry.cmdline_extra === undefined ? "" : text("cmdline_extra"),
      entry,
      index,
    };
  });
}

/** Rows that a query leaves, as registers: what all of them agree on, and what they differ in. */
export interface PlatformResolution {
  readonly rows: readonly TdxPlatform[];
  readonly agreed: Readonly<Partial<Record<PlatformField, Hex>>>;
  readonly differing: readonly PlatformField[];
}

/** What a row says about a machine. */
export type PlatformField = "mrtd" | "rtmr0" | "rtmr1" | "rtmr2" | "rootfs";
const PLATFORM_FIELDS: readonly PlatformField[] = ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rootfs"];

/**
 * Finds the rows that a query means, and says in what they differ. Nothing is picked: where `differing` is not empty, one machine has not been
 * named yet.
 *
 * @throws KeysteadError `secretvm/no-such-platform` {sizes, environments, versions: what the table has}
 * @example
 * const { agreed, differing } = resolvePlatform(table, { size: "small", environment: "prod", version: "v0.0.25" });
 */
export function resolvePlatform(table: readonly TdxPlatform[], query: PlatformQuery): PlatformResolution {
  const rows = table.filter(
    (row) =>
      (query.size === undefined || row.size === query.size) &&
      (query.environment === undefined || row.environment === query.environment) &&
      (query.version === undefined || row.version === query.version) &&
      (query.host === undefined || row.host.startsWith(query.host)),
  );
  const [first] = rows;
  if (first === undefined) throw noSuchPlatform(table, query);
  const differing = PLATFORM_FIELDS.filter((field) => rows.some((row) => row[field] !== first[field]));
  const agreed = Object.fromEntries(
    PLATFORM_FIELDS.filter((field) => !differing.includes(field)).map((field) => [field, first[field]]),
  );
  return { rows, agreed, differing };
}

/** What the table says of a machine whose registers are known. */
export interface WorkloadMatch {
  /** Rows whose MRTD and RTMR0 to 2 are the machine's. */
  readonly candidates: readonly TdxPlatform[];
  /** Those of them whose root file system, with this compose file, gives the machine's RTMR3. */
  readonly matches: readonly TdxPlatform[];
}

/**
 * Looks for the rows that explain a machine's registers. No candidate: no published platform. Candidates but no match: a published platform
 * with another workload.
 *
 * @example
 * matchWorkload(table, quote.registers, { compose }, { scheme: "extends" }).matches;
 */
export function matchWorkload(
  table: readonly TdxPlatform[],
  registers: Readonly<Record<string, Hex>>,
  workload: Omit<Rtmr3Inputs, "rootfs">,
  scheme: Rtmr3Scheme,
): WorkloadMatch {
  const candidates = table.filter((row) =>
    (["mrtd", "rtmr0", "rtmr1", "rtmr2"] as const).every((name) => registers[name] === row[name]),
  );
  const matches = candidates.filter(
    (row) => computeRtmr3({ ...workload, rootfs: fromHex(row.rootfs, "rootfs") }, scheme) === registers.rtmr3,
  );
  return { candidates, matches };
}

/** A machine on SEV-SNP: its launch digest and what it was computed from. */
export interface SnpWorkload {
  readonly measurement: Hex;
  readonly cmdline: string;
  readonly vcpus: number;
}

/**
 * The launch digest of a SecretVM machine on SEV-SNP.
 *
 * @param size VM size, a key of {@link SECRETVM_VCPUS}
 * @throws KeysteadError `secretvm/unknown-size`, `secretvm/input`, and as `computeLaunchDigest`
 * @example
 * computeSnpWorkload(entry, "small", { compose }).measurement;
 */
export function computeSnpWorkload(
  platform: SnpPlatform,
  size: string,
  workload: Omit<Rtmr3Inputs, "rootfs">,
): SnpWorkload {
  const vcpus = SECRETVM_VCPUS.get(size);
  if (vcpus === undefined) {
    throw new KeysteadError("secretvm/unknown-size", `the VM size ${JSON.stringify(size)} is not known`, {
      argument: "size",
      remedy: `Use ${[...SECRETVM_VCPUS.keys()].join(", ")}.`,
      details: { size },
    });
  }
  const { dockerFilesHash } = workload;
  if (dockerFilesHash !== undefined) requireWidth("docker-files hash", dockerFilesHash, 32);
  const hex = (bytes: Uint8Array) => toHex(bytes).slice(2);
  const cmdline = [
    "console=ttyS0 loglevel=7",
    platform.cmdlineExtra,
    `docker_compose_hash=${hex(sha256(workload.compose))}`,
    `rootfs_hash=${platform.rootfs.slice(2)}`,
    dockerFilesHash === undefined ? "" : `docker_additional_files_hash=${hex(dockerFilesHash)}`,
  ]
    .filter((part) => part !== "")
    .join(" ");
  const inputs = readLaunchInputs(platform.entry, { cmdline, vcpus });
  return { measurement: toHex(computeLaunchDigest(inputs)), cmdline, vcpus };
}

/**
 * Picks the entry of sev.json that a query means.
 *
 * @throws KeysteadError `secretvm/no-such-platform`, `secretvm/ambiguous-platform` {candidates}
 * @example
 * resolveSnpPlatform(table, { environment: "prod", version: "v0.0.25" });
 */
export function resolveSnpPlatform(table: readonly SnpPlatform[], query: PlatformQuery): SnpPlatform {
  const found = table.filter(
    (row) =>
      (query.environment === undefined || row.environment === query.environment) &&
      (query.version === undefined || row.version === query.version),
  );
  const [first, second] = found;
  if (first === undefined) throw noSuchPlatform(table, query);
  if (second !== undefined) {
    throw new KeysteadError("secretvm/ambiguous-platform", `${found.length} entries of the platform table match`, {
      argument: "platform",
      remedy: "Name environment and version so that one entry is left.",
      details: { candidates: found.map(({ environment, version }) => `${environment}/${version}`) },
    });
  }
  return first;
}

/** Field of the Secret KMS contract's image filter → register. */
const FILTER_FIELDS: readonly (readonly [string, string])[] = [
  ["mr_td", "mrtd"],
  ["rtmr0", "rtmr0"],
  ["rtmr1", "rtmr1"],
  ["rtmr2", "rtmr2"],
  ["rtmr3", "rtmr3"],
  ["mr_seam", "mr_seam"],
  ["mr_signer_seam", "mr_signer_seam"],
  ["mr_config_id", "mr_config_id"],
  ["mr_owner", "mr_owner"],
  ["mr_config", "mr_owner_config"],
];

/** An image filter, and which of its fields match anything. */
export interface ImageFilter {
  /** Registers that the filter names. It may lack what a service image requires. */
  readonly image: Image;
  /** Registers left `null`, by our names. */
  readonly wildcards: readonly string[];
}

/**
 * Reads an image filter as the Secret KMS contract takes and lists it: a JSON object of ten fields, each 48 bytes (hex, or an array of byte
 * values as in its events) or null for "anything". `vm_uid`, which is no register, may be there.
 *
 * @throws KeysteadError `text/not-utf8`, `json/*`, `secretvm/image-filter` {field}
 * @example
 * const { image, wildcards } = parseImageFilter(bytes);
 */
export function parseImageFilter(bytes: Uint8Array): ImageFilter {
  const value = parseJson(decodeUtf8(bytes, "image filter"), "image filter");
  if (!isJsonObject(value)) throw filterError("image filter", "is not an object");
  for (const key of Object.keys(value)) {
    if (key !== "vm_uid" && !FILTER_FIELDS.some(([field]) => field === key))
      throw filterError(key, "is not a known field");
  }
  const registers: Record<string, Hex> = {};
  const wildcards: string[] = [];
  for (const [field, name] of FILTER_FIELDS) {
    const given = value[field];
    if (given === undefined || given === null) wildcards.push(name);
    else registers[name] = filterBytes(field, given);
  }
  return { image: { kind: "tdx", registers }, wildcards };
}

/**
 * The inverse of {@link parseImageFilter}: a TDX image as the Secret KMS contract lists it, all ten fields, lower-case hex without `0x`, null for a
 * register that matches anything. Undefined for the other kinds, for which that contract has no filter: ten nulls would read as "any machine".
 *
 * @example
 * formatImageFilter(image)?.mr_td; // "a0f1…", 96 digits
 */
export function formatImageFilter({ kind, registers }: Image): Readonly<Record<string, string | null>> | undefined {
  if (kind !== "tdx") return undefined;
  return Object.fromEntries(FILTER_FIELDS.map(([field, name]) => [field, registers[name]?.slice(2) ?? null]));
}

function filterBytes(field: string, value: JsonValue): Hex {
  if (isJsonArray(value)) {
    const bytes = value.filter(
      (item): item is number => typeof item === "number" && Number.isInteger(item) && item >= 0 && item <= 0xff,
    );
    if (value.length === 48 && bytes.length === 48) return toHex(Uint8Array.from(bytes));
  } else if (typeof value === "string" && /^[0-9a-fA-F]{96}$/.test(value)) {
    return toHex(fromHex(value, field));
  }
  throw filterError(field, "is neither null nor 48 bytes, in hex or as an array of bytes");
}

function filterError(field: string, why: string): KeysteadError {
  return new KeysteadError("secretvm/image-filter", `${field} ${why}`, {
    argument: field,
    remedy: "Give the image filter as the contract lists it.",
    details: { field },
  });
}

/** Cells without the spaces around them: the published table has such a cell. */
function fields(line: string): readonly string[] {
  return (line.endsWith("\r") ? line.slice(0, -1) : line).split(",").map((cell) => cell.trim());
}

function tableHex(value: string, width: number, name: string, line: number): Hex {
  if (!/^[0-9a-fA-F]*$/.test(value) || value.length !== 2 * width)
    throw tableError(line, `${name} is not ${width} bytes of hex`);
  return toHex(fromHex(value, name));
}

function requireWidth(field: string, bytes: Uint8Array, width: number): void {
  if (bytes.length === width) return;
  throw new KeysteadError("secretvm/input", `${field} has ${bytes.length} bytes, not ${width}`, {
    argument: field,
    remedy: `Give ${width} bytes.`,
    details: { field, expected: width, actual: bytes.length },
  });
}

function tableError(line: number | undefined, why: string): KeysteadError {
  return new KeysteadError(
    "secretvm/table",
    `the platform table is malformed${line === undefined ? "" : ` at ${line}`}: ${why}`,
    {
      argument: "platform table",
      remedy: "Give tdx.csv or sev.json as SecretVM publishes them.",
      details: line === undefined ? {} : { line },
    },
  );
}

function noSuchPlatform(
  table: readonly { readonly size?: string; readonly environment: string; readonly version: string }[],
  query: PlatformQuery,
): KeysteadError {
  const known = (values: readonly (string | undefined)[]) =>
    [...new Set(values.filter((value) => value !== undefined))].sort();
  const asked = Object.entries(query).flatMap(([name, value]) => (value === undefined ? [] : [`${name} ${value}`]));
  const details = {
    sizes: known(table.map(({ size }) => size)),
    environments: known(table.map(({ environment }) => environment)),
    versions: known(table.map(({ version }) => version)),
  };
  return new KeysteadError("secretvm/no-such-platform", `the platform table has no row with ${asked.join(", ")}`, {
    argument: "platform",
    remedy: `The table knows environments ${details.environments.join(", ")} and versions ${details.versions.join(", ")}.`,
    details,
  });
}
