import { type Binding, buildReportData } from "../../core/binding.ts";
import { equalBytes, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import type { VerifiedNitro } from "./nitro.ts";
import type { VerifiedSnp } from "./snp.ts";
import type { VerifiedTdx } from "./tdx.ts";

/* Checks what ties evidence to one request; the formula is core's, for the machine builds by it what is checked here. */

export { type Binding, buildReportData };

/** Evidence that a verifier has accepted. */
export type VerifiedEvidence = VerifiedTdx | VerifiedSnp | VerifiedNitro;

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
