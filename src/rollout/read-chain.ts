import { Interface } from "ethers";
import { imageText } from "../audit/image-text.ts";
import { fetchProxyCode } from "../audit/proxy.ts";
import { fetchPolicyStanding } from "../audit/standing.ts";
import { auditService } from "../audit/walk.ts";
import { TIMELOCK_ABI } from "../chain/abi/timelock.ts";
import { type Block, blockParameter, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { scanLogs } from "../chain/logs.ts";
import { callView, REGISTRY } from "../chain/reads.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { IMAGE_KINDS } from "../core/image.ts";
import type { PolicyEntry } from "../core/policy-state.ts";
import { imageStatus, type ServiceState, type TimedEntry } from "../core/state.ts";
import type { ServiceEvent } from "../core/events.ts";
import { fetchSafe } from "../governance/safe-state.ts";
import { fetchTimelockState } from "../governance/timelock-state.ts";
import type { ChainFacts, EntryFacts, ImageFacts, OperationFacts, SafeFacts } from "./facts.ts";
import type { Inputs } from "./inputs.ts";

/** Where a rollout's chain is read from. */
export type ChainPlace = Inputs["deployment"] & { readonly service: Hex };

const TIMELOCK = new Interface(TIMELOCK_ABI);
const lower = (address: string): Hex => `0x${address.slice(2).toLowerCase()}`;

/**
 * Reads everything that a rollout depends on from one block: the service's and the policy's verified histories, which code the proxies run, every operation
 * that the timelock ever saw, and the Safes as they are now.
 *
 * @throws KeysteadError `rollout/broken-history` {faults} where a history does not verify; `chain/…` where the endpoint can't be asked: never an empty answer
 * @example
 * const chain = await readChain(client, { ...plan.inputs.deployment, service: plan.inputs.service.id });
 */
export async function readChain(
  client: Client,
  place: ChainPlace,
  witnesses: readonly Client[] = [],
): Promise<ChainFacts> {
  const block = await fetchBlock(client, "latest");
  const at = { at: block.number, deployedAt: place.fromBlock, witnesses };
  const [registry, policy] = [lower(place.registry), lower(place.policy)];
  const history = await auditServiceOrNone(client, registry, place.service, block.number);
  const standing = await fetchPolicyStanding(client, policy, at);
  const service = history?.state;
  const proxies = {
    policy: await fetchProxyCode(client, block, policy),
    registry: await fetchProxyCode(client, block, registry),
  };
  const broken = [...(history?.faults ?? []), ...proxies.policy.faults, ...proxies.registry.faults];
  if (broken.length > 0) throw brokenHistory(broken.map(({ code }) => code));
  const { state } = standing;
  const admin = service === undefined ? undefined : service.admin;
  return {
    block: block.number,
    time: block.timestamp,
    unproven: [...(history?.reasons ?? []), ...standing.rests.reasons].map(({ message }) => message),
    implementations: { policy: proxies.policy.implementation, registry: proxies.registry.implementation },
    service:
      service === undefined
        ? undefined
        : {
            admin: service.admin,
            upgradeable: service.upgradeable,
            noticePeriod: service.noticePeriod,
            keyEpoch: service.keyEpoch,
          },
    images: imagesOf(service, history?.entries ?? [], block.timestamp),
    platforms: entriesOf(state.platforms),
    kmsImages: entriesOf(state.kmsImages),
    identities: new Set(
      [...state.kmsIdentities.values()].flatMap((one) => (one.state === "allowed" ? [one.environmentKey] : [])),
    ),
    receiptSigners: new Set(
      [...state.kmsIdentities.values()].flatMap((one) => (one.state === "allowed" ? [one.receiptSigner] : [])),
    ),
    enabledTees: new Set(
      Object.values(IMAGE_KINDS).flatMap(({ kind, byte }) => (state.tees.get(byte)?.enabled === true ? [kind] : [])),
    ),
    pausedUntil: state.pausedUntil,
    ...(await readTimelock(client, block, place)),
    governance: await safeFacts(client, block, place.governance),
    guardian: await safeFacts(client, block, place.guardian),
    admin: admin === undefined ? undefined : await safeOrNone(client, block, admin),
  };
}

const brokenHistory = (faults: readonly string[]) =>
  new KeysteadError("rollout/broken-history", `what the endpoint says does not verify: ${faults.join(", ")}`, {
    argument: "rpc",
    remedy: "Believe nothing that this endpoint says, and ask another one.",
    details: { faults },
  });

/** A service that does not exist yet is no fault: a first deployment's plan may be made before. Whether it exists is a view's word, checked there. */
async function auditServiceOrNone(client: Client, registry: Hex, service: Hex, at: number) {
  try {
    const audit = await auditService(client, registry, service, { at });
    if (audit.verdict === "broken") throw brokenHistory(audit.faults.map(({ code }) => code));
    return audit;
  } catch (error) {
    if (!isKeysteadError(error, "audit/no-service")) throw error;
    const block = await fetchBlock(client, at);
    const [view] = await callView(client, REGISTRY, registry, block, "service", [service]);
    if (view.exists === true) throw brokenHistory(["state-differs"]);
    return undefined;
  }
}

function imagesOf(
  service: ServiceState | undefined,
  entries: readonly TimedEntry<ServiceEvent>[],
  now: number,
): ReadonlyMap<Hex, ImageFacts> {
  const changed = new Map<Hex, number>();
  for (const { event, timestamp } of entries) {
    if (event !== undefined && "imageId" in event.args) changed.set(event.args.imageId, timestamp);
  }
  return new Map(
    [...(service?.images ?? [])].map(([id, image]): [Hex, ImageFacts] => {
      const status = imageStatus(image, now);
      const until = status === "pending" ? image.activeFrom : status === "retiring" ? image.activeUntil : 0;
      return [id, { status, until, changed: changed.get(id) ?? 0 }];
    }),
  );
}

function entriesOf(list: ReadonlyMap<Hex, PolicyEntry>): ReadonlyMap<Hex, EntryFacts> {
  return new Map(
    [...list].map(([id, { state, image, since }]) => [id, { state, text: imageText(image), changed: since }]),
  );
}

/** Every operation that was ever scheduled, by its own events; its state is the timelock's answer at the block. */
async function readTimelock(
  client: Client,
  block: Block,
  { timelock, fromBlock }: ChainPlace,
): Promise<{ readonly operations: readonly OperationFacts[]; readonly minDelay: number }> {
  const address = lower(timelock);
  const logs = await scanLogs(client, { address, topics: [] }, fromBlock, block.number);
  const calls = new Map<Hex, { to: string; data: Hex }[]>();
  for (const log of logs) {
    const event = TIMELOCK.parseLog({ topics: [...log.topics], data: log.data });
    if (event?.name !== "CallScheduled") continue;
    const id = lower(String(event.args.id));
    const index = Number(event.args.index);
    // scheduled again after it was cancelled or expired: the same calls
    const list = index === 0 ? [] : (calls.get(id) ?? []);
    list.push({ to: String(event.args.target), data: lower(String(event.args.data)) });
    calls.set(id, list);
  }
  const operations: OperationFacts[] = [];
  for (const [id, list] of calls) {
    const { phase, readyAt, expiresAt } = await fetchTimelockState(client, block, timelock, id);
    const state = phase === "unset" ? "cancelled" : phase;
    const end = expiresAt === undefined ? undefined : Number(expiresAt);
    operations.push({ id, state, readyAt: Number(readyAt ?? 0n), expiresAt: end, calls: list });
  }
  const [minDelay] = await callView(client, TIMELOCK, address, block, "getMinDelay", []);
  return { operations, minDelay: Number(minDelay) };
}

async function safeFacts(client: Client, block: Block, address: string): Promise<SafeFacts> {
  const { owners, threshold, nonce, version } = await fetchSafe(client, block, address);
  return { address, owners, threshold, nonce, version };
}

/** A service's admin may be anything; what is no Safe is no error here. */
async function safeOrNone(client: Client, block: Block, address: string): Promise<SafeFacts | undefined> {
  const code = await client.request("eth_getCode", [lower(address), blockParameter(block.number)]);
  if (code === "0x") return undefined;
  try {
    return await safeFacts(client, block, address);
  } catch (error) {
    if (isKeysteadError(error, "safe/not-a-safe") || isKeysteadError(error, "chain/not-this-contract"))
      return undefined;
    if (isKeysteadError(error, "chain/reverted")) return undefined;
    throw error;
  }
}
