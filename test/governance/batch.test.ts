import { expect } from "chai";
import { Interface } from "ethers";
import fc from "fast-check";
import type { JsonObject } from "../../src/core/json.ts";
import { INTERFACES } from "../../src/governance/abis.ts";
import { batchChecksum, encodeLikeTxBuilder, formatBatch, readBatch } from "../../src/governance/batch.ts";
import { type Call, hex } from "../../src/governance/safe-hash.ts";
import { errorOf } from "../helpers/errors.ts";
import { addressOf, CONTRACTS, SERVICE, TIME } from "../helpers/governance.ts";
import { tdxImage } from "../helpers/images.ts";

const MAX = (1n << 256n) - 1n;

const batch = (calls: readonly Call[]) =>
  formatBatch({
    ...{ chainId: 1n, safe: addressOf(10), name: "n", description: "d", time: TIME, calls },
    context: { contracts: CONTRACTS },
  });

const call = (contract: "policy" | "registry" | "timelock", method: string, ...args: readonly unknown[]): Call => ({
  to: CONTRACTS[contract],
  value: 0n,
  data: hex(INTERFACES[contract].encodeFunctionData(method, args)),
});

/** One entry of a batch file, by a function's signature and its fields' texts. */
const entry = (signature: string, values: Readonly<Record<string, string>>): JsonObject => {
  const fragment = new Interface([`function ${signature}`]).fragments[0];
  const { name, inputs } = JSON.parse(fragment?.format("json") ?? "{}");
  return { data: null, contractMethod: { name, inputs, payable: false }, contractInputsValues: values };
};

const encoded = (signature: string, ...args: readonly unknown[]): string =>
  new Interface([`function ${signature}`]).encodeFunctionData(signature.slice(0, signature.indexOf("(")), args);

describe("batch checksum", () => {
  const document = {
    ...{ version: "1.0", chainId: "1", createdAt: 1, meta: { name: "n", description: "d" } },
    transactions: [{ to: "0x0000000000000000000000000000000000000001", value: "0", data: "0x" }],
  };

  it("is that of the check vector", () => {
    const expected = "0x15baf2781219cf87866f0540e23ea39dfaf6d885fdb224676429da8f32cf6eba";
    expect(batchChecksum(document)).to.equal(expected);
    expect(batchChecksum({ ...document, meta: { ...document.meta, checksum: "0x00", name: "other" } })).to.equal(
      expected,
    );
  });

  it("changes with everything but the name and itself", () => {
    const sum = batchChecksum(document);
    for (const changed of [
      { ...document, chainId: "2" },
      { ...document, createdAt: 2 },
      { ...document, meta: { ...document.meta, description: "e" } },
      { ...document, transactions: [] },
      { ...document, more: null },
    ]) {
      expect(batchChecksum(changed)).to.not.equal(sum);
    }
  });
});

