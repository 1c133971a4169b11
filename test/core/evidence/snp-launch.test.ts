import { expect } from "chai";
import {
  buildHashesPage,
  buildVmsaPage,
  computeLaunchDigest,
  type LaunchExtras,
  parseLaunchInputs,
  VCPU_SIGNATURES,
} from "../../../src/core/evidence/snp-launch.ts";
import { digest, json, launchInputs, utf8 } from "../../helpers/deployment.ts";
import { errorOf } from "../../helpers/errors.ts";

const EXTRAS: LaunchExtras = { cmdline: "console=ttyS0", vcpus: 2 };
const measure = (changes: Readonly<Record<string, unknown>> = {}, extras: LaunchExtras = EXTRAS): string =>
  Buffer.from(computeLaunchDigest(parseLaunchInputs(json(launchInputs(changes)), extras))).toString("hex");
const codeOf = (changes: Readonly<Record<string, unknown>>, extras: LaunchExtras = EXTRAS): string =>
  errorOf(() => measure(changes, extras)).code;
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

/** PAGE_INFO by hand. */
function extend(launch: Buffer, type: number, gpa: number | bigint, contents: Buffer = Buffer.alloc(48)): Buffer {
  const info = Buffer.alloc(0x70);
  launch.copy(info, 0);
  contents.copy(info, 48);
  info.writeUInt16LE(0x70, 96);
  info.writeUInt8(type, 98);
  info.writeBigUInt64LE(BigInt(gpa), 104);
  return digest("sha384", info);
}

