import { keccak256 } from "ethers/crypto";
import { type Block, blockParameter } from "../../../src/chain/block.ts";
import type { Client } from "../../../src/chain/client.ts";
import { recogniseSafe, singletonAt } from "../../../src/chain/safe-releases.ts";
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
  const tag = blockParameter(block.number);
  const slot = String(await client.request("eth_getStorageAt", [address, "0x0", tag]));
  const singleton = `0x${slot.slice(-40).toLowerCase()}`;
  const known = singletonAt(singleton);
  if (known === undefined) return undefined;
  const behind = String(await client.request("eth_getCode", [singleton, tag])).toLowerCase();
  const found = recogniseSafe({ codeHash: keccak256(code), singleton, singletonCodeHash: keccak256(behind) });
  const threshold = await askView(client, block, address, "getThreshold");
  const owners = await askView(client, block, address, "getOwners");
  if (threshold === undefined || !Array.isArray(owners)) return undefined;
  const list = owners.map((owner): Hex => `0x${String(owner).slice(2).toLowerCase()}`);
  const share = `${threshold} of ${list.length}`;
  const isSafe = found.version !== undefined;
  const cautions = [
    ...(isSafe ? [] : [`It forwards to Safe's code, but ${found.why}.`]),
    ...(threshold === 1n ? ["One owner's signature is enough."] : []),
  ];
  const label = `${isSafe ? "" : "like "}Safe ${known.version}, ${share}`;
  return { address, kind: isSafe ? "safe" : "contract", label, caution: cautions.join(" "), owners: list };
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
