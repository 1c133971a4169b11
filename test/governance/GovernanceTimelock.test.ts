import { expect } from "chai";
import { id, ZeroAddress } from "ethers";
import hre from "hardhat";
import type { Connection } from "../../deploy/connection.ts";
import { extractRevertData } from "../../deploy/safe/account.ts";
import { connection as shared } from "../helpers/connection.ts";
import { DAY } from "../helpers/suite.ts";
import { GRACE, ROLE, type TimelockWorld, timelockWorld, DELAY as WORLD_DELAY } from "../helpers/timelock.ts";

const { loadFixture } = shared.networkHelpers;

const DELAY = 3_600;
const SAFE = "0x5555555555555555555555555555555555555555";
const GUARDIAN = "0x6666666666666666666666666666666666666666";
const EOA = "0x7777777777777777777777777777777777777777";
const DELEGATED = "0x8888888888888888888888888888888888888888";

describe("GovernanceTimelock", () => {
  let connection: Connection;
  before(async () => {
    connection = await hre.network.create({ network: "default" });
    const setCode = (address: string, code: string) =>
      connection.provider.request({ method: "hardhat_setCode", params: [address, code] });
    await setCode(SAFE, "0x00");
    await setCode(GUARDIAN, "0x00");
    await setCode(DELEGATED, `0xef0100${SAFE.slice(2)}`);
  });
  after(() => connection.close());

  const deploy = (governance: string, guardian: string, delay = DELAY) =>
    connection.ethers.deployContract("GovernanceTimelock", [delay, governance, guardian]);

  /** The custom error and its first argument with which `attempt` is refused. */
  async function refusedWith(attempt: Promise<unknown>): Promise<[string | undefined, unknown]> {
    try {
      await attempt;
    } catch (error) {
      const { interface: abi } = await connection.ethers.getContractFactory("GovernanceTimelock");
      const parsed = abi.parseError(extractRevertData(error) ?? "0x");
      return [parsed?.name, parsed?.args[0]];
    }
    throw new Error("accepted");
  }

  it("has all its roles when the constructor returns, and no admin but itself", async () => {
    const timelock = await deploy(SAFE, GUARDIAN);
    const self = await timelock.getAddress();
    const [deployer] = await connection.ethers.getSigners();
    const holds = async (role: string, account: string) => timelock.getFunction("hasRole")(role, account);
    const accounts = [SAFE, GUARDIAN, self, deployer?.address ?? "", ZeroAddress];
    const admin = `0x${"00".repeat(32)}`;
    for (const [role, holders] of [
      [id("PROPOSER_ROLE"), [SAFE]],
      [id("EXECUTOR_ROLE"), [SAFE]],
      [id("CANCELLER_ROLE"), [SAFE, GUARDIAN]],
      [admin, [self]],
    ] as const) {
      for (const account of accounts) expect(await holds(role, account)).to.equal(holders.some((h) => h === account));
    }
    expect(await timelock.getFunction("getMinDelay")()).to.equal(BigInt(DELAY));
  });

  it("refuses an EOA, a delegated EOA and nobody, in either office", async () => {
    for (const account of [EOA, DELEGATED, ZeroAddress]) {
      const expected = ["GovernanceTimelock_NotAContract", account];
      expect(await refusedWith(deploy(account, GUARDIAN))).to.deep.equal(expected);
      expect(await refusedWith(deploy(SAFE, account))).to.deep.equal(expected);
    }
  });

  it("refuses them later too, when it administers itself", async () => {
    const timelock = await deploy(SAFE, GUARDIAN);
    const self = await timelock.getAddress();
    const grant = (role: string, account: string) => {
      const data = timelock.interface.encodeFunctionData("grantRole", [id(role), account]);
      return connection.ethers.provider.call({ from: self, to: self, data });
    };
    for (const account of [EOA, DELEGATED, ZeroAddress]) {
      for (const role of ["PROPOSER_ROLE", "EXECUTOR_ROLE", "CANCELLER_ROLE"]) {
        expect(await refusedWith(grant(role, account))).to.deep.equal(["GovernanceTimelock_NotAContract", account]);
      }
    }
    expect(await grant("PROPOSER_ROLE", GUARDIAN)).to.equal("0x");
  });

  it("refuses one account in both offices", async () => {
    expect(await refusedWith(deploy(SAFE, SAFE))).to.deep.equal(["GovernanceTimelock_SameAccount", SAFE]);
  });

  it("takes a delay from an hour to thirty days, which is its floor for good", async () => {
    for (const delay of [0, 3_599, 30 * DAY + 1]) {
      expect(await refusedWith(deploy(SAFE, GUARDIAN, delay))).to.deep.equal([
        "GovernanceTimelock_DelayOutOfBounds",
        BigInt(delay),
      ]);
    }
    for (const delay of [3_600, 30 * DAY]) {
      const timelock = await deploy(SAFE, GUARDIAN, delay);
      expect(await timelock.getFunction("getMinDelay")()).to.equal(BigInt(delay));
      expect(await timelock.getFunction("delayFloor")()).to.equal(BigInt(delay));
    }
  });
});

