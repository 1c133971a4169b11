import { readFile } from "node:fs/promises";
import { expect } from "chai";
import { AbiCoder, getAddress, Interface, id, keccak256, toBeHex, ZeroHash, zeroPadBytes } from "ethers";
import { artifacts, network } from "hardhat";
import { interfaceId, readAbis } from "../../tools/abi-snapshot.ts";
import { erc7201 } from "../../tools/erc7201.ts";
import { compareLines, formatSnapshot } from "../../tools/snapshot.ts";
import { image, imageId, KIND, measured, PLATFORM, snpImage, tdxImage } from "../helpers/images.ts";
import { DECISIONS } from "../helpers/policy.ts";
import { DAY, deployOpenSuite, NOTICE, type Suite } from "../helpers/suite.ts";

const connection = await network.create();
const { loadFixture, time } = connection.networkHelpers;

/** Namespaces by the file that declares them. */
const NAMESPACES = {
  "policy/PlatformPolicy.sol": ["keystead.storage.PlatformPolicy"],
  "registry/ServiceStore.sol": ["keystead.storage.KmsRegistry"],
  "mocks/KmsRegistryV2.sol": ["keystead.storage.KmsRegistryV2"],
  "mocks/PlatformPolicyV2.sol": ["keystead.storage.PlatformPolicyV2"],
} as const;

const source = (file: string): Promise<string> => readFile(new URL(`../../contracts/${file}`, import.meta.url), "utf8");
const word = (value: bigint | number): string => toBeHex(value, 32);
const at = (base: string, offset: number): string => word(BigInt(base) + BigInt(offset));
/** Where a mapping keeps the value of a key: keccak256 of the key's word and the mapping's slot. */
const mapped = (key: string, slot: string): string =>
  keccak256(AbiCoder.defaultAbiCoder().encode(["bytes32", "bytes32"], [key, slot]));
/** Packs fields into one word, low bits first. */
const packed = (...fields: readonly (readonly [bits: number, value: bigint | number])[]): string => {
  let shift = 0n;
  let sum = 0n;
  for (const [bits, value] of fields) {
    sum |= BigInt(value) << shift;
    shift += BigInt(bits);
  }
  return word(sum);
};

describe("pinned: ERC-7201 namespaces", () => {
  it("the formula is the one of the standard's example", () => {
    expect(erc7201("example.main")).to.equal("0x183a6125c38840424c4a85fa12bab2ab606c4b6d0e7cc73c0c06ba5300eab500");
  });

  for (const [file, names] of Object.entries(NAMESPACES)) {
    it(`${file} declares ${names.join(", ")}, and the slot that follows from the name`, async () => {
      const text = await source(file);
      expect([...text.matchAll(/@custom:storage-location erc7201:(\S+)/g)].map(([, name]) => name)).to.deep.equal(
        names,
      );
      expect([...text.matchAll(/constant \w+_STORAGE = (0x[0-9a-f]{64});/g)].map(([, slot]) => slot)).to.deep.equal(
        names.map(erc7201),
      );
    });
  }
});

