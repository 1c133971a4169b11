import { expect } from "chai";
import { AbiCoder, keccak256, ZeroAddress, ZeroHash } from "ethers";
import { network } from "hardhat";
import {
  dstackImage,
  dstackPinnedImage,
  image,
  imageId,
  KIND,
  measured,
  nitroImage,
  PLATFORM,
  snpImage,
  tdxImage,
} from "../../helpers/images.ts";
import { DECISIONS, expectChange, expectRefusal, fieldsOf, MAX_TEXT, now, STATE } from "../../helpers/policy.ts";
import { deployOpenSuite, type Suite } from "../../helpers/suite.ts";

const connection = await network.create();

const IDENTITY = {
  rootEpoch: 7,
  environmentKey: measured("environment key", 32),
  receiptSigner: "0x00000000000000000000000000000000000A11cE",
  evidenceHash: measured("evidence", 32),
};

describe("PlatformPolicy: KMS nodes", () => {
  let suite: Suite;
  let governor: Suite["policy"];
  let guardian: Suite["policy"];

  beforeEach(async () => {
    suite = await connection.networkHelpers.loadFixture(deployOpenSuite);
    governor = suite.policy.connect(suite.governor);
    guardian = suite.policy.connect(suite.guardian);
  });

  describe("allowKmsImage", () => {
    for (const [name, kind, mask, bytes] of [
      ["tdx", KIND.tdx, 0b11111, tdxImage("kms")],
      ["snp", KIND.snp, 0b11, snpImage("kms")],
      ["nitro", KIND.nitro, 0b111, nitroImage("kms")],
      ["dstack", KIND.dstack, 0b11, dstackPinnedImage("kms")],
      ["dstack, by mr_aggregated alone,", KIND.dstack, 0b100, image(KIND.dstack, { 2: measured("aggregated", 32) })],
    ] as const) {
      it(`given a ${name} image that names all that runs, it is allowed`, async () => {
        const id = imageId(bytes);
        expect(await governor.allowKmsImage.staticCall(bytes, "")).to.equal(id);
        const description = "d".repeat(MAX_TEXT);
        await expectChange(suite, () => governor.allowKmsImage(bytes, description), "AllowKmsImage", {
          imageId: id,
          actor: suite.governor.address,
          image: bytes,
          description,
        });
        expect(fieldsOf(await suite.policy.kmsImage(id))).to.deep.equal({
          state: STATE.allowed,
          kind: BigInt(kind),
          mask: BigInt(mask),
          since: BigInt(await now(suite)),
        });
        expect((await suite.policy.platform(id)).state, "not a platform").to.equal(STATE.unknown);
      });
    }

    it("given it leaves out what runs, it is refused, the operating system of dstack too", async () => {
      await expectRefusal(
        suite,
        () => governor.allowKmsImage(dstackImage("kms"), ""),
        "ImageCodec_MissingRegisters",
        KIND.dstack,
        1,
      );
      await expectRefusal(
        suite,
        () => governor.allowKmsImage(PLATFORM.tdx, ""),
        "ImageCodec_MissingRegisters",
        KIND.tdx,
        0b10000,
      );
      await expectRefusal(suite, () => governor.allowKmsImage("0x", ""), "ImageCodec_WrongLength", 6, 0);
    });

    it("given it is allowed already, or the description is too long, it is refused", async () => {
      const bytes = tdxImage("kms");
      await expectRefusal(
        suite,
        () => governor.allowKmsImage(bytes, "d".repeat(MAX_TEXT + 1)),
        "PlatformPolicy_TextTooLong",
        MAX_TEXT + 1,
        MAX_TEXT,
      );
      await governor.allowKmsImage(bytes, "");
      await expectRefusal(
        suite,
        () => governor.allowKmsImage(bytes, ""),
        "PlatformPolicy_KmsImageAlreadyAllowed",
        imageId(bytes),
      );
    });
  });

  describe("revokeKmsImage", () => {
    const bytes = snpImage("kms");
    const id = imageId(bytes);
    beforeEach(async () => {
      await governor.allowKmsImage(bytes, "");
    });

    for (const actor of ["guardian", "governor"] as const) {
      it(`given the ${actor}, it works at once`, async () => {
        const reason = actor === "guardian" ? "" : "r".repeat(MAX_TEXT);
        await expectChange(
          suite,
          () => suite.policy.connect(suite[actor]).revokeKmsImage(id, reason),
          "RevokeKmsImage",
          {
            imageId: id,
            actor: suite[actor].address,
            reason,
          },
        );
        expect(fieldsOf(await suite.policy.kmsImage(id))).to.deep.equal({
          state: STATE.revoked,
          kind: BigInt(KIND.snp),
          mask: 3n,
          since: BigInt(await now(suite)),
        });
      });
    }

    it("given it is not on the list, or the reason is too long, it is refused", async () => {
      const error = "PlatformPolicy_KmsImageNotAllowed";
      // A platform's id is no KMS image, though it is the same kind of hash.
      for (const other of [ZeroHash, imageId(PLATFORM.snp)]) {
        await expectRefusal(suite, () => guardian.revokeKmsImage(other, ""), error, other);
      }
      await expectRefusal(
        suite,
        () => guardian.revokeKmsImage(id, "r".repeat(MAX_TEXT + 1)),
        "PlatformPolicy_TextTooLong",
        MAX_TEXT + 1,
        MAX_TEXT,
      );
      await guardian.revokeKmsImage(id, "");
      await expectRefusal(suite, () => guardian.revokeKmsImage(id, ""), error, id);
    });

    it("given it is revoked, the governor alone brings it back", async () => {
      await guardian.revokeKmsImage(id, "");
      await expectRefusal(
        suite,
        () => guardian.allowKmsImage(bytes, ""),
        "AccessControlUnauthorizedAccount",
        suite.guardian.address,
        await suite.policy.GOVERNOR_ROLE(),
      );
      await governor.allowKmsImage(bytes, "");
      expect((await suite.policy.kmsImage(id)).state).to.equal(STATE.allowed);
    });
  });

  describe("authorizeKms", () => {
    const platformId = imageId(PLATFORM.tdx);
    const device = measured("device", 32);
    const kms = imageId(tdxImage("kms"));
    const ask = async (id = kms, platform = platformId, tcb = 0) =>
      DECISIONS[Number(await suite.policy.authorizeKms(id, platform, device, tcb))];

    it("given the image was never allowed, is revoked, or is only a platform: KmsImageNotAllowed, first of all", async () => {
      await guardian.pauseRelease(60, "");
      expect(await ask()).to.equal("KmsImageNotAllowed");
      expect(await ask(platformId)).to.equal("KmsImageNotAllowed");
      await governor.allowKmsImage(tdxImage("kms"), "");
      expect(await ask()).to.equal("ReleasePaused");
      await guardian.revokeKmsImage(kms, "");
      expect(await ask()).to.equal("KmsImageNotAllowed");
    });

    it("given an allowed image, the policy decides by the image's own kind", async () => {
      await governor.allowKmsImage(tdxImage("kms"), "");
      expect(await ask()).to.equal("Allowed");
      expect(await ask(kms, imageId(PLATFORM.snp))).to.equal("PlatformKindMismatch");
      expect(await ask(kms, imageId(PLATFORM.tdx), 4)).to.equal("TcbNotAccepted");
      await governor.acceptTcb(KIND.tdx, 1 << 4);
      expect(await ask(kms, imageId(PLATFORM.tdx), 4), "services may have it, KMS nodes not").to.equal(
        "TcbNotAccepted",
      );
      await guardian.suspendTee(KIND.snp, "");
      expect(await ask()).to.equal("Allowed");
      await guardian.restrictDevices(KIND.tdx);
      expect(await ask()).to.equal("DeviceNotAllowed");
      await governor.allowDevice(KIND.tdx, device);
      expect(await ask()).to.equal("Allowed");
      await guardian.revokePlatform(platformId, "");
      expect(await ask()).to.equal("PlatformNotAllowed");
      await guardian.suspendTee(KIND.tdx, "");
      expect(await ask()).to.equal("TeeSuspended");
    });
  });

  describe("the devices of KMS nodes, list 0", () => {
    const device = measured("kms device", 32);
    const ask = async () =>
      DECISIONS[Number(await suite.policy.authorizeKms(imageId(tdxImage("kms")), imageId(PLATFORM.tdx), device, 0))];

    it("restricts, lists and revokes as a kind's list does, for KMS nodes alone", async () => {
      await governor.allowKmsImage(tdxImage("kms"), "");
      await expectRefusal(suite, () => guardian.revokeDevice(0, device), "PlatformPolicy_DevicesNotRestricted", 0);
      await expectChange(suite, () => guardian.restrictDevices(0), "RestrictDevices", {
        kind: 0,
        actor: suite.guardian.address,
      });
      expect(fieldsOf(await suite.policy.teeRules(0))).to.deep.equal({
        enabled: false,
        devicesRestricted: true,
        acceptedTcb: 0n,
      });
      expect(await ask()).to.equal("DeviceNotAllowed");
      expect(await suite.policy.decide(KIND.tdx, imageId(PLATFORM.tdx), device, 0), "a service's machine").to.equal(1n);
      await governor.allowDevice(0, device);
      expect(await suite.policy.isDeviceListed(0, device)).to.equal(true);
      expect(await suite.policy.isDeviceListed(KIND.tdx, device)).to.equal(false);
      expect(await ask()).to.equal("Allowed");
      await guardian.revokeDevice(0, device);
      expect(await ask()).to.equal("DeviceNotAllowed");
      await governor.unrestrictDevices(0);
      expect(await ask()).to.equal("Allowed");
    });

    it("is no TEE kind: nothing else takes 0", async () => {
      for (const act of [
        () => governor.enableTee(0),
        () => guardian.suspendTee(0, ""),
        () => governor.acceptTcb(0, 1),
        () => guardian.rejectTcb(0, 1),
      ]) {
        await expectRefusal(suite, act, "PlatformPolicy_UnknownKind", 0);
      }
    });
  });

  describe("publishKmsIdentity and revokeKmsIdentity", () => {
    const idOf = (identity: typeof IDENTITY) =>
      keccak256(
        AbiCoder.defaultAbiCoder().encode(
          ["uint16", "bytes32", "address", "bytes32"],
          [identity.rootEpoch, identity.environmentKey, identity.receiptSigner, identity.evidenceHash],
        ),
      );
    const id = idOf(IDENTITY);

    it("publishes: the id is the hash of the encoded identity, and every field is in the log", async () => {
      expect(await suite.policy.kmsIdentity(id)).to.equal(STATE.unknown);
      expect(await governor.publishKmsIdentity.staticCall(IDENTITY)).to.equal(id);
      await expectChange(suite, () => governor.publishKmsIdentity(IDENTITY), "PublishKmsIdentity", {
        identityId: id,
        actor: suite.governor.address,
        ...IDENTITY,
      });
      expect(await suite.policy.kmsIdentity(id)).to.equal(STATE.allowed);
    });

    it("every field makes another identity; epoch 0 is one", async () => {
      const others = [
        { ...IDENTITY, rootEpoch: 0 },
        { ...IDENTITY, rootEpoch: 65_535 },
        { ...IDENTITY, environmentKey: measured("another key", 32) },
        { ...IDENTITY, receiptSigner: "0x0000000000000000000000000000000000000B0b" },
        { ...IDENTITY, evidenceHash: measured("other evidence", 32) },
      ];
      await governor.publishKmsIdentity(IDENTITY);
      for (const other of others) {
        await governor.publishKmsIdentity(other);
        expect(await suite.policy.kmsIdentity(idOf(other))).to.equal(STATE.allowed);
      }
      expect(new Set([id, ...others.map(idOf)]).size).to.equal(6);
    });

    it("given it is published already, or incomplete, it is refused with what it has", async () => {
      await governor.publishKmsIdentity(IDENTITY);
      await expectRefusal(
        suite,
        () => governor.publishKmsIdentity(IDENTITY),
        "PlatformPolicy_IdentityAlreadyPublished",
        id,
      );
      for (const lacking of [
        { ...IDENTITY, environmentKey: ZeroHash },
        { ...IDENTITY, receiptSigner: ZeroAddress },
        { ...IDENTITY, evidenceHash: ZeroHash },
      ]) {
        await expectRefusal(
          suite,
          () => governor.publishKmsIdentity(lacking),
          "PlatformPolicy_IncompleteIdentity",
          lacking.environmentKey,
          lacking.receiptSigner,
          lacking.evidenceHash,
        );
      }
    });

    for (const actor of ["guardian", "governor"] as const) {
      it(`given the ${actor}, revoking works at once, and only the governor publishes it again`, async () => {
        const reason = actor === "guardian" ? "" : "r".repeat(MAX_TEXT);
        await governor.publishKmsIdentity(IDENTITY);
        const policy = suite.policy.connect(suite[actor]);
        await expectChange(suite, () => policy.revokeKmsIdentity(id, reason), "RevokeKmsIdentity", {
          identityId: id,
          actor: suite[actor].address,
          reason,
        });
        expect(await suite.policy.kmsIdentity(id)).to.equal(STATE.revoked);
        await expectRefusal(
          suite,
          () => guardian.publishKmsIdentity(IDENTITY),
          "AccessControlUnauthorizedAccount",
          suite.guardian.address,
          await suite.policy.GOVERNOR_ROLE(),
        );
        await governor.publishKmsIdentity(IDENTITY);
        expect(await suite.policy.kmsIdentity(id)).to.equal(STATE.allowed);
      });
    }

    it("given it is not in force, or the reason is too long, revoking is refused", async () => {
      const error = "PlatformPolicy_IdentityNotPublished";
      for (const never of [id, ZeroHash]) {
        await expectRefusal(suite, () => guardian.revokeKmsIdentity(never, ""), error, never);
      }
      await governor.publishKmsIdentity(IDENTITY);
      await expectRefusal(
        suite,
        () => guardian.revokeKmsIdentity(id, "r".repeat(MAX_TEXT + 1)),
        "PlatformPolicy_TextTooLong",
        MAX_TEXT + 1,
        MAX_TEXT,
      );
      await guardian.revokeKmsIdentity(id, "");
      await expectRefusal(suite, () => guardian.revokeKmsIdentity(id, ""), error, id);
    });
  });

  describe("setGatewayAppId and setAppImplementation", () => {
    it("each setting tells the value before, empty at first, and may be emptied again", async () => {
      const actor = suite.governor.address;
      const values = ["gateway-1", "d".repeat(MAX_TEXT), "any", ""];
      let previous = "";
      for (const gatewayAppId of values) {
        await expectChange(suite, () => governor.setGatewayAppId(gatewayAppId), "SetGatewayAppId", {
          actor,
          previous,
          gatewayAppId,
        });
        expect(await suite.policy.gatewayAppId()).to.equal(gatewayAppId);
        previous = gatewayAppId;
      }
      previous = ZeroAddress;
      for (const appImplementation of [suite.eve.address, suite.admin.address, ZeroAddress]) {
        await expectChange(suite, () => governor.setAppImplementation(appImplementation), "SetAppImplementation", {
          actor,
          appImplementation,
          previous,
        });
        expect(await suite.policy.appImplementation()).to.equal(appImplementation);
        previous = appImplementation;
      }
    });

    it("what would change nothing is refused, and so is a text too long", async () => {
      await expectRefusal(suite, () => governor.setGatewayAppId(""), "PlatformPolicy_Unchanged");
      await expectRefusal(suite, () => governor.setAppImplementation(ZeroAddress), "PlatformPolicy_Unchanged");
      await governor.setGatewayAppId("one");
      await governor.setAppImplementation(suite.eve.address);
      await expectRefusal(suite, () => governor.setGatewayAppId("one"), "PlatformPolicy_Unchanged");
      await expectRefusal(suite, () => governor.setAppImplementation(suite.eve.address), "PlatformPolicy_Unchanged");
      await expectRefusal(
        suite,
        () => governor.setGatewayAppId("g".repeat(MAX_TEXT + 1)),
        "PlatformPolicy_TextTooLong",
        MAX_TEXT + 1,
        MAX_TEXT,
      );
    });
  });
});
