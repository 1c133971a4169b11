import { AbiCoder, keccak256, toBeHex, toUtf8Bytes } from "ethers";

/**
 * The slot of an ERC-7201 namespace: `keccak256(abi.encode(uint256(keccak256(id)) - 1)) & ~0xff`.
 *
 * @param id without the `erc7201:` prefix
 * @example erc7201("openzeppelin.storage.Initializable") // "0xf0c57e16840df040f15088dc2f81fe391c3923bec73e23a9662efc9c229c6a00"
 */
export function erc7201(id: string): string {
  const hash = BigInt(keccak256(toUtf8Bytes(id)));
  const slot = BigInt(keccak256(AbiCoder.defaultAbiCoder().encode(["uint256"], [hash - 1n])));
  return toBeHex(slot & ~0xffn, 32);
}
