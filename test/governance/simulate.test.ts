import { expect } from "chai";
import { toBeHex } from "ethers";
import { fetchBlock } from "../../src/chain/block.ts";
import { connect } from "../../src/chain/client.ts";
import type { Operation } from "../../src/governance/operation.ts";
import { requireRehearsal, simulateProposal } from "../../src/governance/simulate.ts";
import { setSlot } from "../deploy/chains.ts";
import { refusal } from "../deploy/refusal.ts";
import { ALLOW_TDX, addressOf } from "../helpers/governance.ts";
import { type GovernedWorld, startWorld } from "../helpers/governed-world.ts";
import { liar } from "../helpers/liar.ts";

const ENABLE = { intent: "enable-tee", arguments: { kind: "tdx" } };
const PAUSE = { intent: "pause-release", arguments: { duration: "1h", reason: "a leak" } };

for (const client of ["hardhat", "anvil"] as const) {
  describe(`simulate on ${client}`, function () {
    this.timeout(240_000);
    let world: GovernedWorld;
    let grant: Operation;
    before(async () => {
      world = await startWorld(client, client === "anvil" ? "1.5.0" : "1.4.1");
      grant = await world.propose({ id: "001-tdx", intents: [ALLOW_TDX, ENABLE] });
    });
    after(() => world.stop());

    it("plays a grant through Safe and timelock, and every change is expected, explained and proven", async () => {
      const lines: string[] = [];
      const found = await simulateProposal(world.client, grant, { onProgress: (line) => lines.push(line) });
      expect([found.differences, found.unjudged, found.ok, found.basis.proven]).to.deep.equal([[], [], true, true]);
      expect(found.steps.map(({ step, nonce }) => `${step} ${nonce}`)).to.deep.equal(["schedule 0", "execute 1"]);
      const [first, last] = found.steps;
      expect((last?.timestamp ?? 0n) - (first?.timestamp ?? 0n)).to.be.greaterThanOrEqual(172_800n);
      expect(found.changes.map(({ subject, before, after }) => `${subject}: ${before} → ${after}`).join("\n"))
        .to.include("state: never allowed (0) → allowed (1)")
        .and.to.include("TDX rules: enabled: false → true");
      expect(found.slots.every(({ explained }) => explained.length > 0)).to.equal(true);
      expect(lines.length).to.be.greaterThan(3);
      // nothing happened on the chain itself
      expect((await simulateProposal(world.client, grant)).phase).to.equal("unset");
    });

    it("goes on from where it stands: scheduled, then not at all", async () => {
      await world.changed(
        () => world.take(grant, "schedule"),
        async () => {
          const found = await simulateProposal(world.client, grant);
          expect([found.phase, found.ok, found.steps.map(({ step }) => step)]).to.deep.equal([
            "waiting",
            true,
            ["execute"],
          ]);
        },
      );
    });

    it("plays the way back after the operation, and a direct transaction at once", async () => {
      const back = await simulateProposal(world.client, grant, { part: "rollback" });
      expect([back.differences, back.ok]).to.deep.equal([[], true]);
      expect(back.changes.map(({ after }) => after)).to.include("revoked (2)");
      const pause = await world.propose({ id: "002-pause", intents: [PAUSE] });
      const found = await simulateProposal(world.client, pause);
      expect([found.ok, found.steps.length, found.changes.map(({ verdict }) => verdict)]).to.deep.equal([
        true,
        1,
        ["follows"],
      ]);
    });
  });
}

