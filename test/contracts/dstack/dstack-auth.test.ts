import { expect } from "chai";
import { getAddress, id as keccakOf, ZeroAddress, ZeroHash } from "ethers";
import fc from "fast-check";
import { network } from "hardhat";
import type { IAppAuth } from "../../../typechain-types/contracts/dstack/IAppAuth.ts";
import { image, imageId, KIND, measured, PLATFORM } from "../../helpers/images.ts";
import { MAX_PAUSE } from "../../helpers/policy.ts";
import { DAY, deployOpenSuite, NOTICE, type Suite, TCB } from "../../helpers/suite.ts";

const connection = await network.create();
const { loadFixture, time } = connection.networkHelpers;

const OS = measured("os image", 32);
const COMPOSE = measured("compose of app", 32);
const AGGREGATED = measured("mr_aggregated", 32);
const SYSTEM = measured("mr_system", 32);
const DEVICE = measured("device", 32);
/** A dstack image's registers by bit. */
const VALUES: Readonly<Record<number, string>> = { 0: OS, 1: COMPOSE, 2: AGGREGATED, 3: SYSTEM };
const imageOf = (mask: number, values = VALUES): string =>
  image(
    KIND.dstack,
    Object.fromEntries([0, 1, 2, 3].flatMap((bit) => ((mask >> bit) & 1 ? [[bit, values[bit] ?? ZeroHash]] : []))),
  );
const NAMES = ["os_image_hash", "compose_hash", "mr_aggregated", "mr_system"] as const;
const namesOf = (mask: number): string => NAMES.filter((_, bit) => (mask >> bit) & 1).join(" + ");
/** The masks that a service may register: those with compose_hash. */
/** The masks that a KMS image may have: OS image and compose hash, or mr_aggregated, beside any others. */
const KMS_MASKS = Array.from({ length: 16 }, (_, mask) => mask).filter((mask) => (mask & 3) === 3 || mask & 4);
const SERVICE_MASKS = Array.from({ length: 16 }, (_, mask) => mask).filter((mask) => mask & 2);

/** Intel's names by TcbStatus bit, and the empty one for a TEE without TCB levels. */
const TCB_NAMES: Readonly<Record<string, number>> = {
  UpToDate: 0,
  SWHardeningNeeded: 1,
  ConfigurationNeeded: 2,
  ConfigurationAndSWHardeningNeeded: 3,
  OutOfDate: 4,
  OutOfDateConfigurationNeeded: 5,
  Revoked: 6,
  "": 7,
  RelaunchAdvised: 8,
  RelaunchAdvisedConfigurationNeeded: 9,
};

const SALT = keccakOf("app");
/** dstack's struct: the order of its fields is part of the ABI. */
const APP_BOOT_INFO =
  "(address appId, bytes32 composeHash, address instanceId, bytes32 deviceId, bytes32 mrAggregated, bytes32 mrSystem, bytes32 osImageHash, string tcbStatus, string[] advisoryIds)";

