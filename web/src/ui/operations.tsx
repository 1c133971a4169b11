import type { CallView, Lane } from "../data/calls.ts";
import { readCall } from "../data/calls.ts";
import type { Governance } from "../data/governance.ts";
import type { OperationStatus, TimelockEntry } from "../data/operations.ts";
import { Badge, HexText, Party, Time, type Tone, Untrusted } from "./bits.tsx";
import { Countdown } from "./countdown.tsx";
import { useLoaded } from "./model.ts";
import { Registers } from "./registers.tsx";

const STATUS: Readonly<Record<OperationStatus, readonly [Tone, string]>> = {
  pending: ["warn", "pending"],
  ready: ["warn", "may be executed now"],
  expired: ["idle", "expired"],
  done: ["idle", "executed"],
  cancelled: ["idle", "cancelled"],
};

const LANES: Readonly<Record<Lane, readonly [Tone, string]>> = {
  loosens: ["warn", "loosens"],
  tightens: ["ok", "tightens"],
  upgrade: ["bad", "replaces code"],
  roles: ["bad", "changes who governs"],
  neither: ["idle", "neither loosens nor tightens"],
  unknown: ["bad", "not understood"],
};

/** One timelock operation: what it will do, when, and who can stop it. */
export function Operation({
  operation,
  governance,
}: {
  readonly operation: TimelockEntry;
  readonly governance: Governance;
}) {
  const loaded = useLoaded();
  const { settings } = loaded;
  const { id, status, scheduledAt, readyAt, expiresAt, endedAt, genuine, disputed, transaction } = operation;
  const { predecessor, dismissal } = operation;
  const calls = operation.calls.map((call) => readCall(call, { ...settings, timelock: governance.timelock }));
  const holdersOf = (name: string) =>
    governance.roles.find(({ contract, role }) => contract === "timelock" && role === name)?.holders ?? [];
  const proposers = holdersOf("PROPOSER_ROLE");
  const cancellers = holdersOf("CANCELLER_ROLE").filter(
    (holder) => dismissal === undefined || (proposers.includes(holder) && holder !== dismissal.outgoing.toLowerCase()),
  );
  const [tone, word] = STATUS[status];
  const open = status === "pending" || status === "ready";
  return (
    <article class="card operation">
      <header>
        <Badge tone={tone}>{word}</Badge>
        {genuine ? null : <Badge tone="bad">the calls do not hash to the id</Badge>}
        {disputed ? <Badge tone="bad">the timelock says otherwise</Badge> : null}
        <span class="muted">operation</span> <HexText value={id} what="operation id" />
      </header>
      {dismissal === undefined ? null : (
        <p>
          It takes the guardian's offices from <HexText value={dismissal.outgoing} what="outgoing guardian" />
          {dismissal.incoming === undefined ? "" : " and gives them to "}
          {dismissal.incoming === undefined ? null : <HexText value={dismissal.incoming} what="incoming guardian" />}:
          the outgoing guardian cannot cancel it.
        </p>
      )}
      {status === "ready" && expiresAt !== 0 ? (
        <Countdown from={readyAt} to={expiresAt} what="expires" over="expired" />
      ) : open ? (
        <Countdown from={scheduledAt} to={readyAt} what="may be executed" over="may be executed now" />
      ) : status === "expired" ? (
        <p class="muted">
          expired on <Time at={expiresAt} />: it has to be scheduled again
        </p>
      ) : (
        <p class="muted">
          {word} <Time at={endedAt} />
        </p>
      )}
      <ol class="calls">
        {calls.map((call, index) => (
          <Call key={index} call={call} />
        ))}
      </ol>
      <dl class="facts">
        <div class="fact">
          <dt>scheduled</dt>
          <dd>
            <Time at={scheduledAt} /> <HexText value={transaction} what="transaction" />
          </dd>
        </div>
        {BigInt(predecessor) === 0n ? null : (
          <div class="fact">
            <dt>only after operation</dt>
            <dd>
              <HexText value={predecessor} what="predecessor" />
            </dd>
          </div>
        )}
        {open ? (
          <div class="fact">
            <dt>can be cancelled by</dt>
            <dd>
              {cancellers.length === 0 ? <span class="bad-text">nobody</span> : null}
              {cancellers.map((holder) => (
                <Party key={holder} address={holder} what="canceller" />
              ))}
            </dd>
          </div>
        ) : null}
      </dl>
    </article>
  );
}

function Call({ call }: { readonly call: CallView }) {
  const [tone, word] = LANES[call.lane];
  return (
    <li>
      <p>
        <Badge tone={tone}>{word}</Badge>{" "}
        {call.name === undefined ? (
          <>
            a call that is not understood here, to <HexText value={call.target} what="target" />
          </>
        ) : (
          <>
            <strong>{call.name.replaceAll(/([A-Z])/g, " $1").toLowerCase()}</strong>{" "}
            <span class="muted">on the {call.contract}</span>
          </>
        )}
        {call.value > 0n ? ` with ${call.value} wei` : ""}
      </p>
      {call.dangers
        .filter(({ severity }) => severity === "unsafe")
        .map(({ code, message }) => (
          <p key={code}>
            <Badge tone="bad">danger</Badge> {message}
          </p>
        ))}
      {call.name === undefined ? (
        <HexText value={call.data} what="calldata" />
      ) : (
        <dl class="arguments">
          {call.arguments.map(({ name, text, image }) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                {image !== undefined ? (
                  <Registers image={image} />
                ) : /^0x[0-9a-f]{40,}$/i.test(text) ? (
                  <HexText value={text} what={name} />
                ) : (
                  <Untrusted text={text} />
                )}
              </dd>
            </div>
          ))}
        </dl>
      )}
    </li>
  );
}
