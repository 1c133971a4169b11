import { expect } from "chai";
import { concat, keccak256, toBeHex, ZeroHash } from "ethers";
import fc from "fast-check";
import { network } from "hardhat";
import { type HistoryHarness, HistoryHarness__factory } from "../../../typechain-types/index.ts";
import { measured } from "../../helpers/images.ts";
import { fieldsOf } from "../../helpers/policy.ts";
import { deploy } from "../../helpers/suite.ts";

const connection = await network.create();
const { loadFixture } = connection.networkHelpers;

const topic = (label: string): string => measured(label, 32);
const FOUR = [topic("topic 0"), topic("topic 1"), topic("topic 2"), topic("topic 3")] as const;
/** Lengths around every boundary of words, and long ones. */
const LENGTHS = [0, 1, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 1000, 4096];
const bytesOf = (length: number): string => `0x${"5a".repeat(length)}`;

async function deployHarness(on: typeof connection): Promise<HistoryHarness> {
  const [signer] = await on.ethers.getSigners();
  return HistoryHarness__factory.connect(await deploy(on, "HistoryHarness"), signer);
}

describe("History", () => {
  let harness: HistoryHarness;

  beforeEach(async () => {
    harness = await loadFixture(deployHarness);
  });

  /** Sends an append and checks that it logged these bytes and folded just them. */
  async function expectAppended(
    send: () => Promise<{ wait(): Promise<{ logs: readonly { topics: readonly string[]; data: string }[] } | null> }>,
    topics: readonly string[],
    data: string,
  ): Promise<void> {
    const before = await harness.head();
    const receipt = await (await send()).wait();
    expect(receipt?.logs.map((log) => ({ topics: [...log.topics], data: log.data }))).to.deep.equal([
      { topics: [...topics], data },
    ]);
    expect(await harness.head()).to.equal(keccak256(concat([before, keccak256(concat([...topics, data]))])));
  }

  for (const count of [2, 3, 4]) {
    it(`given ${count} topics, the log is the record that was hashed, for data of every length`, async () => {
      const topics = FOUR.slice(0, count);
      for (const length of LENGTHS) {
        await expectAppended(() => harness.append(topics, bytesOf(length)), topics, bytesOf(length));
      }
    });
  }

  for (const count of [0, 1, 5]) {
    it(`given ${count} topics, nothing is logged and nothing chained`, async () => {
      const topics = [...FOUR, topic("topic 4")].slice(0, count);
      await expect(harness.append.staticCall(topics, "0x1234")).to.be.revert(connection.ethers);
      expect(await harness.head()).to.equal(ZeroHash);
    });
  }

  it("dynamic variant: the log is what was hashed, for data of every length", async () => {
    for (const length of LENGTHS) {
      await expectAppended(() => harness.appendDynamic([...FOUR], bytesOf(length)), FOUR, bytesOf(length));
    }
  });

  it("dynamic variant: it gives the same head as the other for the same log", async () => {
    for (const length of LENGTHS) {
      const snapshot = await connection.networkHelpers.takeSnapshot();
      await harness.append([...FOUR], bytesOf(length));
      const head = await harness.head();
      await snapshot.restore();
      await harness.appendDynamic([...FOUR], bytesOf(length));
      expect(await harness.head()).to.equal(head);
    }
  });

  it("dynamic variant: neighbouring memory, the data's bytes, the zero word and the free pointer stay as they were", async () => {
    for (const length of LENGTHS) {
      const data = bytesOf(length);
      const seen = await harness.appendDynamic.staticCall([...FOUR], data);
      expect(fieldsOf(seen), `${length} bytes`).to.deep.equal({
        neighbours: true,
        content: keccak256(data),
        zeroSlot: ZeroHash,
        freeMoved: false,
      });
    }
  });

  it("dynamic variant: given data at the very start of memory, Solidity's own words are put back", async () => {
    for (const length of LENGTHS) {
      const call = [...FOUR, bytesOf(length)] as const;
      const { position, zeroSlot, freeMoved } = await harness.appendDynamicFirst.staticCall(...call);
      expect({ zeroSlot, freeMoved }).to.deep.equal({ zeroSlot: ZeroHash, freeMoved: false });
      // The topics stand in the 96 bytes before it: they reach down to scratch space, and never below.
      expect(position).to.be.within(0x80n, 0x200n);
      await expectAppended(() => harness.appendDynamicFirst(...call), FOUR, bytesOf(length));
    }
  });

  it("the head depends on every topic, every byte, their order and the head before", async () => {
    const heads = new Set<string>();
    const variants: readonly [readonly string[], string][] = [
      [FOUR, "0x1234"],
      [FOUR, "0x1235"],
      [FOUR, "0x123400"],
      [FOUR.slice(0, 3), "0x1234"],
      [FOUR.slice(0, 2), "0x1234"],
      [FOUR.toReversed(), "0x1234"],
      [[...FOUR.slice(0, 3), topic("other")], "0x1234"],
    ];
    for (const [topics, data] of variants) {
      const snapshot = await connection.networkHelpers.takeSnapshot();
      await harness.append([...topics], data);
      heads.add(await harness.head());
      await harness.append([...topics], data);
      heads.add(await harness.head());
      await snapshot.restore();
    }
    expect(heads.size).to.equal(2 * variants.length);
  });

  it("given random sequences, the head is the fold of the raw logs", async () => {
    const record = fc.record({
      topics: fc.array(fc.bigInt({ min: 0n, max: 2n ** 256n - 1n }), { minLength: 2, maxLength: 4 }),
      data: fc.uint8Array({ maxLength: 300 }),
      dynamic: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(record, { minLength: 1, maxLength: 6 }), async (records) => {
        const snapshot = await connection.networkHelpers.takeSnapshot();
        let head = ZeroHash;
        for (const { topics, data, dynamic } of records) {
          const words = topics.map((word) => toBeHex(word, 32));
          const [a, b, c, d] = words;
          const four = a && b && c && d ? ([a, b, c, d] as [string, string, string, string]) : undefined;
          const bytes = `0x${Buffer.from(data).toString("hex")}`;
          await (four && dynamic ? harness.appendDynamic(four, bytes) : harness.append(words, bytes));
          head = keccak256(concat([head, keccak256(concat([...words, bytes]))]));
        }
        const seen = await harness.head();
        await snapshot.restore();
        expect(seen).to.equal(head);
      }),
      { numRuns: 60 },
    );
  });
});
