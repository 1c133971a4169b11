#!/usr/bin/env node
import { realpathSync } from "node:fs";
import { Command, CommanderError } from "commander";
import manifest from "../../package.json" with { type: "json" };
import { KeysteadError } from "../core/errors.ts";
import type { CommandContext } from "./command.ts";
import { COMMANDS } from "./commands.ts";
import { createIo, type Io } from "./io.ts";
import { createOutput, type ExitCode } from "./output.ts";
import { withoutSecrets } from "./redact.ts";

/** The word that names a command, also after `help`. */
function findWord(args: readonly string[]): string | undefined {
  const [first, second] = args.filter((argument) => !argument.startsWith("-"));
  return first === "help" ? second : first;
}

/**
 * Runs one command line.
 *
 * @param args what follows `keystead`
 * @returns the exit code; everything printed went through `outside`, without any credential of the command line or the environment
 * @example
 * process.exitCode = await run(["measure", "quote", "quote.bin"], createIo(process));
 */
export async function run(args: readonly string[], outside: Io): Promise<ExitCode> {
  const io = withoutSecrets(outside, args);
  let exit: ExitCode = 0;
  const program = new Command("keystead")
    .description("On-chain KMS for confidential VMs: measure images, govern them, deliver keys, audit.")
    .version(manifest.version)
    .option("--json", "print one JSON document instead of text")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.print(text),
      writeErr: (text) => io.warn(text),
      outputError: () => {}, // printed below, in the one form that errors have
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    });
  const output = () => createOutput(io, { json: args.includes("--json") });
  const context: CommandContext = {
    io,
    output,
    action:
      (act) =>
      async (...given) => {
        exit = await act(...given);
      },
  };
  const asked = findWord(args);
  try {
    for (const [name, { summary, load }] of Object.entries(COMMANDS)) {
      const command = program.command(name).summary(summary).description(summary);
      // The others are only listed: loading all of them takes seconds.
      if (name === asked) await (await load()).command.register(command, context);
    }
    await program.parseAsync([...args], { from: "user" });
    return exit;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    // help in place of a missing subcommand was printed already
    if (!(error instanceof CommanderError && error.code === "commander.help"))
      output().error(toUsageError(error, named(args)));
    return 2;
  }
}

const NOT_KNOWN = new Set(["commander.unknownCommand", "commander.excessArguments"]);

/** The command and its subcommand, as far as they are named before anything else. */
function named(args: readonly string[]): readonly string[] {
  const words = args.filter((word) => word !== "--json");
  const end = words.findIndex((word) => !/^[a-z][a-z-]*$/.test(word));
  return words.slice(0, end === -1 ? 2 : Math.min(2, end));
}

/** What commander refuses is wrong usage; everything else stays what it is. */
function toUsageError(error: unknown, asked: readonly string[]): unknown {
  if (!(error instanceof CommanderError)) return error;
  return new KeysteadError(error.code.replace("commander.", "usage/"), error.message.replace(/^error: /, ""), {
    argument: "command line",
    // What is not known has no help: what is above it has.
    remedy: `See ${["keystead", ...(NOT_KNOWN.has(error.code) ? asked.slice(0, -1) : asked)].join(" ")} --help.`,
  });
}

/** Whether this file is the program being run, through npm's link too. */
function isMain(): boolean {
  try {
    return process.argv[1] !== undefined && realpathSync(process.argv[1]) === import.meta.filename;
  } catch {
    return false;
  }
}

if (isMain()) {
  // `keystead … | head` closes the pipe early: that is no error of the command
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });
  try {
    process.exitCode = await run(process.argv.slice(2), createIo(process));
  } catch (cause) {
    const error = new KeysteadError("internal", "the command failed before it could say why", {
      remedy: "Report this.",
      cause,
    });
    process.stderr.write(`error ${error.code}: ${error.message}\n`);
    process.exitCode = 2;
  }
}
