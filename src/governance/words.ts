import { fromHex } from "../core/bytes.ts";
import { TCB_STATUS_NAMES } from "../core/decision.ts";
import { isKeysteadError } from "../core/errors.ts";
import { decodeImage, formatImage, IMAGE_KINDS, type ImageUse, TEE_KINDS } from "../core/image.ts";
import { quoteText } from "../core/text.ts";
import { ROLE_MATRIX } from "../protocol/roles.ts";
import type { ContractName } from "./abis.ts";

/** TCB statuses by bit position, as texts: what people type is looked up among them. */
export const TCB_STATUSES: readonly string[] = TCB_STATUS_NAMES;

/** Decoded arguments by name, as `Interface.decodeFunctionData` gives them. */
export type Arguments = Readonly<Record<string, unknown>>;

/** What a call does, for people. `noun` is what a headline counts. */
export interface Words {
  readonly noun: string;
  readonly sentence: string;
}

const text = (value: unknown): string => quoteText(String(value));
const raw = (value: unknown): string => String(value);

const kindNames: Readonly<Record<string, string>> = { tdx: "TDX", snp: "SEV-SNP", nitro: "Nitro", dstack: "dstack" };

/**
 * A TEE kind's number as its name.
 *
 * @example
 * kindName(1n); // "TDX"
 */
export function kindName(kind: unknown): string {
  const known = TEE_KINDS.find((name) => BigInt(IMAGE_KINDS[name].byte) === BigInt(String(kind)));
  return known === undefined ? `unknown TEE kind ${raw(kind)}` : (kindNames[known] ?? known);
}

/**
 * A set of TCB statuses as names.
 *
 * @example
 * tcbNames(5n); // "UpToDate, ConfigurationNeeded"
 */
export function tcbNames(set: unknown): string {
  const bits = BigInt(String(set));
  const names: string[] = [];
  for (let bit = 0; bit < 16; bit++) {
    if (((bits >> BigInt(bit)) & 1n) === 1n) names.push(TCB_STATUSES[bit] ?? `unknown bit ${bit}`);
  }
  return names.length === 0 ? "none" : names.join(", ");
}

/**
 * A role's id as its name.
 *
 * @example
 * roleName(`0x${"00".repeat(32)}`); // "DEFAULT_ADMIN_ROLE"
 */
export function roleName(role: unknown): string {
  return ROLE_MATRIX.find((row) => row.id === raw(role))?.role ?? `unknown role ${raw(role)}`;
}

/** A role's id by its name, or undefined. */
export function roleIdByName(name: string): string | undefined {
  return ROLE_MATRIX.find((row) => row.role === name)?.id;
}

/** Canonical image bytes as text, and the kind; or why the contract will refuse them. */
function imageWords(bytes: unknown, use: ImageUse): { readonly kind: string; readonly text: string } {
  try {
    const image = decodeImage(fromHex(raw(bytes), "image"), use);
    return { kind: kindNames[image.kind] ?? image.kind, text: formatImage(image) };
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    return { kind: "REFUSED", text: `NO IMAGE THAT THE CONTRACT TAKES (${error.code}: ${error.message})` };
  }
}

/**
 * Seconds in words, exact.
 *
 * @example
 * formatDuration(172800n); // "48 h"
 */
export function formatDuration(seconds: bigint): string {
  if (seconds === 0n) return "0 s";
  const [unit, name] = (
    [
      [3600n, "h"],
      [60n, "min"],
      [1n, "s"],
    ] as const
  ).find(([size]) => seconds % size === 0n) ?? [1n, "s"];
  return `${seconds / unit} ${name}`;
}

/**
 * Seconds since 1970 as UTC, to the minute downwards; far-away numbers stay numbers.
 *
 * @example
 * formatTime(1764000000n); // "2025-11-24 16:00Z"
 */
export function formatTime(seconds: bigint): string {
  if (seconds > 253_402_300_799n) return `${seconds} s after 1970`;
  return `${new Date(Number(seconds) * 1000).toISOString().slice(0, 16).replace("T", " ")}Z`;
}

const words = (noun: string, sentence: string): Words => ({ noun, sentence });
const seconds = (value: unknown): string => formatDuration(BigInt(raw(value)));
const service = (a: Arguments): string => `service ${raw(a.serviceId)}`;

type Phrase = (a: Arguments) => Words;

const ROLES: Readonly<Record<string, Phrase>> = {
  grantRole: (a) => words("role change", `give ${roleName(a.role)} to ${raw(a.account)}`),
  revokeRole: (a) => words("role change", `take ${roleName(a.role)} from ${raw(a.account)}`),
  renounceRole: (a) => words("role change", `give up ${roleName(a.role)}, held by ${raw(a.callerConfirmation)}`),
};

const GOVERNED: Readonly<Record<string, Phrase>> = {
  ...ROLES,
  upgradeTo: (a) => words("upgrade", `replace this contract's code by ${raw(a.newImplementation)}, with no call`),
  upgradeToAndCall: (a) =>
    words(
      "upgrade",
      `replace this contract's code by ${raw(a.newImplementation)}, ${raw(a.data) === "0x" ? "with no call" : "and make the call below in it"}`,
    ),
};

