import { join } from "node:path";
import { expect } from "chai";
import { id as keccakOf } from "ethers";
import { applyUpgrade, prepareUpgrade, verifyUpgraded } from "../../deploy/upgrade.ts";
import { draftUpgradeProposal } from "../../deploy/upgrade-proposal.ts";
import { computeStateDigest } from "../../src/chain/state-digest.ts";
import { readProposal } from "../../src/governance/folder.ts";
import { parseOperation } from "../../src/governance/operation.ts";
import { simulateProposal } from "../../src/governance/simulate.ts";
import { KmsRegistry__factory, PlatformPolicy__factory } from "../../typechain-types/index.ts";
import { type CliRun, errorCodeOf, jsonOf } from "../helpers/cli.ts";
import { DELAY, type GovernedChain, type Person, startGovernedChain, WHO } from "../helpers/governed-chain.ts";
import { imageId, PLATFORM } from "../helpers/images.ts";

const textOf = (files: ReadonlyMap<string, Uint8Array>, name: string) => new TextDecoder().decode(files.get(name));

for (const name of ["anvil", "hardhat"] as const) {
  describe(`governance end to end on ${name}`, function () {
    this.timeout(600_000);
    let chain: GovernedChain;
    before(async () => {
      chain = await startGovernedChain(name);
    });
    after(() => chain.stop());

    const policy = () =>
      PlatformPolicy__factory.connect(chain.deployment.contracts.policy.address, chain.connection.ethers.provider);
    const folderOf = (id: string) => join(chain.proposals, id);
    const allowed = async (platform: string) => (await policy().platform(imageId(platform))).state;

    /** A command on a proposal's folder, which must end well. */
    const on = async (person: Person | undefined, command: string, id: string, ...more: string[]) => {
      const yes = command === "sign" ? ["--yes"] : [];
      const args = [command, folderOf(id), "--deployment", chain.record, "--json", ...yes, ...more];
      const run = await chain.run(person, args);
      expect([run.code, run.stderr], `${command} ${id}`).to.deep.equal([0, ""]);
      return jsonOf(run);
    };
    const refused = async (person: Person | undefined, command: string, id: string, ...more: string[]) => {
      const run: CliRun = await chain.run(person, [
        ...[command, folderOf(id), "--deployment", chain.record, "--json", ...more],
      ]);
      return [run.code, errorCodeOf(run)];
    };
    const propose = async (id: string, ...intent: string[]) => {
      const where = ["--id", id, "--deployment", chain.record, "--out", chain.proposals, "--json"];
      const run = await chain.run(undefined, ["propose", ...intent, ...where, "--rpc"]);
      expect([run.code, run.stderr]).to.deep.equal([0, ""]);
      return jsonOf(run);
    };
    const sign = async (people: readonly Person[], id: string, ...more: string[]) => {
      for (const person of people) expect((await on(person, "sign", id, ...more)).written).to.equal(true);
    };
    const logs = async (event: string) =>
      chain.connection.ethers.provider.getLogs({
        address: chain.deployment.contracts.timelock.address,
        topics: [keccakOf(event)],
        fromBlock: 0,
      });

    it("grants: proposed, verified, signed by three processes, scheduled, waited for, executed, verified", async () => {
      const { headline } = await propose(
        "001-tdx",
        ...["allow-platform", "--image", PLATFORM.tdx, "--description", "firmware 1.5"],
      );
      expect(headline).to.match(/^GRANT 1 TDX platform · delay 48 h/);
      expect((await on(undefined, "verify", "001-tdx")).ok).to.equal(true);

      const signers = ["carol", "alice", "bob"] as const;
      const runs = await Promise.all(
        signers.map((person) =>
          chain.spawn(person, [
            "sign",
            folderOf("001-tdx"),
            "--step",
            "schedule",
            "--deployment",
            chain.record,
            "--yes",
          ]),
        ),
      );
      for (const [i, run] of runs.entries()) {
        expect(run.code, run.stderr).to.equal(0);
        expect(run.stdout).to.include(`${WHO[signers[i] ?? "alice"].address} signed`);
        expect(run.stderr.startsWith("You      governance Safe, owner ")).to.equal(true);
        expect(run.stdout + run.stderr).to.not.include(WHO[signers[i] ?? "alice"].key.slice(2));
      }
      expect((await on(undefined, "verify", "001-tdx")).ok, "with signatures").to.equal(true);
      expect((await on("alice", "sign", "001-tdx", "--step", "schedule")).written, "twice").to.equal(false);

      const scheduled = await on("relayer", "execute", "001-tdx");
      expect([scheduled.sent.step, scheduled.phase]).to.deep.equal(["schedule", "waiting"]);
      expect(await allowed(PLATFORM.tdx)).to.equal(0n);

      const files = await readProposal(folderOf("001-tdx"));
      const played = await simulateProposal(chain.client, parseOperation(textOf(files, "operation.json")));
      expect([played.ok, played.differences, played.steps.map(({ step }) => step)]).to.deep.equal([
        true,
        [],
        ["execute"],
      ]);
      expect(Number(played.steps[0]?.timestamp ?? 0) - played.block.timestamp).to.be.at.least(DELAY - 60);
      const { views } = JSON.parse(textOf(files, "expected-state.json"));
      const expected = views.map(({ field, value }: { field: string; value: string }) => `${field}=${value}`);
      expect(expected).to.deep.equal(["state=1", "kind=1", "mask=13"]);
      expect(played.changes.length).to.be.at.least(expected.length);

      expect(await refused("relayer", "execute", "001-tdx")).to.deep.equal([2, "execute/not-ready"]);
      expect((await on("relayer", "execute", "001-tdx", "--step", "schedule")).sent, "scheduled twice").to.equal(null);

      await chain.passTime(DELAY);
      expect(await refused("relayer", "execute", "001-tdx")).to.deep.equal([2, "safe/too-few-signatures"]);
      await sign(["bob"], "001-tdx", "--step", "execute");
      expect(await refused("relayer", "execute", "001-tdx")).to.deep.equal([2, "safe/too-few-signatures"]);
      await sign(["alice"], "001-tdx", "--step", "execute");
      const executed = await on("relayer", "execute", "001-tdx");
      expect([executed.sent.step, executed.phase, executed.effects.length]).to.deep.equal(["execute", "done", 3]);
      expect(executed.effects.every(({ holds }: { holds: boolean }) => holds)).to.equal(true);
      expect(await allowed(PLATFORM.tdx)).to.equal(1n);
      expect((await on("relayer", "execute", "001-tdx")).sent, "executed twice").to.equal(null);
      expect(await refused("dave", "cancel", "001-tdx")).to.deep.equal([2, "cancel/done"]);
      expect((await on(undefined, "verify", "001-tdx")).ok).to.equal(true);
    });

    it("upgrades both proxies to V2 and rolls them back, all state as it was", async () => {
      const { connection, deployment } = chain;
      const spec = { id: "v2", policy: "PlatformPolicyV2", registry: "KmsRegistryV2" };
      const upgrade = await prepareUpgrade(connection, deployment, spec, undefined, { folder: chain.folder });
      const options = { id: "002-v2", folder: chain.proposals };
      const { operation } = await draftUpgradeProposal(connection, deployment, upgrade, spec, options);
      expect((await draftUpgradeProposal(connection, deployment, upgrade, spec, options)).written).to.deep.equal([]);
      expect([operation.safe.nonce, operation.rollback?.calls.length]).to.deep.equal([2n, 2]);
      expect((await on(undefined, "verify", "002-v2")).headline).to.match(/^UPGRADE 2 upgrades · delay 48 h/);

      const versions = async () => [
        await policy().version(),
        await KmsRegistry__factory.connect(deployment.contracts.registry.address, connection.ethers.provider).version(),
      ];
      const digest = async () => {
        const { contracts, block } = deployment;
        const of = { registry: contracts.registry.address, policy: contracts.policy.address, fromBlock: block };
        return (await computeStateDigest(connection.ethers.provider, of)).digest;
      };
      const [first, before] = [await versions(), await digest()];
      for (const step of ["schedule", "execute", "rollback", "rollback-execute"]) {
        await sign(["alice", "carol"], "002-v2", "--step", step);
      }
      await on("relayer", "execute", "002-v2");
      expect(await refused("relayer", "rollback", "002-v2")).to.deep.equal([2, "rollback/nothing-to-undo"]);
      await chain.passTime(DELAY);
      expect((await on("relayer", "execute", "002-v2")).phase).to.equal("done");
      expect([await versions(), await digest()]).to.deep.equal([["2.0.0", "2.0.0"], before]);
      expect((await verifyUpgraded(connection, applyUpgrade(deployment, upgrade))).differences).to.deep.equal([]);

      expect((await on("relayer", "rollback", "002-v2")).sent.step).to.equal("rollback");
      expect(await refused("relayer", "rollback", "002-v2")).to.deep.equal([2, "execute/not-ready"]);
      await chain.passTime(DELAY);
      const back = await on("relayer", "rollback", "002-v2");
      expect([back.sent.step, back.phase]).to.deep.equal(["rollback-execute", "done"]);
      expect([await versions(), await digest()]).to.deep.equal([first, before]);
      expect((await on("relayer", "rollback", "002-v2")).sent, "rolled back twice").to.equal(null);
    });

    it("revokes in an emergency by one transaction of the guardian Safe, with no wait", async () => {
      await propose(
        "003-revoke",
        ...["revoke-platform", "--platform", imageId(PLATFORM.tdx), "--reason", "broken firmware"],
      );
      await sign(["dave", "erin"], "003-revoke");
      const time = async () => (await chain.connection.ethers.provider.getBlock("latest"))?.number ?? 0;
      const before = await time();
      const done = await on("relayer", "execute", "003-revoke");
      expect([done.sent.step, done.phase, await time()]).to.deep.equal(["execute", "done", before + 1]);
      expect(await allowed(PLATFORM.tdx)).to.equal(2n);
      expect((await on("relayer", "execute", "003-revoke")).sent, "revoked twice").to.equal(null);
      expect(await time()).to.equal(before + 1);
      expect(await refused("relayer", "cancel", "003-revoke")).to.deep.equal([2, "cancel/not-possible"]);
    });

    it("vetoes a scheduled grant by the guardian Safe, for good", async () => {
      await propose(
        "004-snp",
        ...["allow-platform", "--image", PLATFORM.snp, "--description", "not looked at by everyone"],
      );
      await sign(["alice", "bob"], "004-snp", "--step", "schedule");
      await sign(["alice", "bob"], "004-snp", "--step", "execute");
      const guardian = chain.deployment.safes.guardian.address;
      await sign(["dave", "erin"], "004-snp", "--step", "cancel", "--safe", guardian);
      expect((await on("relayer", "cancel", "004-snp", "--safe", guardian)).sent, "before it waits").to.equal(null);
      await on("relayer", "execute", "004-snp");
      expect(await refused("relayer", "cancel", "004-snp")).to.deep.equal([2, "step/ambiguous"]);
      const vetoed = await on("relayer", "cancel", "004-snp", "--safe", guardian);
      expect([vetoed.sent.step, vetoed.phase]).to.deep.equal(["cancel", "unset"]);
      expect((await on("relayer", "cancel", "004-snp", "--safe", guardian)).sent, "vetoed twice").to.equal(null);
      await chain.passTime(DELAY);
      expect(await refused("relayer", "execute", "004-snp")).to.deep.equal([1, "execute/was-cancelled"]);
      expect(await allowed(PLATFORM.snp)).to.equal(0n);
    });

    it("did nothing twice: as many schedulings, executions and cancellations as there were decisions", async () => {
      const count = async (event: string) => (await logs(event)).length;
      expect([
        await count("CallScheduled(bytes32,uint256,address,uint256,bytes,bytes32,uint256)"),
        await count("CallExecuted(bytes32,uint256,address,uint256,bytes)"),
        await count("Cancelled(bytes32)"),
      ]).to.deep.equal([1 + 2 + 2 + 1, 1 + 2 + 2, 1]);
    });
  });
}
