import type { HardhatEthersSigner } from "@nomicfoundation/hardhat-ethers/types";
import { expect } from "chai";
import { ZeroAddress, ZeroHash } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { bytes32 } from "../../helpers/registry.ts";
import { contractSigner } from "../../helpers/suite.ts";
import { type Batch, DELAY, dismissal, ROLE, type TimelockWorld, timelockWorld } from "../../helpers/timelock.ts";
import { verdictOf } from "../../helpers/verdict.ts";

const { networkHelpers } = connection;

/** The two Safes, the timelock itself, and a stranger. */
const ACTORS = ["governance", "guardian", "timelock", "eve"] as const;
type Actor = (typeof ACTORS)[number];

interface World extends TimelockWorld {
  readonly hands: Readonly<Record<Actor, HardhatEthersSigner>>;
  readonly names: ReadonlyMap<string, string>;
  /** One that is ready, one that waits, and a dismissal of the guardian that waits. */
  readonly ready: Batch;
  readonly ids: Readonly<Record<"waiting" | "dismissal", string>>;
  readonly single: readonly [string, bigint, string, string, string];
}

async function world(): Promise<World> {
  const loaded = await timelockWorld();
  const { timelock, governance, guardian, eve, at, policy, schedule } = loaded;
  const call = { to: at.policy, data: policy.interface.encodeFunctionData("enableTee", [2]) };
  const single = [call.to, 0n, call.data, ZeroHash, bytes32("single")] as const;
  await timelock.connect(governance).schedule(...single, DELAY);
  const ready = { calls: [call], salt: bytes32("ready") };
  await schedule(ready);
  await networkHelpers.time.increase(DELAY);
  const ids = {
    waiting: await schedule({ calls: [call], salt: bytes32("waiting") }),
    dismissal: await schedule({ calls: dismissal(loaded, guardian.address) }, 2 * DELAY),
  };
  const hands = { governance, guardian, eve, timelock: await contractSigner(connection, at.timelock) };
  const names = new Map([
    ...ACTORS.map((actor) => [hands[actor].address, actor] as const),
    ...Object.entries(ROLE).map(([name, role]) => [role, name] as const),
    ...Object.entries(ids).map(([name, operation]) => [operation, name] as const),
  ]);
  return {
    ...loaded,
    ...{ hands, ready, ids, single },
    names: new Map([...names].map(([value, name]) => [value.toLowerCase(), name])),
  };
}

type Rule = (actor: Actor) => string;
const holderOf =
  (role: string, ...actors: readonly Actor[]): Rule =>
  (actor) =>
    actors.includes(actor) ? "allowed" : `AccessControlUnauthorizedAccount(${actor}, ${role})`;
const proposer = holderOf("proposer", "governance");
const executor = holderOf("executor", "governance");
const admin = holderOf("admin", "timelock");
const anyone: Rule = () => "allowed";
const itself: Rule = (actor) => (actor === "timelock" ? "allowed" : `TimelockUnauthorizedCaller(${actor})`);

interface Row {
  readonly name: string;
  readonly given?: string;
  readonly rule: Rule;
  readonly args: (world: World, hand: HardhatEthersSigner) => readonly unknown[];
}

const batchOf = ({ calls, salt = ZeroHash }: Batch) => [
  ...[calls.map(({ to }) => to), calls.map(() => 0n), calls.map(({ data }) => data), ZeroHash, salt],
];

const ROWS: readonly Row[] = [
  {
    name: "schedule",
    rule: proposer,
    args: ({ single: [to, value, data, before] }) => [to, value, data, before, bytes32("new"), DELAY],
  },
  {
    name: "scheduleBatch",
    rule: proposer,
    args: ({ ready: { calls } }) => [...batchOf({ calls, salt: bytes32("new") }), DELAY],
  },
  { name: "execute", rule: executor, args: ({ single }) => single },
  { name: "executeBatch", rule: executor, args: ({ ready }) => batchOf(ready) },
  {
    name: "cancel",
    given: "an operation that waits",
    rule: holderOf("canceller", "governance", "guardian"),
    args: ({ ids }) => [ids.waiting],
  },
  {
    name: "cancel",
    given: "a dismissal",
    rule: (actor) =>
      actor === "governance" ? "allowed" : `GovernanceTimelock_CannotCancelDismissal(dismissal, ${actor})`,
    args: ({ ids }) => [ids.dismissal],
  },
  { name: "updateDelay", rule: itself, args: () => [DELAY] },
  { name: "grantRole", rule: admin, args: ({ successor }) => [ROLE.canceller, successor.address] },
  { name: "revokeRole", rule: admin, args: ({ hands }) => [ROLE.canceller, hands.guardian.address] },
  {
    name: "renounceRole",
    given: "the proposer's",
    rule: (actor) => (actor === "governance" ? "GovernanceTimelock_LastHolder(proposer, governance)" : "allowed"),
    args: (_, { address }) => [ROLE.proposer, address],
  },
  {
    name: "renounceRole",
    given: "the canceller's, of which there are two",
    rule: anyone,
    args: (_, { address }) => [ROLE.canceller, address],
  },
  {
    name: "renounceRole",
    given: "the admin's",
    rule: (actor) => (actor === "timelock" ? "GovernanceTimelock_LastHolder(admin, timelock)" : "allowed"),
    args: (_, { address }) => [ROLE.admin, address],
  },
  { name: "onERC721Received", rule: anyone, args: () => [ZeroAddress, ZeroAddress, 0, "0x"] },
  { name: "onERC1155Received", rule: anyone, args: () => [ZeroAddress, ZeroAddress, 0, 0, "0x"] },
  { name: "onERC1155BatchReceived", rule: anyone, args: () => [ZeroAddress, ZeroAddress, [], [], "0x"] },
];

describe("Authorization matrix: GovernanceTimelock", () => {
  it("every function that changes state has its row", async () => {
    const { timelock } = await networkHelpers.loadFixture(world);
    const changing = timelock.interface.fragments
      .filter((fragment) => fragment.type === "function" && !/ (view|pure)( |$)/.test(fragment.format("full")))
      .map((fragment) => fragment.format("sighash").replace(/\(.*/, ""));
    expect([...new Set(ROWS.map(({ name }) => name))].sort()).to.deep.equal(changing.sort());
  });

  for (const { name, given, rule, args } of ROWS) {
    it(given === undefined ? name : `${name}, given ${given}`, async () => {
      const there = await networkHelpers.loadFixture(world);
      const told: Record<string, string> = {};
      for (const actor of ACTORS) {
        const hand = there.hands[actor];
        told[actor] = await verdictOf(there.timelock.connect(hand), name, args(there, hand), there.names);
      }
      expect(told).to.deep.equal(Object.fromEntries(ACTORS.map((actor) => [actor, rule(actor)])));
    });
  }
});
