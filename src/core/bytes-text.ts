import { fromBase64, fromHex } from "./bytes.ts";
import { KeysteadError } from "./errors.ts";

/** How bytes are written as text. */
export type BytesEncoding = "hex" | "base64" | "base64url";

/** Bytes that were written as text. */
export interface BytesText {
  readonly encoding: BytesEncoding;
  readonly bytes: Uint8Array;
}

/**
 * Bytes written as text in one of the spellings that people have: hex (with or without `0x`), base64 or base64url (with or without its padding); with
 * quotes around them as JSON and shells leave them, hex with white space anywhere and base64 in lines. What can be read as hex is hex. Words with spaces
 * between them are not bytes, though their letters are base64's.
 *
 * @returns `undefined` for every other text
 * @example
 * readBytesText('"0x01ab"\n'); // { encoding: "hex", bytes: [1, 171] }
 */
export function readBytesText(text: string): BytesText | undefined {
  const bare = withoutQuotes(text.trim());
  const hex = bare.replace(/\s+/g, "");
  if (hex.length % 2 === 0 && /^(?:0x)?[0-9a-fA-F]+$/.test(hex))
    return { encoding: "hex", bytes: fromHex(hex, "text") };
  const digits = bare
    .split("\n")
    .map((line) => line.trim())
    .join("");
  const url = /[_-]/.test(digits) || (digits.length % 4 !== 0 && !digits.endsWith("="));
  if (!(url ? /^[A-Za-z0-9_-]+={0,2}$/ : /^[A-Za-z0-9+/]+={0,2}$/).test(digits)) return undefined;
  // RFC 4648 §5 leaves the padding out where the length is known, §4 does not.
  const standard = url ? digits.replaceAll("-", "+").replaceAll("_", "/").replace(/=+$/, "") : digits;
  const padded = url ? standard.padEnd(Math.ceil(standard.length / 4) * 4, "=") : standard;
  const bytes = attempt(() => fromBase64(padded, "text"));
  return bytes === undefined ? undefined : { encoding: url ? "base64url" : "base64", bytes };
}

/**
 * As {@link readBytesText}, where other text is an error: so it never reaches a parser of binary data, which would call it something that it is not.
 *
 * @param argument names the text in errors
 * @param what what is expected, e.g. `a TDX quote`
 * @throws KeysteadError `text/not-bytes`
 * @example
 * parseTdxQuote(decodeBytesText(text, "quote", "a TDX quote").bytes);
 */
export function decodeBytesText(text: string, argument: string, what: string): BytesText {
  const found = readBytesText(text);
  if (found !== undefined) return found;
  throw new KeysteadError("text/not-bytes", `${argument} is text that is neither hex nor base64`, {
    argument,
    remedy: `Give ${what}: binary, in hex or in base64, and nothing beside it.`,
    details: { starts: text.trim().slice(0, 24) },
  });
}

function withoutQuotes(text: string): string {
  const quoted = /^(["'`])(.*)\1$/.exec(text);
  return quoted?.[2] ?? text;
}

function attempt<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch {
    return undefined;
  }
}
