import { Hono } from "hono";
import { cors } from "hono/cors";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import { escapeJson } from "../core/printable.ts";
import { PAGE_POLICY, renderPage } from "./html.ts";
import type { ServiceAudit } from "./result.ts";
import { describeUpdates, NOT_UPGRADEABLE } from "./vm-updates.ts";
import { failurePage, updatesPage } from "./vm-updates-page.ts";

/** The port that clients of SecretVM's attestation server ask. */
export const VM_UPDATES_PORT = 29343;

/** Where the answer is: SecretVM's documentation says `vm_updates`, its server `vm_upgrades`. */
export const VM_UPDATES_PATHS = [
  "/vm_updates",
  "/vm_upgrades",
  "/.well-known/vm_updates",
  "/.well-known/vm_upgrades",
] as const;

/** What the server needs. */
export interface VmUpdatesOptions {
  /** The machine's service; undefined: it has none, and so can't be upgraded. */
  readonly serviceId: Hex | undefined;
  /** Reads and verifies the service's history, e.g. `() => auditService(client, registry, serviceId, { at: "finalized" })`. */
  readonly read: () => Promise<ServiceAudit>;
  /** Milliseconds for which an answer is given again: anyone may ask, and each reading costs the endpoint calls. Default: 5000. */
  readonly keep?: number | undefined;
  /** Milliseconds after which a caller is told that the chain does not answer. Default: 20000. */
  readonly patience?: number | undefined;
  /** How far, in seconds, the block of an answer may be from this machine's time. Default: 3600. */
  readonly maxAge?: number | undefined;
  /** Milliseconds since 1970. */
  readonly clock?: (() => number) | undefined;
}

type Status = 200 | 404 | 502 | 503;
interface Answer {
  readonly status: Status;
  readonly body: JsonObject;
}

/**
 * The `/vm_updates` server: JSON for programs, `.html` for people, both under `/.well-known/` too. Never an empty answer where something could not be
 * checked: `proof.verified` is false and `proof.reasons` says why.
 *
 * 200 the service's images and history, verified as far as `proof` says · 404 no such path, or no such service · 405 · 502 the endpoint's history does not
 * verify, so none of it is shown · 503 the chain can't be asked; `last_verified` is what was known before, and `Retry-After` is set
 *
 * @example
 * const app = createVmUpdatesApp({ serviceId, read: () => auditService(client, registry, serviceId, { at: "finalized" }) });
 * const response = await app.request("/vm_updates");
 */
export function createVmUpdatesApp(options: VmUpdatesOptions): Hono {
  const { serviceId } = options;
  const answer = serviceId === undefined ? async () => NO_SERVICE : createReader(serviceId, options);
  const app = new Hono();
  app.use(cors({ origin: "*", allowMethods: ["GET", "HEAD"] }));
  app.use(async (context, next) => {
    await next();
    context.header("X-Content-Type-Options", "nosniff");
    context.header("Referrer-Policy", "no-referrer");
    context.header("Cache-Control", "no-store");
  });
  for (const path of VM_UPDATES_PATHS) {
    app.get(path, async (context) => {
      const { status, body } = await answer();
      if (status === 503) context.header("Retry-After", "5");
      return context.body(escapeJson(JSON.stringify(body)), status, { "Content-Type": "application/json" });
    });
    app.get(`${path}.html`, async (context) => {
      const { status, body } = await answer();
      const page = await renderPage(status === 200 ? updatesPage(body) : failurePage(body));
      return context.html(page, status, { "Content-Security-Policy": PAGE_POLICY });
    });
    for (const each of [path, `${path}.html`]) {
      app.all(each, (context) => {
        context.header("Allow", "GET, HEAD, OPTIONS");
        return context.json({ error: "Method not allowed", details: "Use GET." }, 405);
      });
    }
  }
  app.notFound((context) => context.json({ error: "Not found", details: `Ask for ${VM_UPDATES_PATHS[0]}.` }, 404));
  app.onError((_error, context) =>
    context.json({ error: "Internal error", details: "The answer could not be written.", proof: UNVERIFIED }, 500),
  );
  return app;
}

const NO_SERVICE: Answer = { status: 200, body: { message: NOT_UPGRADEABLE } };
const UNVERIFIED = { verified: false, reasons: [{ code: "internal", message: "the server failed" }] };

/** One reading at a time, kept for a while, and never longer waited for than a caller has patience. */
function createReader(serviceId: Hex, options: VmUpdatesOptions): () => Promise<Answer> {
  const { read, keep = 5000, patience = 20_000, maxAge = 3600, clock = Date.now } = options;
  let lastVerified: JsonObject | null = null;
  let kept: { readonly until: number; readonly answer: Answer } | undefined;
  let running: Promise<Answer> | undefined;

  const failure = (status: Status, error: string, code: string, message: string): Answer => ({
    status,
    body: {
      error,
      details: message,
      service_id: serviceId,
      proof: { verified: false, reasons: [{ code, message }] },
      last_verified: lastVerified,
    },
  });
  const readOnce = async (): Promise<Answer> => {
    try {
      return judge(await read());
    } catch (cause) {
      if (!isKeysteadError(cause)) return failure(503, "The chain can't be read", "internal", "the reading failed");
      if (cause.code === "audit/no-service") return failure(404, "Service not found", cause.code, cause.message);
      return failure(503, "The chain can't be read", cause.code, cause.message);
    }
  };
  const judge = (audit: ServiceAudit): Answer => {
    if (audit.verdict === "broken" || audit.state === undefined) {
      const codes = [...new Set(audit.faults.map(({ code }) => code))].join(", ");
      const message = `the history that the endpoint gives does not verify: ${codes}`;
      return failure(502, "The history is broken", "audit/broken-history", message);
    }
    const age = Math.round(clock() / 1000 - audit.block.timestamp);
    // A block ahead of the clock shows images that are pending as active.
    if (Math.abs(age) > maxAge) {
      const when = age > 0 ? `${age} s old` : `${-age} s ahead of this machine's time`;
      const message = `block ${audit.block.number}, the newest that the endpoint has, is ${when}`;
      return failure(503, "The chain stands still", "chain/not-now", message);
    }
    const body = describeUpdates(audit, audit.state);
    if (audit.verdict === "proven") lastVerified = body;
    return { status: 200, body };
  };
  return async () => {
    if (kept !== undefined && clock() < kept.until) return kept.answer;
    running ??= readOnce().then((answer) => {
      kept = { until: clock() + keep, answer };
      running = undefined;
      return answer;
    });
    const late = Promise.withResolvers<Answer>();
    const timer = setTimeout(
      () => late.resolve(failure(503, "The chain can't be read", "chain/unreachable", "the chain does not answer")),
      patience,
    );
    try {
      return await Promise.race([running, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  };
}
