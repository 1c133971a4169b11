import { createServer, type IncomingMessage } from "node:http";
import { toBeHex, toQuantity } from "ethers";
import type { Block } from "../chain/block.ts";
import { type Client, connect } from "../chain/client.ts";
import { askForLogs } from "../chain/logs.ts";
import { revertData } from "../chain/rpc-errors.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { startAnvil } from "./anvil.ts";
import { MOST_GAS } from "./gas.ts";
import { revertWords } from "./revert.ts";

/** A transaction as it was played on a fork. */
export interface PlayedTransaction {
  readonly hash: Hex;
  readonly gasUsed: bigint;
  readonly timestamp: bigint;
  readonly logs: readonly { readonly address: Hex; readonly topics: readonly Hex[]; readonly data: Hex }[];
}

/** What a transaction read: each account as it was before. */
export interface ReadAccount {
  readonly code: Hex | undefined;
  readonly balance: bigint | undefined;
  readonly storage: ReadonlyMap<Hex, bigint>;
}

/** A private copy of a chain at one block, on which anything can be played. */
export interface Fork {
  /** The copied block. */
  readonly block: Block;
  readonly url: string;
  readonly client: Client;
  /** Sends from any account, with no key: its code, if it has any, is not asked. Gas costs nothing. */
  sendAs(from: string, to: string, data: string, value?: bigint): Promise<PlayedTransaction>;
  /** Moves the clock: the next block has this time. */
  warpTo(timestamp: bigint): Promise<void>;
  now(): Promise<bigint>;
  readonly snapshot: () => Promise<string>;
  readonly restore: (snapshot: string) => Promise<void>;
  /** Everything that a transaction found, and everything that it changed. */
  trace(hash: Hex): Promise<Trace>;
  stop(): Promise<void>;
}

/** What a transaction found and what it left. */
export interface Trace {
  readonly found: ReadonlyMap<Hex, ReadAccount>;
  readonly changes: readonly Change[];
}

/** One raw change of the chain's state. */
export interface Change {
  readonly address: Hex;
  readonly kind: "slot" | "balance" | "code";
  /** 32 bytes; empty but for `slot`. */
  readonly slot: Hex | "";
  readonly before: Hex;
  readonly after: Hex;
}

/** What a fork may ask of the chain that it copies: reading, and nothing else. */
const READS: ReadonlySet<string> = new Set([
  ...["eth_chainId", "net_version", "eth_blockNumber", "eth_gasPrice", "eth_feeHistory", "eth_maxPriorityFeePerGas"],
  ...["eth_getBlockByNumber", "eth_getBlockByHash", "eth_getBalance", "eth_getTransactionCount", "eth_getCode"],
  ...["eth_getStorageAt", "eth_getAccount", "eth_getAccountInfo", "eth_getProof", "eth_getLogs", "eth_call"],
  ...["eth_getTransactionByHash", "eth_getTransactionReceipt", "eth_getBlockReceipts", "web3_clientVersion"],
]);
const MAX_REQUEST_BYTES = 4 * 1024 * 1024;
/** A call that used as much of its gas as this ran out of it: each call inside keeps a 64th back. */
const NEARLY_ALL = (MOST_GAS * 94n) / 100n;

/**
 * Copies a chain at a block into a private anvil. Anvil reads through this process, so an endpoint's URL and the key in it stand in no command line,
 * and whatever this client can ask, Hardhat's node included, can be copied.
 *
 * @throws KeysteadError `anvil/not-installed`, `anvil/not-started`; as `Client.request`
 * @example
 * const fork = await forkChain(client, await fetchBlock(client, "latest"));
 */
