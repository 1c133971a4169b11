import { expect } from "chai";
import { Interface, keccak256, parseEther, TypedDataEncoder } from "ethers";
import { createSafe, executeThroughSafe, inspectSafe, predictSafeAddress } from "../../deploy/safe/account.ts";
import { contractNetworks, ensureSafeContracts, SAFE_VERSIONS, safeRelease } from "../../deploy/safe/contracts.ts";
import { type Chain, CLIENTS, fetchActors, setCode, startChain } from "./chains.ts";
import { refusal } from "./refusal.ts";

/** Safe's CHANGELOG and safe-deployments, written down here a second time so that a wrong package shows. */
const CANONICAL = {
  "1.4.1": {
    safe_l2: "0x29fcB43b46531BcA003ddC8FCB67FFE91900C762",
    safe_proxy_factory: "0x4e1DCf7AD4e460CfD30791CCC4F9c8a4f820ec67",
    multi_send_call_only: "0x9641d764fc13c8B624c04430C7356C1C7C8102e2",
  },
  "1.5.0": {
    safe_l2: "0xEdd160fEBBD92E350D4D398fb636302fccd67C7e",
    safe_proxy_factory: "0x14F2982D601c9458F93bd70B218933A6f8165e7b",
    multi_send_call_only: "0xA83c336B20401Af773B6219BA5027174338D1836",
  },
} as const;

for (const client of CLIENTS) {
  describe(`Safe on ${client}`, () => {
    let chain: Chain;
    before(async () => {
      chain = await startChain(client);
    });
    after(() => chain.stop());

    for (const version of SAFE_VERSIONS) {
      describe(version, () => {
        it("puts every contract at its canonical address with the published code hash, once", async () => {
          const { connection } = chain;
          const lines: string[] = [];
          const networks = await ensureSafeContracts(connection, version, { log: (line) => lines.push(line) });
          expect(lines).to.have.length(1);
          for (const contract of safeRelease(version)) {
            const code = await connection.ethers.provider.getCode(contract.address);
            expect(keccak256(code), contract.name).to.equal(contract.codeHash);
          }
          const byName = new Map(safeRelease(version).map((c) => [c.name, c.address]));
          for (const [name, address] of Object.entries(CANONICAL[version])) expect(byName.get(name)).to.equal(address);
          expect(networks).to.deep.equal(contractNetworks(version, 31337n));

          const block = await connection.ethers.provider.getBlockNumber();
          await ensureSafeContracts(connection, version, { log: (line) => lines.push(line) });
          expect(await connection.ethers.provider.getBlockNumber(), "a second run sends nothing").to.equal(block);
          expect(lines).to.have.length(1);
        });

        it("creates a 2-of-3 Safe at its predicted address and takes the same one again", async () => {
          const { connection } = chain;
          const { alice, bob, carol } = await fetchActors(connection);
          const spec = { owners: [alice, bob, carol], threshold: 2, version, saltNonce: "11" };
          const predicted = await predictSafeAddress(connection, spec);
          expect(await createSafe(connection, spec)).to.equal(predicted);
          const block = await connection.ethers.provider.getBlockNumber();
          expect(await createSafe(connection, spec)).to.equal(predicted);
          expect(await connection.ethers.provider.getBlockNumber()).to.equal(block);
          expect(await inspectSafe(connection, predicted)).to.deep.equal({
            address: predicted,
            version,
            owners: [alice, bob, carol],
            threshold: 2,
            nonce: 0n,
            modules: [],
            guard: "0x0000000000000000000000000000000000000000",
          });
          const other = await predictSafeAddress(connection, { ...spec, saltNonce: "12" });
          expect(other).to.not.equal(predicted);
        });

        it("executes one call as CALL and several as one MultiSendCallOnly, signed by two owners", async () => {
          const { connection } = chain;
          const { provider } = connection.ethers;
          const { deployer, alice, bob, carol, stranger } = await fetchActors(connection);
          const safe = await createSafe(connection, {
            owners: [alice, bob, carol],
            threshold: 2,
            version,
            saltNonce: "21",
          });
          const signer = await connection.ethers.getSigner(deployer);
          await (await signer.sendTransaction({ to: safe, value: parseEther("1") })).wait();
          const before = await provider.getBalance(stranger);

          const one = await executeThroughSafe(connection, {
            safe,
            signers: [carol, alice],
            calls: [{ to: stranger, value: 5n, data: "0x" }],
          });
          expect(one.safeTxHash).to.equal(
            hashSafeTx(safe, { to: stranger, value: 5n, data: "0x", operation: 0, nonce: 0n }),
          );
          const several = await executeThroughSafe(connection, {
            safe,
            signers: [bob, carol],
            calls: [
              { to: stranger, value: 7n, data: "0x" },
              { to: stranger, value: 9n, data: "0x" },
            ],
          });
          expect(await provider.getBalance(stranger)).to.equal(before + 21n);
          const sent = await provider.getTransaction(several.hash);
          const [to, , , operation] = EXEC.decodeFunctionData("execTransaction", sent?.data ?? "0x");
          expect(to).to.equal(CANONICAL[version].multi_send_call_only);
          expect(operation).to.equal(1n);
          expect((await inspectSafe(connection, safe)).nonce).to.equal(2n);
        });

        it("does all calls or none, and carries the failing call's own error", async () => {
          const { connection } = chain;
          const { alice, bob, stranger } = await fetchActors(connection);
          const safe = await createSafe(connection, { owners: [alice, bob], threshold: 2, version, saltNonce: "31" });
          const balance = await connection.ethers.provider.getBalance(stranger);
          const setup = SETUP.encodeFunctionData("changeThreshold", [9]);
          const error = await refusal(
            executeThroughSafe(connection, {
              safe,
              signers: [alice, bob],
              calls: [
                { to: stranger, data: "0x" },
                { to: safe, data: setup },
              ],
            }),
            "safe/execution-failed",
          );
          // Error(string) "GS201": threshold cannot exceed owner count
          expect(error.details.reason).to.match(/^0x08c379a0.*4753323031/);
          expect(await connection.ethers.provider.getBalance(stranger)).to.equal(balance);
          expect((await inspectSafe(connection, safe)).nonce).to.equal(0n);
        });

        it("refuses too few signers, strangers and nothing to do", async () => {
          const { connection } = chain;
          const { alice, bob, stranger } = await fetchActors(connection);
          const safe = await createSafe(connection, { owners: [alice, bob], threshold: 2, version, saltNonce: "31" });
          const calls = [{ to: stranger, data: "0x" }];
          await refusal(executeThroughSafe(connection, { safe, signers: [alice], calls }), "safe/too-few-signers");
          await refusal(
            executeThroughSafe(connection, { safe, signers: [alice, stranger], calls }),
            "safe/not-an-owner",
          );
          await refusal(executeThroughSafe(connection, { safe, signers: [alice, bob], calls: [] }), "safe/no-calls");
          await refusal(
            executeThroughSafe(connection, { safe, signers: [alice, alice], calls }),
            "safe/too-few-signers",
          );
        });

        it("notices a Safe that changed hands since it was created", async () => {
          const { connection } = chain;
          const { alice, bob, stranger } = await fetchActors(connection);
          const spec = { owners: [alice, bob], threshold: 1, version, saltNonce: "41" };
          const safe = await createSafe(connection, spec);
          const data = SETUP.encodeFunctionData("addOwnerWithThreshold", [stranger, 1]);
          await executeThroughSafe(connection, { safe, signers: [alice], calls: [{ to: safe, data }] });
          const error = await refusal(createSafe(connection, spec), "safe/differs");
          expect(error.details.differences).to.have.length(1);
        });
      });
    }

    it("takes no other account for a Safe", async () => {
      const { connection } = chain;
      const { alice } = await fetchActors(connection);
      const proxyLike = safeRelease("1.4.1").find((c) => c.name === "multi_send")?.address ?? "";
      await refusal(inspectSafe(connection, alice), "safe/not-a-safe");
      await refusal(inspectSafe(connection, proxyLike), "safe/not-a-safe");
      const delegated = "0x00000000000000000000000000000000000077aa";
      await setCode(chain, delegated, `0xef0100${proxyLike.slice(2)}`);
      const error = await refusal(inspectSafe(connection, delegated), "safe/not-a-safe");
      expect(error.message).to.match(/7702/);
    });
  });

  describe(`Safe on ${client}, when a canonical address holds other code`, () => {
    let chain: Chain;
    before(async () => {
      chain = await startChain(client);
    });
    after(() => chain.stop());

    it("refuses the chain", async () => {
      const { connection } = chain;
      await setCode(chain, CANONICAL["1.4.1"].safe_l2, "0x6000");
      await refusal(ensureSafeContracts(connection, "1.4.1"), "safe/wrong-code");
    });
  });
}

