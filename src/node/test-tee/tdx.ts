import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { concatBytes, toHex } from "../../core/bytes.ts";
import type { TdxCollateral } from "../evidence/tdx-collateral.ts";
import {
  encodeDer,
  encodeDerOid,
  encodeDerUint,
  encodeLe,
  formatPem,
  issueCertificate,
  issueCrl,
  type TestCertificate,
} from "./pki.ts";

/*
 * A TDX platform that does not exist: quotes of version 4 and 5, and Intel's collateral for them, under a root made here. The layouts are written from
 * the specifications named in src/core/evidence/tdx.ts and src/node/evidence/tdx.ts, not from those parsers.
 */

const YEAR = 365 * 86_400;
const MONTH = 30 * 86_400;
const SGX = "1.2.840.113741.1.13.1";
const FMSPC = "00806f050000";
const PCE_ID = "0000";
const QE_MRSIGNER = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5";
const ZERO48 = "00".repeat(48);
const hex = (digits: string): Uint8Array => new Uint8Array(Buffer.from(digits, "hex"));
const zeros = (length: number): Uint8Array => new Uint8Array(length);

/** What a synthetic quote may differ in. Registers that are not given are zero. */
export interface TestTdxQuote {
  readonly version?: 4 | 5;
  /** Version 5. Default: 1.5. */
  readonly body?: "td1.0" | "td1.5" | "extended";
  /** Of an extended body. Default: what an ordinary TD has, zeros. */
  readonly vmId?: number;
  readonly deviceInfo?: Uint8Array;
  readonly serviceTdHistory?: Uint8Array;
  readonly reportData: Uint8Array;
  readonly mrTd?: Uint8Array;
  readonly rtMr0?: Uint8Array;
  readonly rtMr1?: Uint8Array;
  readonly rtMr2?: Uint8Array;
  readonly rtMr3?: Uint8Array;
  readonly mrSeam?: Uint8Array;
  readonly mrSignerSeam?: Uint8Array;
  readonly seamAttributes?: Uint8Array;
  readonly mrConfigId?: Uint8Array;
  readonly mrOwner?: Uint8Array;
  readonly mrOwnerConfig?: Uint8Array;
  readonly mrServiceTd?: Uint8Array;
  /** Default: SEPT_VE_DISABLE alone. */
  readonly tdAttributes?: Uint8Array;
  /** Default: 5, 1, 2, then zeros: module TDX_01, version 5. */
  readonly teeTcbSvn?: Uint8Array;
  readonly qeIsvSvn?: number;
  readonly qeIsvProdId?: number;
  readonly qeMrSigner?: Uint8Array;
  readonly qeAttributes?: Uint8Array;
  readonly qeMiscSelect?: number;
  /** What the QE report binds in place of the attestation key. */
  readonly boundKey?: Uint8Array;
  /** The second half of the QE report's data, which is zero. */
  readonly qeReportDataTail?: Uint8Array;
  /** Puts another chain into the quote. */
  readonly pckChain?: string;
  /** Certification data type; default 5, a PEM chain. */
  readonly certificationType?: number;
  /** Zero bytes after the quote. */
  readonly padding?: number;
}

/** What synthetic collateral may differ in. Times in seconds since 1970. */
export interface TestTdxCollateral {
  readonly issuedAt?: number;
  readonly nextUpdate?: number;
  readonly qeNextUpdate?: number;
  readonly pckCrlNextUpdate?: number;
  readonly rootCrlNextUpdate?: number;
  readonly fmspc?: string;
  readonly pceId?: string;
  readonly evaluationDataNumber?: number;
  /** Status of the level that the platform reaches. Default: UpToDate. */
  readonly platformStatus?: string;
  readonly platformAdvisories?: readonly string[];
  /** Status of the module's level. Default: UpToDate. */
  readonly moduleStatus?: string;
  /** Status of the QE's level. Default: UpToDate. */
  readonly qeStatus?: string;
  /** Least SVN of every SGX component in the only level. Default: 2, which the platform has. */
  readonly sgxSvn?: number;
  /** The level's TDX components. Default: 5, 1, 2, then zeros. */
  readonly tdxSvns?: readonly number[];
  readonly moduleSvn?: number;
  readonly qeIsvSvn?: number;
  /** Serial numbers to revoke. */
  readonly revoke?: readonly ("pck" | "pck-ca" | "tcb-signing")[];
  /** How many other certificates the PCK CRL names: Intel's had 44 in 2025. Default: none. */
  readonly otherRevocations?: number;
  /** Parts to sign with a key that is not theirs. */
  readonly forge?: readonly ("tcb-info" | "qe-identity" | "pck-crl" | "root-crl")[];
  /** Whose chain goes with TCB info in place of the TCB signing certificate's. */
  readonly tcbSignedByPckCa?: boolean;
  /** Changes TCB info before it is signed. */
  readonly editTcbInfo?: (info: Record<string, unknown>) => Record<string, unknown>;
}

