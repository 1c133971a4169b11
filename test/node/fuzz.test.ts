import { expect } from "chai";
import fc from "fast-check";
import { parseMessage, problemSchema } from "../../src/core/release-wire.ts";
import {
  challenge,
  createTestNode,
  createTestTees,
  honestRequest,
  post,
  type TestNode,
  type TestTees,
} from "../helpers/node.ts";

/** Malformed requests, in all. */
const RUNS = Number(process.env.KEYSTEAD_FUZZ_RUNS ?? 10_000);

/** A JSON value at a path replaced, or a key added, removed or doubled: close to a good request. */
function mutate(value: unknown, path: readonly number[], replacement: unknown): unknown {
  const [at, ...rest] = path;
  if (at === undefined || typeof value !== "object" || value === null || Array.isArray(value)) return replacement;
  const entries = Object.entries(value);
  if (entries.length === 0) return replacement;
  const index = at % (entries.length + 1);
  if (index === entries.length) return { ...value, extra: replacement };
  return Object.fromEntries(
    entries.flatMap(([key, child], position) => {
      if (position !== index) return [[key, child]];
      return replacement === undefined ? [] : [[key, mutate(child, rest, replacement)]];
    }),
  );
}

describe("node: malformed requests", function () {
  this.timeout(600_000);
  let tees: TestTees;
  let node: TestNode;
  before(async () => {
    tees = await createTestTees();
    node = await createTestNode(tees);
  });
  after(async () => {
    await node.close();
    tees.folder.remove();
  });

  /** An answer may be a refusal, or 503; never anything else, and nothing is released. */
  const check = async (response: Response) => {
    expect(response.status).to.satisfy((status: number) => (status >= 400 && status < 500) || status === 503);
    parseMessage(problemSchema, await response.text(), "problem");
  };

  it(`${RUNS.toLocaleString("en")} of them: each a problem document, none a release, none a crash`, async () => {
    const seeds = await Promise.all((["tdx", "snp", "nitro"] as const).map((kind) => honestRequest(node, kind)));
    const good = seeds.map(({ request }) => request);
    const junk = fc.oneof(
      fc.jsonValue(),
      fc.string({ unit: "binary", maxLength: 300 }),
      fc.base64String({ maxLength: 9000 }),
      fc.uint8Array({ maxLength: 6000 }).map((bytes) => Buffer.from(bytes).toString("base64")),
      fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => `0x${Buffer.from(bytes).toString("hex")}`),
      fc.constant(undefined),
    );
    const bodies = fc.oneof(
      { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 500 }) },
      { weight: 1, arbitrary: fc.json() },
      {
        weight: 4,
        arbitrary: fc
          .record({ base: fc.constantFrom(...good), path: fc.array(fc.nat(12), { minLength: 1, maxLength: 3 }), junk })
          .map(({ base, path, junk: replacement }) => JSON.stringify(mutate(base, path, replacement)) ?? "null"),
      },
      // Bytes cut out of, or turned over in, what would be a good body.
      {
        weight: 2,
        arbitrary: fc
          .record({ base: fc.constantFrom(...good), at: fc.nat(20_000), change: fc.integer({ min: 1, max: 255 }) })
          .map(({ base, at, change }) => {
            const text = Buffer.from(JSON.stringify(base));
            if (at >= text.length) return text.subarray(0, at % text.length).toString("latin1");
            text[at] = (text[at] ?? 0) ^ change;
            return text.toString("latin1");
          }),
      },
    );
    /** Well-formed requests whose evidence has bytes turned over, is shorter, or has another's certificates. */
    const evidence = fc
      .record({
        base: fc.constantFrom(...good),
        at: fc.nat(8000),
        // never no change: what comes of it may not be a good request
        change: fc.integer({ min: 1, max: 255 }),
        cut: fc.option(fc.nat(8000), { freq: 4, nil: undefined }),
        forRoot: fc.boolean(),
      })
      .map(({ base, at, change, cut, forRoot }) => {
        const alter = (field: string) => {
          const bytes = Buffer.from(field, "base64");
          bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ change;
          return bytes.subarray(0, cut === undefined ? bytes.length : 4 + (cut % bytes.length)).toString("base64");
        };
        const { serviceId, ...rest } = base;
        const altered = Object.fromEntries(
          Object.entries(base.evidence).map(([name, value]) => [
            name,
            typeof value === "string" && name !== "kind" ? alter(value) : value,
          ]),
        );
        return JSON.stringify({ ...rest, evidence: altered, ...(forRoot ? {} : { serviceId }) });
      });
    let sent = 0;
    let judged = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom("/v1/keys", "/v1/root"),
        fc.oneof(bodies, evidence),
        fc.boolean(),
        async (path, body, fresh) => {
          // The same request in other letters (hex has two cases) is a good one.
          fc.pre(!good.some((request) => JSON.stringify(request).toLowerCase() === body.toLowerCase()));
          // Half of them with a good nonce, so that the evidence is looked at.
          const nonce = fresh ? await challenge(node.app) : undefined;
          const text = nonce === undefined ? body : body.replace(/"nonce":"0x[0-9a-f]{64}"/, `"nonce":"${nonce}"`);
          const response = await post(node.app, path, text);
          sent += 1;
          if (response.status === 401) judged += 1;
          await check(response);
        },
      ),
      { numRuns: RUNS },
    );
    expect(sent).to.be.at.least(RUNS);
    expect(judged, "evidence was judged").to.be.greaterThan(RUNS / 100);
    expect(node.receipts.count()).to.equal(0);
    expect(node.asked).to.deep.equal([]);
    // and an honest machine is served all the same
    expect((await post(node.app, "/v1/keys", (await honestRequest(node)).request)).status).to.equal(200);
  });

  it("any method, path, query and header", async () => {
    const text = fc.string({ unit: "grapheme-ascii", maxLength: 60 });
    const path = fc.oneof(
      fc.webPath(),
      fc
        .tuple(fc.constantFrom("/v1/receipts?", "/v1/secrets-key/", "/v1/info?", "/dstack/", "/metrics?"), text)
        .map(([start, end]) => `${start}${encodeURIComponent(end)}`),
    );
    const method = fc.constantFrom("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "PROPFIND");
    const headers = fc.record({
      "content-type": fc.constantFrom("application/json", "text/plain", "multipart/form-data; boundary=x", ""),
      "content-length": fc.constantFrom("0", "-1", "99999999", "x"),
      "x-forwarded-for": text.map((value) => value.replace(/[^\x21-\x7e]/g, "")),
    });
    await fc.assert(
      fc.asyncProperty(method, path, headers, async (verb, address, fields) => {
        const response = await node.app.request(`http://node${address}`, { method: verb, headers: fields });
        expect(response.status).to.satisfy((status: number) => status < 500 || status === 503);
      }),
      { numRuns: Math.min(RUNS, 2000) },
    );
  });
});
