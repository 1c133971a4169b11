import { expect } from "chai";
import {
  type ContractTransactionReceipt,
  type ContractTransactionResponse,
  concat,
  keccak256,
  Result,
  ZeroHash,
  zeroPadBytes,
} from "ethers";
import type { KmsRegistry } from "../../typechain-types/index.ts";

type RawLog = { readonly topics: readonly string[]; readonly data: string };
type Field = string | boolean | bigint | number;

/** An event as it must be logged; `sequence` and `previousBlock` are left out, for the check works them out by itself. */
export interface ExpectedEvent {
  readonly name: string;
  readonly fields: Readonly<Record<string, Field>>;
}

/** The chain's next head: keccak256(head ‖ keccak256(topics ‖ data)), from the raw log alone. */
export const fold = (head: string, { topics, data }: RawLog): string =>
  keccak256(concat([head, keccak256(concat([...topics, data]))]));

/** Every raw log of a service, oldest first. */
export async function logsOf(registry: KmsRegistry, serviceId: string): Promise<RawLog[]> {
  const provider = registry.runner?.provider;
  if (!provider) throw new Error("the registry needs a provider");
  const address = await registry.getAddress();
  return provider.getLogs({ address, fromBlock: 0, topics: [null, zeroPadBytes(serviceId, 32)] });
}

/** The head that a service's logs fold to. */
export const headFromLogs = async (registry: KmsRegistry, serviceId: string): Promise<string> =>
  (await logsOf(registry, serviceId)).reduce(fold, ZeroHash);

/** A struct's fields by name, as a view returned it. */
export function fieldsOf(struct: object): Record<string, unknown> {
  if (!(struct instanceof Result)) throw new Error("not a struct that a contract returned");
  return struct.toObject();
}

/** Sends, and returns the receipt. */
export async function mined(sent: Promise<ContractTransactionResponse>): Promise<ContractTransactionReceipt> {
  const receipt = await (await sent).wait();
  if (!receipt) throw new Error("the transaction was not mined");
  return receipt;
}

/** The time of a receipt's block, in seconds. */
export async function timeOf(receipt: ContractTransactionReceipt): Promise<number> {
  return (await receipt.getBlock()).timestamp;
}

/**
 * Checks that a transaction logged exactly `expected` for the service, every field of it, in order; that sequence and previousBlock go on from what they
 * were; and that the service's head is what the raw logs fold to.
 */
export async function expectHistory(
  registry: KmsRegistry,
  serviceId: string,
  receipt: ContractTransactionReceipt,
  expected: readonly ExpectedEvent[],
): Promise<void> {
  const before = await registry.service(serviceId, { blockTag: receipt.blockNumber - 1 });
  const after = await registry.service(serviceId, { blockTag: receipt.blockNumber });
  const address = await registry.getAddress();

  let head = before.historyHead;
  const told = receipt.logs.map((log, index) => {
    expect(log.address).to.equal(address);
    head = fold(head, log);
    const parsed = registry.interface.parseLog(log);
    if (!parsed) throw new Error(`log ${index} is no event of the registry`);
    const fields = parsed.fragment.inputs.map(({ name }) => [name, parsed.args.getValue(name)]);
    return { name: parsed.name, fields: Object.fromEntries(fields) };
  });
  const wanted = expected.map(({ name, fields }, index) => ({
    name,
    fields: {
      serviceId,
      ...Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, plain(value)])),
      sequence: before.sequence + 1n + BigInt(index),
      previousBlock: index === 0 ? before.lastUpdateBlock : BigInt(receipt.blockNumber),
    },
  }));
  expect(told).to.deep.equal(wanted);
  expect(after.historyHead, "head, folded from the raw logs").to.equal(head);
  expect(after.sequence).to.equal(before.sequence + BigInt(expected.length));
  expect(after.lastUpdateBlock).to.equal(BigInt(receipt.blockNumber));
  expect(await registry.historyHead(serviceId)).to.equal(await headFromLogs(registry, serviceId));
}

const plain = (value: Field): string | boolean | bigint => (typeof value === "number" ? BigInt(value) : value);
