import { decode } from "cbor2";
import { expect } from "chai";
import fc from "fast-check";
import { isKeysteadError } from "../../../src/core/errors.ts";
import { decodeCbor } from "../../../src/core/evidence/cbor.ts";
import { detectEvidence } from "../../../src/core/evidence/detect.ts";
import { nitroFindings, nitroRegisters, parseNitroDocument, parseNitroPcrs } from "../../../src/core/evidence/nitro.ts";
import { parseSnpReport, snpFindings, snpRegisters } from "../../../src/core/evidence/snp.ts";
import { parseTdxQuote, tdxFindings, tdxRegisters } from "../../../src/core/evidence/tdx.ts";
import { buildImage, type registerValues } from "../../../src/core/measurement.ts";
import { errorOf } from "../../helpers/errors.ts";
import {
  buildNitroDocument,
  buildNitroPcrJson,
  buildSnpReport,
  buildTdxQuote,
  NITRO_PCRS,
} from "../../helpers/evidence.ts";

/** Inputs per parser; the long run of continuous integration sets 100000. */
const RUNS = Number(process.env.KEYSTEAD_FUZZ_RUNS ?? 3000);
/** fast-check prints the seed of a failure; give it here to play it again. */
const SEED = process.env.KEYSTEAD_FUZZ_SEED === undefined ? {} : { seed: Number(process.env.KEYSTEAD_FUZZ_SEED) };

type Mutation = (bytes: Uint8Array) => Uint8Array;

const splice = (bytes: Uint8Array, at: number, drop: number, put: Uint8Array): Uint8Array =>
  Uint8Array.from([...bytes.subarray(0, at), ...put, ...bytes.subarray(at + drop)]);

/** Small damage to valid evidence: a byte or bit changed, bytes dropped or put in, the end cut off, a length field blown up. */
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.tuple(fc.nat(), fc.nat(255)).map(
    ([at, byte]): Mutation =>
      (bytes) =>
        splice(bytes, at % bytes.length, 1, Uint8Array.of(byte)),
  ),
  fc.tuple(fc.nat(), fc.nat(7)).map(
    ([at, bit]): Mutation =>
      (bytes) => {
        const copy = bytes.slice();
        const index = at % copy.length;
        copy[index] = (copy[index] ?? 0) ^ (1 << bit);
        return copy;
      },
  ),
  fc.tuple(fc.nat(), fc.nat(64)).map(
    ([at, drop]): Mutation =>
      (bytes) =>
        splice(bytes, at % bytes.length, drop, new Uint8Array(0)),
  ),
  fc.tuple(fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 64 })).map(
    ([at, put]): Mutation =>
      (bytes) =>
        splice(bytes, at % (bytes.length + 1), 0, put),
  ),
  fc.nat().map(
    (at): Mutation =>
      (bytes) =>
        bytes.slice(0, at % bytes.length),
  ),
  fc.nat().map(
    (at): Mutation =>
      (bytes) =>
        splice(bytes, at % bytes.length, 4, Uint8Array.of(0xff, 0xff, 0xff, 0xff)),
  ),
);

/** Valid evidence after up to four mutations, or bytes that never were any. */
const inputs = (...valid: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> =>
  fc.oneof(
    {
      weight: 9,
      arbitrary: fc
        .tuple(fc.constantFrom(...valid), fc.array(mutation, { maxLength: 4 }))
        .map(([bytes, mutations]) =>
          mutations.reduce((current, mutate) => (current.length === 0 ? current : mutate(current)), bytes),
        ),
    },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 2000 }) },
  );

/** Runs a total function over many inputs: it must return, or throw a typed error that names its argument and a remedy. */
function assertTotal(name: string, arbitrary: fc.Arbitrary<Uint8Array>, act: (input: Uint8Array) => void): void {
  let accepted = 0;
  let refused = 0;
  fc.assert(
    fc.property(arbitrary, (input) => {
      try {
        act(input);
        accepted += 1;
      } catch (error) {
        if (!isKeysteadError(error)) throw error;
        expect(error.remedy).to.not.equal("");
        expect(error.argument).to.be.a("string");
        refused += 1;
      }
    }),
    { numRuns: RUNS, ...SEED },
  );
  console.log(`      ${name}: ${accepted} accepted, ${refused} refused`);
  expect(accepted).to.be.greaterThan(0);
  expect(refused).to.be.greaterThan(0);
}

/** Whatever a parser accepted, building images of it ends in an image or a typed error too. */
function buildBoth(kind: "tdx" | "snp" | "nitro", registers: ReturnType<typeof registerValues>): void {
  for (const use of ["service", "platform"] as const) {
    try {
      buildImage(kind, registers, use);
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
    }
  }
}

/** One spelling for the integers of two decoders. */
function normalise(value: unknown): unknown {
  if (typeof value === "bigint" || typeof value === "number") return `integer ${value}`;
  if (Array.isArray(value)) return value.map(normalise);
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [normalise(key), normalise(item)]));
  return value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value;
}

