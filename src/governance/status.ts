import { id } from "ethers";
import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Deployment } from "../chain/deployment.ts";
import { askAgain, scanLogs } from "../chain/logs.ts";
import { callView, POLICY } from "../chain/reads.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { isGovernedLog, type RawLog, topicOf } from "../core/events.ts";
import { foldAll } from "../core/history.ts";
import { INTERFACES } from "./abis.ts";
import { attributeEvents, directHashes, type GovernanceEvent } from "./attribution.ts";
import { findContractRefusal } from "./contract-signatures.ts";
import { renderCalls } from "./decode.ts";
import type { StoredProposal } from "./folder.ts";
import { stepCalls } from "./judge.ts";
import { type Operation, rollbackId, timelockSide } from "./operation.ts";
import { headline } from "./report.ts";
import { fetchApprovals, fetchSafe, type SafeOnChain } from "./safe-state.ts";
import { type FoundSignature, readSignatures } from "./signatures.ts";
import { type Happening, inOrder, type LoggedOperation, readTimelockLog } from "./timelock-log.ts";
import { fetchTimelockState, findCancellation, type TimelockPhase } from "./timelock-state.ts";
import { type PlannedTransaction, planStep, type StepName } from "./transactions.ts";

/**
 * Where a proposal stands. `drafted`: nobody signed; `signed`: somebody did; `scheduled`: it waits in the timelock; `ready`: its delay is over;
 * `expired`: it was ready and not executed in time, and has to be scheduled again; `executed`; `cancelled`; `rolled back`: executed, and so was its way back.
 */
export type ProposalState =
  | "drafted"
  | "signed"
  | "scheduled"
  | "ready"
  | "expired"
  | "executed"
  | "cancelled"
  | "rolled back";

/** Who signed a step, of how many that are needed. */
export interface SignatureCount {
  readonly step: StepName;
  readonly safe: string;
  readonly nonce: bigint;
  readonly signers: readonly string[];
  readonly needed: number;
}

/** A proposal, as folder and chain together tell it. */
export interface ProposalStatus {
  readonly id: string;
  readonly title: string;
  readonly headline: string;
  readonly lane: Operation["lane"];
  readonly state: ProposalState;
  /** The timelock's id; null for a direct Safe transaction. */
  readonly operationId: Hex | null;
  /** What comes next; null if nothing does. */
  readonly next: StepName | null;
  readonly signatures: SignatureCount | null;
  /** From when on it can be executed, seconds since 1970. */
  readonly readyAt: bigint | null;
  /** From when on it can no longer be executed; null where it never expires. */
  readonly expiresAt: bigint | null;
  /** Safes that can cancel it, until it is executed. */
  readonly cancellableBy: readonly string[];
  readonly scheduled: Happening | null;
  readonly executed: Happening | null;
  readonly cancelled: Happening | null;
  /** The way back, where it was scheduled. */
  readonly rollback: { readonly operationId: Hex; readonly phase: string; readonly readyAt: bigint | null } | null;
  /** The next step's own transaction, call by call; empty if there is none. */
  readonly doing: readonly string[];
  /** What the next step meets: a nonce that is used up, signatures that don't count. */
  readonly notes: readonly string[];
}

/** An operation at the timelock and the proposal that it belongs to. */
export interface OperationStatus extends LoggedOperation {
  /** Null: nobody proposed it. */
  readonly proposal: string | null;
  readonly part: "operation" | "rollback" | null;
}

/** Chain and proposals, joined. */
export interface GovernanceStatus {
  /** Nothing on the chain is without its proposal. */
  readonly ok: boolean;
  readonly block: Pick<Block, "number" | "hash" | "timestamp">;
  /** The timelock's minimum delay, seconds. */
  readonly minDelay: bigint;
  readonly proposals: readonly ProposalStatus[];
  readonly operations: readonly OperationStatus[];
  /** Everything that changed roles, code, delay, Safes or the policy, oldest first. */
  readonly events: readonly GovernanceEvent[];
  /** Those that no proposal explains: each an alert. */
  readonly orphans: readonly GovernanceEvent[];
  readonly unchecked: readonly string[];
}

const EXECUTION_SUCCESS = toHex(fromHex(id("ExecutionSuccess(bytes32,uint256)"), "topic"));
const target = (address: string): Hex => toHex(fromHex(address, "address"));

/**
 * Joins the chain and the committed proposals: every operation at the timelock, every change of roles, code, delay and Safes, every event of the policy
 * belongs to a proposal, or is an orphan; and every proposal stands somewhere. This is also what an audit of governance shows.
 *
 * @param proposals by the name of their folder
 * @throws KeysteadError `chain/incomplete-logs` where the endpoint leaves logs out; as `scanLogs`
 * @example
 * (await readGovernance(client, block, deployment, proposals)).orphans; // []
 */
