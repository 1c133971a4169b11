import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { HardhatEthersSigner } from "@nomicfoundation/hardhat-ethers/types";
import { expect } from "chai";
import { keccak256 } from "ethers";
import { acquireKeys } from "../../src/agent/acquire.ts";
import { type AgentChain, checkRelease, fetchKmsIdentities, fetchService } from "../../src/agent/chain-trust.ts";
import { connect } from "../../src/chain/client.ts";
import { type Hex, toHex } from "../../src/core/bytes.ts";
import { isKeysteadError, type KeysteadError } from "../../src/core/errors.ts";
import { infoSchema, type NodeInfo, parseMessage } from "../../src/core/release-wire.ts";
import { createFileRootStore } from "../../src/node/keys.ts";
import { type CliRun, errorCodeOf, jsonOf, keysteadAsync } from "../helpers/cli.ts";
import {
  type DeliveryWorld,
  E2E_PLATFORM,
  KMS_IMAGE,
  type NodeProcess,
  PASSPHRASE,
  POLICY,
  serviceConfig,
  startDeliveryWorld,
  versionOf,
  waitUntil,
} from "../helpers/delivery-world.ts";
import { imageId, KIND } from "../helpers/images.ts";
import { NOTICE } from "../helpers/suite.ts";
import type { Machine } from "../helpers/tee-server.ts";

const ENV = "DATABASE_PASSWORD=correct-horse\nMODE=production\n";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Keys by `purpose/key epoch/root epoch`, in hex. */
type Keys = Readonly<Record<string, string>>;

/*
 * The whole way, with nothing pretended but the hardware: anvil, real Safes and a timelock, `keystead node` and `keystead agent` as processes, test TEEs of all three
 * kinds. One story in order: each part begins where the one before ended.
 */
