import { KeysteadError } from "./errors.ts";
import { IMAGE_KINDS, parseImage, TEE_KINDS, type TeeKind } from "./image.ts";
import { isJsonObject, type JsonObject, type JsonValue, parseJson } from "./json.ts";
import type { Finding, MeasuredRegister, Measurement, MeasurementSource, Provenance } from "./measurement.ts";

/** The `format` of what `keystead measure … --json` prints. */
export const MEASUREMENT_FORMAT = "keystead.measurement/1";

/**
 * Reads what `keystead measure … --json` printed, so that a measurement taken yesterday can be compared with one of today.
 *
 * @throws KeysteadError `measurement/malformed` {field}, `image/register-value`, and those of `parseJson`
 * @example
 * const { kind, registers } = parseMeasurement(text);
 */
export function parseMeasurement(text: string): Measurement {
  const document = object(parseJson(text, "measurement"), "document");
  if (document.format !== MEASUREMENT_FORMAT) throw malformed("format", `is not ${MEASUREMENT_FORMAT}`);
  const measurement = object(document.measurement, "measurement");
  const kind = TEE_KINDS.find((candidate) => candidate === measurement.kind);
  if (kind === undefined) throw malformed("kind", `is none of ${TEE_KINDS.join(", ")}`);
  return {
    kind,
    input: string(measurement.input, "input"),
    registers: readRegisters(kind, object(measurement.registers, "registers")),
    facts: Object.fromEntries(
      Object.entries(object(measurement.facts, "facts")).map(([name, value]) => [name, string(value, `facts.${name}`)]),
    ),
    sources: list(measurement.sources, "sources").map((source) => readSource(source)),
    findings: list(measurement.findings, "findings").map((finding) => readFinding(finding)),
    unchecked: list(measurement.unchecked, "unchecked").map((item) => string(item, "unchecked")),
  };
}

/**
 * The text that {@link parseMeasurement} reads back: what a proposal keeps of a measurement.
 *
 * @example
 * parseMeasurement(formatMeasurement(measurement)).kind === measurement.kind; // true
 */
export function formatMeasurement(measurement: Measurement): string {
  const { kind, input, registers, facts, sources, findings, unchecked } = measurement;
  const ordered = { kind, input, registers, facts, sources, findings, unchecked };
  return `${JSON.stringify({ format: MEASUREMENT_FORMAT, measurement: ordered }, null, 2)}\n`;
}

function readRegisters(kind: TeeKind, given: JsonObject): Readonly<Record<string, MeasuredRegister>> {
  const registers: Record<string, MeasuredRegister> = {};
  for (const name of Object.keys(given)) {
    if (!IMAGE_KINDS[kind].registers.some((known) => known.name === name)) {
      throw malformed(`registers.${name}`, `is no register of ${kind}`);
    }
  }
  for (const { name } of IMAGE_KINDS[kind].registers) {
    if (!Object.hasOwn(given, name)) continue;
    const register = object(given[name], `registers.${name}`);
    const text = string(register.value, `registers.${name}.value`);
    const value = parseImage(`${kind}:${name}=${text.replace(/^0x/, "")}`).registers[name];
    const how = PROVENANCES.find((candidate) => candidate === register.how);
    if (how === undefined || value === undefined)
      throw malformed(`registers.${name}.how`, `is none of ${PROVENANCES.join(", ")}`);
    const formula = string(register.formula, `registers.${name}.formula`);
    registers[name] = { value, how, source: readSource(register.source), formula };
  }
  return registers;
}

const PROVENANCES: readonly Provenance[] = ["computed", "read", "table"];

function readSource(value: JsonValue | undefined): MeasurementSource {
  const source = object(value, "source");
  const sha256 = string(source.sha256, "source.sha256");
  if (!/^0x[0-9a-f]{64}$/.test(sha256)) throw malformed("source.sha256", "is not 32 bytes of hex");
  if (typeof source.bytes !== "number" || !Number.isSafeInteger(source.bytes) || source.bytes < 0) {
    throw malformed("source.bytes", "is not a length");
  }
  return { name: string(source.name, "source.name"), sha256: `0x${sha256.slice(2)}`, bytes: source.bytes };
}

function readFinding(value: JsonValue): Finding {
  const finding = object(value, "finding");
  const { severity } = finding;
  if (severity !== "unsafe" && severity !== "warning")
    throw malformed("finding.severity", "is neither unsafe nor warning");
  return { severity, code: string(finding.code, "finding.code"), message: string(finding.message, "finding.message") };
}

function malformed(field: string, what: string): KeysteadError {
  return new KeysteadError("measurement/malformed", `the saved measurement's ${field} ${what}`, {
    argument: "measurement",
    remedy: "Give the output of `keystead measure … --json`, unchanged.",
    details: { field },
  });
}

function object(value: JsonValue | undefined, field: string): JsonObject {
  if (!isJsonObject(value)) throw malformed(field, "is not an object");
  return value;
}

function list(value: JsonValue | undefined, field: string): readonly JsonValue[] {
  if (!Array.isArray(value)) throw malformed(field, "is not a list");
  return value;
}

function string(value: JsonValue | undefined, field: string): string {
  if (typeof value !== "string") throw malformed(field, "is not a text");
  return value;
}
