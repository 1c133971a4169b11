import { createHash } from "node:crypto";
import { expect } from "chai";
import { type Hex, toHex } from "../../src/core/bytes.ts";
import { IMAGE_KINDS } from "../../src/core/image.ts";
import { verifyNitroDocument } from "../../src/node/evidence/nitro.ts";
import { type VerifiedSnp, verifySnpReport } from "../../src/node/evidence/snp.ts";
import { verifyTdxQuote } from "../../src/node/evidence/tdx.ts";
import { verifyTdxCollateral } from "../../src/node/evidence/tdx-collateral.ts";
import { factsOf, NO_DEVICE, type SnpMinimumTcb, tcbReportOf } from "../../src/node/facts.ts";
import { createTestNitro } from "../../src/node/test-tee/nitro.ts";
import { createTestSnp } from "../../src/node/test-tee/snp.ts";
import { createTestTdx } from "../../src/node/test-tee/tdx.ts";
import { fill } from "../helpers/evidence.ts";

const AT = 1_750_000_000;
const sha256 = (bytes: Uint8Array | string): Hex => `0x${createHash("sha256").update(bytes).digest("hex")}`;
const namesOf = (kind: "tdx" | "snp" | "nitro") => IMAGE_KINDS[kind].registers.map(({ name }) => name);

