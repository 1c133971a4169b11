#!/usr/bin/env node
// Runs the tests, two processes side by side where the machine has two cores: Mocha's files in groups, the longest first, and
// the Solidity tests.
//
//   npm test                            everything
//   npm test -- FILE [FILE …]           these files (.test.ts, .t.sol), their output as it comes
//   npm test -- --changed [REVISION]    what a change since REVISION (default: HEAD) can reach, by imports
//   npm test -- --watch                 the same again after each change of a file
//
// Options: --jobs N (default: the number of cores, at most 4), --mocha (no Solidity tests), --no-compile.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, watch, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { changedFiles, testsOf } from "./test-graph.mjs";
import { groupFiles, listTests } from "./test-plan.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const TIMES = join(ROOT, "cache", "test-times.json");
const seconds = (ms) => `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;

function readOptions(args) {
  const options = { files: [], jobs: Math.min(availableParallelism(), 4), solidity: true, compile: true };
  for (let i = 0; i < args.length; i++) {
    const value = args[i];
    if (value === "--changed") options.changed = args[i + 1]?.startsWith("-") === false ? args[++i] : "HEAD";
    else if (value === "--watch") options.watch = true;
    else if (value === "--mocha") options.solidity = false;
    else if (value === "--no-compile") options.compile = false;
    else if (value === "--jobs") options.jobs = Number(args[++i]);
    else if (value.startsWith("-")) throw new Error(`unknown option ${value}; see the head of tools/test.mjs`);
    else options.files.push(value);
  }
  if (!Number.isInteger(options.jobs) || options.jobs < 1) throw new Error("--jobs takes a number, 1 or more");
  const missing = options.files.find((file) => !existsSync(file));
  if (missing !== undefined) throw new Error(`there is no test file ${missing}`);
  return options;
}

const readJson = (path) => (existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : {});

/** Runs a command with its output in one text. */
function run(command, args, env) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: ROOT,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
    child.on("error", (error) => resolve({ status: 127, output: error.message }));
    child.on("close", (status) => resolve({ status: status ?? 1, output }));
  });
}

/** From the list of failures on; all of it where Mocha did not get that far. */
const failuresOf = (output) => output.slice(Math.max(0, output.search(/^ {2}\d+ failing/m)));

async function runGroup(files, folder, index) {
  const report = join(folder, `${index}.json`);
  const { status, output } = await run("hardhat", ["test", "mocha", "--no-compile", ...files], {
    KEYSTEAD_TEST_REPORT: report,
  });
  const results = readJson(report);
  const total = { passing: 0, failing: 0, pending: 0 };
  for (const file of Object.values(results)) for (const key of Object.keys(total)) total[key] += file[key];
  if (status !== 0 && total.failing === 0) total.failing = 1; // it ended before it could count
  return { ...total, output, results };
}

async function runSolidity() {
  const { status, output } = await run("hardhat", ["test", "solidity"]);
  const count = (word) => Number(new RegExp(`(\\d+) ${word}`).exec(output)?.[1] ?? 0);
  const failing = status === 0 ? 0 : Math.max(1, count("failing"));
  return { passing: count("passing"), failing, pending: 0, output, results: {} };
}

function describe(files) {
  const folder = dirname(files[0]);
  return files.length === 1 ? files[0] : `${folder} and others (${files.length} files)`;
}

/** Every group, and the Solidity tests first since they take longest: a line each as they end. */
async function runAll(files, options) {
  const started = Date.now();
  const times = readJson(TIMES);
  const folder = mkdtempSync(join(tmpdir(), "keystead-test-"));
  const queue = groupFiles(files, times, options.jobs).map((group, i) => ({
    title: describe(group),
    work: () => runGroup(group, folder, i),
  }));
  if (options.solidity) queue.unshift({ title: "Solidity tests", work: runSolidity });
  const all = queue.length;
  const total = { passing: 0, failing: 0, pending: 0 };
  let done = 0;
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const start = Date.now();
      const result = await next.work();
      for (const key of Object.keys(total)) total[key] += result[key];
      for (const [file, { ms }] of Object.entries(result.results)) times[file] = ms;
      done += 1;
      const mark = result.failing > 0 ? `${result.failing} FAILED` : `${result.passing} passed`;
      console.log(`[${done}/${all}] ${seconds(Date.now() - start).padStart(6)}  ${mark.padStart(11)}  ${next.title}`);
      if (result.failing > 0) console.log(failuresOf(result.output).trimEnd());
    }
  };
  await Promise.all(Array.from({ length: options.jobs }, worker));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(dirname(TIMES), { recursive: true });
  writeFileSync(TIMES, JSON.stringify(times));
  console.log(`\n  ${total.passing} passing (${seconds(Date.now() - started)})`);
  if (total.pending > 0) console.log(`  ${total.pending} pending`);
  if (total.failing > 0) console.log(`  ${total.failing} failing`);
  return total.failing === 0 ? 0 : 1;
}

function build() {
  console.log("compiling what has changed …");
  return spawnSync("hardhat", ["build", "--no-tests"], { cwd: ROOT, stdio: "inherit" }).status ?? 1;
}

/** These files alone, in this terminal. */
function runNamed(files) {
  const solidity = files.filter((file) => file.endsWith(".sol"));
  const mocha = files.filter((file) => !file.endsWith(".sol"));
  const one = (args) => spawnSync("hardhat", ["test", ...args], { cwd: ROOT, stdio: "inherit" }).status ?? 1;
  const codes = [];
  if (mocha.length > 0) codes.push(one(["mocha", "--no-compile", ...mocha]));
  if (solidity.length > 0) codes.push(one(["solidity", ...solidity]));
  return Math.max(0, ...codes);
}

function runChanged(options) {
  const changed = changedFiles(ROOT, options.changed ?? "HEAD");
  const files = testsOf(ROOT, changed, listTests(ROOT));
  console.log(`${changed.length} changed files reach ${files.length} test files`);
  if (files.length === 0) return 0;
  return runAll(files, { ...options, solidity: options.solidity && changed.some((file) => file.endsWith(".sol")) });
}

async function watchAndRun(options) {
  let running = false;
  let again = true;
  const go = async () => {
    if (running) return;
    running = true;
    while (again) {
      again = false;
      if (build() === 0) await runChanged(options);
      console.log("waiting for a change …");
    }
    running = false;
  };
  for (const room of ["src", "test", "contracts", "web/src", "deploy", "scripts", "testing"])
    if (existsSync(join(ROOT, room)))
      watch(join(ROOT, room), { recursive: true }, () => {
        again = true;
        setTimeout(go, 300);
      });
  await go();
  return new Promise(() => {}); // until the person ends it
}

async function main() {
  let options;
  try {
    options = readOptions(process.argv.slice(2));
  } catch (error) {
    console.error(`npm test: ${error.message}`);
    return 2;
  }
  if (options.watch) return watchAndRun(options);
  if (options.compile && build() !== 0) return 1;
  if (options.files.length > 0) return runNamed(options.files);
  return options.changed === undefined ? runAll(listTests(ROOT), options) : runChanged(options);
}

process.exitCode = await main();
