import type { ContractTransactionResponse, FunctionFragment } from "ethers";
import type { GovernanceTimelock } from "../../typechain-types/contracts/governance/GovernanceTimelock.ts";
import type { PlatformPolicy } from "../../typechain-types/contracts/policy/PlatformPolicy.ts";
import type { KmsRegistry } from "../../typechain-types/contracts/registry/KmsRegistry.ts";

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

/** Which way a call moves what is trusted. `roles`: it changes who decides. `neither`: it moves nothing, or its arguments decide. */
export type Direction = "loosens" | "tightens" | "upgrades" | "roles" | "neither";

/** What one function means. */
export interface FunctionRecord {
  readonly lane: Lane;
  readonly by: Authority;
  readonly direction: Direction;
}

/** The names of the functions that change state, from a contract's ABI. */
type Changing<T> = Extract<
  {
    [K in keyof T]: T[K] extends { readonly fragment: FunctionFragment }
      ? T[K] extends (...args: infer _Arguments) => Promise<ContractTransactionResponse>
        ? K
        : never
      : never;
  }[keyof T],
  string
>;

/** One record a function: a function of the ABI without one does not compile, and no record is of a function that is not there. */
interface Records {
  readonly policy: Readonly<Record<Changing<PlatformPolicy>, FunctionRecord>>;
  readonly registry: Readonly<Record<Changing<KmsRegistry>, FunctionRecord>>;
  readonly timelock: Readonly<Record<Changing<GovernanceTimelock>, FunctionRecord>>;
}
/** The contracts whose functions have records. */
export type GovernedContractName = keyof Records;

const grant = (by: Authority): FunctionRecord => ({ lane: "grant", by, direction: "loosens" });
const revoke = (by: Authority): FunctionRecord => ({ lane: "revoke", by, direction: "tightens" });
const upgrade = (by: Authority): FunctionRecord => ({ lane: "upgrade", by, direction: "upgrades" });
const admin = (by: Authority, direction: Direction): FunctionRecord => ({ lane: "admin", by, direction });

/** Shared by both proxies (Governed). */
const GOVERNED = {
  upgradeTo: upgrade("governor"),
  upgradeToAndCall: upgrade("governor"),
  grantRole: admin("governor", "roles"),
  revokeRole: admin("governor", "roles"),
  renounceRole: admin("account", "roles"),
  initialize: admin("nobody", "upgrades"),
};

/** Every function that changes state. Tests hold it against the contracts' own refusals, so that no record is a matter of opinion. */
export const FUNCTIONS: Records = {
  policy: {
    ...GOVERNED,
    allowPlatform: grant("governor"),
    enableTee: grant("governor"),
    acceptTcb: grant("governor"),
    allowDevice: grant("governor"),
    unrestrictDevices: grant("governor"),
    allowKmsImage: grant("governor"),
    publishKmsIdentity: grant("governor"),
    resumeRelease: grant("governor"),
    setGatewayAppId: admin("governor", "neither"),
    setAppImplementation: admin("governor", "neither"),
    extendPause: admin("governor", "tightens"),
    revokePlatform: revoke("guardian"),
    suspendTee: revoke("guardian"),
    rejectTcb: revoke("guardian"),
    revokeDevice: revoke("guardian"),
    restrictDevices: revoke("guardian"),
    revokeKmsImage: revoke("guardian"),
    revokeKmsIdentity: revoke("guardian"),
    pauseRelease: revoke("guardian"),
  },
  registry: {
    ...GOVERNED,
    createService: admin("account", "neither"),
    createServiceWithImage: admin("account", "neither"),
    addSecretKeyByImage: admin("account", "neither"),
    addImageToService: grant("account"),
    addImagesToService: grant("account"),
    removeImageFromService: revoke("guardian"),
    removeImagesFromService: revoke("guardian"),
    withdrawPendingSecrets: revoke("guardian"),
    restrictServiceDevices: admin("account", "tightens"),
    retireImageFromService: admin("account", "tightens"),
    rotateServiceKey: admin("account", "neither"),
    publishSealedSecrets: admin("account", "neither"),
    extendNoticePeriod: admin("account", "tightens"),
    setServiceGuardian: admin("account", "roles"),
    setDevice: admin("account", "neither"),
    setRequireUpToDateTcb: admin("account", "neither"),
    transferServiceAdmin: admin("account", "roles"),
    acceptServiceAdmin: admin("account", "roles"),
    renounceServiceAdmin: admin("account", "roles"),
    // opened by the decoder: what counts is the calls inside
    multicall: admin("nobody", "neither"),
  },
  timelock: {
    updateDelay: admin("timelock", "roles"),
    grantRole: admin("timelock", "roles"),
    revokeRole: admin("timelock", "roles"),
    renounceRole: admin("account", "roles"),
    cancel: revoke("guardian"),
    schedule: admin("nobody", "neither"),
    scheduleBatch: admin("nobody", "neither"),
    execute: admin("nobody", "neither"),
    executeBatch: admin("nobody", "neither"),
    onERC721Received: admin("nobody", "neither"),
    onERC1155Received: admin("nobody", "neither"),
    onERC1155BatchReceived: admin("nobody", "neither"),
  },
};

/**
 * What a function means; undefined where the contract has none of that name that changes state.
 *
 * @example
 * functionRecord("registry", "addImageToService")?.direction; // "loosens"
 */
export function functionRecord(contract: GovernedContractName, name: string): FunctionRecord | undefined {
  const records: Readonly<Record<string, FunctionRecord>> = FUNCTIONS[contract];
  return Object.hasOwn(records, name) ? records[name] : undefined;
}
