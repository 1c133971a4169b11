import { getAddress, id } from "ethers";
import { fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Deployment } from "../chain/deployment.ts";
import type { Build } from "./build.ts";
import { contextOf, type Difference } from "./check.ts";
import { recogniseCall } from "./decode.ts";
import type { PlayedTransaction } from "./fork.ts";
import { applyRules, type LintFinding } from "./lint.ts";
import type { Operation } from "./operation.ts";
import type { Call } from "./safe-hash.ts";
import { minDelayIn, openReader, type SafeInStorage, safeIn } from "./witnessed.ts";
import { roleName } from "./words.ts";

/** Who decides, at one moment of a play: the Safes of a proposal, the delay, and everything that lint says. */
export interface Standing {
  readonly safes: ReadonlyMap<string, SafeInStorage>;
  readonly minDelay: bigint;
  /** Undefined where no deployment's record is at hand: then rules that need it say nothing. */
  readonly findings: readonly LintFinding[] | undefined;
}

/** What lint needs on a copy of a chain. */
export interface StandingOptions {
  readonly deployment?: Deployment | undefined;
  readonly builds?: readonly Build[] | undefined;
}

/**
 * Reads who decides on a copy of a chain, as it is now.
 *
 * @throws KeysteadError as `Client.request` and `applyRules`
 * @example
 * const before = await readStanding(fork.client, operation, { deployment, builds });
 */
export async function readStanding(
  client: Client,
  operation: Operation,
  { deployment, builds }: StandingOptions,
): Promise<Standing> {
  const reader = openReader(client, await fetchBlock(client, "latest"));
  const { safe, cancellers, rollback, contracts } = operation;
  const safes = new Map<string, SafeInStorage>();
  for (const { address } of [safe, ...cancellers, ...(rollback === null ? [] : [rollback.safe])]) {
    if (!safes.has(address)) safes.set(address, await safeIn(reader, address));
  }
  return {
    safes,
    minDelay: await minDelayIn(reader, contracts.timelock),
    findings: deployment === undefined ? undefined : (await applyRules(reader, { deployment, builds })).findings,
  };
}

const worse = (field: string, code: string, message: string): Difference => ({ field, code, message });

/**
 * What got worse by a play: owners, thresholds, modules, guards and handlers of the Safes, the delay, and every rule of lint that is broken afterwards and
 * was not before.
 *
 * @returns a difference for each; none if nothing got worse
 * @example
 * compareStanding(before, after, operation); // []
 */
export function compareStanding(before: Standing, after: Standing, operation: Operation): readonly Difference[] {
  const found: Difference[] = [];
  for (const [address, then] of before.safes) {
    const now = after.safes.get(address);
    if (now !== undefined) found.push(...compareSafes(address, then, now));
  }
  if (after.minDelay < before.minDelay) {
    const message = `the timelock's minimum delay falls from ${before.minDelay} s to ${after.minDelay} s`;
    found.push(worse("timelock", "simulate/delay-shorter", message));
  }
  const known = new Set((before.findings ?? []).map(({ code, subject, message }) => `${code} ${subject} ${message}`));
  for (const { code, subject, message } of after.findings ?? []) {
    if (known.has(`${code} ${subject} ${message}`) || isDeclared(code, subject, operation)) continue;
    found.push(worse(subject, code, `afterwards ${message}`));
  }
  return found;
}

/**
 * Rules that a change which is the operation's very purpose must break: a new implementation is not the recorded one, and whether it is the right one, the
 * comparison of code says; a longer delay is not the recorded one either, and a shorter one is named above.
 */
function isDeclared(code: string, subject: string, operation: Operation): boolean {
  if (code === "lint/delay-changed") return true;
  if (code !== "lint/implementation") return false;
  return [...operation.calls, ...(operation.rollback?.calls ?? [])].some((call) => {
    const recognised = recogniseCall(call, contextOf(operation));
    return recognised?.contract === subject && recognised.name.startsWith("upgradeTo");
  });
}

function compareSafes(address: string, then: SafeInStorage, now: SafeInStorage): readonly Difference[] {
  const found: Difference[] = [];
  const add = (code: string, message: string) => found.push(worse(`Safe ${address}`, code, message));
  const listed = (list: readonly string[]) => [...list].sort().join(", ");
  const added = now.owners.filter((owner) => !then.owners.includes(owner));
  const gone = then.owners.filter((owner) => !now.owners.includes(owner));
  if (added.length > 0) add("simulate/safe-owners", `${listed(added)} would sign for it`);
  if (gone.length > 0) add("simulate/safe-owners", `${listed(gone)} would no longer sign for it`);
  if (now.threshold < then.threshold) {
    add("simulate/safe-threshold", `${now.threshold} owners would decide in place of ${then.threshold}`);
  }
  const modules = now.modules.filter((module) => !then.modules.includes(module));
  if (modules.length > 0) add("simulate/safe-module", `${listed(modules)} would act for it without signatures`);
  for (const field of ["guard", "moduleGuard", "fallbackHandler", "singleton"] as const) {
    if (now[field] !== then[field])
      add(`simulate/safe-${field}`, `its ${field} becomes ${now[field]}, from ${then[field]}`);
  }
  return found;
}

const ROLE_EVENTS: ReadonlyMap<string, string> = new Map([
  [id("RoleGranted(bytes32,address,address)"), "grantRole"],
  [id("RoleRevoked(bytes32,address,address)"), "revokeRole"],
  [id("RoleAdminChanged(bytes32,bytes32,bytes32)"), "setRoleAdmin"],
]);

/**
 * Changes of roles that a play logged and no call of it declares: an initialiser, or code that nobody here knows, made them.
 *
 * @example
 * undeclaredRoles(played.logs, operation.calls, operation); // []
 */
export function undeclaredRoles(
  logs: PlayedTransaction["logs"],
  calls: readonly Call[],
  operation: Operation,
): readonly Difference[] {
  const declared = calls.flatMap((call) => {
    const recognised = recogniseCall(call, contextOf(operation));
    if (recognised === undefined) return [];
    const { name, named } = recognised;
    const verb = name === "renounceRole" ? "revokeRole" : name;
    return [`${call.to} ${verb} ${named.role} ${named.account ?? named.callerConfirmation}`.toLowerCase()];
  });
  return logs.flatMap(({ address, topics: [event = "", role = "", account = ""] }) => {
    const verb = ROLE_EVENTS.get(event);
    if (verb === undefined) return [];
    const who = getAddress(`0x${account.slice(-40)}`);
    if (declared.includes(`${address} ${verb} ${role} ${who}`.toLowerCase())) return [];
    const does = verb === "grantRole" ? `gives ${roleName(role)} to ${who}` : `${verb} of ${roleName(role)}: ${who}`;
    return [worse(getAddress(address), "simulate/undeclared-role", `it ${does}, and no call says so`)];
  });
}
