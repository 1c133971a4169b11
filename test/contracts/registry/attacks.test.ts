import { expect } from "chai";
import { AbiCoder, dataSlice, getAddress, id, keccak256, toBeHex, ZeroAddress, ZeroHash, zeroPadBytes } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { DECISION } from "../../helpers/decisions.ts";
import { mined, timeOf } from "../../helpers/history.ts";
import { imageId, KIND, nitroImage, tdxImage } from "../../helpers/images.ts";
import {
  at,
  bareService,
  bytes32,
  config,
  DEVICE,
  deviceService,
  guardedService,
  next,
  now,
  openSuite,
  request,
  type Scene,
  STATE,
  sealedService,
  serviceWithImage,
  strictService,
  V1,
  V2,
  V3,
} from "../../helpers/registry.ts";
import { deploy, NOTICE, TCB } from "../../helpers/suite.ts";

/*
 * Attacks: what a stolen admin key, a rogue guardian or a stranger tries against a service. Each of them worked against the rules before, and is named after
 * the sentence that it made false.
 */

const { networkHelpers, ethers, provider } = connection;

const NEITHER = "KmsRegistry_NeitherAdminNorGuardian";
const pending = { imageId: imageId(V2) };

/** The guardian's dismissal is under way; returns when it takes effect. */
async function dismiss({ own, registry, serviceId }: Scene): Promise<number> {
  await own.setServiceGuardian(serviceId, ZeroAddress);
  return Number((await registry.service(serviceId)).nextGuardianFrom);
}

