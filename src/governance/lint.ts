import { keccak256, ZeroAddress } from "ethers";
import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { DEPLOYED_CONTRACTS, type DeployedContractName, type Deployment } from "../chain/deployment.ts";
import { dismissalOf } from "../chain/dismissal.ts";
import { isFallbackHandler, recogniseSafe } from "../chain/safe-releases.ts";
import { isLocalChain } from "../core/chain-id.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { LONGEST_DELAY } from "../protocol/dangers.ts";
import { type Build, buildOf } from "./build.ts";
import { checkOperation, lanesOf } from "./check.ts";
import { decodeCall, flattenCalls } from "./decode.ts";
import {
  checkDeployedCode,
  checkDeployedRoles,
  checkDeployedState,
  type Deviation,
  fetchDeployers,
  type ObservedRoles,
  PUBLISHED_SOURCES,
} from "./deployment-check.ts";
import { judgeOperation, knownParties } from "./judge.ts";
import type { Operation } from "./operation.ts";
import { type Basis, type BasisOptions, requireWitnesses } from "./proven.ts";
import { addressIn, SINGLETON_SLOT } from "./safe-setup.ts";
import { type LoggedOperation, readTimelockLog } from "./timelock-log.ts";
import { delayFloorIn, kindOfCode, minDelayIn, openReader, safeIn, type WitnessedReader } from "./witnessed.ts";
import { formatDuration, formatTime } from "./words.ts";

/** One misconfiguration. `unsafe`: it must not stay. `warning`: it may be meant, and somebody should say so. */
export interface LintFinding {
  readonly code: LintCode;
  readonly severity: "unsafe" | "warning";
  /** The contract, Safe or proposal that it is about. */
  readonly subject: string;
  readonly message: string;
  readonly remedy: string;
}

/** Every rule, what it is for, and what helps. */
export const LINT_RULES = {
  "lint/roles": [
    "roles are exactly as published",
    "Correct the role through the timelock; deploy/README.md has the table.",
  ],
  "lint/external-admin": [
    "nobody but the timelock administers the timelock's roles",
    "Have that account renounce DEFAULT_ADMIN_ROLE: it can reassign every role at once.",
  ],
  "lint/eoa": [
    "no office is held by a key, EIP-7702 delegations included",
    "Give the office to a Safe, and take it from the key.",
  ],
  "lint/deployer-rights": ["whoever deployed holds nothing", "Take the role from the deployer."],
  "lint/delay-zero": ["the timelock has a delay", "Propose set-delay: without one nobody can see a change coming."],
  "lint/delay-short": ["on a public chain the delay is at least a day", "Propose set-delay."],
  "lint/delay-absurd": [
    "the delay is at most 30 days",
    "Propose set-delay now: an upgrade that mends something would wait as long.",
  ],
  "lint/delay-floor": [
    "on a public chain the delay cannot be lowered below a day",
    "Deploy again with a longer delay: the first one is the floor for good.",
  ],
  "lint/dismissal": [
    "nobody is dismissing a guardian",
    "Ask the governance Safe's owners. If they did not mean it, they cancel it: the guardian cannot.",
  ],
  "lint/delay-changed": ["the delay is the recorded one", "Update the record if the change was meant."],
  "lint/no-canceller": [
    "somebody who cannot propose can cancel",
    "Grant CANCELLER_ROLE to the guardian Safe through the timelock.",
  ],
  "lint/guardian-not-independent": [
    "the guardian's owners are others than the governors'",
    "Change the owners of one of the two Safes.",
  ],
  "lint/open-executor": [
    "executors are named, so that what is scheduled beforehand cannot be executed by anybody",
    "Revoke EXECUTOR_ROLE from the zero address; cancel rollbacks that were scheduled beforehand.",
  ],
  "lint/code": [
    "every contract is the recorded one and was built here",
    "Do not use these contracts before it is explained.",
  ],
  "lint/implementation": [
    "behind each proxy is the implementation that was recorded and built here",
    "Find out which proposal changed it; roll back if none did.",
  ],
  "lint/uninitialised": [
    "proxies are initialised, and implementations locked",
    "Deploy the implementation again with its initialisers disabled.",
  ],
  "lint/wiring": ["the contracts refer to each other", "Deploy again: these references are fixed."],
  "lint/not-a-safe": ["both offices are held by genuine Safes", "Give the office to a Safe of a published release."],
  "lint/safe-changed": [
    "the Safes' owners and thresholds are the recorded ones",
    "Update the record if the change was meant.",
  ],
  "lint/safe-threshold": ["no single owner decides", "Raise the Safe's threshold to 2 or more."],
  "lint/safe-module": ["no module acts for a Safe without signatures", "Disable the module."],
  "lint/safe-guard": ["no guard can block a Safe's transactions", "Remove the guard, or record why it is there."],
  "lint/safe-handler": ["the Safe's fallback handler is a published one", "Set the release's own handler."],
  "lint/crossed-lane": [
    "what loosens waits in the timelock, and what tightens never does",
    "Propose it again the other way; cancel it if it is scheduled.",
  ],
  "lint/dangerous-call": [
    "no proposal and nothing that waits hands over control, rollbacks included",
    "Cancel it if it is scheduled, unless somebody can explain it: keystead verify shows the call.",
  ],
} as const satisfies Readonly<Record<string, readonly [string, string]>>;
export type LintCode = keyof typeof LINT_RULES;

