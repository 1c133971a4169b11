import { createCipheriv, createDecipheriv, createPrivateKey, createPublicKey, randomBytes, scrypt } from "node:crypto";
import { constants } from "node:fs";
import { open as openFile, rename, unlink } from "node:fs/promises";
import { request } from "node:http";
import { dirname } from "node:path";
import { mapHashToField } from "@noble/curves/abstract/modular.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { hkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { signRecoverable } from "tiny-secp256k1";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { isJsonObject, parseJson } from "../core/json.ts";
import { encodeKeyBundle, encodeRootBundle, MAX_EPOCHS, type ReleasedKey } from "../core/key-bundle.ts";
import {
  addressOf,
  type DeploymentId,
  encodeParts,
  encodeUint,
  hashSealing,
  RELEASE_INFO,
  ROOT_INFO,
} from "../core/release.ts";
import { type Sealed, seal } from "../core/seal.ts";

/*
 * Every secret of a node, in one file: where root secrets come from, what is derived from them, and the only ways in which anything leaves: sealed to a
 * machine's key, as a public key, or as a signature.
 *
 *   root[0 … n]                      32 bytes each, one for every root epoch
 *   serviceSecret  = HKDF(root[r], "service", chainId, registry, serviceId, keyEpoch)
 *   key            = HKDF(serviceSecret, "purpose", purpose)
 *   receipt key    = HKDF(root[n], "receipt", chainId, registry), 48 bytes reduced to a secp256k1 scalar
 *   KMS key        = HKDF(root[n], "environment", chainId, registry), an X25519 key: its public half is the root's fingerprint
 *
 * HKDF is RFC 5869 with SHA-256 and the salt "keystead/v1"; its info is `enc(parts…)`, every part after its length in four bytes, so no two lists of parts
 * give the same bytes. Chain and registry are in every derivation from a root: two deployments share nothing, even with the same root.
 *
 *   HKDF                 RFC 5869                       @noble/hashes
 *   HPKE                 RFC 9180                       ../core/seal.ts (@hpke)
 *   X25519               RFC 7748, RFC 8410 encoding    node:crypto
 *   secp256k1 signatures SEC 1, RFC 6979 nonces         tiny-secp256k1 (Bitcoin Core's libsecp256k1 in WebAssembly)
 *   hash to a scalar     FIPS 186-5, A.2.1              @noble/curves
 *   root file            RFC 7914 scrypt, RFC 8439 AEAD node:crypto
 *
 * Secrets are byte arrays of this file's closures and are overwritten after use. What cannot be overwritten: copies that the garbage collector made,
 * bigints of @noble, which computes the receipt key's public half once, what WebAssembly's stack held of a nonce until the next signature, key objects of
 * OpenSSL and WebCrypto until they are freed. So a node refuses to start where the kernel would write core dumps (see config.ts), and needs memory that is
 * encrypted and not swapped: a TEE's.
 */

const SALT = Buffer.from("keystead/v1");
const SECRET_BYTES = 32;
const MAX_ROOT_EPOCHS = 64;

/** One root secret. */
export interface RootSecret {
  readonly rootEpoch: number;
  /** 32 bytes. */
  readonly secret: Uint8Array;
}

/** Where root secrets are kept. */
export interface RootStore {
  /** For logs and errors: never a secret. */
  readonly description: string;
  /** Every root secret, epochs from 0 on without a gap. The caller wipes them. */
  readonly load: () => Promise<readonly RootSecret[]>;
}

const refuse = (code: string, message: string, remedy: string, cause?: unknown) =>
  new KeysteadError(`root/${code}`, message, { argument: "root", remedy, cause });

/** Overwrites secrets. */
export function wipe(...secrets: readonly Uint8Array[]): void {
  for (const secret of secrets) secret.fill(0);
}

/* ROOT STORE 1: A FILE SEALED UNDER A PASSPHRASE (development, and machines without a TEE's key agent) */

/** scrypt's cost: 128 MiB and about half a second (OWASP's first choice for scrypt). Fixed: a file cannot ask for less. */
const SCRYPT = { N: 2 ** 17, r: 8, p: 1, maxmem: 256 * 1024 * 1024 } as const;
const FILE_FORMAT = "keystead-root/1";
const FILE_LIMIT = 64 * 1024;
const CIPHER = "chacha20-poly1305";
const TAG_BYTES = 16;
const MIN_PASSPHRASE_BYTES = 12;

