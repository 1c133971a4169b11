import { expect } from "chai";
import { toUtf8String, ZeroAddress } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { DECISION } from "../../helpers/decisions.ts";
import { expectHistory, mined, timeOf } from "../../helpers/history.ts";
import { dstackImage, dstackPinnedImage, imageId, KIND, tdxImage } from "../../helpers/images.ts";
import {
  bytes32,
  DEVICE,
  devices,
  LIMIT,
  openSuite,
  request,
  STATE,
  sealedService,
  V1,
  V2,
} from "../../helpers/registry.ts";
import { TCB } from "../../helpers/suite.ts";

const { networkHelpers } = connection;
const SALT = bytes32("salt");
const ciphertext = (bytes: number): string => `0x${"c5".repeat(bytes)}`;

describe("KmsRegistry: sealed services", () => {
  describe("addSecretKeyByImage", () => {
    it("given a free salt, it makes a service of this image alone, active at once, with no admin and no way to change", async () => {
      const { registry, deployer } = await networkHelpers.loadFixture(openSuite);
      const serviceId = await registry.serviceIdFor(deployer.address, SALT);
      expect(await registry.addSecretKeyByImage.staticCall(V1, [], true, SALT, "vault", "0x")).to.equal(serviceId);
      const receipt = await mined(registry.addSecretKeyByImage(V1, [], true, SALT, "vault", "0x"));
      const time = await timeOf(receipt);

      await expectHistory(registry, serviceId, receipt, [
        {
          name: "AddSecretKeyByImage",
          fields: {
            creator: deployer.address,
            imageId: imageId(V1),
            image: V1,
            requireUpToDateTcb: true,
            description: "vault",
            activeFrom: time,
          },
        },
      ]);
      const made = await registry.service(serviceId);
      expect([made.exists, made.upgradeable, made.admin, made.pendingAdmin, made.guardian]).to.deep.equal([
        true,
        false,
        ZeroAddress,
        ZeroAddress,
        ZeroAddress,
      ]);
      expect([made.requireUpToDateTcb, made.restrictDevices, made.noticePeriod]).to.deep.equal([true, false, 0n]);
      expect(await registry.image(serviceId, imageId(V1))).to.deep.equal([
        BigInt(time),
        0n,
        STATE.listed,
        1n,
        0x1fn,
        false,
      ]);
      expect(await registry.isImageActive(serviceId, imageId(V1))).to.equal(true);
    });

    it("when it has devices and secrets, they follow as events of their own, in that order", async () => {
      const { registry, deployer } = await networkHelpers.loadFixture(openSuite);
      const serviceId = await registry.serviceIdFor(deployer.address, SALT);
      const receipt = await mined(
        registry.addSecretKeyByImage(V1, [DEVICE.one, DEVICE.two], false, SALT, "", ciphertext(100)),
      );
      const time = await timeOf(receipt);
      const device = (deviceId: string) => ({
        name: "SetDevice",
        fields: { actor: deployer.address, deviceId, allowed: true, effectiveFrom: time },
      });
      await expectHistory(registry, serviceId, receipt, [
        {
          name: "AddSecretKeyByImage",
          fields: {
            creator: deployer.address,
            imageId: imageId(V1),
            image: V1,
            requireUpToDateTcb: false,
            description: "",
            activeFrom: time,
          },
        },
        device(DEVICE.one),
        device(DEVICE.two),
        {
          name: "PublishSealedSecrets",
          fields: { actor: deployer.address, name: "", ciphertext: ciphertext(100), effectiveFrom: time },
        },
      ]);
      expect((await registry.service(serviceId)).restrictDevices).to.equal(true);
    });

    it("when text, devices and secrets are at their limits, it accepts them", async () => {
      const { registry, deployer } = await networkHelpers.loadFixture(openSuite);
      await registry.addSecretKeyByImage(
        V1,
        devices(LIMIT.devices),
        false,
        SALT,
        "d".repeat(LIMIT.text),
        ciphertext(LIMIT.ciphertext),
      );
      const serviceId = await registry.serviceIdFor(deployer.address, SALT);
      expect((await registry.service(serviceId)).sequence).to.equal(BigInt(1 + LIMIT.devices + 1));
    });

    it("when description, secrets or devices exceed their limit by one, it refuses", async () => {
      const { registry } = await networkHelpers.loadFixture(openSuite);
      await expect(registry.addSecretKeyByImage(V1, [], false, SALT, "d".repeat(LIMIT.text + 1), "0x"))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_TextTooLong")
        .withArgs(LIMIT.text + 1, LIMIT.text);
      await expect(registry.addSecretKeyByImage(V1, [], false, SALT, "", ciphertext(LIMIT.ciphertext + 1)))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_BadCiphertext")
        .withArgs(LIMIT.ciphertext + 1, LIMIT.ciphertext);
      await expect(registry.addSecretKeyByImage(V1, devices(LIMIT.devices + 1), false, SALT, "", "0x"))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_TooManyDevices")
        .withArgs(LIMIT.devices + 1, LIMIT.devices);
    });

    it("when a device is named twice, it refuses", async () => {
      const { registry } = await networkHelpers.loadFixture(openSuite);
      await expect(registry.addSecretKeyByImage(V1, [DEVICE.one, DEVICE.one], false, SALT, "", "0x"))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_DuplicateDevice")
        .withArgs(DEVICE.one);
    });

    it("when a dstack image leaves out os_image_hash, it refuses, for the OS could never be replaced", async () => {
      const { registry, deployer } = await networkHelpers.loadFixture(openSuite);
      await expect(registry.addSecretKeyByImage(dstackImage("app"), [], false, SALT, "", "0x"))
        .to.be.revertedWithCustomError(registry, "ImageCodec_MissingRegisters")
        .withArgs(KIND.dstack, 1);
      await registry.addSecretKeyByImage(dstackPinnedImage("app"), [], false, SALT, "", "0x");
      const serviceId = await registry.serviceIdFor(deployer.address, SALT);
      expect(await registry.isImageActive(serviceId, imageId(dstackPinnedImage("app")))).to.equal(true);
    });

    it("when the image is empty or not canonical, it refuses with the codec's error", async () => {
      const { registry } = await networkHelpers.loadFixture(openSuite);
      await expect(registry.addSecretKeyByImage("0x", [], false, SALT, "", "0x"))
        .to.be.revertedWithCustomError(registry, "ImageCodec_WrongLength")
        .withArgs(6, 0);
      await expect(registry.addSecretKeyByImage(`${V1}00`, [], false, SALT, "", "0x"))
        .to.be.revertedWithCustomError(registry, "ImageCodec_WrongLength")
        .withArgs(246, 247);
      const zeroRtmr3 = `${V1.slice(0, -96)}${"00".repeat(48)}`;
      await expect(registry.addSecretKeyByImage(zeroRtmr3, [], false, SALT, "", "0x"))
        .to.be.revertedWithCustomError(registry, "ImageCodec_ZeroRegister")
        .withArgs(KIND.tdx, 4);
    });

    it("given the creator used the salt before, for either sort of service, it refuses", async () => {
      const { registry, serviceId } = await networkHelpers.loadFixture(sealedService);
      await expect(registry.addSecretKeyByImage(V2, [], false, bytes32("sealed"), "", "0x"))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceAlreadyExists")
        .withArgs(serviceId);
    });

    it("given the same image under another salt, it makes another service with its own keys", async () => {
      const { registry, serviceId, deployer } = await networkHelpers.loadFixture(sealedService);
      await registry.addSecretKeyByImage(V1, [], false, SALT, "", "0x");
      const other = await registry.serviceIdFor(deployer.address, SALT);
      expect(other).not.to.equal(serviceId);
      expect(await registry.isImageActive(other, imageId(V1))).to.equal(true);
    });
  });

  describe("given a sealed service", () => {
    it("whoever calls whatever, it stays exactly as it was made", async () => {
      const scene = await networkHelpers.loadFixture(sealedService);
      const { registry, serviceId } = scene;
      const before = await registry.service(serviceId);
      const record = await registry.image(serviceId, imageId(V1));
      const hands = [scene.deployer, scene.governor, scene.guardian, scene.admin, scene.serviceGuardian, scene.eve];
      for (const hand of hands) {
        const as = registry.connect(hand);
        const notAdmin = [
          () => as.addImageToService(serviceId, V2, ""),
          () => as.addImagesToService(serviceId, [{ image: V2, description: "" }]),
          () => as.retireImageFromService(serviceId, imageId(V1), 2 ** 33),
          () => as.rotateServiceKey(serviceId),
          () => as.publishSealedSecrets(serviceId, "env", "0x01"),
          () => as.extendNoticePeriod(serviceId, 1),
          () => as.setServiceGuardian(serviceId, hand.address),
          () => as.setDevice(serviceId, DEVICE.one, true),
          () => as.restrictServiceDevices(serviceId, [DEVICE.one]),
          () => as.setRequireUpToDateTcb(serviceId, false),
          () => as.transferServiceAdmin(serviceId, hand.address),
          () => as.renounceServiceAdmin(serviceId),
        ];
        for (const call of notAdmin) {
          await expect(call())
            .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
            .withArgs(serviceId, hand.address, ZeroAddress);
        }
        const neither = [
          () => as.removeImageFromService(serviceId, imageId(V1), ""),
          () => as.removeImagesFromService(serviceId, [imageId(V1)], ""),
          () => as.withdrawPendingSecrets(serviceId, ""),
          () => as.setDevice(serviceId, DEVICE.one, false),
          () => as.setRequireUpToDateTcb(serviceId, true),
        ];
        for (const call of neither) {
          await expect(call())
            .to.be.revertedWithCustomError(registry, "KmsRegistry_NeitherAdminNorGuardian")
            .withArgs(serviceId, hand.address);
        }
        await expect(as.acceptServiceAdmin(serviceId))
          .to.be.revertedWithCustomError(registry, "KmsRegistry_NotPendingAdmin")
          .withArgs(serviceId, hand.address, ZeroAddress);
      }
      expect(await registry.service(serviceId)).to.deep.equal(before);
      expect(await registry.image(serviceId, imageId(V1))).to.deep.equal(record);
    });

    it("it lets its own image have the keys, and no other", async () => {
      const { registry, serviceId } = await networkHelpers.loadFixture(sealedService);
      expect(await registry.authorize(request(serviceId))).to.equal(DECISION.Allowed);
      expect(await registry.authorize(request(serviceId, { imageId: imageId(tdxImage("another")) }))).to.equal(
        DECISION.ImageUnknown,
      );
    });

    it("its device and TCB rules hold from the first moment", async () => {
      const { registry, deployer } = await networkHelpers.loadFixture(openSuite);
      await registry.addSecretKeyByImage(V1, [DEVICE.one], true, SALT, "", "0x");
      const serviceId = await registry.serviceIdFor(deployer.address, SALT);
      expect(await registry.authorize(request(serviceId))).to.equal(DECISION.Allowed);
      expect(await registry.authorize(request(serviceId, { deviceId: DEVICE.two }))).to.equal(
        DECISION.ServiceDeviceNotAllowed,
      );
      expect(await registry.authorize(request(serviceId, { tcbStatus: TCB.swHardeningNeeded }))).to.equal(
        DECISION.ServiceTcbNotUpToDate,
      );
    });

    it("its secrets can be read back from the log", async () => {
      const { registry } = await networkHelpers.loadFixture(openSuite);
      const receipt = await mined(
        registry.addSecretKeyByImage(V1, [], false, SALT, "", `0x${Buffer.from("sealed!").toString("hex")}`),
      );
      const last = receipt.logs.at(-1);
      if (!last) throw new Error("no log");
      const parsed = registry.interface.parseLog(last);
      expect(toUtf8String(parsed?.args.getValue("ciphertext"))).to.equal("sealed!");
    });
  });
});
