import { decodeUtf8, fromHex, type Hex, toHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { decodeImage, encodeImage, IMAGE_USES, type Image, imageId, parseImage, TEE_KINDS } from "../core/image.ts";
import { type InputFile, type Io, inputFile } from "./io.ts";

/** An image that a user named. */
export interface GivenImage {
  readonly image: Image;
  readonly form: "text" | "bytes";
  readonly file: InputFile;
}

/** The largest image has 32 registers: 1,542 bytes, twice that in hex, and names in the text form. */
const LIMIT = 8192;

/**
 * Whether an argument is an image itself (text form, or canonical bytes in hex) and not a file's name.
 *
 * @example
 * isInlineImage("tdx:mrtd=…"); // true
 */
export function isInlineImage(argument: string): boolean {
  return (
    /^0x[0-9a-fA-F]*$/.test(argument) || TEE_KINDS.some((kind) => new RegExp(`^${kind}:([a-z0-9_]+=|$)`).test(argument))
  );
}

/** An image by its id, and itself where the argument says what it is. */
export interface NamedImage {
  readonly id: Hex;
  readonly given: GivenImage | undefined;
}

/**
 * Reads an image from an argument: its text form, its canonical bytes in hex, or a file (or `-`) that holds either, or the bytes as they are.
 *
 * @throws KeysteadError `image/id-alone` for an id, which says nothing without a chain to look it up on; and those of {@link readNamedImage}
 * @example
 * const { image } = await readImage(io, "dstack:compose_hash=…");
 */
export async function readImage(io: Io, argument: string): Promise<GivenImage> {
  const { given } = await readNamedImage(io, argument);
  if (given !== undefined) return given;
  throw new KeysteadError("image/id-alone", "this is an image's id: a hash, from which its registers cannot be read", {
    argument: "image",
    remedy:
      "Give the image's text form or bytes; or look the id up: keystead image show ID --rpc URL --registry ADDRESS.",
  });
}

/**
 * Reads what names an image: as {@link readImage}, or its id alone (32 bytes of hex).
 *
 * @throws KeysteadError those of `parseImage` and `decodeImage`, and of `io.readFile`
 * @example
 * const { id, given } = await readNamedImage(io, argument);
 */
export async function readNamedImage(io: Io, argument: string): Promise<NamedImage> {
  const inline = isInlineImage(argument);
  const file = inline
    ? inputFile("(argument)", new TextEncoder().encode(argument))
    : await io.readFile(argument, { limit: LIMIT, argument: "image" });
  const named = (image: Image, form: GivenImage["form"]): NamedImage => ({
    id: imageId(encodeImage(image)),
    given: { image, form, file },
  });
  if (file.bytes[0] === 1) return named(decodeAnyImage(file.bytes), "bytes");
  const text = decodeUtf8(file.bytes, "image").trim();
  if (!/^(0x)?[0-9a-fA-F]+$/.test(text)) return named(parseImage(text), "text");
  const bytes = fromHex(text, "image");
  return bytes.length === 32 ? { id: toHex(bytes), given: undefined } : named(decodeAnyImage(bytes), "bytes");
}

/**
 * Decodes bytes for the first use that accepts them.
 *
 * @throws KeysteadError as `decodeImage`: why the last use does not, if none does
 * @example
 * decodeAnyImage(fromHex(logged, "image")).kind;
 */
export function decodeAnyImage(bytes: Uint8Array): Image {
  let refusal: unknown;
  for (const use of IMAGE_USES) {
    try {
      return decodeImage(bytes, use);
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
      refusal = error;
    }
  }
  throw refusal;
}
