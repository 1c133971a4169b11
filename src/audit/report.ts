import type { Hex } from "../core/bytes.ts";
import type { PolicyEvent, ServiceEvent } from "../core/events.ts";
import type { PolicyState } from "../core/policy-state.ts";
import { printable } from "../core/printable.ts";
import {
  imageStatus,
  pendingSecrets,
  type SealedSecrets,
  type ServiceState,
  secretsAt,
  type TimedEntry,
  viewService,
  ZERO_ADDRESS,
} from "../core/state.ts";
import type { Page, Section, Tone } from "./html.ts";
import { imageOf, omittedRegisters } from "./image-text.ts";
import type { Inspection } from "./inspect.ts";
import type { Audit, PolicyAudit, ServiceAudit } from "./result.ts";
import { auditTable, findingsTable, isoTime, timelineTable } from "./table.ts";

/** The events that a report shows: from a block, or from a time on. What is verified is the whole history in any case. */
export type Since = { readonly block: number } | { readonly timestamp: number };

/** What a report holds. */
export interface ReportOptions {
  readonly since?: Since | undefined;
  /** Whether each subject has a chapter of its own, with its timeline. */
  readonly chapters: boolean;
  /** The most characters of a text from the chain. */
  readonly longest?: number | undefined;
}

/**
 * An inspection as a report: a table of everything, what is wrong or not known, and chapters with state and timeline.
 *
 * @example
 * await renderPage(auditReport(await inspect(client, subjects), { chapters: true }));
 */
export function auditReport(inspection: Inspection, options: ReportOptions): Page {
  const { chainId, block, verdict, policy, services, code } = inspection;
  const sections: Section[] = [{ title: "Overview", table: auditTable(inspection) }];
  const findings = findingsOf(inspection);
  if (findings.length !== 0) {
    sections.push({ title: "Findings", table: { head: ["subject", "kind", "what", "message"], rows: findings } });
  }
  if (code !== undefined) {
    const rows = Object.entries(code).map(([name, { address, implementation, codeHash, basis }]) => [
      name,
      address,
      implementation,
      codeHash,
      basis === "proof" ? "storage proof" : "the endpoint's word",
    ]);
    const head = ["proxy", "address", "implementation", "its code's hash", "rests on"];
    sections.push({ title: "Code behind the proxies", table: { head, rows } });
  }
  if (options.chapters) {
    if (policy !== undefined) sections.push(...policyChapter(policy, options));
    for (const service of services) sections.push(...serviceChapter(service, options));
  }
  sections.push({ title: "On the endpoint's word", lines: endpointsWord(inspection) });
  return {
    title: `Audit of chain ${chainId} at block ${block.number}`,
    tone: TONES[verdict],
    summary: `${SENTENCES[verdict]} (${isoTime(block.timestamp)}, ${block.hash})`,
    sections,
  };
}

const TONES: Readonly<Record<Inspection["verdict"], Tone>> = { proven: "good", consistent: "unsure", broken: "bad" };
const SENTENCES: Readonly<Record<Inspection["verdict"], string>> = {
  proven: "PROVEN: every history below is complete and unaltered, and the contracts' state is what it says.",
  consistent: "NOT PROVEN: nothing is wrong, and something could not be known. See the findings.",
  broken: "BROKEN: do not believe this endpoint or this contract. See the findings.",
};

/**
 * Everything that is wrong or not known, as rows of subject, kind, what and message.
 *
 * @example
 * for (const row of findingsOf(inspection)) console.error(row.join("  "));
 */
