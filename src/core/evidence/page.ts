import { decodeUtf8 } from "../bytes.ts";
import { isKeysteadError, KeysteadError } from "../errors.ts";

/*
 * Web servers that answer with a page where a file was meant: old SecretVM machines wrap the compose file and the quote so (`/docker-compose`, `/cpu.html`), a
 * login page or an error page comes instead of a download. A page is never measured: its bytes are not those that a machine measured.
 *
 * SecretVM's page has the file in its one `<pre>`, with HTML's special characters as references, and a zero-width space after it.
 */

const ENTITIES: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };
const ZERO_WIDTH_SPACE = "\u200b";
const REMEDY = "Download the file itself: the same address without .html, or with Accept: text/plain.";

/**
 * Whether a file is a web page, or begins like one.
 *
 * @example
 * isPage(bytes); // true for "<!DOCTYPE html>…"
 */
export function isPage(bytes: Uint8Array): boolean {
  const start = new TextDecoder().decode(bytes.subarray(0, 1024)).trimStart();
  return (
    /^<(?:!doctype\s+html|html|head|body|pre|title|meta|script|\?xml|!--)\b/i.test(start) || start.startsWith("<!--")
  );
}

/**
 * The file that a page wraps in its only `<pre>`, byte for byte.
 *
 * @returns undefined if the bytes are not a page
 * @throws KeysteadError `input/page` if they are a page that does not hold exactly one file in a form that can be undone
 * @example
 * const compose = unwrapPage(bytes, "compose") ?? bytes;
 */
export function unwrapPage(bytes: Uint8Array, argument: string): Uint8Array | undefined {
  if (!isPage(bytes)) return undefined;
  const refuse = (why: string) =>
    new KeysteadError("input/page", `${argument} is a web page, ${why}: it is not measured`, {
      argument,
      remedy: REMEDY,
    });
  let page: string;
  try {
    page = decodeUtf8(bytes, argument);
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    throw refuse("and not UTF-8");
  }
  const blocks = [...page.matchAll(/<pre(?:\s[^<>]*)?>([\s\S]*?)<\/pre\s*>/gi)];
  const [block] = blocks;
  if (block === undefined) throw refuse("without a file in it");
  if (blocks.length > 1 || (page.match(/<pre[\s>]/gi) ?? []).length > 1)
    throw refuse("with more than one block of text");
  const inside = (block[1] ?? "").replace(new RegExp(`${ZERO_WIDTH_SPACE}$`), "");
  if (inside.includes("<") || inside.includes(ZERO_WIDTH_SPACE))
    throw refuse("and its block of text has markup of its own");
  // HTML passes over a line break at the start: whether the file begins with one cannot be told.
  if (/^[\r\n]/.test(inside)) throw refuse("whose block of text begins with a line break that the file may not have");
  const text = inside.replace(
    /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-zA-Z]+));?|&/g,
    (whole, decimal, hex, name) => {
      const code = decimal !== undefined ? Number(decimal) : hex !== undefined ? Number.parseInt(hex, 16) : undefined;
      const known =
        code === undefined ? ENTITIES[name ?? ""] : code <= 0x10ffff ? String.fromCodePoint(code) : undefined;
      if (known === undefined || !whole.endsWith(";")) throw refuse("with a character reference that is not known");
      return known;
    },
  );
  if (!text.isWellFormed() || text.trim() === "") throw refuse("without a file in it");
  return new TextEncoder().encode(text);
}

/**
 * Refuses a page where its bytes would be measured.
 *
 * @throws KeysteadError `input/page`
 * @example
 * refusePage(kernel, "--kernel");
 */
export function refusePage(bytes: Uint8Array, argument: string): void {
  if (!isPage(bytes)) return;
  throw new KeysteadError("input/page", `${argument} is a web page: it is not measured`, { argument, remedy: REMEDY });
}
