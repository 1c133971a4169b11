import { Interface } from "ethers/abi";
import type { Block } from "../../../src/chain/block.ts";
import type { Client } from "../../../src/chain/client.ts";
import { callView } from "../../../src/chain/reads.ts";
import type { Hex } from "../../../src/core/bytes.ts";
import { isKeysteadError } from "../../../src/core/errors.ts";

/** What Safes and timelocks answer about themselves. */
const VIEWS = new Interface([
  "function getThreshold() view returns (uint256)",
  "function getOwners() view returns (address[])",
  "function getMinDelay() view returns (uint256)",
  "function GRACE_PERIOD() view returns (uint256)",
  "function PROPOSER_ROLE() view returns (bytes32)",
  "function getTimestamp(bytes32 id) view returns (uint256)",
  "function hasRole(bytes32 role, address account) view returns (bool)",
]);

/**
 * Asks a contract that may be of any kind.
 *
 * @returns the first value of its answer; undefined where it does not answer such a question
 * @throws KeysteadError `chain/…` when the endpoint can't be asked
 * @example
 * const delay = await askView(client, block, address, "getMinDelay");
 */
export async function askView(
  client: Client,
  block: Block,
  address: Hex,
  name: string,
  args: readonly unknown[] = [],
): Promise<unknown> {
  try {
    const [value] = await callView(client, VIEWS, address, block, name, args);
    return typeof value === "object" && value !== null ? [...value] : value;
  } catch (error) {
    const silent = ["chain/reverted", "chain/not-this-contract"].some((code) => isKeysteadError(error, code));
    if (silent) return undefined;
    throw error;
  }
}
