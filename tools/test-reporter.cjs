// Mocha's own list of results, and beside it a file for tools/test.mjs: what each test file took, and how many of its tests passed.
// In CommonJS since Mocha loads a reporter by `require`. Used where KEYSTEAD_TEST_REPORT names that file.
const { writeFileSync } = require("node:fs");
const { relative } = require("node:path");
const Mocha = require("mocha");

module.exports = class extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const files = {};
    let last = Date.now();
    const count = (test, what) => {
      const file = relative(process.cwd(), test.file ?? "unknown");
      files[file] ??= { passing: 0, failing: 0, pending: 0, ms: 0 };
      files[file][what] += 1;
      files[file].ms += Date.now() - last; // hooks before the test included
      last = Date.now();
    };
    runner.on("pass", (test) => count(test, "passing"));
    runner.on("fail", (test) => count(test, "failing"));
    runner.on("pending", (test) => count(test, "pending"));
    runner.on("end", () => writeFileSync(process.env.KEYSTEAD_TEST_REPORT, JSON.stringify(files)));
  }
};
