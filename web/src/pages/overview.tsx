import type { ServiceAudit } from "../../../src/audit/result.ts";
import { KeysteadError } from "../../../src/core/errors.ts";
import { imageStatus } from "../../../src/core/state.ts";
import { formatDuration, plural } from "../format.ts";
import { Badge, ErrorBox, Fact, HexText, Party, Section, Untrusted } from "../ui/bits.tsx";
import { Countdown } from "../ui/countdown.tsx";
import { LanesDiagram } from "../ui/lanes.tsx";
import { useLink, useLoaded, useNow } from "../ui/model.ts";
import { Operation } from "../ui/operations.tsx";
import { FaultList, Findings, MEANINGS, Seal, VerdictBadge } from "../ui/verdict.tsx";

/** Health of the whole suite, who governs it, and what is coming. */
export function OverviewPage() {
  const loaded = useLoaded();
  const { suite, governance } = loaded;
  const broken = suite.services.filter(isBroken);
  const doubtful = suite.services.filter(({ verdict }) => verdict !== "proven");
  return (
    <>
      <h1>Overview</h1>
      <Seal verdict={suite.verdict}>{MEANINGS[suite.verdict]}</Seal>
      <RestsOn />
      <Findings audit={suite.policy} />
      {[suite.code.registry, suite.code.policy].flatMap(({ faults }) => faults).length > 0 ? (
        <p class="panel bad">The endpoint gives false proofs of the code behind a proxy.</p>
      ) : null}
      <FaultList faults={suite.set.faults} />
      {suite.unaccounted.length > 0 ? (
        <p class="panel warn">
          The registry has {plural(suite.unaccounted.length, "log")} that no known version emits.
        </p>
      ) : null}
      {doubtful.length === 0 ? null : <DoubtfulServices broken={broken.length} doubtful={doubtful.length} />}
      <Figures />
      <Coming />
      {governance instanceof KeysteadError ? (
        <Section id="governance" title="Governance">
          <ErrorBox error={governance} />
        </Section>
      ) : (
        <>
          <Section
            id="governance"
            title="Who may change what"
            note="No hash chain covers roles and timelock: they are the endpoint's word, held against the contracts' views and each operation's id."
          >
            <LanesDiagram governance={governance} />
            {governance.differences.length === 0 ? null : (
              <ul class="findings">
                {governance.differences.map((difference) => (
                  <li key={difference}>
                    <Badge tone="bad">look into this</Badge> {difference}
                  </li>
                ))}
              </ul>
            )}
            <Roles />
          </Section>
          <PastOperations />
        </>
      )}
      <Code />
    </>
  );
}

/** Which block all of this is about, and who says that it is the chain's. */
function RestsOn() {
  const loaded = useLoaded();
  const { suite, settings } = loaded;
  const { number, hash } = suite.block;
  return (
    <p class="small muted rests">
      All of it is about block {number.toLocaleString("en")}, <HexText value={hash} what="block hash" />.{" "}
      {settings.witness === undefined
        ? "That this is the chain's newest block is the endpoint's word alone: compare the hash with another source, or name a second endpoint."
        : `Both endpoints have it, ${new URL(settings.rpc).host} and ${new URL(settings.witness).host}.`}
    </p>
  );
}

const isBroken = ({ verdict }: ServiceAudit) => verdict === "broken";

function DoubtfulServices({ broken, doubtful }: { readonly broken: number; readonly doubtful: number }) {
  const link = useLink();
  const loaded = useLoaded();
  const all = loaded.suite.services.filter(({ verdict }) => verdict !== "proven");
  const shown = [...all.filter(isBroken), ...all.filter((audit) => !isBroken(audit))].slice(0, 10);
  return (
    <div class={`panel ${broken > 0 ? "bad" : "warn"}`}>
      <p class="lead">
        {broken > 0
          ? `The histories of ${plural(broken, "service")} do not verify.`
          : `The histories of ${plural(doubtful, "service")} are consistent, but not proven.`}
      </p>
      <ul class="plain">
        {shown.map(({ serviceId, verdict }) => (
          <li key={serviceId}>
            <VerdictBadge verdict={verdict} /> <a href={link("service", serviceId)}>{serviceId}</a>
          </li>
        ))}
        {all.length === shown.length ? null : (
          <li>
            and {all.length - shown.length} more: <a href={link("services")}>all services</a>, filtered by “not proven”
          </li>
        )}
      </ul>
    </div>
  );
}

function Figures() {
  const loaded = useLoaded();
  const now = useNow();
  const { suite, governance } = loaded;
  const states = suite.services.flatMap(({ state }) => (state === undefined ? [] : [state]));
  const images = states.flatMap((state) => [...state.images.values()]);
  const count = (status: string) => images.filter((image) => imageStatus(image, now) === status).length;
  const final = states.filter(({ upgradeable }) => !upgradeable).length;
  const policy = suite.policy.state;
  const allowed = [...(policy?.platforms.values() ?? [])].filter(({ state }) => state === "allowed").length;
  const paused = policy !== undefined && now < policy.pausedUntil;
  return (
    <dl class="figures">
      <div>
        <dt>services</dt>
        <dd>{suite.services.length.toLocaleString("en")}</dd>
        <dd class="sub">
          {states.length - final} upgradeable, {final} final
        </dd>
      </div>
      <div>
        <dt>images</dt>
        <dd>{count("active") + count("retiring")}</dd>
        <dd class="sub">may have keys; {count("pending")} pending</dd>
      </div>
      <div>
        <dt>platforms</dt>
        <dd>{policy === undefined ? "?" : allowed}</dd>
        <dd class="sub">allowed of {policy?.platforms.size ?? "?"} ever listed</dd>
      </div>
      <div>
        <dt>timelock delay</dt>
        <dd>
          {governance instanceof KeysteadError
            ? "?"
            : governance.minDelay === undefined
              ? "none"
              : formatDuration(governance.minDelay)}
        </dd>
        <dd class="sub">before anything loosens</dd>
      </div>
      <div class={paused ? "alarm" : undefined}>
        <dt>releases</dt>
        <dd>{policy === undefined ? "?" : paused ? "paused" : "running"}</dd>
        <dd class="sub">
          {policy !== undefined && paused
            ? `for ${formatDuration(policy.pausedUntil - now)} more`
            : "no pause in force"}
        </dd>
      </div>
    </dl>
  );
}

