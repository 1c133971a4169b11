import { keccak256 } from "ethers";
import { type Block, blockParameter, fetchBlock, unknownHeader } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { mapLimited } from "../chain/client.ts";
import { fetchStorageProof } from "../chain/proof.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";

/** What an endpoint said about one account. */
export interface Claim {
  readonly address: Hex;
  /** keccak256 of its code; undefined: nothing was said. */
  readonly codeHash: Hex | undefined;
  readonly slots: ReadonlyMap<Hex, bigint>;
}

/** What stands behind claims. */
export interface Basis {
  /** Every claim was proven against the block's state root. */
  readonly proven: boolean;
  /** Other endpoints that have the same block. */
  readonly witnesses: number;
  readonly reasons: readonly string[];
}

/** How claims are checked. */
export interface BasisOptions {
  /** Other endpoints of the same chain. */
  readonly witnesses?: readonly Client[] | undefined;
  /** Take the endpoint's word where nobody offers proofs. Default: refuse. */
  readonly acceptUnproven?: boolean | undefined;
  /** It narrows trust, and must not wait until a newer version can hash the chain's headers: taken unproven then, and said so. */
  readonly tightening?: boolean | undefined;
}

const EMPTY_CODE: Hex = "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470";
const CONCURRENCY = 4;

/**
 * Checks that other endpoints have the same block: only then is its state root more than one endpoint's word.
 *
 * @throws KeysteadError `chain/witness-disagrees`; `chain/no-block` (retryable) where one has not got so far
 * @example
 * await requireWitnesses([other], block);
 */
export async function requireWitnesses(witnesses: readonly Client[], block: Block): Promise<void> {
  for (const [i, witness] of witnesses.entries()) {
    const theirs = await fetchBlock(witness, block.number);
    if (theirs.hash === block.hash) continue;
    throw new KeysteadError(
      "chain/witness-disagrees",
      `block ${block.number} is ${block.hash} here and ${theirs.hash} at witness ${i + 1}`,
      {
        argument: "witness",
        remedy: "One of the two is wrong, or the chain was reorganised: try again, and ask a third.",
        details: { block: block.number, ours: block.hash, theirs: theirs.hash },
      },
    );
  }
}

/**
 * Proves what an endpoint said about accounts against the block's state root, by its own proofs or, where it has none, by a witness's. A claim that
 * its proof contradicts is an error, not a mismatch of the proposal: then nothing that the endpoint says can be judged. A block whose header does not hash
 * here proves nothing: that is as if nobody offered proofs, and is no obstacle to what narrows trust.
 *
 * @throws KeysteadError `chain/contradicts-proof` {address, slot}; `chain/moved` (retryable) where what was read holds no longer and only newer blocks are
 * proved; `chain/unproven` where nobody offers proofs and that is not accepted;
 * `proof/invalid`; as {@link requireWitnesses}
 * @example
 * const basis = await proveClaims(client, block, claims, { witnesses });
 */
export async function proveClaims(
  client: Client,
  block: Block,
  claims: readonly Claim[],
  { witnesses = [], acceptUnproven = false, tightening = false }: BasisOptions = {},
): Promise<Basis> {
  await requireWitnesses(witnesses, block);
  const proving = block.hashed ? await proveSomewhere([client, ...witnesses], block, claims, witnesses) : undefined;
  const why = block.hashed ? (proving?.why ?? "the endpoint offers no proofs") : unknownHeader(block).message;
  const alone =
    witnesses.length === 0 ? ["that the block is the chain's: no second endpoint was asked (--witness)"] : [];
  if (proving?.at !== undefined) {
    const elsewhere =
      proving.at.number === block.number ? [] : [`proven at block ${proving.at.number}: ${proving.why ?? ""}`];
    return { proven: true, witnesses: witnesses.length, reasons: [...elsewhere, ...alone] };
  }
  if (witnesses.length > 0) {
    await compareWitnesses(witnesses, block, claims);
    return { proven: false, witnesses: witnesses.length, reasons: [`${why}; the witness gives the same answers`] };
  }
  if (!acceptUnproven && !(tightening && isOfLaterFork(block))) {
    throw new KeysteadError("chain/unproven", `${why}, so the endpoint's answers are its word`, {
      argument: "rpc",
      remedy: block.hashed
        ? "Use an endpoint that offers eth_getProof, add --witness with another one, or --accept-unproven to take its word."
        : `${unknownHeader(block).remedy} Or add --witness with another endpoint, or --accept-unproven to take its word.`,
    });
  }
  return { proven: false, witnesses: 0, reasons: [`storage and code: ${why}`, ...alone] };
}

/** A header with fields that are not known here, and not one that was altered. */
const isOfLaterFork = ({ hashed, unknownFields = [] }: Block): boolean => !hashed && unknownFields.length > 0;

