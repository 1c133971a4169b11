import { toHex } from "../../../core/bytes.ts";
import { isKeysteadError, type KeysteadError } from "../../../core/errors.ts";
import {
  checkImage,
  encodeImage,
  formatImage,
  IMAGE_KINDS,
  type Image,
  type ImageUse,
  imageId,
} from "../../../core/image.ts";
import type { GivenImage } from "../../image-input.ts";
import { describeError, type ExitCode, type Output, renderTable, safeText } from "../../output.ts";

/** Whether an image may be registered for a use, and if not, why. */
interface Verdict {
  readonly use: ImageUse;
  readonly refusal: KeysteadError | undefined;
}

const WHAT: Readonly<Record<ImageUse, string>> = {
  service: "an upgradeable service (addImageToService)",
  sealed: "a service that is not upgradeable (addSecretKeyByImage)",
  platform: "a platform (allowPlatform)",
  kms: "a KMS node (allowKmsImage)",
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

/**
 * An image in all its spellings, as JSON output carries it.
 *
 * @example
 * imageJson(parseImage("dstack:compose_hash=…")).id;
 */
export function imageJson(image: Image) {
  const bytes = encodeImage(image);
  const open = IMAGE_KINDS[image.kind].registers.filter(({ name }) => !Object.hasOwn(image.registers, name));
  return {
    kind: image.kind,
    registers: image.registers,
    matchesAny: open.map(({ name }) => name),
    text: formatImage(image),
    bytes: toHex(bytes),
    id: imageId(bytes),
  };
}

/**
 * The same for people.
 *
 * @example
 * renderImage(image, output);
 */
export function renderImage(image: Image, { colors }: Output): string {
  const { id, text, bytes } = imageJson(image);
  const registers = IMAGE_KINDS[image.kind].registers.map(({ name }) => [name, image.registers[name]?.slice(2) ?? "*"]);
  const spellings = Object.entries({ id, text, bytes });
  return `${colors.bold(`Registers (${image.kind}; * matches any value)`)}\n${renderTable(registers)}\n\n${renderTable(spellings)}`;
}

/**
 * Prints an image in all its spellings with a verdict for each use asked for.
 *
 * @returns 0 if it may be registered for any of the uses, else 1
 * @example
 * return showImage(await readImage(io, argument), IMAGE_USES, output);
 */
export function showImage({ image, file }: GivenImage, uses: readonly ImageUse[], output: Output): ExitCode {
  const bytes = encodeImage(image);
  const verdicts = uses.map((use) => judge(bytes, use));
  const value = {
    ...imageJson(image),
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
    const lines = verdicts.map(({ use, refusal }) =>
      refusal === undefined
        ? `${green("yes")}  ${WHAT[use]}`
        : `${red("no")}   ${WHAT[use]}: ${safeText(refusal.message)} (${refusal.code})`,
    );
    return [
      ...file.notes.map((note) => safeText(note)),
      renderImage(image, output),
      `${bold("May be registered as")}\n${lines.join("\n")}`,
    ].join("\n\n");
  });
  return verdicts.some(({ refusal }) => refusal === undefined) ? 0 : 1;
}
