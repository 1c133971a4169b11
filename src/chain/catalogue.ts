import { fromHex, type Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { decodePolicyEvent, decodeServiceEvent, isGovernedLog, type RawLog } from "../core/events.ts";
import { EMPTY_HEAD, foldAll } from "../core/history.ts";
import { decodeImage, type Image, imageId } from "../core/image.ts";
import type { Client } from "./client.ts";
import { type LogFilter, scanLogs, walkLogs } from "./logs.ts";
import { fromAny, type ProvenState } from "./proven.ts";
import { decodePolicyCounters, decodeServiceWord, policySlots, serviceSlots, slotHex } from "./slots.ts";

/*
 * Every image that a history ever named, from logs that fold to the proven head. Kept, and extended by the events since: a catalogue costs its history once.
 * Which of them counts today is for `authorize` to say; a catalogue only says what to ask about.
 */

/** What an image was named as. */
export type CatalogueList = "image" | "platform" | "kmsImage";

/** An image that a history names. */
export interface CatalogueImage {
  readonly list: CatalogueList;
  readonly id: Hex;
  readonly image: Image;
  /** The number of the event that named it last. */
  readonly listedBy: number;
}

/** All images of a history up to a block. */
export interface Catalogue {
  /** The history's head, which the logs fold to. */
  readonly head: Hex;
  readonly count: number;
  /** Events in blocks up to this one are in. */
  readonly readUpTo: number;
  /** Latest first. */
  readonly images: readonly CatalogueImage[];
}

/** Whose history: a service's, or the policy's where there is no service id. */
export interface CatalogueSource {
  readonly address: Hex;
  readonly serviceId?: Hex | undefined;
  /** Where a history can't be walked, it is scanned from this block. */
  readonly fromBlock: number;
}

/** The longest history that is read for its images. A machine of a service with more must say which image it is. */
export const MAX_CATALOGUE_EVENTS = 20_000;

const EMPTY: Catalogue = { head: EMPTY_HEAD, count: 0, readUpTo: 0, images: [] };

/**
 * The catalogue at a block: the one known before if the head is still the same, otherwise extended by the events since.
 *
 * @param known of the same source; one of a later block counts only where the head is the same
 * @throws KeysteadError `chain/history-too-long` {count}; `chain/unproven`, `chain/unreachable` (retryable) where no endpoint gives logs that fold to
 * the proven head
 * @example
 * const { images } = await extendCatalogue(state, { address: registry, serviceId, fromBlock }, undefined);
 */
export async function extendCatalogue(
  state: ProvenState,
  source: CatalogueSource,
  known: Catalogue | undefined,
): Promise<Catalogue> {
  const { head, count, lastUpdateBlock } = await readAnchor(state, source);
  if (known !== undefined && head === known.head && count === known.count) {
    return { ...known, readUpTo: state.block.number };
  }
  // One that was read at a later block meanwhile can't be extended to this one, and would make a liar of an honest endpoint.
  const before = known !== undefined && known.readUpTo <= state.block.number ? known : EMPTY;
  if (head === before.head && count === before.count) return { ...before, readUpTo: state.block.number };
  if (count - before.count > MAX_CATALOGUE_EVENTS) {
    throw new KeysteadError("chain/history-too-long", `the history has ${count} events`, {
      argument: "image",
      remedy: "Send the image with the request.",
      details: { count, longest: MAX_CATALOGUE_EVENTS },
    });
  }
  return fromAny(state, async (client) => {
    const read = (scan: boolean) => fetchLogs(client, state.block.number, source, before, count, lastUpdateBlock, scan);
    // The head commits to every byte of every log, to their order and so to their number: nothing else needs to be checked.
    const folds = (part: readonly RawLog[]) => foldAll(part, before.head) === head;
    const differ = state.block.parentNumber !== undefined || lastUpdateBlock > state.block.number;
    let logs = await read(differ);
    // Pointers that lead nowhere without a header that says so, or a node behind the address that is some blocks behind.
    if (!folds(logs)) logs = await read(true);
    if (!folds(logs)) {
      throw new KeysteadError("chain/history-unproven", "the endpoint's logs do not fold to the proven head", {
        remedy: "Use another endpoint: this one withholds or alters logs.",
        details: { source: source.serviceId ?? source.address, head },
      });
    }
    const images = new Map(before.images.map((each) => [`${each.list}${each.id}`, each]));
    logs.forEach((log, at) => {
      const named = imageOf(log, source, before.count + at + 1);
      if (named !== undefined) images.set(`${named.list}${named.id}`, named);
    });
    const latestFirst = [...images.values()].sort((a, b) => b.listedBy - a.listedBy);
    return { head, count, readUpTo: state.block.number, images: latestFirst };
  });
}

async function readAnchor(state: ProvenState, { address, serviceId }: CatalogueSource) {
  if (serviceId !== undefined) {
    const slots = serviceSlots(serviceId);
    const [word, head] = await state.read((read) => [read(address, slots.word), read(address, slots.head)] as const);
    const { sequence, lastUpdateBlock } = decodeServiceWord(word);
    return { head: slotHex(head), count: sequence, lastUpdateBlock };
  }
  const slots = policySlots();
  const [counters, head] = await state.read(
    (read) => [read(address, slots.counters), read(address, slots.head)] as const,
  );
  const { policyVersion, lastUpdateBlock } = decodePolicyCounters(counters);
  return { head: slotHex(head), count: policyVersion, lastUpdateBlock };
}

async function fetchLogs(
  client: Client,
  toBlock: number,
  source: CatalogueSource,
  before: Catalogue,
  count: number,
  lastUpdateBlock: number,
  scan: boolean,
): Promise<readonly RawLog[]> {
  const { address, serviceId } = source;
  const filter: LogFilter =
    serviceId === undefined ? { address } : { address, topics: [null, `${serviceId}${"00".repeat(12)}`] };
  const chained = (log: RawLog) => !isGovernedLog(log);
  if (scan) {
    const fromBlock = Math.max(source.fromBlock, before.readUpTo + 1);
    return (await scanLogs(client, filter, fromBlock, toBlock)).filter(chained);
  }
  const decode = serviceId === undefined ? decodePolicyEvent : decodeServiceEvent;
  const pointerOf = (log: RawLog): number | undefined => {
    const pointer = decoded(() => decode(log).args.previousBlock);
    return pointer !== undefined && pointer > before.readUpTo ? pointer : undefined;
  };
  const located = await walkLogs(client, filter, lastUpdateBlock, count - before.count, pointerOf, chained);
  return located.map(({ log }) => log);
}

/** The image that a verified log names, if it names one. */
function imageOf(log: RawLog, { serviceId }: CatalogueSource, listedBy: number): CatalogueImage | undefined {
  const event = decoded(() => (serviceId === undefined ? decodePolicyEvent(log) : decodeServiceEvent(log)));
  if (event === undefined || !("image" in event.args)) return undefined;
  const list = event.name === "allow_platform" ? "platform" : event.name === "allow_kms_image" ? "kmsImage" : "image";
  const bytes = fromHex(event.args.image, "image");
  const use = list === "platform" ? "platform" : "service";
  const image = decoded(() => decodeImage(bytes, use));
  return image === undefined ? undefined : { list, id: imageId(bytes), image, listedBy };
}

/** Undefined for what this version can't read: it hashed to the head, so it is the contract's, of a later version than this one. */
function decoded<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isKeysteadError(error)) return undefined;
    throw error;
  }
}
