import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { COMMANDS } from "../../src/cli/commands.ts";
import { keystead, keysteadHere } from "../helpers/cli.ts";

const FOLDER = join(import.meta.dirname, "..", "..", "src", "cli", "commands");

describe("commands", () => {
  it("every file and folder of commands is one that can be asked for, and loads as what it is listed as", async () => {
    const files = readdirSync(FOLDER).map((name) => name.replace(/\.ts$/, ""));
    expect(Object.keys(COMMANDS)).to.deep.equal(files.sort());
    for (const [name, { load }] of Object.entries(COMMANDS)) {
      const file = files.includes(name) && readdirSync(FOLDER).includes(name) ? `${name}/index.ts` : `${name}.ts`;
      expect((await load()).command, name).to.equal((await import(join(FOLDER, file))).command);
    }
  });

  it("given no command, lists each with its summary; given help and a command, says what that one takes", () => {
    const flat = (text: string) => text.replace(/\s+/g, " ");
    const { stdout, code } = keystead(["--help"]);
    expect(code).to.equal(0);
    for (const [name, { summary }] of Object.entries(COMMANDS)) expect(flat(stdout)).to.include(`${name} ${summary}`);
    expect(keystead(["help", "decode"]).stdout)
      .to.equal(keystead(["decode", "--help"]).stdout)
      .and.include("Usage: keystead decode");
  });

  it("given a word or option that it does not know, points to the help that says which there are", async () => {
    for (const [line, help] of [
      ["node chek", "keystead node --help"],
      ["secrets seel", "keystead secrets --help"],
      ["secrets key --cnfig x", "keystead secrets key --help"],
      ["--json agent", "keystead agent --help"],
      ["frobnicate", "keystead --help"],
    ] as const)
      expect((await keysteadHere(line.split(" "))).stderr, line).to.include(`See ${help}.`);
  });

  it("given no command of its own, refuses it, whatever JavaScript calls so", () => {
    for (const word of ["frobnicate", "constructor", "__proto__", "toString"])
      expect(keystead([word]), word).to.include({ code: 2, stdout: "" });
  });
});
