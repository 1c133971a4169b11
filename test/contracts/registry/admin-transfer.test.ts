import { expect } from "chai";
import { ZeroAddress } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { DECISION } from "../../helpers/decisions.ts";
import { expectHistory, mined } from "../../helpers/history.ts";
import {
  bareService,
  guardedService,
  NO_SERVICE,
  renouncedService,
  request,
  sealedService,
  V2,
} from "../../helpers/registry.ts";

const { networkHelpers } = connection;

async function offeredService() {
  const scene = await bareService();
  await scene.own.transferServiceAdmin(scene.serviceId, scene.successor.address);
  return scene;
}

describe("KmsRegistry: the service's admin", () => {
  describe("transferServiceAdmin", () => {
    it("given no offer, it names a successor, who has no power until it accepts", async () => {
      const { own, registry, serviceId, admin, successor } = await networkHelpers.loadFixture(bareService);
      const receipt = await mined(own.transferServiceAdmin(serviceId, successor.address));
      await expectHistory(registry, serviceId, receipt, [
        {
          name: "TransferServiceAdmin",
          fields: { admin: admin.address, pendingAdmin: successor.address, previousPending: ZeroAddress },
        },
      ]);
      const { admin: still, pendingAdmin } = await registry.service(serviceId);
      expect([still, pendingAdmin]).to.deep.equal([admin.address, successor.address]);
      await expect(registry.connect(successor).rotateServiceKey(serviceId))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(serviceId, successor.address, admin.address);
      await own.rotateServiceKey(serviceId);
    });

    it("given an offer, another successor takes its place", async () => {
      const { own, registry, serviceId, admin, successor, eve } = await networkHelpers.loadFixture(offeredService);
      const receipt = await mined(own.transferServiceAdmin(serviceId, eve.address));
      await expectHistory(registry, serviceId, receipt, [
        {
          name: "TransferServiceAdmin",
          fields: { admin: admin.address, pendingAdmin: eve.address, previousPending: successor.address },
        },
      ]);
      await expect(registry.connect(successor).acceptServiceAdmin(serviceId))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotPendingAdmin")
        .withArgs(serviceId, successor.address, eve.address);
    });

    it("given an offer, zero withdraws it", async () => {
      const { own, registry, serviceId, admin, successor } = await networkHelpers.loadFixture(offeredService);
      const receipt = await mined(own.transferServiceAdmin(serviceId, ZeroAddress));
      await expectHistory(registry, serviceId, receipt, [
        {
          name: "TransferServiceAdmin",
          fields: { admin: admin.address, pendingAdmin: ZeroAddress, previousPending: successor.address },
        },
      ]);
      await expect(registry.connect(successor).acceptServiceAdmin(serviceId))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotPendingAdmin")
        .withArgs(serviceId, successor.address, ZeroAddress);
    });

    it("when the offer stays as it is, it refuses", async () => {
      const { own, registry, serviceId, successor } = await networkHelpers.loadFixture(bareService);
      await expect(own.transferServiceAdmin(serviceId, ZeroAddress))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_Unchanged")
        .withArgs(serviceId);
      await own.transferServiceAdmin(serviceId, successor.address);
      await expect(own.transferServiceAdmin(serviceId, successor.address))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_Unchanged")
        .withArgs(serviceId);
    });

    it("when the service does not exist, or anyone but the admin calls, it refuses", async () => {
      const { own, registry, serviceId, admin, successor, deployer } = await networkHelpers.loadFixture(offeredService);
      await expect(own.transferServiceAdmin(NO_SERVICE, successor.address))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
        .withArgs(NO_SERVICE);
      for (const hand of [successor, deployer]) {
        await expect(registry.connect(hand).transferServiceAdmin(serviceId, hand.address))
          .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
          .withArgs(serviceId, hand.address, admin.address);
      }
    });
  });

  describe("acceptServiceAdmin", () => {
    it("given an offer, the successor takes over all at once and the former admin is nobody", async () => {
      const { own, registry, serviceId, admin, successor } = await networkHelpers.loadFixture(offeredService);
      const before = await registry.service(serviceId);
      const receipt = await mined(registry.connect(successor).acceptServiceAdmin(serviceId));
      await expectHistory(registry, serviceId, receipt, [
        { name: "AcceptServiceAdmin", fields: { admin: successor.address, previous: admin.address } },
      ]);
      const after = await registry.service(serviceId);
      expect([after.admin, after.pendingAdmin]).to.deep.equal([successor.address, ZeroAddress]);
      expect([after.noticePeriod, after.upgradeable]).to.deep.equal([before.noticePeriod, before.upgradeable]);
      await expect(own.rotateServiceKey(serviceId))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(serviceId, admin.address, successor.address);
      await registry.connect(successor).rotateServiceKey(serviceId);
    });

    it("given it was accepted, it cannot be accepted again, nor taken back", async () => {
      const { own, registry, serviceId, admin, successor } = await networkHelpers.loadFixture(offeredService);
      await registry.connect(successor).acceptServiceAdmin(serviceId);
      for (const hand of [successor, admin]) {
        await expect(registry.connect(hand).acceptServiceAdmin(serviceId))
          .to.be.revertedWithCustomError(registry, "KmsRegistry_NotPendingAdmin")
          .withArgs(serviceId, hand.address, ZeroAddress);
      }
      await expect(own.transferServiceAdmin(serviceId, admin.address)).to.be.revertedWithCustomError(
        registry,
        "KmsRegistry_NotAdmin",
      );
    });

    it("given a takeover, the guardian stays in office, and the notice period with it", async () => {
      const { own, registry, serviceId, successor, serviceGuardian } = await networkHelpers.loadFixture(guardedService);
      await own.transferServiceAdmin(serviceId, successor.address);
      await registry.connect(successor).acceptServiceAdmin(serviceId);
      expect((await registry.service(serviceId)).guardian).to.equal(serviceGuardian.address);
    });

    it("when anyone but the successor calls, it refuses: the admin, the creator, eve", async () => {
      const scene = await networkHelpers.loadFixture(offeredService);
      const { registry, serviceId, successor } = scene;
      for (const hand of [scene.admin, scene.deployer, scene.eve, scene.governor]) {
        await expect(registry.connect(hand).acceptServiceAdmin(serviceId))
          .to.be.revertedWithCustomError(registry, "KmsRegistry_NotPendingAdmin")
          .withArgs(serviceId, hand.address, successor.address);
      }
    });

    it("when the service does not exist, it refuses", async () => {
      const { registry, successor } = await networkHelpers.loadFixture(offeredService);
      await expect(registry.connect(successor).acceptServiceAdmin(NO_SERVICE))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
        .withArgs(NO_SERVICE);
    });
  });

  describe("renounceServiceAdmin", () => {
    it("given a service, it leaves it without admin, for good; its images go on", async () => {
      const { own, registry, serviceId, admin, serviceGuardian } = await networkHelpers.loadFixture(guardedService);
      const receipt = await mined(own.renounceServiceAdmin(serviceId));
      await expectHistory(registry, serviceId, receipt, [
        { name: "RenounceServiceAdmin", fields: { previous: admin.address } },
      ]);
      const { admin: none, guardian, upgradeable } = await registry.service(serviceId);
      expect([none, guardian, upgradeable]).to.deep.equal([ZeroAddress, serviceGuardian.address, true]);
      expect(await registry.authorize(request(serviceId))).to.equal(DECISION.Allowed);
    });

    it("given an offer to a successor, it is withdrawn with it", async () => {
      const { own, registry, serviceId, successor } = await networkHelpers.loadFixture(offeredService);
      await own.renounceServiceAdmin(serviceId);
      expect((await registry.service(serviceId)).pendingAdmin).to.equal(ZeroAddress);
      await expect(registry.connect(successor).acceptServiceAdmin(serviceId))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotPendingAdmin")
        .withArgs(serviceId, successor.address, ZeroAddress);
    });

    it("given it was renounced, nobody can do anything but what the guardian could, governance neither", async () => {
      const scene = await networkHelpers.loadFixture(renouncedService);
      const { registry, serviceId } = scene;
      for (const hand of [scene.admin, scene.deployer, scene.governor, scene.guardian, scene.serviceGuardian]) {
        const as = registry.connect(hand);
        const calls = [
          () => as.addImageToService(serviceId, V2, ""),
          () => as.addImagesToService(serviceId, [{ image: V2, description: "" }]),
          () => as.setServiceGuardian(serviceId, hand.address),
          () => as.transferServiceAdmin(serviceId, hand.address),
          () => as.rotateServiceKey(serviceId),
          () => as.publishSealedSecrets(serviceId, "env", "0x01"),
          () => as.renounceServiceAdmin(serviceId),
        ];
        for (const call of calls) {
          await expect(call())
            .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
            .withArgs(serviceId, hand.address, ZeroAddress);
        }
      }
    });

    it("when the service does not exist, is sealed, or anyone but the admin calls, it refuses", async () => {
      const { own, registry, serviceId, admin, eve } = await networkHelpers.loadFixture(bareService);
      await expect(own.renounceServiceAdmin(NO_SERVICE))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
        .withArgs(NO_SERVICE);
      await expect(registry.connect(eve).renounceServiceAdmin(serviceId))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(serviceId, eve.address, admin.address);
      const sealed = await networkHelpers.loadFixture(sealedService);
      await expect(sealed.registry.renounceServiceAdmin(sealed.serviceId))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(sealed.serviceId, sealed.deployer.address, ZeroAddress);
    });
  });
});
