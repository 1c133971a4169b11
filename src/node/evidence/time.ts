import { performance } from "node:perf_hooks";
import { KeysteadError } from "../../core/errors.ts";

/*
 * Times of validity, and the one tolerance that is given to clocks. What was issued a moment ago (a Nitro leaf certificate, collateral, a list) is "not yet
 * valid" for a verifier whose clock is a little slow: such a lower bound may lie CLOCK_TOLERANCE_SECONDS ahead. No upper bound is ever stretched: what has
 * expired may have been revoked since.
 */

/** By how many seconds a lower bound may lie ahead of the verifier's clock. */
export const CLOCK_TOLERANCE_SECONDS = 60;

/** When something is good. Times in seconds since 1970, both ends included. */
export interface Validity {
  readonly from: number;
  readonly until: number;
}

/**
 * Whether a time is inside of a validity, with the tolerance at its beginning.
 *
 * @example
 * isValidAt({ from: 100, until: 200 }, 40); // true: 60 s of clock difference
 */
export function isValidAt({ from, until }: Validity, atUnixSeconds: number): boolean {
  return atUnixSeconds >= from - CLOCK_TOLERANCE_SECONDS && atUnixSeconds <= until;
}

/** What {@link checkValidity} names in its errors. */
export interface ValidityNames {
  /** The first part of the code, e.g. `tdx/crl`; `-expired` or `-not-yet-valid` follows. */
  readonly code: string;
  readonly argument: string;
  /** What is good from one time to another, e.g. `the PCK CRL`. */
  readonly what: string;
  /** What to do where it has expired. */
  readonly remedy: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

/**
 * Checks a time against a validity.
 *
 * @throws KeysteadError `{code}-expired` {from, until}; `{code}-not-yet-valid` {from, until, secondsEarly, retryAfterSeconds}, which is retryable
 * @example
 * checkValidity({ from, until }, atUnixSeconds, { code: "snp/crl", argument: "crl", what: "the AMD CRL", remedy: "Fetch it again." });
 */
export function checkValidity(validity: Validity, atUnixSeconds: number, names: ValidityNames): void {
  if (isValidAt(validity, atUnixSeconds)) return;
  const { from, until } = validity;
  const span = `${names.what} is good from ${isoTime(from)} to ${isoTime(until)}`;
  const details = { ...names.details, from, until };
  // NaN is inside of nothing, and has not expired.
  if (atUnixSeconds > until) {
    const message = `${span}, not at ${isoTime(atUnixSeconds)}`;
    throw new KeysteadError(`${names.code}-expired`, message, {
      argument: names.argument,
      remedy: names.remedy,
      details,
    });
  }
  const secondsEarly = Math.ceil(from - atUnixSeconds);
  throw new KeysteadError(
    `${names.code}-not-yet-valid`,
    `${span}: ${isoTime(atUnixSeconds)} is ${secondsEarly} s too early, and ${CLOCK_TOLERANCE_SECONDS} s are tolerated`,
    {
      argument: names.argument,
      remedy: "Check this machine's clock (NTP): it is slow, or the issuer's is fast. It passes with time.",
      retryable: true,
      details: { ...details, secondsEarly, retryAfterSeconds: Math.max(1, secondsEarly - CLOCK_TOLERANCE_SECONDS) },
    },
  );
}

/**
 * A time as people read it; the number itself where it is not a date.
 *
 * @example
 * isoTime(0); // "1970-01-01T00:00:00.000Z"
 */
export function isoTime(unixSeconds: number): string {
  const date = new Date(unixSeconds * 1000);
  return Number.isNaN(date.getTime()) ? String(unixSeconds) : date.toISOString();
}

/**
 * Checks a time that the caller gives: every verifier takes its time as an argument, and `NaN` would compare as in date with anything.
 *
 * @throws KeysteadError `evidence/bad-time`
 * @example
 * checkTime(1_750_000_000);
 */
export function checkTime(atUnixSeconds: number): void {
  if (Number.isFinite(atUnixSeconds) && atUnixSeconds > 0) return;
  throw new KeysteadError("evidence/bad-time", `${atUnixSeconds} is not a time in seconds since 1970`, {
    argument: "atUnixSeconds",
    remedy: "Give the time to verify at, in seconds since 1970.",
  });
}

/** Seconds that pass evenly, from an arbitrary start: for pauses and lifetimes, which a clock that is set must neither stretch nor cut. */
export type Stopwatch = () => number;

/**
 * The machine's own monotonic time in seconds: it never goes backwards, whatever the clock is set to.
 *
 * @example
 * const startedAt = monotonicSeconds();
 */
export function monotonicSeconds(): number {
  return performance.now() / 1000;
}
