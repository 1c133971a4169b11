import { expect } from "chai";
import { formatDeployment } from "../../src/chain/deployment.ts";
import { httpTransport } from "../../src/chain/http.ts";
import type { PinnedDeployment } from "../../src/chain/pins.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { type HttpQuirks, type QuirkServer, type Quirks, serveQuirks, withQuirks } from "../../testing/quirks.ts";
import { DstackAuth__factory, KmsRegistry__factory, PlatformPolicy__factory } from "../../typechain-types/index.ts";
import { type Loaded, load } from "../../web/src/data/load.ts";
import { type CliRun, jsonOf, keysteadHere } from "./cli.ts";
import { createService, machineOf, makeDecider, pinSuite } from "./decider.ts";
import { type GovernedChain, type Person, startGovernedChain } from "./governed-chain.ts";
import { V1 } from "./registry.ts";
import type { Suite } from "./suite.ts";

/** A deployment with a service and a signed proposal, and everything that people do with it, through an endpoint that has quirks. */
export interface QuirkWorld {
  readonly chain: GovernedChain;
  readonly serviceId: Hex;
  readonly pins: PinnedDeployment;
  /** A proposal whose first step is signed. */
  readonly proposal: string;
  /** The record's file for a chain whose numbers are higher by so many. */
  recordAt(ahead: number): string;
  /** Serves the chain with quirks while `act` runs. */
  through<T>(quirks: Quirks, act: (url: string) => Promise<T>, http?: HttpQuirks): Promise<T>;
  run(url: string, args: readonly string[], person?: Person): Promise<CliRun>;
  stop(): Promise<void>;
}

/** Nothing that the tests do takes long enough for a block to grow old; the chain's clock is moved by some tests. */
const ANY_AGE = ["--max-age", "999999999"];

/** Starts the world on anvil. */
export async function startQuirkWorld(): Promise<QuirkWorld> {
  const chain = await startGovernedChain("anvil", { anvilArgs: ["--slots-in-an-epoch", "1"] });
  try {
    return await settle(chain);
  } catch (error) {
    await chain.stop();
    throw error;
  }
}

/** The service, the proposal and its signatures. */
async function settle(chain: GovernedChain): Promise<QuirkWorld> {
  const { connection, deployment } = chain;
  const [deployer] = await connection.ethers.getSigners();
  if (deployer === undefined) throw new Error("no account");
  const { contracts } = deployment;
  const suite = {
    ...{ connection, deployer, admin: deployer },
    registry: KmsRegistry__factory.connect(contracts.registry.address, deployer),
    policy: PlatformPolicy__factory.connect(contracts.policy.address, deployer),
    dstackAuth: DstackAuth__factory.connect(contracts.dstackAuth.address, deployer),
  } as unknown as Suite;
  const serviceId = await createService(suite, "quirks");
  const proposal = `${chain.proposals}/001-tdx`;
  const where = ["--id", "001-tdx", "--deployment", chain.record, "--out", chain.proposals, "--rpc", chain.url];
  const proposed = await chain.run(undefined, ["propose", "enable-tee", "--kind", "tdx", ...where, "--json"]);
  expect(proposed.code, proposed.stderr).to.equal(0);
  for (const person of ["alice", "bob"] as const) {
    const signed = await chain.run(person, ["sign", proposal, "--step", "schedule", "--yes"]);
    expect(signed.code, signed.stderr).to.equal(0);
  }
  // what is there now is final
  await connection.provider.request({ method: "anvil_mine", params: ["0x3"] });
  const honest = httpTransport(chain.url, 30_000);
  return {
    ...{ chain, serviceId, proposal },
    pins: await pinSuite(suite),
    recordAt: (ahead) => chain.write(`record-${ahead}.json`, shiftBlocks(formatDeployment(deployment), ahead)),
    async through(quirks, act, http) {
      const server: QuirkServer = await serveQuirks(withQuirks(honest, quirks), http);
      try {
        return await act(server.url);
      } finally {
        await server.stop();
      }
    },
    run: (url, args, person) => keysteadHere(args, { ...chain.environment(person), KEYSTEAD_RPC_URL: url }),
    stop: () => chain.stop(),
  };
}

