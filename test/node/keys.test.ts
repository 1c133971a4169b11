import { chmodSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { inspect } from "node:util";
import { expect } from "chai";
import { keccak256, recoverAddress } from "ethers";
import { fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import { parseKeyBundle, parseRootBundle, STANDARD_PURPOSES } from "../../src/core/key-bundle.ts";
import { recoverSigner } from "../../src/core/release.ts";
import { MAX_PURPOSES } from "../../src/core/release-wire.ts";
import { generateSealKeyPair } from "../../src/core/seal.ts";
import {
  checkIdentity,
  createDstackRootStore,
  createFileRootStore,
  createKeyRing,
  type KeyRing,
  type RootSecret,
} from "../../src/node/keys.ts";
import { type Folder, makeFolder } from "../helpers/cli.ts";
import {
  dstackRootByHand,
  kmsKeyByHand,
  publicByHand,
  purposeKeyByHand,
  receiptKeyByHand,
  receiptSignerByHand,
} from "../helpers/derivation.ts";
import { errorOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";
import { openByHand } from "../helpers/hpke.ts";

interface KnownAnswers {
  readonly roots: readonly Hex[];
  readonly dstack: { readonly agentKey: Hex; readonly root0: Hex; readonly root1: Hex };
  readonly cases: readonly {
    readonly chainId: string;
    readonly registry: Hex;
    readonly serviceId: Hex;
    readonly keyEpoch: number;
    readonly rootEpoch: number;
    readonly keys: Readonly<Record<string, Hex>>;
    readonly envPublicKey: Hex;
    readonly receiptSigner: Hex;
    readonly environmentKey: Hex;
  }[];
}
const KNOWN: KnownAnswers = JSON.parse(readFileSync(join(import.meta.dirname, "fixtures", "keys.json"), "utf8"));
const known = (count = KNOWN.roots.length): RootSecret[] =>
  KNOWN.roots.slice(0, count).map((secret, rootEpoch) => ({ rootEpoch, secret: fromHex(secret, "root") }));
const text = (value: string) => new TextEncoder().encode(value);
const PASSPHRASE = text("a passphrase of the tests");
const DEPLOYMENT = { chainId: 31337n, registry: toHex(fill(20, 0xab)) };
const SERVICE = toHex(fill(20, 0x5e));
const DIGEST = fill(32, 0xd1);
const codeOf = (act: Promise<unknown>): Promise<unknown> =>
  act.then(
    () => undefined,
    (error) => error.code,
  );

/** What a machine with the private key finds in an answer of the ring. */
async function releaseTo(ring: KeyRing, keyEpoch: number, purposes: readonly string[] = STANDARD_PURPOSES) {
  const machine = await generateSealKeyPair();
  const recipientPublicKey = machine.publicKey;
  const sealed = await ring.sealKeys({
    serviceId: SERVICE,
    keyEpoch,
    purposes,
    recipientPublicKey,
    receiptDigest: DIGEST,
  });
  const context = { info: text("keystead/v1/release"), aad: DIGEST };
  return { machine, sealed, bundle: parseKeyBundle(openByHand(machine.privateKey, sealed, context)) };
}

describe("keys", () => {
  describe("derivation", () => {
    it("gives the known answers, for every root epoch, deployment, service, key epoch and purpose", async () => {
      for (const answer of KNOWN.cases) {
        const { serviceId, keyEpoch, rootEpoch } = answer;
        const ring = createKeyRing(known(), { chainId: BigInt(answer.chainId), registry: answer.registry });
        const machine = await generateSealKeyPair();
        const purposes = Object.keys(answer.keys);
        const recipientPublicKey = machine.publicKey;
        const sealed = await ring.sealKeys({
          serviceId,
          keyEpoch,
          purposes,
          recipientPublicKey,
          receiptDigest: DIGEST,
        });
        const plaintext = openByHand(machine.privateKey, sealed, { info: text("keystead/v1/release"), aad: DIGEST });
        const { keys } = parseKeyBundle(plaintext);
        for (const [purpose, expected] of Object.entries(answer.keys)) {
          const found = keys.filter(
            (key) => key.purpose === purpose && key.keyEpoch === keyEpoch && key.rootEpoch === rootEpoch,
          );
          expect(found.map(({ key }) => toHex(key))).to.deep.equal([expected]);
        }
        const newest = createKeyRing(known(rootEpoch + 1), ring.deployment);
        expect(newest.secretsKey(serviceId, keyEpoch)).to.equal(answer.envPublicKey);
        expect(newest).to.include({ receiptSigner: answer.receiptSigner, environmentKey: answer.environmentKey });
      }
    });

    it("agrees with the second implementation on roots made at random", async () => {
      const root = crypto.getRandomValues(new Uint8Array(32));
      const place = { root: root.slice(), ...DEPLOYMENT };
      const ring = createKeyRing([{ rootEpoch: 0, secret: root }], DEPLOYMENT);
      const { bundle } = await releaseTo(ring, 2, [...STANDARD_PURPOSES, "a-purpose-of-its-own"]);
      expect(bundle.keys).to.have.length(15);
      for (const { keyEpoch, purpose, key } of bundle.keys)
        expect(toHex(key)).to.equal(toHex(purposeKeyByHand(place, SERVICE, keyEpoch, purpose)));
      expect(ring.receiptSigner).to.equal(receiptSignerByHand(place));
      expect(ring.environmentKey).to.equal(publicByHand(kmsKeyByHand(place)));
      expect(ring.secretsKey(SERVICE, 1)).to.equal(publicByHand(purposeKeyByHand(place, SERVICE, 1, "env")));
      expect(recoverSigner(DIGEST, ring.sign(DIGEST))).to.equal(ring.receiptSigner);
    });

    it("signs byte for byte as another library does: RFC 6979 leaves nothing to chance, s is in the lower half", () => {
      const root = crypto.getRandomValues(new Uint8Array(32));
      const signer = receiptKeyByHand({ root: root.slice(), ...DEPLOYMENT });
      const ring = createKeyRing([{ rootEpoch: 0, secret: root }], DEPLOYMENT);
      const edges = [fill(32, 0), fill(32, 0xff)];
      const digests = Array.from({ length: 100 }, () => crypto.getRandomValues(new Uint8Array(32)));
      for (const digest of [...edges, ...digests]) expect(ring.sign(digest)).to.equal(signer.sign(digest).serialized);
    });

    it("gives every key its own value", async () => {
      const { bundle } = await releaseTo(createKeyRing(known(), DEPLOYMENT), 3);
      expect(bundle).to.include({ ...DEPLOYMENT, serviceId: SERVICE, keyEpoch: 3 });
      const values = bundle.keys.map(({ key }) => toHex(key));
      expect(values).to.have.length(2 * 4 * STANDARD_PURPOSES.length);
      expect(new Set(values).size).to.equal(values.length);
    });

    it("given a service with more than 1024 epochs, releases the newest", async () => {
      const { bundle } = await releaseTo(createKeyRing(known(1), DEPLOYMENT), 2000, ["disk"]);
      expect(bundle.keys.map(({ keyEpoch }) => keyEpoch)).to.deep.equal(
        Array.from({ length: 1024 }, (_, index) => 977 + index),
      );
    });

    it("given as many epochs and purposes as an answer may have, releases them all", async () => {
      const further = Array.from({ length: MAX_PURPOSES }, (_, index) => `further-${index}`);
      const purposes = [...STANDARD_PURPOSES, ...further];
      const { bundle } = await releaseTo(createKeyRing(known(2), DEPLOYMENT), 1023, purposes);
      expect(bundle.keys).to.have.length(2 * 1024 * purposes.length);
    }).timeout(120_000);
  });

  describe("what leaves", () => {
    it("a sealed answer opens with the recipient's key and the receipt's digest alone, and never twice the same", async () => {
      const ring = createKeyRing(known(), DEPLOYMENT);
      const { machine, sealed } = await releaseTo(ring, 0);
      const other = await releaseTo(ring, 0);
      const info = text("keystead/v1/release");
      expect(() => openByHand(other.machine.privateKey, sealed, { info, aad: DIGEST })).to.throw();
      expect(() => openByHand(machine.privateKey, sealed, { info, aad: fill(32, 0) })).to.throw();
      expect(() => openByHand(machine.privateKey, sealed, { info: text("keystead/v1/root"), aad: DIGEST })).to.throw();
      expect(toHex(sealed.ciphertext)).not.to.equal(toHex(other.sealed.ciphertext));
    });

    it("says whose it is: the receipt's signer signs the encapsulated key together with the receipt's digest", async () => {
      const ring = createKeyRing(known(), DEPLOYMENT);
      const { publicKey } = await generateSealKeyPair();
      for (const { enc, signature } of [(await releaseTo(ring, 0)).sealed, await ring.sealRoots(publicKey, DIGEST)]) {
        // enc("keystead/v1/sealing", digest, encapsulated key), written down by hand
        const signed = Buffer.concat([
          Buffer.from(`00000013${Buffer.from("keystead/v1/sealing").toString("hex")}00000020`, "hex"),
          DIGEST,
          Buffer.from("00000020", "hex"),
          enc,
        ]);
        expect(recoverAddress(keccak256(signed), signature).toLowerCase()).to.equal(ring.receiptSigner);
      }
    });

    it("root secrets leave sealed for a node, and make the same ring there", async () => {
      const ring = createKeyRing(known(), DEPLOYMENT);
      const node = await generateSealKeyPair();
      const sealed = await ring.sealRoots(node.publicKey, DIGEST);
      const opened = parseRootBundle(
        openByHand(node.privateKey, sealed, { info: text("keystead/v1/root"), aad: DIGEST }),
      );
      expect(opened.roots.map(({ secret }) => toHex(secret))).to.deep.equal(KNOWN.roots);
      const second = createKeyRing(opened.roots, DEPLOYMENT);
      checkIdentity(second, ring);
      expect(errorOf(() => checkIdentity(createKeyRing(known(1), DEPLOYMENT), ring)).code).to.equal(
        "root/other-identity",
      );
    });

    it("printing a ring shows no secret", () => {
      const ring = createKeyRing(known(), DEPLOYMENT);
      const shown = `${inspect(ring, { depth: 9, showHidden: true })}${JSON.stringify(ring, (_, value) => (typeof value === "bigint" ? String(value) : value))}`;
      for (const root of KNOWN.roots) expect(shown).not.to.contain(root.slice(2));
    });

    it("takes copies of the roots and wipes what it was given; after wiping itself it gives nothing", async () => {
      const roots = known();
      const ring = createKeyRing(roots, DEPLOYMENT);
      for (const { secret } of roots) expect(secret).to.deep.equal(fill(32, 0));
      ring.wipe();
      expect(errorOf(() => ring.sign(DIGEST)).code).to.equal("root/wiped");
      expect(errorOf(() => ring.secretsKey(SERVICE, 0)).code).to.equal("root/wiped");
      expect(await codeOf(releaseTo(ring, 0))).to.equal("root/wiped");
      expect(await codeOf(ring.sealRoots(fill(32, 9), DIGEST))).to.equal("root/wiped");
    });

    it("given roots that are none, refuses them", () => {
      const secret = () => fill(32, 1);
      for (const roots of [
        [],
        [{ rootEpoch: 1, secret: secret() }],
        [{ rootEpoch: 0, secret: fill(31, 1) }],
        [{ rootEpoch: 0, secret: fill(32, 0) }],
        [
          { rootEpoch: 0, secret: secret() },
          { rootEpoch: 0, secret: secret() },
        ],
      ])
        expect(errorOf(() => createKeyRing(roots, DEPLOYMENT)).code).to.equal("root/malformed");
    });
  });

  describe("the root file", function () {
    this.timeout(60_000);
    let folder: Folder;
    before(() => {
      folder = makeFolder();
    });
    after(() => folder.remove());

    it("is made once, sealed, for its owner alone; rotating adds an epoch and keeps the others", async () => {
      const path = join(folder.path, "root.json");
      const store = createFileRootStore(path, PASSPHRASE);
      await store.create();
      expect(statSync(path).mode & 0o777).to.equal(0o600);
      expect(await codeOf(store.create())).to.equal("root/exists");
      const [first] = await store.load();
      expect(await store.rotate()).to.equal(1);
      const roots = await store.load();
      expect(roots.map(({ rootEpoch }) => rootEpoch)).to.deep.equal([0, 1]);
      expect(roots[0]).to.deep.equal(first);
      expect(new Set(roots.map(({ secret }) => toHex(secret))).size).to.equal(2);
      const file = readFileSync(path);
      for (const { secret } of roots) {
        expect(file.includes(Buffer.from(secret))).to.equal(false);
        expect(file.toString()).not.to.contain(toHex(secret).slice(2));
      }
    });

    it("given another passphrase or any altered part, does not open", async () => {
      const path = join(folder.path, "altered.json");
      await createFileRootStore(path, PASSPHRASE).write(known());
      expect(await codeOf(createFileRootStore(path, text("another passphrase")).load())).to.equal("root/not-opened");
      const good = readFileSync(path, "utf8");
      const changes: readonly [string, string, string][] = [
        ['\\"N\\":131072', '\\"N\\":1', "root/malformed"],
        ["chacha20-poly1305", "chacha20", "root/malformed"],
        ['\\"roots\\":2', '\\"roots\\":1', "root/malformed"],
        ["keystead-root/1", "keystead-root/2", "root/malformed"],
        ['"sealed":"0x', '"sealed":"0x00', "root/malformed"],
        ["{", "[", "json/malformed"],
        ['"header"', '"sealed":"","header"', "json/duplicate-key"],
      ];
      for (const [search, replace, code] of changes) {
        const bad = good.replace(search, replace);
        expect(bad, search).not.to.equal(good);
        writeFileSync(path, bad);
        expect(await codeOf(createFileRootStore(path, PASSPHRASE).load()), search).to.equal(code);
      }
      const flipped = good.replace(/(\d)("\}\s*)$/, (_, digit, rest) => `${(Number(digit) + 1) % 10}${rest}`);
      writeFileSync(path, flipped === good ? good.replace(/[a-f]("\}\s*)$/, "0$1") : flipped);
      expect(await codeOf(createFileRootStore(path, PASSPHRASE).load())).to.equal("root/not-opened");
    });

    it("given a file that others may read, a link, or none, refuses it; and a passphrase too short", async () => {
      const path = join(folder.path, "rights.json");
      await createFileRootStore(path, PASSPHRASE).write(known());
      chmodSync(path, 0o640);
      expect(await codeOf(createFileRootStore(path, PASSPHRASE).load())).to.equal("root/permissions");
      chmodSync(path, 0o600);
      const link = join(folder.path, "link.json");
      symlinkSync(path, link);
      expect(await codeOf(createFileRootStore(link, PASSPHRASE).load())).to.equal("root/not-found");
      rmSync(path);
      expect(await codeOf(createFileRootStore(path, PASSPHRASE).load())).to.equal("root/not-found");
      expect(errorOf(() => createFileRootStore(path, text("short"))).code).to.equal("root/weak-passphrase");
      expect(await codeOf(createFileRootStore(join(folder.path, "no", "folder"), PASSPHRASE).create())).to.equal(
        "root/not-written",
      );
    });
  });

  describe("the key agent", () => {
    let folder: Folder;
    let server: Server;
    let socketPath: string;
    let answer: { readonly status: number; readonly body: string };
    const asked: string[] = [];
    before(async () => {
      folder = makeFolder();
      socketPath = join(folder.path, "dstack.sock");
      server = createServer((request, response) => {
        let body = "";
        request.on("data", (chunk) => {
          body += chunk;
        });
        request.on("end", () => {
          asked.push(`${request.method} ${request.url} ${body}`);
          response.writeHead(answer.status).end(answer.body);
        });
      });
      await new Promise<void>((resolve) => server.listen(socketPath, resolve));
    });
    after(() => {
      server.close();
      folder.remove();
    });

    it("gives a root for every epoch, derived once more", async () => {
      const key = KNOWN.dstack.agentKey.slice(2);
      answer = { status: 200, body: JSON.stringify({ key, signature_chain: ["00", "01"] }) };
      const roots = await createDstackRootStore({ socketPath, rootEpochs: 2 }).load();
      expect(roots.map(({ secret }) => toHex(secret))).to.deep.equal([KNOWN.dstack.root0, KNOWN.dstack.root1]);
      expect(toHex(dstackRootByHand(fill(32, 7), 1))).to.equal(KNOWN.dstack.root1);
      expect(asked).to.deep.equal(
        [0, 1].map((epoch) => `POST /GetKey {"path":"keystead/root/${epoch}","purpose":"keystead"}`),
      );
    });

    it("given another answer, a failure, or no socket, fails", async () => {
      const key = "07".repeat(32);
      const cases: readonly [number, string, string][] = [
        [500, JSON.stringify({ key }), "root/agent-unreachable"],
        [200, "", "root/agent-malformed"],
        [200, "{}", "root/agent-malformed"],
        [200, JSON.stringify({ key: key.slice(2) }), "root/agent-malformed"],
        [200, JSON.stringify({ key: `${key}07` }), "root/agent-malformed"],
        [200, JSON.stringify({ key: key.replace("0", "g") }), "root/agent-malformed"],
        [200, JSON.stringify({ key: null }), "root/agent-malformed"],
        [200, JSON.stringify({ key: "00".repeat(32) }), ""],
        [200, `{"key":"${"07".repeat(40_000)}"}`, "root/agent-unreachable"],
      ];
      for (const [status, body, code] of cases) {
        answer = { status, body };
        expect((await codeOf(createDstackRootStore({ socketPath, rootEpochs: 1 }).load())) ?? "").to.equal(code);
      }
      const missing = createDstackRootStore({ socketPath: `${socketPath}.none`, rootEpochs: 1 });
      expect(await codeOf(missing.load())).to.equal("root/agent-unreachable");
      expect(errorOf(() => createDstackRootStore({ rootEpochs: 0 })).code).to.equal("root/malformed");
    });
  });
});