/** A root store that can be written. */
export interface FileRootStore extends RootStore {
  /** Makes the file with one new root secret; never replaces one. */
  readonly create: () => Promise<void>;
  /** Makes the file with given root secrets, e.g. those of a running node; never replaces one. */
  readonly write: (roots: readonly RootSecret[]) => Promise<void>;
  /** Adds a new root secret with the next epoch, and gives it. */
  readonly rotate: () => Promise<number>;
}

/**
 * Root secrets in a file, sealed under a passphrase: scrypt, ChaCha20-Poly1305, a new salt and nonce at every writing, mode 0600, written whole and
 * flushed before it gets its name.
 *
 * @param passphrase at least 12 bytes
 * @throws KeysteadError `root/weak-passphrase`; `load` throws `root/not-found`, `root/permissions`, `root/malformed`, `root/not-opened`; `create` and `write`
 * throw `root/exists`, `root/not-written`
 * @example
 * const store = createFileRootStore("/var/lib/keystead/root.json", passphrase);
 * await store.create();
 */
export function createFileRootStore(path: string, passphrase: Uint8Array): FileRootStore {
  if (passphrase.length < MIN_PASSPHRASE_BYTES) {
    throw refuse(
      "weak-passphrase",
      `the passphrase has fewer than ${MIN_PASSPHRASE_BYTES} bytes`,
      "Use a random passphrase of 20 or more characters.",
    );
  }
  const load = async () => await openRootFile(await readRootFile(path), passphrase);
  return {
    description: `file ${path}`,
    load,
    create: async () => {
      const secret = randomBytes(SECRET_BYTES);
      try {
        await writeRootFile(path, passphrase, [{ rootEpoch: 0, secret }], false);
      } finally {
        wipe(secret);
      }
    },
    write: async (roots) => await writeRootFile(path, passphrase, roots, false),
    rotate: async () => {
      const roots = await load();
      const next = { rootEpoch: roots.length, secret: randomBytes(SECRET_BYTES) };
      try {
        await writeRootFile(path, passphrase, [...roots, next], true);
        return next.rootEpoch;
      } finally {
        wipe(...roots.map(({ secret }) => secret), next.secret);
      }
    },
  };
}

async function readRootFile(path: string): Promise<string> {
  try {
    const handle = await openFile(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stats = await handle.stat();
      if (!stats.isFile() || stats.size > FILE_LIMIT)
        throw refuse("malformed", `${path} is no root file`, "Give the right path.");
      if ((stats.mode & 0o077) !== 0)
        throw refuse("permissions", `others than its owner may open ${path}`, `Run: chmod 600 ${path}`);
      return await handle.readFile("utf8");
    } finally {
      await handle.close();
    }
  } catch (cause) {
    if (isKeysteadError(cause)) throw cause;
    throw refuse(
      "not-found",
      `the root file ${path} cannot be read`,
      "For a new KMS: keystead node init makes it; for one that runs: keystead node join gets it. Else check the path, and who may read it.",
      cause,
    );
  }
}

/** The header is authenticated: it is the AEAD's additional data. */
const fileHeader = (salt: Uint8Array, nonce: Uint8Array, count: number) =>
  JSON.stringify({
    format: FILE_FORMAT,
    kdf: { name: "scrypt", N: SCRYPT.N, r: SCRYPT.r, p: SCRYPT.p, salt: toHex(salt) },
    cipher: { name: CIPHER, nonce: toHex(nonce) },
    roots: count,
  });

