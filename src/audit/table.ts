import type { Hex } from "../core/bytes.ts";
import type { PolicyEvent, ServiceEvent } from "../core/events.ts";
import { printable } from "../core/printable.ts";
import { imageStatus, type TimedEntry, ZERO_ADDRESS } from "../core/state.ts";
import type { SuiteAudit } from "./all.ts";
import type { Audit, PolicyAudit, ServiceAudit } from "./result.ts";

/* Rows for tables and timelines: data only. Text from the chain is made printable here; layout and colour are the printer's. */

/** A table: column heads and rows of the same length. */
export interface Table {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** What was audited: the policy or not, and some services. */
export type Audited = Pick<SuiteAudit, "services" | "block"> & { readonly policy?: PolicyAudit | undefined };

/**
 * One row for the policy and one for each service: what it is, whether it can be changed and by whom, its images, and the verdict on its history.
 *
 * @example
 * const { head, rows } = auditTable(await auditSuite(client, options));
 */
export function auditTable({ policy, services, block }: Audited): Table {
  const head = ["subject", "upgradeable", "admin", "notice", "images", "events", "history", "rests on"];
  const first =
    policy === undefined
      ? []
      : [["policy", "by governance", "governor", "timelock", platforms(policy), ...proofCells(policy)]];
  return { head, rows: [...first, ...services.map((audit) => serviceRow(audit, block.timestamp))] };
}

/**
 * A history as rows: number, time, block, what happened, who did it, and the rest of the event in words.
 *
 * @param longest the most characters of a text that are kept
 * @example
 * const { rows } = timelineTable(audit.entries);
 */
export function timelineTable(entries: readonly TimedEntry<ServiceEvent | PolicyEvent>[], longest = 80): Table {
  return {
    head: ["#", "time (UTC)", "block", "event", "by", "details"],
    rows: entries.map(({ sequence, timestamp, log, event }) => [
      String(sequence),
      isoTime(timestamp),
      String(log.blockNumber),
      event?.name ?? `unknown ${log.topics[0]?.slice(0, 10)}…`,
      event === undefined ? "?" : actorOf(event),
      event === undefined ? "" : detailsOf(event, longest),
    ]),
  };
}

/**
 * Everything that is wrong or not known about an audit, one row each.
 *
 * @example
 * for (const row of findingsTable("policy", audit).rows) console.error(row.join("  "));
 */
export function findingsTable(subject: string, audit: Audit<unknown, unknown>): Table {
  const faults = audit.faults.map(({ code, message }) => [subject, "broken", code, printable(message, 400)]);
  const reasons = audit.reasons.map(({ code, message }) => [subject, "not proven", code, printable(message, 400)]);
  const differences = audit.differences.map(({ what, rebuilt, contract }) => [
    subject,
    "differs",
    what,
    printable(`history says ${rebuilt}, contract says ${contract}`, 400),
  ]);
  return { head: ["subject", "kind", "what", "message"], rows: [...faults, ...differences, ...reasons] };
}

function serviceRow(audit: ServiceAudit, now: number): readonly string[] {
  const { state, serviceId } = audit;
  if (state === undefined) return [serviceId, "?", "?", "?", "?", ...proofCells(audit)];
  const counts = new Map<string, number>();
  for (const image of state.images.values()) {
    const status = imageStatus(image, now);
    counts.set(status, (counts.get(status) ?? 0) + 1);
  }
  const images = [...counts].map(([status, count]) => `${count} ${status}`).join(", ");
  return [
    serviceId,
    !state.upgradeable ? "no, for ever" : state.admin === ZERO_ADDRESS ? "no longer" : "yes",
    state.admin === ZERO_ADDRESS ? "none" : state.admin,
    state.upgradeable ? `${state.noticePeriod} s` : "",
    images === "" ? "none" : images,
    ...proofCells(audit),
  ];
}

function proofCells({ verdict, count, basis, faults, reasons }: Audit<unknown, unknown>): readonly string[] {
  const why = verdict === "broken" ? faults : verdict === "consistent" ? reasons : [];
  const shown = verdict === "consistent" ? "consistent, unproven" : verdict;
  const codes = [...new Set(why.map(({ code }) => code))].join(", ");
  const rests = basis === "proof" ? "storage proof" : "the endpoint's word";
  return [String(count), codes === "" ? shown : `${shown}: ${codes}`, rests];
}

function platforms({ state }: PolicyAudit): string {
  if (state === undefined) return "?";
  const allowed = [...state.platforms.values()].filter((entry) => entry.state === "allowed").length;
  return `${allowed} of ${state.platforms.size} platforms allowed`;
}

/**
 * Who did it.
 *
 * @example
 * actorOf(event); // "0x…", 20 bytes
 */
export function actorOf({ args }: ServiceEvent | PolicyEvent): Hex {
  if ("actor" in args) return args.actor;
  if ("creator" in args) return args.creator;
  return "admin" in args ? args.admin : args.previous;
}

/** Fields that have a column of their own, or are too long for one. */
const ELSEWHERE = new Set(["serviceId", "sequence", "policyVersion", "previousBlock", "actor", "creator", "image"]);
/** Fields that are seconds since 1970; 0: none. */
const TIMES = new Set(["activeFrom", "activeUntil", "previousUntil", "effectiveFrom", "until", "since", "before"]);
/** A time without an end, as the registry logs it: the greatest of 40 bits. */
const NO_BOUND = 2 ** 40 - 1;

function detailsOf(event: ServiceEvent | PolicyEvent, longest: number): string {
  const actor = actorOf(event);
  return Object.entries(event.args)
    .filter(([field, value]) => !ELSEWHERE.has(field) && !(field === "admin" && value === actor))
    .map(([field, value]) => {
      const isTime = TIMES.has(field) && typeof value === "number";
      return `${field}=${isTime ? (value === 0 || value === NO_BOUND ? "none" : isoTime(value)) : cell(value, longest)}`;
    })
    .join(" ");
}

function cell(value: string | number | boolean, longest: number): string {
  if (typeof value !== "string") return String(value);
  if (/^0x[0-9a-f]*$/.test(value)) return value.length <= 42 ? value : `${value.slice(0, 18)}…`;
  return JSON.stringify(printable(value, longest));
}

/**
 * Seconds since 1970 as people read them; the number where it is no time of any calendar.
 *
 * @example
 * isoTime(0); // "1970-01-01T00:00:00Z"
 */
export function isoTime(seconds: number): string {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? String(seconds) : date.toISOString().replace(".000Z", "Z");
}
