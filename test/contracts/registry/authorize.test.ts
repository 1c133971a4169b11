import { expect } from "chai";
import { AbiCoder, toBeHex, ZeroHash } from "ethers";
import fc from "fast-check";
import { KmsRegistry__factory } from "../../../typechain-types/index.ts";
import { connection } from "../../helpers/connection.ts";
import { DECISION, type DecisionName } from "../../helpers/decisions.ts";
import { imageId, KIND, PLATFORM, snpImage } from "../../helpers/images.ts";
import {
  at,
  bareService,
  bytes32,
  config,
  DEVICE,
  NO_IMAGE,
  NO_SERVICE,
  now,
  openSuite,
  type Request,
  request,
  type Scene,
  serviceWithImage,
  V1,
  V2,
} from "../../helpers/registry.ts";
import { DAY, deploy, NOTICE, TCB } from "../../helpers/suite.ts";

const { networkHelpers, ethers } = connection;

/** A service with device and TCB rules and an active V1, on a policy that restricts TDX devices to device one. */
async function ruledService(): Promise<Scene> {
  const suite = await openSuite();
  const salt = bytes32("ruled");
  const rules = config(suite.admin.address, { devices: [DEVICE.one, DEVICE.two], requireUpToDateTcb: true });
  const own = suite.registry.connect(suite.admin);
  await own.createServiceWithImage(rules, salt, V1, "v1");
  const serviceId = await suite.registry.serviceIdFor(suite.admin.address, salt);
  const policy = suite.policy.connect(suite.governor);
  await policy.allowDevice(KIND.tdx, DEVICE.one);
  await policy.restrictDevices(KIND.tdx);
  return { ...suite, serviceId, own };
}

/** A registry on another policy than the suite's, with one service of V1. */
async function registryOn(policyAddress: string) {
  const { deployer, governor } = await openSuite();
  const init = KmsRegistry__factory.createInterface().encodeFunctionData("initialize", [governor.address]);
  const code = await deploy(connection, "KmsRegistry", [policyAddress]);
  const registry = KmsRegistry__factory.connect(await deploy(connection, "ERC1967Proxy", [code, init]), deployer);
  await registry.createServiceWithImage(config(deployer.address), ZeroHash, V1, "");
  return { registry, serviceId: await registry.serviceIdFor(deployer.address, ZeroHash) };
}

/** ScriptedPolicy's manners. */
const MANNER = { answers: 0, reverts: 1, burnsGas: 2 } as const;

const nameOf = (decision: bigint): string =>
  Object.entries(DECISION).find(([, number]) => number === decision)?.[0] ?? `no decision: ${decision}`;

