import { concat, dataLength, Interface, keccak256, toBeHex, toUtf8Bytes } from "ethers";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import type { RawLog } from "../core/events.ts";
import { blockParameter, fetchBlock } from "./block.ts";
import { type Client, connect, type Eip1193Provider, mapLimited, type SendingProvider } from "./client.ts";
import { scanLogs } from "./logs.ts";
import { foldRoles, scanRoleLogs } from "./roles.ts";

/** Where a deployment's state is read from. */
export interface StateSource {
  readonly registry: string;
  readonly policy: string;
  /** The block in which the first of them was created, or an earlier one. */
  readonly fromBlock: number;
}

/** Everything that registry and policy answer about what was ever put into them. */
export interface StateDigest {
  readonly block: number;
  /** keccak256 over all entries, each name and value with its length before it, in order of names. */
  readonly digest: string;
  /** One entry per view and argument, such as `registry.image(0x…,0x…)`: the raw answer. */
  readonly entries: ReadonlyMap<string, string>;
}

/** The events that bring new ids into being, and the views that answer about them; a test holds them against the compiled interfaces. */
export const REGISTRY_ABI = new Interface([
  "event CreateService(bytes20 indexed serviceId, address indexed creator, address indexed pendingAdmin, uint24 noticePeriod, bool requireUpToDateTcb, string description, uint32 sequence, uint40 previousBlock)",
  "event AddSecretKeyByImage(bytes20 indexed serviceId, address indexed creator, bytes32 indexed imageId, bytes image, bool requireUpToDateTcb, string description, uint40 activeFrom, uint32 sequence, uint40 previousBlock)",
  "event AddImageToService(bytes20 indexed serviceId, address indexed actor, bytes32 indexed imageId, bytes image, string description, uint40 activeFrom, uint32 sequence, uint40 previousBlock)",
  "event SetDevice(bytes20 indexed serviceId, address indexed actor, bytes32 indexed deviceId, bool allowed, uint40 effectiveFrom, uint32 sequence, uint40 previousBlock)",
  "function service(bytes20 serviceId) view",
  "function image(bytes20 serviceId, bytes32 imageId) view",
  "function isDeviceAllowed(bytes20 serviceId, bytes32 deviceId) view",
  "function historyHead(bytes20 serviceId) view",
  "function servicesHead() view",
  "function serviceCount() view",
  "function POLICY() view",
]);

export const POLICY_ABI = new Interface([
  "event AllowPlatform(bytes32 indexed platformId, address indexed actor, bytes image, string description, uint64 policyVersion, uint40 previousBlock)",
  "event AllowKmsImage(bytes32 indexed imageId, address indexed actor, bytes image, string description, uint64 policyVersion, uint40 previousBlock)",
  "event PublishKmsIdentity(bytes32 indexed identityId, address indexed actor, uint16 rootEpoch, bytes32 environmentKey, address receiptSigner, bytes32 evidenceHash, uint64 policyVersion, uint40 previousBlock)",
  "event AllowDevice(uint8 indexed kind, bytes32 indexed deviceId, address indexed actor, uint64 policyVersion, uint40 previousBlock)",
  "function platform(bytes32 platformId) view",
  "function kmsImage(bytes32 imageId) view",
  "function kmsIdentity(bytes32 identityId) view",
  "function isDeviceListed(uint8 kind, bytes32 deviceId) view",
  "function teeRules(uint8 kind) view",
  "function releasePausedUntil() view",
  "function gatewayAppId() view",
  "function appImplementation() view",
  "function policyVersion() view",
  "function lastUpdateBlock() view",
  "function historyHead() view",
]);

/** TDX, SEV-SNP, Nitro, dstack. */
const TEE_KINDS = [1, 2, 3, 4];
const CALLS_AT_ONCE = 25;

interface Question {
  readonly name: string;
  readonly to: string;
  readonly data: string;
}

/**
 * Reads all state of registry and policy at one block, over every service, image, device, platform and identity that their events ever named, and the
 * holders of every role, and folds it to one hash. Two digests of neighbouring blocks are equal if and only if nothing changed between them,
 * which is how an upgrade is proven to leave everything as it was.
 *
 * Some views depend on the clock (a loosened rule takes effect), so compare blocks that lie close together: the block that executes an
 * upgrade, and the one before it.
 *
 * @param block default: the newest; an old one needs a node that still has its state
 * @throws KeysteadError as `scanLogs` and {@link Client.request}: a view that can't be read is never left out
 * @example (await computeStateDigest(provider, { registry, policy, fromBlock: deployment.block })).digest
 */