describe("KmsRegistry: a stolen admin key against the service's guardian", () => {
  it("given an image is listed a second before the dismissal takes effect, the guardian has its whole notice period", async () => {
    const scene = await networkHelpers.loadFixture(guardedService);
    const { own, registry, serviceId, serviceGuardian } = scene;
    const left = await dismiss(scene);
    await next(left - 1);
    await own.addImageToService(serviceId, V2, "evil");
    const { activeFrom } = await registry.image(serviceId, imageId(V2));
    await at(left);
    const { guardian, formerGuardian, formerGuardianUntil } = await registry.service(serviceId);
    expect([guardian, formerGuardian, formerGuardianUntil]).to.deep.equal([
      ZeroAddress,
      serviceGuardian.address,
      BigInt(left + NOTICE),
    ]);
    await next(Number(activeFrom) - 1);
    await registry.connect(serviceGuardian).removeImageFromService(serviceId, imageId(V2), "veto");
    await at(Number(activeFrom));
    expect(await registry.authorize(request(serviceId, pending))).to.equal(DECISION.ImageRemoved);
  });

  it("given the admin renounces in the same batch, the guardian keeps that veto", async () => {
    const scene = await networkHelpers.loadFixture(guardedService);
    const { own, registry, serviceId, serviceGuardian } = scene;
    const left = await dismiss(scene);
    await next(left - 1);
    await own.multicall([
      registry.interface.encodeFunctionData("addImageToService", [serviceId, V2, ""]),
      registry.interface.encodeFunctionData("renounceServiceAdmin", [serviceId]),
    ]);
    await at(left + NOTICE - 10);
    await registry.connect(serviceGuardian).removeImageFromService(serviceId, imageId(V2), "veto");
    expect((await registry.image(serviceId, imageId(V2))).state).to.equal(STATE.removed);
  });

  it("given puppets follow in the office, one after the other, the veto of the one dismissed stands", async () => {
    const scene = await networkHelpers.loadFixture(guardedService);
    const { own, registry, serviceId, serviceGuardian, eve, successor } = scene;
    const left = await dismiss(scene);
    await next(left - 1);
    await own.addImageToService(serviceId, V2, "evil");
    await next(left);
    await own.setServiceGuardian(serviceId, eve.address);
    await own.setServiceGuardian(serviceId, successor.address);
    await own.setServiceGuardian(serviceId, ZeroAddress);
    await own.extendNoticePeriod(serviceId, NOTICE + 1);
    await registry.connect(serviceGuardian).removeImageFromService(serviceId, imageId(V2), "veto");
    expect((await registry.image(serviceId, imageId(V2))).state).to.equal(STATE.removed);
  });

  it("a guardian that left stops nothing that was listed after it left, nothing in force, and nothing for ever", async () => {
    const scene = await networkHelpers.loadFixture(guardedService);
    const { own, registry, serviceId, serviceGuardian } = scene;
    const left = await dismiss(scene);
    await next(left - 1);
    await own.addImageToService(serviceId, V2, "before");
    await next(left);
    await own.addImageToService(serviceId, V3, "after");
    const as = registry.connect(serviceGuardian);
    for (const image of [V1, V3]) {
      await expect(as.removeImageFromService(serviceId, imageId(image), ""))
        .to.be.revertedWithCustomError(registry, NEITHER)
        .withArgs(serviceId, serviceGuardian.address);
    }
    const all = [V1, V2, V3].map((image) => imageId(image));
    expect(await as.removeImagesFromService.staticCall(serviceId, all, ""), "the one before").to.equal(1n);
    await at(left + NOTICE);
    await expect(as.removeImageFromService(serviceId, imageId(V2), ""))
      .to.be.revertedWithCustomError(registry, NEITHER)
      .withArgs(serviceId, serviceGuardian.address);
    expect((await registry.service(serviceId)).formerGuardianUntil).to.equal(0n);
  });

  it("given secrets are published a second before the dismissal takes effect, the guardian can withdraw those and no later ones", async () => {
    const scene = await networkHelpers.loadFixture(guardedService);
    const { own, registry, serviceId, serviceGuardian } = scene;
    const left = await dismiss(scene);
    await next(left - 1);
    await own.publishSealedSecrets(serviceId, "env", "0x01");
    await at(left);
    const as = registry.connect(serviceGuardian);
    const receipt = await mined(as.withdrawPendingSecrets(serviceId, "not ours"));
    const log = receipt.logs.map((each) => registry.interface.parseLog(each))[0];
    expect(log?.args.toObject()).to.include({ before: BigInt(left + NOTICE), since: BigInt(await timeOf(receipt)) });
    await at(left + NOTICE);
    await expect(as.withdrawPendingSecrets(serviceId, "")).to.be.revertedWithCustomError(registry, NEITHER);
  });

  it("given the key lists a device or lifts the TCB rule, the guardian calls it off", async () => {
    const devices = await networkHelpers.loadFixture(deviceService);
    await devices.own.setServiceGuardian(devices.serviceId, devices.serviceGuardian.address);
    await devices.own.setDevice(devices.serviceId, DEVICE.two, true);
    await devices.registry.connect(devices.serviceGuardian).setDevice(devices.serviceId, DEVICE.two, false);
    await at((await now()) + NOTICE);
    const two = request(devices.serviceId, { deviceId: DEVICE.two });
    expect(await devices.registry.authorize(two)).to.equal(DECISION.ServiceDeviceNotAllowed);

    const strict = await networkHelpers.loadFixture(strictService);
    await strict.own.setServiceGuardian(strict.serviceId, strict.serviceGuardian.address);
    await strict.own.setRequireUpToDateTcb(strict.serviceId, false);
    await strict.registry.connect(strict.serviceGuardian).setRequireUpToDateTcb(strict.serviceId, true);
    await at((await now()) + NOTICE);
    const old = request(strict.serviceId, { tcbStatus: TCB.swHardeningNeeded });
    expect(await strict.registry.authorize(old)).to.equal(DECISION.ServiceTcbNotUpToDate);
  });

  it("the guardian tightens and never loosens: no device, no lifted rule, no list of devices", async () => {
    const { own, registry, serviceId, serviceGuardian, admin } = await networkHelpers.loadFixture(deviceService);
    await own.setServiceGuardian(serviceId, serviceGuardian.address);
    const as = registry.connect(serviceGuardian);
    for (const call of [
      () => as.setDevice(serviceId, DEVICE.two, true),
      () => as.setRequireUpToDateTcb(serviceId, false),
      () => as.restrictServiceDevices(serviceId, [DEVICE.two]),
      () => as.publishSealedSecrets(serviceId, "env", "0x01"),
    ]) {
      await expect(call())
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(serviceId, serviceGuardian.address, admin.address);
    }
  });

  it("given one image of a batch of vetoes is removed first, the others are removed all the same", async () => {
    const { own, registry, serviceId, serviceGuardian } = await networkHelpers.loadFixture(guardedService);
    const evil = Array.from({ length: 5 }, (_, index) => tdxImage(`evil ${index}`));
    await own.addImagesToService(
      serviceId,
      evil.map((image) => ({ image, description: "" })),
    );
    const ids = evil.map((image) => imageId(image));
    await own.removeImageFromService(serviceId, ids[0] ?? "", "");
    const receipt = await mined(registry.connect(serviceGuardian).removeImagesFromService(serviceId, ids, "veto"));
    expect(receipt.logs.length).to.equal(4);
    for (const each of ids) expect((await registry.image(serviceId, each)).state).to.equal(STATE.removed);
    expect(await own.removeImagesFromService.staticCall(serviceId, ids, ""), "all are gone").to.equal(0n);
    await expect(own.removeImagesFromService(serviceId, [], "")).to.be.revertedWithCustomError(
      registry,
      "KmsRegistry_EmptyBatch",
    );
  });
});

