import { useState } from "preact/hooks";
import type { ServiceAudit } from "../../../src/audit/result.ts";
import { imageStatus, ZERO_ADDRESS } from "../../../src/core/state.ts";
import { formatDuration, plural, shortHex } from "../format.ts";
import { AccountBadge, Badge, Untrusted } from "../ui/bits.tsx";
import { useLink, useLoaded, useNow } from "../ui/model.ts";
import { More } from "../ui/more.tsx";
import { VerdictBadge } from "../ui/verdict.tsx";

const FILTERS = ["all", "upgradeable", "final", "pending images", "not proven"] as const;
type Filter = (typeof FILTERS)[number];

/** Rows that are shown at once. */
const PAGE = 100;

/** Every service at a glance. */
export function ServicesPage() {
  const loaded = useLoaded();
  const [search, setSearch] = useState("");
  const [filter, setFilter] = useState<Filter>("all");
  const now = useNow();
  const found = loaded.suite.services.filter(
    (audit) => isFound(audit, search.trim().toLowerCase()) && passes(audit, filter, now),
  );
  return (
    <>
      <h1>Services</h1>
      <search class="toolbar">
        <label class="field grow">
          <span>Search</span>
          <input
            type="search"
            value={search}
            placeholder="id, description, admin or image id"
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        </label>
        <fieldset class="chips">
          <legend class="hidden">Show</legend>
          {FILTERS.map((name) => (
            <label key={name} class="chip">
              <input type="radio" name="filter" checked={filter === name} onChange={() => setFilter(name)} />
              <span>{name}</span>
            </label>
          ))}
        </fieldset>
      </search>
      <p class="muted" aria-live="polite">
        {plural(found.length, "service")} of {loaded.suite.services.length.toLocaleString("en")}
      </p>
      <More items={found} first={PAGE} what="further service">
        {(shown) => (shown.length === 0 ? null : <ServiceTable services={shown} now={now} />)}
      </More>
    </>
  );
}

function ServiceTable({ services, now }: { readonly services: readonly ServiceAudit[]; readonly now: number }) {
  const link = useLink();
  return (
    <table class="stack services">
      <caption class="hidden">Services</caption>
      <thead>
        <tr>
          <th scope="col">service</th>
          <th scope="col">can it change?</th>
          <th scope="col">admin</th>
          <th scope="col">notice</th>
          <th scope="col">images</th>
          <th scope="col">history</th>
        </tr>
      </thead>
      <tbody>
        {services.map((audit) => (
          <tr key={audit.serviceId}>
            <td data-label="service">
              <a href={link("service", audit.serviceId)} title={audit.serviceId}>
                <code>{shortHex(audit.serviceId, 10, 6)}</code>
              </a>
              <span class="block">
                {audit.state === undefined ? null : (
                  <Untrusted text={audit.state.description} empty="no description" limit={100} />
                )}
              </span>
            </td>
            <ServiceCells audit={audit} now={now} />
            <td data-label="history">
              <VerdictBadge verdict={audit.verdict} />
              <span class="small muted">{plural(audit.count, "event")}</span>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function ServiceCells({ audit, now }: { readonly audit: ServiceAudit; readonly now: number }) {
  const { state } = audit;
  if (state === undefined) {
    return (
      <>
        <td data-label="can it change?">?</td>
        <td data-label="admin">?</td>
        <td data-label="notice">?</td>
        <td data-label="images">?</td>
      </>
    );
  }
  return (
    <>
      <td data-label="can it change?">
        <Changeable state={state} />
      </td>
      <td data-label="admin">
        {state.admin === ZERO_ADDRESS ? <Badge tone="idle">none</Badge> : <AccountBadge address={state.admin} />}
      </td>
      <td data-label="notice">
        {!state.upgradeable ? (
          <span class="muted">–</span>
        ) : state.noticePeriod === 0 ? (
          <Badge tone="warn">none</Badge>
        ) : (
          formatDuration(state.noticePeriod)
        )}
      </td>
      <td data-label="images">{imagesInWords(audit, now)}</td>
    </>
  );
}

/** Whether a service can change, in a word. An upgradeable service without an admin can't any more. */
export function Changeable({ state }: { readonly state: NonNullable<ServiceAudit["state"]> }) {
  if (!state.upgradeable) return <Badge tone="ok">final</Badge>;
  if (state.admin === ZERO_ADDRESS) return <Badge tone="ok">frozen: admin renounced</Badge>;
  return <Badge tone="info">upgradeable</Badge>;
}

function imagesInWords({ state }: ServiceAudit, now: number): string {
  const counts = new Map<string, number>();
  for (const image of state?.images.values() ?? []) {
    const status = imageStatus(image, now);
    counts.set(status, (counts.get(status) ?? 0) + 1);
  }
  return [...counts].map(([status, count]) => `${count} ${status}`).join(", ") || "none";
}

function isFound({ serviceId, state }: ServiceAudit, search: string): boolean {
  if (search === "") return true;
  const texts: string[] = [serviceId];
  if (state !== undefined) {
    texts.push(state.description, state.admin, state.guardian, ...state.images.keys());
    for (const { description } of state.images.values()) texts.push(description);
  }
  return texts.some((text) => text.toLowerCase().includes(search));
}

function passes({ state, verdict }: ServiceAudit, filter: Filter, now: number): boolean {
  switch (filter) {
    case "all":
      return true;
    case "upgradeable":
      return state?.upgradeable === true;
    case "final":
      return state?.upgradeable === false;
    case "pending images":
      return [...(state?.images.values() ?? [])].some((image) => imageStatus(image, now) === "pending");
    case "not proven":
      return verdict !== "proven";
  }
}
