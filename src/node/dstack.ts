import { createHash } from "node:crypto";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { AuthorizeRequest } from "../chain/authorize.ts";
import { fromHex, type Hex, isZero, toHex } from "../core/bytes.ts";
import { type DecisionName, TCB_STATUS_NAMES } from "../core/decision.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { encodeImage, IMAGE_KINDS, imageId } from "../core/image.ts";
import { isJsonArray, isJsonObject, type JsonObject, parseJson } from "../core/json.ts";
import type { Decider } from "./decide.ts";

/*
 * dstack-kms's authorization webhook (dstack, kms/src/main_service/upgrade_authority.rs and verifier/src/types.rs): dstack-kms verifies a machine and asks
 * here whether it may have keys. The answers are those of contracts/dstack/DstackAuth.sol, from proven state.
 *
 *   GET  /               what this server is: every field is required, or dstack-kms's GetMeta fails
 *   POST /bootAuth/app   may this machine have its app's keys?
 *   POST /bootAuth/kms   may this machine run as a KMS node?
 *
 * Whatever goes wrong denies. Bodies are ASCII and below 512 bytes: dstack-kms cuts them at byte 512 for its log, and panics inside a character.
 */

/** The machines that dstack-kms knows. */
export const TEE_VARIANTS = [
  "dstack-tdx",
  "dstack-gcp-tdx",
  "dstack-nitro-enclave",
  "dstack-amd-sev-snp",
  "dstack-aws-nitro-tpm",
] as const;

/** A machine as dstack-kms describes it, checked. Empty hashes are zeros, as DstackAuth takes them. */
export interface BootInfo {
  readonly teeVariant: (typeof TEE_VARIANTS)[number];
  readonly appId: Hex;
  readonly composeHash: Hex;
  readonly deviceId: Hex;
  readonly mrAggregated: Hex;
  readonly mrSystem: Hex;
  readonly osImageHash: Hex;
  readonly tcbStatus: string;
}

/** What a webhook is made of. */
export interface DstackWebhookOptions {
  readonly decider: Pick<Decider, "decideAmong" | "dstackFacts">;
  /** Told why an answer could not be given; for the log. */
  readonly onFault?: ((error: unknown) => void) | undefined;
  /** Told of every decision; for log and metrics. */
  readonly onDecision?:
    | ((seen: { readonly route: "app" | "kms"; readonly boot: BootInfo; readonly reason: string }) => void)
    | undefined;
}

const MAX_BODY_BYTES = 128 * 1024;
const MAX_ANSWER_BYTES = 512;
/** auth-eth's limits. */
const MAX_TCB_STATUS = 128;
const MAX_ADVISORIES = 128;
const MAX_ADVISORY = 256;
const MAX_KEY_PROVIDER_BYTES = 16 * 1024;

// Masks of an image of kind dstack, in the order in which DstackAuth tries them: every one names compose_hash (2).
const OS_IMAGE_HASH = 1;
const MR_AGGREGATED = 4;
const MR_SYSTEM = 8;
const APP_MASKS = [2, 3, 6, 7, 10, 11, 14, 15] as const;
const KMS_MASKS = [3, 6, 7, 10, 11, 14, 15] as const;

/** DstackAuth's sentences. Where dstack has one for the case, it is dstack's. */
const REASONS: Readonly<Record<DecisionName, string>> = {
  Allowed: "",
  ServiceUnknown: "App not registered",
  ImageUnknown: "Compose hash not allowed",
  ImageRemoved: "Compose hash was removed",
  ImagePending: "Compose hash is inside its notice period",
  ImageRetired: "Compose hash is retired",
  ServiceTcbNotUpToDate: "TCB status is not up to date",
  ServiceDeviceNotAllowed: "Device not allowed",
  ReleasePaused: "Key release is paused",
  TeeSuspended: "TEE kind is not enabled",
  TcbNotAccepted: "TCB status is not accepted",
  PlatformNotAllowed: "OS image is not allowed",
  PlatformKindMismatch: "OS image is of another TEE kind",
  DeviceNotAllowed: "Device is not allowed by the platform policy",
  KmsImageNotAllowed: "KMS image is not allowed",
  PolicyUnavailable: "Platform policy did not answer",
};

const INVALID = "invalid authorization request";
const UNAVAILABLE = "authorization backend unavailable";