describe("simulate", function () {
  this.timeout(240_000);
  let world: GovernedWorld;
  let grant: Operation;
  before(async () => {
    world = await startWorld("hardhat", "1.5.0");
    grant = await world.propose({ id: "001-tdx", intents: [ALLOW_TDX] });
  });
  after(() => world.stop());
  const codes = async (operation: Operation) =>
    (await simulateProposal(world.client, operation)).differences.map(({ code }) => code);

  it("names an expected value that does not come, and a call that fails with the contract's own reason", async () => {
    // suspending what is not enabled fails
    const stop = await world.propose({
      id: "003-stop",
      intents: [{ intent: "suspend-tee", arguments: { kind: "snp", reason: "x" } }],
    });
    const found = await simulateProposal(world.client, stop);
    expect(found.differences.map(({ code }) => code)).to.deep.equal(["simulate/reverted"]);
    expect(found.differences[0]?.message).to.match(/fails: [A-Z]\w+\(/);
    expect([found.ok, found.unjudged.length]).to.deep.equal([false, 1]);
  });

  it("names what changes beside the expected: another contract's slots are nobody's", async () => {
    const call = { to: world.contracts.timelock, data: "0x", value: "0" };
    const plain = await world.propose({ id: "004-call", intents: [{ intent: "call", arguments: call }] });
    const found = await simulateProposal(world.client, plain);
    expect(found.unjudged.join()).to.include("nobody here knows this call");
    // an upgrade to a contract that answers otherwise is not what the expected state says
    const wrong: Operation = {
      ...grant,
      calls: [...grant.calls],
      safe: { ...grant.safe, address: world.deployment.safes.guardian.address },
    };
    expect(await codes(wrong)).to.include("simulate/reverted");
  });

  it("names what moved since it was proposed, and the rehearsal refuses", async () => {
    const block = () => fetchBlock(world.client, "latest");
    expect((await requireRehearsal(world.client, grant, "schedule", { block: await block() }))?.ok).to.equal(true);
    expect(await requireRehearsal(world.client, grant, "cancel", { block: await block() })).to.equal(undefined);
    await world.changed(
      () => setSlot(world.chain, grant.safe.address, 4n, toBeHex(1n, 32)),
      async () => {
        expect(await codes(grant)).to.deep.equal(["simulate/drifted"]);
        const error = await refusal(
          requireRehearsal(world.client, grant, "schedule", { block: await block() }),
          "simulate/drifted",
        );
        expect(error.message).to.include("threshold was 2 and is 1");
      },
    );
    const blind = await world.proposeBlind({ id: "005-tdx", intents: [ALLOW_TDX] });
    await refusal(requireRehearsal(world.client, blind, "schedule"), "simulate/not-recorded");
    expect((await requireRehearsal(world.client, blind, "schedule", { acceptUnrecorded: true }))?.ok).to.equal(true);
  });

  it("refuses an endpoint that lies about what the play reads", async () => {
    const lie = async (method: string, answer: unknown) => {
      const client = await connect(
        liar(world.provider, (asked, given) => (asked === method ? answer : given)),
        { attempts: 1 },
      );
      return simulateProposal(client, grant);
    };
    await refusal(lie("eth_getProof", { accountProof: [], storageProof: [] }), "proof/invalid");
    const slot = liar(world.provider, (method, answer, [address, position]) =>
      method === "eth_getStorageAt" &&
      String(address).toLowerCase() === world.contracts.timelock.toLowerCase() &&
      BigInt(String(position)) === 2n
        ? toBeHex(1n, 32)
        : answer,
    );
    await refusal(simulateProposal(await connect(slot), grant), "chain/contradicts-proof");
    const other = await connect(liar(world.provider, (method, answer) => (method === "eth_chainId" ? "0x1" : answer)));
    await refusal(simulateProposal(other, grant), "chain/wrong-chain");
    const silent = liar(world.provider, (method, answer) => {
      if (method === "eth_getCode") throw new Error("timed out");
      return answer;
    });
    await refusal(simulateProposal(await connect(silent, { attempts: 1 }), grant), "chain/unreachable");
  });

  describe("an upgrade, there and back and there again", () => {
    const upgrade = async (contract: "policy" | "registry", name: string, id: string) => {
      const { policyImplementation, registryImplementation } = world.deployment.contracts;
      const previous = contract === "policy" ? policyImplementation.address : registryImplementation.address;
      const factory = await world.chain.connection.ethers.getContractFactory(name);
      const deployed = await factory.deploy(...(contract === "policy" ? [] : [world.contracts.policy]));
      const implementation = await deployed.getAddress();
      return world.propose({ id, intents: [{ intent: "upgrade", arguments: { contract, implementation, previous } }] });
    };
    const options = () => ({ fromBlock: world.deployment.block });

    it("passes where storage is appended to", async () => {
      const operation = await upgrade("policy", "PlatformPolicyV2", "010-v2");
      const found = await simulateProposal(world.client, operation, options());
      expect([found.differences, found.unjudged, found.ok]).to.deep.equal([[], [], true]);
      expect(found.changes.map(({ name }) => name)).to.deep.equal(["policy.implementation()"]);
    });

    it("says that it could not tell where nobody says since when there are logs", async () => {
      const operation = await upgrade("policy", "PlatformPolicyV2", "011-v2");
      expect((await simulateProposal(world.client, operation)).unjudged.join()).to.include("rolled back");
    });

    it("names answers that change where the new version reads storage in another sense", async () => {
      const operation = await upgrade("policy", "PlatformPolicyReordered", "012-bad");
      // something stored, so that there is something to misread
      await world.changed(
        () => world.sendAs(world.contracts.timelock, world.contracts.policy, grantData()),
        async () => {
          const blind = { ...operation, assumptions: { ...operation.assumptions, start: null } };
          const found = await simulateProposal(world.client, blind, options());
          expect(found.ok).to.equal(false);
          expect(found.differences.map(({ code }) => code).join()).to.match(/upgrade\/|simulate\/(extra|view-fails)/);
        },
      );
    });
    const grantData = () => grant.calls[0]?.data ?? "0x";
  });

  it("knows no implementation that is not there", async () => {
    const intents = [{ intent: "upgrade", arguments: { contract: "policy", implementation: addressOf(90) } }];
    const nothing = await world.propose({ id: "020-none", intents });
    expect(await codes(nothing)).to.deep.equal(["simulate/reverted"]);
  });
});
