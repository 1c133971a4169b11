import { expect } from "chai";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Action } from "../../src/rollout/actions.ts";
import { APP_V1, APP_V2, KMS_V1, KMS_V2, version } from "../helpers/rollout.ts";
import { machineOf, type RolloutWorld, startRolloutWorld, type Watch } from "../helpers/rollout-world.ts";
import { WHO } from "../helpers/governed-chain.ts";

const STRANGER = version("a machine that nobody registered");
const imageOf = ({ image }: typeof APP_V1) => ({ as: "image", inputs: [image.text] });

/** A rollout driven by what `rollout next` says, and by nothing else. */
class Operators {
  readonly done: string[] = [];
  readonly file: string;
  private readonly world: RolloutWorld;
  constructor(world: RolloutWorld, file: string) {
    this.world = world;
    this.file = file;
  }

  async next(): Promise<{ standing: string; actions: Action[]; alarms: { code: string }[]; code: number | null }> {
    const { json, code, stderr } = await this.world.rollout("next", this.file);
    if (json === undefined) throw new Error(stderr);
    return { ...json, code };
  }

  async status(): Promise<{
    code: number | null;
    standing: string;
    alarms: string[];
    steps: Record<string, string>;
    until: number;
  }> {
    const { json, code, stderr } = await this.world.rollout("status", this.file);
    if (json === undefined) throw new Error(stderr);
    const steps = Object.fromEntries(json.steps.map((step: { id: string; state: string }) => [step.id, step.state]));
    const waits = json.steps.flatMap(({ state, until }: { state: string; until: number | null }) =>
      state === "waiting" && until !== null ? [until] : [],
    );
    return {
      code,
      standing: json.standing,
      alarms: json.alarms.map((one: { code: string }) => one.code),
      steps,
      until: Math.max(0, ...waits),
    };
  }

  /** Does what is due, and lets time pass where that is all there is to do, until a step is reached or nothing is left. */
  async until(stop: (step: string) => boolean = () => false): Promise<Action | undefined> {
    for (let round = 0; round < 60; round += 1) {
      const { standing, actions } = await this.next();
      if (standing === "finished") return undefined;
      const [action] = actions;
      if (action === undefined) {
        const { until, steps } = await this.status();
        const { timestamp } = (await this.world.chain.connection.ethers.provider.getBlock("latest")) ?? {
          timestamp: 0,
        };
        if (until === 0) throw new Error(`nothing to do and nothing to wait for: ${JSON.stringify(steps)}`);
        await this.world.chain.passTime(Math.max(1, until - timestamp + 1));
        continue;
      }
      if (stop(action.step)) return action;
      if (this.done.at(-1) === action.step && action.commands[0]?.startsWith("start")) {
        const { json } = await this.world.rollout("status", this.file);
        const step = json.steps.find(({ id }: { id: string }) => id === action.step);
        throw new Error(`${action.step} was done, and is ${step.state}: ${step.says}; ${JSON.stringify(json.alarms)}`);
      }
      for (const line of action.commands) await this.world.type(line, action);
      this.done.push(action.step);
    }
    throw new Error(`no end after ${this.done.join(", ")}`);
  }
}

