import type { Part } from "../../governance/life.ts";
import { namesOf } from "../../governance/present/names.ts";
import type { Simulation } from "../../governance/simulate.ts";
import { simulateProposal } from "../../governance/simulate.ts";
import { formatDuration, formatTime } from "../../governance/words.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandModule } from "../command.ts";
import { type ExitCode, type Output, renderTable, safeText } from "../output.ts";
import { BUILD_OPTION, buildsFor, NO_BUILD_OPTION } from "../proposal-builds.ts";
import { addChainOptions, openProposalChain } from "../proposal-chain.ts";
import { openProposal, progressOf } from "../proposal-input.ts";
import { namesIn } from "../proposal-options.ts";
import { collectTraces, renderTraces, tracesJson } from "../trace-output.ts";

const MARKS = { expected: "as expected", follows: "follows", extra: "NOT EXPECTED" } as const;

/** A simulation as text: verdict first, then what changed in the contracts' words, then slot by slot. */
export function renderSimulation(found: Simulation, headline: string | undefined, output: Output): string {
  const { bold, green, red, yellow, dim } = output.colors;
  const verdict = {
    fine: green("DOES WHAT IT SAYS: every expected change happens, no other, and nothing gets worse"),
    unsure: yellow("COULD NOT BE JUDGED WHOLE: not all of what it does is explained"),
    unsafe: red("UNSAFE: it does not do what it says, or leaves something worse; don't sign, don't execute"),
  }[found.verdict];
  const [first, last] = [found.steps[0], found.steps.at(-1)];
  const waited = first === undefined || last === undefined ? 0n : last.timestamp - first.timestamp;
  const sections = [
    `${bold(verdict)}${headline === undefined ? "" : `\n${bold(safeText(headline))}`}`,
    found.differences
      .map(({ field, message, code }) => `${red("differs")} ${safeText(`${field}: ${message} (${code})`)}`)
      .join("\n"),
    found.warnings.map(({ message, code }) => `${yellow("UNSURE")} ${safeText(message)} (${code})`).join("\n"),
    found.changes.length === 0
      ? ""
      : `${bold("What changes")}\n${renderTable(
          found.changes.map(({ subject, before, after, verdict: how }) => [subject, before, "→", after, MARKS[how]]),
        )}`,
    found.slots.length === 0
      ? ""
      : `${bold("Slot by slot")}\n${found.slots
          .map(({ address, kind, slot, before, after, explained }) => {
            const why = explained.length === 0 ? red("NOTHING EXPECTED READS IT") : dim(safeText(explained.join(", ")));
            const values = kind === "code" ? "(code)" : `${before} → ${after}`;
            return `${address} ${kind === "slot" ? slot : kind}\n  ${values}\n  ${why}`;
          })
          .join("\n")}`,
    `${bold("How it was played")}\n${renderTable(
      found.steps.map(({ step, safe, nonce, gasUsed, timestamp }) => [
        ...[step, `Safe ${safe}`, `nonce ${nonce}`, `${gasUsed} gas`, formatTime(timestamp)],
      ]),
    )}\non block ${found.block.number} (${found.block.hash})${waited > 0n ? `, ${formatDuration(waited)} later` : ""}; ${
      found.basis.proven
        ? "everything read was proven against that block's state root"
        : yellow("what was read is not proven")
    }`,
    notJudged(found).length === 0
      ? ""
      : `${bold("Not judged")}\n${notJudged(found)
          .map((item) => `- ${safeText(item)}`)
          .join("\n")}`,
  ];
  return sections.filter((section) => section !== "").join("\n\n");
}

const notJudged = ({ unjudged, basis, linted }: Simulation): readonly string[] => [
  ...unjudged,
  ...basis.reasons,
  ...(linted ? [] : ["whether the state afterwards breaks a rule of lint: name the record with --deployment"]),
];

/** A simulation as JSON output carries it. */
export const simulationJson = (found: Simulation): object =>
  JSON.parse(JSON.stringify(found, (_, value) => (typeof value === "bigint" ? value.toString() : value)));

/** What the sentence says, as an exit code: they cannot disagree. */
const EXITS: Readonly<Record<Simulation["verdict"], ExitCode>> = { fine: 0, unsure: 2, unsafe: 1 };

/** The exit code of a verdict. */
export const exitOf = ({ verdict }: Pick<Simulation, "verdict">): ExitCode => EXITS[verdict];

/** `keystead simulate DIR`. */
export const command: CommandModule = {
  register(simulate, context) {
    simulate
      .argument("<folder>", "a proposal's folder")
      .option("--rollback", "play the way back, after the operation itself")
      .option("--trace", "show every call of the play, with events and gas");
    addChainOptions(simulate)
      .option("--deployment <file>", "the deployment's record, which the addresses must agree with")
      .option("--accept <names>", "play it although of these warnings, by the names in brackets; commas between")
      .option("--accept-drift <names>", "although these facts moved, by their names; commas between")
      .option(BUILD_OPTION.flags, BUILD_OPTION.description)
      .option(NO_BUILD_OPTION.flags, NO_BUILD_OPTION.description)
      .addHelpText(
        "after",
        `
The Safe's and the timelock's own code run: owners approve the transaction (no key is needed on a copy), the Safe schedules it, the clock moves past the
delay, the Safe executes it. Changes are compared both ways with expected-state.json, and the starting state with the one that was proposed on. With --deployment every
rule of lint is applied before and after: what gets worse is unsafe. The rollback is played too.

Exits 0 where it does what it says, 1 where it fails, does something else, leaves something worse, or the starting state moved, 2 where something
could not be checked or explained.`,
      )
      .action(
        context.action(async (folder: string) => {
          const output = context.output();
          const options = simulate.opts<OptionValues>();
          const { operation, deployment, found: verified } = await openProposal(context.io, folder, options);
          const { block, chain, witnesses, acceptUnproven } = await openProposalChain(
            context.io,
            options,
            operation.chainId,
          );
          const part: Part = options.rollback === true ? "rollback" : "operation";
          const signedNonces = verified.signatures.filter(({ step }) => step === "execute").map(({ nonce }) => nonce);
          const { traces, onPlayed } = collectTraces();
          const found = await simulateProposal(chain.client, operation, {
            ...(options.trace === true ? { onPlayed } : {}),
            ...{ block, witnesses, acceptUnproven, part, signedNonces, fromBlock: deployment?.block, deployment },
            ...{ builds: await buildsFor(operation, options), acceptDrift: namesIn(options.acceptDrift) },
            onProgress: progressOf(context.io, output),
          });
          output.result(
            {
              ...{ format: "keystead.simulation/1", headline: verified.headline ?? null, ...simulationJson(found) },
              ...(options.trace === true ? { traces: tracesJson(traces) } : {}),
            },
            () =>
              [
                renderSimulation(found, verified.headline, output),
                ...(traces.length === 0
                  ? []
                  : [renderTraces(traces, namesOf({ deployment }), new Map([[operation.id, operation]]), output)]),
              ].join("\n\n"),
          );
          return exitOf(found);
        }),
      );
  },
};
