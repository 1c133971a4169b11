import { isoTime } from "../../src/audit/table.ts";

/* Numbers and times as people read them. */

const UNITS: readonly (readonly [seconds: number, name: string])[] = [
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

/**
 * Seconds as the two largest units that are not zero.
 *
 * @example
 * formatDuration(90_000); // "1 d 1 h"
 */
export function formatDuration(seconds: number): string {
  let left = Math.max(0, Math.floor(seconds));
  const parts: string[] = [];
  for (const [size, name] of UNITS) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count > 0) parts.push(`${count} ${name}`);
    if (parts.length === 2) break;
  }
  return parts.length === 0 ? "0 s" : parts.join(" ");
}

/**
 * Time left, to the second, as a clock shows it.
 *
 * @example
 * formatCountdown(90_061); // "1 d 01:01:01"
 */
export function formatCountdown(seconds: number): string {
  const left = Math.max(0, Math.ceil(seconds));
  const two = (value: number) => String(value).padStart(2, "0");
  const clock = `${two(Math.floor((left % 86_400) / 3600))}:${two(Math.floor((left % 3600) / 60))}:${two(left % 60)}`;
  return left >= 86_400 ? `${Math.floor(left / 86_400)} d ${clock}` : clock;
}

/**
 * UTC to the minute; times are the chain's, and auditors compare them with others'.
 *
 * @example
 * formatTime(1764000000); // "2025-11-24 16:00 UTC"
 */
export function formatTime(seconds: number): string {
  const iso = isoTime(seconds);
  return iso.includes("T") ? `${iso.slice(0, 16).replace("T", " ")} UTC` : `${iso} s after 1970`;
}

/**
 * Hex shortened in the middle; the whole is in the title and on the clipboard.
 *
 * @example
 * shortHex("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"); // "0x709979…79c8"
 */
export function shortHex(hex: string, head = 8, tail = 4): string {
  return hex.length <= head + tail + 1 ? hex : `${hex.slice(0, head)}…${hex.slice(-tail)}`;
}

/**
 * A count with its noun.
 *
 * @example
 * plural(1, "image"); // "1 image"
 */
export function plural(count: number, noun: string, many = `${noun}s`): string {
  return `${count.toLocaleString("en")} ${count === 1 ? noun : many}`;
}
