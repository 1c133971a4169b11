import { isKeysteadError, type KeysteadError } from "../core/errors.ts";
import { PROBLEMS, type Problem, type ProblemCode } from "../core/release-wire.ts";
import { tcbSchema } from "../core/tcb.ts";

const CODES = new Map<string, ProblemCode>((Object.keys(PROBLEMS) as ProblemCode[]).map((code) => [code, code]));

/** What went wrong, as the one who asked is told: a code, a sentence, and for a denial what the contracts say. Never a cause or a stack. */
export function toProblem(error: unknown): Problem {
  const known = isKeysteadError(error) ? error : undefined;
  const code = CODES.get(known?.code ?? "") ?? fallback(known?.code);
  const { status, title } = PROBLEMS[code];
  // The sentences of codes that are not problems' own are for this node's operator; so are those that name where it gets its collateral.
  const forAll = known?.code === code && code !== "collateral/unavailable";
  const detail = known !== undefined && forAll ? known.message : title;
  const retryable = known?.retryable ?? status === 503;
  const problem: Problem = { type: `urn:keystead:problem:${code}`, title, status, code, detail, retryable };
  const { reason, decision, block, tcb } = known?.code === code ? known.details : { reason: reasonOf(code, known) };
  const short = tcbSchema.safeParse(tcb);
  return {
    ...problem,
    ...(typeof reason === "string" ? { reason } : {}),
    ...(typeof decision === "string" ? { decision } : {}),
    ...(isBlock(block) ? { block } : {}),
    ...(short.success ? { tcb: short.data } : {}),
  };
}

/** What has no code of its own is this node's fault, or the reader's: never a yes. */
function fallback(code: string | undefined): ProblemCode {
  if (code === "wire/malformed" || code?.startsWith("json/") || code?.startsWith("hex/") || code === "text/not-utf8")
    return "request/malformed";
  return "node/failed";
}

/** Where a malformed request is wrong: a place in the schema, or what its reader calls it. Neither quotes the request. */
function reasonOf(code: ProblemCode, error: KeysteadError | undefined): string | undefined {
  if (code !== "request/malformed" || error === undefined) return undefined;
  const { path } = error.details;
  return typeof path === "string" && path !== "" ? path : error.code;
}

function isBlock(value: unknown): value is NonNullable<Problem["block"]> {
  return typeof value === "object" && value !== null && "number" in value && "hash" in value;
}
