import { expect } from "chai";
import { createChainCache } from "../../../src/node/evidence/chain-cache.ts";
import { type SnpCertificates, type SnpOptions, verifySnpReport } from "../../../src/node/evidence/snp.ts";
import { encodeDer, encodeDerUint, issueCertificate, type TestCertificate } from "../../../src/node/test-tee/pki.ts";
import { createTestSnp, type TestSnp, type TestSnpReport } from "../../../src/node/test-tee/snp.ts";
import { errorOf } from "../../helpers/errors.ts";
import { fill } from "../../helpers/evidence.ts";

const AT = 1_750_000_000;
const DAY = 86_400;
const reportData = fill(64, 0xdd);

describe("verifySnpReport", () => {
  let milan: TestSnp;
  let turin: TestSnp;
  let vlek: TestSnp;
  before(async () => {
    milan = await createTestSnp({ atUnixSeconds: AT });
    turin = await createTestSnp({ atUnixSeconds: AT, product: "turin" });
    vlek = await createTestSnp({ atUnixSeconds: AT, product: "genoa", endorsement: "vlek" });
  });

  const verify = (
    tee: TestSnp,
    report: Partial<TestSnpReport> = {},
    certificates: Partial<SnpCertificates> = {},
    options: Partial<SnpOptions> = {},
  ) =>
    verifySnpReport(
      tee.issueReport({ reportData, ...report }),
      { ...tee.certificates, ...certificates },
      { atUnixSeconds: AT, unsafeTestRoots: [tee.root], ...options },
    );

  it("accepts Milan, Genoa and Turin, VCEK and VLEK, and says loudly that the root is a test's", async () => {
    for (const product of ["milan", "genoa", "turin", "venice"] as const)
      for (const endorsement of ["vcek", "vlek"] as const) {
        const tee = await createTestSnp({ atUnixSeconds: AT, product, endorsement });
        const verified = verify(tee);
        expect(verified).to.include({ product, endorsement, revocationChecked: false });
        expect(verified.trust.kind).to.equal("TEST ROOT");
        expect(verified.cspId).to.equal(endorsement === "vlek" ? "CN=test.invalid" : undefined);
      }
    expect(verify(milan, { version: 2 }).report.version).to.equal(2);
    expect(verify(milan, { version: 5 }).report.version).to.equal(5);
    expect(verify(turin, { version: 2 }).report.reportedTcb).to.include({ fmc: 1, bootloader: 9, snp: 23 });
  });

  const refused: readonly [string, () => TestSnp, Partial<TestSnpReport>, string][] = [
    ["debug", () => milan, { policy: 0xb0000n }, "snp/debug"],
    ["a migration agent", () => milan, { policy: 0x70000n }, "snp/migration-agent"],
    ["a policy without its fixed bit", () => milan, { policy: 0x10000n }, "snp/policy-reserved"],
    ["VMPL 1", () => milan, { vmpl: 1 }, "snp/vmpl"],
    ["no signing key", () => milan, { signingKey: 7 }, "snp/unsigned"],
    ["a VCEK where the report says VLEK", () => milan, { signingKey: 1 }, "snp/endorsement-key"],
    ["a VLEK where the report says VCEK", () => vlek, { signingKey: 0 }, "snp/endorsement-key"],
    ["another chip", () => milan, { chipId: fill(64, 1) }, "snp/chip-id-mismatch"],
    ["another Turin chip", () => turin, { chipId: fill(64, 0xc1) }, "snp/chip-id-mismatch"],
    ["another bootloader", () => milan, { raise: "bootloader" }, "snp/tcb-mismatch"],
    ["another TEE", () => milan, { raise: "tee" }, "snp/tcb-mismatch"],
    ["another SNP firmware", () => vlek, { raise: "snp" }, "snp/tcb-mismatch"],
    ["another microcode", () => turin, { raise: "microcode" }, "snp/tcb-mismatch"],
    ["another FMC", () => turin, { raise: "fmc" }, "snp/tcb-mismatch"],
    ["another product", () => milan, { cpuid: [0x19, 0x11, 1] }, "snp/product-mismatch"],
    ["a policy bit that is not known", () => milan, { policy: 0x4030000n }, "snp/policy-unknown"],
    ["platform bit 6, which is reserved", () => milan, { platformInfo: 0x65n }, "snp/platform-unknown"],
    ["a platform bit that is not known", () => turin, { platformInfo: 0x125n }, "snp/platform-unknown"],
    [
      "a version 2 report in another product's TCB layout",
      () => turin,
      { version: 2, tcb: Uint8Array.of(9, 2, 0, 0, 0, 0, 23, 220) },
      "snp/tcb-mismatch",
    ],
  ];
  for (const [name, tee, report, code] of refused)
    it(`refuses ${name}`, () => {
      expect(errorOf(() => verify(tee(), report)).code).to.equal(code);
    });

  it("allows the privilege levels that it is told to, and no other", () => {
    expect(verify(milan, { vmpl: 1 }, {}, { allowedVmpls: [0, 1] }).report.vmpl).to.equal(1);
    expect(errorOf(() => verify(milan, {}, {}, { allowedVmpls: [1] })).code).to.equal("snp/vmpl");
  });

  it("refuses a test root without the explicit option, a kept one too", () => {
    const chains = createChainCache();
    verify(milan, {}, {}, { chains });
    for (const unsafeTestRoots of [undefined, [turin.root]])
      expect(errorOf(() => verify(milan, {}, {}, { unsafeTestRoots, chains })).code).to.equal("snp/wrong-root");
  });

  it("finds the root that signed where none is given, among those that it was told to take", () => {
    expect(verify(milan, {}, { root: undefined }).trust.kind).to.equal("TEST ROOT");
    for (const unsafeTestRoots of [undefined, [turin.root]])
      expect(errorOf(() => verify(milan, {}, { root: undefined }, { unsafeTestRoots })).code).to.equal("snp/chain");
  });

  it("takes a report whose chip id the host masks, of the chip that the VCEK names", () => {
    expect(verify(milan, { chipId: fill(64, 0) }).chipId).to.deep.equal(fill(64, 0xc1));
    const padded = new Uint8Array(64);
    padded.fill(0xc1, 0, 8);
    expect(verify(turin, { chipId: fill(64, 0), version: 2 }).chipId).to.deep.equal(padded);
    expect(verify(vlek).chipId).to.equal(undefined);
  });

  it("refuses another processor's key, signer and root", async () => {
    const other = await createTestSnp({ atUnixSeconds: AT });
    const roots = { unsafeTestRoots: [milan.root, other.root, turin.root] };
    const code = (certificates: Partial<SnpCertificates>) => errorOf(() => verify(milan, {}, certificates, roots)).code;
    expect(code({ signer: other.certificates.signer })).to.equal("snp/chain");
    expect(code({ root: other.root })).to.equal("snp/chain");
    expect(code(other.certificates)).to.equal("snp/signature");
    expect(code(turin.certificates)).to.equal("snp/product-mismatch");
    expect(code({ endorsementKey: milan.certificates.signer })).to.equal("snp/chain");
  });

  describe("given an endorsement key that AMD's rules do not fit", () => {
    const dates = { notBefore: AT - DAY, notAfter: AT + DAY };
    const text = (value: string, tag = 0x16) => encodeDer(tag, new TextEncoder().encode(value));
    const oid = (rest: string) => `1.3.6.1.4.1.3704.1.${rest}`;
    const ca = (commonName: string, issuer?: TestCertificate) =>
      issueCertificate({ commonName, kind: "rsa-pss", ca: true, issuer, ...dates });
    let ark: TestCertificate;
    let ask: TestCertificate;
    before(async () => {
      ark = await ca("ARK-Milan");
      ask = await ca("SEV-Milan", ark);
    });

    interface Leaf extends Partial<Parameters<typeof issueCertificate>[0]> {
      readonly product?: Uint8Array;
      readonly without?: string;
    }
    /** The code for a report that would be that key's but for its signature, and so gets to it if nothing else is wrong. */
    async function code({ product = text("Milan-B0"), without, ...changes }: Leaf, signer = ask, root = ark) {
      const given = [
        [oid("2"), product],
        ...["3.1", "3.2", "3.3", "3.8"].map(
          (part, at) => [oid(part), encodeDerUint([9, 2, 23, 220][at] ?? 0)] as const,
        ),
        [oid("4"), fill(64, 0xc1)],
      ] as const;
      const extensions = Object.fromEntries(given.filter(([name]) => without === undefined || name !== oid(without)));
      const base = { commonName: "SEV-VCEK", kind: "p384", ca: false, issuer: signer, extensions, ...dates } as const;
      const { der } = await issueCertificate({ ...base, ...changes });
      const certificates = { endorsementKey: der, signer: signer.der, root: root.der };
      const options = { atUnixSeconds: AT, unsafeTestRoots: [root.der] };
      return errorOf(() => verifySnpReport(milan.issueReport({ reportData }), certificates, options)).code;
    }

    it("gets to the signature where nothing else is wrong: the others differ from this in one thing", async () => {
      expect(await code({})).to.equal("snp/signature");
    });
    for (const [name, leaf] of [
      ["is a CA's", { ca: true }],
      ["is of another curve", { kind: "p256" }],
      ["has another name", { commonName: "SEV-VLEK" }],
      ["names an unknown product", { product: text("Rome-B0") }],
      ["names its product in another type", { product: text("Milan-B0", 0x0c) }],
      ["names no product", { without: "2" }],
      ["names no chip", { without: "4" }],
      ["says no SNP version", { without: "3.3" }],
    ] as const satisfies readonly (readonly [string, Leaf])[])
      it(`refuses one that ${name}`, async () => {
        expect(await code(leaf)).to.equal("snp/endorsement-key");
      });
    it("refuses one under a CA of another product or for another sort of key, at either level", async () => {
      expect(await code({}, await ca("SEV-Genoa", ark))).to.equal("snp/endorsement-key");
      expect(await code({}, await ca("SEV-VLEK-Milan", ark))).to.equal("snp/endorsement-key");
      const genoa = await ca("ARK-Genoa");
      expect(await code({}, await ca("SEV-Milan", genoa), genoa)).to.equal("snp/endorsement-key");
    });
  });

  it("refuses expired and future certificates, also from the cache", () => {
    const chains = createChainCache();
    verify(milan, {}, {}, { chains });
    const at = (atUnixSeconds: number) => errorOf(() => verify(milan, {}, {}, { atUnixSeconds, chains })).code;
    expect(at(AT + 366 * DAY)).to.equal("snp/certificate-expired");
    expect(at(AT - 2 * DAY)).to.equal("snp/certificate-not-yet-valid");
    expect(at(Number.NaN)).to.equal("evidence/bad-time");
  });

  it("honours a revocation list, and demands one where told to", async () => {
    expect(verify(milan, {}, { crl: await milan.issueCrl() }).revocationChecked).to.equal(true);
    const code = (crl: Uint8Array | undefined, requireCrl = false) =>
      errorOf(() => verify(milan, {}, { crl }, { requireCrl })).code;
    expect(code(await milan.issueCrl({ revoked: true }))).to.equal("snp/revoked");
    expect(code(await milan.issueCrl({ nextUpdate: AT - 1 }))).to.equal("snp/crl-expired");
    expect(code(await milan.issueCrl({ thisUpdate: AT + 61 }))).to.equal("snp/crl-not-yet-valid");
    expect(code(await milan.issueCrl({ forged: true }))).to.equal("snp/crl-signature");
    expect(code(await turin.issueCrl())).to.equal("snp/crl-issuer");
    expect(code(fill(20, 1))).to.equal("snp/crl-malformed");
    // A list that is not AMD's is not read: a stranger's may take long to read.
    const unreadable = Buffer.from(await milan.issueCrl());
    unreadable[unreadable.indexOf("170d", "hex")] = 0x05; // a NULL of 13 bytes where a time belongs
    expect(code(unreadable)).to.equal("snp/crl-signature");
    expect(code(undefined, true)).to.equal("snp/crl-missing");
  });
});
