import { expect } from "chai";
import { SOURCE_SERVICES, type VerifyContract, verifySources } from "../../deploy/sources.ts";
import { DEPLOYED_CONTRACTS, type Deployment } from "../../src/chain/deployment.ts";
import { refusal } from "./refusal.ts";

const HASH = `0x${"ab".repeat(32)}`;
const contract = (name: string) => ({
  address: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
  source: `contracts/${name}.sol:${name}`,
  codeHash: HASH,
  transaction: HASH,
  block: 3,
  constructorArguments: [name, "1"],
});
const safe = { address: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", version: "1.5.0", owners: [], threshold: 1 };
const DEPLOYMENT: Deployment = {
  schema: 1,
  network: "sepolia",
  chainId: 11155111n,
  block: 3,
  delaySeconds: 86_400,
  safes: { governance: safe, guardian: safe },
  contracts: {
    timelock: contract("timelock"),
    policyImplementation: contract("policyImplementation"),
    policy: contract("policy"),
    registryImplementation: contract("registryImplementation"),
    registry: contract("registry"),
    dstackAuth: contract("dstackAuth"),
  },
  roles: [],
};

describe("source verification", () => {
  it("asks every service about every contract, with its constructor's arguments", async () => {
    const asked: string[] = [];
    const verify: VerifyContract = async ({ contract: source, provider, constructorArgs }) => {
      asked.push(`${provider} ${source} ${constructorArgs.join()}`);
      return true;
    };
    const count = DEPLOYED_CONTRACTS.length * SOURCE_SERVICES.length;
    expect(await verifySources(DEPLOYMENT, undefined, verify)).to.equal(count);
    expect(new Set(asked).size).to.equal(count);
    expect(asked).to.include("blockscout contracts/registry.sol:registry registry,1");
  });

  it("goes on when one service fails, and names what is not verified", async () => {
    let asked = 0;
    const verify: VerifyContract = async ({ provider, contract: source }) => {
      asked++;
      if (provider === "etherscan" && source.includes("dstackAuth")) throw new Error("rate limit");
      return !(provider === "sourcify" && source.includes("timelock"));
    };
    const error = await refusal(verifySources(DEPLOYMENT, undefined, verify), "sources/not-all-verified");
    expect(asked).to.equal(DEPLOYED_CONTRACTS.length * SOURCE_SERVICES.length);
    expect(error.details.failures).to.deep.equal([
      "timelock on sourcify: not verified",
      "dstackAuth on etherscan: rate limit",
    ]);
  });

  it("does not ask about local chains", async () => {
    const verify: VerifyContract = () => Promise.reject(new Error("asked"));
    await refusal(verifySources({ ...DEPLOYMENT, chainId: 31337n }, undefined, verify), "sources/local-chain");
  });
});
