import { KeysteadError } from "../core/errors.ts";
import { parseQuantity } from "../core/log.ts";
import { httpTransport } from "./http.ts";
import { createLogRange, type LogRange } from "./log-range.ts";
import { rpcError } from "./rpc-errors.ts";

/** An EIP-1193 provider: a wallet's, Hardhat's `connection.provider`, or one of this room's transports. */
export interface Eip1193Provider {
  request(call: { readonly method: string; readonly params?: readonly unknown[] }): Promise<unknown>;
}

/** What ethers' `JsonRpcProvider` offers for the same purpose. */
export interface SendingProvider {
  send(method: string, params: unknown[]): Promise<unknown>;
}

/** One endpoint of one chain. */
export interface Client {
  readonly chainId: number;
  /**
   * One JSON-RPC call, tried again where trying again helps. The answer is unchecked.
   *
   * @param most how often it is sent at most, where that is less than the client's own patience
   * @throws KeysteadError `chain/unreachable`, `chain/rate-limited`, `chain/no-block` (retryable), `chain/unsupported`, `chain/too-much`,
   * `chain/proof-window`, `chain/reverted`, `chain/refused`; each with what the endpoint said last
   */
  request(method: string, params: readonly unknown[], most?: number): Promise<unknown>;
  /** How many calls were sent so far. */
  readonly calls: () => number;
  /** How many bytes of JSON were sent and received so far, for an endpoint given by URL. */
  readonly bytes?: (() => number) | undefined;
  /** How many blocks this endpoint takes in one question for logs, learned from its answers by whoever scans. */
  readonly logRange?: LogRange | undefined;
}

/** How a client behaves. */
export interface ClientOptions {
  /** The chain that must answer. Default: whichever does. */
  readonly chainId?: number | undefined;
  /** How often a call is sent at most when the endpoint is unreachable or asks to slow down. Default: 4. */
  readonly attempts?: number | undefined;
  /** The same where it asks to slow down. Default: as `attempts`. */
  readonly patience?: number | undefined;
  /** Milliseconds before the second attempt; doubles with each. Default: 250. */
  readonly backoff?: number | undefined;
  /** Milliseconds that one call may take, for an endpoint given by URL. Default: 30000. */
  readonly timeout?: number | undefined;
  /** The longest list of logs that is read, in bytes, for an endpoint given by URL. Default: 32 MiB. Less where one endpoint must not hold up a process. */
  readonly maxLogBytes?: number | undefined;
}

/**
 * Connects to an endpoint and asks for its chain id.
 *
 * @param endpoint an `http(s)` URL, an EIP-1193 provider, or ethers' `JsonRpcProvider`
 * @throws KeysteadError `chain/wrong-chain` {expected, actual}; `chain/bad-endpoint` for a URL that is not one; as {@link Client.request}
 * @example
 * const client = await connect("https://rpc.example", { chainId: 1 });
 */
export async function connect(
  endpoint: string | Eip1193Provider | SendingProvider,
  options: ClientOptions = {},
): Promise<Client> {
  const { attempts = 4, patience = attempts, backoff = 250, timeout = 30_000 } = options;
  let bytes = 0;
  const meter = (count: number) => {
    bytes += count;
  };
  const { maxLogBytes } = options;
  const provider = typeof endpoint === "string" ? httpTransport(endpoint, timeout, { meter, maxLogBytes }) : endpoint;
  const send = (method: string, params: readonly unknown[]) =>
    "request" in provider ? provider.request({ method, params }) : provider.send(method, [...params]);
  let calls = 0;
  const request = async (method: string, params: readonly unknown[], limit = Infinity): Promise<unknown> => {
    for (let attempt = 1; ; attempt++) {
      calls += 1;
      try {
        return await send(method, params);
      } catch (cause) {
        const error = rpcError(method, cause);
        const most = Math.min(limit, error.code === "chain/rate-limited" ? patience : attempts);
        if (!error.retryable || attempt >= most) throw error;
        await new Promise((resolve) => setTimeout(resolve, backoff * 2 ** (attempt - 1)));
      }
    }
  };
  const actual = parseQuantity(await request("eth_chainId", []), "eth_chainId");
  const expected = options.chainId ?? actual;
  if (actual !== expected) {
    throw new KeysteadError("chain/wrong-chain", `the endpoint is on chain ${actual} and not on ${expected}`, {
      argument: "chainId",
      remedy: "Give an endpoint of the chain that is meant.",
      details: { expected, actual },
    });
  }
  const client = { chainId: actual, request, calls: () => calls, logRange: createLogRange() };
  return typeof endpoint === "string" ? { ...client, bytes: () => bytes } : client;
}

/**
 * Applies `act` to every item, at most `limit` at a time, and keeps the order. The first failure ends it.
 *
 * @example
 * const headers = await mapLimited(numbers, 8, (number) => fetchBlock(client, number));
 */
export async function mapLimited<T, R>(
  items: readonly T[],
  limit: number,
  act: (item: T) => Promise<R>,
): Promise<readonly R[]> {
  const results: R[] = new Array(items.length);
  let next = 0;
  const worker = async () => {
    for (let at = next++; at < items.length; at = next++) results[at] = await act(items[at] as T);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  return results;
}

/**
 * A client that has at most `limit` calls under way; the others wait for their turn. For work that spreads out by itself: many histories at once, many
 * questions about each.
 *
 * @example
 * const gentle = limitClient(client, 8);
 */
export function limitClient(client: Client, limit: number): Client {
  let free = limit;
  const waiting: (() => void)[] = [];
  return {
    ...client,
    request: async (method, params, most) => {
      if (free > 0) free -= 1;
      else await new Promise<void>((resolve) => waiting.push(resolve));
      try {
        return await client.request(method, params, most);
      } finally {
        const next = waiting.shift();
        if (next === undefined) free += 1;
        else next();
      }
    },
  };
}
