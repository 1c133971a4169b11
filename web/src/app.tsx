import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Hex } from "../../src/core/bytes.ts";
import { KeysteadError } from "../../src/core/errors.ts";
import { type Early, type Loaded, load, type Progress, STEPS, type Standing, toError } from "./data/load.ts";
import { formatDuration, formatTime, shortHex } from "./format.ts";
import { CheckPage } from "./pages/check.tsx";
import { ConnectPage } from "./pages/connect.tsx";
import { OverviewPage } from "./pages/overview.tsx";
import { PolicyPage } from "./pages/policy.tsx";
import { ServicePage } from "./pages/service.tsx";
import { ServicesPage } from "./pages/services.tsx";
import { linkTo, type Page, parseRoute, type Route } from "./route.ts";
import { checkDraft, paramsOf } from "./settings.ts";
import { Badge, ErrorBox } from "./ui/bits.tsx";
import { ModelContext } from "./ui/model.ts";
import { Printing, usePrinting } from "./ui/print.ts";
import { ProgressPanel } from "./ui/progress.tsx";
import { VerdictBadge } from "./ui/verdict.tsx";

const NAVIGATION: readonly (readonly [Page, string])[] = [
  ["overview", "Overview"],
  ["services", "Services"],
  ["policy", "Policy"],
  ["check", "Check a quote"],
  ["sign", "Sign"],
];

/** How far the newest block's time may be from this machine's clock before it is remarked upon, in seconds. */
const MAX_APART = 3600;

type State =
  | { readonly is: "idle" }
  | { readonly is: "loading"; readonly progress: Progress; readonly early: Early | undefined }
  | { readonly is: "failed"; readonly error: KeysteadError; readonly early: Early | undefined }
  | { readonly is: "loaded"; readonly loaded: Loaded };

/** The explorer. */
export function App() {
  const route = useRoute();
  const key = paramsOf(route.draft).toString();
  const { settings } = checkDraft(route.draft);
  const [attempt, setAttempt] = useState(0);
  const state = useLoad(key, attempt);
  // a proposal is verified and signed without any endpoint
  const signs = route.page === "sign";
  const asksForm = !signs && (route.page === "connect" || settings === undefined);
  const standing = standingFor(state, route);
  const printing = usePrinting();
  const main = useRef<HTMLElement>(null);
  const place = `${route.page}/${route.argument}`;
  const first = useRef(true);
  useEffect(() => {
    document.title = `${titleOf(route)} · Keystead explorer`;
    if (first.current) {
      first.current = false;
      return;
    }
    window.scrollTo(0, 0);
    main.current?.focus();
  }, [place]);
  return (
    <Printing.Provider value={printing}>
      <button type="button" class="skip" onClick={() => main.current?.focus()}>
        Skip to the content
      </button>
      <Header route={route} state={state} standing={standing} hidden={asksForm} />
      <main id="content" ref={main} tabIndex={-1}>
        {signs ? (
          <LazySignPage />
        ) : asksForm ? (
          <ConnectPage key={key} draft={route.draft} attempted={key !== ""} />
        ) : standing !== undefined ? (
          <ModelContext.Provider
            value={{
              standing,
              loaded: state.is === "loaded" ? state.loaded : undefined,
              reading: state.is === "loading",
              route,
            }}
          >
            {state.is === "failed" ? <RestFailed error={state.error} onRetry={() => setAttempt(attempt + 1)} /> : null}
            <Clock standing={standing} />
            <PageOf page={route.page} />
          </ModelContext.Provider>
        ) : state.is === "failed" ? (
          <Failed error={state.error} route={route} onRetry={() => setAttempt(attempt + 1)} />
        ) : (
          <ProgressPanel progress={state.is === "loading" ? state.progress : undefined} />
        )}
      </main>
      <footer class="foot">
        <p>
          Read and verified in this page, from the endpoint named above and nobody else. Text from the chain is shown as
          text; <span class="escape">\u&#123;…&#125;</span> marks characters that can't be seen.
        </p>
      </footer>
    </Printing.Provider>
  );
}

