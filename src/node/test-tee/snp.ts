import { sign } from "node:crypto";
import type { SnpCertificates } from "../evidence/snp.ts";
import { encodeDer, encodeDerUint, encodeLe, issueCertificate, issueCrl } from "./pki.ts";

/*
 * A SEV-SNP processor that does not exist: reports and AMD's certificates for them, under a root made here. The layout is written from the
 * specifications named in src/core/evidence/snp.ts and src/node/evidence/snp.ts, not from those parsers.
 */

const YEAR = 365 * 86_400;
const OID = "1.3.6.1.4.1.3704.1";
const REPORT_BYTES = 1184;
const SIGNED_BYTES = 0x2a0;

/** SVNs that the processor's certificate names. */
const TCB = { fmc: 1, bootloader: 9, tee: 2, snp: 23, microcode: 220 } as const;
const PRODUCTS = {
  milan: { name: "Milan", leaf: "Milan-B0", cpuid: [0x19, 0x01, 1] },
  genoa: { name: "Genoa", leaf: "Genoa", cpuid: [0x19, 0x11, 1] },
  turin: { name: "Turin", leaf: "Turin-B1", cpuid: [0x1a, 0x02, 1] },
  venice: { name: "Venice", leaf: "Venice-A0", cpuid: [0x1a, 0x51, 0] },
} as const;

/** SMT, ECC, and the check for aliases complete. */
const PLATFORM_INFO = 0x25n;

/** What a synthetic report may differ in. Registers that are not given are zero. */
export interface TestSnpReport {
  readonly reportData: Uint8Array;
  /** 2 to 5; default 3, which names its processor. */
  readonly version?: number;
  readonly measurement?: Uint8Array;
  readonly hostData?: Uint8Array;
  readonly idKeyDigest?: Uint8Array;
  readonly authorKeyDigest?: Uint8Array;
  readonly familyId?: Uint8Array;
  readonly imageId?: Uint8Array;
  /** Default: SMT allowed, and the bit that must be one. */
  readonly policy?: bigint;
  /** Default: SMT, ECC, ALIAS_CHECK_COMPLETE. */
  readonly platformInfo?: bigint;
  readonly vmpl?: number;
  /** Default: the processor's own; zeros are what a host that masks it leaves. */
  readonly chipId?: Uint8Array;
  /** One more than what the certificate says. */
  readonly raise?: "bootloader" | "tee" | "snp" | "microcode" | "fmc";
  readonly cpuid?: readonly [family: number, model: number, stepping: number];
  /** The TCB version's 8 bytes, in all its places. Default: the certificate's. */
  readonly tcb?: Uint8Array;
  /** Which key the report says signed it; default: the one that did. */
  readonly signingKey?: number;
}

/** A processor: one root, one endorsement key. */
export interface TestSnp {
  /** The root's DER, for `unsafeTestRoots`. */
  readonly root: Uint8Array;
  readonly certificates: SnpCertificates & { readonly signer: Uint8Array; readonly root: Uint8Array };
  readonly issueReport: (report: TestSnpReport) => Uint8Array;
  /** A revocation list, with the signing key's serial on it if `revoked`. */
  readonly issueCrl: (options?: {
    readonly revoked?: boolean;
    /** Default: a day before. */
    readonly thisUpdate?: number;
    readonly nextUpdate?: number;
    readonly forged?: boolean;
  }) => Promise<Uint8Array>;
}

/** What a synthetic processor may differ in. */
export interface TestSnpOptions {
  /** Now, in seconds since 1970: certificates are good from a day before, for a year. */
  readonly atUnixSeconds: number;
  /** Default: milan. */
  readonly product?: keyof typeof PRODUCTS;
  /** Default: vcek. */
  readonly endorsement?: "vcek" | "vlek";
}

/**
 * Makes a synthetic SEV-SNP processor.
 *
 * @example
 * const tee = await createTestSnp({ atUnixSeconds, product: "turin" });
 * verifySnpReport(tee.issueReport({ reportData }), tee.certificates, { atUnixSeconds, unsafeTestRoots: [tee.root] });
 */