describe("KmsRegistry: what a stranger tries", () => {
  it("given an office that nobody holds, the zero address, from which eth_call asks, does not hold it either", async () => {
    const scene = await networkHelpers.loadFixture(sealedService);
    const { registry, serviceId } = scene;
    const to = await registry.getAddress();
    const encode = registry.interface.encodeFunctionData.bind(registry.interface);
    for (const data of [
      encode("addImageToService", [serviceId, V2, ""]),
      encode("removeImageFromService", [serviceId, imageId(V1), ""]),
      encode("rotateServiceKey", [serviceId]),
      encode("acceptServiceAdmin", [serviceId]),
      encode("withdrawPendingSecrets", [serviceId, ""]),
      encode("addImageToService", [toBeHex(0xdead, 20), V2, ""]),
    ]) {
      const asked = provider.request({ method: "eth_call", params: [{ to, data, from: ZeroAddress }, "latest"] });
      const answer = await asked.then(
        () => "allowed",
        () => "refused",
      );
      expect([data.slice(0, 10), answer]).to.deep.equal([data.slice(0, 10), "refused"]);
    }
  });

  it("at the implementation's own address nobody creates a service", async () => {
    const { registry, admin } = await networkHelpers.loadFixture(openSuite);
    const code = registry.attach(await registry.implementation()) as typeof registry;
    const own = code.connect(admin);
    for (const call of [
      () => own.createService(config(admin.address), ZeroHash),
      () => own.createServiceWithImage(config(admin.address), ZeroHash, V1, ""),
      () => own.addSecretKeyByImage(V1, [], false, ZeroHash, "", "0x"),
    ]) {
      await expect(call()).to.be.revertedWithCustomError(registry, "UUPSUnauthorizedCallContext");
    }
  });

  it("an account with an EIP-7702 delegation is no policy", async () => {
    const { registry } = await networkHelpers.loadFixture(openSuite);
    const delegated = getAddress(dataSlice(id("delegated"), 0, 20));
    await networkHelpers.setCode(delegated, `0xef0100${"11".repeat(20)}`);
    await expect(ethers.deployContract("KmsRegistry", [delegated]))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_PolicyNotAContract")
      .withArgs(delegated);
    await deploy(connection, "KmsRegistry", [await registry.getAddress()]);
  });
});