/** What is linted beside the chain. */
export interface LintInput extends BasisOptions {
  readonly deployment: Deployment;
  /** This build's contracts: what stands on chain must be among them. Without, code is not compared. */
  readonly builds?: readonly Build[] | undefined;
  /** Proposals, by the name of their folder. */
  readonly proposals?: ReadonlyMap<string, Operation> | undefined;
}

/** What linting found. */
export interface LintReport {
  /** Nothing unsafe. */
  readonly ok: boolean;
  readonly block: Pick<Block, "number" | "hash" | "timestamp">;
  readonly findings: readonly LintFinding[];
  /** Rules that were looked at. */
  readonly checked: readonly LintCode[];
  readonly roles: ObservedRoles;
  readonly basis: Basis;
}

const DAY = 86_400n;

interface Lint {
  readonly reader: WitnessedReader;
  readonly input: LintInput;
  add(code: LintCode, subject: string, message: string, severity?: LintFinding["severity"]): void;
}

/**
 * Looks for every misconfiguration that is known to have cost somebody a deployment: roles, admins, keys in offices, delays, cancellers, executors,
 * code, initialisers, Safes, and operations on the wrong way. It only reads. Code and storage are proven against the block's state root.
 *
 * @throws KeysteadError `lint/other-chain`, `build/none`; `chain/contradicts-proof`, `chain/unproven`, `chain/witness-disagrees`,
 * `chain/incomplete-logs`; as `Client.request`: what can't be read is never taken for well configured
 * @example
 * (await lintDeployment(client, block, { deployment, builds: await readBuilds() })).findings; // []
 */
export async function lintDeployment(client: Client, block: Block, input: LintInput): Promise<LintReport> {
  const { deployment } = input;
  if (BigInt(client.chainId) !== deployment.chainId) {
    throw new KeysteadError(
      "chain/wrong-chain",
      `the endpoint is on chain ${client.chainId}, the record of ${deployment.chainId}`,
      {
        argument: "rpc",
        remedy: "Give an endpoint of the deployment's chain.",
        details: { expected: deployment.chainId, actual: client.chainId },
      },
    );
  }
  await requireWitnesses(input.witnesses ?? [], block);
  const reader = openReader(client, block);
  const { findings, roles } = await applyRules(reader, input);
  const basis = await reader.prove(input);
  const { number, hash, timestamp } = block;
  return {
    ok: findings.every(({ severity }) => severity !== "unsafe"),
    ...{ block: { number, hash, timestamp }, findings, roles, basis },
    checked: Object.keys(LINT_RULES) as LintCode[],
  };
}

/**
 * Applies every rule to the state that a reader reads, and proves nothing: for a copy of a chain, whose state no block commits to.
 *
 * @throws KeysteadError as {@link lintDeployment}
 * @example
 * (await applyRules(openReader(fork.client, await fetchBlock(fork.client, "latest")), { deployment, builds })).findings;
 */