export async function createTestSnp(options: TestSnpOptions): Promise<TestSnp> {
  const { atUnixSeconds, product = "milan", endorsement = "vcek" } = options;
  const vlek = endorsement === "vlek";
  const names = PRODUCTS[product];
  const dates = { notBefore: atUnixSeconds - 86_400, notAfter: atUnixSeconds + YEAR };
  const root = await issueCertificate({ commonName: `ARK-${names.name}`, kind: "rsa-pss", ca: true, ...dates });
  const signer = await issueCertificate({
    commonName: vlek ? `SEV-VLEK-${names.name}` : `SEV-${names.name}`,
    kind: "rsa-pss",
    ca: true,
    issuer: root,
    ...dates,
  });
  const late = product === "turin" || product === "venice";
  const chipId = new Uint8Array(64);
  if (!vlek) chipId.fill(0xc1, 0, late ? 8 : 64);
  const text = (value: string) => encodeDer(0x16, new TextEncoder().encode(value));
  const leaf = await issueCertificate({
    commonName: vlek ? "SEV-VLEK" : "SEV-VCEK",
    kind: "p384",
    ca: false,
    issuer: signer,
    ...dates,
    extensions: {
      [`${OID}.1`]: encodeDerUint(late ? 1 : 0),
      [`${OID}.2`]: text(vlek ? names.name : names.leaf),
      [`${OID}.3.2`]: encodeDerUint(TCB.tee),
      [`${OID}.3.3`]: encodeDerUint(TCB.snp),
      ...(product === "venice"
        ? {}
        : { [`${OID}.3.1`]: encodeDerUint(TCB.bootloader), [`${OID}.3.8`]: encodeDerUint(TCB.microcode) }),
      ...(late ? { [`${OID}.3.9`]: encodeDerUint(TCB.fmc) } : {}),
      ...(vlek ? { [`${OID}.5`]: text("CN=test.invalid") } : { [`${OID}.4`]: chipId.slice(0, late ? 8 : 64) }),
    },
  });
  return {
    root: root.der,
    certificates: { endorsementKey: leaf.der, signer: signer.der, root: root.der },
    issueReport: (report) => {
      const bytes = buildReport(report, product, vlek, report.chipId ?? chipId);
      const signature = sign("sha384", bytes.subarray(0, SIGNED_BYTES), {
        key: leaf.privateKey,
        dsaEncoding: "ieee-p1363",
      });
      bytes.set(new Uint8Array(signature.subarray(0, 48)).reverse(), SIGNED_BYTES);
      bytes.set(new Uint8Array(signature.subarray(48)).reverse(), SIGNED_BYTES + 72);
      return bytes;
    },
    issueCrl: ({
      revoked = false,
      thisUpdate = atUnixSeconds - 86_400,
      nextUpdate = atUnixSeconds + 86_400,
      forged = false,
    } = {}) =>
      issueCrl({
        issuer: root,
        thisUpdate,
        nextUpdate,
        revoked: revoked ? [signer] : [],
        signer: forged ? signer : undefined,
      }),
  };
}

function buildReport(
  report: TestSnpReport,
  product: keyof typeof PRODUCTS,
  vlek: boolean,
  chipId: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(REPORT_BYTES);
  const put = (offset: number, value: Uint8Array | undefined) => bytes.set(value ?? new Uint8Array(), offset);
  const version = report.version ?? 3;
  const svn = (part: keyof typeof TCB) => TCB[part] + (report.raise === part ? 1 : 0);
  const early = Uint8Array.of(svn("bootloader"), svn("tee"), 0, 0, 0, 0, svn("snp"), svn("microcode"));
  const layouts = {
    milan: early,
    genoa: early,
    turin: Uint8Array.of(svn("fmc"), svn("bootloader"), svn("tee"), svn("snp"), 0, 0, 0, svn("microcode")),
    venice: Uint8Array.of(svn("fmc"), 0, svn("tee"), svn("snp"), 0, 0, 0, 0),
  };
  const tcb = report.tcb ?? layouts[product];
  put(0x00, encodeLe(4, version));
  put(0x08, encodeLe(8, report.policy ?? 0x30000n));
  put(0x10, report.familyId);
  put(0x20, report.imageId);
  put(0x30, encodeLe(4, report.vmpl ?? 0));
  put(0x34, encodeLe(4, 1));
  put(0x38, tcb);
  put(0x40, encodeLe(8, report.platformInfo ?? PLATFORM_INFO));
  put(0x48, encodeLe(4, (report.signingKey ?? (vlek ? 1 : 0)) << 2));
  put(0x50, report.reportData);
  put(0x90, report.measurement);
  put(0xc0, report.hostData);
  put(0xe0, report.idKeyDigest);
  put(0x110, report.authorKeyDigest);
  put(0x160, new Uint8Array(32).fill(0xff));
  put(0x180, tcb);
  if (version >= 3) put(0x188, Uint8Array.from(report.cpuid ?? PRODUCTS[product].cpuid));
  put(0x1a0, chipId);
  put(0x1e0, tcb);
  put(0x1f0, tcb);
  return bytes;
}
