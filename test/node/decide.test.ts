import { expect } from "chai";
import type { Eip1193Provider } from "../../src/chain/client.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import type { Decider, MachineFacts, ReleaseDecision } from "../../src/node/decide.ts";
import {
  asAdmin,
  createService,
  machineOf,
  makeDecider,
  type NodeChain,
  pinSuite,
  startNodeChain,
} from "../helpers/decider.ts";
import { image, imageId, KIND, measured, nitroImage, PLATFORM, snpImage, tdxImage } from "../helpers/images.ts";
import { liar } from "../helpers/liar.ts";
import { bytes32, DEVICE, V1, V2 } from "../helpers/registry.ts";
import { deploy, NOTICE } from "../helpers/suite.ts";

/** Small, so that a story of days stays young: the bound itself is quorum.test.ts's. */
const FOREVER = 10 ** 9;

describe("decisions", function () {
  this.timeout(240_000);
  let chain: NodeChain;
  before(async () => {
    chain = await startNodeChain();
  });
  after(() => chain?.stop());

  /** A node of its own that looks at the chain as it is now, with the clock of the chain. */
  const nodeNow = (providers: readonly Eip1193Provider[] = [chain.provider]) =>
    makeDecider(chain, providers, { maxAgeSeconds: FOREVER });
  const decideNow = async (serviceId: Hex, machine: MachineFacts = machineOf(V1), hints = {}) => {
    const { decider } = await nodeNow();
    return decider.decide({ serviceId, machine, ...hints });
  };
  const decisionNow = async (...args: Parameters<typeof decideNow>) => (await decideNow(...args)).decision;
  const policyBy = (who: "governor" | "guardian") => chain.suite.policy.connect(chain.suite[who]);
  const codeOf = async (act: Promise<unknown>): Promise<string> => {
    const error = await act.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (isKeysteadError(error)) return error.code;
    throw error ?? new Error("nothing was thrown");
  };

  describe("given a service with an active image", () => {
    let serviceId: Hex;
    before(async () => {
      serviceId = await createService(chain.suite, "active");
      await chain.finalize();
    });

    it("allows, and says everything that the answer rests on", async () => {
      const { decider } = await nodeNow([chain.provider, chain.provider, chain.provider]);
      const decision = await decider.decide({ serviceId, machine: machineOf(V1) });
      const block = await chain.connection.ethers.provider.getBlock("finalized");
      const { registry, policy } = chain.suite;
      expect(decision).to.deep.include({
        allowed: true,
        decision: "Allowed",
        serviceId,
        imageId: imageId(V1),
        platformId: imageId(PLATFORM.tdx),
        keyEpoch: 0,
        historyHead: await registry.historyHead(serviceId),
        policyVersion: Number(await policy.policyVersion()),
      });
      expect(decision.basis).to.deep.include({
        chainId: 31337,
        registry: String(registry.target).toLowerCase(),
        policy: String(policy.target).toLowerCase(),
        agreed: ["a", "b", "c"],
        endpoints: 3,
        quorum: 2,
        confirmedBy: ["a", "b", "c"],
        tightenedBy: undefined,
        implementations: {
          registry: chain.deployment.registry.implementations[0]?.address,
          policy: chain.deployment.policy.implementations[0]?.address,
        },
      });
      expect(decision.basis.block).to.deep.include({ number: block?.number, hash: block?.hash });
      expect(decision.basis.block.timestamp).to.equal(block?.timestamp);
    });

    it("when the machine differs in any one register of the image, does not know it", async () => {
      for (const name of ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"]) {
        const { registers } = machineOf(V1);
        const value = measured(`another ${name}`) as Hex;
        expect(
          await decisionNow(serviceId, machineOf(V1, { registers: { ...registers, [name]: value } })),
          name,
        ).to.equal("ImageUnknown");
        const { [name]: _, ...fewer } = registers;
        expect(await decisionNow(serviceId, machineOf(V1, { registers: fewer })), `no ${name}`).to.equal(
          "ImageUnknown",
        );
      }
    });
    it("when the machine has registers beside those of the image, allows", async () => {
      const registers = { ...machineOf(V1).registers, mr_owner: measured("owner") as Hex };
      expect(await decisionNow(serviceId, machineOf(V1, { registers }))).to.equal("Allowed");
    });
    it("when another service is asked for, denies", async () => {
      expect(await decisionNow(`0x${"77".repeat(20)}`)).to.equal("ServiceUnknown");
      const other = await createService(chain.suite, "other", { image: V2 });
      await chain.finalize();
      expect(await decisionNow(other)).to.equal("ImageUnknown");
    });
    it("when the TCB status is not accepted, denies", async () => {
      expect(await decisionNow(serviceId, machineOf(V1, { tcbStatus: "OutOfDate" }))).to.equal("TcbNotAccepted");
      expect(await decisionNow(serviceId, machineOf(V1, { tcbStatus: "Revoked" }))).to.equal("TcbNotAccepted");
      expect(await decisionNow(serviceId, machineOf(V1, { tcbStatus: "SWHardeningNeeded" }))).to.equal("Allowed");
    });

    it("keeps no answer for another TCB status, device, image, platform or service than was asked for", async () => {
      const { decider } = await nodeNow();
      const ask = async (changes: Partial<MachineFacts> = {}, id = serviceId) =>
        (await decider.decide({ serviceId: id, machine: machineOf(V1, changes) })).decision;
      const other = await createService(chain.suite, "not the same", { image: V2 });
      await chain.finalize();
      await decider.refresh();
      for (const again of [1, 2]) {
        expect(await ask(), `${again}`).to.equal("Allowed");
        expect(await ask({ tcbStatus: "OutOfDate" }), `${again}`).to.equal("TcbNotAccepted");
        expect(await ask({ registers: machineOf(V2).registers })).to.equal("ImageUnknown");
        expect(await ask({}, other)).to.equal("ImageUnknown");
        const hinted = { serviceId, machine: machineOf(V2), image: V2 as Hex };
        expect((await decider.decide(hinted)).decision).to.equal("ImageUnknown");
        const elsewhere = { serviceId: other, machine: machineOf(V1), image: V1 as Hex };
        expect((await decider.decide(elsewhere)).decision).to.equal("ImageUnknown");
        const platform = image(KIND.tdx, { 0: measured("mrtd") }) as Hex;
        const loose = { serviceId, machine: machineOf(V1), platform };
        expect((await decider.decide(loose)).decision).to.equal("PlatformNotAllowed");
      }
    });

    describe("and a hint", () => {
      it("that is registered and that the machine is not, denies: what is registered is not what runs", async () => {
        const hints = { image: V1 as Hex, platform: PLATFORM.tdx as Hex };
        expect(await decisionNow(serviceId, machineOf(V2), hints)).to.equal("ImageUnknown");
        expect(await decisionNow(serviceId, machineOf(V2), { image: V1 as Hex })).to.equal("ImageUnknown");
        // Of this platform everything that the image names is the machine's, and one register is not.
        const seam = image(KIND.tdx, {
          ...{ 0: measured("mrtd"), 2: measured("rtmr1"), 3: measured("rtmr2") },
          5: measured("another mr_seam"),
        });
        await policyBy("governor").allowPlatform(seam, "with another TDX module");
        await chain.finalize();
        const machine = machineOf(V1);
        expect(await decisionNow(serviceId, machine, { platform: seam })).to.equal("PlatformNotAllowed");
        const there = { ...machine.registers, mr_seam: measured("another mr_seam") as Hex };
        expect(await decisionNow(serviceId, { ...machine, registers: there }, { platform: seam })).to.equal("Allowed");
        expect(await decisionNow(serviceId, machineOf(V1, { kind: "snp" }), hints)).to.equal("ImageUnknown");
      });
      it("that is the image and the platform, allows without reading histories", async () => {
        const provider = liar(chain.provider);
        const { decider } = await nodeNow([provider]);
        const question = { serviceId, machine: machineOf(V1), image: V1 as Hex, platform: PLATFORM.tdx as Hex };
        expect((await decider.decide(question)).decision).to.equal("Allowed");
        expect(provider.counts.get("eth_getLogs")).to.equal(undefined);
      });
      it("that the machine is not, denies", async () => {
        expect(await decisionNow(serviceId, machineOf(V1), { image: V2 })).to.equal("ImageUnknown");
        const platform = image(KIND.tdx, { 0: measured("another mrtd") });
        expect(await decisionNow(serviceId, machineOf(V1), { platform })).to.equal("PlatformNotAllowed");
      });
      it("that the machine is and that nobody registered, denies", async () => {
        expect(await decisionNow(serviceId, machineOf(V2), { image: V2 })).to.equal("ImageUnknown");
        const platform = image(KIND.tdx, { 0: measured("mrtd") });
        expect(await decisionNow(serviceId, machineOf(V1), { platform })).to.equal("PlatformNotAllowed");
      });
      it("that is no image, is an error about the hint", async () => {
        expect(await codeOf(decideNow(serviceId, machineOf(V1), { image: "0x01" }))).to.equal("image/wrong-length");
        expect(await codeOf(decideNow(serviceId, machineOf(V1), { image: "0x0" }))).to.equal("hex/malformed");
        const none = image(KIND.tdx, { 1: measured("rtmr0") });
        expect(await codeOf(decideNow(serviceId, machineOf(V1), { image: none }))).to.equal("image/missing-registers");
      });
    });
  });

  describe("given machines of every kind", () => {
    for (const [kind, bytes] of [
      ["snp", snpImage("app")],
      ["nitro", nitroImage("app")],
    ] as const) {
      it(`allows ${kind} where its platform is allowed`, async () => {
        const serviceId = await createService(chain.suite, kind, { image: bytes });
        await chain.finalize();
        const machine = machineOf(bytes);
        // The SNP test platform names another measurement than the image: a machine has one.
        if (kind === "snp") {
          expect(await decisionNow(serviceId, machine)).to.equal("PlatformNotAllowed");
          await policyBy("governor").allowPlatform(bytes, "the same measurement");
          await chain.finalize();
        }
        expect(await decisionNow(serviceId, machine)).to.equal("Allowed");
      });
    }
  });

  describe("given an upgrade of a service", () => {
    let serviceId: Hex;
    let decider: Decider;
    let clock: { now: number };
    const ask = async (bytes: string): Promise<ReleaseDecision> => {
      await decider.refresh();
      return decider.decide({ serviceId, machine: machineOf(bytes) });
    };
    before(async () => {
      serviceId = await createService(chain.suite, "upgraded");
      await chain.finalize();
      ({ decider, clock } = await nodeNow());
      expect((await ask(V1)).decision).to.equal("Allowed");
    });
    const sync = async () => {
      clock.now = await chain.time();
    };

    it("when an image is new, knows it once it is final, and then waits for its notice", async () => {
      await asAdmin(chain.suite).addImageToService(serviceId, V2, "second");
      expect((await ask(V2)).decision).to.equal("ImageUnknown");
      await chain.finalize();
      expect((await ask(V2)).decision).to.equal("ImagePending");
    });
    it("when the notice is over, allows only from the finalized block on that says so", async () => {
      await chain.pass(NOTICE);
      await sync();
      expect((await ask(V2)).decision).to.equal("ImagePending");
      await chain.finalize();
      await sync();
      const both = await Promise.all([ask(V2), ask(V1)]);
      expect(both.map(({ decision }) => decision)).to.deep.equal(["Allowed", "Allowed"]);
    });
    it("when keys are rotated, gives the new epoch once it is final", async () => {
      await asAdmin(chain.suite).rotateServiceKey(serviceId);
      expect((await ask(V2)).keyEpoch).to.equal(0);
      await chain.finalize();
      expect((await ask(V2)).keyEpoch).to.equal(1);
    });
    it("when the old image is retired, denies when its end has come by the clock, before any block says so", async () => {
      await sync();
      const until = clock.now + 600;
      await asAdmin(chain.suite).retireImageFromService(serviceId, imageId(V1), until);
      await chain.finalize();
      expect((await ask(V1)).decision).to.equal("Allowed");
      clock.now = until - 1;
      expect((await ask(V1)).allowed).to.equal(true);
      clock.now = until;
      const denied = await decider.decide({ serviceId, machine: machineOf(V1) });
      expect(denied).to.include({ allowed: false, decision: "ImageRetired" });
      expect(denied.basis.tightenedBy).to.equal("clock");
      await chain.pass(600);
      await chain.finalize();
      const final = await ask(V1);
      expect(final.decision).to.equal("ImageRetired");
      expect(final.basis.tightenedBy).to.equal(undefined);
    });
    it("when an image is removed, denies at the next look, long before that is final", async () => {
      await asAdmin(chain.suite).removeImageFromService(serviceId, imageId(V2), "broken");
      const denied = await ask(V2);
      expect(denied).to.include({ allowed: false, decision: "ImageRemoved" });
      expect(denied.basis.tightenedBy).to.equal("head");
      expect(denied.basis.head?.number).to.be.greaterThan(denied.basis.block.number);
      await chain.finalize();
      expect((await ask(V2)).basis.tightenedBy).to.equal(undefined);
    });
    it("when a removed image is listed again, stays denied until its notice is over", async () => {
      await asAdmin(chain.suite).addImageToService(serviceId, V2, "again");
      expect((await ask(V2)).decision).to.equal("ImageRemoved");
      await chain.finalize();
      expect((await ask(V2)).decision).to.equal("ImagePending");
    });
  });

  describe("given what the policy takes away", () => {
    let serviceId: Hex;
    let decider: Decider;
    before(async () => {
      serviceId = await createService(chain.suite, "policy");
      await chain.finalize();
      ({ decider } = await nodeNow());
    });
    const ask = async () => {
      await decider.refresh();
      return (await decider.decide({ serviceId, machine: machineOf(V1) })).decision;
    };
    const steps: readonly (readonly [string, string, () => Promise<unknown>, () => Promise<unknown>])[] = [
      [
        "a TEE kind",
        "TeeSuspended",
        () => policyBy("guardian").suspendTee(KIND.tdx, "broken"),
        () => policyBy("governor").enableTee(KIND.tdx),
      ],
      [
        "a TCB status",
        "TcbNotAccepted",
        () => policyBy("guardian").rejectTcb(KIND.tdx, 1),
        () => policyBy("governor").acceptTcb(KIND.tdx, 1),
      ],
      [
        "a platform",
        "PlatformNotAllowed",
        () => policyBy("guardian").revokePlatform(imageId(PLATFORM.tdx), "broken"),
        () => policyBy("governor").allowPlatform(PLATFORM.tdx, "mended"),
      ],
      [
        "machines that it does not list",
        "DeviceNotAllowed",
        () => policyBy("guardian").restrictDevices(KIND.tdx),
        () => policyBy("governor").allowDevice(KIND.tdx, DEVICE.one),
      ],
      [
        "every release, for a while",
        "ReleasePaused",
        () => policyBy("guardian").pauseRelease(3600, "incident"),
        () => policyBy("governor").resumeRelease(),
      ],
    ];
    for (const [what, decision, take, give] of steps) {
      it(`when it is ${what}, denies at the next look, and allows again only once that is final`, async () => {
        expect(await ask()).to.equal("Allowed");
        await take();
        expect(await ask()).to.equal(decision);
        await chain.finalize();
        expect(await ask()).to.equal(decision);
        await give();
        expect(await ask()).to.equal(decision);
        await chain.finalize();
        expect(await ask()).to.equal("Allowed");
      });
    }
    it("tells machines apart where devices are restricted", async () => {
      await decider.refresh();
      const other = machineOf(V1, { deviceId: DEVICE.two as Hex });
      expect((await decider.decide({ serviceId, machine: other })).decision).to.equal("DeviceNotAllowed");
      expect(await ask()).to.equal("Allowed");
      await policyBy("governor").unrestrictDevices(KIND.tdx);
      await chain.finalize();
    });
    it("tells machines apart where the service lists them", async () => {
      const own = await createService(chain.suite, "devices", { devices: [DEVICE.one] });
      await chain.finalize();
      expect(await decisionNow(own)).to.equal("Allowed");
      const other = machineOf(V1, { deviceId: DEVICE.two as Hex });
      expect(await decisionNow(own, other)).to.equal("ServiceDeviceNotAllowed");
    });
  });

  describe("given several images that a machine is", () => {
    it("takes the one that is allowed, else the one that got furthest", async () => {
      const wide = image(KIND.tdx, {
        0: measured("mrtd"),
        2: measured("rtmr1"),
        3: measured("rtmr2"),
        4: measured("rtmr3 of v1"),
      });
      const serviceId = await createService(chain.suite, "several", { image: wide });
      await asAdmin(chain.suite).addImageToService(serviceId, V1, "the same machine, told more closely");
      await chain.finalize();
      expect(await decideNow(serviceId)).to.include({ decision: "Allowed", imageId: imageId(wide) });
      await asAdmin(chain.suite).removeImageFromService(serviceId, imageId(wide), "too wide");
      await chain.finalize();
      expect(await decideNow(serviceId)).to.include({ decision: "ImagePending", imageId: imageId(V1) });
    });
  });

  describe("given a KMS node", () => {
    const node = tdxImage("kms node");
    const ask = async () => (await nodeNow()).decider.decideKms({ machine: machineOf(node) });
    it("denies until the policy allows its image, and from the moment that it no longer does", async () => {
      expect(await ask()).to.include({ allowed: false, decision: "KmsImageNotAllowed", imageId: undefined });
      await policyBy("governor").allowKmsImage(node, "our node");
      expect((await ask()).decision).to.equal("KmsImageNotAllowed");
      await chain.finalize();
      const allowed = await ask();
      expect(allowed).to.include({ allowed: true, decision: "Allowed", imageId: imageId(node) });
      expect(allowed.historyHead).to.equal(await chain.suite.policy.historyHead());
      expect(allowed.basis.confirmedBy).to.deep.equal(["a"]);
      await policyBy("guardian").revokeKmsImage(imageId(node), "lost");
      expect((await ask()).decision).to.equal("KmsImageNotAllowed");
    });
  });

  describe("given what can't be checked", () => {
    it("when endpoints are silent, goes on for a while and then says so", async () => {
      const serviceId = await createService(chain.suite, "silence");
      await chain.finalize();
      let silent = false;
      const told: string[] = [];
      const provider = liar(chain.provider, (_method, answer) => {
        if (silent) throw { code: -32000, message: "no" };
        return answer;
      });
      const { decider, clock } = await makeDecider(chain, [provider], {
        maxAgeSeconds: FOREVER,
        maxSilenceSeconds: 60,
        pollSeconds: 60,
        onError: ({ code }) => told.push(code),
        onRecovery: () => told.push("recovered"),
      });
      const ask = () => decider.decide({ serviceId, machine: machineOf(V1) });
      expect((await ask()).allowed).to.equal(true);
      silent = true;
      clock.now += 60;
      expect((await ask()).allowed).to.equal(true);
      expect(decider.status()).to.include({ ready: true, reason: undefined });
      clock.now += 1;
      expect(await codeOf(ask())).to.equal("chain/unreachable");
      expect(decider.status()).to.include({ ready: false, reason: "chain/unreachable" });
      silent = false;
      clock.now += 2;
      expect((await ask()).allowed).to.equal(true);
      expect(decider.status().ready).to.equal(true);
      expect(told.at(-1)).to.equal("recovered");
      expect(told.slice(0, -1)).to.satisfy(
        (codes: string[]) => codes.length > 0 && codes.every((code) => code === "chain/unreachable"),
      );
    });

    it("when looking takes longer than silence may last, does not take what it saw for new", async () => {
      const serviceId = await createService(chain.suite, "slow");
      await chain.finalize();
      let slowness = 50;
      const time = { now: await chain.time() };
      const provider = liar(chain.provider, (method, answer, [tag]) => {
        if (method === "eth_getBlockByNumber" && tag === "latest") time.now += slowness;
        return answer;
      });
      const { decider } = await makeDecider(chain, [provider], {
        maxAgeSeconds: FOREVER,
        maxSilenceSeconds: 60,
        pollSeconds: 60,
        clock: () => time.now,
      });
      const ask = () => decider.decide({ serviceId, machine: machineOf(V1) });
      expect((await ask()).allowed).to.equal(true);
      slowness = 61;
      time.now += 20;
      expect(await codeOf(ask())).to.equal("chain/unreachable");
      expect(decider.status()).to.include({ ready: false, reason: "chain/unreachable" });
      slowness = 0;
      expect((await ask()).allowed).to.equal(true);
    });

    it("when the contract's own answer is slow in coming, does not hold up a new view, and so a denial, for it", async () => {
      const serviceId = await createService(chain.suite, "held up");
      await chain.finalize();
      let slow = false;
      const provider = liar(chain.provider, async (method, answer) => {
        if (slow && method === "eth_call") await new Promise((resolve) => setTimeout(resolve, 4_000));
        return answer;
      });
      const { decider } = await makeDecider(chain, [provider], { maxAgeSeconds: FOREVER, maxSilenceSeconds: 0.2 });
      expect((await decider.decide({ serviceId, machine: machineOf(V1) })).allowed).to.equal(true);
      const before = decider.status().block?.number ?? 0;
      await chain.finalize();
      slow = true;
      const start = performance.now();
      await decider.refresh();
      expect(performance.now() - start).to.be.lessThan(3_500);
      expect(decider.status().block?.number).to.be.greaterThan(before);
    });

    for (const [which, state] of [
      ["finalized", "lies"],
      ["latest", "unreachable"],
    ] as const) {
      it(`when an endpoint proves another state than the ${which} block's, says of it that it ${state}`, async () => {
        const honest = chain.provider;
        const provider = liar(honest, async (method, answer, params) => {
          const block = (await honest.request({ method: "eth_getBlockByNumber", params: [which, false] })) as {
            number: string;
          };
          if (method !== "eth_getProof" || params[2] !== block.number) return answer;
          return honest.request({ method, params: [params[0], params[1], "0x8"] });
        });
        const { decider } = await nodeNow([provider, honest, honest]);
        await decider.refresh();
        expect(decider.status().endpoints[0]?.state).to.equal(state);
        const { decider: alone } = await nodeNow([provider]);
        expect(await codeOf(alone.refresh())).to.equal("chain/unproven");
        expect(alone.status().endpoints[0]?.state).to.equal(state);
      });
    }

    it("when the finalized block is too old, refuses although the endpoints answer", async () => {
      const serviceId = await createService(chain.suite, "stale");
      await chain.finalize();
      // So that no look at the chain comes between: what is known must be too old by itself.
      const patient = { pollSeconds: FOREVER, maxSilenceSeconds: FOREVER };
      const { decider, clock } = await makeDecider(chain, [chain.provider], { maxAgeSeconds: 100, ...patient });
      const ask = () => decider.decide({ serviceId, machine: machineOf(V1) });
      expect((await ask()).allowed).to.equal(true);
      clock.now += 200;
      expect(await codeOf(ask())).to.equal("chain/stale");
      expect(decider.status()).to.include({ ready: false, reason: "chain/stale" });
    });

    it("when the contract was upgraded to code that is not pinned, refuses before that is final, and answers once it is pinned", async () => {
      const { suite } = chain;
      const serviceId = await createService(suite, "upgrade");
      await chain.finalize();
      const { decider } = await nodeNow();
      const ask = () => decider.decide({ serviceId, machine: machineOf(V1) });
      expect((await ask()).allowed).to.equal(true);
      // The same contract again: other immutables, and so other code.
      const next = await deploy(chain.connection, "KmsRegistry", [await suite.policy.getAddress()]);
      await suite.registry.connect(suite.governor).upgradeToAndCall(next, "0x");
      expect(await codeOf(decider.refresh())).to.equal("chain/unknown-implementation");
      expect(await codeOf(ask())).to.equal("chain/unknown-implementation");
      expect(decider.status()).to.include({ ready: false, reason: "chain/unknown-implementation" });
      await chain.finalize();
      expect(await codeOf(ask())).to.equal("chain/unknown-implementation");
      const pinned = await pinSuite(suite);
      const { decider: upgraded } = await makeDecider({ ...chain, deployment: pinned }, [chain.provider], {
        maxAgeSeconds: FOREVER,
      });
      expect((await upgraded.decide({ serviceId, machine: machineOf(V1) })).allowed).to.equal(true);
    });

    it("when a pinned code hash is another, refuses: the proxy's own, and its implementation's", async () => {
      const pinned = await pinSuite(chain.suite);
      const wrong = bytes32("another code") as Hex;
      const { registry } = pinned;
      const implementations = registry.implementations.map((each) => ({ ...each, codeHash: wrong }));
      for (const changed of [
        { ...registry, codeHash: wrong },
        { ...registry, implementations },
        { ...registry, implementations: [] },
      ]) {
        const { decider } = await makeDecider({ ...chain, deployment: { ...pinned, registry: changed } }, [
          chain.provider,
        ]);
        expect(await codeOf(decider.refresh())).to.equal("chain/unknown-implementation");
      }
    });
  });

  describe("once made", () => {
    it("cost no call until the chain moves, and are ready when it has", async () => {
      chain = { ...chain, deployment: await pinSuite(chain.suite) };
      const serviceId = await createService(chain.suite, "fast");
      await chain.finalize();
      const provider = liar(chain.provider);
      const { decider } = await nodeNow([provider]);
      const machine = machineOf(V1);
      const calls = () => [...provider.counts.values()].reduce((sum, count) => sum + count, 0);
      await decider.decide({ serviceId, machine });
      const made = calls();
      for (let device = 0; device < 100; device++) {
        const other = { ...machine, deviceId: bytes32(`device ${device}`) as Hex };
        expect((await decider.decide({ serviceId, machine: other })).allowed).to.equal(true);
      }
      expect(calls()).to.equal(made);
      await chain.finalize();
      await decider.refresh();
      const refreshed = calls();
      const decision = await decider.decide({ serviceId, machine });
      expect(decision.basis.confirmedBy).to.deep.equal(["a"]);
      expect(calls()).to.equal(refreshed);
    });
    it("denied, are not asked again when the chain moves: whoever asks about anything makes no standing work", async () => {
      const serviceId = await createService(chain.suite, "warm");
      await chain.finalize();
      const provider = liar(chain.provider);
      const { decider } = await nodeNow([provider]);
      const calls = () => [...provider.counts.values()].reduce((sum, count) => sum + count, 0);
      const moved = async () => {
        await chain.finalize();
        const before = calls();
        await decider.refresh();
        return calls() - before;
      };
      await moved(); // the first look is at more
      const idle = await moved();
      for (let at = 0; at < 5; at++) {
        const invented = { ...machineOf(V1), tcbStatus: "Revoked" } as const;
        expect((await decider.decide({ serviceId, machine: invented })).allowed).to.equal(false);
      }
      expect(await moved()).to.equal(idle);
      await decider.decide({ serviceId, machine: machineOf(V1) });
      expect(await moved()).to.be.greaterThan(idle);
    });
    it("not at all: whether a service exists costs one proof", async () => {
      const provider = liar(chain.provider);
      const { decider } = await nodeNow([provider]);
      await decider.refresh();
      const proofs = () => provider.counts.get("eth_getProof") ?? 0;
      expect(await decider.serviceExists(`0x${"01".repeat(20)}`)).to.equal(false);
      const before = proofs();
      for (let at = 2; at < 7; at++) {
        expect(await decider.serviceExists(`0x${`0${at}`.repeat(20)}`)).to.equal(false);
        expect(proofs() - before).to.equal(at - 1);
      }
      expect(await decider.serviceExists(`0x${"02".repeat(20)}`)).to.equal(false);
      expect(proofs() - before).to.equal(5);
    });
    it("take microseconds", async () => {
      const serviceId = await createService(chain.suite, "faster");
      await chain.finalize();
      const { decider } = await nodeNow();
      const machine = machineOf(V1);
      await decider.decide({ serviceId, machine });
      const rounds = 5000;
      const start = process.cpuUsage();
      for (let at = 0; at < rounds; at++) await decider.decide({ serviceId, machine });
      const { user, system } = process.cpuUsage(start);
      console.log(`      ${((user + system) / rounds).toFixed(1)} µs of CPU a decision`);
      expect((user + system) / rounds).to.be.lessThan(300);
    });
    it("are refreshed in the background until stopped", async () => {
      const provider = liar(chain.provider);
      const { decider } = await makeDecider(chain, [provider], { maxAgeSeconds: FOREVER, pollSeconds: 0.02 });
      const looks = () => provider.counts.get("eth_getBlockByNumber") ?? 0;
      const until = async (enough: () => boolean) => {
        while (!enough()) await new Promise((resolve) => setTimeout(resolve, 10));
      };
      decider.start();
      decider.start();
      await until(() => looks() >= 6);
      const before = decider.status().block?.number ?? 0;
      await chain.finalize();
      await until(() => (decider.status().block?.number ?? 0) > before);
      await decider.stop();
      const stopped = looks();
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(looks()).to.equal(stopped);
    });
  });
});
