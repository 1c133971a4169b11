import type { Binding } from "../core/binding.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import type { DecisionName } from "../core/decision.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { challengeSchema, keysResponseSchema, type WireEvidence } from "../core/release-wire.ts";
import { generateSealKeyPair } from "../core/seal.ts";
import type { Device, DeviceEvidence } from "./devices/device.ts";
import { askNode, type HttpOptions } from "./http.ts";
import { type Opened, openAnswer, type Trust } from "./receipt.ts";

/** What is asked for. */
export interface AcquireOptions extends HttpOptions {
  /** Base URLs, in the order in which they are asked. */
  readonly nodes: readonly string[];
  readonly device: Device;
  readonly serviceId: Hex;
  readonly trust: Trust;
  /** Purposes beside the standard ones. */
  readonly purposes?: readonly string[] | undefined;
  /** The image that the receipt must name. */
  readonly imageId?: Hex | undefined;
  /** Checks of an opened answer beyond its signature, e.g. `checkRelease`. What it throws makes the next node be asked. */
  readonly check?: ((opened: Opened) => Promise<void>) | undefined;
  /** Seconds to go on for where time alone may help; 0: every node is asked once. */
  readonly waitSeconds: number;
  /** Tells people what is waited for. Never told a secret. */
  readonly log: (line: string) => void;
  /** Default: the machine's. */
  readonly clock?: { readonly now: () => number; readonly sleep: (milliseconds: number) => Promise<void> } | undefined;
}

/** Decisions that time alone may change. */
const PASSING: ReadonlySet<unknown> = new Set(["ImagePending", "ReleasePaused"]);
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
/** A nonce may expire, or a device be busy, while evidence is made: then at once again. */
const TRIES = 3;

const CLOCK = { now: () => Date.now(), sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)) };

/**
 * Gets a service's keys from the first of several nodes that releases them. Each attempt has its own key pair, challenge and evidence. A node that cannot be
 * asked, refuses, or answers what does not verify is passed over; after a round of all, it waits (from one second, doubling to thirty) and asks again as
 * long as time may help.
 *
 * @returns the opened answer: wipe its `plaintext`
 * @throws KeysteadError the most telling refusal of the last round: `agent/denied` {decision}, else `agent/refused`, `receipt/…`, `device/…`, `agent/unreachable`
 * @example
 * const { bundle, plaintext } = await acquireKeys({ nodes, device, serviceId, trust, waitSeconds: 600, log: console.error });
 */
export async function acquireKeys(options: AcquireOptions): Promise<Opened> {
  const { now, sleep } = options.clock ?? CLOCK;
  const deadline = now() + options.waitSeconds * 1000;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    const failures: KeysteadError[] = [];
    for (const node of options.nodes) {
      try {
        return await askOne(node, options);
      } catch (error) {
        if (!isKeysteadError(error)) throw error;
        failures.push(error);
        if (options.nodes.length > 1) options.log(`${error.code}: ${error.message}; asking the next node`);
      }
    }
    const worst = mostTelling(failures);
    const left = deadline - now();
    if (!failures.some(mayPass) || left <= 0) throw worst;
    const wait = Math.min(pause, left);
    options.log(
      `${describeWait(worst)}; again in ${Math.ceil(wait / 1000)} s, for ${Math.ceil(left / 1000)} s more at most`,
    );
    await sleep(wait);
  }
}

/** One node: challenge, evidence, request, answer. */
async function askOne(node: string, options: AcquireOptions): Promise<Opened> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await exchange(node, options);
    } catch (error) {
      if (attempt < TRIES && isStale(error)) continue;
      throw isKeysteadError(error, "agent/refused") && error.details.code === "release/denied" ? denied(error) : error;
    }
  }
}

async function exchange(node: string, options: AcquireOptions): Promise<Opened> {
  const { device, serviceId, trust, imageId, purposes = [] } = options;
  const { nonce } = await askNode(node, "/v1/challenge", {}, challengeSchema, options);
  const { privateKey, publicKey } = await generateSealKeyPair();
  try {
    const binding: Binding = { nonce: fromHex(nonce, "nonce"), serviceId, recipientPublicKey: publicKey };
    const evidence = await device.attest(binding);
    const request = {
      serviceId,
      evidence: toWireEvidence(evidence),
      recipientPublicKey: toHex(publicKey),
      nonce,
      ...(purposes.length > 0 ? { purposes } : {}),
    };
    const answer = await askNode(node, "/v1/keys", request, keysResponseSchema, options);
    const asked = { serviceId, evidence: signedBytes(evidence), recipientPublicKey: publicKey, imageId };
    const opened = await openAnswer(answer, asked, privateKey, trust);
    try {
      await options.check?.(opened);
      return opened;
    } catch (error) {
      opened.plaintext.fill(0);
      throw error;
    }
  } finally {
    privateKey.fill(0);
  }
}

