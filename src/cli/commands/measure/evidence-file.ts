import { decodeUtf8, type Hex } from "../../../core/bytes.ts";
import { decodeBytesText } from "../../../core/bytes-text.ts";
import { KeysteadError } from "../../../core/errors.ts";
import { type Detected, detectEvidence, type EvidenceFormat } from "../../../core/evidence/detect.ts";
import { unwrapPage } from "../../../core/evidence/page.ts";
import type { Finding, MeasuredRegister, MeasurementSource } from "../../../core/measurement.ts";
import type { InputFile } from "../../io.ts";

/** No evidence is larger: a TDX quote has 5 KB, or 10 KB in hex. */
export const EVIDENCE_LIMIT = 1024 * 1024;

const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];

/** An evidence file with its encoding undone, and what was noticed on the way. */
export interface EvidenceFile extends Detected {
  readonly findings: readonly Finding[];
}

/**
 * What to tell about a file besides its contents: symbolic links followed.
 *
 * @example
 * const findings = fileFindings(await io.readFile(name));
 */
export function fileFindings(file: InputFile): Finding[] {
  return file.notes.map((message) => ({ code: "input/symlink", severity: "warning", message }));
}

/**
 * Undoes a file's encoding and checks that it is of the wanted format, or at least of no other that is known.
 *
 * @throws KeysteadError `measure/wrong-input` {expected, actual} where the file is certainly something else; `text/not-bytes` where it is text that is
 * neither hex nor base64
 * @example
 * const { bytes } = decodeEvidenceFile(file, ["tdx-quote", "sgx-quote"], "quote");
 */
export function decodeEvidenceFile(file: InputFile, wanted: readonly EvidenceFormat[], argument: string): EvidenceFile {
  const findings = fileFindings(file);
  let bytes = file.bytes;
  if (BYTE_ORDER_MARK.every((byte, index) => bytes[index] === byte)) {
    bytes = bytes.subarray(BYTE_ORDER_MARK.length);
    findings.push({
      code: "input/byte-order-mark",
      severity: "warning",
      message: `${file.name} starts with a UTF-8 byte order mark, which was passed over`,
    });
  }
  const inner = unwrapPage(bytes, argument);
  if (inner !== undefined) {
    bytes = inner;
    findings.push({
      code: "input/page",
      severity: "warning",
      message: `${file.name} is a web page: the evidence inside it was read`,
    });
  }
  const detected = detectEvidence(bytes);
  if (detected.format !== "unknown" && !wanted.includes(detected.format)) {
    throw new KeysteadError("measure/wrong-input", `${file.name} is another kind of input: ${detected.description}`, {
      argument,
      remedy: `Use ${COMMAND_OF[detected.format] ?? "the command for it"}.`,
      details: { expected: wanted, actual: detected.format },
    });
  }
  if (detected.encoding === "text" && detected.format === "unknown") {
    // A parser of binary data would call it a quote of an unknown version.
    if (!wanted.includes("nitro-pcrs") || !/^\s*[{[]/m.test(decodeUtf8(bytes, argument)))
      decodeBytesText(decodeUtf8(bytes, argument), argument, EXPECTED[argument] ?? "the evidence");
  }
  return { ...detected, findings };
}

const EXPECTED: Readonly<Record<string, string>> = {
  quote: "a TDX quote",
  report: "a SEV-SNP attestation report",
  nitro: "a Nitro document, or the JSON of nitro-cli",
};

const COMMAND_OF: Readonly<Partial<Record<EvidenceFormat, string>>> = {
  "tdx-quote": "keystead measure quote",
  "sgx-quote": "a TDX quote: an SGX enclave cannot be registered",
  "snp-report": "keystead measure report",
  "azure-hcl":
    "a provider whose guests choose the report data: Azure's do not, so its evidence cannot be bound to a request",
  "nitro-document": "keystead measure nitro",
  "nitro-pcrs": "keystead measure nitro",
};

/**
 * Whether a file is certainly of a format.
 *
 * @example
 * detect: (file) => isEvidence(file, ["snp-report"])
 */
export function isEvidence(file: InputFile, formats: readonly EvidenceFormat[]): boolean {
  return formats.includes(detectEvidence(file.bytes).format);
}

/**
 * Registers read in evidence, each with where in it.
 *
 * @example
 * readRegisters(tdxRegisters(quote), file.source, (name) => `MRTD at byte 184`);
 */
export function readRegisters(
  values: Readonly<Record<string, Hex>>,
  source: MeasurementSource,
  place: (name: string) => string,
): Readonly<Record<string, MeasuredRegister>> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, { value, how: "read", source, formula: place(name) }]),
  );
}
