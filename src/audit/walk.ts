import { type Block, type BlockTag, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { againOnReorg, type LocatedLog, reorg, type ScanCache, type ScanOptions } from "../chain/logs.ts";
import { memoryCache } from "../chain/scan-memory.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { decodeServiceEvent, type RawLog } from "../core/events.ts";
import { verifyServiceHistory } from "../core/history.ts";
import { rebuildService, type TimedEntry } from "../core/state.ts";
import { type Anchor, fetchServiceAnchors } from "./anchor.ts";
import { type HistorySource, type JudgedLogs, judgeLogs, readHistoryLogs } from "./history-logs.ts";
import { compareService, compareTwice } from "./rebuild.ts";
import { concludeAudit, type ServiceAudit } from "./result.ts";

/** How a history is read. */
export interface ReadOptions extends ScanOptions {
  /** The block at which everything is read. Default: `latest`. */
  readonly at?: BlockTag | undefined;
  /** Scan from this block (the contract's deployment) instead of walking backwards through the pointers. */
  readonly fromBlock?: number | undefined;
  /**
   * Other endpoints that must have the same block. A storage proof proves what a block holds; that the block is the chain's rests on whoever names its
   * hash, and with no witness that is the endpoint alone.
   */
  readonly witnesses?: readonly Client[] | undefined;
  /** The block is that of a reading around this one, which begins again at a newer block where this one can't be proved any more. */
  readonly within?: boolean | undefined;
  /** Believe that a scan's cache knows every service, instead of asking the endpoint which ones were created. */
  readonly trustCache?: boolean | undefined;
  /** Called as the services of a registry are judged. */
  readonly onService?: ((judged: number, of: number) => void) | undefined;
}

/**
 * Audits one service: fetches its history (walking backwards, two small calls a block with events), verifies it against the head, proves the head, rebuilds
 * the state and compares it with the contract's views. Starts again when the chain is reorganised meanwhile.
 *
 * @param registry the proxy
 * @param serviceId 20 bytes
 * @throws KeysteadError `audit/bad-address`, `audit/no-service`, `audit/needs-scan`; `chain/…` when the endpoint can't be asked: that is no verdict
 * @example
 * const { verdict, faults, reasons, state } = await auditService(client, registry, serviceId);
 */
export async function auditService(
  client: Client,
  registry: Hex,
  serviceId: Hex,
  options: ReadOptions = {},
): Promise<ServiceAudit> {
  const address = parseAddress(registry, "registry");
  const id = parseAddress(serviceId, "serviceId");
  return readAt(client, options, async (block, client, options) => {
    const [anchor] = await fetchServiceAnchors(client, block, address, [id]);
    if (anchor === undefined || (anchor.count === 0 && anchor.faults.length === 0)) {
      throw new KeysteadError("audit/no-service", `there is no service ${id} at block ${block.number}`, {
        argument: "serviceId",
        remedy: "Check the id, the registry and the chain.",
        details: { serviceId: id, block: block.number, basis: anchor?.basis },
      });
    }
    const located = await readHistoryLogs(client, block, anchor, sourceOf(address, id), options);
    return judgeService(client, address, block, id, anchor, located, options.fromBlock);
  });
}

const sourceOf = (address: Hex, serviceId: Hex): HistorySource => ({
  filter: { address, topics: [null, `${serviceId}${"00".repeat(12)}`] },
  pointerOf: servicePointer,
  keep: () => true,
});

/**
 * The verdict on a service's fetched logs.
 *
 * @param fromBlock where they are scanned from if they have to be read again and can't be walked
 * @throws KeysteadError when the endpoint can't be asked for the views
 * @example
 * const audit = await judgeService(client, registry, block, serviceId, anchor, located);
 */
export async function judgeService(
  client: Client,
  registry: Hex,
  block: Block,
  serviceId: Hex,
  anchor: Anchor,
  fetched: readonly LocatedLog[],
  fromBlock?: number,
): Promise<ServiceAudit> {
  const { chainId } = client;
  const expected = { ...anchor, chainId, address: registry, serviceId };
  const source = sourceOf(registry, serviceId);
  const judged = await judgeLogs(client, block, anchor, source, fetched, fromBlock, (logs, numberAt) =>
    verifyServiceHistory({ chainId, logs }, { ...expected, numberAt }),
  );
  const { verified } = judged;
  const entries = timed(judged, anchor);
  const state = verified.verdict === "broken" ? undefined : rebuildService(entries);
  const differences =
    state === undefined ? [] : await compareTwice(() => compareService(client, registry, block, serviceId, state));
  const notUnderstood = state?.notUnderstood ?? [];
  return { serviceId, ...concludeAudit({ anchor, block, verified, entries, state, differences, notUnderstood }) };
}

/** How often a reading begins again because its block is out of the endpoint's proof window, before it goes without proofs. */
const WINDOW_ATTEMPTS = 4;

/**
 * Reads at one block on which all witnesses agree, and again from the start if that block was replaced meanwhile. Where an endpoint proves only the newest
 * blocks (reth does by default) and that one no longer, it is read again at the newest, with what was scanned so far; where that does not help, or another
 * block was asked for, without proofs.
 *
 * @param read gets the block, and the client and options to read with
 * @throws KeysteadError `chain/reorg` if it keeps happening; `chain/disagreement` (retryable) {number, hash, other}; `chain/wrong-chain`; whatever `read`
 * throws
 * @example
 * await readAt(client, { at: "finalized" }, (block) => readService(client, registry, block, serviceId));
 */
export async function readAt<T, O extends ReadOptions>(
  client: Client,
  options: O,
  read: (block: Block, client: Client, options: O) => Promise<T>,
): Promise<T> {
  const { at = "latest", within = false } = options;
  for (let attempt = 1, cache = options.cache; ; attempt++) {
    const memory = at === "latest" ? memoryCache(cache) : cache;
    try {
      return await readOnce(client, { ...options, cache: memory }, read);
    } catch (error) {
      if (within || !isKeysteadError(error, "chain/proof-window")) throw error;
      if (at !== "latest" || attempt === WINDOW_ATTEMPTS) {
        return readOnce(withoutProofs(client, error), { ...options, cache: memory }, read);
      }
      cache = memory;
    }
  }
}

async function readOnce<T, O extends ReadOptions>(
  client: Client,
  options: O,
  read: (block: Block, client: Client, options: O) => Promise<T>,
): Promise<T> {
  const { at = "latest", witnesses = [] } = options;
  let cache: ScanCache | undefined = options.cache;
  return againOnReorg(async () => {
    const block = await fetchBlock(client, at);
    for (const witness of witnesses) await requireAgreement(client, witness, block);
    const used = cache;
    // what was scanned before a reorganisation is not used after it
    cache = undefined;
    const result = await read(block, client, { ...options, cache: used });
    const again = await fetchBlock(client, block.number).catch((error: unknown) => {
      throw isKeysteadError(error, "chain/no-block") ? reorg(block.number) : error;
    });
    if (again.hash !== block.hash) throw reorg(block.number);
    return result;
  });
}

/** The same endpoint, as one that offers no proofs, for the reason given. */
const withoutProofs = (client: Client, { message, remedy }: KeysteadError): Client => ({
  ...client,
  request: async (method, params, most) => {
    if (method === "eth_getProof") throw new KeysteadError("chain/unsupported", message, { remedy });
    return client.request(method, params, most);
  },
});

async function requireAgreement(client: Client, witness: Client, { number, hash }: Block): Promise<void> {
  if (witness.chainId !== client.chainId) {
    throw new KeysteadError(
      "chain/wrong-chain",
      `a witness is on chain ${witness.chainId} and not on ${client.chainId}`,
      {
        argument: "witnesses",
        remedy: "Give endpoints of one chain.",
        details: { expected: client.chainId, actual: witness.chainId },
      },
    );
  }
  const { hash: other } = await fetchBlock(witness, number);
  if (other === hash) return;
  throw new KeysteadError("chain/disagreement", `the endpoints disagree about block ${number}`, {
    argument: "witnesses",
    remedy: "Read at a finalized block. If they still disagree, one of them is wrong: find out which.",
    retryable: true,
    details: { number, hash, other },
  });
}

/**
 * Puts the times of their blocks to verified entries, and the contract's own block numbers where those are others.
 *
 * @example
 * rebuildService(timed(judged, anchor));
 */
export function timed<E>({ verified, located, numberAt }: JudgedLogs<E>, anchor: Anchor): readonly TimedEntry<E>[] {
  const blocks = new Map(located.map(({ log, block }) => [log, block]));
  return verified.entries.map((entry) => ({
    ...entry,
    timestamp: blocks.get(entry.log)?.timestamp ?? 0,
    // where nobody says what the contract saw, the anchor's number stands in: there is nothing to compare it with
    ...(numberAt === undefined ? {} : { number: numberAt(entry.log) ?? anchor.lastUpdateBlock }),
  }));
}

/**
 * An address or a service id, in any case, as 20 bytes of lower-case hex.
 *
 * @throws KeysteadError `audit/bad-address`
 * @example
 * parseAddress("0xAb…", "registry"); // "0xab…"
 */
export function parseAddress(text: string, argument: string): Hex {
  if (!/^0x[0-9a-fA-F]{40}$/.test(text)) {
    throw new KeysteadError("audit/bad-address", `${argument} is not 20 bytes of hex`, {
      argument,
      remedy: "Give 0x and 40 hex digits.",
    });
  }
  return text.toLowerCase() as Hex;
}

/** The block of the event before; unknown for an event that this version can't read. */
function servicePointer(log: RawLog): number | undefined {
  try {
    return decodeServiceEvent(log).args.previousBlock;
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
