import { KeysteadError } from "../../core/errors.ts";
import { type FetchLike, REQUEST_TIMEOUT_MS, requestDocument } from "./request.ts";
import { ARKS, CHAIN_NAMES, claimedSigner } from "./snp.ts";
import { monotonicSeconds, type Stopwatch } from "./time.ts";
import { isSignedBy, parseCertificate, parsePemChain } from "./x509.ts";

/*
 * AMD's key distribution service: where revocation lists (snp-crl.ts) and intermediates come from. Source: AMD, "Versioned Chip Endorsement Key (VCEK)
 * Certificate and KDS Interface Specification" (57230): GET /vcek/v1/PRODUCT/cert_chain, /vlek/v1/PRODUCT/cert_chain: PEM, the ASK or ASVK and the ARK.
 */

/**
 * Checks an address of AMD's service or a mirror.
 *
 * @returns the address before `/vcek/v1` and `/vlek/v1`, without a slash at its end
 * @throws KeysteadError `collateral/bad-url`
 * @example
 * readKdsUrl("https://kdsintf.amd.com/"); // "https://kdsintf.amd.com"
 */
export function readKdsUrl(url: string): string {
  const base = URL.canParse(url) ? new URL(url) : undefined;
  const clean =
    base !== undefined &&
    /^https?:$/.test(base.protocol) &&
    [base.search, base.hash, base.username, base.password].every((part) => part === "");
  if (clean) return base.href.replace(/\/+$/, "");
  throw new KeysteadError("collateral/bad-url", "that is not an address of AMD's key distribution service", {
    argument: "evidence.snpKdsUrl",
    remedy: "Give https://kdsintf.amd.com, or a mirror's address before /vcek/v1.",
  });
}

/** Intermediates that are not known here, fetched once. */
export interface SnpSignerSource {
  /**
   * The intermediate that issued a machine's key, DER.
   *
   * @returns `undefined` where the key names no known product
   * @throws KeysteadError `collateral/…` of the request, `collateral/other-signer`; those of `parseCertificate` and `parsePemChain`
   */
  readonly get: (endorsementKey: Uint8Array) => Promise<Uint8Array | undefined>;
}

/** Where intermediates come from. */
export interface SnpSignerOptions {
  readonly url: string;
  readonly fetch: FetchLike;
  readonly unsafeTestRoots?: readonly Uint8Array[] | undefined;
  /** Default: ten seconds. */
  readonly timeoutMs?: number | undefined;
  readonly stopwatch?: Stopwatch | undefined;
}

/** How long a server that failed is left alone. */
const RETRY_AFTER_SECONDS = 30;

interface Entry {
  pending: Promise<Uint8Array> | undefined;
  failure: { readonly error: unknown; readonly at: number } | undefined;
}

/**
 * Intermediates from AMD's service. One that does not stand under AMD's root (or a test root) is not kept, and what is kept is checked again at every use.
 *
 * @throws KeysteadError `collateral/bad-url`
 * @example
 * const signer = await createSnpSignerSource({ url: "https://kdsintf.amd.com", fetch }).get(vlek);
 */
export function createSnpSignerSource(options: SnpSignerOptions): SnpSignerSource {
  const { fetch, unsafeTestRoots = [], timeoutMs = REQUEST_TIMEOUT_MS, stopwatch = monotonicSeconds } = options;
  const base = readKdsUrl(options.url);
  /** Two sorts of key times four products: it cannot grow. */
  const entries = new Map<string, Entry>();
  const roots = [...Object.values(ARKS), ...unsafeTestRoots].flatMap((der) => {
    try {
      return [parseCertificate(der, "snp", "root").publicKey];
    } catch {
      return []; // a test root of another vendor's kind
    }
  });

  const ask = async (path: string): Promise<Uint8Array> => {
    const what = `certificate chain ${path}`;
    const { body } = await requestDocument(`${base}${path}`, { fetch, what, who: "AMD's KDS", timeoutMs });
    const [signer] = parsePemChain(body, "snp", what);
    if (signer !== undefined && roots.some((key) => isSignedBy(signer, key, "snp", what))) return signer;
    throw new KeysteadError(
      "collateral/other-signer",
      `${path} starts with a certificate that AMD's root did not issue`,
      {
        argument: "evidence.snpKdsUrl",
        remedy: "Check the mirror of AMD's key distribution service.",
      },
    );
  };

  return {
    get: async (endorsementKey) => {
      const claimed = claimedSigner(endorsementKey);
      if (claimed === undefined) return undefined;
      const path = `/${claimed.kind}/v1/${CHAIN_NAMES[claimed.product]}/cert_chain`;
      const entry: Entry = entries.get(path) ?? { pending: undefined, failure: undefined };
      entries.set(path, entry);
      const { failure } = entry;
      if (failure !== undefined && stopwatch() - failure.at < RETRY_AFTER_SECONDS) throw failure.error;
      entry.failure = undefined;
      entry.pending ??= ask(path).catch((error: unknown) => {
        entry.failure = { error, at: stopwatch() };
        entry.pending = undefined;
        throw error;
      });
      return await entry.pending;
    },
  };
}
