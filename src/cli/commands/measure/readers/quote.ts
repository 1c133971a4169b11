import { decodeUtf8, toHex } from "../../../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../../../core/errors.ts";
import { parseTdxQuote, type TdxQuote, tdxFindings, tdxRegisters } from "../../../../core/evidence/tdx.ts";
import type { Finding, Measurement } from "../../../../core/measurement.ts";
import { describeTcb, describeTcbPart } from "../../../../core/tcb.ts";
import { isoTime } from "../../../../node/evidence/time.ts";
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

/** Collateral with a revocation list of a hundred thousand entries, in hex. */
const COLLATERAL_LIMIT = 16 * 1024 * 1024;

const BODY_NAMES = { "td1.0": "TD 1.0", "td1.5": "TD 1.5", extended: "extended (type 4)" } as const;

async function read(io: Io, { inputs, options }: ReaderArguments): Promise<Measurement> {
  const file: InputFile = await io.readFile(inputs[0] ?? "-", { limit: EVIDENCE_LIMIT, argument: "quote" });
  const evidence = decodeEvidenceFile(file, ["tdx-quote", "sgx-quote"], "quote");
  const quote = parseTdxQuote(evidence.bytes);
  const shift = quote.header.version === 5 ? 6 : 0;
  const judged = await judge(io, evidence.bytes, options);
  return {
    kind: "tdx",
    input: "quote",
    registers: readRegisters(
      tdxRegisters(quote),
      file.source,
      (name) => `byte ${(OFFSETS[name] ?? 0) + shift} of the quote`,
    ),
    facts: { ...factsOf(quote, evidence.encoding), ...judged?.facts },
    sources: [file.source, ...(judged?.sources ?? [])],
    findings: [...tdxFindings(quote), ...evidence.findings, ...(judged?.findings ?? [])],
    unchecked: [
      judged?.unchecked ??
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

/** The quote held against collateral, as a node holds it. */
interface Judged extends Pick<Measurement, "facts" | "sources" | "findings"> {
  readonly unchecked: string;
}

const TIME_REMEDY = "Give a time like 2026-11-29T12:00:00Z, or seconds since 1970.";

/** Seconds since 1970. */
function readTime(text: string | boolean | undefined): number {
  if (text === undefined) return Math.floor(Date.now() / 1000);
  const given = String(text);
  const seconds = /^\d{9,11}$/.test(given) ? Number(given) : Math.floor(Date.parse(given) / 1000);
  if (Number.isFinite(seconds) && /^\d{9,11}$|^\d{4}-\d\d-\d\d(T|$)/.test(given)) return seconds;
  throw new KeysteadError("usage/time", `${JSON.stringify(given)} is not a time`, {
    argument: "at",
    remedy: TIME_REMEDY,
  });
}

async function judge(io: Io, quote: Uint8Array, options: ReaderArguments["options"]): Promise<Judged | undefined> {
  const { collateral: name, at } = options;
  if (typeof name !== "string") {
    if (at === undefined) return undefined;
    throw new KeysteadError("usage/at-without-collateral", "a time is given, and nothing to judge at that time", {
      argument: "at",
      remedy: "Add --collateral FILE.",
    });
  }
  const atUnixSeconds = readTime(at);
  // Certificates are much to load for who only measures.
  const [{ verifyTdxQuote }, { parseTdxCollateral, verifyTdxCollateral }] = await Promise.all([
    import("../../../../node/evidence/tdx.ts"),
    import("../../../../node/evidence/tdx-collateral.ts"),
  ]);
  const file = await io.readFile(name, { limit: COLLATERAL_LIMIT, argument: "collateral" });
  const given = parseTdxCollateral(decodeUtf8(file.bytes, "collateral"));
  const sources = [file.source];
  try {
    const collateral = verifyTdxCollateral(given, { atUnixSeconds });
    const { tcb, fmspc } = verifyTdxQuote(quote, collateral, { atUnixSeconds });
    const facts = {
      judged_at: isoTime(atUnixSeconds),
      platform_family: fmspc,
      tcb_status: tcb.status,
      ...Object.fromEntries(tcb.parts.map((part) => [`tcb_${part.part}`, describeTcbPart(part)])),
      tcb_evaluation: String(tcb.evaluation),
      tcb_good_until: isoTime(tcb.until ?? collateral.validUntil),
    };
    const short = describeTcb(tcb);
    const findings: Finding[] =
      short === undefined ? [] : [{ code: "evidence/tcb", severity: "warning", message: short }];
    const unchecked =
      "Whether the collateral is Intel's newest: it was in date at the time that was judged, and newer may say something else.";
    return { facts, sources, findings, unchecked };
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    const message = `not genuine at ${isoTime(atUnixSeconds)} by this collateral: ${error.message} [${error.code}]`;
    return {
      facts: { judged_at: isoTime(atUnixSeconds) },
      sources,
      findings: [{ code: "evidence/not-genuine", severity: "unsafe", message }],
      unchecked: "Everything beyond what failed.",
    };
  }
}

/** Intel TDX quotes. */
export const readers: readonly InputReader[] = [
  {
    name: "quote",
    summary: "an Intel TDX quote, version 4 or 5 (binary, hex, base64 or base64url)",
    inputs: ["quote"],
    options: [
      {
        flags: "--collateral <file>",
        description:
          "judges the quote by Intel's collateral (JSON, as a node's collateralFiles): genuine or not, and what falls short of its TCB",
      },
      {
        flags: "--at <time>",
        description: "with --collateral: at which time (2026-11-29T12:00:00Z, or seconds since 1970); default: now",
      },
    ],
    read,
    detect: (file) => isEvidence(file, ["tdx-quote", "sgx-quote"]),
  },
];
