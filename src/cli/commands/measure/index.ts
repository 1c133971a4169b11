import { readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { RegisterChoice } from "../../../core/measurement.ts";
import type { CommandContext, CommandModule } from "../../command.ts";
import { readSide, showDiff } from "./diff.ts";
import type { InputReader, ReaderArguments } from "./reader.ts";
import { showMeasurement } from "./show.ts";

/** Every reader in the folder beside this file, in the order of file names. */
export async function loadReaders(): Promise<readonly InputReader[]> {
  const folder = join(import.meta.dirname, "readers");
  const readers: InputReader[] = [];
  for (const file of readdirSync(folder).sort()) {
    if (!/\.[jt]s$/.test(file)) continue;
    const module: { readonly readers?: readonly InputReader[] } = await import(pathToFileURL(join(folder, file)).href);
    readers.push(...(module.readers ?? []));
  }
  return readers;
}

const names = (value: string): string[] => {
  const list = value.split(",");
  if (list.some((name) => !/^[a-z0-9_]+$/.test(name)))
    throw new InvalidArgumentError("give register names with commas between them.");
  return list;
};

const addChoice = (command: Command): Command =>
  command
    .option("--include <registers>", "registers to add to the service image, with commas between them", names)
    .option("--exclude <registers>", "registers to leave out: the images then match any value of them", names);

type Options = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

const choiceOf = ({
  include,
  exclude,
  allowUnnamed,
}: Options): RegisterChoice & { allowUnnamed: readonly string[] } => ({
  include: Array.isArray(include) ? include : [],
  exclude: Array.isArray(exclude) ? exclude : [],
  allowUnnamed: Array.isArray(allowUnnamed) ? allowUnnamed : [],
});

/** A reader's own options, without the lists that belong to this file. */
const readerOptions = (options: Options): ReaderArguments["options"] =>
  Object.fromEntries(
    Object.entries(options).filter((entry): entry is [string, string | boolean] =>
      ["string", "boolean"].includes(typeof entry[1]),
    ),
  );

function addReader(measure: Command, reader: InputReader, context: CommandContext): void {
  const command = addChoice(
    measure.command(reader.name).summary(reader.summary).description(`Measures ${reader.summary}.`),
  );
  command.option(
    "--allow-unnamed <registers>",
    "registers that hold something and need no name in the image, e.g. pcr16: it is then every application's on the same base",
    names,
  );
  for (const input of reader.inputs) command.argument(`<${input}>`, "a file, or - for standard input");
  for (const { flags, description } of reader.options ?? []) command.option(flags, description);
  command.action(
    context.action(async (...given: readonly unknown[]) => {
      const inputs = given.slice(0, reader.inputs.length).map(String);
      const options = command.opts<Options>();
      const measurement = await reader.read(context.io, { inputs, options: readerOptions(options) });
      return showMeasurement(measurement, choiceOf(options), context.output());
    }),
  );
}

function addDiff(measure: Command, readers: readonly InputReader[], context: CommandContext): void {
  const command = addChoice(
    measure
      .command("diff")
      .summary("compare two inputs of one kind: what changes, and what must be registered")
      .description(
        "Compares two inputs register by register and says which calls would register the new one.\nExits 0 where nothing changes, 1 where something does, 2 where the inputs cannot tell.",
      ),
  )
    .argument(
      "<old>",
      "a file, a canonical image, chain:SERVICE/IMAGEID, or - for standard input; several files with commas between them",
    )
    .argument("<new>", "likewise")
    .option("--as <input>", "what both are, where the contents do not tell")
    .option("--old-as <input>", "what the old one is")
    .option("--new-as <input>", "what the new one is")
    .addOption(new Option("--role <role>", "what runs the image").choices(["service", "kms-node"]).default("service"));
  const seen = new Set<string>();
  for (const { flags, description } of readers.flatMap((reader) => reader.options ?? [])) {
    if (!seen.has(flags)) command.option(flags, description);
    seen.add(flags);
  }
  command.action(
    context.action(async (before: string, after: string) => {
      const options = command.opts<Options>();
      const own = readerOptions(options);
      const as = (name: string) =>
        typeof own[name] === "string" ? own[name] : typeof own.as === "string" ? own.as : undefined;
      const old = await readSide(context.io, readers, before, as("oldAs"), own);
      const now = await readSide(context.io, readers, after, as("newAs"), own);
      const role = own.role === "kms-node" ? "kms-node" : "service";
      return showDiff(old, now, { ...choiceOf(options), role }, context.output());
    }),
  );
}

/** `keystead measure NAME …` for every reader, and `keystead measure diff`. */
export const command: CommandModule = {
  async register(measure, context) {
    const readers = await loadReaders();
    for (const reader of readers) addReader(measure, reader, context);
    addDiff(measure, readers, context);
  },
};
