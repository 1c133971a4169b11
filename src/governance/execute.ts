import { type Block, blockParameter, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Deployment } from "../chain/deployment.ts";
import { DISMISSAL_DELAYS, dismissalOf } from "../chain/dismissal.ts";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { contextOf } from "./check.ts";
import { renderCalls } from "./decode.ts";
import { askView, deriveExpectedState, type ExpectedView } from "./effects.ts";
import { stepCalls } from "./judge.ts";
import { type Observation, observeCalls } from "./observe.ts";
import { rollbackId, type TimelockTerms, timelockSide } from "./operation.ts";
import { expired, notReady, notScheduled, whenExpired } from "./refusals.ts";
import { requireFunds } from "./relay.ts";
import type { Call, SafeRef } from "./safe-hash.ts";
import { fetchLatest, prepareStep, type Sending, type SentStep, sendStep } from "./safe-send.ts";
import { fetchSafe, findExecution } from "./safe-state.ts";
import type { Key } from "./sign.ts";
import {
  fetchGracePeriod,
  fetchTimelockState,
  findCancellation,
  holdsRole,
  type TimelockPhase,
} from "./timelock-state.ts";
import { planStep, type StepName } from "./transactions.ts";
import { formatDuration } from "./words.ts";

/** What a command that acts works with. */
export interface Acting extends Sending {
  /** The deployment's record, by which calls are read. */
  readonly deployment?: Deployment | undefined;
  /** Pays for gas; it needs no rights. */
  readonly relayer: Key;
  /** A block before which nothing of this proposal can have happened, where logs have to be searched. */
  readonly fromBlock: number;
  /**
   * Called before anything is sent: plays the step on a copy of the chain and throws if it fails, does something else than expected, or starts from
   * another state than was signed for.
   */
  readonly rehearse: (step: StepName, block: Block) => Promise<void>;
}

/** One effect that must hold, and whether it does. */
export interface CheckedView extends ExpectedView {
  readonly holds: boolean;
}

/** Where a proposal stands after a command. */
export interface Standing {
  /** What was sent now; null if there was nothing left to do. */
  readonly sent: SentStep | null;
  /** At the timelock; for a direct transaction `unset` or `done`. */
  readonly phase: TimelockPhase;
  /** From when on it can be executed, seconds since 1970. */
  readonly readyAt: bigint | null;
  /** From when on it can no longer be executed, seconds since 1970; null where that never comes. */
  readonly expiresAt: bigint | null;
  /** What its effects are now; empty unless done. */
  readonly effects: readonly CheckedView[];
  /** What else it did, by what the chain says: effects that depend on time or on what was there, as a pause's; empty unless done. */
  readonly observed: readonly Observation[];
}

/** One of the two operations of a proposal: itself, or its way back. */
interface Life {
  readonly name: string;
  readonly calls: readonly Call[];
  readonly safe: SafeRef;
  readonly terms: TimelockTerms | null;
  readonly operationId: Hex | null;
  readonly schedule: StepName;
  readonly execute: StepName;
}

function forward({ operation }: Sending): Life {
  const { id, calls, safe, timelock } = operation;
  const operationId = timelock === null ? null : timelockSide(operation, timelock, id).operationId;
  return {
    ...{ name: "the operation", calls, safe, terms: timelock },
    ...{ operationId: operationId as Hex | null, schedule: "schedule", execute: "execute" },
  };
}

function back({ operation }: Sending): Life {
  const { id, chainId, rollback } = operation;
  if (rollback === null) {
    throw new KeysteadError("rollback/none", "no way back follows from this operation", {
      argument: "operation",
      remedy: "Propose its inverse as an operation of its own.",
    });
  }
  const { calls, safe, timelock: terms } = rollback;
  const operationId = terms === null ? null : timelockSide({ chainId, calls }, terms, rollbackId(id)).operationId;
  return {
    ...{ name: "the rollback", calls, safe, terms, operationId: operationId as Hex | null },
    // a direct way back is one Safe transaction, and its file is the rollback's
    ...(terms === null
      ? ({ schedule: "rollback", execute: "rollback" } as const)
      : ({ schedule: "rollback", execute: "rollback-execute" } as const)),
  };
}

