import type { Hex } from "../core/bytes.ts";
import {
  authorize,
  authorizeKms,
  DECISIONS,
  type DecisionName,
  type DecisionWords,
  decodeImageWord,
  KMS_NODES,
} from "../core/decision.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Client } from "./client.ts";
import { askEach } from "./endpoint.ts";
import type { ProvenState, ReadSlot, SlotRequest } from "./proven.ts";
import { callView, POLICY, REGISTRY } from "./reads.ts";
import { imageSlot, policyDeviceSlot, policyEntrySlot, policySlots, serviceDeviceSlot, serviceSlots } from "./slots.ts";

/** The two proxies. */
export interface Contracts {
  readonly registry: Hex;
  readonly policy: Hex;
}

/** What `authorize` is asked (contracts/types/Decision.sol), or `authorizeKms` where there is no service. */
export interface AuthorizeRequest {
  readonly serviceId: Hex | undefined;
  readonly imageId: Hex;
  readonly platformId: Hex;
  readonly deviceId: Hex;
  /** Bit position, see `TCB_STATUS_NAMES`. */
  readonly tcbStatus: number;
  /** The TEE kind that the image's bytes name: which device list may matter. Serves to prove all slots at once; the decision takes the record's. */
  readonly kind: number;
}

/** The contract's answer, computed from proven slots. */
export interface Evaluation {
  readonly decision: DecisionName;
  /** Whether another device might have got another answer. */
  readonly deviceMatters: boolean;
  /** When the image ends, in seconds since 1970; 0: never, or there is no such image. */
  readonly activeUntil: number;
}

/** One call of `evaluate` needs at most these slots. */
interface RequestSlots {
  readonly service: ReturnType<typeof serviceSlots> | undefined;
  readonly image: Hex;
  readonly serviceDevice: Hex | undefined;
  readonly platform: Hex;
}

/**
 * Where everything is that an answer may depend on, to be proved in one call a contract.
 *
 * @example
 * await state.prove(slotsOf(contracts, request));
 */
export function slotsOf({ registry, policy }: Contracts, request: AuthorizeRequest): readonly SlotRequest[] {
  const { service, image, serviceDevice, platform } = requestSlots(request);
  const { gate, counters } = policySlots();
  const policyOnes = [gate, counters, platform, policyDeviceSlot(request.kind, request.deviceId)];
  if (service === undefined) {
    return [{ address: policy, slots: [...policyOnes, policyDeviceSlot(KMS_NODES, request.deviceId), image] }];
  }
  const own = [
    service.word,
    service.head,
    service.rules,
    image,
    ...(serviceDevice === undefined ? [] : [serviceDevice]),
  ];
  return [
    { address: registry, slots: own },
    { address: policy, slots: policyOnes },
  ];
}

/**
 * What the contract answers in a block of this time.
 *
 * @param now the block's time, seconds since 1970
 * @example
 * const { decision } = await state.read((read) => evaluate(read, contracts, request, state.block.timestamp));
 */
export function evaluate(
  read: ReadSlot,
  { registry, policy }: Contracts,
  request: AuthorizeRequest,
  now: number,
): Evaluation {
  const { service, image, serviceDevice, platform } = requestSlots(request);
  let deviceMatters = false;
  const policyWords = {
    gate: () => read(policy, policySlots().gate),
    platform: () => read(policy, platform),
    policyDevice: (kind: number) => {
      deviceMatters = true;
      return read(policy, policyDeviceSlot(kind, request.deviceId));
    },
  };
  if (service === undefined) {
    const decision = authorizeKms(read(policy, image), policyWords, request.tcbStatus, now);
    return { decision, deviceMatters, activeUntil: 0 };
  }
  const imageWord = read(registry, image);
  const words: DecisionWords = {
    ...policyWords,
    service: () => read(registry, service.word),
    rules: () => read(registry, service.rules),
    image: () => imageWord,
    serviceDevice: () => {
      deviceMatters = true;
      return serviceDevice === undefined ? 0n : read(registry, serviceDevice);
    },
  };
  const decision = authorize(words, request.tcbStatus, now);
  return { decision, deviceMatters, activeUntil: decodeImageWord(imageWord).activeUntil };
}

