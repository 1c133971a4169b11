import { type Hex, isZero, Reader, toHex } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";
import type { Finding } from "../measurement.ts";

/*
 * AMD SEV-SNP attestation reports, versions 2 to 5. Layout: AMD, "SEV Secure Nested Paging Firmware ABI Specification" (56860), table
 * ATTESTATION_REPORT: one size and one set of offsets for all versions; version 3 adds the CPUID bytes at 0x188, version 5 the mitigation
 * vectors at 0x1F8 and 0x200. Version 4 is in the field without a public description: its reserved bytes are not read. All integers
 * little-endian. Byte strings in the result are views on the input. Section 2.3 of the same document has the TCB layouts, which differ by product:
 *
 *   Milan, Genoa: bootloader ‖ TEE ‖ 4 reserved ‖ SNP ‖ microcode      Turin: FMC ‖ bootloader ‖ TEE ‖ SNP ‖ 3 reserved ‖ microcode
 *   Venice: FMC ‖ reserved ‖ TEE ‖ SNP ‖ 4 reserved (it has neither bootloader nor microcode)
 */

/*
 * Azure's confidential VMs do not give this report out: a paravisor wraps it in a vTPM's HCL report, and the report data is the paravisor's, not the
 * guest's. Such evidence cannot be bound to a request, and is not supported: see isAzureHclReport.
 */

/** A report's length in bytes, in every version. */
export const SNP_REPORT_BYTES = 1184;
/** What the signature covers: everything before it. */
const SIGNED_BYTES = 0x2a0;
const ALGORITHM_ECDSA_P384 = 1;
/** Bytes that one number of the signature takes, and that hold a P-384 scalar. */
const SCALAR_FIELD_BYTES = 72;
const SCALAR_BYTES = 48;

/** A TCB version: the security patch levels of a platform's parts. */
export interface SnpTcb {
  /** As in the report, 8 bytes. */
  readonly bytes: Uint8Array;
  /** Turin and later only. */
  readonly fmc: number | undefined;
  /** Not on Venice. */
  readonly bootloader: number | undefined;
  readonly tee: number;
  readonly snp: number;
  /** Not on Venice. */
  readonly microcode: number | undefined;
}

/** The processor family, by which certificates and TCB layout differ. `undefined`: the report's version does not say. */
export type SnpProduct = "milan" | "genoa" | "turin" | "venice" | undefined;

/** The guest policy, bit by bit. */
export interface SnpPolicy {
  readonly value: bigint;
  readonly abiMinor: number;
  readonly abiMajor: number;
  readonly smt: boolean;
  readonly migrateMa: boolean;
  readonly debug: boolean;
  readonly singleSocket: boolean;
  /** Bits that are set and whose meaning is not known here. */
  readonly unknown: bigint;
}

/** Guest policy bits that are known: ABI version (0 to 15), SMT, the bit that must be one, migration agent, debug, single socket, CXL, AES-256-XTS, RAPL off,
 * ciphertext hiding, page swap off. */
const POLICY_KNOWN = 0x3ffffffn;
/** Platform bits that are known: SMT, TSME, ECC, RAPL off, ciphertext hiding, alias check complete, and (7) trusted I/O. */
const PLATFORM_KNOWN = 0xbfn;
/** Platform bit 5: since the last reset, the memory was checked for aliasing addresses and has none (BadRAM; AMD-SB-3015). */
const ALIAS_CHECK_COMPLETE = 1n << 5n;

