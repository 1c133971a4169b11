import { appendFileSync, readdirSync, readFileSync } from "node:fs";
import { createServer, request as httpRequest, type Server } from "node:http";
import { join } from "node:path";
import { expect } from "chai";
import { fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import { parseKeyBundle, STANDARD_PURPOSES } from "../../src/core/key-bundle.ts";
import {
  challengeSchema,
  infoSchema,
  type KeysResponse,
  keysResponseSchema,
  parseMessage,
  receiptsPageSchema,
} from "../../src/core/release-wire.ts";
import { generateSealKeyPair } from "../../src/core/seal.ts";
import { createFileRootStore } from "../../src/node/keys.ts";
import { errorCodeOf, jsonOf, keysteadAsync } from "../helpers/cli.ts";
import { createService, type NodeChain, startNodeChain } from "../helpers/decider.ts";
import { kmsKeyByHand, purposeKeyByHand, receiptKeyByHand } from "../helpers/derivation.ts";
import { fill } from "../helpers/evidence.ts";
import { tdxImage } from "../helpers/images.ts";
import { createTestTees, openAnswer, type TestTees } from "../helpers/node.ts";
import { leaks, type NodeProcess, quoteOf, startNodeProcess, writeNodeConfig } from "../helpers/node-process.ts";

const V1 = tdxImage("v1");
const KMS_IMAGE = tdxImage("kms");
const PASSPHRASE = Buffer.from("a passphrase of the tests");

const DSTACK_TOKEN = "a token of the tests, which is long enough";

/** Makes an uncaught error when it is told to. */
const CRASH_ON_SIGUSR2 =
  "--import data:text/javascript,process.on('SIGUSR2',()=>{setTimeout(()=>{throw%20new%20Error('crash')})})";

describe("node process", function () {
  this.timeout(600_000);
  let tees: TestTees;
  let chain: NodeChain;
  let service: Hex;
  let config: string;
  /** The first node, while it runs. */
  let node: NodeProcess;
  /** Makes evidence for programs that ask for it by HTTP. */
  let device: Server;
  let deviceArgs: string[];
  /** Everything that any process of this file printed or answered, for the search for secrets at the end. */
  const seen: Buffer[] = [];

  before(async () => {
    tees = await createTestTees();
    chain = await startNodeChain();
    service = await createService(chain.suite, "node process");
    await chain.suite.policy.connect(chain.suite.governor).allowKmsImage(KMS_IMAGE, "kms");
    await chain.finalize();
    tees.folder.write("dstack-token", `${DSTACK_TOKEN}\n`);
    const dstackWebhook = { listen: { port: 0 }, tokenFile: "dstack-token" };
    config = writeNodeConfig(tees, chain, "first", { dstackWebhook });
    device = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const { nonce, service_id, public_key } = JSON.parse(Buffer.concat(chunks).toString());
        const key = fromHex(public_key, "public_key");
        const image = request.url === "/kms" ? KMS_IMAGE : V1;
        const evidence = tees.attest("tdx", `0x${nonce}`, `0x${service_id}`, key, quoteOf(image));
        response.end(evidence.kind === "tdx" ? evidence.quote : "");
      });
    });
    await new Promise<void>((resolve) => device.listen(0, "127.0.0.1", resolve));
    const address = device.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const program = tees.folder.write(
      "evidence.mjs",
      `const chunks = []; for await (const chunk of process.stdin) chunks.push(chunk);
       const answer = await fetch(process.argv[2], { method: "POST", body: Buffer.concat(chunks) });
       process.stdout.write(await answer.text());`,
    );
    const words = (path: string) =>
      [program, `http://127.0.0.1:${port}${path}`].flatMap((word) => ["--evidence-arg", word]);
    deviceArgs = ["--evidence-command", process.execPath, ...words("/kms")];
  });
  after(async () => {
    node?.child.kill("SIGKILL");
    device?.close();
    await chain?.stop();
    tees?.folder.remove();
  });

  /** A machine that runs an image makes its request for the service's keys. */
  const prepare = async (url: string, image: string = V1) => {
    const asked = await fetch(`${url}/v1/challenge`, { method: "POST" });
    const { nonce } = parseMessage(challengeSchema, await asked.text(), "challenge");
    const machine = await generateSealKeyPair();
    const evidence = tees.attest("tdx", nonce, service, machine.publicKey, quoteOf(image));
    return { machine, request: { serviceId: service, evidence, recipientPublicKey: toHex(machine.publicKey), nonce } };
  };
  const acquire = async (url: string, image: string = V1) => {
    const { machine, request } = await prepare(url, image);
    const response = await fetch(`${url}/v1/keys`, { method: "POST", body: JSON.stringify(request) });
    const text = await response.text();
    seen.push(Buffer.from(text));
    return { machine, status: response.status, text };
  };
  const keysFrom = async (url: string) => {
    const { machine, status, text } = await acquire(url);
    expect(status, text).to.equal(200);
    const answer: KeysResponse = parseMessage(keysResponseSchema, text, "answer");
    const { keys } = parseKeyBundle(openAnswer(machine, answer));
    return { answer, keys: keys.map(({ key, purpose }) => [purpose, toHex(key)]) };
  };
  const receiptsOf = async (url: string) => {
    const digests: string[] = [];
    for (let after: number | undefined = 0; after !== undefined; ) {
      const text: string = await (await fetch(`${url}/v1/receipts?after=${after}`)).text();
      const page = parseMessage(receiptsPageSchema, text, "page");
      digests.push(...page.receipts.map(({ receipt }) => receipt.digest));
      after = page.next;
    }
    return digests;
  };

  it("given no root file, check says so; init makes one, once; then check is content", async () => {
    const args = (...words: string[]) => ["node", ...words, "--config", config, "--json"];
    const env = { KEYSTEAD_NODE__ALLOWCOREDUMPS: "true" };
    const first = await keysteadAsync(args("check"), { env });
    expect(first.code).to.equal(1);
    const failed = jsonOf(first).checks.filter(({ state }: { state: string }) => state === "failed");
    expect(failed).to.have.length(1);
    expect(failed[0]).to.include({ check: "root", code: "root/not-found" });
    expect((await keysteadAsync(args("init"), { env })).code).to.equal(0);
    const again = await keysteadAsync(args("init"), { env });
    expect([again.code, errorCodeOf(again)]).to.deep.equal([2, "root/exists"]);
    const second = await keysteadAsync(args("check"), { env });
    expect(second.code, second.stdout).to.equal(0);
    const warnings = jsonOf(second).checks.filter(({ state }: { state: string }) => state === "warning");
    expect(warnings.map(({ check }: { check: string }) => check)).to.deep.equal(["test TEE", "AMD's CRL"]);
    seen.push(Buffer.from(first.stdout + second.stdout + again.stderr));
  });

  it("given a test TEE, says so in its log, in /v1/info and in every receipt, and gives keys", async () => {
    node = await startNodeProcess(config, { NODE_OPTIONS: CRASH_ON_SIGUSR2 });
    expect(node.output().toString()).to.contain("THIS NODE TAKES EVIDENCE UNDER TEST ROOTS");
    const info = parseMessage(infoSchema, await (await fetch(`${node.url}/v1/info`)).text(), "info");
    expect(info.testTee).to.equal(true);
    expect(info.warning).to.contain("TEST ROOTS");
    expect((await fetch(`${node.url}/ready`)).status).to.equal(200);
    // dstack-kms is answered on a listener of its own, and only there
    const webhook = /"url":"(http:[^"]+)","msg":"the dstack webhook is listening"/.exec(node.output().toString())?.[1];
    const authorization = `Basic ${Buffer.from(`dstack:${DSTACK_TOKEN}`).toString("base64")}`;
    expect((await fetch(`${webhook}/dstack`)).status).to.equal(401);
    expect((await fetch(`${webhook}/`, { headers: { authorization } })).status).to.equal(200);
    expect((await fetch(`${webhook}/v1/info`, { headers: { authorization } })).status).to.equal(404);
    expect((await fetch(`${node.url}/dstack`, { headers: { authorization } })).status).to.equal(404);
    const { answer, keys } = await keysFrom(node.url);
    expect(answer.receipt.testTee).to.equal(true);
    expect(keys.map(([purpose]) => purpose)).to.deep.equal([...STANDARD_PURPOSES]);
    const denied = await acquire(node.url, tdxImage("never registered"));
    expect([denied.status, JSON.parse(denied.text).decision]).to.deep.equal([403, "ImageUnknown"]);
  });

  it("given SIGKILL under load, has every receipt whose keys left, after a restart with the same root", async () => {
    const before = await keysFrom(node.url);
    const answered: string[] = [before.answer.receipt.digest];
    let running = true;
    const load = Array.from({ length: 8 }, async () => {
      while (running) {
        try {
          answered.push((await keysFrom(node.url)).answer.receipt.digest);
        } catch {
          return; // the node is gone
        }
      }
    });
    while (answered.length < 60) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await node.kill("SIGKILL")).to.equal("SIGKILL");
    running = false;
    await Promise.all(load);
    seen.push(node.output());
    node = await startNodeProcess(config, { NODE_OPTIONS: CRASH_ON_SIGUSR2 });
    const kept = await receiptsOf(node.url);
    expect(answered.filter((digest) => !kept.includes(digest))).to.deep.equal([]);
    const after = await keysFrom(node.url);
    expect(after.keys).to.deep.equal(before.keys);
    expect((await receiptsOf(node.url)).at(-1)).to.equal(after.answer.receipt.digest);
  });

  describe("a second node", () => {
    const second = (changes: object = {}) =>
      writeNodeConfig(tees, chain, "second", { allowCoreDumps: true, ...changes });
    const join = async (expected: { environmentKey: string; receiptSigner: string }, args: readonly string[]) => {
      const words = ["node", "join", node.url, "--config", second(), "--json", ...args];
      const { environmentKey, receiptSigner } = expected;
      return await keysteadAsync([...words, "--environment-key", environmentKey, "--receipt-signer", receiptSigner]);
    };
    const identityOf = async () => parseMessage(infoSchema, await (await fetch(`${node.url}/v1/info`)).text(), "info");

    it("given an image that the policy does not allow as KMS, gets no root", async () => {
      const asMachine = deviceArgs.map((word) => word.replace(/\/kms$/, "/machine"));
      const run = await join(await identityOf(), asMachine);
      expect([run.code, errorCodeOf(run)]).to.deep.equal([1, "join/refused"]);
      expect(JSON.parse(run.stderr).error.details).to.include({ decision: "KmsImageNotAllowed", status: 403 });
    });

    it("given another identity than was published, uses nothing of the answer", async () => {
      const identity = await identityOf();
      const other = await join({ ...identity, environmentKey: toHex(fill(32, 7)) }, deviceArgs);
      expect(errorCodeOf(other)).to.equal("root/other-identity");
      const signer = await join({ ...identity, receiptSigner: toHex(fill(20, 7)) }, deviceArgs);
      expect(errorCodeOf(signer)).to.equal("join/receipt");
      expect(readdirSync(tees.folder.path)).not.to.include("second.root.json");
      seen.push(Buffer.from(other.stderr + signer.stderr));
    });

    it("given a KMS image, gets the root once, and both release the same keys", async () => {
      const identity = await identityOf();
      const run = await join(identity, deviceArgs);
      expect(run.code, run.stderr).to.equal(0);
      expect(errorCodeOf(await join(identity, deviceArgs))).to.equal("root/exists");
      const other = await startNodeProcess(second());
      expect((await keysFrom(other.url)).keys).to.deep.equal((await keysFrom(node.url)).keys);
      const info = parseMessage(infoSchema, await (await fetch(`${other.url}/v1/info`)).text(), "info");
      expect(info).to.include({ environmentKey: identity.environmentKey, receiptSigner: identity.receiptSigner });
      // and there is nothing else between them: the first may go
      expect(await other.kill("SIGTERM")).to.equal(0);
      seen.push(other.output(), Buffer.from(run.stdout + run.stderr));
    });

    it("joins by configuration at its first start, too", async () => {
      const { environmentKey, receiptSigner } = await identityOf();
      const path = writeNodeConfig(tees, chain, "third", { join: { url: node.url, environmentKey, receiptSigner } });
      const third = await startNodeProcess(path, {}, deviceArgs);
      expect((await keysFrom(third.url)).keys).to.deep.equal((await keysFrom(node.url)).keys);
      expect(await third.kill("SIGTERM")).to.equal(0);
      seen.push(third.output());
    });

    it("identity prints what to publish, with the hash of evidence that anyone can check", async () => {
      const out = `${tees.folder.path}/identity.json`;
      const words = ["node", "identity", "--config", config, "--json", "--evidence-out", out, ...deviceArgs];
      const run = await keysteadAsync(words, { env: { KEYSTEAD_NODE__ALLOWCOREDUMPS: "true" } });
      expect(run.code, run.stderr).to.equal(0);
      const identity = await identityOf();
      expect(jsonOf(run)).to.include({
        root_epoch: 0,
        environment_key: identity.environmentKey,
        receipt_signer: identity.receiptSigner,
      });
      expect(jsonOf(run).evidence_hash).to.match(/^0x[0-9a-f]{64}$/);
      seen.push(Buffer.from(run.stdout), readFileSync(out));
    });
  });

  it("given SIGTERM with a request under way, answers it, and ends with 0", async () => {
    const slow = await startNodeProcess(writeNodeConfig(tees, chain, "slow", { root: rootOf("first") }));
    const { request } = await prepare(slow.url);
    const body = Buffer.from(JSON.stringify(request));
    const headers = { "content-type": "application/json", "content-length": body.length };
    const call = httpRequest(`${slow.url}/v1/keys`, { method: "POST", headers });
    const answered = new Promise<number | undefined>((resolve, reject) => {
      call.on("error", reject);
      call.on("response", (response) => response.resume().on("end", () => resolve(response.statusCode)));
    });
    call.write(body.subarray(0, 1000));
    await until(() => slow.output().toString().includes('"msg":"listening"'));
    await new Promise((resolve) => setTimeout(resolve, 500));
    const ended = slow.kill("SIGTERM");
    await until(() => slow.output().toString().includes('"msg":"stopping"'));
    // no new connection is taken, and the one that was there is answered
    expect(
      await fetch(`${slow.url}/health`).then(
        () => "answered",
        () => "refused",
      ),
    ).to.equal("refused");
    call.end(body.subarray(1000));
    expect(await answered).to.equal(200);
    expect(await ended).to.equal(0);
    expect(slow.output().toString()).to.contain('"msg":"stopped"');
    seen.push(slow.output());
  });

  it("given a log that nobody reads, answers all the same", async () => {
    const unread = await startNodeProcess(writeNodeConfig(tees, chain, "unread", { root: rootOf("first") }));
    unread.child.stdout?.pause();
    unread.child.stderr?.pause();
    // a pipe holds 64 KiB, a line of the log has more than 100 bytes
    const asked = Array.from({ length: 40 }, async () => {
      for (let count = 0; count < 50; count += 1) {
        const response = await fetch(`${unread.url}/health`, { signal: AbortSignal.timeout(20_000) });
        expect(await response.text()).to.equal('{"status":"ok"}');
      }
    });
    await Promise.all(asked);
    unread.child.stdout?.resume();
    unread.child.stderr?.resume();
    expect(await unread.kill("SIGTERM")).to.equal(0);
    expect(
      unread
        .output()
        .toString()
        .match(/"route":"\/health"/g),
    ).to.have.length(2000);
    seen.push(unread.output());
  });

  it("given receipts newer than its chain, answers nothing: what it knew is not undone by a restart", async () => {
    const lines = readFileSync(join(tees.folder.path, "first.receipts.jsonl"), "utf8").trimEnd().split("\n");
    const last = JSON.parse(lines.at(-1) ?? "");
    last.receipt.message.blockNumber = String(Number(last.receipt.message.blockNumber) + 1000);
    tees.folder.write("ahead.receipts.jsonl", `${[...lines.slice(0, -1), JSON.stringify(last)].join("\n")}\n`);
    const ahead = await startNodeProcess(writeNodeConfig(tees, chain, "ahead", { root: rootOf("first") }));
    const ready = await fetch(`${ahead.url}/ready`);
    expect([ready.status, await ready.text()]).to.deep.equal([503, '{"ready":false,"reasons":["chain/stale"]}']);
    const { status, text } = await acquire(ahead.url);
    expect([status, JSON.parse(text).code, JSON.parse(text).reason]).to.deep.equal([
      503,
      "chain/unavailable",
      "chain/stale",
    ]);
    expect(await ahead.kill("SIGTERM")).to.equal(0);
    seen.push(ahead.output());
  });

  it("given a writer beside it to its receipts, gives no keys, and tells balancers and its log so", async () => {
    const node = await startNodeProcess(writeNodeConfig(tees, chain, "shared", { root: rootOf("first") }));
    expect((await acquire(node.url)).status).to.equal(200);
    appendFileSync(join(tees.folder.path, "shared.receipts.jsonl"), "another node's\n");
    const { status, text } = await acquire(node.url);
    expect([status, JSON.parse(text).code]).to.deep.equal([503, "node/failed"]);
    const ready = await fetch(`${node.url}/ready`);
    expect([ready.status, await ready.json()]).to.deep.equal([503, { ready: false, reasons: ["receipts/changed"] }]);
    expect(await node.kill("SIGTERM")).to.equal(0);
    expect(node.output().toString()).to.contain("something else writes to it");
    seen.push(node.output());
  });

  it("given a public chain in the record, refuses test roots", async () => {
    const record = readFileSync(join(tees.folder.path, "record.json"), "utf8").replace('"31337"', '"11155111"');
    tees.folder.write("public.json", record);
    const path = writeNodeConfig(tees, chain, "public", { deployment: "public.json", root: rootOf("first") });
    const run = await keysteadAsync(["node", "run", "--config", path, "--json"], {
      env: { KEYSTEAD_NODE__ALLOWCOREDUMPS: "true" },
    });
    expect(run.code).to.equal(2);
    expect(run.stderr).to.contain("config/test-tee-on-public-chain");
  });

  // after the second node: mocha runs a suite's own tests before those of its suites
  describe("secrets", () => {
    it("no log, answer, metric, file or crash of all this holds the root or a derived key, in any spelling", async () => {
      seen.push(Buffer.from(await (await fetch(`${node.url}/metrics`)).text()));
      for (const path of ["/v1/info", "/v1/receipts", `/v1/secrets-key/${service}`, "/ready", "/openapi.json"])
        seen.push(Buffer.from(await (await fetch(`${node.url}${path}`)).text()));
      // the crash: an error that nobody caught
      node.child.kill("SIGUSR2");
      expect(await node.kill("SIGCONT")).to.equal(70);
      expect(node.output().toString()).to.contain("uncaughtException");
      seen.push(node.output());
      for (const name of readdirSync(tees.folder.path)) seen.push(readFileSync(join(tees.folder.path, name)));

      const [root] = await createFileRootStore(join(tees.folder.path, "first.root.json"), PASSPHRASE).load();
      if (root === undefined) throw new Error("there is no root");
      const place = { root: root.secret, chainId: 31337n, registry: chain.deployment.registry.address };
      const secrets = new Map<string, Uint8Array>([
        ["root", root.secret],
        ["receipt key", fromHex(receiptKeyByHand(place).privateKey, "key")],
        ["KMS key", kmsKeyByHand(place)],
        ["passphrase", PASSPHRASE],
        ...STANDARD_PURPOSES.map((purpose): [string, Uint8Array] => [
          purpose,
          purposeKeyByHand(place, service, 0, purpose),
        ]),
      ]);
      const everything = Buffer.concat(seen);
      expect(everything.length).to.be.greaterThan(100_000);
      // the file with the passphrase is there on purpose: the search finds it, and that it finds anything
      expect(leaks(everything, secrets)).to.deep.equal(["passphrase"]);
      for (const [name, secret] of secrets) {
        const planted = Buffer.from(`log line with ${Buffer.from(secret).toString("base64")}`);
        expect(leaks(planted, secrets)).to.deep.equal([name]);
      }
    });
  });
});

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 20));
}

const rootOf = (name: string) => ({ store: "file", path: `${name}.root.json`, passphraseFile: "passphrase" });
