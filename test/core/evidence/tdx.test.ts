import { expect } from "chai";
import { toHex } from "../../../src/core/bytes.ts";
import { parseTdxQuote, tdxFindings, tdxRegisters } from "../../../src/core/evidence/tdx.ts";
import { buildImage } from "../../../src/core/measurement.ts";
import { errorOf } from "../../helpers/errors.ts";
import { buildTdxQuote, fill, TD_ATTRIBUTES, type TdxOptions } from "../../helpers/evidence.ts";

const codes = (options: TdxOptions) => tdxFindings(parseTdxQuote(buildTdxQuote(options))).map(({ code }) => code);

describe("core/evidence/tdx", () => {
  const forms: readonly [string, TdxOptions][] = [
    ["version 4", { version: 4 }],
    ["version 5 with a TD 1.0 body", { version: 5, bodyType: 2 }],
    ["version 5 with a TD 1.5 body", { version: 5, bodyType: 3 }],
  ];
  for (const [name, options] of forms) {
    describe(`given a quote of ${name}`, () => {
      const bytes = buildTdxQuote(options);
      const quote = parseTdxQuote(bytes);

      it("reads every register at its place", () => {
        expect(tdxRegisters(quote)).to.deep.equal({
          mrtd: toHex(fill(48, 0xa0)),
          rtmr0: toHex(fill(48, 0xb0)),
          rtmr1: toHex(fill(48, 0xb1)),
          rtmr2: toHex(fill(48, 0xb2)),
          rtmr3: toHex(fill(48, 0xb3)),
          mr_seam: toHex(fill(48, 0x05)),
          mr_signer_seam: toHex(fill(48, 0x06)),
          mr_config_id: toHex(fill(48, 0x07)),
          mr_owner: toHex(fill(48, 0x08)),
          mr_owner_config: toHex(fill(48, 0x09)),
        });
        expect(quote.body.reportData).to.deep.equal(fill(64, 0xdd));
        expect(quote.debug).to.equal(false);
        expect(quote.septVeDisable).to.equal(true);
        expect(tdxFindings(quote)).to.deep.equal([]);
      });

      it("locates what a verifier needs: the signed part, signatures, keys, QE report and PEM chain", () => {
        const { signatureData } = quote;
        const bodyEnd = { 4: 632, 5: options.bodyType === 3 ? 702 : 638 }[quote.header.version];
        expect(quote.signed).to.deep.equal(bytes.subarray(0, bodyEnd));
        expect(signatureData.signature).to.deep.equal(fill(64, 0x50));
        expect(signatureData.attestationKey).to.deep.equal(fill(64, 0x51));
        expect(signatureData.qeReport.bytes).to.have.length(384);
        expect(signatureData.qeReport).to.include({ miscSelect: 0x12131415, isvProdId: 0x191a, isvSvn: 0x1b1c });
        expect(signatureData.qeReport.mrSigner).to.deep.equal(fill(32, 0x18));
        expect(signatureData.qeReport.mrEnclave).to.deep.equal(fill(32, 0x17));
        expect(signatureData.qeReport.attributes).to.deep.equal(fill(16, 0x16));
        expect(signatureData.qeReport.reportData).to.deep.equal(fill(64, 0x1d));
        expect(signatureData.qeReportSignature).to.deep.equal(fill(64, 0x52));
        expect(signatureData.qeAuthData).to.deep.equal(fill(32, 0x53));
        expect(signatureData.certificationType).to.equal(5);
        expect(new TextDecoder().decode(signatureData.pckChain)).to.match(/^-----BEGIN CERTIFICATE-----\n/);
        expect(quote.length).to.equal(bytes.length);
        expect(quote.padding).to.equal(0);
      });

      it("gives no reading for any shorter prefix", () => {
        for (let length = 0; length < bytes.length; length += 1) {
          expect(errorOf(() => parseTdxQuote(bytes.subarray(0, length))).code, String(length)).to.equal(
            "bytes/truncated",
          );
        }
      });
    });
  }

  it("gives a service image of five registers and a platform image without the workload", () => {
    const registers = tdxRegisters(parseTdxQuote(buildTdxQuote()));
    const service = buildImage("tdx", registers, "service");
    expect(Object.keys(service.image.registers)).to.deep.equal(["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"]);
    expect(service.omitted.map(({ name }) => name)).to.deep.equal([
      "mr_seam",
      "mr_signer_seam",
      "mr_config_id",
      "mr_owner",
      "mr_owner_config",
    ]);
    expect(Object.keys(buildImage("tdx", registers, "platform").image.registers)).to.deep.equal([
      "mrtd",
      "rtmr0",
      "rtmr1",
      "rtmr2",
    ]);
    const chosen = buildImage("tdx", registers, "service", { include: ["mr_seam"], exclude: ["rtmr0"] });
    expect(Object.keys(chosen.image.registers)).to.deep.equal(["mrtd", "rtmr1", "rtmr2", "rtmr3", "mr_seam"]);
    expect(errorOf(() => buildImage("tdx", registers, "service", { exclude: ["rtmr3"] })).code).to.equal(
      "measure/register-required",
    );
    expect(errorOf(() => buildImage("tdx", registers, "service", { include: ["pcr0"] })).code).to.equal(
      "measure/unknown-register",
    );
    expect(
      errorOf(() => buildImage("tdx", { mrtd: toHex(fill(48, 1)) }, "service", { include: ["rtmr0"] })).code,
    ).to.equal("measure/register-not-measured");
    expect(errorOf(() => buildImage("tdx", { mrtd: toHex(fill(48, 1)) }, "service")).code).to.equal(
      "image/missing-registers",
    );
  });

  it("says which wanted register the input lacks", () => {
    const { rtmr0: _, ...rest } = tdxRegisters(parseTdxQuote(buildTdxQuote()));
    expect(buildImage("tdx", rest, "service").omitted[0]).to.deep.equal({ name: "rtmr0", why: "not-measured" });
  });

  it("reports debug for any bit of the debug byte, not for the lowest alone", () => {
    for (let bit = 0; bit < 8; bit += 1) {
      const tdAttributes = TD_ATTRIBUTES.slice();
      tdAttributes[0] = 1 << bit;
      expect(codes({ tdAttributes }), `bit ${bit}`).to.deep.equal(["evidence/debug"]);
    }
  });

  it("reports a clear SEPT_VE_DISABLE, a service TD, an empty RTMR3 and padding", () => {
    expect(codes({ tdAttributes: fill(8, 0) })).to.deep.equal(["evidence/sept-ve-disable"]);
    expect(codes({ version: 5, mrServiceTd: fill(48, 1) })).to.deep.equal(["evidence/service-td"]);
    expect(codes({ rtMr3: fill(48, 0) })).to.deep.equal(["evidence/no-workload"]);
    for (const length of [1, 70]) expect(codes({ trailing: fill(length, 0) })).to.deep.equal(["evidence/padding"]);
    expect(parseTdxQuote(buildTdxQuote({ trailing: fill(70, 0) })).padding).to.equal(70);
  });

  describe("given what is no TDX quote", () => {
    const cases: readonly [string, Uint8Array, string][] = [
      ["an SGX quote of version 3", buildTdxQuote({ version: 3, teeType: 0 }), "tdx/sgx-quote"],
      ["an SGX quote of version 4", buildTdxQuote({ teeType: 0 }), "tdx/sgx-quote"],
      ["an SGX body in version 5", buildTdxQuote({ version: 5, bodyType: 1 }), "tdx/sgx-quote"],
      ["version 6", buildTdxQuote({ version: 6 }), "tdx/unknown-version"],
      ["another TEE", buildTdxQuote({ teeType: 0x82 }), "tdx/unknown-tee-type"],
      ["a P-384 attestation key", buildTdxQuote({ keyType: 3 }), "tdx/unknown-key-type"],
      ["an unknown body", buildTdxQuote({ version: 5, bodyType: 5 }), "tdx/unknown-body"],
      ["a body of the wrong size", buildTdxQuote({ version: 5, bodySize: 584 }), "tdx/body-length"],
      ["certification data without a QE report", buildTdxQuote({ certificationType: 5 }), "tdx/certification-data"],
      ["bytes inside the signature data", buildTdxQuote({ slack: fill(1, 0) }), "tdx/signature-data-length"],
      ["a byte after the padding", buildTdxQuote({ trailing: Uint8Array.of(0, 0, 1) }), "tdx/trailing-bytes"],
    ];
    for (const [name, bytes, code] of cases) {
      it(`${name}: ${code}`, () => {
        expect(errorOf(() => parseTdxQuote(bytes)).code).to.equal(code);
      });
    }

    it("says where the first byte is that is not padding", () => {
      const { length } = buildTdxQuote();
      const error = errorOf(() => parseTdxQuote(buildTdxQuote({ trailing: Uint8Array.of(0, 0, 1) })));
      expect(error.details.offset).to.equal(length + 2);
    });

    it("claims more than it holds: bytes/truncated, without reading past the end", () => {
      for (const offset of [632, 766]) {
        const bytes = buildTdxQuote();
        bytes.set([0xff, 0xff, 0xff, 0xff], offset);
        expect(errorOf(() => parseTdxQuote(bytes)).code, String(offset)).to.equal("bytes/truncated");
      }
    });
  });

  it("leaves the chain undefined where the certification data is no PEM chain", () => {
    const { signatureData } = parseTdxQuote(buildTdxQuote({ innerCertificationType: 3 }));
    expect(signatureData.pckChain).to.equal(undefined);
    expect(signatureData.certificationType).to.equal(3);
  });
});
