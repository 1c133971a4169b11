import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import {
  type LocatedLog,
  type LogFilter,
  locateLogs,
  mergeLogs,
  numbersDiffer,
  scanLogs,
  walkLogs,
} from "../chain/logs.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import type { RawLog } from "../core/events.ts";
import type { VerifiedHistory } from "../core/history.ts";
import type { Anchor } from "./anchor.ts";
import type { ReadOptions } from "./walk.ts";

/** Whose logs, and how they lead to each other. */
export interface HistorySource {
  readonly filter: LogFilter;
  /** The block of the event before; undefined for a log without one. Throws `audit/needs-scan` for an event that this version does not know. */
  readonly pointerOf: (log: RawLog) => number | undefined;
  readonly keep: (log: RawLog) => boolean;
}

/** How often logs are read before what is wrong with them is held against the endpoint, and the first pause between. */
const READINGS = 3;
const PAUSE_MS = 100;

/**
 * Reads a history's logs: walked back through its pointers, or scanned from a block.
 *
 * @throws KeysteadError `audit/needs-scan` where pointers lead nowhere; as `walkLogs` and `scanLogs`
 * @example
 * const located = await readHistoryLogs(client, block, anchor, source, {});
 */
export async function readHistoryLogs(
  client: Client,
  block: Block,
  anchor: Anchor,
  source: HistorySource,
  options: ReadOptions,
): Promise<readonly LocatedLog[]> {
  const { filter, keep } = source;
  if (options.fromBlock !== undefined) {
    const logs = await scanLogs(client, filter, options.fromBlock, block.number, options);
    return locateLogs(client, logs.filter(keep));
  }
  if (block.parentNumber !== undefined || anchor.lastUpdateBlock > block.number) throw needsScan(client);
  const located = await walkLogs(client, filter, anchor.lastUpdateBlock, anchor.count, source.pointerOf, keep);
  if (located.length === 0 && anchor.count > 0 && (await numbersDiffer(client, block))) throw needsScan(client);
  return located;
}

/** A list of logs as it was judged at last. */
export interface JudgedLogs<E> {
  readonly verified: VerifiedHistory<E>;
  readonly located: readonly LocatedLog[];
  /** What `block.number` was in the contract; absent where it was the block's number. */
  readonly numberAt: ((log: RawLog) => number | undefined) | undefined;
}

/**
 * Judges logs, and reads them again before anything that is wrong with them is held against an endpoint: one of several nodes behind an address may be some
 * blocks behind and leave logs out. What comes at last alone is judged, then everything that came together; what is really wrong stays wrong.
 *
 * @example
 * const { verified } = await judgeLogs(client, block, anchor, source, located, 17, (logs, numberAt) => verify(logs, numberAt));
 */
export async function judgeLogs<E>(
  client: Client,
  block: Block,
  anchor: Anchor,
  source: HistorySource,
  located: readonly LocatedLog[],
  fromBlock: number | undefined,
  verify: (logs: readonly RawLog[], numberAt: JudgedLogs<E>["numberAt"]) => VerifiedHistory<E>,
): Promise<JudgedLogs<E>> {
  const judge = async (part: readonly LocatedLog[]): Promise<JudgedLogs<E>> => {
    const logs = part.map(({ log }) => log);
    const numberAt = parentNumbers(block, part);
    const verified = verify(logs, numberAt);
    const { agree } = verified.pointers;
    if (agree || numberAt !== undefined || !(await numbersDiffer(client, block))) {
      return { verified, located: part, numberAt };
    }
    const unknown = () => undefined;
    return { verified: verify(logs, unknown), located: part, numberAt: unknown };
  };
  const first = await judge(located);
  // logs of a history that never was: whoever gave them made them up
  if (anchor.count === 0) return first;
  let all = located;
  for (let reading = 1; reading < READINGS && isFaulty(first); reading++) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * reading));
    const again = await readAnew(client, block, anchor, source, fromBlock);
    all = mergeLocated(all, again);
    for (const part of [again, all]) {
      const judged = await judge(part);
      if (!isFaulty(judged)) return judged;
    }
  }
  return first;
}

const isFaulty = ({ verified }: JudgedLogs<unknown>) => verified.faults.length > 0;

/** By hash where that can be: a node that has not got that far can't answer with less then. */
async function readAnew(
  client: Client,
  block: Block,
  anchor: Anchor,
  source: HistorySource,
  fromBlock: number | undefined,
): Promise<readonly LocatedLog[]> {
  try {
    return await readHistoryLogs(client, block, anchor, source, {});
  } catch (error) {
    if (!isKeysteadError(error, "audit/needs-scan") || fromBlock === undefined) throw error;
    return readHistoryLogs(client, block, anchor, source, { fromBlock });
  }
}

function mergeLocated(a: readonly LocatedLog[], b: readonly LocatedLog[]): readonly LocatedLog[] {
  const blocks = new Map([...a, ...b].map(({ log, block }) => [log.blockHash, block]));
  return mergeLogs([a.map(({ log }) => log), b.map(({ log }) => log)]).flatMap((log) => {
    const block = blocks.get(log.blockHash);
    return block === undefined ? [] : [{ log, block }];
  });
}

/** Where headers name the parent chain's block, that is what the contract saw. */
function parentNumbers(block: Block, located: readonly LocatedLog[]): JudgedLogs<unknown>["numberAt"] {
  if (block.parentNumber === undefined) return undefined;
  const numbers = new Map(located.map(({ log, block: own }) => [log.blockHash, own.parentNumber]));
  return ({ blockHash }) => numbers.get(blockHash);
}

function needsScan(client: Client): KeysteadError {
  const chain = `chain ${client.chainId}`;
  return new KeysteadError(
    "audit/needs-scan",
    `on ${chain} a history can't be walked: a contract's block.number is not the number of its block there (Arbitrum, Orbit)`,
    {
      argument: "fromBlock",
      remedy: "Give the block in which the contract was deployed, or its deployment's record.",
      details: { chainId: client.chainId },
    },
  );
}
