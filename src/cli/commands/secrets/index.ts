import { type Command, Option } from "commander";
import { handOver, parseDestination } from "../../../agent/hand-over.ts";
import { CHAIN_OPTIONS, text } from "../../chain-input.ts";
import type { CommandContext, CommandModule } from "../../command.ts";
import { repeatable } from "../../repeatable.ts";
import { openTrust, TRUST_OPTIONS } from "../../trust-input.ts";
import { readSecretsKey, readServiceId, type SecretsOptions } from "./input.ts";
import { inspect } from "./inspect.ts";
import { seal } from "./seal.ts";

/** Options that say which key, and by whose word. */
function keyOptions(command: Command): Command {
  command
    .option("--service <id>", "the service")
    .option("--creator <address>", "in place of the id: who is going to create the service")
    .option("--salt <bytes>", "in place of the id: the salt of its creation")
    .addOption(repeatable("--node <url>", "a node to ask for the service's environment key"))
    .option("--key <file>", "the key as keystead secrets key saved it")
    .addOption(
      repeatable("--signer <address>", "whose signature counts, in place of the KMS identities in the policy"),
    );
  for (const { flags, description } of TRUST_OPTIONS) command.option(flags, description);
  return command;
}

/** `keystead secrets`: environment variables and registry credentials for machines. */
export const command: CommandModule = {
  register(secrets: Command, { io, output, action }: CommandContext) {
    keyOptions(
      secrets.command("seal").description("seal a .env file or registry credentials; write ciphertext and calldata"),
    )
      .argument("<file>", "the file with the secrets, or - for standard input")
      .option("--name <name>", "the name to publish under (default: env, registry or secrets, by what it is)")
      .option("--creation", "for addSecretKeyByImage: the ciphertext that comes with the creation")
      .addOption(
        new Option("--kind <kind>", "what the file is; default: by its content").choices(["env", "registry", "raw"]),
      )
      .option("--out <where>", "where the document goes: a file, fd:N or -; default: printed")
      .action(action((file: string, options: SecretsOptions) => seal(io, file, options, output())));
    keyOptions(
      secrets.command("key").description("fetch a service's environment key, check who signed it, and save it"),
    )
      .requiredOption("--out <where>", "where it goes: a file, fd:N or -")
      .action(
        action(async (options: SecretsOptions) => {
          const input = await openTrust(io, options, options.signer);
          const serviceId = readServiceId(options, input.trust);
          const { key, answer } = await readSecretsKey(io, options, serviceId, input);
          const out = parseDestination(text(options, "out") ?? "-", "out");
          await handOver(out, new TextEncoder().encode(`${JSON.stringify(answer, null, 2)}\n`));
          io.warn(
            `key ${key.publicKey} of root epoch ${key.rootEpoch}, key epoch ${key.keyEpoch}, signed by ${answer.signer}\n`,
          );
          return 0;
        }),
      );
    const look = secrets.command("inspect").description("what can be seen of sealed secrets without their key");
    look
      .argument("[file]", "a document, calldata or ciphertext")
      .option("--service <id>", "what this service has published");
    for (const { flags, description } of CHAIN_OPTIONS) look.option(flags, description);
    look.action(action((file: string | undefined, options: SecretsOptions) => inspect(io, file, options, output())));
  },
};
