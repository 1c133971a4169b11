import { readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { serve } from "@hono/node-server";
import { expect } from "chai";
import { Interface } from "ethers";
import { checkSecrets, MAX_CIPHERTEXT_BYTES, SEAL_OVERHEAD } from "../../src/agent/seal-secrets.ts";
import { KMS_REGISTRY_ABI } from "../../src/chain/abi/kms-registry.ts";
import { createIo } from "../../src/cli/io.ts";
import { run } from "../../src/cli/main.ts";
import { fromHex, type Hex } from "../../src/core/bytes.ts";
import { openSecrets, sealSecrets } from "../../src/core/sealed-secrets.ts";
import { computeServiceId } from "../../src/core/service-id.ts";
import { type CliRun, errorCodeOf, type Folder, jsonOf, makeFolder } from "../helpers/cli.ts";
import { connection } from "../helpers/connection.ts";
import { errorOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";
import { createFakeNode, FAKE_REGISTRY, type FakeNode } from "../helpers/fake-node.ts";
import { bytes32, sealedService } from "../helpers/registry.ts";

const SERVICE: Hex = `0x${"5e".repeat(20)}`;
const SECRET = "hunter2-very-secret";
const REGISTRY = new Interface(KMS_REGISTRY_ABI);
const utf8 = (text: string) => new TextEncoder().encode(text);

describe("keystead secrets", function () {
  this.timeout(60_000);
  let node: FakeNode;
  let url: string;
  let folder: Folder;
  let stop: () => void;
  before(async () => {
    folder = makeFolder();
    node = await createFakeNode(() => ({}));
    await new Promise<void>((resolve) => {
      const server = serve(
        { fetch: (request) => node.fetch(request.url), hostname: "127.0.0.1", port: 0 },
        (address: AddressInfo) => {
          url = `http://127.0.0.1:${address.port}`;
          resolve();
        },
      );
      stop = () => server.close();
    });
  });
  after(() => {
    stop();
    folder.remove();
  });

  async function keystead(args: readonly string[], stdin = ""): Promise<CliRun> {
    const said = { stdout: "", stderr: "" };
    const to = (name: keyof typeof said) => ({ write: (text: string) => (said[name] += text) });
    const io = createIo({
      stdin: (async function* () {
        yield stdin;
      })(),
      stdout: to("stdout"),
      stderr: to("stderr"),
      env: {},
    });
    return { code: await run(args, io), ...said };
  }
  const trust = () => ["--chain-id", "31337", "--registry", FAKE_REGISTRY, "--signer", node.signer];
  const seal = (file: string, ...more: readonly string[]) =>
    keystead(["--json", "secrets", "seal", file, "--service", SERVICE, "--node", url, ...trust(), ...more]);
  const env = () => folder.write(".env", `# settings\nPASSWORD=${SECRET}\nexport KEY="two\nlines"\n`);
  const open = async (document: { ciphertext: string; name: string }, name = document.name) => {
    const context = { chainId: 31337n, registry: FAKE_REGISTRY, serviceId: SERVICE, name };
    return new TextDecoder().decode(await openSecrets(fromHex(document.ciphertext, "c"), node.env.privateKey, context));
  };

  describe("seal", () => {
    it("seals an environment file to the key that a node signed, and prints calldata and nothing of the file", async () => {
      const done = await seal(env());
      expect(done.code, done.stderr).to.equal(0);
      const document = jsonOf(done);
      expect(document).to.deep.include({
        serviceId: SERVICE,
        name: "env",
        rootEpoch: 1,
        keyEpoch: 2,
        registry: FAKE_REGISTRY,
      });
      expect(await open(document)).to.equal(readFileSync(join(folder.path, ".env"), "utf8"));
      const call = REGISTRY.parseTransaction({ data: document.calldata });
      expect(call?.args.toArray()).to.deep.equal([SERVICE, "env", document.ciphertext]);
      expect(document.to).to.equal(FAKE_REGISTRY);
      const shown = await keystead(["secrets", "seal", env(), "--service", SERVICE, "--node", url, ...trust()]);
      expect(shown.stdout).to.contain("2 variables");
      for (const text of [done.stdout, done.stderr, shown.stdout, shown.stderr]) expect(text).not.to.contain(SECRET);
    });

    it("seals registry credentials under their name, and anything as raw, from standard input too", async () => {
      const config = folder.write("config.json", JSON.stringify({ auths: { "ghcr.io": { auth: "YTpi" } } }));
      expect(jsonOf(await seal(config)).name).to.equal("registry");
      const args = [
        "--json",
        "secrets",
        "seal",
        "-",
        "--kind",
        "raw",
        "--name",
        "x",
        "--service",
        SERVICE,
        "--node",
        url,
      ];
      const raw = await keystead([...args, ...trust()], SECRET);
      expect(await open(jsonOf(raw))).to.equal(SECRET);
    });

    it("seals what comes with a creation to the id that the service will have", async () => {
      const creator: Hex = `0x${"c0".repeat(20)}`;
      const salt = `0x${"5a".repeat(32)}` as const;
      const args = [
        "--json",
        "secrets",
        "seal",
        env(),
        "--creation",
        "--creator",
        creator,
        "--salt",
        salt,
        "--node",
        url,
      ];
      const document = jsonOf(await keystead([...args, ...trust()]));
      const serviceId = computeServiceId({ chainId: 31337n, registry: FAKE_REGISTRY }, creator, salt);
      expect(document).to.deep.include({ serviceId, name: "" }).and.not.to.have.property("calldata");
      const context = { chainId: 31337n, registry: FAKE_REGISTRY, serviceId, name: "" };
      expect(await openSecrets(fromHex(document.ciphertext, "c"), node.env.privateKey, context)).to.have.length.above(
        10,
      );
    });

    it("takes a saved key without a network, and writes the document to a file", async () => {
      const [saved, out] = [join(folder.path, "key.json"), join(folder.path, "sealed.json")];
      const fetched = await keystead([
        "secrets",
        "key",
        "--service",
        SERVICE,
        "--node",
        url,
        "--out",
        saved,
        ...trust(),
      ]);
      expect(fetched.code, fetched.stderr).to.equal(0);
      const done = await keystead([
        "secrets",
        "seal",
        env(),
        "--service",
        SERVICE,
        "--key",
        saved,
        "--out",
        out,
        ...trust(),
      ]);
      expect(done.code, done.stderr).to.equal(0);
      expect(await open(JSON.parse(readFileSync(out, "utf8")))).to.contain(SECRET);
    });

    it("refuses a key that this deployment's KMS did not sign, or that is another service's", async () => {
      const other = `0x${"99".repeat(20)}`;
      const stranger = ["--chain-id", "31337", "--registry", FAKE_REGISTRY, "--signer", other];
      const base = ["--json", "secrets", "seal", env(), "--node", url];
      expect(errorCodeOf(await keystead([...base, "--service", SERVICE, ...stranger]))).to.equal(
        "receipt/untrusted-signer",
      );
      const saved = join(folder.path, "other.json");
      await keystead(["secrets", "key", "--service", other, "--node", url, "--out", saved, ...trust()]);
      const offline = ["--json", "secrets", "seal", env(), "--service", SERVICE, "--key", saved, ...trust()];
      expect(errorCodeOf(await keystead(offline))).to.equal("receipt/mismatch");
    });

    it("refuses a wrong use, each for its own reason", async () => {
      const codes = async (...args: readonly string[]) =>
        errorCodeOf(await keystead(["--json", "secrets", "seal", env(), ...args]));
      const at = ["--service", SERVICE, "--node", url];
      expect(await codes(...at, "--registry", FAKE_REGISTRY, "--chain-id", "31337")).to.equal("usage/no-trust");
      expect(await codes(...at, "--signer", node.signer, "--chain-id", "31337")).to.equal("usage/registry");
      expect(await codes(...at, "--signer", node.signer, "--registry", FAKE_REGISTRY)).to.equal("usage/chain-id");
      expect(await codes("--node", url, ...trust())).to.equal("usage/service");
      expect(await codes("--service", SERVICE, ...trust())).to.equal("usage/key");
      expect(await codes(...at, ...trust(), "--creation", "--name", "x")).to.equal("usage/name");
      expect(await codes(...at, ...trust(), "--name", "n".repeat(65))).to.equal("secrets/name");
    });
  });

  describe("inspect", () => {
    it("shows name, size and epochs of a document, calldata and a bare ciphertext alike", async () => {
      const document = jsonOf(await seal(env()));
      const files = [JSON.stringify(document), document.calldata, document.ciphertext];
      for (const contents of [...files, fromHex(document.ciphertext, "c")]) {
        const found = jsonOf(await keystead(["--json", "secrets", "inspect", folder.write("sealed", contents)]));
        expect(found.sealed).to.have.length(1);
        expect(found.sealed[0]).to.deep.include({ rootEpoch: 1, keyEpoch: 2, bytes: document.bytes });
      }
    });

    it("ends with 1 where something is no sealed secrets", async () => {
      const done = await keystead(["--json", "secrets", "inspect", folder.write("junk", fill(100, 1))]);
      expect([done.code, jsonOf(done).sealed[0].rootEpoch]).to.deep.equal([1, undefined]);
    });
  });
});

describe("checkSecrets", () => {
  const code = (text: string, kind?: Parameters<typeof checkSecrets>[1]) =>
    errorOf(() => checkSecrets(utf8(text), kind));

  it("counts variables and registries", () => {
    expect(checkSecrets(utf8("A=1\r\n# x\n\nB='q\nq'\nC=\n"))).to.deep.equal({ kind: "env", count: 3 });
    expect(checkSecrets(utf8('A="x \\" y"\nB=a"b\n'))).to.deep.equal({ kind: "env", count: 2 });
    expect(checkSecrets(utf8('{"username":"u","password":"p"}'))).to.deep.equal({ kind: "registry", count: 1 });
    expect(checkSecrets(utf8("{}"), "raw")).to.deep.equal({ kind: "raw", count: 0 });
  });

  it("says the line, and never what is in it", () => {
    for (const [text, line, wanted] of [
      [`A=1\n${SECRET}\n`, 2, "bad-line"],
      [`A=${SECRET}\nA=2\n`, 2, "duplicate-name"],
      [`A="${SECRET}\nB=1\n`, 1, "bad-line"],
      [`1A=${SECRET}`, 1, "bad-line"],
    ] as const) {
      const error = code(text);
      expect([error.code, error.details.line]).to.deep.equal([`secrets/${wanted}`, line]);
      expect(JSON.stringify([error.message, error.details, error.remedy, String(error.cause)])).not.to.contain(SECRET);
    }
    for (const text of [
      `{"auths":{"x":{"a":"${SECRET}"}}}`,
      `{"auths":{}}`,
      `{"credsStore":"x"}`,
      `{"${SECRET}`,
      `{"a":1,"a":"${SECRET}"}`,
    ]) {
      const error = code(text);
      expect(error.code, text).to.equal("secrets/not-credentials");
      expect(JSON.stringify([error.message, error.details, String(error.cause)])).not.to.contain(SECRET);
    }
    expect(code("# nothing\n").code).to.equal("secrets/empty");
    expect(code("", "raw").code).to.equal("secrets/empty");
  });

  it("takes what fits the contract's limit to the byte, and not one more", async () => {
    const most = MAX_CIPHERTEXT_BYTES - SEAL_OVERHEAD;
    expect(checkSecrets(fill(most, 0x61), "raw").kind).to.equal("raw");
    expect(errorOf(() => checkSecrets(fill(most + 1, 0x61), "raw")).code).to.equal("secrets/too-large");
    const { env } = await createFakeNode(() => ({}));
    const key = { rootEpoch: 0, keyEpoch: 0, publicKey: env.publicKey };
    const context = { chainId: 1n, registry: FAKE_REGISTRY, serviceId: SERVICE, name: "" };
    expect(await sealSecrets(fill(most, 1), key, context)).to.have.length(MAX_CIPHERTEXT_BYTES);
  });
});

describe("computeServiceId", () => {
  it("gives the id that the contract gives", async () => {
    const { registry, deployer, serviceId } = await connection.networkHelpers.loadFixture(sealedService);
    const lower = (address: string) => address.toLowerCase() as Hex;
    const { chainId } = await connection.ethers.provider.getNetwork();
    const deployment = { chainId, registry: lower(await registry.getAddress()) };
    expect(computeServiceId(deployment, lower(deployer.address), bytes32("sealed") as Hex)).to.equal(lower(serviceId));
  });
});
