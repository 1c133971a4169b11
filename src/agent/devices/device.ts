import { type Binding, buildReportData } from "../../core/binding.ts";
import { equalBytes } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { parseNitroDocument } from "../../core/evidence/nitro.ts";
import { parseSnpReport } from "../../core/evidence/snp.ts";
import { parseTdxQuote } from "../../core/evidence/tdx.ts";
import { hasErrno } from "../system.ts";

/** Certificates for a SEV-SNP report, DER, as far as the machine has them. */
export interface MachineCertificates {
  /** VCEK or VLEK. */
  readonly endorsementKey?: Uint8Array | undefined;
  /** ASK or ASVK. */
  readonly signer?: Uint8Array | undefined;
  readonly root?: Uint8Array | undefined;
}

/** What a TEE gave out. */
export type DeviceEvidence =
  | { readonly kind: "tdx"; readonly quote: Uint8Array }
  | { readonly kind: "snp"; readonly report: Uint8Array; readonly certificates: MachineCertificates }
  | { readonly kind: "nitro"; readonly document: Uint8Array };

/** Something that makes evidence. */
export interface Device {
  /** For people, e.g. `configfs-tsm (tdx_guest)`. */
  readonly name: string;
  /**
   * Makes evidence for one request.
   *
   * @throws KeysteadError `device/…`
   */
  attest(binding: Binding): Promise<DeviceEvidence>;
}

/** Larger than any evidence with its certificates. */
export const EVIDENCE_BYTES = 128 * 1024;
/** A quoting enclave on a busy host takes seconds. */
export const DEVICE_TIMEOUT_MS = 60_000;

/**
 * Checks that evidence parses and carries what it was asked to: a helper that attests something else is found here, not at a node.
 *
 * @returns the same evidence
 * @throws KeysteadError `device/wrong-binding` {field}, and those of the parsers
 * @example
 * return requireBinding({ kind: "tdx", quote }, binding);
 */
export function requireBinding(evidence: DeviceEvidence, binding: Binding): DeviceEvidence {
  const reportData = buildReportData(binding);
  const require = (field: string, actual: Uint8Array | undefined, wanted: Uint8Array) => {
    if (actual !== undefined && equalBytes(actual, wanted)) return;
    throw new KeysteadError("device/wrong-binding", `the evidence's ${field} is not what the device was given`, {
      argument: "device",
      remedy:
        "Something else answers in the device's place, or a helper ignores its argument: check which device is used.",
      details: { field },
    });
  };
  if (evidence.kind === "tdx") require("report_data", parseTdxQuote(evidence.quote).body.reportData, reportData);
  else if (evidence.kind === "snp") require("report_data", parseSnpReport(evidence.report).reportData, reportData);
  else {
    const document = parseNitroDocument(evidence.document);
    require("user_data", document.userData, reportData);
    require("nonce", document.nonce, binding.nonce);
    require("public_key", document.publicKey, binding.recipientPublicKey);
  }
  return evidence;
}

/**
 * A device whose SEV-SNP reports come with given certificates where the host gives none.
 *
 * @example
 * const device = withCertificates(await detectDevice(system), { endorsementKey, signer });
 */
export function withCertificates(device: Device, given: MachineCertificates): Device {
  return {
    name: device.name,
    attest: async (binding) => {
      const evidence = await device.attest(binding);
      return evidence.kind === "snp" ? { ...evidence, certificates: { ...evidence.certificates, ...given } } : evidence;
    },
  };
}

/**
 * A file-system error of a device as one of ours, by what helps.
 *
 * @example
 * catch (error) { throw deviceError(error, path, "reading the quote"); }
 */
export function deviceError(error: unknown, path: string, doing: string): KeysteadError {
  if (error instanceof KeysteadError) return error;
  const [code, remedy, retryable] = classify(error);
  const said = error instanceof Error ? error.message : String(error);
  return new KeysteadError(`device/${code}`, `${doing} failed: ${said}`, {
    argument: path,
    remedy,
    retryable,
    cause: error,
  });
}

function classify(error: unknown): readonly [code: string, remedy: string, retryable: boolean] {
  if (hasErrno(error, "EACCES", "EPERM"))
    return ["no-permission", "Run the agent as root, or give it the device and CAP_SYS_ADMIN.", false];
  if (hasErrno(error, "ENXIO", "ENOTTY"))
    return ["no-provider", "Load the guest driver of this TEE: modprobe tdx-guest, or modprobe sev-guest.", false];
  if (hasErrno(error, "EBUSY", "EAGAIN", "EINTR"))
    return ["busy", "The device is in use: it is tried again by itself.", true];
  if (hasErrno(error, "ETIMEDOUT", "ETIME"))
    return ["timeout", "The host's quoting service does not answer: ask who runs the host.", true];
  if (hasErrno(error, "EINVAL"))
    return ["refused", "The kernel refused the request: check the privilege level, and the kernel's log.", false];
  if (hasErrno(error, "ENOENT", "ECONNREFUSED"))
    return ["not-there", "Check that this machine is a confidential VM and that its guest driver is loaded.", false];
  return ["failed", "See the kernel's log; the host's quoting service may be down.", true];
}
