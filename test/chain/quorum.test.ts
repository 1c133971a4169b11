import { expect } from "chai";
import { createEndpoint } from "../../src/chain/endpoint.ts";
import { createQuorum, type Quorum, type QuorumOptions } from "../../src/chain/quorum.ts";
import { isKeysteadError, type KeysteadError } from "../../src/core/errors.ts";
import { errorOf } from "../helpers/errors.ts";
import { BLOCK_SECONDS, type FakeChain, fakeChain, header } from "../helpers/headers.ts";

const NAMES = ["a", "b", "c", "d", "e"];
const MAX_AGE = 600;

interface Scene {
  readonly quorum: Quorum;
  readonly chains: readonly FakeChain[];
  readonly clock: { now: number };
}

/** A quorum over fake endpoints, with a clock two minutes after their finalized block. */
function scene(chains: readonly FakeChain[], changes: Partial<QuorumOptions> = {}): Scene {
  const clock = { now: 100 * BLOCK_SECONDS + 120 };
  const endpoints = chains.map((chain, at) =>
    createEndpoint(NAMES[at] ?? "", chain, { chainId: 1, attempts: 1 }, () => clock.now),
  );
  const required = Math.floor(chains.length / 2) + 1;
  const quorum = createQuorum({ endpoints, required, clock: () => clock.now, maxAgeSeconds: MAX_AGE, ...changes });
  return { quorum, chains, clock };
}

const three = (...changes: readonly Partial<FakeChain>[]): Scene =>
  scene([0, 1, 2].map((at) => fakeChain(changes[at] ?? {})));

async function failure(act: Promise<unknown>): Promise<KeysteadError> {
  const error = await act.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (isKeysteadError(error)) return error;
  throw error ?? new Error("nothing was thrown");
}
const agreedNames = async (quorum: Quorum) => (await quorum.finalized()).agreed.map(({ name }) => name);
const stateOf = (quorum: Quorum, name: string) =>
  quorum.endpoints.find((endpoint) => endpoint.name === name)?.health().state;
const unreachable = () => {
  throw new Error("connection refused");
};

