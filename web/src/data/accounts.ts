import { keccak256 } from "ethers/crypto";
import { type Block, blockParameter } from "../../../src/chain/block.ts";
import type { Client } from "../../../src/chain/client.ts";
import type { Hex } from "../../../src/core/bytes.ts";
import { ZERO_ADDRESS } from "../../../src/core/state.ts";
import { askView } from "./views.ts";

/*
 * What stands behind an address that may change something: a Safe, a timelock, one person's key, nobody. Everything here is the endpoint's word at a
 * block; a Safe counts as one only if its own code and the code that it forwards to are those that Safe publishes.
 */

export type AccountKind = "none" | "eoa" | "delegated" | "safe" | "timelock" | "contract" | "unknown";

/** An account, and who is behind it. */
export interface Account {
  readonly address: Hex;
  readonly kind: AccountKind;
  /** e.g. `Safe 1.5.0, 2 of 3`. */
  readonly label: string;
  /** What an auditor should know about it; empty if nothing. */
  readonly caution: string;
  readonly owners: readonly Hex[];
}

/** Safe's proxies by the hash of their code (npm: @safe-global/safe-contracts 1.4.1, @safe-global/safe-smart-account 1.5.0). */
export const SAFE_PROXIES: ReadonlySet<string> = new Set([
  "0xd7d408ebcd99b2b70be43e20253d6d92a8ea8fab29bd3be7f55b10032331fb4c",
  "0x4e381985ca68b3e5d27b4425fa581c19cf33146d3f887a3cfca96f55528ea46f",
]);

/** Safe's implementations by canonical address (npm: @safe-global/safe-deployments), the plain one and the one for L2, which logs more. */
export const SAFE_SINGLETONS: ReadonlyMap<string, string> = new Map([
  ["0xd9db270c1b5e3bd161e8c8503c55ceabee709552", "1.3.0"],
  ["0x3e5c63644e683549055b9be8653de26e0b4cd36e", "1.3.0"],
  ["0x69f4d1788e39c87893c980c06edf4b7f686e2938", "1.3.0"],
  ["0xfb1bffc9d739b8d520daf37df666da4c687191ea", "1.3.0"],
  ["0x41675c099f32341bf84bfc5382af534df5c7461a", "1.4.1"],
  ["0x29fcb43b46531bca003ddc8fcb67ffe91900c762", "1.4.1"],
  ["0xff51a5898e281db6dfc7855790607438df2ca44b", "1.5.0"],
  ["0xedd160febbd92e350d4d398fb636302fccd67c7e", "1.5.0"],
]);

/** An EIP-7702 delegation: `0xef0100 ‖ address` in the place of code. */
const DELEGATION = /^0xef0100[0-9a-f]{40}$/;

/**
 * Looks at an account.
 *
 * @throws KeysteadError `chain/…` when the endpoint can't be asked
 * @example
 * (await fetchAccount(client, block, service.admin)).kind; // "safe"
 */
export async function fetchAccount(client: Client, block: Block, address: Hex): Promise<Account> {
  const nothing = { address, caution: "", owners: [] };
  if (address === ZERO_ADDRESS) return { ...nothing, kind: "none", label: "none" };
  const tag = blockParameter(block.number);
  const code = String(await client.request("eth_getCode", [address, tag])).toLowerCase();
  if (code === "0x") {
    const caution = "One private key controls it: whoever has the key decides alone.";
    return { ...nothing, kind: "eoa", label: "EOA (one key)", caution };
  }
  if (DELEGATION.test(code)) {
    const caution = "One private key controls it (EIP-7702), whatever the code that it borrows says.";
    return { ...nothing, kind: "delegated", label: "EOA with borrowed code", caution };
  }
  return (
    (await asSafe(client, block, address, code)) ??
    (await asTimelock(client, block, address)) ?? {
      ...nothing,
      kind: "contract",
      label: "contract",
      caution: "It is neither a known Safe nor a timelock: read its code to see who decides.",
    }
  );
}

async function asSafe(client: Client, block: Block, address: Hex, code: string): Promise<Account | undefined> {
  const slot = String(await client.request("eth_getStorageAt", [address, "0x0", blockParameter(block.number)]));
  const version = SAFE_SINGLETONS.get(`0x${slot.slice(-40).toLowerCase()}`);
  if (version === undefined) return undefined;
  const threshold = await askView(client, block, address, "getThreshold");
  const owners = await askView(client, block, address, "getOwners");
  if (threshold === undefined || !Array.isArray(owners)) return undefined;
  const known = SAFE_PROXIES.has(keccak256(code));
  const list = owners.map((owner): Hex => `0x${String(owner).slice(2).toLowerCase()}`);
  const share = `${threshold} of ${list.length}`;
  const cautions = [
    ...(known ? [] : ["Its own code is none that is known here, though it forwards to Safe's."]),
    ...(threshold === 1n ? ["One owner's signature is enough."] : []),
  ];
  const label = known ? `Safe ${version}, ${share}` : `like Safe ${version}, ${share}`;
  return { address, kind: known ? "safe" : "contract", label, caution: cautions.join(" "), owners: list };
}

async function asTimelock(client: Client, block: Block, address: Hex): Promise<Account | undefined> {
  const delay = await askView(client, block, address, "getMinDelay");
  const proposer = await askView(client, block, address, "PROPOSER_ROLE");
  if (typeof delay !== "bigint" || proposer === undefined) return undefined;
  const caution = delay === 0n ? "Its delay is zero: nobody sees a change coming." : "";
  return { address, kind: "timelock", label: "timelock", caution, owners: [] };
}

/**
 * An account that the endpoint could not be asked about.
 *
 * @example
 * unknownAccount(address, error).caution;
 */
export function unknownAccount(address: Hex, error: Error): Account {
  const caution = `The endpoint could not be asked who is behind it: ${error.message}.`;
  return { address, kind: "unknown", label: "not known", caution, owners: [] };
}
