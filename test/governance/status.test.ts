import { expect } from "chai";
import { concat, dataLength, id, toBeHex } from "ethers";
import { fetchBlock } from "../../src/chain/block.ts";
import { connect } from "../../src/chain/client.ts";
import { INTERFACES } from "../../src/governance/abis.ts";
import type { StoredProposal } from "../../src/governance/folder.ts";
import type { Operation } from "../../src/governance/operation.ts";
import { NONCE_SLOT } from "../../src/governance/safe-setup.ts";
import { fetchSafe } from "../../src/governance/safe-state.ts";
import { parseKey, signStep } from "../../src/governance/sign.ts";
import { formatSignature, signaturePath } from "../../src/governance/signatures.ts";
import { readGovernance } from "../../src/governance/status.ts";
import { planStep, type StepName } from "../../src/governance/transactions.ts";
import { passTime, setSlot } from "../deploy/chains.ts";
import { refusal } from "../deploy/refusal.ts";
import { ALLOW_TDX, addressOf, folderOf } from "../helpers/governance.ts";
import { type Person, WHO } from "../helpers/governed-chain.ts";
import { DELAY, type GovernedWorld, startWorld } from "../helpers/governed-world.ts";
import { liar } from "../helpers/liar.ts";

/** GovernanceTimelock.GRACE_PERIOD. */
const GRACE = 14 * 86_400;

