import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { AuthorizeRequest } from "../chain/authorize.ts";
import { fromHex, type Hex, isZero } from "../core/bytes.ts";
import { type DecisionName, TCB_STATUS_NAMES } from "../core/decision.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { encodeImage, IMAGE_KINDS, imageId } from "../core/image.ts";
import type { Decider } from "./decide.ts";
import { type BootInfo, parseBootInfo } from "./dstack-boot.ts";

/*
 * dstack-kms's authorization webhook: dstack-kms verifies a machine and asks here whether it may have keys. The answers are those of
 * contracts/dstack/DstackAuth.sol, from proven state; dstack-boot.ts reads the requests of each release.
 *
 *   GET  /               what this server is: every field is required, or dstack-kms's GetMeta fails
 *   POST /bootAuth/app   may this machine have its app's keys?
 *   POST /bootAuth/kms   may this machine run as a KMS node?
 *
 * Whatever goes wrong denies. Bodies are ASCII and below 512 bytes: dstack-kms cuts them at byte 512 for its log, and panics inside a character.
 */

/** What a webhook is made of. */
export interface DstackWebhookOptions {
  readonly decider: Pick<Decider, "decideAmong" | "dstackFacts" | "serviceExists">;
  /** Told why an answer could not be given; for the log. */
  readonly onFault?: ((error: unknown) => void) | undefined;
  /** Told of every decision; for log and metrics. */
  readonly onDecision?:
    | ((seen: { readonly route: "app" | "kms"; readonly boot: BootInfo; readonly reason: string }) => void)
    | undefined;
}

const MAX_BODY_BYTES = 128 * 1024;
const MAX_ANSWER_BYTES = 512;
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
 * The webhook as a Hono app: at the root, and at `/dstack` with and without a slash at the end. It lets anyone ask: dstack-gate.ts says who may.
 *
 * @example
 * const app = createDstackWebhook({ decider });
 * const answer = await app.request("/bootAuth/app", { method: "POST", body });
 */
export function createDstackWebhook({ decider, onFault, onDecision }: DstackWebhookOptions): Hono {
  const app = new Hono({ strict: false });
  const deny = (context: Context, status: 200 | 400 | 404 | 413 | 500, reason: string, gatewayAppId = "") =>
    send(context, status, { isAllowed: false, gatewayAppId, reason });

  app.get("/", async (context) => {
    try {
      const { chainId, dstackAuth, gatewayAppId, appImplementation } = await decider.dstackFacts();
      // auth-eth's fields. The last is its older name of the one before; the endpoint's address (`ethRpcUrl`, optional) is left out, for it may hold a key.
      const body = {
        status: "ok",
        kmsContractAddr: dstackAuth,
        gatewayAppId,
        chainId,
        appImplementation,
        appAuthImplementation: appImplementation,
      };
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

/** Why not, in DstackAuth's words and by its order of checks; empty if allowed. */
async function judge(
  decider: Pick<Decider, "decideAmong" | "serviceExists">,
  route: "app" | "kms",
  boot: BootInfo,
): Promise<string> {
  if (boot.denied !== undefined) return boot.denied;
  const tcbStatus = tcbStatusOf(boot.tcbStatus);
  if (tcbStatus === undefined) return "TCB status is not known";
  if (isZero(fromHex(boot.composeHash, "composeHash"))) return "Compose hash is missing";
  if (isZero(fromHex(boot.osImageHash, "osImageHash"))) return "OS image hash is missing";
  // One proof, and the same for every request that names the app: invented apps cost no more.
  if (route === "app" && !(await decider.serviceExists(boot.appId))) return REASONS.ServiceUnknown;
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
