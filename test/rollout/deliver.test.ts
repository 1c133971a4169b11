import { expect } from "chai";
import type { Trust } from "../../src/agent/receipt.ts";
import type { CommandResult } from "../../src/agent/system.ts";
import { buildReportData } from "../../src/core/binding.ts";
import { fromHex, type Hex } from "../../src/core/bytes.ts";
import { STANDARD_PURPOSES } from "../../src/core/key-bundle.ts";
import { type Delivery, deliverAll, judgeDeliveries } from "../../src/rollout/deliver.ts";
import type { Inputs, Machine } from "../../src/rollout/inputs.ts";
import { buildTdxQuote } from "../helpers/evidence.ts";
import { createFakeKernel } from "../helpers/fake-kernel.ts";
import { createFakeNode, FAKE_REGISTRY, type FakeAnswer, fakeKeys } from "../helpers/fake-node.ts";
import { APP_V1, APP_V2, inputs, SERVICE } from "../helpers/rollout.ts";
import { endless, startServer } from "../helpers/unruly.ts";

/* Delivery is proven by answers that were opened, by every node, to every version; nothing else proves it. */

const machine = (
  name: string,
  runs: "old" | "new",
  evidence: readonly string[] | null = ["/bin/evidence"],
): Machine => ({
  ...{ name, runs, updates: null, quote: null, start: null, stop: null },
  evidence: evidence === null ? null : [...evidence],
});
const NODE = { vsockProxy: null, stop: "stop", start: "start", restore: "restore" };
const rollout = (changes: Partial<Inputs> = {}): Inputs =>
  inputs({
    nodes: [{ ...NODE, name: "north", url: "http://north.test" }],
    machines: [machine("web-old", "old"), machine("web-new", "new")],
    ...changes,
  });

/** A program that makes a quote for what it is asked. */
const quoting = (_: readonly string[], stdin: Uint8Array): CommandResult => {
  const asked: Record<string, string> = JSON.parse(new TextDecoder().decode(stdin));
  const reportData = buildReportData({
    nonce: fromHex(`0x${asked.nonce}`, "nonce"),
    serviceId: `0x${asked.service_id}`,
    recipientPublicKey: fromHex(`0x${asked.public_key}`, "key"),
  });
  return { code: 0, stdout: buildTdxQuote({ reportData }), stderr: "" };
};

type Answers = (number: number) => FakeAnswer | Error;
/** Machines are asked in the plan's order: the old one first. */
const both: Answers = (number) => ({ release: { imageId: (number === 0 ? APP_V1 : APP_V2).image.id } });

async function tryIt(
  answers: Answers,
  options: {
    readonly given?: Inputs;
    readonly trust?: Partial<Trust>;
    readonly only?: "old" | "new";
    readonly run?: typeof quoting;
    readonly chainId?: bigint;
  } = {},
) {
  const { given = rollout(), chainId = 31337n } = options;
  const node = await createFakeNode(answers, chainId);
  const ran: (readonly string[])[] = [];
  const run = options.run ?? quoting;
  const system = createFakeKernel({
    run: (program, stdin) => {
      ran.push(program);
      return run(program, stdin);
    },
  });
  const trust: Trust = {
    ...{ chainId, registry: FAKE_REGISTRY, signers: async () => new Set([node.signer]) },
    ...options.trust,
  };
  const deliveries = await deliverAll(given, { trust, fetch: node.fetch, system, only: options.only });
  const { verdict, says } = judgeDeliveries(given, deliveries, options.only);
  return { deliveries, verdict, says, ran, results: deliveries.map(({ result }) => result), requests: node.requests };
}

