import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect } from "chai";
import { JsonRpcProvider } from "ethers";
import { connect, limitClient, mapLimited } from "../../src/chain/client.ts";
import { isKeysteadError, type KeysteadError } from "../../src/core/errors.ts";

const FAST = { backoff: 1, timeout: 300 };

/** What a call fails with; anything but a `KeysteadError` fails the test. */
async function failureOf(act: Promise<unknown>): Promise<KeysteadError> {
  try {
    await act;
  } catch (error) {
    if (isKeysteadError(error)) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** A provider that fails `times` times with something before it answers. */
function failing(times: number, failure: unknown) {
  let calls = 0;
  return {
    calls: () => calls,
    async request({ method }: { method: string }): Promise<unknown> {
      if (method === "eth_chainId") return "0x1";
      calls += 1;
      if (calls <= times) throw failure;
      return "0xdone";
    },
  };
}

describe("client", () => {
  it("refuses an endpoint of another chain", async () => {
    const failure = await failureOf(connect(failing(0, null), { chainId: 8453 }));
    expect(failure.code).to.equal("chain/wrong-chain");
    expect(failure.details).to.deep.include({ expected: 8453, actual: 1 });
  });

  it("refuses a chain id that is none", async () => {
    expect((await failureOf(connect({ request: async () => 1 }))).code).to.equal("log/malformed");
  });

  for (const [what, thrown, code, calls] of [
    ["an unreachable endpoint", new Error("ECONNREFUSED"), "chain/unreachable", 4],
    ["a request to slow down", { code: -32005, message: "rate limit exceeded" }, "chain/rate-limited", 4],
    ["HTTP 429 through ethers", { info: { error: { code: 429, message: "x" } } }, "chain/rate-limited", 4],
    ["a method that is not offered", { code: -32601, message: "Method not found" }, "chain/unsupported", 1],
    [
      "a method behind a paywall",
      { code: -32000, message: "eth_getProof is not available on your plan" },
      "chain/unsupported",
      1,
    ],
    ["a revert", { code: 3, message: "execution reverted" }, "chain/reverted", 1],
    ["any other refusal", { code: -32000, message: "who are you" }, "chain/refused", 1],
  ] as const) {
    it(`meets ${what} with ${code}, after ${calls} calls`, async () => {
      const provider = failing(1_000, thrown);
      const client = await connect(provider, FAST);
      const failure = await failureOf(client.request("eth_getProof", []));
      expect([failure.code, failure.retryable, provider.calls()]).to.deep.equal([code, calls > 1, calls]);
      expect(client.calls()).to.equal(calls + 1);
    });
  }

  it("answers when a later attempt does", async () => {
    const provider = failing(2, { code: -32005, message: "Too Many Requests" });
    expect(await (await connect(provider, FAST)).request("eth_call", [])).to.equal("0xdone");
    expect(provider.calls()).to.equal(3);
  });

  describe("over HTTP", () => {
    let server: Server;
    let url: string;
    let answer: (response: ServerResponse, call: { id: number; method: string }) => void;
    const result =
      (value: unknown) =>
      (response: ServerResponse, { id }: { id: number }) =>
        response.end(JSON.stringify({ jsonrpc: "2.0", id, result: value }));

    before(async () => {
      server = createServer((request, response) => {
        let body = "";
        request.on("data", (chunk) => {
          body += chunk;
        });
        request.on("end", () => {
          const call = JSON.parse(body);
          if (call.method === "eth_chainId") result("0x7a69")(response, call);
          else answer(response, call);
        });
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    });
    after(() => {
      server.closeAllConnections();
      server.close();
    });

    it("gives the endpoint's result, null too", async () => {
      const client = await connect(url, FAST);
      expect(client.chainId).to.equal(31337);
      for (const value of ["0x1", null, [], { a: 1 }]) {
        answer = result(value);
        expect(await client.request("x", [])).to.deep.equal(value);
      }
    });

    it("works through ethers' provider as well", async () => {
      const provider = new JsonRpcProvider(url, 31337, { staticNetwork: true });
      answer = result("0x2");
      const client = await connect(provider, FAST);
      expect(await client.request("eth_blockNumber", [])).to.equal("0x2");
      provider.destroy();
    });

    for (const [what, respond, code] of [
      ["no JSON", (response: ServerResponse) => response.writeHead(502).end("<html>"), "chain/unreachable"],
      ["JSON that is no answer", (response: ServerResponse) => response.end("[]"), "chain/unreachable"],
      ["null", (response: ServerResponse) => response.end("null"), "chain/unreachable"],
      ["429", (response: ServerResponse) => response.writeHead(429).end("{}"), "chain/rate-limited"],
      ["nothing at all", () => undefined, "chain/unreachable"],
      ["a closed connection", (response: ServerResponse) => response.destroy(), "chain/unreachable"],
      [
        "an error",
        (response: ServerResponse) => response.end('{"error":{"code":-32601,"message":"no"}}'),
        "chain/unsupported",
      ],
    ] as const) {
      it(`meets ${what} with ${code}`, async () => {
        answer = respond;
        const client = await connect(url, { ...FAST, attempts: 2 });
        expect((await failureOf(client.request("x", []))).code).to.equal(code);
      });
    }

    it("refuses what is no http URL", async () => {
      for (const bad of ["", "localhost", "ftp://127.0.0.1", "file:///etc/passwd"]) {
        expect((await failureOf(connect(bad, FAST))).code, bad).to.equal("chain/bad-endpoint");
      }
    });
  });

  it("given a limit has no more calls under way, answers all in the end, and goes on after failures", async () => {
    let under = 0;
    let most = 0;
    const client = limitClient(
      await connect({
        request: async ({ method, params }) => {
          if (method === "eth_chainId") return "0x1";
          under += 1;
          most = Math.max(most, under);
          await new Promise((resolve) => setTimeout(resolve, 2));
          under -= 1;
          if (params?.[0] === 4) throw { code: 3, message: "execution reverted" };
          return params?.[0];
        },
      }),
      3,
    );
    const asked = Array.from({ length: 20 }, (_, at) => at);
    const answers = await Promise.allSettled(asked.map((at) => client.request("eth_call", [at])));
    expect(answers.map(({ status }) => status).filter((status) => status === "rejected")).to.have.length(1);
    expect(answers.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []))).to.deep.equal(
      asked.filter((at) => at !== 4),
    );
    expect(most).to.equal(3);
    expect(client.calls()).to.equal(21);
  });

  it("maps in order, with no more at a time than allowed, and fails with the first failure", async () => {
    let running = 0;
    let most = 0;
    const results = await mapLimited([5, 1, 4, 2, 3], 2, async (value) => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setTimeout(resolve, value));
      running -= 1;
      return value * 10;
    });
    expect(results).to.deep.equal([50, 10, 40, 20, 30]);
    expect(most).to.equal(2);
    const failure = await mapLimited([1, 2], 2, async () => Promise.reject(new Error("no"))).catch(
      (e: Error) => e.message,
    );
    expect(failure).to.equal("no");
  });
});
