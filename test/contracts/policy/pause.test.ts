import { expect } from "chai";
import { network } from "hardhat";
import { imageId, KIND, measured, PLATFORM } from "../../helpers/images.ts";
import { decide, expectChange, expectRefusal, MAX_PAUSE, MAX_TEXT } from "../../helpers/policy.ts";
import { deployOpenSuite, type Suite } from "../../helpers/suite.ts";

const connection = await network.create();
const { time, loadFixture } = connection.networkHelpers;

describe("PlatformPolicy: pause", () => {
  let suite: Suite;
  let governor: Suite["policy"];
  let guardian: Suite["policy"];
  /** The timestamp of the next block, set before each change so that ends can be named to the second. */
  let start: number;

  const at = (moment: number) => time.setNextBlockTimestamp(moment);
  const answer = () =>
    decide(suite, {
      kind: KIND.tdx,
      platformId: imageId(PLATFORM.tdx),
      deviceId: measured("device", 32),
      tcbStatus: 0,
    });

  beforeEach(async () => {
    suite = await loadFixture(deployOpenSuite);
    governor = suite.policy.connect(suite.governor);
    guardian = suite.policy.connect(suite.guardian);
    start = (await time.latest()) + 100;
  });

  describe("pauseRelease", () => {
    for (const actor of ["guardian", "governor"] as const) {
      for (const duration of [1, 3600, MAX_PAUSE]) {
        it(`given the ${actor}, for ${duration} s: in force at once, over to the second`, async () => {
          const reason = duration === 1 ? "" : "r".repeat(MAX_TEXT);
          await at(start);
          const policy = suite.policy.connect(suite[actor]);
          await expectChange(suite, () => policy.pauseRelease(duration, reason), "PauseRelease", {
            actor: suite[actor].address,
            until: start + duration,
            reason,
          });
          expect(await suite.policy.releasePausedUntil()).to.equal(BigInt(start + duration));
          expect(await answer()).to.equal("ReleasePaused");
          if (duration > 1) {
            await time.increaseTo(start + duration - 1);
            expect(await answer(), "one second before its end").to.equal("ReleasePaused");
          }
          await time.increaseTo(start + duration);
          expect(await answer(), "at its end").to.equal("Allowed");
        });
      }
    }

    it("given zero, or more than 14 days, it is refused", async () => {
      for (const policy of [guardian, governor]) {
        for (const duration of [0n, BigInt(MAX_PAUSE) + 1n, 2n ** 40n, 2n ** 256n - 1n]) {
          await expectRefusal(
            suite,
            () => policy.pauseRelease(duration, ""),
            "PlatformPolicy_BadPause",
            duration,
            MAX_PAUSE,
          );
        }
      }
      expect(await answer()).to.equal("Allowed");
    });

    it("when the reason is too long, nothing is paused", async () => {
      await expectRefusal(
        suite,
        () => guardian.pauseRelease(60, "r".repeat(MAX_TEXT + 1)),
        "PlatformPolicy_TextTooLong",
        MAX_TEXT + 1,
        MAX_TEXT,
      );
      expect(await answer()).to.equal("Allowed");
    });

    it("given a pause in force, neither guardian nor governor pauses again, to the last second", async () => {
      await at(start);
      await guardian.pauseRelease(1000, "");
      for (const moment of [start + 10, start + 999]) {
        for (const policy of [guardian, governor]) {
          await time.setNextBlockTimestamp(moment + (policy === governor ? 0 : -1));
          await expectRefusal(
            suite,
            () => policy.pauseRelease(MAX_PAUSE, ""),
            "PlatformPolicy_AlreadyPaused",
            start + 1000,
          );
        }
      }
      await at(start + 1000);
      await guardian.pauseRelease(1, "");
      expect(await suite.policy.releasePausedUntil()).to.equal(BigInt(start + 1001));
    });

    it("given the guardian, it can neither extend nor lift a pause", async () => {
      await guardian.pauseRelease(1000, "");
      const role = await suite.policy.GOVERNOR_ROLE();
      for (const act of [() => guardian.extendPause(2000), () => guardian.resumeRelease()]) {
        await expectRefusal(suite, act, "AccessControlUnauthorizedAccount", suite.guardian.address, role);
      }
    });
  });

  describe("extendPause", () => {
    it("moves the end to so many seconds from now, at most 14 days", async () => {
      await at(start);
      await guardian.pauseRelease(1000, "");
      await at(start + 500);
      await expectChange(suite, () => governor.extendPause(MAX_PAUSE), "ExtendPause", {
        actor: suite.governor.address,
        previous: start + 1000,
        until: start + 500 + MAX_PAUSE,
      });
      await time.increaseTo(start + 500 + MAX_PAUSE - 1);
      expect(await answer()).to.equal("ReleasePaused");
      await time.increaseTo(start + 500 + MAX_PAUSE);
      expect(await answer(), "an extended pause lapses by itself too").to.equal("Allowed");
    });

    it("given an end that is not later, it is refused", async () => {
      await at(start);
      await guardian.pauseRelease(1000, "");
      for (const [moment, duration] of [
        [start + 100, 900],
        [start + 200, 1],
      ] as const) {
        await at(moment);
        await expectRefusal(suite, () => governor.extendPause(duration), "PlatformPolicy_Unchanged");
      }
      await at(start + 300);
      await governor.extendPause(701);
      expect(await suite.policy.releasePausedUntil()).to.equal(BigInt(start + 1001));
    });

    it("given zero or more than 14 days, or no pause in force, it is refused", async () => {
      await expectRefusal(suite, () => governor.extendPause(60), "PlatformPolicy_NotPaused");
      await at(start);
      await guardian.pauseRelease(1000, "");
      for (const duration of [0, MAX_PAUSE + 1]) {
        await expectRefusal(
          suite,
          () => governor.extendPause(duration),
          "PlatformPolicy_BadPause",
          duration,
          MAX_PAUSE,
        );
      }
      await at(start + 1000);
      await expectRefusal(suite, () => governor.extendPause(60), "PlatformPolicy_NotPaused");
    });
  });

  describe("resumeRelease", () => {
    it("lifts the pause at once, and the guardian may pause again", async () => {
      await at(start);
      await guardian.pauseRelease(MAX_PAUSE, "");
      await at(start + 5);
      await expectChange(suite, () => governor.resumeRelease(), "ResumeRelease", {
        actor: suite.governor.address,
        previous: start + MAX_PAUSE,
      });
      expect(await suite.policy.releasePausedUntil()).to.equal(BigInt(start + 5));
      expect(await answer()).to.equal("Allowed");
      await guardian.pauseRelease(60, "");
      expect(await answer()).to.equal("ReleasePaused");
    });

    it("given no pause, one that lapsed or was lifted, it is refused", async () => {
      await expectRefusal(suite, () => governor.resumeRelease(), "PlatformPolicy_NotPaused");
      await at(start);
      await guardian.pauseRelease(10, "");
      await at(start + 10);
      await expectRefusal(suite, () => governor.resumeRelease(), "PlatformPolicy_NotPaused");
      await guardian.pauseRelease(1000, "");
      await governor.resumeRelease();
      await expectRefusal(suite, () => governor.resumeRelease(), "PlatformPolicy_NotPaused");
    });
  });

  it("a pause covers every kind, and KMS nodes", async () => {
    await guardian.pauseRelease(60, "");
    for (const [name, kind] of Object.entries(KIND)) {
      const platformId = imageId(PLATFORM[name as keyof typeof PLATFORM]);
      expect(await decide(suite, { kind, platformId, deviceId: measured("d", 32), tcbStatus: 0 })).to.equal(
        "ReleasePaused",
      );
    }
  });
});
