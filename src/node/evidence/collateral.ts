import { readFile } from "node:fs/promises";
import { toHex } from "../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../core/errors.ts";
import type { TdxCollateralKey } from "./tdx.ts";
import {
  isInDate,
  PCK_CAS,
  parseTdxCollateral,
  type TdxCollateral,
  type VerifiedTdxCollateral,
  verifyTdxCollateral,
} from "./tdx-collateral.ts";
import { parseTcbInfo } from "./tdx-tcb.ts";
import { monotonicSeconds, type Stopwatch } from "./time.ts";
import { parseCertificate, parsePemChain } from "./x509.ts";

/*
 * TDX collateral from files, and how long collateral of any source is kept (pccs.ts: from Intel or a PCCS). A source is not trusted: all it gives is
 * signed, and verified before it is kept. The one thing a source could do is to give old collateral that is still in date; what is held is therefore
 * never replaced by anything older.
 */

/** Gives collateral, not verified. */
export interface CollateralSource {
  /** For people, e.g. its host: named where several sources failed. */
  readonly name?: string | undefined;
  readonly fetch: (key: TdxCollateralKey) => Promise<TdxCollateral>;
}

const fail = (code: string, message: string, remedy: string, retryable: boolean, cause?: unknown) =>
  new KeysteadError(`collateral/${code}`, message, { argument: "collateral", remedy, retryable, cause });

/**
 * Collateral from JSON files, as `formatTdxCollateral` writes them, one platform family each. They are read at every fetch, so a replaced file counts
 * from the next refresh on.
 *
 * @throws KeysteadError `fetch` throws `collateral/not-found`, `collateral/unreadable` (retryable), and those of `parseTdxCollateral`
 * @example
 * const source = createFileSource(["collateral/b0c06f000000.json"]);
 */
export function createFileSource(paths: readonly string[]): CollateralSource {
  return {
    fetch: async ({ fmspc, ca }) => {
      for (const path of paths) {
        let text: string;
        try {
          text = await readFile(path, "utf8");
        } catch (cause) {
          throw fail("unreadable", `${path} cannot be read`, "Check the path and the file's rights.", true, cause);
        }
        const collateral = parseTdxCollateral(text);
        const [issuer] = parsePemChain(collateral.pckCrlIssuerChain, "tdx", path);
        const name = issuer === undefined ? undefined : parseCertificate(issuer, "tdx", path).commonName;
        if (name === PCK_CAS[ca] && toHex(parseTcbInfo(collateral.tcbInfo).fmspc) === fmspc) return collateral;
      }
      throw fail(
        "not-found",
        `no collateral file is for the platform family ${fmspc} of the ${ca} CA`,
        "Add the file of this platform family.",
        false,
      );
    },
  };
}

/** How {@link createCollateralCache} keeps and renews. Durations in seconds. */
export interface CollateralCacheOptions {
  /** Asked in turn until one gives collateral that verifies. */
  readonly sources: readonly CollateralSource[];
  /** Roots, DER, that are taken beside Intel's. */
  readonly unsafeTestRoots?: readonly Uint8Array[] | undefined;
  /** When to look for newer collateral. Default: an hour. */
  readonly refreshAfterSeconds?: number;
  /** How long to leave a source alone after it failed. Default: half a minute. */
  readonly retryAfterSeconds?: number;
  /** How many platform families. Default: 64. */
  readonly limit?: number;
  /** What pauses and renewals are measured by. Default: the machine's monotonic time. */
  readonly stopwatch?: Stopwatch;
}

/** What is held for one platform family, for readiness and metrics. */
export interface CollateralState {
  readonly key: TdxCollateralKey;
  readonly validUntil: number | undefined;
  readonly refreshedAt: number | undefined;
  /** Why the last try failed; `undefined` after a success. */
  readonly lastError: KeysteadError | undefined;
}

