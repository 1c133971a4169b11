import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { type Hex, toHex } from "../../src/core/bytes.ts";
import { challengeSchema, parseMessage } from "../../src/core/release-wire.ts";
import { generateSealKeyPair } from "../../src/core/seal.ts";
import { keysteadAsync } from "../helpers/cli.ts";
import { createService, type NodeChain, startNodeChain } from "../helpers/decider.ts";
import { tdxImage } from "../helpers/images.ts";
import { type LiveMemory, liveMemoryEnvironment, readLiveMemory } from "../helpers/live-memory.ts";
import { createLoadClient, percentile, sendSteadily } from "../helpers/load.ts";
import { createTestTees, type TestTees } from "../helpers/node.ts";
import { type NodeProcess, quoteOf, startNodeProcess, writeNodeConfig } from "../helpers/node-process.ts";
import { benchmark } from "./benchmark.ts";

/*
 * What a whole node does: HTTP, a TDX quote verified in a thread, the decision from proven state, receipt signed and flushed, keys sealed. Certificate
 * chains, collateral and chain state are in its caches after the warm-up, as they are in service. Requests are made before they are timed: machines make
 * their evidence elsewhere.
 *
 * A benchmark shares its machine. The goals are for a node that has two cores to itself, so each is held in processor time, which other processes do not
 * change: releases by second of the node's own processor time, times two cores. The clock's figures are printed beside it, and held to the goals as well by
 * `npm run bench:release`, for a machine that does nothing else.
 */

const CORES = 2;
/** Releases a second on two cores. */
const RATE_GOAL = 300;
/** Milliseconds in which 99 of 100 answers come at {@link STEADY_RATE} a second. */
const P99_GOAL_MS = 50;
const STEADY_RATE = 100;
/** Requests in a round. The slowest of a hundred would be one hiccup's; of as many, 99 of 100 say something. */
const STEADY_REQUESTS = 500;
/** As many rounds count, of as many at most. */
const ROUNDS = 3;
const MAX_ROUNDS = 8;
/** Share of the processors that other processes may use in a round that counts. */
const OTHERS_LIMIT = 0.1;
const WARM_UP = 2_000;
const MEASURED = 2_000;
/** Over how many releases memory must stay flat, and how many at once. */
const MEMORY_RELEASES = 10_000;
const CONNECTIONS = 16;
/**
 * How much more may live after all of them than after the first tenth: a used nonce is remembered until it expires, in some 200 bytes; the rest is for the
 * code that V8 compiles meanwhile.
 */
const LIVE_SLACK_MB = 8;
/** How much more the process may then have from the system: its allocators keep some. */
const RESIDENT_SLACK_MB = 48;
/** The web server, the keys' thread, a judge: all of them are asked. */
const THREADS = 3;

/** Nothing else runs on the machine: then the clock counts too, although the clients share the node's cores. */
const ALONE = process.env.KEYSTEAD_BENCH === "alone";

const V1 = tdxImage("v1");
const KEEP = { requestsPerSecond: 1e6, burst: 1e7, timeoutMs: 60_000 };

/** A process's own processor time in seconds, and its memory in MB (proc(5): ticks of 10 ms, pages of 4 KiB). */
function usageOf(pid: number): { readonly cpu: number; readonly rss: number } {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
  const [utime = 0, stime = 0, rss = 0] = [fields[11], fields[12], fields[21]];
  return { cpu: (utime + stime) / 100, rss: (rss * 4096) / 2 ** 20 };
}

/** Processor time of all cores, and how much of it neither the node, nor this process, nor nobody had; in ticks of 10 ms. */
function machineUsage(pid: number): { readonly all: number; readonly others: number } {
  const fields = readFileSync("/proc/stat", "utf8").split("\n")[0]?.split(/\s+/).slice(1, 9).map(Number) ?? [];
  const all = fields.reduce((sum, ticks) => sum + ticks, 0);
  const idle = (fields[3] ?? 0) + (fields[4] ?? 0);
  const { user, system } = process.cpuUsage();
  return { all, others: all - idle - usageOf(pid).cpu * 100 - (user + system) / 10_000 };
}

