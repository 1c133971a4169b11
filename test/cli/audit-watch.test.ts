import { type ChildProcess, spawn } from "node:child_process";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect } from "chai";
import { SECRET_VARIABLE, SIGNATURE_HEADER, signWebhook, TIMESTAMP_HEADER } from "../../src/cli/webhook.ts";
import { type Chain, startChain } from "../deploy/chains.ts";
import { PROGRAM_ENVIRONMENT } from "../helpers/environment.ts";
import { measured, snpImage, tdxImage } from "../helpers/images.ts";
import { type ProxyEndpoint, startProxy } from "../helpers/proxy.ts";
import { deploySuite, type Suite } from "../helpers/suite.ts";

const MAIN = join(import.meta.dirname, "..", "..", "src", "cli", "main.ts");
const SECRET = "a secret of the receiver";

describe("keystead audit --watch", () => {
  let chain: Chain;
  let suite: Suite;
  let proxy: ProxyEndpoint;
  let service: string;
  let receiver: Server;
  let child: ChildProcess;
  /** Bodies of messages whose signature held; the first attempt of all is turned away. */
  const received: string[] = [];
  let attempts = 0;

  before(async function () {
    this.timeout(240_000);
    chain = await startChain("anvil");
    suite = await deploySuite(chain.connection);
    proxy = await startProxy(chain.anvil?.url ?? "");
    const own = suite.registry.connect(suite.admin);
    const config = {
      admin: suite.admin.address,
      noticePeriod: 0,
      description: "",
      devices: [],
      requireUpToDateTcb: false,
    };
    service = await own.serviceIdFor(suite.admin.address, measured("watched", 32));
    await (await own.createServiceWithImage(config, measured("watched", 32), tdxImage("v1"), "first")).wait();
    receiver = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const body = Buffer.concat(chunks).toString();
      const signature = signWebhook(SECRET, String(request.headers[TIMESTAMP_HEADER]), body);
      attempts += 1;
      if (attempts > 1 && request.headers[SIGNATURE_HEADER] === signature) received.push(body);
      response.writeHead(attempts === 1 ? 503 : 204).end();
    });
    await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  });
  after(async () => {
    child?.kill("SIGKILL");
    receiver?.close();
    await proxy?.stop();
    await chain?.stop();
  });

  it("prints and posts what changes, through an outage, and exits 1 when something was broken", async () => {
    const { port } = receiver.address() as AddressInfo;
    const args = ["audit", service, "--rpc", proxy.url, "--registry", await suite.registry.getAddress()];
    const watching = ["--watch", "--interval", "1", "--webhook", `http://127.0.0.1:${port}/hook`, "--json"];
    child = spawn(process.execPath, [MAIN, ...args, ...watching], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...PROGRAM_ENVIRONMENT, [SECRET_VARIABLE]: SECRET },
    });
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
    if (child.stdout === null) throw new Error("no output");
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    // biome-ignore lint/suspicious/noExplicitAny: a test reads whatever the document holds
    const next = async (): Promise<any> => JSON.parse(String((await lines.next()).value));

    expect(await next()).to.deep.include({ format: "keystead.audit/1", verdict: "proven" });

    const own = suite.registry.connect(suite.admin);
    await (await own.addImageToService(service, snpImage("v2"), "second")).wait();
    const added = await next();
    expect(added).to.deep.include({ format: "keystead.audit-change/1", kind: "changes", verdict: "proven" });
    expect(added.changes).to.have.length(1);
    expect(added.changes[0].event).to.deep.include({ name: "add_image_to_service", sequence: 3 });

    proxy.change = () => {
      throw { code: -32603, message: "database is locked" };
    };
    const lost = await next();
    expect(lost.error.code).to.equal("chain/unreachable");
    await (await own.rotateServiceKey(service)).wait();
    proxy.change = (_method, answer) => answer;
    const again = await next();
    expect([again.kind, again.changes[0].event.name]).to.deep.equal(["again", "rotate_service_key"]);

    proxy.change = (method, answer) => (method === "eth_getLogs" ? [] : answer);
    await (await own.extendNoticePeriod(service, 180 * 86_400)).wait();
    const broken = await next();
    expect([broken.verdict, broken.changes[0].kind]).to.deep.equal(["broken", "verdict"]);

    while (received.length < 4) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(received.map((body) => JSON.parse(body))).to.deep.equal([added, lost, again, broken]);
    expect(attempts, "the one turned away was sent again").to.equal(5);
    child.kill("SIGTERM");
    expect(await ended).to.equal(1);
  }).timeout(120_000);
});
