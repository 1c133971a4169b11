import { expect } from "chai";
import { ZeroAddress } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { expectHistory, mined, timeOf } from "../../helpers/history.ts";
import { image, imageId, KIND, measured, tdxImage } from "../../helpers/images.ts";
import {
  at,
  bareService,
  bytes32,
  config,
  LIMIT,
  NO_SERVICE,
  next,
  now,
  oneBlock,
  openSuite,
  renouncedService,
  STATE,
  serviceWithImage,
  V1,
  V2,
  V3,
} from "../../helpers/registry.ts";
import { NOTICE } from "../../helpers/suite.ts";

const { networkHelpers } = connection;

describe("KmsRegistry: adding images", () => {
  describe("addImageToService", () => {
    it("given no image yet, it lists the first, active at once", async () => {
      const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
      expect(await own.addImageToService.staticCall(serviceId, V1, "first")).to.equal(imageId(V1));
      const receipt = await mined(own.addImageToService(serviceId, V1, "first"));
      const time = await timeOf(receipt);
      await expectHistory(registry, serviceId, receipt, [
        {
          name: "AddImageToService",
          fields: { actor: admin.address, imageId: imageId(V1), image: V1, description: "first", activeFrom: time },
        },
      ]);
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

    it("given an image before it, it waits out the notice period to the second", async () => {
      const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(serviceWithImage);
      const receipt = await mined(own.addImageToService(serviceId, V2, "second"));
      const activeFrom = (await timeOf(receipt)) + NOTICE;
      await expectHistory(registry, serviceId, receipt, [
        {
          name: "AddImageToService",
          fields: { actor: admin.address, imageId: imageId(V2), image: V2, description: "second", activeFrom },
        },
      ]);
      expect((await registry.image(serviceId, imageId(V2))).activeFrom).to.equal(BigInt(activeFrom));
      await at(activeFrom - 1);
      expect(await registry.isImageActive(serviceId, imageId(V2))).to.equal(false);
      await at(activeFrom);
      expect(await registry.isImageActive(serviceId, imageId(V2))).to.equal(true);
      expect(await registry.isImageActive(serviceId, imageId(V1)), "the first stays").to.equal(true);
    });

    it("given the first image was removed, the next one waits all the same", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
      await own.removeImageFromService(serviceId, imageId(V1), "withdrawn");
      const time = await timeOf(await mined(own.addImageToService(serviceId, V2, "")));
      expect((await registry.image(serviceId, imageId(V2))).activeFrom).to.equal(BigInt(time + NOTICE));
      expect(await registry.isImageActive(serviceId, imageId(V2))).to.equal(false);
    });

    it("given the first image was removed, coming back it is pending like any other", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
      await own.removeImageFromService(serviceId, imageId(V1), "withdrawn");
      const time = await timeOf(await mined(own.addImageToService(serviceId, V1, "again")));
      expect(await registry.image(serviceId, imageId(V1))).to.deep.equal([
        BigInt(time + NOTICE),
        0n,
        STATE.listed,
        1n,
        0x1fn,
        false,
      ]);
      expect(await registry.isImageActive(serviceId, imageId(V1))).to.equal(false);
    });

    it("given an image's end has passed, it comes back as a new pending entry without an end", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
      const end = (await now()) + 100;
      await own.retireImageFromService(serviceId, imageId(V1), end);
      await next(end - 1);
      await expect(own.addImageToService(serviceId, V1, "too early"))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ImageAlreadyListed")
        .withArgs(serviceId, imageId(V1));
      await next(end);
      await own.addImageToService(serviceId, V1, "again");
      expect(await registry.image(serviceId, imageId(V1))).to.deep.equal([
        BigInt(end + NOTICE),
        0n,
        STATE.listed,
        1n,
        0x1fn,
        false,
      ]);
    });

    it("given the same image is active or pending, it refuses", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
      await own.addImageToService(serviceId, V2, "");
      for (const listed of [V1, V2]) {
        await expect(own.addImageToService(serviceId, listed, ""))
          .to.be.revertedWithCustomError(registry, "KmsRegistry_ImageAlreadyListed")
          .withArgs(serviceId, imageId(listed));
      }
    });

    it("given createServiceWithImage made the service, its image counts as the first", async () => {
      const { registry, admin } = await networkHelpers.loadFixture(openSuite);
      const own = registry.connect(admin);
      const salt = bytes32("with image");
      await own.createServiceWithImage(config(admin.address), salt, V1, "");
      const serviceId = await registry.serviceIdFor(admin.address, salt);
      const time = await timeOf(await mined(own.addImageToService(serviceId, V2, "")));
      expect((await registry.image(serviceId, imageId(V2))).activeFrom).to.equal(BigInt(time + NOTICE));
    });

    it("given a refused first image, the first that is accepted is active at once", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
      await expect(own.addImageToService(serviceId, "0x", "")).to.be.revertedWithCustomError(
        registry,
        "ImageCodec_WrongLength",
      );
      await own.addImageToService(serviceId, V1, "");
      expect(await registry.isImageActive(serviceId, imageId(V1))).to.equal(true);
    });

    it("given a notice period of zero, every image is active at once", async () => {
      const { registry, admin } = await networkHelpers.loadFixture(openSuite);
      const own = registry.connect(admin);
      const salt = bytes32("hasty");
      await own.createServiceWithImage(config(admin.address, { noticePeriod: 0 }), salt, V1, "");
      const serviceId = await registry.serviceIdFor(admin.address, salt);
      await own.addImageToService(serviceId, V2, "");
      expect(await registry.isImageActive(serviceId, imageId(V2))).to.equal(true);
    });

    it("given the notice period grew, pending images keep their time and later ones wait longer", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
      const second = await timeOf(await mined(own.addImageToService(serviceId, V2, "")));
      await own.extendNoticePeriod(serviceId, 2 * NOTICE);
      const third = await timeOf(await mined(own.addImageToService(serviceId, V3, "")));
      expect((await registry.image(serviceId, imageId(V2))).activeFrom).to.equal(BigInt(second + NOTICE));
      expect((await registry.image(serviceId, imageId(V3))).activeFrom).to.equal(BigInt(third + 2 * NOTICE));
    });

    it("when the text is at its limit, it accepts it; a byte longer, it refuses", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
      await own.addImageToService(serviceId, V1, "d".repeat(LIMIT.text));
      await expect(own.addImageToService(serviceId, V2, "d".repeat(LIMIT.text + 1)))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_TextTooLong")
        .withArgs(LIMIT.text + 1, LIMIT.text);
    });

    it("when the image names every register of its kind, it accepts it; a byte longer or shorter, it refuses", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
      const all = Object.fromEntries(Array.from({ length: 10 }, (_, bit) => [bit, measured(`register ${bit}`)]));
      const full = image(KIND.tdx, all);
      const size = 6 + 10 * 48;
      for (const [wrong, length] of [
        [`${full}00`, size + 1],
        [full.slice(0, -2), size - 1],
      ] as const) {
        await expect(own.addImageToService(serviceId, wrong, ""))
          .to.be.revertedWithCustomError(registry, "ImageCodec_WrongLength")
          .withArgs(size, length);
      }
      await own.addImageToService(serviceId, full, "");
      expect((await registry.image(serviceId, imageId(full))).mask).to.equal(0x3ffn);
    });

    it("when the image could stand for more than one thing, it refuses with the codec's error and values", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
      const refused: [string, string, unknown[]][] = [
        ["0x", "ImageCodec_WrongLength", [6, 0]],
        ["0x0101000000", "ImageCodec_WrongLength", [6, 5]],
        [`0x02${V1.slice(4)}`, "ImageCodec_WrongVersion", [2]],
        [`0x0100${V1.slice(6)}`, "ImageCodec_UnknownKind", [0]],
        [`0x0105${V1.slice(6)}`, "ImageCodec_UnknownKind", [5]],
        ["0x010100000000", "ImageCodec_MissingRegisters", [KIND.tdx, 0x1d]],
        ["0x01010000041d", "ImageCodec_UnknownRegisters", [KIND.tdx, 0x400]],
        [image(KIND.tdx, { 0: measured("a") }), "ImageCodec_MissingRegisters", [KIND.tdx, 0x1c]],
        [image(KIND.snp, { 0: "0x" }), "ImageCodec_ZeroRegister", [KIND.snp, 0]],
        [image(KIND.dstack, { 1: measured("a", 33) }), "ImageCodec_NonZeroPadding", [KIND.dstack, 1]],
      ];
      for (const [bad, error, values] of refused) {
        await expect(own.addImageToService(serviceId, bad, ""))
          .to.be.revertedWithCustomError(registry, error)
          .withArgs(...values);
      }
    });

    it("when the service does not exist, it refuses", async () => {
      const { own, registry } = await networkHelpers.loadFixture(bareService);
      await expect(own.addImageToService(NO_SERVICE, V1, ""))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
        .withArgs(NO_SERVICE);
    });

    it("when anyone but the admin calls, it refuses: creator, guardian, governor, eve", async () => {
      const scene = await networkHelpers.loadFixture(serviceWithImage);
      const { registry, serviceId, admin } = scene;
      for (const hand of [scene.deployer, scene.serviceGuardian, scene.governor, scene.guardian, scene.eve]) {
        await expect(registry.connect(hand).addImageToService(serviceId, V2, ""))
          .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
          .withArgs(serviceId, hand.address, admin.address);
      }
    });

    it("given the service was renounced, nobody can add, its former admin neither", async () => {
      const { registry, serviceId, admin, serviceGuardian } = await networkHelpers.loadFixture(renouncedService);
      for (const hand of [admin, serviceGuardian]) {
        await expect(registry.connect(hand).addImageToService(serviceId, V2, ""))
          .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
          .withArgs(serviceId, hand.address, ZeroAddress);
      }
    });
  });

  describe("addImagesToService", () => {
    const batch = [V1, V2, V3].map((bytes, index) => ({ image: bytes, description: `image ${index}` }));

    it("given no image yet, it lists all in order, the first of them active at once and the others after the notice", async () => {
      const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
      expect(await own.addImagesToService.staticCall(serviceId, batch)).to.deep.equal([V1, V2, V3].map(imageId));
      const receipt = await mined(own.addImagesToService(serviceId, batch));
      const time = await timeOf(receipt);
      await expectHistory(
        registry,
        serviceId,
        receipt,
        batch.map(({ image: bytes, description }, index) => ({
          name: "AddImageToService",
          fields: {
            actor: admin.address,
            imageId: imageId(bytes),
            image: bytes,
            description,
            activeFrom: index === 0 ? time : time + NOTICE,
          },
        })),
      );
      expect(await registry.isImageActive(serviceId, imageId(V1))).to.equal(true);
      expect(await registry.isImageActive(serviceId, imageId(V2))).to.equal(false);
    });

    it("given the same additions one by one in one block, it leads to the same history head", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
      const snapshot = await networkHelpers.takeSnapshot();
      const time = (await now()) + 10;
      await next(time);
      await own.addImagesToService(serviceId, batch);
      const head = await registry.historyHead(serviceId);
      await snapshot.restore();
      await next(time);
      await oneBlock(
        batch.map(
          ({ image: bytes, description }) =>
            () =>
              own.addImageToService(serviceId, bytes, description, { gasLimit: 1_000_000 }),
        ),
      );
      expect(await now()).to.equal(time);
      expect(await registry.historyHead(serviceId)).to.equal(head);
    });

    it("when it is empty, it refuses", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
      await expect(own.addImagesToService(serviceId, [])).to.be.revertedWithCustomError(
        registry,
        "KmsRegistry_EmptyBatch",
      );
    });

    it("when one image of it is bad, listed twice, or has too long a text, it lists none", async () => {
      const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
      const before = await registry.service(serviceId);
      const bad = { image: "0x", description: "" };
      await expect(own.addImagesToService(serviceId, [...batch, bad])).to.be.revertedWithCustomError(
        registry,
        "ImageCodec_WrongLength",
      );
      await expect(own.addImagesToService(serviceId, [...batch, { image: V1, description: "again" }]))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ImageAlreadyListed")
        .withArgs(serviceId, imageId(V1));
      const wordy = { image: tdxImage("v4"), description: "d".repeat(LIMIT.text + 1) };
      await expect(own.addImagesToService(serviceId, [...batch, wordy])).to.be.revertedWithCustomError(
        registry,
        "KmsRegistry_TextTooLong",
      );
      expect(await registry.service(serviceId)).to.deep.equal(before);
      expect((await registry.image(serviceId, imageId(V1))).state).to.equal(STATE.unknown);
    });

    it("when the service does not exist, or the caller is not its admin, it refuses", async () => {
      const { own, registry, serviceId, eve, admin } = await networkHelpers.loadFixture(bareService);
      await expect(own.addImagesToService(NO_SERVICE, batch))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
        .withArgs(NO_SERVICE);
      await expect(registry.connect(eve).addImagesToService(serviceId, batch))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(serviceId, eve.address, admin.address);
    });
  });
});
