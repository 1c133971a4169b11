import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { type LocatedLog, locateLogs, scanLogs, walkLogs } from "../chain/logs.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { decodePolicyEvent, isGovernedLog, type RawLog } from "../core/events.ts";
import { verifyPolicyHistory } from "../core/history.ts";
import { rebuildPolicy } from "../core/policy-state.ts";
import { fetchPolicyAnchor } from "./anchor.ts";
import { comparePolicy, compareTwice } from "./rebuild.ts";
import { concludeAudit, type PolicyAudit } from "./result.ts";
import { parseAddress, type ReadOptions, readAt, requirePointers, timed } from "./walk.ts";

/**
 * Audits the policy: as `auditService` does a service.
 *
 * @param policy the proxy
 * @throws KeysteadError as `auditService`
 * @example
 * const { verdict, state } = await auditPolicy(client, policy);
 */
export async function auditPolicy(client: Client, policy: Hex, options: ReadOptions = {}): Promise<PolicyAudit> {
  const address = parseAddress(policy, "policy");
  return readAt(client, options, (block) => auditPolicyAt(client, address, block, options));
}

/**
 * The same at a block that the caller has fetched and will look at again.
 *
 * @throws KeysteadError as {@link auditPolicy}
 * @example
 * await readAt(client, {}, (block) => auditPolicyAt(client, policy, block, {}));
 */
export async function auditPolicyAt(
  client: Client,
  policy: Hex,
  block: Block,
  options: ReadOptions,
): Promise<PolicyAudit> {
  const anchor = await fetchPolicyAnchor(client, block, policy);
  const chained = (log: RawLog) => !isGovernedLog(log);
  const filter = { address: policy };
  let located: readonly LocatedLog[];
  if (options.fromBlock === undefined) {
    requirePointers(client);
    located = await walkLogs(client, filter, anchor.lastUpdateBlock, anchor.count, policyPointer, chained);
  } else {
    const logs = await scanLogs(client, filter, options.fromBlock, block.number, options);
    located = await locateLogs(client, logs.filter(chained));
  }
  const { chainId } = client;
  const logs = located.map(({ log }) => log);
  const verified = verifyPolicyHistory({ chainId, logs }, { ...anchor, chainId, address: policy });
  const entries = timed(verified.entries, located);
  const state = verified.verdict === "broken" ? undefined : rebuildPolicy(entries);
  const differences = state === undefined ? [] : await compareTwice(() => comparePolicy(client, policy, block, state));
  const notUnderstood = state?.notUnderstood ?? [];
  return concludeAudit({ anchor, block, verified, entries, state, differences, notUnderstood });
}

function policyPointer(log: RawLog): number | undefined {
  try {
    return decodePolicyEvent(log).args.previousBlock;
  } catch (error) {
    if (isKeysteadError(error, "event/unknown")) {
      throw new KeysteadError("audit/needs-scan", "the history holds an event that this version does not know", {
        argument: "fromBlock",
        remedy: "Give the block in which the contract was deployed, or upgrade keystead.",
        cause: error,
      });
    }
    if (isKeysteadError(error)) return undefined;
    throw error;
  }
}
