import { concatBytes, type Hex, Reader, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";

/*
 * The part of DER (ITU-T X.690 §10) that certificates' vendor extensions and revocation lists need: definite lengths in their shortest form and
 * single-byte tags. A BER reader takes several spellings of one value; what is signed is one.
 */

/** One element: its tag, its contents, and all of its bytes (views on the input). */
export interface DerItem {
  readonly tag: number;
  readonly value: Uint8Array;
  readonly bytes: Uint8Array;
}

export const DER_INTEGER = 0x02;
export const DER_BIT_STRING = 0x03;
export const DER_OCTET_STRING = 0x04;
export const DER_OID = 0x06;
export const DER_SEQUENCE = 0x30;

const malformed = (argument: string, what: string, offset: number) =>
  new KeysteadError("der/malformed", `${argument} is not DER: ${what} at byte ${offset}`, {
    argument,
    remedy: "Give the DER bytes exactly as the issuer published them.",
    details: { offset },
  });

function readItem(reader: Reader, argument: string): DerItem {
  const start = reader.offset;
  const tag = reader.u8("DER tag");
  if ((tag & 0x1f) === 0x1f) throw malformed(argument, "a tag of several bytes", start);
  const first = reader.u8("DER length");
  let length = first;
  if (first >= 0x80) {
    const count = first - 0x80;
    if (count === 0 || count > 3) throw malformed(argument, "an indefinite or oversized length", start);
    length = 0;
    for (const byte of reader.bytes(count, "DER length")) length = length * 256 + byte;
    const shortest = length < 0x80 ? 0 : length < 0x100 ? 1 : length < 0x1_0000 ? 2 : 3;
    if (shortest !== count) throw malformed(argument, "a length that is longer than needed", start);
  }
  const value = reader.bytes(length, "DER contents");
  return { tag, value, bytes: reader.source.subarray(start, reader.offset) };
}

/**
 * A SEQUENCE of elements that were read.
 *
 * @example
 * encodeDerSequence(readDer(bytes, "serial").bytes);
 */
export function encodeDerSequence(...items: readonly Uint8Array[]): Uint8Array {
  const value = concatBytes(...items);
  const { length } = value;
  const count = length < 0x80 ? 0 : length < 0x100 ? 1 : length < 0x1_0000 ? 2 : 3;
  const head = [length >> 16, (length >> 8) & 0xff, length & 0xff].slice(3 - Math.max(count, 1));
  return concatBytes(Uint8Array.of(DER_SEQUENCE, ...(count === 0 ? [] : [0x80 + count]), ...head), value);
}

/**
 * Reads exactly one element.
 *
 * @param argument names the input in errors
 * @throws KeysteadError `der/malformed` {offset}, `der/trailing-bytes` {offset}, `bytes/truncated`
 * @example
 * readDer(Uint8Array.of(2, 1, 5), "serial"); // { tag: 2, value: [5], … }
 */
export function readDer(bytes: Uint8Array, argument: string): DerItem {
  const reader = new Reader(bytes, argument);
  const item = readItem(reader, argument);
  if (reader.remaining > 0) {
    throw new KeysteadError("der/trailing-bytes", `${argument}: ${reader.remaining} bytes follow the DER element`, {
      argument,
      remedy: "Give the DER bytes alone.",
      details: { offset: reader.offset },
    });
  }
  return item;
}

/**
 * The elements inside a constructed one, in order.
 *
 * @throws KeysteadError as {@link readDer}, and `der/malformed` where `item` has another tag than `tag`
 * @example
 * readDerList(readDer(Uint8Array.of(0x30, 3, 2, 1, 5), "list"), "list").length; // 1
 */
export function readDerList(
  item: DerItem | undefined,
  argument: string,
  tag: number = DER_SEQUENCE,
): readonly DerItem[] {
  if (item === undefined || item.tag !== tag)
    throw malformed(argument, `no element of tag ${tag} where one belongs`, 0);
  const reader = new Reader(item.value, argument);
  const items: DerItem[] = [];
  while (reader.remaining > 0) items.push(readItem(reader, argument));
  return items;
}

/**
 * An object identifier in dotted form.
 *
 * @throws KeysteadError `der/malformed`
 * @example
 * readDerOid(readDer(Uint8Array.of(6, 3, 0x55, 0x1d, 0x14), "oid"), "oid"); // "2.5.29.20"
 */
export function readDerOid(item: DerItem | undefined, argument: string): string {
  if (item === undefined || item.tag !== DER_OID || item.value.length === 0)
    throw malformed(argument, "no object identifier where one belongs", 0);
  const arcs: number[] = [];
  let arc = 0;
  item.value.forEach((byte, index) => {
    if (arc === 0 && byte === 0x80) throw malformed(argument, "an identifier that is longer than needed", index);
    arc = arc * 128 + (byte & 0x7f);
    if (!Number.isSafeInteger(arc)) throw malformed(argument, "an identifier that is too large", index);
    if (byte < 0x80) {
      arcs.push(arc);
      arc = 0;
    } else if (index === item.value.length - 1) throw malformed(argument, "an identifier that ends early", index);
  });
  const [head = 0, ...rest] = arcs;
  const top = Math.min(2, Math.floor(head / 40));
  return [top, head - 40 * top, ...rest].join(".");
}

/**
 * A non-negative integer of at most four bytes.
 *
 * @throws KeysteadError `der/malformed`
 * @example
 * readDerUint(readDer(Uint8Array.of(2, 2, 0, 0xdc), "svn"), "svn"); // 220
 */
export function readDerUint(item: DerItem | undefined, argument: string): number {
  const value = readDerIntegerBytes(item, argument);
  if ((value[0] ?? 0) >= 0x80 || value.length > 5) throw malformed(argument, "a negative or oversized integer", 0);
  return value.reduce((number, byte) => number * 256 + byte, 0);
}

/**
 * A serial number as lower-case hex without leading zeros (`0x0` for zero): the form in which serials are compared.
 *
 * @throws KeysteadError `der/malformed`
 * @example
 * readDerSerial(readDer(Uint8Array.of(2, 2, 0, 0xfc), "serial"), "serial"); // "0xfc"
 */
export function readDerSerial(item: DerItem | undefined, argument: string): Hex {
  const digits = toHex(readDerIntegerBytes(item, argument)).slice(2).replace(/^0+/, "");
  return `0x${digits === "" ? "0" : digits}`;
}

function readDerIntegerBytes(item: DerItem | undefined, argument: string): Uint8Array {
  if (item === undefined || item.tag !== DER_INTEGER || item.value.length === 0)
    throw malformed(argument, "no integer where one belongs", 0);
  const [first = 0, second] = item.value;
  if (second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80)))
    throw malformed(argument, "an integer that is longer than needed", 0);
  return item.value;
}