async function openRootFile(text: string, passphrase: Uint8Array): Promise<readonly RootSecret[]> {
  const bad = (cause?: unknown) =>
    refuse("malformed", "the root file is malformed", "Restore the file from a copy.", cause);
  const file = parseJson(text, "root file");
  const part = (object: unknown, name: string): unknown =>
    typeof object === "object" && object !== null
      ? Object.entries(object).find(([key]) => key === name)?.[1]
      : undefined;
  const header = isJsonObject(file) ? file.header : undefined;
  const sealed = isJsonObject(file) ? file.sealed : undefined;
  if (typeof header !== "string" || typeof sealed !== "string") throw bad();
  const head = parseJson(header, "root file header");
  const salt = part(part(head, "kdf"), "salt");
  const nonce = part(part(head, "cipher"), "nonce");
  const count = part(head, "roots");
  if (typeof salt !== "string" || typeof nonce !== "string" || typeof count !== "number") throw bad();
  const saltBytes = fromHex(salt, "salt");
  const nonceBytes = fromHex(nonce, "nonce");
  // Byte for byte what this version writes: nothing in the file chooses an algorithm or a cost.
  if (header !== fileHeader(saltBytes, nonceBytes, count) || saltBytes.length !== 32 || nonceBytes.length !== 12)
    throw bad();
  if (!Number.isInteger(count) || count < 1 || count > MAX_ROOT_EPOCHS) throw bad();
  const bytes = fromHex(sealed, "sealed");
  if (bytes.length !== count * SECRET_BYTES + TAG_BYTES) throw bad();
  const key = await stretch(passphrase, saltBytes);
  const body = bytes.subarray(0, -TAG_BYTES);
  const decipher = createDecipheriv(CIPHER, key, nonceBytes, { authTagLength: TAG_BYTES });
  try {
    decipher.setAAD(Buffer.from(header), { plaintextLength: body.length });
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    const plaintext = decipher.update(body);
    decipher.final();
    return splitSecrets(plaintext);
  } catch (cause) {
    throw refuse(
      "not-opened",
      "the root file does not open with this passphrase, or was altered",
      "Give the passphrase that the file was made with.",
      cause,
    );
  } finally {
    wipe(key);
  }
}

function splitSecrets(plaintext: Uint8Array): readonly RootSecret[] {
  const count = plaintext.length / SECRET_BYTES;
  const roots = Array.from({ length: count }, (_, rootEpoch) => ({
    rootEpoch,
    // a copy: a Buffer's own slice would be a view of what is wiped below
    secret: Uint8Array.from(plaintext.subarray(rootEpoch * SECRET_BYTES, (rootEpoch + 1) * SECRET_BYTES)),
  }));
  wipe(plaintext);
  checkRoots(roots);
  return roots;
}

async function writeRootFile(
  path: string,
  passphrase: Uint8Array,
  roots: readonly RootSecret[],
  replace: boolean,
): Promise<void> {
  checkRoots(roots);
  const salt = randomBytes(32);
  const nonce = randomBytes(12);
  const header = fileHeader(salt, nonce, roots.length);
  const key = await stretch(passphrase, salt);
  const plaintext = Buffer.alloc(roots.length * SECRET_BYTES);
  roots.forEach(({ secret }, index) => {
    plaintext.set(secret, index * SECRET_BYTES);
  });
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(Buffer.from(header), { plaintextLength: plaintext.length });
  const body = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
  wipe(plaintext, key);
  await writeDurably(path, `${JSON.stringify({ header, sealed: toHex(body) })}\n`, replace);
}

async function writeDurably(path: string, text: string, replace: boolean): Promise<void> {
  const temporary = replace ? `${path}.new` : path;
  try {
    const handle = await openFile(temporary, "wx", 0o600);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    if (replace) await rename(temporary, path);
    const folder = await openFile(dirname(path), "r");
    await folder.sync().finally(() => folder.close());
  } catch (cause) {
    const exists = cause instanceof Error && "code" in cause && cause.code === "EEXIST";
    if (exists)
      throw refuse("exists", `${temporary} is there already`, "Move it away: it may be the only copy.", cause);
    await unlink(temporary).catch(() => undefined);
    throw refuse("not-written", `${path} cannot be written`, "Check the folder and its free space.", cause);
  }
}

function stretch(passphrase: Uint8Array, salt: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(passphrase, salt, 32, SCRYPT, (error, key) => (error === null ? resolve(key) : reject(error)));
  });
}

function checkRoots(roots: readonly RootSecret[]): void {
  const good = roots.every(
    ({ rootEpoch, secret }, index) =>
      rootEpoch === index && secret.length === SECRET_BYTES && secret.some((byte) => byte !== 0),
  );
  if (good && roots.length > 0 && roots.length <= MAX_ROOT_EPOCHS) return;
  throw refuse(
    "malformed",
    `the root secrets are not 1 to ${MAX_ROOT_EPOCHS} of 32 bytes, by epochs from 0 on`,
    "Restore the root from a copy, or join a running node again.",
  );
}

/* ROOT STORE 2: THE TEE'S OWN KEY AGENT (production) */

