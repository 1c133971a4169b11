import { createHash } from "node:crypto";
import { chmod, lstat, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { isJsonArray, isJsonObject, parseJson } from "../core/json.ts";

/*
 * A backup is a folder: copies under plain names, and `manifest.json` with each one's path and SHA-256. Whether it can be restored is known only from
 * restoring it, so that is what the check does, to a folder of its own.
 */

/** A file as it was when the plan was made. */
export interface BackedUpFile {
  readonly path: string;
  readonly sha256: Hex;
}

const FORMAT = "keystead.backup/1";
/** `.env` files hold secrets. */
const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;

const sha256 = (bytes: Uint8Array): Hex => toHex(createHash("sha256").update(bytes).digest());
const keptName = (index: number, path: string): string =>
  `${String(index + 1).padStart(3, "0")}-${basename(path).replace(/[^a-zA-Z0-9_.-]/g, "_")}`;

const refuse = (code: string, message: string, remedy: string, cause?: unknown) =>
  new KeysteadError(`backup/${code}`, message, { argument: "backup", remedy, cause });

/**
 * Copies files into a new folder, readable by its owner alone: whole or not at all. A file that is not as the plan knows it is refused, for the
 * backup would hold something else than what ran.
 *
 * @throws KeysteadError `backup/exists`, `backup/changed` (not the bytes that the plan names), `backup/unreadable`
 * @example
 * await makeBackup("backup-v2", plan.inputs.backup.files);
 */
export async function makeBackup(folder: string, files: readonly BackedUpFile[]): Promise<void> {
  if ((await lstat(folder).catch(() => undefined)) !== undefined) {
    throw refuse("exists", `${folder} is there already`, "Check it with keystead rollout preflight, or move it away.");
  }
  const contents: [string, Uint8Array][] = [];
  for (const [index, { path, sha256: expected }] of files.entries()) {
    const bytes = await readFile(path).catch((cause) => {
      throw refuse("unreadable", `${path} cannot be read`, "Restore it, or make the plan again without it.", cause);
    });
    if (sha256(bytes) !== expected) {
      throw refuse(
        "changed",
        `${path} has changed since the plan was made`,
        "Put the old file back, or make the plan again.",
      );
    }
    contents.push([keptName(index, path), bytes]);
  }
  const entries = files.map(({ path, sha256 }, index) => ({ path, file: keptName(index, path), sha256 }));
  const making = `${folder}.new`;
  await rm(making, { recursive: true, force: true });
  await mkdir(making, { recursive: true, mode: FOLDER_MODE });
  for (const [name, bytes] of contents) await writeFile(join(making, name), bytes, { mode: FILE_MODE, flag: "wx" });
  const manifest = `${JSON.stringify({ format: FORMAT, files: entries }, null, 2)}\n`;
  await writeFile(join(making, "manifest.json"), manifest, { mode: FILE_MODE, flag: "wx" });
  await rename(making, folder);
}

/** What is wrong with a backup; empty: restored and compared, byte for byte. */
export type BackupFaults = readonly string[];

/**
 * Restores a backup into a temporary folder and compares every file with what the plan says that it was. The folder is removed afterwards.
 *
 * @throws KeysteadError `backup/missing` where there is no backup
 * @example
 * (await checkBackup("backup-v2", plan.inputs.backup.files)).length; // 0
 */
export async function checkBackup(folder: string, files: readonly BackedUpFile[]): Promise<BackupFaults> {
  const restored = await mkdtemp(join(tmpdir(), "keystead-restore-"));
  try {
    await chmod(restored, FOLDER_MODE);
    const written = await restoreBackup(folder, restored);
    const faults: string[] = [];
    for (const { path, sha256: expected } of files) {
      const file = written.get(path);
      if (file === undefined) faults.push(`${path} is not in the backup`);
      else if (sha256(await readFile(file)) !== expected)
        faults.push(`${path} is another in the backup than when the plan was made`);
    }
    const known = new Set(files.map(({ path }) => path));
    for (const path of written.keys())
      if (!known.has(path)) faults.push(`${path} is in the backup and not in the plan`);
    const { mode } = await lstat(folder);
    if ((mode & 0o077) !== 0) faults.push(`${folder} can be read by others than its owner: chmod 700`);
    return faults;
  } finally {
    await rm(restored, { recursive: true, force: true });
  }
}

/**
 * Writes a backup's files into a folder, each checked against the manifest.
 *
 * @param to an empty folder; nothing outside of it is touched
 * @returns path in the plan → path of the restored file
 * @throws KeysteadError `backup/missing`, `backup/malformed`, `backup/damaged`
 * @example
 * await restoreBackup("backup-v2", "restored");
 */
export async function restoreBackup(folder: string, to: string): Promise<ReadonlyMap<string, string>> {
  const text = await readFile(join(folder, "manifest.json"), "utf8").catch((cause) => {
    throw refuse("missing", `there is no backup in ${folder}`, "Make it: keystead rollout backup PLAN.", cause);
  });
  const entries = parseManifest(text);
  const present = new Set(await readdir(folder));
  const restored = new Map<string, string>();
  for (const { path, file, sha256: expected } of entries) {
    if (!present.has(file))
      throw refuse("damaged", `the backup lacks ${file}`, "Make the backup again from the files that run.");
    const from = join(folder, file);
    if (!(await lstat(from)).isFile()) throw refuse("damaged", `${file} is no plain file`, "Make the backup again.");
    const bytes = await readFile(from);
    if (sha256(bytes) !== expected)
      throw refuse("damaged", `${file} is not what the manifest says`, "Make the backup again.");
    const target = join(to, file);
    await writeFile(target, bytes, { mode: FILE_MODE, flag: "wx" });
    restored.set(path, target);
  }
  return restored;
}

function parseManifest(
  text: string,
): readonly { readonly path: string; readonly file: string; readonly sha256: string }[] {
  const malformed = () =>
    refuse("malformed", "the backup's manifest is not as it was written", "Make the backup again.");
  const document = parseJson(text, "manifest.json");
  if (!isJsonObject(document) || document.format !== FORMAT || !isJsonArray(document.files)) throw malformed();
  return document.files.map((entry) => {
    if (!isJsonObject(entry)) throw malformed();
    const { path, file, sha256 } = entry;
    if (typeof path !== "string" || typeof file !== "string" || typeof sha256 !== "string") throw malformed();
    if (!/^\d{3}-[a-zA-Z0-9_.-]+$/.test(file)) throw malformed();
    return { path, file, sha256 };
  });
}
