import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { printable } from "../core/printable.ts";

/*
 * What an endpoint's refusal means, by what helps against it. Codes and texts are those of services and nodes in use; the same code means different
 * things at different services, so nothing but retrying and wording hangs on this. Ranges of logs in particular do not: there any refusal makes the range
 * smaller (log-range.ts).
 */

/** An endpoint's refusal, as it was thrown. */
interface Refusal {
  readonly code: unknown;
  readonly text: string;
  /** The HTTP status, where it came over HTTP. */
  readonly status: number;
}

const LIMITED = /rate.?limit|too many requests|compute units|throughput|capacity exceeded|\b429\b|limit exceeded/i;
const TOO_MUCH =
  /range|too many|more than|limit|exceed|too (large|big|wide)|at most|smaller|distance|timed? ?out|over \d/i;
/** Nodes that are behind, of which a balancer may have chosen one: the next attempt may meet another. */
const BEHIND =
  /(header|block|state)( \w+)? (is )?not found|unknown block|missing block|not available yet|beyond (the )?(current )?head|after last accepted/i;
const PASSING =
  /please (re)?try|try again|temporar|internal (server )?error|no backend|not currently healthy|overloaded|\bbusy\b|bad gateway|gateway time|service unavailable|timed? ?out|timeout/i;
const UNSUPPORTED =
  /not (supported|available|found|implemented)|does not exist|unsupported|unknown method|not whitelisted/i;
const PROOF_WINDOW = /proof window/i;
/** Internal error (JSON-RPC 2.0), and dRPC's own "temporary internal error". */
const PASSING_CODES: ReadonlySet<unknown> = new Set([-32603, 19]);
/** Geth's EIP-1474 successor for a revert, and Nethermind's "VM execution error". */
const REVERT_CODES: ReadonlySet<unknown> = new Set([3, -32015]);

/**
 * Sorts what a provider throws by what helps against it. A text that is not known is refused, not retried.
 *
 * @example
 * rpcError("eth_call", { code: 3, message: "execution reverted" }).code; // "chain/reverted"
 */
export function rpcError(method: string, cause: unknown): KeysteadError {
  if (isKeysteadError(cause)) return cause;
  const { code, text, status } = readRefusal(cause);
  const make = (name: string, remedy: string, retryable = false) =>
    new KeysteadError(`chain/${name}`, `${method}: ${text}`, { remedy, retryable, details: { method, code }, cause });

  if (REVERT_CODES.has(code) || /revert/i.test(text))
    return make("reverted", "Check the address: the contract there refuses this question.");
  if (method === "eth_getLogs" && code === -32005 && !/rate|second|daily|request count/i.test(text))
    return make("too-much", "Ask for fewer blocks at once.");
  if (code === 429 || status === 429 || code === -32005 || LIMITED.test(withoutLogs(method, text)))
    return make("rate-limited", "Try again later, or use another endpoint.", true);
  if (PROOF_WINDOW.test(text)) {
    const remedy =
      "Read at the newest block, or use an endpoint that proves older ones (reth: --rpc.eth-proof-window).";
    return make("proof-window", remedy);
  }
  if (BEHIND.test(text)) {
    return make("no-block", "Try again: the endpoint, or one of the nodes behind it, has not got that far.", true);
  }
  if (code === -32601 || code === -32004 || code === 4200) return unsupported(make);
  if (status >= 500 || PASSING_CODES.has(code) || (PASSING.test(text) && method !== "eth_getLogs")) {
    return make("unreachable", "Try again: the endpoint calls this a passing failure.", true);
  }
  if (method === "eth_getLogs" && typeof code === "number" && TOO_MUCH.test(text)) {
    return make("too-much", "Ask for fewer blocks at once.");
  }
  if (typeof code === "number" && UNSUPPORTED.test(text)) return unsupported(make);
  if (typeof code === "number") return make("refused", "Check the endpoint and what it is asked.");
  return make("unreachable", "Check the endpoint and the network, and try again.", true);
}

const unsupported = (make: (name: string, remedy: string) => KeysteadError) =>
  make("unsupported", "Use an endpoint that offers this method, for blocks as old as those asked for.");

/** For logs "limit exceeded" is a matter of the range. */
const withoutLogs = (method: string, text: string) =>
  method === "eth_getLogs" ? text.replace(/limit exceeded/gi, "") : text;

/** Providers wrap each other's errors: the endpoint's own is the innermost. The reason may stand in `data` (Tenderly). */
function readRefusal(cause: unknown): Refusal {
  const thrown = objectOf(cause);
  const wrapped = [objectOf(thrown.info).error, thrown.error].find((each) => typeof each === "object" && each !== null);
  const inner = objectOf(wrapped ?? thrown);
  const message = inner.message ?? thrown.message ?? (typeof thrown.error === "string" ? thrown.error : undefined);
  const reason = typeof inner.data === "string" && !/^0x/.test(inner.data) ? inner.data : "";
  const text = String(message ?? cause);
  const whole = reason === "" || text.includes(reason) ? text : `${text}: ${reason}`;
  return { code: inner.code ?? thrown.code, text: printable(whole, 300), status: Number(thrown.status ?? 0) };
}

/**
 * The data that a revert gave, wherever its provider put it: `0x…`, or `Reverted 0x…` (Nethermind, OpenEthereum).
 *
 * @param error as it was thrown
 * @returns lower-case hex; undefined where none was given
 * @example
 * revertData(error.cause)?.slice(0, 10); // the selector of the error
 */
export function revertData(error: unknown, depth = 0): Hex | undefined {
  if (typeof error === "string") {
    const [, data] = /^(?:reverted\s+)?(0x(?:[0-9a-f]{2})+)$/i.exec(error.trim()) ?? [];
    return data === undefined ? undefined : (data.toLowerCase() as Hex);
  }
  if (typeof error !== "object" || error === null || depth > 5) return undefined;
  for (const key of ["data", "error", "info", "cause"]) {
    const found = revertData(Reflect.get(error, key), depth + 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

const objectOf = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
