import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { toHex } from "../../src/core/bytes.ts";
import { decodeImage, formatImage, imageId } from "../../src/core/image.ts";
import { errorCodeOf, jsonOf, keystead, makeFolder } from "../helpers/cli.ts";
import {
  buildNitroDocument,
  buildNitroPcrJson,
  buildSnpReport,
  buildTdxQuote,
  fill,
  NITRO_PCRS,
  SNP_POLICY,
} from "../helpers/evidence.ts";

const digits = (byte: number, width = 48) => byte.toString(16).padStart(2, "0").repeat(width);
const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const DEBUG_ATTRIBUTES = Uint8Array.of(1, 0, 0, 0x10, 0, 0, 0, 0);

describe("keystead measure", () => {
  const folder = makeFolder();
  after(() => folder.remove());
  const quote = folder.write("quote.bin", buildTdxQuote());

  describe("given evidence of a production machine", () => {
    const cases: readonly [string, Uint8Array | string, string, string, string][] = [
      [
        "quote",
        buildTdxQuote(),
        "tdx",
        `tdx:mrtd=${digits(0xa0)},rtmr0=${digits(0xb0)},rtmr1=${digits(0xb1)},rtmr2=${digits(0xb2)},rtmr3=${digits(0xb3)}`,
        "byte 184 of the quote",
      ],
      [
        "quote",
        buildTdxQuote({ version: 5 }),
        "tdx",
        `tdx:mrtd=${digits(0xa0)},rtmr0=${digits(0xb0)},rtmr1=${digits(0xb1)},rtmr2=${digits(0xb2)},rtmr3=${digits(0xb3)}`,
        "byte 190 of the quote",
      ],
      [
        "report",
        buildSnpReport({ version: 5 }),
        "snp",
        `snp:measurement=${digits(0xa1)},host_data=${digits(0xa2, 32)}`,
        "byte 0x90 of the report",
      ],
      [
        "nitro",
        buildNitroDocument(),
        "nitro",
        `nitro:pcr0=${digits(0xc0)},pcr1=${digits(0xc1)},pcr2=${digits(0xc2)}`,
        "pcrs[0] of the document",
      ],
      [
        "nitro",
        buildNitroPcrJson(),
        "nitro",
        `nitro:pcr0=${digits(0xc0)},pcr1=${digits(0xc1)},pcr2=${digits(0xc2)}`,
        "Measurements.PCR0",
      ],
    ];
    for (const [index, [name, contents, kind, text, formula]] of cases.entries()) {
      it(`measure ${name} prints the image with its provenance (${index})`, () => {
        const file = folder.write(`evidence-${index}`, contents);
        const run = keystead(["measure", name, file, "--json"]);
        expect(run.stderr).to.equal("");
        expect(run.code).to.equal(0);
        const document = jsonOf(run);
        expect(document).to.include({ format: "keystead.measurement/1", unsafe: false });
        expect(document.images.service.text).to.equal(text);
        const bytes = Uint8Array.from(Buffer.from(document.images.service.bytes.slice(2), "hex"));
        expect(formatImage(decodeImage(bytes, "service"))).to.equal(text);
        expect(document.images.service.id).to.equal(imageId(bytes));
        expect(document.images.service.sealed).to.equal(true);
        const [, first] =
          Object.entries<{ how: string; formula: string; source: unknown }>(document.measurement.registers)[0] ?? [];
        const sha256 = `0x${createHash("sha256").update(contents).digest("hex")}`;
        expect(first).to.deep.include({ how: "read", formula, source: { name: file, sha256, bytes: contents.length } });
        expect(document.measurement.kind).to.equal(kind);
        expect(document.measurement.unchecked).to.not.deep.equal([]);

        const plain = keystead(["measure", name, file]);
        expect(plain.code).to.equal(0);
        for (const part of [
          text,
          document.images.service.bytes,
          document.images.service.id,
          sha256.slice(2),
          "Not checked",
          document.images.platform.id,
        ]) {
          expect(plain.stdout).to.include(part);
        }
      });
    }

    it("reads hex, base64 and standard input to the same registers", () => {
      const bytes = buildTdxQuote();
      const expected = jsonOf(keystead(["measure", "quote", quote, "--json"])).images;
      const hex = folder.write("quote.hex", `0x${hexOf(bytes)}\n`);
      const base64 = folder.write("quote.b64", Buffer.from(bytes).toString("base64").replace(/.{76}/g, "$&\r\n"));
      for (const args of [[hex], [base64]]) {
        expect(jsonOf(keystead(["measure", "quote", ...args, "--json"])).images).to.deep.equal(expected);
      }
      expect(jsonOf(keystead(["--json", "measure", "quote", "-"], { input: bytes })).images).to.deep.equal(expected);
    });

    it("takes registers by name into the service image and out of it, and says what then matches anything", () => {
      const run = jsonOf(keystead(["measure", "quote", quote, "--include", "mr_seam", "--exclude", "rtmr0", "--json"]));
      expect(run.images.service.text).to.equal(
        `tdx:mrtd=${digits(0xa0)},rtmr1=${digits(0xb1)},rtmr2=${digits(0xb2)},rtmr3=${digits(0xb3)},mr_seam=${digits(0x05)}`,
      );
      expect(run.images.service.omitted).to.deep.include({ name: "rtmr0", why: "not-chosen" });
      expect(run.images.platform.text).to.equal(`tdx:mrtd=${digits(0xa0)},rtmr1=${digits(0xb1)},rtmr2=${digits(0xb2)}`);
      expect(errorCodeOf(keystead(["measure", "quote", quote, "--exclude", "rtmr3", "--json"]))).to.equal(
        "measure/register-required",
      );
      expect(errorCodeOf(keystead(["measure", "quote", quote, "--include", "pcr0", "--json"]))).to.equal(
        "measure/unknown-register",
      );
      expect(keystead(["measure", "quote", quote, "--include", "a b"]).code).to.equal(2);
    });

    it("gives no service image of a machine that measured no workload, and still its platform", () => {
      const run = keystead([
        "measure",
        "quote",
        folder.write("idle.bin", buildTdxQuote({ rtMr3: fill(48, 0) })),
        "--json",
      ]);
      expect(run.code).to.equal(0);
      expect(jsonOf(run).images.service.error.code).to.equal("image/zero-register");
      expect(jsonOf(run).images.platform.text).to.match(/^tdx:mrtd=/);
    });
  });

  describe("given evidence of a machine that must not get keys", () => {
    const cases: readonly [string, string, Uint8Array | string, string][] = [
      ["a debug TD", "quote", buildTdxQuote({ tdAttributes: DEBUG_ATTRIBUTES }), "evidence/debug"],
      [
        "a TD with a service TD",
        "quote",
        buildTdxQuote({ version: 5, mrServiceTd: fill(48, 1) }),
        "evidence/service-td",
      ],
      ["a debug SEV-SNP guest", "report", buildSnpReport({ policy: SNP_POLICY | (1n << 19n) }), "evidence/debug"],
      [
        "a debug enclave",
        "nitro",
        buildNitroDocument({ pcrs: new Map([...NITRO_PCRS, [0, fill(48, 0)], [1, fill(48, 0)], [2, fill(48, 0)]]) }),
        "evidence/debug",
      ],
      ["zero PCRs in a file", "nitro", buildNitroPcrJson({ PCR0: "00".repeat(48) }), "evidence/debug"],
    ];
    for (const [name, reader, contents, code] of cases) {
      it(`${name}: says UNSAFE first and last, exits 1`, () => {
        const file = folder.write("unsafe", contents);
        const run = keystead(["measure", reader, file]);
        expect(run.code).to.equal(1);
        expect(run.stdout).to.match(new RegExp(`^UNSAFE ${code}`));
        expect(run.stdout.trimEnd().split("\n").at(-1)).to.match(/^UNSAFE/);
        const json = keystead(["measure", reader, file, "--json"]);
        expect(json.code).to.equal(1);
        expect(jsonOf(json).unsafe).to.equal(true);
      });
    }
  });

  describe("given bad input", () => {
    const cases: readonly [string, string, Uint8Array | string, string][] = [
      ["an SGX quote", "quote", buildTdxQuote({ version: 3, teeType: 0 }), "tdx/sgx-quote"],
      ["an SGX quote in hex", "quote", hexOf(buildTdxQuote({ teeType: 0 })), "tdx/sgx-quote"],
      ["a report for a quote", "quote", buildSnpReport(), "measure/wrong-input"],
      ["a quote for a report", "report", buildTdxQuote(), "measure/wrong-input"],
      ["a quote for a document", "nitro", buildTdxQuote(), "measure/wrong-input"],
      ["a truncated quote", "quote", buildTdxQuote().subarray(0, 700), "bytes/truncated"],
      ["a truncated report", "report", buildSnpReport().subarray(0, 1183), "snp/wrong-length"],
      ["a truncated document", "nitro", buildNitroDocument().subarray(0, 900), "bytes/truncated"],
      ["an empty file", "quote", "", "bytes/truncated"],
      ["text", "report", "hello", "text/not-bytes"],
      ["a quote with bytes after it", "quote", buildTdxQuote({ trailing: Uint8Array.of(1) }), "tdx/trailing-bytes"],
      ["a file over the limit", "quote", fill(1024 * 1024 + 1, 0), "input/too-large"],
    ];
    for (const [name, reader, contents, code] of cases) {
      it(`${name}: ${code}, exits 2 with argument and remedy`, () => {
        const file = folder.write("bad", contents);
        const run = keystead(["measure", reader, file, "--json"]);
        expect(run.stdout).to.equal("");
        expect(run.code).to.equal(2);
        expect(errorCodeOf(run)).to.equal(code);
        const plain = keystead(["measure", reader, file]);
        expect(plain.stderr)
          .to.match(new RegExp(`^error ${code}: `))
          .and.match(/argument: .+/)
          .and.match(/remedy: {3}.+/);
      });
    }

    it("refuses a file of 1 GiB by its size, before reading it", () => {
      const file = join(folder.path, "huge.bin");
      const handle = openSync(file, "w");
      ftruncateSync(handle, 1024 ** 3);
      closeSync(handle);
      const run = keystead(["measure", "quote", file, "--json"], { env: { NODE_OPTIONS: "--max-old-space-size=64" } });
      expect(errorCodeOf(run)).to.equal("input/too-large");
      expect(JSON.parse(run.stderr).error.details).to.deep.equal({ bytes: 1024 ** 3, limit: 1024 ** 2 });
      expect(run.code).to.equal(2);
    });

    it("refuses too much on standard input", () => {
      const run = keystead(["measure", "quote", "-", "--json"], { input: fill(2 * 1024 * 1024, 0) });
      expect(errorCodeOf(run)).to.equal("input/too-large");
    });

    it("refuses folders, pipes and what is not there, without hanging", () => {
      mkdirSync(join(folder.path, "dir"));
      expect(errorCodeOf(keystead(["measure", "quote", join(folder.path, "dir"), "--json"]))).to.equal(
        "input/not-a-file",
      );
      expect(errorCodeOf(keystead(["measure", "quote", join(folder.path, "absent"), "--json"]))).to.equal(
        "input/not-found",
      );
      const pipe = join(folder.path, "pipe");
      if (spawnSync("mkfifo", [pipe]).status === 0) {
        expect(errorCodeOf(keystead(["measure", "quote", pipe, "--json"]))).to.equal("input/not-a-file");
      }
    });

    it("reads files of the kernel, which tell no size", function () {
      if (!existsSync("/proc/version")) {
        console.log("      no /proc here");
        this.skip();
      }
      expect(errorCodeOf(keystead(["measure", "report", "/proc/version", "--json"]))).to.equal("text/not-bytes");
    });

    it("follows a symbolic link and says so", () => {
      const link = join(folder.path, "link.bin");
      symlinkSync(quote, link);
      const run = keystead(["measure", "quote", link, "--json"]);
      expect(run.code).to.equal(0);
      const finding = jsonOf(run).measurement.findings.find((one: { code: string }) => one.code === "input/symlink");
      expect(finding.message).to.include(link).and.include(quote);
      symlinkSync(join(folder.path, "nowhere"), join(folder.path, "dangling"));
      expect(errorCodeOf(keystead(["measure", "quote", join(folder.path, "dangling"), "--json"]))).to.equal(
        "input/not-found",
      );
    });

    it("passes over a byte order mark and says so", () => {
      const file = folder.write(
        "bom.hex",
        Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(hexOf(buildTdxQuote()))]),
      );
      const run = jsonOf(keystead(["measure", "quote", file, "--json"]));
      expect(run.measurement.findings.map((one: { code: string }) => one.code)).to.include("input/byte-order-mark");
    });

    it("shows control characters of file names and never sends them to the terminal", () => {
      const run = keystead(["measure", "quote", join(folder.path, "a\u001b[2Jb\u202ec")]);
      expect(run.code).to.equal(2);
      expect(run.stderr).to.include("a\\u{1b}[2Jb\\u{202e}c").and.not.include("\u001b");
    });
  });

  it("prints the same bytes in five separate processes, whatever was measured", () => {
    const files: readonly [string, string][] = [
      ["quote", quote],
      ["report", folder.write("same.report", buildSnpReport())],
      ["nitro", folder.write("same.cose", buildNitroDocument())],
      ["nitro", folder.write("same.json", buildNitroPcrJson())],
    ];
    for (const [reader, file] of files) {
      for (const mode of [[], ["--json"]]) {
        const outputs = new Set(Array.from({ length: 5 }, () => keystead(["measure", reader, file, ...mode]).stdout));
        expect(outputs.size, reader).to.equal(1);
        expect([...outputs][0]).to.not.equal("");
      }
    }
  });

  it("answers help, version and wrong usage", () => {
    const help = keystead(["measure", "--help"]);
    expect(help.code).to.equal(0);
    for (const name of ["quote", "report", "nitro", "image", "saved", "diff"])
      expect(help.stdout).to.match(new RegExp(`^  ${name} `, "m"));
    expect(keystead(["--help"]).stdout)
      .to.include("measure")
      .and.include("image");
    expect(keystead(["--version"]).stdout).to.match(/^\d+\.\d+\.\d+\n$/);
    for (const args of [
      [],
      ["frobnicate"],
      ["measure"],
      ["measure", "quote"],
      ["measure", "quote", quote, "extra"],
      ["measure", "quote", quote, "--nonsense"],
    ]) {
      const run = keystead(args);
      expect(run.code, args.join(" ")).to.equal(2);
      expect(run.stderr).to.not.equal("");
      expect(run.stdout).to.equal("");
      if (args.length > 0 && args.join() !== "measure")
        expect(errorCodeOf(keystead([...args, "--json"]))).to.match(/^usage\//);
    }
  });

  it("is what `toHex` says of the evidence's own bytes", () => {
    const registers = jsonOf(keystead(["measure", "quote", quote, "--json"])).measurement.registers;
    expect(registers.mr_owner.value).to.equal(toHex(fill(48, 0x08)));
  });
});
