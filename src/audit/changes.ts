import type { Block } from "../chain/block.ts";
import type { Hex } from "../core/bytes.ts";
import type { PolicyEvent, ServiceEvent } from "../core/events.ts";
import { EMPTY_HEAD, foldAll } from "../core/history.ts";
import type { PolicyState } from "../core/policy-state.ts";
import { imageStatus, type ServiceState, viewService } from "../core/state.ts";
import type { Inspection } from "./inspect.ts";
import type { Audit } from "./result.ts";
import { isoTime, timelineTable } from "./table.ts";

/**
 * One thing that is not as it was.
 *
 * `event` something new in a history · `verdict` · `status` an image changed by time alone: it became active, or its grace ended · `rule` a rule of a
 * service or the policy's pause changed by time alone · `new-service` · `gone-service` no log of it is there any more · `rewritten` events that were
 * verified are no longer in the history: the chain was reorganised, or something is very wrong · `code` a proxy runs other code
 */
export interface Change {
  readonly kind: "event" | "verdict" | "status" | "rule" | "new-service" | "gone-service" | "rewritten" | "code";
  /** `policy`, `registry`, or a service's id. */
  readonly subject: string;
  /** One line; text from the chain in it is printable. */
  readonly message: string;
  /** The event's name, number, block and transaction, for `event`. */
  readonly event?:
    | { readonly name: string; readonly sequence: number; readonly block: number; readonly transaction: Hex }
    | undefined;
}

/**
 * What changed between two inspections of the same subjects.
 *
 * @example
 * for (const { subject, message } of compareInspections(before, after)) console.log(subject, message);
 */
export function compareInspections(before: Inspection, after: Inspection): readonly Change[] {
  const changes: Change[] = [];
  if (before.policy !== undefined && after.policy !== undefined) {
    changes.push(...compareAudits("policy", before.policy, after.policy));
    changes.push(...comparePause(before.policy.state, after.policy.state, before.block, after.block));
  }
  const known = new Map(before.services.map((audit) => [audit.serviceId, audit]));
  for (const audit of after.services) {
    const old = known.get(audit.serviceId);
    known.delete(audit.serviceId);
    if (old === undefined) {
      const message = `a new service, whose history is ${audit.verdict}`;
      changes.push({ kind: "new-service", subject: audit.serviceId, message }, ...eventsOf(audit.serviceId, audit, 0));
    } else {
      changes.push(...compareAudits(audit.serviceId, old, audit));
      changes.push(...compareByTime(audit.serviceId, old.state, audit.state, before.block, after.block));
    }
  }
  for (const subject of known.keys()) {
    changes.push({ kind: "gone-service", subject, message: "the endpoint has no log of it any more" });
  }
  for (const name of ["registry", "policy"] as const) {
    const [old, now] = [before.code?.[name], after.code?.[name]];
    if (old === undefined || now === undefined) continue;
    if (old.implementation === now.implementation && old.codeHash === now.codeHash) continue;
    const message = `runs ${now.implementation} with code ${now.codeHash}, and no longer ${old.implementation} with ${old.codeHash}`;
    changes.push({ kind: "code", subject: name, message });
  }
  return changes;
}

function compareAudits(
  subject: string,
  before: Audit<unknown, ServiceEvent | PolicyEvent>,
  after: Audit<unknown, ServiceEvent | PolicyEvent>,
): readonly Change[] {
  const changes: Change[] = [];
  if (before.verdict !== after.verdict) {
    const why = [...after.faults, ...after.reasons].map(({ code }) => code);
    const message = `was ${before.verdict} and is ${after.verdict}${why.length === 0 ? "" : `: ${[...new Set(why)].join(", ")}`}`;
    changes.push({ kind: "verdict", subject, message });
  }
  // Of a broken history nothing is known, so nothing about it can be compared.
  if (before.verdict === "broken" || after.verdict === "broken") return changes;
  const kept = after.entries.slice(0, before.count).map(({ log }) => log);
  if (foldAll(kept, EMPTY_HEAD) === before.head) return [...changes, ...eventsOf(subject, after, before.count)];
  const message = `events that were there are not: the head after ${before.count} events was ${before.head}`;
  return [...changes, { kind: "rewritten", subject, message }, ...eventsOf(subject, after, 0)];
}

function eventsOf(
  subject: string,
  { entries }: Audit<unknown, ServiceEvent | PolicyEvent>,
  from: number,
): readonly Change[] {
  const fresh = entries.slice(from);
  const { rows } = timelineTable(fresh, 600);
  return fresh.map(({ sequence, log, event }, index): Change => {
    const [, time, , name = "", by = "", details = ""] = rows[index] ?? [];
    return {
      kind: "event",
      subject,
      message: `${time} ${name} by ${by} ${details}`.trimEnd(),
      event: { name: event?.name ?? "unknown", sequence, block: log.blockNumber, transaction: log.transactionHash },
    };
  });
}

/** What time alone did. What an event did is told by the event. */
function compareByTime(
  subject: string,
  before: ServiceState | undefined,
  after: ServiceState | undefined,
  { timestamp: from }: Block,
  { timestamp: to }: Block,
): readonly Change[] {
  if (before === undefined || after === undefined) return [];
  const changes: Change[] = [];
  for (const image of after.images.values()) {
    const known = before.images.get(image.imageId);
    if (known === undefined || known.listing !== image.listing || known.listedBy !== image.listedBy) continue;
    const [was, is] = [imageStatus(image, from), imageStatus(image, to)];
    if (was !== is)
      changes.push({ kind: "status", subject, message: `image ${image.imageId} was ${was} and is ${is}` });
  }
  const [was, is] = [viewService(after, from), viewService(after, to)];
  if (was.guardian !== is.guardian) {
    changes.push({ kind: "rule", subject, message: `guardian ${is.guardian} has taken the place of ${was.guardian}` });
  }
  if (was.requireUpToDateTcb && !is.requireUpToDateTcb) {
    changes.push({ kind: "rule", subject, message: "an up-to-date TCB is no longer required" });
  }
  return changes;
}

function comparePause(
  before: PolicyState | undefined,
  after: PolicyState | undefined,
  { timestamp: from }: Block,
  { timestamp: to }: Block,
): readonly Change[] {
  if (before === undefined || after === undefined || before.pausedUntil !== after.pausedUntil) return [];
  const { pausedUntil } = after;
  if (pausedUntil <= from || pausedUntil > to) return [];
  const message = `the pause of key release ended by itself at ${isoTime(pausedUntil)}`;
  return [{ kind: "rule", subject: "policy", message }];
}
