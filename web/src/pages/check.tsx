import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { KeysteadError } from "../../../src/core/errors.ts";
import type { Image } from "../../../src/core/image.ts";
import { printable } from "../../../src/core/printable.ts";
import { type CheckResult, judgeEvidence, type PlatformMatch, type ServiceMatch } from "../data/check.ts";
import { EVIDENCE_LIMIT, readEvidence } from "../data/evidence.ts";
import { KIND_NAMES } from "../data/images.ts";
import { toError } from "../data/load.ts";
import { formatTime, plural } from "../format.ts";
import { Badge, ErrorBox, HexText, Section, Untrusted } from "../ui/bits.tsx";
import { Drop } from "../ui/drop.tsx";
import { chainNow, useLink, useLoaded } from "../ui/model.ts";
import { Registers } from "../ui/registers.tsx";

/** Paste or drop evidence: which service and platform would accept it, and why not. */
export function CheckPage() {
  const loaded = useLoaded();
  const [text, setText] = useState("");
  const [answer, setAnswer] = useState<CheckResult | KeysteadError | undefined>();
  const check = (bytes: Uint8Array) => {
    try {
      setAnswer(judgeEvidence(readEvidence(bytes), loaded.suite, chainNow(loaded)));
    } catch (error) {
      setAnswer(toError(error));
    }
  };
  return (
    <>
      <h1>Check a quote</h1>
      <p class="note">
        A TDX quote, an SEV-SNP report or an AWS Nitro document (hex, base64 or binary), Nitro's PCR list, or an image's
        text form. Nothing leaves this page: what you give is read here and compared with the histories verified above.
      </p>
      <form
        class="check"
        onSubmit={(event) => {
          event.preventDefault();
          check(new TextEncoder().encode(text));
        }}
      >
        <label class="field">
          <span>Evidence</span>
          <textarea
            rows={6}
            spellcheck={false}
            autocomplete="off"
            maxLength={EVIDENCE_LIMIT * 2}
            value={text}
            placeholder="04000200810000… or tdx:mrtd=…,rtmr1=…"
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
        <div class="actions">
          <button type="submit" class="button primary">
            Check
          </button>
          <Drop label="…or choose or drop a file" limit={EVIDENCE_LIMIT} onFile={check} onError={setAnswer} />
        </div>
      </form>
      <div aria-live="polite">
        {answer === undefined ? null : answer instanceof Error ? (
          <ErrorBox error={answer} />
        ) : (
          <Answer result={answer} />
        )}
      </div>
    </>
  );
}

function Answer({ result }: { readonly result: CheckResult }) {
  const loaded = useLoaded();
  const { reading, unsafe, matches, near, platforms, unverified, incomparable } = result;
  const { block } = loaded.suite;
  const known = matches.filter(({ denial, rests }) => denial === undefined && rests !== "unknown");
  const accepted = unsafe.length === 0 ? known : [];
  const proven = accepted.every(({ rests }) => rests === "proven");
  return (
    <div class="results">
      <Section id="verdict" title="Answer">
        <div class={`panel ${accepted.length === 0 ? "bad" : proven ? "ok" : "warn"}`}>
          <p class="lead">{headline(result, accepted)}</p>
          {proven ? null : (
            <p>
              <strong>Not proven:</strong> the endpoint gives no storage proofs that hold, so this is its word alone.
              Ask one that offers eth_getProof.
            </p>
          )}
          <p>
            As of block {block.number.toLocaleString("en")}, {formatTime(block.timestamp)}.
          </p>
        </div>
        <div class="panel warn">
          <p>
            <strong>The signature was not verified here.</strong>{" "}
            {reading.source === "evidence"
              ? "These are the values that the evidence claims; anyone can write such bytes. A key-delivery node checks signatures, certificates, revocation and TCB before it releases a key."
              : "This is an image, not a machine's statement: nothing shows that a machine runs it."}
          </p>
        </div>
        {unsafe.map((message) => (
          <p key={message} class="panel bad">
            <Badge tone="bad">unsafe</Badge> {printable(message, 300)}
          </p>
        ))}
        {unverified.length === 0 ? null : (
          <p class="panel bad">
            The histories of {plural(unverified.length, "service")} do not verify: nothing is said about{" "}
            {unverified.length === 1 ? "it" : "them"}.
          </p>
        )}
        {incomparable === 0 || reading.kind === "dstack" ? null : (
          <p class="panel warn">
            {plural(incomparable, "dstack image")} could not be compared with this: what dstack measures stands in its
            event log, not in the quote alone. For dstack give the image's text form, which keystead measure makes of
            quote and log.
          </p>
        )}
      </Section>
      <Section id="matches" title="Services that list it">
        {matches.length === 0 ? <p class="muted">No service ever listed an image with these registers.</p> : null}
        {matches.map((match) => (
          <MatchCard key={`${match.serviceId} ${match.standing.imageId}`} match={match} unsafe={unsafe.length > 0} />
        ))}
      </Section>
      <Section id="platform" title="Platform">
        <Platforms platforms={platforms} near={result.nearPlatforms} verified={result.policyVerified} />
      </Section>
      {near.length === 0 ? null : (
        <Section id="near" title="Registered images that come near" note="The same in some registers, not in all.">
          {near.map(({ serviceId, imageId, description, comparison }) => (
            <details class="card" key={`${serviceId} ${imageId}`}>
              <summary>
                <Badge tone="bad">no match</Badge>{" "}
                {[
                  ...comparison.differs.map((name) => `${name} differs`),
                  ...comparison.absent.map((name) => `${name} is not in the evidence`),
                ].join(", ")}{" "}
                <Untrusted text={description} empty="no description" limit={60} />
              </summary>
              <p>
                <ServiceLink serviceId={serviceId} />
              </p>
              <Registers image={comparison.image} comparison={comparison} />
            </details>
          ))}
        </Section>
      )}
      <Section id="read" title="What was read">
        <p>
          {printable(reading.description, 100)} <span class="muted">({reading.encoding})</span>
        </p>
        {reading.findings
          .filter(({ severity }) => severity === "warning")
          .map(({ code, message }) => (
            <p key={code}>
              <Badge tone="warn">{code}</Badge> {printable(message, 300)}
            </p>
          ))}
        <Registers image={readingImage(result)} />
      </Section>
    </div>
  );
}

