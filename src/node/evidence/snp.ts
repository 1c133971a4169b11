import { verify, X509Certificate } from "node:crypto";
import { equalBytes, type Hex, isZero, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { parseSnpReport, type SnpProduct, type SnpReport } from "../../core/evidence/snp.ts";
import { type ChainCache, defineChainKind } from "./chain-cache.ts";
import { checkRevoked, readCrl } from "./crl.ts";
import { readDer, readDerUint } from "./der.ts";
import { SNP_INTERMEDIATES } from "./intermediates.ts";
import { ARK_GENOA, ARK_MILAN, ARK_TURIN } from "./roots.ts";
import { checkTime, checkValidity } from "./time.ts";
import { type Certificate, checkDates, isSignedBy, readIssuer, type Trust, verifyChain } from "./x509.ts";

/*
 * AMD SEV-SNP attestation reports: is this report genuine? Sources: AMD, "SEV Secure Nested Paging Firmware ABI Specification" (56860): report, policy,
 * signature; "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" (57230): chains, extensions, product names.
 *
 *   ARK (pinned, one per product) ──signs──▶ ASK  ──signs──▶ VCEK ──signs──▶ report      VCEK: this chip at this TCB
 *                                 ──signs──▶ ASVK ──signs──▶ VLEK ──signs──▶ report      VLEK: a cloud provider's chips at this TCB
 *
 * AMD publishes no TCB statuses: the report's TCB versions are returned, and the policy judges them.
 */

/** A processor family that AMD signs for. */
export type Product = Exclude<SnpProduct, undefined>;

/**
 * AMD's root of each product, DER. Venice's is not here: it could not be had from AMD and compared when this was written, so that evidence of such machines
 * counts under a test root alone.
 */
export const ARKS: Readonly<Partial<Record<Product, Uint8Array>>> = {
  milan: ARK_MILAN,
  genoa: ARK_GENOA,
  turin: ARK_TURIN,
};
const ARK_KEYS = Object.values(ARKS).map((der) => ({ der, key: new X509Certificate(der).publicKey }));
/** Names in certificates: of the chain's CAs (with these three) and, for product names in leaves, of the products that share a chain. */
export const CHAIN_NAMES: Readonly<Record<Product, string>> = {
  milan: "Milan",
  genoa: "Genoa",
  turin: "Turin",
  venice: "Venice",
};
const PRODUCTS: readonly Product[] = ["milan", "genoa", "turin", "venice"];
const PRODUCT_NAMES: ReadonlyMap<string, Product> = new Map([
  ["Milan", "milan"],
  ["Genoa", "genoa"],
  ["Bergamo", "genoa"],
  ["Siena", "genoa"],
  ["Turin", "turin"],
  ["Venice", "venice"],
]);

const OID = "1.3.6.1.4.1.3704.1";
const OIDS = {
  productName: `${OID}.2`,
  bootloader: `${OID}.3.1`,
  tee: `${OID}.3.2`,
  snp: `${OID}.3.3`,
  microcode: `${OID}.3.8`,
  fmc: `${OID}.3.9`,
  hardwareId: `${OID}.4`,
  cspId: `${OID}.5`,
} as const;
const DER_IA5_STRING = 0x16;
/** Policy bit 17 is reserved and must be one. */
const POLICY_RESERVED_ONE = 1n << 17n;
/** Bytes of a chip id that processors from Turin on use; the rest of the report's field is zero. */
const SHORT_CHIP_ID_BYTES = 8;
const LONG_CHIP_ID_BYTES = 64;
/** The parts of a TCB version that each product has, and its certificates name. */
export const TCB_PARTS: Readonly<Record<Product, readonly TcbPartName[]>> = {
  milan: ["bootloader", "tee", "snp", "microcode"],
  genoa: ["bootloader", "tee", "snp", "microcode"],
  turin: ["fmc", "bootloader", "tee", "snp", "microcode"],
  venice: ["fmc", "tee", "snp"],
};
/** A part of a TCB version. */
export type TcbPartName = "fmc" | "bootloader" | "tee" | "snp" | "microcode";

/** What a certificate authority of AMD's gives out beside the report. DER. */
export interface SnpCertificates {
  /** The VCEK or VLEK. */
  readonly endorsementKey: Uint8Array;
  /** The ASK (for a VCEK) or ASVK (for a VLEK). `undefined`: the known one, see intermediates.ts. */
  readonly signer?: Uint8Array | undefined;
  /** The ARK. It must be the pinned one (or a test root); `undefined`: the one of them that issued the signer. */
  readonly root?: Uint8Array | undefined;
  /** The product's revocation list, signed by the ARK. */
  readonly crl?: Uint8Array | undefined;
}

/** What {@link verifySnpReport} needs to know. */
export interface SnpOptions {
  /** The time to judge at, in seconds since 1970. */
  readonly atUnixSeconds: number;
  /** Privilege levels that may ask for evidence. Default: 0 alone, the most privileged software of the machine. */
  readonly allowedVmpls?: readonly number[];
  /** Whether evidence without a revocation list is refused. Default: false. The result says whether there was one. */
  readonly requireCrl?: boolean;
  /** Roots, DER, that are taken beside AMD's. Evidence under them proves nothing about hardware; the result's `trust` says `TEST ROOT`. */
  readonly unsafeTestRoots?: readonly Uint8Array[] | undefined;
  /** Keeps checked chains between calls. */
  readonly chains?: ChainCache | undefined;
}

/** A genuine report's contents, and what vouches for them. */
export interface VerifiedSnp {
  readonly kind: "snp";
  readonly report: SnpReport;
  readonly trust: Trust;
  readonly product: Product;
  readonly endorsement: "vcek" | "vlek";
  /**
   * The chip, 64 bytes, as the report names it, or where the host masks that (MASK_CHIP_ID), as the VCEK certificate does; `undefined` where neither says.
   */
  readonly chipId: Uint8Array | undefined;
  /** The cloud provider that a VLEK names. */
  readonly cspId: string | undefined;
  /** SHA-256 of the VCEK or VLEK certificate. */
  readonly endorsementSha256: Hex;
  /** Whether a revocation list was given, and so checked. */
  readonly revocationChecked: boolean;
}

const refuse = (code: string, message: string, remedy: string, details: Readonly<Record<string, unknown>> = {}) =>
  new KeysteadError(`snp/${code}`, message, { argument: "report", remedy, details });
const FORGED = "Refuse this machine: its report was altered or not made by the processor that the certificate names.";

/**
 * Verifies a SEV-SNP attestation report of a Milan, Genoa, Turin or Venice machine. Each step has its own error code; the first that fails throws.
 *
 * @param bytes the report, exactly 1184 bytes
 * @throws KeysteadError `snp/debug`, `snp/migration-agent`, `snp/policy-reserved`, `snp/policy-unknown` {bits}, `snp/platform-unknown` {bits}, `snp/vmpl` {vmpl, allowed}, `snp/unsigned`, `snp/signer-missing` {kind}, `snp/endorsement-key` {why},
 * `snp/product-mismatch`, `snp/chip-id-mismatch`, `snp/tcb-mismatch` {part}, `snp/signature`, `snp/crl-missing`, `snp/crl-issuer`,
 * `snp/crl-signature`, `snp/crl-expired`, `snp/crl-not-yet-valid`, `snp/revoked`; those of `parseSnpReport`, `verifyChain` and `checkDates`
 * @example
 * const { report } = verifySnpReport(bytes, { endorsementKey: vcek, signer: ask }, { atUnixSeconds: 1_750_000_000 });
 */
export function verifySnpReport(bytes: Uint8Array, certificates: SnpCertificates, options: SnpOptions): VerifiedSnp {
  const { atUnixSeconds, allowedVmpls = [0] } = options;
  checkTime(atUnixSeconds);
  const claimed = parseSnpReport(bytes);
  checkGuest(claimed, allowedVmpls);

  const key = readEndorsementKey(claimed, certificates, options);
  // How TCB versions are laid out is the certificate's to say: a report of version 2 does not name its product.
  const report = parseSnpReport(bytes, key.product);
  checkDates(key.chain, atUnixSeconds, "snp", "endorsement key chain");
  if (certificates.crl !== undefined) checkCrl(key, certificates.crl, atUnixSeconds);
  else if (options.requireCrl === true)
    throw refuse(
      "crl-missing",
      "no revocation list came with the report's certificates",
      "Fetch AMD's CRL of the product.",
    );
  checkProduct(report, key);
  checkPlatform(report, key);

  if (!verify("sha384", report.signed, { key: key.leaf.publicKey, dsaEncoding: "ieee-p1363" }, report.signature))
    throw refuse("signature", `the ${key.kind.toUpperCase()} did not sign this report`, FORGED);
  return {
    kind: "snp",
    report,
    trust: key.trust,
    product: key.product,
    endorsement: key.kind,
    chipId: chipIdOf(report, key),
    cspId: key.cspId,
    endorsementSha256: key.leaf.sha256,
    revocationChecked: certificates.crl !== undefined,
  };
}

/** What the guest itself must be, whatever its platform. */
function checkGuest({ policy, platformUnknown, vmpl, signingKey }: SnpReport, allowed: readonly number[]): void {
  const shown = `0x${policy.value.toString(16)}`;
  if (policy.debug)
    throw refuse(
      "debug",
      `the guest policy ${shown} allows debugging`,
      "Start the machine with a policy without debugging.",
    );
  if (policy.migrateMa) {
    throw refuse(
      "migration-agent",
      `the guest policy ${shown} lets a migration agent move the machine, and no register measures the agent`,
      "Start the machine with a policy without migration agent.",
    );
  }
  if ((policy.value & POLICY_RESERVED_ONE) === 0n)
    throw refuse("policy-reserved", `the guest policy ${shown} does not set its reserved bit 17`, FORGED);
  if (policy.unknown !== 0n) throw unknownBits("policy-unknown", `the guest policy ${shown}`, policy.unknown);
  if (platformUnknown !== 0n) throw unknownBits("platform-unknown", "the platform information", platformUnknown);
  if (!allowed.includes(vmpl)) {
    throw refuse(
      "vmpl",
      `the report was asked for at VMPL ${vmpl}, and only ${allowed.join(", ") || "none"} may ask`,
      "Ask at an allowed level, or allow this one if what runs at the levels above it is measured.",
      { vmpl, allowed },
    );
  }
  if (signingKey === "none") throw refuse("unsigned", "the report says that no key signed it", FORGED);
}

/** A bit without a known meaning may open the machine. */
function unknownBits(code: string, what: string, bits: bigint): KeysteadError {
  const shown = `0x${bits.toString(16)}`;
  return refuse(
    code,
    `${what} has bits set whose meaning is not known here: ${shown}`,
    "Update keystead; until then start the machine without what sets them.",
    { bits: shown },
  );
}

interface EndorsementKey {
  readonly chain: readonly Certificate[];
  readonly leaf: Certificate;
  readonly root: Certificate;
  readonly trust: Trust;
  readonly kind: "vcek" | "vlek";
  readonly product: Product;
  /** SVNs by part, as certified. */
  readonly tcb: ReadonlyMap<TcbPartName, number>;
  readonly hardwareId: Uint8Array | undefined;
  readonly cspId: string | undefined;
}

const ENDORSEMENT = defineChainKind<EndorsementKey>();

function readEndorsementKey(report: SnpReport, certificates: SnpCertificates, options: SnpOptions): EndorsementKey {
  const { endorsementKey, root } = certificates;
  const testRoots = options.unsafeTestRoots ?? [];
  const kind = report.signingKey === "vlek" ? "vlek" : "vcek";
  const signer = certificates.signer ?? knownSigner(kind, endorsementKey);
  const make = () => verifyEndorsementKey(kind, endorsementKey, signer, root, testRoots);
  if (options.chains === undefined) return make();
  const parts = [Buffer.from(kind), endorsementKey, signer, root ?? new Uint8Array(), ...testRoots];
  return options.chains.get(ENDORSEMENT, parts, make);
}

const KNOWN_SIGNERS = Object.values(SNP_INTERMEDIATES).flatMap((signers) =>
  (["vcek", "vlek"] as const).map((kind) => {
    const der = signers[kind];
    return { kind, der, key: new X509Certificate(der).publicKey };
  }),
);

/** The known intermediate that signed a key. */
function knownSigner(kind: "vcek" | "vlek", leaf: Uint8Array): Uint8Array {
  const argument = `${kind.toUpperCase()} certificate`;
  const found = KNOWN_SIGNERS.find((known) => known.kind === kind && isSignedBy(leaf, known.key, "snp", argument));
  if (found !== undefined) return found.der;
  const name = kind === "vcek" ? "ASK" : "ASVK";
  throw refuse(
    "signer-missing",
    `no ${name} came with the ${argument}, and none that is known issued it`,
    `Give AMD's ${name} of the product; a node with evidence.snpKdsUrl fetches it.`,
    { kind },
  );
}

/**
 * Which intermediate a key was issued by, as the key itself claims: for fetching it, and to be checked like any other. Read with OpenSSL alone, which is
 * quick about what a stranger made up.
 *
 * @returns `undefined` where the certificate names no known issuer
 * @throws KeysteadError `snp/certificate-malformed`
 * @example
 * const { product, kind } = claimedSigner(vlek) ?? {};
 */
export function claimedSigner(
  endorsementKey: Uint8Array,
): { readonly product: Product; readonly kind: "vcek" | "vlek" } | undefined {
  const issuer = readIssuer(endorsementKey, "snp", "endorsement key");
  const [, vlek, name = ""] = /^CN=SEV-(VLEK-)?([A-Za-z]+)$/m.exec(issuer) ?? [];
  const product = PRODUCTS.find((known) => CHAIN_NAMES[known] === name);
  return product === undefined ? undefined : { product, kind: vlek === undefined ? "vcek" : "vlek" };
}

function verifyEndorsementKey(
  kind: "vcek" | "vlek",
  leafDer: Uint8Array,
  signerDer: Uint8Array,
  rootDer: Uint8Array | undefined,
  testRoots: readonly Uint8Array[],
): EndorsementKey {
  const argument = `${kind.toUpperCase()} chain`;
  const wrong = (why: string) =>
    refuse(
      "endorsement-key",
      `the ${kind.toUpperCase()} certificate ${why}`,
      "Give the certificate AMD issued for this chip.",
      {
        why,
      },
    );
  const ders = [leafDer, signerDer, rootDer ?? findArk(signerDer, argument, testRoots)];
  const rules = { room: "snp", argument, roots: Object.values(ARKS), testRoots, length: 3 } as const;
  const { chain, trust } = verifyChain(ders, rules);
  const [leaf, signer, root] = chain;
  if (leaf === undefined || signer === undefined || root === undefined) throw wrong("is missing");
  const product = readProduct(leaf, wrong);

  // One product all the way up: a Genoa key under Milan's root would be judged by the wrong rules.
  const name = CHAIN_NAMES[product];
  const signerName = kind === "vcek" ? `SEV-${name}` : `SEV-VLEK-${name}`;
  if (signer.commonName !== signerName || root.commonName !== `ARK-${name}`) {
    throw wrong(
      `of a ${name} processor was issued by ${JSON.stringify(signer.commonName)} under ${JSON.stringify(root.commonName)}`,
    );
  }
  if (leaf.commonName !== `SEV-${kind.toUpperCase()}`) throw wrong(`is named ${JSON.stringify(leaf.commonName)}`);
  if (leaf.isCa || leaf.publicKey.asymmetricKeyDetails?.namedCurve !== "secp384r1")
    throw wrong("does not hold a P-384 key");
  const svn = (oid: string) => {
    const value = leaf.extensions.get(oid);
    if (value === undefined) throw wrong(`lacks the extension ${oid}`);
    return readDerUint(readDer(value, oid), oid);
  };
  const hardwareId = leaf.extensions.get(OIDS.hardwareId);
  if ((kind === "vcek") !== (hardwareId !== undefined)) throw wrong("has a chip id where none belongs, or none");
  const short = product === "turin" || product === "venice";
  if (hardwareId !== undefined && hardwareId.length !== (short ? SHORT_CHIP_ID_BYTES : LONG_CHIP_ID_BYTES))
    throw wrong(`names a chip by ${hardwareId.length} bytes`);
  const cspId = leaf.extensions.get(OIDS.cspId);
  return {
    chain,
    leaf,
    root,
    trust,
    kind,
    product,
    tcb: new Map(TCB_PARTS[product].map((part) => [part, svn(OIDS[part])])),
    hardwareId,
    cspId: cspId === undefined ? undefined : readIa5(cspId, wrong),
  };
}

/** The pinned root (or test root) that signed an ASK or ASVK; any where none did, for the chain to fail on. */
function findArk(signer: Uint8Array, argument: string, testRoots: readonly Uint8Array[]): Uint8Array {
  const pinned = ARK_KEYS.find(({ key }) => isSignedBy(signer, key, "snp", argument))?.der;
  const signed = (root: Uint8Array) => isSignedBy(signer, new X509Certificate(root).publicKey, "snp", argument);
  return pinned ?? testRoots.find(signed) ?? ARK_MILAN;
}

function readIa5(value: Uint8Array, wrong: (why: string) => KeysteadError): string {
  const item = readDer(value, "certificate extension");
  if (item.tag !== DER_IA5_STRING) throw wrong("has a name that is not a text");
  return Buffer.from(item.value).toString("latin1");
}

/** The product name may carry a stepping: `Milan-B0`. */
function readProduct(leaf: Certificate, wrong: (why: string) => KeysteadError): Product {
  const value = leaf.extensions.get(OIDS.productName);
  const name = value === undefined ? "" : readIa5(value, wrong);
  const product = PRODUCT_NAMES.get(name.split("-")[0] ?? "");
  if (product === undefined) throw wrong(`is for the product ${JSON.stringify(name)}, which is not known`);
  return product;
}

function checkCrl({ root, chain }: EndorsementKey, der: Uint8Array, atUnixSeconds: number): void {
  const crl = readCrl(der, root, "snp", "AMD CRL");
  checkCrlDates(crl, atUnixSeconds);
  // Of this chain, the list speaks of what the ARK issued: the ASK or ASVK. Endorsement keys all have the serial 0.
  for (const certificate of chain.slice(1, 2)) checkRevoked(certificate, crl, "snp", "AMD signing key");
}

/** A list counts within its own dates alone: `snp/crl-expired`, `snp/crl-not-yet-valid`. */
export function checkCrlDates(
  crl: { readonly thisUpdate: number; readonly nextUpdate: number },
  atUnixSeconds: number,
): void {
  checkValidity({ from: crl.thisUpdate, until: crl.nextUpdate }, atUnixSeconds, {
    code: "snp/crl",
    argument: "report",
    what: "the AMD CRL",
    remedy: "Fetch AMD's CRL of the product again.",
    details: { thisUpdate: crl.thisUpdate, nextUpdate: crl.nextUpdate },
  });
}

/** From version 3 on the report names its processor; before, the certificate alone does, and the signature ties the two together. */
function checkProduct(report: SnpReport, { product }: EndorsementKey): void {
  const told = report.product;
  if (told === product || told === undefined) return;
  throw refuse(
    "product-mismatch",
    `the report is of a ${told} and the certificate of a ${product} processor`,
    "Give the certificate of the machine's own chip.",
    { report: told, certificate: product },
  );
}

/** The certificate is for one chip (VCEK) and one TCB: those that the report names. */
function checkPlatform(report: SnpReport, key: EndorsementKey): void {
  const { chipId, reportedTcb } = report;
  // A host may mask the chip id: then the report's is zero, and its signature alone says that it is the certificate's chip.
  if (key.hardwareId !== undefined && !isZero(chipId)) {
    if (!equalBytes(chipId, padChipId(key.hardwareId))) {
      throw refuse(
        "chip-id-mismatch",
        `the VCEK is that of another chip than ${toHex(chipId)}`,
        "Give the VCEK of this chip.",
        {
          chipId: toHex(chipId),
          certificate: toHex(key.hardwareId),
        },
      );
    }
  }
  for (const [part, certified] of key.tcb) {
    const reported = reportedTcb[part];
    if (reported === certified) continue;
    throw refuse(
      "tcb-mismatch",
      `the report's ${part} version is ${reported} and the certificate's ${certified}`,
      "Give the certificate for the TCB that the report names.",
      { part, report: reported, certificate: certified },
    );
  }
}

function padChipId(hardwareId: Uint8Array): Uint8Array {
  const padded = new Uint8Array(LONG_CHIP_ID_BYTES);
  padded.set(hardwareId);
  return padded;
}

function chipIdOf({ chipId }: SnpReport, { hardwareId }: EndorsementKey): Uint8Array | undefined {
  if (!isZero(chipId)) return chipId;
  return hardwareId === undefined ? undefined : padChipId(hardwareId);
}
