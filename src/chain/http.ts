import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { printable } from "../core/printable.ts";
import { type AnswerMeter, meterAnswer } from "./answer-size.ts";
import type { Eip1193Provider } from "./client.ts";
import { parseEndpoint } from "./endpoint-url.ts";

/** How an endpoint is spoken to. */
export interface HttpOptions {
  /** Gets the bytes of each body sent and received. */
  readonly meter?: ((bytes: number) => void) | undefined;
  /** The longest list of logs that is read, in bytes. */
  readonly maxLogBytes?: number | undefined;
}

/**
 * JSON-RPC over HTTP with the platform's own `fetch`, so that it runs in a browser too. Each call is one request with a time limit, and with limits of size,
 * depth and density that its method sets. A user and password in the URL are sent as Basic authentication. Nothing that is thrown repeats any part of the
 * URL that may be a secret, not even where the endpoint's own words do.
 *
 * @param url `http:` or `https:`
 * @param timeout milliseconds a call may take
 * @throws KeysteadError `chain/bad-endpoint`; calls throw `chain/unreachable`, `chain/rate-limited` (retryable), `chain/refused`, `chain/too-much` and the
 * endpoint's own errors as `{code, message, data, status}`
 * @example
 * await httpTransport("http://127.0.0.1:8545", 30_000).request({ method: "eth_chainId" });
 */
export function httpTransport(url: string, timeout: number, options: HttpOptions = {}): Eip1193Provider {
  const { meter = () => {}, maxLogBytes } = options;
  const { address, authorization, scrub } = parseEndpoint(url);
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (authorization !== undefined) headers.authorization = authorization;
  let id = 0;

  const post = async (body: string, method: string) => {
    meter(body.length);
    try {
      const signal = AbortSignal.timeout(timeout);
      const response = await fetch(address, { method: "POST", headers, body, signal });
      return { status: response.status, text: await readBounded(response, meterAnswer(method, maxLogBytes), meter) };
    } catch (cause) {
      if (isKeysteadError(cause)) throw cause;
      const why = scrub(cause instanceof Error ? reasonOf(cause) : String(cause));
      const timedOut = cause instanceof Error && cause.name === "TimeoutError";
      const remedy = "Check the endpoint and the network, and try again.";
      throw failure("unreachable", method, why, remedy, { network: true, timedOut });
    }
  };

  return {
    async request({ method, params = [] }) {
      id += 1;
      const { status, text } = await post(JSON.stringify({ jsonrpc: "2.0", id, method, params }), method);
      let answer: unknown;
      try {
        answer = JSON.parse(text);
      } catch {
        if (status === 429) throw tooFast(method);
        throw withoutResult(method, status, "without JSON", scrub(text));
      }
      const { error } = isObject(answer) ? answer : {};
      if (isObject(error)) {
        const { code, message, data } = error;
        const told = typeof message === "string" ? scrub(message) : "an error without a message";
        throw { code: Number(code), message: told, data: typeof data === "string" ? scrub(data) : data, status };
      }
      if (status === 429) throw tooFast(method);
      if (typeof error === "string") throw withoutResult(method, status, "with an error", scrub(error), false);
      if (isObject(answer) && "result" in answer) return answer.result;
      const said = isObject(answer) && typeof answer.message === "string" ? scrub(answer.message) : "";
      throw withoutResult(method, status, "without a result", said);
    },
  };
}

type Fields = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** `fetch` says "fetch failed"; why is in its cause (`ECONNREFUSED`, `ENOTFOUND`, a certificate). */
function reasonOf(error: Error): string {
  const { cause } = error;
  if (!(cause instanceof Error)) return error.message;
  const code = (cause as { code?: unknown }).code;
  return `${error.message} (${cause.message === "" ? String(code ?? cause.name) : cause.message})`;
}

async function readBounded(response: Response, limit: AnswerMeter, meter: (bytes: number) => void): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  // a reader and no `for await`: not every browser can iterate over a stream
  const reader = response.body?.getReader();
  for (;;) {
    const chunk = (await reader?.read())?.value;
    if (chunk === undefined) return text + decoder.decode();
    meter(chunk.length);
    try {
      limit(chunk);
    } catch (error) {
      await reader?.cancel().catch(() => {});
      throw error;
    }
    text += decoder.decode(chunk, { stream: true });
  }
}

/** An HTTP answer that is none of JSON-RPC's. Who is turned away (401, 403, 404) is not let in by asking again. */
function withoutResult(method: string, status: number, how: string, said: string, may = true): KeysteadError {
  const words = printable(said.replace(/\s+/g, " ").trim(), 120);
  const why = `HTTP ${status} ${how}${words === "" || words.startsWith("<") ? "" : `: ${words}`}`;
  const final = status >= 400 && status < 500 && ![408, 425].includes(status);
  if (final || !may) return failure("refused", method, why, "Check the endpoint's URL, its key, and your plan there.");
  return failure("unreachable", method, why, "Check the endpoint.");
}

const tooFast = (method: string) =>
  failure("rate-limited", method, "it asks to slow down", "Try again later, or use another endpoint.");

function failure(code: string, method: string, why: string, remedy: string, more: object = {}): KeysteadError {
  const retryable = code !== "refused";
  return new KeysteadError(`chain/${code}`, `${method}: ${why}`, { remedy, retryable, details: { method, ...more } });
}
