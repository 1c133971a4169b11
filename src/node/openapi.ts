import { type OpenAPIHono, z } from "@hono/zod-openapi";
import manifest from "../../package.json" with { type: "json" };
import {
  challengeSchema,
  infoSchema,
  keysRequestSchema,
  keysResponseSchema,
  PROBLEMS,
  problemSchema,
  receiptsPageSchema,
  rootRequestSchema,
  rootResponseSchema,
  secretsKeySchema,
} from "../core/release-wire.ts";

const json = (schema: z.ZodType, description: string) => ({
  description,
  content: { "application/json": { schema } },
});
const body = (schema: z.ZodType) => ({ body: { required: true, content: { "application/json": { schema } } } });

const RETRY_AFTER = { "Retry-After": { description: "Seconds", schema: { type: "integer", minimum: 1 } } } as const;

/** Problem documents by status, each with the codes that it may have. */
function problems(...statuses: readonly number[]) {
  const codes = Object.entries(PROBLEMS);
  return Object.fromEntries(
    statuses.map((status) => {
      const named = codes.filter(([, problem]) => problem.status === status).map(([code]) => code);
      const schema = problemSchema.extend({ status: z.literal(status), code: z.enum(named) });
      const content = { "application/problem+json": { schema } };
      const description = named.map((code) => `\`${code}\``).join(", ");
      return [status, { description, content, ...(status === 429 ? { headers: RETRY_AFTER } : {}) }];
    }),
  );
}

/**
 * Describes a node's routes, from the schemas that check its messages, at `/openapi.json` (OpenAPI 3.1).
 *
 * @example
 * describeApi(app, { shareRoot: true });
 */
export function describeApi(app: OpenAPIHono, { shareRoot }: { readonly shareRoot: boolean }): void {
  const { openAPIRegistry: registry } = app;
  registry.registerPath({
    method: "get",
    path: "/v1/info",
    summary: "What this node is",
    responses: { 200: json(infoSchema, "The node"), ...problems(429, 503) },
  });
  registry.registerPath({
    method: "post",
    path: "/v1/challenge",
    summary: "A nonce for one request, good for a short time",
    responses: { 200: json(challengeSchema, "The nonce"), ...problems(413, 429, 503) },
  });
  registry.registerPath({
    method: "post",
    path: "/v1/keys",
    summary: "A service's keys, sealed to an attested machine",
    request: body(keysRequestSchema),
    responses: {
      200: json(keysResponseSchema, "Sealed keys and the receipt"),
      ...problems(400, 401, 403, 409, 413, 429, 503),
    },
  });
  if (shareRoot) {
    registry.registerPath({
      method: "post",
      path: "/v1/root",
      summary: "The root secrets, sealed to another node that the policy allows",
      request: body(rootRequestSchema),
      responses: {
        200: json(rootResponseSchema, "Sealed root secrets and the receipt"),
        ...problems(400, 401, 403, 409, 413, 429, 503),
      },
    });
  }
  registry.registerPath({
    method: "get",
    path: "/v1/secrets-key/{service}",
    summary: "The key to which a service's environment secrets are sealed, signed by the node",
    request: { params: z.object({ service: z.string().regex(/^(?:0x)?[0-9a-fA-F]{40}$/) }) },
    responses: { 200: json(secretsKeySchema, "The key"), ...problems(400, 429, 503) },
  });
  registry.registerPath({
    method: "get",
    path: "/v1/receipts",
    summary: "The receipts of every release, oldest first",
    request: {
      query: z.object({
        after: z.int().min(0).optional().describe("The last sequence number seen"),
        limit: z.int().min(1).max(100).optional().describe("Default: 100"),
      }),
    },
    responses: { 200: json(receiptsPageSchema, "A page"), ...problems(400, 429, 503) },
  });
  const ready = z.object({ ready: z.boolean(), reasons: z.array(z.string()) });
  registry.registerPath({
    method: "get",
    path: "/health",
    summary: "Whether the process runs",
    responses: { 200: json(z.object({ status: z.literal("ok") }), "It does") },
  });
  registry.registerPath({
    method: "get",
    path: "/ready",
    summary: "Whether releases can be decided now",
    responses: { 200: json(ready, "They can"), 503: json(ready, "They cannot, for these reasons") },
  });
  registry.registerPath({
    method: "get",
    path: "/metrics",
    summary: "Metrics for Prometheus",
    responses: { 200: { description: "Metrics", content: { "text/plain": { schema: z.string() } } } },
  });
  app.doc31("/openapi.json", {
    openapi: "3.1.0",
    info: { title: "Keystead node", version: manifest.version, license: { name: manifest.license } },
  });
}
