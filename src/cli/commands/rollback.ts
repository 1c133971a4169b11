import { rollBackProposal } from "../../governance/execute.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandModule } from "../command.ts";
import { openActing, refusing } from "../proposal-input.ts";
import { stepOf } from "../proposal-options.ts";
import { addActingOptions, reportStanding } from "../standing.ts";

/** `keystead rollback DIR`. */
export const command: CommandModule = {
  register(command, context) {
    addActingOptions(command)
      .option("--step <step>", "rollback or rollback-execute: this step and no other")
      .action(
        context.action((folder: string) =>
          refusing(context, async () => {
            const options = command.opts<OptionValues & Record<string, unknown>>();
            const step = stepOf(options.step);
            return reportStanding(
              context,
              await rollBackProposal(await openActing(context, folder, options, step ?? "rollback"), step),
            );
          }),
        ),
      );
  },
};
