import { expect } from "chai";
import type { Hono } from "hono";
import type { ServiceAudit } from "../../src/audit/result.ts";
import { describeUpdates } from "../../src/audit/vm-updates.ts";
import { createVmUpdatesApp, VM_UPDATES_PATHS, type VmUpdatesOptions } from "../../src/audit/vm-updates-app.ts";
import { auditService } from "../../src/audit/walk.ts";
import { type Client, connect, type Eip1193Provider } from "../../src/chain/client.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { KeysteadError } from "../../src/core/errors.ts";
import { type Chain, passTime, startChain } from "../deploy/chains.ts";
import { dstackImage, image, imageId, KIND, measured, nitroImage, snpImage, tdxImage } from "../helpers/images.ts";
import { liar } from "../helpers/liar.ts";
import { readAsSecretVm } from "../helpers/secretvm-client.ts";
import { DAY, deploySuite, NOTICE, type Suite } from "../helpers/suite.ts";

const HOSTILE = "<script>alert(1)</script> \u202Egnp.exe\u2066 \u001b[2J </style> &amp; 𝔘";
/** Without rtmr0, which then matches anything. */
const OPEN = image(KIND.tdx, {
  0: measured("mrtd"),
  2: measured("rtmr1"),
  3: measured("rtmr2"),
  4: measured("rtmr3 of open"),
});
const FULL = image(
  KIND.tdx,
  Object.fromEntries([...Array(10).keys()].map((bit) => [bit, measured(`register ${bit} of full`)])),
);
const hex = (label: string, width?: number) => measured(label, width).slice(2);

