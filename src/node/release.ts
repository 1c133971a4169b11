import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import type { DecisionName } from "../core/decision.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { MAX_EPOCHS, STANDARD_PURPOSES } from "../core/key-bundle.ts";
import {
  hashForReceipt,
  hashSigned,
  type KeyRelease,
  KMS_SUBJECT,
  type RootRelease,
  type SignedMessages,
  type SignedType,
  type SigningContext,
} from "../core/release.ts";
import type {
  KeyReceipt,
  KeysRequest,
  KeysResponse,
  RootReceipt,
  RootRequest,
  RootResponse,
  SecretsKeyAnswer,
  WireEvidence,
} from "../core/release-wire.ts";
import { describeTcb, type TcbReport } from "../core/tcb.ts";
import type { Challenges } from "./challenge.ts";
import type { KmsQuestion, ReleaseDecision, ReleaseQuestion } from "./decide.ts";
import type { Judge, Judgement } from "./judge.ts";
import type { RemoteKeyRing } from "./key-thread.ts";
import type { KeyRing, SignedSealed } from "./keys.ts";
import type { ReceiptLog } from "./receipts.ts";

/*
 * One release, from a parsed request to the answer, in an order that is the point of it: the nonce is taken, the evidence judged, the chain asked; only
 * then is a secret touched; the receipt is on the disk before the answer exists outside of this process.
 */

/** The part of a decision that a release depends on. */
export type Decision = Pick<
  ReleaseDecision,
  "allowed" | "decision" | "imageId" | "platformId" | "historyHead" | "policyVersion"
> & { readonly basis: { readonly block: { readonly number: number; readonly hash: Hex } } };

/** The part of a `Decider` that a release depends on. */
export interface ReleaseDecider {
  readonly decide: (question: ReleaseQuestion) => Promise<Decision & Pick<ReleaseDecision, "keyEpoch">>;
  readonly decideKms: (question: KmsQuestion) => Promise<Decision>;
}

/** What a node releases with. */
export interface ReleaserOptions {
  /** The keys, in a thread of their own; a ring in this one does as well. */
  readonly ring: Omit<RemoteKeyRing, "wipe"> | Omit<KeyRing, "wipe">;
  readonly judge: Pick<Judge, "judge">;
  readonly decider: ReleaseDecider;
  readonly challenges: Pick<Challenges, "take">;
  readonly receipts: Pick<ReceiptLog, "append">;
  /** Whether evidence under test roots is taken. */
  readonly testTee: boolean;
  /** Seconds since 1970. */
  readonly clock: () => number;
  /** Told of every machine whose evidence is genuine, whatever is decided. */
  readonly onJudged?: ((judgement: Judgement) => void) | undefined;
}

/** A release and the number of its receipt. */
export interface Released<T> {
  readonly answer: T;
  readonly sequence: number;
  /** What falls short of the machine's platform although the contracts take it, for the log. */
  readonly tcb?: string | undefined;
}

/**
 * Releases. Every method throws `KeysteadError`s whose codes are those of problem documents: `request/malformed`, `nonce/…`, `evidence/not-genuine`,
 * `collateral/unavailable`, `release/denied` {decision, block}, `chain/unavailable`, `node/…`.
 */
export interface Releaser {
  readonly releaseKeys: (request: KeysRequest) => Promise<Released<KeysResponse>>;
  /** To another node. */
  readonly releaseRoot: (request: RootRequest) => Promise<Released<RootResponse>>;
  readonly secretsKey: (serviceId: Hex) => Promise<SecretsKeyAnswer>;
}

/** Keys in one answer beyond which it is a long one: a thousand take the thread that derives them some tenths of a second. */
const LONG_ANSWER_KEYS = 1024;

/** No machine: no registered image has all of its registers equal to none. */
const NO_MACHINE = {
  kind: "tdx",
  registers: {},
  tcbStatus: "NotApplicable",
  deviceId: `0x${"00".repeat(32)}`,
} as const;

/**
 * Makes what releases.
 *
 * @example
 * const { answer } = await createReleaser(options).releaseKeys(request);
 */