/**
 * The webhook as a Hono app, to be served on its own port or under a path.
 *
 * @example
 * const app = createDstackWebhook({ decider });
 * const answer = await app.request("/bootAuth/app", { method: "POST", body });
 */
export function createDstackWebhook({ decider, onFault, onDecision }: DstackWebhookOptions): Hono {
  const app = new Hono();
  const deny = (context: Context, status: 200 | 400 | 404 | 413 | 500, reason: string, gatewayAppId = "") =>
    send(context, status, { isAllowed: false, gatewayAppId, reason });

  app.get("/", async (context) => {
    try {
      const { chainId, dstackAuth, gatewayAppId, appImplementation } = await decider.dstackFacts();
      const info = { status: "ok", kmsContractAddr: dstackAuth, gatewayAppId, chainId, appImplementation };
      // auth-eth's word for the contract that answers for apps; here it is the same one.
      const body = { ...info, appAuthImplementation: dstackAuth };
      if (asciiJson(body).length >= MAX_ANSWER_BYTES) throw tooLong();
      return send(context, 200, body);
    } catch (error) {
      onFault?.(error);
      const message = isKeysteadError(error) ? error.code : UNAVAILABLE;
      return send(context, 500, { status: "error", message });
    }
  });

  app.use("/bootAuth/*", bodyLimit({ maxSize: MAX_BODY_BYTES, onError: (context) => deny(context, 413, INVALID) }));
  for (const route of ["app", "kms"] as const) {
    app.post(`/bootAuth/${route}`, async (context) => {
      let boot: BootInfo;
      try {
        boot = parseBootInfo(await context.req.text());
      } catch (error) {
        onFault?.(error);
        return deny(context, 400, INVALID);
      }
      try {
        const { gatewayAppId } = await decider.dstackFacts();
        const reason = await judge(decider, route, boot);
        onDecision?.({ route, boot, reason });
        const answer = { isAllowed: reason === "", gatewayAppId, reason };
        if (asciiJson(answer).length >= MAX_ANSWER_BYTES) throw tooLong();
        return send(context, 200, answer);
      } catch (error) {
        onFault?.(error);
        return deny(context, 200, UNAVAILABLE);
      }
    });
  }
  app.notFound((context) => deny(context, 404, "no such route"));
  app.onError((error, context) => {
    onFault?.(error);
    return deny(context, 500, UNAVAILABLE);
  });
  return app;
}

/**
 * dstack-kms's request, checked: lower-case hex without `0x` at exactly its width (nothing is padded: that would let another value match), every field of
 * dstack's `PolicyBootInfo` there. Fields that a later dstack adds decide nothing.
 *
 * @throws KeysteadError `dstack/bad-request` {field}; those of `parseJson`
 * @example
 * parseBootInfo(body).appId;
 */
export function parseBootInfo(text: string): BootInfo {
  const body = parseJson(text, "body");
  if (!isJsonObject(body)) throw badRequest("body", "is no object");
  const teeVariant = TEE_VARIANTS.find((variant) => variant === body.teeVariant);
  if (teeVariant === undefined) throw badRequest("teeVariant", `is none of ${TEE_VARIANTS.join(", ")}`);
  hexField(body, "instanceId", [0, 20]);
  hexField(body, "keyProviderInfo", undefined);
  const { tcbStatus, advisoryIds } = body;
  if (typeof tcbStatus !== "string" || tcbStatus.length > MAX_TCB_STATUS) throw badRequest("tcbStatus", "is no status");
  const advisories = isJsonArray(advisoryIds) && advisoryIds.length <= MAX_ADVISORIES;
  if (!advisories || !advisoryIds.every((id) => typeof id === "string" && id.length <= MAX_ADVISORY)) {
    throw badRequest("advisoryIds", "is no list of advisories");
  }
  const deviceId = hexField(body, "deviceId", teeVariant === "dstack-amd-sev-snp" ? [32, 64] : [32]);
  return {
    teeVariant,
    appId: toHex(hexField(body, "appId", [20])),
    composeHash: orZero(hexField(body, "composeHash", [0, 32])),
    // A chip id as it is, from a dstack that does not hash it: hashed, it is what dstack and this node call the device elsewhere.
    deviceId: deviceId.length === 64 ? toHex(createHash("sha256").update(deviceId).digest()) : toHex(deviceId),
    mrAggregated: toHex(hexField(body, "mrAggregated", [32])),
    mrSystem: toHex(hexField(body, "mrSystem", [32])),
    osImageHash: orZero(hexField(body, "osImageHash", [0, 32])),
    tcbStatus,
  };
}

