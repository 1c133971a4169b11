import { expect } from "chai";
import { id, ZeroAddress, ZeroHash } from "ethers";
import { dismissalOf } from "../../src/chain/dismissal.ts";
import { connection } from "../helpers/connection.ts";
import { DECISION } from "../helpers/decisions.ts";
import { imageId, KIND, PLATFORM } from "../helpers/images.ts";
import { bytes32, DEVICE, now } from "../helpers/registry.ts";
import { DAY, TCB } from "../helpers/suite.ts";
import { DELAY, dismissal, ROLE, type TimelockCall, type TimelockWorld, timelockWorld } from "../helpers/timelock.ts";

const { networkHelpers } = connection;
const MAX_PAUSE = 14 * DAY;

/** What a machine that nothing is wrong with is told. */
const answer = ({ policy }: TimelockWorld) => policy.decide(KIND.tdx, imageId(PLATFORM.tdx), DEVICE.one, TCB.upToDate);

/** Pauses, unless a pause is in force. */
async function pauseAgain({ policy, guardian }: TimelockWorld): Promise<boolean> {
  if (!(await policy.hasRole(ROLE.guardian, guardian.address))) return false;
  if ((await policy.releasePausedUntil()) > (await now())) return false;
  await policy.connect(guardian).pauseRelease(MAX_PAUSE, "");
  return true;
}

/** The same numbers in every run. */
function seeded(seed: string): (bound: number) => number {
  let state = id(seed);
  return (bound) => {
    state = id(state);
    return Number(BigInt(state) % BigInt(bound));
  };
}

/** Cancels an operation if the timelock lets it. */
const cancels = ({ timelock, guardian }: TimelockWorld, operation: string): Promise<boolean> =>
  timelock
    .connect(guardian)
    .cancel(operation)
    .then(
      () => true,
      () => false,
    );

describe("attack: a rogue guardian pauses without end and cancels its own removal", () => {
  it("in 364 days of it, the first dismissal succeeds, and nothing is paused from the seventeenth day on", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { policy, guardian, execute, schedule } = world;
    const batch = { calls: dismissal(world, guardian.address), salt: bytes32("first") };
    const operation = await schedule(batch, 2 * DELAY);
    const start = await now(); // of the block that scheduled it: on a busy machine some seconds are gone by then
    let [pauses, cancelled, dismissedOn, openSince] = [0, 0, -1, -1];
    for (let day = 0; day < 364; day++) {
      if (await pauseAgain(world)) pauses++;
      if (await cancels(world, operation)) cancelled++;
      if (day === 4) {
        await execute(batch);
        dismissedOn = day;
      }
      const open = (await answer(world)) === DECISION.Allowed;
      if (!open) openSince = -1;
      else if (openSince === -1) openSince = day;
      await networkHelpers.time.increaseTo(start + (day + 1) * DAY);
    }
    expect({ cancelled, dismissedOn, pauses }).to.deep.equal({ cancelled: 0, dismissedOn: 4, pauses: 1 });
    expect(openSince, "the day from which on every answer is Allowed").to.be.lessThan(17);
    expect(await policy.hasRole(ROLE.guardian, guardian.address)).to.equal(false);
  });

  it("even where its last pause begins in the last second, releases go on two delays later", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { policy, guardian, enact, execute, schedule, at } = world;
    const batch = { calls: dismissal(world, guardian.address) };
    await schedule(batch, 2 * DELAY);
    await networkHelpers.time.increase(2 * DELAY - 2);
    expect(await pauseAgain(world)).to.equal(true);
    await execute(batch);
    expect(await answer(world)).to.equal(DECISION.ReleasePaused);
    await enact({ calls: [{ to: at.policy, data: policy.interface.encodeFunctionData("resumeRelease") }] });
    expect(await answer(world)).to.equal(DECISION.Allowed);
    await expect(policy.connect(guardian).pauseRelease(1, "")).to.be.revertedWithCustomError(
      policy,
      "Governed_NeitherGuardianNorGovernor",
    );
  });

  it("what else it took away comes back once it is dismissed, and it cannot take it again", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { policy, guardian, enact, at } = world;
    const { interface: abi } = policy;
    const undo = [
      abi.encodeFunctionData("enableTee", [KIND.tdx]),
      abi.encodeFunctionData("acceptTcb", [KIND.tdx, 1 << TCB.upToDate]),
      abi.encodeFunctionData("allowPlatform", [PLATFORM.tdx, ""]),
    ];
    const hand = policy.connect(guardian);
    await hand.suspendTee(KIND.tdx, "");
    await hand.rejectTcb(KIND.tdx, 1 << TCB.upToDate);
    await hand.revokePlatform(imageId(PLATFORM.tdx), "");
    await enact({ calls: dismissal(world, guardian.address) }, 2 * DELAY);
    await enact({ calls: undo.map((data) => ({ to: at.policy, data })) });
    expect(await answer(world)).to.equal(DECISION.Allowed);
    for (const again of [() => hand.suspendTee(KIND.tdx, ""), () => hand.revokePlatform(imageId(PLATFORM.tdx), "")]) {
      await expect(again()).to.be.revertedWithCustomError(policy, "Governed_NeitherGuardianNorGovernor");
    }
  });

  it("as the last canceller it cannot hold its office either: a successor takes it", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { timelock, governance, guardian, successor, schedule, execute } = world;
    await timelock.connect(governance).renounceRole(ROLE.canceller, governance.address);
    const batch = { calls: dismissal(world, guardian.address, successor.address) };
    const operation = await schedule(batch, 2 * DELAY);
    await networkHelpers.time.increase(2 * DELAY);
    expect(await cancels(world, operation)).to.equal(false);
    await execute(batch);
    expect(await timelock.hasRole(ROLE.canceller, guardian.address)).to.equal(false);
    expect(await timelock.hasRole(ROLE.canceller, successor.address)).to.equal(true);
  });

  it("an accomplice with the same office cannot cancel the dismissal for it", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { timelock, guardian, successor, grant, at, enact, schedule } = world;
    await enact({ calls: [grant(at.timelock, ROLE.canceller, successor.address)] });
    const operation = await schedule({ calls: dismissal(world, guardian.address) }, 2 * DELAY);
    for (const hand of [guardian, successor]) {
      await expect(timelock.connect(hand).cancel(operation))
        .to.be.revertedWithCustomError(timelock, "GovernanceTimelock_CannotCancelDismissal")
        .withArgs(operation, hand.address);
    }
  });

  it("even as a proposer it cannot cancel its own dismissal", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { guardian, grant, at, enact, schedule } = world;
    await enact({ calls: [grant(at.timelock, ROLE.proposer, guardian.address)] });
    const operation = await schedule({ calls: dismissal(world, guardian.address) }, 2 * DELAY);
    expect(await cancels(world, operation)).to.equal(false);
  });
});

