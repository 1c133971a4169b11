/*
 * Text from the chain on its way to people. Anyone may write a description; what it holds must neither steer a terminal nor reorder a line.
 */

/** Controls, line and paragraph separators, formatting characters (bidirectional and zero-width among them), lone surrogates. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/**
 * Untrusted text with every character that is not seen as itself written as `\u{…}`, cut at a length.
 *
 * It makes text harmless for a terminal and for plain lines; markup is the renderer's business (write it as text, never as HTML).
 *
 * @param longest the most characters that are kept; an ellipsis takes the place of the rest
 * @example
 * printable("red \u001b[31m"); // "red \\u{1b}[31m"
 */
export function printable(text: string, longest = Number.POSITIVE_INFINITY): string {
  const shown = text.replace(UNPRINTABLE, (char) => `\\u{${char.codePointAt(0)?.toString(16)}}`);
  if (shown.length <= longest) return shown;
  const characters = [...shown];
  return characters.length <= longest ? shown : `${characters.slice(0, longest - 1).join("")}…`;
}

/**
 * JSON whose bytes are harmless wherever they end up, a terminal or a page: markup characters and those that are not seen as themselves become `\u`
 * escapes, which any reader of JSON turns back into the same text.
 *
 * @param json as `JSON.stringify` writes it
 * @example
 * escapeJson(JSON.stringify("<b>")); // the text "\\u003cb\\u003e" in quotes
 */
export function escapeJson(json: string): string {
  return json.replace(/[<>&\u007f-\u009f\p{Cf}\p{Zl}\p{Zp}]/gu, (char) =>
    [...Array(char.length).keys()].map((at) => `\\u${char.charCodeAt(at).toString(16).padStart(4, "0")}`).join(""),
  );
}
