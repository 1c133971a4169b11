import { expect } from "chai";
import { concat, Interface, keccak256 } from "ethers";
import { KMS_REGISTRY_ABI } from "../../src/chain/abi/kms-registry.ts";
import { PLATFORM_POLICY_ABI } from "../../src/chain/abi/platform-policy.ts";
import type { Hex } from "../../src/core/bytes.ts";
import type { RawLog } from "../../src/core/events.ts";
import {
  EMPTY_HEAD,
  type ExpectedHistory,
  foldAll,
  foldHistory,
  foldServices,
  verifyPolicyHistory,
  verifyServiceHistory,
} from "../../src/core/history.ts";
import { errorOf } from "../helpers/errors.ts";
import { imageId, tdxImage } from "../helpers/images.ts";
import { logOf } from "../helpers/logs.ts";

const REGISTRY = new Interface(KMS_REGISTRY_ABI);
const POLICY = new Interface(PLATFORM_POLICY_ABI);
const SERVICE: Hex = `0x${"51".repeat(20)}`;
const ADMIN = `0x${"ad".repeat(20)}`;
const CHAIN = 31337;

/** A history of hand-made logs: created in block 10, an image in 11, five key rotations two blocks apart. */
function handMade(): readonly RawLog[] {
  const logs: RawLog[] = [];
  let previous = 0;
  const add = (name: string, fields: readonly unknown[], blockNumber: number) => {
    logs.push(logOf(REGISTRY, name, [SERVICE, ...fields, logs.length + 1, previous], { blockNumber }));
    previous = blockNumber;
  };
  add("CreateService", [ADMIN, `0x${"00".repeat(20)}`, 60, false, "made by hand"], 10);
  add("AddImageToService", [ADMIN, imageId(tdxImage("a")), tdxImage("a"), "", 1_700_000_000], 11);
  for (let epoch = 1; epoch <= 5; epoch++)
    add("RotateServiceKey", [ADMIN, epoch, 1_700_000_000 + epoch], 11 + 2 * epoch);
  return logs;
}

const expectedOf = (logs: readonly RawLog[], change: Partial<ExpectedHistory> = {}): ExpectedHistory => ({
  chainId: CHAIN,
  address: `0x${"aa".repeat(20)}`,
  serviceId: SERVICE,
  head: foldAll(logs),
  count: logs.length,
  lastUpdateBlock: logs.at(-1)?.blockNumber ?? 0,
  basis: "proof",
  ...change,
});

