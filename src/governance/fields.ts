import { getAddress, isAddress } from "ethers";
import type { Hex } from "../core/bytes.ts";
import type { KeysteadError } from "../core/errors.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue } from "../core/json.ts";

/** Makes the error of a field that breaks a rule. */
export type Refusal = (field: string, rule: string, found: unknown) => KeysteadError;

/** Readers of JSON fields, each of which takes one spelling of a value and no other. */
export interface FieldReaders {
  /** An object with exactly these keys. */
  object(value: JsonValue | undefined, field: string, keys: readonly string[]): JsonObject;
  list(value: JsonValue | undefined, field: string): readonly JsonValue[];
  matching(value: JsonValue | undefined, field: string, pattern: RegExp, rule: string): string;
  /** A decimal number in quotes, below 2^bits. */
  uint(value: JsonValue | undefined, field: string, bits: bigint): bigint;
  /** An address with its checksum. */
  address(value: JsonValue | undefined, field: string): string;
  /** Lower-case hex. */
  bytes(value: JsonValue | undefined, field: string, length?: number): Hex;
  /** One of a list of words. */
  oneOf<T extends string>(value: JsonValue | undefined, field: string, known: readonly T[]): T;
}

/**
 * Readers that refuse with errors of one file format.
 *
 * @example
 * const { object, uint } = fieldReaders(refuse);
 */
export function fieldReaders(refuse: Refusal): FieldReaders {
  const matching: FieldReaders["matching"] = (value, field, pattern, rule) => {
    if (typeof value !== "string" || !pattern.test(value)) throw refuse(field, rule, value);
    return value;
  };
  return {
    matching,
    object(value, field, keys) {
      if (!isJsonObject(value)) throw refuse(field, "must be an object", value);
      for (const key of Object.keys(value))
        if (!keys.includes(key)) throw refuse(`${field}.${key}`, "is not known", key);
      for (const key of keys) if (!Object.hasOwn(value, key)) throw refuse(`${field}.${key}`, "is missing", undefined);
      return value;
    },
    list(value, field) {
      if (!isJsonArray(value)) throw refuse(field, "must be a list", value);
      return value;
    },
    uint(value, field, bits) {
      const number = BigInt(matching(value, field, /^(0|[1-9]\d{0,77})$/, "must be a decimal number in quotes"));
      if (number >= 1n << bits) throw refuse(field, `must fit ${bits} bits`, value);
      return number;
    },
    address(value, field) {
      if (typeof value !== "string" || !isAddress(value) || getAddress(value) !== value) {
        throw refuse(field, "must be an address with its checksum", value);
      }
      return value;
    },
    bytes(value, field, length) {
      const fits =
        typeof value === "string" &&
        value.startsWith("0x") &&
        value.length % 2 === 0 &&
        (length === undefined || value.length === 2 + 2 * length) &&
        !/[^0-9a-f]/.test(value.slice(2));
      if (!fits) throw refuse(field, `must be ${length ?? "whole"} bytes of lower-case hex`, value);
      return `0x${value.slice(2)}`;
    },
    oneOf(value, field, known) {
      const found = known.find((word) => word === value);
      if (found === undefined) throw refuse(field, `must be one of ${known.join(", ")}`, value);
      return found;
    },
  };
}
