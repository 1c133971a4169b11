import { expect } from "chai";
import { keccak256 } from "ethers";
import { auditSuite } from "../../src/audit/all.ts";
import { auditPolicy } from "../../src/audit/policy.ts";
import { auditTable, findingsTable, timelineTable } from "../../src/audit/table.ts";
import { auditService } from "../../src/audit/walk.ts";
import { type Client, connect } from "../../src/chain/client.ts";
import { POLICY_EVENTS, SERVICE_EVENTS } from "../../src/core/events.ts";
import { type Chain, CLIENTS, startChain } from "../deploy/chains.ts";
import { type Story, tellStory } from "../helpers/story.ts";
import { deploySuite } from "../helpers/suite.ts";

for (const clientName of CLIENTS) {
  describe(`audit of a history with every event, on ${clientName}`, () => {
    let chain: Chain;
    let client: Client;
    let story: Story;

    before(async function () {
      this.timeout(240_000);
      chain = await startChain(clientName);
      story = await tellStory(await deploySuite(chain.connection));
      client = await connect(chain.anvil?.url ?? chain.connection.provider);
    });
    after(() => chain?.stop());

    it("when scanned, it proves policy and services, and the rebuilt state is what the views say", async () => {
      const audit = await auditSuite(client, { ...story, fromBlock: 0 });
      for (const each of [audit.policy, ...audit.services]) expect(findingsTable("", each).rows).to.deep.equal([]);
      expect(audit.verdict).to.equal("proven");
      expect(audit.services.map(({ serviceId }) => serviceId)).to.deep.equal([
        story.upgradeable,
        story.sealed,
        story.quiet,
      ]);
      expect(audit.unaccounted).to.deep.equal([]);
      const seen = (entries: readonly { event: { name: string } | undefined }[]) =>
        new Set(entries.map(({ event }) => event?.name));
      expect(seen(audit.policy.entries)).to.have.all.keys(...Object.keys(POLICY_EVENTS));
      expect(seen(audit.services.flatMap(({ entries }) => entries))).to.have.all.keys(...Object.keys(SERVICE_EVENTS));
    });

    it("says which code the proxies run, by proof", async () => {
      const { code } = await auditSuite(client, { ...story, fromBlock: 0 });
      for (const each of [code.registry, code.policy]) {
        const own = await client.request("eth_getCode", [each.address, "latest"]);
        const behind = await client.request("eth_getCode", [each.implementation, "latest"]);
        expect(each).to.deep.include({ basis: "proof", faults: [] });
        expect([each.proxyCodeHash, each.codeHash]).to.deep.equal([keccak256(String(own)), keccak256(String(behind))]);
      }
      expect(code.registry.codeHash).not.to.equal(code.policy.codeHash);
    });

    it("at every earlier moment the walked history is proven and the rebuilt state is what the views said then", async () => {
      const verdicts = new Set<string>();
      for (const at of story.moments) {
        const policy = await auditPolicy(client, story.policy, { at });
        expect(findingsTable(`policy at ${at}`, policy).rows).to.deep.equal([]);
        verdicts.add(policy.verdict);
      }
      for (const at of story.moments.filter((moment) => moment >= (story.moments[5] ?? 0))) {
        const service = await auditService(client, story.registry, story.upgradeable, { at });
        expect(findingsTable(`service at ${at}`, service).rows).to.deep.equal([]);
        verdicts.add(service.verdict);
      }
      expect([...verdicts]).to.deep.equal(["proven"]);
    });

    it("walking finds what scanning finds", async () => {
      for (const id of [story.upgradeable, story.sealed, story.quiet]) {
        const walked = await auditService(client, story.registry, id);
        const scanned = await auditService(client, story.registry, id, { fromBlock: 0 });
        expect(walked.entries).to.deep.equal(scanned.entries);
        expect(walked.state).to.deep.equal(scanned.state);
      }
    });

    it("its tables have a row for everything, and no character that steers a terminal", async () => {
      const audit = await auditSuite(client, { ...story, fromBlock: 0 });
      const tables = [
        auditTable(audit),
        ...[audit.policy, ...audit.services].map(({ entries }) => timelineTable(entries)),
      ];
      expect(tables.map(({ rows }) => rows.length)).to.deep.equal([
        4,
        audit.policy.count,
        ...audit.services.map(({ count }) => count),
      ]);
      for (const { head, rows } of tables) {
        for (const row of rows) {
          expect(row.length).to.equal(head.length);
          expect(row.join("")).not.to.match(/[\p{Cc}\p{Cf}]/u);
        }
      }
    });
  });
}
