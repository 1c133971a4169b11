import { isKeysteadError, KeysteadError } from "../../core/errors.ts";
import { type RevocationList, readCrl } from "./crl.ts";
import { readKdsUrl } from "./kds.ts";
import { type FetchLike, REQUEST_TIMEOUT_MS, requestDocument } from "./request.ts";
import { ARKS, CHAIN_NAMES, checkCrlDates, type Product, type VerifiedSnp } from "./snp.ts";
import { isValidAt, monotonicSeconds, type Stopwatch } from "./time.ts";
import { parseCertificate } from "./x509.ts";

/*
 * AMD's revocation lists, one a product, signed by its ARK. Source: AMD, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification"
 * (57230): GET https://kdsintf.amd.com/vcek/v1/{product_name}/crl, DER; /vlek/v1/… where an ASVK issued the machine's key. A server is not trusted: what it gives is verified before it is kept, and never takes
 * the place of a newer list. A list that can't be had is no list that allows: whoever needs it waits, or is refused.
 */

const REFRESH_AFTER_SECONDS = 3600;
const RETRY_AFTER_SECONDS = 30;

/** Which of AMD's two kinds of key signed a report: each kind has a list of its own. */
export type Endorsement = VerifiedSnp["endorsement"];

/** What a list is judged by. */
export interface SnpCrlOptions {
  readonly atUnixSeconds: number;
  /** Roots, DER, that are taken beside AMD's. */
  readonly unsafeTestRoots?: readonly Uint8Array[] | undefined;
}

/**
 * Verifies a revocation list of a product: signed by its pinned ARK (or a test root), and in date.
 *
 * @throws KeysteadError `snp/crl-malformed`, `snp/crl-issuer`, `snp/crl-signature`, `snp/crl-expired`, `snp/crl-not-yet-valid`
 * @example
 * verifySnpCrl(der, "milan", { atUnixSeconds }).nextUpdate;
 */
export function verifySnpCrl(
  der: Uint8Array,
  product: Product,
  { atUnixSeconds, unsafeTestRoots = [] }: SnpCrlOptions,
): RevocationList {
  const list = readUnder(der, product, unsafeTestRoots);
  checkCrlDates(list, atUnixSeconds);
  return list;
}

/** The list under the vendor's root, or under one of the others; the error is the vendor root's. */
function readUnder(der: Uint8Array, product: Product, others: readonly Uint8Array[]): RevocationList {
  const pinned = ARKS[product];
  let first: unknown;
  for (const root of [...(pinned === undefined ? [] : [pinned]), ...others]) {
    try {
      return readCrl(der, parseCertificate(root, "snp", root === pinned ? "ARK" : "test root"), "snp", "AMD CRL");
    } catch (error) {
      // A test root of another vendor's kind, or not the one that signed it.
      if (!isKeysteadError(error)) throw error;
      first ??= error;
    }
  }
  throw (
    first ??
    new KeysteadError("snp/no-root", `AMD's root of ${CHAIN_NAMES[product]} is not known here`, {
      argument: "crl",
      remedy: "Use a version of keystead that knows this product.",
    })
  );
}

/** Where lists come from. */
export interface SnpCrlSourceOptions extends Pick<SnpCrlOptions, "unsafeTestRoots"> {
  /** The address before `/vcek/v1/` and `/vlek/v1/`: AMD's is https://kdsintf.amd.com. */
  readonly url: string;
  readonly fetch: FetchLike;
  /** Default: ten seconds. */
  readonly timeoutMs?: number;
  /** What pauses and renewals are measured by. Default: the machine's monotonic time. */
  readonly stopwatch?: Stopwatch | undefined;
}

/** Lists, verified and kept. */
export interface SnpCrlSource {
  /**
   * The list of a product, DER, in date at `atUnixSeconds`. What is held is given at once and renewed beside, every hour; where nothing in date is held, the
   * call waits for the server and fails with it.
   *
   * @throws KeysteadError `collateral/…` of the request, `collateral/older`, and those of {@link verifySnpCrl}
   */
  readonly get: (product: Product, endorsement: Endorsement, atUnixSeconds: number) => Promise<Uint8Array>;
}

interface Held {
  readonly der: Uint8Array;
  readonly list: RevocationList;
}

interface Entry {
  readonly address: string;
  readonly product: Product;
  readonly endorsement: Endorsement;
  held: Held | undefined;
  /** By the stopwatch: a clock that is set moves neither pauses nor renewals. */
  askedAt: number;
  lastError: unknown;
  pending: Promise<Held> | undefined;
}

/**
 * AMD's revocation lists over HTTPS.
 *
 * @throws KeysteadError `collateral/bad-url`
 * @example
 * const crl = await createSnpCrlSource({ url: "https://kdsintf.amd.com", fetch }).get("milan", "vcek", atUnixSeconds);
 */
export function createSnpCrlSource(options: SnpCrlSourceOptions): SnpCrlSource {
  const { fetch, unsafeTestRoots, stopwatch = monotonicSeconds, timeoutMs = REQUEST_TIMEOUT_MS } = options;
  const root = readKdsUrl(options.url);
  const entries = new Map<string, Entry>();

  const renew = async (entry: Entry, atUnixSeconds: number): Promise<Held> => {
    const { address, product, endorsement } = entry;
    entry.askedAt = stopwatch();
    try {
      const { body: der } = await requestDocument(address, {
        fetch,
        what: `CRL of ${CHAIN_NAMES[product]} (${endorsement.toUpperCase()})`,
        who: "AMD's KDS",
        timeoutMs,
      });
      const list = verifySnpCrl(der, product, { atUnixSeconds, unsafeTestRoots });
      if (entry.held !== undefined && list.thisUpdate < entry.held.list.thisUpdate) {
        throw new KeysteadError("collateral/older", `${address} gives an older list than the one held`, {
          argument: "evidence.snpKdsUrl",
          remedy: "Let the mirror refresh what it holds.",
          retryable: true,
        });
      }
      entry.lastError = undefined;
      entry.held = { der, list };
      return entry.held;
    } catch (error) {
      entry.lastError = error;
      throw error;
    }
  };

  const start = (entry: Entry, atUnixSeconds: number): Promise<Held> => {
    entry.pending ??= renew(entry, atUnixSeconds).finally(() => {
      entry.pending = undefined;
    });
    return entry.pending;
  };

  return {
    get: async (product, endorsement, atUnixSeconds) => {
      const address = `${root}/${endorsement}/v1/${CHAIN_NAMES[product]}/crl`;
      const entry: Entry = entries.get(address) ?? {
        address,
        product,
        endorsement,
        held: undefined,
        askedAt: 0,
        lastError: undefined,
        pending: undefined,
      };
      entries.set(address, entry);
      const { held, lastError } = entry;
      const since = stopwatch() - entry.askedAt;
      const rested = lastError === undefined || since >= RETRY_AFTER_SECONDS;
      const { thisUpdate: from = 0, nextUpdate: until = 0 } = held?.list ?? {};
      if (held === undefined || !isValidAt({ from, until }, atUnixSeconds)) {
        if (entry.pending === undefined && !rested) throw lastError;
        return (await start(entry, atUnixSeconds)).der;
      }
      const due = lastError === undefined ? since >= REFRESH_AFTER_SECONDS : rested;
      // Its failure is kept; what is held is in date and stays.
      if (due) start(entry, atUnixSeconds).catch(() => undefined);
      return held.der;
    },
  };
}
