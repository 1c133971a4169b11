import { expect } from "chai";
import { fromBase64 } from "../../src/core/bytes.ts";
import { parseMessage, problemSchema } from "../../src/core/release-wire.ts";
import { createChallenges } from "../../src/node/challenge.ts";
import { type CollateralSource, createCollateralCache } from "../../src/node/evidence/collateral.ts";
import { verifyNitroDocument } from "../../src/node/evidence/nitro.ts";
import { verifySnpReport } from "../../src/node/evidence/snp.ts";
import { createSnpCrlSource } from "../../src/node/evidence/snp-crl.ts";
import { verifyTdxQuote } from "../../src/node/evidence/tdx.ts";
import { checkCollateral, verifyTdxCollateral } from "../../src/node/evidence/tdx-collateral.ts";
import { CLOCK_TOLERANCE_SECONDS, checkValidity } from "../../src/node/evidence/time.ts";
import { createJudge } from "../../src/node/judge.ts";
import { createTestNitro } from "../../src/node/test-tee/nitro.ts";
import { createTestSnp } from "../../src/node/test-tee/snp.ts";
import { createTestTdx } from "../../src/node/test-tee/tdx.ts";
import { errorOf, rejectionOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";
import { fieldInput } from "../helpers/field.ts";
import { createTestNode, createTestTees, honestRequest, post } from "../helpers/node.ts";
import { supports } from "./supports.ts";

const AT = 1_790_000_000;
const HOUR = 3600;
const YEAR = 365 * 86_400;
const PCRS = { 0: fill(48, 1), 1: fill(48, 2), 2: fill(48, 3) };
const reportData = fill(64, 0xdd);
const CLOCKS = "Clocks";

/** Each accepts a clock that is `slow` seconds behind what was issued, and fails with its own code beyond. */
interface Case {
  readonly what: string;
  readonly code: RegExp;
  readonly at: (slow: number) => unknown;
  /** One second after the end. */
  readonly late: () => unknown;
  readonly expired: RegExp;
}

describe("field: clocks", function () {
  this.timeout(120_000);

  supports(
    CLOCKS,
    "up to 60 s slow",
    "what was issued a moment ago is accepted; nothing counts after its end",
    async () => {
      // Everything below is issued at AT, to the second.
      const tdx = await createTestTdx({ atUnixSeconds: AT + 86_400 }); // certificates are good from a day before
      const snp = await createTestSnp({ atUnixSeconds: AT + 86_400 });
      const nitro = await createTestNitro({ atUnixSeconds: AT + 60 }); // the leaf is good from a minute before
      const older = await createTestSnp({ atUnixSeconds: AT });
      const oldTdx = await createTestTdx({ atUnixSeconds: AT });
      const roots = [tdx.root, snp.root, nitro.root, older.root, oldTdx.root];
      const options = (atUnixSeconds: number) => ({ atUnixSeconds, unsafeTestRoots: roots });
      const report = snp.issueReport({ reportData });
      const oldReport = older.issueReport({ reportData });
      const crl = await older.issueCrl({ thisUpdate: AT, nextUpdate: AT + HOUR });
      const ends = AT + YEAR + 86_400;
      const fresh = await oldTdx.issueCollateral({ issuedAt: AT, nextUpdate: AT + HOUR });
      const collateral = verifyTdxCollateral(fresh, options(AT + 1));
      const newer = await tdx.issueCollateral({ issuedAt: AT, nextUpdate: AT + YEAR });
      const late = verifyTdxCollateral(newer, options(AT + 1));
      const quote = tdx.issueQuote({ reportData });
      const document = nitro.issueDocument({ pcrs: PCRS, timestampMs: AT * 1000 });
      const cases: readonly Case[] = [
        {
          what: "SEV-SNP certificates",
          code: /^snp\/certificate-not-yet-valid$/,
          at: (slow) => verifySnpReport(report, snp.certificates, options(AT - slow)),
          late: () => verifySnpReport(report, snp.certificates, options(ends + 1)),
          expired: /^snp\/certificate-expired$/,
        },
        {
          what: "AMD's list",
          code: /^snp\/crl-not-yet-valid$/,
          at: (slow) => verifySnpReport(oldReport, { ...older.certificates, crl }, options(AT - slow)),
          late: () => verifySnpReport(oldReport, { ...older.certificates, crl }, options(AT + HOUR + 1)),
          expired: /^snp\/crl-expired$/,
        },
        {
          what: "Intel's collateral and lists",
          code: /^tdx\/(collateral|crl)-not-yet-valid$/,
          at: (slow) => checkCollateral(collateral, AT - slow),
          late: () => checkCollateral(collateral, AT + HOUR + 1),
          expired: /^tdx\/collateral-expired$/,
        },
        {
          what: "a PCK certificate",
          code: /^tdx\/certificate-not-yet-valid$|^tdx\/collateral-not-yet-valid$/,
          at: (slow) => verifyTdxQuote(quote, late, options(AT - slow)),
          late: () => verifyTdxQuote(quote, late, options(ends + 1)),
          expired: /^tdx\/(certificate|collateral)-expired$/,
        },
        {
          what: "a Nitro leaf and its document",
          code: /^nitro\/(certificate-not-yet-valid|from-the-future)$/,
          at: (slow) => verifyNitroDocument(document, options(AT - slow)),
          late: () => verifyNitroDocument(document, options(AT + 60 + 3 * HOUR + 1)),
          expired: /^nitro\/certificate-expired$/,
        },
      ];
      for (const { what, code, at, late: after, expired } of cases) {
        for (const slow of [0, 1, 60]) expect(() => at(slow), `${what}, ${slow} s slow`).not.to.throw();
        const early = errorOf(() => at(61));
        expect(early.code, what).to.match(code);
        expect(early.retryable, what).to.equal(true);
        expect(early.details.retryAfterSeconds, what).to.equal(1);
        expect(early.message, what).to.match(/61 s (too early|after)/);
        const over = errorOf(after);
        expect(over.code, what).to.match(expired);
        expect(over.retryable, what).to.equal(false);
      }
    },
  );

  it("tolerates at the beginning alone, and takes no number that is none", () => {
    const validity = { from: 1000, until: 2000 };
    const names = { code: "x/y", argument: "y", what: "y", remedy: "z" };
    for (const at of [1000 - CLOCK_TOLERANCE_SECONDS, 2000]) checkValidity(validity, at, names);
    expect(errorOf(() => checkValidity(validity, 2000.5, names)).code).to.equal("x/y-expired");
    expect(errorOf(() => checkValidity(validity, 939.5, names)).code).to.equal("x/y-not-yet-valid");
    expect(errorOf(() => checkValidity(validity, Number.NaN, names)).code).to.equal("x/y-not-yet-valid");
    expect(errorOf(() => checkValidity({ from: Number.NaN, until: 2000 }, 1500, names)).code).to.equal(
      "x/y-not-yet-valid",
    );
  });

  it("takes the field's own document, 3 s ahead of the judge", function () {
    const input = JSON.parse(Buffer.from(fieldInput(this, "14-nitro-fresh-leaf-slow-clock.json")).toString("utf8"));
    const bytes = (text: string) => fromBase64(text, "field");
    const verified = verifyNitroDocument(bytes(input.document), {
      atUnixSeconds: input.judgeAt,
      unsafeTestRoots: [bytes(input.unsafeTestRoot)],
    });
    expect(verified.trust.kind).to.equal("TEST ROOT");
  });

  supports(CLOCKS, "more than 60 s slow", "the refusal says by how much, and that it passes", async () => {
    const tees = await createTestTees();
    try {
      const node = await createTestNode(tees, { judge: createJudge(tees.judgeOptions) });
      node.skewSeconds = -5 * 60; // the test TEE's leaf certificate is a minute old
      const { request } = await honestRequest(node, "nitro");
      const response = await post(node.app, "/v1/keys", request);
      expect(Number(response.headers.get("retry-after"))).to.be.within(150, 240);
      const problem = parseMessage(problemSchema, await response.text(), "problem");
      expect(problem).to.include({
        status: 401,
        code: "evidence/not-genuine",
        reason: "nitro/certificate-not-yet-valid",
        retryable: true,
      });
      expect(problem.detail).to.match(/is \d+ s too early, and 60 s are tolerated/);
      await node.close();
    } finally {
      tees.folder.remove();
    }
  });

  supports(CLOCKS, "set forward and back while a node runs", "nonces live as long as they should", () => {
    let wall = AT;
    let passed = 5000;
    const challenges = createChallenges({ seconds: 60, clock: () => wall, stopwatch: () => passed });
    const fresh = () => Buffer.from(challenges.issue().nonce.slice(2), "hex");
    const before = fresh();
    wall += YEAR;
    const during = fresh();
    wall -= YEAR;
    const [after, used] = [fresh(), fresh()];
    challenges.take(used);
    expect(challenges.issue().expiresAt).to.equal(AT + 60);
    passed += 59;
    challenges.take(before);
    passed += 1;
    // A minute after they were made none of them counts, and a used one is no better than before.
    for (const nonce of [during, after]) expect(errorOf(() => challenges.take(nonce)).code).to.equal("nonce/expired");
    for (const nonce of [before, used])
      expect(errorOf(() => challenges.take(nonce)).code).to.match(/^nonce\/(used|expired)$/);
    wall -= 10 * YEAR;
    expect(errorOf(() => challenges.take(during)).code).to.equal("nonce/expired");
    challenges.take(fresh());
  });

  supports(CLOCKS, "set forward and back while a node runs", "collateral and lists are renewed as before", async () => {
    const tee = await createTestTdx({ atUnixSeconds: AT });
    let passed = 5000;
    const asked: string[] = [];
    const state = { down: false };
    const source: CollateralSource = {
      fetch: async () => {
        asked.push("tdx");
        if (state.down) throw new Error("down");
        return await tee.issueCollateral({ nextUpdate: AT + 3 * YEAR });
      },
    };
    const cache = createCollateralCache({
      ...{ sources: [source], unsafeTestRoots: [tee.root], stopwatch: () => passed },
    });
    const key = { fmspc: "0x00806f050000", ca: "platform" } as const;
    const settle = () => new Promise((resolve) => setTimeout(resolve, 50));
    await cache.get(key, AT);
    // The clock jumps half a year ahead: what is renewed then is renewed again an hour later, whatever the clock says.
    passed += HOUR;
    await cache.get(key, AT + YEAR / 2);
    await settle();
    expect(asked).to.have.length(2);
    passed += HOUR;
    await cache.get(key, AT);
    await settle();
    expect(asked).to.have.length(3);
    // A failure during a jump rests for half a minute, not for half a year.
    state.down = true;
    passed += HOUR;
    await cache.get(key, AT + YEAR / 2);
    await settle();
    state.down = false;
    passed += 31;
    await cache.get(key, AT);
    await settle();
    expect(asked).to.have.length(5);
    expect(cache.states()[0]?.lastError).to.equal(undefined);

    const snp = await createTestSnp({ atUnixSeconds: AT });
    const list = await snp.issueCrl({ nextUpdate: AT + 3 * YEAR });
    let requests = 0;
    const fetch = async () => {
      requests += 1;
      return requests === 2 ? new Response("", { status: 429 }) : new Response(new Uint8Array(list));
    };
    const lists = createSnpCrlSource({
      ...{ url: "https://kds.invalid", fetch, unsafeTestRoots: [snp.root], stopwatch: () => passed },
    });
    await lists.get("milan", "vcek", AT);
    passed += HOUR;
    await lists.get("milan", "vcek", AT + YEAR / 2);
    await settle();
    passed += 31;
    await lists.get("milan", "vcek", AT);
    await settle();
    expect(requests).to.equal(3);
    expect((await rejectionOf(lists.get("genoa", "vcek", AT + 4 * YEAR))).code).to.match(/^snp\/crl-/);
  });
});