/**
 * Asks the contract itself, at the endpoints that agreed on the block. The proofs say what is stored; this says that it means what we think it means.
 *
 * @param required how many must say the same as the evaluation
 * @returns the names of those that do
 * @throws KeysteadError `chain/decision-mismatch` {expected, answers}; `chain/unreachable` (retryable) where too few answer at all
 * @example
 * const confirmedBy = await confirmDecision(state, 2, contracts, request, "Allowed");
 */
export async function confirmDecision(
  state: ProvenState,
  required: number,
  { registry, policy }: Contracts,
  request: AuthorizeRequest,
  expected: DecisionName,
): Promise<readonly string[]> {
  const { serviceId, imageId, platformId, deviceId, tcbStatus } = request;
  return confirm(state, required, expected, async (client) => {
    const [answer] =
      serviceId === undefined
        ? await callView(client, POLICY, policy, state.block, "authorizeKms", [
            imageId,
            platformId,
            deviceId,
            tcbStatus,
          ])
        : await callView(client, REGISTRY, registry, state.block, "authorize", [
            { deviceId, tcbStatus, serviceId, imageId, platformId },
          ]);
    return DECISIONS[Number(answer)];
  });
}

/**
 * Asks the registry which policy it asks. That is an immutable of its code: the code hash pins it, and this shows that it was pinned to the policy that
 * is read here.
 *
 * @throws KeysteadError as {@link confirmDecision}
 * @example
 * await confirmPolicy(state, 2, contracts);
 */
export async function confirmPolicy(state: ProvenState, required: number, { registry, policy }: Contracts) {
  return confirm(state, required, policy, async (client) => {
    const [answer] = await callView(client, REGISTRY, registry, state.block, "POLICY", []);
    return String(answer).toLowerCase();
  });
}

async function confirm<T>(
  state: ProvenState,
  required: number,
  expected: T,
  ask: (client: Client) => Promise<T | undefined>,
): Promise<readonly string[]> {
  const asked = await askEach(state.agreed, ask);
  const answers = Object.fromEntries(
    asked.map((one) => [one.endpoint.name, "answer" in one ? one.answer : one.error.code]),
  );
  const same = asked.filter((one) => "answer" in one && one.answer === expected);
  const other = asked.filter((one) => "answer" in one && one.answer !== expected);
  for (const { endpoint } of other) endpoint.note({ state: "lies", code: "chain/decision-mismatch" });
  if (same.length >= required) return same.map(({ endpoint }) => endpoint.name);
  if (other.length > 0) {
    throw new KeysteadError("chain/decision-mismatch", `proven state says ${expected}, the contract another thing`, {
      argument: "endpoints",
      remedy:
        "Stop and compare: either endpoints lie about the contract's answer, or this version misreads its storage.",
      details: { expected, answers, block: state.block.number },
    });
  }
  throw new KeysteadError("chain/unreachable", `fewer than ${required} endpoints answer for the contract`, {
    argument: "endpoints",
    remedy: "Check the endpoints and the network, and try again.",
    retryable: true,
    details: { required, answers },
  });
}

function requestSlots({ serviceId, imageId, platformId, deviceId }: AuthorizeRequest): RequestSlots {
  const platform = policyEntrySlot("platform", platformId);
  if (serviceId === undefined) {
    return { service: undefined, image: policyEntrySlot("kmsImage", imageId), serviceDevice: undefined, platform };
  }
  const service = serviceSlots(serviceId);
  const serviceDevice = serviceDeviceSlot(service.word, deviceId);
  return { service, image: imageSlot(service.word, imageId), serviceDevice, platform };
}
