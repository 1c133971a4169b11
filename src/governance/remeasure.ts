import { isKeysteadError } from "../core/errors.ts";
import { detectEvidence } from "../core/evidence/detect.ts";
import { computeComposeHash, computeOsImageHash, parseChecksumFile, parseDigestFile } from "../core/evidence/dstack.ts";
import { nitroFindings, nitroRegisters, parseNitroDocument, parseNitroPcrs } from "../core/evidence/nitro.ts";
import { parseSnpReport, snpFindings, snpRegisters } from "../core/evidence/snp.ts";
import { parseTdxQuote, tdxFindings, tdxRegisters } from "../core/evidence/tdx.ts";
import type { TeeKind } from "../core/image.ts";
import type { Finding } from "../core/measurement.ts";

/**
 * What stands behind a register's value: `measured`, computed again here from bytes that are kept with the proposal; `claimed`, by a quote, a report or a
 * document that is kept, whose signature nobody checked here; `stated`, by whoever wrote the measurement, and by nothing else.
 */
export type Standing = "measured" | "claimed" | "stated";

/** One value that a kept source gives for a register. */
export interface SourceValue {
  readonly value: string;
  readonly standing: Exclude<Standing, "stated">;
  /** In one line, for people. */
  readonly why: string;
}

/** What a kept source says, measured again. */
export interface SourceReading {
  readonly kind: TeeKind;
  readonly values: Readonly<Record<string, SourceValue>>;
  /** About the machine that made evidence. */
  readonly findings: readonly Finding[];
}

/**
 * Measures a kept source again, from its bytes alone: evidence by its own parser, dstack's files by their hashes.
 *
 * @param kind the TEE kind that the measurement says it is of
 * @param wanted the registers whose image is proposed
 * @returns undefined where these bytes alone say nothing about any register
 * @example
 * readSource(bytes, "measurements/source-1-app-compose.json", "dstack", ["compose_hash"])?.values.compose_hash?.standing; // "measured"
 */
export function readSource(
  bytes: Uint8Array,
  file: string,
  kind: TeeKind,
  wanted: readonly string[],
): SourceReading | undefined {
  try {
    return readEvidence(bytes, file) ?? (kind === "dstack" ? readDstack(bytes, file, wanted) : undefined);
  } catch (error) {
    // what looks like evidence and does not parse says nothing: the register stays what somebody states
    if (!isKeysteadError(error)) throw error;
    return undefined;
  }
}

const claims = (registers: Readonly<Record<string, string>>, what: string, file: string) =>
  Object.fromEntries(
    Object.entries(registers).map(([name, value]): [string, SourceValue] => [
      name,
      { value, standing: "claimed", why: `by the ${what} in ${file}; its signature was NOT checked here` },
    ]),
  );

function readEvidence(file: Uint8Array, name: string): SourceReading | undefined {
  const { format, bytes } = detectEvidence(file);
  if (format === "tdx-quote") {
    const quote = parseTdxQuote(bytes);
    return { kind: "tdx", values: claims(tdxRegisters(quote), "TDX quote", name), findings: tdxFindings(quote) };
  }
  if (format === "snp-report") {
    const report = parseSnpReport(bytes);
    const values = claims(snpRegisters(report), "SEV-SNP report", name);
    return { kind: "snp", values, findings: snpFindings(report) };
  }
  if (format === "nitro-document") {
    const document = parseNitroDocument(bytes);
    const values = claims(nitroRegisters(document), "Nitro document", name);
    return { kind: "nitro", values, findings: nitroFindings(document) };
  }
  if (format === "nitro-pcrs") {
    const pcrs = parseNitroPcrs(new TextDecoder().decode(bytes));
    const stated = Object.entries(claims(nitroRegisters(pcrs), "list of PCRs", name)).map(
      ([register, value]): [string, SourceValue] => [
        register,
        { ...value, why: `by the list of PCRs in ${name}, which nothing signs` },
      ],
    );
    return { kind: "nitro", values: Object.fromEntries(stated), findings: [] };
  }
  return undefined;
}

/** Files of dstack, told by what they are: a digest file and a list of checksums have one form each, a compose file is a JSON object. */
function readDstack(bytes: Uint8Array, file: string, wanted: readonly string[]): SourceReading | undefined {
  const values: Record<string, SourceValue> = {};
  const text = new TextDecoder().decode(bytes).trimStart();
  if (wanted.includes("compose_hash") && text.startsWith("{")) {
    const why = `SHA-256 of the exact bytes of ${file}`;
    values.compose_hash = { value: computeComposeHash(bytes), standing: "measured", why };
  }
  const checksums = parsed(() => parseChecksumFile(bytes));
  if (checksums !== undefined && checksums.length > 0) {
    const why = `SHA-256 of ${file}, which lists the OS image's files`;
    values.os_image_hash = { value: computeOsImageHash(bytes), standing: "measured", why };
  }
  const digest = (checksums ?? []).length === 0 ? parsed(() => parseDigestFile(bytes)) : undefined;
  if (digest !== undefined) {
    values.os_image_hash = { value: digest, standing: "claimed", why: `by the digest in ${file}, which nothing signs` };
  }
  return Object.keys(values).length === 0 ? undefined : { kind: "dstack", values, findings: [] };
}

function parsed<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    return undefined;
  }
}
