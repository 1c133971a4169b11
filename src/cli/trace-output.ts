import { renderTrace, type TracedCall, traceCalls } from "../governance/call-trace.ts";
import type { Operation } from "../governance/operation.ts";
import type { Names } from "../governance/present/names.ts";
import { partOf } from "../governance/present/names.ts";
import type { SimulateOptions } from "../governance/simulate.ts";
import { type Output, safeText } from "./output.ts";

/** The trace of one transaction of a play. */
export interface StepTrace {
  readonly id: string;
  readonly step: string;
  readonly gasUsed: bigint;
  readonly trace: TracedCall;
}

/**
 * Keeps the trace of every transaction that a play makes.
 *
 * @example
 * const { traces, onPlayed } = collectTraces();
 */
export function collectTraces(): {
  readonly traces: StepTrace[];
  readonly onPlayed: NonNullable<SimulateOptions["onPlayed"]>;
} {
  const traces: StepTrace[] = [];
  return {
    traces,
    onPlayed: async (fork, id, { step, gasUsed }, hash) => {
      traces.push({ id, step, gasUsed, trace: await traceCalls(fork.client, hash) });
    },
  };
}

/** Traces as text, by the names of the record and, without one, by the parts that a proposal gives. */
export function renderTraces(
  traces: readonly StepTrace[],
  names: Names,
  operations: ReadonlyMap<string, Operation>,
  output: Output,
): string {
  const { bold } = output.colors;
  return traces
    .map(({ id, step, gasUsed, trace }) => {
      const operation = operations.get(id);
      const own = operation === undefined ? new Map<string, string>() : contractsOf(operation);
      const nameOf = (address: string): string =>
        names.get(address) ?? own.get(address) ?? (operation === undefined ? address : partOf(operation, address));
      const lines = renderTrace(trace, nameOf).map(safeText);
      return [bold(`Trace of ${id}, ${step}: ${gasUsed.toLocaleString("en")} gas`), ...lines].join("\n");
    })
    .join("\n\n");
}

const contractsOf = ({ contracts }: Operation): Names =>
  new Map([
    [contracts.policy, "PlatformPolicy"],
    [contracts.registry, "KmsRegistry"],
    [contracts.timelock, "timelock"],
  ]);

/** Traces as JSON output carries them. */
export const tracesJson = (traces: readonly StepTrace[]): unknown =>
  JSON.parse(JSON.stringify(traces, (_, value) => (typeof value === "bigint" ? value.toString() : value)));
