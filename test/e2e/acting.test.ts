import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { Contract, id as keccakOf, toBeHex, toQuantity, Wallet } from "ethers";
import { NONCE_SLOT } from "../../src/governance/safe-setup.ts";
import { GovernanceTimelock__factory, PlatformPolicy__factory } from "../../typechain-types/index.ts";
import { type CliRun, errorCodeOf, jsonOf, MAIN } from "../helpers/cli.ts";
import { PROGRAM_ENVIRONMENT } from "../helpers/environment.ts";
import { DELAY, type GovernedChain, type Person, startGovernedChain, WHO } from "../helpers/governed-chain.ts";
import { imageId, KIND, PLATFORM, tdxImage } from "../helpers/images.ts";

const TIMELOCK = GovernanceTimelock__factory.createInterface();
const POLICY = PlatformPolicy__factory.createInterface();

describe("commands that act", function () {
  this.timeout(600_000);
  let chain: GovernedChain;
  before(async () => {
    chain = await startGovernedChain("anvil", { safeVersion: "1.4.1" });
  });
  after(() => chain.stop());

  const folderOf = (id: string) => join(chain.proposals, id);
  const run = (person: Person | undefined, command: string, id: string, ...more: string[]): Promise<CliRun> =>
    chain.run(person, [
      ...[command, folderOf(id), "--deployment", chain.record, "--json", ...more],
      ...(command === "sign" ? ["--yes"] : []),
    ]);
  const on = async (person: Person | undefined, command: string, id: string, ...more: string[]) => {
    const done = await run(person, command, id, ...more);
    expect([done.code, done.stderr], `${command} ${id}`).to.deep.equal([0, ""]);
    return jsonOf(done);
  };
  const refused = async (person: Person | undefined, command: string, id: string, ...more: string[]) => {
    const done = await run(person, command, id, ...more);
    return [done.code, errorCodeOf(done)];
  };
  const propose = async (id: string, ...intent: string[]) => {
    const where = ["--id", id, "--deployment", chain.record, "--out", chain.proposals, "--json", "--rpc"];
    const done = await chain.run(undefined, ["propose", ...intent, ...where]);
    expect([done.code, done.stderr]).to.deep.equal([0, ""]);
  };
  /** For several tests, whichever runs first: proposed again it stays as it is. */
  const proposeDstack = () =>
    propose("005-dstack", "allow-platform", "--image", PLATFORM.dstack, "--description", "v1");
  const sign = async (people: readonly Person[], id: string, ...steps: string[]) => {
    for (const person of people) for (const step of steps) await on(person, "sign", id, "--step", step);
  };
  /** Lets an account without a key send, as only a development node can. */
  const as = async (from: string, to: string, data: string) => {
    const { provider } = chain.connection;
    await provider.request({ method: "anvil_setBalance", params: [from, toQuantity(10n ** 18n)] });
    await provider.request({ method: "anvil_impersonateAccount", params: [from] });
    await provider.request({ method: "eth_sendTransaction", params: [{ from, to, data }] });
    await provider.request({ method: "anvil_stopImpersonatingAccount", params: [from] });
  };
  /** Does something to the chain, looks, and takes it back. */
  const aside = async (change: () => Promise<void>, look: () => Promise<void>) => {
    const snapshot = await chain.connection.provider.request({ method: "evm_snapshot", params: [] });
    await change();
    await look();
    await chain.connection.provider.request({ method: "evm_revert", params: [snapshot] });
  };
  /** Both Safes have executed so many transactions. */
  const moveNonces = async (next: bigint) => {
    const { provider } = chain.connection;
    for (const { address } of Object.values(chain.deployment.safes)) {
      await provider.request({ method: "anvil_setStorageAt", params: [address, NONCE_SLOT, toBeHex(next, 32)] });
    }
    await provider.request({ method: "evm_mine", params: [] });
  };
  const logs = async (event: string, operationId: string) =>
    (
      await chain.connection.ethers.provider.getLogs({
        address: chain.deployment.contracts.timelock.address,
        topics: [keccakOf(event), operationId],
        fromBlock: 0,
      })
    ).length;

  /**
   * Runs a command as a process and kills it as soon as it says something; gives what it had said. The node that it may have started ends by itself.
   */
  const killAt = (person: Person, args: readonly string[], line: RegExp): Promise<string> => {
    const env = { ...PROGRAM_ENVIRONMENT, ...chain.environment(person) };
    const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", "pipe"], env });
    let said = "";
    let killed = false;
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      if (!line.test(said) || killed || child.pid === undefined) return;
      killed = true;
      child.kill("SIGKILL");
    });
    return new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (_, signal) =>
        signal === "SIGKILL" ? resolve(said) : reject(new Error(`it ended before ${line}: ${said}`)),
      );
    });
  };

  it("goes on after being killed between any two steps, and does nothing twice", async () => {
    const dir = folderOf("001-tdx");
    const args = ["--deployment", chain.record];
    await propose("001-tdx", "allow-platform", "--image", PLATFORM.tdx, "--description", "v1");

    // interrupted while the folder was written: whatever is there, the same command completes it to the same bytes
    const names = readdirSync(dir);
    const whole = names.map((name) => readFileSync(join(dir, name), "utf8"));
    for (const name of names.filter((other) => other !== "operation.json")) {
      rmSync(join(dir, name));
      expect((await run(undefined, "verify", "001-tdx")).code, `without ${name}`).to.equal(1);
      expect(await refused("alice", "sign", "001-tdx", "--step", "schedule")).to.deep.equal([
        1,
        "proposal/not-verified",
      ]);
      await propose("001-tdx", "allow-platform", "--image", PLATFORM.tdx, "--description", "v1");
    }
    expect(names.map((name) => readFileSync(join(dir, name), "utf8"))).to.deep.equal(whole);

    // killed while the signer still reads what is to be signed
    await killAt("alice", ["sign", dir, "--step", "schedule", ...args], /domain {3}0x/);
    await on("alice", "sign", "001-tdx", "--step", "schedule");
    await sign(["bob"], "001-tdx", "schedule");
    await sign(["alice", "bob"], "001-tdx", "execute");
    expect((await on(undefined, "verify", "001-tdx")).ok).to.equal(true);

    const boundaries = [/copying chain/, /: sending from/, /: sent 0x/, /executed by the Safe/];
    const nonce = async () =>
      BigInt(
        await new Contract(
          chain.deployment.safes.governance.address,
          ["function nonce() view returns (uint256)"],
          chain.connection.ethers.provider,
        ).getFunction("nonce")(),
      );
    const first = await nonce();
    const { operationId } = JSON.parse(readFileSync(join(dir, "hashes.json"), "utf8"));
    for (const step of ["schedule", "execute"]) {
      for (const line of boundaries) {
        const before = await nonce();
        await killAt("relayer", ["execute", dir, ...args], line);
        // from the moment it is sent on, a dead process may have been heard
        if (!/sent|executed/.test(line.source)) expect(await nonce(), `${step} at ${line}`).to.equal(before);
        if ((await nonce()) !== before) break;
      }
      await on("relayer", "execute", "001-tdx", "--step", step);
      expect(await nonce()).to.equal(first + (step === "schedule" ? 1n : 2n));
      if (step === "schedule") await chain.passTime(DELAY);
    }
    await killAt("relayer", ["execute", dir, ...args], /effects:/);
    const again = await on("relayer", "execute", "001-tdx");
    expect([again.sent, again.phase]).to.deep.equal([null, "done"]);
    expect([
      await logs("CallScheduled(bytes32,uint256,address,uint256,bytes,bytes32,uint256)", operationId),
      await logs("CallExecuted(bytes32,uint256,address,uint256,bytes)", operationId),
      await nonce(),
    ]).to.deep.equal([1, 1, first + 2n]);
  });

  it("refuses to send where the state moved between signing and execution, and says what moved", async () => {
    const { policy, timelock } = chain.deployment.contracts;
    await propose("002-snp", "allow-platform", "--image", PLATFORM.snp, "--description", "v1");
    await sign(["alice", "carol"], "002-snp", "schedule", "execute");
    const allow = POLICY.encodeFunctionData("allowPlatform", [PLATFORM.snp, "somebody else's"]);
    const drifted = async () => {
      const moved = await run("relayer", "execute", "002-snp");
      expect([moved.code, errorCodeOf(moved)]).to.deep.equal([1, "simulate/drifted"]);
      expect(JSON.stringify(JSON.parse(moved.stderr).error.details.moved)).to.include("platform");
      expect(JSON.parse(moved.stderr).error.message).to.include("was").and.to.include("is");
    };
    const sent = () => chain.connection.ethers.provider.getTransactionCount(WHO.relayer.address);
    await aside(() => as(timelock.address, policy.address, allow), drifted);
    await on("relayer", "execute", "002-snp");
    await chain.passTime(DELAY);
    const before = await sent();
    await aside(() => as(timelock.address, policy.address, allow), drifted);
    expect(await sent(), "nothing was sent").to.equal(before);
    await on("relayer", "execute", "002-snp");
  });

  it("refuses by a code each: delay raised, role lost, predecessor not done, no money, no key, no endpoint, other chain", async () => {
    const { timelock } = chain.deployment.contracts;
    const governance = chain.deployment.safes.governance.address;
    const raise = TIMELOCK.encodeFunctionData("updateDelay", [DELAY * 2]);
    const revoke = (role: string) => TIMELOCK.encodeFunctionData("revokeRole", [keccakOf(role), governance]);
    await propose(
      "003-nitro",
      "allow-platform",
      "--image",
      PLATFORM.nitro,
      "--description",
      "v1",
      "--predecessor",
      `0x${"77".repeat(32)}`,
    );
    await sign(["alice", "carol"], "003-nitro", "schedule", "execute");
    await aside(
      () => as(timelock.address, timelock.address, raise),
      async () => {
        expect(await refused("relayer", "execute", "003-nitro")).to.deep.equal([2, "execute/delay-too-short"]);
      },
    );
    const { guardian } = chain.deployment.safes;
    const lost = async () => {
      // somebody else holds it: the timelock keeps its last proposer
      const grant = TIMELOCK.encodeFunctionData("grantRole", [keccakOf("PROPOSER_ROLE"), guardian.address]);
      await as(timelock.address, timelock.address, grant);
      await as(timelock.address, timelock.address, revoke("PROPOSER_ROLE"));
    };
    await aside(lost, async () => {
      expect(await refused("relayer", "execute", "003-nitro")).to.deep.equal([2, "execute/no-role"]);
    });
    expect(await refused("relayer", "execute", "003-nitro", "--step", "execute")).to.deep.equal([
      2,
      "execute/not-scheduled",
    ]);
    expect(await refused("relayer", "execute", "003-nitro", "--step", "cancel")).to.deep.equal([2, "execute/no-step"]);
    expect(await refused("relayer", "execute", "003-nitro", "--step", "wait")).to.deep.equal([2, "usage/step"]);
    expect(await refused("relayer", "rollback", "003-nitro")).to.deep.equal([2, "rollback/nothing-to-undo"]);

    const key = (variable: string, value: string | undefined) =>
      chain.runWith({ ...chain.environment("relayer"), ...(value === undefined ? {} : { [variable]: value }) }, [
        ...["execute", folderOf("003-nitro"), "--deployment", chain.record, "--json"],
      ]);
    const poor = Wallet.createRandom().privateKey;
    for (const [variable, value, code] of [
      ["KEYSTEAD_RELAYER_KEY", "", "key/missing"],
      ["KEYSTEAD_RELAYER_KEY", "0x1234", "key/malformed"],
      ["KEYSTEAD_RPC_URL", "", "usage/no-endpoint"],
      ["KEYSTEAD_RPC_URL", "ftp://127.0.0.1", "chain/bad-endpoint"],
    ] as const) {
      const done = await key(variable, value);
      expect([done.code, errorCodeOf(done)]).to.deep.equal([2, code]);
    }
    const broke = await key("KEYSTEAD_RELAYER_KEY", poor);
    expect([broke.code, errorCodeOf(broke)]).to.deep.equal([2, "relay/no-funds"]);
    expect(broke.stderr).to.not.include(poor.slice(2));

    // the play cannot pass what the timelock will not: an operation whose predecessor nobody scheduled
    expect(await refused("relayer", "execute", "003-nitro")).to.deep.equal([1, "simulate/differs"]);
  });

  it("sends nothing from a folder that does not verify, or whose calls nobody could read", async () => {
    const { code } = await chain.run(undefined, [
      ...["propose", "call", "--to", WHO.dave.address, "--data", "0xdeadbeef", "--id", "004-call", "--rpc"],
      ...["--deployment", chain.record, "--out", chain.proposals],
    ]);
    expect(code).to.equal(0);
    expect(await refused("alice", "sign", "004-call", "--step", "schedule")).to.deep.equal([1, "proposal/unsafe"]);
    await on("alice", "sign", "004-call", "--step", "schedule", "--accept", "danger/unknown-call");
    const file = join(folderOf("004-call"), "schedule.safe.json");
    const good = readFileSync(file, "utf8");
    writeFileSync(file, good.replace("172800", "172801"));
    for (const [command, ...more] of [["sign", "--step", "schedule"], ["execute"], ["cancel"], ["rollback"]] as const) {
      const got = await refused("relayer", command, "004-call", ...more, "--accept", "danger/unknown-call");
      expect(got, command).to.deep.equal([1, "proposal/not-verified"]);
    }
    writeFileSync(file, good);
  });

  it("checks signers against the Safe's owners, and takes signatures from elsewhere", async () => {
    await proposeDstack();
    const step = ["--step", "schedule"];
    expect(await refused("stranger", "sign", "005-dstack", ...step)).to.deep.equal([1, "sign/not-an-owner"]);
    expect(existsSync(join(folderOf("005-dstack"), "signatures"))).to.equal(false);
    const shown = await on(undefined, "sign", "005-dstack", ...step, "--show");
    expect(shown.hashes).to.have.all.keys("domainHash", "messageHash", "safeTxHash");
    expect(shown.approve.data).to.equal(`0xd4d9bdcd${shown.hashes.safeTxHash.slice(2)}`);
    const signature = await new Wallet(WHO.bob.key).signMessage(Buffer.from(shown.hashes.safeTxHash.slice(2), "hex"));
    const taken = await on(undefined, "sign", "005-dstack", ...step, "--signature", signature);
    expect([taken.signature.signer, taken.signature.kind]).to.deep.equal([WHO.bob.address, "eth_sign"]);
    const { nonce } = JSON.parse(readFileSync(join(folderOf("005-dstack"), "operation.json"), "utf8")).safe;
    await aside(
      () => moveNonces(BigInt(nonce) + 1n),
      async () => {
        const late = await refused("alice", "sign", "005-dstack", ...step, "--nonce", nonce);
        expect(late).to.deep.equal([2, "sign/nonce-used"]);
      },
    );
    expect(await refused("alice", "sign", "005-dstack")).to.deep.equal([2, "usage/step"]);
    expect(await refused("alice", "sign", "005-dstack", "--step", "rollback-execute")).to.deep.equal([2, "step/none"]);
  });

  it("given the Safes' nonces moved since: proposed again it is the same, and says what to sign with", async () => {
    await proposeDstack();
    const { governance, guardian } = chain.deployment.safes;
    const kept = (path: string) => readFileSync(join(folderOf("005-dstack"), path), "utf8");
    const before = kept("operation.json");
    const where = ["--id", "005-dstack", "--deployment", chain.record, "--out", chain.proposals, "--rpc"];
    const again = (...more: string[]) =>
      chain.run(undefined, [
        ...["propose", "allow-platform", "--image", PLATFORM.dstack, "--description", "v1"],
        ...[...where, ...more],
      ]);
    expect(jsonOf(await again("--json"))).to.deep.include({ written: [], moved: [] });
    const planned = BigInt(JSON.parse(before).safe.nonce);
    const later = () => moveNonces(planned + 7n);
    await aside(later, async () => {
      const done = await again("--json");
      const { written, moved } = jsonOf(done);
      expect([done.code, written]).to.deep.equal([0, []]);
      expect(moved.map(({ safe, next }: { safe: string; next: string }) => [safe, next])).to.deep.equal([
        [governance.address, `${planned + 7n}`],
        [guardian.address, `${planned + 7n}`],
      ]);
      expect((await again()).stdout).to.include(`--nonce ${planned + 7n}`);
      expect(kept("operation.json")).to.equal(before);
      // asked for in so many words, it is another proposal
      const other = await again("--json", "--nonce", `${planned + 7n}`);
      expect([other.code, errorCodeOf(other)]).to.deep.equal([2, "proposal/exists"]);
    });
  });

  it("leaves out the play for what tightens alone, and only where that is asked for", async () => {
    const dir = "006-suspend";
    await proposeDstack();
    await propose(dir, "suspend-tee", "--kind", "snp", "--reason", "broken");
    expect(await refused("relayer", "execute", "005-dstack", "--skip-simulation")).to.deep.equal([
      2,
      "usage/skip-simulation",
    ]);
    await sign(["dave", "erin"], dir, "execute");
    // nothing to suspend: the play says so before anything is sent, and leaving it out does not help
    const kind = POLICY.encodeFunctionData("enableTee", [KIND.snp]);
    const { policy, timelock } = chain.deployment.contracts;
    await as(timelock.address, policy.address, kind);
    expect(await refused("relayer", "execute", dir)).to.deep.equal([1, "simulate/drifted"]);
    const done = await on("relayer", "execute", dir, "--skip-simulation");
    expect([done.sent.step, done.phase]).to.deep.equal(["execute", "done"]);
  });

  it("rolls a grant back at once by the guardian, once", async () => {
    const { policy } = chain.deployment.contracts;
    await propose("007-nitro", "enable-tee", "--kind", "nitro");
    await sign(["alice", "bob"], "007-nitro", "schedule", "execute");
    await on("relayer", "execute", "007-nitro");
    await chain.passTime(DELAY);
    await on("relayer", "execute", "007-nitro");
    const enabled = async () =>
      (await PlatformPolicy__factory.connect(policy.address, chain.connection.ethers.provider).teeRules(KIND.nitro))
        .enabled;
    expect(await enabled()).to.equal(true);
    await sign(["dave", "erin"], "007-nitro", "rollback");
    const back = await on("relayer", "rollback", "007-nitro");
    expect([back.sent.step, back.phase, await enabled()]).to.deep.equal(["rollback", "done", false]);
    expect((await on("relayer", "rollback", "007-nitro")).sent, "rolled back twice").to.equal(null);
  });

  it("lets a service's developer act from an account: printed, tried, sent, and refused to strangers", async () => {
    const env = { ...chain.environment("carol"), KEYSTEAD_SENDER_KEY: WHO.carol.key };
    const service = async (name: string, ...args: string[]) => {
      const done = await chain.runWith(env, ["service", name, ...args, "--deployment", chain.record, "--json"]);
      return { ...done, json: done.stdout === "" ? undefined : jsonOf(done) };
    };
    const creation = ["--admin", WHO.carol.address, "--notice", "3d", "--description", "mine"];
    const printed = await service("create", ...creation, "--from", WHO.carol.address);
    expect([printed.code, printed.stderr, printed.json.sent, printed.json.tried]).to.deep.equal([0, "", null, true]);
    const id = printed.json.service;
    expect((await service("show", id)).code, "it does not exist yet").to.equal(1);
    const created = await service("create", ...creation, "--send");
    expect([created.code, created.stderr, created.json.service]).to.deep.equal([0, "", id]);
    expect((await service("show", id)).json.view.admin).to.equal(WHO.carol.address.toLowerCase());

    const image = tdxImage("first");
    const added = await service("add-image", "--service", id, "--image", image, "--description", "v1", "--send");
    expect([added.code, added.json.effects.map(({ holds }: { holds: boolean }) => holds)]).to.deep.equal([
      0,
      [true, true, true],
    ]);
    const stranger = await service("rotate", "--service", id, "--from", WHO.dave.address);
    expect([stranger.code, errorCodeOf(stranger)]).to.deep.equal([2, "direct/would-fail"]);
    expect(stranger.stderr).to.include("KmsRegistry_");
    for (const [name, ...args] of [
      ["rotate"],
      ["extend-notice", "--period", "7d"],
      ["remove-image", "--image", imageId(image), "--reason", "old"],
      ["transfer-admin", "--to", WHO.bob.address],
      ["renounce-admin"],
    ] as const) {
      const done = await service(name, "--service", id, ...args, "--send");
      expect([done.code, done.stderr], name).to.deep.equal([0, ""]);
    }
    const { view } = (await service("show", id)).json;
    expect([view.keyEpoch, view.noticePeriod, BigInt(view.admin)]).to.deep.equal([1, 7 * 86_400, 0n]);
    const gone = await service("rotate", "--service", id, "--send");
    expect([gone.code, errorCodeOf(gone)]).to.deep.equal([2, "direct/would-fail"]);

    const forEver = ["--image", tdxImage("sealed"), "--description", "for ever", "--send"];
    const same = await service("create-sealed", ...forEver);
    expect([same.code, errorCodeOf(same)], "one creator, one salt, one service").to.deep.equal([
      2,
      "direct/would-fail",
    ]);
    const sealed = await service("create-sealed", ...forEver, "--salt", `0x${"01".repeat(32)}`);
    expect([sealed.code, sealed.stderr]).to.deep.equal([0, ""]);
    expect((await service("show", sealed.json.service)).json.view.upgradeable).to.equal(false);
    const offline = await chain.runWith({}, [
      "service",
      "rotate",
      "--service",
      id,
      "--deployment",
      chain.record,
      "--json",
    ]);
    expect([offline.code, jsonOf(offline).tried]).to.deep.equal([0, false]);
    const nowhere = await chain.runWith({}, [
      ...["service", "rotate", "--service", id, "--deployment", chain.record, "--json", "--send"],
    ]);
    expect([nowhere.code, errorCodeOf(nowhere)]).to.deep.equal([2, "usage/no-endpoint"]);
  });

  it("says of what expired when that was, and schedules it again with new signatures", async () => {
    await propose("009-late", "enable-tee", "--kind", "nitro");
    await sign(["alice", "carol"], "009-late", "schedule", "execute");
    await on("relayer", "execute", "009-late");
    await chain.passTime(DELAY + 14 * 86_400);
    const late = await run("relayer", "execute", "009-late", "--step", "execute");
    expect([late.code, errorCodeOf(late)]).to.deep.equal([2, "execute/expired"]);
    expect(JSON.parse(late.stderr).error.message).to.match(/expired on \d{4}-/);
    expect(await refused("relayer", "execute", "009-late"), "no signature for another nonce yet").to.deep.equal([
      ...[2, "safe/nonce-moved"],
    ]);
    const cancelled = await on("relayer", "cancel", "009-late");
    expect([cancelled.sent, cancelled.phase]).to.deep.equal([null, "expired"]);
    const safe = await chain.connection.ethers.getContractAt(
      ["function nonce() view returns (uint256)"],
      chain.deployment.safes.governance.address,
    );
    for (const step of ["schedule", "execute"]) {
      const nonce = String(await safe.getFunction("nonce")());
      for (const person of ["alice", "carol"] as const) {
        await on(person, "sign", "009-late", "--step", step, "--nonce", nonce);
      }
      const done = await on("relayer", "execute", "009-late");
      expect(done.phase).to.equal(step === "schedule" ? "waiting" : "done");
      if (step === "schedule") await chain.passTime(DELAY);
    }
  });
});
