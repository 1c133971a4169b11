import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import type { Deployment } from "../../../chain/deployment.ts";
import type { Client } from "../../../chain/client.ts";
import { decodeUtf8, type Hex, toHex } from "../../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../../core/errors.ts";
import { isJsonObject, parseJson } from "../../../core/json.ts";
import type { Measurement } from "../../../core/measurement.ts";
import { readProposal } from "../../../governance/folder.ts";
import type { ChainFacts, Facts, MachineFacts, NodeFacts } from "../../../rollout/facts.ts";
import type { Measuring } from "../../../rollout/inputs.ts";
import { findUnpinned, type PinningFault } from "../../../rollout/pinning.ts";
import { type Plan, parsePlan } from "../../../rollout/plan.ts";
import { readChain } from "../../../rollout/read-chain.ts";
import { readMachine } from "../../../rollout/read-machines.ts";
import { readNode } from "../../../rollout/read-nodes.ts";
import { type ChainOption, openChain, type OptionValues, requireNow } from "../../chain-input.ts";
import type { CommandContext } from "../../command.ts";
import type { Io } from "../../io.ts";
import { readDeploymentFile } from "../decode.ts";
import { progressOf } from "../../proposal-input.ts";
import { loadReaders } from "../measure/index.ts";

const PLAN_LIMIT = 4 * 1024 * 1024;

/** Options of every rollout command that reads the chain: where it is stands in the plan. */
export const ROLLOUT_OPTIONS: readonly ChainOption[] = [
  { flags: "--rpc <url>", description: "an endpoint of the chain (or KEYSTEAD_RPC_URL in the environment)" },
  { flags: "--witness <url>", description: "another endpoint, which must have the same block" },
  { flags: "--max-age <seconds>", description: "how old the newest block may be (default: 3600)" },
];

/** A plan that was read, and everything that was just found out about it. */
export interface OpenRollout {
  readonly file: string;
  readonly plan: Plan;
  readonly facts: Facts;
  /** Undefined where the chain could not be read. */
  readonly client: Client | undefined;
  readonly deployment: Deployment | undefined;
}

/**
 * Reads a plan file.
 *
 * @throws KeysteadError as `parsePlan` and reading files
 * @example
 * const plan = await readPlan(io, "rollout.json");
 */
export async function readPlan(io: Io, file: string): Promise<Plan> {
  const { bytes } = await io.readFile(file, { limit: PLAN_LIMIT, argument: "plan" });
  return parsePlan(decodeUtf8(bytes, "plan"));
}

/**
 * Reads a plan and asks chain, nodes and machines. What does not answer is an error in its place; the plan itself must be there.
 *
 * @throws KeysteadError as {@link readPlan}; `usage/…`
 * @example
 * const { plan, facts } = await openRollout(context, "rollout.json", command.opts());
 */
export async function openRollout(context: CommandContext, file: string, options: OptionValues): Promise<OpenRollout> {
  const { io } = context;
  const progress = progressOf(io, context.output());
  const plan = await readPlan(io, file);
  const { deployment: place, service, application } = plan.inputs;
  const now = Math.floor(Date.now() / 1000);
  progress("reading the chain");
  const read = await readChainOrError(io, plan, options);
  const signers = isKeysteadError(read.chain) ? undefined : read.chain.receiptSigners;
  progress(`asking ${plan.inputs.nodes.length} nodes and ${plan.inputs.machines.length} machines`);
  const registry: Hex = `0x${place.registry.slice(2).toLowerCase()}`;
  const nodes = await Promise.all(
    plan.inputs.nodes.map(async ({ name, url }): Promise<[string, NodeFacts]> => {
      const at = { chainId: BigInt(place.chainId), registry, service: service.id, signers, since: plan.inputs.created };
      return [name, await readNode(url, at)];
    }),
  );
  const readFile = async (path: string) => (await io.readFile(path, { argument: "quote" })).bytes;
  const machines = await Promise.all(
    plan.inputs.machines.map(async (machine): Promise<[string, MachineFacts]> => {
      const image = machine.runs === "new" ? application?.new.image.text : application?.old?.image.text;
      return [machine.name, await readMachine(machine, { service: service.id, image, readFile })];
    }),
  );
  const facts: Facts = {
    now: isKeysteadError(read.chain) ? now : read.chain.time,
    chain: read.chain,
    nodes: new Map(nodes),
    machines: new Map(machines),
    folders: await foldersOf(plan),
  };
  return { file, plan, facts, client: read.client, deployment: read.deployment };
}

