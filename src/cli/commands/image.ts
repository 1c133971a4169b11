import { Option } from "commander";
import { toHex } from "../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../core/errors.ts";
import { checkImage, encodeImage, formatImage, IMAGE_KINDS, type ImageUse, imageId } from "../../core/image.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import { type GivenImage, IMAGE_USES, readImage } from "../image-input.ts";
import { describeError, type ExitCode, type Output, renderTable, safeText } from "../output.ts";

/** Whether an image may be registered for a use, and if not, why. */
interface Verdict {
  readonly use: ImageUse;
  readonly refusal: KeysteadError | undefined;
}

const WHAT: Readonly<Record<ImageUse, string>> = {
  service: "an upgradeable service (addImageToService)",
  sealed: "a service that is not upgradeable (addSecretKeyByImage)",
  platform: "a platform (allowPlatform)",
};

function judge(bytes: Uint8Array, use: ImageUse): Verdict {
  try {
    checkImage(bytes, use);
    return { use, refusal: undefined };
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    return { use, refusal: error };
  }
}

/** Prints an image in all its spellings with a verdict for each use asked for. */
function show({ image, file }: GivenImage, uses: readonly ImageUse[], output: Output): ExitCode {
  const bytes = encodeImage(image);
  const verdicts = uses.map((use) => judge(bytes, use));
  const spec = IMAGE_KINDS[image.kind];
  const open = spec.registers.filter(({ name }) => !Object.hasOwn(image.registers, name)).map(({ name }) => name);
  const value = {
    kind: image.kind,
    registers: image.registers,
    matchesAny: open,
    text: formatImage(image),
    bytes: toHex(bytes),
    id: imageId(bytes),
    source: file.source,
    uses: Object.fromEntries(
      verdicts.map(({ use, refusal }) => [
        use,
        refusal === undefined ? { ok: true } : { ok: false, error: describeError(refusal) },
      ]),
    ),
  };
  output.result(value, () => {
    const { bold, green, red } = output.colors;
    const registers = spec.registers.map(({ name }) => [name, image.registers[name]?.slice(2) ?? "*"]);
    const spellings = [
      ["id", value.id],
      ["text", value.text],
      ["bytes", value.bytes],
    ];
    const lines = verdicts.map(({ use, refusal }) =>
      refusal === undefined
        ? `${green("yes")}  ${WHAT[use]}`
        : `${red("no")}   ${WHAT[use]}: ${safeText(refusal.message)} (${refusal.code})`,
    );
    return [
      ...file.notes.map((note) => safeText(note)),
      `${bold(`Registers (${image.kind}; * matches any value)`)}\n${renderTable(registers)}`,
      renderTable(spellings),
      `${bold("May be registered as")}\n${lines.join("\n")}`,
    ].join("\n\n");
  });
  return verdicts.some(({ refusal }) => refusal === undefined) ? 0 : 1;
}

function register(image: Parameters<CommandModule["register"]>[0], context: CommandContext): void {
  const argument = "the text form, the bytes in hex, or a file (- for standard input) with either";
  image
    .command("show")
    .summary("decode an image: registers, text, bytes, id, and what it may be registered as")
    .argument("<image>", argument)
    .action(
      context.action(async (given: string) => show(await readImage(context.io, given), IMAGE_USES, context.output())),
    );
  const check = image
    .command("check")
    .summary("say whether an image may be registered for a use, by the contract's own rules")
    .argument("<image>", argument)
    .addOption(
      new Option("--use <use>", "what it is to be registered as").choices([...IMAGE_USES]).makeOptionMandatory(),
    );
  check.action(
    context.action(async (given: string) => {
      const use = IMAGE_USES.find((candidate) => candidate === check.opts().use);
      if (use === undefined)
        throw new KeysteadError("usage/use", "no such use", {
          argument: "use",
          remedy: `Use ${IMAGE_USES.join(", ")}.`,
        });
      return show(await readImage(context.io, given), [use], context.output());
    }),
  );
}

/** `keystead image show` and `keystead image check`. */
export const command: CommandModule = { summary: "decode and check canonical images", register };
