import type { Server } from "node:http";
import { serve } from "@hono/node-server";
import { type DestinationStream, type Logger, pino } from "pino";
import manifest from "../../package.json" with { type: "json" };
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { STANDARD_PURPOSES } from "../core/key-bundle.ts";
import { RELEASE_PROTOCOL } from "../core/release.ts";
import type { NodeInfo } from "../core/release-wire.ts";
import { createNodeApp } from "./app.ts";
import { createChallenges } from "./challenge.ts";
import type { NodeConfig } from "./config.ts";
import type { Decider } from "./decide.ts";
import { createDstackWebhook } from "./dstack.ts";
import { createGatedWebhook } from "./dstack-gate.ts";
import { monotonicSeconds } from "./evidence/time.ts";
import type { Judge } from "./judge.ts";
import { createJudgePool } from "./judge-pool.ts";
import { openKeyThread } from "./key-thread.ts";
import {
  checkCoreDumps,
  loadDeployment,
  loadDstackGate,
  loadJudgeOptions,
  loadRoots,
  type NodeSurroundings,
  notListening,
  openDecider,
} from "./load.ts";
import { createMetrics } from "./metrics.ts";
import { openReceiptLog } from "./receipts.ts";
import { createReleaser } from "./release.ts";

/** What a node needs from outside of its configuration, and where its log goes. */
export interface StartOptions extends NodeSurroundings {
  /** Default: standard output. */
  readonly logTo?: DestinationStream | undefined;
  /** Another program in the place of the keys' thread: tests have one that ends. */
  readonly keyProgram?: URL | undefined;
}

/** A node that runs. */
export interface RunningNode {
  /** Where it listens. */
  readonly url: string;
  /** Where dstack-kms is answered; undefined if the configuration has no webhook. */
  readonly dstackUrl: string | undefined;
  readonly info: NodeInfo;
  readonly log: Logger;
  /** Resolves if the node can no longer release anything: `node/keys-gone`. It is to be closed, and started again. */
  readonly failure: Promise<KeysteadError>;
  /** Takes no more requests, answers those that it has, closes everything and wipes the secrets. */
  readonly close: () => Promise<void>;
}

/** Milliseconds that answers have to be finished when a node stops. */
const DRAIN_MS = 10_000;
/** A PCCS has ten seconds for an answer: a judging thread is not ended before that. */
const MIN_JUDGE_MS = 15_000;
/** What waits for whoever reads the log. Beyond it lines are dropped: a reader that stands still must not hold up the node. */
const MAX_LOG_BYTES = 4 * 1024 * 1024;
/** Lines are written together: when there are so many bytes of them, or after so many milliseconds. At its end a node writes what is left. */
const LOG_GROUP = { minLength: 8 * 1024, periodicFlush: 100 } as const;
const SAME_FAILURE_SECONDS = 60;
const NOTHING_TOLD = { code: "", at: Number.NEGATIVE_INFINITY };
const TEST_TEE_WARNING =
  "THIS NODE TAKES EVIDENCE UNDER TEST ROOTS: ANYONE CAN MAKE SUCH EVIDENCE. ITS KEYS PROTECT NOTHING.";

const clock = () => Date.now() / 1000;

/**
 * Starts a node.
 *
 * @throws KeysteadError of every part that does not start; nothing is left open then
 * @example
 * const node = await startNode(await readNodeConfig("node.yaml", process.env));
 */
export async function startNode(config: NodeConfig, surroundings: StartOptions = {}): Promise<RunningNode> {
  const log = pino(
    { level: config.log.level, base: { service: "keystead-node" } },
    surroundings.logTo ?? pino.destination({ dest: 1, sync: false, maxLength: MAX_LOG_BYTES, ...LOG_GROUP }),
  );
  await checkCoreDumps(config);
  const opened: (() => unknown)[] = [];
  try {
    return await open(config, surroundings, log, opened);
  } catch (error) {
    for (const close of opened.reverse()) await close();
    throw error;
  }
}