/** A parsed report. Parsing says what it claims; whether a TEE made it is a verifier's to say. */
export interface SnpReport {
  readonly version: number;
  readonly guestSvn: number;
  readonly policy: SnpPolicy;
  readonly familyId: Uint8Array;
  readonly imageId: Uint8Array;
  readonly vmpl: number;
  readonly currentTcb: SnpTcb;
  readonly platformInfo: bigint;
  /** Platform bits that are set and whose meaning is not known here. */
  readonly platformUnknown: bigint;
  /** ALIAS_CHECK_COMPLETE: firmware looked for memory modules that lie about their size (BadRAM), and found none. */
  readonly aliasCheckComplete: boolean;
  readonly authorKeyEnabled: boolean;
  readonly maskChipKey: boolean;
  /** Which key signed. */
  readonly signingKey: "vcek" | "vlek" | "none";
  readonly reportData: Uint8Array;
  readonly measurement: Uint8Array;
  readonly hostData: Uint8Array;
  readonly idKeyDigest: Uint8Array;
  readonly authorKeyDigest: Uint8Array;
  readonly reportId: Uint8Array;
  readonly reportIdMa: Uint8Array;
  readonly reportedTcb: SnpTcb;
  /** Family, model and stepping as CPUID gives them; from version 3 on. */
  readonly cpuid: { readonly family: number; readonly model: number; readonly stepping: number } | undefined;
  readonly product: SnpProduct;
  readonly chipId: Uint8Array;
  readonly committedTcb: SnpTcb;
  readonly current: { readonly major: number; readonly minor: number; readonly build: number };
  readonly committed: { readonly major: number; readonly minor: number; readonly build: number };
  readonly launchTcb: SnpTcb;
  /** From version 5 on. */
  readonly launchMitigations: bigint | undefined;
  /** From version 5 on. */
  readonly currentMitigations: bigint | undefined;
  /** What the signature covers. */
  readonly signed: Uint8Array;
  /** ECDSA P-384 over {@link SnpReport.signed}: r ‖ s, 48 bytes each, big-endian. */
  readonly signature: Uint8Array;
}

const refuse = (code: string, message: string, remedy: string, details: Readonly<Record<string, unknown>> = {}) =>
  new KeysteadError(`snp/${code}`, message, { argument: "report", remedy, details });

/**
 * Reads a SEV-SNP attestation report, version 2 to 5.
 *
 * @param certified the product that the endorsement key's certificate names: of a version 2 report it alone says how TCB versions are laid out (without
 * it: as of Milan and Genoa)
 * @throws KeysteadError `snp/wrong-length` {expected, actual}, `snp/unknown-version` {version}, `snp/unknown-algorithm` {algorithm},
 * `snp/unknown-signing-key`, `snp/unknown-processor`, `snp/tcb-layout`, `snp/signature-padding`, `snp/azure-hcl`
 * @example
 * const { measurement, policy } = parseSnpReport(bytes);
 */
export function parseSnpReport(bytes: Uint8Array, certified?: SnpProduct): SnpReport {
  if (isAzureHclReport(bytes)) throw azureReport();
  if (bytes.length !== SNP_REPORT_BYTES) {
    throw refuse(
      "wrong-length",
      `a SEV-SNP report has ${SNP_REPORT_BYTES} bytes and this has ${bytes.length}`,
      "Give the report alone, whole: without the response header before it and the certificates after it.",
      { expected: SNP_REPORT_BYTES, actual: bytes.length },
    );
  }
  const reader = new Reader(bytes, "report");
  const version = reader.u32le();
  if (version < 2 || version > 5) {
    throw refuse(
      "unknown-version",
      `report version ${version} is not known`,
      "Give a report of version 2, 3, 4 or 5.",
      { version },
    );
  }
  const cpuid =
    version >= 3 ? { family: at(bytes, 0x188), model: at(bytes, 0x189), stepping: at(bytes, 0x18a) } : undefined;
  const product = cpuid === undefined ? undefined : productOf(cpuid.family, cpuid.model);
  const tcb = (): SnpTcb => readTcb(reader.bytes(8), product ?? certified);
  const guestSvn = reader.u32le();
  const policy = readPolicy(reader.u64le());
  const familyId = reader.bytes(16);
  const imageId = reader.bytes(16);
  const vmpl = reader.u32le();
  const algorithm = reader.u32le();
  if (algorithm !== ALGORITHM_ECDSA_P384) {
    throw refuse("unknown-algorithm", `signature algorithm ${algorithm} is not ECDSA P-384`, "Give a signed report.", {
      algorithm,
    });
  }
  const currentTcb = tcb();
  const platformInfo = reader.u64le();
  const flags = reader.u32le();
  const signingKey = readSigningKey((flags >> 2) & 7);
  reader.skip(4);
  const reportData = reader.bytes(64);
  const measurement = reader.bytes(48);
  const hostData = reader.bytes(32);
  const idKeyDigest = reader.bytes(48);
  const authorKeyDigest = reader.bytes(48);
  const reportId = reader.bytes(32);
  const reportIdMa = reader.bytes(32);
  const reportedTcb = tcb();
  reader.skip(24);
  const chipId = reader.bytes(64);
  const committedTcb = tcb();
  const current = readFirmware(reader);
  const committed = readFirmware(reader);
  const launchTcb = tcb();
  const launchVector = reader.u64le();
  const currentVector = reader.u64le();
  const signed = bytes.subarray(0, SIGNED_BYTES);
  const signature = readSignature(bytes.subarray(SIGNED_BYTES));
  return {
    version,
    guestSvn,
    policy,
    familyId,
    imageId,
    vmpl,
    currentTcb,
    platformInfo,
    platformUnknown: platformInfo & ~PLATFORM_KNOWN,
    aliasCheckComplete: (platformInfo & ALIAS_CHECK_COMPLETE) !== 0n,
    authorKeyEnabled: (flags & 1) !== 0,
    maskChipKey: (flags & 2) !== 0,
    signingKey,
    reportData,
    measurement,
    hostData,
    idKeyDigest,
    authorKeyDigest,
    reportId,
    reportIdMa,
    reportedTcb,
    cpuid,
    product,
    chipId,
    committedTcb,
    current,
    committed,
    launchTcb,
    launchMitigations: version >= 5 ? launchVector : undefined,
    currentMitigations: version >= 5 ? currentVector : undefined,
    signed,
    signature,
  };
}

