import type { PolicyEvent, ServiceEvent } from "../core/events.ts";
import type { PolicyState } from "../core/policy-state.ts";
import { printable } from "../core/printable.ts";
import { imageStatus, type ServiceState, secretsAt, type TimedEntry, viewService } from "../core/state.ts";
import type { Page } from "./html.ts";
import type { Inspection } from "./inspect.ts";
import { entriesSince, type Since } from "./report.ts";
import type { Audit } from "./result.ts";
import { actorOf, isoTime, type Table } from "./table.ts";

/**
 * A report as Markdown. Text from the chain can be neither markup nor HTML in it.
 *
 * @example
 * renderMarkdown(auditReport(inspection, { chapters: true }));
 */
export function renderMarkdown({ title, summary, sections }: Page): string {
  const parts = [`# ${escapeMarkdown(title)}`, `**${escapeMarkdown(summary)}**`];
  for (const { title, lines = [], table } of sections) {
    parts.push(`## ${escapeMarkdown(title)}`, ...lines.map(escapeMarkdown));
    if (table !== undefined && table.rows.length !== 0) parts.push(markdownTable(table));
  }
  return `${parts.join("\n\n")}\n`;
}

function markdownTable({ head, rows }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.map(escapeMarkdown).join(" | ")} |`;
  return [line(head), `|${" --- |".repeat(head.length)}`, ...rows.map(line)].join("\n");
}

/** Every character of ASCII punctuation can be escaped (CommonMark §2.4); those that could start something are. */
function escapeMarkdown(text: string): string {
  const escaped = (char: string) => (char === "<" ? "&lt;" : char === "&" ? "&amp;" : `\\${char}`);
  // "www." starts a link by itself in GitHub's dialect, as do "https:" and an address with "@"
  return printable(text)
    .replace(/[\\`*_{}[\]()<>#+\-!|~&$@:]/g, escaped)
    .replace(/www\./gi, (www) => `${www.slice(0, 3)}\\.`);
}

/**
 * Every event as a line of CSV (RFC 4180). A cell that a spreadsheet would take for a formula starts with an apostrophe.
 *
 * @example
 * renderCsv(inspection, undefined);
 */
export function renderCsv({ chainId, policy, services }: Inspection, since: Since | undefined): string {
  const head = ["chain", "subject", "verdict", "sequence", "time", "block", "transaction", "event", "actor", "fields"];
  const subjects: readonly (readonly [string, Audit<unknown, ServiceEvent | PolicyEvent>])[] = [
    ...(policy === undefined ? [] : ([["policy", policy]] as const)),
    ...services.map((audit) => [audit.serviceId, audit] as const),
  ];
  const rows = subjects.flatMap(([subject, { verdict, entries }]) => {
    // A subject of which nothing may be shown still has its line: what is missing must not look like nothing.
    if (entries.length === 0) return [[String(chainId), subject, verdict, "", "", "", "", "", "", ""]];
    return entriesSince(entries, since).map(({ sequence, timestamp, log, event }) => [
      String(chainId),
      subject,
      verdict,
      String(sequence),
      isoTime(timestamp),
      String(log.blockNumber),
      log.transactionHash,
      event?.name ?? "unknown",
      event === undefined ? "" : actorOf(event),
      event === undefined ? "" : printable(JSON.stringify(event.args)),
    ]);
  });
  return [head, ...rows].map((row) => `${row.map(csvCell).join(",")}\r\n`).join("");
}

function csvCell(text: string): string {
  const guarded = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}

/**
 * An inspection as plain JSON, with everything: states, events with all their fields, findings. Texts from the chain are in it as they are.
 *
 * @example
 * JSON.stringify(inspectionJson(inspection, undefined));
 */
export function inspectionJson(inspection: Inspection, since: Since | undefined) {
  const { chainId, block, verdict, policy, services, all, code, set, unaccounted, calls } = inspection;
  return {
    format: "keystead.audit/1",
    chainId,
    block: { number: block.number, hash: block.hash, timestamp: block.timestamp },
    verdict,
    allServices: all,
    policy: policy === undefined ? null : { ...auditJson(policy, since), state: policyJson(policy.state) },
    services: services.map((audit) => ({
      serviceId: audit.serviceId,
      ...auditJson(audit, since),
      state: serviceJson(audit.state, block.timestamp),
    })),
    code: code ?? null,
    set: set ?? null,
    unaccounted,
    calls,
  };
}

function auditJson<S, E extends ServiceEvent | PolicyEvent>(audit: Audit<S, E>, since: Since | undefined) {
  const { verdict, basis, faults, reasons, differences, head, count, entries } = audit;
  return {
    verdict,
    head,
    count,
    basis: basis === "proof" ? "storage-proof" : "endpoint",
    faults,
    reasons,
    differences,
    events: entriesSince(entries, since).map(entryJson),
  };
}

function entryJson({ sequence, timestamp, log, event }: TimedEntry<ServiceEvent | PolicyEvent>) {
  const { blockNumber, blockHash, transactionHash, logIndex, topics, data } = log;
  const place = { sequence, timestamp, block: blockNumber, blockHash, transaction: transactionHash, logIndex };
  return event === undefined
    ? { event: null, actor: null, args: null, topics, data, ...place }
    : { event: event.name, actor: actorOf(event), args: event.args, ...place };
}

/**
 * A service's state as plain JSON, at a time.
 *
 * @param now seconds since 1970
 * @example
 * serviceJson(audit.state, audit.block.timestamp)?.images;
 */
export function serviceJson(state: ServiceState | undefined, now: number) {
  if (state === undefined) return null;
  const { images, devices, secrets, notUnderstood } = state;
  const inForce = secretsAt(state, now);
  return {
    ...viewService(state, now),
    creator: state.creator,
    description: state.description,
    images: [...images.values()].map((image) => ({ ...image, status: imageStatus(image, now) })),
    devices: [...devices].map(([deviceId, allowedFrom]) => ({ deviceId, allowedFrom })),
    secrets: [...secrets.values()].flat().map((each) => ({ ...each, inForce: inForce.get(each.name) === each })),
    notUnderstood,
  };
}

function policyJson(state: PolicyState | undefined) {
  if (state === undefined) return null;
  const { platforms, kmsImages, kmsIdentities, tees, ...rest } = state;
  return {
    ...rest,
    platforms: [...platforms.values()],
    kmsImages: [...kmsImages.values()],
    kmsIdentities: [...kmsIdentities.values()],
    tees: [...tees].map(([kind, { devices, ...rules }]) => ({
      kind,
      ...rules,
      devices: [...devices].map(([deviceId, listed]) => ({ deviceId, listed })),
    })),
  };
}
