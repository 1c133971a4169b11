import { serve } from "@hono/node-server";
import { expect } from "chai";
import { fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import { encodeRootBundle, type RootBundle } from "../../src/core/key-bundle.ts";
import { hashSealing, hashSigned, KMS_SUBJECT, ROOT_INFO } from "../../src/core/release.ts";
import { parseMessage, type RootResponse, rootRequestSchema, rootResponseSchema } from "../../src/core/release-wire.ts";
import { seal } from "../../src/core/seal.ts";
import { type JoinOptions, joinNode } from "../../src/node/join.ts";
import { rejectionOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";
import {
  ALLOWED,
  createTestNode,
  createTestTees,
  DEPLOYMENT,
  ROOT,
  type TestNode,
  type TestTees,
} from "../helpers/node.ts";

/** What somebody between two nodes may do with an answer. */
type Edit = (answer: RootResponse, recipientPublicKey: Uint8Array) => object | Promise<object>;

describe("joining a node", () => {
  let tees: TestTees;
  let node: TestNode;
  let server: ReturnType<typeof serve>;
  let url: string;
  let edit: Edit;

  before(async () => {
    tees = await createTestTees();
    node = await createTestNode(tees);
    const fetch = async (request: Request): Promise<Response> => {
      const text = await request.clone().text();
      const response = await node.app.fetch(request);
      if (!request.url.endsWith("/v1/root") || response.status !== 200) return response;
      const { recipientPublicKey } = parseMessage(rootRequestSchema, text, "request");
      const answer = parseMessage(rootResponseSchema, await response.text(), "answer");
      return new Response(JSON.stringify(await edit(answer, fromHex(recipientPublicKey, "key"))));
    };
    url = await new Promise<string>((resolve) => {
      server = serve({ fetch, port: 0, hostname: "127.0.0.1" }, ({ port }) => resolve(`http://127.0.0.1:${port}`));
    });
  });
  beforeEach(() => {
    edit = (answer) => answer;
    node.chain = { ...node.chain, decideKms: async () => ALLOWED };
  });
  after(async () => {
    await new Promise((resolve) => server.close(resolve));
    await node.close();
    tees.folder.remove();
  });

  const join = (changes: Partial<JoinOptions> = {}) =>
    joinNode({
      url,
      attest: async ({ nonce, recipientPublicKey }) =>
        tees.attest("tdx", toHex(nonce), KMS_SUBJECT, recipientPublicKey),
      deployment: DEPLOYMENT,
      expected: node.ring,
      testTee: true,
      ...changes,
    });
  const refusal = async (change: Edit, changes: Partial<JoinOptions> = {}) => {
    edit = change;
    return (await rejectionOf(join(changes))).code;
  };
  const same: Edit = (answer) => answer;

  it("gets the roots of the identity that is published", async () => {
    expect(await join()).to.deep.equal([{ rootEpoch: 0, secret: ROOT() }]);
  });

  it("refuses an answer under another signer, of a test node, or of another deployment", async () => {
    const other: Hex = toHex(fill(20, 9));
    const { environmentKey, receiptSigner } = node.ring;
    expect(await refusal(same, { expected: { environmentKey, receiptSigner: other } })).to.equal("join/receipt");
    expect(await refusal(same, { testTee: false })).to.equal("join/receipt");
    expect(await refusal(same, { deployment: { ...DEPLOYMENT, chainId: 1n } })).to.equal("join/receipt");
    expect(await refusal(same, { expected: { environmentKey: toHex(fill(32, 9)), receiptSigner } })).to.equal(
      "root/other-identity",
    );
  });

  it("refuses an answer that was given to another request, whole or in parts", async () => {
    let first: RootResponse | undefined;
    const keep: Edit = (answer) => {
      first ??= answer;
      return first;
    };
    edit = keep;
    await join();
    expect(await refusal(keep)).to.equal("join/receipt");
    expect(await refusal(({ sealed }) => ({ sealed, receipt: first?.receipt }))).to.equal("join/receipt");
    expect(await refusal(({ receipt }) => ({ sealed: first?.sealed, receipt }))).to.equal("join/receipt");
  });

  it("refuses a receipt that was changed, field by field", async () => {
    const fields = ["imageId", "platformId", "evidenceHash", "recipientKeyHash", "blockHash", "policyHead"] as const;
    const changes: Record<string, unknown>[] = [
      ...fields.map((field) => ({ [field]: toHex(fill(32, 9)) })),
      { rootEpoch: 1 },
      { blockNumber: "1" },
      { policyVersion: "1" },
      { issuedAt: "1" },
    ];
    for (const change of changes) {
      const code = await refusal(({ sealed, receipt }) => ({
        sealed,
        receipt: { ...receipt, message: { ...receipt.message, ...change } },
      }));
      expect(code, Object.keys(change).join()).to.equal("join/receipt");
    }
    const digest = toHex(fill(32, 9));
    expect(await refusal(({ sealed, receipt }) => ({ sealed, receipt: { ...receipt, digest } }))).to.equal(
      "join/receipt",
    );
  });

  it("refuses a receipt of the expected signer about other evidence, or about another's key", async () => {
    const about = (change: object): Edit => {
      return ({ sealed, receipt }) => {
        const message = { ...receipt.message, ...change };
        const { blockNumber, policyVersion, issuedAt } = message;
        const numbers = {
          blockNumber: BigInt(blockNumber),
          policyVersion: BigInt(policyVersion),
          issuedAt: BigInt(issuedAt),
        };
        const hash = hashSigned("RootRelease", { ...message, ...numbers }, { ...DEPLOYMENT, testTee: true });
        return {
          sealed: { ...sealed, signature: node.ring.sign(hashSealing(hash, fromHex(sealed.enc, "enc"))) },
          receipt: { ...receipt, message, digest: toHex(hash), signature: node.ring.sign(hash) },
        };
      };
    };
    edit = about({});
    expect(await join()).to.have.length(1);
    for (const field of ["evidenceHash", "recipientKeyHash"])
      expect(await refusal(about({ [field]: toHex(fill(32, 9)) })), field).to.equal("join/receipt");
    // The digest is what the roots are sealed under: what else the receipt says, the node that sealed has said.
    expect(await refusal(about({ imageId: toHex(fill(32, 9)) }))).to.equal("seal/not-opened");
  });

  describe("given roots that somebody sealed under the genuine receipt", () => {
    const forged = (bundle: Partial<RootBundle>, signed: boolean) =>
      refusal(async ({ sealed, receipt }, recipientPublicKey) => {
        const aad = fromHex(receipt.digest, "digest");
        const roots = [{ rootEpoch: 0, secret: fill(32, 7) }];
        const plaintext = encodeRootBundle({ ...DEPLOYMENT, roots, ...bundle });
        const { enc, ciphertext } = await seal(recipientPublicKey, plaintext, { info: Buffer.from(ROOT_INFO), aad });
        const signature = signed ? node.ring.sign(hashSealing(aad, enc)) : sealed.signature;
        return {
          sealed: { enc: toHex(enc), ciphertext: Buffer.from(ciphertext).toString("base64"), signature },
          receipt,
        };
      });

    it("refuses them unopened", async () => {
      expect(await forged({}, false)).to.equal("join/receipt");
    });

    it("refuses them even if the signer had signed: the fingerprint is another, or the deployment", async () => {
      expect(await forged({}, true)).to.equal("root/other-identity");
      const roots = [{ rootEpoch: 0, secret: ROOT() }];
      expect(await forged({ roots, chainId: 1n }, true)).to.equal("join/answer");
      expect(await forged({ roots, registry: toHex(fill(20, 9)) }, true)).to.equal("join/answer");
    });
  });

  it("says the contracts' decision, and does not read an answer without end", async () => {
    node.chain = {
      ...node.chain,
      decideKms: async () => ({ ...ALLOWED, allowed: false, decision: "KmsImageNotAllowed" }),
    };
    const refused = await rejectionOf(join());
    expect([refused.code, refused.details.decision]).to.deep.equal(["join/refused", "KmsImageNotAllowed"]);
    node.chain = { ...node.chain, decideKms: async () => ALLOWED };
    expect(await refusal((answer) => ({ ...answer, filler: "a".repeat(300_000) }))).to.equal("join/unreachable");
  });
});
