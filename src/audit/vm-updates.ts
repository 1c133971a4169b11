import { keccak_256 } from "@noble/hashes/sha3.js";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import type { ServiceEvent } from "../core/events.ts";
import { formatImageFilter } from "../core/evidence/secretvm.ts";
import type { JsonObject, JsonValue } from "../core/json.ts";
import {
  type ImageStatus,
  imageStatus,
  type ServiceImage,
  type ServiceState,
  type TimedEntry,
  ZERO_ADDRESS,
} from "../core/state.ts";
import { imageOf, imageText, omittedRegisters } from "./image-text.ts";
import type { ServiceAudit } from "./result.ts";
import { actorOf } from "./table.ts";

/*
 * What `/vm_updates` says: a superset of the answer of SecretVM's attestation server, whose clients read `service_id`, `filters` (each with `filter` or,
 * on SEV-SNP, `measurement`; `description`; `timestamp`) and, for a machine that can't be upgraded, `message`.
 *
 * `filters` means what it means there: the images that may receive keys now. Pending and removed ones are in `images`, which holds every image that the
 * service ever listed, and in `history`, which holds every event: an older client must not take a removed image for an allowed one.
 */

/** What SecretVM's server says of a machine without a service, and of one whose service can't be upgraded. */
export const NOT_UPGRADEABLE = "VM is not upgradeable";

/**
 * The answer about a service whose history did not verify as broken.
 *
 * @param audit with a state: not `broken`
 * @returns plain JSON; texts from the chain are in it as they are
 * @example
 * describeUpdates(await auditService(client, registry, serviceId)).filters;
 */
export function describeUpdates(audit: ServiceAudit, state: ServiceState): JsonObject {
  const { block, serviceId, entries } = audit;
  const images = [...state.images.values()].map((image) => describeImage(image, entries, block.timestamp));
  const allowed = images.filter(({ status }) => status === "active" || status === "retiring");
  const who = state.admin === ZERO_ADDRESS ? null : state.admin;
  const common = {
    admin: who,
    creator: state.creator,
    description: state.description,
    upgradeable: state.upgradeable,
    // With no admin left nobody can ever add an image; what is pending may still become active.
    final: who === null,
    notice_period: state.noticePeriod,
    key_epoch: state.keyEpoch,
    images: images.map(({ whole }) => whole),
    history: entries.map((entry) => describeEntry(serviceId, entry, state, block.timestamp)),
    proof: describeProof(audit),
  };
  if (!state.upgradeable) return { message: NOT_UPGRADEABLE, service_id: serviceId, ...common };
  return { filters: allowed.map(({ entry }) => entry), service_id: serviceId, ...common };
}

/** What the answer rests on. */
function describeProof({ block, head, count, verdict, basis, reasons, faults }: ServiceAudit): JsonObject {
  return {
    verified: verdict === "proven",
    verdict,
    basis: basis === "proof" ? "storage-proof" : "endpoint",
    block: block.number,
    block_hash: block.hash,
    block_timestamp: block.timestamp,
    history_head: head,
    events: count,
    ...(verdict === "proven"
      ? {}
      : { reasons: [...faults, ...reasons].map(({ code, message }) => ({ code, message })) }),
  };
}

/** An image as an entry of `filters`, and in whole. */
interface Described {
  readonly status: ImageStatus;
  readonly entry: JsonObject;
  readonly whole: JsonObject;
}

function describeImage(listed: ServiceImage, entries: readonly TimedEntry<ServiceEvent>[], now: number): Described {
  const { imageId, image: bytes, description, activeFrom, activeUntil, reason, listedBy } = listed;
  const image = imageOf(bytes);
  const timestamp = entries.find(({ sequence }) => sequence === listedBy)?.timestamp ?? 0;
  const status = imageStatus(listed, now);
  const bare = (value: Hex) => value.slice(2);
  const registers = Object.fromEntries(
    Object.entries(image?.registers ?? {}).map(([name, value]): [string, string] => [name, bare(value)]),
  );
  const filter = image === undefined ? undefined : formatImageFilter(image);
  const measurement = image?.kind === "snp" ? registers.measurement : undefined;
  // Each kind in the form that SecretVM gives it. Nitro and dstack have none there, and must not look like a filter that names nothing.
  const entry: JsonObject = {
    description,
    ...(filter === undefined ? {} : { filter }),
    ...(measurement === undefined ? {} : { measurement }),
    timestamp,
    kind: image?.kind ?? "unknown",
    registers,
    image_id: imageId,
    state: status,
  };
  const whole: JsonObject = {
    image_id: imageId,
    image: imageText(bytes),
    kind: image?.kind ?? "unknown",
    registers,
    matches_anything: image === undefined ? [] : omittedRegisters(image),
    description,
    state: status,
    timestamp,
    active_from: activeFrom,
    active_until: activeUntil === 0 ? null : activeUntil,
    removed_because: reason ?? null,
    listed_by: listedBy,
  };
  return { status, entry, whole };
}

function describeEntry(
  serviceId: Hex,
  { event, sequence, timestamp, log }: TimedEntry<ServiceEvent>,
  service: ServiceState,
  now: number,
): JsonObject {
  const place = { sequence, timestamp, block: log.blockNumber, transaction: log.transactionHash };
  if (event === undefined) return { event: "unknown", service_id: serviceId, topic: log.topics[0] ?? null, ...place };
  const { args } = event;
  const listed = "imageId" in args ? service.images.get(args.imageId) : undefined;
  const image = listed === undefined ? {} : { image: imageText(listed.image), state: imageStatus(listed, now) };
  return { event: event.name, service_id: serviceId, actor: actorOf(event), ...fieldsOf(args), ...image, ...place };
}

/** An event's own fields under names as SecretVM writes them. A ciphertext is as long as a book and nothing to read: its hash and length stand for it. */
function fieldsOf(args: ServiceEvent["args"]): JsonObject {
  const fields: Record<string, JsonValue> = {};
  for (const [name, value] of Object.entries(args)) {
    if (["serviceId", "sequence", "previousBlock", "actor", "image"].includes(name)) continue;
    const key = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    if (name !== "ciphertext") fields[key] = value;
    else {
      const bytes = fromHex(String(value), name);
      fields.ciphertext_bytes = bytes.length;
      fields.ciphertext_keccak256 = toHex(keccak_256(bytes));
    }
  }
  return fields;
}
