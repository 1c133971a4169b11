import { keccak256 } from "ethers";
import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Deployment } from "../chain/deployment.ts";
import { recogniseSafe, SAFE_RELEASES } from "../chain/safe-releases.ts";
import { DISMISSAL_DELAYS, dismissalOf } from "../chain/dismissal.ts";
import { fromHex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { type Build, findBuild } from "./build.ts";
import { contextOf, type Difference } from "./check.ts";
import { recogniseCall } from "./decode.ts";
import { type Operation, timelockSide } from "./operation.ts";
import { type Basis, type BasisOptions, requireWitnesses } from "./proven.ts";
import type { SafeRef } from "./safe-hash.ts";

import { addressIn, SINGLETON_SLOT } from "./safe-setup.ts";
import { fetchSafe } from "./safe-state.ts";
import { type Drift, findDrift } from "./start-state.ts";
import { fetchGracePeriod, fetchTimelockState, holdsRole, type TimelockPhase } from "./timelock-state.ts";
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
}

/** What a proposal is compared with beside itself. */
export interface VerifyChainOptions extends BasisOptions {
  /** Its recorded deployment: then code is compared with what was recorded. */
  readonly deployment?: Deployment | undefined;
  /** The contracts of this build: then new implementations must be one of them. */
  readonly builds?: readonly Build[] | undefined;
}

interface Check {
  readonly reader: WitnessedReader;
  readonly operation: Operation;
  readonly options: VerifyChainOptions;
  fact(what: string, found: string): void;
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
  const check: Check = {
    ...{ reader, operation, options },
    fact: (what, found) => void facts.push({ what, found }),
    differs: (field, code, message) => void differences.push({ field, code, message }),
  };
  check.fact("chain", `${client.chainId}, block ${block.number} of ${formatTime(BigInt(block.timestamp))}`);
  const { phase, readyAt } = await checkTimelock(check);
  await checkSafes(check, phase);
  await checkContracts(check);
  await checkTargets(check);
  const sound = differences.every(({ code }) => code !== "verify/no-code" && code !== "verify/not-a-safe");
  const part = phase === "done" ? "rollback" : "operation";
  const drift = sound ? await findDrift(client, block, operation, part, reader) : { recorded: false, moved: [] };
  const basis = await reader.prove(options);
  for (const { name, was, is } of drift.moved) {
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
    },
    unchecked: [
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

async function checkSafes(check: Check, phase: TimelockPhase | null): Promise<void> {
  const { operation } = check;
  const { safe, cancellers, rollback, timelock } = operation;
  // what was used up is used up: after scheduling the next nonce is the execution's
  const used = timelock !== null && (phase === "waiting" || phase === "ready" || phase === "expired") ? 1n : 0n;
  await checkSafe(check, safe, "safe", phase === "done" ? undefined : safe.nonce + used);
  const others: [SafeRef, string][] = cancellers.map((ref, i) => [ref, `cancellers[${i}]`]);
  if (rollback !== null) others.push([rollback.safe, "rollback.safe"]);
  const seen = new Set([safe.address]);
  for (const [ref, field] of others) {
    if (seen.has(ref.address)) continue;
    seen.add(ref.address);
    await checkSafe(check, ref, field, phase === "done" && field !== "rollback.safe" ? undefined : ref.nonce);
  }
}

async function checkSafe(check: Check, ref: SafeRef, field: string, nonce: bigint | undefined): Promise<void> {
  const { reader } = check;
  const { address, version, multiSend } = ref;
  const code = await reader.code(address);
  const kind = kindOfCode(code);
  const notASafe = (why: string) =>
    check.differs(`${field}.address`, "verify/not-a-safe", `${address} is no Safe: ${why}`);
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
  if (nonce !== undefined && safe.nonce !== nonce) {
    check.differs(
      `${field}.nonce`,
      "verify/nonce",
      `the next nonce of Safe ${address} is ${safe.nonce}, the hashes are for ${nonce}`,
    );
  }
  check.fact("Safe", `${address}: ${found.version}, ${safe.threshold} of ${safe.owners.length}, nonce ${safe.nonce}`);
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

async function checkTargets(check: Check): Promise<void> {
  const { reader, operation } = check;
  const { contracts, calls } = operation;
  const context = contextOf(operation);
  for (const [i, call] of calls.entries()) {
    const kind = kindOfCode(await reader.code(call.to));
    const field = `calls[${i}]`;
    if (kind === "delegation")
      check.differs(field, "verify/target-is-a-key", `${call.to} is one key that delegates (EIP-7702)`);
    if (kind === "nothing" && call.data !== "0x") {
      check.differs(
        field,
        "verify/no-code",
        `there is no contract at ${call.to}: the call would do nothing and succeed`,
      );
    }
    const recognised = recogniseCall(call, context);
    if (recognised === undefined || !recognised.certain) continue;
    const { contract, name, named } = recognised;
    const direct = operation.timelock === null && contract === "policy";
    if (
      direct &&
      !(await holdsRoleIn(reader, contracts.policy, true, roleIdOf("GUARDIAN_ROLE"), operation.safe.address))
    ) {
      check.differs(
        "safe",
        "verify/no-role",
        `Safe ${operation.safe.address} does not hold GUARDIAN_ROLE of the policy`,
      );
    }
    if (name === "upgradeTo" || name === "upgradeToAndCall") {
      await checkImplementation(check, field, String(named.newImplementation));
    }
  }
}

/** A new implementation: it has code, nobody can initialise it, and, where a build is given, it was built from it. */
async function checkImplementation(check: Check, field: string, address: string): Promise<void> {
  const { reader, options, operation } = check;
  const code = await reader.code(address);
  if (kindOfCode(code) !== "contract") {
    return check.differs(
      field,
      "verify/no-implementation",
      `there is no contract at the new implementation ${address}`,
    );
  }
  if ((await initializedIn(reader, address)) !== INITIALIZERS_DISABLED) {
    check.differs(field, "verify/open-initializer", `anyone can initialise the new implementation ${address} itself`);
  }
  const hash = keccak256(code);
  if (options.builds === undefined) return check.fact("new implementation", `${address}, code hash ${hash}`);
  const built = findBuild(code, options.builds, [address, operation.contracts.policy]);
  if (built === undefined) {
    return check.differs(
      field,
      "verify/not-built-here",
      `the code of ${address} (hash ${hash}) is none of this build's contracts`,
    );
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
