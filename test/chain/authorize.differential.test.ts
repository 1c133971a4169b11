import { expect } from "chai";
import fc from "fast-check";
import {
  type AuthorizeRequest,
  type Contracts,
  confirmDecision,
  evaluate,
  slotsOf,
} from "../../src/chain/authorize.ts";
import { fetchBlock } from "../../src/chain/block.ts";
import type { Endpoint } from "../../src/chain/endpoint.ts";
import { createProvenState } from "../../src/chain/proven.ts";
import {
  imageSlot,
  policyDeviceSlot,
  policyEntrySlot,
  policySlots,
  serviceDeviceSlot,
  serviceSlots,
  slotHex,
} from "../../src/chain/slots.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { DECISIONS, type DecisionName, TCB_STATUS_NAMES } from "../../src/core/decision.ts";
import { endpointsOf, type NodeChain, startNodeChain } from "../helpers/decider.ts";
import { DECISION } from "../helpers/decisions.ts";
import { bytes32 } from "../helpers/registry.ts";

/*
 * Random storage words, written into a real chain: every state that the contracts could leave there and many that they could not, with times just before,
 * at and after the block's. Our reading of proven slots must give what the contract answers, each time.
 */

const STATES = Number(process.env.KEYSTEAD_FUZZ_STATES ?? 60);
const SEED = Number(process.env.KEYSTEAD_FUZZ_SEED ?? 20_260);
const SERVICES = ["one", "two"].map((label): Hex => `0x${bytes32(label).slice(2, 42)}`);
const IMAGES = ["a", "b"].map((label) => bytes32(`image ${label}`) as Hex);
const PLATFORMS = ["p", "q"].map((label) => bytes32(`platform ${label}`) as Hex);
const DEVICES = ["x", "y"].map((label) => bytes32(`device ${label}`) as Hex);
const KINDS = [1, 2, 3, 4];

/** Fields of a word, low bits first, as `[width in bits, value]`. */
const pack = (...fields: readonly (readonly [width: number, value: number | bigint])[]): bigint => {
  let word = 0n;
  let at = 0n;
  for (const [width, value] of fields) {
    word |= BigInt.asUintN(width, BigInt(value)) << at;
    at += BigInt(width);
  }
  return word;
};

const uint = (width: number) => fc.bigInt({ min: 0n, max: 2n ** BigInt(width) - 1n });
/** A time as seen from a block at `t`: never, long past, the second before, that second, the one after, the last of all. */
const timeAt = (t: number) => fc.constantFrom(0, 1, t - 1, t, t, t + 1, t + 1, 2 ** 40 - 1);
const mostly = <T>(usual: T, ...others: T[]) => fc.constantFrom(usual, usual, usual, usual, usual, ...others);

const serviceWord = fc
  .tuple(uint(160), uint(24), mostly(31, 0, 1, 3, 9, 15, 23), uint(32), uint(32))
  .map(([admin, notice, flags, sequence, block]) =>
    pack([160, admin], [24, notice], [8, flags], [32, sequence], [32, block]),
  );
const rulesWord = (t: number) =>
  fc
    .tuple(uint(160), uint(16), timeAt(t))
    .map(([pending, epoch, ends]) => pack([160, pending], [16, epoch], [40, ends]));
const imageWord = (t: number) =>
  fc
    .tuple(
      mostly(t, 0, t - 1, t + 1, 2 ** 40 - 1),
      mostly(0, t - 1, t, t + 1, t + 1, 2 ** 40 - 1),
      mostly(1, 0, 2),
      fc.constantFrom(...KINDS, ...KINDS, 0, 7, 200),
      uint(16),
      fc.constantFrom(0, 1),
    )
    .map(([from, until, state, kind, mask, restricts]) =>
      pack([40, from], [40, until], [8, state], [8, kind], [32, mask], [8, restricts]),
    );
const gateWord = (t: number) =>
  fc
    .tuple(
      mostly(0, t - 1, t, t + 1, 2 ** 40 - 1),
      mostly(0x1e, 0, 0xff, 0x0c),
      uint(8),
      mostly(2n ** 128n - 1n, 0n),
      uint(128),
    )
    .map(([paused, enabled, restricted, all, some]) =>
      pack([40, paused], [8, enabled], [8, restricted], [128, all === 0n ? some : all]),
    );
const entryWord = fc
  .tuple(mostly(1, 0, 2), fc.constantFrom(...KINDS), uint(16), uint(40))
  .map(([state, kind, mask, since]) => pack([8, state], [8, kind], [32, mask], [40, since]));
const flag = fc.constantFrom(0n, 1n);

