import { getBytes, hexlify, keccak256, zeroPadValue } from "ethers";

/** What a compiler output says about a contract's code on chain. */
export interface CompiledCode {
  /** Runtime code with zeros where immutables go. */
  readonly deployedBytecode: string;
  /** solc's `immutableReferences`: where each immutable was left out, in bytes. */
  readonly immutableReferences?: Readonly<
    Record<string, readonly { readonly start: number; readonly length: number }[]>
  >;
}

/**
 * Compares code on chain with what the compiler made: equal outside of the immutables, and every immutable one of the addresses that
 * this contract may have been given.
 *
 * @param onChain `eth_getCode`'s answer
 * @param immutables addresses that may stand in immutables, such as the contract's own (UUPS's `__self`)
 * @returns one sentence per difference; empty if there is none
 * @example compareCode(code, await hre.artifacts.readArtifact("KmsRegistry"), [implementation, policy]) // []
 */
export function compareCode(onChain: string, compiled: CompiledCode, immutables: readonly string[]): string[] {
  const found = getBytes(onChain);
  const wanted = getBytes(compiled.deployedBytecode);
  if (found.length !== wanted.length) {
    return [`its code has ${found.length} bytes, the compiled contract has ${wanted.length}`];
  }
  const allowed = new Set(immutables.map((address) => zeroPadValue(address, 32).toLowerCase()));
  const differences: string[] = [];
  for (const { start, length } of Object.values(compiled.immutableReferences ?? {}).flat()) {
    const value = hexlify(found.subarray(start, start + length));
    if (!allowed.has(value)) differences.push(`the immutable at byte ${start} is ${value}`);
    found.fill(0, start, start + length);
    wanted.fill(0, start, start + length);
  }
  const at = found.findIndex((byte, index) => byte !== wanted[index]);
  if (at !== -1) differences.push(`its code differs from the compiled contract from byte ${at} on`);
  return differences;
}

/** keccak256 of code with its immutables zeroed: equal for every deployment of one compiled contract. */
export function hashMaskedCode(code: string, compiled: CompiledCode): string {
  const bytes = getBytes(code);
  for (const { start, length } of Object.values(compiled.immutableReferences ?? {}).flat())
    bytes.fill(0, start, start + length);
  return keccak256(bytes);
}
