import { decodeUtf8, fromBase64 } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Io } from "./io.ts";

const LIMIT = 64 * 1024;
const DER_SEQUENCE = 0x30;

/**
 * One certificate from a file, DER or PEM, as DER. What it says is not looked at.
 *
 * @throws KeysteadError `input/not-a-certificate`; as `Io.readFile`
 * @example
 * const vcek = await readCertificateFile(io, "vcek.pem", "vcek");
 */
export async function readCertificateFile(io: Io, name: string, argument: string): Promise<Uint8Array> {
  const { bytes } = await io.readFile(name, { limit: LIMIT, argument });
  if (bytes[0] === DER_SEQUENCE) return bytes;
  const [, body] =
    /^\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*$/.exec(
      decodeUtf8(bytes, argument),
    ) ?? [];
  if (body !== undefined) return fromBase64(body.replace(/\s+/g, ""), argument);
  throw new KeysteadError("input/not-a-certificate", `${name} is not one certificate in DER or PEM`, {
    argument,
    remedy: "Give one certificate a file.",
  });
}
