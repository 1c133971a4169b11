import { KMS_NODES } from "../../../src/core/decision.ts";
import type { PolicyEntry, PolicyState } from "../../../src/core/policy-state.ts";
import { ZERO_ADDRESS } from "../../../src/core/state.ts";
import { kindName, readImageBytes, tcbNames } from "../data/images.ts";
import { formatDuration, plural } from "../format.ts";
import { Badge, Fact, HexText, Party, Section, Time, Untrusted } from "../ui/bits.tsx";
import { Countdown } from "../ui/countdown.tsx";
import { Events } from "../ui/events.tsx";
import { useLoaded, useNow } from "../ui/model.ts";
import { Registers } from "../ui/registers.tsx";
import { Findings, MEANINGS, Seal } from "../ui/verdict.tsx";

/** What may run at all: TEE kinds, platforms, KMS nodes, pauses. */
export function PolicyPage() {
  const loaded = useLoaded();
  const { policy } = loaded.suite;
  const { state, verdict, count, head, entries } = policy;
  return (
    <>
      <h1>Policy</h1>
      <Seal verdict={verdict}>{MEANINGS[verdict]}</Seal>
      <Findings audit={policy} />
      <dl class="facts proof">
        <Fact name="policy version">{count}</Fact>
        <Fact name="history head">
          <HexText value={head} what="history head" />
        </Fact>
        <Fact name="contract">
          <HexText value={loaded.settings.policy} what="policy address" />
        </Fact>
      </dl>
      {state === undefined ? (
        <p class="panel bad">Nothing of a broken history is shown.</p>
      ) : (
        <>
          <Pause state={state} />
          <Kinds state={state} />
          <Entries id="platforms" title="Platforms" noun="platform" list={state.platforms} />
          <Entries id="kms" title="Images that may run as KMS nodes" noun="KMS image" list={state.kmsImages} />
          <Identities state={state} />
          <Section id="dstack" title="What dstack machines are told">
            <dl class="facts">
              <Fact name="gateway">
                <Untrusted text={state.gatewayAppId} empty="none" />
              </Fact>
              <Fact name="app implementation">
                {state.appImplementation === ZERO_ADDRESS ? (
                  <span class="muted">none</span>
                ) : (
                  <HexText value={state.appImplementation} what="app implementation" />
                )}
              </Fact>
            </dl>
          </Section>
          <Section id="events" title="Every event" note="Newest first.">
            <Events entries={entries} />
          </Section>
        </>
      )}
    </>
  );
}

function Pause({ state }: { readonly state: PolicyState }) {
  const now = useNow();
  const loaded = useLoaded();
  if (now >= state.pausedUntil) {
    return (
      <p class="answer">
        <Badge tone="ok">releases run</Badge>{" "}
        {state.pausedUntil === 0 ? (
          "There was never a pause."
        ) : (
          <>
            The latest pause ended <Time at={state.pausedUntil} />, {formatDuration(now - state.pausedUntil)} ago.
          </>
        )}
      </p>
    );
  }
  const began = loaded.suite.policy.entries.findLast(({ event }) => event?.name === "pause_release");
  const reason = began?.event?.name === "pause_release" ? began.event.args.reason : "";
  return (
    <div class="panel bad">
      <p class="lead">
        <Badge tone="bad">all releases are paused</Badge> <Untrusted text={reason} empty="no reason given" />
      </p>
      <Countdown from={began?.timestamp ?? 0} to={state.pausedUntil} what="ends by itself" over="over" />
    </div>
  );
}

