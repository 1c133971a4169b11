import { join } from "node:path";
import type { Command } from "commander";
import { isKeysteadError, KeysteadError } from "../../../core/errors.ts";
import { fetchBlock } from "../../../chain/block.ts";
import { readStartState } from "../../../governance/start-state.ts";
import { writeProposal } from "../../../governance/folder.ts";
import { deriveProposal } from "../../../governance/proposal.ts";
import { buildOperation, type Parties } from "../../../governance/propose.ts";
import { headline } from "../../../governance/report.ts";
import { MULTI_SEND_CALL_ONLY, SAFE_VERSIONS, type SafeRef } from "../../../governance/safe-hash.ts";
import type { SafeFacts } from "../../../rollout/facts.ts";
import { claimsOf } from "../../../rollout/claims.ts";
import { proposalInput } from "../../../rollout/operations.ts";
import type { OptionValues } from "../../chain-input.ts";
import type { CommandContext } from "../../command.ts";
import type { ExitCode } from "../../output.ts";
import { readSources, requireProvenance, startOf } from "../../proposal-files.ts";
import { measuring, openRollout } from "./input.ts";

/** `keystead rollout propose PLAN STEP`: the step's calls from the plan, the Safes' nonces from the chain. */
export function propose(command: Command, context: CommandContext): void {
  command
    .argument("<plan>", "the plan file")
    .argument("<step>", "the step: contracts, measurements or revoke")
    .option("--source <files...>", "files that the new images were measured from, to be kept with the proposal")
    .addHelpText(
      "after",
      `
What the step registers is measured again from the inputs that the plan names; a measurement that is not as the plan has it is refused. It goes into the
proposal's folder, so that REPORT.md and keystead verify show where each register comes from.`,
    )
    .action(context.action((file: string, step: string) => writeStep(context, file, step, command.opts())));
}

async function writeStep(
  context: CommandContext,
  file: string,
  wanted: string,
  options: OptionValues,
): Promise<ExitCode> {
  const { plan, facts, client } = await openRollout(context, file, options);
  if (isKeysteadError(facts.chain)) throw facts.chain;
  const step = plan.steps.find(({ id, proposal }) => id === wanted && proposal !== null);
  if (step === undefined) {
    const known = plan.steps.flatMap(({ id, proposal }) => (proposal === null ? [] : [id]));
    throw new KeysteadError("rollout/no-proposal", `step ${JSON.stringify(wanted)} consists of no proposal`, {
      argument: "step",
      remedy: known.length === 0 ? "This rollout needs none." : `Give one of ${known.join(", ")}.`,
    });
  }
  const parties: Parties = {
    governance: refOf(facts.chain.governance),
    guardian: refOf(facts.chain.guardian),
    delay: BigInt(facts.chain.minDelay),
  };
  const sources = await readSources(context.io, Array.isArray(options.source) ? options.source.map(String) : []);
  const attached = await claimsOf(plan, step, await measuring(context.io), sources);
  const input = { ...proposalInput(plan, step), parties, measurements: attached.claims };
  if (client === undefined) throw new Error("a chain was read without an endpoint");
  const folder = join(plan.inputs.proposals.folder, input.id);
  // what executing it will be refused for, if it moves meanwhile
  const start =
    (await startOf(folder)) ??
    (await readStartState(client, await fetchBlock(client, facts.chain.block), buildOperation(input)));
  const operation = buildOperation({ ...input, start });
  requireProvenance(operation, attached.files);
  const encoder = new TextEncoder();
  const derived = [...deriveProposal(operation, attached.files)];
  const files = new Map([...attached.files, ...derived.map(([name, text]) => [name, encoder.encode(text)] as const)]);
  const written = await writeProposal(folder, files);
  const { line } = headline(operation);
  const record = plan.inputs.deployment.file;
  context
    .output()
    .result({ format: "keystead.rollout-proposal/1", folder, headline: line, written }, () =>
      [
        line,
        "",
        `${folder}: ${written.length === 0 ? "already there, byte for byte" : `wrote ${written.join(", ")}`}`,
        `Next: keystead verify ${folder} --deployment ${record}`,
      ].join("\n"),
    );
  return 0;
}

function refOf({ address, version, nonce }: SafeFacts): SafeRef {
  const known = SAFE_VERSIONS.find((candidate) => candidate === version);
  const multiSend = known === undefined ? undefined : MULTI_SEND_CALL_ONLY[known][0];
  if (known === undefined || multiSend === undefined) {
    throw new KeysteadError("rollout/safe-version", `Safe ${address} is of version ${version}, which is not known`, {
      argument: "safe",
      remedy: `Known are ${SAFE_VERSIONS.join(", ")}.`,
    });
  }
  return { address, version: known, multiSend, nonce };
}
