import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js";
import { KeysteadError } from "./errors.ts";

/** Bytes as lower-case hex digits after `0x`. */
export type Hex = `0x${string}`;

/**
 * Bytes as lower-case hex with `0x`.
 *
 * @example
 * toHex(Uint8Array.of(1, 0xab)); // "0x01ab"
 */
export function toHex(bytes: Uint8Array): Hex {
  return `0x${bytesToHex(bytes)}`;
}

/**
 * Hex digits, of either case, with or without `0x`, as bytes.
 *
 * @param argument names the value in errors
 * @throws KeysteadError `hex/malformed` unless the text is an even number of hex digits and nothing else
 * @example
 * fromHex("0x01ab", "image"); // Uint8Array [1, 171]
 */
export function fromHex(text: string, argument: string): Uint8Array {
  const digits = text.startsWith("0x") ? text.slice(2) : text;
  const bad = /[^0-9a-fA-F]/.exec(digits);
  if (bad !== null || digits.length % 2 !== 0) {
    const what =
      bad === null ? `${digits.length} hex digits, an odd number` : `a character that is no hex digit at ${bad.index}`;
    throw new KeysteadError("hex/malformed", `${argument} is not hex: it has ${what}`, {
      argument,
      remedy: "Give an even number of hex digits, with or without 0x.",
    });
  }
  return hexToBytes(digits);
}

/**
 * Standard base64 (RFC 4648 §4) with its padding, without white space, as bytes. Only the canonical spelling is taken.
 *
 * @param argument names the value in errors
 * @throws KeysteadError `base64/malformed`
 * @example
 * fromBase64("AQI=", "report"); // Uint8Array [1, 2]
 */
export function fromBase64(text: string, argument: string): Uint8Array {
  const malformed = () =>
    new KeysteadError("base64/malformed", `${argument} is not canonical base64`, {
      argument,
      remedy: "Give standard base64 (A–Z, a–z, 0–9, + and /) with its = padding and nothing around it.",
    });
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw malformed();
  const binary = atob(text);
  const last = text.slice(-4);
  if (
    last !== "" &&
    btoa(binary.slice(binary.length - (last.endsWith("==") ? 1 : last.endsWith("=") ? 2 : 3))) !== last
  )
    throw malformed();
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

/**
 * Bytes as text, strictly UTF-8; a byte order mark stays in the text.
 *
 * @param argument names the value in errors
 * @throws KeysteadError `text/not-utf8`
 * @example
 * decodeUtf8(Uint8Array.of(0x61), "compose"); // "a"
 */
export function decodeUtf8(bytes: Uint8Array, argument: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new KeysteadError("text/not-utf8", `${argument} is not UTF-8 text`, {
      argument,
      remedy: "Save the file as UTF-8 and give it again.",
      cause,
    });
  }
}

/**
 * Joins byte strings.
 *
 * @example
 * concatBytes(Uint8Array.of(1), Uint8Array.of(2, 3)); // Uint8Array [1, 2, 3]
 */
export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  return joinBytes(parts);
}

/**
 * Joins byte strings of a list, however many: as arguments of a function a hundred thousand do not fit the stack.
 *
 * @example
 * joinBytes([Uint8Array.of(1), Uint8Array.of(2, 3)]); // Uint8Array [1, 2, 3]
 */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/**
 * Whether two byte strings are the same. For public values: it does not run in constant time.
 *
 * @example
 * equalBytes(Uint8Array.of(1), Uint8Array.of(1)); // true
 */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

/**
 * Whether every byte is zero (true of no bytes at all).
 *
 * @example
 * isZero(new Uint8Array(48)); // true
 */
export function isZero(bytes: Uint8Array): boolean {
  for (const byte of bytes) if (byte !== 0) return false;
  return true;
}

/**
 * Reads a byte string from front to back. Every step is bounds-checked: past the end it throws a `KeysteadError` with code
 * `bytes/truncated`, never a `RangeError`, and nothing is allocated that the input does not hold.
 *
 * @example
 * const reader = new Reader(bytes, "quote");
 * const version = reader.u16le("header.version");
 */
export class Reader {
  /** The whole input. */
  readonly source: Uint8Array;
  /** Where the next read starts, in bytes. */
  offset = 0;
  readonly #argument: string;
  readonly #view: DataView;

  /** @param argument names the input in errors */
  constructor(source: Uint8Array, argument: string) {
    this.source = source;
    this.#argument = argument;
    this.#view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  }

  /** How many bytes are left. */
  get remaining(): number {
    return this.source.length - this.offset;
  }

  /** The next `count` bytes, as a view on the input (not a copy). */
  bytes(count: number, field = "bytes"): Uint8Array {
    const start = this.#advance(count, field);
    return this.source.subarray(start, start + count);
  }

  /** Passes over `count` bytes. */
  skip(count: number, field = "bytes"): void {
    this.#advance(count, field);
  }

  u8(field = "u8"): number {
    return this.#view.getUint8(this.#advance(1, field));
  }

  u16le(field = "u16"): number {
    return this.#view.getUint16(this.#advance(2, field), true);
  }

  u16be(field = "u16"): number {
    return this.#view.getUint16(this.#advance(2, field), false);
  }

  u32le(field = "u32"): number {
    return this.#view.getUint32(this.#advance(4, field), true);
  }

  u32be(field = "u32"): number {
    return this.#view.getUint32(this.#advance(4, field), false);
  }

  u64le(field = "u64"): bigint {
    return this.#view.getBigUint64(this.#advance(8, field), true);
  }

  u64be(field = "u64"): bigint {
    return this.#view.getBigUint64(this.#advance(8, field), false);
  }

  #advance(count: number, field: string): number {
    if (!Number.isSafeInteger(count) || count < 0 || count > this.remaining) {
      throw new KeysteadError(
        "bytes/truncated",
        `${this.#argument} ends too early: ${field} at byte ${this.offset} takes ${count} bytes and ${this.remaining} are left`,
        {
          argument: this.#argument,
          remedy: "Give the whole file: it may have been cut off, or be of another kind.",
          details: { field, offset: this.offset, wanted: count, remaining: this.remaining },
        },
      );
    }
    const start = this.offset;
    this.offset += count;
    return start;
  }
}
