import { decodeUtf8, Reader } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";

/*
 * The part of CBOR (RFC 8949) that attestation documents use, read strictly: definite lengths only (but for the one map that a caller names, see
 * RootForm), every length and integer in its shortest form, no tags, no floats, no simple values but null, no key twice in a map, keys that are integers or text, bounded depth, nothing after the
 * item. What is signed is the bytes, and they can be read in one way only. General decoders accept several of these by default, and build maps
 * whose size the input only claims; this one allocates nothing that the input does not hold.
 */

/** What strict CBOR can hold. Integers are `bigint`; byte strings are views on the input. */
export type CborValue = bigint | Uint8Array | string | null | readonly CborValue[] | CborMap;
/** A CBOR map; keys in the order of the input. */
export type CborMap = ReadonlyMap<bigint | string, CborValue>;

/**
 * How the root item may be written. `indefinite-map`: also as a map of indefinite length (`bf … ff`), as the Nitro Security Module writes its payload
 * since mid-2025. What is inside of it is definite in all documents that it writes, and must be.
 */
export type RootForm = "definite" | "indefinite-map";

const INDEFINITE_MAP = 0xbf;
const BREAK = 0xff;

/** An attestation document nests three deep. */
const MAX_DEPTH = 8;

/**
 * Reads exactly one CBOR item.
 *
 * @param argument names the input in errors
 * @param root how the root item may be written
 * @throws KeysteadError `cbor/not-canonical` {offset}, `cbor/unsupported` {offset}, `cbor/duplicate-key` {offset, key}, `cbor/too-deep`,
 * `cbor/trailing-bytes` {offset}, `bytes/truncated`, `text/not-utf8`
 * @example
 * decodeCbor(Uint8Array.of(0x83, 1, 0x20, 0xf6), "document"); // [1n, -1n, null]
 */
export function decodeCbor(bytes: Uint8Array, argument: string, root: RootForm = "definite"): CborValue {
  const reader = new Reader(bytes, argument);
  const indefinite = root === "indefinite-map" && bytes[0] === INDEFINITE_MAP;
  const value = indefinite ? readIndefiniteMap(reader, argument) : readItem(reader, argument, 0);
  if (reader.remaining > 0) {
    throw refuse("trailing-bytes", argument, `${reader.remaining} bytes follow the CBOR item`, {
      offset: reader.offset,
    });
  }
  return value;
}

function refuse(
  code: string,
  argument: string,
  what: string,
  details: Readonly<Record<string, unknown>>,
): KeysteadError {
  return new KeysteadError(`cbor/${code}`, `${argument}: ${what}`, {
    argument,
    remedy: "Give the document exactly as the enclave got it: it is not written in the one form that is accepted.",
    details,
  });
}

function readItem(reader: Reader, argument: string, depth: number): CborValue {
  const offset = reader.offset;
  if (depth > MAX_DEPTH) throw refuse("too-deep", argument, `CBOR nests deeper than ${MAX_DEPTH} levels`, { offset });
  const initial = reader.u8("CBOR item");
  const major = initial >> 5;
  const info = initial & 0x1f;
  if (major === 7) {
    if (info === 22) return null;
    throw refuse("unsupported", argument, `a float or simple value at byte ${offset}`, { offset });
  }
  if (major === 6) throw refuse("unsupported", argument, `a tag at byte ${offset}`, { offset });
  const size = readSize(reader, argument, info, offset);
  if (major === 0) return size;
  if (major === 1) return -1n - size;
  // An array's item takes a byte at least, a map's entry two: a claim past that is past the end.
  if (size > BigInt(reader.remaining)) return reader.bytes(Number.POSITIVE_INFINITY, "CBOR length");
  const count = Number(size);
  if (major === 2) return reader.bytes(count, "byte string");
  if (major === 3) return decodeUtf8(reader.bytes(count, "text"), argument);
  if (major === 4) {
    const items: CborValue[] = [];
    for (let index = 0; index < count; index += 1) items.push(readItem(reader, argument, depth + 1));
    return items;
  }
  const map = new Map<bigint | string, CborValue>();
  for (let index = 0; index < count; index += 1) readEntry(reader, argument, depth, map);
  return map;
}

/** The entries up to the break; a break where a value belongs is no item. */
function readIndefiniteMap(reader: Reader, argument: string): CborMap {
  reader.skip(1, "CBOR item");
  const map = new Map<bigint | string, CborValue>();
  while (reader.source[reader.offset] !== BREAK) readEntry(reader, argument, 0, map);
  reader.skip(1, "break");
  return map;
}

function readEntry(reader: Reader, argument: string, depth: number, map: Map<bigint | string, CborValue>): void {
  const offset = reader.offset;
  const key = readItem(reader, argument, depth + 1);
  if (typeof key !== "bigint" && typeof key !== "string") {
    throw refuse("unsupported", argument, `a map key at byte ${offset} that is neither integer nor text`, { offset });
  }
  if (map.has(key)) {
    throw refuse("duplicate-key", argument, `the key ${JSON.stringify(String(key))} is twice in one map`, {
      offset,
      key: String(key),
    });
  }
  map.set(key, readItem(reader, argument, depth + 1));
}

function readSize(reader: Reader, argument: string, info: number, offset: number): bigint {
  if (info < 24) return BigInt(info);
  if (info > 27)
    throw refuse("not-canonical", argument, `an indefinite or reserved length at byte ${offset}`, { offset });
  const [size, least] =
    info === 24
      ? [BigInt(reader.u8("CBOR length")), 24n]
      : info === 25
        ? [BigInt(reader.u16be("CBOR length")), 0x100n]
        : info === 26
          ? [BigInt(reader.u32be("CBOR length")), 0x1_0000n]
          : [reader.u64be("CBOR length"), 0x1_0000_0000n];
  if (size < least)
    throw refuse("not-canonical", argument, `an integer at byte ${offset} that is longer than needed`, { offset });
  return size;
}
