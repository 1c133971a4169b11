import { equalBytes, fromHex, type Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { type KeyBundle, parseKeyBundle } from "../core/key-bundle.ts";
import {
  type DeploymentId,
  hashForReceipt,
  hashSealing,
  hashSigned,
  type KeyRelease,
  RELEASE_INFO,
  recoverSigner,
  type SecretsKey,
  type SignedMessages,
  type SignedType,
} from "../core/release.ts";
import type { KeyReceipt, KeysResponse, SecretsKeyAnswer } from "../core/release-wire.ts";
import { open } from "../core/seal.ts";

/* Is an answer from a node that the deployment trusts, and for this request? Nothing of an answer is used before it has passed here. */

/** Whose answers are taken. */
export interface Trust extends DeploymentId {
  /** Addresses that may sign: of the KMS identities in the policy, or given by hand. Asked at every answer, for one may be revoked meanwhile. */
  readonly signers: () => Promise<ReadonlySet<Hex>>;
  /** Takes answers of nodes that accept test roots. Nothing about hardware is proven then. */
  readonly allowTestTee?: boolean | undefined;
}

/** What the machine asked. */
export interface Asked {
  readonly serviceId: Hex;
  /** The quote, report or document, as it was sent. */
  readonly evidence: Uint8Array;
  readonly recipientPublicKey: Uint8Array;
  /** The image that the receipt must name. Default: any of the service's. */
  readonly imageId?: Hex | undefined;
}

/** The parts of a signed answer that a signature is checked over. */
interface SignedAnswer {
  readonly testTee: boolean;
  readonly chainId: string;
  readonly registry: Hex;
  readonly digest: Hex;
  readonly signer: Hex;
  readonly signature: Hex;
}

const REMEDY = "Use nothing of this answer: the node is not one of this deployment, or somebody answers in its place.";

const untrusted = (
  code: string,
  message: string,
  details: Readonly<Record<string, unknown>> = {},
  remedy: string = REMEDY,
) => new KeysteadError(`receipt/${code}`, message, { argument: "receipt", remedy, details });

/**
 * Checks a node's signature: this deployment, a trusted signer, not a test node unless that is allowed.
 *
 * @returns the digest that was signed
 * @throws KeysteadError `receipt/other-deployment`, `receipt/test-tee`, `receipt/digest`, `receipt/bad-signature`, `receipt/untrusted-signer` {signer}
 */
async function verifySigned<T extends SignedType>(
  type: T,
  message: SignedMessages[T],
  answer: SignedAnswer,
  trust: Trust,
): Promise<Uint8Array> {
  const { testTee, signature } = answer;
  if (BigInt(answer.chainId) !== trust.chainId || answer.registry !== trust.registry) {
    throw untrusted("other-deployment", "the answer is of another chain or registry", {
      expected: { chainId: trust.chainId, registry: trust.registry },
      actual: { chainId: answer.chainId, registry: answer.registry },
    });
  }
  if (testTee && trust.allowTestTee !== true) {
    throw untrusted(
      "test-tee",
      "the node accepts evidence under test roots: nothing about hardware is proven",
      {},
      "Use nothing of this answer. On a development chain, --allow-test-tee takes it.",
    );
  }
  const digest = hashSigned(type, message, { ...trust, testTee });
  if (!equalBytes(digest, fromHex(answer.digest, "digest"))) {
    throw untrusted("digest", "the receipt's digest is not that of its content");
  }
  const signer = recoverSigner(digest, signature);
  if (signer !== answer.signer || !(await trust.signers()).has(signer)) {
    throw untrusted(
      "untrusted-signer",
      `the answer is signed by ${signer}, which this deployment does not name`,
      { signer, claimed: answer.signer },
      `${REMEDY} A new KMS is named by its policy once its identity is published: keystead propose publish-kms-identity.`,
    );
  }
  return digest;
}

/**
 * Checks a receipt for what was asked.
 *
 * @returns what was signed, and its digest
 * @throws KeysteadError `receipt/…`: as the signature's, and `receipt/mismatch` {field}
 * @example
 * const { digest } = await verifyReceipt(response.receipt, asked, trust);
 */
export async function verifyReceipt(
  receipt: KeyReceipt,
  asked: Asked,
  trust: Trust,
): Promise<{ readonly release: KeyRelease; readonly digest: Uint8Array }> {
  const { message } = receipt;
  const release: KeyRelease = {
    ...message,
    blockNumber: BigInt(message.blockNumber),
    policyVersion: BigInt(message.policyVersion),
    issuedAt: BigInt(message.issuedAt),
  };
  const digest = await verifySigned("KeyRelease", release, receipt, trust);
  const expected: readonly (readonly [keyof KeyRelease, Hex | undefined])[] = [
    ["serviceId", asked.serviceId],
    ["evidenceHash", hashForReceipt(asked.evidence)],
    ["recipientKeyHash", hashForReceipt(asked.recipientPublicKey)],
    ["imageId", asked.imageId],
  ];
  for (const [field, wanted] of expected) {
    if (wanted === undefined || release[field] === wanted) continue;
    throw untrusted("mismatch", `the receipt's ${field} is not that of this request`, {
      field,
      expected: wanted,
      actual: release[field],
    });
  }
  return { release, digest };
}

/** Keys out of a verified answer. */
export interface Opened {
  readonly release: KeyRelease;
  /** The receipt as the node signed it: it holds no secret. */
  readonly receipt: KeyReceipt;
  readonly bundle: KeyBundle;
  /** The plaintext, of which the bundle's keys are views: wipe it when they have been used. */
  readonly plaintext: Uint8Array;
}

/**
 * Verifies an answer and opens it.
 *
 * @throws KeysteadError as {@link verifyReceipt}; `receipt/sealed-by-another`, `seal/not-opened`, `bundle/malformed`, `receipt/mismatch` where the keys are not
 * those of the receipt
 * @example
 * const { bundle, plaintext } = await openAnswer(response, asked, privateKey, trust);
 */
export async function openAnswer(
  { sealed, receipt }: KeysResponse,
  asked: Asked,
  privateKey: Uint8Array,
  trust: Trust,
): Promise<Opened> {
  const { release, digest } = await verifyReceipt(receipt, asked, trust);
  const message = {
    enc: fromHex(sealed.enc, "enc"),
    ciphertext: new Uint8Array(Buffer.from(sealed.ciphertext, "base64")),
  };
  // Anybody can seal to this machine's key under this receipt: keys that the receipt's signer did not seal are known to somebody else.
  const signer = recoverSigner(hashSealing(digest, message.enc), sealed.signature);
  if (signer !== receipt.signer) {
    throw untrusted("sealed-by-another", `the keys were sealed by ${signer}, not by who signed the receipt`, {
      signer,
      claimed: receipt.signer,
    });
  }
  const plaintext = await open(privateKey, message, { info: new TextEncoder().encode(RELEASE_INFO), aad: digest });
  try {
    const bundle = parseKeyBundle(plaintext);
    const same =
      bundle.chainId === trust.chainId &&
      bundle.registry === trust.registry &&
      bundle.serviceId === release.serviceId &&
      bundle.keyEpoch === release.keyEpoch;
    if (!same) throw untrusted("mismatch", "the keys are not those that the receipt is for", { field: "bundle" });
    return { release, receipt, bundle, plaintext };
  } catch (error) {
    plaintext.fill(0);
    throw error;
  }
}

/**
 * Checks a service's environment key.
 *
 * @throws KeysteadError as {@link verifyReceipt}
 * @example
 * const { publicKey } = await verifySecretsKey(answer, serviceId, trust);
 */
export async function verifySecretsKey(answer: SecretsKeyAnswer, serviceId: Hex, trust: Trust): Promise<SecretsKey> {
  const key: SecretsKey = {
    serviceId: answer.serviceId,
    rootEpoch: answer.rootEpoch,
    keyEpoch: answer.keyEpoch,
    publicKey: answer.publicKey,
  };
  await verifySigned("SecretsKey", key, answer, trust);
  if (key.serviceId !== serviceId) {
    const details = { field: "serviceId", expected: serviceId, actual: key.serviceId };
    throw untrusted("mismatch", "the key is another service's", details);
  }
  return key;
}
