import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { access, mkdir, open, rmdir } from "node:fs/promises";
import { request } from "node:http";
import { KeysteadError } from "../core/errors.ts";

/** A program's end. */
export interface CommandResult {
  readonly code: number | null;
  readonly stdout: Uint8Array;
  /** The last of it, for messages. */
  readonly stderr: string;
}

/** An answer over a Unix socket. */
export interface SocketAnswer {
  readonly status: number;
  readonly body: Uint8Array;
}

/**
 * What devices are reached through: the kernel's files, programs, Unix sockets. Tests give a simulated kernel. File-system errors carry `code` as Node's do
 * (`ENOENT`, `EBUSY`, …).
 */
export interface System {
  exists(path: string): Promise<boolean>;
  makeDirectory(path: string): Promise<void>;
  removeDirectory(path: string): Promise<void>;
  /** Reads to the end, whatever size is told: the kernel's files tell none. */
  read(path: string, limit: number): Promise<Uint8Array>;
  /** One open for writing alone, one write, one close: a file of configfs takes what was written when it is closed. */
  write(path: string, bytes: Uint8Array): Promise<void>;
  /** Runs a program, without a shell. */
  run(
    program: readonly string[],
    options: { readonly stdin: Uint8Array; readonly timeoutMs: number; readonly limit: number },
  ): Promise<CommandResult>;
  /** One HTTP request over a Unix socket. */
  post(
    socket: string,
    path: string,
    body: string,
    options: { readonly timeoutMs: number; readonly limit: number },
  ): Promise<SocketAnswer>;
}

const CHUNK_BYTES = 64 * 1024;
const STDERR_BYTES = 2048;

/**
 * This machine.
 *
 * @example
 * await detectDevice(createSystem());
 */
export function createSystem(): System {
  return {
    exists: async (path) => {
      try {
        await access(path);
        return true;
      } catch {
        return false;
      }
    },
    makeDirectory: async (path) => {
      await mkdir(path);
    },
    removeDirectory: (path) => rmdir(path),
    read: readToEnd,
    write: async (path, bytes) => {
      const handle = await open(path, constants.O_WRONLY);
      try {
        const { bytesWritten } = await handle.write(bytes);
        if (bytesWritten !== bytes.length) throw new Error(`${path} took ${bytesWritten} of ${bytes.length} bytes`);
      } finally {
        await handle.close();
      }
    },
    run: runProgram,
    post: postToSocket,
  };
}

/** Whether a caught error is a file-system error of one of these kinds. */
export function hasErrno(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && "code" in error && typeof error.code === "string" && codes.includes(error.code);
}

function tooLarge(what: string, limit: number): KeysteadError {
  return new KeysteadError("device/too-large", `${what} is longer than ${limit} bytes`, {
    argument: what,
    remedy: "No evidence is so long: check that this is the attestation device.",
    details: { limit },
  });
}

async function readToEnd(path: string, limit: number): Promise<Uint8Array> {
  const handle = await open(path, constants.O_RDONLY);
  try {
    const chunks: Uint8Array[] = [];
    let length = 0;
    for (;;) {
      const chunk = new Uint8Array(CHUNK_BYTES);
      const { bytesRead } = await handle.read(chunk, 0, chunk.length);
      if (bytesRead === 0) return new Uint8Array(Buffer.concat(chunks));
      length += bytesRead;
      if (length > limit) throw tooLarge(path, limit);
      chunks.push(chunk.subarray(0, bytesRead));
    }
  } finally {
    await handle.close();
  }
}

const runProgram: System["run"] = ([program = "", ...args], { stdin, timeoutMs, limit }) =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    const chunks: Buffer[] = [];
    let length = 0;
    let stderr = "";
    let failure: Error | undefined;
    const end = (error: Error) => {
      failure ??= error;
      child.kill("SIGKILL");
    };
    const timer = setTimeout(() => {
      end(
        new KeysteadError("device/timeout", `${program} did not end within ${timeoutMs / 1000} s`, {
          argument: program,
          remedy: "Run it by hand with the same argument and see where it stays.",
          retryable: true,
        }),
      );
    }, timeoutMs);
    child.stdout.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length > limit) end(tooLarge(`output of ${program}`, limit));
      else chunks.push(chunk);
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr = (stderr + chunk.toString("latin1")).slice(-STDERR_BYTES);
    });
    child.stdin.on("error", () => {}); // a program need not read what it is given
    child.once("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once("close", (code) => {
      clearTimeout(timer);
      if (failure === undefined) resolve({ code, stdout: new Uint8Array(Buffer.concat(chunks)), stderr });
      else reject(failure);
    });
    child.stdin.end(stdin);
  });

const postToSocket: System["post"] = (socketPath, path, body, { timeoutMs, limit }) =>
  new Promise((resolve, reject) => {
    const headers = {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
      host: "localhost",
    };
    const sent = request({ socketPath, path, method: "POST", headers }, (response) => {
      const chunks: Buffer[] = [];
      let length = 0;
      response.on("data", (chunk: Buffer) => {
        length += chunk.length;
        if (length > limit) sent.destroy(tooLarge(`answer of ${socketPath}`, limit));
        else chunks.push(chunk);
      });
      response.once("error", reject);
      response.once("end", () =>
        resolve({ status: response.statusCode ?? 0, body: new Uint8Array(Buffer.concat(chunks)) }),
      );
    });
    sent.setTimeout(timeoutMs, () =>
      sent.destroy(
        new KeysteadError("device/timeout", `${socketPath} did not answer within ${timeoutMs / 1000} s`, {
          argument: socketPath,
          remedy: "Check that the agent behind the socket runs.",
          retryable: true,
        }),
      ),
    );
    sent.once("error", reject);
    sent.end(body);
  });
