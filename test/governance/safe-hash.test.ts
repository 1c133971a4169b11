import { calculateSafeTransactionHash, encodeMultiSendData } from "@safe-global/protocol-kit";
import { expect } from "chai";
import { id, TypedDataEncoder } from "ethers";
import fc from "fast-check";
import hre from "hardhat";
import type { Connection } from "../../deploy/connection.ts";
import { createSafe } from "../../deploy/safe/account.ts";
import { contractNetworks } from "../../deploy/safe/contracts.ts";
import { INTERFACES } from "../../src/governance/abis.ts";
import {
  buildSafeTransaction,
  type Call,
  encodeMultiSend,
  hashSafeTransaction,
  hex,
  MULTI_SEND_CALL_ONLY,
  SAFE_VERSIONS,
  type SafeTransaction,
  unpackMultiSend,
} from "../../src/governance/safe-hash.ts";
import { errorOf } from "../helpers/errors.ts";
import { addressOf, safeRef } from "../helpers/governance.ts";

const ZERO = `0x${"00".repeat(20)}`;
const VECTOR = "0xe8220b930153f4eaa0de06cc3cd948fadfbd81a91746c3b03676c5774812930c";

const transactions: readonly SafeTransaction[] = [
  { to: addressOf(1), value: 0n, data: "0x", operation: 0, nonce: 0n },
  { to: addressOf(2), value: (1n << 256n) - 1n, data: "0xdeadbeef", operation: 0, nonce: 41n },
  { to: addressOf(3), value: 1n, data: `0x${"ab".repeat(300)}`, operation: 1, nonce: 9_007_199_254_740_991n },
];

const unsigned = ({ to, value, data, operation, nonce }: SafeTransaction) => ({
  ...{ to, value: value.toString(), data, operation, nonce: Number(nonce) },
  ...{ safeTxGas: "0", baseGas: "0", gasPrice: "0", gasToken: ZERO, refundReceiver: ZERO },
});

const calls = fc.array(
  fc.record({
    to: fc.integer({ min: 1, max: 9 }).map(addressOf),
    value: fc.bigInt({ min: 0n, max: (1n << 256n) - 1n }),
    data: fc.uint8Array({ maxLength: 100 }).map((bytes) => hex(`0x${Buffer.from(bytes).toString("hex")}`)),
  }),
  { minLength: 1, maxLength: 6 },
);