/** Verified collateral, kept until it expires. */
export interface CollateralCache {
  /**
   * Collateral that is in date at `atUnixSeconds`. What is held is given at once, and renewed beside; where nothing in date is held, the call waits
   * for the source and fails with it.
   *
   * @throws KeysteadError those of the source and of `verifyTdxCollateral`
   */
  readonly get: (key: TdxCollateralKey, atUnixSeconds: number) => Promise<VerifiedTdxCollateral>;
  /** Renews now, and says what came of it. What is held stays where that fails. */
  readonly refresh: (key: TdxCollateralKey, atUnixSeconds: number) => Promise<VerifiedTdxCollateral>;
  /** What is held and in date, at once, or nothing; what is missing or old is fetched beside. */
  readonly peek: (key: TdxCollateralKey, atUnixSeconds: number) => VerifiedTdxCollateral | undefined;
  readonly states: () => readonly CollateralState[];
}

interface Entry {
  readonly key: TdxCollateralKey;
  held: VerifiedTdxCollateral | undefined;
  refreshedAt: number | undefined;
  /** When it is to be renewed, and when a source that failed may be asked again, by the stopwatch: a clock that is set moves neither. */
  renewAt: number;
  retryAt: number;
  lastError: KeysteadError | undefined;
  pending: Promise<VerifiedTdxCollateral> | undefined;
}

/**
 * A cache of verified collateral. Expired collateral is never given out; collateral that does not verify, or is older than what is held in any part,
 * never replaces it; while a source fails, it is asked again only after a pause.
 *
 * @example
 * const cache = createCollateralCache({ sources: [source] });
 * const collateral = await cache.get(readTdxCollateralKey(quote), atUnixSeconds);
 */
export function createCollateralCache(options: CollateralCacheOptions): CollateralCache {
  const { sources, unsafeTestRoots, refreshAfterSeconds = 3600, retryAfterSeconds = 30, limit = 64 } = options;
  const stopwatch = options.stopwatch ?? monotonicSeconds;
  const entries = new Map<string, Entry>();

  const entryOf = (key: TdxCollateralKey): Entry => {
    const id = `${key.ca}:${key.fmspc}`;
    const found = entries.get(id);
    const entry: Entry = found ?? {
      key,
      held: undefined,
      refreshedAt: undefined,
      renewAt: 0,
      retryAt: Number.NEGATIVE_INFINITY,
      lastError: undefined,
      pending: undefined,
    };
    entries.delete(id);
    entries.set(id, entry);
    if (entries.size > limit) evict(entries);
    return entry;
  };

  const askOne = async (source: CollateralSource, { key, held }: Entry, atUnixSeconds: number) => {
    const fresh = verifyTdxCollateral(await source.fetch(key), { atUnixSeconds, unsafeTestRoots });
    checkAnswers(key, fresh);
    if (held !== undefined) checkNotOlder(held, fresh);
    return fresh;
  };

  /** The first source whose collateral verifies: one that gives what is out of date is no better than one that is down. */
  const askInTurn = async (entry: Entry, atUnixSeconds: number): Promise<VerifiedTdxCollateral> => {
    const failures: KeysteadError[] = [];
    for (const source of sources) {
      try {
        return await askOne(source, entry, atUnixSeconds);
      } catch (cause) {
        failures.push(sourceError(cause));
      }
    }
    throw together(failures, sources);
  };

  const renew = async (entry: Entry, atUnixSeconds: number): Promise<VerifiedTdxCollateral> => {
    try {
      const fresh = await askInTurn(entry, atUnixSeconds);
      entry.held = fresh;
      entry.refreshedAt = atUnixSeconds;
      entry.renewAt = stopwatch() + refreshAfterSeconds;
      entry.lastError = undefined;
      return fresh;
    } catch (cause) {
      const error = sourceError(cause);
      entry.lastError = error;
      entry.retryAt = stopwatch() + retryAfterSeconds;
      throw error;
    }
  };

  const start = (entry: Entry, atUnixSeconds: number): Promise<VerifiedTdxCollateral> => {
    entry.pending ??= renew(entry, atUnixSeconds).finally(() => {
      entry.pending = undefined;
    });
    return entry.pending;
  };

  return {
    get: async (key, atUnixSeconds) => {
      const entry = entryOf(key);
      const { held, lastError } = entry;
      const now = stopwatch();
      const mayAsk = now >= entry.retryAt;
      if (held === undefined || !isInDate(held, atUnixSeconds)) {
        if (entry.pending === undefined && !mayAsk && lastError !== undefined) throw lastError;
        return await start(entry, atUnixSeconds);
      }
      if (mayAsk && now >= entry.renewAt) {
        // Its failure is kept in `lastError`, for states(); what is held is in date and stays.
        start(entry, atUnixSeconds).catch(() => undefined);
      }
      return held;
    },
    peek: (key, atUnixSeconds) => {
      const entry = entryOf(key);
      const now = stopwatch();
      const held = entry.held !== undefined && isInDate(entry.held, atUnixSeconds) ? entry.held : undefined;
      if (now >= entry.retryAt && (held === undefined || now >= entry.renewAt))
        start(entry, atUnixSeconds).catch(() => undefined);
      return held;
    },
    refresh: (key, atUnixSeconds) => start(entryOf(key), atUnixSeconds),
    states: () =>
      [...entries.values()].map(({ key, held, refreshedAt, lastError }) => ({
        key,
        validUntil: held?.validUntil,
        refreshedAt,
        lastError,
      })),
  };
}

