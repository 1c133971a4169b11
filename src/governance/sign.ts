import {
  calculateSafeMessageHash,
  calculateSafeTransactionHash,
  preimageSafeTransactionHash,
} from "@safe-global/protocol-kit";
import { computeAddress, SigningKey, Transaction, type TransactionLike } from "ethers";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Operation } from "./operation.ts";
import { hex } from "./safe-hash.ts";
import {
  checkSignature,
  hasHashedContractSignatures,
  hashesToSign,
  recoverSigners,
  type SignatureRecord,
} from "./signatures.ts";
import type { PlannedTransaction } from "./transactions.ts";

const ZERO = "0x0000000000000000000000000000000000000000";

/** A private key that signs; it never leaves this object. */
export interface Key {
  readonly address: string;
  /** r ‖ s ‖ v over 32 bytes. */
  sign(hash: Hex): Hex;
  /** A complete transaction of this account, signed and serialised. */
  signTransaction(transaction: TransactionLike): Hex;
}

/**
 * Takes a private key. No error repeats it.
 *
 * @param text 32 bytes in hex, with or without `0x`
 * @param name where it came from, for errors
 * @throws KeysteadError `key/malformed`
 * @example
 * parseKey(process.env.KEYSTEAD_SIGNER_KEY ?? "", "KEYSTEAD_SIGNER_KEY").address;
 */
export function parseKey(text: string, name: string): Key {
  const digits = text.trim().replace(/^0x/, "");
  const malformed = () =>
    new KeysteadError("key/malformed", `what ${name} holds is no private key`, {
      argument: name,
      remedy: "Give 32 bytes in hex, and nothing else.",
    });
  if (!/^[0-9a-fA-F]{64}$/.test(digits)) throw malformed();
  try {
    const key = new SigningKey(`0x${digits}`);
    return {
      address: computeAddress(key),
      sign: (hash) => hex(key.sign(hash).serialized),
      signTransaction: (unsigned) => {
        const transaction = Transaction.from(unsigned);
        transaction.signature = key.sign(transaction.unsignedHash);
        return hex(transaction.serialized);
      },
    };
  } catch {
    // the cause may hold the key
    throw malformed();
  }
}

/**
 * The hash that a step's signer signs, by Safe's own protocol-kit: the second opinion on {@link hashesToSign}.
 *
 * @example
 * hashByProtocolKit(1n, planned, null) === hashesToSign(1n, planned, null).safeTxHash;
 */
export function hashByProtocolKit(chainId: bigint, planned: PlannedTransaction, through: string | null): string {
  const { safe, transaction } = planned;
  const { to, value, data, operation, nonce } = transaction;
  const unsigned = {
    ...{ to, value: value.toString(), data, operation, nonce: Number(nonce) },
    ...{ safeTxGas: "0", baseGas: "0", gasPrice: "0", gasToken: ZERO, refundReceiver: ZERO },
  };
  if (through === null) return calculateSafeTransactionHash(safe.address, unsigned, safe.version, chainId);
  const message = hasHashedContractSignatures(safe.version)
    ? calculateSafeTransactionHash(safe.address, unsigned, safe.version, chainId)
    : preimageSafeTransactionHash(safe.address, unsigned, safe.version, chainId);
  return calculateSafeMessageHash(through, message, safe.version, chainId);
}

/**
 * Signs a step, provided that both implementations of its hash agree.
 *
 * @param planned the step, with the nonce that it is to have
 * @param options.through the owner of the Safe that is itself a Safe, in whose name the key signs
 * @throws KeysteadError `sign/hashes-differ`; those of `checkSignature`
 * @example
 * const record = signStep(operation, planStep(operation, "schedule"), key);
 */
export function signStep(
  operation: Operation,
  planned: PlannedTransaction,
  key: Key,
  options: { readonly through?: string | null } = {},
): SignatureRecord {
  const { through = null } = options;
  const { safeTxHash: hash } = hashesToSign(operation.chainId, planned, through);
  const second = hashByProtocolKit(operation.chainId, planned, through);
  if (second !== hash) {
    throw new KeysteadError("sign/hashes-differ", `the hash to sign is ${hash} here and ${second} by protocol-kit`, {
      remedy: "Sign nothing, and report it: one of two implementations is wrong, or was tampered with.",
      details: { ours: hash, protocolKit: second },
    });
  }
  const record = recordOf(planned, through, { kind: "eip712", signer: key.address, signature: key.sign(hash) });
  checkSignature(operation, record);
  return record;
}

/** A signature made elsewhere, and what is known of it. */
export interface ImportedSignature {
  readonly signature: Hex;
  /** Who signed; needed where the bytes alone do not tell, and for a contract's signature. */
  readonly signer?: string | undefined;
  /** The signer is a contract that checks signatures itself (EIP-1271). */
  readonly contract?: boolean | undefined;
  readonly through?: string | null | undefined;
  /** The addresses that can be meant: owners, as a chain says. */
  readonly owners?: readonly string[] | undefined;
}

/**
 * Takes a signature of a step that a device or an app made: over the typed data or over its hash as a message, with any of the last bytes that wallets
 * give; or a contract's own bytes.
 *
 * @throws KeysteadError `sign/signer-unknown` {candidates} where two signers are possible and neither is named or an owner, `sign/other-signer`
 * {candidates}, those of `checkSignature` and `recoverSigners`
 * @example
 * importSignature(operation, planned, { signature, signer: "0x70…C8" });
 */
export function importSignature(
  operation: Operation,
  planned: PlannedTransaction,
  given: ImportedSignature,
): SignatureRecord {
  const { signature, signer, contract = false, through = null, owners } = given;
  if (contract) {
    if (signer === undefined) {
      throw new KeysteadError("sign/signer-unknown", "a contract's signature does not tell whose it is", {
        argument: "signer",
        remedy: "Name the contract with --signer.",
        details: { candidates: [] },
      });
    }
    const record = recordOf(planned, through, { kind: "contract", signer, signature });
    checkSignature(operation, record);
    return record;
  }
  const candidates = recoverSigners(hashesToSign(operation.chainId, planned, through).safeTxHash, signature);
  const meant = candidates.filter((one) =>
    signer === undefined ? (owners?.includes(one.signer) ?? candidates.length === 1) : one.signer === signer,
  );
  const [found, other] = meant;
  if (found === undefined || other !== undefined) {
    const recovered = candidates.map((one) => one.signer);
    if (signer === undefined) {
      throw new KeysteadError("sign/signer-unknown", `the signature is of ${recovered.join(" or of ")}`, {
        argument: "signer",
        remedy: "Name the signer with --signer, or give --rpc so that the Safe's owners are known.",
        details: { candidates: recovered },
      });
    }
    throw new KeysteadError(
      "sign/other-signer",
      `it is not ${signer}'s signature of this, but of ${recovered.join(" or of ")}`,
      {
        argument: "signature",
        remedy: "Compare the hashes on the device with those shown here: step, nonce and Safe must be the same.",
        details: { candidates: recovered },
      },
    );
  }
  const record = recordOf(planned, through, found);
  checkSignature(operation, record);
  return record;
}

function recordOf(
  { name, safe, transaction, hashes }: PlannedTransaction,
  through: string | null,
  made: Pick<SignatureRecord, "kind" | "signer" | "signature">,
): SignatureRecord {
  const { nonce } = transaction;
  return { step: name, safe: safe.address, nonce, safeTxHash: hashes.safeTxHash, through, ...made };
}