/** The bytes that a receipt's evidence hash is over. */
function signedBytes(evidence: DeviceEvidence): Uint8Array {
  if (evidence.kind === "tdx") return evidence.quote;
  return evidence.kind === "snp" ? evidence.report : evidence.document;
}

/**
 * Evidence as it travels.
 *
 * @throws KeysteadError `device/no-certificates` for a SEV-SNP report whose VCEK or VLEK is not at hand
 * @example
 * const evidence = toWireEvidence(await device.attest(binding));
 */
export function toWireEvidence(evidence: DeviceEvidence): WireEvidence {
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
  if (evidence.kind === "tdx") return { kind: "tdx", quote: base64(evidence.quote) };
  if (evidence.kind === "nitro") return { kind: "nitro", document: base64(evidence.document) };
  const { endorsementKey, signer, root } = evidence.certificates;
  if (endorsementKey === undefined) {
    throw new KeysteadError("device/no-certificates", "the host gives no certificates with its SEV-SNP reports", {
      argument: "vcek",
      remedy: "Let the agent fetch this chip's VCEK from AMD (--kds), or give it with --vcek.",
    });
  }
  const certificates = {
    endorsementKey: base64(endorsementKey),
    // Nodes know AMD's intermediates: AWS hands out the VLEK alone.
    ...(signer === undefined ? {} : { signer: base64(signer) }),
    ...(root === undefined ? {} : { root: base64(root) }),
  };
  return { kind: "snp", report: base64(evidence.report), certificates };
}

function isStale(error: unknown): boolean {
  if (!isKeysteadError(error)) return false;
  if (error.code === "device/busy") return true;
  return error.code === "agent/refused" && String(error.details.code).startsWith("nonce/");
}

const LISTED = "keystead audit SERVICE shows what is listed";
const BY_POLICY = "keystead audit --policy shows what is allowed";
/** What changes a decision. Nodes go by final blocks: what was just done counts minutes later. */
const DENIALS: Readonly<Partial<Record<DecisionName, string>>> = {
  ServiceUnknown: "Check --service and the node's deployment. A new service counts once its block is final.",
  ImageUnknown: `Measure this machine's evidence (keystead measure) and compare: ${LISTED}. A new image is listed by keystead service add-image, and counts once that is final.`,
  ImageRemoved: `Start a machine of an image that is listed: ${LISTED}.`,
  ImagePending: "Time alone changes this: wait, with --wait SECONDS.",
  ImageRetired: `Start a machine of the image that took its place: ${LISTED}.`,
  ServiceTcbNotUpToDate: "Update the platform's firmware: the service insists on TCB status UpToDate.",
  ServiceDeviceNotAllowed: "The service names its machines: keystead service set-device lists this one.",
  ReleasePaused: "The guardian paused all releases. Time alone changes this: wait, with --wait SECONDS.",
  TeeSuspended: `The policy does not take this kind of TEE now: ${BY_POLICY}.`,
  TcbNotAccepted: `Update the platform's firmware, or see which TCB statuses the policy accepts: ${BY_POLICY}.`,
  PlatformNotAllowed: `The platform (firmware, OS) is not allowed: ${BY_POLICY}; keystead propose allow-platform.`,
  DeviceNotAllowed: `The policy names the machines that it allows: ${BY_POLICY}.`,
};

function denied(refusal: KeysteadError): KeysteadError {
  const { decision, block } = refusal.details;
  const passing = PASSING.has(decision);
  return new KeysteadError("agent/denied", refusal.message, {
    argument: "service",
    remedy: DENIALS[decision as DecisionName] ?? "See keystead image check, and the histories of service and policy.",
    retryable: passing,
    details: { decision, block, node: refusal.details.node },
    cause: refusal,
  });
}

function mayPass(error: KeysteadError): boolean {
  return error.retryable;
}

/** A denial says more than a node that is down. */
function mostTelling(failures: readonly KeysteadError[]): KeysteadError {
  const rank = ({ code }: KeysteadError) =>
    ["agent/unreachable", "agent/refused"].includes(code) ? 0 : code === "agent/denied" ? 2 : 1;
  const [first, ...rest] = failures;
  if (first === undefined) {
    return new KeysteadError("usage/no-node", "no node is named", { argument: "node", remedy: "Add --node URL." });
  }
  return rest.reduce((worst, error) => (rank(error) > rank(worst) ? error : worst), first);
}

function describeWait({ code, message, details }: KeysteadError): string {
  if (details.decision === "ImagePending")
    return "this machine's image is registered and waits out the service's notice period (ImagePending)";
  if (details.decision === "ReleasePaused") return "the guardian has paused all releases (ReleasePaused)";
  return `${code}: ${message}`;
}
