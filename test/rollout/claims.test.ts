import { expect } from "chai";
import { decodeUtf8 } from "../../src/core/bytes.ts";
import { encodeImage, imageId, parseImage } from "../../src/core/image.ts";
import type { Measurement, MeasurementSource } from "../../src/core/measurement.ts";
import { formatMeasurement, parseMeasurement } from "../../src/core/measurement-format.ts";
import { buildOperation } from "../../src/governance/propose.ts";
import { readProvenance } from "../../src/governance/provenance.ts";
import { claimsOf, faultsOf, plannedMeasurements, type SourceFile } from "../../src/rollout/claims.ts";
import type { Measured, Measuring } from "../../src/rollout/inputs.ts";
import { proposalInput } from "../../src/rollout/operations.ts";
import type { Plan } from "../../src/rollout/plan.ts";
import { rejectionOf } from "../helpers/errors.ts";
import { PARTIES } from "../helpers/governance.ts";
import { APP_V1, APP_V2, KMS_V2, planOf, version } from "../helpers/rollout.ts";

/** What a reader would say of a version, read from its one file. */
function measurementOf({ image, sources }: Measured): Measurement {
  const { kind, registers } = parseImage(image.text);
  const [named] = sources;
  if (named === undefined) throw new Error("no source");
  const source: MeasurementSource = { ...named, bytes: 10 };
  const read = (name: string, value: string) => ({
    ...{ value: value as `0x${string}`, how: "read" as const, source },
    formula: `${name} of the image`,
  });
  return {
    ...{ kind, input: "image", facts: {}, sources: [source], findings: [], unchecked: [] },
    registers: Object.fromEntries(Object.entries(registers).map(([name, value]) => [name, read(name, value)])),
  };
}

const stepOf = (plan: Plan, id: string) => {
  const step = plan.steps.find((one) => one.id === id);
  if (step === undefined) throw new Error(`no step ${id}`);
  return step;
};
const measure = async ({ inputs: [name] }: Measuring): Promise<Measurement> => {
  const found = [APP_V1, APP_V2, KMS_V2].find(({ measuring }) => measuring.inputs[0] === name);
  if (found === undefined) throw new Error(`nothing to measure at ${name}`);
  return measurementOf(found);
};
const sourceOf = ({ sources: [named] }: Measured, file = "measurements/source-1-app.txt"): SourceFile => ({
  ...{ file, bytes: new Uint8Array(10) },
  sha256: named?.sha256 ?? "0x",
});

describe("rollout: where a proposal's images come from", () => {
  const plan = planOf();
  const step = stepOf(plan, "measurements");

  it("claims a measurement for every call that registers an image, and proposals with it hold", async () => {
    const { claims, files } = await claimsOf(plan, step, measure, []);
    const intents = step.proposal?.intents.map(({ intent }) => intent) ?? [];
    expect(intents).to.deep.equal(["allow-platform", "allow-platform", "allow-kms-image"]);
    expect(claims.map(({ call, file }) => [call, file])).to.deep.equal([
      [0, "measurements/application.json"],
      [1, "measurements/kms.json"],
      [2, "measurements/kms.json"],
    ]);
    const operation = buildOperation({ ...proposalInput(plan, step), parties: PARTIES, measurements: claims });
    const { reports, differences } = readProvenance(operation, files);
    expect([reports.length, differences]).to.deep.equal([3, []]);
    expect(reports[2]?.standings.map(({ name }) => name)).to.deep.equal(["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"]);
  });

  it("writes measurements that read back the same", async () => {
    const { files } = await claimsOf(plan, step, measure, []);
    const text = decodeUtf8(files.get("measurements/kms.json") ?? new Uint8Array(0), "kms.json");
    expect(formatMeasurement(parseMeasurement(text))).to.equal(text);
    expect(parseMeasurement(text)).to.deep.equal(measurementOf(KMS_V2));
  });

  it("shows a platform that both have in common by one measurement", async () => {
    const text = `${APP_V2.platform?.text},${KMS_V2.image.text.split(",").at(-1)}`;
    const image = { text, id: imageId(encodeImage(parseImage(text))) };
    const kms: Measured = { ...KMS_V2, image, platform: APP_V2.platform };
    const both = planOf({ kms: { old: null, new: kms, identity: null } });
    const same = async (asked: Measuring) =>
      asked.inputs[0] === kms.measuring.inputs[0] ? measurementOf(kms) : measure(asked);
    const { claims } = await claimsOf(both, stepOf(both, "measurements"), same, []);
    expect(claims.map(({ call, file }) => [call, file])).to.deep.equal([
      [0, "measurements/application.json"],
      [1, "measurements/kms.json"],
    ]);
  });

  it("claims nothing where a step registers nothing, and measures nothing for it", async () => {
    const never = async (): Promise<Measurement> => {
      throw new Error("measured");
    };
    for (const id of ["contracts", "revoke", "traffic"]) {
      const { claims, files } = await claimsOf(plan, stepOf(plan, id), never, []);
      expect([claims, files.size], id).to.deep.equal([[], 0]);
    }
  });

  it("keeps a source with the measurements that name it, and refuses one that none names", async () => {
    const { claims, files } = await claimsOf(plan, step, measure, [sourceOf(APP_V2)]);
    expect(claims.map(({ sources }) => sources.length)).to.deep.equal([1, 0, 0]);
    expect(files.get("measurements/source-1-app.txt")).to.deep.equal(new Uint8Array(10));
    const stranger = sourceOf(version("a stranger"));
    const error = await rejectionOf(claimsOf(plan, step, measure, [sourceOf(APP_V2, "measurements/a"), stranger]));
    expect([error.code, error.details.file]).to.deep.equal(["rollout/other-source", stranger.file]);
  });

  describe("given what is measured now is not what was planned", () => {
    const [application] = plannedMeasurements(plan);
    if (application === undefined) throw new Error("no application");

    it("refuses another image, and other bytes that give the same image", async () => {
      const changed = { ...APP_V2, sources: APP_V1.sources };
      for (const now of [measurementOf(APP_V1), measurementOf(changed)]) {
        const error = await rejectionOf(claimsOf(plan, step, async () => now, []));
        expect(error.code).to.equal("rollout/measured-otherwise");
      }
    });

    it("says each difference", () => {
      expect(faultsOf(application, measurementOf(APP_V2))).to.deep.equal([]);
      const other = faultsOf(application, measurementOf(APP_V1));
      expect(other.map((fault) => /^(the application|the platform|app 1\.txt)/.exec(fault)?.[1])).to.deep.equal([
        "the application",
        "the platform",
        "app 1.txt",
      ]);
      const fewer = { ...measurementOf(APP_V2), sources: [] };
      expect(faultsOf(application, fewer)).to.deep.equal(["the application is measured from other files now"]);
    });

    it("refuses a machine that must not get keys", async () => {
      const debug = { code: "evidence/debug", severity: "unsafe" as const, message: "a debug machine" };
      const now = { ...measurementOf(APP_V2), findings: [debug] };
      const error = await rejectionOf(claimsOf(plan, step, async () => now, []));
      expect(error.code).to.equal("rollout/unsafe-measurement");
    });
  });
});
