import { computeAggregates } from "../../../../core/evidence/dstack.ts";
import { computeMrConfigHash, parseMrConfig, verifyMrConfig } from "../../../../core/evidence/mr-config.ts";
import { parseSnpReport, snpFindings, snpRegisters } from "../../../../core/evidence/snp.ts";
import type { Finding, MeasuredRegister, Measurement } from "../../../../core/measurement.ts";
import type { InputFile, Io } from "../../../io.ts";
import { jsonObject, measured, OS_IMAGE_OPTIONS, readOsImage, TEXT_LIMIT, textOption } from "../deployment.ts";
import { decodeEvidenceFile, EVIDENCE_LIMIT, fileFindings } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

async function read(io: Io, { inputs, options }: ReaderArguments): Promise<Measurement> {
  const file = await io.readFile(inputs[0] ?? "-", { limit: TEXT_LIMIT, argument: "mr-config" });
  const config = parseMrConfig(file.bytes);
  const osImage = await readOsImage(io, options);
  const name = textOption(options, "report");
  const report = name === undefined ? undefined : await readReport(io, name, file);
  return {
    kind: "dstack",
    input: "mr-config",
    registers: {
      ...(osImage === undefined ? {} : { os_image_hash: osImage.register }),
      compose_hash: measured(config.composeHash, "read", file.source, "compose_hash of the document"),
      ...report?.registers,
    },
    facts: {
      format: "dstack mr-config.json, version 3",
      app_id: config.appId ?? "none",
      instance_id: config.instanceId ?? "none",
      key_provider: `${config.keyProvider}${config.keyProviderId === undefined ? "" : `, id ${config.keyProviderId}`}`,
      gpu_policy_hash: config.gpuPolicyHash ?? "none",
      init_script_hashes: config.initScriptHashes?.join(", ") || "none",
      "host_data that binds it": computeMrConfigHash(file.bytes),
      checked: report === undefined ? "not held against a report" : "host_data of the report binds this document",
    },
    sources: [
      file.source,
      ...(osImage === undefined ? [] : [osImage.register.source]),
      ...(report === undefined ? [] : [report.file.source]),
    ],
    findings: [...fileFindings(file), ...(report?.findings ?? [])],
    unchecked: [
      report === undefined
        ? "The document as a whole: without --report, anyone could have written it."
        : "The report's signature and certificate chain: the document agrees with what the report file claims. Key delivery checks them.",
      ...(osImage?.unchecked ?? [
        "Which OS image the machine boots: add --os-image, and recompute its measurement with measure snp-launch.",
      ]),
    ],
  };
}

interface Report {
  readonly file: InputFile;
  readonly registers: Readonly<Record<string, MeasuredRegister>>;
  readonly findings: readonly Finding[];
}

async function readReport(io: Io, name: string, document: InputFile): Promise<Report> {
  const file = await io.readFile(name, { limit: EVIDENCE_LIMIT, argument: "--report" });
  const evidence = decodeEvidenceFile(file, ["snp-report"], "--report");
  const report = parseSnpReport(evidence.bytes);
  const registers = snpRegisters(report);
  verifyMrConfig(document.bytes, registers);
  const { mrAggregated, mrSystem } = computeAggregates({
    variant: "snp",
    measurement: registers.measurement ?? "0x",
    hostData: registers.host_data ?? "0x",
  });
  return {
    file,
    registers: {
      mr_aggregated: measured(mrAggregated, "computed", file.source, "SHA-256 of measurement and host_data"),
      mr_system: measured(mrSystem, "computed", file.source, "SHA-256 of measurement"),
    },
    findings: [...snpFindings(report), ...evidence.findings],
  };
}

/** Configuration documents of dstack machines on SEV-SNP. */
export const readers: readonly InputReader[] = [
  {
    name: "mr-config",
    summary: "the mr-config.json of a dstack machine on SEV-SNP, held against its report",
    inputs: ["mr-config"],
    options: [
      { flags: "--report <file>", description: "the SEV-SNP report of the same machine, to hold the document against" },
      ...OS_IMAGE_OPTIONS,
    ],
    read,
    detect: (file) => {
      const value = jsonObject(file);
      return value?.version === 3 && value.compose_hash !== undefined;
    },
  },
];
