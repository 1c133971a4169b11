import { isJsonArray, isJsonObject, type JsonObject, type JsonValue } from "../core/json.ts";
import type { Page, Section } from "./html.ts";
import { isoTime } from "./table.ts";

/* The page for people, made of the same answer that programs get: what one shows, the other says. */

/**
 * The page of an answer with status 200.
 *
 * @example
 * await renderPage(updatesPage(describeUpdates(audit, state)));
 */
export function updatesPage(body: JsonObject): Page {
  const title = "What may run on this machine";
  const { proof, service_id } = body;
  if (!isJsonObject(proof)) {
    const summary = `${text(body.message)}: it belongs to no service.`;
    return { title, tone: "good", summary, sections: [] };
  }
  const verified = proof.verified === true;
  const basis = verified
    ? `The history below is complete and unaltered: proven at block ${text(proof.block)}.`
    : "NOT VERIFIED: the history below rests on the endpoint's word.";
  const sections: Section[] = [];
  if (!verified) sections.push(reasonsOf(proof));
  sections.push(
    {
      title: "Service",
      table: {
        head: ["what", "value"],
        rows: [
          ["service", text(service_id)],
          ["description", text(body.description)],
          ["upgradeable", changesOf(body)],
          ["admin", text(body.admin ?? "none")],
          ["notice period", body.upgradeable === true ? `${text(body.notice_period)} s` : "none: nothing can be added"],
          ["key epoch", text(body.key_epoch)],
          ["read at", `block ${text(proof.block)}, ${time(proof.block_timestamp)}`],
          ["history head", text(proof.history_head)],
        ],
      },
    },
    imagesOf(body.images),
    historyOf(body.history),
  );
  return { title, tone: verified ? "good" : "unsure", summary: `${changesOf(body)}. ${basis}`, sections };
}

/**
 * The page of an answer with any other status.
 *
 * @example
 * await renderPage(failurePage(body));
 */
export function failurePage(body: JsonObject): Page {
  const { proof, last_verified: last } = body;
  const sections = isJsonObject(proof) ? [reasonsOf(proof)] : [];
  if (isJsonObject(last)) {
    const known = updatesPage(last).sections.map((section) => ({
      ...section,
      title: `Known before: ${section.title}`,
    }));
    sections.push(...known);
  }
  const tone = "bad";
  return { title: "What may run on this machine", tone, summary: `NOT VERIFIED: ${text(body.error)}.`, sections };
}

function changesOf({ upgradeable, final, message }: JsonObject): string {
  if (upgradeable !== true) return `${text(message)}: its one image can never be replaced`;
  return final === true ? "No further image can ever be added" : "The admin can add images";
}

function reasonsOf({ reasons }: JsonObject): Section {
  const rows = objects(reasons).map(({ code, message }) => [text(code), text(message)]);
  return { title: "Why it is not verified", table: { head: ["code", "reason"], rows } };
}

function imagesOf(images: JsonValue | undefined): Section {
  const rows = objects(images).map((image) => {
    const registers = isJsonObject(image.registers) ? Object.entries(image.registers) : [];
    const open = isJsonArray(image.matches_anything) ? image.matches_anything.map(text).join(", ") : "";
    const removed = image.removed_because === null ? "" : ` (${text(image.removed_because)})`;
    return [
      `${text(image.state)}${removed}`,
      text(image.kind),
      text(image.description),
      registers.map(([name, value]) => `${name} ${text(value)}`).join(", "),
      open === "" ? "none" : open,
      time(image.active_from),
      image.active_until === null ? "" : time(image.active_until),
    ];
  });
  const head = ["state", "kind", "description", "registers", "matches anything in", "may have keys from", "until"];
  const lines = rows.length === 0 ? ["No image was ever listed."] : [];
  return { title: "Images, removed and pending ones too", lines, table: { head, rows } };
}

function historyOf(history: JsonValue | undefined): Section {
  const own = ["event", "service_id", "actor", "sequence", "timestamp", "block", "transaction"];
  const rows = objects(history).map((entry) => {
    const rest = Object.entries(entry).filter(([name]) => !own.includes(name));
    const details = rest.map(([name, value]) => `${name}=${text(value)}`).join(" ");
    const place = `${text(entry.block)} ${text(entry.transaction)}`;
    return [text(entry.sequence), time(entry.timestamp), text(entry.event), text(entry.actor), details, place];
  });
  const head = ["#", "time (UTC)", "event", "by", "details", "block and transaction"];
  return { title: "History", table: { head, rows } };
}

function objects(value: JsonValue | undefined): readonly JsonObject[] {
  return isJsonArray(value) ? value.filter(isJsonObject) : [];
}

function time(value: JsonValue | undefined): string {
  return typeof value === "number" ? isoTime(value) : "";
}

function text(value: JsonValue | undefined): string {
  if (value === undefined || value === null) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
