import { decodeUtf8, toHex } from "../../../../core/bytes.ts";
import { nitroFindings, nitroRegisters, parseNitroDocument, parseNitroPcrs } from "../../../../core/evidence/nitro.ts";
import type { Measurement } from "../../../../core/measurement.ts";
import type { InputFile, Io } from "../../../io.ts";
import { decodeEvidenceFile, EVIDENCE_LIMIT, type EvidenceFile, isEvidence, readRegisters } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

async function read(io: Io, { inputs }: ReaderArguments): Promise<Measurement> {
  const file = await io.readFile(inputs[0] ?? "-", { limit: EVIDENCE_LIMIT, argument: "nitro" });
  const evidence = decodeEvidenceFile(file, ["nitro-document", "nitro-pcrs"], "nitro");
  const json = evidence.format === "nitro-pcrs" || evidence.encoding === "text";
  return json ? readPcrs(file, evidence) : readDocument(file, evidence);
}

function readDocument(file: InputFile, evidence: EvidenceFile): Measurement {
  const document = parseNitroDocument(evidence.bytes);
  return {
    kind: "nitro",
    input: "nitro",
    registers: readRegisters(nitroRegisters(document), file.source, (name) => `pcrs[${name.slice(3)}] of the document`),
    facts: {
      format: "AWS Nitro attestation document",
      encoding: evidence.encoding,
      module_id: document.moduleId,
      timestamp: `${document.timestampMs} ms since 1970`,
      public_key: document.publicKey === undefined ? "none" : toHex(document.publicKey),
      user_data: document.userData === undefined ? "none" : toHex(document.userData),
      nonce: document.nonce === undefined ? "none" : toHex(document.nonce),
    },
    sources: [file.source],
    findings: [...nitroFindings(document), ...evidence.findings],
    unchecked: [
      "The document's signature and certificate chain: these are the values that the file claims. Key delivery checks them.",
      "Which software has these measurements: compare them with what nitro-cli build-enclave prints.",
    ],
  };
}

function readPcrs(file: InputFile, evidence: EvidenceFile): Measurement {
  const pcrs = parseNitroPcrs(decodeUtf8(evidence.bytes, "PCR file"));
  const findings = [...nitroFindings(pcrs), ...evidence.findings];
  if (pcrs.skippedText) {
    findings.push({
      code: "input/text-skipped",
      severity: "warning",
      message: `${file.name} has other text before the JSON, which was passed over`,
    });
  }
  return {
    kind: "nitro",
    input: "nitro",
    registers: readRegisters(nitroRegisters(pcrs), file.source, (name) => `Measurements.${name.toUpperCase()}`),
    facts: { format: "PCRs as nitro-cli prints them", hash: pcrs.hashAlgorithm ?? "not said" },
    sources: [file.source],
    findings,
    unchecked: [
      "That the enclave image file has these PCRs: they are what the file says. Build the image again to check them.",
    ],
  };
}

/** AWS Nitro attestation documents and PCR files. */
export const readers: readonly InputReader[] = [
  {
    name: "nitro",
    summary:
      "an AWS Nitro attestation document (binary, hex or base64), or the JSON that nitro-cli build-enclave, describe-eif or describe-enclaves prints",
    inputs: ["nitro"],
    read,
    detect: (file) => isEvidence(file, ["nitro-document", "nitro-pcrs"]),
  },
];
