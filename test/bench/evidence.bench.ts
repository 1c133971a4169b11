import { QuoteVerifier } from "@phala/dcap-qvl";
import { expect } from "chai";
import { createChainCache } from "../../src/node/evidence/chain-cache.ts";
import { verifyNitroDocument } from "../../src/node/evidence/nitro.ts";
import { verifySnpReport } from "../../src/node/evidence/snp.ts";
import { verifyTdxQuote } from "../../src/node/evidence/tdx.ts";
import { formatTdxCollateral, verifyTdxCollateral } from "../../src/node/evidence/tdx-collateral.ts";
import { createTestNitro } from "../../src/node/test-tee/nitro.ts";
import { createTestSnp } from "../../src/node/test-tee/snp.ts";
import { createTestTdx } from "../../src/node/test-tee/tdx.ts";
import { fill } from "../helpers/evidence.ts";
import { benchmark } from "./benchmark.ts";

const AT = 1_750_000_000;
/** Time of this process's own on a processor: what others do on the machine does not count. */
const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};
/** Rounds in which each row runs for its share of time; the rows take turns. */
const ROUNDS = 10;
const SHARE_MS = 100;
/** As many as Intel's PCK CRL named in May 2025: the library reads the whole list for every quote. */
const INTEL_REVOCATIONS = 44;
/** How many times faster than the JavaScript library a TDX quote must be verified, with chains and collateral cached. */
const GOAL = 20;

benchmark("verified evidence", function () {
  this.timeout(300_000);

  it(`verifies TDX quotes at least ${GOAL} times as fast as @phala/dcap-qvl`, async () => {
    const reportData = fill(64, 0xdd);
    const chains = createChainCache();
    const tdx = await createTestTdx({ atUnixSeconds: AT });
    const tdxOptions = { atUnixSeconds: AT, unsafeTestRoots: [tdx.root] };
    const collateral = await tdx.issueCollateral({ otherRevocations: INTEL_REVOCATIONS });
    const verified = verifyTdxCollateral(collateral, tdxOptions);
    const quotes = ([4, 5] as const).map((version) => tdx.issueQuote({ version, reportData }));
    const [v4 = reportData, v5 = reportData] = quotes;
    const library = QuoteVerifier.newWithRootCa(Buffer.from(tdx.root));
    const libraryCollateral = JSON.parse(formatTdxCollateral(collateral));
    const libraryQuote = Buffer.from(v4);
    const snp = await createTestSnp({ atUnixSeconds: AT });
    const snpOptions = { atUnixSeconds: AT, unsafeTestRoots: [snp.root] };
    const report = snp.issueReport({ reportData });
    const nitro = await createTestNitro({ atUnixSeconds: AT });
    const nitroOptions = { unsafeTestRoots: [nitro.root] };
    const document = nitro.issueDocument({ pcrs: { 0: fill(48, 1), 1: fill(48, 2), 2: fill(48, 3) } });

    const rows: readonly [string, () => unknown][] = [
      ["TDX v4, cached", () => verifyTdxQuote(v4, verified, { ...tdxOptions, chains })],
      ["TDX v5, cached", () => verifyTdxQuote(v5, verified, { ...tdxOptions, chains })],
      ["TDX v4, nothing cached", () => verifyTdxQuote(v4, verifyTdxCollateral(collateral, tdxOptions), tdxOptions)],
      ["TDX v4, @phala/dcap-qvl", () => library.verify(libraryQuote, libraryCollateral, AT)],
      ["SEV-SNP, cached", () => verifySnpReport(report, snp.certificates, { ...snpOptions, chains })],
      ["SEV-SNP, nothing cached", () => verifySnpReport(report, snp.certificates, snpOptions)],
      ["Nitro, cached", () => verifyNitroDocument(document, { ...nitroOptions, chains })],
      ["Nitro, nothing cached", () => verifyNitroDocument(document, nitroOptions)],
    ];
    const totals = new Map<string, { calls: number; ms: number }>();
    for (let round = 0; round <= ROUNDS; round += 1) {
      for (const [name, act] of rows) {
        const start = cpuMs();
        let calls = 0;
        let ms = 0;
        for (; ms < SHARE_MS; calls += 1, ms = cpuMs() - start) act();
        const total = totals.get(name) ?? { calls: 0, ms: 0 };
        // Round 0 warms up.
        if (round > 0) totals.set(name, { calls: total.calls + calls, ms: total.ms + ms });
      }
    }
    const perSecond = (name: string) => {
      const { calls, ms } = totals.get(name) ?? { calls: 0, ms: 1 };
      return (calls * 1000) / ms;
    };
    console.log(`      ${"".padEnd(30)}${"per CPU s".padStart(12)}${"CPU ms".padStart(12)}`);
    for (const [name] of rows) {
      const rate = perSecond(name);
      console.log(`      ${name.padEnd(30)}${rate.toFixed(0).padStart(12)}${(1000 / rate).toFixed(2).padStart(12)}`);
    }
    const factor = perSecond("TDX v4, cached") / perSecond("TDX v4, @phala/dcap-qvl");
    console.log(`      TDX v4: ${factor.toFixed(1)} times @phala/dcap-qvl`);
    expect(factor).to.be.at.least(GOAL);
  });
});
