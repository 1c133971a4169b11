import { expect } from "chai";
import fc from "fast-check";
import { authorize, DECISIONS, decideByPolicy } from "../../src/core/decision.ts";
import { decideSpecification } from "../../tools/prove/policy.ts";
import { authorizeSpecification } from "../../tools/prove/registry.ts";
import * as t from "../../tools/prove/term.ts";

const RUNS = 1_000;
/** A storage word whose fields are small often enough to agree with a request. */
const words = fc.oneof(
  fc.bigInt({ min: 0n, max: (1n << 256n) - 1n }),
  fc
    .array(fc.constantFrom<bigint[]>(0n, 1n, 2n, 3n, 255n), { minLength: 32, maxLength: 32 })
    .map((bytes) => bytes.reduce((all, byte) => (all << 8n) | byte, 0n)),
);
const request = fc.record({
  ...{ service: words, rules: words, image: words, serviceDevice: words },
  ...{ gate: words, platform: words, policyDevice: words },
  kind: fc.integer({ min: 0, max: 8 }),
  tcbStatus: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 255 })),
  now: fc.integer({ min: 0, max: 2 ** 40 - 1 }),
});

describe("the specifications that the contracts are proved to equal", () => {
  it("give what src/core/decision.ts gives", () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(request, ({ kind: asked, tcbStatus, now, ...at }) => {
        const given = (value: bigint | number, bits = 256) => t.word(value, bits);
        const policyWords = {
          gate: given(at.gate),
          platform: given(at.platform),
          policyDevice: given(at.policyDevice),
        };
        const reads = {
          service: () => at.service,
          rules: () => at.rules,
          image: () => at.image,
          serviceDevice: () => at.serviceDevice,
          gate: () => at.gate,
          platform: () => at.platform,
          policyDevice: () => at.policyDevice,
        };
        const status = given(tcbStatus, 8);
        const decided = decideSpecification(policyWords, given(asked, 8), status, given(now));
        expect(DECISIONS[Number(decided.value)]).to.equal(decideByPolicy(reads, asked, tcbStatus, now));

        const kind = Number((at.image >> 88n) & 255n);
        const policy = decideSpecification(policyWords, given(kind, 8), status, given(now));
        const registryWords = {
          service: given(at.service),
          rules: given(at.rules),
          image: given(at.image),
          serviceDevice: given(at.serviceDevice),
        };
        const authorized = authorizeSpecification(registryWords, status, given(now), policy);
        const here = authorize(reads, tcbStatus, now);
        expect(DECISIONS[Number(authorized.value)]).to.equal(here);
        seen.add(here);
      }),
      { numRuns: RUNS },
    );
    expect(seen.size, [...seen].join(" ")).to.be.greaterThan(6);
  });
});
