import {
  IMAGE_KINDS,
  IMAGE_USES,
  type ImageUse,
  type KindSpec,
  REGISTER_BYTES,
  TEE_KINDS,
} from "../../src/core/image.ts";
import { type Claim, constantBytes, padLeft, Refuted, readArtifact, wordBytes } from "./claim.ts";
import { bytesOf, type Code, execute, hash, join } from "./evm.ts";
import type { Solver } from "./solver.ts";
import * as t from "./term.ts";
import type { Term } from "./term.ts";

const HARNESS = "contracts/mocks/ImageCodecHarness.sol:ImageCodecHarness";
/** The harness's function for each use. */
const FUNCTIONS: Readonly<Record<ImageUse, string>> = {
  service: "checkService",
  sealed: "checkSealed",
  platform: "checkPlatform",
  kms: "checkKms",
};
/** Masks with more registers than a use requires and these are not tried: each further one triples the ways to end. */
const MOST_BEYOND = 3;

const maskOf = ({ registers }: KindSpec, names: readonly string[]): number =>
  registers.filter(({ name }) => names.includes(name)).reduce((mask, { bit }) => mask + 2 ** bit, 0);
const includes = (mask: number, part: number) => (mask & part) >>> 0 === part;

/** What the use requires: one set of registers, or another. */
const choices = (spec: KindSpec, use: ImageUse): number[] =>
  [spec.required[use], spec.otherwise?.[use]].flatMap((names) => (names === undefined ? [] : [maskOf(spec, names)]));

/** Masks that a use may accept, with up to {@link MOST_BEYOND} registers that it does not require. */
function* masksOf(spec: KindSpec, use: ImageUse): Generator<number> {
  const known = spec.registers.map(({ bit }) => 2 ** bit);
  const seen = new Set<number>();
  const extend = function* (mask: number, from: number, left: number): Generator<number> {
    if (!seen.has(mask)) yield mask;
    seen.add(mask);
    for (let i = from; left > 0 && i < known.length; i += 1) {
      const bit = known[i] as number;
      if (!includes(mask, bit)) yield* extend(mask + bit, i + 1, left - 1);
    }
  };
  for (const required of choices(spec, use)) yield* extend(required, 0, spec.registers.length > 10 ? 1 : MOST_BEYOND);
}

/** An image of unknown values under this mask, as a call to the harness. */
function call(spec: KindSpec, mask: number, length: number, use: ImageUse) {
  const header = [1, spec.byte, mask >>> 24, (mask >>> 16) & 255, (mask >>> 8) & 255, mask & 255];
  const values = t.variable("values", 8 * Math.max(1, length - header.length));
  const image = [...header.map((byte) => t.word(byte, 8)), ...bytesOf(values)].slice(0, length);
  const selector = readArtifact(HARNESS).interface.getFunction(FUNCTIONS[use])?.selector ?? "0x";
  const padding = Array.from({ length: (32 - (length % 32)) % 32 }, () => t.word(0, 8));
  const calldata = [
    ...[...constantBytes(selector), ...wordBytes(t.word(32)), ...wordBytes(t.word(length))],
    ...[...image, ...padding],
  ];
  return { calldata, image };
}

/** That values under this mask are canonical: nothing beyond a register's width, no zero where none may be. */
function isCanonical(spec: KindSpec, mask: number, image: readonly Term[]): Term {
  const named = spec.registers.filter(({ bit }) => includes(mask, 2 ** bit));
  return t.all(
    ...named.map(({ width, neverZero }, i) => {
      const value = image.slice(6 + REGISTER_BYTES * i, 6 + REGISTER_BYTES * (i + 1));
      const padding = join(value.slice(width));
      const zero = t.word(0, 8 * REGISTER_BYTES);
      return t.all(
        padding === undefined ? t.TRUE : t.eq(padding, t.word(0, padding.bits)),
        neverZero ? t.not(t.eq(join(value) as Term, zero)) : t.TRUE,
      );
    }),
  );
}

async function proveMask(code: Code, solver: Solver, spec: KindSpec, mask: number, use: ImageUse): Promise<void> {
  const where = `${spec.kind} as ${use}, mask 0x${mask.toString(16)}`;
  const registers = spec.registers.filter(({ bit }) => includes(mask, 2 ** bit)).length;
  const { calldata, image } = call(spec, mask, 6 + REGISTER_BYTES * registers, use);
  const canonical = isCanonical(spec, mask, image);
  const answer = join([...wordBytes(hash(image)), ...wordBytes(t.word(spec.byte)), ...wordBytes(t.word(mask >>> 0))]);
  for (const outcome of await execute(code, { calldata, assumptions: [], storage: "none" }, solver)) {
    const accepted = outcome.kind === "return";
    const wrong = accepted ? t.not(t.all(canonical, t.eq(outcome.data as Term, answer as Term))) : canonical;
    if (!(await solver.isSatisfiable([...outcome.path, wrong]))) continue;
    throw new Refuted(`${where}: an image is ${accepted ? "accepted that is not" : "rejected that is"} canonical`);
  }
  for (const length of [0, 5, 6, 6 + REGISTER_BYTES * registers - 1, 6 + REGISTER_BYTES * registers + 1]) {
    if (length === 6 + REGISTER_BYTES * registers) continue;
    const { calldata: short } = call(spec, mask, length, use);
    const outcomes = await execute(code, { calldata: short, assumptions: [], storage: "none" }, solver);
    if (outcomes.some(({ kind }) => kind === "return")) throw new Refuted(`${where}: accepted with ${length} bytes`);
  }
}

async function proveAccepted(code: Code, solver: Solver): Promise<void> {
  for (const use of IMAGE_USES) {
    for (const kind of TEE_KINDS) {
      for (const mask of masksOf(IMAGE_KINDS[kind], use)) await proveMask(code, solver, IMAGE_KINDS[kind], mask, use);
    }
  }
}

/** Any header at all: what is accepted has version 1, a known kind, its registers alone, and all that the use requires. */
async function proveHeaders(code: Code, solver: Solver): Promise<void> {
  for (const use of IMAGE_USES) {
    const selector = readArtifact(HARNESS).interface.getFunction(FUNCTIONS[use])?.selector ?? "0x";
    for (const length of [0, 1, 5, 6]) {
      const header = t.variable("header", 48);
      const [version, kind, mask] = [t.extract(header, 40, 8), t.extract(header, 32, 8), t.extract(header, 0, 32)];
      const bytes = [...bytesOf(header).slice(0, length), ...Array.from({ length: 32 }, () => t.word(0, 8))];
      const calldata = [
        ...[...constantBytes(selector), ...wordBytes(t.word(32)), ...wordBytes(t.word(length))],
        ...bytes.slice(0, 32),
      ];
      // With no register named: with any, six bytes are too few, and the loop over values would be endless here.
      const assumptions = length < 6 ? [] : [t.eq(mask, t.word(0, 32))];
      for (const outcome of await execute(code, { calldata, assumptions, storage: "none" }, solver)) {
        if (outcome.kind === "revert") continue;
        throw new Refuted(
          `a header alone is accepted:\n${await solver.model(outcome.path, [padLeft(version), padLeft(kind)])}`,
        );
      }
    }
  }
}

export const CODEC_CLAIMS: readonly Claim[] = [
  { title: "the codec accepts canonical images and no others", contract: HARNESS, prove: proveAccepted },
  { title: "the codec accepts no header alone", contract: HARNESS, prove: proveHeaders },
];