export function findingsOf({ policy, services, code, set, unaccounted }: Inspection): readonly (readonly string[])[] {
  const rows: (readonly string[])[] = [];
  if (policy !== undefined) rows.push(...findingsTable("policy", policy).rows);
  for (const audit of services) rows.push(...findingsTable(audit.serviceId, audit).rows);
  for (const [name, { faults, basis }] of Object.entries(code ?? {})) {
    for (const { code, message } of faults) rows.push([`${name}'s code`, "broken", code, printable(message, 400)]);
    if (faults.length === 0 && basis !== "proof")
      rows.push([
        `${name}'s code`,
        "not proven",
        "no-storage-proof",
        "which code it runs rests on the endpoint's word",
      ]);
  }
  for (const { code, message } of set?.faults ?? [])
    rows.push(["set of services", "broken", code, printable(message, 400)]);
  for (const { code, message } of set?.reasons ?? [])
    rows.push(["set of services", "not proven", code, printable(message, 400)]);
  for (const { blockNumber, transactionHash } of unaccounted) {
    rows.push([
      "registry",
      "not proven",
      "unknown-log",
      `a log about no service in block ${blockNumber}, ${transactionHash}`,
    ]);
  }
  return rows;
}

/**
 * Entries from a block or a time on.
 *
 * @example
 * entriesSince(audit.entries, { block: 17 });
 */
export function entriesSince<E>(entries: readonly TimedEntry<E>[], since: Since | undefined): readonly TimedEntry<E>[] {
  if (since === undefined) return entries;
  return entries.filter(({ log, timestamp }) =>
    "block" in since ? log.blockNumber >= since.block : timestamp >= since.timestamp,
  );
}

/**
 * A service's state as rows of what and value, at the time of the audit's block.
 *
 * @example
 * serviceFacts(state, audit.block.timestamp);
 */
export function serviceFacts(state: ServiceState, now: number): readonly (readonly string[])[] {
  const view = viewService(state, now);
  const who = (account: Hex) => (account === ZERO_ADDRESS ? "none" : account);
  const rows = [
    ["description", printable(state.description)],
    ["upgradeable", upgradeability(state)],
    ["admin", who(state.admin)],
    ["creator", state.creator],
  ];
  if (view.pendingAdmin !== ZERO_ADDRESS) rows.push(["admin to be", `${view.pendingAdmin}, who has not accepted yet`]);
  if (state.upgradeable) {
    rows.push(["who can veto", view.guardian === ZERO_ADDRESS ? "the admin alone" : `guardian ${view.guardian}`]);
    if (view.nextGuardianFrom !== 0) {
      rows.push(["guardian to be", `${who(view.nextGuardian)} from ${isoTime(view.nextGuardianFrom)}`]);
    }
    if (view.formerGuardian !== ZERO_ADDRESS) {
      const until = isoTime(view.formerGuardianUntil);
      rows.push(["former guardian", `${view.formerGuardian}, who can veto what was announced before, until ${until}`]);
    }
    rows.push(["notice period", `${state.noticePeriod} s`]);
  }
  rows.push(["key epoch", String(state.keyEpoch)]);
  const ends = view.tcbRuleEnds === 0 ? "" : ` until ${isoTime(view.tcbRuleEnds)}`;
  rows.push(["up-to-date TCB", view.requireUpToDateTcb ? `required${ends}` : "as the policy says"]);
  const devices = [...state.devices.values()].filter((from) => from !== 0).length;
  rows.push(["devices", state.restrictDevices ? `${devices} listed, no others${freeImages(state)}` : "any"]);
  const named = ({ name }: SealedSecrets) => JSON.stringify(printable(name, 80));
  const names = [...secretsAt(state, now).values()].map(named);
  if (names.length !== 0) rows.push(["sealed secrets", names.join(", ")]);
  for (const pending of pendingSecrets(state, now)) {
    rows.push(["sealed secrets to be", `${named(pending)} from ${isoTime(pending.effectiveFrom)}`]);
  }
  return rows;
}

/** Images listed before a service's list of devices was started are not bound to it. */
function freeImages({ images }: ServiceState): string {
  const free = [...images.values()].filter((image) => image.listing === "listed" && !image.restrictsDevices).length;
  return free === 0 ? "" : `; any device for the ${free} images listed before the list was started`;
}

function upgradeability({ upgradeable, admin }: ServiceState): string {
  if (!upgradeable) return "no, for ever: exactly one image";
  return admin === ZERO_ADDRESS ? "no longer: the admin has renounced" : "yes";
}

