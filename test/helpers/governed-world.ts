import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deployKms } from "../../deploy/kms.ts";
import { parseParameters } from "../../deploy/parameters.ts";
import { executeThroughSafe } from "../../deploy/safe/account.ts";
import { fetchBlock } from "../../src/chain/block.ts";
import { type Client, connect, type Eip1193Provider } from "../../src/chain/client.ts";
import type { Deployment } from "../../src/chain/deployment.ts";
import type { Operation, OperationContracts } from "../../src/governance/operation.ts";
import { buildOperation, type Parties, type ProposalInput } from "../../src/governance/propose.ts";
import { MULTI_SEND_CALL_ONLY, type SafeRef, type SafeVersion } from "../../src/governance/safe-hash.ts";
import { fetchSafe } from "../../src/governance/safe-state.ts";
import { readStartState } from "../../src/governance/start-state.ts";
import { planStep, type StepName } from "../../src/governance/transactions.ts";
import { type Chain, type CLIENTS, fetchActors, startChain } from "../deploy/chains.ts";

export const DELAY = 172_800;

/** The whole of Keystead on a chain, governed by a 2-of-3 Safe behind a timelock of 48 h and a 2-of-2 guardian Safe. */
export interface GovernedWorld {
  readonly chain: Chain;
  readonly client: Client;
  readonly provider: Eip1193Provider;
  readonly deployment: Deployment;
  readonly contracts: OperationContracts;
  /** An operation on the state that is there now, with its start recorded. */
  propose(input: Partial<ProposalInput> & Pick<ProposalInput, "id" | "intents">): Promise<Operation>;
  /** The same without looking at the chain's state. */
  proposeBlind(input: Partial<ProposalInput> & Pick<ProposalInput, "id" | "intents">): Promise<Operation>;
  /** Makes a step of an operation happen, by the Safe's owners. */
  take(operation: Operation, step: StepName, safe?: string): Promise<void>;
  /** Sends from any account of the node, contracts included, with no key. */
  sendAs(from: string, to: string, data: string): Promise<void>;
  /** Changes the chain, looks, and takes the change back. */
  changed<T>(change: () => Promise<unknown>, look: () => Promise<T>): Promise<T>;
  stop(): Promise<void>;
}

/** Starts a chain and deploys everything there. */
export async function startWorld(
  client: (typeof CLIENTS)[number],
  version: SafeVersion & ("1.4.1" | "1.5.0") = "1.4.1",
): Promise<GovernedWorld> {
  const chain = await startChain(client);
  const folder = mkdtempSync(join(tmpdir(), "keystead-test-"));
  const { alice, bob, carol, dave, erin } = await fetchActors(chain.connection);
  const owners = { governance: [alice, bob, carol], guardian: [dave, erin] };
  const parameters = parseParameters({
    safeVersion: version,
    governance: { owners: owners.governance, threshold: 2 },
    guardian: { owners: owners.guardian, threshold: 2 },
    delaySeconds: DELAY,
  });
  const deployment = await deployKms(chain.connection, parameters, undefined, { folder });
  const provider = chain.connection.provider as Eip1193Provider;
  const reader = await connect(provider);
  const contracts = {
    policy: deployment.contracts.policy.address,
    registry: deployment.contracts.registry.address,
    timelock: deployment.contracts.timelock.address,
  };
  const ref = async (address: string): Promise<SafeRef> => {
    const safe = await fetchSafe(reader, await fetchBlock(reader, "latest"), address);
    return { address, version, multiSend: MULTI_SEND_CALL_ONLY[version][0] ?? "", nonce: safe.nonce };
  };
  const proposeBlind: GovernedWorld["proposeBlind"] = async (input) => {
    const block = await fetchBlock(reader, "latest");
    const parties: Parties = {
      governance: await ref(deployment.safes.governance.address),
      guardian: await ref(deployment.safes.guardian.address),
      delay: BigInt(DELAY),
    };
    return buildOperation({
      ...{ chainId: deployment.chainId, contracts, parties, time: BigInt(block.timestamp) },
      ...input,
    });
  };
  return {
    ...{ chain, client: reader, provider, deployment, contracts, proposeBlind },
    async propose(input) {
      const blind = await proposeBlind(input);
      const start = await readStartState(reader, await fetchBlock(reader, "latest"), blind);
      return proposeBlind({ ...input, time: blind.assumptions.time, start });
    },
    async take(operation, step, safe) {
      const planned = planStep(operation, step, { safe });
      const guardian = planned.safe.address === deployment.safes.guardian.address;
      await executeThroughSafe(chain.connection, {
        safe: planned.safe.address,
        signers: guardian ? owners.guardian : [alice, carol],
        calls: planned.calls,
      });
    },
    async sendAs(from, to, data) {
      const prefix = chain.name;
      await provider.request({ method: `${prefix}_impersonateAccount`, params: [from] });
      await provider.request({ method: `${prefix}_setBalance`, params: [from, "0xde0b6b3a7640000"] });
      const hash = await provider.request({ method: "eth_sendTransaction", params: [{ from, to, data }] });
      const receipt = await provider.request({ method: "eth_getTransactionReceipt", params: [hash] });
      if (Reflect.get(Object(receipt), "status") !== "0x1") throw new Error(`${from} cannot do that at ${to}`);
      await provider.request({ method: `${prefix}_stopImpersonatingAccount`, params: [from] });
    },
    async changed(change, look) {
      const snapshot = await provider.request({ method: "evm_snapshot", params: [] });
      try {
        await change();
        // a block of its own: until then the newest block commits to the state before
        await provider.request({ method: "evm_mine", params: [] });
        return await look();
      } finally {
        await provider.request({ method: "evm_revert", params: [snapshot] });
      }
    },
    async stop() {
      await chain.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
