import { keccak256 } from "ethers";
import { network } from "hardhat";
import { dstackImage, dstackPinnedImage, imageId, measured, PLATFORM, tdxImage } from "../../test/helpers/images.ts";
import { DAY, deployOpenSuite, NOTICE } from "../../test/helpers/suite.ts";
import type { GasRow } from "./table.ts";

/**
 * What dstack's contracts take for the nearest operation: DstackKms and DstackApp at Dstack-TEE/dstack@312dc605, with their own settings
 * (solc 0.8.24, legacy pipeline, 200 runs, cancun) and OpenZeppelin 5.4.0, behind their proxies, on the chain of this benchmark, with
 * random inputs. Each figure is for the same thing as ours: the same number of devices, the same number of images in one transaction.
 */
const DSTACK = {
  /** deployAndRegisterApp without a hash, any device. */
  create: 228_134n,
  /** The same with one compose hash. */
  createWithHash: 254_153n,
  /** The same with one device. */
  createWithHashAndDevice: 260_257n,
  /** An app that nobody can change: created with one hash, then renounceOwnership. */
  createImmutable: 254_153n + 30_446n,
  addComposeHash: 54_611n,
  /** Ten addComposeHash in one transaction of an owner that is a contract, each. */
  addTenEach: 31_432n,
  removeComposeHash: 32_753n,
  /** isAppAllowed of DstackKms, execution only, any device. */
  isAppAllowedExecution: 27_567n,
  /** Its eth_estimateGas: allowed; compose hash not allowed; app not registered. */
  isAppAllowed: 53_275n,
  denyCompose: 51_330n,
  denyUnregistered: 33_754n,
} as const;

/** When the chain of the benchmark begins. */
const CLOCK = "2030-01-01T00:00:00Z";
const DESCRIPTION = "release 4.2.0, built from tag v4.2.0, see the release notes.";
if (DESCRIPTION.length !== 60) throw new Error(`the description has ${DESCRIPTION.length} characters, not 60`);

/**
 * Measures every operation, on a chain of its own.
 *
 * Every figure is the same each time: accounts, addresses and the clock are fixed, for the number of zero bytes in calldata and in an address is part of
 * the price.
 *
 * @throws Error if an answer that the figures are about is not the expected one
 */
