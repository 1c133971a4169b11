import { parseImageFilter } from "../../../../core/evidence/secretvm.ts";
import type { Finding, Measurement } from "../../../../core/measurement.ts";
import type { Io } from "../../../io.ts";
import { jsonObject, TEXT_LIMIT } from "../deployment.ts";
import { fileFindings, readRegisters } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

async function read(io: Io, { inputs }: ReaderArguments): Promise<Measurement> {
  const file = await io.readFile(inputs[0] ?? "-", { limit: TEXT_LIMIT, argument: "filter" });
  const { image, wildcards } = parseImageFilter(file.bytes);
  const findings: Finding[] = [...fileFindings(file)];
  if (wildcards.length > 0) {
    findings.push({
      code: "secretvm/wildcards",
      severity: "warning",
      message: `the filter leaves open ${wildcards.join(", ")}: it admits machines with any value of them`,
    });
  }
  if (image.registers.mrtd !== undefined || image.registers.rtmr0 !== undefined) {
    findings.push({
      code: "secretvm/not-compared",
      severity: "warning",
      message:
        "mr_td and rtmr0 are stored by the Secret KMS contract and never compared; an image of Keystead binds them",
    });
  }
  return {
    kind: "tdx",
    input: "secretvm-filter",
    registers: readRegisters(image.registers, file.source, (name) => `${name} of the filter`),
    facts: { format: "image filter of the Secret KMS contract" },
    sources: [file.source],
    findings,
    unchecked: ["Which software has these measurements: compare them with ones computed from its sources."],
  };
}

/** Image filters of the contract that SecretVM uses. */
export const readers: readonly InputReader[] = [
  {
    name: "secretvm-filter",
    summary: "an image filter of the Secret KMS contract (image.json)",
    inputs: ["filter"],
    read,
    detect: (file) => {
      const value = jsonObject(file);
      return value?.mr_td !== undefined && value.rtmr3 !== undefined;
    },
  },
];
