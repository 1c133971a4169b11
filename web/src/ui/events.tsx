import { fromHex, type Hex } from "../../../src/core/bytes.ts";
import type { PolicyEvent, ServiceEvent } from "../../../src/core/events.ts";
import { imageId as idOf } from "../../../src/core/image.ts";
import type { TimedEntry } from "../../../src/core/state.ts";
import { kindName, readImageBytes, tcbNames } from "../data/images.ts";
import { formatDuration, plural } from "../format.ts";
import { HexText, Party, Time, type Tone, Untrusted } from "./bits.tsx";
import { Fold, More } from "./more.tsx";
import { Registers } from "./registers.tsx";

type AnyEvent = ServiceEvent | PolicyEvent;

/** Which way an event moves what is trusted. */
const TONES: readonly (readonly [pattern: RegExp, tone: Tone, word: string])[] = [
  [/^(add_image|allow|enable|accept_tcb|unrestrict|publish_kms|resume|extend_pause)/, "warn", "loosens"],
  [/^(remove|retire|revoke|suspend|reject|restrict|pause|extend_notice)/, "ok", "tightens"],
];

/** Events that are shown before the rest is asked for. */
const FIRST = 50;

/** A verified history, newest first: what happened, by whom, when, in which transaction. */
export function Events({ entries }: { readonly entries: readonly TimedEntry<AnyEvent>[] }) {
  const newest = [...entries].reverse();
  return (
    <More items={newest} first={FIRST} what="older event">
      {(shown) => (
        <ol class="events" reversed start={entries.at(-1)?.sequence ?? 0}>
          {shown.map((entry) => (
            <EventItem key={entry.sequence} entry={entry} />
          ))}
        </ol>
      )}
    </More>
  );
}

function EventItem({ entry }: { readonly entry: TimedEntry<AnyEvent> }) {
  const { sequence, timestamp, event, log } = entry;
  const [, tone, word] = TONES.find(([pattern]) => pattern.test(event?.name ?? "")) ?? [undefined, "idle", ""];
  return (
    <li class={`entry ${tone}`} value={sequence}>
      <div class="entry-head">
        <span class="number">{sequence}</span>
        <strong>{event === undefined ? "unknown event" : event.name.replaceAll("_", " ")}</strong>
        {word === "" ? null : <span class={`lane-word ${tone}`}>{word}</span>}
        <span class="when">
          <Time at={timestamp} /> · block {log.blockNumber.toLocaleString("en")}
        </span>
      </div>
      <dl class="arguments">
        {event === undefined ? (
          <Argument name="topic" value={log.topics[0] ?? ""} />
        ) : (
          Object.entries(event.args)
            .filter(([name]) => !HIDDEN.has(name))
            .map(([name, value]) => <Argument key={name} name={name} value={value} />)
        )}
        <Argument name="transaction" value={log.transactionHash} />
      </dl>
    </li>
  );
}

/** Fields that stand elsewhere in the line. */
const HIDDEN = new Set(["serviceId", "sequence", "policyVersion", "previousBlock"]);
const PARTIES = new Set(["actor", "creator", "admin", "guardian", "pendingAdmin", "previousPending", "receiptSigner"]);
const TEXTS = new Set(["description", "reason", "name", "gatewayAppId"]);
const MOMENTS = new Set(["activeFrom", "activeUntil", "previousUntil", "effectiveFrom", "until"]);

function Argument({ name, value }: { readonly name: string; readonly value: string | number | boolean }) {
  return (
    <div>
      <dt>{name.replaceAll(/([A-Z])/g, " $1").toLowerCase()}</dt>
      <dd>{argumentValue(name, value)}</dd>
    </div>
  );
}

function argumentValue(name: string, value: string | number | boolean) {
  if (TEXTS.has(name)) return <Untrusted text={String(value)} />;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") {
    if (MOMENTS.has(name)) return <Time at={value} />;
    if (name === "noticePeriod") return formatDuration(value);
    if (name === "kind") return kindName(value);
    if (name === "accepted") return tcbNames(value).join(", ") || "none";
    return String(value);
  }
  if (PARTIES.has(name)) return <Party address={value as Hex} what={name} />;
  if (name === "image") return <LoggedImage bytes={value as Hex} />;
  if (name === "ciphertext") return `${plural(value.length / 2 - 1, "byte")}, sealed`;
  return value.startsWith("0x") ? <HexText value={value} what={name} /> : <Untrusted text={value} />;
}

function LoggedImage({ bytes }: { readonly bytes: Hex }) {
  const image = readImageBytes(bytes);
  if (image === undefined) return <HexText value={bytes} what="image" />;
  return (
    <Fold summary={`registers of ${idOf(fromHex(bytes, "image")).slice(0, 10)}…`}>
      {() => <Registers image={image} />}
    </Fold>
  );
}
