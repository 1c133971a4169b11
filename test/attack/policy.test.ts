import { expect } from "chai";
import { getAddress, type Interface, id, keccak256, ZeroAddress, ZeroHash } from "ethers";
import { network } from "hardhat";
import { DECISION } from "../helpers/decisions.ts";
import { dstackPinnedImage, image, imageId, KIND, measured, PLATFORM, tdxImage } from "../helpers/images.ts";
import { deployOpenSuite, NOTICE, TCB } from "../helpers/suite.ts";

/*
 * What an attacker tried on the platform policy, the codec and dstack's adapter, each as a test of the rule that stops it. What is left standing on
 * purpose says so.
 */

const connection = await network.create();
const { networkHelpers } = connection;
const open = () => deployOpenSuite(connection);
const DEVICE = measured("device", 32);
const SALT = id("attack");

describe("attacks on the policy, the codec and dstack's adapter", () => {
  it("a sealed SEV-SNP image is not a platform's bytes: it names host_data or the id key", async () => {
    const { registry } = await networkHelpers.loadFixture(open);
    const add = (registers: Record<number, string>) =>
      registry.addSecretKeyByImage(image(KIND.snp, registers), [], false, SALT, "", "0x");
    const measurement = measured("snp platform");
    await expect(add({ 0: measurement }))
      .to.be.revertedWithCustomError(registry, "ImageCodec_MissingRegisters")
      .withArgs(KIND.snp, 0b10);
    await expect(add({ 0: measurement, 2: `0x${"00".repeat(48)}` }), "an id key of zero vouches for nothing")
      .to.be.revertedWithCustomError(registry, "ImageCodec_ZeroRegister")
      .withArgs(KIND.snp, 2);
    await expect(add({ 1: measured("host", 32) })).to.be.revertedWithCustomError(
      registry,
      "ImageCodec_MissingRegisters",
    );
    await add({ 0: measurement, 1: measured("host", 32) });
  });

  it("a KMS node below UpToDate gets no root, whatever is accepted for services", async () => {
    const { policy, governor } = await networkHelpers.loadFixture(open);
    const own = policy.connect(governor);
    await own.acceptTcb(KIND.tdx, 1 << TCB.outOfDate);
    await own.allowKmsImage(tdxImage("kms"), "");
    const ask = (tcb: number) => policy.authorizeKms(imageId(tdxImage("kms")), imageId(PLATFORM.tdx), DEVICE, tcb);
    expect(await policy.decide(KIND.tdx, imageId(PLATFORM.tdx), DEVICE, TCB.outOfDate)).to.equal(DECISION.Allowed);
    expect(await ask(TCB.outOfDate)).to.equal(DECISION.TcbNotAccepted);
    expect(await ask(TCB.swHardeningNeeded)).to.equal(DECISION.TcbNotAccepted);
    expect(await ask(TCB.upToDate)).to.equal(DECISION.Allowed);
  });

  it("suspending every other TEE leaves machines that dstack attests: dstack is a kind, and is suspended as one", async () => {
    const { registry, policy, guardian, admin, dstackAuth, eve } = await networkHelpers.loadFixture(open);
    const config = {
      admin: admin.address,
      noticePeriod: NOTICE,
      requireUpToDateTcb: false,
      devices: [],
      description: "",
    };
    await registry.connect(admin).createServiceWithImage(config, SALT, dstackPinnedImage("app"), "");
    const boot = {
      appId: getAddress(await registry.serviceIdFor(admin.address, SALT)),
      composeHash: measured("compose of app", 32),
      instanceId: eve.address,
      deviceId: DEVICE,
      mrAggregated: ZeroHash,
      mrSystem: ZeroHash,
      osImageHash: measured("os image", 32),
      tcbStatus: "UpToDate",
      advisoryIds: [],
    };
    const own = policy.connect(guardian);
    for (const kind of [KIND.tdx, KIND.snp, KIND.nitro]) await own.suspendTee(kind, "broken");
    expect((await dstackAuth.isAppAllowed(boot))[0], "why the tools offer dstack in the same breath").to.equal(true);
    await own.suspendTee(KIND.dstack, "the hardware below it");
    expect([...(await dstackAuth.isAppAllowed(boot))]).to.deep.equal([false, "TEE kind is not enabled"]);
  });

  it("an eth_call from the zero address gets no further than a transaction from a stranger", async () => {
    const { policy, registry, dstackAuth } = await networkHelpers.loadFixture(open);
    const values: Readonly<Record<string, unknown>> = {
      "bytes image": PLATFORM.tdx,
      "uint16 statuses": 1,
      "uint8 kind": KIND.tdx,
      "uint256 duration": 60,
    };
    let tried = 0;
    for (const contract of [policy, registry]) {
      // renounceRole is left out: of a role that the caller does not hold it does nothing, whoever the caller is.
      const own = ["grantRole", "revokeRole", "upgradeTo", "upgradeToAndCall"];
      for (const fragment of contract.interface.fragments) {
        if (!("stateMutability" in fragment) || !("name" in fragment) || fragment.type !== "function") continue;
        const mutable = fragment.stateMutability === "nonpayable" || fragment.stateMutability === "payable";
        const governed =
          (contract === policy && fragment.name !== "renounceRole") || own.includes(String(fragment.name));
        if (!mutable || !governed || fragment.name === "initialize") continue;
        const inputs = fragment.inputs.map((input) => values[`${input.type} ${input.name}`] ?? zeroOf(input));
        const data = (contract.interface as Interface).encodeFunctionData(fragment.format("sighash"), inputs);
        const call = connection.ethers.provider.call({ to: await contract.getAddress(), from: ZeroAddress, data });
        expect(await isRefused(call), String(fragment.name)).to.equal(true);
        tried += 1;
      }
    }
    expect(tried).to.be.greaterThan(20);
    expect(
      dstackAuth.interface.fragments.some((each) => "stateMutability" in each && each.stateMutability === "payable"),
    ).to.equal(false);
  });

  it("OpenZeppelin's DEFAULT_ADMIN_ROLE goes to nobody: not to an EOA, not to a contract", async () => {
    const { policy, registry, governor, eve } = await networkHelpers.loadFixture(open);
    for (const contract of [policy, registry]) {
      for (const account of [eve.address, await registry.getAddress()]) {
        expect(await isRefused(contract.connect(governor).grantRole(ZeroHash, account)), account).to.equal(true);
        expect(await contract.hasRole(ZeroHash, account)).to.equal(false);
      }
    }
  });

  it("one candidate more or less changes no denial into an allowance: `authorizeBest` is `authorize` of the best", async () => {
    const { registry, admin } = await networkHelpers.loadFixture(open);
    const config = {
      admin: admin.address,
      noticePeriod: NOTICE,
      requireUpToDateTcb: false,
      devices: [],
      description: "",
    };
    const own = registry.connect(admin);
    await own.createServiceWithImage(config, SALT, tdxImage("active"), "");
    const serviceId = await registry.serviceIdFor(admin.address, SALT);
    for (const name of ["pending", "removed"]) await own.addImageToService(serviceId, tdxImage(name), "");
    await own.removeImageFromService(serviceId, imageId(tdxImage("removed")), "");
    const ids = ["unknown", "removed", "pending", "active"].map((name) => imageId(tdxImage(name)));
    for (let chosen = 0; chosen < 1 << ids.length; chosen += 1) {
      const candidates = ids.filter((_, at) => (chosen >> at) & 1);
      for (const [platformId, tcbStatus] of [
        [imageId(PLATFORM.tdx), 0],
        [imageId(PLATFORM.tdx), TCB.revoked],
        [keccak256("0x"), 0],
      ] as const) {
        const alone: bigint[] = [];
        for (const one of candidates) {
          alone.push(await registry.authorize({ serviceId, imageId: one, platformId, deviceId: DEVICE, tcbStatus }));
        }
        const furthest = [...alone].sort((a, b) => Number(b - a))[0] ?? 0n;
        const expected = alone.includes(DECISION.Allowed) ? DECISION.Allowed : furthest;
        const answer = await registry.authorizeBest(serviceId, platformId, candidates, DEVICE, tcbStatus);
        expect(answer, `${candidates}`).to.equal(expected);
      }
    }
    const nobody = `0x${"11".repeat(20)}`;
    expect(await registry.authorizeBest(nobody, imageId(PLATFORM.tdx), ids, DEVICE, 0)).to.equal(
      DECISION.ServiceUnknown,
    );
  });

  it("times that are stored are logged: the state follows from the logs alone", async () => {
    const { policy, governor, guardian } = await networkHelpers.loadFixture(open);
    const platform = image(KIND.tdx, { 0: measured("another") });
    const logged = async (sent: Promise<{ wait(): Promise<{ logs: readonly object[] } | null> }>) => {
      const receipt = await (await sent).wait();
      const [log] = receipt?.logs ?? [];
      return (log as { args?: Record<string, bigint> }).args ?? {};
    };
    for (const act of [
      () => policy.connect(governor).allowPlatform(platform, ""),
      () => policy.connect(guardian).revokePlatform(imageId(platform), ""),
    ]) {
      const { since } = await logged(act());
      expect(since).to.equal((await policy.platform(imageId(platform))).since);
    }
    for (const act of [
      () => policy.connect(governor).allowKmsImage(tdxImage("kms"), ""),
      () => policy.connect(guardian).revokeKmsImage(imageId(tdxImage("kms")), ""),
    ]) {
      const { since } = await logged(act());
      expect(since).to.equal((await policy.kmsImage(imageId(tdxImage("kms")))).since);
    }
    await policy.connect(guardian).pauseRelease(3600, "");
    const { until } = await logged(policy.connect(governor).resumeRelease());
    expect(until).to.equal(await policy.releasePausedUntil());
  });
});

const isRefused = (call: Promise<unknown>): Promise<boolean> =>
  call.then(
    () => false,
    () => true,
  );

/** A value of a parameter's type: zero, empty. */
function zeroOf(input: { type: string; baseType: string; components?: readonly { type: string }[] | null }): unknown {
  if (input.baseType === "array") return [];
  if (input.baseType === "tuple") {
    return (input.components ?? []).map((each) => zeroOf(each as { type: string; baseType: string }));
  }
  if (input.type === "address") return ZeroAddress;
  if (input.type === "bool") return false;
  if (input.type === "string") return "";
  if (input.type === "bytes") return "0x";
  if (input.type.startsWith("bytes")) return `0x${"00".repeat(Number(input.type.slice(5)))}`;
  return 0;
}