/** The longest answer that a key agent gives. */
const AGENT_LIMIT = 64 * 1024;

/** Where a dstack guest agent is, and what to ask it for. */
export interface DstackRootOptions {
  /** Default: `/var/run/dstack.sock`. */
  readonly socketPath?: string;
  /** How many root epochs there are; one is asked for each. */
  readonly rootEpochs: number;
  /** Default: ten seconds. */
  readonly timeoutMs?: number;
}

/**
 * Root secrets from dstack's guest agent (`POST /GetKey` on its socket): derived from the key of the node's own dstack application, so every instance of
 * it has the same roots and nothing is stored. The agent's 32 bytes are put through HKDF: they could serve something else in the machine as well.
 *
 * @throws KeysteadError `load` throws `root/agent-unreachable`, `root/agent-malformed`
 * @example
 * const store = createDstackRootStore({ rootEpochs: 1 });
 */
export function createDstackRootStore(options: DstackRootOptions): RootStore {
  const { socketPath = "/var/run/dstack.sock", rootEpochs, timeoutMs = 10_000 } = options;
  if (!Number.isInteger(rootEpochs) || rootEpochs < 1 || rootEpochs > MAX_ROOT_EPOCHS)
    throw refuse("malformed", `${rootEpochs} is no number of root epochs`, `Give 1 to ${MAX_ROOT_EPOCHS}.`);
  return {
    description: `dstack guest agent ${socketPath}`,
    load: async () => {
      const roots: RootSecret[] = [];
      for (let rootEpoch = 0; rootEpoch < rootEpochs; rootEpoch += 1) {
        const answer = await askAgent(socketPath, timeoutMs, {
          path: `keystead/root/${rootEpoch}`,
          purpose: "keystead",
        });
        const key = readAgentKey(answer);
        roots.push({ rootEpoch, secret: derive(key, SECRET_BYTES, "dstack-root", encodeUint(rootEpoch, 2)) });
        wipe(key, answer);
      }
      checkRoots(roots);
      return roots;
    },
  };
}

/** `{"key":"<64 hex digits>", …}`, cut out of the bytes so that no string of it stays behind. */
function readAgentKey(answer: Buffer): Uint8Array {
  const bad = () => refuse("agent-malformed", "the key agent's answer has no key of 32 bytes", "Check its version.");
  const label = answer.indexOf('"key"');
  const start = label < 0 ? -1 : answer.indexOf('"', label + 5) + 1;
  if (start <= 0 || !/^\s*:\s*$/.test(answer.toString("latin1", label + 5, start - 1))) throw bad();
  const key = Buffer.alloc(SECRET_BYTES);
  for (let index = 0; index < 2 * SECRET_BYTES; index += 1) {
    const digit = parseInt(String.fromCharCode(answer[start + index] ?? 0), 16);
    if (Number.isNaN(digit)) throw bad();
    const at = index >> 1;
    key[at] = ((key[at] ?? 0) << 4) | digit;
  }
  if (answer[start + 2 * SECRET_BYTES] !== 0x22) throw bad();
  return key;
}

function askAgent(socketPath: string, timeoutMs: number, body: unknown): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const fail = (cause?: unknown) =>
      reject(refuse("agent-unreachable", `the key agent at ${socketPath} did not answer`, "Check its socket.", cause));
    const headers = { host: "dstack", "content-type": "application/json" };
    const call = request({ socketPath, path: "/GetKey", method: "POST", headers, timeout: timeoutMs }, (response) => {
      const answer = Buffer.alloc(AGENT_LIMIT);
      let length = 0;
      response.on("data", (chunk: Buffer) => {
        if (length + chunk.length > AGENT_LIMIT) call.destroy(new Error("the answer is too long"));
        else length += chunk.copy(answer, length);
        wipe(chunk);
      });
      response.on("error", fail);
      response.on("end", () => (response.statusCode === 200 ? resolve(answer.subarray(0, length)) : fail()));
    });
    call.on("timeout", () => call.destroy(new Error("timeout")));
    call.on("error", fail);
    call.end(JSON.stringify(body));
  });
}

/* DERIVATION */

/** HKDF-SHA256 with the protocol's salt; `info` is `enc` of the label and the parts. */
function derive(ikm: Uint8Array, length: number, label: string, ...parts: readonly Uint8Array[]): Uint8Array {
  return hkdf(sha256, ikm, SALT, encodeParts(Buffer.from(label), ...parts), length);
}

