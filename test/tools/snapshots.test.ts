import { readFile } from "node:fs/promises";
import { expect } from "chai";
import { findOverBudget, formatGasTable, hasColor } from "../../scripts/gas/table.ts";
import { compareLines, formatSnapshot, parseMode, settleSnapshot } from "../../tools/snapshot.ts";
import { flattenLayout, readLayouts } from "../../tools/storage-layout.ts";

const root = new URL("../../", import.meta.url);

describe("snapshots", () => {
  it("options: none, --check or --update; anything else is refused", () => {
    expect([parseMode([]), parseMode(["--check"]), parseMode(["--update"])]).to.deep.equal([
      "print",
      "check",
      "update",
    ]);
    for (const args of [["--chekc"], ["check"], ["--check", "--update"], ["--check", "--check"]]) {
      expect(() => parseMode(args)).to.throw(RangeError);
    }
  });

  it("differences: empty exactly for equal texts; a moved, missing, added or repeated line shows", () => {
    expect(compareLines("a\nb\n", "a\nb\n")).to.deep.equal([]);
    expect(compareLines("a,\nb\n", "a,\nc\n")).to.deep.equal(["- b", "+ c"]);
    expect(compareLines("a\nb\n", "a\nb\nb\n")).to.deep.equal(["+ b"]);
    expect(compareLines("a\nb\n", "b\na\n")).to.deep.equal(["the same lines in another order"]);
    expect(compareLines("", "a\n")).to.include("+ a");
  });

  it("the text is JSON with a line for each row", () => {
    const content = { rows: [{ field: "gate", slot: 0 }], none: [], table: { a: "1" } };
    const text = formatSnapshot(content);
    expect(JSON.parse(text)).to.deep.equal(content);
    expect(text.split("\n")).to.include('    { "field": "gate", "slot": 0 }');
  });

  it("a file that is not there fails the check, and does not pass for an empty one", async () => {
    const { error } = console;
    const said: string[] = [];
    console.error = (line: string) => said.push(line);
    try {
      const absent = { file: "snapshots/absent.json", script: "absent", content: { a: "1" } };
      expect(await settleSnapshot("check", absent)).to.equal(false);
    } finally {
      console.error = error;
    }
    expect(said.join("\n")).to.include('+ "a": "1"').and.include("npm run absent -- --update");
  });
});

describe("storage layouts", () => {
  it("the committed ones are those of the code, and nothing lies outside of namespaces", async function () {
    const layouts = await readLayouts().catch((error: unknown) => error);
    if (layouts instanceof Error) {
      // Coverage builds instrumented code elsewhere: `npm run layout:check` is the gate.
      console.log(`      skipped: ${layouts.message}`);
      return this.skip();
    }
    const committed = await readFile(new URL("snapshots/storage-layout.json", root), "utf8");
    expect(
      compareLines(committed, formatSnapshot(layouts)),
      "if that is meant: npm run layout -- --update",
    ).to.deep.equal([]);
    for (const { outside } of Object.values(layouts as Awaited<ReturnType<typeof readLayouts>>)) {
      expect(outside).to.deep.equal([]);
    }
  });

  const types = {
    t_uint40: { label: "uint40", numberOfBytes: "5" },
    t_bytes32: { label: "bytes32", numberOfBytes: "32" },
    "t_struct(Gate)1_storage": {
      label: "struct Gate",
      numberOfBytes: "32",
      members: [{ label: "until", type: "t_uint40", src: "", contract: "", slot: "1", offset: 3 }],
    },
    "t_mapping(t_bytes32,t_struct(Gate)1_storage)": { label: "mapping(bytes32 => struct Gate)", numberOfBytes: "32" },
  };
  const variable = (type: string, slot?: string) => ({
    label: "gates",
    type,
    src: "",
    contract: "",
    offset: 0,
    ...(slot === undefined ? {} : { slot }),
  });

  it("structs add to the slot that they lie in; a mapping's values count from their own", () => {
    const storage = [
      variable("t_struct(Gate)1_storage", "4"),
      variable("t_mapping(t_bytes32,t_struct(Gate)1_storage)", "6"),
    ];
    const { outside } = flattenLayout({ solcVersion: "0.8.37", storage, types });
    expect(outside.map(({ field, slot, offset }) => [field, slot, offset])).to.deep.equal([
      ["gates.until", 5, 3],
      ["gates", 6, 0],
      ["gates[bytes32].until", 1, 3],
    ]);
  });

  it("a type that is not described, or a field without a position, is an error and no empty layout", () => {
    for (const storage of [[variable("t_unknown", "0")], [variable("t_uint40")]]) {
      expect(() => flattenLayout({ solcVersion: "0.8.37", storage, types })).to.throw(/describe|position/);
    }
  });
});

describe("the gas table", () => {
  const rows = [
    { operation: "cheap", used: 1_000n, budget: 2_000n, peer: 4_000n },
    { operation: "dear", used: 2_001n, budget: 2_000n },
    { operation: "exact", used: 2_000n, budget: 2_000n, unit: "bytes" },
  ];

  it("names what is above budget, and only that", () => {
    expect(findOverBudget(rows)).to.deep.equal(["dear"]);
  });

  it("without colour it has no control characters; with colour the same words", () => {
    const plain = formatGasTable(rows, { color: false });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is looked for
    const colors = /\u001b\[[0-9;]*m/g;
    expect(plain).to.not.match(colors);
    expect(plain).to.include("over by 1").and.include("2,000 bytes").and.include("0.25");
    const colored = formatGasTable(rows, { color: true });
    expect(colored).to.match(colors);
    expect(colored.replace(colors, "")).to.equal(plain);
  });

  it("colour is for a terminal, or for who forces it; a pipe in CI gets none", () => {
    expect(hasColor({ isTTY: true }, {})).to.equal(true);
    expect(hasColor({ isTTY: true }, { NO_COLOR: "1" })).to.equal(false);
    expect(hasColor({ isTTY: true }, { TERM: "dumb" })).to.equal(false);
    expect(hasColor({}, { CI: "true" })).to.equal(false);
    expect(hasColor({}, { FORCE_COLOR: "1" })).to.equal(true);
    expect(hasColor({}, { FORCE_COLOR: "1", NO_COLOR: "1" })).to.equal(false);
  });

  it("every figure that is committed is within its budget's unit", async () => {
    const committed: Record<string, string> = JSON.parse(await readFile(new URL("snapshots/gas.json", root), "utf8"));
    expect(Object.keys(committed).length).to.be.greaterThan(10);
    for (const figure of Object.values(committed)) expect(figure).to.match(/^[1-9][0-9]* (gas|bytes)$/);
  });
});
