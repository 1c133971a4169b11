import { getAddress, Interface, id, keccak256, toBeHex } from "ethers";
import type { ArtifactManager } from "hardhat/types/artifacts";
import { compareCode } from "../src/chain/code.ts";
import { DEPLOYED_CONTRACTS, type DeployedContractName, type Deployment } from "../src/chain/deployment.ts";
import { fetchRoles } from "../src/chain/roles.ts";
import { compareRoles, type GovernedContract, type Party, ROLE_MATRIX } from "../src/governance/role-matrix.ts";
import { type Connection, fetchChainId } from "./connection.ts";
import { inspectSafe } from "./safe/account.ts";

/** ERC-1967: one below the hash of the field's name, so that no mapping can reach it. */
const erc1967Slot = (name: string) => toBeHex(BigInt(id(`eip1967.proxy.${name}`)) - 1n, 32);
/** ERC-7201: where a namespace's struct begins. */
const erc7201Slot = (namespace: string) =>
  toBeHex((BigInt(keccak256(toBeHex(BigInt(id(namespace)) - 1n, 32))) >> 8n) << 8n, 32);
/** OpenZeppelin's `Initializable`: `_initialized` is the lowest eight bytes of its first slot. */
const INITIALIZABLE_SLOT = erc7201Slot("openzeppelin.storage.Initializable");
/** What `_disableInitializers` leaves there. */
export const INITIALIZERS_DISABLED = (1n << 64n) - 1n;

const ABI = new Interface([
  "function implementation() view returns (address)",
  "function POLICY() view returns (address)",
  "function KMS_REGISTRY() view returns (address)",
  "function PLATFORM_POLICY() view returns (address)",
  "function getMinDelay() view returns (uint256)",
]);

const PROXY = "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol:ERC1967Proxy";

/** What each contract must have been built from: a record's own word is not enough. */
export const PUBLISHED_SOURCES: Readonly<Record<DeployedContractName, string>> = {
  timelock: "contracts/governance/GovernanceTimelock.sol:GovernanceTimelock",
  policyImplementation: "contracts/policy/PlatformPolicy.sol:PlatformPolicy",
  policy: PROXY,
  registryImplementation: "contracts/registry/KmsRegistry.sol:KmsRegistry",
  registry: PROXY,
  dstackAuth: "contracts/dstack/DstackAuth.sol:DstackAuth",
};

/** The roles of a deployment as read from its logs, in the order of the published matrix; what deviates from it included. */
export type ObservedRoles = Deployment["roles"];

/** What {@link verifyDeployment} found. */
export interface DeploymentFindings {
  /** One sentence per deviation; empty if the deployment is as published. */
  readonly differences: readonly string[];
  readonly roles: ObservedRoles;
}

/**
 * Checks a deployment on chain against what was built here and what is published: chain id; every contract's creation transaction, code
 * (immutables checked and masked) and recorded code hash; ERC-1967 slots; initialised proxies and disabled implementations; the registry's
 * policy; the timelock's delay; the Safes; and the role matrix, folded from every role log since each contract's creation and compared both
 * ways. It reads only.
 *
 * @param artifacts the build to compare with (`hre.artifacts`)
 * @param sources what each contract must have been built from; another one after an upgrade
 * @returns findings; what can't be read throws the provider's error and is never taken for agreement
 * @example (await verifyDeployment(connection, readDeployment("sepolia"), hre.artifacts)).differences // []
 */
export async function verifyDeployment(
  connection: Connection,
  deployment: Deployment,
  artifacts: ArtifactManager,
  sources: Readonly<Record<DeployedContractName, string>> = PUBLISHED_SOURCES,
): Promise<DeploymentFindings> {
  const chainId = await fetchChainId(connection);
  if (chainId !== deployment.chainId) {
    return { differences: [`the chain's id is ${chainId}, the deployment's is ${deployment.chainId}`], roles: [] };
  }
  const code = await findCodeDifferences(connection, deployment, artifacts, sources);
  // Without the right code nothing that a contract says about itself means anything.
  const state = code.length > 0 ? [] : await findStateDifferences(connection, deployment);
  const safes = await findSafeDifferences(connection, deployment);
  const { differences: roleDifferences, roles } = await findRoleDifferences(connection, deployment);
  return { differences: [...code, ...state, ...safes, ...roleDifferences], roles };
}

