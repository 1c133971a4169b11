import { expect } from "chai";
import { fetchBlock } from "../../src/chain/block.ts";
import { connect } from "../../src/chain/client.ts";
import { fetchLogsIn, locateLogs, scanLogs, walkLogs } from "../../src/chain/logs.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import { type Chain, startChain } from "../deploy/chains.ts";
import { liar } from "../helpers/liar.ts";
import { type Story, tellStory } from "../helpers/story.ts";
import { deploySuite } from "../helpers/suite.ts";

describe("logs", () => {
  let chain: Chain;
  let story: Story;
  let newest: number;

  before(async () => {
    chain = await startChain("hardhat");
    story = await tellStory(await deploySuite(chain.connection));
    newest = story.moments.at(-1) ?? 0;
  });
  after(() => chain?.stop());

  /** An endpoint that refuses ranges of more than `most` blocks in a common service's words. */
  const capped = (most: number, refusal: { code: number; message: string }) => {
    const endpoint = liar(chain.connection.provider, (method, answer, params) => {
      const { fromBlock, toBlock } = (params[0] ?? {}) as { fromBlock?: string; toBlock?: string };
      if (method === "eth_getLogs" && Number(toBlock) - Number(fromBlock) + 1 > most) throw refusal;
      return answer;
    });
    return endpoint;
  };

  for (const refusal of [
    { code: -32005, message: "query returned more than 10000 results" },
    { code: -32602, message: "You can make eth_getLogs requests with up to a 10 block range." },
    { code: -32600, message: "exceed maximum block range: 5000" },
    { code: -32000, message: "query timed out" },
  ]) {
    it(`scanned in chunks that adapt are the same (${refusal.message})`, async () => {
      const whole = await scanLogs(await connect(chain.connection.provider), { address: story.registry }, 0, newest);
      const endpoint = capped(7, refusal);
      const steps: number[] = [];
      const parts = await scanLogs(await connect(endpoint), { address: story.registry }, 0, newest, {
        onProgress: ({ block }) => steps.push(block),
      });
      expect(parts).to.deep.equal(whole);
      expect(whole.length).to.be.greaterThan(20);
      expect(steps.at(-1)).to.equal(newest);
      expect(steps).to.deep.equal([...steps].sort((a, b) => a - b));
    });
  }

  it("of a single block that is too much are an error, not an endless loop", async () => {
    const client = await connect(capped(0, { code: -32005, message: "too many results" }));
    const failure = await scanLogs(client, { address: story.registry }, 0, newest).catch((error: unknown) => error);
    expect(isKeysteadError(failure, "chain/too-much")).to.equal(true);
  });

  it("that another failure interrupts are an error, not fewer logs", async () => {
    const client = await connect(capped(0, { code: -32603, message: "internal error" }), { backoff: 1 });
    const failure = await scanLogs(client, { address: story.registry }, 0, newest).catch((error: unknown) => error);
    expect(isKeysteadError(failure, "chain/unreachable") && failure.message).to.contain("internal error");
  });

  it("answered with no list are an error", async () => {
    const endpoint = liar(chain.connection.provider, (method, answer) => (method === "eth_getLogs" ? {} : answer));
    const failure = await scanLogs(await connect(endpoint), { address: story.registry }, 0, 1).catch((e: unknown) => e);
    expect(isKeysteadError(failure, "log/malformed")).to.equal(true);
  });

  it("of another block than asked for are a reorganisation", async () => {
    const endpoint = liar(chain.connection.provider, (method, answer) =>
      method === "eth_getLogs"
        ? (answer as object[]).map((log) => ({ ...log, blockHash: `0x${"4e".repeat(32)}` }))
        : answer,
    );
    const client = await connect(endpoint);
    const logs = await scanLogs(client, { address: story.registry }, 0, newest);
    const block = await fetchBlock(client, logs.at(-1)?.blockNumber ?? 0);
    for (const act of [() => fetchLogsIn(client, block, { address: story.registry }), () => locateLogs(client, logs)]) {
      const failure = await act().catch((error: unknown) => error);
      expect(isKeysteadError(failure, "chain/reorg") && failure.retryable).to.equal(true);
    }
  });

  it("walked by pointers that do not lead back end", async () => {
    const client = await connect(chain.connection.provider);
    const last = (await scanLogs(client, { address: story.policy }, 0, newest)).at(-1)?.blockNumber ?? 0;
    for (const lead of [0, 1, 10_000]) {
      const found = await walkLogs(client, { address: story.policy }, last, 1_000, (log) => log.blockNumber + lead);
      expect(found.map(({ block }) => block.number)).to.deep.equal([last]);
    }
  });

  it("walked beyond the number that there can be end", async () => {
    const client = await connect(chain.connection.provider);
    const found = await walkLogs(client, { address: story.policy }, newest, 2, (log) => log.blockNumber - 1);
    expect(found.length).to.be.lessThan(4);
  });

  it("of a block that the endpoint answers with another one are an error", async () => {
    const endpoint = liar(chain.connection.provider, (method, answer) =>
      method === "eth_getBlockByNumber" ? { ...(answer as object), number: "0x1" } : answer,
    );
    const failure = await fetchBlock(await connect(endpoint), 5).catch((error: unknown) => error);
    expect(isKeysteadError(failure, "chain/wrong-block")).to.equal(true);
  });

  it("of a block that is not there are an error that says to try again", async () => {
    const failure = await fetchBlock(await connect(chain.connection.provider), 1_000_000).catch((e: unknown) => e);
    expect(isKeysteadError(failure, "chain/no-block") && failure.retryable).to.equal(true);
  });
});

