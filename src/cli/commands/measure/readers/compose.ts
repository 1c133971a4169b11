import { fromHex, type Hex, toHex } from "../../../../core/bytes.ts";
import { KeysteadError } from "../../../../core/errors.ts";
import {
  computeRtmr3,
  computeSnpWorkload,
  matchWorkload,
  type PlatformQuery,
  parseSnpTable,
  parseTdxTable,
  type Rtmr3Scheme,
  resolvePlatform,
  resolveSnpPlatform,
  type TdxPlatform,
} from "../../../../core/evidence/secretvm.ts";
import { refusePage } from "../../../../core/evidence/page.ts";
import { parseTdxQuote, tdxFindings, tdxRegisters } from "../../../../core/evidence/tdx.ts";
import type { Finding, MeasuredRegister, Measurement, MeasurementSource } from "../../../../core/measurement.ts";
import type { InputFile, Io } from "../../../io.ts";
import { BLOB_LIMIT, hexOption, measured, missingOption, optionSource, TEXT_LIMIT, textOption } from "../deployment.ts";
import { decodeEvidenceFile, EVIDENCE_LIMIT, fileFindings } from "../evidence-file.ts";
import { otherEnds, readComposeFile } from "../compose-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

type Options = ReaderArguments["options"];

/** What besides the platform goes into the measurement. */
interface Workload {
  readonly compose: InputFile;
  readonly composeFindings: readonly Finding[];
  readonly dockerFiles: InputFile | undefined;
  readonly dockerFilesHash: Uint8Array | undefined;
  readonly scheme: Rtmr3Scheme;
}

const UNCHECKED = [
  "That the machine gets these very bytes as its compose file: editors, git and portals may change line endings.",
  "What the container images that the file names contain.",
];