benchmark("releases", function () {
  this.timeout(1_200_000);
  let tees: TestTees;
  let chain: NodeChain;
  let service: Hex;
  let node: NodeProcess;
  let client: ReturnType<typeof createLoadClient>;
  let memoryFile: string;

  before(async () => {
    tees = await createTestTees();
    chain = await startNodeChain();
    service = await createService(chain.suite, "benchmark");
    await chain.finalize();
    const config = writeNodeConfig(tees, chain, "bench", {
      limits: KEEP,
      challengeSeconds: 3600,
      log: { level: "warn" },
    });
    const init = await keysteadAsync(["node", "init", "--config", config]);
    expect(init.code, init.stderr).to.equal(0);
    memoryFile = join(tees.folder.path, "live-memory.json");
    // the URL is in a line of level info
    const env = { KEYSTEAD_NODE__LOG__LEVEL: "info", ...liveMemoryEnvironment(memoryFile, THREADS) };
    node = await startNodeProcess(config, env);
    client = createLoadClient(node.url, CONNECTIONS);
  });
  after(async () => {
    client?.close();
    node?.child.kill("SIGKILL");
    await chain?.stop();
    tees?.folder.remove();
  });

  const quote = quoteOf(V1);
  /** Requests of as many machines, each with its own key pair, nonce and evidence. */
  const prepare = async (count: number): Promise<string[]> => {
    const bodies: string[] = [];
    for (let index = 0; index < count; index += 1) {
      const { nonce } = parseMessage(challengeSchema, (await client.post("/v1/challenge", "")).body, "challenge");
      const { publicKey } = await generateSealKeyPair();
      const evidence = tees.attest("tdx", nonce, service, publicKey, quote);
      bodies.push(JSON.stringify({ serviceId: service, evidence, recipientPublicKey: toHex(publicKey), nonce }));
    }
    return bodies;
  };
  const send = async (body: string): Promise<number> => {
    const { status, body: text, ms } = await client.post("/v1/keys", body);
    if (status !== 200) throw new Error(`${status}: ${text}`);
    return ms;
  };
  /** As many at a time as there are connections. */
  const flood = async (bodies: readonly string[]): Promise<number[]> => {
    const times: number[] = [];
    let next = 0;
    const run = async () => {
      for (let body = bodies[next++]; body !== undefined; body = bodies[next++]) times.push(await send(body));
    };
    await Promise.all(Array.from({ length: CONNECTIONS }, run));
    return times;
  };
  const pid = () => node.child.pid ?? 0;

  it(`gives ${RATE_GOAL} releases a second on ${CORES} cores`, async () => {
    await flood(await prepare(WARM_UP));
    const bodies = await prepare(MEASURED);
    const [before, start] = [usageOf(pid()), performance.now()];
    const times = await flood(bodies);
    const [after, wall] = [usageOf(pid()), (performance.now() - start) / 1000];
    const cpu = after.cpu - before.cpu;
    const rate = (CORES * MEASURED) / cpu;
    console.log(`      ${MEASURED} releases: ${((cpu * 1000) / MEASURED).toFixed(2)} ms of processor time each`);
    console.log(`      on ${CORES} cores of its own: ${rate.toFixed(0)} a second; goal ${RATE_GOAL}`);
    console.log(
      `      here, beside its clients: ${(MEASURED / wall).toFixed(0)} a second, median ${percentile(times, 0.5).toFixed(1)} ms`,
    );
    expect(rate).to.be.at.least(RATE_GOAL);
    if (ALONE) expect(MEASURED / wall, "by the clock").to.be.at.least(RATE_GOAL);
  });

  it(`answers 99 of 100 within ${P99_GOAL_MS} ms at ${STEADY_RATE} a second`, async function () {
    // A delay, unlike processor time, is everybody's on the machine: only rounds in which others left it alone count.
    const counted: number[][] = [];
    const disturbed: string[] = [];
    for (let round = 0; round < MAX_ROUNDS && counted.length < ROUNDS; round += 1) {
      const bodies = await prepare(STEADY_REQUESTS);
      const before = machineUsage(pid());
      const { times, cpuSeconds } = await sendSteadily({
        url: node.url,
        path: "/v1/keys",
        bodies,
        perSecond: STEADY_RATE,
      });
      const after = machineUsage(pid());
      const others = (after.others - before.others - cpuSeconds * 100) / (after.all - before.all);
      const p99 = percentile(times, 0.99);
      if (others <= OTHERS_LIMIT) counted.push(times);
      else disturbed.push(`${p99.toFixed(0)} ms with ${(100 * others).toFixed(0)} %`);
    }
    if (disturbed.length > 0) console.log(`      not counted, others used the processors: ${disturbed.join(", ")}`);
    if (counted.length === 0) {
      console.log("      NOT MEASURED: the machine was never left alone for a round");
      this.skip();
    }
    const all = counted.flat();
    const p99 = percentile(all, 0.99);
    const rounds = counted.map((times) => percentile(times, 0.99).toFixed(1)).join(", ");
    console.log(
      `      ${all.length} requests: median ${percentile(all, 0.5).toFixed(1)} ms, p99 ${p99.toFixed(1)} ms; goal ${P99_GOAL_MS}`,
    );
    console.log(`      p99 of each round: ${rounds} ms`);
    if (!ALONE) {
      console.log("      not held to the goal: delays count where the benchmark has its machine and disk to itself");
      this.skip();
    }
    expect(p99).to.be.at.most(P99_GOAL_MS);
  });

  it(`holds no more memory after ${MEMORY_RELEASES.toLocaleString("en")} releases`, async () => {
    const samples: LiveMemory[] = [];
    const chunk = MEMORY_RELEASES / 10;
    for (let done = 0; done < MEMORY_RELEASES; done += chunk) {
      await flood(await prepare(chunk));
      samples.push(await readLiveMemory(node.child, memoryFile));
    }
    const mb = (bytes: number) => bytes / 2 ** 20;
    const live = samples.map(({ threads }) => mb(Object.values(threads).reduce((sum, bytes) => sum + bytes, 0)));
    const resident = samples.map((sample) => mb(sample.resident));
    const show = (values: readonly number[]) => values.map((value) => value.toFixed(0)).join(" ");
    console.log(`      MB alive after each tenth, all threads: ${live.map((value) => value.toFixed(1)).join(" ")}`);
    console.log(`      MB of the process: ${show(resident)}`);
    expect(Math.max(...live.slice(5)) - (live[0] ?? 0)).to.be.at.most(LIVE_SLACK_MB);
    expect(Math.max(...resident.slice(5)) - Math.max(...resident.slice(0, 5))).to.be.at.most(RESIDENT_SLACK_MB);
  });
});
