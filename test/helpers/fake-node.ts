import { randomBytes } from "node:crypto";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { concatBytes, fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import { encodeKeyBundle, type KeyBundle, type ReleasedKey, STANDARD_PURPOSES } from "../../src/core/key-bundle.ts";
import {
  addressOf,
  hashForReceipt,
  hashSealing,
  hashSigned,
  type KeyRelease,
  RELEASE_INFO,
  type SignedMessages,
  type SignedType,
} from "../../src/core/release.ts";
import {
  type KeysRequest,
  keysRequestSchema,
  PROBLEMS,
  type ProblemCode,
  parseMessage,
} from "../../src/core/release-wire.ts";
import { generateSealKeyPair, seal } from "../../src/core/seal.ts";
import { fill } from "./evidence.ts";

/** What a pretended node answers to one request for keys: keys, or a problem. */
export interface FakeAnswer {
  readonly problem?: ProblemCode;
  readonly decision?: string;
  readonly detail?: string;
  readonly retryable?: boolean;
  /** Changes what the receipt says before it is signed. */
  readonly release?: Partial<KeyRelease>;
  /** Changes what is sealed. */
  readonly bundle?: Partial<KeyBundle>;
  /** Changes the answer after it was made. */
  readonly edit?: (answer: FakeKeysAnswer) => unknown;
  readonly testTee?: boolean;
  /** Seals under another digest. */
  readonly aad?: Uint8Array;
  /** Puts keys of somebody on the way in the place of the node's: sealed to the machine under the node's own receipt. */
  readonly replacedBy?: readonly ReleasedKey[];
}

type FakeKeysAnswer = Awaited<ReturnType<FakeNode["answer"]>>;

/** A node that decides nothing: it signs and seals as a node does, whatever a test wants. */
export interface FakeNode {
  readonly signer: Hex;
  /** Requests for keys that came. */
  readonly requests: readonly KeysRequest[];
  /** The X25519 pair behind the purpose `env`. */
  readonly env: { readonly privateKey: Uint8Array; readonly publicKey: Uint8Array };
  readonly fetch: (url: string, init?: RequestInit) => Promise<Response>;
  answer(request: KeysRequest, options: FakeAnswer): Promise<{ sealed: object; receipt: Record<string, unknown> }>;
  /** Signs as a node does. */
  sign<T extends SignedType>(type: T, message: SignedMessages[T], testTee?: boolean): Record<string, unknown>;
}

const CHAIN_ID = 31337n;
/** The pretended registry. */
export const FAKE_REGISTRY: Hex = `0x${"4e".repeat(20)}`;
/** The image in receipts. */
export const FAKE_IMAGE: Hex = `0x${"a1".repeat(32)}`;
const EPOCH = 2;

/** The keys that a pretended node releases: every byte says purpose and epoch. */
export function fakeKeys(envKey: Uint8Array, purposes: readonly string[] = []): ReleasedKey[] {
  return [2, 1, 0].flatMap((keyEpoch) =>
    [0, 1].flatMap((rootEpoch) =>
      [...STANDARD_PURPOSES, ...purposes].map((purpose, index) => ({
        rootEpoch,
        keyEpoch,
        purpose,
        key: purpose === "env" ? envKey : fill(32, 0x10 + 32 * keyEpoch + 16 * rootEpoch + index),
      })),
    ),
  );
}

/** Makes a pretended node. `next` says what it answers to each request for keys, the first being number 0. */
export async function createFakeNode(
  next: (number: number) => FakeAnswer | Error,
  chainId = CHAIN_ID,
): Promise<FakeNode> {
  const key = randomBytes(32);
  const signer = addressOf(secp256k1.getPublicKey(key));
  const env = await generateSealKeyPair();
  const requests: KeysRequest[] = [];
  const json = (value: unknown, status = 200) =>
    new Response(JSON.stringify(value), { status, headers: { "content-type": "application/json" } });
  const signDigest = (digest: Uint8Array): Hex => {
    const bytes = secp256k1.sign(digest, key, { prehash: false, format: "recovered" });
    return toHex(concatBytes(bytes.subarray(1), Uint8Array.of(27 + (bytes[0] ?? 0))));
  };
  const sign: FakeNode["sign"] = (type, message, testTee = false) => {
    const digest = hashSigned(type, message, { chainId, registry: FAKE_REGISTRY, testTee });
    const signature = signDigest(digest);
    return { testTee, chainId: `${chainId}`, registry: FAKE_REGISTRY, digest: toHex(digest), signer, signature };
  };
  const answer: FakeNode["answer"] = async (request, options) => {
    const { evidence } = request;
    const bytes =
      evidence.kind === "tdx" ? evidence.quote : evidence.kind === "snp" ? evidence.report : evidence.document;
    const publicKey = fromHex(request.recipientPublicKey, "key");
    const release: KeyRelease = {
      serviceId: request.serviceId,
      imageId: FAKE_IMAGE,
      platformId: `0x${"b1".repeat(32)}`,
      keyEpoch: EPOCH,
      evidenceHash: hashForReceipt(new Uint8Array(Buffer.from(bytes, "base64"))),
      recipientKeyHash: hashForReceipt(publicKey),
      blockNumber: 5n,
      blockHash: `0x${"c1".repeat(32)}`,
      historyHead: `0x${"d1".repeat(32)}`,
      policyVersion: 3n,
      issuedAt: 1_750_000_000n,
      ...options.release,
    };
    const signed = sign("KeyRelease", release, options.testTee);
    const keys = fakeKeys(env.privateKey, request.purposes);
    const { serviceId, keyEpoch } = release;
    const bundle = { chainId, registry: FAKE_REGISTRY, serviceId, keyEpoch, keys, ...options.bundle };
    const aad = options.aad ?? fromHex(String(signed.digest), "digest");
    const info = new TextEncoder().encode(RELEASE_INFO);
    const own = await seal(publicKey, encodeKeyBundle(bundle), { info, aad });
    const { replacedBy } = options;
    const { enc, ciphertext } =
      replacedBy === undefined
        ? own
        : await seal(publicKey, encodeKeyBundle({ ...bundle, keys: replacedBy }), { info, aad });
    const message = Object.entries(release).map(([name, value]) => [
      name,
      typeof value === "bigint" ? `${value}` : value,
    ]);
    return {
      sealed: {
        enc: toHex(enc),
        ciphertext: Buffer.from(ciphertext).toString("base64"),
        signature: signDigest(hashSealing(fromHex(String(signed.digest), "digest"), own.enc)),
      },
      receipt: { type: "KeyRelease", message: Object.fromEntries(message), ...signed },
    };
  };
  return {
    signer,
    requests,
    env,
    sign,
    answer,
    fetch: async (url, init) => {
      const [, service] = /\/v1\/secrets-key\/(0x[0-9a-f]{40})$/.exec(url) ?? [];
      if (service !== undefined) {
        const serviceId = service as Hex;
        const secretsKey = { serviceId, rootEpoch: 1, keyEpoch: EPOCH, publicKey: toHex(env.publicKey) };
        return json({ ...secretsKey, ...sign("SecretsKey", secretsKey) });
      }
      if (url.endsWith("/v1/challenge")) return json({ nonce: toHex(randomBytes(32)), expiresAt: 2_000_000_000 });
      const request = parseMessage(keysRequestSchema, String(init?.body), "request");
      const options = next(requests.length);
      requests.push(request);
      if (options instanceof Error) throw options;
      const { problem, decision, retryable = false } = options;
      if (problem === undefined) {
        const made = await answer(request, options);
        return json(options.edit?.(made) ?? made);
      }
      const { status, title } = PROBLEMS[problem];
      const type = `urn:keystead:problem:${problem}`;
      return json(
        {
          type,
          title,
          status,
          code: problem,
          detail: options.detail ?? title,
          retryable,
          ...(decision === undefined ? {} : { decision }),
        },
        status,
      );
    },
  };
}
