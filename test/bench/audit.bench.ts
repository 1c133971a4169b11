import { expect } from "chai";
import { auditService } from "../../src/audit/walk.ts";
import { connect } from "../../src/chain/client.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { type Chain, startChain } from "../deploy/chains.ts";
import { jsonOf, keysteadAsync } from "../helpers/cli.ts";
import { measured, snpImage } from "../helpers/images.ts";
import { deploySuite } from "../helpers/suite.ts";
import { benchmark } from "./benchmark.ts";

/** 200 services, each created with one image (2 events) and given 3 more sixteen times. */
const SERVICES = 200;
const ROUNDS = 16;
const PER_SERVICE = 2 + 3 * ROUNDS;
const EVENTS = SERVICES * PER_SERVICE;

benchmark(`audit of ${EVENTS} events of ${SERVICES} services on anvil`, () => {
  let chain: Chain;
  let where: string[];
  let registry: Hex;
  const ids: Hex[] = [];

  before(async function () {
    this.timeout(600_000);
    chain = await startChain("anvil");
    const suite = await deploySuite(chain.connection);
    registry = (await suite.registry.getAddress()) as Hex;
    where = ["--registry", registry, "--policy", await suite.policy.getAddress(), "--from-block", "0"];
    const { provider } = chain.connection;
    const from = suite.admin.address;
    const send = (data: string) =>
      provider.request({ method: "eth_sendTransaction", params: [{ from, to: registry, data, gas: "0xf4240" }] });
    await provider.request({ method: "anvil_setBlockGasLimit", params: ["0x1dcd65000"] });
    await provider.request({ method: "evm_setAutomine", params: [false] });
    const mine = () => provider.request({ method: "evm_mine", params: [] });
    const abi = suite.registry.interface;
    for (let index = 0; index < SERVICES; index++) {
      const salt = measured(`salt ${index}`, 32);
      ids.push((await suite.registry.serviceIdFor(from, salt)) as Hex);
      const config = { admin: from, noticePeriod: 60, description: "", devices: [], requireUpToDateTcb: false };
      await send(abi.encodeFunctionData("createServiceWithImage", [config, salt, snpImage("first"), ""]));
    }
    await mine();
    for (let round = 0; round < ROUNDS; round++) {
      const images = [0, 1, 2].map((at) => ({ image: snpImage(`${round}/${at}`), description: "" }));
      for (const id of ids) await send(abi.encodeFunctionData("addImagesToService", [id, images]));
      await mine();
    }
    await provider.request({ method: "evm_setAutomine", params: [true] });
  });
  after(() => chain?.stop());

  it("one command proves all of them", async () => {
    const started = Date.now();
    const run = await keysteadAsync(["audit", "--all", "--rpc", chain.anvil?.url ?? "", ...where, "--format", "csv"]);
    const seconds = (Date.now() - started) / 1000;
    expect(run.code, run.stderr).to.equal(0);
    const lines = run.stdout.trimEnd().split("\r\n");
    expect(lines.filter((line) => line.includes(",proven,")).length).to.be.at.least(EVENTS);
    console.log(
      `      everything: ${seconds.toFixed(1)} s with the start of the process; ${run.stderr.trim().split("\n").at(-1)}`,
    );
  }).timeout(300_000);

  it("one service, walked, takes calls by its own events alone", async () => {
    const client = await connect(chain.anvil?.url ?? "");
    const started = Date.now();
    const audit = await auditService(client, registry, ids[7] ?? "0x");
    const figures = [client.calls(), client.bytes?.()];
    console.log(
      `      one: ${Date.now() - started} ms, ${figures[0]} calls, ${figures[1]} bytes, ${audit.count} events`,
    );
    expect([audit.verdict, audit.count]).to.deep.equal(["proven", PER_SERVICE]);
    const blocks = new Set(audit.entries.map(({ log }) => log.blockNumber)).size;
    // chain id, first and last look at the block, the proof, the service's view; two a block; one an image
    expect(figures[0]).to.equal(5 + 2 * blocks + (PER_SERVICE - 1));
    await chain.connection.provider.request({ method: "anvil_mine", params: ["0xc8"] });
    const later = await connect(chain.anvil?.url ?? "");
    expect((await auditService(later, registry, ids[7] ?? "0x")).verdict).to.equal("proven");
    expect(later.calls(), "200 blocks later").to.equal(figures[0]);
    const run = await keysteadAsync([
      "audit",
      ids[7] ?? "",
      "--rpc",
      chain.anvil?.url ?? "",
      "--registry",
      registry,
      "--json",
      "--max-age",
      "99999999",
    ]);
    expect(jsonOf(run).verdict).to.equal("proven");
  }).timeout(120_000);
});
