import { type Block, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { reorg, scanLogs } from "../chain/logs.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, type KeysteadError } from "../core/errors.ts";
import { isGovernedLog } from "../core/events.ts";
import { type Anchor, fetchPolicyAnchor, fetchServiceAnchors } from "./anchor.ts";
import { createdIn } from "./all.ts";
import { type Change, compareInspections } from "./changes.ts";
import { type Inspection, inspect, type Subjects } from "./inspect.ts";
import { fetchProxyCode, type ProxyCode } from "./proxy.ts";
import { type Audit, worstVerdict } from "./result.ts";
import { auditServiceSet } from "./service-set.ts";
import type { StandingOptions } from "./standing.ts";
import { readAt } from "./walk.ts";

/** How a chain is watched. */
export interface WatchOptions extends StandingOptions {
  /** Milliseconds between looks. Default: 12000. */
  readonly interval?: number | undefined;
  /** The first inspection, where it was made already. */
  readonly first?: Inspection | undefined;
  /** Ends the watch. */
  readonly signal?: AbortSignal | undefined;
}

/** What a watch tells. */
export type Sighting =
  /** The first inspection. */
  | { readonly kind: "start"; readonly inspection: Inspection }
  | { readonly kind: "changes"; readonly inspection: Inspection; readonly changes: readonly Change[] }
  /** The chain can't be read: from here on nothing is known, until `again`. */
  | { readonly kind: "lost"; readonly error: KeysteadError }
  | { readonly kind: "again"; readonly inspection: Inspection; readonly changes: readonly Change[] };

/** The longest pause between looks at an endpoint that does not answer, in milliseconds. */
const LONGEST_PAUSE = 60_000;
/** Blocks before the last look that are asked for again. */
const OVERLAP = 32;

/**
 * Watches subjects as blocks arrive: tells the first inspection, then what changed, and when the chain can't be read. Goes on through outages, with pauses
 * that grow to a minute.
 *
 * A look at a block without changes takes a few calls (the block, one proof for each 64 services, the range's logs); what changed is verified again in
 * whole.
 *
 * @throws KeysteadError whatever the first inspection throws; anything that is no KeysteadError
 * @example
 * for await (const sighting of watch(client, { registry, services: [serviceId] })) console.log(sighting.kind);
 */
export async function* watch(
  client: Client,
  subjects: Subjects,
  options: WatchOptions = {},
): AsyncGenerator<Sighting, void, undefined> {
  const { interval = 12_000, signal, first } = options;
  let known = first ?? (await inspect(client, subjects, options));
  yield { kind: "start", inspection: known };
  let failures = 0;
  while (await pause(Math.min(interval * 2 ** failures, Math.max(interval, LONGEST_PAUSE)), signal)) {
    try {
      const inspection = await inspectAgain(client, subjects, options, known);
      const changes = inspection === known ? [] : compareInspections(known, inspection);
      known = inspection;
      if (failures !== 0) yield { kind: "again", inspection, changes };
      else if (changes.length !== 0) yield { kind: "changes", inspection, changes };
      failures = 0;
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
      failures += 1;
      if (failures === 1) yield { kind: "lost", error };
    }
  }
}

/** Whether the time passed, and not the watch ended. */
function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<boolean> {
  if (signal?.aborted) return Promise.resolve(false);
  return new Promise((resolve) => {
    const done = (passed: boolean) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      resolve(passed);
    };
    const stop = () => done(false);
    const timer = setTimeout(() => done(true), milliseconds);
    signal?.addEventListener("abort", stop);
  });
}

/**
 * The subjects at the newest block. Whose head is still what it was is not read again; whatever else happened is, in whole.
 *
 * @throws KeysteadError as `inspect`
 * @example
 * const now = await inspectAgain(client, subjects, {}, before);
 */
