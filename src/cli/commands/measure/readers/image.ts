import type { Measurement } from "../../../../core/measurement.ts";
import { readImage } from "../../../image-input.ts";
import type { Io } from "../../../io.ts";
import { fileFindings, readRegisters } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

async function read(io: Io, { inputs }: ReaderArguments): Promise<Measurement> {
  const { image, form, file } = await readImage(io, inputs[0] ?? "-");
  return {
    kind: image.kind,
    input: "image",
    registers: readRegisters(image.registers, file.source, (name) => `${name} of the image`),
    facts: { format: `canonical image, ${form}` },
    sources: [file.source],
    findings: fileFindings(file),
    unchecked: ["Whether this image is registered anywhere, and what software it is."],
  };
}

/** Canonical images, to compare other inputs with. */
export const readers: readonly InputReader[] = [
  {
    name: "image",
    summary: "a canonical image: its text form, its bytes in hex, or a file with either",
    inputs: ["image"],
    read,
  },
];
