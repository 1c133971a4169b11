import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect } from "chai";
import { Wallet } from "ethers";
import { writeProposal } from "../../src/governance/folder.ts";
import { errorCodeOf, type Folder, jsonOf, keystead, makeFolder } from "../helpers/cli.ts";
import { PROGRAM_ENVIRONMENT } from "../helpers/environment.ts";
import { folderOf, propose } from "../helpers/governance.ts";

const ROOT = join(import.meta.dirname, "../..");

describe("keys of the command line", () => {
  let folder: Folder;
  let proposal: string;
  let home: Readonly<Record<string, string>>;
  const wallet = Wallet.createRandom();
  before(async () => {
    folder = makeFolder();
    home = { XDG_CONFIG_HOME: folder.path, HOME: folder.path };
    proposal = join(folder.path, "007-tdx");
    await writeProposal(proposal, folderOf(propose()));
  });
  after(() => folder.remove());

  it("come from Hardhat's keystore by name", () => {
    const hardhat = join(ROOT, "node_modules/hardhat/dist/src/cli.js");
    const { status, stderr } = spawnSync(process.execPath, [hardhat, "keystore", "set", "--dev", "OWNER_KEY"], {
      ...{ cwd: ROOT, input: `${wallet.privateKey}\n`, encoding: "utf8", timeout: 120_000 },
      env: { ...PROGRAM_ENVIRONMENT, ...home },
    });
    expect(status, stderr).to.equal(0);
    const args = ["sign", proposal, "--step", "schedule", "--yes", "--json", "--keystore"];
    const run = keystead([...args, "OWNER_KEY"], { env: home });
    expect([run.code, run.stderr]).to.deep.equal([0, ""]);
    expect(jsonOf(run).signature.signer).to.equal(wallet.address);
    expect(jsonOf(run).unchecked.join()).to.include("owner");
    expect(run.stdout).to.not.include(wallet.privateKey.slice(2));
    const missing = keystead([...args, "NOBODY_KEY"], { env: home });
    expect([missing.code, errorCodeOf(missing)]).to.deep.equal([2, "key/not-in-keystore"]);
  }).timeout(300_000);

  it("given a keystore with a password: it is asked for on standard error, and standard output is the document alone", () => {
    const password = "correct horse battery";
    const stored = Wallet.createRandom();
    const program = `
      import { createHardhatRuntimeEnvironment } from "hardhat/hre";
      import keystore from "@nomicfoundation/hardhat-keystore";
      const answers = ${JSON.stringify([password, password, stored.privateKey])};
      const hooks = { userInterruptions: async () => ({ default: async () => ({ requestSecretInput: async () => answers.shift() }) }) };
      const hre = await createHardhatRuntimeEnvironment({ plugins: [keystore, { id: "answers", hookHandlers: hooks }] });
      await hre.tasks.getTask(["keystore", "set"]).run({ key: "LOCKED_KEY", dev: false, force: false });
    `;
    const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      ...{ cwd: ROOT, encoding: "utf8", timeout: 120_000, env: { ...PROGRAM_ENVIRONMENT, ...home } },
    });
    expect(status, stderr).to.equal(0);
    const args = ["sign", proposal, "--step", "schedule", "--yes", "--json", "--keystore", "LOCKED_KEY"];
    const run = keystead(args, { env: home, input: `${password}\n` });
    expect([run.code, jsonOf(run).signature.signer]).to.deep.equal([0, stored.address]);
    expect(run.stderr).to.match(/^\[[\w-]+\] [^\n]*password[^\n]*: \n$/i);
    expect(run.stdout + run.stderr).to.not.include(password);

    for (const [input, code] of [
      ["wrong horse battery\n", "key/not-in-keystore"],
      ["", "input/no-answer"],
    ] as const) {
      const refused = keystead(args, { env: home, input });
      expect([refused.code, refused.stdout]).to.deep.equal([2, ""]);
      // the question comes before the error's document
      expect(JSON.parse(refused.stderr.slice(refused.stderr.indexOf("\n"))).error.code).to.equal(code);
    }
  }).timeout(300_000);

  it("come from the environment, and are no argument", () => {
    const args = ["sign", proposal, "--step", "execute", "--yes", "--json"];
    const none = keystead(args);
    expect([none.code, errorCodeOf(none)]).to.deep.equal([2, "key/missing"]);
    const run = keystead(args, { env: { KEYSTEAD_SIGNER_KEY: wallet.privateKey } });
    expect([run.code, jsonOf(run).written]).to.deep.equal([0, true]);
    const argument = keystead([...args, "--key", wallet.privateKey]);
    expect([argument.code, errorCodeOf(argument)]).to.deep.equal([2, "usage/unknownOption"]);
  }).timeout(300_000);
});