describe("DstackAuth", () => {
  let suite: Suite;
  let appId: string;
  let boot: IAppAuth.AppBootInfoStruct;

  /** A service with no image and a notice period. */
  async function createService(
    devices: readonly string[] = [],
    requireUpToDateTcb = false,
    salt = SALT,
  ): Promise<string> {
    const { registry, admin } = suite;
    const config = {
      admin: admin.address,
      noticePeriod: NOTICE,
      requireUpToDateTcb,
      devices: [...devices],
      description: "app",
    };
    await registry.connect(admin).createService(config, salt);
    return registry.serviceIdFor(admin.address, salt);
  }
  const add = (bytes: string, serviceId = appId) =>
    suite.registry.connect(suite.admin).addImageToService(serviceId, bytes, "");

  beforeEach(async () => {
    suite = await loadFixture(deployOpenSuite);
    appId = await createService();
    boot = {
      appId: getAddress(appId),
      composeHash: COMPOSE,
      instanceId: suite.eve.address,
      deviceId: DEVICE,
      mrAggregated: AGGREGATED,
      mrSystem: SYSTEM,
      osImageHash: OS,
      tcbStatus: "UpToDate",
      advisoryIds: [],
    };
  });

  const app = async (change: Partial<IAppAuth.AppBootInfoStruct> = {}): Promise<[boolean, string]> => {
    const [isAllowed, reason] = await suite.dstackAuth.isAppAllowed({ ...boot, ...change });
    return [isAllowed, reason];
  };
  const kms = async (change: Partial<IAppAuth.AppBootInfoStruct> = {}): Promise<[boolean, string]> => {
    const { isAllowed, reason } = await suite.dstackAuth.isKmsAllowed({ ...boot, ...change });
    return [isAllowed, reason];
  };
  const YES: [boolean, string] = [true, ""];
  const no = (reason: string): [boolean, string] => [false, reason];

  describe("interface", () => {
    it("has dstack's selectors, struct and return values", () => {
      const { interface: abi } = suite.dstackAuth;
      for (const [name, selector] of [
        ["isAppAllowed", "0x1e079198"],
        ["isKmsAllowed", "0xe067ec9d"],
      ] as const) {
        const fragment = abi.getFunction(name);
        expect(fragment.selector).to.equal(selector);
        expect(fragment.stateMutability).to.equal("view");
        expect(fragment.inputs.map((input) => input.format("full"))).to.deep.equal([`${APP_BOOT_INFO} bootInfo`]);
        expect(fragment.outputs.map(({ type }) => type)).to.deep.equal(["bool", "string"]);
      }
    });

    it("supports ERC-165 and IAppAuth, and nothing else", async () => {
      expect(await suite.dstackAuth.supportsInterface("0x1e079198")).to.equal(true);
      expect(await suite.dstackAuth.supportsInterface("0x01ffc9a7")).to.equal(true);
      // dstack's management interface, its KMS check, the invalid id and none.
      for (const other of ["0x8fd37527", "0xe067ec9d", "0xffffffff", "0x00000000"]) {
        expect(await suite.dstackAuth.supportsInterface(other)).to.equal(false);
      }
    });

    it("names its proxies, and changes nothing", async () => {
      expect(await suite.dstackAuth.KMS_REGISTRY()).to.equal(await suite.registry.getAddress());
      expect(await suite.dstackAuth.PLATFORM_POLICY()).to.equal(await suite.policy.getAddress());
      suite.dstackAuth.interface.forEachFunction(({ stateMutability }) => {
        expect(stateMutability).to.be.oneOf(["view", "pure"]);
      });
    });

    it("given a proxy without code, it can't be deployed", async () => {
      const { ethers } = connection;
      const registry = await suite.registry.getAddress();
      const factory = await ethers.getContractFactory("DstackAuth");
      for (const [args, bad] of [
        [[suite.eve.address, registry], suite.eve.address],
        [[registry, suite.eve.address], suite.eve.address],
        [[ZeroAddress, registry], ZeroAddress],
      ] as const) {
        await expect(factory.deploy(...args))
          .to.be.revertedWithCustomError(suite.dstackAuth, "DstackAuth_NotAContract")
          .withArgs(bad);
      }
    });

    it("passes on gateway and app implementation, and knows the registered apps", async () => {
      const governor = suite.policy.connect(suite.governor);
      expect(await suite.dstackAuth.gatewayAppId()).to.equal("");
      expect(await suite.dstackAuth.appImplementation()).to.equal(ZeroAddress);
      await governor.setGatewayAppId("0xabc, 0xdef");
      await governor.setAppImplementation(suite.eve.address);
      expect(await suite.dstackAuth.gatewayAppId()).to.equal("0xabc, 0xdef");
      expect(await suite.dstackAuth.appImplementation()).to.equal(suite.eve.address);
      expect(await suite.dstackAuth.registeredApps(boot.appId)).to.equal(true);
      for (const other of [ZeroAddress, suite.eve.address]) {
        expect(await suite.dstackAuth.registeredApps(other)).to.equal(false);
      }
    });
  });

  describe("isAppAllowed", () => {
    for (const mask of SERVICE_MASKS) {
      it(`given a service that registered ${namesOf(mask)}: allowed, and denied once any of them differs`, async () => {
        await add(imageOf(mask));
        expect(await app()).to.deep.equal(YES);
        const other = measured("other", 32);
        expect(await app({ composeHash: other })).to.deep.equal(no("Compose hash not allowed"));
        for (const [bit, field] of [
          [2, "mrAggregated"],
          [3, "mrSystem"],
        ] as const) {
          const named = (mask >> bit) & 1;
          const expected = named ? no("Compose hash not allowed") : YES;
          expect(await app({ [field]: other }), field).to.deep.equal(expected);
          expect(await app({ [field]: ZeroHash }), `${field} zero`).to.deep.equal(expected);
        }
        // Another OS image that the policy allows too.
        await suite.policy.connect(suite.governor).allowPlatform(image(KIND.dstack, { 0: other }), "");
        expect(await app({ osImageHash: other }), "osImageHash").to.deep.equal(
          mask & 1 ? no("Compose hash not allowed") : YES,
        );
      });
    }

    it("given several registered images, any that matches is enough", async () => {
      await add(imageOf(0b0010, { ...VALUES, 1: measured("another compose", 32) }));
      for (const mask of SERVICE_MASKS) await add(imageOf(mask));
      await time.increase(NOTICE);
      for (const mask of SERVICE_MASKS) {
        expect(await app()).to.deep.equal(YES);
        await suite.registry.connect(suite.admin).removeImageFromService(appId, imageId(imageOf(mask)), "");
      }
      expect(await app()).to.deep.equal(no("Compose hash was removed"));
    });

    it("the instance and the advisories decide nothing", async () => {
      await add(imageOf(0b0010));
      for (const instanceId of [ZeroAddress, suite.guardian.address]) {
        for (const advisoryIds of [
          [],
          ["INTEL-SA-00837"],
          Array.from({ length: 128 }, (_, i) => `INTEL-SA-${i}`),
          [""],
        ]) {
          expect(await app({ instanceId, advisoryIds })).to.deep.equal(YES);
        }
      }
      expect(await app({ composeHash: OS, advisoryIds: ["x"] })).to.deep.equal(no("Compose hash not allowed"));
    });

    it("given another app's id, an unknown one or zero, it is denied", async () => {
      await add(imageOf(0b0010));
      const other = await createService([], false, keccakOf("other app"));
      expect(await app({ appId: getAddress(other) })).to.deep.equal(no("Compose hash not allowed"));
      for (const unknown of [suite.eve.address, ZeroAddress]) {
        expect(await app({ appId: unknown })).to.deep.equal(no("App not registered"));
      }
    });

    it("given a hash of zero, it is denied", async () => {
      await add(imageOf(0b0010));
      expect(await app({ composeHash: ZeroHash })).to.deep.equal(no("Compose hash is missing"));
      expect(await app({ osImageHash: ZeroHash })).to.deep.equal(no("OS image hash is missing"));
    });

    it("a mr_aggregated of zero cannot be registered, and a mr_system of zero matches no machine", async () => {
      await expect(add(imageOf(0b0110, { ...VALUES, 2: ZeroHash })))
        .to.be.revertedWithCustomError(suite.registry, "ImageCodec_ZeroRegister")
        .withArgs(KIND.dstack, 2);
      await add(imageOf(0b1010, { ...VALUES, 3: ZeroHash }));
      expect(await app({ mrAggregated: ZeroHash, mrSystem: ZeroHash })).to.deep.equal(no("Compose hash not allowed"));
    });

    it("given an image of another kind with the same bytes, it does not match", async () => {
      const snp = image(KIND.snp, { 0: `${COMPOSE}${"00".repeat(16)}` });
      await add(snp);
      expect(await app()).to.deep.equal(no("Compose hash not allowed"));
    });

    describe("TCB status", () => {
      for (const [name, bit] of Object.entries(TCB_NAMES)) {
        it(`${name === "" ? "none (a Nitro enclave)" : name}: allowed only where the policy accepts it`, async () => {
          const governor = suite.policy.connect(suite.governor);
          await governor.rejectTcb(KIND.dstack, 0xffff);
          await add(imageOf(0b0010));
          expect(await app({ tcbStatus: name })).to.deep.equal(no("TCB status is not accepted"));
          await governor.acceptTcb(KIND.dstack, 0x03bf & ~(1 << bit));
          expect(await app({ tcbStatus: name })).to.deep.equal(no("TCB status is not accepted"));
          await governor.rejectTcb(KIND.dstack, 0xffff);
          if (name === "Revoked") return;
          await governor.acceptTcb(KIND.dstack, 1 << bit);
          expect(await app({ tcbStatus: name })).to.deep.equal(YES);
        });
      }

      for (const name of [
        "uptodate",
        "UPTODATE",
        "UpToDate ",
        " UpToDate",
        "UpToDate\0",
        "\0",
        " ",
        "UpToDat",
        "UpToDatE",
        "UpToDate\n",
        "Up ToDate",
        "0",
        "NotApplicable",
        "OutofDate",
        "revoked",
        "SWHardeningNeeded,UpToDate",
        "UpToDate".repeat(100),
      ]) {
        it(`${JSON.stringify(name.slice(0, 30))}: no name, denied whatever is accepted`, async () => {
          await suite.policy.connect(suite.governor).acceptTcb(KIND.dstack, 0x03bf);
          await add(imageOf(0b0010));
          expect(await app({ tcbStatus: name })).to.deep.equal(no("TCB status is not known"));
          expect(await kms({ tcbStatus: name })).to.deep.equal(no("TCB status is not known"));
        });
      }

      it("given a service that asks for UpToDate, the empty status of Nitro is not up to date", async () => {
        const strict = await createService([], true, keccakOf("strict"));
        await add(imageOf(0b0010), strict);
        const at = { appId: getAddress(strict) };
        expect(await app(at)).to.deep.equal(YES);
        for (const tcbStatus of ["", "SWHardeningNeeded"]) {
          expect(await app({ ...at, tcbStatus })).to.deep.equal(no("TCB status is not up to date"));
        }
      });
    });

    describe("an image's life", () => {
      beforeEach(async () => {
        await add(imageOf(0b0010, { ...VALUES, 1: measured("first", 32) }));
      });

      for (const mask of [0b0010, 0b0011, 0b1111]) {
        it(`registered by ${namesOf(mask)}: pending, active, retired, removed`, async () => {
          const bytes = imageOf(mask);
          const own = suite.registry.connect(suite.admin);
          await add(bytes);
          const from = Number((await suite.registry.image(appId, imageId(bytes))).activeFrom);
          expect(await app()).to.deep.equal(no("Compose hash is inside its notice period"));
          await time.increaseTo(from - 1);
          expect(await app()).to.deep.equal(no("Compose hash is inside its notice period"));
          await time.increaseTo(from);
          expect(await app()).to.deep.equal(YES);
          await own.retireImageFromService(appId, imageId(bytes), from + DAY);
          expect(await app()).to.deep.equal(YES);
          await time.increaseTo(from + DAY);
          expect(await app()).to.deep.equal(no("Compose hash is retired"));
          await add(bytes);
          await own.removeImageFromService(appId, imageId(bytes), "");
          expect(await app()).to.deep.equal(no("Compose hash was removed"));
        });
      }

      it("one active image is enough beside removed and pending ones", async () => {
        const own = suite.registry.connect(suite.admin);
        await add(imageOf(0b0010));
        await add(imageOf(0b0111));
        await add(imageOf(0b1111));
        await own.removeImageFromService(appId, imageId(imageOf(0b0010)), "");
        expect(await app(), "the one that got furthest tells why").to.deep.equal(
          no("Compose hash is inside its notice period"),
        );
        await time.increase(NOTICE);
        expect(await app()).to.deep.equal(YES);
        await own.removeImageFromService(appId, imageId(imageOf(0b1111)), "");
        expect(await app()).to.deep.equal(YES);
        await own.removeImageFromService(appId, imageId(imageOf(0b0111)), "");
        expect(await app()).to.deep.equal(no("Compose hash was removed"));
      });
    });

    it("the platform policy's denials come through, each with its reason", async () => {
      await add(imageOf(0b0011));
      const guardian = suite.policy.connect(suite.guardian);
      const denials: readonly [string, () => Promise<unknown>][] = [
        ["Key release is paused", () => guardian.pauseRelease(MAX_PAUSE, "")],
        ["TEE kind is not enabled", () => guardian.suspendTee(KIND.dstack, "")],
        ["TCB status is not accepted", () => guardian.rejectTcb(KIND.dstack, 1)],
        ["OS image is not allowed", () => guardian.revokePlatform(imageId(PLATFORM.dstack), "")],
        ["Device is not allowed by the platform policy", () => guardian.restrictDevices(KIND.dstack)],
      ];
      for (const [reason, act] of denials) {
        const snapshot = await connection.networkHelpers.takeSnapshot();
        expect(await app()).to.deep.equal(YES);
        await act();
        expect(await app()).to.deep.equal(no(reason));
        await snapshot.restore();
      }
      expect(await app({ osImageHash: measured("never allowed", 32) })).to.deep.equal(no("Compose hash not allowed"));
      await add(imageOf(0b0010));
      await time.increase(NOTICE);
      expect(await app({ osImageHash: measured("never allowed", 32) })).to.deep.equal(no("OS image is not allowed"));
    });

    it("a service that names its devices has them checked", async () => {
      const strict = await createService([DEVICE], false, keccakOf("devices"));
      await add(imageOf(0b0010), strict);
      const at = { appId: getAddress(strict) };
      expect(await app(at)).to.deep.equal(YES);
      for (const deviceId of [ZeroHash, measured("other device", 32)]) {
        expect(await app({ ...at, deviceId })).to.deep.equal(no("Device not allowed"));
      }
    });

    it("a sealed service is an app as well", async () => {
      const sealed = suite.registry.connect(suite.eve);
      await sealed.addSecretKeyByImage(imageOf(0b0011), [], false, SALT, "sealed", "0x");
      const sealedId = getAddress(await suite.registry.serviceIdFor(suite.eve.address, SALT));
      expect(await app({ appId: sealedId })).to.deep.equal(YES);
      expect(await app({ appId: sealedId, composeHash: OS })).to.deep.equal(no("Compose hash not allowed"));
    });
  });

  describe("isKmsAllowed", () => {
    for (const mask of KMS_MASKS) {
      it(`given a KMS image of ${namesOf(mask)}: allowed, and denied once any of them differs`, async () => {
        expect(await kms()).to.deep.equal(no("KMS image is not allowed"));
        const governor = suite.policy.connect(suite.governor);
        await governor.allowKmsImage(imageOf(mask), "");
        expect(await kms()).to.deep.equal(YES);
        const other = measured("other", 32);
        await governor.allowPlatform(image(KIND.dstack, { 0: other }), "");
        for (const [bit, field] of [
          [0, "osImageHash"],
          [1, "composeHash"],
          [2, "mrAggregated"],
          [3, "mrSystem"],
        ] as const) {
          const expected = (mask >> bit) & 1 ? no("KMS image is not allowed") : YES;
          expect(await kms({ [field]: other }), field).to.deep.equal(expected);
          if (bit > 0) expect(await kms({ [field]: ZeroHash }), `${field} zero`).to.deep.equal(expected);
        }
        // Which app it says it is decides nothing here.
        expect(await kms({ appId: ZeroAddress, instanceId: ZeroAddress, advisoryIds: ["x"] })).to.deep.equal(YES);
      });
    }

    it("a service's image is no KMS image, and a KMS image no service's", async () => {
      await add(imageOf(0b0011));
      expect(await kms()).to.deep.equal(no("KMS image is not allowed"));
      const other = { ...VALUES, 1: measured("kms compose", 32) };
      await suite.policy.connect(suite.governor).allowKmsImage(imageOf(0b0011, other), "");
      const machine = { composeHash: measured("kms compose", 32) };
      expect(await kms(machine)).to.deep.equal(YES);
      expect(await app(machine)).to.deep.equal(no("Compose hash not allowed"));
    });

    it("hashes of zero, and the policy's denials, come with their reason", async () => {
      const guardian = suite.policy.connect(suite.guardian);
      await suite.policy.connect(suite.governor).allowKmsImage(imageOf(0b0011), "");
      expect(await kms({ composeHash: ZeroHash })).to.deep.equal(no("KMS image is not allowed"));
      expect(await kms({ osImageHash: ZeroHash })).to.deep.equal(no("OS image hash is missing"));
      expect(await kms({ tcbStatus: "OutOfDate" })).to.deep.equal(no("TCB status is not accepted"));
      expect(await kms({ tcbStatus: "" }), "a TEE without TCB levels, where the policy accepts it").to.deep.equal(YES);
      const denials: readonly [string, () => Promise<unknown>][] = [
        ["Key release is paused", () => guardian.pauseRelease(60, "")],
        ["TEE kind is not enabled", () => guardian.suspendTee(KIND.dstack, "")],
        ["OS image is not allowed", () => guardian.revokePlatform(imageId(PLATFORM.dstack), "")],
        ["Device is not allowed by the platform policy", () => guardian.restrictDevices(KIND.dstack)],
        ["KMS image is not allowed", () => guardian.revokeKmsImage(imageId(imageOf(0b0011)), "")],
      ];
      for (const [reason, act] of denials) {
        const snapshot = await connection.networkHelpers.takeSnapshot();
        await act();
        expect(await kms()).to.deep.equal(no(reason));
        await snapshot.restore();
      }
    });
  });

  describe("isKmsAllowed, more of it", () => {
    const governor = () => suite.policy.connect(suite.governor);
    const guardian = () => suite.policy.connect(suite.guardian);

    it("a KMS node must be up to date, whatever is accepted for apps", async () => {
      await governor().allowKmsImage(imageOf(0b0011), "");
      await governor().acceptTcb(KIND.dstack, 1 << TCB.outOfDate);
      await add(imageOf(0b0011));
      expect(await app({ tcbStatus: "OutOfDate" })).to.deep.equal(YES);
      for (const [name, bit] of Object.entries(TCB_NAMES)) {
        const expected = bit === 0 || bit === 7 ? YES : no("TCB status is not accepted");
        expect(await kms({ tcbStatus: name }), name).to.deep.equal(expected);
      }
    });

    it("given restricted devices of the kind, of KMS nodes, or both: listed where it is restricted", async () => {
      await governor().allowKmsImage(imageOf(0b0011), "");
      await add(imageOf(0b0011));
      const denied = no("Device is not allowed by the platform policy");
      const KMS_NODES = 0;
      await guardian().restrictDevices(KMS_NODES);
      expect(await kms()).to.deep.equal(denied);
      expect(await suite.dstackAuth.kmsAllowedDeviceIds(DEVICE)).to.equal(false);
      expect(await app(), "an app's machine does not ask for the KMS nodes' list").to.deep.equal(YES);
      await governor().allowDevice(KMS_NODES, DEVICE);
      expect(await kms()).to.deep.equal(YES);
      expect(await kms({ deviceId: OS })).to.deep.equal(denied);
      await guardian().restrictDevices(KIND.dstack);
      expect(await kms()).to.deep.equal(denied);
      expect(await suite.dstackAuth.kmsAllowedDeviceIds(DEVICE)).to.equal(false);
      await governor().allowDevice(KIND.dstack, DEVICE);
      expect(await kms()).to.deep.equal(YES);
      expect(await suite.dstackAuth.kmsAllowedDeviceIds(DEVICE)).to.equal(true);
      await guardian().revokeDevice(KMS_NODES, DEVICE);
      expect(await kms()).to.deep.equal(denied);
      expect(await app()).to.deep.equal(YES);
    });

    it("of two KMS images, one revoked, the other decides; with both revoked none does", async () => {
      await governor().allowKmsImage(imageOf(0b0011), "");
      await governor().allowKmsImage(imageOf(0b0100), "");
      await guardian().revokeKmsImage(imageId(imageOf(0b0011)), "");
      expect(await kms()).to.deep.equal(YES);
      expect(await kms({ mrAggregated: OS })).to.deep.equal(no("KMS image is not allowed"));
      await guardian().revokePlatform(imageId(PLATFORM.dstack), "");
      expect(await kms(), "the listed one tells why").to.deep.equal(no("OS image is not allowed"));
      await guardian().revokeKmsImage(imageId(imageOf(0b0100)), "");
      expect(await kms()).to.deep.equal(no("KMS image is not allowed"));
    });
  });

  describe("views for dstack's tools", () => {
    it("know the OS images and the aggregated measurements that the policy lists, and no other", async () => {
      const { dstackAuth, policy, governor, guardian } = suite;
      expect(await dstackAuth.allowedOsImages(OS)).to.equal(true);
      expect(await dstackAuth.allowedOsImages(COMPOSE)).to.equal(false);
      await policy.connect(guardian).revokePlatform(imageId(PLATFORM.dstack), "");
      expect(await dstackAuth.allowedOsImages(OS)).to.equal(false);
      expect(await dstackAuth.kmsAllowedAggregatedMrs(AGGREGATED)).to.equal(false);
      await policy.connect(governor).allowKmsImage(imageOf(0b0100), "");
      expect(await dstackAuth.kmsAllowedAggregatedMrs(AGGREGATED)).to.equal(true);
      expect(await dstackAuth.kmsAllowedAggregatedMrs(SYSTEM)).to.equal(false);
    });

    it("a sealed service is a registered app too", async () => {
      await suite.registry.connect(suite.eve).addSecretKeyByImage(imageOf(0b0011), [], false, SALT, "", "0x");
      const sealedId = await suite.registry.serviceIdFor(suite.eve.address, SALT);
      expect(await suite.dstackAuth.registeredApps(getAddress(sealedId))).to.equal(true);
    });

    it("a gateway of equal length is another gateway", async () => {
      const governor = suite.policy.connect(suite.governor);
      await governor.setGatewayAppId("0xaaaa");
      await governor.setGatewayAppId("0xaaab");
      expect(await suite.dstackAuth.gatewayAppId()).to.equal("0xaaab");
    });
  });

  describe("given a newer registry or policy that answers a number unknown here", () => {
    it("denies, and does not revert", async () => {
      const { ethers } = connection;
      // PUSH1 16, PUSH1 0, MSTORE, PUSH1 32, PUSH1 0, RETURN: the first number after today's decisions, to any question.
      const newer = getAddress(`0x${"77".repeat(20)}`);
      await connection.networkHelpers.setCode(newer, "0x601060005260206000f3");
      const auth = await ethers.deployContract("DstackAuth", [newer, newer]);
      for (const name of ["isAppAllowed", "isKmsAllowed"]) {
        const answer = await auth.getFunction(name)(boot);
        expect([...answer], name).to.deep.equal(no("Denied"));
      }
    });
  });

  describe("answers", () => {
    it("given random machines, both answer, with no reason or a short ASCII one", async () => {
      await add(imageOf(0b0011));
      await suite.policy.connect(suite.governor).allowKmsImage(imageOf(0b0011), "");
      const hash = fc.oneof(
        fc.constantFrom(ZeroHash, OS, COMPOSE, AGGREGATED, SYSTEM),
        fc.constant(measured("any", 32)),
      );
      const address = fc.constantFrom(getAddress(appId), ZeroAddress, suite.eve.address);
      const machine = fc.record({
        appId: address,
        composeHash: hash,
        instanceId: address,
        deviceId: hash,
        mrAggregated: hash,
        mrSystem: hash,
        osImageHash: hash,
        tcbStatus: fc.oneof(fc.constantFrom(...Object.keys(TCB_NAMES)), fc.string({ unit: "grapheme" })),
        advisoryIds: fc.array(fc.string(), { maxLength: 3 }),
      });
      await fc.assert(
        fc.asyncProperty(machine, async (random) => {
          for (const [allowed, reason] of [await app(random), await kms(random)]) {
            expect(reason === "", "a reason exactly where it is denied").to.equal(allowed);
            expect(reason).to.match(/^[ -~]{0,64}$/);
          }
        }),
        { numRuns: 150 },
      );
    });

    it("the whole answer stays below 512 bytes, which dstack-kms cuts at", async () => {
      // Every reason that the source can give, so that none is left to chance.
      const { readFile } = await import("node:fs/promises");
      const source = await readFile(new URL("../../../contracts/dstack/DstackAuth.sol", import.meta.url), "utf8");
      const reasons = [...source.matchAll(/return (?:\(false, )?"([^"]*)"/g)].map(([, reason]) => reason ?? "");
      expect(reasons.length).to.be.greaterThan(18);
      for (const reason of reasons) {
        const body = JSON.stringify({ isAllowed: false, gatewayAppId: "g".repeat(300), reason });
        expect(body).to.match(/^[ -~]+$/);
        expect(body.length).to.be.lessThan(512);
      }
    });
  });
});
