import { type BytesEncoding, readBytesText } from "../bytes-text.ts";
import { isAzureHclReport, SNP_REPORT_BYTES } from "./snp.ts";

/** What a file is. */
export type EvidenceFormat =
  | "tdx-quote"
  | "sgx-quote"
  | "snp-report"
  | "azure-hcl"
  | "nitro-document"
  | "nitro-pcrs"
  | "unknown";

/** How its bytes are written down. */
export type EvidenceEncoding = "binary" | BytesEncoding | "text";

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
 * Says what a file is, by its first bytes and its length, undoing hex, base64 or base64url (white space and quotes are passed over). Never throws: what it
 * does not know is `unknown`, and what it knows may still be refused by the parser.
 *
 * @example
 * const { format, bytes } = detectEvidence(file);
 * if (format === "tdx-quote") parseTdxQuote(bytes);
 */
export function detectEvidence(file: Uint8Array): Detected {
  const binary = classify(file);
  if (binary !== undefined) return { ...binary, encoding: "binary", bytes: file };
  const text = textOf(file);
  if (text === undefined)
    return { format: "unknown", encoding: "binary", bytes: file, description: "unknown binary data" };
  const written = readBytesText(text);
  if (written !== undefined) {
    const { encoding, bytes } = written;
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

/** UTF-8 without control characters but white space. Evidence in binary always has some. */
function textOf(file: Uint8Array): string | undefined {
  const controls = file.some((byte) => (byte < 0x20 && ![0x09, 0x0a, 0x0c, 0x0d].includes(byte)) || byte === 0x7f);
  if (controls || file.length === 0) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(file);
  } catch {
    return undefined;
  }
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
  if (isAzureHclReport(bytes)) {
    return { format: "azure-hcl", description: "the vTPM report of an Azure confidential VM, which is not supported" };
  }
  const cose = a === 0xd2 ? bytes.subarray(1) : bytes;
  if (cose[0] === 0x84 && cose[1] === 0x44 && cose[2] === 0xa1 && cose[3] === 0x01) {
    return { format: "nitro-document", description: "AWS Nitro attestation document (COSE_Sign1)" };
  }
  return undefined;
}
