import { expect } from "chai";
import { id } from "ethers";
import { namespaceSlot } from "../../src/chain/slots.ts";
import { INTERFACES } from "../../src/governance/abis.ts";
import type { Operation } from "../../src/governance/operation.ts";
import { simulateProposal } from "../../src/governance/simulate.ts";
import { fetchActors, setCode } from "../deploy/chains.ts";
import { type GovernedWorld, startWorld } from "../helpers/governed-world.ts";

type Proxy = "policy" | "registry";

describe("an upgrade, there and back and there again", function () {
  this.timeout(300_000);
  let world: GovernedWorld;
  /** What the deployment's own contracts are, and the next versions that stand ready. */
  let v1: Readonly<Record<Proxy, string>>;
  let v2: Readonly<Record<Proxy, string>>;
  before(async () => {
    world = await startWorld("hardhat", "1.5.0");
    const { policyImplementation, registryImplementation } = world.deployment.contracts;
    v1 = { policy: policyImplementation.address, registry: registryImplementation.address };
    v2 = { policy: await deploy("PlatformPolicyV2"), registry: await deploy("KmsRegistryV2", world.contracts.policy) };
  });
  after(() => world.stop());

  async function deploy(name: string, ...args: readonly string[]): Promise<string> {
    const factory = await world.chain.connection.ethers.getContractFactory(name);
    return (await factory.deploy(...args)).getAddress();
  }
  const upgradeTo = (contract: Proxy, implementation = v2[contract], call = "0x") => ({
    intent: "upgrade",
    arguments: { contract, implementation, previous: v1[contract], call },
  });
  const simulate = (operation: Operation) =>
    simulateProposal(world.client, operation, { fromBlock: world.deployment.block });
  /** The codes of what was found, each once, in order, with the stage of the play where it was. */
  const found = async (operation: Operation) => {
    const { differences } = await simulate(operation);
    return [...new Set(differences.map(({ field, code }) => `${code} at ${field}`))];
  };
  const govern = (contract: Proxy, name: string, ...args: readonly unknown[]) =>
    world.sendAs(
      world.contracts.timelock,
      world.contracts[contract],
      INTERFACES[contract].encodeFunctionData(name, args),
    );
  /** A service, so that the registry holds something. */
  async function createService(): Promise<void> {
    const { frank } = await fetchActors(world.chain.connection);
    const config = { admin: frank, noticePeriod: 60, description: "one", devices: [], requireUpToDateTcb: false };
    const data = INTERFACES.registry.encodeFunctionData("createService", [config, id("one")]);
    await world.sendAs(frank, world.contracts.registry, data);
  }

  describe("given versions that append to the storage", () => {
    it("the policy's passes, and says that it could not tell where nobody says since when there are logs", async () => {
      const operation = await world.propose({ id: "010-policy", intents: [upgradeTo("policy")] });
      const whole = await simulate(operation);
      expect([whole.differences, whole.unjudged, whole.ok]).to.deep.equal([[], [], true]);
      expect(whole.changes.map(({ name }) => name)).to.deep.equal(["policy.implementation()"]);
      expect((await simulateProposal(world.client, operation)).unjudged.join()).to.include("rolled back");
    });

    it("the registry's passes, with a service there", async () => {
      await world.changed(createService, async () => {
        const operation = await world.propose({ id: "011-registry", intents: [upgradeTo("registry")] });
        const whole = await simulate(operation);
        expect([whole.differences, whole.unjudged, whole.ok]).to.deep.equal([[], [], true]);
        expect(whole.changes.map(({ name }) => name)).to.deep.equal(["registry.implementation()"]);
      });
    });

    it("both pass in one operation, and come back in one", async () => {
      const operation = await world.propose({
        id: "012-both",
        intents: [upgradeTo("policy"), upgradeTo("registry")],
      });
      expect([operation.calls.length, operation.rollback?.calls.length]).to.deep.equal([2, 2]);
      const whole = await simulate(operation);
      expect([whole.differences, whole.unjudged, whole.ok]).to.deep.equal([[], [], true]);
      expect(whole.changes.map(({ name }) => name)).to.have.members([
        "policy.implementation()",
        "registry.implementation()",
      ]);
    });
  });

  describe("given an initialiser", () => {
    const generation = async (contract: Proxy, value: bigint) => {
      const name = contract === "policy" ? "PlatformPolicyV2" : "KmsRegistryV2";
      const { interface: abi } = await world.chain.connection.ethers.getContractFactory(name);
      return abi.encodeFunctionData("setGeneration", [value]);
    };

    for (const contract of ["policy", "registry"] as const) {
      it(`of the ${contract} that nothing keeps from running a second time: it is replayed`, async () => {
        const intents = [upgradeTo(contract, v2[contract], await generation(contract, 7n))];
        const operation = await world.propose({ id: "020-replay", intents });
        expect(await found(operation)).to.deep.equal(["upgrade/initialiser-replayed at V1 → V2 again"]);
      });
    }

    it("that writes over what an earlier trial of V2 had stored: it overwrites storage", async () => {
      const trial = async () => {
        await govern("policy", "upgradeToAndCall", v2.policy, await generation("policy", 3n));
        await govern("policy", "upgradeTo", v1.policy);
      };
      await world.changed(trial, async () => {
        const intents = [upgradeTo("policy", v2.policy, await generation("policy", 9n))];
        const operation = await world.propose({ id: "021-overwrites", intents });
        expect(await found(operation)).to.deep.equal([
          "upgrade/overwrites-storage at V1 → V2",
          "upgrade/initialiser-replayed at V1 → V2 again",
        ]);
        const { differences } = await simulate(operation);
        const slot = namespaceSlot("keystead.storage.PlatformPolicyV2");
        expect(differences[0]?.message)
          .to.include(`slot ${slot} of ${world.contracts.policy.toLowerCase()}`)
          .and.to.include(`held 0x${"3".padStart(64, "0")}`);
      });
    });

    it("that ran when the proxy was made: it runs no second time, and so neither does the upgrade", async () => {
      const again = INTERFACES.policy.encodeFunctionData("initialize", [
        world.contracts.timelock,
        world.deployment.safes.guardian.address,
      ]);
      const operation = await world.propose({ id: "022-again", intents: [upgradeTo("policy", v2.policy, again)] });
      const whole = await simulate(operation);
      expect(whole.differences.map(({ code }) => code)).to.deep.equal(["simulate/reverted"]);
      expect(whole.differences[0]?.message).to.include("InvalidInitialization");
    });
  });

  describe("given storage in another place", () => {
    /** The next version as a compiler would make it with its namespace moved: everything works, on other slots. */
    async function moved(contract: Proxy): Promise<string> {
      const slot = namespaceSlot(`keystead.storage.${contract === "policy" ? "PlatformPolicy" : "KmsRegistry"}`);
      // each copy knows its own address
      const implementation =
        contract === "policy"
          ? await deploy("PlatformPolicyV2")
          : await deploy("KmsRegistryV2", world.contracts.policy);
      const code = String(await world.client.request("eth_getCode", [implementation, "latest"]));
      const changed = code.replaceAll(slot.slice(2), namespaceSlot(`keystead.storage.${contract}.moved`).slice(2));
      expect(changed).to.not.equal(code);
      await setCode(world.chain, implementation, changed);
      // a block of its own: until then the newest block commits to the state before
      await world.client.request("evm_mine", []);
      return implementation;
    }

    it("it is named at the first step where something was stored before", async () => {
      const bad = await moved("registry");
      await world.changed(createService, async () => {
        const operation = await world.propose({ id: "030-moved", intents: [upgradeTo("registry", bad)] });
        expect(await found(operation)).to.deep.equal([
          "upgrade/state-changed at V1 → V2",
          "upgrade/rollback-misreads at V2 → V1",
          "upgrade/state-changed at V1 → V2 again",
        ]);
      });
    });

    it("it is named on the way back where only V2 had written", async () => {
      const bad = await moved("registry");
      const operation = await world.propose({ id: "031-moved", intents: [upgradeTo("registry", bad)] });
      expect(await found(operation)).to.deep.equal([
        "upgrade/rollback-misreads at V2 → V1",
        "upgrade/state-changed at V1 → V2 again",
      ]);
    });

    it("a policy's answers change at once, and the play goes no further", async () => {
      const bad = await moved("policy");
      const enable = () => govern("policy", "enableTee", 1);
      await world.changed(enable, async () => {
        const operation = await world.propose({ id: "032-moved", intents: [upgradeTo("policy", bad)] });
        expect(await found(operation)).to.deep.equal(["simulate/extra at policy.teeRules(1).enabled"]);
      });
    });

    it("a policy that no longer answers at all is one refusal", async () => {
      const bad = await deploy("PlatformPolicyReordered");
      const operation = await world.propose({ id: "033-reordered", intents: [upgradeTo("policy", bad)] });
      expect(await found(operation)).to.deep.equal(["simulate/view-fails at execute"]);
    });
  });
});
