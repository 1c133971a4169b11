import { formatCountdown, formatDuration } from "../format.ts";
import { Time } from "./bits.tsx";
import { useNow } from "./model.ts";

/** How much time is left until something takes effect: a ring that fills, the time to the second, and the moment itself. */
export function Countdown({
  from,
  to,
  what,
  over,
}: {
  readonly from: number;
  readonly to: number;
  /** What happens then, e.g. `becomes active`. */
  readonly what: string;
  /** What is said once the time has come. */
  readonly over: string;
}) {
  const now = useNow();
  const left = to - now;
  const share = to > from ? Math.min(1, Math.max(0, (now - from) / (to - from))) : 1;
  const around = 2 * Math.PI * 15;
  return (
    <div class="countdown">
      <svg viewBox="0 0 36 36" width="44" height="44" aria-hidden="true">
        <circle class="ring" cx="18" cy="18" r="15" />
        <circle
          class="ring done"
          cx="18"
          cy="18"
          r="15"
          transform="rotate(-90 18 18)"
          stroke-dasharray={`${share * around} ${around}`}
        />
      </svg>
      <div>
        <span class="clock" role="timer">
          {left > 0 ? formatCountdown(left) : over}
        </span>
        <span class="muted small">
          {left > 0 ? `until it ${what}` : `since ${formatDuration(-left)}`} · <Time at={to} />
        </span>
      </div>
    </div>
  );
}
