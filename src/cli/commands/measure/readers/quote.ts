import { toHex } from "../../../../core/bytes.ts";
import { parseTdxQuote, type TdxQuote, tdxFindings, tdxRegisters } from "../../../../core/evidence/tdx.ts";
import type { Measurement } from "../../../../core/measurement.ts";
import type { InputFile, Io } from "../../../io.ts";
import { decodeEvidenceFile, EVIDENCE_LIMIT, isEvidence, readRegisters } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

/** Offsets of the registers in a version 4 quote; version 5 has its body six bytes later. */
const OFFSETS: Readonly<Record<string, number>> = {
  mr_seam: 64,
  mr_signer_seam: 112,
  mrtd: 184,
  mr_config_id: 232,
  mr_owner: 280,
  mr_owner_config: 328,
  rtmr0: 376,
  rtmr1: 424,
  rtmr2: 472,
  rtmr3: 520,
};

const BODY_NAMES = { "td1.0": "TD 1.0", "td1.5": "TD 1.5", extended: "extended (type 4)" } as const;

async function read(io: Io, { inputs }: ReaderArguments): Promise<Measurement> {
  const file: InputFile = await io.readFile(inputs[0] ?? "-", { limit: EVIDENCE_LIMIT, argument: "quote" });
  const evidence = decodeEvidenceFile(file, ["tdx-quote", "sgx-quote"], "quote");
  const quote = parseTdxQuote(evidence.bytes);
  const shift = quote.header.version === 5 ? 6 : 0;
  return {
    kind: "tdx",
    input: "quote",
    registers: readRegisters(
      tdxRegisters(quote),
      file.source,
      (name) => `byte ${(OFFSETS[name] ?? 0) + shift} of the quote`,
    ),
    facts: factsOf(quote, evidence.encoding),
    sources: [file.source],
    findings: [...tdxFindings(quote), ...evidence.findings],
    unchecked: [
      "The quote's signatures and certificate chain, and whether its TCB is up to date: these are the values that the file claims. Key delivery checks them.",
      "Which software has these measurements: compare them with ones computed from its sources.",
    ],
  };
}

function factsOf({ header, body, signatureData, length, padding }: TdxQuote, encoding: string): Record<string, string> {
  const facts: Record<string, string> = {
    format: `TDX quote, version ${header.version}, ${BODY_NAMES[body.type]} body`,
    encoding,
    length: `${length} bytes${padding > 0 ? ` and ${padding} bytes of zero padding` : ""}`,
    td_attributes: toHex(body.tdAttributes),
    xfam: toHex(body.xfam),
    seam_attributes: toHex(body.seamAttributes),
    tee_tcb_svn: toHex(body.teeTcbSvn),
  };
  if (body.teeTcbSvn2 !== undefined) facts.tee_tcb_svn_2 = toHex(body.teeTcbSvn2);
  if (body.mrServiceTd !== undefined) facts.mr_service_td = toHex(body.mrServiceTd);
  if (body.extension !== undefined) {
    const { vmId, tdId, deviceInfo, serviceTdHistory } = body.extension;
    facts.vm_id = String(vmId);
    facts.td_id = toHex(tdId);
    facts.device_info = toHex(deviceInfo);
    facts.service_td_history = toHex(serviceTdHistory);
  }
  facts.report_data = toHex(body.reportData);
  facts.certification_data = `type ${signatureData.certificationType}, ${signatureData.certificationData.length} bytes`;
  return facts;
}

/** Intel TDX quotes. */
export const readers: readonly InputReader[] = [
  {
    name: "quote",
    summary: "an Intel TDX quote, version 4 or 5 (binary, hex or base64)",
    inputs: ["quote"],
    read,
    detect: (file) => isEvidence(file, ["tdx-quote", "sgx-quote"]),
  },
];
