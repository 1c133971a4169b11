import { type AuthorizeRequest, confirmDecision, type Evaluation, evaluate, slotsOf } from "../chain/authorize.ts";
import type { Block } from "../chain/block.ts";
import { type Catalogue, type CatalogueList, type CatalogueSource, extendCatalogue } from "../chain/catalogue.ts";
import { mapLimited } from "../chain/client.ts";
import { type DstackTexts, readDstackTexts } from "../chain/dstack-facts.ts";
import type { PinnedDeployment } from "../chain/pins.ts";
import { createQuorum, type QuorumOptions } from "../chain/quorum.ts";
import { decodePolicyCounters, policySlots, serviceSlots, slotHex } from "../chain/slots.ts";
import { fromHex, type Hex } from "../core/bytes.ts";
import { DECISIONS, type DecisionName, decodeServiceRules, serviceExists, TCB_STATUS_NAMES } from "../core/decision.ts";
import { isKeysteadError, type KeysteadError } from "../core/errors.ts";
import { decodeImage, IMAGE_KINDS, imageId } from "../core/image.ts";
import { matchesImage } from "../core/match.ts";
import type {
  BasisBlock,
  Decider,
  DecisionBasis,
  KmsQuestion,
  MachineFacts,
  ReleaseDecision,
  ReleaseQuestion,
} from "./decide.ts";
import { type ChainView, createWatch, type Snapshot } from "./watch.ts";

/** How a decider reads its chain. */
export interface DeciderOptions extends QuorumOptions {
  readonly deployment: PinnedDeployment;
  /** Seconds that pass evenly, for silence and pauses, which a clock that is set must not stretch. Default: the clock. */
  readonly stopwatch?: (() => number) | undefined;
  /** Seconds between looks at the chain. Default: 4. */
  readonly pollSeconds?: number | undefined;
  /** For how long nothing may have been heard of enough endpoints, in seconds. Default: 60. */
  readonly maxSilenceSeconds?: number | undefined;
  /** Told of every look at the chain that failed. */
  readonly onError?: ((error: KeysteadError) => void) | undefined;
  readonly onRecovery?: (() => void) | undefined;
}

/** One request as it stands in a view. */
interface Verdict {
  readonly request: AuthorizeRequest;
  readonly finalized: Evaluation;
  readonly head: Evaluation | undefined;
  readonly deviceMatters: boolean;
  /** The earliest end of the image that either block knows; 0: none. */
  readonly activeUntil: number;
  /** Made once the endpoints have confirmed it. */
  answer: Promise<ReleaseDecision> | undefined;
}

/** What is remembered about a finalized block while it lasts. */
interface Memory {
  readonly services: Map<Hex, Promise<ServiceFacts>>;
  readonly catalogues: Map<string, Promise<Catalogue>>;
  readonly confirmed: Map<string, Promise<readonly string[]>>;
  readonly dstack: Map<"texts", Promise<DstackTexts>>;
  readonly policy: { readonly policyVersion: number; readonly head: Hex };
}

interface ServiceFacts {
  readonly exists: boolean;
  readonly keyEpoch: number;
  readonly head: Hex;
}

/** No image or platform has this id. */
const NO_ID: Hex = `0x${"00".repeat(32)}`;
const NO_SERVICE: Hex = `0x${"00".repeat(20)}`;
/** Requests that are kept ready when the chain moves on, and for how long after they were last made. */
const WARM_REQUESTS = 256;
/** Of one service: machines of one app must not take every place. */
const WARM_OF_SERVICE = 32;
const WARM_SECONDS = 300;
const WARM_AT_ONCE = 8;
/** What is kept of one block, and catalogues kept over all. Beyond that things are read again. */
const MAX_REMEMBERED = 20_000;
const MAX_CATALOGUES = 2_000;

/**
 * Makes a decider over a deployment and a quorum of endpoints.
 *
 * @throws KeysteadError `chain/bad-quorum`
 * @example
 * const decider = createDecider({ deployment, endpoints, required: 2, clock, maxAgeSeconds: 1800 });
 * decider.start();
 * const { allowed, decision } = await decider.decide({ serviceId, machine: factsOf(verified, {}) });
 */
