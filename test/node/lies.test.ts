import { expect } from "chai";
import type { Eip1193Provider } from "../../src/chain/client.ts";
import { REGISTRY } from "../../src/chain/reads.ts";
import { IMPLEMENTATION_SLOT } from "../../src/chain/slots.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import type { ReleaseDecision } from "../../src/node/decide.ts";
import { asAdmin, createService, machineOf, makeDecider, type NodeChain, startNodeChain } from "../helpers/decider.ts";
import { imageId } from "../helpers/images.ts";
import { liar } from "../helpers/liar.ts";
import { V1, V2 } from "../helpers/registry.ts";
import { alterations, player, recorder, type Tape } from "../helpers/tape.ts";

/*
 * An endpoint that lies. Alone it can make a node answer nothing; it can never make it say yes where the chain says no. Among three it can do neither.
 */

type Fields = Readonly<Record<string, unknown>>;
/** Gets an answer, and gives what is told instead. */
type Lie = (method: string, answer: unknown, params: readonly unknown[]) => unknown;

const MAX_AGE = 1800;
/** Every n-th alteration; the whole set is some thousands. */
const EVERY = Number(process.env.KEYSTEAD_LIES_EVERY ?? 13);
/** The number of `Allowed`. */
const ALLOWED = `0x${"00".repeat(31)}01`;

