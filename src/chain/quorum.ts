import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { type Block, type BlockTag, fetchBlock, unknownHeader } from "./block.ts";
import { type Asked, askEach, type Endpoint } from "./endpoint.ts";

/*
 * Which block is the chain's? One endpoint's word is one operator's word, so M of N must give the same block: the same header, encoded and hashed here.
 * Everything else is proved against that block's state root (`proven.ts`), so a minority of endpoints can withhold but not invent.
 */

/** A block on which enough endpoints agree, and who they are. */
export interface Agreement {
  readonly block: Block;
  /** At least as many as required. */
  readonly agreed: readonly Endpoint[];
}

/** How a quorum decides. */
export interface QuorumOptions {
  readonly endpoints: readonly Endpoint[];
  /** How many must agree: more than half of them. */
  readonly required: number;
  /** Seconds since 1970. */
  readonly clock: () => number;
  /** How old the finalized block may be, in seconds. */
  readonly maxAgeSeconds: number;
  /** How far a block's time may be ahead of the clock, in seconds. Default: 60. */
  readonly maxFutureSeconds?: number | undefined;
  /** A finalized block of an earlier run: nothing older is ever used, and another block in its place is an alarm. */
  readonly floor?: { readonly number: number; readonly hash: Hex } | undefined;
}

/** A quorum over the endpoints of one chain. */
export interface Quorum {
  /**
   * The newest finalized block that enough endpoints have. Never older than one that was given before.
   *
   * @throws KeysteadError `chain/unreachable` (retryable): fewer than required answer with a header that hashes to its hash;
   * `chain/unknown-header` {fields}: so many headers have fields that this version does not know;
   * `chain/disagreement` (retryable): they answer with different blocks;
   * `chain/finality-reversed`: enough of them have another block in the place of one that was final, and from then on always; `chain/stale` (retryable);
   * `chain/future-block`
   */
  readonly finalized: () => Promise<Agreement>;
  /** The newest block that enough endpoints have, if it is newer than `than`; undefined where they agree on none. */
  readonly head: (than: Block) => Promise<Agreement | undefined>;
  /** Throws `chain/stale` or `chain/future-block` for a block that is not of this time. */
  readonly requireFresh: (block: Pick<Block, "number" | "timestamp">) => void;
  readonly required: number;
  readonly endpoints: readonly Endpoint[];
}

/** How many heights below the newest are tried: endpoints are a block or two apart, and a liar may name any height. */
const HEIGHTS = 4;

/**
 * Makes a quorum.
 *
 * @throws KeysteadError `chain/bad-quorum` unless `required` is more than half of the endpoints, and their names differ
 * @example
 * const quorum = createQuorum({ endpoints, required: 2, clock, maxAgeSeconds: 1800 });
 * const { block, agreed } = await quorum.finalized();
 */
