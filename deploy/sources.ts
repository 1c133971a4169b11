import { verifyContract } from "@nomicfoundation/hardhat-verify/verify";
import hre from "hardhat";
import { DEPLOYED_CONTRACTS, type Deployment } from "../src/chain/deployment.ts";
import { KeysteadError } from "../src/core/errors.ts";
import { isLocalChain, type Log, silent } from "./connection.ts";

/** Where sources are published. */
export const SOURCE_SERVICES = ["sourcify", "blockscout", "etherscan"] as const;
export type SourceService = (typeof SOURCE_SERVICES)[number];

/** hardhat-verify's call, so that tests can watch what it is asked. */
export type VerifyContract = (request: {
  readonly address: string;
  readonly contract: string;
  readonly constructorArgs: unknown[];
  readonly provider: SourceService;
  readonly creationTxHash?: string;
}) => Promise<boolean>;

/**
 * Publishes the sources of every contract of a deployment, proxies included, to Sourcify, Blockscout and Etherscan. What is already verified
 * is left as it is; a service that fails does not keep the others from being asked.
 *
 * @returns how many contract × service pairs are verified now
 * @throws KeysteadError `sources/local-chain` (explorers know public chains only), `sources/not-all-verified` with `details.failures`
 * @example await verifySources(readDeployment("sepolia"), console.log);
 */
export async function verifySources(
  deployment: Deployment,
  log: Log = silent,
  verify: VerifyContract = (request) => verifyContract(request, hre),
): Promise<number> {
  if (isLocalChain(deployment.chainId)) {
    throw new KeysteadError("sources/local-chain", `chain ${deployment.chainId} is a local one`, {
      argument: "network",
      remedy: "verify sources on a public network",
    });
  }
  const failures: string[] = [];
  let verified = 0;
  for (const name of DEPLOYED_CONTRACTS) {
    const { address, source, constructorArguments, transaction } = deployment.contracts[name];
    for (const provider of SOURCE_SERVICES) {
      try {
        const done = await verify({
          address,
          contract: source,
          constructorArgs: [...constructorArguments],
          provider,
          ...(provider === "sourcify" ? { creationTxHash: transaction } : {}),
        });
        if (!done) throw new Error("not verified");
        verified++;
        log(`${name} ${address}: verified on ${provider}`);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        failures.push(`${name} on ${provider}: ${reason}`);
        log(`${name} ${address}: ${provider} refuses: ${reason}`);
      }
    }
  }
  if (failures.length > 0) {
    throw new KeysteadError(
      "sources/not-all-verified",
      `${failures.length} verifications failed:\n- ${failures.join("\n- ")}`,
      {
        remedy: "set ETHERSCAN_API_KEY in the keystore, build from the deployed commit, and run the same command again",
        retryable: true,
        details: { failures },
      },
    );
  }
  return verified;
}
