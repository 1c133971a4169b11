import { extname } from "node:path";
import { Hono } from "hono";
import type { StaticFiles } from "./build.ts";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Where the page may connect to if no endpoint is named: anything over TLS, and this machine. */
const ANY_ENDPOINT = ["https:", "http://127.0.0.1:*", "http://localhost:*"];

/**
 * The page's content security policy: scripts and styles from its own files alone, no markup made from strings, connections to the given endpoints.
 *
 * @param endpoints URLs; none: anything over TLS, and this machine
 * @example
 * contentSecurityPolicy(["https://rpc.example/key"]); // "default-src 'none'; … connect-src https://rpc.example; …"
 */
export function contentSecurityPolicy(endpoints: readonly string[]): string {
  const connect = endpoints.length === 0 ? ANY_ENDPOINT : endpoints.map((url) => new URL(url).origin);
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    `connect-src ${[...new Set(connect)].join(" ")}`,
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join("; ");
}

/**
 * A server of the page's files and nothing else: it knows no path that is not one of them, reads no file while it runs, and logs nothing.
 *
 * @param endpoints as {@link contentSecurityPolicy}
 * @param opening a path that leads to the page with a fragment, for one that must not be printed
 * @example
 * const response = await createExplorerApp(files, []).request("/");
 */
export function createExplorerApp(
  files: StaticFiles,
  endpoints: readonly string[],
  opening?: { readonly path: string; readonly fragment: string },
): Hono {
  const app = new Hono();
  const policy = contentSecurityPolicy(endpoints);
  app.use(async (context, next) => {
    await next();
    context.header("Content-Security-Policy", policy);
    context.header("X-Content-Type-Options", "nosniff");
    context.header("Referrer-Policy", "no-referrer");
    context.header("X-Frame-Options", "DENY");
    context.header("Cross-Origin-Opener-Policy", "same-origin");
    context.header("Cross-Origin-Resource-Policy", "same-origin");
    context.header("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()");
  });
  if (opening !== undefined) app.get(opening.path, (context) => context.redirect(`/${opening.fragment}`));
  app.get("*", (context) => {
    const path = context.req.path === "/" ? "/index.html" : context.req.path;
    const file = files.get(path);
    if (file === undefined) return context.text("There is no such file.\n", 404);
    const forGood = path.startsWith("/assets/");
    context.header("Content-Type", TYPES[extname(path)] ?? "application/octet-stream");
    context.header("Cache-Control", forGood ? "public, max-age=31536000, immutable" : "no-cache");
    return context.body(file);
  });
  app.all("*", (context) => context.text("Only GET and HEAD are answered.\n", 405, { Allow: "GET, HEAD" }));
  return app;
}
