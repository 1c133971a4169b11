import { type Denial, denyByPolicy, denyByService, openQuestions } from "../../../src/audit/accept.ts";
import type { SuiteAudit } from "../../../src/audit/all.ts";
import type { Audit, PolicyAudit, ServiceAudit } from "../../../src/audit/result.ts";
import { type Basis, type ImageStanding, type PolicyStanding, standingOf } from "../../../src/audit/standing.ts";
import type { Hex } from "../../../src/core/bytes.ts";
import { IMAGE_KINDS, type Image } from "../../../src/core/image.ts";
import type { PolicyEntry } from "../../../src/core/policy-state.ts";
import { imageStatus, type ServiceImage, viewService } from "../../../src/core/state.ts";
import type { Reading } from "./evidence.ts";
import { readImageBytes } from "./images.ts";

/*
 * Which services and platforms would accept what evidence claims, from verified histories alone. An image matches only if every register that it names is
 * in the evidence with that value: a register that the evidence lacks is no match.
 */

/** How an image's registers compare with evidence. */
export interface Comparison {
  readonly image: Image;
  readonly same: readonly string[];
  readonly differs: readonly string[];
  /** Named by the image and not in the evidence. */
  readonly absent: readonly string[];
}

/** A platform of the policy, and how it compares. */
export interface PlatformMatch {
  readonly entry: PolicyEntry;
  readonly comparison: Comparison;
}

/** A registered image, where it stands, and whether a machine that is what the evidence claims would get its service's keys. */
export interface ServiceMatch {
  readonly serviceId: Hex;
  readonly description: string;
  readonly standing: ImageStanding;
  readonly comparison: Comparison;
  /** Undefined: nothing known here speaks against it. */
  readonly denial: Denial | undefined;
  readonly open: readonly string[];
  /** What this rests on: `unknown` where a history holds events that this version does not know, so that nothing can be said. */
  readonly rests: "proven" | "endpoint" | "unknown";
}

/** A registered image that is not the evidence's, but near it. */
export interface NearMiss {
  readonly serviceId: Hex;
  readonly imageId: Hex;
  readonly description: string;
  readonly comparison: Comparison;
}

/** Everything that was found about some evidence. */
export interface CheckResult {
  readonly reading: Reading;
  /** Why no node would take this evidence, whatever is registered. */
  readonly unsafe: readonly string[];
  readonly matches: readonly ServiceMatch[];
  readonly near: readonly NearMiss[];
  /** Platforms that match, allowed ones first. */
  readonly platforms: readonly PlatformMatch[];
  readonly nearPlatforms: readonly PlatformMatch[];
  /** Services whose history does not verify: nothing is said about them. */
  readonly unverified: readonly Hex[];
  /** dstack images that may have keys now: their registers come from dstack's event log, and no quote alone can be compared with them. */
  readonly incomparable: number;
  /** Whether the policy's history verifies. */
  readonly policyVerified: boolean;
}

/** Near misses that are shown. */
const NEAREST = 5;

/**
 * Compares a registered image with evidence; undefined where they are of different kinds.
 *
 * @example
 * compareRegisters(image, reading)?.differs; // ["rtmr3"]
 */
export function compareRegisters(
  image: Image,
  { kind, registers }: Pick<Reading, "kind" | "registers">,
): Comparison | undefined {
  if (image.kind !== kind) return undefined;
  const named = Object.entries(image.registers);
  const claimed = (name: string) => (Object.hasOwn(registers, name) ? registers[name] : undefined);
  const names = (wanted: (name: string, value: Hex) => boolean) =>
    named.filter(([name, value]) => wanted(name, value)).map(([name]) => name);
  return {
    image,
    same: names((name, value) => claimed(name) === value),
    differs: names((name, value) => claimed(name) !== undefined && claimed(name) !== value),
    absent: names((name) => claimed(name) === undefined),
  };
}

const isMatch = ({ same, differs, absent }: Comparison) => same.length > 0 && differs.length + absent.length === 0;
const distance = ({ differs, absent }: Comparison) => differs.length + absent.length;

/**
 * Judges evidence against every service and platform.
 *
 * @param now seconds since 1970; beside the block's time, at which everything must hold too
 * @example
 * judgeEvidence(readEvidence(bytes), suite, Date.now() / 1000).matches[0]?.denial?.decision;
 */
