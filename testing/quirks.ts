import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { encodeRlp, keccak256, toBeArray } from "ethers";

/** Whatever answers JSON-RPC calls. */
export interface Provider {
  request(call: { readonly method: string; readonly params?: readonly unknown[] }): Promise<unknown>;
}

/** An endpoint's error, with the HTTP status that it comes with. */
export interface Refusal {
  readonly code: number;
  readonly message: string;
  readonly status?: number;
  readonly data?: unknown;
}

/** What is imitated; see README.md. */
export interface Quirks {
  readonly cap?: { readonly blocks: number; readonly refuse: (size: number) => Refusal };
  /** Every so many calls, of these methods where they are named. */
  readonly passing?: { readonly every: number; readonly refusal: Refusal; readonly methods?: readonly string[] };
  /** Logs of so many newest blocks are left out; of every so many answers. */
  readonly lagLogs?: { readonly blocks: number; readonly every?: number };
  /** The newest block is null when it is asked for the first so many times. */
  readonly lagBlock?: number;
  readonly duplicate?: boolean;
  readonly unsorted?: boolean;
  readonly nullLogs?: boolean;
  /** How many blocks behind the newest are proved; `none`: not even that one. */
  readonly proofWindow?: number | "none";
  readonly amsterdam?: "geth" | "besu";
  readonly futureField?: boolean;
  /** The chain's numbers are higher by this than what contracts see; `silent`: without `l1BlockNumber`. */
  readonly orbit?: { readonly ahead: number; readonly silent?: boolean };
  readonly nethermindRevert?: boolean;
  readonly finalizedMissing?: boolean;
}

/** An imitation that counts what it is asked. */
export interface QuirkProvider extends Provider {
  readonly counts: Map<string, number>;
}

type Fields = Record<string, unknown>;
const hex = (value: number): string => `0x${value.toString(16)}`;
const isNumber = (value: unknown): value is string => typeof value === "string" && /^0x[0-9a-f]+$/i.test(value);
/** A contract's storage, code or answer at a block: the position of the block among the parameters. */
const AT: Readonly<Record<string, number>> = {
  ...{ eth_call: 1, eth_getCode: 1, eth_getBalance: 1, eth_getTransactionCount: 1, eth_estimateGas: 1 },
  ...{ eth_getStorageAt: 2, eth_getProof: 2 },
};

/**
 * An endpoint in front of an honest one that answers as real services do.
 *
 * @example
 * const client = await connect(withQuirks(provider, { orbit: { ahead: 1_000_000 } }));
 */
