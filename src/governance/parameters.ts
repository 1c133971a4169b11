import { getAddress, isAddress } from "ethers";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { decodeImage, encodeImage, IMAGE_KINDS, type ImageUse, parseImage, TEE_KINDS } from "../core/image.ts";
import { MAX_NONCE } from "./safe-hash.ts";
import { roleIdByName, TCB_STATUSES } from "./words.ts";

/** What an argument of an intent may be. */
export type ParameterKind =
  | `image:${ImageUse}`
  | "tee"
  | "tcb"
  | "bytes32"
  | "devices"
  | "service"
  | "address"
  | "text"
  | "role"
  | "duration"
  | "time"
  | "boolean"
  | "epoch"
  | "wei"
  | "bytes"
  | "contract";

/** PlatformPolicy.MAX_TEXT and ServiceStore.MAX_TEXT, in bytes of UTF-8. */
const MAX_TEXT = 512;
/** contracts/types/TcbStatus.sol, ACCEPTABLE. */
const ACCEPTABLE_TCB = 0x03bfn;

const refuse = (name: string, rule: string, found: string, remedy: string) =>
  new KeysteadError("intent/bad-argument", `${name} ${rule}; found ${JSON.stringify(found.slice(0, 100))}`, {
    argument: name,
    remedy,
    details: { name },
  });

type Parser = (text: string, name: string) => unknown;

const image =
  (use: ImageUse): Parser =>
  (text, name) => {
    if (!text.startsWith("0x")) return toHex(encodeImage(parseImage(text, use)));
    const bytes = fromHex(text, name);
    decodeImage(bytes, use);
    return toHex(bytes);
  };

const bytesOf =
  (length?: number): Parser =>
  (text, name) => {
    if (!text.startsWith("0x")) throw refuse(name, "must start with 0x", text, "Give hex digits after 0x.");
    const bytes = fromHex(text, name);
    if (length !== undefined && bytes.length !== length) {
      throw refuse(name, `must have ${length} bytes`, text, `Give ${2 * length} hex digits after 0x.`);
    }
    return toHex(bytes);
  };

const whole =
  (max: bigint, unit: string): Parser =>
  (text, name) => {
    if (!/^(0|[1-9]\d{0,77})$/.test(text) || BigInt(text) > max) {
      throw refuse(name, `must be ${unit}, at most ${max}`, text, "Give a whole decimal number.");
    }
    return BigInt(text);
  };

const UNITS: Readonly<Record<string, bigint>> = { s: 1n, min: 60n, h: 3600n, d: 86_400n };

/**
 * Seconds, given as such or with a unit: s, min, h, d.
 *
 * @throws KeysteadError `intent/bad-argument`
 * @example
 * parseDuration("48h", "delay"); // 172800n
 */
export function parseDuration(text: string, name: string): bigint {
  const match = /^(0|[1-9]\d{0,14})(s|min|h|d)?$/.exec(text);
  if (match === null) throw refuse(name, "must be a duration", text, "Give seconds, or a number with s, min, h or d.");
  return BigInt(match[1] ?? "0") * (UNITS[match[2] ?? "s"] ?? 1n);
}

function parseTcb(text: string, name: string): bigint {
  const bits = text.split(",").map((status) => {
    const bit = TCB_STATUSES.indexOf(status.trim());
    if (bit === -1) {
      throw refuse(name, "must name TCB statuses", text, `Give some of ${TCB_STATUSES.join(", ")}, with commas.`);
    }
    return 1n << BigInt(bit);
  });
  const set = bits.reduce((all, bit) => all | bit, 0n);
  if ((set & ~ACCEPTABLE_TCB) !== 0n) {
    throw refuse(name, "must not hold Revoked: the contract never accepts it", text, "Leave Revoked out.");
  }
  return set;
}

/**
 * An address; one in mixed case must have the right checksum.
 *
 * @throws KeysteadError `intent/bad-argument`
 * @example
 * parseAddress("0xA83c336B20401Af773B6219BA5027174338D1836", "safe");
 */
export function parseAddress(text: string, name: string): string {
  if (!text.startsWith("0x") || !isAddress(text)) {
    throw refuse(
      name,
      "must be an address",
      text,
      "Give 40 hex digits after 0x, with their checksum or in lower case.",
    );
  }
  return getAddress(text);
}

/**
 * A nonce of a Safe.
 *
 * @throws KeysteadError `intent/bad-argument`
 * @example
 * parseNonce("12"); // 12n
 */
export const parseNonce = (text: string, name = "nonce"): bigint => whole(MAX_NONCE, "a nonce")(text, name) as bigint;

const PARSERS: Readonly<Record<ParameterKind, Parser>> = {
  "image:platform": image("platform"),
  "image:sealed": image("sealed"),
  "image:service": image("service"),
  tee: (text, name) => {
    const kind = TEE_KINDS.find((known) => known === text);
    if (kind === undefined) throw refuse(name, "must be a TEE kind", text, `Give one of ${TEE_KINDS.join(", ")}.`);
    return BigInt(IMAGE_KINDS[kind].byte);
  },
  tcb: parseTcb,
  bytes32: bytesOf(32),
  devices: (text, name) => (text === "" ? [] : text.split(",").map((item) => bytesOf(32)(item.trim(), name))),
  service: bytesOf(20),
  bytes: bytesOf(),
  address: parseAddress,
  text: (text, name) => {
    const length = new TextEncoder().encode(text).length;
    if (length > MAX_TEXT) {
      throw refuse(name, `has ${length} bytes, more than the contract takes`, text, `Give at most ${MAX_TEXT} bytes.`);
    }
    return text;
  },
  role: (text, name) => {
    const id = roleIdByName(text);
    if (id === undefined) throw refuse(name, "must be a role", text, "Give its name, e.g. GUARDIAN_ROLE.");
    return id;
  },
  duration: parseDuration,
  time: whole((1n << 40n) - 1n, "seconds since 1970"),
  epoch: whole((1n << 16n) - 1n, "an epoch"),
  wei: whole((1n << 256n) - 1n, "wei"),
  boolean: (text, name) => {
    if (text !== "true" && text !== "false") throw refuse(name, "must be true or false", text, "Give one of the two.");
    return text === "true";
  },
  contract: (text, name) => {
    if (text !== "policy" && text !== "registry" && text !== "timelock") {
      throw refuse(name, "must be policy, registry or timelock", text, "Give one of the three.");
    }
    return text;
  },
};

/**
 * One argument of an intent, from text.
 *
 * @throws KeysteadError `intent/bad-argument` {name}, and those of the image and hex parsers
 * @example
 * parseParameter("tee", "tdx", "kind"); // 1n
 */
export function parseParameter(kind: ParameterKind, text: string, name: string): unknown {
  return PARSERS[kind](text, name);
}

/** Bytes that {@link parseParameter} gave. */
export const asHex = (value: unknown): Hex => toHex(fromHex(String(value), "value"));
