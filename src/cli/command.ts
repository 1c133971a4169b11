import type { Command } from "commander";
import type { Io } from "./io.ts";
import type { ExitCode, Output } from "./output.ts";

/** What a command gets to work with. */
export interface CommandContext {
  readonly io: Io;
  /** Made when a command runs, after the global options are known. */
  output(): Output;
  /** Wraps a command's action: its return value is the exit code of the run. */
  action<A extends readonly unknown[]>(act: (...args: A) => Promise<ExitCode>): (...args: A) => Promise<void>;
}

/**
 * One top-level command: a file `commands/NAME.ts`, or a folder `commands/NAME/index.ts`, that exports `command`. NAME is the word on the command
 * line; `commands.ts` has it with its summary.
 */
export interface CommandModule {
  /** Adds the command (already created under its name) its arguments, options, subcommands and actions. */
  register(command: Command, context: CommandContext): void | Promise<void>;
}