/** How often the newest block is taken where the endpoint proves no older one. */
const HEADS = 3;

/**
 * Proves at the block, with the first endpoint that can; where that one proves its newest blocks alone (reth does by default), at its newest: what is the same
 * there still holds.
 *
 * @returns where it was proven; undefined where nobody offers proofs
 */
async function proveSomewhere(
  provers: readonly Client[],
  block: Block,
  claims: readonly Claim[],
  witnesses: readonly Client[],
): Promise<{ readonly at?: Block; readonly why?: string }> {
  let why: string | undefined;
  for (const prover of provers) {
    try {
      await prover.request("eth_getProof", [`0x${"00".repeat(20)}`, [], blockParameter(block.number)]);
      await mapLimited(claims, CONCURRENCY, (claim) => proveClaim(prover, block, claim));
      return { at: block };
    } catch (error) {
      if (isKeysteadError(error, "chain/proof-window")) {
        why = error.message;
        const at = await proveAtHead(prover, claims, witnesses);
        if (at !== undefined) return { at, why };
      } else if (!isKeysteadError(error, "chain/unsupported") && !isKeysteadError(error, "chain/refused")) throw error;
    }
  }
  return why === undefined ? {} : { why };
}

async function proveAtHead(
  prover: Client,
  claims: readonly Claim[],
  witnesses: readonly Client[],
): Promise<Block | undefined> {
  for (let attempt = 1; attempt <= HEADS; attempt++) {
    const head = await fetchBlock(prover, "latest");
    if (!head.hashed) return undefined;
    try {
      await mapLimited(claims, CONCURRENCY, (claim) => proveClaim(prover, head, claim));
      await requireWitnesses(witnesses, head);
      return head;
    } catch (error) {
      if (isKeysteadError(error, "chain/contradicts-proof")) {
        throw new KeysteadError("chain/moved", `${error.message}: the state has changed since, or was never so`, {
          argument: "rpc",
          remedy: "Try again; if it stays, use another endpoint: this one gives false answers.",
          retryable: true,
          details: error.details,
          cause: error,
        });
      }
      if (!isKeysteadError(error, "chain/proof-window")) throw error;
    }
  }
  return undefined;
}

async function proveClaim(client: Client, block: Block, { address, codeHash, slots }: Claim): Promise<void> {
  const keys = [...slots.keys()];
  let proven: { readonly codeHash: Hex; readonly values: readonly bigint[] };
  try {
    proven = await fetchStorageProof(client, block, address, keys);
  } catch (error) {
    // the proof of an account that is not there proves that it has neither code nor storage
    const absent = isKeysteadError(error, "proof/invalid") && error.details.what === `there is no account ${address}`;
    if (!absent) throw error;
    proven = { codeHash: EMPTY_CODE, values: keys.map(() => 0n) };
  }
  const contradicts = (what: string, said: string, shown: string, slot?: Hex) =>
    new KeysteadError(
      "chain/contradicts-proof",
      `the endpoint says that ${what} is ${said}; its block commits to ${shown}`,
      {
        argument: "rpc",
        remedy: "Use another endpoint: this one gives false answers.",
        details: { address, slot, said, shown },
      },
    );
  if (codeHash !== undefined && codeHash !== proven.codeHash) {
    throw contradicts(`the code hash of ${address}`, codeHash, proven.codeHash);
  }
  for (const [i, slot] of keys.entries()) {
    const [said, shown] = [slots.get(slot) ?? 0n, proven.values[i] ?? 0n];
    if (said !== shown) {
      throw contradicts(`slot ${slot} of ${address}`, `0x${said.toString(16)}`, `0x${shown.toString(16)}`, slot);
    }
  }
}

async function compareWitnesses(witnesses: readonly Client[], block: Block, claims: readonly Claim[]): Promise<void> {
  const tag = blockParameter(block.number);
  for (const witness of witnesses) {
    await mapLimited(claims, CONCURRENCY, async ({ address, codeHash, slots }) => {
      const differs = (what: string) =>
        new KeysteadError("chain/witness-disagrees", `the witness gives another answer about ${what} of ${address}`, {
          argument: "witness",
          remedy: "One of the two is wrong: ask a third endpoint.",
          details: { address, block: block.number },
        });
      if (codeHash !== undefined) {
        const theirs = keccak256(String(await witness.request("eth_getCode", [address, tag])));
        if (theirs !== codeHash) throw differs("the code");
      }
      for (const [slot, value] of slots) {
        const theirs = BigInt(String(await witness.request("eth_getStorageAt", [address, slot, tag])));
        if (theirs !== value) throw differs(`slot ${slot}`);
      }
    });
  }
}
