import { join } from "node:path";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { buildReportData } from "../../src/core/binding.ts";
import { fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import { KMS_SUBJECT } from "../../src/core/release.ts";
import {
  challengeSchema,
  type KeysResponse,
  keysResponseSchema,
  parseMessage,
  type WireEvidence,
} from "../../src/core/release-wire.ts";
import { generateSealKeyPair, type SealKeyPair } from "../../src/core/seal.ts";
import { createNodeApp, type NodeAppOptions } from "../../src/node/app.ts";
import { createChallenges } from "../../src/node/challenge.ts";
import { formatTdxCollateral } from "../../src/node/evidence/tdx-collateral.ts";
import { createJudge, type Judge, type JudgeOptions } from "../../src/node/judge.ts";
import { createKeyRing, type KeyRing } from "../../src/node/keys.ts";
import { DEFAULT_LIMITS } from "../../src/node/limits.ts";
import { createMetrics } from "../../src/node/metrics.ts";
import { openReceiptLog, type ReceiptLog } from "../../src/node/receipts.ts";
import { createReleaser, type Decision, type ReleaseDecider } from "../../src/node/release.ts";
import { createTestNitro, type TestNitro } from "../../src/node/test-tee/nitro.ts";
import { createTestSnp, type TestSnp } from "../../src/node/test-tee/snp.ts";
import { createTestTdx, type TestTdx, type TestTdxQuote } from "../../src/node/test-tee/tdx.ts";
import { type Folder, makeFolder } from "./cli.ts";
import { fill } from "./evidence.ts";
import { openByHand } from "./hpke.ts";

/** The chain and registry that tests' nodes are of. */
export const DEPLOYMENT = { chainId: 31337n, registry: toHex(fill(20, 0xab)) };
export const SERVICE: Hex = toHex(fill(20, 0x5e));
export const IMAGE: Hex = toHex(fill(32, 0x1a));
export const PLATFORM: Hex = toHex(fill(32, 0x1b));
/** The tests' root secret, and as it stands in {@link ROOT_SECRETS}. */
export const ROOT = (): Uint8Array => Uint8Array.from({ length: 32 }, (_, index) => 0x11 + index);

/** A decision as the fake chain gives it. */
export const ALLOWED = {
  allowed: true,
  decision: "Allowed",
  imageId: IMAGE,
  platformId: PLATFORM,
  keyEpoch: 1,
  historyHead: toHex(fill(32, 0x1c)),
  policyVersion: 7,
  basis: { block: { number: 100, hash: toHex(fill(32, 0x1d)) } },
} as const;

/** The three test TEEs, made once for a suite: RSA keys take a while. */
export interface TestTees {
  readonly folder: Folder;
  readonly tdx: TestTdx;
  readonly snp: TestSnp;
  readonly nitro: TestNitro;
  readonly judgeOptions: JudgeOptions;
  /** Evidence of a machine for a nonce, a service and a key. */
  readonly attest: (
    kind: WireEvidence["kind"],
    nonce: Hex,
    serviceId: Hex,
    publicKey: Uint8Array,
    quote?: Partial<TestTdxQuote>,
  ) => WireEvidence;
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
export const now = (): number => Math.floor(Date.now() / 1000);

/** Makes test TEEs whose certificates and collateral are good now. */
export async function createTestTees(): Promise<TestTees> {
  const folder = makeFolder();
  const atUnixSeconds = now();
  const tdx = await createTestTdx({ atUnixSeconds });
  const snp = await createTestSnp({ atUnixSeconds });
  const nitro = await createTestNitro({ atUnixSeconds });
  const collateral = folder.write("collateral.json", formatTdxCollateral(await tdx.issueCollateral()));
  const judgeOptions: JudgeOptions = {
    collateralFiles: [collateral],
    requireSnpCrl: false,
    snpVmpls: [0],
    nitroMaxAgeSeconds: 300,
    unsafeTestRoots: [tdx.root, snp.root, nitro.root],
  };
  const attest: TestTees["attest"] = (kind, nonce, serviceId, recipientPublicKey, quote) => {
    const binding = { nonce: fromHex(nonce, "nonce"), serviceId, recipientPublicKey };
    const reportData = buildReportData(binding);
    if (kind === "tdx") return { kind, quote: base64(tdx.issueQuote({ ...quote, reportData })) };
    if (kind === "snp") {
      const { endorsementKey, signer } = snp.certificates;
      const certificates = {
        endorsementKey: base64(endorsementKey),
        signer: base64(signer),
        // without a root the pinned one is meant
        root: base64(snp.root),
      };
      return { kind, report: base64(snp.issueReport({ reportData })), certificates };
    }
    const pcrs = { 0: fill(48, 1), 1: fill(48, 2), 2: fill(48, 3) };
    const timestampMs = now() * 1000;
    const document = { pcrs, userData: reportData, nonce: binding.nonce, publicKey: recipientPublicKey, timestampMs };
    return { kind, document: base64(nitro.issueDocument(document)) };
  };
  return { folder, tdx, snp, nitro, judgeOptions, attest };
}

/** A node in this process, with everything real but the chain. */
export interface TestNode {
  readonly app: OpenAPIHono;
  readonly ring: KeyRing;
  readonly receipts: ReceiptLog;
  readonly receiptsPath: string;
  readonly tees: TestTees;
  /** What was logged, as JSON lines. */
  readonly logged: string[];
  /** What the chain answers from now on. */
  chain: ReleaseDecider;
  /** What was asked of the chain. */
  readonly asked: unknown[];
  /** Seconds to add to the time that the node sees. */
  skewSeconds: number;
  /** Seconds to add to those that have passed, whatever the clock says. */
  passedSeconds: number;
  readonly close: () => Promise<void>;
}

let nodes = 0;

/** What a test may change about its node. */
export interface TestNodeOptions extends Partial<Pick<NodeAppOptions, "limits" | "shareRoot" | "notReady">> {
  /** What the routes use in place of the node's own. */
  readonly receipts?: NodeAppOptions["receipts"];
  readonly challenges?: NodeAppOptions["challenges"];
  readonly info?: NodeAppOptions["info"];
  readonly testTee?: boolean;
  readonly judge?: Judge;
  readonly roots?: Uint8Array;
  readonly challengeSeconds?: number;
}

/** Makes a node in this process. */
export async function createTestNode(tees: TestTees, options: TestNodeOptions = {}): Promise<TestNode> {
  const { testTee = true, challengeSeconds = 60 } = options;
  nodes += 1;
  const receiptsPath = join(tees.folder.path, `receipts-${nodes}.jsonl`);
  const receipts = await openReceiptLog(receiptsPath);
  const ring = createKeyRing([{ rootEpoch: 0, secret: options.roots ?? ROOT() }], DEPLOYMENT);
  const judge = options.judge ?? createJudge(tees.judgeOptions);
  const logged: string[] = [];
  const log = (fields: object, message: string) => logged.push(JSON.stringify({ ...fields, message }));
  const node: { chain: ReleaseDecider; skewSeconds: number; passedSeconds: number } = {
    chain: { decide: async () => ALLOWED, decideKms: async () => ALLOWED },
    skewSeconds: 0,
    passedSeconds: 0,
  };
  const asked: unknown[] = [];
  const clock = () => Date.now() / 1000 + node.skewSeconds;
  const stopwatch = () => performance.now() / 1000 + node.passedSeconds;
  const challenges = createChallenges({ seconds: challengeSeconds, clock, stopwatch });
  const decider: ReleaseDecider = {
    decide: (question) => {
      asked.push(question);
      return node.chain.decide(question);
    },
    decideKms: (question) => {
      asked.push(question);
      return node.chain.decideKms(question);
    },
  };
  const metrics = createMetrics({
    receipts: receipts.count,
    usedNonces: challenges.size,
    chain: () => ({ ready: true, ageSeconds: 3 }),
    collateral: judge.collateral,
    clock,
    testTee,
    process: false,
  });
  const releaser = createReleaser({
    ...{ ring, judge, decider, challenges, receipts, testTee, clock },
    onJudged: metrics.machines.note,
  });
  const app = createNodeApp({
    releaser,
    challenges: options.challenges ?? challenges,
    receipts: options.receipts ?? receipts,
    metrics,
    limits: { ...DEFAULT_LIMITS, requestsPerSecond: 100_000, burst: 1_000_000, ...options.limits },
    log: { info: log, warn: log, error: log },
    shareRoot: options.shareRoot ?? true,
    notReady: options.notReady ?? (() => []),
    info:
      options.info ??
      (() => ({
        protocol: "keystead/v1",
        version: "0.0.0",
        chainId: String(DEPLOYMENT.chainId),
        registry: DEPLOYMENT.registry,
        policy: toHex(fill(20, 0xac)),
        testTee,
        receiptSigner: ring.receiptSigner,
        environmentKey: ring.environmentKey,
        rootEpoch: ring.rootEpoch,
        evidenceKinds: ["tdx", "snp", "nitro"],
        purposes: [],
        challengeSeconds,
      })),
  });
  const close = async () => {
    await receipts.close();
    await judge.close();
    ring.wipe();
  };
  return Object.assign(node, { app, ring, receipts, receiptsPath, tees, logged, asked, close });
}

/** Asks by POST. */
export async function post(app: OpenAPIHono, path: string, body?: unknown): Promise<Response> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const headers = { "content-type": "application/json" };
  return await app.request(path, { method: "POST", headers, ...(body === undefined ? {} : { body: text }) });
}

/** A new nonce. */
export async function challenge(app: OpenAPIHono): Promise<Hex> {
  const response = await post(app, "/v1/challenge");
  return parseMessage(challengeSchema, await response.text(), "challenge").nonce;
}

/** A request for keys as an honest machine makes it, and the key pair that it is for. */
export async function honestRequest(node: TestNode, kind: WireEvidence["kind"] = "tdx", serviceId: Hex = SERVICE) {
  const nonce = await challenge(node.app);
  const machine: SealKeyPair = await generateSealKeyPair();
  const evidence = node.tees.attest(kind, nonce, serviceId, machine.publicKey);
  const request = { serviceId, evidence, recipientPublicKey: toHex(machine.publicKey), nonce };
  return { machine, request };
}

/** A node's request for the root, as an honest one makes it. */
export async function honestRootRequest(node: TestNode, kind: WireEvidence["kind"] = "tdx") {
  const { machine, request } = await honestRequest(node, kind, KMS_SUBJECT);
  const { serviceId: _, ...rest } = request;
  return { machine, request: rest };
}

/** An answer with keys, read strictly. */
export async function keysOf(response: Response): Promise<KeysResponse> {
  return parseMessage(keysResponseSchema, await response.text(), "answer");
}

/** Opens a sealed answer with the second implementation of HPKE. */
export function openAnswer(
  machine: SealKeyPair,
  { sealed, receipt }: { readonly sealed: KeysResponse["sealed"]; readonly receipt: { readonly digest: Hex } },
  info = "keystead/v1/release",
): Uint8Array {
  const parts = { enc: fromHex(sealed.enc, "enc"), ciphertext: Buffer.from(sealed.ciphertext, "base64") };
  return openByHand(machine.privateKey, parts, { info: Buffer.from(info), aad: fromHex(receipt.digest, "digest") });
}

export type { Decision };
