import { keccak256 } from "ethers/crypto";
import type { Block } from "../../../src/chain/block.ts";
import { type Client, mapLimited } from "../../../src/chain/client.ts";
import { type LocatedLog, locateLogs, scanLogs } from "../../../src/chain/logs.ts";
import { foldRoles } from "../../../src/chain/roles.ts";
import { type Hex, toHex } from "../../../src/core/bytes.ts";
import type { RawLog } from "../../../src/core/events.ts";
import { topicOf } from "../../../src/core/events.ts";
import { type TimelockEntry, timeOperations } from "./operations.ts";
import { askView } from "./views.ts";

/*
 * Who may change the suite, and what they have set in motion: roles, the timelock's delay, its operations. No hash chain covers these logs. They are the
 * endpoint's word, held against the contracts' views and, operation by operation, against the id, which is a hash of the calls.
 */

/** A contract of the suite that has roles. */
export type GovernedContract = "timelock" | "policy" | "registry";

/** One role of one contract. */
export interface RoleHolders {
  readonly contract: GovernedContract;
  readonly role: string;
  readonly meaning: string;
  readonly holders: readonly Hex[];
}

/** What governance is and does. */
export interface Governance {
  readonly timelock: Hex | undefined;
  /** Seconds between scheduling and execution; undefined where there is no timelock. */
  readonly minDelay: number | undefined;
  readonly roles: readonly RoleHolders[];
  /** Newest first. */
  readonly operations: readonly TimelockEntry[];
  /** Where logs and views disagree, or what is not as this project deploys it; one sentence each. */
  readonly differences: readonly string[];
}

const utf8 = (text: string): Hex => toHex(new TextEncoder().encode(text));

/** The roles that this project's contracts have: contracts/governance/Governed.sol, OpenZeppelin's TimelockController. */
const ROLES: readonly (readonly [GovernedContract, role: string, id: string, meaning: string])[] = [
  ["policy", "GOVERNOR_ROLE", keccak256(utf8("keystead.GOVERNOR")), "loosens, tightens, upgrades the contract"],
  ["policy", "GUARDIAN_ROLE", keccak256(utf8("keystead.GUARDIAN")), "tightens at once, pauses for a limited time"],
  ["registry", "GOVERNOR_ROLE", keccak256(utf8("keystead.GOVERNOR")), "upgrades the contract"],
  ["registry", "GUARDIAN_ROLE", keccak256(utf8("keystead.GUARDIAN")), "nothing: the registry has no such functions"],
  ["timelock", "PROPOSER_ROLE", keccak256(utf8("PROPOSER_ROLE")), "schedules operations"],
  ["timelock", "EXECUTOR_ROLE", keccak256(utf8("EXECUTOR_ROLE")), "executes operations whose delay is over"],
  [
    "timelock",
    "CANCELLER_ROLE",
    keccak256(utf8("CANCELLER_ROLE")),
    "cancels operations before they execute; a dismissal only as a proposer",
  ],
  ["timelock", "DEFAULT_ADMIN_ROLE", `0x${"00".repeat(32)}`, "changes the timelock's roles"],
];

const ROLE_TOPICS: ReadonlySet<Hex> = new Set([topicOf("role_granted"), topicOf("role_revoked")]);

/** What is asked. */
export interface GovernanceOptions {
  readonly registry: Hex;
  readonly policy: Hex;
  readonly timelock: Hex | undefined;
  readonly fromBlock: number;
}

/**
 * Reads roles and timelock operations at a block.
 *
 * @throws KeysteadError `chain/…` when the endpoint can't be asked
 * @example
 * const { operations } = await fetchGovernance(client, suite.block, settings);
 */
