import { createHmac, createSecretKey, randomBytes, timingSafeEqual } from "node:crypto";
import { type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Challenge } from "../core/release-wire.ts";
import { monotonicSeconds, type Stopwatch } from "./evidence/time.ts";

/*
 * Nonces: 12 random bytes ‖ expiry (4 bytes, seconds of the machine's monotonic time) ‖ the first 16 bytes of HMAC-SHA256 over both. So a node knows its
 * own nonces without remembering those that it gave out; it remembers those that were used, until they expire. The key is made at start: after a restart
 * older nonces are unknown, and another node's are. A clock that is set, forward or back, makes no nonce live longer or shorter: what it says is only
 * told to people.
 */

const RANDOM_BYTES = 12;
const BODY_BYTES = RANDOM_BYTES + 4;
const TAG_BYTES = 16;
/** Used nonces that are remembered at most: at 48 bytes or so each. */
const LIMIT = 500_000;

/** Gives nonces out, and takes each back once. */
export interface Challenges {
  readonly issue: () => Challenge;
  /**
   * Takes a nonce: from now on it is used.
   *
   * @param nonce 32 bytes
   * @throws KeysteadError `nonce/unknown`, `nonce/expired`, `nonce/used`, `node/busy`
   */
  readonly take: (nonce: Uint8Array) => void;
  /** How many used nonces are remembered. */
  readonly size: () => number;
}

/** How long a nonce is good for, and the time. */
export interface ChallengeOptions {
  readonly seconds: number;
  /** Seconds since 1970, for `expiresAt`. */
  readonly clock: () => number;
  /** What lifetimes are measured by. Default: the machine's monotonic time. */
  readonly stopwatch?: Stopwatch | undefined;
  /** Default: 500,000. */
  readonly limit?: number;
}

const refuse = (code: string, message: string, retryable = false) =>
  new KeysteadError(code, message, { argument: "nonce", remedy: "Ask for a new challenge.", retryable });

/**
 * Makes a source of nonces.
 *
 * @example
 * const challenges = createChallenges({ seconds: 120, clock: () => Date.now() / 1000 });
 */
export function createChallenges({
  seconds,
  clock,
  stopwatch = monotonicSeconds,
  limit = LIMIT,
}: ChallengeOptions): Challenges {
  const key = createSecretKey(randomBytes(32));
  /** Nonce → expiry. Nonces are used in about the order in which they expire, so the oldest are at the front. */
  const used = new Map<string, number>();
  const tag = (body: Uint8Array) => createHmac("sha256", key).update(body).digest().subarray(0, TAG_BYTES);
  const startedAt = stopwatch();
  /** Whole seconds since the start. */
  const passed = () => Math.floor(stopwatch() - startedAt);
  const forget = (now: number) => {
    for (const [nonce, expiry] of used) {
      if (expiry > now) return;
      used.delete(nonce);
    }
  };
  return {
    issue: () => {
      const body = Buffer.alloc(BODY_BYTES);
      randomBytes(RANDOM_BYTES).copy(body);
      body.writeUInt32BE(passed() + seconds, RANDOM_BYTES);
      const nonce: Hex = toHex(Buffer.concat([body, tag(body)]));
      return { nonce, expiresAt: Math.floor(clock()) + seconds };
    },
    take: (nonce) => {
      const body = nonce.subarray(0, BODY_BYTES);
      const given = nonce.subarray(BODY_BYTES);
      if (given.length !== TAG_BYTES || !timingSafeEqual(given, tag(body)))
        throw refuse("nonce/unknown", "the nonce is not one of this node's");
      const now = passed();
      const expiry = Buffer.from(body).readUInt32BE(RANDOM_BYTES);
      if (now >= expiry) throw refuse("nonce/expired", "the nonce has expired");
      forget(now);
      const id = Buffer.from(body).toString("base64");
      if (used.has(id)) throw refuse("nonce/used", "the nonce was used before");
      if (used.size >= limit) throw refuse("node/busy", "too many nonces were used of late", true);
      used.set(id, expiry);
    },
    size: () => used.size,
  };
}
