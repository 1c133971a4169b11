import { renderPage } from "../../../audit/html.ts";
import { type Inspection, inspect, type Subjects } from "../../../audit/inspect.ts";
import { auditReport, type Since } from "../../../audit/report.ts";
import { inspectionJson, renderCsv, renderMarkdown } from "../../../audit/report-formats.ts";
import type { StandingOptions } from "../../../audit/standing.ts";
import { parseAddress } from "../../../audit/walk.ts";
import type { BlockTag } from "../../../chain/block.ts";
import type { Client } from "../../../chain/client.ts";
import { isKeysteadError, KeysteadError } from "../../../core/errors.ts";
import { escapeJson, printable } from "../../../core/printable.ts";
import { type ChainInput, type OptionValues, openChain } from "../../chain-input.ts";
import { type Checkpoint, openCheckpoint } from "../../checkpoint.ts";
import type { Io } from "../../io.ts";
import { type ExitCode, type Output, renderTable } from "../../output.ts";
import { createProgress } from "../../progress.ts";

/** How an audit can be printed. */
export const FORMATS = ["text", "md", "json", "csv", "html"] as const;

/** Patience with an endpoint that asks to slow down: half a minute in all. */
const PATIENCE = { patience: 8 };

/** Something that the reader should know beside the verdict. */
export interface Warning {
  readonly code: string;
  readonly message: string;
}

/** What the command line asks to audit, and how. */
export interface Asked {
  readonly chain: ChainInput;
  readonly subjects: Subjects;
  readonly reading: StandingOptions;
  readonly checkpoint: Checkpoint | undefined;
}

/**
 * Reads what to audit from the command line, and connects.
 *
 * @param json whether a program reads: then nothing but an error goes to standard error
 * @throws KeysteadError `usage/subject`, `audit/bad-address`; as `openChain` and `openCheckpoint`
 * @example
 * const { chain, subjects, reading } = await readAsked(io, ["0x…"], options, false);
 */
export async function readAsked(
  io: Io,
  services: readonly string[],
  options: OptionValues,
  json: boolean,
): Promise<Asked> {
  const all = options.all === true;
  const withPolicy = options.policy !== undefined;
  if (all ? services.length !== 0 : services.length === 0 && !withPolicy) {
    throw new KeysteadError("usage/subject", "what to audit is not said, or said twice", {
      argument: "service",
      remedy: "Name services, or add --policy, or --all for everything.",
    });
  }
  const ids = services.map((id) => parseAddress(id, "service"));
  const { policy, ...others } = options;
  const chain = await openChain(io, typeof policy === "string" ? options : others, PATIENCE);
  const { client, witnesses, registry, fromBlock, deployedAt } = chain;
  const path = options.checkpoint;
  const checkpoint = typeof path === "string" ? await openCheckpoint(io, path) : undefined;
  const subjects = { registry, policy: chain.policy, services: all ? ("all" as const) : ids, withPolicy };
  const progress = json ? () => {} : createProgress(io);
  const reading: StandingOptions = {
    at: options.at as BlockTag,
    witnesses,
    fromBlock,
    deployedAt,
    cache: checkpoint,
    trustCache: options.trustCheckpoint === true,
    onProgress: ({ block, toBlock, logs }) =>
      progress(() => `scanned to block ${block} of ${toBlock}: ${logs} logs, ${cost(client)}`),
    onService: (judged, of) => progress(() => `verified ${judged} of ${of} services, ${cost(client)}`),
  };
  return { chain, subjects, reading, checkpoint };
}

/**
 * `keystead audit` without `--watch`.
 *
 * @param clock this machine's time, in seconds since 1970
 * @returns 0 proven, 1 broken, 2 not proven, or too old to say anything about now
 * @throws KeysteadError where nothing could be found out: as {@link readAsked} and `inspect`; `usage/since`, `usage/webhook`
 * @example
 * return runAudit(io, ["0x…"], { rpc, registry, format: "text" }, Date.now() / 1000, output);
 */
export async function runAudit(
  io: Io,
  services: readonly string[],
  options: OptionValues,
  clock: number,
  output: Output,
): Promise<ExitCode> {
  if (options.webhook !== undefined) {
    throw new KeysteadError("usage/webhook", "a webhook is for --watch", {
      argument: "webhook",
      remedy: "Add --watch, or leave --webhook out.",
    });
  }
  const since = readSince(options.since);
  const started = Date.now();
  const format = output.json ? "json" : String(options.format);
  const { chain, subjects, reading, checkpoint } = await readAsked(io, services, options, format === "json");
  const warnings: Warning[] = [];
  const inspection = await inspectWith(chain.client, subjects, reading, warnings);
  const exit = exitCodeOf(inspection, chain.acceptUnproven);
  const age = Math.round(clock - inspection.block.timestamp);
  const isNow = Math.abs(age) <= chain.maxAge;
  if (!isNow) {
    const how = age > 0 ? `${age} s old` : `${-age} s ahead of this machine's time`;
    const message = `the block read is ${how}, so nothing is known about now (--max-age)`;
    warnings.push({ code: "chain/not-now", message });
  }
  const chapters = !inspection.all || options.timeline === true || since !== undefined;
  await printInspection(io, inspection, { format, since, chapters, warnings }, output);
  if (format !== "json") io.warn(`${((Date.now() - started) / 1000).toFixed(1)} s, ${cost(chain.client)}\n`);
  await checkpoint?.remove();
  return exit === 0 && !isNow ? 2 : exit;
}

