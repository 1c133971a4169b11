import {
  DEPLOYED_CONTRACTS,
  type DeployedContract,
  type DeployedContractName,
  type Deployment,
} from "../../src/chain/deployment.ts";

/** A deployment's record in which nothing but chain id and the two proxies matters. */
export function deploymentRecord(registry: string, policy: string, chainId: bigint): Deployment {
  const contract = (name: DeployedContractName): DeployedContract => ({
    address: name === "policy" ? policy : registry,
    source: `contracts/${name}.sol:Contract`,
    codeHash: `0x${"11".repeat(32)}`,
    transaction: `0x${"22".repeat(32)}`,
    block: 0,
    constructorArguments: [],
  });
  const safe = { address: registry, version: "1.4.1", owners: [registry], threshold: 1 };
  return {
    schema: 1,
    network: "test",
    chainId,
    block: 0,
    delaySeconds: 0,
    safes: { governance: safe, guardian: safe },
    contracts: Object.fromEntries(DEPLOYED_CONTRACTS.map((name) => [name, contract(name)])) as Deployment["contracts"],
    roles: [],
  };
}
