import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { handOver, parseDestination } from "../../src/agent/hand-over.ts";
import { formatKeys, openPublished, selectKeys } from "../../src/agent/keys.ts";
import { type Hex, toHex } from "../../src/core/bytes.ts";
import type { KeyBundle } from "../../src/core/key-bundle.ts";
import { generateSealKeyPair } from "../../src/core/seal.ts";
import { sealSecrets } from "../../src/core/sealed-secrets.ts";
import { type Folder, makeFolder } from "../helpers/cli.ts";
import { errorOf, rejectionOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";
import { FAKE_REGISTRY, fakeKeys } from "../helpers/fake-node.ts";

const serviceId: Hex = `0x${"5e".repeat(20)}`;
const bundleOf = (env: Uint8Array): KeyBundle => ({
  chainId: 31337n,
  registry: FAKE_REGISTRY,
  serviceId,
  keyEpoch: 2,
  keys: fakeKeys(env, ["backup"]),
});
const bundle = bundleOf(fill(32, 0xee));
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

describe("keys handed over", () => {
  it("are those of the current epoch and the newest root, unless all are wanted", () => {
    const chosen = selectKeys(bundle, {});
    expect(chosen.map(({ purpose }) => purpose)).to.deep.equal([
      "disk",
      "env",
      "identity-k256",
      "application",
      "backup",
    ]);
    expect(chosen.every(({ keyEpoch, rootEpoch }) => keyEpoch === 2 && rootEpoch === 1)).to.equal(true);
    expect(selectKeys(bundle, { allEpochs: true })).to.have.length(30);
    expect(selectKeys(bundle, { purposes: ["disk"], allEpochs: true })).to.have.length(6);
  });

  it("are refused where the answer lacks one that is wanted, or only has an old one", () => {
    expect(errorOf(() => selectKeys(bundle, { purposes: ["disk", "other"] })).details.purpose).to.equal("other");
    const old = { ...bundle, keys: bundle.keys.filter(({ purpose, keyEpoch }) => purpose !== "disk" || keyEpoch < 2) };
    for (const choice of [{}, { purposes: ["disk"] }, { allEpochs: true }])
      expect(errorOf(() => selectKeys(old, choice)).code).to.equal("agent/no-key");
  });

  it("are written as JSON, as environment lines, or as one key's bytes", () => {
    const disk = selectKeys(bundle, { purposes: ["disk"] });
    const json = JSON.parse(text(formatKeys(bundle, selectKeys(bundle, {}), "json")));
    expect(json).to.deep.include({ service_id: serviceId, chain_id: "31337", registry: FAKE_REGISTRY, key_epoch: 2 });
    expect(json.keys).to.have.length(5);
    expect(json.keys[0]).to.deep.equal({ purpose: "disk", key_epoch: 2, root_epoch: 1, key: "60".repeat(32) });
    expect(text(formatKeys(bundle, disk, "env"))).to.equal(`KEYSTEAD_KEY_DISK=${"60".repeat(32)}\n`);
    const all = text(formatKeys(bundle, selectKeys(bundle, { purposes: ["identity-k256"], allEpochs: true }), "env"));
    expect(all).to.match(/^KEYSTEAD_KEY_IDENTITY_K256_E2_R0=52/);
    expect(all).to.contain("\nKEYSTEAD_KEY_IDENTITY_K256=62");
    expect(formatKeys(bundle, disk, "raw")).to.deep.equal(fill(32, 0x60));
    for (const several of [selectKeys(bundle, {}), []])
      expect(errorOf(() => formatKeys(bundle, several, "raw")).code).to.equal("agent/not-one-key");
  });

  describe("given secrets that the service has published", () => {
    it("opens them with the key of the epochs that they name", async () => {
      const pair = await generateSealKeyPair();
      const own = bundleOf(pair.privateKey);
      const context = { chainId: 31337n, registry: FAKE_REGISTRY, serviceId, name: "env" };
      const seal = async (rootEpoch: number, keyEpoch: number) => {
        const key = { rootEpoch, keyEpoch, publicKey: pair.publicKey };
        return toHex(await sealSecrets(new TextEncoder().encode("A=1\n"), key, context));
      };
      const service = (ciphertext: Hex, name = "env") => ({
        secrets: new Map([[name, [{ name, ciphertext, effectiveFrom: 100, publishedBy: 1 }]]]),
        at: 100,
      });
      expect(text(await openPublished(own, service(await seal(0, 1)), "env"))).to.equal("A=1\n");
      const code = async (state: ReturnType<typeof service>, name = "env") =>
        (await rejectionOf(openPublished(own, state, name))).code;
      expect(await code(service(await seal(0, 1)), "other")).to.equal("agent/no-secrets");
      expect(await code(service(await seal(2, 1)))).to.equal("agent/no-env-key");
      expect(await code(service(await seal(0, 1), "moved"), "moved")).to.equal("seal/not-opened");
      expect(await code(service("0x00"))).to.equal("secrets/malformed");
    });

    it("opens what is in force, and not what still waits out the notice period", async () => {
      const pair = await generateSealKeyPair();
      const context = { chainId: 31337n, registry: FAKE_REGISTRY, serviceId, name: "env" };
      const publication = async (plaintext: string, effectiveFrom: number) => {
        const key = { rootEpoch: 0, keyEpoch: 1, publicKey: pair.publicKey };
        const ciphertext = toHex(await sealSecrets(new TextEncoder().encode(plaintext), key, context));
        return { name: "env", ciphertext, effectiveFrom, publishedBy: effectiveFrom };
      };
      const secrets = new Map([["env", [await publication("A=1\n", 100), await publication("A=2\n", 200)]]]);
      const own = bundleOf(pair.privateKey);
      expect(text(await openPublished(own, { secrets, at: 199 }, "env"))).to.equal("A=1\n");
      expect(text(await openPublished(own, { secrets, at: 200 }, "env"))).to.equal("A=2\n");
      const early = await rejectionOf(openPublished(own, { secrets, at: 99 }, "env"));
      expect(early.code).to.equal("agent/no-secrets");
      expect(early.message).to.contain("1970-01-01T00:01:40.000Z");
    });
  });

  describe("to a place", () => {
    let folder: Folder;
    before(() => {
      folder = makeFolder();
    });
    after(() => folder.remove());

    it("reads places as people write them", () => {
      expect(parseDestination("-", "out")).to.deep.equal({ kind: "fd", fd: 1 });
      expect(parseDestination("fd:3", "out")).to.deep.equal({ kind: "fd", fd: 3 });
      expect(parseDestination("/run/keys", "out")).to.deep.equal({ kind: "file", path: "/run/keys" });
      for (const bad of ["", "fd:", "fd:0", "fd:x", "/run/"])
        expect(errorOf(() => parseDestination(bad, "out")).code).to.equal("usage/destination");
    });

    it("writes a file that its owner alone reads, whatever the umask, whole, in an older one's place", async () => {
      const path = folder.write("keys", "old");
      for (const umask of [0, 0o777]) {
        const before = process.umask(umask);
        try {
          await handOver({ kind: "file", path }, fill(100_000, 7));
        } finally {
          process.umask(before);
        }
        expect(statSync(path).mode & 0o777).to.equal(0o600);
      }
      expect(new Uint8Array(readFileSync(path))).to.deep.equal(fill(100_000, 7));
      expect(readdirSync(folder.path).filter((name) => name.includes("keys"))).to.deep.equal(["keys"]);
    });

    it("replaces a symbolic link and does not follow it", async () => {
      const target = folder.write("target", "untouched");
      const link = join(folder.path, "link");
      symlinkSync(target, link);
      await handOver({ kind: "file", path: link }, fill(3, 0x61));
      expect(readFileSync(target, "utf8")).to.equal("untouched");
      expect(readFileSync(link, "utf8")).to.equal("aaa");
    });

    it("leaves nothing behind where it cannot write", async () => {
      const path = join(folder.path, "a-folder");
      mkdirSync(path);
      const before = readdirSync(folder.path);
      expect((await rejectionOf(handOver({ kind: "file", path }, fill(3, 1)))).code).to.equal("agent/not-written");
      expect((await rejectionOf(handOver({ kind: "fd", fd: 987 }, fill(3, 1)))).code).to.equal("agent/not-written");
      const missing = join(folder.path, "no/such/folder/keys");
      expect((await rejectionOf(handOver({ kind: "file", path: missing }, fill(3, 1)))).code).to.equal(
        "agent/not-written",
      );
      expect(readdirSync(folder.path)).to.deep.equal(before);
    });

    it("writes to a file descriptor of the caller's, more than a pipe holds at once", () => {
      const module = join(import.meta.dirname, "../../src/agent/hand-over.ts");
      const script = `import { handOver } from ${JSON.stringify(module)}; await handOver({ kind: "fd", fd: 3 }, new Uint8Array(300000).fill(0x61));`;
      const { output, status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
        stdio: ["ignore", "pipe", "pipe", "pipe"],
        timeout: 30_000,
      });
      expect(status, stderr.toString()).to.equal(0);
      expect(output[3]?.length).to.equal(300_000);
    });
  });
});