/** One phrase a function. Tests compare it with the lane table. */
export const PHRASES: Readonly<Record<ContractName, Readonly<Record<string, Phrase>>>> = {
  policy: {
    ...GOVERNED,
    allowPlatform: (a) => {
      const { kind, text: image } = imageWords(a.image, "platform");
      return words(`${kind} platform`, `allow the ${kind} platform ${image}, described as ${text(a.description)}`);
    },
    revokePlatform: (a) => words("platform", `revoke platform ${raw(a.platformId)}, because ${text(a.reason)}`),
    allowKmsImage: (a) => {
      const { kind, text: image } = imageWords(a.image, "sealed");
      return words(
        `${kind} KMS image`,
        `let the ${kind} image ${image} run as a KMS node and receive the root secret, described as ${text(a.description)}`,
      );
    },
    revokeKmsImage: (a) => words("KMS image", `revoke KMS image ${raw(a.imageId)}, because ${text(a.reason)}`),
    enableTee: (a) => words("TEE kind", `let keys be released to ${kindName(a.kind)} machines`),
    suspendTee: (a) => words("TEE kind", `stop every release to ${kindName(a.kind)}, because ${text(a.reason)}`),
    acceptTcb: (a) => words("TCB rule", `accept TCB statuses ${tcbNames(a.statuses)} for ${kindName(a.kind)}`),
    rejectTcb: (a) => words("TCB rule", `reject TCB statuses ${tcbNames(a.statuses)} for ${kindName(a.kind)}`),
    allowDevice: (a) => words("device", `put device ${raw(a.deviceId)} on the list for ${kindName(a.kind)}`),
    revokeDevice: (a) => words("device", `take device ${raw(a.deviceId)} off the list for ${kindName(a.kind)}`),
    restrictDevices: (a) => words("device rule", `let only listed ${kindName(a.kind)} devices count`),
    unrestrictDevices: (a) => words("device rule", `let any ${kindName(a.kind)} device count`),
    publishKmsIdentity: (a) => words("KMS identity", `publish the KMS identity ${identityWords(a.identity)}`),
    revokeKmsIdentity: (a) =>
      words("KMS identity", `declare KMS identity ${raw(a.identityId)} untrusted, because ${text(a.reason)}`),
    setGatewayAppId: (a) => words("dstack gateway", `tell dstack machines to use gateway ${text(a.newGatewayAppId)}`),
    setAppImplementation: (a) =>
      words("dstack app implementation", `tell dstack's tools of app implementation ${raw(a.newAppImplementation)}`),
    pauseRelease: (a) => words("pause", `pause every release for ${seconds(a.duration)}, because ${text(a.reason)}`),
    extendPause: (a) => words("pause", `let the pause in force end ${seconds(a.duration)} from then`),
    resumeRelease: () => words("pause", "lift the pause in force"),
  },
  registry: {
    ...GOVERNED,
    createService: (a) => words("service", `create a service of ${configWords(a.config)} (salt ${raw(a.salt)})`),
    createServiceWithImage: (a) =>
      words(
        "service",
        `create a service of ${configWords(a.config)} (salt ${raw(a.salt)}) with the image ${imageWords(a.firstImage, "service").text}, described as ${text(a.imageDescription)}`,
      ),
    addSecretKeyByImage: (a) =>
      words(
        "final service",
        `create a service that can never change, for the image ${imageWords(a.onlyImage, "sealed").text}, described as ${text(a.description)} (salt ${raw(a.salt)})`,
      ),
    addImageToService: (a) => {
      const { kind, text: image } = imageWords(a.newImage, "service");
      return words(
        `${kind} image`,
        `${service(a)}: list the ${kind} image ${image}, described as ${text(a.description)}; it may get keys after the service's notice period`,
      );
    },
    addImagesToService: (a) => {
      const images = Array.isArray(a.images) ? a.images : [];
      const each = images.map(
        (item) => `${imageWords(item.image, "service").text}, described as ${text(item.description)}`,
      );
      return words(`batch of ${images.length} images`, `${service(a)}: list ${each.join("; and ")}`);
    },
    removeImageFromService: (a) =>
      words("image", `${service(a)}: remove image ${raw(a.imageId)} at once, because ${text(a.reason)}`),
    removeImagesFromService: (a) => {
      const ids = Array.isArray(a.imageIds) ? a.imageIds : [];
      return words(
        `batch of ${ids.length} images`,
        `${service(a)}: remove, at once, those of the images ${ids.map(raw).join(", ")} that are listed, because ${text(a.reason)}`,
      );
    },
    withdrawPendingSecrets: (a) =>
      words(
        "sealed secret",
        `${service(a)}: withdraw all secrets that are not in force yet, because ${text(a.reason)}`,
      ),
    restrictServiceDevices: (a) =>
      words(
        "device",
        `${service(a)}: let images listed from now on count on these devices only: ${(Array.isArray(a.devices) ? a.devices : []).map(raw).join(", ")}`,
      ),
    retireImageFromService: (a) =>
      words(
        "retirement",
        `${service(a)}: image ${raw(a.imageId)} gets keys until ${formatTime(BigInt(raw(a.lastMoment)))} and no longer`,
      ),
    rotateServiceKey: (a) => words("key rotation", `${service(a)}: start the next key epoch`),
    publishSealedSecrets: (a) =>
      words(
        "sealed secret",
        `${service(a)}: publish ${raw(a.ciphertext).length / 2 - 1} sealed bytes as ${text(a.name)}; they count after the service's notice period, at once before its first image`,
      ),
    extendNoticePeriod: (a) =>
      words("notice period", `${service(a)}: lengthen the notice period to ${seconds(a.noticePeriod)}`),
    setServiceGuardian: (a) => words("service guardian", `${service(a)}: make ${raw(a.guardian)} its guardian`),
    setDevice: (a) =>
      words("device", `${service(a)}: ${a.allowed === true ? "allow" : "take away"} device ${raw(a.deviceId)}`),
    setRequireUpToDateTcb: (a) =>
      words(
        "TCB rule",
        `${service(a)}: ${a.required === true ? "accept" : "no longer insist on"} TCB status UpToDate alone`,
      ),
    transferServiceAdmin: (a) =>
      words("admin transfer", `${service(a)}: offer the office of admin to ${raw(a.pendingAdmin)}`),
    acceptServiceAdmin: (a) => words("admin transfer", `${service(a)}: take over the office of admin`),
    renounceServiceAdmin: (a) =>
      words("renunciation", `${service(a)}: give up the office of admin FOR EVER; no further image can be listed`),
    multicall: () => words("batch", "make the calls below, one after the other"),
  },
  timelock: {
    updateDelay: (a) => words("delay change", `make the timelock's minimum delay ${seconds(a.newDelay)}`),
    ...ROLES,
    cancel: (a) => words("veto", `cancel the scheduled operation ${raw(a.id)}`),
    scheduleBatch: (a) => words("scheduling", `schedule the calls below, to be executed after ${seconds(a.delay)}`),
    schedule: (a) => words("scheduling", `schedule the call below, to be executed after ${seconds(a.delay)}`),
    executeBatch: () => words("execution", "execute the scheduled calls below"),
    execute: () => words("execution", "execute the scheduled call below"),
  },
  safe: {
    execTransaction: (a) =>
      words(
        "Safe transaction",
        `let this Safe make the call below${BigInt(raw(a.operation)) === 0n ? "" : " BY DELEGATECALL"}`,
      ),
    addOwnerWithThreshold: (a) =>
      words("owner change", `add ${raw(a.owner)} to this Safe's owners, with threshold ${raw(a._threshold)}`),
    removeOwner: (a) =>
      words("owner change", `take ${raw(a.owner)} from this Safe's owners, with threshold ${raw(a._threshold)}`),
    swapOwner: (a) => words("owner change", `replace owner ${raw(a.oldOwner)} of this Safe by ${raw(a.newOwner)}`),
    changeThreshold: (a) => words("owner change", `make this Safe's threshold ${raw(a._threshold)}`),
    enableModule: (a) => words("Safe module", `let ${raw(a.module)} act for this Safe WITHOUT ANY SIGNATURE`),
    disableModule: (a) => words("Safe module", `no longer let ${raw(a.module)} act for this Safe`),
    setGuard: (a) => words("Safe guard", `let ${raw(a.guard)} judge every transaction of this Safe`),
    setModuleGuard: (a) => words("Safe guard", `let ${raw(a.moduleGuard)} judge every module of this Safe`),
    changeMasterCopy: (a) => words("Safe singleton", `let this Safe run the code of ${raw(a._masterCopy)}`),
    setFallbackHandler: (a) => words("Safe handler", `let ${raw(a.handler)} answer other calls to this Safe`),
    approveHash: (a) => words("approval", `approve the Safe transaction hash ${raw(a.hashToApprove)}`),
  },
  multiSend: { multiSend: () => words("batch", "make the calls below, all of them or none") },
};

function identityWords(identity: unknown): string {
  const of = tupleOf(identity);
  return `of root epoch ${raw(of.rootEpoch)}: environment key ${raw(of.environmentKey)}, receipts signed by ${raw(of.receiptSigner)}, evidence ${raw(of.evidenceHash)}`;
}

function configWords(config: unknown): string {
  const of = tupleOf(config);
  const devices = Array.isArray(of.devices) ? of.devices.length : 0;
  return `admin ${raw(of.admin)}, notice period ${seconds(of.noticePeriod)}, ${devices === 0 ? "any device" : `${devices} devices`}${of.requireUpToDateTcb === true ? ", TCB UpToDate alone" : ""}, described as ${text(of.description)}`;
}

/** A decoded tuple's fields by name. */
function tupleOf(value: unknown): Arguments {
  return typeof value === "object" && value !== null && "toObject" in value && typeof value.toObject === "function"
    ? value.toObject()
    : {};
}
