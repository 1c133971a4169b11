import type { z } from "zod";
import { KeysteadError } from "../core/errors.ts";
import { printable } from "../core/printable.ts";
import { type Problem, parseMessage, problemSchema } from "../core/release-wire.ts";

/** The platform's `fetch`; tests give their own. */
export type Fetch = (url: string, init?: RequestInit) => Promise<Response>;

/** How a node is asked. */
export interface HttpOptions {
  readonly fetch?: Fetch | undefined;
  /** Milliseconds for one request and its answer. Default: {@link REQUEST_TIMEOUT_MS}. */
  readonly timeoutMs?: number | undefined;
}

/** A node reads the chain and verifies evidence meanwhile. */
export const REQUEST_TIMEOUT_MS = 30_000;
/** More than a bundle of all epochs takes. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024;
/** A node's words in a message: it may say anything. */
const LONGEST_DETAIL = 300;

/**
 * A node's base URL: scheme, host, and a path if it stands behind one, without a slash at the end.
 *
 * @throws KeysteadError `agent/bad-node-url`
 * @example
 * parseNodeUrl("https://kms.example/"); // "https://kms.example"
 */
export function parseNodeUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== "" || url.hash !== "") {
    throw new KeysteadError("agent/bad-node-url", "a node's URL is no plain http or https URL", {
      argument: "node",
      remedy: "Give a URL such as https://kms.example.",
    });
  }
  return url.href.replace(/\/+$/, "");
}

/**
 * Asks a node one thing and reads its answer strictly.
 *
 * @param body `undefined`: GET
 * @throws KeysteadError `agent/unreachable` (retryable), `agent/refused` {status, code, reason, decision} with what the node said, `wire/malformed`
 * @example
 * await askNode("https://kms.example", "/v1/challenge", {}, challengeSchema);
 */
export async function askNode<T>(
  node: string,
  path: string,
  body: unknown,
  schema: z.ZodType<T>,
  { fetch: send = fetch, timeoutMs = REQUEST_TIMEOUT_MS }: HttpOptions = {},
): Promise<T> {
  const init: RequestInit = {
    redirect: "error",
    signal: AbortSignal.timeout(timeoutMs),
    ...(body === undefined
      ? {}
      : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  };
  let status: number;
  let text: string;
  try {
    const response = await send(`${node}${path}`, init);
    status = response.status;
    text = await readBounded(response);
  } catch (cause) {
    throw unreachable(node, cause instanceof Error ? describe(cause) : String(cause), cause);
  }
  if (status === 200) return parseMessage(schema, text, `answer of ${hostOf(node)}`);
  throw refusalOf(node, status, text);
}

/** A failed fetch hides the reason in its cause. */
function describe(error: Error): string {
  return error.cause instanceof Error && error.cause.message !== "" ? error.cause.message : error.message;
}

async function readBounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > MAX_ANSWER_BYTES) throw new Error(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk);
  }
  return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks));
}

function refusalOf(node: string, status: number, text: string): KeysteadError {
  let problem: Problem;
  try {
    problem = parseMessage(problemSchema, text, "problem");
  } catch (cause) {
    return unreachable(node, `HTTP ${status} without a problem document`, cause);
  }
  const { code, detail, retryable, reason, decision, block } = problem;
  return new KeysteadError("agent/refused", `${hostOf(node)} refuses: ${printable(detail, LONGEST_DETAIL)}`, {
    argument: "node",
    remedy: REMEDIES[code] ?? `The node's code for it is ${code}: src/node/README.md says what that means.`,
    retryable,
    details: { node: hostOf(node), status, code, reason, decision, block },
  });
}

const REMEDIES: Readonly<Partial<Record<Problem["code"], string>>> = {
  "evidence/not-genuine":
    "The machine's evidence does not verify: see the reason, and whether platform and firmware are in order.",
  "release/denied": "The contracts do not allow it: see the decision, and keystead image check.",
  "request/not-found": "This is no node of Keystead, or its address has a path too many: give the URL before /v1.",
  "request/malformed":
    "Node and agent are of different versions: see the reason, and compare /v1/info with keystead --version.",
  "node/failed": "Only that node's log says why: tell its operator, and name other nodes with --node.",
  "request/too-many": "Wait: it is tried again by itself.",
  "chain/unavailable": "The node cannot read the chain now: it is tried again by itself.",
  "collateral/unavailable": "The node lacks the vendor's collateral now: it is tried again by itself.",
  "node/busy": "Wait: it is tried again by itself.",
};

function unreachable(node: string, why: string, cause: unknown): KeysteadError {
  return new KeysteadError("agent/unreachable", `${hostOf(node)} cannot be asked: ${why}`, {
    argument: "node",
    remedy: "Check the node's URL and the network.",
    retryable: true,
    details: { node: hostOf(node) },
    cause,
  });
}

/** A URL may hold a secret in its path or user part; messages name the host alone. */
function hostOf(node: string): string {
  return new URL(node).host;
}
