import { expect } from "chai";
import { fetchBlock } from "../../src/chain/block.ts";
import { type Catalogue, extendCatalogue, MAX_CATALOGUE_EVENTS } from "../../src/chain/catalogue.ts";
import { connect, type Eip1193Provider } from "../../src/chain/client.ts";
import { createProvenState, type ProvenState } from "../../src/chain/proven.ts";
import { serviceSlots, slotHex } from "../../src/chain/slots.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import { asAdmin, createService, endpointsOf, type NodeChain, startNodeChain } from "../helpers/decider.ts";
import { imageId, PLATFORM } from "../helpers/images.ts";
import { type Liar, liar } from "../helpers/liar.ts";
import { V1, V2, V3 } from "../helpers/registry.ts";

describe("the images that a history names", function () {
  this.timeout(240_000);
  let chain: NodeChain;
  let serviceId: Hex;
  let registry: Hex;
  before(async () => {
    chain = await startNodeChain();
    registry = chain.deployment.registry.address;
    serviceId = await createService(chain.suite, "history");
    const own = asAdmin(chain.suite);
    await own.addImageToService(serviceId, V2, "second");
    await own.removeImageFromService(serviceId, imageId(V1), "old");
  });
  after(() => chain?.stop());

  const stateNow = async (...providers: Eip1193Provider[]): Promise<ProvenState> => {
    const block = await fetchBlock(await connect(chain.provider), "latest");
    return createProvenState({ block, agreed: endpointsOf(providers, () => 0) });
  };
  const source = () => ({ address: registry, serviceId, fromBlock: 0 });
  const ids = ({ images }: Catalogue) => images.map(({ id }) => id);
  const codeOf = async (act: Promise<unknown>) => {
    const error = await act.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (isKeysteadError(error)) return error.code;
    throw error ?? new Error("nothing was thrown");
  };

  it("are all there, removed ones too, latest first", async () => {
    const catalogue = await extendCatalogue(await stateNow(chain.provider), source(), undefined);
    expect(ids(catalogue)).to.deep.equal([imageId(V2), imageId(V1)]);
    expect(catalogue).to.deep.include({ head: await chain.suite.registry.historyHead(serviceId), count: 4 });
    expect(catalogue.images.map(({ listedBy }) => listedBy)).to.deep.equal([3, 2]);
  });

  it("are read once: what was known is extended, and a head that is the same costs no logs", async () => {
    const provider: Liar = liar(chain.provider);
    const logs = () => provider.counts.get("eth_getLogs") ?? 0;
    const first = await extendCatalogue(await stateNow(provider), source(), undefined);
    const whole = logs();
    const same = await extendCatalogue(await stateNow(provider), source(), first);
    expect(logs()).to.equal(whole);
    expect(ids(same)).to.deep.equal(ids(first));
    await asAdmin(chain.suite).addImageToService(serviceId, V3, "third");
    await asAdmin(chain.suite).addImageToService(serviceId, V1, "first again");
    const more = await extendCatalogue(await stateNow(provider), source(), same);
    expect(logs() - whole).to.equal(2);
    expect(ids(more)).to.deep.equal([imageId(V1), imageId(V3), imageId(V2)]);
    expect(ids(await extendCatalogue(await stateNow(provider), source(), undefined))).to.deep.equal(ids(more));
  });

  it("at an earlier block than somebody else has read on to, are read from the start, and nobody is called a liar", async () => {
    const raced = { address: registry, serviceId: await createService(chain.suite, "raced"), fromBlock: 0 };
    const before = await stateNow(chain.provider);
    await asAdmin(chain.suite).addImageToService(raced.serviceId, V2, "second");
    const later = await extendCatalogue(await stateNow(chain.provider), raced, undefined);
    const earlier = await extendCatalogue(before, raced, later);
    expect([earlier.count, later.count]).to.deep.equal([2, 3]);
    expect(ids(earlier)).to.deep.equal([imageId(V1)]);
    expect(before.agreed.map((endpoint) => endpoint.health().state)).to.deep.equal(["ok"]);
  });

  it("given a catalogue that is not this history's, are not extended", async () => {
    const known: Catalogue = { head: `0x${"12".repeat(32)}`, count: 2, readUpTo: 0, images: [] };
    expect(await codeOf(extendCatalogue(await stateNow(chain.provider), source(), known))).to.equal("chain/unproven");
  });

  it("of the policy are its platforms and KMS images", async () => {
    const policy = { address: chain.deployment.policy.address, fromBlock: 0 };
    const { images } = await extendCatalogue(await stateNow(chain.provider), policy, undefined);
    expect(images.every(({ list }) => list === "platform")).to.equal(true);
    expect(images.map(({ id }) => id)).to.have.members(Object.values(PLATFORM).map(imageId));
  });

  it("come from any endpoint that has them: those that withhold logs are passed over, and remembered", async () => {
    const withholding = liar(chain.provider, (method, answer) => (method === "eth_getLogs" ? [] : answer));
    const state = await stateNow(withholding, chain.provider);
    expect((await extendCatalogue(state, source(), undefined)).images).to.have.lengthOf(3);
    expect(state.agreed[0]?.health()).to.include({ state: "lies", lastError: "chain/history-unproven" });
    const alone = await stateNow(withholding);
    expect(await codeOf(extendCatalogue(alone, source(), undefined))).to.equal("chain/unproven");
    expect(alone.agreed[0]?.health()).to.include({ state: "lies", lastError: "chain/history-unproven" });
  });

  it("where block numbers lead nowhere, are scanned for, whether the header says so or not", async () => {
    for (const parentNumber of [3, undefined]) {
      const orbit = liar(chain.provider, (method, answer, params) => {
        const asked = (params[0] ?? {}) as { blockHash?: string };
        return method === "eth_getLogs" && asked.blockHash !== undefined ? [] : answer;
      });
      const block = await fetchBlock(await connect(chain.provider), "latest");
      const [endpoint] = endpointsOf([orbit], () => 0);
      if (endpoint === undefined) throw new Error("no endpoint");
      const client = await connect(orbit);
      const agreed = [{ ...endpoint, client: async () => client }];
      const state = createProvenState({ block: { ...block, parentNumber }, agreed });
      const scanned = await extendCatalogue(state, source(), undefined);
      expect(ids(scanned)).to.deep.equal([imageId(V1), imageId(V3), imageId(V2)]);
      expect(endpoint.health().state).to.equal("ok");
      // the range, its last block, its end again; before that a walk that led nowhere
      expect(orbit.counts.get("eth_getLogs")).to.equal(parentNumber === undefined ? 4 : 3);
    }
  });

  it("of a history that is too long are not read: the machine must say which image it is", async () => {
    const { word, head } = serviceSlots(serviceId);
    const long = (BigInt(MAX_CATALOGUE_EVENTS + 1) << 192n) | (1n << 184n);
    await chain.provider.request({ method: "anvil_setStorageAt", params: [registry, word, slotHex(long)] });
    await chain.provider.request({ method: "anvil_setStorageAt", params: [registry, head, slotHex(7n)] });
    await chain.provider.request({ method: "evm_mine", params: [] });
    const error = await codeOf(extendCatalogue(await stateNow(chain.provider), source(), undefined));
    expect(error).to.equal("chain/history-too-long");
  });
});
