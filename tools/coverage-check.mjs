/**
 * Fails when the contracts' line coverage is below the floor, and prints each line that no test runs.
 *
 *     hardhat test --coverage && node tools/coverage-check.mjs [coverage/lcov.info]
 *
 * `hardhat test --coverage` runs the Solidity and the mocha tests and writes one merged LCOV file. Mocks and tests don't count.
 */
import { readFileSync } from "node:fs";

const FLOOR = 98;
const report = process.argv[2] ?? "coverage/lcov.info";

/** The contracts of an LCOV report with their lines: `DA:<line>,<times run>` between `SF:<file>` and `end_of_record`. */
export function parseLcov(text) {
  const files = new Map();
  let file;
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith("SF:")) {
      file = line.slice(3).replaceAll("\\", "/");
      if (!files.has(file)) files.set(file, new Map());
    } else if (line === "end_of_record") {
      file = undefined;
    } else if (line.startsWith("DA:")) {
      const [number, times] = line.slice(3).split(",").map(Number);
      const lines = files.get(file);
      if (lines === undefined || !Number.isInteger(number) || !Number.isInteger(times)) {
        throw new Error(`not an LCOV report: ${line}`);
      }
      lines.set(number, (lines.get(number) ?? 0) + times);
    }
  }
  return files;
}

/** @returns The contracts that count, by path: how many lines, and which of them no test ran. */
export function summarize(files) {
  return [...files]
    .filter(([file]) => /(^|\/)contracts\//.test(file) && !/(^|\/)contracts\/mocks\//.test(file))
    .map(([file, lines]) => ({
      file,
      lines: lines.size,
      missed: [...lines]
        .filter(([, times]) => times === 0)
        .map(([number]) => number)
        .sort((a, b) => a - b),
    }))
    .sort((a, b) => (a.file < b.file ? -1 : 1));
}

function main() {
  let text;
  try {
    text = readFileSync(report, "utf8");
  } catch {
    console.error(`${report} can't be read: run \`hardhat test --coverage\` first, or name the report.`);
    return 1;
  }
  const contracts = summarize(parseLcov(text));
  const total = contracts.reduce((sum, { lines }) => sum + lines, 0);
  const missed = contracts.reduce((sum, contract) => sum + contract.missed.length, 0);
  if (total === 0) {
    console.error(`${report} names no line of a contract: it is the report of something else.`);
    return 1;
  }
  for (const { file, lines, missed: numbers } of contracts) {
    const percent = ((100 * (lines - numbers.length)) / Math.max(lines, 1)).toFixed(1).padStart(6);
    console.log(`${percent} %  ${file}${numbers.length === 0 ? "" : `  not run: ${numbers.join(", ")}`}`);
  }
  const covered = (100 * (total - missed)) / total;
  console.log(`${covered.toFixed(2).padStart(6)} %  of ${total} lines; the floor is ${FLOOR} %`);
  return covered < FLOOR ? 1 : 0;
}

if (import.meta.main) process.exitCode = main();
