import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

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
}

/** Values that are read when they are asked for. */
export interface MetricSources {
  readonly receipts: () => number;
  readonly usedNonces: () => number;
  readonly chain: () => { readonly ready: boolean; readonly ageSeconds: number | undefined };
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
    inFlight: new Gauge({ name: "keystead_in_flight", help: "Requests being answered.", registers }),
  };
}