describe("KmsRegistry: what an owner gets wrong once and for ever", () => {
  it("an image that could never be served is refused: UpToDate for good, of a TEE that reports no status", async () => {
    const { registry, admin, deployer } = await networkHelpers.loadFixture(openSuite);
    const refused = (call: Promise<unknown>) =>
      expect(call).to.be.revertedWithCustomError(registry, "KmsRegistry_KindWithoutTcbStatus").withArgs(KIND.nitro);
    await refused(registry.addSecretKeyByImage(nitroImage("x"), [], true, bytes32("n"), "", "0x"));
    const strict = config(deployer.address, { requireUpToDateTcb: true });
    await refused(registry.createServiceWithImage(strict, bytes32("n"), nitroImage("x"), ""));
    await registry.addSecretKeyByImage(nitroImage("x"), [], false, bytes32("n"), "", "0x");

    const own = registry.connect(admin);
    await own.createService(config(admin.address, { requireUpToDateTcb: true }), bytes32("u"));
    const serviceId = await registry.serviceIdFor(admin.address, bytes32("u"));
    await refused(own.addImageToService(serviceId, nitroImage("x"), ""));
    await own.setRequireUpToDateTcb(serviceId, false);
    await own.addImageToService(serviceId, nitroImage("x"), "");
  });

  it("given the admin renounces, no image can be listed, and one that is pending takes effect still", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await own.addImageToService(serviceId, V2, "");
    await own.renounceServiceAdmin(serviceId);
    await expect(own.addImageToService(serviceId, V3, "")).to.be.revertedWithCustomError(
      registry,
      "KmsRegistry_NotAdmin",
    );
    await at((await now()) + NOTICE);
    expect(await registry.authorize(request(serviceId, pending))).to.equal(DECISION.Allowed);
  });

  it("offering the service to its own admin changes nothing and is refused", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
    await expect(own.transferServiceAdmin(serviceId, admin.address))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_Unchanged")
      .withArgs(serviceId);
  });

  it("after 2^32 - 1 events no further one is taken, rather than numbered from 0 again", async () => {
    const { own, registry, serviceId, eve } = await networkHelpers.loadFixture(serviceWithImage);
    const namespace = 0xcbba06258cefd29a5414518227a5f12767df9b0b4ff96b05066b75c1bb332e00n;
    const key = AbiCoder.defaultAbiCoder().encode(["bytes32", "uint256"], [zeroPadBytes(serviceId, 32), namespace]);
    const address = await registry.getAddress();
    const word = BigInt(await ethers.provider.getStorage(address, keccak256(key)));
    await networkHelpers.setStorageAt(address, keccak256(key), toBeHex(word | (0xffffffffn << 192n), 32));
    expect((await registry.service(serviceId)).sequence, "the slot is the right one").to.equal(0xffffffffn);
    await expect(own.transferServiceAdmin(serviceId, eve.address)).to.be.revertedWithCustomError(
      registry,
      "ServiceWords_NoEventLeft",
    );
  });
});

describe("KmsRegistry: a list of devices that starts later (restrictServiceDevices)", () => {
  it("holds for images listed from then on, and leaves those before as they were", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(serviceWithImage);
    const receipt = await mined(own.restrictServiceDevices(serviceId, [DEVICE.one, DEVICE.two]));
    const events = receipt.logs.map((log) => registry.interface.parseLog(log));
    expect(events.map((event) => [event?.name, event?.args.actor, event?.args.deviceId])).to.deep.equal([
      ["SetDevice", admin.address, DEVICE.one],
      ["SetDevice", admin.address, DEVICE.two],
    ]);
    await own.addImageToService(serviceId, V2, "");
    await at((await now()) + NOTICE);
    const ask = (image: string, deviceId: string) =>
      registry.authorize(request(serviceId, { imageId: imageId(image), deviceId }));
    expect(await ask(V1, DEVICE.other)).to.equal(DECISION.Allowed);
    expect(await ask(V2, DEVICE.other)).to.equal(DECISION.ServiceDeviceNotAllowed);
    expect(await ask(V2, DEVICE.two)).to.equal(DECISION.Allowed);
    expect((await registry.image(serviceId, imageId(V1))).restrictsDevices).to.equal(false);
    expect((await registry.image(serviceId, imageId(V2))).restrictsDevices).to.equal(true);
    expect((await registry.service(serviceId)).restrictDevices).to.equal(true);
  });

  it("given an image from before is removed and listed again, it counts on the list like any other", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await own.restrictServiceDevices(serviceId, [DEVICE.one]);
    await own.removeImageFromService(serviceId, imageId(V1), "");
    await own.addImageToService(serviceId, V1, "");
    await at((await now()) + NOTICE);
    expect(await registry.authorize(request(serviceId, { deviceId: DEVICE.two }))).to.equal(
      DECISION.ServiceDeviceNotAllowed,
    );
  });

  it("when there is a list already, or none is given, or one twice, it refuses: nobody lists a device at once that way", async () => {
    const listed = await networkHelpers.loadFixture(deviceService);
    await expect(listed.own.restrictServiceDevices(listed.serviceId, [DEVICE.two]))
      .to.be.revertedWithCustomError(listed.registry, "KmsRegistry_DevicesAlreadyRestricted")
      .withArgs(listed.serviceId);
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await expect(own.restrictServiceDevices(serviceId, [])).to.be.revertedWithCustomError(
      registry,
      "KmsRegistry_EmptyBatch",
    );
    await expect(own.restrictServiceDevices(serviceId, [DEVICE.one, DEVICE.one]))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_DuplicateDevice")
      .withArgs(DEVICE.one);
  });
});