export async function readGovernance(
  client: Client,
  block: Block,
  deployment: Deployment,
  proposals: ReadonlyMap<string, StoredProposal>,
): Promise<GovernanceStatus> {
  requireChain(client, deployment);
  return askAgain("chain/incomplete-logs", () => readOnce(client, block, deployment, proposals));
}

async function readOnce(
  client: Client,
  block: Block,
  deployment: Deployment,
  proposals: ReadonlyMap<string, StoredProposal>,
): Promise<GovernanceStatus> {
  const { contracts, safes } = deployment;
  const scan = (address: string, from: number) => scanLogs(client, { address: target(address) }, from, block.number);
  const timelock = await readTimelockLog(client, block, contracts.timelock.address, contracts.timelock.block);
  const policy = await scan(contracts.policy.address, contracts.policy.block);
  await requireWholeHistory(client, block, contracts.policy.address, policy);
  const registry = await scanLogs(
    client,
    { address: target(contracts.registry.address), topics: [GOVERNED_TOPICS] },
    contracts.registry.block,
    block.number,
  );
  const safeLogs = new Map<string, readonly RawLog[]>();
  const states = new Map<string, SafeOnChain>();
  const addresses = new Set([safes.governance.address, safes.guardian.address]);
  for (const { operation } of proposals.values()) {
    for (const { address } of [operation.safe, ...operation.cancellers]) addresses.add(address);
    if (operation.rollback !== null) addresses.add(operation.rollback.safe.address);
  }
  for (const address of addresses) {
    states.set(address, await fetchSafe(client, block, address));
    safeLogs.set(address, await scan(address, deployment.block));
  }
  const operations = timelock.operations.map(
    (logged): OperationStatus => ({ ...logged, ...ownerOf(logged.id, proposals) }),
  );
  const offices = [safes.governance.address, safes.guardian.address];
  const events = await attributeEvents(client, {
    ...{ deployment, proposals, operations, timelock: timelock.logs, policy, registry },
    safes: new Map([...safeLogs].filter(([address]) => offices.includes(address))),
  });
  const join: Join = { client, block, deployment, operations, events, safeLogs, states };
  const found: ProposalStatus[] = [];
  for (const [name, stored] of proposals) found.push(await statusOf(join, name, stored));
  const orphans = events.filter(({ proposal }) => proposal === null);
  const [minDelay] = await callView(client, TIMELOCK, target(contracts.timelock.address), block, "getMinDelay", []);
  const { number, hash, timestamp } = block;
  return {
    ...{ ok: orphans.length === 0, block: { number, hash, timestamp }, minDelay: BigInt(minDelay) },
    ...{ proposals: flagEqualNonces(found), operations, events, orphans },
    unchecked: [
      "that the endpoint gives every log of roles, upgrades and Safes: no hash chain covers those (keystead lint compares roles with storage)",
    ],
  };
}

/** Two proposals that want one nonce of one Safe: whichever is executed first, the other has to be signed again. */
function flagEqualNonces(proposals: readonly ProposalStatus[]): readonly ProposalStatus[] {
  return proposals.map((proposal) => {
    const { signatures } = proposal;
    if (signatures === null) return proposal;
    const others = proposals.filter(
      (one) =>
        one.id !== proposal.id && one.signatures?.safe === signatures.safe && one.signatures.nonce === signatures.nonce,
    );
    if (others.length === 0) return proposal;
    const { safe, nonce } = signatures;
    const note = `nonce ${nonce} of Safe ${safe} is that of ${others.map(({ id }) => id).join(", ")} too: only one of them can have it; sign the later one with --nonce ${nonce + 1n}`;
    return { ...proposal, notes: [...proposal.notes, note] };
  });
}

const TIMELOCK = INTERFACES.timelock;
const GOVERNED_TOPICS: readonly Hex[] = (
  ["role_granted", "role_revoked", "role_admin_changed", "upgraded", "initialized"] as const
).map((name) => topicOf(name));

function requireChain(client: Client, { chainId }: Deployment): void {
  if (BigInt(client.chainId) === chainId) return;
  throw new KeysteadError("chain/wrong-chain", `the endpoint is on chain ${client.chainId}, the record of ${chainId}`, {
    argument: "rpc",
    remedy: "Give an endpoint of the deployment's chain.",
    details: { expected: chainId, actual: client.chainId },
  });
}