export async function fetchGovernance(
  client: Client,
  block: Block,
  { registry, policy, timelock: given, fromBlock }: GovernanceOptions,
): Promise<Governance> {
  const differences: string[] = [];
  const roleLogs = async (address: Hex) => {
    const parts = await mapLimited(["role_granted", "role_revoked"] as const, 1, (name) =>
      scanLogs(client, { address, topics: [topicOf(name)] }, fromBlock, block.number),
    );
    return parts.flat().sort(byPlace);
  };
  const policyRoles = rolesOf("policy", await roleLogs(policy), differences);
  const registryRoles = rolesOf("registry", await roleLogs(registry), differences);

  const governors = policyRoles.find(({ role }) => role === "GOVERNOR_ROLE")?.holders ?? [];
  const timelock = given ?? (await firstTimelock(client, block, governors));
  if (timelock !== undefined && !governors.includes(timelock)) {
    differences.push(`The timelock ${timelock} does not govern the policy: what it shows is not what decides.`);
  }
  if (timelock === undefined) differences.push("No timelock governs the policy: loosening need not wait.");
  if (governors.length > 1) {
    differences.push(`${governors.length} accounts govern the policy; each of them alone can loosen it.`);
  }

  let timelockRoles: readonly RoleHolders[] = [];
  let operations: readonly TimelockEntry[] = [];
  let minDelay: number | undefined;
  if (timelock !== undefined) {
    const logs = await scanLogs(client, { address: timelock }, fromBlock, block.number);
    timelockRoles = rolesOf("timelock", logs, differences);
    const located: readonly LocatedLog[] = await locateLogs(client, logs);
    const grace = await askView(client, block, timelock, "GRACE_PERIOD");
    const terms = { timelock, grace: typeof grace === "bigint" ? Number(grace) : undefined };
    const timed = timeOperations(located, block.timestamp, terms);
    operations = await checkOperations(client, block, timelock, timed, differences);
    const delay = await askView(client, block, timelock, "getMinDelay");
    minDelay = typeof delay === "bigint" ? Number(delay) : undefined;
  }
  const roles = [...policyRoles, ...registryRoles, ...timelockRoles];
  await checkHolders(client, block, { registry, policy, timelock }, roles, differences);
  return { timelock, minDelay, roles, operations: [...operations].reverse(), differences };
}

const byPlace = (a: RawLog, b: RawLog) => a.blockNumber - b.blockNumber || a.logIndex - b.logIndex;

function rolesOf(contract: GovernedContract, logs: readonly RawLog[], differences: string[]): readonly RoleHolders[] {
  const { holders } = foldRoles(logs.filter(({ topics }) => topics[0] !== undefined && ROLE_TOPICS.has(topics[0])));
  const known = ROLES.filter(([of]) => of === contract);
  for (const id of holders.keys()) {
    if (known.some(([, , role]) => role === id)) continue;
    differences.push(`Accounts hold the role ${id} of the ${contract}, which this project's contracts do not have.`);
  }
  return known.map(([, role, id, meaning]) => {
    const list = (holders.get(id) ?? []).map((holder): Hex => `0x${holder.slice(2).toLowerCase()}`);
    return { contract, role, meaning, holders: list };
  });
}

async function firstTimelock(client: Client, block: Block, candidates: readonly Hex[]): Promise<Hex | undefined> {
  for (const candidate of candidates) {
    if (typeof (await askView(client, block, candidate, "getMinDelay")) === "bigint") return candidate;
  }
  return undefined;
}

/** Logs may be withheld: every holder that they name is asked for again, by view. */
async function checkHolders(
  client: Client,
  block: Block,
  addresses: Readonly<Record<GovernedContract, Hex | undefined>>,
  roles: readonly RoleHolders[],
  differences: string[],
): Promise<void> {
  for (const { contract, role, holders } of roles) {
    const [, , id] = ROLES.find(([of, name]) => of === contract && name === role) ?? [];
    const address = addresses[contract];
    if (address === undefined) continue;
    for (const holder of holders) {
      if ((await askView(client, block, address, "hasRole", [id, holder])) === true) continue;
      differences.push(`The logs say that ${holder} holds ${role} of the ${contract}; the contract says otherwise.`);
    }
  }
  const governors = roles.filter(({ role }) => role === "GOVERNOR_ROLE");
  for (const { contract, holders } of governors) {
    if (holders.length === 0) differences.push(`The logs name no governor of the ${contract}: some were withheld.`);
  }
}

/** What the timelock's view says of an operation: 0 unset (never scheduled, or cancelled), 1 done, else the time from which it may be executed. */
async function checkOperations(
  client: Client,
  block: Block,
  timelock: Hex,
  operations: readonly TimelockEntry[],
  differences: string[],
): Promise<readonly TimelockEntry[]> {
  return mapLimited(operations, 8, async (operation) => {
    const { id, status, readyAt, genuine } = operation;
    if (!genuine) differences.push(`The calls that the logs give for operation ${id} do not hash to its id.`);
    const told = await askView(client, block, timelock, "getTimestamp", [id]);
    const expected = status === "cancelled" ? 0n : status === "done" ? 1n : BigInt(readyAt);
    if (told === expected) return operation;
    differences.push(`The logs say that operation ${id} is ${status}; the timelock's own view says otherwise.`);
    return { ...operation, disputed: true };
  });
}
