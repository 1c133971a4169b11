import { getAddress } from "ethers/address";
import { id } from "ethers/hash";
import type { RoleState } from "../chain/roles.ts";

/** The contracts that have roles. */
export type GovernedContract = "timelock" | "policy" | "registry";
/** The accounts that hold them. */
export type Party = "timelock" | "governanceSafe" | "guardianSafe";

/** One line of the published matrix. */
export interface RoleRow {
  readonly contract: GovernedContract;
  readonly role: string;
  /** The role's id on chain. */
  readonly id: string;
  /** Name of the role whose holders may grant and revoke it. */
  readonly admin: string;
  readonly holders: readonly Party[];
  /** What the role lets its holders do. */
  readonly meaning: string;
}

const DEFAULT_ADMIN_ROLE = `0x${"00".repeat(32)}`;

const row = (
  contract: GovernedContract,
  role: string,
  admin: string,
  holders: readonly Party[],
  meaning: string,
): RoleRow => ({ contract, role, id: roleId(role), admin, holders, meaning });

function roleId(role: string): string {
  if (role === "DEFAULT_ADMIN_ROLE") return DEFAULT_ADMIN_ROLE;
  return id(role === "GOVERNOR_ROLE" || role === "GUARDIAN_ROLE" ? `keystead.${role.replace("_ROLE", "")}` : role);
}

/** The roles as they must stand after deployment, all of them: an unlisted role or holder is as wrong as a missing one. */
export const ROLE_MATRIX: readonly RoleRow[] = [
  row(
    "timelock",
    "DEFAULT_ADMIN_ROLE",
    "DEFAULT_ADMIN_ROLE",
    ["timelock"],
    "changes the timelock's roles, after the delay",
  ),
  row("timelock", "PROPOSER_ROLE", "DEFAULT_ADMIN_ROLE", ["governanceSafe"], "schedules operations"),
  row("timelock", "EXECUTOR_ROLE", "DEFAULT_ADMIN_ROLE", ["governanceSafe"], "executes operations whose delay is over"),
  row(
    "timelock",
    "CANCELLER_ROLE",
    "DEFAULT_ADMIN_ROLE",
    ["governanceSafe", "guardianSafe"],
    "cancels scheduled operations",
  ),
  row("policy", "DEFAULT_ADMIN_ROLE", "DEFAULT_ADMIN_ROLE", [], "nothing: nobody holds it"),
  row("policy", "GOVERNOR_ROLE", "GOVERNOR_ROLE", ["timelock"], "loosens, tightens, upgrades, administers both roles"),
  row("policy", "GUARDIAN_ROLE", "GOVERNOR_ROLE", ["guardianSafe"], "tightens at once, pauses for a limited time"),
  row("registry", "DEFAULT_ADMIN_ROLE", "DEFAULT_ADMIN_ROLE", [], "nothing: nobody holds it"),
  row("registry", "GOVERNOR_ROLE", "GOVERNOR_ROLE", ["timelock"], "upgrades, administers both roles"),
  row("registry", "GUARDIAN_ROLE", "GOVERNOR_ROLE", [], "nothing: the registry has no guardian functions"),
];

/**
 * Compares a contract's roles, as its logs say, with the published matrix, both ways.
 *
 * @param parties the address of each party
 * @returns one sentence per difference; empty if there is none
 * @example compareRoles("timelock", foldRoles(logs), parties) // []
 */
export function compareRoles(
  contract: GovernedContract,
  state: RoleState,
  parties: Readonly<Record<Party, string>>,
): string[] {
  const rows = ROLE_MATRIX.filter((entry) => entry.contract === contract);
  const nameOf = (role: string) => rows.find((entry) => entry.id === role)?.role ?? `unknown role ${role}`;
  const partyOf = (account: string) => {
    const party = (Object.keys(parties) as Party[]).find((p) => parties[p].toLowerCase() === account.toLowerCase());
    return party === undefined ? getAddress(account) : `${party} (${getAddress(account)})`;
  };
  const expected = new Map(rows.map((entry) => [entry.id, entry.holders.map((party) => parties[party])]));
  const differences: string[] = [];
  for (const role of new Set([...expected.keys(), ...state.holders.keys()])) {
    const wanted = new Set((expected.get(role) ?? []).map((account) => account.toLowerCase()));
    const found = new Set((state.holders.get(role) ?? []).map((account) => account.toLowerCase()));
    for (const account of [...wanted].filter((one) => !found.has(one))) {
      differences.push(`${contract}: ${partyOf(account)} does not hold ${nameOf(role)}`);
    }
    for (const account of [...found].filter((one) => !wanted.has(one))) {
      differences.push(`${contract}: ${partyOf(account)} holds ${nameOf(role)}, and must not`);
    }
  }
  for (const role of new Set([...expected.keys(), ...state.admins.keys()])) {
    const wanted = roleId(rows.find((entry) => entry.id === role)?.admin ?? "DEFAULT_ADMIN_ROLE");
    const found = state.admins.get(role) ?? DEFAULT_ADMIN_ROLE;
    if (wanted !== found) {
      differences.push(`${contract}: ${nameOf(role)} is administered by ${nameOf(found)}, not by ${nameOf(wanted)}`);
    }
  }
  return differences;
}
