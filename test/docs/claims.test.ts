import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { ROOT } from "../helpers/markdown.ts";

const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");
/** Prose without the marks of comments and quotes, and with single spaces. */
const plain = (text: string): string =>
  text
    .replaceAll(/^\s*(\/\*\*?|\*\/|\*|\/\/\/?)/gm, " ")
    .replaceAll(/\\(["'])/g, "$1")
    .replaceAll(/\s+/g, " ");

interface Claim {
  readonly where: string;
  readonly sentence: string;
  readonly test: string;
  readonly title: string;
}

const CLAIMS: readonly Claim[] = read("docs/claims.md")
  .split("\n")
  .flatMap((line) => {
    const [, where, sentence, test, title] = /^\| `([^`]+)`\s*\| (.+?)\s*\| `([^`]+)`: (.+?)\s*\|$/.exec(line) ?? [];
    return where && sentence && test && title ? [{ where, sentence, test, title }] : [];
  });

/** Sentences of a source's comments that promise without exception. */
function promisesIn(source: string): readonly string[] {
  const comments = source.split("\n").filter((line) => /^\s*(\/\*|\*|\/\/)/.test(line));
  const text = comments.map((line) => (/^\s*\*\s*$/.test(line) ? "\n" : plain(line))).join(" ");
  return text
    .split(/\n|@\w+|(?<=[.!?])\s+(?=[A-Z`@-])/)
    .map((sentence) => sentence.replaceAll(/\s+/g, " ").trim())
    .filter((sentence) => /\b(never|nobody|only)\b/i.test(sentence));
}

describe("docs/claims.md", () => {
  it("has a row for every claim: none is lost to a slip in the table", () => {
    const rows = read("docs/claims.md")
      .split("\n")
      .filter((line) => line.startsWith("| `"));
    expect(CLAIMS.length).to.equal(rows.length).and.to.be.greaterThan(20);
  });

  for (const { where, sentence, test, title } of CLAIMS) {
    it(`${where}: ${sentence}`, () => {
      expect(plain(read(where)), "the sentence stands there").to.include(plain(sentence));
      expect(plain(read(test)), "the test exists").to.include(plain(title));
    });
  }

  const sources = ["contracts/governance", "contracts/registry"].flatMap((folder) =>
    readdirSync(join(ROOT, folder)).map((name) => `${folder}/${name}`),
  );
  for (const path of sources.filter((each) => !each.endsWith("/ImageCodec.sol"))) {
    it(`every "never", "nobody" and "only" of ${path} is a claim`, () => {
      const claimed = CLAIMS.filter(({ where }) => where === path).map(({ sentence }) => plain(sentence));
      const missing = promisesIn(read(path)).filter((promise) => !claimed.some((claim) => promise.includes(claim)));
      expect(missing).to.deep.equal([]);
    });
  }
});
