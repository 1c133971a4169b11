import type { TransactionRequest } from "ethers";
import type { NetworkConnection } from "hardhat/types/network";
import { isLocalChain } from "../src/core/chain-id.ts";
import { KeysteadError } from "../src/core/errors.ts";

/** A Hardhat network connection of any chain type, as `hre.network.create()` gives it. */
export type Connection = NetworkConnection<string>;

/** Where progress goes: one line at a time, already fit for a person to read. */
export type Log = (line: string) => void;

/** For callers that want no progress. */
export const silent: Log = () => {};

export { isLocalChain };

/** The chain id that the node itself reports. */
export async function fetchChainId(connection: Connection): Promise<bigint> {
  const answer: unknown = await connection.provider.request({ method: "eth_chainId" });
  return BigInt(String(answer));
}

/**
 * Sends a transaction from `from` (default: the connection's first account) and waits until it is mined.
 *
 * @throws KeysteadError `deploy/no-account` if the connection has no account to send with, `deploy/transaction-failed` if it reverted
 */
export async function sendAndWait(connection: Connection, transaction: TransactionRequest, from?: string) {
  const signer = await fetchSigner(connection, from);
  const sent = await signer.sendTransaction(transaction);
  const receipt = await sent.wait();
  if (receipt === null || receipt.status !== 1) {
    throw new KeysteadError("deploy/transaction-failed", `transaction ${sent.hash} did not succeed`, {
      remedy: "look the transaction up in an explorer, remove the cause, and run the same command again: it resumes",
      details: { hash: sent.hash },
    });
  }
  return receipt;
}

/**
 * The signer of an account that the connection can send with.
 *
 * @throws KeysteadError `deploy/no-account`
 */
export async function fetchSigner(connection: Connection, address?: string) {
  const signers = await connection.ethers.getSigners();
  const signer =
    address === undefined ? signers[0] : signers.find((s) => s.address.toLowerCase() === address.toLowerCase());
  if (signer === undefined) {
    throw new KeysteadError(
      "deploy/no-account",
      `network ${connection.networkName} has no account ${address ?? "to deploy with"}`,
      {
        argument: "from",
        remedy: "set it with `npx hardhat keystore set KEYSTEAD_DEPLOYER_KEY`, or name an account of the node",
      },
    );
  }
  return signer;
}
