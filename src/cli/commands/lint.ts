import { BUILD_FOLDER, readBuilds } from "../../governance/build.ts";
import { readProposals } from "../../governance/folder.ts";
import { LINT_RULES, type LintReport, lintDeployment } from "../../governance/lint.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandModule } from "../command.ts";
import { type Output, renderTable, safeText } from "../output.ts";
import { addChainOptions, openProposalChain, PROPOSALS_FOLDER } from "../proposal-chain.ts";
import { readDeploymentFile } from "./decode.ts";

function renderLint(found: LintReport, output: Output): string {
  const { bold, green, red, yellow } = output.colors;
  const unsafe = found.findings.filter(({ severity }) => severity === "unsafe").length;
  const verdict = found.ok
    ? green(`CLEAN: ${found.checked.length} rules hold${found.findings.length > 0 ? ", with warnings" : ""}`)
    : red(`MISCONFIGURED: ${unsafe} of what was found must not stay`);
  const sections = [
    bold(verdict),
    found.findings
      .map(({ severity, code, subject, message, remedy }) => {
        const label = severity === "unsafe" ? red("UNSAFE") : yellow("warning");
        return `${label} ${bold(safeText(subject))}: ${safeText(message)} (${code})\n  ${safeText(remedy)}`;
      })
      .join("\n"),
    `${bold("Roles")}\n${renderTable(found.roles.map(({ contract, role, holders }) => [contract, role, holders.join(", ") || "nobody"]))}`,
    `on block ${found.block.number} (${found.block.hash})${found.basis.proven ? ", code and storage proven" : ""}`,
    found.basis.reasons.length === 0
      ? ""
      : `${bold("Not checked")}\n${found.basis.reasons.map((item) => `- ${item}`).join("\n")}`,
  ];
  return sections.filter((section) => section !== "").join("\n\n");
}

/** `keystead lint`. */
export const command: CommandModule = {
  register(lint, context) {
    lint.requiredOption("--deployment <file>", "the deployment's record, e.g. deploy/deployments/sepolia.json");
    addChainOptions(lint)
      .option("--proposals <folder>", "the proposals, whose lanes are looked at", PROPOSALS_FOLDER)
      .option("--build <folder>", "what was built here, to compare code with", BUILD_FOLDER)
      .addHelpText(
        "after",
        `
Rules:
${Object.entries(LINT_RULES)
  .map(([code, [what]]) => `  ${code.padEnd(32)}${what}`)
  .join("\n")}

Exits 0 where nothing unsafe was found, 1 where something was, 2 where something could not be checked.`,
      )
      .action(
        context.action(async () => {
          const options = lint.opts<OptionValues & { deployment: string; proposals: string; build: string }>();
          const deployment = await readDeploymentFile(context.io, options.deployment);
          const builds = await readBuilds(options.build);
          const { proposals } = await readProposals(options.proposals);
          const { chain, block, witnesses, acceptUnproven } = await openProposalChain(
            context.io,
            options,
            deployment.chainId,
          );
          const operations = new Map([...proposals].map(([name, { operation }]) => [name, operation]));
          const found = await lintDeployment(chain.client, block, {
            ...{ deployment, builds, witnesses, acceptUnproven },
            proposals: operations,
          });
          const output = context.output();
          output.result({ format: "keystead.lint/1", ...found }, () => renderLint(found, output));
          return found.ok ? 0 : 1;
        }),
      );
  },
};
