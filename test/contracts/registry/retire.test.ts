import { expect } from "chai";
import { connection } from "../../helpers/connection.ts";
import { DECISION } from "../../helpers/decisions.ts";
import { expectHistory, mined } from "../../helpers/history.ts";
import { imageId } from "../../helpers/images.ts";
import {
  at,
  guardedService,
  NO_IMAGE,
  NO_SERVICE,
  next,
  now,
  request,
  STATE,
  serviceWithImage,
  V1,
  V2,
} from "../../helpers/registry.ts";

const { networkHelpers } = connection;
const MAX_UINT40 = 2n ** 40n - 1n;

describe("KmsRegistry: retiring images (retireImageFromService)", () => {
  it("given an active image, it gives it an end, to the second", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(serviceWithImage);
    const end = (await now()) + 1000;
    const before = await registry.image(serviceId, imageId(V1));
    const receipt = await mined(own.retireImageFromService(serviceId, imageId(V1), end));
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "RetireImageFromService",
        fields: { admin: admin.address, imageId: imageId(V1), previousUntil: 0, activeUntil: end },
      },
    ]);
    expect(await registry.image(serviceId, imageId(V1))).to.deep.equal([
      before.activeFrom,
      BigInt(end),
      STATE.listed,
      before.kind,
      before.mask,
      before.restrictsDevices,
    ]);
    await at(end - 1);
    expect(await registry.isImageActive(serviceId, imageId(V1))).to.equal(true);
    expect(await registry.authorize(request(serviceId))).to.equal(DECISION.Allowed);
    await at(end);
    expect(await registry.isImageActive(serviceId, imageId(V1))).to.equal(false);
    expect(await registry.authorize(request(serviceId))).to.equal(DECISION.ImageRetired);
  });

  it("given an end, it can be brought forward, and the log tells the end before", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(serviceWithImage);
    const end = (await now()) + 1000;
    await own.retireImageFromService(serviceId, imageId(V1), end);
    const receipt = await mined(own.retireImageFromService(serviceId, imageId(V1), end - 1));
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "RetireImageFromService",
        fields: { admin: admin.address, imageId: imageId(V1), previousUntil: end, activeUntil: end - 1 },
      },
    ]);
  });

  it("given an end, when it is put off or stays, it refuses", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    const end = (await now()) + 1000;
    await own.retireImageFromService(serviceId, imageId(V1), end);
    for (const later of [end, end + 1, MAX_UINT40]) {
      const time = (await now()) + 1;
      await next(time);
      await expect(own.retireImageFromService(serviceId, imageId(V1), later))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_BadRetirement")
        .withArgs(serviceId, imageId(V1), later, time, end);
    }
  });

  it("given an active image, when its end is zero, past or now, it refuses; a second ahead, it accepts", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    const time = (await now()) + 100;
    for (const [offset, end] of [
      [0, 0],
      [1, time - 1],
      [2, time + 2],
    ] as const) {
      await next(time + offset);
      await expect(own.retireImageFromService(serviceId, imageId(V1), end))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_BadRetirement")
        .withArgs(serviceId, imageId(V1), end, time + offset, 0);
    }
    await next(time + 3);
    await own.retireImageFromService(serviceId, imageId(V1), time + 4);
    expect((await registry.image(serviceId, imageId(V1))).activeUntil).to.equal(BigInt(time + 4));
  });

  it("given a pending image, its end must lie after its beginning", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await own.addImageToService(serviceId, V2, "");
    const { activeFrom } = await registry.image(serviceId, imageId(V2));
    await expect(own.retireImageFromService(serviceId, imageId(V2), activeFrom))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_BadRetirement")
      .withArgs(serviceId, imageId(V2), activeFrom, activeFrom, 0);
    await own.retireImageFromService(serviceId, imageId(V2), activeFrom + 1n);
    await at(Number(activeFrom));
    expect(await registry.isImageActive(serviceId, imageId(V2))).to.equal(true);
    await at(Number(activeFrom) + 1);
    expect(await registry.isImageActive(serviceId, imageId(V2))).to.equal(false);
  });

  it("given the last moment that the clock can hold, it accepts it", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await own.retireImageFromService(serviceId, imageId(V1), MAX_UINT40);
    expect((await registry.image(serviceId, imageId(V1))).activeUntil).to.equal(MAX_UINT40);
    expect(await registry.isImageActive(serviceId, imageId(V1))).to.equal(true);
  });

  it("given the image was never listed, was removed, or its end has passed, it refuses", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await own.addImageToService(serviceId, V2, "");
    await own.removeImageFromService(serviceId, imageId(V2), "");
    const end = (await now()) + 100;
    await own.retireImageFromService(serviceId, imageId(V1), end);
    await next(end);
    for (const id of [imageId(V1), imageId(V2), NO_IMAGE]) {
      await expect(own.retireImageFromService(serviceId, id, end + 1000))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ImageNotListed")
        .withArgs(serviceId, id);
    }
  });

  it("given a retired image was added again, its old end is forgotten and it may be given a new one", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    const end = (await now()) + 100;
    await own.retireImageFromService(serviceId, imageId(V1), end);
    await next(end);
    await own.addImageToService(serviceId, V1, "");
    const { activeFrom, activeUntil } = await registry.image(serviceId, imageId(V1));
    expect(activeUntil).to.equal(0n);
    await own.retireImageFromService(serviceId, imageId(V1), activeFrom + 500n);
    expect((await registry.image(serviceId, imageId(V1))).activeUntil).to.equal(activeFrom + 500n);
  });

  it("when the service does not exist, or anyone but the admin calls, it refuses, the guardian too", async () => {
    const scene = await networkHelpers.loadFixture(guardedService);
    const { own, registry, serviceId, admin } = scene;
    const end = (await now()) + 1000;
    await expect(own.retireImageFromService(NO_SERVICE, imageId(V1), end))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
      .withArgs(NO_SERVICE);
    for (const hand of [scene.serviceGuardian, scene.deployer, scene.governor, scene.eve]) {
      await expect(registry.connect(hand).retireImageFromService(serviceId, imageId(V1), end))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(serviceId, hand.address, admin.address);
    }
  });
});
