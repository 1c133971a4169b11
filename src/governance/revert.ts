import { AbiCoder, Interface } from "ethers";
import type { Hex } from "../core/bytes.ts";
import { quoteText } from "../core/text.ts";
import { INTERFACES } from "./abis.ts";

/** Errors that no contract of this project declares and that the way through proxies and Safes can end in. */
const OTHERS = new Interface([
  "error InvalidInitialization()",
  "error NotInitializing()",
  "error ERC1967InvalidImplementation(address implementation)",
  "error UUPSUnauthorizedCallContext()",
  "error UUPSUnsupportedProxiableUUID(bytes32 slot)",
  "error AddressEmptyCode(address target)",
  "error FailedCall()",
]);

/** Safe's short codes, as its documentation explains them (docs/error_codes.md of safe-smart-account). */
const SAFE_CODES: Readonly<Record<string, string>> = {
  GS010: "not enough gas to execute the Safe transaction",
  GS013: "the call inside the Safe transaction failed",
  GS020: "the signatures are too short",
  GS025: "a hash was not approved by its owner",
  GS026: "an owner's signature is not valid, or not in order",
};

/**
 * Revert data in words: the error by its name with its values, a text, or the bytes.
 *
 * @example
 * revertWords("0x08c379a0…"); // '"GS013" (the call inside the Safe transaction failed)'
 */
export function revertWords(data: Hex): string {
  if (data === "0x") return "it gives no reason";
  if (data.startsWith("0x08c379a0")) {
    try {
      const text = String(AbiCoder.defaultAbiCoder().decode(["string"], `0x${data.slice(10)}`)[0]);
      const meaning = SAFE_CODES[text];
      return meaning === undefined ? quoteText(text) : `${quoteText(text)} (${meaning})`;
    } catch {
      return data.slice(0, 138);
    }
  }
  for (const abi of [...Object.values(INTERFACES), OTHERS]) {
    try {
      const error = abi.parseError(data);
      if (error !== null) return `${error.name}(${error.args.map(String).join(", ")})`;
    } catch {
      // another interface may know it
    }
  }
  return data.slice(0, 138);
}
