import { expect } from "chai";
import { formatDeployment } from "../../src/chain/deployment.ts";
import { decodeImage, formatImage } from "../../src/core/image.ts";
import { type Chain, passTime, startChain } from "../deploy/chains.ts";
import { type CliRun, errorCodeOf, jsonOf, keystead, keysteadAsync, makeFolder } from "../helpers/cli.ts";
import { buildTdxQuote } from "../helpers/evidence.ts";
import { imageId, KIND, measured, PLATFORM, snpImage, tdxImage } from "../helpers/images.ts";
import { type Change, type ProxyEndpoint, startProxy } from "../helpers/proxy.ts";
import { deploymentRecord } from "../helpers/record.ts";
import { DAY, deploySuite, NOTICE, type Suite, TCB } from "../helpers/suite.ts";

const ODD = '<script>alert("x")</script> \u202Egnp.exe\u2066 \u001b[2J \u0000';
/** As long as the contract takes: 512 bytes. */
const HOSTILE = ODD + "A".repeat(512 - Buffer.byteLength(ODD));
const V1 = tdxImage("v1");
const V2 = tdxImage("v2");
const V3 = tdxImage("v3");
const RETIRING = snpImage("retiring");
const NEVER = imageId(tdxImage("never"));
const NO_SERVICE = `0x${"de".repeat(20)}`;
const text = (bytes: string) => formatImage(decodeImage(Buffer.from(bytes.slice(2), "hex"), "service"));

