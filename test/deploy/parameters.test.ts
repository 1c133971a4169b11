import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { Interface } from "ethers";
import { checkParameters, parseParameters, readParameters } from "../../deploy/parameters.ts";
import { createSafe, executeThroughSafe } from "../../deploy/safe/account.ts";
import { ensureSafeContracts, safeRelease } from "../../deploy/safe/contracts.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import { type Chain, CLIENTS, fetchActors, setCode, setSlot, startChain } from "./chains.ts";
import { refusal } from "./refusal.ts";

const [A, B, C] = [
  "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
  "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
  "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
] as const;
const GOOD = {
  safeVersion: "1.4.1",
  governance: { owners: [A, B], threshold: 2 },
  guardian: { owners: [B, C], threshold: 2 },
  delaySeconds: 86_400,
};

describe("deployment parameters: shape", () => {
  it("reads the parameters of every network that has a file", () => {
    const files = readdirSync(join(import.meta.dirname, "../../deploy/parameters"));
    expect(files).to.include.members(["default.json", "localhost.json", "anvil.json"]);
    for (const file of files) expect(readParameters(file.replace(".json", "")).delaySeconds).to.be.greaterThan(0);
  });

  it("gives the two Safes different salts when none is set", () => {
    const { governance, guardian } = parseParameters(GOOD);
    expect(governance).to.deep.equal({ owners: [A, B], threshold: 2, saltNonce: "1" });
    expect(guardian).to.deep.equal({ owners: [B, C], threshold: 2, saltNonce: "2" });
  });

  const bad: readonly (readonly [what: string, argument: string, value: unknown])[] = [
    ["not an object", "parameters", []],
    ["an unknown field", "parameters", { ...GOOD, admin: A }],
    ["an unknown Safe version", "safeVersion", { ...GOOD, safeVersion: "1.3.0" }],
    ["a missing Safe version", "safeVersion", { ...GOOD, safeVersion: undefined }],
    ["a delay of zero", "delaySeconds", { ...GOOD, delaySeconds: 0 }],
    ["a fractional delay", "delaySeconds", { ...GOOD, delaySeconds: 86_400.5 }],
    ["a delay as text", "delaySeconds", { ...GOOD, delaySeconds: "86400" }],
    ["a delay of years", "delaySeconds", { ...GOOD, delaySeconds: 86_400 * 91 }],
    ["no governance", "governance", { ...GOOD, governance: undefined }],
    ["no owners", "governance.owners", { ...GOOD, governance: { owners: [], threshold: 1 } }],
    ["an owner that is no address", "guardian.owners[1]", { ...GOOD, guardian: { owners: [A, "0x12"], threshold: 1 } }],
    ["a wrong checksum", "guardian.owners[0]", { ...GOOD, guardian: { owners: [A.replace("C", "c")], threshold: 1 } }],
    [
      "the zero address",
      "guardian.owners[0]",
      { ...GOOD, guardian: { owners: [`0x${"00".repeat(20)}`], threshold: 1 } },
    ],
    ["an owner twice", "governance.owners", { ...GOOD, governance: { owners: [A, A], threshold: 2 } }],
    ["a threshold above the owners", "governance.threshold", { ...GOOD, governance: { owners: [A, B], threshold: 3 } }],
    ["a threshold of zero", "governance.threshold", { ...GOOD, governance: { owners: [A, B], threshold: 0 } }],
    [
      "a salt that is no number",
      "guardian.saltNonce",
      { ...GOOD, guardian: { owners: [A], threshold: 1, saltNonce: "x" } },
    ],
    ["address and owners at once", "guardian", { ...GOOD, guardian: { address: A, owners: [A], threshold: 1 } }],
    ["an address that is none", "guardian.address", { ...GOOD, guardian: { address: "guardian.eth" } }],
  ];
  for (const [what, argument, value] of bad) {
    it(`refuses ${what}, naming ${argument}`, () => {
      try {
        parseParameters(value);
      } catch (error) {
        if (!isKeysteadError(error, "parameters/invalid")) throw error;
        expect(error.argument).to.equal(argument);
        expect(error.remedy).to.include(argument);
        return;
      }
      throw new Error("accepted");
    });
  }

  it("names the file to write when a network has none", () => {
    for (const network of ["nowhere", "../parameters/default"]) {
      expect(() => readParameters(network))
        .to.throw()
        .with.property("code", "parameters/missing");
    }
  });
});

