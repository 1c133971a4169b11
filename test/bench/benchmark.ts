import type { Suite } from "mocha";

/**
 * A suite that measures: run by `npm run bench` and its like, left out, saying so, of every other run of the tests, which would take minutes longer and
 * measure nothing but each other. `KEYSTEAD_BENCH=alone` says that nothing else runs on the machine: then delays are held to their goals too.
 *
 * @example
 * benchmark("parse and canonical image", () => { it("…", () => {}); });
 */
export function benchmark(title: string, body: (this: Suite) => void): void {
  describe(`benchmark: ${title}`, () => {
    before(function () {
      if (!["1", "alone"].includes(process.env.KEYSTEAD_BENCH ?? "")) this.skip();
    });
    describe("measured", body);
  });
}
