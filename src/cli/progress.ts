import type { Io } from "./io.ts";

/** Milliseconds between two lines. */
const EVERY = 1000;

/**
 * Lines on standard error while something takes longer than a second, at most one a second.
 *
 * @example
 * const progress = createProgress(io);
 * progress(() => `scanned to block ${block}`);
 */
export function createProgress(io: Io, every = EVERY): (line: () => string) => void {
  let last = Date.now();
  return (line) => {
    if (Date.now() - last < every) return;
    last = Date.now();
    io.warn(`${line()}\n`);
  };
}
