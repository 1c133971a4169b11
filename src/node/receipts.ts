import { createHash } from "node:crypto";
import { constants, fstatSync } from "node:fs";
import { access, type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { parseMessage, type Receipt, receiptSchema } from "../core/release-wire.ts";

/*
 * Receipts, one line of JSON each, appended and flushed before anything that they are for leaves the node. A flush serves every receipt that waits for one
 * (group commit): while the disk works, the next group gathers. Each line holds the SHA-256 of the line before it, so a file that was cut, edited or mixed
 * up does not open. A line without its end is what a crash leaves of a group whose answers never left: it is cut off when the file is opened.
 */

const lineSchema = z.strictObject({
  sequence: z.int().positive(),
  previous: z.string().regex(/^[0-9a-f]{64}$/),
  receipt: receiptSchema,
});

const FIRST_PREVIOUS = "00".repeat(32);
/** Every so many lines their offset is remembered: pages are read from the nearest. */
const STRIDE = 64;
const CHUNK_BYTES = 1024 * 1024;
const MAX_LINE_BYTES = 64 * 1024;
const NEWLINE = 0x0a;

/** A receipt and its place. */
export interface NumberedReceipt {
  readonly sequence: number;
  readonly receipt: Receipt;
}

/** Receipts that last. */
export interface ReceiptLog {
  /**
   * Writes a receipt; when this resolves, it is on the disk.
   *
   * @returns its sequence number
   * @throws KeysteadError `receipts/not-written` (retryable), `receipts/changed`, `receipts/closed`
   */
  readonly append: (receipt: Receipt) => Promise<number>;
  /** Receipts after a sequence number, oldest first. */
  readonly page: (after: number, limit: number) => Promise<readonly NumberedReceipt[]>;
  /** How many there are. */
  readonly count: () => number;
  /** Bytes that a crash had left of an unfinished group, cut off at opening. */
  readonly cutOff: number;
  /**
   * Why receipts can't be written, for readiness checks: the code of the last failure. One that may pass by itself is told for half a minute, so that
   * requests come again and show whether it did.
   */
  readonly fault: () => string | undefined;
  readonly close: () => Promise<void>;
}

/** Between two looks at a file with an unfinished end: a crash's stays as it is, a writer's grows. */
const SETTLE_MS = 250;
const FAULT_MS = 30_000;

const refuse = (code: string, message: string, remedy: string, retryable = false, cause?: unknown) =>
  new KeysteadError(`receipts/${code}`, message, { argument: "receipts", remedy, retryable, cause });

interface Waiting {
  readonly receipt: Receipt;
  readonly resolve: (sequence: number) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Opens a file of receipts, or makes it (mode 0600).
 *
 * @throws KeysteadError `receipts/not-opened`, `receipts/corrupt` {line}, `receipts/changed` where another process is writing to it
 * @example
 * const log = await openReceiptLog("/var/lib/keystead/receipts.jsonl");
 * await log.append(receipt);
 */
export async function openReceiptLog(path: string): Promise<ReceiptLog> {
  const handle = await openFile(path);
  const found = await scan(handle, path).catch(async (error) => {
    await handle.close();
    throw error;
  });
  const offsets = found.offsets;
  let { size, sequence, previous } = found;
  if (found.cutOff > 0) {
    await sleep(SETTLE_MS);
    if ((await handle.stat()).size !== found.size + found.cutOff) {
      await handle.close();
      throw inUse(path);
    }
    await handle.truncate(size);
    await handle.sync();
  }
  let waiting: Waiting[] = [];
  let working: Promise<void> | undefined;
  let closed = false;
  let fault: { readonly code: string; readonly until: number } | undefined;

  const writeGroup = async (group: readonly Waiting[]): Promise<void> => {
    const lines: Buffer[] = [];
    const starts: number[] = [];
    let [end, last, hash] = [size, sequence, previous];
    for (const { receipt } of group) {
      last += 1;
      const line = Buffer.from(`${JSON.stringify({ sequence: last, previous: hash, receipt })}\n`);
      starts.push(end);
      lines.push(line);
      end += line.length;
      hash = hashLine(line);
    }
    try {
      // Another process that writes here would break the chain: better no release than a receipt that does not open.
      const { size: actual } = fstatSync(handle.fd);
      if (actual !== size) {
        throw inUse(path, `${path} has ${actual} bytes and should have ${size}: something else writes to it`);
      }
      await writeAll(handle, Buffer.concat(lines), size);
      await handle.datasync();
    } catch (cause) {
      const error = isKeysteadError(cause)
        ? cause
        : refuse(
            "not-written",
            `${path} cannot be written${because(cause)}`,
            "Check the disk and its free space.",
            true,
            cause,
          );
      fault = { code: error.code, until: error.retryable ? performance.now() + FAULT_MS : Number.POSITIVE_INFINITY };
      // What was written of the group must not stay: its receipts are for releases that will not happen.
      if (error.code === "receipts/not-written") await handle.truncate(size).catch(() => undefined);
      for (const { reject } of group) reject(error);
      return;
    }
    fault = undefined;
    starts.forEach((start, index) => {
      if ((sequence + index) % STRIDE === 0) offsets.push(start);
    });
    const first = sequence + 1;
    [size, sequence, previous] = [end, last, hash];
    group.forEach(({ resolve }, index) => {
      resolve(first + index);
    });
  };

  const work = async (): Promise<void> => {
    while (waiting.length > 0) {
      const group = waiting;
      waiting = [];
      await writeGroup(group);
    }
    working = undefined;
  };

  return {
    cutOff: found.cutOff,
    count: () => sequence,
    fault: () => (fault !== undefined && performance.now() < fault.until ? fault.code : undefined),
    append: (receipt) =>
      new Promise((resolve, reject) => {
        if (closed) return reject(refuse("closed", "the node is stopping", "Ask another node.", true));
        waiting.push({ receipt, resolve, reject });
        working ??= work();
      }),
    page: async (after, limit) => {
      const end = size;
      const wanted: NumberedReceipt[] = [];
      if (after >= sequence || limit < 1) return wanted;
      const start = offsets[Math.floor(after / STRIDE)] ?? 0;
      for await (const { line } of readLines(handle, start, end)) {
        const parsed = parseLine(line, path, 0);
        if (parsed.sequence > after) wanted.push({ sequence: parsed.sequence, receipt: parsed.receipt });
        if (wanted.length >= limit) break;
      }
      return wanted;
    },
    close: async () => {
      closed = true;
      await working;
      await handle.close();
    },
  };
}

/**
 * Looks through a file of receipts and changes nothing, so that a node may be running with it.
 *
 * @returns how many receipts it holds, and the bytes of an unfinished one at its end; `undefined` if there is no file yet, and one can be made
 * @throws KeysteadError `receipts/not-opened`, `receipts/corrupt` {line}
 * @example
 * const found = await inspectReceiptLog("/var/lib/keystead/receipts.jsonl");
 */
export async function inspectReceiptLog(
  path: string,
): Promise<{ readonly count: number; readonly unfinishedBytes: number } | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    if (errnoOf(cause) !== "ENOENT") throw notOpened(path, cause);
    await access(dirname(path), constants.W_OK | constants.X_OK).catch((refused: unknown) => {
      throw notOpened(path, refused);
    });
    return undefined;
  }
  try {
    if (!(await handle.stat()).isFile()) throw notOpened(path);
    const { sequence, cutOff } = await scan(handle, path);
    return { count: sequence, unfinishedBytes: cutOff };
  } finally {
    await handle.close();
  }
}

