import { expect } from "chai";
import { Hono } from "hono";
import { createGatedWebhook, type DstackGateOptions, isNetwork } from "../../src/node/dstack-gate.ts";
import { DEFAULT_LIMITS, type Limits } from "../../src/node/limits.ts";
import { errorOf } from "../helpers/errors.ts";

const TOKEN = "0123456789abcdef0123456789abcdef";
const LIMITS = { ...DEFAULT_LIMITS, requestsPerSecond: 1000, burst: 1000 };
const hook = () =>
  new Hono({ strict: false }).get("/", (c) => c.text("hook")).post("/bootAuth/app", (c) => c.text("app"));

/** A request as it comes over a socket from an address. */
const from = (app: Hono, address: string, path = "/", headers: Record<string, string> = {}) =>
  app.request(
    path,
    { headers },
    { incoming: { socket: { remoteAddress: address, remotePort: 1, remoteFamily: "IPv4" } } },
  );
const gated = (options: DstackGateOptions, limits: Limits = LIMITS) => createGatedWebhook(hook(), options, limits);

describe("who may ask the dstack webhook", () => {
  it("nobody may be let in by leaving everything out, and a guessable token or a name is refused", () => {
    for (const [options, argument] of [
      [{}, "dstackWebhook"],
      [{ token: "short" }, "dstackWebhook.tokenFile"],
      [{ token: "" }, "dstackWebhook.tokenFile"],
      [{ allow: ["kms.example"] }, "dstackWebhook.allow"],
    ] as const) {
      const error = errorOf(() => gated(options));
      expect({ code: error.code, argument: error.argument }).to.deep.equal({ code: "config/invalid", argument });
    }
  });

  it("networks are addresses with or without a prefix length", () => {
    for (const good of ["10.0.0.7", "10.0.0.0/8", "0.0.0.0/0", "::1", "fd00::/8"])
      expect(isNetwork(good), good).to.equal(true);
    for (const bad of ["", "10.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0.0/8/8", "10.0.0.0/", "kms", "10.0.0.0/-1"])
      expect(isNetwork(bad), bad).to.equal(false);
  });

  it("given a list, answers addresses on it alone, whatever headers claim", async () => {
    const app = gated({ allow: ["10.1.0.0/16", "::1"] });
    for (const address of ["10.1.2.3", "::ffff:10.1.2.3", "::1"])
      expect((await from(app, address)).status, address).to.equal(200);
    for (const address of ["10.2.0.1", "::2", "::ffff:10.2.0.1", ""]) {
      const answer = await from(app, address, "/", { "x-forwarded-for": "10.1.2.3" });
      expect(answer.status, address).to.equal(403);
      expect(await answer.json()).to.include({ isAllowed: false });
    }
    expect((await app.request("/")).status).to.equal(403);
  });

  it("given a token, answers those that know it: as Basic authentication, which a URL makes, or as a bearer's", async () => {
    const app = gated({ token: TOKEN });
    const basic = (text: string) => ({ authorization: `Basic ${Buffer.from(text).toString("base64")}` });
    for (const headers of [basic(`dstack:${TOKEN}`), basic(`:${TOKEN}`), { authorization: `bearer ${TOKEN}` }])
      expect((await from(app, "192.0.2.1", "/", headers)).status).to.equal(200);
    for (const headers of [{}, basic("dstack:"), basic(`${TOKEN}:`), basic(`a:${TOKEN}x`), { authorization: TOKEN }]) {
      const answer = await from(app, "192.0.2.1", "/", headers as Record<string, string>);
      expect(answer.status).to.equal(401);
      expect(await answer.json()).to.include({ isAllowed: false });
    }
  });

  it("given both, both must hold", async () => {
    const app = gated({ allow: ["10.0.0.7"], token: TOKEN });
    const headers = { authorization: `Bearer ${TOKEN}` };
    expect((await from(app, "10.0.0.7", "/", headers)).status).to.equal(200);
    expect((await from(app, "10.0.0.8", "/", headers)).status).to.equal(403);
    expect((await from(app, "10.0.0.7")).status).to.equal(401);
  });

  it("answers at the root and at /dstack, with and without a slash at the end", async () => {
    const app = gated({ allow: ["10.0.0.7"] });
    for (const path of ["/", "/dstack", "/dstack/"])
      expect(await (await from(app, "10.0.0.7", path)).text(), path).to.equal("hook");
  });

  it("guesses of the token have a rate by address; who knows it has none", async () => {
    const few = gated({ token: TOKEN }, { ...LIMITS, requestsPerSecond: 0.01, burst: 1 });
    const headers = { authorization: `Bearer ${TOKEN}` };
    for (let time = 0; time < 5; time++) expect((await from(few, "10.0.0.7", "/", headers)).status).to.equal(200);
    expect((await from(few, "10.0.0.7")).status).to.equal(401);
    expect((await from(few, "10.0.0.7")).status).to.equal(429);
    expect((await from(few, "10.0.0.8")).status).to.equal(401);
  });

  it("there are some places, for as long as an answer may take", async () => {
    const allow = ["10.0.0.0/8"];
    const open = Promise.withResolvers<void>();
    const slow = new Hono().get("/", async (c) => {
      await open.promise;
      return c.text("late");
    });
    const app = createGatedWebhook(slow, { allow }, { ...LIMITS, timeoutMs: 200 });
    const answers = Array.from({ length: 64 }, (_, at) => from(app, `10.0.0.${at}`));
    const one = await from(app, "10.0.0.99");
    expect({ status: one.status, body: await one.json() }).to.deep.equal({
      status: 503,
      body: { isAllowed: false, gatewayAppId: "", reason: "too busy" },
    });
    expect((await Promise.all(answers)).map(({ status }) => status)).to.deep.equal(answers.map(() => 503));
    open.resolve();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect((await from(app, "10.0.0.99")).status).to.equal(200);
  });
});
