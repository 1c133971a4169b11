import { decodeUtf8, fromHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { decodeImage, type Image, type ImageUse, parseImage, TEE_KINDS } from "../core/image.ts";
import { type InputFile, type Io, inputFile } from "./io.ts";

/** The uses in the order in which they are tried and shown. */
export const IMAGE_USES: readonly ImageUse[] = ["service", "sealed", "platform"];

/** An image that a user named. */
export interface GivenImage {
  readonly image: Image;
  readonly form: "text" | "bytes";
  readonly file: InputFile;
}

/** The largest image has ten registers: 484 bytes, twice that in hex, and names in the text form. */
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

/**
 * Reads an image from an argument: its text form, its canonical bytes in hex, or a file (or `-`) that holds either, or the bytes as they are.
 *
 * @throws KeysteadError `image/id-alone` for an id, which says nothing without a chain to look it up on; and those of `parseImage` and
 * `decodeImage`
 * @example
 * const { image } = await readImage(io, "dstack:compose_hash=…");
 */
export async function readImage(io: Io, argument: string): Promise<GivenImage> {
  const inline = isInlineImage(argument);
  const file = inline
    ? inputFile("(argument)", new TextEncoder().encode(argument))
    : await io.readFile(argument, { limit: LIMIT, argument: "image" });
  if (file.bytes[0] === 1) return { image: decodeAny(file.bytes), form: "bytes", file };
  const text = decodeUtf8(file.bytes, "image").trim();
  if (!/^(0x)?[0-9a-fA-F]+$/.test(text)) return { image: parseImage(text), form: "text", file };
  const bytes = fromHex(text, "image");
  if (bytes.length === 32) {
    throw new KeysteadError(
      "image/id-alone",
      "this is an image's id: a hash, from which its registers cannot be read",
      {
        argument: "image",
        remedy: "Give the image's text form or bytes (AddImageToService and allowPlatform log the bytes).",
      },
    );
  }
  return { image: decodeAny(bytes), form: "bytes", file };
}

/** Decodes bytes for the first use that accepts them; if none does, says why the last one does not. */
function decodeAny(bytes: Uint8Array): Image {
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