/** What the tools say of the same calls. */
const told = ({ at }: TimelockWorld, calls: readonly TimelockCall[], predecessor: string = ZeroHash) =>
  dismissalOf(
    calls.map(({ to, value = 0n, data }) => ({ to, value, data })),
    predecessor,
    at.timelock,
  );

describe("attack: a stolen governance Safe dresses up as a dismissal what the guardian should cancel", () => {
  const dressed: Readonly<Record<string, (world: TimelockWorld) => ReturnType<typeof dismissal>>> = {
    "an upgrade behind it": (world) => [
      ...dismissal(world, world.guardian.address),
      { to: world.at.policy, data: world.policy.interface.encodeFunctionData("upgradeTo", [world.eve.address]) },
    ],
    "an upgrade before it": (world) => [
      { to: world.at.policy, data: world.policy.interface.encodeFunctionData("upgradeTo", [world.eve.address]) },
      ...dismissal(world, world.guardian.address),
    ],
    "a governor of its own": (world) => [
      world.grant(world.at.policy, ROLE.governor, world.successor.address),
      ...dismissal(world, world.guardian.address),
    ],
    "a proposer of its own": (world) => [
      world.grant(world.at.timelock, ROLE.proposer, world.successor.address),
      world.revoke(world.at.timelock, ROLE.canceller, world.guardian.address),
    ],
    "an end of the pause": (world) => [
      ...dismissal(world, world.guardian.address),
      { to: world.at.policy, data: world.policy.interface.encodeFunctionData("resumeRelease") },
    ],
    ether: (world) => [{ ...world.revoke(world.at.policy, ROLE.guardian, world.guardian.address), value: 1n }],
    "calldata that goes on": (world) => {
      const { to, data } = world.revoke(world.at.policy, ROLE.guardian, world.guardian.address);
      return [{ to, data: `${data}00` }];
    },
    "an address with dirt above it": (world) => {
      const { to, data } = world.revoke(world.at.policy, ROLE.guardian, world.guardian.address);
      return [{ to, data: data.replace(/0{24}(?=[0-9a-f]{40}$)/, `01${"00".repeat(11)}`) }];
    },
    "the offices of two accounts": (world) => [
      world.revoke(world.at.policy, ROLE.guardian, world.guardian.address),
      world.revoke(world.at.timelock, ROLE.canceller, world.successor.address),
    ],
    "two incoming guardians": (world) => [
      world.grant(world.at.policy, ROLE.guardian, world.successor.address),
      world.revoke(world.at.policy, ROLE.guardian, world.guardian.address),
      world.grant(world.at.timelock, ROLE.canceller, world.governance.address),
      world.revoke(world.at.timelock, ROLE.canceller, world.guardian.address),
    ],
    "an office for another that is not taken": (world) => [
      world.grant(world.at.policy, ROLE.guardian, world.successor.address),
      world.revoke(world.at.timelock, ROLE.canceller, world.guardian.address),
    ],
    "two grants in a row": (world) => [
      world.grant(world.at.policy, ROLE.guardian, world.successor.address),
      world.grant(world.at.policy, ROLE.guardian, world.successor.address),
      world.revoke(world.at.policy, ROLE.guardian, world.guardian.address),
    ],
    "a grant at the end": (world) => [
      world.revoke(world.at.policy, ROLE.guardian, world.guardian.address),
      world.grant(world.at.policy, ROLE.guardian, world.successor.address),
    ],
    "nothing but a grant": (world) => [world.grant(world.at.policy, ROLE.guardian, world.successor.address)],
    "the same account coming and going": (world) => [
      world.grant(world.at.policy, ROLE.guardian, world.guardian.address),
      world.revoke(world.at.policy, ROLE.guardian, world.guardian.address),
    ],
    "the proposer's office": (world) => [world.revoke(world.at.timelock, ROLE.proposer, world.governance.address)],
    "the executor's office": (world) => [world.revoke(world.at.timelock, ROLE.executor, world.governance.address)],
    "the governor's office": (world) => [world.revoke(world.at.policy, ROLE.governor, world.at.timelock)],
    "the canceller's role at another contract": (world) => [
      world.revoke(world.at.policy, ROLE.canceller, world.guardian.address),
    ],
    "the guardian's role at the timelock": (world) => [
      world.revoke(world.at.timelock, ROLE.guardian, world.guardian.address),
    ],
    "renouncing in place of revoking": (world) => [
      {
        to: world.at.policy,
        data: world.policy.interface.encodeFunctionData("renounceRole", [ROLE.guardian, world.guardian.address]),
      },
    ],
  };

  for (const [what, calls] of Object.entries(dressed)) {
    it(`with ${what}, it waits one delay, and the guardian cancels it`, async () => {
      const world = await networkHelpers.loadFixture(timelockWorld);
      const operation = await world.schedule({ calls: calls(world) });
      expect(await world.timelock.dismisses(operation)).to.equal(ZeroAddress);
      expect(told(world, calls(world)), "what the tools say").to.equal(undefined);
      expect(await cancels(world, operation)).to.equal(true);
    });
  }

  it("with a predecessor, it is no dismissal: who cancels that would hold it up", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const predecessor = bytes32("another operation");
    const operation = await world.schedule({ calls: dismissal(world, world.guardian.address), predecessor });
    expect(await cancels(world, operation)).to.equal(true);
  });

  it("scheduled as a single call, it is told apart just as well", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { timelock, governance, guardian, grant, revoke, at } = world;
    const hand = timelock.connect(governance);
    const cases = [
      [revoke(at.policy, ROLE.guardian, guardian.address), ZeroHash, guardian.address],
      [revoke(at.timelock, ROLE.canceller, guardian.address), ZeroHash, guardian.address],
      [revoke(at.policy, ROLE.guardian, guardian.address), bytes32("another"), ZeroAddress],
      [grant(at.policy, ROLE.guardian, guardian.address), ZeroHash, ZeroAddress],
      [revoke(at.policy, ROLE.governor, guardian.address), ZeroHash, ZeroAddress],
    ] as const;
    for (const [index, [{ to, data }, predecessor, account]] of cases.entries()) {
      const salt = bytes32(String(index));
      await hand.schedule(to, 0, data, predecessor, salt, 2 * DELAY);
      const operation = await timelock.hashOperation(to, 0, data, predecessor, salt);
      expect(await timelock.dismisses(operation), `case ${index}`).to.equal(account);
      expect(await cancels(world, operation), `case ${index}`).to.equal(account === ZeroAddress);
    }
  });

  it("a dismissal waits two delays, those in force when it is scheduled", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { timelock, guardian, schedule, enact, at } = world;
    const batch = { calls: dismissal(world, guardian.address) };
    await expect(schedule(batch, 2 * DELAY - 1))
      .to.be.revertedWithCustomError(timelock, "TimelockInsufficientDelay")
      .withArgs(2 * DELAY - 1, 2 * DELAY);
    const raise = { to: at.timelock, data: timelock.interface.encodeFunctionData("updateDelay", [3 * DAY]) };
    await enact({ calls: [raise] });
    await expect(schedule(batch, 2 * DELAY))
      .to.be.revertedWithCustomError(timelock, "TimelockInsufficientDelay")
      .withArgs(2 * DELAY, 6 * DAY);
  });

  it("whoever is dismissed keeps the veto over everything else until then", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { guardian, schedule, execute, policy, at } = world;
    const batch = { calls: dismissal(world, guardian.address) };
    await schedule(batch, 2 * DELAY);
    await networkHelpers.time.increase(DELAY);
    const hostile = await schedule({
      calls: [{ to: at.policy, data: policy.interface.encodeFunctionData("enableTee", [KIND.snp]) }],
    });
    expect(await cancels(world, hostile)).to.equal(true);
    await networkHelpers.time.increase(DELAY);
    await execute(batch);
    expect(await policy.hasRole(ROLE.guardian, guardian.address)).to.equal(false);
  });
});

