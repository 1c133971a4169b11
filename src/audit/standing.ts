import { fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { reorg, scanLogs } from "../chain/logs.ts";
import { callView, REGISTRY, readService } from "../chain/reads.ts";
import { fromHex, type Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { type ServiceEvent, topicOf } from "../core/events.ts";
import type { HeadBasis, Verdict } from "../core/history.ts";
import { imageId as idOf } from "../core/image.ts";
import type { PolicyEntry } from "../core/policy-state.ts";
import { type ImageStatus, imageStatus, type ServiceState, type TimedEntry } from "../core/state.ts";
import { auditPolicy } from "./policy.ts";
import type { Audit, PolicyAudit, Reason } from "./result.ts";
import { auditService, parseAddress, type ReadOptions, readAt } from "./walk.ts";

/*
 * Where one image stands: under one service, or under whatever knows it. Everything here comes from histories that were verified; a history that is
 * broken gives an error and never an answer.
 */

/** A service's log about an image has the image's id as its third topic. */
const IMAGE_EVENTS = [
  "add_secret_key_by_image",
  "add_image_to_service",
  "remove_image_from_service",
  "retire_image_from_service",
] as const;

/** Anyone may list any image under a service of their own: so many are verified, the rest are counted. */
export const MOST_SERVICES = 100;

/** What an answer rests on. */
export interface Basis {
  readonly verdict: Exclude<Verdict, "broken">;
  readonly basis: HeadBasis;
  /** Why it is not proven. */
  readonly reasons: readonly Reason[];
}

/** An event about an image. The time is the endpoint's word. */
export interface EventPlace {
  readonly event: ServiceEvent["name"];
  readonly sequence: number;
  readonly block: number;
  readonly timestamp: number;
  readonly transaction: Hex;
}

/** Where an image stands under a service, at the time of one block. Times in seconds since 1970. */
export interface ImageStanding {
  readonly serviceId: Hex;
  readonly imageId: Hex;
  /** `unknown`: the service never listed it, or there is no such service. */
  readonly status: ImageStatus | "unknown";
  /** Since when it has the status: 0 where it is unknown. */
  readonly since: number;
  /** When it leaves the status by time alone: pending → active, retiring → retired. 0: it does not. */
  readonly until: number;
  /** Canonical bytes, which hash to the id. */
  readonly image: Hex | undefined;
  /** Untrusted text. */
  readonly description: string | undefined;
  /** Untrusted text: why it was removed. */
  readonly reason: string | undefined;
  /** The events about this image, oldest first. */
  readonly events: readonly EventPlace[];
  /** The service's own state; undefined where there is no such service. */
  readonly service: ServiceState | undefined;
  readonly rests: Basis;
}

/** How standings are looked up. */
export interface StandingOptions extends ReadOptions {
  /** Where a scan starts if the history cannot be walked. `fromBlock` scans in any case. */
  readonly deployedAt?: number | undefined;
}

/**
 * Looks an image up under a service.
 *
 * @param imageId 32 bytes
 * @throws KeysteadError `audit/broken-history` {faults} if the endpoint's history does not verify; `audit/bad-id`; as `auditService`
 * @example
 * (await fetchImageStanding(client, registry, serviceId, imageId)).status; // "active"
 */
export async function fetchImageStanding(
  client: Client,
  registry: Hex,
  serviceId: Hex,
  imageId: Hex,
  options: StandingOptions = {},
): Promise<ImageStanding> {
  const id = parseId(imageId, "imageId");
  const address = parseAddress(registry, "registry");
  const service = parseAddress(serviceId, "serviceId");
  return readAt(client, options, async (block, client, options) => {
    const at = { ...options, at: block.number, witnesses: [], within: true };
    try {
      const audit = await orScan(options, (fromBlock) => auditService(client, address, service, { ...at, fromBlock }));
      if (audit.block.hash !== block.hash) throw reorg(block.number);
      const { state, rests } = requireWhole(`service ${service}`, audit);
      return standingOf(service, id, state, audit.entries, block.timestamp, rests);
    } catch (error) {
      if (!isKeysteadError(error, "audit/no-service")) throw error;
      // An empty slot is what any address has: only a registry can say that a service is unknown.
      const view = await readService(client, address, block, service);
      if (view.exists) throw brokenHistory(`service ${service}`, ["state-differs"]);
      const message = "the endpoint gives no storage proof of it";
      const rests: Basis =
        error.details.basis === "proof"
          ? { verdict: "proven", basis: "proof", reasons: [] }
          : { verdict: "consistent", basis: "view", reasons: [{ code: "no-storage-proof", message }] };
      return standingOf(service, id, undefined, [], block.timestamp, rests);
    }
  });
}

/** Which services know an image. */
export interface KnownBy {
  /** In the order of their first logs about it. */
  readonly services: readonly ImageStanding[];
  /** How many more services have logs about it that were not looked at: see {@link MOST_SERVICES}. */
  readonly left: number;
}

/**
 * Finds the services that know an image: a scan for its id in the logs, then each service's history verified. That no service was withheld rests on the
 * endpoint's word: the chain over services says which exist, and not which of them list the image.
 *
 * @throws KeysteadError `audit/broken-history`, also for a log that the service's history does not hold; as {@link fetchImageStanding}
 * @example
 * const { services } = await fetchKnownBy(client, registry, imageId, { deployedAt: 17 });
 */
export async function fetchKnownBy(
  client: Client,
  registry: Hex,
  imageId: Hex,
  options: StandingOptions = {},
): Promise<KnownBy> {
  const id = parseId(imageId, "imageId");
  const address = parseAddress(registry, "registry");
  return readAt(client, options, async (block, client, options) => {
    const from = options.fromBlock ?? options.deployedAt ?? 0;
    const logs = await scanLogs(client, { address, topics: [null, null, null, id] }, from, block.number, options);
    const wanted = new Set<Hex | undefined>(IMAGE_EVENTS.map((name) => topicOf(name)));
    const found = logs.filter(({ topics }) => wanted.has(topics[0]) && topics[3] === id);
    const ids = [...new Set(found.map(({ topics }) => (topics[1] ?? "0x").slice(0, 42) as Hex))];
    const services: ImageStanding[] = [];
    for (const serviceId of ids.slice(0, MOST_SERVICES)) {
      const at = { ...options, at: block.number, witnesses: [], within: true };
      const standing = await fetchImageStanding(client, address, serviceId, id, at);
      if (standing.status === "unknown") throw brokenHistory(`service ${serviceId}`, ["foreign-log"]);
      services.push(standing);
    }
    return { services, left: Math.max(0, ids.length - MOST_SERVICES) };
  });
}

/** What a policy says about some image ids: its lists are complete, for its head covers them. */
export interface PolicyStanding {
  readonly audit: PolicyAudit;
  readonly state: NonNullable<PolicyAudit["state"]>;
  readonly rests: Basis;
  readonly platform: (id: Hex) => PolicyEntry | undefined;
  readonly kmsImage: (id: Hex) => PolicyEntry | undefined;
}

/**
 * Reads the policy's lists.
 *
 * @throws KeysteadError `audit/broken-history`; as `auditPolicy`
 * @example
 * (await fetchPolicyStanding(client, policy)).platform(platformId)?.state; // "allowed"
 */
export async function fetchPolicyStanding(
  client: Client,
  policy: Hex,
  options: StandingOptions = {},
): Promise<PolicyStanding> {
  const audit = await orScan(options, (fromBlock) => auditPolicy(client, policy, { ...options, fromBlock }));
  const { state, rests } = requireWhole("the policy", audit);
  const entryOf = (list: ReadonlyMap<Hex, PolicyEntry>) => (id: Hex) => {
    const entry = list.get(id);
    if (entry !== undefined) requireHash(entry.image, id);
    return entry;
  };
  return { audit, state, rests, platform: entryOf(state.platforms), kmsImage: entryOf(state.kmsImages) };
}

/**
 * What an image's place in a service's verified state is at a time.
 *
 * @param now seconds since 1970
 * @throws KeysteadError `audit/image-id` if the logged bytes do not hash to the id
 * @example
 * standingOf(serviceId, imageId, audit.state, audit.entries, audit.block.timestamp, rests).since;
 */
export function standingOf(
  serviceId: Hex,
  imageId: Hex,
  service: ServiceState | undefined,
  entries: readonly TimedEntry<ServiceEvent>[],
  now: number,
  rests: Basis,
): ImageStanding {
  const image = service?.images.get(imageId);
  const events = entries.flatMap(({ event, sequence, log, timestamp }): EventPlace[] =>
    event !== undefined && "imageId" in event.args && event.args.imageId === imageId
      ? [{ event: event.name, sequence, block: log.blockNumber, timestamp, transaction: log.transactionHash }]
      : [],
  );
  const about = { serviceId, imageId, events, service, rests };
  if (image === undefined) {
    const nothing = { image: undefined, description: undefined, reason: undefined };
    return { ...about, ...nothing, status: "unknown", since: 0, until: 0 };
  }
  requireHash(image.image, imageId);
  const status = imageStatus(image, now);
  const latest = events.at(-1)?.timestamp ?? 0;
  const listed = entries.find(({ sequence }) => sequence === image.listedBy)?.timestamp ?? 0;
  const since = {
    pending: listed,
    active: image.activeFrom,
    retiring: image.activeFrom,
    retired: image.activeUntil,
    removed: latest,
  };
  const until = { pending: image.activeFrom, active: 0, retiring: image.activeUntil, retired: 0, removed: 0 };
  const { description, reason } = image;
  return { ...about, image: image.image, description, reason, status, since: since[status], until: until[status] };
}

function requireHash(image: Hex, imageId: Hex): void {
  if (idOf(fromHex(image, "image")) === imageId) return;
  throw new KeysteadError("audit/image-id", `the bytes logged for ${imageId} do not hash to it`, {
    remedy: "Do not trust this contract: a registry of this project can't log such a thing.",
    details: { imageId },
  });
}

/**
 * Walks; scans where it must and a start is known.
 *
 * @throws whatever `read` throws
 * @example
 * await orScan({ deployedAt: 17 }, (fromBlock) => auditPolicy(client, policy, { fromBlock }));
 */
export async function orScan<T>(
  { fromBlock, deployedAt }: StandingOptions,
  read: (fromBlock: number | undefined) => Promise<T>,
): Promise<T> {
  try {
    return await read(fromBlock);
  } catch (error) {
    if (!isKeysteadError(error, "audit/needs-scan") || deployedAt === undefined) throw error;
    return read(deployedAt);
  }
}

function requireWhole<S, E>(what: string, audit: Audit<S, E>): { readonly state: S; readonly rests: Basis } {
  const { verdict, basis, reasons, state, faults } = audit;
  if (verdict !== "broken" && state !== undefined) return { state, rests: { verdict, basis, reasons } };
  throw brokenHistory(what, [...new Set(faults.map(({ code }) => code))]);
}

function brokenHistory(what: string, faults: readonly string[]): KeysteadError {
  return new KeysteadError("audit/broken-history", `the history of ${what} does not verify: ${faults.join(", ")}`, {
    remedy:
      "Believe nothing that this endpoint says. Ask another one; if that fails too, the contract is not what it should be.",
    details: { faults },
  });
}

function parseId(text: string, argument: string): Hex {
  if (/^0x[0-9a-fA-F]{64}$/.test(text)) return text.toLowerCase() as Hex;
  throw new KeysteadError("audit/bad-id", `${argument} is not 32 bytes of hex`, {
    argument,
    remedy: "Give 0x and 64 hex digits.",
  });
}

/**
 * Refuses a policy that is not the one that the registry asks. (Its address is in the registry's code; the answer is the endpoint's word.)
 *
 * @throws KeysteadError `audit/wrong-policy` {expected, actual}; as `callView`
 * @example
 * await requirePolicyOf(client, registry, policy);
 */
export async function requirePolicyOf(client: Client, registry: Hex, policy: Hex): Promise<void> {
  const block = await fetchBlock(client, "latest");
  const [answer] = await callView(client, REGISTRY, parseAddress(registry, "registry"), block, "POLICY", []);
  const actual = String(answer).toLowerCase();
  const expected = parseAddress(policy, "policy");
  if (actual === expected) return;
  throw new KeysteadError("audit/wrong-policy", `the registry asks the policy ${actual} and not ${expected}`, {
    argument: "policy",
    remedy: "Give the policy and the registry of one deployment.",
    details: { expected, actual },
  });
}
