import { sha256 } from "@noble/hashes/sha2.js";
import { utf8ToBytes } from "@noble/hashes/utils.js";
import { html, raw } from "hono/html";
import { printable } from "../core/printable.ts";
import type { Table } from "./table.ts";

/*
 * Pages for people, whole in one file: no script, no request, no markup but what stands here. All text is put in as text, with characters that are not
 * seen as themselves made visible.
 */

/** Part of a page. */
export interface Section {
  readonly title: string;
  /** Sentences, one paragraph each. */
  readonly lines?: readonly string[];
  readonly table?: Table;
}

/** How good the news is: the colour of the first line. */
export type Tone = "good" | "unsure" | "bad";

/** A page of sections. */
export interface Page {
  readonly title: string;
  readonly tone: Tone;
  /** The one sentence that counts. */
  readonly summary: string;
  readonly sections: readonly Section[];
}

const STYLE = `:root{color-scheme:light dark;--line:#8886;--good:#1a7f37;--unsure:#9a6700;--bad:#cf222e}
@media(prefers-color-scheme:dark){:root{--good:#3fb950;--unsure:#d29922;--bad:#f85149}}
body{font:16px/1.5 system-ui,sans-serif;max-width:80rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}
.summary{border-left:.4rem solid;padding:.2rem 1rem;font-weight:600;overflow-wrap:anywhere}
.good{border-color:var(--good)}.unsure{border-color:var(--unsure)}.bad{border-color:var(--bad)}
p{overflow-wrap:anywhere}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid var(--line)}
td{overflow-wrap:anywhere;min-width:4rem;unicode-bidi:isolate}
@media print{body{max-width:none;padding:0;font-size:10pt}.scroll{overflow:visible}tr{break-inside:avoid}thead{display:table-header-group}}`;

/** The style's hash, so that a page's policy can allow this style and nothing else. */
const STYLE_HASH = btoa(String.fromCharCode(...sha256(utf8ToBytes(STYLE))));

/** What a browser may do with such a page: show it with its own style. As header, or as the page's own rule. */
export const PAGE_POLICY = `default-src 'none'; style-src 'sha256-${STYLE_HASH}'; base-uri 'none'; form-action 'none'`;

/**
 * A page as one HTML document that needs nothing else.
 *
 * @example
 * await renderPage({ title: "Audit", tone: "good", summary: "proven", sections: [] });
 */
export async function renderPage({ title, tone, summary, sections }: Page): Promise<string> {
  const body = sections.map(
    ({ title, lines = [], table }) => html`<section>
<h2>${shown(title)}</h2>
${lines.map((line) => html`<p>${shown(line)}</p>\n`)}${table === undefined ? "" : tableOf(table)}
</section>
`,
  );
  const document = await html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${PAGE_POLICY}">
<title>${shown(title)}</title>
<style>${raw(STYLE)}</style>
</head>
<body>
<main>
<h1>${shown(title)}</h1>
<p class="summary ${tone}">${shown(summary)}</p>
${body}</main>
</body>
</html>
`;
  return document.toString();
}

function tableOf({ head, rows }: Table) {
  return html`<div class="scroll" tabindex="0"><table>
<thead><tr>${head.map((cell) => html`<th scope="col">${shown(cell)}</th>`)}</tr></thead>
<tbody>
${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${shown(cell)}</td>`)}</tr>\n`)}</tbody>
</table></div>`;
}

/** The longest text in one place of a page. */
const LONGEST = 4000;

function shown(text: string): string {
  return printable(text, LONGEST);
}
