import { expect } from "chai";
import { decodeUtf8, equalBytes, fromBase64, fromHex, isZero, Reader, toHex } from "../../src/core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../src/core/errors.ts";

const codeOf = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    if (isKeysteadError(error)) return error.code;
    throw error;
  }
  return "nothing thrown";
};

describe("core/bytes", () => {
  it("reads hex of either case, with or without 0x, and writes one spelling", () => {
    expect(toHex(fromHex("0xAbCd", "x"))).to.equal("0xabcd");
    expect(toHex(fromHex("abcd", "x"))).to.equal("0xabcd");
    expect(toHex(fromHex("", "x"))).to.equal("0x");
    for (const bad of ["0xabc", "xx", "0x0x", "ab ", "ab\n", "0X12", "é0"])
      expect(
        codeOf(() => fromHex(bad, "x")),
        bad,
      ).to.equal("hex/malformed");
  });

  it("reads canonical base64 only", () => {
    expect([...fromBase64("AQI=", "x")]).to.deep.equal([1, 2]);
    expect([...fromBase64("AQID", "x")]).to.deep.equal([1, 2, 3]);
    expect([...fromBase64("/w==", "x")]).to.deep.equal([255]);
    expect(fromBase64("", "x")).to.have.length(0);
    for (const bad of ["AQI", "AQJ=", "/x==", "AQ=I", "A===", "====", "AQI=\n", " AQI", "_w=="]) {
      expect(
        codeOf(() => fromBase64(bad, "x")),
        bad,
      ).to.equal("base64/malformed");
    }
  });

  it("reads UTF-8 strictly and keeps a byte order mark", () => {
    expect(decodeUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61), "x")).to.equal("\ufeffa");
    expect(codeOf(() => decodeUtf8(Uint8Array.of(0xff), "x"))).to.equal("text/not-utf8");
  });

  it("compares and tests bytes", () => {
    expect(equalBytes(Uint8Array.of(1, 2), Uint8Array.of(1, 2))).to.equal(true);
    expect(equalBytes(Uint8Array.of(1, 2), Uint8Array.of(1))).to.equal(false);
    expect(equalBytes(Uint8Array.of(1, 2), Uint8Array.of(1, 3))).to.equal(false);
    expect(isZero(new Uint8Array(3))).to.equal(true);
    expect(isZero(Uint8Array.of(0, 0, 1))).to.equal(false);
  });

  it("reads numbers of both orders at their offsets, inside a view of a larger buffer", () => {
    const whole = Uint8Array.of(9, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    const reader = new Reader(whole.subarray(1, 9), "input");
    expect(reader.u16le()).to.equal(0x0201);
    expect(reader.u16be()).to.equal(0x0304);
    expect(reader.remaining).to.equal(4);
    reader.offset = 0;
    expect(reader.u32le()).to.equal(0x04030201);
    expect(reader.u32be()).to.equal(0x05060708);
    reader.offset = 0;
    expect(reader.u64le()).to.equal(0x0807060504030201n);
    reader.offset = 0;
    expect(reader.u64be()).to.equal(0x0102030405060708n);
    expect(codeOf(() => reader.u8())).to.equal("bytes/truncated");
  });

  it("refuses lengths past the end, negative, fractional or huge, and stays where it was", () => {
    const reader = new Reader(new Uint8Array(4), "input");
    for (const length of [5, -1, 0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY]) {
      expect(
        codeOf(() => reader.bytes(length)),
        String(length),
      ).to.equal("bytes/truncated");
    }
    expect(reader.offset).to.equal(0);
    expect(reader.bytes(4)).to.have.length(4);
    expect(reader.bytes(0)).to.have.length(0);
  });

  it("has errors with code, argument, remedy, details and cause", () => {
    const cause = new Error("below");
    const error = new KeysteadError("a/b", "message", { argument: "x", remedy: "do", details: { n: 1 }, cause });
    expect(error).to.include({ code: "a/b", argument: "x", remedy: "do", retryable: false, message: "message" });
    expect(error.cause).to.equal(cause);
    expect(isKeysteadError(error, "a/b")).to.equal(true);
    expect(isKeysteadError(error, "a/c")).to.equal(false);
    expect(isKeysteadError(cause)).to.equal(false);
  });
});
