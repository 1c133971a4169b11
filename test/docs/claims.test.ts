import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";

const root = join(import.meta.dirname, "..", "..");

/** The rows of docs/claims.md: which test, under which title, holds which sentence. */
function readClaims(): readonly { readonly sentence: string; readonly file: string; readonly title: string }[] {
  const rows = readFileSync(join(root, "docs/claims.md"), "utf8")
    .split("\n")
    .filter((line) => line.startsWith("| ") && !/^\| (-|sentence)/.test(line))
    .map((line) => line.split("|").map((cell) => cell.trim()));
  return rows.map(([, sentence = "", , held = "", title = ""]) => ({
    sentence,
    file: held.replaceAll("`", ""),
    title,
  }));
}

/** The text as one line, as titles that the formatter broke over several are compared. */
const flat = (text: string) => text.replace(/\s+/g, " ");

describe("claims", () => {
  const claims = readClaims();

  it("are many", () => expect(claims.length).to.be.greaterThan(15));

  for (const { sentence, file, title } of claims) {
    it(`"${sentence}" is held by a test that exists`, () => {
      expect(existsSync(join(root, file)), file).to.equal(true);
      const text = flat(readFileSync(join(root, file), "utf8"));
      // Solidity tests are named as functions are, the others by their titles.
      const named = file.endsWith(".sol")
        ? text.includes(`function ${title}(`)
        : [`"${title}"`, `\`${title}\``, `'${title}'`].some((quoted) => text.includes(quoted));
      expect(named, `${title} in ${file}`).to.equal(true);
    });
  }
});
