import { expect } from "chai";
import { z } from "zod";
import { KeysteadError } from "../../src/core/errors.ts";
import { DEFAULT_LIMITS } from "../../src/node/limits.ts";
import {
  ALLOWED,
  createTestNode,
  createTestTees,
  honestRequest,
  honestRootRequest,
  now,
  SERVICE,
  type TestNode,
  type TestTees,
} from "../helpers/node.ts";

interface Described {
  readonly content?: Readonly<Record<string, { readonly schema: z.core.JSONSchema.JSONSchema }>>;
  readonly headers?: Readonly<Record<string, unknown>>;
}
interface Operation {
  readonly requestBody?: Described;
  readonly responses: Readonly<Record<string, Described>>;
}
type Document = { readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>> };

/*
 * Every answer that a node's routes give, of every kind that the document names, is asked for and held against the document itself: its status, its media type,
 * its body by the schema there. And the other way round: a status that the document names and nothing here provokes is a failure.
 */
describe("node: the OpenAPI document", function () {
  this.timeout(300_000);
  let tees: TestTees;
  let node: TestNode;
  let document: Document;
  const seen = new Set<string>();
  const stale = new KeysteadError("chain/stale", "too old", { remedy: "Wait." });

  const operationOf = (method: string, path: string): [string, Operation] => {
    const parts = path.split("?")[0]?.split("/") ?? [];
    for (const [pattern, methods] of Object.entries(document.paths)) {
      const names = pattern.split("/");
      const fits =
        names.length === parts.length && names.every((name, at) => name.startsWith("{") || name === parts[at]);
      const operation = fits ? methods[method] : undefined;
      if (operation !== undefined) return [pattern, operation];
    }
    throw new Error(`${method} ${path} is not described`);
  };

  /** Asks, and holds the answer against the document. */
  async function hold(
    status: number,
    method: "get" | "post",
    path: string,
    body?: unknown,
    at = node,
  ): Promise<unknown> {
    const text = typeof body === "string" || body === undefined ? body : JSON.stringify(body);
    const response = await at.app.request(path, {
      method: method.toUpperCase(),
      ...(text === undefined ? {} : { body: text }),
    });
    const answer = await response.text();
    expect(response.status, `${method} ${path}: ${answer}`).to.equal(status);
    const [pattern, { responses }] = operationOf(method, path);
    const described = responses[status];
    if (described === undefined) throw new Error(`${method} ${pattern} describes no ${status}`);
    seen.add(`${method} ${pattern} ${status}`);
    const type = (response.headers.get("content-type") ?? "").split(";")[0] ?? "";
    const schema = described.content?.[type]?.schema;
    if (schema === undefined) throw new Error(`${method} ${pattern} ${status} describes no ${type}`);
    for (const name of Object.keys(described.headers ?? {})) expect(response.headers.has(name), name).to.equal(true);
    const value: unknown = type.endsWith("json") ? JSON.parse(answer) : answer;
    const read = z.fromJSONSchema(schema).safeParse(value);
    expect(read.success, `${method} ${pattern} ${status}: ${answer}\n${read.error}`).to.equal(true);
    return value;
  }

  /** A request that is described, and not refused for its form. */
  const described = (path: string, body: unknown) => {
    const schema = operationOf("post", path)[1].requestBody?.content?.["application/json"]?.schema;
    return schema !== undefined && z.fromJSONSchema(schema).safeParse(body).success;
  };

  before(async () => {
    tees = await createTestTees();
    node = await createTestNode(tees);
    document = (await (await node.app.request("/openapi.json")).json()) as Document;
  });
  after(async () => {
    await node.close();
    tees.folder.remove();
  });

  it("describes what is said to everyone", async () => {
    await hold(200, "get", "/v1/info");
    await hold(200, "post", "/v1/challenge");
    await hold(200, "get", "/health");
    await hold(200, "get", "/ready");
    await hold(200, "get", "/metrics");
    await hold(200, "get", `/v1/secrets-key/${SERVICE}`);
    await hold(200, "get", "/v1/receipts");
    const down = await createTestNode(tees, { notReady: () => ["chain/stale"] });
    await hold(503, "get", "/ready", undefined, down);
    await down.close();
  });

  it("describes releases, and the receipts of them", async () => {
    for (const kind of ["tdx", "snp", "nitro"] as const) {
      const { request } = await honestRequest(node, kind);
      expect(described("/v1/keys", request), kind).to.equal(true);
      await hold(200, "post", "/v1/keys", request);
    }
    const { request } = await honestRootRequest(node);
    expect(described("/v1/root", request)).to.equal(true);
    await hold(200, "post", "/v1/root", request);
    await hold(200, "get", "/v1/receipts?after=1&limit=2");
  });

  it("describes every refusal of both routes that release", async () => {
    for (const [path, ask] of [
      ["/v1/keys", honestRequest],
      ["/v1/root", honestRootRequest],
    ] as const) {
      const { request } = await ask(node);
      for (const wrong of [{}, "", "{", "[]", { ...request, extra: 1 }, { ...request, nonce: 7 }]) {
        expect(described(path, wrong), JSON.stringify(wrong)).to.equal(false);
        await hold(400, "post", path, wrong);
      }
      await hold(413, "post", path, " ".repeat(DEFAULT_LIMITS.maxBodyBytes + 1));
      await hold(200, "post", path, request);
      await hold(409, "post", path, request);
      await hold(401, "post", path, { ...(await ask(node)).request, evidence: request.evidence });
      const refusal = { ...ALLOWED, allowed: false, decision: "ImagePending" } as const;
      node.chain = { decide: async () => refusal, decideKms: async () => refusal };
      await hold(403, "post", path, (await ask(node)).request);
      const fail = () => Promise.reject(stale);
      node.chain = { decide: fail, decideKms: fail };
      await hold(503, "post", path, (await ask(node)).request);
      node.chain = { decide: async () => ALLOWED, decideKms: async () => ALLOWED };
    }
  });

  it("describes the other refusals", async () => {
    await hold(400, "get", "/v1/secrets-key/12");
    await hold(400, "get", "/v1/receipts?after=-1");
    await hold(413, "post", "/v1/challenge", " ".repeat(DEFAULT_LIMITS.maxBodyBytes + 1));
    node.chain = { ...node.chain, decide: () => Promise.reject(stale) };
    await hold(503, "get", `/v1/secrets-key/${SERVICE}`);
    node.chain = { ...node.chain, decide: async () => ALLOWED };
    for (const [method, path] of [
      ["get", "/v1/info"],
      ["post", "/v1/challenge"],
      ["post", "/v1/keys"],
      ["post", "/v1/root"],
      ["get", `/v1/secrets-key/${SERVICE}`],
      ["get", "/v1/receipts"],
    ] as const) {
      const limits = { ...DEFAULT_LIMITS, requestsPerSecond: 0.01, burst: 1 };
      const small = await createTestNode(tees, { limits });
      await small.app.request(path, { method });
      await hold(429, method, path, undefined, small);
      await small.close();
    }
  });

  it("describes a defect of any route as what it is: 503, without a word about its cause", async () => {
    const broken = await createTestNode(tees, {
      receipts: { page: () => Promise.reject(new TypeError("a defect")) },
      challenges: {
        issue: () => {
          throw new TypeError("a defect");
        },
      },
      info: () => {
        throw new TypeError("a defect");
      },
    });
    for (const [method, path] of [
      ["get", "/v1/info"],
      ["post", "/v1/challenge"],
      ["get", "/v1/receipts"],
    ] as const)
      expect(JSON.stringify(await hold(503, method, path, undefined, broken))).not.to.contain("a defect");
    await broken.close();
  });

  it("names no status that none of these answers has", () => {
    const named = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).flatMap(([method, { responses }]) =>
        Object.keys(responses).map((status) => `${method} ${path} ${status}`),
      ),
    );
    expect(named.filter((one) => !seen.has(one))).to.deep.equal([]);
  });

  it("would not pass for any other answer: one field too many, too few or of another form is noticed", async () => {
    const schema = document.paths["/v1/info"]?.get?.responses["200"]?.content?.["application/json"]?.schema;
    if (schema === undefined) throw new Error("not described");
    const shape = z.fromJSONSchema(schema);
    const info = (await (await node.app.request("/v1/info")).json()) as Record<string, unknown>;
    expect(shape.safeParse(info).success).to.equal(true);
    const { registry: _, ...less } = info;
    for (const other of [less, { ...info, more: now() }, { ...info, registry: "0xAB" }, { ...info, rootEpoch: -1 }])
      expect(shape.safeParse(other).success).to.equal(false);
  });
});
