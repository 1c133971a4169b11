import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect } from "chai";
import { createIo } from "../../src/cli/io.ts";
import { run } from "../../src/cli/main.ts";
import { SECRET_VARIABLE, SIGNATURE_HEADER, signWebhook, TIMESTAMP_HEADER } from "../../src/cli/webhook.ts";
import { INTERFACES } from "../../src/governance/abis.ts";
import { errorCodeOf, jsonOf } from "../helpers/cli.ts";
import { DELAY, type GovernedChain, startGovernedChain } from "../helpers/governed-chain.ts";

describe("keystead verify --rpc, simulate, lint, status", function () {
  this.timeout(300_000);
  let world: GovernedChain;
  let folder: string;
  before(async () => {
    world = await startGovernedChain("hardhat", { safeVersion: "1.5.0" });
    folder = `${world.proposals}/001-tdx`;
    const chain = ["--id", "001-tdx", "--deployment", world.record, "--out", world.proposals, "--rpc", world.url];
    const run = await world.run(undefined, ["propose", "enable-tee", "--kind", "tdx", ...chain, "--json"]);
    expect([run.code, run.stderr]).to.deep.equal([0, ""]);
  });
  after(() => world.stop());
  const keystead = (...args: string[]) => world.run(undefined, args);
  const at = () => ["--deployment", world.record, "--proposals", world.proposals];
  /** For after the chain's clock was moved on. */
  const anyTime = ["--max-age", `${2 * DELAY}`];

  it("proposes with nonces and start from the chain, and says in the report what changes", async () => {
    const { readFileSync } = process.getBuiltinModule("node:fs");
    const report = readFileSync(`${folder}/REPORT.md`, "utf8");
    const order = [
      "READ WHOLE",
      "ENABLE",
      "domain hash",
      "## What it does",
      "TDX rules: enabled: false → true",
      "keystead -- cancel",
      "keystead -- rollback",
    ];
    const places = order.slice(2).map((text) => report.indexOf(text));
    expect(report.indexOf("READ WHOLE")).to.be.greaterThan(0).and.to.be.lessThan(200);
    expect(places.every((place, i) => place > (places[i - 1] ?? 0))).to.equal(true);
  });

  it("verifies with a chain, and needs one for nothing else", async () => {
    const found = await keystead("verify", folder, "--rpc", "--deployment", world.record, "--json");
    expect([found.code, jsonOf(found).chain?.phase, jsonOf(found).chain?.basis.proven]).to.deep.equal([
      0,
      "unset",
      true,
    ]);
    const offline = await keystead("verify", folder, "--json");
    expect([offline.code, jsonOf(offline).chain]).to.deep.equal([0, null]);
    const lagging = await keystead("verify", folder, "--rpc", "--max-age", "0", "--json");
    expect([lagging.code, errorCodeOf(lagging)]).to.deep.equal([2, "chain/not-now"]);
    const nobody = await keystead("verify", folder, "--rpc", "http://127.0.0.1:1", "--json");
    expect([nobody.code, errorCodeOf(nobody)]).to.deep.equal([2, "chain/unreachable"]);
  });

  it("simulates against Hardhat's own node over HTTP", async () => {
    const text = await keystead("simulate", folder, "--deployment", world.record);
    expect(text.code, text.stderr).to.equal(0);
    expect(text.stdout)
      .to.match(/^DOES WHAT IT SAYS/)
      .and.to.include("TDX rules: enabled");
    expect(text.stderr).to.include("the Safe schedules it");
    const back = await keystead("simulate", folder, "--rollback", "--json");
    expect([back.code, jsonOf(back).ok]).to.deep.equal([0, true]);
  });

  it("shows every call of the play with gas and events, by names, in 80 columns", async () => {
    const traced = await keystead("simulate", folder, "--deployment", world.record, "--trace");
    expect(traced.code, traced.stderr).to.equal(0);
    const trace = traced.stdout.slice(traced.stdout.indexOf("Trace of 001-tdx, schedule"));
    expect(trace).to.match(/^→ governance Safe: execTransaction\(/m);
    expect(trace)
      .to.match(/→ timelock: executeBatch\(/)
      .and.match(/→ PlatformPolicy: enableTee\(1\) \[[\d,]+ gas\]/);
    expect(trace)
      .to.match(/• EnableTee\(kind: 1/)
      .and.include("ExecutionSuccess(")
      .and.include("CallExecuted(");
    for (const line of trace.split("\n")) expect(line.length, line).to.be.at.most(80);
    const json = await keystead("simulate", folder, "--trace", "--json");
    const [schedule, execute] = jsonOf(json).traces;
    expect([schedule.step, execute.step]).to.deep.equal(["schedule", "execute"]);
    expect(Number(execute.trace.gasUsed)).to.be.greaterThan(Number(execute.trace.calls[0].gasUsed));
  });

  it("plays all pending proposals on top of each other, and shows which fails only there", async () => {
    const stack = `${world.proposals}-stack`;
    const propose = async (id: string, ...intent: string[]) => {
      const chain = ["--id", id, "--deployment", world.record, "--out", stack, "--rpc", world.url];
      const run = await keystead("propose", ...intent, ...chain);
      expect(run.code, run.stderr).to.equal(0);
    };
    await propose("001-tdx", "enable-tee", "--kind", "tdx");
    await propose("002-pause", "pause-release", "--duration", "1h", "--reason", "first");
    await propose("003-snp", "enable-tee", "--kind", "snp");
    const where = ["--deployment", world.record, "--proposals", stack];
    const good = await keystead("preview", ...where, "--trace");
    expect(good.code, good.stdout + good.stderr).to.equal(0);
    expect(good.stdout).to.match(/^ALL 3 PENDING DO WHAT THEY SAY/);
    // what is direct comes first
    const places = ["1. 002-pause", "2. 001-tdx", "3. 003-snp", "Trace of 002-pause, execute"];
    const found = places.map((text) => good.stdout.indexOf(text));
    expect(
      found.every((place, i) => place > (found[i - 1] ?? 0)),
      good.stdout,
    ).to.equal(true);
    // alone it does what it says; after another pause it cannot
    await propose("004-pause", "pause-release", "--duration", "2h", "--reason", "second");
    const alone = await keystead("simulate", `${stack}/004-pause`, "--json");
    expect(jsonOf(alone).ok).to.equal(true);
    const bad = await keystead("preview", ...where, "--json");
    const failed = jsonOf(bad).proposals.filter(({ differences }: { differences: [] }) => differences.length > 0);
    expect([bad.code, failed.map(({ id }: { id: string }) => id)]).to.deep.equal([1, ["004-pause"]]);
  });

  it("lints this project's own deployment clean", async () => {
    const run = await keystead("lint", ...at(), "--json");
    expect([run.code, jsonOf(run).findings]).to.deep.equal([0, []]);
    expect((await keystead("lint", ...at(), "--build", world.proposals, "--json")).code).to.equal(2);
    expect((await keystead("lint", "--help")).stdout).to.include("lint/external-admin");
  });

  it("shows status, once and watching, in plain lines where no terminal is", async () => {
    const run = await keystead("status", ...at(), "--json");
    expect([run.code, jsonOf(run).proposals[0].state, jsonOf(run).orphans]).to.deep.equal([0, "drafted", []]);
    const watched = await keystead("status", ...at(), "--watch", "--rounds", "2", "--interval", "1");
    expect([watched.code, watched.stdout.trim().split("\n").length]).to.deep.equal([0, 1]);
    expect(watched.stdout).to.include("001-tdx drafted schedule signed 0 of 2");
    for (const [option, value, code] of [
      ["--interval", "0", "usage/interval"],
      ["--interval", "soon", "usage/number"],
      ["--rounds", "0", "usage/rounds"],
      ["--rounds", "-1", "usage/number"],
    ] as const) {
      const refused = await keystead("status", ...at(), "--watch", option, value, "--json");
      expect([refused.code, errorCodeOf(refused)], `${option} ${value}`).to.deep.equal([2, code]);
    }
  });

  it("given a terminal: the picture is drawn over itself every second, and the time left counts down", async () => {
    for (const person of ["alice", "bob"] as const) {
      expect((await world.run(person, ["sign", folder, "--step", "schedule", "--yes"])).code).to.equal(0);
    }
    const scheduled = await world.run("relayer", ["execute", folder, "--deployment", world.record, "--json"]);
    expect([scheduled.code, scheduled.stderr]).to.deep.equal([0, ""]);
    await world.passTime(DELAY - 100);
    const watched = async (environment: Readonly<Record<string, string>>, ...more: string[]) => {
      const writes: string[] = [];
      const io = createIo({
        stdin: (async function* () {})(),
        stdout: { write: (text) => writes.push(text), isTTY: true },
        stderr: { write: () => {} },
        env: { ...world.environment(undefined), NO_COLOR: "1", ...environment },
      });
      expect(await run(["status", ...at(), ...anyTime, "--watch", ...more], io)).to.equal(0);
      return writes;
    };
    const pictures = await watched({}, "--rounds", "2", "--interval", "3");
    // three seconds of the first look, and the second
    expect(pictures).to.have.length(4);
    for (const picture of pictures) {
      expect(picture.startsWith("\u001b[H\u001b[2JNO ORPHANS")).to.equal(true);
      expect(picture.slice(7)).to.not.include("\u001b");
    }
    const left = pictures.slice(0, 3).map((picture) => Number(/ready in (\d+) s,/.exec(picture)?.[1]));
    expect(left[0]).to.be.within(60, 100);
    expect(Number(left[1]) < Number(left[0]) && Number(left[2]) < Number(left[1]), `${left}`).to.equal(true);

    const lines = await watched({ TERM: "dumb" }, "--rounds", "1");
    expect(lines.join("")).to.include("001-tdx scheduled ready in ").and.to.not.include("\u001b");
    const [document, ...others] = await watched({}, "--rounds", "1", "--json");
    expect(others).to.deep.equal([]);
    expect(JSON.parse(String(document)).proposals[0].state).to.equal("scheduled");
  });

  it("an orphan is an alert, its text made harmless", async () => {
    const { provider } = world.connection;
    const { guardian } = world.deployment.safes;
    const data = INTERFACES.policy.encodeFunctionData("pauseRelease", [3600n, "now\u001b[31m"]);
    await provider.request({ method: "hardhat_impersonateAccount", params: [guardian.address] });
    await provider.request({ method: "hardhat_setBalance", params: [guardian.address, "0xde0b6b3a7640000"] });
    const transaction = { from: guardian.address, to: world.deployment.contracts.policy.address, data };
    await provider.request({ method: "eth_sendTransaction", params: [transaction] });
    const found = await keystead("status", ...at(), ...anyTime);
    expect(found.code, found.stderr).to.equal(1);
    expect(found.stdout)
      .to.match(/^ALERT: 1 /)
      .and.to.include("policy: PauseRelease")
      .and.not.to.include("\u001b");
  });

  it("a pause reports what it did, and until when", async () => {
    await world.passTime(3601);
    const pause = `${world.proposals}/002-pause`;
    const where = ["--id", "002-pause", "--deployment", world.record, "--out", world.proposals, "--rpc", world.url];
    const proposed = await keystead("propose", "pause-release", "--duration", "2h", "--reason", "looking", ...where);
    expect(proposed.code, proposed.stderr).to.equal(0);
    for (const person of ["dave", "erin"] as const) {
      expect((await world.run(person, ["sign", pause, "--yes", "--deployment", world.record])).code).to.equal(0);
    }
    const act = ["execute", pause, "--deployment", world.record];
    const done = await world.run("relayer", act);
    expect(done.code, done.stderr).to.equal(0);
    expect(done.stdout).to.match(
      /Executed\.\nreleases are paused until \d{4}-\d\d-\d\d \d\d:\d\dZ, 2 h from block \d+\./,
    );
    expect(done.stdout + done.stderr).to.not.match(/\b0 of 0\b/);
    const again = await world.run("relayer", [...act, "--json"]);
    expect([again.code, jsonOf(again).sent, jsonOf(again).observed[0].holds]).to.deep.equal([0, null, null]);
    await world.passTime(7200);
    const lapsed = await world.run("relayer", act);
    expect(lapsed.stdout).to.include("releases are not paused now: the last pause ended");
  });

  it("posts what is new to a webhook, signed: proposals that move, orphans, and that it sees nothing any more", async () => {
    const secret = "a secret of the tests";
    // biome-ignore lint/suspicious/noExplicitAny: a test reads whatever the document holds
    const received: any[] = [];
    const receiver = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk) => {
        body += chunk;
      });
      request.on("end", () => {
        const stamp = String(request.headers[TIMESTAMP_HEADER]);
        expect(request.headers[SIGNATURE_HEADER]).to.equal(signWebhook(secret, stamp, body));
        received.push(JSON.parse(body));
        response.end();
      });
    });
    await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
    const { port } = receiver.address() as AddressInfo;
    const hook = ["--watch", "--interval", "1", "--webhook", `http://127.0.0.1:${port}/hook`];
    const env = { ...world.environment(undefined), [SECRET_VARIABLE]: secret };
    const first = await world.runWith(env, ["status", ...at(), ...anyTime, ...hook, "--rounds", "2"]);
    expect(first.code, first.stderr).to.equal(1);
    // the same is not told twice
    expect(received).to.have.length(1);
    expect(received[0]).to.include({ format: "keystead.status-change/1", chainId: "31337" });
    const kinds = received[0].alerts.map(({ severity, kind }: Record<string, string>) => `${severity} ${kind}`);
    expect([...new Set(kinds)].sort()).to.deep.equal(["alert orphan", "news proposal"]);
    for (const { text } of received[0].alerts) expect(text).to.not.include("\u001b");
    const blind = await world.runWith(env, ["status", ...at(), ...anyTime, ...hook, "--proposals", world.record]);
    expect(blind.code).to.equal(2);
    expect(received.at(-1).alerts[0]).to.include({ severity: "alert", kind: "cannot-check" });
    const unsigned = await world.run(undefined, ["status", ...at(), ...anyTime, ...hook, "--json"]);
    expect([unsigned.code, errorCodeOf(unsigned)]).to.deep.equal([2, "usage/webhook-secret"]);
    const once = await world.runWith(env, ["status", ...at(), "--webhook", "http://127.0.0.1:1", "--json"]);
    expect([once.code, errorCodeOf(once)]).to.deep.equal([2, "usage/webhook"]);
    await new Promise((resolve) => receiver.close(resolve));
  });
});
