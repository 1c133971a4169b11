import { expect } from "chai";
import { keccak256, ZeroHash } from "ethers";
import { network } from "hardhat";
import { image, imageId, KIND, measured, nitroImage, PLATFORM, snpImage, tdxImage } from "../../helpers/images.ts";
import { expectChange, expectRefusal, fieldsOf, MAX_TEXT, now, STATE } from "../../helpers/policy.ts";
import { deploySuite, type Suite } from "../../helpers/suite.ts";

const connection = await network.create();

describe("PlatformPolicy: platforms", () => {
  let suite: Suite;
  let governor: Suite["policy"];
  let guardian: Suite["policy"];

  beforeEach(async () => {
    suite = await connection.networkHelpers.loadFixture(deploySuite);
    governor = suite.policy.connect(suite.governor);
    guardian = suite.policy.connect(suite.guardian);
  });

  describe("allowPlatform", () => {
    const masks = { tdx: 0b1101, snp: 1, nitro: 0b10, dstack: 1 };
    for (const name of ["tdx", "snp", "nitro", "dstack"] as const) {
      it(`given a ${name} platform, it is allowed: entry, event, version and history`, async () => {
        const bytes = PLATFORM[name];
        expect(await governor.allowPlatform.staticCall(bytes, "")).to.equal(imageId(bytes));
        await expectChange(suite, () => governor.allowPlatform(bytes, "firmware 1.5, kernel 6.9"), "AllowPlatform", {
          platformId: keccak256(bytes),
          actor: suite.governor.address,
          image: bytes,
          description: "firmware 1.5, kernel 6.9",
        });
        expect(fieldsOf(await suite.policy.platform(keccak256(bytes)))).to.deep.equal({
          state: STATE.allowed,
          kind: BigInt(KIND[name]),
          mask: BigInt(masks[name]),
          since: BigInt(await now(suite)),
        });
      });
    }

    it("given it is allowed already, it is refused with its id", async () => {
      await governor.allowPlatform(PLATFORM.tdx, "once");
      await expectRefusal(
        suite,
        () => governor.allowPlatform(PLATFORM.tdx, "twice"),
        "PlatformPolicy_PlatformAlreadyAllowed",
        imageId(PLATFORM.tdx),
      );
    });

    for (const [what, description] of [
      ["empty", ""],
      ["of exactly 512 bytes", "d".repeat(MAX_TEXT)],
      ["of exactly 512 bytes in 256 characters", "é".repeat(MAX_TEXT / 2)],
    ] as const) {
      it(`when the description is ${what}, it is kept as it is`, async () => {
        await expectChange(suite, () => governor.allowPlatform(PLATFORM.snp, description), "AllowPlatform", {
          platformId: imageId(PLATFORM.snp),
          actor: suite.governor.address,
          image: PLATFORM.snp,
          description,
        });
      });
    }

    for (const [what, description, length] of [
      ["of 513 bytes", "d".repeat(MAX_TEXT + 1), 513],
      ["of 257 characters that are 514 bytes", "é".repeat(257), 514],
    ] as const) {
      it(`when the description is ${what}, it is refused`, async () => {
        await expectRefusal(
          suite,
          () => governor.allowPlatform(PLATFORM.snp, description),
          "PlatformPolicy_TextTooLong",
          length,
          MAX_TEXT,
        );
      });
    }

    it("when the image is not one, the codec's refusals pass through", async () => {
      const refused: readonly [string, string, readonly unknown[]][] = [
        ["0x", "ImageCodec_WrongLength", [6, 0]],
        [`0x02${PLATFORM.tdx.slice(4)}`, "ImageCodec_WrongVersion", [2]],
        [`0x0109${PLATFORM.tdx.slice(6)}`, "ImageCodec_UnknownKind", [9]],
        [image(KIND.nitro, { 0: measured("pcr0") }), "ImageCodec_MissingRegisters", [KIND.nitro, 0b10]],
        [image(KIND.dstack, { 1: measured("compose", 32) }), "ImageCodec_MissingRegisters", [KIND.dstack, 1]],
        [image(KIND.nitro, { 1: `0x${"00".repeat(48)}` }), "ImageCodec_ZeroRegister", [KIND.nitro, 1]],
        [`${PLATFORM.dstack}00`, "ImageCodec_WrongLength", [54, 55]],
      ];
      for (const [bytes, error, values] of refused) {
        await expectRefusal(suite, () => governor.allowPlatform(bytes, ""), error, ...values);
      }
    });

    it("when the image names the workload too, it is another platform", async () => {
      await governor.allowPlatform(tdxImage("web"), "with rtmr3");
      expect((await suite.policy.platform(imageId(tdxImage("web")))).mask).to.equal(0b11111n);
      expect((await suite.policy.platform(imageId(PLATFORM.tdx))).state).to.equal(STATE.unknown);
    });
  });

  describe("revokePlatform", () => {
    const id = imageId(PLATFORM.nitro);
    beforeEach(async () => {
      await governor.allowPlatform(PLATFORM.nitro, "nitro");
    });

    for (const actor of ["guardian", "governor"] as const) {
      for (const [what, reason] of [
        ["an empty reason", ""],
        ["a reason of 512 bytes", "r".repeat(MAX_TEXT)],
      ] as const) {
        it(`given the ${actor}, with ${what}, it works at once`, async () => {
          const policy = suite.policy.connect(suite[actor]);
          await expectChange(suite, () => policy.revokePlatform(id, reason), "RevokePlatform", {
            platformId: id,
            actor: suite[actor].address,
            reason,
          });
          expect(fieldsOf(await policy.platform(id))).to.deep.equal({
            state: STATE.revoked,
            kind: BigInt(KIND.nitro),
            mask: 2n,
            since: BigInt(await now(suite)),
          });
        });
      }
    }

    it("when the reason is too long, nothing is revoked", async () => {
      const reason = "r".repeat(MAX_TEXT + 1);
      await expectRefusal(
        suite,
        () => guardian.revokePlatform(id, reason),
        "PlatformPolicy_TextTooLong",
        MAX_TEXT + 1,
        MAX_TEXT,
      );
      expect((await suite.policy.platform(id)).state).to.equal(STATE.allowed);
    });

    it("given it was never allowed, or is revoked, it is refused with its id", async () => {
      for (const never of [imageId(snpImage("never")), imageId(nitroImage("x")), ZeroHash]) {
        await expectRefusal(
          suite,
          () => guardian.revokePlatform(never, ""),
          "PlatformPolicy_PlatformNotAllowed",
          never,
        );
      }
      await guardian.revokePlatform(id, "");
      await expectRefusal(suite, () => governor.revokePlatform(id, ""), "PlatformPolicy_PlatformNotAllowed", id);
    });

    it("given it is revoked, only the governor brings it back", async () => {
      await guardian.revokePlatform(id, "broken firmware");
      await expectRefusal(
        suite,
        () => guardian.allowPlatform(PLATFORM.nitro, "again"),
        "AccessControlUnauthorizedAccount",
        suite.guardian.address,
        await suite.policy.GOVERNOR_ROLE(),
      );
      expect((await suite.policy.platform(id)).state).to.equal(STATE.revoked);
      await expectChange(suite, () => governor.allowPlatform(PLATFORM.nitro, "fixed"), "AllowPlatform", {
        platformId: id,
        actor: suite.governor.address,
        image: PLATFORM.nitro,
        description: "fixed",
      });
      expect((await suite.policy.platform(id)).state).to.equal(STATE.allowed);
    });
  });
});
