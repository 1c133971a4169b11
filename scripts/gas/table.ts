import Table from "cli-table3";
import pc from "picocolors";

/** One operation and what it costs. */
export interface GasRow {
  readonly operation: string;
  readonly used: bigint;
  /** A ceiling: above it the benchmark fails. */
  readonly budget: bigint;
  /** What dstack's contracts take for the nearest operation. */
  readonly peer?: bigint;
  /** `gas` where not given. */
  readonly unit?: string;
}

/** Whether standard output shows colours: a terminal that wants them, or FORCE_COLOR. A pipe gets plain text, in CI too. */
export function hasColor(stream: { readonly isTTY?: boolean }, env: NodeJS.ProcessEnv): boolean {
  if (env.NO_COLOR !== undefined && env.NO_COLOR !== "") return false;
  if (env.FORCE_COLOR !== undefined && env.FORCE_COLOR !== "" && env.FORCE_COLOR !== "0") return true;
  return stream.isTTY === true && env.TERM !== "dumb";
}

/**
 * The rows as a table.
 *
 * @example console.log(formatGasTable(rows, { color: false }))
 */
export function formatGasTable(rows: readonly GasRow[], { color }: { readonly color: boolean }): string {
  const paint = pc.createColors(color);
  const table = new Table({
    head: ["operation", "used", "budget", "below by", "dstack", "ratio"],
    colAligns: ["left", "right", "right", "right", "right", "right"],
    ...(color ? {} : { style: { head: [], border: [] } }),
  });
  for (const { operation, used, budget, peer, unit = "gas" } of rows) {
    const margin =
      used > budget
        ? paint.red(`over by ${(used - budget).toLocaleString("en")}`)
        : paint.green((budget - used).toLocaleString("en"));
    table.push([
      operation,
      `${used.toLocaleString("en")} ${unit}`,
      budget.toLocaleString("en"),
      margin,
      peer?.toLocaleString("en") ?? "",
      peer ? (Number(used) / Number(peer)).toFixed(2) : "",
    ]);
  }
  return table.toString();
}

/** The operations above their budget. */
export const findOverBudget = (rows: readonly GasRow[]): string[] =>
  rows.filter(({ used, budget }) => used > budget).map(({ operation }) => operation);
