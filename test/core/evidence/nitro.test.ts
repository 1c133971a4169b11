import { expect } from "chai";
import { concatBytes, fromHex, toHex } from "../../../src/core/bytes.ts";
import { decodeCbor } from "../../../src/core/evidence/cbor.ts";
import { nitroFindings, nitroRegisters, parseNitroDocument, parseNitroPcrs } from "../../../src/core/evidence/nitro.ts";
import { buildImage } from "../../../src/core/measurement.ts";
import { errorOf } from "../../helpers/errors.ts";
import { buildNitroDocument, buildNitroPcrJson, fill, NITRO_PCRS, type NitroOptions } from "../../helpers/evidence.ts";

describe("core/evidence/cbor", () => {
  const cbor = (hex: string) => decodeCbor(fromHex(hex, "hex"), "document");

  it("reads the subset that attestation documents use", () => {
    expect(cbor("00")).to.equal(0n);
    expect(cbor("1bffffffffffffffff")).to.equal(2n ** 64n - 1n);
    expect(cbor("17")).to.equal(23n);
    expect(cbor("1818")).to.equal(24n);
    expect(cbor("190100")).to.equal(256n);
    expect(cbor("1a00010000")).to.equal(65_536n);
    expect(cbor("1b0000000100000000")).to.equal(4_294_967_296n);
    expect(cbor("3822")).to.equal(-35n);
    expect(cbor("43010203")).to.deep.equal(Uint8Array.of(1, 2, 3));
    expect(cbor("6161")).to.equal("a");
    expect(cbor("f6")).to.equal(null);
    expect(cbor("83018202a0f6")).to.deep.equal([1n, [2n, new Map()], null]);
  });

  const refusals: readonly [string, string, string][] = [
    ["nothing", "", "bytes/truncated"],
    ["an integer in two bytes that fits one", "1817", "cbor/not-canonical"],
    ["an integer in three bytes that fits two", "1900ff", "cbor/not-canonical"],
    ["the least integer in three bytes that fits two", "190018", "cbor/not-canonical"],
    ["an integer in five bytes that fits three", "1a0000ffff", "cbor/not-canonical"],
    ["an integer in nine bytes that fits five", "1b00000000ffffffff", "cbor/not-canonical"],
    ["a length in two bytes that fits one", "580100", "cbor/not-canonical"],
    ["a byte string of indefinite length", "5f4101ff", "cbor/not-canonical"],
    ["an array of indefinite length", "9f01ff", "cbor/not-canonical"],
    ["a map of indefinite length where none is asked for", "bf0101ff", "cbor/not-canonical"],
    ["a reserved length", "1c", "cbor/not-canonical"],
    ["a break", "ff", "cbor/unsupported"],
    ["a tag", "c100", "cbor/unsupported"],
    ["a float", "f93c00", "cbor/unsupported"],
    ["true", "f5", "cbor/unsupported"],
    ["undefined", "f7", "cbor/unsupported"],
    ["an integer key twice", "a201000100", "cbor/duplicate-key"],
    ["a text key twice", "a2616101616102", "cbor/duplicate-key"],
    ["a byte string as key", "a1410000", "cbor/unsupported"],
    ["an array as key", "a18000", "cbor/unsupported"],
    ["text that is not UTF-8", "61ff", "text/not-utf8"],
    ["a second item", "0000", "cbor/trailing-bytes"],
    ["a byte string longer than the input", "5affffffff00", "bytes/truncated"],
    ["an array longer than any input", "9bffffffffffffffff", "bytes/truncated"],
    ["a map longer than any input", "bb7fffffffffffffff", "bytes/truncated"],
    ["nesting of nine", `${"81".repeat(9)}00`, "cbor/too-deep"],
    ["nesting of nine maps", `${"a100".repeat(9)}00`, "cbor/too-deep"],
    ["nesting of a million", "81".repeat(1_000_000), "cbor/too-deep"],
  ];
  for (const [name, hex, code] of refusals) {
    it(`refuses ${name}: ${code}`, () => {
      expect(errorOf(() => cbor(hex)).code).to.equal(code);
    });
  }

  it("reads nesting of eight, and maps whatever the order of their keys", () => {
    expect(cbor(`${"81".repeat(8)}00`)).to.be.an("array");
    expect(cbor(`${"a100".repeat(8)}00`)).to.be.instanceOf(Map);
    expect(cbor("a2616201616102")).to.deep.equal(
      new Map([
        ["b", 1n],
        ["a", 2n],
      ]),
    );
  });
});

