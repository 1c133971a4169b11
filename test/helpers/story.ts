import type { Hex } from "../../src/core/bytes.ts";
import {
  dstackPinnedImage,
  image,
  imageId,
  KIND,
  measured,
  nitroImage,
  PLATFORM,
  snpImage,
  tdxImage,
} from "./images.ts";
import { DAY, NOTICE, type Suite, TCB } from "./suite.ts";

/** What a told story leaves on a chain. */
export interface Story {
  readonly registry: Hex;
  readonly policy: Hex;
  /** An upgradeable service whose life holds every event that such a service can have. */
  readonly upgradeable: Hex;
  /** A service that is not, with devices and secrets. */
  readonly sealed: Hex;
  /** An upgradeable service with one image and nothing else. */
  readonly quiet: Hex;
  /** Blocks at which the state differs by time alone or by event, ascending; the last is the newest. */
  readonly moments: readonly number[];
}

/** Texts that must neither break a decoder nor reach a terminal as they are. */
export const HOSTILE = "<script>alert(1)</script> \u202Egnp.exe \u001b[2J \u0000 𝔘𝔫𝔦";

/** A chain history with every event of both contracts, told through the suite's own functions. */
export async function tellStory(suite: Suite): Promise<Story> {
  const { admin, successor, serviceGuardian, eve } = suite;
  const moments: number[] = [];
  const blockNow = () => suite.connection.ethers.provider.getBlockNumber();
  const mark = async () => {
    moments.push(await blockNow());
  };
  const pass = async (seconds: number) => {
    await suite.connection.provider.request({ method: "evm_increaseTime", params: [seconds] });
    await suite.connection.provider.request({ method: "evm_mine", params: [] });
    await mark();
  };
  await tellPolicy(suite, mark);

  const registry = suite.registry.connect(admin);
  const salt = (label: string) => measured(label, 32);
  const config = {
    admin: admin.address,
    noticePeriod: NOTICE,
    description: HOSTILE,
    devices: [measured("device a", 32), measured("device b", 32)],
    requireUpToDateTcb: true,
  };
  const id = await registry.serviceIdFor(admin.address, salt("story"));
  await (await registry.createServiceWithImage(config, salt("story"), tdxImage("v1"), "first")).wait();
  await (await registry.setServiceGuardian(id, serviceGuardian.address)).wait();
  await mark();
  const batch = [tdxImage("v2"), snpImage("v2"), dstackPinnedImage("v2")].map((bytes) => ({
    image: bytes,
    description: "",
  }));
  await (await registry.addImagesToService(id, batch)).wait();
  await (await registry.setDevice(id, measured("device c", 32), true)).wait();
  await (await registry.setDevice(id, measured("device a", 32), false)).wait();
  await (await registry.setRequireUpToDateTcb(id, false)).wait();
  await (await registry.setServiceGuardian(id, eve.address)).wait();
  await mark();
  await (
    await suite.registry.connect(serviceGuardian).removeImageFromService(id, imageId(snpImage("v2")), HOSTILE)
  ).wait();
  await pass(NOTICE + 1);
  await (await registry.setRequireUpToDateTcb(id, true)).wait();
  const now = (await suite.connection.ethers.provider.getBlock("latest"))?.timestamp ?? 0;
  await (await registry.retireImageFromService(id, imageId(tdxImage("v1")), now + 2 * DAY)).wait();
  await (await registry.retireImageFromService(id, imageId(tdxImage("v1")), now + DAY)).wait();
  await mark();
  await pass(DAY + 1);
  await (await registry.addImageToService(id, snpImage("v2"), "back again")).wait();
  await (await registry.rotateServiceKey(id)).wait();
  await (await registry.publishSealedSecrets(id, "env", `0x${"5e".repeat(700)}`)).wait();
  await pass(NOTICE + 1);
  await (await registry.publishSealedSecrets(id, "env", "0x01")).wait();
  await (await registry.publishSealedSecrets(id, "other", "0x02")).wait();
  await mark();
  await (await registry.withdrawPendingSecrets(id, HOSTILE)).wait();
  await (await registry.publishSealedSecrets(id, "env", "0x03")).wait();
  await (await registry.extendNoticePeriod(id, NOTICE + 1)).wait();
  await (await registry.transferServiceAdmin(id, eve.address)).wait();
  await (await registry.transferServiceAdmin(id, successor.address)).wait();
  await mark();
  await (await suite.registry.connect(successor).acceptServiceAdmin(id)).wait();
  await (await suite.registry.connect(successor).renounceServiceAdmin(id)).wait();

  const sealed = await registry.serviceIdFor(eve.address, salt("sealed"));
  await (
    await suite.registry
      .connect(eve)
      .addSecretKeyByImage(dstackPinnedImage("only"), [measured("d", 32)], true, salt("sealed"), HOSTILE, "0x5ec7")
  ).wait();
  const quiet = await registry.serviceIdFor(eve.address, salt("quiet"));
  const plain = { admin: eve.address, noticePeriod: 0, description: "", devices: [], requireUpToDateTcb: false };
  await (await suite.registry.connect(eve).createService(plain, salt("quiet"))).wait();
  await (await suite.registry.connect(eve).addImageToService(quiet, nitroImage("quiet"), "")).wait();
  await (await suite.registry.connect(eve).restrictServiceDevices(quiet, [measured("d", 32)])).wait();
  await (await suite.registry.connect(eve).addImageToService(quiet, nitroImage("bound"), "")).wait();
  await mark();
  await pass(30 * DAY);
  return {
    registry: (await suite.registry.getAddress()).toLowerCase() as Hex,
    policy: (await suite.policy.getAddress()).toLowerCase() as Hex,
    upgradeable: id as Hex,
    sealed: sealed as Hex,
    quiet: quiet as Hex,
    moments,
  };
}

