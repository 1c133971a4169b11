import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { readDeployment, writeDeployment } from "../../deploy/record.ts";
import { type Deployment, formatDeployment, parseDeployment } from "../../src/chain/deployment.ts";
import { isKeysteadError } from "../../src/core/errors.ts";

const HASH = `0x${"ab".repeat(32)}`;
const ADDRESS = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const contract = {
  address: ADDRESS,
  source: "contracts/a/B.sol:B",
  codeHash: HASH,
  transaction: HASH,
  block: 3,
  constructorArguments: ["1"],
};
const safe = { address: ADDRESS, version: "1.5.0", owners: [ADDRESS], threshold: 1 };
const RECORD: Deployment = {
  schema: 1,
  network: "somewhere",
  chainId: 11155111n,
  block: 3,
  delaySeconds: 86_400,
  safes: { governance: safe, guardian: safe },
  contracts: {
    timelock: contract,
    policyImplementation: contract,
    policy: contract,
    registryImplementation: contract,
    registry: contract,
    dstackAuth: contract,
  },
  roles: [{ contract: "policy", role: "GOVERNOR_ROLE", holders: [ADDRESS] }],
};

describe("recorded deployments", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "keystead-test-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it("are read back as they were written, and leave no other file", () => {
    writeDeployment(RECORD, folder);
    expect(readDeployment("somewhere", folder)).to.deep.equal(RECORD);
    expect(readdirSync(folder)).to.deep.equal(["somewhere.json"]);
  });

  it("are refused for another network, where there is none, and for names that are paths", () => {
    writeFileSync(join(folder, "elsewhere.json"), formatDeployment(RECORD));
    expect(() => readDeployment("elsewhere", folder))
      .to.throw()
      .with.property("code", "deployment/invalid");
    expect(() => readDeployment("nowhere", folder))
      .to.throw()
      .with.property("code", "deployment/missing");
    expect(() => readDeployment("../somewhere", folder))
      .to.throw()
      .with.property("code", "deployment/missing");
  });

  const json = () => JSON.parse(formatDeployment(RECORD));
  const bad: readonly (readonly [argument: string, spoil: (record: ReturnType<typeof json>) => void])[] = [
    ["schema", (r) => (r.schema = 2)],
    ["chainId", (r) => (r.chainId = 31337)],
    ["chainId", (r) => (r.chainId = "0x7a69")],
    ["block", (r) => (r.block = -1)],
    ["delaySeconds", (r) => (r.delaySeconds = "86400")],
    ["safes.guardian", (r) => delete r.safes.guardian],
    ["safes.governance.owners[0]", (r) => (r.safes.governance.owners = [ADDRESS.toLowerCase()])],
    ["contracts.registry", (r) => delete r.contracts.registry],
    ["contracts.policy.address", (r) => (r.contracts.policy.address = "0x12")],
    ["contracts.policy.codeHash", (r) => (r.contracts.policy.codeHash = "0x12")],
    ["contracts.timelock.source", (r) => (r.contracts.timelock.source = "Timelock")],
    ["contracts.timelock.transaction", (r) => (r.contracts.timelock.transaction = HASH.slice(2))],
    ["contracts.dstackAuth.constructorArguments[0]", (r) => (r.contracts.dstackAuth.constructorArguments = [1])],
    ["roles[0].holders", (r) => (r.roles[0].holders = "everyone")],
  ];
  for (const [argument, spoil] of bad) {
    it(`are refused when ${argument} is wrong`, () => {
      const record = json();
      spoil(record);
      try {
        parseDeployment(JSON.stringify(record));
      } catch (error) {
        if (!isKeysteadError(error, "deployment/invalid")) throw error;
        expect(error.argument).to.equal(argument);
        return;
      }
      throw new Error("accepted");
    });
  }

  it("are refused when they are not JSON", () => {
    expect(() => parseDeployment("{"))
      .to.throw()
      .with.property("code", "deployment/invalid");
  });
});
