import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { callView, REGISTRY } from "../chain/reads.ts";
import { servicesSlots, slotHex } from "../chain/slots.ts";
import type { Hex } from "../core/bytes.ts";
import { EMPTY_HEAD, foldServices, type HeadBasis, type Verdict } from "../core/history.ts";
import { type NoProof, tryProof } from "./anchor.ts";
import type { AuditFault, Reason } from "./result.ts";

/*
 * Whether a list of services is every service that the registry has: creations are chained, as the events of each service are, and one proof of the chain's
 * head says that none was left out, added or moved.
 */

/** A list of services held against the registry's chain of creations. */
export interface ServiceSet {
  /** `proven`: the list is complete and in order · `consistent`: the same on the endpoint's word · `broken`: it is not. */
  readonly verdict: Verdict;
  readonly basis: HeadBasis;
  /** What the list folds to. */
  readonly head: Hex;
  /** How many services the registry counts. */
  readonly count: number;
  readonly faults: readonly AuditFault[];
  /** Why it is not proven. */
  readonly reasons: readonly Reason[];
}

/** What the registry says about all its services at a block. */
interface SetAnchor extends NoProof {
  readonly head: Hex;
  readonly count: number;
  readonly basis: HeadBasis;
}

/**
 * Holds the services of some creations against the registry's chain over all of them.
 *
 * @param created the services' ids in order of their creation
 * @param before the head of those created earlier; default: there are none
 * @throws KeysteadError when the endpoint can't be asked at all
 * @example
 * const { verdict, faults } = await auditServiceSet(client, block, registry, ids);
 */
export async function auditServiceSet(
  client: Client,
  block: Block,
  registry: Hex,
  created: readonly Hex[],
  before: { readonly head: Hex; readonly count: number } = { head: EMPTY_HEAD, count: 0 },
): Promise<ServiceSet> {
  const anchor = await fetchSetAnchor(client, block, registry);
  const head = foldServices(created, before.head);
  const listed = before.count + created.length;
  const faults = [...anchor.faults];
  if (faults.length === 0 && (head !== anchor.head || listed !== anchor.count)) {
    const missing = anchor.count - listed;
    const message =
      missing > 0
        ? `the registry counts ${anchor.count} services, and ${missing} of them are withheld or were created before the block where the scan begins`
        : `the ${listed} services that the endpoint shows are not the ${anchor.count} that the registry chains`;
    faults.push({ code: missing > 0 ? "withheld" : "head-mismatch", message });
  }
  const verdict = faults.length !== 0 ? "broken" : anchor.basis === "proof" ? "proven" : "consistent";
  return { verdict, basis: anchor.basis, head, count: anchor.count, faults, reasons: anchor.reasons };
}

async function fetchSetAnchor(client: Client, block: Block, registry: Hex): Promise<SetAnchor> {
  const slots = servicesSlots();
  const proof = await tryProof(client, block, registry, [slots.head, slots.count]);
  if ("values" in proof) {
    const [head = 0n, count = 0n] = proof.values;
    return { head: slotHex(head), count: Number(count), basis: "proof", reasons: [], faults: [] };
  }
  const [head] = await callView(client, REGISTRY, registry, block, "servicesHead", []);
  const [count] = await callView(client, REGISTRY, registry, block, "serviceCount", []);
  return { head: String(head).toLowerCase() as Hex, count: Number(count), basis: "view", ...proof };
}
