import type { Block } from "../chain/block.ts";
import { type Client, mapLimited } from "../chain/client.ts";
import {
  readDevice,
  readImage,
  readKmsIdentity,
  readPolicy,
  readPolicyDevice,
  readPolicyEntry,
  readService,
  readTeeRules,
} from "../chain/reads.ts";
import type { Hex } from "../core/bytes.ts";
import type { PolicyEntry, PolicyState } from "../core/policy-state.ts";
import { type ServiceState, viewService } from "../core/state.ts";
import type { Difference } from "./result.ts";

/** Views asked for at the same time about one service. */
const VIEWS_AT_ONCE = 8;

/** The numbers of the TEE kinds (contracts/types/TeeKind.sol): those without events are compared too. */
const KINDS = [1, 2, 3, 4];

/**
 * Compares a service's rebuilt state with every view of it at a block. Calls grow with the service's images and devices.
 *
 * @returns every difference; none: they agree
 * @throws KeysteadError when the endpoint can't be asked
 * @example
 * const differences = await compareService(client, registry, block, serviceId, rebuildService(entries));
 */
export async function compareService(
  client: Client,
  registry: Hex,
  block: Block,
  serviceId: Hex,
  state: ServiceState,
): Promise<readonly Difference[]> {
  const view = await readService(client, registry, block, serviceId);
  const differences = compare("service", { ...viewService(state, block.timestamp) }, { ...view });
  const ofImages = await mapLimited([...state.images.values()], VIEWS_AT_ONCE, async (image) => {
    const record = await readImage(client, registry, block, serviceId, image.imageId);
    const { activeFrom, activeUntil, listing, kind, mask, restrictsDevices } = image;
    const rebuilt = { activeFrom, activeUntil, listing, kind, mask, restrictsDevices };
    return compare(`image ${image.imageId}`, rebuilt, { ...record });
  });
  const ofDevices = await mapLimited([...state.devices], VIEWS_AT_ONCE, async ([deviceId, allowedFrom]) => {
    const contract = { allowedFrom: await readDevice(client, registry, block, serviceId, deviceId) };
    return compare(`device ${deviceId}`, { allowedFrom }, contract);
  });
  return [...differences, ...ofImages.flat(), ...ofDevices.flat()];
}

/**
 * Compares the policy's rebuilt state with every view of it at a block.
 *
 * @returns every difference; none: they agree
 * @throws KeysteadError when the endpoint can't be asked
 * @example
 * const differences = await comparePolicy(client, policy, block, rebuildPolicy(entries));
 */
export async function comparePolicy(
  client: Client,
  policy: Hex,
  block: Block,
  state: PolicyState,
): Promise<readonly Difference[]> {
  const { pausedUntil, gatewayAppId, appImplementation, policyVersion, lastUpdateBlock, historyHead } = state;
  const own = { pausedUntil, gatewayAppId, appImplementation, policyVersion, lastUpdateBlock, historyHead };
  const differences = compare("policy", own, { ...(await readPolicy(client, policy, block)) });

  const entries = async (list: "platform" | "kmsImage", known: ReadonlyMap<Hex, PolicyEntry>) => {
    for (const { id, state, kind, mask, since } of known.values()) {
      const contract = { ...(await readPolicyEntry(client, policy, block, list, id)) };
      differences.push(...compare(`${list} ${id}`, { state, kind, mask, since }, contract));
    }
  };
  await entries("platform", state.platforms);
  await entries("kmsImage", state.kmsImages);
  for (const { id, state: rebuilt } of state.kmsIdentities.values()) {
    const contract = { state: await readKmsIdentity(client, policy, block, id) };
    differences.push(...compare(`kmsIdentity ${id}`, { state: rebuilt }, contract));
  }
  for (const kind of new Set([...KINDS, ...state.tees.keys()])) {
    const tee = state.tees.get(kind);
    const { enabled = false, devicesRestricted = false, acceptedTcb = 0 } = tee ?? {};
    const contract = await readTeeRules(client, policy, block, kind);
    differences.push(...compare(`tee ${kind}`, { enabled, devicesRestricted, acceptedTcb }, contract));
    for (const [deviceId, listed] of tee?.devices ?? []) {
      const answer = { listed: await readPolicyDevice(client, policy, block, kind, deviceId) };
      differences.push(...compare(`device ${deviceId} of tee ${kind}`, { listed }, answer));
    }
  }
  return differences;
}

/**
 * Compares again where a comparison finds differences, and believes the second: one of several nodes behind one address may have answered for another
 * block. A difference that is there stays.
 *
 * @throws whatever `once` throws
 * @example
 * const differences = await compareTwice(() => compareService(client, registry, block, serviceId, state));
 */
export async function compareTwice(once: () => Promise<readonly Difference[]>): Promise<readonly Difference[]> {
  const differences = await once();
  return differences.length === 0 ? differences : once();
}

function compare(
  what: string,
  rebuilt: Readonly<Record<string, unknown>>,
  contract: Readonly<Record<string, unknown>>,
): Difference[] {
  const fields = new Set([...Object.keys(rebuilt), ...Object.keys(contract)]);
  return [...fields].flatMap((field) =>
    rebuilt[field] === contract[field]
      ? []
      : [{ what: `${what}.${field}`, rebuilt: shown(rebuilt[field]), contract: shown(contract[field]) }],
  );
}

function shown(value: unknown): string {
  return value === undefined ? "nothing" : String(value);
}
