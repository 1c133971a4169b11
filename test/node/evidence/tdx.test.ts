import { sign as signBytes } from "node:crypto";
import { expect } from "chai";
import { parseTdxQuote } from "../../../src/core/evidence/tdx.ts";
import { createChainCache } from "../../../src/node/evidence/chain-cache.ts";
import { readTdxCollateralKey, verifyTdxQuote } from "../../../src/node/evidence/tdx.ts";
import { checkCollateral, type TdxCollateral, verifyTdxCollateral } from "../../../src/node/evidence/tdx-collateral.ts";
import { convergeTcbStatus, TCB_STATUSES } from "../../../src/node/evidence/tdx-tcb.ts";
import { parseCertificate, parsePemChain } from "../../../src/node/evidence/x509.ts";
import { formatPem, issueCertificate, issueCrl, type TestCertificate } from "../../../src/node/test-tee/pki.ts";
import {
  createTestTdx,
  type TestTdx,
  type TestTdxCollateral,
  type TestTdxQuote,
} from "../../../src/node/test-tee/tdx.ts";
import { errorOf } from "../../helpers/errors.ts";
import { fill } from "../../helpers/evidence.ts";

const AT = 1_750_000_000;
const DAY = 86_400;
const reportData = fill(64, 0xdd);
const attributes = (hex: string) => new Uint8Array(Buffer.from(hex, "hex"));

