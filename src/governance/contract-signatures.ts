import { concat, Interface } from "ethers";
import { type Block, blockParameter } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { hasHashedContractSignatures, type SignatureRecord } from "./signatures.ts";
import type { PlannedTransaction } from "./transactions.ts";

/** EIP-1271, and the form before it that Safes up to 1.4.1 ask their owners by; each answers its own selector. */
const HASHED = new Interface(["function isValidSignature(bytes32 hash, bytes signature) view returns (bytes4)"]);
const WHOLE = new Interface(["function isValidSignature(bytes data, bytes signature) view returns (bytes4)"]);

/**
 * Why a contract's signature of a Safe transaction does not count: no contract is there, or, asked in the way in which the Safe will ask, it says no.
 *
 * @returns undefined where it counts
 * @throws KeysteadError as `Client.request`
 * @example
 * await findContractRefusal(client, block, planned, signer, signature); // "there is no contract at 0x…"
 */
export async function findContractRefusal(
  client: Client,
  block: Block,
  { safe, hashes }: Pick<PlannedTransaction, "safe" | "hashes">,
  signer: string,
  signature: Hex,
): Promise<string | undefined> {
  const tag = blockParameter(block.number);
  const code = String(await client.request("eth_getCode", [signer, tag])).toLowerCase();
  if (code === "0x") return `there is no contract at ${signer} that could answer for it`;
  const { domainHash, messageHash, safeTxHash } = hashes;
  const hashed = hasHashedContractSignatures(safe.version);
  const abi = hashed ? HASHED : WHOLE;
  const subject = hashed ? safeTxHash : concat(["0x1901", domainHash, messageHash]);
  const data = abi.encodeFunctionData("isValidSignature", [subject, signature]);
  const magic = abi.getFunction("isValidSignature")?.selector;
  try {
    const answer = String(await client.request("eth_call", [{ to: signer, data }, tag])).toLowerCase();
    if (answer.slice(0, 10) === magic && answer.length === 66) return undefined;
    return `${signer} does not answer that it is its own (EIP-1271)`;
  } catch (error) {
    if (!isKeysteadError(error, "chain/reverted")) throw error;
    return `${signer} refuses it (EIP-1271)`;
  }
}

/**
 * Refuses a contract's signature that does not count.
 *
 * @throws KeysteadError `sign/not-its-own` {signer}; as `Client.request`
 * @example
 * await requireContract(client, check.block, planned, record);
 */
export async function requireContract(
  client: Client,
  block: Block,
  planned: PlannedTransaction,
  { kind, through, signer, signature }: SignatureRecord,
): Promise<void> {
  if (kind !== "contract" || through !== null) return;
  const why = await findContractRefusal(client, block, planned, signer, signature);
  if (why === undefined) return;
  throw new KeysteadError("sign/not-its-own", why, {
    argument: "signature",
    remedy: "Take the bytes that the contract itself accepts, or have it approve the hash on chain.",
    details: { signer },
  });
}
