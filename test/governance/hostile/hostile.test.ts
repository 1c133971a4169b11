import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect } from "chai";
import type { OptionValues } from "../../../src/cli/chain-input.ts";
import { createIo } from "../../../src/cli/io.ts";
import { openProposal } from "../../../src/cli/proposal-input.ts";
import { isKeysteadError } from "../../../src/core/errors.ts";
import { verdictOf } from "../../../src/governance/judge.ts";
import type { StepName } from "../../../src/governance/transactions.ts";
import { verifyProposal } from "../../../src/governance/verify.ts";
import { HOSTILE } from "./folders.ts";
import { GOOD } from "./good.ts";
import { type Made, recordOf } from "./stage.ts";

const deployment = recordOf();
const io = createIo(process);

/** What `verify` exits with, and every code that it names. */
function verify({ operation, files }: Made): { readonly exit: number; readonly codes: readonly string[] } {
  const found = verifyProposal(files, { folder: operation.id, deployment });
  const codes = [...found.differences, ...found.warnings].map(({ code }) => code);
  const exit = found.ok ? { fine: 0, unsure: 2, unsafe: 1 }[verdictOf(found.warnings)] : 1;
  return { exit, codes };
}

describe("hostile but consistent folders", function () {
  this.timeout(60_000);
  let root: string;
  let record: string;
  before(() => {
    root = mkdtempSync(join(tmpdir(), "keystead-hostile-"));
    record = join(root, "record.json");
    writeFileSync(record, recordText());
  });
  after(() => rmSync(root, { recursive: true, force: true }));

  /** The record as its file has it: addresses and delay count here, code does not. */
  function recordText(): string {
    const hash = `0x${"11".repeat(32)}`;
    const { contracts, safes } = deployment;
    return JSON.stringify({
      ...deployment,
      chainId: deployment.chainId.toString(),
      safes: Object.fromEntries(
        Object.entries(safes).map(([name, safe]) => [name, { ...safe, owners: [safe.address] }]),
      ),
      contracts: Object.fromEntries(
        Object.entries(contracts).map(([name, one]) => [name, { ...one, codeHash: hash, transaction: hash }]),
      ),
    });
  }

  /** What a command that acts on a folder says before it does anything: `goes`, or its refusal's code. */
  async function gate(made: Made, step: StepName, options: OptionValues = {}): Promise<string> {
    const folder = join(root, made.operation.id);
    rmSync(folder, { recursive: true, force: true });
    for (const [name, bytes] of made.files) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), bytes);
    }
    try {
      await openProposal(io, folder, { deployment: record, ...options }, step);
      return "goes";
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
      return error.code;
    }
  }

  it("are at least sixty, and no two have one name", () => {
    expect(HOSTILE.length).to.be.greaterThanOrEqual(60);
    expect(new Set(HOSTILE.map(({ name }) => name)).size).to.equal(HOSTILE.length);
  });

  for (const folder of HOSTILE) {
    it(folder.name, async () => {
      const made = folder.make();
      const { exit, codes } = verify(made);
      expect(codes).to.include.members([...folder.says]);
      expect(exit, `verify, which names ${codes}`).to.equal(folder.verify);
      const { timelock } = made.operation;
      const first: StepName = timelock === null ? "execute" : "schedule";
      expect(await gate(made, first), "sign, simulate, execute").to.equal(folder.acting);
      expect(await gate(made, "rollback"), "rollback").to.equal(folder.rollback);
      expect(await gate(made, "cancel"), "cancel").to.equal(folder.cancel);
      if (folder.acting !== "proposal/unsafe") return;
      const named = { accept: [...new Set(codes)].join(",") };
      expect(await gate(made, first, named), "accepted by name").to.equal("goes");
    });
  }
});

describe("good folders", function () {
  this.timeout(60_000);

  it("are at least sixty", () => expect(GOOD.length).to.be.greaterThanOrEqual(60));

  for (const [i, { name, make }] of GOOD.entries()) {
    it(`${i + 1}: ${name}`, () => {
      expect(verify(make())).to.deep.equal({ exit: 0, codes: [] });
    });
  }
});
