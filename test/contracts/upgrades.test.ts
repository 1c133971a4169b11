import { readdir, readFile } from "node:fs/promises";
import { upgrades } from "@openzeppelin/hardhat-upgrades";
import { expect } from "chai";
import { ZeroHash } from "ethers";
import hre, { network } from "hardhat";
import { fetchInitializedVersion, INITIALIZERS_DISABLED } from "../../deploy/verify.ts";
import { compareStates, computeStateDigest } from "../../src/chain/state-digest.ts";
import { KmsRegistryV2__factory, PlatformPolicyV2__factory } from "../../typechain-types/index.ts";
import { imageId, KIND, measured, PLATFORM, snpImage, tdxImage } from "../helpers/images.ts";
import { chainLog } from "../helpers/policy.ts";
import { DAY, deploy, deployOpenSuite, NOTICE, type Suite } from "../helpers/suite.ts";

const connection = await network.create();
const { ethers } = connection;
const plugin = await upgrades(hre, connection as Parameters<typeof upgrades>[1]);

/** The registry's constructor takes the policy: for the validator any address will do. */
const argumentsOf = (name: string) => (/^KmsRegistry/.test(name) ? [`0x${"11".repeat(20)}`] : []);
// The plugin needs the arguments and its types don't know it, so they go in by a name of their own.
const validate = async (name: string) => {
  const options = { kind: "uups" as const, constructorArgs: argumentsOf(name) };
  await plugin.validateImplementation(await ethers.getContractFactory(name), options);
};
const EXCUSED = ["missing-initializer"] as const;
/** V2 has no initializer of its own: the namespaces that it adds begin empty. Nothing else is excused anywhere. */
const validateNext = async (from: string, to: string) => {
  const options = { kind: "uups" as const, unsafeAllow: [...EXCUSED], constructorArgs: argumentsOf(to) };
  await plugin.validateUpgrade(await ethers.getContractFactory(from), await ethers.getContractFactory(to), options);
};

async function refusal(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error("it was accepted");
}

describe("upgrades: what the validator accepts", () => {
  for (const name of ["KmsRegistry", "PlatformPolicy"]) {
    it(`${name}, excusing nothing but what its source annotates`, async () => {
      await validate(name);
    });

    it(`${name} to ${name}V2: storage is only appended to`, async () => {
      await validateNext(name, `${name}V2`);
    });

    it(`${name}V2 back to ${name} it refuses, for it sees a namespace go: the deployment's own check covers the way back`, async () => {
      const message = await refusal(validateNext(`${name}V2`, name));
      expect(message).to.include(`keystead.storage.${name}V2`).and.include("Deleted namespace");
    });
  }

  it("the annotations in the sources are these, and no others", async () => {
    const root = new URL("../../contracts/", import.meta.url);
    const found: string[] = [];
    for (const file of await readdir(root, { recursive: true })) {
      if (!file.endsWith(".sol") || file.startsWith("mocks")) continue;
      const text = await readFile(new URL(file, root), "utf8");
      for (const [, kind] of text.matchAll(/@custom:oz-(\S+ \S+)/g)) found.push(`${file}: ${kind}`);
    }
    expect(found.sort()).to.deep.equal([
      "dstack/DstackAppAdapter.sol: upgrades-unsafe-allow constructor",
      "dstack/ServiceApp.sol: upgrades-unsafe-allow constructor",
      ...Array.from({ length: 3 }, () => "dstack/ServiceApp.sol: upgrades-unsafe-allow state-variable-immutable"),
      "governance/Governed.sol: upgrades-unsafe-allow constructor",
      "registry/KmsRegistry.sol: upgrades-unsafe-allow constructor",
      "registry/KmsRegistry.sol: upgrades-unsafe-allow state-variable-immutable",
    ]);
  });
});

