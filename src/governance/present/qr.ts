import { renderSVG, renderUnicodeCompact } from "uqr";
import type { SafeHashes } from "../safe-hash.ts";

/**
 * What a QR code of a step holds: plain lines, so that any reader shows them, and a second device can be compared with the first without typing.
 *
 * @example
 * qrText(hashes); // "domain 0x…\nmessage 0x…"
 */
export const qrText = ({ domainHash, messageHash }: SafeHashes): string =>
  `domain ${domainHash}\nmessage ${messageHash}`;

/**
 * A QR code of both hashes for a terminal: half-block characters, at most 80 columns. Dark on light, as scanners want it: shown by a terminal with a dark
 * ground it is inverted, which today's readers take too.
 *
 * @example
 * console.log(qrLines(hashes).join("\n"));
 */
export const qrLines = (hashes: SafeHashes): readonly string[] =>
  renderUnicodeCompact(qrText(hashes), { border: 2, ecc: "L" }).split("\n");

/**
 * The same as an SVG element, for a page.
 *
 * @example
 * element.innerHTML = qrSvg(hashes);
 */
export const qrSvg = (hashes: SafeHashes): string => renderSVG(qrText(hashes), { border: 2, ecc: "M", pixelSize: 4 });
