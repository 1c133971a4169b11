import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import type { RawLog } from "../core/events.ts";
import { parseLog } from "../core/log.ts";
import { type Block, blockParameter, fetchBlock } from "./block.ts";
import { type Client, mapLimited } from "./client.ts";
import { createLogRange } from "./log-range.ts";

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
    if (!isKeysteadError(error) || (error.retryable && error.code !== "chain/no-block")) throw error;
    // Nodes refuse a hash that a reorganisation took away; in what words differs.
    if ((await fetchBlock(client, block.number)).hash !== block.hash) throw reorg(block.number);
    if (error.retryable) throw error;
    // Not every service takes a hash: then its number, and what comes is held against the hash below.
    return getLogs(client, filter, rangeOf(block.number, block.number)).catch(() => {
      throw error;
    });
  });
  for (const log of logs) {
    if (log.blockHash !== block.hash || log.blockNumber !== block.number) throw reorg(block.number);
  }
  return logs;
}

/** `NUMBER`, stored and returned: run as a creation, it gives what contracts see as `block.number`. */
const OWN_NUMBER = "0x4360005260206000f3";

/**
 * Whether `block.number` in a contract is another number than the block's, so that pointers lead nowhere: on Arbitrum and every chain of its stack. Their
 * headers say so (`l1BlockNumber`), which costs nothing to see; an endpoint that leaves that out is asked what a contract sees.
 *
 * @returns false also where the endpoint does not run such a question
 * @example
 * if (await numbersDiffer(client, block)) await scanLogs(client, filter, deployedAt, block.number);
 */
export async function numbersDiffer(client: Client, block: Block): Promise<boolean> {
  if (block.parentNumber !== undefined) return true;
  try {
    const answer = await client.request("eth_call", [{ data: OWN_NUMBER }, blockParameter(block.number)]);
    return typeof answer === "string" && /^0x[0-9a-f]{64}$/i.test(answer) && BigInt(answer) !== BigInt(block.number);
  } catch (error) {
    if (isKeysteadError(error) && !error.retryable) return false;
    throw error;
  }
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
  readonly onProgress?:
    | ((done: { readonly block: number; readonly toBlock: number; readonly logs: number }) => void)
    | undefined;
  readonly cache?: ScanCache | undefined;
  /** Don't ask for the end again: the caller will. */
  readonly once?: boolean | undefined;
}

/** Blocks at the end of a scan that are asked for twice: a node that is behind knows none of their logs, and does not say so. */
const TAIL = 64;

/**
 * Fetches all logs of a range of blocks, in as many questions as the endpoint needs ({@link LogRange}): whatever refuses a range of more than one block makes
 * the next one smaller. The end is asked for again, and its last block by hash, for one of several nodes behind an address may be some blocks behind and
 * leave out logs without an error.
 *
 * @returns the logs, each once, in the chain's order: unverified
 * @throws KeysteadError what a single block is refused with; as {@link Client.request}
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
  const keep = async (to: number, logs: readonly RawLog[]) => {
    const { hash: blockHash } = await fetchBlock(client, to);
    await cache?.save(key, { toBlock: to, blockHash, logs });
  };
  const known = cache === undefined ? undefined : await resume(client, cache.load(key), fromBlock, toBlock);
  const found: (readonly RawLog[])[] = [known?.logs ?? []];
  let count = known?.logs.length ?? 0;
  const range = client.logRange ?? createLogRange();
  for (let from = known === undefined ? fromBlock : known.toBlock + 1; from <= toBlock; ) {
    const size = Math.min(range.size(), toBlock - from + 1);
    const to = from + size - 1;
    try {
      const part = await getRange(client, filter, from, to);
      range.took(size);
      found.push(part);
      count += part.length;
      from = to + 1;
    } catch (error) {
      const hint = isKeysteadError(error) ? refusalOf(error, size) : undefined;
      if (hint !== undefined && range.refused(size, hint)) continue;
      // What was found so far is kept if it can be: the failure that counts is the scan's.
      if (cache !== undefined && from > fromBlock) await keep(from - 1, found.flat()).catch(() => {});
      throw error;
    }
    onProgress?.({ block: to, toBlock, logs: count });
    if (cache?.due() === true && from <= toBlock) await keep(to, found.flat());
  }
  if (toBlock < fromBlock) return mergeLogs(found);
  const logs = mergeLogs([...found, ...(await readTail(client, filter, fromBlock, toBlock, options.once))]);
  requireOneChain(logs);
  if (cache !== undefined) await keep(toBlock, logs);
  return logs;
}

/** The end of a range once more, and its last block by hash: a node that has not got there can answer the former with too little, the latter not. */
async function readTail(client: Client, filter: LogFilter, fromBlock: number, toBlock: number, once = false) {
  const last = await fetchLogsIn(client, await fetchBlock(client, toBlock), filter);
  const from = Math.max(fromBlock, toBlock - Math.min(TAIL, client.logRange?.size() ?? TAIL) + 1);
  // It is a second look, and no answer to it takes anything away from the first.
  const again =
    once || from === toBlock ? [] : await getLogs(client, filter, rangeOf(from, toBlock), 2).catch(() => []);
  return [again, last];
}