function Kinds({ state }: { readonly state: PolicyState }) {
  return (
    <Section id="kinds" title="TEE kinds">
      <table class="stack">
        <caption class="hidden">What holds for each TEE kind</caption>
        <thead>
          <tr>
            <th scope="col">kind</th>
            <th scope="col">state</th>
            <th scope="col">TCB statuses accepted</th>
            <th scope="col">devices</th>
          </tr>
        </thead>
        <tbody>
          {[...new Set([1, 2, 3, 4, ...state.tees.keys()])].map((kind) => {
            const rules = state.tees.get(kind);
            const tcb = tcbNames(rules?.acceptedTcb ?? 0);
            const listed = [...(rules?.devices ?? [])].filter(([, on]) => on).map(([device]) => device);
            return (
              <tr key={kind}>
                <td data-label="kind">{kind === KMS_NODES ? "KMS nodes of any kind" : kindName(kind)}</td>
                <td data-label="state">
                  {kind === KMS_NODES ? (
                    <span class="muted">by their own kind</span>
                  ) : rules?.enabled === true ? (
                    <Badge tone="ok">enabled</Badge>
                  ) : (
                    <Badge tone="bad">not enabled</Badge>
                  )}
                </td>
                <td data-label="TCB">
                  {kind === KMS_NODES ? (
                    "UpToDate alone"
                  ) : tcb.length === 0 ? (
                    <span class="muted">none</span>
                  ) : (
                    tcb.join(", ")
                  )}
                </td>
                <td data-label="devices">
                  {rules?.devicesRestricted === true ? `only ${plural(listed.length, "listed device")}` : "any"}
                  {listed.map((device) => (
                    <HexText key={device} value={device} what="device id" />
                  ))}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Section>
  );
}

function Entries({
  id,
  title,
  noun,
  list,
}: {
  readonly id: string;
  readonly title: string;
  readonly noun: string;
  readonly list: ReadonlyMap<string, PolicyEntry>;
}) {
  const allowed = [...list.values()].filter(({ state }) => state === "allowed");
  const revoked = [...list.values()].filter(({ state }) => state === "revoked");
  return (
    <Section id={id} title={title}>
      {allowed.length === 0 ? <p class="muted">No {noun} is allowed.</p> : null}
      {allowed.map((entry) => (
        <EntryCard key={entry.id} entry={entry} noun={noun} />
      ))}
      {revoked.length === 0 ? null : (
        <details>
          <summary>{plural(revoked.length, `${noun} revoked`, `${noun}s revoked`)}</summary>
          {revoked.map((entry) => (
            <EntryCard key={entry.id} entry={entry} noun={noun} />
          ))}
        </details>
      )}
    </Section>
  );
}

function EntryCard({ entry, noun }: { readonly entry: PolicyEntry; readonly noun: string }) {
  const image = readImageBytes(entry.image);
  return (
    <article class={`card image ${entry.state === "allowed" ? "active" : "removed"}`}>
      <header>
        <Badge tone={entry.state === "allowed" ? "ok" : "bad"}>{entry.state}</Badge>{" "}
        <HexText value={entry.id} what={`${noun} id`} />{" "}
        <span class="muted">
          since <Time at={entry.since} />
        </span>
      </header>
      <p>
        <Untrusted text={entry.description} empty="no description" />
      </p>
      {entry.reason === undefined ? null : (
        <p>
          <span class="muted">revoked because</span> <Untrusted text={entry.reason} empty="no reason given" />
        </p>
      )}
      {image === undefined ? <p class="bad-text">The logged bytes are no image.</p> : <Registers image={image} />}
    </article>
  );
}

function Identities({ state }: { readonly state: PolicyState }) {
  if (state.kmsIdentities.size === 0) return null;
  return (
    <Section id="identities" title="KMS identities">
      <div class="cards">
        {[...state.kmsIdentities.values()].map((identity) => (
          <article class="card" key={identity.id}>
            <header>
              <Badge tone={identity.state === "allowed" ? "ok" : "bad"}>
                {identity.state === "allowed" ? "published" : "revoked"}
              </Badge>{" "}
              <HexText value={identity.id} what="identity id" />
            </header>
            {identity.reason === undefined ? null : (
              <p>
                <Untrusted text={identity.reason} empty="no reason given" />
              </p>
            )}
            <dl class="facts">
              <Fact name="root epoch">{identity.rootEpoch}</Fact>
              <Fact name="environment key">
                <HexText value={identity.environmentKey} what="environment key" />
              </Fact>
              <Fact name="receipts signed by">
                <Party address={identity.receiptSigner} what="receipt signer" />
              </Fact>
              <Fact name="evidence hash">
                <HexText value={identity.evidenceHash} what="evidence hash" />
              </Fact>
            </dl>
          </article>
        ))}
      </div>
    </Section>
  );
}
