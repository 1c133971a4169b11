import type { Block } from "../chain/block.ts";
import { type Client, limitClient, mapLimited } from "../chain/client.ts";
import { reorg } from "../chain/logs.ts";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { RawLog } from "../core/events.ts";
import type { Verdict } from "../core/history.ts";
import { auditSuite, type SuiteAudit } from "./all.ts";
import { auditPolicy } from "./policy.ts";
import { type PolicyAudit, type ServiceAudit, worstVerdict } from "./result.ts";
import { orScan, type StandingOptions } from "./standing.ts";
import { auditService, readAt } from "./walk.ts";

/** Services read at the same time. */
const SERVICES_AT_ONCE = 4;
/** Calls under way at the same time, over all of them. */
const CALLS_AT_ONCE = 8;

/** What to inspect. */
export interface Subjects {
  /** The registry's proxy; needed for services. */
  readonly registry?: Hex | undefined;
  /** The policy's proxy; needed for the policy and for all services. */
  readonly policy?: Hex | undefined;
  /** `all` takes the policy too, and scans. */
  readonly services: "all" | readonly Hex[];
  readonly withPolicy?: boolean | undefined;
}

/** What was found, all at one block. */
export interface Inspection {
  readonly chainId: number;
  readonly block: Block;
  /** The worst of all verdicts. */
  readonly verdict: Verdict;
  readonly policy: PolicyAudit | undefined;
  readonly services: readonly ServiceAudit[];
  /** Whether every service of the registry was looked for. */
  readonly all: boolean;
  /** As in {@link SuiteAudit}; undefined unless `all`. */
  readonly code: SuiteAudit["code"] | undefined;
  /** As in {@link SuiteAudit}; undefined unless `all`. */
  readonly set: SuiteAudit["set"] | undefined;
  readonly unaccounted: readonly RawLog[];
  /** JSON-RPC calls that it took. */
  readonly calls: number;
}

/**
 * Audits what is named, at one block: some services, the policy, or everything.
 *
 * @throws KeysteadError `audit/no-subject` {needs} where an address is missing; `audit/needs-start` where everything is to be scanned and no first block is
 * known; as `auditSuite`, `auditService`, `auditPolicy`
 * @example
 * const { verdict, services } = await inspect(client, { registry, services: [serviceId] });
 */
export async function inspect(client: Client, subjects: Subjects, options: StandingOptions = {}): Promise<Inspection> {
  const { registry, policy, services, withPolicy = false } = subjects;
  if (services === "all") {
    const suite = await auditSuite(client, {
      ...options,
      registry: required(registry, "registry"),
      policy: required(policy, "policy"),
      fromBlock: requireStart(options),
    });
    return { ...suite, all: true };
  }
  const before = client.calls();
  return readAt(client, options, async (block, client, options) => {
    const here = { ...options, at: block.number, witnesses: [], within: true };
    const same = <A extends { readonly block: Block }>(audit: A): A => {
      if (audit.block.hash !== block.hash) throw reorg(block.number);
      return audit;
    };
    const gentle = limitClient(client, CALLS_AT_ONCE);
    const audits = await mapLimited(services, SERVICES_AT_ONCE, async (id) => {
      const address = required(registry, "registry");
      return same(await orScan(options, (fromBlock) => auditService(gentle, address, id, { ...here, fromBlock })));
    });
    const read = (fromBlock: number | undefined) =>
      auditPolicy(client, required(policy, "policy"), { ...here, fromBlock });
    const rules = withPolicy ? same(await orScan(options, read)) : undefined;
    const verdict = worstVerdict([...audits, ...(rules === undefined ? [] : [rules])].map((audit) => audit.verdict));
    const calls = client.calls() - before;
    const rest = { all: false, code: undefined, set: undefined, unaccounted: [] };
    return { chainId: client.chainId, block, verdict, policy: rules, services: audits, calls, ...rest };
  });
}

function requireStart({ fromBlock, deployedAt }: StandingOptions): number {
  const start = fromBlock ?? deployedAt;
  if (start !== undefined) return start;
  throw new KeysteadError(
    "audit/needs-start",
    "to find all services the chain is scanned, from a block that is not said",
    {
      argument: "fromBlock",
      remedy: "Give the block in which the registry was deployed, or its deployment's record.",
    },
  );
}

function required(address: Hex | undefined, what: "registry" | "policy"): Hex {
  if (address !== undefined) return address;
  throw new KeysteadError("audit/no-subject", `which ${what} is not said`, {
    argument: what,
    remedy: `Give the ${what}'s address, or the deployment's record.`,
    details: { needs: what },
  });
}
