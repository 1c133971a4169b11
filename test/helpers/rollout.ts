import type { Hex } from "../../src/core/bytes.ts";
import { encodeImage, imageId, parseImage } from "../../src/core/image.ts";
import type { ChainFacts, Facts, MachineFacts, NodeFacts } from "../../src/rollout/facts.ts";
import type { Inputs, Measured } from "../../src/rollout/inputs.ts";
import { buildPlan, type Plan } from "../../src/rollout/plan.ts";
import { addressOf } from "./governance.ts";
import { measured as digestOf } from "./images.ts";

/* A rollout of everything at once, and facts about it that tests change one at a time. */

export const CREATED = 1_764_000_000;
export const DAY = 86_400;
export const SERVICE: Hex = `0x${"5e".repeat(20)}`;
export const ADMIN = addressOf(20);
export const OLD_CODE = addressOf(30);
export const NEW_CODE = addressOf(31);

const imageOf = (text: string) => ({ id: imageId(encodeImage(parseImage(text))), text });

/** A version of something by a name: other name, other registers. */
export function version(name: string): Measured {
  const register = (which: string) => digestOf(`${name} ${which}`).slice(2);
  const os = `mrtd=${register("mrtd")},rtmr0=${register("rtmr0")},rtmr1=${register("rtmr1")},rtmr2=${register("rtmr2")}`;
  return {
    measuring: { as: "image", inputs: [`${name}.txt`], options: {}, include: [], exclude: [] },
    image: imageOf(`tdx:${os},rtmr3=${register("rtmr3")}`),
    platform: imageOf(`tdx:${os}`),
    sources: [{ name: `${name}.txt`, sha256: `0x${digestOf(name, 32).slice(2)}` }],
  };
}

export const APP_V1 = version("app 1");
export const APP_V2 = version("app 2");
export const KMS_V1 = version("kms 1");
export const KMS_V2 = version("kms 2");

const node = (name: string) => ({
  ...{ name, url: `https://${name}.example`, vsockProxy: null },
  ...{ stop: `stop ${name}`, start: `start ${name} new`, restore: `start ${name} old` },
});
const machine = (name: string, runs: "old" | "new") => ({
  ...{ name, runs, updates: `https://${name}.example`, quote: null, evidence: null },
  ...{ start: `start ${name}`, stop: `stop ${name}` },
});

/** Everything changes: contracts, platform, KMS image, application. */
export function inputs(changes: Partial<Inputs> = {}): Inputs {
  return {
    ...{ id: "v2", created: CREATED, plannedFor: CREATED + 10 * DAY },
    deployment: {
      ...{ file: "deployment.json", network: "test", chainId: "31337", fromBlock: 1, delaySeconds: 2 * DAY },
      ...{ policy: addressOf(1), registry: addressOf(2), timelock: addressOf(3) },
      ...{ governance: addressOf(10), guardian: addressOf(11) },
    },
    service: {
      ...{ id: SERVICE, admin: ADMIN, adminKind: "account", noticePeriod: 3 * DAY, upgradeable: true, empty: false },
    },
    application: { old: APP_V1, new: APP_V2 },
    kms: { old: KMS_V1, new: KMS_V2, identity: null },
    contracts: [{ contract: "policy", from: OLD_CODE, to: NEW_CODE, codeHash: `0x${"77".repeat(32)}` }],
    nodes: [node("north"), node("south")],
    machines: [machine("web-old", "old"), machine("web-new", "new")],
    backup: { folder: "backup", files: [{ path: "app.json", sha256: `0x${"11".repeat(32)}` }] },
    signers: { governance: [addressOf(40), addressOf(41)], guardian: [addressOf(42)] },
    proposals: { folder: "deploy/proposals", first: 7 },
    cleanup: { image: "retire", graceSeconds: DAY, platform: "revoke", kmsImage: "revoke" },
    already: { platforms: [], tees: ["tdx"], kmsImage: false, image: false, identity: false },
    tcb: {},
    ...changes,
  };
}

export const ALL_SAID: Plan["acknowledgements"] = [
  "changelog-reviewed",
  "tested-outside-production",
  "stakeholders-told",
  "pins-north",
  "pins-south",
  "traffic-switched",
].map((item) => ({ item, by: "Ada", at: CREATED, note: "" }));

