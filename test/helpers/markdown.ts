import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { lexer, type Token, walkTokens } from "marked";

export const ROOT = join(import.meta.dirname, "..", "..");

/** A block of code of a document. */
export interface CodeBlock {
  /** `sh`, `text`, `ts`, …; empty where none is said. */
  readonly language: string;
  readonly text: string;
  /** 1 for the first line of the file. */
  readonly line: number;
}

/** One Markdown file, taken apart. */
export interface Document {
  /** From the repository's root. */
  readonly path: string;
  readonly blocks: readonly CodeBlock[];
  /** Code within running text. */
  readonly spans: readonly string[];
  readonly links: readonly string[];
  /** As links name them: `what-it-does`. */
  readonly anchors: ReadonlySet<string>;
}

/** Every file of the repository, committed or about to be. */
export function repositoryFiles(): readonly string[] {
  const args = ["ls-files", "--cached", "--others", "--exclude-standard"];
  return execFileSync("git", args, { cwd: ROOT, encoding: "utf8" }).trim().split("\n");
}

/** Reads a Markdown file as `marked` reads it. */
export function readDocument(path: string): Document {
  const text = readFileSync(join(ROOT, path), "utf8");
  const blocks: CodeBlock[] = [];
  const spans: string[] = [];
  const links: string[] = [];
  const anchors = new Set<string>();
  let from = 0;
  walkTokens(lexer(text), (token: Token) => {
    if (token.type === "code") {
      const at = text.indexOf(token.raw.trim(), from);
      from = at + 1;
      blocks.push({ language: token.lang ?? "", text: token.text, line: text.slice(0, at).split("\n").length });
    } else if (token.type === "codespan") spans.push(token.text);
    else if (token.type === "link") links.push(token.href);
    else if (token.type === "heading") anchors.add(anchorOf(token.text));
  });
  return { path, blocks, spans, links, anchors };
}

/** The anchor that GitHub gives a heading. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, "")
    .trim()
    .replace(/\s/g, "-");
}

/** The command lines of a block: continued lines joined, comments and prompts left out. */
export function commandLines(block: CodeBlock): readonly string[] {
  return block.text
    .replace(/\\\n\s*/g, " ")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}
