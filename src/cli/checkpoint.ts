import { rename, rm, writeFile } from "node:fs/promises";
import type { ScanCache, ScanKey, ScanPart } from "../chain/logs.ts";
import { decodeUtf8, type Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import type { RawLog } from "../core/events.ts";
import { isJsonArray, isJsonObject, type JsonValue, parseJson } from "../core/json.ts";
import { parseLog } from "../core/log.ts";
import type { Io } from "./io.ts";

/*
 * What a scan had found when it was interrupted, in a file. Whoever can write the file can write anything into it, so it is one more endpoint that may
 * lie: its shape is checked here, its last block against the chain, its histories against their heads, and its services against those created.
 */

const FORMAT = "keystead.audit-checkpoint/1";
const LIMIT = 1024 * 1024 * 1024;
/** Milliseconds between two writings. */
const EVERY = 3000;

/** A cache in a file. */
export interface Checkpoint extends ScanCache {
  /** Removes the file: what was to be done is done. */
  remove(): Promise<void>;
}

/**
 * Opens a checkpoint; a file that is not there yet is an empty one.
 *
 * @param every milliseconds between two writings
 * @throws KeysteadError `checkpoint/malformed` for a file that is none; as `Io.readFile`; writing: `checkpoint/not-writable`
 * @example
 * const cache = await openCheckpoint(io, "audit.checkpoint.json");
 */
export async function openCheckpoint(io: Io, path: string, every = EVERY): Promise<Checkpoint> {
  const kept = await readCheckpoint(io, path);
  const parts = new Map(kept);
  let used = false;
  let written = Date.now();
  return {
    load(key) {
      const name = nameOf(key);
      const part = kept.get(name);
      kept.delete(name);
      used ||= part !== undefined;
      return part;
    },
    used: () => used,
    due: () => Date.now() - written >= every,
    async save(key, part) {
      parts.set(nameOf(key), part);
      await write(
        path,
        JSON.stringify({ format: FORMAT, scans: [...parts].map(([scan, found]) => ({ scan, ...found })) }),
      );
      written = Date.now();
    },
    remove: () => rm(path, { force: true }),
  };
}

function nameOf({ chainId, address, topics = [], fromBlock }: ScanKey): string {
  return JSON.stringify([chainId, address, topics, fromBlock]);
}

/** Whole or not at all: a reader never finds half a file. */
async function write(path: string, text: string): Promise<void> {
  const draft = `${path}.${process.pid}.tmp`;
  try {
    await writeFile(draft, text, { mode: 0o600 });
    await rename(draft, path);
  } catch (cause) {
    throw new KeysteadError("checkpoint/not-writable", `${path} cannot be written`, {
      argument: "checkpoint",
      remedy: "Give a path in a folder that you may write to.",
      cause,
    });
  }
}

async function readCheckpoint(io: Io, path: string): Promise<Map<string, ScanPart>> {
  let bytes: Uint8Array;
  try {
    ({ bytes } = await io.readFile(path, { limit: LIMIT, argument: "checkpoint" }));
  } catch (error) {
    if (isKeysteadError(error, "input/not-found")) return new Map();
    throw error;
  }
  try {
    const value = parseJson(decodeUtf8(bytes, "checkpoint"), "checkpoint");
    if (!isJsonObject(value) || value.format !== FORMAT || !isJsonArray(value.scans)) throw malformed("it is none");
    return new Map(value.scans.map(readScan));
  } catch (cause) {
    if (!isKeysteadError(cause) || cause.code === "checkpoint/malformed") throw cause;
    throw malformed(cause.message, cause);
  }
}

function readScan(value: JsonValue): [string, ScanPart] {
  if (!isJsonObject(value)) throw malformed("a scan is no object");
  const { scan, toBlock, blockHash, logs } = value;
  if (typeof scan !== "string" || !isJsonArray(logs)) throw malformed("a scan has no name or no logs");
  if (typeof toBlock !== "number" || !Number.isSafeInteger(toBlock) || toBlock < 0)
    throw malformed("a scan has no end");
  if (typeof blockHash !== "string" || !/^0x[0-9a-f]{64}$/.test(blockHash))
    throw malformed("a scan's block has no hash");
  return [scan, { toBlock, blockHash: blockHash as Hex, logs: logs.map(readLog) }];
}

/** Logs are kept as numbers and read as quantities, so that one checker judges endpoints and files. */
function readLog(value: JsonValue): RawLog {
  if (!isJsonObject(value)) throw malformed("a log is no object");
  const quantity = (number: JsonValue | undefined) =>
    typeof number === "number" ? `0x${number.toString(16)}` : number;
  return parseLog({ ...value, blockNumber: quantity(value.blockNumber), logIndex: quantity(value.logIndex) });
}

function malformed(why: string, cause?: unknown): KeysteadError {
  return new KeysteadError("checkpoint/malformed", `the checkpoint can't be read: ${why}`, {
    argument: "checkpoint",
    remedy: "Give another path, or delete the file: the audit then starts from the beginning.",
    cause,
  });
}
