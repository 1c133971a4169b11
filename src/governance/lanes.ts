import type { ContractName } from "./abis.ts";

/** What a call does to trust: `grant` widens it, `revoke` narrows it, `upgrade` replaces code, `admin` is everything else. */
export type Lane = "grant" | "revoke" | "upgrade" | "admin";

export const LANES: readonly Lane[] = ["grant", "revoke", "upgrade", "admin"];

/**
 * Who may make a call, and so which way it must go:
 *
 * - `governor`: the timelock alone, so it must be scheduled there.
 * - `guardian`: a Safe at once; it must never wait in the timelock.
 * - `timelock`: the timelock calling itself; it must be scheduled there.
 * - `account`: whoever holds an office of a service or a role; either way, as that account is a Safe or a timelock.
 * - `nobody`: no proposal makes it: initialisers have run, and scheduling is what these tools do around a call.
 */
export type Authority = "governor" | "guardian" | "timelock" | "account" | "nobody";

/** How one function is governed. */
export interface LaneRule {
  readonly lane: Lane;
  readonly by: Authority;
}

const rule = (lane: Lane, by: Authority): LaneRule => ({ lane, by });

/** Shared by both proxies (Governed). */
const GOVERNED: Readonly<Record<string, LaneRule>> = {
  upgradeTo: rule("upgrade", "governor"),
  upgradeToAndCall: rule("upgrade", "governor"),
  grantRole: rule("admin", "governor"),
  revokeRole: rule("admin", "governor"),
  renounceRole: rule("admin", "account"),
  initialize: rule("admin", "nobody"),
};

/**
 * Every function that changes state, with its lane. Tests compare it with the compiled interfaces, so that a function which nobody
 * judged is a failure, and with the contracts' own refusals, so that no lane is a matter of opinion.
 */
export const LANE_RULES: Readonly<
  Record<Exclude<ContractName, "safe" | "multiSend">, Readonly<Record<string, LaneRule>>>
> = {
  policy: {
    ...GOVERNED,
    allowPlatform: rule("grant", "governor"),
    enableTee: rule("grant", "governor"),
    acceptTcb: rule("grant", "governor"),
    allowDevice: rule("grant", "governor"),
    unrestrictDevices: rule("grant", "governor"),
    allowKmsImage: rule("grant", "governor"),
    publishKmsIdentity: rule("grant", "governor"),
    resumeRelease: rule("grant", "governor"),
    setGatewayAppId: rule("admin", "governor"),
    setAppImplementation: rule("admin", "governor"),
    extendPause: rule("admin", "governor"),
    revokePlatform: rule("revoke", "guardian"),
    suspendTee: rule("revoke", "guardian"),
    rejectTcb: rule("revoke", "guardian"),
    revokeDevice: rule("revoke", "guardian"),
    restrictDevices: rule("revoke", "guardian"),
    revokeKmsImage: rule("revoke", "guardian"),
    revokeKmsIdentity: rule("revoke", "guardian"),
    pauseRelease: rule("revoke", "guardian"),
  },
  registry: {
    ...GOVERNED,
    createService: rule("admin", "account"),
    createServiceWithImage: rule("admin", "account"),
    addSecretKeyByImage: rule("admin", "account"),
    addImageToService: rule("grant", "account"),
    addImagesToService: rule("grant", "account"),
    removeImageFromService: rule("revoke", "guardian"),
    removeImagesFromService: rule("revoke", "guardian"),
    withdrawPendingSecrets: rule("revoke", "guardian"),
    restrictServiceDevices: rule("admin", "account"),
    retireImageFromService: rule("admin", "account"),
    rotateServiceKey: rule("admin", "account"),
    publishSealedSecrets: rule("admin", "account"),
    extendNoticePeriod: rule("admin", "account"),
    setServiceGuardian: rule("admin", "account"),
    setDevice: rule("admin", "account"),
    setRequireUpToDateTcb: rule("admin", "account"),
    transferServiceAdmin: rule("admin", "account"),
    acceptServiceAdmin: rule("admin", "account"),
    renounceServiceAdmin: rule("admin", "account"),
    // opened by the decoder: what counts is the calls inside
    multicall: rule("admin", "nobody"),
  },
  timelock: {
    updateDelay: rule("admin", "timelock"),
    grantRole: rule("admin", "timelock"),
    revokeRole: rule("admin", "timelock"),
    renounceRole: rule("admin", "account"),
    cancel: rule("revoke", "guardian"),
    schedule: rule("admin", "nobody"),
    scheduleBatch: rule("admin", "nobody"),
    execute: rule("admin", "nobody"),
    executeBatch: rule("admin", "nobody"),
    onERC721Received: rule("admin", "nobody"),
    onERC1155Received: rule("admin", "nobody"),
    onERC1155BatchReceived: rule("admin", "nobody"),
  },
};