describe("batch file", () => {
  const several = [
    call("policy", "enableTee", 1),
    call("policy", "publishKmsIdentity", [1, `0x${"11".repeat(32)}`, addressOf(4), `0x${"22".repeat(32)}`]),
    call("registry", "addImagesToService", SERVICE, [
      [tdxImage("a"), 'a "quoted", [bracketed] text'],
      [tdxImage("b"), ""],
    ]),
    call("policy", "revokePlatform", `0x${"33".repeat(32)}`, "  spaces, 'quotes' and\nlines  "),
    call(
      "timelock",
      "scheduleBatch",
      [CONTRACTS.policy, CONTRACTS.registry],
      [0n, MAX],
      ["0x", "0x1234"],
      `0x${"00".repeat(32)}`,
      `0x${"44".repeat(32)}`,
      MAX,
    ),
    call("timelock", "scheduleBatch", [], [], [], `0x${"00".repeat(32)}`, `0x${"44".repeat(32)}`, 0n),
    { to: addressOf(9), value: MAX, data: "0x" as const },
    { to: addressOf(9), value: 0n, data: "0xdeadbeef" as const },
  ];

  it("means the intended calls, one and several", () => {
    for (const calls of [several, ...several.map((one) => [one])]) {
      const read = readBatch(batch(calls));
      expect(read.calls).to.deep.equal(calls);
      expect([read.chainId, read.safe, read.checksumFits]).to.deep.equal(["1", addressOf(10), true]);
    }
  });

  it("shows a known call by its method, with data null, and an unknown one as bytes", () => {
    const { transactions } = JSON.parse(batch(several));
    expect(transactions[0].data).to.equal(null);
    expect(transactions[0].contractMethod.name).to.equal("enableTee");
    expect(transactions[1].contractInputsValues.identity).to.equal(
      JSON.stringify(["1", `0x${"11".repeat(32)}`, addressOf(4), `0x${"22".repeat(32)}`]),
    );
    expect(transactions[4].contractInputsValues.values).to.equal(`["0","${MAX}"]`);
    expect(transactions[7].data).to.equal("0xdeadbeef");
  });

  it("means the intended calls for any texts and numbers", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "binary" }),
        fc.uint8Array(),
        fc.bigInt({ min: 0n, max: MAX }),
        (text, bytes, delay) => {
          const payload = hex(`0x${Buffer.from(bytes).toString("hex")}`);
          // a lone surrogate is no text that a contract can be given
          if (!text.isWellFormed()) return;
          const calls = [
            call("policy", "revokePlatform", `0x${"33".repeat(32)}`, text),
            call(
              "timelock",
              "scheduleBatch",
              [addressOf(9)],
              [delay],
              [payload],
              `0x${"00".repeat(32)}`,
              `0x${"44".repeat(32)}`,
              delay,
            ),
          ];
          expect(readBatch(batch(calls)).calls).to.deep.equal(calls);
        },
      ),
      { numRuns: 60 },
    );
  });

  it("is the same bytes every time, at the time that it is given", () => {
    expect(batch(several)).to.equal(batch(several));
    expect(JSON.parse(batch(several)).createdAt).to.equal(Number(TIME) * 1000);
  });

  it("is refused where it is malformed, and where the Transaction Builder would put 0x", () => {
    const good = JSON.parse(batch([call("policy", "enableTee", 1)]));
    const withTransaction = (change: object) =>
      JSON.stringify({ ...good, transactions: [{ ...good.transactions[0], ...change }] });
    for (const [text, code] of [
      ["{}", "batch/malformed"],
      [JSON.stringify({ ...good, chainId: [1] }), "batch/malformed"],
      [JSON.stringify({ ...good, chainId: 1.5 }), "batch/malformed"],
      [withTransaction({ value: 0 }), "batch/malformed"],
      [withTransaction({ to: "me" }), "batch/malformed"],
      [withTransaction({ contractInputsValues: { kind: 1 } }), "batch/not-encodable"],
      [withTransaction({ contractInputsValues: {} }), "batch/not-encodable"],
      [withTransaction({ contractMethod: null }), "batch/not-encodable"],
    ] as const) {
      expect(errorOf(() => readBatch(text)).code).to.equal(code);
    }
    expect(readBatch(JSON.stringify({ ...good, createdAt: 0 })).checksumFits).to.equal(false);
  });
});

describe("the Transaction Builder's rules", () => {
  it("read each kind of field", () => {
    for (const [signature, values, ...args] of [
      ["f(uint256 a)", { a: MAX.toString() }, MAX],
      ["f(uint256 a)", { a: "1e18" }, 0x1e18n],
      ["f(int256 a)", { a: "-5" }, -5n],
      ["f(bool a)", { a: "True" }, true],
      ["f(bool a)", { a: "0" }, false],
      ["f(uint256[] a)", { a: "[]" }, []],
      ["f(uint256[] a)", { a: '["1", 2]' }, [1n, 2n]],
      ["f(uint8[][] a)", { a: "[[1,2],[3]]" }, [[1n, 2n], [3n]]],
      ["f(bytes[] a)", { a: "[0x,0x12]" }, ["0x", "0x12"]],
      ["f(string[] a)", { a: '["a,b","[c]"]' }, ["a,b", "[c]"]],
      ["f((uint256 x, bytes y)[] a)", { a: `[["${MAX}","0x"]]` }, [[MAX, "0x"]]],
      ["f(string)", { "0": " kept " }, " kept "],
    ] as const) {
      expect(encodeLikeTxBuilder(entry(signature, values)), signature).to.equal(encoded(signature, ...args));
    }
  });

  it("let data win over the method, and fail on what they can't encode", () => {
    const method = entry("f(uint256 a)", { a: "1" });
    expect(encodeLikeTxBuilder({ ...method, data: "0x12" })).to.equal("0x12");
    expect(encodeLikeTxBuilder({ ...method, data: "0x1" })).to.equal(undefined);
    for (const [signature, values] of [
      ["f(uint256 a)", { a: "" }],
      ["f(uint256 a)", {}],
      ["f(bytes a)", {}],
      ["f(bool a)", { a: "maybe" }],
      ["f(uint256[] a)", { a: "1,2" }],
      ["f(uint8 a)", { a: "256" }],
    ] as const) {
      expect(encodeLikeTxBuilder(entry(signature, values)), signature).to.equal(undefined);
    }
    // an unquoted number past 2^53 in a tuple is another number by the time it is read
    const lossy = encodeLikeTxBuilder(entry("f((uint256 x) a)", { a: `[${MAX}]` }));
    expect(lossy).to.not.equal(encoded("f((uint256 x) a)", [MAX]));
  });
});
