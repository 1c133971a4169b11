import type { PlannedTransaction } from "../transactions.ts";
import { qrSvg } from "./qr.ts";

/** One section of a report: its heading, and its lines. */
interface Section {
  readonly heading: string;
  readonly lines: readonly string[];
}

/** Takes a derived `REPORT.md` apart at its headings; what is inside of blocks is never a heading. */
function sectionsOf(report: string): readonly Section[] {
  const sections: { heading: string; lines: string[] }[] = [];
  let fence: string | undefined;
  for (const line of report.trimEnd().split("\n")) {
    const heading = fence === undefined ? /^##? (.*)$/.exec(line)?.[1] : undefined;
    if (heading !== undefined) sections.push({ heading, lines: [] });
    else sections.at(-1)?.lines.push(line);
    const mark = /^(`{3,})/.exec(line)?.[1];
    if (fence === undefined) fence = mark;
    else if (line === fence) fence = undefined;
  }
  return sections;
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};
const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (char) => ENTITIES[char] ?? "");

/** Bold and code in a line of the report; nothing else is markup there. */
const inline = (line: string): string =>
  escapeHtml(line)
    .replace(/`([^`]+)`/g, "<code>$1</code>")
    .replace(/\*\*([^*]+)\*\*/g, "<strong>$1</strong>");

const STYLE = `
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; border-top: 1px solid var(--line); padding-top: 1rem; }
pre { white-space: pre-wrap; background: var(--soft); padding: .75rem; border-radius: 6px; font: 14px/1.45 ui-monospace, monospace; }
.screen { border: 2px solid currentColor; background: none; }
.verdict { font-size: 1.1rem; font-weight: 700; }
.qr { width: 14rem; max-width: 100%; background: #fff; padding: .25rem; } .qr svg { display: block; width: 100%; height: auto; }
figure { margin: 0 0 1rem; } figcaption { font-size: .85rem; }
@media print { body { max-width: none; font-size: 11pt; } pre { border: 1px solid #999; background: none; font-size: 9pt; }
  section, figure { break-inside: avoid; } h2 { break-after: avoid; } }
`;

function bodyOf(lines: readonly string[], planned: readonly PlannedTransaction[]): string {
  const parts: string[] = [];
  let block: string[] | undefined;
  let fence = "";
  for (const line of lines) {
    if (block !== undefined) {
      if (line !== fence) block.push(line);
      else {
        parts.push(`<pre tabindex="0">${escapeHtml(block.join("\n"))}</pre>`);
        const text = block.join("\n");
        const step = planned.find(({ hashes }) => text.includes(`message hash  ${hashes.messageHash}`));
        if (step !== undefined) {
          const caption = `domain hash and message hash of ${escapeHtml(step.step)}, to compare with a second screen`;
          const label = `QR code of the hashes of ${escapeHtml(step.step)}`;
          const svg = qrSvg(step.hashes).replace("<svg ", `<svg role="img" aria-label="${label}" `);
          parts.push(`<figure><div class="qr">${svg}</div><figcaption>${caption}</figcaption></figure>`);
        }
        block = undefined;
      }
      continue;
    }
    const mark = /^(`{3,})/.exec(line)?.[1];
    if (mark !== undefined) {
      fence = mark;
      block = [];
    } else if (line.startsWith("- ")) parts.push(`<p>• ${inline(line.slice(2))}</p>`);
    else if (line !== "") parts.push(`<p>${inline(line)}</p>`);
  }
  return parts.join("\n");
}

/**
 * A derived `REPORT.md` as one self-contained page: no script, nothing loaded, printable, a QR code beside each pair of hashes.
 *
 * @param report as `deriveProposal` gives it: what stands outside of its blocks is this program's own text
 * @param planned the operation's steps, whose hashes get codes
 * @example
 * writeFileSync("REPORT.html", reportHtml(report, planTransactions(operation)));
 */
export function reportHtml(report: string, planned: readonly PlannedTransaction[]): string {
  const [first, ...rest] = sectionsOf(report);
  const title = escapeHtml(first?.heading ?? "");
  const head = bodyOf(first?.lines ?? [], [])
    .replace("<p><strong>", '<p class="verdict"><strong>')
    .replace("<pre ", '<pre class="screen" ');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${title}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${title}</h1>
${head}
${rest.map(({ heading, lines }) => `<section>\n<h2>${escapeHtml(heading)}</h2>\n${bodyOf(lines, planned)}\n</section>`).join("\n")}
</main>
</body>
</html>
`;
}

/** What GitHub takes of a comment is 65,536 characters; others take more. */
const COMMENT_LIMIT = 60_000;

/**
 * A derived `REPORT.md` as a comment under a pull request: the first screen and the hashes open, the rest folded. Its first line tells a program which
 * comment to replace.
 *
 * @param checked what `verifyProposal` found, in one line
 * @example
 * await createComment(reportComment(report, "007-tdx", "every file is derived from operation.json"));
 */
export function reportComment(report: string, id: string, checked: string): string {
  const [first, ...rest] = sectionsOf(report);
  const [hashes, ...others] = rest;
  const head = (first?.lines ?? []).join("\n").trim();
  const open = `<!-- keystead report ${id} -->\n### ${id}\n\n${checked}\n\n${head}\n`;
  const fold = ({ heading, lines }: Section, more = "") =>
    `\n<details${more}><summary>${escapeHtml(heading)}</summary>\n\n${lines.join("\n").trim()}\n\n</details>\n`;
  let text = open + (hashes === undefined ? "" : fold(hashes));
  const left: string[] = [];
  for (const section of others) {
    const next = fold(section);
    if (text.length + next.length > COMMENT_LIMIT) left.push(section.heading);
    else text += next;
  }
  return left.length === 0 ? text : `${text}\n**Too long for a comment, read it in REPORT.md: ${left.join("; ")}.**\n`;
}
