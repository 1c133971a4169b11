import { createHash } from "node:crypto";
import { expect } from "chai";
import type { Hex } from "../../../src/core/bytes.ts";
import {
  type Binding,
  buildReportData,
  checkBinding,
  type VerifiedEvidence,
} from "../../../src/node/evidence/binding.ts";
import { verifyNitroDocument } from "../../../src/node/evidence/nitro.ts";
import { verifySnpReport } from "../../../src/node/evidence/snp.ts";
import { verifyTdxQuote } from "../../../src/node/evidence/tdx.ts";
import { verifyTdxCollateral } from "../../../src/node/evidence/tdx-collateral.ts";
import { createTestNitro } from "../../../src/node/test-tee/nitro.ts";
import { createTestSnp } from "../../../src/node/test-tee/snp.ts";
import { createTestTdx } from "../../../src/node/test-tee/tdx.ts";
import { errorOf } from "../../helpers/errors.ts";
import { fill } from "../../helpers/evidence.ts";

const AT = 1_750_000_000;
const serviceId: Hex = `0x${"5e".repeat(20)}`;
const binding: Binding = { nonce: fill(32, 1), serviceId, recipientPublicKey: fill(32, 2) };
const OTHERS: Readonly<Record<string, Binding>> = {
  nonce: { ...binding, nonce: fill(32, 9) },
  service: { ...binding, serviceId: `0x${"5f".repeat(20)}` },
  key: { ...binding, recipientPublicKey: fill(32, 9) },
};

describe("binding", () => {
  const reportData = buildReportData(binding);
  const evidence: VerifiedEvidence[] = [];
  before(async () => {
    const tdx = await createTestTdx({ atUnixSeconds: AT });
    const tdxOptions = { atUnixSeconds: AT, unsafeTestRoots: [tdx.root] };
    const collateral = verifyTdxCollateral(await tdx.issueCollateral(), tdxOptions);
    const snp = await createTestSnp({ atUnixSeconds: AT });
    const nitro = await createTestNitro({ atUnixSeconds: AT });
    const pcrs = { 0: fill(48, 1), 1: fill(48, 2), 2: fill(48, 3) };
    const { nonce, recipientPublicKey: publicKey } = binding;
    const document = nitro.issueDocument({ pcrs, userData: reportData, nonce, publicKey });
    evidence.push(
      verifyTdxQuote(tdx.issueQuote({ reportData }), collateral, tdxOptions),
      verifySnpReport(snp.issueReport({ reportData }), snp.certificates, {
        atUnixSeconds: AT,
        unsafeTestRoots: [snp.root],
      }),
      verifyNitroDocument(document, { unsafeTestRoots: [nitro.root] }),
    );
  });

  it("is SHA-512 over the label, nonce, service and key", () => {
    const text = Buffer.concat([Buffer.from("keystead/v1/report"), fill(32, 1), fill(20, 0x5e), fill(32, 2)]);
    expect(Buffer.from(reportData).toString("hex")).to.equal(createHash("sha512").update(text).digest("hex"));
  });

  it("accepts evidence of each kind for the request it was made for", () => {
    expect(evidence.map(({ kind }) => kind)).to.deep.equal(["tdx", "snp", "nitro"]);
    for (const verified of evidence) checkBinding(verified, binding);
  });

  for (const [what, other] of Object.entries(OTHERS))
    it(`refuses evidence of each kind for another ${what}`, () => {
      for (const verified of evidence)
        expect(errorOf(() => checkBinding(verified, other)).code, verified.kind).to.equal("binding/mismatch");
    });

  it("wants all three of Nitro's fields", () => {
    const nitro = evidence.find((verified) => verified.kind === "nitro");
    if (nitro === undefined) throw new Error("no Nitro evidence");
    for (const [field, name] of [
      ["userData", "user_data"],
      ["nonce", "nonce"],
      ["publicKey", "public_key"],
    ] as const) {
      const without = { ...nitro, document: { ...nitro.document, [field]: undefined } };
      expect(errorOf(() => checkBinding(without, binding)).details.field).to.equal(name);
    }
  });

  it("names the part of a wrong length", () => {
    const code = (wrong: Partial<Binding>) => errorOf(() => buildReportData({ ...binding, ...wrong })).details.field;
    expect(code({ nonce: fill(31, 1) })).to.equal("nonce");
    expect(code({ serviceId: "0x00" })).to.equal("serviceId");
    expect(code({ recipientPublicKey: fill(33, 1) })).to.equal("recipientPublicKey");
  });
});
