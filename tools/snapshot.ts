// What is committed about the contracts and must not move unnoticed: layouts, the ABI, gas. Each tool here prints one text, and this module compares
// it with the committed file, or replaces the file when asked to.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "..");

/** How a tool was called: to print, to compare with the committed file, or to write it. */
export type SnapshotMode = "print" | "check" | "update";

/** One committed file. */
export interface Snapshot {
  /** Relative to the repository's root, such as `snapshots/abi.json`. */
  readonly file: string;
  /** The npm script that writes it. */
  readonly script: string;
  readonly content: unknown;
}

/**
 * Reads `--check` and `--update` from a command line.
 *
 * @throws RangeError if both are given, or an option that does not exist
 * @example parseMode(["--check"]) // "check"
 */
export function parseMode(args: readonly string[]): SnapshotMode {
  const unknown = args.filter((arg) => arg !== "--check" && arg !== "--update");
  if (unknown.length > 0) throw new RangeError(`unknown option ${unknown.join(" ")}: there are --check and --update`);
  if (args.length > 1) throw new RangeError("--check and --update exclude each other: give one of them");
  return args[0] === "--check" ? "check" : args[0] === "--update" ? "update" : "print";
}

/** JSON with one line for each row of a list and each value of a table, so that a difference is a line that can be read. */
export function formatSnapshot(content: unknown): string {
  return `${formatValue(content, "")}\n`;
}

function formatValue(value: unknown, indent: string): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const list = Array.isArray(value);
  const entries = Object.entries(value);
  if (entries.length === 0) return list ? "[]" : "{}";
  const lines = entries.map(([key, part]) => {
    if (list) return `${indent}  ${formatRow(part)}`;
    return `${indent}  ${JSON.stringify(key)}: ${formatValue(part, `${indent}  `)}`;
  });
  const [open, close] = list ? ["[", "]"] : ["{", "}"];
  return `${open}\n${lines.join(",\n")}\n${indent}${close}`;
}

const formatRow = (row: unknown): string => {
  if (typeof row !== "object" || row === null) return JSON.stringify(row);
  return `{ ${Object.entries(row)
    .map(([key, part]) => `${JSON.stringify(key)}: ${JSON.stringify(part)}`)
    .join(", ")} }`;
};

/**
 * What differs between two snapshots, as lines to read: `-` is committed and gone, `+` is new.
 *
 * @returns empty if and only if the texts are equal
 * @example compareLines("a\nb\n", "a\nc\n") // ["- b", "+ c"]
 */
export function compareLines(committed: string, current: string): string[] {
  if (committed === current) return [];
  const lines = (text: string) => text.split("\n").map((line) => line.replace(/,$/, ""));
  const before = lines(committed);
  const after = lines(current);
  const within = (list: readonly string[], removed: readonly string[]) => {
    const left = new Map<string, number>();
    for (const line of removed) left.set(line, (left.get(line) ?? 0) + 1);
    return list.filter((line) => {
      const count = left.get(line) ?? 0;
      if (count > 0) left.set(line, count - 1);
      return count === 0;
    });
  };
  const differences = [
    ...within(before, after).map((line) => `- ${line.trim()}`),
    ...within(after, before).map((line) => `+ ${line.trim()}`),
  ];
  return differences.length > 0 ? differences : ["the same lines in another order"];
}

/**
 * Compares with the committed file, or writes it.
 *
 * @returns whether all is well; what is not has been printed to standard error, with what to do about it
 */
export async function settleSnapshot(mode: SnapshotMode, { file, script, content }: Snapshot): Promise<boolean> {
  const path = resolve(ROOT, file);
  const current = formatSnapshot(content);
  if (mode === "update") {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, current);
    console.log(`wrote ${relative(process.cwd(), path)}`);
    return true;
  }
  if (mode === "print") return true;
  const committed = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  const differences = compareLines(committed, current);
  if (differences.length === 0) {
    console.log(`${file} is up to date`);
    return true;
  }
  console.error(`${file} is not what the code gives (- committed, + now):`);
  for (const line of differences) console.error(`  ${line}`);
  console.error(`If that is meant: npm run ${script} -- --update, and commit the file with the reason.`);
  return false;
}
