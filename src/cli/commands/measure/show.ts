import { toHex } from "../../../core/bytes.ts";
import { isKeysteadError } from "../../../core/errors.ts";
import { checkImage, type ImageUse } from "../../../core/image.ts";
import {
  type BuiltImage,
  buildImage,
  type Finding,
  isUnsafe,
  type Measurement,
  platformExclude,
  type RegisterChoice,
  registerValues,
  unnamedRegisters,
} from "../../../core/measurement.ts";
import { MEASUREMENT_FORMAT } from "../../../core/measurement-format.ts";
import { describeError, type ExitCode, type Output, renderFindings, renderTable, safeText } from "../../output.ts";

const SERVICE = "Service image";

/** An image that could be built, or why not. */
type Attempt =
  | { readonly built: BuiltImage }
  | { readonly refusal: Readonly<Record<string, unknown>> & { readonly message: string } };

function attempt(measurement: Measurement, use: ImageUse, choice: RegisterChoice): Attempt {
  try {
    return { built: buildImage(measurement.kind, registerValues(measurement), use, choice) };
  } catch (error) {
    if (!isKeysteadError(error) || error.code.startsWith("measure/")) throw error;
    return { refusal: { ...describeError(error), message: error.message } };
  }
}

/**
 * Prints a measurement with the images that follow from it.
 *
 * @returns 1 where the machine is unsafe or the image leaves out what says what runs, 2 where no image of any use follows from the input, else 0
 * @throws KeysteadError of `buildImage` where the user's choice of registers is not possible
 * @example
 * return showMeasurement(measurement, { include: ["mr_seam"] }, output);
 */
export function showMeasurement(read: Measurement, choice: ShowChoice, output: Output): ExitCode {
  const service = attempt(read, "service", choice);
  const unnamed = unnamedOf(read, service).filter((name) => !(choice.allowUnnamed ?? []).includes(name));
  const measurement = unnamed.length === 0 ? read : { ...read, findings: [...read.findings, unnamedFinding(unnamed)] };
  const platform = attempt(measurement, "platform", {
    exclude: platformExclude(measurement.kind, choice.exclude ?? []),
  });
  const unsafe = isUnsafe(measurement);
  const value = {
    format: MEASUREMENT_FORMAT,
    unsafe,
    unnamed,
    measurement,
    images: { service: imageJson(service), platform: imageJson(platform) },
  };
  output.result(value, () => renderMeasurement(measurement, service, platform, output));
  if (unsafe || unnamed.length > 0) return 1;
  return "built" in service || "built" in platform ? 0 : 2;
}

/** What {@link showMeasurement} is told. */
export interface ShowChoice extends RegisterChoice {
  /** Registers that the image need not name, although they say what runs. */
  readonly allowUnnamed?: readonly string[];
}

/** Registers that say what runs, and that the service image does not name. */
function unnamedOf(measurement: Measurement, service: Attempt): readonly string[] {
  const named = "built" in service ? Object.keys(service.built.image.registers) : [];
  return unnamedRegisters(measurement.kind, registerValues(measurement), named);
}

function unnamedFinding(unnamed: readonly string[]): Finding {
  const list = unnamed.join(",");
  return {
    code: "evidence/unnamed-register",
    severity: "warning",
    message: `${unnamed.join(", ")} hold(s) something, and the image does not name it: every application on the same base image would get the keys. Name it with --include ${list}, or wave it through with --allow-unnamed ${list}`,
  };
}

function imageJson(tried: Attempt): unknown {
  if ("refusal" in tried) return { error: tried.refusal };
  const { built } = tried;
  return {
    text: built.text,
    bytes: toHex(built.bytes),
    id: built.id,
    omitted: built.omitted,
    sealed: isSealable(built),
  };
}

function isSealable(built: BuiltImage): boolean {
  try {
    checkImage(built.bytes, "sealed");
    return true;
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    return false;
  }
}

function renderMeasurement(measurement: Measurement, service: Attempt, platform: Attempt, output: Output): string {
  const { bold } = output.colors;
  const registers = Object.entries(measurement.registers).map(([name, { value, how, source, formula }]) => [
    name,
    value.slice(2),
    how,
    `${formula}${measurement.sources.length > 1 ? ` (${source.name})` : ""}`,
  ]);
  const sections = [
    renderFindings(measurement.findings, output),
    `${bold("Read from")}\n${renderTable(measurement.sources.map(({ name, bytes, sha256 }) => [name, `${bytes} bytes`, `sha256 ${sha256.slice(2)}`]))}`,
    `${bold("Input")}\n${renderTable(Object.entries(measurement.facts))}`,
    `${bold(`Registers (${measurement.kind})`)}\n${renderTable(registers, ["register", "value", "how", "from"])}`,
    renderImage(SERVICE, service, output),
    renderImage("Platform image", platform, output),
    `${bold("Not checked")}\n${measurement.unchecked.map((item) => `- ${safeText(item)}`).join("\n")}`,
    measurement.findings.some(({ severity }) => severity === "unsafe")
      ? output.colors.bold(
          output.colors.red("UNSAFE: a machine like this must not get keys. Do not register its image."),
        )
      : "",
  ];
  return sections.filter((section) => section !== "").join("\n\n");
}

function renderImage(title: string, tried: Attempt, output: Output): string {
  const head = output.colors.bold(title);
  if ("refusal" in tried) return `${head}\nnone: ${safeText(tried.refusal.message)}`;
  const { built } = tried;
  const rows = [
    ["id", built.id],
    ["text", built.text],
    ["bytes", toHex(built.bytes)],
  ];
  const open = built.omitted.map(({ name, why }) => (why === "not-measured" ? `${name} (not in this input)` : name));
  if (open.length > 0) rows.push(["matches any", open.join(", ")]);
  if (title === SERVICE && !isSealable(built))
    rows.push(["only for", "upgradeable services: one that is not needs more registers"]);
  return `${head}\n${renderTable(rows)}`;
}
