import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  errorDeploymentResultToExceptionMessage,
  HardhatArtifactResolver,
} from "@nomicfoundation/hardhat-ignition/helpers";
import {
  type DeploymentParameters,
  DeploymentResultType,
  deploy,
  type ExecutionEventListener,
  type IgnitionModule,
  type IgnitionModuleResult,
  listTransactions,
} from "@nomicfoundation/ignition-core";
import { keccak256 } from "ethers";
import type { ArtifactManager } from "hardhat/types/artifacts";
import type { DeployedContract } from "../src/chain/deployment.ts";
import { KeysteadError } from "../src/core/errors.ts";
import { type Connection, fetchChainId, fetchSigner, isLocalChain, type Log } from "./connection.ts";

/** An Ignition module of this repository. */
export type KeysteadModule = IgnitionModule<string, string, IgnitionModuleResult<string>>;

/**
 * Runs an Ignition module with its journal in `folder`: what an earlier run of the same deployment did is not done again.
 *
 * @param folder kept for as long as the deployment may have to be resumed
 * @returns every contract of the module, by its name in the module
 * @throws KeysteadError `deploy/another-chain` (the journal belongs to another chain), `deploy/ignition-failed`
 */
export async function runModule(
  connection: Connection,
  module: KeysteadModule,
  options: {
    readonly folder: string;
    readonly parameters: DeploymentParameters;
    readonly artifacts: ArtifactManager;
    readonly log: Log;
  },
): Promise<Record<string, DeployedContract>> {
  const { folder, parameters, artifacts, log } = options;
  await claimFolder(connection, folder, log);
  const artifactResolver = new HardhatArtifactResolver(artifacts);
  const accounts = (await connection.ethers.getSigners()).map((signer) => signer.address);
  // Fee limits and retries of this network, as `hardhat.config.ts` sets them for Ignition.
  const { explorerUrl: _, maxRetries, retryInterval, ...fees } = connection.networkConfig.ignition;
  const local = isLocalChain(await fetchChainId(connection))
    ? { requiredConfirmations: 1, blockPollingInterval: 50 }
    : {};
  const result = await deploy({
    ...fees,
    provider: connection.provider,
    artifactResolver,
    deploymentDir: folder,
    ignitionModule: module,
    deploymentParameters: parameters,
    accounts,
    defaultSender: (await fetchSigner(connection)).address,
    executionEventListener: reportTo(log),
    config: {
      ...local,
      ...(maxRetries === undefined ? {} : { maxRetries }),
      ...(retryInterval === undefined ? {} : { retryInterval }),
    },
  });
  if (result.type !== DeploymentResultType.SUCCESSFUL_DEPLOYMENT) {
    throw new KeysteadError("deploy/ignition-failed", errorDeploymentResultToExceptionMessage(result), {
      remedy: "remove the cause and run the same command again: it resumes from the journal",
      details: { folder },
    });
  }
  const transactions = await listTransactions(folder, artifactResolver);
  const contracts: Record<string, DeployedContract> = {};
  for (const [name, future] of Object.entries(module.results)) {
    const address = result.contracts[future.id]?.address;
    const made = transactions.find((entry) => entry.address === address);
    const receipt = made && (await connection.ethers.provider.getTransactionReceipt(made.txHash));
    if (address === undefined || made === undefined || !receipt) {
      throw new KeysteadError("deploy/ignition-failed", `the journal has no creation of ${name} that the chain knows`, {
        remedy: "check that the node is synced, and run the same command again",
        retryable: true,
        details: { folder },
      });
    }
    const artifact = await artifacts.readArtifact("contractName" in future ? String(future.contractName) : name);
    contracts[name] = {
      address,
      source: `${artifact.sourceName}:${artifact.contractName}`,
      codeHash: keccak256(await connection.ethers.provider.getCode(address)),
      transaction: made.txHash,
      block: receipt.blockNumber,
      constructorArguments: (made.params ?? []).map(String),
    };
  }
  return contracts;
}

/**
 * Ties a journal to one chain by the hash of block 0. A local chain that was started anew gets a new journal; anywhere else a difference is
 * an error.
 */
async function claimFolder(connection: Connection, folder: string, log: Log): Promise<void> {
  const chainId = await fetchChainId(connection);
  const genesis = (await connection.ethers.provider.getBlock(0))?.hash ?? "";
  const claim = JSON.stringify({ chainId: chainId.toString(), genesis });
  const file = join(folder, "chain.json");
  if (existsSync(file) && readFileSync(file, "utf8") !== claim) {
    if (!isLocalChain(chainId)) {
      throw new KeysteadError("deploy/another-chain", `the journal ${folder} belongs to another chain`, {
        argument: "network",
        remedy: "check the network's RPC URL; to deploy a second time, move the journal and the record away",
      });
    }
    log("the local chain was started anew: so is the journal");
    rmSync(folder, { recursive: true });
  }
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, claim);
}

/** Ignition's listener has a method per event; one of them is worth a line here. */
function reportTo(log: Log): ExecutionEventListener {
  const handlers: Partial<ExecutionEventListener> = {
    deploymentExecutionStateComplete: async (event) => {
      const detail = event.result.type === "SUCCESS" ? event.result.result : event.result.type.toLowerCase();
      log(`${event.futureId.replace("#", " ")}: ${detail}`);
    },
  };
  return new Proxy(handlers, {
    get: (target, name) => Reflect.get(target, name) ?? (async () => {}),
  }) as ExecutionEventListener;
}
