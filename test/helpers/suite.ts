import type { HardhatEthersSigner } from "@nomicfoundation/hardhat-ethers/types";
import type { network } from "hardhat";
import {
  type DstackAuth,
  DstackAuth__factory,
  type KmsRegistry,
  KmsRegistry__factory,
  type PlatformPolicy,
  PlatformPolicy__factory,
} from "../../typechain-types/index.ts";
import { KIND, PLATFORM } from "./images.ts";

export type Connection = Awaited<ReturnType<typeof network.create>>;

export const DAY = 86_400;
export const NOTICE = 3 * DAY;

/** Every TCB status that a policy may accept (TcbStatus.ACCEPTABLE). */
export const TCB = { upToDate: 0, swHardeningNeeded: 1, outOfDate: 4, revoked: 6, notApplicable: 7 } as const;

/** The proxies as tests use them, with contract accounts in the place of timelock and Safes. */
export interface Suite {
  readonly connection: Connection;
  readonly registry: KmsRegistry;
  readonly policy: PlatformPolicy;
  readonly dstackAuth: DstackAuth;
  /** Signers that send from the contract accounts which hold the roles. */
  readonly governor: HardhatEthersSigner;
  readonly guardian: HardhatEthersSigner;
  readonly deployer: HardhatEthersSigner;
  readonly admin: HardhatEthersSigner;
  readonly successor: HardhatEthersSigner;
  readonly serviceGuardian: HardhatEthersSigner;
  readonly eve: HardhatEthersSigner;
}

/** Both proxies and the adapter, with nothing allowed yet. */
export async function deploySuite(connection: Connection): Promise<Suite> {
  const { ethers } = connection;
  const [deployer, admin, successor, serviceGuardian, eve] = await ethers.getSigners();
  if (!deployer || !admin || !successor || !serviceGuardian || !eve) throw new Error("five accounts are needed");

  const governor = await contractSigner(connection, await deploy(connection, "Actor"));
  const guardian = await contractSigner(connection, await deploy(connection, "Actor"));

  const policyInit = PlatformPolicy__factory.createInterface().encodeFunctionData("initialize", [
    governor.address,
    guardian.address,
  ]);
  const policyCode = await deploy(connection, "PlatformPolicy");
  const policyAddress = await deploy(connection, "ERC1967Proxy", [policyCode, policyInit]);
  const registryInit = KmsRegistry__factory.createInterface().encodeFunctionData("initialize", [governor.address]);
  const registryCode = await deploy(connection, "KmsRegistry", [policyAddress]);
  const registryAddress = await deploy(connection, "ERC1967Proxy", [registryCode, registryInit]);
  const dstackAddress = await deploy(connection, "DstackAuth", [registryAddress, policyAddress]);

  const policy = PlatformPolicy__factory.connect(policyAddress, deployer);
  const registry = KmsRegistry__factory.connect(registryAddress, deployer);
  const dstackAuth = DstackAuth__factory.connect(dstackAddress, deployer);
  return {
    connection,
    registry,
    policy,
    dstackAuth,
    governor,
    guardian,
    deployer,
    admin,
    successor,
    serviceGuardian,
    eve,
  };
}

/** The suite with every TEE kind enabled, the usual TCB statuses accepted and the test platforms allowed. */
export async function deployOpenSuite(connection: Connection): Promise<Suite> {
  const suite = await deploySuite(connection);
  const policy = suite.policy.connect(suite.governor);
  for (const kind of Object.values(KIND)) {
    await policy.enableTee(kind);
    await policy.acceptTcb(kind, (1 << TCB.upToDate) | (1 << TCB.swHardeningNeeded) | (1 << TCB.notApplicable));
  }
  for (const platform of Object.values(PLATFORM)) await policy.allowPlatform(platform, "test platform");
  return suite;
}

/** A signer that sends from a contract's own address: the role holders here are contracts, as they must be. */
export async function contractSigner(connection: Connection, address: string): Promise<HardhatEthersSigner> {
  const { networkHelpers, ethers } = connection;
  await networkHelpers.setBalance(address, 10n ** 24n);
  await networkHelpers.impersonateAccount(address);
  return ethers.getSigner(address);
}

/** Deploys a contract by its artifact's name and returns its address. */
export async function deploy(connection: Connection, name: string, args: readonly unknown[] = []): Promise<string> {
  const contract = await connection.ethers.deployContract(name, [...args]);
  await contract.waitForDeployment();
  return contract.getAddress();
}
