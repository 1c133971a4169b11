import type { Interface } from "ethers";
import type { Hex } from "../../src/core/bytes.ts";
import type { RawLog } from "../../src/core/events.ts";

/** A log as a contract would emit it, encoded by ethers: a second opinion on this project's own decoder. */
export function logOf(
  abi: Interface,
  name: string,
  values: readonly unknown[],
  where: Partial<Omit<RawLog, "topics" | "data">> = {},
): RawLog {
  const { topics, data } = abi.encodeEventLog(name, values);
  return {
    address: `0x${"aa".repeat(20)}`,
    topics: topics as Hex[],
    data: data as Hex,
    blockNumber: 1,
    blockHash: `0x${"b1".repeat(32)}`,
    transactionHash: `0x${"c1".repeat(32)}`,
    logIndex: 0,
    ...where,
  };
}
