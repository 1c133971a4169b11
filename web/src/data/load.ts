import { auditSuite, type SuiteAudit } from "../../../src/audit/all.ts";
import { fetchProxyCode, type ProxyCode } from "../../../src/audit/proxy.ts";
import type { ServiceAudit } from "../../../src/audit/result.ts";
import { requirePolicyOf } from "../../../src/audit/standing.ts";
import { auditService } from "../../../src/audit/walk.ts";
import type { Block } from "../../../src/chain/block.ts";
import { type Client, connect, mapLimited } from "../../../src/chain/client.ts";
import type { Hex } from "../../../src/core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../../src/core/errors.ts";
import type { Settings } from "../settings.ts";
import { type Account, fetchAccount, unknownAccount } from "./accounts.ts";
import { fetchGovernance, type Governance } from "./governance.ts";

/** What stands at one block, as far as it was read. */
export interface Standing {
  readonly settings: Settings;
  readonly client: Client;
  readonly block: Block;
  /** Which code the registry runs. */
  readonly registryCode: ProxyCode;
  /** Roles and timelock operations; or why they could not be read; undefined before they were. */
  readonly governance: Governance | KeysteadError | undefined;
  /** Whoever may change something, by address. */
  readonly accounts: ReadonlyMap<Hex, Account>;
  /** This machine's time when the block was read, in milliseconds since 1970. */
  readonly readAt: number;
  /** The service that was asked for by its id, judged alone before the registry was listed. */
  readonly first: ServiceAudit | undefined;
}

/** Everything that was read and verified, at one block. */
export interface Loaded extends Standing {
  readonly suite: SuiteAudit;
  readonly governance: Governance | KeysteadError;
  /** How long it took, in milliseconds. */
  readonly took: number;
}

/** A service that can be shown while the rest is read. */
export interface Early extends Standing {
  readonly first: ServiceAudit;
}

/** What a load tells while it goes on. */
export interface LoadOptions {
  /** The service that is asked for: judged first, with a few calls, and given to `onFirst`. */
  readonly serviceId?: Hex | undefined;
  readonly onProgress: (progress: Progress) => void;
  readonly onFirst?: ((early: Early) => void) | undefined;
}

/** The steps of a load, in order. */
export const STEPS = [
  "Connect to the endpoint",
  "Read and verify the policy's history",
  "Read and verify every service's history",
  "Read roles and timelock operations",
  "Look at who is behind each admin",
] as const;

/** How far a load has come. */
export interface Progress {
  readonly step: number;
  readonly detail: string;
  readonly calls: number;
}

/** Accounts asked about at the same time. */
const AT_ONCE = 8;

/**
 * Reads and verifies a deployment, all of it at one block. A service that is asked for does not wait for the others: its head is proved and its history walked
 * first.
 *
 * @throws KeysteadError `chain/…` when the endpoint can't be asked; `audit/wrong-policy`; a history that does not verify is no error but a verdict
 * @example
 * const { suite } = await load(settings, { onProgress: ({ step, detail }) => console.log(STEPS[step], detail) });
 */
export async function load(settings: Settings, options: LoadOptions): Promise<Loaded> {
  const started = performance.now();
  const { serviceId, onProgress, onFirst } = options;
  const { rpc, witness, registry, policy, fromBlock, chainId } = settings;
  onProgress({ step: 0, detail: "", calls: 0 });
  const client = await connect(rpc, { chainId });
  const witnesses = witness === undefined ? [] : [await connect(witness, { chainId: client.chainId })];
  const tell = (step: number, detail: string) => onProgress({ step, detail, calls: client.calls() });
  await requirePolicyOf(client, registry, policy);
  const early = serviceId === undefined ? undefined : await loadFirst(client, witnesses, settings, serviceId);
  if (early !== undefined) onFirst?.(early);
  let step = 1;
  tell(step, "");
  const suite = await auditSuite(client, {
    ...{ registry, policy, fromBlock, witnesses, at: early?.block.number },
    onProgress: ({ block, toBlock, logs }) => {
      tell(step, `block ${block.toLocaleString("en")} of ${toBlock.toLocaleString("en")}, ${logs} logs`);
      if (block >= toBlock) step = 2;
    },
    onService: (judged, of) => tell(2, `${judged.toLocaleString("en")} of ${of.toLocaleString("en")} services`),
  });
  const { block } = suite;
  const readAt = Date.now();
  // a block that was replaced meanwhile: what was found in it is no longer the question
  const first = early?.block.hash === block.hash ? early.first : undefined;
  tell(3, "");
  const governance = await fetchGovernance(client, block, settings).catch((error: unknown) => toError(error));
  tell(4, "");
  const accounts = await fetchAccounts(client, suite, governance);
  const registryCode = suite.code.registry;
  const standing = { settings, client, block, registryCode, accounts, readAt, first };
  return { ...standing, suite, governance, took: performance.now() - started };
}

/** The service alone. Where that fails (no such service, a history that can't be walked, logs refused by block) the load of everything has to say why. */
async function loadFirst(
  client: Client,
  witnesses: readonly Client[],
  settings: Settings,
  serviceId: Hex,
): Promise<Early | undefined> {
  try {
    const first = await auditService(client, settings.registry, serviceId, { witnesses });
    const readAt = Date.now();
    const { block } = first;
    const registryCode = await fetchProxyCode(client, block, settings.registry);
    return { settings, client, block, registryCode, governance: undefined, accounts: new Map(), readAt, first };
  } catch (error) {
    if (isKeysteadError(error)) return undefined;
    throw error;
  }
}

async function fetchAccounts(
  client: Client,
  suite: SuiteAudit,
  governance: Governance | KeysteadError,
): Promise<ReadonlyMap<Hex, Account>> {
  const addresses = new Set<Hex>();
  for (const { state } of suite.services) {
    if (state === undefined) continue;
    for (const address of [state.admin, state.pendingAdmin, state.guardian, state.nextGuardian]) addresses.add(address);
  }
  if (!(governance instanceof KeysteadError)) {
    for (const { holders } of governance.roles) for (const holder of holders) addresses.add(holder);
  }
  const accounts = await mapLimited([...addresses], AT_ONCE, async (address) => {
    try {
      return await fetchAccount(client, suite.block, address);
    } catch (error) {
      return unknownAccount(address, toError(error));
    }
  });
  return new Map(accounts.map((account) => [account.address, account]));
}

/**
 * Anything caught, as the one error class: what is not an error of ours is a defect of ours.
 *
 * @example
 * load(settings, options).catch((caught) => show(toError(caught)));
 */
export function toError(caught: unknown): KeysteadError {
  if (isKeysteadError(caught)) return caught;
  return new KeysteadError("internal", `an unexpected error: ${caught instanceof Error ? caught.message : caught}`, {
    remedy: "This is a defect of keystead: report it, with what you did.",
    cause: caught,
  });
}