describe("GovernanceTimelock: the delay", () => {
  const update = async ({ timelock, at }: TimelockWorld, delay: number | bigint) => ({
    to: at.timelock,
    data: timelock.interface.encodeFunctionData("updateDelay", [delay]),
  });

  it("can be raised, and lowered again to the deployment's own, and no further", async () => {
    const world = await loadFixture(timelockWorld);
    const { timelock, enact } = world;
    await enact({ calls: [await update(world, 30 * DAY)] });
    expect(await timelock.getMinDelay()).to.equal(30 * DAY);
    await enact({ calls: [await update(world, WORLD_DELAY)] }, 30 * DAY);
    expect(await timelock.getMinDelay()).to.equal(WORLD_DELAY);
    for (const delay of [0, WORLD_DELAY - 1, 30 * DAY + 1, 2n ** 256n - 1n]) {
      await expect(enact({ calls: [await update(world, delay)] }))
        .to.be.revertedWithCustomError(timelock, "GovernanceTimelock_DelayOutOfBounds")
        .withArgs(delay, WORLD_DELAY, 30 * DAY);
    }
  });

  it("is changed by the timelock alone", async () => {
    const { timelock, governance, guardian, eve } = await loadFixture(timelockWorld);
    for (const hand of [governance, guardian, eve]) {
      await expect(timelock.connect(hand).updateDelay(WORLD_DELAY))
        .to.be.revertedWithCustomError(timelock, "TimelockUnauthorizedCaller")
        .withArgs(hand.address);
    }
  });
});

describe("GovernanceTimelock: the grace period", () => {
  const STATE = { unset: 0n, waiting: 1n, ready: 2n, done: 3n };

  async function load() {
    const world = await loadFixture(timelockWorld);
    const { policy, at, timelock, schedule } = world;
    const batch = { calls: [{ to: at.policy, data: policy.interface.encodeFunctionData("enableTee", [2]) }] };
    const operation = await schedule(batch);
    const readyAt = Number(await timelock.getTimestamp(operation));
    return { ...world, batch, operation, readyAt };
  }
  const { time } = shared.networkHelpers;

  it("lasts fourteen days, to the second", async () => {
    const { timelock, operation, readyAt, execute, batch } = await load();
    expect(await timelock.GRACE_PERIOD()).to.equal(GRACE);
    await time.increaseTo(readyAt - 1);
    expect(await timelock.getOperationState(operation)).to.equal(STATE.waiting);
    await time.increaseTo(readyAt);
    expect(await timelock.getOperationState(operation)).to.equal(STATE.ready);
    await time.increaseTo(readyAt + GRACE - 2);
    expect(await timelock.getOperationState(operation)).to.equal(STATE.ready);
    await time.setNextBlockTimestamp(readyAt + GRACE - 1);
    await execute(batch);
    expect(await timelock.getOperationState(operation)).to.equal(STATE.done);
    await time.increase(GRACE);
    expect(await timelock.getOperationState(operation)).to.equal(STATE.done);
  });

  it("once over, the operation can neither be executed nor cancelled", async () => {
    const { timelock, governance, operation, readyAt, execute, batch } = await load();
    await time.increaseTo(readyAt + GRACE);
    await expect(execute(batch)).to.be.revertedWithCustomError(timelock, "TimelockUnexpectedOperationState");
    await expect(timelock.connect(governance).cancel(operation)).to.be.revertedWithCustomError(
      timelock,
      "TimelockUnexpectedOperationState",
    );
    expect([
      await timelock.getOperationState(operation),
      await timelock.isOperation(operation),
      await timelock.getTimestamp(operation),
    ]).to.deep.equal([STATE.unset, false, BigInt(readyAt)]);
  });

  it("once over, the operation can be scheduled again, and waits again", async () => {
    const { timelock, operation, readyAt, schedule, execute, batch } = await load();
    await expect(schedule(batch)).to.be.revertedWithCustomError(timelock, "TimelockUnexpectedOperationState");
    await time.increaseTo(readyAt + GRACE);
    expect(await schedule(batch)).to.equal(operation);
    await expect(execute(batch)).to.be.revertedWithCustomError(timelock, "TimelockUnexpectedOperationState");
    await time.increase(WORLD_DELAY);
    await execute(batch);
    expect(await timelock.getOperationState(operation)).to.equal(STATE.done);
  });

  it("an operation that expired is no predecessor", async () => {
    const { timelock, operation, readyAt, enact, at, revoke, eve } = await load();
    await time.increaseTo(readyAt + GRACE);
    const next = { calls: [revoke(at.policy, ROLE.governor, eve.address)], predecessor: operation };
    await expect(enact(next)).to.be.revertedWithCustomError(timelock, "TimelockUnexecutedPredecessor");
  });
});