describe("what a decision takes from evidence", () => {
  it("given a TDX quote, every register, its TCB status and the hash of its PPID", async () => {
    const tdx = await createTestTdx({ atUnixSeconds: AT });
    const options = { atUnixSeconds: AT, unsafeTestRoots: [tdx.root] };
    const collateral = verifyTdxCollateral(await tdx.issueCollateral({ platformStatus: "SWHardeningNeeded" }), options);
    const rtMr3 = fill(48, 0x33);
    const verified = verifyTdxQuote(tdx.issueQuote({ reportData: fill(64, 1), rtMr3 }), collateral, options);
    const facts = factsOf(verified, {});
    expect(Object.keys(facts.registers).sort()).to.deep.equal(namesOf("tdx").sort());
    expect(facts.registers.rtmr3).to.equal(toHex(rtMr3));
    expect(facts).to.include({
      kind: "tdx",
      tcbStatus: "SWHardeningNeeded",
      deviceId: sha256(Buffer.from(verified.ppid.slice(2), "hex")),
    });
  });

  describe("given a SEV-SNP report", () => {
    let verified: VerifiedSnp;
    before(async () => {
      const snp = await createTestSnp({ atUnixSeconds: AT });
      const options = { atUnixSeconds: AT, unsafeTestRoots: [snp.root] };
      verified = verifySnpReport(snp.issueReport({ reportData: fill(64, 1) }), snp.certificates, options);
    });
    const withReport = (changes: Partial<VerifiedSnp["report"]>): VerifiedSnp => ({
      ...verified,
      report: { ...verified.report, ...changes },
    });

    it("gives every register and the hash of the chip id", () => {
      const facts = factsOf(verified, {});
      expect(Object.keys(facts.registers).sort()).to.deep.equal(namesOf("snp").sort());
      expect(facts.deviceId).to.equal(sha256(verified.report.chipId));
    });
    it("names the certificate's chip where the report's is masked, and none where neither says", async () => {
      const snp = await createTestSnp({ atUnixSeconds: AT });
      const report = snp.issueReport({ reportData: fill(64, 1), chipId: new Uint8Array(64) });
      const masked = verifySnpReport(report, snp.certificates, { atUnixSeconds: AT, unsafeTestRoots: [snp.root] });
      expect(factsOf(masked, {}).deviceId).to.equal(sha256(fill(64, 0xc1)));
      expect(factsOf({ ...verified, chipId: undefined }, {}).deviceId).to.equal(NO_DEVICE);
    });
    it("is OutOfDate where the memory was not checked for aliases (BadRAM), unless that is waived", () => {
      const unchecked = withReport({ aliasCheckComplete: false });
      const status = (minimum: SnpMinimumTcb) =>
        factsOf(unchecked, { snpMinimumTcb: { [verified.product]: minimum } }).tcbStatus;
      expect(status({ snp: 5 })).to.equal("OutOfDate");
      expect(status({ snp: 5, aliasCheck: true })).to.equal("OutOfDate");
      expect(status({ snp: 5, aliasCheck: false })).to.equal("UpToDate");
      const told = tcbReportOf(unchecked, { snpMinimumTcb: { [verified.product]: { snp: 24 } } });
      expect(told?.parts[0]?.short.map(({ svn }) => svn)).to.deep.equal([
        "snp",
        "snp at launch",
        "ALIAS_CHECK_COMPLETE (BadRAM, AMD-SB-3015)",
      ]);
    });
    it("is OutOfDate unless the operator says which versions are good", () => {
      expect(factsOf(verified, {}).tcbStatus).to.equal("OutOfDate");
      const other = verified.product === "milan" ? "turin" : "milan";
      expect(factsOf(verified, { snpMinimumTcb: { [other]: {} } }).tcbStatus).to.equal("OutOfDate");
      expect(factsOf(verified, { snpMinimumTcb: { [verified.product]: {} } }).tcbStatus).to.equal("UpToDate");
    });
    for (const part of ["bootloader", "tee", "snp", "microcode"] as const) {
      it(`is UpToDate if ${part} reaches its minimum, reported and at launch`, () => {
        const least = 5;
        const tcb = (value: number) => ({ ...verified.report.reportedTcb, [part]: value });
        const statusOf = (reported: number, launch: number) =>
          factsOf(withReport({ reportedTcb: tcb(reported), launchTcb: tcb(launch) }), {
            snpMinimumTcb: { [verified.product]: { [part]: least } },
          }).tcbStatus;
        expect(statusOf(5, 5)).to.equal("UpToDate");
        expect(statusOf(6, 7)).to.equal("UpToDate");
        expect(statusOf(4, 5)).to.equal("OutOfDate");
        expect(statusOf(5, 4)).to.equal("OutOfDate");
      });
    }
    it("is OutOfDate where a minimum is asked of a part that the processor does not have", () => {
      const without = { ...verified.report.reportedTcb, fmc: undefined };
      const report = withReport({ reportedTcb: without, launchTcb: without });
      expect(factsOf(report, { snpMinimumTcb: { [verified.product]: { fmc: 0 } } }).tcbStatus).to.equal("OutOfDate");
    });
  });

  it("given a Nitro document, its PCRs, no TCB status, and the hash of the instance that it runs on", async () => {
    const nitro = await createTestNitro({ atUnixSeconds: AT });
    const pcrs = { 0: fill(48, 1), 1: fill(48, 2), 2: fill(48, 3), 4: fill(48, 4) };
    const verified = verifyNitroDocument(nitro.issueDocument({ pcrs }), {
      atUnixSeconds: AT,
      unsafeTestRoots: [nitro.root],
    });
    const facts = factsOf(verified, {});
    expect(facts).to.include({ kind: "nitro", tcbStatus: "NotApplicable" });
    expect(facts.registers.pcr4).to.equal(toHex(pcrs[4]));
    const named = (moduleId: string) =>
      factsOf({ ...verified, document: { ...verified.document, moduleId } }, {}).deviceId;
    expect(named("i-0123456789abcdef0-enc0123456789abcdef")).to.equal(sha256("i-0123456789abcdef0"));
    expect(named("i-0123456789abcdef0-enc9999999999999999")).to.equal(sha256("i-0123456789abcdef0"));
    for (const moduleId of ["i-0123", "enc0123", "i-0123-enc", "x i-0123-enc0123", "i-0123-enc0123\n"]) {
      expect(named(moduleId), moduleId).to.equal(NO_DEVICE);
    }
  });
});
