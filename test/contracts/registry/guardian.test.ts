import { expect } from "chai";
import { ZeroAddress } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { DECISION } from "../../helpers/decisions.ts";
import { expectHistory, mined, timeOf } from "../../helpers/history.ts";
import { imageId } from "../../helpers/images.ts";
import {
  at,
  bytes32,
  config,
  guardedService,
  NO_SERVICE,
  next,
  now,
  oneBlock,
  openSuite,
  renouncedService,
  request,
  serviceWithImage,
  V1,
  V2,
} from "../../helpers/registry.ts";
import { NOTICE } from "../../helpers/suite.ts";

const { networkHelpers } = connection;

describe("KmsRegistry: the service's guardian (setServiceGuardian)", () => {
  it("given none, naming the first works at once", async () => {
    const { own, registry, serviceId, admin, serviceGuardian } = await networkHelpers.loadFixture(serviceWithImage);
    const receipt = await mined(own.setServiceGuardian(serviceId, serviceGuardian.address));
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "SetServiceGuardian",
        fields: {
          admin: admin.address,
          guardian: serviceGuardian.address,
          previous: ZeroAddress,
          effectiveFrom: await timeOf(receipt),
        },
      },
    ]);
    const { guardian, nextGuardian, nextGuardianFrom } = await registry.service(serviceId);
    expect([guardian, nextGuardian, nextGuardianFrom]).to.deep.equal([serviceGuardian.address, ZeroAddress, 0n]);
    await registry.connect(serviceGuardian).removeImageFromService(serviceId, imageId(V1), "");
  });

  it("given one, replacing it waits out the notice period, to the second; until then the old one has the veto", async () => {
    const { own, registry, serviceId, admin, serviceGuardian, eve } = await networkHelpers.loadFixture(guardedService);
    const receipt = await mined(own.setServiceGuardian(serviceId, eve.address));
    const effectiveFrom = (await timeOf(receipt)) + NOTICE;
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "SetServiceGuardian",
        fields: { admin: admin.address, guardian: eve.address, previous: serviceGuardian.address, effectiveFrom },
      },
    ]);
    await at(effectiveFrom - 1);
    const before = await registry.service(serviceId);
    expect([before.guardian, before.nextGuardian, before.nextGuardianFrom]).to.deep.equal([
      serviceGuardian.address,
      eve.address,
      BigInt(effectiveFrom),
    ]);
    await at(effectiveFrom);
    const after = await registry.service(serviceId);
    expect([after.guardian, after.nextGuardian, after.nextGuardianFrom]).to.deep.equal([eve.address, ZeroAddress, 0n]);
  });

  it("given a replacement under way, the one acts until the second before, the other from then on", async () => {
    const { own, registry, serviceId, serviceGuardian, eve } = await networkHelpers.loadFixture(guardedService);
    const effectiveFrom = (await timeOf(await mined(own.setServiceGuardian(serviceId, eve.address)))) + NOTICE;
    const remove = (hand: typeof eve) => registry.connect(hand).removeImageFromService(serviceId, imageId(V1), "");
    const snapshot = await networkHelpers.takeSnapshot();

    await next(effectiveFrom - 2);
    await expect(remove(eve))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NeitherAdminNorGuardian")
      .withArgs(serviceId, eve.address);
    await next(effectiveFrom - 1);
    await remove(serviceGuardian);
    await snapshot.restore();

    await next(effectiveFrom);
    await expect(remove(serviceGuardian))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NeitherAdminNorGuardian")
      .withArgs(serviceId, serviceGuardian.address);
    await remove(eve);
  });

  it("given a stolen admin key adds an image and dismisses the guardian in one block, the guardian can still veto", async () => {
    const { own, registry, serviceId, serviceGuardian } = await networkHelpers.loadFixture(guardedService);
    await oneBlock([
      () => own.setServiceGuardian(serviceId, ZeroAddress, { gasLimit: 500_000 }),
      () => own.addImageToService(serviceId, V2, "trust me", { gasLimit: 500_000 }),
    ]);
    const { activeFrom } = await registry.image(serviceId, imageId(V2));
    expect((await registry.service(serviceId)).nextGuardianFrom, "both in one block").to.equal(activeFrom);

    await next(Number(activeFrom) - 1);
    await registry.connect(serviceGuardian).removeImageFromService(serviceId, imageId(V2), "stolen key");
    await at(Number(activeFrom));
    expect(await registry.authorize(request(serviceId, { imageId: imageId(V2) }))).to.equal(DECISION.ImageRemoved);
  });

  it("given a stolen admin key names guardians again and again, the old one stays in office until the last named is due", async () => {
    const { own, registry, serviceId, serviceGuardian, eve, successor } =
      await networkHelpers.loadFixture(guardedService);
    await own.setServiceGuardian(serviceId, eve.address);
    await at((await now()) + NOTICE - 10);
    const last = await timeOf(await mined(own.setServiceGuardian(serviceId, successor.address)));
    await at(last + NOTICE - 1);
    expect((await registry.service(serviceId)).guardian).to.equal(serviceGuardian.address);
    await at(last + NOTICE);
    expect((await registry.service(serviceId)).guardian).to.equal(successor.address);
  });

  it("given a replacement under way, naming the old one again calls it off", async () => {
    const { own, registry, serviceId, admin, serviceGuardian, eve } = await networkHelpers.loadFixture(guardedService);
    await own.setServiceGuardian(serviceId, eve.address);
    const receipt = await mined(own.setServiceGuardian(serviceId, serviceGuardian.address));
    const effectiveFrom = (await timeOf(receipt)) + NOTICE;
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "SetServiceGuardian",
        fields: {
          admin: admin.address,
          guardian: serviceGuardian.address,
          previous: serviceGuardian.address,
          effectiveFrom,
        },
      },
    ]);
    for (const time of [effectiveFrom - 1, effectiveFrom, effectiveFrom + NOTICE]) {
      await at(time);
      expect((await registry.service(serviceId)).guardian).to.equal(serviceGuardian.address);
    }
  });

  it("given a dismissal that has taken effect, nobody has the veto, and the next guardian is named at once", async () => {
    const { own, registry, serviceId, serviceGuardian, eve } = await networkHelpers.loadFixture(guardedService);
    await own.setServiceGuardian(serviceId, ZeroAddress);
    await at((await now()) + NOTICE);
    expect((await registry.service(serviceId)).guardian).to.equal(ZeroAddress);
    await expect(registry.connect(serviceGuardian).removeImageFromService(serviceId, imageId(V1), ""))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NeitherAdminNorGuardian")
      .withArgs(serviceId, serviceGuardian.address);
    await own.setServiceGuardian(serviceId, eve.address);
    expect((await registry.service(serviceId)).guardian).to.equal(eve.address);
  });

  it("given a notice period that grew meanwhile, a change under way keeps its time", async () => {
    const { own, registry, serviceId, eve } = await networkHelpers.loadFixture(guardedService);
    const effectiveFrom = (await timeOf(await mined(own.setServiceGuardian(serviceId, eve.address)))) + NOTICE;
    await own.extendNoticePeriod(serviceId, 2 * NOTICE);
    expect((await registry.service(serviceId)).nextGuardianFrom).to.equal(BigInt(effectiveFrom));
  });

  it("given a notice period of zero, a replacement works at once", async () => {
    const { registry, admin, eve, serviceGuardian } = await networkHelpers.loadFixture(openSuite);
    const own = registry.connect(admin);
    await own.createService(config(admin.address, { noticePeriod: 0 }), bytes32("hasty"));
    const serviceId = await registry.serviceIdFor(admin.address, bytes32("hasty"));
    await own.setServiceGuardian(serviceId, serviceGuardian.address);
    await own.setServiceGuardian(serviceId, eve.address);
    expect((await registry.service(serviceId)).guardian).to.equal(eve.address);
  });

  it("when it would leave everything as it is, it refuses: none, the one in office, the one under way", async () => {
    const { own, registry, serviceId, serviceGuardian, eve } = await networkHelpers.loadFixture(serviceWithImage);
    const unchanged = (guardian: string) =>
      expect(own.setServiceGuardian(serviceId, guardian))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_Unchanged")
        .withArgs(serviceId);
    await unchanged(ZeroAddress);
    await own.setServiceGuardian(serviceId, serviceGuardian.address);
    await unchanged(serviceGuardian.address);
    await own.setServiceGuardian(serviceId, eve.address);
    await unchanged(eve.address);
    await at((await now()) + NOTICE);
    await unchanged(eve.address);
  });

  it("the guardian can remove, and nothing else", async () => {
    const { registry, serviceId, admin, serviceGuardian } = await networkHelpers.loadFixture(guardedService);
    const as = registry.connect(serviceGuardian);
    const calls = [
      () => as.addImageToService(serviceId, V2, ""),
      () => as.retireImageFromService(serviceId, imageId(V1), 2 ** 33),
      () => as.setServiceGuardian(serviceId, ZeroAddress),
      () => as.rotateServiceKey(serviceId),
      () => as.transferServiceAdmin(serviceId, serviceGuardian.address),
      () => as.renounceServiceAdmin(serviceId),
    ];
    for (const call of calls) {
      await expect(call())
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(serviceId, serviceGuardian.address, admin.address);
    }
  });

  it("when the service does not exist, was renounced, or anyone but the admin calls, it refuses", async () => {
    const { own, registry, serviceId, admin, eve } = await networkHelpers.loadFixture(serviceWithImage);
    await expect(own.setServiceGuardian(NO_SERVICE, eve.address))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
      .withArgs(NO_SERVICE);
    await expect(registry.connect(eve).setServiceGuardian(serviceId, eve.address))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
      .withArgs(serviceId, eve.address, admin.address);
    const renounced = await networkHelpers.loadFixture(renouncedService);
    await expect(renounced.own.setServiceGuardian(renounced.serviceId, eve.address))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
      .withArgs(renounced.serviceId, admin.address, ZeroAddress);
  });
});
