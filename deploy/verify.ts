import type { ArtifactManager } from "hardhat/types/artifacts";
import { fetchBlock } from "../src/chain/block.ts";
import { connect, type Eip1193Provider } from "../src/chain/client.ts";
import type { DeployedContractName, Deployment } from "../src/chain/deployment.ts";
import type { Build } from "../src/governance/build.ts";
import {
  checkDeployedCode,
  checkDeployedRoles,
  checkDeployedState,
  type ObservedRoles,
  PUBLISHED_SOURCES,
} from "../src/governance/deployment-check.ts";
import { initializedIn, openReader } from "../src/governance/witnessed.ts";
import { type Connection, fetchChainId } from "./connection.ts";
import { inspectSafe } from "./safe/account.ts";

export { PUBLISHED_SOURCES } from "../src/governance/deployment-check.ts";
export { INITIALIZERS_DISABLED } from "../src/governance/witnessed.ts";

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
  const reader = await readerOf(connection);
  const code = await checkDeployedCode(reader, deployment, await readSources(artifacts, sources));
  // Without the right code nothing that a contract says about itself means anything.
  const state = code.length > 0 ? [] : await checkDeployedState(reader, deployment);
  const safes = await findSafeDifferences(connection, deployment);
  const { deviations, roles } = await checkDeployedRoles(reader, deployment);
  const sentences = (found: readonly { readonly message: string }[]) => found.map(({ message }) => message);
  return { differences: [...sentences(code), ...sentences(state), ...safes, ...sentences(deviations)], roles };
}

async function readerOf(connection: Connection) {
  const client = await connect(connection.provider as Eip1193Provider);
  return openReader(client, await fetchBlock(client, "latest"));
}

async function readSources(
  artifacts: ArtifactManager,
  sources: Readonly<Record<DeployedContractName, string>>,
): Promise<Record<DeployedContractName, Build>> {
  const read = async (name: DeployedContractName): Promise<Build> => {
    const { deployedBytecode, immutableReferences = {} } = await artifacts.readArtifact(sources[name]);
    return { source: sources[name], deployedBytecode, immutableReferences };
  };
  return {
    timelock: await read("timelock"),
    policyImplementation: await read("policyImplementation"),
    policy: await read("policy"),
    registryImplementation: await read("registryImplementation"),
    registry: await read("registry"),
    dstackAuth: await read("dstackAuth"),
  };
}

/** Which version of its initialisers a contract has run: 0 for none, {@link INITIALIZERS_DISABLED} on a locked implementation. */
export async function fetchInitializedVersion(connection: Connection, address: string): Promise<bigint> {
  return initializedIn(await readerOf(connection), address);
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