describe("KmsRegistry: the chain over services (servicesHead, serviceCount)", () => {
  it("is empty at first, and folds every creation, of either sort, in order", async () => {
    const { registry, admin, eve } = await networkHelpers.loadFixture(openSuite);
    expect([await registry.servicesHead(), await registry.serviceCount()]).to.deep.equal([ZeroHash, 0n]);
    await registry.connect(admin).createService(config(admin.address), ZeroHash);
    await registry.connect(eve).addSecretKeyByImage(V1, [], false, ZeroHash, "", "0x");
    await registry.connect(eve).createServiceWithImage(config(eve.address), bytes32("two"), V1, "");
    const ids = [
      await registry.serviceIdFor(admin.address, ZeroHash),
      await registry.serviceIdFor(eve.address, ZeroHash),
      await registry.serviceIdFor(eve.address, bytes32("two")),
    ];
    const folded = ids.reduce<string>((head, each) => keccak256(ethers.concat([head, each])), ZeroHash);
    expect([await registry.servicesHead(), await registry.serviceCount()]).to.deep.equal([folded, 3n]);
  });

  it("stays as it is where a creation is refused, and whatever happens to services later", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(serviceWithImage);
    const before = [await registry.servicesHead(), await registry.serviceCount()];
    await expect(own.createService(config(admin.address), bytes32("service"))).to.be.revertedWithCustomError(
      registry,
      "KmsRegistry_ServiceAlreadyExists",
    );
    await own.rotateServiceKey(serviceId);
    await own.renounceServiceAdmin(serviceId);
    expect([await registry.servicesHead(), await registry.serviceCount()]).to.deep.equal(before);
  });
});

describe("KmsRegistry: rules that every later image keeps", () => {
  it("a second image honours the device list", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(deviceService);
    await own.addImageToService(serviceId, V2, "");
    await at((await now()) + NOTICE);
    expect(await registry.authorize(request(serviceId, pending))).to.equal(DECISION.Allowed);
    expect(await registry.authorize(request(serviceId, { ...pending, deviceId: DEVICE.two }))).to.equal(
      DECISION.ServiceDeviceNotAllowed,
    );
  });

  it("an image that is listed again starts from nothing: no end, a new time, the notice period", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await own.retireImageFromService(serviceId, imageId(V1), (await now()) + 2 * NOTICE);
    await own.removeImageFromService(serviceId, imageId(V1), "");
    const time = await timeOf(await mined(own.addImageToService(serviceId, V1, "")));
    const { activeFrom, activeUntil, state } = await registry.image(serviceId, imageId(V1));
    expect([activeFrom, activeUntil, state]).to.deep.equal([BigInt(time + NOTICE), 0n, STATE.listed]);
  });
});