describe("rollout: delivery tried for real", () => {
  it("is proven by one opened answer to each version, and says so in one sentence", async () => {
    const { verdict, says, results } = await tryIt(both);
    expect([verdict, results]).to.deep.equal(["proven", ["delivered", "delivered"]]);
    expect(says).to.deep.equal(["every node delivers the same keys to the new and the old version"]);
  });

  it("shows no part of a key, and nothing by which one run could be compared with another", async () => {
    const [first, again] = [await tryIt(both), await tryIt(both)];
    expect(first.deliveries[0]?.mark).to.match(/^[0-9a-f]{64}$/);
    expect(first.deliveries[0]?.mark).to.equal(first.deliveries[1]?.mark);
    expect(first.deliveries[0]?.mark).to.not.equal(again.deliveries[0]?.mark);
  });

  it("asks for the one version that is wanted", async () => {
    const { verdict, ran } = await tryIt(() => ({ release: { imageId: APP_V1.image.id } }), { only: "old" });
    expect([verdict, ran.length]).to.deep.equal(["proven", 1]);
  });

  describe("given nothing was asked, nothing is proven", () => {
    for (const [what, given] of [
      ["no machine has a program", rollout({ machines: [machine("web", "new", null)] })],
      ["there are no machines", rollout({ machines: [] })],
      ["there are no nodes", rollout({ nodes: [] })],
      ["there are neither", rollout({ nodes: [], machines: [], application: null })],
    ] as const) {
      it(`${what}`, async () => {
        const { verdict, ran } = await tryIt(both, { given });
        expect([verdict, ran]).to.deep.equal(["unknown", []]);
      });
    }

    it("one of the versions was not: it is named", async () => {
      const { verdict, says } = await tryIt(() => ({ release: { imageId: APP_V2.image.id } }), {
        given: rollout({ machines: [machine("web-new", "new")] }),
      });
      expect([verdict, says]).to.deep.equal(["unknown", ["no machine of the old version got keys from north"]]);
    });
  });

  describe("given an answer that is none, it is no delivery", () => {
    const refused: readonly (readonly [string, FakeAnswer, string])[] = [
      ["a denial", { problem: "release/denied", decision: "ImageUnknown" }, "agent/denied"],
      ["another image than the plan says", { release: { imageId: `0x${"99".repeat(32)}` } }, "receipt/mismatch"],
      ["another service", { release: { serviceId: `0x${"99".repeat(20)}` } }, "receipt/mismatch"],
      ["other evidence", { release: { evidenceHash: `0x${"99".repeat(32)}` } }, "receipt/mismatch"],
      ["a node that accepts test roots, unasked", { testTee: true }, "receipt/test-tee"],
      ["keys under another receipt", { aad: new Uint8Array(32) }, "seal/not-opened"],
      ["no keys at all", { bundle: { keys: [] } }, "agent/no-key"],
      [
        "keys of an earlier epoch alone",
        { bundle: { keys: fakeKeys(new Uint8Array(32)).filter(({ keyEpoch }) => keyEpoch < 2) } },
        "agent/no-key",
      ],
      [
        "one key of the standard ones missing",
        { bundle: { keys: fakeKeys(new Uint8Array(32)).filter(({ purpose }) => purpose !== STANDARD_PURPOSES[0]) } },
        "agent/no-key",
      ],
      ["what is not of the wire", { edit: (answer) => ({ ...answer, more: 1 }) }, "wire/malformed"],
    ];
    for (const [what, answer, code] of refused) {
      it(`${what}: ${code}`, async () => {
        const fitting = { ...answer, release: { imageId: APP_V1.image.id, ...answer.release } };
        const { verdict, deliveries } = await tryIt(() => fitting, { only: "old" });
        const [only] = deliveries;
        expect([verdict, only?.result, only?.code, only?.mark]).to.deep.equal(["refused", "refused", code, undefined]);
      });
    }

    it("an answer by a stranger", async () => {
      const { verdict, deliveries } = await tryIt(both, { trust: { signers: async () => new Set<Hex>() } });
      expect([verdict, deliveries[0]?.code]).to.deep.equal(["refused", "receipt/untrusted-signer"]);
    });
  });

  describe("given the outcome is unknown, it stays unknown", () => {
    const unknown: readonly (readonly [string, FakeAnswer | Error, string])[] = [
      ["a node that cannot be reached", new TypeError("fetch failed"), "agent/unreachable"],
      ["a chain that the node cannot read", { problem: "chain/unavailable", retryable: true }, "agent/refused"],
      ["too many requests", { problem: "request/too-many", retryable: true }, "agent/refused"],
    ];
    for (const [what, answer, code] of unknown) {
      it(`${what}, though another request was delivered`, async () => {
        const { verdict, results, deliveries } = await tryIt((number) => {
          if (number > 0) return { release: { imageId: APP_V2.image.id } };
          return answer;
        });
        expect([verdict, results, deliveries[0]?.code]).to.deep.equal(["unknown", ["unknown", "delivered"], code]);
      });
    }

    it("a denial that time alone may end is a refusal: the machine has no keys now", async () => {
      const answer: FakeAnswer = { problem: "release/denied", decision: "ImagePending", retryable: true };
      const { verdict, says } = await tryIt(() => answer, { only: "new" });
      expect(verdict).to.equal("refused");
      expect(says[0]).to.include("(ImagePending)");
    });

    for (const [what, run] of [
      ["fails", () => ({ code: 1, stdout: new Uint8Array(0), stderr: "no device" })],
      ["prints no evidence", () => ({ code: 0, stdout: new TextEncoder().encode("hello"), stderr: "" })],
      ["prints a quote for another request", () => ({ code: 0, stdout: buildTdxQuote(), stderr: "" })],
    ] as const) {
      it(`a program that ${what} says nothing about the node, which is asked for no keys`, async () => {
        const { verdict, results, requests } = await tryIt(both, { run });
        expect([verdict, results, requests.length]).to.deep.equal(["unknown", ["unknown", "unknown"], 0]);
      });
    }

    it("a machine that is denied outweighs one whose outcome is unknown", async () => {
      const { verdict } = await tryIt((number) =>
        number === 0 ? { problem: "release/denied", decision: "ImageRemoved" } : new TypeError("fetch failed"),
      );
      expect(verdict).to.equal("refused");
    });
  });

  it("refuses nodes with different roots, whoever got keys", () => {
    const one = (node: string, runs: "old" | "new", mark: string): Delivery => ({
      ...{ node, machine: `web-${runs}`, runs, result: "delivered", says: "", code: undefined, mark, testTee: false },
    });
    const given = rollout({ nodes: ["north", "south"].map((name) => ({ ...NODE, name, url: `http://${name}.test` })) });
    const all = ["north", "south"].flatMap((node) => (["old", "new"] as const).map((runs) => one(node, runs, "aa")));
    expect(judgeDeliveries(given, all).verdict).to.equal("proven");
    expect(judgeDeliveries(given, [...all.slice(0, 3), one("south", "new", "bb")]).verdict).to.equal("refused");
    expect(judgeDeliveries(given, all.slice(0, 3)).says).to.deep.equal([
      "no machine of the new version got keys from south",
    ]);
    // an answer that came twice stands for no other
    expect(judgeDeliveries(given, [...all.slice(0, 3), one("south", "old", "aa")]).verdict).to.equal("unknown");
  });

  it("is unknown where one machine's outcome is, though another of its version got keys everywhere", () => {
    const one = (machine: string, runs: "old" | "new", result: Delivery["result"]): Delivery => ({
      ...{ node: "north", machine, runs, result, says: "no answer", code: undefined, testTee: false },
      mark: result === "delivered" ? "aa" : undefined,
    });
    const all = [one("web-old", "old", "delivered"), one("web-new", "new", "delivered")];
    const { verdict, says } = judgeDeliveries(rollout(), [...all, one("web-more", "new", "unknown")]);
    expect([verdict, says]).to.deep.equal(["unknown", ["web-more at north: no answer"]]);
  });

  describe("given the node accepts test roots", () => {
    const answers: Answers = (number) => ({ ...both(number), testTee: true });

    it("is proven on a development chain where that is allowed, and says loudly what it rests on", async () => {
      const { verdict, says, deliveries } = await tryIt(answers, { trust: { allowTestTee: true } });
      expect([verdict, says.length, deliveries.map(({ testTee }) => testTee)]).to.deep.equal([
        "proven",
        2,
        [true, true],
      ]);
      expect(says[0]).to.match(/^TEST EVIDENCE: north /);
    });

    it("is refused on every other chain, allowed or not", async () => {
      const { verdict, deliveries } = await tryIt(answers, { trust: { allowTestTee: true }, chainId: 1n });
      expect([verdict, deliveries[0]?.code]).to.deep.equal(["refused", "receipt/test-tee"]);
    });
  });

  it("neither follows a redirection nor waits or reads for ever", async () => {
    let reached = 0;
    const server = await startServer((request, response) => {
      if (request.url?.startsWith("/target")) reached += 1;
      else if (request.url?.startsWith("/redirects")) response.writeHead(307, { location: "/target" }).end();
      else if (request.url?.startsWith("/drips")) response.writeHead(200).write("{");
    });
    const trust: Trust = { chainId: 31337n, registry: FAKE_REGISTRY, signers: async () => new Set() };
    const given = rollout({
      nodes: ["redirects", "drips", "hangs"].map((name) => ({ ...NODE, name, url: `${server.url}/${name}` })),
      machines: [machine("web-new", "new")],
    });
    const found = await deliverAll(given, { trust, timeoutMs: 300, system: createFakeKernel({ run: quoting }) });
    await server.stop();
    expect([found.map(({ code }) => code), reached]).to.deep.equal([Array(3).fill("agent/unreachable"), 0]);
    const body = endless();
    const [only] = await deliverAll(rollout({ machines: given.machines }), {
      ...{ trust, fetch: async () => body.response(), system: createFakeKernel({ run: quoting }) },
    });
    expect([only?.result, body.taken < 9 * 1024 * 1024]).to.deep.equal(["unknown", true]);
  });

  it("is asked for by this service", async () => {
    const { requests } = await tryIt(both);
    expect(new Set(requests.map(({ serviceId }) => serviceId))).to.deep.equal(new Set([SERVICE]));
  });
});
