import { createHash } from "node:crypto";
import { expect } from "chai";
import fc from "fast-check";
import { Hono } from "hono";
import type { AuthorizeRequest } from "../../src/chain/authorize.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { DECISIONS, type DecisionName, TCB_STATUS_NAMES } from "../../src/core/decision.ts";
import { KeysteadError } from "../../src/core/errors.ts";
import { parseJson } from "../../src/core/json.ts";
import type { ReleaseDecision } from "../../src/node/decide.ts";
import { createDstackWebhook, type DstackWebhookOptions } from "../../src/node/dstack.ts";
import { parseBootInfo, TEE_VARIANTS } from "../../src/node/dstack-boot.ts";
import { asAdmin, createService, makeDecider, type NodeChain, startNodeChain } from "../helpers/decider.ts";
import { errorOf } from "../helpers/errors.ts";
import { dstackImage, dstackPinnedImage, image, imageId, KIND, measured } from "../helpers/images.ts";
import { DEVICE } from "../helpers/registry.ts";

const bare = (hex: string): string => hex.slice(2);

/** What auth-eth requires; everything else may be left out. */
const REQUIRED = ["mrAggregated", "osImageHash", "appId", "composeHash", "instanceId", "deviceId"];

/** dstack-kms's request, field by field as its `PolicyBootInfo` is written. */
const bootInfo = (changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> => ({
  teeVariant: "dstack-tdx",
  mrAggregated: bare(measured("mr aggregated", 32)),
  osImageHash: bare(measured("os image", 32)),
  mrSystem: bare(measured("mr system", 32)),
  appId: "77".repeat(20),
  composeHash: bare(measured("compose of app", 32)),
  instanceId: "ab".repeat(20),
  deviceId: bare(DEVICE.one),
  keyProviderInfo: "7b7d",
  tcbStatus: "UpToDate",
  advisoryIds: [],
  ...changes,
});

interface Answer {
  readonly status: number;
  readonly type: string | null;
  readonly text: string;
  readonly body: Readonly<Record<string, unknown>>;
}

async function ask(options: DstackWebhookOptions, path: string, init: RequestInit = {}): Promise<Answer> {
  const response = await createDstackWebhook(options).request(path, init);
  const text = await response.text();
  return {
    status: response.status,
    type: response.headers.get("content-type"),
    text,
    body: parseJson(text, "answer") as Readonly<Record<string, unknown>>,
  };
}
const post = (options: DstackWebhookOptions, route: "app" | "kms", body: unknown) =>
  ask(options, `/bootAuth/${route}`, {
    method: "POST",
    headers: { "content-type": "application/json", "user-agent": "dstack-kms/0.5.4" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });

const FACTS = {
  chainId: 8453,
  dstackAuth: `0x${"d5".repeat(20)}` as Hex,
  gatewayAppId: "3327603e03f5bd1f830812ca4a789277fc31f577",
  appImplementation: `0x${"a1".repeat(20)}` as Hex,
};

/** A decider that gives each request the decision that a test wants, and shows what it was asked. */
function scripted(decide: (request: AuthorizeRequest) => DecisionName, facts: Partial<typeof FACTS> = {}) {
  const asked: AuthorizeRequest[] = [];
  const decider: DstackWebhookOptions["decider"] = {
    dstackFacts: async () => ({ ...FACTS, ...facts }),
    serviceExists: async () => true,
    decideAmong: async (requests, choose) => {
      asked.push(...requests);
      const decisions = requests.map(decide);
      const decision = decisions[choose(decisions)] as DecisionName;
      return { allowed: decision === "Allowed", decision } as ReleaseDecision;
    },
  };
  return { decider, asked };
}
const allowing = () => scripted(() => "Allowed");
const failing = (error: unknown): DstackWebhookOptions["decider"] => ({
  dstackFacts: async () => FACTS,
  serviceExists: async () => true,
  decideAmong: async () => {
    throw error;
  },
});
const stale = new KeysteadError("chain/stale", "old", { remedy: "Wait.", retryable: true });

describe("dstack's authorization webhook", () => {
  describe("GET /", () => {
    it("answers with every field that dstack-kms requires, and each of its type", async () => {
      const { status, type, body } = await ask(allowing(), "/");
      expect({ status, type }).to.deep.equal({ status: 200, type: "application/json" });
      expect(body).to.deep.equal({
        status: "ok",
        kmsContractAddr: FACTS.dstackAuth,
        gatewayAppId: FACTS.gatewayAppId,
        chainId: 8453,
        appImplementation: FACTS.appImplementation,
        appAuthImplementation: FACTS.appImplementation,
      });
    });
    it("when the chain can't be read, answers 500 with status and message", async () => {
      const seen: unknown[] = [];
      const decider = { ...allowing().decider, dstackFacts: async () => Promise.reject(stale) };
      const { status, body } = await ask({ decider, onFault: (error) => seen.push(error) }, "/");
      expect({ status, body }).to.deep.equal({ status: 500, body: { status: "error", message: "chain/stale" } });
      expect(seen).to.deep.equal([stale]);
    });
    it("when the gateway's id would make the answer too long, answers 500", async () => {
      const { status, body } = await ask(
        scripted(() => "Allowed", { gatewayAppId: "a".repeat(500) }),
        "/",
      );
      expect({ status, body }).to.deep.equal({
        status: 500,
        body: { status: "error", message: "dstack/answer-too-long" },
      });
    });
  });

  for (const route of ["app", "kms"] as const) {
    describe(`POST /bootAuth/${route}`, () => {
      it("when it is allowed, answers with exactly the three fields", async () => {
        const { status, type, body } = await post(allowing(), route, bootInfo());
        expect({ status, type }).to.deep.equal({ status: 200, type: "application/json" });
        expect(body).to.deep.equal({ isAllowed: true, gatewayAppId: FACTS.gatewayAppId, reason: "" });
      });

      for (const decision of DECISIONS.filter((name) => name !== "Allowed")) {
        it(`when the decision is ${decision}, denies with a reason in ASCII`, async () => {
          const { status, text, body } = await post(
            scripted(() => decision),
            route,
            bootInfo(),
          );
          expect(status).to.equal(200);
          expect(body).to.include({ isAllowed: false, gatewayAppId: FACTS.gatewayAppId });
          expect(body.reason).to.match(/^[\x20-\x7e]{5,60}$/);
          expect(Buffer.byteLength(text)).to.be.lessThan(512);
        });
      }

      for (const teeVariant of TEE_VARIANTS) {
        it(`takes ${teeVariant}, with and without an instance id`, async () => {
          for (const instanceId of ["", "ab".repeat(20)]) {
            const { body } = await post(allowing(), route, bootInfo({ teeVariant, instanceId }));
            expect(body.isAllowed).to.equal(true);
          }
        });
      }
      it("takes SEV-SNP's device id of 64 bytes as its hash, and no other machine's", async () => {
        const chip = "5c".repeat(64);
        const { decider, asked } = allowing();
        const snp = bootInfo({ teeVariant: "dstack-amd-sev-snp", deviceId: chip });
        expect((await post({ decider }, route, snp)).body.isAllowed).to.equal(true);
        const hashed = `0x${createHash("sha256").update(Buffer.from(chip, "hex")).digest("hex")}`;
        expect(asked.map(({ deviceId }) => deviceId)).to.deep.equal(asked.map(() => hashed));
        expect((await post({ decider }, route, bootInfo({ deviceId: chip }))).status).to.equal(400);
      });
      it("takes Intel's statuses by their names, and none for a Nitro enclave", async () => {
        for (const [at, name] of TCB_STATUS_NAMES.entries()) {
          const tcbStatus = name === "NotApplicable" ? "" : name;
          const { decider, asked } = allowing();
          expect((await post({ decider }, route, bootInfo({ tcbStatus }))).body.isAllowed).to.equal(true);
          expect(asked[0]?.tcbStatus).to.equal(at);
        }
        for (const tcbStatus of ["NotApplicable", "uptodate", "UpToDate ", "Fine"]) {
          const { decider, asked } = allowing();
          const { body } = await post({ decider }, route, bootInfo({ tcbStatus }));
          expect(body).to.include({ isAllowed: false, reason: "TCB status is not known" });
          expect(asked).to.deep.equal([]);
        }
      });
      it("denies without a compose hash and without an OS image hash, whether they are empty or zero", async () => {
        for (const [field, reason] of [
          ["composeHash", "Compose hash is missing"],
          ["osImageHash", "OS image hash is missing"],
        ] as const) {
          for (const value of ["", "00".repeat(32)]) {
            const { body } = await post(allowing(), route, bootInfo({ [field]: value }));
            expect(body).to.include({ isAllowed: false, reason });
          }
        }
      });
      it("never asks about an image that names a register of zeros", async () => {
        const { decider, asked } = allowing();
        await post({ decider }, route, bootInfo({ mrAggregated: "00".repeat(32), mrSystem: "00".repeat(32) }));
        expect(asked).to.have.lengthOf(route === "app" ? 2 : 1);
      });
      it("takes hashes with 0x and in capitals, as auth-eth does, and empty ones as zero", async () => {
        const { decider, asked } = allowing();
        const spelled = bootInfo({
          composeHash: `0x${"AB".repeat(32)}`,
          mrAggregated: "",
          deviceId: "0x",
          instanceId: "0x",
        });
        expect((await post({ decider }, route, spelled)).body.isAllowed).to.equal(true);
        const same = scripted(() => "Allowed");
        await post(same, route, bootInfo({ composeHash: "ab".repeat(32), mrAggregated: "00".repeat(32) }));
        expect(asked.map(({ imageId: id }) => id)).to.deep.equal(same.asked.map(({ imageId: id }) => id));
        expect(asked[0]?.deviceId).to.equal(`0x${"00".repeat(32)}`);
      });
      it("denies short hashes, which auth-eth would pad into others", async () => {
        for (const field of REQUIRED)
          for (const value of ["ab", "0xab", "a", String(bootInfo()[field]).slice(2)]) {
            const { decider, asked } = allowing();
            const { status, body } = await post({ decider }, route, bootInfo({ [field]: value }));
            expect({ status, isAllowed: body.isAllowed }).to.deep.equal({ status: 200, isAllowed: false });
            expect(body.reason).to.match(new RegExp(`^${field} has fewer than (20|32) bytes$`));
            expect(asked).to.deep.equal([]);
          }
      });
      it("denies a TEE that it does not know", async () => {
        const { body } = await post(allowing(), route, bootInfo({ teeVariant: "dstack-sgx" }));
        expect(body).to.include({ isAllowed: false, reason: "TEE variant is not known" });
      });
      it("denies key epochs other than 0 and launch tickets, under whatever name and however deep", async () => {
        const epoch = "Key epochs other than 0 are not supported";
        const ticket = "Launch tickets are not supported";
        for (const [more, reason] of [
          [{ appEpoch: 1 }, epoch],
          [{ root_epoch: "2" }, epoch],
          [{ keyEpoch: "0x01" }, epoch],
          [{ request: { AppKeyEpoch: 3 } }, epoch],
          [{ epochs: [0] }, epoch],
          [{ launchTicketHash: "ab".repeat(32) }, ticket],
          [{ launch_ticket: {} }, ticket],
        ] as const) {
          const { decider, asked } = allowing();
          const { status, body } = await post({ decider }, route, bootInfo(more));
          expect(status).to.equal(200);
          expect(body, JSON.stringify(more)).to.include({ isAllowed: false, reason });
          expect(asked).to.deep.equal([]);
        }
        for (const more of [{ appEpoch: 0 }, { rootEpoch: "0" }, { launchTicketHash: "" }, { launchTicketHash: null }])
          expect((await post(allowing(), route, bootInfo(more))).body.isAllowed, JSON.stringify(more)).to.equal(true);
      });
      it("takes a Nitro enclave's device, and those that a masked host shares, for none", async () => {
        const sha = (bytes: Uint8Array | string) => createHash("sha256").update(bytes).digest("hex");
        const shared = ["", "i", new Uint8Array(16), new Uint8Array(20), new Uint8Array(64)].map(sha);
        for (const more of [{ teeVariant: "dstack-nitro-enclave" }, ...shared.map((deviceId) => ({ deviceId }))]) {
          const { decider, asked } = allowing();
          await post({ decider }, route, bootInfo(more));
          expect(new Set(asked.map(({ deviceId }) => deviceId))).to.deep.equal(new Set([`0x${"00".repeat(32)}`]));
        }
      });
      it("takes fields that a later dstack adds, and advisories", async () => {
        const later = bootInfo({ somethingNew: { deep: [1] }, advisoryIds: ["INTEL-SA-00837"] });
        expect((await post(allowing(), route, later)).body.isAllowed).to.equal(true);
      });

      const without = (field: string) => {
        const { [field]: _, ...rest } = bootInfo();
        return rest;
      };
      const malformed: Readonly<Record<string, unknown>> = {
        ...Object.fromEntries(REQUIRED.map((field) => [`no ${field}`, without(field)])),
        ...Object.fromEntries(
          [...REQUIRED, "mrSystem", "tcbStatus"].map((field) => [`null as ${field}`, bootInfo({ [field]: null })]),
        ),
        ...Object.fromEntries(
          ["mrAggregated", "osImageHash", "mrSystem", "appId", "composeHash", "deviceId", "instanceId"].flatMap(
            (field) => {
              const value = String(bootInfo()[field]);
              return [
                [`0x twice before ${field}`, bootInfo({ [field]: `0x0x${value.slice(4)}` })],
                [`a letter in ${field}`, bootInfo({ [field]: `g${value.slice(1)}` })],
                [`a byte more in ${field}`, bootInfo({ [field]: `${value}00` })],
                [`half a byte more in ${field}`, bootInfo({ [field]: `${value}0` })],
                [`a line break in ${field}`, bootInfo({ [field]: `${value}\n` })],
              ];
            },
          ),
        ),
        "a variant that is no text": bootInfo({ teeVariant: 7 }),
        "two variants": bootInfo({ attestationMode: "dstack-gcp-tdx" }),
        "too long a status": bootInfo({ tcbStatus: "U".repeat(129) }),
        "too many advisories": bootInfo({ advisoryIds: new Array(129).fill("x") }),
        "too long an advisory": bootInfo({ advisoryIds: ["x".repeat(257)] }),
        "advisories that are no texts": bootInfo({ advisoryIds: [7] }),
        "no object": [],
        "no JSON": "appId=77",
        nothing: "",
        "a key twice": `{"appId":"${"88".repeat(20)}",${JSON.stringify(bootInfo()).slice(1)}`,
      };
      it("answers 400 to everything else", async () => {
        for (const [what, body] of Object.entries(malformed)) {
          const answer = await post(allowing(), route, body);
          expect(answer.status, what).to.equal(400);
          expect(answer.body, what).to.deep.equal({
            isAllowed: false,
            gatewayAppId: "",
            reason: "invalid authorization request",
          });
        }
      });
      it("answers 413 to a body without end", async () => {
        const { status, body } = await post(allowing(), route, " ".repeat(200_000));
        expect(status).to.equal(413);
        expect(body.isAllowed).to.equal(false);
      });

      it("when the chain can't be read, denies with dstack's own sentence", async () => {
        for (const error of [stale, new TypeError("a bug"), "no error at all"]) {
          const seen: unknown[] = [];
          const answer = await post({ decider: failing(error), onFault: (each) => seen.push(each) }, route, bootInfo());
          expect(answer.status).to.equal(200);
          expect(answer.body).to.deep.equal({
            isAllowed: false,
            gatewayAppId: "",
            reason: "authorization backend unavailable",
          });
          expect(seen).to.deep.equal([error]);
        }
      });
      it("when governance wrote a gateway id with characters of several bytes, answers in ASCII with the same text", async () => {
        const gatewayAppId = "gåtew\u202Eay 😀 \u0000\u007f";
        const { text, body } = await post(
          scripted(() => "Allowed", { gatewayAppId }),
          route,
          bootInfo(),
        );
        expect(text).to.match(/^[\x20-\x7e]*$/);
        expect(body).to.include({ isAllowed: true, gatewayAppId });
      });
      it("when the gateway's id would make the answer too long, denies", async () => {
        const envelope = JSON.stringify({ isAllowed: true, gatewayAppId: "", reason: "" }).length;
        for (const [length, isAllowed] of [
          [511 - envelope, true],
          [512 - envelope, false],
        ] as const) {
          const { text, body } = await post(
            scripted(() => "Allowed", { gatewayAppId: "a".repeat(length) }),
            route,
            bootInfo(),
          );
          expect(body.isAllowed).to.equal(isAllowed);
          expect(text.length).to.be.lessThan(512);
        }
      });
      it("tells of each decision", async () => {
        const seen: unknown[] = [];
        const onDecision: DstackWebhookOptions["onDecision"] = ({ route: at, reason }) => seen.push([at, reason]);
        await post({ ...allowing(), onDecision }, route, bootInfo());
        expect(seen).to.deep.equal([[route, ""]]);
      });
      it("answers no other method", async () => {
        const { status, body } = await ask(allowing(), `/bootAuth/${route}`);
        expect(status).to.equal(404);
        expect(body.isAllowed).to.equal(false);
      });
    });
  }

  it("works under a path, as dstack-kms calls it: without a slash at the end", async () => {
    const app = new Hono().route("/dstack", createDstackWebhook(allowing()));
    expect((await app.request("/dstack")).status).to.equal(200);
    expect((await createDstackWebhook(allowing()).request("/")).status).to.equal(200);
    const init = { method: "POST", body: JSON.stringify(bootInfo()) };
    expect(await (await app.request("/dstack/bootAuth/app", init)).json()).to.include({ isAllowed: true });
  });
  it("an app that does not exist costs the question whether it does, and no more", async () => {
    const { decider, asked } = allowing();
    const { body } = await post({ decider: { ...decider, serviceExists: async () => false } }, "app", bootInfo());
    expect(body).to.include({ isAllowed: false, reason: "App not registered" });
    expect(asked).to.deep.equal([]);
  });
  it("names the field that is wrong", () => {
    const { code, argument } = errorOf(() => parseBootInfo(JSON.stringify(bootInfo({ appId: "0xg" }))));
    expect({ code, argument }).to.deep.equal({ code: "dstack/bad-request", argument: "appId" });
  });

  describe("on a chain", function () {
    this.timeout(240_000);
    let chain: NodeChain;
    let webhook: DstackWebhookOptions;
    let services: readonly Hex[];
    const FOREVER = 10 ** 9;
    const MR = { aggregated: measured("mr aggregated", 32), system: measured("mr system", 32) };
    const compose = measured("compose of app", 32);
    const node = image(KIND.dstack, { 0: measured("os image", 32), 1: compose });

    before(async () => {
      chain = await startNodeChain();
      const { suite } = chain;
      const governor = suite.policy.connect(suite.governor);
      await governor.setGatewayAppId("gateway ".repeat(9));
      await governor.setAppImplementation(`0x${"a1".repeat(20)}`);
      await governor.allowKmsImage(node, "node");
      const plain = await createService(suite, "plain", { image: dstackImage("app") });
      const pinned = await createService(suite, "pinned", { image: dstackPinnedImage("app") });
      const whole = await createService(suite, "whole", {
        image: image(KIND.dstack, { 1: compose, 2: MR.aggregated, 3: MR.system }),
      });
      const removed = await createService(suite, "removed", { image: dstackImage("app") });
      await asAdmin(suite).removeImageFromService(removed, imageId(dstackImage("app")), "broken");
      await asAdmin(suite).addImageToService(removed, dstackPinnedImage("app"), "pending");
      const devices = await createService(suite, "devices", { image: dstackImage("app"), devices: [DEVICE.one] });
      const strict = await createService(suite, "strict", { image: dstackImage("app"), requireUpToDateTcb: true });
      services = [plain, pinned, whole, removed, devices, strict, `0x${"77".repeat(20)}`];
      await chain.finalize();
      const { decider } = await makeDecider(chain, [chain.provider], { maxAgeSeconds: FOREVER });
      webhook = { decider };
    });
    after(() => chain?.stop());

    it("tells what the policy says, from proven slots", async () => {
      const { body } = await ask(webhook, "/");
      expect(body).to.include({
        status: "ok",
        chainId: 31337,
        kmsContractAddr: String(chain.suite.dstackAuth.target).toLowerCase(),
        gatewayAppId: "gateway ".repeat(9),
        appImplementation: `0x${"a1".repeat(20)}`,
      });
    });

    it("given random machines, answers what DstackAuth answers, word for word", async () => {
      const hash = (label: string, ...others: string[]) => {
        const usual = bare(measured(label, 32));
        return fc.constantFrom(usual, usual, usual, usual, usual, usual, "00".repeat(32), ...others);
      };

      const machine = fc.record({
        teeVariant: fc.constantFrom(...TEE_VARIANTS),
        mrAggregated: hash("mr aggregated"),
        osImageHash: hash("os image", bare(measured("another os", 32))),
        mrSystem: hash("mr system"),
        appId: fc.constantFrom(...services.map(bare)),
        composeHash: hash("compose of app", bare(measured("another compose", 32))),
        instanceId: fc.constantFrom("", "ab".repeat(20)),
        deviceId: fc.constantFrom(bare(DEVICE.one), bare(DEVICE.two)),
        keyProviderInfo: fc.constantFrom("", "7b7d"),
        tcbStatus: fc.constantFrom("UpToDate", "UpToDate", "SWHardeningNeeded", "OutOfDate", "Revoked", "", "?"),
        advisoryIds: fc.constantFrom([], ["INTEL-SA-00837"]),
      });
      const block = await chain.connection.ethers.provider.getBlock("finalized");
      const reasons = new Map<string, number>();
      for (const boot of fc.sample(machine, { numRuns: 120, seed: 20_261 })) {
        const struct = {
          ...Object.fromEntries(
            Object.entries(boot).map(([name, value]) => [name, typeof value === "string" ? `0x${value}` : value]),
          ),
          instanceId: `0x${boot.instanceId.padStart(40, "0")}`,
          tcbStatus: boot.tcbStatus,
          advisoryIds: boot.advisoryIds,
          // No device list can mean a Nitro enclave: the contract is not told, the webhook is.
          ...(boot.teeVariant === "dstack-nitro-enclave" ? { deviceId: `0x${"00".repeat(32)}` } : {}),
        } as unknown as Parameters<typeof chain.suite.dstackAuth.isAppAllowed.staticCall>[0];
        for (const route of ["app", "kms"] as const) {
          const method = route === "app" ? "isAppAllowed" : "isKmsAllowed";
          const [isAllowed, reason] = await chain.suite.dstackAuth[method].staticCall(struct, {
            blockTag: block?.number ?? 0,
          });
          const { body } = await post(webhook, route, boot);
          expect(body, JSON.stringify(boot)).to.include({ isAllowed, reason });
          reasons.set(`${route} ${reason}`, (reasons.get(`${route} ${reason}`) ?? 0) + 1);
        }
      }
      console.log(`      ${[...reasons].map(([reason, count]) => `${reason || "allowed"} ${count}`).join(", ")}`);
      expect(reasons.size).to.be.greaterThan(12);
      expect(reasons.get("app ")).to.be.greaterThan(5);
      expect(reasons.get("kms ")).to.be.greaterThan(3);
    });

    it("when the guardian suspends the kind, denies at the next look", async () => {
      const boot = bootInfo({ appId: bare(services[0] ?? "0x") });
      expect((await post(webhook, "app", boot)).body.isAllowed).to.equal(true);
      await chain.suite.policy.connect(chain.suite.guardian).suspendTee(KIND.dstack, "broken");
      const { decider } = await makeDecider(chain, [chain.provider], { maxAgeSeconds: FOREVER });
      const { body } = await post({ decider }, "app", boot);
      expect(body).to.include({ isAllowed: false, reason: "TEE kind is not enabled" });
    });
  });
});