function shiftBlocks(record: string, ahead: number): string {
  const shift = (name: string, value: unknown) => (name === "block" ? Number(value) + ahead : value);
  return `${JSON.stringify(JSON.parse(record, shift), null, 2)}\n`;
}

/** What everything said that was run through one endpoint. */
export interface Rounds {
  readonly audit: CliRun;
  readonly status: CliRun;
  readonly lint: CliRun;
  readonly explorer: Loaded;
  readonly decision: string;
  readonly executed: CliRun;
}

/** Runs `audit --all`, `status`, `lint`, the explorer's data layer, a node and `execute`, whose effect is taken back. */
export async function runRounds(world: QuirkWorld, url: string, quirks: Quirks): Promise<Rounds> {
  const { chain, pins, serviceId } = world;
  const ahead = quirks.orbit?.ahead ?? 0;
  const record = world.recordAt(ahead);
  const at = ["--deployment", record, "--proposals", chain.proposals, ...ANY_AGE, "--json"];
  const audit = await world.run(url, ["audit", "--all", "--deployment", record, ...ANY_AGE, "--json"]);
  const status = await world.run(url, ["status", ...at]);
  const lint = await world.run(url, ["lint", ...at]);
  const { contracts } = chain.deployment;
  const lower = (address: string) => address.toLowerCase() as Hex;
  const [registry, policy] = [lower(contracts.registry.address), lower(contracts.policy.address)];
  const settings = { rpc: url, witness: undefined, registry, policy, timelock: undefined, chainId: undefined };
  const explorer = await load({ ...settings, fromBlock: chain.deployment.block + ahead }, { onProgress: () => {} });
  const decision = await decideThrough(world, url, ahead, pins, serviceId);
  const snapshot = await chain.connection.provider.request({ method: "evm_snapshot" });
  const executed = await world.run(url, ["execute", world.proposal, "--deployment", record, "--json"], "relayer");
  await chain.connection.provider.request({ method: "evm_revert", params: [snapshot] });
  return { audit, status, lint, explorer, decision, executed };
}

/** What a node says of a machine that runs the service's image, which it has to find in the history. */
async function decideThrough(
  { chain }: QuirkWorld,
  url: string,
  ahead: number,
  pins: PinnedDeployment,
  serviceId: Hex,
): Promise<string> {
  const time = async () => (await chain.connection.ethers.provider.getBlock("latest"))?.timestamp ?? 0;
  const deployment = { ...pins, fromBlock: pins.fromBlock + ahead };
  const provider = httpTransport(url, 10_000);
  const { decider } = await makeDecider({ deployment, time }, [provider], { maxAgeSeconds: 1_000_000 });
  const { decision } = await decider.decide({ serviceId, machine: machineOf(V1) });
  return decision;
}

/** Everything as it is through an honest endpoint: proven, nothing found, scheduled. */
export function expectAllWell(rounds: Rounds, decision: string, proven = true): void {
  const { audit, status, lint, explorer, executed } = rounds;
  expect(audit.code, `audit: ${audit.stderr}${audit.stdout.slice(0, 300)}`).to.equal(proven ? 0 : 2);
  expect(jsonOf(audit).verdict).to.equal(proven ? "proven" : "consistent");
  expect(jsonOf(audit).services).to.have.length(1);
  expect(status.code, `status: ${status.stderr}`).to.equal(0);
  expect(jsonOf(status).proposals[0].state).to.equal("signed");
  if (proven) expect([lint.code, lint.stderr], `lint: ${lint.stdout.slice(0, 500)}`).to.deep.equal([0, ""]);
  expect(explorer.suite.verdict).to.equal(proven ? "proven" : "consistent");
  const { governance } = explorer;
  expect(governance instanceof Error ? governance.message : governance.differences).to.deep.equal([]);
  expect(rounds.decision).to.equal(decision);
  expect(executed.code, `execute: ${executed.stderr}`).to.equal(0);
}