describe("history", () => {
  const honest = handMade();
  const at = (index: number) => honest[index] as RawLog;
  const verify = (logs: readonly RawLog[], change: Partial<ExpectedHistory> = {}, chainId = CHAIN) =>
    verifyServiceHistory({ chainId, logs }, expectedOf(honest, change));

  describe("folding", () => {
    it("is keccak256(head ‖ keccak256(topics ‖ data))", () => {
      const { topics, data } = at(0);
      const record = keccak256(concat([...topics, data]));
      expect(foldHistory(EMPTY_HEAD, at(0))).to.equal(keccak256(concat([EMPTY_HEAD, record])));
    });
    it("depends on every log, every byte and their order", () => {
      const heads = new Set([
        foldAll(honest),
        foldAll(honest.slice(1)),
        foldAll(honest.slice(0, -1)),
        foldAll(honest.toReversed()),
        foldAll([...honest, at(0)]),
        foldAll(honest.with(0, { ...at(0), data: `${at(0).data.slice(0, -2)}01` as Hex })),
      ]);
      expect(heads.size).to.equal(6);
    });
    it("of nothing is the empty head", () => expect(foldAll([])).to.equal(EMPTY_HEAD));
    it("of services is keccak256(head ‖ serviceId), in order of creation", () => {
      const ids = [SERVICE, `0x${"52".repeat(20)}`] as const;
      const folded = ids.reduce<string>((head, id) => keccak256(concat([head, id])), EMPTY_HEAD);
      expect(foldServices(ids)).to.equal(folded);
      expect(foldServices(ids.slice(1), foldServices(ids.slice(0, 1)))).to.equal(folded);
      expect(foldServices(ids.toReversed())).not.to.equal(folded);
      expect(foldServices([])).to.equal(EMPTY_HEAD);
    });
    it("refuses what is no hex", () => {
      expect(errorOf(() => foldHistory(EMPTY_HEAD, { topics: [], data: "0xzz" })).code).to.equal("hex/malformed");
    });
  });

  describe("given the whole history", () => {
    it("with a proven head it is proven, and gives the events", () => {
      const { verdict, faults, entries, pointers, head } = verify(honest);
      expect({ verdict, faults, pointers, head }).to.deep.equal({
        verdict: "proven",
        faults: [],
        pointers: { agree: true },
        head: foldAll(honest),
      });
      expect(entries.map(({ sequence, event }) => [sequence, event?.name])).to.deep.equal([
        [1, "create_service"],
        [2, "add_image_to_service"],
        ...[3, 4, 5, 6, 7].map((sequence) => [sequence, "rotate_service_key"]),
      ]);
    });
    it("with a head that nothing proves it is consistent", () => {
      expect(verify(honest, { basis: "view" }).verdict).to.equal("consistent");
    });
    it("of a service that does not exist it is proven to be empty", () => {
      const nothing = { head: EMPTY_HEAD, count: 0, lastUpdateBlock: 0 };
      expect(verify([], nothing)).to.deep.include({ verdict: "proven", entries: [], pointers: { agree: true } });
    });
  });

  const other = `0x${"be".repeat(20)}` as Hex;
  const cases: readonly [string, readonly RawLog[], Partial<ExpectedHistory>, readonly object[]][] = [
    ["the first log dropped", honest.slice(1), {}, [{ code: "dropped", from: 1, to: 1 }]],
    ["three logs dropped in a row", honest.toSpliced(2, 3), {}, [{ code: "dropped", from: 3, to: 5 }]],
    ["the last two dropped", honest.slice(0, 5), {}, [{ code: "dropped", from: 6, to: 7 }]],
    [
      "two gaps",
      [at(0), at(2), at(4), at(5), at(6)],
      {},
      [
        { code: "dropped", from: 2, to: 2 },
        { code: "dropped", from: 4, to: 4 },
      ],
    ],
    ["two logs swapped", honest.with(3, at(4)).with(4, at(3)), {}, [{ code: "reordered", from: 4, to: 4, index: 4 }]],
    ["the list turned round", honest.toReversed(), {}, [{ code: "reordered", from: 6, to: 6, index: 1 }]],
    ["a log twice", honest.toSpliced(3, 0, at(2)), {}, [{ code: "duplicated", from: 3, to: 3, index: 3 }]],
    ["another contract's log", [...honest, { ...at(2), address: other }], {}, [{ code: "foreign-address", index: 7 }]],
    [
      "another service's log",
      [...honest, { ...at(2), topics: at(2).topics.with(1, `${other}${"00".repeat(12)}`) }],
      {},
      [{ code: "foreign-service", index: 7 }],
    ],
    [
      "a log without a service",
      [...honest, { ...at(2), topics: at(2).topics.slice(0, 1) }],
      {},
      [{ code: "foreign-service", index: 7 }],
    ],
    [
      "a log that is one byte short",
      honest.with(6, { ...at(6), data: at(6).data.slice(0, -2) as Hex }),
      {},
      [
        { code: "edited", index: 6 },
        { code: "dropped", from: 7, to: 7 },
      ],
    ],
    [
      "a well-formed edit",
      honest.with(
        6,
        logOf(REGISTRY, "RotateServiceKey", [SERVICE, ADMIN, 9, 1_700_000_000, 7, 19], { blockNumber: 21 }),
      ),
      {},
      [{ code: "edited" }],
    ],
    [
      "an image that is not the one its id names",
      honest.with(1, { ...at(1), topics: at(1).topics.with(3, `0x${"1d".repeat(32)}`) }),
      {},
      [{ code: "edited", index: 1, from: 2 }],
    ],
    [
      "a false head that nothing proves",
      honest,
      { head: `0x${"1d".repeat(32)}`, basis: "view" },
      [{ code: "head-mismatch" }],
    ],
    [
      "a head of fewer events",
      honest,
      { head: foldAll(honest.slice(0, 5)), count: 5 },
      [{ code: "head-mismatch", from: 6, to: 7 }],
    ],
    [
      "an unknown event in an honest log's place",
      honest.with(3, { ...at(3), topics: at(3).topics.with(0, `0x${"99".repeat(32)}`) }),
      {},
      [{ code: "edited" }],
    ],
  ];
  for (const [what, logs, change, faults] of cases) {
    it(`given ${what}, it is broken and says where`, () => {
      const result = verify(logs, change);
      expect(result.verdict).to.equal("broken");
      expect(result.faults.map(({ message: _message, ...rest }) => rest)).to.deep.equal(faults);
      expect(result.entries).to.deep.equal([]);
    });
  }

  it("given logs of another chain, it is broken", () => {
    const { verdict, faults } = verify(honest, {}, 1);
    expect([verdict, ...faults.map(({ code }) => code)]).to.deep.equal(["broken", "wrong-chain"]);
  });

  it("given an event that this version does not know, it is proven, and the event is there without a meaning", () => {
    const logs = honest.with(3, { ...at(3), topics: at(3).topics.with(0, `0x${"99".repeat(32)}`) });
    const result = verify(logs, { head: foldAll(logs) });
    expect(result.verdict).to.equal("proven");
    expect(result.entries[3]).to.deep.include({ sequence: 4, event: undefined });
  });

  it("given blocks that are not those of the pointers, it says from which event on", () => {
    const moved = honest.with(4, { ...at(4), blockNumber: 18 });
    const { verdict, pointers } = verify(moved);
    expect({ verdict, pointers }).to.deep.equal({
      verdict: "proven",
      pointers: { agree: false, firstDisagreement: 6 },
    });
    expect(verify(honest.with(6, { ...at(6), blockNumber: 22 })).pointers).to.deep.equal({
      agree: false,
      firstDisagreement: 7,
    });
    expect(
      verify(honest.with(0, { ...at(0), logIndex: 3 }).with(1, { ...at(1), blockNumber: 10 })).pointers.agree,
    ).to.equal(false);
  });

  it("given 4 billion missing events, it answers at once", () => {
    const late = logOf(REGISTRY, "RotateServiceKey", [SERVICE, ADMIN, 1, 1_700_000_000, 2 ** 32 - 1, 10], {
      blockNumber: 11,
    });
    const { faults } = verify([at(0), late], { count: 2 ** 32 - 1 });
    expect(faults.map(({ code, from, to }) => [code, from, to])).to.deep.equal([["dropped", 2, 2 ** 32 - 2]]);
  });

  it("the policy's history is judged the same way", () => {
    const tell = (kind: number, version: number, previous: number, blockNumber: number) =>
      logOf(POLICY, "EnableTee", [kind, ADMIN, version, previous], { blockNumber });
    const logs = [tell(1, 1, 0, 5), tell(2, 2, 5, 5), tell(3, 3, 5, 9)].map((log, logIndex) => ({ ...log, logIndex }));
    const expected = expectedOf(logs, { serviceId: undefined });
    expect(verifyPolicyHistory({ chainId: CHAIN, logs }, expected)).to.deep.include({
      verdict: "proven",
      pointers: { agree: true },
    });
    const faults = verifyPolicyHistory({ chainId: CHAIN, logs: logs.slice(0, 2) }, expected).faults;
    expect(faults.map(({ code, from }) => [code, from])).to.deep.equal([["dropped", 3]]);
  });
});
