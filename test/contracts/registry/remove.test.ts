import { expect } from "chai";
import { connection } from "../../helpers/connection.ts";
import { DECISION } from "../../helpers/decisions.ts";
import { expectHistory, mined } from "../../helpers/history.ts";
import { imageId } from "../../helpers/images.ts";
import {
  at,
  guardedService,
  LIMIT,
  NO_IMAGE,
  NO_SERVICE,
  next,
  now,
  renouncedService,
  request,
  STATE,
  serviceWithImage,
  V1,
  V2,
} from "../../helpers/registry.ts";
import { NOTICE } from "../../helpers/suite.ts";

const { networkHelpers } = connection;

describe("KmsRegistry: removing images (removeImageFromService)", () => {
  it("given an active image, when its admin removes it, it is denied from that block on", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(serviceWithImage);
    const before = await registry.image(serviceId, imageId(V1));
    const receipt = await mined(own.removeImageFromService(serviceId, imageId(V1), "CVE-2026-1"));
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "RemoveImageFromService",
        fields: { actor: admin.address, imageId: imageId(V1), reason: "CVE-2026-1" },
      },
    ]);
    expect(await registry.image(serviceId, imageId(V1)), "all but the state is kept").to.deep.equal([
      before.activeFrom,
      before.activeUntil,
      STATE.removed,
      before.kind,
      before.mask,
      before.restrictsDevices,
    ]);
    expect(await registry.isImageActive(serviceId, imageId(V1))).to.equal(false);
    expect(await registry.authorize(request(serviceId))).to.equal(DECISION.ImageRemoved);
  });

  it("given a guardian, when it removes an active image, the log names the guardian as actor", async () => {
    const { registry, serviceId, serviceGuardian } = await networkHelpers.loadFixture(guardedService);
    const receipt = await mined(
      registry.connect(serviceGuardian).removeImageFromService(serviceId, imageId(V1), "veto"),
    );
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "RemoveImageFromService",
        fields: { actor: serviceGuardian.address, imageId: imageId(V1), reason: "veto" },
      },
    ]);
    expect(await registry.isImageActive(serviceId, imageId(V1))).to.equal(false);
  });

  it("given a pending image, when the guardian removes it a second before its time, it never becomes active", async () => {
    const { own, registry, serviceId, serviceGuardian } = await networkHelpers.loadFixture(guardedService);
    await own.addImageToService(serviceId, V2, "");
    const activeFrom = Number((await registry.image(serviceId, imageId(V2))).activeFrom);
    await next(activeFrom - 1);
    await registry.connect(serviceGuardian).removeImageFromService(serviceId, imageId(V2), "veto");
    for (const time of [activeFrom, activeFrom + NOTICE]) {
      await at(time);
      expect(await registry.isImageActive(serviceId, imageId(V2))).to.equal(false);
      expect(await registry.authorize(request(serviceId, { imageId: imageId(V2) }))).to.equal(DECISION.ImageRemoved);
    }
  });

  it("given a retiring image, it can be removed before its end and not from it on", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    const end = (await now()) + 100;
    await own.retireImageFromService(serviceId, imageId(V1), end);
    const snapshot = await networkHelpers.takeSnapshot();
    await next(end - 1);
    await own.removeImageFromService(serviceId, imageId(V1), "");
    expect((await registry.image(serviceId, imageId(V1))).state).to.equal(STATE.removed);
    await snapshot.restore();
    await next(end);
    await expect(own.removeImageFromService(serviceId, imageId(V1), ""))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_ImageNotListed")
      .withArgs(serviceId, imageId(V1));
  });

  it("given a renounced service, its guardian can still remove, for ever", async () => {
    const { registry, serviceId, serviceGuardian } = await networkHelpers.loadFixture(renouncedService);
    await at((await now()) + LIMIT.notice);
    await registry.connect(serviceGuardian).removeImageFromService(serviceId, imageId(V1), "end of life");
    expect(await registry.authorize(request(serviceId))).to.equal(DECISION.ImageRemoved);
  });

  it("given a renounced service, its former admin can not remove", async () => {
    const { registry, serviceId, admin } = await networkHelpers.loadFixture(renouncedService);
    await expect(registry.connect(admin).removeImageFromService(serviceId, imageId(V1), ""))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NeitherAdminNorGuardian")
      .withArgs(serviceId, admin.address);
  });

  it("when the image is removed already, or was never listed, it refuses", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await own.removeImageFromService(serviceId, imageId(V1), "");
    for (const id of [imageId(V1), imageId(V2), NO_IMAGE]) {
      await expect(own.removeImageFromService(serviceId, id, ""))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ImageNotListed")
        .withArgs(serviceId, id);
    }
  });

  it("when the reason is empty or at its limit, it accepts it; a byte longer, it refuses", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await own.addImageToService(serviceId, V2, "");
    await expect(own.removeImageFromService(serviceId, imageId(V1), "r".repeat(LIMIT.text + 1)))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_TextTooLong")
      .withArgs(LIMIT.text + 1, LIMIT.text);
    await own.removeImageFromService(serviceId, imageId(V1), "r".repeat(LIMIT.text));
    await own.removeImageFromService(serviceId, imageId(V2), "");
    expect((await registry.image(serviceId, imageId(V2))).state).to.equal(STATE.removed);
  });

  it("when the service does not exist, it refuses", async () => {
    const { own, registry } = await networkHelpers.loadFixture(serviceWithImage);
    await expect(own.removeImageFromService(NO_SERVICE, imageId(V1), ""))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
      .withArgs(NO_SERVICE);
  });

  it("when neither admin nor service guardian calls, it refuses: creator, suite's guardian and governor, eve", async () => {
    const scene = await networkHelpers.loadFixture(guardedService);
    const { registry, serviceId } = scene;
    for (const hand of [scene.deployer, scene.guardian, scene.governor, scene.successor, scene.eve]) {
      await expect(registry.connect(hand).removeImageFromService(serviceId, imageId(V1), ""))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NeitherAdminNorGuardian")
        .withArgs(serviceId, hand.address);
    }
  });
});