export function withQuirks(honest: Provider, quirks: Quirks): QuirkProvider {
  const counts = new Map<string, number>();
  const headers = imitateHeaders(honest, quirks);
  const ahead = quirks.orbit?.ahead ?? 0;
  let calls = 0;
  let nulls = 0;
  let scans = 0;
  const newest = async () => Number(await honest.request({ method: "eth_blockNumber" }));
  const down = (value: unknown) => (isNumber(value) ? hex(Number(value) - ahead) : value);

  const block = async (method: string, [which, full]: readonly unknown[]): Promise<unknown> => {
    if (method === "eth_getBlockByHash") {
      const params = [headers.honestHash(String(which)), full];
      return headers.imitate(await honest.request({ method, params }));
    }
    if (quirks.finalizedMissing === true && (which === "finalized" || which === "safe")) {
      throw { code: -39001, message: "Unknown block" };
    }
    if (isNumber(which) && Number(which) < ahead) return headers.elsewhere(Number(which));
    if (isNumber(which) && Number(down(which)) === (await newest()) && nulls < (quirks.lagBlock ?? 0)) {
      nulls += 1;
      return null;
    }
    return headers.imitate(await honest.request({ method, params: [down(which), full] }));
  };

  const logs = async ([filter]: readonly unknown[]): Promise<unknown> => {
    const { blockHash, fromBlock, toBlock, ...rest } = filter as Fields;
    let where: Fields = { blockHash: headers.honestHash(String(blockHash)) };
    if (blockHash === undefined) {
      let last = Number(toBlock);
      const size = last - Number(fromBlock) + 1;
      if (quirks.cap !== undefined && size > quirks.cap.blocks) throw quirks.cap.refuse(size);
      scans += 1;
      const { blocks = 0, every = 1 } = quirks.lagLogs ?? {};
      if (scans % every === 0) last = Math.min(last, (await newest()) + ahead - blocks);
      if (last < Math.max(Number(fromBlock), ahead)) return quirks.nullLogs === true ? null : [];
      where = { fromBlock: hex(Math.max(0, Number(fromBlock) - ahead)), toBlock: hex(last - ahead) };
    } else if (headers.isElsewhere(String(blockHash))) return [];
    const found = (await honest.request({ method: "eth_getLogs", params: [{ ...rest, ...where }] })) as Fields[];
    let list = await Promise.all(found.map((log) => headers.imitateLog(log)));
    if (quirks.duplicate === true) list = list.flatMap((log, at) => (at % 2 === 0 ? [log, log] : [log]));
    if (quirks.unsorted === true) list = list.toReversed();
    return quirks.nullLogs === true && list.length === 0 ? null : list;
  };

  return {
    counts,
    async request({ method, params = [] }) {
      counts.set(method, (counts.get(method) ?? 0) + 1);
      calls += 1;
      const { passing } = quirks;
      const isMeant = passing?.methods?.includes(method) ?? method !== "eth_chainId";
      if (passing !== undefined && isMeant && calls % passing.every === 0) throw passing.refusal;
      if (method === "eth_getBlockByNumber" || method === "eth_getBlockByHash") return block(method, params);
      if (method === "eth_getLogs") return logs(params);
      if (method === "eth_blockNumber") return hex((await newest()) + ahead);
      const at = AT[method];
      const asked = at === undefined || params[at] === undefined ? params : params.with(at, down(params[at]));
      if (method === "eth_getProof" && quirks.proofWindow !== undefined) {
        const behind = isNumber(asked[2]) ? (await newest()) - Number(asked[2]) : 0;
        if (quirks.proofWindow === "none" || behind > quirks.proofWindow) {
          throw { code: -32602, message: "distance to target block exceeds maximum proof window" };
        }
      }
      const answer = await honest.request({ method, params: asked }).catch((error: unknown) => {
        throw quirks.nethermindRevert === true ? asNethermind(error) : error;
      });
      if (method !== "eth_getTransactionReceipt" || answer === null) return answer;
      const { logs: own = [], ...receipt } = answer as Fields;
      const imitated = await headers.imitateLog(receipt);
      return { ...imitated, logs: await Promise.all((own as Fields[]).map((log) => headers.imitateLog(log))) };
    },
  };
}

/** Nethermind does not say "revert" in the message, and writes a word before the data. */
function asNethermind(error: unknown): unknown {
  const { message = "", data } = error as { message?: string; data?: unknown };
  const given = typeof data === "object" && data !== null ? (data as Fields).data : data;
  if (!/revert/i.test(message)) return error;
  return { code: -32015, message: "VM execution error.", data: `Reverted ${typeof given === "string" ? given : "0x"}` };
}

const QUANTITIES: ReadonlySet<string> = new Set([
  ...["difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas"],
  "slotNumber",
]);
/** A header's fields in the order of their encoding, those of later forks at the end. */
const ORDER = [
  ...["parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty"],
  ...["number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas"],
  ...["withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash"],
  ...["blockAccessListHash", "slotNumber", "futureField"],
];

function hashOf(header: Fields): string {
  const present = ORDER.filter((name) => header[name] !== undefined && header[name] !== null);
  const encode = (name: string) => (QUANTITIES.has(name) ? toBeArray(String(header[name])) : String(header[name]));
  return keccak256(encodeRlp(present.map(encode)));
}

