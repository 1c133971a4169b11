import { askNode, type Fetch } from "../agent/http.ts";
import { equalBytes, fromHex, type Hex } from "../core/bytes.ts";
import { isLocalChain } from "../core/chain-id.ts";
import { isKeysteadError } from "../core/errors.ts";
import { hashSigned, recoverSigner, type SigningContext } from "../core/release.ts";
import {
  infoSchema,
  type NodeInfo,
  type Receipt,
  type ReceiptsPage,
  receiptsPageSchema,
} from "../core/release-wire.ts";
import type { NodeFacts, ReceiptFacts } from "./facts.ts";

/** Which deployment the nodes must be of, and whose receipts count. */
export interface NodePlace {
  readonly chainId: bigint;
  readonly registry: Hex;
  readonly service: Hex;
  /** Receipt signers that the policy names; undefined: the chain could not be read, and a node's own word has to do. */
  readonly signers: ReadonlySet<Hex> | undefined;
  /** Receipts before this time tell nothing about the rollout. */
  readonly since: number;
  /** A clock in milliseconds; default: this machine's. */
  readonly now?: (() => number) | undefined;
  /** Milliseconds for one answer. Default: {@link TIMEOUT_MS}. */
  readonly timeoutMs?: number | undefined;
  readonly fetch?: Fetch | undefined;
}

/** Milliseconds for one answer: a node that takes longer is not ready for machines either. */
const TIMEOUT_MS = 10_000;
/** Pages of receipts that are read; a node that shows more is said to. */
const MAX_PAGES = 200;
const PAGE = 100;
/** Characters of an answer that says why a node is not ready. */
const MAX_REASONS = 2_000;
/** Milliseconds for all of its receipts: each page may be in time and the whole without end. */
const RECEIPTS_MS = 60_000;

/**
 * What a node says of itself: up, of this deployment, ready, and what it released. Every receipt's signature is checked, and one that the deployment's
 * nodes did not sign counts for nothing. Never throws for what a node does.
 *
 * @example
 * const facts = await readNode("https://kms.example", { chainId: 1n, registry, service, signers, since: plan.inputs.created });
 */
export async function readNode(url: string, place: NodePlace): Promise<NodeFacts> {
  const base = url.replace(/\/+$/, "");
  const http = { fetch: place.fetch, timeoutMs: place.timeoutMs ?? TIMEOUT_MS };
  let info: NodeInfo;
  try {
    info = await askNode(base, "/v1/info", undefined, infoSchema, http);
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    const nothing = { testTee: false, environmentKey: undefined, receipts: undefined };
    return { up: false, ready: false, problem: error.message, ...nothing };
  }
  const { environmentKey, testTee } = info;
  const wrong = wrongDeployment(info, place) ?? pretends(info, place);
  if (wrong !== undefined) {
    return { up: true, ready: false, problem: wrong, testTee, environmentKey, receipts: undefined };
  }
  const ready = await isReady(base, place);
  const read = await readReceipts(base, info, place);
  const problem = ready === undefined ? read.problem : ready;
  return { up: true, ready: ready === undefined, problem, testTee, environmentKey, receipts: read.receipts };
}

/** Where keys are worth something, a node that gives them to whoever signs with a test root is none to rely on. */
function pretends({ testTee }: NodeInfo, { chainId }: NodePlace): string | undefined {
  if (!testTee || isLocalChain(chainId)) return undefined;
  return `it accepts evidence under test roots, on chain ${chainId}: nothing that it releases or signs counts`;
}

function wrongDeployment({ chainId, registry }: NodeInfo, place: NodePlace): string | undefined {
  if (BigInt(chainId) !== place.chainId) return `it serves chain ${chainId}, not ${place.chainId}`;
  return registry === place.registry ? undefined : `it serves the registry ${registry}, not ${place.registry}`;
}

