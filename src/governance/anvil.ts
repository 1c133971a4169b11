import { type ChildProcessByStdio, spawn } from "node:child_process";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { KeysteadError } from "../core/errors.ts";

/** A running anvil. */
export interface Anvil {
  readonly url: string;
  readonly port: number;
  /** Ends it and waits until it is gone. */
  stop(): Promise<void>;
}

type Child = ChildProcessByStdio<Writable, null, Readable>;

/** How long it may take until anvil answers, in milliseconds: a busy machine is slow, a missing program is noticed at once. */
const START_TIMEOUT = 60_000;

/**
 * Runs a program and ends it as soon as this process is gone, however it went. Nothing that runs in a process survives its SIGKILL, but the kernel closes
 * its end of a pipe; so a process of its own waits for that, and holds the program as its child, whose number nobody else can get meanwhile.
 */
const SUPERVISOR = `
const child = require("node:child_process").spawn(process.argv[1], process.argv.slice(2), { stdio: ["ignore", "ignore", "inherit"] });
child.once("error", ({ message }) => { console.error(message); process.exit(127); });
child.once("exit", (code) => process.exit(code ?? 1));
const end = () => child.kill("SIGKILL");
process.stdin.on("error", end).once("end", end).once("close", end).resume();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
`;

/**
 * Starts anvil, the chain client that is not Hardhat's, from its npm package and waits until it answers. It ends with this process, even if that is killed.
 *
 * @param options.port default: a free one
 * @param options.chainId default 31337
 * @param options.args further arguments, as anvil takes them
 * @throws KeysteadError `anvil/not-installed` where its package, or the program for this machine, is missing; `anvil/not-started` with anvil's own words
 * @example
 * const anvil = await startAnvil();
 * const connection = await hre.network.create({ network: "anvil", override: { url: anvil.url } });
 * await anvil.stop();
 */
export async function startAnvil(
  options: { readonly port?: number; readonly chainId?: number; readonly args?: readonly string[] } = {},
): Promise<Anvil> {
  const binary = findBinary();
  const port = options.port ?? (await findFreePort());
  const chainId = options.chainId ?? 31337;
  const url = `http://127.0.0.1:${port}`;
  // osaka is what Hardhat's own network runs here, and has the P-256 precompile
  const args = ["--hardfork", "osaka", "--port", `${port}`, "--chain-id", `${chainId}`, ...(options.args ?? [])];
  const child = spawn(process.execPath, ["-e", SUPERVISOR, "--", binary, ...args], {
    stdio: ["pipe", "ignore", "pipe"],
    // what this process was started with is not the supervisor's business: loaders, inspectors
    env: { ...process.env, NODE_OPTIONS: "" },
  });
  // it may be gone before its stdin is closed
  child.stdin.on("error", () => {});
  let said = "";
  child.stderr.on("data", (chunk) => {
    said += chunk;
  });
  const stop = () => stopProcess(child);
  try {
    await untilAnswers(url, chainId, child);
  } catch (cause) {
    await stop();
    throw new KeysteadError(
      "anvil/not-started",
      `anvil did not start on port ${port}: ${said.trim() || String(cause)}`,
      {
        argument: "port",
        remedy: "choose a free port, and check that @foundry-rs/anvil is installed",
        cause,
      },
    );
  }
  return { url, port, stop };
}

async function untilAnswers(url: string, chainId: number, child: Child): Promise<void> {
  const end = performance.now() + START_TIMEOUT;
  while (!(await answers(url, chainId))) {
    if (child.exitCode !== null) throw new Error(`anvil ended with code ${child.exitCode}`);
    if (performance.now() > end) throw new Error(`anvil says nothing after ${START_TIMEOUT} ms`);
    await sleep(50);
  }
}

/** The native program itself: a signal to the package's wrapper script might leave it running. */
function findBinary(): string {
  const require = createRequire(import.meta.url);
  try {
    const { PLATFORM_SPECIFIC_PACKAGE_NAME, BINARY_NAME } = require("@foundry-rs/anvil/const.mjs");
    return require.resolve(`${PLATFORM_SPECIFIC_PACKAGE_NAME("anvil")}/bin/${BINARY_NAME("anvil")}`);
  } catch (cause) {
    throw new KeysteadError("anvil/not-installed", "there is no anvil here: a chain can be neither run nor copied", {
      remedy: "Install @foundry-rs/anvil, optional dependencies included: they hold the program for this machine.",
      cause,
    });
  }
}

async function answers(url: string, chainId: number): Promise<boolean> {
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_chainId", params: [] }),
    });
    const { result } = (await response.json()) as { result?: unknown };
    return Number(result) === chainId;
  } catch {
    return false; // not listening yet
  }
}

async function stopProcess(child: Child): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill("SIGTERM");
  const insist = setTimeout(() => child.stdin.end(), 3_000);
  await gone;
  clearTimeout(insist);
}

async function findFreePort(): Promise<number> {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        address !== null && typeof address === "object" ? resolve(address.port) : reject(new Error("no free port")),
      );
    });
  });
}
