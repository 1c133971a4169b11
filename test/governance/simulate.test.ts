import { expect } from "chai";
import { id, toBeHex } from "ethers";
import { fetchBlock } from "../../src/chain/block.ts";
import { connect } from "../../src/chain/client.ts";
import { INTERFACES } from "../../src/governance/abis.ts";
import type { Operation } from "../../src/governance/operation.ts";
import type { Parties } from "../../src/governance/propose.ts";
import { requireRehearsal } from "../../src/governance/rehearse.ts";
import { MULTI_SEND_CALL_ONLY, type SafeRef } from "../../src/governance/safe-hash.ts";
import { fetchSafe } from "../../src/governance/safe-state.ts";
import { type Simulation, simulateProposal } from "../../src/governance/simulate.ts";
import { setSlot } from "../deploy/chains.ts";
import { refusal } from "../deploy/refusal.ts";
import { ALLOW_TDX, addressOf } from "../helpers/governance.ts";
import { DELAY, type GovernedWorld, startWorld } from "../helpers/governed-world.ts";
import { dstackImage } from "../helpers/images.ts";
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
    expect(found.verdict).to.equal("unsure");
    expect(found.warnings.map(({ code }) => code)).to.deep.equal(["simulate/unknown-call"]);
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
    await refusal(requireRehearsal(world.client, blind, "schedule"), "simulate/not-explained");
    expect((await requireRehearsal(world.client, blind, "schedule", { accept: ["start/not-recorded"] }))?.ok).to.equal(
      true,
    );
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

  describe("a service's own calls", () => {
    const salt = id("keystead simulated service");
    const { registry } = INTERFACES;
    const ADD = (service: string) => ({
      intent: "add-image",
      arguments: { service, image: dstackImage("a service"), description: "v1" },
    });
    /** What an image that is added changes, view by view; and what is said of a call whose effect depends on what is there. */
    const ADDED = [
      ...["follows activeFrom", "expected state", "expected kind", "expected mask"],
      ...["follows sequence", "follows lastUpdateBlock", "follows historyHead"],
    ];
    const MEETS = "call 1: it depends on the state that it meets";
    const ROTATE = (service: string) => ({ intent: "rotate-key", arguments: { service } });
    /** A service whose admin is that account, with whom it is governed by. */
    async function createService(admin: string): Promise<string> {
      const config = { admin, noticePeriod: 3600, description: "one", devices: [], requireUpToDateTcb: false };
      const data = registry.encodeFunctionData("createService", [config, salt]);
      await world.sendAs(admin, world.contracts.registry, data);
      const asked = registry.encodeFunctionData("serviceIdFor", [admin, salt]);
      const call = { to: world.contracts.registry, data: asked };
      return registry.decodeFunctionResult(
        "serviceIdFor",
        String(await world.client.request("eth_call", [call, "latest"])),
      )[0];
    }
    /** The parties of a service that this Safe governs, by itself or through a timelock. */
    async function partiesOf(address: string, timelock?: string): Promise<Parties> {
      const at = await fetchBlock(world.client, "latest");
      const ref = async (safe: string): Promise<SafeRef> => {
        const { nonce, version } = await fetchSafe(world.client, at, safe);
        return { address: safe, version, nonce, multiSend: MULTI_SEND_CALL_ONLY[version][0] ?? "" };
      };
      const { governance, guardian } = world.deployment.safes;
      return {
        ...{ governance: await ref(governance.address), guardian: await ref(guardian.address), delay: BigInt(DELAY) },
        account: {
          safe: await ref(address),
          ...(timelock === undefined ? {} : { timelock: { address: timelock, delay: 3600n } }),
        },
      };
    }
    const told = ({ changes }: Simulation) =>
      changes.map(({ name, verdict }) => `${verdict} ${name.split(".").at(-1)}`);

    it("given a Safe as its admin: adding an image and rotating the key happen at once, as expected, and come back", async () => {
      const { address } = world.deployment.safes.guardian;
      const create = async () => {
        service = await createService(address);
      };
      let service = "";
      await world.changed(create, async () => {
        const parties = await partiesOf(address);
        const add = await world.propose({ id: "030-add", parties, intents: [ADD(service)] });
        const added = await simulateProposal(world.client, add);
        expect([added.differences, added.unjudged, added.ok, added.basis.proven]).to.deep.equal([[], [], true, true]);
        expect(added.steps.map(({ step, safe }) => [step, safe])).to.deep.equal([["execute", address]]);
        expect(told(added)).to.deep.equal(ADDED);
        expect(added.slots.every(({ explained }) => explained.length > 0)).to.equal(true);
        const rotate = await world.propose({ id: "031-rotate", parties, intents: [ROTATE(service)] });
        const rotated = await simulateProposal(world.client, rotate);
        expect([rotated.differences, rotated.unjudged, rotated.ok]).to.deep.equal([[], [MEETS], true]);
        const epochs = rotated.changes.filter(({ name }) => name.endsWith(".keyEpoch"));
        expect(epochs.map(({ before, after }) => Number(after) - Number(before))).to.deep.equal([1]);
        // its way back is played after it as long as it did not happen, and alone once it did
        const back = () => simulateProposal(world.client, add, { part: "rollback" });
        const early = await back();
        expect([early.differences, early.ok]).to.deep.equal([[], true]);
        expect(told(early)).to.include("expected state");
        await world.take(add, "execute");
        await world.client.request("evm_mine", []);
        const late = await back();
        expect([late.differences, late.ok, told(late)]).to.deep.equal([[], true, told(early)]);
      });
    });

    it("given a timelock as its admin: they wait there first, and nobody else's Safe can make them", async () => {
      const { governance, guardian } = world.deployment.safes;
      const factory = await world.chain.connection.ethers.getContractFactory("GovernanceTimelock");
      const own = await (await factory.deploy(3600n, guardian.address, governance.address)).getAddress();
      let service = "";
      const create = async () => {
        service = await createService(own);
      };
      await world.changed(create, async () => {
        const parties = await partiesOf(guardian.address, own);
        const intents = [ADD(service), ROTATE(service)];
        for (const [index, intent] of intents.entries()) {
          const operation = await world.propose({ id: `04${index}-own`, parties, intents: [intent] });
          const found = await simulateProposal(world.client, operation);
          expect([found.differences, found.unjudged, found.ok]).to.deep.equal([[], index === 0 ? [] : [MEETS], true]);
          expect(found.steps.map(({ step }) => step)).to.deep.equal(["schedule", "execute"]);
          const [first, last] = found.steps;
          expect((last?.timestamp ?? 0n) - (first?.timestamp ?? 0n)).to.be.greaterThanOrEqual(3600n);
          if (index === 0) expect(told(found)).to.deep.equal(ADDED);
          else expect(told(found)).to.include("follows keyEpoch");
        }
        // the platform's governors are nobody here
        const strangers = await partiesOf(governance.address, own);
        for (const intent of intents) {
          for (const parties of [strangers, await partiesOf(guardian.address)]) {
            const wrong = await world.propose({ id: "050-wrong", parties, intents: [intent] });
            expect(await codes(wrong)).to.deep.equal(["simulate/reverted"]);
          }
        }
      });
    });
  });

  it("knows no implementation that is not there", async () => {
    const intents = [{ intent: "upgrade", arguments: { contract: "policy", implementation: addressOf(90) } }];
    const nothing = await world.propose({ id: "020-none", intents });
    expect(await codes(nothing)).to.deep.equal(["simulate/reverted"]);
  });
});
