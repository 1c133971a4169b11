import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { writeProposal } from "../../src/governance/folder.ts";
import { planTransactions } from "../../src/governance/transactions.ts";
import { errorCodeOf, type Folder, jsonOf, keysteadHere, makeFolder } from "../helpers/cli.ts";
import { addressOf, folderOf, propose } from "../helpers/governance.ts";

describe("keystead report", function () {
  this.timeout(60_000);
  let folder: Folder;
  const operation = propose({
    title: "<img src=x onerror=alert(1)> ```` **bold**",
    intents: [
      {
        intent: "allow-platform",
        arguments: { image: `snp:measurement=${"ab".repeat(48)}`, description: "</pre><script>alert(1)</script> ````" },
      },
    ],
  });
  let proposal: string;
  before(async () => {
    folder = makeFolder();
    proposal = join(folder.path, operation.id);
    await writeProposal(proposal, folderOf(operation));
  });
  after(() => folder.remove());
  const report = (...args: string[]) => keysteadHere(["report", proposal, ...args]);

  it("prints the first screen: effect, delay, veto, risk in 80 columns", async () => {
    const run = await report();
    expect(run.code, run.stderr).to.equal(0);
    const lines = run.stdout.split("\n");
    expect(lines.length).to.be.at.most(25);
    for (const line of lines) expect(line.length, line).to.be.at.most(80);
    for (const label of ["Effect", "Delay", "Veto", "Risk"]) expect(run.stdout).to.match(new RegExp(`^${label} `, "m"));
    expect(jsonOf(await report("--json")).changes[0].direction).to.equal("loosens");
  });

  it("makes one page that loads nothing, runs nothing, and shows every pair of hashes with a code", async () => {
    const out = join(folder.path, "REPORT.html");
    expect((await report("--html", "--out", out)).code).to.equal(0);
    const html = readFileSync(out, "utf8");
    expect(html).to.include("Content-Security-Policy").and.include("default-src 'none'");
    expect(html).to.not.match(/<script|<img|<link|onerror=alert\(1\)>|https?:\/\/(?!www\.w3\.org)/i);
    expect(html).to.include("&lt;/pre&gt;&lt;script&gt;");
    const steps = planTransactions(operation);
    for (const { hashes } of steps) expect(html).to.include(hashes.domainHash).and.include(hashes.messageHash);
    expect(html.match(/<svg /g)).to.have.length(steps.length);
    expect(html.indexOf("Effect")).to.be.lessThan(html.indexOf(steps[0]?.hashes.domainHash ?? ""));
    // every block of the report is in it, whole
    const text = readFileSync(join(proposal, "REPORT.md"), "utf8");
    const plain = html
      .replaceAll(/<[^>]*>/g, "")
      .replaceAll("&lt;", "<")
      .replaceAll("&gt;", ">")
      .replaceAll("&quot;", '"')
      .replaceAll("&#39;", "'")
      .replaceAll("&amp;", "&");
    for (const [, , block = ""] of text.matchAll(/^(`{3,})\w+\n([\s\S]*?)\n\1$/gm)) expect(plain).to.include(block);
  });

  it("makes a comment for a pull request: the screen open, the rest folded, text from outside in blocks", async () => {
    const run = await report("--comment");
    expect(run.code).to.equal(0);
    expect(run.stdout.startsWith("<!-- keystead report 007-tdx -->\n")).to.equal(true);
    expect(run.stdout.length).to.be.below(65_536);
    const open = run.stdout.slice(0, run.stdout.indexOf("<details>"));
    for (const label of ["Effect", "Delay", "Veto", "Risk"]) expect(open).to.match(new RegExp(`^${label} `, "m"));
    expect(run.stdout.match(/<details>/g)?.length).to.equal(run.stdout.match(/<\/details>/g)?.length);
    const outside = run.stdout.replaceAll(/^(`{3,})\w+\n[\s\S]*?\n\1$/gm, "");
    expect(outside).to.not.include("<script>").and.not.include("<img");
  });

  it("stays below what a comment may hold, and says what is left out", async () => {
    const many = propose({
      id: "008-many",
      intents: Array.from({ length: 150 }, (_, i) => ({
        intent: "revoke-platform",
        arguments: { platform: `0x${(i + 16).toString(16).repeat(32).slice(0, 64)}`, reason: "w".repeat(250) },
      })),
    });
    const where = join(folder.path, "008-many");
    await writeProposal(where, folderOf(many));
    const run = await keysteadHere(["report", where, "--comment"]);
    expect(run.code, run.stderr).to.equal(0);
    expect(run.stdout.length).to.be.below(65_536);
    expect(run.stdout).to.include("read it in REPORT.md:");
  });

  it("has no form of a folder that does not verify but its refusal", async () => {
    const file = join(proposal, "REPORT.md");
    const good = readFileSync(file, "utf8");
    writeFileSync(file, good.replace("LOOSENS", "TIGHTENS"));
    for (const form of [[], ["--html"]]) {
      const run = await report(...form, "--json");
      expect([run.stdout, errorCodeOf(run)]).to.deep.equal(["", "proposal/not-verified"]);
      expect(run.code).to.equal(1);
    }
    const comment = await report("--comment");
    expect([comment.code, comment.stdout.includes("DON'T SIGN")]).to.deep.equal([1, true]);
    expect(comment.stdout).to.not.include("TIGHTENS:");
    writeFileSync(file, good);
    const two = await report("--html", "--comment", "--json");
    expect([two.code, errorCodeOf(two)]).to.deep.equal([2, "usage/format"]);
    const call = propose({
      id: "009-call",
      intents: [{ intent: "call", arguments: { to: addressOf(60), data: "0xdeadbeef" } }],
    });
    await writeProposal(join(folder.path, "009-call"), folderOf(call));
    expect((await keysteadHere(["report", join(folder.path, "009-call")])).code).to.equal(2);
  });
});
