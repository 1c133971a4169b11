import { secp256k1 } from "@noble/curves/secp256k1.js";
import { expect } from "chai";
import { computeAddress, TypedDataEncoder, Wallet } from "ethers";
import { fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import {
  encodeKeyBundle,
  encodeRootBundle,
  type KeyBundle,
  parseKeyBundle,
  parseRootBundle,
} from "../../src/core/key-bundle.ts";
import {
  addressOf,
  buildDomain,
  encodeParts,
  encodeUint,
  hashSigned,
  type KeyRelease,
  type RootRelease,
  recoverSigner,
  type SecretsKey,
  SIGNED_TYPES,
} from "../../src/core/release.ts";
import { generateSealKeyPair, open, seal } from "../../src/core/seal.ts";
import { openSecrets, parseSealedSecrets, type SecretsContext, sealSecrets } from "../../src/core/sealed-secrets.ts";
import { errorOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";
import { openByHand } from "../helpers/hpke.ts";

const hex = (bytes: number, byte: number): Hex => toHex(fill(bytes, byte));
const text = (value: string) => new TextEncoder().encode(value);
const CONTEXT = { chainId: 31337n, registry: hex(20, 0xab), testTee: false };
const RELEASE: KeyRelease = {
  serviceId: hex(20, 1),
  imageId: hex(32, 2),
  platformId: hex(32, 3),
  keyEpoch: 4,
  evidenceHash: hex(32, 5),
  recipientKeyHash: hex(32, 6),
  blockNumber: 2n ** 63n,
  blockHash: hex(32, 7),
  historyHead: hex(32, 8),
  policyVersion: 9n,
  issuedAt: 1_750_000_000n,
};
const { serviceId: _service, keyEpoch: _epoch, historyHead: _head, ...SHARED } = RELEASE;
const ROOT: RootRelease = { ...SHARED, rootEpoch: 1, policyHead: hex(32, 8) };
const SECRETS: SecretsKey = { serviceId: hex(20, 1), rootEpoch: 0, keyEpoch: 2, publicKey: hex(32, 3) };
const codeOf = async (act: Promise<unknown>): Promise<unknown> =>
  act.then(
    () => undefined,
    (error) => error.code,
  );

describe("release protocol", () => {
  describe("what a node signs", () => {
    const cases = [
      ["KeyRelease", RELEASE],
      ["RootRelease", ROOT],
      ["SecretsKey", SECRETS],
    ] as const;
    for (const [type, message] of cases) {
      it(`${type} has the digest that ethers computes`, () => {
        const expected = TypedDataEncoder.hash(buildDomain(CONTEXT), { [type]: [...SIGNED_TYPES[type]] }, message);
        expect(toHex(hashSigned(type, message, CONTEXT))).to.equal(expected);
      });
    }

    it("every field, the chain, the registry and a test TEE change the digest", () => {
      const digests = [
        ...Object.keys(RELEASE).map((field) => {
          const value = Object.entries(RELEASE).find(([name]) => name === field)?.[1];
          const other = typeof value === "string" ? value.replace(/.$/, "f") : Number(value) === 4 ? 5 : 77n;
          return hashSigned("KeyRelease", { ...RELEASE, [field]: other }, CONTEXT);
        }),
        hashSigned("KeyRelease", RELEASE, CONTEXT),
        hashSigned("KeyRelease", RELEASE, { ...CONTEXT, chainId: 1n }),
        hashSigned("KeyRelease", RELEASE, { ...CONTEXT, registry: hex(20, 0xac) }),
        hashSigned("KeyRelease", RELEASE, { ...CONTEXT, testTee: true }),
      ].map(toHex);
      expect(new Set(digests).size).to.equal(digests.length);
    });

    it("given values that are not of their type, refuses them", () => {
      const bad: readonly Partial<KeyRelease>[] = [
        { serviceId: hex(19, 1) },
        { imageId: "0xAB" },
        { blockHash: hex(33, 1) },
      ];
      for (const change of bad) {
        const error = errorOf(() => hashSigned("KeyRelease", { ...RELEASE, ...change }, CONTEXT));
        expect(error.code).to.equal("receipt/malformed");
      }
      for (const change of [{ keyEpoch: 0x10000 }, { issuedAt: 2n ** 64n }, { policyVersion: -1n }]) {
        const error = errorOf(() => hashSigned("KeyRelease", { ...RELEASE, ...change }, CONTEXT));
        expect(error.code).to.equal("number/out-of-range");
      }
    });
  });

  describe("recoverSigner", () => {
    const wallet = new Wallet(hex(32, 0x11));
    const digest = hashSigned("KeyRelease", RELEASE, CONTEXT);
    const signature = wallet.signingKey.sign(digest).serialized as Hex;

    it("gives the address that ethers signed with, and that the public key has", () => {
      expect(recoverSigner(digest, signature)).to.equal(wallet.address.toLowerCase());
      const publicKey = secp256k1.getPublicKey(fill(32, 0x11));
      expect(addressOf(publicKey)).to.equal(computeAddress(toHex(publicKey)).toLowerCase());
    });

    it("given another digest, gives another address", () => {
      expect(recoverSigner(hashSigned("RootRelease", ROOT, CONTEXT), signature)).not.to.equal(
        wallet.address.toLowerCase(),
      );
    });

    it("given a high s, a wrong v, or a wrong length, refuses", () => {
      const bytes = fromHex(signature, "signature");
      const order = secp256k1.Point.Fn.ORDER;
      const s = order - BigInt(toHex(bytes.subarray(32, 64)));
      const high = Uint8Array.from([...bytes.subarray(0, 32), ...encodeUint(s, 32), 27 + 28 - (bytes[64] ?? 0)]);
      const wrongV = Uint8Array.from([...bytes.subarray(0, 64), 0]);
      for (const bad of [high, wrongV, bytes.subarray(0, 64), fill(65, 0)])
        expect(errorOf(() => recoverSigner(digest, toHex(bad))).code).to.equal("receipt/bad-signature");
    });
  });

  it("encodeParts keeps apart what joined bytes would not", () => {
    expect(toHex(encodeParts(text("ab"), text("c")))).to.equal("0x0000000261620000000163");
    const lists = [["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"]].map((parts) =>
      toHex(encodeParts(...parts.map(text))),
    );
    expect(new Set(lists).size).to.equal(lists.length);
  });

  describe("bundles", () => {
    const bundle: KeyBundle = {
      chainId: 31337n,
      registry: hex(20, 1),
      serviceId: hex(20, 2),
      keyEpoch: 1,
      keys: [
        { rootEpoch: 0, keyEpoch: 0, purpose: "disk", key: fill(32, 3) },
        { rootEpoch: 0, keyEpoch: 1, purpose: "identity-k256", key: fill(32, 4) },
      ],
    };
    const roots = {
      chainId: 1n,
      registry: hex(20, 1),
      roots: [{ rootEpoch: 0, secret: fill(32, 5) }],
    };

    it("are read as they were written", () => {
      expect(parseKeyBundle(encodeKeyBundle(bundle))).to.deep.equal(bundle);
      expect(parseRootBundle(encodeRootBundle(roots))).to.deep.equal(roots);
    });

    it("given any shortening, a byte more, or the other kind, are refused", () => {
      const keys = encodeKeyBundle(bundle);
      const root = encodeRootBundle(roots);
      for (let length = 0; length < keys.length; length += 1)
        expect(errorOf(() => parseKeyBundle(keys.subarray(0, length))).code).to.equal("bundle/malformed");
      for (let length = 0; length < root.length; length += 1)
        expect(errorOf(() => parseRootBundle(root.subarray(0, length))).code).to.equal("bundle/malformed");
      for (const act of [
        () => parseKeyBundle(Uint8Array.from([...keys, 0])),
        () => parseRootBundle(Uint8Array.from([...root, 0])),
        () => parseKeyBundle(root),
        () => parseRootBundle(keys),
      ])
        expect(errorOf(act).code).to.equal("bundle/malformed");
    });
  });

  describe("sealing", () => {
    const context = { info: text("info"), aad: text("aad") };

    it("opens RFC 9180's own message (A.2.1, base mode, first encryption), and so does the second implementation", async () => {
      const bytes = (value: string) => fromHex(value, "vector");
      const privateKey = bytes("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
      const sealed = {
        enc: bytes("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"),
        ciphertext: bytes("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"),
      };
      const rfc = { info: bytes("4f6465206f6e2061204772656369616e2055726e"), aad: bytes("436f756e742d30") };
      const plaintext = "0x4265617574792069732074727574682c20747275746820626561757479";
      expect(toHex(await open(privateKey, sealed, rfc))).to.equal(plaintext);
      expect(toHex(openByHand(privateKey, sealed, rfc))).to.equal(plaintext);
    });

    it("what is sealed opens by the second implementation, and with a new encapsulation each time", async () => {
      const { privateKey, publicKey } = await generateSealKeyPair();
      const first = await seal(publicKey, text("keys"), context);
      const second = await seal(publicKey, text("keys"), context);
      expect(toHex(first.enc)).not.to.equal(toHex(second.enc));
      for (const sealed of [first, second]) {
        expect(openByHand(privateKey, sealed, context)).to.deep.equal(text("keys"));
        expect(await open(privateKey, sealed, context)).to.deep.equal(text("keys"));
      }
    });

    it("given another key, info or aad, or any altered byte, does not open", async () => {
      const { privateKey, publicKey } = await generateSealKeyPair();
      const sealed = await seal(publicKey, text("keys"), context);
      const other = await generateSealKeyPair();
      const flip = (bytes: Uint8Array, at: number) => bytes.map((byte, index) => (index === at ? byte ^ 1 : byte));
      const tries = [
        open(other.privateKey, sealed, context),
        open(privateKey, sealed, { ...context, info: text("other") }),
        open(privateKey, sealed, { ...context, aad: text("other") }),
        open(privateKey, { ...sealed, enc: flip(sealed.enc, 0) }, context),
        ...[...sealed.ciphertext].map((_, at) =>
          open(privateKey, { ...sealed, ciphertext: flip(sealed.ciphertext, at) }, context),
        ),
        open(privateKey, { ...sealed, ciphertext: sealed.ciphertext.subarray(1) }, context),
        open(privateKey, { enc: fill(32, 0), ciphertext: fill(20, 0) }, context),
      ];
      for (const code of await Promise.all(tries.map(codeOf))) expect(code).to.equal("seal/not-opened");
    });

    it("given a public key of another length or of small order, seals nothing", async () => {
      for (const key of [fill(31, 1), fill(33, 1), fill(32, 0), Uint8Array.from([1, ...fill(31, 0)])])
        expect(await codeOf(seal(key, text("keys"), context))).to.equal("seal/bad-key");
    });
  });

  describe("environment secrets", () => {
    const context: SecretsContext = { chainId: 1n, registry: hex(20, 1), serviceId: hex(20, 2), name: "env" };

    it("open with the service's key, and name their epochs", async () => {
      const { privateKey, publicKey } = await generateSealKeyPair();
      const bytes = await sealSecrets(text("A=1\n"), { rootEpoch: 2, keyEpoch: 3, publicKey }, context);
      expect(parseSealedSecrets(bytes)).to.include({ rootEpoch: 2, keyEpoch: 3 });
      expect(await openSecrets(bytes, privateKey, context)).to.deep.equal(text("A=1\n"));
    });

    it("given another chain, registry, service, name, epoch or key, do not open", async () => {
      const { privateKey, publicKey } = await generateSealKeyPair();
      const bytes = await sealSecrets(text("A=1\n"), { rootEpoch: 0, keyEpoch: 0, publicKey }, context);
      const epoch = bytes.map((byte, index) => (index === 7 ? 1 : byte));
      const tries = [
        openSecrets(bytes, privateKey, { ...context, chainId: 2n }),
        openSecrets(bytes, privateKey, { ...context, registry: hex(20, 9) }),
        openSecrets(bytes, privateKey, { ...context, serviceId: hex(20, 9) }),
        openSecrets(bytes, privateKey, { ...context, name: "" }),
        openSecrets(epoch, privateKey, context),
        openSecrets(bytes, (await generateSealKeyPair()).privateKey, context),
      ];
      for (const code of await Promise.all(tries.map(codeOf))) expect(code).to.equal("seal/not-opened");
      for (const bad of [bytes.subarray(1), bytes.subarray(0, 50), fill(0, 0)])
        expect(await codeOf(openSecrets(bad, privateKey, context))).to.equal("secrets/malformed");
    });
  });
});
