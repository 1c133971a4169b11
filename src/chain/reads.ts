import { Interface, type Result } from "ethers/abi";
import { fromHex, type Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { EntryState } from "../core/policy-state.ts";
import type { ImageListing, ServiceView } from "../core/state.ts";
import { KMS_REGISTRY_ABI } from "./abi/kms-registry.ts";
import { PLATFORM_POLICY_ABI } from "./abi/platform-policy.ts";
import { type Block, blockParameter } from "./block.ts";
import type { Client } from "./client.ts";

/* The contracts' views at a block, as plain typed values. A view is an endpoint's word: nothing proves it. */

/** The registry's interface, for encoding and decoding. */
export const REGISTRY = new Interface(KMS_REGISTRY_ABI);
/** The policy's interface, for encoding and decoding. */
export const POLICY = new Interface(PLATFORM_POLICY_ABI);

/** A text read as the bytes that it is (the encoding is the same): ethers refuses text that is no UTF-8. */
const TEXTS = new Interface(["function gatewayAppId() view returns (bytes)"]);

/** What IKmsRegistry.image answers; undefined for an image that was never listed. */
export interface ImageRecordView {
  readonly activeFrom: number;
  readonly activeUntil: number;
  readonly listing: ImageListing;
  readonly kind: number;
  readonly mask: number;
  readonly restrictsDevices: boolean;
}

/** What IPlatformPolicy.platform and kmsImage answer; undefined for one that was never allowed. */
export interface PolicyEntryView {
  readonly state: EntryState;
  readonly kind: number;
  readonly mask: number;
  readonly since: number;
}

/** What IPlatformPolicy answers about itself. */
export interface PolicyView {
  readonly pausedUntil: number;
  readonly gatewayAppId: string;
  readonly appImplementation: Hex;
  readonly policyVersion: number;
  readonly lastUpdateBlock: number;
  readonly historyHead: Hex;
}

/**
 * Calls a view at a block.
 *
 * @throws KeysteadError `chain/not-this-contract` if the answer is not what the interface says; as {@link Client.request}
 * @example
 * const [head] = await callView(client, REGISTRY, registry, block, "historyHead", [serviceId]);
 */
export async function callView(
  client: Client,
  contract: Interface,
  address: Hex,
  block: Block,
  name: string,
  args: readonly unknown[],
): Promise<Result> {
  const data = contract.encodeFunctionData(name, args);
  const answer = await client.request("eth_call", [{ to: address, data }, blockParameter(block.number)]);
  try {
    return contract.decodeFunctionResult(name, String(answer));
  } catch (cause) {
    throw new KeysteadError("chain/not-this-contract", `${address} does not answer ${name} as the interface says`, {
      argument: "address",
      remedy: "Check the address, the chain, and that the contract existed at that block.",
      details: { address, name, block: block.number },
      cause,
    });
  }
}

/**
 * `KmsRegistry.service` at a block.
 *
 * @throws KeysteadError as {@link callView}
 * @example
 * (await readService(client, registry, block, serviceId)).admin;
 */
export async function readService(client: Client, registry: Hex, block: Block, serviceId: Hex): Promise<ServiceView> {
  const [view] = await callView(client, REGISTRY, registry, block, "service", [serviceId]);
  return {
    exists: view.exists,
    upgradeable: view.upgradeable,
    admin: lower(view.admin),
    pendingAdmin: lower(view.pendingAdmin),
    guardian: lower(view.guardian),
    noticePeriod: Number(view.noticePeriod),
    keyEpoch: Number(view.keyEpoch),
    requireUpToDateTcb: view.requireUpToDateTcb,
    restrictDevices: view.restrictDevices,
    tcbRuleEnds: Number(view.tcbRuleEnds),
    nextGuardian: lower(view.nextGuardian),
    nextGuardianFrom: Number(view.nextGuardianFrom),
    formerGuardian: lower(view.formerGuardian),
    formerGuardianUntil: Number(view.formerGuardianUntil),
    rotatedAt: Number(view.rotatedAt),
    sequence: Number(view.sequence),
    lastUpdateBlock: Number(view.lastUpdateBlock),
    historyHead: lower(view.historyHead),
  };
}

/**
 * `KmsRegistry.image` at a block.
 *
 * @throws KeysteadError as {@link callView}
 * @example
 * (await readImage(client, registry, block, serviceId, imageId))?.activeFrom;
 */
export async function readImage(
  client: Client,
  registry: Hex,
  block: Block,
  serviceId: Hex,
  imageId: Hex,
): Promise<ImageRecordView | undefined> {
  const [record] = await callView(client, REGISTRY, registry, block, "image", [serviceId, imageId]);
  if (record.state === 0n) return undefined;
  return {
    activeFrom: Number(record.activeFrom),
    activeUntil: Number(record.activeUntil),
    listing: record.state === 1n ? "listed" : "removed",
    kind: Number(record.kind),
    mask: Number(record.mask),
    restrictsDevices: Boolean(record.restrictsDevices),
  };
}

/**
 * From when on a service lets a device count, at a block; 0 if it is not listed.
 *
 * @throws KeysteadError as {@link callView}
 * @example
 * await readDevice(client, registry, block, serviceId, deviceId);
 */
export async function readDevice(
  client: Client,
  registry: Hex,
  block: Block,
  serviceId: Hex,
  deviceId: Hex,
): Promise<number> {
  const answer = await callView(client, REGISTRY, registry, block, "isDeviceAllowed", [serviceId, deviceId]);
  return Number(answer.allowedFrom);
}

/**
 * The policy's own numbers at a block.
 *
 * @throws KeysteadError as {@link callView}
 * @example
 * (await readPolicy(client, policy, block)).policyVersion;
 */
export async function readPolicy(client: Client, policy: Hex, block: Block): Promise<PolicyView> {
  const ask = async (name: string) => (await callView(client, POLICY, policy, block, name, []))[0];
  const [text] = await callView(client, TEXTS, policy, block, "gatewayAppId", []);
  return {
    pausedUntil: Number(await ask("releasePausedUntil")),
    gatewayAppId: new TextDecoder("utf-8", { ignoreBOM: true }).decode(fromHex(String(text), "gatewayAppId")),
    appImplementation: lower(await ask("appImplementation")),
    policyVersion: Number(await ask("policyVersion")),
    lastUpdateBlock: Number(await ask("lastUpdateBlock")),
    historyHead: lower(await ask("historyHead")),
  };
}

/**
 * `PlatformPolicy.platform` or `kmsImage` at a block.
 *
 * @throws KeysteadError as {@link callView}
 * @example
 * (await readPolicyEntry(client, policy, block, "platform", platformId))?.state;
 */
export async function readPolicyEntry(
  client: Client,
  policy: Hex,
  block: Block,
  list: "platform" | "kmsImage",
  id: Hex,
): Promise<PolicyEntryView | undefined> {
  const [entry] = await callView(client, POLICY, policy, block, list, [id]);
  if (entry.state === 0n) return undefined;
  return {
    state: entry.state === 1n ? "allowed" : "revoked",
    kind: Number(entry.kind),
    mask: Number(entry.mask),
    since: Number(entry.since),
  };
}

/**
 * `PlatformPolicy.kmsIdentity` at a block; undefined for one that was never published.
 *
 * @throws KeysteadError as {@link callView}
 * @example
 * await readKmsIdentity(client, policy, block, identityId); // "allowed"
 */
export async function readKmsIdentity(
  client: Client,
  policy: Hex,
  block: Block,
  identityId: Hex,
): Promise<EntryState | undefined> {
  const [state] = await callView(client, POLICY, policy, block, "kmsIdentity", [identityId]);
  return state === 0n ? undefined : state === 1n ? "allowed" : "revoked";
}

/**
 * `PlatformPolicy.teeRules` at a block, without the devices.
 *
 * @throws KeysteadError as {@link callView}
 * @example
 * (await readTeeRules(client, policy, block, 1)).enabled;
 */
export async function readTeeRules(client: Client, policy: Hex, block: Block, kind: number) {
  const [rules] = await callView(client, POLICY, policy, block, "teeRules", [kind]);
  return {
    enabled: Boolean(rules.enabled),
    devicesRestricted: Boolean(rules.devicesRestricted),
    acceptedTcb: Number(rules.acceptedTcb),
  };
}

/**
 * `PlatformPolicy.isDeviceListed` at a block.
 *
 * @throws KeysteadError as {@link callView}
 * @example
 * await readPolicyDevice(client, policy, block, 1, deviceId);
 */
export async function readPolicyDevice(
  client: Client,
  policy: Hex,
  block: Block,
  kind: number,
  deviceId: Hex,
): Promise<boolean> {
  return Boolean((await callView(client, POLICY, policy, block, "isDeviceListed", [kind, deviceId]))[0]);
}

function lower(value: unknown): Hex {
  return String(value).toLowerCase() as Hex;
}
