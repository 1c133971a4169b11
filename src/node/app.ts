import { getConnInfo } from "@hono/node-server/conninfo";
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context, MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { routePath } from "hono/route";
import { secureHeaders } from "hono/secure-headers";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { z } from "zod";
import { decodeUtf8, type Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import {
  keysRequestSchema,
  type NodeInfo,
  type Problem,
  parseMessage,
  type ReceiptsPage,
  rootRequestSchema,
} from "../core/release-wire.ts";
import { describeTcb } from "../core/tcb.ts";
import type { Challenges } from "./challenge.ts";
import { createPlaces, createRateLimit, type Limits } from "./limits.ts";
import type { Metrics } from "./metrics.ts";
import { describeApi } from "./openapi.ts";
import { toProblem } from "./problem.ts";
import type { ReceiptLog } from "./receipts.ts";
import type { Released, Releaser } from "./release.ts";

/** The part of a pino logger that is used. No call is ever given a request's body, an answer, or an error's cause. */
export interface NodeLog {
  readonly info: (fields: object, message: string) => void;
  readonly warn: (fields: object, message: string) => void;
  readonly error: (fields: object, message: string) => void;
}

/** What the routes are made of. */
export interface NodeAppOptions {
  readonly releaser: Releaser;
  readonly challenges: Pick<Challenges, "issue">;
  readonly receipts: Pick<ReceiptLog, "page">;
  readonly info: () => NodeInfo;
  /** Reasons why the node cannot answer, by their codes; none: it is ready. */
  readonly notReady: () => readonly string[];
  /** Whether running nodes may get the root secrets here. */
  readonly shareRoot: boolean;
  readonly limits: Limits;
  readonly metrics: Metrics;
  readonly log: NodeLog;
}

const PAGE_LIMIT = 100;
const PROBLEM_TYPE = "application/problem+json";

/**
 * The routes of a node. `app.request()` answers without a port.
 *
 * @example
 * const response = await createNodeApp(options).request("/v1/challenge", { method: "POST" });
 */
export function createNodeApp(options: NodeAppOptions): OpenAPIHono {
  const { releaser, challenges, receipts, limits, metrics, log } = options;
  const app = new OpenAPIHono();
  const rate = createRateLimit(limits);
  const places = createPlaces(limits);
  /** What became of a request for secrets, for its line in the log. */
  const outcomes = new WeakMap<Context, { readonly message: string; readonly fields: object }>();
  describeApi(app, options);

  const fail = (context: Context, error: unknown): Response => {
    const problem = toProblem(error);
    if (!isKeysteadError(error)) {
      // A defect: its stack helps, and holds no value that a request or a secret gave.
      log.error({ stack: error instanceof Error ? stackOf(error) : typeof error }, "an unexpected error");
    } else if (problem.status === 503) {
      log.warn({ code: error.code, reason: error.details.reason, message: error.message }, "could not answer");
    }
    return sendProblem(context, problem, retryAfter(error));
  };

  app.use(async (context, next) => {
    const start = performance.now();
    metrics.inFlight.inc();
    await next();
    metrics.inFlight.dec();
    // The pattern that matched, never the path: that is the requester's to choose.
    const found = routePath(context, -1);
    const route = context.res.status === 404 || found.includes("*") ? "other" : found;
    const { status } = context.res;
    const seconds = (performance.now() - start) / 1000;
    metrics.requests.inc({ route, method: knownMethod(context.req.method), status });
    metrics.seconds.observe({ route }, seconds);
    const { message, fields } = outcomes.get(context) ?? { message: "request", fields: {} };
    const ms = Math.round(seconds * 1000);
    log.info({ method: knownMethod(context.req.method), route, status, ms, ...fields }, message);
  });
  app.use(secureHeaders());
  app.use(async (context, next) => {
    context.header("cache-control", "no-store");
    await next();
  });
  app.onError((error, context) => fail(context, error));
  app.notFound((context) =>
    fail(
      context,
      new KeysteadError(
        "request/not-found",
        `nothing here answers ${knownMethod(context.req.method)}: /openapi.json lists what does`,
        { remedy: "See /openapi.json for what there is." },
      ),
    ),
  );

  app.get("/health", (context) => context.json({ status: "ok" }));
  app.get("/ready", (context) => {
    const reasons = options.notReady();
    return context.json({ ready: reasons.length === 0, reasons }, reasons.length === 0 ? 200 : 503);
  });
  app.get("/metrics", async (context) => {
    const text = await metrics.registry.metrics();
    return context.body(text, 200, { "content-type": metrics.registry.contentType });
  });

  const limited = async (context: Context, next: () => Promise<void>) => {
    await rate.take(addressOf(context, limits.forwardedHops));
    await next();
  };
  app.use("/v1/*", limited);
  // Pages of other origins may read what the node says to everyone.
  app.on(["GET", "OPTIONS"], "/v1/*", cors({ origin: "*", allowMethods: ["GET"] }));
  app.post("/v1/*", limitBody(limits.maxBodyBytes));

  app.get("/v1/info", (context) => context.json(options.info()));
  app.post("/v1/challenge", (context) => context.json(challenges.issue()));
  app.get("/v1/secrets-key/:service", async (context) => {
    const serviceId = readServiceId(context.req.param("service"));
    return context.json(await places.hold(() => releaser.secretsKey(serviceId)));
  });
  app.get("/v1/receipts", async (context) => {
    const after = readWhole(context.req.query("after"), "after", 0, Number.MAX_SAFE_INTEGER) ?? 0;
    const limit = readWhole(context.req.query("limit"), "limit", 1, PAGE_LIMIT) ?? PAGE_LIMIT;
    const page = await receipts.page(after, limit);
    const last = page.at(-1)?.sequence;
    const answer: ReceiptsPage = {
      receipts: [...page],
      ...(page.length === limit && last !== undefined ? { next: last } : {}),
    };
    return context.json(answer);
  });

  /** A request for secrets: counted by what came of it, and logged by what the receipt says anyway. */
  const release = async <
    Q extends { readonly evidence: { readonly kind: string }; readonly serviceId?: Hex },
    A extends { readonly receipt: Receipted },
  >(
    context: Context,
    what: "keys" | "root",
    schema: z.ZodType<Q>,
    act: (request: Q) => Promise<Released<A>>,
  ): Promise<Response> => {
    let kind = "unknown";
    let asked: { readonly serviceId?: Hex } = {};
    try {
      const request = parseMessage(schema, await readBody(context), "request");
      kind = request.evidence.kind;
      if (request.serviceId !== undefined) asked = { serviceId: request.serviceId };
      const { answer, sequence, tcb } = await places.hold(() => act(request));
      const { message, testTee } = answer.receipt;
      metrics.releases.inc({ what, kind, outcome: "released" });
      const { serviceId, imageId, platformId, blockNumber } = message;
      const fields = { what, kind, serviceId, imageId, platformId, blockNumber, sequence, testTee, tcb };
      outcomes.set(context, { message: "released", fields });
      return context.json(answer);
    } catch (error) {
      const problem = toProblem(error);
      metrics.releases.inc({ what, kind, outcome: problem.code });
      const { code, reason, decision } = problem;
      const tcb = problem.tcb === undefined ? undefined : describeTcb(problem.tcb);
      const blockNumber = problem.block?.number;
      outcomes.set(context, {
        message: "not released",
        fields: { what, kind, ...asked, code, reason, decision, blockNumber, tcb },
      });
      throw error;
    }
  };
  app.post("/v1/keys", (context) => release(context, "keys", keysRequestSchema, releaser.releaseKeys));
  if (options.shareRoot)
    app.post("/v1/root", (context) => release(context, "root", rootRequestSchema, releaser.releaseRoot));
  return app;
}

/** Refuses longer bodies. Where the length is declared, which the HTTP parser holds a sender to, nothing is read for that. */
function limitBody(maxSize: number): MiddlewareHandler {
  const onError = () => {
    throw new KeysteadError("request/too-large", `a body may have ${maxSize} bytes`, {
      remedy: "Send evidence and certificates alone.",
    });
  };
  const limitUndeclared = bodyLimit({ maxSize, onError });
  return async (context, next) => {
    const declared = context.req.header("content-length");
    if (declared === undefined || context.req.header("transfer-encoding") !== undefined)
      return await limitUndeclared(context, next);
    if (!(Number(declared) <= maxSize)) onError();
    return await next();
  };
}

interface Receipted {
  readonly testTee: boolean;
  readonly message: {
    readonly serviceId?: Hex;
    readonly imageId: Hex;
    readonly platformId: Hex;
    readonly blockNumber: string;
  };
}

function sendProblem(context: Context, problem: Problem, retryAfterSeconds: number | undefined): Response {
  if (retryAfterSeconds !== undefined) context.header("retry-after", String(retryAfterSeconds));
  context.header("cache-control", "no-store");
  return context.body(JSON.stringify(problem), problem.status as ContentfulStatusCode, {
    "content-type": PROBLEM_TYPE,
  });
}

function retryAfter(error: unknown): number | undefined {
  const seconds = isKeysteadError(error) ? error.details.retryAfterSeconds : undefined;
  return typeof seconds === "number" ? seconds : undefined;
}

/** Name and places of the code; not the message, which may quote input. */
function stackOf(error: Error): string {
  const frames = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  return [error.name, ...frames.slice(0, 12)].join("\n");
}

async function readBody(context: Context): Promise<string> {
  return decodeUtf8(new Uint8Array(await context.req.arrayBuffer()), "request");
}

const METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"];
const knownMethod = (method: string): string => (METHODS.includes(method) ? method : "other");

/** Where the request is from: the connection, or what the operator's own proxies say. */
function addressOf(context: Context, forwardedHops: number): string {
  const forwarded = context.req
    .header("x-forwarded-for")
    ?.split(",")
    .map((entry) => entry.trim());
  const entry = forwardedHops > 0 ? forwarded?.at(-forwardedHops) : undefined;
  if (entry !== undefined && entry !== "") return entry.slice(0, 64);
  // `app.request()` has no connection.
  return context.env?.incoming === undefined ? "none" : (getConnInfo(context).remote.address ?? "none");
}

const malformed = (message: string, argument: string) =>
  new KeysteadError("request/malformed", message, {
    argument,
    remedy: "See /openapi.json.",
    details: { reason: argument },
  });

function readServiceId(text: string): Hex {
  const match = /^(?:0x)?([0-9a-fA-F]{40})$/.exec(text)?.[1];
  if (match === undefined) throw malformed("a service id is 20 bytes in hex", "service");
  return `0x${match.toLowerCase()}`;
}

function readWhole(text: string | undefined, name: string, least: number, most: number): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw malformed(`${name} is a whole number from ${least} to ${most}`, name);
}
