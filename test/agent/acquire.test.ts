import { expect } from "chai";
import { type AcquireOptions, acquireKeys, toWireEvidence } from "../../src/agent/acquire.ts";
import { type Device, withCertificates } from "../../src/agent/devices/device.ts";
import { parseNodeUrl } from "../../src/agent/http.ts";
import { type Trust, verifySecretsKey } from "../../src/agent/receipt.ts";
import { buildReportData } from "../../src/core/binding.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { KeysteadError } from "../../src/core/errors.ts";
import { hashForReceipt, type SecretsKey } from "../../src/core/release.ts";
import { errorOf, rejectionOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";
import {
  createFakeNode,
  FAKE_IMAGE,
  FAKE_REGISTRY,
  type FakeAnswer,
  type FakeNode,
  fakeKeys,
} from "../helpers/fake-node.ts";

const serviceId: Hex = `0x${"5e".repeat(20)}`;
const OTHER_20: Hex = `0x${"99".repeat(20)}`;
const OTHER_32: Hex = `0x${"99".repeat(32)}`;
const NODE = "http://kms.test";

/** A device whose "quote" is the report data itself. */
const device: Device = {
  name: "test",
  attest: async (binding) => ({ kind: "tdx", quote: buildReportData(binding) }),
};

describe("acquireKeys", () => {
  /** Runs the agent's side against pretended nodes, on a clock of its own. */
  async function run(
    answers: FakeAnswer | ((number: number) => FakeAnswer | Error),
    changes: Partial<AcquireOptions> & { readonly trusted?: Partial<Trust> } = {},
  ) {
    const node = await createFakeNode(typeof answers === "function" ? answers : () => answers);
    const said: string[] = [];
    const slept: number[] = [];
    let now = 0;
    const trust: Trust = {
      chainId: 31337n,
      registry: FAKE_REGISTRY,
      signers: async () => new Set([node.signer]),
      ...changes.trusted,
    };
    const acquired = acquireKeys({
      nodes: [NODE],
      device,
      serviceId,
      trust,
      waitSeconds: 0,
      fetch: node.fetch,
      log: (line) => said.push(line),
      clock: {
        now: () => now,
        sleep: async (milliseconds) => {
          slept.push(milliseconds);
          now += milliseconds;
        },
      },
      ...changes,
    });
    return { node, said, slept, acquired };
  }
  const codeOf = async (...args: Parameters<typeof run>) => (await rejectionOf((await run(...args)).acquired)).code;

  it("sends evidence bound to challenge, service and a new key, and opens what it is answered", async () => {
    const { node, acquired } = await run({}, { purposes: ["backup"], imageId: FAKE_IMAGE });
    const { bundle, release, receipt } = await acquired;
    expect(release).to.include({ serviceId, imageId: FAKE_IMAGE, keyEpoch: 2 });
    expect(receipt.signer).to.equal(node.signer);
    expect(bundle.keys).to.have.length(3 * 2 * 5);
    const [request] = node.requests;
    expect(request?.purposes).to.deep.equal(["backup"]);
    const second = await (await run({})).acquired;
    expect(second.release.recipientKeyHash).not.to.equal(release.recipientKeyHash);
  });

  describe("when an answer is not the node's own, or not for this request", () => {
    const cases: readonly [string, FakeAnswer, string][] = [
      ["another service", { release: { serviceId: OTHER_20 } }, "receipt/mismatch"],
      ["other evidence", { release: { evidenceHash: OTHER_32 } }, "receipt/mismatch"],
      ["another recipient", { release: { recipientKeyHash: OTHER_32 } }, "receipt/mismatch"],
      ["another image than the one pinned", { release: { imageId: OTHER_32 } }, "receipt/mismatch"],
      ["keys of another service", { bundle: { serviceId: OTHER_20 } }, "receipt/mismatch"],
      ["keys of another registry", { bundle: { registry: OTHER_20 } }, "receipt/mismatch"],
      ["keys of another chain", { bundle: { chainId: 1n } }, "receipt/mismatch"],
      ["keys of another epoch", { bundle: { keyEpoch: 1 } }, "receipt/mismatch"],
      ["another digest than the receipt's", { edit: (a) => editReceipt(a, { digest: OTHER_32 }) }, "receipt/digest"],
      ["another registry", { edit: (a) => editReceipt(a, { registry: OTHER_20 }) }, "receipt/other-deployment"],
      ["another chain", { edit: (a) => editReceipt(a, { chainId: "1" }) }, "receipt/other-deployment"],
      ["another signer's name", { edit: (a) => editReceipt(a, { signer: OTHER_20 }) }, "receipt/untrusted-signer"],
      ["no signature", { edit: (a) => editReceipt(a, { signature: `0x${"00".repeat(65)}` }) }, "receipt/bad-signature"],
      ["a test node", { testTee: true }, "receipt/test-tee"],
      [
        "a test node's receipt passed off as a real one",
        { testTee: true, edit: (a) => editReceipt(a, { testTee: false }) },
        "receipt/digest",
      ],
      ["a ciphertext of another receipt", { aad: fill(32, 1) }, "seal/not-opened"],
      [
        "keys that somebody on the way sealed under the node's own receipt",
        { replacedBy: fakeKeys(fill(32, 7)) },
        "receipt/sealed-by-another",
      ],
      ["a field too many", { edit: (a) => ({ ...a, extra: 1 }) }, "wire/malformed"],
    ];
    for (const [name, answer, code] of cases)
      it(`refuses ${name}`, async () => {
        expect(await codeOf(answer, { imageId: FAKE_IMAGE })).to.equal(code);
      });

    it("refuses a receipt that was changed after signing, field by field", async () => {
      for (const [field, value] of [
        ["platformId", OTHER_32],
        ["keyEpoch", 3],
        ["blockNumber", "6"],
        ["blockHash", OTHER_32],
        ["historyHead", OTHER_32],
        ["policyVersion", "4"],
        ["issuedAt", "1750000001"],
      ] as const) {
        const edit: FakeAnswer["edit"] = ({ sealed, receipt }) => {
          const message = { ...(receipt.message as object), [field]: value };
          return { sealed, receipt: { ...receipt, message } };
        };
        expect(await codeOf({ edit }), field).to.equal("receipt/digest");
      }
    });

    it("refuses a signer that is not published, as things stand when the answer comes: one may be revoked while it waits", async () => {
      const published = new Set<Hex>();
      const signers = async () => published;
      const { acquired, node } = await run(
        (number) => {
          published.clear(); // what was read before the wait does not count
          return number === 0 ? { problem: "release/denied", decision: "ImagePending" } : {};
        },
        { trusted: { signers }, waitSeconds: 1 },
      );
      published.add(node.signer);
      expect((await rejectionOf(acquired)).code).to.equal("receipt/untrusted-signer");
    });

    it("takes a test node where that is allowed", async () => {
      const { acquired } = await run({ testTee: true }, { trusted: { allowTestTee: true } });
      expect((await acquired).receipt.testTee).to.equal(true);
    });

    it("wipes what it opened when a further check fails", async () => {
      let plaintext: Uint8Array | undefined;
      const check: AcquireOptions["check"] = async (opened) => {
        ({ plaintext } = opened);
        throw new KeysteadError("receipt/other-block", "no", { remedy: "None." });
      };
      expect(await codeOf({}, { check })).to.equal("receipt/other-block");
      expect(plaintext?.every((byte) => byte === 0)).to.equal(true);
    });
  });

  describe("when a node refuses", () => {
    it("says the contracts' decision, and does not ask again for what time does not change", async () => {
      const { acquired, slept } = await run(
        { problem: "release/denied", decision: "ImageRemoved" },
        { waitSeconds: 3600 },
      );
      const error = await rejectionOf(acquired);
      expect(error).to.include({ code: "agent/denied", retryable: false });
      expect(error.details.decision).to.equal("ImageRemoved");
      expect(error.remedy).to.contain("keystead audit");
      expect(slept).to.deep.equal([]);
    });

    for (const [decision, said] of [
      ["ImagePending", "notice period"],
      ["ReleasePaused", "paused"],
    ] as const)
      it(`waits where the decision is ${decision}, longer each time, and says for what`, async () => {
        const denied: FakeAnswer = { problem: "release/denied", decision };
        const result = await run((number) => (number < 7 ? denied : {}), { waitSeconds: 3600 });
        expect((await result.acquired).release.keyEpoch).to.equal(2);
        expect(result.slept).to.deep.equal([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        expect(result.said.every((line) => line.includes(said))).to.equal(true);
      });

    it("gives up when the time is over, with the last refusal", async () => {
      const { acquired, slept } = await run(
        { problem: "release/denied", decision: "ImagePending" },
        { waitSeconds: 5 },
      );
      expect(await rejectionOf(acquired)).to.include({ code: "agent/denied", retryable: true });
      expect(slept).to.deep.equal([1000, 2000, 2000]);
    });

    it("waits for a node that cannot be asked or cannot read the chain", async () => {
      const answers = [new TypeError("fetch failed"), { problem: "chain/unavailable", retryable: true } as const, {}];
      const { acquired, slept } = await run((number) => answers[number] ?? {}, { waitSeconds: 60 });
      await acquired;
      expect(slept).to.deep.equal([1000, 2000]);
    });

    it("shows a node's words harmless and short: it may say anything", async () => {
      const detail = `\u001b[2J\u202e${"x".repeat(10_000)}`;
      const { acquired } = await run({ problem: "request/malformed", detail });
      const { message } = await rejectionOf(acquired);
      expect(message).to.contain("\\u{1b}[2J\\u{202e}xxx");
      expect(message.length).to.be.lessThan(400);
    });

    it("makes new evidence at once where the nonce has expired meanwhile, and not for ever", async () => {
      const expired: FakeAnswer = { problem: "nonce/expired", retryable: true };
      const { node, acquired, slept } = await run((number) => (number < 2 ? expired : {}));
      await acquired;
      expect([node.requests.length, slept.length]).to.deep.equal([3, 0]);
      expect(new Set(node.requests.map(({ nonce }) => nonce)).size).to.equal(3);
      expect(await codeOf(expired)).to.equal("agent/refused");
    });
  });

  describe("given several nodes", () => {
    const nodes = ["http://one.test", "http://two.test"];

    it("asks the next where one is down, refuses, or lies", async () => {
      const wrongs: (FakeAnswer | Error)[] = [
        new TypeError("fetch failed"),
        { problem: "release/denied", decision: "ServiceUnknown" },
        { release: { serviceId: OTHER_20 } },
      ];
      for (const wrong of wrongs) {
        const { acquired, said, node } = await run((number) => (number === 0 ? wrong : {}), { nodes });
        await acquired;
        expect([said.length, node.requests.length]).to.deep.equal([1, 2]);
      }
    });

    it("reports what tells most: the contracts' denial before a node that is down", async () => {
      const denied: FakeAnswer = { problem: "release/denied", decision: "TeeSuspended" };
      for (const order of [[new TypeError("down"), denied] as const, [denied, new TypeError("down")] as const]) {
        const { acquired } = await run((number) => order[number] ?? {}, { nodes });
        expect((await rejectionOf(acquired)).code).to.equal("agent/denied");
      }
    });
  });

  it("reads no URL that is none, and names the host alone in messages", async () => {
    for (const bad of ["kms", "ftp://kms", "http://kms/?a=1", "http://kms/#x"])
      expect(errorOf(() => parseNodeUrl(bad)).code).to.equal("agent/bad-node-url");
    expect(parseNodeUrl("https://kms.test/path/")).to.equal("https://kms.test/path");
    const { acquired } = await run(() => new TypeError("fetch failed"), {
      nodes: ["http://user:secret@kms.test/secret"],
    });
    const { message, details } = await rejectionOf(acquired);
    expect(`${message} ${JSON.stringify(details)}`).not.to.contain("secret");
  });

  it("reads no answer past its limit, and none that is no problem document", async () => {
    const answer = (response: () => Response) => run({}, { fetch: async () => response() });
    const endless = () =>
      new Response(
        new ReadableStream({
          pull: (controller) => controller.enqueue(new Uint8Array(1024 * 1024)),
        }),
      );
    expect((await rejectionOf((await answer(endless)).acquired)).code).to.equal("agent/unreachable");
    const html = () => new Response("<html>", { status: 502 });
    expect((await rejectionOf((await answer(html)).acquired)).code).to.equal("agent/unreachable");
  });

  it("sends SEV-SNP certificates, from the host or from files, and says where there are none", async () => {
    const bare: Device = {
      name: "snp",
      attest: async () => ({ kind: "snp", report: fill(1184, 1), certificates: {} }),
    };
    expect(await codeOf({}, { device: bare })).to.equal("device/no-certificates");
    const given = withCertificates(bare, { endorsementKey: fill(300, 2), signer: fill(300, 3) });
    const wire = toWireEvidence(await given.attest({ nonce: fill(32, 1), serviceId, recipientPublicKey: fill(32, 1) }));
    expect(wire.kind === "snp" && wire.certificates.endorsementKey).to.equal(Buffer.alloc(300, 2).toString("base64"));
    const { acquired } = await run({}, { device: given });
    expect((await acquired).release.evidenceHash).to.equal(hashForReceipt(fill(1184, 1)));
  });
});

describe("verifySecretsKey", () => {
  it("takes a key that a trusted node signed for this service, and no other", async () => {
    const node: FakeNode = await createFakeNode(() => ({}));
    const key: SecretsKey = { serviceId, rootEpoch: 1, keyEpoch: 2, publicKey: OTHER_32 };
    const signed = { ...key, ...node.sign("SecretsKey", key) } as unknown as Parameters<typeof verifySecretsKey>[0];
    const trust: Trust = { chainId: 31337n, registry: FAKE_REGISTRY, signers: async () => new Set([node.signer]) };
    expect(await verifySecretsKey(signed, serviceId, trust)).to.deep.equal(key);
    const code = async (changes: object, asked = serviceId, whose = trust) =>
      (await rejectionOf(verifySecretsKey({ ...signed, ...changes }, asked, whose))).code;
    expect(await code({}, OTHER_20)).to.equal("receipt/mismatch");
    expect(await code({ publicKey: FAKE_IMAGE })).to.equal("receipt/digest");
    expect(await code({ keyEpoch: 1 })).to.equal("receipt/digest");
    expect(await code({}, serviceId, { ...trust, signers: async () => new Set() })).to.equal(
      "receipt/untrusted-signer",
    );
  });
});

function editReceipt(answer: { sealed: object; receipt: Record<string, unknown> }, changes: Record<string, unknown>) {
  return { ...answer, receipt: { ...answer.receipt, ...changes } };
}
