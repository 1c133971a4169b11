import { expect } from "chai";
import { concat, keccak256, toBeHex } from "ethers";
import fc from "fast-check";
import { network } from "hardhat";
import { type ImageCodecHarness, ImageCodecHarness__factory } from "../../../typechain-types/index.ts";
import { image, KIND, measured } from "../../helpers/images.ts";
import { deploy } from "../../helpers/suite.ts";

const connection = await network.create();

/** Registers by bit and width in bytes, from CONTRACTS.md: the table is written out here, not taken from the code under test. */
const REGISTERS: Readonly<Record<keyof typeof KIND, Readonly<Record<number, number>>>> = {
  tdx: { 0: 48, 1: 48, 2: 48, 3: 48, 4: 48, 5: 48, 6: 48, 7: 48, 8: 48, 9: 48 },
  snp: { 0: 48, 1: 32, 2: 48, 3: 48, 4: 16, 5: 16 },
  nitro: Object.fromEntries(Array.from({ length: 32 }, (_, bit) => [bit, 48])),
  dstack: { 0: 32, 1: 32, 2: 32, 3: 32 },
};
const USES = ["service", "sealed", "platform", "kms"] as const;
type Use = (typeof USES)[number];
type Kind = keyof typeof KIND;
/** Registers that each use requires. */
const REQUIRED: Readonly<Record<Kind, Readonly<Record<Use, readonly number[]>>>> = {
  tdx: { service: [0, 2, 3, 4], sealed: [0, 2, 3, 4], platform: [0], kms: [0, 2, 3, 4] },
  snp: { service: [0], sealed: [0, 1], platform: [0], kms: [0, 1] },
  nitro: { service: [0, 1, 2], sealed: [0, 1, 2], platform: [1], kms: [0, 1, 2] },
  dstack: { service: [1], sealed: [0, 1], platform: [0], kms: [0, 1] },
};
/** What does as well, all of it in place of all that is required. */
const OTHERWISE: Readonly<Partial<Record<`${Kind} ${Use}`, readonly number[]>>> = {
  "snp sealed": [0, 2],
  "snp kms": [0, 2],
  "dstack kms": [2],
};
/** Registers that are never zero where they are present, in any use. */
const IDENTITY: Readonly<Record<Kind, readonly number[]>> = {
  tdx: [0, 2, 3, 4],
  snp: [0, 2],
  nitro: [0, 1, 2],
  dstack: [0, 1, 2],
};
const identity = (kind: Kind): readonly number[] => IDENTITY[kind];
const names = (named: readonly number[], bits: readonly number[] | undefined): boolean =>
  bits?.every((bit) => named.includes(bit)) === true;
const isFit = (kind: Kind, use: Use, named: readonly number[]): boolean =>
  names(named, REQUIRED[kind][use]) || names(named, OTHERWISE[`${kind} ${use}`]);
const KINDS = Object.keys(KIND) as readonly Kind[];
const maskOf = (bits: readonly number[]): number => bits.reduce((mask, bit) => mask + 2 ** bit, 0);
const widthOf = (kind: Kind, bit: number): number => REGISTERS[kind][bit] ?? 48;
const bitsOf = (kind: Kind): readonly number[] => Object.keys(REGISTERS[kind]).map(Number);
/** The registers whose every combination is tried: all, but for Nitro, which has 32, some from each byte of the mask. */
const tried = (kind: Kind): readonly number[] => (kind === "nitro" ? [0, 1, 2, 4, 8, 16, 23, 31] : bitsOf(kind));
const value = (kind: Kind, bit: number): string => measured(`${kind} ${bit}`, widthOf(kind, bit));
const zeros = (width: number): string => `0x${"00".repeat(width)}`;
/** An image with these registers, all of them measured but for those overridden. */
const withBits = (kind: Kind, bits: readonly number[], override: Readonly<Record<number, string>> = {}): string =>
  image(KIND[kind], Object.fromEntries(bits.map((bit) => [bit, override[bit] ?? value(kind, bit)])));
