import { type Block, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Deployment } from "../chain/deployment.ts";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { compareStanding, readStanding, type Standing, undeclaredRoles } from "./afterwards.ts";
import type { Build } from "./build.ts";
import type { Difference } from "./check.ts";
import type { Warning } from "./decode.ts";
import { type Fork, forkChain, type ReadAccount } from "./fork.ts";
import { type Verdict, verdictOf } from "./judge.ts";
import { type BeforeOptions, lifeOf, type Part, phaseBefore, phaseOf } from "./life.ts";
import type { Operation } from "./operation.ts";
import { playPart, playThereAndBack } from "./play.ts";
import { addLooked, claimsOf, type Play, type PlayedStep } from "./play-safe.ts";
import { type Basis, type BasisOptions, proveClaims, requireWitnesses } from "./proven.ts";
import { type Drift, findDrift } from "./start-state.ts";
import type { DomainChange, SlotChange } from "./state-diff.ts";
import type { TimelockPhase } from "./timelock-state.ts";
import { isReversibleUpgrade } from "./upgrade-play.ts";
import { openReader } from "./witnessed.ts";

/** How a proposal is simulated. */
export interface SimulateOptions extends BasisOptions, BeforeOptions {
  /** The block whose state is copied. Default: the newest. */
  readonly block?: Block | undefined;
  /** Default: the operation itself. The way back is played after the operation, where that is not done on the chain. */
  readonly part?: Part | undefined;
  /** Its recorded deployment, by which every rule of lint is applied to the copy before the play and after it. */
  readonly deployment?: Deployment | undefined;
  /** This build's contracts, for the rules about code. */
  readonly builds?: readonly Build[] | undefined;
  /** Names of facts that may have moved since it was proposed. */
  readonly acceptDrift?: readonly string[] | undefined;
  /** One line at a time. */
  readonly onProgress?: ((line: string) => void) | undefined;
  /** Called after each transaction of the play, while the copy holds it: for a trace. */
  readonly onPlayed?: ((fork: Fork, id: string, step: PlayedStep, hash: Hex) => Promise<void>) | undefined;
}

/** What a simulation found. */
export interface Simulation {
  /** No difference: nothing failed, nothing is missing, nothing is extra, nothing moved, nothing got worse. */
  readonly ok: boolean;
  /** What sentence, table and exit code follow from: `unsafe` with any difference, else `unsure` with any warning. */
  readonly verdict: Verdict;
  readonly part: Part;
  /** Where the operation stood on the chain. */
  readonly phase: TimelockPhase;
  readonly block: Pick<Block, "number" | "hash" | "timestamp">;
  readonly steps: readonly PlayedStep[];
  /** What changed, in the contracts' own words. */
  readonly changes: readonly DomainChange[];
  /** What changed, slot by slot; and balances and code, if any did. */
  readonly slots: readonly SlotChange[];
  readonly differences: readonly Difference[];
  readonly drift: Drift;
  readonly basis: Basis;
  /** What could not be judged and should be, by names that somebody who knows better accepts. */
  readonly warnings: readonly Warning[];
  /** Whether every rule of lint was applied before and after, which needs the deployment's record. */
  readonly linted: boolean;
  /** What no expected state says anything about, and what was not recorded. */
  readonly unjudged: readonly string[];
}

/**
 * Plays a proposal on a private copy of the chain: the owners approve the Safe transaction (no key is needed: on the copy any account can send), the
 * Safe's own code executes it, the timelock's own code schedules it, the clock moves past the delay, and the Safe executes it. What was there before
 * is compared with what is there after, view by view and slot by slot, both ways with the expected state; and the state that the proposal was made
 * on with the one that it now starts from. Everything that the play read is proven against the block's state root; only what an upgrade's play there
 * and back reads beyond that (every answer of registry and policy) is the endpoint's word.
 *
 * What fails in the play is a difference, not an error. What can't be read is an error, and never a pass.
 *
 * @throws KeysteadError `simulate/done`, `rollback/none`; `anvil/not-installed`, `anvil/not-started`; `chain/contradicts-proof`, `chain/unproven`,
 * `chain/witness-disagrees`, `chain/wrong-chain`; as `Client.request`
 * @example
 * const { ok, changes } = await simulateProposal(client, operation);
 */
