export { type Anvil, startAnvil } from "../src/governance/anvil.ts";

/** The port that `hardhat.config.ts` gives the network `anvil`. */
export const ANVIL_PORT = 8546;
