import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect } from "chai";
import { toHex } from "../../src/core/bytes.ts";
import { parseKeyBundle, STANDARD_PURPOSES } from "../../src/core/key-bundle.ts";
import { recoverSigner } from "../../src/core/release.ts";
import { generateSealKeyPair } from "../../src/core/seal.ts";
import { readNodeConfig } from "../../src/node/config.ts";
import { openKeyThread } from "../../src/node/key-thread.ts";
import { createKeyRing, type RootSecret } from "../../src/node/keys.ts";
import { openFileStore } from "../../src/node/load.ts";
import { startNode } from "../../src/node/server.ts";
import { createService, startNodeChain } from "../helpers/decider.ts";
import { fill } from "../helpers/evidence.ts";
import { openByHand } from "../helpers/hpke.ts";
import { createTestTees, type TestTees } from "../helpers/node.ts";
import { writeNodeConfig } from "../helpers/node-process.ts";

const DEPLOYMENT = { chainId: 31337n, registry: toHex(fill(20, 0xab)) };
const SERVICE = toHex(fill(20, 0x5e));
const DIGEST = fill(32, 0xd1);
const roots = (): RootSecret[] => [0, 1].map((rootEpoch) => ({ rootEpoch, secret: fill(32, 7 + rootEpoch) }));
const never = (reason: string) => {
  throw new Error(`the thread ended: ${reason}`);
};
const codeOf = (act: Promise<unknown>): Promise<unknown> =>
  act.then(
    () => undefined,
    (error) => error.code,
  );

/** A thread that opens like the keys' own, and ends at the first thing that it is asked to sign, or when it is to wipe. */
const ENDING = `
import { parentPort } from "node:worker_threads";
parentPort.on("message", (questions) => {
  for (const { id, ask } of questions) {
    if (ask === "sign" || ask === "wipe") process.exit(7);
    const value = ask === "open" ? { rootEpoch: 0, receiptSigner: "0x${"11".repeat(20)}", environmentKey: "0x${"22".repeat(32)}" } : "0x${"33".repeat(32)}";
    parentPort.postMessage([{ id, value }]);
  }
});
`;

describe("keys in a thread of their own", function () {
  this.timeout(60_000);
  let tees: TestTees;
  let ending: URL;
  before(async () => {
    tees = await createTestTees();
    ending = pathToFileURL(join(tees.folder.path, "ending.mjs"));
    writeFileSync(ending, ENDING);
  });
  after(() => tees.folder.remove());

  it("do what a ring in this one does, and leave nothing here", async () => {
    const here = createKeyRing(roots(), DEPLOYMENT);
    const given = roots();
    const ring = await openKeyThread(given, DEPLOYMENT, { onDeath: never });
    for (const { secret } of given) expect([...secret].every((byte) => byte === 0)).to.equal(true);
    const { rootEpoch, receiptSigner, environmentKey } = here;
    expect(ring).to.include({ rootEpoch, receiptSigner, environmentKey });

    const machine = await generateSealKeyPair();
    const grant = { serviceId: SERVICE, keyEpoch: 2, purposes: STANDARD_PURPOSES, receiptDigest: DIGEST };
    const [signature, publicKey, sealed, sealedRoots] = await Promise.all([
      ring.sign(DIGEST),
      ring.secretsKey(SERVICE, 2),
      ring.sealKeys({ ...grant, recipientPublicKey: machine.publicKey }),
      ring.sealRoots(machine.publicKey, DIGEST),
    ]);
    expect(signature).to.equal(here.sign(DIGEST));
    expect(recoverSigner(DIGEST, signature)).to.equal(receiptSigner);
    expect(publicKey).to.equal(here.secretsKey(SERVICE, 2));
    const text = (value: string) => new TextEncoder().encode(value);
    const open = (message: typeof sealed, info: string) =>
      openByHand(machine.privateKey, message, { info: text(info), aad: DIGEST });
    const expected = await here.sealKeys({ ...grant, recipientPublicKey: machine.publicKey });
    expect(parseKeyBundle(open(sealed, "keystead/v1/release"))).to.deep.equal(
      parseKeyBundle(open(expected, "keystead/v1/release")),
    );
    expect(open(sealedRoots, "keystead/v1/root")).to.deep.equal(
      open(await here.sealRoots(machine.publicKey, DIGEST), "keystead/v1/root"),
    );
    await ring.wipe();
    await ring.wipe();
    expect(await codeOf(ring.sign(DIGEST))).to.equal("node/failed");
  });

  it("refuse what a ring refuses, by the same codes, and go on", async () => {
    const shortRoot = [{ rootEpoch: 0, secret: fill(31, 7) }];
    expect(await codeOf(openKeyThread(shortRoot, DEPLOYMENT, { onDeath: never }))).to.equal("root/malformed");
    const ring = await openKeyThread(roots(), DEPLOYMENT, { onDeath: never });
    expect(await codeOf(ring.sealRoots(new Uint8Array(32), DIGEST))).to.equal("seal/bad-key");
    expect(await codeOf(ring.secretsKey("0x1234", 0))).to.equal("root/malformed");
    expect(await ring.sign(DIGEST)).to.match(/^0x[0-9a-f]{130}$/);
    await ring.wipe();
  });

  it("given a thread that ends, fail what waits and what comes, and say so once", async () => {
    const reasons: string[] = [];
    const ring = await openKeyThread(roots(), DEPLOYMENT, {
      onDeath: (reason) => reasons.push(reason),
      program: ending,
    });
    const asked = [ring.sign(DIGEST), ring.secretsKey(SERVICE, 0)].map(codeOf);
    // the second comes after the end
    expect(await Promise.all(asked)).to.deep.equal(["node/failed", "node/failed"]);
    expect(await codeOf(ring.sign(DIGEST))).to.equal("node/failed");
    expect(reasons).to.deep.equal(["exit 7"]);
    await ring.wipe();
  });

  it("given a thread that ends while it is to wipe, are closed all the same, and that is no death to tell of", async () => {
    const ring = await openKeyThread(roots(), DEPLOYMENT, { onDeath: never, program: ending });
    await ring.wipe();
    expect(await codeOf(ring.sign(DIGEST))).to.equal("node/failed");
  });

  it("given a node whose thread ends, it is not ready any more, says why, and asks to be stopped", async () => {
    const chain = await startNodeChain();
    try {
      const service = await createService(chain.suite, "keys-gone");
      await chain.finalize();
      const path = writeNodeConfig(tees, chain, "keys-gone", { allowCoreDumps: true });
      const config = await readNodeConfig(path, {});
      await (await openFileStore(config, {})).create();
      const lines: string[] = [];
      const logTo = { write: (line: string) => lines.push(line) };
      const node = await startNode(config, { keyProgram: ending, logTo });
      const ready = async () => await (await fetch(`${node.url}/ready`)).text();
      expect(await ready()).to.equal('{"ready":true,"reasons":[]}');
      const answer = await fetch(`${node.url}/v1/secrets-key/${service}`);
      expect(answer.status).to.equal(503);
      expect(await answer.text()).to.include('"node/failed"');
      expect((await node.failure).code).to.equal("node/keys-gone");
      expect(await ready()).to.equal('{"ready":false,"reasons":["node/keys-gone"]}');
      expect(lines.filter((line) => line.includes('"reason":"exit 7"'))).to.have.length(1);
      await node.close();
      const root = readFileSync(join(tees.folder.path, "keys-gone.root.json"), "utf8");
      expect(lines.join("")).to.not.include(JSON.parse(root).sealed);
    } finally {
      await chain.stop();
    }
  });
});
