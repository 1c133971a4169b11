import { Option } from "commander";

/**
 * An option that may be given several times: its values in order, none by default.
 *
 * @example
 * command.addOption(repeatable("--node <url>", "a node; several are asked in turn"));
 */
export function repeatable(flags: string, description: string): Option {
  return new Option(flags, description)
    .argParser((value: string, before: readonly string[] | undefined) => [...(before ?? []), value])
    .default([], "none");
}