describe("core/evidence/snp-launch", () => {
  it("chains firmware, sections in their order and one VMSA page per virtual CPU", () => {
    const inputs = parseLaunchInputs(json(launchInputs()), EXTRAS);
    let expected: Buffer = Buffer.from("0f".repeat(48), "hex");
    expected = extend(expected, 3, 0x800000);
    expected = extend(expected, 3, 0x801000);
    expected = extend(expected, 5, 0x80d000);
    expected = extend(expected, 6, 0x80e000);
    expected = extend(expected, 3, 0x80f000);
    expected = extend(expected, 1, 0x810000, digest("sha384", buildHashesPage(inputs)));
    expected = extend(expected, 2, 0xfffffffff000n, digest("sha384", buildVmsaPage(0xfffffff0, 0x800f12, 1n)));
    expected = extend(expected, 2, 0xfffffffff000n, digest("sha384", buildVmsaPage(0x80b004, 0x800f12, 1n)));
    expect(hex(computeLaunchDigest(inputs))).to.equal(expected.toString("hex"));
  });

  it("lays out the table of hashes as firmware looks for it", () => {
    const page = Buffer.from(buildHashesPage(parseLaunchInputs(json(launchInputs()), EXTRAS)));
    const table = page.subarray(0xc00, 0xc00 + 168);
    expect(table.subarray(0, 18).toString("hex")).to.equal("06d63894224fc94cb479a793d411fd21a800");
    expect(table.subarray(18, 36).toString("hex")).to.equal("d82dd09720bd944caa78e7714d36ab2a3200");
    expect(table.subarray(36, 68).toString("hex")).to.equal(digest("sha256", "console=ttyS0\0").toString("hex"));
    expect(table.subarray(68, 84).toString("hex")).to.equal("31f7ba442f3ad74b9af141e29169781d");
    expect(table.subarray(86, 118).toString("hex")).to.equal("2b".repeat(32));
    expect(table.subarray(136).toString("hex")).to.equal("1a".repeat(32));
    expect(page.subarray(0, 0xc00).every((byte) => byte === 0)).to.equal(true);
    expect(page.subarray(0xc00 + 168).every((byte) => byte === 0)).to.equal(true);
  });

  // From the code that reproduces the MEASUREMENT of real Milan and Genoa reports: any change to a page shows here without the vectors.
  it("keeps its pages: reset state by hash", () => {
    expect(digest("sha256", buildVmsaPage(0xfffffff0, 0x800f12, 1n)).toString("hex")).to.equal(
      "591598a62aa556861a392da67feab71a919975d97a579eb1df12503178c9cbb3",
    );
    expect(digest("sha256", buildVmsaPage(0x80b004, 0x800f12, 1n)).toString("hex")).to.equal(
      "4ffee74d299a5d74748460fd6238d5cdbb7da2fe1c12476a9bf3c8ecdbdcd905",
    );
  });

  it("knows QEMU's CPU models by their CPUID signatures", () => {
    expect(
      Object.fromEntries(
        ["EPYC-v4", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa"].map((name) => [name, VCPU_SIGNATURES.get(name)]),
      ),
    ).to.deep.equal({
      "EPYC-v4": 0x800f12,
      "EPYC-Rome": 0x830f10,
      "EPYC-Milan": 0xa00f11,
      "EPYC-Genoa": 0xa10f10,
    });
    expect(measure({ vcpu_type: undefined }, { ...EXTRAS, vcpuType: 0x800f12 })).to.equal(measure());
  });

  it("changes with every input", () => {
    const variants = [
      measure(),
      measure({ ovmf_hash: "0e".repeat(48) }),
      measure({ kernel_hash: "1b".repeat(32) }),
      measure({ initrd_hash: "2c".repeat(32) }),
      measure({ initrd_hash: "" }),
      measure({ sev_hashes_table_gpa: 0x810c10 }),
      measure({ sev_es_reset_eip: 0x80b008 }),
      measure({ vcpu_type: "EPYC-Milan" }),
      measure({ guest_features: 5 }),
      measure({}, { ...EXTRAS, vcpus: 1 }),
      measure({}, { ...EXTRAS, vcpus: 3 }),
      measure({}, { ...EXTRAS, cmdline: "console=ttyS0 " }),
      measure({}, { ...EXTRAS, cmdline: "" }),
    ];
    expect(new Set(variants).size).to.equal(variants.length);
  });

  it("takes a value from the file or from the caller, never one against the other", () => {
    const stated = { vcpus: 2, base_cmdline: "console=ttyS0", guest_features: 1 };
    expect(measure(stated, {})).to.equal(measure());
    expect(measure(stated, EXTRAS)).to.equal(measure());
    for (const other of [{ vcpus: 3 }, { cmdline: "quiet" }, { guestFeatures: 2n }, { vcpuType: "EPYC-Rome" }]) {
      expect(codeOf(stated, other), Object.keys(other)[0]).to.equal("snp-launch/input");
    }
    expect(codeOf({}, { vcpus: 1 })).to.equal("snp-launch/input");
    expect(codeOf({}, { cmdline: "" })).to.equal("snp-launch/input");
  });

  it("refuses inputs that cannot be", () => {
    const section = (changes: object) => ({
      ovmf_sections: [{ gpa: 0x810000, size: 0x1000, section_type: 16, ...changes }],
    });
    for (const [changes, code] of [
      [{ ovmf_hash: "00".repeat(48) }, "snp-launch/input"],
      [{ ovmf_hash: "0F".repeat(48) }, "snp-launch/input"],
      [{ kernel_hash: "1a" }, "snp-launch/input"],
      [{ kernel_hash: "" }, "snp-launch/input"],
      [{ ovmf_sections: {} }, "snp-launch/input"],
      [section({ gpa: 0x810001 }), "snp-launch/input"],
      [section({ size: 0 }), "snp-launch/input"],
      [section({ size: 0x2000 }), "snp-launch/input"],
      [section({ size: 2 ** 31 }), "snp-launch/input"],
      [section({ gpa: -4096 }), "snp-launch/input"],
      [section({ gpa: 2 ** 32 }), "snp-launch/input"],
      [section({ section_type: 1, size: 2 ** 30 }), "snp-launch/input"],
      [section({ section_type: 7 }), "snp-launch/unknown-section"],
      [{ ovmf_sections: [] }, "snp-launch/no-hashes-section"],
      [{ sev_hashes_table_gpa: 0x820c00 }, "snp-launch/input"],
      [{ sev_hashes_table_gpa: 0x810ff0 }, "snp-launch/input"],
      [{ sev_hashes_table_gpa: 1.5 }, "snp-launch/input"],
      [{ vcpu_type: "Skylake" }, "snp-launch/unknown-vcpu-type"],
    ] as const) {
      expect(codeOf(changes), JSON.stringify(changes)).to.equal(code);
    }
    for (const vcpus of [0, -1, 1.5, 4097, Number.NaN])
      expect(codeOf({}, { ...EXTRAS, vcpus })).to.equal("snp-launch/input");
    for (const cmdline of ["a\0b", "\ud800"]) expect(codeOf({}, { ...EXTRAS, cmdline })).to.equal("snp-launch/input");
    expect(codeOf({}, { ...EXTRAS, guestFeatures: 1n << 64n })).to.equal("snp-launch/input");
    expect(errorOf(() => parseLaunchInputs(utf8("[]"), EXTRAS)).code).to.equal("snp-launch/input");
  });
});
