import Table from "cli-table3";
import { createColors } from "picocolors";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import type { Finding } from "../core/measurement.ts";
import { escapeJson } from "../core/printable.ts";
import { safeText } from "../core/text.ts";
import type { Io } from "./io.ts";

export { safeText };

/** 0: as hoped. 1: a mismatch, or something unsafe. 2: could not check, or wrong usage. */
export type ExitCode = 0 | 1 | 2;

/** How a command says what it found. */
export interface Output {
  /** Whether `--json` was given: one JSON document on standard output, nothing else there. */
  readonly json: boolean;
  readonly colors: ReturnType<typeof createColors>;
  /** Prints the JSON value with `--json`, else the text. */
  result(value: unknown, text: () => string): void;
  /** Prints an error on standard error, in the same form. */
  error(error: unknown): void;
}

/**
 * Makes the output of one run. Colours only on a terminal, and never with `NO_COLOR` (https://no-color.org).
 *
 * @example
 * createOutput(io, { json: false }).result({ ok: true }, () => "ok");
 */
export function createOutput(io: Io, options: { readonly json: boolean }): Output {
  const colors = createColors(io.terminal && !options.json && !io.env.NO_COLOR && io.env.TERM !== "dumb");
  return {
    json: options.json,
    colors,
    result(value, text) {
      io.print(options.json ? `${escapeJson(JSON.stringify(value, null, 2))}\n` : `${text().trimEnd()}\n`);
    },
    error(error) {
      const known = toKnownError(error);
      if (options.json) {
        io.warn(`${JSON.stringify({ error: describeError(known) }, null, 2)}\n`);
        return;
      }
      const lines = [`${colors.red("error")} ${colors.bold(known.code)}: ${safeText(known.message)}`];
      if (known.argument !== undefined) lines.push(`  argument: ${safeText(known.argument)}`);
      lines.push(`  remedy:   ${safeText(known.remedy)}`);
      if (known.retryable) lines.push("  Trying again later may help.");
      if (io.env.KEYSTEAD_DEBUG && known.cause instanceof Error) lines.push(safeText(known.cause.stack ?? ""));
      io.warn(`${lines.join("\n")}\n`);
    },
  };
}

/** What is not an error of ours is a defect of ours. */
function toKnownError(error: unknown): KeysteadError {
  if (isKeysteadError(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new KeysteadError("internal", `an unexpected error: ${message}`, {
    remedy: "This is a defect of keystead: run again with KEYSTEAD_DEBUG=1 and report what it prints.",
    cause: error,
  });
}

/**
 * An error as JSON output carries it.
 *
 * @example
 * JSON.stringify({ error: describeError(error) });
 */
export function describeError(error: KeysteadError): Readonly<Record<string, unknown>> {
  return {
    code: error.code,
    message: error.message,
    argument: error.argument ?? null,
    remedy: error.remedy,
    retryable: error.retryable,
    details: JSON.parse(
      JSON.stringify(error.details, (_, value) => (typeof value === "bigint" ? value.toString() : value)),
    ),
  };
}

/** A cell of a table. Whatever is in it is made safe for a terminal, so colours come from here, and not from escapes in the text. */
export type Cell = string | { readonly text: string; readonly paint: (text: string) => string };

/**
 * A table without borders, columns two spaces apart.
 *
 * @example
 * renderTable([["mrtd", "a0…"], ["rtmr0", { text: "differs", paint: colors.red }]], ["register", "value"]);
 */
export function renderTable(rows: readonly (readonly Cell[])[], head: readonly string[] = []): string {
  const bare = Object.fromEntries(
    [
      "top",
      "top-mid",
      "top-left",
      "top-right",
      "bottom",
      "bottom-mid",
      "bottom-left",
      "bottom-right",
      "left",
      "left-mid",
    ]
      .concat(["mid", "mid-mid", "right", "right-mid"])
      .map((name) => [name, ""]),
  );
  const table = new Table({
    head: [...head],
    chars: { ...bare, middle: "  " },
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [] },
  });
  table.push(
    ...rows.map((row) =>
      row.map((cell) => (typeof cell === "string" ? safeText(cell) : cell.paint(safeText(cell.text)))),
    ),
  );
  return table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n");
}

/**
 * Findings, the unsafe ones loud.
 *
 * @example
 * renderFindings(measurement.findings, output);
 */
export function renderFindings(findings: readonly Finding[], { colors }: Output): string {
  return findings
    .map(({ severity, code, message }) => {
      const label = severity === "unsafe" ? colors.bold(colors.red("UNSAFE")) : colors.yellow("warning");
      return `${label} ${code}: ${safeText(message)}`;
    })
    .join("\n");
}