function Coming() {
  const loaded = useLoaded();
  const link = useLink();
  const now = useNow();
  const { suite, governance } = loaded;
  const operations =
    governance instanceof KeysteadError
      ? []
      : governance.operations.filter(({ status }) => status === "pending" || status === "ready");
  const pending = suite.services.flatMap(({ serviceId, state, entries }) =>
    [...(state?.images.values() ?? [])]
      .filter((image) => imageStatus(image, now) === "pending")
      .map((image) => {
        const listed = entries.find(({ sequence }) => sequence === image.listedBy)?.timestamp ?? image.activeFrom;
        return { serviceId, image, listed, name: state?.description ?? "" };
      }),
  );
  return (
    <Section id="coming" title="What is coming">
      {operations.length + pending.length === 0 ? (
        <p class="muted">Nothing is scheduled, and no image is pending.</p>
      ) : null}
      {governance instanceof KeysteadError
        ? null
        : operations.map((operation) => <Operation key={operation.id} operation={operation} governance={governance} />)}
      {pending.length === 0 ? null : (
        <div class="cards">
          {pending.map(({ serviceId, image, listed, name }) => (
            <article class="card" key={`${serviceId} ${image.imageId}`}>
              <header>
                <Badge tone="warn">pending image</Badge> <a href={link("service", serviceId)}>{serviceId}</a>
              </header>
              <p>
                <Untrusted text={image.description} /> <span class="muted">of</span> <Untrusted text={name} />
              </p>
              <Countdown from={listed} to={image.activeFrom} what="becomes active" over="active now" />
            </article>
          ))}
        </div>
      )}
    </Section>
  );
}

function Roles() {
  const loaded = useLoaded();
  const { governance } = loaded;
  if (governance instanceof KeysteadError) return null;
  return (
    <table class="stack">
      <caption class="hidden">Roles of the suite's contracts and who holds them</caption>
      <thead>
        <tr>
          <th scope="col">contract</th>
          <th scope="col">role</th>
          <th scope="col">what it may do</th>
          <th scope="col">held by</th>
        </tr>
      </thead>
      <tbody>
        {governance.roles.map(({ contract, role, meaning, holders }) => (
          <tr key={`${contract} ${role}`}>
            <td data-label="contract">{contract}</td>
            <td data-label="role">
              <code>{role}</code>
            </td>
            <td data-label="may">{meaning}</td>
            <td data-label="held by">
              {holders.length === 0 ? <span class="muted">nobody</span> : null}
              {holders.map((holder) => (
                <Party key={holder} address={holder} what={`${role} holder`} />
              ))}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function PastOperations() {
  const loaded = useLoaded();
  const { governance } = loaded;
  if (governance instanceof KeysteadError) return null;
  const past = governance.operations.filter(({ status }) => status !== "pending" && status !== "ready");
  if (past.length === 0) return null;
  return (
    <Section id="past" title="Past operations">
      <details>
        <summary>{plural(past.length, "operation")}, executed, cancelled or expired</summary>
        {past.map((operation) => (
          <Operation key={operation.id} operation={operation} governance={governance} />
        ))}
      </details>
    </Section>
  );
}

function Code() {
  const loaded = useLoaded();
  const { suite, settings } = loaded;
  return (
    <Section
      id="code"
      title="Which code runs"
      note="Compare the hashes with those of the published deployment: a history says what the contracts did, these say which contracts they are."
    >
      <div class="cards">
        {(["registry", "policy"] as const).map((name) => {
          const { address, implementation, codeHash, proxyCodeHash, basis, faults } = suite.code[name];
          return (
            <article class="card" key={name}>
              <header>
                <strong>{name}</strong>{" "}
                <Badge tone={basis === "proof" ? "ok" : "warn"}>
                  {basis === "proof" ? "by storage proof" : "the endpoint's word"}
                </Badge>
              </header>
              {faults.length === 0 ? null : <FaultList faults={faults} />}
              <dl class="facts">
                <Fact name="proxy">
                  <HexText value={address} what={`${name} proxy`} />
                </Fact>
                <Fact name="implementation">
                  <HexText value={implementation} what={`${name} implementation`} />
                </Fact>
                <Fact name="its code hash">
                  <HexText value={codeHash} what={`${name} code hash`} />
                </Fact>
                <Fact name="proxy's code hash">
                  <HexText value={proxyCodeHash} what={`${name} proxy's code hash`} />
                </Fact>
              </dl>
            </article>
          );
        })}
      </div>
      <p class="muted small">
        Scanned from block {settings.fromBlock.toLocaleString("en")}.{" "}
        {suite.set.verdict === "proven"
          ? `These are all ${suite.set.count.toLocaleString("en")} services: the chain over creations proves it.`
          : "That no whole service was withheld is not proven; a service whose page you open by its id can't be withheld."}
      </p>
    </Section>
  );
}
