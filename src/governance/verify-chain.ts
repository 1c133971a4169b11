import { keccak256 } from "ethers";
import { type Block, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Deployment } from "../chain/deployment.ts";
import { DISMISSAL_DELAYS, dismissalOf } from "../chain/dismissal.ts";
import { recogniseSafe, SAFE_RELEASES } from "../chain/safe-releases.ts";
import { fromHex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { INTERFACES } from "./abis.ts";
import { type Build, findBuild, missingFunctions } from "./build.ts";
import { contextOf, type Difference, replacesCode } from "./check.ts";
import { recogniseCall } from "./decode.ts";
import { type Operation, timelockSide } from "./operation.ts";
import { type Basis, type BasisOptions, requireWitnesses } from "./proven.ts";
import type { Call, SafeRef } from "./safe-hash.ts";
import { addressIn, SINGLETON_SLOT } from "./safe-setup.ts";
import { fetchSafe } from "./safe-state.ts";
import { type Drift, findDrift } from "./start-state.ts";
import { fetchGracePeriod, fetchTimelockState, holdsRole, type TimelockPhase } from "./timelock-state.ts";
import { type PlannedTransaction, planAt, planTransactions } from "./transactions.ts";
import {
  holdsRoleIn,
  INITIALIZERS_DISABLED,
  implementationIn,
  initializedIn,
  kindOfCode,
  minDelayIn,
  openReader,
  roleIdOf,
  safeIn,
  timelockEntryIn,
  type WitnessedReader,
} from "./witnessed.ts";
import { formatDuration, formatTime } from "./words.ts";

/** One thing that was looked at and found as it should be. */
export interface ChainFact {
  readonly what: string;
  readonly found: string;
}

/** What the chain says about a proposal. */
export interface ChainVerification {
  readonly ok: boolean;
  readonly block: Pick<Block, "number" | "hash" | "timestamp">;
  /** Where the operation stands at the timelock; null for a direct Safe transaction. */
  readonly phase: TimelockPhase | null;
  /** From when on it can be executed, seconds since 1970. */
  readonly readyAt: bigint | null;
  readonly facts: readonly ChainFact[];
  readonly differences: readonly Difference[];
  readonly drift: Drift;
  readonly basis: Basis;
  readonly unchecked: readonly string[];
  /** The steps that are left, with the nonces that the Safes have now: where those moved, so did the hashes. */
  readonly transactions: readonly PlannedTransaction[];
  /** What differs from the plan and takes nothing away from it, e.g. a nonce that moved on. */
  readonly notes: readonly string[];
}

/** What a proposal is compared with beside itself. */
export interface VerifyChainOptions extends BasisOptions {
  /** Its recorded deployment: then code is compared with what was recorded. */
  readonly deployment?: Deployment | undefined;
  /** The contracts of this build: then new implementations must be one of them. */
  readonly builds?: readonly Build[] | undefined;
  /** Names of facts that may have moved since it was proposed. */
  readonly acceptDrift?: readonly string[] | undefined;
}

interface Check {
  readonly reader: WitnessedReader;
  readonly operation: Operation;
  readonly options: VerifyChainOptions;
  fact(what: string, found: string): void;
  note(line: string): void;
  differs(field: string, code: string, message: string): void;
}

/**
 * Compares what a proposal assumes with the chain at one block: the code of Safes, singletons, MultiSend, timelock, proxies, targets and new
 * implementations; Safe releases and nonces; roles; the timelock's delay; where the operation and its predecessor stand; what moved since it was
 * proposed. Storage and code are proven against the block's state root, and views compared with them.
 *
 * @throws KeysteadError `chain/wrong-chain`, `chain/contradicts-proof`, `chain/contradicts-itself`, `chain/unproven`, `chain/witness-disagrees`,
 * `proof/invalid`; as `Client.request`: what can't be checked is never taken for agreement
 * @example
 * (await verifyOnChain(client, await fetchBlock(client, "latest"), operation)).differences; // []
 */
export async function verifyOnChain(
  client: Client,
  block: Block,
  operation: Operation,
  options: VerifyChainOptions = {},
): Promise<ChainVerification> {
  if (BigInt(client.chainId) !== operation.chainId) {
    throw new KeysteadError(
      "chain/wrong-chain",
      `the endpoint is on chain ${client.chainId}, the proposal is for ${operation.chainId}`,
      {
        argument: "rpc",
        remedy: "Give an endpoint of the proposal's chain.",
        details: { expected: operation.chainId, actual: client.chainId },
      },
    );
  }
  await requireWitnesses(options.witnesses ?? [], block);
  const reader = openReader(client, block);
  const facts: ChainFact[] = [];
  const differences: Difference[] = [];
  const notes: string[] = [];
  const check: Check = {
    ...{ reader, operation, options },
    fact: (what, found) => void facts.push({ what, found }),
    note: (line) => void notes.push(line),
    differs: (field, code, message) => void differences.push({ field, code, message }),
  };
  check.fact("chain", `${client.chainId}, block ${block.number} of ${formatTime(BigInt(block.timestamp))}`);
  await checkTimes(check);
  const { phase, readyAt } = await checkTimelock(check);
  const nonces = await checkSafes(check);
  await checkContracts(check);
  await checkTargets(check, phase);
  const sound = differences.every(({ code }) => code !== "verify/no-code" && code !== "verify/not-a-safe");
  const part = phase === "done" ? "rollback" : "operation";
  const drift = sound
    ? await findDrift(client, block, operation, part, reader)
    : { recorded: false, moved: [], noted: [] };
  const basis = await reader.prove({ ...options, tightening: operation.lane === "revoke" });
  for (const { name, was, is } of drift.noted) {
    check.note(`${name} was ${JSON.stringify(was)} when proposed and is ${JSON.stringify(is)}: it stands all the same`);
  }
  for (const { name, was, is } of drift.moved) {
    if (options.acceptDrift?.includes(name) === true) {
      check.note(`${name} was ${JSON.stringify(was)} when proposed and is ${JSON.stringify(is)}: accepted by name`);
      continue;
    }
    check.differs(name, "verify/drifted", `it was ${JSON.stringify(was)} when proposed and is ${JSON.stringify(is)}`);
  }
  const { number, hash, timestamp } = block;
  return {
    ...{
      ok: differences.length === 0,
      block: { number, hash, timestamp },
      phase,
      readyAt,
      facts,
      differences,
      drift,
      basis,
      notes,
    },
    transactions: remainingSteps(operation, phase, nonces, notes),
    unchecked: [
      ...(options.builds === undefined && replacesCode(operation)
        ? ["that new implementations are what was built here: code was NOT compared with a build"]
        : []),
      ...basis.reasons,
      ...(drift.recorded
        ? ["the contracts' own answers about what moved: views, which nothing proves (Safes and code are proven)"]
        : ["what moved since it was proposed: the proposal holds no start state (propose with --rpc)"]),
      ...(options.deployment === undefined
        ? ["that the code at these addresses is Keystead's: name the deployment's record with --deployment"]
        : []),
      "what the operation does on this state: keystead simulate",
    ],
  };
}

/** A view and the slot behind it must agree: else the endpoint contradicts itself, and nothing that it says can be judged. */
function requireSame(what: string, view: unknown, storage: unknown): void {
  if (String(view) === String(storage)) return;
  throw new KeysteadError(
    "chain/contradicts-itself",
    `the endpoint answers that ${what} is ${view}, and its storage holds ${storage}`,
    {
      argument: "rpc",
      remedy: "Use another endpoint, or add --witness with one.",
      details: { what, view: String(view), storage: String(storage) },
    },
  );
}

async function checkTimelock(
  check: Check,
): Promise<{ readonly phase: TimelockPhase | null; readonly readyAt: bigint | null }> {
  const { reader, operation } = check;
  const { client, block } = reader;
  const { timelock, safe, cancellers, id } = operation;
  if (timelock === null) return { phase: null, readyAt: null };
  const { address, delay, predecessor } = timelock;
  if (kindOfCode(await reader.code(address)) !== "contract") {
    check.differs("timelock.address", "verify/no-code", "there is no contract");
    return { phase: null, readyAt: null };
  }
  const side = timelockSide(operation, timelock, id);
  const operationId = toHex(fromHex(side.operationId, "id"));
  const state = await fetchTimelockState(client, block, address, operationId);
  const entry = await timelockEntryIn(reader, address, operationId);
  requireSame("the timelock's entry", state.readyAt ?? (state.phase === "done" ? 1n : 0n), entry);
  requireSame("the timelock's minimum delay", state.minDelay, await minDelayIn(reader, address));
  check.fact(
    "operation",
    `${operationId}: ${state.phase}${state.readyAt === undefined ? "" : `, ready ${formatTime(state.readyAt)}`}${state.expiresAt === undefined ? "" : `, expires ${formatTime(state.expiresAt)}`}`,
  );
  check.fact("minimum delay", formatDuration(state.minDelay));
  const unscheduled = state.phase === "unset" || state.phase === "expired";
  const grace = await fetchGracePeriod(client, block, address);
  const dismissal = grace === undefined ? undefined : dismissalOf(operation.calls, predecessor, address);
  const least = dismissal === undefined ? state.minDelay : DISMISSAL_DELAYS * state.minDelay;
  if (dismissal !== undefined) {
    check.fact("dismissal", `it takes the offices of ${dismissal.outgoing}: a proposer alone can cancel it`);
  }
  if (state.phase === "expired") {
    check.fact("expired", `on ${formatTime(state.expiresAt ?? 0n)}: it can no longer be executed, schedule it again`);
  }
  if (unscheduled && least > delay) {
    check.differs(
      "timelock.delay",
      "verify/delay-too-short",
      `the timelock's minimum is ${formatDuration(least)}, the operation's ${formatDuration(delay)}: scheduling it would fail`,
    );
  }
  if (!/^0x0+$/.test(predecessor)) {
    const before = await timelockEntryIn(reader, address, predecessor);
    const phase = before === 0n ? "not scheduled" : before === 1n ? "done" : "scheduled";
    check.fact("predecessor", `${predecessor}: ${phase}`);
    if (before === 0n) {
      check.differs(
        "timelock.predecessor",
        "verify/predecessor-unknown",
        "the timelock knows no such operation: this one could never be executed",
      );
    }
  }
  if (state.phase !== "done") {
    const roles = [
      ["PROPOSER_ROLE", safe.address, "safe"],
      ["EXECUTOR_ROLE", safe.address, "safe"],
      ["CANCELLER_ROLE", safe.address, "safe"],
      ...cancellers.map((canceller, i) => ["CANCELLER_ROLE", canceller.address, `cancellers[${i}]`] as const),
    ] as const;
    for (const [role, account, field] of roles) {
      const held = await holdsRoleIn(reader, address, false, roleIdOf(role), account);
      requireSame(`${account} holding ${role}`, await holdsRole(client, block, address, role, account), held);
      if (held) check.fact(role, account);
      else check.differs(field, "verify/no-role", `${account} does not hold ${role} at the timelock`);
    }
  }
  return { phase: state.phase, readyAt: state.readyAt ?? null };
}

/** Each Safe of the proposal, looked at once; gives their present nonces. */
async function checkSafes(check: Check): Promise<ReadonlyMap<string, bigint>> {
  const { safe, cancellers, rollback } = check.operation;
  const all: [SafeRef, string][] = [
    [safe, "safe"],
    ...cancellers.map((ref, i): [SafeRef, string] => [ref, `cancellers[${i}]`]),
  ];
  if (rollback !== null) all.push([rollback.safe, "rollback.safe"]);
  const nonces = new Map<string, bigint>();
  for (const [ref, field] of all) {
    if (nonces.has(ref.address)) continue;
    const nonce = await checkSafe(check, ref, field);
    if (nonce !== undefined) nonces.set(ref.address, nonce);
  }
  return nonces;
}

/**
 * What is still to be signed, with the nonces that it is to be signed with now. Two proposals in flight are normal: a Safe that moved on gives other hashes,
 * and nothing of what was proposed is wrong.
 */
function remainingSteps(
  operation: Operation,
  phase: TimelockPhase | null,
  nonces: ReadonlyMap<string, bigint>,
  notes: string[],
): readonly PlannedTransaction[] {
  // a timelock's entry that expired is scheduled again
  const scheduled = phase === "waiting" || phase === "ready";
  const done = phase === "done";
  const left = planTransactions(operation).filter(({ name }) => {
    if (name === "schedule") return !scheduled && !done;
    if (name === "execute" || name === "cancel") return !done;
    return true;
  });
  const next = new Map(nonces);
  const step = (address: string) => next.set(address, (next.get(address) ?? 0n) + 1n);
  // a cancellation takes the place of the execution
  const afterSchedule = new Map(nonces);
  if (left[0]?.name === "schedule")
    afterSchedule.set(left[0].safe.address, (nonces.get(left[0].safe.address) ?? 0n) + 1n);
  return left.map((planned) => {
    const { address } = planned.safe;
    const nonce = (planned.name === "cancel" ? afterSchedule : next).get(address);
    if (nonce === undefined) return planned;
    if (planned.name !== "cancel") step(address);
    const { nonce: assumed } = planned.transaction;
    if (nonce === assumed) return planned;
    const where = nonce > assumed ? "moved on" : "has not got so far";
    notes.push(
      `Safe ${address} ${where}: ${planned.name} has nonce ${nonce} now, planned was ${assumed}; sign with --nonce ${nonce}`,
    );
    return planAt(planned, operation.chainId, nonce);
  });
}

/** How far the proposal's own time may be from the block that it says it looked at: clocks differ, days do not. */
const CLOCK_SLACK = 86_400n;

/** Times and blocks that a proposal states, compared with the chain's. */
async function checkTimes(check: Check): Promise<void> {
  const { reader, operation } = check;
  const { client, block } = reader;
  const { time, start } = operation.assumptions;
  const now = BigInt(block.timestamp);
  if (time > now + CLOCK_SLACK) {
    const message = `it says that it was proposed at ${formatTime(time)}, and the chain is at ${formatTime(now)}`;
    check.differs("assumptions.time", "verify/time-ahead", message);
  }
  if (start === null) return;
  if (start.block > BigInt(block.number)) {
    const message = `it says that it looked at block ${start.block}, and the chain is at ${block.number}`;
    return check.differs("assumptions.start.block", "verify/block-ahead", message);
  }
  const looked = await fetchBlock(client, Number(start.block));
  if (looked.hash !== start.hash) {
    const message = `block ${start.block} is ${looked.hash} on this chain, not ${start.hash}`;
    check.differs("assumptions.start.hash", "verify/other-block", message);
  } else if (time > BigInt(looked.timestamp) + CLOCK_SLACK) {
    const message = `it says ${formatTime(time)}, and its block is of ${formatTime(BigInt(looked.timestamp))}`;
    check.differs("assumptions.time", "verify/time-lies", message);
  }
}

async function checkSafe(check: Check, ref: SafeRef, field: string): Promise<bigint | undefined> {
  const { reader } = check;
  const { address, version, multiSend } = ref;
  const code = await reader.code(address);
  const kind = kindOfCode(code);
  const notASafe = (why: string): undefined =>
    void check.differs(`${field}.address`, "verify/not-a-safe", `${address} is not a Safe: ${why}`);
  if (kind !== "contract")
    return notASafe(kind === "nothing" ? "it has no code" : "it is one key that delegates (EIP-7702)");
  const singleton = addressIn(await reader.slot(address, SINGLETON_SLOT));
  const found = recogniseSafe({
    codeHash: keccak256(code),
    singleton,
    singletonCodeHash: keccak256(await reader.code(singleton)),
  });
  if (found.version === undefined) return notASafe(found.why);
  const safe = await fetchSafe(reader.client, reader.block, address);
  requireSame(`the release of Safe ${address}`, safe.version, found.version);
  const stored = await safeIn(reader, address);
  requireSame(`the nonce of Safe ${address}`, safe.nonce, stored.nonce);
  requireSame(`the threshold of Safe ${address}`, safe.threshold, stored.threshold);
  requireSame(`the owners of Safe ${address}`, [...safe.owners].sort(), [...stored.owners].sort());
  if (found.version !== version) {
    check.differs(
      `${field}.version`,
      "verify/safe-version",
      `Safe ${address} is ${found.version}, the operation assumes ${version}`,
    );
  }
  const published = SAFE_RELEASES[version].multiSendCallOnly;
  if (keccak256(await reader.code(multiSend)) !== published.codeHash) {
    check.differs(
      `${field}.multiSend`,
      "verify/multi-send",
      `the code at ${multiSend} is not MultiSendCallOnly ${version}`,
    );
  }
  check.fact("Safe", `${address}: ${found.version}, ${safe.threshold} of ${safe.owners.length}, nonce ${safe.nonce}`);
  return safe.nonce;
}

async function checkContracts(check: Check): Promise<void> {
  const { reader, operation, options } = check;
  const { policy, registry, timelock } = operation.contracts;
  const recorded = options.deployment?.contracts;
  for (const [name, address] of [
    ["policy", policy],
    ["registry", registry],
    ["timelock", timelock],
  ] as const) {
    const code = await reader.code(address);
    if (kindOfCode(code) !== "contract") {
      check.differs(`contracts.${name}`, "verify/no-code", `there is no contract at ${address}`);
      continue;
    }
    const hash = keccak256(code);
    if (recorded !== undefined && hash !== recorded[name].codeHash) {
      check.differs(
        `contracts.${name}`,
        "verify/other-code",
        `its code hash is ${hash}, recorded is ${recorded[name].codeHash}`,
      );
    } else check.fact(`${name} code`, hash);
    if (name === "timelock") continue;
    const implementation = await implementationIn(reader, address);
    const behind = await reader.code(implementation);
    const known = name === "policy" ? recorded?.policyImplementation : recorded?.registryImplementation;
    if (known !== undefined && known.address === implementation && keccak256(behind) !== known.codeHash) {
      check.differs(
        `contracts.${name}`,
        "verify/other-code",
        `the code of its implementation ${implementation} is not the recorded one`,
      );
    } else if (known !== undefined && known.address !== implementation) {
      check.differs(
        `contracts.${name}`,
        "verify/other-implementation",
        `its implementation is ${implementation}, recorded is ${known.address}`,
      );
    } else check.fact(`${name} implementation`, `${implementation}, code hash ${keccak256(behind)}`);
    if (!(await holdsRoleIn(reader, address, true, roleIdOf("GOVERNOR_ROLE"), timelock))) {
      check.differs(`contracts.${name}`, "verify/no-role", `the timelock does not hold GOVERNOR_ROLE there`);
    }
  }
}

/** The contracts that calls go to, of the operation and of its rollback. */
async function checkTargets(check: Check, phase: TimelockPhase | null): Promise<void> {
  const { calls, rollback, safe, timelock } = check.operation;
  await checkCalls(check, calls, { field: "calls", safe: safe.address, direct: timelock === null, phase });
  if (rollback === null) return;
  const direct = rollback.timelock === null;
  await checkCalls(check, rollback.calls, { field: "rollback.calls", safe: rollback.safe.address, direct, phase });
}

interface Way {
  readonly field: "calls" | "rollback.calls";
  readonly safe: string;
  readonly direct: boolean;
  readonly phase: TimelockPhase | null;
}

async function checkCalls(check: Check, calls: readonly Call[], way: Way): Promise<void> {
  const { reader, operation } = check;
  const { contracts } = operation;
  const context = contextOf(operation);
  const seen = new Set<string>();
  for (const [i, call] of calls.entries()) {
    const kind = kindOfCode(await reader.code(call.to));
    const field = `${way.field}[${i}]`;
    if (kind === "delegation")
      check.differs(field, "verify/target-is-a-key", `${call.to} is one key that delegates (EIP-7702)`);
    if (kind === "nothing" && call.data !== "0x") {
      const message = `there is no contract at ${call.to}: the call would do nothing and succeed`;
      check.differs(field, "verify/no-code", message);
    }
    const recognised = recogniseCall(call, context);
    if (recognised === undefined || !recognised.certain) continue;
    const { contract, name, named } = recognised;
    if (way.direct && contract === "policy" && !seen.has(way.safe)) {
      seen.add(way.safe);
      if (!(await holdsRoleIn(reader, contracts.policy, true, roleIdOf("GUARDIAN_ROLE"), way.safe))) {
        const message = `Safe ${way.safe} does not hold GUARDIAN_ROLE of the policy`;
        check.differs(way.field === "calls" ? "safe" : "rollback.safe", "verify/no-role", message);
      }
    }
    if ((name === "upgradeTo" || name === "upgradeToAndCall") && (contract === "policy" || contract === "registry")) {
      const next = String(named.newImplementation);
      await checkImplementation(check, field, contract, next);
      if (way.field === "rollback.calls") await checkRestored(check, field, call.to, next, way.phase);
    }
  }
}

/** A rollback of an upgrade puts back the implementation that is there before the upgrade. */
async function checkRestored(
  check: Check,
  field: string,
  proxy: string,
  next: string,
  phase: TimelockPhase | null,
): Promise<void> {
  if (phase === "done") return;
  const present = await implementationIn(check.reader, proxy);
  if (present === next) return check.fact("rollback restores", `${next}, the present implementation`);
  const message = `it would set the implementation ${next}, and the present one is ${present}: that undoes nothing`;
  check.differs(field, "verify/rollback-not-back", message);
}

/**
 * A new implementation of one proxy: it has code, which is that contract's and nobody else's; nobody can initialise it; and, where a build is given, it was
 * built from it.
 */
async function checkImplementation(
  check: Check,
  field: string,
  contract: "policy" | "registry",
  address: string,
): Promise<void> {
  const { reader, options, operation } = check;
  const code = await reader.code(address);
  if (kindOfCode(code) !== "contract") {
    const message = `there is no contract at the new implementation ${address}`;
    return check.differs(field, "verify/no-implementation", message);
  }
  const missing = missingFunctions(code, INTERFACES[contract]);
  if (missing.length > 0) {
    const some = `${missing.slice(0, 3).join(", ")}${missing.length > 3 ? ` and ${missing.length - 3} more` : ""}`;
    const message = `the code of ${address} is not the ${contract}'s: it has no ${some}`;
    check.differs(field, "verify/other-contract", message);
  }
  if ((await initializedIn(reader, address)) !== INITIALIZERS_DISABLED) {
    check.differs(field, "verify/open-initializer", `anyone can initialise the new implementation ${address} itself`);
  }
  const hash = keccak256(code);
  if (options.builds === undefined) {
    return check.fact("new implementation", `${address}, code hash ${hash}, NOT compared with a build`);
  }
  const built = findBuild(code, options.builds, [address, operation.contracts.policy]);
  if (built === undefined) {
    const message = `the code of ${address} (hash ${hash}) is none of this build's contracts`;
    return check.differs(field, "verify/not-built-here", message);
  }
  check.fact("new implementation", `${address}, built from ${built.source}, code hash ${hash}`);
}

/** Why a phase is what it is, in words. */
export const phaseWords: Readonly<Record<TimelockPhase, string>> = {
  unset: "not scheduled",
  waiting: "waiting",
  ready: "ready",
  expired: "expired: to be scheduled again",
  done: "executed",
};
