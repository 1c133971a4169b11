import { expect } from "chai";
import type { Log } from "ethers";
import { ZeroHash } from "ethers";
import { network } from "hardhat";
import { image, imageId, KIND, measured, nitroImage, PLATFORM, snpImage } from "../../helpers/images.ts";
import { chainLog, decide, expectChange, expectRefusal, send } from "../../helpers/policy.ts";
import { type Connection, deployOpenSuite, type Suite } from "../../helpers/suite.ts";

const connection = await network.create();
const { loadFixture } = connection.networkHelpers;
const device = measured("device", 32);
const IDENTITY = {
  rootEpoch: 1,
  environmentKey: measured("environment key", 32),
  receiptSigner: "0x00000000000000000000000000000000000A11cE",
  evidenceHash: measured("evidence", 32),
};
const newPlatform = image(KIND.snp, { 0: measured("another platform") });

/** Every function of the policy by lane, with arguments that work in the state of `deployRich`. */
const GRANTS: Readonly<Record<string, readonly unknown[]>> = {
  allowPlatform: [newPlatform, ""],
  enableTee: [KIND.nitro],
  acceptTcb: [KIND.tdx, 1 << 4],
  allowDevice: [KIND.tdx, measured("another device", 32)],
  unrestrictDevices: [KIND.tdx],
  allowKmsImage: [nitroImage("kms"), ""],
  publishKmsIdentity: [{ ...IDENTITY, rootEpoch: 2 }],
  setGatewayAppId: ["gateway"],
  setAppImplementation: ["0x0000000000000000000000000000000000000B0b"],
  extendPause: [7200],
  resumeRelease: [],
};
const REVOCATIONS: Readonly<Record<string, readonly unknown[]>> = {
  revokePlatform: [imageId(PLATFORM.tdx), "reason"],
  suspendTee: [KIND.tdx, "reason"],
  rejectTcb: [KIND.tdx, 1],
  revokeDevice: [KIND.tdx, device],
  restrictDevices: [KIND.snp],
  revokeKmsImage: [imageId(snpImage("kms")), "reason"],
  revokeKmsIdentity: [null, "reason"], // the id is known only once it is published
  pauseRelease: [3600, "reason"],
};
/** Functions of Governed and OpenZeppelin: test/contracts/governance and the authorization matrix have them. */
const ELSEWHERE = ["grantRole", "revokeRole", "renounceRole", "upgradeTo", "upgradeToAndCall", "initialize"];
/** Which of them need a pause in force, so that they have something to do. */
const WHILE_PAUSED = ["extendPause", "resumeRelease"];

/** The open suite with one of everything that can be revoked, and one kind suspended. */
async function deployRich(on: Connection): Promise<Suite> {
  const suite = await deployOpenSuite(on);
  const governor = suite.policy.connect(suite.governor);
  await governor.allowDevice(KIND.tdx, device);
  await governor.restrictDevices(KIND.tdx);
  await governor.allowKmsImage(snpImage("kms"), "");
  await governor.publishKmsIdentity(IDENTITY);
  await governor.suspendTee(KIND.nitro, "");
  return suite;
}

