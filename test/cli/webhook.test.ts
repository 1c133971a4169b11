import { createHmac } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { expect } from "chai";
import { createWebhook, SIGNATURE_HEADER } from "../../src/cli/webhook.ts";
import { isKeysteadError } from "../../src/core/errors.ts";

const SECRET = "a secret of the receiver";

describe("a webhook", () => {
  let server: Server;
  let url: string;
  let statuses: number[];
  const got: { readonly headers: IncomingHttpHeaders; readonly body: string }[] = [];

  before(async () => {
    server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      got.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
      const status = statuses.shift() ?? 204;
      response.writeHead(status, status === 302 ? { location: "/elsewhere" } : {}).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });
  beforeEach(() => {
    got.length = 0;
    statuses = [];
  });
  const tell = (more = {}) => createWebhook({ url, secret: SECRET, backoff: 1, attempts: 3, ...more });
  const failureOf = (sending: Promise<void>) => sending.catch((error: unknown) => error);

  it("posts JSON, with a signature that the receiver can compute by itself", async () => {
    await tell()({ changes: ["ü"] });
    const [{ headers, body } = { headers: {}, body: "" }] = got;
    expect(JSON.parse(body)).to.deep.equal({ changes: ["ü"] });
    const time = String(headers["x-keystead-timestamp"]);
    expect(Math.abs(Number(time) - Date.now() / 1000)).to.be.lessThan(60);
    const expected = createHmac("sha256", SECRET).update(`${time}.`).update(body).digest("hex");
    expect(headers[SIGNATURE_HEADER]).to.equal(`sha256=${expected}`);
  });

  it("where the receiver fails or asks to wait, sends the same message again", async () => {
    statuses = [503, 429, 200];
    await tell()({ n: 1 });
    expect(got).to.have.length(3);
    expect(new Set(got.map(({ headers }) => headers["x-keystead-delivery"])).size).to.equal(1);
    expect(new Set(got.map(({ body }) => body)).size).to.equal(1);
  });

  for (const [what, answers, sent, retryable] of [
    ["that keeps failing", [500, 500, 500, 500], 3, true],
    ["that refuses", [401], 1, false],
    ["that sends elsewhere", [302], 1, false],
  ] as const) {
    it(`to a receiver ${what} is webhook/failed after ${sent} attempts`, async () => {
      statuses = [...answers];
      const failure = await failureOf(tell()({}));
      if (!isKeysteadError(failure, "webhook/failed")) throw failure;
      expect([failure.details.attempts, failure.retryable, got.length]).to.deep.equal([sent, retryable, sent]);
    });
  }

  it("to nobody is webhook/failed", async () => {
    const failure = await failureOf(tell({ url: "http://127.0.0.1:9/", attempts: 2 })({}));
    expect(isKeysteadError(failure, "webhook/failed") && failure.details.status).to.equal(null);
  });

  it("is refused without a URL or a key of some length", () => {
    for (const [more, code] of [
      [{ url: "file:///etc/passwd" }, "webhook/bad-url"],
      [{ secret: "short" }, "webhook/weak-secret"],
    ] as const) {
      expect(() => tell(more))
        .to.throw()
        .with.property("code", code);
    }
  });
});
