import { cancelProposal } from "../../governance/execute.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandModule } from "../command.ts";
import { openActing, refusing } from "../proposal-input.ts";
import { addressOption } from "../proposal-options.ts";
import { addActingOptions, reportStanding } from "../standing.ts";

/** `keystead cancel DIR`. */
export const command: CommandModule = {
  register(command, context) {
    addActingOptions(command)
      .option("--safe <address>", "which of the Safes that can cancel it")
      .action(
        context.action((folder: string) =>
          refusing(context, async () => {
            const options = command.opts<OptionValues & Record<string, unknown>>();
            const safe = addressOption(options, "safe");
            return reportStanding(
              context,
              await cancelProposal(await openActing(context, folder, options, "cancel"), safe),
            );
          }),
        ),
      );
  },
};