export async function forkChain(client: Client, block: Block): Promise<Fork> {
  const bridge = await startBridge(client);
  let anvil: Awaited<ReturnType<typeof startAnvil>>;
  try {
    anvil = await startAnvil({
      chainId: client.chainId,
      args: [
        ...["--fork-url", bridge.url, "--fork-block-number", `${block.number}`, "--no-rate-limit"],
        ...["--retries", "1", "--timeout", "60000", "--no-storage-caching", "--auto-impersonate"],
        ...["--block-base-fee-per-gas", "0", "--gas-price", "0", "--gas-limit", "60000000"],
        ...["--disable-code-size-limit", "--order", "fifo"],
      ],
    });
  } catch (error) {
    await bridge.stop();
    // what the endpoint said says more than that anvil gave up
    throw bridge.failure() ?? error;
  }
  const stop = async () => {
    await anvil.stop();
    await bridge.stop();
  };
  try {
    const local = await connect(anvil.url, { chainId: client.chainId, timeout: 120_000 });
    return { ...play(local, bridge.failure), block, url: anvil.url, client: local, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function play(client: Client, failure: () => unknown): Omit<Fork, "block" | "url" | "client" | "stop"> {
  /** A failure of the copied chain looks like one of the fork: the first is the one to report. */
  const ask = async (method: string, params: readonly unknown[]): Promise<unknown> => {
    try {
      return await client.request(method, params);
    } catch (error) {
      throw failure() ?? error;
    }
  };
  const now = async () => BigInt(objectOf(await ask("eth_getBlockByNumber", ["latest", false])).timestamp as string);
  return {
    now,
    async sendAs(from, to, data, value = 0n) {
      const transaction = {
        ...{ from, to, data, value: toQuantity(value) },
        ...{ gas: toQuantity(MOST_GAS), gasPrice: "0x0" },
      };
      if (value > 0n) {
        const balance = BigInt(String(await ask("eth_getBalance", [from, "latest"])));
        if (balance < value) throw reverted(from, to, data, "0x", `it would send ${value} wei and has ${balance}`);
      }
      const hash = String(await ask("eth_sendTransaction", [transaction])) as Hex;
      const receipt = await receiptOf(ask, hash);
      if (receipt.status !== "0x1") {
        if (BigInt(String(receipt.gasUsed)) > NEARLY_ALL) throw outOfGas(from, to);
        throw reverted(from, to, data, await reasonOf(client, transaction, String(receipt.blockNumber)));
      }
      const block = objectOf(await ask("eth_getBlockByNumber", [receipt.blockNumber, false]));
      return {
        hash,
        gasUsed: BigInt(String(receipt.gasUsed)),
        timestamp: BigInt(String(block.timestamp)),
        logs: (Array.isArray(receipt.logs) ? receipt.logs : []).map((log) => ({
          address: lower(log.address),
          topics: log.topics.map(lower),
          data: lower(log.data),
        })),
      };
    },
    async warpTo(timestamp) {
      await ask("evm_setNextBlockTimestamp", [toQuantity(timestamp)]);
      await ask("evm_mine", []);
    },
    snapshot: async () => String(await ask("evm_snapshot", [])),
    restore: async (snapshot) => void (await ask("evm_revert", [snapshot])),
    trace: async (hash) => readTrace(ask, hash),
  };
}

type Ask = (method: string, params: readonly unknown[]) => Promise<unknown>;

async function receiptOf(ask: Ask, hash: Hex): Promise<Record<string, unknown>> {
  for (let attempt = 0; attempt < 600; attempt++) {
    const receipt = await ask("eth_getTransactionReceipt", [hash]);
    if (receipt !== null) return objectOf(receipt);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new KeysteadError("fork/not-mined", `the fork did not mine ${hash}`, { remedy: "Try again.", retryable: true });
}

/** Plays it once more as a call at the block before, which says why. */
async function reasonOf(client: Client, transaction: object, block: string): Promise<Hex> {
  try {
    await client.request("eth_call", [transaction, toQuantity(BigInt(block) - 1n)]);
  } catch (error) {
    const data = isKeysteadError(error) ? revertData(error.cause) : undefined;
    if (data !== undefined) return data;
  }
  return "0x";
}

/**
 * The error for a call that the fork refused.
 *
 * @example
 * throw reverted(safe, timelock, data, "0x");
 */
function reverted(from: string, to: string, data: string, reason: Hex, why?: string): KeysteadError {
  const words = why ?? revertWords(reason);
  return new KeysteadError("fork/reverted", `the call from ${from} to ${to} fails: ${words}`, {
    argument: "operation",
    remedy: "Don't sign or execute it as it is: on the chain it would fail in the same way.",
    details: { from, to, data: data.slice(0, 10), reason, words },
  });
}

function outOfGas(from: string, to: string): KeysteadError {
  const most = MOST_GAS.toLocaleString("en");
  return new KeysteadError(
    "fork/too-much-gas",
    `the call from ${from} to ${to} runs out of gas: it needs more than the ${most} that one transaction may have (EIP-7825)`,
    {
      argument: "operation",
      remedy: "Don't sign it: propose it in several parts, each with fewer calls.",
      details: { from, to, most: MOST_GAS },
    },
  );
}

async function readTrace(ask: Ask, hash: Hex): Promise<Trace> {
  const tracer = { tracer: "prestateTracer" };
  const found = objectOf(await ask("debug_traceTransaction", [hash, tracer]));
  const diff = objectOf(await ask("debug_traceTransaction", [hash, { ...tracer, tracerConfig: { diffMode: true } }]));
  const [pre, post] = [objectOf(diff.pre), objectOf(diff.post)];
  const changes: Change[] = [];
  for (const address of new Set([...Object.keys(pre), ...Object.keys(post)])) {
    const [before, after] = [accountOf(pre[address]), accountOf(post[address])];
    const push = (kind: Change["kind"], slot: Hex | "", from: Hex, to: Hex) => {
      if (from !== to) changes.push({ address: lower(address), kind, slot, before: from, after: to });
    };
    for (const slot of new Set([...before.storage.keys(), ...after.storage.keys()])) {
      push("slot", slot, word(before.storage.get(slot) ?? 0n), word(after.storage.get(slot) ?? 0n));
    }
    if (after.balance !== undefined) push("balance", "", word(before.balance ?? 0n), word(after.balance));
    if (after.code !== undefined) push("code", "", before.code ?? "0x", after.code);
  }
  return {
    found: new Map(Object.entries(found).map(([address, state]) => [lower(address), accountOf(state)])),
    changes,
  };
}

function accountOf(value: unknown): ReadAccount {
  const { code, balance, storage } = typeof value === "object" && value !== null ? objectOf(value) : {};
  return {
    code: typeof code === "string" ? lower(code) : undefined,
    balance: typeof balance === "string" ? BigInt(balance) : undefined,
    storage: new Map(
      Object.entries(typeof storage === "object" && storage !== null ? storage : {}).map(([slot, content]) => [
        word(BigInt(slot)),
        BigInt(String(content)),
      ]),
    ),
  };
}

const word = (value: bigint): Hex => toHex(fromHex(toBeHex(value, 32), "word"));
const lower = (value: unknown): Hex => String(value).toLowerCase() as Hex;
const objectOf = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null ? { ...value } : {};

/** A JSON-RPC server on this machine's loopback that passes reads on to a client. */
async function startBridge(client: Client) {
  let failed: unknown;
  const answer = async (call: Record<string, unknown>) => {
    const head = { jsonrpc: "2.0", id: call.id ?? null };
    const method = String(call.method);
    if (!READS.has(method)) return { ...head, error: { code: -32601, message: `${method} is not passed on` } };
    try {
      const params = Array.isArray(call.params) ? call.params : [];
      // anvil takes no null for a list
      const logs = method === "eth_getLogs";
      return { ...head, result: await (logs ? askForLogs(client, params) : client.request(method, params)) };
    } catch (error) {
      const fault = isKeysteadError(error) ? error : undefined;
      // what an endpoint does not offer, anvil asks in another way
      if (fault?.code !== "chain/unsupported" && fault?.code !== "chain/reverted") failed ??= error;
      return { ...head, error: { code: -32000, message: fault?.message ?? String(error) } };
    }
  };
  const server = createServer(async (request, response) => {
    try {
      const call: unknown = JSON.parse(await readBody(request));
      const body = Array.isArray(call)
        ? await Promise.all(call.map((one) => answer(objectOf(one))))
        : await answer(objectOf(call));
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
    } catch {
      response.writeHead(400).end();
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    /** What the copied chain's endpoint failed with first, if it did. */
    failure: () => failed,
    stop: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > MAX_REQUEST_BYTES) throw new Error("the request is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
