import { concat, getAddress, hashMessage, recoverAddress, Signature, TypedDataEncoder } from "ethers";
import { decodeUtf8, fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { parseJson } from "../core/json.ts";
import { type Difference, differenceOf } from "./check.ts";
import { changedLineEnds, strayFile } from "./checkout.ts";
import { fieldReaders } from "./fields.ts";
import { formatJson, type Operation } from "./operation.ts";
import { hex, MAX_NONCE, type SafeHashes, type SafeVersion } from "./safe-hash.ts";
import { type PlannedTransaction, planStep, STEPS, type StepName } from "./transactions.ts";

/** The `format` of a signature's file. */
export const SIGNATURE_FORMAT = "keystead.signature/1";
/** The folder of a proposal that holds them: `signatures/<safeTxHash>/[<owner that is a Safe>/]<signer>.json`. */
export const SIGNATURES_FOLDER = "signatures/";

/**
 * How a signature was made: over the typed data's hash (`eip712`), over that hash as an Ethereum message (`eth_sign`, as devices without typed
 * data do), or by a contract's own rule (`contract`, EIP-1271), which only that contract can check.
 */
export const SIGNATURE_KINDS = ["eip712", "eth_sign", "contract"] as const;
export type SignatureKind = (typeof SIGNATURE_KINDS)[number];

/** One signature, as its file holds it. */
export interface SignatureRecord {
  readonly step: StepName;
  /** The Safe whose transaction is signed. */
  readonly safe: string;
  /** The nonce that the transaction was signed with. */
  readonly nonce: bigint;
  readonly safeTxHash: Hex;
  /** The owner of `safe` in whose name it was signed, where that owner is itself a Safe; else null. */
  readonly through: string | null;
  /** Who signed: an owner of `safe`, or of `through`. */
  readonly signer: string;
  readonly kind: SignatureKind;
  /** As Safe takes it: r ‖ s ‖ v with v 27 or 28 for `eip712`, 31 or 32 for `eth_sign`; the contract's own bytes for `contract`. */
  readonly signature: Hex;
}

/** A signature in a folder that belongs to one of the operation's steps. */
export interface FoundSignature extends SignatureRecord {
  /** Its file. */
  readonly file: string;
  /** Whether the signer follows from the signature itself; where not, only the signer's contract can tell. */
  readonly recovered: boolean;
}

/** The signatures of a folder, and what is wrong with any. */
export interface FoundSignatures {
  readonly signatures: readonly FoundSignature[];
  readonly differences: readonly Difference[];
}

const refuse = (field: string, rule: string, found: unknown) =>
  new KeysteadError("signature/malformed", `${field} ${rule}; found ${JSON.stringify(found)?.slice(0, 100)}`, {
    argument: field,
    remedy: "Take the file again from whoever signed, or sign again.",
    details: { field },
  });
const { object, uint, address, bytes, oneOf } = fieldReaders(refuse);

/** Longer than any contract's signature that is passed on here: a Safe of 50 owners. */
const MAX_SIGNATURE_BYTES = 8192;

/**
 * Reads a signature's file: every field checked, none unknown. Whether it signs what it says is {@link readSignatures}' to say.
 *
 * @throws KeysteadError `signature/malformed` {field}, and those of `parseJson`
 * @example
 * parseSignature(text).signer;
 */
export function parseSignature(text: string): SignatureRecord {
  const document = object(parseJson(text, "signature"), "signature", [
    ...["format", "step", "safe", "nonce", "safeTxHash", "through", "signer", "kind", "signature"],
  ]);
  if (document.format !== SIGNATURE_FORMAT) throw refuse("format", `must be ${SIGNATURE_FORMAT}`, document.format);
  const kind = oneOf(document.kind, "kind", SIGNATURE_KINDS);
  const signature = bytes(document.signature, "signature", kind === "contract" ? undefined : 65);
  if (signature.length > 2 + 2 * MAX_SIGNATURE_BYTES) throw refuse("signature", "is too long", signature.length);
  const nonce = uint(document.nonce, "nonce", 256n);
  if (nonce > MAX_NONCE) throw refuse("nonce", `must be at most ${MAX_NONCE}`, document.nonce);
  return {
    step: oneOf(document.step, "step", STEPS),
    safe: address(document.safe, "safe"),
    nonce,
    safeTxHash: bytes(document.safeTxHash, "safeTxHash", 32),
    through: document.through === null ? null : address(document.through, "through"),
    signer: address(document.signer, "signer"),
    ...{ kind, signature },
  };
}

/**
 * The text that {@link parseSignature} reads back.
 *
 * @example
 * writeFileSync(join(folder, signaturePath(record)), formatSignature(record));
 */
export function formatSignature(record: SignatureRecord): string {
  const { step, safe, nonce, safeTxHash, through, signer, kind, signature } = record;
  return formatJson({
    format: SIGNATURE_FORMAT,
    ...{ step, safe, nonce, safeTxHash, through, signer, kind, signature },
  });
}

/**
 * Where a signature lies in its proposal's folder: one place a signer, so that signing twice does not count twice.
 *
 * @example
 * signaturePath(record); // "signatures/0x8f…/0x70…C8.json"
 */
export function signaturePath({
  safeTxHash,
  through,
  signer,
}: Pick<SignatureRecord, "safeTxHash" | "through" | "signer">): string {
  return `${SIGNATURES_FOLDER}${safeTxHash}/${through === null ? "" : `${through}/`}${signer}.json`;
}

/**
 * What a signer signs: the Safe transaction itself, or, in the name of an owner that is a Safe, that Safe's message about it. What the message holds
 * depends on the release of the outer Safe: before 1.5.0 it asks its owner about the transaction's whole encoding (`0x1901 ‖ domain ‖ message`),
 * from 1.5.0 on about its hash (Safe's `checkNSignatures`; CompatibilityFallbackHandler's `SafeMessage(bytes message)`).
 *
 * @param planned the transaction and the Safe that makes it
 * @param through the owner that is a Safe, or null
 * @example
 * const { domainHash, messageHash } = hashesToSign(1n, planned, null); // what the device shows
 */
export function hashesToSign(chainId: bigint, planned: PlannedTransaction, through: string | null): SafeHashes {
  if (through === null) return planned.hashes;
  const { domainHash, messageHash, safeTxHash } = planned.hashes;
  const message = hasHashedContractSignatures(planned.safe.version)
    ? safeTxHash
    : concat(["0x1901", domainHash, messageHash]);
  const domain = { chainId, verifyingContract: through };
  const types = { SafeMessage: [{ name: "message", type: "bytes" }] };
  return {
    domainHash: hex(TypedDataEncoder.hashDomain(domain)),
    messageHash: hex(TypedDataEncoder.from(types).hash({ message })),
    safeTxHash: hex(TypedDataEncoder.hash(domain, types, { message })),
  };
}

/** Whether a Safe asks its contract owners by `isValidSignature(bytes32,bytes)`; earlier ones ask by `isValidSignature(bytes,bytes)`. */
export const hasHashedContractSignatures = (version: SafeVersion): boolean =>
  version !== "1.3.0" && version !== "1.4.1";

/** A signature of a key, in the form that Safe takes, and whose it is. */
export interface RecoveredSignature {
  readonly kind: "eip712" | "eth_sign";
  readonly signer: string;
  readonly signature: Hex;
}

/** r ‖ s ‖ v of a compact signature (EIP-2098), whose first bit of the second half is v's; any other as it is. */
function expandSignature(given: Uint8Array): Uint8Array {
  const top = given[32];
  if (given.length !== 64 || top === undefined) return given;
  const full = new Uint8Array(65);
  full.set(given);
  full[32] = top & 0x7f;
  full[64] = 27 + (top >> 7);
  return full;
}

/**
 * Everybody who may have made a 65-byte signature (or one of 64 bytes, EIP-2098) over a hash, by each way of signing that its last byte allows: 27, 28 (or 0, 1): over the hash
 * itself, or, as wallets give it, over the hash as an Ethereum message; 31, 32: Safe's own mark for the latter.
 *
 * @throws KeysteadError `signature/malformed` for other bytes, and for the twin that anyone can make of a signature (a high s)
 * @example
 * recoverSigners(hash, signature).map(({ signer }) => signer);
 */
export function recoverSigners(hash: Hex, signature: Hex): readonly RecoveredSignature[] {
  const given = expandSignature(fromHex(signature, "signature"));
  const v = given[64] ?? 0;
  if (given.length !== 65 || ![0, 1, 27, 28, 31, 32].includes(v)) {
    throw refuse(
      "signature",
      "must be 65 bytes that end in 00, 01, 1b, 1c, 1f or 20, or 64 bytes (EIP-2098)",
      signature,
    );
  }
  const parity = v % 2 === (v >= 27 ? 1 : 0) ? 0 : 1;
  const body = toHex(given.subarray(0, 64));
  const recover = (kind: "eip712" | "eth_sign"): RecoveredSignature => {
    const digest = kind === "eip712" ? hash : hashMessage(fromHex(hash, "hash"));
    try {
      const signer = recoverAddress(digest, Signature.from(`${body}${parity === 0 ? "1b" : "1c"}`));
      const last = (parity + (kind === "eip712" ? 27 : 31)).toString(16);
      return { kind, signer: getAddress(signer), signature: hex(`${body}${last}`) };
    } catch (cause) {
      throw refuse("signature", `is no signature of a key (${cause instanceof Error ? cause.message : ""})`, signature);
    }
  };
  return v >= 31 ? [recover("eth_sign")] : [recover("eip712"), recover("eth_sign")];
}

/**
 * The signatures in a proposal's folder, each checked as far as it can be without a chain: its file has the name that its content gives and the one
 * layout, its hash is that of the operation's own step, and a key's signature is the named signer's. Whether the signer is an owner, only the chain knows.
 *
 * @param files every file of the folder by name
 * @example
 * readSignatures(operation, files).signatures.filter(({ safeTxHash }) => safeTxHash === planned.hashes.safeTxHash);
 */
export function readSignatures(operation: Operation, files: ReadonlyMap<string, Uint8Array>): FoundSignatures {
  const signatures: FoundSignature[] = [];
  const differences: Difference[] = [];
  for (const [file, content] of files) {
    if (!file.startsWith(SIGNATURES_FOLDER)) continue;
    const stray = strayFile(file);
    if (stray !== undefined) {
      differences.push({ field: file, code: "verify/stray-file", message: stray });
      continue;
    }
    try {
      const text = decodeUtf8(content, file);
      const record = parseSignature(text);
      const recovered = checkSignature(operation, record);
      if (signaturePath(record) !== file) {
        const message = `it belongs in ${signaturePath(record)}`;
        differences.push({ field: file, code: "signature/other-place", message });
      } else if (formatSignature(record) !== text) {
        const lineEnds = changedLineEnds(formatSignature(record), text);
        const code = lineEnds === undefined ? "verify/differs" : "verify/line-ends";
        differences.push({ field: file, code, message: lineEnds ?? "it is not laid out as signatures are" });
      } else signatures.push({ ...record, file, recovered });
    } catch (error) {
      differences.push(differenceOf(error, file));
    }
  }
  return { signatures, differences };
}

/**
 * Checks that a signature is one of a step of this operation.
 *
 * @returns whether the signer follows from the signature itself
 * @throws KeysteadError `signature/other-transaction` {expected}, `signature/other-signer` {recovered}, those of `planStep` and {@link recoverSigners}
 * @example
 * checkSignature(operation, record);
 */
export function checkSignature(operation: Operation, record: SignatureRecord): boolean {
  const { step, safe, nonce, safeTxHash, through, signer, kind, signature } = record;
  const planned = planStep(operation, step, { safe, nonce });
  if (planned.hashes.safeTxHash !== safeTxHash) {
    throw new KeysteadError(
      "signature/other-transaction",
      `it signs ${safeTxHash}, but ${step} at nonce ${nonce} is ${planned.hashes.safeTxHash}`,
      {
        argument: "safeTxHash",
        remedy: "It signs something else: don't use it, and find out how it came here.",
        details: { expected: planned.hashes.safeTxHash },
      },
    );
  }
  if (through === safe || signer === safe || signer === through) {
    throw refuse("signer", "cannot be the Safe for which it signs", signer);
  }
  if (kind === "contract") {
    if (through === null) return false;
    throw refuse("kind", "must be that of a key: an owner's owner that is a contract approves on chain", kind);
  }
  const { safeTxHash: hash } = hashesToSign(operation.chainId, planned, through);
  const found = recoverSigners(hash, signature).find((candidate) => candidate.kind === kind);
  if (found?.signer !== signer || found.signature !== signature) {
    throw new KeysteadError(
      "signature/other-signer",
      `it is not a signature of ${signer}, but of ${found?.signer ?? "nobody"}`,
      {
        argument: "signature",
        remedy: "Take the file again from whoever signed, or sign again.",
        details: { recovered: found?.signer ?? null },
      },
    );
  }
  return true;
}