export async function applyRules(
  reader: WitnessedReader,
  input: LintInput,
): Promise<Pick<LintReport, "findings" | "roles">> {
  const findings = new Map<string, LintFinding>();
  const lint: Lint = {
    ...{ reader, input },
    add(code, subject, message, severity = "unsafe") {
      findings.set(JSON.stringify([code, subject, message]), {
        code,
        severity,
        subject,
        message,
        remedy: LINT_RULES[code][1],
      });
    },
  };
  await lintCode(lint);
  const { deviations, roles } = await checkDeployedRoles(reader, input.deployment);
  for (const { message } of deviations) addDeviation(lint, "lint/roles", message);
  await lintHolders(lint, roles);
  await lintDelay(lint);
  await lintSafes(lint);
  const pending = await pendingOperations(lint);
  lintExecutors(lint, roles, pending);
  lintDismissals(lint, pending);
  lintLanes(lint, pending);
  lintDangers(lint, pending);
  return { findings: [...findings.values()], roles };
}

/** What waits in the timelock, and the proposals that may: their calls by the catalogue of dangerous ones, rollbacks included. */
function lintDangers(lint: Lint, pending: readonly LoggedOperation[]): void {
  const { deployment, proposals = new Map<string, Operation>() } = lint.input;
  for (const [folder, operation] of proposals) {
    for (const { severity, where, message, code } of judgeOperation(operation, deployment).warnings) {
      lint.add(
        "lint/dangerous-call",
        folder,
        `${where}: ${message} (${code})`,
        severity === "unsafe" ? "unsafe" : "warning",
      );
    }
  }
  const { contracts, safes } = deployment;
  const context = {
    contracts: {
      policy: contracts.policy.address,
      registry: contracts.registry.address,
      timelock: contracts.timelock.address,
    },
    safes: [safes.governance.address, safes.guardian.address],
    known: knownParties(deployment),
  };
  for (const { id, calls } of pending) {
    for (const { severity, code, message } of flattenCalls(calls.map((call) => decodeCall(call, context))).flatMap(
      ({ warnings }) => warnings,
    )) {
      const graver = severity === "unsafe" ? "unsafe" : "warning";
      lint.add("lint/dangerous-call", `operation ${id}`, `it waits in the timelock: ${message} (${code})`, graver);
    }
  }
}

/** Messages of deviations start with the contract's name. */
function addDeviation(lint: Lint, code: LintCode, message: string): void {
  const [, subject = "deployment", rest = message] = /^(\w+): (.*)$/s.exec(message) ?? [];
  lint.add(code, subject, rest);
}

const DEVIATION_CODES: Readonly<Record<Deviation["code"], LintCode>> = {
  code: "lint/code",
  implementation: "lint/implementation",
  uninitialised: "lint/uninitialised",
  wiring: "lint/wiring",
  delay: "lint/delay-changed",
  roles: "lint/roles",
};

async function lintCode(lint: Lint): Promise<void> {
  const { reader, input } = lint;
  const { deployment, builds } = input;
  const found = builds === undefined ? [] : await checkDeployedCode(reader, deployment, buildsOf(deployment, builds));
  for (const { code, message } of found) addDeviation(lint, DEVIATION_CODES[code], message);
  try {
    for (const { code, message } of await checkDeployedState(reader, deployment)) {
      addDeviation(lint, DEVIATION_CODES[code], message);
    }
  } catch (error) {
    // a contract that does not answer as its interface says is no Keystead contract; anything else could not be checked
    if (!isKeysteadError(error, "chain/not-this-contract") && !isKeysteadError(error, "chain/reverted")) throw error;
    lint.add("lint/code", "deployment", error.message);
  }
}

/** Implementations may be of a later version than the published first one: then of whatever the record names, and this build has. */
function buildsOf({ contracts }: Deployment, builds: readonly Build[]): Record<DeployedContractName, Build> {
  const found = DEPLOYED_CONTRACTS.map((name): [DeployedContractName, Build] => {
    const upgraded = name === "policyImplementation" || name === "registryImplementation";
    const source = upgraded ? contracts[name].source : PUBLISHED_SOURCES[name];
    const build = buildOf(builds, source);
    if (build !== undefined) return [name, build];
    throw new KeysteadError("build/none", `the build has no ${source} to compare ${name} with`, {
      argument: "build",
      remedy: "Build the sources that were deployed: npm run build.",
      details: { source },
    });
  });
  return Object.fromEntries(found) as Record<DeployedContractName, Build>;
}

