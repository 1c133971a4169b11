/**
 * Chain ids that only development nodes use: 31337 (Hardhat, anvil) and 1337 (geth --dev, Ganache). The list is short on purpose:
 * an id that is not on it gets every check that a public chain gets.
 */
const LOCAL_CHAIN_IDS: ReadonlySet<bigint> = new Set([31337n, 1337n]);

/**
 * Whether a chain id belongs to a development node, where Safe contracts may be put in place, weak parameters are tolerated and test TEEs may be taken.
 *
 * @example isLocalChain(31337n) // true
 */
export function isLocalChain(chainId: bigint): boolean {
  return LOCAL_CHAIN_IDS.has(chainId);
}
