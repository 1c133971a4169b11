import type { TdxBody } from "../../core/evidence/tdx.ts";
import { GOOD_TCB, type TcbPart, type TcbReport, type TcbShortfall } from "../../core/tcb.ts";
import {
  type ModuleVerdict,
  type PlatformTcb,
  platformShortfall,
  type QeIdentity,
  type SvnLevel,
  type TcbInfo,
  type TcbStatus,
  type TcbVerdict,
  targetLevel,
} from "./tdx-tcb.ts";

/*
 * Why a TDX platform has its TCB status: for each part the level that it reached, and what separates it from the newest level that is up to date. Told to
 * operators; the status itself is judged in tdx-tcb.ts, and nothing is decided here.
 */

/** What was judged, and by what. */
export interface JudgedTdx {
  readonly status: TcbStatus;
  readonly platform: TcbVerdict;
  readonly module: ModuleVerdict | undefined;
  readonly qe: TcbVerdict;
  readonly tcb: PlatformTcb;
  readonly body: TdxBody;
  readonly qeIsvSvn: number;
  readonly tcbInfo: TcbInfo;
  readonly qeIdentity: QeIdentity;
}

/**
 * Explains a TCB status.
 *
 * @example
 * explainTdx(judged).parts.filter(({ short }) => short.length > 0);
 */
export function explainTdx(judged: JudgedTdx): Omit<TcbReport, "until" | "early"> & { readonly evaluation: number } {
  const { status, platform, module, qe, tcbInfo, qeIdentity } = judged;
  const parts: TcbPart[] = [partOf("platform", platform, platformShortfall(judged.tcb, judged.body, tcbInfo))];
  if (module !== undefined) {
    const levels = tcbInfo.moduleIdentities.get(module.id)?.levels ?? [];
    parts.push(partOf("module", module, svnShortfall(`TDX module ${module.id}`, module.isvSvn, levels)));
  }
  parts.push(partOf("qe", qe, svnShortfall("quoting enclave", judged.qeIsvSvn, qeIdentity.levels)));
  const evaluation = Math.min(tcbInfo.evaluationDataNumber, qeIdentity.evaluationDataNumber);
  return { status, parts, evaluation };
}

function partOf(part: TcbPart["part"], { status, tcbDate, advisoryIds }: TcbVerdict, short: TcbShortfall[]): TcbPart {
  return { part, status, date: tcbDate, advisories: [...advisoryIds], short: GOOD_TCB.has(status) ? [] : short };
}

function svnShortfall(svn: string, have: number, levels: readonly SvnLevel[]): TcbShortfall[] {
  const need = targetLevel(levels)?.isvSvn ?? have;
  return have < need ? [{ svn, have, need }] : [];
}