/** A platform: one root, one PCK certificate, one quoting enclave. */
export interface TestTdx {
  /** The root's DER, for `unsafeTestRoots`. */
  readonly root: Uint8Array;
  readonly issueQuote: (quote: TestTdxQuote) => Uint8Array;
  readonly issueCollateral: (collateral?: TestTdxCollateral) => Promise<TdxCollateral>;
}

/** What a synthetic platform may differ in. */
export interface TestTdxOptions {
  /** Now, in seconds since 1970: certificates are good from a day before, for a year; collateral for thirty days. */
  readonly atUnixSeconds: number;
  /** Which of Intel's two CAs issued the PCK certificate. Default: platform. */
  readonly ca?: "platform" | "processor";
  /** Lifetime of the PCK certificate. */
  readonly pckLifetimeSeconds?: number;
  /** Default: the name that a PCK certificate has. */
  readonly pckName?: string;
}

/**
 * Makes a synthetic TDX platform.
 *
 * @example
 * const tee = await createTestTdx({ atUnixSeconds });
 * const options = { atUnixSeconds, unsafeTestRoots: [tee.root] };
 * verifyTdxQuote(tee.issueQuote({ reportData }), verifyTdxCollateral(await tee.issueCollateral(), options), options);
 */
export async function createTestTdx(options: TestTdxOptions): Promise<TestTdx> {
  const { atUnixSeconds } = options;
  const dates = { notBefore: atUnixSeconds - 86_400, notAfter: atUnixSeconds + YEAR };
  const root = await issueCertificate({ commonName: "Intel SGX Root CA", kind: "p256", ca: true, ...dates });
  const caName = options.ca === "processor" ? "Intel SGX PCK Processor CA" : "Intel SGX PCK Platform CA";
  const pckCa = await issueCertificate({ commonName: caName, kind: "p256", ca: true, issuer: root, ...dates });
  const signing = await issueCertificate({
    commonName: "Intel SGX TCB Signing",
    kind: "p256",
    ca: false,
    issuer: root,
    ...dates,
  });
  const pck = await issueCertificate({
    commonName: options.pckName ?? "Intel SGX PCK Certificate",
    kind: "p256",
    ca: false,
    issuer: pckCa,
    extensions: { [SGX]: sgxExtension() },
    notBefore: dates.notBefore,
    notAfter: options.pckLifetimeSeconds === undefined ? dates.notAfter : atUnixSeconds + options.pckLifetimeSeconds,
  });
  const attestation = generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
  const chain = formatPem([pck, pckCa, root]);
  const enclave: QuotingEnclave = { attestation, pck, chain, certified: new Map() };
  return {
    root: root.der,
    issueQuote: (quote) => buildQuote(quote, enclave),
    issueCollateral: (collateral = {}) => buildCollateral(collateral, { atUnixSeconds, root, pckCa, signing, pck }),
  };
}

function sgxExtension(): Uint8Array {
  const pair = (suffix: string, value: Uint8Array) => encodeDer(0x30, encodeDerOid(`${SGX}.${suffix}`), value);
  const svns = Array.from({ length: 16 }, (_, index) => pair(`2.${index + 1}`, encodeDerUint(2)));
  return encodeDer(
    0x30,
    pair("1", encodeDer(0x04, new Uint8Array(16).fill(0x77))),
    pair(
      "2",
      encodeDer(
        0x30,
        ...svns,
        pair("2.17", encodeDerUint(11)),
        pair("2.18", encodeDer(0x04, new Uint8Array(16).fill(2))),
      ),
    ),
    pair("3", encodeDer(0x04, hex(PCE_ID))),
    pair("4", encodeDer(0x04, hex(FMSPC))),
    pair("5", encodeDer(0x0a, Uint8Array.of(1))),
  );
}