/**
 * A service's images as a table, pending and removed ones too.
 *
 * @param now seconds since 1970
 * @example
 * serviceImages(state, audit.block.timestamp).rows;
 */
export function serviceImages(state: ServiceState, now: number, longest = 80) {
  const rows = [...state.images.values()].map((listed) => {
    const image = imageOf(listed.image);
    const reason = listed.reason === undefined ? "" : ` (removed: ${printable(listed.reason, longest)})`;
    return [
      imageStatus(listed, now),
      image?.kind ?? "unknown",
      listed.imageId,
      isoTime(listed.activeFrom),
      listed.activeUntil === 0 ? "" : isoTime(listed.activeUntil),
      image === undefined ? "?" : omittedRegisters(image).join(", "),
      `${printable(listed.description, longest)}${reason}`,
    ];
  });
  return { head: ["state", "kind", "image", "from", "until", "matches anything in", "description"], rows };
}

function serviceChapter(audit: ServiceAudit, { since, longest }: ReportOptions): readonly Section[] {
  const { serviceId, state, block } = audit;
  if (state === undefined) {
    const lines = ["Nothing is shown of a history that does not verify."];
    return [{ title: `Service ${serviceId}`, lines }];
  }
  const now = block.timestamp;
  return [
    { title: `Service ${serviceId}`, table: { head: ["what", "value"], rows: serviceFacts(state, now) } },
    { title: "Its images", table: serviceImages(state, now, longest) },
    timeline(audit, since, longest),
  ];
}

function policyChapter(audit: PolicyAudit, { since, longest }: ReportOptions): readonly Section[] {
  if (audit.state === undefined) {
    return [{ title: "Policy", lines: ["Nothing is shown of a history that does not verify."] }];
  }
  const rows = policyFacts(audit.state, audit.block.timestamp);
  return [{ title: "Policy", table: { head: ["what", "value"], rows } }, timeline(audit, since, longest)];
}

function policyFacts(state: PolicyState, now: number): readonly (readonly string[])[] {
  const listed = (entries: PolicyState["platforms"]) =>
    `${[...entries.values()].filter((entry) => entry.state === "allowed").length} of ${entries.size}`;
  const kinds = [...state.tees].filter(([, { enabled }]) => enabled).map(([kind]) => kind);
  const nodes = [...state.kmsIdentities.values()].filter((each) => each.state === "allowed").length;
  return [
    ["key release", state.pausedUntil > now ? `PAUSED until ${isoTime(state.pausedUntil)}` : "not paused"],
    ["TEE kinds enabled", kinds.length === 0 ? "none" : kinds.join(", ")],
    ["platforms allowed", listed(state.platforms)],
    ["KMS images allowed", listed(state.kmsImages)],
    ["KMS identities", `${nodes} of ${state.kmsIdentities.size}`],
    ["policy version", String(state.policyVersion)],
  ];
}

function timeline(
  { entries, verdict, count }: Audit<unknown, ServiceEvent | PolicyEvent>,
  since: Since | undefined,
  longest: number | undefined,
): Section {
  const shown = entriesSince(entries, since);
  const left = entries.length - shown.length;
  const lines = left === 0 ? [] : [`${left} earlier events were verified and are not shown.`];
  const proof = verdict === "proven" ? "proven" : "NOT PROVEN";
  return { title: `Its history, ${count} events, ${proof}`, lines, table: timelineTable(shown, longest) };
}

/** What no proof covers, one sentence each. */
function endpointsWord({ block, chainId, set }: Inspection): readonly string[] {
  const words = [
    `That block ${block.number} is one of chain ${chainId}, and how new it is: whoever names its hash.`,
    "The times of events.",
    "That the contracts' views say what the histories say: an endpoint can hide a difference, not make a false history.",
  ];
  if (set?.verdict === "consistent") words.push("That no whole service was withheld: the endpoint offers no proof.");
  return words;
}
