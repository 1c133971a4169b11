import { type Interface, keccak256 } from "ethers";
import { fromHex, toHex } from "../core/bytes.ts";
import { checkImage, type ImageUse, imageId } from "../core/image.ts";
import { imageHeader } from "../core/state.ts";
import { type ContractName, INTERFACES } from "./abis.ts";
import { type DecodeContext, recogniseCall } from "./decode.ts";
import { abiEncode, type Call, hex } from "./safe-hash.ts";
import type { Arguments } from "./words.ts";

/** One fact that must hold once an operation is done: what a view answers. */
export interface ExpectedView {
  /** Index of the call that makes it so. */
  readonly call: number;
  readonly to: string;
  readonly contract: ContractName;
  /** Signature of the view. */
  readonly view: string;
  readonly arguments: readonly string[];
  /** The field of the answer; empty where the answer is a single value. */
  readonly field: string;
  /** `equals`: this very value. `contains`, `lacks`: all of these bits, none of these bits. */
  readonly rule: "equals" | "contains" | "lacks";
  /** Numbers in decimal, bytes in lower-case hex, addresses with their checksum. */
  readonly value: string;
}

/** What follows from an operation's calls without looking at a chain. */
export interface ExpectedState {
  readonly format: "keystead.expected-state/1";
  readonly views: readonly ExpectedView[];
  /** Calls whose effect depends on the chain's state or time, and why. */
  readonly underived: readonly { readonly call: number; readonly why: string }[];
}

type Effect = Pick<ExpectedView, "view" | "arguments" | "field" | "rule" | "value">;
type Derivation = readonly Effect[] | string;

const equals = (view: string, args: readonly unknown[], field: string, value: unknown): Effect => ({
  ...{ view, arguments: args.map(String), field },
  ...{ rule: "equals" as const, value: String(value) },
});

/** Entry and ImageRecord of one image: listed (1), with its kind and mask. */
function listed(view: string, before: readonly unknown[], bytes: unknown, use: ImageUse): readonly Effect[] {
  const image = fromHex(String(bytes), "image");
  checkImage(image, use);
  const { kind, mask } = imageHeader(toHex(image));
  const args = [...before, imageId(image)];
  return [equals(view, args, "state", 1), equals(view, args, "kind", kind), equals(view, args, "mask", mask)];
}

const PLATFORM = "platform(bytes32)";
const KMS_IMAGE = "kmsImage(bytes32)";
const IMAGE = "image(bytes20,bytes32)";
const SERVICE = "service(bytes20)";
const RULES = "teeRules(uint8)";

const bits = (a: Arguments, rule: "contains" | "lacks"): readonly Effect[] => [
  { ...equals(RULES, [a.kind], "acceptedTcb", a.statuses), rule },
];

const ROLES: Readonly<Record<string, (a: Arguments) => Derivation>> = {
  grantRole: (a) => [equals("hasRole(bytes32,address)", [a.role, a.account], "", true)],
  revokeRole: (a) => [equals("hasRole(bytes32,address)", [a.role, a.account], "", false)],
  renounceRole: (a) => [equals("hasRole(bytes32,address)", [a.role, a.callerConfirmation], "", false)],
};

const GOVERNED: Readonly<Record<string, (a: Arguments) => Derivation>> = {
  ...ROLES,
  upgradeTo: (a) => [equals("implementation()", [], "", a.newImplementation)],
  upgradeToAndCall: (a) => [equals("implementation()", [], "", a.newImplementation)],
};

/** Why nothing is derived of a call that nobody here knows. */
export const UNKNOWN_CALL = "nobody here knows this call";

const TIME = "it depends on when it is executed";

