import { expect } from "chai";
import { connect } from "../../src/chain/client.ts";
import { scanLogs } from "../../src/chain/logs.ts";
import { withQuirks } from "../../testing/quirks.ts";
import { jsonOf } from "../helpers/cli.ts";
import { rejectionOf } from "../helpers/errors.ts";
import { expectAllWell, type QuirkWorld, runRounds, startQuirkWorld } from "../helpers/quirk-world.ts";
import { supports } from "./supports.ts";

/** Refusals of wide ranges as services send them: the texts are what is tested. */
const REFUSALS: readonly (readonly [service: string, status: number, code: number, message: string, data?: string])[] =
  [
    ["Infura", 200, -32602, "range 20000 exceeds limit of 10000"],
    ["QuickNode", 413, -32614, "eth_getLogs is limited to a 10,000 range"],
    ["QuickNode, free plan", 413, -32615, "eth_getLogs is limited to a 5 range"],
    ["Alchemy, free plan", 400, -32600, "You can make eth_getLogs requests with up to a 10 block range."],
    ["dRPC, free plan", 400, 35, "ranges over 10000 blocks are not supported on freetier"],
    ["1RPC", 200, -32000, "eth_getLogs is limited to 0 - 10000 blocks range"],
    ["BlockPI", 200, -32000, "eth_getLogs is limited to 5000 blocks"],
    ["thirdweb", 200, -32602, "Maximum allowed number of requested blocks is 1000"],
    ["Coinbase", 200, -32602, "please limit the query to at most 1000 blocks"],
    ["Arbitrum's own", 200, -32000, "logs matched by query exceeds limit of 10000"],
    ["OP's proxyd", 200, -32011, "backend response too large"],
    ["Base's proxyd", 503, -32011, "no backend is currently healthy to serve traffic"],
    ["Blast", 200, -32000, "exceeds the range allowed for your plan (10001 > 3000)"],
    ["Harmony", 200, -32000, "query must be smaller than size 1024"],
    ["Ankr", 200, -32602, "maximum [from, to] blocks distance: 10000"],
    ["Etherlink", 200, -32000, "Cannot request logs over more than 1000 blocks"],
    ["Tenderly", 200, -32602, "invalid params", "block range exceeds the limit of 1000"],
    ["a service that nobody knows", 200, -31337, "no"],
  ];