const errnoOf = (cause: unknown): string | undefined =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : undefined;

/** The system's word for it, such as ENOSPC: whoever reads the log looks for that. */
function because(cause: unknown): string {
  const errno = errnoOf(cause);
  return errno === undefined ? "" : `: ${errno}`;
}

const notOpened = (path: string, cause?: unknown) =>
  refuse(
    "not-opened",
    `${path} cannot be opened${because(cause)}`,
    "Check the path and who may write there.",
    false,
    cause,
  );

const inUse = (path: string, message = `${path} grows while it is opened: something else writes to it`) =>
  refuse("changed", message, "Give each node its own file of receipts, and restart this one.");

async function openFile(path: string): Promise<FileHandle> {
  try {
    const handle = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    if ((await handle.stat()).isFile()) {
      const folder = await open(dirname(path), "r");
      await folder.sync().finally(() => folder.close());
      return handle;
    }
    await handle.close();
    throw new Error("not a file");
  } catch (cause) {
    throw notOpened(path, cause);
  }
}

async function writeAll(handle: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, at, bytes.length - at, position + at);
    at += bytesWritten;
  }
}

const hashLine = (line: Uint8Array): string => createHash("sha256").update(line).digest("hex");

/** Whole lines, each with its end, from `start` to `end`. */
async function* readLines(handle: FileHandle, start: number, end: number) {
  let rest: Buffer = Buffer.alloc(0);
  let offset = start;
  for (let at = start; at < end; ) {
    const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, end - at));
    const { bytesRead } = await handle.read(chunk, 0, chunk.length, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    rest = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
    let from = 0;
    for (let newline = rest.indexOf(NEWLINE); newline >= 0; newline = rest.indexOf(NEWLINE, from)) {
      const line = rest.subarray(from, newline + 1);
      yield { line, offset };
      offset += line.length;
      from = newline + 1;
    }
    rest = rest.subarray(from);
    // Nothing that this file writes is so long: without this bound a file without line ends would be read whole.
    if (rest.length > MAX_LINE_BYTES) return;
  }
}

const corrupt = (path: string, line: number, cause?: unknown) =>
  new KeysteadError("receipts/corrupt", `${path} is corrupt at line ${line}`, {
    argument: "receipts",
    remedy: "Keep the file for the auditors, and start with a new one.",
    details: { line },
    cause,
  });

function parseLine(line: Buffer, path: string, number: number): z.infer<typeof lineSchema> {
  try {
    return parseMessage(lineSchema, line.toString("utf8"), path);
  } catch (cause) {
    throw corrupt(path, number, cause);
  }
}

/** Checks the whole file, and says where it ends. */
async function scan(handle: FileHandle, path: string) {
  const { size: actual } = await handle.stat();
  const offsets: number[] = [];
  let size = 0;
  let sequence = 0;
  let previous = FIRST_PREVIOUS;
  for await (const { line, offset } of readLines(handle, 0, actual)) {
    const parsed = parseLine(line, path, sequence + 1);
    if (parsed.sequence !== sequence + 1 || parsed.previous !== previous) throw corrupt(path, sequence + 1);
    if (sequence % STRIDE === 0) offsets.push(offset);
    sequence += 1;
    size = offset + line.length;
    previous = hashLine(line);
  }
  const cutOff = actual - size;
  if (cutOff > MAX_LINE_BYTES * STRIDE) throw corrupt(path, sequence + 1);
  return { offsets, size, sequence, previous, cutOff };
}
