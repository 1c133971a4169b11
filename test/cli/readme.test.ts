import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { keysteadHere } from "../helpers/cli.ts";

const SRC = join(import.meta.dirname, "..", "..", "src");

describe("READMEs of core, chain, audit and cli", () => {
  for (const room of ["core", "chain", "audit", "cli"]) {
    const text = readFileSync(join(SRC, room, "README.md"), "utf8");

    it(`src/${room}/README.md lists only what is there`, () => {
      const tree = text.split("```")[1] ?? "";
      const names = [...tree.matchAll(/^((?:[\w./-]+(?:, )?)+)/gm)].flatMap(([, names = ""]) => names.split(", "));
      expect(names.length).to.be.greaterThan(5);
      for (const name of names) expect(existsSync(join(SRC, room, name)), name).to.equal(true);
    });
  }

  it("src/cli/README.md shows commands and options that exist", async () => {
    const text = readFileSync(join(SRC, "cli", "README.md"), "utf8");
    const lines = [...text.matchAll(/^keystead (\w+) (\w+) (.*)$/gm)];
    expect(lines.length).to.be.greaterThan(4);
    for (const [, command = "", subcommand = "", rest = ""] of lines) {
      const help = await keysteadHere([command, subcommand, "--help"]);
      expect(help.stdout, `${command} ${subcommand}`).to.match(
        new RegExp(`^Usage: keystead ${command} ${subcommand} `),
      );
      for (const [option] of rest.matchAll(/--\w+/g)) expect(help.stdout).to.include(option);
    }
  });
});
