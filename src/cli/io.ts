import { createHash } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { type FileHandle, lstat, open, realpath } from "node:fs/promises";
import { createInterface, type Interface } from "node:readline";
import { Readable, Writable } from "node:stream";
import { type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { MeasurementSource } from "../core/measurement.ts";

/** Larger than any evidence, table or compose file, and small enough to hold twice. */
export const DEFAULT_LIMIT = 16 * 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;

/** A file read whole. */
export interface InputFile {
  /** As the user named it; `-` is standard input. */
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly source: MeasurementSource;
  /** What was done on the way that the user may not expect: a symbolic link followed. */
  readonly notes: readonly string[];
}

/** Everything a command may touch outside of itself; tests give their own. */
export interface Io {
  /**
   * Reads a file, or standard input for `-`, up to `limit` bytes (default: 16 MiB). Its size is looked at before anything is read.
   *
   * @throws KeysteadError `input/not-found`, `input/not-readable`, `input/not-a-file`, `input/too-large` {bytes, limit},
   * `input/changed`, `input/stdin-twice`
   */
  readFile(name: string, options?: { readonly limit?: number; readonly argument?: string }): Promise<InputFile>;
  /** Writes to standard output. */
  print(text: string): void;
  /** Writes to standard error. */
  warn(text: string): void;
  /**
   * Asks for a secret on standard error, so that standard output stays the command's own, and reads one line of standard input, unseen.
   *
   * @throws KeysteadError `input/no-answer`
   */
  askSecret(question: string): Promise<string>;
  /**
   * Asks a question on standard error and reads one line of standard input, where that is a terminal.
   *
   * @throws KeysteadError `input/no-answer`
   */
  ask(question: string): Promise<string>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Whether standard output is a terminal. */
  readonly terminal: boolean;
  /** Whether standard input is a terminal: whether somebody can be asked. */
  readonly interactive: boolean;
}

/** The streams that {@link createIo} is made of. */
export interface Streams {
  readonly stdin: AsyncIterable<Uint8Array | string>;
  readonly stdout: { write(text: string): unknown; readonly isTTY?: boolean };
  readonly stderr: { write(text: string): unknown };
  readonly env: Readonly<Record<string, string | undefined>>;
}

/**
 * The real outside: files of this machine and the process's own streams.
 *
 * @example
 * const io = createIo(process);
 */
export function createIo(streams: Streams): Io {
  let used = false;
  return {
    readFile: async (name, { limit = DEFAULT_LIMIT, argument = "file" } = {}) => {
      if (name !== "-") return readPath(name, limit, argument);
      if (used) {
        throw new KeysteadError("input/stdin-twice", "standard input can be read once only", {
          argument,
          remedy: "Give one of the two inputs as a file.",
        });
      }
      used = true;
      return readStream(streams.stdin, limit, argument);
    },
    print: (text) => void streams.stdout.write(text),
    warn: (text) => void streams.stderr.write(text),
    askSecret: (question) => askSecret(streams, question),
    ask: (question) => ask(streams, question),
    env: streams.env,
    terminal: streams.stdout.isTTY === true,
    interactive: "isTTY" in streams.stdin && streams.stdin.isTTY === true,
  };
}

/** Takes what is typed and shows none of it. */
const unseen = () => new Writable({ write: (_chunk, _encoding, done) => done() });

async function askSecret({ stdin, stderr }: Streams, question: string): Promise<string> {
  const input = stdin instanceof Readable ? stdin : Readable.from(stdin);
  const lines = createInterface({ input, output: unseen(), terminal: "isTTY" in stdin && stdin.isTTY === true });
  stderr.write(`${question}: `);
  try {
    return await answerOf(lines, "a secret was asked for and none was given");
  } finally {
    lines.close();
    stderr.write("\n");
  }
}

/** What is typed stays visible: the terminal itself echoes it. */
async function ask({ stdin, stderr }: Streams, question: string): Promise<string> {
  const input = stdin instanceof Readable ? stdin : Readable.from(stdin);
  const lines = createInterface({ input, terminal: false });
  stderr.write(question);
  try {
    return await answerOf(lines, "a question was asked and not answered");
  } finally {
    lines.close();
  }
}

const answerOf = (lines: Interface, missing: string): Promise<string> =>
  new Promise((resolve, reject) => {
    lines.once("line", resolve);
    // the end of the input, or Ctrl-C
    lines
      .once("SIGINT", () => lines.close())
      .once("close", () => {
        const remedy = "Type it, or give it as one line of standard input.";
        reject(new KeysteadError("input/no-answer", missing, { remedy }));
      });
  });

/**
 * A file's bytes with the hash that provenance needs.
 *
 * @example
 * const file = inputFile("quote.bin", bytes);
 */
export function inputFile(name: string, bytes: Uint8Array, notes: readonly string[] = []): InputFile {
  const sha256: Hex = toHex(createHash("sha256").update(bytes).digest());
  return { name, bytes, source: { name, sha256, bytes: bytes.length }, notes };
}

const tooLarge = (name: string, bytes: number | string, limit: number, argument: string) =>
  new KeysteadError("input/too-large", `${name} has ${bytes} bytes and at most ${limit} are read`, {
    argument,
    remedy: "Give the right file: nothing of this kind is so large.",
    details: { bytes, limit },
  });

async function readPath(name: string, limit: number, argument: string): Promise<InputFile> {
  const notes: string[] = [];
  try {
    if ((await lstat(name)).isSymbolicLink()) {
      notes.push(`${name} is a symbolic link; what was read is ${await realpath(name)}`);
    }
    // O_NONBLOCK: a pipe without a writer must not hang the command
    const handle = await open(name, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats: Stats = await handle.stat();
      if (!stats.isFile()) {
        throw new KeysteadError("input/not-a-file", `${name} is not a regular file`, {
          argument,
          remedy: "Give a file; to read from a pipe, give - and the pipe as standard input.",
        });
      }
      if (stats.size > limit) throw tooLarge(name, stats.size, limit, argument);
      const bytes = await readHandle(handle, name, limit, argument);
      const after = await handle.stat();
      if (after.size !== stats.size || after.mtimeMs !== stats.mtimeMs) {
        throw new KeysteadError("input/changed", `${name} changed while it was read`, {
          argument,
          remedy: "Wait until nothing writes to the file, then try again.",
          retryable: true,
        });
      }
      return inputFile(name, bytes, notes);
    } finally {
      await handle.close();
    }
  } catch (cause) {
    if (cause instanceof KeysteadError) throw cause;
    const missing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    throw new KeysteadError(
      missing ? "input/not-found" : "input/not-readable",
      missing
        ? `there is no file ${name}`
        : `${name} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
      { argument, remedy: missing ? "Check the path." : "Check that it is a file and that you may read it.", cause },
    );
  }
}

/** Reads to the end, whatever size was told: the files through which a kernel gives evidence tell none. */
async function readHandle(handle: FileHandle, name: string, limit: number, argument: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const { bytesRead } = await handle.read(chunk, 0, chunk.length);
    if (bytesRead === 0) return Buffer.concat(chunks);
    length += bytesRead;
    if (length > limit) throw tooLarge(name, `more than ${limit}`, limit, argument);
    chunks.push(chunk.subarray(0, bytesRead));
  }
}

async function readStream(stream: Streams["stdin"], limit: number, argument: string): Promise<InputFile> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    const bytes = typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk;
    length += bytes.length;
    if (length > limit) throw tooLarge("standard input", `more than ${limit}`, limit, argument);
    chunks.push(bytes);
  }
  return inputFile("-", Buffer.concat(chunks));
}
