import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { type ServerType, serve } from "@hono/node-server";
import { acquireKeys, toWireEvidence } from "../../src/agent/acquire.ts";
import type { Device } from "../../src/agent/devices/device.ts";
import { createVmUpdatesApp } from "../../src/audit/vm-updates-app.ts";
import { auditService } from "../../src/audit/walk.ts";
import { type Binding, buildReportData } from "../../src/core/binding.ts";
import { fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import { parseImage } from "../../src/core/image.ts";
import { parseNodeConfig } from "../../src/node/config.ts";
import { startNode } from "../../src/node/server.ts";
import type { Action } from "../../src/rollout/actions.ts";
import type { Measured } from "../../src/rollout/inputs.ts";
import { type KmsRegistry, KmsRegistry__factory } from "../../typechain-types/index.ts";
import { jsonOf, keysteadHere } from "./cli.ts";
import { type GovernedChain, type Person, startGovernedChain, WHO } from "./governed-chain.ts";
import { createTestTees, type TestTees } from "./node.ts";
import { startNodeProcess } from "./node-process.ts";
import { config } from "./registry.ts";
import { APP_V1, APP_V2, KMS_V1, KMS_V2, version } from "./rollout.ts";

const DAY = 86_400;
/** The chain begins so long before now, and catches up as tests let time pass: nodes and machines live by the real clock. */
const HEAD_START = 25 * DAY;
export const NOTICE = DAY;
/** Longer than the head start: the chain's newest block may be that old. */
const MAX_AGE = String(30 * DAY);
const GOVERNANCE: readonly Person[] = ["alice", "bob"];
const GUARDIAN: readonly Person[] = ["dave", "erin"];
const ADMIN: Person = "frank";

type NodeName = "north" | "south";

export const KMS_V3 = version("kms 3");
export const APP_V3 = version("app 3");
/** What operators call the versions: `start north kms-2`, `start web-v2`. */
const VERSIONS: ReadonlyMap<string, Measured> = new Map([
  ...[KMS_V1, KMS_V2, KMS_V3].map((kms, i) => [`kms-${i + 1}`, kms] as const),
  ...[APP_V1, APP_V2, APP_V3].map((app, i) => [`web-v${i + 1}`, app] as const),
]);
/** What people are told in words, and which nothing here depends on. */
const WORDS = /^(switch |add to implementations |restart the nodes|none needed)/;
/** Blocks of {@link RolloutWorld.finalize} are so many seconds apart, so that a node's own figures tell one from the next. */
const APART = 5;

/** What a client that asks all the time has seen. */
export interface Watch {
  /** Requests of machines that must get keys, and got them. */
  delivered: number;
  /** Requests of a machine that must get none, and got none. */
  denied: number;
  /** What must not be: a legitimate machine refused, a wrong one served, other keys than before. */
  readonly wrong: string[];
  stop(): Promise<void>;
}

/** Two nodes, machines of the test TEE and everybody who governs them, on anvil. */
export interface RolloutWorld {
  readonly chain: GovernedChain;
  readonly service: Hex;
  readonly registry: KmsRegistry;
  /** A policy implementation to upgrade to, and another of the same code. */
  readonly newPolicy: string;
  readonly newerPolicy: string;
  /** Machines that run, by name, with the image that they run. */
  readonly running: Map<string, Measured>;
  /** What a command of the operators does in place of the right thing, by its words. */
  readonly sabotage: Map<string, () => Promise<void>>;
  /** Where people type: one line of an action. */
  type(line: string, action: Action): Promise<void>;
  rollout(
    ...args: string[]
  ): Promise<{ readonly code: number | null; readonly json: ReturnType<typeof jsonOf>; readonly stderr: string }>;
  writeDefinition(name: string, definition: object): string;
  /** Makes the first root secret, and gives the identity that is to be published of it. */
  createRoot(): Promise<object>;
  stopNode(name: NodeName): Promise<void>;
  startNode(name: NodeName, kms: Measured, fresh: boolean): Promise<void>;
  /**
   * The same as a process of its own, `keystead node run`, whose configuration a test may change.
   *
   * @throws NodeEnded where it does not start
   */
  startNodeProcess(name: NodeName, kms: Measured, changes: object): Promise<void>;
  nodeUrl(name: NodeName): string;
  /** How many nodes were started and not stopped. */
  nodesUp(): number;
  /** Starts a machine that runs the image of its name, or another. */
  startMachine(name: string, image?: Measured): Promise<void>;
  /** A real request by a machine that runs an image: the keys, or the decision that refused it. */
  ask(
    image: Measured,
    nodes?: readonly NodeName[],
  ): Promise<{ readonly keys: string | undefined; readonly code: string }>;
  /** Lets time pass until the chain's newest block is after that time. */
  passTimeTo(time: number): Promise<void>;
  /** Makes everything that happened final, and known to the nodes. */
  finalize(): Promise<void>;
  /** Asks all the time: as `legitimate()` says for those that must get keys, and a stranger that never must. */
  watch(legitimate: () => readonly Measured[], stranger: Measured): Watch;
  stop(): Promise<void>;
}

const freePort = async (): Promise<number> => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return typeof address === "object" && address !== null ? address.port : 0;
};

