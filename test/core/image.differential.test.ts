import { expect } from "chai";
import { AbiCoder, Interface } from "ethers";
import fc from "fast-check";
import hre, { artifacts } from "hardhat";
import { toHex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import {
  decodeImage,
  encodeImage,
  IMAGE_KINDS,
  IMAGE_USES,
  type ImageUse,
  imageId,
  TEE_KINDS,
} from "../../src/core/image.ts";

/** Random inputs; each goes through the contract and through TypeScript. */
const RUNS = Number(process.env.KEYSTEAD_FUZZ_RUNS ?? 2000);
const USES = IMAGE_USES;
/** The harness's function for each use. */
const FUNCTIONS: Readonly<Record<ImageUse, string>> = {
  service: "checkService",
  sealed: "checkSealed",
  platform: "checkPlatform",
  kms: "checkKms",
};
const HARNESS = "ImageCodecHarness";

/** What either side says, spelled the same way. */
interface Verdict {
  readonly reason: string;
  readonly values: Readonly<Record<string, unknown>>;
}

/** `ImageCodec_WrongLength` → `image/wrong-length`. */
const codeOf = (name: string): string =>
  `image/${name
    .replace("ImageCodec_", "")
    .replace(/(?<!^)([A-Z])/g, "-$1")
    .toLowerCase()}`;

/** What TypeScript says. */
function verdictHere(bytes: Uint8Array, use: ImageUse): Verdict {
  try {
    const image = decodeImage(bytes, use);
    expect(toHex(encodeImage(image)), "bytes after decoding and encoding").to.equal(toHex(bytes));
    const spec = IMAGE_KINDS[image.kind];
    const mask = spec.registers.reduce((bits, { name, bit }) => (name in image.registers ? bits + 2 ** bit : bits), 0);
    return { reason: "accepted", values: { id: imageId(bytes), kind: spec.byte, mask } };
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    return { reason: error.code, values: error.details };
  }
}

/** The revert data somewhere in what a provider throws. */
function revertData(error: unknown): string | undefined {
  for (
    let current: unknown = error, depth = 0;
    typeof current === "object" && current !== null && depth < 6;
    depth += 1
  ) {
    const { data, cause, error: inner }: { data?: unknown; cause?: unknown; error?: unknown } = current;
    if (typeof data === "string" && data.length >= 10) return data;
    current = typeof data === "object" && data !== null ? data : (cause ?? inner);
  }
  return undefined;
}

/** A register's value: random, zero, or with bytes in its padding. */
const registerValue = (width: number): fc.Arbitrary<Uint8Array> =>
  fc
    .tuple(
      fc.uint8Array({ minLength: 48, maxLength: 48 }),
      fc.constantFrom("clean", "clean", "clean", "zero", "zero but padding", "dirty", "last byte"),
    )
    .map(([bytes, form]) => {
      if (form.startsWith("zero")) bytes.fill(0, 0, width);
      if (form === "clean" || form === "zero") bytes.fill(0, width);
      if (form === "last byte") bytes.fill(0, width, 47);
      return bytes;
    });

/** A mask in the encoding's four bytes. */
const maskBytes = (mask: number): readonly number[] => [24, 16, 8, 0].map((shift) => (mask >>> shift) & 0xff);

/** Images of every kind that are right, nearly right, or wrong in one way or several. */
const arbitraryInput: fc.Arbitrary<Uint8Array> = fc
  .tuple(
    fc.oneof({ weight: 12, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.nat(255) }),
    fc.oneof({ weight: 12, arbitrary: fc.constantFrom(1, 2, 3, 4) }, { weight: 1, arbitrary: fc.nat(255) }),
    fc.constantFrom("service", "sealed", "platform", "kms", "otherwise", "all", "some", "any"),
    fc.oneof(fc.nat(0xffff), fc.nat(0xffff_ffff)),
    fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: -60, max: 60 }) }),
  )
  .chain(([version, kind, which, random, delta]) => {
    const spec = TEE_KINDS.map((name) => IMAGE_KINDS[name]).find(({ byte }) => byte === kind);
    const bitsOf = (names: readonly string[]): number =>
      (spec?.registers ?? []).reduce((bits, { name, bit }) => (names.includes(name) ? bits + 2 ** bit : bits), 0);
    const known = bitsOf((spec?.registers ?? []).map(({ name }) => name));
    const use = USES.find((candidate) => candidate === which);
    const mask =
      use !== undefined
        ? (bitsOf(spec?.required[use] ?? []) | (random & known & 0x5555_5555)) >>> 0
        : which === "otherwise"
          ? (bitsOf(spec?.otherwise?.kms ?? []) | (random & known)) >>> 0
          : which === "all"
            ? known
            : which === "some"
              ? (random & known) >>> 0
              : random;
    const widths = Array.from({ length: 32 }, (_, bit) => bit)
      .filter((bit) => (mask >>> bit) & 1)
      .map((bit) => spec?.registers.find((one) => one.bit === bit)?.width ?? 48);
    return fc.tuple(...widths.map(registerValue)).map((values) => {
      const full = Uint8Array.from([version, kind, ...maskBytes(mask), ...values.flatMap((value) => [...value])]);
      const length = Math.max(0, full.length + delta);
      const out = new Uint8Array(length);
      out.set(full.subarray(0, length));
      return out;
    });
  });

