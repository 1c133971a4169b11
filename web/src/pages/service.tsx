import { useEffect, useState } from "preact/hooks";
import type { ProxyCode } from "../../../src/audit/proxy.ts";
import type { ServiceAudit } from "../../../src/audit/result.ts";
import { auditService } from "../../../src/audit/walk.ts";
import type { Hex } from "../../../src/core/bytes.ts";
import { KeysteadError } from "../../../src/core/errors.ts";
import type { Image } from "../../../src/core/image.ts";
import {
  type ImageStatus,
  imageStatus,
  pendingSecrets,
  type ServiceImage,
  secretsAt,
  viewService,
  ZERO_ADDRESS,
} from "../../../src/core/state.ts";
import { compareRegisters } from "../data/check.ts";
import { readImageBytes } from "../data/images.ts";
import { toError } from "../data/load.ts";
import { formatDuration, plural } from "../format.ts";
import { Badge, ErrorBox, Fact, HexText, Party, Section, Time, type Tone, Untrusted } from "../ui/bits.tsx";
import { Countdown } from "../ui/countdown.tsx";
import { Events } from "../ui/events.tsx";
import { useAccount, useLink, useLoaded, useModel, useNow } from "../ui/model.ts";
import { Fold, More } from "../ui/more.tsx";
import { Registers } from "../ui/registers.tsx";
import { Timeline } from "../ui/timeline.tsx";
import { FaultList, Findings, MEANINGS, Seal } from "../ui/verdict.tsx";
import { Changeable } from "./services.tsx";

const TONES: Readonly<Record<ImageStatus, Tone>> = {
  pending: "warn",
  active: "ok",
  retiring: "warn",
  retired: "idle",
  removed: "bad",
};
/** What is coming first: nobody is to overlook it below a hundred others. */
const ORDER: readonly ImageStatus[] = ["pending", "active", "retiring", "retired", "removed"];

/** Images that are shown before the rest is asked for. */
const IMAGES_FIRST = 20;

/** One service: whether it can change, who decides, which images may have its keys, and everything that ever happened. */
export function ServicePage() {
  const { standing, loaded, route } = useModel();
  const id = route.argument.toLowerCase();
  const first = standing.first?.serviceId === id ? standing.first : undefined;
  const listed = loaded?.suite.services.find(({ serviceId }) => serviceId === id);
  const audit = listed ?? first;
  if (audit === undefined) return <UnlistedService key={id} id={route.argument} />;
  return (
    <>
      {loaded !== undefined && listed === undefined ? <Withheld /> : null}
      {listed !== undefined && first !== undefined && listed.verdict !== first.verdict ? (
        <p class="panel bad" role="alert">
          Asked about this service alone the endpoint gave another history than when it listed the registry's log.
          Believe nothing else that it says.
        </p>
      ) : null}
      <KnownService audit={audit} />
    </>
  );
}

function Withheld() {
  return (
    <p class="panel bad" role="alert">
      The endpoint withheld this service when it listed the registry's log. Believe nothing else that it says.
    </p>
  );
}

/** A service that the scan of the log did not show: asked for by its id, whose head an endpoint can't withhold. */
function UnlistedService({ id }: { readonly id: string }) {
  const loaded = useLoaded();
  const link = useLink();
  const [answer, setAnswer] = useState<ServiceAudit | KeysteadError | undefined>();
  useEffect(() => {
    const { client, settings, block } = loaded;
    let gone = false;
    const show = (found: ServiceAudit | KeysteadError) => {
      if (!gone) setAnswer(found);
    };
    auditService(client, settings.registry, id as Hex, { at: block.number }).then(show, (error: unknown) =>
      show(toError(error)),
    );
    return () => {
      gone = true;
    };
  }, [loaded, id]);
  if (answer === undefined) return <p aria-live="polite">Asking for the service…</p>;
  if (!(answer instanceof KeysteadError)) {
    return (
      <>
        <Withheld />
        <KnownService audit={answer} />
      </>
    );
  }
  return (
    <>
      <h1>Unknown service</h1>
      <ErrorBox error={answer}>
        <p>
          You asked for <Untrusted text={id} empty="nothing" />. Here are <a href={link("services")}>all services</a>.
        </p>
      </ErrorBox>
    </>
  );
}