const stopServer = (server: ServerType | undefined): Promise<void> =>
  new Promise((resolve) => (server === undefined ? resolve() : server.close(() => resolve())));

const bytesOf = (value: string | undefined) => fromHex(value ?? `0x${"00".repeat(48)}`, "register");

/** What a machine's TEE reports when it runs an image. */
function quoteFor(tees: TestTees, { image }: Measured, reportData: Uint8Array): Uint8Array {
  const { registers } = parseImage(image.text);
  return tees.tdx.issueQuote({
    reportData,
    mrTd: bytesOf(registers.mrtd),
    rtMr0: bytesOf(registers.rtmr0),
    rtMr1: bytesOf(registers.rtmr1),
    rtMr2: bytesOf(registers.rtmr2),
    rtMr3: bytesOf(registers.rtmr3),
  });
}

/** Words of a command line: what is in quotes is one. */
export const wordsOf = (line: string): string[] =>
  [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(([, quoted, single, bare]) => quoted ?? single ?? bare ?? "");

/** Starts the chain, with everything deployed and a service without images. */
export async function startRolloutWorld(): Promise<RolloutWorld> {
  const start = Math.floor(Date.now() / 1000) - HEAD_START;
  const anvilArgs = ["--timestamp", String(start), "--slots-in-an-epoch", "1"];
  const chain = await startGovernedChain("anvil", { anvilArgs });
  const tees = await createTestTees();
  const { ethers } = chain.connection;
  const admin = await ethers.getSigner(WHO[ADMIN].address);
  const registry = KmsRegistry__factory.connect(chain.deployment.contracts.registry.address, admin);
  const salt = `0x${"01".repeat(32)}`;
  await (await registry.createService(config(admin.address, { noticePeriod: NOTICE }), salt)).wait();
  const service = (await registry.serviceIdFor(admin.address, salt)).toLowerCase() as Hex;
  const deployPolicy = async () => {
    const deployed = await ethers.deployContract("PlatformPolicyV2");
    await deployed.waitForDeployment();
    const address = await deployed.getAddress();
    return { address, codeHash: ethers.keccak256(await ethers.provider.getCode(address)) };
  };
  const pins = [await deployPolicy(), await deployPolicy()];
  const [newPolicy = "", newerPolicy = ""] = pins.map(({ address }) => address);

  /** `follows`: it is to follow the chain, and is waited for. */
  const nodes = new Map<NodeName, { readonly close: () => Promise<unknown>; readonly follows: boolean }>();
  const ports: Record<NodeName, number> = { north: await freePort(), south: await freePort() };
  const nodeUrl = (name: NodeName) => `http://127.0.0.1:${ports[name]}`;
  const running = new Map<string, Measured>();
  const updates = new Map<string, ServerType>();
  const machinePorts = new Map<string, number>();
  const sabotage = new Map<string, () => Promise<void>>();
  const roots = [tees.tdx.root, tees.snp.root, tees.nitro.root].map((der, i) =>
    tees.folder.write(`root-${i}.der`, der),
  );
  let generation = 0;
  const rootFiles = new Map<NodeName, string>();
  let identity: { environmentKey: string; receiptSigner: string } | undefined;

  const configOf = (name: NodeName, fresh: boolean) => {
    if (fresh) {
      generation += 1;
      rootFiles.set(name, join(tees.folder.path, `${name}-${generation}.root.json`));
    }
    const other: NodeName = name === "north" ? "south" : "north";
    const joins = identity !== undefined && (nodes.has(other) || name === "south");
    return {
      listen: { port: ports[name] },
      deployment: chain.record,
      implementations: { policy: pins },
      chain: {
        endpoints: [{ name: "anvil", url: chain.url }],
        ...{ quorum: 1, maxAgeSeconds: 30 * DAY, maxFutureSeconds: DAY, pollSeconds: 0.5 },
      },
      root: { store: "file", path: rootFiles.get(name), passphraseFile: join(tees.folder.path, "passphrase") },
      receipts: join(tees.folder.path, `${name}.receipts.jsonl`),
      evidence: { collateralFiles: tees.judgeOptions.collateralFiles, requireSnpCrl: false },
      unsafeTestTee: { roots },
      limits: { requestsPerSecond: 100_000, burst: 1_000_000, timeoutMs: 60_000 },
      log: { level: "silent" },
      allowCoreDumps: true,
      ...(joins && fresh ? { join: { url: nodeUrl(other), ...identity } } : {}),
    };
  };
  tees.folder.write("passphrase", "a passphrase of the tests\n");
  tees.folder.write("other-passphrase", "another than the root files are sealed under\n");
  const attestAs = (measured: Measured) => async (binding: Binding) =>
    toWireEvidence({ kind: "tdx", quote: quoteFor(tees, measured, buildReportData(binding)) });

  const world: RolloutWorld = {
    ...{ chain, service, registry, newPolicy, newerPolicy, running, sabotage, nodeUrl },
    nodesUp: () => nodes.size,
    async passTimeTo(time) {
      const latest = await ethers.provider.getBlock("latest");
      await chain.passTime(Math.max(1, time + 1 - (latest?.timestamp ?? 0)));
    },
    async startNode(name, kms, fresh) {
      const surroundings = { attest: attestAs(kms) };
      await world.stopNode(name);
      const started = await startNode(
        parseNodeConfig(JSON.stringify(configOf(name, fresh)), {}, tees.folder.path),
        surroundings,
      );
      nodes.set(name, { close: started.close, follows: true });
    },
    async startNodeProcess(name, kms, changes) {
      await world.stopNode(name);
      running.set(`kms-of-${name}`, kms);
      const config = { ...configOf(name, true), log: { level: "info" }, ...changes };
      const file = tees.folder.write(`${name}.process.yaml`, JSON.stringify(config));
      const [program = "", ...args] = evidencePrograms.get(world)?.(`kms-of-${name}`) ?? [];
      const evidence = ["--evidence-command", program, ...args.flatMap((arg) => ["--evidence-arg", arg])];
      const started = await startNodeProcess(file, {}, evidence);
      nodes.set(name, { close: () => started.kill("SIGTERM"), follows: false });
    },
    async createRoot() {
      const file = tees.folder.write("north.yaml", JSON.stringify(configOf("north", true)));
      expectDone(await chain.run(undefined, ["node", "init", "--config", file]), "node init");
      const run = await chain.run(undefined, ["node", "identity", "--config", file, "--json"]);
      const { root_epoch, environment_key, receipt_signer } = jsonOf(run);
      identity = { environmentKey: environment_key, receiptSigner: receipt_signer };
      const receiptSigner = ethers.getAddress(receipt_signer);
      return {
        rootEpoch: root_epoch,
        environmentKey: environment_key,
        receiptSigner,
        evidenceHash: `0x${"e1".repeat(32)}`,
      };
    },
    async stopNode(name) {
      await nodes.get(name)?.close();
      nodes.delete(name);
    },
    async rollout(...args) {
      const own = ["plan", "preflight", "status", "next", "verify", "abort", "propose"].includes(args[0] ?? "");
      const run = await chain.run(undefined, ["--json", "rollout", ...args, ...(own ? ["--max-age", MAX_AGE] : [])]);
      return { code: run.code, json: run.stdout === "" ? undefined : jsonOf(run), stderr: run.stderr };
    },
    writeDefinition: (name, definition) => chain.write(name, JSON.stringify(definition)),
    async type(line, action) {
      const [what = line] = line.split("   (");
      const instead = [...sabotage].find(([start]) => what.startsWith(start));
      if (instead !== undefined) return instead[1]();
      if (what.startsWith("keystead rollout acknowledge "))
        return expectDone(
          await chain.run(
            undefined,
            wordsOf(what)
              .slice(1)
              .map((word) => (word === "NAME" ? "Ada" : word)),
          ),
          what,
        );
      if (what.startsWith("keystead ")) return typeCommand(what, action);
      if (WORDS.test(what)) return;
      await finalize();
      await operate(what);
    },
    async ask(image, asked = ["north", "south"]) {
      const device: Device = {
        name: "test TEE",
        attest: async (binding) => ({ kind: "tdx", quote: quoteFor(tees, image, buildReportData(binding)) }),
      };
      const signers = async () => new Set([identity?.receiptSigner as Hex]);
      const registryHex = chain.deployment.contracts.registry.address.toLowerCase() as Hex;
      const trust = { chainId: 31337n, registry: registryHex, signers, allowTestTee: true };
      try {
        const opened = await acquireKeys({
          ...{ nodes: asked.map(nodeUrl), device, serviceId: service, trust, imageId: image.image.id },
          ...{ waitSeconds: 0, log: () => {} },
        });
        const keys = opened.bundle.keys.map(({ purpose, key }) => `${purpose} ${toHex(key)}`).join("\n");
        opened.plaintext.fill(0);
        return { keys, code: "delivered" };
      } catch (error) {
        if (!isKeysteadError(error)) throw error;
        return { keys: undefined, code: String(error.details.decision ?? error.code) };
      }
    },
    finalize,
    startMachine,
    watch: (legitimate, stranger) => watchDelivery(world, legitimate, stranger),
    async stop() {
      for (const server of updates.values()) await stopServer(server);
      for (const name of ["north", "south"] as const) await world.stopNode(name);
      device.close();
      await chain.stop();
      tees.folder.remove();
    },
  };

  /** Makes evidence for programs that ask for it by HTTP, as the machine of the path's name. */
  const device: Server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const { report_data } = JSON.parse(Buffer.concat(chunks).toString());
      const measured = running.get((request.url ?? "").slice(1));
      response.end(measured === undefined ? "" : quoteFor(tees, measured, fromHex(report_data, "report_data")));
    });
  });
  await new Promise<void>((resolve) => device.listen(0, "127.0.0.1", resolve));
  const address = device.address();
  const devicePort = typeof address === "object" && address !== null ? address.port : 0;
  const program = tees.folder.write(
    "evidence.mjs",
    `const chunks = []; for await (const chunk of process.stdin) chunks.push(chunk);
     const answer = await fetch(process.argv[2], { method: "POST", body: Buffer.concat(chunks) });
     process.stdout.write(Buffer.from(await answer.arrayBuffer()));`,
  );
  evidencePrograms.set(world, (name) => [process.execPath, program, `http://127.0.0.1:${devicePort}/${name}`]);
  quoteFiles.set(world, (name) => join(tees.folder.path, `${name}.quote`));
  machineUrls.set(world, async (name) => {
    const port = machinePorts.get(name) ?? (await freePort());
    machinePorts.set(name, port);
    return `http://127.0.0.1:${port}`;
  });

  const expectDone = (run: { code: number | null; stdout: string; stderr: string }, line: string) => {
    if (run.code !== 0) throw new Error(`${line}\nexit ${run.code}\n${run.stdout.slice(0, 2000)}\n${run.stderr}`);
  };

  /** Signers sign, whoever pays sends, the admin acts with a key of its own. */
  async function typeCommand(line: string, { governance }: Action): Promise<void> {
    const [, ...args] = wordsOf(line);
    const [command, subcommand] = args;
    if (command === "rollout") {
      // machines of the tests are of test TEEs, and people have read which programs the plan names
      const programs = subcommand === "verify" ? ["--run-commands", "--allow-test-tee"] : [];
      const own = subcommand === "backup" ? [] : ["--max-age", MAX_AGE];
      return expectDone(await chain.run(undefined, [...args, ...programs, ...own]), line);
    }
    if (command === "service") {
      const sender = { ...chain.environment(undefined), KEYSTEAD_SENDER_KEY: WHO[ADMIN].key };
      return expectDone(await keysteadHere(args, sender), line);
    }
    const guardians =
      governance === "guardian" ||
      args.includes("cancel") ||
      // what was loosened is tightened by the guardian
      (args.includes("rollback") && governance === "timelock" && line.includes("measurements"));
    const people = command === "sign" ? (guardians ? GUARDIAN : GOVERNANCE) : (["relayer"] as const);
    const more = command === "simulate" ? ["--max-age", MAX_AGE] : command === "sign" ? ["--yes"] : [];
    for (const person of people) expectDone(await chain.run(person, [...args, ...more]), line);
  }

  /** Nodes believe final blocks alone; here a block is final two later, and nodes look twice a second. */
  async function finalize(): Promise<void> {
    await chain.connection.provider.request({ method: "anvil_mine", params: ["0x3", `0x${APART.toString(16)}`] });
    const final = await ethers.provider.getBlock("finalized");
    const wanted = (final?.timestamp ?? 0) - APART / 2;
    for (const [name, { follows }] of nodes) {
      const deadline = Date.now() + 180_000;
      while (follows && ((await timeOf(name)) ?? 0) < wanted) {
        if (Date.now() > deadline) throw new Error(`${name} does not follow the chain to ${final?.number}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  /** The time of the block that a node decides by; undefined where it decides nothing. */
  async function timeOf(name: NodeName): Promise<number | undefined> {
    const text = await (await fetch(`${nodeUrl(name)}/metrics`)).text();
    const metric = (wanted: string) => Number(new RegExp(`^${wanted} (\\S+)$`, "m").exec(text)?.[1]);
    return metric("keystead_chain_ready") === 1 ? Date.now() / 1000 - metric("keystead_chain_age_seconds") : undefined;
  }

  /** What operators do by hand. */
  async function operate(line: string): Promise<void> {
    const [verb, name = "", which, how] = line.split(" ");
    if (name === "north" || name === "south") {
      if (verb === "stop") return world.stopNode(name);
      const kms = VERSIONS.get(which ?? "");
      // a new image is a new machine: it gets the root secret from the other node, but for the first of all
      if (verb === "start" && kms !== undefined) return world.startNode(name, kms, how !== "first");
    }
    if (verb === "start" && name.startsWith("web-")) return startMachine(name);
    if (verb === "stop" && name.startsWith("web-")) return stopMachine(name);
    throw new Error(`nobody knows how to: ${line}`);
  }

  async function startMachine(name: string, measured = VERSIONS.get(name)): Promise<void> {
    if (measured === undefined) throw new Error(`no version is called ${name}`);
    running.set(name, measured);
    tees.folder.write(`${name}.quote`, quoteFor(tees, measured, new Uint8Array(64)));
    const registryHex = chain.deployment.contracts.registry.address.toLowerCase() as Hex;
    const read = () => auditService(chain.client, registryHex, service);
    // a machine of this chain, which is behind
    const app = createVmUpdatesApp({ serviceId: service, read, maxAge: 30 * DAY });
    const port = machinePorts.get(name) ?? 0;
    await stopServer(updates.get(name));
    const server = await new Promise<ServerType>((resolve) => {
      const made = serve({ fetch: app.fetch, hostname: "127.0.0.1", port }, () => resolve(made));
    });
    updates.set(name, server);
  }

  async function stopMachine(name: string): Promise<void> {
    running.delete(name);
    await stopServer(updates.get(name));
    updates.delete(name);
  }
  return world;
}

const evidencePrograms = new WeakMap<RolloutWorld, (name: string) => string[]>();
const quoteFiles = new WeakMap<RolloutWorld, (name: string) => string>();
const machineUrls = new WeakMap<RolloutWorld, (name: string) => Promise<string>>();

/** A machine as a definition names it. */
export async function machineOf(world: RolloutWorld, name: string, runs: "old" | "new"): Promise<object> {
  return {
    ...{ name, runs, start: `start ${name}`, stop: `stop ${name}` },
    updates: await machineUrls.get(world)?.(name),
    quote: quoteFiles.get(world)?.(name),
    evidence: evidencePrograms.get(world)?.(name),
  };
}

function watchDelivery(world: RolloutWorld, legitimate: () => readonly Measured[], stranger: Measured): Watch {
  let on = true;
  let keys: string | undefined;
  const watch = { delivered: 0, denied: 0, wrong: [] as string[] };
  const loop = (async () => {
    while (on) {
      for (const image of legitimate()) {
        const answer = await world.ask(image);
        if (answer.keys === undefined) watch.wrong.push(`a legitimate machine was refused: ${answer.code}`);
        else if (keys !== undefined && keys !== answer.keys) watch.wrong.push("a machine got other keys than before");
        else watch.delivered += 1;
        keys ??= answer.keys;
      }
      const wrong = await world.ask(stranger);
      if (wrong.code === "ImageUnknown" || wrong.code === "PlatformNotAllowed") watch.denied += 1;
      else watch.wrong.push(`a machine that is not registered got ${wrong.code}`);
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    }
  })();
  return Object.assign(watch, {
    stop: async () => {
      on = false;
      await loop;
    },
  });
}
