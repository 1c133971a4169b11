import { readFileSync, statSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { serve } from "@hono/node-server";
import { expect } from "chai";
import { createIo } from "../../src/cli/io.ts";
import { run } from "../../src/cli/main.ts";
import { fromHex, type Hex } from "../../src/core/bytes.ts";
import { type CliRun, errorCodeOf, type Folder, jsonOf, keysteadAsync, makeFolder } from "../helpers/cli.ts";
import { E2E_PLATFORM, versionOf } from "../helpers/delivery-world.ts";
import { createFakeNode, FAKE_IMAGE, FAKE_REGISTRY, type FakeAnswer, type FakeNode } from "../helpers/fake-node.ts";
import { leaks } from "../helpers/node-process.ts";
import { type Machine, openTeeHall, type TeeHall } from "../helpers/tee-server.ts";

const SERVICE: Hex = `0x${"5e".repeat(20)}`;

describe("keystead agent", function () {
  this.timeout(120_000);
  let folder: Folder;
  let hall: TeeHall;
  let machine: Machine;
  let node: FakeNode;
  let url: string;
  let stop: () => void;
  let answers: FakeAnswer[] = [];
  before(async () => {
    folder = makeFolder();
    hall = await openTeeHall(folder);
    machine = hall.machine(versionOf("tdx", "v1"), E2E_PLATFORM.tdx);
    node = await createFakeNode(() => answers.shift() ?? {});
    await new Promise<void>((resolve) => {
      const fetch = async (request: Request) => {
        const { method } = request;
        return node.fetch(request.url, method === "POST" ? { method, body: await request.text() } : { method });
      };
      const server = serve({ fetch, hostname: "127.0.0.1", port: 0 }, (address: AddressInfo) => {
        url = `http://127.0.0.1:${address.port}`;
        resolve();
      });
      stop = () => server.close();
    });
  });
  after(async () => {
    stop();
    await hall.stop();
    folder.remove();
  });
  beforeEach(() => {
    answers = [];
  });

  async function keystead(args: readonly string[], terminal = false): Promise<CliRun> {
    const said = { stdout: "", stderr: "" };
    const to = (name: keyof typeof said) => ({
      write: (text: string) => {
        said[name] += text;
      },
    });
    const io = createIo({
      stdin: (async function* () {})(),
      stdout: { ...to("stdout"), isTTY: terminal },
      stderr: to("stderr"),
      env: {},
    });
    return { code: await run(args, io), ...said };
  }
  const trust = () => ["--chain-id", "31337", "--registry", FAKE_REGISTRY, "--signer", node.signer];
  const device = () => {
    const [program, ...rest] = machine.command;
    return ["--command", program, ...rest.flatMap((argument) => ["--command-arg", argument])];
  };
  const base = () => ["--json", "agent", "--service", SERVICE, "--node", url, ...trust(), ...device()];
  const at = (name: string) => join(folder.path, name);

  it("writes keys, environment and receipt, and reports what it did without a key", async () => {
    const done = await keystead([
      ...base(),
      ...[
        "--out",
        at("keys.json"),
        "--environment",
        at("app.env"),
        "--receipt",
        at("receipt.json"),
        "--image",
        FAKE_IMAGE,
      ],
    ]);
    expect(done.code, done.stderr).to.equal(0);
    expect(jsonOf(done)).to.deep.include({
      service_id: SERVICE,
      image_id: FAKE_IMAGE,
      key_epoch: 2,
      signer: node.signer,
      test_tee: false,
    });
    const { keys } = JSON.parse(readFileSync(at("keys.json"), "utf8"));
    expect(keys).to.have.length(4);
    for (const { key } of keys) expect(done.stdout + done.stderr).not.to.contain(key);
    expect(readFileSync(at("app.env"), "utf8").split("\n").filter(Boolean)).to.have.length(4);
    expect(JSON.parse(readFileSync(at("receipt.json"), "utf8")).message.serviceId).to.equal(SERVICE);
    expect(statSync(at("keys.json")).mode & 0o777).to.equal(0o600);
  });

  it("as a process, gives keys on standard output and everything else on standard error", async () => {
    const args = ["agent", "--service", SERVICE, "--node", url, ...trust(), ...device()];
    const done = await keysteadAsync([...args, "--out", "-", "--purpose", "backup", "--format", "json"]);
    expect(done.code, done.stderr).to.equal(0);
    expect(jsonOf(done).keys.map(({ purpose }: { purpose: string }) => purpose)).to.deep.equal(["backup"]);
    expect(done.stderr).to.contain("backup").and.to.contain(FAKE_IMAGE);
    expect(done.stderr).not.to.contain(jsonOf(done).keys[0].key);
    expect(node.requests.at(-1)?.purposes).to.deep.equal(["backup"]);
  });

  it("that crashes with the keys in its memory prints none of them, in any spelling", async () => {
    // in the agent alone, not in the program that makes its evidence
    const end = 'process.once("beforeExit",()=>setImmediate(()=>{throw new Error("crash")}))';
    const crash = `data:text/javascript,if(process.argv.includes("agent"))${end}`;
    const preload = `--import ${encodeURI(crash)}`;
    const args = ["agent", "--service", SERVICE, "--node", url, ...trust(), ...device(), "--out", at("crashed.json")];
    const done = await keysteadAsync(args, { env: { NODE_OPTIONS: preload } });
    expect(done.stderr).to.contain("Error: crash");
    expect(done.code).to.equal(1);
    const { keys } = JSON.parse(readFileSync(at("crashed.json"), "utf8"));
    const secrets = new Map<string, Uint8Array>(
      keys.map(({ purpose, key }: { purpose: string; key: Hex }) => [purpose, fromHex(key, "key")]),
    );
    expect(secrets.size).to.equal(4);
    expect(leaks(Buffer.from(done.stdout + done.stderr), secrets)).to.deep.equal([]);
    // the search finds what is there
    expect(leaks(readFileSync(at("crashed.json")), secrets)).to.have.length(4);
  });

  it("waits for a pending image, says so, and then goes on", async () => {
    answers = [{ problem: "release/denied", decision: "ImagePending", retryable: true }];
    const done = await keystead([...base(), "--out", at("waited.json"), "--wait", "30"]);
    expect(done.code, done.stderr).to.equal(0);
    expect(done.stderr).to.contain("notice period");
  });

  it("ends with 1 where it is denied, with 2 where it could not be checked, and writes nothing", async () => {
    answers = [{ problem: "release/denied", decision: "ImageRemoved" }];
    const refused = await keystead([...base(), "--out", at("none")]);
    expect([refused.code, JSON.parse(lastJson(refused.stderr)).error.details.decision]).to.deep.equal([
      1,
      "ImageRemoved",
    ]);
    answers = [{ problem: "chain/unavailable", retryable: true }];
    expect((await keystead([...base(), "--out", at("none"), "--wait", "0"])).code).to.equal(2);
    answers = [{ release: { serviceId: `0x${"99".repeat(20)}` } }];
    const lied = await keystead([...base(), "--out", at("none"), "--wait", "0"]);
    expect([lied.code, JSON.parse(lastJson(lied.stderr)).error.code]).to.deep.equal([2, "receipt/mismatch"]);
    expect(statSync(at("none"), { throwIfNoEntry: false })).to.equal(undefined);
  });

  it("refuses a wrong use before it asks anyone, each for its own reason", async () => {
    const before = node.requests.length;
    const code = async (args: readonly string[], terminal = false) => {
      const done = await keystead(args, terminal);
      expect(done.code).to.equal(2);
      return JSON.parse(lastJson(done.stderr)).error.code;
    };
    const out = ["--out", at("none")];
    expect(await code(base())).to.equal("usage/no-output");
    expect(await code([...base(), "--out", "-"], true)).to.equal("usage/terminal");
    expect(await code([...base(), "--out", "fd:0"])).to.equal("usage/destination");
    expect(await code([...base(), ...out, "--purpose", "Not A Purpose"])).to.equal("usage/purpose");
    expect(await code([...base(), ...out, "--secret", "env"])).to.equal("usage/secret");
    expect(await code([...base(), ...out, "--secret", `env=${at("x")}`])).to.equal("usage/no-chain");
    expect(await code([...base(), ...out, "--image", "0x12"])).to.equal("usage/image");
    expect(await code([...base(), ...out, "--wait", "99999999999"])).to.equal("usage/wait");
    expect(await code([...base(), ...out, "--vm-updates"])).to.equal("usage/no-chain");
    expect(await code(["--json", "agent", "--service", SERVICE, ...trust(), ...device(), ...out])).to.equal(
      "usage/no-node",
    );
    const untrusting = [
      "--json",
      "agent",
      "--service",
      SERVICE,
      "--node",
      url,
      "--chain-id",
      "31337",
      "--registry",
      FAKE_REGISTRY,
    ];
    expect(await code([...untrusting, ...device(), ...out])).to.equal("usage/no-trust");
    expect(errorCodeOf(await keystead(["--json", "agent", ...out]))).to.equal("usage/missingMandatoryOptionValue");
    expect(node.requests.length).to.equal(before);
  });

  it("says that this machine has no attestation device, where it has none and no command is given", async function () {
    const args = [
      "--json",
      "agent",
      "--service",
      SERVICE,
      "--node",
      url,
      ...trust(),
      "--out",
      at("none"),
      "--device",
      "nitro",
    ];
    if (statSync("/dev/nsm", { throwIfNoEntry: false }) !== undefined) return this.skip();
    expect(JSON.parse(lastJson((await keystead(args)).stderr)).error.code).to.equal("device/not-there");
  });
});

/** The error document after whatever else was said on standard error. */
function lastJson(text: string): string {
  return text.slice(text.indexOf("{\n"));
}
