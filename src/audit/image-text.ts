import { fromHex, type Hex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { decodeImage, formatImage, IMAGE_KINDS, type Image } from "../core/image.ts";

/**
 * The image in bytes from a log; undefined where they are no image that this version can read, which the contracts would not have taken.
 *
 * @example
 * imageOf(event.args.image)?.registers.mrtd;
 */
export function imageOf(bytes: Hex): Image | undefined {
  for (const use of ["service", "platform"] as const) {
    try {
      return decodeImage(fromHex(bytes, "image"), use);
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
    }
  }
  return undefined;
}

/**
 * The text form of the image in bytes from a log; the bytes where they can't be read.
 *
 * @example
 * imageText("0x0101…"); // "tdx:mrtd=…"
 */
export function imageText(bytes: Hex): string {
  const image = imageOf(bytes);
  return image === undefined ? bytes : formatImage(image);
}

/**
 * The registers that an image leaves out: each of them matches anything.
 *
 * @example
 * omittedRegisters(image); // ["rtmr0", "mr_seam", …]
 */
export function omittedRegisters({ kind, registers }: Image): readonly string[] {
  return IMAGE_KINDS[kind].registers.flatMap(({ name }) => (Object.hasOwn(registers, name) ? [] : [name]));
}