function headline({ reading, unsafe, matches }: CheckResult, accepted: readonly ServiceMatch[]): ComponentChildren {
  const what =
    reading.source === "evidence" ? `A machine with this ${KIND_NAMES[reading.kind]} evidence` : "This image";
  if (unsafe.length > 0) return `${what} would get no keys: no node takes unsafe evidence.`;
  if (accepted.length > 0) {
    return `${what} would be accepted by ${plural(accepted.length, "service")}, if it is genuine and its TCB and device are accepted.`;
  }
  // not accepted and not denied: one service that can't be judged keeps this from being a no
  if (matches.some(({ denial }) => denial === undefined)) {
    return `${what} can't be judged: a history holds events that this version does not know. Upgrade keystead.`;
  }
  return `${what} would get no keys: ${matches[0]?.denial?.message ?? "no service lists it"}.`;
}

/** The evidence's registers, shown as an image's. */
const readingImage = ({ reading: { kind, registers } }: CheckResult): Image => ({ kind, registers });

function ServiceLink({ serviceId }: { readonly serviceId: string }) {
  const link = useLink();
  return (
    <a href={link("service", serviceId)}>
      service <code>{serviceId}</code>
    </a>
  );
}

function MatchCard({ match, unsafe }: { readonly match: ServiceMatch; readonly unsafe: boolean }) {
  const { serviceId, description, standing, comparison, denial, open, rests } = match;
  return (
    <article class="card">
      <header>
        {unsafe ? (
          <Badge tone="bad">refused: unsafe evidence</Badge>
        ) : denial === undefined && rests === "unknown" ? (
          <Badge tone="bad">can't be judged</Badge>
        ) : denial === undefined ? (
          <Badge tone={rests === "proven" ? "ok" : "warn"}>
            {rests === "proven" ? "would be accepted" : "accepted, by the endpoint's word alone"}
          </Badge>
        ) : (
          <Badge tone="bad">{denial.decision}</Badge>
        )}{" "}
        <ServiceLink serviceId={serviceId} />
      </header>
      <p>
        <Untrusted text={description} empty="no description" />
      </p>
      {denial === undefined ? null : (
        <p>
          <strong>Why not:</strong> {printable(denial.message, 300)}.
        </p>
      )}
      <p>
        The image <HexText value={standing.imageId} what="image id" /> is {standing.status}:{" "}
        <Untrusted text={standing.description ?? ""} empty="no description" />
      </p>
      <details>
        <summary>Not decided here ({open.length})</summary>
        <ul>
          {open.map((question) => (
            <li key={question}>{question}</li>
          ))}
        </ul>
      </details>
      <details>
        <summary>All {plural(comparison.same.length, "registered register")} equal the evidence's</summary>
        <Registers image={comparison.image} comparison={comparison} />
      </details>
    </article>
  );
}

function Platforms({
  platforms,
  near,
  verified,
}: {
  readonly platforms: readonly PlatformMatch[];
  readonly near: readonly PlatformMatch[];
  readonly verified: boolean;
}) {
  if (!verified)
    return <p class="panel bad">The policy's history does not verify: no platform is known to be allowed.</p>;
  return (
    <>
      {platforms.length === 0 ? <p class="muted">The policy never listed a platform with these registers.</p> : null}
      {platforms.map((each) => (
        <PlatformCard key={each.entry.id} match={each} />
      ))}
      {platforms.length > 0 || near.length === 0 ? null : (
        <details>
          <summary>{plural(near.length, "platform")} that come near</summary>
          {near.map((each) => (
            <PlatformCard key={each.entry.id} match={each} />
          ))}
        </details>
      )}
    </>
  );
}

function PlatformCard({ match: { entry, comparison } }: { readonly match: PlatformMatch }) {
  const wrong = comparison.differs.length + comparison.absent.length > 0;
  return (
    <article class="card">
      <header>
        <Badge tone={wrong || entry.state === "revoked" ? "bad" : "ok"}>{wrong ? "no match" : entry.state}</Badge>{" "}
        <HexText value={entry.id} what="platform id" />
      </header>
      <p>
        <Untrusted text={entry.description} empty="no description" />
      </p>
      <details>
        <summary>registers</summary>
        <Registers image={comparison.image} comparison={comparison} />
      </details>
    </article>
  );
}
