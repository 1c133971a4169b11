import { getAddress, isAddress } from "ethers";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { isJsonArray, isJsonObject, type JsonValue, parseJson } from "../core/json.ts";
import { quoteText } from "../core/text.ts";
import type { FoundSignature } from "./signatures.ts";
import type { PlannedTransaction } from "./transactions.ts";

/* Safe's Transaction Service: proposes and collects by its documented routes. It is a post box: whatever it says is checked, and nothing of it counts but signatures. */

/** The names under which Safe hosts the service (https://docs.safe.global, API services). Another chain's service is named by its URL. */
const HOSTED: Readonly<Record<string, string>> = {
  ...{ "1": "eth", "10": "oeth", "56": "bnb", "100": "gno", "137": "pol", "324": "zksync", "5000": "mantle" },
  ...{ "8453": "base", "42161": "arb1", "42220": "celo", "43114": "avax", "59144": "linea", "534352": "scr" },
  ...{ "11155111": "sep", "84532": "basesep" },
};

/** How the service is asked. */
export interface SafeService {
  /** Without `/api` and what follows. */
  readonly url: string;
  /** Safe's hosted service wants one; it goes to `url` alone. */
  readonly apiKey: string | undefined;
}

/** Milliseconds for one request, and the most that is read of an answer. */
const TIMEOUT = 20_000;
const LONGEST = 1024 * 1024;

/**
 * The service of a chain: the one that is named, or Safe's own.
 *
 * @throws KeysteadError `safe-service/none` where Safe hosts none for the chain, `safe-service/bad-url`
 * @example
 * serviceOf(1n, undefined, "key").url; // "https://api.safe.global/tx-service/eth"
 */
export function serviceOf(chainId: bigint, url: string | undefined, apiKey: string | undefined): SafeService {
  const name = HOSTED[chainId.toString()];
  if (url === undefined && name === undefined) {
    throw new KeysteadError("safe-service/none", `Safe hosts no Transaction Service for chain ${chainId}`, {
      argument: "service",
      remedy: "Name one with --service URL; or pass the folder's signature files on, which need none.",
    });
  }
  const given = url ?? `https://api.safe.global/tx-service/${name}`;
  const parsed = URL.canParse(given) ? new URL(given) : undefined;
  const local = parsed !== undefined && ["127.0.0.1", "localhost", "[::1]"].includes(parsed.hostname);
  if (parsed === undefined || (parsed.protocol !== "https:" && !local) || parsed.search !== "" || parsed.hash !== "") {
    throw new KeysteadError("safe-service/bad-url", "the service is not a plain https URL", {
      argument: "service",
      remedy: "Give a URL such as https://api.safe.global/tx-service/sep.",
    });
  }
  return { url: parsed.href.replace(/\/+$/, "").replace(/\/api$/, ""), apiKey };
}

/**
 * The body of a proposal to the service, and where it is posted: `POST /api/v2/safes/{address}/multisig-transactions/`.
 *
 * @param by the signature of an owner, without which the service takes no proposal
 * @example
 * const { path, body } = proposalBody(planned, signature, "007-tdx");
 */
export function proposalBody(
  { safe, transaction, hashes }: PlannedTransaction,
  by: Pick<FoundSignature, "signer" | "signature">,
  origin: string,
): { readonly path: string; readonly body: Readonly<Record<string, unknown>> } {
  const zero = `0x${"00".repeat(20)}`;
  return {
    path: `/api/v2/safes/${safe.address}/multisig-transactions/`,
    body: {
      ...{ to: transaction.to, value: transaction.value.toString(), data: transaction.data },
      ...{ operation: transaction.operation, safeTxGas: "0", baseGas: "0", gasPrice: "0" },
      ...{ gasToken: zero, refundReceiver: zero, nonce: transaction.nonce.toString() },
      ...{ contractTransactionHash: hashes.safeTxHash, sender: by.signer, signature: by.signature, origin },
    },
  };
}

/** What proposing did. */
export interface Proposed {
  /** It was there already. */
  readonly known: boolean;
  /** Signers whose confirmation was added now. */
  readonly confirmed: readonly string[];
}

/**
 * Puts a step into the service, with every signature that the folder holds of it; what is there already is left.
 *
 * @param signatures of this very transaction, by keys
 * @throws KeysteadError `safe-service/no-signature`; `safe-service/other-transaction`; `safe-service/refused` {status},
 * `safe-service/unreachable` (retryable)
 * @example
 * await proposeToService(service, planned, signatures, "007-tdx");
 */
export async function proposeToService(
  service: SafeService,
  planned: PlannedTransaction,
  signatures: readonly FoundSignature[],
  origin: string,
): Promise<Proposed> {
  const [first, ...others] = signatures;
  if (first === undefined) {
    throw new KeysteadError(
      "safe-service/no-signature",
      "the service takes a transaction only with an owner's signature",
      {
        argument: "folder",
        remedy: `Sign it first: keystead sign DIR --step ${planned.name}.`,
      },
    );
  }
  const there = await fetchConfirmations(service, planned);
  const have = new Set((there ?? []).map(({ owner }) => owner));
  if (there === undefined) {
    const { path, body } = proposalBody(planned, first, origin);
    await ask(service, path, body);
    have.add(first.signer);
  }
  const confirmed: string[] = there === undefined ? [first.signer] : [];
  for (const { signer, signature } of there === undefined ? others : signatures) {
    if (have.has(signer)) continue;
    await ask(service, `/api/v1/multisig-transactions/${planned.hashes.safeTxHash}/confirmations/`, { signature });
    have.add(signer);
    confirmed.push(signer);
  }
  return { known: there !== undefined, confirmed };
}

