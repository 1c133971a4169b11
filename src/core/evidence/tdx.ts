import { type Hex, isZero, Reader, toHex } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";
import type { Finding } from "../measurement.ts";

/*
 * Intel TDX quotes, versions 4 and 5. Layouts: Intel, "TDX DCAP Quoting Library API", appendix A.3 (version 4) and A.4 (version 5). All integers
 * little-endian. Byte strings in the result are views on the input, not copies.
 *
 *   v4: header 48 ‖ TD 1.0 body 584 ‖ u32 length ‖ signature data
 *   v5: header 48 ‖ u16 body type ‖ u32 body size ‖ body ‖ u32 length ‖ signature data
 *   TD 1.5 body: TD 1.0 body ‖ TEE TCB SVN 2 16 ‖ MRSERVICETD 48; extended body (type 4, Intel's sgx_quote_5.h): TD 1.5 body ‖ 237 bytes, see TdxExtension
 *   signature data: signature 64 ‖ attestation key 64 ‖ u16 type = 6 ‖ u32 size ‖ QE certification data
 *   QE certification data: QE report 384 ‖ signature 64 ‖ u16 size ‖ QE authentication data ‖ u16 type ‖ u32 size ‖ data (type 5: PEM chain)
 */

const TEE_TYPE_SGX = 0x00;
const TEE_TYPE_TDX = 0x81;
const KEY_TYPE_ECDSA_P256 = 2;
const BODY_SGX = 1;
const BODY_TD10 = 2;
const BODY_TD15 = 3;
const BODY_EXTENDED = 4;
const BODY_BYTES: Readonly<Record<number, number>> = { [BODY_TD10]: 584, [BODY_TD15]: 648, [BODY_EXTENDED]: 885 };
const CERTIFICATION_QE_REPORT = 6;
/** Certification data that is a PEM certificate chain, leaf first. */
export const CERTIFICATION_PCK_CHAIN = 5;
/** Bit 28 of the TD attributes. */
const SEPT_VE_DISABLE = 1n << 28n;

/** The 48 bytes before the body. */
export interface TdxHeader {
  readonly version: 4 | 5;
  readonly attestationKeyType: number;
  readonly teeType: number;
  readonly qeVendorId: Uint8Array;
  readonly userData: Uint8Array;
}

/**
 * What a body of type 4 has beyond a TD 1.5 body: who else has, or had, a say in this machine. Of an ordinary TD all of it is zero but the TD's own id.
 */
export interface TdxExtension {
  /** Which VM inside of a partitioned TD asked: 0 is the TD itself. */
  readonly vmId: number;
  /** 32 bytes that name the TD; they say nothing about it. */
  readonly tdId: Uint8Array;
  /** 48 bytes: a measurement of the devices that the TD takes into its trust. */
  readonly deviceInfo: Uint8Array;
  /** 156 bytes: hash and attributes of the service TDs that were bound, now and before, and the TCB that they ran on. */
  readonly serviceTdHistory: Uint8Array;
}

/** The TD's report as the quote carries it. */
export interface TdxBody {
  readonly type: "td1.0" | "td1.5" | "extended";
  readonly teeTcbSvn: Uint8Array;
  readonly mrSeam: Uint8Array;
  readonly mrSignerSeam: Uint8Array;
  readonly seamAttributes: Uint8Array;
  readonly tdAttributes: Uint8Array;
  readonly xfam: Uint8Array;
  readonly mrTd: Uint8Array;
  readonly mrConfigId: Uint8Array;
  readonly mrOwner: Uint8Array;
  readonly mrOwnerConfig: Uint8Array;
  readonly rtMr0: Uint8Array;
  readonly rtMr1: Uint8Array;
  readonly rtMr2: Uint8Array;
  readonly rtMr3: Uint8Array;
  readonly reportData: Uint8Array;
  /** TD 1.5 bodies only. */
  readonly teeTcbSvn2: Uint8Array | undefined;
  /** TD 1.5 bodies only. */
  readonly mrServiceTd: Uint8Array | undefined;
  /** Bodies of type 4 only. */
  readonly extension: TdxExtension | undefined;
}

/** The quoting enclave's own report, an SGX report body of 384 bytes. */
export interface QeReport {
  /** What the signature over the report covers. */
  readonly bytes: Uint8Array;
  readonly cpuSvn: Uint8Array;
  readonly miscSelect: number;
  readonly attributes: Uint8Array;
  readonly mrEnclave: Uint8Array;
  readonly mrSigner: Uint8Array;
  readonly isvProdId: number;
  readonly isvSvn: number;
  readonly reportData: Uint8Array;
}

