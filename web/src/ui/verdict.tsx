import type { Audit, AuditFault } from "../../../src/audit/result.ts";
import type { Verdict } from "../../../src/core/history.ts";
import { printable } from "../../../src/core/printable.ts";
import { Badge, type Tone } from "./bits.tsx";

const TONES: Readonly<Record<Verdict, Tone>> = { proven: "ok", consistent: "warn", broken: "bad" };
const WORDS: Readonly<Record<Verdict, string>> = {
  proven: "Proven",
  consistent: "Consistent, not proven",
  broken: "Broken",
};

/** What each verdict means, for people. */
export const MEANINGS: Readonly<Record<Verdict, string>> = {
  proven: "Complete and unaltered up to a head that a storage proof shows, and the contract's own views say the same.",
  consistent: "Nothing is wrong, and something could not be known. The reasons are below.",
  broken: "What the endpoint shows can't be the contract's history. Believe nothing of it.",
};

/** A verdict in a word. */
export function VerdictBadge({ verdict }: { readonly verdict: Verdict }) {
  return <Badge tone={TONES[verdict]}>{WORDS[verdict]}</Badge>;
}

/** A verdict large, as a seal. */
export function Seal({ verdict, children }: { readonly verdict: Verdict; readonly children: string }) {
  return (
    <div class={`seal ${TONES[verdict]}`}>
      <svg viewBox="0 0 48 48" width="56" height="56" aria-hidden="true">
        <circle cx="24" cy="24" r="21" />
        {verdict === "proven" ? <path d="M14 25l7 7 13-15" /> : null}
        {verdict === "consistent" ? <path d="M13 26c3-5 7-5 11-1s8 4 11-1" /> : null}
        {verdict === "broken" ? <path d="M16 16l16 16M32 16L16 32" /> : null}
      </svg>
      <div>
        <p class="verdict">{WORDS[verdict]}</p>
        <p>{children}</p>
      </div>
    </div>
  );
}

/** Everything that is wrong or not known about a history. */
export function Findings({ audit }: { readonly audit: Audit<unknown, unknown> }) {
  const { faults, differences, reasons } = audit;
  if (faults.length + differences.length + reasons.length === 0) return null;
  return (
    <ul class="findings">
      <FaultItems faults={faults} />
      {differences.map(({ what, rebuilt, contract }) => (
        <li key={what}>
          <Badge tone="bad">differs: {what}</Badge> the history says {printable(rebuilt, 200)}, the contract says{" "}
          {printable(contract, 200)}
        </li>
      ))}
      {reasons.map(({ code, message }) => (
        <li key={`${code} ${message}`}>
          <Badge tone="warn">not proven: {code}</Badge> {printable(message, 400)}
        </li>
      ))}
    </ul>
  );
}

/** Everything that is wrong about something that is no history. */
export function FaultList({ faults }: { readonly faults: readonly AuditFault[] }) {
  return (
    <ul class="findings">
      <FaultItems faults={faults} />
    </ul>
  );
}

function FaultItems({ faults }: { readonly faults: readonly AuditFault[] }) {
  return (
    <>
      {faults.map(({ code, message }) => (
        <li key={`${code} ${message}`}>
          <Badge tone="bad">broken: {code}</Badge> {printable(message, 400)}
        </li>
      ))}
    </>
  );
}