for (const client of CLIENTS) {
  describe(`deployment parameters on a public chain id (${client})`, () => {
    let chain: Chain;
    let governance: string;
    let guardian: string;
    before(async () => {
      chain = await startChain(client, 11155111);
      const { connection } = chain;
      await ensureSafeContracts(connection, "1.4.1", { mayDeploy: true });
      const { alice, bob, carol } = await fetchActors(connection);
      const spec = { owners: [alice, bob, carol], threshold: 2, version: "1.4.1" as const };
      governance = await createSafe(connection, { ...spec, saltNonce: "1" });
      guardian = await createSafe(connection, { ...spec, saltNonce: "2" });
    });
    after(() => chain.stop());

    /** Expects a refusal that names `argument` and sends nothing. */
    async function refused(change: object, code: string, argument: string) {
      const { connection } = chain;
      const block = await connection.ethers.provider.getBlockNumber();
      const good = {
        safeVersion: "1.4.1",
        governance: { address: governance },
        guardian: { address: guardian },
        delaySeconds: 86_400,
      };
      await checkParameters(connection, parseParameters(good));
      const error = await refusal(checkParameters(connection, parseParameters({ ...good, ...change })), code);
      expect(error.argument).to.equal(argument);
      expect(await connection.ethers.provider.getBlockNumber()).to.equal(block);
    }

    it("refuses a delay under 24 hours", () =>
      refused({ delaySeconds: 86_399 }, "parameters/delay-too-short", "delaySeconds"));

    it("refuses an EOA as Safe", async () => {
      const { alice } = await fetchActors(chain.connection);
      await refused({ guardian: { address: alice } }, "safe/not-a-safe", "guardian.address");
      await refused({ governance: { address: alice } }, "safe/not-a-safe", "governance.address");
    });

    it("refuses an EOA that delegates to a Safe's code (EIP-7702)", async () => {
      const delegated = "0x00000000000000000000000000000000000077aa";
      const singleton = safeRelease("1.4.1").find((c) => c.name === "safe_l2")?.address ?? "";
      await setCode(chain, delegated, `0xef0100${singleton.slice(2)}`);
      await refused({ guardian: { address: delegated } }, "safe/not-a-safe", "guardian.address");
    });

    it("refuses a contract that is no Safe, and a proxy that only looks like one", async () => {
      const factory = safeRelease("1.4.1").find((c) => c.name === "safe_proxy_factory")?.address ?? "";
      await refused({ governance: { address: factory } }, "safe/not-a-safe", "governance.address");
      const copy = "0x0000000000000000000000000000000000c0ffee";
      await setCode(chain, copy, await chain.connection.ethers.provider.getCode(governance));
      await refused({ governance: { address: copy } }, "safe/not-a-safe", "governance.address");
      const singleton = await chain.connection.ethers.provider.getStorage(governance, 0);
      await setSlot(chain, copy, 0n, singleton);
      await setCode(chain, copy, "0x60016000526001601ff3");
      await refused({ governance: { address: copy } }, "safe/not-a-safe", "governance.address");
    });

    it("refuses a threshold of 1, for a Safe to create and for one that exists", async () => {
      const { alice, bob } = await fetchActors(chain.connection);
      const single = { owners: [alice, bob], threshold: 1 };
      await refused({ governance: single }, "parameters/threshold-too-low", "governance.threshold");
      const address = await createSafe(chain.connection, { ...single, version: "1.4.1", saltNonce: "9" });
      await refused({ guardian: { address } }, "parameters/threshold-too-low", "guardian.threshold");
    });

    it("refuses one Safe in both offices, by address and by prediction", async () => {
      const { alice, bob, carol } = await fetchActors(chain.connection);
      await refused({ guardian: { address: governance } }, "parameters/same-safe", "guardian");
      const same = { owners: [alice, bob, carol], threshold: 2, saltNonce: "1" };
      await refused({ guardian: same }, "parameters/same-safe", "guardian");
    });

    it("refuses a Safe with a module, which acts without signatures", async () => {
      const { connection } = chain;
      const { alice, bob } = await fetchActors(connection);
      const owners = [alice, bob];
      const safe = await createSafe(connection, { owners, threshold: 2, version: "1.4.1", saltNonce: "8" });
      const data = new Interface(["function enableModule(address)"]).encodeFunctionData("enableModule", [guardian]);
      await executeThroughSafe(connection, { safe, signers: owners, calls: [{ to: safe, data }] });
      await refused({ governance: { address: safe } }, "parameters/module-enabled", "governance.address");
    });

    it("refuses a Safe version that the chain lacks", () =>
      refused(
        { safeVersion: "1.5.0", governance: { owners: [A, B], threshold: 2 } },
        "safe/not-on-chain",
        "safeVersion",
      ));
  });
}
