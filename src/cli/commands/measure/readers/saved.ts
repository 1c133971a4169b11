import { decodeUtf8 } from "../../../../core/bytes.ts";
import type { Measurement } from "../../../../core/measurement.ts";
import { MEASUREMENT_FORMAT, parseMeasurement } from "../../../../core/measurement-format.ts";
import type { InputFile, Io } from "../../../io.ts";
import { fileFindings } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

const LIMIT = 1024 * 1024;

async function read(io: Io, { inputs }: ReaderArguments): Promise<Measurement> {
  const file = await io.readFile(inputs[0] ?? "-", { limit: LIMIT, argument: "saved" });
  const saved = parseMeasurement(decodeUtf8(file.bytes, "measurement"));
  return {
    ...saved,
    sources: [...saved.sources, file.source],
    findings: [...saved.findings, ...fileFindings(file)],
    unchecked: [...saved.unchecked, `That ${file.name} was not changed since the measurement was taken.`],
  };
}

/** Recognised by its first key, so that no other JSON is taken for one. */
function detect(file: InputFile): boolean {
  const start = new TextDecoder().decode(file.bytes.subarray(0, 200));
  return start.trimStart().startsWith("{") && start.includes(`"${MEASUREMENT_FORMAT}"`);
}

/** What an earlier `keystead measure … --json` printed. */
export const readers: readonly InputReader[] = [
  {
    name: "saved",
    summary: "what an earlier keystead measure … --json printed",
    inputs: ["measurement"],
    read,
    detect,
  },
];
