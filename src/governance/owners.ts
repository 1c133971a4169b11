import { type Block, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { KeysteadError } from "../core/errors.ts";
import { fetchSafe, type SafeOnChain } from "./safe-state.ts";
import { hasHashedContractSignatures, type SignatureRecord } from "./signatures.ts";
import type { PlannedTransaction } from "./transactions.ts";

/** Who may sign, as the chain says. */
export interface SignerCheck {
  readonly block: Block;
  readonly safe: SafeOnChain;
  /** The Safe whose owners may sign: the transaction's, or the owner of it in whose name is signed. */
  readonly owners: readonly string[];
  readonly of: string;
  /** The owner in whose name is signed, where that is a Safe. */
  readonly through?: SafeOnChain | undefined;
}

/**
 * Looks at a Safe before one of its transactions is signed: its release is the assumed one, its nonce has not passed, and the owner in whose name is signed
 * is one and can be asked.
 *
 * @param purpose `show`: an owner that cannot be asked about a signature may still approve on chain
 * @throws KeysteadError `safe/other-version`, `sign/nonce-used` {nonce}, `sign/not-an-owner`, `safe/owner-cannot-answer`; as `fetchSafe`
 * @example
 * const { owners } = await requireSignable(client, planned, null);
 */
export async function requireSignable(
  client: Client,
  planned: PlannedTransaction,
  through: string | null,
  purpose: "sign" | "show" = "sign",
): Promise<SignerCheck> {
  const block = await fetchBlock(client, "latest");
  const safe = await fetchSafe(client, block, planned.safe.address);
  requireVersion(safe, planned);
  if (safe.nonce > planned.transaction.nonce) {
    throw new KeysteadError(
      "sign/nonce-used",
      `Safe ${safe.address} is at nonce ${safe.nonce}: nothing with nonce ${planned.transaction.nonce} can be executed any more`,
      {
        argument: "nonce",
        remedy: `Sign for the next nonce: --nonce ${safe.nonce}.`,
        details: { nonce: safe.nonce },
      },
    );
  }
  if (through === null) return { block, safe, owners: safe.owners, of: safe.address };
  if (!safe.owners.includes(through)) throw notAnOwner(through, safe.address, safe.owners);
  const inner = await fetchSafe(client, block, through);
  if (purpose === "sign") requireAnswerable(safe, inner);
  return { block, safe, owners: inner.owners, of: through, through: inner };
}

/**
 * Refuses a Safe of another release than a proposal assumes: hashes and the choice of MultiSend depend on it.
 *
 * @throws KeysteadError `safe/other-version` {version, assumed}
 * @example
 * requireVersion(await fetchSafe(client, block, address), planned);
 */
export function requireVersion(safe: SafeOnChain, planned: PlannedTransaction): void {
  const assumed = planned.safe.version;
  if (safe.version === assumed) return;
  throw new KeysteadError(
    "safe/other-version",
    `Safe ${safe.address} is release ${safe.version}, the proposal assumes ${assumed}`,
    {
      argument: "safe.version",
      remedy: "Propose the operation again with the release that the Safe has.",
      details: { version: safe.version, assumed },
    },
  );
}

/**
 * Refuses where an owner that is a Safe cannot be asked about its signature: releases before 1.5.0 ask by a function that 1.5.0's handler lacks.
 *
 * @throws KeysteadError `safe/owner-cannot-answer`
 * @example
 * requireAnswerable(safe, child);
 */
export function requireAnswerable(safe: SafeOnChain, owner: SafeOnChain): void {
  if (hasHashedContractSignatures(safe.version) || !hasHashedContractSignatures(owner.version)) return;
  throw new KeysteadError(
    "safe/owner-cannot-answer",
    `Safe ${safe.version} asks its owners by isValidSignature(bytes,bytes), which Safe ${owner.version} at ${owner.address} does not answer`,
    {
      argument: "through",
      remedy: `Have Safe ${owner.address} approve the hash on chain: approveHash(safeTxHash) of Safe ${safe.address}.`,
      details: { safe: safe.address, owner: owner.address },
    },
  );
}

/**
 * Refuses a signature of somebody who is no owner.
 *
 * @throws KeysteadError `sign/not-an-owner` {owners}
 * @example
 * checkSigner(check, record);
 */
export function checkSigner(check: SignerCheck, { signer }: Pick<SignatureRecord, "signer">): void {
  if (!check.owners.includes(signer)) throw notAnOwner(signer, check.of, check.owners);
}

const notAnOwner = (account: string, safe: string, owners: readonly string[]) =>
  new KeysteadError("sign/not-an-owner", `${account} is no owner of Safe ${safe}`, {
    argument: "signer",
    remedy: `Sign with an owner: ${owners.join(", ")}.`,
    details: { owners },
  });
