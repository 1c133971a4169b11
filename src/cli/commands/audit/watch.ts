import type { Change } from "../../../audit/changes.ts";
import type { Inspection } from "../../../audit/inspect.ts";
import { inspectionJson } from "../../../audit/report-formats.ts";
import { type Sighting, watch } from "../../../audit/watch.ts";
import { isKeysteadError, KeysteadError } from "../../../core/errors.ts";
import { escapeJson, printable } from "../../../core/printable.ts";
import { type OptionValues, wholeNumber } from "../../chain-input.ts";
import type { Io } from "../../io.ts";
import type { ExitCode, Output } from "../../output.ts";
import { untilStopped } from "../../serve.ts";
import { openWebhook } from "../../webhook.ts";
import { exitCodeOf, inspectWith, printInspection, readAsked, readSince, type Warning } from "./run.ts";

/**
 * `keystead audit --watch`: prints the first report, then a line (with `--json` or `--format json` a JSON document on a line of its own) for each change, and
 * posts changes to the webhook. Ends on SIGINT or SIGTERM.
 *
 * @returns 1 if anything was broken at any time, 2 if anything was not proven, unreadable or not delivered at the end, else 0
 * @throws KeysteadError as `readAsked` and the first inspection; `usage/format`, `usage/interval`, `usage/webhook-secret`
 * @example
 * return runWatch(io, ["0x…"], { rpc, registry, interval: "12" }, output);
 */
export async function runWatch(
  io: Io,
  services: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<ExitCode> {
  const format = output.json ? "json" : String(options.format);
  if (format !== "json" && format !== "text") {
    throw usage("format", `a watch has no end, so it can't be printed as ${format}`, "Use --format text or json.");
  }
  const seconds = wholeNumber(options, "interval") ?? 12;
  if (seconds < 1) throw usage("interval", "a watch looks at most once a second", "Give at least 1.");
  const since = readSince(options.since);
  const tell = openWebhook(io, options.webhook);
  const { chain, subjects, reading, checkpoint } = await readAsked(io, services, options, format === "json");
  const warnings: Warning[] = [];
  const first = await inspectWith(chain.client, subjects, reading, warnings);
  await checkpoint?.remove();
  const ended = new AbortController();
  void untilStopped().then(() => ended.abort());

  let worst: ExitCode = 0;
  let undelivered = false;
  let lost = false;
  const line = (value: unknown) => io.print(`${escapeJson(JSON.stringify(value))}\n`);
  const report = async (message: ReturnType<typeof messageOf>) => {
    if (format === "json") line(message);
    else io.print(`${textOf(message, output)}\n`);
    try {
      await tell(message);
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
      undelivered = true;
      output.error(error);
    }
  };
  let latest: Inspection | undefined;
  const looking = { ...reading, cache: undefined, first, interval: 1000 * seconds, signal: ended.signal };
  const watched = watch(chain.client, subjects, looking);
  for await (const sighting of watched) {
    lost = sighting.kind === "lost";
    if (sighting.kind !== "lost") {
      latest = sighting.inspection;
      if (exitCodeOf(latest, chain.acceptUnproven) === 1) worst = 1;
    }
    if (sighting.kind !== "start") await report(messageOf(sighting));
    else if (format === "json") line({ ...inspectionJson(sighting.inspection, since), warnings });
    else {
      const printing = { format, since, chapters: !sighting.inspection.all, warnings };
      await printInspection(io, sighting.inspection, printing, output);
    }
  }
  if (worst !== 0 || latest === undefined) return worst;
  return lost || undelivered ? 2 : exitCodeOf(latest, chain.acceptUnproven);
}

/** A sighting as JSON, for the line and for the webhook. */
function messageOf(sighting: Exclude<Sighting, { kind: "start" }>) {
  const format = "keystead.audit-change/1";
  if (sighting.kind === "lost") {
    const { code, message } = sighting.error;
    return {
      format,
      kind: sighting.kind,
      chainId: null,
      block: null,
      verdict: null,
      error: { code, message },
      changes: [],
    };
  }
  const { chainId, block, verdict } = sighting.inspection;
  const place = { number: block.number, hash: block.hash, timestamp: block.timestamp };
  return { format, kind: sighting.kind, chainId, block: place, verdict, error: null, changes: sighting.changes };
}

function textOf({ kind, block, verdict, error, changes }: ReturnType<typeof messageOf>, { colors }: Output): string {
  if (error !== null) {
    return colors.red(`CANNOT CHECK since now: ${error.code}: ${printable(error.message, 400)}`);
  }
  const lines = changes.map((change: Change) => {
    const loud = ["verdict", "rewritten", "gone-service", "code"].includes(change.kind);
    return `block ${block?.number} ${change.subject} ${loud ? colors.red(change.kind) : change.kind}: ${change.message}`;
  });
  if (kind === "again") lines.unshift(`The chain answers again, at block ${block?.number}: ${verdict}`);
  return lines.join("\n");
}

function usage(code: string, message: string, remedy: string): KeysteadError {
  return new KeysteadError(`usage/${code}`, message, { argument: code, remedy });
}