describe("Safe on a chain that is not local", () => {
  let chain: Chain;
  before(async () => {
    chain = await startChain("hardhat", 8453);
  });
  after(() => chain.stop());

  it("sends nothing to put contracts there", async () => {
    const { connection } = chain;
    await refusal(ensureSafeContracts(connection, "1.5.0"), "safe/not-on-chain");
    expect(await connection.ethers.provider.getBlockNumber()).to.equal(0);
  });
});

const SETUP = new Interface([
  "function changeThreshold(uint256 threshold)",
  "function addOwnerWithThreshold(address owner, uint256 threshold)",
]);
const EXEC = new Interface([
  "function execTransaction(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,uint256 gasPrice,address gasToken,address refundReceiver,bytes signatures)",
]);

/** SafeTx hash by another implementation than protocol-kit's (ethers), on chain 31337. */
function hashSafeTx(
  safe: string,
  tx: { to: string; value: bigint; data: string; operation: number; nonce: bigint },
): string {
  const zero = "0x0000000000000000000000000000000000000000";
  return TypedDataEncoder.hash(
    { chainId: 31337, verifyingContract: safe },
    {
      SafeTx: [
        { name: "to", type: "address" },
        { name: "value", type: "uint256" },
        { name: "data", type: "bytes" },
        { name: "operation", type: "uint8" },
        { name: "safeTxGas", type: "uint256" },
        { name: "baseGas", type: "uint256" },
        { name: "gasPrice", type: "uint256" },
        { name: "gasToken", type: "address" },
        { name: "refundReceiver", type: "address" },
        { name: "nonce", type: "uint256" },
      ],
    },
    { ...tx, safeTxGas: 0, baseGas: 0, gasPrice: 0, gasToken: zero, refundReceiver: zero },
  );
}