const EFFECTS: Readonly<Partial<Record<ContractName, Readonly<Record<string, (a: Arguments) => Derivation>>>>> = {
  policy: {
    ...GOVERNED,
    allowPlatform: (a) => listed(PLATFORM, [], a.image, "platform"),
    revokePlatform: (a) => [equals(PLATFORM, [a.platformId], "state", 2)],
    allowKmsImage: (a) => listed(KMS_IMAGE, [], a.image, "sealed"),
    revokeKmsImage: (a) => [equals(KMS_IMAGE, [a.imageId], "state", 2)],
    enableTee: (a) => [equals(RULES, [a.kind], "enabled", true)],
    suspendTee: (a) => [equals(RULES, [a.kind], "enabled", false)],
    acceptTcb: (a) => bits(a, "contains"),
    rejectTcb: (a) => bits(a, "lacks"),
    allowDevice: (a) => [equals("isDeviceListed(uint8,bytes32)", [a.kind, a.deviceId], "", true)],
    revokeDevice: (a) => [equals("isDeviceListed(uint8,bytes32)", [a.kind, a.deviceId], "", false)],
    restrictDevices: (a) => [equals(RULES, [a.kind], "devicesRestricted", true)],
    unrestrictDevices: (a) => [equals(RULES, [a.kind], "devicesRestricted", false)],
    publishKmsIdentity: (a) => [equals("kmsIdentity(bytes32)", [identityId(a.identity)], "", 1)],
    revokeKmsIdentity: (a) => [equals("kmsIdentity(bytes32)", [a.identityId], "", 2)],
    setGatewayAppId: (a) => [equals("gatewayAppId()", [], "", a.newGatewayAppId)],
    setAppImplementation: (a) => [equals("appImplementation()", [], "", a.newAppImplementation)],
    pauseRelease: () => TIME,
    extendPause: () => TIME,
    resumeRelease: () => TIME,
  },
  registry: {
    ...GOVERNED,
    addImageToService: (a) => listed(IMAGE, [a.serviceId], a.newImage, "service"),
    addImagesToService: (a) =>
      (Array.isArray(a.images) ? a.images : []).flatMap((item) => listed(IMAGE, [a.serviceId], item.image, "service")),
    removeImageFromService: (a) => [equals(IMAGE, [a.serviceId, a.imageId], "state", 2)],
    restrictServiceDevices: (a) => [equals(SERVICE, [a.serviceId], "restrictDevices", true)],
    retireImageFromService: (a) => [equals(IMAGE, [a.serviceId, a.imageId], "activeUntil", a.lastMoment)],
    extendNoticePeriod: (a) => [equals(SERVICE, [a.serviceId], "noticePeriod", a.noticePeriod)],
    transferServiceAdmin: (a) => [equals(SERVICE, [a.serviceId], "pendingAdmin", a.pendingAdmin)],
    renounceServiceAdmin: (a) => [
      equals(SERVICE, [a.serviceId], "admin", "0x0000000000000000000000000000000000000000"),
    ],
  },
  timelock: {
    ...ROLES,
    updateDelay: (a) => [equals("getMinDelay()", [], "", a.newDelay)],
    cancel: (a) => [equals("getTimestamp(bytes32)", [a.id], "", 0)],
  },
};

/**
 * A KMS identity's id: keccak256 of its ABI encoding (IPlatformPolicy.publishKmsIdentity).
 *
 * @example
 * identityId([1n, environmentKey, receiptSigner, evidenceHash]);
 */
export function identityId(identity: unknown): string {
  return keccak256(abiEncode(["tuple(uint16,bytes32,address,bytes32)"], [identity]));
}

/**
 * What must hold once the calls are done, as far as it follows from the calls alone. Where two calls set one value, the later one counts.
 *
 * @example
 * deriveExpectedState(calls, { contracts }).views[0]?.view; // "platform(bytes32)"
 */
export function deriveExpectedState(calls: readonly Call[], context: DecodeContext): ExpectedState {
  const views = new Map<string, ExpectedView>();
  const underived: { call: number; why: string }[] = [];
  for (const [index, call] of calls.entries()) {
    const recognised = recogniseCall(call, context);
    if (recognised === undefined || !recognised.certain) {
      underived.push({ call: index, why: UNKNOWN_CALL });
      continue;
    }
    const { contract, name, named } = recognised;
    if (name === "upgradeToAndCall" && named.data !== "0x") {
      underived.push({ call: index, why: "its initialiser does what the new implementation says" });
    }
    const derived = EFFECTS[contract]?.[name]?.(named) ?? "it depends on the state that it meets";
    if (typeof derived === "string") underived.push({ call: index, why: derived });
    else {
      for (const effect of derived) {
        const key = [call.to, effect.view, effect.field, effect.rule, ...effect.arguments];
        if (effect.rule !== "equals") key.push(effect.value);
        views.set(JSON.stringify(key), { call: index, to: call.to, contract, ...effect });
      }
    }
  }
  return { format: "keystead.expected-state/1", views: [...views.values()], underived };
}

/**
 * The calldata that asks an expected view, and whether an answer is as expected.
 *
 * @example
 * const { data, accepts } = askView(view);
 * accepts(await provider.call({ to: view.to, data }));
 */
export function askView(expected: ExpectedView): {
  readonly data: string;
  readonly accepts: (answer: string) => boolean;
} {
  const abi: Interface = INTERFACES[expected.contract];
  return {
    data: hex(abi.encodeFunctionData(expected.view, expected.arguments)),
    accepts: (answer) => {
      const result: unknown = abi.decodeFunctionResult(expected.view, answer)[0];
      const found = expected.field === "" ? result : fieldOf(result, expected.field);
      if (expected.rule === "equals") return String(found) === expected.value;
      const overlap = BigInt(String(found)) & BigInt(expected.value);
      return overlap === (expected.rule === "contains" ? BigInt(expected.value) : 0n);
    },
  };
}

function fieldOf(result: unknown, field: string): unknown {
  if (typeof result !== "object" || result === null || !("toObject" in result)) return undefined;
  return typeof result.toObject === "function" ? result.toObject()[field] : undefined;
}
