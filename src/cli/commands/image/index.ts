import { type Command, Option } from "commander";
import { KeysteadError } from "../../../core/errors.ts";
import { asksChain, CHAIN_OPTIONS } from "../../chain-input.ts";
import type { CommandContext, CommandModule } from "../../command.ts";
import { IMAGE_USES } from "../../../core/image.ts";
import { readImage } from "../../image-input.ts";
import { checkOnChain, showOnChain } from "./on-chain.ts";
import { showImage } from "./show.ts";

const ARGUMENT = "the text form, the bytes in hex, a file (- for standard input) with either; with a chain, an id";

function addChainOptions(command: Command): Command {
  command.option("--service <id>", "the service under which to look");
  for (const { flags, description } of CHAIN_OPTIONS) command.option(flags, description);
  return command;
}

function register(image: Command, context: CommandContext): void {
  const show = addChainOptions(
    image
      .command("show")
      .summary("decode an image; with a chain, say where it stands under a service, or who knows it")
      .argument("<image>", ARGUMENT),
  );
  show.action(
    context.action(async (given: string) =>
      asksChain(show.opts())
        ? showOnChain(context.io, given, show.opts(), context.output())
        : showImage(await readImage(context.io, given), IMAGE_USES, context.output()),
    ),
  );
  const check = addChainOptions(
    image
      .command("check")
      .summary("say whether an image may be registered for a use; with a chain, whether it would be accepted now")
      .description(
        "Without a chain: whether the contract would register the image for --use.\nWith one: whether a machine that runs it would be accepted now, under --service or as a platform.\nExits 0 yes, 1 no, 2 could not check.",
      )
      .argument("<image>", ARGUMENT)
      .addOption(new Option("--use <use>", "what it is, or is to be, registered as").choices([...IMAGE_USES]))
      .option("--platform <image>", "the platform that the machine runs on, which must be allowed too"),
  );
  check.action(
    context.action(async (given: string) => {
      const options = check.opts();
      if (asksChain(options)) {
        return checkOnChain(context.io, given, options, Date.now() / 1000, context.output());
      }
      const use = IMAGE_USES.find((candidate) => candidate === options.use);
      if (use === undefined)
        throw new KeysteadError("usage/use", "what to check the image for is not said", {
          argument: "use",
          remedy: `Add --use ${IMAGE_USES.join("|")}, or --rpc URL --registry ADDRESS --service ID to ask a chain.`,
        });
      return showImage(await readImage(context.io, given), [use], context.output());
    }),
  );
}

/** `keystead image show` and `keystead image check`. */
export const command: CommandModule = { register };