export function createDecider(options: DeciderOptions): Decider {
  const { deployment, clock, stopwatch = clock } = options;
  const { chainId } = deployment;
  const contracts = { registry: deployment.registry.address, policy: deployment.policy.address };
  const quorum = createQuorum(options);
  const memories = new WeakMap<Snapshot, Memory>();
  const verdictsOf = new WeakMap<ChainView, Map<string, Verdict>>();
  const known = new Map<string, Catalogue>();
  const warm = new Map<string, { readonly request: AuthorizeRequest; usedAt: number }>();

  const watch = createWatch({ ...options, quorum, warm: (view) => warmUp(view) });

  const remember = async ({ finalized }: ChainView): Promise<Memory> => {
    const there = memories.get(finalized);
    if (there !== undefined) return there;
    const { counters, head } = policySlots();
    const [word, headWord] = await finalized.state.read(
      (read) => [read(contracts.policy, counters), read(contracts.policy, head)] as const,
    );
    const { policyVersion } = decodePolicyCounters(word);
    const made: Memory = {
      services: new Map(),
      catalogues: new Map(),
      confirmed: new Map(),
      dstack: new Map(),
      policy: { policyVersion, head: slotHex(headWord) },
    };
    const raced = memories.get(finalized) ?? made;
    memories.set(finalized, raced);
    return raced;
  };

  /** Proves and evaluates requests that are not in the view's memory yet, all of them together. */
  const judge = async (view: ChainView, requests: readonly AuthorizeRequest[]): Promise<readonly Verdict[]> => {
    const verdicts = verdictsOf.get(view) ?? new Map<string, Verdict>();
    verdictsOf.set(view, verdicts);
    const look = (request: AuthorizeRequest) =>
      verdicts.get(keyOf(request, false)) ?? verdicts.get(keyOf(request, true));
    const there = requests.map(look);
    const missing = requests.filter((_, at) => there[at] === undefined);
    if (missing.length > 0) {
      const slots = missing.flatMap((request) => slotsOf(contracts, request));
      await Promise.all([view.finalized.state.prove(slots), view.head?.state.prove(slots)]);
      if (verdicts.size > MAX_REMEMBERED) verdicts.clear();
    }
    const made = new Map<AuthorizeRequest, Verdict>();
    for (const request of missing) {
      const at = ({ state }: Snapshot) =>
        state.read((read) => evaluate(read, contracts, request, state.block.timestamp));
      const finalized = await at(view.finalized);
      const head = view.head === undefined ? undefined : await at(view.head);
      const deviceMatters = finalized.deviceMatters || head?.deviceMatters === true;
      const ends = [finalized.activeUntil, head?.activeUntil ?? 0].filter((end) => end !== 0);
      const activeUntil = ends.length === 0 ? 0 : Math.min(...ends);
      const verdict = { request, finalized, head, deviceMatters, activeUntil, answer: undefined };
      verdicts.set(keyOf(request, deviceMatters), verdict);
      made.set(request, verdict);
    }
    return requests.map((request, at) => there[at] ?? (made.get(request) as Verdict));
  };

  /** What a verdict comes to at this moment: the finalized block's, unless the newer block or the clock denies. */
  const outcome = (verdict: Verdict): Pick<DecisionBasis, "tightenedBy"> & { readonly decision: DecisionName } => {
    const { decision } = verdict.finalized;
    if (decision !== "Allowed") return { decision, tightenedBy: undefined };
    if (verdict.head !== undefined && verdict.head.decision !== "Allowed") {
      return { decision: verdict.head.decision, tightenedBy: "head" };
    }
    if (verdict.activeUntil !== 0 && clock() >= verdict.activeUntil) {
      return { decision: "ImageRetired", tightenedBy: "clock" };
    }
    return { decision, tightenedBy: undefined };
  };

  const basisOf = (view: ChainView): Omit<DecisionBasis, "confirmedBy" | "tightenedBy"> => {
    const { state, implementations } = view.finalized;
    return {
      chainId,
      ...contracts,
      block: basisBlock(state.block),
      agreed: state.agreed.map(({ name }) => name),
      endpoints: quorum.endpoints.length,
      quorum: quorum.required,
      implementations,
      head: view.head === undefined ? undefined : basisBlock(view.head.state.block),
    };
  };

  const serviceFacts = (view: ChainView, { services }: Memory, serviceId: Hex): Promise<ServiceFacts> =>
    memo(services, serviceId, async () => {
      const slots = serviceSlots(serviceId);
      const { registry } = contracts;
      return view.finalized.state.read((read) => ({
        exists: serviceExists(read(registry, slots.word)),
        keyEpoch: decodeServiceRules(read(registry, slots.rules)).keyEpoch,
        head: slotHex(read(registry, slots.head)),
      }));
    });

  /** The answer to a request that was judged, once enough endpoints say the same as the proofs. */
  const answer = async (view: ChainView, verdict: Verdict): Promise<ReleaseDecision> => {
    const { request, finalized } = verdict;
    verdict.answer ??= (async (): Promise<ReleaseDecision> => {
      const memory = await remember(view);
      const confirmedBy = await memo(memory.confirmed, keyOf(request, verdict.deviceMatters), () =>
        confirmDecision(view.finalized.state, quorum.required, contracts, request, finalized.decision),
      );
      const service = request.serviceId === undefined ? undefined : await serviceFacts(view, memory, request.serviceId);
      const { tightenedBy, decision } = outcome(verdict);
      return {
        allowed: decision === "Allowed",
        decision,
        serviceId: request.serviceId ?? NO_SERVICE,
        imageId: request.imageId,
        platformId: request.platformId === NO_ID ? undefined : request.platformId,
        keyEpoch: service?.keyEpoch ?? 0,
        historyHead: service?.head ?? memory.policy.head,
        policyVersion: memory.policy.policyVersion,
        basis: { ...basisOf(view), confirmedBy, tightenedBy },
      };
    })().catch((error: unknown) => {
      verdict.answer = undefined;
      throw error;
    });
    const made = await verdict.answer;
    // Only the clock can have changed the outcome since.
    const { tightenedBy, decision } = outcome(verdict);
    if (decision === made.decision) return made;
    return { ...made, allowed: decision === "Allowed", decision, basis: { ...made.basis, tightenedBy } };
  };

  const among = async (
    view: ChainView,
    requests: readonly AuthorizeRequest[],
    choose: (decisions: readonly DecisionName[]) => number,
  ): Promise<ReleaseDecision> => {
    const judged = await judge(view, requests);
    const chosen = judged[choose(judged.map((verdict) => outcome(verdict).decision))];
    if (chosen === undefined) throw new RangeError("no request was chosen");
    const made = await answer(view, chosen);
    // What is denied is asked by whoever likes, about whatever they like.
    if (made.allowed) keepWarm(chosen);
    return made;
  };

  const keepWarm = ({ request, deviceMatters }: Verdict): void => {
    const key = keyOf(request, deviceMatters);
    const there = warm.get(key);
    if (there !== undefined) {
      there.usedAt = stopwatch();
      return;
    }
    const places = [...warm.values()].filter((other) => other.request.serviceId === request.serviceId).length;
    if (warm.size < WARM_REQUESTS && places < WARM_OF_SERVICE) warm.set(key, { request, usedAt: stopwatch() });
  };

  const warmUp = async (view: ChainView): Promise<void> => {
    for (const [key, { usedAt }] of warm) if (stopwatch() - usedAt > WARM_SECONDS) warm.delete(key);
    const requests = [...warm.values()].map(({ request }) => request);
    try {
      const memory = await remember(view);
      const judged = await judge(view, requests);
      await mapLimited(judged, WARM_AT_ONCE, (verdict) => answer(view, verdict));
      const sources = new Set(requests.map(({ serviceId }) => serviceId));
      for (const serviceId of sources) if (known.has(serviceId ?? "")) await catalogue(view, memory, serviceId);
    } catch (error) {
      // Whoever asks meets the same error, and gets it.
      if (!isKeysteadError(error)) throw error;
    }
  };

  const catalogue = (view: ChainView, { catalogues }: Memory, serviceId: Hex | undefined): Promise<Catalogue> => {
    const key = serviceId ?? "";
    const address = serviceId === undefined ? contracts.policy : contracts.registry;
    const source: CatalogueSource = { address, serviceId, fromBlock: deployment.fromBlock };
    return memo(catalogues, key, async () => {
      const made = await extendCatalogue(view.finalized.state, source, known.get(key));
      known.delete(key);
      known.set(key, made);
      const oldest = known.keys().next().value;
      if (known.size > MAX_CATALOGUES && oldest !== undefined) known.delete(oldest);
      return made;
    });
  };

  /** The ids of images that the machine is: the one that it says it is, or those that the history names. */
  const matchingIds = async (
    view: ChainView,
    memory: Memory,
    list: CatalogueList,
    serviceId: Hex | undefined,
    machine: MachineFacts,
    hint: Hex | undefined,
  ): Promise<readonly Hex[]> => {
    if (hint !== undefined) {
      const bytes = fromHex(hint, list === "platform" ? "platform" : "image");
      const image = decodeImage(bytes, list === "platform" ? "platform" : "service");
      return matchesImage(image, machine) ? [imageId(bytes)] : [];
    }
    const { images } = await catalogue(view, memory, serviceId);
    const ids: Hex[] = [];
    for (const each of images) if (each.list === list && matchesImage(each.image, machine)) ids.push(each.id);
    return ids;
  };

  const decideIn = async (
    view: ChainView,
    serviceId: Hex | undefined,
    { machine, image, platform }: KmsQuestion,
  ): Promise<ReleaseDecision> => {
    const memory = await remember(view);
    const service = serviceId === undefined ? undefined : await serviceFacts(view, memory, serviceId);
    const without = (decision: DecisionName): ReleaseDecision => ({
      allowed: false,
      decision,
      serviceId: serviceId ?? NO_SERVICE,
      imageId: undefined,
      platformId: undefined,
      keyEpoch: service?.keyEpoch ?? 0,
      historyHead: service?.head ?? memory.policy.head,
      policyVersion: memory.policy.policyVersion,
      basis: { ...basisOf(view), confirmedBy: [], tightenedBy: undefined },
    });
    if (service?.exists === false) return without("ServiceUnknown");
    const imageList = serviceId === undefined ? "kmsImage" : "image";
    const images = await matchingIds(view, memory, imageList, serviceId, machine, image);
    if (images.length === 0) return without(serviceId === undefined ? "KmsImageNotAllowed" : "ImageUnknown");
    const platforms = await matchingIds(view, memory, "platform", undefined, machine, platform);
    const common = {
      serviceId,
      deviceId: machine.deviceId,
      tcbStatus: TCB_STATUS_NAMES.indexOf(machine.tcbStatus),
      kind: IMAGE_KINDS[machine.kind].byte,
    };
    const requests = images.flatMap((id) =>
      (platforms.length === 0 ? [NO_ID] : platforms).map((platformId) => ({ ...common, imageId: id, platformId })),
    );
    return among(view, requests, furthest);
  };

  /** Runs on the view of now. A block that was replaced, or is too old for the endpoints, can't be proved any more: then once again on a newer view. */
  const withView = async <T>(act: (view: ChainView) => Promise<T>): Promise<T> => {
    const view = await watch.current();
    try {
      return await act(view);
    } catch (error) {
      if (!isKeysteadError(error, "chain/unproven")) throw error;
      await watch.refresh();
      const again = await watch.current();
      if (again === view) throw error;
      return act(again);
    }
  };

  const dstackFacts: Decider["dstackFacts"] = () =>
    withView(async (view) => {
      const memory = await remember(view);
      const texts = await memo(memory.dstack, "texts", () =>
        view.finalized.state.read((read) => readDstackTexts(read, contracts.policy)),
      );
      return { chainId, dstackAuth: deployment.dstackAuth, ...texts };
    });

  return {
    decide: ({ serviceId, ...question }: ReleaseQuestion) => withView((view) => decideIn(view, serviceId, question)),
    decideKms: (question) => withView((view) => decideIn(view, undefined, question)),
    serviceExists: (serviceId) =>
      withView(async (view) => (await serviceFacts(view, await remember(view), serviceId)).exists),
    decideAmong: (requests, choose) => withView((view) => among(view, requests, choose)),
    dstackFacts,
    refresh: watch.refresh,
    start: watch.start,
    stop: watch.stop,
    status: watch.status,
  };
}

/** The first that is allowed, or else the one that got furthest: the enum is in the order of the checks. */
function furthest(decisions: readonly DecisionName[]): number {
  const allowed = decisions.indexOf("Allowed");
  if (allowed !== -1) return allowed;
  const ranks = decisions.map((decision) => DECISIONS.indexOf(decision));
  return ranks.indexOf(Math.max(...ranks));
}

function keyOf(request: AuthorizeRequest, device: boolean): string {
  const { serviceId = "kms", imageId: image, platformId, tcbStatus, deviceId, kind } = request;
  return `${serviceId}${image}${platformId}${tcbStatus}/${kind}${device ? deviceId : ""}`;
}

function basisBlock({ number, hash, timestamp, stateRoot }: Block): BasisBlock {
  return { number, hash, timestamp, stateRoot };
}

/** A promise made once a key; one that fails is forgotten. */
function memo<K, T>(memory: Map<K, Promise<T>>, key: K, make: () => Promise<T>): Promise<T> {
  const there = memory.get(key);
  if (there !== undefined) return there;
  if (memory.size >= MAX_REMEMBERED) memory.clear();
  const made = make();
  memory.set(key, made);
  made.catch(() => memory.delete(key));
  return made;
}
