import type { ComponentChildren } from "preact";
import { useContext, useState } from "preact/hooks";
import type { Hex } from "../../../src/core/bytes.ts";
import type { KeysteadError } from "../../../src/core/errors.ts";
import { printable } from "../../../src/core/printable.ts";
import { ZERO_ADDRESS } from "../../../src/core/state.ts";
import { formatTime, shortHex } from "../format.ts";
import { useAccount, useModel } from "./model.ts";
import { Printing } from "./print.ts";

/** What a colour means; a label always says it in words too. */
export type Tone = "ok" | "warn" | "bad" | "idle" | "info";

const MARKS: Readonly<Record<Tone, string>> = { ok: "✓", warn: "!", bad: "✕", idle: "–", info: "i" };

/** A status in words, with a mark and a colour. */
export function Badge({ tone, children }: { readonly tone: Tone; readonly children: ComponentChildren }) {
  return (
    <span class={`badge ${tone}`}>
      <span class="mark" aria-hidden="true">
        {MARKS[tone]}
      </span>
      {children}
    </span>
  );
}

/** Copies a text and says so. */
export function Copy({ text, what }: { readonly text: string; readonly what: string }) {
  const [done, setDone] = useState<"" | "copied" | "failed">("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone("copied");
    } catch {
      setDone("failed"); // no permission, or no secure context: the text can be selected by hand
    }
    setTimeout(() => setDone(""), 1500);
  };
  return (
    <button type="button" class="copy" onClick={copy} aria-label={`Copy ${what}`} title={`Copy ${what}`}>
      <span aria-live="polite">{done === "" ? "copy" : done}</span>
    </button>
  );
}

/** Hex in monospace: short, with the whole in its title and on the clipboard; or whole. */
export function HexText({
  value,
  what,
  whole = false,
}: {
  readonly value: string;
  readonly what: string;
  readonly whole?: boolean;
}) {
  return (
    <span class="hex">
      <code class={whole ? "whole" : undefined} title={whole ? undefined : value}>
        {whole ? value : shortHex(value)}
      </code>
      <Copy text={value} what={what} />
    </span>
  );
}

/** An address, and who is behind it where that was looked at. */
export function Party({ address, what }: { readonly address: Hex; readonly what: string }) {
  const account = useAccount(address);
  if (address === ZERO_ADDRESS) return <span class="muted">none</span>;
  return (
    <span class="party">
      {account === undefined ? <Unread /> : <AccountBadge address={address} />}
      <HexText value={address} what={what} />
    </span>
  );
}

/** Says that nobody has looked at who is behind an address: no caution beside it means nothing yet. */
function Unread() {
  const { loaded, reading } = useModel();
  if (loaded !== undefined) return null;
  return <Badge tone="idle">{reading ? "account being read" : "account not read"}</Badge>;
}

/** Who is behind an address, in a word. */
export function AccountBadge({ address }: { readonly address: Hex }) {
  const account = useAccount(address);
  if (account === undefined) return null;
  const { kind, label, caution } = account;
  const tone: Tone = kind === "safe" || kind === "timelock" ? "ok" : kind === "none" ? "idle" : "warn";
  return (
    <span title={caution === "" ? undefined : caution}>
      <Badge tone={caution !== "" && tone === "ok" ? "warn" : tone}>{label}</Badge>
    </span>
  );
}

/** Characters that are shown at once of a text from the chain. */
const SHOWN = 280;

/**
 * Text that anyone may have written: never markup; what is not seen as itself is written out as an escape; isolated from the direction of the text around
 * it; long text is cut, and opened on demand and on paper.
 */
export function Untrusted({
  text,
  empty = "no text",
  limit,
}: {
  readonly text: string;
  readonly empty?: string;
  /** Cuts the text here and offers no more of it: for lists. */
  readonly limit?: number;
}) {
  const [open, setOpen] = useState(false);
  const whole = useContext(Printing) || open;
  if (text === "") return <span class="muted">{empty}</span>;
  const length = [...text].length;
  const shown = printable(text, whole ? Number.POSITIVE_INFINITY : (limit ?? SHOWN));
  const pieces = shown.split(/(\\u\{[0-9a-f]+\})/);
  return (
    <span class="untrusted">
      <bdi>
        {pieces.map((piece, index) =>
          index % 2 === 1 ? (
            <span class="escape" key={index}>
              {piece}
            </span>
          ) : (
            piece
          ),
        )}
      </bdi>
      {limit === undefined && length > SHOWN ? (
        <button type="button" class="link" aria-expanded={open} onClick={() => setOpen(!open)}>
          {open ? "show less" : `show all ${length.toLocaleString("en")} characters`}
        </button>
      ) : null}
    </span>
  );
}

/** A moment on the chain. */
export function Time({ at }: { readonly at: number }) {
  if (at === 0) return <span class="muted">no time</span>;
  const date = new Date(at * 1000);
  const iso = Number.isNaN(date.getTime()) ? undefined : date.toISOString();
  return <time dateTime={iso}>{formatTime(at)}</time>;
}

/** A name and a value of a list of facts. */
export function Fact({ name, children }: { readonly name: string; readonly children: ComponentChildren }) {
  return (
    <div class="fact">
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** A part of a page with its heading. */
export function Section({
  id,
  title,
  note,
  children,
}: {
  readonly id: string;
  readonly title: string;
  readonly note?: ComponentChildren;
  readonly children: ComponentChildren;
}) {
  return (
    <section class="section" aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {note === undefined ? null : <p class="note">{note}</p>}
      {children}
    </section>
  );
}

/** An error: what went wrong, and what to do. */
export function ErrorBox({
  error,
  children,
}: {
  readonly error: KeysteadError;
  readonly children?: ComponentChildren;
}) {
  return (
    <div class="panel bad" role="alert">
      <p class="lead">
        <Badge tone="bad">Could not check</Badge> {printable(error.message, 500)}
      </p>
      <p>
        <strong>What to do:</strong> {printable(error.remedy, 500)}
        {error.retryable ? " Trying again later may help." : ""}
      </p>
      <p class="muted">
        <code>{error.code}</code>
      </p>
      {children}
    </div>
  );
}
