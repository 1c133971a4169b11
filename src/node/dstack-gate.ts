import { createHash, timingSafeEqual } from "node:crypto";
import { BlockList, isIP } from "node:net";
import { getConnInfo } from "@hono/node-server/conninfo";
import { type Context, Hono } from "hono";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { createPlaces, createRateLimit, type Limits, unmapped } from "./limits.ts";

/*
 * Who may ask the dstack webhook. dstack's protocol has no authentication, and every answer costs proofs: so it has a listener of its own, and only addresses on
 * a list, or those that know a token, are answered. dstack-kms sends what stands before the @ of its webhook's URL (`http://dstack:TOKEN@HOST:PORT`) as Basic
 * authentication.
 */

/** Who may ask. At least one of them; where both are given, both must hold. */
export interface DstackGateOptions {
  /** Addresses and networks (`10.0.0.0/8`, `fd00::/8`) of dstack-kms: of the connection itself, never of a header. */
  readonly allow?: readonly string[] | undefined;
  readonly token?: string | undefined;
}

/** Shortest token, in characters: 16. */
export const SHORTEST_TOKEN = 16;
/** Requests that are answered at the same time: one for each machine that starts. */
const PLACES = 64;

/**
 * Whether a text is an address, or a network as address and length of its prefix.
 *
 * @example
 * isNetwork("192.0.2.0/24"); // true
 */
export function isNetwork(text: string): boolean {
  const [address = "", prefix, ...more] = text.split("/");
  const family = isIP(address);
  if (family === 0 || more.length > 0) return false;
  if (prefix === undefined) return true;
  return /^\d{1,3}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128);
}

/**
 * The webhook behind its gate.
 *
 * @param limits those of the node; the webhook has a few places of its own, so that it takes none from machines
 * @throws KeysteadError `config/invalid`: neither a list nor a token, an entry that is no address, or a token that is too short
 * @example
 * serve({ fetch: createGatedWebhook(createDstackWebhook({ decider }), { allow: ["10.0.0.7"] }, limits).fetch, port: 8701 });
 */
export function createGatedWebhook(webhook: Hono, options: DstackGateOptions, limits: Limits): Hono {
  const { allow, token } = options;
  if (allow === undefined && token === undefined)
    throw badGate("", "nobody could ask", "Give allow, tokenFile or both.");
  if (token !== undefined && token.length < SHORTEST_TOKEN) {
    const remedy = "Make a random one, e.g. with openssl rand -hex 32.";
    throw badGate(".tokenFile", `the token is shorter than ${SHORTEST_TOKEN} characters`, remedy);
  }
  const listed = allow === undefined ? undefined : networks(allow);
  const rate = createRateLimit(limits);
  const places = createPlaces({ concurrent: PLACES, timeoutMs: limits.timeoutMs });
  const app = new Hono({ strict: false });
  const deny = (context: Context, status: 401 | 403 | 429 | 500 | 503, reason: string) =>
    context.json({ isAllowed: false, gatewayAppId: "", reason }, status);

  app.use(async (context, next) => {
    const address = addressOf(context);
    if (listed?.(address) === false) return deny(context, 403, "this address may not ask");
    if (token !== undefined && !knows(context.req.header("authorization"), token)) {
      // Guesses have a rate. Whoever may ask has none: a KMS whose machines all start at once is no attack.
      await rate.take(address);
      context.header("www-authenticate", 'Basic realm="keystead"');
      return deny(context, 401, "the token is missing or wrong");
    }
    return await places.hold(next);
  });
  app.onError((error, context) => {
    const code = isKeysteadError(error) ? error.code : "";
    if (code === "request/too-many") return deny(context, 429, "too many requests");
    return code === "node/busy" ? deny(context, 503, "too busy") : deny(context, 500, "a defect");
  });
  app.route("/dstack", webhook);
  app.route("/", webhook);
  return app;
}

function networks(entries: readonly string[]): (address: string) => boolean {
  const list = new BlockList();
  for (const entry of entries) {
    if (!isNetwork(entry)) {
      throw badGate(".allow", `${entry} is not an address`, "Give addresses or networks such as 10.0.0.0/8.");
    }
    const [address = "", prefix] = entry.split("/");
    const family = isIP(address) === 4 ? "ipv4" : "ipv6";
    if (prefix === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(prefix), family);
  }
  return (address) => isIP(address) !== 0 && list.check(address, isIP(address) === 4 ? "ipv4" : "ipv6");
}

/** The token as Basic authentication's password or as a bearer's; compared in constant time. */
function knows(header: string | undefined, token: string): boolean {
  const [scheme = "", given = ""] = (header ?? "").split(" ");
  const basic = () =>
    Buffer.from(given, "base64")
      .toString("utf8")
      .replace(/^[^:]*:/, "");
  const offered = scheme.toLowerCase() === "basic" ? basic() : scheme.toLowerCase() === "bearer" ? given : "";
  return timingSafeEqual(sha256(offered), sha256(token));
}

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();

/** `app.request()` has no connection. */
function addressOf(context: Context): string {
  return unmapped(context.env?.incoming === undefined ? "none" : (getConnInfo(context).remote.address ?? "none"));
}

function badGate(setting: string, message: string, remedy: string): KeysteadError {
  return new KeysteadError("config/invalid", `dstackWebhook: ${message}`, {
    argument: `dstackWebhook${setting}`,
    remedy,
  });
}