/** Logs of two blocks of the same number: the chain moved between two answers. */
function requireOneChain(logs: readonly RawLog[]): void {
  for (const [at, { blockNumber, blockHash }] of logs.entries()) {
    const before = logs[at - 1];
    if (before?.blockNumber === blockNumber && before.blockHash !== blockHash) throw reorg(blockNumber);
  }
}

/** One range. Asked for often only where it is the endpoint's state that is in the way, not the range. */
async function getRange(client: Client, filter: LogFilter, from: number, to: number): Promise<readonly RawLog[]> {
  if (from === to) return getLogs(client, filter, rangeOf(from, to));
  return getLogs(client, filter, rangeOf(from, to), 2).catch((error: unknown) => {
    const { network, timedOut } = isKeysteadError(error) ? error.details : {};
    const busy = isKeysteadError(error, "chain/rate-limited") || (network === true && timedOut !== true);
    if (busy) return getLogs(client, filter, rangeOf(from, to));
    throw error;
  });
}

/** What a failure says about the range; undefined where it says nothing: no endpoint was there, or its answer is no list of logs. */
function refusalOf(error: KeysteadError, size: number): string | undefined {
  if (!error.code.startsWith("chain/")) return undefined;
  // waiting takes long: much smaller at once
  if (error.details.timedOut === true) return String(Math.ceil(size / 10));
  return error.details.network === true ? undefined : error.message;
}

const rangeOf = (from: number, to: number) => ({
  fromBlock: `0x${from.toString(16)}`,
  toBlock: `0x${to.toString(16)}`,
});

/**
 * Lists of logs as one, each log once and in the chain's order: some endpoints give a log twice, or in another order.
 *
 * @example
 * mergeLogs([before, again]);
 */
export function mergeLogs(parts: readonly (readonly RawLog[])[]): readonly RawLog[] {
  const byPlace = new Map<string, RawLog>();
  for (const log of parts.flat()) {
    const { blockNumber, blockHash, logIndex, topics, data, address } = log;
    byPlace.set([blockNumber, blockHash, logIndex, address, ...topics, data].join(), log);
  }
  return [...byPlace.values()].sort((a, b) => a.blockNumber - b.blockNumber || a.logIndex - b.logIndex);
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
  most?: number,
): Promise<readonly RawLog[]> {
  const topics = filter.topics ?? [];
  const answer = await askForLogs(client, [{ address: filter.address, topics, ...where }], most);
  if (!Array.isArray(answer)) {
    throw new KeysteadError("log/malformed", "the endpoint answers eth_getLogs with something that is not a list", {
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
  return mergeLogs([answer.map((entry) => parseLog(entry))]);
}

/**
 * Asks `eth_getLogs`. No logs are null at some endpoints; a node that failed may say so too, but hardly twice.
 *
 * @param params of the call
 * @param most as in {@link Client.request}
 * @returns the answer, unchecked; an empty list where it was null twice
 * @throws KeysteadError as {@link Client.request}
 * @example
 * await askForLogs(client, [{ address: registry, fromBlock: "0x0", toBlock: "latest" }]); // [] and not null
 */
export async function askForLogs(client: Client, params: readonly unknown[], most?: number): Promise<unknown> {
  const ask = () => client.request("eth_getLogs", params, most);
  return (await ask()) ?? (await ask()) ?? [];
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

/** Pauses before what an endpoint left out is asked for again, in milliseconds. */
const AGAIN_AFTER: readonly number[] = [200, 1000];

/**
 * Runs a reading again that found logs missing, before that is held against the endpoint: one of several nodes behind an address may be some blocks behind.
 *
 * @param code of the error that says so
 * @throws whatever the last attempt threw
 * @example
 * await askAgain("chain/incomplete-logs", () => readTimelockLog(client, block, timelock, 17));
 */
export async function askAgain<T>(code: string, read: () => Promise<T>): Promise<T> {
  for (const pause of AGAIN_AFTER) {
    try {
      return await read();
    } catch (error) {
      if (!isKeysteadError(error, code)) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  return read();
}
