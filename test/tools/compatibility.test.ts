import { resolve } from "node:path";
import { expect } from "chai";
import { comparePage, formatPage, type MochaReport, rowsOf } from "../../tools/compatibility.ts";

const file = resolve(import.meta.dirname, "../field/dstack.test.ts");
const at = (title: string) => ({ title, file });
const report = (parts: Partial<MochaReport>): MochaReport => ({ passes: [], pending: [], failures: [], ...parts });

const SAFE = at("Safe | 1.3.0 | recognised");
const NITRO = at("AWS Nitro | since 2025 | documents");

describe("the table of compatibility", () => {
  it("has a row for each passing test whose title is a row's, ordered by system", () => {
    const rows = rowsOf([SAFE, at("helpers work"), NITRO]);
    expect(rows.map(({ system }) => system)).to.deep.equal(["AWS Nitro", "Safe"]);
    expect(formatPage(rows)).to.include("| Safe | 1.3.0 | recognised | `test/field/dstack.test.ts` |");
  });
  it("two tests for one row are refused", () => {
    expect(() => rowsOf([SAFE, SAFE])).to.throw(RangeError, "two tests claim one row");
  });

  const page = formatPage(rowsOf([SAFE, NITRO]));
  it("given what the tests show, there is no difference", () => {
    expect(comparePage(page, report({ passes: [NITRO, SAFE] }))).to.deep.equal([]);
  });
  it("given a row whose test is gone or fails, the row is named", () => {
    for (const failures of [[], [SAFE]]) {
      const differences = comparePage(page, report({ passes: [NITRO], failures }));
      expect(differences).to.deep.equal(["- | Safe | 1.3.0 | recognised | `test/field/dstack.test.ts` |"]);
    }
  });
  it("given a row whose test was skipped, the row stays; a skipped test adds none", () => {
    const seen = report({ passes: [NITRO], pending: [SAFE, at("Infura | 2026 | ranges")] });
    expect(comparePage(page, seen)).to.deep.equal([]);
  });
  it("given a passing test without a row, or a row that was written by hand, the difference shows", () => {
    expect(comparePage(formatPage(rowsOf([NITRO])), report({ passes: [NITRO, SAFE] }))).to.deep.equal([
      "+ | Safe | 1.3.0 | recognised | `test/field/dstack.test.ts` |",
    ]);
    const wished = `${page}| Azure | all | everything | \`test/field/dstack.test.ts\` |\n`;
    expect(comparePage(wished, report({ passes: [NITRO, SAFE] }))).to.have.length(1);
  });
});
