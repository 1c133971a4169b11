import { keccak_256 } from "@noble/hashes/sha3.js";
import { decodeRlp } from "ethers/utils";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { type Block, blockParameter, unknownHeader } from "./block.ts";
import type { Client } from "./client.ts";

/*
 * Storage proofs (EIP-1186) checked against a block's state root: Merkle-Patricia tries as the Yellow Paper's appendix D defines them. The walk is this
 * project's own and short; hashing and RLP are libraries'. Every node is found by its hash, so what is believed is the root alone.
 */

/** What a proof says about an account. */
export interface ProvenAccount {
  /** keccak-256 of its code. */
  readonly codeHash: Hex;
  /** The values asked for, in that order; zero where nothing is stored. */
  readonly values: readonly bigint[];
}

/** An endpoint's answer to `eth_getProof`, unchecked. */
export interface AccountProof {
  readonly accountProof: readonly string[];
  readonly storageProof: readonly { readonly key: string; readonly proof: readonly string[] }[];
}

/**
 * Fetches an account's proof for some of its slots at a block, and verifies it.
 *
 * @param slots 32 bytes each
 * @throws KeysteadError `chain/unsupported` where the endpoint offers no proofs; `proof/unknown-header` where the block's header could not be hashed
 * here; `proof/invalid` {what} for a proof that proves nothing; as {@link Client.request}
 * @example
 * const { values } = await fetchStorageProof(client, block, registry, [serviceSlots(id).head]);
 */
export async function fetchStorageProof(
  client: Client,
  block: Block,
  address: Hex,
  slots: readonly Hex[],
): Promise<ProvenAccount> {
  if (!block.hashed) throw unknownHeader(block);
  const answer = await client.request("eth_getProof", [address, slots, blockParameter(block.number)]);
  return verifyStorageProof(block.stateRoot, address, slots, answer as AccountProof);
}

/**
 * Verifies a proof against a state root. Total: whatever an endpoint answers gives values that the root commits to, or an error.
 *
 * @throws KeysteadError `proof/invalid` {what}
 * @example
 * const { codeHash, values } = verifyStorageProof(block.stateRoot, registry, [slot], answer);
 */
export function verifyStorageProof(
  stateRoot: Hex,
  address: Hex,
  slots: readonly Hex[],
  answer: AccountProof,
): ProvenAccount {
  if (!Array.isArray(answer?.accountProof) || !Array.isArray(answer.storageProof))
    throw invalid("the answer is no proof");
  const account = lookUp(stateRoot, fromHex(address, "address"), answer.accountProof, "account");
  if (account === undefined) throw invalid(`there is no account ${address}`);
  const fields = decode(account, "account");
  const [, , storageHash, codeHash] = Array.isArray(fields) ? fields : [];
  if (!isHex32(storageHash) || !isHex32(codeHash)) throw invalid("the account is malformed");
  const values = slots.map((slot, at) => {
    const proof = answer.storageProof[at]?.proof;
    if (!Array.isArray(proof)) throw invalid(`slot ${slot} has no proof`);
    const stored = lookUp(storageHash, fromHex(slot, "slot"), proof, `slot ${slot}`);
    if (stored === undefined) return 0n;
    const value = decode(stored, "value");
    if (typeof value !== "string" || value.length > 66) throw invalid(`the value of slot ${slot} is malformed`);
    return value === "0x" ? 0n : BigInt(value);
  });
  return { codeHash, values };
}

type Rlp = string | readonly Rlp[];
/** No trie that hashes its keys is deeper than their 64 nibbles. */
const MAX_NODES = 65;
/** Characters of a node in hex: a branch of sixteen hashes and a value has 532 bytes, and nothing of ours is longer. */
const MAX_NODE = 2 + 2 * 1024;
const EMPTY_TRIE = toHex(keccak_256(Uint8Array.of(0x80)));

/** The value under a key in a secure trie, or undefined where the proof shows that there is none. */
function lookUp(root: Hex, key: Uint8Array, proof: readonly unknown[], what: string): string | undefined {
  if (proof.length > MAX_NODES) throw invalid(`the proof of the ${what} has too many nodes`);
  if (root === EMPTY_TRIE) return undefined;
  const path = toHex(keccak_256(key)).slice(2);
  let next: Rlp = root;
  let depth = 0;
  let used = 0;
  for (;;) {
    let node: Rlp = next;
    if (typeof next === "string") {
      // A reference by hash: the next node of the proof must be its preimage.
      const bytes = proof[used++];
      if (typeof bytes !== "string" || bytes.length > MAX_NODE || hashOf(bytes, what) !== next)
        throw invalid(`node ${used} of the ${what}'s proof is not the one referred to`);
      node = decode(bytes, what);
    }
    if (typeof node === "string") throw invalid(`a node of the ${what}'s proof is no list`);
    if (node.length === 17) {
      if (depth === path.length) return textOf(node[16], what);
      next = node[Number.parseInt(path[depth++] ?? "", 16)] ?? "";
    } else if (node.length === 2) {
      const encoded = textOf(node[0], what) ?? "";
      const flag = Number.parseInt(encoded.slice(2, 3), 16);
      if (!(flag <= 3)) throw invalid(`a path in the ${what}'s proof is malformed`);
      const nibbles = encoded.slice(flag % 2 === 1 ? 3 : 4);
      const matches = path.startsWith(nibbles, depth);
      if (flag >= 2) return matches && depth + nibbles.length === path.length ? textOf(node[1], what) : undefined;
      if (!matches) return undefined;
      depth += nibbles.length;
      next = node[1] ?? "";
    } else throw invalid(`a node of the ${what}'s proof has ${node.length} items`);
    if (next === "0x") return undefined;
    if (typeof next === "string" && !isHex32(next)) throw invalid(`a reference in the ${what}'s proof is malformed`);
  }
}

function textOf(item: Rlp | undefined, what: string): string | undefined {
  if (typeof item !== "string") throw invalid(`a value in the ${what}'s proof is a list`);
  return item === "0x" ? undefined : item;
}

function hashOf(hex: string, what: string): Hex {
  try {
    return toHex(keccak_256(fromHex(hex, what)));
  } catch (cause) {
    if (isKeysteadError(cause)) throw invalid(`a node of the ${what}'s proof is no hex`);
    throw cause;
  }
}

function decode(hex: string, what: string): Rlp {
  try {
    return decodeRlp(hex) as Rlp;
  } catch (cause) {
    throw invalid(`a part of the ${what}'s proof is no RLP`, cause);
  }
}

function isHex32(value: Rlp | undefined): value is Hex {
  return typeof value === "string" && /^0x[0-9a-f]{64}$/.test(value);
}

function invalid(what: string, cause?: unknown): KeysteadError {
  return new KeysteadError("proof/invalid", `the storage proof proves nothing: ${what}`, {
    remedy: "Use another endpoint: this one hands out false proofs.",
    details: { what },
    cause,
  });
}
