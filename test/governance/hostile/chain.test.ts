import { expect } from "chai";
import type { Operation } from "../../../src/governance/operation.ts";
import { simulateProposal } from "../../../src/governance/simulate.ts";
import { type GovernedWorld, startWorld } from "../../helpers/governed-world.ts";
import { ALLOW_TDX, ATTACKER, callOf, forge, grantBackOf, roleOf } from "./stage.ts";

/** What the play of a folder leaves worse, by the codes that `simulate` names; each exits 1. */
const LEAVES: readonly {
  readonly name: string;
  readonly make: (world: GovernedWorld) => Promise<Operation>;
  readonly says: readonly string[];
}[] = [
  {
    name: "a rollback that enables a module of the guardian Safe",
    says: ["simulate/safe-module", "lint/safe-module"],
    make: async (world) => {
      const { address } = world.deployment.safes.guardian;
      const grant = await world.propose({ id: "001-tdx", intents: [ALLOW_TDX] });
      return grantBackOf(grant, callOf("safe", address, "enableModule", ATTACKER));
    },
  },
  {
    name: "a rollback that lets one owner decide",
    says: ["simulate/safe-threshold", "lint/safe-threshold"],
    make: async (world) => {
      const { address } = world.deployment.safes.guardian;
      const grant = await world.propose({ id: "001-tdx", intents: [ALLOW_TDX] });
      return grantBackOf(grant, callOf("safe", address, "changeThreshold", 1));
    },
  },
  {
    name: "PROPOSER_ROLE for a contract that the record does not name",
    says: ["lint/roles"],
    make: (world) =>
      world.propose({
        id: "002-role",
        intents: [
          {
            intent: "grant-role",
            arguments: { contract: "timelock", role: "PROPOSER_ROLE", account: world.contracts.policy },
          },
        ],
      }),
  },
  {
    name: "the guardian's veto taken",
    says: ["lint/roles", "lint/no-canceller"],
    make: async (world) => {
      const { timelock } = world.contracts;
      const { address } = world.deployment.safes.guardian;
      const given = { to: timelock, data: "0x00" };
      const call = await world.propose({ id: "003-veto", intents: [{ intent: "call", arguments: given }] });
      const take = callOf("timelock", timelock, "revokeRole", roleOf("CANCELLER_ROLE"), address);
      const terms = call.timelock === null ? null : { ...call.timelock, delay: 2n * call.timelock.delay };
      return forge(call, { calls: [take], timelock: terms });
    },
  },
  {
    name: "a shorter delay, which the timelock itself refuses",
    says: ["simulate/reverted"],
    make: (world) =>
      world.propose({ id: "004-delay", intents: [{ intent: "set-delay", arguments: { delay: "24h" } }] }),
  },
];

describe("hostile folders on a chain", function () {
  this.timeout(240_000);
  let world: GovernedWorld;
  before(async () => {
    world = await startWorld("hardhat", "1.5.0");
  });
  after(() => world.stop());
  const simulate = (operation: Operation) =>
    simulateProposal(world.client, operation, { deployment: world.deployment });

  it("a good grant leaves nothing worse, its rollback included", async () => {
    const found = await simulate(await world.propose({ id: "001-tdx", intents: [ALLOW_TDX] }));
    expect([found.verdict, found.linted, found.differences, found.warnings]).to.deep.equal(["fine", true, [], []]);
  });

  for (const { name, make, says } of LEAVES) {
    it(name, async () => {
      const found = await simulate(await make(world));
      expect(found.verdict).to.equal("unsafe");
      expect(found.differences.map(({ code }) => code)).to.include.members([...says]);
    });
  }
});
