import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { getAddress, id, ZeroAddress, ZeroHash } from "ethers";
import { network } from "hardhat";
import {
  adoptionCall,
  adoptionFile,
  checkAdoption,
  prepareAdoption,
  readAdoption,
  readAppStorage,
  rollbackCall,
  writeAdoption,
} from "../../../deploy/dstack-app.ts";
import type { IAppAuth } from "../../../typechain-types/contracts/dstack/IAppAuth.ts";
import {
  DstackAppAdapter__factory,
  DstackAppShape__factory,
  DstackKmsShape__factory,
  KeysteadApp__factory,
} from "../../../typechain-types/index.ts";
import { errorOf, rejectionOf } from "../../helpers/errors.ts";
import { image, imageId, KIND, measured } from "../../helpers/images.ts";
import { contractSigner, deploy, deployOpenSuite, NOTICE } from "../../helpers/suite.ts";

/*
 * Apps of a DstackKms whose rules are a Keystead service's: one that exists already and keeps its address, and with it its keys, and one that is
 * registered anew.
 */

const connection = await network.create();
const { networkHelpers, ethers } = connection;
const OS = measured("os image", 32);
const OLD_COMPOSE = measured("compose that DstackApp allows", 32);
const COMPOSE = measured("compose that the service allows", 32);
const DEVICE = measured("device", 32);
const SALT = id("app");
const serviceImage = image(KIND.dstack, { 0: OS, 1: COMPOSE });
/** OpenZeppelin's namespaced slots, by their published constants; ERC-1967's implementation slot. */
const OWNER_SLOT = "0x9016d09d72d40fdae2fd8ceac6b6234c7706214fd39c1cd1e609a0528c199300";
const IMPLEMENTATION_SLOT = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc";

/** A DstackKms with one app behind a proxy, whose owner is a contract; and a service with one active image. */
async function migration() {
  const suite = await deployOpenSuite(connection);
  const { registry, admin, deployer } = suite;
  const config = {
    admin: admin.address,
    noticePeriod: NOTICE,
    requireUpToDateTcb: false,
    devices: [],
    description: "app",
  };
  await registry.connect(admin).createServiceWithImage(config, SALT, serviceImage, "");
  const serviceId = await registry.serviceIdFor(admin.address, SALT);
  const owner = await contractSigner(connection, await deploy(connection, "Actor"));
  const kms = DstackKmsShape__factory.connect(await deploy(connection, "DstackKmsShape"), deployer);
  await kms.addOsImageHash(OS);
  const oldCode = await deploy(connection, "DstackAppShape");
  const shape = DstackAppShape__factory.createInterface();
  const initialization = shape.encodeFunctionData("initialize", [
    owner.address,
    false,
    false,
    false,
    DEVICE,
    OLD_COMPOSE,
  ]);
  const appId = await kms.deployAndRegisterApp.staticCall(oldCode, initialization);
  await kms.deployAndRegisterApp(oldCode, initialization);
  const old = DstackAppShape__factory.connect(appId, owner);
  const adapterCode = await deploy(connection, "DstackAppAdapter", [await suite.dstackAuth.getAddress(), serviceId]);
  const adapter = DstackAppAdapter__factory.connect(appId, owner);
  const machine = (change: Partial<IAppAuth.AppBootInfoStruct> = {}): IAppAuth.AppBootInfoStruct => ({
    appId,
    composeHash: COMPOSE,
    instanceId: suite.eve.address,
    deviceId: DEVICE,
    mrAggregated: measured("agg", 32),
    mrSystem: measured("sys", 32),
    osImageHash: OS,
    tcbStatus: "UpToDate",
    advisoryIds: [],
    ...change,
  });
  const ask = async (change: Partial<IAppAuth.AppBootInfoStruct> = {}): Promise<[boolean, string]> => {
    const [allowed, reason] = await kms.isAppAllowed(machine(change));
    return [allowed, reason];
  };
  const takeOver = () =>
    adapter.upgradeToAndCall(adapterCode, adapter.interface.encodeFunctionData("confirmOwner", [owner.address]));
  return { ...suite, serviceId, owner, kms, oldCode, appId, old, adapterCode, adapter, machine, ask, takeOver };
}

const YES: [boolean, string] = [true, ""];
const no = (reason: string): [boolean, string] => [false, reason];

