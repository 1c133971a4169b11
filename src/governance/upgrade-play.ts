import { id, JsonRpcProvider, keccak256 } from "ethers";
import { fetchBlock } from "../chain/block.ts";
import { IMPLEMENTATION_SLOT, namespaceSlot } from "../chain/slots.ts";
import { compareStates, computeStateDigest, type StateDigest } from "../chain/state-digest.ts";
import { toHex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { encodeImage, parseImage } from "../core/image.ts";
import { INTERFACES } from "./abis.ts";
import { contextOf, type Difference } from "./check.ts";
import { recogniseCall } from "./decode.ts";
import type { Change, Fork, Trace } from "./fork.ts";
import type { Operation } from "./operation.ts";

/** What an upgrade is played with: each takes one of the proposal's operations to its end on the fork, as far as the way there. */
export interface UpgradeStage {
  readonly fork: Fork;
  readonly operation: Operation;
  /** Everything up to the execution, clock included. */
  prepare(part: "operation" | "rollback"): Promise<void>;
  /** The execution itself, and what it changed. */
  execute(part: "operation" | "rollback"): Promise<Trace>;
  /** The first block that holds the deployment's logs. */
  readonly fromBlock: number;
  /** Somebody without rights. */
  readonly stranger: string;
  readonly onProgress: (line: string) => void;
}

const INITIALIZABLE_SLOT = namespaceSlot("openzeppelin.storage.Initializable");

/** Whether an operation is one that this play is for: nothing but upgrades of the proxies, with a way back through the timelock. */
export function isReversibleUpgrade(operation: Operation): boolean {
  const upgrades = operation.calls.every((call) => {
    const name = recogniseCall(call, contextOf(operation))?.name;
    return name === "upgradeTo" || name === "upgradeToAndCall";
  });
  return (
    operation.lane === "upgrade" && upgrades && operation.timelock !== null && operation.rollback?.timelock != null
  );
}

/**
 * Plays an upgrade there and back and there again: V1 → V2 → writes → V1 → V2. Every answer of registry and policy about everything that was ever put
 * into them must be the same just before and just after each of the three steps: so V1 reads nothing that V2 gave another meaning, what V2 wrote
 * included. The upgrade must overwrite nothing that was stored, and its initialiser must not run a second time.
 *
 * @returns what is not so; empty if the upgrade can be rolled back
 * @throws KeysteadError as `Client.request`; what fails in the play is a difference
 * @example
 * (await playUpgrade(stage)).map(({ code }) => code); // []
 */
export async function playUpgrade(stage: UpgradeStage): Promise<readonly Difference[]> {
  const { fork, operation, onProgress } = stage;
  const { policy, registry, timelock } = operation.contracts;
  const differences: Difference[] = [];
  const differs = (field: string, code: string, message: string) => void differences.push({ field, code, message });
  // ethers keeps answers for a quarter of a second, the newest block's number among them: a step that is faster would be compared with itself
  const options = { staticNetwork: true, batchMaxCount: 1, cacheTimeout: -1 };
  const provider = new JsonRpcProvider(fork.url, undefined, options);
  const digest = async () => {
    const { number } = await fetchBlock(fork.client, "latest");
    return computeStateDigest(provider, { registry, policy, fromBlock: stage.fromBlock }, number);
  };
  const same = (field: string, code: string, before: StateDigest, after: StateDigest) => {
    for (const sentence of compareStates(before, after)) differs(field, code, sentence);
  };
  let at = "V1 → V2";
  try {
    onProgress("upgrade: V1 → V2, every answer before and after");
    await stage.prepare("operation");
    const v1 = await digest();
    const { changes } = await stage.execute("operation");
    const v2 = await digest();
    same(at, "upgrade/state-changed", v1, v2);
    for (const { address, slot, before } of overwritten(changes, [policy, registry])) {
      differs(
        at,
        "upgrade/overwrites-storage",
        `slot ${slot} of ${address} held ${before}, and V2's initialiser overwrites it`,
      );
    }
    at = "writes under V2";
    onProgress("upgrade: writes under V2");
    await write(stage, "v2");
    const written = await digest();
    if (compareStates(v2, written).length === 0)
      differs(at, "upgrade/no-writes", "nothing that was written can be read");
    at = "V2 → V1";
    onProgress("upgrade: V2 → V1, every answer before and after");
    await stage.prepare("rollback");
    const last = await digest();
    await stage.execute("rollback");
    const back = await digest();
    same(at, "upgrade/rollback-misreads", last, back);
    at = "writes under V1 again";
    await write(stage, "v1");
    at = "V1 → V2 again";
    onProgress("upgrade: V1 → V2 again, without its initialiser");
    const again = await digest();
    for (const call of operation.calls) {
      const named = recogniseCall(call, contextOf(operation))?.named ?? {};
      if (named.data !== undefined && named.data !== "0x") await requireRefused(stage, call.to, call.data, differs);
      const bare = INTERFACES.policy.encodeFunctionData("upgradeTo", [named.newImplementation]);
      await fork.sendAs(timelock, call.to, bare);
    }
    same(at, "upgrade/state-changed", again, await digest());
  } catch (error) {
    if (isKeysteadError(error, "fork/reverted")) differs(at, "upgrade/reverted", error.message);
    // a view that no longer answers is the upgrade's doing; the fork itself answers everything
    else if (error instanceof Error && "code" in error && error.code === "CALL_EXCEPTION") {
      differs(at, "upgrade/view-fails", "a view that answered before fails now");
    } else throw error;
  } finally {
    provider.destroy();
  }
  return differences;
}

/** Slots of the proxies that held something and were changed, but for those that an upgrade is about. */
const overwritten = (changes: readonly Change[], proxies: readonly string[]): readonly Change[] =>
  changes.filter(
    ({ address, kind, slot, before }) =>
      kind === "slot" &&
      proxies.some((proxy) => proxy.toLowerCase() === address) &&
      slot !== IMPLEMENTATION_SLOT &&
      slot !== INITIALIZABLE_SLOT &&
      BigInt(before) !== 0n,
  );

/** The upgrade's initialiser, run again: the proxy keeps that it ran, and must refuse. */
async function requireRefused(
  { fork, operation }: UpgradeStage,
  proxy: string,
  data: string,
  differs: (field: string, code: string, message: string) => void,
): Promise<void> {
  const snapshot = await fork.snapshot();
  try {
    await fork.sendAs(operation.contracts.timelock, proxy, data);
    differs("V1 → V2 again", "upgrade/initialiser-replayed", `the initialiser of ${proxy} runs a second time`);
  } catch (error) {
    if (!isKeysteadError(error, "fork/reverted")) throw error;
  }
  await fork.restore(snapshot);
}

/** One of everything that is written in ordinary life: a platform, a rule, a service, an image of it. */
async function write({ fork, operation, stranger }: UpgradeStage, name: string): Promise<void> {
  const { policy, registry, timelock } = operation.contracts;
  const digits = keccak256(new TextEncoder().encode(`keystead upgrade play ${name}`)).slice(2);
  const image = (text: string, use: "platform" | "service") => toHex(encodeImage(parseImage(text, use)));
  const govern = (view: string, ...args: readonly unknown[]) =>
    fork.sendAs(timelock, policy, INTERFACES.policy.encodeFunctionData(view, args));
  await govern("allowPlatform", image(`dstack:os_image_hash=${digits}`, "platform"), name);
  await govern("allowDevice", 1, `0x${digits}`);
  const serve = (view: string, ...args: readonly unknown[]) =>
    fork.sendAs(stranger, registry, INTERFACES.registry.encodeFunctionData(view, args));
  const salt = id(name);
  const config = { admin: stranger, noticePeriod: 60, description: name, devices: [], requireUpToDateTcb: false };
  await serve("createService", config, salt);
  const asked = INTERFACES.registry.encodeFunctionData("serviceIdFor", [stranger, salt]);
  const answer = await fork.client.request("eth_call", [{ to: registry, data: asked }, "latest"]);
  const [service] = INTERFACES.registry.decodeFunctionResult("serviceIdFor", String(answer));
  await serve("addImageToService", service, image(`dstack:compose_hash=${digits}`, "service"), name);
}
