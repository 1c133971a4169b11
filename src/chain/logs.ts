import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import type { RawLog } from "../core/events.ts";
import { parseLog } from "../core/log.ts";
import { type Block, fetchBlock } from "./block.ts";
import { type Client, mapLimited } from "./client.ts";

/** Which logs: one contract's, and of those the ones whose topics match (null matches any, a list any of its members). */
export interface LogFilter {
  readonly address: Hex;
  readonly topics?: readonly (Hex | readonly Hex[] | null)[];
}

/** A log and the header of its block. */
export interface LocatedLog {
  readonly log: RawLog;
  readonly block: Block;
}

/** Where `block.number` in a contract is not the number of the log's block: Arbitrum One, Nova, Sepolia. Pointers lead nowhere there. */
export const POINTERLESS_CHAINS: ReadonlySet<number> = new Set([42161, 42170, 421614]);

/** The most logs that one answer may hold. */
const MAX_LOGS = 100_000;
/** Headers asked for at the same time. */
const CONCURRENCY = 8;

/**
 * Fetches the logs of one block by its hash: an endpoint that has another block at that height can't answer with that one's.
 *
 * @throws KeysteadError as `parseLog` and {@link Client.request}; `chain/reorg` (retryable) for a log of another block
 * @example
 * const logs = await fetchLogsIn(client, await fetchBlock(client, 17), { address: registry });
 */
export async function fetchLogsIn(client: Client, block: Block, filter: LogFilter): Promise<readonly RawLog[]> {
  const logs = await getLogs(client, filter, { blockHash: block.hash }).catch(async (error: unknown) => {
    // Nodes refuse a hash that a reorganisation took away; in what words differs.
    if (isKeysteadError(error) && !error.retryable && (await fetchBlock(client, block.number)).hash !== block.hash) {
      throw reorg(block.number);
    }
    throw error;
  });
  for (const log of logs) {
    if (log.blockHash !== block.hash || log.blockNumber !== block.number) throw reorg(block.number);
  }
  return logs;
}

/** How a walk reads the pointer of a log. */
export type PointerOf = (log: RawLog) => number | undefined;

/**
 * Walks a history backwards through its pointers, two small calls a block: the header, and the logs by its hash. The number of calls grows with the
 * history and not with the chain.
 *
 * What comes back is unverified. A walk that finds no log where a pointer leads ends there: verification then finds events missing.
 *
 * @param lastBlock the block of the latest event; 0 if there is none
 * @param maxLogs an upper bound of the history's length: a walk that finds more ends
 * @returns the logs, oldest first
 * @throws KeysteadError `chain/reorg` (retryable), as {@link fetchLogsIn} and `fetchBlock`
 * @example
 * const located = await walkLogs(client, { address: registry, topics: [null, topic] }, view.lastUpdateBlock, view.sequence, pointerOf);
 */
export async function walkLogs(
  client: Client,
  filter: LogFilter,
  lastBlock: number,
  maxLogs: number,
  pointerOf: PointerOf,
  keep: (log: RawLog) => boolean = () => true,
): Promise<readonly LocatedLog[]> {
  const found: LocatedLog[][] = [];
  let count = 0;
  let at: number | undefined = lastBlock;
  while (at !== undefined && at > 0 && count <= maxLogs) {
    const block: Block = await fetchBlock(client, at);
    const logs = (await fetchLogsIn(client, block, filter)).filter(keep);
    found.push(logs.map((log) => ({ log, block })));
    count += logs.length;
    const first: RawLog | undefined = logs[0];
    const pointer = first === undefined ? undefined : pointerOf(first);
    // Strictly backwards: a pointer that does not lead back would make the walk endless.
    at = pointer !== undefined && pointer < at ? pointer : undefined;
  }
  return found.reverse().flat();
}

/** Which scan it is: the same key asks for the same logs. */
export interface ScanKey extends LogFilter {
  readonly chainId: number;
  readonly fromBlock: number;
}

/** What a scan found up to a block. */
export interface ScanPart {
  readonly toBlock: number;
  /** The block's hash: where it is no longer that, nothing of the part is used. */
  readonly blockHash: Hex;
  readonly logs: readonly RawLog[];
}

/** Where a scan that was interrupted finds what it had. Not believed: logs that come from it are verified as if an endpoint had given them. */
export interface ScanCache {
  /** What is known, the first time that it is asked for: what led nowhere once is not to lead there again. Undefined where nothing is. */
  load(key: ScanKey): ScanPart | undefined;
  /** Whether `load` gave anything. */
  used(): boolean;
  /** Whether it is time to keep what was found. */
  due(): boolean;
  save(key: ScanKey, part: ScanPart): Promise<void>;
}

/** How a scan goes about a long range. */
export interface ScanOptions {
  /** Blocks in the first request. Default: 10000. Made smaller where the endpoint finds it too much, larger where it does not. */
  readonly chunk?: number | undefined;
  readonly onProgress?:
    | ((done: { readonly block: number; readonly toBlock: number; readonly logs: number }) => void)
    | undefined;
  readonly cache?: ScanCache | undefined;
}

/** More blocks are never asked for at once. */
const LARGEST_CHUNK = 1_000_000;
/** After so many chunks as large as the endpoint is known to take, a larger one is tried again. */
const PROBE_AFTER = 32;

/**
 * Fetches all logs of a range of blocks, in chunks that adapt to what the endpoint takes: they double until one is too much, close in on the largest that is
 * not, and stay there.
 *
 * @returns the logs in the order in which the endpoint gives them: unverified
 * @throws KeysteadError `chain/too-much` if a single block is too much; as {@link Client.request}
 * @example
 * const logs = await scanLogs(client, { address: registry }, deployedAt, block.number);
 */