const signP256 = (key: KeyObject, message: Uint8Array): Uint8Array =>
  new Uint8Array(sign("sha256", message, { key, dsaEncoding: "ieee-p1363" }));

interface QuotingEnclave {
  readonly attestation: KeyObject;
  readonly pck: TestCertificate;
  readonly chain: string;
  /** The PCK key's signature of each report: a real enclave has its report signed once as well, and keeps it. */
  readonly certified: Map<string, Uint8Array>;
}

function certify(report: Uint8Array, { pck, certified }: QuotingEnclave): Uint8Array {
  const name = toHex(report);
  const signature = certified.get(name) ?? signP256(pck.privateKey, report);
  certified.set(name, signature);
  return signature;
}

function buildQuote(quote: TestTdxQuote, enclave: QuotingEnclave): Uint8Array {
  const { attestation, chain } = enclave;
  const version = quote.version ?? 4;
  const td15 = version === 5 && quote.body !== "td1.0";
  const extended = version === 5 && quote.body === "extended";
  const register = (value: Uint8Array | undefined) => value ?? zeros(48);
  const body = concatBytes(
    quote.teeTcbSvn ?? Uint8Array.of(5, 1, 2, ...zeros(13)),
    register(quote.mrSeam),
    register(quote.mrSignerSeam),
    quote.seamAttributes ?? zeros(8),
    quote.tdAttributes ?? hex("0000001000000000"),
    hex("e702060000000000"),
    register(quote.mrTd),
    register(quote.mrConfigId),
    register(quote.mrOwner),
    register(quote.mrOwnerConfig),
    register(quote.rtMr0),
    register(quote.rtMr1),
    register(quote.rtMr2),
    register(quote.rtMr3),
    quote.reportData,
    td15 ? concatBytes(zeros(16), register(quote.mrServiceTd)) : zeros(0),
    extended
      ? concatBytes(
          Uint8Array.of(quote.vmId ?? 0),
          new Uint8Array(32).fill(0x1d),
          quote.deviceInfo ?? zeros(48),
          quote.serviceTdHistory ?? zeros(156),
        )
      : zeros(0),
  );
  const header = concatBytes(
    encodeLe(2, version),
    encodeLe(2, 2),
    encodeLe(4, 0x81),
    zeros(4),
    hex("939a7233f79c4ca9940a0db3957f0607"),
    zeros(20),
  );
  const descriptor =
    version === 5 ? concatBytes(encodeLe(2, extended ? 4 : td15 ? 3 : 2), encodeLe(4, body.length)) : zeros(0);
  const signed = concatBytes(header, descriptor, body);
  const jwk = createPublicKey(attestation).export({ format: "jwk" });
  const point = concatBytes(Buffer.from(jwk.x ?? "", "base64url"), Buffer.from(jwk.y ?? "", "base64url"));
  const authData = new Uint8Array(32).fill(0x41);
  const qeReport = concatBytes(
    zeros(16),
    encodeLe(4, quote.qeMiscSelect ?? 0),
    zeros(28),
    quote.qeAttributes ?? hex("15000000000000000000000000000000"),
    zeros(64),
    quote.qeMrSigner ?? hex(QE_MRSIGNER),
    zeros(96),
    encodeLe(2, quote.qeIsvProdId ?? 2),
    encodeLe(2, quote.qeIsvSvn ?? 4),
    zeros(60),
    createHash("sha256")
      .update(quote.boundKey ?? point)
      .update(authData)
      .digest(),
    quote.qeReportDataTail ?? zeros(32),
  );
  const pem = new TextEncoder().encode(quote.pckChain ?? chain);
  const certification = concatBytes(
    qeReport,
    certify(qeReport, enclave),
    encodeLe(2, authData.length),
    authData,
    encodeLe(2, quote.certificationType ?? 5),
    encodeLe(4, pem.length),
    pem,
  );
  const signatureData = concatBytes(
    signP256(attestation, signed),
    point,
    encodeLe(2, 6),
    encodeLe(4, certification.length),
    certification,
  );
  return concatBytes(signed, encodeLe(4, signatureData.length), signatureData, zeros(quote.padding ?? 0));
}

interface Authorities {
  readonly atUnixSeconds: number;
  readonly root: TestCertificate;
  readonly pckCa: TestCertificate;
  readonly signing: TestCertificate;
  readonly pck: TestCertificate;
}

