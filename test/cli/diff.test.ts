import { expect } from "chai";
import { errorCodeOf, jsonOf, keystead, makeFolder } from "../helpers/cli.ts";
import { buildNitroDocument, buildNitroPcrJson, buildSnpReport, buildTdxQuote, fill } from "../helpers/evidence.ts";

const digits = (byte: number, width = 48) => byte.toString(16).padStart(2, "0").repeat(width);
const functionsOf = (document: { diff: { calls: { function: string }[] } }) =>
  document.diff.calls.map((call) => call.function);

describe("keystead measure diff", () => {
  const folder = makeFolder();
  after(() => folder.remove());
  const old = folder.write("old.bin", buildTdxQuote());
  const workload = folder.write("workload.bin", buildTdxQuote({ rtMr3: fill(48, 0x77) }));
  const system = folder.write("system.bin", buildTdxQuote({ rtMr1: fill(48, 0x78) }));
  const newer = folder.write("newer.bin", buildTdxQuote({ version: 5, reportData: fill(64, 1) }));

  it("exits 0 where every register of the images is the same, even if the evidence is not", () => {
    const run = keystead(["measure", "diff", old, newer, "--json"]);
    expect(run.code).to.equal(0);
    expect(jsonOf(run).diff).to.include({ service: "unchanged", platform: "unchanged", governanceNeeded: false });
    expect(jsonOf(run).diff.calls).to.deep.equal([]);
    expect(keystead(["measure", "diff", old, newer]).stdout).to.include("Unchanged: nothing needs to be registered.");
  });

  it("exits 1 where the workload changed, with the service's calls ready", () => {
    const run = keystead(["measure", "diff", old, workload, "--json"]);
    expect(run.code).to.equal(1);
    const document = jsonOf(run);
    expect(document.diff).to.include({ service: "changed", platform: "unchanged", governanceNeeded: true });
    expect(functionsOf(document)).to.deep.equal(["addImageToService", "retireImageFromService"]);
    const after = jsonOf(keystead(["measure", "quote", workload, "--json"])).images.service;
    const before = jsonOf(keystead(["measure", "quote", old, "--json"])).images.service;
    expect(document.diff.calls[0].arguments.image).to.equal(after.bytes);
    expect(document.diff.calls[1].arguments.imageId).to.equal(before.id);
    const changed = document.diff.registers.filter((one: { verdict: string }) => one.verdict === "changed");
    expect(changed).to.deep.equal([
      {
        name: "rtmr3",
        verdict: "changed",
        service: true,
        platform: false,
        old: `0x${digits(0xb3)}`,
        new: `0x${digits(0x77)}`,
      },
    ]);
    const plain = keystead(["measure", "diff", old, workload]);
    expect(plain.code).to.equal(1);
    expect(plain.stdout).to.include("KmsRegistry.addImageToService").and.include(after.bytes);
  });

  it("names the platform's calls before the service's where firmware or system changed", () => {
    const document = jsonOf(keystead(["measure", "diff", old, system, "--json"]));
    expect(functionsOf(document)).to.deep.equal([
      "allowPlatform",
      "revokePlatform",
      "addImageToService",
      "retireImageFromService",
    ]);
    const platforms = [old, system].map(
      (file) => jsonOf(keystead(["measure", "quote", file, "--json"])).images.platform,
    );
    expect(document.diff.calls[0].arguments.image).to.equal(platforms[1].bytes);
    expect(document.diff.calls[1].arguments.platformId).to.equal(platforms[0].id);
  });

  it("names the policy's calls for a node of the KMS", () => {
    const document = jsonOf(keystead(["measure", "diff", old, workload, "--role", "kms-node", "--json"]));
    expect(functionsOf(document)).to.deep.equal(["allowKmsImage", "revokeKmsImage"]);
  });

  it("makes no call ready for a machine that must not get keys, and exits 1", () => {
    const attributes = Uint8Array.of(1, 0, 0, 0x10, 0, 0, 0, 0);
    const debug = folder.write("debug.bin", buildTdxQuote({ tdAttributes: attributes, rtMr3: fill(48, 0x79) }));
    const run = keystead(["measure", "diff", old, debug, "--json"]);
    expect(run.code).to.equal(1);
    expect(jsonOf(run)).to.include({ unsafe: true });
    expect(jsonOf(run).diff.calls).to.deep.equal([]);
    expect(jsonOf(run).diff.problems).to.have.length(1);
    const same = folder.write("same-but-debug.bin", buildTdxQuote({ tdAttributes: attributes }));
    expect(keystead(["measure", "diff", old, same]).code).to.equal(1);
  });

  it("makes no call ready for an image that the contract refuses, and says why", () => {
    const idle = folder.write("idle.bin", buildTdxQuote({ rtMr3: fill(48, 0) }));
    const run = keystead(["measure", "diff", old, idle, "--json"]);
    expect(run.code).to.equal(1);
    expect(jsonOf(run).diff.calls).to.deep.equal([]);
    expect(jsonOf(run).diff.problems[0]).to.include("image/zero-register");
  });

  it("counts exactly the registers of a registered image, and what it leaves out matches anything", () => {
    const registered = `tdx:mrtd=${digits(0xa0)},rtmr1=${digits(0xb1)},rtmr2=${digits(0xb2)},rtmr3=${digits(0xb3)}`;
    const resized = folder.write("resized.bin", buildTdxQuote({ rtMr0: fill(48, 0x33) }));
    expect(keystead(["measure", "diff", registered, resized]).code).to.equal(0);
    expect(keystead(["measure", "diff", old, resized]).code).to.equal(1);
    const run = keystead(["measure", "diff", registered, workload, "--json"]);
    expect(run.code).to.equal(1);
    expect(jsonOf(run).diff.calls[0].arguments.image.slice(0, 14)).to.equal("0x01010000001d");
    const bytes = jsonOf(keystead(["image", "show", registered, "--json"])).bytes;
    expect(keystead(["measure", "diff", bytes, resized]).code).to.equal(0);
  });

  it("compares with a platform image as a platform alone", () => {
    expect(keystead(["measure", "diff", `tdx:mrtd=${digits(0xa0)}`, workload]).code).to.equal(0);
    const run = keystead(["measure", "diff", `tdx:mrtd=${digits(0xaa)}`, workload, "--json"]);
    expect(run.code).to.equal(1);
    expect(functionsOf(jsonOf(run))).to.deep.equal(["allowPlatform", "revokePlatform"]);
  });

  it("compares with a saved measurement", () => {
    const saved = folder.write("saved.json", keystead(["measure", "quote", old, "--json"]).stdout);
    expect(keystead(["measure", "diff", saved, newer]).code).to.equal(0);
    expect(keystead(["measure", "diff", saved, workload]).code).to.equal(1);
    const tampered = folder.write(
      "tampered.json",
      keystead(["measure", "quote", old, "--json"]).stdout.replace('"value": "0xa0', '"value": "0xA0'),
    );
    expect(errorCodeOf(keystead(["measure", "diff", tampered, old, "--json"]))).to.equal("image/register-value");
    expect(
      errorCodeOf(
        keystead(["measure", "saved", folder.write("half.json", '{"format":"keystead.measurement/1"}'), "--json"]),
      ),
    ).to.equal("measurement/malformed");
  });

  it("compares a document with the PCRs that the build printed", () => {
    const document = folder.write("doc.cose", buildNitroDocument());
    expect(keystead(["measure", "diff", folder.write("pcrs.json", buildNitroPcrJson()), document]).code).to.equal(0);
    const rebuilt = folder.write("rebuilt.json", buildNitroPcrJson({ PCR2: digits(0x10) }));
    expect(keystead(["measure", "diff", document, rebuilt]).code).to.equal(1);
  });

  it("exits 2 where one side lacks a register that counts", () => {
    const partial = folder.write("partial.json", buildNitroPcrJson().replace(/,\s*"PCR2": "[0-9a-f]+"/, ""));
    const run = keystead(["measure", "diff", folder.write("full.json", buildNitroPcrJson()), partial, "--json"]);
    expect(run.code).to.equal(2);
    expect(jsonOf(run).diff).to.include({ service: "unknown", governanceNeeded: null });
  });

  it("exits 2 for two kinds, for what it does not know, and for an id", () => {
    const report = folder.write("report.bin", buildSnpReport());
    const codes: readonly [readonly string[], string][] = [
      [[old, report], "measure/different-kinds"],
      [[old, folder.write("note.txt", "hello\n")], "measure/undetected"],
      [[old, old, "--as", "nonsense"], "measure/unknown-reader"],
      [[old, report, "--as", "quote"], "measure/wrong-input"],
      [[old, "0x".padEnd(66, "ab")], "image/id-alone"],
    ];
    for (const [args, code] of codes) {
      const run = keystead(["measure", "diff", ...args, "--json"]);
      expect(run.code, code).to.equal(2);
      expect(errorCodeOf(run)).to.equal(code);
    }
    expect(keystead(["measure", "diff", old, newer, "--old-as", "quote", "--new-as", "quote"]).code).to.equal(0);
  });

  it("reads one side from standard input", () => {
    expect(keystead(["measure", "diff", old, "-"], { input: buildTdxQuote() }).code).to.equal(0);
    const twice = keystead(["measure", "diff", "-", "-", "--json"], { input: buildTdxQuote() });
    expect(twice.code).to.equal(2);
    expect(errorCodeOf(twice)).to.equal("input/stdin-twice");
  });

  it("leaves out of the comparison what the user leaves out of the image", () => {
    const resized = folder.write("resized2.bin", buildTdxQuote({ rtMr0: fill(48, 0x33) }));
    expect(keystead(["measure", "diff", old, resized]).code).to.equal(1);
    const run = keystead(["measure", "diff", old, resized, "--exclude", "rtmr0", "--json"]);
    expect(run.code).to.equal(0);
    expect(jsonOf(run).diff).to.include({ service: "unchanged", platform: "unchanged" });
  });
});