/** Every event of the policy. */
async function tellPolicy({ policy, governor, guardian, eve }: Suite, mark: () => Promise<void>): Promise<void> {
  const slow = policy.connect(governor);
  const fast = policy.connect(guardian);
  const tdx = PLATFORM.tdx;
  const kms = image(KIND.tdx, { 0: measured("mrtd"), 2: measured("k1"), 3: measured("k2"), 4: measured("k3") });
  const identity = {
    rootEpoch: 3,
    environmentKey: measured("environment key", 32),
    receiptSigner: eve.address,
    evidenceHash: measured("evidence", 32),
  };
  await (await slow.allowPlatform(tdx, HOSTILE)).wait();
  await (await slow.allowPlatform(PLATFORM.snp, "kept")).wait();
  await (await fast.revokePlatform(imageId(tdx), HOSTILE)).wait();
  await mark();
  await (await slow.allowPlatform(tdx, "again")).wait();
  for (const kind of [KIND.tdx, KIND.snp]) {
    await (await slow.enableTee(kind)).wait();
    await (await slow.acceptTcb(kind, (1 << TCB.upToDate) | (1 << TCB.outOfDate))).wait();
  }
  await (await fast.suspendTee(KIND.snp, "broken")).wait();
  await (await fast.rejectTcb(KIND.tdx, 1 << TCB.outOfDate)).wait();
  await (await slow.allowDevice(KIND.tdx, measured("p1", 32))).wait();
  await (await slow.allowDevice(KIND.tdx, measured("p2", 32))).wait();
  await (await fast.restrictDevices(KIND.tdx)).wait();
  await (await fast.revokeDevice(KIND.tdx, measured("p1", 32))).wait();
  await (await fast.restrictDevices(KIND.snp)).wait();
  await (await slow.unrestrictDevices(KIND.snp)).wait();
  await (await slow.allowKmsImage(kms, "node")).wait();
  await (await slow.publishKmsIdentity(identity)).wait();
  await (await slow.publishKmsIdentity({ ...identity, rootEpoch: 4 })).wait();
  const [first] = await policy.queryFilter(policy.filters.PublishKmsIdentity());
  await (await fast.revokeKmsIdentity(first?.args.identityId ?? "0x", "leaked")).wait();
  await (await fast.revokeKmsImage(imageId(kms), "leaked")).wait();
  await mark();
  await (await slow.setGatewayAppId(HOSTILE)).wait();
  await (await slow.setGatewayAppId("gateway")).wait();
  await (await slow.setAppImplementation(eve.address)).wait();
  await (await fast.pauseRelease(3 * DAY, HOSTILE)).wait();
  await (await slow.extendPause(5 * DAY)).wait();
  await mark();
  await (await slow.resumeRelease()).wait();
  await mark();
}
