import { keccak_256 } from "@noble/hashes/sha3.js";
import { getAddress } from "ethers/address";
import { type Hex, toHex } from "../core/bytes.ts";

/** A call of an operation, as far as its class depends on it. */
export interface OfficeCall {
  readonly to: string;
  /** Wei. */
  readonly value: bigint;
  readonly data: string;
}

/** What a dismissal does. */
export interface Dismissal {
  /** The account whose guardian offices are taken, checksummed. */
  readonly outgoing: string;
  /** The account that gets them; undefined if none does. */
  readonly incoming: string | undefined;
}

/** GovernanceTimelock.DISMISSAL_DELAYS: how many minimum delays a dismissal waits. */
export const DISMISSAL_DELAYS = 2n;

const id = (text: string): Hex => toHex(keccak_256(new TextEncoder().encode(text)));
const GRANT = id("grantRole(bytes32,address)").slice(0, 10);
const REVOKE = id("revokeRole(bytes32,address)").slice(0, 10);
const CANCELLER_ROLE = id("CANCELLER_ROLE");
const GUARDIAN_ROLE = id("keystead.GUARDIAN");

/**
 * What an operation dismisses, by GovernanceTimelock's own rule (docs/decisions/0017-a-guardian-can-be-dismissed.md); undefined for every other operation. A
 * dismissal is cancelled by a proposer alone, and not by the account that it dismisses; it waits {@link DISMISSAL_DELAYS} minimum delays. The class follows
 * from the calls: nobody need be asked. It holds for a GovernanceTimelock; at OpenZeppelin's own every canceller cancels everything.
 *
 * @param calls of the operation, in order
 * @param timelock the timelock's address
 * @example
 * dismissalOf(operation.calls, predecessor, timelock)?.outgoing; // the guardian Safe
 */
export function dismissalOf(
  calls: readonly OfficeCall[],
  predecessor: Hex | string,
  timelock: string,
): Dismissal | undefined {
  if (!/^0x0{64}$/.test(predecessor)) return undefined;
  let [outgoing, incoming, given]: (string | undefined)[] = [];
  for (const { to, value, data } of calls) {
    const office = officeOf(to, value, data.toLowerCase(), timelock);
    if (office === undefined) return undefined;
    const { taken, account } = office;
    if (given !== undefined && (!taken || given !== to.toLowerCase())) return undefined;
    if (taken) {
      if (outgoing !== undefined && outgoing !== account) return undefined;
      [outgoing, given] = [account, undefined];
    } else {
      if (incoming !== undefined && incoming !== account) return undefined;
      [incoming, given] = [account, to.toLowerCase()];
    }
  }
  if (given !== undefined || outgoing === undefined || incoming === outgoing) return undefined;
  return { outgoing, incoming };
}

/** Whether a call gives or takes a guardian's office, and whose. */
function officeOf(to: string, value: bigint, data: string, timelock: string) {
  const role = to.toLowerCase() === timelock.toLowerCase() ? CANCELLER_ROLE : GUARDIAN_ROLE;
  const [, selector, account] =
    new RegExp(`^(${GRANT}|${REVOKE})${role.slice(2)}0{24}([0-9a-f]{40})$`).exec(data) ?? [];
  if (value !== 0n || account === undefined || /^0+$/.test(account)) return undefined;
  return { taken: selector === REVOKE, account: getAddress(`0x${account}`) };
}