/** Headers as another chain has them, with true hashes, and everything that refers to them. */
function imitateHeaders(honest: Provider, { amsterdam, futureField, orbit }: Quirks) {
  const changes = amsterdam !== undefined || futureField === true || orbit !== undefined;
  const imitated = new Map<string, string>();
  const originals = new Map<string, string>();
  const elsewhere = new Set<string>();
  const ahead = orbit?.ahead ?? 0;

  const change = (header: Fields): Fields => {
    const made: Fields = { ...header };
    if (amsterdam !== undefined || futureField === true) {
      // all forks up to the one that brought the fields
      made.requestsHash ??= `0x${"e3".repeat(32)}`;
      made.blockAccessListHash = `0x${"ba".repeat(32)}`;
      made.slotNumber = header.number;
    }
    if (futureField === true) made.futureField = `0x${"f0".repeat(32)}`;
    if (orbit !== undefined) made.number = hex(Number(header.number) + ahead);
    return made;
  };
  const imitate = (answer: unknown): unknown => {
    if (!changes || answer === null) return answer;
    const header = answer as Fields;
    const { blockAccessListHash, ...made } = change(header);
    const hash = hashOf({ ...made, blockAccessListHash });
    imitated.set(String(header.hash), hash);
    originals.set(hash, String(header.hash));
    const spelling = amsterdam === "besu" ? "balHash" : "blockAccessListHash";
    return {
      ...made,
      ...{ hash },
      ...(blockAccessListHash === undefined ? {} : { [spelling]: blockAccessListHash }),
      ...(orbit === undefined || orbit.silent === true ? {} : { l1BlockNumber: header.number }),
    };
  };
  const hashFor = async (hash: string): Promise<string> => {
    if (!changes) return hash;
    if (!imitated.has(hash)) imitate(await honest.request({ method: "eth_getBlockByHash", params: [hash, false] }));
    return imitated.get(hash) ?? hash;
  };
  return {
    imitate,
    honestHash: (hash: string) => originals.get(hash) ?? hash,
    isElsewhere: (hash: string) => elsewhere.has(hash),
    /** A block of the chain's own numbering in which nothing of ours is. */
    async elsewhere(number: number): Promise<unknown> {
      const genesis = await honest.request({ method: "eth_getBlockByNumber", params: ["0x0", false] });
      const header: Fields = { ...(genesis as Fields), number: hex(number) };
      const hash = hashOf(header);
      elsewhere.add(hash);
      return { ...header, hash };
    },
    imitateLog: async (log: Fields): Promise<Fields> => ({
      ...log,
      blockHash: await hashFor(String(log.blockHash)),
      blockNumber: hex(Number(log.blockNumber) + ahead),
    }),
  };
}

/** How an imitation answers over HTTP. */
export interface HttpQuirks {
  /** In place of every answer: a body as it is. */
  readonly body?: (method: string) => { readonly status: number; readonly text: string } | undefined;
  /** `user:password`, without which it answers 401; what came is repeated in the answer. */
  readonly login?: string;
}

/** An imitation that listens on this machine. */
export interface QuirkServer {
  readonly url: string;
  stop(): Promise<void>;
}

/**
 * Serves a provider over HTTP, errors with the HTTP status that they have.
 *
 * @example
 * const { url, stop } = await serveQuirks(withQuirks(provider, { unsorted: true }));
 */
export async function serveQuirks(provider: Provider, { body, login }: HttpQuirks = {}): Promise<QuirkServer> {
  const cors = { "access-control-allow-origin": "*", "access-control-allow-headers": "*" };
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    if (request.method !== "POST") return response.writeHead(204, cors).end();
    const { id, method, params } = JSON.parse(Buffer.concat(chunks).toString("utf8"));
    const send = (status: number, text: string) =>
      response.writeHead(status, { ...cors, "content-type": "application/json" }).end(text);
    const given = request.headers.authorization ?? "";
    if (login !== undefined && given !== `Basic ${Buffer.from(login).toString("base64")}`) {
      return send(401, JSON.stringify({ message: `Unauthorized: ${given} for ${request.url}`, code: 401 }));
    }
    const plain = body?.(method);
    if (plain !== undefined) return send(plain.status, plain.text);
    try {
      return send(200, JSON.stringify({ jsonrpc: "2.0", id, result: await provider.request({ method, params }) }));
    } catch (thrown) {
      const { code = -32000, message = String(thrown), status = 200, data } = thrown as Partial<Refusal>;
      const error = { code, message, ...(data === undefined ? {} : { data }) };
      return send(status, JSON.stringify({ jsonrpc: "2.0", id, error }));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
