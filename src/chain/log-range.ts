/** How many blocks an endpoint takes in one question for logs. */
export interface LogRange {
  /** How many to ask for next. */
  readonly size: () => number;
  /** Tells that so many were answered. */
  readonly took: (size: number) => void;
  /**
   * Tells that so many were refused, whatever the words: the next question is for fewer.
   *
   * @param hint the refusal's own text: a number in it may be the limit
   * @returns whether fewer can be asked for
   */
  readonly refused: (size: number, hint?: string) => boolean;
}

/** The first question, in blocks: what most services take. */
const FIRST = 10_000;
/** More blocks are never asked for at once. */
const LARGEST = 1_000_000;
/** After so many answers as long as the endpoint is known to take, a longer range is tried again; after a refusal of that, twice as many, up to the last. */
const PROBE_AFTER = 32;
const PROBE_SELDOM = 1024;
/** It is left at that where the largest that was taken and the smallest that was refused are as near as this, as a share. */
const NEAR = 1 / 8;

/**
 * The one way in which this project finds out what an endpoint takes: sizes double until one is refused, close in on the largest that is taken, and stay
 * there; now and then a larger one is tried again, for ranges with many logs are refused where others are not. It does not matter in what words a range is
 * refused, nor with which code: any refusal of more than one block makes the next question smaller.
 *
 * @example
 * const range = createLogRange();
 * range.refused(10_000, "range 10000 exceeds limit of 500"); // true
 * range.size(); // 500
 */
export function createLogRange(first = FIRST): LogRange {
  let size = first;
  let taken = 0;
  let tooMuch = Number.POSITIVE_INFINITY;
  let steady = 0;
  let probeAfter = PROBE_AFTER;
  return {
    size: () => size,
    took: (count) => {
      // the end of a range says nothing about what else it takes
      if (count < size) return;
      taken = count;
      steady += 1;
      if (count >= tooMuch) {
        tooMuch = Number.POSITIVE_INFINITY;
        probeAfter = PROBE_AFTER;
      }
      if (tooMuch === Number.POSITIVE_INFINITY || steady >= probeAfter) {
        if (tooMuch !== Number.POSITIVE_INFINITY) probeAfter = Math.min(2 * probeAfter, PROBE_SELDOM);
        size = Math.min(count * 2, LARGEST);
        steady = 0;
      } else if (tooMuch - count > Math.max(1, count * NEAR)) {
        size = Math.floor((count + tooMuch) / 2);
        steady = 0;
      }
    },
    refused: (count, hint = "") => {
      if (count <= 1) return false;
      const known = taken > 0 && taken < count ? taken : 0;
      tooMuch = Math.min(tooMuch, count);
      size = known > 0 ? known : (namedIn(hint, count) ?? Math.floor(count / 2));
      taken = 0;
      steady = 0;
      return true;
    },
  };
}

/** The largest number in a refusal that could be the limit: it is only tried first. */
function namedIn(hint: string, below: number): number | undefined {
  const numbers = [...hint.matchAll(/\d[\d,_]*/g)].map(([digits]) => Number(digits.replace(/[,_]/g, "")));
  const possible = numbers.filter((number) => number >= 1 && number < below && number > below / 5_000);
  return possible.length === 0 ? undefined : Math.max(...possible);
}