const deploymentParts = ({ chainId, registry }: DeploymentId) => [
  encodeUint(chainId, 32),
  fromHex(registry, "registry"),
];

/** 48 bytes, so that the remainder's bias is below 2^-128 (FIPS 186-5, A.2.1). */
const SCALAR_SEED_BYTES = 48;
function toScalar(seed: Uint8Array): Uint8Array {
  const scalar = mapHashToField(seed, secp256k1.Point.Fn.ORDER);
  wipe(seed);
  return scalar;
}

function deriveServiceSecret(root: Uint8Array, deployment: DeploymentId, serviceId: Hex, keyEpoch: number): Uint8Array {
  const service = fromHex(serviceId, "serviceId");
  if (service.length !== 20) throw refuse("malformed", "a service id has 20 bytes", "Give the service's id.");
  return derive(root, SECRET_BYTES, "service", ...deploymentParts(deployment), service, encodeUint(keyEpoch, 2));
}

function derivePurposeKey(serviceSecret: Uint8Array, purpose: string): Uint8Array {
  const name = Buffer.from(purpose);
  if (purpose === "identity-k256") return toScalar(derive(serviceSecret, SCALAR_SEED_BYTES, "purpose", name));
  return derive(serviceSecret, SECRET_BYTES, "purpose", name);
}

/** RFC 8410: what stands before an X25519 private key's 32 bytes in PKCS #8, and a public key's in SPKI. */
const X25519_PKCS8 = Buffer.from("302e020100300506032b656e04220420", "hex");
const X25519_SPKI_HEAD = 12;
function x25519PublicKey(privateKey: Uint8Array): Uint8Array {
  const der = Buffer.concat([X25519_PKCS8, privateKey]);
  const key = createPublicKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
  wipe(der);
  return new Uint8Array(key.export({ format: "der", type: "spki" }).subarray(X25519_SPKI_HEAD));
}

/* WHAT LEAVES */

/** A request for a service's keys that was decided. */
export interface KeyGrant {
  readonly serviceId: Hex;
  /** The current epoch: keys of it and of those before are sealed, at most 1024. */
  readonly keyEpoch: number;
  readonly purposes: readonly string[];
  readonly recipientPublicKey: Uint8Array;
  /** The receipt's digest. */
  readonly receiptDigest: Uint8Array;
}

/** A sealed answer, and the receipt signer's signature that it is this KMS's: HPKE alone does not say who sealed. */
export interface SignedSealed extends Sealed {
  /** Of `hashSealing`: r ‖ s ‖ v. */
  readonly signature: Hex;
}

/** A node's secrets: they stay inside, only what its methods give leaves. */
export interface KeyRing {
  readonly deployment: DeploymentId;
  /** The newest root epoch. */
  readonly rootEpoch: number;
  /** The address that signs receipts: the same for every node of a root and deployment. */
  readonly receiptSigner: Hex;
  /** The KMS's own X25519 public key: a fingerprint of the newest root for this deployment. */
  readonly environmentKey: Hex;
  /** Signs a digest: r ‖ s ‖ v, s in the lower half. */
  readonly sign: (digest: Uint8Array) => Hex;
  /** The X25519 public key to which a service's secrets are sealed, of the newest root. */
  readonly secretsKey: (serviceId: Hex, keyEpoch: number) => Hex;
  readonly sealKeys: (grant: KeyGrant) => Promise<SignedSealed>;
  /** For another node: every root secret. */
  readonly sealRoots: (recipientPublicKey: Uint8Array, receiptDigest: Uint8Array) => Promise<SignedSealed>;
  /** Overwrites the secrets; nothing works afterwards. */
  readonly wipe: () => void;
}

/**
 * Takes root secrets in for one deployment.
 *
 * @param roots epochs from 0 on; they are copied, and the originals wiped
 * @throws KeysteadError `root/malformed`; its methods also `root/wiped`, `seal/bad-key`
 * @example
 * const ring = createKeyRing(await store.load(), { chainId: 1n, registry });
 */
