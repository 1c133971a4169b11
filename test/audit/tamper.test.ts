import { expect } from "chai";
import { auditSuite } from "../../src/audit/all.ts";
import { auditPolicy } from "../../src/audit/policy.ts";
import type { AuditFault } from "../../src/audit/result.ts";
import { auditService } from "../../src/audit/walk.ts";
import { connect } from "../../src/chain/client.ts";
import { policySlots } from "../../src/chain/slots.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import { topicOf } from "../../src/core/events.ts";
import { type Chain, startChain } from "../deploy/chains.ts";
import { type Liar, liar } from "../helpers/liar.ts";
import { type Story, tellStory } from "../helpers/story.ts";
import { deploySuite } from "../helpers/suite.ts";

interface JsonLog {
  address: string;
  topics: string[];
  data: string;
  blockNumber: string;
  logIndex: string;
}
type Lie = Parameters<typeof liar>[1];

/** Changes the list of logs that `eth_getLogs` answers with, where it is long enough to. */
const onLogs =
  (change: (logs: JsonLog[]) => JsonLog[]): Lie =>
  (method, answer) =>
    method === "eth_getLogs" ? change(answer as JsonLog[]) : answer;

/** Changes single logs, and the same ones in every answer: what the first long list has at a place. */
const stubborn = (edit: (log: JsonLog, at: number, all: readonly JsonLog[]) => JsonLog[]): Lie => {
  const placeOf = ({ blockNumber, logIndex }: JsonLog) => `${blockNumber}/${logIndex}`;
  let edits: ReadonlyMap<string, JsonLog[]> | undefined;
  return onLogs((logs) => {
    if (logs.length > 8) edits ??= new Map(logs.map((log, at) => [placeOf(log), edit(log, at, logs)]));
    return logs.flatMap((log) => edits?.get(placeOf(log)) ?? [log]);
  });
};
/** Two logs of one block: where the first of them is in a list. */
const pairIn = (logs: readonly JsonLog[]) => logs.findIndex((log, at) => log.blockNumber === logs[at + 1]?.blockNumber);

const noProofs: Lie = (method, answer) => {
  if (method === "eth_getProof") throw { code: -32601, message: "the method eth_getProof does not exist" };
  return answer;
};

const both =
  (first: Lie, second: Lie): Lie =>
  (method, answer, params) =>
    second?.(method, first?.(method, answer, params), params);