describe("a scan of an endpoint that caps ranges", () => {
  const LENGTH = 200_000;
  const HASH = `0x${"b1".repeat(32)}`;
  /** An endpoint without logs that takes ranges of at most `most` blocks; it says no in words that nobody knows. */
  const capping = (most: (from: number) => number) => {
    const ranges: (readonly [from: number, size: number])[] = [];
    let refused = 0;
    const request = async ({ method, params }: { method: string; params?: readonly unknown[] }) => {
      if (method === "eth_chainId") return "0x1";
      const [first] = params ?? [];
      if (method === "eth_getBlockByNumber") return { number: first, hash: HASH, stateRoot: HASH, timestamp: "0x1" };
      const { fromBlock, toBlock, blockHash } = first as Readonly<Record<string, string>>;
      if (blockHash !== undefined) return [];
      const size = Number(toBlock) - Number(fromBlock) + 1;
      if (size > most(Number(fromBlock))) {
        refused += 1;
        throw { code: -32042, message: "nope" };
      }
      ranges.push([Number(fromBlock), size]);
      return [];
    };
    return { request, ranges, refused: () => refused };
  };
  const scanned = async (most: (from: number) => number) => {
    const endpoint = capping(most);
    const client = await connect(endpoint);
    await scanLogs(client, { address: `0x${"aa".repeat(20)}` }, 0, LENGTH - 1);
    // in order and without a gap, and the end once more
    const [tail, ...rest] = endpoint.ranges.toReversed();
    let next = 0;
    for (const [from, size] of rest.toReversed()) {
      expect(from).to.equal(next);
      next += size;
    }
    expect([next, (tail?.[0] ?? 0) + (tail?.[1] ?? 0)]).to.deep.equal([LENGTH, LENGTH]);
    return { answered: rest.length, refused: endpoint.refused(), calls: client.calls() };
  };

  // docs/decisions/0021 gives these figures
  for (const [cap, answered, refused] of [
    [10_000, 20, 4],
    [500, 428, 10],
    [10, 20_001, 35],
  ] as const) {
    it(`of ${cap} blocks costs few questions more than there are ranges`, async () => {
      const cost = await scanned(() => cap);
      expect([cost.answered, cost.refused]).to.deep.equal([answered, refused]);
    });
  }

  it("of one block comes to an end", async () => {
    const endpoint = capping(() => 1);
    await scanLogs(await connect(endpoint), { address: `0x${"aa".repeat(20)}` }, 0, 99);
    expect(endpoint.ranges.length).to.be.at.least(100);
  });

  it("where there is no cap takes ever larger ranges", async () => {
    const { answered, refused } = await scanned(() => LENGTH);
    expect([answered, refused]).to.deep.equal([5, 0]);
  });

  it("goes smaller where it must, and larger again where it may", async () => {
    const { answered } = await scanned((from) => (from > 50_000 && from < 60_000 ? 100 : 20_000));
    expect(answered).to.be.lessThan(180);
  });

  it("finds out once, for all scans through one client", async () => {
    const endpoint = capping(() => 500);
    const client = await connect(endpoint);
    for (let scan = 0; scan < 4; scan++) await scanLogs(client, { address: `0x${"aa".repeat(20)}` }, 0, 2_000);
    expect(endpoint.refused()).to.be.at.most(12);
  });
});
