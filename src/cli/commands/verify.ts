import { basename, resolve } from "node:path";
import { renderCalls } from "../../governance/decode.ts";
import { readProposal } from "../../governance/folder.ts";
import { type Verification, verifyProposal } from "../../governance/verify.ts";
import type { CommandModule } from "../command.ts";
import { type Output, renderTable, safeText } from "../output.ts";
import { callsJson, judgeCalls, readDeploymentFile } from "./decode.ts";

function renderVerification(found: Verification, output: Output): string {
  const { bold, green, red, yellow } = output.colors;
  const verdict = !found.ok
    ? red("MISMATCH: do not sign")
    : found.warnings.length > 0
      ? yellow("DERIVED AS PROPOSED, but read the warnings: not every call is safe or could be read")
      : green("DERIVED AS PROPOSED");
  const sections = [
    `${bold(verdict)}${found.headline === undefined ? "" : `\n${bold(found.headline)}`}`,
    found.differences
      .map(({ field, code, message }) => `${red("differs")} ${safeText(`${field}: ${message} (${code})`)}`)
      .join("\n"),
    safeText(renderCalls(found.calls).join("\n")),
    ...found.transactions.map(({ step, file, safe, hashes }) =>
      [
        bold(`${step} (${file}), Safe ${safe.address}, nonce ${safe.nonce}`),
        renderTable([
          ["domain hash", hashes.domainHash],
          ["message hash", hashes.messageHash],
          ["(safeTxHash)", hashes.safeTxHash],
        ]),
      ].join("\n"),
    ),
    `${bold("Not checked")}\n${found.unchecked.map((item) => `- ${safeText(item)}`).join("\n")}`,
  ];
  return sections.filter((section) => section !== "").join("\n\n");
}

/** `keystead verify DIR`. */
export const command: CommandModule = {
  summary: "derive a proposal's folder again from its operation and compare every byte, without a network",
  register(verify, context) {
    verify
      .argument("<folder>", "a proposal's folder")
      .option("--deployment <file>", "the deployment's record, which the addresses must agree with")
      .addHelpText(
        "after",
        "\nExits 0 where everything is as derived, 1 where something differs or is unsafe, 2 where something could not be checked.",
      )
      .action(
        context.action(async (folder: string) => {
          const { deployment } = verify.opts<{ readonly deployment?: string }>();
          const files = await readProposal(folder);
          const found = verifyProposal(files, {
            folder: basename(resolve(folder)),
            ...(deployment === undefined ? {} : { deployment: await readDeploymentFile(context.io, deployment) }),
          });
          const { ok, differences, headline, warnings, unchecked, transactions } = found;
          const output = context.output();
          output.result(
            {
              format: "keystead.verification/1",
              ...{ ok, headline: headline ?? null, differences, warnings, unchecked },
              calls: callsJson(found.calls),
              transactions: transactions.map(({ file, step, safe, hashes }) => ({
                ...{ file, step, safe: safe.address, nonce: safe.nonce.toString() },
                ...hashes,
              })),
            },
            () => renderVerification(found, output),
          );
          return ok ? judgeCalls(found.calls) : 1;
        }),
      );
  },
};