/** Raw bytes: a header as given, and one value per entry. */
const raw = (version: number, kind: number, mask: number, values: readonly string[]): string =>
  concat([toBeHex(version, 1), toBeHex(kind, 1), toBeHex(mask, 4), ...values]);
const full = measured("any value");

describe("ImageCodec", () => {
  let harness: ImageCodecHarness;

  before(async () => {
    harness = ImageCodecHarness__factory.connect(
      await deploy(connection, "ImageCodecHarness"),
      connection.ethers.provider,
    );
  });

  const check = async (use: Use, bytes: string) => {
    const checks = {
      service: harness.checkService,
      sealed: harness.checkSealed,
      platform: harness.checkPlatform,
      kms: harness.checkKms,
    };
    const [id, kind, mask] = await checks[use](bytes);
    return { id, kind: Number(kind), mask: Number(mask) };
  };
  const accepts = async (use: Use, kind: Kind, bits: readonly number[], bytes: string) =>
    expect(await check(use, bytes), `${kind} ${bits} as ${use}`).to.deep.equal({
      id: keccak256(bytes),
      kind: KIND[kind],
      mask: maskOf(bits),
    });
  const refuses = async (use: Use, bytes: string, error: string, ...values: readonly unknown[]) =>
    expect(check(use, bytes), `${use} ${bytes.slice(0, 10)}`)
      .to.be.revertedWithCustomError(harness, `ImageCodec_${error}`)
      .withArgs(...values);

  for (const kind of KINDS) {
    describe(kind, () => {
      for (const use of USES) {
        const required = REQUIRED[kind][use];
        it(`as ${use}: every set of registers is accepted if it names ${required}, and refused by the missing ones if not`, async () => {
          const bits = tried(kind);
          for (let chosen = 0; chosen < 1 << bits.length; chosen++) {
            const named = bits.filter((_, i) => (chosen >> i) & 1);
            const missing = required.filter((bit) => !named.includes(bit));
            const bytes = withBits(kind, named);
            if (isFit(kind, use, named)) await accepts(use, kind, named, bytes);
            else await refuses(use, bytes, "MissingRegisters", KIND[kind], maskOf(missing));
          }
        });

        it(`as ${use}: a zero register is refused exactly where it says what runs`, async () => {
          for (const bit of bitsOf(kind)) {
            const named = [...new Set([...required, bit])].sort((a, b) => a - b);
            const bytes = withBits(kind, named, { [bit]: zeros(48) });
            if (identity(kind).includes(bit)) await refuses(use, bytes, "ZeroRegister", KIND[kind], bit);
            else await accepts(use, kind, named, bytes);
          }
        });
      }

      it("a value counts as zero only if all its bytes are", async () => {
        const all = bitsOf(kind);
        for (const bit of identity(kind)) {
          const width = widthOf(kind, bit);
          for (let at = 0; at < width; at++) {
            const lone = `0x${"00".repeat(at)}01${"00".repeat(width - at - 1)}`;
            await accepts("sealed", kind, all, withBits(kind, all, { [bit]: lone }));
          }
        }
      });

      it("each register has its width: any byte beyond it is refused, none within it is", async () => {
        for (const bit of bitsOf(kind)) {
          const width = widthOf(kind, bit);
          const named = [...new Set([...REQUIRED[kind].service, bit])].sort((a, b) => a - b);
          for (let at = 0; at < 48; at++) {
            const dirty = `${value(kind, bit)}${"00".repeat(48 - width)}`;
            const bytes = withBits(kind, named, {
              [bit]: `${dirty.slice(0, 2 + at * 2)}01${dirty.slice(4 + at * 2)}`,
            });
            if (at < width) await accepts("service", kind, named, bytes);
            else await refuses("service", bytes, "NonZeroPadding", KIND[kind], bit);
          }
        }
      });

      it("the mask's other bits name no register", async () => {
        const named = REQUIRED[kind].sealed;
        for (let bit = 0; bit < 32; bit++) {
          if (bitsOf(kind).includes(bit)) continue;
          const bytes = raw(
            1,
            KIND[kind],
            maskOf([...named, bit]),
            [...named, bit].map(() => full),
          );
          for (const use of USES) await refuses(use, bytes, "UnknownRegisters", KIND[kind], 2 ** bit);
        }
      });

      it("the length is 6 + 48 for each register, to the byte", async () => {
        const named = bitsOf(kind);
        const bytes = withBits(kind, named);
        const length = 6 + 48 * named.length;
        for (const cut of [1, 16, 47, 48, 49, length - 6]) {
          await refuses("platform", bytes.slice(0, -2 * cut), "WrongLength", length, length - cut);
        }
        for (const more of [1, 16, 47, 48, 4096]) {
          await refuses("platform", `${bytes}${"00".repeat(more)}`, "WrongLength", length, length + more);
          await refuses("platform", `${bytes}${"ff".repeat(more)}`, "WrongLength", length, length + more);
        }
      });
    });
  }

  it("fewer bytes than a header: refused by length, whatever they are", async () => {
    for (const bytes of ["0x", "0x01", "0x0101", "0x010100", "0x0101000000", "0xff", "0xffffffffff"]) {
      for (const use of USES) await refuses(use, bytes, "WrongLength", 6, bytes.length / 2 - 1);
    }
  });

  it("every version but 1 is refused", async () => {
    const bytes = withBits("tdx", REQUIRED.tdx.sealed);
    for (let version = 0; version < 256; version++) {
      if (version === 1) continue;
      await refuses("service", concat([toBeHex(version, 1), `0x${bytes.slice(4)}`]), "WrongVersion", version);
    }
  });

  it("every kind but 1 to 4 is refused", async () => {
    for (let kind = 0; kind < 256; kind++) {
      if (kind >= 1 && kind <= 4) continue;
      for (const mask of [0, 1, 0xffff, 0xffff_ffff]) {
        await refuses("platform", raw(1, kind, mask, mask === 1 ? [full] : []), "UnknownKind", kind);
      }
    }
  });

  describe("given several faults, the first is the answer", () => {
    it("length below 6, version, kind, unknown registers, missing registers, length, registers", async () => {
      // SEV-SNP with every fault at once; each line mends the first. Bits: 0 measurement, 1 host_data, 4 family_id.
      await refuses("service", "0x0209ffffff", "WrongLength", 6, 5);
      await refuses("service", raw(2, 9, 0xffff_ffc0, [zeros(47)]), "WrongVersion", 2);
      await refuses("service", raw(1, 9, 0xffff_ffc0, [zeros(47)]), "UnknownKind", 9);
      await refuses("service", raw(1, KIND.snp, 0xffff_ffd2, [zeros(47)]), "UnknownRegisters", KIND.snp, 0xffff_ffc0);
      await refuses("service", raw(1, KIND.snp, 0x0012, [zeros(47)]), "MissingRegisters", KIND.snp, 1);
      await refuses("service", raw(1, KIND.snp, 0x0013, [zeros(48), full, full.slice(0, -2)]), "WrongLength", 150, 149);
      await refuses("service", raw(1, KIND.snp, 0x0013, [zeros(48), full, full]), "ZeroRegister", KIND.snp, 0);
      await refuses("service", raw(1, KIND.snp, 0x0013, [full, full, full]), "NonZeroPadding", KIND.snp, 1);
      const host = concat([measured("host", 32), zeros(16)]);
      await refuses("service", raw(1, KIND.snp, 0x0013, [full, host, full]), "NonZeroPadding", KIND.snp, 4);
      await accepts(
        "service",
        "snp",
        [0, 1, 4],
        raw(1, KIND.snp, 0x0013, [full, host, concat([measured("f", 16), zeros(32)])]),
      );
    });

    it("all unknown, and all missing, registers are named together", async () => {
      await refuses("service", raw(1, KIND.dstack, 0xffff_ffff, []), "UnknownRegisters", KIND.dstack, 0xffff_fff0);
      await refuses("service", raw(1, KIND.tdx, 0, []), "MissingRegisters", KIND.tdx, 0b11101);
      await refuses("platform", raw(1, KIND.tdx, 0, []), "MissingRegisters", KIND.tdx, 0b1);
    });

    it("of two bad registers the lower bit is named, padding or zero", async () => {
      const padded = full;
      const good = concat([measured("good", 32), zeros(16)]);
      const dstack = (values: readonly string[]) => raw(1, KIND.dstack, 0b1111, values);
      await refuses("sealed", dstack([zeros(48), padded, good, good]), "ZeroRegister", KIND.dstack, 0);
      await refuses("sealed", dstack([padded, zeros(48), good, good]), "NonZeroPadding", KIND.dstack, 0);
      await refuses("sealed", dstack([good, zeros(48), padded, padded]), "ZeroRegister", KIND.dstack, 1);
      await refuses("sealed", dstack([good, good, zeros(48), padded]), "ZeroRegister", KIND.dstack, 2);
      await refuses("sealed", dstack([good, good, good, padded]), "NonZeroPadding", KIND.dstack, 3);
      // Zero within its width, but not behind it: that is padding, not zero.
      const behind = concat([zeros(47), "0x01"]);
      await refuses("sealed", dstack([behind, good, good, good]), "NonZeroPadding", KIND.dstack, 0);
    });
  });

  it("the id is of exactly these bytes, wherever they stand in calldata", async () => {
    const bytes = withBits("tdx", bitsOf("tdx"));
    const canonical = harness.interface.encodeFunctionData("checkService", [bytes]);
    // The same argument behind a longer offset, with dirt before and after it.
    const selector = canonical.slice(0, 10);
    const tail = canonical.slice(74);
    const shifted = `${selector}${toBeHex(0x60, 32).slice(2)}${"ab".repeat(64)}${tail}${"cd".repeat(64)}`;
    for (const data of [canonical, shifted]) {
      const result = await connection.ethers.provider.call({ to: await harness.getAddress(), data });
      expect(harness.interface.decodeFunctionResult("checkService", result)[0]).to.equal(keccak256(bytes));
    }
  });

  it("random bytes, and valid images with one byte changed: accepted only if this table of registers says so", async () => {
    const model = (use: Use, bytes: Uint8Array): boolean => {
      const kind = KINDS.find((name) => KIND[name] === bytes[1]);
      if (bytes.length < 6 || bytes[0] !== 1 || kind === undefined) return false;
      const mask = Number(`0x${Buffer.from(bytes.subarray(2, 6)).toString("hex")}`);
      const bits = Array.from({ length: 32 }, (_, bit) => bit).filter((bit) => (mask >>> bit) & 1);
      if (bits.some((bit) => REGISTERS[kind][bit] === undefined)) return false;
      if (!isFit(kind, use, bits)) return false;
      if (bytes.length !== 6 + 48 * bits.length) return false;
      return bits.every((bit, i) => {
        const register = bytes.subarray(6 + 48 * i, 54 + 48 * i);
        if (register.subarray(widthOf(kind, bit)).some((byte) => byte !== 0)) return false;
        return !identity(kind).includes(bit) || register.some((byte) => byte !== 0);
      });
    };
    const valid = fc
      .constantFrom(...KINDS)
      .chain((kind) => fc.subarray([...bitsOf(kind)]).map((bits) => Buffer.from(withBits(kind, bits).slice(2), "hex")));
    const changed = fc.tuple(valid, fc.nat(), fc.nat(255)).map(([bytes, at, byte]) => {
      const copy = Uint8Array.from(bytes);
      copy[at % copy.length] = byte;
      return copy;
    });
    const inputs = fc.oneof(changed, fc.uint8Array({ maxLength: 200 }), valid);
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...USES), inputs, async (use, bytes) => {
        const hex = `0x${Buffer.from(bytes).toString("hex")}`;
        const answer = await check(use, hex).then(
          ({ id }) => id,
          () => undefined,
        );
        expect(answer).to.equal(model(use, bytes) ? keccak256(hex) : undefined);
        if (answer !== undefined) accepted += 1;
      }),
      { numRuns: 500 },
    );
    expect(accepted).to.be.greaterThan(50);
  });
});
