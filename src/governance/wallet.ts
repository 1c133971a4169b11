import { getAddress } from "ethers";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Operation } from "./operation.ts";
import { checkSignature, formatSignature, recoverSigners, type SignatureRecord, signaturePath } from "./signatures.ts";
import type { PlannedTransaction } from "./transactions.ts";

/** A signature as its file, and where it belongs in the proposal's folder. */
export interface SignatureFile {
  readonly path: string;
  readonly text: string;
}

/**
 * Takes what a wallet gave for a step's typed data: it must be the named account's signature of exactly that, whatever the wallet showed.
 *
 * @param account the account that the wallet was asked to sign with
 * @throws KeysteadError `sign/other-signer` {recovered}; `hex/malformed`, `signature/malformed`; as `checkSignature`
 * @example
 * const { path, text } = takeWalletSignature(operation, planned, account, signature);
 */
export function takeWalletSignature(
  operation: Operation,
  planned: PlannedTransaction,
  account: string,
  signature: string,
): SignatureFile {
  const signer = getAddress(account);
  const given: Hex = toHex(fromHex(signature, "signature"));
  const { safeTxHash } = planned.hashes;
  const found = recoverSigners(safeTxHash, given);
  const own = found.find((one) => one.kind === "eip712" && one.signer === signer);
  if (own === undefined) {
    throw new KeysteadError("sign/other-signer", `the wallet's signature is not ${signer}'s signature of this step`, {
      argument: "signature",
      remedy: "Trust nothing of it: sign with another wallet, or with keystead sign.",
      details: { recovered: found.map((one) => one.signer) },
    });
  }
  const record: SignatureRecord = {
    ...{ step: planned.name, safe: planned.safe.address, nonce: planned.transaction.nonce, safeTxHash },
    ...{ through: null, signer, kind: own.kind, signature: own.signature },
  };
  checkSignature(operation, record);
  return { path: signaturePath(record), text: formatSignature(record) };
}