/** What signs the body, located but not verified. */
export interface TdxSignatureData {
  /** ECDSA P-256 over {@link TdxQuote.signed}, r ‖ s. */
  readonly signature: Uint8Array;
  /** The attestation key, x ‖ y. */
  readonly attestationKey: Uint8Array;
  readonly qeReport: QeReport;
  /** The PCK's signature over the QE report, r ‖ s. */
  readonly qeReportSignature: Uint8Array;
  readonly qeAuthData: Uint8Array;
  readonly certificationType: number;
  readonly certificationData: Uint8Array;
  /** The PEM bytes where the certification data is a chain (type 5). */
  readonly pckChain: Uint8Array | undefined;
}

/** A parsed quote. Parsing says what it claims; whether a TEE made it is a verifier's to say. */
export interface TdxQuote {
  readonly header: TdxHeader;
  readonly body: TdxBody;
  /** Everything that the attestation key signs: header, body descriptor (version 5) and body. */
  readonly signed: Uint8Array;
  readonly signatureData: TdxSignatureData;
  /** Bytes up to the end of the signature data. */
  readonly length: number;
  /** Zero bytes after it. */
  readonly padding: number;
  /** Whether any bit of the debug byte (byte 0 of the TD attributes) is set. */
  readonly debug: boolean;
  /** Whether SEPT_VE_DISABLE (bit 28 of the TD attributes) is set. */
  readonly septVeDisable: boolean;
}

const refuse = (code: string, message: string, remedy: string, details: Readonly<Record<string, unknown>> = {}) =>
  new KeysteadError(`tdx/${code}`, message, { argument: "quote", remedy, details });

/**
 * Reads a TDX quote, version 4 or 5. Every length in it must agree with every other, and nothing but zero bytes may follow.
 *
 * @throws KeysteadError `tdx/sgx-quote` (an enclave's, not a VM's), `tdx/unknown-version` {version}, `tdx/unknown-tee-type`,
 * `tdx/unknown-key-type`, `tdx/unknown-body`, `tdx/body-length`, `tdx/certification-data`, `tdx/signature-data-length`,
 * `tdx/trailing-bytes` {offset}, `bytes/truncated`
 * @example
 * const { body, debug } = parseTdxQuote(bytes);
 */
export function parseTdxQuote(bytes: Uint8Array): TdxQuote {
  const reader = new Reader(bytes, "quote");
  const version = reader.u16le("version");
  if (version === 3) throw sgxQuote();
  if (version !== 4 && version !== 5) {
    throw refuse(
      "unknown-version",
      `quote version ${version} is not known`,
      "Give a TDX quote of version 4 or 5, in binary.",
      {
        version,
      },
    );
  }
  const attestationKeyType = reader.u16le("attestation key type");
  const teeType = reader.u32le("TEE type");
  if (teeType === TEE_TYPE_SGX) throw sgxQuote();
  if (teeType !== TEE_TYPE_TDX) {
    throw refuse("unknown-tee-type", `TEE type 0x${teeType.toString(16)} is not TDX`, "Give a TDX quote.", { teeType });
  }
  if (attestationKeyType !== KEY_TYPE_ECDSA_P256) {
    throw refuse(
      "unknown-key-type",
      `attestation key type ${attestationKeyType} is not ECDSA P-256`,
      "Give a quote made by Intel's quoting enclave.",
      { attestationKeyType },
    );
  }
  reader.skip(4, "reserved");
  const header: TdxHeader = {
    version,
    attestationKeyType,
    teeType,
    qeVendorId: reader.bytes(16, "QE vendor id"),
    userData: reader.bytes(20, "user data"),
  };
  const body = readBody(reader, version === 4 ? BODY_TD10 : readBodyType(reader));
  const signed = bytes.subarray(0, reader.offset);
  const signatureLength = reader.u32le("signature data length");
  const signatureData = readSignatureData(reader.bytes(signatureLength, "signature data"));
  const length = reader.offset;
  const rest = reader.bytes(reader.remaining);
  if (!isZero(rest)) {
    const offset = length + rest.findIndex((byte) => byte !== 0);
    throw refuse(
      "trailing-bytes",
      `byte ${offset} follows the signature data and is not zero`,
      "Give the quote alone.",
      { offset },
    );
  }
  const attributes = new Reader(body.tdAttributes, "TD attributes").u64le();
  return {
    header,
    body,
    signed,
    signatureData,
    length,
    padding: rest.length,
    debug: (attributes & 0xffn) !== 0n,
    septVeDisable: (attributes & SEPT_VE_DISABLE) !== 0n,
  };
}