describe("/vm_updates", () => {
  let chain: Chain;
  let suite: Suite;
  let registry: Hex;
  let client: Client;
  let service: Hex;
  let sealed: Hex;

  before(async function () {
    this.timeout(240_000);
    chain = await startChain("hardhat");
    suite = await deploySuite(chain.connection);
    registry = (await suite.registry.getAddress()).toLowerCase() as Hex;
    client = await connect(chain.connection.provider);
    const own = suite.registry.connect(suite.admin);
    const config = {
      admin: suite.admin.address,
      noticePeriod: NOTICE,
      description: HOSTILE,
      devices: [],
      requireUpToDateTcb: false,
    };
    const salt = measured("updates", 32);
    service = (await own.serviceIdFor(suite.admin.address, salt)).toLowerCase() as Hex;
    await (await own.createServiceWithImage(config, salt, FULL, "all ten")).wait();
    for (const [bytes, text] of [
      [OPEN, HOSTILE],
      [snpImage("snp"), "on AMD"],
      [nitroImage("nitro"), "on Nitro"],
      [dstackImage("dstack"), "on dstack"],
      [tdxImage("gone"), "to be removed"],
      [tdxImage("ending"), "to be retired"],
    ] as const)
      await (await own.addImageToService(service, bytes, text)).wait();
    await passTime(chain, NOTICE + 1);
    await (await own.addImageToService(service, tdxImage("coming"), "not yet")).wait();
    await (await own.removeImageFromService(service, imageId(tdxImage("gone")), HOSTILE)).wait();
    const now = (await suite.connection.ethers.provider.getBlock("latest"))?.timestamp ?? 0;
    await (await own.retireImageFromService(service, imageId(tdxImage("ending")), now + DAY)).wait();
    await (await own.publishSealedSecrets(service, "env", `0x${"5e".repeat(2000)}`)).wait();
    sealed = (await own.serviceIdFor(suite.admin.address, measured("sealed", 32))).toLowerCase() as Hex;
    await (await own.addSecretKeyByImage(FULL, [], false, measured("sealed", 32), "for ever", "0x")).wait();
  });
  after(() => chain?.stop());

  const at = () => auditService(client, registry, service);
  /** Fresh answers, and no clock of this machine's: the chain's time was moved. */
  const appOf = (read: () => Promise<ServiceAudit>, more: Partial<VmUpdatesOptions> = {}) =>
    createVmUpdatesApp({ serviceId: service, read, keep: 0, maxAge: 10 * DAY, ...more });
  const getter = (app: Hono) => (path: string) => Promise.resolve(app.request(path));
  // biome-ignore lint/suspicious/noExplicitAny: a test reads whatever the document holds
  const jsonOf = async (response: Response): Promise<any> => response.json();
  const bodyOf = async (app: Hono) => jsonOf(await app.request("/vm_updates"));

  describe("to a client of SecretVM's server", () => {
    it("answers with the images that may have keys now, each in that server's form, and no other", async () => {
      const answer = await readAsSecretVm(getter(appOf(at)));
      if (!("entries" in answer)) throw new Error("a message");
      expect(answer.serviceId).to.equal(service);
      expect(answer.entries.map(({ description }) => description)).to.deep.equal([
        "all ten",
        HOSTILE,
        "on AMD",
        "on Nitro",
        "on dstack",
        "to be retired",
      ]);
      const [full, open, snp, nitro, dstack] = answer.entries;
      const named = (bits: Readonly<Record<string, number>>) =>
        Object.fromEntries(Object.entries(bits).map(([field, bit]) => [field, hex(`register ${bit} of full`)]));
      expect(full?.filter).to.deep.equal(
        named({
          mr_td: 0,
          rtmr0: 1,
          rtmr1: 2,
          rtmr2: 3,
          rtmr3: 4,
          mr_seam: 5,
          mr_signer_seam: 6,
          mr_config_id: 7,
          mr_owner: 8,
          mr_config: 9,
        }),
      );
      expect(open?.filter).to.include({ mr_td: hex("mrtd"), rtmr0: null, rtmr3: hex("rtmr3 of open"), mr_seam: null });
      expect(snp)
        .to.include({ measurement: hex("measurement of snp") })
        .and.not.to.have.property("filter");
      // nothing that such a client could take for a filter that names nothing
      for (const other of [nitro, dstack]) expect(other).to.not.have.any.keys("filter", "measurement");
      const listed = await suite.registry.queryFilter(suite.registry.filters.AddImageToService(service));
      expect(answer.entries[0]?.timestamp).to.equal((await listed[0]?.getBlock())?.timestamp);
    });

    it("given a service that can't be upgraded, answers with that server's message", async () => {
      const app = createVmUpdatesApp({
        serviceId: sealed,
        read: () => auditService(client, registry, sealed),
        maxAge: 10 * DAY,
      });
      expect(await readAsSecretVm(getter(app))).to.deep.equal({ message: "VM is not upgradeable" });
      const body = await bodyOf(app);
      expect(body).to.include({ service_id: sealed, upgradeable: false, final: true, admin: null });
      expect(body.proof.verified).to.equal(true);
      expect(body.images).to.have.length(1);
      expect(body).to.not.have.property("filters");
    });

    it("given a machine without a service, answers with that server's bytes, and asks no chain", async () => {
      const read = () => Promise.reject(new Error("asked"));
      const response = await createVmUpdatesApp({ serviceId: undefined, read }).request("/vm_upgrades");
      expect([response.status, await response.text()]).to.deep.equal([200, '{"message":"VM is not upgradeable"}']);
      const page = await createVmUpdatesApp({ serviceId: undefined, read }).request("/vm_updates.html");
      expect(await page.text()).to.contain("VM is not upgradeable: it belongs to no service.");
    });

    it("answers the same at all its paths, to pages of other origins too", async () => {
      const app = appOf(at);
      const bodies = await Promise.all(VM_UPDATES_PATHS.map(async (path) => (await app.request(path)).text()));
      expect(new Set(bodies).size).to.equal(1);
      const response = await app.request("/vm_updates", { headers: { origin: "https://elsewhere.example" } });
      expect(response.headers.get("access-control-allow-origin")).to.equal("*");
      expect(response.headers.get("content-type")).to.equal("application/json");
    });
  });

  describe("to a client that wants to know everything", () => {
    it("names pending, removed and retiring images, what each leaves open, and why one was removed", async () => {
      const { images } = await bodyOf(appOf(at));
      const byText = new Map<string, Record<string, unknown>>(
        images.map((each: { description: string }) => [each.description, each]),
      );
      expect(images).to.have.length(8);
      expect(byText.get("not yet")).to.include({ state: "pending", kind: "tdx" });
      expect(byText.get("to be removed")).to.include({ state: "removed", removed_because: HOSTILE });
      expect(byText.get("to be retired")).to.include({ state: "retiring" });
      expect(byText.get("on Nitro")).to.deep.include({
        kind: "nitro",
        matches_anything: Array.from({ length: 29 }, (_, index) => `pcr${index + 3}`),
      });
      expect(byText.get("on dstack")).to.deep.include({
        kind: "dstack",
        registers: { compose_hash: hex("compose of dstack", 32) },
      });
      expect(byText.get(HOSTILE)?.matches_anything).to.include("rtmr0");
      expect(byText.get("all ten")?.matches_anything).to.deep.equal([]);
    });

    it("hides no event, and says on which block and head it rests", async () => {
      const audit = await at();
      const { history, proof } = await bodyOf(appOf(at));
      expect(history.map((entry: { sequence: number }) => entry.sequence)).to.deep.equal(
        [...Array(audit.count).keys()].map((at) => at + 1),
      );
      const removal = history.find(({ event }: { event: string }) => event === "remove_image_from_service");
      expect(removal).to.include({
        service_id: service,
        actor: suite.admin.address.toLowerCase(),
        image_id: imageId(tdxImage("gone")),
        reason: HOSTILE,
        state: "removed",
      });
      expect(removal.image).to.match(/^tdx:mrtd=/);
      expect(removal.transaction).to.match(/^0x[0-9a-f]{64}$/);
      const secrets = history.find(({ event }: { event: string }) => event === "publish_sealed_secrets");
      expect(secrets).to.include({ ciphertext_bytes: 2000, name: "env" }).and.not.to.have.property("ciphertext");
      expect(proof).to.deep.include({
        verified: true,
        verdict: "proven",
        basis: "storage-proof",
        block: audit.block.number,
        history_head: audit.head,
        events: audit.count,
      });
    });
  });

  describe("when not everything can be checked", () => {
    const through = async (provider: Eip1193Provider) => {
      const other = await connect(provider, { attempts: 1 });
      return () => auditService(other, registry, service);
    };

    it("says verified: false and why, where the endpoint offers no proofs", async () => {
      const endpoint = liar(chain.connection.provider, (method, answer) => {
        if (method === "eth_getProof") throw { code: -32601, message: "the method eth_getProof does not exist" };
        return answer;
      });
      const app = appOf(await through(endpoint));
      const { proof, images } = await bodyOf(app);
      expect(images).to.have.length(8);
      expect(proof).to.include({ verified: false, verdict: "consistent", basis: "endpoint" });
      expect(proof.reasons.map(({ code }: { code: string }) => code)).to.deep.equal(["no-storage-proof"]);
      expect(await (await app.request("/vm_updates.html")).text()).to.contain("NOT VERIFIED");
    });

    it("shows nothing of a history that does not verify: 502", async () => {
      const endpoint = liar(chain.connection.provider, (method, answer) =>
        method === "eth_getLogs" ? (answer as unknown[]).slice(1) : answer,
      );
      const response = await appOf(await through(endpoint)).request("/vm_updates");
      const body = await jsonOf(response);
      expect(response.status).to.equal(502);
      expect(body.proof).to.deep.include({ verified: false });
      expect(body.proof.reasons[0].code).to.equal("audit/broken-history");
      expect(body).to.not.have.any.keys("filters", "images", "history");
    });

    it("when the chain can't be reached, is 503, and tells what was verified before", async () => {
      let down = true;
      const app = appOf(async () => {
        if (down)
          throw new KeysteadError("chain/unreachable", "eth_getLogs: <b>no", { remedy: "Wait.", retryable: true });
        return at();
      });
      const first = await app.request("/vm_updates");
      expect([first.status, first.headers.get("retry-after")]).to.deep.equal([503, "5"]);
      const empty = await jsonOf(first);
      expect(empty.proof.reasons[0].code).to.equal("chain/unreachable");
      expect(empty).to.deep.include({ service_id: service, last_verified: null });
      down = false;
      expect((await app.request("/vm_updates")).status).to.equal(200);
      down = true;
      const later = await app.request("/vm_updates");
      const body = await jsonOf(later);
      expect(later.status).to.equal(503);
      expect(body.proof.verified).to.equal(false);
      expect(body.last_verified.images).to.have.length(8);
      const page = await app.request("/vm_updates.html");
      expect(page.status).to.equal(503);
      const text = await page.text();
      expect(text).to.contain("NOT VERIFIED").and.to.contain("Known before: Images").and.not.to.contain("<b>");
    });

    it("when the chain does not answer at all, loses patience: 503", async () => {
      const app = appOf(() => new Promise(() => {}), { patience: 20 });
      expect((await app.request("/vm_updates")).status).to.equal(503);
    });

    it("when the chain stands still, is 503", async () => {
      // Ahead of the clock is as bad: pending images would be shown as active.
      for (const days of [30, -30]) {
        const app = appOf(at, { maxAge: 3600, clock: () => Date.now() + days * DAY * 1000 });
        const response = await app.request("/vm_updates");
        expect(response.status).to.equal(503);
        expect((await jsonOf(response)).proof.reasons[0].code).to.equal("chain/not-now");
      }
    });

    it("when there is no such service, is 404", async () => {
      const nobody: Hex = `0x${"0b".repeat(20)}`;
      const response = await appOf(() => auditService(client, registry, nobody)).request("/vm_updates");
      expect(response.status).to.equal(404);
      expect((await jsonOf(response)).proof.reasons[0].code).to.equal("audit/no-service");
    });

    it("when the reading fails in a way of no name, is 503 and tells nothing of it", async () => {
      const response = await appOf(() => Promise.reject(new Error("secret path"))).request("/vm_updates");
      expect(response.status).to.equal(503);
      expect(await response.text()).not.to.contain("secret");
    });
  });

  it("reads the chain once for many callers, and again when the answer is old", async () => {
    let readings = 0;
    let now = Date.now();
    const app = appOf(
      () => {
        readings += 1;
        return at();
      },
      { keep: 5000, clock: () => now },
    );
    await Promise.all(Array.from({ length: 20 }, () => app.request("/vm_updates")));
    await app.request("/vm_updates.html");
    expect(readings).to.equal(1);
    now += 5001;
    await app.request("/vm_updates");
    expect(readings).to.equal(2);
  });

  it("refuses other methods and does not know other paths, as JSON", async () => {
    const app = appOf(at);
    for (const path of VM_UPDATES_PATHS.flatMap((each) => [each, `${each}.html`])) {
      for (const method of ["POST", "PUT", "DELETE", "PATCH"]) {
        const response = await app.request(path, { method });
        expect([response.status, response.headers.get("allow")]).to.deep.equal([405, "GET, HEAD, OPTIONS"]);
        expect(await response.json()).to.have.keys("error", "details");
      }
    }
    for (const path of ["/", "/vm_update", "/vm_updates/", "/vm_updates.htm", "/.well-known/"]) {
      const response = await app.request(path);
      expect(response.status, path).to.equal(404);
      expect(await response.json()).to.have.keys("error", "details");
    }
    const head = await app.request("/vm_updates", { method: "HEAD" });
    expect([head.status, await head.text()]).to.deep.equal([200, ""]);
  });

  describe("given hostile text", () => {
    const LONG = `${HOSTILE}${"\u202e<img src=x onerror=alert(1)>".repeat(3000)}`.slice(0, 64 * 1024);
    const withText = async (text: string) => {
      const audit = await at();
      if (audit.state === undefined) throw new Error("no state");
      const images = new Map(
        [...audit.state.images].map(([id, each]) => [id, { ...each, description: text, reason: text }]),
      );
      return { ...audit, state: { ...audit.state, description: text, images } };
    };

    it("gives programs the text itself, in bytes that are neither markup nor control characters", async () => {
      const audit = await withText(LONG);
      const raw = await (await appOf(async () => audit).request("/vm_updates")).text();
      expect(raw).not.to.match(/[<>&\p{Cc}\p{Cf}]/u);
      const body = JSON.parse(raw);
      expect(body.description).to.equal(LONG);
      expect(body).to.deep.equal(JSON.parse(JSON.stringify(describeUpdates(audit, audit.state))));
    });

    it("gives people a page without any markup of it, in bounded length, that may run nothing", async () => {
      const audit = await withText(LONG);
      const response = await appOf(async () => audit).request("/vm_updates.html");
      const page = await response.text();
      expect(page).not.to.match(/<script|<img|[^\P{Cc}\n]|\p{Cf}/u);
      expect(page).to.contain("&lt;script&gt;").and.to.contain("\\u{202e}");
      expect(page.match(/<\/style>/g)).to.have.length(1);
      expect(page.length).to.be.lessThan(2_000_000);
      const policy = response.headers.get("content-security-policy") ?? "";
      expect(policy).to.match(/^default-src 'none'; style-src 'sha256-[^']+'; /);
      expect(response.headers.get("x-content-type-options")).to.equal("nosniff");
    });
  });
});
