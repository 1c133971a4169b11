import { writeFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { decodeUtf8 } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { readProposal } from "../../governance/folder.ts";
import type { Operation } from "../../governance/operation.ts";
import { renderRows } from "../../governance/present/layout.ts";
import { reportComment, reportHtml } from "../../governance/present/report-forms.ts";
import { renderSummary, summarise } from "../../governance/present/summary.ts";
import { readProvenance } from "../../governance/provenance.ts";
import { planTransactions } from "../../governance/transactions.ts";
import { type Verification, verifyProposal } from "../../governance/verify.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import { ADDRESS_BOOK_OPTION, readNames } from "../names-input.ts";
import { type ExitCode, safeText } from "../output.ts";
import { refusing } from "../proposal-input.ts";
import { readDeploymentFile } from "./decode.ts";

/** Why nobody may sign, for people; the first few differences. */
const refusal = ({ differences }: Verification): string =>
  [
    "DON'T SIGN: the folder is not what its operation.json gives",
    ...differences.slice(0, 8).map(({ field, message }) => `- ${field}: ${message}`),
    ...(differences.length > 8 ? [`- and ${differences.length - 8} more`] : []),
  ].join("\n");

const exitOf = ({ ok, warnings }: Verification): ExitCode => {
  if (!ok || warnings.some(({ severity }) => severity === "unsafe")) return 1;
  return warnings.length > 0 ? 2 : 0;
};

async function report(context: CommandContext, folder: string, options: OptionValues): Promise<ExitCode> {
  const { io } = context;
  if (options.html === true && options.comment === true) {
    throw new KeysteadError("usage/format", "a report has one form at a time", {
      argument: "html",
      remedy: "Give --html or --comment.",
    });
  }
  const files = await readProposal(folder);
  const deployment =
    typeof options.deployment === "string" ? await readDeploymentFile(io, options.deployment) : undefined;
  const id = basename(resolve(folder));
  const found = verifyProposal(files, { folder: id, ...(deployment === undefined ? {} : { deployment }) });
  const { operation } = found;
  const source = files.get("REPORT.md");
  if (!found.ok || operation === undefined || source === undefined) return refuse(context, found, id, options);
  const text = decodeUtf8(source, "REPORT.md");
  if (options.html === true) await put(context, reportHtml(text, planTransactions(operation)), options.out);
  else if (options.comment === true) {
    const checked = "`keystead verify`: every file of the folder is derived from `operation.json`, byte for byte.";
    await put(context, reportComment(text, id, checked), options.out);
  } else await screen(context, operation, files, options, found, deployment);
  return exitOf(found);
}

/** A folder that does not verify has no report but that; a comment says so where people look. */
async function refuse(
  context: CommandContext,
  found: Verification,
  id: string,
  options: OptionValues,
): Promise<ExitCode> {
  const why = refusal(found);
  if (options.comment === true) {
    const shown = `<!-- keystead report ${id} -->\n### ${id}\n\n\`\`\`\`text\n${safeText(why).replaceAll("````", "'")}\n\`\`\`\`\n`;
    await put(context, shown, options.out);
    return 1;
  }
  throw new KeysteadError("proposal/not-verified", why.replaceAll("\n", "; "), {
    argument: "folder",
    remedy: "Sign and send nothing. See keystead verify; restore the folder from where it was reviewed.",
    details: { differences: found.differences },
  });
}

async function screen(
  context: CommandContext,
  operation: Operation,
  files: ReadonlyMap<string, Uint8Array>,
  options: OptionValues,
  { warnings }: Verification,
  deployment: Parameters<typeof readNames>[3],
): Promise<void> {
  const names = await readNames(context.io, options, operation.chainId, deployment);
  const summary = summarise(operation, readProvenance(operation, files), names);
  const alarms = warnings.length === 0 ? [] : renderRows([["WARNING", ...warnings.map(({ message }) => message)]]);
  context
    .output()
    .result({ format: "keystead.report/1", id: operation.id, title: operation.title, ...summary, warnings }, () =>
      safeText([operation.id, ...renderSummary(summary, operation.title), ...alarms].join("\n")),
    );
}

async function put({ io }: CommandContext, text: string, out: unknown): Promise<void> {
  if (typeof out !== "string") return io.print(text);
  try {
    await writeFile(out, text);
  } catch (cause) {
    throw new KeysteadError("output/not-written", `${out} cannot be written`, {
      argument: "out",
      remedy: "Check that its folder is there and may be written to.",
      cause,
    });
  }
}

/** `keystead report DIR`. */
export const command: CommandModule = {
  register(command, context) {
    command
      .argument("<folder>", "a proposal's folder")
      .option("--html", "as one self-contained page, printable, with QR codes of the hashes")
      .option("--comment", "as a comment for a pull request (Markdown)")
      .option("--out <file>", "write it there, in place of standard output")
      .option("--deployment <file>", "the deployment's record, which the addresses must agree with")
      .option(ADDRESS_BOOK_OPTION.flags, ADDRESS_BOOK_OPTION.description)
      .addHelpText(
        "after",
        `
Verifies the folder first: every form is made from the REPORT.md that operation.json gives, byte for byte. Without --html or --comment: the first
screen alone, with the names of the record and the address book.

Exits 0 where the folder verifies and every call is known, 1 where it differs or a call is unsafe, 2 where something could not be read.`,
      )
      .action(
        context.action((folder: string) =>
          refusing(context, () => report(context, folder, command.opts<OptionValues>())),
        ),
      );
  },
};