describe("GovernanceTimelock: holders", () => {
  it("the last of a role can neither renounce nor be revoked", async () => {
    const { timelock, governance, guardian, at, revoke, enact } = await loadFixture(timelockWorld);
    for (const role of [ROLE.proposer, ROLE.executor]) {
      await expect(timelock.connect(governance).renounceRole(role, governance.address))
        .to.be.revertedWithCustomError(timelock, "GovernanceTimelock_LastHolder")
        .withArgs(role, governance.address);
      await expect(enact({ calls: [revoke(at.timelock, role, governance.address)] }))
        .to.be.revertedWithCustomError(timelock, "GovernanceTimelock_LastHolder")
        .withArgs(role, governance.address);
    }
    await timelock.connect(guardian).renounceRole(ROLE.canceller, guardian.address);
    await expect(timelock.connect(governance).renounceRole(ROLE.canceller, governance.address))
      .to.be.revertedWithCustomError(timelock, "GovernanceTimelock_LastHolder")
      .withArgs(ROLE.canceller, governance.address);
  });

  it("one that was granted a role twice counts once, and one that holds none counts not at all", async () => {
    const { timelock, governance, guardian, eve, at, grant, revoke, enact } = await loadFixture(timelockWorld);
    await enact({ calls: [grant(at.timelock, ROLE.proposer, governance.address)] });
    await enact({ calls: [revoke(at.timelock, ROLE.proposer, guardian.address)] });
    await timelock.connect(eve).renounceRole(ROLE.proposer, eve.address);
    await expect(
      timelock.connect(governance).renounceRole(ROLE.proposer, governance.address),
    ).to.be.revertedWithCustomError(timelock, "GovernanceTimelock_LastHolder");
  });

  it("the governance Safe hands over in one operation", async () => {
    const { timelock, governance, successor, at, grant, revoke, enact } = await loadFixture(timelockWorld);
    const roles = [ROLE.proposer, ROLE.executor, ROLE.canceller];
    const calls = roles.flatMap((role) => [
      grant(at.timelock, role, successor.address),
      revoke(at.timelock, role, governance.address),
    ]);
    await enact({ calls });
    for (const role of roles) {
      expect(await timelock.hasRole(role, successor.address)).to.equal(true);
      expect(await timelock.hasRole(role, governance.address)).to.equal(false);
    }
  });

  it("the timelock is its own admin, alone and for good", async () => {
    const { timelock, governance, at, grant, revoke, enact } = await loadFixture(timelockWorld);
    await expect(enact({ calls: [grant(at.timelock, ROLE.admin, governance.address)] }))
      .to.be.revertedWithCustomError(timelock, "GovernanceTimelock_AdminIsFixed")
      .withArgs(governance.address);
    const renounce = timelock.interface.encodeFunctionData("renounceRole", [ROLE.admin, at.timelock]);
    for (const leave of [revoke(at.timelock, ROLE.admin, at.timelock), { to: at.timelock, data: renounce }]) {
      await expect(enact({ calls: [leave] }))
        .to.be.revertedWithCustomError(timelock, "GovernanceTimelock_LastHolder")
        .withArgs(ROLE.admin, at.timelock);
    }
    expect(await timelock.hasRole(ROLE.admin, at.timelock)).to.equal(true);
  });
});