export async function scanLogs(
  client: Client,
  filter: LogFilter,
  fromBlock: number,
  toBlock: number,
  options: ScanOptions = {},
): Promise<readonly RawLog[]> {
  const { cache, onProgress } = options;
  const key: ScanKey = { ...filter, chainId: client.chainId, fromBlock };
  const keep = async (to: number) => {
    const { hash: blockHash } = await fetchBlock(client, to);
    await cache?.save(key, { toBlock: to, blockHash, logs: found.flat() });
  };
  const known = cache === undefined ? undefined : await resume(client, cache.load(key), fromBlock, toBlock);
  const found: (readonly RawLog[])[] = [known?.logs ?? []];
  let logs = known?.logs.length ?? 0;
  let chunk = options.chunk ?? 10_000;
  let taken = 0;
  let tooMuch = Number.POSITIVE_INFINITY;
  let steady = 0;
  for (let from = known === undefined ? fromBlock : known.toBlock + 1; from <= toBlock; ) {
    const to = Math.min(from + chunk - 1, toBlock);
    const size = to - from + 1;
    try {
      const range = { fromBlock: `0x${from.toString(16)}`, toBlock: `0x${to.toString(16)}` };
      const part = await getLogs(client, filter, range);
      found.push(part);
      logs += part.length;
      from = to + 1;
      taken = size;
      steady += 1;
      if (size >= tooMuch) tooMuch = Number.POSITIVE_INFINITY;
      if (tooMuch === Number.POSITIVE_INFINITY || steady >= PROBE_AFTER) {
        chunk = Math.min(chunk * 2, LARGEST_CHUNK);
        steady = 0;
      } else if (tooMuch - chunk > chunk / 8) {
        chunk = Math.floor((chunk + tooMuch) / 2);
        steady = 0;
      }
      onProgress?.({ block: to, toBlock, logs });
    } catch (error) {
      if (!isKeysteadError(error, "chain/too-much") || size === 1) {
        // What was found so far is kept if it can be: the failure that counts is the scan's.
        if (cache !== undefined && from > fromBlock) await keep(from - 1).catch(() => {});
        throw error;
      }
      chunk = taken > 0 && taken < size ? taken : Math.floor(size / 2);
      tooMuch = Math.min(tooMuch, size);
      taken = 0;
      steady = 0;
      continue;
    }
    if (cache !== undefined && (from > toBlock || cache.due())) await keep(to);
  }
  return found.flat();
}

/** What was kept, as far as it belongs to this range and this chain still has its last block. */
async function resume(
  client: Client,
  part: ScanPart | undefined,
  fromBlock: number,
  toBlock: number,
): Promise<Pick<ScanPart, "toBlock" | "logs"> | undefined> {
  if (part === undefined || part.toBlock < fromBlock) return undefined;
  const block = await fetchBlock(client, part.toBlock).catch((error: unknown) => {
    if (isKeysteadError(error, "chain/no-block")) return undefined;
    throw error;
  });
  if (block?.hash !== part.blockHash) return undefined;
  return { toBlock: Math.min(part.toBlock, toBlock), logs: part.logs.filter((log) => log.blockNumber <= toBlock) };
}

/**
 * Fetches the headers of the blocks that logs are in, one a block, and checks each log against its own.
 *
 * @throws KeysteadError `chain/reorg` (retryable) if a log's block is not the one at its height
 * @example
 * const located = await locateLogs(client, logs);
 */
export async function locateLogs(client: Client, logs: readonly RawLog[]): Promise<readonly LocatedLog[]> {
  const numbers = [...new Set(logs.map((log) => log.blockNumber))];
  const blocks = await mapLimited(numbers, CONCURRENCY, (number) => fetchBlock(client, number));
  const byNumber = new Map(blocks.map((block) => [block.number, block]));
  return logs.map((log) => {
    const block = byNumber.get(log.blockNumber);
    if (block === undefined || block.hash !== log.blockHash) throw reorg(log.blockNumber);
    return { log, block };
  });
}

async function getLogs(
  client: Client,
  filter: LogFilter,
  where: { readonly blockHash: Hex } | { readonly fromBlock: string; readonly toBlock: string },
): Promise<readonly RawLog[]> {
  const topics = filter.topics ?? [];
  const answer = await client.request("eth_getLogs", [{ address: filter.address, topics, ...where }]);
  if (!Array.isArray(answer)) {
    throw new KeysteadError("log/malformed", "the endpoint answers eth_getLogs with no list", {
      argument: "logs",
      remedy: "Use another endpoint.",
      details: { field: "logs" },
    });
  }
  if (answer.length > MAX_LOGS) {
    throw new KeysteadError("chain/too-much", `the endpoint answers with ${answer.length} logs`, {
      remedy: "Ask for fewer blocks at once.",
    });
  }
  return answer.map((entry) => parseLog(entry));
}

/**
 * The error for a chain that changed while it was read.
 *
 * @example
 * if (again.hash !== block.hash) throw reorg(block.number);
 */
export function reorg(block: number): KeysteadError {
  return new KeysteadError("chain/reorg", `block ${block} was replaced while the chain was read`, {
    remedy: "Try again, or read at a finalized block.",
    retryable: true,
    details: { block },
  });
}

/**
 * Runs a reading of the chain again when a reorganisation interrupted it.
 *
 * @param attempts how often at most
 * @throws whatever the last attempt threw
 * @example
 * await againOnReorg(() => auditOnce(client));
 */
export async function againOnReorg<T>(read: () => Promise<T>, attempts = 3): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await read();
    } catch (error) {
      const moved = isKeysteadError(error, "chain/reorg") || isKeysteadError(error, "log/removed");
      if (!moved || attempt >= attempts) throw error;
    }
  }
}
