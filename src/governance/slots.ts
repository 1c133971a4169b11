import { concat, keccak256, toBeHex } from "ethers";
import type { Hex } from "../core/bytes.ts";
import { hex } from "./safe-hash.ts";

/**
 * Where a mapping keeps a key's value (Solidity, "Layout of State Variables in Storage").
 *
 * @param key 32 bytes
 * @example
 * mappingSlot(operationId, 1n);
 */
export function mappingSlot(key: string, base: bigint): Hex {
  return hex(keccak256(concat([key, toBeHex(base, 32)])));
}