/** Why not, in DstackAuth's words and by its order of checks; empty if allowed. */
async function judge(decider: Pick<Decider, "decideAmong">, route: "app" | "kms", boot: BootInfo): Promise<string> {
  const tcbStatus = tcbStatusOf(boot.tcbStatus);
  if (tcbStatus === undefined) return "TCB status is not known";
  if (isZero(fromHex(boot.composeHash, "composeHash"))) return "Compose hash is missing";
  if (isZero(fromHex(boot.osImageHash, "osImageHash"))) return "OS image hash is missing";
  const platformId = dstackImageId({ os_image_hash: boot.osImageHash });
  const requests = (route === "app" ? APP_MASKS : KMS_MASKS).flatMap((mask): readonly AuthorizeRequest[] => {
    const registers = registersOf(mask, boot);
    if (registers === undefined) return [];
    return [
      {
        serviceId: route === "app" ? boot.appId : undefined,
        imageId: dstackImageId(registers),
        platformId,
        deviceId: boot.deviceId,
        tcbStatus,
        kind: IMAGE_KINDS.dstack.byte,
      },
    ];
  });
  const unlisted: DecisionName = route === "app" ? "ImageUnknown" : "KmsImageNotAllowed";
  const { allowed, decision } = await decider.decideAmong(requests, (decisions) => telling(decisions, unlisted));
  if (allowed) return "";
  return REASONS[decision] || "Denied";
}

/** The first candidate that is allowed; otherwise the last that was ever listed; otherwise the first. */
function telling(decisions: readonly DecisionName[], unlisted: DecisionName): number {
  const allowed = decisions.indexOf("Allowed");
  if (allowed !== -1) return allowed;
  return Math.max(
    0,
    decisions.findLastIndex((decision) => decision !== unlisted),
  );
}

/** The registers that a mask names; undefined if dstack-kms left one of them at zero. */
function registersOf(mask: number, boot: BootInfo): Record<string, Hex> | undefined {
  const registers: Record<string, Hex> = { compose_hash: boot.composeHash };
  if (mask & OS_IMAGE_HASH) registers.os_image_hash = boot.osImageHash;
  if (mask & MR_AGGREGATED) registers.mr_aggregated = boot.mrAggregated;
  if (mask & MR_SYSTEM) registers.mr_system = boot.mrSystem;
  return Object.values(registers).some((value) => isZero(fromHex(value, "register"))) ? undefined : registers;
}

function dstackImageId(registers: Readonly<Record<string, Hex>>): Hex {
  return imageId(encodeImage({ kind: "dstack", registers }));
}

/** Intel's name as a bit position. Empty is what dstack reports of a Nitro enclave, which has no TCB levels. */
function tcbStatusOf(name: string): number | undefined {
  if (name === "") return TCB_STATUS_NAMES.indexOf("NotApplicable");
  const position = TCB_STATUS_NAMES.findIndex((known) => known === name && known !== "NotApplicable");
  return position === -1 ? undefined : position;
}

function hexField(body: JsonObject, field: string, widths: readonly number[] | undefined): Uint8Array {
  const text = body[field];
  if (typeof text !== "string" || text.length > 2 * MAX_KEY_PROVIDER_BYTES || !/^(?:[0-9a-f]{2})*$/.test(text)) {
    throw badRequest(field, "is no lower-case hex");
  }
  const bytes = fromHex(text, field);
  if (widths?.includes(bytes.length) === false) throw badRequest(field, `has ${bytes.length} bytes`);
  return bytes;
}

function orZero(bytes: Uint8Array): Hex {
  return bytes.length === 0 ? `0x${"00".repeat(32)}` : toHex(bytes);
}

function badRequest(field: string, why: string): KeysteadError {
  return new KeysteadError("dstack/bad-request", `${field} ${why}`, {
    argument: field,
    remedy: "Send what dstack-kms sends.",
    details: { field },
  });
}

function tooLong(): KeysteadError {
  return new KeysteadError("dstack/answer-too-long", "the gateway app id is too long for dstack-kms", {
    remedy: "Set a shorter gateway app id in the policy.",
  });
}

/** JSON in ASCII: text of governance may hold anything. */
function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function send(context: Context, status: 200 | 400 | 404 | 413 | 500, value: unknown): Response {
  return context.body(asciiJson(value), status, { "content-type": "application/json" });
}