async function lintHolders(lint: Lint, roles: ObservedRoles): Promise<void> {
  const { reader, input } = lint;
  const { contracts } = input.deployment;
  const deployers = await fetchDeployers(reader, input.deployment);
  for (const { contract, role, holders } of roles) {
    for (const holder of holders) {
      if (holder === ZeroAddress) continue;
      const kind = kindOfCode(await reader.code(holder));
      if (kind !== "contract") {
        const what = kind === "delegation" ? "a key that delegates (EIP-7702)" : "a key, or nothing";
        lint.add("lint/eoa", contract, `${holder} holds ${role}, and it is ${what}`);
      }
      if (deployers.has(holder))
        lint.add("lint/deployer-rights", contract, `${holder}, who deployed it, holds ${role}`);
      if (contract === "timelock" && role === "DEFAULT_ADMIN_ROLE" && holder !== contracts.timelock.address) {
        lint.add("lint/external-admin", contract, `${holder} administers the timelock's roles without any delay`);
      }
    }
  }
  const holdersOf = (role: string) =>
    roles.find((row) => row.contract === "timelock" && row.role === role)?.holders ?? [];
  const proposers = new Set(holdersOf("PROPOSER_ROLE"));
  const independent = holdersOf("CANCELLER_ROLE").filter((canceller) => !proposers.has(canceller));
  if (independent.length === 0) {
    lint.add("lint/no-canceller", "timelock", "nobody but its proposers can cancel an operation");
  }
}

async function lintDelay(lint: Lint): Promise<void> {
  const { deployment } = lint.input;
  const delay = await minDelayIn(lint.reader, deployment.contracts.timelock.address);
  if (delay === 0n) lint.add("lint/delay-zero", "timelock", "an operation can be executed as soon as it is scheduled");
  else if (delay < DAY) {
    const severity = isLocalChain(deployment.chainId) ? "warning" : "unsafe";
    lint.add("lint/delay-short", "timelock", `the minimum delay is ${formatDuration(delay)}`, severity);
  }
  const floor = await delayFloorIn(lint.reader, deployment.contracts.timelock.address);
  if (floor < DAY && delay >= DAY) {
    const severity = isLocalChain(deployment.chainId) ? "warning" : "unsafe";
    lint.add("lint/delay-floor", "timelock", `the delay can be lowered to ${formatDuration(floor)}`, severity);
  }
  if (delay > LONGEST_DELAY) lint.add("lint/delay-absurd", "timelock", `the minimum delay is ${formatDuration(delay)}`);
}

async function lintSafes(lint: Lint): Promise<void> {
  const { safes } = lint.input.deployment;
  const owners = new Map<string, { readonly owners: readonly string[]; readonly threshold: number }>();
  for (const office of ["governance", "guardian"] as const) {
    const found = await lintSafe(lint, office);
    if (found !== undefined) owners.set(office, found);
  }
  const [governance, guardian] = [owners.get("governance"), owners.get("guardian")];
  if (governance === undefined || guardian === undefined) return;
  const shared = guardian.owners.filter((owner) => governance.owners.includes(owner));
  if (safes.governance.address === safes.guardian.address) {
    lint.add("lint/guardian-not-independent", "guardian Safe", "it is the governance Safe itself");
  } else if (shared.length > guardian.owners.length - guardian.threshold) {
    const message = `${shared.length} of its ${guardian.owners.length} owners are the governance Safe's too: without them it cannot cancel`;
    lint.add("lint/guardian-not-independent", "guardian Safe", message);
  }
}