async function read(io: Io, { inputs, options }: ReaderArguments): Promise<Measurement> {
  const { compose, findings } = readComposeFile(
    await io.readFile(inputs[0] ?? "-", { limit: TEXT_LIMIT, argument: "compose" }),
  );
  const archive = textOption(options, "dockerFiles");
  const dockerFiles =
    archive === undefined ? undefined : await io.readFile(archive, { limit: BLOB_LIMIT, argument: "--docker-files" });
  const appId = hexOption(options, "dstackAppId", "--dstack-app-id", 20);
  if (dockerFiles !== undefined) refusePage(dockerFiles.bytes, "--docker-files");
  const workload: Workload = {
    compose,
    composeFindings: findings,
    dockerFiles,
    dockerFilesHash: dockerFiles === undefined ? undefined : fromHex(dockerFiles.source.sha256, "--docker-files"),
    scheme: appId === undefined ? { scheme: "extends" } : { scheme: "dstack-events", appId },
  };
  const tableName = textOption(options, "platformTable");
  if (tableName === undefined) return readWithoutTable(workload, options);
  const table = await io.readFile(tableName, { limit: TEXT_LIMIT, argument: "--platform-table" });
  const isJson = /^\s*\[/.test(new TextDecoder().decode(table.bytes.subarray(0, 64)));
  const quoteName = textOption(options, "quote");
  if (!isJson)
    return readTdx(workload, table, options, quoteName === undefined ? undefined : await readQuote(io, quoteName));
  if (quoteName === undefined) return readSnp(workload, table, options);
  throw new KeysteadError("measure/option-conflict", "--quote is a TDX quote and the platform table is of SEV-SNP", {
    argument: "--quote",
    remedy: "Leave the quote out, or give tdx.csv.",
  });
}

/** A quote of a machine that should run this compose file. */
interface Quote {
  readonly registers: Readonly<Record<string, Hex>>;
  readonly file: InputFile;
  readonly findings: readonly Finding[];
}

async function readQuote(io: Io, name: string): Promise<Quote> {
  const file = await io.readFile(name, { limit: EVIDENCE_LIMIT, argument: "--quote" });
  const evidence = decodeEvidenceFile(file, ["tdx-quote", "sgx-quote"], "--quote");
  const quote = parseTdxQuote(evidence.bytes);
  return { registers: tdxRegisters(quote), file, findings: [...tdxFindings(quote), ...evidence.findings] };
}

/** The table's rows that explain a quote with this compose file. */
function explain(table: readonly TdxPlatform[], workload: Workload, quote: Quote): readonly TdxPlatform[] {
  const { compose, dockerFilesHash, scheme } = workload;
  const found = matchWorkload(table, quote.registers, { compose: compose.bytes, dockerFilesHash }, scheme);
  if (found.candidates.length === 0) {
    throw new KeysteadError(
      "secretvm/unknown-platform",
      "the quote's boot registers are of no row of the platform table",
      {
        argument: "--quote",
        remedy: "Update the platform table; if it is up to date, the machine is none that SecretVM publishes.",
      },
    );
  }
  if (found.matches.length > 0) return found.matches;
  for (const { bytes, how } of otherEnds(compose.bytes)) {
    const other = matchWorkload(table, quote.registers, { compose: bytes, dockerFilesHash }, scheme);
    if (other.matches.length === 0) continue;
    throw new KeysteadError("secretvm/other-line-ends", `the machine runs this compose file with ${how}`, {
      argument: "compose",
      remedy: "Give the file as the machine got it: an editor, git or a portal changed its line ends.",
      details: { rtmr3: quote.registers.rtmr3 },
    });
  }
  throw new KeysteadError(
    "secretvm/other-workload",
    `the machine runs another workload: no root file system of ${describe(found.candidates)} gives its RTMR3 with this compose file`,
    {
      argument: "compose",
      remedy:
        "Give the exact bytes of the machine's compose file, and its --docker-files or --dstack-app-id if it has them.",
      details: { rtmr3: quote.registers.rtmr3, candidates: found.candidates.map(({ line }) => line) },
    },
  );
}

function readTdx(workload: Workload, table: InputFile, options: Options, quote: Quote | undefined): Measurement {
  const query = queryOf(options);
  const platforms = parseTdxTable(table.bytes);
  const known = quote === undefined ? platforms : explain(platforms, workload, quote);
  const { rows, agreed, differing } = resolvePlatform(known, query);
  const { mrtd, rtmr0, rtmr1, rtmr2, rootfs } = agreed;
  if (mrtd === undefined || rtmr0 === undefined || rtmr1 === undefined || rtmr2 === undefined || rootfs === undefined) {
    throw ambiguous(rows, differing);
  }
  const where = `row ${rows.map(({ line }) => line).join(" and ")} of the platform table: ${describe(rows)}`;
  const register = (value: Hex) => measured(value, "table", table.source, where);
  const shared = common(workload, [table.source, ...(quote === undefined ? [] : [quote.file.source])], [table]);
  return {
    ...shared,
    findings: [...shared.findings, ...(quote?.findings ?? [])],
    kind: "tdx",
    registers: {
      mrtd: register(mrtd),
      rtmr0: register(rtmr0),
      rtmr1: register(rtmr1),
      rtmr2: register(rtmr2),
      rtmr3: rtmr3Of(workload, rootfs, "rootfs_data of that row"),
    },
    facts: {
      ...factsOf(workload),
      platform: describe(rows),
      rootfs,
      checked: quote === undefined ? "not held against a quote" : "mrtd and rtmr0 to rtmr3 equal the quote's",
    },
    unchecked: [
      "That the platform table is the publisher's: its rows were taken as they are.",
      quote === undefined
        ? "That the machine boots a platform of this table: add --quote."
        : "The quote's signatures and certificate chain: the table and the compose file agree with what the quote file claims.",
      ...UNCHECKED,
    ],
  };
}

function readSnp(workload: Workload, table: InputFile, options: Options): Measurement {
  if (workload.scheme.scheme !== "extends") {
    throw new KeysteadError("measure/option-conflict", "--dstack-app-id has no part in a SEV-SNP measurement", {
      argument: "--dstack-app-id",
      remedy: "Leave it out.",
    });
  }
  const size = textOption(options, "size");
  if (size === undefined) throw missingOption("--size", "the VM size fixes the number of virtual CPUs");
  const platform = resolveSnpPlatform(parseSnpTable(table.bytes), queryOf(options));
  const { measurement, cmdline, vcpus } = computeSnpWorkload(platform, size, {
    compose: workload.compose.bytes,
    dockerFilesHash: workload.dockerFilesHash,
  });
  const formula = `SNP launch digest of entry ${platform.index} of the platform table, with vcpus and cmdline as stated`;
  const label = (text: string, what: string): Record<string, MeasuredRegister> =>
    text.length > 16
      ? {}
      : {
          [what]: measured(
            toHex(new TextEncoder().encode(text.padEnd(16, "#"))),
            "computed",
            table.source,
            `the text ${text}, filled up with #`,
          ),
        };
  return {
    ...common(workload, [table.source], [table]),
    kind: "snp",
    registers: {
      measurement: measured(measurement, "computed", workload.compose.source, formula),
      ...label(`${platform.environment}-${size}-sev`, "family_id"),
      ...label(platform.version, "image_id"),
    },
    facts: {
      ...factsOf(workload),
      platform: `${size}/${platform.environment}/${platform.version}`,
      rootfs: platform.rootfs,
      vcpus: String(vcpus),
      cmdline,
    },
    unchecked: [
      "That the platform table is the publisher's: kernel, initial RAM disk and firmware are known by their hashes only.",
      "host_data: the host chooses it, and SecretVM's guests do not rely on it.",
      ...UNCHECKED,
    ],
  };
}

/** RTMR3 alone, where the root file system's hash is known and the platform is not asked about. */
function readWithoutTable(workload: Workload, options: Options): Measurement {
  const rootfs = hexOption(options, "rootfs", "--rootfs", 32);
  if (rootfs === undefined) {
    throw missingOption(
      "--platform-table",
      "RTMR3 depends on the image's root file system as well as on the compose file",
    );
  }
  const value = toHex(rootfs);
  return {
    ...common(workload, [optionSource("--rootfs", value)], []),
    kind: "tdx",
    registers: { rtmr3: rtmr3Of(workload, value, "the rootfs hash that was stated") },
    facts: { ...factsOf(workload), rootfs: value },
    unchecked: ["The other registers: add --platform-table to look them up.", ...UNCHECKED],
  };
}

function common(workload: Workload, sources: readonly MeasurementSource[], files: readonly InputFile[]) {
  const { compose, dockerFiles } = workload;
  return {
    input: "compose",
    sources: [compose.source, ...(dockerFiles === undefined ? [] : [dockerFiles.source]), ...sources],
    findings: [
      ...[compose, ...(dockerFiles === undefined ? [] : [dockerFiles]), ...files].flatMap(fileFindings),
      ...workload.composeFindings,
    ],
  };
}

function rtmr3Of({ compose, dockerFilesHash, scheme }: Workload, rootfs: Hex, origin: string): MeasuredRegister {
  const value = computeRtmr3({ compose: compose.bytes, rootfs: fromHex(rootfs, "rootfs"), dockerFilesHash }, scheme);
  const files =
    dockerFilesHash === undefined ? "" : scheme.scheme === "extends" ? ", docker files" : ", docker-files-hash";
  const formula =
    scheme.scheme === "extends"
      ? `SHA-384 extends of SHA-256(compose), ${origin}${files}, each padded to 48 bytes`
      : `SHA-384 extends of the dstack events app-id, compose-hash, os-image-hash (${origin})${files}`;
  return measured(value, "computed", compose.source, formula);
}

function factsOf({ compose, dockerFiles, scheme }: Workload): Record<string, string> {
  return {
    format: "docker-compose file of a SecretVM",
    compose_hash: compose.source.sha256,
    docker_files: dockerFiles === undefined ? "none" : dockerFiles.source.sha256,
    rtmr3_scheme: scheme.scheme === "extends" ? "extends" : `dstack events, app id ${toHex(scheme.appId)}`,
  };
}

const queryOf = (options: Options): PlatformQuery => ({
  size: textOption(options, "size"),
  environment: textOption(options, "environment"),
  version: textOption(options, "imageVersion"),
  host: textOption(options, "host"),
});

const describe = (rows: readonly TdxPlatform[]): string =>
  [...new Set(rows.map(({ size, environment, version }) => `${size}/${environment}/${version}`))].join(", ");

function ambiguous(rows: readonly TdxPlatform[], differing: readonly string[]): KeysteadError {
  const candidates = rows.map(
    ({ size, environment, version, host, line }) =>
      `${size}/${environment}/${version} host ${host.slice(0, 16)}… (row ${line})`,
  );
  const shown = candidates.slice(0, 8).map((candidate) => `\n    ${candidate}`);
  return new KeysteadError(
    "secretvm/ambiguous-platform",
    `${rows.length} rows of the platform table match and differ in ${differing.join(", ")}:${shown.join("")}${rows.length > shown.length ? "\n    …" : ""}`,
    {
      argument: "--platform-table",
      remedy:
        "Name one machine: --size, --environment, --image-version and, where hosts differ, --host with the beginning of a host id.",
      details: { differing, candidates },
    },
  );
}

/** A YAML file that lists services at its top level. */
const SERVICES = /^(?:\ufeff)?services:[ \t]*\r?$/;

/** SecretVM compose files. */
export const readers: readonly InputReader[] = [
  {
    name: "compose",
    summary: "a SecretVM's docker-compose file: RTMR3 (or the SEV-SNP launch digest) with the platform it runs on",
    inputs: ["compose"],
    options: [
      { flags: "--platform-table <file>", description: "SecretVM's tdx.csv or sev.json" },
      { flags: "--size <size>", description: "VM size, e.g. small" },
      { flags: "--environment <name>", description: "image environment (vm_type), e.g. prod" },
      { flags: "--image-version <version>", description: "image version (artifacts_ver), e.g. v0.0.25" },
      { flags: "--host <id>", description: "host id, or the beginning of one" },
      {
        flags: "--quote <file>",
        description: "a TDX quote of the machine, to find its platform by and to compare with",
      },
      { flags: "--docker-files <file>", description: "the archive of additional files" },
      { flags: "--dstack-app-id <hex>", description: "the app id, where dstack delivers the machine's keys" },
      { flags: "--rootfs <hex>", description: "the root file system's hash, for RTMR3 without a platform table" },
    ],
    read,
    detect: (file) =>
      file.bytes.length <= TEXT_LIMIT &&
      new TextDecoder()
        .decode(file.bytes)
        .split("\n")
        .some((line) => SERVICES.test(line)),
  },
];