function sgxQuote(): KeysteadError {
  return refuse(
    "sgx-quote",
    "this is the quote of an SGX enclave, not of a TDX virtual machine",
    "Ask the virtual machine for its own quote: an SGX enclave cannot be registered.",
  );
}

function readBodyType(reader: Reader): number {
  const type = reader.u16le("body type");
  if (type === BODY_SGX) throw sgxQuote();
  const expected = BODY_BYTES[type];
  if (expected === undefined) {
    throw refuse(
      "unknown-body",
      `quote body type ${type} is not known`,
      "Give a quote with a body of type 2, 3 or 4.",
      {
        type,
      },
    );
  }
  const actual = reader.u32le("body size");
  if (actual !== expected) {
    throw refuse(
      "body-length",
      `a body of type ${type} has ${expected} bytes and this one says ${actual}`,
      "Give the quote as made.",
      {
        type,
        expected,
        actual,
      },
    );
  }
  return type;
}

function readBody(reader: Reader, type: number): TdxBody {
  const td15 = type !== BODY_TD10;
  return {
    type: type === BODY_EXTENDED ? "extended" : td15 ? "td1.5" : "td1.0",
    teeTcbSvn: reader.bytes(16, "TEE TCB SVN"),
    mrSeam: reader.bytes(48, "MRSEAM"),
    mrSignerSeam: reader.bytes(48, "MRSIGNERSEAM"),
    seamAttributes: reader.bytes(8, "SEAM attributes"),
    tdAttributes: reader.bytes(8, "TD attributes"),
    xfam: reader.bytes(8, "XFAM"),
    mrTd: reader.bytes(48, "MRTD"),
    mrConfigId: reader.bytes(48, "MRCONFIGID"),
    mrOwner: reader.bytes(48, "MROWNER"),
    mrOwnerConfig: reader.bytes(48, "MROWNERCONFIG"),
    rtMr0: reader.bytes(48, "RTMR0"),
    rtMr1: reader.bytes(48, "RTMR1"),
    rtMr2: reader.bytes(48, "RTMR2"),
    rtMr3: reader.bytes(48, "RTMR3"),
    reportData: reader.bytes(64, "report data"),
    teeTcbSvn2: td15 ? reader.bytes(16, "TEE TCB SVN 2") : undefined,
    mrServiceTd: td15 ? reader.bytes(48, "MRSERVICETD") : undefined,
    extension: type === BODY_EXTENDED ? readExtension(reader) : undefined,
  };
}

/** Hash 48 ‖ attributes 8 ‖ 16 ‖ 16 ‖ 12 ‖ hash 48 ‖ attributes 8. */
const SERVICE_TD_HISTORY_BYTES = 156;

function readExtension(reader: Reader): TdxExtension {
  return {
    vmId: reader.u8("VM id"),
    tdId: reader.bytes(32, "TD id"),
    deviceInfo: reader.bytes(48, "device info"),
    serviceTdHistory: reader.bytes(SERVICE_TD_HISTORY_BYTES, "service TD history"),
  };
}

/** A reason why software outside of a quote's registers has a say in the machine. */
export interface TdxIntruder {
  readonly code: "service-td" | "nested-vm" | "device-info";
  readonly message: string;
}

/**
 * What has a say in the machine that a body describes and is measured by no register: service TDs, now or before; a VM inside of a partitioned TD;
 * devices. Verifiers reject each of them.
 *
 * @example
 * findIntruder(quote.body)?.code; // "service-td"
 */
export function findIntruder({ mrServiceTd, extension }: TdxBody): TdxIntruder | undefined {
  if (mrServiceTd !== undefined && !isZero(mrServiceTd)) {
    const message =
      "a service TD is bound to this machine (MRSERVICETD is not zero) and no register measures what it does";
    return { code: "service-td", message };
  }
  if (extension === undefined) return undefined;
  const { vmId, deviceInfo, serviceTdHistory } = extension;
  if (!isZero(serviceTdHistory)) {
    const message =
      "a service TD was bound to this machine (its service TD history is not zero) and no register measures what it did";
    return { code: "service-td", message };
  }
  if (vmId !== 0) {
    const message = `VM ${vmId} inside of a partitioned TD asked for this quote, and no register measures that VM`;
    return { code: "nested-vm", message };
  }
  if (!isZero(deviceInfo)) {
    const message = "this machine takes devices into its trust (device info is not zero) and no register measures them";
    return { code: "device-info", message };
  }
  return undefined;
}

