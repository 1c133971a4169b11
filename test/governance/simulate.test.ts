import { expect } from "chai";
import { simulateProposal } from "../../src/governance/simulate.ts";
import { ALLOW_TDX } from "../helpers/governance.ts";
import { type GovernedWorld, startWorld } from "../helpers/governed-world.ts";

describe("simulate", function () {
  this.timeout(180_000);
  let world: GovernedWorld;
  before(async () => {
    world = await startWorld("hardhat");
  });
  after(() => world.stop());

  it("plays a grant", async () => {
    const operation = await world.propose({ id: "001-tdx", intents: [ALLOW_TDX] });
    const found = await simulateProposal(world.client, operation);
    expect(found.differences).to.deep.equal([]);
  });
});
