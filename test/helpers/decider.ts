import { keccak256 } from "ethers";
import { type Anvil, startAnvil } from "../../deploy/anvil.ts";
import type { Eip1193Provider } from "../../src/chain/client.ts";
import { createEndpoint, type Endpoint } from "../../src/chain/endpoint.ts";
import { httpTransport } from "../../src/chain/http.ts";
import type { PinnedDeployment } from "../../src/chain/pins.ts";
import { IMPLEMENTATION_SLOT } from "../../src/chain/slots.ts";
import { fromHex, type Hex } from "../../src/core/bytes.ts";
import { decodeImage } from "../../src/core/image.ts";
import type { Decider, MachineFacts } from "../../src/node/decide.ts";
import { createDecider, type DeciderOptions } from "../../src/node/decider.ts";
import { KmsRegistry__factory } from "../../typechain-types/index.ts";
import { connectToAnvil } from "./anvil.ts";
import { PLATFORM } from "./images.ts";
import { config, DEVICE, V1 } from "./registry.ts";
import { type Connection, deployOpenSuite, NOTICE, type Suite } from "./suite.ts";

/** A real chain with finality, the suite on it, and what a node pins of that. */
export interface NodeChain {
  readonly suite: Suite;
  readonly connection: Connection;
  readonly anvil: Anvil;
  readonly deployment: PinnedDeployment;
  /** A provider of its own for each endpoint: no caching between a test and the chain. */
  readonly provider: Eip1193Provider;
  /** The newest block's time: the clock of whoever lives on this chain. */
  readonly time: () => Promise<number>;
  /** Makes the newest block final: two epochs of one block each. */
  readonly finalize: () => Promise<void>;
  readonly pass: (seconds: number) => Promise<void>;
  readonly stop: () => Promise<void>;
}

/** Anvil calls a block final when two epochs are over; an epoch here is one block. */
const EPOCHS_TO_FINAL = 2;

/** Starts anvil and deploys the suite with everything allowed that the test machines need. */
export async function startNodeChain(): Promise<NodeChain> {
  const anvil = await startAnvil({ args: ["--slots-in-an-epoch", "1"] });
  const connection = await connectToAnvil(anvil.url, 31337);
  const suite = await deployOpenSuite(connection);
  const provider = httpTransport(anvil.url, 30_000);
  const request = (method: string, ...params: unknown[]) => connection.provider.request({ method, params });
  return {
    suite,
    connection,
    anvil,
    deployment: await pinSuite(suite),
    provider,
    time: async () => (await connection.ethers.provider.getBlock("latest"))?.timestamp ?? 0,
    finalize: async () => {
      await request("anvil_mine", `0x${EPOCHS_TO_FINAL.toString(16)}`);
    },
    pass: async (seconds) => {
      await request("evm_increaseTime", seconds);
      await request("evm_mine");
    },
    stop: async () => {
      await connection.close();
      await anvil.stop();
    },
  };
}

/** Pins a suite as it stands. */
export async function pinSuite({ connection, registry, policy, dstackAuth }: Suite): Promise<PinnedDeployment> {
  const { provider } = connection.ethers;
  const lower = (hex: string) => hex.toLowerCase() as Hex;
  const code = async (address: string) => ({
    address: lower(address),
    codeHash: keccak256(await provider.getCode(address)) as Hex,
  });
  const pin = async (name: "registry" | "policy", address: string) => {
    const word = await provider.getStorage(address, IMPLEMENTATION_SLOT);
    return { name, ...(await code(address)), implementations: [await code(`0x${word.slice(26)}`)] };
  };
  return {
    chainId: Number((await provider.getNetwork()).chainId),
    registry: await pin("registry", await registry.getAddress()),
    policy: await pin("policy", await policy.getAddress()),
    dstackAuth: lower(await dstackAuth.getAddress()),
    fromBlock: 0,
  };
}

/** Creates a service of the suite's admin; with image V1, active, unless told otherwise. */
export async function createService(
  { registry, admin }: Suite,
  label: string,
  { image = V1, ...changes }: Partial<Parameters<typeof config>[1]> & { readonly image?: string | undefined } = {},
): Promise<Hex> {
  const salt = keccak256(Buffer.from(label));
  const own = registry.connect(admin);
  await own.createService(config(admin.address, { noticePeriod: NOTICE, ...changes }), salt);
  const serviceId = await registry.serviceIdFor(admin.address, salt);
  if (image !== "") await own.addImageToService(serviceId, image, "first");
  return serviceId.toLowerCase() as Hex;
}

/** The registry as its admin uses it. */
export const asAdmin = ({ registry, admin }: Suite) => KmsRegistry__factory.connect(String(registry.target), admin);

/** What the evidence of a machine that runs an image says; on the test platform of its kind. */
export function machineOf(image: string, changes: Partial<MachineFacts> = {}): MachineFacts {
  const { kind, registers } = decodeImage(fromHex(image, "image"), "service");
  if (kind === "dstack") throw new Error("dstack machines are dstack-kms's to verify");
  const platform = decodeImage(fromHex(PLATFORM[kind], "platform"), "platform").registers;
  return {
    kind,
    registers: { ...platform, ...registers },
    tcbStatus: kind === "nitro" ? "NotApplicable" : "UpToDate",
    deviceId: DEVICE.one as Hex,
    ...changes,
  };
}

/** Endpoints by their providers: `a`, `b`, `c`, … */
export function endpointsOf(providers: readonly Eip1193Provider[], clock: () => number): readonly Endpoint[] {
  const options = { chainId: 31337, attempts: 1, backoff: 1 };
  return providers.map((provider, at) => createEndpoint("abcdefgh"[at] ?? `${at}`, provider, options, clock));
}

/** A decider that looks when it is told to, with a clock that stands still unless it is moved. */
export async function makeDecider(
  chain: Pick<NodeChain, "deployment" | "time">,
  providers: readonly Eip1193Provider[],
  changes: Partial<Omit<DeciderOptions, "endpoints">> = {},
): Promise<{ readonly decider: Decider; readonly clock: { now: number } }> {
  const clock = { now: await chain.time() };
  const read = changes.clock ?? (() => clock.now);
  const decider = createDecider({
    deployment: chain.deployment,
    endpoints: endpointsOf(providers, read),
    required: Math.floor(providers.length / 2) + 1,
    clock: read,
    maxAgeSeconds: 1800,
    ...changes,
  });
  return { decider, clock };
}
