/*
 * Text from the chain on its way to people. Anyone may write a description; what it holds must neither steer a terminal nor reorder a line.
 */

/**
 * Controls, line and paragraph separators, formatting characters (bidirectional and zero-width among them), lone surrogates, private use; everything
 * that Unicode lets a renderer leave out (Hangul fillers, joiners, variation selectors), the blank of Braille, and every space but the common one.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]|(?! )\p{Zs}/gu;

/** A mark on a letter of an alphabet that is written without any, or more marks than any script stacks: it covers what is beside it. */
const STACKED = /(?<=[^\p{L}\p{M}]|^|[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}]|\p{M}{2})\p{M}+/gu;

const escapeAll = (text: string): string =>
  [...text].map((char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`).join("");

/**
 * Text with everything that is not seen as itself written as `\u{…}`.
 *
 * @param keepLines line feeds stay: for text that has lines of its own
 * @example
 * visible("red \u001b[31m"); // "red \\u{1b}[31m"
 */
export function visible(text: string, keepLines = false): string {
  return text
    .replace(UNPRINTABLE, (char) => (keepLines && char === "\n" ? char : escapeAll(char)))
    .replace(STACKED, escapeAll);
}

/** An emoji of several characters, which are joined by some that are not seen. */
const EMOJI = /\p{Extended_Pictographic}\ufe0f?(?:\u200d\p{Extended_Pictographic}\ufe0f?)*/gu;

/**
 * What a text holds that is not seen, or covers what is beside it: each character once, as `U+3164`. Spaces, line feeds and emoji are none.
 *
 * @example
 * hiddenIn("a\u3164b"); // ["U+3164"]
 */
export function hiddenIn(text: string): readonly string[] {
  const bare = text.replace(EMOJI, "").replace(/[\p{Zs}\n]/gu, " ");
  const found = [...(bare.match(UNPRINTABLE) ?? []), ...(bare.match(STACKED) ?? [])].flatMap((part) => [...part]);
  return [...new Set(found)].map(
    (char) => `U+${(char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`,
  );
}

/** Letters of Cyrillic and Greek that look like Latin ones: a word of nothing else is not what it seems. */
const TWINS = new RegExp(
  `^[${[
    "\u0410\u0412\u0415\u0405\u0406\u0408\u041a\u041c-\u041e\u0420-\u0423\u0425",
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u0501\u051b\u051d",
    "\u0391\u0392\u0395-\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf",
  ].join("")}]{2,}$`,
  "u",
);
/** Alphabets of which some letters look like another's. */
const SIMILAR = [
  ...[/\p{Script=Latin}/u, /\p{Script=Cyrillic}/u, /\p{Script=Greek}/u],
  ...[/\p{Script=Armenian}/u, /\p{Script=Cherokee}/u],
];
/** Latin letters in disguise: full-width and mathematical ones. */
const DISGUISED = /[\uff21-\uff3a\uff41-\uff5a\u{1d400}-\u{1d7ff}\u2100-\u214f]/u;

/**
 * Words that look like others: of two alphabets, of letters that all have a Latin twin, or of Latin letters in disguise.
 *
 * @example
 * lookalikeWords("r\u0435voke"); // ["r\u0435voke"], with a Cyrillic e
 */
export function lookalikeWords(text: string): readonly string[] {
  return (text.match(/[\p{L}\p{N}]+/gu) ?? []).filter(
    (word) => SIMILAR.filter((script) => script.test(word)).length > 1 || TWINS.test(word) || DISGUISED.test(word),
  );
}

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
  const shown = visible(text);
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