/**
 * Takes the next step of a proposal that the chain's state allows: schedules it when it is not scheduled, executes it when its delay is over; a direct
 * transaction is executed. What is done already is not done again, so that it can be run by anybody, any number of times, after any interruption.
 *
 * One that expired is scheduled again, which needs new signatures.
 *
 * @param step take this step and no other
 * @throws KeysteadError `execute/not-ready` (retryable) {readyAt}, `execute/expired` {expiresAt}, `execute/not-scheduled`, `execute/was-cancelled` {block}, `execute/delay-too-short`
 * {minDelay, delay}, `execute/predecessor-not-done`, `execute/no-role` {role}, `execute/no-step`, `execute/effects-differ` {effects}; those of
 * `prepareStep`, `sendStep` and `Acting.rehearse`, e.g. `simulate/drifted`
 * @example
 * const { phase, readyAt } = await executeProposal(acting);
 */
export const executeProposal = (acting: Acting, step?: StepName): Promise<Standing> =>
  advance(acting, forward(acting), step);

/**
 * The same for the way back, once the operation itself is done.
 *
 * @throws KeysteadError `rollback/none`, `rollback/nothing-to-undo`; as {@link executeProposal}
 * @example
 * await rollBackProposal(acting);
 */
export async function rollBackProposal(acting: Acting, step?: StepName): Promise<Standing> {
  const life = back(acting);
  const block = await fetchLatest(acting.client);
  const { phase } = await look(acting, forward(acting), block);
  if (phase !== "done") {
    throw new KeysteadError("rollback/nothing-to-undo", `the operation was not executed: it is ${phase}`, {
      argument: "operation",
      remedy:
        phase === "unset" || phase === "expired" ? "There is nothing to undo." : "Cancel it instead: keystead cancel.",
      details: { phase },
    });
  }
  return advance(acting, life, step);
}

/**
 * Cancels a proposal that waits in the timelock. One that was cancelled already, expired, or was never scheduled, is left as it is.
 *
 * @param safe which of the Safes that can
 * @throws KeysteadError `cancel/done`, `cancel/not-possible`, `cancel/dismissal`, `execute/no-role`; those of `prepareStep` and `sendStep`
 * @example
 * await cancelProposal(acting, deployment.safes.guardian.address);
 */
export async function cancelProposal(acting: Acting, safe?: string): Promise<Standing> {
  const life = forward(acting);
  if (life.terms === null || life.operationId === null) {
    throw new KeysteadError("cancel/not-possible", "a direct Safe transaction waits nowhere: it cannot be cancelled", {
      argument: "operation",
      remedy: "Before it is executed, have the Safe use its nonce for something else; after, propose the inverse.",
    });
  }
  const block = await fetchLatest(acting.client);
  const { phase } = await look(acting, life, block);
  if (phase === "done") {
    throw new KeysteadError("cancel/done", "it was executed already", {
      argument: "operation",
      remedy: "Roll it back: keystead rollback.",
    });
  }
  if (phase === "unset" || phase === "expired") return standing(null, { phase });
  const step = planStep(acting.operation, "cancel", { safe });
  await requireRole(acting, block, life.terms.address, "CANCELLER_ROLE", step.safe.address);
  await requireMayCancel(acting, life, life.terms, block, step.safe.address);
  const sent = await send(acting, block, "cancel", step.safe.address);
  const after = await look(acting, life, await blockOf(acting.client, sent));
  return standing(sent, { phase: after.phase });
}

/** Where it stands after a step that executed nothing. */
const standing = (
  sent: SentStep | null,
  { phase, readyAt, expiresAt }: Partial<Look> & Pick<Look, "phase">,
): Standing => ({
  ...{ sent, phase, readyAt: readyAt ?? null, expiresAt: expiresAt ?? null, effects: [], observed: [] },
});

/** A dismissal is cancelled by a proposer, and not by the account that it dismisses. */
async function requireMayCancel(acting: Acting, life: Life, terms: TimelockTerms, block: Block, safe: string) {
  const dismissal = dismissalOf(life.calls, terms.predecessor, terms.address);
  if (dismissal === undefined || (await fetchGracePeriod(acting.client, block, terms.address)) === undefined) return;
  if (dismissal.outgoing !== safe && (await holdsRole(acting.client, block, terms.address, "PROPOSER_ROLE", safe)))
    return;
  throw new KeysteadError(
    "cancel/dismissal",
    `${life.name} dismisses ${dismissal.outgoing}: Safe ${safe} cannot cancel it`,
    {
      argument: "safe",
      remedy: "Ask the owners of the governance Safe: a proposer alone cancels a dismissal.",
      details: { outgoing: dismissal.outgoing, safe },
    },
  );
}

