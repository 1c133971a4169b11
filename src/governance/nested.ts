import { INTERFACES } from "./abis.ts";
import { hashSafeTransaction, hex, type SafeHashes, type SafeTransaction } from "./safe-hash.ts";
import type { PlannedTransaction } from "./transactions.ts";

/** The transaction of an owner that is itself a Safe, by which it approves another Safe's transaction on chain. */
export interface Approval {
  /** The owner that is a Safe. */
  readonly safe: string;
  readonly transaction: SafeTransaction;
  /** Its own hashes: what the devices of its owners show, and not those of the transaction that is approved. */
  readonly hashes: SafeHashes;
}

/**
 * How an owner that is a Safe approves a transaction: a transaction of its own, from its own nonce on, that calls `approveHash` of the outer Safe.
 *
 * @param child the owner, and the nonce of its next transaction
 * @example
 * planApproval(1n, planned, { address: child, nonce: 7n }).hashes.messageHash;
 */
export function planApproval(
  chainId: bigint,
  planned: PlannedTransaction,
  child: { readonly address: string; readonly nonce: bigint },
): Approval {
  const data = hex(INTERFACES.safe.encodeFunctionData("approveHash", [planned.hashes.safeTxHash]));
  const transaction = { to: planned.safe.address, value: 0n, data, operation: 0 as const, nonce: child.nonce };
  return { safe: child.address, transaction, hashes: hashSafeTransaction(chainId, child.address, transaction) };
}

/**
 * An approval as lines for people.
 *
 * @example
 * describeApproval(approval).join("\n");
 */
export function describeApproval({ safe, transaction, hashes }: Approval): readonly string[] {
  return [
    `To approve on chain instead, Safe ${safe} makes a transaction of its own, with its own hashes:`,
    `  to           ${transaction.to}`,
    `  calls        approveHash, with 0 wei`,
    `  data         ${transaction.data}`,
    `  nonce        ${transaction.nonce}`,
    `  domain       ${hashes.domainHash}`,
    `  message      ${hashes.messageHash}`,
    `  safeTxHash   ${hashes.safeTxHash}`,
  ];
}
