import { getAddress, Interface } from "ethers";
import { type Block, blockParameter } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { callView } from "../chain/reads.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";

/** What decides over a Safe beside its owners. */
export interface SafeSetup {
  readonly singleton: string;
  readonly modules: readonly string[];
  /** Zero addresses where there are none. */
  readonly guard: string;
  readonly moduleGuard: string;
  readonly fallbackHandler: string;
}

/** `keccak256("guard_manager.guard.address")`, Safe's GuardManager. */
export const GUARD_SLOT: Hex = "0x4a204f620c8c5ccdca3fd54d003badd85ba500436a431f0cbda4f558c93c34c8";
/** `keccak256("module_manager.module_guard.address")`, Safe 1.5.0's ModuleManager. */
export const MODULE_GUARD_SLOT: Hex = "0xb104e0b93118902c651344349b610029d694cfdec91c589c91ebafbcd0289947";
/** `keccak256("fallback_manager.handler.address")`, Safe's FallbackManager. */
export const FALLBACK_SLOT: Hex = "0x6c9a6c4a39284e37ed1cf53d337577d14212a4870fb976a4366c693b939918d5";
/** Slots of a Safe (SafeStorage.sol; the same in 1.3.0, 1.4.1 and 1.5.0). */
export const SINGLETON_SLOT: Hex = `0x${"00".repeat(32)}`;
export const THRESHOLD_SLOT: Hex = `0x${"00".repeat(31)}04`;
export const NONCE_SLOT: Hex = `0x${"00".repeat(31)}05`;

/** Head and end marker of Safe's linked lists. */
const SENTINEL = "0x0000000000000000000000000000000000000001";
const MODULES = new Interface([
  "function getModulesPaginated(address start, uint256 pageSize) view returns (address[] array, address next)",
]);
const MAX_MODULES = 100;

/** The address in a storage word. */
export const addressIn = (word: bigint): string =>
  getAddress(`0x${BigInt.asUintN(160, word).toString(16).padStart(40, "0")}`);

/**
 * Reads a Safe's modules, guards and handler at a block.
 *
 * @throws KeysteadError `chain/not-this-contract` where no Safe answers, `safe/too-many-modules`; as `Client.request`
 * @example
 * (await fetchSafeSetup(client, block, safe)).modules; // []
 */
export async function fetchSafeSetup(client: Client, block: Block, address: string): Promise<SafeSetup> {
  const slot = async (position: Hex) => {
    const word = await client.request("eth_getStorageAt", [address, position, blockParameter(block.number)]);
    return addressIn(BigInt(String(word)));
  };
  const target = toHex(fromHex(address, "address"));
  const modules = await callView(client, MODULES, target, block, "getModulesPaginated", [SENTINEL, MAX_MODULES]);
  if (modules.next !== SENTINEL && BigInt(modules.next) !== 0n) {
    throw new KeysteadError("safe/too-many-modules", `Safe ${address} has more than ${MAX_MODULES} modules`, {
      argument: "safe",
      remedy: "Use another Safe: each module acts for it without a signature.",
    });
  }
  return {
    singleton: await slot(SINGLETON_SLOT),
    modules: [...modules.array].map(String),
    guard: await slot(GUARD_SLOT),
    moduleGuard: await slot(MODULE_GUARD_SLOT),
    fallbackHandler: await slot(FALLBACK_SLOT),
  };
}
