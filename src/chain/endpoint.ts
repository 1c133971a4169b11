import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { type Client, type ClientOptions, connect, type Eip1193Provider } from "./client.ts";

/** One endpoint as it was seen. */
export interface EndpointHealth {
  readonly name: string;
  /** `disagrees`: it named another block than the others did; `lies`: a proof of it did not hold, or its contract call contradicted what was proved. */
  readonly state: "unknown" | "ok" | "unreachable" | "disagrees" | "lies";
  /** The finalized block that it named last. */
  readonly finalized: number | undefined;
  /** Failures since its last good answer. */
  readonly failures: number;
  /** The code of its latest error. */
  readonly lastError: string | undefined;
}

/** One of several endpoints of a chain: connected when it is first needed, so that one that is down at start does no harm. */
export interface Endpoint {
  /** For logs, health and receipts. Never the URL: that may hold a key. */
  readonly name: string;
  /** @throws KeysteadError as `connect` */
  readonly client: () => Promise<Client>;
  readonly health: () => EndpointHealth;
  /** Whether it should be left alone for now: it failed, and its time to rest is not over. */
  readonly resting: () => boolean;
  readonly note: (seen: EndpointSighting) => void;
}

/** What was seen of an endpoint. */
export type EndpointSighting =
  | { readonly state: "ok"; readonly finalized?: number | undefined }
  | { readonly state: "disagrees" | "lies"; readonly code: string }
  | { readonly state: "failed"; readonly error: KeysteadError };

/** An endpoint that failed is left alone for a second, then two, then four, up to this many. */
const LONGEST_REST_SECONDS = 60;
/** A second attempt at once, for a connection that was closed; longer outages are the rest's matter. No answer is so long that reading it holds up the others. */
const CLIENT_DEFAULTS = { attempts: 2, backoff: 100, timeout: 10_000, maxLogBytes: 8 * 1024 * 1024 } as const;

/**
 * Makes an endpoint.
 *
 * @param name for people; must not be a secret
 * @param at URL or EIP-1193 provider
 * @param clock seconds that pass evenly: how long an endpoint that failed is left alone
 * @example
 * const endpoint = createEndpoint("own node", "http://127.0.0.1:8545", { chainId: 1 }, () => Date.now() / 1000);
 */
export function createEndpoint(
  name: string,
  at: string | Eip1193Provider,
  options: ClientOptions,
  clock: () => number,
): Endpoint {
  let connected: Promise<Client> | undefined;
  let state: EndpointHealth["state"] = "unknown";
  let finalized: number | undefined;
  let failures = 0;
  let lastError: string | undefined;
  let restUntil = 0;
  const rest = () => {
    failures += 1;
    restUntil = clock() + Math.min(2 ** (failures - 1), LONGEST_REST_SECONDS);
  };
  return {
    name,
    client: () => {
      connected ??= connect(at, { ...CLIENT_DEFAULTS, ...options }).catch((error: unknown) => {
        connected = undefined;
        throw error;
      });
      return connected;
    },
    health: () => ({ name, state, finalized, failures, lastError }),
    resting: () => clock() < restUntil,
    note: (seen) => {
      if (seen.state === "ok") {
        // A lie is remembered until the process ends: an operator should see it.
        if (state !== "lies") state = "ok";
        finalized = seen.finalized ?? finalized;
        failures = 0;
        restUntil = 0;
        return;
      }
      if (seen.state === "failed") {
        if (state !== "lies") state = "unreachable";
        lastError = seen.error.code;
      } else {
        if (state !== "lies") state = seen.state;
        lastError = seen.code;
      }
      rest();
    },
  };
}

/** What one endpoint answered, or why it did not. */
export type Asked<T> =
  | { readonly endpoint: Endpoint; readonly answer: T }
  | { readonly endpoint: Endpoint; readonly error: KeysteadError };

/**
 * Asks endpoints the same thing at the same time. A failure is an answer of its kind.
 *
 * @example
 * const asked = await askEach(endpoints, (client) => fetchBlock(client, "finalized"));
 */
export function askEach<T>(
  endpoints: readonly Endpoint[],
  ask: (client: Client, endpoint: Endpoint) => Promise<T>,
): Promise<readonly Asked<T>[]> {
  return Promise.all(
    endpoints.map(async (endpoint): Promise<Asked<T>> => {
      try {
        return { endpoint, answer: await ask(await endpoint.client(), endpoint) };
      } catch (cause) {
        const error = asEndpointError(cause);
        endpoint.note({ state: "failed", error });
        return { endpoint, error };
      }
    }),
  );
}

/**
 * What was thrown while an endpoint's answer was read, as a typed error: an answer that trips a reader must not stop the others from being asked.
 *
 * @example
 * const error = asEndpointError(cause); // "chain/malformed-answer" unless it was typed already
 */
export function asEndpointError(cause: unknown): KeysteadError {
  if (isKeysteadError(cause)) return cause;
  return new KeysteadError("chain/malformed-answer", "an endpoint's answer could not be read", {
    argument: "endpoints",
    remedy: "Use another endpoint, and report this: every answer should have an error of its own.",
    cause,
  });
}
