import { expect } from "chai";
import { fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import { KeysteadError } from "../../src/core/errors.ts";
import { parseKeyBundle, parseRootBundle, STANDARD_PURPOSES } from "../../src/core/key-bundle.ts";
import { hashSealing, hashSigned, KMS_SUBJECT, recoverSigner } from "../../src/core/release.ts";
import {
  infoSchema,
  type KeyReceipt,
  MAX_PURPOSES,
  parseMessage,
  problemSchema,
  receiptsPageSchema,
  rootResponseSchema,
  secretsKeySchema,
} from "../../src/core/release-wire.ts";
import { generateSealKeyPair } from "../../src/core/seal.ts";
import { createChallenges } from "../../src/node/challenge.ts";
import { createJudge, type JudgeOptions } from "../../src/node/judge.ts";
import { createJudgePool } from "../../src/node/judge-pool.ts";
import { DEFAULT_LIMITS, networkOf } from "../../src/node/limits.ts";
import { purposeKeyByHand } from "../helpers/derivation.ts";
import { errorOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";
import {
  ALLOWED,
  challenge,
  createTestNode,
  createTestTees,
  DEPLOYMENT,
  honestRequest,
  honestRootRequest,
  IMAGE,
  keysOf,
  openAnswer,
  PLATFORM,
  post,
  ROOT,
  SERVICE,
  type TestNode,
  type TestTees,
} from "../helpers/node.ts";

const KINDS = ["tdx", "snp", "nitro"] as const;

/** The problem document of an answer, with the header that it must have. */
async function problemOf(response: Response) {
  expect(response.headers.get("content-type")).to.equal("application/problem+json");
  const problem = parseMessage(problemSchema, await response.text(), "problem");
  expect(problem).to.include({ status: response.status, type: `urn:keystead:problem:${problem.code}` });
  return problem;
}

/** The struct that a receipt says was signed. */
function digestOf({ message, testTee }: KeyReceipt): Hex {
  const { blockNumber, policyVersion, issuedAt } = message;
  const release = {
    ...message,
    blockNumber: BigInt(blockNumber),
    policyVersion: BigInt(policyVersion),
    issuedAt: BigInt(issuedAt),
  };
  return toHex(hashSigned("KeyRelease", release, { ...DEPLOYMENT, testTee }));
}

describe("node", function () {
  this.timeout(120_000);
  let tees: TestTees;
  let node: TestNode;
  before(async () => {
    tees = await createTestTees();
    node = await createTestNode(tees);
  });
  after(async () => {
    await node.close();
    tees.folder.remove();
  });
  afterEach(() => {
    node.chain = { decide: async () => ALLOWED, decideKms: async () => ALLOWED };
    node.skewSeconds = 0;
  });

  describe("POST /v1/keys", () => {
    for (const kind of KINDS) {
      it(`given ${kind} evidence that the contracts allow, gives the keys of every epoch, sealed, and a receipt`, async () => {
        const before = node.receipts.count();
        const { machine, request } = await honestRequest(node, kind);
        const response = await post(node.app, "/v1/keys", { ...request, purposes: ["a-purpose"] });
        expect(response.status).to.equal(200);
        const answer = await keysOf(response);
        const bundle = parseKeyBundle(openAnswer(machine, answer));
        expect(bundle).to.include({ ...DEPLOYMENT, serviceId: SERVICE, keyEpoch: 1 });
        expect(bundle.keys).to.have.length(2 * (STANDARD_PURPOSES.length + 1));
        for (const { keyEpoch, purpose, key } of bundle.keys)
          expect(toHex(key)).to.equal(
            toHex(purposeKeyByHand({ root: ROOT(), ...DEPLOYMENT }, SERVICE, keyEpoch, purpose)),
          );

        const { receipt } = answer;
        expect(receipt.digest).to.equal(digestOf(receipt));
        expect(recoverSigner(fromHex(receipt.digest, "digest"), receipt.signature)).to.equal(node.ring.receiptSigner);
        const sealing = hashSealing(fromHex(receipt.digest, "digest"), fromHex(answer.sealed.enc, "enc"));
        expect(recoverSigner(sealing, answer.sealed.signature)).to.equal(node.ring.receiptSigner);
        expect(receipt).to.include({ testTee: true, registry: DEPLOYMENT.registry, signer: node.ring.receiptSigner });
        expect(receipt.message).to.include({
          serviceId: SERVICE,
          imageId: IMAGE,
          platformId: PLATFORM,
          keyEpoch: 1,
          blockNumber: "100",
          blockHash: ALLOWED.basis.block.hash,
          historyHead: ALLOWED.historyHead,
          policyVersion: "7",
        });
        expect(node.receipts.count()).to.equal(before + 1);
        expect(await node.receipts.page(before, 1)).to.deep.equal([{ sequence: before + 1, receipt }]);
      });
    }

    it("asks the chain about what the evidence shows, and hints travel with it", async () => {
      const { request } = await honestRequest(node, "tdx");
      node.asked.length = 0;
      await post(node.app, "/v1/keys", { ...request, image: "0x010100000000", platform: "0x010100000001" });
      expect(node.asked).to.have.length(1);
      const [question] = node.asked as { machine: { kind: string; registers: Record<string, string> } }[];
      expect(question).to.include({ serviceId: SERVICE, image: "0x010100000000", platform: "0x010100000001" });
      expect(question?.machine).to.include({ kind: "tdx", tcbStatus: "UpToDate" });
      expect(question?.machine.registers.mrtd).to.match(/^0x[0-9a-f]{96}$/);
    });

    it("calls a SEV-SNP machine up to date by the operator's minimum alone", async () => {
      const least = { bootloader: 9, tee: 2, snp: 23, microcode: 220 };
      for (const [snpMinimumTcb, tcbStatus] of [
        [{ genoa: least }, "OutOfDate"],
        [{ milan: least }, "UpToDate"],
        [{ milan: { ...least, snp: 24 } }, "OutOfDate"],
      ] as const) {
        const judge = createJudge({ ...tees.judgeOptions, snpMinimumTcb });
        const strict = await createTestNode(tees, { judge });
        await post(strict.app, "/v1/keys", (await honestRequest(strict, "snp")).request);
        const [question] = strict.asked as { machine: { tcbStatus: string } }[];
        expect(question?.machine.tcbStatus).to.equal(tcbStatus);
        await strict.close();
      }
    });

    it("given a denial, says the contracts' decision and block, and writes no receipt", async () => {
      const before = node.receipts.count();
      for (const decision of ["ImagePending", "ImageRemoved", "TeeSuspended", "ServiceUnknown"] as const) {
        node.chain = { ...node.chain, decide: async () => ({ ...ALLOWED, allowed: false, decision }) };
        const { request } = await honestRequest(node);
        const problem = await problemOf(await post(node.app, "/v1/keys", request));
        expect(problem).to.include({ status: 403, code: "release/denied", decision });
        expect(problem.block).to.deep.equal({ number: "100", hash: ALLOWED.basis.block.hash });
        expect(problem.retryable).to.equal(decision === "ImagePending");
      }
      expect(node.receipts.count()).to.equal(before);
    });

    it("given an answer that is half a yes, denies", async () => {
      const halves = [
        { ...ALLOWED, decision: "ImageRemoved" },
        { ...ALLOWED, allowed: false },
        { ...ALLOWED, imageId: undefined },
        { ...ALLOWED, platformId: undefined },
      ] as const;
      for (const half of halves) {
        node.chain = { ...node.chain, decide: async () => half };
        const { request } = await honestRequest(node);
        expect(await problemOf(await post(node.app, "/v1/keys", request))).to.include({ code: "release/denied" });
      }
    });

    it("given a malformed request, says where it is wrong, and quotes nothing of it", async () => {
      const { request } = await honestRequest(node);
      const { nonce: _, ...less } = request;
      for (const [body, reason] of [
        ["", "json/malformed"],
        ['{"serviceId":1,"serviceId":2}', "json/duplicate-key"],
        ["[]", "wire/malformed"],
        [less, "nonce"],
        [{ ...request, serviceId: "0x12-and-a-secret" }, "serviceId"],
        [{ ...request, evidence: { kind: "tdx", quote: "a-secret" } }, "evidence.quote"],
        [{ ...request, "a-secret": 1 }, "wire/malformed"],
      ] as const) {
        const problem = await problemOf(await post(node.app, "/v1/keys", body));
        expect(problem).to.include({ status: 400, code: "request/malformed", reason });
        expect(JSON.stringify(problem)).not.to.contain("secret");
      }
    });

    it("given a chain that cannot be asked, answers 503 with the reason; given a defect, 503 without one", async () => {
      const { request } = await honestRequest(node);
      const stale = new KeysteadError("chain/stale", "too old", { remedy: "Wait." });
      node.chain = { ...node.chain, decide: () => Promise.reject(stale) };
      const first = await problemOf(await post(node.app, "/v1/keys", request));
      expect(first).to.include({ status: 503, code: "chain/unavailable", reason: "chain/stale", retryable: true });
      node.chain = { ...node.chain, decide: () => Promise.reject(new TypeError("secret detail")) };
      const second = await problemOf(await post(node.app, "/v1/keys", (await honestRequest(node)).request));
      expect(second).to.include({ status: 503, code: "node/failed" });
      expect(JSON.stringify(second)).not.to.contain("secret detail");
      expect(node.logged.join("\n")).not.to.contain("secret detail");
      const hint = new KeysteadError("image/wrong-version", "version 9", { remedy: "Upgrade." });
      node.chain = { ...node.chain, decide: () => Promise.reject(hint) };
      const third = await problemOf(await post(node.app, "/v1/keys", (await honestRequest(node)).request));
      expect(third).to.include({ status: 400, code: "request/malformed" });
    });

    describe("replay", () => {
      it("given a nonce twice, refuses the second, with the same evidence or with another", async () => {
        const { machine, request } = await honestRequest(node);
        expect((await post(node.app, "/v1/keys", request)).status).to.equal(200);
        expect(await problemOf(await post(node.app, "/v1/keys", request))).to.include({
          status: 409,
          code: "nonce/used",
        });
        const evidence = tees.attest("snp", request.nonce, SERVICE, machine.publicKey);
        const again = await post(node.app, "/v1/keys", { ...request, evidence });
        expect(await problemOf(again)).to.include({ code: "nonce/used" });
      });

      it("given a nonce twice at the same moment, releases once", async () => {
        const { request } = await honestRequest(node);
        const answers = await Promise.all(Array.from({ length: 8 }, () => post(node.app, "/v1/keys", request)));
        expect(answers.filter(({ status }) => status === 200)).to.have.length(1);
        expect(answers.filter(({ status }) => status === 409)).to.have.length(7);
      });

      it("given more used nonces than it remembers, takes no more until some have expired", () => {
        let time = 1000;
        const challenges = createChallenges({ seconds: 10, clock: () => time, stopwatch: () => time, limit: 2 });
        const take = () => challenges.take(fromHex(challenges.issue().nonce, "nonce"));
        take();
        take();
        expect(errorOf(take)).to.include({ code: "node/busy", retryable: true });
        time += 10;
        take();
        expect(challenges.size()).to.equal(1);
      });

      it("given a nonce whose evidence was refused, refuses it the next time", async () => {
        const { request } = await honestRequest(node);
        const forged = { ...request, evidence: { kind: "tdx", quote: Buffer.alloc(5000, 1).toString("base64") } };
        expect((await post(node.app, "/v1/keys", forged)).status).to.equal(401);
        expect(await problemOf(await post(node.app, "/v1/keys", request))).to.include({ code: "nonce/used" });
      });

      it("given an old nonce, another node's, or one that was made up, refuses it", async () => {
        const other = await createTestNode(tees);
        const { request } = await honestRequest(other);
        expect(await problemOf(await post(node.app, "/v1/keys", request))).to.include({
          status: 409,
          code: "nonce/unknown",
        });
        await other.close();
        const own = await honestRequest(node);
        const flipped = own.request.nonce.replace(/^0x./, (start) => (start === "0x0" ? "0x1" : "0x0"));
        const made = await post(node.app, "/v1/keys", { ...own.request, nonce: flipped });
        expect(await problemOf(made)).to.include({ code: "nonce/unknown" });
        node.passedSeconds = 61;
        expect(await problemOf(await post(node.app, "/v1/keys", own.request))).to.include({ code: "nonce/expired" });
        // and a clock that is set back does not make it good again
        node.skewSeconds = -3600;
        expect(await problemOf(await post(node.app, "/v1/keys", own.request))).to.include({ code: "nonce/expired" });
        node.skewSeconds = 0;
      });

      for (const kind of KINDS) {
        it(`given ${kind} evidence of an earlier request, or made for another service or key, refuses it`, async () => {
          const fresh = await createTestNode(tees);
          const first = await honestRequest(fresh, kind);
          expect((await post(fresh.app, "/v1/keys", first.request)).status).to.equal(200);
          const other = await generateSealKeyPair();
          const replays = [
            { ...first.request, nonce: await challenge(fresh.app) },
            { ...(await honestRequest(fresh, kind)).request, serviceId: toHex(fill(20, 0x77)) },
            { ...(await honestRequest(fresh, kind)).request, recipientPublicKey: toHex(other.publicKey) },
          ];
          for (const request of replays) {
            const problem = await problemOf(await post(fresh.app, "/v1/keys", request));
            expect(problem).to.include({ status: 401, code: "evidence/not-genuine", reason: "binding/mismatch" });
          }
          await fresh.close();
        });
      }

      it("a sealed answer is of no use to anyone else, nor with another receipt", async () => {
        const { machine, request } = await honestRequest(node);
        const answer = await keysOf(await post(node.app, "/v1/keys", request));
        const other = await honestRequest(node);
        const otherAnswer = await keysOf(await post(node.app, "/v1/keys", other.request));
        expect(() => openAnswer(other.machine, answer)).to.throw();
        expect(() => openAnswer(machine, { sealed: answer.sealed, receipt: otherAnswer.receipt })).to.throw();
        expect(() => openAnswer(machine, { sealed: otherAnswer.sealed, receipt: answer.receipt })).to.throw();
        expect(() => openAnswer(machine, answer, "keystead/v1/root")).to.throw();
      });
    });

    it("given evidence for the KMS itself, releases no service's keys, and the other way round", async () => {
      const asService = await honestRequest(node, "tdx", KMS_SUBJECT);
      expect(await problemOf(await post(node.app, "/v1/keys", asService.request))).to.include({ status: 400 });
      const { serviceId: _, ...asRoot } = (await honestRequest(node)).request;
      const problem = await problemOf(await post(node.app, "/v1/root", asRoot));
      expect(problem).to.include({ status: 401, reason: "binding/mismatch" });
    });

    it("given evidence under a test root, a node without the flag refuses it", async () => {
      const strict = await createTestNode(tees, {
        testTee: false,
        judge: createJudge({ ...tees.judgeOptions, unsafeTestRoots: undefined }),
      });
      for (const kind of KINDS) {
        const problem = await problemOf(
          await post(strict.app, "/v1/keys", (await honestRequest(strict, kind)).request),
        );
        expect(problem).to.include({ status: 401, code: "evidence/not-genuine" });
      }
      // and even where the roots got into the judge, the releaser asks once more
      const mixed = await createTestNode(tees, { testTee: false });
      const problem = await problemOf(await post(mixed.app, "/v1/keys", (await honestRequest(mixed)).request));
      expect(problem).to.include({ status: 401, reason: "node/test-root" });
      await strict.close();
      await mixed.close();
    });

    it("given collateral that cannot be had, counts it, and shows that none is held", async () => {
      const judge = createJudge({ ...tees.judgeOptions, collateralFiles: ["/nowhere"] });
      const bare = await createTestNode(tees, { judge });
      const figures = async () => await (await bare.app.request("/metrics")).text();
      expect(await figures())
        .to.contain("keystead_collateral_failing 0")
        .and.contain("keystead_collateral_seconds_left -1");
      expect((await post(bare.app, "/v1/keys", (await honestRequest(bare)).request)).status).to.equal(503);
      expect(await figures())
        .to.contain("keystead_collateral_failing 1")
        .and.contain("keystead_collateral_seconds_left -1");
      await bare.close();
    });

    it("given no collateral, answers 503: what cannot be checked is not refused, and not allowed", async () => {
      const judge = createJudge({ ...tees.judgeOptions, collateralFiles: ["/nowhere/collateral.json"] });
      const blind = await createTestNode(tees, { judge });
      const problem = await problemOf(await post(blind.app, "/v1/keys", (await honestRequest(blind)).request));
      expect(problem).to.include({ status: 503, code: "collateral/unavailable", reason: "collateral/unreadable" });
      // Where the operator keeps it, or gets it from, is not for everybody.
      expect(JSON.stringify(problem)).not.to.contain("nowhere");
      await blind.close();
    });

    it("given a node that wants AMD's revocation list, goes by the operator's before the machine's", async () => {
      const { folder, snp, judgeOptions } = tees;
      const crl = await snp.issueCrl();
      const good = folder.write("milan.crl", crl);
      const revoking = folder.write("milan-revoked.crl", await snp.issueCrl({ revoked: true }));
      const forged = folder.write("milan-forged.crl", await snp.issueCrl({ forged: true }));
      const strict = { ...judgeOptions, requireSnpCrl: true };
      const ask = async (options: JudgeOptions, ownList: boolean) => {
        const asked = await createTestNode(tees, { judge: createJudge(options) });
        const { request } = await honestRequest(asked, "snp");
        const { evidence } = request;
        if (evidence.kind === "snp" && ownList)
          Object.assign(evidence.certificates, { crl: Buffer.from(crl).toString("base64") });
        const response = await post(asked.app, "/v1/keys", request);
        await asked.close();
        return response.status === 200 ? "released" : (await problemOf(response)).reason;
      };
      expect(await ask(strict, false)).to.equal("snp/crl-missing");
      expect(await ask(strict, true)).to.equal("released");
      expect(await ask({ ...strict, snpCrlFiles: { milan: good } }, false)).to.equal("released");
      // a machine that brings an older list of its own does not hide what the operator's says
      expect(await ask({ ...strict, snpCrlFiles: { milan: revoking } }, true)).to.match(/^snp\/.*revoked/);
      expect(await ask({ ...strict, snpCrlFiles: { milan: forged } }, true)).to.match(/^snp\/.*crl/);
      expect(await ask({ ...strict, snpCrlFiles: { milan: "/nowhere" } }, true)).to.equal("collateral/unreadable");
    });

    it("given a Nitro document that is older than the node takes, refuses it", async () => {
      const patient = await createTestNode(tees, { challengeSeconds: 3600 });
      const { request } = await honestRequest(patient, "nitro");
      patient.skewSeconds = tees.judgeOptions.nitroMaxAgeSeconds + 2;
      const problem = await problemOf(await post(patient.app, "/v1/keys", request));
      expect(problem.status).to.equal(401);
      expect(problem.reason).to.match(/^nitro\//);
      await patient.close();
    });

    it("given a service that rotated its keys a thousand times, makes one such answer at once, and others beside it", async () => {
      const gate = Promise.withResolvers<void>();
      node.chain = {
        ...node.chain,
        decide: async ({ serviceId }) => {
          await gate.promise;
          return { ...ALLOWED, keyEpoch: serviceId === SERVICE ? 1023 : 1 };
        },
      };
      const requests = [honestRequest(node), honestRequest(node), honestRequest(node, "tdx", toHex(fill(20, 0x5f)))];
      const answers = (await Promise.all(requests)).map(({ request }) => post(node.app, "/v1/keys", request));
      await new Promise((resolve) => setTimeout(resolve, 300));
      gate.resolve();
      const [long, second, short] = await Promise.all(answers);
      expect([long?.status, second?.status, short?.status].sort()).to.deep.equal([200, 200, 503]);
      expect(short?.status).to.equal(200);
      const busy = [long, second].find((response) => response?.status === 503);
      expect(busy === undefined ? undefined : await problemOf(busy)).to.include({ code: "node/busy", retryable: true });
      const { request } = await honestRequest(node);
      expect((await post(node.app, "/v1/keys", request)).status).to.equal(200);
    });

    it("given purposes that none may have, or too many, refuses the request", async () => {
      const many = Array.from({ length: MAX_PURPOSES + 1 }, (_, index) => `p${index}`);
      for (const purposes of [["Disk"], [""], ["-a"], ["a b"], ["\u00e4"], ["a".repeat(65)], many]) {
        const { request } = await honestRequest(node);
        const problem = await problemOf(await post(node.app, "/v1/keys", { ...request, purposes }));
        expect(problem, purposes[0]).to.include({ status: 400, code: "request/malformed" });
      }
      const { request } = await honestRequest(node);
      const most = { ...request, purposes: ["a".repeat(64), ...many.slice(2)] };
      expect((await post(node.app, "/v1/keys", most)).status).to.equal(200);
    });

    it("given a public key that nothing can be sealed to, refuses it", async () => {
      const nonce = await challenge(node.app);
      const evidence = tees.attest("tdx", nonce, SERVICE, fill(32, 0));
      const request = { serviceId: SERVICE, evidence, recipientPublicKey: toHex(fill(32, 0)), nonce };
      const before = node.receipts.count();
      expect(await problemOf(await post(node.app, "/v1/keys", request))).to.include({ code: "request/malformed" });
      expect(node.receipts.count()).to.equal(before);
    });

    it("given a receipt that cannot be written, gives no keys", async () => {
      const other = await createTestNode(tees);
      const { request } = await honestRequest(other);
      await other.receipts.close();
      const response = await post(other.app, "/v1/keys", request);
      expect(await problemOf(response)).to.include({ status: 503, code: "node/failed" });
      await other.close().catch(() => undefined);
    });
  });

  describe("POST /v1/root", () => {
    it("given a node that the policy allows, gives the root secrets, sealed, and a receipt of its own kind", async () => {
      const { machine, request } = await honestRootRequest(node);
      const response = await post(node.app, "/v1/root", request);
      expect(response.status).to.equal(200);
      const answer = parseMessage(rootResponseSchema, await response.text(), "answer");
      const { roots } = parseRootBundle(openAnswer(machine, answer, "keystead/v1/root"));
      expect(roots).to.deep.equal([{ rootEpoch: 0, secret: ROOT() }]);
      const { type, message, digest, signature } = answer.receipt;
      expect(type).to.equal("RootRelease");
      expect(message).to.include({ rootEpoch: 0, imageId: IMAGE, policyHead: ALLOWED.historyHead });
      expect(recoverSigner(fromHex(digest, "digest"), signature)).to.equal(node.ring.receiptSigner);
    });

    it("given an image that is no KMS image, denies; given a node that shares no root, is not there", async () => {
      const denial = { ...ALLOWED, allowed: false, decision: "KmsImageNotAllowed" } as const;
      node.chain = { ...node.chain, decideKms: async () => denial };
      const { request } = await honestRootRequest(node);
      expect(await problemOf(await post(node.app, "/v1/root", request))).to.include({
        status: 403,
        decision: "KmsImageNotAllowed",
      });
      const closed = await createTestNode(tees, { shareRoot: false });
      const asked = await post(closed.app, "/v1/root", (await honestRootRequest(closed)).request);
      expect(await problemOf(asked)).to.include({ status: 404, code: "request/not-found" });
      await closed.close();
    });
  });

  describe("GET", () => {
    it("/v1/secrets-key gives the signed public half of what machines get", async () => {
      for (const spelling of [SERVICE, SERVICE.slice(2).toUpperCase()]) {
        const response = await node.app.request(`/v1/secrets-key/${spelling}`);
        const answer = parseMessage(secretsKeySchema, await response.text(), "answer");
        const { serviceId, rootEpoch, keyEpoch, publicKey } = answer;
        expect({ serviceId, rootEpoch, keyEpoch }).to.deep.equal({ serviceId: SERVICE, rootEpoch: 0, keyEpoch: 1 });
        expect(publicKey).to.equal(node.ring.secretsKey(SERVICE, 1));
        const digest = hashSigned(
          "SecretsKey",
          { serviceId, rootEpoch, keyEpoch, publicKey },
          { ...DEPLOYMENT, testTee: true },
        );
        expect(toHex(digest)).to.equal(answer.digest);
        expect(recoverSigner(digest, answer.signature)).to.equal(node.ring.receiptSigner);
      }
      for (const bad of ["0x12", KMS_SUBJECT, "x".repeat(40)])
        expect((await node.app.request(`/v1/secrets-key/${bad}`)).status).to.equal(400);
    });

    it("/v1/info says who the node is, and that it takes test roots", async () => {
      const info = parseMessage(infoSchema, await (await node.app.request("/v1/info")).text(), "info");
      expect(info).to.include({ testTee: true, receiptSigner: node.ring.receiptSigner });
    });

    it("/v1/receipts lists all, page by page", async () => {
      const fresh = await createTestNode(tees);
      for (let release = 0; release < 5; release += 1)
        expect((await post(fresh.app, "/v1/keys", (await honestRequest(fresh)).request)).status).to.equal(200);
      const seen: number[] = [];
      for (let after: number | undefined = 0; after !== undefined; ) {
        const response = await fresh.app.request(`/v1/receipts?after=${after}&limit=2`);
        const page = parseMessage(receiptsPageSchema, await response.text(), "page");
        seen.push(...page.receipts.map(({ sequence }) => sequence));
        after = page.next;
      }
      expect(seen).to.deep.equal([1, 2, 3, 4, 5]);
      for (const query of ["after=-1", "limit=0", "limit=101", "after=x", "limit=1e1"])
        expect((await fresh.app.request(`/v1/receipts?${query}`)).status, query).to.equal(400);
      await fresh.close();
    });

    it("/health, /ready and /metrics tell operators", async () => {
      expect((await node.app.request("/health")).status).to.equal(200);
      expect((await node.app.request("/ready")).status).to.equal(200);
      const down = await createTestNode(tees, { notReady: () => ["chain/stale"] });
      const ready = await down.app.request("/ready");
      expect([ready.status, await ready.json()]).to.deep.equal([503, { ready: false, reasons: ["chain/stale"] }]);
      await down.app.request("/v1/nothing-here");
      const text = await (await down.app.request("/metrics")).text();
      expect(text).to.contain('keystead_requests_total{route="/ready",method="GET",status="503"} 1');
      expect(text).to.contain('keystead_requests_total{route="other",method="GET",status="404"} 1');
      expect(text).to.contain("keystead_test_tee 1");
      await down.close();
      const released = await (await node.app.request("/metrics")).text();
      expect(released).to.contain("keystead_collateral_failing 0");
      // the test TEE's collateral is good for thirty days
      const left = Number(/keystead_collateral_seconds_left (\d+)/.exec(released)?.[1]);
      expect(left).to.be.within(29 * 86_400, 30 * 86_400);
      expect(released).to.match(/keystead_releases_total\{what="keys",kind="tdx",outcome="released"\} \d/);
      expect(released).to.match(/keystead_releases_total\{what="keys",kind="tdx",outcome="nonce\/used"\} \d/);
    });

    it("/openapi.json describes every route", async () => {
      // biome-ignore lint/suspicious/noExplicitAny: a test reads whatever the document holds
      const document: any = await (await node.app.request("/openapi.json")).json();
      expect(document.openapi).to.equal("3.1.0");
      const described = Object.keys(document.paths).map((path) => path.replace(/\{(\w+)\}/g, ":$1"));
      const routes = node.app.routes
        .filter(({ method, path }) => method !== "ALL" && !path.includes("*") && path !== "/openapi.json")
        .map(({ path }) => path);
      expect(new Set(described)).to.deep.equal(new Set(routes));
      const request = document.paths["/v1/keys"].post.requestBody.content["application/json"].schema;
      expect(request.required).to.have.members(["serviceId", "evidence", "recipientPublicKey", "nonce"]);
      expect(request.additionalProperties).to.equal(false);
      expect(request.properties.nonce.pattern).to.equal("^0x[0-9a-f]{64}$");
    });

    it("has no dstack webhook: that has a listener of its own", async () => {
      for (const path of ["/dstack", "/dstack/", "/dstack/bootAuth/app", "/bootAuth/app"]) {
        expect((await post(node.app, path, {})).status, path).to.equal(404);
        expect((await node.app.request(path)).status, path).to.equal(404);
      }
    });
  });

  describe("limits", () => {
    it("given a body too large, refuses it with 413, however its length is told", async () => {
      const body = `{"serviceId":"${"a".repeat(DEFAULT_LIMITS.maxBodyBytes)}"}`;
      expect(await problemOf(await post(node.app, "/v1/keys", body))).to.include({ code: "request/too-large" });
      const declared = {
        method: "POST",
        body: "{}",
        headers: { "content-length": `${DEFAULT_LIMITS.maxBodyBytes + 1}` },
      };
      expect(await problemOf(await node.app.request("/v1/keys", declared))).to.include({ status: 413 });
      const chunks = new ReadableStream({
        start(controller) {
          for (let chunk = 0; chunk < 40; chunk += 1) controller.enqueue(Buffer.alloc(16 * 1024, 0x20));
          controller.close();
        },
      });
      const [chunked, both] = chunks.tee();
      const request = new Request("http://node/v1/keys", { method: "POST", body: chunked, duplex: "half" });
      expect(await problemOf(await node.app.request(request))).to.include({ status: 413 });
      const headers = { "content-length": "2", "transfer-encoding": "chunked" };
      const told = new Request("http://node/v1/keys", { method: "POST", body: both, duplex: "half", headers });
      expect(await problemOf(await node.app.request(told))).to.include({ status: 413 });
    });

    it("given too many requests of one address, refuses with 429 and says when to come back; others go on", async () => {
      const limits = { ...DEFAULT_LIMITS, requestsPerSecond: 1, burst: 3, forwardedHops: 1 };
      const limited = await createTestNode(tees, { limits });
      const from = (address: string) =>
        limited.app.request("/v1/info", { headers: { "x-forwarded-for": `9.9.9.9, ${address}` } });
      for (let request = 0; request < 3; request += 1) expect((await from("192.0.2.1")).status).to.equal(200);
      const refused = await from("192.0.2.1");
      expect(await problemOf(refused)).to.include({ status: 429, code: "request/too-many" });
      expect(Number(refused.headers.get("retry-after"))).to.be.within(1, 3);
      expect((await from("192.0.2.2")).status).to.equal(200);
      expect((await limited.app.request("/health")).status).to.equal(200);
      await limited.close();
    });

    it("an IPv6 address counts as its network, a mapped IPv4 address as itself", () => {
      for (const [address, network] of [
        ["192.0.2.1", "192.0.2.1"],
        ["::ffff:192.0.2.1", "192.0.2.1"],
        ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
        ["2001:db8:1:2::9", "2001:db8:1:2"],
        ["2001:db8::9", "2001:db8:0:0"],
        ["::1", "0:0:0:0"],
      ] as const)
        expect(networkOf(address)).to.equal(network);
    });

    it("given as much to do as it takes on, or too slow a chain, answers 503 at once or in time", async () => {
      const limits = { ...DEFAULT_LIMITS, requestsPerSecond: 1000, burst: 1000, concurrent: 1, timeoutMs: 300 };
      const small = await createTestNode(tees, { limits });
      let answer: () => void = () => {};
      const gate = new Promise<void>((resolve) => {
        answer = resolve;
      });
      small.chain = { ...small.chain, decide: () => gate.then(() => ALLOWED) };
      const slow = post(small.app, "/v1/keys", (await honestRequest(small)).request);
      const second = await post(small.app, "/v1/keys", (await honestRequest(small)).request);
      expect(await problemOf(second)).to.include({ status: 503, code: "node/busy" });
      expect(await problemOf(await slow)).to.include({ status: 503, code: "node/busy" });
      answer();
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect((await post(small.app, "/v1/keys", (await honestRequest(small)).request)).status).to.equal(200);
      await small.close();
    });
  });

  describe("judging in threads", () => {
    it("releases as in one thread, and refuses with the same codes", async () => {
      const judge = createJudgePool(tees.judgeOptions, { threads: 2, timeoutMs: 60_000 });
      const pooled = await createTestNode(tees, {
        judge,
        limits: { ...DEFAULT_LIMITS, timeoutMs: 60_000, burst: 1000 },
      });
      for (const kind of KINDS) {
        const { machine, request } = await honestRequest(pooled, kind);
        const answer = await keysOf(await post(pooled.app, "/v1/keys", request));
        expect(parseKeyBundle(openAnswer(machine, answer)).keyEpoch).to.equal(1);
        const replay = { ...request, nonce: await challenge(pooled.app) };
        expect(await problemOf(await post(pooled.app, "/v1/keys", replay))).to.include({ reason: "binding/mismatch" });
      }
      const states = await judge.collateral();
      expect(states.length).to.be.greaterThan(0);
      await pooled.close();
    });

    it("given a thread that does not answer in time, answers 503 and ends it", async () => {
      const deaths: string[] = [];
      const onDeath = (reason: string) => deaths.push(reason);
      const judge = createJudgePool(tees.judgeOptions, { threads: 1, timeoutMs: 1, onDeath });
      const late = await createTestNode(tees, { judge });
      const response = await post(late.app, "/v1/keys", (await honestRequest(late)).request);
      expect(await problemOf(response)).to.include({ status: 503, code: "node/busy" });
      while (deaths.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
      await late.close();
    });

    it("given a thread that died, answers 503 and makes another", async () => {
      const deaths: string[] = [];
      const judge = createJudgePool(
        { ...tees.judgeOptions, pccs: { urls: ["not an address"], early: false } },
        { threads: 1, timeoutMs: 60_000, onDeath: (reason) => deaths.push(reason) },
      );
      const broken = await createTestNode(tees, {
        judge,
        limits: { ...DEFAULT_LIMITS, timeoutMs: 60_000, burst: 1000 },
      });
      for (let attempt = 0; attempt < 2; attempt += 1) {
        const response = await post(broken.app, "/v1/keys", (await honestRequest(broken)).request);
        expect(await problemOf(response)).to.include({ status: 503, code: "node/failed" });
      }
      expect(deaths.length).to.be.greaterThan(1);
      await broken.close();
    });
  });
});