async function findCodeDifferences(
  connection: Connection,
  deployment: Deployment,
  artifacts: ArtifactManager,
  sources: Readonly<Record<DeployedContractName, string>>,
) {
  const { provider } = connection.ethers;
  const { contracts } = deployment;
  const known = Object.values(contracts).map((contract) => contract.address);
  const differences: string[] = [];
  for (const name of DEPLOYED_CONTRACTS) {
    const { address, source, codeHash, transaction, block } = contracts[name];
    const code = await provider.getCode(address);
    if (code === "0x") {
      differences.push(`${name}: there is no code at ${address}`);
      continue;
    }
    if (keccak256(code) !== codeHash)
      differences.push(`${name}: its code hash is ${keccak256(code)}, recorded is ${codeHash}`);
    if (source !== sources[name]) differences.push(`${name}: it is recorded as ${source}, not ${sources[name]}`);
    const artifact = await artifacts.readArtifact(sources[name]);
    // A proxy points to an implementation, an implementation to itself and the policy, the adapter to both proxies.
    differences.push(...compareCode(code, artifact, known).map((difference) => `${name}: ${difference}`));
    const receipt = await provider.getTransactionReceipt(transaction);
    if (receipt === null || receipt.blockNumber !== block || receipt.contractAddress !== address) {
      differences.push(`${name}: transaction ${transaction} did not create it in block ${block}`);
    }
  }
  return differences;
}

async function findStateDifferences(connection: Connection, deployment: Deployment): Promise<string[]> {
  const { provider } = connection.ethers;
  const { contracts } = deployment;
  const differences: string[] = [];
  const expect = (what: string, found: unknown, wanted: unknown) => {
    if (found !== wanted) differences.push(`${what} is ${found}, not ${wanted}`);
  };
  const slot = async (address: string, position: string) => BigInt(await provider.getStorage(address, position));
  const read = async (address: string, name: string) => {
    const data = await provider.call({ to: address, data: ABI.encodeFunctionData(name) });
    return ABI.decodeFunctionResult(name, data)[0];
  };

  for (const [name, implementation] of [
    ["policy", contracts.policyImplementation.address],
    ["registry", contracts.registryImplementation.address],
  ] as const) {
    const { address } = contracts[name];
    const stored = getAddress(toBeHex(BigInt.asUintN(160, await slot(address, erc1967Slot("implementation"))), 20));
    expect(`${name}: the implementation slot`, stored, implementation);
    expect(`${name}: implementation()`, await read(address, "implementation"), implementation);
    expect(`${name}: the ERC-1967 admin slot`, await slot(address, erc1967Slot("admin")), 0n);
    expect(`${name}: the ERC-1967 beacon slot`, await slot(address, erc1967Slot("beacon")), 0n);
    expect(`${name}: being initialised`, (await fetchInitializedVersion(connection, address)) > 0n, true);
    expect(
      `${name}Implementation: the initialised version`,
      await fetchInitializedVersion(connection, implementation),
      INITIALIZERS_DISABLED,
    );
  }
  expect("registry: POLICY()", await read(contracts.registry.address, "POLICY"), contracts.policy.address);
  const adapter = contracts.dstackAuth.address;
  expect("dstackAuth: KMS_REGISTRY()", await read(adapter, "KMS_REGISTRY"), contracts.registry.address);
  expect("dstackAuth: PLATFORM_POLICY()", await read(adapter, "PLATFORM_POLICY"), contracts.policy.address);
  const delay = await read(contracts.timelock.address, "getMinDelay");
  expect("timelock: getMinDelay()", delay, BigInt(deployment.delaySeconds));
  return differences;
}

/** Which version of its initialisers a contract has run: 0 for none, {@link INITIALIZERS_DISABLED} on a locked implementation. */
export async function fetchInitializedVersion(connection: Connection, address: string): Promise<bigint> {
  return BigInt.asUintN(64, BigInt(await connection.ethers.provider.getStorage(address, INITIALIZABLE_SLOT)));
}

async function findSafeDifferences(connection: Connection, deployment: Deployment): Promise<string[]> {
  const differences: string[] = [];
  for (const office of ["governance", "guardian"] as const) {
    const recorded = deployment.safes[office];
    const state = await inspectSafe(connection, recorded.address);
    const owners = (list: readonly string[]) => [...list].sort().join(", ");
    if (owners(state.owners) !== owners(recorded.owners)) {
      differences.push(
        `${office} Safe: its owners are ${owners(state.owners)}, recorded are ${owners(recorded.owners)}`,
      );
    }
    if (state.threshold !== recorded.threshold) {
      differences.push(`${office} Safe: its threshold is ${state.threshold}, recorded is ${recorded.threshold}`);
    }
  }
  return differences;
}

async function findRoleDifferences(connection: Connection, deployment: Deployment): Promise<DeploymentFindings> {
  const parties: Record<Party, string> = {
    timelock: deployment.contracts.timelock.address,
    governanceSafe: deployment.safes.governance.address,
    guardianSafe: deployment.safes.guardian.address,
  };
  const differences: string[] = [];
  const roles: { contract: string; role: string; holders: readonly string[] }[] = [];
  for (const name of ["timelock", "policy", "registry"] as const satisfies readonly GovernedContract[]) {
    const { address, block } = deployment.contracts[name];
    const state = await fetchRoles(connection.ethers.provider, address, block);
    differences.push(...compareRoles(name, state, parties));
    const rows = ROLE_MATRIX.filter((row) => row.contract === name);
    for (const row of rows) roles.push({ contract: name, role: row.role, holders: state.holders.get(row.id) ?? [] });
  }
  return { differences, roles };
}
