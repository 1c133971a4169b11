import { type Block, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { type Fork, forkChain, type ReadAccount } from "./fork.ts";
import { lifeOf, phaseBefore, phaseOf } from "./life.ts";
import type { Operation } from "./operation.ts";
import { type Played, playPart } from "./play.ts";
import { addLooked, claimsOf, type Play } from "./play-safe.ts";
import { type Basis, type BasisOptions, proveClaims, requireWitnesses } from "./proven.ts";
import type { SimulateOptions } from "./simulate.ts";
import { fetchTimelockState, type TimelockPhase } from "./timelock-state.ts";

/** One pending proposal in the stack. */
export interface PreviewedProposal extends Played {
  readonly id: string;
  /** Where it stood on the chain. */
  readonly phase: TimelockPhase;
  /** Seconds since 1970 from when on it could be executed, where it was scheduled. */
  readonly readyAt: bigint | null;
}

/** All pending proposals, one on top of the other. */
export interface Preview {
  /** Each does what it says, on the state that those before it leave. */
  readonly ok: boolean;
  readonly block: Pick<Block, "number" | "hash" | "timestamp">;
  readonly proposals: readonly PreviewedProposal[];
  /** Executed already: not played. */
  readonly done: readonly string[];
  readonly basis: Basis;
}

/** How a preview is made. */
export interface PreviewOptions extends BasisOptions {
  readonly block?: Block | undefined;
  /** The deployment's block, where logs have to be searched. */
  readonly fromBlock?: number | undefined;
  readonly onProgress?: ((line: string) => void) | undefined;
  readonly onPlayed?: SimulateOptions["onPlayed"];
}

/** A proposal, and the nonces that its direct step was signed with. */
export interface Pending {
  readonly operation: Operation;
  readonly signedNonces: readonly bigint[];
}

/**
 * Plays every pending proposal on one private copy of the chain, each on the state that those before it leave: direct ones first (they wait for nobody),
 * then what is scheduled by the time that it is ready, then what is not scheduled yet by its number. What fails alone and what fails only on top of
 * another both show.
 *
 * @param proposals by id, each verified
 * @throws KeysteadError `chain/wrong-chain`; as `simulateProposal`
 * @example
 * (await previewProposals(client, pending)).proposals.map(({ id, differences }) => [id, differences.length]);
 */
export async function previewProposals(
  client: Client,
  proposals: ReadonlyMap<string, Pending>,
  options: PreviewOptions = {},
): Promise<Preview> {
  const { onProgress = () => {}, onPlayed } = options;
  const block = options.block ?? (await fetchBlock(client, "latest"));
  await requireWitnesses(options.witnesses ?? [], block);
  const done: string[] = [];
  const stack: Queued[] = [];
  for (const [id, pending] of proposals) {
    if (BigInt(client.chainId) !== pending.operation.chainId) throw otherChain(id, client, pending.operation);
    const queued = await queue(client, block, id, pending, options.fromBlock);
    if (queued === undefined) done.push(id);
    else stack.push(queued);
  }
  stack.sort((a, b) => a.rank - b.rank || Number((a.readyAt ?? 0n) - (b.readyAt ?? 0n)) || (a.id < b.id ? -1 : 1));
  onProgress(`copying chain ${client.chainId} at block ${block.number}`);
  const fork = await forkChain(client, block);
  try {
    const stage = new Map<Hex, ReadAccount>();
    const looked = new Set<string>();
    const previewed: PreviewedProposal[] = [];
    for (const { id, operation, phase, readyAt } of stack) {
      onProgress(`${id}: played on what those before it leave`);
      const played = await playPart(
        playOf(fork, operation, stage, looked, onProgress, onPlayed),
        "operation",
        await phaseNow(fork, operation),
        "done",
      );
      previewed.push({ id, phase, readyAt, ...played });
    }
    onProgress(`proving what was read of ${stage.size} accounts`);
    await addLooked(fork, stage, looked);
    const basis = await proveClaims(client, block, claimsOf(stage), options);
    const { number, hash, timestamp } = block;
    const ok = previewed.every(({ differences }) => differences.length === 0);
    return { ok, block: { number, hash, timestamp }, proposals: previewed, done, basis };
  } finally {
    await fork.stop();
  }
}

interface Queued {
  readonly id: string;
  readonly operation: Operation;
  readonly phase: TimelockPhase;
  readonly readyAt: bigint | null;
  /** 0: direct. 1: scheduled. 2: neither. */
  readonly rank: number;
}

async function queue(
  client: Client,
  block: Block,
  id: string,
  { operation, signedNonces }: Pending,
  fromBlock: number | undefined,
): Promise<Queued | undefined> {
  const phase = await phaseBefore(client, block, operation, { signedNonces, fromBlock });
  if (phase === "done") return undefined;
  const { terms, side } = lifeOf(operation, "operation");
  if (terms === null || side === null) return { id, operation, phase, readyAt: null, rank: 0 };
  // what expired has to be scheduled again
  const unscheduled = phase === "unset" || phase === "expired";
  const { readyAt = null } = unscheduled
    ? {}
    : await fetchTimelockState(client, block, terms.address, side.operationId as Hex);
  return { id, operation, phase, readyAt, rank: unscheduled ? 2 : 1 };
}

/** On the copy, where others were played before: time has passed there. */
const phaseNow = async (fork: Fork, operation: Operation): Promise<TimelockPhase> =>
  phaseOf(fork.client, await fetchBlock(fork.client, "latest"), lifeOf(operation, "operation"));

const playOf = (
  fork: Fork,
  operation: Operation,
  stage: Map<Hex, ReadAccount>,
  looked: Set<string>,
  onProgress: (line: string) => void,
  onPlayed: SimulateOptions["onPlayed"],
): Play => ({
  ...{ fork, operation, stage, onProgress },
  looked: (slots) => {
    for (const slot of slots) looked.add(slot);
  },
  ...(onPlayed === undefined ? {} : { played: (step, hash) => onPlayed(fork, operation.id, step, hash) }),
});

const otherChain = (id: string, client: Client, { chainId }: Operation) =>
  new KeysteadError("chain/wrong-chain", `the endpoint is on chain ${client.chainId}, ${id} is for ${chainId}`, {
    argument: "rpc",
    remedy: "Give an endpoint of the proposals' chain.",
  });
