import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { formatDeployment } from "../../src/chain/deployment.ts";
import { INTERFACES } from "../../src/governance/abis.ts";
import type { Operation } from "../../src/governance/operation.ts";
import { errorCodeOf, jsonOf, keysteadHere, makeFolder } from "../helpers/cli.ts";
import { ALLOW_TDX, folderOf } from "../helpers/governance.ts";
import { type GovernedWorld, startWorld } from "../helpers/governed-world.ts";

describe("keystead audit governance", () => {
  const folder = makeFolder();
  const proposals = join(folder.path, "proposals");
  let world: GovernedWorld;
  let record: string;
  let grant: Operation;

  before(async function () {
    this.timeout(300_000);
    world = await startWorld("anvil");
    record = folder.write("record.json", formatDeployment(world.deployment));
    grant = await world.propose({ id: "001-tdx", intents: [ALLOW_TDX] });
    await world.take(grant, "schedule");
    const home = join(proposals, grant.id);
    mkdirSync(home, { recursive: true });
    for (const [name, bytes] of folderOf(grant)) writeFileSync(join(home, name), bytes);
  });
  after(async () => {
    folder.remove();
    await world?.stop();
  });

  const audit = (from: string, ...more: string[]) => {
    const where = ["--rpc", world.chain.anvil?.url ?? "", "--deployment", record, "--proposals", from];
    return keysteadHere(["audit", "governance", ...where, ...more]);
  };

  it("shows roles, the delay and a pending operation with its proposal: exit 0", async () => {
    const run = await audit(proposals);
    expect(run.code, run.stderr + run.stdout).to.equal(0);
    for (const said of ["IN ORDER", "PROPOSER_ROLE", "GUARDIAN_ROLE", "executable from", "001-tdx", "48 h"])
      expect(run.stdout).to.contain(said);
    const document = jsonOf(await audit(proposals, "--json"));
    expect(document).to.deep.include({ format: "keystead.governance-audit/1", ok: true, deviations: [] });
    expect(document.operations[0]).to.include({ proposal: "001-tdx", phase: "waiting" });
    const proposer = document.roles.find(({ role }: { role: string }) => role === "PROPOSER_ROLE");
    expect(proposer.holders).to.deep.equal([world.deployment.safes.governance.address]);
  });

  it("an operation that nobody proposed is an alert: exit 1", async () => {
    const empty = join(folder.path, "none");
    mkdirSync(empty, { recursive: true });
    const run = await audit(empty);
    expect(run.code).to.equal(1);
    expect(run.stdout).to.contain("ALERT").and.to.contain("NONE").and.to.contain("no proposal explains timelock");
  });

  it("a role that is not as published is an alert: exit 1", async () => {
    const { timelock, policy } = world.deployment.contracts;
    const guardian = INTERFACES.policy.getFunction("GUARDIAN_ROLE");
    const role = await world.client.request("eth_call", [
      { to: policy.address, data: INTERFACES.policy.encodeFunctionData(guardian ?? "", []) },
      "latest",
    ]);
    const data = INTERFACES.policy.encodeFunctionData("grantRole", [role, policy.address]);
    const look = () => audit(proposals, "--json");
    const run = await world.changed(() => world.sendAs(timelock.address, policy.address, data), look);
    expect(run.code).to.equal(1);
    expect(jsonOf(run).deviations.join()).to.contain("holds GUARDIAN_ROLE, and must not");
  });

  it("without a record, or without a chain, is exit 2", async () => {
    const bare = await keysteadHere(["audit", "governance", "--rpc", world.chain.anvil?.url ?? "", "--json"]);
    expect([bare.code, errorCodeOf(bare)]).to.deep.equal([2, "usage/deployment"]);
    const deaf = ["--rpc", "http://127.0.0.1:9", "--deployment", record, "--proposals", proposals, "--json"];
    const run = await keysteadHere(["audit", "governance", ...deaf]);
    expect([run.code, errorCodeOf(run)]).to.deep.equal([2, "chain/unreachable"]);
  });
}).timeout(120_000);
