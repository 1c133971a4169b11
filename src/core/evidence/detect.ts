import { fromBase64, fromHex } from "../bytes.ts";
import { SNP_REPORT_BYTES } from "./snp.ts";

/** What a file is. */
export type EvidenceFormat = "tdx-quote" | "sgx-quote" | "snp-report" | "nitro-document" | "nitro-pcrs" | "unknown";

/** How its bytes are written down. */
export type EvidenceEncoding = "binary" | "hex" | "base64" | "text";

/** What {@link detectEvidence} says. */
export interface Detected {
  readonly format: EvidenceFormat;
  readonly encoding: EvidenceEncoding;
  /** The evidence itself, with hex or base64 undone. */
  readonly bytes: Uint8Array;
  /** In words, e.g. `TDX quote, version 4`. */
  readonly description: string;
}

/**
 * Says what a file is, by its first bytes and its length, undoing hex or base64 (white space anywhere in it is passed over). Never throws: what it
 * does not know is `unknown`, and what it knows may still be refused by the parser.
 *
 * @example
 * const { format, bytes } = detectEvidence(file);
 * if (format === "tdx-quote") parseTdxQuote(bytes);
 */
export function detectEvidence(file: Uint8Array): Detected {
  const binary = classify(file);
  if (binary !== undefined) return { ...binary, encoding: "binary", bytes: file };
  const text = asciiOf(file);
  if (text === undefined)
    return { format: "unknown", encoding: "binary", bytes: file, description: "unknown binary data" };
  for (const [encoding, decode] of DECODERS) {
    const bytes = decode(text.replace(/\s+/g, ""));
    if (bytes === undefined) continue;
    const found = classify(bytes);
    return found === undefined
      ? { format: "unknown", encoding, bytes, description: `unknown data in ${encoding}` }
      : { ...found, encoding, bytes };
  }
  if (/"PCR0"\s*:/.test(text)) {
    return { format: "nitro-pcrs", encoding: "text", bytes: file, description: "PCRs of an enclave image, in JSON" };
  }
  return { format: "unknown", encoding: "text", bytes: file, description: "unknown text" };
}

const DECODERS: readonly (readonly [EvidenceEncoding, (compact: string) => Uint8Array | undefined])[] = [
  ["hex", (text) => (text.length % 2 === 0 && /^(?:0x)?[0-9a-fA-F]+$/.test(text) ? fromHex(text, "file") : undefined)],
  ["base64", (text) => (/^[A-Za-z0-9+/]+={0,2}$/.test(text) ? decoded(text) : undefined)],
];

function decoded(text: string): Uint8Array | undefined {
  try {
    return fromBase64(text, "file");
  } catch {
    return undefined;
  }
}

function asciiOf(file: Uint8Array): string | undefined {
  const printable = file.every(
    (byte) => (byte >= 0x20 && byte < 0x7f) || byte === 0x09 || byte === 0x0a || byte === 0x0d,
  );
  return printable && file.length > 0 ? new TextDecoder("utf-8").decode(file) : undefined;
}

function classify(bytes: Uint8Array): { format: EvidenceFormat; description: string } | undefined {
  const [a, b, c, d, e, f, g, h] = bytes;
  if (b === 0 && (a === 3 || a === 4 || a === 5) && d === 0 && (c === 2 || c === 3) && f === 0 && g === 0 && h === 0) {
    const bodyType = a === 5 ? bytes[48] : undefined;
    if (a === 3 || e === 0 || bodyType === 1) return { format: "sgx-quote", description: `SGX quote, version ${a}` };
    if (e === 0x81) return { format: "tdx-quote", description: `TDX quote, version ${a}` };
  }
  if (bytes.length === SNP_REPORT_BYTES && a !== undefined && a >= 1 && a <= 16 && b === 0 && c === 0 && d === 0) {
    return { format: "snp-report", description: `SEV-SNP attestation report, version ${a}` };
  }
  const cose = a === 0xd2 ? bytes.subarray(1) : bytes;
  if (cose[0] === 0x84 && cose[1] === 0x44 && cose[2] === 0xa1 && cose[3] === 0x01) {
    return { format: "nitro-document", description: "AWS Nitro attestation document (COSE_Sign1)" };
  }
  return undefined;
}