const PCR_NAMES = [...NITRO_PCRS.keys()].map((index) => `pcr${index}`);

describe("core/evidence/nitro", () => {
  it("reads every field of a document", () => {
    const document = parseNitroDocument(buildNitroDocument());
    expect(document).to.include({ digest: "SHA384", timestampMs: 1_700_000_000_000n, debug: false });
    expect([...document.pcrs]).to.deep.equal([...NITRO_PCRS]);
    expect(document.certificate).to.deep.equal(fill(200, 0x30));
    expect(document.caBundle).to.deep.equal([fill(100, 0x31), fill(101, 0x32)]);
    expect(document.userData).to.deep.equal(fill(64, 0xdd));
    expect(document.nonce).to.equal(undefined);
    expect(document.publicKey).to.equal(undefined);
    expect(document.signature).to.deep.equal(fill(96, 0x54));
    expect(toHex(document.protected)).to.equal("0xa1013822");
    expect(nitroFindings(document)).to.deep.equal([]);
    expect(Object.keys(nitroRegisters(document))).to.deep.equal(PCR_NAMES);
  });

  it("keeps empty user data apart from none, and lets absent fields be absent", () => {
    expect(parseNitroDocument(buildNitroDocument({ payload: { user_data: fill(0, 0) } })).userData).to.deep.equal(
      fill(0, 0),
    );
    expect(parseNitroDocument(buildNitroDocument({ payload: { user_data: undefined } })).userData).to.equal(undefined);
  });

  it("takes every field at its bounds and not beyond", () => {
    const bounds: readonly [string, number, number][] = [
      ["certificate", 1, 1024],
      ["cabundle", 1, 1024],
      ["public_key", 1, 1024],
      ["user_data", 0, 512],
      ["nonce", 0, 512],
    ];
    const parse = (field: string, length: number) =>
      parseNitroDocument(
        buildNitroDocument({ payload: { [field]: field === "cabundle" ? [fill(length, 1)] : fill(length, 1) } }),
      );
    for (const [field, least, most] of bounds) {
      for (const length of [least, most]) expect(() => parse(field, length), `${field} of ${length}`).to.not.throw();
      const beyond = least > 0 ? [least - 1, most + 1] : [most + 1];
      for (const length of beyond)
        expect(errorOf(() => parse(field, length)).details.field, `${field} of ${length}`).to.equal(field);
    }
    expect(parseNitroDocument(buildNitroDocument({ payload: { timestamp: 1 } })).timestampMs).to.equal(1n);
    expect(parseNitroDocument(buildNitroDocument({ pcrs: new Map([[31, fill(48, 1)]]) })).pcrs.size).to.equal(1);
  });

  it("gives a service image of PCR0 to 2 and a platform image of PCR1, and PCR8 by name", () => {
    const registers = nitroRegisters(parseNitroDocument(buildNitroDocument()));
    expect(Object.keys(buildImage("nitro", registers, "service").image.registers)).to.deep.equal([
      "pcr0",
      "pcr1",
      "pcr2",
    ]);
    expect(Object.keys(buildImage("nitro", registers, "platform").image.registers)).to.deep.equal(["pcr1"]);
    expect(buildImage("nitro", registers, "service", { include: ["pcr8"] }).image.registers.pcr8).to.equal(
      toHex(fill(48, 0xc8)),
    );
  });

  it("flags debug for PCR0 to 2 all zero, and no image can be made of it", () => {
    for (const index of [0, 1, 2]) {
      const document = parseNitroDocument(buildNitroDocument({ pcrs: new Map([...NITRO_PCRS, [index, fill(48, 0)]]) }));
      expect(document.debug).to.equal(index === 0);
      expect(nitroFindings(document).map(({ code }) => code)).to.deep.equal(["evidence/debug"]);
      expect(errorOf(() => buildImage("nitro", nitroRegisters(document), "service")).code).to.equal(
        "image/zero-register",
      );
    }
  });

  describe("given what is no document", () => {
    const good = buildNitroDocument();
    const cases: readonly [string, Uint8Array, string][] = [
      ["a tag before it", concatBytes(Uint8Array.of(0xd2), good), "nitro/tagged"],
      ["a byte after it", concatBytes(good, fill(1, 0)), "cbor/trailing-bytes"],
      ["64 KiB and a byte", fill(65_537, 0), "nitro/too-large"],
      ["three items", Uint8Array.of(0x83, 0x40, 0xa0, 0x40), "nitro/not-cose-sign1"],
      ["five items", Uint8Array.of(0x85, 0x40, 0xa0, 0x40, 0x40, 0x40), "nitro/not-cose-sign1"],
      ["a map", Uint8Array.of(0xa0), "nitro/not-cose-sign1"],
      ["a text of four", Uint8Array.of(0x64, 0x61, 0x61, 0x61, 0x61), "nitro/not-cose-sign1"],
      ["a number as protected header", Uint8Array.of(0x84, 0x00, 0xa0, 0x40, 0x40), "nitro/not-cose-sign1"],
      ["a number as payload", Uint8Array.of(0x84, 0x40, 0xa0, 0x00, 0x40), "nitro/not-cose-sign1"],
      ["a number as signature", Uint8Array.of(0x84, 0x40, 0xa0, 0x40, 0x00), "nitro/not-cose-sign1"],
      ["numbers for bytes", Uint8Array.of(0x84, 0x00, 0xa0, 0x00, 0x00), "nitro/not-cose-sign1"],
      ["ES256", buildNitroDocument({ protectedHeader: Uint8Array.of(0xa1, 0x01, 0x26) }), "nitro/unknown-algorithm"],
      [
        "a header of ES384 and more",
        buildNitroDocument({ protectedHeader: Uint8Array.of(0xa2, 1, 0x38, 0x22, 4, 0x40) }),
        "nitro/unknown-algorithm",
      ],
      ["an unprotected header", buildNitroDocument({ unprotected: new Map([[1, -35]]) }), "nitro/unprotected-header"],
      ["a short signature", buildNitroDocument({ signature: fill(95, 1) }), "nitro/signature-length"],
      ["a payload that is no map", buildNitroDocument({ rawPayload: Uint8Array.of(0x80) }), "nitro/bad-field"],
      [
        "a payload with more after it",
        buildNitroDocument({ rawPayload: Uint8Array.of(0xa0, 0) }),
        "cbor/trailing-bytes",
      ],
    ];
    for (const [name, bytes, code] of cases) {
      it(`${name}: ${code}`, () => {
        expect(errorOf(() => parseNitroDocument(bytes)).code).to.equal(code);
      });
    }

    const fields: readonly [string, NonNullable<NitroOptions["payload"]>, string, string][] = [
      ["an unknown field", { extra: 1 }, "nitro/unknown-field", "extra"],
      ["no module id", { module_id: undefined }, "nitro/bad-field", "module_id"],
      ["an empty module id", { module_id: "" }, "nitro/bad-field", "module_id"],
      ["SHA256", { digest: "SHA256" }, "nitro/bad-field", "digest"],
      ["time zero", { timestamp: 0 }, "nitro/bad-field", "timestamp"],
      ["a negative time", { timestamp: -1 }, "nitro/bad-field", "timestamp"],
      ["no PCRs", { pcrs: undefined }, "nitro/bad-field", "pcrs"],
      ["an empty PCR map", { pcrs: new Map() }, "nitro/bad-field", "pcrs"],
      ["PCR 32", { pcrs: new Map([[32, fill(48, 1)]]) }, "nitro/bad-field", "pcrs"],
      ["PCR -1", { pcrs: new Map([[-1, fill(48, 1)]]) }, "nitro/bad-field", "pcrs"],
      ["a PCR of 32 bytes", { pcrs: new Map([[0, fill(32, 1)]]) }, "nitro/bad-field", "pcrs[0]"],
      ["an empty certificate", { certificate: fill(0, 0) }, "nitro/bad-field", "certificate"],
      ["a certificate too large", { certificate: fill(1025, 0) }, "nitro/bad-field", "certificate"],
      ["no bundle", { cabundle: [] }, "nitro/bad-field", "cabundle"],
      ["user data too large", { user_data: fill(513, 0) }, "nitro/bad-field", "user_data"],
      ["a nonce too large", { nonce: fill(513, 0) }, "nitro/bad-field", "nonce"],
      ["a text as public key", { public_key: "key" }, "nitro/bad-field", "public_key"],
    ];
    for (const [name, payload, code, field] of fields) {
      it(`${name}: ${code} ${field}`, () => {
        const error = errorOf(() => parseNitroDocument(buildNitroDocument({ payload })));
        expect(error.code).to.equal(code);
        expect(error.details.field).to.equal(field);
      });
    }
  });

  describe("given the JSON of nitro-cli", () => {
    it("reads the PCRs, after progress lines too", () => {
      const json = buildNitroPcrJson({ PCR8: "c8".repeat(48) });
      const plain = parseNitroPcrs(json);
      expect([...plain.pcrs.keys()]).to.deep.equal([0, 1, 2, 8]);
      expect(plain.skippedText).to.equal(false);
      expect(plain.hashAlgorithm).to.equal("Sha384 { ... }");
      const captured = parseNitroPcrs(
        `Start building the Enclave Image...\nEnclave Image successfully created.\n${json}`,
      );
      expect(nitroRegisters(captured)).to.deep.equal(nitroRegisters(plain));
      expect(captured.skippedText).to.equal(true);
      expect(parseNitroPcrs(`x\n${json}`).skippedText).to.equal(true);
      expect(parseNitroPcrs(`\n  ${json}`).skippedText).to.equal(false);
    });

    it("reads the measurements alone", () => {
      expect(parseNitroPcrs(JSON.stringify({ PCR0: "AB".repeat(48) })).pcrs.get(0)).to.deep.equal(fill(48, 0xab));
    });

    const cases: readonly [string, string, string][] = [
      ["no JSON", "PCR0", "json/malformed"],
      ["text after it", `${buildNitroPcrJson()}done`, "json/malformed"],
      ["no PCRs", '{"Measurements":{}}', "nitro/no-measurements"],
      ["a list", "[]", "nitro/no-measurements"],
      ["a short PCR", buildNitroPcrJson({ PCR0: "ab" }), "nitro/bad-pcr"],
      ["a PCR with 0x", buildNitroPcrJson({ PCR0: `0x${"ab".repeat(47)}` }), "nitro/bad-pcr"],
      ["PCR01", buildNitroPcrJson({ PCR01: "ab".repeat(48) }), "nitro/bad-pcr"],
      ["PCR32", buildNitroPcrJson({ PCR32: "ab".repeat(48) }), "nitro/bad-pcr"],
      ["another hash", buildNitroPcrJson({ HashAlgorithm: "Sha512 { ... }" }), "nitro/unknown-hash"],
      ["a PCR twice", buildNitroPcrJson().replace('"PCR1"', '"PCR0"'), "json/duplicate-key"],
      ["a PCR twice, once escaped", buildNitroPcrJson().replace('"PCR1"', '"\\u0050CR0"'), "json/duplicate-key"],
    ];
    for (const [name, text, code] of cases) {
      it(`${name}: ${code}`, () => {
        expect(errorOf(() => parseNitroPcrs(text)).code).to.equal(code);
      });
    }
  });
});
