import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { upgrades } from "@openzeppelin/hardhat-upgrades";
import { expect } from "chai";
import { hexlify, Interface, id, ZeroHash } from "ethers";
import hre from "hardhat";
import { deployKms } from "../../deploy/kms.ts";
import { checkAppendOnly } from "../../deploy/layout.ts";
import { parseParameters } from "../../deploy/parameters.ts";
import { executeThroughSafe } from "../../deploy/safe/account.ts";
import { keepDeploymentBefore, readDeploymentBefore } from "../../deploy/record.ts";
import { applyUpgrade, findRolledBack, isExecuted, prepareUpgrade, verifyUpgraded } from "../../deploy/upgrade.ts";
import type { Deployment } from "../../src/chain/deployment.ts";
import { compareStates, computeStateDigest, POLICY_ABI, REGISTRY_ABI } from "../../src/chain/state-digest.ts";
import { encodeImage } from "../../src/core/image.ts";
import { buildTimelockOperation, type TimelockOperation } from "../../src/governance/timelock.ts";
import { type Chain, CLIENTS, fetchActors, passTime, setSlot, startChain } from "./chains.ts";
import { refusal } from "./refusal.ts";

const DELAY = 3_600;
const V2 = { id: "v2", policy: "PlatformPolicyV2", registry: "KmsRegistryV2" };
const TIMELOCK = new Interface([
  "error TimelockUnexpectedOperationState(bytes32 operationId, bytes32 expectedStates)",
  "error TimelockUnexecutedPredecessor(bytes32 predecessorId)",
  "function hashOperationBatch(address[] targets, uint256[] values, bytes[] payloads, bytes32 predecessor, bytes32 salt) pure returns (bytes32)",
]);

