import { KeysteadError } from "../core/errors.ts";

/*
 * How much of an answer is read before it is parsed. Parsing holds up everything else in the process, and one endpoint of several must not be able to do
 * that for long: so an answer has the size that its method needs, the depth that JSON-RPC needs, and no more elements than text of that size has.
 */

const KIB = 1024;
const MIB = 1024 * KIB;

/** Bytes by method; {@link ANY} for the rest. */
const LIMITS: Readonly<Record<string, number>> = {
  eth_chainId: 4 * KIB,
  eth_blockNumber: 4 * KIB,
  net_version: 4 * KIB,
  web3_clientVersion: 16 * KIB,
  eth_gasPrice: 4 * KIB,
  eth_getBalance: 4 * KIB,
  eth_getStorageAt: 4 * KIB,
  eth_getTransactionCount: 4 * KIB,
  // hashes of its transactions: 70 bytes each
  eth_getBlockByNumber: 4 * MIB,
  eth_getBlockByHash: 4 * MIB,
  // 64 slots, each with up to 65 nodes of at most 532 bytes; a real one has about ten
  eth_getProof: 4 * MIB,
  eth_call: 2 * MIB,
  eth_getCode: 2 * MIB,
  eth_getLogs: 32 * MIB,
  // traces and receipts: of a private fork, or of one transaction
  debug_traceTransaction: 64 * MIB,
  eth_getBlockReceipts: 64 * MIB,
};
const ANY = 8 * MIB;
/** Objects and lists inside each other: a log's topics are at 4, a proof's nodes at 6. */
const MAX_DEPTH = 64;
/** Elements of honest answers are longer than this on average (logs: about 60 bytes); a small answer may have more. */
const BYTES_PER_ELEMENT = 8;
const FREE_ELEMENTS = 4096;

/** Takes an answer's bytes as they arrive. */
export type AnswerMeter = (chunk: Uint8Array) => void;

/**
 * Makes a meter for one answer.
 *
 * @param maxLogBytes the limit for lists of logs, where another than usual
 * @throws KeysteadError from the meter: `chain/too-much` for a list of logs that is too long: ask for fewer blocks; `chain/oversized` for anything else
 * @example
 * const take = meterAnswer("eth_getProof");
 * for await (const chunk of body) take(chunk);
 */
export function meterAnswer(method: string, maxLogBytes?: number): AnswerMeter {
  const most = method === "eth_getLogs" ? (maxLogBytes ?? (LIMITS.eth_getLogs as number)) : (LIMITS[method] ?? ANY);
  let bytes = 0;
  let depth = 0;
  let elements = 0;
  let quoted = false;
  let escaped = false;
  return (chunk) => {
    bytes += chunk.length;
    if (bytes > most) throw oversized(method, `it is longer than ${most} bytes`);
    for (const byte of chunk) {
      if (quoted) {
        if (escaped) escaped = false;
        else if (byte === 0x5c) escaped = true;
        else if (byte === 0x22) quoted = false;
        continue;
      }
      if (byte === 0x22) quoted = true;
      else if (byte === 0x5b || byte === 0x7b) {
        depth += 1;
        elements += 1;
        if (depth > MAX_DEPTH) throw oversized(method, `it is nested deeper than ${MAX_DEPTH}`);
      } else if (byte === 0x5d || byte === 0x7d) depth -= 1;
      else if (byte === 0x2c) elements += 1;
    }
    if (elements > FREE_ELEMENTS + bytes / BYTES_PER_ELEMENT) throw oversized(method, "it has too many elements");
  };
}

function oversized(method: string, why: string): KeysteadError {
  const logs = method === "eth_getLogs";
  return new KeysteadError(logs ? "chain/too-much" : "chain/oversized", `${method}: the answer is not read: ${why}`, {
    remedy: logs ? "Ask for fewer blocks at once." : "Use another endpoint: this one answers with more than is asked.",
    details: { method },
  });
}
