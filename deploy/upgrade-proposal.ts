import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fetchBlock } from "../src/chain/block.ts";
import { connect } from "../src/chain/client.ts";
import type { Deployment } from "../src/chain/deployment.ts";
import { decodeUtf8 } from "../src/core/bytes.ts";
import { readProposal, writeProposal } from "../src/governance/folder.ts";
import { type Operation, parseOperation, type StartState } from "../src/governance/operation.ts";
import { deriveProposal } from "../src/governance/proposal.ts";
import { buildOperation, type ProposalInput } from "../src/governance/propose.ts";
import { MULTI_SEND_CALL_ONLY, type SafeRef } from "../src/governance/safe-hash.ts";
import { readStartState } from "../src/governance/start-state.ts";
import type { Connection } from "./connection.ts";
import { inspectSafe } from "./safe/account.ts";
import type { PreparedUpgrade, UpgradeSpec } from "./upgrade.ts";

/** Where proposals are kept. */
export const PROPOSALS_FOLDER = join(import.meta.dirname, "proposals");

/** A proposal's folder that was drafted. */
export interface DraftedProposal {
  readonly folder: string;
  readonly operation: Operation;
  /** Files that were not there before. */
  readonly written: readonly string[];
}

/**
 * Drafts the proposal of a prepared upgrade, with the rollback to the implementations that run now: both Safes' nonces and releases, the
 * timelock's delay and the state to start from are read from the chain. Drafted again while nothing has moved, it gives the same bytes.
 *
 * @param options.id `NNN-slug`; default: the next free number with the upgrade's id, or the number that the same upgrade has already
 * @param options.folder where proposals are kept; default `deploy/proposals`
 * @throws KeysteadError `proposal/exists` where the drafted folder holds something else; those of `buildOperation` and `inspectSafe`
 * @example
 * const { folder } = await draftUpgradeProposal(connection, deployment, upgrade, spec);
 */
export async function draftUpgradeProposal(
  connection: Connection,
  deployment: Deployment,
  upgrade: PreparedUpgrade,
  spec: UpgradeSpec,
  options: { readonly id?: string | undefined; readonly folder?: string | undefined } = {},
): Promise<DraftedProposal> {
  const root = options.folder ?? PROPOSALS_FOLDER;
  const id = options.id ?? nextId(root, upgrade.id);
  const folder = join(root, id);
  const earlier = await readEarlier(folder);
  const { contracts, safes } = deployment;
  const input: ProposalInput = {
    id,
    chainId: deployment.chainId,
    contracts: {
      policy: contracts.policy.address,
      registry: contracts.registry.address,
      timelock: contracts.timelock.address,
    },
    parties: {
      governance: earlier?.safe ?? (await safeRefOf(connection, safes.governance.address)),
      guardian: earlier?.cancellers[0] ?? (await safeRefOf(connection, safes.guardian.address)),
      delay: upgrade.operation.delaySeconds,
    },
    intents: [
      upgradeIntent(
        "policy",
        upgrade.policyImplementation.address,
        contracts.policyImplementation.address,
        spec.policyCall,
      ),
      upgradeIntent(
        "registry",
        upgrade.registryImplementation.address,
        contracts.registryImplementation.address,
        spec.registryCall,
      ),
    ],
    time: earlier?.assumptions.time ?? BigInt(Math.floor(Date.now() / 1000)),
  };
  const start = earlier?.assumptions.start ?? (await readStart(connection, buildOperation(input)));
  const operation = buildOperation({ ...input, start });
  const encoder = new TextEncoder();
  const files = new Map(
    [...deriveProposal(operation, new Map())].map(([name, text]) => [name, encoder.encode(text)] as const),
  );
  return { folder, operation, written: await writeProposal(folder, files) };
}

async function readStart(connection: Connection, draft: Operation): Promise<StartState> {
  const client = await connect(connection.provider, { chainId: Number(draft.chainId) });
  return readStartState(client, await fetchBlock(client, "latest"), draft);
}

function upgradeIntent(contract: "policy" | "registry", implementation: string, previous: string, call = "0x") {
  return { intent: "upgrade", arguments: { contract, implementation, previous, call } };
}

async function safeRefOf(connection: Connection, account: string): Promise<SafeRef> {
  const { address, version, nonce } = await inspectSafe(connection, account);
  return { address, version, nonce, multiSend: MULTI_SEND_CALL_ONLY[version][0] ?? "" };
}

/** What an earlier run drafted: its nonces and times stand, for people may be signing them. */
async function readEarlier(folder: string): Promise<Operation | undefined> {
  if (!existsSync(join(folder, "operation.json"))) return undefined;
  const source = (await readProposal(folder)).get("operation.json");
  return source === undefined ? undefined : parseOperation(decodeUtf8(source, "operation.json"));
}

function nextId(root: string, slug: string): string {
  const names = existsSync(root) ? readdirSync(root).filter((name) => /^\d{3}-/.test(name)) : [];
  const same = names.find((name) => name.slice(4) === slug);
  if (same !== undefined) return same;
  const last = names.map((name) => Number(name.slice(0, 3))).reduce((a, b) => Math.max(a, b), 0);
  return `${String(last + 1).padStart(3, "0")}-${slug}`;
}
