import { randomBytes } from "node:crypto";
import { constants, write } from "node:fs";
import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KeysteadError } from "../core/errors.ts";
import { hasErrno } from "./system.ts";

/** Where secrets go. */
export type Destination =
  | { readonly kind: "fd"; readonly fd: number }
  | { readonly kind: "file"; readonly path: string };

const OWNER_ONLY = 0o600;
const STDOUT = 1;
const RETRY_MS = 5;

/**
 * A destination as people write it: `-` is standard output, `fd:N` a file descriptor that the caller opened, anything else a file.
 *
 * @throws KeysteadError `usage/destination`
 * @example
 * parseDestination("fd:3", "out"); // { kind: "fd", fd: 3 }
 */
export function parseDestination(text: string, argument: string): Destination {
  if (text === "-") return { kind: "fd", fd: STDOUT };
  const [, digits] = /^fd:(\d{1,4})$/.exec(text) ?? [];
  if (digits !== undefined && Number(digits) > 0) return { kind: "fd", fd: Number(digits) };
  if (text !== "" && !text.startsWith("fd:") && !text.endsWith("/")) return { kind: "file", path: text };
  throw new KeysteadError("usage/destination", `${JSON.stringify(text)} is no place to write to`, {
    argument,
    remedy: "Give - (standard output), fd:N (an open file descriptor) or a file.",
  });
}

/**
 * Hands secrets over. A file appears whole or not at all, readable by its owner alone; an older one of that name is replaced, and a symbolic link is replaced
 * and not followed.
 *
 * @throws KeysteadError `agent/not-written` with the reason, never with what was to be written
 * @example
 * await handOver({ kind: "file", path: "/run/keys.json" }, bytes);
 */
export async function handOver(destination: Destination, bytes: Uint8Array): Promise<void> {
  const name = destination.kind === "fd" ? `file descriptor ${destination.fd}` : destination.path;
  try {
    if (destination.kind === "fd") await writeAll(destination.fd, bytes);
    else await writeFileWhole(destination.path, bytes);
  } catch (cause) {
    const code = hasErrno(cause, "EBADF") ? "is not open for writing" : cause instanceof Error ? cause.message : "";
    throw new KeysteadError("agent/not-written", `${name} could not be written: ${code}`, {
      argument: name,
      remedy: "Check that it may be written by the agent's user and that its folder is there.",
      cause,
    });
  }
}

async function writeFileWhole(path: string, bytes: Uint8Array): Promise<void> {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${randomBytes(8).toString("hex")}`);
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const handle = await open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, OWNER_ONLY);
  try {
    try {
      await handle.chmod(OWNER_ONLY); // whatever the umask is
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => {});
    throw error;
  }
  let directory: FileHandle | undefined;
  try {
    directory = await open(folder, constants.O_RDONLY);
    await directory.sync();
  } catch {
    // some file systems sync no folders: the file is there all the same
  } finally {
    await directory?.close();
  }
}

/** A pipe takes part of a write, or none for now. */
async function writeAll(fd: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    try {
      at += await new Promise<number>((resolve, reject) =>
        write(fd, bytes, at, bytes.length - at, null, (error, written) => (error ? reject(error) : resolve(written))),
      );
    } catch (error) {
      if (!hasErrno(error, "EAGAIN")) throw error;
      await sleep(RETRY_MS);
    }
  }
}