/** Made by hand: the edges that chance seldom meets. */
function handMade(): readonly Uint8Array[] {
  const inputs: Uint8Array[] = [
    new Uint8Array(0),
    Uint8Array.of(1),
    Uint8Array.of(1, 1, 0),
    new Uint8Array(5),
    new Uint8Array(6),
    Uint8Array.of(1, 4, 0, 0, 0),
    Uint8Array.of(1, 4, 0, 0, 0, 0),
  ];
  for (const kind of [0, 1, 2, 3, 4, 5, 255]) {
    for (const mask of [
      0, 1, 2, 3, 4, 7, 0x0f, 0x1d, 0x1f, 0x3f, 0x40, 0x107, 0x11f, 0x120, 0x200, 0x3ff, 0x400, 0x8000, 0xffff,
      0x1_0007, 0x8000_0007, 0x8000_0000, 0xffff_ffff,
    ]) {
      const count = mask.toString(2).replaceAll("0", "").length;
      for (const fill of [0, 0x5a]) {
        const exact = new Uint8Array(6 + 48 * count).fill(fill);
        exact.set([1, kind, ...maskBytes(mask)]);
        const clean = exact.slice();
        const spec = TEE_KINDS.map((name) => IMAGE_KINDS[name]).find(({ byte }) => byte === kind);
        let offset = 6;
        for (const { bit, width } of spec?.registers ?? []) {
          if (((mask >>> bit) & 1) === 0) continue;
          clean.fill(0, offset + width, offset + 48);
          offset += 48;
        }
        inputs.push(
          exact,
          clean,
          clean.subarray(0, clean.length - 1),
          Uint8Array.from([...clean, 0]),
          clean.subarray(0, 6),
        );
        inputs.push(clean.slice().fill(2, 0, 1));
        // every value with one stray byte at its end, the one place that a narrow register's padding and a wide one's value share
        for (let end = 53; end < clean.length; end += 48) inputs.push(clean.slice().fill(1, end, end + 1));
      }
    }
  }
  return inputs;
}

describe("core/image against ImageCodec.sol", function () {
  this.timeout(3_600_000);
  let verdictThere: (bytes: Uint8Array, use: ImageUse) => Promise<Verdict>;
  const seen = new Map<string, number>();

  before(async () => {
    const { ethers } = await hre.network.create();
    const harness = await ethers.deployContract(HARNESS);
    const to = await harness.getAddress();
    const { abi } = await artifacts.readArtifact(HARNESS);
    const codec = new Interface(abi);
    const outputs = AbiCoder.defaultAbiCoder();
    verdictThere = async (bytes, use) => {
      const data = codec.encodeFunctionData(FUNCTIONS[use], [bytes]);
      try {
        const [id, kind, mask] = outputs.decode(
          ["bytes32", "uint8", "uint32"],
          await ethers.provider.call({ to, data }),
        );
        return { reason: "accepted", values: { id, kind: Number(kind), mask: Number(mask) } };
      } catch (error) {
        const reverted = revertData(error);
        const parsed = reverted === undefined ? null : codec.parseError(reverted);
        if (parsed === null) throw error;
        return {
          reason: codeOf(parsed.name),
          values: Object.fromEntries(
            parsed.fragment.inputs.map(({ name }, index) => [name, Number(parsed.args[index])]),
          ),
        };
      }
    };
  });

  after(() => {
    const counts = [...seen].sort(([a], [b]) => (a < b ? -1 : 1)).map(([reason, count]) => `${reason} ${count}`);
    if (counts.length > 0) console.log(`      verdicts: ${counts.join(", ")}`);
  });

  async function compare(bytes: Uint8Array, use: ImageUse): Promise<void> {
    const there = await verdictThere(bytes, use);
    const here = verdictHere(bytes, use);
    seen.set(here.reason, (seen.get(here.reason) ?? 0) + 1);
    expect(here, `${use} ${toHex(bytes)}`).to.deep.equal(there);
  }

  it("agrees on images made by hand, for every use", async () => {
    for (const bytes of handMade()) for (const use of USES) await compare(bytes, use);
  });

  it("agrees on random images: verdict, reason, values, bytes and id", async () => {
    await fc.assert(fc.asyncProperty(arbitraryInput, fc.constantFrom(...USES), compare), { numRuns: RUNS });
    for (const reason of [
      "accepted",
      "wrong-length",
      "wrong-version",
      "unknown-kind",
      "unknown-registers",
      "missing-registers",
    ]) {
      expect(
        [...seen.keys()].some((one) => one.endsWith(reason)),
        reason,
      ).to.equal(true);
    }
    expect([...seen.keys()]).to.include.members(["image/non-zero-padding", "image/zero-register"]);
  });
});
