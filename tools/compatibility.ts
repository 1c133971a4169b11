// Writes docs/compatibility.md, what of the world outside works here, from the field tests that pass; or compares it with them:
//
//   node tools/compatibility.ts [--check | --update]
//
// A row stands only if its test passed when the table was written, and stays only while that test passes. A test that is skipped, because an input of it is
// not on this machine, neither makes a row nor removes one.
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ROW_SEPARATOR } from "../test/field/supports.ts";
import { compareLines, parseMode, type SnapshotMode } from "./snapshot.ts";

const ROOT = resolve(import.meta.dirname, "..");
const FILE = "docs/compatibility.md";

/** One test of Mocha's JSON reporter. */
export interface ReportedTest {
  readonly title: string;
  readonly file?: string | undefined;
}

/** Mocha's JSON report, as far as it is used. */
export interface MochaReport {
  readonly passes: readonly ReportedTest[];
  readonly pending: readonly ReportedTest[];
  readonly failures: readonly ReportedTest[];
}

/** A line of the table. */
export interface Row {
  readonly system: string;
  readonly version: string;
  readonly works: string;
  /** The test's file, relative to the repository's root. */
  readonly test: string;
}

/**
 * The rows that a list of tests stands for, in the order of the table. Tests whose title is not a row's are left out.
 *
 * @throws RangeError if two tests claim the same row
 */
export function rowsOf(tests: readonly ReportedTest[]): readonly Row[] {
  const rows = tests.flatMap(({ title, file = "" }): Row[] => {
    const parts = title.split(ROW_SEPARATOR);
    const [system, version, works] = parts;
    if (parts.length !== 3 || system === undefined || version === undefined || works === undefined) return [];
    return [{ system, version, works, test: relative(ROOT, file) }];
  });
  const lines = rows.map(formatRow);
  const twice = lines.find((line, at) => lines.indexOf(line) !== at);
  if (twice !== undefined) throw new RangeError(`two tests claim one row: ${twice}`);
  const order = (a: string, b: string) => a.localeCompare(b, "en", { numeric: true });
  return rows.sort(
    (a, b) =>
      order(a.system, b.system) || order(a.test, b.test) || order(a.version, b.version) || order(a.works, b.works),
  );
}

const cell = (text: string): string => text.replace(/\s+/g, " ").trim();
const formatRow = ({ system, version, works, test }: Row): string =>
  `| ${[system, version, works].map(cell).join(" | ")} | \`${test}\` |`;

/** The page. */
export function formatPage(rows: readonly Row[]): string {
  return `# Compatibility

What runs out there and works here, version by version. This page is generated from the titles of the field tests that pass
(\`npm run compatibility -- --update\`), and compared with them at every change: a row whose test fails cannot stand in it. What is not in the table is not
claimed.

| system | version | what works | test |
| ------ | ------- | ---------- | ---- |
${rows.map((row) => `${formatRow(row)}\n`).join("")}`;
}

/**
 * What a committed page says otherwise than a run of the tests, as lines to read.
 *
 * @param committed the page's text; rows of skipped tests may stand in it
 * @returns empty if they agree
 */
export function comparePage(committed: string, { passes, pending }: MochaReport): readonly string[] {
  const standing = new Set(committed.split("\n"));
  const kept = rowsOf(pending).filter((row) => standing.has(formatRow(row)));
  const now = formatPage(rowsOf([...passes, ...kept.map(testOf)]));
  return compareLines(committed, now);
}

const testOf = ({ system, version, works, test }: Row): ReportedTest => ({
  title: [system, version, works].join(ROW_SEPARATOR),
  file: resolve(ROOT, test),
});

/** Runs the field tests. Their own output goes to this process's standard error. */
async function runFieldTests(): Promise<MochaReport> {
  const folder = await mkdtemp(join(tmpdir(), "keystead-compatibility-"));
  const output = join(folder, "report.json");
  try {
    const files = (await readdir(join(ROOT, "test/field"))).filter((name) => name.endsWith(".test.ts"));
    const paths = files.map((name) => join("test/field", name));
    const { status, error } = spawnSync("hardhat", ["test", "mocha", ...paths], {
      cwd: ROOT,
      stdio: ["ignore", 2, 2],
      env: { ...process.env, KEYSTEAD_MOCHA_JSON: output },
    });
    if (error !== undefined) throw error;
    const report = JSON.parse(await readFile(output, "utf8")) as MochaReport;
    const failed = report.failures.map(({ title }) => title);
    if (failed.length > 0 || status !== 0) {
      throw new Error(`the field tests do not pass, so nothing can be said:\n  ${failed.join("\n  ")}`);
    }
    return report;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function settle(mode: SnapshotMode): Promise<boolean> {
  const report = await runFieldTests();
  const page = formatPage(rowsOf(report.passes));
  const path = resolve(ROOT, FILE);
  const skipped = rowsOf(report.pending);
  for (const row of skipped) console.error(`skipped, so not shown here: ${formatRow(row)}`);
  if (mode === "print") console.log(page);
  if (mode === "update") await writeFile(path, page);
  if (mode !== "check") return true;
  const committed = await readFile(path, "utf8").catch(() => "");
  const differences = comparePage(committed, report);
  if (differences.length === 0) {
    console.log(`${FILE}: ${rowsOf(report.passes).length} rows, each with a test that passes`);
    return true;
  }
  console.error(`${FILE} is not what the tests show (- committed, + now):`);
  for (const line of differences) console.error(`  ${line}`);
  console.error("If that is meant: npm run compatibility -- --update, and commit the page.");
  return false;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(resolve(process.argv[1])).href) {
  process.exitCode = (await settle(parseMode(process.argv.slice(2)))) ? 0 : 1;
}
