import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import { KeysteadError } from "../core/errors.ts";
import { MAX_BODY_BYTES } from "../core/release-wire.ts";

/** What a node takes on. */
export interface Limits {
  /** Requests by one address, in one second, on average and at once. */
  readonly requestsPerSecond: number;
  readonly burst: number;
  /** Requests for keys or root secrets that are answered at the same time. */
  readonly concurrent: number;
  /** Milliseconds that answering may take. */
  readonly timeoutMs: number;
  readonly maxBodyBytes: number;
  /** How many proxies of the operator's own stand before the node: so many entries of X-Forwarded-For are believed, from the right. */
  readonly forwardedHops: number;
}

/** Good values for a node of two cores. */
export const DEFAULT_LIMITS: Limits = {
  requestsPerSecond: 20,
  burst: 100,
  concurrent: 128,
  timeoutMs: 20_000,
  maxBodyBytes: MAX_BODY_BYTES,
  forwardedHops: 0,
};

/** Lets an address's requests through, or says how long to wait. */
export interface RateLimit {
  /** @throws KeysteadError `request/too-many` {retryAfterSeconds} */
  readonly take: (address: string) => Promise<void>;
}

/**
 * Limits requests by address: `burst` in each window of `burst / requestsPerSecond` seconds. An IPv6 address counts as its /64: whoever has one has all of
 * them.
 *
 * @example
 * await createRateLimit(DEFAULT_LIMITS).take("192.0.2.1");
 */
export function createRateLimit({ requestsPerSecond, burst }: Limits): RateLimit {
  const limiter = new RateLimiterMemory({ points: burst, duration: burst / requestsPerSecond });
  return {
    take: async (address) => {
      try {
        await limiter.consume(networkOf(address));
      } catch (refused) {
        if (!(refused instanceof RateLimiterRes)) throw refused;
        const retryAfterSeconds = Math.max(1, Math.ceil(refused.msBeforeNext / 1000));
        throw new KeysteadError("request/too-many", "this address sends too many requests", {
          remedy: "Wait, then try again.",
          retryable: true,
          details: { retryAfterSeconds },
        });
      }
    },
  };
}

/**
 * The network that an address belongs to, as far as limits go.
 *
 * @example
 * networkOf("2001:db8:1:2:3::4"); // "2001:db8:1:2"
 */
export function networkOf(address: string): string {
  const bare = unmapped(address);
  if (!bare.includes(":")) return bare;
  const [head = "", tail] = bare.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length);
  return [...left, ...new Array<string>(zeros).fill("0"), ...right].slice(0, 4).join(":");
}

/**
 * An IPv4 address out of the IPv6 form in which a socket of both families names it; any other as it is.
 *
 * @example
 * unmapped("::ffff:192.0.2.1"); // "192.0.2.1"
 */
export function unmapped(address: string): string {
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address;
}

/** A number of places, for as long as work goes on. */
export interface Places {
  /** @throws KeysteadError `node/busy` */
  readonly hold: <T>(work: () => Promise<T>) => Promise<T>;
}

/**
 * Bounds how much is done at once, and how long anyone waits for it. Work that takes longer keeps its place until it is done.
 *
 * @example
 * const answer = await places.hold(() => releaser.releaseKeys(request));
 */
export function createPlaces({ concurrent, timeoutMs }: Pick<Limits, "concurrent" | "timeoutMs">): Places {
  let taken = 0;
  const busy = (message: string) =>
    new KeysteadError("node/busy", message, {
      remedy: "Try again later, or ask another node.",
      retryable: true,
      details: { retryAfterSeconds: 1 },
    });
  return {
    hold: async (work) => {
      if (taken >= concurrent) throw busy("the node answers as many requests as it can");
      taken += 1;
      const done = work().finally(() => {
        taken -= 1;
      });
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(busy("answering takes too long")), timeoutMs);
      });
      try {
        return await Promise.race([done, late]);
      } finally {
        clearTimeout(timer);
        done.catch(() => undefined);
      }
    },
  };
}
