import { expect } from "chai";
import { ZeroAddress } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { expectHistory, logsOf, mined, timeOf } from "../../helpers/history.ts";
import { imageId } from "../../helpers/images.ts";
import {
  bareService,
  bytes32,
  config,
  next,
  now,
  openSuite,
  STATE,
  sealedService,
  serviceWithImage,
  V1,
  V2,
} from "../../helpers/registry.ts";
import { NOTICE } from "../../helpers/suite.ts";

const { networkHelpers } = connection;
const SALT = bytes32("salt");

describe("KmsRegistry: multicall", () => {
  it("given create and add, it leads to exactly what createServiceWithImage leads to", async () => {
    const { registry, admin } = await networkHelpers.loadFixture(openSuite);
    const own = registry.connect(admin);
    const serviceId = await registry.serviceIdFor(admin.address, SALT);
    const time = (await now()) + 10;
    const outcome = async () => [
      await registry.service(serviceId),
      await registry.image(serviceId, imageId(V1)),
      (await logsOf(registry, serviceId)).map(({ topics, data }) => ({ topics, data })),
    ];
    const snapshot = await networkHelpers.takeSnapshot();
    await next(time);
    await own.createServiceWithImage(config(admin.address), SALT, V1, "v1");
    const dedicated = await outcome();
    await snapshot.restore();

    await next(time);
    await own.multicall([
      registry.interface.encodeFunctionData("createService", [config(admin.address), SALT]),
      registry.interface.encodeFunctionData("addImageToService", [serviceId, V1, "v1"]),
    ]);
    expect(await outcome()).to.deep.equal(dedicated);
  });

  it("given two additions to a new service, the first alone is active at once", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
    const add = (image: string) => registry.interface.encodeFunctionData("addImageToService", [serviceId, image, ""]);
    const receipt = await mined(own.multicall([add(V1), add(V2)]));
    const time = await timeOf(receipt);
    const added = (image: string, activeFrom: number) => ({
      name: "AddImageToService",
      fields: { actor: admin.address, imageId: imageId(image), image, description: "", activeFrom },
    });
    await expectHistory(registry, serviceId, receipt, [added(V1, time), added(V2, time + NOTICE)]);
  });

  it("given remove and add again in one batch, the first-image rule is not bent", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await own.multicall([
      registry.interface.encodeFunctionData("removeImageFromService", [serviceId, imageId(V1), ""]),
      registry.interface.encodeFunctionData("addImageToService", [serviceId, V1, ""]),
      registry.interface.encodeFunctionData("addImageToService", [serviceId, V2, ""]),
    ]);
    for (const image of [V1, V2]) {
      expect(await registry.isImageActive(serviceId, imageId(image))).to.equal(false);
    }
  });

  it("given allowed calls and one that is forbidden, in whatever place, it changes nothing", async () => {
    const scene = await networkHelpers.loadFixture(serviceWithImage);
    const { own, registry, serviceId, admin } = scene;
    await registry.createService(config(scene.successor.address), SALT);
    const foreign = await registry.serviceIdFor(scene.deployer.address, SALT);
    const call = registry.interface.encodeFunctionData.bind(registry.interface);
    const allowed = [
      call("addImageToService", [serviceId, V2, ""]),
      call("rotateServiceKey", [serviceId]),
      call("extendNoticePeriod", [serviceId, NOTICE + 1]),
      call("createService", [config(admin.address), bytes32("another")]),
    ];
    const forbidden = call("addImageToService", [foreign, V1, ""]);
    const state = async () => [
      await registry.service(serviceId),
      await registry.service(foreign),
      await registry.image(serviceId, imageId(V2)),
      await registry.service(await registry.serviceIdFor(admin.address, bytes32("another"))),
      (await logsOf(registry, serviceId)).length,
      (await logsOf(registry, foreign)).length,
    ];
    const before = await state();
    for (let place = 0; place <= allowed.length; place += 1) {
      const batch = [...allowed.slice(0, place), forbidden, ...allowed.slice(place)];
      await expect(own.multicall(batch))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(foreign, admin.address, scene.deployer.address);
    }
    expect(await state()).to.deep.equal(before);
    await own.multicall(allowed);
    expect(await state(), "the batch was good without it").not.to.deep.equal(before);
  });

  it("the caller of each call is the caller of the batch: eve is eve, the admin is the admin", async () => {
    const { registry, serviceId, admin, eve, own } = await networkHelpers.loadFixture(serviceWithImage);
    const rotate = registry.interface.encodeFunctionData("rotateServiceKey", [serviceId]);
    await expect(registry.connect(eve).multicall([rotate]))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
      .withArgs(serviceId, eve.address, admin.address);
    const nested = registry.interface.encodeFunctionData("multicall", [[rotate]]);
    await expect(registry.connect(eve).multicall([nested]))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
      .withArgs(serviceId, eve.address, admin.address);
    const receipt = await mined(own.multicall([nested]));
    await expectHistory(registry, serviceId, receipt, [
      { name: "RotateServiceKey", fields: { admin: admin.address, keyEpoch: 1, since: await timeOf(receipt) } },
    ]);
  });

  it("given eve creates in a batch, the service's id is bound to her, not to the registry", async () => {
    const { registry, eve } = await networkHelpers.loadFixture(openSuite);
    await registry
      .connect(eve)
      .multicall([registry.interface.encodeFunctionData("createService", [config(eve.address), SALT])]);
    expect((await registry.service(await registry.serviceIdFor(eve.address, SALT))).exists).to.equal(true);
    const itself = await registry.serviceIdFor(await registry.getAddress(), SALT);
    expect((await registry.service(itself)).exists).to.equal(false);
  });

  it("it lends no role: eve can neither upgrade nor grant through it", async () => {
    const { registry, eve, serviceGuardian } = await networkHelpers.loadFixture(openSuite);
    const role = await registry.GOVERNOR_ROLE();
    const calls = [
      registry.interface.encodeFunctionData("upgradeTo", [eve.address]),
      registry.interface.encodeFunctionData("grantRole", [role, serviceGuardian.address]),
    ];
    for (const call of calls) {
      await expect(registry.connect(eve).multicall([call]))
        .to.be.revertedWithCustomError(registry, "AccessControlUnauthorizedAccount")
        .withArgs(eve.address, role);
    }
  });

  it("given a sealed service, no batch changes it", async () => {
    const { registry, serviceId, deployer } = await networkHelpers.loadFixture(sealedService);
    const before = await registry.service(serviceId);
    const batch = [
      registry.interface.encodeFunctionData("createService", [config(deployer.address), SALT]),
      registry.interface.encodeFunctionData("addImageToService", [serviceId, V2, ""]),
    ];
    await expect(registry.multicall(batch))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
      .withArgs(serviceId, deployer.address, ZeroAddress);
    expect(await registry.service(serviceId)).to.deep.equal(before);
    expect((await registry.image(serviceId, imageId(V2))).state).to.equal(STATE.unknown);
  });

  it("when it is empty, it does nothing", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    const before = await registry.service(serviceId);
    const receipt = await mined(own.multicall([]));
    expect(receipt.logs).to.deep.equal([]);
    expect(await registry.service(serviceId)).to.deep.equal(before);
  });

  it("when a call names no function, it refuses", async () => {
    const { own, registry } = await networkHelpers.loadFixture(serviceWithImage);
    await expect(own.multicall(["0xdeadbeef"])).to.be.revertedWithCustomError(registry, "FailedCall");
  });

  it("when ether comes with it, it refuses", async () => {
    const { registry, eve } = await networkHelpers.loadFixture(serviceWithImage);
    const data = registry.interface.encodeFunctionData("multicall", [[]]);
    await expect(eve.sendTransaction({ to: await registry.getAddress(), data, value: 1n })).to.be.revertedWithoutReason(
      connection.ethers,
    );
  });
});
