import { expect } from "chai";
import { textFindings } from "../../src/core/text.ts";
import { utf8 } from "../helpers/deployment.ts";

const codes = (bytes: Uint8Array) => textFindings(bytes, "f").map(({ code }) => code);

describe("core/text", () => {
  it("finds nothing unusual in UTF-8 lines that end in LF", () => {
    for (const text of ["a\n", "a\n\nb\n", "é: 😀\n", "\n"])
      expect(codes(utf8(text)), JSON.stringify(text)).to.deep.equal([]);
  });

  it("warns of what changes unseen, all of it at once", () => {
    expect(codes(utf8("\ufeffa\r\nb"))).to.deep.equal(["text/byte-order-mark", "text/crlf", "text/no-final-newline"]);
    expect(codes(utf8("a\r\n\r\n"))).to.deep.equal(["text/crlf", "text/blank-end"]);
    expect(codes(utf8("a\n\n"))).to.deep.equal(["text/blank-end"]);
    expect(codes(Uint8Array.of(0xff, 0x0a))).to.deep.equal(["text/not-utf8"]);
    expect(codes(new Uint8Array())).to.deep.equal(["text/empty"]);
    expect(textFindings(utf8("a"), "f").every(({ severity }) => severity === "warning")).to.equal(true);
  });
});