describe("DstackAppAdapter: a DstackApp keeps its address, a Keystead service decides", () => {
  it("given the upgrade: the same appId is allowed and denied by the service, through the KMS that never changed", async () => {
    const { ask, takeOver, registry, admin, serviceId, policy, guardian, kms, appId } =
      await networkHelpers.loadFixture(migration);
    expect(await ask()).to.deep.equal(no("Compose hash not allowed"));
    expect(await ask({ composeHash: OLD_COMPOSE })).to.deep.equal(YES);
    await takeOver();
    expect(await ask()).to.deep.equal(YES);
    expect(await ask({ composeHash: OLD_COMPOSE })).to.deep.equal(no("Compose hash not allowed"));
    expect(await kms.registeredApps(appId)).to.equal(true);
    const next = image(KIND.dstack, { 0: OS, 1: OLD_COMPOSE });
    await registry.connect(admin).addImageToService(serviceId, next, "");
    expect(await ask({ composeHash: OLD_COMPOSE })).to.deep.equal(no("Compose hash is inside its notice period"));
    await policy.connect(guardian).pauseRelease(60, "");
    expect(await ask()).to.deep.equal(no("Key release is paused"));
  });

  it("the KMS's own OS image list still counts, and a machine that names another app is denied", async () => {
    const { ask, takeOver, adapter, machine, eve } = await networkHelpers.loadFixture(migration);
    await takeOver();
    expect(await ask({ osImageHash: COMPOSE })).to.deep.equal(no("OS image is not allowed"));
    const [allowed, reason] = await adapter.isAppAllowed(machine({ appId: eve.address }));
    expect([allowed, reason]).to.deep.equal(no("App id is another app's"));
  });

  it("rollback: the app is as it was, with every hash, device and flag, and the same owner", async () => {
    const { ask, takeOver, old, adapter, oldCode, owner, appId } = await networkHelpers.loadFixture(migration);
    const slots = async () =>
      Promise.all(
        [...Array.from({ length: 53 }, (_, slot) => slot), OWNER_SLOT].map((slot) =>
          ethers.provider.getStorage(appId, slot),
        ),
      );
    const before = await slots();
    await takeOver();
    expect(await slots(), "nothing that DstackApp stores is touched").to.deep.equal(before);
    await adapter.upgradeToAndCall(oldCode, "0x");
    expect(await slots()).to.deep.equal(before);
    expect(await old.owner()).to.equal(owner.address);
    expect(await old.allowedDeviceIds(DEVICE)).to.equal(true);
    expect(await old.allowAnyDevice()).to.equal(false);
    expect(await ask({ composeHash: OLD_COMPOSE })).to.deep.equal(YES);
    expect(await ask()).to.deep.equal(no("Compose hash not allowed"));
    await old.addComposeHash(COMPOSE);
    expect(await ask()).to.deep.equal(YES);
  });

  it("only the owner upgrades, in either direction; a new owner has to accept", async () => {
    const { takeOver, adapter, adapterCode, oldCode, owner, eve } = await networkHelpers.loadFixture(migration);
    await expect(adapter.connect(eve).upgradeToAndCall(adapterCode, "0x")).to.be.revertedWithCustomError(
      adapter,
      "OwnableUnauthorizedAccount",
    );
    await takeOver();
    await expect(adapter.connect(eve).upgradeToAndCall(oldCode, "0x"))
      .to.be.revertedWithCustomError(adapter, "OwnableUnauthorizedAccount")
      .withArgs(eve.address);
    await adapter.transferOwnership(eve.address);
    expect(await adapter.owner()).to.equal(owner.address);
    await expect(adapter.connect(eve).upgradeToAndCall(oldCode, "0x")).to.be.revertedWithCustomError(
      adapter,
      "OwnableUnauthorizedAccount",
    );
    await adapter.connect(eve).acceptOwnership();
    await adapter.connect(eve).upgradeToAndCall(oldCode, "0x");
    expect(await adapter.owner(), "of the old code").to.equal(eve.address);
  });

  it("given a proxy whose owner this code would not see, the upgrade undoes itself", async () => {
    const { adapter, adapterCode, owner, appId, eve, oldCode } = await networkHelpers.loadFixture(migration);
    const call = adapter.interface.encodeFunctionData("confirmOwner", [eve.address]);
    await expect(adapter.upgradeToAndCall(adapterCode, call))
      .to.be.revertedWithCustomError(adapter, "DstackAppAdapter_OtherOwner")
      .withArgs(eve.address, owner.address);
    const stored = await ethers.provider.getStorage(appId, IMPLEMENTATION_SLOT);
    expect(getAddress(`0x${stored.slice(26)}`)).to.equal(oldCode);
  });

  it("a DstackApp whose upgrades are disabled cannot come here", async () => {
    const { old, takeOver } = await networkHelpers.loadFixture(migration);
    await old.disableUpgrades();
    await expect(takeOver()).to.be.revertedWithCustomError(old, "UpgradesAreDisabled");
  });

  it("the implementation itself has no owner and takes no initializer", async () => {
    const { adapterCode, deployer } = await networkHelpers.loadFixture(migration);
    const bare = DstackAppAdapter__factory.connect(adapterCode, deployer);
    expect(await bare.owner()).to.equal(ZeroAddress);
    await expect(bare.upgradeToAndCall(adapterCode, "0x")).to.be.revertedWithCustomError(
      bare,
      "UUPSUnauthorizedCallContext",
    );
  });

  it("says IAppAuth and ERC-165, and no interface with epochs, launch tickets or management", async () => {
    const { takeOver, adapter } = await networkHelpers.loadFixture(migration);
    await takeOver();
    expect(await adapter.supportsInterface("0x1e079198")).to.equal(true);
    expect(await adapter.supportsInterface("0x01ffc9a7")).to.equal(true);
    for (const other of ["0x8fd37527", "0xd33835bd", "0xc396c1b0", "0xffffffff"]) {
      expect(await adapter.supportsInterface(other), other).to.equal(false);
    }
  });

  it("dstack's setters fail with a sentence that says where the rules are", async () => {
    const { takeOver, adapter, old, registry, serviceId, appId, owner } = await networkHelpers.loadFixture(migration);
    await takeOver();
    for (const data of [old.interface.encodeFunctionData("addComposeHash", [COMPOSE]), "0xec669036", "0x12345678"]) {
      await expect(owner.sendTransaction({ to: appId, data }))
        .to.be.revertedWithCustomError(adapter, "ServiceApp_ManagedInRegistry")
        .withArgs(await registry.getAddress(), serviceId);
    }
  });

  it("views tell the service's rules, as far as a view can", async () => {
    const { takeOver, adapter, registry, admin, serviceId } = await networkHelpers.loadFixture(migration);
    await takeOver();
    expect(await adapter.SERVICE_ID()).to.equal(serviceId);
    expect(await adapter.allowAnyDevice()).to.equal(true);
    expect(await adapter.allowedDeviceIds(DEVICE)).to.equal(false);
    expect(await adapter.requireTcbUpToDate()).to.equal(false);
    expect(await adapter.allowedComposeHashes(COMPOSE), "the image names an OS image too").to.equal(false);
    const alone = image(KIND.dstack, { 1: COMPOSE });
    await registry.connect(admin).addImageToService(serviceId, alone, "");
    expect(await adapter.allowedComposeHashes(COMPOSE), "pending").to.equal(false);
    await networkHelpers.time.increase(NOTICE);
    expect(await adapter.allowedComposeHashes(COMPOSE)).to.equal(true);
    await registry.connect(admin).removeImageFromService(serviceId, imageId(alone), "");
    expect(await adapter.allowedComposeHashes(COMPOSE)).to.equal(false);
    await registry.connect(admin).setRequireUpToDateTcb(serviceId, true);
    expect(await adapter.requireTcbUpToDate()).to.equal(true);
  });

  it("takes an adapter with code and a service that exists, and nothing else", async () => {
    const { dstackAuth, serviceId, eve } = await networkHelpers.loadFixture(migration);
    const auth = await dstackAuth.getAddress();
    for (const name of ["DstackAppAdapter", "KeysteadApp"]) {
      const factory = await ethers.getContractFactory(name);
      await expect(factory.deploy(eve.address, serviceId))
        .to.be.revertedWithCustomError(factory, "ServiceApp_NotAContract")
        .withArgs(eve.address);
      const nobody = `0x${"11".repeat(20)}`;
      await expect(factory.deploy(auth, nobody))
        .to.be.revertedWithCustomError(factory, "ServiceApp_ServiceUnknown")
        .withArgs(nobody);
    }
  });
});

