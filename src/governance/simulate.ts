import { getAddress, Interface, keccak256 } from "ethers";
import { type Block, blockParameter, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { callView } from "../chain/reads.ts";
import { concatBytes, fromHex, type Hex, toHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { contextOf, type Difference } from "./check.ts";
import { deriveExpectedState } from "./effects.ts";
import { type Fork, forkChain, type PlayedTransaction, type ReadAccount } from "./fork.ts";
import { type Operation, rollbackId, type TimelockTerms, timelockSide } from "./operation.ts";
import { type Basis, type BasisOptions, type Claim, proveClaims, requireWitnesses } from "./proven.ts";
import { buildSafeTransaction, type Call, hashSafeTransaction, type SafeRef } from "./safe-hash.ts";
import { fetchSafe, findExecution } from "./safe-state.ts";
import { type Drift, findDrift } from "./start-state.ts";
import { compareEffects, type DomainChange, observe, type SlotChange, watchedOf } from "./state-diff.ts";
import { fetchTimelockState, type TimelockPhase } from "./timelock-state.ts";
import { planStep, type StepName } from "./transactions.ts";
import { isReversibleUpgrade, playUpgrade } from "./upgrade-play.ts";
import { openReader } from "./witnessed.ts";
import { formatTime } from "./words.ts";

/** Which of a proposal's two operations is played: itself, or its way back. */
export type Part = "operation" | "rollback";

/** How a proposal is simulated. */
export interface SimulateOptions extends BasisOptions {
  /** The block whose state is copied. Default: the newest. */
  readonly block?: Block | undefined;
  /** Default: the operation itself. The way back is played after the operation, where that is not done on the chain. */
  readonly part?: Part | undefined;
  /** The first block that holds the deployment's logs. With it, upgrades are played there and back and there again. */
  readonly fromBlock?: number | undefined;
  /**
   * Whether the operation itself was executed, where no timelock keeps that: then its way back is played alone. Default: what the Safe's own events say
   * about the planned nonce and `signedNonces`.
   */
  readonly executed?: boolean | undefined;
  /** Nonces with which the operation's own transaction was signed beside the planned one. */
  readonly signedNonces?: readonly bigint[] | undefined;
  /** One line at a time. */
  readonly onProgress?: ((line: string) => void) | undefined;
}

/** One transaction of the play. */
export interface PlayedStep {
  readonly step: string;
  readonly safe: string;
  /** The nonce that the Safe had. */
  readonly nonce: bigint;
  readonly safeTxHash: Hex;
  readonly gasUsed: bigint;
  /** When it was played, seconds since 1970. */
  readonly timestamp: bigint;
}

/** What a simulation found. */
export interface Simulation {
  /** Nothing failed, nothing is missing, nothing is extra, nothing moved. */
  readonly ok: boolean;
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
  /** What no expected state says anything about, and what was not recorded. */
  readonly unjudged: readonly string[];
}

const SAFE = new Interface([
  "function approveHash(bytes32 hashToApprove)",
  "function execTransaction(address to, uint256 value, bytes data, uint8 operation, uint256 safeTxGas, uint256 baseGas, uint256 gasPrice, address gasToken, address refundReceiver, bytes signatures) payable returns (bool success)",
  "function getTransactionHash(address to, uint256 value, bytes data, uint8 operation, uint256 safeTxGas, uint256 baseGas, uint256 gasPrice, address gasToken, address refundReceiver, uint256 _nonce) view returns (bytes32)",
]);
const ZERO = "0x0000000000000000000000000000000000000000";
/** Sends the Safes' transactions on the fork: an account that nobody has, as whoever relays needs no rights. */
const RELAYER = getAddress(`0x${keccak256(new TextEncoder().encode("keystead simulation")).slice(-40)}`);

/**
 * Plays a proposal on a private copy of the chain: the owners approve the Safe transaction (no key is needed: on the copy any account can send), the
 * Safe's own code executes it, the timelock's own code schedules it, the clock moves past the delay, and the Safe executes it. What was there before
 * is compared with what is there after, view by view and slot by slot, both ways with the expected state; and the state that the proposal was made
 * on with the one that it now starts from. Everything that the play read is proven against the block's state root; only what an upgrade's play there
 * and back reads beyond that (every answer of registry and policy) is the endpoint's word.
 *
 * What fails in the play is a difference, not an error. What can't be read is an error, and never a pass.
 *
 * @throws KeysteadError `simulate/done`, `rollback/none`; `fork/no-anvil`, `anvil/not-started`; `chain/contradicts-proof`, `chain/unproven`,
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
  await reader.prove(options);
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
    const start = await fork.snapshot();
    const played = await playPart(play, part, phase, before);
    onProgress(`proving what was read of ${stage.size} accounts`);
    await addLooked(fork, stage, looked);
    const basis = await proveClaims(client, block, claimsOf(stage), options);
    const upgrade =
      part === "operation" && played.differences.length === 0 && isReversibleUpgrade(operation)
        ? await playThereAndBack(play, start, phase, options.fromBlock)
        : { differences: [], unjudged: [] };
    const differences = [...played.differences, ...upgrade.differences, ...driftDifferences(drift)];
    const { number, hash, timestamp } = block;
    return {
      ok: differences.length === 0,
      ...{ part, phase, block: { number, hash, timestamp }, drift, basis, differences },
      ...{ steps: played.steps, changes: played.changes, slots: played.slots },
      unjudged: [
        ...played.unjudged,
        ...upgrade.unjudged,
        ...(drift.recorded
          ? []
          : ["what moved since it was proposed: the proposal holds no start state (propose with --rpc)"]),
      ],
    };
  } finally {
    await fork.stop();
  }
}

/**
 * Plays what is left of a proposal before one of its steps is sent, and refuses to go on unless all is as signed for. Fits `Acting.rehearse`.
 *
 * @throws KeysteadError `simulate/drifted` {moved}, `simulate/not-recorded`, `simulate/differs` {differences}; as {@link simulateProposal}
 * @example
 * await requireRehearsal(client, operation, "schedule", { block });
 */
export async function requireRehearsal(
  client: Client,
  operation: Operation,
  step: StepName,
  options: SimulateOptions & { readonly acceptUnrecorded?: boolean | undefined } = {},
): Promise<Simulation | undefined> {
  // a cancellation changes nothing but the timelock's own entry: it must never wait for a simulation
  if (step === "cancel") return undefined;
  const part: Part = step === "rollback" || step === "rollback-execute" ? "rollback" : "operation";
  // whoever takes the way back has made sure that there is something to undo
  const simulation = await simulateProposal(client, operation, { ...options, part, executed: true });
  if (!simulation.drift.recorded && options.acceptUnrecorded !== true) {
    throw new KeysteadError(
      "simulate/not-recorded",
      "the proposal holds no start state, so nobody can say what moved",
      {
        argument: "operation",
        remedy: "Propose with --rpc; or accept that drift is not judged.",
      },
    );
  }
  if (simulation.drift.moved.length > 0) {
    const moved = simulation.drift.moved.map(({ name, was, is }) => `${name} was ${was} and is ${is}`);
    throw new KeysteadError("simulate/drifted", `the state moved since it was proposed: ${moved.join("; ")}`, {
      argument: "operation",
      remedy: "Propose again on the state that is there now, and have it signed.",
      details: { moved: simulation.drift.moved },
    });
  }
  if (!simulation.ok) {
    throw new KeysteadError(
      "simulate/differs",
      `played on a copy of the chain it does not do what it says: ${simulation.differences.map(({ field, message }) => `${field}: ${message}`).join("; ")}`,
      {
        argument: "operation",
        remedy: "Don't execute it: find out what differs, and propose again.",
        details: { differences: simulation.differences },
      },
    );
  }
  return simulation;
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

const driftDifferences = ({ moved }: Drift): readonly Difference[] =>
  moved.map(({ name, was, is }) => ({
    field: name,
    code: "simulate/drifted",
    message: `it was ${JSON.stringify(was)} when proposed and is ${JSON.stringify(is)}`,
  }));

/** One of the two operations, as it is played. */
interface Life {
  readonly name: string;
  readonly calls: readonly Call[];
  readonly safe: SafeRef;
  readonly terms: TimelockTerms | null;
  readonly side: ReturnType<typeof timelockSide> | null;
}

function lifeOf(operation: Operation, part: Part): Life {
  const { id, chainId, rollback } = operation;
  if (part === "operation") {
    const { calls, safe, timelock: terms } = operation;
    return {
      name: "the operation",
      calls,
      safe,
      terms,
      side: terms === null ? null : timelockSide(operation, terms, id),
    };
  }
  if (rollback === null) {
    throw new KeysteadError("rollback/none", "no way back follows from this operation", {
      argument: "operation",
      remedy: "Propose its inverse as an operation of its own.",
    });
  }
  const { calls, safe, timelock: terms } = rollback;
  const side = terms === null ? null : timelockSide({ chainId, calls }, terms, rollbackId(id));
  return { name: "the rollback", calls, safe, terms, side };
}

async function phaseOf(client: Client, block: Block, { terms, side }: Life): Promise<TimelockPhase> {
  if (terms === null || side === null) return "unset";
  return (await fetchTimelockState(client, block, terms.address, toHex(fromHex(side.operationId, "id")))).phase;
}

/** Where the operation itself stands, before its way back: at the timelock, or, for a direct transaction, by the Safe's own events. */
async function phaseBefore(
  client: Client,
  block: Block,
  operation: Operation,
  { executed, signedNonces = [], fromBlock }: SimulateOptions,
): Promise<TimelockPhase> {
  const life = lifeOf(operation, "operation");
  if (life.terms !== null) return phaseOf(client, block, life);
  if (executed !== undefined) return executed ? "done" : "unset";
  const { nonce: next } = await fetchSafe(client, block, operation.safe.address);
  const from = fromBlock ?? Number(operation.assumptions.block ?? 0n);
  for (const nonce of new Set([operation.safe.nonce, ...signedNonces])) {
    const { safeTxHash } = planStep(operation, "execute", { nonce }).hashes;
    if (nonce < next && (await findExecution(client, block, operation.safe.address, safeTxHash, from))) return "done";
  }
  return "unset";
}

interface Play {
  readonly fork: Fork;
  /** What was first found of each account, before anything here changed it. */
  readonly stage: Map<Hex, ReadAccount>;
  /** Takes down which slots (`address/slot`) views read. */
  readonly looked: (slots: Iterable<string>) => void;
  readonly onProgress: (line: string) => void;
  readonly operation: Operation;
}

/** From the copied state again: the upgrade, its rollback, and the upgrade once more. */
async function playThereAndBack(play: Play, start: string, phase: TimelockPhase, fromBlock: number | undefined) {
  if (fromBlock === undefined) {
    return {
      differences: [],
      unjudged: ["whether the upgrade can be rolled back: name the deployment's record with --deployment"],
    };
  }
  const { fork, operation, onProgress } = play;
  await fork.restore(start);
  const life = (part: Part) => lifeOf(operation, part);
  const differences = await playUpgrade({
    ...{ fork, operation, fromBlock, onProgress, stranger: RELAYER },
    prepare: (part) => prepareLife(play, life(part), part === "operation" ? phase : "unset").then(() => {}),
    execute: async (part) => {
      const { transaction } = await playSafe(play, "execute", life(part).safe, executionOf(life(part)));
      return fork.trace(transaction.hash);
    },
  });
  return { differences, unjudged: [] };
}

/** What a Safe calls to execute an operation. */
function executionOf({ calls, terms, side }: Life): readonly Call[] {
  const value = calls.reduce((sum, call) => sum + call.value, 0n);
  return terms === null || side === null ? calls : [{ to: terms.address, value, data: side.execute }];
}

/** Everything before the execution: scheduled, and the delay over. */
async function prepareLife(play: Play, life: Life, phase: TimelockPhase): Promise<readonly PlayedStep[]> {
  const { fork, onProgress } = play;
  const { terms, side } = life;
  const steps: PlayedStep[] = [];
  if (terms === null || side === null) return steps;
  if (phase === "unset") {
    onProgress("the Safe schedules it");
    const schedule = [{ to: terms.address, value: 0n, data: side.schedule }];
    steps.push((await playSafe(play, "schedule", life.safe, schedule)).step);
  }
  const block = await fetchBlock(fork.client, "latest");
  const { readyAt } = await fetchTimelockState(
    fork.client,
    block,
    terms.address,
    toHex(fromHex(side.operationId, "id")),
  );
  if (readyAt !== undefined && readyAt > (await fork.now())) {
    onProgress(`the clock moves to ${formatTime(readyAt)}`);
    await fork.warpTo(readyAt);
  }
  return steps;
}

interface Played {
  readonly steps: readonly PlayedStep[];
  readonly changes: readonly DomainChange[];
  readonly slots: readonly SlotChange[];
  readonly differences: readonly Difference[];
  readonly unjudged: readonly string[];
}

/** @param before where the operation itself stands, if its way back is played: what is not done is played first */
async function playPart(play: Play, part: Part, phase: TimelockPhase, before: TimelockPhase): Promise<Played> {
  const { operation } = play;
  if (part === "rollback" && before !== "done") {
    const first = await playLife(play, lifeOf(operation, "operation"), before);
    if (first.differences.length > 0) return first;
  }
  return playLife(play, lifeOf(operation, part), phase);
}

/** Plays one operation from where it stands to its end. */
async function playLife(play: Play, life: Life, phase: TimelockPhase): Promise<Played> {
  const { operation, fork, onProgress } = play;
  const steps: PlayedStep[] = [];
  const watched = watchedOf(operation, life.calls);
  const { terms, side } = life;
  try {
    steps.push(...(await prepareLife(play, life, phase)));
    const before = await observe(fork.client, watched);
    play.looked(before.readers.keys());
    onProgress("the Safe executes it");
    const value = life.calls.reduce((sum, call) => sum + call.value, 0n);
    const { step, transaction } = await playSafe(play, "execute", life.safe, executionOf(life));
    steps.push(step);
    const after = await observe(fork.client, watched).catch((error: unknown) => {
      if (!isKeysteadError(error, "chain/reverted") && !isKeysteadError(error, "chain/not-this-contract")) throw error;
      return error.message;
    });
    if (typeof after === "string") {
      const failure = { field: "execute", code: "simulate/view-fails", message: `afterwards a view fails: ${after}` };
      return { steps, changes: [], slots: [], differences: [failure], unjudged: ["what else changes: a view fails"] };
    }
    const { changes: raw } = await fork.trace(transaction.hash);
    const expected = deriveExpectedState(life.calls, contextOf(operation));
    const compared = compareEffects({
      ...{ operation, calls: life.calls, expected, before, after, raw },
      own: { safe: life.safe.address, timelock: terms?.address, operationId: side?.operationId, value },
    });
    return { steps, ...compared };
  } catch (error) {
    if (!isKeysteadError(error, "fork/reverted")) throw error;
    const next = steps.length === 0 && terms !== null && phase === "unset" ? "schedule" : "execute";
    const failure = { field: next, code: "simulate/reverted", message: error.message };
    return { steps, changes: [], slots: [], differences: [failure], unjudged: ["what it would change: it fails"] };
  }
}

/** Lets a Safe's own code make calls: its owners approve the hash, somebody without rights sends it. */
async function playSafe(
  play: Play,
  name: string,
  ref: SafeRef,
  calls: readonly Call[],
): Promise<{ readonly step: PlayedStep; readonly transaction: PlayedTransaction }> {
  const { fork } = play;
  const at = await fetchBlock(fork.client, "latest");
  const safe = await fetchSafe(fork.client, at, ref.address);
  const transaction = buildSafeTransaction(ref, calls, safe.nonce);
  const { to, value, data, operation } = transaction;
  const head = [to, value, data, operation, 0, 0, 0, ZERO, ZERO];
  const address = toHex(fromHex(ref.address, "safe"));
  const [own] = await callView(fork.client, SAFE, address, at, "getTransactionHash", [...head, safe.nonce]);
  const { safeTxHash } = hashSafeTransaction(BigInt(fork.client.chainId), ref.address, transaction);
  if (String(own) !== safeTxHash) {
    throw new KeysteadError(
      "simulate/other-hash",
      `the Safe hashes its transaction to ${own}, these tools to ${safeTxHash}`,
      {
        argument: "safe",
        remedy: "Don't sign: the Safe is not what the proposal takes it for.",
        details: { own: String(own), ours: safeTxHash },
      },
    );
  }
  // Safe wants signers in the order of their addresses; v 1 means that the hash was approved on chain
  const signers = [...safe.owners].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1)).slice(0, safe.threshold);
  for (const owner of signers) {
    const approved = await fork.sendAs(owner, ref.address, SAFE.encodeFunctionData("approveHash", [safeTxHash]));
    await remember(play, approved.hash);
  }
  const signatures = toHex(
    concatBytes(
      ...signers.map((owner) => fromHex(`0x${"00".repeat(12)}${owner.slice(2)}${"00".repeat(32)}01`, "signature")),
    ),
  );
  const encoded = SAFE.encodeFunctionData("execTransaction", [...head, signatures]);
  let sent: PlayedTransaction;
  try {
    sent = await fork.sendAs(RELAYER, ref.address, encoded);
  } catch (error) {
    throw await innerFailure(fork, ref.address, calls, error);
  }
  await remember(play, sent.hash);
  const { gasUsed, timestamp } = sent;
  return {
    step: { step: name, safe: ref.address, nonce: safe.nonce, safeTxHash, gasUsed, timestamp },
    transaction: sent,
  };
}

/** Safe hides an inner call's error behind GS013, so the calls are tried one by one, from the Safe. */
async function innerFailure(fork: Fork, safe: string, calls: readonly Call[], error: unknown): Promise<unknown> {
  if (!isKeysteadError(error, "fork/reverted")) return error;
  for (const { to, value, data } of calls) {
    try {
      await fork.sendAs(safe, to, data, value);
    } catch (inner) {
      if (isKeysteadError(inner, "fork/reverted")) return inner;
    }
  }
  return error;
}

/** Keeps what a transaction found of the copied chain; what was seen before, this play may have changed since. */
async function remember({ fork, stage }: Play, hash: Hex): Promise<void> {
  const { found } = await fork.trace(hash);
  for (const [address, account] of found) {
    const known = stage.get(address);
    stage.set(address, {
      code: known?.code ?? account.code,
      balance: known?.balance ?? account.balance,
      storage: new Map([...account.storage, ...(known?.storage ?? [])]),
    });
  }
}

/** What views read and no transaction did, as the copied block has it. */
async function addLooked(fork: Fork, stage: Map<Hex, ReadAccount>, looked: ReadonlySet<string>): Promise<void> {
  const tag = blockParameter(fork.block.number);
  for (const key of looked) {
    const address = toHex(fromHex(key.slice(0, 42), "address"));
    const slot = toHex(fromHex(key.slice(43), "slot"));
    const known = stage.get(address);
    if (known?.storage.has(slot)) continue;
    const code = known?.code ?? (String(await fork.client.request("eth_getCode", [address, tag])).toLowerCase() as Hex);
    const value = BigInt(String(await fork.client.request("eth_getStorageAt", [address, slot, tag])));
    stage.set(address, { code, balance: known?.balance, storage: new Map([...(known?.storage ?? []), [slot, value]]) });
  }
}

/** Accounts without code and storage (owners, whoever sends) say nothing that the play rests on. */
const claimsOf = (stage: ReadonlyMap<Hex, ReadAccount>): readonly Claim[] =>
  [...stage].flatMap(([address, { code, storage }]) =>
    code === undefined && storage.size === 0
      ? []
      : [
          {
            address,
            codeHash: code === undefined ? undefined : toHex(fromHex(keccak256(code), "hash")),
            slots: storage,
          },
        ],
  );