/**
 * Whether bytes are the vTPM report of an Azure confidential VM ("HCLA"), with a SEV-SNP report inside.
 *
 * @example
 * isAzureHclReport(new TextEncoder().encode("HCLA…")); // true
 */
export function isAzureHclReport(bytes: Uint8Array): boolean {
  return bytes[0] === 0x48 && bytes[1] === 0x43 && bytes[2] === 0x4c && bytes[3] === 0x41;
}

function azureReport(): KeysteadError {
  return refuse(
    "azure-hcl",
    "this is the vTPM report of an Azure confidential VM (HCLA), which is not supported",
    "Azure's guests do not choose the report data of the SEV-SNP report inside, so it cannot be bound to a request. Use a " +
      "provider whose guests reach the SEV-SNP device itself (configfs-tsm).",
  );
}

const at = (bytes: Uint8Array, offset: number): number => bytes[offset] ?? 0;

const VENICE_MODELS: readonly (readonly [first: number, last: number])[] = [
  [0x50, 0x57],
  [0x90, 0xaf],
  [0xc0, 0xc7],
];

/** CPUID families and models: AMD, "Versioned Chip Endorsement Key" specification (57230), and the ABI specification's list of products. */
function productOf(family: number, model: number): SnpProduct {
  if (family === 0x19 && model <= 0x0f) return "milan";
  if (family === 0x19 && ((model >= 0x10 && model <= 0x1f) || (model >= 0xa0 && model <= 0xaf))) return "genoa";
  if (family === 0x1a && model <= 0x1f) return "turin";
  if (family === 0x1a && VENICE_MODELS.some(([first, last]) => model >= first && model <= last)) return "venice";
  throw refuse(
    "unknown-processor",
    `processor family 0x${family.toString(16)}, model 0x${model.toString(16)} is not known`,
    "Give a report of a Milan, Genoa, Turin or Venice machine.",
    { family, model },
  );
}

function readTcb(bytes: Uint8Array, product: SnpProduct): SnpTcb {
  const byte = (offset: number) => at(bytes, offset);
  if (product === "turin")
    return { bytes, fmc: byte(0), bootloader: byte(1), tee: byte(2), snp: byte(3), microcode: byte(7) };
  if (product !== "venice")
    return { bytes, fmc: undefined, bootloader: byte(0), tee: byte(1), snp: byte(6), microcode: byte(7) };
  if (byte(1) !== 0 || !isZero(bytes.subarray(4))) {
    throw refuse(
      "tcb-layout",
      `a Venice TCB version has bytes set that are reserved: ${toHex(bytes)}`,
      "Update keystead: this firmware writes TCB versions in a way that is not known here.",
    );
  }
  return { bytes, fmc: byte(0), bootloader: undefined, tee: byte(2), snp: byte(3), microcode: undefined };
}

