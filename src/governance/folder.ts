import type { Dirent, Stats } from "node:fs";
import { lstat, mkdir, open, readdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { decodeUtf8 } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { GIT_ATTRIBUTES } from "./checkout.ts";
import { type Operation, parseOperation } from "./operation.ts";
import {
  type FoundSignature,
  formatSignature,
  SIGNATURES_FOLDER,
  type SignatureRecord,
  signaturePath,
} from "./signatures.ts";

/** Larger than any file of a proposal, sources of measurements included. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;
const MAX_FILES = 256;

/**
 * Every file of a proposal's folder, by its path in it with `/`. Links and anything else that is no plain file are refused, or, where `skip` is told of
 * them, left out: whoever can add files to a folder must not be able to stop those who act on it.
 *
 * @param skip told each path that is not read, and why
 * @throws KeysteadError `proposal/not-found`, `proposal/not-readable` {path}
 * @example
 * const files = await readProposal("deploy/proposals/007-tdx");
 */
export async function readProposal(
  folder: string,
  skip?: (path: string, why: string) => void,
): Promise<ReadonlyMap<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  await readInto(folder, "", { files, signatures: 0, others: 0, skip });
  return files;
}

/** A reading of a folder under way. */
interface Reading {
  readonly files: Map<string, Uint8Array>;
  readonly skip: ((path: string, why: string) => void) | undefined;
  signatures: number;
  others: number;
}

const notReadable = (path: string, why: string, cause?: unknown) =>
  new KeysteadError("proposal/not-readable", `${path} ${why}`, {
    argument: path,
    remedy: "Check the folder out again.",
    details: { path },
    cause,
  });

async function readInto(root: string, inside: string, reading: Reading): Promise<void> {
  const folder = join(root, inside);
  let names: readonly string[];
  try {
    names = (await readdir(folder)).sort();
  } catch (cause) {
    throw new KeysteadError("proposal/not-found", `there is no folder ${folder}`, {
      argument: "folder",
      remedy: "Give the folder of a proposal, e.g. deploy/proposals/007-tdx.",
      cause,
    });
  }
  for (const name of names) {
    const path = inside === "" ? name : `${inside}/${name}`;
    const stats = await lstat(join(root, path));
    const why = stats.isDirectory()
      ? inside.split("/").length < 4
        ? undefined
        : "is a folder too deep"
      : notTaken(stats, path, reading);
    if (why !== undefined) {
      if (reading.skip === undefined) throw notReadable(path, why);
      reading.skip(path, why);
    } else if (stats.isDirectory()) await readInto(root, path, reading);
    else {
      const handle = await open(join(root, path));
      try {
        reading.files.set(path, await handle.readFile());
      } finally {
        await handle.close();
      }
    }
  }
}

/** Why a path is not read. Signatures are counted apart: many of them must not keep a proposal's own files from being read. */
function notTaken(stats: Stats, path: string, reading: Reading): string | undefined {
  if (!stats.isFile()) return "is neither a plain file nor a folder";
  if (stats.size > MAX_FILE_BYTES) return `has ${stats.size} bytes, more than are read`;
  const signature = path.startsWith(SIGNATURES_FOLDER);
  const count = signature ? ++reading.signatures : ++reading.others;
  return count > MAX_FILES ? "is one file too many" : undefined;
}

/** One committed proposal. */
export interface StoredProposal {
  readonly operation: Operation;
  readonly files: ReadonlyMap<string, Uint8Array>;
}

/**
 * Every proposal of a folder that holds proposals: `NNN-slug/operation.json`. A folder that is not there holds none; one inside that is no proposal,
 * or whose operation can't be read, is an error: what is not understood must not look like what is not there.
 *
 * @returns proposals by their folder's name, in order; `missing` where there is no such folder
 * @throws KeysteadError `operation/malformed` {field}, `proposal/not-readable`
 * @example
 * (await readProposals("deploy/proposals")).proposals.get("007-tdx")?.operation.lane;
 */
