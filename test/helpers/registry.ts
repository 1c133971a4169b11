import type { HardhatEthersSigner } from "@nomicfoundation/hardhat-ethers/types";
import { keccak256, toBeHex } from "ethers";
import type { KmsRegistry } from "../../typechain-types/index.ts";
import { connection } from "./connection.ts";
import { imageId, PLATFORM, tdxImage } from "./images.ts";
import { deployOpenSuite, NOTICE, type Suite, TCB } from "./suite.ts";

/** KmsRegistry's limits, as its documentation states them. */
export const LIMIT = { text: 512, name: 64, ciphertext: 32_768, devices: 64, notice: 180 * 86_400 } as const;

/** The image states of IKmsRegistry. */
export const STATE = { unknown: 0n, listed: 1n, removed: 2n } as const;

export const V1 = tdxImage("v1");
export const V2 = tdxImage("v2");
export const V3 = tdxImage("v3");
export const NO_SERVICE = toBeHex(0xdead, 20);
export const NO_IMAGE = keccak256("0xdead");

/** 32 bytes that stand for a machine, or for anything else that is told apart by its label. */
export const bytes32 = (label: string): string => keccak256(Buffer.from(label));

export const DEVICE = { one: bytes32("machine one"), two: bytes32("machine two"), other: bytes32("machine three") };

/** Distinct devices. */
export const devices = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => bytes32(`device ${index}`));

/** A service's configuration, with what matters to a test replaced. */
export const config = (admin: string, changes: Partial<Omit<Config, "admin">> = {}): Config => ({
  admin,
  noticePeriod: NOTICE,
  requireUpToDateTcb: false,
  devices: [],
  description: "payments, production",
  ...changes,
});

interface Config {
  readonly admin: string;
  readonly noticePeriod: number;
  readonly requireUpToDateTcb: boolean;
  readonly devices: string[];
  readonly description: string;
}

/** A suite and a service in it, with the registry as its admin uses it. */
export interface Scene extends Suite {
  readonly serviceId: string;
  readonly own: KmsRegistry;
}

/** The suite with everything allowed that a TDX machine needs, and no service. */
export const openSuite = (): Promise<Suite> => deployOpenSuite(connection);

/** An upgradeable service without an image. */
export const bareService = (): Promise<Scene> => scene({});

/** With image V1, active. */
export async function serviceWithImage(): Promise<Scene> {
  const made = await bareService();
  await made.own.addImageToService(made.serviceId, V1, "v1");
  return made;
}

/** With image V1 and a guardian. */
export async function guardedService(): Promise<Scene> {
  const made = await serviceWithImage();
  await made.own.setServiceGuardian(made.serviceId, made.serviceGuardian.address);
  return made;
}

/** With image V1 and device one. */
export async function deviceService(): Promise<Scene> {
  const made = await scene({ devices: [DEVICE.one] });
  await made.own.addImageToService(made.serviceId, V1, "v1");
  return made;
}

/** With image V1 and UpToDate demanded. */
export async function strictService(): Promise<Scene> {
  const made = await scene({ requireUpToDateTcb: true });
  await made.own.addImageToService(made.serviceId, V1, "v1");
  return made;
}

/** With image V1 and no admin any more; its guardian stays. */
export async function renouncedService(): Promise<Scene> {
  const made = await guardedService();
  await made.own.renounceServiceAdmin(made.serviceId);
  return made;
}

/** A sealed service of image V1, created by the deployer. */
export async function sealedService(): Promise<Scene> {
  const suite = await openSuite();
  const salt = bytes32("sealed");
  await suite.registry.addSecretKeyByImage(V1, [], false, salt, "sealed", "0x");
  const serviceId = await suite.registry.serviceIdFor(suite.deployer.address, salt);
  return { ...suite, serviceId, own: suite.registry.connect(suite.admin) };
}

async function scene(changes: Partial<Omit<Config, "admin">>): Promise<Scene> {
  const suite = await openSuite();
  const salt = bytes32("service");
  const own = suite.registry.connect(suite.admin);
  await own.createService(config(suite.admin.address, changes), salt);
  const serviceId = await suite.registry.serviceIdFor(suite.admin.address, salt);
  return { ...suite, serviceId, own };
}

/** A request of an up-to-date TDX machine that runs V1, with what matters to a test replaced. */
export const request = (serviceId: string, changes: Partial<Request> = {}): Request => ({
  serviceId,
  imageId: imageId(V1),
  platformId: imageId(PLATFORM.tdx),
  deviceId: DEVICE.one,
  tcbStatus: TCB.upToDate,
  ...changes,
});

export interface Request {
  readonly serviceId: string;
  readonly imageId: string;
  readonly platformId: string;
  readonly deviceId: string;
  readonly tcbStatus: number;
}

/** The time of the latest block, which is the one that views see. */
export const now = (): Promise<number> => connection.networkHelpers.time.latest();

/** Lets views see exactly this time. */
export const at = (time: number): Promise<void> => connection.networkHelpers.time.increaseTo(time);

/** Lets the next transaction happen at exactly this time. */
export const next = (time: number): Promise<void> => connection.networkHelpers.time.setNextBlockTimestamp(time);

/** Puts several transactions, built in order, into one block; fails if one of them cannot be sent. */
export async function oneBlock(sends: readonly (() => Promise<unknown>)[]): Promise<void> {
  const { provider } = connection;
  await provider.request({ method: "evm_setAutomine", params: [false] });
  try {
    for (const send of sends) await send();
    await provider.request({ method: "evm_mine", params: [] });
  } finally {
    await provider.request({ method: "evm_setAutomine", params: [true] });
  }
}

/** Any of the hands that a test lets try. */
export type Hand = HardhatEthersSigner;
