import { expect } from "chai";
import { encodeImage, parseImage } from "../../src/core/image.ts";
import { errorCodeOf, jsonOf, keystead, makeFolder } from "../helpers/cli.ts";

const TEXT = `dstack:compose_hash=${"ab".repeat(32)}`;

describe("keystead image", () => {
  const folder = makeFolder();
  after(() => folder.remove());

  it("shows one image in all its spellings, from any of them", () => {
    const bytes = encodeImage(parseImage(TEXT));
    const hex = `0x${Buffer.from(bytes).toString("hex")}`;
    const given = [
      TEXT,
      hex,
      folder.write("image.txt", `${TEXT}\n`),
      folder.write("image.hex", hex),
      folder.write("image.bin", bytes),
    ];
    for (const argument of given) {
      const run = keystead(["image", "show", argument, "--json"]);
      expect(run.code, argument).to.equal(0);
      expect(jsonOf(run)).to.include({ kind: "dstack", text: TEXT, bytes: hex });
      expect(jsonOf(run).id).to.match(/^0x[0-9a-f]{64}$/);
      expect(jsonOf(run).matchesAny).to.deep.equal(["os_image_hash", "mr_aggregated", "mr_system"]);
    }
    expect(jsonOf(keystead(["image", "show", "-", "--json"], { input: TEXT })).text).to.equal(TEXT);
    const plain = keystead(["image", "show", TEXT]).stdout;
    expect(plain)
      .to.match(/^os_image_hash {2}\*$/m)
      .and.include(hex)
      .and.match(/^yes {2}an upgradeable service/m);
  });

  it("says for which uses an image may be registered, with the contract's reasons", () => {
    const { uses } = jsonOf(keystead(["image", "show", TEXT, "--json"]));
    expect(uses.service).to.deep.equal({ ok: true });
    expect(uses.sealed.error).to.deep.include({ code: "image/missing-registers", details: { kind: 4, bits: 1 } });
    expect(uses.platform.error.code).to.equal("image/missing-registers");
  });

  it("checks one use: 0 allowed, 1 refused, 2 not to be read", () => {
    expect(keystead(["image", "check", TEXT, "--use", "service"]).code).to.equal(0);
    expect(keystead(["image", "check", TEXT, "--use", "sealed"]).code).to.equal(1);
    expect(keystead(["image", "check", `dstack:compose_hash=${"00".repeat(32)}`, "--use", "service"]).code).to.equal(1);
    expect(keystead(["image", "show", "dstack:"]).code).to.equal(1);
    expect(keystead(["image", "check", TEXT]).code).to.equal(2);
    expect(keystead(["image", "check", TEXT, "--use", "anything"]).code).to.equal(2);
  });

  it("refuses what is no image", () => {
    const cases: readonly [string, string][] = [
      [TEXT.toUpperCase(), "input/not-found"],
      [`${TEXT},`, "image/malformed-text"],
      [`dstack:compose_hash=${"ab".repeat(31)}`, "image/register-value"],
      [`0x${"ab".repeat(32)}`, "image/id-alone"],
      ["0x01", "image/wrong-length"],
      ["0x020400020000", "image/wrong-version"],
      ["0x010", "hex/malformed"],
      [folder.write("none.txt", "nothing of the kind"), "image/malformed-text"],
      [folder.write("large.txt", "ab".repeat(5000)), "input/too-large"],
    ];
    for (const [argument, code] of cases) {
      const run = keystead(["image", "show", argument, "--json"]);
      expect(run.code, argument.slice(0, 60)).to.equal(2);
      expect(errorCodeOf(run)).to.equal(code);
    }
  });
});
