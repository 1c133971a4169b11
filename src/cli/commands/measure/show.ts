import { toHex } from "../../../core/bytes.ts";
import { isKeysteadError } from "../../../core/errors.ts";
import { checkImage, type ImageUse } from "../../../core/image.ts";
import {
  type BuiltImage,
  buildImage,
  isUnsafe,
  type Measurement,
  platformExclude,
  type RegisterChoice,
  registerValues,
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
 * @returns 1 where the machine is unsafe, 2 where no image of any use follows from the input, else 0
 * @throws KeysteadError of `buildImage` where the user's choice of registers is not possible
 * @example
 * return showMeasurement(measurement, { include: ["mr_seam"] }, output);
 */
export function showMeasurement(measurement: Measurement, choice: RegisterChoice, output: Output): ExitCode {
  const service = attempt(measurement, "service", choice);
  const platform = attempt(measurement, "platform", {
    exclude: platformExclude(measurement.kind, choice.exclude ?? []),
  });
  const unsafe = isUnsafe(measurement);
  const value = {
    format: MEASUREMENT_FORMAT,
    unsafe,
    measurement,
    images: { service: imageJson(service), platform: imageJson(platform) },
  };
  output.result(value, () => renderMeasurement(measurement, service, platform, output));
  if (unsafe) return 1;
  return "built" in service || "built" in platform ? 0 : 2;
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