export async function measureGas(): Promise<GasRow[]> {
  const connection = await network.create({ network: "default", override: { initialDate: CLOCK } });
  const { ethers, networkHelpers, provider } = connection;
  const { registry, policy, dstackAuth, admin } = await deployOpenSuite(connection);
  const own = registry.connect(admin);
  const config = {
    admin: admin.address,
    noticePeriod: NOTICE,
    requireUpToDateTcb: false,
    devices: [],
    description: DESCRIPTION,
  };
  const salt = (label: string) => keccak256(Buffer.from(label));

  type Sent = Promise<{ wait(): Promise<{ gasUsed: bigint } | null> }>;
  const gas = async (sent: Sent): Promise<bigint> => {
    const receipt = await (await sent).wait();
    if (!receipt) throw new Error("no receipt");
    return receipt.gasUsed;
  };

  // The first service of all pays for the slots of the chain over services; what any later one costs is measured.
  await gas(own.createService(config, salt("first of all")));
  const rows: GasRow[] = [];
  const createEmpty = await gas(own.createService(config, salt("empty")));
  rows.push({ operation: "createService", used: createEmpty, budget: 93_000n, peer: DSTACK.create });
  rows.push({
    operation: "createServiceWithImage, one transaction",
    used: await gas(own.createServiceWithImage(config, salt("service"), tdxImage("v1"), DESCRIPTION)),
    budget: 130_000n,
    peer: DSTACK.createWithHash,
  });
  const withDevice = { ...config, devices: [measured("device", 32)] };
  rows.push({
    operation: "createServiceWithImage, one device",
    used: await gas(own.createServiceWithImage(withDevice, salt("device"), tdxImage("v1"), DESCRIPTION)),
    budget: 165_000n,
    peer: DSTACK.createWithHashAndDevice,
  });
  const id = await registry.serviceIdFor(admin.address, salt("service"));
  rows.push({
    operation: "addSecretKeyByImage",
    used: await gas(own.addSecretKeyByImage(tdxImage("sealed"), [], false, salt("sealed"), DESCRIPTION, "0x")),
    budget: 121_000n,
    peer: DSTACK.createImmutable,
  });
  rows.push({
    operation: "addImageToService, 2nd",
    used: await gas(own.addImageToService(id, tdxImage("v2"), DESCRIPTION)),
    budget: 76_000n,
    peer: DSTACK.addComposeHash,
  });
  rows.push({
    operation: "addImageToService, 3rd",
    used: await gas(own.addImageToService(id, tdxImage("v3"), DESCRIPTION)),
    budget: 76_000n,
    peer: DSTACK.addComposeHash,
  });
  const ten = Array.from({ length: 10 }, (_, i) => tdxImage(`batch ${i}`));
  rows.push({
    operation: "addImagesToService, ten images, each",
    used:
      (await gas(
        own.addImagesToService(
          id,
          ten.map((image) => ({ image, description: DESCRIPTION })),
        ),
      )) / 10n,
    budget: 44_000n,
    peer: DSTACK.addTenEach,
  });
  const calls = Array.from({ length: 10 }, (_, i) =>
    registry.interface.encodeFunctionData("addImageToService", [id, tdxImage(`multicall ${i}`), DESCRIPTION]),
  );
  rows.push({
    operation: "multicall of ten addImageToService, each",
    used: (await gas(own.multicall(calls))) / 10n,
    budget: 50_000n,
    peer: DSTACK.addTenEach,
  });
  rows.push({
    operation: "removeImageFromService",
    used: await gas(own.removeImageFromService(id, imageId(tdxImage("v2")), "")),
    budget: 48_000n,
    peer: DSTACK.removeComposeHash,
  });
  const now = BigInt(await networkHelpers.time.latest());
  rows.push({
    operation: "retireImageFromService",
    used: await gas(own.retireImageFromService(id, imageId(tdxImage("v1")), now + BigInt(9 * DAY))),
    budget: 47_000n,
  });

  const request = {
    serviceId: id,
    imageId: imageId(tdxImage("v1")),
    platformId: imageId(PLATFORM.tdx),
    deviceId: measured("device", 32),
    tcbStatus: 0,
  };
  const allowed = await registry.authorize(request);
  if (allowed !== 1n) throw new Error(`authorize should allow, but decided ${allowed}`);
  rows.push({
    operation: "authorize, execution only, all checks, cold",
    used: await executionGas(
      provider,
      await registry.getAddress(),
      registry.interface.encodeFunctionData("authorize", [request]),
    ),
    budget: 24_000n,
    peer: DSTACK.isAppAllowedExecution,
  });

  await own.createServiceWithImage(config, salt("app"), dstackImage("app"), DESCRIPTION);
  await own.createServiceWithImage(config, salt("pinned"), dstackPinnedImage("app"), DESCRIPTION);
  const pinnedAppId = ethers.getAddress(await registry.serviceIdFor(admin.address, salt("pinned")));
  const appId = ethers.getAddress(await registry.serviceIdFor(admin.address, salt("app")));
  const bootInfo = {
    appId,
    composeHash: measured("compose of app", 32),
    instanceId: ethers.getAddress(measured("instance", 20)),
    deviceId: measured("device", 32),
    mrAggregated: measured("mr_aggregated", 32),
    mrSystem: measured("mr_system", 32),
    osImageHash: measured("os image", 32),
    tcbStatus: "UpToDate",
    advisoryIds: [],
  };
  const asked: readonly [string, object, string, bigint, bigint][] = [
    ["compose + OS, allowed", { appId: pinnedAppId }, "", 53_000n, DSTACK.isAppAllowed],
    ["compose alone, allowed", {}, "", 58_000n, DSTACK.isAppAllowed],
    [
      "compose unknown, denied",
      { composeHash: measured("another compose", 32) },
      "Compose hash not allowed",
      61_500n,
      DSTACK.denyCompose,
    ],
    [
      "app unknown, denied",
      { appId: ethers.getAddress(measured("nobody", 20)) },
      "App not registered",
      41_500n,
      DSTACK.denyUnregistered,
    ],
  ];
  for (const [name, changes, expected, budget, peer] of asked) {
    const boot = { ...bootInfo, ...changes };
    const [, reason] = await dstackAuth.isAppAllowed(boot);
    if (reason !== expected) throw new Error(`isAppAllowed, ${name}: ${reason}`);
    const used = await dstackAuth.isAppAllowed.estimateGas(boot);
    rows.push({ operation: `isAppAllowed, ${name}, eth_estimateGas`, used, budget, peer });
  }

  const size = async (address: string): Promise<bigint> =>
    BigInt((await ethers.provider.getCode(address)).length / 2 - 1);
  const code = { unit: "bytes", budget: 22_000n };
  rows.push({ operation: "KmsRegistry, code", used: await size(await registry.implementation()), ...code });
  rows.push({ operation: "PlatformPolicy, code", used: await size(await policy.implementation()), ...code });
  rows.push({ operation: "DstackAuth, code", used: await size(await dstackAuth.getAddress()), ...code });
  return rows;
}

/** Gas of the execution alone: what a transaction with this call uses, less its intrinsic cost (21,000 and calldata, EIP-2028). */
async function executionGas(
  provider: { request(args: { method: string; params?: unknown[] }): Promise<unknown> },
  to: string,
  data: string,
): Promise<bigint> {
  const [from] = (await provider.request({ method: "eth_accounts" })) as string[];
  const hash = await provider.request({ method: "eth_sendTransaction", params: [{ from, to, data, gas: "0x100000" }] });
  const receipt = (await provider.request({ method: "eth_getTransactionReceipt", params: [hash] })) as {
    gasUsed: string;
  };
  const bytes = Buffer.from(data.slice(2), "hex");
  const calldata = bytes.reduce((sum, byte) => sum + (byte === 0 ? 4 : 16), 0);
  return BigInt(receipt.gasUsed) - 21_000n - BigInt(calldata);
}