/**
 * Inspects, and a second time without the checkpoint where the first time something is wrong that may be the checkpoint's fault.
 *
 * @throws KeysteadError as `inspect`
 * @example
 * const inspection = await inspectWith(client, subjects, reading, warnings);
 */
export async function inspectWith(
  client: Client,
  subjects: Subjects,
  reading: StandingOptions,
  warnings: Warning[],
): Promise<Inspection> {
  const again = (why: string) => {
    warnings.push({ code: "checkpoint/not-used", message: `${why}; everything was read from the endpoint` });
    return inspect(client, subjects, { ...reading, cache: undefined });
  };
  try {
    const inspection = await inspect(client, subjects, reading);
    const suspect = inspection.verdict === "broken" && reading.cache?.used() === true;
    return suspect ? await again("a history does not verify with what the checkpoint holds") : inspection;
  } catch (error) {
    if (isKeysteadError(error, "audit/cache-incomplete")) return again(error.message);
    throw error;
  }
}

/** How an inspection is printed. */
export interface Printing {
  /** One of {@link FORMATS}. */
  readonly format: string;
  readonly since: Since | undefined;
  readonly chapters: boolean;
  readonly warnings: readonly Warning[];
}

/**
 * Prints an inspection in one of {@link FORMATS}.
 *
 * @example
 * await printInspection(io, inspection, { format: "md", since: undefined, chapters: true, warnings: [] }, output);
 */
export async function printInspection(
  io: Io,
  inspection: Inspection,
  { format, since, chapters, warnings }: Printing,
  output: Output,
): Promise<void> {
  const report = (longest: number) => auditReport(inspection, { since, chapters, longest });
  if (format === "json") {
    io.print(`${escapeJson(JSON.stringify({ ...inspectionJson(inspection, since), warnings }, null, 2))}\n`);
    return;
  }
  if (format === "html") io.print(await renderPage(report(600)));
  else if (format === "md") io.print(renderMarkdown(report(600)));
  else if (format === "csv") io.print(renderCsv(inspection, since));
  else output.result(undefined, () => renderText(report(80), output));
  for (const { code, message } of warnings) io.warn(`warning ${code}: ${printable(message)}\n`);
}

function renderText({ title, tone, summary, sections }: ReturnType<typeof auditReport>, { colors }: Output): string {
  const paint = { good: colors.green, unsure: colors.yellow, bad: colors.red }[tone];
  const parts = sections.map(({ title, lines = [], table }) => {
    const rows = table === undefined || table.rows.length === 0 ? [] : [renderTable(table.rows, table.head)];
    return [colors.bold(title), ...lines.map((line) => `- ${line}`), ...rows].join("\n");
  });
  return [colors.bold(title), paint(summary), ...parts].join("\n\n");
}

/**
 * The exit code of what was found.
 *
 * @example
 * return exitCodeOf(inspection, chain.acceptUnproven);
 */
export function exitCodeOf(inspection: Inspection, acceptUnproven: boolean): ExitCode {
  const { verdict, policy, services, unaccounted } = inspection;
  if (verdict === "broken") return 1;
  if (verdict === "proven") return 0;
  const audits = [...services, ...(policy === undefined ? [] : [policy])];
  // What this version does not understand is not a matter of whose word is taken.
  const unknown =
    unaccounted.length !== 0 || audits.some(({ reasons }) => reasons.some(({ code }) => code === "unknown-events"));
  return acceptUnproven && !unknown ? 0 : 2;
}

/**
 * A block number, or a date as ISO 8601 writes it (UTC where it says nothing else).
 *
 * @throws KeysteadError `usage/since`
 * @example
 * readSince("2026-11-25"); // { timestamp: 1795564800 }
 */
export function readSince(value: unknown): Since | undefined {
  if (value === undefined) return undefined;
  const text = String(value);
  if (/^\d{1,15}$/.test(text)) return { block: Number(text) };
  const isDate = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?)?$/.test(text);
  const zoned = /T.*(Z|[+-]\d{2}:\d{2})$/.test(text) || !text.includes("T") ? text : `${text}Z`;
  const time = isDate ? Date.parse(zoned) : Number.NaN;
  if (!Number.isNaN(time)) return { timestamp: time / 1000 };
  throw new KeysteadError("usage/since", `${JSON.stringify(text)} is neither a block nor a date`, {
    argument: "since",
    remedy: "Give a block's number, or a date such as 2026-11-25 or 2026-11-25T10:00Z.",
  });
}

function cost(client: Client): string {
  const bytes = client.bytes?.();
  return `${client.calls()} calls${bytes === undefined ? "" : `, ${(bytes / 1e6).toFixed(2)} MB`}`;
}
