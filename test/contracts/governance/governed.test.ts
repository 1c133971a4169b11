import { expect } from "chai";
import { type BaseContract, concat, getAddress, toBeHex, Wallet, ZeroAddress, ZeroHash } from "ethers";
import {
  GovernedHarness__factory,
  type KmsRegistry,
  KmsRegistry__factory,
  KmsRegistryV2__factory,
  type PlatformPolicy,
  PlatformPolicy__factory,
  PlatformPolicyV2__factory,
} from "../../../typechain-types/index.ts";
import { connection } from "../../helpers/connection.ts";
import { contractSigner, deploy, deploySuite, type Suite } from "../../helpers/suite.ts";

const { networkHelpers, ethers, provider } = connection;
const DEFAULT_ADMIN_ROLE = ZeroHash;
const IMPLEMENTATION_SLOT = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc";

const suite = (): Promise<Suite> => deploySuite(connection);

/** What differs between the two proxies; every test below runs for both. */
interface Subject {
  readonly name: "KmsRegistry" | "PlatformPolicy";
  readonly proxy: (suite: Suite) => KmsRegistry | PlatformPolicy;
  readonly constructorArguments: (suite: Suite) => Promise<readonly unknown[]>;
  /** Calldata of `initialize` for these first holders. */
  readonly initialize: (governor: string, guardian: string) => string;
}

const SUBJECTS: readonly Subject[] = [
  {
    name: "KmsRegistry",
    proxy: ({ registry }) => registry,
    constructorArguments: async ({ policy }) => [await policy.getAddress()],
    initialize: (governor) => KmsRegistry__factory.createInterface().encodeFunctionData("initialize", [governor]),
  },
  {
    name: "PlatformPolicy",
    proxy: ({ policy }) => policy,
    constructorArguments: async () => [],
    initialize: (governor, guardian) =>
      PlatformPolicy__factory.createInterface().encodeFunctionData("initialize", [governor, guardian]),
  },
];

/** Every grant that a contract ever logged: role and account. */
async function grantsOf(contract: KmsRegistry | PlatformPolicy): Promise<string[][]> {
  const granted = contract.interface.getEvent("RoleGranted");
  const logs = await ethers.provider.getLogs({
    address: await contract.getAddress(),
    topics: [granted.topicHash],
    fromBlock: 0,
  });
  return logs.map(({ topics }) => [topics[1] ?? "", getAddress(`0x${(topics[2] ?? "").slice(26)}`)]);
}

