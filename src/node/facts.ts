import { createHash } from "node:crypto";
import { type Hex, isZero, toHex } from "../core/bytes.ts";
import { nitroRegisters } from "../core/evidence/nitro.ts";
import { type SnpTcb, snpRegisters } from "../core/evidence/snp.ts";
import { tdxRegisters } from "../core/evidence/tdx.ts";
import type { MachineFacts } from "./decide.ts";
import type { VerifiedEvidence } from "./evidence/binding.ts";
import type { VerifiedSnp } from "./evidence/snp.ts";

/** The least TCB versions at which a SEV-SNP machine counts as UpToDate. A part left out may be anything. */
export type SnpMinimumTcb = Partial<Record<"fmc" | "bootloader" | "tee" | "snp" | "microcode", number>>;

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
    case "snp": {
      const { report, product } = verified;
      const minimum = snpMinimumTcb[product];
      // The state at launch counts too: firmware that was broken then may have measured anything.
      const good =
        minimum !== undefined && [report.reportedTcb, report.launchTcb].every((tcb) => reaches(tcb, minimum));
      return {
        kind: "snp",
        registers: snpRegisters(report),
        tcbStatus: good ? "UpToDate" : "OutOfDate",
        // Under a VLEK, and where the host masks it, the chip id is zero and names no machine.
        deviceId: isZero(report.chipId) ? NO_DEVICE : sha256(report.chipId),
      };
    }
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

function reaches(tcb: SnpTcb, minimum: SnpMinimumTcb): boolean {
  const parts = ["fmc", "bootloader", "tee", "snp", "microcode"] as const;
  return parts.every((part) => {
    const least = minimum[part];
    const actual = tcb[part];
    return least === undefined || (actual !== undefined && actual >= least);
  });
}

function sha256(bytes: Uint8Array): Hex {
  return toHex(createHash("sha256").update(bytes).digest());
}
