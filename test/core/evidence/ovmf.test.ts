import { expect } from "chai";
import fc from "fast-check";
import { parseOvmf } from "../../../src/core/evidence/ovmf.ts";
import { buildOvmf, digest, launchInputs, OVMF } from "../../helpers/deployment.ts";
import { errorOf } from "../../helpers/errors.ts";
import { assertTotal } from "../../helpers/fuzz.ts";

describe("core/evidence/ovmf", () => {
  it("reads the table of entries and the sections, and hashes every page below 4 GiB", () => {
    const image = buildOvmf();
    const ovmf = parseOvmf(image);
    const published = launchInputs();
    expect(ovmf.sevHashesTableGpa).to.equal(published.sev_hashes_table_gpa);
    expect(ovmf.sevEsResetEip).to.equal(published.sev_es_reset_eip);
    expect(ovmf.sections.map(({ gpa, size, sectionType }) => ({ gpa, size, section_type: sectionType }))).to.deep.equal(
      published.ovmf_sections,
    );
    let launch = Buffer.alloc(48);
    for (let offset = 0; offset < image.length; offset += 4096) {
      const info = Buffer.alloc(0x70);
      launch.copy(info);
      digest("sha384", image.subarray(offset, offset + 4096)).copy(info, 48);
      info.writeUInt16LE(0x70, 96);
      info.writeUInt8(1, 98);
      info.writeBigUInt64LE(0x1_0000_0000n - BigInt(image.length - offset), 104);
      launch = digest("sha384", info) as typeof launch;
    }
    expect(Buffer.from(ovmf.hash).toString("hex")).to.equal(launch.toString("hex"));
  });

  it("refuses firmware without a place for SEV-SNP or for the kernel's hashes", () => {
    for (const without of ["footer", "reset", "hashes", "metadata"] as const) {
      expect(errorOf(() => parseOvmf(buildOvmf({ without }))).code, without).to.equal("ovmf/no-sev-metadata");
    }
    expect(errorOf(() => parseOvmf(buildOvmf({ paravisor: true }))).code).to.equal("ovmf/paravisor");
  });

  it("refuses damaged images", () => {
    const damaged = (act: (image: Buffer) => void): Uint8Array => {
      const image = buildOvmf();
      act(image);
      return image;
    };
    const footerLength = OVMF.tableEnd - 18;
    for (const [name, image] of Object.entries({
      empty: new Uint8Array(),
      ragged: buildOvmf().subarray(1),
      "many sections": buildOvmf({ sections: 0xffffffff }),
      "table longer than the file": damaged((one) => one.writeUInt16LE(0xffff, footerLength)),
      "entry over the start": damaged((one) => one.writeUInt16LE(0xffff, footerLength - 18)),
      "entry of no length": damaged((one) => one.writeUInt16LE(0, footerLength - 18)),
      "metadata unsigned": damaged((one) => one.write("XXXX", OVMF.metadata)),
      "metadata version": damaged((one) => one.writeUInt32LE(2, OVMF.metadata + 8)),
      "metadata before the file": damaged((one) => one.writeUInt32LE(OVMF.size + 1, OVMF.tableEnd - 18 - 66)),
    })) {
      expect(errorOf(() => parseOvmf(image)).code, name).to.equal("ovmf/malformed");
    }
  });

  it("gives a value or a typed error on mutated images", function () {
    this.timeout(3_600_000);
    // Only the table and the metadata are read; a small image keeps hashing cheap.
    const image = buildOvmf().subarray(OVMF.metadata);
    const offsets = fc.oneof(fc.integer({ min: image.length - 140, max: image.length - 33 }), fc.nat(90));
    const mutated = fc.array(fc.tuple(offsets, fc.nat(255)), { maxLength: 3 }).map((edits) => {
      const copy = Uint8Array.from(image);
      for (const [offset, byte] of edits) copy[offset] = byte;
      return copy;
    });
    assertTotal("ovmf", mutated, (input) => void parseOvmf(input));
  });
});