export function createQuorum(options: QuorumOptions): Quorum {
  const { endpoints, required, clock, maxAgeSeconds, maxFutureSeconds = 60 } = options;
  const names = new Set(endpoints.map(({ name }) => name));
  if (
    !Number.isSafeInteger(required) ||
    required > endpoints.length ||
    2 * required <= endpoints.length ||
    names.size !== endpoints.length
  ) {
    throw new KeysteadError("chain/bad-quorum", `${required} of ${endpoints.length} endpoints is no quorum`, {
      argument: "quorum",
      remedy: "Require more than half of the endpoints, and give each a name of its own: two halves could disagree.",
      details: { required, endpoints: endpoints.length },
    });
  }
  let last: { readonly number: number; readonly hash: Hex } | undefined = options.floor;
  let latest: Agreement | undefined;
  let reversed: KeysteadError | undefined;

  const requireFresh: Quorum["requireFresh"] = ({ number, timestamp }) => {
    const ageSeconds = Math.floor(clock()) - timestamp;
    const details = { block: number, ageSeconds, maxAgeSeconds, maxFutureSeconds };
    if (ageSeconds > maxAgeSeconds) {
      throw new KeysteadError("chain/stale", `finalized block ${number} is ${ageSeconds} s old`, {
        remedy: "Wait for the chain to finalize again, or use endpoints that follow it; check this machine's clock.",
        retryable: true,
        details,
      });
    }
    if (-ageSeconds > maxFutureSeconds) {
      throw new KeysteadError("chain/future-block", `block ${number} is ${-ageSeconds} s ahead of the clock`, {
        remedy: "Set this machine's clock.",
        retryable: true,
        details,
      });
    }
  };

  const finalized = async (): Promise<Agreement> => {
    if (reversed !== undefined) throw reversed;
    const found = await agree("finalized", -1);
    if (last !== undefined && found.block.number < last.number) {
      // They are behind what was used already. That block is still final: go on with it, while it is young enough.
      if (latest === undefined) throw behind(found.block.number, last.number);
      requireFresh(latest.block);
      return latest;
    }
    const agreed = last === undefined ? found.agreed : await requireContinuity(found, last);
    requireFresh(found.block);
    latest = { block: found.block, agreed };
    last = { number: found.block.number, hash: found.block.hash };
    return latest;
  };

  /** Those of the agreeing endpoints that still have the block that was final before. */
  const requireContinuity = async (
    found: Agreement,
    before: { readonly number: number; readonly hash: Hex },
  ): Promise<readonly Endpoint[]> => {
    const asked =
      found.block.number === before.number
        ? found.agreed.map((endpoint) => ({ endpoint, answer: found.block }))
        : await askEach(found.agreed, (client) => fetchHashed(client, before.number));
    const same = asked.filter((one) => "answer" in one && one.answer.hash === before.hash);
    if (same.length >= required) return same.map(({ endpoint }) => endpoint);
    const other = asked.filter((one) => "answer" in one && one.answer.hash !== before.hash);
    if (other.length < required) throw tooFew(asked, "finalized");
    reversed = new KeysteadError("chain/finality-reversed", `finalized block ${before.number} was replaced`, {
      remedy: "Stop. Find out whether the chain's finality failed or the endpoints lie before keys are released again.",
      details: { block: before.number, hash: before.hash },
    });
    throw reversed;
  };

  /** First without those that failed lately; with them where that comes to nothing. */
  const agree = async (tag: BlockTag, above: number): Promise<Agreement> => {
    const rested = endpoints.filter((endpoint) => !endpoint.resting());
    if (rested.length < required || rested.length === endpoints.length) return agreeAmong(endpoints, tag, above);
    return agreeAmong(rested, tag, above).catch(() => agreeAmong(endpoints, tag, above));
  };

  const agreeAmong = async (asked: readonly Endpoint[], tag: BlockTag, above: number): Promise<Agreement> => {
    const tips = await askEach(asked, (client) => fetchHashed(client, tag));
    const answered = tips.flatMap((tip) => ("answer" in tip ? [{ endpoint: tip.endpoint, block: tip.answer }] : []));
    if (answered.length < required) throw tooFew(tips, String(tag));
    if (tag === "finalized") {
      for (const { endpoint, block } of answered) endpoint.note({ state: "ok", finalized: block.number });
    }
    const numbers = answered.map(({ block }) => block.number).sort((a, b) => b - a);
    // The newest height that enough of them have reached by their own account; below it where a false account got in between.
    const heights = [...new Set(numbers.slice(required - 1))].filter((height) => height > above).slice(0, HEIGHTS);
    const seen = new Map<string, Hex>();
    for (const height of heights) {
      const reached = answered.filter(({ block }) => block.number >= height);
      const known = reached.filter(({ block }) => block.number === height);
      const further = reached.filter(({ block }) => block.number > height).map(({ endpoint }) => endpoint);
      const fetched = await askEach(further, (client) => fetchHashed(client, height));
      const at = [
        ...known,
        ...fetched.flatMap((one) => ("answer" in one ? [{ endpoint: one.endpoint, block: one.answer }] : [])),
      ];
      const groups = Map.groupBy(at, ({ block }) => block.hash);
      for (const [hash, group] of groups) {
        if (group.length < required || group[0] === undefined) continue;
        for (const { endpoint, block } of at) {
          if (block.hash !== hash && tag === "finalized")
            endpoint.note({ state: "disagrees", code: "chain/disagreement" });
        }
        return { block: group[0].block, agreed: group.map(({ endpoint }) => endpoint) };
      }
      for (const { endpoint, block } of at) if (!seen.has(endpoint.name)) seen.set(endpoint.name, block.hash);
    }
    throw new KeysteadError("chain/disagreement", `no ${required} endpoints give the same ${tag} block`, {
      argument: "endpoints",
      remedy: "Try again. If it goes on, one of the endpoints lies or follows another chain: find out which.",
      retryable: true,
      details: { required, hashes: Object.fromEntries(seen) },
    });
  };

  const tooFew = (asked: readonly Asked<unknown>[], tag: string) => {
    const failed = asked.flatMap((one) => ("error" in one ? [one] : []));
    const errors = Object.fromEntries(failed.map(({ endpoint, error }) => [endpoint.name, error.code]));
    const unhashed = failed.flatMap(({ error }) => (error.code === "proof/unknown-header" ? [error] : []));
    const ofFork = unhashed.filter(({ details }) => Array.isArray(details.fields) && details.fields.length > 0);
    const [first] = ofFork;
    // So many that the others could not make a quorum, however well they are: the chain's headers are the cause, not the network.
    // A header of known fields that does not hash is not a sign of a fork: it is garbled or a lie, and may pass.
    if (first !== undefined && ofFork.length > endpoints.length - required) {
      return new KeysteadError("chain/unknown-header", `no ${tag} block can be used: ${first.message}`, {
        argument: "endpoints",
        remedy: first.remedy,
        details: { ...first.details, required, errors },
      });
    }
    return new KeysteadError("chain/unreachable", `fewer than ${required} endpoints give a ${tag} block`, {
      argument: "endpoints",
      remedy: unhashed[0]?.remedy ?? "Check the endpoints and the network, and try again.",
      retryable: true,
      details: { required, errors },
      cause: failed[0]?.error,
    });
  };

  const head = (than: Block): Promise<Agreement | undefined> =>
    agree("latest", than.number).catch((error: unknown) => {
      // The first block of a fork: what is final is older, and decides as long as it is young enough.
      const passing = isKeysteadError(error) && (error.retryable || error.code === "chain/unknown-header");
      if (passing) return undefined;
      throw error;
    });

  return { finalized, head, requireFresh, required, endpoints };
}

/** A block whose header hashes to its hash here: of any other, nothing is known. */
async function fetchHashed(client: Parameters<typeof fetchBlock>[0], tag: BlockTag): Promise<Block> {
  const block = await fetchBlock(client, tag);
  if (block.hashed) return block;
  throw unknownHeader(block);
}

function behind(number: number, floor: number): KeysteadError {
  return new KeysteadError("chain/stale", `finalized block ${number} is older than block ${floor}, used before`, {
    remedy: "Wait until the endpoints have caught up, or use others.",
    retryable: true,
    details: { block: number, floor },
  });
}
