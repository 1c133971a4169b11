import { z } from "zod";
import type { Hex } from "./bytes.ts";
import { KeysteadError } from "./errors.ts";
import { parseJson } from "./json.ts";
import { PURPOSE_PATTERN } from "./key-bundle.ts";
import { tcbSchema } from "./tcb.ts";

/*
 * What travels between a node and the machines, operators and auditors that talk to it: JSON, every object closed, bytes as lower-case hex with 0x where
 * people compare them and as base64 where they are long, numbers that may pass 2^53 as decimal strings.
 */

const hex = (bytes: number) =>
  z
    .string()
    .regex(new RegExp(`^0x[0-9a-f]{${2 * bytes}}$`))
    .transform((text) => text as Hex)
    .meta({ description: `${bytes} bytes, lower-case hex with 0x` });
const base64 = (maxBytes: number) =>
  z
    .string()
    .min(4)
    .max(4 * Math.ceil(maxBytes / 3))
    .regex(/^[A-Za-z0-9+/]+={0,2}$/)
    .meta({ description: `Standard base64 with padding, at most ${maxBytes} bytes` });
const decimal = z
  .string()
  .regex(/^(?:0|[1-9]\d{0,77})$/)
  .meta({ description: "A whole number, decimal digits" });
const canonicalImage = z
  .string()
  .regex(/^0x(?:[0-9a-f]{2}){4,1024}$/)
  .transform((text) => text as Hex)
  .meta({ description: "A canonical image, lower-case hex with 0x" });
const uint16 = z.int().min(0).max(0xffff);

/** Longer than any quote, report or document; certificates and lists have the same bound. */
export const MAX_EVIDENCE_BYTES = 64 * 1024;
/** Bytes that a request's body may have. */
export const MAX_BODY_BYTES = 512 * 1024;
/** Purposes that one request may name. */
export const MAX_PURPOSES = 16;

/** Evidence as it travels. */
export const evidenceSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("tdx"), quote: base64(MAX_EVIDENCE_BYTES) }),
  z.strictObject({
    kind: z.literal("snp"),
    report: base64(MAX_EVIDENCE_BYTES),
    /** DER: the VCEK or VLEK; where the machine has them the ASK or ASVK, the ARK, and AMD's revocation list. */
    certificates: z.strictObject({
      endorsementKey: base64(MAX_EVIDENCE_BYTES),
      signer: base64(MAX_EVIDENCE_BYTES).optional(),
      root: base64(MAX_EVIDENCE_BYTES).optional(),
      crl: base64(MAX_EVIDENCE_BYTES).optional(),
    }),
  }),
  z.strictObject({ kind: z.literal("nitro"), document: base64(MAX_EVIDENCE_BYTES) }),
]);
/** Evidence as it travels. */
export type WireEvidence = z.infer<typeof evidenceSchema>;

/** `POST /v1/challenge` gives this. */
export const challengeSchema = z.strictObject({
  nonce: hex(32),
  /** Seconds since 1970: from then on the nonce is refused. */
  expiresAt: z.int().nonnegative(),
});
/** An answer of `POST /v1/challenge`. */
export type Challenge = z.infer<typeof challengeSchema>;

const attested = { evidence: evidenceSchema, recipientPublicKey: hex(32), nonce: hex(32) };

/** `POST /v1/keys` takes this. */
export const keysRequestSchema = z.strictObject({
  serviceId: hex(20),
  ...attested,
  /** Canonical bytes of the image, or the platform, that the machine says it is: a hint which ones to look at; they are checked like any other. */
  image: canonicalImage.optional(),
  platform: canonicalImage.optional(),
  /** Purposes beside the standard ones. */
  purposes: z.array(z.string().regex(PURPOSE_PATTERN)).max(MAX_PURPOSES).optional(),
});
/** A request for a service's keys. */
export type KeysRequest = z.infer<typeof keysRequestSchema>;