describe("key delivery, end to end", function () {
  this.timeout(600_000);
  let world: DeliveryWorld;
  let chain: AgentChain;
  let node: NodeProcess;
  let second: NodeProcess | undefined;
  let info: NodeInfo;
  let admin: HardhatEthersSigner;
  let serviceId: Hex;
  let first: Keys;
  let rotated: Keys;
  /** Everything secret that was seen, to be looked for in everything that was printed. */
  const secrets = new Set<string>();
  const printed: string[] = [];
  const machines = new Map<string, Machine>();

  const machine = (kind: keyof typeof E2E_PLATFORM, version: string): Machine => {
    const image = versionOf(kind, version);
    const known = machines.get(image) ?? world.hall.machine(image, E2E_PLATFORM[kind]);
    machines.set(image, known);
    return known;
  };
  const salt = (label: string) => keccak256(Buffer.from(label));
  const own = () => world.registry.connect(admin);
  const signers = async () =>
    new Set((await fetchKmsIdentities(chain, world.addresses.policy)).map(({ receiptSigner }) => receiptSigner));

  /** What a machine gets, by a node that has seen everything up to now; a refusal is an error. */
  async function ask(
    { device }: Machine,
    service: Hex = serviceId,
    options: { readonly nodes?: readonly string[]; readonly final?: boolean } = {},
  ): Promise<Keys> {
    const { nodes = [node.url], final = true } = options;
    if (final) await world.finalize();
    const seen = (await world.head()) - 2;
    const said: string[] = [];
    return waitUntil(`the node has seen block ${seen}`, async () => {
      let block: bigint | undefined;
      let found: Keys | KeysteadError;
      try {
        const trust = { chainId: world.chainId, registry: world.addresses.registry, signers, allowTestTee: true };
        const opened = await acquireKeys({
          ...{ nodes, device, serviceId: service, trust, waitSeconds: 0 },
          log: (line) => said.push(line),
          check: async ({ release }) => checkRelease(chain, release, await fetchService(chain, service)),
        });
        const keys = opened.bundle.keys.map(({ purpose, keyEpoch, rootEpoch, key }) => {
          secrets.add(toHex(key).slice(2)).add(Buffer.from(key).toString("base64"));
          return [`${purpose}/${keyEpoch}/${rootEpoch}`, toHex(key)] as const;
        });
        block = opened.release.blockNumber;
        found = Object.fromEntries(keys);
      } catch (error) {
        if (!isKeysteadError(error)) throw error;
        if (error.retryable && error.code !== "agent/denied") return undefined;
        const { block: at } = error.details as { readonly block?: { readonly number: string } };
        block = at === undefined ? undefined : BigInt(at.number);
        found = error;
      }
      // an answer by an older block may be another one; what tightens counts before it is final
      if (final && block !== undefined && block < BigInt(seen)) return undefined;
      return [found] as const;
    }).then(([found]) => {
      if (isKeysteadError(found)) throw found;
      return found;
    });
  }

  /** The contracts' decision about a machine that gets nothing. */
  async function denied(...args: Parameters<typeof ask>): Promise<unknown> {
    try {
      await ask(...args);
    } catch (error) {
      if (isKeysteadError(error, "agent/denied")) return error.details.decision;
      throw error;
    }
    return "released";
  }

  /** A denial that counts at once: no block is made final, the node hears of the newest. */
  const deniedAtOnce = (decision: string, who: Machine, service: Hex = serviceId) =>
    waitUntil(decision, async () => {
      const found = await denied(who, service, { final: false });
      return found === "released" ? undefined : found;
    });

  /** `keystead agent` as a process, with a device command. */
  async function agent({ command: [program, ...rest] }: Machine, ...args: readonly string[]): Promise<CliRun> {
    const trust = ["--rpc", world.rpc, "--deployment", world.record, "--max-age", "9999999", "--allow-test-tee"];
    const device = ["--command", program, ...rest.flatMap((argument) => ["--command-arg", argument])];
    const done = await keysteadAsync(["agent", ...trust, ...device, "--wait", "60", ...args]);
    printed.push(done.stderr);
    return done;
  }

  before(async () => {
    world = await startDeliveryWorld();
    const client = await connect(world.rpc, { chainId: 31337 });
    chain = { client, registry: world.addresses.registry, read: {}, acceptUnproven: false };
    const [, , , , , , , operator] = await world.accounts();
    if (operator === undefined) throw new Error("no account");
    admin = operator;
    const config = world.configure("one");
    const made = await world.node(config, "init");
    expect(made.code, made.stderr).to.equal(0);
    node = await world.startNode(config);
    info = parseMessage(infoSchema, await (await fetch(`${node.url}/v1/info`)).text(), "info");
  });
  after(() => world?.stop());

  describe("given a node that takes test roots", () => {
    it("says so loudly, in /v1/info and in its log, and passes its own check", async () => {
      expect(info.testTee).to.equal(true);
      expect(info.warning).to.match(/TEST ROOTS/);
      expect(node.output()).to.match(/TEST ROOTS/);
      const checked = await world.node(world.configure("one"), "check");
      expect(checked.code, checked.stdout + checked.stderr).to.equal(0);
    });

    it("is refused by machines until the policy publishes its identity", async () => {
      await (await own().createService(serviceConfig(admin.address), salt("main"))).wait();
      serviceId = (await world.registry.serviceIdFor(admin.address, salt("main"))).toLowerCase() as Hex;
      expect(await denied(machine("tdx", "v1"))).to.equal("ImageUnknown");
      await (await own().addImageToService(serviceId, versionOf("tdx", "v1"), "v1")).wait();
      const refused = await ask(machine("tdx", "v1")).catch((error: unknown) => error);
      expect(isKeysteadError(refused) && refused.code).to.equal("receipt/untrusted-signer");
      const { rootEpoch, environmentKey, receiptSigner } = info;
      const identity = { rootEpoch, environmentKey, receiptSigner, evidenceHash: salt("evidence of the node") };
      await world.govern(POLICY.encodeFunctionData("publishKmsIdentity", [identity]));
    });
  });

  describe("given a service", () => {
    it("gives the active image its keys, and nobody else", async () => {
      first = await ask(machine("tdx", "v1"));
      expect(Object.keys(first).sort()).to.deep.equal(["application/0/0", "disk/0/0", "env/0/0", "identity-k256/0/0"]);
      expect(await denied(machine("tdx", "another"))).to.equal("ImageUnknown");
      expect(await denied(machine("tdx", "v1"), `0x${"99".repeat(20)}`)).to.equal("ServiceUnknown");
    });

    it("denies a pending image with the on-chain decision, and gives it the same keys after the notice period", async () => {
      for (const kind of ["tdx", "snp", "nitro"] as const)
        await (await own().addImageToService(serviceId, versionOf(kind, "v2"), "v2")).wait();
      for (const kind of ["tdx", "snp", "nitro"] as const)
        expect(await denied(machine(kind, "v2")), kind).to.equal("ImagePending");
      await world.pass(NOTICE);
      for (const kind of ["tdx", "snp", "nitro"] as const)
        expect(await ask(machine(kind, "v2")), kind).to.deep.equal(first);
    });

    it("denies the retired image", async () => {
      const now = (await chain.client.request("eth_getBlockByNumber", ["latest", false])) as { timestamp: string };
      await (
        await own().retireImageFromService(serviceId, imageId(versionOf("tdx", "v1")), Number(now.timestamp) + 60)
      ).wait();
      await world.pass(61);
      expect(await denied(machine("tdx", "v1"))).to.equal("ImageRetired");
      expect(await ask(machine("tdx", "v2"))).to.deep.equal(first);
    });

    it("denies a removed image at once, before its removal is final", async () => {
      await (await own().removeImageFromService(serviceId, imageId(versionOf("nitro", "v2")), "a hole")).wait();
      expect(await deniedAtOnce("ImageRemoved", machine("nitro", "v2"))).to.equal("ImageRemoved");
      expect(await ask(machine("tdx", "v2"))).to.deep.equal(first);
    });

    it("denies a whole TEE kind once the guardian suspends it, and the others not", async () => {
      await world.guard(POLICY.encodeFunctionData("suspendTee", [KIND.snp, "broken"]));
      expect(await deniedAtOnce("TeeSuspended", machine("snp", "v2"))).to.equal("TeeSuspended");
      expect(await ask(machine("tdx", "v2"))).to.deep.equal(first);
      await world.govern(POLICY.encodeFunctionData("enableTee", [KIND.snp]));
      expect(await ask(machine("snp", "v2"))).to.deep.equal(first);
    });

    it("gives the keys of both epochs after a rotation", async () => {
      world.folder.write("old-key.json", await (await fetch(`${node.url}/v1/secrets-key/${serviceId}`)).text());
      await (await own().rotateServiceKey(serviceId)).wait();
      rotated = await ask(machine("tdx", "v2"));
      expect(Object.keys(rotated)).to.have.length(8);
      expect(rotated).to.include(first);
      const values = Object.values(rotated);
      expect(new Set(values).size).to.equal(values.length);
    });
  });

  describe("given keystead agent in the machine, as a process", () => {
    it("hands over what the service sealed and published, and the keys", async () => {
      const [file, sealed] = [world.folder.write(".env", ENV), join(world.folder.path, "sealed.json")];
      const trust = ["--rpc", world.rpc, "--deployment", world.record, "--max-age", "9999999", "--allow-test-tee"];
      const done = await keysteadAsync([
        "secrets",
        "seal",
        file,
        "--service",
        serviceId,
        "--node",
        node.url,
        "--out",
        sealed,
        ...trust,
      ]);
      expect(done.code, done.stderr).to.equal(0);
      printed.push(done.stdout, done.stderr, readFileSync(sealed, "utf8"));
      const { to, calldata, keyEpoch } = JSON.parse(readFileSync(sealed, "utf8"));
      expect(keyEpoch).to.equal(1);
      const old = ["--service", serviceId, "--key", join(world.folder.path, "old-key.json")];
      const before = await keysteadAsync(["--json", "secrets", "seal", file, ...old, ...trust]);
      expect(errorCodeOf(before)).to.equal("secrets/old-epoch");
      await (await admin.sendTransaction({ to, data: calldata })).wait();
      await world.finalize();

      const at = (name: string) => join(world.folder.path, name);
      const wanted = [
        ...["--service", serviceId, "--node", node.url, "--out", at("keys.json"), "--all-epochs"],
        ...["--secret", `env=${at("secrets.env")}`, "--environment", at("app.env"), "--receipt", at("receipt.json")],
      ];
      const early = await agent(machine("snp", "v2"), ...wanted);
      expect(early.stderr, "secrets wait out the notice period").to.match(/no secrets in force under "env" yet/);
      await world.pass(NOTICE);
      await world.finalize();
      const run = await agent(machine("snp", "v2"), ...wanted);
      expect(run.code, run.stderr).to.equal(0);
      const keys = JSON.parse(readFileSync(at("keys.json"), "utf8"));
      expect(keys).to.include({ service_id: serviceId, key_epoch: 1 });
      for (const { purpose, key_epoch, root_epoch, key } of keys.keys)
        expect(rotated[`${purpose}/${key_epoch}/${root_epoch}`]).to.equal(`0x${key}`);
      expect(keys.keys).to.have.length(8);
      expect(readFileSync(at("secrets.env"), "utf8")).to.equal(ENV);
      expect(readFileSync(at("app.env"), "utf8"))
        .to.match(/^KEYSTEAD_KEY_DISK=[0-9a-f]{64}$/m)
        .and.to.contain(ENV);
      for (const name of ["keys.json", "secrets.env", "app.env"])
        expect(statSync(at(name)).mode & 0o777).to.equal(0o600);
      const receipt = JSON.parse(readFileSync(at("receipt.json"), "utf8"));
      expect(receipt).to.include({ testTee: true, signer: info.receiptSigner });
      expect(receipt.message.imageId).to.equal(imageId(versionOf("snp", "v2")));
      const listed = await (await fetch(`${node.url}/v1/receipts`)).json();
      expect(JSON.stringify(listed)).to.contain(receipt.digest);
    });

    it("waits out the notice period of a pending image, says so, and gets the same keys", async () => {
      await (await own().addImageToService(serviceId, versionOf("tdx", "v3"), "v3")).wait();
      await world.finalize();
      const [program, ...rest] = machine("tdx", "v3").command;
      const out = join(world.folder.path, "waited.json");
      const running = world.spawn([
        ...["agent", "--service", serviceId, "--node", node.url, "--out", out, "--purpose", "disk", "--wait", "300"],
        ...["--rpc", world.rpc, "--deployment", world.record, "--max-age", "9999999", "--allow-test-tee"],
        ...["--command", program, ...rest.flatMap((argument) => ["--command-arg", argument])],
      ]);
      await waitUntil("it says what it waits for", async () => running.output().includes("notice period") || undefined);
      expect(statSync(out, { throwIfNoEntry: false })).to.equal(undefined);
      await world.pass(NOTICE);
      await world.finalize();
      await waitUntil("it ends", async () => running.child.exitCode ?? undefined);
      expect(running.child.exitCode, running.output()).to.equal(0);
      expect(JSON.parse(readFileSync(out, "utf8")).keys[0].key).to.equal(rotated["disk/1/0"]?.slice(2));
      printed.push(running.output());
    });

    it("serves /vm_updates meanwhile, until it is ended", async () => {
      const { command } = machine("tdx", "v2");
      const [program, ...rest] = command;
      const out = join(world.folder.path, "served.json");
      const running = world.spawn([
        ...["agent", "--service", serviceId, "--node", node.url, "--out", out, "--vm-updates", "127.0.0.1:0"],
        ...["--rpc", world.rpc, "--deployment", world.record, "--max-age", "9999999", "--allow-test-tee"],
        ...["--command", program, ...rest.flatMap((argument) => ["--command-arg", argument])],
      ]);
      await waitUntil("the keys are there", async () => statSync(out, { throwIfNoEntry: false }));
      const [, url = ""] = /(http:\S+\/vm_updates)/.exec(running.output()) ?? [];
      const answer = JSON.parse(await (await fetch(url)).text());
      expect(answer).to.include({ service_id: serviceId, upgradeable: true });
      expect(answer.proof.verified).to.equal(true);
      expect(answer.history.map(({ event }: { event: string }) => event)).to.include("remove_image_from_service");
      expect(await running.stop()).to.equal(0);
      printed.push(running.output());
    });

    it("ends with 1 and the decision where it is denied", async () => {
      const out = join(world.folder.path, "never");
      const run = await agent(machine("tdx", "v1"), "--json", "--service", serviceId, "--node", node.url, "--out", out);
      expect(run.code, run.stderr).to.equal(1);
      expect(run.stderr).to.contain("ImageRetired");
      expect(statSync(out, { throwIfNoEntry: false })).to.equal(undefined);
    });

    it("refuses a test node unless it is told to take it", async () => {
      const { command } = machine("tdx", "v2");
      const [program, ...rest] = command;
      const run = await keysteadAsync([
        ...["--json", "agent", "--service", serviceId, "--node", node.url, "--out", join(world.folder.path, "never")],
        ...["--rpc", world.rpc, "--deployment", world.record, "--max-age", "9999999", "--wait", "0"],
        ...["--command", program, ...rest.flatMap((argument) => ["--command-arg", argument])],
      ]);
      expect(run.code).to.equal(2);
      expect(run.stderr).to.contain("receipt/test-tee");
    });
  });

  describe("given a service that is not upgradeable", () => {
    let sealedId: Hex;

    it("gives its one image keys, and opens the secrets that came with its creation", async () => {
      const file = world.folder.write("final.env", ENV);
      const args = [
        "--json",
        "secrets",
        "seal",
        file,
        "--creation",
        "--creator",
        admin.address,
        "--salt",
        salt("final"),
      ];
      const trust = ["--rpc", world.rpc, "--deployment", world.record, "--max-age", "9999999", "--allow-test-tee"];
      const done = await keysteadAsync([...args, "--node", node.url, ...trust]);
      expect(done.code, done.stderr).to.equal(0);
      const { ciphertext, serviceId: to } = jsonOf(done);
      const image = versionOf("nitro", "final");
      await (await own().addSecretKeyByImage(image, [], false, salt("final"), "final", ciphertext)).wait();
      sealedId = (await world.registry.serviceIdFor(admin.address, salt("final"))).toLowerCase() as Hex;
      expect(to).to.equal(sealedId);
      await world.finalize();
      const out = join(world.folder.path, "final.out");
      const run = await agent(
        machine("nitro", "final"),
        "--service",
        sealedId,
        "--node",
        node.url,
        "--secret",
        `=${out}`,
      );
      expect(run.code, run.stderr).to.equal(0);
      expect(readFileSync(out, "utf8")).to.equal(ENV);
    });

    it("denies a changed image for ever: nobody can add one, and no time changes it", async () => {
      expect(await denied(machine("nitro", "changed"), sealedId)).to.equal("ImageUnknown");
      const added = await own()
        .addImageToService.staticCall(sealedId, versionOf("nitro", "changed"), "")
        .then(
          () => "added",
          () => "reverted",
        );
      expect(added).to.equal("reverted");
      await world.pass(2 * NOTICE);
      expect(await denied(machine("nitro", "changed"), sealedId)).to.equal("ImageUnknown");
      const keys = await ask(machine("nitro", "final"), sealedId);
      for (const value of Object.values(keys)) expect(Object.values(rotated)).not.to.include(value);
    });
  });

  describe("given a second node", () => {
    it("gets the root by attestation as an image that the policy allows, and by no other", async () => {
      const config = world.configure("two");
      const join = (who: Machine) => {
        const [program, ...rest] = who.command;
        return world.node(
          config,
          ...["join", node.url, "--environment-key", info.environmentKey, "--receipt-signer", info.receiptSigner],
          ...["--evidence-command", program, ...rest.flatMap((argument) => ["--evidence-arg", argument])],
        );
      };
      const stranger = await join(machine("tdx", "v2"));
      expect(stranger.code).not.to.equal(0);
      expect(stranger.stderr).to.contain("KmsImageNotAllowed");
      const joined = await join(world.hall.machine(KMS_IMAGE, E2E_PLATFORM.tdx));
      expect(joined.code, joined.stderr).to.equal(0);
      second = await world.startNode(config);
    });

    it("releases the same keys, also to an agent whose first node is gone", async () => {
      if (second === undefined) throw new Error("no second node");
      const nodes = [second.url];
      expect(await ask(machine("tdx", "v2"), serviceId, { nodes })).to.deep.equal(rotated);
      for (const path of [
        "/metrics",
        "/v1/info",
        "/v1/receipts",
        `/v1/secrets-key/${serviceId}`,
        "/openapi.json",
        "/nothing",
      ])
        printed.push(await (await fetch(`${node.url}${path}`)).text());
      expect(await node.stop()).to.equal(0);
      const out = join(world.folder.path, "second.json");
      const run = await agent(
        machine("tdx", "v2"),
        ...["--service", serviceId, "--node", node.url, "--node", second.url, "--out", out, "--purpose", "disk"],
      );
      expect(run.code, run.stderr).to.equal(0);
      expect(run.stderr).to.contain("agent/unreachable");
      expect(JSON.parse(readFileSync(out, "utf8")).keys).to.deep.equal([
        { purpose: "disk", key_epoch: 1, root_epoch: 0, key: rotated["disk/1/0"]?.slice(2) },
      ]);
    });
  });

  describe("at the end of the story", () => {
    it("has printed no root, key or sealed secret anywhere: logs, errors, answers, metrics, receipts on disk", async () => {
      printed.push(node.output(), second?.output() ?? "");
      for (const name of ["one", "two"]) {
        printed.push(readFileSync(join(world.folder.path, `${name}.receipts`), "utf8"));
        for (const { secret } of await createFileRootStore(join(world.folder.path, `${name}.root`), PASSPHRASE).load())
          secrets.add(toHex(secret).slice(2)).add(Buffer.from(secret).toString("base64"));
      }
      const everything = printed.join("\n");
      expect(everything).to.contain("keystead_");
      expect(everything).to.contain("KeyRelease");
      const sought = [
        ...secrets,
        ...[...secrets].map((secret) => secret.toUpperCase()),
        "correct-horse",
        text(PASSPHRASE),
      ];
      expect(sought.length).to.be.greaterThan(40);
      for (const secret of sought) expect(everything.includes(secret)).to.equal(false);
    });
  });
});