describe("keystead image and measure diff, with a chain", () => {
  const folder = makeFolder();
  let chain: Chain;
  let suite: Suite;
  let proxy: ProxyEndpoint;
  let registry: string;
  let policy: string;
  let service: string;
  let sealed: string;
  let rpc: string;

  before(async function () {
    this.timeout(240_000);
    chain = await startChain("anvil");
    rpc = chain.anvil?.url ?? "";
    suite = await deploySuite(chain.connection);
    proxy = await startProxy(rpc);
    registry = await suite.registry.getAddress();
    policy = await suite.policy.getAddress();
    const slow = suite.policy.connect(suite.governor);
    await (await slow.enableTee(KIND.tdx)).wait();
    await (await slow.acceptTcb(KIND.tdx, 1 << TCB.upToDate)).wait();
    await (await slow.allowPlatform(PLATFORM.tdx, HOSTILE)).wait();
    await (await slow.allowPlatform(PLATFORM.nitro, "nitro")).wait();
    await (await slow.allowPlatform(PLATFORM.snp, "old")).wait();
    await (await suite.policy.connect(suite.guardian).revokePlatform(imageId(PLATFORM.snp), HOSTILE)).wait();
    await (await slow.allowKmsImage(V1, "a node of the KMS")).wait();
    const own = suite.registry.connect(suite.admin);
    const config = {
      admin: suite.admin.address,
      noticePeriod: NOTICE,
      description: HOSTILE,
      devices: [],
      requireUpToDateTcb: false,
    };
    const salt = measured("look", 32);
    service = (await own.serviceIdFor(suite.admin.address, salt)).toLowerCase();
    await (await own.createServiceWithImage(config, salt, V1, HOSTILE)).wait();
    await (await own.addImageToService(service, V2, "second")).wait();
    await (await own.addImageToService(service, V3, "third")).wait();
    await (await own.removeImageFromService(service, imageId(V3), HOSTILE)).wait();
    sealed = (await own.serviceIdFor(suite.admin.address, measured("sealed", 32))).toLowerCase();
    await (await own.addSecretKeyByImage(V1, [], false, measured("sealed", 32), "only", "0x")).wait();
  });
  after(async () => {
    folder.remove();
    await proxy?.stop();
    await chain?.stop();
  });
  beforeEach(() => {
    proxy.change = (_method, answer) => answer;
  });

  const flags = () => ["--rpc", rpc, "--registry", registry];
  const show = (image: string, ...more: string[]) => keystead(["image", "show", image, ...flags(), ...more, "--json"]);
  const check = (image: string, ...more: string[]) =>
    keystead(["image", "check", image, ...flags(), ...more, "--json"]);
  const under = (id: string) => ["--service", id];
  const decisionOf = (run: CliRun) => jsonOf(run).verdict.denial?.decision;

  describe("under a service", () => {
    it("an active image: since when, by which event, on what the answer rests; and it is accepted", () => {
      const run = show(imageId(V1), ...under(service));
      expect(run.code, run.stderr).to.equal(0);
      const document = jsonOf(run);
      const [standing] = document.services;
      expect(standing).to.include({ status: "active", until: 0, upgradeable: true, reason: null });
      expect(standing.restsOn).to.deep.equal({ verdict: "proven", head: "storage-proof", reasons: [] });
      expect(standing.events).to.have.length(1);
      expect(standing.events[0]).to.include({ event: "add_image_to_service", sequence: 2 });
      expect(standing.since).to.equal(standing.events[0].timestamp);
      expect(document.image, "decoded from the log").to.include({ id: imageId(V1), bytes: V1, text: text(V1) });
      const checked = check(text(V1), ...under(service));
      expect(checked.code, checked.stderr).to.equal(0);
      expect(jsonOf(checked).verdict).to.include({ accepted: true, denial: null });
    });

    it("a pending image: until when; it is not accepted", () => {
      const run = show(imageId(V2), ...under(service));
      expect(run.code).to.equal(0);
      const [standing] = jsonOf(run).services;
      expect(standing.status).to.equal("pending");
      expect(standing.until).to.equal(standing.events[0].timestamp + NOTICE);
      const checked = check(V2, ...under(service));
      expect([checked.code, decisionOf(checked)]).to.deep.equal([1, "ImagePending"]);
    });

    it("a removed image: since when, and why; it is not accepted", () => {
      const [standing] = jsonOf(show(imageId(V3), ...under(service))).services;
      expect(standing.status).to.equal("removed");
      expect(standing.events.map((one: { event: string }) => one.event)).to.deep.equal([
        "add_image_to_service",
        "remove_image_from_service",
      ]);
      expect(standing.since).to.equal(standing.events[1].timestamp);
      expect(standing.reason).to.match(/^<script>/);
      const checked = check(imageId(V3), ...under(service));
      expect([checked.code, decisionOf(checked)]).to.deep.equal([1, "ImageRemoved"]);
    });

    it("an id that nobody listed, and a service that is none", () => {
      const run = show(NEVER, ...under(service));
      expect(run.code).to.equal(1);
      expect(jsonOf(run)).to.deep.include({ image: null });
      expect(jsonOf(run).services[0]).to.include({ status: "unknown", exists: true });
      expect(decisionOf(check(NEVER, ...under(service)))).to.equal("ImageUnknown");
      const none = check(imageId(V1), ...under(NO_SERVICE));
      expect([none.code, decisionOf(none)]).to.deep.equal([1, "ServiceUnknown"]);
    });

    it("a sealed service's image", () => {
      const [standing] = jsonOf(show(V1, ...under(sealed))).services;
      expect(standing).to.include({ status: "active", upgradeable: false, description: "only" });
      expect(keystead(["image", "show", V1, ...flags(), ...under(sealed)]).stdout).to.match(
        /sealed: its image can never/,
      );
      expect(check(V1, ...under(sealed)).code).to.equal(0);
    });

    it("hostile texts reach neither a terminal nor JSON as they are", () => {
      for (const json of [[], ["--json"]]) {
        for (const id of [V1, V3]) {
          const { code, stdout } = keystead([
            "image",
            "show",
            id,
            ...flags(),
            ...under(service),
            "--policy",
            policy,
            ...json,
          ]);
          expect(code).to.equal(0);
          expect(stdout)
            .to.match(/u\{202e\}gnp\.exe/)
            .and.not.match(/[^\n\P{Cc}]|\p{Cf}/u);
          expect(stdout, "to its end").to.include("A".repeat(512 - Buffer.byteLength(ODD)));
        }
      }
    });
  });

  describe("without a service", () => {
    it("says which services, platforms and KMS images know it", () => {
      const document = jsonOf(show(imageId(V1), "--policy", policy));
      expect(document.services.map((one: { serviceId: string }) => one.serviceId)).to.deep.equal([service, sealed]);
      expect(document.policy.entries).to.have.length(1);
      expect(document.policy.entries[0]).to.include({ list: "kms-image", state: "allowed" });
      const platform = jsonOf(show(imageId(PLATFORM.tdx), "--policy", policy));
      expect(platform.services).to.deep.equal([]);
      expect(platform.policy.entries[0]).to.include({ list: "platform", state: "allowed" });
      expect(platform.image, "decoded from the policy's log").to.include({ bytes: PLATFORM.tdx });
    });

    it("what nothing knows exits 1", () => {
      const run = show(NEVER, "--policy", policy);
      expect(run.code).to.equal(1);
      expect(jsonOf(run).policy.entries).to.deep.equal([]);
    });

    it("takes a deployment's record in place of addresses, and its chain", async () => {
      const chainId = 31337n;
      const file = folder.write("local.json", formatDeployment(deploymentRecord(registry, policy, chainId)));
      const run = keystead(["image", "show", V1, "--rpc", rpc, "--deployment", file, "--json"]);
      expect(run.code, run.stderr).to.equal(0);
      expect(jsonOf(run).chain).to.include({ registry: registry.toLowerCase(), policy: policy.toLowerCase() });
      const other = folder.write("other.json", formatDeployment(deploymentRecord(registry, policy, 1n)));
      const wrong = keystead(["image", "check", V1, "--rpc", rpc, "--deployment", other, ...under(service), "--json"]);
      expect([wrong.code, errorCodeOf(wrong)]).to.deep.equal([2, "chain/wrong-chain"]);
    });
  });

  describe("with the policy", () => {
    it("accepts on a platform that is allowed, and says why not elsewhere", () => {
      const cases: readonly [image: string, platform: string, decision: string | undefined][] = [
        [V1, PLATFORM.tdx, undefined],
        [V1, imageId(PLATFORM.tdx), undefined],
        [V1, NEVER, "PlatformNotAllowed"],
        [V1, imageId(PLATFORM.snp), "PlatformNotAllowed"],
        [V1, imageId(PLATFORM.nitro), "PlatformKindMismatch"],
      ];
      for (const [image, platform, decision] of cases) {
        const run = check(image, ...under(service), "--policy", policy, "--platform", platform);
        expect(run.code, run.stderr).to.equal(decision === undefined ? 0 : 1);
        expect(decisionOf(run)).to.equal(decision);
      }
    });

    it("checks a platform alone", () => {
      const as = (image: string) => check(image, "--use", "platform", "--policy", policy);
      expect(as(PLATFORM.tdx).code).to.equal(0);
      expect(decisionOf(as(imageId(PLATFORM.nitro))), "the kind is not enabled").to.equal("TeeSuspended");
      expect(decisionOf(as(tdxImage("v9")))).to.equal("PlatformNotAllowed");
      expect(decisionOf(as(NEVER))).to.equal("PlatformNotAllowed");
    });

    it("refuses a policy that is not the registry's", async () => {
      const other = await (await deploySuite(chain.connection)).policy.getAddress();
      const run = check(V1, ...under(service), "--policy", other);
      expect([run.code, errorCodeOf(run)]).to.deep.equal([2, "audit/wrong-policy"]);
    });
  });

  describe("what cannot be checked exits 2", () => {
    const cases: readonly [what: string, args: () => string[], code: string][] = [
      ["an endpoint that is down", () => ["--rpc", "http://127.0.0.1:1", "--registry", registry], "chain/unreachable"],
      ["another chain", () => [...flags(), "--chain-id", "1"], "chain/wrong-chain"],
      ["an address without code", () => ["--rpc", rpc, "--registry", NO_SERVICE], "chain/not-this-contract"],
      ["another contract", () => ["--rpc", rpc, "--registry", policy], "chain/reverted"],
      ["no registry", () => ["--rpc", rpc], "usage/registry"],
      ["no endpoint", () => ["--registry", registry], "usage/no-endpoint"],
      ["a platform without a policy", () => [...flags(), "--platform", NEVER], "usage/policy"],
      ["a bad number", () => [...flags(), "--max-age", "-1"], "usage/number"],
      ["an old block", () => [...flags(), "--max-age", "0"], "chain/not-now"],
      ["a witness that is down", () => [...flags(), "--witness", "http://127.0.0.1:1"], "chain/unreachable"],
    ];
    for (const [what, args, code] of cases) {
      it(what, () => {
        const run = keystead(["image", "check", V1, ...args(), ...under(service), "--json"]);
        expect([run.code, errorCodeOf(run)]).to.deep.equal([2, code]);
      });
    }

    it("neither a service nor a platform is named", () => {
      expect(errorCodeOf(check(V1))).to.equal("usage/service");
      expect(errorCodeOf(check(V1, "--use", "service"))).to.equal("usage/service");
    });
  });

  describe("an endpoint that tampers is believed in nothing", () => {
    interface JsonLog {
      readonly topics: readonly string[];
      readonly data: string;
    }
    const onLogs =
      (change: (logs: JsonLog[]) => unknown): Change =>
      (method, answer) =>
        method === "eth_getLogs" ? change(answer as JsonLog[]) : answer;
    const noProofs: Change = (method, answer) => {
      if (method === "eth_getProof") throw { code: -32601, message: "the method eth_getProof does not exist" };
      return answer;
    };
    const ask = (image: string, ...more: string[]) =>
      keysteadAsync([
        "image",
        "check",
        image,
        "--rpc",
        proxy.url,
        "--registry",
        registry,
        ...under(service),
        ...more,
        "--json",
      ]);
    const removal = (logs: JsonLog[]) => logs.filter(({ topics }) => topics.length === 4 && topics[3] !== imageId(V3));

    const lies: readonly [what: string, change: Change, code: string][] = [
      ["hides a removal", onLogs(removal), "audit/broken-history"],
      ["hides everything", onLogs(() => []), "audit/broken-history"],
      [
        "renames an image",
        onLogs((logs) =>
          logs.map((log) => JSON.parse(JSON.stringify(log).replaceAll(imageId(V1).slice(2), imageId(V3).slice(2)))),
        ),
        "audit/broken-history",
      ],
      [
        "changes a digit in a proof",
        (method, answer) =>
          method === "eth_getProof"
            ? JSON.parse(
                JSON.stringify(answer).replace(
                  /"proof":\["0x(.{20})(.)/g,
                  (_, head, digit) => `"proof":["0x${head}${digit === "0" ? "1" : "0"}`,
                ),
              )
            : answer,
        "audit/broken-history",
      ],
      ["offers no proofs", noProofs, "chain/unproven"],
      [
        "gives another head where it offers no proofs",
        (method, answer, params) => {
          noProofs(method, answer, params);
          const word = String(answer);
          return method === "eth_call" && word.length > 600
            ? `${word.slice(0, -1)}${word.endsWith("0") ? "1" : "0"}`
            : answer;
        },
        "audit/broken-history",
      ],
    ];
    for (const [what, change, code] of lies) {
      it(what, async () => {
        proxy.change = change;
        const run = await ask(V3, ...(what.startsWith("gives another") ? ["--accept-unproven"] : []));
        expect([run.code, errorCodeOf(run)]).to.deep.equal([2, code]);
      });
    }

    it("without proofs, its word is taken only when told to, and the answer says so", async () => {
      proxy.change = noProofs;
      expect((await ask(V1)).code).to.equal(2);
      const run = await ask(V1, "--accept-unproven");
      expect(run.code, run.stderr).to.equal(0);
      expect(jsonOf(run).services[0].restsOn).to.include({ verdict: "consistent", head: "endpoint" });
    });

    it("a log in the scan that no history holds is found out", async () => {
      const topics = [null, null, null, imageId(V1)];
      const filter = { address: registry, fromBlock: "0x0", toBlock: "latest", topics };
      const logs = await chain.connection.provider.request({ method: "eth_getLogs", params: [filter] });
      const forged = JSON.parse(JSON.stringify(logs).replaceAll(imageId(V1).slice(2), NEVER.slice(2)));
      // in ranges alone: given as a log of whichever block is asked for by hash, it would be seen before it is verified
      proxy.change = (method, answer, params) => {
        const asked = JSON.stringify(params);
        return method === "eth_getLogs" && asked.includes(NEVER) && asked.includes("fromBlock") ? forged : answer;
      };
      const run = await keysteadAsync(["image", "show", NEVER, "--rpc", proxy.url, "--registry", registry, "--json"]);
      expect([run.code, errorCodeOf(run)]).to.deep.equal([2, "audit/broken-history"]);
    });

    it("a witness with another block refuses it", async () => {
      proxy.change = (method, answer) =>
        method === "eth_getBlockByNumber" ? { ...(answer as object), hash: `0x${"77".repeat(32)}` } : answer;
      const run = await keysteadAsync([
        "image",
        "check",
        V1,
        ...flags(),
        ...under(service),
        "--witness",
        proxy.url,
        "--json",
      ]);
      expect([run.code, errorCodeOf(run)]).to.deep.equal([2, "chain/disagreement"]);
    });
  });

  describe("measure diff against a registered image", () => {
    const at = (id: string) => `chain:${service}/${id}`;
    const diff = (old: string, now: string, ...more: string[]) =>
      keystead(["measure", "diff", old, now, ...flags(), ...more, "--json"]);

    it("exits 0 where the quote has the registered registers, 1 where not, with the call that registers it", () => {
      const bytes = (name: string) => Buffer.from(measured(name).slice(2), "hex");
      const registers = {
        mrTd: bytes("mrtd"),
        rtMr0: bytes("rtmr0"),
        rtMr1: bytes("rtmr1"),
        rtMr2: bytes("rtmr2"),
      };
      const same = folder.write("same.bin", buildTdxQuote({ ...registers, rtMr3: bytes("rtmr3 of v1") }));
      const newer = folder.write("newer.bin", buildTdxQuote({ ...registers, rtMr3: bytes("rtmr3 of v7") }));
      const run = diff(at(imageId(V1)), same);
      expect(run.code, run.stderr).to.equal(0);
      expect(jsonOf(run).old).to.include({ input: "registered" });
      const changed = diff(at(imageId(V1)), newer);
      expect(changed.code).to.equal(1);
      expect(jsonOf(changed).diff.calls[0].function).to.equal("addImageToService");
      expect(jsonOf(changed).diff.calls[1].arguments.imageId).to.equal(imageId(V1));
    });

    it("says that a pending image is, and refuses one that is not in force", () => {
      const pending = diff(at(imageId(V1)), at(imageId(V2)));
      expect(pending.code).to.equal(1);
      expect(jsonOf(pending).new.findings[0].code).to.equal("registered/pending");
      for (const id of [imageId(V3), NEVER]) {
        const run = diff(at(id), V3);
        expect([run.code, errorCodeOf(run)]).to.deep.equal([2, "measure/not-registered"]);
      }
    });

    it("an endpoint that is down, or unproven, is 2 and never a pass", async () => {
      const args = ["measure", "diff", at(imageId(V1)), V1, "--registry", registry, "--json", "--rpc"];
      expect(keystead([...args, rpc]).code).to.equal(0);
      expect(errorCodeOf(keystead([...args, "http://127.0.0.1:1"]))).to.equal("chain/unreachable");
      proxy.change = (method, answer) => (method === "eth_getLogs" ? [] : answer);
      const run = await keysteadAsync([...args, proxy.url]);
      expect([run.code, errorCodeOf(run)]).to.deep.equal([2, "audit/broken-history"]);
      expect(errorCodeOf(diff("chain:0x12/0x34", V1))).to.equal("measure/registered-name");
    });
  });

  // last: it moves the chain's clock
  describe("as time passes", () => {
    it("pending becomes active, retiring is accepted to its end, a pause stops all", async () => {
      const own = suite.registry.connect(suite.admin);
      await passTime(chain, NOTICE + 1);
      const late = ["--max-age", "99999999"];
      expect(errorCodeOf(check(V2, ...under(service)))).to.equal("chain/not-now");
      expect(check(V2, ...under(service), ...late).code).to.equal(0);
      await (await own.addImageToService(service, RETIRING, "")).wait();
      await passTime(chain, NOTICE + 1);
      const now = (await chain.connection.ethers.provider.getBlock("latest"))?.timestamp ?? 0;
      await (await own.retireImageFromService(service, imageId(RETIRING), now + 2 * DAY)).wait();
      const [standing] = jsonOf(show(RETIRING, ...under(service))).services;
      expect(standing).to.include({ status: "retiring", until: now + 2 * DAY });
      expect(check(RETIRING, ...under(service), ...late).code).to.equal(0);
      await passTime(chain, 2 * DAY);
      const retired = check(RETIRING, ...under(service), ...late);
      expect([retired.code, decisionOf(retired)]).to.deep.equal([1, "ImageRetired"]);
      await (await suite.policy.connect(suite.guardian).pauseRelease(DAY, "stop")).wait();
      const paused = check(V1, ...under(service), "--policy", policy, ...late);
      expect([paused.code, decisionOf(paused)]).to.deep.equal([1, "ReleasePaused"]);
    });
  });
});
