import type { Hex } from "./bytes.ts";
import { KeysteadError } from "./errors.ts";
import type { RawLog } from "./events.ts";

/** The most bytes of data that a log of the contracts can hold: a ciphertext of 32768 bytes and a name, with room to spare. */
export const MAX_LOG_DATA_BYTES = 65_536;

/**
 * A log as an endpoint's JSON gives it, checked for shape: hex of the right lengths, quantities in range, at most four topics, data of at most
 * {@link MAX_LOG_DATA_BYTES}. A log that the endpoint marks as removed by a reorganisation, or that is in no block yet, is refused.
 *
 * @throws KeysteadError `log/malformed` {field}; `log/removed` (retryable)
 * @example
 * const logs = answer.map((entry) => parseLog(entry));
 */
export function parseLog(value: unknown): RawLog {
  if (typeof value !== "object" || value === null) throw malformed("log", "it is no object");
  const log = value as Readonly<Record<string, unknown>>;
  if (log.removed === true || log.blockHash === null || log.blockNumber === null) {
    throw new KeysteadError("log/removed", "the endpoint reports a log that is in no block of its chain", {
      argument: "log",
      remedy: "Try again: the chain was reorganised while its logs were read.",
      retryable: true,
    });
  }
  if (!Array.isArray(log.topics) || log.topics.length > 4)
    throw malformed("topics", "they are no list of at most four");
  return {
    address: hexOf(log.address, "address", 20),
    topics: log.topics.map((topic: unknown) => hexOf(topic, "topics", 32)),
    data: hexOf(log.data, "data"),
    blockNumber: parseQuantity(log.blockNumber, "log.blockNumber"),
    blockHash: hexOf(log.blockHash, "blockHash", 32),
    transactionHash: hexOf(log.transactionHash, "transactionHash", 32),
    logIndex: parseQuantity(log.logIndex, "log.logIndex"),
  };
}

/**
 * A JSON-RPC quantity (`0x` and hex digits) as a number.
 *
 * @param field names the value in errors
 * @throws KeysteadError `log/malformed` {field} unless it is a quantity of at most 2^53 − 1
 * @example
 * parseQuantity("0x10", "block.number"); // 16
 */
export function parseQuantity(value: unknown, field: string): number {
  const number = typeof value === "string" && /^0x[0-9a-fA-F]{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw malformed(field, "it is no quantity");
  return number;
}

function hexOf(value: unknown, field: string, bytes?: number): Hex {
  const longest = 2 + 2 * (bytes ?? MAX_LOG_DATA_BYTES);
  if (
    typeof value !== "string" ||
    value.length > longest ||
    value.length % 2 !== 0 ||
    (bytes !== undefined && value.length !== longest) ||
    !/^0x[0-9a-fA-F]*$/.test(value)
  ) {
    throw malformed(
      field,
      bytes === undefined ? `it is no hex of at most ${longest} characters` : `it is not ${bytes} bytes of hex`,
    );
  }
  return value.toLowerCase() as Hex;
}

function malformed(field: string, why: string): KeysteadError {
  return new KeysteadError("log/malformed", `the endpoint's answer is malformed at ${field}: ${why}`, {
    argument: field,
    remedy: "Use another endpoint: this one does not answer as an Ethereum node does.",
    details: { field },
  });
}
