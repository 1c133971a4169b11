import type { Block } from "../chain/block.ts";
import { type Client, limitClient, mapLimited } from "../chain/client.ts";
import { locateLogs, scanLogs } from "../chain/logs.ts";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { isGovernedLog, type RawLog, topicOf } from "../core/events.ts";
import type { Verdict } from "../core/history.ts";
import { type Anchor, fetchPolicyAnchor, fetchServiceAnchors } from "./anchor.ts";
import { auditPolicyAt } from "./policy.ts";
import { fetchProxyCode, type ProxyCode } from "./proxy.ts";
import { type PolicyAudit, type ServiceAudit, worstVerdict } from "./result.ts";
import { auditServiceSet, type ServiceSet } from "./service-set.ts";
import { judgeService, parseAddress, type ReadOptions, readAt } from "./walk.ts";

/** A service id as a topic: 20 bytes, then zeros. */
const SERVICE_TOPIC = /^(0x[0-9a-f]{40})0{24}$/;

/** Services whose views are read at the same time. */
const SERVICES_AT_ONCE = 8;
/** Views under way at the same time, over all services: one with a long history keeps none waiting, nor the endpoint busier. */
const VIEWS_AT_ONCE = 8;

/** What to audit. */
export interface SuiteOptions extends ReadOptions {
  /** The registry's proxy. */
  readonly registry: Hex;
  /** The policy's proxy. */
  readonly policy: Hex;
  /** The block in which the older of the two was deployed, or an earlier one. */
  readonly fromBlock: number;
}

/** Everything that was found. */
export interface SuiteAudit {
  readonly chainId: number;
  readonly block: Block;
  /** The worst of all verdicts. */
  readonly verdict: Verdict;
  readonly policy: PolicyAudit;
  /** Which code the proxies run: a history says what the contracts did, this says which contracts they are. */
  readonly code: { readonly registry: ProxyCode; readonly policy: ProxyCode };
  /** Every service that has a log in the range, in the order of their first logs. Each one's history is judged on its own. */
  readonly services: readonly ServiceAudit[];
  /** Whether those are all services of the registry: the list held against the chain of creations. */
  readonly set: ServiceSet;
  /** Logs of the registry that are about no service: no version known here emits any. Where there are some, the suite is not proven. */
  readonly unaccounted: readonly RawLog[];
  /** JSON-RPC calls that it took. */
  readonly calls: number;
}

/**
 * Audits the policy and every service, at one block.
 *
 * @throws KeysteadError `audit/bad-address`; `audit/cache-incomplete` (retryable) {services}; `chain/…` when the endpoint can't be asked: that is no verdict
 * @example
 * const suite = await auditSuite(client, { registry, policy, fromBlock: 0 });
 * if (suite.verdict === "broken") process.exitCode = 1;
 */
export async function auditSuite(client: Client, options: SuiteOptions): Promise<SuiteAudit> {
  const registry = parseAddress(options.registry, "registry");
  const policyAddress = parseAddress(options.policy, "policy");
  const before = client.calls();
  return readAt(client, options, async (block, client, options) => {
    // All proofs first: an endpoint may prove the newest blocks alone.
    const anchor = await fetchPolicyAnchor(client, block, policyAddress);
    const code = {
      registry: await fetchProxyCode(client, block, registry),
      policy: await fetchProxyCode(client, block, policyAddress),
    };
    const listed = await listServices(client, registry, block, options);
    const policy = await auditPolicyAt(client, policyAddress, block, options, anchor);
    const { services, set, unaccounted } = await auditServicesAt(client, registry, block, listed, options);
    const verdicts = [policy, set, ...services].map((audit) => audit.verdict);
    if (unaccounted.length !== 0) verdicts.push("consistent");
    for (const { faults, basis } of Object.values(code)) {
      verdicts.push(faults.length !== 0 ? "broken" : basis === "proof" ? "proven" : "consistent");
    }
    const verdict = worstVerdict(verdicts);
    const calls = client.calls() - before;
    return { chainId: client.chainId, block, verdict, policy, code, services, set, unaccounted, calls };
  });
}

/** What a registry's logs name, unjudged. */
interface Listed {
  readonly byService: ReadonlyMap<Hex, readonly RawLog[]>;
  readonly anchors: ReadonlyMap<Hex, Anchor | undefined>;
  readonly set: ServiceSet;
  readonly unaccounted: readonly RawLog[];
}

