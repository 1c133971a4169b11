import { concat, TypedDataEncoder } from "ethers";
import { KeysteadError } from "../core/errors.ts";
import { hex, SAFE_TX } from "./safe-hash.ts";
import { hasHashedContractSignatures, hashesToSign } from "./signatures.ts";
import type { PlannedTransaction } from "./transactions.ts";

/** EIP-712 typed data as wallets take it (`eth_signTypedData_v4`). Numbers are decimal texts, which every wallet reads exactly. */
export interface TypedData {
  readonly types: Readonly<Record<string, readonly { readonly name: string; readonly type: string }[]>>;
  readonly primaryType: "SafeTx" | "SafeMessage";
  readonly domain: { readonly chainId: number | string; readonly verifyingContract: string };
  readonly message: Readonly<Record<string, string>>;
}

const ZERO = "0x0000000000000000000000000000000000000000";
const DOMAIN = [
  { name: "chainId", type: "uint256" },
  { name: "verifyingContract", type: "address" },
];
/**
 * What a wallet is given to sign a step: the Safe transaction, or, in the name of an owner that is a Safe, that Safe's message about it. Its hashes are
 * compared with those of the proposal before it is given out.
 *
 * @param through the owner that is a Safe, or null
 * @throws KeysteadError `sign/hashes-differ`: the typed data would not be what the proposal says
 * @example
 * JSON.stringify(typedDataOf(1n, planStep(operation, "schedule"), null)); // for `cast wallet sign --data`
 */
export function typedDataOf(chainId: bigint, planned: PlannedTransaction, through: string | null): TypedData {
  const { transaction, safe, hashes } = planned;
  const { to, value, data, operation, nonce } = transaction;
  // wallets compare the domain's chain with their own, most of them as a number
  const chain = chainId <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(chainId) : chainId.toString();
  const message = hasHashedContractSignatures(safe.version)
    ? hashes.safeTxHash
    : concat(["0x1901", hashes.domainHash, hashes.messageHash]);
  const typed: TypedData =
    through === null
      ? {
          types: { EIP712Domain: DOMAIN, ...SAFE_TX },
          primaryType: "SafeTx",
          domain: { chainId: chain, verifyingContract: safe.address },
          message: {
            ...{ to, value: value.toString(), data, operation: operation.toString() },
            ...{ safeTxGas: "0", baseGas: "0", gasPrice: "0", gasToken: ZERO, refundReceiver: ZERO },
            nonce: nonce.toString(),
          },
        }
      : {
          types: { EIP712Domain: DOMAIN, SafeMessage: [{ name: "message", type: "bytes" }] },
          primaryType: "SafeMessage",
          domain: { chainId: chain, verifyingContract: through },
          message: { message },
        };
  const { [typed.primaryType]: fields = [] } = typed.types;
  const hash = hex(TypedDataEncoder.hash(typed.domain, { [typed.primaryType]: [...fields] }, typed.message));
  const expected = hashesToSign(chainId, planned, through).safeTxHash;
  if (hash === expected) return typed;
  throw new KeysteadError("sign/hashes-differ", `the typed data hashes to ${hash}, the proposal says ${expected}`, {
    remedy: "Sign nothing, and report it: this is a defect of keystead.",
    details: { ours: hash, expected },
  });
}
