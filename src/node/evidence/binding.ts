import { createHash } from "node:crypto";
import { concatBytes, equalBytes, fromHex, type Hex, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import type { VerifiedNitro } from "./nitro.ts";
import type { VerifiedSnp } from "./snp.ts";
import type { VerifiedTdx } from "./tdx.ts";

/*
 * What ties evidence to one request: the machine puts a hash of the node's nonce, the service and its own public key where its TEE signs it. So evidence
 * cannot be used twice, for another service, or to have keys sealed to somebody else. Release protocol version 1.
 */

const DOMAIN = "keystead/v1/report";
const NONCE_BYTES = 32;
const SERVICE_ID_BYTES = 20;
const X25519_KEY_BYTES = 32;

/** What evidence must be bound to. */
export interface Binding {
  /** The node's challenge, 32 bytes. */
  readonly nonce: Uint8Array;
  /** The service, 20 bytes in hex. */
  readonly serviceId: Hex;
  /** The machine's X25519 public key, 32 bytes. */
  readonly recipientPublicKey: Uint8Array;
}

/** Evidence that a verifier has accepted. */
export type VerifiedEvidence = VerifiedTdx | VerifiedSnp | VerifiedNitro;

/**
 * The 64 bytes that evidence must carry: SHA-512("keystead/v1/report" ‖ nonce ‖ serviceId ‖ recipientPublicKey). The parts have fixed lengths, so
 * no two different bindings give the same bytes.
 *
 * @throws KeysteadError `binding/wrong-length` {field, expected, actual}, `hex/malformed`
 * @example
 * const reportData = buildReportData({ nonce, serviceId, recipientPublicKey }); // 64 bytes
 */
export function buildReportData({ nonce, serviceId, recipientPublicKey }: Binding): Uint8Array {
  const service = fromHex(serviceId, "serviceId");
  checkLength("nonce", nonce, NONCE_BYTES);
  checkLength("serviceId", service, SERVICE_ID_BYTES);
  checkLength("recipientPublicKey", recipientPublicKey, X25519_KEY_BYTES);
  const bytes = concatBytes(Buffer.from(DOMAIN), nonce, service, recipientPublicKey);
  return new Uint8Array(createHash("sha512").update(bytes).digest());
}

function checkLength(field: string, bytes: Uint8Array, expected: number): void {
  if (bytes.length === expected) return;
  throw new KeysteadError("binding/wrong-length", `${field} has ${bytes.length} bytes, not ${expected}`, {
    argument: field,
    remedy: `Give ${expected} bytes.`,
    details: { field, expected, actual: bytes.length },
  });
}

/**
 * Checks that evidence was made for this request: report data of TDX and SEV-SNP; `user_data`, `nonce` and `public_key` of Nitro, all three.
 *
 * @throws KeysteadError `binding/mismatch` {field}, and those of {@link buildReportData}
 * @example
 * checkBinding(verifyTdxQuote(bytes, collateral, options), { nonce, serviceId, recipientPublicKey });
 */
export function checkBinding(evidence: VerifiedEvidence, binding: Binding): void {
  const expected = buildReportData(binding);
  const check = (field: string, actual: Uint8Array | undefined, wanted: Uint8Array) => {
    if (actual !== undefined && equalBytes(actual, wanted)) return;
    throw new KeysteadError(
      "binding/mismatch",
      `the evidence's ${field} is not for this nonce, service and public key`,
      {
        argument: "evidence",
        remedy: "Ask for a new challenge, and let the machine make evidence for exactly that nonce, service and key.",
        details: { field, expected: toHex(wanted), actual: actual === undefined ? undefined : toHex(actual) },
      },
    );
  };
  if (evidence.kind === "tdx") check("report_data", evidence.quote.body.reportData, expected);
  else if (evidence.kind === "snp") check("report_data", evidence.report.reportData, expected);
  else {
    const { userData, nonce, publicKey } = evidence.document;
    check("user_data", userData, expected);
    check("nonce", nonce, binding.nonce);
    check("public_key", publicKey, binding.recipientPublicKey);
  }
}
