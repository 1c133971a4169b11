import { KeysteadError } from "../../../core/errors.ts";
import { isUnsafe, type Measurement } from "../../../core/measurement.ts";
import {
  type DiffOptions,
  diffMeasurements,
  type GovernanceCall,
  type MeasurementDiff,
} from "../../../core/measurement-diff.ts";
import { isInlineImage } from "../../image-input.ts";
import type { InputFile, Io } from "../../io.ts";
import { type ExitCode, type Output, renderFindings, renderTable, safeText } from "../../output.ts";
import type { InputReader, ReaderArguments } from "./reader.ts";
import { REGISTERED_PREFIX } from "./readers/registered.ts";

/**
 * Finds the reader for one side of a comparison and reads it.
 *
 * @param as the reader's name, or `undefined` to tell by the contents
 * @throws KeysteadError `measure/unknown-reader`, `measure/undetected`, `measure/wrong-count`, and those of the reader
 * @example
 * await readSide(io, readers, "old.bin", undefined, {});
 */
export async function readSide(
  io: Io,
  readers: readonly InputReader[],
  argument: string,
  as: string | undefined,
  options: ReaderArguments["options"],
): Promise<Measurement> {
  const { reader, through } =
    as === undefined ? await detectReader(io, readers, argument) : { reader: named(readers, as), through: io };
  const inputs = reader.inputs.length > 1 ? argument.split(",") : [argument];
  if (inputs.length !== reader.inputs.length) {
    throw new KeysteadError(
      "measure/wrong-count",
      `${reader.name} reads ${reader.inputs.length} files and got ${inputs.length}`,
      {
        argument,
        remedy: `Give ${reader.inputs.join(",")}, with commas and without spaces.`,
      },
    );
  }
  return reader.read(through, { inputs, options });
}

function named(readers: readonly InputReader[], name: string): InputReader {
  const reader = readers.find((candidate) => candidate.name === name);
  if (reader !== undefined) return reader;
  throw new KeysteadError("measure/unknown-reader", `there is no input ${JSON.stringify(name)}`, {
    argument: "as",
    remedy: `Use one of ${readers.map((known) => known.name).join(", ")}.`,
  });
}

/** The reader that knows the contents, and an `io` that gives it the very bytes that were looked at (standard input can be read once only). */
async function detectReader(
  io: Io,
  readers: readonly InputReader[],
  argument: string,
): Promise<{ reader: InputReader; through: Io }> {
  if (isInlineImage(argument)) return { reader: named(readers, "image"), through: io };
  if (argument.startsWith(REGISTERED_PREFIX)) return { reader: named(readers, "registered"), through: io };
  const file: InputFile = await io.readFile(argument, { argument });
  const reader = readers.find((candidate) => candidate.detect?.(file) === true);
  if (reader === undefined) {
    throw new KeysteadError("measure/undetected", `${argument} is of no kind that tells itself by its contents`, {
      argument,
      remedy: `Say what it is: --as ${readers.map((known) => known.name).join("|")} (--old-as, --new-as for one side).`,
    });
  }
  return {
    reader,
    through: {
      ...io,
      readFile: (name, limits) => (name === argument ? Promise.resolve(file) : io.readFile(name, limits)),
    },
  };
}

/**
 * Prints how two measurements differ and what would register the new one.
 *
 * @returns 0 unchanged, 1 changed (or a side is unsafe), 2 where the inputs cannot tell
 * @example
 * return showDiff(before, after, {}, output);
 */
export function showDiff(before: Measurement, after: Measurement, options: DiffOptions, output: Output): ExitCode {
  const diff = diffMeasurements(before, after, options);
  const unsafe = isUnsafe(before) || isUnsafe(after);
  const sides = { old: side(before), new: side(after) };
  const value = { format: "keystead.diff/1", kind: before.kind, ...sides, unsafe, diff: jsonOf(diff) };
  output.result(value, () => renderDiff(before, after, diff, output));
  if (diff.governanceNeeded === true || unsafe) return 1;
  return diff.governanceNeeded === undefined ? 2 : 0;
}

const side = ({ input, sources, findings, unchecked }: Measurement) => ({ input, sources, findings, unchecked });

function jsonOf(diff: MeasurementDiff): unknown {
  const registers = diff.registers.map(({ old, new: now, ...rest }) => ({
    ...rest,
    old: old ?? null,
    new: now ?? null,
  }));
  return { ...diff, governanceNeeded: diff.governanceNeeded ?? null, registers };
}

function renderDiff(before: Measurement, after: Measurement, diff: MeasurementDiff, output: Output): string {
  const { bold, green, yellow } = output.colors;
  const sources = [before, after].flatMap((one, index) =>
    one.sources.map(({ name, sha256 }) => [index === 0 ? "old" : "new", one.input, name, `sha256 ${sha256.slice(2)}`]),
  );
  const rows = diff.registers.flatMap(({ name, old, new: now, verdict, service, platform }) => {
    const part =
      [service ? "service" : "", platform ? "platform" : ""].filter((word) => word !== "").join(", ") || "no image";
    const first = [name, verdict, part, (old ?? now ?? "").slice(2)];
    return verdict === "changed" ? [first, ["", "", "", (now ?? "").slice(2)]] : [first];
  });
  const answer =
    diff.governanceNeeded === undefined
      ? yellow("Cannot tell: one input lacks registers that the other has.")
      : diff.governanceNeeded
        ? yellow("Changed: the new image must be registered.")
        : green("Unchanged: nothing needs to be registered.");
  const findings = [...before.findings, ...after.findings];
  const sections = [
    renderFindings(findings, output),
    renderTable(sources),
    renderTable(rows, ["register", "verdict", "counts for", "value (old over new)"]),
    `service image: ${diff.service}\nplatform image: ${diff.platform}`,
    bold(answer),
    diff.uncovered.length === 0 ? "" : `Neither input says: ${diff.uncovered.join(", ")}.`,
    diff.problems.map((problem) => `${yellow("problem")} ${safeText(problem)}`).join("\n"),
    diff.calls.map((call) => renderCall(call)).join("\n\n"),
    `${bold("Not checked")}\n${[...new Set([...before.unchecked, ...after.unchecked])].map((item) => `- ${safeText(item)}`).join("\n")}`,
    findings.some(({ severity }) => severity === "unsafe")
      ? output.colors.bold(output.colors.red("UNSAFE: at least one of these machines must not get keys."))
      : "",
  ];
  return sections.filter((section) => section !== "").join("\n\n");
}

function renderCall(call: GovernanceCall): string {
  const rows = Object.entries(call.arguments).map(([name, value]) => [`  ${name}`, value]);
  const head = `${call.when === "required" ? "Call" : "Later"}: ${call.contract}.${call.function} by ${call.who}`;
  return `${head}\n  ${call.why}\n${renderTable(rows)}`;
}
