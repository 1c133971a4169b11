import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { HardhatEthersSigner } from "@nomicfoundation/hardhat-ethers/types";
import { Interface, keccak256, ZeroHash } from "ethers";
import { startAnvil } from "../../deploy/anvil.ts";
import { deployKms } from "../../deploy/kms.ts";
import { parseParameters } from "../../deploy/parameters.ts";
import { executeThroughSafe } from "../../deploy/safe/account.ts";
import { TIMELOCK_ABI } from "../../src/chain/abi/timelock.ts";
import { formatDeployment } from "../../src/chain/deployment.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { type KmsRegistry, KmsRegistry__factory, PlatformPolicy__factory } from "../../typechain-types/index.ts";
import { fetchActors } from "../deploy/chains.ts";
import { connectToAnvil } from "./anvil.ts";
import { type CliRun, type Folder, keysteadAsync, makeFolder } from "./cli.ts";
import { PROGRAM_ENVIRONMENT } from "./environment.ts";
import { image, KIND, measured } from "./images.ts";
import { NOTICE, TCB } from "./suite.ts";
import { openTeeHall, type TeeHall } from "./tee-server.ts";

/** The chain begins this long ago, so that waiting on it never leads into the future of the processes beside it. */
const HEAD_START = 28 * 86_400;
const DELAY = 3600;
const MAIN = join(import.meta.dirname, "..", "..", "src", "cli", "main.ts");
const TIMELOCK = new Interface(TIMELOCK_ABI);
/** What seals the nodes' root files. */
export const PASSPHRASE = new TextEncoder().encode("a passphrase of the tests, long enough");

/** Images of the end-to-end tests by kind and version, and the platforms below them. */
export const E2E_PLATFORM = {
  tdx: image(KIND.tdx, { 0: measured("mrtd"), 2: measured("rtmr1"), 3: measured("rtmr2") }),
  snp: image(KIND.snp, { 0: measured("snp launch") }),
  nitro: image(KIND.nitro, { 1: measured("pcr1") }),
} as const;

/** An image of a version; what differs is what a workload changes. */
export function versionOf(kind: keyof typeof E2E_PLATFORM, version: string): string {
  if (kind === "snp") return image(KIND.snp, { 0: measured("snp launch"), 1: measured(`host data of ${version}`, 32) });
  if (kind === "nitro")
    return image(KIND.nitro, {
      0: measured(`pcr0 of ${version}`),
      1: measured("pcr1"),
      2: measured(`pcr2 of ${version}`),
    });
  return image(KIND.tdx, {
    0: measured("mrtd"),
    1: measured("rtmr0"),
    2: measured("rtmr1"),
    3: measured("rtmr2"),
    4: measured(`rtmr3 of ${version}`),
  });
}

/** The image that may run as a KMS node. */
export const KMS_IMAGE = versionOf("tdx", "the KMS");

/** `keystead` as a process that goes on. */
export interface KeysteadProcess {
  readonly child: ChildProcess;
  /** Everything that it printed. */
  output(): string;
  /** Ends it, by SIGTERM, and says how it ended. */
  stop(): Promise<number | null>;
}

/** A node that runs as a process of its own. */
export interface NodeProcess extends KeysteadProcess {
  readonly url: string;
}

/** All of Keystead as it is deployed: a chain with finality, real Safes and a timelock, test hardware, and nodes as processes. */
export interface DeliveryWorld {
  readonly folder: Folder;
  readonly rpc: string;
  /** The deployment's record. */
  readonly record: string;
  readonly registry: KmsRegistry;
  readonly hall: TeeHall;
  readonly chainId: bigint;
  readonly addresses: { readonly registry: Hex; readonly policy: Hex };
  /** Policy calls by the governance Safe through the timelock, all of them at once. */
  govern(...calls: readonly string[]): Promise<void>;
  /** Policy calls by the guardian Safe, at once. */
  guard(...calls: readonly string[]): Promise<void>;
  /** Mines until everything that has happened is final. */
  finalize(): Promise<void>;
  pass(seconds: number): Promise<void>;
  accounts(): Promise<HardhatEthersSigner[]>;
  /** The newest block. */
  head(): Promise<number>;
  /** A configuration file of a node. */
  configure(name: string): string;
  /** Runs `keystead node SUBCOMMAND`. */
  node(config: string, ...args: readonly string[]): Promise<CliRun>;
  startNode(config: string): Promise<NodeProcess>;
  spawn(args: readonly string[]): KeysteadProcess;
  stop(): Promise<void>;
}

export const POLICY = PlatformPolicy__factory.createInterface();
const ENVIRONMENT = { KEYSTEAD_ROOT_PASSPHRASE: new TextDecoder().decode(PASSPHRASE) };

