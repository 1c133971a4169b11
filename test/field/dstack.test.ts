import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import type { Hono } from "hono";
import type { Hex } from "../../src/core/bytes.ts";
import { createDstackWebhook } from "../../src/node/dstack.ts";
import { createGatedWebhook } from "../../src/node/dstack-gate.ts";
import { DEFAULT_LIMITS } from "../../src/node/limits.ts";
import { createService, makeDecider, type NodeChain, startNodeChain } from "../helpers/decider.ts";
import { dstackImage, image, KIND, measured } from "../helpers/images.ts";
import { DEVICE } from "../helpers/registry.ts";
import { supports } from "./supports.ts";

type Body = Readonly<Record<string, unknown>>;
type Route = "app" | "kms";

const bare = (hex: string): string => hex.slice(2);
const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

/** What every release sends. */
const COMMON = {
  mrAggregated: bare(measured("mr aggregated", 32)),
  osImageHash: bare(measured("os image", 32)),
  mrSystem: bare(measured("mr system", 32)),
  composeHash: bare(measured("compose of app", 32)),
  instanceId: "e5".repeat(20),
  deviceId: bare(DEVICE.one),
  keyProviderInfo: Buffer.from('{"name":"kms","id":"3059301306072a8648ce3d0201"}').toString("hex"),
  tcbStatus: "UpToDate",
  advisoryIds: ["INTEL-SA-00828"],
};

/** An event log as guests send it: some 30 KB of text. */
const EVENT_LOG = JSON.stringify(
  Array.from({ length: 110 }, (_, at) => ({
    imr: at % 4,
    event_type: 0x08000001,
    digest: sha256(`event ${at}`).padEnd(96, "0"),
    event: `event ${at} "quoted"`,
    event_payload: "00".repeat(20),
  })),
);

/** A body of each release, field by field as its dstack-kms writes them. */
const BODIES: Readonly<Record<string, (appId: string) => readonly Body[]>> = {
  "0.5.4 to 0.5.5": (appId) => [
    {
      mrtd: "01".repeat(48),
      ...Object.fromEntries([0, 1, 2, 3].map((at) => [`rtmr${at}`, `0${at + 2}`.repeat(48)])),
      appId,
      ...COMMON,
      eventLog: EVENT_LOG,
    },
  ],
  "0.5.6 to 0.5.16": (appId) => [
    { attestationMode: "dstack-tdx", appId, ...COMMON },
    { attestationMode: "dstack-gcp-tdx", appId, ...COMMON, keyProviderInfo: "" },
    nitro({ attestationMode: "dstack-nitro-enclave" }, appId, sha256("")),
  ],
  "0.6.0": (appId) => [
    { teeVariant: "dstack-tdx", appId, ...COMMON },
    { teeVariant: "dstack-gcp-tdx", appId, ...COMMON },
    { teeVariant: "dstack-amd-sev-snp", appId, ...COMMON, advisoryIds: [] },
    { teeVariant: "dstack-aws-nitro-tpm", appId, ...COMMON, tcbStatus: "", advisoryIds: [] },
    nitro({ teeVariant: "dstack-nitro-enclave" }, appId, sha256("i")),
  ],
};

function nitro(variant: Body, appId: string, deviceId: string): Body {
  const rest = { keyProviderInfo: "", tcbStatus: "", advisoryIds: [], instanceId: "", deviceId };
  return { ...variant, appId, ...COMMON, mrSystem: COMMON.mrAggregated, ...rest };
}

const SHARED = join(import.meta.dirname, "../../../shared/field/evidence");

