import { expect } from "chai";
import { AbiCoder, id, keccak256, toBeHex, ZeroAddress, ZeroHash, zeroPadValue } from "ethers";
import { fetchBlock } from "../../src/chain/block.ts";
import { connect } from "../../src/chain/client.ts";
import type { Deployment } from "../../src/chain/deployment.ts";
import { IMPLEMENTATION_SLOT, namespaceSlot } from "../../src/chain/slots.ts";
import { INTERFACES } from "../../src/governance/abis.ts";
import { type Build, readBuilds } from "../../src/governance/build.ts";
import { LINT_RULES, type LintCode, type LintInput, lintDeployment } from "../../src/governance/lint.ts";
import type { Operation } from "../../src/governance/operation.ts";
import { GUARD_SLOT, MODULE_GUARD_SLOT } from "../../src/governance/safe-setup.ts";
import { mappingSlot } from "../../src/governance/slots.ts";
import { buildTimelockOperation } from "../../src/governance/timelock.ts";
import { fetchActors, setCode, setSlot } from "../deploy/chains.ts";
import { refusal } from "../deploy/refusal.ts";
import { ALLOW_TDX, addressOf } from "../helpers/governance.ts";
import { DELAY, type GovernedWorld, startWorld } from "../helpers/governed-world.ts";
import { liar } from "../helpers/liar.ts";

/** Some code: what stands there is a contract, whatever it does. */
const SOME_CODE = "0x600160005260206000f3";