export function createReleaser(options: ReleaserOptions): Releaser {
  const { ring, judge, decider, challenges, receipts, testTee, clock } = options;
  const context: SigningContext = { ...ring.deployment, testTee };

  /** Nonce and evidence: what comes before anything that depends on a secret, or on the chain. */
  const examine = async (request: RootRequest, serviceId: Hex): Promise<Judgement> => {
    const nonce = fromHex(request.nonce, "nonce");
    const recipientPublicKey = fromHex(request.recipientPublicKey, "recipientPublicKey");
    challenges.take(nonce);
    const evidence: WireEvidence = request.evidence;
    const judgement = await judge.judge(evidence, { nonce, serviceId, recipientPublicKey }, Math.floor(clock()));
    if (judgement.trust === "vendor root" || testTee) {
      options.onJudged?.(judgement);
      return judgement;
    }
    throw new KeysteadError("evidence/not-genuine", "the evidence is under a test root", {
      argument: "evidence",
      remedy: "Use real hardware.",
      details: { reason: "node/test-root" },
    });
  };

  /** A service rotates as often as it likes, and every rotation makes its answers longer: two long ones at once would keep everybody's keys waiting. */
  let longAnswers = 0;
  const oneLongAtOnce = async <T>(keys: number, act: () => Promise<T>): Promise<T> => {
    if (keys <= LONG_ANSWER_KEYS) return await act();
    if (longAnswers > 0) {
      throw new KeysteadError("node/busy", "the node makes another long answer already", {
        remedy: "Try again later, or ask another node.",
        retryable: true,
        details: { retryAfterSeconds: 1 },
      });
    }
    longAnswers += 1;
    try {
      return await act();
    } finally {
      longAnswers -= 1;
    }
  };

  /** What is signed, with its signature; and what is done at the same time with its digest. */
  const sign = async <T extends SignedType, R>(
    type: T,
    message: SignedMessages[T],
    andThen: (digest: Uint8Array) => Promise<R>,
  ) => {
    const digest = hashSigned(type, message, context);
    const [signature, result] = await Promise.all([ring.sign(digest), andThen(digest)]);
    const base = {
      testTee,
      chainId: String(context.chainId),
      registry: context.registry,
      digest: toHex(digest),
      signer: ring.receiptSigner,
      signature,
    };
    return { base, result };
  };

  const common = (judgement: Judgement, request: RootRequest, decision: Decision) => {
    const { imageId, platformId, policyVersion, basis } = requireAllowed(decision, judgement.tcb);
    return {
      imageId,
      platformId,
      evidenceHash: judgement.evidenceHash,
      recipientKeyHash: hashForReceipt(fromHex(request.recipientPublicKey, "recipientPublicKey")),
      blockNumber: BigInt(basis.block.number),
      blockHash: basis.block.hash,
      policyVersion: BigInt(policyVersion),
      issuedAt: BigInt(Math.floor(clock())),
    };
  };

  return {
    releaseKeys: async (request) => {
      const { serviceId, image, platform } = request;
      if (serviceId === KMS_SUBJECT) throw malformed("no service has this id", "serviceId");
      const judgement = await examine(request, serviceId);
      const decision = await ask(() => decider.decide({ serviceId, machine: judgement.facts, image, platform }));
      const { keyEpoch, historyHead } = decision;
      const message: KeyRelease = { serviceId, keyEpoch, historyHead, ...common(judgement, request, decision) };
      const purposes = [...new Set([...STANDARD_PURPOSES, ...(request.purposes ?? [])])];
      const recipientPublicKey = fromHex(request.recipientPublicKey, "recipientPublicKey");
      const keys = Math.min(keyEpoch + 1, MAX_EPOCHS) * (ring.rootEpoch + 1) * purposes.length;
      const { base, result: sealed } = await oneLongAtOnce(keys, () =>
        sign("KeyRelease", message, (receiptDigest) =>
          sealing(() => ring.sealKeys({ serviceId, keyEpoch, purposes, recipientPublicKey, receiptDigest })),
        ),
      );
      const receipt: KeyReceipt = { type: "KeyRelease", message: toWire(message), ...base };
      const sequence = await receipts.append(receipt);
      return { answer: { sealed, receipt }, sequence, tcb: shortOf(judgement) };
    },
    releaseRoot: async (request) => {
      const judgement = await examine(request, KMS_SUBJECT);
      const decision = await ask(() => decider.decideKms({ machine: judgement.facts }));
      const { rootEpoch } = ring;
      const policyHead = decision.historyHead;
      const message: RootRelease = { rootEpoch, policyHead, ...common(judgement, request, decision) };
      const recipientPublicKey = fromHex(request.recipientPublicKey, "recipientPublicKey");
      const { base, result: sealed } = await sign("RootRelease", message, (digest) =>
        sealing(() => ring.sealRoots(recipientPublicKey, digest)),
      );
      const receipt: RootReceipt = { type: "RootRelease", message: toWire(message), ...base };
      const sequence = await receipts.append(receipt);
      return { answer: { sealed, receipt }, sequence, tcb: shortOf(judgement) };
    },
    secretsKey: async (serviceId) => {
      if (serviceId === KMS_SUBJECT) throw malformed("no service has this id", "serviceId");
      const { keyEpoch } = await ask(() => decider.decide({ serviceId, machine: NO_MACHINE }));
      const { rootEpoch } = ring;
      const message = { serviceId, rootEpoch, keyEpoch, publicKey: await ring.secretsKey(serviceId, keyEpoch) };
      const { base } = await sign("SecretsKey", message, async () => undefined);
      return { ...message, ...base };
    },
  };
}