describe("a dismissal", () => {
  it("is what the tools call one, for any batch of calls like it", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { timelock, grant, revoke, at, guardian, successor, schedule, idOf } = world;
    const pool = [at.policy, at.timelock, at.registry].flatMap((to) =>
      [ROLE.guardian, ROLE.canceller].flatMap((role) =>
        [guardian.address, successor.address].flatMap((account) => [
          grant(to, role, account),
          revoke(to, role, account),
          revoke(to, role, account),
        ]),
      ),
    );
    const draw = seeded("dismissals");
    let dismissals = 0;
    for (let round = 0; round < 400; round++) {
      // mostly what is nearly one: offices that exist, of few accounts
      const near = pool.filter((_, index) => round % 4 === 0 || [1, 2].includes(Math.floor(index / 6)) === false);
      const calls = Array.from({ length: 1 + draw(4) }, () => near[draw(near.length)] ?? revoke(at.policy, "0x", "0x"));
      const salt = bytes32(`round ${round}`);
      await schedule({ calls, salt }, 2 * DELAY);
      const found = told(world, calls);
      if (found !== undefined) dismissals++;
      const operation = await idOf({ calls, salt });
      expect(await timelock.dismisses(operation), JSON.stringify(calls)).to.equal(found?.outgoing ?? ZeroAddress);
    }
    expect(dismissals, "how many of them were one").to.be.greaterThan(20);
  });

  it("names who goes and who comes", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { guardian, successor } = world;
    expect(told(world, dismissal(world, guardian.address))).to.deep.equal({
      ...{ outgoing: guardian.address, incoming: undefined },
    });
    expect(told(world, dismissal(world, guardian.address, successor.address))).to.deep.equal({
      ...{ outgoing: guardian.address, incoming: successor.address },
    });
    expect(told(world, dismissal(world, guardian.address), bytes32("another"))).to.equal(undefined);
  });

  it("is cancelled by the proposer, can be scheduled again, and is one still", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { timelock, governance, guardian, schedule } = world;
    const batch = { calls: dismissal(world, guardian.address) };
    const operation = await schedule(batch, 2 * DELAY);
    await expect(timelock.connect(governance).cancel(operation)).to.emit(timelock, "Cancelled").withArgs(operation);
    expect(await schedule(batch, 2 * DELAY)).to.equal(operation);
    expect(await cancels(world, operation)).to.equal(false);
  });

  it("given a successor, replaces the guardian without a moment in which there is none", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { timelock, policy, guardian, successor, enact } = world;
    await enact({ calls: dismissal(world, guardian.address, successor.address) }, 2 * DELAY);
    const held = async (account: string) => [
      await policy.hasRole(ROLE.guardian, account),
      await timelock.hasRole(ROLE.canceller, account),
    ];
    expect([await held(guardian.address), await held(successor.address)]).to.deep.equal([
      [false, false],
      [true, true],
    ]);
  });

  it("takes the guardian's role at the registry too, where it was given one", async () => {
    const world = await networkHelpers.loadFixture(timelockWorld);
    const { registry, guardian, grant, revoke, at, enact, schedule } = world;
    await enact({ calls: [grant(at.registry, ROLE.guardian, guardian.address)] });
    const calls = [...dismissal(world, guardian.address), revoke(at.registry, ROLE.guardian, guardian.address)];
    const operation = await schedule({ calls }, 2 * DELAY);
    expect(await cancels(world, operation)).to.equal(false);
    await networkHelpers.time.increase(2 * DELAY);
    await world.execute({ calls });
    expect(await registry.hasRole(ROLE.guardian, guardian.address)).to.equal(false);
  });
});