describe("upgrades: broken next versions", () => {
  for (const [from, to, field] of [
    ["PlatformPolicy", "PlatformPolicyReordered", "gate"],
    ["PlatformPolicy", "PlatformPolicyWidened", "enabledKinds"],
    ["KmsRegistry", "KmsRegistryReordered", "word"],
  ] as const) {
    it(`${to}: refused, and the message names ${field}`, async () => {
      const message = await refusal(validateNext(from, to));
      expect(message).to.include("New storage layout is incompatible").and.include(field);
    });
  }

  it("PlatformPolicyConstructed: refused for the constructor that nobody looked at", async () => {
    const message = await refusal(validateNext("PlatformPolicy", "PlatformPolicyConstructed"));
    expect(message).to.include("has a constructor");
  });

  it("GovernedUninitialized: refused for the initializer that it does not have", async () => {
    const message = await refusal(validate("GovernedUninitialized"));
    expect(message).to.include("Missing initializer");
  });

  it("a contract that is no UUPS implementation is refused, by the validator and by the proxies", async () => {
    const message = await refusal(validateNext("PlatformPolicy", "Actor"));
    expect(message).to.match(/upgradeTo|upgradeability/);
    const suite = await connection.networkHelpers.loadFixture(deployOpenSuite);
    const actor = await deploy(connection, "Actor");
    for (const proxy of [suite.policy, suite.registry]) {
      await expect(proxy.connect(suite.governor).upgradeTo(actor))
        .to.be.revertedWithCustomError(proxy, "ERC1967InvalidImplementation")
        .withArgs(actor);
    }
  });

  it("an initializer left open is what the validator does not see: the lock on the implementation itself is checked", async () => {
    await validate("PolicyUnguarded");
    const open = await deploy(connection, "PolicyUnguarded");
    expect(await fetchInitializedVersion(connection, open)).to.equal(0n);
    const policy = await deploy(connection, "PlatformPolicy");
    const locked = [
      policy,
      await deploy(connection, "PlatformPolicyV2"),
      await deploy(connection, "KmsRegistry", [policy]),
      await deploy(connection, "KmsRegistryV2", [policy]),
    ];
    for (const address of locked) {
      expect(await fetchInitializedVersion(connection, address)).to.equal(INITIALIZERS_DISABLED);
    }
  });
});

