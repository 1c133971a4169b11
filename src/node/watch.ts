import { confirmPolicy } from "../chain/authorize.ts";
import type { Block } from "../chain/block.ts";
import { asEndpointError, type EndpointHealth } from "../chain/endpoint.ts";
import { checkPin, type PinnedDeployment } from "../chain/pins.ts";
import { createProvenState, type ProvenState } from "../chain/proven.ts";
import type { Agreement, Quorum } from "../chain/quorum.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";

/** A block whose state can be proved, and the code that the proxies run there. */
export interface Snapshot {
  readonly state: ProvenState;
  readonly implementations: { readonly registry: Hex; readonly policy: Hex };
}

/** What is known of the chain: the finalized block, which decides, and a newer one, which may only deny. */
export interface ChainView {
  readonly finalized: Snapshot;
  readonly head: Snapshot | undefined;
}

/** Whether decisions can be made, for readiness checks and metrics. */
export interface ChainStatus {
  readonly ready: boolean;
  /** Why not: the code of the error that a decision would meet now. */
  readonly reason: string | undefined;
  readonly block: Block | undefined;
  /** Seconds by which the clock is ahead of the block. */
  readonly ageSeconds: number | undefined;
  readonly head: Block | undefined;
  readonly endpoints: readonly EndpointHealth[];
}

/** How the chain is watched. */
export interface WatchOptions {
  readonly deployment: PinnedDeployment;
  readonly quorum: Quorum;
  /** Seconds since 1970. */
  readonly clock: () => number;
  /** Seconds that pass evenly, for silence and pauses, which a clock that is set must not stretch. Default: the clock. */
  readonly stopwatch?: (() => number) | undefined;
  /** Seconds between looks. Default: 4. */
  readonly pollSeconds?: number | undefined;
  /** For how long nothing may have been heard of enough endpoints, in seconds. Default: 60. */
  readonly maxSilenceSeconds?: number | undefined;
  /** Prepares a new view before it is used, so that nobody waits for it. */
  readonly warm?: ((view: ChainView) => Promise<void>) | undefined;
  /** Told of every look that failed. */
  readonly onError?: ((error: KeysteadError) => void) | undefined;
  /** Told of the first look that succeeds after some that failed. */
  readonly onRecovery?: (() => void) | undefined;
}

/** Looks at the chain again and again. */
export interface Watch {
  /**
   * What is known now. Waits only if nothing is, or if it is too old.
   *
   * @throws KeysteadError as {@link Quorum.finalized}; `chain/unknown-implementation`; `chain/unproven`
   */
  readonly current: () => Promise<ChainView>;
  /** Looks now. */
  readonly refresh: () => Promise<void>;
  readonly start: () => void;
  readonly stop: () => Promise<void>;
  readonly status: () => ChainStatus;
}

/** However long silence may last. */
const LONGEST_WARMING_SECONDS = 60;

/**
 * Makes a watch.
 *
 * @example
 * const watch = createWatch({ deployment, quorum, clock });
 * watch.start();
 * const { finalized } = await watch.current();
 */