type FullOptions = ReadOptions & { readonly fromBlock: number };

/** Every service with logs, and each one's head. Where that is not every service, everything is asked again before anybody is accused. */
async function listServices(client: Client, registry: Hex, block: Block, options: FullOptions): Promise<Listed> {
  const listed = await listOnce(client, registry, block, options);
  return listed.set.verdict === "broken" && options.cache === undefined
    ? listOnce(client, registry, block, options)
    : listed;
}

async function listOnce(client: Client, registry: Hex, block: Block, options: FullOptions): Promise<Listed> {
  const logs = await scanLogs(client, { address: registry }, options.fromBlock, block.number, options);
  await requireAllServices(client, registry, block, logs, options);
  const byService = new Map<Hex, RawLog[]>();
  const unaccounted: RawLog[] = [];
  for (const log of logs) {
    if (isGovernedLog(log)) continue;
    const [, serviceId] = SERVICE_TOPIC.exec(log.topics[1] ?? "") ?? [];
    if (serviceId === undefined) {
      unaccounted.push(log);
      continue;
    }
    const own = byService.get(serviceId as Hex);
    if (own === undefined) byService.set(serviceId as Hex, [log]);
    else own.push(log);
  }
  const ids = [...byService.keys()];
  const fetched = await fetchServiceAnchors(client, block, registry, ids);
  const set = await auditServiceSet(client, block, registry, createdIn(logs));
  return { byService, anchors: new Map(ids.map((id, index) => [id, fetched[index]])), set, unaccounted };
}

async function auditServicesAt(
  client: Client,
  registry: Hex,
  block: Block,
  { byService, anchors, set, unaccounted }: Listed,
  options: FullOptions,
): Promise<Pick<SuiteAudit, "services" | "set" | "unaccounted">> {
  const all = await locateLogs(client, [...byService.values(), unaccounted].flat());
  const located = new Map(all.map((each) => [each.log, each]));
  const gentle = limitClient(client, VIEWS_AT_ONCE);
  let judged = 0;
  const audits = await mapLimited([...byService], SERVICES_AT_ONCE, async ([id, own]) => {
    const anchor = anchors.get(id);
    if (anchor === undefined) throw new Error(`no anchor was fetched for ${id}`);
    const placed = own.flatMap((log) => located.get(log) ?? []);
    const audit = await judgeService(gentle, registry, block, id, anchor, placed, options.fromBlock);
    judged += 1;
    options.onService?.(judged, byService.size);
    return audit;
  });
  return { services: audits, set, unaccounted };
}

/**
 * The services that some logs of a registry create, in their order.
 *
 * @example
 * createdIn(await scanLogs(client, { address: registry }, fromBlock, toBlock));
 */
export function createdIn(logs: readonly RawLog[]): readonly Hex[] {
  return logs.flatMap(({ topics }) =>
    topics[0] !== undefined && CREATIONS.includes(topics[0]) ? [(topics[1] ?? "0x").slice(0, 42) as Hex] : [],
  );
}

/** The first event of every service is one of these. */
const CREATIONS: readonly Hex[] = [topicOf("create_service"), topicOf("add_secret_key_by_image")];

/**
 * A history taken from a cache is proven by its head like any other; that the cache knows every service is proven by nothing. So the endpoint is asked
 * which services were created.
 */
async function requireAllServices(
  client: Client,
  registry: Hex,
  block: Block,
  logs: readonly RawLog[],
  { cache, trustCache, fromBlock }: FullOptions,
): Promise<void> {
  if (cache === undefined || trustCache === true || !cache.used()) return;
  const known = new Set(logs.map(({ topics }) => topics[1]));
  const filter = { address: registry, topics: [CREATIONS] };
  const created = await scanLogs(client, filter, fromBlock, block.number);
  const hidden = created.filter(({ topics }) => !known.has(topics[1]));
  if (hidden.length === 0) return;
  throw new KeysteadError("audit/cache-incomplete", `what was kept of an earlier run lacks ${hidden.length} services`, {
    argument: "checkpoint",
    remedy: "Run again without it.",
    retryable: true,
    details: { services: hidden.map(({ topics }) => (topics[1] ?? "0x").slice(0, 42)) },
  });
}