describe("Safe hashes", () => {
  it("have Safe's published domain type", () => {
    const domain = [
      { name: "chainId", type: "uint256" },
      { name: "verifyingContract", type: "address" },
    ];
    const typehash = id(TypedDataEncoder.from({ EIP712Domain: domain }).encodeType("EIP712Domain"));
    expect(typehash).to.equal("0x47e79534a245952e8b16893a336b85a3d9ea9fa8c573f3d803afb92a79469218");
  });

  // computed with protocol-kit and written down, so that a change of both at once is seen too
  it("equal a known vector", () => {
    const hashes = hashSafeTransaction(1n, addressOf(10), {
      ...{ to: addressOf(1), value: 7n, data: "0x1234", operation: 0, nonce: 3n },
    });
    expect(hashes.safeTxHash).to.equal(VECTOR);
  });

  for (const version of SAFE_VERSIONS) {
    it(`equal protocol-kit's for ${version}`, () => {
      for (const transaction of transactions) {
        const kit = calculateSafeTransactionHash(addressOf(10), unsigned(transaction), version, 31337n);
        expect(hashSafeTransaction(31337n, addressOf(10), transaction).safeTxHash).to.equal(kit);
      }
    });
  }

  it("differ with every field, chain and Safe", () => {
    const base: SafeTransaction = { to: addressOf(1), value: 0n, data: "0x", operation: 0, nonce: 0n };
    const hashes = [
      hashSafeTransaction(1n, addressOf(10), base),
      hashSafeTransaction(2n, addressOf(10), base),
      hashSafeTransaction(1n, addressOf(11), base),
      ...[{ to: addressOf(2) }, { value: 1n }, { data: "0x00" as const }, { operation: 1 as const }, { nonce: 1n }].map(
        (change) => hashSafeTransaction(1n, addressOf(10), { ...base, ...change }),
      ),
    ].map(({ safeTxHash }) => safeTxHash);
    expect(new Set(hashes).size).to.equal(hashes.length);
  });

  describe("on a chain with the real contracts", () => {
    let connection: Connection;
    before(async () => {
      connection = await hre.network.create({ network: "default" });
    });
    after(() => connection.close());

    for (const version of ["1.4.1", "1.5.0"] as const) {
      it(`equal the Safe ${version}'s own getTransactionHash`, async () => {
        const owners = (await connection.ethers.getSigners()).slice(0, 3).map(({ address }) => address);
        const safe = await createSafe(connection, { owners, threshold: 2, version, saltNonce: "1" });
        const contract = new connection.ethers.Contract(
          safe,
          [
            "function getTransactionHash(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,uint256) view returns (bytes32)",
            "function domainSeparator() view returns (bytes32)",
          ],
          connection.ethers.provider,
        );
        for (const transaction of transactions) {
          const { to, value, data, operation, nonce } = transaction;
          const ours = hashSafeTransaction(31337n, safe, transaction);
          const onChain = await contract.getFunction("getTransactionHash")(
            ...[to, value, data, operation, 0, 0, 0, ZERO, ZERO, nonce],
          );
          expect(ours.safeTxHash).to.equal(onChain);
          expect(ours.domainHash).to.equal(await contract.getFunction("domainSeparator")());
        }
      });

      it(`know MultiSendCallOnly of ${version}`, () => {
        expect(MULTI_SEND_CALL_ONLY[version]).to.deep.equal([
          contractNetworks(version, 31337n)["31337"]?.multiSendCallOnlyAddress,
        ]);
      });
    }
  });

  it("take one call as a CALL and several as a DELEGATECALL to the version's MultiSendCallOnly", () => {
    const call: Call = { to: addressOf(1), value: 3n, data: "0x01" };
    for (const version of SAFE_VERSIONS) {
      const safe = safeRef(10, 4n, version);
      expect(buildSafeTransaction(safe, [call])).to.deep.equal({ ...call, operation: 0, nonce: 4n });
      const several = buildSafeTransaction(safe, [call, call]);
      expect([several.to, several.value, several.operation]).to.deep.equal([safe.multiSend, 0n, 1]);
    }
    expect(errorOf(() => buildSafeTransaction(safeRef(10, 4n), [])).code).to.equal("safe/no-calls");
  });
});

describe("MultiSend", () => {
  it("is packed as protocol-kit packs it, and unpacked to the same calls", () => {
    fc.assert(
      fc.property(calls, (list) => {
        const packed = encodeMultiSend(list);
        const kit = encodeMultiSendData(list.map((call) => ({ ...call, value: call.value.toString(), operation: 0 })));
        const inner = hex(INTERFACES.multiSend.decodeFunctionData("multiSend", packed)[0]);
        expect(inner).to.equal(kit.toLowerCase());
        expect(unpackMultiSend(inner)).to.deep.equal(list.map((call) => ({ ...call, operation: 0 })));
      }),
      { numRuns: 100 },
    );
  });

  it("is refused where it is cut off or claims more than it has", () => {
    const packed = hex(
      INTERFACES.multiSend.decodeFunctionData(
        "multiSend",
        encodeMultiSend([{ to: addressOf(1), value: 0n, data: "0xabcdef" }]),
      )[0],
    );
    expect(errorOf(() => unpackMultiSend(`0x${packed.slice(2, -2)}`)).code).to.equal("safe/multisend-malformed");
    expect(errorOf(() => unpackMultiSend(`0x${packed.slice(2, 40)}`)).code).to.equal("bytes/truncated");
  });
});