/** Deploys everything and opens the policy to the test hardware. */
export async function startDeliveryWorld(): Promise<DeliveryWorld> {
  const folder = makeFolder();
  const start = Math.floor(Date.now() / 1000) - HEAD_START;
  const anvil = await startAnvil({ args: ["--slots-in-an-epoch", "1", "--timestamp", `${start}`] });
  const connection = await connectToAnvil(anvil.url, 31337);
  const { alice, bob, carol, dave, erin } = await fetchActors(connection);
  const parameters = parseParameters({
    safeVersion: "1.5.0",
    governance: { owners: [alice, bob, carol], threshold: 2 },
    guardian: { owners: [dave, erin], threshold: 2 },
    delaySeconds: DELAY,
  });
  const deployment = await deployKms(connection, parameters, undefined, { folder: join(folder.path, "journal") });
  const record = folder.write("deployment.json", formatDeployment(deployment));
  const hall = await openTeeHall(folder);
  const { contracts, safes } = deployment;
  const request = (method: string, ...params: unknown[]) => connection.provider.request({ method, params });
  const pass = async (seconds: number) => {
    await request("evm_increaseTime", seconds);
    await request("evm_mine");
  };
  let operations = 0;
  const nodes: NodeProcess[] = [];
  const [deployer] = await connection.ethers.getSigners();
  if (deployer === undefined) throw new Error("no account");
  const lower = (address: string) => address.toLowerCase() as Hex;
  const world: DeliveryWorld = {
    folder,
    rpc: anvil.url,
    record,
    hall,
    chainId: deployment.chainId,
    addresses: { registry: lower(contracts.registry.address), policy: lower(contracts.policy.address) },
    registry: KmsRegistry__factory.connect(contracts.registry.address, deployer),
    govern: async (...calls) => {
      operations += 1;
      const targets = calls.map(() => contracts.policy.address);
      const batch = [targets, calls.map(() => 0n), calls, ZeroHash, keccak256(Buffer.from(`operation ${operations}`))];
      const send = (data: string) =>
        executeThroughSafe(connection, {
          safe: safes.governance.address,
          signers: [alice, carol],
          calls: [{ to: contracts.timelock.address, data }],
        });
      await send(TIMELOCK.encodeFunctionData("scheduleBatch", [...batch, DELAY]));
      await pass(DELAY + 1);
      await send(TIMELOCK.encodeFunctionData("executeBatch", batch));
    },
    guard: async (...calls) => {
      const list = calls.map((data) => ({ to: contracts.policy.address, data }));
      await executeThroughSafe(connection, { safe: safes.guardian.address, signers: [dave, erin], calls: list });
    },
    finalize: async () => {
      await request("anvil_mine", "0x2");
    },
    pass,
    accounts: () => connection.ethers.getSigners(),
    head: async () => Number(await request("eth_blockNumber")),
    configure: (name) =>
      folder.write(
        `${name}.yaml`,
        JSON.stringify({
          listen: { port: 0 },
          deployment: record,
          chain: {
            endpoints: [{ name: "anvil", url: anvil.url }],
            quorum: 1,
            maxAgeSeconds: 30 * 86_400,
            pollSeconds: 0.25,
          },
          root: { store: "file", path: `${name}.root` },
          receipts: `${name}.receipts`,
          evidence: {
            collateralFiles: [hall.collateral],
            requireSnpCrl: false,
            snpMinimumTcb: { milan: { snp: 1 } },
          },
          unsafeTestTee: { roots: hall.roots },
          limits: { requestsPerSecond: 1000, burst: 10_000 },
          allowCoreDumps: true,
        }),
      ),
    node: (config, ...args) => keysteadAsync(["--json", "node", ...args, "--config", config], { env: ENVIRONMENT }),
    spawn: spawnKeystead,
    startNode: async (config) => {
      const node = await startNodeProcess(config);
      nodes.push(node);
      return node;
    },
    stop: async () => {
      for (const node of nodes) await node.stop();
      await hall.stop();
      await connection.close();
      await anvil.stop();
      folder.remove();
    },
  };
  const kinds = [KIND.tdx, KIND.snp, KIND.nitro];
  const statuses = (1 << TCB.upToDate) | (1 << TCB.notApplicable);
  await world.govern(
    ...kinds.flatMap((kind) => [
      POLICY.encodeFunctionData("enableTee", [kind]),
      POLICY.encodeFunctionData("acceptTcb", [kind, statuses]),
    ]),
    ...Object.values(E2E_PLATFORM).map((platform) =>
      POLICY.encodeFunctionData("allowPlatform", [platform, "test hardware"]),
    ),
    POLICY.encodeFunctionData("allowKmsImage", [KMS_IMAGE, "keystead node"]),
  );
  await world.finalize();
  return world;
}

/** Asks again and again, on a busy machine for two minutes, until there is an answer. */
export async function waitUntil<T>(what: string, ask: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + 120_000;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await sleep(100);
  }
}

/** Starts `keystead` with these arguments; it is ended by SIGTERM. */
function spawnKeystead(args: readonly string[]): KeysteadProcess {
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...PROGRAM_ENVIRONMENT, ...ENVIRONMENT },
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
  const orphaned = () => child.kill("SIGKILL");
  process.once("exit", orphaned);
  const ended = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  const stop = async () => {
    process.off("exit", orphaned);
    if (child.exitCode === null) child.kill("SIGTERM");
    return ended;
  };
  return { child, output: () => said, stop };
}

async function startNodeProcess(config: string): Promise<NodeProcess> {
  const running = spawnKeystead(["node", "run", "--config", config]);
  const url = await waitUntil("the node is ready", async () => {
    if (running.child.exitCode !== null) throw new Error(`the node ended: ${running.output()}`);
    const found = /"url":"(http:[^"]+)"/.exec(running.output())?.[1];
    if (found === undefined) return undefined;
    return (await fetch(`${found}/ready`).catch(() => undefined))?.status === 200 ? found : undefined;
  });
  return { url, ...running };
}

/** A service's configuration with the usual notice period. */
export const serviceConfig = (admin: string) => ({
  admin,
  noticePeriod: NOTICE,
  requireUpToDateTcb: false,
  devices: [],
  description: "end to end",
});