/** The policy chains its events: a list that does not end in its head is not whole, and what is missing cannot be joined with anything. */
async function requireWholeHistory(
  client: Client,
  block: Block,
  policy: string,
  logs: readonly RawLog[],
): Promise<void> {
  const ask = async (view: string) => (await callView(client, POLICY, target(policy), block, view, []))[0];
  const chained = inOrder(logs).filter((log) => !isGovernedLog(log));
  const [head, version] = [String(await ask("historyHead")), Number(await ask("policyVersion"))];
  if (foldAll(chained) === head && chained.length === version) return;
  const message = `the endpoint gives ${chained.length} of the policy's ${version} events`;
  throw incompleteLogs(message, { given: chained.length, expected: version });
}

const incompleteLogs = (message: string, details: Readonly<Record<string, unknown>>) =>
  new KeysteadError("chain/incomplete-logs", message, {
    argument: "rpc",
    remedy: "Use an endpoint that keeps all logs: this one leaves some out.",
    details,
  });

const operationIdOf = (operation: Operation): Hex | null =>
  operation.timelock === null
    ? null
    : toHex(fromHex(timelockSide(operation, operation.timelock, operation.id).operationId, "id"));

function rollbackIdOf({ id: name, chainId, rollback }: Operation): Hex | null {
  if (rollback === null || rollback.timelock === null) return null;
  const side = timelockSide({ chainId, calls: rollback.calls }, rollback.timelock, rollbackId(name));
  return toHex(fromHex(side.operationId, "id"));
}

function ownerOf(
  operationId: Hex,
  proposals: ReadonlyMap<string, StoredProposal>,
): Pick<OperationStatus, "proposal" | "part"> {
  for (const [name, { operation }] of proposals) {
    if (operationIdOf(operation) === operationId) return { proposal: name, part: "operation" };
    if (rollbackIdOf(operation) === operationId) return { proposal: name, part: "rollback" };
  }
  return { proposal: null, part: null };
}

interface Join {
  readonly client: Client;
  readonly block: Block;
  readonly deployment: Deployment;
  readonly operations: readonly OperationStatus[];
  readonly events: readonly GovernanceEvent[];
  readonly safeLogs: ReadonlyMap<string, readonly RawLog[]>;
  readonly states: ReadonlyMap<string, SafeOnChain>;
}

interface Life {
  readonly phase: TimelockPhase | "cancelled";
  readonly readyAt: bigint | null;
  readonly expiresAt: bigint | null;
  readonly scheduled: Happening | null;
  readonly executed: Happening | null;
  readonly cancelled: Happening | null;
}

const NEVER: Life = {
  ...{ phase: "unset", readyAt: null, expiresAt: null },
  ...{ scheduled: null, executed: null, cancelled: null },
};

async function statusOf(join: Join, name: string, { operation, files }: StoredProposal): Promise<ProposalStatus> {
  const { signatures, differences } = readSignatures(operation, files);
  const operationId = operationIdOf(operation);
  const life =
    operation.timelock === null || operationId === null
      ? directLife(join, operation, "execute", signatures)
      : await timelockLife(join, operation.timelock.address, operationId);
  const backId = rollbackIdOf(operation);
  const back =
    operation.rollback === null
      ? NEVER
      : backId === null || operation.rollback.timelock === null
        ? directLife(join, operation, "rollback", signatures)
        : await timelockLife(join, operation.rollback.timelock.address, backId);
  const next = nextStep(operation, life);
  const notes = differences.map(({ field, message }) => `${field}: ${message}`);
  const count = next === null ? null : await countSignatures(join, operation, next, signatures, notes);
  const { effect } = headline(operation);
  const waits = operation.timelock !== null && (life.phase === "waiting" || life.phase === "ready");
  return {
    ...{ id: name, title: operation.title, headline: effect, lane: operation.lane, operationId, next },
    state: stateOf(life, back, count),
    signatures: count,
    ...{ readyAt: life.readyAt, expiresAt: life.expiresAt },
    cancellableBy: waits ? [operation.safe, ...operation.cancellers].map(({ address }) => address) : [],
    ...{ scheduled: life.scheduled, executed: life.executed, cancelled: life.cancelled },
    rollback:
      backId === null || back.phase === "unset"
        ? null
        : { operationId: backId, phase: back.phase, readyAt: back.readyAt },
    doing: next === null ? [] : renderCalls(stepCalls(operation, planStep(operation, next), join.deployment)),
    notes,
  };
}

function stateOf(life: Life, back: Life, count: SignatureCount | null): ProposalState {
  if (back.phase === "done") return "rolled back";
  if (life.phase === "done") return "executed";
  if (life.phase === "cancelled") return "cancelled";
  if (life.phase === "ready") return "ready";
  if (life.phase === "expired") return "expired";
  if (life.phase === "waiting") return "scheduled";
  return count !== null && count.signers.length > 0 ? "signed" : "drafted";
}

function nextStep({ timelock }: Operation, { phase }: Life): StepName | null {
  if (phase === "done" || phase === "cancelled") return null;
  return timelock !== null && (phase === "unset" || phase === "expired") ? "schedule" : "execute";
}

