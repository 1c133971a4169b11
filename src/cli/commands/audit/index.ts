import { type Command, Option } from "commander";
import { CHAIN_OPTIONS } from "../../chain-input.ts";
import type { CommandContext, CommandModule } from "../../command.ts";
import { registerGovernance } from "./governance.ts";
import { FORMATS, runAudit } from "./run.ts";
import { runWatch } from "./watch.ts";

function register(command: Command, context: CommandContext): void {
  const { io, output, action } = context;
  registerGovernance(command, context);
  command
    .description(
      "Verifies histories from their raw logs, against heads that storage proofs show, and the contracts' state against them.\nExits 0 proven, 1 broken, 2 could not check: not proven (unless --accept-unproven), or an endpoint that does not answer.",
    )
    .argument("[service...]", "services, by id")
    .option("--all", "every service, the policy, and the code behind the proxies")
    .option("--policy [address]", "the policy, at this address or the one of the deployment's record")
    .addOption(new Option("--format <format>", "how to print").choices(FORMATS).default("text"))
    .option("--since <block|date>", "show events from a block, or from a date (2026-11-25, 2026-11-25T10:00Z) on")
    .option("--timeline", "with --all, every subject's state and timeline too")
    .addOption(
      new Option("--at <block>", "the block to read at").choices(["latest", "safe", "finalized"]).default("latest"),
    )
    .option("--checkpoint <file>", "keep what a scan found, and go on from there after an interruption")
    .option("--trust-checkpoint", "believe that the file knows every service")
    .option("--watch", "go on, and print what changes as blocks arrive")
    .option("--interval <seconds>", "with --watch: how often to look", "12")
    .option("--webhook <url>", "with --watch: post changes there, signed with KEYSTEAD_WEBHOOK_SECRET");
  for (const { flags, description } of CHAIN_OPTIONS) {
    if (!flags.startsWith("--policy")) command.option(flags, description);
  }
  command.action(
    action(async (services: readonly string[]) => {
      const options = command.opts();
      return options.watch === true
        ? runWatch(io, services, options, output())
        : runAudit(io, services, options, Date.now() / 1000, output());
    }),
  );
}

/** `keystead audit`. */
export const command: CommandModule = { register };
