import { expect } from "chai";
import { connection } from "../../helpers/connection.ts";
import { expectHistory, mined } from "../../helpers/history.ts";
import { bareService, LIMIT, NO_SERVICE, renouncedService } from "../../helpers/registry.ts";
import { NOTICE } from "../../helpers/suite.ts";

const { networkHelpers } = connection;

describe("KmsRegistry: the notice period (extendNoticePeriod)", () => {
  it("given a longer one, it is in force at once", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
    const receipt = await mined(own.extendNoticePeriod(serviceId, NOTICE + 1));
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "ExtendNoticePeriod",
        fields: { admin: admin.address, previous: NOTICE, noticePeriod: NOTICE + 1 },
      },
    ]);
    const { noticePeriod, admin: still, upgradeable } = await registry.service(serviceId);
    expect([noticePeriod, still, upgradeable]).to.deep.equal([BigInt(NOTICE + 1), admin.address, true]);
  });

  it("when it is the same, shorter or zero, it refuses", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
    for (const requested of [NOTICE, NOTICE - 1, 0]) {
      await expect(own.extendNoticePeriod(serviceId, requested))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NoticePeriodNotLonger")
        .withArgs(serviceId, NOTICE, requested);
    }
  });

  it("when it is at its limit, it accepts it; a second longer, it refuses", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
    await expect(own.extendNoticePeriod(serviceId, LIMIT.notice + 1))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NoticePeriodTooLong")
      .withArgs(LIMIT.notice + 1, LIMIT.notice);
    await own.extendNoticePeriod(serviceId, LIMIT.notice);
    expect((await registry.service(serviceId)).noticePeriod).to.equal(BigInt(LIMIT.notice));
  });

  it("when the service does not exist, was renounced, or anyone but the admin calls, it refuses", async () => {
    const { own, registry, serviceId, admin, eve } = await networkHelpers.loadFixture(bareService);
    await expect(own.extendNoticePeriod(NO_SERVICE, NOTICE + 1))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
      .withArgs(NO_SERVICE);
    await expect(registry.connect(eve).extendNoticePeriod(serviceId, NOTICE + 1))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
      .withArgs(serviceId, eve.address, admin.address);
    const renounced = await networkHelpers.loadFixture(renouncedService);
    await expect(renounced.own.extendNoticePeriod(renounced.serviceId, NOTICE + 1)).to.be.revertedWithCustomError(
      registry,
      "KmsRegistry_NotAdmin",
    );
  });
});
