import { id, keccak256 } from "ethers";
import { type Block, blockParameter } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { IMPLEMENTATION_SLOT, namespaceSlot, slotHex } from "../chain/slots.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { type Basis, type BasisOptions, type Claim, proveClaims } from "./proven.ts";
import {
  addressIn,
  FALLBACK_SLOT,
  GUARD_SLOT,
  MODULE_GUARD_SLOT,
  NONCE_SLOT,
  type SafeSetup,
  SINGLETON_SLOT,
  THRESHOLD_SLOT,
} from "./safe-setup.ts";
import { mappingSlot } from "./slots.ts";

/** Reads code and storage at one block and remembers each answer, so that all of them can be proven together. */
export interface WitnessedReader {
  readonly client: Client;
  readonly block: Block;
  code(address: string): Promise<Hex>;
  slot(address: string, position: Hex): Promise<bigint>;
  /**
   * Proves everything that was read.
   *
   * @throws KeysteadError as `proveClaims`
   */
  prove(options?: BasisOptions): Promise<Basis>;
}

/**
 * Opens a reader at a block.
 *
 * @example
 * const reader = openReader(client, await fetchBlock(client, "latest"));
 * await reader.code(policy);
 * await reader.prove({ witnesses });
 */
export function openReader(client: Client, block: Block): WitnessedReader {
  const tag = blockParameter(block.number);
  const codes = new Map<Hex, Hex>();
  const slots = new Map<Hex, Map<Hex, bigint>>();
  return {
    client,
    block,
    async code(address) {
      const key = lower(address);
      const known = codes.get(key);
      if (known !== undefined) return known;
      const code = hexAnswer(await client.request("eth_getCode", [key, tag]), "eth_getCode");
      codes.set(key, code);
      return code;
    },
    async slot(address, position) {
      const key = lower(address);
      const known = slots.get(key)?.get(position);
      if (known !== undefined) return known;
      const value = BigInt(
        hexAnswer(await client.request("eth_getStorageAt", [key, position, tag]), "eth_getStorageAt"),
      );
      slots.set(key, new Map([...(slots.get(key) ?? []), [position, value]]));
      return value;
    },
    prove: (options) => {
      const addresses = new Set([...codes.keys(), ...slots.keys()]);
      const claims = [...addresses].map((address): Claim => {
        const code = codes.get(address);
        return {
          address,
          codeHash: code === undefined ? undefined : toHex(fromHex(keccak256(code), "hash")),
          slots: slots.get(address) ?? new Map(),
        };
      });
      return proveClaims(client, block, claims, options);
    },
  };
}

const lower = (address: string): Hex => toHex(fromHex(address, "address"));

function hexAnswer(answer: unknown, method: string): Hex {
  if (typeof answer === "string" && /^0x([0-9a-f]{2})*$/i.test(answer)) return `0x${answer.slice(2).toLowerCase()}`;
  throw new KeysteadError("chain/malformed", `the endpoint answers ${method} with no bytes`, {
    argument: "rpc",
    remedy: "Use an endpoint that answers as an Ethereum node does.",
    details: { method },
  });
}

/** What stands at an address. */
export type AccountKind = "nothing" | "delegation" | "contract";

/**
 * Whether code makes an account: an EIP-7702 delegation (`0xef0100 ‖ address`) is still one key.
 *
 * @example
 * kindOfCode("0x"); // "nothing"
 */
export function kindOfCode(code: Hex): AccountKind {
  if (code === "0x") return "nothing";
  return code.startsWith("0xef0100") && code.length === 48 ? "delegation" : "contract";
}

/** What decides over a Safe, from storage. */
export interface SafeInStorage extends SafeSetup {
  readonly owners: readonly string[];
  readonly threshold: number;
  readonly nonce: bigint;
}

/** Safe's `modules` and `owners` (SafeStorage.sol): linked lists, each address leading to the next, from and back to 1. */
const MODULES_BASE = 1n;
const OWNERS_BASE = 2n;
const MAX_LISTED = 200;

/**
 * Who decides over a Safe: owners, threshold, modules, guards, handler, read from its storage. The code at the address must be known to be a Safe's.
 *
 * @throws KeysteadError `safe/malformed-list` for a list without end; as `Client.request`
 * @example
 * (await safeIn(reader, safe)).modules; // []
 */
