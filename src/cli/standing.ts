import type { Command } from "commander";
import type { Standing } from "../governance/execute.ts";
import { formatTime } from "../governance/words.ts";
import type { CommandContext } from "./command.ts";
import { keyOptions, RELAYER_VARIABLE } from "./key-input.ts";
import { type ExitCode, safeText } from "./output.ts";
import { SENDING_OPTIONS } from "./proposal-input.ts";

/** The arguments and options of every command that sends a proposal's transactions. */
export function addActingOptions(command: Command): Command {
  command.argument("<folder>", "a proposal's folder");
  for (const { flags, description } of [...SENDING_OPTIONS, ...keyOptions(RELAYER_VARIABLE)]) {
    command.option(flags, description);
  }
  return command.addHelpText(
    "after",
    "\nLooks at the chain first: what is done is not done again, so it can be run again after any interruption.\nExits 0 where it is done or was done before, 1 where something is wrong, 2 where it could not be done now.",
  );
}

/** Prints where a proposal stands, and gives 1 where an effect of something that was done before does not hold now. */
export function reportStanding(context: CommandContext, standing: Standing): ExitCode {
  const { sent, phase, readyAt, expiresAt, effects, observed } = standing;
  const wrong = effects.filter(({ holds }) => !holds);
  context.output().result(
    {
      format: "keystead.standing/1",
      sent: sent === null ? null : { ...sent, nonce: sent.nonce.toString(), gasUsed: sent.gasUsed.toString() },
      ...{ phase, readyAt: readyAt?.toString() ?? null, expiresAt: expiresAt?.toString() ?? null },
      ...{ effects, observed },
    },
    () =>
      [
        sent === null ? "Nothing to do: the chain has it already." : `${sent.step}: done in ${sent.transactionHash}`,
        ...(readyAt === null ? [] : [`It waits: ready at ${formatTime(readyAt)}.`]),
        ...(expiresAt === null ? [] : [`Execute it before ${formatTime(expiresAt)}: then it expires.`]),
        ...(phase === "expired" ? ["It expired: schedule it again if it is still wanted."] : []),
        ...(phase === "done" ? executed(effects.length, wrong.length, observed) : []),
        ...wrong.map(({ contract, view, field, value }) =>
          safeText(`does not hold now: ${contract}.${view} ${field} = ${value}`),
        ),
      ].join("\n"),
  );
  return wrong.length === 0 ? 0 : 1;
}

/** What was done: each effect that can be counted, and in words what cannot; never a count of nothing. */
function executed(all: number, wrong: number, observed: Standing["observed"]): readonly string[] {
  const said = observed.map(({ sentence }) => safeText(`${sentence}.`));
  if (all > 0) return [`Executed; ${all - wrong} of ${all} effects hold.`, ...said];
  if (said.length > 0) return ["Executed.", ...said];
  return ["Executed; what it did follows from no view that could be asked: see keystead status and the history."];
}