describe("PlatformPolicy: lanes", () => {
  let suite: Suite;
  let identityId: string;
  const prepare = async (name: string) => {
    if (WHILE_PAUSED.includes(name)) await suite.policy.connect(suite.guardian).pauseRelease(3600, "");
  };
  const argsOf = (name: string) =>
    (GRANTS[name] ?? REVOCATIONS[name] ?? []).map((value) => (value === null ? identityId : value));

  beforeEach(async () => {
    suite = await loadFixture(deployRich);
    const policy = suite.policy.connect(suite.governor);
    const [published] = await policy.queryFilter(policy.filters.PublishKmsIdentity());
    identityId = published?.args.identityId ?? ZeroHash;
  });

  it("the two tables name every function that changes state", () => {
    const changing: string[] = [];
    suite.policy.interface.forEachFunction(({ name, stateMutability }) => {
      if (stateMutability !== "view" && stateMutability !== "pure") changing.push(name);
    });
    expect([...Object.keys(GRANTS), ...Object.keys(REVOCATIONS), ...ELSEWHERE].sort()).to.deep.equal(changing.sort());
    expect(Object.keys(GRANTS).filter((name) => name in REVOCATIONS)).to.deep.equal([]);
  });

  for (const name of Object.keys(GRANTS)) {
    it(`${name} loosens: the governor may, the guardian and everyone else may not`, async () => {
      await prepare(name);
      const role = await suite.policy.GOVERNOR_ROLE();
      const head = await suite.policy.historyHead();
      for (const actor of [suite.guardian, suite.deployer, suite.admin, suite.eve]) {
        await expectRefusal(
          suite,
          () => send(suite.policy.connect(actor), name, argsOf(name)),
          "AccessControlUnauthorizedAccount",
          actor.address,
          role,
        );
      }
      expect(await suite.policy.historyHead()).to.equal(head);
      await send(suite.policy.connect(suite.governor), name, argsOf(name));
      expect(await suite.policy.historyHead()).to.not.equal(head);
    });
  }

  for (const name of Object.keys(REVOCATIONS)) {
    it(`${name} tightens: guardian and governor may, everyone else may not`, async () => {
      const head = await suite.policy.historyHead();
      for (const actor of [suite.deployer, suite.admin, suite.eve]) {
        await expectRefusal(
          suite,
          () => send(suite.policy.connect(actor), name, argsOf(name)),
          "Governed_NeitherGuardianNorGovernor",
          actor.address,
        );
      }
      expect(await suite.policy.historyHead()).to.equal(head);
      for (const actor of [suite.guardian, suite.governor]) {
        const snapshot = await connection.networkHelpers.takeSnapshot();
        await send(suite.policy.connect(actor), name, argsOf(name));
        expect(await suite.policy.historyHead()).to.not.equal(head);
        await snapshot.restore();
      }
    });
  }

  it("no revocation makes a denied question allowed", async () => {
    const questions = Object.entries(PLATFORM).flatMap(([name, bytes]) =>
      [0, 1, 4, 7].flatMap((tcbStatus) =>
        [device, ZeroHash].map((deviceId) => ({
          kind: KIND[name as keyof typeof KIND],
          platformId: imageId(bytes),
          deviceId,
          tcbStatus,
        })),
      ),
    );
    const answers = async () =>
      Promise.all(questions.map(async (question) => (await decide(suite, question)) === "Allowed"));
    const before = await answers();
    expect(before).to.include(true).and.to.include(false);
    for (const name of Object.keys(REVOCATIONS)) {
      const snapshot = await connection.networkHelpers.takeSnapshot();
      await send(suite.policy.connect(suite.guardian), name, argsOf(name));
      const after = await answers();
      expect(
        after.filter((allowed, i) => allowed && !before[i]),
        name,
      ).to.deep.equal([]);
      await snapshot.restore();
    }
  });
});

