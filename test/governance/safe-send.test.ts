import { expect } from "chai";
import { Contract, concat, getBytes, Interface, Wallet } from "ethers";
import hre from "hardhat";
import type { Connection } from "../../deploy/connection.ts";
import { createSafe, executeThroughSafe } from "../../deploy/safe/account.ts";
import { type Client, connect } from "../../src/chain/client.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import type { Operation } from "../../src/governance/operation.ts";
import { checkSigner, requireSignable } from "../../src/governance/owners.ts";
import { hex, MULTI_SEND_CALL_ONLY, type SafeRef } from "../../src/governance/safe-hash.ts";
import { fetchLatest, prepareStep, type Sending, sendStep } from "../../src/governance/safe-send.ts";
import { hashByProtocolKit, importSignature, parseKey, signStep } from "../../src/governance/sign.ts";
import { hasHashedContractSignatures, hashesToSign, type SignatureRecord } from "../../src/governance/signatures.ts";
import { type PlannedTransaction, planStep } from "../../src/governance/transactions.ts";
import { addressOf, PARTIES, propose } from "../helpers/governance.ts";
import { WHO } from "../helpers/governed-chain.ts";

const { alice, bob, carol, dave, erin, relayer } = WHO;
const keyOf = (person: { readonly key: string }) => parseKey(person.key, "test");
const RELAYER = keyOf(relayer);
const HANDLER = new Interface([
  "function getMessageHash(bytes message) view returns (bytes32)",
  "function getTransactionHash(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,uint256) view returns (bytes32)",
  "function approveHash(bytes32)",
]);
const ZERO = `0x${"00".repeat(20)}`;
type Version = "1.4.1" | "1.5.0";

async function codeOf(act: () => Promise<unknown>): Promise<string> {
  try {
    await act();
  } catch (error) {
    if (isKeysteadError(error)) return error.code;
    throw error;
  }
  return "accepted";
}