/** What a page can be shown with: everything, or the service alone whose page it is. */
function standingFor(state: State, { page, argument }: Route): Standing | undefined {
  if (state.is === "loaded") return state.loaded;
  if (state.is === "idle" || page !== "service") return undefined;
  return state.early?.first.serviceId === argument.toLowerCase() ? state.early : undefined;
}

function PageOf({ page }: { readonly page: Page }) {
  switch (page) {
    case "overview":
    case "connect":
    case "sign":
      return <OverviewPage />;
    case "services":
      return <ServicesPage />;
    case "service":
      return <ServicePage />;
    case "policy":
      return <PolicyPage />;
    case "check":
      return <CheckPage />;
  }
}

function titleOf({ page, argument }: Route): string {
  if (page === "service") return `Service ${shortHex(argument)}`;
  if (page === "sign") return "Sign a proposal";
  if (page === "connect") return "Which deployment?";
  return NAVIGATION.find(([name]) => name === page)?.[1] ?? "Overview";
}

/** The signing page's code is as much as all the rest, so it is fetched when it is asked for. */
function LazySignPage() {
  const [page, setPage] = useState<{ readonly SignPage: () => ComponentChildren } | undefined>();
  const [error, setError] = useState<KeysteadError | undefined>();
  useEffect(() => {
    import("./pages/sign.tsx").then(setPage, (cause: unknown) => setError(toError(cause)));
  }, []);
  if (error !== undefined) return <ErrorBox error={error} />;
  if (page === undefined) return <p role="status">Reading the signing page…</p>;
  const { SignPage } = page;
  return <SignPage />;
}

function useRoute(): Route {
  const [route, setRoute] = useState(() => parseRoute(window.location.hash));
  useEffect(() => {
    const follow = () => setRoute(parseRoute(window.location.hash));
    window.addEventListener("hashchange", follow);
    return () => window.removeEventListener("hashchange", follow);
  }, []);
  return route;
}

/** Loads whatever deployment the fragment names; a change of page alone loads nothing. */
function useLoad(key: string, attempt: number): State {
  const [state, setState] = useState<State>({ is: "idle" });
  useEffect(() => {
    const { settings } = checkDraft(parseRoute(`#/overview?${key}`).draft);
    const serviceId = askedService(parseRoute(window.location.hash));
    if (settings === undefined) return setState({ is: "idle" });
    let gone = false;
    const set = (next: State) => {
      if (!gone) setState(next);
    };
    let blocked = false;
    const onViolation = (event: SecurityPolicyViolationEvent) => {
      if (event.effectiveDirective === "connect-src") blocked = true;
    };
    document.addEventListener("securitypolicyviolation", onViolation);
    setState({ is: "idle" });
    let early: Early | undefined;
    const onProgress = (progress: Progress) => set({ is: "loading", progress, early });
    const onFirst = (first: Early) => {
      early = first;
    };
    load(settings, { serviceId, onProgress, onFirst }).then(
      (loaded) => set({ is: "loaded", loaded }),
      (caught: unknown) => set({ is: "failed", error: blocked ? blockedError(settings.rpc) : toError(caught), early }),
    );
    return () => {
      gone = true;
      document.removeEventListener("securitypolicyviolation", onViolation);
    };
  }, [key, attempt]);
  return state;
}

/** The service whose page was opened by a link. */
function askedService({ page, argument }: Route): Hex | undefined {
  return page === "service" && /^0x[0-9a-f]{40}$/i.test(argument) ? (argument.toLowerCase() as Hex) : undefined;
}

function blockedError(rpc: string): KeysteadError {
  return new KeysteadError("web/not-allowed", `this page may not connect to ${new URL(rpc).host}`, {
    argument: "rpc",
    remedy: "It was served for other endpoints alone: start keystead explore with --rpc and this one.",
  });
}

function Failed({
  error,
  route,
  onRetry,
}: {
  readonly error: KeysteadError;
  readonly route: Route;
  readonly onRetry: () => void;
}) {
  return (
    <>
      <h1>Nothing could be checked</h1>
      <ErrorBox error={error}>
        {error.code === "chain/unreachable" ? (
          <p>
            An endpoint must also let pages of other origins read its answers (CORS); not every node does by default.
          </p>
        ) : null}
        <p class="actions">
          <button type="button" class="button primary" onClick={onRetry}>
            Try again
          </button>
          <a class="button" href={linkTo("connect", route.draft)}>
            Change the endpoint or addresses
          </a>
        </p>
      </ErrorBox>
      <p>This is no verdict: an endpoint that can't be asked says nothing about the history.</p>
    </>
  );
}

