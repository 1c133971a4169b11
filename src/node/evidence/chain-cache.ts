import { createHash } from "node:crypto";

/** Certificate chains whose signatures were checked, by the hash of everything that the check depended on. */
export interface ChainCache {
  /** The value kept under the hash of `parts`, or that of `make`, which is then kept. What `make` throws is not kept. */
  readonly get: <T extends object>(kind: ChainKind<T>, parts: readonly Uint8Array[], make: () => T) => T;
}

/** What one kind of chain is kept as. Values of two kinds never meet, whatever their hashes. */
export interface ChainKind<T extends object> {
  readonly entries: WeakMap<ChainCache, Map<string, T>>;
}

/** A platform's chain is a few kilobytes: a thousand machines in some megabytes. */
const LIMIT = 1024;

/**
 * Declares a kind of chain.
 *
 * @example
 * const PCK = defineChainKind<PckChain>();
 */
export function defineChainKind<T extends object>(): ChainKind<T> {
  return { entries: new WeakMap() };
}

/**
 * Makes a cache for verifiers. It holds only what does not depend on time: signatures, names, roots. Dates and revocation are judged at every use. At
 * the limit, the chain that was not used for longest goes.
 *
 * @param limit how many chains of each kind
 * @example
 * const chains = createChainCache();
 * verifyTdxQuote(quote, collateral, { atUnixSeconds, chains });
 */
export function createChainCache(limit: number = LIMIT): ChainCache {
  const cache: ChainCache = {
    get: <T extends object>(kind: ChainKind<T>, parts: readonly Uint8Array[], make: () => T): T => {
      const entries = kind.entries.get(cache) ?? new Map<string, T>();
      kind.entries.set(cache, entries);
      const hash = createHash("sha256");
      for (const part of parts) hash.update(`${part.length}:`).update(part);
      const key = hash.digest("base64");
      const found = entries.get(key);
      const value = found ?? make();
      entries.delete(key);
      entries.set(key, value);
      const oldest = entries.keys().next();
      if (entries.size > limit && !oldest.done) entries.delete(oldest.value);
      return value;
    },
  };
  return cache;
}