/** A confirmation as the service gives it: its word, until the signature is checked. */
export interface Confirmation {
  readonly owner: string;
  readonly signature: Hex;
}

/**
 * The confirmations of a step that the service has; undefined where it does not know the transaction. That it holds this very transaction is checked
 * field by field, so that nobody is led to sign another one under its hash.
 *
 * @throws KeysteadError `safe-service/other-transaction` {fields}; as {@link proposeToService}
 * @example
 * const confirmations = await fetchConfirmations(service, planned);
 */
export async function fetchConfirmations(
  service: SafeService,
  planned: PlannedTransaction,
): Promise<readonly Confirmation[] | undefined> {
  const { safe, transaction, hashes } = planned;
  const answer = await ask(service, `/api/v2/multisig-transactions/${hashes.safeTxHash}/`);
  if (answer === undefined) return undefined;
  if (!isJsonObject(answer)) throw malformed("it is not an object");
  const expected: Readonly<Record<string, string>> = {
    ...{ safe: safe.address, to: transaction.to, value: transaction.value.toString(), data: transaction.data },
    ...{
      operation: transaction.operation.toString(),
      nonce: transaction.nonce.toString(),
      safeTxHash: hashes.safeTxHash,
    },
    ...{ safeTxGas: "0", baseGas: "0", gasPrice: "0" },
  };
  const other = Object.entries(expected).filter(([name, value]) => {
    const found = answer[name];
    return String(found ?? "0x").toLowerCase() !== value.toLowerCase();
  });
  if (other.length > 0) {
    const fields = other.map(([name]) => name);
    throw new KeysteadError(
      "safe-service/other-transaction",
      `the service holds another transaction: ${fields.join(", ")}`,
      {
        argument: "service",
        remedy: "Confirm nothing there: compare with keystead verify, and use another service or the folder's files.",
        details: { fields },
      },
    );
  }
  const list = answer.confirmations;
  if (list === null || list === undefined) return [];
  if (!isJsonArray(list) || list.length > 100) throw malformed("confirmations are not a list of at most 100");
  return list.map((item) => {
    const owner = isJsonObject(item) ? item.owner : undefined;
    const signature = isJsonObject(item) ? item.signature : undefined;
    if (typeof owner !== "string" || !isAddress(owner)) throw malformed("a confirmation's owner is not an address");
    if (typeof signature !== "string") throw malformed("a confirmation has no signature");
    return { owner: getAddress(owner), signature: toHex(fromHex(signature, "signature")) };
  });
}

const malformed = (why: string) =>
  new KeysteadError("safe-service/malformed", `the service's answer is not what it documents: ${why}`, {
    argument: "service",
    remedy: "Check the service's URL; or pass the folder's signature files on, which need none.",
  });

/** One request; undefined where the service answers 404 to a question. */
async function ask({ url, apiKey }: SafeService, path: string, body?: unknown): Promise<JsonValue | undefined> {
  const unreachable = (why: string, cause?: unknown) =>
    new KeysteadError("safe-service/unreachable", `the service does not answer: ${why}`, {
      argument: "service",
      remedy: "Check the network, and try again later.",
      retryable: true,
      cause,
    });
  let status: number;
  let text: string;
  try {
    const response = await fetch(`${url}${path}`, {
      method: body === undefined ? "GET" : "POST",
      headers: {
        accept: "application/json",
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      // a key must not follow to another place
      redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT),
    });
    status = response.status;
    text = await readBounded(response);
  } catch (cause) {
    throw unreachable(cause instanceof Error ? cause.message : String(cause), cause);
  }
  if (status === 404 && body === undefined) return undefined;
  if (status === 429 || status >= 500) throw unreachable(`HTTP ${status}`);
  if (status < 200 || status >= 300) {
    const hint = status === 401 || status === 403 ? "Give an API key of Safe in SAFE_API_KEY." : "Read what it says.";
    throw new KeysteadError(
      "safe-service/refused",
      `the service refuses (HTTP ${status}): ${quoteText(text.slice(0, 300))}`,
      {
        argument: "service",
        remedy: hint,
        details: { status },
      },
    );
  }
  return body === undefined ? parseJson(text, "service") : undefined;
}

async function readBounded(response: Response): Promise<string> {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for (;;) {
    const chunk = (await reader?.read())?.value;
    if (chunk === undefined) return text + decoder.decode();
    bytes += chunk.length;
    if (bytes > LONGEST) {
      await reader?.cancel();
      throw new Error("its answer is too long");
    }
    text += decoder.decode(chunk, { stream: true });
  }
}