/** Why it would release nothing now; undefined if it would. */
async function isReady(
  base: string,
  { fetch: ask = fetch, timeoutMs = TIMEOUT_MS }: NodePlace,
): Promise<string | undefined> {
  try {
    const response = await ask(`${base}/ready`, { redirect: "error", signal: AbortSignal.timeout(timeoutMs) });
    const { status } = response;
    if (status !== 200) return `it says that it is not ready (HTTP ${status}${await reasonsOf(response)})`;
    await response.body?.cancel();
    return undefined;
  } catch (error) {
    return `it does not say whether it is ready: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** The codes that it gives for it, as far as they look like codes: it may say anything, at any length. */
async function reasonsOf({ body }: Response): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > MAX_REASONS) break;
  }
  const codes = text.slice(0, MAX_REASONS).match(/(?<=")[a-z]+\/[a-z-]{1,60}(?=")/g) ?? [];
  return codes
    .slice(0, 3)
    .map((code) => `, ${code}`)
    .join("");
}

async function readReceipts(
  base: string,
  info: NodeInfo,
  place: NodePlace,
): Promise<{ readonly receipts: readonly ReceiptFacts[] | undefined; readonly problem: string | undefined }> {
  const receipts: ReceiptFacts[] = [];
  let after = 0;
  let foreign = 0;
  const now = place.now ?? (() => performance.now());
  const deadline = now() + RECEIPTS_MS;
  for (let pages = 0; pages < MAX_PAGES; pages += 1) {
    let page: ReceiptsPage;
    try {
      const http = { fetch: place.fetch, timeoutMs: place.timeoutMs ?? TIMEOUT_MS };
      page = await askNode(base, `/v1/receipts?after=${after}&limit=${PAGE}`, undefined, receiptsPageSchema, http);
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
      return { receipts: undefined, problem: `it shows no receipts: ${error.message}` };
    }
    // each signature costs a millisecond, and a page of the size that an answer may have holds thousands
    if (page.receipts.length > PAGE)
      return { receipts: undefined, problem: "it shows more receipts than were asked for" };
    for (const { receipt } of page.receipts) {
      if (!isSigned(receipt, info, place)) foreign += 1;
      else receipts.push(...factsOf(receipt, place));
    }
    if (page.next === undefined) {
      const problem =
        foreign === 0 ? undefined : `${foreign} of its receipts are not signed by a node of this deployment`;
      return { receipts, problem };
    }
    if (page.next <= after) return { receipts: undefined, problem: "its pages of receipts lead nowhere" };
    if (now() > deadline)
      return { receipts: undefined, problem: `it takes over ${RECEIPTS_MS / 1000} s to show its receipts` };
    after = page.next;
  }
  return { receipts, problem: `it has more receipts than ${MAX_PAGES} pages` };
}

function isSigned(receipt: Receipt, info: NodeInfo, { signers, chainId, registry }: NodePlace): boolean {
  const { signature, digest, signer, testTee } = receipt;
  if (BigInt(receipt.chainId) !== chainId || receipt.registry !== registry || testTee !== info.testTee) return false;
  const context: SigningContext = { chainId, registry, testTee };
  try {
    const hash = hashOf(receipt, context);
    const by = recoverSigner(hash, signature);
    return (
      equalBytes(hash, fromHex(digest, "digest")) && by === signer && (signers?.has(by) ?? by === info.receiptSigner)
    );
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    return false;
  }
}

function hashOf(receipt: Receipt, context: SigningContext): Uint8Array {
  const { blockNumber, policyVersion, issuedAt } = receipt.message;
  const numbers = {
    blockNumber: BigInt(blockNumber),
    policyVersion: BigInt(policyVersion),
    issuedAt: BigInt(issuedAt),
  };
  return receipt.type === "KeyRelease"
    ? hashSigned("KeyRelease", { ...receipt.message, ...numbers }, context)
    : hashSigned("RootRelease", { ...receipt.message, ...numbers }, context);
}

function factsOf({ type, message, digest }: Receipt, { service, since }: NodePlace): readonly ReceiptFacts[] {
  const issuedAt = Number(message.issuedAt);
  if (issuedAt < since) return [];
  if (type === "RootRelease") return [{ type: "root", digest, imageId: message.imageId, issuedAt }];
  return message.serviceId === service ? [{ type: "keys", digest, imageId: message.imageId, issuedAt }] : [];
}