describe("pinned: storage as it lies on the chain", () => {
  let suite: Suite;
  const read = (address: string, slot: string) => connection.ethers.provider.getStorage(address, slot);

  beforeEach(async () => {
    suite = await loadFixture(deployOpenSuite);
  });

  it("nothing lies outside of namespaces", async () => {
    for (const contract of [suite.policy, suite.registry]) {
      for (let slot = 0; slot < 32; slot++) {
        expect(await read(await contract.getAddress(), word(slot)), `slot ${slot}`).to.equal(ZeroHash);
      }
    }
  });

  it("PlatformPolicy: gate, head, version, entries, devices, dstack facts", async () => {
    const base = erc7201("keystead.storage.PlatformPolicy");
    const address = await suite.policy.getAddress();
    const governor = suite.policy.connect(suite.governor);
    const device = measured("device", 32);
    await governor.suspendTee(KIND.nitro, "");
    await governor.restrictDevices(KIND.snp);
    await governor.allowDevice(KIND.snp, device);
    await governor.rejectTcb(KIND.tdx, 0xffff);
    await governor.acceptTcb(KIND.tdx, 0x0201);
    await governor.setGatewayAppId("gateway");
    await governor.setAppImplementation(suite.eve.address);
    await governor.allowKmsImage(snpImage("kms"), "");
    const kmsSince = await time.latest();
    await governor.revokePlatform(imageId(PLATFORM.tdx), "");
    const revokedAt = await time.latest();
    await governor.pauseRelease(1234, "");
    const until = (await time.latest()) + 1234;

    const usual = 0b1000_0011n;
    const accepted = (0x0201n << 16n) | (usual << 32n) | (usual << 48n) | (usual << 64n);
    const kinds = (1 << KIND.tdx) | (1 << KIND.snp) | (1 << KIND.dstack);
    expect(await read(address, base)).to.equal(packed([40, until], [8, kinds], [8, 1 << KIND.snp], [128, accepted]));
    expect(await read(address, at(base, 1))).to.equal(await suite.policy.historyHead());
    expect(await read(address, at(base, 2))).to.equal(
      packed([64, await suite.policy.policyVersion()], [40, await suite.policy.lastUpdateBlock()]),
    );
    expect(await read(address, mapped(imageId(PLATFORM.tdx), at(base, 3)))).to.equal(
      packed([8, 2], [8, KIND.tdx], [32, 0b1101], [40, revokedAt]),
    );
    expect(await read(address, mapped(imageId(snpImage("kms")), at(base, 4)))).to.equal(
      packed([8, 1], [8, KIND.snp], [32, 1], [40, kmsSince]),
    );
    expect(await read(address, mapped(device, mapped(word(KIND.snp), at(base, 6))))).to.equal(word(1));
    expect(await read(address, at(base, 7))).to.equal(
      // A short string: its bytes from the left, twice its length in the last byte.
      `0x${Buffer.from("gateway").toString("hex").padEnd(62, "0")}0e`,
    );
    expect(await read(address, at(base, 8))).to.equal(word(BigInt(suite.eve.address)));
  });

  it("KmsRegistry: ServiceWord, head, cold fields, ImageWord, devices", async () => {
    const base = erc7201("keystead.storage.KmsRegistry");
    const address = await suite.registry.getAddress();
    const own = suite.registry.connect(suite.admin);
    const device = measured("device", 32);
    const config = {
      admin: suite.admin.address,
      noticePeriod: NOTICE,
      requireUpToDateTcb: true,
      devices: [device],
      description: "",
    };
    await own.createServiceWithImage(config, ZeroHash, tdxImage("v1"), "");
    const created = await time.latest();
    const serviceId = await suite.registry.serviceIdFor(suite.admin.address, ZeroHash);
    await own.rotateServiceKey(serviceId);
    const rotated = await time.latest();
    await own.setServiceGuardian(serviceId, suite.serviceGuardian.address);
    const named = await time.latest();
    await own.transferServiceAdmin(serviceId, suite.successor.address);
    await own.setRequireUpToDateTcb(serviceId, false);
    const ends = (await time.latest()) + NOTICE;
    await own.retireImageFromService(serviceId, imageId(tdxImage("v1")), created + 30 * DAY);
    const block = await connection.ethers.provider.getBlockNumber();

    const service = mapped(zeroPadBytes(serviceId, 32), base);
    // exists, upgradeable, seeded, requireUpToDateTcb, restrictDevices
    const flags = 1 | 2 | 4 | 8 | 16;
    const sequence = 8; // create, device, image, rotate, guardian, transfer, rule, retire
    expect(await read(address, service)).to.equal(
      packed([160, BigInt(suite.admin.address)], [24, NOTICE], [8, flags], [32, sequence], [32, block]),
    );
    expect(await read(address, at(service, 1))).to.equal(await suite.registry.historyHead(serviceId));
    expect(await read(address, at(service, 2))).to.equal(
      packed([160, BigInt(suite.successor.address)], [16, 1], [40, ends], [40, rotated]),
    );
    expect(await read(address, at(service, 3))).to.equal(ZeroHash);
    expect(await read(address, at(service, 4))).to.equal(
      packed([160, BigInt(suite.serviceGuardian.address)], [40, named]),
    );
    expect(await read(address, at(service, 5)), "nobody left").to.equal(ZeroHash);
    expect(await read(address, at(base, 1))).to.equal(await suite.registry.servicesHead());
    expect(await read(address, at(base, 2))).to.equal(word(1));
    const record = (state: number) =>
      packed([40, created], [40, created + 30 * DAY], [8, state], [8, KIND.tdx], [32, 0b11111], [8, 1]);
    const slot = mapped(imageId(tdxImage("v1")), at(service, 6));
    expect(await read(address, slot)).to.equal(record(1));
    await own.removeImageFromService(serviceId, imageId(tdxImage("v1")), "");
    expect(await read(address, slot)).to.equal(record(2));
    expect(await read(address, mapped(device, at(service, 7)))).to.equal(word(created));
  });
});