async function timelockLife(join: Join, timelock: string, operationId: Hex): Promise<Life> {
  const { client, block, deployment, operations } = join;
  if (timelock === deployment.contracts.timelock.address) {
    const logged = operations.find((operation) => operation.id === operationId);
    if (logged === undefined) {
      const { phase } = await fetchTimelockState(client, block, timelock, operationId);
      if (phase === "unset") return NEVER;
      throw incompleteLogs(`no log tells of operation ${operationId}, which the timelock says is ${phase}`, {
        operationId,
      });
    }
    const { scheduled, executed, cancelled, readyAt, expiresAt } = logged;
    const phase = logged.phase === "unset" ? "cancelled" : logged.phase;
    return {
      ...{ phase, readyAt: readyAt ?? null, expiresAt: expiresAt ?? null },
      ...{ scheduled, executed: executed ?? null, cancelled: cancelled ?? null },
    };
  }
  // a service's own timelock: its state alone, and whether it was cancelled
  const { phase, readyAt, expiresAt } = await fetchTimelockState(client, block, timelock, operationId);
  const cancelled =
    phase === "unset" ? await findCancellation(client, block, timelock, operationId, deployment.block) : undefined;
  const times = { readyAt: readyAt ?? null, expiresAt: expiresAt ?? null };
  return { ...NEVER, phase: cancelled === undefined ? phase : "cancelled", ...times };
}

/** A direct transaction is done when the Safe executed it: by its own event, whatever nonce it was signed with. */
function directLife(
  join: Join,
  operation: Operation,
  step: "execute" | "rollback",
  signatures: readonly FoundSignature[],
): Life {
  const planned = planStep(operation, step);
  const hashes = directHashes(operation, step, signatures);
  const log = (join.safeLogs.get(planned.safe.address) ?? []).find(
    ({ topics, data }) =>
      topics[0] === EXECUTION_SUCCESS && (hashes.has(topics[1] ?? "0x") || hashes.has(data.slice(0, 66))),
  );
  if (log === undefined) return NEVER;
  return { ...NEVER, phase: "done", executed: { block: log.blockNumber, transactionHash: log.transactionHash } };
}

async function countSignatures(
  join: Join,
  operation: Operation,
  step: StepName,
  all: readonly FoundSignature[],
  notes: string[],
): Promise<SignatureCount> {
  const { client, block, states } = join;
  const first = planStep(operation, step);
  const safe = states.get(first.safe.address);
  if (safe === undefined) throw new Error(`no state of Safe ${first.safe.address} was read`);
  const own = all.filter((one) => one.step === step && one.safe === safe.address);
  // what was signed for the Safe's next nonce counts; before anything is signed, the planned nonce is shown
  const nonce = own.some((one) => one.nonce === safe.nonce) ? safe.nonce : first.transaction.nonce;
  const planned: PlannedTransaction = planStep(operation, step, { nonce });
  if (nonce < safe.nonce) {
    notes.push(
      `nonce ${nonce} of Safe ${safe.address} is used up, its next is ${safe.nonce}: sign again with --nonce ${safe.nonce}`,
    );
  }
  const signers = new Set<string>(await fetchApprovals(client, block, safe, planned.hashes.safeTxHash));
  const inner = new Map<string, Set<string>>();
  for (const { signer, through, nonce: signed, kind, signature } of own) {
    if (signed !== nonce) continue;
    const owner = through ?? signer;
    if (!safe.owners.includes(owner)) {
      notes.push(`${owner} signed and is no owner of Safe ${safe.address}`);
      continue;
    }
    const refusal =
      kind === "contract" ? await findContractRefusal(client, block, planned, signer, signature) : undefined;
    if (refusal !== undefined) notes.push(`the signature of ${signer} does not count: ${refusal}`);
    else if (through === null) signers.add(signer);
    else inner.set(through, new Set([...(inner.get(through) ?? []), signer]));
  }
  for (const [owner, people] of inner) {
    const nested = await fetchSafe(client, block, owner).catch((error: unknown) => {
      // a file that anybody can add must not keep the status of everything else from being told
      if (isKeysteadError(error, "safe/not-a-safe")) return undefined;
      throw error;
    });
    if (nested === undefined) {
      notes.push(`${[...people].join(", ")} signed for owner ${owner}, which is no Safe that these tools know`);
      continue;
    }
    const counted = [...people].filter((person) => nested.owners.includes(person));
    if (counted.length >= nested.threshold) signers.add(owner);
    else notes.push(`${counted.length} of ${nested.threshold} signed for owner ${owner}, itself a Safe`);
  }
  return { step, safe: safe.address, nonce, signers: [...signers].sort(), needed: safe.threshold };
}