async function buildCollateral(what: TestTdxCollateral, by: Authorities): Promise<TdxCollateral> {
  const issuedAt = what.issuedAt ?? by.atUnixSeconds - 3600;
  const nextUpdate = what.nextUpdate ?? issuedAt + MONTH;
  const date = (time: number) => `${new Date(time * 1000).toISOString().slice(0, 19)}Z`;
  const common = { issueDate: date(issuedAt), tcbEvaluationDataNumber: what.evaluationDataNumber ?? 17 };
  const level = (tcb: object, status: string | undefined, advisories: readonly string[] = []) => ({
    tcb,
    tcbDate: "2024-03-13T00:00:00Z",
    tcbStatus: status ?? "UpToDate",
    ...(advisories.length === 0 ? {} : { advisoryIDs: advisories }),
  });
  const seam = { mrsigner: ZERO48, attributes: "0000000000000000", attributesMask: "FFFFFFFFFFFFFFFF" };
  const platform = {
    sgxtcbcomponents: Array.from({ length: 16 }, () => ({ svn: what.sgxSvn ?? 2 })),
    pcesvn: 11,
    tdxtcbcomponents: (what.tdxSvns ?? [5, 1, 2, ...zeros(13)]).map((svn) => ({ svn })),
  };
  const info: Record<string, unknown> = {
    id: "TDX",
    version: 3,
    ...common,
    nextUpdate: date(nextUpdate),
    fmspc: what.fmspc ?? FMSPC,
    pceId: what.pceId ?? PCE_ID,
    tcbType: 0,
    tdxModule: seam,
    tdxModuleIdentities: [
      { id: "TDX_01", ...seam, tcbLevels: [level({ isvsvn: what.moduleSvn ?? 4 }, what.moduleStatus)] },
    ],
    tcbLevels: [level(platform, what.platformStatus, what.platformAdvisories)],
  };
  const qe = {
    id: "TD_QE",
    version: 2,
    ...common,
    nextUpdate: date(what.qeNextUpdate ?? nextUpdate),
    miscselect: "00000000",
    miscselectMask: "FFFFFFFF",
    attributes: "11000000000000000000000000000000",
    attributesMask: "FBFFFFFFFFFFFFFF0000000000000000",
    mrsigner: QE_MRSIGNER.toUpperCase(),
    isvprodid: 2,
    tcbLevels: [level({ isvsvn: what.qeIsvSvn ?? 4 }, what.qeStatus)],
  };
  const tcbInfo = JSON.stringify(what.editTcbInfo?.(info) ?? info);
  const qeIdentity = JSON.stringify(qe);
  const forged = (part: "tcb-info" | "qe-identity" | "pck-crl" | "root-crl") => what.forge?.includes(part) === true;
  const infoSigner = what.tcbSignedByPckCa === true ? by.pckCa : by.signing;
  const sheet = (text: string, signer: TestCertificate) => signP256(signer.privateKey, new TextEncoder().encode(text));
  const revoked = (name: "pck" | "pck-ca" | "tcb-signing", certificate: TestCertificate) =>
    what.revoke?.includes(name) === true ? [certificate] : [];
  return {
    pckCrlIssuerChain: formatPem([by.pckCa, by.root]),
    rootCaCrl: await issueCrl({
      issuer: by.root,
      thisUpdate: issuedAt,
      nextUpdate: what.rootCrlNextUpdate ?? nextUpdate,
      revoked: [...revoked("pck-ca", by.pckCa), ...revoked("tcb-signing", by.signing)],
      signer: forged("root-crl") ? by.pckCa : undefined,
    }),
    pckCrl: await issueCrl({
      issuer: by.pckCa,
      thisUpdate: issuedAt,
      nextUpdate: what.pckCrlNextUpdate ?? nextUpdate,
      revoked: revoked("pck", by.pck),
      serials: Array.from({ length: what.otherRevocations ?? 0 }, () => `02${randomBytes(19).toString("hex")}`),
      signer: forged("pck-crl") ? by.root : undefined,
    }),
    tcbInfoIssuerChain: formatPem([infoSigner, by.root]),
    tcbInfo,
    tcbInfoSignature: sheet(tcbInfo, forged("tcb-info") ? by.pck : infoSigner),
    qeIdentityIssuerChain: formatPem([by.signing, by.root]),
    qeIdentity,
    qeIdentitySignature: sheet(qeIdentity, forged("qe-identity") ? by.pck : by.signing),
  };
}