function KnownService({ audit }: { readonly audit: ServiceAudit }) {
  const { serviceId, state, verdict, count, head, basis, entries } = audit;
  const { standing } = useModel();
  return (
    <>
      <p class="overline">Service</p>
      <h1 class="id">
        <HexText value={serviceId} what="service id" whole />
      </h1>
      {state === undefined ? null : (
        <p class="description">
          <Untrusted text={state.description} empty="no description" />
        </p>
      )}
      <Seal verdict={verdict}>{MEANINGS[verdict]}</Seal>
      <Findings audit={audit} />
      <CodeFaults code={standing.registryCode} />
      <dl class="facts proof">
        <Fact name="events">{count}</Fact>
        <Fact name="history head">
          <HexText value={head} what="history head" />
        </Fact>
        <Fact name="head rests on">
          {basis === "proof" ? "a storage proof" : "the endpoint's word"} at block{" "}
          {standing.block.number.toLocaleString("en")}
        </Fact>
      </dl>
      {state === undefined ? (
        <p class="panel bad">Nothing of a broken history is shown: no event, no image, no admin.</p>
      ) : (
        <>
          <WhoDecides audit={audit} />
          <Section id="timeline" title="Timeline">
            <Timeline audit={audit} />
          </Section>
          <Images audit={audit} />
          <Keys audit={audit} />
          <Section id="events" title="Every event" note="Newest first. Removed images stay in the history.">
            <Events entries={entries} />
          </Section>
        </>
      )}
    </>
  );
}

/** A history says what the registry did; where the proof of its code is false nobody knows which registry that is. */
function CodeFaults({ code }: { readonly code: ProxyCode }) {
  if (code.faults.length === 0) return null;
  return (
    <div class="panel bad" role="alert">
      <p>
        The endpoint's proof of the registry's code is false: nobody knows what code keeps this history. Believe nothing
        of this endpoint.
      </p>
      <FaultList faults={code.faults} />
    </div>
  );
}

