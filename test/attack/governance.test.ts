import { expect } from "chai";
import { ZeroHash } from "ethers";
import { connection } from "../helpers/connection.ts";
import { image, imageId, KIND, measured } from "../helpers/images.ts";
import { bytes32 } from "../helpers/registry.ts";
import { DAY, deploy, deploySuite } from "../helpers/suite.ts";
import { DELAY, ROLE, timelockWorld } from "../helpers/timelock.ts";

const { networkHelpers, ethers } = connection;
const ALLOWED = 1n;
const REVOKED = 2n;

const suite = () => deploySuite(connection);

describe("attack: on who governs", () => {
  it("the governance Safe cannot renounce what governs: somebody can still propose, execute and cancel", async () => {
    const { timelock, policy, governance, at, enact } = await networkHelpers.loadFixture(timelockWorld);
    for (const role of [ROLE.proposer, ROLE.executor]) {
      await expect(timelock.connect(governance).renounceRole(role, governance.address)).to.be.revertedWithCustomError(
        timelock,
        "GovernanceTimelock_LastHolder",
      );
    }
    await enact({ calls: [{ to: at.policy, data: policy.interface.encodeFunctionData("enableTee", [KIND.snp]) }] });
    expect((await policy.teeRules(KIND.snp)).enabled).to.equal(true);
  });

  it("a second copy that was stocked for later cannot undo a revocation: it expires, and waits again", async () => {
    const { timelock, policy, governance, guardian, at, schedule, execute, enact } =
      await networkHelpers.loadFixture(timelockWorld);
    const platform = image(KIND.tdx, { 0: measured("another mrtd") });
    const calls = [{ to: at.policy, data: policy.interface.encodeFunctionData("allowPlatform", [platform, ""]) }];
    const [one, two] = [bytes32("one"), bytes32("two")].map((salt) => ({ calls, salt }));
    if (!one || !two) throw new Error("two copies");
    await schedule(two);
    await enact(one);
    expect((await policy.platform(imageId(platform))).state).to.equal(ALLOWED);
    await networkHelpers.time.increase(3 * 365 * DAY);
    await policy.connect(guardian).revokePlatform(imageId(platform), "broken firmware");
    await expect(execute(two)).to.be.revertedWithCustomError(timelock, "TimelockUnexpectedOperationState");
    const operation = await schedule(two);
    await timelock.connect(guardian).cancel(operation);
    await networkHelpers.time.increase(DELAY);
    await expect(execute(two)).to.be.revertedWithCustomError(timelock, "TimelockUnexpectedOperationState");
    expect((await policy.platform(imageId(platform))).state).to.equal(REVOKED);
    expect(await timelock.hasRole(ROLE.proposer, governance.address)).to.equal(true);
  });

  it("a timelock without a delay, or with one Safe in both offices, cannot be made", async () => {
    const [governance, guardian] = [await deploy(connection, "Actor"), await deploy(connection, "Actor")];
    const factory = await ethers.getContractFactory("GovernanceTimelock");
    await expect(factory.deploy(0, governance, guardian)).to.be.revertedWithCustomError(
      factory,
      "GovernanceTimelock_DelayOutOfBounds",
    );
    await expect(factory.deploy(DELAY, governance, governance)).to.be.revertedWithCustomError(
      factory,
      "GovernanceTimelock_SameAccount",
    );
  });

  it("a governor that destroys itself at birth never becomes the only one", async () => {
    const { policy, governor } = await networkHelpers.loadFixture(suite);
    const factory = await ethers.deployContract("Stillborn", [
      governor.address,
      await policy.getAddress(),
      ROLE.governor,
    ]);
    const gone = await factory.getFunction("last")();
    expect(await ethers.provider.getCode(gone)).to.equal("0x");
    expect(await policy.hasRole(ROLE.governor, gone)).to.equal(true);
    const hand = policy.connect(governor);
    await expect(hand.renounceRole(ROLE.governor, governor.address)).to.be.revertedWithCustomError(
      policy,
      "Governed_GovernorCannotLeave",
    );
    await hand.revokeRole(ROLE.governor, gone);
    expect(await policy.hasRole(ROLE.governor, governor.address)).to.equal(true);
  });

  it("roles of the timelock change through its own delay alone: nobody else is ever admin", async () => {
    const { timelock, governance, guardian, eve, at, grant } = await networkHelpers.loadFixture(timelockWorld);
    for (const hand of [governance, guardian, eve]) {
      for (const role of Object.values(ROLE)) {
        await expect(timelock.connect(hand).grantRole(role, eve.address)).to.be.revertedWithCustomError(
          timelock,
          "AccessControlUnauthorizedAccount",
        );
        await expect(timelock.connect(hand).revokeRole(role, governance.address)).to.be.revertedWithCustomError(
          timelock,
          "AccessControlUnauthorizedAccount",
        );
      }
    }
    const { data } = grant(at.timelock, ROLE.admin, eve.address);
    await expect(
      timelock.connect(governance).schedule(at.timelock, 0, data, ZeroHash, ZeroHash, DELAY - 1),
    ).to.be.revertedWithCustomError(timelock, "TimelockInsufficientDelay");
  });
});
