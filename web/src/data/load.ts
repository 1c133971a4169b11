import { auditSuite, type SuiteAudit } from "../../../src/audit/all.ts";
import { requirePolicyOf } from "../../../src/audit/standing.ts";
import { type Client, connect, mapLimited } from "../../../src/chain/client.ts";
import type { Hex } from "../../../src/core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../../src/core/errors.ts";
import type { Settings } from "../settings.ts";
import { type Account, fetchAccount, unknownAccount } from "./accounts.ts";
import { fetchGovernance, type Governance } from "./governance.ts";

/** Everything that was read and verified, at one block. */
export interface Loaded {
  readonly settings: Settings;
  readonly client: Client;
  readonly suite: SuiteAudit;
  /** Roles and timelock operations; or why they could not be read. */
  readonly governance: Governance | KeysteadError;
  /** Whoever may change something, by address. */
  readonly accounts: ReadonlyMap<Hex, Account>;
  /** This machine's time when the block was read, in milliseconds since 1970. */
  readonly readAt: number;
  /** How long it took, in milliseconds. */
  readonly took: number;
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
 * Reads and verifies a deployment.
 *
 * @throws KeysteadError `chain/…` when the endpoint can't be asked; `audit/wrong-policy`; a history that does not verify is no error but a verdict
 * @example
 * const { suite } = await load(settings, ({ step, detail }) => console.log(STEPS[step], detail));
 */
export async function load(settings: Settings, onProgress: (progress: Progress) => void): Promise<Loaded> {
  const started = performance.now();
  const { rpc, witness, registry, policy, fromBlock, chainId } = settings;
  onProgress({ step: 0, detail: "", calls: 0 });
  const client = await connect(rpc, { chainId });
  const witnesses = witness === undefined ? [] : [await connect(witness, { chainId: client.chainId })];
  const tell = (step: number, detail: string) => onProgress({ step, detail, calls: client.calls() });
  await requirePolicyOf(client, registry, policy);
  let step = 1;
  tell(step, "");
  const suite = await auditSuite(client, {
    ...{ registry, policy, fromBlock, witnesses },
    onProgress: ({ block, toBlock, logs }) => {
      tell(step, `block ${block.toLocaleString("en")} of ${toBlock.toLocaleString("en")}, ${logs} logs`);
      if (block >= toBlock) step = 2;
    },
  });
  const readAt = Date.now();
  tell(3, "");
  const governance = await fetchGovernance(client, suite.block, settings).catch((error: unknown) => toError(error));
  tell(4, "");
  const accounts = await fetchAccounts(client, suite, governance);
  return { settings, client, suite, governance, accounts, readAt, took: performance.now() - started };
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
 * load(settings, tell).catch((caught) => show(toError(caught)));
 */
export function toError(caught: unknown): KeysteadError {
  if (isKeysteadError(caught)) return caught;
  return new KeysteadError("internal", `an unexpected error: ${caught instanceof Error ? caught.message : caught}`, {
    remedy: "This is a defect of keystead: report it, with what you did.",
    cause: caught,
  });
}
