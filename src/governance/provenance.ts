import { sha256 } from "ethers";
import { decodeUtf8, fromHex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { decodeImage, type ImageUse } from "../core/image.ts";
import { isUnsafe, type Measurement } from "../core/measurement.ts";
import { parseMeasurement } from "../core/measurement-format.ts";
import { contextOf, type Difference, differenceOf } from "./check.ts";
import { recogniseCall } from "./decode.ts";
import type { Operation } from "./operation.ts";

/** Where a call's image comes from. */
export interface ProvenanceReport {
  readonly call: number;
  readonly file: string;
  readonly measurement: Measurement;
  /** Registers of the image, in its order. */
  readonly registers: readonly string[];
  /** Sources whose bytes are in the folder. */
  readonly kept: readonly string[];
}

/** What a proposal's measurements say, and what is wrong with them. */
export interface Provenance {
  readonly reports: readonly ProvenanceReport[];
  readonly differences: readonly Difference[];
}

/** The argument that holds canonical image bytes, and what for, by function. */
const IMAGE_ARGUMENT: Readonly<Record<string, { readonly name: string; readonly use: ImageUse }>> = {
  allowPlatform: { name: "image", use: "platform" },
  allowKmsImage: { name: "image", use: "sealed" },
  addImageToService: { name: "newImage", use: "service" },
  createServiceWithImage: { name: "image", use: "service" },
  addSecretKeyByImage: { name: "image", use: "sealed" },
};

/**
 * Checks every measurement of an operation: the saved file and each kept source have the hash that was proposed, each kept source is one that the
 * measurement names, and every register of the call's image has the measured value.
 *
 * @param files the proposal's files by name
 * @example
 * readProvenance(operation, files).differences; // []
 */
export function readProvenance(operation: Operation, files: ReadonlyMap<string, Uint8Array>): Provenance {
  const differences: Difference[] = [];
  const reports: ProvenanceReport[] = [];
  for (const claim of operation.measurements) {
    const bytes = sameBytes(files, claim, differences);
    if (bytes === undefined) continue;
    let measurement: Measurement;
    try {
      measurement = parseMeasurement(decodeUtf8(bytes, claim.file));
    } catch (error) {
      differences.push(differenceOf(error, claim.file));
      continue;
    }
    for (const source of claim.sources) {
      sameBytes(files, source, differences);
      if (!measurement.sources.some((named) => named.sha256 === source.sha256)) {
        add(differences, source.file, "provenance/other-source", "the measurement was not made from this file");
      }
    }
    const registers = checkImage(operation, claim.call, measurement, claim.file, differences);
    reports.push({
      ...{ call: claim.call, file: claim.file, measurement, registers },
      kept: claim.sources.map((source) => source.sha256),
    });
  }
  return { reports, differences };
}

function sameBytes(
  files: ReadonlyMap<string, Uint8Array>,
  claim: { readonly file: string; readonly sha256: string },
  differences: Difference[],
): Uint8Array | undefined {
  const bytes = files.get(claim.file);
  if (bytes === undefined) add(differences, claim.file, "provenance/missing", "the file is not in the folder");
  else if (sha256(bytes) !== claim.sha256) {
    add(differences, claim.file, "provenance/changed", `its sha256 is ${sha256(bytes)}, proposed was ${claim.sha256}`);
  }
  return bytes;
}

function checkImage(
  operation: Operation,
  index: number,
  measurement: Measurement,
  file: string,
  differences: Difference[],
): readonly string[] {
  const call = operation.calls[index];
  const recognised = call === undefined ? undefined : recogniseCall(call, contextOf(operation));
  const argument = recognised === undefined ? undefined : IMAGE_ARGUMENT[recognised.name];
  if (recognised === undefined || argument === undefined) {
    add(differences, file, "provenance/no-image", `call ${index} registers no image that a measurement could explain`);
    return [];
  }
  try {
    const image = decodeImage(fromHex(String(recognised.named[argument.name]), "image"), argument.use);
    if (image.kind !== measurement.kind) {
      add(
        differences,
        file,
        "provenance/other-kind",
        `the image is ${image.kind}, the measurement ${measurement.kind}`,
      );
      return [];
    }
    for (const [name, value] of Object.entries(image.registers)) {
      const measured = measurement.registers[name];
      if (measured?.value === value) continue;
      const found = measured === undefined ? "was not measured" : `was measured as ${measured.value}`;
      add(differences, `calls[${index}]`, "provenance/other-image", `${name} is ${value} in the call and ${found}`);
    }
    if (isUnsafe(measurement)) {
      add(differences, file, "provenance/unsafe", "the measurement is of a machine that must not get keys");
    }
    return Object.keys(image.registers);
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    differences.push(differenceOf(error, `calls[${index}]`));
    return [];
  }
}

const add = (differences: Difference[], field: string, code: string, message: string): void => {
  differences.push({ field, code, message });
};