async function lintSafe(lint: Lint, office: "governance" | "guardian") {
  const { reader, input } = lint;
  const recorded = input.deployment.safes[office];
  const subject = `${office} Safe`;
  const { address } = recorded;
  const notASafe = (why: string) => lint.add("lint/not-a-safe", subject, `${address} is no Safe: ${why}`);
  const code = await reader.code(address);
  const kind = kindOfCode(code);
  if (kind !== "contract")
    return void notASafe(kind === "nothing" ? "it has no code" : "it is a key that delegates (EIP-7702)");
  const singleton = addressIn(await reader.slot(address, SINGLETON_SLOT));
  const found = recogniseSafe({
    codeHash: keccak256(code),
    singleton,
    singletonCodeHash: keccak256(await reader.code(singleton)),
  });
  if (found.version === undefined) return void notASafe(found.why);
  // From storage, which is proven, and not from the Safe's views: an endpoint that hides a module would be believed.
  const safe = await safeIn(reader, address);
  const listed = (list: readonly string[]) => [...list].sort().join(", ");
  if (listed(safe.owners) !== listed(recorded.owners)) {
    lint.add(
      "lint/safe-changed",
      subject,
      `its owners are ${listed(safe.owners)}, recorded are ${listed(recorded.owners)}`,
    );
  }
  if (safe.threshold !== recorded.threshold) {
    lint.add("lint/safe-changed", subject, `its threshold is ${safe.threshold}, recorded is ${recorded.threshold}`);
  }
  if (found.version !== recorded.version) {
    lint.add("lint/safe-changed", subject, `it is release ${found.version}, recorded is ${recorded.version}`);
  }
  if (safe.threshold < 2)
    lint.add("lint/safe-threshold", subject, `any of its ${safe.owners.length} owners decides alone`);
  for (const module of safe.modules)
    lint.add("lint/safe-module", subject, `module ${module} acts for it without signatures`);
  if (safe.guard !== ZeroAddress) lint.add("lint/safe-guard", subject, `guard ${safe.guard} judges its transactions`);
  if (safe.moduleGuard !== ZeroAddress) {
    lint.add("lint/safe-guard", subject, `module guard ${safe.moduleGuard} is set`, "warning");
  }
  if (safe.fallbackHandler !== ZeroAddress && !isFallbackHandler(safe.fallbackHandler)) {
    lint.add(
      "lint/safe-handler",
      subject,
      `its fallback handler ${safe.fallbackHandler} is not one that Safe publishes`,
    );
  }
  return { owners: safe.owners, threshold: safe.threshold };
}

async function pendingOperations({ reader, input }: Lint): Promise<readonly LoggedOperation[]> {
  const { address, block } = input.deployment.contracts.timelock;
  const { operations } = await readTimelockLog(reader.client, reader.block, address, block);
  return operations.filter(({ phase }) => phase === "waiting" || phase === "ready");
}

function lintExecutors(lint: Lint, roles: ObservedRoles, pending: readonly LoggedOperation[]): void {
  const open = roles.some(
    ({ contract, role, holders }) =>
      contract === "timelock" && role === "EXECUTOR_ROLE" && holders.includes(ZeroAddress),
  );
  if (!open) return;
  lint.add("lint/open-executor", "timelock", "anybody can execute what is scheduled");
  // a rollback waits for what it undoes: whoever likes can undo that, once it is done
  for (const { id, predecessor } of pending.filter((operation) => !/^0x0+$/.test(operation.predecessor))) {
    lint.add(
      "lint/open-executor",
      "timelock",
      `operation ${id} is scheduled to follow ${predecessor}: anybody can execute it after that`,
    );
  }
}

function lintDismissals(lint: Lint, pending: readonly LoggedOperation[]): void {
  const { address } = lint.input.deployment.contracts.timelock;
  for (const { id, calls, predecessor, readyAt } of pending) {
    const found = dismissalOf(calls, predecessor, address);
    if (found === undefined) continue;
    const from = readyAt === undefined ? "" : ` from ${formatTime(readyAt)} on`;
    const message = `it takes the offices of ${found.outgoing}, which cannot cancel it; executable${from}`;
    lint.add("lint/dismissal", `operation ${id}`, message, "warning");
  }
}

function lintLanes(lint: Lint, pending: readonly LoggedOperation[]): void {
  const { deployment, proposals = new Map<string, Operation>() } = lint.input;
  for (const [folder, operation] of proposals) {
    for (const { code, field, message } of checkOperation(operation)) {
      if (code === "operation/crossed-lane") lint.add("lint/crossed-lane", folder, `${field}: ${message}`);
    }
  }
  const contracts = {
    policy: deployment.contracts.policy.address,
    registry: deployment.contracts.registry.address,
    timelock: deployment.contracts.timelock.address,
  };
  for (const { id, calls } of pending) {
    for (const [i, call] of calls.entries()) {
      const revokes = lanesOf(call, { contracts }).some((rule) => rule !== "unknown" && rule.by === "guardian");
      if (revokes) {
        lint.add("lint/crossed-lane", `operation ${id}`, `call ${i + 1} tightens, and waits in the timelock`);
      }
    }
  }
}