describe("PlatformPolicy: history", () => {
  /** The raw logs of the policy without OpenZeppelin's own, in order. */
  async function policyLogs(suite: Suite): Promise<Log[]> {
    const names = ["RoleGranted", "RoleRevoked", "RoleAdminChanged", "Initialized", "Upgraded"] as const;
    const foreign = names.map((name) => suite.policy.interface.getEvent(name).topicHash);
    const logs = await connection.ethers.provider.getLogs({ address: await suite.policy.getAddress(), fromBlock: 0 });
    return logs.filter(({ topics }) => !foreign.includes(topics[0] ?? ""));
  }

  it("given every kind of change, the head is the fold of all raw logs, and versions and pointers have no gap", async () => {
    const suite = await loadFixture(deployRich);
    const [published] = await suite.policy.queryFilter(suite.policy.filters.PublishKmsIdentity());
    const identityId = published?.args.identityId;
    const paused = ["pauseRelease", "extendPause", "resumeRelease"];
    const all = { ...GRANTS, ...REVOCATIONS };
    for (const name of [
      ...Object.keys(all).filter((each) => !paused.includes(each) && each !== "unrestrictDevices"),
      ...paused,
      "unrestrictDevices",
    ]) {
      const args = (all[name] ?? []).map((value) => (value === null ? identityId : value));
      await send(suite.policy.connect(suite.governor), name, args);
    }
    const logs = await policyLogs(suite);
    const seen = new Set(logs.map(({ topics }) => suite.policy.interface.getEvent(topics[0] as "AllowPlatform").name));
    expect(seen.size, "every kind of event").to.equal(Object.keys(all).length);
    expect(logs.reduce(chainLog, ZeroHash)).to.equal(await suite.policy.historyHead());
    expect(await suite.policy.policyVersion()).to.equal(BigInt(logs.length));

    let previous = 0n;
    for (const [i, log] of logs.entries()) {
      const event = suite.policy.interface.parseLog(log);
      expect(event?.args.policyVersion).to.equal(BigInt(i + 1));
      expect(event?.args.previousBlock).to.equal(previous);
      previous = BigInt(log.blockNumber);
    }
    expect(await suite.policy.lastUpdateBlock()).to.equal(previous);
    // Any log left out, altered or swapped gives another head.
    expect(logs.slice(1).reduce(chainLog, ZeroHash)).to.not.equal(await suite.policy.historyHead());
    expect(logs.toReversed().reduce(chainLog, ZeroHash)).to.not.equal(await suite.policy.historyHead());
  });

  it("given several changes in one block, they follow each other in the chain and point at that block", async () => {
    const suite = await loadFixture(deployOpenSuite);
    const governor = suite.policy.connect(suite.governor);
    const before = await suite.policy.lastUpdateBlock();
    const { provider, ethers } = connection;
    await provider.request({ method: "evm_setAutomine", params: [false] });
    try {
      const nonce = await ethers.provider.getTransactionCount(suite.governor.address);
      const options = (i: number) => ({ nonce: nonce + i, gasLimit: 300_000 });
      await governor.suspendTee(KIND.tdx, "one", options(0));
      await governor.enableTee(KIND.tdx, options(1));
      await governor.acceptTcb(KIND.tdx, 1 << 9, options(2));
      await provider.request({ method: "evm_mine", params: [] });
    } finally {
      await provider.request({ method: "evm_setAutomine", params: [true] });
    }
    const logs = await policyLogs(suite);
    const last = logs.slice(-3);
    const block = BigInt(last[0]?.blockNumber ?? 0);
    expect(last.map((log) => suite.policy.interface.parseLog(log)?.args.previousBlock)).to.deep.equal([
      before,
      block,
      block,
    ]);
    expect(last.every((log) => BigInt(log.blockNumber) === block)).to.equal(true);
    expect(logs.reduce(chainLog, ZeroHash)).to.equal(await suite.policy.historyHead());
  });

  it("given a change that is refused, head, version and pointer stay", async () => {
    const suite = await loadFixture(deployOpenSuite);
    const state = async () =>
      Promise.all([suite.policy.historyHead(), suite.policy.policyVersion(), suite.policy.lastUpdateBlock()]);
    const before = await state();
    const sent = await suite.policy
      .connect(suite.guardian)
      .enableTee(KIND.tdx, { gasLimit: 300_000 })
      .then((tx) => tx.wait())
      .catch((error: unknown) => error);
    expect(sent).to.be.instanceOf(Error);
    expect(await state()).to.deep.equal(before);
    await expectChange(suite, () => suite.policy.connect(suite.guardian).suspendTee(KIND.tdx, ""), "SuspendTee", {
      kind: KIND.tdx,
      actor: suite.guardian.address,
      reason: "",
    });
  });
});
