import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { Readable } from "node:stream";
import { expect } from "chai";
import { TypedDataEncoder, Wallet } from "ethers";
import { createIo } from "../../src/cli/io.ts";
import { run } from "../../src/cli/main.ts";
import { writeProposal } from "../../src/governance/folder.ts";
import { ADDRESS_BOOK_FORMAT, parseAddressBook } from "../../src/governance/present/names.ts";
import { hashesToSign } from "../../src/governance/signatures.ts";
import { planTransactions, type StepName } from "../../src/governance/transactions.ts";
import { typedDataOf } from "../../src/governance/typed-data.ts";
import { type CliRun, errorCodeOf, type Folder, jsonOf, makeFolder } from "../helpers/cli.ts";
import { errorOf } from "../helpers/errors.ts";
import { addressOf, folderOf, PARTIES, propose, safeRef } from "../helpers/governance.ts";

const CAST = join(import.meta.dirname, "../../node_modules/.bin/cast");
const PASSWORD = "correct horse battery";

describe("keystead sign", function () {
  this.timeout(60_000);
  const [alice, bob, carol] = [Wallet.createRandom(), Wallet.createRandom(), Wallet.createRandom()];
  let folder: Folder;
  let proposal: string;
  let record: string;
  let book: string;
  let keyFile: string;
  let passwordFile: string;
  const operation = propose();

  before(async () => {
    folder = makeFolder();
    proposal = join(folder.path, operation.id);
    await writeProposal(proposal, folderOf(operation));
    const contract = (number: number) => ({
      ...{ address: addressOf(number), source: "a.sol:A", codeHash: `0x${"00".repeat(32)}` },
      ...{ transaction: `0x${"00".repeat(32)}`, block: 1, constructorArguments: [] },
    });
    const owners = [alice, bob, carol].map(({ address }) => address);
    const safe = (address: string, version: string) => ({ address, version, owners, threshold: 2 });
    record = folder.write(
      "deployment.json",
      JSON.stringify({
        ...{ schema: 1, network: "mainnet", chainId: "1", block: 1, delaySeconds: 172800, roles: [] },
        safes: {
          governance: safe(PARTIES.governance.address, "1.5.0"),
          guardian: safe(PARTIES.guardian.address, "1.4.1"),
        },
        contracts: {
          ...{ policy: contract(1), registry: contract(2), timelock: contract(3), dstackAuth: contract(4) },
          ...{ policyImplementation: contract(5), registryImplementation: contract(6) },
        },
      }),
    );
    book = folder.write(
      "book.json",
      JSON.stringify({ format: ADDRESS_BOOK_FORMAT, names: { [bob.address]: "Bob (Ledger)" } }),
    );
    // written by cast, as the runbooks say
    const where = ["--keystore-dir", folder.path, "--unsafe-password", PASSWORD];
    execFileSync(CAST, ["wallet", "import", "bob", "--private-key", bob.privateKey, ...where]);
    keyFile = join(folder.path, "bob");
    passwordFile = folder.write("password.txt", `${PASSWORD}\n`);
  });
  after(() => folder.remove());

  /** Runs `keystead sign` at a terminal where somebody types `lines`, or elsewhere. */
  async function sign(
    args: readonly string[],
    lines?: readonly string[],
    env: Record<string, string> = {},
  ): Promise<CliRun> {
    const said = { stdout: "", stderr: "" };
    const to = (name: keyof typeof said) => ({
      isTTY: lines !== undefined,
      write: (text: string) => {
        said[name] += text;
      },
    });
    const stdin = Object.assign(Readable.from((lines ?? []).map((line) => `${line}\n`)), {
      isTTY: lines !== undefined,
    });
    const io = createIo({ stdin, stdout: to("stdout"), stderr: to("stderr"), env });
    const code = await run(["sign", proposal, ...args], io);
    return { code, ...said };
  }
  const schedule = (...more: string[]) => [
    "--step",
    "schedule",
    "--deployment",
    record,
    "--address-book",
    book,
    ...more,
  ];
  const byFile = () => ["--key-file", keyFile, "--password-file", passwordFile];

  it("asks on one screen of 80 columns: who, what, which direction, until when, by whom, and both hashes", async () => {
    const asked = await sign(schedule(...byFile()), ["no"], { NO_COLOR: "1" });
    expect([asked.code, asked.stdout]).to.deep.equal([2, ""]);
    expect(asked.stderr).to.include("sign/declined").and.not.include("\u001b");
    const screen = asked.stderr.slice(0, asked.stderr.indexOf("error "));
    const lines = screen.split("\n");
    expect(lines.length).to.be.at.most(25);
    for (const line of lines) expect(line.length, line).to.be.at.most(80);
    const one = screen.replaceAll(/\s+/g, " ");
    expect(one).to.match(/^You governance Safe, owner 2 of 3: Bob \(Ledger\) 2 of 3 must sign; nobody has signed/);
    expect(one)
      .to.include("Step schedule of 007-tdx")
      .and.include("Does Puts the proposal into the timelock. Nothing changes");
    expect(one).to.include("Changes LOOSENS: allow the TDX platform");
    expect(one).to.match(
      /Stop Until it is executed, at the earliest \d{4}-.* by the governance Safe or the guardian Safe, each alone/,
    );
    // names, and no hex but what the device shows
    const hashes = planTransactions(operation)[0]?.hashes;
    const hex = [...screen.matchAll(/0x[0-9a-fA-F]{8,}/g)].map(([found]) => found);
    expect(hex).to.deep.equal([hashes?.domainHash, hashes?.messageHash, hashes?.safeTxHash]);
    expect(lines.at(-1), "the question comes last").to.equal("Sign it? Type yes or no: ");
  });

  it("signs on yes alone, and says by name who did", async () => {
    for (const answer of ["", "nein", "yess", "n"]) {
      const refused = await sign(schedule(...byFile()), [answer]);
      expect(refused.code, answer).to.equal(2);
      expect(refused.stderr).to.include("sign/declined");
    }
    const signed = await sign(schedule(...byFile()), ["Yes"]);
    expect(signed.code, signed.stderr).to.equal(0);
    expect(signed.stdout).to.match(/^Bob \(Ledger\) signed: signatures\//);
    const next = await sign(schedule("--show"));
    expect(next.stderr.replaceAll(/\s+/g, " ")).to.include("2 of 3 must sign; signed by Bob (Ledger)");
  });

  it("where nobody can be asked: a key signs with --yes alone", async () => {
    const env = { KEYSTEAD_SIGNER_KEY: alice.privateKey };
    for (const [args, lines] of [
      [schedule("--json"), undefined],
      [schedule("--json"), ["yes"]],
    ] as const) {
      const refused = await sign(args, lines, env);
      expect([refused.code, errorCodeOf(refused)]).to.deep.equal([2, "usage/not-confirmed"]);
    }
    const signed = await sign(schedule("--json", "--yes"), undefined, env);
    expect([signed.code, jsonOf(signed).signature.signer]).to.deep.equal([0, alice.address]);
  });

  it("takes an encrypted key file, its password asked for or read, and shows neither", async () => {
    const typed = await sign(["--step", "execute", "--deployment", record, "--key-file", keyFile, "--yes"], [PASSWORD]);
    expect(typed.code, typed.stderr).to.equal(0);
    expect(typed.stdout + typed.stderr)
      .to.not.include(PASSWORD)
      .and.not.include(bob.privateKey.slice(2));
    const wrong = folder.write("wrong.txt", "wrong");
    for (const [more, code] of [
      [["--key-file", keyFile, "--password-file", wrong], "key/wrong-password"],
      [["--key-file", record, "--password-file", wrong], "key/not-a-key-file"],
      [["--key-file", join(folder.path, "none.json")], "input/not-found"],
    ] as const) {
      const refused = await sign(schedule("--yes", "--json", ...more));
      expect([refused.code, errorCodeOf(refused)]).to.deep.equal([2, code]);
    }
  });

  it("tells each step as what it is: cancelling stops, rolling back undoes, executing makes it happen", async () => {
    const told: Readonly<Record<StepName, readonly RegExp[]>> = {
      schedule: [/Puts the proposal into the timelock/, /LOOSENS/],
      execute: [/Makes the proposal happen now/, /LOOSENS/, /guardian Safe can undo it afterwards, at once/],
      cancel: [/Cancels the proposal while it waits/, /nothing gets looser or tighter/],
      rollback: [/Undoes, at once, what the proposal did/, /TIGHTENS: revoke platform/],
      "rollback-execute": [],
    };
    for (const [step, wanted] of Object.entries(told)) {
      if (wanted.length === 0) continue;
      const safe = step === "cancel" ? ["--safe", PARTIES.guardian.address] : [];
      const shown = await sign(["--step", step, "--show", "--deployment", record, ...safe]);
      const text = shown.stderr.replaceAll(/\s+/g, " ");
      expect(shown.code, shown.stderr).to.equal(0);
      for (const words of wanted) expect(text, step).to.match(words);
      if (step === "cancel" || step === "rollback") expect(text, step).to.not.include("LOOSENS");
      if (step === "cancel" || step === "rollback") expect(text, step).to.match(/^You guardian Safe/);
    }
  });

  it("is loud about who is no owner, who has no name, and what no record says", async () => {
    const stranger = Wallet.createRandom();
    const other = await sign(schedule("--yes", "--show"), undefined, { KEYSTEAD_SIGNER_KEY: stranger.privateKey });
    expect(other.code).to.equal(0);
    const asked = await sign(schedule(), ["no"], { KEYSTEAD_SIGNER_KEY: stranger.privateKey, NO_COLOR: "1" });
    expect(asked.stderr.replaceAll(/\s+/g, " ")).to.include(`NOT AN OWNER of the governance Safe: ${stranger.address}`);
    const bare = await sign(["--step", "schedule", "--show"]);
    const text = bare.stderr.replaceAll(/\s+/g, " ");
    expect(text).to.include("no record was given").and.to.include("Not checked: no chain was asked");
    expect(text).to.include(`the proposing Safe ${PARTIES.governance.address}`);
    // a proposal whose canceller is nobody of the record
    const strange = { ...propose({ id: "008-x" }), cancellers: [safeRef(77, 0n)] };
    const where = join(folder.path, "008-x");
    await writeProposal(where, folderOf(strange));
    const said: string[] = [];
    const to = { write: (line: string) => said.push(line) };
    const io = createIo({ stdin: Readable.from([]), stdout: to, stderr: to, env: {} });
    await run(["sign", where, "--step", "schedule", "--show", "--deployment", record], io);
    expect(said.join("")).to.match(/UNKNOWN +in neither the record nor the address book:\s+0x/);
    expect(said.join("")).to.include(addressOf(77));
  });

  it("gives EIP-712 JSON that cast, with a key of its own, signs to a signature that counts", async () => {
    const printed = await sign(schedule("--typed-data"));
    expect(printed.code, printed.stderr).to.equal(0);
    const file = folder.write("step.json", printed.stdout);
    const made = execFileSync(
      CAST,
      ["wallet", "sign", "--keystore", keyFile, "--password-file", passwordFile, "--data", "--from-file", file],
      { encoding: "utf8" },
    );
    const taken = await sign(schedule("--signature", folder.write("signature.txt", made), "--json"));
    expect(taken.stderr).to.equal("");
    expect([taken.code, jsonOf(taken).signature.signer, jsonOf(taken).signature.kind]).to.deep.equal([
      ...[0, bob.address, "eip712"],
    ]);
    // trezorctl and wallets label what they give
    const labelled = folder.write("labelled.txt", `message_hash: 0x${"11".repeat(32)}\nsignature: ${made}`);
    expect(jsonOf(await sign(schedule("--signature", labelled, "--json"))).signature.signer).to.equal(bob.address);
    const two = folder.write("two.txt", `signature: ${made}\nsignature: ${made}`);
    expect(errorCodeOf(await sign(schedule("--signature", two, "--json")))).to.equal("hex/malformed");
  });

  it("gives typed data that hashes to what the proposal says, for every step and through an owner that is a Safe", () => {
    const enable = { intent: "enable-tee", arguments: { kind: "tdx" } };
    const several = propose({ intents: [enable, { ...enable, arguments: { kind: "snp" } }] });
    for (const planned of [...planTransactions(operation), ...planTransactions(several)]) {
      for (const through of [null, addressOf(90)]) {
        const { domain, types, primaryType, message } = typedDataOf(1n, planned, through);
        const fields = { [primaryType]: [...(types[primaryType] ?? [])] };
        const expected = hashesToSign(1n, planned, through).safeTxHash;
        expect(TypedDataEncoder.hash(domain, fields, message)).to.equal(expected);
        expect(domain.verifyingContract).to.equal(through ?? planned.safe.address);
      }
    }
  });

  it("shows both hashes as a QR code that fits the terminal", async () => {
    const shown = await sign(schedule("--show", "--qr"));
    const code = shown.stderr.split("\n").filter((line) => /[▀▄█]/.test(line));
    expect(code.length).to.be.greaterThan(15);
    for (const line of code) expect(line.length).to.be.at.most(80);
  });
});

describe("an address book", () => {
  const json = (names: object) => JSON.stringify({ format: ADDRESS_BOOK_FORMAT, names });
  const address = addressOf(50);

  it("is JSON of this project's, or what Safe{Wallet} exports, for the chain at hand", () => {
    expect([...parseAddressBook(json({ [address.toLowerCase()]: "Alice" }), 1n)]).to.deep.equal([[address, "Alice"]]);
    const csv = `address,name,chainId\n${address},Alice,1\n"${addressOf(51)}","Bob, home",1\n${addressOf(52)},Carol,10\n`;
    expect([...parseAddressBook(csv, 1n)]).to.deep.equal([
      [address, "Alice"],
      [addressOf(51), "Bob, home"],
    ]);
  });

  for (const [why, text] of Object.entries({
    "another format": JSON.stringify({ format: "x", names: {} }),
    "a field nobody knows": JSON.stringify({ format: ADDRESS_BOOK_FORMAT, names: {}, more: 1 }),
    "what is no address": json({ "0x12": "Alice" }),
    "a wrong checksum": json({ "0xFB6916095CA1df60bB79Ce92cE3Ea74c37c5d359": "Alice" }),
    "an empty name": json({ [address]: "" }),
    "a name that hides": json({ [address]: "Ali\u200bce" }),
    "a homoglyph": json({ [address]: "Аlice" }),
    "a name like an address": json({ [address]: "0x1234" }),
    "the name of a party of the record": json({ [address]: "Guardian Safe" }),
    "one name for two": json({ [address]: "Alice", [addressOf(51)]: "alice" }),
    "a CSV of other columns": "name,address\n",
    "a CSV line that is cut": `address,name,chainId\n${address},Alice\n`,
  })) {
    it(`refuses ${why}`, () => {
      expect(errorOf(() => parseAddressBook(text, 1n)).code).to.equal("address-book/malformed");
    });
  }
});