describe("Safe transactions on the real contracts", function () {
  this.timeout(300_000);
  let connection: Connection;
  let client: Client;
  before(async () => {
    connection = await hre.network.create({ network: "default" });
    client = await connect(connection.provider);
  });
  after(() => connection.close());

  let salt = 100;
  const newSafe = async (version: Version, owners: readonly string[], threshold = 2): Promise<SafeRef> => {
    salt += 1;
    const address = await createSafe(connection, { owners, threshold, version, saltNonce: `${salt}` });
    return { address, version, nonce: 0n, multiSend: MULTI_SEND_CALL_ONLY[version][0] ?? "" };
  };
  /** Calls that anybody may make and that change nothing: one is a CALL, several are a MultiSend. */
  const operationOf = (safe: SafeRef, count = 1): Operation =>
    propose({
      ...{ id: "007-calls", chainId: 31337n, parties: { ...PARTIES, account: { safe } } },
      intents: Array.from({ length: count }, (_, i) => ({
        intent: "call",
        arguments: { to: i === 0 ? dave.address : erin.address, data: `0x0${i}` },
      })),
    });
  const sendingOf = (operation: Operation, records: readonly SignatureRecord[], lines: string[] = []): Sending => ({
    ...{ client, operation, progress: (line) => lines.push(line) },
    signatures: records.map((record) => ({ ...record, file: "", recovered: record.kind !== "contract" })),
  });
  const prepare = async (operation: Operation, records: readonly SignatureRecord[], lines: string[] = []) =>
    prepareStep(sendingOf(operation, records, lines), await fetchLatest(client), "execute");
  const send = async (operation: Operation, records: readonly SignatureRecord[]) =>
    sendStep(sendingOf(operation, records), await prepare(operation, records), RELAYER);
  const ask = async (to: string, name: string, args: readonly unknown[]): Promise<string> =>
    String(await new Contract(to, HANDLER, connection.ethers.provider).getFunction(name)(...args));
  const onChainHash = ({ safe, transaction: t }: PlannedTransaction): Promise<string> =>
    ask(safe.address, "getTransactionHash", [t.to, t.value, t.data, t.operation, 0, 0, 0, ZERO, ZERO, t.nonce]);

  for (const version of ["1.4.1", "1.5.0"] as const) {
    describe(version, () => {
      it("hash the same three ways: here, by protocol-kit, by the Safe itself; one call, several, and nested", async () => {
        const child = await newSafe(version, [bob.address, carol.address]);
        const parent = await newSafe(version, [alice.address, child.address]);
        for (const count of [1, 3]) {
          const planned = planStep(operationOf(parent, count), "execute");
          expect(planned.transaction.operation).to.equal(count === 1 ? 0 : 1);
          const { safeTxHash, domainHash, messageHash } = planned.hashes;
          expect(hashByProtocolKit(31337n, planned, null)).to.equal(safeTxHash);
          expect(await onChainHash(planned)).to.equal(safeTxHash);
          const nested = hashesToSign(31337n, planned, child.address).safeTxHash;
          const message = hasHashedContractSignatures(version)
            ? safeTxHash
            : concat(["0x1901", domainHash, messageHash]);
          expect(hashByProtocolKit(31337n, planned, child.address)).to.equal(nested);
          expect(await ask(child.address, "getMessageHash", [message])).to.equal(nested);
        }
      });

      it("are executed with every way to sign: typed data, a message, an approval on chain, more than are needed", async () => {
        const safe = await newSafe(version, [alice.address, bob.address, carol.address], 3);
        const operation = operationOf(safe, 2);
        const planned = planStep(operation, "execute");
        const typed = signStep(operation, planned, keyOf(alice));
        const message = importSignature(operation, planned, {
          signature: hex(await new Wallet(bob.key).signMessage(getBytes(planned.hashes.safeTxHash))),
          signer: bob.address,
        });
        expect(await codeOf(() => prepare(operation, [typed, message]))).to.equal("safe/too-few-signatures");
        const approve = HANDLER.encodeFunctionData("approveHash", [planned.hashes.safeTxHash]);
        const signer = await connection.ethers.getSigner(carol.address);
        await (await signer.sendTransaction({ to: safe.address, data: approve })).wait();
        const ready = await prepare(operation, [message, typed]);
        expect([...ready.signers].sort()).to.deep.equal([alice.address, bob.address, carol.address].sort());
        // carol's file as well as her approval: counted once
        const both = [typed, message, signStep(operation, planned, keyOf(carol))];
        expect((await prepare(operation, both)).signers).to.have.length(3);
        const sent = await send(operation, both);
        expect([sent.nonce, sent.safeTxHash]).to.deep.equal([0n, planned.hashes.safeTxHash]);
      });

      it("are executed for an owner that is itself a Safe, once enough of its own owners signed", async () => {
        const child = await newSafe(version, [bob.address, carol.address]);
        const parent = await newSafe(version, [alice.address, child.address]);
        const operation = operationOf(parent);
        const planned = planStep(operation, "execute");
        const own = signStep(operation, planned, keyOf(alice));
        const [b, c] = [bob, carol].map((who) => signStep(operation, planned, keyOf(who), { through: child.address }));
        if (b === undefined || c === undefined) throw new Error("two signatures");
        const check = await requireSignable(client, planned, child.address);
        expect([check.of, check.owners]).to.deep.equal([child.address, [bob.address, carol.address]]);
        expect(await codeOf(() => prepare(operation, [own, b]))).to.equal("safe/too-few-signatures");
        expect(await codeOf(() => prepare(operation, [own, b, { ...b, signer: dave.address }]))).to.equal(
          "safe/too-few-signatures",
        );
        const sent = await send(operation, [c, own, b]);
        expect(sent.safeTxHash).to.equal(planned.hashes.safeTxHash);
      });
    });
  }

  it("ask an older child by a question that it knows, and say so where a newer child does not know it", async () => {
    const older = await newSafe("1.4.1", [bob.address, carol.address]);
    const newer = await newSafe("1.5.0", [bob.address, carol.address]);
    const signed = (operation: Operation, through: string) => {
      const planned = planStep(operation, "execute");
      return [
        signStep(operation, planned, keyOf(alice)),
        ...[bob, carol].map((who) => signStep(operation, planned, keyOf(who), { through })),
      ];
    };
    const newParent = operationOf(await newSafe("1.5.0", [alice.address, older.address]));
    expect((await send(newParent, signed(newParent, older.address))).nonce).to.equal(0n);

    const oldSafe = await newSafe("1.4.1", [alice.address, newer.address]);
    const oldParent = operationOf(oldSafe);
    const planned = planStep(oldParent, "execute");
    const records = signed(oldParent, newer.address);
    const told: string[] = [];
    expect(await codeOf(() => prepare(oldParent, records, told))).to.equal("safe/too-few-signatures");
    expect(told.join()).to.include(`signatures for ${newer.address} do not count`);
    expect(await codeOf(() => requireSignable(client, planned, newer.address))).to.equal("safe/owner-cannot-answer");
    // the way that the error names
    const approve = HANDLER.encodeFunctionData("approveHash", [planned.hashes.safeTxHash]);
    const calls = [{ to: oldSafe.address, data: approve }];
    await executeThroughSafe(connection, { safe: newer.address, signers: [bob.address, carol.address], calls });
    expect((await send(oldParent, records.slice(0, 1))).nonce).to.equal(0n);
  });

  it("cost no more than the cap, which is looked at before anything is sent, and show the cost", async () => {
    const operation = operationOf(await newSafe("1.5.0", [alice.address, bob.address]));
    const records = [alice, bob].map((who) => signStep(operation, planStep(operation, "execute"), keyOf(who)));
    const lines: string[] = [];
    const ready = await prepare(operation, records);
    const capped = { ...sendingOf(operation, records, lines), maxFee: 1n };
    expect(await codeOf(() => sendStep(capped, ready, RELAYER))).to.equal("relay/fee-too-high");
    expect(lines.join()).to.include("it costs at most").and.to.not.include(": sent 0x");
    expect((await sendStep({ ...capped, maxFee: 10n ** 18n }, ready, RELAYER)).nonce).to.equal(0n);
  });

  it("count as done where another operator was faster, and say so", async () => {
    const operation = operationOf(await newSafe("1.5.0", [alice.address, bob.address]));
    const records = [alice, bob].map((who) => signStep(operation, planStep(operation, "execute"), keyOf(who)));
    const ready = await prepare(operation, records);
    const first = await sendStep(sendingOf(operation, records), ready, RELAYER);
    const lines: string[] = [];
    const second = await sendStep(sendingOf(operation, records, lines), ready, keyOf(erin));
    expect([second.transactionHash, second.block]).to.deep.equal([first.transactionHash, first.block]);
    expect(lines.join()).to.include(`another operator sent it: executed in ${first.transactionHash}`);
  });

  it("refuse what must not count, by a code each, and say exactly what to sign again", async () => {
    const safe = await newSafe("1.5.0", [alice.address, bob.address]);
    const operation = operationOf(safe);
    const planned = planStep(operation, "execute");
    const [a, b] = [alice, bob].map((who) => signStep(operation, planned, keyOf(who)));
    const stranger = signStep(operation, planned, keyOf(dave));
    if (a === undefined || b === undefined) throw new Error("two signatures");
    const lines: string[] = [];
    expect(await codeOf(() => prepare(operation, [a, stranger], lines))).to.equal("safe/too-few-signatures");
    expect(lines.join()).to.include(`${dave.address} does not count`);
    const check = await requireSignable(client, planned, null);
    expect(await codeOf(async () => checkSigner(check, stranger))).to.equal("sign/not-an-owner");
    expect(await codeOf(() => requireSignable(client, planned, dave.address))).to.equal("sign/not-an-owner");

    // a contract's signature counts where the contract says so, on the chain; else it is left out, and stops nobody
    const child = await newSafe("1.5.0", [carol.address], 1);
    const wallet = operationOf(await newSafe("1.5.0", [alice.address, child.address]));
    const walletPlan = planStep(wallet, "execute");
    const bad = importSignature(wallet, walletPlan, { signature: "0x1234", signer: child.address, contract: true });
    const mine = signStep(wallet, walletPlan, keyOf(alice));
    const told: string[] = [];
    expect(await codeOf(() => prepare(wallet, [mine, bad], told))).to.equal("safe/too-few-signatures");
    expect(told.join()).to.include(`${child.address} does not count`).and.to.include("EIP-1271");
    const { safeTxHash } = hashesToSign(31337n, walletPlan, child.address);
    const good: Hex = keyOf(carol).sign(safeTxHash);
    const eip1271 = importSignature(wallet, walletPlan, { signature: good, signer: child.address, contract: true });
    expect((await send(wallet, [mine, eip1271])).nonce).to.equal(0n);

    // the Safe moves on: what was signed is void, and the error holds the new hashes
    const ahead = planStep(operation, "execute", { nonce: 2n });
    const early = [alice, bob].map((who) => signStep(operation, ahead, keyOf(who)));
    expect(await codeOf(() => prepare(operation, early))).to.equal("safe/nonce-ahead");
    await send(operation, [a, b]);
    const next = planStep(operation, "execute", { nonce: 1n });
    try {
      await prepare(operation, [a, b]);
      expect.fail("the nonce was used");
    } catch (error) {
      if (!isKeysteadError(error, "safe/nonce-moved")) throw error;
      expect([error.details.nonce, error.details.signed]).to.deep.equal([1n, [0n]]);
      expect(error.details.sign).to.deep.include(next.hashes);
      expect(error.remedy).to.include(next.hashes.messageHash).and.to.include("--nonce 1");
    }
    expect(await codeOf(() => requireSignable(client, planned, null))).to.equal("sign/nonce-used");
    const again = [alice, bob].map((who) => signStep(operation, next, keyOf(who)));
    expect((await send(operation, again)).nonce).to.equal(1n);

    const other = operationOf({ ...safe, version: "1.4.1", multiSend: MULTI_SEND_CALL_ONLY["1.4.1"][0] ?? "" });
    expect(await codeOf(() => prepare(other, []))).to.equal("safe/other-version");
    expect(await codeOf(() => prepare(operationOf({ ...safe, address: addressOf(77) }), []))).to.equal(
      "safe/not-a-safe",
    );
  });

  it("say that they would fail, before anything is paid for", async () => {
    const safe = await newSafe("1.5.0", [alice.address], 1);
    const operation = propose({
      ...{ id: "008-fails", chainId: 31337n, parties: { ...PARTIES, account: { safe } } },
      // the Safe itself refuses a threshold above the number of its owners
      intents: [{ intent: "call", arguments: { to: safe.address, data: `0x694e80c3${"09".padStart(64, "0")}` } }],
    });
    const record = signStep(operation, planStep(operation, "execute"), keyOf(alice));
    const before = await connection.ethers.provider.getBlockNumber();
    expect(await codeOf(() => send(operation, [record]))).to.equal("safe/would-fail");
    expect(await connection.ethers.provider.getBlockNumber()).to.equal(before);
  });
});