export function createKeyRing(roots: readonly RootSecret[], deployment: DeploymentId): KeyRing {
  checkRoots(roots);
  const secrets = roots.map(({ secret }) => {
    const copy = Buffer.alloc(SECRET_BYTES);
    copy.set(secret);
    wipe(secret);
    return copy;
  });
  const newest = secrets.at(-1) ?? Buffer.alloc(0);
  const receiptKey = toScalar(derive(newest, SCALAR_SEED_BYTES, "receipt", ...deploymentParts(deployment)));
  const kmsKey = derive(newest, SECRET_BYTES, "environment", ...deploymentParts(deployment));
  const environmentKey = toHex(x25519PublicKey(kmsKey));
  wipe(kmsKey);
  let wiped = false;
  const live = () => {
    if (wiped) throw refuse("wiped", "the node's secrets are gone: it is stopping", "Ask another node.");
  };

  const deriveKeys = ({ serviceId, keyEpoch, purposes }: KeyGrant): ReleasedKey[] => {
    const keys: ReleasedKey[] = [];
    for (let epoch = Math.max(0, keyEpoch - MAX_EPOCHS + 1); epoch <= keyEpoch; epoch += 1) {
      for (const [rootEpoch, root] of secrets.entries()) {
        const serviceSecret = deriveServiceSecret(root, deployment, serviceId, epoch);
        for (const purpose of purposes)
          keys.push({ rootEpoch, keyEpoch: epoch, purpose, key: derivePurposeKey(serviceSecret, purpose) });
        wipe(serviceSecret);
      }
    }
    return keys;
  };

  const sign = (digest: Uint8Array): Hex => {
    live();
    // r ‖ s, s in the lower half, and which of the points with this r; Ethereum writes r ‖ s ‖ v, v 27 or 28
    const { signature, recoveryId } = signRecoverable(digest, receiptKey);
    return toHex(Uint8Array.of(...signature, 27 + recoveryId));
  };
  const sealSigned = async (to: Uint8Array, plaintext: Uint8Array, info: string, aad: Uint8Array) => {
    try {
      const sealed = await seal(to, plaintext, { info: Buffer.from(info), aad });
      return { ...sealed, signature: sign(hashSealing(aad, sealed.enc)) };
    } finally {
      wipe(plaintext);
    }
  };

  return {
    deployment,
    rootEpoch: secrets.length - 1,
    receiptSigner: addressOf(secp256k1.getPublicKey(receiptKey)),
    environmentKey,
    sign,
    secretsKey: (serviceId, keyEpoch) => {
      live();
      const serviceSecret = deriveServiceSecret(newest, deployment, serviceId, keyEpoch);
      const privateKey = derivePurposeKey(serviceSecret, "env");
      const publicKey = toHex(x25519PublicKey(privateKey));
      wipe(serviceSecret, privateKey);
      return publicKey;
    },
    sealKeys: async (grant) => {
      live();
      const keys = deriveKeys(grant);
      const { serviceId, keyEpoch } = grant;
      const plaintext = encodeKeyBundle({ ...deployment, serviceId, keyEpoch, keys });
      for (const { key } of keys) wipe(key);
      return await sealSigned(grant.recipientPublicKey, plaintext, RELEASE_INFO, grant.receiptDigest);
    },
    sealRoots: async (recipientPublicKey, receiptDigest) => {
      live();
      const bundled = secrets.map((secret, rootEpoch) => ({ rootEpoch, secret }));
      const plaintext = encodeRootBundle({ ...deployment, roots: bundled });
      return await sealSigned(recipientPublicKey, plaintext, ROOT_INFO, receiptDigest);
    },
    wipe: () => {
      wiped = true;
      wipe(...secrets, receiptKey);
    },
  };
}

/**
 * Whether roots are those of a published identity: their fingerprint and signer are as the chain says.
 *
 * @throws KeysteadError `root/other-identity`
 * @example
 * checkIdentity(ring, { environmentKey, receiptSigner });
 */
export function checkIdentity(
  ring: Pick<KeyRing, "environmentKey" | "receiptSigner">,
  expected: Pick<KeyRing, "environmentKey" | "receiptSigner">,
): void {
  if (ring.environmentKey === expected.environmentKey && ring.receiptSigner === expected.receiptSigner) return;
  throw refuse(
    "other-identity",
    `the root secrets belong to ${ring.environmentKey} and ${ring.receiptSigner}, not to the expected identity`,
    "Do not use them: check the node that gave them, and the published identity.",
  );
}
