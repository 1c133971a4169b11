import { expect } from "chai";
import { contextOf } from "../../src/governance/check.ts";
import { deriveExpectedState } from "../../src/governance/effects.ts";
import { compareEffects, type Observation, watchedOf } from "../../src/governance/state-diff.ts";
import { CONTRACTS, propose } from "../helpers/governance.ts";

const ENABLE = propose({ id: "001-tdx", intents: [{ intent: "enable-tee", arguments: { kind: "tdx" } }] });
const POLICY = CONTRACTS.policy.toLowerCase() as `0x${string}`;
const word = (digit: string) => `0x${digit.repeat(64)}` as const;

/** What all watched views answer, with the TDX rules as given. */
function observe(rules: Readonly<Record<string, string>>, gateway = ""): Observation {
  const watched = watchedOf(ENABLE, ENABLE.calls);
  const answers = watched.map(({ name }) =>
    name === "policy.teeRules(1)"
      ? new Map(Object.entries({ enabled: "false", devicesRestricted: "false", acceptedTcb: "0", ...rules }))
      : new Map([["", name === "policy.gatewayAppId()" ? gateway : "0"]]),
  );
  return { watched, answers, readers: new Map([[`${POLICY}/${word("1")}`, ["policy.teeRules(1)"]]]) };
}

function compare(after: Observation, slot = word("1")) {
  return compareEffects({
    ...{ operation: ENABLE, calls: ENABLE.calls, before: observe({}), after },
    expected: deriveExpectedState(ENABLE.calls, contextOf(ENABLE)),
    raw: [{ address: POLICY, kind: "slot", slot, before: word("0"), after: word("2") }],
    own: { safe: ENABLE.safe.address, timelock: CONTRACTS.timelock, operationId: undefined, value: 0n },
  }).differences.map(({ code, field }) => `${code} ${field.replace(/^0x\w+ /, "")}`);
}

describe("what changed, both ways", () => {
  it("passes where exactly the expected changes", () => {
    expect(compare(observe({ enabled: "true" }))).to.deep.equal([]);
  });
  it("names what is missing", () => {
    expect(compare(observe({}))).to.deep.equal(["simulate/missing policy.teeRules(1).enabled"]);
  });
  it("names what is extra: a field beside the expected one, another view, a slot that nothing expected reads", () => {
    const field = compare(observe({ enabled: "true", acceptedTcb: "1" }));
    expect(field).to.deep.equal(["simulate/extra policy.teeRules(1).acceptedTcb"]);
    const view = compare(observe({ enabled: "true" }, "another"));
    expect(view).to.deep.equal(["simulate/extra policy.gatewayAppId()"]);
    const slot = compare(observe({ enabled: "true" }), word("9"));
    expect(slot).to.deep.equal([`simulate/extra-slot slot ${word("9")}`]);
  });
});
