import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { decodePolicyEvent, isGovernedLog, type RawLog } from "../core/events.ts";
import { verifyPolicyHistory } from "../core/history.ts";
import { rebuildPolicy } from "../core/policy-state.ts";
import { type Anchor, fetchPolicyAnchor } from "./anchor.ts";
import { type HistorySource, judgeLogs, readHistoryLogs } from "./history-logs.ts";
import { comparePolicy, compareTwice } from "./rebuild.ts";
import { concludeAudit, type PolicyAudit } from "./result.ts";
import { parseAddress, type ReadOptions, readAt, timed } from "./walk.ts";

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
  return readAt(client, options, (block, client, options) => auditPolicyAt(client, address, block, options));
}

/**
 * The same at a block that the caller has fetched and will look at again.
 *
 * @param known the anchor at that block, where it was fetched already
 * @throws KeysteadError as {@link auditPolicy}
 * @example
 * await readAt(client, {}, (block) => auditPolicyAt(client, policy, block, {}));
 */
export async function auditPolicyAt(
  client: Client,
  policy: Hex,
  block: Block,
  options: ReadOptions,
  known?: Anchor,
): Promise<PolicyAudit> {
  const anchor = known ?? (await fetchPolicyAnchor(client, block, policy));
  const source: HistorySource = {
    filter: { address: policy },
    pointerOf: policyPointer,
    keep: (log) => !isGovernedLog(log),
  };
  const fetched = await readHistoryLogs(client, block, anchor, source, options);
  const { chainId } = client;
  const expected = { ...anchor, chainId, address: policy };
  const judged = await judgeLogs(client, block, anchor, source, fetched, options.fromBlock, (logs, numberAt) =>
    verifyPolicyHistory({ chainId, logs }, { ...expected, numberAt }),
  );
  const { verified } = judged;
  const entries = timed(judged, anchor);
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
