import { getAddress, id } from "ethers";
import type { Hex } from "../core/bytes.ts";
import type { RawLog } from "../core/events.ts";
import type { Client } from "./client.ts";
import { scanLogs } from "./logs.ts";

/** Who holds which role of an OpenZeppelin AccessControl contract, as its own logs say. */
export interface RoleState {
  /** Role id (32 bytes, hex) → holders, checksummed and sorted; roles that nobody holds any more are left out. */
  readonly holders: ReadonlyMap<string, readonly string[]>;
  /** Role id → id of the role that administers it; roles with the default (0) are left out. */
  readonly admins: ReadonlyMap<string, string>;
}

/** The parts of a log that roles are read from. */
export interface RoleLog {
  readonly topics: readonly string[];
}

const GRANTED = id("RoleGranted(bytes32,address,address)");
const REVOKED = id("RoleRevoked(bytes32,address,address)");
const ADMIN_CHANGED = id("RoleAdminChanged(bytes32,bytes32,bytes32)");
const DEFAULT_ADMIN_ROLE = `0x${"00".repeat(32)}`;

/**
 * Folds role logs, in chain order, to the state that they leave. AccessControl keeps no list of holders: its logs are the only complete
 * source.
 *
 * @example foldRoles(logs).holders.get(id("PROPOSER_ROLE"))
 */
export function foldRoles(logs: readonly RoleLog[]): RoleState {
  const holders = new Map<string, Set<string>>();
  const admins = new Map<string, string>();
  for (const { topics } of logs) {
    const [event, role = "", second = ""] = topics;
    if (event === ADMIN_CHANGED) {
      const admin = topics[3] ?? "";
      if (admin === DEFAULT_ADMIN_ROLE) admins.delete(role);
      else admins.set(role, admin);
      continue;
    }
    const account = getAddress(`0x${second.slice(-40)}`);
    const set = holders.get(role) ?? new Set();
    if (event === GRANTED) set.add(account);
    else if (event === REVOKED) set.delete(account);
    if (set.size > 0) holders.set(role, set);
    else holders.delete(role);
  }
  return { holders: new Map([...holders].map(([role, set]) => [role, [...set].sort()])), admins };
}

/** The topics of the events that roles follow from. */
export const ROLE_TOPICS: readonly Hex[] = [GRANTED as Hex, REVOKED as Hex, ADMIN_CHANGED as Hex];

/**
 * Every role log of a contract, oldest first, through a client of this room.
 *
 * @param fromBlock the block of the contract's creation, or an earlier one
 * @throws KeysteadError as `scanLogs`: a range that can't be read is never taken for an empty one
 * @example
 * foldRoles(await scanRoleLogs(client, timelock, deployment.block, block.number));
 */
export async function scanRoleLogs(
  client: Client,
  address: Hex,
  fromBlock: number,
  toBlock: number,
): Promise<readonly RawLog[]> {
  return scanLogs(client, { address, topics: [ROLE_TOPICS] }, fromBlock, toBlock);
}
