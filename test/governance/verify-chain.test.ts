import { expect } from "chai";
import { AbiCoder, id, toBeHex, toQuantity, ZeroHash } from "ethers";
import { fetchBlock } from "../../src/chain/block.ts";
import { connect, type Eip1193Provider } from "../../src/chain/client.ts";
import { INTERFACES } from "../../src/governance/abis.ts";
import { readBuilds } from "../../src/governance/build.ts";
import type { Operation } from "../../src/governance/operation.ts";
import { mappingSlot } from "../../src/governance/slots.ts";
import { planStep } from "../../src/governance/transactions.ts";
import { type VerifyChainOptions, verifyOnChain } from "../../src/governance/verify-chain.ts";
import { setCode, setSlot } from "../deploy/chains.ts";
import { refusal } from "../deploy/refusal.ts";
import { ALLOW_TDX, addressOf } from "../helpers/governance.ts";
import { type GovernedWorld, startWorld } from "../helpers/governed-world.ts";
import { liar } from "../helpers/liar.ts";

type Lie = Parameters<typeof liar>[1];

describe("verify with a chain", function () {
  this.timeout(180_000);
  let world: GovernedWorld;
  let grant: Operation;
  before(async () => {
    world = await startWorld("hardhat");
    grant = await world.propose({ id: "001-tdx", intents: [ALLOW_TDX] });
  });
  after(() => world.stop());

  async function verify(operation: Operation, options: VerifyChainOptions = {}, provider = world.provider) {
    const client = await connect(provider, { attempts: 1 });
    return verifyOnChain(client, await fetchBlock(client, "latest"), operation, options);
  }
  const lying = (lie: Lie): Eip1193Provider => liar(world.provider, lie);
  const noProofs: Lie = (method, answer) => {
    if (method === "eth_getProof") throw { code: -32601, message: "the method does not exist" };
    return answer;
  };
  /** Applies lies one after the other. */
  const both =
    (...lies: readonly NonNullable<Lie>[]): Lie =>
    (method, answer, params) =>
      lies.reduce((given, lie) => lie(method, given, params), answer);
  const codes = async (operation: Operation, options: VerifyChainOptions = {}) =>
    (await verify(operation, options)).differences.map(({ field, code }) => `${field} ${code}`);
  const changed: GovernedWorld["changed"] = (change, look) => world.changed(change, look);

  it("passes a grant and a revocation on the chain that they were proposed for, everything proven", async () => {
    const found = await verify(grant, { deployment: world.deployment });
    expect(found.differences).to.deep.equal([]);
    expect([found.ok, found.phase, found.basis.proven, found.drift]).to.deep.equal([
      true,
      "unset",
      true,
      { recorded: true, moved: [], noted: [] },
    ]);
    expect(found.facts.map(({ what }) => what)).to.include.members([
      "minimum delay",
      "PROPOSER_ROLE",
      "policy code",
      "Safe",
    ]);
    const intents = [{ intent: "suspend-tee", arguments: { kind: "tdx", reason: "broken" } }];
    const revoke = await world.propose({ id: "002-stop", intents });
    expect((await verify(revoke, { witnesses: [world.client] })).differences).to.deep.equal([]);
  });

  describe("given an endpoint that cannot be believed", () => {
    const policyCode: NonNullable<Lie> = (method, answer, [address]) =>
      method === "eth_getCode" && String(address).toLowerCase() === world.contracts.policy.toLowerCase()
        ? "0x6001"
        : answer;
    const nonceSlot: NonNullable<Lie> = (method, answer, [address, slot]) =>
      method === "eth_getStorageAt" &&
      String(address).toLowerCase() === grant.safe.address.toLowerCase() &&
      BigInt(String(slot)) === 5n
        ? toBeHex(9n, 32)
        : answer;
    const nonceView: NonNullable<Lie> = (method, answer, [call]) =>
      method === "eth_call" &&
      Reflect.get(Object(call), "data") === id("nonce()").slice(0, 10) &&
      String(Reflect.get(Object(call), "to")).toLowerCase() === grant.safe.address.toLowerCase()
        ? toBeHex(9n, 32)
        : answer;
    const otherBlock: NonNullable<Lie> = (method, answer) =>
      method === "eth_getBlockByNumber" ? { ...Object(answer), hash: `0x${"ab".repeat(32)}` } : answer;

    const faults: readonly (readonly [string, NonNullable<Lie>, string])[] = [
      ["other code than the block commits to", policyCode, "chain/contradicts-proof"],
      ["another nonce in the view than in storage", nonceView, "chain/contradicts-itself"],
      [
        "another nonce in view and storage than in the proof",
        (m, a, p) => nonceView(m, nonceSlot(m, a, p), p),
        "chain/contradicts-proof",
      ],
      [
        "a proof of something else",
        (method, answer) => (method === "eth_getProof" ? { ...Object(answer), accountProof: [] } : answer),
        "proof/invalid",
      ],
      ["no proofs at all", noProofs as NonNullable<Lie>, "chain/unproven"],
      ["a block that does not hash to its hash", otherBlock, "chain/unproven"],
      [
        "no answers",
        (method, answer) => {
          if (method === "eth_getCode") throw new Error("the operation timed out");
          return answer;
        },
        "chain/unreachable",
      ],
      ["nonsense for code", (method, answer) => (method === "eth_getCode" ? 7 : answer), "chain/malformed"],
    ];
    for (const [title, lie, code] of faults) {
      it(`it refuses where it gives ${title}`, async () => {
        await refusal(verify(grant, {}, lying(lie)), code);
      });
    }

    it("it refuses another chain", async () => {
      const other: Lie = (method, answer) => (method === "eth_chainId" ? "0x1" : answer);
      await refusal(verify(grant, {}, lying(other)), "chain/wrong-chain");
    });

    it("a witness catches what cannot be proven, a lagging one and another chain of blocks", async () => {
      const lie = both(noProofs as NonNullable<Lie>, nonceSlot, nonceView);
      const honest = await connect(lying(noProofs));
      await refusal(verify(grant, { witnesses: [honest] }, lying(lie)), "chain/witness-disagrees");
      const found = await verify(grant, { witnesses: [honest] }, lying(noProofs));
      expect([found.ok, found.basis.proven, found.basis.witnesses]).to.deep.equal([true, false, 1]);
      const elsewhere = await connect(lying(otherBlock));
      await refusal(verify(grant, { witnesses: [elsewhere] }), "chain/witness-disagrees");
      const behind = await connect(lying((method, answer) => (method === "eth_getBlockByNumber" ? null : answer)));
      await refusal(verify(grant, { witnesses: [behind] }), "chain/no-block");
      // proofs may be the witness's as well
      expect((await verify(grant, { witnesses: [world.client] }, lying(noProofs))).basis.proven).to.equal(true);
    });

    it("its word is taken only where that is asked for", async () => {
      const found = await verify(grant, { acceptUnproven: true }, lying(noProofs));
      expect([found.ok, found.basis.proven]).to.deep.equal([true, false]);
      expect(found.unchecked.join()).to.include("no proofs");
    });
  });

  describe("given a chain that is not as assumed", () => {
    it("it names a nonce that moved, and what was proposed for another Safe release", async () => {
      const used = { ...grant, safe: { ...grant.safe, nonce: 3n } };
      // two proposals in flight: other nonces give other hashes, and nothing that was proposed is wrong
      const { differences, transactions, notes } = await verify(used);
      expect(differences).to.deep.equal([]);
      expect(transactions.map(({ name, transaction }) => `${name} ${transaction.nonce}`).slice(0, 2)).to.deep.equal([
        "schedule 0",
        "execute 1",
      ]);
      expect(transactions[0]?.hashes).to.deep.equal(planStep(used, "schedule", { nonce: 0n }).hashes);
      expect(notes.join()).to.include("--nonce 0");
      const other = { ...grant, safe: { ...grant.safe, version: "1.5.0" as const } };
      expect(await codes(other)).to.include.members([
        "safe.version verify/safe-version",
        "safe.multiSend verify/multi-send",
      ]);
      const key = { ...grant, safe: { ...grant.safe, address: addressOf(77) } };
      expect(await codes(key)).to.include("safe.address verify/not-a-safe");
    });

    it("it names a delay that was raised and a predecessor that nobody scheduled", async () => {
      const timelock = { ...(grant.timelock as NonNullable<Operation["timelock"]>) };
      const slow = await changed(
        () => setSlot(world.chain, world.contracts.timelock, 2n, toBeHex(999_999n, 32)),
        () => codes(grant),
      );
      expect(slow)
        .to.include("timelock.delay verify/delay-too-short")
        .and.to.include("timelock.getMinDelay() verify/drifted");
      const orphan = { ...grant, timelock: { ...timelock, predecessor: `0x${"77".repeat(32)}` as const } };
      expect(await codes(orphan)).to.deep.equal(["timelock.predecessor verify/predecessor-unknown"]);
    });

    it("it names a role that is gone", async () => {
      const member = mappingSlot(
        `0x${"00".repeat(12)}${grant.safe.address.slice(2)}`,
        BigInt(mappingSlot(id("PROPOSER_ROLE"), 0n)),
      );
      const found = await changed(
        () => setSlot(world.chain, world.contracts.timelock, BigInt(member), ZeroHash),
        () => codes(grant),
      );
      expect(found).to.include("safe verify/no-role");
    });

    it("it names other code than recorded, a target without code and a target that is a key", async () => {
      const { policy } = world.contracts;
      const other = await changed(
        () => setCode(world.chain, world.contracts.timelock, "0x6001"),
        () =>
          verify(grant, { deployment: world.deployment }).then(
            () => "",
            (error: { code: string }) => error.code,
          ),
      );
      expect(other).to.equal("chain/not-this-contract");
      const masked = {
        ...world.deployment,
        contracts: {
          ...world.deployment.contracts,
          policy: { ...world.deployment.contracts.policy, codeHash: ZeroHash },
        },
      };
      expect(await codes(grant, { deployment: masked })).to.deep.equal(["contracts.policy verify/other-code"]);
      const call = (to: string) =>
        world.proposeBlind({ id: "003-call", intents: [{ intent: "call", arguments: { to, data: "0xdeadbeef" } }] });
      expect(await codes(await call(addressOf(66)))).to.deep.equal(["calls[0] verify/no-code"]);
      const key = await call(addressOf(67));
      const delegated = await changed(
        () => setCode(world.chain, addressOf(67), `0xef0100${policy.slice(2)}`),
        () => codes(key),
      );
      expect(delegated).to.deep.equal(["calls[0] verify/target-is-a-key"]);
    });

    it("it judges new implementations: none, open to anyone, not built here, built here", async () => {
      const upgrade = (implementation: string) =>
        world.proposeBlind({
          id: "004-v2",
          intents: [{ intent: "upgrade", arguments: { contract: "policy", implementation } }],
        });
      expect(await codes(await upgrade(addressOf(68)))).to.deep.equal(["calls[0] verify/no-implementation"]);
      const current = await upgrade(world.deployment.contracts.policyImplementation.address);
      const builds = await readBuilds();
      const found = await verify(current, { builds });
      expect(found.facts.find(({ what }) => what === "new implementation")?.found).to.include(
        "contracts/policy/PlatformPolicy.sol:PlatformPolicy",
      );
      expect(found.differences).to.deep.equal([]);
      const stranger = await upgrade(addressOf(69));
      const strange = await changed(
        () => setCode(world.chain, addressOf(69), "0x6001600255"),
        () => codes(stranger, { builds }),
      );
      expect(strange).to.have.members([
        "calls[0] verify/other-contract",
        "calls[0] verify/open-initializer",
        "calls[0] verify/not-built-here",
      ]);
      // the other proxy's own implementation is built here, and is still the wrong one
      const swapped = await upgrade(world.deployment.contracts.registryImplementation.address);
      expect(await codes(swapped, { builds })).to.deep.equal(["calls[0] verify/other-contract"]);
      expect(await codes(swapped)).to.deep.equal(["calls[0] verify/other-contract"]);
      expect((await verify(current)).unchecked.join()).to.include("NOT compared with a build");
    });

    it("it names what moved since it was proposed", async () => {
      const { provider } = world;
      const found = await changed(
        async () => {
          await provider.request({
            method: "hardhat_setStorageAt",
            params: [grant.safe.address, toQuantity(4n), toBeHex(1n, 32)],
          });
        },
        () => codes(grant),
      );
      expect(found).to.deep.equal([`safe@${grant.safe.address}.threshold verify/drifted`]);
    });

    it("it names a module that the Safe got since, whatever the endpoint makes its views say", async () => {
      const { address } = grant.safe;
      const none = AbiCoder.defaultAbiCoder().encode(["address[]", "address"], [[], toBeHex(1n, 20)]);
      const hiding: Lie = (method, answer, [call]) =>
        method === "eth_call" &&
        String(Reflect.get(Object(call), "data")).startsWith(id("getModulesPaginated(address,uint256)").slice(0, 10))
          ? none
          : answer;
      const enable = INTERFACES.safe.encodeFunctionData("enableModule", [addressOf(79)]);
      const found = await changed(
        () => world.sendAs(address, address, enable),
        () => verify(grant, {}, lying(hiding)),
      );
      expect(found.differences.map(({ field, code }) => `${field} ${code}`)).to.deep.equal([
        `safe@${address}.modules verify/drifted`,
      ]);
    });

    it("it believes no endpoint that names other owners than the Safe's storage", async () => {
      const { owners } = world.deployment.safes.guardian;
      const other: Lie = (method, answer, [call]) =>
        method === "eth_call" && Reflect.get(Object(call), "data") === id("getOwners()").slice(0, 10)
          ? AbiCoder.defaultAbiCoder().encode(["address[]"], [owners])
          : answer;
      await refusal(verify(grant, {}, lying(other)), "chain/contradicts-itself");
    });
  });

  it("follows an operation through its life", async () => {
    const schedule = () => world.take(grant, "schedule");
    const found = await changed(schedule, () => verify(grant));
    expect([found.phase, found.ok, found.differences]).to.deep.equal(["waiting", true, []]);
  });
});
