import type { Suite } from "mocha";

/**
 * A suite that measures: run by `npm run bench` and `npm run bench:audit`, left out, saying so, of every other run of the tests, which would take
 * minutes longer and measure nothing but each other.
 *
 * @example
 * benchmark("parse and canonical image", () => { it("…", () => {}); });
 */
export function benchmark(title: string, body: (this: Suite) => void): void {
  describe(`benchmark: ${title}`, () => {
    before(function () {
      if (process.env.KEYSTEAD_BENCH !== "1") this.skip();
    });
    describe("measured", body);
  });
}