export const planOf = (changes: Partial<Inputs> = {}, said = ALL_SAID): Plan => buildPlan(inputs(changes), said);

const safe = (number: number, owners: readonly number[], threshold: number) => ({
  ...{ address: addressOf(number), version: "1.5.0", nonce: 4n, threshold },
  owners: owners.map(addressOf),
});

const entry = (state: "allowed" | "revoked") => ({ state, text: "", changed: CREATED - DAY });
const listed = (status: ChainFacts["images"] extends ReadonlyMap<Hex, infer T> ? T : never) => status;

/** The chain before anything was done. */
export function chainBefore(changes: Partial<ChainFacts> = {}): ChainFacts {
  return {
    ...{ block: 100, time: CREATED + 100, unproven: [], pausedUntil: 0, minDelay: 2 * DAY, operations: [] },
    implementations: { policy: OLD_CODE, registry: OLD_CODE },
    service: { admin: ADMIN, upgradeable: true, noticePeriod: 3 * DAY, keyEpoch: 0 },
    images: new Map([[APP_V1.image.id, listed({ status: "active", until: 0, changed: CREATED - DAY })]]),
    platforms: new Map([APP_V1, KMS_V1].map(({ platform }) => [platform?.id ?? "0x", entry("allowed")])),
    kmsImages: new Map([[KMS_V1.image.id, entry("allowed")]]),
    identities: new Set(),
    receiptSigners: new Set(),
    enabledTees: new Set(["tdx"]),
    governance: safe(10, [40, 41, 43], 2),
    guardian: safe(11, [42, 44], 1),
    admin: undefined,
    ...changes,
  };
}

/** The chain once governance is complete. */
export function chainGoverned(changes: Partial<ChainFacts> = {}): ChainFacts {
  const before = chainBefore();
  return {
    ...before,
    implementations: { policy: NEW_CODE, registry: OLD_CODE },
    images: new Map([
      ...before.images,
      [APP_V2.image.id, listed({ status: "active", until: 0, changed: CREATED + DAY })],
    ]),
    platforms: new Map([
      ...before.platforms,
      ...[APP_V2, KMS_V2].map(({ platform }) => [platform?.id ?? "0x", entry("allowed")] as const),
    ]),
    kmsImages: new Map([...before.kmsImages, [KMS_V2.image.id, entry("allowed")]]),
    ...changes,
  };
}

export const ENVIRONMENT_KEY: Hex = `0x${"ee".repeat(32)}`;

export const nodeUp = (changes: Partial<NodeFacts> = {}): NodeFacts => ({
  ...{ up: true, ready: true, problem: undefined, testTee: false, environmentKey: ENVIRONMENT_KEY, receipts: [] },
  ...changes,
});
export const nodeDown: NodeFacts = {
  ...{ up: false, ready: false, problem: "connection refused", testTee: false },
  ...{ environmentKey: undefined, receipts: undefined },
};
export const machineUp: MachineFacts = { up: true, problem: undefined, quote: undefined, differs: [] };
export const machineGone: MachineFacts = { up: false, problem: "connection refused", quote: undefined, differs: [] };

/** Receipts that show that both images got keys, and that both nodes got the root secret. */
export const DELIVERED = [APP_V1.image.id, APP_V2.image.id].map((id) => ({
  ...{ type: "keys" as const, digest: id as Hex, imageId: id, issuedAt: CREATED + 9 * DAY },
}));
export const JOINED = [1, 2].map((n) => ({
  ...{ type: "root" as const, digest: `0x0${n}` as Hex, imageId: KMS_V2.image.id, issuedAt: CREATED + 8 * DAY + n },
}));

export function facts(changes: Partial<Facts> = {}): Facts {
  return {
    now: CREATED + 100,
    chain: chainBefore(),
    nodes: new Map([
      ["north", nodeUp()],
      ["south", nodeUp()],
    ]),
    machines: new Map([
      ["web-old", machineUp],
      ["web-new", machineGone],
    ]),
    folders: new Set(),
    ...changes,
  };
}
