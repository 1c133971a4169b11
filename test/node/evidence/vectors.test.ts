import { expect } from "chai";
import { verifySnpReport } from "../../../src/node/evidence/snp.ts";
import { errorOf } from "../../helpers/errors.ts";
import { evidenceRole, snpCertificates, verifyVector } from "../../helpers/genuine.ts";
import { loadVectors, NO_VECTORS, readVector } from "../../helpers/vectors.ts";

/** Why each negative is refused. */
const REFUSED: Readonly<Record<string, string>> = {
  "tdx-neg-no-tcb-level": "tdx/no-tcb-level",
  "tdx-neg-service-td": "tdx/service-td",
  "tdx-neg-sept-ve-disable": "tdx/sept-ve-disable",
  "tdx-neg-signature-bit": "tdx/signature",
  "tdx-neg-reportdata-bit": "tdx/signature",
  "tdx-neg-debug-bit": "tdx/debug",
  "tdx-neg-truncated": "bytes/truncated",
  "tdx-neg-trailing": "tdx/trailing-bytes",
  "tdx-neg-expired-collateral": "tdx/collateral-expired",
  "tdx-neg-tcbinfo-tampered": "tdx/collateral-signature",
  "tdx-neg-fmspc-mismatch": "tdx/fmspc-mismatch",
  "tdx-neg-pck-crl-expired": "tdx/crl-expired",
  "snp-neg-debug": "snp/debug",
  "snp-neg-wrong-vcek": "snp/chip-id-mismatch",
  "snp-neg-signature-bit": "snp/signature",
  "snp-neg-truncated": "snp/wrong-length",
  "snp-neg-wrong-product-chain": "snp/chain",
  "nitro-neg-bad-signature": "nitro/signature",
  "nitro-neg-debug": "nitro/debug",
  "nitro-neg-mock-root": "nitro/wrong-root",
  "nitro-neg-expired": "nitro/certificate-expired",
  "nitro-neg-truncated": "bytes/truncated",
};

describe("verifiers: real evidence", () => {
  const vectors = loadVectors()?.filter((vector) => evidenceRole(vector) !== undefined);

  it("accepts every genuine vector at its time, with what the manifest expects of it", function () {
    if (vectors === undefined) {
      console.log(`      ${NO_VECTORS}`);
      return this.skip();
    }
    const ids: string[] = [];
    for (const vector of vectors.filter(({ mustVerify }) => mustVerify)) {
      const verified = verifyVector(vector);
      const { expected } = vector;
      expect(verified.trust.kind, vector.id).to.equal("vendor root");
      if (verified.kind === "tdx") {
        const { moduleTcb } = verified;
        const found: Record<string, unknown> = {
          tcbStatus: verified.tcbStatus,
          platformTcbStatus: verified.platformTcb.status,
          qeTcbStatus: verified.qeTcb.status,
          tdxModule: { id: moduleTcb?.id, isvsvn: moduleTcb?.isvSvn, status: moduleTcb?.status },
          advisoryIds: verified.advisoryIds,
          fmspc: verified.fmspc.slice(2),
        };
        for (const [name, value] of Object.entries(found))
          expect(value, `${vector.id} ${name}`).to.deep.equal(expected[name]);
      } else if (verified.kind === "snp") {
        const { product, endorsement, report } = verified;
        if (expected.product !== undefined) expect(product, vector.id).to.equal(expected.product);
        if (expected.signingKey !== undefined)
          expect(endorsement.toUpperCase(), vector.id).to.equal(expected.signingKey);
        if (expected.vmpl !== undefined) expect(report.vmpl, vector.id).to.equal(expected.vmpl);
      } else {
        expect(verified.trust.sha256, vector.id).to.equal(`0x${expected.rootSha256}`);
      }
      ids.push(vector.id);
    }
    expect(ids).to.have.length.greaterThan(15);
    console.log(`      accepted: ${ids.join(", ")}`);
  });

  it("refuses every negative, each for its own reason", function () {
    if (vectors === undefined) {
      console.log(`      ${NO_VECTORS}`);
      return this.skip();
    }
    const negatives = vectors.filter(({ mustVerify }) => !mustVerify);
    const found = negatives.map((vector) => [vector.id, errorOf(() => verifyVector(vector)).code]);
    expect(Object.fromEntries(found)).to.deep.equal(REFUSED);
    console.log(`      refused: ${negatives.map(({ id }) => id).join(", ")}`);
  });

  it("refuses a report of VMPL 1 where only VMPL 0 may ask, which is the default", function () {
    const vector = vectors?.find(({ id }) => id === "snp-genoa-v3");
    if (vector === undefined) {
      console.log(`      ${NO_VECTORS}`);
      return this.skip();
    }
    const options = { atUnixSeconds: vector.verifyAtUnixSeconds ?? Number.NaN };
    const verify = () => verifySnpReport(readVector(vector, "report"), snpCertificates(vector), options);
    expect(errorOf(verify).code).to.equal("snp/vmpl");
  });
});
