import { KeysteadError } from "../core/errors.ts";
import type { Eip1193Provider } from "./client.ts";

/** The longest answer that is read, in bytes: a wide `eth_getLogs` stays below it, and an endpoint can't fill the memory. */
export const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/**
 * JSON-RPC over HTTP with the platform's own `fetch`, so that it runs in a browser too. Each call is one request with a time limit and a size limit.
 *
 * @param url `http:` or `https:`
 * @param timeout milliseconds a call may take
 * @param meter gets the bytes of each body sent and received
 * @throws KeysteadError `chain/bad-endpoint`; calls throw `chain/unreachable`, `chain/rate-limited` (retryable) and the endpoint's own errors as
 * `{code, message}`
 * @example
 * await httpTransport("http://127.0.0.1:8545", 30_000).request({ method: "eth_chainId" });
 */
export function httpTransport(
  url: string,
  timeout: number,
  meter: (bytes: number) => void = () => {},
): Eip1193Provider {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new KeysteadError("chain/bad-endpoint", "the endpoint is no http or https URL", {
      argument: "endpoint",
      remedy: "Give a URL such as https://rpc.example.",
    });
  }
  let id = 0;
  return {
    async request({ method, params = [] }) {
      id += 1;
      const body = JSON.stringify({ jsonrpc: "2.0", id, method, params });
      const { status, text } = await post(url, body, timeout, method, meter);
      if (status === 429) {
        throw unreachable("rate-limited", method, "it asks to slow down", "Try again later, or use another endpoint.");
      }
      let answer: { result?: unknown; error?: { code?: unknown; message?: unknown; data?: unknown } };
      try {
        answer = JSON.parse(text);
      } catch (cause) {
        throw unreachable("unreachable", method, `HTTP ${status} without JSON`, "Check the endpoint.", cause);
      }
      if (answer?.error) {
        const { code, message, data } = answer.error;
        throw { code: Number(code), message: String(message), data };
      }
      if (typeof answer !== "object" || answer === null || !("result" in answer)) {
        throw unreachable("unreachable", method, `HTTP ${status} without a result`, "Check the endpoint.");
      }
      return answer.result;
    },
  };
}

async function post(url: string, body: string, timeout: number, method: string, meter: (bytes: number) => void) {
  meter(body.length);
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
      signal: AbortSignal.timeout(timeout),
    });
    return { status: response.status, text: await readBounded(response, meter) };
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw unreachable("unreachable", method, why, "Check the endpoint and the network, and try again.", cause);
  }
}

async function readBounded(response: Response, meter: (bytes: number) => void): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  // a reader and no `for await`: not every browser can iterate over a stream
  const reader = response.body?.getReader();
  for (;;) {
    const chunk = (await reader?.read())?.value;
    if (chunk === undefined) return text + decoder.decode();
    bytes += chunk.length;
    meter(chunk.length);
    if (bytes > MAX_ANSWER_BYTES) {
      await reader?.cancel();
      throw new Error(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`);
    }
    text += decoder.decode(chunk, { stream: true });
  }
}

function unreachable(code: string, method: string, why: string, remedy: string, cause?: unknown): KeysteadError {
  return new KeysteadError(`chain/${code}`, `${method}: ${why}`, {
    remedy,
    retryable: true,
    details: { method },
    cause,
  });
}
