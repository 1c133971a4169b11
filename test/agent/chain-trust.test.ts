import { expect } from "chai";
import {
  type AgentChain,
  checkRelease,
  fetchKmsIdentities,
  fetchService,
  requireCurrentEpoch,
} from "../../src/agent/chain-trust.ts";
import { connect, type Eip1193Provider } from "../../src/chain/client.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import type { KeyRelease } from "../../src/core/release.ts";
import { type Chain, startChain } from "../deploy/chains.ts";
import { createService } from "../helpers/decider.ts";
import { rejectionOf } from "../helpers/errors.ts";
import { imageId } from "../helpers/images.ts";
import { liar } from "../helpers/liar.ts";
import { bytes32, V1, V2 } from "../helpers/registry.ts";
import { deployOpenSuite, type Suite } from "../helpers/suite.ts";

type Lie = Parameters<typeof liar>[1];

const STANDING: Hex = `0x${"51".repeat(20)}`;
const REVOKED: Hex = `0x${"52".repeat(20)}`;

const codeOf = (error: unknown) => (isKeysteadError(error) ? error.code : String(error));

describe("what the machine reads from the chain", function () {
  this.timeout(120_000);
  let world: Chain;
  let suite: Suite;
  let serviceId: Hex;
  let addresses: { readonly registry: Hex; readonly policy: Hex };
  let release: KeyRelease;
  before(async () => {
    world = await startChain("hardhat");
    suite = await deployOpenSuite(world.connection);
    const policy = suite.policy.connect(suite.governor);
    const identity = (receiptSigner: Hex) => ({
      rootEpoch: 0,
      environmentKey: bytes32(`key of ${receiptSigner}`),
      receiptSigner,
      evidenceHash: bytes32("evidence"),
    });
    for (const signer of [STANDING, REVOKED]) await policy.publishKmsIdentity(identity(signer));
    const revoked = (await suite.policy.queryFilter(suite.policy.filters.PublishKmsIdentity())).at(-1)?.args.identityId;
    await suite.policy.connect(suite.guardian).revokeKmsIdentity(revoked ?? "", "leaked");
    serviceId = await createService(suite, "agent");
    const lower = async (contract: { getAddress(): Promise<string> }) =>
      (await contract.getAddress()).toLowerCase() as Hex;
    addresses = { registry: await lower(suite.registry), policy: await lower(suite.policy) };
    const block = await suite.connection.ethers.provider.getBlock("latest");
    if (block?.hash == null) throw new Error("no block");
    release = {
      ...{ serviceId, imageId: imageId(V1) as Hex, platformId: `0x${"00".repeat(32)}`, keyEpoch: 0 },
      ...{
        evidenceHash: `0x${"00".repeat(32)}`,
        recipientKeyHash: `0x${"00".repeat(32)}`,
        historyHead: `0x${"00".repeat(32)}`,
      },
      ...{ blockNumber: BigInt(block.number), blockHash: block.hash as Hex, policyVersion: 1n, issuedAt: 0n },
    };
  });
  after(() => world.stop());

  const through = async (lie?: Lie, acceptUnproven = false): Promise<AgentChain> => {
    const provider = liar(world.connection.provider as Eip1193Provider, lie);
    return { client: await connect(provider), registry: addresses.registry, read: {}, acceptUnproven };
  };
  const noProofs: Lie = (method, answer) => {
    if (method === "eth_getProof") throw { code: -32601, message: "the method eth_getProof does not exist" };
    return answer;
  };
  /** The endpoint withholds the newest event. */
  const dropLog: Lie = (method, answer) => (method === "eth_getLogs" ? (answer as unknown[]).slice(0, -1) : answer);

  it("counts the identities that the policy publishes, and not one that was revoked", async () => {
    const identities = await fetchKmsIdentities(await through(), addresses.policy);
    expect(identities.map(({ receiptSigner }) => receiptSigner)).to.deep.equal([STANDING]);
  });

  it("takes nothing from an endpoint that withholds history", async () => {
    const hidden = await through(dropLog, true);
    expect((await rejectionOf(fetchKmsIdentities(hidden, addresses.policy))).code).to.equal("agent/history");
    expect((await rejectionOf(fetchService(hidden, serviceId))).code).to.equal("agent/history");
  });

  it("takes the word of an endpoint without proofs only where that is allowed", async () => {
    const refused = await rejectionOf(fetchKmsIdentities(await through(noProofs), addresses.policy));
    expect(refused.code).to.equal("chain/unproven");
    expect((await rejectionOf(fetchService(await through(noProofs), serviceId))).code).to.equal("chain/unproven");
    const trusted = await through(noProofs, true);
    expect(await fetchKmsIdentities(trusted, addresses.policy)).to.have.length(1);
  });

  it("takes nothing from an endpoint whose proof is false, or whose views contradict its history, even where none is asked for", async () => {
    const falseProof: Lie = (method, answer) =>
      method === "eth_getProof" ? { ...(answer as object), accountProof: [] } : answer;
    const lying = await through(falseProof, true);
    expect((await rejectionOf(fetchKmsIdentities(lying, addresses.policy))).code).to.equal("agent/history");
    expect((await rejectionOf(fetchService(lying, serviceId))).code).to.equal("agent/history");
    const identity = suite.policy.interface.getFunction("kmsIdentity").selector;
    const otherView: Lie = (method, answer, [call]) =>
      method === "eth_call" && String(Reflect.get(Object(call), "data")).startsWith(identity)
        ? `0x${"00".repeat(31)}01`
        : answer;
    const contradicting = await through(otherView, true);
    expect((await rejectionOf(fetchKmsIdentities(contradicting, addresses.policy))).code).to.equal("agent/history");
  });

  it("takes nothing from an endpoint that stands still, or is ahead of this machine's time", async () => {
    const shifted: AgentChain = { ...(await through()), maxAge: 3600 };
    const apart = async (seconds: number) => {
      const clock = Date.now;
      const { timestamp } = (await suite.connection.ethers.provider.getBlock("latest")) ?? { timestamp: 0 };
      Date.now = () => 1000 * (timestamp + seconds);
      try {
        expect(await fetchService(shifted, serviceId).then(() => "taken", codeOf)).to.equal(
          Math.abs(seconds) > 3600 ? "chain/not-now" : "taken",
        );
        expect(await fetchKmsIdentities(shifted, addresses.policy).then(() => "taken", codeOf)).to.equal(
          Math.abs(seconds) > 3600 ? "chain/not-now" : "taken",
        );
      } finally {
        Date.now = clock;
      }
    };
    for (const seconds of [0, 3600, 3602, -3602]) await apart(seconds);
  });

  it("checks that a receipt's block is the chain's and its image the service's", async () => {
    const chain = await through();
    const service = await fetchService(chain, serviceId);
    await checkRelease(chain, release, service);
    const code = async (changes: Partial<KeyRelease>) => {
      const { code: found, retryable } = await rejectionOf(checkRelease(chain, { ...release, ...changes }, service));
      return [found, retryable];
    };
    expect(await code({ blockHash: `0x${"99".repeat(32)}` })).to.deep.equal(["receipt/other-block", false]);
    // this machine's endpoint may be behind the node's: time may help
    expect(await code({ blockNumber: release.blockNumber + 100n })).to.deep.equal(["receipt/other-block", true]);
    expect(await code({ imageId: imageId(V2) as Hex })).to.deep.equal(["receipt/unknown-image", false]);
  });

  it("takes no key of an epoch that is over, and none for a service that is not there unless it is to come", async () => {
    const code = async (keyEpoch: number, id = serviceId, toCome = false) =>
      await requireCurrentEpoch(await through(), { serviceId: id, keyEpoch }, toCome).then(() => "taken", codeOf);
    expect(await code(0)).to.equal("taken");
    await (await suite.registry.connect(suite.admin).rotateServiceKey(serviceId)).wait();
    expect(await code(0)).to.equal("secrets/old-epoch");
    expect(await code(0, serviceId, true)).to.equal("secrets/old-epoch");
    expect(await code(1)).to.equal("taken");
    // A node may have seen a rotation that this endpoint has not.
    expect(await code(2)).to.equal("taken");
    expect(await code(0, STANDING)).to.equal("audit/no-service");
    expect(await code(0, STANDING, true)).to.equal("taken");
  });
});
