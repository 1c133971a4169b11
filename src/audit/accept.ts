import type { TeeKind } from "../core/image.ts";
import { IMAGE_KINDS } from "../core/image.ts";
import type { PolicyEntry, PolicyState } from "../core/policy-state.ts";
import type { ImageStanding, PolicyStanding } from "./standing.ts";
import { isoTime } from "./table.ts";

/*
 * Would this image be accepted? In the order and by the names of contracts/types/Decision.sol, as far as the chain alone can tell: what only evidence
 * shows (TCB status, device) is listed as open.
 */

/** Why an image is not accepted. `decision` is the name that the contract has for it. */
export interface Denial {
  readonly decision:
    | "ServiceUnknown"
    | "ImageUnknown"
    | "ImageRemoved"
    | "ImagePending"
    | "ImageRetired"
    | "ReleasePaused"
    | "TeeSuspended"
    | "TcbNotAccepted"
    | "PlatformNotAllowed"
    | "PlatformKindMismatch";
  readonly message: string;
}

/**
 * Why a service does not accept an image; undefined if it does.
 *
 * @param now seconds since 1970: an image whose end has come since the block is retired, one whose start has come is not yet active
 * @example
 * denyByService(standing, Date.now() / 1000)?.decision; // "ImagePending"
 */
export function denyByService({ service, status, since, until }: ImageStanding, now: number): Denial | undefined {
  if (service === undefined) return { decision: "ServiceUnknown", message: "there is no such service" };
  switch (status) {
    case "unknown":
      return { decision: "ImageUnknown", message: "the service never listed this image" };
    case "removed":
      return { decision: "ImageRemoved", message: "the image was removed" };
    case "pending":
      return { decision: "ImagePending", message: `the image is pending until ${isoTime(until)}` };
    case "retired":
      return { decision: "ImageRetired", message: `the image was retired at ${isoTime(since)}` };
    case "retiring":
      return now < until
        ? undefined
        : { decision: "ImageRetired", message: `the image was retired at ${isoTime(until)}` };
    case "active":
      return undefined;
  }
}

/**
 * Why the policy does not let a kind, and a platform where one is asked about, run anything now; undefined if it does.
 *
 * @param kind the number of the image's TEE kind
 * @param platform what the policy has under the platform's id; `{ entry: undefined }` for one that it does not know
 * @param now the block's time, in seconds since 1970
 * @example
 * denyByPolicy(policy.state, 1, { entry: policy.platform(id) }, block.timestamp)?.decision; // "TeeSuspended"
 */
export function denyByPolicy(
  state: PolicyState,
  kind: number,
  platform: { readonly entry: PolicyEntry | undefined } | undefined,
  now: number,
): Denial | undefined {
  if (now < state.pausedUntil) {
    return { decision: "ReleasePaused", message: `all releases are paused until ${isoTime(state.pausedUntil)}` };
  }
  const tee = state.tees.get(kind);
  const name = kindName(kind);
  if (tee?.enabled !== true) return { decision: "TeeSuspended", message: `${name} machines are not enabled` };
  if (tee.acceptedTcb === 0) return { decision: "TcbNotAccepted", message: `no TCB status is accepted of ${name}` };
  if (platform === undefined) return undefined;
  const { entry } = platform;
  if (entry?.state !== "allowed") {
    const message = entry === undefined ? "the policy does not know this platform" : "this platform was revoked";
    return { decision: "PlatformNotAllowed", message };
  }
  if (entry.kind === kind) return undefined;
  return { decision: "PlatformKindMismatch", message: `the platform is of kind ${kindName(entry.kind)}, not ${name}` };
}

/**
 * What still decides about a release and cannot be known here, one sentence each.
 *
 * @example
 * openQuestions(standing, undefined, false);
 */
export function openQuestions(
  standing: ImageStanding | undefined,
  policy: PolicyStanding | undefined,
  platformAsked: boolean,
): readonly string[] {
  const open = ["Whether a machine runs this image, and its TCB status: only its evidence shows that."];
  if (standing?.service?.images.get(standing.imageId)?.restrictsDevices === true) {
    open.push("Whether the machine is one of those that the service lists.");
  }
  if (policy === undefined) open.push("The policy: pauses, the TEE kind, the platform, devices (add --policy).");
  else if (!platformAsked) open.push("Whether the policy allows the machine's platform (add --platform).");
  return open;
}

/** The name of a TEE kind by its number. */
function kindName(kind: number): TeeKind | string {
  return Object.values(IMAGE_KINDS).find(({ byte }) => byte === kind)?.kind ?? `kind ${kind}`;
}
