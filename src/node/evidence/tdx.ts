import { createHash, type KeyObject, verify } from "node:crypto";
import { concatBytes, equalBytes, type Hex, isZero, Reader, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { findIntruder, parseTdxQuote, type TdxBody, type TdxQuote } from "../../core/evidence/tdx.ts";
import { describeTcb, type TcbReport } from "../../core/tcb.ts";
import { type ChainCache, defineChainKind } from "./chain-cache.ts";
import { checkRevoked } from "./crl.ts";
import { DER_OCTET_STRING, type DerItem, readDer, readDerList, readDerOid, readDerUint } from "./der.ts";
import { INTEL_SGX_ROOT_CA } from "./roots.ts";
import { checkCollateral, PCK_CAS, type TdxOptions, type VerifiedTdxCollateral } from "./tdx-collateral.ts";
import { explainTdx, type JudgedTdx } from "./tdx-shortfall.ts";
import {
  convergeTcbStatus,
  judgeModule,
  judgePlatform,
  judgeQe,
  type ModuleVerdict,
  type PlatformTcb,
  type TcbStatus,
  type TcbVerdict,
} from "./tdx-tcb.ts";
import { checkTime } from "./time.ts";
import { type Certificate, checkDates, parsePemChain, type Trust, verifyChain } from "./x509.ts";

/*
 * Intel TDX quotes: is this quote genuine, and what is its platform's TCB status? Sources: Intel, "TDX DCAP Quoting Library API" (quote layout and what
 * each signature covers), "SGX PCK Certificate and CRL Profile" (chain and SGX extension), "TDX Module ABI" (TD attributes), and tdx-tcb.ts's.
 *
 *   PCK certificate ──signs──▶ QE report ──its report data binds──▶ attestation key ──signs──▶ header ‖ body
 *
 * Reported, for the policy to judge: the TCB status. A status of Revoked is refused here.
 */

/** TD attributes that a machine may have; SEPT_VE_DISABLE (28) must be set. Not here: the debug byte (0–7), MIGRATABLE (29), and what is reserved. */
const ALLOWED_ATTRIBUTES =
  (1n << 27n) | // LASS: linear address space separation, a defence
  (1n << 28n) | // SEPT_VE_DISABLE
  (1n << 30n) | // PKS: supervisor protection keys
  (1n << 31n) | // KL: key locker
  (1n << 63n); // PERFMON: the TD's own performance counters
const SEPT_VE_DISABLE = 1n << 28n;
const DEBUG_BYTE = 0xffn;

const PCK_LEAF = "Intel SGX PCK Certificate";
const SGX_EXTENSION = "1.2.840.113741.1.13.1";
/** DER of a P-256 SubjectPublicKeyInfo (RFC 5480) up to the point, uncompressed. */
const P256_SPKI = Uint8Array.from([
  0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
  0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
]);

/** A genuine quote's contents, and what vouches for them. */
export interface VerifiedTdx {
  readonly kind: "tdx";
  readonly quote: TdxQuote;
  readonly trust: Trust;
  /** The worst of platform, TDX module and quoting enclave. */
  readonly tcbStatus: TcbStatus;
  /** The same with its reasons, for people. */
  readonly tcb: TcbReport;
  readonly platformTcb: TcbVerdict;
  readonly qeTcb: TcbVerdict;
  /** `undefined` where the module has no identity of its own (major version 0). */
  readonly moduleTcb: ModuleVerdict | undefined;
  /** Of all levels that matched, sorted. */
  readonly advisoryIds: readonly string[];
  readonly fmspc: Hex;
  /** SHA-256 of the PCK certificate: names one platform at one TCB. */
  readonly pckSha256: Hex;
  /** The platform provisioning id, 16 bytes: names one platform. */
  readonly ppid: Hex;
  readonly evaluationDataNumber: number;
}

/** Options of {@link verifyTdxQuote}. */
export interface TdxQuoteOptions extends TdxOptions {
  /** Keeps checked PCK chains between calls. */
  readonly chains?: ChainCache | undefined;
}

const refuse = (code: string, message: string, remedy: string, details: Readonly<Record<string, unknown>> = {}) =>
  new KeysteadError(`tdx/${code}`, message, { argument: "quote", remedy, details });
const FORGED = "Refuse this machine: its quote was altered or not made by a TDX platform.";

/**
 * Verifies a TDX quote, version 4 or 5. Each step has its own error code; the first that fails throws.
 *
 * @param bytes the quote, binary; zero bytes may follow it
 * @param collateral of the quote's platform family, out of `verifyTdxCollateral`
 * @throws KeysteadError `tdx/debug`, `tdx/td-attributes` {attributes}, `tdx/sept-ve-disable`, `tdx/service-td`, `tdx/nested-vm`, `tdx/device-info`, `tdx/certification-type`,
 * `tdx/pck-certificate`, `tdx/wrong-issuer`, `tdx/root-mismatch`, `tdx/crl-issuer`, `tdx/revoked`, `tdx/fmspc-mismatch`, `tdx/pce-mismatch`,
 * `tdx/qe-report-signature`, `tdx/attestation-key-binding`, `tdx/signature`, `tdx/tcb-revoked`; those of `parseTdxQuote`, `checkCollateral`,
 * `verifyChain`, `checkDates`, `judgeQe`, `judgeModule`, `judgePlatform`
 * @example
 * const { tcbStatus, quote } = verifyTdxQuote(bytes, collateral, { atUnixSeconds: 1_750_000_000 });
 */
export function verifyTdxQuote(
  bytes: Uint8Array,
  collateral: VerifiedTdxCollateral,
  options: TdxQuoteOptions,
): VerifiedTdx {
  const { atUnixSeconds } = options;
  checkTime(atUnixSeconds);
  const quote = parseTdxQuote(bytes);
  checkTd(quote.body);

  // Collateral and chain: in date now, one root, not revoked, of the same platform family.
  checkCollateral(collateral, atUnixSeconds);
  const pck = readPckChain(quote, options);
  checkDates(pck.chain, atUnixSeconds, "tdx", "PCK chain");
  if (pck.trust.sha256 !== collateral.trust.sha256) {
    throw refuse(
      "root-mismatch",
      "quote and collateral end in different roots",
      "Use collateral from the quote's vendor.",
    );
  }
  if (
    !equalBytes(pck.issuer.subject, collateral.pckCa.subject) ||
    !equalBytes(pck.issuer.spki, collateral.pckCa.spki)
  ) {
    throw refuse(
      "crl-issuer",
      `the collateral's PCK CRL is that of ${JSON.stringify(collateral.pckCa.commonName)}, and ${JSON.stringify(pck.issuer.commonName)} issued the quote's certificate`,
      "Fetch the CRL of the CA that issued the PCK certificate (platform or processor).",
    );
  }
  checkRevoked(pck.issuer, collateral.rootCaCrl, "tdx", "PCK CA");
  checkRevoked(pck.leaf, collateral.pckCrl, "tdx", "PCK certificate");
  const { tcbInfo, qeIdentity } = collateral;
  checkSame(pck.sgx.fmspc, tcbInfo.fmspc, "fmspc-mismatch", "FMSPC");
  checkSame(pck.sgx.pceId, tcbInfo.pceId, "pce-mismatch", "PCE id");

  // From the PCK key to the quoting enclave's report, from there to the attestation key, and from that to this quote.
  const { signatureData } = quote;
  const { qeReport } = signatureData;
  checkQeReportSignature(pck.leaf, signatureData, options.chains);
  const bound = createHash("sha256").update(signatureData.attestationKey).update(signatureData.qeAuthData).digest();
  if (!equalBytes(qeReport.reportData.subarray(0, 32), bound) || !isZero(qeReport.reportData.subarray(32)))
    throw refuse("attestation-key-binding", "the quoting enclave's report does not name the attestation key", FORGED);
  if (!verifyByPoint(signatureData.attestationKey, quote.signed, signatureData.signature))
    throw refuse("signature", "the attestation key did not sign this quote", FORGED);

  // What Intel thinks of each part.
  const judged = judgeParts(quote, pck.sgx.tcb, collateral);
  const tcb: TcbReport = { ...explainTdx(judged), until: Math.min(tcbInfo.nextUpdate, qeIdentity.nextUpdate) };
  const { status: tcbStatus, platform: platformTcb, module: moduleTcb, qe: qeTcb } = judged;
  if (tcbStatus === "Revoked") {
    throw refuse(
      "tcb-revoked",
      `Intel revoked this platform's TCB level: ${describeTcb(tcb)}`,
      "Update the platform, then ask for a new quote.",
      { tcb },
    );
  }
  const advisories = new Set(tcb.parts.flatMap((part) => part.advisories));
  return {
    kind: "tdx",
    quote,
    trust: pck.trust,
    tcbStatus,
    tcb,
    platformTcb,
    qeTcb,
    moduleTcb,
    advisoryIds: [...advisories].sort(),
    fmspc: toHex(pck.sgx.fmspc),
    pckSha256: pck.leaf.sha256,
    ppid: toHex(pck.sgx.ppid),
    evaluationDataNumber: Math.min(tcbInfo.evaluationDataNumber, qeIdentity.evaluationDataNumber),
  };
}

/** Each part by Intel's documents, and the worst of them. */
function judgeParts(quote: TdxQuote, tcb: PlatformTcb, { tcbInfo, qeIdentity }: VerifiedTdxCollateral): JudgedTdx {
  const { body } = quote;
  const { qeReport } = quote.signatureData;
  const qe = judgeQe(qeReport, qeIdentity);
  const module = judgeModule(body, tcbInfo);
  const platform = judgePlatform(tcb, body, tcbInfo);
  const parts = module === undefined ? [qe] : [module, qe];
  const status = parts.reduce((worst, part) => convergeTcbStatus(worst, part.status), platform.status);
  return { status, platform, module, qe, tcb, body, qeIsvSvn: qeReport.isvSvn, tcbInfo, qeIdentity };
}

/**
 * What other collateral of the same platform family (Intel's early set) says of a quote that {@link verifyTdxQuote} accepted. It decides nothing.
 *
 * @throws KeysteadError those of `judgeQe`, `judgeModule` and `judgePlatform`; `tdx/fmspc-mismatch`, `tdx/pce-mismatch`
 * @example
 * const { status } = foreseeTdx(verified, earlyCollateral);
 */
export function foreseeTdx(
  { quote }: Pick<VerifiedTdx, "quote">,
  collateral: VerifiedTdxCollateral,
  options: Pick<TdxQuoteOptions, "chains" | "unsafeTestRoots">,
): NonNullable<TcbReport["early"]> {
  const { sgx } = readPckChain(quote, options);
  checkSame(sgx.fmspc, collateral.tcbInfo.fmspc, "fmspc-mismatch", "FMSPC");
  checkSame(sgx.pceId, collateral.tcbInfo.pceId, "pce-mismatch", "PCE id");
  return explainTdx(judgeParts(quote, sgx.tcb, collateral));
}

/** What the TD itself must be, whatever its platform: nobody outside may read it, change it, move it, or serve it unmeasured. */
function checkTd(body: TdxBody): void {
  const attributes = new Reader(body.tdAttributes, "TD attributes").u64le();
  const shown = toHex(body.tdAttributes);
  const remedy =
    "Start the machine without debugging, migration, service TDs or trusted devices, on a host that sets SEPT_VE_DISABLE.";
  if ((attributes & DEBUG_BYTE) !== 0n)
    throw refuse("debug", `the TD attributes ${shown} have a bit of the debug byte set`, remedy, { attributes: shown });
  if ((attributes & ~ALLOWED_ATTRIBUTES) !== 0n)
    throw refuse("td-attributes", `the TD attributes ${shown} have a forbidden bit set`, remedy, { attributes: shown });
  if ((attributes & SEPT_VE_DISABLE) === 0n)
    throw refuse("sept-ve-disable", `the TD attributes ${shown} do not set SEPT_VE_DISABLE`, remedy);
  const intruder = findIntruder(body);
  if (intruder !== undefined) throw refuse(intruder.code, intruder.message, remedy);
}

const QE_REPORT = defineChainKind<{ readonly signedBy: Certificate }>();

/** A quoting enclave has its report certified for its attestation key once, and puts that into every quote: a link of the chain, checked once as the others. */
function checkQeReportSignature(
  leaf: Certificate,
  { qeReport, qeReportSignature }: TdxQuote["signatureData"],
  chains: TdxQuoteOptions["chains"],
): void {
  const make = () => {
    if (verifyP256(leaf.publicKey, qeReport.bytes, qeReportSignature)) return { signedBy: leaf };
    throw refuse("qe-report-signature", "the PCK key did not sign the quoting enclave's report", FORGED);
  };
  if (chains === undefined) make();
  else chains.get(QE_REPORT, [leaf.spki, qeReport.bytes, qeReportSignature], make);
}

interface SgxExtension {
  readonly ppid: Uint8Array;
  readonly tcb: PlatformTcb;
  readonly pceId: Uint8Array;
  readonly fmspc: Uint8Array;
}

interface PckChain {
  readonly chain: readonly Certificate[];
  readonly leaf: Certificate;
  readonly issuer: Certificate;
  readonly trust: Trust;
  readonly sgx: SgxExtension;
}

const PCK = defineChainKind<PckChain>();

function readPckChain(
  { signatureData }: TdxQuote,
  { chains, unsafeTestRoots = [] }: Pick<TdxQuoteOptions, "chains" | "unsafeTestRoots">,
): PckChain {
  const { pckChain, certificationType } = signatureData;
  if (pckChain === undefined) {
    throw refuse(
      "certification-type",
      `the quote's certification data is of type ${certificationType}, not a PCK certificate chain (5)`,
      "Configure the host's quoting service to put the PCK certificate chain into its quotes.",
      { certificationType },
    );
  }
  const make = () => verifyPckChain(pckChain, unsafeTestRoots);
  return chains === undefined ? make() : chains.get(PCK, [pckChain, ...unsafeTestRoots], make);
}

function verifyPckChain(pem: Uint8Array, testRoots: readonly Uint8Array[]): PckChain {
  const rules = { room: "tdx", argument: "PCK chain", roots: [INTEL_SGX_ROOT_CA], testRoots, length: 3 } as const;
  const { chain, trust } = verifyChain(parsePemChain(pem, "tdx", "PCK chain"), rules);
  const [leaf, issuer] = chain;
  if (leaf === undefined || issuer === undefined || !Object.values(PCK_CAS).includes(issuer.commonName)) {
    throw refuse("wrong-issuer", `${JSON.stringify(issuer?.commonName)} does not issue PCK certificates`, FORGED);
  }
  if (leaf.commonName !== PCK_LEAF || leaf.isCa || leaf.publicKey.asymmetricKeyDetails?.namedCurve !== "prime256v1")
    throw refuse("pck-certificate", `${JSON.stringify(leaf.commonName)} is not a PCK certificate`, FORGED);
  return { chain, leaf, issuer, trust, sgx: readSgxExtension(leaf) };
}

/** Intel, "SGX PCK Certificate and CRL Profile", SGX extensions: a sequence of (OID, value); .1 PPID, .2 TCB, .3 PCE id, .4 FMSPC. */
function readSgxExtension(leaf: Certificate): SgxExtension {
  const what = "PCK certificate's SGX extension";
  const bytes = leaf.extensions.get(SGX_EXTENSION);
  if (bytes === undefined) throw refuse("pck-certificate", "the PCK certificate has no SGX extension", FORGED);
  const pairs = (item: DerItem | undefined): Map<string, DerItem | undefined> => {
    const found = new Map<string, DerItem | undefined>();
    for (const pair of readDerList(item, what)) {
      const [oid, value] = readDerList(pair, what);
      const name = readDerOid(oid, what).slice(SGX_EXTENSION.length + 1);
      if (found.has(name)) throw refuse("pck-certificate", `${what} has ${name} twice`, FORGED);
      found.set(name, value);
    }
    return found;
  };
  const octets = (item: DerItem | undefined, length: number): Uint8Array => {
    if (item?.tag === DER_OCTET_STRING && item.value.length === length) return item.value;
    throw refuse("pck-certificate", `${what} lacks a value of ${length} bytes`, FORGED);
  };
  const all = pairs(readDer(bytes, what));
  const tcb = pairs(all.get("2"));
  return {
    ppid: octets(all.get("1"), 16),
    tcb: {
      sgxSvns: Array.from({ length: 16 }, (_, index) => readDerUint(tcb.get(`2.${index + 1}`), what)),
      pceSvn: readDerUint(tcb.get("2.17"), what),
    },
    pceId: octets(all.get("3"), 2),
    fmspc: octets(all.get("4"), 6),
  };
}

function checkSame(quoted: Uint8Array, listed: Uint8Array, code: string, what: string): void {
  if (equalBytes(quoted, listed)) return;
  throw refuse(
    code,
    `the quote's platform has the ${what} ${toHex(quoted)} and the TCB info is for ${toHex(listed)}`,
    "Use the collateral of the quote's own platform family.",
    { quoted: toHex(quoted), listed: toHex(listed) },
  );
}

/** Whether an attestation key, x ‖ y, signed; not so where the point is not on the curve. OpenSSL imports the key as it verifies, which spares an object. */
function verifyByPoint(point: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  const key = Buffer.from(concatBytes(P256_SPKI, point));
  try {
    return verify("sha256", message, { key, format: "der", type: "spki" }, encodeSignature(signature));
  } catch {
    return false;
  }
}

const verifyP256 = (key: KeyObject, message: Uint8Array, signature: Uint8Array): boolean =>
  verify("sha256", message, key, encodeSignature(signature));

/** r ‖ s as the SEQUENCE of two INTEGERs that OpenSSL reads natively: its conversion of the raw form costs a third of a verification. */
function encodeSignature(signature: Uint8Array): Uint8Array {
  const half = signature.length / 2;
  const integer = (bytes: Uint8Array): Uint8Array => {
    const first = bytes.findIndex((byte) => byte !== 0);
    const digits = bytes.subarray(first === -1 ? half - 1 : first);
    const sign = (digits[0] ?? 0) >= 0x80 ? [0] : [];
    return Uint8Array.of(0x02, sign.length + digits.length, ...sign, ...digits);
  };
  const body = concatBytes(integer(signature.subarray(0, half)), integer(signature.subarray(half)));
  return concatBytes(Uint8Array.of(0x30, body.length), body);
}

/** What one needs to know to fetch a quote's collateral. */
export interface TdxCollateralKey {
  readonly fmspc: Hex;
  readonly ca: "platform" | "processor";
}

/**
 * Says which collateral a quote needs. The PCK chain's signatures are checked, so only real platform families are ever asked for; nothing else is.
 *
 * @throws KeysteadError `tdx/certification-type`, `tdx/wrong-issuer`, `tdx/pck-certificate`; those of `parseTdxQuote` and `verifyChain`
 * @example
 * const { fmspc, ca } = readTdxCollateralKey(bytes, { chains });
 */
export function readTdxCollateralKey(
  bytes: Uint8Array,
  options: Pick<TdxQuoteOptions, "chains" | "unsafeTestRoots"> = {},
): TdxCollateralKey {
  const { issuer, sgx } = readPckChain(parseTdxQuote(bytes), options);
  return { fmspc: toHex(sgx.fmspc), ca: issuer.commonName === PCK_CAS.processor ? "processor" : "platform" };
}
