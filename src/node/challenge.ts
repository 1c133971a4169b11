import { createHmac, createSecretKey, randomBytes, timingSafeEqual } from "node:crypto";
import { type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Challenge } from "../core/release-wire.ts";

/*
 * Nonces: 12 random bytes ‖ expiry (4 bytes, seconds since 1970) ‖ the first 16 bytes of HMAC-SHA256 over both. So a node knows its own nonces without
 * remembering those that it gave out; it remembers those that were used, until they expire. The key is made at start: after a restart older nonces are
 * unknown, and another node's are.
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
  /** Seconds since 1970. */
  readonly clock: () => number;
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
export function createChallenges({ seconds, clock, limit = LIMIT }: ChallengeOptions): Challenges {
  const key = createSecretKey(randomBytes(32));
  /** Nonce → expiry. Nonces are used in about the order in which they expire, so the oldest are at the front. */
  const used = new Map<string, number>();
  const tag = (body: Uint8Array) => createHmac("sha256", key).update(body).digest().subarray(0, TAG_BYTES);
  /** Time never runs backwards here: a nonce that was forgotten as expired must not become good again when the clock is set back. */
  let latest = 0;
  const readClock = () => {
    latest = Math.max(latest, Math.floor(clock()));
    return latest;
  };
  const forget = (now: number) => {
    for (const [nonce, expiry] of used) {
      if (expiry > now) return;
      used.delete(nonce);
    }
  };
  return {
    issue: () => {
      const expiresAt = readClock() + seconds;
      const body = Buffer.alloc(BODY_BYTES);
      randomBytes(RANDOM_BYTES).copy(body);
      body.writeUInt32BE(expiresAt, RANDOM_BYTES);
      const nonce: Hex = toHex(Buffer.concat([body, tag(body)]));
      return { nonce, expiresAt };
    },
    take: (nonce) => {
      const body = nonce.subarray(0, BODY_BYTES);
      const given = nonce.subarray(BODY_BYTES);
      if (given.length !== TAG_BYTES || !timingSafeEqual(given, tag(body)))
        throw refuse("nonce/unknown", "the nonce is not one of this node's");
      const now = readClock();
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
