import { expect } from "chai";
import { type Io, inputFile } from "../../src/cli/io.ts";
import { run } from "../../src/cli/main.ts";
import { createOutput, renderTable, safeText } from "../../src/cli/output.ts";
import { KeysteadError } from "../../src/core/errors.ts";
import { buildTdxQuote } from "../helpers/evidence.ts";

const ESC = "\u001b";

/** An outside that keeps what is printed and has one file. */
function fakeIo(
  env: Record<string, string>,
  terminal: boolean,
): Io & { readonly out: string[]; readonly err: string[] } {
  const [out, err]: [string[], string[]] = [[], []];
  const debug = buildTdxQuote({ tdAttributes: Uint8Array.of(1, 0, 0, 0x10, 0, 0, 0, 0) });
  return {
    out,
    err,
    env,
    terminal,
    readFile: async (name) => inputFile(name, debug),
    print: (text) => void out.push(text),
    warn: (text) => void err.push(text),
    askSecret: () => Promise.reject(new Error("no secret is needed")),
    ask: () => Promise.reject(new Error("no secret is needed")),
    interactive: false,
  };
}

describe("cli/output", () => {
  it("colours on a terminal, and not with NO_COLOR, a dumb terminal, a pipe or --json", async () => {
    const cases: readonly [Record<string, string>, boolean, readonly string[], boolean][] = [
      [{}, true, [], true],
      [{ NO_COLOR: "" }, true, [], true],
      [{ NO_COLOR: "1" }, true, [], false],
      [{ TERM: "dumb" }, true, [], false],
      [{}, false, [], false],
      [{}, true, ["--json"], false],
    ];
    for (const [env, terminal, args, colored] of cases) {
      const io = fakeIo(env, terminal);
      expect(await run(["measure", "quote", "x", ...args], io)).to.equal(1);
      expect(io.out.join("").includes(ESC), JSON.stringify([env, terminal, args])).to.equal(colored);
    }
  });

  it("makes control and bidirectional characters visible", () => {
    expect(safeText(`a${ESC}[2J\rb\u202ec\u0000`)).to.equal("a\\u{1b}[2J\\u{d}b\\u{202e}c\\u{0}");
    expect(safeText("zwölf\n")).to.equal("zwölf\n");
    expect(renderTable([[`x${ESC}`, "y"]])).to.equal("x\\u{1b}  y");
    const paint = (text: string) => `${ESC}[31m${text}${ESC}[39m`;
    const table = renderTable([
      [{ text: `x${ESC}`, paint }, "y"],
      ["longer than", "z"],
    ]);
    expect(table).to.equal(`${ESC}[31mx\\u{1b}${ESC}[39m      y\nlonger than  z`);
  });

  it("calls an error that is none of ours a defect, with exit 2", async () => {
    const io: Io = { ...fakeIo({}, false), readFile: () => Promise.reject(new TypeError("boom")) };
    const err: string[] = [];
    expect(await run(["measure", "quote", "x", "--json"], { ...io, warn: (text) => void err.push(text) })).to.equal(2);
    expect(JSON.parse(err.join("")).error).to.include({ code: "internal" });
  });

  it("prints errors with code, argument, remedy, whether to retry, and big numbers as text", () => {
    const io = fakeIo({}, false);
    const error = new KeysteadError("a/b", "went wrong", {
      argument: "x",
      remedy: "do it",
      retryable: true,
      details: { n: 2n ** 70n },
    });
    createOutput(io, { json: false }).error(error);
    expect(io.err.join("")).to.equal(
      "error a/b: went wrong\n  argument: x\n  remedy:   do it\n  Trying again later may help.\n",
    );
    createOutput(io, { json: true }).error(error);
    expect(JSON.parse(io.err.at(-1) ?? "").error).to.deep.equal({
      code: "a/b",
      message: "went wrong",
      argument: "x",
      remedy: "do it",
      retryable: true,
      details: { n: "1180591620717411303424" },
    });
  });
});
