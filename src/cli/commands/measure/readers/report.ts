import { toHex } from "../../../../core/bytes.ts";
import { parseSnpReport, type SnpReport, snpFindings, snpRegisters } from "../../../../core/evidence/snp.ts";
import type { Measurement } from "../../../../core/measurement.ts";
import type { Io } from "../../../io.ts";
import { decodeEvidenceFile, EVIDENCE_LIMIT, isEvidence, readRegisters } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

const OFFSETS: Readonly<Record<string, number>> = {
  family_id: 0x10,
  image_id: 0x20,
  measurement: 0x90,
  host_data: 0xc0,
  id_key_digest: 0xe0,
  author_key_digest: 0x110,
};

async function read(io: Io, { inputs }: ReaderArguments): Promise<Measurement> {
  const file = await io.readFile(inputs[0] ?? "-", { limit: EVIDENCE_LIMIT, argument: "report" });
  const evidence = decodeEvidenceFile(file, ["snp-report"], "report");
  const report = parseSnpReport(evidence.bytes);
  return {
    kind: "snp",
    input: "report",
    registers: readRegisters(
      snpRegisters(report),
      file.source,
      (name) => `byte 0x${(OFFSETS[name] ?? 0).toString(16)} of the report`,
    ),
    facts: factsOf(report, evidence.encoding),
    sources: [file.source],
    findings: [...snpFindings(report), ...evidence.findings],
    unchecked: [
      "The report's signature and certificate chain, and whether its TCB is up to date: these are the values that the file claims. Key delivery checks them.",
      "Which software has this measurement: compare it with one computed from its sources.",
    ],
  };
}

function factsOf(report: SnpReport, encoding: string): Record<string, string> {
  const facts: Record<string, string> = {
    format: `SEV-SNP attestation report, version ${report.version}`,
    encoding,
    processor: report.product ?? "not said before version 3",
    policy: `0x${report.policy.value.toString(16)}`,
    vmpl: String(report.vmpl),
    signing_key: report.signingKey,
    platform_info: `0x${report.platformInfo.toString(16)}`,
    reported_tcb: toHex(report.reportedTcb.bytes),
    committed_tcb: toHex(report.committedTcb.bytes),
    current_tcb: toHex(report.currentTcb.bytes),
    launch_tcb: toHex(report.launchTcb.bytes),
    chip_id: toHex(report.chipId),
    report_data: toHex(report.reportData),
  };
  if (report.launchMitigations !== undefined) facts.launch_mitigations = `0x${report.launchMitigations.toString(16)}`;
  if (report.currentMitigations !== undefined)
    facts.current_mitigations = `0x${report.currentMitigations.toString(16)}`;
  return facts;
}

/** AMD SEV-SNP attestation reports. */
export const readers: readonly InputReader[] = [
  {
    name: "report",
    summary: "an AMD SEV-SNP attestation report, version 2 to 5 (binary, hex or base64)",
    inputs: ["report"],
    read,
    detect: (file) => isEvidence(file, ["snp-report"]),
  },
];
