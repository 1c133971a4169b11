import { BrowserProvider, formatEther, keccak256, type TransactionLike, VoidSigner } from "ethers";
import type { Client } from "../chain/client.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import type { RawLog } from "../core/events.ts";
import { parseLog, parseQuantity } from "../core/log.ts";
import { MOST_GAS, tooMuchGas } from "./gas.ts";
import { hex } from "./safe-hash.ts";
import type { Key } from "./sign.ts";

/** A transaction of an account whose key is here. */
export interface Outgoing {
  readonly to: string;
  /** Wei. */
  readonly value?: bigint | undefined;
  readonly data: string;
}

/** A transaction that was mined. */
export interface Receipt {
  readonly transactionHash: Hex;
  readonly block: number;
  readonly succeeded: boolean;
  readonly gasUsed: bigint;
  readonly logs: readonly RawLog[];
}

/** Milliseconds between two looks for a receipt, and how long to look at all: longer than a mainnet block by far. */
const POLL = 250;
const PATIENCE = 10 * 60_000;
/** What is asked for beyond the estimate, in percent: state may move between estimate and block. */
const GAS_MARGIN = 25n;

/**
 * Signs a transaction here and sends it: fees, gas and account nonce are the endpoint's suggestion. Where the endpoint does not acknowledge it but
 * knows it all the same, it counts as sent.
 *
 * @param announce told the hash before it is sent: from then on the transaction may be mined, whatever happens here
 * @param fee what it may cost
 * @throws KeysteadError `relay/no-funds`, `relay/fee-too-high` {most, max}, `relay/would-fail` (the estimate reverts), `relay/too-much-gas`,
 * `relay/not-sent`; as `Client.request`
 * @example
 * const receipt = await waitForReceipt(client, await sendTransaction(client, key, { to, data }));
 */
export async function sendTransaction(
  client: Client,
  key: Key,
  { to, value = 0n, data }: Outgoing,
  announce: (hash: Hex) => void = () => {},
  fee: FeeRule = {},
): Promise<Hex> {
  await requireFunds(client, key.address, value);
  let failure: KeysteadError | undefined;
  const request = async ({ method, params }: { readonly method: string; readonly params?: unknown }) => {
    try {
      return await client.request(method, Array.isArray(params) ? params : []);
    } catch (error) {
      if (isKeysteadError(error)) failure = error;
      throw error;
    }
  };
  const provider = new BrowserProvider({ request }, client.chainId);
  let populated: TransactionLike<string>;
  try {
    populated = await new VoidSigner(key.address, provider).populateTransaction({ to, value, data });
  } catch (cause) {
    // ethers calls every failure of an estimate a revert: what the endpoint failed with says more
    if (failure !== undefined && failure.code !== "chain/reverted") throw failure;
    throw new KeysteadError("relay/would-fail", "the endpoint cannot prepare the transaction: it would fail", {
      argument: "transaction",
      remedy: "Simulate it to see why; nothing was sent.",
      cause,
    });
  } finally {
    provider.destroy();
  }
  const { from: _, gasLimit, ...rest } = populated;
  const needed = BigInt(gasLimit ?? 0);
  if (needed > MOST_GAS) throw tooMuchGas("relay/too-much-gas", needed);
  const wanted = (needed * (100n + GAS_MARGIN)) / 100n;
  const gas = wanted > MOST_GAS ? MOST_GAS : wanted;
  requireFee(gas * BigInt(populated.maxFeePerGas ?? populated.gasPrice ?? 0), fee);
  const raw = key.signTransaction({ ...rest, gasLimit: gas });
  const hash = hex(keccak256(raw));
  announce(hash);
  try {
    await client.request("eth_sendRawTransaction", [raw]);
  } catch (cause) {
    const known = await client.request("eth_getTransactionByHash", [hash]);
    if (known === null) {
      throw new KeysteadError("relay/not-sent", `the endpoint did not take the transaction: ${messageOf(cause)}`, {
        remedy: "Run the same command again: it looks at the chain first and does nothing twice.",
        retryable: true,
        details: { hash },
        cause,
      });
    }
  }
  return hash;
}

/** What a transaction may cost. The endpoint proposes the price: a lying one must not be able to burn what the account holds. */
export interface FeeRule {
  /** The most that it may cost, wei. Default: no limit. */
  readonly max?: bigint | undefined;
  /** Told the most that it will cost, before it is signed. */
  readonly show?: ((line: string) => void) | undefined;
}

function requireFee(most: bigint, { max, show }: FeeRule): void {
  show?.(`it costs at most ${formatEther(most)} of the chain's currency`);
  if (max === undefined || most <= max) return;
  throw new KeysteadError(
    "relay/fee-too-high",
    `it would cost up to ${formatEther(most)}, the cap is ${formatEther(max)}`,
    {
      argument: "max-fee",
      remedy: "Nothing was sent. Wait for lower fees, ask another endpoint, or raise the cap with --max-fee.",
      retryable: true,
      details: { most, max },
    },
  );
}

/**
 * Refuses an account that has nothing to pay for gas with.
 *
 * @param value wei that it is to send besides
 * @throws KeysteadError `relay/no-funds`; as `Client.request`
 * @example
 * await requireFunds(client, relayer.address);
 */
export async function requireFunds(client: Client, address: string, value = 0n): Promise<void> {
  const balance = BigInt(String(await client.request("eth_getBalance", [address, "latest"])));
  if (balance > value) return;
  throw new KeysteadError("relay/no-funds", `${address} has ${balance} wei and cannot pay for gas`, {
    argument: "key",
    remedy: "Send some of the chain's currency to it, or use another account: it needs no rights, only gas.",
    details: { address, balance },
  });
}

/**
 * Waits until a transaction is mined.
 *
 * @throws KeysteadError `relay/not-mined` (retryable), `relay/malformed-receipt`; as `Client.request`
 * @example
 * (await waitForReceipt(client, hash)).succeeded;
 */
export async function waitForReceipt(client: Client, hash: Hex, patience: number = PATIENCE): Promise<Receipt> {
  for (const end = Date.now() + patience; ; ) {
    const answer = await client.request("eth_getTransactionReceipt", [hash]);
    if (typeof answer === "object" && answer !== null) return parseReceipt({ ...answer }, hash);
    if (Date.now() > end) {
      throw new KeysteadError("relay/not-mined", `${hash} was sent and is not in a block yet`, {
        remedy: "Wait, then run the same command again: it looks at the chain first and does nothing twice.",
        retryable: true,
        details: { hash },
      });
    }
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
}

function parseReceipt(receipt: Readonly<Record<string, unknown>>, hash: Hex): Receipt {
  if (receipt.transactionHash !== hash || !Array.isArray(receipt.logs)) {
    throw new KeysteadError("relay/malformed-receipt", `the endpoint's receipt is not one of ${hash}`, {
      remedy: "Use another endpoint.",
      details: { hash },
    });
  }
  return {
    transactionHash: hash,
    block: parseQuantity(receipt.blockNumber, "receipt.blockNumber"),
    succeeded: receipt.status === "0x1",
    gasUsed: BigInt(String(receipt.gasUsed)),
    logs: receipt.logs.map((log) => parseLog(log)),
  };
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** An address as logs spell it. */
export const lowerAddress = (address: string): Hex => toHex(fromHex(address, "address"));