function readPolicy(value: bigint): SnpPolicy {
  const bit = (index: bigint) => ((value >> index) & 1n) === 1n;
  return {
    value,
    abiMinor: Number(value & 0xffn),
    abiMajor: Number((value >> 8n) & 0xffn),
    smt: bit(16n),
    migrateMa: bit(18n),
    debug: bit(19n),
    singleSocket: bit(20n),
    unknown: value & ~POLICY_KNOWN,
  };
}

function readSigningKey(value: number): SnpReport["signingKey"] {
  if (value === 0) return "vcek";
  if (value === 1) return "vlek";
  if (value === 7) return "none";
  throw refuse("unknown-signing-key", `signing key ${value} is not known`, "Give a report signed by a VCEK or VLEK.", {
    value,
  });
}

function readFirmware(reader: Reader): { major: number; minor: number; build: number } {
  const build = reader.u8();
  const minor = reader.u8();
  const major = reader.u8();
  reader.skip(1);
  return { major, minor, build };
}

/** The report holds r and s little-endian in 72 bytes each, then 368 reserved ones; whatever is not signature must be zero. */
function readSignature(bytes: Uint8Array): Uint8Array {
  const scalars = [bytes.subarray(0, SCALAR_FIELD_BYTES), bytes.subarray(SCALAR_FIELD_BYTES, 2 * SCALAR_FIELD_BYTES)];
  const signature = new Uint8Array(2 * SCALAR_BYTES);
  scalars.forEach((scalar, index) => {
    signature.set(scalar.slice(0, SCALAR_BYTES).reverse(), index * SCALAR_BYTES);
  });
  const clean = scalars.every((scalar) => isZero(scalar.subarray(SCALAR_BYTES)));
  if (!clean || !isZero(bytes.subarray(2 * SCALAR_FIELD_BYTES))) {
    throw refuse(
      "signature-padding",
      "bytes around the signature that must be zero are not",
      "Give the report as the machine made it.",
    );
  }
  return signature;
}

/**
 * A report's registers by their names in the image's register table.
 *
 * @example
 * buildImage("snp", snpRegisters(parseSnpReport(bytes)), "service");
 */
export function snpRegisters(report: SnpReport): Readonly<Record<string, Hex>> {
  return {
    measurement: toHex(report.measurement),
    host_data: toHex(report.hostData),
    id_key_digest: toHex(report.idKeyDigest),
    author_key_digest: toHex(report.authorKeyDigest),
    family_id: toHex(report.familyId),
    image_id: toHex(report.imageId),
  };
}

/**
 * What is wrong or unusual with the machine that a report describes.
 *
 * @example
 * snpFindings(report).some(({ code }) => code === "evidence/debug");
 */
export function snpFindings(report: SnpReport): readonly Finding[] {
  const findings: Finding[] = [];
  if (report.policy.debug) {
    findings.push({
      code: "evidence/debug",
      severity: "unsafe",
      message: `DEBUG: the guest policy (0x${report.policy.value.toString(16)}) lets the host read and change this machine's memory`,
    });
  }
  if (report.policy.unknown !== 0n || report.platformUnknown !== 0n) {
    findings.push({
      code: "evidence/unknown-bits",
      severity: "unsafe",
      message: `guest policy or platform information has bits that are not known here (0x${report.policy.unknown.toString(16)}, 0x${report.platformUnknown.toString(16)})`,
    });
  }
  if (!report.aliasCheckComplete) {
    findings.push({
      code: "evidence/alias-check",
      severity: "warning",
      message:
        "ALIAS_CHECK_COMPLETE is clear: the firmware did not check for memory modules that lie about their size (BadRAM, AMD-SB-3015)",
    });
  }
  if (report.signingKey === "none") {
    findings.push({
      code: "evidence/unsigned",
      severity: "unsafe",
      message: "the report says that no key signed it: anyone can have written it",
    });
  }
  if (report.policy.migrateMa) {
    findings.push({
      code: "evidence/migration-agent",
      severity: "warning",
      message: "the guest policy lets a migration agent move this machine; the agent is not part of the measurement",
    });
  }
  if (report.vmpl !== 0) {
    findings.push({
      code: "evidence/vmpl",
      severity: "warning",
      message: `the report was asked for at VMPL ${report.vmpl}, not by the most privileged software of the machine (0)`,
    });
  }
  return findings;
}
