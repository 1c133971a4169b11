import { Gauge, type Registry } from "prom-client";
import { GOOD_TCB, type TcbReport } from "../core/tcb.ts";
import { monotonicSeconds, type Stopwatch } from "./evidence/time.ts";
import type { Judgement } from "./judge.ts";

/*
 * What the machines that asked of late have for a TCB, as metrics: how many are up to date by the set that counts and by Intel's early one, and what the
 * others lack. So a TCB recovery is seen before it cuts machines off. Labels are the vendor's words and this project's, never a request's.
 */

/** Machines that did not ask for a day no longer count. */
const REMEMBERED_SECONDS = 86_400;
/** At some hundred bytes each. */
const LIMIT = 10_000;

interface Machine {
  readonly kind: string;
  readonly tcb: TcbReport;
  readonly seenAt: number;
}

/** Counts machines. */
export interface MachineTally {
  /** Takes note of a machine whose evidence is genuine. */
  readonly note: (judgement: Pick<Judgement, "facts" | "tcb">) => void;
}

type Short = readonly [labels: Readonly<Record<string, string>>, machines: number];

/**
 * Makes a tally, and its metrics: `keystead_machines` and `keystead_machines_short`.
 *
 * @example
 * const tally = createMachineTally(registry);
 */
export function createMachineTally(registry: Registry, stopwatch: Stopwatch = monotonicSeconds): MachineTally {
  const machines = new Map<string, Machine>();
  const recent = (): Machine[] => {
    const oldest = stopwatch() - REMEMBERED_SECONDS;
    for (const [id, { seenAt }] of machines) if (seenAt < oldest) machines.delete(id);
    return [...machines.values()];
  };
  const registers = [registry];
  new Gauge({
    name: "keystead_machines",
    help: "Machines with genuine evidence in the last day, by TCB status; set=early: what Intel's coming set says of them.",
    labelNames: ["kind", "set", "status"],
    registers,
    collect() {
      this.reset();
      for (const { kind, tcb } of recent())
        for (const [set, { status }] of setsOf(tcb)) this.inc({ kind, set, status });
    },
  });
  new Gauge({
    name: "keystead_machines_short",
    help: "Machines of the last day whose platform lacks something: which part, which security version number, which advisories.",
    labelNames: ["kind", "set", "part", "svn", "advisories"],
    registers,
    collect() {
      this.reset();
      for (const [labels, count] of shortOf(recent())) this.inc(labels, count);
    },
  });
  return {
    note: ({ facts, tcb }) => {
      if (tcb === undefined) return;
      const id = `${facts.kind}:${facts.deviceId}`;
      machines.delete(id);
      machines.set(id, { kind: facts.kind, tcb, seenAt: stopwatch() });
      const oldest = machines.keys().next();
      if (machines.size > LIMIT && !oldest.done) machines.delete(oldest.value);
    },
  };
}

function setsOf(tcb: TcbReport): readonly (readonly [string, Pick<TcbReport, "status" | "parts">])[] {
  return [["standard", tcb], ...(tcb.early === undefined ? [] : [["early", tcb.early] as const])];
}

function shortOf(machines: readonly Machine[]): readonly Short[] {
  return machines.flatMap(({ kind, tcb }) =>
    setsOf(tcb).flatMap(([set, { parts }]) =>
      parts
        .filter(({ status }) => !GOOD_TCB.has(status))
        .flatMap(({ part, short, advisories }): Short[] => {
          const common = { kind, set, part, advisories: advisories.join(",") };
          // A status of configuration has no number that is too low.
          const svns = short.length === 0 ? ["none"] : [...new Set(short.map(({ svn }) => svn))];
          return svns.map((svn) => [{ ...common, svn }, 1]);
        }),
    ),
  );
}
