import { expect } from "chai";
import fc from "fast-check";
import { concatBytes, type Hex, toHex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import {
  checkImage,
  decodeImage,
  encodeImage,
  formatImage,
  IMAGE_KINDS,
  IMAGE_USES,
  type Image,
  type ImageUse,
  imageId,
  parseImage,
  type RegisterSpec,
  TEE_KINDS,
  type TeeKind,
} from "../../src/core/image.ts";
import { errorOf } from "../helpers/errors.ts";

const USES = IMAGE_USES;
const value = (width: number, fill: number): Hex => toHex(new Uint8Array(width).fill(fill));

/** An image with exactly these registers, each filled with one byte. */
const imageOf = (kind: TeeKind, names: readonly string[], fill = 0x11): Image => ({
  kind,
  registers: Object.fromEntries(
    IMAGE_KINDS[kind].registers
      .filter(({ name }) => names.includes(name))
      .map(({ name, width }) => [name, value(width, fill)]),
  ),
});
const fullImage = (kind: TeeKind): Image =>
  imageOf(
    kind,
    IMAGE_KINDS[kind].registers.map(({ name }) => name),
  );

/** Any image of any kind that some use may register: every register present or not, non-zero. */
const arbitraryImage = fc.constantFrom(...TEE_KINDS).chain((kind) =>
  fc
    .tuple(
      ...IMAGE_KINDS[kind].registers.map((spec: RegisterSpec) =>
        fc.option(
          fc
            .uint8Array({ minLength: spec.width, maxLength: spec.width })
            .filter((bytes) => !spec.neverZero || bytes.some((byte) => byte !== 0)),
          { nil: undefined },
        ),
      ),
    )
    .map((values): Image => {
      const registers: Record<string, Hex> = {};
      IMAGE_KINDS[kind].registers.forEach(({ name }, index) => {
        const bytes = values[index];
        if (bytes !== undefined) registers[name] = toHex(bytes);
      });
      return { kind, registers };
    }),
);

describe("core/image", () => {
  describe("given an image", () => {
    it("encodes to version, kind, mask and 48 bytes a register, the short ones padded on the right", () => {
      const image = imageOf("dstack", ["os_image_hash", "compose_hash"]);
      expect(toHex(encodeImage(image))).to.equal(
        `0x010400000003${"11".repeat(32)}${"00".repeat(16)}${"11".repeat(32)}${"00".repeat(16)}`,
      );
    });

    it("puts Nitro's PCRs at the bits of their numbers, the last at the mask's highest", () => {
      const image = imageOf("nitro", ["pcr0", "pcr1", "pcr2", "pcr8", "pcr16", "pcr31"]);
      expect(toHex(encodeImage(image)).slice(0, 14)).to.equal("0x010380010107");
      expect(decodeImage(encodeImage(image), "service")).to.deep.equal(image);
    });

    it("has keccak-256 of its bytes as id", () => {
      // keccak-256 of four zero bytes, from Solidity's `cast keccak 0x00000000`
      expect(imageId(new Uint8Array(4))).to.equal("0xe8e77626586f73b955364c7b4bbf0bb7f7685ebd40e852b164633a4acbd3244c");
    });

    it("has a text form without 0x, in bit order whatever the order of the properties", () => {
      const image: Image = { kind: "snp", registers: { image_id: value(16, 2), measurement: value(48, 1) } };
      expect(formatImage(image)).to.equal(`snp:measurement=${"01".repeat(48)},image_id=${"02".repeat(16)}`);
      expect(toHex(encodeImage(image)).slice(0, 14)).to.equal("0x010200000021");
    });

    it("survives bytes and text unchanged, whatever it holds", () => {
      fc.assert(
        fc.property(arbitraryImage, fc.constantFrom(...USES), (image, use) => {
          expect(parseImage(formatImage(image))).to.deep.equal(image);
          const required = IMAGE_KINDS[image.kind].required[use];
          const otherwise = IMAGE_KINDS[image.kind].otherwise?.[use];
          if ([required, otherwise].some((all) => all?.every((name) => name in image.registers))) {
            const bytes = encodeImage(image);
            expect(decodeImage(bytes, use)).to.deep.equal(image);
            expect(encodeImage(decodeImage(bytes, use))).to.deep.equal(bytes);
            expect(parseImage(formatImage(image), use)).to.deep.equal(image);
          } else {
            expect(errorOf(() => checkImage(encodeImage(image), use)).code).to.equal("image/missing-registers");
          }
        }),
        { numRuns: 500 },
      );
    });

    for (const kind of TEE_KINDS) {
      for (const use of USES) {
        it(`of ${kind} with exactly what ${use} requires passes, and with any one of them missing does not`, () => {
          const required = IMAGE_KINDS[kind].required[use];
          checkImage(encodeImage(imageOf(kind, required)), use);
          for (const absent of required) {
            const rest = required.filter((name) => name !== absent);
            const error = errorOf(() => checkImage(encodeImage(imageOf(kind, rest)), use));
            const bit = IMAGE_KINDS[kind].registers.find(({ name }) => name === absent)?.bit ?? -1;
            expect(error.code).to.equal("image/missing-registers");
            expect(error.details).to.deep.equal({ kind: IMAGE_KINDS[kind].byte, bits: 1 << bit });
          }
        });
      }

      it(`of ${kind} may have zeros in the other registers and never in the measured ones, in every use`, () => {
        for (const { name, bit, width, neverZero } of IMAGE_KINDS[kind].registers) {
          const full = fullImage(kind);
          const bytes = encodeImage({ kind, registers: { ...full.registers, [name]: value(width, 0) } });
          for (const use of USES) {
            if (!neverZero) checkImage(bytes, use);
            else {
              const error = errorOf(() => checkImage(bytes, use));
              expect(error.code, name).to.equal("image/zero-register");
              expect(error.details).to.deep.equal({ kind: IMAGE_KINDS[kind].byte, register: bit });
            }
          }
        }
      });
    }
  });

  it("has the contract's registers, and those that are never zero", () => {
    const others = Array.from({ length: 29 }, (_, index) => `${index + 3} pcr${index + 3} 48`).join(", ");
    const table = TEE_KINDS.map((kind) =>
      [
        IMAGE_KINDS[kind].byte,
        ...IMAGE_KINDS[kind].registers.map(
          ({ name, bit, width, neverZero }) => `${bit} ${name} ${width}${neverZero ? " !" : ""}`,
        ),
      ].join(", "),
    );
    expect(table).to.deep.equal([
      "1, 0 mrtd 48 !, 1 rtmr0 48, 2 rtmr1 48 !, 3 rtmr2 48 !, 4 rtmr3 48 !, 5 mr_seam 48, 6 mr_signer_seam 48, 7 mr_config_id 48, 8 mr_owner 48, 9 mr_owner_config 48",
      "2, 0 measurement 48 !, 1 host_data 32, 2 id_key_digest 48 !, 3 author_key_digest 48, 4 family_id 16, 5 image_id 16",
      `3, 0 pcr0 48 !, 1 pcr1 48 !, 2 pcr2 48 !, ${others}`,
      "4, 0 os_image_hash 32 !, 1 compose_hash 32 !, 2 mr_aggregated 32 !, 3 mr_system 32",
    ]);
  });

  describe("given bytes that are no image", () => {
    const good = encodeImage(imageOf("dstack", ["os_image_hash", "compose_hash"]));
    const changed = (offset: number, byte: number): Uint8Array => {
      const copy = good.slice();
      copy[offset] = byte;
      return copy;
    };
    const zeroOs = new Uint8Array(good).fill(0, 6, 38);
    const cases: readonly [string, Uint8Array, ImageUse, string, Record<string, unknown>][] = [
      ["nothing", new Uint8Array(0), "service", "image/wrong-length", { expected: 6, actual: 0 }],
      ["five bytes", good.slice(0, 5), "service", "image/wrong-length", { expected: 6, actual: 5 }],
      ["version 0", changed(0, 0), "service", "image/wrong-version", { version: 0 }],
      ["version 2", changed(0, 2), "service", "image/wrong-version", { version: 2 }],
      ["kind 0", changed(1, 0), "service", "image/unknown-kind", { kind: 0 }],
      ["kind 5", changed(1, 5), "service", "image/unknown-kind", { kind: 5 }],
      ["an unknown bit", changed(5, 0x13), "service", "image/unknown-registers", { kind: 4, bits: 0x10 }],
      ["bit 31", changed(2, 0x80), "service", "image/unknown-registers", { kind: 4, bits: 0x8000_0000 }],
      ["no registers", good.slice(0, 6).fill(0, 2), "service", "image/missing-registers", { kind: 4, bits: 2 }],
      ["one byte less", good.slice(0, -1), "service", "image/wrong-length", { expected: 102, actual: 101 }],
      [
        "one byte more",
        concatBytes(good, new Uint8Array(1)),
        "service",
        "image/wrong-length",
        { expected: 102, actual: 103 },
      ],
      ["dirty padding", changed(38, 1), "service", "image/non-zero-padding", { kind: 4, register: 0 }],
      ["dirty last byte", changed(101, 1), "sealed", "image/non-zero-padding", { kind: 4, register: 1 }],
      ["zero hash", zeroOs, "service", "image/zero-register", { kind: 4, register: 0 }],
      [
        "no os hash when sealed",
        encodeImage(imageOf("dstack", ["compose_hash"])),
        "sealed",
        "image/missing-registers",
        { kind: 4, bits: 1 },
      ],
    ];
    for (const [name, bytes, use, code, details] of cases) {
      it(`with ${name}: ${code}`, () => {
        const error = errorOf(() => checkImage(bytes, use));
        expect(error.code).to.equal(code);
        expect(error.details).to.deep.equal(details);
        expect(errorOf(() => decodeImage(bytes, use)).code).to.equal(code);
        expect(error.remedy).to.not.equal("");
      });
    }

    it("names the first fault of the contract's order when there are several", () => {
      const faults = zeroOs.slice();
      faults[42] = 1; // padding of register 0, and register 0 is zero
      faults[101] = 1; // padding of register 1
      expect(errorOf(() => checkImage(faults, "service")).details).to.deep.equal({ kind: 4, register: 0 });
      expect(errorOf(() => checkImage(faults, "service")).code).to.equal("image/non-zero-padding");
      expect(errorOf(() => checkImage(faults.slice(0, 50), "service")).code).to.equal("image/wrong-length");
      expect(errorOf(() => checkImage(faults.slice(0, 50).fill(0xff, 2, 3), "service")).code).to.equal(
        "image/unknown-registers",
      );
      expect(errorOf(() => checkImage(faults.slice(0, 50).fill(0, 5, 6), "service")).code).to.equal(
        "image/missing-registers",
      );
    });

    it("gives an image or one of the seven reasons, whatever the bytes", () => {
      const reasons = [
        "wrong-length",
        "wrong-version",
        "unknown-kind",
        "unknown-registers",
        "missing-registers",
        "non-zero-padding",
        "zero-register",
      ];
      const header = fc.tuple(
        fc.constantFrom(0, 1, 2),
        fc.constantFrom(0, 1, 2, 3, 4, 5),
        fc.nat(1),
        fc.nat(1),
        fc.nat(2),
        fc.nat(255),
      );
      const bytes = fc
        .tuple(header, fc.uint8Array({ maxLength: 500 }))
        .map(([head, body]) => Uint8Array.from([...head, ...body]));
      fc.assert(
        fc.property(fc.oneof(bytes, fc.uint8Array({ maxLength: 120 })), fc.constantFrom(...USES), (input, use) => {
          try {
            expect(encodeImage(decodeImage(input, use))).to.deep.equal(input);
          } catch (error) {
            if (!isKeysteadError(error)) throw error;
            expect(error.code.replace("image/", "")).to.be.oneOf(reasons);
          }
        }),
        { numRuns: 2000 },
      );
    });
  });

  describe("given text that is no image", () => {
    const hash = "ab".repeat(32);
    const cases: readonly [string, string, string][] = [
      ["nothing", "", "image/malformed-text"],
      ["no colon", `compose_hash=${hash}`, "image/malformed-text"],
      ["an unknown kind", `sgx:mrenclave=${hash}`, "image/unknown-kind"],
      ["a kind in upper case", `DSTACK:compose_hash=${hash}`, "image/unknown-kind"],
      ["a kind of every object", "constructor:", "image/unknown-kind"],
      ["an unknown register", `dstack:pcr0=${hash}`, "image/unknown-register"],
      ["a register of every object", `dstack:__proto__=${hash}`, "image/unknown-register"],
      ["a register in upper case", `dstack:COMPOSE_HASH=${hash}`, "image/unknown-register"],
      ["a value in upper case", `dstack:compose_hash=${hash.toUpperCase()}`, "image/register-value"],
      ["a value with 0x", `dstack:compose_hash=0x${hash}`, "image/register-value"],
      ["a short value", `dstack:compose_hash=${hash.slice(2)}`, "image/register-value"],
      ["a padded value", `dstack:compose_hash=${hash}${"00".repeat(16)}`, "image/register-value"],
      ["an empty value", "dstack:compose_hash=", "image/register-value"],
      ["a star", "dstack:compose_hash=*", "image/register-value"],
      ["no value", "dstack:compose_hash", "image/malformed-text"],
      ["a register twice", `dstack:compose_hash=${hash},compose_hash=${hash}`, "image/malformed-text"],
      ["registers out of order", `dstack:compose_hash=${hash},os_image_hash=${hash}`, "image/malformed-text"],
      ["a space", `dstack:os_image_hash=${hash}, compose_hash=${hash}`, "image/unknown-register"],
      ["a line end", `dstack:compose_hash=${hash}\n`, "image/register-value"],
      ["a comma at the end", `dstack:compose_hash=${hash},`, "image/malformed-text"],
    ];
    for (const [name, text, code] of cases) {
      it(`with ${name}: ${code}`, () => {
        expect(errorOf(() => parseImage(text)).code).to.equal(code);
      });
    }

    it("says at which character it stopped", () => {
      const first = `dstack:os_image_hash=${hash}`;
      const positions: readonly [string, number][] = [
        ["dstack", 0],
        ["dstack:x", 7],
        [`${first},`, first.length + 1],
        [`${first},os_image_hash=${hash}`, first.length + 1],
      ];
      for (const [text, position] of positions)
        expect(errorOf(() => parseImage(text)).details.position, text).to.equal(position);
    });

    it("refuses with the contract's reason when a use is given", () => {
      expect(errorOf(() => parseImage("dstack:", "service")).code).to.equal("image/missing-registers");
      expect(errorOf(() => parseImage(`dstack:compose_hash=${"00".repeat(32)}`, "service")).code).to.equal(
        "image/zero-register",
      );
    });
  });

  describe("given an image object that is none", () => {
    it("refuses unknown registers, foreign widths and values that are not canonical hex", () => {
      const build = (registers: Record<string, Hex>) => () => encodeImage({ kind: "dstack", registers });
      expect(errorOf(build({ pcr0: value(32, 1) })).code).to.equal("image/unknown-register");
      expect(errorOf(build({ compose_hash: value(48, 1) })).code).to.equal("image/register-value");
      expect(errorOf(build({ compose_hash: `0x${"AB".repeat(32)}` })).code).to.equal("image/register-value");
      expect(errorOf(build({ compose_hash: `0x${"zz".repeat(32)}` })).code).to.equal("image/register-value");
      expect(errorOf(() => encodeImage({ kind: "sgx" as TeeKind, registers: {} })).code).to.equal("image/unknown-kind");
    });
  });
});