function readSignatureData(bytes: Uint8Array): TdxSignatureData {
  const outer = new Reader(bytes, "quote signature data");
  const signature = outer.bytes(64, "signature");
  const attestationKey = outer.bytes(64, "attestation key");
  const type = outer.u16le("certification data type");
  if (type !== CERTIFICATION_QE_REPORT) {
    throw refuse(
      "certification-data",
      `certification data of type ${type} where a QE report (6) belongs`,
      "Give the quote as made.",
      {
        type,
      },
    );
  }
  const inner = new Reader(
    outer.bytes(outer.u32le("certification data size"), "certification data"),
    "QE certification data",
  );
  checkUsedUp(outer, "signature data");
  const qeReport = readQeReport(inner.bytes(384, "QE report"));
  const qeReportSignature = inner.bytes(64, "QE report signature");
  const qeAuthData = inner.bytes(inner.u16le("QE authentication data size"), "QE authentication data");
  const certificationType = inner.u16le("inner certification data type");
  const certificationData = inner.bytes(inner.u32le("inner certification data size"), "inner certification data");
  checkUsedUp(inner, "QE certification data");
  const pckChain = certificationType === CERTIFICATION_PCK_CHAIN ? certificationData : undefined;
  return {
    signature,
    attestationKey,
    qeReport,
    qeReportSignature,
    qeAuthData,
    certificationType,
    certificationData,
    pckChain,
  };
}

function checkUsedUp(reader: Reader, what: string): void {
  if (reader.remaining === 0) return;
  throw refuse(
    "signature-data-length",
    `${what} ends ${reader.remaining} bytes after its last field`,
    "Give the quote as made.",
    {
      remaining: reader.remaining,
    },
  );
}

function readQeReport(bytes: Uint8Array): QeReport {
  const reader = new Reader(bytes, "QE report");
  const cpuSvn = reader.bytes(16);
  const miscSelect = reader.u32le();
  reader.skip(28);
  const attributes = reader.bytes(16);
  const mrEnclave = reader.bytes(32);
  reader.skip(32);
  const mrSigner = reader.bytes(32);
  reader.skip(96);
  const isvProdId = reader.u16le();
  const isvSvn = reader.u16le();
  reader.skip(60);
  const reportData = reader.bytes(64);
  return { bytes, cpuSvn, miscSelect, attributes, mrEnclave, mrSigner, isvProdId, isvSvn, reportData };
}

/**
 * A quote's registers by their names in the image's register table.
 *
 * @example
 * buildImage("tdx", tdxRegisters(parseTdxQuote(bytes)), "service");
 */
export function tdxRegisters({ body }: TdxQuote): Readonly<Record<string, Hex>> {
  return {
    mrtd: toHex(body.mrTd),
    rtmr0: toHex(body.rtMr0),
    rtmr1: toHex(body.rtMr1),
    rtmr2: toHex(body.rtMr2),
    rtmr3: toHex(body.rtMr3),
    mr_seam: toHex(body.mrSeam),
    mr_signer_seam: toHex(body.mrSignerSeam),
    mr_config_id: toHex(body.mrConfigId),
    mr_owner: toHex(body.mrOwner),
    mr_owner_config: toHex(body.mrOwnerConfig),
  };
}

/**
 * What is wrong or unusual with the machine that a quote describes. `unsafe` ones are refused by every verifier of this project.
 *
 * @example
 * tdxFindings(quote).some(({ code }) => code === "evidence/debug");
 */
export function tdxFindings(quote: TdxQuote): readonly Finding[] {
  const { body } = quote;
  const findings: Finding[] = [];
  if (quote.debug) {
    findings.push({
      code: "evidence/debug",
      severity: "unsafe",
      message: `DEBUG: the TD attributes (${toHex(body.tdAttributes)}) let the host read and change this machine's memory`,
    });
  }
  if (!quote.septVeDisable) {
    findings.push({
      code: "evidence/sept-ve-disable",
      severity: "unsafe",
      message: "SEPT_VE_DISABLE is clear: the host can inject exceptions on this machine's memory accesses",
    });
  }
  const intruder = findIntruder(body);
  if (intruder !== undefined)
    findings.push({ code: `evidence/${intruder.code}`, severity: "unsafe", message: intruder.message });
  if (isZero(body.rtMr3)) {
    findings.push({
      code: "evidence/no-workload",
      severity: "warning",
      message: "RTMR3 is all zeros: this machine measured no workload, so it can be no service's image",
    });
  }
  if (quote.padding > 0) {
    findings.push({
      code: "evidence/padding",
      severity: "warning",
      message: `${quote.padding} zero bytes follow the quote; they are not signed`,
    });
  }
  return findings;
}
