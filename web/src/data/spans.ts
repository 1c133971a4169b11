import type { Hex } from "../../../src/core/bytes.ts";
import type { ServiceEvent } from "../../../src/core/events.ts";
import type { TimedEntry } from "../../../src/core/state.ts";

/** A stretch of an image's life; `to` is Infinity where no end is set. Times in seconds since 1970. */
export interface Span {
  readonly status: "pending" | "active" | "retiring";
  readonly from: number;
  readonly to: number;
}

/** An image's whole life under a service, also of one that was removed and came back. */
export interface ImageLife {
  readonly imageId: Hex;
  readonly spans: readonly Span[];
  /** When it was removed; more than once where it came back. */
  readonly removedAt: readonly number[];
}

interface Draft {
  listedAt: number;
  activeFrom: number;
  retiringFrom: number;
  until: number;
}

/**
 * The lives of a service's images, in the order of their first listing, from its verified events.
 *
 * @example
 * imageLives(audit.entries)[0]?.spans; // [{ status: "active", from, to: Infinity }]
 */
export function imageLives(entries: readonly TimedEntry<ServiceEvent>[]): readonly ImageLife[] {
  const lives = new Map<Hex, { spans: Span[]; removedAt: number[]; open: Draft | undefined }>();
  const close = (imageId: Hex, at: number) => {
    const life = lives.get(imageId);
    if (life?.open === undefined) return;
    life.spans.push(...spansOf(life.open, at));
    life.open = undefined;
  };
  for (const { event, timestamp } of entries) {
    if (event === undefined) continue;
    if (event.name === "add_image_to_service" || event.name === "add_secret_key_by_image") {
      const { imageId } = event.args;
      const activeFrom = "activeFrom" in event.args ? event.args.activeFrom : timestamp;
      close(imageId, timestamp);
      const life = lives.get(imageId) ?? { spans: [], removedAt: [], open: undefined };
      const until = Number.POSITIVE_INFINITY;
      life.open = { listedAt: timestamp, activeFrom, retiringFrom: until, until };
      lives.set(imageId, life);
    } else if (event.name === "remove_image_from_service") {
      close(event.args.imageId, timestamp);
      lives.get(event.args.imageId)?.removedAt.push(timestamp);
    } else if (event.name === "retire_image_from_service") {
      const open = lives.get(event.args.imageId)?.open;
      if (open === undefined) continue;
      open.retiringFrom = Math.min(open.retiringFrom, timestamp);
      open.until = event.args.activeUntil;
    }
  }
  return [...lives].map(([imageId, { spans, removedAt, open }]) => ({
    imageId,
    spans: open === undefined ? spans : [...spans, ...spansOf(open, Number.POSITIVE_INFINITY)],
    removedAt,
  }));
}

function spansOf({ listedAt, activeFrom, retiringFrom, until }: Draft, end: number): readonly Span[] {
  const last = Math.min(until, end);
  const spans: Span[] = [
    { status: "pending", from: listedAt, to: Math.min(activeFrom, last) },
    { status: "active", from: activeFrom, to: Math.min(Math.max(retiringFrom, activeFrom), last) },
    { status: "retiring", from: Math.max(retiringFrom, activeFrom), to: last },
  ];
  return spans.filter(({ from, to }) => from < to);
}

/**
 * Places moments on a line of length 1 so that all of them can be told apart: a gap's width grows with the logarithm of its length.
 *
 * @param moments seconds since 1970, in any order
 * @returns a function from a moment to its place, 0 to 1; Infinity is 1
 * @example
 * const place = placeMoments([created, listed, now]);
 */
export function placeMoments(moments: readonly number[]): (moment: number) => number {
  const sorted = [...new Set(moments.filter(Number.isFinite))].sort((a, b) => a - b);
  const places = new Map<number, number>();
  let at = 0;
  let previous = sorted[0] ?? 0;
  for (const moment of sorted) {
    at += moment === previous ? 0 : Math.log2(2 + (moment - previous) / 60);
    places.set(moment, at);
    previous = moment;
  }
  const length = at === 0 ? 1 : at;
  return (moment) => {
    if (!Number.isFinite(moment)) return 1;
    const known = places.get(moment);
    if (known !== undefined) return known / length;
    const before = sorted.filter((other) => other < moment).at(-1);
    return before === undefined ? 0 : (places.get(before) ?? 0) / length;
  };
}