async function advance(acting: Acting, life: Life, step: StepName | undefined): Promise<Standing> {
  const { client } = acting;
  if (step !== undefined && step !== life.schedule && step !== life.execute) {
    throw new KeysteadError("execute/no-step", `${step} is no step of ${life.name}`, {
      argument: "step",
      remedy: `Give ${life.terms === null ? life.execute : `${life.schedule} or ${life.execute}`}.`,
    });
  }
  const block = await fetchLatest(client);
  const seen = await look(acting, life, block);
  const { phase, readyAt } = seen;
  if (phase === "done") return finish(acting, life, block, null);
  if (life.terms === null) {
    const sent = await send(acting, block, life.execute);
    return finish(acting, life, await blockOf(client, sent), sent);
  }
  if (phase === "unset" || phase === "expired") {
    if (step === life.execute && life.execute !== life.schedule)
      throw phase === "unset" ? notScheduled(life) : expired(life, seen.expiresAt ?? 0n);
    if (phase === "expired") acting.progress(`${whenExpired(life, seen.expiresAt ?? 0n)}: it is scheduled again`);
    await requireSchedulable(acting, life, life.terms, block, seen);
    const sent = await send(acting, block, life.schedule);
    return standing(sent, await look(acting, life, await blockOf(client, sent)));
  }
  if (step === life.schedule) return standing(null, seen);
  if (phase === "waiting") throw notReady(life, readyAt ?? 0n, block);
  await requirePredecessor(acting, life, life.terms, block);
  await requireRole(acting, block, life.terms.address, "EXECUTOR_ROLE", life.safe.address);
  const sent = await send(acting, block, life.execute);
  return finish(acting, life, await blockOf(client, sent), sent);
}

interface Look {
  readonly phase: TimelockPhase;
  readonly readyAt: bigint | undefined;
  readonly expiresAt: bigint | undefined;
  readonly minDelay: bigint;
}

/** Where it stands: at the timelock, or, for a direct transaction, by the Safe's own events. */
async function look(acting: Acting, life: Life, block: Block): Promise<Look> {
  const { client, operation, fromBlock } = acting;
  if (life.terms !== null && life.operationId !== null) {
    return fetchTimelockState(client, block, life.terms.address, life.operationId);
  }
  const nothing = { readyAt: undefined, expiresAt: undefined, minDelay: 0n };
  const safe = await fetchSafe(client, block, life.safe.address);
  for (const nonce of signedNonces(acting, life.execute, safe.address)) {
    if (nonce >= safe.nonce) continue;
    const { safeTxHash } = planStep(operation, life.execute, { nonce }).hashes;
    const found = await findExecution(client, block, safe.address, safeTxHash, fromBlock);
    if (found !== undefined) return { phase: "done", ...nothing };
  }
  return { phase: "unset", ...nothing };
}

/** The nonces with which a step may have been executed: the planned one, and those that it was signed with. */
function signedNonces({ operation, signatures }: Sending, name: StepName, safe: string): readonly bigint[] {
  const signed = signatures.filter(({ step, safe: by }) => step === name && by === safe).map(({ nonce }) => nonce);
  return [...new Set([planStep(operation, name).transaction.nonce, ...signed])];
}

async function send(acting: Acting, block: Block, step: StepName, safe?: string): Promise<SentStep> {
  const { relayer, progress, rehearse } = acting;
  const ready = await prepareStep(acting, block, step, { safe, from: relayer.address });
  await requireFunds(acting.client, relayer.address);
  progress(`${ready.planned.step}: signed by ${ready.signers.join(", ")}`);
  for (const line of renderCalls(stepCalls(acting.operation, ready.planned, acting.deployment))) progress(line);
  await rehearse(step, block);
  return sendStep(acting, ready, relayer);
}

const blockOf = (client: Client, sent: SentStep): Promise<Block> => fetchBlock(client, sent.block);

async function finish(acting: Acting, life: Life, block: Block, sent: SentStep | null): Promise<Standing> {
  const effects = await checkEffects(acting, life, block);
  const observed = await observeCalls(acting.client, block, acting.operation, life.calls, sent !== null);
  for (const { sentence } of observed) acting.progress(sentence);
  const wrong = effects.filter(({ holds }) => !holds);
  const missed = observed.filter(({ holds }) => holds === false);
  if (sent === null || wrong.length + missed.length === 0) {
    return { sent, phase: "done", readyAt: null, expiresAt: null, effects, observed };
  }
  const named = [
    ...wrong.map(({ contract, view, field }) => `${contract}.${view}${field === "" ? "" : `.${field}`}`),
    ...missed.map(({ sentence }) => sentence),
  ];
  throw new KeysteadError(
    "execute/effects-differ",
    `${life.name} was executed, and ${named.length} of its expected effects do not hold: ${named.join(", ")}`,
    {
      remedy: "Find out what else happened in between; consider the rollback.",
      details: { effects: wrong, observed: missed, transactionHash: sent.transactionHash },
    },
  );
}