describe("scripts/dstack-app.ts: the move, prepared and checked", () => {
  const prepared = async () => {
    const world = await networkHelpers.loadFixture(migration);
    const auth = await world.dstackAuth.getAddress();
    const wanted = { app: world.appId, auth, serviceId: world.serviceId };
    return { ...world, wanted, adoption: await prepareAdoption(connection, wanted) };
  };

  it("prepares two transactions of the owner: in, and back, with every slot as it was", async () => {
    const { adoption, owner, ask, oldCode, appId } = await prepared();
    expect(adoption).to.include({ app: appId, owner: owner.address, previous: oldCode });
    expect(await checkAdoption(connection, adoption)).to.equal("before");
    const before = await readAppStorage(connection, appId);
    await owner.sendTransaction(adoptionCall(adoption));
    expect(await checkAdoption(connection, adoption)).to.equal("adopted");
    expect(await ask()).to.deep.equal(YES);
    expect(await readAppStorage(connection, appId)).to.deep.equal(before);
    await owner.sendTransaction(rollbackCall(adoption));
    expect(await checkAdoption(connection, adoption)).to.equal("before");
    expect(await readAppStorage(connection, appId)).to.deep.equal(before);
    expect(await ask({ composeHash: OLD_COMPOSE })).to.deep.equal(YES);
  });

  it("keeps what was prepared, and reads it back", async () => {
    const { adoption } = await prepared();
    const folder = mkdtempSync(join(tmpdir(), "keystead-app-"));
    try {
      const file = adoptionFile("base", adoption.app, join(folder, "apps"));
      expect(readAdoption(file)).to.equal(undefined);
      writeAdoption(file, adoption);
      expect(readAdoption(file)).to.deep.equal(adoption);
      writeFileSync(file, JSON.stringify({ ...adoption, previous: "0x12" }));
      expect(errorOf(() => readAdoption(file)).code).to.equal("dstack-app/bad-record");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("refuses what is no app, what is frozen, what nobody owns, and a service that does not exist", async () => {
    const { wanted, old, owner, adapterCode } = await prepared();
    const refusal = (change: Partial<typeof wanted>) =>
      rejectionOf(prepareAdoption(connection, { ...wanted, ...change }));
    expect((await refusal({ app: adapterCode })).code).to.equal("dstack-app/not-an-app");
    expect((await refusal({ serviceId: `0x${"11".repeat(20)}` })).code).to.equal("dstack-app/no-service");
    const snapshot = await networkHelpers.takeSnapshot();
    await old.connect(owner).disableUpgrades();
    expect((await refusal({})).code).to.equal("dstack-app/frozen");
    await snapshot.restore();
    await old.connect(owner).renounceOwnership();
    expect((await refusal({})).code).to.equal("dstack-app/not-an-app");
  });

  it("says so when somebody else's code stands behind the app, or another owner", async () => {
    const { adoption, owner, old, eve, adapterCode } = await prepared();
    const snapshot = await networkHelpers.takeSnapshot();
    await old.connect(owner).upgradeToAndCall(adapterCode, "0x");
    expect((await rejectionOf(checkAdoption(connection, adoption))).code).to.equal("dstack-app/changed");
    await snapshot.restore();
    await old.connect(owner).transferOwnership(eve.address);
    await old.connect(eve).acceptOwnership();
    expect((await rejectionOf(checkAdoption(connection, adoption))).code).to.equal("dstack-app/changed");
  });
});

describe("KeysteadApp: a new app for registerApp of any DstackKms", () => {
  it("anyone registers it; the service decides under its address, and its owner is the service's admin", async () => {
    const { dstackAuth, serviceId, kms, ask, eve, deployer, admin, registry } =
      await networkHelpers.loadFixture(migration);
    const appId = await deploy(connection, "KeysteadApp", [await dstackAuth.getAddress(), serviceId]);
    const app = KeysteadApp__factory.connect(appId, deployer);
    expect(await ask({ appId })).to.deep.equal(no("App not registered"));
    await kms.connect(eve).registerApp(appId);
    expect(await ask({ appId })).to.deep.equal(YES);
    expect(await ask({ appId, composeHash: OLD_COMPOSE })).to.deep.equal(no("Compose hash not allowed"));
    expect(await app.owner()).to.equal(admin.address);
    await registry.connect(admin).renounceServiceAdmin(serviceId);
    expect(await app.owner()).to.equal(ZeroAddress);
    expect(await app.supportsInterface("0x1e079198")).to.equal(true);
    // No proxy: what would upgrade it is not there.
    await expect(
      eve.sendTransaction({ to: appId, data: `0x4f1ef286${ZeroHash.slice(2)}${ZeroHash.slice(2)}` }),
    ).to.be.revertedWithCustomError(app, "ServiceApp_ManagedInRegistry");
  });

  it("given a service that names its devices, only those count, and the views say so", async () => {
    const { dstackAuth, registry, kms, ask, admin, deployer } = await networkHelpers.loadFixture(migration);
    const config = {
      admin: admin.address,
      noticePeriod: NOTICE,
      requireUpToDateTcb: false,
      devices: [DEVICE],
      description: "",
    };
    await registry.connect(admin).createServiceWithImage(config, id("devices"), serviceImage, "");
    const serviceId = await registry.serviceIdFor(admin.address, id("devices"));
    const appId = await deploy(connection, "KeysteadApp", [await dstackAuth.getAddress(), serviceId]);
    const app = KeysteadApp__factory.connect(appId, deployer);
    await kms.registerApp(appId);
    expect(await ask({ appId })).to.deep.equal(YES);
    expect(await ask({ appId, deviceId: OS })).to.deep.equal(no("Device not allowed"));
    expect(await app.allowAnyDevice()).to.equal(false);
    expect(await app.allowedDeviceIds(DEVICE)).to.equal(true);
    expect(await app.allowedDeviceIds(OS)).to.equal(false);
  });
});
