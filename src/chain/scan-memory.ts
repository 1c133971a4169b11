import type { ScanCache, ScanKey, ScanPart } from "./logs.ts";

/**
 * A scan's cache for as long as one reading lasts, over another one where there is one: a reading that has to begin again at a newer block scans what is new.
 *
 * @example
 * const cache = memoryCache(checkpoint);
 */
export function memoryCache(under?: ScanCache): ScanCache {
  const parts = new Map<string, ScanPart>();
  const nameOf = ({ chainId, address, topics = [], fromBlock }: ScanKey) =>
    JSON.stringify([chainId, address, topics, fromBlock]);
  return {
    load: (key) => parts.get(nameOf(key)) ?? under?.load(key),
    used: () => under?.used() ?? false,
    due: () => under?.due() ?? false,
    async save(key, part) {
      parts.set(nameOf(key), part);
      await under?.save(key, part);
    },
  };
}
