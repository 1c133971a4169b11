import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { Readable } from "node:stream";
import { rootCertificates } from "node:tls";
import { isKeysteadError, KeysteadError } from "../../core/errors.ts";

/*
 * One document from a vendor's server or its mirror, bounded in time and size, and errors that say what happened. A server is not trusted for what it
 * says: all of it is signed, and verified by who asked.
 */

/** The largest, a PCK CRL of 100,000 entries, has 3.6 MB. */
const MAX_BODY_BYTES = 16 * 1024 * 1024;
/** For one document. */
export const REQUEST_TIMEOUT_MS = 10_000;

/** The part of the global `fetch` that is used. */
export type FetchLike = (
  url: string,
  init: { readonly signal: AbortSignal; readonly redirect: "error" },
) => Promise<Response>;

/** A document as it came. */
export interface Answer {
  readonly url: string;
  readonly headers: Headers;
  readonly body: Uint8Array;
}

/** What {@link requestDocument} needs to know. */
export interface RequestOptions {
  readonly fetch: FetchLike;
  /** What is asked for, for people: `the TCB info of platform family 00806f050000`. */
  readonly what: string;
  /** Who is asked, for remedies: `the PCCS`. */
  readonly who: string;
  /** Default: {@link REQUEST_TIMEOUT_MS}. */
  readonly timeoutMs?: number | undefined;
}

const fail = (
  code: string,
  message: string,
  remedy: string,
  retryable: boolean,
  details: Readonly<Record<string, unknown>> = {},
  cause?: unknown,
) => new KeysteadError(`collateral/${code}`, message, { argument: "collateral", remedy, retryable, details, cause });

/**
 * Asks for one document.
 *
 * @throws KeysteadError `collateral/not-found`, `collateral/busy` {status, retryAfterSeconds} (429 and 5xx, retryable), `collateral/http-status` {status},
 * `collateral/too-large`; `collateral/tls`, `collateral/dns`, `collateral/refused`, `collateral/timeout`, `collateral/unreachable`, each {reason}: the
 * system's own name of what happened; all but `tls` retryable
 * @example
 * const { body } = await requestDocument(url, { fetch, what: "AMD's CRL of Milan", who: "AMD's KDS" });
 */
export async function requestDocument(url: string, options: RequestOptions): Promise<Answer> {
  const { fetch, what, who, timeoutMs = REQUEST_TIMEOUT_MS } = options;
  const { host } = new URL(url);
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs), redirect: "error" });
    const { status } = response;
    if (status === 404) throw fail("not-found", `${host} has no ${what} (404)`, `Check that ${who} serves it.`, false);
    if (status === 429 || status >= 500) {
      const retryAfterSeconds = readRetryAfter(response.headers);
      const message = `${host} answered ${status} to the request for ${what}`;
      throw fail("busy", message, `It may pass; else check ${who}.`, true, { status, retryAfterSeconds });
    }
    if (status !== 200) {
      const message = `${host} answered ${status} to the request for ${what}`;
      throw fail("http-status", message, `Check the address and the rights at ${who}.`, false, { status });
    }
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of response.body ?? []) {
      size += chunk.length;
      if (size > MAX_BODY_BYTES) {
        const message = `${host} answered with more than ${MAX_BODY_BYTES} bytes for ${what}`;
        throw fail("too-large", message, `Check ${who}.`, false);
      }
      chunks.push(chunk);
    }
    return { url, headers: response.headers, body: new Uint8Array(Buffer.concat(chunks)) };
  } catch (cause) {
    throw isKeysteadError(cause) ? cause : networkError(cause, { host, what, who, timeoutMs });
  }
}

/** Seconds, as a number of at most an hour; dates are not read. */
function readRetryAfter(headers: Headers): number | undefined {
  const text = headers.get("retry-after") ?? "";
  return /^\d{1,5}$/.test(text) ? Math.min(Number(text), 3600) : undefined;
}

/** The codes of Node, OpenSSL and libuv for what can go wrong before an answer. */
const REASONS: readonly (readonly [pattern: RegExp, code: string, says: string, remedy: string])[] = [
  [
    /SELF_SIGNED|UNABLE_TO_(GET|VERIFY)|CERT_UNTRUSTED/,
    "tls",
    "its certificate is not from a known authority (a PCCS has a self-signed one by default)",
    "Name its certificate, or its authority's, in evidence.pccs.caFile.",
  ],
  [/ALTNAME/, "tls", "its certificate is not for this host", "Use the name that the certificate has."],
  [
    /CERT_|ERR_TLS|ERR_SSL|ERR_OSSL|EPROTO|INVALID_|PATH_LENGTH|HOSTNAME/,
    "tls",
    "the TLS connection failed",
    "Check its certificate and its TLS settings.",
  ],
  [/ENOTFOUND|EAI_|ENODATA/, "dns", "its name is not known to DNS", "Check the address and this machine's DNS."],
  [/ECONNREFUSED/, "refused", "the connection was refused", "Check the port, and that the service runs."],
  [/TIMEOUT|TIMEDOUT|TimeoutError|AbortError/, "timeout", "it did not answer in time", "Check the network."],
];

interface Asked {
  readonly host: string;
  readonly what: string;
  readonly who: string;
  readonly timeoutMs: number;
}

function networkError(cause: unknown, { host, what, who, timeoutMs }: Asked): KeysteadError {
  const reason = reasonOf(cause);
  const [, code, says, remedy] = REASONS.find(([pattern]) => pattern.test(reason)) ?? [
    undefined,
    "unreachable",
    "the connection failed",
    `Check the network and ${who}.`,
  ];
  const after = code === "timeout" ? ` (${timeoutMs} ms)` : "";
  const message = `${host} could not be asked for ${what}: ${says}${after}${reason === "" ? "" : ` [${reason}]`}`;
  return fail(code, message, remedy, code !== "tls", { reason }, cause);
}

/** `fetch` hides the system's error as a cause, and where several addresses failed, as a list. */
function reasonOf(error: unknown, depth = 0): string {
  if (!(error instanceof Error) || depth > 4) return "";
  if ("code" in error && typeof error.code === "string") return error.code;
  if (error instanceof AggregateError) return reasonOf(error.errors[0], depth + 1);
  if (error.cause !== undefined) return reasonOf(error.cause, depth + 1);
  return /^(TimeoutError|AbortError)$/.test(error.name) ? error.name : "";
}

/**
 * A `fetch` that also believes certificates under an authority of one's own, as a PCCS has.
 *
 * @param ca PEM certificates, beside those that Node knows
 * @example
 * const fetch = createFetchWithCa(await readFile("pccs.pem", "utf8"));
 */
export function createFetchWithCa(ca: string): FetchLike {
  return (url, { signal }) =>
    new Promise((resolve, reject) => {
      const secure = new URL(url).protocol === "https:";
      const options = { signal, ...(secure ? { ca: [...rootCertificates, ca] } : {}) };
      const sent = (secure ? httpsRequest : httpRequest)(url, options, (answer) => {
        const { statusCode: status = 0, headers } = answer;
        if (status < 200 || status > 599 || (status >= 300 && status < 400)) {
          answer.destroy();
          reject(new Error(`unexpected status ${status}`));
          return;
        }
        const pairs = Object.entries(headers).flatMap(([name, value]): [string, string][] =>
          value === undefined ? [] : [[name, String(value)]],
        );
        const empty = status === 204 || status === 205 || status === 304;
        const body = empty ? null : (Readable.toWeb(answer) as ReadableStream<Uint8Array>);
        resolve(new Response(body, { status, headers: pairs }));
      });
      sent.on("error", reject);
      sent.end();
    });
}
