import { decodeUtf8, type Hex } from "../../../src/core/bytes.ts";
import { KeysteadError } from "../../../src/core/errors.ts";
import { detectEvidence } from "../../../src/core/evidence/detect.ts";
import { nitroFindings, nitroRegisters, parseNitroDocument, parseNitroPcrs } from "../../../src/core/evidence/nitro.ts";
import { parseSnpReport, snpFindings, snpRegisters } from "../../../src/core/evidence/snp.ts";
import { parseTdxQuote, tdxFindings, tdxRegisters } from "../../../src/core/evidence/tdx.ts";
import { decodeImage, parseImage, TEE_KINDS, type TeeKind } from "../../../src/core/image.ts";
import type { Finding } from "../../../src/core/measurement.ts";
import { readImageBytes } from "./images.ts";

/** The longest evidence that is read, in bytes. */
export const EVIDENCE_LIMIT = 1024 * 1024;

/** What evidence claims. Nothing in it was verified: signatures are checked where keys are released. */
export interface Reading {
  readonly kind: TeeKind;
  /** e.g. `TDX quote, version 4`. */
  readonly description: string;
  readonly encoding: string;
  readonly registers: Readonly<Record<string, Hex>>;
  readonly findings: readonly Finding[];
  /** Whether it is a machine's statement, or only what an image is said to be. */
  readonly source: "evidence" | "image";
}

/**
 * Reads pasted text or a dropped file: a TDX quote, an SEV-SNP report, a Nitro document or its PCR list, or an image's text form or bytes.
 *
 * @throws KeysteadError `web/no-evidence`, `web/too-large`, `web/unknown-evidence`, `web/sgx-quote`, `web/azure-hcl`; as the parsers
 * @example
 * readEvidence(new TextEncoder().encode("tdx:mrtd=…")).registers.mrtd;
 */
export function readEvidence(bytes: Uint8Array): Reading {
  if (bytes.length === 0) {
    throw refusal("no-evidence", "there is nothing to read", "Paste a quote, a report, a document or an image.");
  }
  if (bytes.length > EVIDENCE_LIMIT) {
    throw refusal("too-large", `${bytes.length} bytes are more than any evidence has`, "Give the evidence alone.");
  }
  const image = readImageText(bytes);
  if (image !== undefined) {
    const { kind, registers } = image;
    return { kind, registers, description: "image", encoding: "text or bytes", findings: [], source: "image" };
  }
  const { format, bytes: evidence, encoding, description } = detectEvidence(bytes);
  const about = { description, encoding, source: "evidence" as const };
  switch (format) {
    case "tdx-quote": {
      const quote = parseTdxQuote(evidence);
      return { kind: "tdx", registers: tdxRegisters(quote), findings: tdxFindings(quote), ...about };
    }
    case "snp-report": {
      const report = parseSnpReport(evidence);
      return { kind: "snp", registers: snpRegisters(report), findings: snpFindings(report), ...about };
    }
    case "nitro-document": {
      const document = parseNitroDocument(evidence);
      return { kind: "nitro", registers: nitroRegisters(document), findings: nitroFindings(document), ...about };
    }
    case "azure-hcl":
      throw refusal(
        "azure-hcl",
        "this is the vTPM report of an Azure confidential VM, which is not supported",
        "Azure's guests do not choose the report data, so such evidence cannot be bound to a request.",
      );
    case "nitro-pcrs": {
      const pcrs = parseNitroPcrs(decodeUtf8(evidence, "PCR file"));
      return {
        kind: "nitro",
        registers: nitroRegisters(pcrs),
        findings: nitroFindings(pcrs),
        ...about,
        source: "image",
      };
    }
    case "sgx-quote":
      throw refusal("sgx-quote", `this is an ${description}, of an enclave and not of a VM`, "Give a TDX quote.");
    case "unknown":
      throw refusal(
        "unknown-evidence",
        `this is ${description}: no evidence or image that is known here`,
        `Give a TDX quote, an SEV-SNP report or a Nitro document (binary, hex or base64), or an image's text form (${TEE_KINDS.map((kind) => `${kind}:…`).join(", ")}).`,
      );
  }
}

/** An image in its text form or as canonical bytes (in hex too); undefined for anything else. */
function readImageText(bytes: Uint8Array) {
  if (bytes[0] === 1 && bytes.length % 48 === 4) return tryBytes(bytes);
  if (bytes.length > 8192) return undefined;
  const text = new TextDecoder().decode(bytes).trim();
  if (TEE_KINDS.some((kind) => text.startsWith(`${kind}:`))) return parseImage(text);
  return /^0x01[0-9a-fA-F]+$/.test(text) ? readImageBytes(text.toLowerCase()) : undefined;
}

function tryBytes(bytes: Uint8Array) {
  try {
    return decodeImage(bytes, "platform");
  } catch {
    return undefined; // it may be evidence all the same
  }
}

function refusal(code: string, message: string, remedy: string): KeysteadError {
  return new KeysteadError(`web/${code}`, message, { argument: "evidence", remedy });
}
