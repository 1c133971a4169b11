import { keccak256 } from "ethers";
import { network } from "hardhat";
import { dstackImage, imageId, measured, PLATFORM, tdxImage } from "../../test/helpers/images.ts";
import { DAY, deployOpenSuite, NOTICE } from "../../test/helpers/suite.ts";
import type { GasRow } from "./table.ts";

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

  const rows: GasRow[] = [];
  const createEmpty = await gas(own.createService(config, salt("empty")));
  rows.push({ operation: "createService", used: createEmpty, budget: 84_000n, peer: 245_900n });
  rows.push({
    operation: "createServiceWithImage, one transaction",
    used: await gas(own.createServiceWithImage(config, salt("service"), tdxImage("v1"), DESCRIPTION)),
    budget: 120_000n,
    peer: 271_500n,
  });
  const id = await registry.serviceIdFor(admin.address, salt("service"));
  rows.push({
    operation: "addSecretKeyByImage",
    used: await gas(own.addSecretKeyByImage(tdxImage("sealed"), [], false, salt("sealed"), DESCRIPTION, "0x")),
    budget: 110_000n,
    peer: 271_500n,
  });
  rows.push({
    operation: "addImageToService, 2nd",
    used: await gas(own.addImageToService(id, tdxImage("v2"), DESCRIPTION)),
    budget: 76_000n,
    peer: 54_200n,
  });
  rows.push({
    operation: "addImageToService, 3rd",
    used: await gas(own.addImageToService(id, tdxImage("v3"), DESCRIPTION)),
    budget: 76_000n,
    peer: 54_200n,
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
    peer: 54_200n,
  });
  const calls = Array.from({ length: 10 }, (_, i) =>
    registry.interface.encodeFunctionData("addImageToService", [id, tdxImage(`multicall ${i}`), DESCRIPTION]),
  );
  rows.push({
    operation: "multicall of ten addImageToService, each",
    used: (await gas(own.multicall(calls))) / 10n,
    budget: 50_000n,
    peer: 54_200n,
  });
  rows.push({
    operation: "removeImageFromService",
    used: await gas(own.removeImageFromService(id, imageId(tdxImage("v2")), "")),
    budget: 47_000n,
    peer: 32_700n,
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
  });

  await own.createServiceWithImage(config, salt("app"), dstackImage("app"), DESCRIPTION);
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
  const [isAllowed, reason] = await dstackAuth.isAppAllowed(bootInfo);
  if (!isAllowed) throw new Error(`isAppAllowed should allow: ${reason}`);
  rows.push({
    operation: "isAppAllowed through DstackAuth, eth_estimateGas",
    used: await dstackAuth.isAppAllowed.estimateGas(bootInfo),
    budget: 50_500n,
    peer: 53_700n,
  });

  const size = async (address: string): Promise<bigint> =>
    BigInt((await ethers.provider.getCode(address)).length / 2 - 1);
  const code = { unit: "bytes", budget: 18_000n };
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
