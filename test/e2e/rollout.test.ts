import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import type { Action } from "../../src/rollout/actions.ts";
import { buildPlan, parsePlan } from "../../src/rollout/plan.ts";
import { WHO } from "../helpers/governed-chain.ts";
import { NodeEnded } from "../helpers/node-process.ts";
import { APP_V1, APP_V2, KMS_V1, KMS_V2, version } from "../helpers/rollout.ts";
import {
  APP_V3,
  KMS_V3,
  machineOf,
  type RolloutWorld,
  startRolloutWorld,
  type Watch,
  wordsOf,
} from "../helpers/rollout-world.ts";

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
    const alarms: readonly string[] = json.alarms.map((one: { code: string }) => one.code);
    // every node here accepts test roots: said whenever one is asked, and not repeated by each test
    if (json.steps.some(({ id }: { id: string }) => id.startsWith("node-"))) {
      expect(alarms.includes("test-evidence")).to.equal(this.world.nodesUp() > 0);
    }
    return {
      code,
      standing: json.standing,
      alarms: alarms.filter((one) => one !== "test-evidence"),
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
        if (until === 0) throw new Error(`nothing to do and nothing to wait for: ${JSON.stringify(steps)}`);
        await this.world.passTimeTo(until);
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

  /** A node as a definition names it, with the commands that lead from one KMS image to another. */
  const nodeOf = (name: "north" | "south", from: number, to: number) => ({
    ...{ name, url: world.nodeUrl(name), stop: `stop ${name}` },
    ...{ start: `start ${name} kms-${to}`, restore: `start ${name} kms-${from}` },
  });
  const bothNodes = (from: number, to: number) => [nodeOf("north", from, to), nodeOf("south", from, to)];
  const definition = async (changes: object): Promise<object> => ({
    deployment: world.chain.record,
    service: world.service,
    nodes: [],
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
        plannedFor: new Date(Date.now()).toISOString(),
        application: { new: imageOf(APP_V1) },
        kms: { new: imageOf(KMS_V1), identity },
        nodes: [{ ...nodeOf("north", 1, 1), start: "start north kms-1 first" }, { ...nodeOf("south", 1, 1) }],
        machines: [await machineOf(world, "web-v1", "new")],
        backup: backup("v1"),
        proposals: { folder: world.chain.proposals, first: 1 },
      }),
    );
    expect((await operators.status()).steps).to.include({ staging: "ready", governance: "blocked" });
    // the checklist passes for what is there, and not before its statements are made
    const early = await world.rollout("preflight", operators.file);
    const open = early.json.checks.filter(({ result }: { result: string }) => !["ok", "not-needed"].includes(result));
    expect([early.code, open.map(({ id }: { id: string }) => id)]).to.deep.equal([
      1,
      ["backup", "rollback-measurements", "changelog-reviewed", "tested-outside-production", "stakeholders-told"],
    ]);
    await operators.until();
    expect((await operators.status()).standing).to.equal("finished");
    expect(operators.done).to.deep.equal([
      ...["staging", "measurements", "service-image", "measurements", "node-north", "node-south"],
      ...["machine-web-v1", "delivery"],
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

  it("keeps the same with a proposal of the service's admin, where that is a Safe: its printed commands are run", async () => {
    const { inputs } = parsePlan(readFileSync(planFile("v1"), "utf8"));
    const { version } = world.chain.deployment.safes.governance;
    // a proposal is written before anybody looks at the Safe
    const service = { ...inputs.service, admin: WHO.stranger.address, adminKind: "safe" as const };
    const bySafe = buildPlan({ ...inputs, service });
    const [measure = "", propose = ""] = bySafe.steps.find(({ id }) => id === "service-image")?.commands ?? [];
    const [command = "", file = ""] = measure.split(" > ");
    const type = (line: string) => world.chain.run(undefined, wordsOf(line).slice(1));
    const measured = await type(command);
    expect(measured.code).to.equal(0);
    const kept = world.chain.write(file, measured.stdout);
    const line = propose
      .replace("--id ID", `--id 099-image --out ${world.chain.proposals}`)
      .replace("VERSION", version)
      .replace("NONCE", "9")
      .replace(file, kept);
    const proposed = await type(line);
    expect(proposed.code, proposed.stderr).to.equal(0);
    const report = readFileSync(join(world.chain.proposals, "099-image", "REPORT.md"), "utf8");
    expect(report).to.include("measurements/measurement.json: tdx").and.not.include("no measurement was given");
    rmSync(join(world.chain.proposals, "099-image"), { recursive: true });
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
        nodes: bothNodes(1, 2),
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
    await operators.until((step) => step === "retire-image");
    world.sabotage.delete("keystead rollout verify");
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
    let operators: Operators;
    /** The running version still gets its keys, whatever happens. */
    const served = async () => {
      await world.finalize();
      expect((await world.ask(APP_V2)).code).to.equal("delivered");
    };
    const abort = async (of = operators): Promise<readonly Action[]> =>
      (await world.rollout("abort", of.file)).json.actions;
    const carryOut = async (action: Action | undefined): Promise<void> => {
      if (action === undefined) throw new Error("no way back");
      for (const line of action.commands) await world.type(line, action);
    };

    before(async () => {
      operators = await plan(
        "v3",
        await definition({
          plannedFor: new Date(Date.now()).toISOString(),
          application: { old: imageOf(APP_V2), new: imageOf(APP_V3) },
          kms: { old: imageOf(KMS_V2), new: imageOf(KMS_V3) },
          contracts: { policy: world.newerPolicy },
          nodes: bothNodes(2, 3),
          machines: [await machineOf(world, "web-v2", "old"), await machineOf(world, "web-v3", "new")],
          backup: backup("v3"),
          proposals: { folder: world.chain.proposals, first: 20 },
        }),
      );
      // shown by the upgrade before, and part of each execution
      world.sabotage.set("keystead simulate", async () => {});
      // another one than that which is registered by mistake
      watch = world.watch(() => [APP_V2], version("a machine that nobody ever registered"));
    });
    after(async () => {
      await watch?.stop();
      expect(watch?.wrong).to.deep.equal([]);
    });

    it("the endpoint is down: exit 2, and nothing is offered that rests on the chain", async () => {
      const endpoint = ["--rpc", "http://127.0.0.1:1"];
      const run = await world.chain.run(undefined, ["--json", "rollout", "next", operators.file, ...endpoint]);
      expect(run.code).to.equal(2);
      const { alarms, actions } = JSON.parse(run.stdout);
      const offered = actions.map(({ step }: Action) => step);
      expect(alarms.map(({ code }: { code: string }) => code)).to.include("chain-unreadable");
      expect(offered).to.deep.equal(["staging"]);
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

    it("the timelock's operation is cancelled: status says so, and it is not offered again under its number", async () => {
      const cancelled = await plan(
        "v5",
        await definition({
          ...{ application: null, contracts: { policy: world.newerPolicy }, machines: [], backup: backup("v5") },
          proposals: { folder: world.chain.proposals, first: 50 },
        }),
      );
      // what the checklist says is another test's
      world.sabotage.set("keystead rollout preflight", async () => {});
      await carryOut(await cancelled.until((step) => step === "contracts"));
      world.sabotage.delete("keystead rollout preflight");
      expect((await cancelled.status()).steps.contracts).to.equal("waiting");
      expect((await operators.status()).alarms).to.deep.equal(["foreign-operation"]);
      const [cancel] = await abort(cancelled);
      expect(cancel?.title).to.match(/^Cancel the operation/);
      await carryOut(cancel);
      const { steps, alarms, code } = await cancelled.status();
      expect([steps.contracts, alarms, code]).to.deep.equal(["failed", ["operation-cancelled"], 1]);
      expect((await cancelled.next()).actions).to.deep.equal([]);
      await served();
    });

    it("a wrong measurement is registered: status names it, abort removes it", async () => {
      const option = ["--service", world.service, "--image", STRANGER.image.text, "--description", '"wrong"'];
      const line = `keystead service add-image ${option.join(" ")} --deployment ${world.chain.record} --send`;
      const by = { step: "", title: "", who: "", governance: "service-admin", commands: [], note: "" } as const;
      await world.type(line, by);
      expect((await operators.status()).alarms).to.include("wrong-measurement");
      await carryOut((await abort()).find(({ title }) => title.includes(STRANGER.image.id)));
      expect((await operators.status()).alarms).to.not.include("wrong-measurement");
      expect((await world.ask(STRANGER)).keys).to.equal(undefined);
      await served();
    });

    for (const [what, changes, code, says] of [
      [
        "its root file cannot be opened",
        () => ({ root: { store: "file", path: "north-1.root.json", passphraseFile: "other-passphrase" } }),
        "root/not-opened",
        "does not answer",
      ],
      [
        "its configuration pins a wrong code hash",
        () => ({ implementations: { policy: [{ address: world.newerPolicy, codeHash: `0x${"77".repeat(32)}` }] } }),
        undefined,
        "chain/unknown-implementation",
      ],
    ] as const) {
      it(`a new node does not start, for ${what}: status says so, the other is not stopped, abort leads back`, async () => {
        const gate = await operators.until((step) => step === "node-north");
        expect(gate?.commands).to.deep.equal(["stop north", "start north kms-3"]);
        let ended: unknown;
        world.sabotage.set("start north kms-3", async () => {
          ended = await world.startNodeProcess("north", KMS_V3, changes()).catch((error: unknown) => error);
        });
        await carryOut(gate);
        world.sabotage.delete("start north kms-3");
        if (code === undefined) expect(ended).to.equal(undefined);
        else {
          if (!(ended instanceof NodeEnded)) throw new Error(`it started, or failed otherwise: ${ended}`);
          expect([ended.code, ended.output.includes(code)], ended.output).to.deep.equal([2, true]);
        }
        const { json } = await world.rollout("status", operators.file);
        const down = json.alarms.find(({ code }: { code: string }) => code === "node-down");
        expect(down.says).to.include("north").and.to.include(says);
        // north may be tried again; nothing that is offered stops the one that serves
        const { actions } = await operators.next();
        expect(actions.flatMap(({ commands }) => commands)).to.not.include("stop south");
        const back = (await abort()).find(({ step }) => step === "node-north");
        expect(back?.commands).to.deep.equal(["stop north", "start north kms-2"]);
        await carryOut(back);
        const { alarms, steps } = await operators.status();
        expect([alarms, steps["node-north"]]).to.deep.equal([[], "ready"]);
        expect((await world.ask(APP_V2, ["north"])).code).to.equal("delivered");
        await served();
      });
    }

    it("a machine's quote is not of the planned image: status names the registers", async () => {
      await operators.until((step) => step === "machine-web-v3");
      await world.startMachine("web-v3", STRANGER);
      const { alarms, steps } = await operators.status();
      expect([alarms, steps["machine-web-v3"]]).to.deep.equal([["quote-differs"], "failed"]);
      expect((await world.ask(STRANGER)).keys).to.equal(undefined);
      await carryOut((await abort()).find(({ step }) => step === "machine-web-v3"));
      await served();
    });

    it("given all of it is in force, abort is followed to its end: nothing new is left, the old version has its keys", async () => {
      await operators.until((step) => step === "old-machine-web-v2");
      expect((await world.ask(APP_V3)).code).to.equal("delivered");
      const followed: string[] = [];
      for (let round = 0; round < 4; round += 1) {
        const { standing, until } = await operators.status();
        if (standing === "rolled-back") break;
        if (until > 0) await world.passTimeTo(until);
        for (const action of await abort()) {
          await carryOut(action);
          followed.push(action.step);
        }
      }
      expect(followed).to.deep.equal([
        ...["traffic", "machine-web-v3", "node-south", "node-north", "service-image", "measurements"],
        ...["contracts", "delivery", "contracts", "delivery"],
      ]);
      const { code, standing, alarms, steps } = await operators.status();
      expect([code, standing, alarms]).to.deep.equal([0, "rolled-back", []]);
      expect(steps).to.include({ contracts: "undone", measurements: "undone", "service-image": "undone" });
      expect((await operators.next()).actions).to.deep.equal([]);
      await world.finalize();
      for (const node of ["north", "south"] as const) {
        expect((await world.ask(APP_V2, [node])).code).to.equal("delivered");
        expect((await world.ask(APP_V3, [node])).keys).to.equal(undefined);
      }
    });
  });
});
