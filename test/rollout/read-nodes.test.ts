import { expect } from "chai";
import type { Hex } from "../../src/core/bytes.ts";
import type { KeyRelease, RootRelease } from "../../src/core/release.ts";
import { type NodePlace, readNode } from "../../src/rollout/read-nodes.ts";
import { createFakeNode, FAKE_IMAGE, FAKE_REGISTRY, type FakeNode } from "../helpers/fake-node.ts";
import { endless, fetchFrom, json, startServer } from "../helpers/unruly.ts";

/* What a node says is believed as far as it is signed, and however it says it, reading ends. */

const SERVICE: Hex = `0x${"5e".repeat(20)}`;
const SINCE = 1_760_000_000;
const URL = "http://kms.test/";
const word = (byte: string): Hex => `0x${byte.repeat(32)}`;

const RELEASE: KeyRelease = {
  ...{ serviceId: SERVICE, imageId: FAKE_IMAGE, platformId: word("b1"), keyEpoch: 0, evidenceHash: word("e1") },
  ...{ recipientKeyHash: word("f1"), blockNumber: 5n, blockHash: word("c1"), historyHead: word("d1") },
  ...{ policyVersion: 3n, issuedAt: BigInt(SINCE + 5) },
};
const ROOT_RELEASE: RootRelease = {
  ...{ imageId: FAKE_IMAGE, platformId: word("b1"), rootEpoch: 0, evidenceHash: word("e1") },
  ...{ recipientKeyHash: word("f1"), blockNumber: 5n, blockHash: word("c1"), policyHead: word("d1") },
  ...{ policyVersion: 3n, issuedAt: BigInt(SINCE + 6) },
};
/** A receipt as it travels. */
type Sent = Readonly<Record<string, unknown>>;
const messageOf = (message: object): object =>
  Object.fromEntries(
    Object.entries(message).map(([name, value]) => [name, typeof value === "bigint" ? `${value}` : value]),
  );

