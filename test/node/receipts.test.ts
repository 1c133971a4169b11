import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { isKeysteadError } from "../../src/core/errors.ts";
import type { Receipt } from "../../src/core/release-wire.ts";
import { inspectReceiptLog, openReceiptLog } from "../../src/node/receipts.ts";
import { type Folder, makeFolder } from "../helpers/cli.ts";

const hex = (bytes: number, value: number): `0x${string}` => `0x${value.toString(16).padStart(2 * bytes, "0")}`;
/** A receipt that differs from others by its number. */
const receipt = (number: number): Receipt => ({
  type: "KeyRelease",
  message: {
    serviceId: hex(20, number),
    imageId: hex(32, 1),
    platformId: hex(32, 2),
    keyEpoch: 0,
    evidenceHash: hex(32, number),
    recipientKeyHash: hex(32, 3),
    blockNumber: "1",
    blockHash: hex(32, 4),
    historyHead: hex(32, 5),
    policyVersion: "6",
    issuedAt: "7",
  },
  testTee: false,
  chainId: "31337",
  registry: hex(20, 8),
  digest: hex(32, 9),
  signer: hex(20, 10),
  signature: hex(65, 11),
});
const codeOf = (act: Promise<unknown>): Promise<unknown> =>
  act.then(
    () => undefined,
    (error) => error.code,
  );

describe("receipts", () => {
  let folder: Folder;
  let path: string;
  let files = 0;
  beforeEach(() => {
    files += 1;
    path = join(folder.path, `receipts-${files}.jsonl`);
  });
  before(() => {
    folder = makeFolder();
  });
  after(() => folder.remove());

  it("are numbered in the order of their writing, and there after a restart", async () => {
    const log = await openReceiptLog(path);
    const numbers = await Promise.all(Array.from({ length: 300 }, (_, index) => log.append(receipt(index))));
    expect(numbers).to.deep.equal(Array.from({ length: 300 }, (_, index) => index + 1));
    await log.close();
    const again = await openReceiptLog(path);
    expect(again.count()).to.equal(300);
    expect(await again.append(receipt(300))).to.equal(301);
    const all = [...(await again.page(0, 1000))];
    expect(all).to.deep.equal(
      Array.from({ length: 301 }, (_, index) => ({ sequence: index + 1, receipt: receipt(index) })),
    );
    for (const [after, limit] of [
      [0, 1],
      [63, 2],
      [64, 2],
      [127, 1],
      [200, 64],
      [300, 5],
    ] as const)
      expect(await again.page(after, limit), `after ${after}`).to.deep.equal(all.slice(after, after + limit));
    expect(await again.page(301, 5)).to.deep.equal([]);
    await again.close();
    expect(await codeOf(again.append(receipt(1)))).to.equal("receipts/closed");
  });

  it("given an unfinished line at the end, as a crash leaves it, cuts it off and goes on", async () => {
    const log = await openReceiptLog(path);
    await log.append(receipt(1));
    await log.append(receipt(2));
    await log.close();
    const whole = readFileSync(path);
    for (const cut of [1, 100, 300]) {
      writeFileSync(path, whole.subarray(0, whole.length - cut));
      const again = await openReceiptLog(path);
      expect(again.count()).to.equal(1);
      expect(again.cutOff).to.be.greaterThan(0);
      expect(await again.append(receipt(2))).to.equal(2);
      await again.close();
      expect(readFileSync(path)).to.deep.equal(whole);
    }
  });

  it("given lines that were edited, dropped, reordered, doubled or not receipts, does not open", async () => {
    const log = await openReceiptLog(path);
    for (let number = 1; number <= 4; number += 1) await log.append(receipt(number));
    await log.close();
    const [first = "", second = "", third = "", fourth = ""] = readFileSync(path, "utf8").split("\n");
    const files = [
      [first, second.replace('"keyEpoch":0', '"keyEpoch":1'), third, fourth],
      [first, third, fourth],
      [second, third, fourth],
      [first, third, second, fourth],
      [first, first, second, third],
      [first, second, "{}", fourth],
      [first, second, "", third],
      [first, second.replace('"sequence":2', '"sequence":2,"sequence":2'), third],
    ];
    for (const lines of files) {
      writeFileSync(path, `${lines.join("\n")}\n`);
      expect(await codeOf(openReceiptLog(path))).to.equal("receipts/corrupt");
    }
    writeFileSync(path, Buffer.alloc(8 * 1024 * 1024, 0x20));
    expect(await codeOf(openReceiptLog(path))).to.equal("receipts/corrupt");
    expect(await codeOf(openReceiptLog(join(folder.path, "no", "folder")))).to.equal("receipts/not-opened");
  });

  it("given another writer to the same file, writes nothing more, and says so until the end", async () => {
    const log = await openReceiptLog(path);
    await log.append(receipt(1));
    expect(log.fault()).to.equal(undefined);
    appendFileSync(path, "another\n");
    expect(await codeOf(log.append(receipt(2)))).to.equal("receipts/changed");
    expect(log.count()).to.equal(1);
    expect(log.fault()).to.equal("receipts/changed");
    await log.close();
  });

  it("given a file whose unfinished end still grows, leaves it alone: another node is writing it", async () => {
    writeFileSync(path, '{"sequence":1,');
    const opening = codeOf(openReceiptLog(path));
    setTimeout(() => appendFileSync(path, '"previous"'), 20);
    expect(await opening).to.equal("receipts/changed");
    expect(readFileSync(path, "utf8")).to.equal('{"sequence":1,"previous"');
  });

  it("given a disk that is full for a while, refuses with the system's word, leaves no half receipt, and recovers", async () => {
    const log = await openReceiptLog(path);
    await log.append(receipt(1));
    const whole = readFileSync(path);
    const probe = await open(path);
    const handles: { datasync: () => Promise<void> } = Object.getPrototypeOf(probe);
    const { datasync } = handles;
    handles.datasync = async () => {
      throw Object.assign(new Error("no space"), { code: "ENOSPC" });
    };
    try {
      const error = await log.append(receipt(2)).catch((thrown: unknown) => thrown);
      expect(isKeysteadError(error, "receipts/not-written") && error.message).to.match(/ENOSPC/);
    } finally {
      handles.datasync = datasync;
      await probe.close();
    }
    expect(log.fault()).to.equal("receipts/not-written");
    expect(readFileSync(path)).to.deep.equal(whole);
    expect(await log.append(receipt(2))).to.equal(2);
    expect(log.fault()).to.equal(undefined);
    await log.close();
  });

  it("are counted without opening them as a node does: nothing is cut off, made or changed", async () => {
    expect(await inspectReceiptLog(path)).to.equal(undefined);
    expect(existsSync(path)).to.equal(false);
    const log = await openReceiptLog(path);
    await log.append(receipt(1));
    await log.append(receipt(2));
    appendFileSync(path, "half");
    const before = readFileSync(path);
    expect(await inspectReceiptLog(path)).to.deep.equal({ count: 2, unfinishedBytes: 4 });
    expect(readFileSync(path)).to.deep.equal(before);
    await log.close();
    writeFileSync(path, "{}\n");
    expect(await codeOf(inspectReceiptLog(path))).to.equal("receipts/corrupt");
    for (const wrong of [join(folder.path, "no", "folder"), folder.path])
      expect(await codeOf(inspectReceiptLog(wrong))).to.equal("receipts/not-opened");
  });
});
