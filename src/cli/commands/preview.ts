import { KeysteadError } from "../../core/errors.ts";
import { readProposals } from "../../governance/folder.ts";
import { type Pending, type Preview, type PreviewedProposal, previewProposals } from "../../governance/preview.ts";
import { verdictOf } from "../../governance/judge.ts";
import { verifyProposal } from "../../governance/verify.ts";
import { formatTime } from "../../governance/words.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import { ADDRESS_BOOK_OPTION, readNames } from "../names-input.ts";
import { type ExitCode, type Output, renderTable, safeText } from "../output.ts";
import { addChainOptions, openProposalChain, PROPOSALS_FOLDER } from "../proposal-chain.ts";
import { progressOf, refusing } from "../proposal-input.ts";
import { collectTraces, renderTraces, tracesJson } from "../trace-output.ts";
import { readDeploymentFile } from "./decode.ts";
import { exitOf } from "./simulate.ts";

interface Options extends OptionValues {
  readonly deployment: string;
  readonly proposals: string;
  readonly trace?: boolean;
}

const whenOf = ({ phase, readyAt }: PreviewedProposal): string => {
  if (readyAt === null) return phase === "unset" ? "not scheduled, or direct" : `${phase}: to be scheduled again`;
  return `ready ${formatTime(readyAt)}`;
};

function render(found: Preview, traces: string, output: Output): string {
  const { bold, green, red, yellow } = output.colors;
  const count = found.proposals.length;
  const verdict =
    count === 0
      ? yellow("NOTHING IS PENDING")
      : found.ok
        ? green(`ALL ${count} PENDING DO WHAT THEY SAY, one on top of the other`)
        : red("ONE ON TOP OF THE OTHER THEY DO NOT DO WHAT THEY SAY: see which");
  const sections = [
    bold(verdict),
    ...found.proposals.map((one, i) =>
      [
        bold(`${i + 1}. ${one.id} (${whenOf(one)})`),
        ...one.differences.map(
          ({ field, message, code }) => `${red("differs")} ${safeText(`${field}: ${message} (${code})`)}`,
        ),
        one.changes.length === 0
          ? "changes nothing that a view shows"
          : renderTable(one.changes.map(({ subject, before, after }) => [subject, before, "→", after])),
        ...one.steps.map(({ step, gasUsed }) => `${step}: ${gasUsed.toLocaleString("en")} gas`),
        ...one.unjudged.map((item) => yellow(`not judged: ${safeText(item)}`)),
      ].join("\n"),
    ),
    found.done.length === 0 ? "" : `Executed already, not played: ${found.done.join(", ")}`,
    traces,
    `on block ${found.block.number} (${found.block.hash}), ${
      found.basis.proven ? "everything read was proven" : yellow("what was read is not proven")
    }`,
  ];
  return sections.filter((section) => section !== "").join("\n\n");
}

async function preview(context: CommandContext, options: Options): Promise<ExitCode> {
  const { io } = context;
  const output = context.output();
  const deployment = await readDeploymentFile(io, options.deployment);
  const { proposals } = await readProposals(options.proposals);
  const pending = new Map<string, Pending>();
  for (const [id, { files }] of proposals) {
    const { ok, operation, differences, signatures } = verifyProposal(files, { folder: id, deployment });
    if (!ok || operation === undefined) {
      const named = differences.map(({ field, message }) => `${field}: ${message}`).join("; ");
      throw new KeysteadError("proposal/not-verified", `${id} does not verify: ${named}`, {
        argument: "proposals",
        remedy: "Restore it from where it was reviewed: nothing that rests on it can be previewed.",
        details: { id, differences },
      });
    }
    const signedNonces = signatures.filter(({ step }) => step === "execute").map(({ nonce }) => nonce);
    pending.set(id, { operation, signedNonces });
  }
  const names = await readNames(io, options, deployment.chainId, deployment);
  const { block, chain, witnesses, acceptUnproven } = await openProposalChain(io, options, deployment.chainId);
  const { traces, onPlayed } = collectTraces();
  const found = await previewProposals(chain.client, pending, {
    ...{ block, witnesses, acceptUnproven, fromBlock: deployment.block, onProgress: progressOf(io, output) },
    ...(options.trace === true ? { onPlayed } : {}),
  });
  const operations = new Map([...pending].map(([id, { operation }]) => [id, operation]));
  output.result(
    {
      format: "keystead.preview/1",
      ...plain(found),
      ...(options.trace === true ? { traces: tracesJson(traces) } : {}),
    },
    () => render(found, renderTraces(traces, names, operations, output), output),
  );
  const exits = found.proposals.map(({ differences, warnings }) =>
    exitOf({ verdict: differences.length > 0 ? "unsafe" : verdictOf(warnings) }),
  );
  return exits.includes(1) ? 1 : exits.includes(2) ? 2 : 0;
}

const replacer = (_: string, value: unknown) => (typeof value === "bigint" ? value.toString() : value);
const plain = (found: Preview): object => JSON.parse(JSON.stringify(found, replacer));

/** `keystead preview`. */
export const command: CommandModule = {
  register(command, context) {
    command.requiredOption("--deployment <file>", "the deployment's record, e.g. deploy/deployments/sepolia.json");
    addChainOptions(command)
      .option("--proposals <folder>", "where proposals are kept", PROPOSALS_FOLDER)
      .option("--trace", "show every call of the play, with events and gas")
      .option(ADDRESS_BOOK_OPTION.flags, ADDRESS_BOOK_OPTION.description)
      .addHelpText(
        "after",
        `
Plays every pending proposal on one private copy of the chain, each on the state that those before it leave: direct ones first, then what is scheduled
by the time that it is ready, then what is not scheduled yet by its number. Nobody's key is needed.

Exits 0 where each does what it says, 1 where one fails or does something else there, 2 where something could not be checked.`,
      )
      .action(context.action(() => refusing(context, () => preview(context, command.opts<Options>()))));
  },
};