describe("status", function () {
  this.timeout(180_000);
  let world: GovernedWorld;
  let grant: Operation;
  let revoke: Operation;
  let pause: Operation;
  before(async () => {
    world = await startWorld("hardhat");
    grant = await world.propose({
      id: "001-tdx",
      intents: [ALLOW_TDX, { intent: "enable-tee", arguments: { kind: "tdx" } }],
    });
    revoke = await world.propose({
      id: "002-stop",
      intents: [{ intent: "suspend-tee", arguments: { kind: "tdx", reason: "broken" } }],
    });
    const intents = [{ intent: "pause-release", arguments: { duration: "1h", reason: "a leak" } }];
    pause = await world.propose({ id: "004-pause", intents });
  });
  after(() => world.stop());

  const stored = (...operations: readonly Operation[]): ReadonlyMap<string, StoredProposal> =>
    new Map(operations.map((operation) => [operation.id, { operation, files: folderOf(operation) }]));
  async function status(...operations: readonly Operation[]) {
    return readGovernance(
      world.client,
      await fetchBlock(world.client, "latest"),
      world.deployment,
      stored(...operations),
    );
  }
  /** State, next step, signatures, and the orphans' names. */
  async function summary(...operations: readonly Operation[]) {
    const found = await status(...operations);
    const proposals = found.proposals.map(
      ({ id: name, state, next, cancellableBy }) => `${name} ${state} ${next} ${cancellableBy.length}`,
    );
    return { ok: found.ok, proposals, orphans: found.orphans.map(({ contract, name }) => `${contract} ${name}`) };
  }

  it("given a new deployment: everything on the chain is the deployment's own", async () => {
    const found = await status(grant);
    expect([found.ok, found.orphans, found.minDelay]).to.deep.equal([true, [], BigInt(DELAY)]);
    expect(found.events.length).to.be.greaterThan(8);
    expect(new Set(found.events.map(({ proposal }) => proposal))).to.deep.equal(new Set(["deployment"]));
    expect(found.proposals[0]).to.deep.include({ state: "drafted", next: "schedule" });
    expect(found.proposals[0]?.signatures).to.deep.include({ step: "schedule", signers: [], needed: 2 });
  });

  it("given the calls of a direct transaction made a second time: those are nobody's", async () => {
    const twice = async () => {
      await world.take(pause, "execute");
      await passTime(world.chain, 7200);
      await world.take(pause, "execute");
    };
    await world.changed(twice, async () => {
      const { ok, orphans } = await summary(pause);
      expect([ok, orphans]).to.deep.equal([false, ["policy PauseRelease"]]);
    });
  });

  it("says what the next step does, and which proposals want one nonce", async () => {
    const other = await world.propose({ id: "009-other", intents: [ALLOW_TDX] });
    const found = await status(grant, other);
    for (const { doing, notes } of found.proposals) {
      expect(doing[0]).to.include("schedule the calls below");
      expect(notes.join()).to.include("only one of them can have it");
    }
    expect((await status(grant)).proposals[0]?.notes).to.deep.equal([]);
  });

  it("follows a grant from scheduling to execution, and a revocation at once, each event to its proposal", async () => {
    const end = async () => {
      await world.take(grant, "schedule");
      expect(await summary(grant, revoke)).to.deep.equal({
        ...{ ok: true, orphans: [] },
        proposals: ["001-tdx scheduled execute 2", "002-stop drafted execute 0"],
      });
      // without its folder the same operation is an alert
      expect((await summary(revoke)).orphans).to.deep.equal(["timelock CallScheduled"]);
      await passTime(world.chain, DELAY);
      const ready = await status(grant);
      expect(ready.proposals[0]?.state).to.equal("ready");
      expect(ready.proposals[0]?.readyAt).to.equal(ready.operations[0]?.readyAt);
      await world.take(grant, "execute");
      await world.take(revoke, "execute");
    };
    await world.changed(end, async () => {
      expect(await summary(grant, revoke)).to.deep.equal({
        ...{ ok: true, orphans: [] },
        proposals: ["001-tdx executed null 0", "002-stop executed null 0"],
      });
      const found = await status(grant, revoke);
      const own = found.events.filter(({ proposal }) => proposal !== "deployment");
      expect(own.map(({ name, proposal }) => `${proposal} ${name}`)).to.deep.equal([
        ...[
          "001-tdx CallScheduled",
          "001-tdx AllowPlatform",
          "001-tdx CallExecuted",
          "001-tdx EnableTee",
          "002-stop SuspendTee",
        ],
      ]);
      // a policy event without its proposal is an orphan, whoever made it
      expect((await summary(grant)).orphans).to.deep.equal(["policy SuspendTee"]);
      expect((await summary(revoke)).orphans).to.deep.equal([
        ...["timelock CallScheduled", "policy AllowPlatform", "timelock CallExecuted", "policy EnableTee"],
      ]);
    });
  });

  it("shows a veto, and its event as the proposal's own", async () => {
    const veto = async () => {
      await world.take(grant, "schedule");
      await world.take(grant, "cancel", world.deployment.safes.guardian.address);
    };
    await world.changed(veto, async () => {
      expect(await summary(grant)).to.deep.equal({ ok: true, orphans: [], proposals: ["001-tdx cancelled null 0"] });
    });
  });

  it("shows what expired, with when, and asks for it to be scheduled again", async () => {
    const lapse = async () => {
      await world.take(grant, "schedule");
      await passTime(world.chain, DELAY + GRACE);
    };
    await world.changed(lapse, async () => {
      expect(await summary(grant)).to.deep.equal({
        ...{ ok: true, orphans: [], proposals: ["001-tdx expired schedule 0"] },
      });
      const [found] = (await status(grant)).proposals;
      expect(found?.expiresAt).to.equal((found?.readyAt ?? 0n) + BigInt(GRACE));
      expect(found?.notes.join(), "the nonce that scheduled it is used up").to.match(/sign again with --nonce/);
    });
    const again = async () => {
      await lapse();
      await world.take(grant, "schedule");
    };
    await world.changed(again, async () => {
      const found = await status(grant);
      expect(found.proposals[0]).to.deep.include({ state: "scheduled", next: "execute" });
      expect(found.operations).to.have.length(1);
    });
  });

  it("shows of a dismissal that the guardian cannot cancel it, and that it waits twice as long", async () => {
    const { guardian, governance } = world.deployment.safes;
    const intents = [{ intent: "dismiss-guardian", arguments: { account: guardian.address } }];
    const dismissal = await world.propose({ id: "005-dismiss", intents });
    expect(dismissal.cancellers).to.deep.equal([]);
    expect(dismissal.timelock?.delay).to.equal(2n * BigInt(DELAY));
    await world.changed(
      () => world.take(dismissal, "schedule"),
      async () => {
        const found = await status(dismissal);
        expect(found.proposals[0]).to.deep.include({ state: "scheduled", cancellableBy: [governance.address] });
        expect(found.operations[0]?.dismissal).to.deep.equal({ outgoing: guardian.address, incoming: undefined });
      },
    );
  });

  it("given changes that nobody proposed: each is an orphan", async () => {
    const { timelock, registry } = world.contracts;
    const { governance, guardian } = world.deployment.safes;
    const send = (from: string, to: string, abi: keyof typeof INTERFACES, name: string, ...args: readonly unknown[]) =>
      world.sendAs(from, to, INTERFACES[abi].encodeFunctionData(name, args));
    const cases: readonly (readonly [() => Promise<void>, readonly string[]])[] = [
      [
        () => send(timelock, timelock, "timelock", "grantRole", id("PROPOSER_ROLE"), guardian.address),
        ["timelock RoleGranted"],
      ],
      [() => send(timelock, timelock, "timelock", "updateDelay", BigInt(DELAY) + 1n), ["timelock MinDelayChange"]],
      [
        () =>
          send(timelock, registry, "registry", "upgradeTo", world.deployment.contracts.registryImplementation.address),
        ["registry Upgraded"],
      ],
      [
        () => send(guardian.address, world.contracts.policy, "policy", "pauseRelease", 3600n, "now"),
        ["policy PauseRelease"],
      ],
      [
        () => send(governance.address, governance.address, "safe", "changeThreshold", 1n),
        ["governance Safe ChangedThreshold"],
      ],
      [
        () => send(guardian.address, guardian.address, "safe", "enableModule", addressOf(80)),
        ["guardian Safe EnabledModule"],
      ],
    ];
    for (const [change, orphans] of cases) {
      await world.changed(change, async () => {
        const found = await summary(grant, revoke);
        expect([found.ok, found.orphans]).to.deep.equal([false, orphans]);
      });
    }
  });

  it("a call explains one event: the same once more in one transaction is an orphan", async () => {
    // somebody who can act for the guardian does in one transaction what was proposed, and something else with it
    const twice = async () => {
      await world.take(pause, "execute");
      await world.sendAs(
        world.contracts.timelock,
        world.contracts.policy,
        INTERFACES.policy.encodeFunctionData("resumeRelease", []),
      );
      await world.sendAs(world.deployment.safes.guardian.address, world.contracts.policy, pause.calls[0]?.data ?? "0x");
    };
    await world.changed(twice, async () => {
      expect((await summary(pause)).orphans).to.deep.equal(["policy ResumeRelease", "policy PauseRelease"]);
    });
  });

  it("calls count for a proposal only through Safe's own MultiSend: another contract may do something else with them", async () => {
    const data = pause.calls[0]?.data ?? "0x";
    const packed = concat(["0x00", world.contracts.policy, toBeHex(0, 32), toBeHex(dataLength(data), 32), data]);
    const through = (multiSend: string) =>
      liar(world.provider, (method, answer) => {
        const { input } = Object(answer);
        if (method !== "eth_getTransactionByHash" || typeof input !== "string") return answer;
        const exec = INTERFACES.safe.decodeFunctionData("execTransaction", input).toArray();
        const batch = INTERFACES.multiSend.encodeFunctionData("multiSend", [packed]);
        const changed = INTERFACES.safe.encodeFunctionData("execTransaction", [
          multiSend,
          0,
          batch,
          1,
          ...exec.slice(4),
        ]);
        return { ...Object(answer), input: changed };
      });
    await world.changed(
      () => world.take(pause, "execute"),
      async () => {
        const orphans = async (multiSend: string) => {
          const client = await connect(through(multiSend));
          const block = await fetchBlock(client, "latest");
          return (await readGovernance(client, block, world.deployment, stored(pause))).orphans.map(({ name }) => name);
        };
        expect(await orphans(pause.safe.multiSend)).to.deep.equal([]);
        expect(await orphans(addressOf(81))).to.deep.equal(["PauseRelease"]);
      },
    );
  });

  it("a Safe that says again that it was set up hides nothing by it", async () => {
    const { address } = world.deployment.safes.guardian;
    const enable = INTERFACES.safe.encodeFunctionData("enableModule", [addressOf(80)]);
    const again = liar(world.provider, (method, answer, [filter]) => {
      const of = String(Reflect.get(Object(filter), "address")).toLowerCase();
      if (method !== "eth_getLogs" || of !== address.toLowerCase()) return answer;
      const setup = id("SafeSetup(address,address[],uint256,address,address)");
      return (answer as { topics: string[]; logIndex: string }[]).flatMap((log) => [
        log,
        { ...log, topics: [setup, ...log.topics.slice(1)], logIndex: "0x99" },
      ]);
    });
    await world.changed(
      () => world.sendAs(address, address, enable),
      async () => {
        const client = await connect(again);
        const found = await readGovernance(client, await fetchBlock(client, "latest"), world.deployment, stored());
        expect(found.orphans.map(({ name }) => name)).to.deep.equal(["EnabledModule"]);
      },
    );
  });

  it("notes a nonce that is used up", async () => {
    const other = await world.propose({
      id: "003-snp",
      intents: [{ intent: "suspend-tee", arguments: { kind: "snp", reason: "x" } }],
    });
    await world.changed(
      () => world.take(pause, "execute"),
      async () => {
        const found = await status(pause, other);
        expect(found.proposals[1]?.notes.join()).to.include("is used up");
      },
    );
  });

  describe("given signatures in the folder", () => {
    interface Signed {
      readonly step?: StepName;
      readonly nonce?: bigint;
      readonly through?: string;
    }
    /** A signature's file, as that person's machine adds it. */
    function signedBy(
      person: Person,
      { step = "schedule", nonce, through }: Signed = {},
    ): readonly [string, Uint8Array] {
      const planned = planStep(grant, step, { nonce });
      const record = signStep(grant, planned, parseKey(WHO[person].key, person), { through: through ?? null });
      return [signaturePath(record), new TextEncoder().encode(formatSignature(record))];
    }
    async function signed(...files: readonly (readonly [string, Uint8Array])[]) {
      const folder = { operation: grant, files: new Map([...folderOf(grant), ...files]) };
      const block = await fetchBlock(world.client, "latest");
      const found = await readGovernance(world.client, block, world.deployment, new Map([[grant.id, folder]]));
      const [status] = found.proposals;
      if (status === undefined) throw new Error("the proposal has no status");
      return status;
    }
    /** State; who signed what, of how many; notes. */
    const told = async (...files: readonly (readonly [string, Uint8Array])[]) => {
      const { state, signatures, notes } = await signed(...files);
      const count = `${signatures?.step} ${signatures?.nonce}: ${signatures?.signers.length} of ${signatures?.needed}`;
      return { state, count, signers: signatures?.signers, notes };
    };
    const addresses = (...people: readonly Person[]) => people.map((person) => WHO[person].address).sort();
    /** The guardian Safe takes carol's place among the governance Safe's owners. */
    const nest = async () => {
      const { governance, guardian } = world.deployment.safes;
      const { owners } = await fetchSafe(world.client, await fetchBlock(world.client, "latest"), governance.address);
      const at = owners.indexOf(WHO.carol.address);
      const before = at === 0 ? "0x0000000000000000000000000000000000000001" : owners[at - 1];
      const data = INTERFACES.safe.encodeFunctionData("swapOwner", [before, WHO.carol.address, guardian.address]);
      await world.sendAs(governance.address, governance.address, data);
    };

    it("counts each owner once, and says who is missing by number", async () => {
      expect(await told(signedBy("alice"))).to.deep.equal({
        ...{ state: "signed", count: "schedule 0: 1 of 2", signers: addresses("alice"), notes: [] },
      });
      expect(await told(signedBy("alice"), signedBy("alice"), signedBy("bob"), signedBy("carol"))).to.deep.equal({
        ...{ state: "signed", count: "schedule 0: 3 of 2", signers: addresses("alice", "bob", "carol"), notes: [] },
      });
    });

    it("counts nobody who is no owner, no other step's signature, no broken file, and says so", async () => {
      const stranger = await told(signedBy("dave"), signedBy("bob"));
      expect([stranger.count, stranger.signers]).to.deep.equal(["schedule 0: 1 of 2", addresses("bob")]);
      expect(stranger.notes.join()).to.include(`${WHO.dave.address} signed and is no owner`);
      const other = await told(signedBy("alice", { step: "execute" }));
      expect([other.state, other.count]).to.deep.equal(["drafted", "schedule 0: 0 of 2"]);
      const [path, bytes] = signedBy("alice");
      const broken = await told([path, bytes.map((byte, i) => (i === bytes.length - 10 ? byte ^ 1 : byte))]);
      expect([broken.state, broken.count, broken.notes.length]).to.deep.equal(["drafted", "schedule 0: 0 of 2", 1]);
    });

    it("goes on to the next step's, and takes those for the nonce that the Safe has come to", async () => {
      const away = async () => {
        await world.take(grant, "schedule");
        await setSlot(world.chain, grant.safe.address, BigInt(NONCE_SLOT), toBeHex(5n, 32));
      };
      await world.changed(away, async () => {
        const planned = await told(signedBy("alice"), signedBy("bob", { step: "execute" }));
        expect([planned.state, planned.count]).to.deep.equal(["scheduled", "execute 1: 1 of 2"]);
        expect(planned.notes.join()).to.include("sign again with --nonce 5");
        const again = [
          signedBy("bob", { step: "execute" }),
          ...(["alice", "carol"] as const).map((person) => signedBy(person, { step: "execute", nonce: 5n })),
        ];
        expect(await told(...again)).to.deep.equal({
          ...{ state: "scheduled", count: "execute 5: 2 of 2", signers: addresses("alice", "carol"), notes: [] },
        });
      });
    });

    it("counts an owner that is a Safe once enough of its own owners signed, and until then says how many did", async () => {
      const through = world.deployment.safes.guardian.address;
      await world.changed(nest, async () => {
        const one = await told(signedBy("alice"), signedBy("dave", { through }));
        expect([one.count, one.notes]).to.deep.equal([
          "schedule 0: 1 of 2",
          [`1 of 2 signed for owner ${through}, itself a Safe`],
        ]);
        const both = await told(...(["dave", "erin"] as const).map((person) => signedBy(person, { through })));
        expect([both.count, both.signers, both.notes]).to.deep.equal(["schedule 0: 1 of 2", [through], []]);
        // whoever signs in its name without being its owner does not count for it
        const posing = await told(...(["dave", "bob"] as const).map((person) => signedBy(person, { through })));
        expect([posing.count, posing.notes]).to.deep.equal([
          "schedule 0: 0 of 2",
          [`1 of 2 signed for owner ${through}, itself a Safe`],
        ]);
        const whole = await told(
          signedBy("bob"),
          ...(["dave", "erin"] as const).map((person) => signedBy(person, { through })),
        );
        expect([whole.count, whole.signers]).to.deep.equal(["schedule 0: 2 of 2", [through, WHO.bob.address].sort()]);
        // she was an owner when she signed
        expect((await told(signedBy("carol"))).notes.join()).to.include(`${WHO.carol.address} signed and is no owner`);
      });
    });

    it("does not fall over a signature in the name of an owner that is no Safe", async () => {
      const through = WHO.bob.address;
      const found = await told(signedBy("alice"), signedBy("dave", { through }));
      expect([found.count, found.signers]).to.deep.equal(["schedule 0: 1 of 2", addresses("alice")]);
      expect(found.notes.join()).to.include(through);
    });
  });

  describe("given an endpoint that leaves logs out", () => {
    const without = (contract: string) =>
      liar(world.provider, (method, answer, [filter]) => {
        const address = String(Reflect.get(Object(filter), "address")).toLowerCase();
        return method === "eth_getLogs" && address === contract.toLowerCase() ? [] : answer;
      });
    it("it refuses where the policy's history does not end in its head", async () => {
      await world.changed(
        () => world.take(pause, "execute"),
        async () => {
          const client = await connect(without(world.contracts.policy));
          const block = await fetchBlock(client, "latest");
          await refusal(readGovernance(client, block, world.deployment, stored(pause)), "chain/incomplete-logs");
        },
      );
    });
    it("it refuses where the calls of a waiting operation are others than its id is the hash of", async () => {
      await world.changed(
        () => world.take(grant, "schedule"),
        async () => {
          const edited = liar(world.provider, (method, answer, [filter]) => {
            const address = String(Reflect.get(Object(filter), "address")).toLowerCase();
            if (method !== "eth_getLogs" || address !== world.contracts.timelock.toLowerCase()) return answer;
            return (answer as { topics: string[]; data: string }[]).map((log) =>
              log.topics[0] === id("CallScheduled(bytes32,uint256,address,uint256,bytes,bytes32,uint256)")
                ? { ...log, data: log.data.replace(/^0x(.{24})(.{40})/, `0x$1${"ab".repeat(20)}`) }
                : log,
            );
          });
          const client = await connect(edited);
          const block = await fetchBlock(client, "latest");
          const error = await refusal(
            readGovernance(client, block, world.deployment, stored(grant)),
            "chain/incomplete-logs",
          );
          expect(error.message).to.contain("do not hash to its id");
        },
      );
    });
    it("it refuses where the timelock knows an operation that no log tells of", async () => {
      await world.changed(
        () => world.take(grant, "schedule"),
        async () => {
          const cancelled = liar(world.provider, (method, answer, [filter]) => {
            const address = String(Reflect.get(Object(filter), "address")).toLowerCase();
            if (method !== "eth_getLogs" || address !== world.contracts.timelock.toLowerCase()) return answer;
            return (answer as { topics: string[] }[]).filter(
              ({ topics }) => topics[0] !== id("CallScheduled(bytes32,uint256,address,uint256,bytes,bytes32,uint256)"),
            );
          });
          const client = await connect(cancelled);
          const block = await fetchBlock(client, "latest");
          await refusal(readGovernance(client, block, world.deployment, stored(grant)), "chain/incomplete-logs");
        },
      );
    });
  });

  it("an operation of its own that was never proposed is pending without a proposal, to be vetoed", async () => {
    await world.changed(
      async () => {
        await world.take(grant, "schedule");
      },
      async () => {
        const found = await status();
        expect(found.operations.map(({ proposal, phase }) => [proposal, phase])).to.deep.equal([[null, "waiting"]]);
        expect(found.ok).to.equal(false);
      },
    );
  });
});