export function judgeEvidence(reading: Reading, suite: SuiteAudit, now: number): CheckResult {
  const { block } = suite;
  const policy = suite.policy.verdict === "broken" ? undefined : suite.policy.state;
  const compared = [...(policy?.platforms.values() ?? [])].flatMap((entry): PlatformMatch[] => {
    const comparison = compareEntry(entry.image, reading);
    return comparison === undefined ? [] : [{ entry, comparison }];
  });
  const platforms = compared
    .filter(({ comparison }) => isMatch(comparison))
    .sort((a, b) => Number(b.entry.state === "allowed") - Number(a.entry.state === "allowed"));
  const nearPlatforms = nearest(compared.filter(({ comparison }) => !isMatch(comparison)));

  const matches: ServiceMatch[] = [];
  const near: NearMiss[] = [];
  const unverified: Hex[] = [];
  let incomparable = 0;
  for (const audit of suite.services) {
    const { state, serviceId } = audit;
    if (state === undefined || audit.verdict === "broken") {
      unverified.push(serviceId);
      continue;
    }
    for (const registered of state.images.values()) {
      const { imageId, image, description } = registered;
      const comparison = compareEntry(image, reading);
      if (comparison === undefined) {
        if (registered.kind === IMAGE_KINDS.dstack.byte && mayHaveKeys(registered, block.timestamp)) incomparable += 1;
        continue;
      }
      const about = { serviceId, description: state.description, comparison };
      if (isMatch(comparison))
        matches.push({ ...about, ...judgeImage(audit, imageId, suite, platforms, reading, now) });
      else near.push({ serviceId, imageId, description, comparison });
    }
  }
  matches.sort((a, b) => Number(a.denial !== undefined) - Number(b.denial !== undefined));
  return {
    reading,
    unsafe: reading.findings.filter(({ severity }) => severity === "unsafe").map(({ message }) => message),
    matches,
    near: nearest(near),
    platforms,
    nearPlatforms,
    unverified,
    incomparable,
    policyVerified: policy !== undefined,
  };
}

function mayHaveKeys(image: ServiceImage, now: number): boolean {
  return ["active", "retiring"].includes(imageStatus(image, now));
}

function judgeImage(
  audit: ServiceAudit,
  imageId: Hex,
  { block, policy, code }: SuiteAudit,
  platforms: readonly PlatformMatch[],
  reading: Reading,
  now: number,
): Pick<ServiceMatch, "standing" | "denial" | "open" | "rests"> {
  const basis = restsOf(audit);
  const standing = standingOf(audit.serviceId, imageId, audit.state, audit.entries, block.timestamp, basis);
  const later = Math.max(now, block.timestamp);
  const standingLater = standingOf(audit.serviceId, imageId, audit.state, audit.entries, later, basis);
  const kind = IMAGE_KINDS[reading.kind].byte;
  const rules = policy.verdict === "broken" ? undefined : policy.state;
  const open = [...openQuestions(standing, policyStanding(policy), true)];
  if (rules?.tees.get(kind)?.devicesRestricted === true) {
    open.push("Whether the machine is one of the devices that the policy lists for this kind.");
  }
  if (audit.state !== undefined && viewService(audit.state, block.timestamp).requireUpToDateTcb) {
    open.push("Whether its TCB status is UpToDate: the service takes no other.");
  }
  if (audit.verdict !== "proven") open.push("Whether the service's history is complete: it is not proven here.");
  if (policy.verdict !== "proven") open.push("Whether the policy's history is complete: it is not proven here.");
  const unknownPolicy: Denial = {
    decision: "PlatformNotAllowed",
    message: "the policy's history does not verify, so nothing is known to be allowed",
  };
  const denial =
    denyByService(standing, block.timestamp) ??
    denyByService(standingLater, later) ??
    (rules === undefined ? unknownPolicy : denyByPolicy(rules, kind, { entry: platforms[0]?.entry }, block.timestamp));
  // a false proof of the contracts' own code: no proof of this endpoint counts
  const falseCode = [code.registry, code.policy].some(({ faults }) => faults.length > 0);
  const rests = worstRests([audit, policy]);
  return { standing, denial, open, rests: falseCode && rests === "proven" ? "endpoint" : rests };
}

function worstRests(audits: readonly Audit<unknown, unknown>[]): ServiceMatch["rests"] {
  if (audits.some(({ reasons }) => reasons.some(({ code }) => code === "unknown-events"))) return "unknown";
  return audits.every(({ verdict }) => verdict === "proven") ? "proven" : "endpoint";
}

function policyStanding(audit: PolicyAudit): PolicyStanding | undefined {
  const { state } = audit;
  if (state === undefined) return undefined;
  const platform = (id: Hex) => state.platforms.get(id);
  return { audit, state, rests: restsOf(audit), platform, kmsImage: (id) => state.kmsImages.get(id) };
}

function restsOf({ verdict, basis, reasons }: Audit<unknown, unknown>): Basis {
  return { verdict: verdict === "proven" ? "proven" : "consistent", basis, reasons };
}

function compareEntry(bytes: Hex, reading: Reading): Comparison | undefined {
  const image = readImageBytes(bytes);
  return image === undefined ? undefined : compareRegisters(image, reading);
}

function nearest<T extends { readonly comparison: Comparison }>(list: readonly T[]): readonly T[] {
  return list
    .filter(({ comparison }) => comparison.same.length > 0)
    .sort((a, b) => distance(a.comparison) - distance(b.comparison))
    .slice(0, NEAREST);
}