describe("core/evidence on arbitrary bytes", function () {
  this.timeout(3_600_000);

  it("parseTdxQuote gives a value or a typed error", () => {
    const valid = [
      buildTdxQuote(),
      buildTdxQuote({ version: 5 }),
      buildTdxQuote({ version: 5, bodyType: 4 }),
      buildTdxQuote({ version: 5, bodyType: 2, trailing: new Uint8Array(9) }),
    ];
    assertTotal("tdx", inputs(...valid), (input) => {
      const quote = parseTdxQuote(input);
      expect(quote.length + quote.padding).to.equal(input.length);
      tdxFindings(quote);
      buildBoth("tdx", tdxRegisters(quote));
    });
  });

  it("parseSnpReport gives a value or a typed error", () => {
    assertTotal(
      "snp",
      inputs(
        buildSnpReport({ version: 2 }),
        buildSnpReport(),
        buildSnpReport({ version: 5 }),
        buildSnpReport({ version: 5, cpuid: [0x1a, 0x02, 1] }),
      ),
      (input) => {
        const report = parseSnpReport(input);
        snpFindings(report);
        buildBoth("snp", snpRegisters(report));
      },
    );
  });

  it("parseNitroDocument gives a value or a typed error", () => {
    const valid = [
      buildNitroDocument(),
      buildNitroDocument({ form: "indefinite" }),
      buildNitroDocument({ pcrs: new Map([...NITRO_PCRS].slice(0, 3)), payload: { nonce: new Uint8Array(32) } }),
    ];
    assertTotal("nitro", inputs(...valid), (input) => {
      const document = parseNitroDocument(input);
      nitroFindings(document);
      buildBoth("nitro", nitroRegisters(document));
    });
  });

  it("decodeCbor gives a value or a typed error where the root may be an indefinite map", () => {
    const valid = [
      parseNitroDocument(buildNitroDocument({ form: "indefinite" })).payload,
      Uint8Array.of(0xbf, 0x61, 0x61, 0x82, 0x02, 0xa0, 0x00, 0xf6, 0xff),
      Uint8Array.of(0xbf, 0x61, 0x61, 0xbf, 0xff, 0xff),
    ];
    assertTotal("cbor, indefinite root", inputs(...valid), (input) => {
      const value = decodeCbor(input, "payload", "indefinite-map");
      expect(normalise(value)).to.deep.equal(normalise(decode(input, { preferMap: true })));
      // What the stricter form takes, it takes too, and as the same.
      if (input[0] !== 0xbf) expect(decodeCbor(input, "payload")).to.deep.equal(value);
      else expect(errorOf(() => decodeCbor(input, "payload")).code).to.equal("cbor/not-canonical");
    });
  });

  it("decodeCbor gives a value or a typed error", () => {
    const valid = [buildNitroDocument(), Uint8Array.of(0x83, 0x01, 0x82, 0x02, 0xa0, 0xf6)];
    assertTotal("cbor", inputs(...valid), (input) => {
      // a second opinion on everything accepted: a general decoder must read the same value
      expect(normalise(decodeCbor(input, "document"))).to.deep.equal(normalise(decode(input, { preferMap: true })));
    });
  });

  it("parseNitroPcrs gives a value or a typed error", () => {
    const valid = new TextEncoder().encode(buildNitroPcrJson());
    assertTotal("nitro pcrs", inputs(valid), (input) => {
      buildBoth("nitro", nitroRegisters(parseNitroPcrs(new TextDecoder().decode(input))));
    });
  });

  it("detectEvidence always answers, and never with more bytes than it got", () => {
    const files = [buildTdxQuote(), buildSnpReport(), buildNitroDocument()].flatMap((bytes) => [
      bytes,
      new TextEncoder().encode(Buffer.from(bytes).toString("hex")),
      new TextEncoder().encode(Buffer.from(bytes).toString("base64")),
    ]);
    fc.assert(
      fc.property(inputs(...files), (input) => {
        expect(detectEvidence(input).bytes.length).to.be.at.most(input.length);
      }),
      { numRuns: RUNS, ...SEED },
    );
  });

  it("answers on megabytes of anything as fast as on kilobytes, and without running out of stack", () => {
    const megabytes = (part: string): Uint8Array =>
      new TextEncoder().encode(part.repeat(Math.ceil((4 * 1024 * 1024) / part.length)));
    for (const part of ["ab", "A", "=", " ", "\n", "{", "[", '"', '"PCR0"', '"PCR0" ', '\\"', '{"PCR0":', "\u0000"]) {
      const input = megabytes(part);
      const start = performance.now();
      const text = new TextDecoder().decode(detectEvidence(input).bytes);
      for (const act of [
        () => parseNitroPcrs(text),
        () => parseNitroPcrs(`{"PCR0":"${text}"}`),
        () => parseTdxQuote(input),
        () => parseSnpReport(input),
        () => parseNitroDocument(input),
      ]) {
        expect(errorOf(act).remedy).to.not.equal("");
      }
      expect(performance.now() - start, JSON.stringify(part)).to.be.lessThan(10_000);
    }
  });
});
