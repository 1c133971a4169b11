import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { fetchStorageProof, type ProvenAccount } from "../chain/proof.ts";
import { readPolicy, readService } from "../chain/reads.ts";
import { decodePolicyCounters, decodeServiceWord, policySlots, serviceSlots, slotHex } from "../chain/slots.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, type KeysteadError } from "../core/errors.ts";
import type { HeadBasis } from "../core/history.ts";
import type { AuditFault, Reason } from "./result.ts";

/** What a history is held against: its head, how many events there were, and where the latest is. */
export interface Anchor {
  readonly head: Hex;
  readonly count: number;
  readonly lastUpdateBlock: number;
  readonly basis: HeadBasis;
  /** Why the basis is no proof. */
  readonly reasons: readonly Reason[];
  /** A false proof: nothing of this endpoint is to be believed. */
  readonly faults: readonly AuditFault[];
}

/** How often a proof that does not hold is asked for before it is called false. */
const PROOF_ATTEMPTS = 3;

/** Services proved by one call: two slots each. */
const SERVICES_PER_PROOF = 64;

/**
 * Fetches the anchors of services: by storage proof where the endpoint offers that, otherwise by view, saying so.
 *
 * @returns one anchor a service, in the order given
 * @throws KeysteadError when the endpoint can't be asked at all
 * @example
 * const [anchor] = await fetchServiceAnchors(client, block, registry, [serviceId]);
 */
export async function fetchServiceAnchors(
  client: Client,
  block: Block,
  registry: Hex,
  serviceIds: readonly Hex[],
): Promise<readonly Anchor[]> {
  const anchors: Anchor[] = [];
  for (let at = 0; at < serviceIds.length; at += SERVICES_PER_PROOF) {
    const ids = serviceIds.slice(at, at + SERVICES_PER_PROOF);
    const slots = ids.flatMap((id) => [serviceSlots(id).word, serviceSlots(id).head]);
    const proof = await tryProof(client, block, registry, slots);
    for (const [index, id] of ids.entries()) {
      if ("values" in proof) {
        const [word = 0n, head = 0n] = proof.values.slice(2 * index);
        const { sequence, lastUpdateBlock } = decodeServiceWord(word);
        anchors.push({
          head: slotHex(head),
          count: sequence,
          lastUpdateBlock,
          basis: "proof",
          reasons: [],
          faults: [],
        });
      } else {
        const view = await readService(client, registry, block, id);
        const { historyHead: head, sequence: count, lastUpdateBlock } = view;
        anchors.push({ head, count, lastUpdateBlock, basis: "view", ...proof });
      }
    }
  }
  return anchors;
}

/**
 * Fetches the policy's anchor.
 *
 * @throws KeysteadError when the endpoint can't be asked at all
 * @example
 * (await fetchPolicyAnchor(client, block, policy)).basis; // "proof"
 */
export async function fetchPolicyAnchor(client: Client, block: Block, policy: Hex): Promise<Anchor> {
  const slots = policySlots();
  const proof = await tryProof(client, block, policy, [slots.head, slots.counters]);
  if ("values" in proof) {
    const [head = 0n, counters = 0n] = proof.values;
    const { policyVersion: count, lastUpdateBlock } = decodePolicyCounters(counters);
    return { head: slotHex(head), count, lastUpdateBlock, basis: "proof", reasons: [], faults: [] };
  }
  const { historyHead: head, policyVersion: count, lastUpdateBlock } = await readPolicy(client, policy, block);
  return { head, count, lastUpdateBlock, basis: "view", ...proof };
}

/** Why there is no proof: the endpoint offers none, or a false one. */
export interface NoProof {
  readonly reasons: readonly Reason[];
  readonly faults: readonly AuditFault[];
}

/**
 * A storage proof where the endpoint offers one that holds; otherwise why there is none.
 *
 * @param slots 32 bytes each
 * @throws KeysteadError when the endpoint can't be asked at all; `chain/proof-window` where the block is too old for its proofs
 * @example
 * const proof = await tryProof(client, block, registry, [slot]);
 * if ("values" in proof) console.log(proof.values);
 */
export async function tryProof(
  client: Client,
  block: Block,
  address: Hex,
  slots: readonly Hex[],
): Promise<ProvenAccount | NoProof> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await fetchStorageProof(client, block, address, slots);
    } catch (error) {
      // Out of its proof window: whoever chose the block may choose a newer one.
      if (!isKeysteadError(error) || error.retryable || error.code === "chain/proof-window") throw error;
      if (error.code !== "proof/invalid") return { reasons: [reasonOf(error)], faults: [] };
      if (attempt === PROOF_ATTEMPTS) return { reasons: [], faults: [{ code: "false-proof", message: error.message }] };
      // An honest node that is just adding a block, or one of several behind one address, may prove another block's state.
      await new Promise((resolve) => setTimeout(resolve, 50 * attempt));
    }
  }
}

function reasonOf(error: KeysteadError): Reason {
  const code = error.code === "proof/unknown-header" ? "unknown-header" : "no-storage-proof";
  return { code, message: error.message };
}
