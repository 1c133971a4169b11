import { expect } from "chai";
import { id, ZeroAddress } from "ethers";
import hre from "hardhat";
import type { Connection } from "../../deploy/connection.ts";
import { extractRevertData } from "../../deploy/safe/account.ts";

const DELAY = 3_600;
const SAFE = "0x5555555555555555555555555555555555555555";
const GUARDIAN = "0x6666666666666666666666666666666666666666";
const EOA = "0x7777777777777777777777777777777777777777";
const DELEGATED = "0x8888888888888888888888888888888888888888";

describe("GovernanceTimelock", () => {
  let connection: Connection;
  before(async () => {
    connection = await hre.network.create({ network: "default" });
    const setCode = (address: string, code: string) =>
      connection.provider.request({ method: "hardhat_setCode", params: [address, code] });
    await setCode(SAFE, "0x00");
    await setCode(GUARDIAN, "0x00");
    await setCode(DELEGATED, `0xef0100${SAFE.slice(2)}`);
  });
  after(() => connection.close());

  const deploy = (governance: string, guardian: string) =>
    connection.ethers.deployContract("GovernanceTimelock", [DELAY, governance, guardian]);

  /** The custom error and its argument with which `attempt` is refused. */
  async function refusedWith(attempt: Promise<unknown>): Promise<[string | undefined, string | undefined]> {
    try {
      await attempt;
    } catch (error) {
      const { interface: abi } = await connection.ethers.getContractFactory("GovernanceTimelock");
      const parsed = abi.parseError(extractRevertData(error) ?? "0x");
      return [parsed?.name, parsed?.args[0]];
    }
    throw new Error("accepted");
  }

  it("has all its roles when the constructor returns, and no admin but itself", async () => {
    const timelock = await deploy(SAFE, GUARDIAN);
    const self = await timelock.getAddress();
    const [deployer] = await connection.ethers.getSigners();
    const holds = async (role: string, account: string) => timelock.getFunction("hasRole")(role, account);
    const accounts = [SAFE, GUARDIAN, self, deployer?.address ?? "", ZeroAddress];
    const admin = `0x${"00".repeat(32)}`;
    for (const [role, holders] of [
      [id("PROPOSER_ROLE"), [SAFE]],
      [id("EXECUTOR_ROLE"), [SAFE]],
      [id("CANCELLER_ROLE"), [SAFE, GUARDIAN]],
      [admin, [self]],
    ] as const) {
      for (const account of accounts) expect(await holds(role, account)).to.equal(holders.some((h) => h === account));
    }
    expect(await timelock.getFunction("getMinDelay")()).to.equal(BigInt(DELAY));
  });

  it("refuses an EOA, a delegated EOA and nobody, in either office", async () => {
    for (const account of [EOA, DELEGATED, ZeroAddress]) {
      const expected = ["GovernanceTimelock_NotAContract", account];
      expect(await refusedWith(deploy(account, GUARDIAN))).to.deep.equal(expected);
      expect(await refusedWith(deploy(SAFE, account))).to.deep.equal(expected);
    }
  });

  it("refuses them later too, when it administers itself", async () => {
    const timelock = await deploy(SAFE, GUARDIAN);
    const self = await timelock.getAddress();
    const grant = (role: string, account: string) => {
      const data = timelock.interface.encodeFunctionData("grantRole", [id(role), account]);
      return connection.ethers.provider.call({ from: self, to: self, data });
    };
    for (const account of [EOA, DELEGATED, ZeroAddress]) {
      for (const role of ["PROPOSER_ROLE", "EXECUTOR_ROLE", "CANCELLER_ROLE"]) {
        expect(await refusedWith(grant(role, account))).to.deep.equal(["GovernanceTimelock_NotAContract", account]);
      }
    }
    expect(await grant("PROPOSER_ROLE", GUARDIAN)).to.equal("0x");
  });
});
