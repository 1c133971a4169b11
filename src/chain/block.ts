import { keccak256 } from "ethers/crypto";
import { encodeRlp } from "ethers/utils";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { parseQuantity } from "../core/log.ts";
import { printable } from "../core/printable.ts";
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
  /** Fields of a header that does not hash which this version does not know: a fork of the chain brought them. */
  readonly unknownFields?: readonly string[] | undefined;
  /** On Arbitrum and every chain of its stack: the parent chain's block, which is what `block.number` is in a contract. */
  readonly parentNumber?: number | undefined;
}

/*
 * Header fields in the order in which they are hashed (Ethereum Yellow Paper §4.4.4; EIP-1559, EIP-4895, EIP-4844, EIP-4788, EIP-7685,
 * EIP-7928, EIP-7843). `q` is a quantity, `b` bytes. From baseFeePerGas on a field is there if its fork is; the fourth is another spelling.
 */
const HEADER: readonly (readonly [field: string, kind: "b" | "q", optional?: true, alias?: string])[] = [
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
  // Besu's first releases with it called it balHash
  ["blockAccessListHash", "b", true, "balHash"],
  ["slotNumber", "q", true],
];

/** What endpoints answer about a block beside its header's fields. */
const BESIDE: ReadonlySet<string> = new Set([
  ...["hash", "size", "totalDifficulty", "transactions", "uncles", "withdrawals", "author", "sealFields", "requests"],
  ...["l1BlockNumber", "sendCount", "sendRoot", "timestampMillis", "milliTimestamp", "blockAccessList"],
]);
const KNOWN: ReadonlySet<string> = new Set([
  ...HEADER.flatMap(([field, , , alias]) => [field, alias ?? field]),
  ...BESIDE,
]);
/** How often a block is asked for that the endpoint answers it does not have, and the first pause between. */
const ATTEMPTS = 3;
const PAUSE_MS = 200;
/** Names that are told, and characters of each: they are the endpoint's. */
const MOST_NAMED = 5;
const LONGEST_NAME = 40;

/**
 * Fetches a block's header and hashes it locally.
 *
 * @throws KeysteadError `chain/no-block` (retryable) if the endpoint has none; `chain/malformed-block`; `chain/wrong-block` if it answers with another
 * number; as {@link Client.request}
 * @example
 * const block = await fetchBlock(client, "finalized");
 */
export async function fetchBlock(client: Client, tag: BlockTag): Promise<Block> {
  const ask = () => client.request("eth_getBlockByNumber", [blockParameter(tag), false]);
  let answer = await ask();
  for (let attempt = 1; (answer === null || answer === undefined) && attempt < ATTEMPTS; attempt++) {
    // One of several nodes behind an address may not have it yet.
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * attempt));
    answer = await ask();
  }
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
  const hashed = hashHeader(fields) === hash;
  const { l1BlockNumber } = fields;
  return {
    number: parseQuantity(fields.number, "block.number"),
    hash,
    timestamp: parseQuantity(fields.timestamp, "block.timestamp"),
    stateRoot,
    hashed,
    ...(hashed ? {} : { unknownFields: unknownFields(fields) }),
    ...(typeof l1BlockNumber === "string" ? { parentNumber: parseQuantity(l1BlockNumber, "block.l1BlockNumber") } : {}),
  };
}

function unknownFields(fields: Readonly<Record<string, unknown>>): readonly string[] {
  const names = Object.keys(fields).filter((name) => !KNOWN.has(name));
  return names.slice(0, MOST_NAMED).map((name) => printable(name, LONGEST_NAME));
}

/**
 * The error for a block whose header does not hash to its hash here: nothing about it can be proved. Its fields are named where some are unknown; then a
 * newer version of keystead helps, and another endpoint does not.
 *
 * @example
 * if (!block.hashed) throw unknownHeader(block);
 */
export function unknownHeader({ number, unknownFields = [] }: Block): KeysteadError {
  const names = unknownFields.join(", ");
  const why = names === "" ? "does not hash to its hash here" : `has fields that this version does not know: ${names}`;
  return new KeysteadError("proof/unknown-header", `the header of block ${number} ${why}`, {
    remedy:
      names === ""
        ? "Use another endpoint; if all of them answer so, the chain's header has changed: upgrade keystead."
        : "Upgrade keystead: a fork of the chain gave its headers new fields.",
    details: { block: number, fields: unknownFields },
  });
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
  for (const [field, kind, optional, alias] of HEADER) {
    const value = fields[field] ?? (alias === undefined ? undefined : fields[alias]);
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