for (const client of CLIENTS) {
  describe(`upgrade on ${client}`, () => {
    let chain: Chain;
    let folder: string;
    let deployment: Deployment;
    before(async () => {
      chain = await startChain(client);
      folder = mkdtempSync(join(tmpdir(), "keystead-test-"));
      const { alice, bob, carol, dave, erin } = await fetchActors(chain.connection);
      const parameters = parseParameters({
        safeVersion: "1.5.0",
        governance: { owners: [alice, bob, carol], threshold: 2 },
        guardian: { owners: [dave, erin], threshold: 2 },
        delaySeconds: DELAY,
      });
      deployment = await deployKms(chain.connection, parameters, undefined, { folder });
    });
    after(async () => {
      await chain.stop();
      rmSync(folder, { recursive: true, force: true });
    });

    const digestAt = (block?: number) =>
      computeStateDigest(
        chain.connection.ethers.provider,
        {
          registry: deployment.contracts.registry.address,
          policy: deployment.contracts.policy.address,
          fromBlock: deployment.block,
        },
        block,
      );

    /** The governance Safe sends calldata to the timelock. */
    async function govern(data: string) {
      const { alice, carol } = await fetchActors(chain.connection);
      const { safes, contracts } = deployment;
      const calls = [{ to: contracts.timelock.address, data }];
      return executeThroughSafe(chain.connection, { safe: safes.governance.address, signers: [carol, alice], calls });
    }

    /** Schedules, waits, executes; returns the block of the execution. */
    async function carryOut(operation: TimelockOperation): Promise<number> {
      await govern(operation.schedule);
      await passTime(chain, DELAY);
      return (await govern(operation.execute)).blockNumber;
    }

    const versions = async () => {
      const { policy, registry } = deployment.contracts;
      const read = async (address: string) =>
        (await chain.connection.ethers.getContractAt("IGoverned", address)).getFunction("version")();
      return [await read(policy.address), await read(registry.address)];
    };

    it("sees every change of state in the digest", async () => {
      const { connection } = chain;
      const { stranger } = await fetchActors(connection);
      const registry = await connection.ethers.getContractAt("KmsRegistry", deployment.contracts.registry.address);
      const policy = await connection.ethers.getContractAt("PlatformPolicy", deployment.contracts.policy.address);
      const seen = [await digestAt()];
      const changed = async (names: readonly RegExp[]) => {
        const [before, after] = [seen.at(-1), await digestAt()];
        if (before === undefined) throw new Error("no digest yet");
        expect(after.digest).to.not.equal(before.digest);
        const differences = compareStates(before, after).join("\n");
        for (const name of names) expect(differences).to.match(name);
        seen.push(after);
      };

      const config = {
        admin: stranger,
        noticePeriod: 60,
        description: "a service",
        devices: [id("device one")],
        requireUpToDateTcb: true,
      };
      const asAdmin = registry.connect(await connection.ethers.getSigner(stranger));
      await (await asAdmin.getFunction("createService")(config, ZeroHash)).wait();
      await changed([/registry\.service\(/, /registry\.historyHead\(/, /registry\.isDeviceAllowed\(/]);

      const service = await registry.getFunction("serviceIdFor")(stranger, ZeroHash);
      // named by host_data too, since it may run as a KMS node
      const registers = { measurement: `0x${"5a".repeat(48)}`, host_data: `0x${"5c".repeat(32)}` } as const;
      const image = hexlify(encodeImage({ kind: "snp", registers }));
      await (await asAdmin.getFunction("addImageToService")(service, image, "one")).wait();
      await changed([/registry\.image\(/, /registry\.service\(/]);
      await (await asAdmin.getFunction("setDevice")(service, id("device two"), true)).wait();
      await changed([/registry\.isDeviceAllowed\(/]);

      const platform = hexlify(encodeImage({ kind: "snp", registers: { measurement: `0x${"6b".repeat(48)}` } }));
      const call = (name: string, args: readonly unknown[]) => ({
        to: deployment.contracts.policy.address,
        value: 0n,
        data: policy.interface.encodeFunctionData(name, args),
      });
      await carryOut(
        buildTimelockOperation({
          id: "first platform",
          chainId: deployment.chainId,
          timelock: deployment.contracts.timelock.address,
          delaySeconds: BigInt(DELAY),
          calls: [
            call("allowPlatform", [platform, "a platform"]),
            call("enableTee", [2]),
            call("allowDevice", [2, id("device one")]),
            call("allowKmsImage", [image, "a node"]),
          ],
        }),
      );
      await changed([/policy\.platform\(/, /policy\.teeRules\(2\)/, /policy\.isDeviceListed\(/, /policy\.kmsImage\(/]);
      expect(compareStates(await digestAt(), await digestAt())).to.deep.equal([]);
    });

    it("upgrades both proxies in one operation, leaves all state as it was, and goes back", async () => {
      const { connection } = chain;
      const lines: string[] = [];
      const upgrade = await prepareUpgrade(connection, deployment, V2, (line) => lines.push(line), { folder });
      expect(lines.length).to.be.greaterThan(3);
      expect(await versions()).to.deep.equal(["1.0.0", "1.0.0"]);
      const block = await connection.ethers.provider.getBlockNumber();
      expect(await prepareUpgrade(connection, deployment, V2, undefined, { folder })).to.deep.equal(upgrade);
      expect(await connection.ethers.provider.getBlockNumber(), "preparing twice sends nothing").to.equal(block);
      for (const operation of [upgrade.operation, upgrade.rollback]) await checkOperationId(operation);

      await govern(upgrade.operation.schedule);
      const early = await refusal(govern(upgrade.operation.execute), "safe/execution-failed");
      expect(early.details.reason).to.include(selector("TimelockUnexpectedOperationState"));
      await govern(upgrade.rollback.schedule);
      await passTime(chain, DELAY);
      const tooSoon = await refusal(govern(upgrade.rollback.execute), "safe/execution-failed");
      expect(tooSoon.details.reason).to.include(selector("TimelockUnexecutedPredecessor"));

      expect(await isExecuted(connection, deployment, upgrade)).to.equal(false);
      const forward = (await govern(upgrade.operation.execute)).blockNumber;
      expect(await versions()).to.deep.equal(["2.0.0", "2.0.0"]);
      expect(await isExecuted(connection, deployment, upgrade)).to.equal(true);
      expect(compareStates(await digestAt(forward - 1), await digestAt(forward))).to.deep.equal([]);
      const upgraded = applyUpgrade(deployment, upgrade);
      expect((await verifyUpgraded(connection, upgraded)).differences).to.deep.equal([]);
      expect((await verifyUpgraded(connection, deployment)).differences.join("\n")).to.match(/implementation slot is/);

      // recorded: what was before is kept, and nothing was rolled back yet
      expect(readDeploymentBefore(deployment.network, V2.id, folder)).to.equal(undefined);
      keepDeploymentBefore(deployment, V2.id, folder);
      const before = readDeploymentBefore(deployment.network, V2.id, folder);
      expect(before).to.deep.equal(deployment);
      expect(await findRolledBack(connection, upgraded, before)).to.equal(undefined);

      const setGeneration = new Interface(["function setGeneration(uint256)"]).encodeFunctionData("setGeneration", [2]);
      await carryOut(
        buildTimelockOperation({
          id: "writes by both new versions",
          chainId: deployment.chainId,
          timelock: deployment.contracts.timelock.address,
          delaySeconds: BigInt(DELAY),
          calls: [deployment.contracts.policy, deployment.contracts.registry].map(({ address }) => ({
            to: address,
            value: 0n,
            data: setGeneration,
          })),
        }),
      );
      const back = (await govern(upgrade.rollback.execute)).blockNumber;
      expect(await versions()).to.deep.equal(["1.0.0", "1.0.0"]);
      expect(compareStates(await digestAt(back - 1), await digestAt(back))).to.deep.equal([]);
      expect((await verifyUpgraded(connection, deployment)).differences).to.deep.equal([]);
      expect(await findRolledBack(connection, upgraded, before), "the record to put back").to.deep.equal(deployment);
      // one proxy as recorded, the other as before
      const { policyImplementation } = deployment.contracts;
      const mixed = { ...upgraded, contracts: { ...upgraded.contracts, policyImplementation } };
      await refusal(
        findRolledBack(connection, mixed, {
          ...deployment,
          contracts: { ...deployment.contracts, policyImplementation: upgraded.contracts.policyImplementation },
        }),
        "upgrade/half-rolled-back",
      );
      expect(await findRolledBack(connection, upgraded, undefined)).to.equal(undefined);
    });

    async function checkOperationId({ calls, predecessor, salt, operationId, timelock }: TimelockOperation) {
      const data = TIMELOCK.encodeFunctionData("hashOperationBatch", [
        calls.map((call) => call.to),
        calls.map((call) => call.value),
        calls.map((call) => call.data),
        predecessor,
        salt,
      ]);
      expect(await chain.connection.ethers.provider.call({ to: timelock, data })).to.equal(operationId);
    }

    for (const [registry, why] of [
      ["ForgetsStorage", /Deleted namespace `erc7201:keystead.storage.KmsRegistry`/],
      ["ReusesStorage", /`counter`/],
    ] as const) {
      it(`refuses an implementation that ${registry}, and deploys nothing`, async () => {
        const block = await chain.connection.ethers.provider.getBlockNumber();
        const spec = { ...V2, id: "bad", registry };
        const attempt = prepareUpgrade(chain.connection, deployment, spec, undefined, { folder });
        expect((await refusal(attempt, "upgrade/unsafe")).message).to.match(why);
        expect(await chain.connection.ethers.provider.getBlockNumber()).to.equal(block);
      });
    }

    it("refuses an implementation whose own initializers are open", async () => {
      const { connection } = chain;
      const spec = { ...V2, id: "unlocked" };
      const upgrade = await prepareUpgrade(connection, deployment, spec, undefined, { folder });
      const slot = 0xf0c57e16840df040f15088dc2f81fe391c3923bec73e23a9662efc9c229c6a00n; // OpenZeppelin's Initializable
      const { address } = upgrade.registryImplementation;
      await setSlot(chain, address, slot, ZeroHash);
      await refusal(prepareUpgrade(connection, deployment, spec, undefined, { folder }), "upgrade/not-locked");
    });

    it("refuses a deployment that is not the one built here, and an id that is a path", async () => {
      const { contracts } = deployment;
      const other = {
        ...deployment,
        contracts: { ...contracts, registryImplementation: contracts.policyImplementation },
      };
      const swapped = {
        ...other,
        contracts: {
          ...other.contracts,
          registryImplementation: {
            ...contracts.policyImplementation,
            source: contracts.registryImplementation.source,
          },
        },
      };
      await refusal(prepareUpgrade(chain.connection, swapped, V2, undefined, { folder }), "upgrade/not-as-recorded");
      const badId = { ...V2, id: "../v2" };
      await refusal(prepareUpgrade(chain.connection, deployment, badId, undefined, { folder }), "upgrade/bad-id");
    });
  });
}

describe("storage layouts", () => {
  it("may be appended to, and nothing else", async () => {
    await checkAppendOnly("KmsRegistry", "KmsRegistryV2");
    await checkAppendOnly("PlatformPolicy", "PlatformPolicyV2");
    await refusal(checkAppendOnly("KmsRegistryV2", "KmsRegistry"), "upgrade/not-only-appended");
    await refusal(checkAppendOnly("KmsRegistry", "ReusesStorage"), "upgrade/not-only-appended");
  });

  it("may not be renamed either, though the plugin lets annotations excuse it", async () => {
    const connection = await hre.network.create({ network: "default" });
    try {
      const plugin = await upgrades(hre, connection);
      const from = await connection.ethers.getContractFactory("PlainStorage");
      const to = await connection.ethers.getContractFactory("RenamesStorage");
      await plugin.validateUpgrade(from, to, { kind: "uups", unsafeAllow: ["missing-initializer"] });
    } finally {
      await connection.close();
    }
    await refusal(checkAppendOnly("PlainStorage", "RenamesStorage"), "upgrade/not-only-appended");
  });
});

/** Views that show no state of their own: decisions and clocks over what other views show, pure functions, and what an upgrade changes. */
const NO_STATE = [
  "authorize",
  "authorizeBest",
  "authorizeKms",
  "decide",
  "isImageActive",
  "serviceIdFor",
  "implementation",
  "version",
];

describe("the state digest's interfaces", () => {
  for (const [name, abi] of [
    ["IKmsRegistry", REGISTRY_ABI],
    ["IPlatformPolicy", POLICY_ABI],
  ] as const) {
    it(`are ${name}'s own`, async () => {
      const compiled = new Interface((await hre.artifacts.readArtifact(name)).abi);
      abi.forEachEvent((event) => {
        expect(compiled.getEvent(event.topicHash)?.format("sighash"), event.name).to.equal(event.format("sighash"));
        const indexed = event.inputs.map((input) => input.indexed === true);
        expect(compiled.getEvent(event.topicHash)?.inputs.map((input) => input.indexed === true)).to.deep.equal(
          indexed,
        );
      });
      abi.forEachFunction((view) => {
        expect(compiled.getFunction(view.selector)?.name, view.name).to.equal(view.name);
      });
    });

    it(`ask every view of ${name}'s that shows state`, async () => {
      const compiled = new Interface((await hre.artifacts.readArtifact(name)).abi);
      const asked: string[] = [];
      abi.forEachFunction((view) => asked.push(view.name));
      compiled.forEachFunction((view) => {
        if (view.stateMutability === "view" && !NO_STATE.includes(view.name)) expect(asked).to.include(view.name);
      });
    });

    it(`ask about every id that ${name}'s events can bring into being`, async () => {
      const compiled = new Interface((await hre.artifacts.readArtifact(name)).abi);
      // Events that create an entry; those that end or change one carry an id that was created before.
      const creating: string[] = [];
      compiled.forEachEvent((event) => {
        if (/^(Create|Add|Allow|Publish|SetDevice)/.test(event.name)) creating.push(event.name);
      });
      const known: string[] = [];
      abi.forEachEvent((event) => known.push(event.name));
      // Sealed secrets live in the log alone, under the service's history head.
      expect(creating.filter((event) => event !== "PublishSealedSecrets").sort()).to.deep.equal(known.sort());
    });
  }
});

describe("timelock operations", () => {
  const input = {
    id: "one",
    chainId: 1n,
    timelock: "0x1111111111111111111111111111111111111111",
    calls: [{ to: "0x2222222222222222222222222222222222222222", value: 0n, data: "0x1234" }],
    delaySeconds: 60n,
  };

  it("have a salt that depends on everything but the delay", () => {
    const { salt } = buildTimelockOperation(input);
    expect(buildTimelockOperation({ ...input, delaySeconds: 61n }).salt).to.equal(salt);
    const [call] = input.calls;
    const others = [
      { ...input, id: "two" },
      { ...input, chainId: 2n },
      { ...input, timelock: "0x3333333333333333333333333333333333333333" },
      { ...input, predecessor: id("before") },
      { ...input, calls: [...input.calls, ...input.calls] },
      { ...input, calls: [{ to: call?.to ?? "", value: 1n, data: "0x1234" }] },
      { ...input, calls: [{ to: call?.to ?? "", value: 0n, data: "0x123400" }] },
    ];
    const salts = others.map((other) => buildTimelockOperation(other).salt);
    expect(new Set([salt, ...salts]).size).to.equal(others.length + 1);
  });

  it("are refused without calls or a name", () => {
    expect(() => buildTimelockOperation({ ...input, calls: [] }))
      .to.throw()
      .with.property("code", "timelock/no-calls");
    expect(() => buildTimelockOperation({ ...input, id: "" }))
      .to.throw()
      .with.property("code", "timelock/no-id");
  });
});

function selector(error: string): string {
  return TIMELOCK.getError(error)?.selector.slice(2) ?? "unknown";
}
