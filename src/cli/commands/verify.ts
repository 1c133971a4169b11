import { basename, resolve } from "node:path";
import { KeysteadError } from "../../core/errors.ts";
import { type Difference, replacesCode } from "../../governance/check.ts";
import { type DecodedCall, renderCalls } from "../../governance/decode.ts";
import { readProposal } from "../../governance/folder.ts";
import { type JudgedWarning, stepCalls, verdictOf, warningsFor } from "../../governance/judge.ts";
import type { Operation } from "../../governance/operation.ts";
import { parseNonce } from "../../governance/parameters.ts";
import { type PlannedTransaction, planStep } from "../../governance/transactions.ts";
import { type Verification, verifyProposal } from "../../governance/verify.ts";
import { type ChainVerification, verifyOnChain } from "../../governance/verify-chain.ts";
import { DANGERS } from "../../protocol/dangers.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandModule } from "../command.ts";
import { type ExitCode, type Output, renderTable, safeText } from "../output.ts";
import { BUILD_OPTION, buildsFor, NO_BUILD_OPTION } from "../proposal-builds.ts";
import { addChainOptions, openProposalChain } from "../proposal-chain.ts";
import { addressOption, namesIn, stepOf } from "../proposal-options.ts";
import { callsJson, readDeploymentFile } from "./decode.ts";

/** What sentence and exit code follow from. */
interface Outcome {
  readonly found: Verification;
  readonly chain: ChainVerification | undefined;
  /** Warnings that were not accepted by name. */
  readonly warnings: readonly JudgedWarning[];
  readonly compared: boolean;
  readonly steps: readonly PlannedTransaction[];
  /** The one step that was asked for, taken apart; undefined: all of them. */
  readonly step: readonly DecodedCall[] | undefined;
}

/** 1 where something differs or is unsafe, 2 where something could not be read, else 0: what the first line says too. */
function exitOf({ found, chain, warnings }: Outcome): ExitCode {
  if (!found.ok || chain?.ok === false) return 1;
  return { unsafe: 1, unsure: 2, fine: 0 }[verdictOf(warnings)] as ExitCode;
}

function verdictLine({ found, chain, warnings, compared }: Outcome, output: Output): string {
  const { green, red, yellow } = output.colors;
  if (!found.ok || chain?.ok === false) return red("MISMATCH: do not sign");
  const verdict = verdictOf(warnings);
  const counted = `${warnings.length} ${warnings.length === 1 ? "warning" : "warnings"} below`;
  if (verdict === "unsafe") return red(`UNSAFE: do not sign before somebody explains the ${counted}`);
  if (verdict === "unsure") return yellow(`NOT READ WHOLE: sign only what somebody explains, ${counted}`);
  const agreed = chain === undefined ? "DERIVED AS PROPOSED" : "DERIVED AS PROPOSED, AND THE CHAIN AGREES";
  return compared ? green(agreed) : yellow(`${agreed}; CODE WAS NOT COMPARED with a build`);
}

const renderStep = (output: Output, { step, file, safe, hashes }: PlannedTransaction): string =>
  [
    output.colors.bold(`${step} (${file}), Safe ${safe.address}, nonce ${safe.nonce}`),
    renderTable([
      ["domain hash", hashes.domainHash],
      ["message hash", hashes.messageHash],
      ["(safeTxHash)", hashes.safeTxHash],
    ]),
  ].join("\n");

function renderVerification(outcome: Outcome, output: Output): string {
  const { bold, red, yellow } = output.colors;
  const { found, chain, warnings, step, steps } = outcome;
  const label = { unsafe: red("UNSAFE"), unsure: yellow("UNSURE") };
  const calls = (title: string, list: readonly DecodedCall[]) =>
    list.length === 0 ? "" : `${bold(title)}\n${safeText(renderCalls(list).join("\n"))}`;
  const sections = [
    `${bold(verdictLine(outcome, output))}${found.headline === undefined ? "" : `\n${bold(safeText(found.headline))}`}`,
    [...found.differences, ...(chain?.differences ?? [])]
      .map(({ field, code, message }) => `${red("differs")} ${safeText(`${field}: ${message} (${code})`)}`)
      .join("\n"),
    warnings
      .map(({ severity, where, message, code }) => `${label[severity]} ${safeText(`${where}: ${message} (${code})`)}`)
      .join("\n"),
    step === undefined ? calls("What it does", found.calls) : calls("What this step does", step),
    step === undefined ? calls("What its rollback does", found.rollback) : "",
    ...steps.map((planned) => renderStep(output, planned)),
    chain === undefined
      ? ""
      : `${bold("The chain")}\n${renderTable(chain.facts.map(({ what, found: is }) => [what, is]))}`,
    chain === undefined || chain.notes.length === 0 ? "" : chain.notes.map((line) => `- ${safeText(line)}`).join("\n"),
    `${bold("Not checked")}\n${uncheckedOf(found, chain)
      .map((item) => `- ${safeText(item)}`)
      .join("\n")}`,
  ];
  return sections.filter((section) => section !== "").join("\n\n");
}

/** What neither the folder nor the chain was asked. */
const uncheckedOf = ({ unchecked }: Verification, chain: ChainVerification | undefined): readonly string[] =>
  chain === undefined ? unchecked : [...unchecked.filter((item) => !item.startsWith("the chain:")), ...chain.unchecked];