/** `POST /v1/root` takes this: a second node asks for the root secrets. */
export const rootRequestSchema = z.strictObject(attested);
/** A node's request for the root secrets. */
export type RootRequest = z.infer<typeof rootRequestSchema>;

const receiptBase = {
  /** Whether the node takes evidence under test roots: then nothing about hardware is proven. The signature covers it. */
  testTee: z.boolean(),
  chainId: decimal,
  registry: hex(20),
  digest: hex(32),
  signer: hex(20),
  /** r ‖ s ‖ v over the digest. */
  signature: hex(65),
};

/** A signed receipt of a release of keys. */
export const keyReceiptSchema = z.strictObject({
  type: z.literal("KeyRelease"),
  message: z.strictObject({
    serviceId: hex(20),
    imageId: hex(32),
    platformId: hex(32),
    keyEpoch: uint16,
    evidenceHash: hex(32),
    recipientKeyHash: hex(32),
    blockNumber: decimal,
    blockHash: hex(32),
    historyHead: hex(32),
    policyVersion: decimal,
    issuedAt: decimal,
  }),
  ...receiptBase,
});
/** A signed receipt of a release of keys. */
export type KeyReceipt = z.infer<typeof keyReceiptSchema>;

/** A signed receipt of a release of root secrets. */
export const rootReceiptSchema = z.strictObject({
  type: z.literal("RootRelease"),
  message: z.strictObject({
    imageId: hex(32),
    platformId: hex(32),
    rootEpoch: uint16,
    evidenceHash: hex(32),
    recipientKeyHash: hex(32),
    blockNumber: decimal,
    blockHash: hex(32),
    policyHead: hex(32),
    policyVersion: decimal,
    issuedAt: decimal,
  }),
  ...receiptBase,
});
/** A signed receipt of a release of root secrets. */
export type RootReceipt = z.infer<typeof rootReceiptSchema>;

/** Either receipt. */
export const receiptSchema = z.discriminatedUnion("type", [keyReceiptSchema, rootReceiptSchema]);
/** Either receipt. */
export type Receipt = z.infer<typeof receiptSchema>;

/** HPKE: the encapsulated key and the ciphertext; and the receipt signer's signature of whose they are (`hashSealing`). */
export const sealedSchema = z.strictObject({
  enc: hex(32),
  ciphertext: base64(4 * 1024 * 1024),
  /** r ‖ s ‖ v */
  signature: hex(65),
});

/** `POST /v1/keys` gives this. */
export const keysResponseSchema = z.strictObject({ sealed: sealedSchema, receipt: keyReceiptSchema });
/** An answer of `POST /v1/keys`. */
export type KeysResponse = z.infer<typeof keysResponseSchema>;

/** `POST /v1/root` gives this. */
export const rootResponseSchema = z.strictObject({ sealed: sealedSchema, receipt: rootReceiptSchema });
/** An answer of `POST /v1/root`. */
export type RootResponse = z.infer<typeof rootResponseSchema>;

/** `GET /v1/secrets-key/:service` gives this: signed as `SecretsKey`. */
export const secretsKeySchema = z.strictObject({
  serviceId: hex(20),
  rootEpoch: uint16,
  keyEpoch: uint16,
  publicKey: hex(32),
  ...receiptBase,
});
/** An answer of `GET /v1/secrets-key/:service`. */
export type SecretsKeyAnswer = z.infer<typeof secretsKeySchema>;

/** `GET /v1/info` gives this. */
export const infoSchema = z.strictObject({
  protocol: z.literal("keystead/v1"),
  version: z.string(),
  chainId: decimal,
  registry: hex(20),
  policy: hex(20),
  /** Whether evidence under test roots is taken. */
  testTee: z.boolean(),
  warning: z.string().optional(),
  receiptSigner: hex(20),
  /** The KMS's own X25519 key: a fingerprint of the root secret. */
  environmentKey: hex(32),
  rootEpoch: uint16,
  evidenceKinds: z.array(z.enum(["tdx", "snp", "nitro"])),
  purposes: z.array(z.string()),
  challengeSeconds: z.int().positive(),
});
/** An answer of `GET /v1/info`. */
export type NodeInfo = z.infer<typeof infoSchema>;