describe("verifyTdxQuote", () => {
  let tee: TestTdx;
  let collateral: TdxCollateral;
  before(async () => {
    tee = await createTestTdx({ atUnixSeconds: AT });
    collateral = await tee.issueCollateral();
  });

  const optionsOf = (tdx: TestTdx, atUnixSeconds = AT) => ({ atUnixSeconds, unsafeTestRoots: [tdx.root] });
  const verifyWith = (given: TdxCollateral, quote: Partial<TestTdxQuote> = {}, atUnixSeconds = AT) => {
    const verified = verifyTdxCollateral(given, optionsOf(tee));
    return verifyTdxQuote(tee.issueQuote({ reportData, ...quote }), verified, optionsOf(tee, atUnixSeconds));
  };
  const refusal = async (quote: Partial<TestTdxQuote>, what: TestTdxCollateral = {}) => {
    const given = await tee.issueCollateral(what);
    return errorOf(() => verifyWith(given, quote)).code;
  };

  describe("given genuine evidence under a test root", () => {
    it("accepts version 4, and version 5 with both bodies, and says loudly on what it rests", () => {
      for (const quote of [{}, { version: 5 }, { version: 5, body: "td1.0" }, { padding: 70 }] as const) {
        const verified = verifyWith(collateral, quote);
        expect(verified.trust.kind).to.equal("TEST ROOT");
        expect(verified.tcbStatus).to.equal("UpToDate");
        expect(verified.fmspc).to.equal("0x00806f050000");
        expect(verified.quote.body.reportData).to.deep.equal(reportData);
      }
    });

    it("refuses it without the explicit option", () => {
      const verified = verifyTdxCollateral(collateral, optionsOf(tee));
      const quote = tee.issueQuote({ reportData });
      expect(errorOf(() => verifyTdxQuote(quote, verified, { atUnixSeconds: AT })).code).to.equal("tdx/wrong-root");
      expect(errorOf(() => verifyTdxCollateral(collateral, { atUnixSeconds: AT })).code).to.equal("tdx/wrong-root");
      expect(errorOf(() => readTdxCollateralKey(quote)).code).to.equal("tdx/wrong-root");
    });

    it("does not let a chain kept under test roots pass without them", () => {
      const chains = createChainCache();
      const verified = verifyTdxCollateral(collateral, optionsOf(tee));
      const quote = tee.issueQuote({ reportData });
      for (let round = 0; round < 2; round += 1) verifyTdxQuote(quote, verified, { ...optionsOf(tee), chains });
      const verify = () => verifyTdxQuote(quote, verified, { atUnixSeconds: AT, chains });
      expect(errorOf(verify).code).to.equal("tdx/wrong-root");
    });

    it("a report of the quoting enclave that was checked once vouches for no other report, signature or PCK key", async () => {
      const chains = createChainCache();
      const cached = { ...optionsOf(tee), chains };
      const verified = verifyTdxCollateral(collateral, optionsOf(tee));
      const quote = tee.issueQuote({ reportData });
      verifyTdxQuote(quote, verified, cached);
      const { qeReport, qeReportSignature } = parseTdxQuote(quote).signatureData;
      for (const part of [qeReport.bytes, qeReportSignature]) {
        const altered = Uint8Array.from(quote);
        const at = Buffer.from(quote).indexOf(part);
        altered[at] = (altered[at] ?? 0) ^ 1;
        expect(errorOf(() => verifyTdxQuote(altered, verified, cached)).code).to.equal("tdx/qe-report-signature");
      }
      // the same report, under the certificate of another machine, whose key never signed it
      const other = await createTestTdx({ atUnixSeconds: AT });
      const { pckChain } = parseTdxQuote(other.issueQuote({ reportData })).signatureData;
      const moved = tee.issueQuote({ reportData, pckChain: Buffer.from(pckChain ?? []).toString() });
      expect(parseTdxQuote(moved).signatureData.qeReportSignature).to.deep.equal(qeReportSignature);
      const both = { ...cached, unsafeTestRoots: [tee.root, other.root] };
      const theirCollateral = verifyTdxCollateral(await other.issueCollateral(), both);
      expect(errorOf(() => verifyTdxQuote(moved, theirCollateral, both)).code).to.equal("tdx/qe-report-signature");
    });

    it("refuses another test TEE's root", async () => {
      const other = await createTestTdx({ atUnixSeconds: AT });
      const verified = verifyTdxCollateral(collateral, optionsOf(tee));
      const both = { atUnixSeconds: AT, unsafeTestRoots: [tee.root, other.root] };
      const quote = other.issueQuote({ reportData });
      expect(errorOf(() => verifyTdxQuote(quote, verified, optionsOf(tee))).code).to.equal("tdx/wrong-root");
      expect(errorOf(() => verifyTdxQuote(quote, verified, both)).code).to.equal("tdx/root-mismatch");
    });

    it("says which collateral it needs", async () => {
      const processor = await createTestTdx({ atUnixSeconds: AT, ca: "processor" });
      for (const [tdx, ca] of [
        [tee, "platform"],
        [processor, "processor"],
      ] as const) {
        const key = readTdxCollateralKey(tdx.issueQuote({ reportData }), { unsafeTestRoots: [tdx.root] });
        expect(key).to.deep.equal({ fmspc: "0x00806f050000", ca });
      }
    });
  });

  describe("when the TD is not what it must be", () => {
    const cases: readonly [string, Partial<TestTdxQuote>, string][] = [
      ...[0, 1, 2, 3, 4, 5, 6, 7].map((bit): [string, Partial<TestTdxQuote>, string] => [
        `bit ${bit} of the debug byte`,
        { tdAttributes: Uint8Array.of(1 << bit, 0, 0, 0x10, 0, 0, 0, 0) },
        "tdx/debug",
      ]),
      ["a reserved bit", { tdAttributes: attributes("0001001000000000") }, "tdx/td-attributes"],
      ["MIGRATABLE", { tdAttributes: attributes("0000003000000000") }, "tdx/td-attributes"],
      ["a reserved bit above", { tdAttributes: attributes("0000001000000040") }, "tdx/td-attributes"],
      ["no SEPT_VE_DISABLE", { tdAttributes: attributes("0000000000000000") }, "tdx/sept-ve-disable"],
      ["a service TD", { version: 5, mrServiceTd: fill(48, 1) }, "tdx/service-td"],
      ["another certification type", { certificationType: 3 }, "tdx/certification-type"],
    ];
    for (const [name, quote, code] of cases)
      it(`refuses ${name}`, async () => {
        expect(await refusal(quote)).to.equal(code);
      });

    it("accepts the attributes that only the machine itself uses: LASS, PKS, KL, PERFMON", () => {
      const verified = verifyWith(collateral, { tdAttributes: attributes("000000d800000080") });
      expect(verified.quote.debug).to.equal(false);
    });
  });

  describe("when the quoting enclave is not Intel's", () => {
    const cases: readonly [string, Partial<TestTdxQuote>, string][] = [
      ["signer", { qeMrSigner: fill(32, 1) }, "tdx/qe-identity"],
      ["product", { qeIsvProdId: 1 }, "tdx/qe-identity"],
      ["misc select", { qeMiscSelect: 1 }, "tdx/qe-identity"],
      ["attributes (debug)", { qeAttributes: attributes("17000000000000000000000000000000") }, "tdx/qe-identity"],
      ["version", { qeIsvSvn: 3 }, "tdx/qe-no-tcb-level"],
      ["second half of its report data", { qeReportDataTail: fill(32, 1) }, "tdx/attestation-key-binding"],
      ["key binding", { boundKey: fill(64, 1) }, "tdx/attestation-key-binding"],
    ];
    for (const [name, quote, code] of cases)
      it(`refuses another ${name}`, async () => {
        expect(await refusal(quote)).to.equal(code);
      });
  });

  describe("given a TDX module and TCB levels", () => {
    const old = Uint8Array.of(3, 1, 2, ...fill(13, 0));
    const cases: readonly [string, Partial<TestTdxQuote>, TestTdxCollateral, string][] = [
      ["an unknown module", { teeTcbSvn: Uint8Array.of(5, 9, 2, ...fill(13, 0)) }, {}, "tdx/module-unknown"],
      ["a module below every level", { teeTcbSvn: old }, {}, "tdx/module-no-tcb-level"],
      ["another module signer", { mrSignerSeam: fill(48, 1) }, {}, "tdx/module-identity"],
      ["other SEAM attributes", { seamAttributes: fill(8, 1) }, {}, "tdx/module-identity"],
      ["an SGX component below every level", {}, { sgxSvn: 3 }, "tdx/no-tcb-level"],
      [
        "a provisioning enclave below every level",
        {},
        { editTcbInfo: (info) => JSON.parse(JSON.stringify(info).replace('"pcesvn":11', '"pcesvn":12')) },
        "tdx/no-tcb-level",
      ],
      ["a TDX component 2 below every level", {}, { tdxSvns: [5, 1, 3, ...fill(13, 0)] }, "tdx/no-tcb-level"],
      [
        "version 0 with component 0 below",
        { teeTcbSvn: Uint8Array.of(4, 0, 2, ...fill(13, 0)) },
        { tdxSvns: [5, 0, 2, ...fill(13, 0)] },
        "tdx/no-tcb-level",
      ],
      ["a revoked platform level", {}, { platformStatus: "Revoked" }, "tdx/tcb-revoked"],
      ["a revoked module level", {}, { moduleStatus: "Revoked" }, "tdx/tcb-revoked"],
      ["a revoked QE level", {}, { qeStatus: "Revoked" }, "tdx/tcb-revoked"],
      ["a module status without a rule", {}, { moduleStatus: "ConfigurationNeeded" }, "tdx/part-status"],
    ];
    for (const [name, quote, what, code] of cases)
      it(`refuses ${name}`, async () => {
        expect(await refusal(quote, what)).to.equal(code);
      });

    it("takes components 0 and 1 from the module's own identity", async () => {
      const given = await tee.issueCollateral({ tdxSvns: [200, 200, 2, ...fill(13, 0)] });
      expect(verifyWith(given).moduleTcb).to.include({ id: "TDX_01", isvSvn: 5, status: "UpToDate" });
    });

    it("judges a module of version 0 with the platform", async () => {
      const given = await tee.issueCollateral({ tdxSvns: [5, 0, 2, ...fill(13, 0)] });
      expect(verifyWith(given, { teeTcbSvn: Uint8Array.of(5, 0, 2, ...fill(13, 0)) }).moduleTcb).to.equal(undefined);
    });

    it("reports the worst of the three, with the advisories", async () => {
      const worst = async (what: TestTdxCollateral) => verifyWith(await tee.issueCollateral(what)).tcbStatus;
      expect(await worst({ platformStatus: "SWHardeningNeeded" })).to.equal("SWHardeningNeeded");
      expect(await worst({ moduleStatus: "OutOfDate" })).to.equal("OutOfDate");
      expect(await worst({ qeStatus: "OutOfDate" })).to.equal("OutOfDate");
      expect(await worst({ platformStatus: "ConfigurationNeeded", qeStatus: "OutOfDate" })).to.equal(
        "OutOfDateConfigurationNeeded",
      );
      const advised = await tee.issueCollateral({
        platformStatus: "OutOfDate",
        platformAdvisories: ["INTEL-SA-2", "INTEL-SA-1"],
      });
      expect(verifyWith(advised).advisoryIds).to.deep.equal(["INTEL-SA-1", "INTEL-SA-2"]);
    });

    it("never makes a status milder by combining it", () => {
      for (const platform of TCB_STATUSES)
        for (const part of ["UpToDate", "OutOfDate", "Revoked"] as const) {
          const combined = TCB_STATUSES.indexOf(convergeTcbStatus(platform, part));
          expect(combined).to.be.at.least(Math.max(TCB_STATUSES.indexOf(platform), TCB_STATUSES.indexOf(part)));
        }
    });
  });

  describe("when collateral is not good", () => {
    const cases: readonly [string, TestTdxCollateral, string][] = [
      ["expired", { issuedAt: AT - 40 * DAY }, "tdx/collateral-expired"],
      ["from the future", { issuedAt: AT + 61 }, "tdx/collateral-not-yet-valid"],
      ["with an expired QE identity", { qeNextUpdate: AT - 1 }, "tdx/collateral-expired"],
      ["with an expired PCK CRL", { pckCrlNextUpdate: AT - 1 }, "tdx/crl-expired"],
      ["with an expired root CRL", { rootCrlNextUpdate: AT - 1 }, "tdx/crl-expired"],
      ["with forged TCB info", { forge: ["tcb-info"] }, "tdx/collateral-signature"],
      ["with a forged QE identity", { forge: ["qe-identity"] }, "tdx/collateral-signature"],
      ["with a forged PCK CRL", { forge: ["pck-crl"] }, "tdx/crl-signature"],
      ["with a forged root CRL", { forge: ["root-crl"] }, "tdx/crl-signature"],
      ["with TCB info signed by the PCK CA", { tcbSignedByPckCa: true }, "tdx/wrong-issuer"],
      ["with its signer revoked", { revoke: ["tcb-signing"] }, "tdx/revoked"],
      ["with its PCK CA revoked", { revoke: ["pck-ca"] }, "tdx/revoked"],
      ["with the PCK certificate revoked", { revoke: ["pck"] }, "tdx/revoked"],
      ["of another platform family", { fmspc: "b0c06f000000" }, "tdx/fmspc-mismatch"],
      ["of another PCE", { pceId: "0001" }, "tdx/pce-mismatch"],
      ["with TCB info for SGX", { editTcbInfo: (info) => ({ ...info, id: "SGX" }) }, "tdx/collateral-malformed"],
      [
        "with TCB info of another version",
        { editTcbInfo: (info) => ({ ...info, version: 2 }) },
        "tdx/collateral-malformed",
      ],
      ["with an unknown status", { platformStatus: "Fine" }, "tdx/collateral-malformed"],
      ["without levels", { editTcbInfo: (info) => ({ ...info, tcbLevels: [] }) }, "tdx/no-tcb-level"],
    ];
    for (const [name, what, code] of cases)
      it(`refuses collateral ${name}`, async () => {
        expect(await refusal({}, what)).to.equal(code);
      });

    it("refuses a CRL of the other CA, and one that is no CRL", async () => {
      const processor = await createTestTdx({ atUnixSeconds: AT, ca: "processor" });
      const other = await processor.issueCollateral();
      expect(errorOf(() => verifyWith({ ...collateral, pckCrl: other.pckCrl })).code).to.equal("tdx/crl-issuer");
      expect(errorOf(() => verifyWith({ ...collateral, pckCrl: collateral.rootCaCrl })).code).to.equal(
        "tdx/crl-issuer",
      );
      expect(errorOf(() => verifyWith({ ...collateral, pckCrl: fill(10, 1) })).code).to.equal("tdx/crl-malformed");
    });

    it("refuses collateral that did not come out of the verifier", () => {
      const verified = { ...verifyTdxCollateral(collateral, optionsOf(tee)) };
      const verify = () => verifyTdxQuote(tee.issueQuote({ reportData }), verified, optionsOf(tee));
      expect(errorOf(verify).code).to.equal("tdx/collateral-not-verified");
    });

    it("judges its dates again at every use", () => {
      const verified = verifyTdxCollateral(collateral, optionsOf(tee));
      checkCollateral(verified, verified.validFrom);
      checkCollateral(verified, verified.validUntil);
      expect(errorOf(() => checkCollateral(verified, verified.validUntil + 1)).code).to.equal("tdx/collateral-expired");
      checkCollateral(verified, verified.validFrom - 60);
      expect(errorOf(() => checkCollateral(verified, verified.validFrom - 61)).code).to.equal(
        "tdx/collateral-not-yet-valid",
      );
      expect(errorOf(() => checkCollateral(verified, Number.NaN)).code).to.equal("evidence/bad-time");
    });
  });

  describe("when the PCK chain is not good", () => {
    it("refuses an expired PCK certificate, with or without a cache", async () => {
      const brief = await createTestTdx({ atUnixSeconds: AT, pckLifetimeSeconds: 60 });
      const verified = verifyTdxCollateral(await brief.issueCollateral(), optionsOf(brief));
      const quote = brief.issueQuote({ reportData });
      const chains = createChainCache();
      verifyTdxQuote(quote, verified, { ...optionsOf(brief), chains });
      for (const cache of [chains, undefined]) {
        const verify = () => verifyTdxQuote(quote, verified, { ...optionsOf(brief, AT + 61), chains: cache });
        expect(errorOf(verify).code).to.equal("tdx/certificate-expired");
      }
    });

    it("refuses a leaf of another name, another platform's chain, and what is no chain", async () => {
      const named = await createTestTdx({ atUnixSeconds: AT, pckName: "Intel SGX Attestation Report Signing" });
      const verified = verifyTdxCollateral(await named.issueCollateral(), optionsOf(named));
      const verify = () => verifyTdxQuote(named.issueQuote({ reportData }), verified, optionsOf(named));
      expect(errorOf(verify).code).to.equal("tdx/pck-certificate");
      expect(errorOf(() => verifyWith(collateral, { pckChain: "nothing" })).code).to.equal("tdx/chain-malformed");
      const { tcbInfoIssuerChain } = collateral;
      expect(errorOf(() => verifyWith(collateral, { pckChain: tcbInfoIssuerChain })).code).to.equal("tdx/chain-length");
    });

    describe("though its root is a good one", () => {
      const dates = { notBefore: AT - DAY, notAfter: AT + DAY };
      const SGX = "1.2.840.113741.1.13.1";
      type Request = Partial<Parameters<typeof issueCertificate>[0]>;
      let root: TestCertificate;
      let ca: TestCertificate;
      let sgx: Uint8Array;
      const make = (commonName: string, request: Request) =>
        issueCertificate({ commonName, kind: "p256", ca: false, ...dates, ...request });
      before(async () => {
        root = await make("Intel SGX Root CA", { ca: true });
        ca = await make("Intel SGX PCK Platform CA", { ca: true, issuer: root });
        const { pckChain } = parseTdxQuote(tee.issueQuote({ reportData })).signatureData;
        const [leaf] = parsePemChain(pckChain ?? "", "tdx", "chain");
        sgx = parseCertificate(leaf ?? fill(1, 0), "tdx", "leaf").extensions.get(SGX) ?? fill(1, 0);
      });
      const leafOf = (issuer: TestCertificate, request: Request = {}) =>
        make("Intel SGX PCK Certificate", { issuer, extensions: { [SGX]: sgx }, ...request });
      const keyOf = (leaf: TestCertificate, issuer = ca) =>
        readTdxCollateralKey(tee.issueQuote({ reportData, pckChain: formatPem([leaf, issuer, root]) }), {
          unsafeTestRoots: [root.der],
        });

      it("refuses a leaf that is a CA's or of another curve, without its extension or with a broken one", async () => {
        expect(keyOf(await leafOf(ca)).ca).to.equal("platform");
        const code = async (request: Request) => {
          const leaf = await leafOf(ca, request);
          return errorOf(() => keyOf(leaf)).code;
        };
        expect(await code({ ca: true })).to.equal("tdx/pck-certificate");
        expect(await code({ kind: "p384" })).to.equal("tdx/pck-certificate");
        expect(await code({ extensions: {} })).to.equal("tdx/pck-certificate");
        const keyUsage = { "2.5.29.15": Uint8Array.of(3, 2, 7, 0x80) }; // it is there already
        expect(await code({ extensions: { [SGX]: sgx, ...keyUsage } })).to.equal("tdx/certificate-extension");
        const named = await leafOf({ ...ca, name: "CN=Intel SGX PCK Processor CA" });
        expect(errorOf(() => keyOf(named)).code).to.equal("tdx/chain");
        const twice = Buffer.concat([sgx, sgx.subarray(4)]);
        twice.writeUInt16BE(twice.length - 4, 2);
        expect(await code({ extensions: { [SGX]: twice } })).to.equal("tdx/pck-certificate");
      });

      it("refuses another CA of the vendor as issuer", async () => {
        const other = await make("Intel SGX TCB Signing", { ca: true, issuer: root });
        const leaf = await leafOf(other);
        expect(errorOf(() => keyOf(leaf, other)).code).to.equal("tdx/wrong-issuer");
      });

      it("wants the revocation list of the very CA: its name and its key, under the same root", async () => {
        const signer = await make("Intel SGX TCB Signing", { issuer: root });
        const again = await make("Intel SGX PCK Platform CA", { ca: true, issuer: root });
        const sign = (text: string) =>
          new Uint8Array(signBytes("sha256", Buffer.from(text), { key: signer.privateKey, dsaEncoding: "ieee-p1363" }));
        const times = { thisUpdate: AT - DAY, nextUpdate: AT + DAY };
        const signerChain = formatPem([signer, root]);
        const own: TdxCollateral = {
          ...collateral,
          ...{ tcbInfoIssuerChain: signerChain, tcbInfoSignature: sign(collateral.tcbInfo) },
          ...{ qeIdentityIssuerChain: signerChain, qeIdentitySignature: sign(collateral.qeIdentity) },
          pckCrlIssuerChain: formatPem([ca, root]),
          pckCrl: await issueCrl({ issuer: ca, ...times }),
          rootCaCrl: await issueCrl({ issuer: root, ...times }),
        };
        const options = { atUnixSeconds: AT, unsafeTestRoots: [root.der, tee.root] };
        const verified = verifyTdxCollateral(own, options);
        const code = (...chain: Parameters<typeof formatPem>[0]) =>
          errorOf(() => verifyTdxQuote(tee.issueQuote({ reportData, pckChain: formatPem(chain) }), verified, options))
            .code;
        // The quoting enclave's report is the other key's: that far it comes where the chain is right.
        expect(code(await leafOf(ca), ca, root)).to.equal("tdx/qe-report-signature");
        expect(code(await leafOf(again), again, root)).to.equal("tdx/crl-issuer");
        const elsewhere = errorOf(() => verifyTdxQuote(tee.issueQuote({ reportData }), verified, options));
        expect(elsewhere.code).to.equal("tdx/root-mismatch");
        for (const part of ["tcbInfo", "qeIdentity"] as const) {
          const mixed = { ...own };
          for (const name of [`${part}IssuerChain`, `${part}Signature`] as const)
            Object.assign(mixed, { [name]: collateral[name] });
          expect(errorOf(() => verifyTdxCollateral(mixed, options)).code, part).to.equal("tdx/root-mismatch");
        }
        // Each signer by itself: that of the QE identity may be another than that of the TCB info.
        const late = await make("Intel SGX TCB Signing", { issuer: root });
        const revoking = await issueCrl({ issuer: root, ...times, revoked: [late] });
        const signature = { key: late.privateKey, dsaEncoding: "ieee-p1363" } as const;
        for (const part of ["tcbInfo", "qeIdentity"] as const) {
          const signed = {
            [`${part}IssuerChain`]: formatPem([late, root]),
            [`${part}Signature`]: new Uint8Array(signBytes("sha256", Buffer.from(collateral[part]), signature)),
          };
          verifyTdxCollateral({ ...own, ...signed }, options);
          const revoked = { ...own, ...signed, rootCaCrl: revoking };
          expect(errorOf(() => verifyTdxCollateral(revoked, options)).code, part).to.equal("tdx/revoked");
        }
      });

      it("refuses a chain with more CAs below one than that one may have", async () => {
        const short = await make("Intel SGX Root CA", { ca: true, pathLength: 0 });
        const below = await make("Intel SGX PCK Platform CA", { ca: true, pathLength: 0, issuer: root });
        const under = await make("Intel SGX PCK Platform CA", { ca: true, issuer: short });
        const code = (leaf: TestCertificate, issuer: TestCertificate, top: TestCertificate) => {
          const quote = tee.issueQuote({ reportData, pckChain: formatPem([leaf, issuer, top]) });
          return errorOf(() => readTdxCollateralKey(quote, { unsafeTestRoots: [top.der] })).code;
        };
        expect(keyOf(await leafOf(below), below).ca).to.equal("platform");
        expect(code(await leafOf(under), under, short)).to.equal("tdx/chain");
      });
    });

    it("reads nothing that the certificate above did not sign: a stranger's may take long to read", async () => {
      const dates = { notBefore: AT - DAY, notAfter: AT + DAY };
      const criticalExtensions = { "1.2.3.4": Uint8Array.of(5, 0) };
      const stranger = { commonName: "Intel SGX PCK Platform CA", kind: "p256", ca: true, criticalExtensions } as const;
      const ca = await issueCertificate({ ...stranger, ...dates });
      const leaf = await issueCertificate({ ...stranger, issuer: ca, ...dates });
      const genuine = new TextDecoder().decode(parseTdxQuote(tee.issueQuote({ reportData })).signatureData.pckChain);
      const [pck = "", pckCa = "", root = ""] = genuine.match(/-----BEGIN[\s\S]*?-----END CERTIFICATE-----\n/g) ?? [];
      const code = (...chain: readonly string[]) => {
        const quote = tee.issueQuote({ reportData, pckChain: chain.join("") });
        return errorOf(() => readTdxCollateralKey(quote, { unsafeTestRoots: [tee.root] })).code;
      };
      expect(code(formatPem([leaf, ca]), root)).to.equal("tdx/chain");
      expect(code(formatPem([leaf]), pckCa, root)).to.equal("tdx/chain");
      expect(code(pck, formatPem([ca]), root)).to.equal("tdx/chain");
      expect(code(pck, pckCa, formatPem([ca]))).to.equal("tdx/wrong-root");
    });

    it("refuses an issuer that is no CA, and critical extensions that it does not know", async () => {
      const dates = { notBefore: AT - DAY, notAfter: AT + DAY };
      const root = await issueCertificate({ commonName: "Intel SGX Root CA", kind: "p256", ca: true, ...dates });
      const notCa = await issueCertificate({
        commonName: "Intel SGX PCK Platform CA",
        kind: "p256",
        ca: false,
        signsCertificates: true,
        issuer: root,
        ...dates,
      });
      const leaf = await issueCertificate({
        commonName: "Intel SGX PCK Certificate",
        kind: "p256",
        ca: false,
        issuer: notCa,
        ...dates,
      });
      const strange = await issueCertificate({
        commonName: "Intel SGX PCK Certificate",
        kind: "p256",
        ca: false,
        issuer: notCa,
        criticalExtensions: { "1.2.3.4": Uint8Array.of(5, 0) },
        ...dates,
      });
      const wrongKind = await issueCertificate({
        commonName: "Intel SGX PCK Platform CA",
        kind: "p384",
        ca: true,
        ...dates,
      });
      const code = (...chain: Parameters<typeof formatPem>[0]) => {
        const quote = tee.issueQuote({ reportData, pckChain: formatPem(chain) });
        const verified = verifyTdxCollateral(collateral, optionsOf(tee));
        const roots = [tee.root, root.der, wrongKind.der];
        return errorOf(() => verifyTdxQuote(quote, verified, { atUnixSeconds: AT, unsafeTestRoots: roots })).code;
      };
      expect(code(leaf, notCa, root)).to.equal("tdx/chain");
      expect(code(strange, notCa, root)).to.equal("tdx/certificate-extension");
      expect(code(leaf, root, root)).to.equal("tdx/chain");
      expect(code(leaf, notCa, wrongKind)).to.equal("tdx/certificate-algorithm");
      expect(code(wrongKind, wrongKind, wrongKind)).to.equal("tdx/certificate-algorithm");
    });
  });
});
