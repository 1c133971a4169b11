import { expect } from "chai";
import { auditSuite } from "../../src/audit/all.ts";
import { inspect } from "../../src/audit/inspect.ts";
import { findingsOf } from "../../src/audit/report.ts";
import { inspectAgain } from "../../src/audit/watch.ts";
import { connect } from "../../src/chain/client.ts";
import { type Chain, startChain } from "../deploy/chains.ts";
import { tdxImage } from "../helpers/images.ts";
import { liar } from "../helpers/liar.ts";
import { type Story, tellStory } from "../helpers/story.ts";
import { deploySuite, type Suite } from "../helpers/suite.ts";

type Lie = Parameters<typeof liar>[1];

interface JsonLog {
  readonly topics: readonly string[];
}

describe("the set of services", () => {
  let chain: Chain;
  let suite: Suite;
  let story: Story;

  before(async () => {
    chain = await startChain("hardhat");
    suite = await deploySuite(chain.connection);
    story = await tellStory(suite);
  });
  after(() => chain?.stop());

  const audit = async (lie: Lie) =>
    auditSuite(await connect(liar(chain.connection.provider, lie), { backoff: 1 }), { ...story, fromBlock: 0 });
  const withhold =
    (...services: readonly string[]): Lie =>
    (method, answer) =>
      method === "eth_getLogs"
        ? (answer as JsonLog[]).filter(({ topics }) => !services.some((id) => topics[1]?.startsWith(id)))
        : answer;
  const noProofs: Lie = (method, answer) => {
    if (method === "eth_getProof") throw { code: -32601, message: "the method eth_getProof does not exist" };
    return answer;
  };

  it("of an honest endpoint is proven", async () => {
    const { set, verdict } = await audit((_method, answer) => answer);
    expect(set).to.deep.include({ verdict: "proven", basis: "proof", count: 3, faults: [], reasons: [] });
    expect(verdict).to.equal("proven");
  });

  it("a service that the endpoint withholds is found, whatever else it says", async () => {
    for (const service of [story.upgradeable, story.sealed, story.quiet]) {
      const found = await audit(withhold(service));
      expect(found.services.length, "every history that is shown is whole").to.equal(2);
      expect(found.services.map(({ verdict }) => verdict)).to.deep.equal(["proven", "proven"]);
      expect(found.set.faults.map(({ code }) => code)).to.deep.equal(["withheld"]);
      expect(found.verdict).to.equal("broken");
    }
  });

  it("where an endpoint answers out of order, the order of blocks counts", async () => {
    const swap: Lie = (method, answer) => {
      if (method !== "eth_getLogs") return answer;
      const logs = answer as JsonLog[];
      const last = logs.filter(({ topics }) => topics[1]?.startsWith(story.quiet));
      return [...last, ...logs.filter((log) => !last.includes(log))];
    };
    const { set } = await audit(swap);
    expect([set.verdict, set.faults]).to.deep.equal(["proven", []]);
  });

  it("without proofs it rests on the endpoint's word, and says so; a lie without them is found too", async () => {
    const word = await audit(noProofs);
    expect(word.set).to.deep.include({ verdict: "consistent", basis: "view", faults: [] });
    expect(word.set.reasons.map(({ code }) => code)).to.deep.equal(["no-storage-proof"]);
    const both = withhold(story.sealed);
    const lied = await audit((method, answer, params) => both?.(method, noProofs?.(method, answer, params), params));
    expect(lied.set.faults.map(({ code }) => code)).to.deep.equal(["withheld"]);
  });

  it("a report names what is withheld", async () => {
    const client = await connect(liar(chain.connection.provider, withhold(story.quiet)), { backoff: 1 });
    const inspection = await inspect(client, { ...story, services: "all" }, { fromBlock: 0 });
    const rows = findingsOf(inspection).map((row) => row.slice(0, 3));
    expect(rows).to.deep.include(["set of services", "broken", "withheld"]);
  });

  it("a service created during a watch is taken in by its creation alone; one that is withheld is told", async () => {
    let lie: Lie = (_method, answer) => answer;
    const provider = liar(chain.connection.provider, (method, answer, params) => lie?.(method, answer, params));
    const client = await connect(provider, { backoff: 1 });
    const subjects = { ...story, services: "all" } as const;
    const before = await inspect(client, subjects, { fromBlock: 0 });
    const create = async (label: string) => {
      const { eve, registry } = suite;
      const salt = `0x${Buffer.from(label.padEnd(32)).toString("hex")}`;
      const config = { admin: eve.address, noticePeriod: 0, description: "", devices: [], requireUpToDateTcb: false };
      await (await registry.connect(eve).createServiceWithImage(config, salt, tdxImage(label), "")).wait();
      return (await registry.serviceIdFor(eve.address, salt)).toLowerCase();
    };
    await create("watched");
    const after = await inspectAgain(client, subjects, { fromBlock: 0 }, before);
    expect([after.services.length, after.set?.count, after.set?.verdict]).to.deep.equal([4, 4, "proven"]);
    lie = withhold(await create("hidden"));
    const lied = await inspectAgain(client, subjects, { fromBlock: 0 }, after);
    expect([lied.verdict, lied.set?.faults[0]?.code]).to.deep.equal(["broken", "withheld"]);
  });
});