export async function inspectAgain(
  client: Client,
  subjects: Subjects,
  options: StandingOptions,
  known: Inspection,
): Promise<Inspection> {
  return readAt(client, options, async (block, client, options) => {
    if (block.number === known.block.number && block.hash === known.block.hash) return known;
    const here = { ...options, at: block.number, witnesses: [], within: true };
    const whole = () => inspect(client, subjects, here);
    // After a reorganisation, or where there was something wrong, everything is looked at again.
    const later = block.number > known.block.number;
    if (!later || (await fetchBlock(client, known.block.number)).hash !== known.block.hash) return whole();
    const found = known.verdict === "broken" ? undefined : await findTouched(client, subjects, known, block);
    if (found === undefined) return whole();
    const { set, ...touched } = found;
    const { withPolicy, services: ids } = touched;
    const changed = withPolicy || ids.length !== 0;
    if (changed && known.verdict !== "proven") return whole();
    const part = changed ? await inspect(client, { ...subjects, ...touched }, here) : undefined;
    if (part !== undefined && part.block.hash !== block.hash) throw reorg(block.number);
    const again = new Map(part?.services.map((audit) => [audit.serviceId, audit]));
    const old = known.services.filter(({ serviceId }) => !again.has(serviceId));
    const still = new Map(old.map((audit) => [audit.serviceId, { ...audit, block }]));
    const order = [...known.services.map(({ serviceId }) => serviceId), ...ids];
    const services = [...new Set(order)].flatMap((id) => again.get(id) ?? still.get(id) ?? []);
    const policy = part?.policy ?? (known.policy === undefined ? undefined : { ...known.policy, block });
    const verdict = worstVerdict([known.verdict, part?.verdict ?? "proven", set?.verdict ?? "proven"]);
    return { ...known, block, verdict, set, policy, services, calls: known.calls + (part?.calls ?? 0) };
  });
}

const sameCode = (now: ProxyCode, before: ProxyCode | undefined) =>
  now.basis === before?.basis &&
  now.implementation === before.implementation &&
  now.codeHash === before.codeHash &&
  now.proxyCodeHash === before.proxyCodeHash;

/** What a block's heads and the logs up to it say has changed; undefined where only a whole inspection can tell. */
async function findTouched(client: Client, subjects: Subjects, known: Inspection, block: Block) {
  const { registry, policy } = subjects;
  const sameHead = (anchor: Anchor | undefined, audit: Audit<unknown, unknown>) =>
    anchor?.basis === audit.basis && anchor.head === audit.head && anchor.count === audit.count;
  const withPolicy =
    known.policy !== undefined && policy !== undefined
      ? !sameHead(await fetchPolicyAnchor(client, block, policy), known.policy)
      : false;
  const ids = known.services.map(({ serviceId }) => serviceId);
  const anchors = registry === undefined ? [] : await fetchServiceAnchors(client, block, registry, ids);
  const moved = known.services.filter((audit, at) => !sameHead(anchors[at], audit)).map(({ serviceId }) => serviceId);
  const fresh = new Set<Hex>();
  let set = known.set;
  if (known.all && registry !== undefined && policy !== undefined) {
    // By state and not by its events: no answer that leaves logs out hides an upgrade.
    for (const [address, before] of [
      [registry, known.code?.registry],
      [policy, known.code?.policy],
    ] as const) {
      if (!sameCode(await fetchProxyCode(client, block, address), before)) return undefined;
    }
    // Some blocks again that were looked at before: a node that was behind then left out what is new in them.
    const from = Math.max(0, known.block.number + 1 - OVERLAP);
    const logs = await scanLogs(client, { address: registry }, from, block.number, { once: true });
    for (const log of logs) {
      const id = (log.topics[1] ?? "0x").slice(0, 42) as Hex;
      if (!isGovernedLog(log) && !ids.includes(id)) fresh.add(id);
    }
    const created = createdIn(logs).filter((id) => !ids.includes(id));
    set = await auditServiceSet(client, block, registry, created, known.set);
    // A service is missing: the whole inspection asks for all logs again before anybody is accused.
    if (set.verdict === "broken") return undefined;
  }
  return { withPolicy, services: [...moved, ...fresh], set };
}
