import { setTimeout as sleep } from "node:timers/promises";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { CollateralState } from "./evidence/collateral.ts";
import { createMachineTally, type MachineTally } from "./machines.ts";

/** What a node counts, for Prometheus. No label has a value that a request chose. */
export interface Metrics {
  readonly registry: Registry;
  /** Answered requests by route, method and status. */
  readonly requests: Counter<"route" | "method" | "status">;
  /** Seconds from request to answer. */
  readonly seconds: Histogram<"route">;
  /** Releases by what came of them (`released`, or a problem's code) and kind of evidence. */
  readonly releases: Counter<"outcome" | "kind" | "what">;
  readonly inFlight: Gauge;
  /** What the machines that asked of late have for a TCB. */
  readonly machines: MachineTally;
}

/** Values that are read when they are asked for. */
export interface MetricSources {
  readonly receipts: () => number;
  readonly usedNonces: () => number;
  readonly chain: () => { readonly ready: boolean; readonly ageSeconds: number | undefined };
  /** What one judging thread holds of TDX collateral. */
  readonly collateral: () => Promise<readonly Pick<CollateralState, "validUntil" | "lastError">[]>;
  readonly clock: () => number;
  readonly testTee: boolean;
  /** Whether the process's own figures (memory, event loop) are collected as well. */
  readonly process: boolean;
}

/**
 * Makes a node's metrics.
 *
 * @example
 * const text = await createMetrics(sources).registry.metrics();
 */
export function createMetrics(sources: MetricSources): Metrics {
  const registry = new Registry();
  const registers = [registry];
  if (sources.process) collectDefaultMetrics({ register: registry });
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge("keystead_receipts", "Receipts on the disk.", sources.receipts);
  gauge("keystead_nonces_used", "Used nonces that have not expired.", sources.usedNonces);
  gauge("keystead_chain_ready", "1 where decisions can be made.", () => (sources.chain().ready ? 1 : 0));
  gauge(
    "keystead_chain_age_seconds",
    "By how much the clock is ahead of the block that decides; -1: there is none.",
    () => sources.chain().ageSeconds ?? -1,
  );
  const collateral = watchCollateral(sources);
  new Gauge({
    name: "keystead_collateral_failing",
    help: "Platform families whose TDX collateral could not be renewed at the last try.",
    registers,
    async collect() {
      this.set((await collateral()).filter(({ lastError }) => lastError !== undefined).length);
    },
  });
  new Gauge({
    name: "keystead_collateral_seconds_left",
    help: "Until the first of the TDX collateral that is held expires; -1: none is held.",
    registers,
    async collect() {
      const ends = (await collateral()).flatMap(({ validUntil }) => (validUntil === undefined ? [] : [validUntil]));
      this.set(ends.length === 0 ? -1 : Math.floor(Math.min(...ends) - sources.clock()));
    },
  });
  gauge("keystead_test_tee", "1 where evidence under test roots is taken.", () => (sources.testTee ? 1 : 0));
  return {
    registry,
    requests: new Counter({
      name: "keystead_requests_total",
      help: "Answered requests.",
      labelNames: ["route", "method", "status"],
      registers,
    }),
    seconds: new Histogram({
      name: "keystead_request_seconds",
      help: "Time from request to answer.",
      labelNames: ["route"],
      buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
      registers,
    }),
    releases: new Counter({
      name: "keystead_releases_total",
      help: "Requests for keys or root secrets, by what came of them.",
      labelNames: ["outcome", "kind", "what"],
      registers,
    }),
    machines: createMachineTally(registry),
    inFlight: new Gauge({ name: "keystead_in_flight", help: "Requests being answered.", registers }),
  };
}

type Held = Awaited<ReturnType<MetricSources["collateral"]>>;

/** What a judging thread last said: one question at a time, whoever asks, and none that holds the other figures up for more than a second. */
function watchCollateral({ collateral }: Pick<MetricSources, "collateral">): () => Promise<Held> {
  let last: Held = [];
  let asking: Promise<void> | undefined;
  return async () => {
    asking ??= collateral()
      .then(
        (held) => {
          last = held;
        },
        // A thread that cannot answer is told of elsewhere.
        () => undefined,
      )
      .finally(() => {
        asking = undefined;
      });
    const timer = new AbortController();
    await Promise.race([asking, sleep(1000, undefined, { signal: timer.signal, ref: false }).catch(() => undefined)]);
    timer.abort();
    return last;
  };
}
