import { createHmac, randomUUID } from "node:crypto";
import { KeysteadError } from "../core/errors.ts";
import type { Io } from "./io.ts";

/** Where and how to tell. */
export interface WebhookOptions {
  /** `http:` or `https:`. */
  readonly url: string;
  /** The key of the signature, known to the receiver. */
  readonly secret: string;
  /** How often a message is sent at most. Default: 6. */
  readonly attempts?: number | undefined;
  /** Milliseconds before the second attempt; doubles with each. Default: 1000. */
  readonly backoff?: number | undefined;
  /** Milliseconds that one attempt may take. Default: 10000. */
  readonly timeout?: number | undefined;
}

/** The headers that carry the signature: `sha256=` and HMAC-SHA-256 in hex of the time, a full stop and the body. */
export const SIGNATURE_HEADER = "x-keystead-signature";
/** Seconds since 1970 at which it was sent: a receiver refuses old ones, so that none can be played again. */
export const TIMESTAMP_HEADER = "x-keystead-timestamp";
/** The same for every attempt at one message. */
export const DELIVERY_HEADER = "x-keystead-delivery";

/** Where the webhook's secret is: in a command line other users of a machine could read it. */
export const SECRET_VARIABLE = "KEYSTEAD_WEBHOOK_SECRET";

/**
 * The webhook that options name; one that does nothing where they name none.
 *
 * @throws KeysteadError `usage/webhook-secret`; as {@link createWebhook}
 * @example
 * const tell = openWebhook(io, command.opts().webhook);
 */
export function openWebhook({ env }: Pick<Io, "env">, url: unknown): (message: unknown) => Promise<void> {
  if (url === undefined) return async () => {};
  const secret = env[SECRET_VARIABLE];
  if (secret === undefined || secret === "") {
    throw new KeysteadError("usage/webhook-secret", "a webhook's messages are signed, and there is no key", {
      argument: "webhook-secret",
      remedy: `Set ${SECRET_VARIABLE}.`,
    });
  }
  return createWebhook({ url: String(url), secret });
}

/** Shortest key: 16 characters. */
const SHORTEST_SECRET = 16;

/**
 * Makes a function that posts JSON, signed, and again where the receiver is not there or asks to wait (408, 425, 429, 5xx). Redirects are not followed.
 *
 * @throws KeysteadError `webhook/bad-url`, `webhook/weak-secret`; the function: `webhook/failed` (retryable) {status, attempts}
 * @example
 * const tell = createWebhook({ url: "https://alerts.example/keystead", secret });
 * await tell({ format: "keystead.audit-change/1", changes });
 */
export function createWebhook(options: WebhookOptions): (message: unknown) => Promise<void> {
  const { url, secret, attempts = 6, backoff = 1000, timeout = 10_000 } = options;
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new KeysteadError("webhook/bad-url", "the webhook is no http or https URL", {
      argument: "webhook",
      remedy: "Give a URL such as https://alerts.example/keystead.",
    });
  }
  if (secret.length < SHORTEST_SECRET) {
    throw new KeysteadError(
      "webhook/weak-secret",
      `the webhook's secret is shorter than ${SHORTEST_SECRET} characters`,
      {
        argument: "webhook",
        remedy: "Make a random one, e.g. with openssl rand -hex 32.",
      },
    );
  }
  return async (message) => {
    const body = JSON.stringify(message);
    const delivery = randomUUID();
    for (let attempt = 1; ; attempt++) {
      const status = await post(url, body, secret, delivery, timeout);
      if (status !== undefined && status >= 200 && status < 300) return;
      const again = status === undefined || status >= 500 || [408, 425, 429].includes(status);
      if (!again || attempt >= attempts) {
        const why = status === undefined ? "does not answer" : `answers with ${status}`;
        throw new KeysteadError("webhook/failed", `the webhook ${why}: a message was not delivered`, {
          argument: "webhook",
          remedy: "Check the receiver. What changed is on standard output too.",
          retryable: again,
          details: { status: status ?? null, attempts: attempt },
        });
      }
      await new Promise((resolve) => setTimeout(resolve, backoff * 2 ** (attempt - 1)));
    }
  };
}

/** The status, or undefined where there was no answer. */
async function post(
  url: string,
  body: string,
  secret: string,
  delivery: string,
  timeout: number,
): Promise<number | undefined> {
  const timestamp = String(Math.floor(Date.now() / 1000));
  const headers = {
    "content-type": "application/json",
    [TIMESTAMP_HEADER]: timestamp,
    [DELIVERY_HEADER]: delivery,
    [SIGNATURE_HEADER]: signWebhook(secret, timestamp, body),
  };
  try {
    const signal = AbortSignal.timeout(timeout);
    const response = await fetch(url, { method: "POST", headers, body, redirect: "manual", signal });
    await response.body?.cancel();
    return response.status;
  } catch {
    return undefined;
  }
}

/**
 * The signature that a receiver computes and compares.
 *
 * @example
 * signWebhook(secret, request.headers["x-keystead-timestamp"], body); // "sha256=…"
 */
export function signWebhook(secret: string, timestamp: string, body: string): string {
  return `sha256=${createHmac("sha256", secret).update(`${timestamp}.${body}`).digest("hex")}`;
}