describe("pinned: interfaces", () => {
  it("every selector, topic, error, role and interface id is the committed one (snapshots/abi.json)", async () => {
    const committed = await readFile(new URL("../../snapshots/abi.json", import.meta.url), "utf8");
    const differences = compareLines(committed, formatSnapshot(await readAbis()));
    expect(differences, "if that is meant: npm run abi -- --update").to.deep.equal([]);
  });

  it("the proxies support ERC-165, access control, governance and their own interface, and nothing else", async () => {
    const suite = await loadFixture(deployOpenSuite);
    const { interfaceIds } = await readAbis();
    const shared = ["0x01ffc9a7", "0x7965db0b", interfaceIds.IGoverned ?? ""];
    const own = { registry: interfaceIds.IKmsRegistry ?? "", policy: interfaceIds.IPlatformPolicy ?? "" };
    for (const name of ["registry", "policy"] as const) {
      const supports = (each: string) => suite[name].supportsInterface(each);
      for (const each of [...shared, own[name]]) expect(await supports(each), `${name} ${each}`).to.equal(true);
      const others = ["0xffffffff", "0x00000000", "0x1e079198", own[name === "registry" ? "policy" : "registry"]];
      for (const each of others) expect(await supports(each), `${name} ${each}`).to.equal(false);
    }
  });

  it("ids of interfaces are computed right: those of ERC-165 and OpenZeppelin's access control come out", () => {
    expect(interfaceId(new Interface(["function supportsInterface(bytes4) view returns (bool)"]))).to.equal(
      "0x01ffc9a7",
    );
    const access = [
      "function hasRole(bytes32,address) view returns (bool)",
      "function getRoleAdmin(bytes32) view returns (bytes32)",
      "function grantRole(bytes32,address)",
      "function revokeRole(bytes32,address)",
      "function renounceRole(bytes32,address)",
    ];
    expect(interfaceId(new Interface(access))).to.equal("0x7965db0b");
  });

  it("roles are the hashes of their names, and DEFAULT_ADMIN_ROLE administers neither", async () => {
    const { policy, registry } = await loadFixture(deployOpenSuite);
    for (const contract of [policy, registry]) {
      const governor = id("keystead.GOVERNOR");
      const guardian = id("keystead.GUARDIAN");
      expect(await contract.GOVERNOR_ROLE()).to.equal(governor);
      expect(await contract.GUARDIAN_ROLE()).to.equal(guardian);
      expect(await contract.getRoleAdmin(governor)).to.equal(governor);
      expect(await contract.getRoleAdmin(guardian)).to.equal(governor);
    }
  });

  it("the two functions of the hot path are found early: few selectors are lower", async () => {
    const rank = async (name: string, hot: string): Promise<number> => {
      const selectors: [string, string][] = [];
      new Interface((await artifacts.readArtifact(name)).abi).forEachFunction((fragment) =>
        selectors.push([fragment.selector, fragment.name]),
      );
      return selectors.sort(([a], [b]) => (a < b ? -1 : 1)).findIndex(([, each]) => each === hot);
    };
    expect(await rank("KmsRegistry", "authorize")).to.be.lessThan(5);
    expect(await rank("PlatformPolicy", "decide")).to.be.lessThan(2);
  });

  it("decisions have the numbers that tools use, and zero is a denial", async () => {
    const text = await source("types/Decision.sol");
    const body = /enum Decision \{([^}]*)\}/.exec(text)?.[1] ?? "";
    const names = body
      .split("\n")
      .map((line) =>
        line
          .replace(/\/\/.*/, "")
          .replace(",", "")
          .trim(),
      )
      .filter((name) => name !== "");
    expect(names).to.deep.equal([...DECISIONS]);
    expect(names[0]).to.not.equal("Allowed");
  });

  it("a service's id is bound to chain, registry, creator and salt", async () => {
    const { registry, eve } = await loadFixture(deployOpenSuite);
    const { chainId } = await connection.ethers.provider.getNetwork();
    const salt = measured("salt", 32);
    const encoded = AbiCoder.defaultAbiCoder().encode(
      ["uint256", "address", "address", "bytes32"],
      [chainId, await registry.getAddress(), eve.address, salt],
    );
    const expected = keccak256(encoded).slice(0, 42);
    expect(await registry.serviceIdFor(eve.address, salt)).to.equal(expected);
    expect(getAddress(expected), "it is an address as it stands: a dstack app id").to.match(/^0x[0-9a-fA-F]{40}$/);
  });

  it("an image's id is the hash of its bytes, in every role", async () => {
    const { policy, governor } = await loadFixture(deployOpenSuite);
    const bytes = image(KIND.snp, { 0: measured("m") });
    expect(await policy.connect(governor).allowPlatform.staticCall(bytes, "")).to.equal(keccak256(bytes));
    expect(await policy.connect(governor).allowKmsImage.staticCall(bytes, "")).to.equal(keccak256(bytes));
  });
});