describe("field: endpoints", function () {
  this.timeout(300_000);
  let world: QuirkWorld;
  let honest: string;
  before(async () => {
    world = await startQuirkWorld();
    const rounds = await runRounds(world, world.chain.url, {});
    honest = rounds.decision;
    expectAllWell(rounds, honest);
  });
  after(() => world?.stop());

  const everything = (quirks: Parameters<QuirkWorld["through"]>[0]) => async () => {
    await world.through(quirks, async (url) => expectAllWell(await runRounds(world, url, quirks), honest));
  };

  describe("ranges of eth_getLogs", () => {
    for (const [service, status, code, message, data] of REFUSALS) {
      supports(service, "2026", "its refusals of wide ranges make the range smaller", () =>
        world.through({ cap: { blocks: 7, refuse: () => ({ code, message, status, data }) } }, async (url) => {
          const client = await connect(url, { backoff: 1 });
          const address = world.chain.deployment.contracts.policy.address.toLowerCase() as `0x${string}`;
          const newest = await world.chain.connection.ethers.provider.getBlockNumber();
          const logs = await scanLogs(client, { address }, 0, newest);
          expect(logs).to.deep.equal(await scanLogs(world.chain.client, { address }, 0, newest));
          expect(logs.length).to.be.greaterThan(1);
        }),
      );
    }
    const refuse = (size: number) => ({ code: -32602, message: `range ${size} is not for you` });
    supports(
      "any service",
      "a cap of 10 blocks",
      "audit, status, lint, execute, node, explorer",
      everything({
        cap: { blocks: 10, refuse },
      }),
    );
    supports(
      "any service",
      "a cap of 1 block",
      "audit, status, lint, execute, node, explorer",
      everything({
        cap: { blocks: 1, refuse },
      }),
    );
    it("given a single block that is refused: an error that repeats what the endpoint said last", async () => {
      const provider = withQuirks(world.chain.connection.provider, { cap: { blocks: 0, refuse } });
      const client = await connect(provider, { backoff: 1 });
      const address = `0x${"aa".repeat(20)}` as const;
      const failure = await rejectionOf(scanLogs(client, { address }, 0, 5));
      expect([failure.code, failure.message]).to.deep.equal(["chain/too-much", "eth_getLogs: range 1 is not for you"]);
    });
  });

  describe("answers that would be others at the next attempt", () => {
    for (const [system, refusal] of [
      ["replicas behind the head", { code: -32000, message: "header not found" }],
      ["a gateway", { code: -32603, message: "Internal error", status: 502 }],
      ["any node", { code: -32603, message: "Internal server error" }],
      ["dRPC", { code: 19, message: "Temporary internal error. Please retry, trace-id: 0123", status: 500 }],
      ["any service", { code: 429, message: "Too Many Requests", status: 429 }],
    ] as const) {
      supports(
        system,
        `${refusal.message} (${refusal.code})`,
        "is asked again",
        everything({
          passing: { every: 40, refusal },
        }),
      );
    }
    it("given nothing else: an error that repeats the last cause, and exit code 2", async () => {
      const refusal = { code: 19, message: "Temporary internal error. Please retry", status: 500 };
      await world.through({ passing: { every: 1, refusal, methods: ["eth_getBlockByNumber"] } }, async (url) => {
        const record = world.chain.record;
        const run = await world.run(url, ["audit", "--all", "--deployment", record, "--json"]);
        const { error } = JSON.parse(run.stderr);
        expect([run.code, error.code, error.retryable]).to.deep.equal([2, "chain/unreachable", true]);
        expect(error.message).to.contain("Temporary internal error. Please retry");
      });
    });
    supports("replicas behind the head", "null for the newest block", "is asked again", everything({ lagBlock: 1 }));
  });

  describe("lists of logs", () => {
    supports(
      "replicas behind the head",
      "logs of the newest block missing",
      "are asked for by hash",
      everything({
        lagLogs: { blocks: 1 },
      }),
    );
    supports(
      "replicas behind the head",
      "logs of five blocks missing at times",
      "are asked for again",
      everything({
        lagLogs: { blocks: 5, every: 2 },
      }),
    );
    supports("any service", "the same log twice", "is one log", everything({ duplicate: true }));
    supports("any service", "logs in another order", "are sorted", everything({ unsorted: true }));
    supports("any service", "null for no logs", "is no logs", everything({ nullLogs: true }));
  });

  describe("proofs", () => {
    supports(
      "reth",
      "proofs of the newest block alone",
      "audit, status, execute; a node says that it cannot decide",
      () =>
        world.through({ proofWindow: 0 }, async (url) => {
          const { chain } = world;
          const rounds = await runRounds(world, url, { proofWindow: 0 }).catch((error: unknown) => error);
          // a node decides by a finalized block, which such an endpoint can't prove
          expect(String(rounds)).to.contain("chain/proof-window");
          const audit = await world.run(url, ["audit", "--all", "--deployment", chain.record, "--json"]);
          expect([audit.code, jsonOf(audit).verdict]).to.deep.equal([0, "proven"]);
          const at = ["--deployment", chain.record, "--json"];
          const status = await world.run(url, ["status", ...at, "--proposals", chain.proposals]);
          expect(status.code, status.stderr).to.equal(0);
          expect(jsonOf(status).proposals[0].state).to.equal("signed");
          const snapshot = await chain.connection.provider.request({ method: "evm_snapshot" });
          const executed = await world.run(url, ["execute", world.proposal, ...at], "relayer");
          await chain.connection.provider.request({ method: "evm_revert", params: [snapshot] });
          expect(executed.code, executed.stderr).to.equal(0);
        }),
    );
    it("none at all: audits are unproven, and say why", () =>
      world.through({ proofWindow: "none" }, async (url) => {
        const run = await world.run(url, ["audit", "--all", "--deployment", world.chain.record, "--json"]);
        expect([run.code, jsonOf(run).verdict]).to.deep.equal([2, "consistent"]);
        expect(JSON.stringify(jsonOf(run).policy.reasons)).to.contain("maximum proof window");
      }));
  });

  describe("errors of other shapes", () => {
    supports("Nethermind", "-32015 with data: Reverted 0x…", "is a revert", everything({ nethermindRevert: true }));
    for (const [what, status, text, code] of [
      ["a text in the place of the error", 200, '{"error":"invalid api key"}', "invalid api key"],
      [
        "a message beside no result",
        401,
        '{"message":"Unauthorized: API key is missing","code":401}',
        "API key is missing",
      ],
    ] as const) {
      supports("any service", what, "is told as it is, and final", () =>
        world.through(
          {},
          async (url) => {
            const failure = await rejectionOf(connect(url, { backoff: 1 }));
            expect([failure.code, failure.retryable]).to.deep.equal(["chain/refused", false]);
            expect(failure.message).to.contain(code);
          },
          { body: () => ({ status, text }) },
        ),
      );
    }
  });

  describe("answers that are too much", () => {
    const MIB = 1024 * 1024;
    for (const [what, method, text, code] of [
      ["a long chain id", "eth_chainId", `"0x${"0".repeat(MIB)}"`, "chain/oversized"],
      ["a block of 20 MB", "eth_getBlockByNumber", `"${"0".repeat(20 * MIB)}"`, "chain/oversized"],
      ["lists inside each other", "eth_getBlockByNumber", `${"[".repeat(2 * MIB)}`, "chain/oversized"],
      ["a million empty lists", "eth_getBlockByNumber", `[${"[],".repeat(MIB)}[]]`, "chain/oversized"],
      ["logs of 40 MB", "eth_getLogs", `["${"0".repeat(40 * MIB)}"]`, "chain/too-much"],
    ] as const) {
      it(`${what}: not read to the end, and never parsed`, () =>
        world.through(
          {},
          async (url) => {
            const result = `{"jsonrpc":"2.0","id":1,"result":${text}}`;
            const started = performance.now();
            const asking = connect(url, { backoff: 1 }).then((client) => client.request(method, [{}]));
            const failure = await rejectionOf(asking);
            expect(failure.code).to.equal(code);
            expect(performance.now() - started).to.be.lessThan(10_000);
            void result;
          },
          {
            body: (asked) =>
              asked === method ? { status: 200, text: `{"jsonrpc":"2.0","id":1,"result":${text}}` } : undefined,
          },
        ));
    }
  });
});
