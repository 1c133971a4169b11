import { expect } from "chai";
import { isKeysteadError } from "../../../src/core/errors.ts";
import { createChainCache } from "../../../src/node/evidence/chain-cache.ts";
import { verifyNitroDocument } from "../../../src/node/evidence/nitro.ts";
import { verifySnpReport } from "../../../src/node/evidence/snp.ts";
import { verifyTdxQuote } from "../../../src/node/evidence/tdx.ts";
import {
  parseTdxCollateral,
  type TdxCollateral,
  verifyTdxCollateral,
} from "../../../src/node/evidence/tdx-collateral.ts";
import { createTestNitro } from "../../../src/node/test-tee/nitro.ts";
import { createTestSnp } from "../../../src/node/test-tee/snp.ts";
import { createTestTdx } from "../../../src/node/test-tee/tdx.ts";
import { fill } from "../../helpers/evidence.ts";
import { evidenceRole, snpCertificates, verifyVector } from "../../helpers/genuine.ts";
import { loadVectors, NO_VECTORS, readVector } from "../../helpers/vectors.ts";

const WINDOW = 64;
const FLIPS: readonly number[] = [0x01, 0x80];
/** Genuine collateral is larger than all quotes together: one flip a window. */
const ONE_FLIP: readonly number[] = [0x01];
const AT = 1_750_000_000;

/**
 * Flips bits in the first, middle and last byte of every window, one at a time; each result must be refused with a `KeysteadError`.
 *
 * @returns how many were tried
 */
function mutateAll(
  name: string,
  bytes: Uint8Array,
  verify: (mutated: Uint8Array) => unknown,
  flips: readonly number[] = FLIPS,
): number {
  expect(() => verify(bytes), `${name} unchanged`).not.to.throw();
  let tried = 0;
  for (let start = 0; start < bytes.length; start += WINDOW) {
    const end = Math.min(start + WINDOW, bytes.length);
    const middle = (start + end) >> 1;
    for (const at of flips === ONE_FLIP ? [middle] : new Set([start, middle, end - 1])) {
      for (const flip of flips) {
        const mutated = Uint8Array.from(bytes);
        mutated[at] = (mutated[at] ?? 0) ^ flip;
        let refused = false;
        try {
          verify(mutated);
        } catch (error) {
          if (!isKeysteadError(error)) throw error;
          refused = true;
        }
        if (!refused) expect.fail(`${name}: byte ${at} with ${flip.toString(16)} flipped was accepted`);
        tried += 1;
      }
    }
  }
  return tried;
}

/** Every part of collateral, text or bytes. */
function mutateCollateral(
  id: string,
  collateral: TdxCollateral,
  options: Parameters<typeof verifyTdxCollateral>[1],
  flips: readonly number[],
): number {
  let tried = 0;
  for (const [name, part] of Object.entries(collateral)) {
    const text = typeof part === "string";
    const bytes: Uint8Array = text ? new TextEncoder().encode(part) : part;
    const verify = (mutated: Uint8Array) =>
      verifyTdxCollateral({ ...collateral, [name]: text ? Buffer.from(mutated).toString("latin1") : mutated }, options);
    tried += mutateAll(`${id} ${name}`, bytes, verify, flips);
  }
  return tried;
}

