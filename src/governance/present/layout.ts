/** Columns of a terminal that everything for people fits. */
export const COLUMNS = 80;

/**
 * Breaks a text at spaces so that no line is wider than asked for; a word that is wider is cut.
 *
 * @param width columns
 * @returns at least one line
 * @example
 * wrap("one two three", 7); // ["one two", "three"]
 */
export function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = "";
  const words = text.split(" ").flatMap((word) => {
    const characters = [...word];
    if (characters.length <= width) return [word];
    return Array.from({ length: Math.ceil(characters.length / width) }, (_, i) =>
      characters.slice(i * width, (i + 1) * width).join(""),
    );
  });
  for (const word of words) {
    if (line === "") line = word;
    else if (line.length + 1 + word.length <= width) line += ` ${word}`;
    else {
      lines.push(line);
      line = word;
    }
  }
  return [...lines, line];
}

/** A label and what stands beside it, wrapped. */
export type Row = readonly [label: string, ...texts: readonly string[]];

/** Columns before the texts of {@link renderRows}. */
const LABEL = 9;

/**
 * Labels on the left, texts on the right, in 80 columns.
 *
 * @example
 * renderRows([["Delay", "48 h in the timelock"]]); // ["Delay    48 h in the timelock"]
 */
export function renderRows(rows: readonly Row[]): readonly string[] {
  return rows.flatMap(([label, ...texts]) =>
    texts
      .flatMap((text) => wrap(text, COLUMNS - LABEL))
      .map((line, i) => `${(i === 0 ? label : "").padEnd(LABEL)}${line}`.trimEnd()),
  );
}

/**
 * Hex that nobody reads (register values, ids) cut to its ends, so that a sentence stays a sentence. Addresses are not cut: a lookalike has the same ends.
 *
 * @example
 * shortenHex(`platform 0x${"ab".repeat(32)}`); // "platform 0xabab…abab"
 */
export function shortenHex(text: string): string {
  const short = text.replace(/\b(0x)?([0-9a-fA-F]{44,})\b/g, (_, prefix: string | undefined, digits: string) => {
    return `${prefix ?? ""}${digits.slice(0, 4)}…${digits.slice(-4)}`;
  });
  // registers of an image, which can then be wrapped
  return short.replace(/(…[0-9a-fA-F]{4}),(?=\w+=)/g, "$1, ");
}

/** Cuts a text that is longer than a line or two. */
export const clip = (text: string, length: number): string =>
  text.length <= length ? text : `${text.slice(0, length - 1)}…`;

/** Texts as a list in a sentence: `a`, `a or b`, `a, b or c`. */
export const either = (items: readonly string[]): string =>
  items.length < 2 ? (items[0] ?? "") : `${items.slice(0, -1).join(", ")} or ${items.at(-1)}`;
