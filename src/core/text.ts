import { decodeUtf8 } from "./bytes.ts";
import { isKeysteadError } from "./errors.ts";
import type { Finding } from "./measurement.ts";
import { visible } from "./printable.ts";

/**
 * What is unusual about the bytes of a text file whose hash counts: things that an editor, a version control system or a copy over another
 * machine changes without anyone seeing it. The bytes are measured as they are; these are warnings.
 *
 * @param name the file, as the user named it
 * @example
 * textFindings(bytes, "docker-compose.yaml").map(({ code }) => code); // ["text/crlf"]
 */
export function textFindings(bytes: Uint8Array, name: string): readonly Finding[] {
  const findings: Finding[] = [];
  const warn = (code: string, message: string) => findings.push({ code, severity: "warning", message });
  if (bytes.length === 0) warn("text/empty", `${name} is empty`);
  let text: string;
  try {
    text = decodeUtf8(bytes, name);
  } catch (error) {
    if (!isKeysteadError(error, "text/not-utf8")) throw error;
    warn("text/not-utf8", `${name} is not UTF-8; its exact bytes were measured, but tools may refuse or convert it`);
    text = new TextDecoder("latin1").decode(bytes);
  }
  if (text.startsWith("\ufeff")) {
    warn("text/byte-order-mark", `${name} starts with a byte order mark, which was measured too`);
  }
  const returns = text.split("\r\n").length - 1;
  if (returns > 0) {
    warn(
      "text/crlf",
      `${name} has ${returns} lines that end in CR LF; git or an editor may change them, and so the hash`,
    );
  }
  if (text !== "" && !text.endsWith("\n")) {
    warn("text/no-final-newline", `${name} does not end with a newline; an editor that adds one changes the hash`);
  }
  if (/\n\r?\n$/.test(text.slice(-4))) {
    warn("text/blank-end", `${name} ends with blank lines; an editor that removes them changes the hash`);
  }
  return findings;
}

/**
 * Text from outside, fit for a terminal: whatever is not seen as itself becomes a visible escape, so that no file can move the cursor, change colours,
 * reorder or cover what is read. Line feeds stay.
 *
 * @example
 * safeText("a\u001b[2J"); // "a\\u{1b}[2J"
 */
export function safeText(text: string): string {
  return visible(text, true);
}

/**
 * Untrusted text on one line and in quotes, so that where it starts and ends cannot be forged. Invisible characters are escaped as in {@link safeText}.
 *
 * @example
 * quoteText('a "b"\n'); // '"a \\"b\\"\\n"'
 */
export function quoteText(text: string): string {
  return safeText(JSON.stringify(text));
}
