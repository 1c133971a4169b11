#!/usr/bin/env node
// Breaks the contracts on purpose, one rule at a time, and shows which test notices: test/mutations*.json say what to break and which test file must fail.
// Works on a copy in the temporary folder; this tree is not touched.
//
//   node tools/bootstrap.mjs node tools/mutations.mjs              every mutation (about half a minute each)
//   node tools/bootstrap.mjs node tools/mutations.mjs governed-    those whose id starts so; several may be named
//   node tools/bootstrap.mjs node tools/mutations.mjs --check      that each still fits the code and stands in test/README.md; runs no test
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const bin = join(root, "node_modules", ".bin");
const LEFT_OUT = new Set(["node_modules", ".git", "coverage"]);
const FIELDS = ["id", "file", "search", "replace", "why", "test"];

/** What is wrong with the list itself: `[]` if each mutation can be applied, and is told in the README. */
function faultsOf(mutations) {
  const readme = readFileSync(join(root, "test", "README.md"), "utf8");
  const faults = [];
  const seen = new Set();
  for (const mutation of mutations) {
    const { id, file, search, replace, test } = mutation;
    const lacking = FIELDS.filter((field) => typeof mutation[field] !== "string");
    if (lacking.length > 0) faults.push(`${id}: no ${lacking.join(", ")}`);
    if (seen.has(id)) faults.push(`${id}: there twice`);
    seen.add(id);
    const count = existsSync(join(root, file)) ? readFileSync(join(root, file), "utf8").split(search).length - 1 : 0;
    if (count !== 1) faults.push(`${id}: its search text is ${count} times in ${file}, not once`);
    if (search === replace) faults.push(`${id}: changes nothing`);
    if (!existsSync(join(root, test))) faults.push(`${id}: there is no ${test}`);
    if (!readme.includes(`\`${id}\``)) faults.push(`${id}: not in the table of test/README.md`);
  }
  return faults;
}

function copyOfProject() {
  const copy = mkdtempSync(join(tmpdir(), "keystead-mutations-"));
  for (const entry of readdirSync(root)) {
    if (!LEFT_OUT.has(entry)) cpSync(join(root, entry), join(copy, entry), { recursive: true });
  }
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"), "junction");
  return copy;
}

/** Every contract but the next versions of upgrade tests: they take long to compile, and hold no rule of their own. */
const CONTRACTS = readdirSync(join(root, "contracts"), { recursive: true })
  .filter((name) => name.endsWith(".sol") && !/(V2|BadUpgrades|BrokenUpgrades)\.sol$/.test(name))
  .map((name) => join("contracts", name));

/** Builds what changed and runs a test file: Solidity's own (`.t.sol`), which brings its build along, or mocha's. */
function run(copy, test) {
  const outputs = [];
  const commands = test.endsWith(".t.sol")
    ? [["--no-typechain", "test", "solidity", test]]
    : [
        ["--no-typechain", "build", "--quiet", "--no-tests", ...CONTRACTS],
        ["test", "mocha", "--no-compile", test],
      ];
  for (const command of commands) {
    const { status, stdout, stderr } = spawnSync("hardhat", command, {
      cwd: copy,
      encoding: "utf8",
      env: {
        ...process.env,
        PATH: [bin, process.env.PATH ?? ""].join(delimiter),
        NO_COLOR: "1",
        FORCE_COLOR: "0",
      },
      maxBuffer: 1 << 28,
      timeout: 1_800_000, // a broken rule may make a test run for ever; on a busy machine one that ends may take long too
      killSignal: "SIGKILL",
      shell: process.platform === "win32",
    });
    outputs.push(stdout, stderr);
    if (status !== 0) return { ok: false, output: outputs.join("\n") };
  }
  return { ok: true, output: outputs.join("\n") };
}

/** The title of the first test that failed, and how many more did; `undefined` if none ran and failed (the mutation did not compile, say). */
function firstFailure(output) {
  const failing = output.search(/^\s*[1-9]\d* (failing|failed)/m);
  if (failing < 0) return undefined;
  const block = /^\s*1\) ([\s\S]*)/m.exec(output.slice(failing))?.[1];
  if (block === undefined) return "a test (see its output)";
  const title = [];
  for (const line of block.split("\n").map((each) => each.trim())) {
    // Solidity's titles go on with where it was and what the fuzzer had drawn; mocha's end with a colon
    if (/^(at |Counterexample|$)/.test(line)) break;
    title.push(line.replace(/( !=|:)$/, ""));
    if (line.endsWith(":")) break;
  }
  const others = Number(/\d+/.exec(output.slice(failing))?.[0]) - 1;
  return `${title.join(" / ")}${others > 0 ? ` (and ${others} more)` : ""}`;
}

const mutations = readdirSync(join(root, "test"))
  .filter((name) => /^mutations.*\.json$/.test(name))
  .sort()
  .flatMap((name) => JSON.parse(readFileSync(join(root, "test", name), "utf8")));
const args = process.argv.slice(2);
const faults = faultsOf(mutations);
if (args[0] === "--check" || faults.length > 0) {
  for (const fault of faults) console.error(fault);
  console.log(`${mutations.length} mutations, ${faults.length} faults in the list`);
  process.exit(faults.length > 0 ? 1 : 0);
}

const chosen = args.length === 0 ? mutations : mutations.filter(({ id }) => args.some((start) => id.startsWith(start)));
if (chosen.length === 0) {
  console.error(`no mutation's id starts with ${args.join(" or ")}`);
  process.exit(2);
}

const copy = copyOfProject();
let bad = 0;
try {
  for (const test of new Set(chosen.map((mutation) => mutation.test))) {
    const { ok, output } = run(copy, test);
    if (ok) continue;
    console.error(`${test} fails without any mutation:\n${output.split("\n").slice(-60).join("\n")}`);
    process.exitCode = 1;
  }
  if (process.exitCode !== 1) {
    console.log("| mutation | what it breaks | caught by |\n|---|---|---|");
    for (const { id, file, search, replace, why, test } of chosen) {
      const target = join(copy, file);
      const original = readFileSync(target, "utf8");
      writeFileSync(
        target,
        original.replace(search, () => replace),
      );
      const { ok, output } = run(copy, test);
      writeFileSync(target, original);
      const caught = ok ? undefined : firstFailure(output);
      if (!caught) bad += 1;
      const verdict = ok ? "**SURVIVED**" : "**DID NOT RUN** (does it compile?)";
      console.log(`| \`${id}\` | ${why} | ${caught ? `${basename(test)}: ${caught}` : verdict} |`);
      if (!ok && !caught) console.error(output.split("\n").slice(-40).join("\n"));
    }
    console.log(`\n${chosen.length - bad} killed, ${bad} not`);
    if (bad > 0) process.exitCode = 1;
  }
} finally {
  rmSync(copy, { recursive: true, force: true });
}
