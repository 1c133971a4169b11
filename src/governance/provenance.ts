import { sha256 } from "ethers";
import { decodeUtf8, fromHex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { decodeImage, type Image, type ImageUse } from "../core/image.ts";
import { isUnsafe, type Measurement } from "../core/measurement.ts";
import { parseMeasurement } from "../core/measurement-format.ts";
import { contextOf, type Difference, differenceOf } from "./check.ts";
import { recogniseCall } from "./decode.ts";
import type { MeasurementClaim, Operation } from "./operation.ts";
import { readSource, type Standing } from "./remeasure.ts";
import { type Call, hex } from "./safe-hash.ts";

/** Where a call's image comes from. */
export interface ProvenanceReport {
  readonly call: number;
  readonly file: string;
  readonly measurement: Measurement;
  /** Registers of the image, in its order, and what stands behind each. */
  readonly standings: readonly RegisterStanding[];
  /** Sources whose bytes are in the folder. */
  readonly kept: readonly string[];
}

/** What stands behind one register's value. */
export interface RegisterStanding {
  readonly name: string;
  readonly standing: Standing;
  /** In one line, for people. */
  readonly why: string;
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
  createServiceWithImage: { name: "firstImage", use: "service" },
  addSecretKeyByImage: { name: "onlyImage", use: "sealed" },
};

/**
 * Checks every measurement of an operation: the saved file and each kept source have the hash that was proposed, each kept source is one that the
 * measurement names, every register of the call's image has the measured value, and what the kept sources say of it when they are measured again is the
 * same. What a measurement says in words is its author's, and counts for nothing.
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
    const kept = new Map<string, Uint8Array>();
    for (const source of claim.sources) {
      const content = sameBytes(files, source, differences);
      if (content !== undefined) kept.set(source.file, content);
      if (!measurement.sources.some((named) => named.sha256 === source.sha256)) {
        add(differences, source.file, "provenance/other-source", "the measurement was not made from this file");
      }
    }
    const image = findImage(operation, claim, measurement, differences);
    reports.push({
      ...{ call: claim.call, file: claim.file, measurement },
      standings: image === undefined ? [] : measureAgain(image, claim, kept, differences),
      kept: claim.sources.map((source) => source.sha256),
    });
  }
  return { reports, differences };
}

/** Measures the kept sources again, and says of each register of the image what stands behind it. */
function measureAgain(
  { kind, registers }: Image,
  { file }: MeasurementClaim,
  kept: ReadonlyMap<string, Uint8Array>,
  differences: Difference[],
): readonly RegisterStanding[] {
  const found = new Map<string, RegisterStanding>();
  for (const [source, bytes] of kept) {
    const reading = readSource(bytes, source, kind, Object.keys(registers));
    if (reading === undefined) continue;
    if (reading.kind !== kind) {
      const message = `the image is ${kind}, and this is of ${reading.kind}`;
      add(differences, source, "provenance/other-kind", message);
      continue;
    }
    for (const { severity, message } of reading.findings) {
      if (severity === "unsafe") add(differences, source, "provenance/unsafe", message);
    }
    for (const [name, value] of Object.entries(registers)) {
      const said = reading.values[name];
      if (said === undefined) continue;
      if (said.value.toLowerCase() !== value.toLowerCase()) {
        const message = `${name} is ${value} in the call, and ${said.value} ${said.standing} again from ${source}`;
        add(differences, file, "provenance/forged", message);
      } else if (found.get(name)?.standing !== "measured") {
        found.set(name, { name, standing: said.standing, why: said.why });
      }
    }
  }
  const why = `only by ${file}; no kept source gives it when measured again`;
  return Object.keys(registers).map((name) => found.get(name) ?? { name, standing: "stated", why });
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

/** Every image that a call registers, in its canonical bytes. */
function imagesIn(operation: Operation, index: number): readonly { readonly bytes: string; readonly use: ImageUse }[] {
  const context = contextOf(operation);
  const open = (call: Call): readonly { readonly bytes: string; readonly use: ImageUse }[] => {
    const recognised = recogniseCall(call, context);
    if (recognised === undefined) return [];
    const { name, named, values } = recognised;
    if (name === "multicall") {
      return [...values[0]].flatMap((data) => open({ to: call.to, value: 0n, data: hex(String(data)) }));
    }
    if (name === "addImagesToService") {
      const images: readonly unknown[] = Array.isArray(named.images) ? [...named.images] : [];
      return images.map((item) => ({ bytes: String(Reflect.get(Object(item), "image")), use: "service" }));
    }
    const argument = Object.hasOwn(IMAGE_ARGUMENT, name) ? IMAGE_ARGUMENT[name] : undefined;
    return argument === undefined ? [] : [{ bytes: String(named[argument.name]), use: argument.use }];
  };
  const call = operation.calls[index];
  return call === undefined ? [] : open(call);
}

/** The image of a call that a measurement explains: of several in one call the one whose registers it has. */
function findImage(
  operation: Operation,
  { call: index, file }: MeasurementClaim,
  measurement: Measurement,
  differences: Difference[],
): Image | undefined {
  const listed = imagesIn(operation, index);
  if (listed.length === 0) {
    add(differences, file, "provenance/no-image", `call ${index} registers no image that a measurement could explain`);
    return undefined;
  }
  if (isUnsafe(measurement)) {
    add(differences, file, "provenance/unsafe", "the measurement is of a machine that must not get keys");
  }
  try {
    const images = listed.map(({ bytes, use }) => decodeImage(fromHex(bytes, "image"), use));
    const [first] = images;
    const found = images.find((image) => disagreements(image, measurement).length === 0);
    if (found !== undefined || first === undefined) return found;
    const ofKind = images.find(({ kind }) => kind === measurement.kind);
    if (ofKind === undefined) {
      const message = `the image is ${first.kind}, the measurement ${measurement.kind}`;
      add(differences, file, "provenance/other-kind", message);
      return undefined;
    }
    for (const message of disagreements(ofKind, measurement)) {
      add(differences, `calls[${index}]`, "provenance/other-image", message);
    }
    return ofKind;
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    differences.push(differenceOf(error, `calls[${index}]`));
    return undefined;
  }
}

function disagreements(image: Image, measurement: Measurement): readonly string[] {
  if (image.kind !== measurement.kind) return [`the image is ${image.kind}, the measurement ${measurement.kind}`];
  return Object.entries(image.registers).flatMap(([name, value]) => {
    const measured = measurement.registers[name];
    if (measured?.value === value) return [];
    const found = measured === undefined ? "was not measured" : `was measured as ${measured.value}`;
    return [`${name} is ${value} in the call and ${found}`];
  });
}

const add = (differences: Difference[], field: string, code: string, message: string): void => {
  differences.push({ field, code, message });
};