const chainJson = (chain: ChainVerification | undefined): unknown =>
  chain === undefined
    ? null
    : JSON.parse(JSON.stringify(chain, (_, value) => (typeof value === "bigint" ? value.toString() : value)));

/** The step that was asked for: with the nonce that was given, or the one that the chain says it has now. */
function stepAt(
  operation: Operation,
  options: OptionValues,
  chain: ChainVerification | undefined,
): PlannedTransaction | undefined {
  const name = stepOf(options.step);
  const { nonce } = options;
  if (name === undefined) {
    if (nonce === undefined) return undefined;
    throw new KeysteadError("usage/step", "--nonce is of one step, and which is not said", {
      argument: "step",
      remedy: "Add --step schedule, execute, cancel, rollback or rollback-execute.",
    });
  }
  const safe = addressOption(options, "safe");
  if (typeof nonce === "string") return planStep(operation, name, { safe, nonce: parseNonce(nonce) });
  const step = planStep(operation, name, { safe });
  const now = chain?.transactions.find((one) => one.name === name && one.safe.address === step.safe.address);
  return now ?? step;
}

function verificationJson({ found, chain, warnings, steps, step, compared }: Outcome, exit: ExitCode): object {
  const { headline, differences } = found;
  return {
    format: "keystead.verification/1",
    ...{ ok: found.ok && chain?.ok !== false, verdict: { 0: "fine", 1: "unsafe", 2: "unsure" }[exit] },
    ...{ headline: headline ?? null, differences, warnings, unchecked: uncheckedOf(found, chain) },
    ...{ codeCompared: compared, chain: chainJson(chain) },
    calls: callsJson(step ?? found.calls),
    rollback: callsJson(found.rollback),
    measurements: found.provenance.map(({ call, file, standings }) => ({ call, file, standings })),
    transactions: steps.map(({ file, step: what, safe, hashes }) => ({
      ...{ file, step: what, safe: safe.address, nonce: safe.nonce.toString() },
      ...hashes,
    })),
  };
}

/** `keystead verify DIR`. */
export const command: CommandModule = {
  register(verify, context) {
    verify
      .argument("<folder>", "a proposal's folder")
      .option("--deployment <file>", "the deployment's record, which the addresses must agree with")
      .option("--step <step>", "show this step alone: what signing it does, and its hashes")
      .option("--safe <address>", "which Safe's, where several can take the step, as with cancel")
      .option("--nonce <n>", "with this nonce of the Safe in place of the proposal's")
      .option("--accept <names>", "count these warnings as explained, by the names in brackets; commas between")
      .option("--accept-drift <names>", "although these facts moved, by their names; commas between")
      .option(BUILD_OPTION.flags, BUILD_OPTION.description)
      .option(NO_BUILD_OPTION.flags, NO_BUILD_OPTION.description);
    addChainOptions(verify, true)
      .addHelpText(
        "after",
        `
Without --rpc nothing but the folder is looked at. With it: code of Safes, singletons, timelock, proxies and targets, Safe releases and nonces,
roles, the delay, where the operation and its predecessor stand, what moved since it was proposed. Storage and code are proven where the endpoint
offers proofs; --witness compares with a second endpoint.

An operation and its rollback are judged alike. Kept sources of measurements are measured again. New implementations are compared with this build,
each with the contract that its proxy is of. What somebody can explain is accepted by its name:
${Object.entries(DANGERS)
  .map(([code, what]) => `  ${code.padEnd(24)}${what}`)
  .join("\n")}

Exits 0 where everything is as derived, 1 where something differs or is unsafe, 2 where something could not be checked.`,
      )
      .action(
        context.action(async (folder: string) => {
          const options = verify.opts<OptionValues>();
          const skipped: Difference[] = [];
          const files = await readProposal(folder, (field, message) =>
            skipped.push({ field, code: "verify/unexpected-file", message }),
          );
          const record = typeof options.deployment === "string" ? options.deployment : undefined;
          const deployment = record === undefined ? undefined : await readDeploymentFile(context.io, record);
          const checked = verifyProposal(files, {
            folder: basename(resolve(folder)),
            ...(deployment === undefined ? {} : { deployment }),
          });
          const differences = [...checked.differences, ...skipped];
          const found: Verification = { ...checked, ok: differences.length === 0, differences };
          const { operation } = found;
          let chain: ChainVerification | undefined;
          let compared = true;
          if (options.rpc !== undefined && found.ok && operation !== undefined) {
            const builds = await buildsFor(operation, options);
            compared = builds !== undefined || !replacesCode(operation);
            const at = await openProposalChain(context.io, options, operation.chainId);
            const acceptDrift = namesIn(options.acceptDrift);
            chain = await verifyOnChain(at.chain.client, at.block, operation, {
              ...at,
              deployment,
              builds,
              acceptDrift,
            });
          }
          const planned = operation === undefined ? undefined : stepAt(operation, options, chain);
          const outcome: Outcome = {
            ...{ found, chain, compared },
            warnings: warningsFor(found.warnings, planned?.name, namesIn(options.accept)),
            steps: planned === undefined ? (chain?.transactions ?? found.transactions) : [planned],
            step:
              planned === undefined || operation === undefined ? undefined : stepCalls(operation, planned, deployment),
          };
          const output = context.output();
          const exit = exitOf(outcome);
          output.result(verificationJson(outcome, exit), () => renderVerification(outcome, output));
          return exit;
        }),
      );
  },
};
