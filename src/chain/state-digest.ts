import { concat, dataLength, Interface, keccak256, type Log, type Provider, toBeHex, toUtf8Bytes } from "ethers";
import { fetchRoles } from "./roles.ts";

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
const BLOCKS_PER_QUERY = 10_000;
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
 * @throws what the provider throws: a view that can't be read is never left out
 * @example (await computeStateDigest(provider, { registry, policy, fromBlock: deployment.block })).digest
 */
export async function computeStateDigest(
  provider: Provider,
  source: StateSource,
  block?: number,
): Promise<StateDigest> {
  const at = block ?? (await provider.getBlockNumber());
  const questions = [
    ...askRegistry(source.registry, await fetchLogs(provider, source.registry, REGISTRY_ABI, source.fromBlock, at)),
    ...askPolicy(source.policy, await fetchLogs(provider, source.policy, POLICY_ABI, source.fromBlock, at)),
  ];
  const entries = new Map<string, string>();
  for (let start = 0; start < questions.length; start += CALLS_AT_ONCE) {
    const some = questions.slice(start, start + CALLS_AT_ONCE);
    const answers = await Promise.all(some.map(({ to, data }) => provider.call({ to, data, blockTag: at })));
    some.forEach(({ name }, index) => {
      entries.set(name, answers[index] ?? "0x");
    });
  }
  for (const [name, address] of [
    ["registry", source.registry],
    ["policy", source.policy],
  ] as const) {
    const { holders, admins } = await fetchRoles(provider, address, source.fromBlock, at);
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

async function fetchLogs(
  provider: Provider,
  address: string,
  abi: Interface,
  from: number,
  to: number,
): Promise<Log[]> {
  const wanted: string[] = [];
  abi.forEachEvent((event) => wanted.push(event.topicHash));
  const logs: Log[] = [];
  for (let start = from; start <= to; start += BLOCKS_PER_QUERY) {
    const toBlock = Math.min(start + BLOCKS_PER_QUERY - 1, to);
    logs.push(...(await provider.getLogs({ address, topics: [wanted], fromBlock: start, toBlock })));
  }
  return logs;
}

function asker(prefix: string, abi: Interface, to: string) {
  return (view: string, ...args: readonly unknown[]): Question => ({
    name: `${prefix}.${view}(${args.join(",")})`,
    to,
    data: abi.encodeFunctionData(view, args),
  });
}

function askRegistry(registry: string, logs: readonly Log[]): Question[] {
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

function askPolicy(policy: string, logs: readonly Log[]): Question[] {
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
