import { createHash } from "node:crypto";
import { type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Measurement } from "../core/measurement.ts";
import { formatMeasurement } from "../core/measurement-format.ts";
import type { MeasurementClaim } from "../governance/operation.ts";
import type { Measured, Measuring } from "./inputs.ts";
import type { Plan } from "./plan.ts";
import { measuredOf } from "./resolve.ts";
import type { Step } from "./step.ts";

/* Where the images of a step's proposal come from: measured again, and kept with it. */

/** What a plan measured, by the name that people know it by. */
interface Planned {
  readonly name: "application" | "kms";
  readonly use: "service" | "kms";
  readonly measured: Measured;
}

/**
 * What the new versions of a plan were measured from.
 *
 * @example
 * plannedMeasurements(plan).map(({ name }) => name); // ["application", "kms"]
 */
export function plannedMeasurements({ inputs }: Pick<Plan, "inputs">): readonly Planned[] {
  const { application, kms } = inputs;
  return [
    ...(application === null ? [] : [{ name: "application", use: "service", measured: application.new } as const]),
    ...(kms === null ? [] : [{ name: "kms", use: "kms", measured: kms.new } as const]),
  ];
}

/**
 * What a measurement made now has otherwise than the plan: the image, or the bytes that it was measured from.
 *
 * @returns one sentence a difference; none: it is as planned
 * @throws KeysteadError as `measuredOf`
 * @example
 * faultsOf(planned, await measure(planned.measured.measuring)); // []
 */
export function faultsOf({ name, use, measured }: Planned, measurement: Measurement): readonly string[] {
  const { image, platform, sources } = measuredOf(measured.measuring, measurement, use);
  const what = name === "kms" ? "the KMS image" : "the application";
  const faults: string[] = [];
  if (image.id !== measured.image.id) faults.push(`${what} is ${image.id} now, not ${measured.image.id}`);
  if (platform?.id !== measured.platform?.id) {
    faults.push(`the platform of ${what} is ${platform?.id ?? "unknown"} now, not ${measured.platform?.id ?? "none"}`);
  }
  if (sources.length !== measured.sources.length) faults.push(`${what} is measured from other files now`);
  const moved = sources.filter(
    ({ sha256 }, i) => i < measured.sources.length && sha256 !== measured.sources[i]?.sha256,
  );
  return [...faults, ...moved.map((source) => `${source.name} has changed since the plan was made`)];
}

/** A file that something was measured from, to be kept with a proposal. */
export interface SourceFile {
  /** Its place in the proposal's folder. */
  readonly file: string;
  readonly bytes: Uint8Array;
  readonly sha256: Hex;
}

/** What shows where a proposal's images come from. */
export interface StepClaims {
  readonly claims: readonly MeasurementClaim[];
  /** The claims' files by their place in the folder. */
  readonly files: ReadonlyMap<string, Uint8Array>;
}

/**
 * Measures again what a step registers, and says for each of its calls which measurement its image is of. A measurement that is not as the plan has it is
 * refused: nobody would sign for what was reviewed. A step that registers nothing claims nothing.
 *
 * @param sources files to be kept too: each must be one that a measurement of the step names
 * @throws KeysteadError `rollout/measured-otherwise` {faults}, `rollout/other-source` {file}; those of `measure` and of `measuredOf`
 * @example
 * const { claims, files } = await claimsOf(plan, step, await measuring(io), []);
 */
export async function claimsOf(
  plan: Pick<Plan, "inputs">,
  step: Step,
  measure: (measuring: Measuring) => Promise<Measurement>,
  sources: readonly SourceFile[],
): Promise<StepClaims> {
  const files = new Map<string, Uint8Array>();
  const claims: MeasurementClaim[] = [];
  const intents = step.proposal?.intents ?? [];
  for (const planned of plannedMeasurements(plan)) {
    const { image, platform, measuring } = planned.measured;
    const calls = intents.flatMap(({ arguments: { image: text } }, call) => {
      // a platform that both have in common is shown by whichever is measured first
      const taken = claims.some((claim) => claim.call === call);
      return !taken && text !== undefined && [image.text, platform?.text].includes(text) ? [call] : [];
    });
    if (calls.length === 0) continue;
    const measurement = await measure(measuring);
    requireAsPlanned(planned, measurement);
    const bytes = new TextEncoder().encode(formatMeasurement(measurement));
    const file = `measurements/${planned.name}.json`;
    files.set(file, bytes);
    const named = sources.filter(({ sha256 }) => measurement.sources.some((source) => source.sha256 === sha256));
    for (const source of named) files.set(source.file, source.bytes);
    const kept = named.map(({ file, sha256 }) => ({ file, sha256 }));
    const sha256 = toHex(createHash("sha256").update(bytes).digest());
    claims.push(...calls.map((call) => ({ call, file, sha256, sources: kept })));
  }
  const other = sources.find(({ file }) => !files.has(file));
  if (other === undefined) return { claims: claims.sort((a, b) => a.call - b.call), files };
  throw new KeysteadError("rollout/other-source", `nothing that ${step.id} registers was measured from ${other.file}`, {
    argument: "source",
    remedy: "Give the very files that were measured: the plan names them, with their hashes.",
    details: { file: other.file },
  });
}

function requireAsPlanned(planned: Planned, measurement: Measurement): void {
  const faults = faultsOf(planned, measurement);
  if (faults.length === 0) return;
  throw new KeysteadError("rollout/measured-otherwise", faults.join("; "), {
    argument: "plan",
    remedy: "Restore the files that the plan was made from, or make the plan again.",
    details: { faults },
  });
}