describe("dstack", function () {
  this.timeout(240_000);
  let chain: NodeChain;
  let webhook: Hono;
  let open: Hex;
  let devices: Hex;

  before(async () => {
    chain = await startNodeChain();
    const { suite } = chain;
    await suite.policy.connect(suite.governor).setGatewayAppId("3327603e03f5bd1f830812ca4a789277fc31f577");
    const node = image(KIND.dstack, { 0: measured("os image", 32), 1: measured("compose of app", 32) });
    await suite.policy.connect(suite.governor).allowKmsImage(node, "node");
    open = await createService(suite, "open", { image: dstackImage("app") });
    // An admin who lists a machine, and what dstack calls the device of every Nitro enclave.
    const listed = [DEVICE.one, `0x${sha256("")}`, `0x${sha256("i")}`];
    devices = await createService(suite, "devices", { image: dstackImage("app"), devices: listed });
    await chain.finalize();
    const { decider } = await makeDecider(chain, [chain.provider], { maxAgeSeconds: 10 ** 9 });
    webhook = createGatedWebhook(createDstackWebhook({ decider }), { allow: ["127.0.0.1"] }, DEFAULT_LIMITS);
  });
  after(() => chain?.stop());

  const env = { incoming: { socket: { remoteAddress: "127.0.0.1" } } };
  const post = async (route: Route, body: Body): Promise<Body> => {
    const headers = { "content-type": "application/json", "user-agent": "dstack-kms/0.5.4" };
    const init = { method: "POST", headers, body: JSON.stringify(body) };
    const response = await webhook.request(`/bootAuth/${route}`, init, env);
    expect(response.status, await response.clone().text()).to.equal(200);
    return (await response.json()) as Body;
  };
  /** What auth-eth answers: it pads, drops what the contract does not take, and asks the contract. */
  const authEth = async (route: Route, body: Body) => {
    const pad = (field: string, bytes: number) =>
      `0x${String(body[field] ?? "")
        .replace(/^0x/, "")
        .padStart(2 * bytes, "0")}`;
    const hashes = ["composeHash", "deviceId", "mrAggregated", "mrSystem", "osImageHash"];
    const struct = {
      appId: pad("appId", 20),
      instanceId: pad("instanceId", 20),
      ...Object.fromEntries(hashes.map((field) => [field, pad(field, 32)])),
      tcbStatus: body.tcbStatus ?? "",
      advisoryIds: body.advisoryIds ?? [],
    } as unknown as Parameters<typeof chain.suite.dstackAuth.isAppAllowed.staticCall>[0];
    const method = route === "app" ? "isAppAllowed" : "isKmsAllowed";
    const [isAllowed, reason] = await chain.suite.dstackAuth[method].staticCall(struct);
    return { isAllowed, reason, gatewayAppId: await chain.suite.dstackAuth.gatewayAppId() };
  };

  for (const [version, bodies] of Object.entries(BODIES)) {
    supports("dstack-kms", version, "the authorization webhook answers as auth-eth on the same contract", async () => {
      let allowed = 0;
      for (const appId of [bare(open), "77".repeat(20)])
        for (const body of bodies(appId))
          for (const changes of [{}, { composeHash: "ab".repeat(32) }, { osImageHash: "" }, { tcbStatus: "Revoked" }])
            for (const route of ["app", "kms"] as const) {
              const answer = await post(route, { ...body, ...changes });
              expect(answer, JSON.stringify(body).slice(0, 200)).to.deep.equal(
                await authEth(route, { ...body, ...changes }),
              );
              if (answer.isAllowed === true) allowed += 1;
            }
      expect(allowed).to.be.greaterThan(0);
    });
  }

  supports(
    "dstack-kms",
    "0.5.4 and 0.5.11",
    "bodies that others made are taken by the webhook",
    async function (this: Mocha.Context) {
      const files = ["01-bootauth-dstack-0.5.4.json", "01-bootauth-dstack-0.5.11.json"].map((name) =>
        join(SHARED, name),
      );
      if (!files.every(existsSync)) this.skip();
      for (const file of files) {
        const body = JSON.parse(readFileSync(file, "utf8")) as Body;
        // made of repeated bytes: one field may be a digit short, and stands for the whole
        const whole = { ...body, osImageHash: "b2".repeat(32) };
        expect(await post("app", whole)).to.deep.equal(await authEth("app", whole));
      }
    },
  );

  supports(
    "dstack-kms",
    "0.5.4 to 0.6.0",
    "GetMeta reads the webhook's root, and `/dstack` with or without a slash",
    async () => {
      for (const path of ["/", "/dstack", "/dstack/"]) {
        const response = await webhook.request(path, {}, env);
        expect(response.status, path).to.equal(200);
        const info = (await response.json()) as Body;
        // AuthApiInfoResponse: a field that is missing or of another type fails GetMeta
        for (const field of ["status", "kmsContractAddr", "gatewayAppId", "appImplementation"])
          expect(info[field], field).to.be.a("string");
        expect(info).to.include({ status: "ok", chainId: 31337 });
        expect(String(info.kmsContractAddr)).to.equal(String(chain.suite.dstackAuth.target).toLowerCase());
        expect(info.appAuthImplementation).to.equal(info.appImplementation);
      }
    },
  );

  supports(
    "auth-eth",
    "0.5.x",
    "a request of the six fields that its schema requires gets the contract's answer",
    async () => {
      const { mrAggregated, osImageHash, composeHash, instanceId, deviceId } = COMMON;
      for (const appId of [bare(open), open])
        for (const route of ["app", "kms"] as const) {
          const body = { mrAggregated, osImageHash, appId, composeHash, instanceId, deviceId };
          expect(await post(route, body)).to.deep.equal(await authEth(route, body));
          const { mrAggregated: _, ...less } = body;
          const init = { method: "POST", body: JSON.stringify(less) };
          expect((await webhook.request(`/bootAuth/${route}`, init, env)).status).to.equal(400);
        }
    },
  );

  supports(
    "dstack-kms",
    "0.6.4 and later",
    "key epochs other than 0 and launch tickets are denied with a sentence",
    async () => {
      const body = { teeVariant: "dstack-tdx", appId: bare(open), ...COMMON };
      expect(await post("app", { ...body, appEpoch: 0, launchTicketHash: "" })).to.include({ isAllowed: true });
      for (const [more, reason] of [
        [{ appEpoch: 1 }, "Key epochs other than 0 are not supported"],
        [{ rootEpoch: 2 }, "Key epochs other than 0 are not supported"],
        [{ launchTicketHash: "ab".repeat(32) }, "Launch tickets are not supported"],
      ] as const)
        for (const route of ["app", "kms"] as const)
          expect(await post(route, { ...body, ...more })).to.include({ isAllowed: false, reason });
    },
  );

  supports(
    "dstack-kms",
    "0.5.6 and later, Nitro",
    "no device list lets an enclave in, even one with dstack's constant",
    async () => {
      const tdx = { attestationMode: "dstack-tdx", appId: bare(devices), ...COMMON };
      expect(await post("app", tdx)).to.include({ isAllowed: true });
      for (const deviceId of [sha256(""), sha256("i"), bare(DEVICE.one)]) {
        const enclave = nitro({ attestationMode: "dstack-nitro-enclave" }, bare(devices), deviceId);
        expect(await post("app", { ...enclave, tcbStatus: "UpToDate" })).to.include({
          isAllowed: false,
          reason: "Device not allowed",
        });
      }
      // nor any other machine whose host names no device
      expect(await post("app", { ...tdx, deviceId: sha256("") })).to.include({ reason: "Device not allowed" });
    },
  );
});