const sourceError = (cause: unknown): KeysteadError =>
  isKeysteadError(cause)
    ? cause
    : fail("unreachable", "the collateral source failed", "Check the source.", true, cause);

/** One failure as it is; of several, what each source said. */
function together(failures: readonly KeysteadError[], sources: readonly CollateralSource[]): KeysteadError {
  const [first] = failures;
  if (first !== undefined && failures.length === 1) return first;
  const said = failures.map(({ message }, index) => `${sources[index]?.name ?? `source ${index + 1}`}: ${message}`);
  const retryable = failures.some((failure) => failure.retryable);
  return new KeysteadError("collateral/all-failed", `no source gave collateral that counts: ${said.join("; ")}`, {
    argument: "collateral",
    remedy: first?.remedy ?? "Configure a source of collateral.",
    retryable,
    details: { codes: failures.map(({ code }) => code) },
    cause: first,
  });
}

/** What was never found goes first: it cannot push out what is in use. */
function evict(entries: Map<string, Entry>): void {
  const [oldest] = entries.keys();
  const empty = [...entries].slice(0, -1).find(([, { held, pending }]) => held === undefined && pending === undefined);
  const id = empty?.[0] ?? oldest;
  if (id !== undefined) entries.delete(id);
}

function checkAnswers(key: TdxCollateralKey, { tcbInfo, pckCa }: VerifiedTdxCollateral): void {
  if (toHex(tcbInfo.fmspc) === key.fmspc && pckCa.commonName === PCK_CAS[key.ca]) return;
  throw fail(
    "other-platform",
    `the source gave collateral of ${toHex(tcbInfo.fmspc)} for ${key.fmspc}, or of the other CA`,
    "Check the PCCS.",
    false,
  );
}

/** Part by part: a mix of new and old would hide what the old part does not know. */
function checkNotOlder(held: VerifiedTdxCollateral, fresh: VerifiedTdxCollateral): void {
  const ages: readonly [string, number, number][] = [
    ["TCB info", held.tcbInfo.issueDate, fresh.tcbInfo.issueDate],
    ["TCB evaluation data number", held.tcbInfo.evaluationDataNumber, fresh.tcbInfo.evaluationDataNumber],
    ["QE identity", held.qeIdentity.issueDate, fresh.qeIdentity.issueDate],
    ["QE evaluation data number", held.qeIdentity.evaluationDataNumber, fresh.qeIdentity.evaluationDataNumber],
    ["PCK CRL", held.pckCrl.thisUpdate, fresh.pckCrl.thisUpdate],
    ["root CA CRL", held.rootCaCrl.thisUpdate, fresh.rootCaCrl.thisUpdate],
  ];
  const older = ages.find(([, before, after]) => after < before);
  if (older === undefined) return;
  throw fail(
    "older",
    `the source's ${older[0]} is older than what is held`,
    "Let the PCCS refresh its own cache.",
    true,
  );
}
