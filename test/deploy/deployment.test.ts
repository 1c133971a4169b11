import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { buildModule } from "@nomicfoundation/hardhat-ignition/modules";
import { expect } from "chai";
import { Interface, id, ZeroAddress, ZeroHash } from "ethers";
import hre from "hardhat";
import type { KeysteadModule } from "../../deploy/journal.ts";
import { deployKms } from "../../deploy/kms.ts";
import { parseParameters } from "../../deploy/parameters.ts";
import { readDeployment } from "../../deploy/record.ts";
import { createSafe, executeThroughSafe } from "../../deploy/safe/account.ts";
import { ensureSafeContracts } from "../../deploy/safe/contracts.ts";
import { verifyDeployment } from "../../deploy/verify.ts";
import type { Deployment } from "../../src/chain/deployment.ts";
import { type Chain, CLIENTS, fetchActors, passTime, startChain } from "./chains.ts";
import { refusal } from "./refusal.ts";

const DELAY = 3_600;
const PROXY = "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol:ERC1967Proxy";
const TIMELOCK = new Interface([
  "function grantRole(bytes32 role, address account)",
  "function scheduleBatch(address[] targets, uint256[] values, bytes[] payloads, bytes32 predecessor, bytes32 salt, uint256 delay)",
  "function executeBatch(address[] targets, uint256[] values, bytes[] payloads, bytes32 predecessor, bytes32 salt)",
  "error GovernanceTimelock_NotAContract(address account)",
]);

async function parametersFor(chain: Chain, delaySeconds = DELAY) {
  const { alice, bob, carol, dave, erin, frank } = await fetchActors(chain.connection);
  return parseParameters({
    safeVersion: "1.4.1",
    governance: { owners: [alice, bob, carol], threshold: 2 },
    guardian: { owners: [dave, erin, frank], threshold: 2 },
    delaySeconds,
  });
}

