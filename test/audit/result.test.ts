import { expect } from "chai";
import type { Anchor } from "../../src/audit/anchor.ts";
import { concludeAudit, worstVerdict } from "../../src/audit/result.ts";
import { EMPTY_HEAD, type VerifiedHistory } from "../../src/core/history.ts";

const ANCHOR: Anchor = { head: EMPTY_HEAD, count: 1, lastUpdateBlock: 1, basis: "proof", reasons: [], faults: [] };
const VERIFIED: VerifiedHistory<never> = {
  verdict: "proven",
  basis: "proof",
  faults: [],
  head: EMPTY_HEAD,
  entries: [],
  pointers: { agree: true },
};
const BLOCK = { number: 1, hash: EMPTY_HEAD, timestamp: 1, stateRoot: EMPTY_HEAD, hashed: true };
const DIFFERENCE = { what: "service.admin", rebuilt: "a", contract: "b" };

describe("concludeAudit", () => {
  const conclude = (change: object) =>
    concludeAudit({
      anchor: ANCHOR,
      block: BLOCK,
      verified: VERIFIED,
      entries: [],
      state: {},
      differences: [],
      notUnderstood: [],
      ...change,
    });

  it("given nothing wrong and a proof, is proven", () => {
    expect(conclude({})).to.deep.include({ verdict: "proven", faults: [], reasons: [] });
  });

  for (const [what, change, verdict, code] of [
    ["a head that nothing proves", { anchor: { ...ANCHOR, basis: "view" } }, "consistent", undefined],
    ["events that were not understood", { notUnderstood: [3, 4] }, "consistent", "unknown-events"],
    [
      "pointers that disagree",
      { verified: { ...VERIFIED, pointers: { agree: false, firstDisagreement: 2 } } },
      "consistent",
      "pointers-disagree",
    ],
    ["a view that differs", { differences: [DIFFERENCE] }, "broken", "state-differs"],
    [
      "a false proof",
      { anchor: { ...ANCHOR, basis: "view", faults: [{ code: "false-proof", message: "" }] } },
      "broken",
      "false-proof",
    ],
    [
      "a broken history",
      { verified: { ...VERIFIED, verdict: "broken", faults: [{ code: "dropped", message: "" }] } },
      "broken",
      "dropped",
    ],
  ] as const) {
    it(`given ${what}, is ${verdict}`, () => {
      const audit = conclude(change);
      expect(audit.verdict).to.equal(verdict);
      const codes = [...audit.faults, ...audit.reasons].map((each) => each.code);
      expect(codes).to.deep.equal(code === undefined ? [] : [code]);
    });
  }
});

describe("worstVerdict", () => {
  it("is the worst", () => {
    expect(worstVerdict(["proven", "consistent", "broken"])).to.equal("broken");
    expect(worstVerdict(["proven", "consistent"])).to.equal("consistent");
    expect(worstVerdict(["proven"])).to.equal("proven");
  });
});
