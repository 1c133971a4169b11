import { expect } from "chai";
import fc from "fast-check";
import { parseJson } from "../../src/core/json.ts";
import { errorOf } from "../helpers/errors.ts";

describe("core/json", () => {
  it("reads what JSON.parse reads, where no key is twice in one object", () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        expect(parseJson(text, "x")).to.deep.equal(JSON.parse(text));
      }),
    );
  });

  it("refuses a key twice, however it is spelt, and at any depth", () => {
    for (const text of [
      '{"a":1,"a":1}',
      '{"a":1,"\\u0061" : 2}',
      '[{"b":{"c":1,"c":2}}]',
      '{"__proto__":1,"__proto__":2}',
    ]) {
      expect(errorOf(() => parseJson(text, "x")).code, text).to.equal("json/duplicate-key");
    }
    for (const text of ['{"a":{"a":1}}', '["a","a"]', '{"a":"b","b":"a"}', '{"a\\"":1,"a":2}', '[{"a":1},{"a":1}]']) {
      expect(() => parseJson(text, "x"), text).not.to.throw();
    }
  });

  it("finds the end of every string: quotes, backslashes and what looks like a key inside of one change nothing", () => {
    const tricky = fc.string({
      unit: fc.constantFrom("\\", '"', ":", "{", "}", ",", "k", " ", "\n", "é"),
      maxLength: 12,
    });
    fc.assert(
      fc.property(tricky, (inside) => {
        const value = JSON.stringify(inside);
        expect(parseJson(`{"k":${value},"l":[${value}]}`, "x")).to.deep.equal({ k: inside, l: [inside] });
        expect(errorOf(() => parseJson(`{"k":${value},"k":1}`, "x")).code).to.equal("json/duplicate-key");
        if (inside === "other") return;
        expect(parseJson(`{${value}:1,"other":${value}}`, "x")).to.have.property("other", inside);
        expect(errorOf(() => parseJson(`{${value}:1,${value}:${value}}`, "x")).code).to.equal("json/duplicate-key");
      }),
      { numRuns: 1_000 },
    );
  });

  it("bounds nesting and survives long strings, escapes and runs of white space", () => {
    expect(errorOf(() => parseJson("[".repeat(65) + "]".repeat(65), "x")).code).to.equal("json/too-deep");
    expect(() => parseJson("[".repeat(64) + "]".repeat(64), "x")).not.to.throw();
    for (const unit of ["a", "\\n", "{", " ", "\\\\", '\\"']) {
      expect(parseJson(`["${unit.repeat(4_000_000)}"]`, "x"), unit).to.have.length(1);
    }
    expect(parseJson(`{"a"${" ".repeat(4_000_000)}:1}`, "x")).to.deep.equal({ a: 1 });
  });

  it("refuses a byte order mark and text around the value", () => {
    for (const text of ["\ufeff{}", "{} {}", "", "{a:1}", "[1,]", '"\u0001"', "NaN"]) {
      expect(errorOf(() => parseJson(text, "x")).code, text).to.equal("json/malformed");
    }
  });
});