describe("upgrades: V1 → V2 → V1 → V2", () => {
  /** A suite with something in every mapping, so that a state that moved would show. */
  async function deployUsed(on: typeof connection): Promise<Suite> {
    const suite = await deployOpenSuite(on);
    const governor = suite.policy.connect(suite.governor);
    await governor.allowKmsImage(snpImage("kms"), "");
    await governor.allowDevice(KIND.snp, measured("device", 32));
    await governor.restrictDevices(KIND.snp);
    await governor.setGatewayAppId("gateway");
    await governor.setAppImplementation(suite.eve.address);
    await governor.revokePlatform(imageId(PLATFORM.nitro), "");
    await governor.publishKmsIdentity({
      rootEpoch: 1,
      environmentKey: measured("key", 32),
      receiptSigner: suite.eve.address,
      evidenceHash: measured("evidence", 32),
    });
    const own = suite.registry.connect(suite.admin);
    const config = {
      admin: suite.admin.address,
      noticePeriod: NOTICE,
      requireUpToDateTcb: true,
      devices: [measured("device", 32)],
      description: "service",
    };
    await own.createServiceWithImage(config, ZeroHash, tdxImage("v1"), "");
    const serviceId = await suite.registry.serviceIdFor(suite.admin.address, ZeroHash);
    await own.addImageToService(serviceId, tdxImage("v2"), "");
    await own.removeImageFromService(serviceId, imageId(tdxImage("v1")), "");
    await own.setServiceGuardian(serviceId, suite.serviceGuardian.address);
    await own.transferServiceAdmin(serviceId, suite.successor.address);
    await own.rotateServiceKey(serviceId);
    await own.addSecretKeyByImage(snpImage("sealed"), [], false, measured("sealed", 32), "", "0x1234");
    return suite;
  }

  it("leaves every service, image, head, rule and role as it was, and writes in between go on", async () => {
    const suite = await connection.networkHelpers.loadFixture(deployUsed);
    const policyAddress = await suite.policy.getAddress();
    const registryAddress = await suite.registry.getAddress();
    const digest = () =>
      computeStateDigest(ethers.provider, { registry: registryAddress, policy: policyAddress, fromBlock: 0 });
    const first = [await suite.policy.implementation(), await suite.registry.implementation()] as const;
    const second = [
      await deploy(connection, "PlatformPolicyV2"),
      await deploy(connection, "KmsRegistryV2", [policyAddress]),
    ] as const;
    const policyV2 = PlatformPolicyV2__factory.connect(policyAddress, suite.governor);
    const registryV2 = KmsRegistryV2__factory.connect(registryAddress, suite.governor);
    const own = suite.registry.connect(suite.admin);
    const serviceId = await suite.registry.serviceIdFor(suite.admin.address, ZeroHash);

    const upgradeTo = async ([policy, registry]: readonly [string, string], version: string) => {
      const before = await digest();
      await suite.policy.connect(suite.governor).upgradeTo(policy);
      await suite.registry.connect(suite.governor).upgradeTo(registry);
      const after = await digest();
      expect(compareStates(before, after)).to.deep.equal([]);
      expect(after.digest).to.equal(before.digest);
      expect(after.entries.size, "there is state to compare").to.be.greaterThan(30);
      expect([await suite.policy.implementation(), await suite.registry.implementation()]).to.deep.equal([
        policy,
        registry,
      ]);
      expect([await suite.policy.version(), await suite.registry.version()]).to.deep.equal([version, version]);
    };

    await upgradeTo(second, "2.0.0");
    expect([await policyV2.generation(), await registryV2.generation()]).to.deep.equal([0n, 0n]);
    const untouched = await digest();
    await policyV2.setGeneration(7);
    await registryV2.setGeneration(8);
    expect((await digest()).digest, "the new namespaces lie beside the old ones").to.equal(untouched.digest);

    await own.addImageToService(serviceId, tdxImage("v3"), "added under V2");
    await suite.policy.connect(suite.guardian).suspendTee(KIND.dstack, "suspended under V2");
    const written = await digest();
    expect(written.digest, "a change shows").to.not.equal(untouched.digest);

    await upgradeTo(first, "1.0.0");
    expect((await suite.registry.image(serviceId, imageId(tdxImage("v3")))).state).to.equal(1n);
    expect((await suite.policy.teeRules(KIND.dstack)).enabled).to.equal(false);
    await expect(policyV2.generation()).to.be.revert(ethers);
    await own.extendNoticePeriod(serviceId, NOTICE + DAY);

    await upgradeTo(second, "2.0.0");
    expect([await policyV2.generation(), await registryV2.generation()]).to.deep.equal([7n, 8n]);

    // One chain over all four, from the raw logs of the one service.
    const logs = await ethers.provider.getLogs({
      address: registryAddress,
      topics: [null, `${serviceId}${"00".repeat(12)}`],
      fromBlock: 0,
    });
    expect(logs.reduce(chainLog, ZeroHash)).to.equal(await suite.registry.historyHead(serviceId));
    expect((await suite.registry.service(serviceId)).sequence).to.equal(BigInt(logs.length));
  });

  it("an upgrade is the governor's alone, for V1 and V2", async () => {
    const suite = await connection.networkHelpers.loadFixture(deployOpenSuite);
    const role = await suite.policy.GOVERNOR_ROLE();
    const second = await deploy(connection, "PlatformPolicyV2");
    for (let round = 0; round < 2; round++) {
      for (const actor of [suite.guardian, suite.deployer, suite.admin, suite.eve]) {
        await expect(suite.policy.connect(actor).upgradeTo(second))
          .to.be.revertedWithCustomError(suite.policy, "AccessControlUnauthorizedAccount")
          .withArgs(actor.address, role);
      }
      await suite.policy.connect(suite.governor).upgradeTo(second);
    }
  });
});
