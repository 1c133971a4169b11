import { expect } from "chai";
import { concatBytes } from "../../../src/core/bytes.ts";
import { detectEvidence } from "../../../src/core/evidence/detect.ts";
import { buildNitroDocument, buildNitroPcrJson, buildSnpReport, buildTdxQuote, fill } from "../../helpers/evidence.ts";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const wrapped = (value: string): string => value.replace(/.{64}/g, "$&\r\n");

describe("core/evidence/detect", () => {
  const evidence: readonly [string, Uint8Array, string][] = [
    ["TDX quote, version 4", buildTdxQuote({ version: 4 }), "tdx-quote"],
    ["TDX quote, version 5", buildTdxQuote({ version: 5 }), "tdx-quote"],
    ["SGX quote, version 3", buildTdxQuote({ version: 3, teeType: 0 }), "sgx-quote"],
    ["SGX quote, version 4", buildTdxQuote({ teeType: 0 }), "sgx-quote"],
    ["SGX quote, version 5", buildTdxQuote({ version: 5, bodyType: 1 }), "sgx-quote"],
    ["SEV-SNP attestation report, version 2", buildSnpReport({ version: 2 }), "snp-report"],
    ["SEV-SNP attestation report, version 5", buildSnpReport({ version: 5 }), "snp-report"],
    ["AWS Nitro attestation document (COSE_Sign1)", buildNitroDocument(), "nitro-document"],
    [
      "AWS Nitro attestation document (COSE_Sign1)",
      concatBytes(Uint8Array.of(0xd2), buildNitroDocument()),
      "nitro-document",
    ],
  ];
  for (const [description, bytes, format] of evidence) {
    it(`knows ${description} in binary, hex and base64, wrapped or not`, () => {
      const hex = Buffer.from(bytes).toString("hex");
      const base64 = Buffer.from(bytes).toString("base64");
      const forms: readonly [Uint8Array, string][] = [
        [bytes, "binary"],
        [text(hex), "hex"],
        [text(`0x${hex.toUpperCase()}\n`), "hex"],
        [text(wrapped(hex)), "hex"],
        [text(base64), "base64"],
        [text(`${wrapped(base64)}\n`), "base64"],
      ];
      for (const [file, encoding] of forms) {
        const found = detectEvidence(file);
        expect(found).to.include({ description, format, encoding });
        expect(found.bytes).to.deep.equal(bytes);
      }
    });
  }

  it("knows the PCRs of nitro-cli", () => {
    expect(detectEvidence(text(buildNitroPcrJson()))).to.include({ format: "nitro-pcrs", encoding: "text" });
  });

  it("says unknown of everything else, and undoes its encoding where it is sure of one", () => {
    expect(detectEvidence(new Uint8Array(0))).to.include({ format: "unknown", encoding: "binary" });
    expect(detectEvidence(fill(5000, 0))).to.include({ format: "unknown", encoding: "binary" });
    expect(detectEvidence(buildSnpReport().subarray(1))).to.include({ format: "unknown", encoding: "binary" });
    expect(detectEvidence(text("0xabcd"))).to.deep.include({
      format: "unknown",
      encoding: "hex",
      bytes: Uint8Array.of(0xab, 0xcd),
    });
    expect(detectEvidence(text("services: {}\n"))).to.include({ format: "unknown", encoding: "text" });
    expect(detectEvidence(text("   "))).to.include({ format: "unknown", encoding: "text" });
    expect(detectEvidence(text("\tab\r\ncd "))).to.include({ encoding: "hex" });
    expect(detectEvidence(text("ab\u007f"))).to.include({ encoding: "binary" });
    expect(detectEvidence(text("AQI")).encoding).to.equal("base64url");
    for (const other of ["AQI==", "A-I+", "some words", "AQIDA", '"ab', "AQ I="])
      expect(detectEvidence(text(other)).encoding, other).to.equal("text");
  });
});
