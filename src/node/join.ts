import type { Binding } from "../core/binding.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { parseRootBundle } from "../core/key-bundle.ts";
import type { DeploymentId } from "../core/release.ts";
import { hashForReceipt, hashSealing, hashSigned, KMS_SUBJECT, ROOT_INFO, recoverSigner } from "../core/release.ts";
import {
  challengeSchema,
  parseMessage,
  problemSchema,
  type RootResponse,
  rootResponseSchema,
  type WireEvidence,
} from "../core/release-wire.ts";
import { generateSealKeyPair, open } from "../core/seal.ts";
import { checkIdentity, createKeyRing, type KeyRing, type RootSecret, wipe } from "./keys.ts";

/*
 * How a second node gets the root secrets: as any machine gets keys, from a node that runs, by evidence that the policy's KMS images allow. It believes
 * the other node as far as the policy's published identity goes: the receipt must be signed by that signer, and the roots must have that fingerprint.
 */

/** Makes evidence for a binding with this machine's TEE. */
export type Attest = (binding: Binding) => Promise<WireEvidence>;

/** Whom to join, and what must come of it. */
export interface JoinOptions {
  /** The running node's address. */
  readonly url: string;
  readonly attest: Attest;
  readonly deployment: DeploymentId;
  readonly expected: Pick<KeyRing, "environmentKey" | "receiptSigner">;
  /** Whether the other node may be one that takes test roots. */
  readonly testTee: boolean;
  /** For each request. Default: 30 seconds. */
  readonly timeoutMs?: number;
}

const ANSWER_LIMIT = 256 * 1024;

const refuse = (code: string, message: string, remedy: string, retryable = false, cause?: unknown) =>
  new KeysteadError(`join/${code}`, message, { argument: "join", remedy, retryable, cause });

/**
 * Gets the root secrets from a running node. The caller wipes them.
 *
 * @throws KeysteadError `join/bad-url`, `join/unreachable`, `join/refused` {code, decision}, `join/answer`, `join/receipt`, `root/other-identity`, and those of `attest`
 * @example
 * const roots = await joinNode({ url, attest, deployment, expected, testTee: false });
 */
export async function joinNode(options: JoinOptions): Promise<readonly RootSecret[]> {
  const { attest, deployment, expected } = options;
  if (!/^https?:$/.test(URL.canParse(options.url) ? new URL(options.url).protocol : ""))
    throw refuse(
      "bad-url",
      "the running node's address is no http or https URL",
      "Give one such as https://kms-1.example.",
    );
  const { nonce } = parseMessage(challengeSchema, await ask(options, "/v1/challenge", undefined), "challenge");
  const { privateKey, publicKey } = await generateSealKeyPair();
  try {
    const binding = { nonce: fromHex(nonce, "nonce"), serviceId: KMS_SUBJECT, recipientPublicKey: publicKey };
    const evidence = await attest(binding);
    const request = { evidence, recipientPublicKey: toHex(publicKey), nonce };
    const answer = parseMessage(rootResponseSchema, await ask(options, "/v1/root", request), "answer");
    const digest = checkAnswer(answer, options, evidence, publicKey);
    const sealed = {
      enc: fromHex(answer.sealed.enc, "enc"),
      ciphertext: new Uint8Array(Buffer.from(answer.sealed.ciphertext, "base64")),
    };
    const plaintext = await open(privateKey, sealed, { info: Buffer.from(ROOT_INFO), aad: digest });
    const bundle = parseRootBundle(plaintext);
    const roots = bundle.roots.map(({ rootEpoch, secret }) => ({ rootEpoch, secret: Uint8Array.from(secret) }));
    wipe(plaintext);
    if (bundle.chainId !== deployment.chainId || bundle.registry !== deployment.registry)
      throw refuse("answer", "the root secrets are for another deployment", "Check the other node's configuration.");
    // A ring wipes what it is given: it gets copies.
    const ring = createKeyRing(
      roots.map(({ rootEpoch, secret }) => ({ rootEpoch, secret: Uint8Array.from(secret) })),
      deployment,
    );
    try {
      checkIdentity(ring, expected);
    } finally {
      ring.wipe();
    }
    return roots;
  } finally {
    wipe(privateKey);
  }
}