describe("a quorum of endpoints", () => {
  describe("is refused", () => {
    for (const [required, count] of [
      [0, 0],
      [0, 1],
      [2, 1],
      [1, 2],
      [2, 4],
      [1.5, 2],
    ] as const) {
      it(`when ${required} of ${count} must agree`, () => {
        const chains = Array.from({ length: count }, () => fakeChain());
        expect(errorOf(() => scene(chains, { required })).code).to.equal("chain/bad-quorum");
      });
    }
    it("when two endpoints have one name", () => {
      const twin = createEndpoint("a", fakeChain(), {}, () => 0);
      expect(errorOf(() => scene([], { endpoints: [twin, twin], required: 2 })).code).to.equal("chain/bad-quorum");
    });
  });

  describe("given endpoints of one chain", () => {
    it("gives the finalized block, and who has it", async () => {
      const { quorum } = three();
      const { block } = await quorum.finalized();
      expect(block).to.include({ number: 100, hash: header(100, 1000).hash, timestamp: 1000, hashed: true });
      expect(await agreedNames(quorum)).to.deep.equal(["a", "b", "c"]);
    });
    it("when some are ahead, gives the newest block that enough call final", async () => {
      expect((await three({ finalized: 105 }, { finalized: 103 }).quorum.finalized()).block.number).to.equal(103);
    });
    it("when one is far behind, does without it", async () => {
      const { quorum } = three({}, {}, { finalized: 3, latest: 5 });
      expect((await quorum.finalized()).block.number).to.equal(100);
      expect(await agreedNames(quorum)).to.deep.equal(["a", "b"]);
    });
    it("when one is down, does without it and says so", async () => {
      const { quorum } = three({}, { change: unreachable });
      expect(await agreedNames(quorum)).to.deep.equal(["a", "c"]);
      const health = quorum.endpoints[1]?.health();
      expect(health).to.include({ state: "unreachable", lastError: "chain/unreachable", failures: 1 });
    });
    it("when one is down from the start, connects when it is back", async () => {
      const third = fakeChain();
      let up = false;
      const flaky = {
        ...third,
        request: (call: Parameters<FakeChain["request"]>[0]) => (up ? third.request(call) : unreachable()),
      };
      const { quorum, clock } = scene([fakeChain(), fakeChain(), flaky]);
      expect(await agreedNames(quorum)).to.deep.equal(["a", "b"]);
      expect(stateOf(quorum, "c")).to.equal("unreachable");
      up = true;
      clock.now += 1;
      expect(await agreedNames(quorum)).to.deep.equal(["a", "b", "c"]);
      expect(stateOf(quorum, "c")).to.equal("ok");
    });
  });

  describe("given a liar among three", () => {
    const lies: Readonly<Record<string, Partial<FakeChain>>> = {
      "has another block at that height": { forkAt: 100, branch: 1 },
      "has another block and is ahead": { forkAt: 99, branch: 1, finalized: 101, latest: 120 },
      "calls a block final that is not": { finalized: 110 },
      "names a height that nobody has": { finalized: 10 ** 9, latest: 10 ** 9 },
      "names another hash": { change: (answer) => ({ ...(answer as object), hash: `0x${"ab".repeat(32)}` }) },
      "alters the state root": { change: (answer) => ({ ...(answer as object), stateRoot: `0x${"ab".repeat(32)}` }) },
      "alters the time": { change: (answer) => ({ ...(answer as object), timestamp: "0x3e9" }) },
      "answers with another number": { change: () => header(90, 900) },
      "answers with no block": { change: () => null },
      "answers with rubbish": { change: () => "rubbish" },
      "is on another chain": { chainId: 5 },
    };
    for (const [what, lie] of Object.entries(lies)) {
      for (const place of [0, 1, 2]) {
        it(`when ${NAMES[place]} ${what}, gives the block of the other two`, async () => {
          const changes: Partial<FakeChain>[] = [{}, {}, {}];
          changes[place] = lie;
          const { block } = await three(...changes).quorum.finalized();
          expect(block.hash).to.equal(header(100, 1000).hash);
        });
      }
    }
    it("remembers that it disagreed", async () => {
      const { quorum } = three({}, {}, { forkAt: 100, branch: 1 });
      expect(await agreedNames(quorum)).to.deep.equal(["a", "b"]);
      expect(quorum.endpoints[2]?.health()).to.include({ state: "disagrees", lastError: "chain/disagreement" });
    });
    it("when two lie in the same way, believes them: that is what a quorum of two means", async () => {
      const fork = { forkAt: 100, branch: 1 };
      expect((await three({}, fork, fork).quorum.finalized()).block.hash).to.equal(header(100, 1000, 1).hash);
    });
  });

  describe("fails closed", () => {
    it("when too few answer", async () => {
      const { quorum } = three({ change: unreachable }, { change: unreachable });
      const error = await failure(quorum.finalized());
      expect(error).to.include({ code: "chain/unreachable", retryable: true });
      expect(error.details.errors).to.deep.equal({ a: "chain/unreachable", b: "chain/unreachable" });
    });
    it("when no two give the same block", async () => {
      const { quorum } = three({}, { forkAt: 90, branch: 1 }, { forkAt: 90, branch: 2 });
      expect(await failure(quorum.finalized())).to.include({ code: "chain/disagreement", retryable: true });
    });
    it("when the single endpoint's header does not hash to its hash", async () => {
      const { quorum } = scene([fakeChain({ change: (answer) => ({ ...(answer as object), gasUsed: "0x7" }) })]);
      const error = await failure(quorum.finalized());
      expect(error).to.include({ code: "chain/unreachable", retryable: true });
      expect(error.details.errors).to.deep.equal({ a: "proof/unknown-header" });
      expect(error.remedy).to.contain("another endpoint");
    });
    const later = { change: (answer: unknown) => ({ ...(answer as object), gasUsed: "0x7", futureField: "0x1" }) };
    it("when so many headers have an unknown field that the others make no quorum, and names the field", async () => {
      const error = await failure(three({}, later, later).quorum.finalized());
      expect(error).to.include({ code: "chain/unknown-header", retryable: false });
      expect(error.details.fields).to.deep.equal(["futureField"]);
    });
    it("when fewer have one than it takes to rule the others out, blames no fork", async () => {
      const garbled = { change: (answer: unknown) => ({ ...(answer as object), gasUsed: "0x7" }) };
      for (const other of [garbled, { change: unreachable }]) {
        const error = await failure(three({}, later, other).quorum.finalized());
        expect(error).to.include({ code: "chain/unreachable", retryable: true });
      }
    });
    it("when the block is older than the bound, to the second", async () => {
      const { quorum, clock } = three();
      clock.now = 1000 + MAX_AGE;
      await quorum.finalized();
      clock.now += 1;
      expect(await failure(quorum.finalized())).to.include({ code: "chain/stale", retryable: true });
    });
    it("when the block is ahead of the clock, to the second", async () => {
      const { quorum, clock } = three();
      clock.now = 1000 - 60;
      await quorum.finalized();
      clock.now -= 1;
      expect(await failure(quorum.finalized())).to.include({ code: "chain/future-block" });
    });
  });

  describe("never goes back", () => {
    it("when all name an older block, goes on with the newer one while it is young enough", async () => {
      const { quorum, chains, clock } = three();
      await quorum.finalized();
      for (const chain of chains) chain.finalized = 90;
      expect((await quorum.finalized()).block.number).to.equal(100);
      clock.now = 1000 + MAX_AGE + 1;
      expect(await failure(quorum.finalized())).to.include({ code: "chain/stale" });
    });
    it("when the block at that height is another one, ends for good", async () => {
      const { quorum, chains } = three();
      await quorum.finalized();
      for (const chain of chains) Object.assign(chain, { forkAt: 100, branch: 1 });
      expect(await failure(quorum.finalized())).to.include({ code: "chain/finality-reversed", retryable: false });
      for (const chain of chains) chain.branch = 0;
      expect(await failure(quorum.finalized())).to.include({ code: "chain/finality-reversed" });
    });
    it("when a newer block has another past, ends for good", async () => {
      const { quorum, chains } = three();
      await quorum.finalized();
      for (const chain of chains) Object.assign(chain, { forkAt: 100, branch: 1, finalized: 105 });
      expect(await failure(quorum.finalized())).to.include({ code: "chain/finality-reversed" });
    });
    it("when a newer block has another past at one endpoint alone, does without that one", async () => {
      const { quorum, chains } = three();
      await quorum.finalized();
      for (const chain of chains) chain.finalized = 105;
      const [first] = chains;
      if (first) {
        first.change = (answer, [tag]) => (tag === "0x64" ? header(100, 1000, 1) : answer);
      }
      expect(await agreedNames(quorum)).to.deep.equal(["b", "c"]);
    });
    it("given a block of an earlier run, takes nothing older and nothing else in its place", async () => {
      const at = (number: number, hash = header(number, number * BLOCK_SECONDS).hash) =>
        scene([fakeChain()], { floor: { number, hash } }).quorum.finalized();
      expect((await at(100)).block.number).to.equal(100);
      expect((await at(90)).block.number).to.equal(100);
      expect(await failure(at(101))).to.include({ code: "chain/stale" });
      expect(await failure(at(90, header(90, 900, 1).hash))).to.include({ code: "chain/finality-reversed" });
    });
  });

  describe("given an endpoint that fails", () => {
    it("leaves it alone for twice as long each time, and asks it again after that", async () => {
      const { quorum, chains, clock } = three({}, {}, { change: unreachable });
      const third = chains[2] as FakeChain;
      const asksAfter = async (seconds: number) => {
        clock.now += seconds;
        const before = third.asked;
        await quorum.finalized();
        return third.asked > before;
      };
      expect(await asksAfter(0)).to.equal(true);
      expect(await asksAfter(0)).to.equal(false);
      expect(await asksAfter(1)).to.equal(true);
      expect(await asksAfter(1)).to.equal(false);
      expect(await asksAfter(1)).to.equal(true);
      third.change = (answer) => answer;
      expect(await asksAfter(4)).to.equal(true);
      expect(await asksAfter(0)).to.equal(true);
      expect(stateOf(quorum, "c")).to.equal("ok");
    });
    it("asks it all the same when the others disagree", async () => {
      const { quorum, chains } = three({}, { forkAt: 90, branch: 1 }, { change: unreachable });
      await failure(quorum.finalized());
      const third = chains[2] as FakeChain;
      third.change = (answer) => answer;
      expect(await agreedNames(quorum)).to.deep.equal(["a", "c"]);
    });
    it("asks it all the same when there are too few others", async () => {
      const { quorum, chains } = three({}, { change: unreachable }, { change: unreachable });
      await failure(quorum.finalized());
      for (const chain of chains) chain.change = (answer) => answer;
      expect((await quorum.finalized()).block.number).to.equal(100);
    });
  });

  describe("asked for the head", () => {
    const headOf = async ({ quorum }: Scene) => {
      const { block } = await quorum.finalized();
      return (await quorum.head(block))?.block.number;
    };
    it("gives the newest block that enough have", async () => {
      expect(await headOf(three({ latest: 115 }, { latest: 112 }))).to.equal(112);
    });
    it("gives none when there is none newer", async () => {
      expect(await headOf(three({ latest: 100 }, { latest: 100 }))).to.equal(undefined);
    });
    it("gives none when no two agree, and none when too few answer", async () => {
      const branches = { forkAt: 101 };
      expect(await headOf(three({}, { ...branches, branch: 1 }, { ...branches, branch: 2 }))).to.equal(undefined);
      const late: FakeChain["change"] = (answer, [tag]) => (tag === "latest" ? unreachable() : answer);
      expect(await headOf(three({}, { change: late }, { change: late }))).to.equal(undefined);
    });
    it("when one endpoint invents a head, gives that of the others", async () => {
      expect(await headOf(three({ forkAt: 101, branch: 1, latest: 10 ** 6 }))).to.equal(110);
    });
  });
});
