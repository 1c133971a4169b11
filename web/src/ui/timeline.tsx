import { useContext } from "preact/hooks";
import type { ServiceAudit } from "../../../src/audit/result.ts";
import { printable } from "../../../src/core/printable.ts";
import { type ImageLife, imageLives, placeMoments } from "../data/spans.ts";
import { formatTime, shortHex } from "../format.ts";
import { useModel } from "./model.ts";
import { Printing } from "./print.ts";

/** Images whose lives are drawn on a screen. */
const DRAWN = 16;

/** Room at the right end for what goes on without an end. */
const RIGHT = 0.94;

/** The lives of a service's images as bars on one line of time, with every event above them. The list of events says the same in words. */
export function Timeline({ audit }: { readonly audit: ServiceAudit }) {
  const { standing } = useModel();
  const { state, entries } = audit;
  if (state === undefined || entries.length === 0) return null;
  const now = standing.block.timestamp;
  const all = imageLives(entries);
  const lives = useContext(Printing) ? all : choose(all, now);
  const ends = lives.flatMap(({ spans }) => spans.flatMap(({ from, to }) => [from, to]));
  const place = placeMoments([...entries.map(({ timestamp }) => timestamp), now, ...ends]);
  const percent = (moment: number) => `${(Number.isFinite(moment) ? place(moment) * RIGHT : 1) * 100}%`;
  const keys = entries.filter(({ event }) => event?.name === "rotate_service_key");
  const first = entries[0]?.timestamp ?? now;
  const last = Math.max(now, ...ends.filter(Number.isFinite));
  return (
    <figure class="timeline">
      <div class="lanes" role="img" aria-label={describe(lives, all.length, now)}>
        <div class="lane">
          <span class="name">events</span>
          <span class="track">
            {entries.map(({ sequence, timestamp, event }) => (
              <span
                key={sequence}
                class={keys.some((key) => key.sequence === sequence) ? "event key" : "event"}
                style={{ left: percent(timestamp) }}
                title={`${sequence}. ${event?.name ?? "unknown event"}, ${formatTime(timestamp)}`}
              />
            ))}
            <span class="now" style={{ left: percent(now) }} />
          </span>
        </div>
        {lives.map((life) => (
          <div class="lane" key={life.imageId}>
            <span class="name">
              <code>{shortHex(life.imageId, 8, 4)}</code>{" "}
              <bdi>{printable(state.images.get(life.imageId)?.description ?? "", 24)}</bdi>
            </span>
            <span class="track">
              {life.spans.map(({ status, from, to }) => (
                <span
                  key={`${status} ${from}`}
                  class={`span ${status}`}
                  style={{ left: percent(from), right: `calc(100% - ${percent(to)})` }}
                  title={`${status} from ${formatTime(from)}${Number.isFinite(to) ? ` to ${formatTime(to)}` : ", no end set"}`}
                />
              ))}
              {life.removedAt.map((at) => (
                <span key={at} class="removed" style={{ left: percent(at) }} title={`removed ${formatTime(at)}`}>
                  ✕
                </span>
              ))}
              <span class="now" style={{ left: percent(now) }} />
            </span>
          </div>
        ))}
        <div class="lane axis">
          <span class="name" />
          <span class="track">
            {place(now) < 0.45 ? null : <span class="at-start">{formatTime(first)}</span>}
            <span
              class={`at-now ${place(now) > 0.75 ? "late" : place(now) < 0.25 ? "early" : ""}`}
              style={{ left: percent(now) }}
            >
              now, {formatTime(now)}
            </span>
          </span>
        </div>
      </div>
      <figcaption>
        <span class="key pending">pending</span>
        <span class="key active">active</span>
        <span class="key retiring">retiring</span>
        <span class="key gone">✕ removed</span>
        <span class="key rotated">◆ new key epoch</span>
        <span class="key line">now</span>
        {lives.length === all.length ? null : (
          <span class="muted">
            {lives.length} of {all.length.toLocaleString("en")} images are drawn; all of them are below.
          </span>
        )}
        <span class="muted">Not to scale: long gaps are drawn shorter. The last date is {formatTime(last)}.</span>
      </figcaption>
    </figure>
  );
}

/** Those that may still have keys, then those that ended last, in the order in which they were listed. */
function choose(lives: readonly ImageLife[], now: number): readonly ImageLife[] {
  const goesOn = ({ spans }: ImageLife) => spans.some(({ to }) => to > now);
  const newest = [...lives].reverse();
  const chosen = [...newest.filter(goesOn), ...newest.filter((life) => !goesOn(life))].slice(0, DRAWN);
  return lives.filter((life) => chosen.includes(life));
}

function describe(lives: readonly ImageLife[], all: number, now: number): string {
  const words = lives.map(({ imageId, spans, removedAt }) => {
    const current = spans.find(({ from, to }) => from <= now && now < to);
    const end = removedAt.length > 0 ? "removed" : "ended";
    return `${shortHex(imageId)} ${current === undefined ? end : current.status}`;
  });
  return `Lives of ${lives.length} of ${all} images over time: ${words.join("; ")}`;
}