export function createWatch(options: WatchOptions): Watch {
  const { deployment, quorum, clock, pollSeconds = 4, maxSilenceSeconds = 60, warm, onError, onRecovery } = options;
  const stopwatch = options.stopwatch ?? clock;
  let view: ChainView | undefined;
  let heardAt = Number.NEGATIVE_INFINITY;
  let failure: KeysteadError | undefined;
  let looking: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let running = false;
  /** Registry implementations that are known to ask the pinned policy. */
  const asksPolicy = new Set<Hex>();

  const take = async (agreement: Agreement, final: boolean): Promise<Snapshot> => {
    const state = createProvenState(agreement, final);
    const [registry, policy] = await Promise.all([
      checkPin(state, deployment.registry),
      checkPin(state, deployment.policy),
    ]);
    if (!asksPolicy.has(registry)) {
      const contracts = { registry: deployment.registry.address, policy: deployment.policy.address };
      await confirmPolicy(state, quorum.required, contracts);
      // In its code, which is pinned: it will never be another.
      asksPolicy.add(registry);
    }
    return { state, implementations: { registry, policy } };
  };

  const lookForHead = async (finalized: Snapshot): Promise<Snapshot | undefined> => {
    const known = view?.head;
    const newer = await quorum.head(finalized.state.block);
    if (newer === undefined || newer.block.hash === known?.state.block.hash) return known;
    // One that can't be proved fails the look: replaced meanwhile, it is gone at the next one.
    return take(newer, false);
  };

  /** A new view waits for its answers no longer than this: what it denies must not wait for what many machines ask, at slow endpoints. */
  const warmUp = async (next: ChainView): Promise<void> => {
    if (warm === undefined) return;
    const warming = warm(next);
    const late = Promise.withResolvers<void>();
    const timeout = setTimeout(late.resolve, 1000 * Math.min(maxSilenceSeconds / 4, LONGEST_WARMING_SECONDS));
    try {
      await Promise.race([warming, late.promise]);
    } finally {
      clearTimeout(timeout);
      // It may go on, and whoever asks meets what it meets.
      warming.catch(() => undefined);
    }
  };

  const look = async (): Promise<void> => {
    // What is heard is as old as the question: proving and warming may take long, and a denial since is not in it.
    const asked = stopwatch();
    try {
      const agreement = await quorum.finalized();
      const before = view?.finalized;
      const same = before !== undefined && before.state.block.hash === agreement.block.hash;
      const finalized = same ? before : await take(agreement, true);
      const candidate = await lookForHead(finalized);
      const head =
        candidate !== undefined && candidate.state.block.number > finalized.state.block.number ? candidate : undefined;
      if (finalized !== view?.finalized || head !== view.head) {
        const next: ChainView = { finalized, head };
        await warmUp(next);
        view = next;
      }
      heardAt = asked;
      const recovered = failure !== undefined;
      failure = undefined;
      if (recovered) onRecovery?.();
    } catch (thrown) {
      const error = asEndpointError(thrown);
      failure = error;
      // What will not pass by itself ends what was known before: nothing is decided on it any more.
      if (!error.retryable) view = undefined;
      onError?.(error);
      throw error;
    }
  };

  const refresh = (): Promise<void> => {
    looking ??= look().finally(() => {
      looking = undefined;
    });
    return looking;
  };

  const current = async (): Promise<ChainView> => {
    const patience = running ? maxSilenceSeconds : Math.min(pollSeconds, maxSilenceSeconds);
    if (view === undefined || stopwatch() - heardAt > patience) await refresh();
    const silent = () => stopwatch() - heardAt > maxSilenceSeconds;
    // That may have been a look that began long before.
    if (silent()) await refresh();
    if (silent()) throw tooSlow(maxSilenceSeconds);
    if (view === undefined) throw failure ?? new Error("a look at the chain ended without a view");
    quorum.requireFresh(view.finalized.state.block);
    return view;
  };

  const loop = () => {
    const again = () => {
      if (running) timer = setTimeout(loop, pollSeconds * 1000).unref();
    };
    // What went wrong is in `failure`, and `onError` was told.
    refresh().then(again, again);
  };

  const reasonNow = (): string | undefined => {
    if (view === undefined) return failure?.code ?? "chain/unreachable";
    if (stopwatch() - heardAt > maxSilenceSeconds) return failure?.code ?? "chain/unreachable";
    try {
      quorum.requireFresh(view.finalized.state.block);
      return undefined;
    } catch (error) {
      if (isKeysteadError(error)) return error.code;
      throw error;
    }
  };

  return {
    current,
    refresh,
    start: () => {
      if (running) return;
      running = true;
      loop();
    },
    stop: async () => {
      running = false;
      clearTimeout(timer);
      await looking?.catch(() => undefined);
    },
    status: () => {
      const block = view?.finalized.state.block;
      const reason = reasonNow();
      return {
        ready: reason === undefined,
        reason,
        block,
        ageSeconds: block === undefined ? undefined : Math.floor(clock()) - block.timestamp,
        head: view?.head?.state.block,
        endpoints: quorum.endpoints.map((endpoint) => endpoint.health()),
      };
    },
  };
}

function tooSlow(maxSilenceSeconds: number): KeysteadError {
  const message = `looking at the chain takes longer than ${maxSilenceSeconds} s: what was seen no longer counts`;
  return new KeysteadError("chain/unreachable", message, {
    argument: "endpoints",
    remedy: "Use endpoints that answer faster, or allow a longer silence.",
    retryable: true,
    details: { maxSilenceSeconds },
  });
}