interface ReadChain {
  readonly chain: ChainFacts | KeysteadError;
  readonly client: Client | undefined;
  readonly deployment: Deployment | undefined;
}

/** Wrong usage is thrown; an endpoint that does not answer, lies or stands still is a fact. */
async function readChainOrError(io: Io, plan: Plan, options: OptionValues): Promise<ReadChain> {
  const { deployment: place, service } = plan.inputs;
  let deployment: Deployment | undefined;
  try {
    const chainId = place.chainId;
    const input = await openChain(io, { ...options, registry: place.registry, policy: place.policy, chainId });
    await requireNow(input, Date.now() / 1000);
    deployment = await recordOf(io, plan);
    const chain = await readChain(input.client, { ...place, service: service.id }, input.witnesses);
    return { chain, client: input.client, deployment };
  } catch (error) {
    if (!isKeysteadError(error) || error.code.startsWith("usage/")) throw error;
    return { chain: error, client: undefined, deployment };
  }
}

/** The deployment's record, for those who have it; the plan holds the addresses. */
async function recordOf(io: Io, plan: Plan): Promise<Deployment | undefined> {
  try {
    return await readDeploymentFile(io, plan.inputs.deployment.file);
  } catch (error) {
    if (isKeysteadError(error, "input/not-found")) return undefined;
    throw error;
  }
}

async function foldersOf({ steps, inputs }: Plan): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  for (const { proposal } of steps) {
    if (proposal === null) continue;
    try {
      await readProposal(join(inputs.proposals.folder, proposal.id));
      found.add(proposal.id);
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
    }
  }
  return found;
}

/**
 * Measures something as a plan or a definition says.
 *
 * @throws KeysteadError `measure/unknown-reader`, and those of the reader
 * @example
 * const measure = await measuring(io);
 */
export async function measuring(io: Io): Promise<(wanted: Measuring) => Promise<Measurement>> {
  const readers = await loadReaders();
  return async ({ as, inputs, options }) => {
    const reader = readers.find(({ name }) => name === as);
    if (reader !== undefined) return reader.read(io, { inputs, options });
    throw new KeysteadError("measure/unknown-reader", `there is no input ${JSON.stringify(as)}`, {
      argument: "as",
      remedy: `Use one of ${readers.map(({ name }) => name).join(", ")}.`,
    });
  };
}

/** SHA-256 of a file, read by the rules of the command line. */
export const hashFileWith =
  (io: Io) =>
  async (path: string): Promise<Hex> =>
    toHex(
      createHash("sha256")
        .update((await io.readFile(path)).bytes)
        .digest(),
    );

/**
 * The compose files that something is measured from, checked for images without digest.
 *
 * @example
 * await composeFaults(io, plan.inputs.application.new.measuring);
 */
export async function composeFaults(
  io: Io,
  { as, inputs }: Measuring,
): Promise<ReadonlyMap<string, readonly PinningFault[]>> {
  const [first = "-"] = inputs;
  if (as === "compose") return new Map([[first, findUnpinned((await io.readFile(first)).bytes)]]);
  if (as !== "app" && as !== "dstack") return new Map();
  const document = parseJson(decodeUtf8((await io.readFile(first)).bytes, first), first);
  const compose = isJsonObject(document) ? (document.docker_compose_file ?? "docker-compose.yaml") : undefined;
  if (typeof compose !== "string") {
    return new Map([[first, [{ code: "not-compose", line: 0, says: "docker_compose_file is no text" }]]]);
  }
  // an app-compose.json holds the file itself, an app.json names it
  if (as === "dstack") return new Map([[first, findUnpinned(new TextEncoder().encode(compose))]]);
  const path = join(dirname(first), compose);
  return new Map([[path, findUnpinned((await io.readFile(path)).bytes)]]);
}
