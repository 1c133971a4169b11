import { keccak256 } from "ethers/crypto";
import { encodeRlp } from "ethers/utils";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { parseQuantity } from "../core/log.ts";
import type { Client } from "./client.ts";

/** Which block: a number, or a name that endpoints know. */
export type BlockTag = number | "latest" | "safe" | "finalized";

/** A block's header as far as this project reads it. */
export interface Block {
  readonly number: number;
  readonly hash: Hex;
  /** Seconds since 1970. */
  readonly timestamp: number;
  readonly stateRoot: Hex;
  /** Whether the header, encoded and hashed here, gives `hash`: then number, time and state root are that block's. */
  readonly hashed: boolean;
}

/*
 * Header fields in the order in which they are hashed (Ethereum Yellow Paper §4.4.4; EIP-1559, EIP-4895, EIP-4844, EIP-4788, EIP-7685). `q` is a
 * quantity, `b` bytes. From baseFeePerGas on a field is there if its fork is.
 */
const HEADER: readonly (readonly [field: string, kind: "b" | "q", optional?: true])[] = [
  ["parentHash", "b"],
  ["sha3Uncles", "b"],
  ["miner", "b"],
  ["stateRoot", "b"],
  ["transactionsRoot", "b"],
  ["receiptsRoot", "b"],
  ["logsBloom", "b"],
  ["difficulty", "q"],
  ["number", "q"],
  ["gasLimit", "q"],
  ["gasUsed", "q"],
  ["timestamp", "q"],
  ["extraData", "b"],
  ["mixHash", "b"],
  ["nonce", "b"],
  ["baseFeePerGas", "q", true],
  ["withdrawalsRoot", "b", true],
  ["blobGasUsed", "q", true],
  ["excessBlobGas", "q", true],
  ["parentBeaconBlockRoot", "b", true],
  ["requestsHash", "b", true],
];

/**
 * Fetches a block's header and hashes it locally.
 *
 * @throws KeysteadError `chain/no-block` (retryable) if the endpoint has none; `chain/malformed-block`; `chain/wrong-block` if it answers with another
 * number; as {@link Client.request}
 * @example
 * const block = await fetchBlock(client, "finalized");
 */
export async function fetchBlock(client: Client, tag: BlockTag): Promise<Block> {
  const answer = await client.request("eth_getBlockByNumber", [blockParameter(tag), false]);
  if (answer === null || answer === undefined) {
    throw new KeysteadError("chain/no-block", `the endpoint has no block ${tag}`, {
      remedy: "Try again: the endpoint may be behind, or the chain was reorganised.",
      retryable: true,
      details: { tag },
    });
  }
  const block = parseBlock(answer);
  if (typeof tag === "number" && block.number !== tag) {
    throw new KeysteadError("chain/wrong-block", `asked for block ${tag}, the endpoint answers with ${block.number}`, {
      remedy: "Use another endpoint.",
      details: { tag, number: block.number },
    });
  }
  return block;
}

/**
 * A block as an endpoint's JSON gives it.
 *
 * @throws KeysteadError `chain/malformed-block`
 * @example
 * parseBlock(answer).hashed;
 */
export function parseBlock(answer: unknown): Block {
  const fields = typeof answer === "object" && answer !== null ? (answer as Readonly<Record<string, unknown>>) : {};
  const { hash, stateRoot } = fields;
  if (!isHash(hash) || !isHash(stateRoot)) {
    throw new KeysteadError("chain/malformed-block", "the endpoint's block has no hash or no state root", {
      remedy: "Use an endpoint that answers as an Ethereum node does.",
    });
  }
  return {
    number: parseQuantity(fields.number, "block.number"),
    hash,
    timestamp: parseQuantity(fields.timestamp, "block.timestamp"),
    stateRoot,
    hashed: hashHeader(fields) === hash,
  };
}

/**
 * A tag as JSON-RPC wants it.
 *
 * @example
 * blockParameter(16); // "0x10"
 */
export function blockParameter(tag: BlockTag): string {
  return typeof tag === "number" ? `0x${tag.toString(16)}` : tag;
}

/** The hash of a header's fields; undefined where they are not those of a header that this version knows. */
function hashHeader(fields: Readonly<Record<string, unknown>>): string | undefined {
  const encoded: string[] = [];
  for (const [field, kind, optional] of HEADER) {
    const value = fields[field];
    if (optional && (value === undefined || value === null)) continue;
    if (typeof value !== "string" || !/^0x[0-9a-f]*$/i.test(value)) return undefined;
    const digits = kind === "b" ? value.slice(2) : value.slice(2).replace(/^0+/, "");
    if (kind === "b" && digits.length % 2 !== 0) return undefined;
    encoded.push(`0x${digits.length % 2 === 0 ? digits : `0${digits}`}`);
  }
  return keccak256(encodeRlp(encoded));
}

function isHash(value: unknown): value is Hex {
  return typeof value === "string" && /^0x[0-9a-f]{64}$/.test(value);
}