async function open(
  config: NodeConfig,
  surroundings: StartOptions,
  log: Logger,
  opened: (() => unknown)[],
): Promise<RunningNode> {
  const loaded = await loadDeployment(config);
  const { pinned } = loaded;
  const testTee = config.unsafeTestTee !== undefined;
  if (testTee) log.warn({ testTee }, TEST_TEE_WARNING);
  const judgeOptions = await loadJudgeOptions(config);

  const roots = await loadRoots(config, loaded, surroundings, log);
  const deployment = { chainId: BigInt(pinned.chainId), registry: pinned.registry.address };
  let keysGone = false;
  const failure = Promise.withResolvers<KeysteadError>();
  const ring = await openKeyThread(roots, deployment, {
    program: surroundings.keyProgram,
    onDeath: (reason) => {
      keysGone = true;
      log.fatal(
        { reason },
        "the thread that holds the keys ended: the secrets are gone, the node must be started again",
      );
      failure.resolve(
        new KeysteadError("node/keys-gone", "the thread that holds the keys ended", {
          argument: "root",
          remedy: "Start the node again, and see its log for the reason.",
          retryable: true,
        }),
      );
    },
  });
  opened.push(ring.wipe);

  const receipts = await openReceiptLog(config.receipts);
  opened.push(receipts.close);
  if (receipts.cutOff > 0) log.warn({ bytes: receipts.cutOff }, "cut an unfinished group of receipts off");

  const judge: Judge = createJudgePool(judgeOptions, {
    threads: config.evidence.threads,
    timeoutMs: Math.max(config.limits.timeoutMs, MIN_JUDGE_MS),
    onDeath: (reason) => log.error({ reason }, "a judging thread ended"),
  });
  opened.push(judge.close);

  // A restart does not take the node back to a block before those that it answered from.
  const [latest] = await receipts.page(Math.max(0, receipts.count() - 1), 1);
  const floor = latest && {
    number: Number(latest.receipt.message.blockNumber),
    hash: latest.receipt.message.blockHash,
  };
  let told = NOTHING_TOLD;
  const decider: Decider = await openDecider(config, pinned, {
    onError: ({ code, message }) => {
      // It is looked every few seconds: the same failure is told once a minute.
      if (code === told.code && monotonicSeconds() - told.at < SAME_FAILURE_SECONDS) return;
      told = { code, at: monotonicSeconds() };
      const failing = decider.status().endpoints.filter(({ state }) => state !== "ok");
      const endpoints = failing.map(({ name, state, failures, lastError }) => ({ name, state, failures, lastError }));
      log.warn({ code, message, endpoints }, "looking at the chain failed");
    },
    onRecovery: () => {
      told = NOTHING_TOLD;
      log.info({ block: decider.status().block?.number }, "the chain can be read again");
    },
    floor,
  });
  opened.push(decider.stop);
  await decider.refresh().catch((error: unknown) => {
    const code = isKeysteadError(error) ? error.code : "unknown";
    log.warn({ code }, "the chain cannot be read yet: requests are refused until it can");
  });
  decider.start();

  const challenges = createChallenges({ seconds: config.challengeSeconds, clock });
  const metrics = createMetrics({
    receipts: receipts.count,
    usedNonces: challenges.size,
    chain: decider.status,
    collateral: judge.collateral,
    clock,
    testTee,
    process: true,
  });
  opened.push(() => metrics.registry.clear());
  const info: NodeInfo = {
    protocol: RELEASE_PROTOCOL,
    version: manifest.version,
    chainId: String(pinned.chainId),
    registry: pinned.registry.address,
    policy: pinned.policy.address,
    testTee,
    ...(testTee ? { warning: TEST_TEE_WARNING } : {}),
    receiptSigner: ring.receiptSigner,
    environmentKey: ring.environmentKey,
    rootEpoch: ring.rootEpoch,
    evidenceKinds: ["tdx", "snp", "nitro"],
    purposes: [...STANDARD_PURPOSES],
    challengeSeconds: config.challengeSeconds,
  };
  let stopping = false;
  const notReady = (): readonly string[] => {
    const { ready, reason } = decider.status();
    const receiptFault = receipts.fault();
    return [
      ...(stopping ? ["node/stopping"] : []),
      ...(keysGone ? ["node/keys-gone"] : []),
      ...(receiptFault === undefined ? [] : [receiptFault]),
      ...(ready ? [] : [reason ?? "chain/unavailable"]),
    ];
  };
  const gate = await loadDstackGate(config);
  const webhook = createDstackWebhook({
    decider,
    onFault: (error) => {
      const { code, details } = isKeysteadError(error) ? error : { code: "unknown", details: {} };
      const { field } = details as { readonly field?: unknown };
      log.warn({ code, ...(typeof field === "string" ? { field } : {}) }, "the dstack webhook could not decide");
    },
    onDecision: ({ route, boot, reason }) =>
      log.info({ route, app: boot.appId, tee: boot.teeVariant, reason }, "dstack decision"),
  });
  const gated = gate && createGatedWebhook(webhook, gate, config.limits);
  const app = createNodeApp({
    releaser: createReleaser({
      ...{ ring, judge, decider, challenges, receipts, testTee, clock },
      onJudged: metrics.machines.note,
    }),
    challenges,
    receipts,
    info: () => info,
    notReady,
    shareRoot: config.shareRoot,
    limits: config.limits,
    metrics,
    log,
  });

  const { limits, dstackWebhook } = config;
  const servers: Server[] = [];
  opened.push(() => Promise.all(servers.map(drain)));
  const serveAt = async (fetch: Fetch, at: NodeConfig["listen"]) => {
    const { server, url } = await listen(fetch, at, limits);
    servers.push(server);
    return url;
  };
  const url = await serveAt(app.fetch, config.listen);
  const dstackUrl = gated && dstackWebhook && (await serveAt(gated.fetch, dstackWebhook.listen));
  if (dstackUrl !== undefined) log.info({ url: dstackUrl }, "the dstack webhook is listening");
  const { registry, receiptSigner, environmentKey } = info;
  log.info({ url, chainId: info.chainId, registry, receiptSigner, environmentKey, testTee }, "listening");
  return {
    url,
    dstackUrl,
    info,
    log,
    failure: failure.promise,
    close: async () => {
      if (stopping) return;
      stopping = true;
      log.info({}, "stopping");
      for (const close of opened.reverse()) await close();
      log.info({}, "stopped");
    },
  };
}

type Fetch = Parameters<typeof serve>[0]["fetch"];

async function listen(fetch: Fetch, { host, port }: NodeConfig["listen"], { timeoutMs }: NodeConfig["limits"]) {
  return await new Promise<{ server: Server; url: string }>((resolve, reject) => {
    const server = serve(
      {
        fetch,
        hostname: host,
        port,
        // Slow senders are cut off: a header or a body has as long as an answer.
        serverOptions: {
          requestTimeout: timeoutMs,
          headersTimeout: Math.min(timeoutMs, 10_000),
          keepAliveTimeout: 30_000,
          connectionsCheckingInterval: 1_000,
          maxHeaderSize: 16_384,
        },
      },
      (address) =>
        resolve({
          server: server as Server,
          url: `http://${host.includes(":") ? `[${host}]` : host}:${address.port}`,
        }),
    );
    server.once("error", (cause) => reject(notListening(host, port, cause)));
  });
}

/** No new connections; idle ones are closed, answers under way finish. */
async function drain(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), DRAIN_MS);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    server.closeIdleConnections();
  });
}