describe("rollout, end to end on anvil", function () {
  this.timeout(900_000);
  let world: RolloutWorld;
  let watch: Watch | undefined;
  before(async () => {
    world = await startRolloutWorld();
  });
  after(async () => {
    await watch?.stop();
    await world?.stop();
  });

  const definition = async (changes: object): Promise<object> => ({
    deployment: world.chain.record,
    service: world.service,
    nodes: ["north", "south"].map((name) => ({
      ...{
        name,
        url: world.nodeUrl(name as "north"),
        stop: `stop ${name}`,
        start: `start ${name} new`,
        restore: `start ${name} old`,
      },
    })),
    signers: { governance: [WHO.alice.address, WHO.bob.address], guardian: [WHO.dave.address, WHO.erin.address] },
    tcb: { tdx: "UpToDate" },
    ...changes,
  });
  const planFile = (id: string) => join(world.chain.folder, `${id}.json`);
  const plan = async (id: string, given: object): Promise<Operators> => {
    const file = world.writeDefinition(`${id}.definition.json`, { id, ...given });
    const run = await world.rollout("plan", file, "--out", planFile(id));
    expect([run.code, run.stderr]).to.deep.equal([0, ""]);
    return new Operators(world, planFile(id));
  };
  const backup = (id: string) => ({ folder: join(world.chain.folder, `${id}-backup`), files: [world.chain.record] });

  it("starts from nothing: platforms, KMS images, identity, nodes, the first image, the first machine", async () => {
    const identity = await world.createRoot();
    const operators = await plan(
      "v1",
      await definition({
        application: { new: imageOf(APP_V1) },
        kms: { new: imageOf(KMS_V1), identity },
        nodes: ["north", "south"].map((name) => ({
          ...{ name, url: world.nodeUrl(name as "north"), stop: `stop ${name}`, restore: `start ${name} old` },
          start: name === "north" ? "start north first" : "start south old",
        })),
        machines: [await machineOf(world, "web-v1", "new")],
        backup: backup("v1"),
        proposals: { folder: world.chain.proposals, first: 1 },
      }),
    );
    expect((await operators.status()).steps).to.include({ staging: "ready", governance: "blocked" });
    world.sabotage.set("keystead rollout verify", async () => {
      const run = await world.rollout("verify", operators.file, "--run-commands", "--allow-test-tee");
      expect([run.code, run.json.verdict]).to.deep.equal([0, "proven"]);
    });
    world.sabotage.set("keystead rollout preflight", async () => {}); // nothing is there yet that could be checked
    await operators.until();
    expect((await operators.status()).standing).to.equal("finished");
    expect(operators.done).to.deep.equal([
      ...[
        "staging",
        "measurements",
        "service-image",
        "measurements",
        "node-north",
        "node-south",
        "machine-web-v1",
        "delivery",
      ],
    ]);
    expect((await world.ask(APP_V1)).code).to.equal("delivered");
  });

  it("keeps with a proposal where its registers come from, as report and verify show", async () => {
    const folder = join(world.chain.proposals, "002-v1-measurements");
    const found = await world.chain.run(undefined, ["verify", folder, "--deployment", world.chain.record, "--json"]);
    expect([found.code, JSON.parse(found.stdout).differences]).to.deep.equal([0, []]);
    const report = readFileSync(join(folder, "REPORT.md"), "utf8");
    for (const name of ["application", "kms"]) expect(report).to.include(`measurements/${name}.json: tdx`);
    expect(report).to.include("rtmr3 of the image").and.to.not.include("no measurement was given");
    const kept = join(folder, "measurements", "kms.json");
    const good = readFileSync(kept, "utf8");
    writeFileSync(kept, good.replaceAll("of the image", "of the picture"));
    const changed = await world.chain.run(undefined, ["verify", folder, "--json"]);
    writeFileSync(kept, good);
    expect([changed.code, JSON.stringify(JSON.parse(changed.stdout).differences)]).to.satisfy(
      ([code, differences]: [number, string]) => code === 1 && differences.includes("provenance/changed"),
    );
  });

  it("upgrades contracts, platforms, KMS and application, and keys are delivered throughout", async () => {
    watch = world.watch(() => [APP_V1], STRANGER);
    const operators = await plan(
      "v2",
      await definition({
        plannedFor: new Date(Date.now()).toISOString(),
        application: { old: imageOf(APP_V1), new: imageOf(APP_V2) },
        kms: { old: imageOf(KMS_V1), new: imageOf(KMS_V2) },
        contracts: { policy: world.newPolicy },
        machines: [await machineOf(world, "web-v1", "old"), await machineOf(world, "web-v2", "new")],
        backup: backup("v2"),
        proposals: { folder: world.chain.proposals, first: 10 },
        cleanup: { image: "remove", platform: "revoke" },
      }),
    );
    world.sabotage.set("keystead rollout verify", async () => {
      const run = await world.rollout("verify", operators.file, "--run-commands", "--allow-test-tee");
      expect([run.code, run.json.verdict, run.json.deliveries.length]).to.deep.equal([0, "proven", 4]);
    });
    const gate = await operators.until((step) => step === "node-north");
    expect(gate?.commands).to.deep.equal(["stop north", "start north new"]);
    // the new node does not start: the way back is one of the node alone, while the other serves
    await world.stopNode("north");
    expect((await operators.status()).alarms).to.include("node-down");
    const { json } = await world.rollout("abort", operators.file);
    const back = json.actions.find(({ step }: Action) => step === "node-north");
    expect(back.commands).to.deep.equal(["stop north", "start north old"]);
    for (const line of back.commands) await world.type(line, back);
    expect((await operators.status()).alarms).to.deep.equal([]);
    await world.finalize();
    expect((await world.ask(APP_V2)).code).to.equal("delivered");
    await operators.until((step) => step === "retire-image");
    expect((await world.ask(APP_V1)).code).to.equal("delivered");
    await watch.stop();
    expect(watch.wrong).to.deep.equal([]);
    expect([watch.delivered, watch.denied].every((count) => count > 5)).to.equal(true);
    const after = world.watch(() => [APP_V2], STRANGER);
    await operators.until();
    await after.stop();
    expect(after.wrong).to.deep.equal([]);
    const { standing, alarms, code } = await operators.status();
    expect([standing, alarms, code]).to.deep.equal(["finished", [], 0]);
    expect(operators.done.at(-1)).to.equal("revoke");
    await world.finalize();
    expect((await world.ask(APP_V1)).code).to.equal("ImageRemoved");
    expect((await world.ask(APP_V2)).code).to.equal("delivered");
  });

  describe("given something fails, at each step", () => {
    const KMS_V3 = version("kms 3");
    const APP_V3 = version("app 3");
    let operators: Operators;
    /** The running version still gets its keys, whatever happens. */
    const served = async () => {
      await world.finalize();
      expect((await world.ask(APP_V2)).code).to.equal("delivered");
    };
    const abort = async (): Promise<readonly Action[]> => (await world.rollout("abort", operators.file)).json.actions;

    before(async () => {
      operators = await plan(
        "v3",
        await definition({
          application: { old: imageOf(APP_V2), new: imageOf(APP_V3) },
          kms: { old: imageOf(KMS_V2), new: imageOf(KMS_V3) },
          machines: [await machineOf(world, "web-v2", "old"), await machineOf(world, "web-v3", "new")],
          backup: backup("v3"),
          proposals: { folder: world.chain.proposals, first: 20 },
        }),
      );
    });

    it("the endpoint is down: exit 2, and nothing is offered that rests on the chain", async () => {
      const run = await world.chain.run(undefined, [
        "--json",
        "rollout",
        "next",
        operators.file,
        "--rpc",
        "http://127.0.0.1:1",
      ]);
      expect(run.code).to.equal(2);
      const { alarms, actions } = JSON.parse(run.stdout);
      const offered = actions.map(({ step }: Action) => step);
      expect([alarms[0].code, offered]).to.deep.equal(["chain-unreadable", ["staging"]]);
    });

    it("a contract upgrade that reverts is seen before anybody signs", async () => {
      const broken = await world.chain.connection.ethers.deployContract("Actor");
      await broken.waitForDeployment();
      const bad = await plan(
        "v4",
        await definition({
          application: null,
          contracts: { policy: await broken.getAddress() },
          machines: [],
          backup: backup("v4"),
          proposals: { folder: world.chain.proposals, first: 40 },
        }),
      );
      expect((await world.rollout("propose", bad.file, "contracts")).code).to.equal(0);
      const folder = join(world.chain.proposals, "040-v4-contracts");
      const found = await world.chain.run(undefined, ["simulate", folder, "--json", "--max-age", "2592000"]);
      expect(found.code).to.equal(1);
      const { json } = await world.rollout("preflight", bad.file);
      const check = json.checks.find(({ id }: { id: string }) => id === "rollback-contracts");
      expect(check.result).to.equal("failed");
      await served();
    });

    it("the timelock's operation is cancelled: status says so, and it can be scheduled again", async () => {
      await operators.until((step) => step === "measurements");
      const scheduled = (await operators.next()).actions[0];
      if (scheduled === undefined) throw new Error("nothing to schedule");
      for (const line of scheduled.commands) await world.type(line, scheduled);
      expect((await operators.status()).steps.measurements).to.equal("waiting");
      const [cancel] = await abort();
      if (cancel === undefined) throw new Error("no way back");
      expect(cancel.title).to.match(/^Cancel the operation/);
      for (const line of cancel.commands) await world.type(line, cancel);
      const { steps, alarms, code } = await operators.status();
      expect([steps.measurements, alarms, code]).to.deep.equal(["failed", ["operation-cancelled"], 1]);
      await served();
    });

    it("a wrong measurement is registered: status names it, abort removes it", async () => {
      const option = ["--service", world.service, "--image", STRANGER.image.text, "--description", "wrong"];
      const line = `keystead service add-image ${option.map((word) => (word === "wrong" ? '"wrong"' : word)).join(" ")} --deployment ${world.chain.record} --send`;
      const by = { step: "", title: "", who: "", governance: "service-admin", commands: [], note: "" } as const;
      await world.type(line, by);
      expect((await operators.status()).alarms).to.include("wrong-measurement");
      const removal = (await abort()).find(({ title }) => title.includes(STRANGER.image.id));
      if (removal === undefined) throw new Error("no way back");
      for (const command of removal.commands) await world.type(command, removal);
      expect((await operators.status()).alarms).to.not.include("wrong-measurement");
      expect((await world.ask(STRANGER)).keys).to.equal(undefined);
      await served();
    });

    it("a node is down: status says so, the other one serves meanwhile", async () => {
      await world.stopNode("north");
      const { alarms } = await operators.status();
      expect(alarms).to.include("node-down");
      await served();
      await world.startNode("north", KMS_V2, true);
      expect((await operators.status()).alarms).to.not.include("node-down");
      await served();
    });

    it("a machine's quote is not of the planned image: status names the registers", async () => {
      await world.startMachine("web-v3", STRANGER);
      const { alarms } = await operators.status();
      expect(alarms).to.include("quote-differs");
      expect((await world.ask(STRANGER)).keys).to.equal(undefined);
      await served();
    });
  });
});
