import { KeysteadError } from "./errors.ts";

/** What JSON can hold, once parsed. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
/** A JSON object, once parsed. */
export interface JsonObject {
  readonly [key: string]: JsonValue;
}

/** Deeper nesting than any document this project reads. */
const MAX_DEPTH = 64;

/**
 * Reads JSON (RFC 8259) strictly: an object that has a key twice is refused, where `JSON.parse` lets the last one win and another reader the
 * first, and so is nesting past 64 levels.
 *
 * @param argument names the input in errors
 * @throws KeysteadError `json/malformed`, `json/duplicate-key` {key}, `json/too-deep`
 * @example
 * parseJson('{"PCR0":"00"}', "pcrs");
 */
export function parseJson(text: string, argument: string): JsonValue {
  let value: JsonValue;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new KeysteadError("json/malformed", `${argument} is not JSON`, {
      argument,
      remedy: "Give one JSON document (without comments, byte order mark or text around it).",
      cause,
    });
  }
  checkKeys(text, argument);
  return value;
}

/** Walks the tokens of text that is known to be JSON, character by character: a pattern over a long string runs out of stack. */
function checkKeys(text: string, argument: string): void {
  const open: (Set<string> | undefined)[] = [];
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === "{" || char === "[") {
      open.push(char === "{" ? new Set() : undefined);
      if (open.length > MAX_DEPTH) {
        throw new KeysteadError("json/too-deep", `${argument} nests deeper than ${MAX_DEPTH} levels`, {
          argument,
          remedy: "Give the document itself: nothing that is read here nests so deep.",
        });
      }
    } else if (char === "}" || char === "]") open.pop();
    else if (char === '"') {
      const end = closingQuote(text, at);
      const keys = open.at(-1);
      if (keys !== undefined && followedByColon(text, end)) {
        const key: unknown = JSON.parse(text.slice(at, end + 1));
        if (typeof key === "string") addKey(keys, key, argument);
      }
      at = end;
    }
  }
}

function addKey(keys: Set<string>, key: string, argument: string): void {
  if (keys.has(key)) {
    throw new KeysteadError(
      "json/duplicate-key",
      `${argument} has the key ${JSON.stringify(key)} twice in one object`,
      {
        argument,
        remedy: "Remove one of the two: readers disagree about which one counts.",
        details: { key },
      },
    );
  }
  keys.add(key);
}

/** The next quote that an even number of backslashes, mostly none, stands before. */
function closingQuote(text: string, open: number): number {
  for (let end = text.indexOf('"', open + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let from = end;
    while (text[from - 1] === "\\") from--;
    if ((end - from) % 2 === 0) return end;
  }
  return text.length;
}

function followedByColon(text: string, end: number): boolean {
  let at = end + 1;
  while (at < text.length && " \t\n\r".includes(text[at] ?? "")) at++;
  return text[at] === ":";
}

/**
 * Whether a JSON value is an array.
 *
 * @example
 * if (isJsonArray(value)) value.length;
 */
export function isJsonArray(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value);
}

/**
 * Whether a JSON value is an object.
 *
 * @example
 * if (isJsonObject(value)) value["PCR0"];
 */
export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