describe("KmsRegistry: authorize", () => {
  async function expectDecision(scene: Scene, wanted: DecisionName, changes: Partial<Request> = {}) {
    expect(nameOf(await scene.registry.authorize(request(scene.serviceId, changes)))).to.equal(wanted);
  }

  describe("each answer", () => {
    it("given everything in order, it is Allowed", async () => {
      await expectDecision(await networkHelpers.loadFixture(ruledService), "Allowed");
    });

    it("given no such service, or the zero id, it is ServiceUnknown", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      await expectDecision(scene, "ServiceUnknown", { serviceId: NO_SERVICE });
      await expectDecision(scene, "ServiceUnknown", { serviceId: toBeHex(0, 20) });
    });

    it("given an image that the service never listed, it is ImageUnknown, even if another service lists it", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      await expectDecision(scene, "ImageUnknown", { imageId: NO_IMAGE });
      await scene.registry.createServiceWithImage(config(scene.admin.address), bytes32("other"), V2, "");
      await expectDecision(scene, "ImageUnknown", { imageId: imageId(V2) });
    });

    it("given a service without an image, it is ImageUnknown", async () => {
      await expectDecision(await networkHelpers.loadFixture(bareService), "ImageUnknown");
    });

    it("given a removed image, it is ImageRemoved; added again, ImagePending", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      await scene.own.removeImageFromService(scene.serviceId, imageId(V1), "");
      await expectDecision(scene, "ImageRemoved");
      await scene.own.addImageToService(scene.serviceId, V1, "");
      await expectDecision(scene, "ImagePending");
    });

    it("given a pending image, it is ImagePending until the second before activeFrom", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      await scene.own.addImageToService(scene.serviceId, V2, "");
      const activeFrom = (await now()) + NOTICE;
      await at(activeFrom - 1);
      await expectDecision(scene, "ImagePending", { imageId: imageId(V2) });
      await at(activeFrom);
      await expectDecision(scene, "Allowed", { imageId: imageId(V2) });
    });

    it("given a retiring image, it is ImageRetired from activeUntil on", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      const end = (await now()) + 100;
      await scene.own.retireImageFromService(scene.serviceId, imageId(V1), end);
      await at(end - 1);
      await expectDecision(scene, "Allowed");
      await at(end);
      await expectDecision(scene, "ImageRetired");
      await at(end + DAY);
      await expectDecision(scene, "ImageRetired");
    });

    it("given the service asks for UpToDate, every other status is ServiceTcbNotUpToDate", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      for (const tcbStatus of [TCB.swHardeningNeeded, TCB.outOfDate, TCB.revoked, TCB.notApplicable, 10, 255]) {
        await expectDecision(scene, "ServiceTcbNotUpToDate", { tcbStatus });
      }
    });

    it("given the service names its devices, another is ServiceDeviceNotAllowed", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      await expectDecision(scene, "ServiceDeviceNotAllowed", { deviceId: DEVICE.other });
      await expectDecision(scene, "ServiceDeviceNotAllowed", { deviceId: ZeroHash });
    });

    it("given a pause, it is ReleasePaused until the second before it lapses", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      await scene.policy.connect(scene.guardian).pauseRelease(DAY, "incident");
      const until = (await now()) + DAY;
      await expectDecision(scene, "ReleasePaused");
      await at(until - 1);
      await expectDecision(scene, "ReleasePaused");
      await at(until);
      await expectDecision(scene, "Allowed");
    });

    it("given a suspended TEE kind, it is TeeSuspended, for that kind alone", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      await scene.registry.createServiceWithImage(config(scene.admin.address), bytes32("snp"), snpImage("a"), "");
      const snp = {
        serviceId: await scene.registry.serviceIdFor(scene.deployer.address, bytes32("snp")),
        imageId: imageId(snpImage("a")),
        platformId: imageId(PLATFORM.snp),
      };
      await scene.policy.connect(scene.guardian).suspendTee(KIND.tdx, "broken");
      await expectDecision(scene, "TeeSuspended");
      await expectDecision(scene, "Allowed", snp);
    });

    it("given a status that the policy does not accept, it is TcbNotAccepted, numbers that name none too", async () => {
      const scene = await networkHelpers.loadFixture(serviceWithImage);
      await expectDecision(scene, "Allowed", { tcbStatus: TCB.swHardeningNeeded });
      for (const tcbStatus of [TCB.outOfDate, TCB.revoked, 10, 15, 16, 17, 128, 255]) {
        await expectDecision(scene, "TcbNotAccepted", { tcbStatus });
      }
    });

    it("given a platform that is not listed or was revoked, it is PlatformNotAllowed", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      await expectDecision(scene, "PlatformNotAllowed", { platformId: bytes32("no platform") });
      await scene.policy.connect(scene.guardian).revokePlatform(imageId(PLATFORM.tdx), "");
      await expectDecision(scene, "PlatformNotAllowed");
    });

    it("given a platform of another TEE kind, it is PlatformKindMismatch", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      await expectDecision(scene, "PlatformKindMismatch", { platformId: imageId(PLATFORM.snp) });
    });

    it("given the policy names its devices, another is DeviceNotAllowed, though the service lists it", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      await expectDecision(scene, "DeviceNotAllowed", { deviceId: DEVICE.two });
    });

    it("given a KMS node whose image is not allowed, the policy's own question is KmsImageNotAllowed", async () => {
      const { policy } = await networkHelpers.loadFixture(ruledService);
      const asked = policy.authorizeKms(imageId(V1), imageId(PLATFORM.tdx), DEVICE.one, TCB.upToDate);
      expect(nameOf(await asked)).to.equal("KmsImageNotAllowed");
    });
  });

  describe("order", () => {
    it("given a request with every fault, curing them one by one shows the answers in the order of their cost", async () => {
      const scene = await networkHelpers.loadFixture(ruledService);
      const { own, serviceId, registry, guardian, governor } = scene;
      const policy = scene.policy.connect(guardian);
      const governed = scene.policy.connect(governor);
      await policy.pauseRelease(DAY, "");
      await policy.suspendTee(KIND.tdx, "");
      const worst: Request = {
        serviceId: NO_SERVICE,
        imageId: imageId(V2),
        platformId: bytes32("no platform"),
        deviceId: DEVICE.other,
        tcbStatus: TCB.outOfDate,
      };
      const told: string[] = [];
      const ask = async (changes: Partial<Request>) => {
        Object.assign(worst, changes);
        told.push(nameOf(await registry.authorize(worst)));
      };

      await ask({});
      await ask({ serviceId });
      await own.addImageToService(serviceId, V2, "");
      await own.removeImageFromService(serviceId, imageId(V2), "");
      await ask({});
      await own.addImageToService(serviceId, V2, "");
      await ask({});
      const activeFrom = (await now()) + NOTICE;
      await own.retireImageFromService(serviceId, imageId(V2), activeFrom + 1);
      await ask({});
      await at(activeFrom + 1);
      await policy.pauseRelease(DAY, "");
      await ask({});
      await ask({ imageId: imageId(V1) });
      await own.setRequireUpToDateTcb(serviceId, false);
      await at((await now()) + NOTICE);
      await policy.pauseRelease(DAY, "");
      await ask({});
      await ask({ deviceId: DEVICE.two });
      await governed.resumeRelease();
      await ask({});
      await governed.enableTee(KIND.tdx);
      await ask({});
      await governed.acceptTcb(KIND.tdx, 1 << TCB.outOfDate);
      await ask({});
      await ask({ platformId: imageId(PLATFORM.nitro) });
      await ask({ platformId: imageId(PLATFORM.tdx) });
      await governed.allowDevice(KIND.tdx, DEVICE.two);
      await ask({});
      expect(told).to.deep.equal([
        "ServiceUnknown",
        "ImageUnknown",
        "ImageRemoved",
        "ImagePending",
        "ImagePending",
        "ImageRetired",
        "ServiceTcbNotUpToDate",
        "ServiceDeviceNotAllowed",
        "ReleasePaused",
        "TeeSuspended",
        "TcbNotAccepted",
        "PlatformNotAllowed",
        "PlatformKindMismatch",
        "DeviceNotAllowed",
        "Allowed",
      ]);
    });

    it("the first member of Decision is a denial: memory that nobody wrote never says yes", () => {
      expect(DECISION.ServiceUnknown).to.equal(0n);
    });
  });

  describe("whatever is asked", () => {
    it("it answers with a decision and never reverts", async () => {
      const { registry, serviceId } = await networkHelpers.loadFixture(ruledService);
      const word = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => ethers.hexlify(bytes));
      const some = (...known: string[]) => fc.oneof(fc.constantFrom(...known), word);
      await fc.assert(
        fc.asyncProperty(
          fc.oneof(
            fc.constantFrom(serviceId, NO_SERVICE),
            word.map((hash) => hash.slice(0, 42)),
          ),
          some(imageId(V1), imageId(V2), ZeroHash),
          some(imageId(PLATFORM.tdx), imageId(PLATFORM.snp), ZeroHash),
          some(DEVICE.one, DEVICE.two, ZeroHash),
          fc.oneof(fc.constantFrom(0, 1, 6), fc.integer({ min: 0, max: 255 })),
          async (service, image, platformId, deviceId, tcbStatus) => {
            const asked = { serviceId: service, imageId: image, platformId, deviceId, tcbStatus };
            const decision = await registry.authorize(asked);
            const right =
              service === serviceId &&
              image === imageId(V1) &&
              platformId === imageId(PLATFORM.tdx) &&
              deviceId === DEVICE.one &&
              tcbStatus === TCB.upToDate;
            expect(decision === DECISION.Allowed).to.equal(right);
            expect(decision <= DECISION.PolicyUnavailable).to.equal(true);
          },
        ),
        { numRuns: 300 },
      );
    });
  });

  describe("given a policy that does not answer as one", () => {
    const word = (value: bigint): string => toBeHex(value, 32);
    const cases: readonly [string, number, string, DecisionName][] = [
      ["reverts without a reason", MANNER.reverts, "0x", "PolicyUnavailable"],
      ["reverts with what would be Allowed", MANNER.reverts, word(DECISION.Allowed), "PolicyUnavailable"],
      ["burns all gas it is given", MANNER.burnsGas, "0x", "PolicyUnavailable"],
      ["answers with nothing", MANNER.answers, "0x", "PolicyUnavailable"],
      ["answers with a byte too few", MANNER.answers, `0x${"00".repeat(30)}01`, "PolicyUnavailable"],
      ["answers with the number after the last decision", MANNER.answers, word(16n), "PolicyUnavailable"],
      ["answers with 2^8 + Allowed", MANNER.answers, word(257n), "PolicyUnavailable"],
      ["answers with the largest number", MANNER.answers, word(2n ** 256n - 1n), "PolicyUnavailable"],
      ["answers with a denial", MANNER.answers, word(DECISION.ReleasePaused), "ReleasePaused"],
      ["answers with Allowed", MANNER.answers, word(DECISION.Allowed), "Allowed"],
    ];
    for (const [what, manner, answer, wanted] of cases) {
      it(`when it ${what}, the answer is ${wanted}`, async () => {
        const { registry, serviceId } = await registryOn(await deploy(connection, "ScriptedPolicy", [manner, answer]));
        expect(nameOf(await registry.authorize(request(serviceId)))).to.equal(wanted);
      });
    }

    it("when it answers with 20,000 bytes, the first word counts and the rest is not copied", async () => {
      const answer = `${word(DECISION.ReleasePaused)}${"ff".repeat(20_000)}`;
      const { registry, serviceId } = await registryOn(
        await deploy(connection, "ScriptedPolicy", [MANNER.answers, answer]),
      );
      expect(nameOf(await registry.authorize(request(serviceId)))).to.equal("ReleasePaused");
    });
  });

  describe("the policy", () => {
    it("is asked with exactly the image's kind and the request's platform, device and status", async () => {
      const { registry, serviceId, policy } = await networkHelpers.loadFixture(serviceWithImage);
      expect(await registry.POLICY()).to.equal(await policy.getAddress());
      const asked = await policy.decide(KIND.tdx, imageId(PLATFORM.tdx), DEVICE.one, TCB.upToDate);
      expect(await registry.authorize(request(serviceId))).to.equal(asked);
      expect(asked).to.equal(DECISION.Allowed);
    });

    it("when it has no code, the registry's constructor refuses it", async () => {
      const { registry, eve } = await networkHelpers.loadFixture(openSuite);
      const factory = await ethers.getContractFactory("KmsRegistry");
      await expect(factory.deploy(eve.address))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_PolicyNotAContract")
        .withArgs(eve.address);
    });
  });

  it("given calldata that is no request, it does not say Allowed", async () => {
    const { registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    const good = registry.interface.encodeFunctionData("authorize", [request(serviceId)]);
    const dirtyStatus = `${good.slice(0, 10 + 64)}${AbiCoder.defaultAbiCoder().encode(["uint256"], [256]).slice(2)}${good.slice(10 + 128)}`;
    for (const data of [good.slice(0, -2), good.slice(0, 10), dirtyStatus]) {
      const answered = await ethers.provider.call({ to: await registry.getAddress(), data }).catch(() => undefined);
      expect(answered, "a revert, not an answer").to.equal(undefined);
    }
  });
});