/** The receipt is the expected signer's, and about this very request; and what is sealed is that signer's too. */
function checkAnswer(
  { sealed, receipt: { message, testTee, signature, digest } }: RootResponse,
  { deployment, expected, testTee: testTeeAllowed }: JoinOptions,
  evidence: WireEvidence,
  publicKey: Uint8Array,
): Uint8Array {
  const signed = {
    ...message,
    blockNumber: BigInt(message.blockNumber),
    policyVersion: BigInt(message.policyVersion),
    issuedAt: BigInt(message.issuedAt),
  };
  const hash = hashSigned("RootRelease", signed, { ...deployment, testTee });
  const bytes =
    evidence.kind === "tdx" ? evidence.quote : evidence.kind === "snp" ? evidence.report : evidence.document;
  const about: readonly [string, Hex, Hex][] = [
    ["digest", digest, toHex(hash)],
    ["evidence", message.evidenceHash, hashForReceipt(Buffer.from(bytes, "base64"))],
    ["recipient", message.recipientKeyHash, hashForReceipt(publicKey)],
    ["signer", recoverSigner(hash, signature), expected.receiptSigner],
    ["sealed", recoverSigner(hashSealing(hash, fromHex(sealed.enc, "enc")), sealed.signature), expected.receiptSigner],
  ];
  if (testTee && !testTeeAllowed)
    throw refuse("receipt", "the other node takes evidence under test roots", "Join a node that does not.");
  const wrong = about.find(([, actual, wanted]) => actual !== wanted);
  if (wrong === undefined) return hash;
  throw refuse(
    "receipt",
    `the receipt's ${wrong[0]} is not what this request and the expected identity make it`,
    "Do not use this answer: check the other node, and the published identity.",
  );
}

async function ask({ url, timeoutMs = 30_000 }: JoinOptions, path: string, body: unknown): Promise<string> {
  let status: number;
  let text: string;
  try {
    const response = await fetch(`${url.replace(/\/+$/, "")}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      redirect: "error",
      signal: AbortSignal.timeout(timeoutMs),
    });
    status = response.status;
    text = await readBounded(response);
  } catch (cause) {
    throw refuse(
      "unreachable",
      `${new URL(url).host} did not answer`,
      "Check its address and the network.",
      true,
      cause,
    );
  }
  if (status === 200) return text;
  let problem: ReturnType<typeof problemSchema.parse> | undefined;
  try {
    problem = parseMessage(problemSchema, text, "problem");
  } catch (cause) {
    if (!isKeysteadError(cause)) throw cause;
  }
  throw new KeysteadError(
    "join/refused",
    `the other node answers ${problem === undefined ? `HTTP ${status}` : `${problem.code}: ${problem.detail}`}`,
    {
      argument: "join",
      remedy: remedyOf(problem?.code),
      retryable: problem?.retryable ?? status >= 500,
      details: { status, code: problem?.code, decision: problem?.decision, reason: problem?.reason },
    },
  );
}

function remedyOf(code: string | undefined): string {
  if (code === "release/denied")
    return "See whether the policy allows this machine's image as KMS image, and its platform, in a final block: keystead audit --policy.";
  if (code === "evidence/not-genuine")
    return "The machine's evidence does not verify: see the reason, and whether platform and firmware are in order.";
  if (code === "request/not-found")
    return "That node does not share its root (shareRoot), or this is no node: join another.";
  return "See the other node's log, and try again, or join another node.";
}

async function readBounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > ANSWER_LIMIT) throw new Error("the answer is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
