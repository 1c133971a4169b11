import { readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { expect } from "chai";
import { Wallet } from "ethers";
import { readSignatures } from "../../src/governance/signatures.ts";
import { planStep } from "../../src/governance/transactions.ts";
import { typedDataOf } from "../../src/governance/typed-data.ts";
import { takeWalletSignature } from "../../src/governance/wallet.ts";
import { placeFiles } from "../../src/governance/wallet-files.ts";
import { errorOf } from "../helpers/errors.ts";
import { folderOf, propose } from "../helpers/governance.ts";

const ROOT = join(import.meta.dirname, "../..");

describe("what the signing page imports", () => {
  it("reaches nothing of Node, no key and no code that signs with one", () => {
    const seen = new Set<string>();
    const packages = new Set<string>();
    const visit = (file: string): void => {
      if (seen.has(file)) return;
      seen.add(file);
      const text = readFileSync(file, "utf8");
      for (const [, found = ""] of text.matchAll(/^(?:(?:import|export)(?! type )|\}).* from "([^"\n]+)";$/gm)) {
        if (found.startsWith(".")) visit(resolve(dirname(file), found));
        else packages.add(found);
      }
      const code = text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
      expect(code, relative(ROOT, file)).to.not.match(/\bBuffer\b|\bprocess\.|\brequire\(|from "node:/);
    };
    visit(join(ROOT, "src/governance/browser.ts"));
    expect([...packages].filter((name) => !/^(@noble\/|ethers(\/|$))/.test(name))).to.deep.equal([]);
    expect(
      [...seen]
        .map((file) => relative(ROOT, file))
        .filter((file) => /governance\/(sign|safe-send|relay|fork|folder)\.ts/.test(file)),
    ).to.deep.equal([]);
    expect(seen.size).to.be.greaterThan(25);
  });

  const operation = propose();
  const planned = planStep(operation, "schedule");

  it("takes a wallet's signature of the step alone, of the named account alone", async () => {
    const [alice, bob] = [Wallet.createRandom(), Wallet.createRandom()];
    const { domain, types, message } = typedDataOf(1n, planned, null);
    const { SafeTx = [] } = types;
    const signature = await alice.signTypedData(domain, { SafeTx: [...SafeTx] }, message);
    const file = takeWalletSignature(operation, planned, alice.address.toLowerCase(), signature);
    const files = new Map([[file.path, new TextEncoder().encode(file.text)]]);
    expect(readSignatures(operation, files).signatures.map(({ signer }) => signer)).to.deep.equal([alice.address]);
    const code = (account: string, given: string) =>
      errorOf(() => takeWalletSignature(operation, planned, account, given)).code;
    expect(code(bob.address, signature)).to.equal("sign/other-signer");
    const other = await alice.signTypedData(domain, { SafeTx: [...SafeTx] }, { ...message, nonce: "6" });
    expect(code(alice.address, other)).to.equal("sign/other-signer");
    expect(code(alice.address, await alice.signMessage(planned.hashes.safeTxHash))).to.equal("sign/other-signer");
    expect(code(alice.address, "0x12")).to.equal("signature/malformed");
  });

  it("puts files where they belong: of a folder, of a folder in a folder, and chosen one by one", async () => {
    const alice = Wallet.createRandom();
    const { domain, types, message } = typedDataOf(1n, planned, null);
    const { SafeTx = [] } = types;
    const signature = await alice.signTypedData(domain, { SafeTx: [...SafeTx] }, message);
    const { path, text } = takeWalletSignature(operation, planned, alice.address, signature);
    const whole = new Map([...folderOf(operation), [path, new TextEncoder().encode(text)]]);
    const under = (prefix: string) => new Map([...whole].map(([name, bytes]) => [`${prefix}${name}`, bytes]));
    for (const [prefix, folder] of [
      ["", undefined],
      ["007-tdx/", "007-tdx"],
      ["deploy/proposals/007-tdx/", "007-tdx"],
    ] as const) {
      const placed = placeFiles(under(prefix));
      expect([[...placed.files.keys()].sort(), placed.folder]).to.deep.equal([[...whole.keys()].sort(), folder]);
    }
    const bare = placeFiles(new Map([...whole].map(([name, bytes]) => [name.split("/").at(-1) ?? name, bytes])));
    expect([...bare.files.keys()].sort()).to.deep.equal([...whole.keys()].sort());
    expect(errorOf(() => placeFiles(new Map())).code).to.equal("proposal/not-found");
    const two = new Map([...under("a/"), ...under("b/")]);
    expect(errorOf(() => placeFiles(two)).code).to.equal("proposal/not-found");
  });
});