for (const client of CLIENTS) {
  describe(`deployment on ${client}`, () => {
    let chain: Chain;
    let folder: string;
    beforeEach(async () => {
      chain = await startChain(client);
      folder = mkdtempSync(join(tmpdir(), "keystead-test-"));
    });
    afterEach(async () => {
      await chain.stop();
      rmSync(folder, { recursive: true, force: true });
    });

    it("deploys everything, proves it, records it, and does nothing the second time", async () => {
      const { connection } = chain;
      const parameters = await parametersFor(chain);
      const lines: string[] = [];
      const deployment = await deployKms(connection, parameters, (line) => lines.push(line), { folder });
      expect(lines.length).to.be.greaterThan(8);
      expect(readDeployment(connection.networkName, folder)).to.deep.equal(deployment);
      expect((await verifyDeployment(connection, deployment, hre.artifacts)).differences).to.deep.equal([]);

      const { contracts, safes } = deployment;
      const [governor, guardian, timelock] = [
        safes.governance.address,
        safes.guardian.address,
        contracts.timelock.address,
      ];
      expect(deployment.roles.map(({ contract, role, holders }) => [contract, role, ...holders])).to.deep.equal([
        ["timelock", "DEFAULT_ADMIN_ROLE", timelock],
        ["timelock", "PROPOSER_ROLE", governor],
        ["timelock", "EXECUTOR_ROLE", governor],
        ["timelock", "CANCELLER_ROLE", ...[governor, guardian].sort()],
        ["policy", "DEFAULT_ADMIN_ROLE"],
        ["policy", "GOVERNOR_ROLE", timelock],
        ["policy", "GUARDIAN_ROLE", guardian],
        ["registry", "DEFAULT_ADMIN_ROLE"],
        ["registry", "GOVERNOR_ROLE", timelock],
        ["registry", "GUARDIAN_ROLE"],
      ]);

      const block = await connection.ethers.provider.getBlockNumber();
      expect(await deployKms(connection, parameters, undefined, { folder })).to.deep.equal(deployment);
      expect(await connection.ethers.provider.getBlockNumber()).to.equal(block);
    });

    it("believes a record in nothing that the chain can tell", async () => {
      const { connection } = chain;
      const honest = await deployKms(connection, await parametersFor(chain), undefined, { folder });
      const { contracts, safes } = honest;
      const { timelock, policy, dstackAuth } = contracts;
      const withContract = (change: Partial<Deployment["contracts"]>) => ({
        ...honest,
        contracts: { ...contracts, ...change },
      });
      const governance = { ...safes.governance, threshold: 1 };
      const guardian = { ...safes.guardian, owners: safes.governance.owners };
      const hash = ZeroHash;
      const lies: readonly (readonly [Deployment, RegExp])[] = [
        [{ ...honest, chainId: 1n }, /^the chain's id is 31337, the deployment's is 1$/],
        [{ ...honest, delaySeconds: 1 }, /^timelock: getMinDelay\(\) is 3600, not 1$/],
        [{ ...honest, safes: { ...safes, governance } }, /^governance Safe: its threshold is 2, recorded is 1$/],
        [{ ...honest, safes: { ...safes, guardian } }, /^guardian Safe: its owners are/],
        [withContract({ timelock: { ...timelock, source: policy.source } }), /^timelock: it is recorded as/],
        [withContract({ timelock: { ...timelock, codeHash: hash } }), /^timelock: its code hash is/],
        [
          withContract({ policy: { ...policy, transaction: timelock.transaction } }),
          /^policy: transaction .* did not create it/,
        ],
        [withContract({ policy: { ...policy, block: policy.block + 1 } }), /policy: transaction .* did not create it/],
        [withContract({ timelock: { ...timelock, address: ZeroAddress } }), /^timelock: there is no code at 0x0{40}/],
        [withContract({ dstackAuth: policy }), /^dstackAuth: it is recorded as/],
        [withContract({ registryImplementation: contracts.policyImplementation }), /^registryImplementation: /],
        [withContract({ dstackAuth: { ...dstackAuth, address: policy.address } }), /^dstackAuth: its code hash/],
      ];
      for (const [lie, expected] of lies) {
        const { differences } = await verifyDeployment(connection, lie, hre.artifacts);
        expect(differences.join("\n")).to.match(expected);
      }
    });

    it("takes Safes that exist", async () => {
      const { connection } = chain;
      const { alice, bob, dave, erin } = await fetchActors(connection);
      const version = "1.5.0" as const;
      const governance = await createSafe(connection, { owners: [alice, bob], threshold: 2, version, saltNonce: "70" });
      const guardian = await createSafe(connection, { owners: [dave, erin], threshold: 1, version, saltNonce: "71" });
      const parameters = parseParameters({
        safeVersion: "1.4.1",
        governance: { address: governance },
        guardian: { address: guardian },
        delaySeconds: DELAY,
      });
      const { safes } = await deployKms(connection, parameters, undefined, { folder });
      expect([safes.governance.address, safes.guardian.address]).to.deep.equal([governance, guardian]);
      expect(safes.governance.version).to.equal("1.5.0");
    });

    it("notices a role that governance gave away after deployment, and never lets it go to an EOA", async () => {
      const { connection } = chain;
      const { alice, bob, stranger } = await fetchActors(connection);
      const deployment = await deployKms(connection, await parametersFor(chain), undefined, { folder });
      const timelock = deployment.contracts.timelock.address;
      const safe = deployment.safes.governance.address;
      const through = async (grantee: string) => {
        const grant = TIMELOCK.encodeFunctionData("grantRole", [id("PROPOSER_ROLE"), grantee]);
        const operation = [[timelock], [0], [grant], ZeroHash, id(grantee)] as const;
        const schedule = TIMELOCK.encodeFunctionData("scheduleBatch", [...operation, DELAY]);
        await executeThroughSafe(connection, {
          safe,
          signers: [alice, bob],
          calls: [{ to: timelock, data: schedule }],
        });
        await passTime(chain, DELAY);
        const execute = TIMELOCK.encodeFunctionData("executeBatch", [...operation]);
        return executeThroughSafe(connection, {
          safe,
          signers: [bob, alice],
          calls: [{ to: timelock, data: execute }],
        });
      };

      const error = await refusal(through(stranger), "safe/execution-failed");
      expect(error.details.reason).to.equal(TIMELOCK.encodeErrorResult("GovernanceTimelock_NotAContract", [stranger]));

      await through(deployment.contracts.dstackAuth.address);
      const { differences } = await verifyDeployment(connection, deployment, hre.artifacts);
      expect(differences).to.deep.equal([
        `timelock: ${deployment.contracts.dstackAuth.address} holds PROPOSER_ROLE, and must not`,
      ]);
    });

    for (const [what, module, expected] of brokenModules()) {
      it(`refuses, and records nothing, when ${what}`, async () => {
        const { connection } = chain;
        const attempt = deployKms(connection, await parametersFor(chain), undefined, { folder, module });
        const error = await refusal(attempt, "deploy/verification-failed");
        const differences = (error.details.differences as string[]).join("\n");
        for (const pattern of expected) expect(differences).to.match(pattern);
        expect(readdirSync(folder).filter((file) => file.endsWith(".json"))).to.deep.equal([]);
        expect(() => readDeployment(connection.networkName, folder))
          .to.throw()
          .with.property("code", "deployment/missing");
      });
    }

    it("sends nothing and records nothing when the parameters are refused", async () => {
      const { connection } = chain;
      const { alice } = await fetchActors(connection);
      const parameters = { ...(await parametersFor(chain)), guardian: { address: alice } };
      await refusal(deployKms(connection, parameters, undefined, { folder }), "safe/not-a-safe");
      expect(await connection.ethers.provider.getTransactionCount(alice)).to.equal(0);
      expect(readdirSync(folder)).to.deep.equal([]);
    });

    it("deploys on a public chain id what its stricter rules allow, and refuses what they don't", async () => {
      const strict = await startChain(client, 11155111);
      try {
        await ensureSafeContracts(strict.connection, "1.4.1", { mayDeploy: true });
        const hasty = await parametersFor(strict);
        const before = await strict.connection.ethers.provider.getBlockNumber();
        await refusal(deployKms(strict.connection, hasty, undefined, { folder }), "parameters/delay-too-short");
        expect(await strict.connection.ethers.provider.getBlockNumber()).to.equal(before);
        expect(readdirSync(folder)).to.deep.equal([]);
        const patient = await parametersFor(strict, 86_400);
        const deployment = await deployKms(strict.connection, patient, undefined, { folder });
        expect(deployment.chainId).to.equal(11155111n);
      } finally {
        await strict.stop();
      }
    });
  });
}

