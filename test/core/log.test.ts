import { expect } from "chai";
import { MAX_LOG_DATA_BYTES, parseLog, parseQuantity } from "../../src/core/log.ts";
import { printable } from "../../src/core/printable.ts";
import { errorOf } from "../helpers/errors.ts";

const JSON_LOG = {
  address: `0x${"Aa".repeat(20)}`,
  topics: [`0x${"BB".repeat(32)}`],
  data: "0x01",
  blockNumber: "0x10",
  blockHash: `0x${"cc".repeat(32)}`,
  transactionHash: `0x${"dd".repeat(32)}`,
  logIndex: "0x0",
  removed: false,
};

describe("parseLog", () => {
  it("gives lower-case hex and numbers", () => {
    expect(parseLog(JSON_LOG)).to.deep.equal({
      address: `0x${"aa".repeat(20)}`,
      topics: [`0x${"bb".repeat(32)}`],
      data: "0x01",
      blockNumber: 16,
      blockHash: `0x${"cc".repeat(32)}`,
      transactionHash: `0x${"dd".repeat(32)}`,
      logIndex: 0,
    });
  });
  for (const [what, change, code] of [
    ["a log taken back", { removed: true }, "log/removed"],
    ["a pending log", { blockHash: null }, "log/removed"],
    ["no topics", { topics: undefined }, "log/malformed"],
    ["five topics", { topics: new Array(5).fill(`0x${"bb".repeat(32)}`) }, "log/malformed"],
    ["a topic of 31 bytes", { topics: [`0x${"bb".repeat(31)}`] }, "log/malformed"],
    ["odd data", { data: "0x012" }, "log/malformed"],
    ["data beyond every bound", { data: `0x${"00".repeat(MAX_LOG_DATA_BYTES + 1)}` }, "log/malformed"],
    ["an address that is a number", { address: 5 }, "log/malformed"],
    ["a block number that is a number", { blockNumber: 16 }, "log/malformed"],
    ["a block number above 2^53", { blockNumber: "0xffffffffffffffff" }, "log/malformed"],
    ["no log index", { logIndex: undefined }, "log/malformed"],
  ] as const) {
    it(`refuses ${what}`, () => {
      expect(errorOf(() => parseLog({ ...JSON_LOG, ...change })).code).to.equal(code);
    });
  }
  it("refuses what is no object", () => {
    for (const value of [null, undefined, "0x", 7]) {
      expect(errorOf(() => parseLog(value)).code).to.equal("log/malformed");
    }
  });
  it("quantities are hex with 0x", () => {
    expect(parseQuantity("0x0", "x")).to.equal(0);
    for (const bad of ["", "0x", "10", "0x1g", "-0x1", " 0x1", null]) {
      expect(errorOf(() => parseQuantity(bad, "x")).details.field, String(bad)).to.equal("x");
    }
  });
});

describe("printable", () => {
  it("shows what would steer a terminal or turn a line round", () => {
    expect(printable("a\u001b[31m\u202eb\u0000\u2028\u200b\ufeff")).to.equal(
      "a\\u{1b}[31m\\u{202e}b\\u{0}\\u{2028}\\u{200b}\\u{feff}",
    );
  });
  it("leaves markup and other scripts as they are", () => {
    expect(printable("<b>Zürich 東京 🙂</b>")).to.equal("<b>Zürich 東京 🙂</b>");
  });
  it("cuts at a length, between characters", () => {
    expect(printable("🙂🙂🙂🙂", 3)).to.equal("🙂🙂…");
    expect(printable("🙂🙂🙂", 3)).to.equal("🙂🙂🙂");
    expect(printable("abc", 3)).to.equal("abc");
  });
});
