import type { Command } from "commander";
import { checkDeployedRoles } from "../../../governance/deployment-check.ts";
import { readProposals } from "../../../governance/folder.ts";
import { requireWitnesses } from "../../../governance/proven.ts";
import { readGovernance } from "../../../governance/status.ts";
import { openReader } from "../../../governance/witnessed.ts";
import { formatDuration, formatTime } from "../../../governance/words.ts";
import type { OptionValues } from "../../chain-input.ts";
import type { CommandContext } from "../../command.ts";
import { renderTable, safeText } from "../../output.ts";
import { openProposalChain, PROPOSALS_FOLDER } from "../../proposal-chain.ts";
import { readDeploymentFile } from "../decode.ts";
import { renderStatus } from "../status.ts";

/** `keystead audit governance`: roles, delays, pending and past operations, each with its proposal. */
export function registerGovernance(parent: Command, { io, output, action }: CommandContext): void {
  const command = parent
    .command("governance")
    .summary("roles, delays, and every operation and event with the proposal that it belongs to")
    .description(
      "Roles against the published matrix, delays, pending and past operations of the timelock, and every event of roles, code, Safes and policy, each tied to its proposal.\nExits 0 where all is as published and proposed, 1 where something is not, 2 where something could not be checked.",
    )
    .option("--proposals <folder>", "where proposals are kept", PROPOSALS_FOLDER);
  command.action(
    action(async () => {
      // the options of a chain are the parent command's
      const options = command.optsWithGlobals<OptionValues & { deployment?: string; proposals: string }>();
      const deployment = await readDeploymentFile(io, options.deployment ?? "");
      const { chain, block, witnesses = [] } = await openProposalChain(io, options, deployment.chainId);
      await requireWitnesses(witnesses, block);
      const { proposals } = await readProposals(options.proposals);
      const found = await readGovernance(chain.client, block, deployment, proposals);
      const { deviations, roles } = await checkDeployedRoles(openReader(chain.client, block), deployment);
      const ok = found.ok && deviations.length === 0;
      const out = output();
      const { bold, red } = out.colors;
      const value = { format: "keystead.governance-audit/1", ...found, ok, roles, deviations };
      const plain = JSON.parse(JSON.stringify(value, (_, item) => (typeof item === "bigint" ? item.toString() : item)));
      out.result(plain, () =>
        [
          renderStatus(found, out),
          `${bold("Roles")}\n${renderTable(roles.map(({ contract, role, holders }) => [contract, role, holders.join(", ") || "nobody"]))}`,
          deviations.map(({ message }) => `${red("not as published")} ${safeText(message)}`).join("\n"),
          found.operations.length === 0
            ? "no operation was ever scheduled"
            : `${bold("Operations")}\n${renderTable(
                found.operations.map(({ id, phase, delay, readyAt, proposal, part, cancelled }) => [
                  id,
                  cancelled === undefined || phase !== "unset" ? phase : "cancelled",
                  `delay ${formatDuration(delay)}`,
                  readyAt === undefined ? "" : formatTime(readyAt),
                  proposal === null ? "NO PROPOSAL" : part === "rollback" ? `${proposal} (rollback)` : proposal,
                ]),
              )}`,
          `${bold("Events")}\n${renderTable(
            found.events.map(({ block: at, contract, words, proposal }) => [
              `${at}`,
              contract,
              words,
              proposal ?? "NO PROPOSAL",
            ]),
          )}`,
        ]
          .filter((section) => section !== "")
          .join("\n\n"),
      );
      return ok ? 0 : 1;
    }),
  );
}
