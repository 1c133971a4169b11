import { keccak_256 } from "@noble/hashes/sha3.js";
import { concatBytes, fromHex, type Hex, toHex } from "./bytes.ts";
import { type DeploymentId, encodeUint } from "./release.ts";

const SERVICE_ID_BYTES = 20;

/**
 * The id that a service will have: `bytes20(keccak256(abi.encode(chainid, registry, creator, salt)))`, as `KmsRegistry.serviceIdFor` computes it.
 *
 * @param creator who sends the transaction that creates it, 20 bytes
 * @param salt 32 bytes
 * @throws KeysteadError `hex/malformed`
 * @example
 * computeServiceId({ chainId: 1n, registry: "0x…" }, "0x…", "0x…"); // "0x…", 20 bytes
 */
export function computeServiceId({ chainId, registry }: DeploymentId, creator: Hex, salt: Hex): Hex {
  const word = (address: Hex, argument: string) => concatBytes(new Uint8Array(12), fromHex(address, argument));
  const encoded = concatBytes(
    encodeUint(chainId, 32),
    word(registry, "registry"),
    word(creator, "creator"),
    fromHex(salt, "salt"),
  );
  return toHex(keccak_256(encoded).subarray(0, SERVICE_ID_BYTES));
}
