import { createHash } from "node:crypto";
import { type Hex, toHex } from "../core/bytes.ts";
import { nitroRegisters } from "../core/evidence/nitro.ts";
import { snpRegisters } from "../core/evidence/snp.ts";
import { tdxRegisters } from "../core/evidence/tdx.ts";
import type { MachineFacts } from "./decide.ts";
import type { VerifiedEvidence } from "./evidence/binding.ts";

const ZERO_DEVICE: Hex = `0x${"00".repeat(32)}`;
const sha256 = (bytes: Uint8Array): Hex => toHex(createHash("sha256").update(bytes).digest());

/**
 * What a decision needs to know of evidence that a verifier accepted. The device is SHA-256 of what names the hardware: TDX's PPID, as dstack names it;
 * SEV-SNP's chip id, none where the host masks it; Nitro's module id. AMD and AWS publish no TCB statuses: `NotApplicable`.
 *
 * @example
 * const facts = factsOf(verifyTdxQuote(quote, collateral, options));
 */
export function factsOf(evidence: VerifiedEvidence): MachineFacts {
  if (evidence.kind === "tdx") {
    const { quote, tcbStatus, ppid } = evidence;
    const deviceId = sha256(Buffer.from(ppid.slice(2), "hex"));
    return { kind: "tdx", registers: tdxRegisters(quote), tcbStatus, deviceId };
  }
  if (evidence.kind === "snp") {
    const { chipId } = evidence.report;
    const deviceId = chipId.some((byte) => byte !== 0) ? sha256(chipId) : ZERO_DEVICE;
    return { kind: "snp", registers: snpRegisters(evidence.report), tcbStatus: "NotApplicable", deviceId };
  }
  const deviceId = sha256(Buffer.from(evidence.document.moduleId));
  return { kind: "nitro", registers: nitroRegisters(evidence.document), tcbStatus: "NotApplicable", deviceId };
}
