import { expect } from "chai";
import { type Change, compareInspections } from "../../src/audit/changes.ts";
import { type Inspection, inspect, type Subjects } from "../../src/audit/inspect.ts";
import { inspectAgain, type Sighting, watch } from "../../src/audit/watch.ts";
import { type Client, connect } from "../../src/chain/client.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { type Chain, passTime, startChain } from "../deploy/chains.ts";
import { imageId, KIND, measured, snpImage, tdxImage } from "../helpers/images.ts";
import { type Liar, liar } from "../helpers/liar.ts";
import { DAY, deploy, deploySuite, NOTICE, type Suite } from "../helpers/suite.ts";

describe("watching a chain", () => {
  let chain: Chain;
  let suite: Suite;
  let endpoint: Liar;
  let lie: (method: string, answer: unknown) => unknown;
  let client: Client;
  let subjects: Subjects;
  let services: readonly Hex[];
  let before_: Inspection;

  const create = async (label: string): Promise<Hex> => {
    const own = suite.registry.connect(suite.admin);
    const config = {
      admin: suite.admin.address,
      noticePeriod: NOTICE,
      description: label,
      devices: [],
      requireUpToDateTcb: true,
    };
    const id = (await own.serviceIdFor(suite.admin.address, measured(label, 32))).toLowerCase() as Hex;
    await (await own.createServiceWithImage(config, measured(label, 32), tdxImage("v1"), label)).wait();
    return id;
  };

  before(async function () {
    this.timeout(240_000);
    chain = await startChain("hardhat");
    suite = await deploySuite(chain.connection);
    services = [await create("one"), await create("two"), await create("three")];
    await (await suite.policy.connect(suite.governor).enableTee(KIND.tdx)).wait();
    endpoint = liar(chain.connection.provider, (method, answer) => lie(method, answer));
    lie = (_method, answer) => answer;
    client = await connect(endpoint, { attempts: 1 });
    const [registry, policy] = [await suite.registry.getAddress(), await suite.policy.getAddress()];
    subjects = { registry: registry as Hex, policy: policy as Hex, services: "all" };
  });
  after(() => chain?.stop());
  beforeEach(async () => {
    lie = (_method, answer) => answer;
    before_ = await inspect(client, subjects, { fromBlock: 0 });
    endpoint.counts.clear();
  });

  const look = async (): Promise<{ readonly after: Inspection; readonly changes: readonly Change[] }> => {
    const after = await inspectAgain(client, subjects, { fromBlock: 0 }, before_);
    return { after, changes: compareInspections(before_, after) };
  };
  const told = (changes: readonly Change[]) => changes.map(({ kind, subject, event }) => [kind, subject, event?.name]);
  const own = () => suite.registry.connect(suite.admin);

  it("when no block came, asks for the block alone and knows what it knew", async () => {
    expect((await look()).after).to.equal(before_);
    expect([...endpoint.counts.keys()]).to.deep.equal(["eth_getBlockByNumber"]);
  });

  it("when a block came without a change, proves the heads at it and reads no history again", async () => {
    await passTime(chain, 1);
    const { after, changes } = await look();
    expect(changes).to.deep.equal([]);
    expect(after).to.include({ verdict: "proven" });
    expect(after.block.number).to.equal(before_.block.number + 1);
    for (const audit of after.services) expect(audit.block).to.deep.equal(after.block);
    // policy's head, all services' in one, and that of the chain over them; the proxies' code; the range's logs, and those of its last block by hash
    expect(Object.fromEntries(endpoint.counts)).to.deep.equal({
      eth_getBlockByNumber: 4,
      eth_getProof: 3 + 2 * 2,
      eth_getLogs: 2,
    });
  });

  it("when one service changed, tells the event and reads that service alone again", async () => {
    await (await own().addImageToService(services[1] ?? "", snpImage("new"), "new\u202e")).wait();
    const { after, changes } = await look();
    expect(told(changes)).to.deep.equal([["event", services[1], "add_image_to_service"]]);
    expect(changes[0]?.message).to.contain('description="new\\\\u{202e}"');
    expect(changes[0]?.event).to.include({ sequence: 3, block: after.block.number });
    expect(after.services.map(({ serviceId }) => serviceId)).to.deep.equal(services);
    expect([after.verdict, after.services[1]?.count]).to.deep.equal(["proven", 3]);
    expect(after.services[0]?.entries).to.equal(before_.services[0]?.entries);
  });

  it("when the policy changed and a service was created, tells both", async () => {
    const fourth = await create("four");
    await (await suite.policy.connect(suite.guardian).pauseRelease(DAY, "why")).wait();
    const { after, changes } = await look();
    expect(told(changes)).to.deep.equal([
      ["event", "policy", "pause_release"],
      ["new-service", fourth, undefined],
      ["event", fourth, "create_service"],
      ["event", fourth, "add_image_to_service"],
    ]);
    expect([after.verdict, after.services.length]).to.deep.equal(["proven", 4]);
  });

  it("when nothing but time passed, tells what became of pending images, guardians, rules and pauses", async () => {
    const one = services[0] ?? "";
    await (await own().addImageToService(one, tdxImage("coming"), "")).wait();
    await (await own().setServiceGuardian(one, suite.serviceGuardian.address)).wait();
    await (await own().setServiceGuardian(one, suite.eve.address)).wait();
    await (await own().setRequireUpToDateTcb(one, false)).wait();
    before_ = await inspect(client, subjects, { fromBlock: 0 });
    await passTime(chain, NOTICE + 1);
    const { changes } = await look();
    expect(told(changes)).to.include.deep.members([
      ["rule", "policy", undefined],
      ["status", one, undefined],
      ["rule", one, undefined],
    ]);
    const messages = changes.map(({ message }) => message).join("\n");
    expect(messages).to.contain("pause of key release ended by itself");
    expect(messages).to.contain(`image ${imageId(tdxImage("coming"))} was pending and is active`);
    expect(messages).to.contain(`guardian ${suite.eve.address.toLowerCase()} has taken the place`);
    expect(messages).to.contain("up-to-date TCB is no longer required");
  });

  it("when an endpoint hides the log of a head that moved, says broken", async () => {
    await (await own().rotateServiceKey(services[2] ?? "")).wait();
    lie = (method, answer) => (method === "eth_getLogs" ? (answer as unknown[]).slice(0, -1) : answer);
    const { after, changes } = await look();
    expect(after.verdict).to.equal("broken");
    expect(told(changes)).to.deep.include(["verdict", services[2], undefined]);
    lie = (_method, answer) => answer;
    const mended = await inspectAgain(client, subjects, { fromBlock: 0 }, after);
    expect(mended, "the same block is not looked at again").to.equal(after);
    await passTime(chain, 1);
    const later = await inspectAgain(client, subjects, { fromBlock: 0 }, after);
    expect(later.verdict).to.equal("proven");
    expect(told(compareInspections(after, later))).to.deep.equal([["verdict", services[2], undefined]]);
  });

  it("when a reorganisation took an event away, says rewritten", async () => {
    const { provider } = chain.connection;
    const snapshot = await provider.request({ method: "evm_snapshot" });
    await (await own().publishSealedSecrets(services[0] ?? "", "env", "0x01")).wait();
    before_ = await inspect(client, subjects, { fromBlock: 0 });
    await provider.request({ method: "evm_revert", params: [snapshot] });
    await (await own().publishSealedSecrets(services[0] ?? "", "env", "0x02")).wait();
    await passTime(chain, 1);
    const { after, changes } = await look();
    expect(after.verdict).to.equal("proven");
    expect(told(changes)[0]).to.deep.equal(["rewritten", services[0], undefined]);
  });

  it("when a proxy was upgraded, says which code it runs", async () => {
    const fresh = await deploy(chain.connection, "KmsRegistry", [await suite.policy.getAddress()]);
    await (await suite.registry.connect(suite.governor).upgradeTo(fresh)).wait();
    const { after, changes } = await look();
    expect(told(changes)).to.deep.equal([["code", "registry", undefined]]);
    expect(changes[0]?.message).to.contain(fresh.toLowerCase());
    expect(after.verdict).to.equal("proven");
  });

  it("when the endpoint fails, tells it once, goes on, and tells what happened meanwhile", async () => {
    const ended = new AbortController();
    const seen: Sighting[] = [];
    let failures = 0;
    const options = { fromBlock: 0, interval: 5, signal: ended.signal, first: before_ };
    for await (const sighting of watch(client, subjects, options)) {
      seen.push(sighting);
      if (sighting.kind === "start") {
        lie = () => {
          failures += 1;
          if (failures === 3) lie = (_method, answer) => answer;
          throw { code: -32603, message: "database is locked" };
        };
        await (await own().rotateServiceKey(services[1] ?? "")).wait();
      }
      if (sighting.kind === "again") ended.abort();
    }
    expect(seen.map(({ kind }) => kind)).to.deep.equal(["start", "lost", "again"]);
    expect(failures).to.equal(3);
    const [, lost, again] = seen;
    expect(lost?.kind === "lost" && lost.error.code).to.equal("chain/unreachable");
    expect(again?.kind === "again" && told(again.changes)).to.deep.equal([
      ["event", services[1], "rotate_service_key"],
    ]);
  });
});
