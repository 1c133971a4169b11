import { getAddress, Interface, keccak256 } from "ethers";
import { blockParameter, fetchBlock } from "../chain/block.ts";
import { callView } from "../chain/reads.ts";
import { concatBytes, fromHex, type Hex, toHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import type { Fork, PlayedTransaction, ReadAccount } from "./fork.ts";
import type { Operation } from "./operation.ts";
import type { Claim } from "./proven.ts";
import { buildSafeTransaction, type Call, hashSafeTransaction, type SafeRef } from "./safe-hash.ts";
import { fetchSafe } from "./safe-state.ts";

/** One transaction of the play. */
export interface PlayedStep {
  readonly step: string;
  readonly safe: string;
  /** The nonce that the Safe had. */
  readonly nonce: bigint;
  readonly safeTxHash: Hex;
  readonly gasUsed: bigint;
  /** When it was played, seconds since 1970. */
  readonly timestamp: bigint;
}

/** A proposal on a fork, and what its play read. */
export interface Play {
  readonly fork: Fork;
  /** What was first found of each account, before anything here changed it. */
  readonly stage: Map<Hex, ReadAccount>;
  /** Takes down which slots (`address/slot`) views read. */
  readonly looked: (slots: Iterable<string>) => void;
  readonly onProgress: (line: string) => void;
  readonly operation: Operation;
  /** Called after each of the Safe's transactions, while the copy holds it. */
  readonly played?: ((step: PlayedStep, hash: Hex) => Promise<void>) | undefined;
}

const SAFE = new Interface([
  "function approveHash(bytes32 hashToApprove)",
  "function execTransaction(address to, uint256 value, bytes data, uint8 operation, uint256 safeTxGas, uint256 baseGas, uint256 gasPrice, address gasToken, address refundReceiver, bytes signatures) payable returns (bool success)",
  "function getTransactionHash(address to, uint256 value, bytes data, uint8 operation, uint256 safeTxGas, uint256 baseGas, uint256 gasPrice, address gasToken, address refundReceiver, uint256 _nonce) view returns (bytes32)",
]);
const ZERO = "0x0000000000000000000000000000000000000000";
/** Sends the Safes' transactions on the fork: an account that nobody has, as whoever relays needs no rights. */
export const RELAYER = getAddress(`0x${keccak256(new TextEncoder().encode("keystead simulation")).slice(-40)}`);

/**
 * Lets a Safe's own code make calls: its owners approve the hash, somebody without rights sends it.
 *
 * @param name the step's name
 * @throws KeysteadError `fork/reverted`, `simulate/other-hash`; as `Client.request`
 * @example
 * const { step } = await playSafe(play, "execute", life.safe, executionOf(life));
 */
export async function playSafe(
  play: Play,
  name: string,
  ref: SafeRef,
  calls: readonly Call[],
): Promise<{ readonly step: PlayedStep; readonly transaction: PlayedTransaction }> {
  const { fork } = play;
  const at = await fetchBlock(fork.client, "latest");
  const safe = await fetchSafe(fork.client, at, ref.address);
  const transaction = buildSafeTransaction(ref, calls, safe.nonce);
  const { to, value, data, operation } = transaction;
  const head = [to, value, data, operation, 0, 0, 0, ZERO, ZERO];
  const address = toHex(fromHex(ref.address, "safe"));
  const [own] = await callView(fork.client, SAFE, address, at, "getTransactionHash", [...head, safe.nonce]);
  const { safeTxHash } = hashSafeTransaction(BigInt(fork.client.chainId), ref.address, transaction);
  if (String(own) !== safeTxHash) {
    throw new KeysteadError(
      "simulate/other-hash",
      `the Safe hashes its transaction to ${own}, these tools to ${safeTxHash}`,
      {
        argument: "safe",
        remedy: "Don't sign: the Safe is not what the proposal takes it for.",
        details: { own: String(own), ours: safeTxHash },
      },
    );
  }
  // Safe wants signers in the order of their addresses; v 1 means that the hash was approved on chain
  const signers = [...safe.owners].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1)).slice(0, safe.threshold);
  for (const owner of signers) {
    const approved = await fork.sendAs(owner, ref.address, SAFE.encodeFunctionData("approveHash", [safeTxHash]));
    await remember(play, approved.hash);
  }
  const signatures = toHex(
    concatBytes(
      ...signers.map((owner) => fromHex(`0x${"00".repeat(12)}${owner.slice(2)}${"00".repeat(32)}01`, "signature")),
    ),
  );
  const encoded = SAFE.encodeFunctionData("execTransaction", [...head, signatures]);
  let sent: PlayedTransaction;
  try {
    sent = await fork.sendAs(RELAYER, ref.address, encoded);
  } catch (error) {
    throw await innerFailure(fork, ref.address, calls, error);
  }
  await remember(play, sent.hash);
  const { gasUsed, timestamp } = sent;
  const step: PlayedStep = { step: name, safe: ref.address, nonce: safe.nonce, safeTxHash, gasUsed, timestamp };
  await play.played?.(step, sent.hash);
  return { step, transaction: sent };
}

/** Safe hides an inner call's error behind GS013, so the calls are tried one by one, from the Safe. */
async function innerFailure(fork: Fork, safe: string, calls: readonly Call[], error: unknown): Promise<unknown> {
  if (!isKeysteadError(error, "fork/reverted")) return error;
  for (const { to, value, data } of calls) {
    try {
      await fork.sendAs(safe, to, data, value);
    } catch (inner) {
      if (isKeysteadError(inner, "fork/reverted")) return inner;
    }
  }
  return error;
}

/** Keeps what a transaction found of the copied chain; what was seen before, this play may have changed since. */
async function remember({ fork, stage }: Play, hash: Hex): Promise<void> {
  const { found } = await fork.trace(hash);
  for (const [address, account] of found) {
    const known = stage.get(address);
    stage.set(address, {
      code: known?.code ?? account.code,
      balance: known?.balance ?? account.balance,
      storage: new Map([...account.storage, ...(known?.storage ?? [])]),
    });
  }
}

/**
 * Adds what views read and no transaction did, as the copied block has it.
 *
 * @param looked slots, as `address/slot`
 * @throws KeysteadError as `Client.request`
 * @example
 * await addLooked(fork, stage, looked);
 */
export async function addLooked(fork: Fork, stage: Map<Hex, ReadAccount>, looked: ReadonlySet<string>): Promise<void> {
  const tag = blockParameter(fork.block.number);
  for (const key of looked) {
    const address = toHex(fromHex(key.slice(0, 42), "address"));
    const slot = toHex(fromHex(key.slice(43), "slot"));
    const known = stage.get(address);
    if (known?.storage.has(slot)) continue;
    const code = known?.code ?? (String(await fork.client.request("eth_getCode", [address, tag])).toLowerCase() as Hex);
    const value = BigInt(String(await fork.client.request("eth_getStorageAt", [address, slot, tag])));
    stage.set(address, { code, balance: known?.balance, storage: new Map([...(known?.storage ?? []), [slot, value]]) });
  }
}

/**
 * All that a play read, to be proven. Accounts without code and storage (owners, whoever sends) say nothing that it rests on.
 *
 * @example
 * await proveClaims(client, block, claimsOf(stage));
 */
export const claimsOf = (stage: ReadonlyMap<Hex, ReadAccount>): readonly Claim[] =>
  [...stage].flatMap(([address, { code, storage }]) =>
    code === undefined && storage.size === 0
      ? []
      : [
          {
            address,
            codeHash: code === undefined ? undefined : toHex(fromHex(keccak256(code), "hash")),
            slots: storage,
          },
        ],
  );