/** `GET /v1/receipts` gives this: oldest first. */
export const receiptsPageSchema = z.strictObject({
  receipts: z.array(z.strictObject({ sequence: z.int().positive(), receipt: receiptSchema })),
  /** What to give as `after` for the next page; absent at the end. */
  next: z.int().positive().optional(),
});
/** An answer of `GET /v1/receipts`. */
export type ReceiptsPage = z.infer<typeof receiptsPageSchema>;

/** Every code that a problem document may have, with its status and title. They never change their meaning. */
export const PROBLEMS = {
  "request/malformed": { status: 400, title: "The request is malformed" },
  "evidence/not-genuine": { status: 401, title: "The evidence is not genuine, or not for this request" },
  "release/denied": { status: 403, title: "The contracts do not allow this release" },
  "request/not-found": { status: 404, title: "There is nothing at this address" },
  "nonce/used": { status: 409, title: "The nonce was used before" },
  "nonce/expired": { status: 409, title: "The nonce has expired" },
  "nonce/unknown": { status: 409, title: "The nonce is not one of this node's" },
  "request/too-large": { status: 413, title: "The request is too large" },
  "request/too-many": { status: 429, title: "Too many requests" },
  "chain/unavailable": { status: 503, title: "The chain is unreachable, stale or in disagreement" },
  "collateral/unavailable": { status: 503, title: "What the evidence is checked against is not at hand" },
  "node/busy": { status: 503, title: "The node has more to do than it can" },
  "node/failed": { status: 503, title: "The node could not answer" },
} as const satisfies Readonly<Record<string, { readonly status: number; readonly title: string }>>;
/** A problem's code. */
export type ProblemCode = keyof typeof PROBLEMS;
const PROBLEM_CODES = Object.keys(PROBLEMS) as [ProblemCode, ...ProblemCode[]];

/** A problem document (RFC 9457), `application/problem+json`. */
export const problemSchema = z.strictObject({
  /** `urn:keystead:problem:` and the code. */
  type: z.string(),
  title: z.string(),
  status: z.int(),
  code: z.enum(PROBLEM_CODES),
  detail: z.string(),
  /** Whether the same request may succeed later. A used nonce needs a new challenge in any case. */
  retryable: z.boolean(),
  /** 401: the verifier's error code, e.g. `tdx/debug`. 400: where, e.g. `evidence.quote`, or why no place can be told, e.g. `json/duplicate-key`. */
  reason: z.string().optional(),
  /** 403: the contracts' decision, e.g. `ImagePending`. */
  decision: z.string().optional(),
  /** 403: the block that it was asked at. */
  block: z.strictObject({ number: decimal, hash: hex(32) }).optional(),
  /** 403: what falls short of the machine's platform, where its TCB status is not the best. */
  tcb: tcbSchema.optional(),
});
/** A problem document. */
export type Problem = z.infer<typeof problemSchema>;

/**
 * Reads a message strictly: no key twice, no key too many, every value of its exact form.
 *
 * @param argument names the text in errors
 * @throws KeysteadError `wire/malformed` {path, issues}, and those of `parseJson`
 * @example
 * const { nonce } = parseMessage(challengeSchema, await response.text(), "challenge");
 */
export function parseMessage<T>(schema: z.ZodType<T>, text: string, argument: string): T {
  const result = schema.safeParse(parseJson(text, argument));
  if (result.success) return result.data;
  const [first] = result.error.issues;
  const path = first?.path.map(String).join(".") ?? "";
  throw new KeysteadError(
    "wire/malformed",
    `${argument} is malformed${path === "" ? "" : ` at ${path}`}: ${first?.message ?? "unknown"}`,
    {
      argument,
      remedy: "Give a message of the release protocol, version 1.",
      details: { path, issues: result.error.issues.length },
    },
  );
}