export async function simulateProposal(
  client: Client,
  operation: Operation,
  options: SimulateOptions = {},
): Promise<Simulation> {
  requireChain(client, operation);
  const { part = "operation", onProgress = () => {} } = options;
  const block = options.block ?? (await fetchBlock(client, "latest"));
  await requireWitnesses(options.witnesses ?? [], block);
  const life = lifeOf(operation, part);
  const phase = await phaseOf(client, block, life);
  if (phase === "done") {
    throw new KeysteadError("simulate/done", `${life.name} was executed already: there is nothing left to play`, {
      argument: "operation",
      remedy: "keystead status shows what it did.",
    });
  }
  const reader = openReader(client, block);
  const drift = await findDrift(client, block, operation, part, reader);
  const tightening = part === "operation" && operation.lane === "revoke";
  await reader.prove({ ...options, tightening });
  const before = part === "rollback" ? await phaseBefore(client, block, operation, options) : "done";
  onProgress(`copying chain ${client.chainId} at block ${block.number}`);
  const fork = await forkChain(client, block);
  try {
    const stage = new Map<Hex, ReadAccount>();
    const looked = new Set<string>();
    const look = (slots: Iterable<string>) => {
      for (const slot of slots) looked.add(slot);
    };
    const play: Play = { fork, stage, looked: look, onProgress, operation };
    const { onPlayed } = options;
    const told = onPlayed && ((step: PlayedStep, hash: Hex) => onPlayed(fork, operation.id, step, hash));
    const start = await fork.snapshot();
    const standing = () => readStanding(fork.client, operation, options);
    const then = await standing();
    const played = await playPart({ ...play, played: told }, part, phase, before);
    const worse = played.steps.length === 0 ? [] : compareStanding(then, await standing(), operation);
    const roles = undeclaredRoles(played.logs, life.calls, operation);
    const differences = [...played.differences, ...worse, ...roles];
    const back = part === "operation" && differences.length === 0 ? await playBack(play, then, standing) : NO_PLAY;
    onProgress(`proving what was read of ${stage.size} accounts`);
    await addLooked(fork, stage, looked);
    const basis = await proveClaims(client, block, claimsOf(stage), { ...options, tightening });
    const upgrade =
      part === "operation" && played.differences.length === 0 && isReversibleUpgrade(operation)
        ? await playThereAndBack(play, start, phase, options.fromBlock)
        : { differences: [], unjudged: [] };
    differences.push(...back.differences, ...upgrade.differences, ...driftDifferences(drift, options));
    const warnings = [...played.warnings, ...back.warnings, ...(drift.recorded ? [] : [NOT_RECORDED])];
    const { number, hash, timestamp } = block;
    return {
      ok: differences.length === 0,
      verdict: differences.length > 0 ? "unsafe" : verdictOf(warnings),
      ...{ part, phase, block: { number, hash, timestamp }, drift, basis, differences, warnings },
      linted: options.deployment !== undefined,
      ...{ steps: played.steps, changes: played.changes, slots: played.slots },
      unjudged: [
        ...played.unjudged,
        ...back.unjudged,
        ...upgrade.unjudged,
        ...drift.noted.map(
          ({ name, was, is }) => `${name} was ${was} when proposed and is ${is}: it stands all the same`,
        ),
      ],
    };
  } finally {
    await fork.stop();
  }
}

/** The proposal holds no start: nobody can say what moved since. */
const NOT_RECORDED: Warning = {
  severity: "unsure",
  code: "start/not-recorded",
  message: "what moved since it was proposed: the proposal holds no start state (propose with --rpc)",
};

interface BackPlay {
  readonly differences: readonly Difference[];
  readonly warnings: readonly Warning[];
  readonly unjudged: readonly string[];
}
const NO_PLAY: BackPlay = { differences: [], warnings: [], unjudged: [] };

/** The rollback, played after the operation and judged in the same way: whoever signs the one makes the other executable. */
async function playBack(play: Play, then: Standing, standing: () => Promise<Standing>): Promise<BackPlay> {
  const { operation, onProgress } = play;
  const { rollback } = operation;
  if (rollback === null) return NO_PLAY;
  onProgress("the rollback is played after it");
  const played = await playPart(play, "rollback", "unset", "done");
  const of = (differences: readonly Difference[]) =>
    differences.map(({ field, code, message }) => ({ field: `rollback: ${field}`, code, message }));
  const [failure] = played.differences;
  if (failure?.code === "simulate/reverted") {
    return { ...NO_PLAY, unjudged: [`the rollback does nothing on this state: ${failure.message}`] };
  }
  const worse = compareStanding(then, await standing(), operation);
  const roles = undeclaredRoles(played.logs, rollback.calls, operation);
  return {
    differences: of([...played.differences, ...worse, ...roles]),
    warnings: played.warnings.map((one) => ({ ...one, message: `rollback: ${one.message}` })),
    unjudged: played.unjudged.map((line) => `rollback: ${line}`),
  };
}

function requireChain(client: Client, { chainId }: Operation): void {
  if (BigInt(client.chainId) === chainId) return;
  throw new KeysteadError(
    "chain/wrong-chain",
    `the endpoint is on chain ${client.chainId}, the proposal is for ${chainId}`,
    {
      argument: "rpc",
      remedy: "Give an endpoint of the proposal's chain.",
      details: { expected: chainId, actual: client.chainId },
    },
  );
}

const driftDifferences = ({ moved }: Drift, { acceptDrift = [] }: SimulateOptions): readonly Difference[] =>
  moved
    .filter(({ name }) => !acceptDrift.includes(name))
    .map(({ name, was, is }) => ({
      field: name,
      code: "simulate/drifted",
      message: `it was ${JSON.stringify(was)} when proposed and is ${JSON.stringify(is)}`,
    }));