function WhoDecides({ audit }: { readonly audit: ServiceAudit }) {
  const now = useNow();
  const { standing, reading } = useModel();
  const state = audit.state;
  const admin = useAccount(state?.admin ?? ZERO_ADDRESS);
  if (state === undefined) return null;
  const view = viewService(state, now);
  const { governance } = standing;
  const policyGuardians =
    governance === undefined || governance instanceof KeysteadError
      ? []
      : (governance.roles.find(({ contract, role }) => contract === "policy" && role === "GUARDIAN_ROLE")?.holders ??
        []);
  const devices = [...state.devices].filter(([, from]) => from !== 0);
  return (
    <Section id="decides" title="Can it be changed?">
      <p class="answer">
        <Changeable state={state} />{" "}
        {!state.upgradeable
          ? "Never. It has exactly one image, and no admin."
          : state.admin === ZERO_ADDRESS
            ? "Not any more. The admin renounced: no further image, ever."
            : `Yes: ${admin?.label ?? "its admin"} may add images, and each may have keys ${view.noticePeriod === 0 ? "at once, with no wait" : `after a wait of ${formatDuration(view.noticePeriod)}`}.`}
      </p>
      <dl class="facts">
        <Fact name="admin">
          <Party address={state.admin} what="admin" />
          {admin === undefined || admin.caution === "" ? null : <span class="caution">{admin.caution}</span>}
        </Fact>
        {view.pendingAdmin === ZERO_ADDRESS ? null : (
          <Fact name="office offered to">
            <Party address={view.pendingAdmin} what="pending admin" />
          </Fact>
        )}
        {state.upgradeable ? (
          <Fact name="notice period">
            {view.noticePeriod === 0 ? (
              <Badge tone="warn">none: a new image is active at once</Badge>
            ) : (
              formatDuration(view.noticePeriod)
            )}
          </Fact>
        ) : null}
        <Fact name="who can veto a pending image">
          {view.guardian === ZERO_ADDRESS && state.admin === ZERO_ADDRESS ? (
            <span class="muted">nobody; none can be added either</span>
          ) : null}
          {view.guardian === ZERO_ADDRESS ? null : (
            <>
              <span class="small muted">its guardian</span> <Party address={view.guardian} what="service guardian" />
            </>
          )}
          {state.admin === ZERO_ADDRESS ? null : (
            <>
              <span class="small muted">its admin</span> <Party address={state.admin} what="admin" />
            </>
          )}
          {governance === undefined ? (
            <span class="small muted">
              Whether the platform's guardian can pause all releases {reading ? "is being read" : "was not read"}.
            </span>
          ) : null}
          {governance instanceof KeysteadError ? (
            <span class="small muted">
              Whether the platform's guardian can pause all releases could not be read: {governance.code}.
            </span>
          ) : null}
          {policyGuardians.map((holder) => (
            <span key={holder} class="small muted">
              The platform's guardian can pause all releases, not this image alone.
            </span>
          ))}
        </Fact>
        {view.nextGuardianFrom === 0 ? null : (
          <Fact name="next guardian">
            <Party address={view.nextGuardian} what="next guardian" /> from <Time at={view.nextGuardianFrom} />
          </Fact>
        )}
        {view.formerGuardianUntil === 0 ? null : (
          <Fact name="former guardian">
            <Party address={view.formerGuardian} what="former guardian" /> may veto what was announced before it left,
            until <Time at={view.formerGuardianUntil} />
          </Fact>
        )}
        <Fact name="TCB">
          {view.requireUpToDateTcb ? "UpToDate only" : "whatever the policy accepts"}
          {view.tcbRuleEnds === 0 ? null : (
            <>
              ; loosens <Time at={view.tcbRuleEnds} />
            </>
          )}
        </Fact>
        <Fact name="devices">
          {view.restrictDevices ? `only ${plural(devices.length, "listed device")}` : "any device"}
          {devices.map(([device, from]) => (
            <span key={device} class="block">
              <HexText value={device} what="device id" /> {from > now ? <Time at={from} /> : null}
            </span>
          ))}
        </Fact>
        <Fact name="created by">
          <HexText value={state.creator} what="creator" />
        </Fact>
      </dl>
    </Section>
  );
}

function Images({ audit }: { readonly audit: ServiceAudit }) {
  const now = useNow();
  const images = [...(audit.state?.images.values() ?? [])]
    .map((image) => ({ image, status: imageStatus(image, now) }))
    .sort((a, b) => ORDER.indexOf(a.status) - ORDER.indexOf(b.status) || b.image.listedBy - a.image.listedBy);
  const current = images.find(({ status }) => status === "active")?.image.image;
  const active = current === undefined ? undefined : readImageBytes(current);
  const gone = images.filter(({ status }) => status === "removed" || status === "retired");
  const present = images.filter((each) => !gone.includes(each));
  return (
    <Section id="images" title="Images" note="A register that an image leaves out matches any value.">
      {present.length === 0 ? <p class="muted">No image may have keys, and none is pending.</p> : null}
      <More items={present} first={IMAGES_FIRST} what="further image">
        {(shown) =>
          shown.map(({ image, status }) => (
            <ImageCard key={image.imageId} image={image} status={status} audit={audit} active={active} />
          ))
        }
      </More>
      {gone.length === 0 ? null : (
        <Fold summary={`${plural(gone.length, "image")} retired or removed`}>
          {() => (
            <More items={gone} first={IMAGES_FIRST} what="further image">
              {(shown) =>
                shown.map(({ image, status }) => (
                  <ImageCard key={image.imageId} image={image} status={status} audit={audit} />
                ))
              }
            </More>
          )}
        </Fold>
      )}
    </Section>
  );
}