/** Every word that a decision of these requests may read: contract, slot, and what is written there. */
const stateAt = ({ registry, policy }: Contracts, t: number) => {
  const cells: (readonly [Hex, Hex, fc.Arbitrary<bigint>])[] = [[policy, policySlots().gate, gateWord(t)]];
  for (const id of SERVICES) {
    const { word, rules } = serviceSlots(id);
    cells.push([registry, word, serviceWord], [registry, rules, rulesWord(t)]);
    for (const image of IMAGES) cells.push([registry, imageSlot(word, image), imageWord(t)]);
    for (const device of DEVICES) cells.push([registry, serviceDeviceSlot(word, device), timeAt(t).map(BigInt)]);
  }
  for (const id of PLATFORMS) cells.push([policy, policyEntrySlot("platform", id), entryWord]);
  for (const id of IMAGES) cells.push([policy, policyEntrySlot("kmsImage", id), entryWord]);
  for (const kind of KINDS) for (const device of DEVICES) cells.push([policy, policyDeviceSlot(kind, device), flag]);
  return fc.tuple(...cells.map(([address, slot, word]) => word.map((value) => ({ address, slot, value }))));
};

const requestArbitrary: fc.Arbitrary<AuthorizeRequest> = fc.record({
  serviceId: fc.constantFrom(...SERVICES, ...SERVICES, undefined),
  imageId: fc.constantFrom(...IMAGES),
  platformId: fc.constantFrom(...PLATFORMS),
  deviceId: fc.constantFrom(...DEVICES),
  tcbStatus: fc.constantFrom(0, 0, 1, 4, 6, 7, 9, 15, 16, 255),
  kind: fc.constantFrom(...KINDS),
});

describe("authorize, evaluated from proven slots", function () {
  this.timeout(300_000);
  let chain: NodeChain;
  let contracts: Contracts;
  let endpoint: Endpoint;
  before(async () => {
    chain = await startNodeChain();
    contracts = { registry: chain.deployment.registry.address, policy: chain.deployment.policy.address };
    endpoint = endpointsOf([chain.provider], () => 0)[0] as Endpoint;
  });
  after(() => chain?.stop());

  it("knows the decisions and TCB statuses by the contracts' numbers", () => {
    expect(Object.fromEntries(DECISIONS.map((name, at) => [name, BigInt(at)]))).to.deep.equal(DECISION);
    expect(TCB_STATUS_NAMES).to.have.lengthOf(10);
  });

  it("given random states, answers what the contract answers, for every decision", async () => {
    const client = await endpoint.client();
    const seen = new Map<DecisionName, number>();
    for (let round = 0; round < STATES; round++) {
      const t = (await fetchBlock(client, "latest")).timestamp + 1000;
      const [words = []] = fc.sample(stateAt(contracts, t), { numRuns: 1, seed: SEED + round });
      for (const { address, slot, value } of words) {
        await client.request("anvil_setStorageAt", [address, slot, slotHex(value)]);
      }
      await client.request("evm_setNextBlockTimestamp", [t]);
      await client.request("evm_mine", []);
      const block = await fetchBlock(client, "latest");
      expect(block.timestamp).to.equal(t);
      const state = createProvenState({ block, agreed: [endpoint] });
      const requests = fc.sample(requestArbitrary, { numRuns: 25, seed: SEED + round });
      // One proof an account for the first, and what is missing for the rest as it comes.
      await state.prove(requests.slice(0, 20).flatMap((request) => slotsOf(contracts, request)));
      for (const request of requests) {
        const { decision } = await state.read((read) => evaluate(read, contracts, request, block.timestamp));
        // Throws unless the contract says the same.
        expect(await confirmDecision(state, 1, contracts, request, decision)).to.deep.equal(["a"]);
        seen.set(decision, (seen.get(decision) ?? 0) + 1);
      }
    }
    console.log(`      ${[...seen].map(([name, count]) => `${name} ${count}`).join(", ")}`);
    const possible = DECISIONS.filter((name) => name !== "PolicyUnavailable");
    if (STATES >= 60) expect([...seen.keys()].sort()).to.deep.equal([...possible].sort());
  });

  it("given another answer than the contract's, confirms nothing", async () => {
    const client = await endpoint.client();
    const state = createProvenState({ block: await fetchBlock(client, "latest"), agreed: [endpoint] });
    const [request] = fc.sample(requestArbitrary, { numRuns: 1, seed: SEED }) as [AuthorizeRequest];
    const { decision } = await state.read((read) => evaluate(read, contracts, request, state.block.timestamp));
    for (const wrong of DECISIONS.filter((name) => name !== decision)) {
      const error = await confirmDecision(state, 1, contracts, request, wrong).catch((thrown: unknown) => thrown);
      expect(error).to.include({ code: "chain/decision-mismatch" });
    }
  });
});