for (const { name, proxy, constructorArguments, initialize } of SUBJECTS) {
  describe(`Governed: ${name}`, () => {
    async function load() {
      const loaded = await networkHelpers.loadFixture(suite);
      const contract = proxy(loaded);
      const governed = contract.connect(loaded.governor);
      const roles = { governor: await contract.GOVERNOR_ROLE(), guardian: await contract.GUARDIAN_ROLE() };
      return { ...loaded, contract, governed, roles };
    }
    const refusedGrant = async (governed: KmsRegistry | PlatformPolicy, role: string, account: string) =>
      expect(governed.grantRole(role, account))
        .to.be.revertedWithCustomError(governed, "Governed_NotAContract")
        .withArgs(account);

    describe("a new deployment", () => {
      it("grants the roles to the given contracts alone; the deployer never holds one", async () => {
        const { contract, roles, governor, guardian, deployer } = await load();
        const expected = [[roles.governor, governor.address]];
        if (name === "PlatformPolicy") expected.push([roles.guardian, guardian.address]);
        expect(await grantsOf(contract)).to.deep.equal(expected);
        for (const role of [roles.governor, roles.guardian, DEFAULT_ADMIN_ROLE]) {
          expect(await contract.hasRole(role, deployer.address)).to.equal(false);
        }
      });

      it("makes the governor admin of both roles", async () => {
        const { contract, roles } = await load();
        expect(await contract.getRoleAdmin(roles.governor)).to.equal(roles.governor);
        expect(await contract.getRoleAdmin(roles.guardian)).to.equal(roles.governor);
      });

      it("can be initialised once only, by nobody again", async () => {
        const { contract, governor, guardian, eve } = await load();
        for (const hand of [eve, governor]) {
          await expect(
            hand.sendTransaction({
              to: await contract.getAddress(),
              data: initialize(governor.address, guardian.address),
            }),
          ).to.be.revertedWithCustomError(contract, "InvalidInitialization");
        }
      });

      it("leaves an implementation that cannot be initialised, upgraded or governed", async () => {
        const { contract, governor, guardian, eve, roles } = await load();
        const address = await contract.implementation();
        const implementation = contract.attach(address) as BaseContract as typeof contract;
        const data = initialize(governor.address, guardian.address);
        await expect(eve.sendTransaction({ to: address, data })).to.be.revertedWithCustomError(
          contract,
          "InvalidInitialization",
        );
        expect(await implementation.hasRole(roles.governor, governor.address)).to.equal(false);
        for (const call of [
          () => implementation.connect(governor).upgradeTo(address),
          () => implementation.connect(governor).upgradeToAndCall(address, "0x"),
        ]) {
          await expect(call()).to.be.revertedWithCustomError(contract, "UUPSUnauthorizedCallContext");
        }
      });

      it("when the first governor has no code, cannot be made", async () => {
        const loaded = await load();
        const code = await deploy(connection, name, await constructorArguments(loaded));
        const factory = await ethers.getContractFactory("ERC1967Proxy");
        for (const nobody of [loaded.eve.address, ZeroAddress]) {
          await expect(factory.deploy(code, initialize(nobody, loaded.guardian.address)))
            .to.be.revertedWithCustomError(loaded.contract, "Governed_NotAContract")
            .withArgs(nobody);
        }
        if (name === "KmsRegistry") return;
        await expect(factory.deploy(code, initialize(loaded.governor.address, loaded.eve.address)))
          .to.be.revertedWithCustomError(loaded.contract, "Governed_NotAContract")
          .withArgs(loaded.eve.address);
      });

      if (name === "PlatformPolicy") {
        it("when one account would be governor and guardian, cannot be made", async () => {
          const loaded = await load();
          const code = await deploy(connection, name);
          const factory = await ethers.getContractFactory("ERC1967Proxy");
          await expect(factory.deploy(code, initialize(loaded.governor.address, loaded.governor.address)))
            .to.be.revertedWithCustomError(loaded.contract, "Governed_TwoRoles")
            .withArgs(loaded.governor.address);
        });
      }

      it("cannot be left uninitialised for the first comer", async () => {
        const loaded = await load();
        const code = await deploy(connection, name, await constructorArguments(loaded));
        const factory = await ethers.getContractFactory("ERC1967Proxy");
        await expect(factory.deploy(code, "0x")).to.be.revertedWithCustomError(factory, "ERC1967ProxyUninitialized");
      });
    });

    describe("granting a role", () => {
      it("given a contract, the governor grants either role, and only then it is held", async () => {
        const { contract, governed, governor, roles } = await load();
        for (const role of [roles.governor, roles.guardian]) {
          const account = await deploy(connection, "Actor");
          expect(await contract.hasRole(role, account)).to.equal(false);
          await expect(governed.grantRole(role, account))
            .to.emit(contract, "RoleGranted")
            .withArgs(role, account, governor.address);
          expect(await contract.hasRole(role, account)).to.equal(true);
        }
      });

      it("given an account without code, it refuses: an EOA, the zero address, a precompile", async () => {
        const { governed, roles, eve } = await load();
        for (const role of [roles.governor, roles.guardian]) {
          for (const account of [eve.address, ZeroAddress, toBeHex(1, 20)]) await refusedGrant(governed, role, account);
        }
      });

      it("given an account whose code is an EIP-7702 delegation, it refuses", async () => {
        const { governed, roles, eve } = await load();
        const delegate = await deploy(connection, "Actor");
        await networkHelpers.setCode(eve.address, concat(["0xef0100", delegate]));
        for (const role of [roles.governor, roles.guardian]) await refusedGrant(governed, role, eve.address);
      });

      it("given an account that delegated by a real EIP-7702 transaction, it refuses", async () => {
        const { governed, roles, eve } = await load();
        const delegate = await deploy(connection, "Actor");
        const wallet = Wallet.createRandom();
        await networkHelpers.setBalance(wallet.address, 10n ** 18n);
        const { chainId } = await ethers.provider.getNetwork();
        const authorization = wallet.authorizeSync({ address: delegate, nonce: 1, chainId });
        const signed = await wallet.signTransaction({
          type: 4,
          chainId,
          nonce: 0,
          to: eve.address,
          gasLimit: 100_000,
          maxFeePerGas: 10n ** 11n,
          maxPriorityFeePerGas: 1n,
          authorizationList: [authorization],
        });
        await provider.request({ method: "eth_sendRawTransaction", params: [signed] });
        expect(await ethers.provider.getCode(wallet.address), "the chain took the delegation").to.equal(
          concat(["0xef0100", delegate]),
        );
        for (const role of [roles.governor, roles.guardian]) await refusedGrant(governed, role, wallet.address);
      });

      it("given code that holds those bytes elsewhere than at its start, it is a contract", async () => {
        const { contract, governed, roles, eve } = await load();
        await networkHelpers.setCode(eve.address, "0x00ef0100");
        await governed.grantRole(roles.guardian, eve.address);
        expect(await contract.hasRole(roles.guardian, eve.address)).to.equal(true);
      });

      it("given a contract that is still being constructed, it refuses", async () => {
        const { contract, roles, governor } = await load();
        const factory = await ethers.getContractFactory("Newborn");
        await expect(
          factory.deploy(governor.address, await contract.getAddress(), roles.governor),
        ).to.be.revertedWithCustomError(contract, "Governed_NotAContract");
      });

      it("given an account that holds one role, it refuses the other", async () => {
        const { contract, governed, governor, roles } = await load();
        await expect(governed.grantRole(roles.guardian, governor.address))
          .to.be.revertedWithCustomError(contract, "Governed_TwoRoles")
          .withArgs(governor.address);
        const guardian = await deploy(connection, "Actor");
        await governed.grantRole(roles.guardian, guardian);
        await expect(governed.grantRole(roles.governor, guardian))
          .to.be.revertedWithCustomError(contract, "Governed_TwoRoles")
          .withArgs(guardian);
        await governed.revokeRole(roles.guardian, guardian);
        await governed.grantRole(roles.governor, guardian);
        expect(await contract.hasRole(roles.governor, guardian)).to.equal(true);
      });

      it("when anyone but the governor calls, it refuses, the guardian and the deployer too", async () => {
        const { contract, roles, guardian, deployer, eve } = await load();
        const account = await deploy(connection, "Actor");
        for (const hand of [guardian, deployer, eve]) {
          for (const role of [roles.governor, roles.guardian]) {
            await expect(contract.connect(hand).grantRole(role, account))
              .to.be.revertedWithCustomError(contract, "AccessControlUnauthorizedAccount")
              .withArgs(hand.address, roles.governor);
          }
        }
      });
    });

    describe("a third power", () => {
      it("DEFAULT_ADMIN_ROLE and roles of other names can be granted by nobody, the governor neither", async () => {
        const { contract, governed, governor } = await load();
        const account = await deploy(connection, "Actor");
        for (const role of [DEFAULT_ADMIN_ROLE, ethers.id("keystead.THIRD")]) {
          await expect(governed.grantRole(role, account))
            .to.be.revertedWithCustomError(contract, "AccessControlUnauthorizedAccount")
            .withArgs(governor.address, DEFAULT_ADMIN_ROLE);
          await expect(governed.revokeRole(role, account))
            .to.be.revertedWithCustomError(contract, "AccessControlUnauthorizedAccount")
            .withArgs(governor.address, DEFAULT_ADMIN_ROLE);
        }
      });
    });

    describe("leaving a role", () => {
      it("given a governor, it can neither renounce nor revoke itself, whoever else governs", async () => {
        const { contract, governed, governor, roles } = await load();
        const refuse = async () => {
          for (const leave of [
            () => governed.renounceRole(roles.governor, governor.address),
            () => governed.revokeRole(roles.governor, governor.address),
          ]) {
            await expect(leave())
              .to.be.revertedWithCustomError(contract, "Governed_GovernorCannotLeave")
              .withArgs(governor.address);
          }
        };
        await refuse();
        await governed.grantRole(roles.governor, await deploy(connection, "Actor"));
        await refuse();
        expect(await contract.hasRole(roles.governor, governor.address)).to.equal(true);
      });

      it("given two governors, each can remove the other, and the one that is left cannot go", async () => {
        const { contract, governed, governor, roles } = await load();
        const second = await contractSigner(connection, await deploy(connection, "Actor"));
        await governed.grantRole(roles.governor, second.address);
        await expect(contract.connect(second).revokeRole(roles.governor, governor.address))
          .to.emit(contract, "RoleRevoked")
          .withArgs(roles.governor, governor.address, second.address);
        await expect(contract.connect(second).renounceRole(roles.governor, second.address))
          .to.be.revertedWithCustomError(contract, "Governed_GovernorCannotLeave")
          .withArgs(second.address);
        await contract.connect(second).grantRole(roles.governor, governor.address);
        await governed.revokeRole(roles.governor, second.address);
        expect(await contract.hasRole(roles.governor, second.address)).to.equal(false);
      });

      it("given an account that holds no role, revoking it neither counts nor fails", async () => {
        const { contract, governed, governor, roles, eve } = await load();
        await governed.revokeRole(roles.governor, eve.address);
        await governed.revokeRole(roles.guardian, eve.address);
        expect(await contract.hasRole(roles.governor, governor.address)).to.equal(true);
      });

      it("given a guardian, it can be revoked, and can renounce for itself alone", async () => {
        const { contract, governed, roles, eve } = await load();
        const second = await contractSigner(connection, await deploy(connection, "Actor"));
        await governed.grantRole(roles.guardian, second.address);
        await expect(contract.connect(eve).renounceRole(roles.guardian, second.address)).to.be.revertedWithCustomError(
          contract,
          "AccessControlBadConfirmation",
        );
        await contract.connect(second).renounceRole(roles.guardian, second.address);
        expect(await contract.hasRole(roles.guardian, second.address)).to.equal(false);
        await governed.grantRole(roles.guardian, second.address);
        await governed.revokeRole(roles.guardian, second.address);
        expect(await contract.hasRole(roles.guardian, second.address)).to.equal(false);
      });

      it("when the guardian revokes the governor, or another guardian, it refuses", async () => {
        const { contract, governed, guardian, governor, roles } = await load();
        if (name === "KmsRegistry") await governed.grantRole(roles.guardian, guardian.address);
        for (const [role, account] of [
          [roles.governor, governor.address],
          [roles.guardian, guardian.address],
        ] as const) {
          await expect(contract.connect(guardian).revokeRole(role, account))
            .to.be.revertedWithCustomError(contract, "AccessControlUnauthorizedAccount")
            .withArgs(guardian.address, roles.governor);
        }
      });
    });

    describe("upgrading", () => {
      const nextVersion = async (loaded: Suite) => deploy(connection, `${name}V2`, await constructorArguments(loaded));

      it("implementation() is what ERC-1967's slot holds, and version() its version", async () => {
        const { contract } = await load();
        const slot = await ethers.provider.getStorage(await contract.getAddress(), IMPLEMENTATION_SLOT);
        expect(await contract.implementation()).to.equal(getAddress(`0x${slot.slice(26)}`));
        expect(await contract.version()).to.equal("1.0.0");
        const implementation = contract.attach(await contract.implementation()) as BaseContract as typeof contract;
        expect(await implementation.implementation(), "an implementation has none").to.equal(ZeroAddress);
      });

      it("given a next version, the governor's upgradeTo puts it in force", async () => {
        const loaded = await load();
        const { contract, governed } = loaded;
        const v2 = await nextVersion(loaded);
        await expect(governed.upgradeTo(v2)).to.emit(contract, "Upgraded").withArgs(v2);
        expect([await contract.implementation(), await contract.version()]).to.deep.equal([v2, "2.0.0"]);
      });

      it("given a call with it, upgradeToAndCall makes it in the governor's name; if it fails, nothing is upgraded", async () => {
        const loaded = await load();
        const { contract, governed, governor, roles } = loaded;
        const before = await contract.implementation();
        const v2 = await nextVersion(loaded);
        const v2Factory = name === "KmsRegistry" ? KmsRegistryV2__factory : PlatformPolicyV2__factory;
        const call = v2Factory.createInterface().encodeFunctionData("setGeneration", [7]);
        const bad = contract.interface.encodeFunctionData("renounceRole", [roles.governor, governor.address]);
        await expect(governed.upgradeToAndCall(v2, bad)).to.be.revertedWithCustomError(
          contract,
          "Governed_GovernorCannotLeave",
        );
        expect(await contract.implementation()).to.equal(before);
        await governed.upgradeToAndCall(v2, call);
        expect(await v2Factory.connect(await contract.getAddress(), governor).generation()).to.equal(7n);
      });

      it("when anyone but the governor calls, it refuses, the guardian too", async () => {
        const loaded = await load();
        const { contract, governed, roles, guardian, deployer, eve } = loaded;
        if (name === "KmsRegistry") await governed.grantRole(roles.guardian, guardian.address);
        const before = await contract.implementation();
        const v2 = await nextVersion(loaded);
        for (const hand of [guardian, deployer, eve]) {
          for (const call of [
            () => contract.connect(hand).upgradeTo(v2),
            () => contract.connect(hand).upgradeToAndCall(v2, "0x"),
          ]) {
            await expect(call())
              .to.be.revertedWithCustomError(contract, "AccessControlUnauthorizedAccount")
              .withArgs(hand.address, roles.governor);
          }
        }
        expect(await contract.implementation()).to.equal(before);
      });

      it("when the target is no UUPS implementation, it refuses: another contract, an EOA, the proxy itself", async () => {
        const { contract, governed, eve } = await load();
        const actor = await deploy(connection, "Actor");
        await expect(governed.upgradeTo(actor))
          .to.be.revertedWithCustomError(contract, "ERC1967InvalidImplementation")
          .withArgs(actor);
        await expect(governed.upgradeTo(eve.address)).to.be.revertedWithoutReason(ethers);
        const itself = await contract.getAddress();
        await expect(governed.upgradeTo(itself))
          .to.be.revertedWithCustomError(contract, "ERC1967InvalidImplementation")
          .withArgs(itself);
      });

      it("when the target names another storage slot as its own, it refuses", async () => {
        const { contract, governed } = await load();
        const slot = ethers.id("another slot");
        const odd = await deploy(connection, "ScriptedPolicy", [0, slot]);
        await expect(governed.upgradeTo(odd))
          .to.be.revertedWithCustomError(contract, "UUPSUnsupportedProxiableUUID")
          .withArgs(slot);
      });

      it("when ether comes with upgradeToAndCall and no call, it refuses", async () => {
        const loaded = await load();
        const v2 = await nextVersion(loaded);
        await expect(loaded.governed.upgradeToAndCall(v2, "0x", { value: 1n })).to.be.revertedWithCustomError(
          loaded.contract,
          "ERC1967NonPayable",
        );
      });
    });
  });
}

describe("Governed: a careless next version", () => {
  it("even past AccessControl's own check, no third role can be granted, and no role to an EOA", async () => {
    const { governor, eve } = await networkHelpers.loadFixture(suite);
    const init = GovernedHarness__factory.createInterface().encodeFunctionData("initialize", [governor.address]);
    const code = await deploy(connection, "GovernedHarness");
    const harness = GovernedHarness__factory.connect(await deploy(connection, "ERC1967Proxy", [code, init]), eve);
    for (const role of [DEFAULT_ADMIN_ROLE, ethers.id("keystead.THIRD")]) {
      await expect(harness.grantCarelessly(role, governor.address))
        .to.be.revertedWithCustomError(harness, "Governed_NoSuchRole")
        .withArgs(role);
    }
    await expect(harness.grantCarelessly(await harness.GOVERNOR_ROLE(), eve.address))
      .to.be.revertedWithCustomError(harness, "Governed_NotAContract")
      .withArgs(eve.address);
  });
});