describe("a deployment that is killed", () => {
  let chain: Chain;
  let folder: string;
  before(async function () {
    if (hre.globalOptions.coverage) {
      console.log(
        "      skipped: the process that is killed would deploy other code than the instrumented one that resumes",
      );
      this.skip();
    }
    chain = await startChain("anvil");
    folder = mkdtempSync(join(tmpdir(), "keystead-test-"));
  });
  after(async () => {
    if (chain === undefined) return;
    await chain.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Deploys in a process of its own, which SIGKILL ends at the first progress line that starts with `line`. */
  async function deployAndDie(line: string): Promise<string[]> {
    const program = `
      import hre from "hardhat";
      import { deployKms } from "./deploy/kms.ts";
      import { parseParameters } from "./deploy/parameters.ts";
      const [url, folder, parameters, line] = JSON.parse(process.env.INTERRUPTED_DEPLOYMENT);
      const connection = await hre.network.create({ network: "anvil", override: { url } });
      await deployKms(connection, parseParameters(parameters), (said) => {
        process.stdout.write(said + "\\n");
        if (said.startsWith(line)) process.kill(process.pid, "SIGKILL");
      }, { folder });
    `;
    const input = JSON.stringify([chain.anvil?.url, folder, await parametersFor(chain), line]);
    const child = promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], {
      cwd: join(import.meta.dirname, "../.."),
      env: { ...process.env, INTERRUPTED_DEPLOYMENT: input },
    });
    try {
      await child;
    } catch (error) {
      const { signal, stdout, stderr } = error as { signal: string; stdout: string; stderr: string };
      expect(signal, stderr).to.equal("SIGKILL");
      return stdout.trim().split("\n");
    }
    throw new Error("it was meant to be killed");
  }

  it("resumes where it was, twice, and does nothing twice", async () => {
    const { connection } = chain;
    const { deployer } = await fetchActors(connection);
    await deployAndDie("Keystead policy:");
    expect(existsSync(join(folder, "anvil.json"))).to.equal(false);
    const second = await deployAndDie("Keystead registry:");
    expect(second.filter((line) => line.startsWith("Keystead")).length).to.equal(2);
    expect(existsSync(join(folder, "anvil.json"))).to.equal(false);

    const lines: string[] = [];
    const deployment = await deployKms(connection, await parametersFor(chain), (line) => lines.push(line), { folder });
    expect(lines.filter((line) => line.startsWith("Keystead"))).to.deep.equal([
      `Keystead dstackAuth: ${deployment.contracts.dstackAuth.address}`,
    ]);
    const created = new Set(Object.values(deployment.contracts).map((contract) => contract.address));
    let creations = 0;
    for (let block = 1; block <= (await connection.ethers.provider.getBlockNumber()); block++) {
      for (const transaction of (await connection.ethers.provider.getBlock(block, true))?.prefetchedTransactions ??
        []) {
        if (transaction.to === null && transaction.from === deployer) creations++;
      }
    }
    expect([created.size, creations]).to.deep.equal([6, 6]);
  });

  it("starts a new journal when the local chain was started anew", async () => {
    const other = await startChain("anvil");
    try {
      const lines: string[] = [];
      await deployKms(other.connection, await parametersFor(other), (line) => lines.push(line), { folder });
      expect(lines.filter((line) => line.startsWith("Keystead")).length).to.equal(6);
    } finally {
      await other.stop();
    }
  });

  it("refuses another public chain's journal", async () => {
    const strict = await startChain("anvil", 11155111);
    try {
      await ensureSafeContracts(strict.connection, "1.4.1", { mayDeploy: true });
      const parameters = await parametersFor(strict, 86_400);
      await refusal(deployKms(strict.connection, parameters, undefined, { folder }), "deploy/another-chain");
    } finally {
      await strict.stop();
    }
  });
});