export async function readProposals(
  folder: string,
): Promise<{ readonly proposals: ReadonlyMap<string, StoredProposal>; readonly missing: boolean }> {
  const proposals = new Map<string, StoredProposal>();
  let entries: Dirent[];
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return { proposals, missing: true };
    throw notReadable(folder, "cannot be read", cause);
  }
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (!/^\d{3}-/.test(entry.name)) continue;
    if (!entry.isDirectory()) throw notReadable(join(folder, entry.name), "is no folder");
    const files = await readProposal(join(folder, entry.name), () => {});
    const operation = files.get("operation.json");
    if (operation === undefined) throw notReadable(join(folder, entry.name), "holds no operation.json");
    proposals.set(entry.name, { operation: parseOperation(decodeUtf8(operation, "operation.json")), files });
  }
  return { proposals, missing: false };
}

/**
 * Writes a proposal's folder. A file that is there with the same bytes stays; the operation comes first, so that writing can go on from it after an
 * interruption. A folder that is not whole does not verify: files are missing.
 *
 * @returns the names of the files that were not there before
 * @throws KeysteadError `proposal/exists` {path} where a file has other bytes: nothing was written then
 * @example
 * await writeProposal("deploy/proposals/007-tdx", files);
 */
export async function writeProposal(
  folder: string,
  files: ReadonlyMap<string, Uint8Array>,
): Promise<readonly string[]> {
  const there = await readProposal(folder).catch((error: unknown) => {
    if (error instanceof KeysteadError && error.code === "proposal/not-found") return new Map<string, Uint8Array>();
    throw error;
  });
  for (const [path, bytes] of there) {
    const planned = files.get(path);
    if (planned !== undefined && Buffer.compare(planned, bytes) === 0) continue;
    // signatures come later, and stay valid as long as nothing else changes
    if (path.startsWith(SIGNATURES_FOLDER)) continue;
    throw new KeysteadError("proposal/exists", `${join(folder, path)} is there already, with other content`, {
      argument: "id",
      remedy: "Take the next number for another proposal, or remove the folder if nobody has signed it.",
      details: { path },
    });
  }
  const missing = [...files].filter(([path]) => !there.has(path));
  const later = ([path]: readonly [string, Uint8Array]) => (path === "operation.json" ? 0 : 1);
  for (const [path, bytes] of missing.sort((a, b) => later(a) - later(b))) await writeInto(folder, path, bytes);
  await keepLineEnds(dirname(folder));
  return missing.map(([path]) => path);
}

/** Beside the proposals, so that no checkout changes their bytes. A file that is there stays as it is. */
async function keepLineEnds(proposals: string): Promise<void> {
  try {
    await writeFile(join(proposals, ".gitattributes"), GIT_ATTRIBUTES, { flag: "wx" });
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  }
}

/** Whole or not at all. */
async function writeInto(folder: string, path: string, bytes: Uint8Array | string): Promise<void> {
  const target = join(folder, path);
  await mkdir(dirname(target), { recursive: true });
  // beside the folder, not in it: a leftover must not look like a file of the proposal
  const draft = `${folder.replace(/\/+$/, "")}.draft-${process.pid}`;
  try {
    await writeFile(draft, bytes, { flag: "wx" });
    await rename(draft, target);
  } finally {
    await rm(draft, { force: true });
  }
}

/**
 * Adds a signature to a proposal's folder. A signer who has signed the same already, in whichever form, is left as is, provided that the file which is there
 * counts; a signature that proves its signer takes the place of one that does not.
 *
 * @param found the folder's signatures, as `readSignatures` read them
 * @returns the signature's file, and whether it was written
 * @example
 * await writeSignature(folder, signatures, record);
 */
export async function writeSignature(
  folder: string,
  found: readonly FoundSignature[],
  record: SignatureRecord,
): Promise<{ readonly file: string; readonly written: boolean }> {
  const file = signaturePath(record);
  const there = found.find((one) => one.file === file);
  if (there !== undefined && (there.recovered || record.kind === "contract")) return { file, written: false };
  try {
    await writeInto(folder, file, formatSignature(record));
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
    if (!["ENOTDIR", "EISDIR", "EEXIST", "ENOTEMPTY"].includes(code)) throw cause;
    throw new KeysteadError("signature/place-taken", `something else is where ${file} belongs`, {
      argument: "folder",
      remedy: `Remove it (git shows who added it), and sign again.`,
      details: { file },
      cause,
    });
  }
  return { file, written: true };
}
