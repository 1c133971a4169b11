import { verify } from "node:crypto";
import { fromHex, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { isJsonObject, parseJson } from "../../core/json.ts";
import { checkRevoked, type RevocationList, readCrl } from "./crl.ts";
import { INTEL_SGX_ROOT_CA } from "./roots.ts";
import { parseQeIdentity, parseTcbInfo, type QeIdentity, type TcbInfo } from "./tdx-tcb.ts";
import { checkTime, checkValidity, isValidAt, type Validity } from "./time.ts";
import { type Certificate, parsePemChain, type Trust, verifyChain } from "./x509.ts";

/*
 * What Intel says of TDX platforms: TCB info, QE identity, the PCK CA's and the root's revocation lists. Intel, "Provisioning Certification Service for
 * ECDSA Attestation", API v4. All four are signed under the Intel SGX Root CA: the lists by the CAs they belong to, the two JSON documents by the
 * "Intel SGX TCB Signing" certificate, over the exact bytes of the text.
 */

/** Collateral as fetched; nothing about it is believed. Chains in PEM, leaf first. */
export interface TdxCollateral {
  readonly pckCrlIssuerChain: string;
  /** DER. */
  readonly rootCaCrl: Uint8Array;
  /** DER. */
  readonly pckCrl: Uint8Array;
  readonly tcbInfoIssuerChain: string;
  /** The exact text that is signed. */
  readonly tcbInfo: string;
  /** ECDSA P-256, r ‖ s. */
  readonly tcbInfoSignature: Uint8Array;
  readonly qeIdentityIssuerChain: string;
  /** The exact text that is signed. */
  readonly qeIdentity: string;
  /** ECDSA P-256, r ‖ s. */
  readonly qeIdentitySignature: Uint8Array;
}

/** How long one part of the collateral is good. */
export interface Window extends Validity {
  readonly what: string;
  readonly kind: "collateral" | "crl" | "certificate";
}

/** Collateral whose signatures are checked. Only {@link verifyTdxCollateral} makes it. */
export interface VerifiedTdxCollateral {
  readonly tcbInfo: TcbInfo;
  readonly qeIdentity: QeIdentity;
  readonly pckCa: Certificate;
  readonly pckCrl: RevocationList;
  readonly rootCaCrl: RevocationList;
  readonly trust: Trust;
  readonly windows: readonly Window[];
  /** From when on all of it is in date, in seconds since 1970. */
  readonly validFrom: number;
  /** The last second at which all of it is in date. */
  readonly validUntil: number;
}

/** Options that every TDX check shares. */
export interface TdxOptions {
  /** The time to judge at, in seconds since 1970. */
  readonly atUnixSeconds: number;
  /** Roots, DER, that are taken beside Intel's. Evidence under them proves nothing about hardware; the result's `trust` says `TEST ROOT`. */
  readonly unsafeTestRoots?: readonly Uint8Array[] | undefined;
}

const TCB_SIGNING = "Intel SGX TCB Signing";
/** The CAs that issue PCK certificates, by the CA's name in the service's addresses. */
export const PCK_CAS: Readonly<Record<"platform" | "processor", string>> = {
  platform: "Intel SGX PCK Platform CA",
  processor: "Intel SGX PCK Processor CA",
};

const genuine = new WeakSet<VerifiedTdxCollateral>();

const refuse = (code: string, argument: string, message: string, details: Readonly<Record<string, unknown>> = {}) =>
  new KeysteadError(`tdx/${code}`, message, {
    argument,
    remedy: "Fetch the collateral again from Intel or a PCCS.",
    details,
  });

/**
 * Checks collateral: both chains to the pinned root, the signature of all four parts by the right issuer, and that all is in date. What comes back can
 * be kept: {@link checkCollateral} judges it again at any later time.
 *
 * @throws KeysteadError `tdx/wrong-root`, `tdx/chain`, `tdx/chain-length`, `tdx/chain-malformed`, `tdx/certificate-malformed`,
 * `tdx/certificate-algorithm`, `tdx/wrong-issuer` {commonName}, `tdx/root-mismatch`, `tdx/crl-malformed`, `tdx/crl-issuer`, `tdx/crl-signature`,
 * `tdx/collateral-signature` {document}, `tdx/collateral-malformed`, `tdx/revoked`, and those of {@link checkCollateral}
 * @example
 * const verified = verifyTdxCollateral(parseTdxCollateral(text), { atUnixSeconds: 1_750_000_000 });
 */
export function verifyTdxCollateral(collateral: TdxCollateral, options: TdxOptions): VerifiedTdxCollateral {
  checkTime(options.atUnixSeconds);
  const pck = readChain(collateral.pckCrlIssuerChain, "PCK CRL issuer chain", Object.values(PCK_CAS), options);
  const tcb = readChain(collateral.tcbInfoIssuerChain, "TCB info issuer chain", [TCB_SIGNING], options);
  const qe = readChain(collateral.qeIdentityIssuerChain, "QE identity issuer chain", [TCB_SIGNING], options);
  for (const { trust } of [tcb, qe]) {
    if (trust.sha256 !== pck.trust.sha256)
      throw refuse("root-mismatch", "collateral", "the parts of the collateral end in different roots");
  }
  const rootCaCrl = readCrl(collateral.rootCaCrl, pck.root, "tdx", "root CA CRL");
  const pckCrl = readCrl(collateral.pckCrl, pck.leaf, "tdx", "PCK CRL");
  verifyText(collateral.tcbInfo, collateral.tcbInfoSignature, tcb.leaf, "TCB info");
  verifyText(collateral.qeIdentity, collateral.qeIdentitySignature, qe.leaf, "QE identity");
  for (const { leaf } of [pck, tcb, qe]) checkRevoked(leaf, rootCaCrl, "tdx", "collateral");
  const tcbInfo = parseTcbInfo(collateral.tcbInfo);
  const qeIdentity = parseQeIdentity(collateral.qeIdentity);

  const windows: Window[] = [
    { what: "TCB info", kind: "collateral", from: tcbInfo.issueDate, until: tcbInfo.nextUpdate },
    { what: "QE identity", kind: "collateral", from: qeIdentity.issueDate, until: qeIdentity.nextUpdate },
    { what: "PCK CRL", kind: "crl", from: pckCrl.thisUpdate, until: pckCrl.nextUpdate },
    { what: "root CA CRL", kind: "crl", from: rootCaCrl.thisUpdate, until: rootCaCrl.nextUpdate },
  ];
  for (const certificate of [pck.leaf, tcb.leaf, qe.leaf, pck.root]) {
    const { commonName, notBefore, notAfter } = certificate;
    windows.push({ what: commonName, kind: "certificate", from: notBefore, until: notAfter });
  }
  const verified: VerifiedTdxCollateral = Object.freeze({
    tcbInfo,
    qeIdentity,
    pckCa: pck.leaf,
    pckCrl,
    rootCaCrl,
    trust: pck.trust,
    windows,
    validFrom: Math.max(...windows.map(({ from }) => from)),
    validUntil: Math.min(...windows.map(({ until }) => until)),
  });
  genuine.add(verified);
  checkCollateral(verified, options.atUnixSeconds);
  return verified;
}

/**
 * Checks that collateral came out of {@link verifyTdxCollateral} and that every part of it is in date.
 *
 * @throws KeysteadError `tdx/collateral-not-verified`, `tdx/collateral-expired`, `tdx/collateral-not-yet-valid`, `tdx/crl-expired`,
 * `tdx/crl-not-yet-valid`, `tdx/certificate-expired`, `tdx/certificate-not-yet-valid`, each {what, from, until}
 * @example
 * checkCollateral(verified, 1_750_000_000);
 */
export function checkCollateral(collateral: VerifiedTdxCollateral, atUnixSeconds: number): void {
  checkTime(atUnixSeconds);
  if (!genuine.has(collateral)) {
    throw refuse("collateral-not-verified", "collateral", "this collateral did not come out of verifyTdxCollateral");
  }
  for (const { what, kind, from, until } of collateral.windows) {
    checkValidity({ from, until }, atUnixSeconds, {
      code: `tdx/${kind}`,
      argument: "collateral",
      what,
      remedy: "Fetch the collateral again from Intel or a PCCS.",
      details: { what },
    });
  }
}

/**
 * Whether every part of collateral is in date, with the tolerance of {@link checkCollateral}.
 *
 * @example
 * if (!isInDate(held, atUnixSeconds)) held = await renew();
 */
export function isInDate({ validFrom, validUntil }: VerifiedTdxCollateral, atUnixSeconds: number): boolean {
  return isValidAt({ from: validFrom, until: validUntil }, atUnixSeconds);
}

interface SignerChain {
  readonly leaf: Certificate;
  readonly root: Certificate;
  readonly trust: Trust;
}

/** A signer directly under the root, by one of the names it may have: the same root signs CAs and document signers. */
function readChain(pem: string, argument: string, names: readonly string[], options: TdxOptions): SignerChain {
  const { chain, trust } = verifyChain(parsePemChain(pem, "tdx", argument), {
    room: "tdx",
    argument,
    roots: [INTEL_SGX_ROOT_CA],
    testRoots: options.unsafeTestRoots,
    length: 2,
  });
  const [leaf, root] = chain;
  if (leaf === undefined || root === undefined || !names.includes(leaf.commonName)) {
    throw refuse("wrong-issuer", argument, `${argument} starts with ${JSON.stringify(leaf?.commonName)}`, {
      commonName: leaf?.commonName,
      expected: names,
    });
  }
  return { leaf, root, trust };
}

function verifyText(text: string, signature: Uint8Array, signer: Certificate, document: string): void {
  const key = { key: signer.publicKey, dsaEncoding: "ieee-p1363" } as const;
  if (signature.length === 64 && verify("sha256", Buffer.from(text, "utf8"), key, signature)) return;
  throw refuse(
    "collateral-signature",
    "collateral",
    `${document} does not carry Intel's signature over these exact bytes`,
    {
      document,
    },
  );
}

/**
 * Reads collateral from one JSON file, in the field names that verifiers of the field share: PEM chains and the two signed texts as they are, lists and
 * signatures in hex.
 *
 * @throws KeysteadError `tdx/collateral-malformed` {field}, and those of `parseJson` and `fromHex`
 * @example
 * parseTdxCollateral(readFileSync("collateral.json", "utf8"));
 */
export function parseTdxCollateral(json: string): TdxCollateral {
  const value = parseJson(json, "collateral");
  const text = (field: string): string => {
    const found = isJsonObject(value) ? value[field] : undefined;
    if (typeof found === "string") return found;
    throw refuse("collateral-malformed", "collateral", `the collateral's ${field} is not a text`, { field });
  };
  return {
    pckCrlIssuerChain: text("pck_crl_issuer_chain"),
    rootCaCrl: fromHex(text("root_ca_crl"), "root_ca_crl"),
    pckCrl: fromHex(text("pck_crl"), "pck_crl"),
    tcbInfoIssuerChain: text("tcb_info_issuer_chain"),
    tcbInfo: text("tcb_info"),
    tcbInfoSignature: fromHex(text("tcb_info_signature"), "tcb_info_signature"),
    qeIdentityIssuerChain: text("qe_identity_issuer_chain"),
    qeIdentity: text("qe_identity"),
    qeIdentitySignature: fromHex(text("qe_identity_signature"), "qe_identity_signature"),
  };
}

/**
 * Writes collateral as the JSON that {@link parseTdxCollateral} reads.
 *
 * @example
 * writeFileSync("collateral.json", formatTdxCollateral(collateral));
 */
export function formatTdxCollateral(collateral: TdxCollateral): string {
  const hex = (bytes: Uint8Array) => toHex(bytes).slice(2);
  return JSON.stringify({
    pck_crl_issuer_chain: collateral.pckCrlIssuerChain,
    root_ca_crl: hex(collateral.rootCaCrl),
    pck_crl: hex(collateral.pckCrl),
    tcb_info_issuer_chain: collateral.tcbInfoIssuerChain,
    tcb_info: collateral.tcbInfo,
    tcb_info_signature: hex(collateral.tcbInfoSignature),
    qe_identity_issuer_chain: collateral.qeIdentityIssuerChain,
    qe_identity: collateral.qeIdentity,
    qe_identity_signature: hex(collateral.qeIdentitySignature),
  });
}