const shortOf = ({ tcb }: Judgement): string | undefined => (tcb === undefined ? undefined : describeTcb(tcb));

/** Decisions about the TCB status. */
const TCB_DECISIONS: ReadonlySet<string> = new Set<DecisionName>(["TcbNotAccepted", "ServiceTcbNotUpToDate"]);

/** Only the contracts' yes, with an image and a platform that it is about, is a yes. */
function requireAllowed<T extends Decision>(
  decision: T,
  tcb: TcbReport | undefined,
): T & { readonly imageId: Hex; readonly platformId: Hex } {
  const { allowed, imageId, platformId } = decision;
  if (allowed && decision.decision === "Allowed" && imageId !== undefined && platformId !== undefined)
    return { ...decision, imageId, platformId };
  const { number, hash } = decision.basis.block;
  // Told only where it is the reason, or may be the next one.
  const short = tcb === undefined ? undefined : describeTcb(tcb);
  const why = TCB_DECISIONS.has(decision.decision) && short !== undefined ? `: ${short}` : "";
  throw new KeysteadError("release/denied", `the contracts answer ${decision.decision}${why}`, {
    argument: "evidence",
    remedy: "See the service's and the policy's history for what is registered.",
    retryable: ["ImagePending", "ReleasePaused", "PolicyUnavailable"].includes(decision.decision),
    details: {
      decision: decision.decision,
      block: { number: String(number), hash },
      ...(short === undefined && (tcb?.early?.status ?? "UpToDate") === "UpToDate" ? {} : { tcb }),
    },
  });
}

async function ask<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    if (!isKeysteadError(cause)) throw cause;
    if (cause.code.startsWith("image/")) throw malformed(cause.message, "image", cause);
    throw new KeysteadError("chain/unavailable", `the chain cannot be asked: ${cause.message}`, {
      argument: "chain",
      remedy: "Try again later, or ask another node.",
      retryable: true,
      details: { reason: cause.code },
      cause,
    });
  }
}

/** The recipient's key is the only part of sealing that a request decides. */
async function sealing(act: () => Promise<SignedSealed>): Promise<KeysResponse["sealed"]> {
  try {
    const { enc, ciphertext, signature } = await act();
    return { enc: toHex(enc), ciphertext: Buffer.from(ciphertext).toString("base64"), signature };
  } catch (cause) {
    if (isKeysteadError(cause, "seal/bad-key")) throw malformed(cause.message, "recipientPublicKey", cause);
    throw cause;
  }
}

function malformed(message: string, argument: string, cause?: unknown): KeysteadError {
  const reason = isKeysteadError(cause) ? cause.code : argument;
  const remedy = "Send a request as the protocol's documentation says.";
  return new KeysteadError("request/malformed", message, { argument, remedy, details: { reason }, cause });
}

type Wired<T> = { readonly [K in keyof T]: T[K] extends bigint ? string : T[K] };
function toWire<T extends object>(message: T): Wired<T> {
  return Object.fromEntries(
    Object.entries(message).map(([name, value]) => [name, typeof value === "bigint" ? String(value) : value]),
  ) as Wired<T>;
}