/** The service alone is shown; of the rest nothing is known. */
function RestFailed({ error, onRetry }: { readonly error: KeysteadError; readonly onRetry: () => void }) {
  return (
    <ErrorBox error={error}>
      <p>Only this service was read and verified; nothing else was, nor who is behind its admin.</p>
      <p class="actions">
        <button type="button" class="button primary" onClick={onRetry}>
          Try again
        </button>
      </p>
    </ErrorBox>
  );
}

function Header({
  route,
  state,
  standing,
  hidden,
}: {
  readonly route: Route;
  readonly state: State;
  readonly standing: Standing | undefined;
  readonly hidden: boolean;
}) {
  return (
    <header class="top">
      <div class="bar">
        <a class="brand" href={linkTo("overview", route.draft)}>
          <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">
            <path d="M4 20V9l8-5 8 5v11z" />
            <circle cx="12" cy="12" r="2.4" />
            <path d="M12 14v4" />
          </svg>
          Keystead <span>explorer</span>
        </a>
        {hidden ? null : (
          <nav aria-label="Pages">
            {NAVIGATION.map(([page, name]) => {
              const current = route.page === page || (page === "services" && route.page === "service");
              return (
                <a key={page} href={linkTo(page, route.draft)} aria-current={current ? "page" : undefined}>
                  {name}
                </a>
              );
            })}
          </nav>
        )}
      </div>
      {standing !== undefined && !hidden ? <Strip standing={standing} state={state} route={route} /> : null}
    </header>
  );
}

/** Where everything on the page is from. */
function Strip({
  standing,
  state,
  route,
}: {
  readonly standing: Standing;
  readonly state: State;
  readonly route: Route;
}) {
  const { settings, client, block } = standing;
  return (
    <div class="strip">
      {state.is === "loaded" ? (
        <VerdictBadge verdict={state.loaded.suite.verdict} />
      ) : (
        <Badge tone="idle">this service alone</Badge>
      )}
      <Item name="chain">{client.chainId}</Item>
      <Item name="block">
        {block.number.toLocaleString("en")} <code title={block.hash}>{shortHex(block.hash)}</code>
      </Item>
      <Item name="time">{formatTime(block.timestamp)}</Item>
      <Item name="endpoint">{new URL(settings.rpc).host}</Item>
      {state.is === "loaded" ? (
        <Item name="verified in">
          {(state.loaded.took / 1000).toFixed(1)} s, {client.calls().toLocaleString("en")} calls
        </Item>
      ) : null}
      {state.is === "loading" ? <Rest progress={state.progress} /> : null}
      <a href={linkTo("connect", route.draft)}>change</a>
      <button type="button" class="link" onClick={() => window.location.reload()}>
        read again
      </button>
    </div>
  );
}

/** What goes on while one service is shown already. */
function Rest({ progress: { step, detail, calls } }: { readonly progress: Progress }) {
  return (
    <span class="item rest">
      <span class="muted" role="status">
        the rest is being read
      </span>{" "}
      {STEPS[step]}
      {detail === "" ? "" : ` (${detail})`}, {calls.toLocaleString("en")} calls
    </span>
  );
}

function Item({ name, children }: { readonly name: string; readonly children: ComponentChildren }) {
  return (
    <span class="item">
      <span class="muted">{name}</span> {children}
    </span>
  );
}

/** A newest block that is not from now shows what held then. */
function Clock({ standing }: { readonly standing: Standing }) {
  const apart = standing.readAt / 1000 - standing.block.timestamp;
  if (Math.abs(apart) <= MAX_APART) return null;
  return (
    <p class="panel warn">
      The newest block is {formatDuration(Math.abs(apart))} {apart > 0 ? "older" : "newer"} than this machine's clock:
      what is shown held {apart > 0 ? "then" : "at the block's time"}. Use an endpoint that keeps up, and check the
      clock.
    </p>
  );
}
