import { expect } from "chai";
import { type NodeChain, createService, machineOf, makeDecider, startNodeChain } from "../helpers/decider.ts";
import { V1 } from "../helpers/registry.ts";

describe("decisions", function () {
  this.timeout(240_000);
  let chain: NodeChain;
  before(async () => {
    chain = await startNodeChain();
  });
  after(() => chain?.stop());

  it("given a service with an active image, when its machine asks, allows", async () => {
    const serviceId = await createService(chain.suite, "smoke");
    await chain.finalize();
    const { decider } = await makeDecider(chain, [chain.provider, chain.provider, chain.provider]);
    const d = await decider.decide({ serviceId, machine: machineOf(V1) });
    expect(d).to.include({ allowed: true, decision: "Allowed" });
  });
});
