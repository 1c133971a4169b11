import { expect } from "chai";
import { id, toBeHex, ZeroAddress, ZeroHash } from "ethers";
import { IKmsRegistry__factory } from "../../../typechain-types/index.ts";
import { connection } from "../../helpers/connection.ts";
import { expectHistory, fieldsOf, headFromLogs, logsOf, mined, timeOf } from "../../helpers/history.ts";
import { imageId, tdxImage } from "../../helpers/images.ts";
import {
  at,
  DEVICE,
  deviceService,
  guardedService,
  NO_IMAGE,
  NO_SERVICE,
  now,
  openSuite,
  serviceWithImage,
  V1,
  V2,
  V3,
} from "../../helpers/registry.ts";
import { NOTICE } from "../../helpers/suite.ts";

const { networkHelpers, ethers } = connection;

/** The ERC-165 id of an interface: its functions' selectors, combined. */
const interfaceIdOf = (names: readonly string[]): string =>
  toBeHex(
    names.reduce((sum, name) => sum ^ BigInt(name), 0n),
    4,
  );

describe("KmsRegistry: views", () => {
  it("given no such service, they answer with zeros and do not revert", async () => {
    const { registry } = await networkHelpers.loadFixture(openSuite);
    for (const nothing of [NO_SERVICE, toBeHex(0, 20)]) {
      expect(fieldsOf(await registry.service(nothing))).to.deep.equal({
        exists: false,
        upgradeable: false,
        admin: ZeroAddress,
        pendingAdmin: ZeroAddress,
        guardian: ZeroAddress,
        noticePeriod: 0n,
        keyEpoch: 0n,
        requireUpToDateTcb: false,
        restrictDevices: false,
        tcbRuleEnds: 0n,
        nextGuardian: ZeroAddress,
        nextGuardianFrom: 0n,
        formerGuardian: ZeroAddress,
        formerGuardianUntil: 0n,
        rotatedAt: 0n,
        sequence: 0n,
        lastUpdateBlock: 0n,
        historyHead: ZeroHash,
      });
      expect(await registry.image(nothing, imageId(V1))).to.deep.equal([0n, 0n, 0n, 0n, 0n, false]);
      expect(await registry.isImageActive(nothing, imageId(V1))).to.equal(false);
      expect(await registry.historyHead(nothing)).to.equal(ZeroHash);
    }
  });

  it("given no such service, no device counts, though it restricts none", async () => {
    const { registry } = await networkHelpers.loadFixture(openSuite);
    expect(await registry.isDeviceAllowed(NO_SERVICE, DEVICE.one)).to.deep.equal([false, 0n]);
  });

  it("given an image that was never listed, image is all zeros and isImageActive false", async () => {
    const { registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    expect(await registry.image(serviceId, NO_IMAGE)).to.deep.equal([0n, 0n, 0n, 0n, 0n, false]);
    expect(await registry.isImageActive(serviceId, NO_IMAGE)).to.equal(false);
  });

  it("given images in every state at once, each is told as it is", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    await own.addImagesToService(serviceId, [
      { image: V2, description: "" },
      { image: V3, description: "" },
    ]);
    await own.removeImageFromService(serviceId, imageId(V3), "");
    await own.retireImageFromService(serviceId, imageId(V1), (await now()) + 2 * NOTICE);
    const active = async () =>
      Promise.all([V1, V2, V3].map((image) => registry.isImageActive(serviceId, imageId(image))));
    expect(await active()).to.deep.equal([true, false, false]);
    await at((await now()) + NOTICE);
    expect(await active()).to.deep.equal([true, true, false]);
    await at((await now()) + 2 * NOTICE);
    expect(await active()).to.deep.equal([false, true, false]);
  });

  it("given a life of many events, walking back by previousBlock finds them all, and they fold to the head", async () => {
    const { own, registry, serviceId, serviceGuardian } = await networkHelpers.loadFixture(deviceService);
    await own.setServiceGuardian(serviceId, serviceGuardian.address);
    await networkHelpers.mine(7);
    await own.setDevice(serviceId, DEVICE.two, true);
    await own.addImagesToService(serviceId, [
      { image: V2, description: "two" },
      { image: V3, description: "three" },
    ]);
    await networkHelpers.mine(3);
    await registry.connect(serviceGuardian).removeImageFromService(serviceId, imageId(V2), "veto");
    await own.rotateServiceKey(serviceId);
    await own.publishSealedSecrets(serviceId, "env", "0x01");
    await own.renounceServiceAdmin(serviceId);

    const { sequence, lastUpdateBlock, historyHead } = await registry.service(serviceId);
    const walked: bigint[] = [];
    let block = lastUpdateBlock;
    while (block !== 0n) {
      // a pointer that does not lead backwards would lead round for ever
      expect(walked.length).to.be.lessThan(Number(sequence));
      const logs = await ethers.provider.getLogs({
        address: await registry.getAddress(),
        topics: [null, `${serviceId}${"00".repeat(12)}`],
        fromBlock: block,
        toBlock: block,
      });
      const events = logs.map((log) => registry.interface.parseLog(log));
      for (const event of events.toReversed()) walked.unshift(event?.args.getValue("sequence"));
      block = events[0]?.args.getValue("previousBlock");
    }
    expect(walked).to.deep.equal(Array.from({ length: Number(sequence) }, (_, index) => BigInt(index + 1)));
    expect((await logsOf(registry, serviceId)).length).to.equal(Number(sequence));
    expect(await headFromLogs(registry, serviceId)).to.equal(historyHead);
    expect(await registry.historyHead(serviceId)).to.equal(historyHead);
  });

  it("given texts of every length around a word's, each log is chained whole, with no byte more or less", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(serviceWithImage);
    for (const length of [0, 1, 31, 32, 33, 63, 64, 65, 511, 512]) {
      const description = "é".repeat(length / 2) + "x".repeat(length % 2);
      const image = tdxImage(`description of ${length} bytes`);
      const receipt = await mined(own.addImageToService(serviceId, image, description));
      const activeFrom = (await timeOf(receipt)) + NOTICE;
      await expectHistory(registry, serviceId, receipt, [
        {
          name: "AddImageToService",
          fields: { actor: admin.address, imageId: imageId(image), image, description, activeFrom },
        },
      ]);
      const removed = await mined(own.removeImageFromService(serviceId, imageId(image), description));
      await expectHistory(registry, serviceId, removed, [
        {
          name: "RemoveImageFromService",
          fields: { actor: admin.address, imageId: imageId(image), reason: description },
        },
      ]);
    }
  });

  it("supportsInterface: the registry's own interface, IGoverned, IAccessControl and ERC-165", async () => {
    const { registry } = await networkHelpers.loadFixture(guardedService);
    const governed = ["upgradeTo(address)", "implementation()", "version()"].map((name) => id(name).slice(0, 10));
    const all = IKmsRegistry__factory.createInterface()
      .fragments.filter((fragment) => fragment.type === "function")
      .map((fragment) => id(fragment.format("sighash")).slice(0, 10));
    const own = all.filter((selector) => !governed.includes(selector));
    expect(own.length, "the interface's functions").to.equal(30);
    for (const known of [interfaceIdOf(own), interfaceIdOf(governed), "0x7965db0b", "0x01ffc9a7"]) {
      expect(await registry.supportsInterface(known), known).to.equal(true);
    }
    for (const unknown of ["0xffffffff", "0x00000000", "0x1e079198", interfaceIdOf(all)]) {
      expect(await registry.supportsInterface(unknown), unknown).to.equal(false);
    }
  });

  it("version is that of the first release", async () => {
    const { registry } = await networkHelpers.loadFixture(guardedService);
    expect(await registry.version()).to.equal("1.0.0");
  });
});
