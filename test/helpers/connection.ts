import { network } from "hardhat";
import type { Connection } from "./suite.ts";

/** The one simulated chain that the contract tests of a process share, so that `loadFixture` deploys each scene once. */
export const connection: Connection = await network.create();
