import { expect } from "chai";
import { concatBytes, toHex } from "../../../src/core/bytes.ts";
import { parseSnpReport, snpFindings, snpRegisters } from "../../../src/core/evidence/snp.ts";
import { buildImage } from "../../../src/core/measurement.ts";
import { errorOf } from "../../helpers/errors.ts";
import { buildSnpReport, fill, SNP_POLICY, type SnpOptions } from "../../helpers/evidence.ts";

const codes = (options: SnpOptions) => snpFindings(parseSnpReport(buildSnpReport(options))).map(({ code }) => code);

describe("core/evidence/snp", () => {
  for (const version of [2, 3, 4, 5]) {
    it(`reads every field of a report of version ${version}`, () => {
      const bytes = buildSnpReport({ version });
      const report = parseSnpReport(bytes);
      expect(snpRegisters(report)).to.deep.equal({
        measurement: toHex(fill(48, 0xa1)),
        host_data: toHex(fill(32, 0xa2)),
        id_key_digest: toHex(fill(48, 0xa3)),
        author_key_digest: toHex(fill(48, 0xa4)),
        family_id: toHex(fill(16, 0xa5)),
        image_id: toHex(fill(16, 0xa6)),
      });
      expect(report).to.include({ version, guestSvn: 9, vmpl: 0, platformInfo: 0x25n, signingKey: "vcek" });
      expect(report.policy).to.include({ value: SNP_POLICY, smt: true, debug: false, migrateMa: false });
      expect(report.reportData).to.deep.equal(fill(64, 0xdd));
      expect(report.reportId).to.deep.equal(fill(32, 0xa7));
      expect(report.reportIdMa).to.deep.equal(fill(32, 0xff));
      expect(report.chipId).to.deep.equal(fill(64, 0xa8));
      expect(report.current).to.deep.equal({ major: 1, minor: 55, build: 5 });
      expect(report.committed).to.deep.equal({ major: 1, minor: 54, build: 4 });
      for (const tcb of [report.currentTcb, report.reportedTcb, report.committedTcb, report.launchTcb]) {
        expect(tcb).to.deep.include({ fmc: undefined, bootloader: 1, tee: 2, snp: 7, microcode: 8 });
      }
      expect(report.cpuid).to.deep.equal(version === 2 ? undefined : { family: 0x19, model: 0x11, stepping: 1 });
      expect(report.product).to.equal(version === 2 ? undefined : "genoa");
      expect(report.launchMitigations).to.equal(version === 5 ? 0x1234n : undefined);
      expect(report.currentMitigations).to.equal(version === 5 ? 0x5678n : undefined);
      expect(report.signed).to.deep.equal(bytes.subarray(0, 672));
      const ascending = (start: number) => Uint8Array.from({ length: 48 }, (_, index) => start + index).reverse();
      expect(report.signature).to.deep.equal(concatBytes(ascending(1), ascending(0x80)));
      expect(snpFindings(report)).to.deep.equal([]);
    });
  }

  it("tells the processors apart, and reads Turin's TCB in its own order", () => {
    const product = (family: number, model: number) =>
      parseSnpReport(buildSnpReport({ cpuid: [family, model, 0] })).product;
    const known: readonly [number, number, number, string][] = [
      [0x19, 0x00, 0x0f, "milan"],
      [0x19, 0x10, 0x1f, "genoa"],
      [0x19, 0xa0, 0xaf, "genoa"],
      [0x1a, 0x00, 0x1f, "turin"],
    ];
    for (const [family, first, last, name] of known) {
      expect([product(family, first), product(family, last)], name).to.deep.equal([name, name]);
    }
    for (const [family, model] of [
      [0x18, 0x0f],
      [0x18, 0x10],
      [0x18, 0xa0],
      [0x19, 0x20],
      [0x19, 0x9f],
      [0x19, 0xb0],
      [0x1a, 0x20],
      [0x1a, 0x4f],
      [0x1a, 0x58],
      [0x1a, 0xb0],
      [0x1a, 0xc8],
      [0x1b, 0x00],
    ] as const) {
      expect(errorOf(() => product(family, model)).code, `${family} ${model}`).to.equal("snp/unknown-processor");
    }
    const turin = parseSnpReport(buildSnpReport({ version: 5, cpuid: [0x1a, 0x11, 0] }));
    expect(turin.reportedTcb).to.deep.include({ fmc: 1, bootloader: 2, tee: 3, snp: 4, microcode: 8 });
  });

  it("reports debug, a missing signature, migration and a VMPL above 0", () => {
    expect(codes({ policy: SNP_POLICY | (1n << 19n) })).to.deep.equal(["evidence/debug"]);
    expect(codes({ flags: 7 << 2 })).to.deep.equal(["evidence/unsigned"]);
    expect(codes({ policy: SNP_POLICY | (1n << 18n) })).to.deep.equal(["evidence/migration-agent"]);
    expect(codes({ vmpl: 1 })).to.deep.equal(["evidence/vmpl"]);
  });

  it("reads the flags: author key, masked chip, VLEK", () => {
    const flags = (value: number) => {
      const { authorKeyEnabled, maskChipKey, signingKey } = parseSnpReport(buildSnpReport({ flags: value }));
      return [authorKeyEnabled, maskChipKey, signingKey];
    };
    expect(flags(0)).to.deep.equal([false, false, "vcek"]);
    expect(flags(1)).to.deep.equal([true, false, "vcek"]);
    expect(flags(2)).to.deep.equal([false, true, "vcek"]);
    expect(flags(4)).to.deep.equal([false, false, "vlek"]);
  });

  it("reads the policy bit by bit", () => {
    const policy = (value: bigint) => parseSnpReport(buildSnpReport({ policy: value })).policy;
    const none = {
      abiMinor: 0,
      abiMajor: 0,
      smt: false,
      migrateMa: false,
      debug: false,
      singleSocket: false,
      unknown: 0n,
    };
    expect(policy(0n)).to.deep.equal({ ...none, value: 0n });
    expect(policy(0xff37n)).to.deep.equal({ ...none, value: 0xff37n, abiMinor: 0x37, abiMajor: 0xff });
    const bits: readonly [bigint, string][] = [
      [16n, "smt"],
      [18n, "migrateMa"],
      [19n, "debug"],
      [20n, "singleSocket"],
    ];
    for (const [bit, name] of bits)
      expect(policy(1n << bit)).to.deep.equal({ ...none, value: 1n << bit, [name]: true });
    for (const bit of [21n, 25n]) expect(policy(1n << bit).unknown).to.equal(0n);
    for (const bit of [26n, 63n]) expect(policy(1n << bit).unknown).to.equal(1n << bit);
    expect(policy(1n << 17n)).to.deep.equal({ ...none, value: 1n << 17n });
  });

  it("gives a service image with host data and a platform image without", () => {
    const registers = snpRegisters(parseSnpReport(buildSnpReport()));
    expect(Object.keys(buildImage("snp", registers, "service").image.registers)).to.deep.equal([
      "measurement",
      "host_data",
    ]);
    expect(Object.keys(buildImage("snp", registers, "platform").image.registers)).to.deep.equal(["measurement"]);
  });

  describe("given what is no report", () => {
    const changed = (offset: number, byte: number): Uint8Array => {
      const bytes = buildSnpReport();
      bytes[offset] = byte;
      return bytes;
    };
    const cases: readonly [string, Uint8Array, string][] = [
      ["nothing", new Uint8Array(0), "snp/wrong-length"],
      ["one byte less", buildSnpReport().subarray(1), "snp/wrong-length"],
      ["one byte more", concatBytes(buildSnpReport(), fill(1, 0)), "snp/wrong-length"],
      ["version 1", buildSnpReport({ version: 1 }), "snp/unknown-version"],
      ["version 6", buildSnpReport({ version: 6 }), "snp/unknown-version"],
      ["no signature algorithm", buildSnpReport({ algorithm: 0 }), "snp/unknown-algorithm"],
      ["signing key 2", buildSnpReport({ flags: 2 << 2 }), "snp/unknown-signing-key"],
      ["an unknown processor", buildSnpReport({ cpuid: [0x1b, 0, 0] }), "snp/unknown-processor"],
      ["a byte above r", changed(0x2a0 + 48, 1), "snp/signature-padding"],
      ["a byte above s", changed(0x2a0 + 143, 1), "snp/signature-padding"],
      ["a byte right after the signature", changed(0x2a0 + 144, 1), "snp/signature-padding"],
      ["a byte at the end", changed(1183, 1), "snp/signature-padding"],
    ];
    for (const [name, bytes, code] of cases) {
      it(`${name}: ${code}`, () => {
        expect(errorOf(() => parseSnpReport(bytes)).code).to.equal(code);
      });
    }
  });
});
