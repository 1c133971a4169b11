#!/usr/bin/env node
// Runs a command of this project on any machine with Node 20 or newer and npm, even straight after `git clone`:
// installs what the lock file says, under a Node that Hardhat 3 supports, then hands over with `node_modules/.bin` first on PATH.
// No dependencies, and nothing newer than Node 18's syntax. Why it exists: docs/decisions/0001-bootstrap.md
//
//   node tools/bootstrap.mjs COMMAND [ARGUMENT …]
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const bin = join(root, "node_modules", ".bin");
const OLDEST_FOR_INSTALL = [22, 13]; // Hardhat 3's engines field; below it npm leaves out Hardhat's native EVM without a word

function readJson(path) {
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
}

const accepts = (list, value) => {
  if (!list) return true;
  return list.includes(`!${value}`) ? false : list.every((item) => item.startsWith("!")) || list.includes(value);
};

/** What npm should have put here and did not: `undefined` if the tree is what the lock file says. */
function whatIsMissing() {
  const wanted = readJson(join(root, "package-lock.json"))?.packages ?? {};
  const present = readJson(join(root, "node_modules", ".package-lock.json"))?.packages;
  if (!present) return "nothing is installed yet";
  const report = process.platform === "linux" ? process.report.getReport() : undefined;
  const libc = report ? (report.header.glibcVersionRuntime ? "glibc" : "musl") : undefined;
  for (const [path, { version, optional, os, cpu, libc: libcs }] of Object.entries(wanted)) {
    if (path === "" || present[path]?.version === version) continue;
    const fits = accepts(os, process.platform) && accepts(cpu, process.arch) && accepts(libcs, libc);
    const native = os !== undefined || cpu !== undefined; // other optional packages may be left out for good reasons
    if (!optional || (fits && native))
      return `${path.replace(/^node_modules\//, "")} ${version} is missing or of another version`;
  }
  return undefined;
}

function run(command, args) {
  const path = [bin, process.env.PATH ?? ""].join(delimiter);
  const { status, signal, error } = spawnSync(command, args, {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, PATH: path },
    shell: process.platform === "win32",
  });
  if (error) {
    console.error(`bootstrap: ${command}: ${error.message}`);
    return 127;
  }
  return signal ? 130 : (status ?? 1);
}

/** npm says nothing until it ends: a line each ten seconds shows that it goes on. */
function install(command, args) {
  const started = Date.now();
  const since = () => `${Math.round((Date.now() - started) / 1000)} s`;
  const ticks = setInterval(() => console.error(`keystead: installing … ${since()}`), 10_000);
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: "inherit", shell: process.platform === "win32" });
    child.on("error", (error) => {
      console.error(`bootstrap: ${command}: ${error.message}`);
      resolve(127);
    });
    child.on("exit", (status) => resolve(status ?? 1));
  }).finally(() => clearInterval(ticks));
}

const [command, ...args] = process.argv.slice(2);
if (command === undefined) {
  console.error("usage: node tools/bootstrap.mjs COMMAND [ARGUMENT …]");
  process.exit(2);
}

const missing = whatIsMissing();
if (missing !== undefined) {
  console.error(`keystead: installing (${missing}); about a minute …`);
  const [major, minor] = process.versions.node.split(".").map(Number);
  const recent = major > OLDEST_FOR_INSTALL[0] || (major === OLDEST_FOR_INSTALL[0] && minor >= OLDEST_FOR_INSTALL[1]);
  const status = await (recent ? install("npm", ["ci"]) : install("npx", ["-y", "-p", "node@24", "-c", "npm ci"]));
  if (status !== 0) {
    console.error("keystead: the installation failed; npm's own message is above");
    process.exit(status);
  }
}
process.exit(run(command, args));