export async function computeStateDigest(
  provider: Eip1193Provider | SendingProvider,
  source: StateSource,
  block?: number,
): Promise<StateDigest> {
  const client = await connect(provider);
  const at = block ?? (await fetchBlock(client, "latest")).number;
  const { fromBlock } = source;
  const [registry, policy] = [hexOf(source.registry), hexOf(source.policy)];
  const questions = [
    ...askRegistry(registry, await scanEvents(client, registry, REGISTRY_ABI, fromBlock, at)),
    ...askPolicy(policy, await scanEvents(client, policy, POLICY_ABI, fromBlock, at)),
  ];
  const entries = new Map<string, string>();
  await mapLimited(questions, CALLS_AT_ONCE, async ({ name, to, data }) => {
    entries.set(
      name,
      toHex(fromHex(String(await client.request("eth_call", [{ to, data }, blockParameter(at)])), name)),
    );
  });
  for (const [name, address] of Object.entries({ registry, policy })) {
    const { holders, admins } = foldRoles(await scanRoleLogs(client, address, fromBlock, at));
    for (const [role, accounts] of holders) entries.set(`${name}.holders(${role})`, concat([...accounts]));
    for (const [role, admin] of admins) entries.set(`${name}.admin(${role})`, admin);
  }
  const sorted = new Map([...entries].sort(([a], [b]) => (a < b ? -1 : 1)));
  const parts = [...sorted].flatMap(([name, value]) => {
    const bytes = toUtf8Bytes(name);
    return [toBeHex(bytes.length, 4), bytes, toBeHex(dataLength(value), 4), value];
  });
  return { block: at, digest: keccak256(concat(parts)), entries: sorted };
}

/**
 * Names what differs between two digests, both ways.
 *
 * @returns one sentence per difference; empty if and only if the digests are equal
 * @example compareStates(before, after) // []
 */
export function compareStates(before: StateDigest, after: StateDigest): string[] {
  const names = new Set([...before.entries.keys(), ...after.entries.keys()]);
  return [...names]
    .filter((name) => before.entries.get(name) !== after.entries.get(name))
    .map((name) => `${name} was ${before.entries.get(name) ?? "absent"} and is ${after.entries.get(name) ?? "absent"}`);
}

const hexOf = (address: string): Hex => toHex(fromHex(address, "address"));

function scanEvents(client: Client, address: Hex, abi: Interface, from: number, to: number) {
  const wanted: Hex[] = [];
  abi.forEachEvent((event) => wanted.push(hexOf(event.topicHash)));
  return scanLogs(client, { address, topics: [wanted] }, from, to);
}

function asker(prefix: string, abi: Interface, to: string) {
  return (view: string, ...args: readonly unknown[]): Question => ({
    name: `${prefix}.${view}(${args.join(",")})`,
    to,
    data: abi.encodeFunctionData(view, args),
  });
}

function askRegistry(registry: string, logs: readonly RawLog[]): Question[] {
  const ask = asker("registry", REGISTRY_ABI, registry);
  const questions = [ask("POLICY"), ask("servicesHead"), ask("serviceCount")];
  for (const log of logs) {
    const event = REGISTRY_ABI.parseLog(log);
    if (event === null) continue;
    const { serviceId } = event.args;
    questions.push(ask("service", serviceId), ask("historyHead", serviceId));
    if (event.name === "AddImageToService" || event.name === "AddSecretKeyByImage") {
      questions.push(ask("image", serviceId, event.args.imageId));
    }
    if (event.name === "SetDevice") questions.push(ask("isDeviceAllowed", serviceId, event.args.deviceId));
  }
  return questions;
}

function askPolicy(policy: string, logs: readonly RawLog[]): Question[] {
  const ask = asker("policy", POLICY_ABI, policy);
  const plain = ["releasePausedUntil", "gatewayAppId", "appImplementation", "policyVersion", "lastUpdateBlock"];
  const questions = [...plain, "historyHead"].map((view) => ask(view));
  for (const kind of TEE_KINDS) questions.push(ask("teeRules", kind));
  const views = { AllowPlatform: "platform", AllowKmsImage: "kmsImage", PublishKmsIdentity: "kmsIdentity" } as const;
  for (const log of logs) {
    const event = POLICY_ABI.parseLog(log);
    if (event === null) continue;
    if (event.name === "AllowDevice") questions.push(ask("isDeviceListed", event.args.kind, event.args.deviceId));
    else questions.push(ask(views[event.name as keyof typeof views], event.args[0]));
  }
  return questions;
}
