import type { Command } from "commander";
import { isoTime } from "../../../audit/table.ts";
import type { Deployment } from "../../../chain/deployment.ts";
import { KeysteadError } from "../../../core/errors.ts";
import { checkDeployedRoles, type ObservedRoles } from "../../../governance/deployment-check.ts";
import { readProposals } from "../../../governance/folder.ts";
import { requireWitnesses } from "../../../governance/proven.ts";
import { type GovernanceStatus, type OperationStatus, readGovernance } from "../../../governance/status.ts";
import { openReader } from "../../../governance/witnessed.ts";
import { formatDuration } from "../../../governance/words.ts";
import { ROLE_MATRIX } from "../../../protocol/roles.ts";
import type { CommandContext } from "../../command.ts";
import { type ExitCode, type Output, renderTable, safeText } from "../../output.ts";
import { addChainOptions, openProposalChain, PROPOSALS_FOLDER } from "../../proposal-chain.ts";
import { readDeploymentFile } from "../decode.ts";

/** What was found about a deployment's governance. */
interface GovernanceAudit {
  readonly deployment: Deployment;
  readonly status: GovernanceStatus;
  readonly roles: ObservedRoles;
  /** Roles that are not as published, one sentence each. */
  readonly deviations: readonly string[];
}

/**
 * Adds `keystead audit governance`: roles, delays, pending and past operations at the timelock, each with its proposal. Exits 0 where roles are as
 * published and nothing is without a proposal, 1 otherwise, 2 where that could not be checked.
 *
 * @example
 * registerGovernance(auditCommand, context);
 */
export function registerGovernance(audit: Command, context: CommandContext): void {
  const command = audit
    .command("governance")
    .summary("roles, delays, and pending and past operations at the timelock, each with its proposal")
    .option("--deployment <file>", "the deployment's record, e.g. deploy/deployments/sepolia.json")
    .option("--proposals <folder>", "where proposals are kept", PROPOSALS_FOLDER);
  addChainOptions(command).action(
    // options that the parent has too are taken by the parent, wherever they stand
    context.action(async () => run(context, command.optsWithGlobals())),
  );
}

async function run(context: CommandContext, options: Readonly<Record<string, unknown>>): Promise<ExitCode> {
  if (typeof options.deployment !== "string") {
    throw new KeysteadError("usage/deployment", "which deployment is not said", {
      argument: "deployment",
      remedy: "Add --deployment FILE, its record: it names the timelock, the Safes and the contracts.",
    });
  }
  const deployment = await readDeploymentFile(context.io, options.deployment);
  const { chain, block, witnesses = [] } = await openProposalChain(context.io, options, deployment.chainId);
  await requireWitnesses(witnesses, block);
  const { proposals } = await readProposals(String(options.proposals));
  const status = await readGovernance(chain.client, block, deployment, proposals);
  const { roles, deviations } = await checkDeployedRoles(openReader(chain.client, block), deployment);
  const found = { deployment, status, roles, deviations: deviations.map(({ message }) => message) };
  const output = context.output();
  output.result(governanceJson(found), () => renderGovernance(found, output));
  return status.ok && deviations.length === 0 ? 0 : 1;
}

function governanceJson({ deployment, status, roles, deviations }: GovernanceAudit) {
  const { safes, contracts } = deployment;
  const document = {
    format: "keystead.governance-audit/1",
    chainId: deployment.chainId,
    timelock: contracts.timelock.address,
    safes: { governance: safes.governance.address, guardian: safes.guardian.address },
    ...status,
    ok: status.ok && deviations.length === 0,
    roles,
    deviations,
    unchecked: [...status.unchecked, ROLES_UNPROVEN],
  };
  return JSON.parse(JSON.stringify(document, (_, value) => (typeof value === "bigint" ? value.toString() : value)));
}

const ROLES_UNPROVEN = "that the endpoint withheld no role event: roles are in no hash chain";

function renderGovernance({ status, roles, deviations }: GovernanceAudit, { colors }: Output): string {
  const { bold, green, red } = colors;
  const held = roles.map(({ contract, role, holders }) => {
    const meaning = ROLE_MATRIX.find((row) => row.contract === contract && row.role === role)?.meaning ?? "";
    return [contract, role, holders.length === 0 ? "nobody" : holders.join(" "), meaning];
  });
  const operations = (title: string, phases: readonly string[]) => {
    const rows = status.operations.filter(({ phase }) => phases.includes(phase)).map(operationRow);
    const table = renderTable(rows, ["operation", "state", "proposal", "scheduled", "next", "calls"]);
    return `${bold(title)}\n${rows.length === 0 ? "none" : table}`;
  };
  const alerts = [
    ...deviations,
    ...status.orphans.map(
      ({ contract, words, block }) => `no proposal explains ${contract}: ${words} (block ${block})`,
    ),
  ];
  const summary =
    alerts.length === 0
      ? green(
          "IN ORDER: roles are as published, and every operation and event belongs to a proposal or to the deployment",
        )
      : red(`ALERT: ${alerts.length} things are not as they should be`);
  return [
    bold(`Governance at block ${status.block.number}, ${isoTime(status.block.timestamp)}`),
    summary,
    alerts.map((alert) => `- ${safeText(alert)}`).join("\n"),
    `${bold("Roles")}\n${renderTable(held, ["contract", "role", "held by", "which"])}`,
    `${bold("Delay")}\nwhat loosens waits ${formatDuration(status.minDelay)} at the timelock; what tightens does not wait`,
    operations("Pending operations", ["waiting", "ready"]),
    operations("Past operations", ["done", "unset", "expired"]),
    `${bold("Not checked")}\n${[...status.unchecked, ROLES_UNPROVEN].map((item) => `- ${item}`).join("\n")}`,
  ]
    .filter((section) => section !== "")
    .join("\n\n");
}

function operationRow(operation: OperationStatus) {
  const { id, phase, proposal, part, scheduled, executed, cancelled, readyAt, expiresAt, dismissal, calls } = operation;
  const state = executed !== undefined ? "executed" : cancelled !== undefined ? "cancelled" : phase;
  const end = executed ?? cancelled;
  const next =
    end !== undefined
      ? `in block ${end.block}`
      : readyAt === undefined
        ? ""
        : phase === "expired"
          ? `expired on ${isoTime(Number(expiresAt))}: schedule it again`
          : `executable from ${isoTime(Number(readyAt))}${expiresAt === undefined ? "" : ` until ${isoTime(Number(expiresAt))}`}`;
  const veto = dismissal === undefined ? "" : `; dismisses ${dismissal.outgoing}, which cannot cancel it`;
  const belongs = proposal === null ? "NONE" : part === "rollback" ? `${proposal}, its way back` : proposal;
  return [id, state, belongs, `in block ${scheduled.block}`, `${next}${veto}`, String(calls.length)];
}