/** Deployments that are wrong on purpose, each in one way. */
function brokenModules(): readonly (readonly [what: string, module: KeysteadModule, expected: readonly RegExp[]])[] {
  const build = (change: {
    timelock?: (gov: string, guardian: string, deployer: string) => readonly unknown[];
    guardian?: "governanceSafe" | "deployerContract";
    swapped?: boolean;
    otherPolicy?: boolean;
    otherDelay?: boolean;
  }): KeysteadModule =>
    buildModule("Keystead", (m) => {
      const gov = m.getParameter<string>("governanceSafe");
      const guardian = m.getParameter<string>("guardianSafe");
      const delay = m.getParameter<bigint>("delaySeconds");
      // biome-ignore lint/suspicious/noExplicitAny: Ignition's values stand for addresses that are known later
      const any = (value: unknown) => value as any;
      const timelock = change.timelock
        ? m.contract(
            "@openzeppelin/contracts/governance/TimelockController.sol:TimelockController",
            [delay, ...change.timelock(any(gov), any(guardian), any(m.getAccount(0))).map(any)],
            { id: "timelock" },
          )
        : m.contract("GovernanceTimelock", [change.otherDelay ? 7200n : delay, gov, guardian], { id: "timelock" });
      const policyImplementation = m.contract("PlatformPolicy", [], { id: "policyImplementation" });
      const policyGuardian = change.guardian === "governanceSafe" ? gov : guardian;
      const policyInit = m.encodeFunctionCall(policyImplementation, "initialize", [timelock, policyGuardian], {
        id: "policyInit",
      });
      const policy = m.contract(PROXY, [policyImplementation, policyInit], { id: "policy" });
      const named = change.otherPolicy ? policyImplementation : policy;
      const registryImplementation = m.contract("KmsRegistry", [named], { id: "registryImplementation" });
      const registryInit = m.encodeFunctionCall(registryImplementation, "initialize", [timelock], {
        id: "registryInit",
      });
      const registry = m.contract(PROXY, [registryImplementation, registryInit], { id: "registry" });
      const adapter = change.swapped ? [policy, registry] : [registry, policy];
      const dstackAuth = m.contract("DstackAuth", adapter, { id: "dstackAuth" });
      return { timelock, policyImplementation, policy, registryImplementation, registry, dstackAuth };
    });
  return [
    [
      "the guardian may propose too",
      build({ timelock: (gov, guardian) => [[gov, guardian], [gov], ZeroAddress] }),
      [/timelock: guardianSafe \(0x\w+\) holds PROPOSER_ROLE, and must not/],
    ],
    [
      "the guardian cannot cancel",
      build({ timelock: (gov) => [[gov], [gov], ZeroAddress] }),
      [/timelock: guardianSafe \(0x\w+\) does not hold CANCELLER_ROLE/, /timelock: its code has \d+ bytes/],
    ],
    [
      "the deployer administers the timelock",
      build({ timelock: (gov, _, deployer) => [[gov], [gov], deployer] }),
      [/timelock: 0x\w+ holds DEFAULT_ADMIN_ROLE, and must not/],
    ],
    [
      "anyone may execute",
      build({ timelock: (gov) => [[gov], [ZeroAddress], ZeroAddress] }),
      [/timelock: 0x0{40} holds EXECUTOR_ROLE, and must not/, /governanceSafe \(0x\w+\) does not hold EXECUTOR_ROLE/],
    ],
    [
      "the policy's guardian is the governance Safe",
      build({ guardian: "governanceSafe" }),
      [
        /policy: governanceSafe \(0x\w+\) holds GUARDIAN_ROLE, and must not\npolicy: |policy: guardianSafe \(0x\w+\) does not/,
      ],
    ],
    ["the timelock's delay is another", build({ otherDelay: true }), [/^timelock: getMinDelay\(\) is 7200, not 3600$/]],
    [
      "the adapter has registry and policy the wrong way round",
      build({ swapped: true }),
      [/^dstackAuth: KMS_REGISTRY\(\) is 0x\w+, not 0x\w+\ndstackAuth: PLATFORM_POLICY\(\) is 0x\w+, not 0x\w+$/],
    ],
    [
      "the registry asks the policy's implementation",
      build({ otherPolicy: true }),
      [/^registry: POLICY\(\) is 0x\w+, not 0x\w+$/],
    ],
  ];
}
