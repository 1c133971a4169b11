import { auditPolicy } from "../audit/policy.ts";
import type { Audit } from "../audit/result.ts";
import { auditService, type ReadOptions } from "../audit/walk.ts";
import { type Block, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import type { KmsIdentity } from "../core/policy-state.ts";
import type { KeyRelease } from "../core/release.ts";
import type { ServiceState } from "../core/state.ts";

/*
 * What the machine itself reads from the chain: who may sign receipts, whether a receipt's block is the chain's, what a service has published. All of it from
 * histories that src/audit verified: an endpoint that lies is found out, or says that it offers no proof.
 */

/** The chain as the machine sees it. */
export interface AgentChain {
  readonly client: Client;
  readonly registry: Hex;
  readonly read: ReadOptions;
  /** Takes the word of an endpoint that offers no storage proofs. */
  readonly acceptUnproven: boolean;
  /** How far the block that is read may be from this machine's time, in seconds. Default: any. */
  readonly maxAge?: number | undefined;
}

/**
 * The KMS identities that the policy names now.
 *
 * @throws KeysteadError `agent/history` where the policy's history does not verify; `chain/unproven`; `chain/not-now` (retryable); `chain/…`
 * @example
 * const signers = new Set((await fetchKmsIdentities(chain, policy)).map(({ receiptSigner }) => receiptSigner));
 */
export async function fetchKmsIdentities(chain: AgentChain, policy: Hex): Promise<readonly KmsIdentity[]> {
  const audit = await auditPolicy(chain.client, policy, chain.read);
  const state = requireState("the policy's history", audit, chain);
  return [...state.kmsIdentities.values()].filter((identity) => identity.state === "allowed");
}

/** A service's state, and the time of the block that it was read at, in seconds since 1970. */
export interface ServiceNow extends ServiceState {
  readonly at: number;
}

/**
 * A service's state now.
 *
 * @throws KeysteadError `agent/history`, `audit/no-service`, `chain/unproven`, `chain/not-now` (retryable), `chain/…`
 * @example
 * const env = secretsAt(service, service.at).get("env"); // where service = await fetchService(chain, serviceId)
 */
export async function fetchService(chain: AgentChain, serviceId: Hex): Promise<ServiceNow> {
  const audit = await auditService(chain.client, chain.registry, serviceId, chain.read);
  return { ...requireState("the service's history", audit, chain), at: audit.block.timestamp };
}

/**
 * Checks that secrets are not going to be sealed to a key of an epoch that is over: a node's answer is signed for good, and whoever is on the way can give an
 * old one again, after a rotation that was made because that epoch's keys are known to somebody.
 *
 * @param toCome whether the service may not be there yet: its first epoch is 0
 * @throws KeysteadError `secrets/old-epoch` {keyEpoch, current} (retryable); as {@link fetchService}
 * @example
 * await requireCurrentEpoch(chain, key, false);
 */
export async function requireCurrentEpoch(
  chain: AgentChain,
  { serviceId, keyEpoch }: { readonly serviceId: Hex; readonly keyEpoch: number },
  toCome: boolean,
): Promise<void> {
  let current = 0;
  try {
    current = (await fetchService(chain, serviceId)).keyEpoch;
  } catch (error) {
    if (!toCome || !isKeysteadError(error, "audit/no-service")) throw error;
  }
  if (keyEpoch >= current) return;
  throw new KeysteadError("secrets/old-epoch", `the key is of epoch ${keyEpoch}, and the service is at ${current}`, {
    argument: "key",
    remedy:
      "Ask a node again; right after a rotation, once it is final. If a node goes on giving the old key, ask another.",
    retryable: true,
    details: { keyEpoch, current },
  });
}

/**
 * Checks that a receipt's block is one of the chain's, and its image one that the service's history lists.
 *
 * @throws KeysteadError `receipt/other-block` {number, expected, actual}, `receipt/unknown-image` {imageId}; `chain/…`
 * @example
 * checkRelease(chain, release, await fetchService(chain, serviceId));
 */
export async function checkRelease(chain: AgentChain, release: KeyRelease, service: ServiceState): Promise<void> {
  const number = Number(release.blockNumber);
  let hash: Hex | undefined;
  try {
    ({ hash } = await fetchBlock(chain.client, number));
  } catch (error) {
    if (!isKeysteadError(error, "chain/no-block")) throw error;
  }
  if (hash !== release.blockHash) {
    throw new KeysteadError("receipt/other-block", `block ${number} of the receipt is not this chain's`, {
      argument: "receipt",
      remedy: "The node and this machine's endpoint see different chains: find out which of them is wrong.",
      retryable: hash === undefined,
      details: { number, expected: hash, actual: release.blockHash },
    });
  }
  if (service.images.has(release.imageId)) return;
  throw new KeysteadError("receipt/unknown-image", `the service never listed image ${release.imageId}`, {
    argument: "receipt",
    remedy: "Do not use this node: it released keys for an image that the chain does not know.",
    details: { imageId: release.imageId },
  });
}

function requireState<S, E>(what: string, audit: Audit<S, E>, chain: AgentChain): S {
  const { verdict, state, faults, reasons } = audit;
  // A false proof and views that contradict the history leave a state behind, and are broken all the same.
  if (verdict === "broken" || state === undefined) {
    const codes = faults.map(({ code }) => code);
    throw new KeysteadError("agent/history", `${what} does not verify: ${codes.join(", ")}`, {
      argument: "rpc",
      remedy: "Do not use this endpoint: it alters or withholds history.",
      details: { faults: codes },
    });
  }
  requireRecent(audit.block, chain);
  const codes = reasons.map(({ code }) => code);
  const unknown = codes.includes("unknown-events");
  if (verdict === "proven" || (chain.acceptUnproven && !unknown)) return state;
  throw new KeysteadError("chain/unproven", `${what} is not proven: ${codes.join(", ")}`, {
    argument: "rpc",
    remedy: unknown
      ? "Upgrade keystead."
      : "Use an endpoint that offers eth_getProof, or add --accept-unproven to take this one's word.",
    details: { reasons: codes },
  });
}

/** An endpoint that stands still shows who could sign, and what was published, then: a revocation since would not be seen. */
function requireRecent({ number, timestamp }: Block, { maxAge }: AgentChain): void {
  const clock = Math.round(Date.now() / 1000);
  if (maxAge === undefined || Math.abs(clock - timestamp) <= maxAge) return;
  throw new KeysteadError("chain/not-now", `block ${number} is not of this machine's time`, {
    argument: "rpc",
    remedy: "Use an endpoint that keeps up and check the clock; where the chain is really like this, raise --max-age.",
    retryable: true,
    details: { blockTime: timestamp, clock, maxAge },
  });
}