describe("lint", function () {
  this.timeout(180_000);
  let world: GovernedWorld;
  let builds: readonly Build[];
  const seen = new Set<LintCode>();
  before(async () => {
    world = await startWorld("hardhat", "1.5.0");
    builds = await readBuilds();
  });
  after(() => world.stop());

  async function lint(input: Partial<LintInput> = {}) {
    const block = await fetchBlock(world.client, "latest");
    const found = await lintDeployment(world.client, block, { deployment: world.deployment, builds, ...input });
    for (const { code } of found.findings) seen.add(code);
    return found;
  }
  const subjects = async (code: LintCode, input: Partial<LintInput> = {}) =>
    (await lint(input)).findings.filter((finding) => finding.code === code).map(({ subject }) => subject);
  /** The subjects of one rule's findings after a change of the chain. */
  const afterwards = (change: () => Promise<unknown>, code: LintCode, input: Partial<LintInput> = {}) =>
    world.changed(change, () => subjects(code, input));
  const timelock = () => world.contracts.timelock;
  /** The timelock's own roles are changed by itself. */
  const govern = (name: string, ...args: readonly unknown[]) =>
    world.sendAs(timelock(), timelock(), INTERFACES.timelock.encodeFunctionData(name, args));
  /** Beyond what the timelock allows too. */
  const setDelay = (seconds: bigint) => setSlot(world.chain, timelock(), 2n, toBeHex(seconds, 32));
  const bySafe = (office: "governance" | "guardian", name: string, ...args: readonly unknown[]) => {
    const { address } = world.deployment.safes[office];
    return world.sendAs(address, address, INTERFACES.safe.encodeFunctionData(name, args));
  };
  /** Gives a role to an account that is a contract while it is given, and something else afterwards. */
  async function giveTo(account: string, role: string, later: string): Promise<void> {
    await setCode(world.chain, account, SOME_CODE);
    await govern("grantRole", id(role), account);
    await setCode(world.chain, account, later);
  }

  it("passes this project's own deployment, with nothing to say, everything proven", async () => {
    const found = await lint({ witnesses: [world.client] });
    expect(found.findings).to.deep.equal([]);
    expect([found.ok, found.basis.proven, found.roles.length]).to.deep.equal([true, true, 10]);
  });

  it("a role that is not as published", async () => {
    const { guardian } = world.deployment.safes;
    expect(
      await afterwards(() => govern("grantRole", id("PROPOSER_ROLE"), guardian.address), "lint/roles"),
    ).to.deep.equal(["timelock"]);
    const replaced = async () => {
      await govern("grantRole", id("EXECUTOR_ROLE"), guardian.address);
      await govern("revokeRole", id("EXECUTOR_ROLE"), world.deployment.safes.governance.address);
    };
    expect(await afterwards(replaced, "lint/roles")).to.deep.equal(["timelock", "timelock"]);
  });

  it("an admin of the timelock's roles from outside", async () => {
    const { guardian } = world.deployment.safes;
    // the timelock refuses it: only other code could have granted it
    const admins = BigInt(mappingSlot(ZeroHash, 0n));
    const slot = BigInt(mappingSlot(zeroPadValue(guardian.address, 32), admins));
    const grant = () => setSlot(world.chain, timelock(), slot, toBeHex(1n, 32));
    expect(await afterwards(grant, "lint/external-admin")).to.deep.equal(["timelock"]);
  });

  it("a key in an office, and a key that delegates", async () => {
    expect(await afterwards(() => giveTo(addressOf(70), "CANCELLER_ROLE", "0x"), "lint/eoa")).to.deep.equal([
      "timelock",
    ]);
    const delegation = `0xef0100${addressOf(1).slice(2)}`;
    expect(await afterwards(() => giveTo(addressOf(70), "CANCELLER_ROLE", delegation), "lint/eoa")).to.deep.equal([
      "timelock",
    ]);
  });

  it("rights that the deployer kept", async () => {
    const { deployer } = await fetchActors(world.chain.connection);
    expect(await afterwards(() => giveTo(deployer, "PROPOSER_ROLE", SOME_CODE), "lint/deployer-rights")).to.deep.equal([
      "timelock",
    ]);
  });

  it("no delay, a short one, an absurd one, one that nobody recorded", async () => {
    const set = (seconds: bigint) => () => setDelay(seconds);
    expect(await afterwards(set(0n), "lint/delay-zero")).to.deep.equal(["timelock"]);
    expect(await afterwards(set(3600n), "lint/delay-short")).to.deep.equal(["timelock"]);
    expect(await afterwards(set(31n * 86_400n), "lint/delay-absurd")).to.deep.equal(["timelock"]);
    expect(await afterwards(set(BigInt(DELAY) + 1n), "lint/delay-changed")).to.deep.equal(["timelock"]);
  });

  it("a delay that can be lowered to less than a day", async () => {
    const floor = () => setSlot(world.chain, timelock(), 3n, toBeHex(86_399n, 32));
    expect(await afterwards(floor, "lint/delay-floor")).to.deep.equal(["timelock"]);
  });

  it("a dismissal of the guardian that waits", async () => {
    const { governance, guardian } = world.deployment.safes;
    const calls = [
      { to: world.contracts.policy, role: id("keystead.GUARDIAN") },
      { to: timelock(), role: id("CANCELLER_ROLE") },
    ].map(({ to, role }) => ({
      ...{ to, value: 0n },
      data: INTERFACES.timelock.encodeFunctionData("revokeRole", [role, guardian.address]),
    }));
    const { schedule, operationId } = buildTimelockOperation({
      ...{ id: "dismissal", chainId: world.deployment.chainId, timelock: timelock() },
      ...{ calls, delaySeconds: 2n * BigInt(DELAY) },
    });
    const dismiss = () => world.sendAs(governance.address, timelock(), schedule);
    expect(await afterwards(dismiss, "lint/dismissal")).to.deep.equal([`operation ${operationId}`]);
  });

  it("nobody independent who can cancel", async () => {
    const { guardian } = world.deployment.safes;
    expect(
      await afterwards(() => govern("revokeRole", id("CANCELLER_ROLE"), guardian.address), "lint/no-canceller"),
    ).to.deep.equal(["timelock"]);
  });

  it("a guardian whose owners are the governors", async () => {
    const { alice, dave } = await fetchActors(world.chain.connection);
    const swap = () =>
      bySafe(
        "guardian",
        "swapOwner",
        "0x0000000000000000000000000000000000000001",
        world.deployment.safes.guardian.owners[0] ?? dave,
        alice,
      );
    expect(await afterwards(swap, "lint/guardian-not-independent")).to.deep.equal(["guardian Safe"]);
  });

  it("an executor role for everybody, and a rollback scheduled beforehand under it", async () => {
    const open = async () => {
      await giveTo(ZeroAddress, "EXECUTOR_ROLE", "0x");
    };
    expect(await afterwards(open, "lint/open-executor")).to.deep.equal(["timelock"]);
    const scheduled = buildTimelockOperation({
      ...{ id: "rollback", chainId: world.deployment.chainId, timelock: timelock(), delaySeconds: BigInt(DELAY) },
      calls: [{ to: world.contracts.policy, value: 0n, data: INTERFACES.policy.encodeFunctionData("enableTee", [1]) }],
      predecessor: `0x${"77".repeat(32)}`,
    });
    const both = async () => {
      await open();
      await world.sendAs(world.deployment.safes.governance.address, timelock(), scheduled.schedule);
    };
    expect(await afterwards(both, "lint/open-executor")).to.have.length(2);
  });

  it("a contract with other code, outside of its immutables", async () => {
    const { policyImplementation } = world.deployment.contracts;
    const code = String(await world.client.request("eth_getCode", [policyImplementation.address, "latest"]));
    const changed = `${code.slice(0, 200)}${code[200] === "0" ? "1" : "0"}${code.slice(201)}`;
    expect(await afterwards(() => setCode(world.chain, policyImplementation.address, changed), "lint/code")).to.include(
      "policyImplementation",
    );
    // the record's own word is not enough
    const recorded = { ...policyImplementation, codeHash: keccak256(changed) };
    const deployment = {
      ...world.deployment,
      contracts: { ...world.deployment.contracts, policyImplementation: recorded },
    };
    const found = await afterwards(() => setCode(world.chain, policyImplementation.address, changed), "lint/code", {
      deployment,
    });
    expect(found).to.deep.equal(["policyImplementation"]);
  });

  it("another implementation behind a proxy, which nobody recorded", async () => {
    const { policy, policyImplementation, registryImplementation } = world.deployment.contracts;
    const copy = String(await world.client.request("eth_getCode", [policyImplementation.address, "latest"]));
    const change = async () => {
      await setCode(world.chain, addressOf(71), copy);
      await setSlot(world.chain, policy.address, BigInt(IMPLEMENTATION_SLOT), toBeHex(BigInt(addressOf(71)), 32));
    };
    expect(await afterwards(change, "lint/implementation")).to.include("policy");
    const crossed = () =>
      setSlot(
        world.chain,
        policy.address,
        BigInt(IMPLEMENTATION_SLOT),
        toBeHex(BigInt(registryImplementation.address), 32),
      );
    expect(await afterwards(crossed, "lint/implementation")).to.include("policy");
  });

  it("an implementation that anybody can initialise", async () => {
    const { registryImplementation } = world.deployment.contracts;
    const slot = BigInt(namespaceSlot("openzeppelin.storage.Initializable"));
    expect(
      await afterwards(
        () => setSlot(world.chain, registryImplementation.address, slot, ZeroHash),
        "lint/uninitialised",
      ),
    ).to.deep.equal(["registryImplementation"]);
  });

  it("an adapter that refers to something else", async () => {
    const { dstackAuth, registry, policy } = world.deployment.contracts;
    const code = String(await world.client.request("eth_getCode", [dstackAuth.address, "latest"]));
    const plain = (address: string) => address.slice(2).toLowerCase();
    const swapped = code.replaceAll(plain(registry.address), plain(policy.address));
    const contracts = { ...world.deployment.contracts, dstackAuth: { ...dstackAuth, codeHash: keccak256(swapped) } };
    const deployment = { ...world.deployment, contracts };
    expect(
      await afterwards(() => setCode(world.chain, dstackAuth.address, swapped), "lint/wiring", { deployment }),
    ).to.deep.equal(["dstackAuth"]);
  });

  it("an office that is no genuine Safe", async () => {
    const { guardian } = world.deployment.safes;
    const delegation = `0xef0100${addressOf(1).slice(2)}`;
    for (const code of ["0x", delegation, SOME_CODE]) {
      expect(await afterwards(() => setCode(world.chain, guardian.address, code), "lint/not-a-safe")).to.deep.equal([
        "guardian Safe",
      ]);
    }
    const singleton = () => setSlot(world.chain, guardian.address, 0n, toBeHex(BigInt(addressOf(72)), 32));
    expect(await afterwards(singleton, "lint/not-a-safe")).to.deep.equal(["guardian Safe"]);
  });

  it("a Safe in which one owner decides, or that is not as recorded", async () => {
    const alone = () => bySafe("governance", "changeThreshold", 1n);
    expect(await afterwards(alone, "lint/safe-threshold")).to.deep.equal(["governance Safe"]);
    expect(await afterwards(alone, "lint/safe-changed")).to.deep.equal(["governance Safe"]);
  });

  it("a Safe with a module, a guard, or a strange handler", async () => {
    const { governance } = world.deployment.safes;
    expect(
      await afterwards(() => bySafe("governance", "enableModule", addressOf(73)), "lint/safe-module"),
    ).to.deep.equal(["governance Safe"]);
    const guard = () =>
      setSlot(world.chain, governance.address, BigInt(GUARD_SLOT), toBeHex(BigInt(addressOf(74)), 32));
    expect(await afterwards(guard, "lint/safe-guard")).to.deep.equal(["governance Safe"]);
    const moduleGuard = () =>
      setSlot(world.chain, governance.address, BigInt(MODULE_GUARD_SLOT), toBeHex(BigInt(addressOf(75)), 32));
    expect(await afterwards(moduleGuard, "lint/safe-guard")).to.deep.equal(["governance Safe"]);
    expect(
      await afterwards(() => bySafe("governance", "setFallbackHandler", addressOf(76)), "lint/safe-handler"),
    ).to.deep.equal(["governance Safe"]);
  });

  describe("given what is recorded as it is, weak on purpose", () => {
    /** Findings where the same contracts stand on a chain of this id; everything else is as recorded. */
    async function lintOn(chainId: bigint, recorded: Partial<Deployment>) {
      const named = liar(world.provider, (method, answer) => (method === "eth_chainId" ? toBeHex(chainId) : answer));
      const client = await connect(named, { chainId: Number(chainId) });
      const deployment: Deployment = { ...world.deployment, ...recorded, chainId };
      const { ok, findings } = await lintDeployment(client, await fetchBlock(client, "latest"), { deployment, builds });
      return [ok, ...findings.map(({ code, severity }) => `${code} ${severity}`)];
    }

    it("a delay of less than a day is an error on a public chain, and a warning where only developers are", async () => {
      const hour = () => setDelay(3600n);
      const recorded = { delaySeconds: 3600 };
      await world.changed(hour, async () => {
        for (const chainId of [1n, 11_155_111n, 8453n]) {
          expect(await lintOn(chainId, recorded)).to.deep.equal([false, "lint/delay-short unsafe"]);
        }
        for (const chainId of [31_337n, 1337n]) {
          expect(await lintOn(chainId, recorded)).to.deep.equal([true, "lint/delay-short warning"]);
        }
      });
      // to the second
      for (const [seconds, expected] of [
        [86_399, [false, "lint/delay-short unsafe"]],
        [86_400, [true]],
      ] as const) {
        await world.changed(
          () => setDelay(BigInt(seconds)),
          async () => expect(await lintOn(1n, { delaySeconds: seconds })).to.deep.equal(expected),
        );
      }
    });

    it("a Safe in which one owner decides is an error, on a public chain and anywhere", async () => {
      const { safes } = world.deployment;
      for (const office of ["governance", "guardian"] as const) {
        const recorded = { safes: { ...safes, [office]: { ...safes[office], threshold: 1 } } };
        await world.changed(
          () => bySafe(office, "changeThreshold", 1n),
          async () => {
            for (const chainId of [1n, 31_337n]) {
              expect(await lintOn(chainId, recorded)).to.deep.equal([false, "lint/safe-threshold unsafe"]);
            }
          },
        );
      }
    });
  });

  describe("given an endpoint that hides what is wrong", () => {
    /** What is found through an endpoint that changes answers, after a change of the chain. */
    const hidden = (change: () => Promise<unknown>, lie: Parameters<typeof liar>[1]) =>
      world.changed(change, async () => {
        const client = await connect(liar(world.provider, lie));
        const block = await fetchBlock(client, "latest");
        const { findings } = await lintDeployment(client, block, { deployment: world.deployment, builds });
        return findings.map(({ code, subject }) => `${code} ${subject}`);
      });
    const isCall = (params: readonly unknown[], selector: string) =>
      String(Reflect.get(Object(params[0]), "data")).startsWith(selector);

    it("a module that the Safe's view leaves out is found in its storage", async () => {
      const selector = id("getModulesPaginated(address,uint256)").slice(0, 10);
      const types = ["address[]", "address"];
      const none = AbiCoder.defaultAbiCoder().encode(types, [[], "0x0000000000000000000000000000000000000001"]);
      const found = await hidden(
        () => bySafe("governance", "enableModule", addressOf(73)),
        (method, answer, params) => (method === "eth_call" && isCall(params, selector) ? none : answer),
      );
      expect(found).to.deep.equal(["lint/safe-module governance Safe"]);
    });

    it("an owner whom the Safe's view leaves out is found in its storage", async () => {
      const { owners } = world.deployment.safes.guardian;
      const selector = id("getOwners()").slice(0, 10);
      const recorded = AbiCoder.defaultAbiCoder().encode(["address[]"], [owners]);
      const found = await hidden(
        () => bySafe("guardian", "addOwnerWithThreshold", addressOf(77), 2n),
        (method, answer, [call]) =>
          method === "eth_call" &&
          isCall([call], selector) &&
          String(Reflect.get(Object(call), "to")).toLowerCase() ===
            world.deployment.safes.guardian.address.toLowerCase()
            ? recorded
            : answer,
      );
      expect(found).to.deep.equal(["lint/safe-changed guardian Safe"]);
    });

    it("a role of the deployer that no log tells of is found in storage", async () => {
      const { deployer } = await fetchActors(world.chain.connection);
      const kept = `0x${deployer.slice(2).toLowerCase().padStart(64, "0")}`;
      const found = await hidden(
        () => giveTo(deployer, "PROPOSER_ROLE", SOME_CODE),
        (method, answer) =>
          method === "eth_getLogs"
            ? (answer as { topics: string[] }[]).filter(({ topics }) => topics[2]?.toLowerCase() !== kept)
            : answer,
      );
      expect(found).to.include("lint/deployer-rights timelock").and.to.include("lint/roles timelock");
    });

    it("a role whose revocation is made up is found in storage", async () => {
      const account = addressOf(78);
      const found = await hidden(
        () => giveTo(account, "PROPOSER_ROLE", SOME_CODE),
        (method, answer) =>
          method === "eth_getLogs"
            ? (answer as { topics: string[] }[]).map((log) =>
                log.topics[2]?.toLowerCase().endsWith(account.slice(2).toLowerCase())
                  ? { ...log, topics: [id("RoleRevoked(bytes32,address,address)"), ...log.topics.slice(1)] }
                  : log,
              )
            : answer,
      );
      expect(found).to.deep.equal(["lint/roles timelock", "lint/roles timelock"]);
    });
  });

  describe("lanes crossed", () => {
    const revoke = () =>
      INTERFACES.policy.encodeFunctionData("revokePlatform", [`0x${"11".repeat(32)}`, "broken"]) as `0x${string}`;
    const inFolder = (operation: Operation) => ({ proposals: new Map([[operation.id, operation]]) });

    it("a revocation that goes through the timelock, in a proposal and on the chain", async () => {
      const grant = await world.propose({ id: "001-tdx", intents: [ALLOW_TDX] });
      expect(await subjects("lint/crossed-lane", inFolder(grant))).to.deep.equal([]);
      const slow: Operation = {
        ...grant,
        lane: "revoke",
        calls: [{ to: world.contracts.policy, value: 0n, data: revoke() }],
      };
      expect(await subjects("lint/crossed-lane", inFolder(slow))).to.deep.equal(["001-tdx"]);
      const scheduled = buildTimelockOperation({
        ...{ id: "slow", chainId: world.deployment.chainId, timelock: timelock(), delaySeconds: BigInt(DELAY) },
        calls: slow.calls,
      });
      const schedule = () => world.sendAs(world.deployment.safes.governance.address, timelock(), scheduled.schedule);
      expect(await afterwards(schedule, "lint/crossed-lane")).to.deep.equal([`operation ${scheduled.operationId}`]);
    });

    it("a grant that does not go through the timelock", async () => {
      const grant = await world.propose({ id: "002-tdx", intents: [ALLOW_TDX] });
      expect(await subjects("lint/crossed-lane", inFolder({ ...grant, timelock: null }))).to.deep.equal(["002-tdx"]);
    });
  });

  it("refuses a record of another chain, and a build that lacks the sources", async () => {
    const other: Deployment = { ...world.deployment, chainId: 1n };
    await refusal(lint({ deployment: other }), "chain/wrong-chain");
    await refusal(lint({ builds: [] }), "build/none");
    await refusal(readBuilds(world.deployment.network), "build/none");
  });

  describe("the rules", () => {
    it("has a test of every rule", () => {
      expect([...seen].sort()).to.deep.equal(Object.keys(LINT_RULES).sort());
    });
  });
});
