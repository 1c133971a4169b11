import { expect } from "chai";
import { dismissalOf } from "../../src/chain/dismissal.ts";
import { checkOperation } from "../../src/governance/check.ts";
import { buildOperation, type Parties } from "../../src/governance/propose.ts";
import { headline } from "../../src/governance/report.ts";
import { planTransactions } from "../../src/governance/transactions.ts";
import { addressOf, CONTRACTS, PARTIES } from "../helpers/governance.ts";

const GUARDIAN = PARTIES.guardian.address;
const SUCCESSOR = addressOf(81);
const HOUR = 3600n;

describe("proposing a dismissal", () => {
  const build = (given: Readonly<Record<string, string>>, parties: Partial<Parties> = {}) =>
    buildOperation({
      ...{ id: "160-dismiss", chainId: 1n, contracts: CONTRACTS, time: 1_800_000_000n },
      parties: { ...PARTIES, delay: 48n * HOUR, minDelay: 48n * HOUR, ...parties },
      intents: [{ intent: "dismiss-guardian", arguments: given }],
    });

  it("writes the calls that the timelock takes for one, office by office", () => {
    for (const [given, count, incoming] of [
      [{ account: GUARDIAN }, 2, undefined],
      [{ account: GUARDIAN, successor: SUCCESSOR }, 4, SUCCESSOR],
    ] as const) {
      const { calls, timelock } = build(given);
      expect(calls).to.have.length(count);
      expect(dismissalOf(calls, timelock?.predecessor ?? "", CONTRACTS.timelock)).to.deep.equal({
        ...{ outgoing: GUARDIAN, incoming },
      });
    }
  });

  it("waits twice the minimum, or longer where that is asked for", () => {
    expect(build({ account: GUARDIAN }).timelock?.delay).to.equal(96n * HOUR);
    expect(build({ account: GUARDIAN }, { delay: 60n * HOUR }).timelock?.delay).to.equal(96n * HOUR);
    expect(build({ account: GUARDIAN }, { delay: 200n * HOUR }).timelock?.delay).to.equal(200n * HOUR);
  });

  it("tells nobody that the guardian could cancel it, and has no transaction in which it would", () => {
    const operation = build({ account: GUARDIAN });
    expect(headline(operation).line).to.match(new RegExp(`cancellable by ${PARTIES.governance.address}$`));
    const cancels = planTransactions(operation).filter(({ name }) => name === "cancel");
    expect(cancels.map(({ safe }) => safe.address)).to.deep.equal([PARTIES.governance.address]);
    const edited = { ...operation, cancellers: [PARTIES.guardian] };
    expect(checkOperation(edited).map(({ field, code }) => [field, code])).to.deep.equal([
      ["cancellers", "operation/dismissal-cancellers"],
    ]);
  });

  it("with a call more it is an operation like any other: one delay, and the guardian cancels it", () => {
    const operation = buildOperation({
      ...{ id: "161-mixed", chainId: 1n, contracts: CONTRACTS, time: 1_800_000_000n },
      parties: { ...PARTIES, delay: 48n * HOUR, minDelay: 48n * HOUR },
      intents: [
        { intent: "dismiss-guardian", arguments: { account: GUARDIAN } },
        { intent: "set-delay", arguments: { delay: "72h" } },
      ],
    });
    expect(operation.timelock?.delay).to.equal(48n * HOUR);
    expect(operation.cancellers.map(({ address }) => address)).to.deep.equal([GUARDIAN]);
  });
});
