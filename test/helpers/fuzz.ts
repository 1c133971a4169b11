import { expect } from "chai";
import fc from "fast-check";
import { isKeysteadError } from "../../src/core/errors.ts";

/** Inputs per parser; the long run of continuous integration sets 100000. */
export const FUZZ_RUNS = Number(process.env.KEYSTEAD_FUZZ_RUNS ?? 3000);
/** fast-check prints the seed of a failure; give it here to play it again. */
const SEED = process.env.KEYSTEAD_FUZZ_SEED === undefined ? {} : { seed: Number(process.env.KEYSTEAD_FUZZ_SEED) };

type Mutation = (text: string) => string;

const cut = (text: string, at: number, drop: number, put: string): string => {
  const start = at % (text.length + 1);
  return text.slice(0, start) + put + text.slice(start + drop);
};

/** What breaks readers of text: structure, numbers at limits, escapes, control characters, halves of characters. */
const TOKENS = [
  "{",
  "}",
  "[",
  "]",
  '"',
  ":",
  ",",
  "null",
  "-1",
  "1e999",
  "4294967296",
  "0x",
  "\\",
  "\\ud800",
  "\u0000",
].concat(["\ufeff", "\r\n", "\n", "é", '"__proto__":', '"imr":3,', "\u001b[31m", "00", " ", "/", "\ud800"]);

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.tuple(fc.nat(), fc.nat(8), fc.constantFrom(...TOKENS)).map(
    ([at, drop, put]): Mutation =>
      (text) =>
        cut(text, at, drop, put),
  ),
  fc.tuple(fc.nat(), fc.string({ maxLength: 4 })).map(
    ([at, put]): Mutation =>
      (text) =>
        cut(text, at, 1, put),
  ),
  fc.tuple(fc.nat(), fc.nat(200)).map(
    ([at, drop]): Mutation =>
      (text) =>
        cut(text, at, drop, ""),
  ),
  fc.nat().map(
    (at): Mutation =>
      (text) =>
        text.slice(0, at % (text.length + 1)),
  ),
  // One part again somewhere else: repeated keys, rows and events.
  fc.tuple(fc.nat(), fc.nat(300), fc.nat()).map(
    ([from, length, to]): Mutation =>
      (text) => {
        const start = from % (text.length + 1);
        return cut(text, to, 0, text.slice(start, start + length));
      },
  ),
);

/** Valid text after up to four mutations, as UTF-8; sometimes bytes that never were text. */
export function textInputs(...valid: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const texts = valid.map((bytes) => new TextDecoder().decode(bytes));
  const mutated = fc
    .tuple(fc.constantFrom(...texts), fc.array(mutation, { maxLength: 4 }))
    .map(([text, mutations]) => new TextEncoder().encode(mutations.reduce((current, mutate) => mutate(current), text)));
  return fc.oneof(
    { weight: 18, arbitrary: mutated },
    { weight: 1, arbitrary: fc.json().map((text) => new TextEncoder().encode(text)) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 500 }) },
  );
}

/** Runs a total function over many inputs: it returns, or throws a typed error that names its argument and a remedy; and it does both at times. */
export function assertTotal<T>(name: string, inputs: fc.Arbitrary<T>, act: (input: T) => void): void {
  let accepted = 0;
  const refused = new Map<string, number>();
  fc.assert(
    fc.property(inputs, (input) => {
      try {
        act(input);
        accepted += 1;
      } catch (error) {
        if (!isKeysteadError(error)) throw error;
        expect(error.remedy).to.not.equal("");
        expect(error.argument).to.be.a("string");
        refused.set(error.code, (refused.get(error.code) ?? 0) + 1);
      }
    }),
    { numRuns: FUZZ_RUNS, ...SEED },
  );
  const codes = [...refused].sort(([, a], [, b]) => b - a).map(([code, count]) => `${code} ${count}`);
  console.log(`      ${name}: ${accepted} accepted; refused: ${codes.join(", ")}`);
  expect(accepted).to.be.greaterThan(0);
  expect(refused.size).to.be.greaterThan(0);
}
