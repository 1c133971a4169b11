import { expect } from "chai";
import { Interface } from "ethers";
import { artifacts } from "hardhat";
import { type Hex, toHex } from "../../src/core/bytes.ts";
import type { Measurement } from "../../src/core/measurement.ts";
import { type DiffOptions, diffMeasurements, type GovernanceCall } from "../../src/core/measurement-diff.ts";
import { errorOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";

const source = { name: "file", sha256: toHex(fill(32, 1)), bytes: 1 };

/** A measurement of these registers, each filled with one byte. */
function measurementOf(
  kind: Measurement["kind"],
  fills: Readonly<Record<string, number>>,
  width = 48,
  input = "test",
): Measurement {
  const registers = Object.fromEntries(
    Object.entries(fills).map(([name, byte]): [string, Measurement["registers"][string]] => {
      const value: Hex = toHex(fill(width, byte));
      return [name, { value, how: "read", source, formula: "given" }];
    }),
  );
  return { kind, input, registers, facts: {}, sources: [source], findings: [], unchecked: [] };
}

const TDX = { mrtd: 1, rtmr0: 2, rtmr1: 3, rtmr2: 4, rtmr3: 5 };
const verdicts = (before: Measurement, after: Measurement, options?: DiffOptions) => {
  const { service, platform, governanceNeeded } = diffMeasurements(before, after, options);
  return [service, platform, governanceNeeded];
};

describe("core/measurement-diff", () => {
  const before = measurementOf("tdx", TDX);

  it("tells the four answers apart", () => {
    expect(verdicts(before, before)).to.deep.equal(["unchanged", "unchanged", false]);
    expect(verdicts(before, measurementOf("tdx", { ...TDX, rtmr3: 6 }))).to.deep.equal(["changed", "unchanged", true]);
    expect(verdicts(before, measurementOf("tdx", { ...TDX, rtmr2: 6 }))).to.deep.equal(["changed", "changed", true]);
    const { rtmr0: _, ...rest } = TDX;
    expect(verdicts(before, measurementOf("tdx", rest))).to.deep.equal(["unknown", "unknown", undefined]);
    expect(verdicts(before, measurementOf("tdx", { ...rest, rtmr3: 6 }))).to.deep.equal(["changed", "unknown", true]);
  });

  it("answers for what both inputs cover where neither says the rest, and names the rest", () => {
    const compose = measurementOf("tdx", { rtmr3: 5 });
    const diff = diffMeasurements(compose, compose);
    expect(diff).to.include({ service: "unchanged", platform: "not-covered", governanceNeeded: false });
    expect(diff.uncovered).to.deep.equal(["mrtd", "rtmr0", "rtmr1", "rtmr2"]);
    const changed = diffMeasurements(compose, measurementOf("tdx", { rtmr3: 6 }));
    expect(changed.governanceNeeded).to.equal(true);
    expect(changed.calls).to.deep.equal([]);
    expect(changed.problems[0]).to.include("image/missing-registers");
  });

  it("cannot tell anything from inputs that say nothing", () => {
    expect(verdicts(measurementOf("tdx", {}), measurementOf("tdx", {}))).to.deep.equal([
      "not-covered",
      "not-covered",
      undefined,
    ]);
    expect(verdicts(measurementOf("tdx", { mr_owner: 1 }), measurementOf("tdx", { mr_owner: 2 }))).to.deep.equal([
      "not-covered",
      "not-covered",
      undefined,
    ]);
  });

  it("counts registers asked for, and not those left out", () => {
    const owned = measurementOf("tdx", { ...TDX, mr_owner: 7 });
    const other = measurementOf("tdx", { ...TDX, mr_owner: 8 });
    expect(verdicts(owned, other)).to.deep.equal(["unchanged", "unchanged", false]);
    expect(verdicts(owned, other, { include: ["mr_owner"] })).to.deep.equal(["changed", "unchanged", true]);
    const resized = measurementOf("tdx", { ...TDX, rtmr0: 9 });
    expect(verdicts(before, resized)).to.deep.equal(["changed", "changed", true]);
    expect(verdicts(before, resized, { exclude: ["rtmr0"] })).to.deep.equal(["unchanged", "unchanged", false]);
  });

  it("treats a dstack service without its operating system as an image of its own", () => {
    const image = measurementOf("dstack", { compose_hash: 1 }, 32, "image");
    const full = measurementOf("dstack", { os_image_hash: 2, compose_hash: 1 }, 32);
    expect(verdicts(image, full)).to.deep.equal(["unchanged", "not-covered", false]);
    expect(verdicts(image, measurementOf("dstack", { os_image_hash: 2, compose_hash: 3 }, 32))).to.deep.equal([
      "changed",
      "not-covered",
      true,
    ]);
  });

  it("refuses two kinds", () => {
    expect(errorOf(() => diffMeasurements(before, measurementOf("snp", { measurement: 1 }))).code).to.equal(
      "measure/different-kinds",
    );
  });

  it("names functions and arguments as the contracts do", async () => {
    const all = measurementOf("tdx", { mrtd: 9, rtmr0: 9, rtmr1: 9, rtmr2: 9, rtmr3: 9 });
    const calls: readonly GovernanceCall[] = [
      ...diffMeasurements(before, all).calls,
      ...diffMeasurements(before, all, { role: "kms-node" }).calls,
    ];
    expect(new Set(calls.map((call) => call.function)).size).to.equal(6);
    for (const call of calls) {
      const { abi } = await artifacts.readArtifact(`I${call.contract}`);
      const inputs = new Interface(abi).getFunction(call.function)?.inputs.map(({ name }) => name);
      expect(inputs, call.function).to.deep.equal(Object.keys(call.arguments));
    }
  });
});
