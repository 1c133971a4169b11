import { createHash } from "node:crypto";
import { type Hex, toHex } from "../core/bytes.ts";
import { nitroRegisters } from "../core/evidence/nitro.ts";
import { type SnpTcb, snpRegisters } from "../core/evidence/snp.ts";
import { tdxRegisters } from "../core/evidence/tdx.ts";
import type { TcbReport, TcbShortfall } from "../core/tcb.ts";
import type { MachineFacts } from "./decide.ts";
import type { VerifiedEvidence } from "./evidence/binding.ts";
import type { TcbPartName, VerifiedSnp } from "./evidence/snp.ts";

const SNP_PARTS: readonly TcbPartName[] = ["fmc", "bootloader", "tee", "snp", "microcode"];

/** From what on a SEV-SNP machine counts as UpToDate. A part left out may be anything. */
export type SnpMinimumTcb = Partial<Record<TcbPartName, number>> & {
  /**
   * Whether the firmware must have checked the memory for aliases (ALIAS_CHECK_COMPLETE; BadRAM, AMD-SB-3015). Default: true. AMD's fix is firmware of a
   * certain version *and* this check.
   */
  readonly aliasCheck?: boolean | undefined;
};

/** What evidence alone does not say. */
export interface FactsOptions {
  /**
   * By product. AMD signs no list of statuses as Intel does, so the operator says which versions are good (AMD's security bulletins name them). A product
   * without an entry is never UpToDate: its status is OutOfDate, which the policy accepts or not.
   */
  readonly snpMinimumTcb?: Partial<Record<VerifiedSnp["product"], SnpMinimumTcb>> | undefined;
}

/** What stands for a machine that its evidence does not name. */
export const NO_DEVICE: Hex = `0x${"00".repeat(32)}`;

/**
 * What a decision needs of verified evidence. Device ids are those that dstack uses, so that one list serves both: SHA-256 of the PPID (TDX), of the chip
 * id (SEV-SNP), of the EC2 instance id (Nitro, where the part after it differs at every start).
 *
 * @example
 * const machine = factsOf(verifyTdxQuote(quote, collateral, { atUnixSeconds }), {});
 */
export function factsOf(verified: VerifiedEvidence, { snpMinimumTcb = {} }: FactsOptions): MachineFacts {
  switch (verified.kind) {
    case "tdx":
      return {
        kind: "tdx",
        registers: tdxRegisters(verified.quote),
        tcbStatus: verified.tcbStatus,
        deviceId: sha256(Buffer.from(verified.ppid.slice(2), "hex")),
      };
    case "snp":
      return {
        kind: "snp",
        registers: snpRegisters(verified.report),
        tcbStatus: explainSnp(verified, snpMinimumTcb).short.length === 0 ? "UpToDate" : "OutOfDate",
        // Where the host masks the report's chip id, the VCEK names the chip; under a VLEK nothing does.
        deviceId: verified.chipId === undefined ? NO_DEVICE : sha256(verified.chipId),
      };
    case "nitro": {
      const instance = /^(i-[0-9a-f]+)-enc[0-9a-f]+$/.exec(verified.document.moduleId)?.[1];
      return {
        kind: "nitro",
        registers: nitroRegisters(verified.document),
        tcbStatus: "NotApplicable",
        deviceId: instance === undefined ? NO_DEVICE : sha256(Buffer.from(instance)),
      };
    }
  }
}

/** What a SEV-SNP machine lacks of the operator's minimum; the state at launch counts too: firmware that was broken then may have measured anything. */
function explainSnp(
  { report, product }: VerifiedSnp,
  minimums: NonNullable<FactsOptions["snpMinimumTcb"]>,
): { readonly short: readonly TcbShortfall[] } {
  const minimum = minimums[product];
  if (minimum === undefined)
    return { short: [{ svn: `any minimum for ${product} (evidence.snpMinimumTcb)`, have: 0, need: 1 }] };
  const lacks = (when: string, tcb: SnpTcb): TcbShortfall[] =>
    SNP_PARTS.flatMap((part) => {
      const need = minimum[part];
      const have = tcb[part];
      // A minimum for a part that the product does not have can never be reached.
      return need === undefined || (have !== undefined && have >= need)
        ? []
        : [{ svn: `${part}${when}`, have: have ?? 0, need }];
    });
  const alias =
    minimum.aliasCheck !== false && !report.aliasCheckComplete
      ? [{ svn: "ALIAS_CHECK_COMPLETE (BadRAM, AMD-SB-3015)", have: 0, need: 1 }]
      : [];
  return { short: [...lacks("", report.reportedTcb), ...lacks(" at launch", report.launchTcb), ...alias] };
}

/**
 * Why verified evidence has its TCB status, for people; `undefined` for evidence that has none (Nitro).
 *
 * @example
 * const tcb = tcbReportOf(verified, {});
 */
export function tcbReportOf(verified: VerifiedEvidence, { snpMinimumTcb = {} }: FactsOptions): TcbReport | undefined {
  if (verified.kind === "tdx") return verified.tcb;
  if (verified.kind === "nitro") return undefined;
  const short = [...explainSnp(verified, snpMinimumTcb).short];
  const status = short.length === 0 ? "UpToDate" : "OutOfDate";
  return { status, parts: [{ part: "platform", status, advisories: [], short }] };
}

function sha256(bytes: Uint8Array): Hex {
  return toHex(createHash("sha256").update(bytes).digest());
}
