import { readFile } from "node:fs/promises";
import { expect } from "chai";
import { parseBlock } from "../../src/chain/block.ts";
import { connect } from "../../src/chain/client.ts";
import { httpTransport } from "../../src/chain/http.ts";
import { gasWarning } from "../../src/governance/gas.ts";
import { judgeOperation } from "../../src/governance/judge.ts";
import { parseOperation } from "../../src/governance/operation.ts";
import { withQuirks } from "../../testing/quirks.ts";
import { jsonOf } from "../helpers/cli.ts";
import { makeDecider } from "../helpers/decider.ts";
import { rejectionOf } from "../helpers/errors.ts";
import { expectAllWell, type QuirkWorld, runRounds, startQuirkWorld } from "../helpers/quirk-world.ts";
import { supports } from "./supports.ts";

describe("field: chains", function () {
  this.timeout(300_000);
  let world: QuirkWorld;
  let honest: string;
  before(async () => {
    world = await startQuirkWorld();
    honest = (await runRounds(world, world.chain.url, {})).decision;
  });
  after(() => world?.stop());
  const everything = (quirks: Parameters<QuirkWorld["through"]>[0]) => async () => {
    await world.through(quirks, async (url) => expectAllWell(await runRounds(world, url, quirks), honest));
  };

  describe("headers", () => {
    supports(
      "Sepolia",
      "Glamsterdam (blockAccessListHash, slotNumber)",
      "audit, status, lint, execute, node, explorer",
      everything({
        amsterdam: "geth",
      }),
    );
    supports(
      "Besu",
      "balHash for blockAccessListHash",
      "audit, status, lint, execute, node, explorer",
      everything({
        amsterdam: "besu",
      }),
    );
    it("of Glamsterdam do not hash with a digit changed", async () => {
      const provider = withQuirks(world.chain.connection.provider, { amsterdam: "geth" });
      const header = (await provider.request({ method: "eth_getBlockByNumber", params: ["latest", false] })) as object;
      expect(parseBlock(header).hashed).to.equal(true);
      for (const change of [{ slotNumber: "0x7f" }, { blockAccessListHash: `0x${"bb".repeat(32)}` }]) {
        expect(parseBlock({ ...header, ...change }).hashed).to.equal(false);
      }
    });

    describe("with a field that is not known here", () => {
      const futureField = { futureField: true };
      it("are unproven in an audit, which names the field", () =>
        world.through(futureField, async (url) => {
          const args = ["audit", "--all", "--deployment", world.chain.record, "--json"];
          const run = await world.run(url, args);
          expect([run.code, jsonOf(run).verdict]).to.deep.equal([2, "consistent"]);
          expect(jsonOf(run).policy.reasons[0].code).to.equal("unknown-header");
          expect(jsonOf(run).policy.reasons[0].message).to.contain("futureField");
          expect((await world.run(url, [...args, "--accept-unproven"])).code).to.equal(0);
        }));
      it("stop a node, which names them as the cause", () =>
        world.through(futureField, async (url) => {
          const time = async () => (await world.chain.connection.ethers.provider.getBlock("latest"))?.timestamp ?? 0;
          const providers = [url, url, url].map((each) => httpTransport(each, 10_000));
          const { decider } = await makeDecider({ deployment: world.pins, time }, providers);
          const failure = await rejectionOf(decider.refresh());
          expect([failure.code, failure.retryable]).to.deep.equal(["chain/unknown-header", false]);
          expect(failure.message).to.contain("futureField");
          expect(decider.status()).to.include({ ready: false, reason: "chain/unknown-header" });
        }));
      it("at the head alone leave the finalized block to decide", async () => {
        const time = async () => (await world.chain.connection.ethers.provider.getBlock("latest"))?.timestamp ?? 0;
        const provider = httpTransport(world.chain.url, 10_000);
        const future = withQuirks(provider, futureField);
        const forked = {
          request: (call: { method: string; params?: readonly unknown[] }) =>
            (call.params?.[0] === "latest" ? future : provider).request(call),
        };
        const { decider } = await makeDecider({ deployment: world.pins, time }, [forked]);
        await decider.refresh();
        expect(decider.status().ready).to.equal(true);
      });
      it("hold up what widens trust until a person takes the endpoint's word, and never what narrows it", () =>
        world.through(futureField, async (url) => {
          const verify = (folder: string, ...more: string[]) =>
            world.run(url, ["verify", folder, "--rpc", url, "--deployment", world.chain.record, "--json", ...more]);
          const propose = async (id: string, ...intent: string[]) => {
            const where = ["--id", id, "--deployment", world.chain.record, "--out", world.chain.proposals];
            const proposed = await world.run(url, ["propose", ...intent, ...where, "--rpc", url, "--json"]);
            expect(proposed.code, proposed.stderr).to.equal(0);
            return `${world.chain.proposals}/${id}`;
          };
          const grant = await propose("002-grant", "enable-tee", "--kind", "snp");
          const held = await verify(grant);
          expect(held.code).to.equal(2);
          const { error } = JSON.parse(held.stderr);
          expect(error.code).to.equal("chain/unproven");
          expect(error.message).to.contain("futureField");
          expect(error.remedy).to.contain("--accept-unproven");
          const taken = await verify(grant, "--accept-unproven");
          expect(taken.code, taken.stdout.slice(0, 900)).to.equal(0);

          const emergency = await propose("003-emergency", "suspend-tee", "--kind", "tdx", "--reason", "emergency");
          const run = await verify(emergency);
          expect(run.code, run.stderr).to.equal(0);
          expect(jsonOf(run).chain.basis.proven).to.equal(false);
          expect(JSON.stringify(jsonOf(run).unchecked)).to.contain("futureField");
        }));
    });
  });

  describe("whose contracts see another block.number", () => {
    const orbit = { ahead: 1_000_000 };
    supports("Arbitrum, Orbit", "any chain id", "audit, status, lint, execute, node, explorer", everything({ orbit }));
    supports(
      "Arbitrum, Orbit",
      "behind an endpoint that leaves l1BlockNumber out",
      "audit, status, lint, execute, node",
      everything({
        orbit: { ...orbit, silent: true },
      }),
    );
    for (const silent of [false, true]) {
      it(`walked, ask for the block to scan from${silent ? ", though the header does not say it" : ""}`, () =>
        world.through({ orbit: { ...orbit, silent } }, async (url) => {
          const { registry } = world.chain.deployment.contracts;
          const run = await world.run(url, ["audit", world.serviceId, "--registry", registry.address, "--json"]);
          const { error } = JSON.parse(run.stderr);
          expect([run.code, error.code]).to.deep.equal([2, "audit/needs-scan"]);
          expect(error.message).to.contain("Arbitrum");
          const record = world.recordAt(orbit.ahead);
          const told = await world.run(url, ["audit", world.serviceId, "--deployment", record, "--json"]);
          expect([told.code, jsonOf(told).verdict], told.stderr).to.deep.equal([0, "proven"]);
        }));
    }
    it("and another chain's id alone changes nothing: Arbitrum's id on a chain that counts as Ethereum is walked", async () => {
      const provider = world.chain.connection.provider;
      const request = (call: { method: string; params?: readonly unknown[] }) =>
        call.method === "eth_chainId" ? Promise.resolve("0xa4b1") : provider.request(call as never);
      const client = await connect({ request });
      const { auditService } = await import("../../src/audit/walk.ts");
      const { registry } = world.chain.deployment.contracts;
      const audit = await auditService(client, registry.address as `0x${string}`, world.serviceId);
      expect(audit.verdict).to.equal("proven");
    });
  });

  supports(
    "every chain with EIP-7825",
    "16,777,216 gas a transaction",
    "too large a batch is unsafe to sign",
    async () => {
      const operation = parseOperation(await readFile(`${world.proposal}/operation.json`, "utf8"));
      const many = (count: number) => ({ ...operation, calls: Array(count).fill(operation.calls[0]), rollback: null });
      expect(gasWarning(many(300))).to.equal(undefined);
      expect(gasWarning(many(420)))
        .to.contain("EIP-7825")
        .and.to.contain("16,777,216");
      const { warnings } = judgeOperation(many(420));
      expect(warnings.map(({ code, severity }) => [code, severity])).to.deep.include([
        "operation/too-much-gas",
        "unsafe",
      ]);
    },
  );
});
