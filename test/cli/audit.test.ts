import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { getAddress } from "ethers";
import { formatDeployment } from "../../src/chain/deployment.ts";
import { type Chain, startChain } from "../deploy/chains.ts";
import { type CliRun, errorCodeOf, jsonOf, keystead, keysteadHere, makeFolder } from "../helpers/cli.ts";
import { type ProxyEndpoint, startProxy } from "../helpers/proxy.ts";
import { deploymentRecord } from "../helpers/record.ts";
import { HOSTILE, type Story, tellStory } from "../helpers/story.ts";
import { deploySuite } from "../helpers/suite.ts";

/** The story moves the chain's clock by months. */
const ANY_AGE = ["--max-age", "999999999"];

describe("keystead audit", () => {
  const folder = makeFolder();
  let chain: Chain;
  let proxy: ProxyEndpoint;
  let story: Story;
  let record: string;

  before(async function () {
    this.timeout(240_000);
    chain = await startChain("anvil");
    story = await tellStory(await deploySuite(chain.connection));
    proxy = await startProxy(chain.anvil?.url ?? "");
    record = folder.write(
      "record.json",
      formatDeployment(deploymentRecord(getAddress(story.registry), getAddress(story.policy), 31337n)),
    );
  });
  after(async () => {
    folder.remove();
    await proxy?.stop();
    await chain?.stop();
  });
  beforeEach(() => {
    proxy.change = (_method, answer) => answer;
  });

  const flags = () => ["--rpc", proxy.url, "--registry", story.registry, ...ANY_AGE];
  const everything = () => ["--all", "--rpc", proxy.url, "--deployment", record, ...ANY_AGE];
  const audit = (...args: string[]): Promise<CliRun> => keysteadHere(["audit", ...args]);

  describe("given honest endpoints", () => {
    it("a service by id is walked and proven, with its state and timeline: exit 0", async () => {
      const run = await audit(story.upgradeable, ...flags());
      expect(run.code, run.stderr).to.equal(0);
      expect(run.stdout).to.contain("PROVEN");
      for (const said of [
        "no longer: the admin has renounced",
        "renounce_service_admin",
        "retired",
        "snp",
        "who can veto",
      ])
        expect(run.stdout).to.contain(said);
      expect(run.stderr).to.match(/\d+\.\d s, \d+ calls, \d+\.\d\d MB/);
    });

    it("everything is proven, with a row for each subject and the code that the proxies run", async () => {
      const run = await audit(...everything());
      expect(run.code, run.stderr).to.equal(0);
      for (const said of [
        story.upgradeable,
        story.sealed,
        story.quiet,
        "policy",
        "Code behind the proxies",
        "no, for ever",
      ])
        expect(run.stdout).to.contain(said);
      expect(run.stdout, "no timelines unless asked for").not.to.contain("rotate_service_key");
      const whole = await audit(...everything(), "--timeline");
      expect(whole.stdout).to.contain("rotate_service_key").and.to.contain("publish_kms_identity");
    });

    it("the policy alone, by its address or by a deployment's record", async () => {
      for (const where of [
        ["--policy", story.policy],
        ["--deployment", record, "--policy"],
      ]) {
        const run = await audit("--rpc", proxy.url, ...ANY_AGE, ...where, "--json");
        expect(run.code, run.stderr).to.equal(0);
        const { policy, services, verdict } = jsonOf(run);
        expect([verdict, policy.verdict, services]).to.deep.equal(["proven", "proven", []]);
        expect(policy.state.gatewayAppId).to.equal("gateway");
      }
    });

    it("as JSON has every event with every field, states, and on what they rest", async () => {
      const run = await audit(...everything(), "--format", "json");
      const document = jsonOf(run);
      expect(run.stdout).not.to.match(/[<>]|[^\P{Cc}\n]|\p{Cf}/u);
      expect(document).to.include({ format: "keystead.audit/1", chainId: 31337, verdict: "proven", allServices: true });
      const service = document.services.find(({ serviceId }: { serviceId: string }) => serviceId === story.upgradeable);
      expect(service.state.description).to.equal(HOSTILE);
      expect(service.events).to.have.length(service.count);
      const removal = service.events.find(({ event }: { event: string }) => event === "remove_image_from_service");
      expect(removal.args.reason).to.equal(HOSTILE);
      expect(service.state.images.map(({ status }: { status: string }) => status)).to.include.members([
        "retired",
        "active",
      ]);
      expect(document.code.registry.basis).to.equal("proof");
    });

    it("as CSV has a line for every event, and nothing that a spreadsheet would compute", async () => {
      const run = await audit(...everything(), "--format", "csv");
      const { services, policy } = jsonOf(await audit(...everything(), "--json"));
      const events = services.reduce((sum: number, { count }: { count: number }) => sum + count, policy.count);
      const lines = run.stdout.split("\r\n");
      expect(lines).to.have.length(events + 2);
      expect(lines[0]).to.equal("chain,subject,verdict,sequence,time,block,transaction,event,actor,fields");
      expect(run.stdout).not.to.match(/(^|,)"?[=+\-@]/m);
    });

    it("as Markdown and as HTML shows hostile text as text", async () => {
      const md = (await audit(...everything(), "--timeline", "--format", "md")).stdout;
      expect(md).to.match(/^# Audit of chain 31337/);
      expect(md).not.to.match(/<|[^\P{Cc}\n]|\p{Cf}/u);
      expect(md).to.contain("&lt;script\\>");
      const html = (await audit(...everything(), "--timeline", "--format", "html")).stdout;
      expect(html)
        .to.match(/^<!doctype html>/)
        .and.to.contain("&lt;script&gt;");
      expect(html).not.to.match(/<script|src=|href=|@import|url\(|[^\P{Cc}\n]|\p{Cf}/u);
      expect(html).to.contain("@media print").and.to.contain("Content-Security-Policy");
    });

    it("shows events since a block or a date alone, and verifies all", async () => {
      const all = jsonOf(await audit(story.upgradeable, ...flags(), "--json")).services[0];
      const middle = all.events[10];
      const dated = new Date(middle.timestamp * 1000).toISOString().slice(0, 19);
      for (const [since, field] of [
        [String(middle.block), "block"],
        [dated, "timestamp"],
      ] as const) {
        const { services } = jsonOf(await audit(story.upgradeable, ...flags(), "--since", since, "--json"));
        expect(services[0]).to.include({ verdict: "proven", count: all.count });
        expect(services[0].events).to.deep.equal(
          all.events.filter((event: Record<string, number>) => (event[field] ?? 0) >= middle[field]),
        );
      }
      const text = (await audit(story.upgradeable, ...flags(), "--since", "999999")).stdout;
      expect(text).to.contain(`${all.count} earlier events were verified and are not shown.`);
    });
  });

  describe("given an endpoint that is not honest, or not able", () => {
    it("that drops a log is broken: exit 1, says what and where, and shows nothing unverified", async () => {
      proxy.change = (method, answer) => (method === "eth_getLogs" ? (answer as unknown[]).slice(0, -1) : answer);
      const run = await audit(story.upgradeable, ...flags());
      expect(run.code).to.equal(1);
      expect(run.stdout).to.contain("BROKEN").and.to.contain("dropped").and.not.to.contain("create_service");
      const all = await audit(...everything(), "--format", "csv");
      expect(all.code).to.equal(1);
      expect(all.stdout).to.match(new RegExp(`^31337,${story.quiet},broken,,,,,,,\\r$`, "m"));
    });

    it("that offers no proofs is not proven: exit 2, or 0 with --accept-unproven", async () => {
      proxy.change = (method, answer) => {
        if (method === "eth_getProof") throw { code: -32601, message: "the method eth_getProof does not exist" };
        return answer;
      };
      const run = await audit(story.upgradeable, ...flags());
      expect([run.code, run.stdout.includes("NOT PROVEN"), run.stdout.includes("no-storage-proof")]).to.deep.equal([
        2,
        true,
        true,
      ]);
      expect((await audit(story.upgradeable, ...flags(), "--accept-unproven")).code).to.equal(0);
      expect((await audit(...everything())).code).to.equal(2);
    });

    it("whose newest block is not from now is exit 2", async () => {
      const run = await audit(story.quiet, "--rpc", proxy.url, "--registry", story.registry);
      expect(run.code).to.equal(2);
      expect(run.stderr).to.contain("chain/not-now");
    });

    it("that is not there is exit 2, and no verdict", () => {
      const run = keystead([
        "audit",
        story.quiet,
        "--rpc",
        "http://127.0.0.1:9",
        "--registry",
        story.registry,
        "--json",
      ]);
      expect([run.code, run.stdout, errorCodeOf(run)]).to.deep.equal([2, "", "chain/unreachable"]);
    }).timeout(90_000);
  });

  describe("given wrong usage, says what to do", () => {
    const cases: readonly [what: string, args: () => readonly string[], code: string][] = [
      ["nothing to audit", () => flags(), "usage/subject"],
      ["a service and everything", () => [story.quiet, ...everything()], "usage/subject"],
      ["a service that is none", () => ["0x12", ...flags()], "audit/bad-address"],
      ["a service that is not there", () => [`0x${"0b".repeat(20)}`, ...flags()], "audit/no-service"],
      ["everything without a policy", () => ["--all", ...flags(), "--from-block", "0"], "audit/no-subject"],
      ["everything without a start", () => ["--all", ...flags(), "--policy", story.policy], "audit/needs-start"],
      ["a date that is none", () => [story.quiet, ...flags(), "--since", "yesterday"], "usage/since"],
      ["a format that is none", () => [story.quiet, ...flags(), "--format", "pdf"], "usage/invalidArgument"],
      ["a webhook without a watch", () => [story.quiet, ...flags(), "--webhook", "http://x"], "usage/webhook"],
      ["a page that never ends", () => [story.quiet, ...flags(), "--watch", "--format", "html"], "usage/format"],
      [
        "a webhook without a key",
        () => [story.quiet, ...flags(), "--watch", "--webhook", "http://x"],
        "usage/webhook-secret",
      ],
      ["a watch that never looks", () => [story.quiet, ...flags(), "--watch", "--interval", "0"], "usage/interval"],
    ];
    for (const [what, args, code] of cases) {
      it(`${what}: ${code}`, async () => {
        const asked = [...args()];
        const json = asked.includes("html") ? [] : ["--json"];
        const run = await audit(...asked, ...json);
        expect(run.code).to.equal(2);
        if (json.length === 0) expect(run.stderr).to.contain(code);
        else expect(errorCodeOf(run)).to.equal(code);
      });
    }
  });

  describe("on an endpoint that caps ranges and slows callers down", () => {
    /** Refuses ranges of more than 5 blocks, every fourth call, and anything once `left` scans were answered. */
    const cap = (left = Number.POSITIVE_INFINITY) => {
      let answered = 0;
      let calls = 0;
      const seen = { scans: 0 };
      proxy.change = (method, answer, params) => {
        if (method !== "eth_getLogs") return answer;
        const { fromBlock, toBlock } = (params[0] ?? {}) as { fromBlock?: string; toBlock?: string };
        if (Number(toBlock) - Number(fromBlock) + 1 > 5) throw { code: -32602, message: "block range is too wide" };
        if (answered >= left) throw { code: -32603, message: "quota exceeded for today" };
        if (++calls % 4 === 0) throw { code: 429, message: "too many requests" };
        answered += 1;
        seen.scans += 1;
        return answer;
      };
      return seen;
    };

    it("goes in steps, waits, and ends proven", async () => {
      cap();
      const run = await audit(...everything(), "--json");
      expect(run.code, run.stderr).to.equal(0);
      expect(jsonOf(run).services).to.have.length(3);
    }).timeout(120_000);

    it("goes on from a checkpoint after an interruption, and removes the file when it is done", async () => {
      const file = join(folder.path, "audit.checkpoint.json");
      const args = [...everything(), "--checkpoint", file, "--json"];
      const whole = cap();
      expect((await audit(...everything(), "--json")).code).to.equal(0);
      const half = cap(Math.floor(whole.scans * 0.75));
      const broken = await audit(...args);
      expect([broken.code, errorCodeOf(broken)]).to.deep.equal([2, "chain/unreachable"]);
      expect(existsSync(file)).to.equal(true);
      const rest = cap();
      const run = await audit(...args, "--trust-checkpoint");
      expect(run.code, run.stderr).to.equal(0);
      expect(jsonOf(run).services).to.have.length(3);
      expect(half.scans + rest.scans).to.be.lessThan(whole.scans + 10);
      expect(existsSync(file)).to.equal(false);
    }).timeout(180_000);
  });

  describe("given a checkpoint of someone else's making", () => {
    interface Scan {
      scan: string;
      logs: { topics: string[]; data: string; blockNumber: number }[];
    }
    /** A checkpoint of the whole history, changed. */
    const checkpoint = async (change: (scans: Scan[]) => void): Promise<string> => {
      const file = join(folder.path, "kept.json");
      let kept = "";
      proxy.change = (method, answer, params) => {
        // the file is removed at the end, so it is taken while the audit still reads
        if (method === "eth_call" && existsSync(file)) kept = readFileSync(file, "utf8");
        void params;
        return answer;
      };
      expect((await audit(...everything(), "--checkpoint", file, "--json")).code).to.equal(0);
      const document = JSON.parse(kept);
      change(document.scans);
      return folder.write("changed.json", JSON.stringify(document));
    };
    const logsOf = (scans: Scan[]) => scans.find(({ scan }) => scan.includes(story.registry))?.logs ?? [];
    const isOf = (service: string) => (log: { topics: string[] }) => log.topics[1]?.startsWith(service) === true;

    for (const [what, change] of [
      ["that hides a whole service", (scans: Scan[]) => hide(scans, story.quiet)],
      ["that drops a log", (scans: Scan[]) => logsOf(scans).splice(logsOf(scans).findIndex(isOf(story.sealed)), 1)],
      [
        "that edits a log",
        (scans: Scan[]) => {
          for (const log of logsOf(scans)) log.data = log.data.replace("6669727374", "6c61737421");
        },
      ],
      [
        "that invents a service",
        (scans: Scan[]) => {
          for (const log of logsOf(scans).filter(isOf(story.quiet)))
            log.topics[1] = `0x${"be".repeat(20)}${"0".repeat(24)}`;
        },
      ],
    ] as const) {
      it(`${what}: it is not believed, and the endpoint is asked again`, async () => {
        const file = await checkpoint(change);
        const run = await audit(...everything(), "--checkpoint", file, "--json");
        expect(run.code, run.stderr).to.equal(0);
        expect(jsonOf(run).services.map(({ serviceId }: { serviceId: string }) => serviceId)).to.deep.equal([
          story.upgradeable,
          story.sealed,
          story.quiet,
        ]);
        // what is missing or altered among real logs is read again, log by log; an invention condemns the file
        const warned = jsonOf(run).warnings.map(({ code }: { code: string }) => code);
        expect(warned).to.deep.equal(what.includes("invents") ? ["checkpoint/not-used"] : []);
      });
    }
    function hide(scans: Scan[], service: string): void {
      for (const scan of scans) scan.logs = scan.logs.filter((log) => !isOf(service)(log));
    }

    it("from another branch of the chain: it is not used", async () => {
      const file = await checkpoint((scans) => {
        for (const scan of scans) Object.assign(scan, { blockHash: `0x${"4e".repeat(32)}`, logs: [] });
      });
      expect((await audit(...everything(), "--checkpoint", file, "--json")).code).to.equal(0);
    });

    for (const [what, text] of [
      ["that is no JSON", "logs"],
      ["of another format", '{"format":"other","scans":[]}'],
      ["with a scan that has no end", '{"format":"keystead.audit-checkpoint/1","scans":[{"scan":"x","logs":[]}]}'],
      [
        "with a log that is none",
        `{"format":"keystead.audit-checkpoint/1","scans":[{"scan":"x","toBlock":1,"blockHash":"0x${"1".repeat(64)}","logs":[{"topics":7}]}]}`,
      ],
    ] as const) {
      it(`${what}: exit 2`, async () => {
        const run = await audit(...everything(), "--checkpoint", folder.write("bad.json", text), "--json");
        expect([run.code, errorCodeOf(run)]).to.deep.equal([2, "checkpoint/malformed"]);
      });
    }
  });
});