describe("audit of a lying endpoint", () => {
  let chain: Chain;
  let story: Story;

  before(async () => {
    chain = await startChain("hardhat");
    story = await tellStory(await deploySuite(chain.connection));
  });
  after(() => chain?.stop());

  const scan = async (lie: Lie) => {
    const client = await connect(liar(chain.connection.provider, lie), { backoff: 1 });
    return auditService(client, story.registry, story.upgradeable, { fromBlock: 0 });
  };
  const codes = (faults: readonly AuditFault[]) => [...new Set(faults.map(({ code }) => code))];

  const cases: readonly [what: string, lie: Lie, expected: readonly AuditFault["code"][]][] = [
    ["drops the first log", onLogs((logs) => logs.slice(1)), ["dropped"]],
    ["drops a log in the middle", stubborn((log, at) => (at === 4 ? [] : [log])), ["dropped"]],
    ["drops the last log", stubborn((log, at, all) => (at === all.length - 1 ? [] : [log])), ["dropped"]],
    ["drops all logs", onLogs(() => []), ["dropped"]],
    [
      "gives two logs each other's places",
      stubborn((log, at, all) => {
        const other = all[at === pairIn(all) ? at + 1 : at - 1];
        const isOne = at === pairIn(all) || at === pairIn(all) + 1;
        return [isOne && other !== undefined ? { ...log, logIndex: other.logIndex } : log];
      }),
      ["reordered"],
    ],
    [
      "repeats a log at another place",
      stubborn((log, at) => (at === 4 ? [log, { ...log, logIndex: "0x3e7" }] : [log])),
      ["duplicated"],
    ],
    [
      "puts one log in another's place",
      stubborn((log, at, all) => [
        at === 5 ? { ...log, topics: all[4]?.topics ?? [], data: all[4]?.data ?? "0x" } : log,
      ]),
      ["duplicated", "dropped"],
    ],
    [
      "edits a log's actor",
      stubborn((log, at) => [
        at === 6 ? { ...log, topics: log.topics.with(2, `0x${"0".repeat(24)}${"ab".repeat(20)}`) } : log,
      ]),
      ["edited"],
    ],
    [
      "edits a description, keeping it well-formed",
      onLogs((logs) => logs.map((log) => ({ ...log, data: log.data.replace("6669727374", "6c61737421") }))),
      ["edited"],
    ],
    [
      "edits an image's register",
      stubborn((log, at) => [
        at === 3 ? { ...log, data: log.data.replace(/01010000001f..../, "01010000001f0000") } : log,
      ]),
      ["edited"],
    ],
    [
      "cuts a log's data short",
      onLogs((logs) => logs.map((log) => ({ ...log, data: log.data.slice(0, -64) }))),
      ["edited", "dropped"],
    ],
    [
      "slips in another contract's log",
      stubborn((log, at) => [at === 2 ? { ...log, address: `0x${"be".repeat(20)}` } : log]),
      ["foreign-address", "dropped"],
    ],
    [
      "slips in another service's log",
      stubborn((log, at) => [
        at === 2 ? { ...log, topics: log.topics.with(1, `0x${"be".repeat(20)}${"0".repeat(24)}`) } : log,
      ]),
      ["foreign-service", "dropped"],
    ],
  ];
  for (const [what, lie, expected] of cases) {
    it(`that ${what} is broken`, async () => {
      const audit = await scan(lie);
      expect(audit.verdict).to.equal("broken");
      expect(codes(audit.faults)).to.deep.equal(expected);
      expect(audit.entries, "nothing unverified is shown").to.deep.equal([]);
      expect(audit.state).to.equal(undefined);
    });
  }

  for (const [what, lie] of [
    ["gives its logs in another order", onLogs((logs) => logs.toReversed())],
    ["gives a log twice", onLogs((logs) => logs.flatMap((log, at) => (at % 3 === 0 ? [log, log] : [log])))],
    ["answers null where there are no logs", onLogs((logs) => (logs.length === 0 ? (null as never) : logs))],
  ] as const) {
    it(`that ${what} is no liar`, async () => expect((await scan(lie)).verdict).to.equal("proven"));
  }

  it("that leaves out the newest logs at first, as a node that is behind does, is asked again", async () => {
    for (const fromBlock of [0, undefined]) {
      let asked = 0;
      const behind = onLogs((logs) => (asked++ < 2 ? logs.slice(0, -1) : logs));
      const client = await connect(liar(chain.connection.provider, behind), { backoff: 1 });
      const audit = await auditService(client, story.registry, story.upgradeable, { fromBlock });
      expect(audit.verdict).to.equal("proven");
      expect(asked).to.be.greaterThan(2);
    }
  });

  it("that edits a log and offers no proofs is broken, and either may be wrong", async () => {
    const edit = onLogs((logs) => logs.map((log) => ({ ...log, data: log.data.replace("6669727374", "6c61737421") })));
    const audit = await scan(both(noProofs, edit));
    expect(audit.verdict).to.equal("broken");
    expect(codes(audit.faults)).to.deep.equal(["head-mismatch"]);
  });

  it("that is honest and offers no proofs is consistent but unproven, and says why", async () => {
    const audit = await scan(noProofs);
    expect(audit.verdict).to.equal("consistent");
    expect(audit.basis).to.equal("view");
    expect(audit.reasons.map(({ code }) => code)).to.deep.equal(["no-storage-proof"]);
  });

  it("whose header does not hash to its hash is consistent but unproven, and says why", async () => {
    const audit = await scan((method, answer) =>
      method === "eth_getBlockByNumber" ? { ...(answer as object), gasUsed: "0x1" } : answer,
    );
    expect(audit.verdict).to.equal("consistent");
    expect(audit.reasons.map(({ code }) => code)).to.deep.equal(["unknown-header"]);
  });

  it("that gives another state root is never proven", async () => {
    const audit = await scan((method, answer) =>
      method === "eth_getBlockByNumber" ? { ...(answer as object), stateRoot: `0x${"77".repeat(32)}` } : answer,
    );
    expect(audit.verdict).to.equal("consistent");
  });

  for (const [what, change] of [
    ["with an edited node", (text: string) => text.replace(/"0xf9(.{100})../, '"0xf9$100')],
    ["for another account", (text: string) => text.replaceAll(/"accountProof":\[[^\]]*\]/g, '"accountProof":[]')],
    ["without storage", (text: string) => text.replaceAll(/"proof":\[[^\]]*\]/g, '"proof":[]')],
  ] as const) {
    it(`that hands out a proof ${what} is broken`, async () => {
      const audit = await scan((method, answer) => {
        if (method !== "eth_getProof") return answer;
        const changed = change(JSON.stringify(answer));
        expect(changed).not.to.equal(JSON.stringify(answer));
        return JSON.parse(changed);
      });
      expect(audit.verdict).to.equal("broken");
      expect(codes(audit.faults)).to.include("false-proof");
    });
  }

  it("that lies about the head in a view is broken: the views are compared with what is proven", async () => {
    const audit = await scan((method, answer, params) => {
      const { to, data } = (params[0] ?? {}) as { to?: string; data?: string };
      if (method !== "eth_call" || to !== story.registry || String(answer).length < 900) return answer;
      expect(data).to.match(/^0x/);
      return `${String(answer).slice(0, -2)}${String(answer).endsWith("00") ? "01" : "00"}`;
    });
    expect(audit.verdict).to.equal("broken");
    expect(codes(audit.faults)).to.deep.equal(["state-differs"]);
    expect(audit.differences.map(({ what }) => what)).to.deep.equal(["service.historyHead"]);
  });

  it("that lies about the head and offers no proofs is broken", async () => {
    const audit = await scan(
      both(noProofs, (method, answer) =>
        method === "eth_call" && String(answer).length > 900 ? `${String(answer).slice(0, -2)}ee` : answer,
      ),
    );
    expect(audit.verdict).to.equal("broken");
    expect(codes(audit.faults)).to.deep.equal(["head-mismatch"]);
  });

  it("that lies about an image in a view is broken", async () => {
    const audit = await scan((method, answer) =>
      method === "eth_call" && String(answer).length === 2 + 6 * 64
        ? `0x${"0".repeat(63)}1${String(answer).slice(66)}`
        : answer,
    );
    expect(audit.verdict).to.equal("broken");
    expect(audit.differences.every(({ what }) => what.endsWith(".activeFrom"))).to.equal(true);
  });

  it("that moves an event to another block is not proven: the history names its blocks", async () => {
    const last = Number(await chain.connection.provider.request({ method: "eth_blockNumber" }));
    const block = (await chain.connection.provider.request({
      method: "eth_getBlockByNumber",
      params: [`0x${last.toString(16)}`, false],
    })) as { hash: string };
    const audit = await scan(
      onLogs((logs) =>
        logs.map((log, at) =>
          at === logs.length - 1 ? { ...log, blockNumber: `0x${last.toString(16)}`, blockHash: block.hash } : log,
        ),
      ),
    );
    expect(audit.verdict).to.equal("broken");
    expect(audit.differences.map(({ what }) => what)).to.deep.equal(["service.lastUpdateBlock"]);
  });

  it("that drops a policy log is broken, walked or scanned", async () => {
    for (const fromBlock of [0, undefined]) {
      const lie = onLogs((logs) => logs.filter((log) => Number(log.blockNumber) % 3 !== 0));
      const client = await connect(liar(chain.connection.provider, lie));
      const audit = await auditPolicy(client, story.policy, { fromBlock });
      expect(audit.verdict).to.equal("broken");
      expect(codes(audit.faults)).to.deep.equal(["dropped"]);
    }
  });

  it("that drops a service's log makes the whole suite broken", async () => {
    const created = topicOf("create_service");
    const isDropped = ({ topics }: JsonLog) => topics[0] === created && topics[1]?.slice(0, 42) === story.quiet;
    const lie = onLogs((logs) => logs.filter((log) => !isDropped(log)));
    const suite = await auditSuite(await connect(liar(chain.connection.provider, lie)), { ...story, fromBlock: 0 });
    expect(suite.verdict).to.equal("broken");
    expect(suite.services.map(({ verdict }) => verdict)).to.deep.equal(["proven", "proven", "broken"]);
  });

  it("that invents a service is broken", async () => {
    const lie = onLogs((logs) =>
      logs.map((log) => ({
        ...log,
        topics: log.topics.map((topic) => topic.replace(story.quiet, `0x${"be".repeat(20)}`)),
      })),
    );
    const suite = await auditSuite(await connect(liar(chain.connection.provider, lie)), { ...story, fromBlock: 0 });
    expect(suite.services.map(({ verdict }) => verdict)).to.deep.equal(["proven", "proven", "broken"]);
  });

  it("whose state was changed beside the history is broken", async () => {
    const twin = await startChain("hardhat");
    const told = await tellStory(await deploySuite(twin.connection));
    const gate = BigInt(policySlots().head) - 1n;
    const word = `0x${(0xfn << 48n).toString(16).padStart(64, "0")}`;
    const params = [told.policy, `0x${gate.toString(16)}`, word];
    await twin.connection.provider.request({ method: "hardhat_setStorageAt", params });
    await twin.connection.provider.request({ method: "evm_mine", params: [] });
    const audit = await auditPolicy(await connect(twin.connection.provider), told.policy);
    expect(audit.verdict).to.equal("broken");
    expect(codes(audit.faults)).to.deep.equal(["state-differs"]);
    await twin.stop();
  });

  describe("whose chain is reorganised while it is read", () => {
    /** Reports another hash for every block, from the `after`-th call on and for `during` calls. */
    const reorganise =
      (after: number, during: number): Lie =>
      (method, answer) => {
        if (method !== "eth_getBlockByNumber" || answer === null) return answer;
        calls += 1;
        const moved = calls > after && calls <= after + during;
        return moved ? { ...(answer as object), hash: `0x${"4e".repeat(32)}` } : answer;
      };
    let calls = 0;
    beforeEach(() => {
      calls = 0;
    });

    for (const after of [1, 5, 9]) {
      it(`is read again when the chain settles (moved after ${after} headers)`, async () => {
        const endpoint: Liar = liar(chain.connection.provider, reorganise(after, 2));
        const audit = await auditService(await connect(endpoint), story.registry, story.upgradeable, { fromBlock: 0 });
        expect(audit.verdict).to.equal("proven");
        expect(calls).to.be.greaterThan(20);
      });
    }

    it("is read again when nothing but the block at which it is read was replaced, at the very end", async () => {
      const at = story.moments.at(-1) ?? 0;
      const tag = `0x${at.toString(16)}`;
      let looks = 0;
      const endpoint = liar(chain.connection.provider, (method, answer, params) => {
        if (method !== "eth_getBlockByNumber" || params[0] !== tag || ++looks !== 3) return answer;
        return { ...(answer as object), hash: `0x${"4e".repeat(32)}` };
      });
      const client = await connect(endpoint);
      const audit = await auditService(client, story.registry, story.upgradeable, { at, fromBlock: 0 });
      // each reading: at first, at the end of its scan, and at the very end
      expect([audit.verdict, looks]).to.deep.equal(["proven", 6]);
    });

    it("is an error that says to try again when it never settles, and no verdict", async () => {
      const client = await connect(liar(chain.connection.provider, reorganise(5, 1_000_000)));
      const failure = await auditService(client, story.registry, story.upgradeable, { fromBlock: 0 }).catch(
        (e: unknown) => e,
      );
      expect(isKeysteadError(failure, "chain/reorg") && failure.retryable).to.equal(true);
    });

    it("is read again when the log's block is no longer the one at its height", async () => {
      let told = 0;
      const lie = onLogs((logs) =>
        told++ === 0 ? logs.map((log) => ({ ...log, blockHash: `0x${"4e".repeat(32)}` })) : logs,
      );
      expect((await scan(lie)).verdict).to.equal("proven");
      expect(told).to.be.greaterThan(1);
    });
  });

  it("that slips once, in a proof or in a view, is asked again", async () => {
    const slipped = new Set<string>();
    const audit = await scan((method, answer) => {
      if (slipped.has(method) || (method !== "eth_getProof" && method !== "eth_call")) return answer;
      slipped.add(method);
      return method === "eth_call" ? `0x${"00".repeat(18 * 32)}` : { accountProof: [], storageProof: [] };
    });
    expect([audit.verdict, [...slipped]]).to.deep.equal(["proven", ["eth_getProof", "eth_call"]]);
  });

  it("that refuses a block's logs because the block is gone is read again", async () => {
    let refused = 0;
    let moved = 0;
    const endpoint = liar(chain.connection.provider, (method, answer) => {
      if (method === "eth_getLogs" && refused++ < 4) throw { code: -32000, message: "unknown block" };
      const isMoved = method === "eth_getBlockByNumber" && refused === 4 && moved++ === 0;
      return isMoved ? { ...(answer as object), hash: `0x${"4e".repeat(32)}` } : answer;
    });
    const client = await connect(endpoint, { backoff: 1 });
    const audit = await auditService(client, story.registry, story.upgradeable);
    expect(audit.verdict).to.equal("proven");
    expect(moved).to.be.greaterThan(0);
  });

  it("that refuses a block's logs although the block is there is an error, and no verdict", async () => {
    const endpoint = liar(chain.connection.provider, (method, answer) => {
      if (method === "eth_getLogs") throw { code: -32000, message: "unknown block" };
      return answer;
    });
    const reading = auditService(await connect(endpoint, { backoff: 1 }), story.registry, story.upgradeable);
    const failure = await reading.catch((error: unknown) => error);
    expect(isKeysteadError(failure, "chain/no-block") && failure.retryable).to.equal(true);
  });

  describe("beside witnesses", () => {
    it("that agree is proven", async () => {
      const client = await connect(chain.connection.provider);
      const witnesses = [await connect(chain.connection.provider)];
      expect((await auditPolicy(client, story.policy, { witnesses })).verdict).to.equal("proven");
    });
    it("that have another block is an error, and no verdict", async () => {
      const twin = await startChain("hardhat");
      await tellStory(await deploySuite(twin.connection));
      const client = await connect(chain.connection.provider);
      const witnesses = [await connect(twin.connection.provider)];
      const failure = await auditPolicy(client, story.policy, { at: story.moments[0], witnesses }).catch(
        (e: unknown) => e,
      );
      expect(isKeysteadError(failure, "chain/disagreement") && failure.retryable).to.equal(true);
      await twin.stop();
    });
    it("of another chain is an error", async () => {
      const client = await connect(chain.connection.provider);
      const other = await connect(
        liar(chain.connection.provider, (method, answer) => (method === "eth_chainId" ? "0x1" : answer)),
      );
      const failure = await auditPolicy(client, story.policy, { witnesses: [other] }).catch((e: unknown) => e);
      expect(isKeysteadError(failure, "chain/wrong-chain")).to.equal(true);
    });
  });

  it("given what is no service or no address is an error that names the argument", async () => {
    const client = await connect(chain.connection.provider);
    const nobody: Hex = `0x${"0b".repeat(20)}`;
    for (const [act, code, argument] of [
      [() => auditService(client, story.registry, nobody), "audit/no-service", "serviceId"],
      [() => auditService(client, "0x12", nobody), "audit/bad-address", "registry"],
      [() => auditService(client, story.registry, "0x"), "audit/bad-address", "serviceId"],
      [() => auditSuite(client, { ...story, policy: "0x1", fromBlock: 0 }), "audit/bad-address", "policy"],
    ] as const) {
      const failure = await act().catch((error: unknown) => error);
      expect(isKeysteadError(failure, code) && failure.argument).to.equal(argument);
    }
  });

  it("given an account that is not the registry is never proven", async () => {
    const client = await connect(chain.connection.provider);
    for (const registry of [`0x${"0b".repeat(20)}`, story.policy] as const) {
      const outcome = await auditSuite(client, { ...story, registry, fromBlock: 0 }).catch((error: unknown) => error);
      expect(isKeysteadError(outcome) ? "refused" : (outcome as { verdict: string }).verdict).not.to.equal("proven");
    }
  });

  it("when walked, calls grow with the service's events and not with the chain", async () => {
    const cost = async (id: Hex) => {
      const endpoint = liar(chain.connection.provider);
      const audit = await auditService(await connect(endpoint), story.registry, id);
      expect(audit.verdict).to.equal("proven");
      return {
        calls: [...endpoint.counts.values()].reduce((a, b) => a + b),
        blocks: new Set(audit.entries.map(({ log }) => log.blockNumber)).size,
      };
    };
    const quiet = await cost(story.quiet);
    const before = await cost(story.upgradeable);
    await chain.connection.provider.request({ method: "hardhat_mine", params: ["0x2710"] });
    expect(await cost(story.quiet)).to.deep.equal(quiet);
    expect(await cost(story.upgradeable)).to.deep.equal(before);
    // chain id, first and last look at the block, the proof, the service's view; two a block; one an image and a device
    expect(quiet.calls).to.equal(5 + 2 * quiet.blocks + 2 + 1);
    expect(before.calls).to.equal(5 + 2 * before.blocks + 4 + 3);
  });
});
