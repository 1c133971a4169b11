import { expect } from "chai";
import { AbiCoder, dataSlice, keccak256, ZeroAddress, ZeroHash } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { expectHistory, fieldsOf, mined, timeOf } from "../../helpers/history.ts";
import { dstackImage, imageId, KIND, nitroImage, snpImage } from "../../helpers/images.ts";
import {
  bareService,
  bytes32,
  config,
  DEVICE,
  devices,
  LIMIT,
  openSuite,
  STATE,
  serviceWithImage,
  V1,
} from "../../helpers/registry.ts";
import { NOTICE } from "../../helpers/suite.ts";

const { networkHelpers } = connection;
const SALT = bytes32("salt");

describe("KmsRegistry: creating an upgradeable service", () => {
  describe("createService", () => {
    it("given a free salt, it stores the service as configured and logs CreateService", async () => {
      const { registry, deployer, admin } = await networkHelpers.loadFixture(openSuite);
      const serviceId = await registry.serviceIdFor(deployer.address, SALT);
      const receipt = await mined(registry.createService(config(admin.address, { requireUpToDateTcb: true }), SALT));

      await expectHistory(registry, serviceId, receipt, [
        {
          name: "CreateService",
          fields: {
            creator: deployer.address,
            pendingAdmin: admin.address,
            noticePeriod: NOTICE,
            requireUpToDateTcb: true,
            description: "payments, production",
          },
        },
      ]);
      const { historyHead, lastUpdateBlock, ...made } = fieldsOf(await registry.service(serviceId));
      expect(made).to.deep.equal({
        exists: true,
        upgradeable: true,
        admin: deployer.address,
        pendingAdmin: admin.address,
        guardian: ZeroAddress,
        noticePeriod: BigInt(NOTICE),
        keyEpoch: 0n,
        requireUpToDateTcb: true,
        restrictDevices: false,
        tcbRuleEnds: 0n,
        nextGuardian: ZeroAddress,
        nextGuardianFrom: 0n,
        formerGuardian: ZeroAddress,
        formerGuardianUntil: 0n,
        rotatedAt: 0n,
        sequence: 1n,
      });
      expect(historyHead).not.to.equal(ZeroHash);
      expect(lastUpdateBlock).to.equal(BigInt(receipt.blockNumber));
    });

    it("returns the id that serviceIdFor foretells", async () => {
      const { registry, deployer, admin } = await networkHelpers.loadFixture(openSuite);
      expect(await registry.createService.staticCall(config(admin.address), SALT)).to.equal(
        await registry.serviceIdFor(deployer.address, SALT),
      );
    });

    it("when it starts with devices, it lists each with an event of its own, counting at once", async () => {
      const { registry, deployer, admin } = await networkHelpers.loadFixture(openSuite);
      const serviceId = await registry.serviceIdFor(deployer.address, SALT);
      const listed = [DEVICE.one, DEVICE.two];
      const receipt = await mined(registry.createService(config(admin.address, { devices: listed }), SALT));
      const time = await timeOf(receipt);

      await expectHistory(registry, serviceId, receipt, [
        {
          name: "CreateService",
          fields: {
            creator: deployer.address,
            pendingAdmin: admin.address,
            noticePeriod: NOTICE,
            requireUpToDateTcb: false,
            description: "payments, production",
          },
        },
        ...listed.map((deviceId) => ({
          name: "SetDevice",
          fields: { actor: deployer.address, deviceId, allowed: true, effectiveFrom: time },
        })),
      ]);
      expect((await registry.service(serviceId)).restrictDevices).to.equal(true);
      expect(await registry.isDeviceAllowed(serviceId, DEVICE.two)).to.deep.equal([true, BigInt(time)]);
      expect(await registry.isDeviceAllowed(serviceId, DEVICE.other)).to.deep.equal([false, 0n]);
    });

    it("when text, notice period and devices are at their limits, it accepts them", async () => {
      const { registry, deployer, admin } = await networkHelpers.loadFixture(openSuite);
      const serviceId = await registry.serviceIdFor(deployer.address, SALT);
      const full = config(admin.address, {
        description: "d".repeat(LIMIT.text),
        noticePeriod: LIMIT.notice,
        devices: devices(LIMIT.devices),
      });
      await registry.createService(full, SALT);
      const made = await registry.service(serviceId);
      expect(made.noticePeriod).to.equal(BigInt(LIMIT.notice));
      expect(made.sequence).to.equal(BigInt(1 + LIMIT.devices));
    });

    it("when the description is empty and the notice period zero, it accepts them", async () => {
      const { registry, deployer, admin } = await networkHelpers.loadFixture(openSuite);
      await registry.createService(config(admin.address, { description: "", noticePeriod: 0 }), SALT);
      const made = await registry.service(await registry.serviceIdFor(deployer.address, SALT));
      expect([made.exists, made.noticePeriod]).to.deep.equal([true, 0n]);
    });

    it("when the admin is zero, it refuses", async () => {
      const { registry } = await networkHelpers.loadFixture(openSuite);
      await expect(registry.createService(config(ZeroAddress), SALT)).to.be.revertedWithCustomError(
        registry,
        "KmsRegistry_AdminMissing",
      );
    });

    it("when the notice period is one second too long, it refuses", async () => {
      const { registry, admin } = await networkHelpers.loadFixture(openSuite);
      await expect(registry.createService(config(admin.address, { noticePeriod: LIMIT.notice + 1 }), SALT))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NoticePeriodTooLong")
        .withArgs(LIMIT.notice + 1, LIMIT.notice);
    });

    it("when the description is one byte too long, counted in bytes, it refuses", async () => {
      const { registry, admin } = await networkHelpers.loadFixture(openSuite);
      const description = `${"d".repeat(LIMIT.text - 1)}é`;
      await expect(registry.createService(config(admin.address, { description }), SALT))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_TextTooLong")
        .withArgs(LIMIT.text + 1, LIMIT.text);
    });

    it("when there is one device too many, it refuses", async () => {
      const { registry, admin } = await networkHelpers.loadFixture(openSuite);
      const tooMany = config(admin.address, { devices: devices(LIMIT.devices + 1) });
      await expect(registry.createService(tooMany, SALT))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_TooManyDevices")
        .withArgs(LIMIT.devices + 1, LIMIT.devices);
    });

    it("when a device is named twice, it refuses", async () => {
      const { registry, admin } = await networkHelpers.loadFixture(openSuite);
      const twice = config(admin.address, { devices: [DEVICE.one, DEVICE.two, DEVICE.one] });
      await expect(registry.createService(twice, SALT))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_DuplicateDevice")
        .withArgs(DEVICE.one);
    });

    it("given the creator used the salt before, it refuses, whatever the configuration", async () => {
      const { registry, deployer, admin, successor } = await networkHelpers.loadFixture(openSuite);
      await registry.createService(config(admin.address), SALT);
      const serviceId = await registry.serviceIdFor(deployer.address, SALT);
      for (const again of [config(admin.address), config(successor.address, { noticePeriod: 0 })]) {
        await expect(registry.createService(again, SALT))
          .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceAlreadyExists")
          .withArgs(serviceId);
      }
      await expect(registry.addSecretKeyByImage(V1, [], false, SALT, "", "0x"))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceAlreadyExists")
        .withArgs(serviceId);
    });

    it("given the service was renounced, its id stays taken", async () => {
      const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
      await own.renounceServiceAdmin(serviceId);
      await expect(own.createService(config(admin.address), bytes32("service")))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceAlreadyExists")
        .withArgs(serviceId);
    });
  });

  describe("serviceIdFor", () => {
    it("is bound to chain, registry, creator and salt, by a hash computed here", async () => {
      const { registry, deployer, eve } = await networkHelpers.loadFixture(openSuite);
      const { chainId } = await connection.ethers.provider.getNetwork();
      const idOf = (chain: bigint, address: string, creator: string, salt: string) =>
        dataSlice(
          keccak256(
            AbiCoder.defaultAbiCoder().encode(
              ["uint256", "address", "address", "bytes32"],
              [chain, address, creator, salt],
            ),
          ),
          0,
          20,
        );
      const address = await registry.getAddress();
      expect(await registry.serviceIdFor(deployer.address, SALT)).to.equal(
        idOf(chainId, address, deployer.address, SALT),
      );
      expect(await registry.serviceIdFor(eve.address, SALT)).to.equal(idOf(chainId, address, eve.address, SALT));
    });

    it("given eve sees a creation coming and sends its salt first, she gets another id and the creator gets its own", async () => {
      const { registry, deployer, admin, eve } = await networkHelpers.loadFixture(openSuite);
      const wanted = await registry.serviceIdFor(deployer.address, SALT);
      await registry.connect(eve).createService(config(eve.address), SALT);
      expect((await registry.service(wanted)).exists).to.equal(false);

      await registry.createService(config(admin.address), SALT);
      expect((await registry.service(wanted)).pendingAdmin).to.equal(admin.address);
      expect((await registry.service(await registry.serviceIdFor(eve.address, SALT))).admin).to.equal(eve.address);
    });

    it("given two services of one creator, what happens to one leaves the other as it was", async () => {
      const { registry, own, serviceId, deployer, admin } = await networkHelpers.loadFixture(serviceWithImage);
      await registry.createService(config(admin.address), SALT);
      const other = await registry.serviceIdFor(deployer.address, SALT);
      const before = await registry.service(other);
      await own.removeImageFromService(serviceId, imageId(V1), "");
      expect(await registry.service(other)).to.deep.equal(before);
      expect((await registry.image(other, imageId(V1))).state).to.equal(STATE.unknown);
    });
  });

  describe("createServiceWithImage", () => {
    it("given a free salt, it creates the service and lists its first image, active at once", async () => {
      const { registry, deployer, admin } = await networkHelpers.loadFixture(openSuite);
      const serviceId = await registry.serviceIdFor(deployer.address, SALT);
      const listed = config(admin.address, { devices: [DEVICE.one] });
      expect(await registry.createServiceWithImage.staticCall(listed, SALT, V1, "v1")).to.deep.equal([
        serviceId,
        imageId(V1),
      ]);
      const receipt = await mined(registry.createServiceWithImage(listed, SALT, V1, "v1"));
      const time = await timeOf(receipt);

      await expectHistory(registry, serviceId, receipt, [
        {
          name: "CreateService",
          fields: {
            creator: deployer.address,
            pendingAdmin: admin.address,
            noticePeriod: NOTICE,
            requireUpToDateTcb: false,
            description: "payments, production",
          },
        },
        {
          name: "SetDevice",
          fields: { actor: deployer.address, deviceId: DEVICE.one, allowed: true, effectiveFrom: time },
        },
        {
          name: "AddImageToService",
          fields: { actor: deployer.address, imageId: imageId(V1), image: V1, description: "v1", activeFrom: time },
        },
      ]);
      expect(await registry.isImageActive(serviceId, imageId(V1))).to.equal(true);
      expect(await registry.image(serviceId, imageId(V1))).to.deep.equal([
        BigInt(time),
        0n,
        STATE.listed,
        1n,
        0x1fn,
        true,
      ]);
    });

    it("given each TEE kind, it records kind and mask", async () => {
      const { registry, deployer, admin } = await networkHelpers.loadFixture(openSuite);
      const images: [string, number, bigint][] = [
        [snpImage("x"), KIND.snp, 0x3n],
        [nitroImage("x"), KIND.nitro, 0x7n],
        [dstackImage("x"), KIND.dstack, 0x2n],
      ];
      for (const [image, kind, mask] of images) {
        const salt = bytes32(`kind ${kind}`);
        await registry.createServiceWithImage(config(admin.address), salt, image, "");
        const record = await registry.image(await registry.serviceIdFor(deployer.address, salt), imageId(image));
        expect([record.kind, record.mask]).to.deep.equal([BigInt(kind), mask]);
      }
    });

    it("when configuration, text, image or salt is bad, it refuses as its two parts do", async () => {
      const { registry, deployer, admin } = await networkHelpers.loadFixture(openSuite);
      const good = config(admin.address);
      await expect(registry.createServiceWithImage(config(ZeroAddress), SALT, V1, "")).to.be.revertedWithCustomError(
        registry,
        "KmsRegistry_AdminMissing",
      );
      await expect(registry.createServiceWithImage(good, SALT, V1, "x".repeat(LIMIT.text + 1)))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_TextTooLong")
        .withArgs(LIMIT.text + 1, LIMIT.text);
      await expect(registry.createServiceWithImage(good, SALT, "0x", ""))
        .to.be.revertedWithCustomError(registry, "ImageCodec_WrongLength")
        .withArgs(6, 0);
      await registry.createServiceWithImage(good, SALT, V1, "");
      await expect(registry.createServiceWithImage(good, SALT, V1, ""))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceAlreadyExists")
        .withArgs(await registry.serviceIdFor(deployer.address, SALT));
    });

    it("given eve names somebody else as admin, the log says who did it, and that one is admin only once it accepts", async () => {
      const { registry, admin, eve } = await networkHelpers.loadFixture(openSuite);
      const receipt = await mined(registry.connect(eve).createServiceWithImage(config(admin.address), SALT, V1, ""));
      const actors = receipt.logs.map((log) => {
        const args = registry.interface.parseLog(log)?.args.toObject() ?? {};
        return args.creator ?? args.actor;
      });
      expect(actors).to.deep.equal([eve.address, eve.address]);
      const serviceId = await registry.serviceIdFor(eve.address, SALT);
      const admins = async () => {
        const { admin: current, pendingAdmin } = await registry.service(serviceId);
        return [current, pendingAdmin];
      };
      expect(await admins()).to.deep.equal([eve.address, admin.address]);
      await expect(registry.connect(admin).rotateServiceKey(serviceId))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(serviceId, admin.address, eve.address);
      await registry.connect(admin).acceptServiceAdmin(serviceId);
      expect(await admins()).to.deep.equal([admin.address, ZeroAddress]);
      await expect(registry.connect(eve).removeImageFromService(serviceId, imageId(V1), ""))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NeitherAdminNorGuardian")
        .withArgs(serviceId, eve.address);
    });

    it("given the sender is to be admin, it is from the start, and nobody is offered the service", async () => {
      const { registry, admin } = await networkHelpers.loadFixture(openSuite);
      await registry.connect(admin).createService(config(admin.address), SALT);
      const made = await registry.service(await registry.serviceIdFor(admin.address, SALT));
      expect([made.admin, made.pendingAdmin]).to.deep.equal([admin.address, ZeroAddress]);
    });
  });
});