describe("verifiers: any change anywhere is refused", function () {
  this.timeout(600_000); // thousands of verifications; generous for a loaded machine
  it("in every window of every genuine vector: quote, report, document and certificates", function () {
    const vectors = loadVectors();
    if (vectors === undefined) {
      console.log(`      ${NO_VECTORS}`);
      return this.skip();
    }
    let tried = 0;
    for (const vector of vectors.filter(({ mustVerify }) => mustVerify)) {
      const role = evidenceRole(vector);
      if (role === undefined) continue;
      tried += mutateAll(vector.id, readVector(vector, role), (bytes) => verifyVector(vector, bytes));
      if (role !== "report") continue;
      const certificates = snpCertificates(vector);
      // The key alone, as AWS gives it: the intermediate and the root are those that are known here.
      const { endorsementKey } = certificates;
      const alone = (bytes: Uint8Array) => verifyVector(vector, bytes, { endorsementKey });
      tried += mutateAll(`${vector.id}, key alone`, readVector(vector, role), alone, ONE_FLIP);
      const key = (mutated: Uint8Array) => verifyVector(vector, undefined, { endorsementKey: mutated });
      tried += mutateAll(`${vector.id}, that key`, endorsementKey, key, ONE_FLIP);
      for (const [name, der] of Object.entries(certificates)) {
        if (!(der instanceof Uint8Array)) continue;
        const verify = (mutated: Uint8Array) => verifyVector(vector, undefined, { ...certificates, [name]: mutated });
        tried += mutateAll(`${vector.id} ${name}`, der, verify);
      }
    }
    console.log(`      ${tried} changes refused`);
  });

  it("in every window of what genuine quotes are verified with: chains, revocation lists, TCB info, QE identity", function () {
    const vectors = loadVectors();
    if (vectors === undefined) {
      console.log(`      ${NO_VECTORS}`);
      return this.skip();
    }
    const quotes = vectors.filter((vector) => vector.mustVerify && evidenceRole(vector) === "quote");
    const files = new Map(quotes.map((vector) => [vector.files.collateral, vector]));
    expect(files.size).to.be.greaterThan(3);
    // one set here, all of them in the long run (npm run test:long): a change costs three signatures
    const chosen = [...files.values()].slice(0, process.env.KEYSTEAD_FUZZ_RUNS === undefined ? 1 : files.size);
    let tried = 0;
    for (const vector of chosen) {
      const collateral = parseTdxCollateral(Buffer.from(readVector(vector, "collateral")).toString("utf8"));
      const options = { atUnixSeconds: vector.verifyAtUnixSeconds ?? Number.NaN };
      tried += mutateCollateral(vector.id, collateral, options, ONE_FLIP);
    }
    console.log(`      ${tried} changes to ${chosen.length} of ${files.size} sets of collateral refused`);
  });

  it("in every window of synthetic evidence of each kind", async () => {
    const reportData = fill(64, 0xdd);
    const tdx = await createTestTdx({ atUnixSeconds: AT });
    const options = { atUnixSeconds: AT, unsafeTestRoots: [tdx.root], chains: createChainCache() };
    const collateral = verifyTdxCollateral(await tdx.issueCollateral(), options);
    for (const [version, body] of [
      [4, undefined],
      [5, "td1.5"],
      [5, "extended"],
    ] as const) {
      const quote = tdx.issueQuote({ version, ...(body === undefined ? {} : { body }), reportData, padding: 70 });
      mutateAll(`TDX v${version} ${body}`, quote, (bytes) => verifyTdxQuote(bytes, collateral, options));
    }
    for (const [product, endorsement, version] of [
      ["milan", "vcek", 3],
      ["milan", "vlek", 5],
      ["turin", "vcek", 3],
      ["turin", "vcek", 2],
      ["venice", "vcek", 5],
    ] as const) {
      const snp = await createTestSnp({ atUnixSeconds: AT, product, endorsement });
      const snpOptions = { atUnixSeconds: AT, unsafeTestRoots: [snp.root], chains: createChainCache() };
      for (const masked of [false, true]) {
        const report = snp.issueReport({ reportData, version, ...(masked ? { chipId: fill(64, 0) } : {}) });
        mutateAll(`${product} v${version}`, report, (bytes) => verifySnpReport(bytes, snp.certificates, snpOptions));
      }
      if (version !== 3) continue;
      const report = snp.issueReport({ reportData });
      for (const name of ["endorsementKey", "signer", "root"] as const) {
        const der = snp.certificates[name] ?? new Uint8Array();
        const verify = (bytes: Uint8Array) =>
          verifySnpReport(report, { ...snp.certificates, [name]: bytes }, snpOptions);
        mutateAll(`${product} ${name}`, der, verify);
      }
      const crl = await snp.issueCrl();
      mutateAll(`${product} CRL`, crl, (bytes) =>
        verifySnpReport(report, { ...snp.certificates, crl: bytes }, snpOptions),
      );
    }
    const nitro = await createTestNitro({ atUnixSeconds: AT });
    const chains = createChainCache();
    for (const form of ["indefinite", "definite"] as const) {
      const pcrs = { 0: fill(48, 1), 1: fill(48, 2), 2: fill(48, 3), 16: fill(48, 4) };
      mutateAll(`Nitro, ${form}`, nitro.issueDocument({ pcrs, form }), (bytes) =>
        verifyNitroDocument(bytes, { atUnixSeconds: AT, unsafeTestRoots: [nitro.root], chains }),
      );
    }
  });

  it("in every window of every part of TDX collateral", async () => {
    const tee = await createTestTdx({ atUnixSeconds: AT });
    const options = { atUnixSeconds: AT, unsafeTestRoots: [tee.root] };
    const collateral = await tee.issueCollateral();
    mutateCollateral("synthetic", collateral, options, FLIPS);
  });
});
