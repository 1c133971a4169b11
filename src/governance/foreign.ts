import { getAddress } from "ethers";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from "../core/json.ts";
import { INTERFACES } from "./abis.ts";
import { readBatch } from "./batch.ts";
import { type Call, hashSafeTransaction, hex, type SafeHashes } from "./safe-hash.ts";

/* JSON that signers hold and that nobody here wrote: a batch of the Transaction Builder, a transaction of the Safe service or of its API's list. */

/** What a foreign document asks for. */
export interface ForeignDocument {
  readonly kind: "batch" | "safe-transaction";
  /** A Safe's transaction as the call of `execTransaction` that makes it. */
  readonly calls: readonly Call[];
  /** Safes that are named: they are known to be Safes by the document's word alone. */
  readonly safes: readonly string[];
  /** What the document says beside the calls, in lines for people. */
  readonly remarks: readonly string[];
  /** Transactions whose hash the document states, for {@link checkStatedHashes}. */
  readonly stated: readonly StatedTransaction[];
}

/** A Safe transaction with the hash that its document claims for it. */
export interface StatedTransaction {
  readonly safe: string;
  readonly nonce: bigint;
  readonly call: Call;
  readonly operation: 0 | 1;
  /** Whether all gas fields are zero, as these tools' hashes assume. */
  readonly plain: boolean;
  readonly safeTxHash: Hex | undefined;
}

const malformed = (field: string, what: string) =>
  new KeysteadError("decode/malformed", `${field} ${what}`, {
    argument: field,
    remedy: "Give calldata, a Transaction Builder batch, or a transaction of the Safe service as it was downloaded.",
    details: { field },
  });

/**
 * Reads a JSON document of Safe's tools.
 *
 * @throws KeysteadError `decode/malformed` {field}, those of `readBatch` and `parseJson`
 * @example
 * readForeign(text).calls.map((call) => decodeCall(call));
 */
export function readForeign(text: string): ForeignDocument {
  const document = parseJson(text, "input");
  const list = isJsonArray(document) ? document : isJsonObject(document) ? document.results : undefined;
  if (isJsonArray(list)) return readTransactions(list);
  if (!isJsonObject(document)) throw malformed("input", "is not an object");
  if (document.safe !== undefined && document.to !== undefined) return readTransactions([document]);
  const { calls } = readBatch(text);
  return { kind: "batch", calls, safes: [], remarks: [], stated: [] };
}

function readTransactions(items: readonly JsonValue[]): ForeignDocument {
  if (items.length === 0) throw malformed("results", "is empty");
  const read = items.map((item, at) => {
    const where = items.length === 1 ? "" : `results[${at}].`;
    if (!isJsonObject(item)) throw malformed(`${where}transaction`, "is not an object");
    return readTransaction(item, where);
  });
  return {
    kind: "safe-transaction",
    calls: read.map(({ call }) => call),
    safes: [...new Set(read.map(({ stated }) => stated.safe))],
    remarks: read.flatMap(({ remarks }) => remarks),
    stated: read.map(({ stated }) => stated),
  };
}

function readTransaction(item: JsonObject, where: string) {
  const safe = addressOf(item, "safe", where);
  const to = addressOf(item, "to", where);
  const number = (field: string, fallback?: bigint) => numberOf(item, field, where, fallback);
  const value = number("value");
  const nonce = number("nonce");
  const operation = number("operation", 0n);
  if (operation !== 0n && operation !== 1n) throw malformed(`${where}operation`, "is neither 0 nor 1");
  const data = bytesOf(item, "data", where) ?? "0x";
  const gas = ["safeTxGas", "baseGas", "gasPrice"].map((field) => number(field, 0n));
  const zero = `0x${"00".repeat(20)}`;
  const refund = ["gasToken", "refundReceiver"].map((field) =>
    item[field] === undefined || item[field] === null ? zero : addressOf(item, field, where),
  );
  const encoded = INTERFACES.safe.encodeFunctionData("execTransaction", [
    to,
    value,
    data,
    operation,
    ...gas,
    ...refund,
    "0x",
  ]);
  const safeTxHash = bytesOf(item, "safeTxHash", where) ?? bytesOf(item, "contractTransactionHash", where);
  const plain = gas.every((amount) => amount === 0n) && refund.every((address) => address === zero);
  const stated: StatedTransaction = {
    ...{ safe, nonce, plain, safeTxHash },
    call: { to, value, data },
    operation: operation === 1n ? 1 : 0,
  };
  const remarks = [`Safe ${safe}, nonce ${nonce}${safeTxHash === undefined ? "" : `, says its hash is ${safeTxHash}`}`];
  return { call: { to: safe, value: 0n, data: hex(encoded) }, stated, remarks };
}

/**
 * The hashes of a transaction, where they can be computed here.
 *
 * @returns undefined if it pays for gas: owners of such a transaction sign other fields too
 * @throws KeysteadError `decode/other-hash` where the document claims another hash: what is signed is not what it shows
 * @example
 * checkStatedHash(1n, stated)?.safeTxHash;
 */
export function checkStatedHash(chainId: bigint, stated: StatedTransaction): SafeHashes | undefined {
  const { safe, nonce, call, operation, plain, safeTxHash } = stated;
  if (!plain) return undefined;
  const hashes = hashSafeTransaction(chainId, safe, { ...call, operation, nonce });
  if (safeTxHash !== undefined && safeTxHash !== hashes.safeTxHash) {
    throw new KeysteadError(
      "decode/other-hash",
      `its hash on chain ${chainId} is ${hashes.safeTxHash}, not ${safeTxHash}`,
      {
        argument: "safeTxHash",
        remedy: "Sign nothing: what is signed is not what the document shows, or it is of another chain.",
        details: { stated: safeTxHash, computed: hashes.safeTxHash },
      },
    );
  }
  return hashes;
}

function addressOf(item: JsonObject, field: string, where: string): string {
  const value = item[field];
  if (typeof value !== "string" || !/^0x[0-9a-fA-F]{40}$/.test(value))
    throw malformed(`${where}${field}`, "is not an address");
  return getAddress(value.toLowerCase());
}

function numberOf(item: JsonObject, field: string, where: string, fallback: bigint | undefined): bigint {
  const value = item[field];
  if ((value === undefined || value === null) && fallback !== undefined) return fallback;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value === "string" && /^(?:\d{1,78}|0x[0-9a-fA-F]{1,64})$/.test(value)) return BigInt(value);
  throw malformed(`${where}${field}`, "is not a whole number");
}

function bytesOf(item: JsonObject, field: string, where: string): Hex | undefined {
  const value = item[field];
  if (value === undefined || value === null || value === "") return undefined;
  if (typeof value !== "string" || !/^0x(?:[0-9a-fA-F]{2})*$/.test(value))
    throw malformed(`${where}${field}`, "is not hex");
  return toHex(fromHex(value, field));
}