/**
 * Asks each view of the expected state whether it answers as expected.
 *
 * @throws KeysteadError as `Client.request`
 */
async function checkEffects(acting: Acting, life: Life, block: Block): Promise<readonly CheckedView[]> {
  const { client, operation, progress } = acting;
  const { views } = deriveExpectedState(life.calls, contextOf(operation));
  const checked: CheckedView[] = [];
  for (const view of views) {
    const { data, accepts } = askView(view);
    const answer = await client.request("eth_call", [{ to: view.to, data }, blockParameter(block.number)]);
    checked.push({ ...view, holds: accepts(String(answer)) });
  }
  if (checked.length > 0) {
    progress(`effects: ${checked.filter(({ holds }) => holds).length} of ${checked.length} as expected`);
  }
  return checked;
}

async function requireSchedulable(
  acting: Acting,
  life: Life,
  terms: TimelockTerms,
  block: Block,
  { phase, minDelay: own }: Look,
): Promise<void> {
  const dismissal = dismissalOf(life.calls, terms.predecessor, terms.address) !== undefined;
  const doubled = dismissal && (await fetchGracePeriod(acting.client, block, terms.address)) !== undefined;
  const minDelay = doubled ? DISMISSAL_DELAYS * own : own;
  if (minDelay > terms.delay) {
    const least = doubled ? "least delay of a dismissal" : "minimum delay";
    throw new KeysteadError(
      "execute/delay-too-short",
      `the timelock's ${least} is now ${formatDuration(minDelay)}, ${life.name} was signed for ${formatDuration(terms.delay)}`,
      {
        argument: "delay",
        remedy: "Propose it again under another number with --timelock-delay of at least the new minimum.",
        details: { minDelay, delay: terms.delay },
      },
    );
  }
  await requireRole(acting, block, terms.address, "PROPOSER_ROLE", life.safe.address);
  // one that expired was not cancelled since: the timelock still keeps its time
  if (life.operationId === null || phase === "expired") return;
  const { client, fromBlock } = acting;
  const safe = await fetchSafe(client, block, life.safe.address);
  // a Safe that has not moved past any nonce that was signed cannot have scheduled it: there is nothing to have been cancelled
  if (signedNonces(acting, life.schedule, safe.address).every((nonce) => safe.nonce <= nonce)) return;
  const cancelled = await findCancellation(client, block, terms.address, life.operationId, fromBlock);
  if (cancelled === undefined) return;
  throw new KeysteadError("execute/was-cancelled", `${life.name} was scheduled, and cancelled in block ${cancelled}`, {
    argument: "operation",
    remedy: "Find out who cancelled it and why; if it is still wanted, propose it again under another number.",
    details: { block: cancelled },
  });
}

async function requirePredecessor({ client }: Acting, life: Life, terms: TimelockTerms, block: Block): Promise<void> {
  if (/^0x0+$/.test(terms.predecessor)) return;
  const { phase } = await fetchTimelockState(client, block, terms.address, terms.predecessor);
  if (phase === "done") return;
  throw new KeysteadError(
    "execute/predecessor-not-done",
    `${terms.predecessor} must be done before ${life.name}, and it is ${phase}`,
    {
      argument: "predecessor",
      remedy: "Execute that operation first.",
      details: { predecessor: terms.predecessor, phase },
    },
  );
}

async function requireRole(
  { client }: Acting,
  block: Block,
  timelock: string,
  role: "PROPOSER_ROLE" | "EXECUTOR_ROLE" | "CANCELLER_ROLE",
  account: string,
): Promise<void> {
  if (await holdsRole(client, block, timelock, role, account)) return;
  // an executor role that everyone has is held by the zero address
  const anyone = role === "EXECUTOR_ROLE" && (await holdsRole(client, block, timelock, role, `0x${"00".repeat(20)}`));
  if (anyone) return;
  throw new KeysteadError("execute/no-role", `Safe ${account} does not hold ${role} at the timelock ${timelock}`, {
    argument: "safe",
    remedy: "Propose through a Safe that holds it; keystead lint shows the roles as they stand.",
    details: { role, account, timelock },
  });
}