describe("a lying endpoint", function () {
  this.timeout(300_000);
  let chain: NodeChain;
  /** Had V1, which was removed. */
  let removed: Hex;
  /** Has V1, active. */
  let active: Hex;
  /** The finalized block when V1 was active in both. */
  let old: number;

  const call = (method: string, ...params: unknown[]) => chain.provider.request({ method, params });
  const tag = (block: number) => `0x${block.toString(16)}`;

  const decideBy = async (providers: readonly Eip1193Provider[], serviceId: Hex): Promise<ReleaseDecision | string> => {
    const { decider } = await makeDecider(chain, providers, { maxAgeSeconds: MAX_AGE });
    try {
      return await decider.decide({ serviceId, machine: machineOf(V1) });
    } catch (error) {
      if (isKeysteadError(error)) return error.code;
      throw error;
    }
  };
  /** The contract's name for the decision, or the error's code. */
  const outcome = async (providers: readonly Eip1193Provider[], serviceId: Hex): Promise<string> => {
    const decided = await decideBy(providers, serviceId);
    return typeof decided === "string" ? decided : decided.decision;
  };

  before(async () => {
    chain = await startNodeChain();
    removed = await createService(chain.suite, "removed");
    active = await createService(chain.suite, "active");
    await chain.finalize();
    old = Number(((await call("eth_getBlockByNumber", "finalized", false)) as Fields).number);
    await chain.pass(2 * MAX_AGE);
    await asAdmin(chain.suite).removeImageFromService(removed, imageId(V1), "broken");
    await chain.finalize();
  });
  after(() => chain?.stop());

  it("that does not lie yet is believed: the scene is what it should be", async () => {
    expect(await outcome([chain.provider], removed)).to.equal("ImageRemoved");
    expect(await outcome([chain.provider], active)).to.equal("Allowed");
  });

  /** `expected`: what the liar alone achieves about the service whose image was removed. */
  const lies: Readonly<Record<string, { readonly lie: () => Lie; readonly expected: string }>> = {
    "about the block's hash": {
      lie: () => inHeaders((header) => ({ ...header, hash: `0x${"ab".repeat(32)}` })),
      expected: "chain/unreachable",
    },
    "about the state root": {
      lie: () => inHeaders((header) => ({ ...header, stateRoot: `0x${"ab".repeat(32)}` })),
      expected: "chain/unreachable",
    },
    "about the time": {
      lie: () => inHeaders((header) => ({ ...header, timestamp: tag(Number(header.timestamp) - 10) })),
      expected: "chain/unreachable",
    },
    "about the number": {
      lie: () => inHeaders((header) => ({ ...header, number: tag(Number(header.number) - 1) })),
      expected: "chain/unreachable",
    },
    "with a field beside a true header, which nobody reads": {
      lie: () => inHeaders((header) => ({ ...header, futureField: "0x01" })),
      expected: "ImageRemoved",
    },
    "about the time, with a field that no version knows": {
      lie: () => inHeaders((header) => ({ ...header, timestamp: "0x1", futureField: "0x01" })),
      expected: "chain/unknown-header",
    },
    "about which block is final: an old one": {
      lie: () => async (method, answer) =>
        method === "eth_getBlockByNumber" ? call("eth_getBlockByNumber", tag(old), false) : answer,
      expected: "chain/stale",
    },
    "with the state of an old block for the new one": {
      lie: () => async (method, answer, params) =>
        method === "eth_getProof" ? call("eth_getProof", params[0], params[1], tag(old)) : answer,
      expected: "chain/unproven",
    },
    "about the contract's answer": {
      lie: () => inCalls("authorize", ALLOWED),
      expected: "chain/decision-mismatch",
    },
    "with an answer of the contract that is none": {
      lie: () => inCalls("authorize", "0x"),
      expected: "chain/unreachable",
    },
    "about the policy that the registry asks": {
      lie: () => inCalls("POLICY", `0x${"00".repeat(12)}${"99".repeat(20)}`),
      expected: "chain/decision-mismatch",
    },
    "about the chain": {
      lie: () => (method, answer) => (method === "eth_chainId" ? "0x1" : answer),
      expected: "chain/unreachable",
    },
    "about stored values beside the proof, which nobody reads": {
      lie: () => inProofs((proof) => ({ ...proof, value: "0x01" })),
      expected: "ImageRemoved",
    },
    "with empty proofs": { lie: () => inProofs((proof) => ({ ...proof, proof: [] })), expected: "chain/unproven" },
    "with proofs cut short": {
      lie: () => inProofs((proof) => ({ ...proof, proof: (proof.proof as unknown[]).slice(0, -1) })),
      expected: "chain/unproven",
    },
    "by proving nothing of the newest block": {
      lie: () => async (method, answer, params) => {
        const latest = Number(((await call("eth_getBlockByNumber", "latest", false)) as Fields).number);
        if (method === "eth_getProof" && Number(params[2]) === latest) throw { code: -32000, message: "too new" };
        return answer;
      },
      expected: "chain/unproven",
    },
    "with the proof of another slot": {
      lie: () => (method, answer) => {
        if (method !== "eth_getProof") return answer;
        const { storageProof, ...rest } = answer as { storageProof: unknown[] };
        return { ...rest, storageProof: storageProof.toReversed() };
      },
      expected: "chain/unproven",
    },
    "with the proof of another account": {
      lie: () => async (method, answer, params) =>
        method === "eth_getProof" ? call("eth_getProof", chain.deployment.dstackAuth, params[1], params[2]) : answer,
      expected: "chain/unproven",
    },
    "about which implementation the proxies run": {
      lie: () => (method, answer, params) => {
        const asked = method === "eth_getProof" && (params[1] as Hex[]).includes(IMPLEMENTATION_SLOT);
        return asked ? { ...(answer as Fields), storageProof: [{ key: "0x0", value: "0x1", proof: [] }] } : answer;
      },
      expected: "chain/unproven",
    },
    "by leaving the latest log out": {
      lie: () => (method, answer) => (method === "eth_getLogs" ? (answer as unknown[]).slice(0, -1) : answer),
      expected: "chain/unproven",
    },
    "by giving no logs": {
      lie: () => (method, answer) => (method === "eth_getLogs" ? [] : answer),
      expected: "chain/unproven",
    },
    "with a log twice, at two places": {
      lie: () => (method, answer) =>
        method === "eth_getLogs"
          ? (answer as Fields[]).flatMap((log) => [log, { ...log, logIndex: `0x1${String(log.logIndex).slice(2)}` }])
          : answer,
      expected: "chain/unproven",
    },
    "by altering what logs say": {
      lie: () => (method, answer) =>
        method === "eth_getLogs"
          ? (answer as Fields[]).map((log) => ({ ...log, data: `${String(log.data).slice(0, -2)}ff` }))
          : answer,
      expected: "chain/unproven",
    },
    "by putting another image in the place of the logged one": {
      lie: () => (method, answer) => {
        if (method !== "eth_getLogs") return answer;
        const [from, to] = [V1.slice(2), V2.slice(2)];
        const [fromId, toId] = [imageId(V1).slice(2), imageId(V2).slice(2)];
        return JSON.parse(JSON.stringify(answer).replaceAll(from, to).replaceAll(fromId, toId));
      },
      expected: "chain/unproven",
    },
    "by saying that it has nothing": { lie: () => () => null, expected: "chain/unreachable" },
    "by refusing everything": {
      lie: () => () => {
        throw { code: -32000, message: "go away" };
      },
      expected: "chain/unreachable",
    },
  };
  const inHeaders =
    (change: (header: Fields) => Fields): Lie =>
    (method, answer) =>
      method === "eth_getBlockByNumber" && answer !== null ? change(answer as Fields) : answer;
  const inCalls =
    (name: "authorize" | "POLICY", told: string): Lie =>
    (method, answer, params) => {
      const data = (params[0] as Fields | undefined)?.data;
      return method === "eth_call" && String(data).startsWith(REGISTRY.getFunction(name)?.selector ?? "?")
        ? told
        : answer;
    };
  const inProofs =
    (change: (proof: Fields) => Fields): Lie =>
    (method, answer) => {
      if (method !== "eth_getProof") return answer;
      const { storageProof, ...rest } = answer as { storageProof: Fields[] };
      return { ...rest, storageProof: storageProof.map(change) };
    };

  for (const [what, { lie, expected }] of Object.entries(lies)) {
    it(`${what}: alone, ends in ${expected}`, async () => {
      expect(await outcome([liar(chain.provider, lie())], removed)).to.equal(expected);
    });
    it(`${what}: among three, changes no answer`, async () => {
      const providers = [liar(chain.provider, lie()), chain.provider, chain.provider];
      expect(await outcome(providers, removed)).to.equal("ImageRemoved");
      expect(await outcome(providers, active)).to.equal("Allowed");
    });
  }

  it("about a header, after it had told the truth: the node goes on with what it knew", async () => {
    let lying = false;
    const garbled = inHeaders((header) => ({ ...header, stateRoot: `0x${"ab".repeat(32)}` }));
    const provider = liar(chain.provider, (method, answer, params) =>
      lying ? garbled(method, answer, params) : answer,
    );
    const { decider } = await makeDecider(chain, [provider], { maxAgeSeconds: MAX_AGE });
    await decider.refresh();
    lying = true;
    const failure = await decider.refresh().catch((error: unknown) => error);
    expect(failure).to.include({ code: "chain/unreachable", retryable: true });
    expect(decider.status().ready).to.equal(true);
  });

  describe("that serves the old state", () => {
    const parts = ["headers", "proofs", "calls", "logs"] as const;
    /** Answers some kinds of questions as they were when the image was active. */
    const inThePast =
      (chosen: readonly (typeof parts)[number][]): Lie =>
      async (method, answer, params) => {
        if (method === "eth_getBlockByNumber" && chosen.includes("headers")) {
          const asked = Number(params[0]);
          return asked <= old ? answer : call(method, tag(old), false);
        }
        if (method === "eth_getProof" && chosen.includes("proofs")) return call(method, params[0], params[1], tag(old));
        if (method === "eth_call" && chosen.includes("calls")) return call(method, params[0], tag(old));
        if (method === "eth_getLogs" && chosen.includes("logs")) {
          return (answer as Fields[]).filter(({ blockNumber }) => Number(blockNumber) <= old);
        }
        return answer;
      };
    for (let bits = 1; bits < 2 ** parts.length; bits++) {
      const chosen = parts.filter((_, at) => bits & (1 << at));
      it(`in its ${chosen.join(", ")}: never gets a yes`, async () => {
        const past = liar(chain.provider, inThePast(chosen));
        expect(await outcome([past], removed)).to.match(/^chain\//);
        expect(await outcome([past, chain.provider, chain.provider], removed)).to.equal("ImageRemoved");
      });
    }

    it("in all of them, after it had served the new one: gets no yes, however old a block may be", async () => {
      let lying = false;
      const past = inThePast(parts);
      const provider = liar(chain.provider, (method, answer, params) =>
        lying ? past(method, answer, params) : answer,
      );
      const { decider } = await makeDecider(chain, [provider], { maxAgeSeconds: 10 ** 9 });
      const ask = async () => (await decider.decide({ serviceId: removed, machine: machineOf(V1) })).decision;
      expect(await ask()).to.equal("ImageRemoved");
      lying = true;
      await decider.refresh();
      expect(await ask()).to.equal("ImageRemoved");
    });
  });

  describe("with a whole chain of its own, on which the image is active", () => {
    let forged: NodeChain;
    before(async () => {
      forged = await startNodeChain();
      await createService(forged.suite, "removed");
      await createService(forged.suite, "active");
      await forged.pass(2 * MAX_AGE);
      for (let at = 0; at < 5; at++) await forged.finalize();
    });
    after(() => forged?.stop());

    it("is a chain that would be believed if it were the only one", async () => {
      expect(await outcome([forged.provider], removed)).to.equal("Allowed");
    });
    for (const place of [0, 1, 2]) {
      it(`among three, in place ${place}, changes no answer`, async () => {
        const providers = [chain.provider, chain.provider, chain.provider];
        providers[place] = forged.provider;
        expect(await outcome(providers, removed)).to.equal("ImageRemoved");
        expect(await outcome(providers, active)).to.equal("Allowed");
      });
    }
    it("against one honest endpoint, ends in disagreement", async () => {
      expect(await outcome([forged.provider, chain.provider], removed)).to.equal("chain/disagreement");
    });
  });

  describe("that alters one value of one answer", () => {
    const tapes = new Map<Hex, Tape>();
    before(async () => {
      for (const serviceId of [removed, active]) {
        const { tape, request } = recorder(chain.provider);
        await outcome([{ request }], serviceId);
        tapes.set(serviceId, tape());
      }
    });
    const each = async (serviceId: Hex, judge: (what: string, decided: ReleaseDecision | string) => void) => {
      const tape = tapes.get(serviceId) ?? { entries: [] };
      const altered = alterations(tape, EVERY);
      for (let at = 0; at < altered.length; at += 64) {
        await Promise.all(
          altered.slice(at, at + 64).map(async (one) => {
            judge(one.what, await decideBy([player(tape, one)], serviceId));
          }),
        );
      }
      return altered.length;
    };

    it("plays honest answers back as they were", async () => {
      for (const [serviceId, tape] of tapes) {
        expect(await outcome([player(tape)], serviceId)).to.equal(await outcome([chain.provider], serviceId));
      }
    });
    it("never gets a yes where the chain says no", async () => {
      const outcomes = new Map<string, number>();
      const count = await each(removed, (what, decided) => {
        const name = typeof decided === "string" ? decided : decided.decision;
        expect(name, what).to.be.oneOf(["ImageRemoved", ...[...CHAIN_ERRORS]]);
        outcomes.set(name, (outcomes.get(name) ?? 0) + 1);
      });
      console.log(`      ${count} alterations: ${[...outcomes].map(([name, of]) => `${name} ${of}`).join(", ")}`);
      // What nobody reads may say anything (balances, transactions, the stored values beside a proof): the rest must be noticed.
      expect(count).to.be.greaterThan(200);
      expect(outcomes.get("ImageRemoved")).to.be.lessThan(count * 0.75);
    });
    it("changes nothing about a yes: it is the true one, or there is none", async () => {
      const truth = (await decideBy([chain.provider], active)) as ReleaseDecision;
      let yes = 0;
      const count = await each(active, (what, decided) => {
        if (typeof decided === "string") {
          expect(CHAIN_ERRORS, what).to.include(decided);
          return;
        }
        yes += 1;
        // A head that could not be agreed on may be missing: it can only deny.
        const { basis, ...rest } = decided;
        const { basis: trueBasis, ...trueRest } = truth;
        expect(rest, what).to.deep.equal(trueRest);
        expect({ ...basis, head: undefined }, what).to.deep.equal({ ...trueBasis, head: undefined });
      });
      expect(yes).to.be.greaterThan(0);
      expect(yes).to.be.lessThan(count * 0.75);
    });
  });

  const CHAIN_ERRORS: ReadonlySet<string> = new Set([
    "chain/unreachable",
    "chain/unproven",
    "chain/disagreement",
    "chain/decision-mismatch",
    "chain/stale",
    "chain/future-block",
  ]);
});