export async function safeIn(reader: WitnessedReader, address: string): Promise<SafeInStorage> {
  const at = async (position: Hex) => addressIn(await reader.slot(address, position));
  return {
    singleton: await at(SINGLETON_SLOT),
    owners: await listIn(reader, address, OWNERS_BASE),
    threshold: Number(await reader.slot(address, THRESHOLD_SLOT)),
    nonce: await reader.slot(address, NONCE_SLOT),
    modules: await listIn(reader, address, MODULES_BASE),
    guard: await at(GUARD_SLOT),
    moduleGuard: await at(MODULE_GUARD_SLOT),
    fallbackHandler: await at(FALLBACK_SLOT),
  };
}

async function listIn(reader: WitnessedReader, safe: string, base: bigint): Promise<readonly string[]> {
  const found: string[] = [];
  for (let at = 1n; found.length <= MAX_LISTED; ) {
    const next = await reader.slot(safe, mappingSlot(`0x${at.toString(16).padStart(64, "0")}`, base));
    if (next <= 1n) return found;
    found.push(addressIn(next));
    at = BigInt.asUintN(160, next);
  }
  throw new KeysteadError("safe/malformed-list", `a list of Safe ${safe} does not end after ${MAX_LISTED} entries`, {
    argument: "safe",
    remedy: "Don't use this Safe, or ask another endpoint.",
    details: { safe },
  });
}

/** Who holds a role, from storage: OpenZeppelin's AccessControl keeps `_roles[role].hasRole[account]`. */
const ACCESS_CONTROL: Hex = namespaceSlot("openzeppelin.storage.AccessControl");

/**
 * Whether an account holds a role of one of the proxies (`upgradeable`) or of the timelock.
 *
 * @example
 * await holdsRoleIn(reader, timelock, false, id("PROPOSER_ROLE"), safe);
 */
export async function holdsRoleIn(
  reader: WitnessedReader,
  contract: string,
  upgradeable: boolean,
  role: string,
  account: string,
): Promise<boolean> {
  const base = upgradeable ? BigInt(ACCESS_CONTROL) : 0n;
  const members = BigInt(mappingSlot(role, base));
  return (await reader.slot(contract, mappingSlot(`0x${"00".repeat(12)}${account.slice(2)}`, members))) === 1n;
}

/** The id of the role that administers a role, from storage. */
export async function roleAdminIn(
  reader: WitnessedReader,
  contract: string,
  upgradeable: boolean,
  role: string,
): Promise<Hex> {
  const members = BigInt(mappingSlot(role, upgradeable ? BigInt(ACCESS_CONTROL) : 0n));
  return slotHex(await reader.slot(contract, slotHex(members + 1n)));
}

/** The implementation behind a proxy. */
export const implementationIn = async (reader: WitnessedReader, proxy: string): Promise<string> =>
  addressIn(await reader.slot(proxy, IMPLEMENTATION_SLOT));

/** OpenZeppelin's `Initializable`: `_initialized` is the lowest eight bytes of its first slot. */
const INITIALIZABLE: Hex = namespaceSlot("openzeppelin.storage.Initializable");
/** What `_disableInitializers` leaves there. */
export const INITIALIZERS_DISABLED = (1n << 64n) - 1n;

/** Which version of its initialisers a contract has run: 0 for none, {@link INITIALIZERS_DISABLED} on a locked implementation. */
export const initializedIn = async (reader: WitnessedReader, address: string): Promise<bigint> =>
  BigInt.asUintN(64, await reader.slot(address, INITIALIZABLE));

/** `_timestamps[id]` and `_minDelay` of TimelockController. */
export const timelockEntryIn = (reader: WitnessedReader, timelock: string, operationId: string): Promise<bigint> =>
  reader.slot(timelock, mappingSlot(operationId, 1n));
export const minDelayIn = (reader: WitnessedReader, timelock: string): Promise<bigint> =>
  reader.slot(timelock, `0x${"00".repeat(31)}02`);

/** The delay below which a GovernanceTimelock's minimum cannot be set, seconds: slot 3, after it. Zero at a TimelockController, which has no floor. */
export const delayFloorIn = (reader: WitnessedReader, timelock: string): Promise<bigint> =>
  reader.slot(timelock, `0x${"00".repeat(31)}03`);

/** A role's id by its name, as the contracts compute it. */
export const roleIdOf = (name: string): string =>
  id(name === "GOVERNOR_ROLE" || name === "GUARDIAN_ROLE" ? `keystead.${name.replace("_ROLE", "")}` : name);