describe("rollout: what nodes say", () => {
  let node: FakeNode;
  let stranger: FakeNode;
  before(async () => {
    node = await createFakeNode(() => ({}));
    stranger = await createFakeNode(() => ({}));
  });

  const keys = (changes: Partial<KeyRelease> = {}, by = node, testTee = false): Sent => {
    const message = { ...RELEASE, ...changes };
    return { type: "KeyRelease", message: messageOf(message), ...by.sign("KeyRelease", message, testTee) };
  };
  const root = (changes: Partial<RootRelease> = {}): Sent => {
    const message = { ...ROOT_RELEASE, ...changes };
    return { type: "RootRelease", message: messageOf(message), ...node.sign("RootRelease", message) };
  };
  const info = (changes: object = {}) => ({
    ...{ protocol: "keystead/v1", version: "1", chainId: "31337", registry: FAKE_REGISTRY },
    ...{ policy: `0x${"ac".repeat(20)}`, testTee: false, receiptSigner: node.signer, environmentKey: word("ee") },
    ...{ rootEpoch: 0, evidenceKinds: ["tdx"], purposes: [], challengeSeconds: 60 },
    ...changes,
  });
  const page = (receipts: readonly object[], next?: number) =>
    json({
      receipts: receipts.map((receipt, i) => ({ sequence: i + 1, receipt })),
      ...(next === undefined ? {} : { next }),
    });
  const place = (changes: Partial<NodePlace> = {}): NodePlace => ({
    ...{ chainId: 31337n, registry: FAKE_REGISTRY, service: SERVICE, since: SINCE },
    signers: new Set([node.signer]),
    ...changes,
  });
  /** A node that is in order but for what a test says otherwise. */
  const ask = (answers: Record<string, () => Response>, changes: Partial<NodePlace> = {}) => {
    const fetch = fetchFrom((path) => {
      const given = answers[path.split("?")[0] ?? ""];
      if (given !== undefined) return given();
      if (path === "/v1/info") return json(info());
      if (path === "/ready") return json({ ready: true });
      return path.startsWith("/v1/receipts") ? page([]) : undefined;
    });
    return readNode(URL, place({ fetch, ...changes })).then((facts) => ({ ...facts, asked: fetch.asked }));
  };
  const receiptsOf = (receipts: readonly object[], changes: Partial<NodePlace> = {}) =>
    ask({ "/v1/receipts": () => page(receipts) }, changes);

  describe("given it is in order", () => {
    it("is up and ready, and its signed receipts count", async () => {
      const found = await receiptsOf([keys(), root()]);
      expect([found.up, found.ready, found.problem, found.testTee]).to.deep.equal([true, true, undefined, false]);
      expect(found.receipts?.map(({ type, issuedAt }) => [type, issuedAt])).to.deep.equal([
        ["keys", SINCE + 5],
        ["root", SINCE + 6],
      ]);
    });

    it("counts nothing of other services, and nothing from before", async () => {
      const others = [keys({ serviceId: `0x${"5f".repeat(20)}` }), keys({ issuedAt: BigInt(SINCE - 1) })];
      const { receipts, problem } = await receiptsOf(others);
      expect([receipts, problem]).to.deep.equal([[], undefined]);
    });

    it("takes its own word for the signer only where the chain could not be read", async () => {
      expect((await receiptsOf([keys()], { signers: undefined })).receipts).to.have.length(1);
      expect((await receiptsOf([keys({}, stranger)], { signers: undefined })).receipts).to.deep.equal([]);
    });
  });

  describe("given a receipt that its deployment's nodes did not sign, it counts for nothing and is named", () => {
    for (const [what, forge] of [
      ["by a stranger", () => keys({}, stranger)],
      ["with another content", () => ({ ...keys(), message: messageOf({ ...RELEASE, imageId: word("99") }) })],
      ["with another digest", () => ({ ...keys(), digest: word("99") })],
      ["with another signature", () => ({ ...keys(), signature: keys({ keyEpoch: 1 }).signature })],
      ["that names another signer than signed", () => ({ ...keys(), signer: stranger.signer })],
      ["with a signature that is none", () => ({ ...keys(), signature: `0x${"00".repeat(65)}` })],
      ["of another chain", () => ({ ...keys(), chainId: "1" })],
      ["of another registry", () => ({ ...keys(), registry: `0x${"4f".repeat(20)}` })],
      ["of a node that accepts test roots, shown by one that does not", () => keys({}, node, true)],
      ["under test roots, said to be real", () => ({ ...keys({}, node, true), testTee: false })],
    ] as const) {
      it(what, async () => {
        const { receipts, problem, ready } = await receiptsOf([forge(), keys({ keyEpoch: 2 })]);
        expect([receipts?.length, ready, problem]).to.deep.equal([
          ...[1, true, "1 of its receipts are not signed by a node of this deployment"],
        ]);
      });
    }

    it("in upper case: the whole page is refused, for one receipt must have one spelling", async () => {
      const digest = String(keys().digest).replace(/[a-f]/g, (letter) => letter.toUpperCase());
      const { receipts, problem } = await receiptsOf([keys(), { ...keys(), digest }]);
      expect([receipts, problem?.startsWith("it shows no receipts")]).to.deep.equal([undefined, true]);
    });
  });

  it("is the same receipt, however often it is shown", async () => {
    const { receipts } = await receiptsOf([root(), root()]);
    expect(new Set(receipts?.map(({ digest }) => digest)).size).to.equal(1);
  });

  describe("given it accepts test roots", () => {
    const test = { "/v1/info": () => json(info({ testTee: true, warning: "test" })) };

    it("is said to, on a development chain, where its receipts count", async () => {
      const found = await ask({ ...test, "/v1/receipts": () => page([keys({}, node, true)]) });
      expect([found.testTee, found.ready, found.receipts?.length]).to.deep.equal([true, true, 1]);
    });

    it("is not ready on any other chain, and nothing that it signed counts", async () => {
      const real = await createFakeNode(() => ({}), 1n);
      const receipt = (testTee: boolean) => keys({}, real, testTee);
      const there = { chainId: 1n, signers: new Set([real.signer]) };
      const publicInfo = (testTee: boolean) => () => json(info({ chainId: "1", testTee }));
      const found = await ask({ "/v1/info": publicInfo(true), "/v1/receipts": () => page([receipt(true)]) }, there);
      expect([found.up, found.ready, found.receipts, found.testTee]).to.deep.equal([true, false, undefined, true]);
      expect(found.problem).to.include("test roots");
      // nor where it says that it does not
      const hidden = { "/v1/info": publicInfo(false), "/v1/receipts": () => page([receipt(true), receipt(false)]) };
      expect((await ask(hidden, there)).receipts).to.have.length(1);
    });
  });

  describe("given it is of another deployment, it is not ready and its receipts are not read", () => {
    for (const [what, changes] of [
      ["another chain", { chainId: "1" }],
      ["another registry", { registry: `0x${"4f".repeat(20)}` }],
    ] as const) {
      it(what, async () => {
        const found = await ask({ "/v1/info": () => json(info(changes)) });
        expect([found.up, found.ready, found.receipts]).to.deep.equal([true, false, undefined]);
        expect(found.asked).to.deep.equal(["/v1/info"]);
      });
    }
  });

  describe("given /v1/info is no answer of a node, it is not up", () => {
    for (const [what, response] of [
      ["a web page", () => new Response("<html>welcome</html>", { headers: { "content-type": "text/html" } })],
      ["nothing", () => new Response("")],
      ["bytes that are no text", () => new Response(Uint8Array.of(0xff, 0xfe, 0x00))],
      ["a key twice", () => new Response('{"protocol":"keystead/v1","protocol":"keystead/v1"}')],
      ["a field more", () => json(info({ image: word("99") }))],
      ["a field less", () => json({ ...info(), environmentKey: undefined })],
      ["an error", () => new Response("no", { status: 500 })],
      ["a redirection that was not followed", () => new Response("", { status: 302, headers: { location: "/x" } })],
    ] as const) {
      it(what, async () => {
        const found = await ask({ "/v1/info": response });
        expect([found.up, found.ready, found.receipts]).to.deep.equal([false, false, undefined]);
        expect(found.problem).to.be.a("string").and.not.equal("");
      });
    }
  });

  describe("given it is not ready", () => {
    it("says why, by the codes that it gives and nothing else of what it says", async () => {
      const reasons = ["chain/unavailable", "\u001b[31mred", "<b>", "node/stopping"];
      const { ready, problem } = await ask({ "/ready": () => json({ ready: false, reasons }, 503) });
      expect([ready, problem]).to.deep.equal([
        ...[false, "it says that it is not ready (HTTP 503, chain/unavailable, node/stopping)"],
      ]);
    });
  });

  describe("given it never stops talking, reading ends", () => {
    it("in /v1/info, after 8 MiB", async () => {
      const body = endless();
      const { up } = await ask({ "/v1/info": () => body.response() });
      expect([up, body.taken < 9 * 1024 * 1024, body.cancelled]).to.deep.equal([false, true, true]);
    });

    it("in /ready, at once", async () => {
      for (const status of [200, 503]) {
        const body = endless();
        await ask({ "/ready": () => body.response(status) });
        expect([body.taken < 256 * 1024, body.cancelled], String(status)).to.deep.equal([true, true]);
      }
    });

    it("in a page of receipts, after 8 MiB, and nothing of it counts", async () => {
      const body = endless();
      const { receipts } = await ask({ "/v1/receipts": () => body.response(200, '{"receipts":[') });
      expect([receipts, body.taken < 9 * 1024 * 1024]).to.deep.equal([undefined, true]);
    });

    it("in pages that lead on for ever, after 200 of them, which are said to be more", async () => {
      let next = 0;
      const pages = () => {
        next += 1;
        return page([], next);
      };
      const { receipts, problem, asked } = await ask({ "/v1/receipts": pages });
      expect([receipts, problem, asked.length]).to.deep.equal([[], "it has more receipts than 200 pages", 202]);
    });

    it("in pages that lead nowhere, at the first", async () => {
      const { receipts, problem, asked } = await ask({ "/v1/receipts": () => page([keys()], 1) });
      expect([receipts, problem, asked.length]).to.deep.equal([
        ...[undefined, "its pages of receipts lead nowhere", 4],
      ]);
    });

    it("in a page of more receipts than were asked for, none of which counts", async () => {
      const one = keys();
      const { receipts, problem } = await ask({ "/v1/receipts": () => page(Array.from({ length: 101 }, () => one)) });
      expect([receipts, problem]).to.deep.equal([undefined, "it shows more receipts than were asked for"]);
    });

    it("in pages that each take their time, after a minute", async () => {
      let [now, next] = [0, 0];
      const slow = () => {
        now += 9_000;
        next += 1;
        return page([], next);
      };
      const { receipts, problem, asked } = await ask({ "/v1/receipts": slow }, { now: () => now });
      expect([receipts, problem, asked.length]).to.deep.equal([
        ...[undefined, "it takes over 60 s to show its receipts", 9],
      ]);
    });
  });

  describe("over a real network", () => {
    /** Whether the target of a redirection was asked. */
    let reached = 0;
    let server: Awaited<ReturnType<typeof startServer>>;
    before(async () => {
      server = await startServer((request, response) => {
        const [, which, ...rest] = (request.url ?? "").split("/");
        const path = `/${rest.join("/")}`;
        if (which === "target") reached += 1;
        if (which === "redirects") response.writeHead(307, { location: `${server.url}/target${path}` }).end();
        else if (which === "hangs") return;
        else if (which === "drips" || (which === "ready-hangs" && path === "/ready")) {
          response.writeHead(which === "drips" ? 200 : 503);
          response.write("{");
        } else if (which === "silent-receipts" && path.startsWith("/v1/receipts")) response.writeHead(200).write("{");
        else response.end(JSON.stringify(path === "/v1/info" ? info() : { receipts: [] }));
      });
    });
    after(() => server.stop());
    const read = (which: string) => readNode(`${server.url}/${which}`, place({ timeoutMs: 300 }));

    it("follows no redirection", async () => {
      const { up } = await read("redirects");
      expect([up, reached]).to.deep.equal([false, 0]);
    });

    for (const which of ["hangs", "drips"]) {
      it(`waits no longer than it may for one that ${which}`, async () => {
        const started = performance.now();
        const { up, ready } = await read(which);
        expect([up, ready]).to.deep.equal([false, false]);
        expect(performance.now() - started).to.be.lessThan(30_000);
      });
    }

    it("takes silence about readiness for not ready, and silence about receipts for none shown", async () => {
      const hung = await read("ready-hangs");
      expect([hung.up, hung.ready]).to.deep.equal([true, false]);
      const silent = await read("silent-receipts");
      expect([silent.up, silent.receipts]).to.deep.equal([true, undefined]);
    });

    it("says of a port where nobody listens that nobody answers", async () => {
      const { up, problem } = await readNode("http://127.0.0.1:1", place());
      expect([up, typeof problem]).to.deep.equal([false, "string"]);
    });
  });
});