function ImageCard({
  image,
  status,
  audit,
  active,
}: {
  readonly image: ServiceImage;
  readonly status: ImageStatus;
  readonly audit: ServiceAudit;
  /** The image that may have keys now, for what a pending one changes. */
  readonly active?: Image | undefined;
}) {
  const decoded = readImageBytes(image.image);
  const change =
    status === "pending" && decoded !== undefined && active !== undefined
      ? compareRegisters(decoded, active)
      : undefined;
  const listed = audit.entries.find(({ sequence }) => sequence === image.listedBy)?.timestamp ?? 0;
  return (
    <article class={`card image ${status}`}>
      <header>
        <Badge tone={TONES[status]}>{status}</Badge> <HexText value={image.imageId} what="image id" />
      </header>
      <p>
        <Untrusted text={image.description} empty="no description" />
      </p>
      {status === "pending" ? (
        <Countdown from={listed} to={image.activeFrom} what="becomes active" over="active now" />
      ) : null}
      {status === "retiring" ? (
        <Countdown from={image.activeFrom} to={image.activeUntil} what="is retired" over="retired now" />
      ) : null}
      <dl class="facts">
        <Fact name="listed">
          <Time at={listed} /> <span class="muted">by event {image.listedBy}</span>
        </Fact>
        <Fact name="active from">
          <Time at={image.activeFrom} />
        </Fact>
        {image.activeUntil === 0 ? null : (
          <Fact name="keys until">
            <Time at={image.activeUntil} />
          </Fact>
        )}
        {image.reason === undefined ? null : (
          <Fact name="removed because">
            <Untrusted text={image.reason} empty="no reason given" />
          </Fact>
        )}
      </dl>
      {decoded === undefined ? (
        <p class="bad-text">The logged bytes are no image.</p>
      ) : (
        <Registers image={decoded} comparison={change} words={["as in the active image", "changes"]} />
      )}
    </article>
  );
}

function Keys({ audit }: { readonly audit: ServiceAudit }) {
  const now = useNow();
  const state = audit.state;
  if (state === undefined) return null;
  const rotations = audit.entries.flatMap(({ event, timestamp }) =>
    event?.name === "rotate_service_key" ? [{ epoch: event.args.keyEpoch, timestamp }] : [],
  );
  const created = audit.entries[0]?.timestamp ?? 0;
  return (
    <Section
      id="keys"
      title="Key epochs and sealed secrets"
      note="Nodes release the keys of all epochs up to the newest, so that old state can be read."
    >
      <ol class="epochs">
        {[{ epoch: 0, timestamp: created }, ...rotations].map(({ epoch, timestamp }) => (
          <li key={epoch}>
            <Badge tone={epoch === state.keyEpoch ? "ok" : "idle"}>
              epoch {epoch}
              {epoch === state.keyEpoch ? ", newest" : ""}
            </Badge>{" "}
            since <Time at={timestamp} />
          </li>
        ))}
      </ol>
      {state.secrets.size === 0 ? null : (
        <ul class="plain">
          {[...pendingSecrets(state, now), ...secretsAt(state, now).values()].map(
            ({ name, ciphertext, publishedBy, effectiveFrom }) => (
              <li key={publishedBy}>
                {effectiveFrom > now ? (
                  <>
                    <Badge tone="warn">pending</Badge> in force from <Time at={effectiveFrom} />:{" "}
                  </>
                ) : null}
                <Untrusted text={name} empty="secrets that came with the service" />{" "}
                <span class="muted">
                  {plural(ciphertext.length / 2 - 1, "sealed byte")}, by event {publishedBy}
                </span>
              </li>
            ),
          )}
        </ul>
      )}
    </Section>
  );
}
