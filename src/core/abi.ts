import { bytesToHex } from "@noble/hashes/utils.js";
import { type Hex, isZero, toHex } from "./bytes.ts";
import type { KeysteadError } from "./errors.ts";

/*
 * The few ABI types that the contracts' events use, read strictly: the only accepted encoding is the one that `abi.encode` produces (Solidity's ABI
 * specification, "Formal Specification of the Encoding", with heads and tails packed in order).
 */

/** The ABI types of event fields. */
export type FieldType =
  | "address"
  | "bool"
  | "bytes20"
  | "bytes32"
  | "bytes"
  | "string"
  | "uint8"
  | "uint16"
  | "uint24"
  | "uint32"
  | "uint40"
  | "uint64";

/** What a field of a type is read as. A `uint64` is refused above 2^53 − 1: it counts events. */
export type FieldValue<T extends FieldType> = T extends "bool"
  ? boolean
  : T extends "string"
    ? string
    : T extends `uint${string}`
      ? number
      : Hex;

/**
 * Reads one field: a static one from the word at `head`, a dynamic one from `tail`, where its offset must point.
 *
 * Text is decoded as UTF-8 with U+FFFD in the place of what is none: anyone may write a description, and no description may stop an audit. It stays
 * text; the bytes remain in the log.
 *
 * @param source topics or data; read within its bounds, and nothing is allocated that it does not hold
 * @param fail makes the error for a reason
 * @returns the value and where the next dynamic field must start
 * @example
 * readField("uint40", data, 32, data.length, (why) => new Error(why)).value; // 1700000000
 */
export function readField(
  type: FieldType,
  source: Uint8Array,
  head: number,
  tail: number,
  fail: (why: string) => KeysteadError,
): { readonly value: Hex | string | number | boolean; readonly tail: number } {
  const word = wordAt(source, head, fail);
  switch (type) {
    case "address":
      if (!isZero(word.subarray(0, 12))) throw fail("the 12 bytes before an address are not zero");
      return { value: toHex(word.subarray(12)), tail };
    case "bytes20":
      if (!isZero(word.subarray(20))) throw fail("the 12 bytes after a bytes20 are not zero");
      return { value: toHex(word.subarray(0, 20)), tail };
    case "bytes32":
      return { value: toHex(word), tail };
    case "bool": {
      const value = unsigned(word, 1, fail);
      if (value > 1) throw fail(`${value} is neither true nor false`);
      return { value: value === 1, tail };
    }
    case "bytes":
    case "string": {
      if (unsigned(word, 6, fail) !== tail) throw fail("its offset is not where the encoding puts it");
      const length = unsigned(wordAt(source, tail, fail), 6, fail);
      const start = tail + 32;
      const padded = Math.ceil(length / 32) * 32;
      if (start + padded > source.length)
        throw fail(`${length} bytes are claimed and ${source.length - start} are there`);
      const bytes = source.subarray(start, start + length);
      if (!isZero(source.subarray(start + length, start + padded))) throw fail("the padding is not zero");
      const value = type === "bytes" ? toHex(bytes) : new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
      return { value, tail: start + padded };
    }
    default:
      return { value: unsigned(word, Number(type.slice(4)) / 8, fail), tail };
  }
}

function wordAt(source: Uint8Array, start: number, fail: (why: string) => KeysteadError): Uint8Array {
  if (start + 32 > source.length) throw fail(`the data end at byte ${source.length}, inside it`);
  return source.subarray(start, start + 32);
}

/** An unsigned number of at most `bytes` bytes, and at most 2^53 − 1. */
function unsigned(word: Uint8Array, bytes: number, fail: (why: string) => KeysteadError): number {
  if (!isZero(word.subarray(0, 32 - bytes))) throw fail(`the number takes more than ${bytes} bytes`);
  const value = Number.parseInt(bytesToHex(word.subarray(32 - bytes)), 16);
  if (!Number.isSafeInteger(value)) throw fail("the number is above 2^53 - 1");
  return value;
}
