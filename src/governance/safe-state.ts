import { getAddress, Interface, id } from "ethers";
import { type Block, blockParameter } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { scanLogs } from "../chain/logs.ts";
import { callView } from "../chain/reads.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { SAFE_VERSIONS, type SafeVersion } from "./safe-hash.ts";

/** What a Safe answers about itself at a block: an endpoint's word, as any view. */
export interface SafeOnChain {
  readonly address: string;
  readonly version: SafeVersion;
  /** The contract whose code it runs: slot 0 of its proxy. */
  readonly singleton: string;
  readonly owners: readonly string[];
  readonly threshold: number;
  readonly nonce: bigint;
}

const SAFE_VIEWS = new Interface([
  "function VERSION() view returns (string)",
  "function getOwners() view returns (address[])",
  "function getThreshold() view returns (uint256)",
  "function nonce() view returns (uint256)",
  "function approvedHashes(address owner, bytes32 hash) view returns (uint256)",
]);

/** The same name and fields in every release; `txHash` is a topic from 1.4.1 on and the first word of the data before. */
const EXECUTION_SUCCESS = toHex(fromHex(id("ExecutionSuccess(bytes32,uint256)"), "topic"));

const lower = (address: string): Hex => toHex(fromHex(address, "address"));

/**
 * A Safe's release, owners, threshold and nonce at a block.
 *
 * @throws KeysteadError `safe/not-a-safe` where no code stands there, or the release is none that these tools know; as `Client.request`
 * @example
 * (await fetchSafe(client, await fetchBlock(client, "latest"), "0x…")).nonce;
 */
export async function fetchSafe(client: Client, block: Block, address: string): Promise<SafeOnChain> {
  const refuse = (why: string) =>
    new KeysteadError("safe/not-a-safe", `${address} is not a Safe that these tools know: ${why}`, {
      argument: "safe",
      remedy: `Check the address and the chain; releases ${SAFE_VERSIONS.join(", ")} are known.`,
      details: { address },
    });
  const code = await client.request("eth_getCode", [address, blockParameter(block.number)]);
  if (code === "0x") throw refuse("it has no code");
  const slot = await client.request("eth_getStorageAt", [address, "0x0", blockParameter(block.number)]);
  const ask = (name: string) => callView(client, SAFE_VIEWS, lower(address), block, name, []);
  const [[release], [owners], [threshold], [nonce]] = await Promise.all([
    ask("VERSION"),
    ask("getOwners"),
    ask("getThreshold"),
    ask("nonce"),
  ]);
  const version = SAFE_VERSIONS.find((known) => known === release);
  if (version === undefined) throw refuse(`it says that it is release ${JSON.stringify(String(release).slice(0, 20))}`);
  return {
    ...{ address: getAddress(address), version, nonce: BigInt(nonce), threshold: Number(threshold) },
    singleton: getAddress(`0x${String(slot).slice(-40)}`),
    owners: [...owners].map((owner) => getAddress(String(owner))),
  };
}

/**
 * The owners who approved a Safe transaction's hash on chain (`approveHash`): each counts as a signature of it.
 *
 * @example
 * await fetchApprovals(client, block, safe, planned.hashes.safeTxHash);
 */
export async function fetchApprovals(
  client: Client,
  block: Block,
  { address, owners }: SafeOnChain,
  safeTxHash: Hex,
): Promise<readonly string[]> {
  const answers = await Promise.all(
    owners.map((owner) => callView(client, SAFE_VIEWS, lower(address), block, "approvedHashes", [owner, safeTxHash])),
  );
  return owners.filter((_, i) => BigInt(answers[i]?.[0] ?? 0) === 1n);
}

/** A Safe transaction that was executed. */
export interface SafeExecutionLog {
  readonly block: number;
  readonly transactionHash: Hex;
}

/**
 * Whether a Safe executed a transaction, from its own events.
 *
 * @param fromBlock a block before which it cannot have been
 * @returns undefined if it did not, up to `block`
 * @throws KeysteadError as `scanLogs`: a range that can't be read is never taken for one without events
 * @example
 * await findExecution(client, block, safe, planned.hashes.safeTxHash, deployment.block);
 */
export async function findExecution(
  client: Client,
  block: Block,
  safe: string,
  safeTxHash: Hex,
  fromBlock: number,
): Promise<SafeExecutionLog | undefined> {
  const filter = { address: lower(safe), topics: [EXECUTION_SUCCESS] };
  const logs = await scanLogs(client, filter, fromBlock, block.number);
  const found = logs.find(({ topics, data }) => topics[1] === safeTxHash || data.slice(0, 66) === safeTxHash);
  return found === undefined ? undefined : { block: found.blockNumber, transactionHash: found.transactionHash };
}
