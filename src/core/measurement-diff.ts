import { type Hex, toHex } from "./bytes.ts";
import { isKeysteadError, KeysteadError } from "./errors.ts";
import { IMAGE_KINDS } from "./image.ts";
import {
  type BuiltImage,
  buildImage,
  DEFAULT_REGISTERS,
  isUnsafe,
  type Measurement,
  platformExclude,
  type RegisterChoice,
  registerValues,
} from "./measurement.ts";

/** What two measurements say about one register. */
export interface RegisterDiff {
  readonly name: string;
  readonly old: Hex | undefined;
  readonly new: Hex | undefined;
  readonly verdict: "same" | "changed" | "only-old" | "only-new";
  /** Whether the service image has it. */
  readonly service: boolean;
  /** Whether the platform image has it. */
  readonly platform: boolean;
}

/** `unknown`: one side lacks a register that the image has. `not-covered`: neither side says anything about such an image. */
export type DiffVerdict = "unchanged" | "changed" | "unknown" | "not-covered";

/** One contract call that registers, or withdraws, an image. */
export interface GovernanceCall {
  readonly contract: "KmsRegistry" | "PlatformPolicy";
  readonly function: string;
  /** In the order of the function; a text in angle brackets is the caller's to fill in. */
  readonly arguments: Readonly<Record<string, string>>;
  readonly who: string;
  /** `required` before the new image gets keys; `cleanup` once nothing runs the old one. */
  readonly when: "required" | "cleanup";
  readonly why: string;
}

/** The answer to the question that an upgrade starts with. */
export interface MeasurementDiff {
  readonly registers: readonly RegisterDiff[];
  readonly service: DiffVerdict;
  readonly platform: DiffVerdict;
  /** Registers that an image should have and neither side says. */
  readonly uncovered: readonly string[];
  /** `undefined`: these inputs cannot tell. */
  readonly governanceNeeded: boolean | undefined;
  readonly calls: readonly GovernanceCall[];
  /** Why a call could not be made ready. */
  readonly problems: readonly string[];
}

/** How two measurements are compared. */
export interface DiffOptions extends RegisterChoice {
  /** What the image is of: a service's machine, or a node of the KMS itself. */
  readonly role?: "service" | "kms-node";
}

/**
 * Compares two measurements of one kind, register by register, and says which calls would register the new one. Where one side is a canonical
 * image, exactly its registers count: what it leaves out matches anything.
 *
 * @throws KeysteadError `measure/different-kinds`, and those of `buildImage` for a bad choice of registers
 * @example
 * diffMeasurements(before, after).service; // "changed"
 */
export function diffMeasurements(before: Measurement, after: Measurement, options: DiffOptions = {}): MeasurementDiff {
  const { kind } = before;
  if (kind !== after.kind) {
    throw new KeysteadError("measure/different-kinds", `${before.kind} and ${after.kind} have no register in common`, {
      argument: "new",
      remedy: "Compare two inputs of one kind.",
      details: { old: before.kind, new: after.kind },
    });
  }
  const selected = {
    service: select(before, after, "service", options),
    platform: select(before, after, "platform", options),
  };
  const registers = IMAGE_KINDS[kind].registers.flatMap(({ name }): RegisterDiff[] => {
    const [old, now] = [before.registers[name]?.value, after.registers[name]?.value];
    if (old === undefined && now === undefined) return [];
    const verdict = old === undefined ? "only-new" : now === undefined ? "only-old" : old === now ? "same" : "changed";
    return [
      {
        name,
        old,
        new: now,
        verdict,
        service: selected.service.includes(name),
        platform: selected.platform.includes(name),
      },
    ];
  });
  const verdictOf = (use: "service" | "platform"): DiffVerdict => {
    const relevant = registers.filter((register) => register[use]);
    if (relevant.some(({ verdict }) => verdict === "changed")) return "changed";
    if (relevant.length === 0) return "not-covered";
    return relevant.some(({ verdict }) => verdict !== "same") ? "unknown" : "unchanged";
  };
  const service = verdictOf("service");
  const platform = verdictOf("platform");
  const problems: string[] = [];
  const fit = !isUnsafe(after);
  if (!fit) problems.push("the new input describes a machine that must not get keys: no call is made ready for it");
  const calls = [
    ...(fit && platform === "changed" ? platformCalls(before, after, options, problems) : []),
    ...(fit && service === "changed" ? serviceCalls(before, after, options, problems) : []),
  ];
  const verdicts = [service, platform];
  const unclear = verdicts.includes("unknown") || verdicts.every((verdict) => verdict === "not-covered");
  return {
    registers,
    service,
    platform,
    uncovered: selected.service.filter((name) => !registers.some((register) => register.name === name)),
    governanceNeeded: verdicts.includes("changed") ? true : unclear ? undefined : false,
    calls,
    problems,
  };
}

/** Inputs that are canonical images: one given, or one registered on a chain. */
const IMAGE_INPUTS: ReadonlySet<string> = new Set(["image", "registered"]);

/** The registers that count for a use. */
function select(
  before: Measurement,
  after: Measurement,
  use: "service" | "platform",
  options: DiffOptions,
): readonly string[] {
  const image = [before, after].find(({ input }) => IMAGE_INPUTS.has(input));
  if (image !== undefined) {
    const names = Object.keys(image.registers);
    const complete = IMAGE_KINDS[image.kind].required.service.every((name) => names.includes(name));
    // an image that is complete for no service is a platform: then all of it counts as one
    if (use === "service") return complete ? names : [];
    return complete ? names.filter((name) => DEFAULT_REGISTERS[image.kind].platform.includes(name)) : names;
  }
  const chosen = use === "service" ? (options.include ?? []) : [];
  const dropped = use === "service" ? (options.exclude ?? []) : platformExclude(before.kind, options.exclude ?? []);
  return IMAGE_KINDS[before.kind].registers
    .map(({ name }) => name)
    .filter(
      (name) =>
        (DEFAULT_REGISTERS[before.kind][use].includes(name) || chosen.includes(name)) && !dropped.includes(name),
    );
}

function build(
  measurement: Measurement,
  use: "service" | "platform",
  names: readonly string[],
  problems: string[] | undefined,
): BuiltImage | undefined {
  const values = registerValues(measurement);
  const defaults = DEFAULT_REGISTERS[measurement.kind][use];
  try {
    return buildImage(measurement.kind, values, use, {
      include: names.filter((name) => !defaults.includes(name)),
      exclude: defaults.filter((name) => !names.includes(name)),
    });
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    problems?.push(`no ${use} image can be made of the new input: ${error.message} (${error.code})`);
    return undefined;
  }
}

function platformCalls(
  before: Measurement,
  after: Measurement,
  options: DiffOptions,
  problems: string[],
): GovernanceCall[] {
  const names = select(before, after, "platform", options);
  const next = build(after, "platform", names, problems);
  if (next === undefined) return [];
  const previous = build(before, "platform", names, undefined);
  const calls: GovernanceCall[] = [
    {
      contract: "PlatformPolicy",
      function: "allowPlatform",
      arguments: { image: toHex(next.bytes), description: "<description>" },
      who: "the governor: a governance Safe through the timelock",
      when: "required",
      why: "firmware or operating system changed; no key is released to it before it is allowed (unless it already is)",
    },
  ];
  if (previous !== undefined && previous.id !== next.id) {
    calls.push({
      contract: "PlatformPolicy",
      function: "revokePlatform",
      arguments: { platformId: previous.id, reason: "<reason>" },
      who: "the guardian Safe, or the governor",
      when: "cleanup",
      why: "the old platform stays acceptable until it is revoked; revoke it once no service runs on it",
    });
  }
  return calls;
}

function serviceCalls(
  before: Measurement,
  after: Measurement,
  options: DiffOptions,
  problems: string[],
): GovernanceCall[] {
  const names = select(before, after, "service", options);
  const next = build(after, "service", names, problems);
  if (next === undefined) return [];
  const previous = build(before, "service", names, undefined);
  const image = toHex(next.bytes);
  const replaced = previous === undefined || previous.id === next.id ? undefined : previous.id;
  return options.role === "kms-node" ? nodeCalls(image, replaced) : imageCalls(image, replaced);
}

function nodeCalls(image: Hex, replaced: Hex | undefined): GovernanceCall[] {
  const calls: GovernanceCall[] = [
    {
      contract: "PlatformPolicy",
      function: "allowKmsImage",
      arguments: { image, description: "<description>" },
      who: "the governor: a governance Safe through the timelock",
      when: "required",
      why: "a node of the new image gets the root secret from a running node only when its image is allowed; where it brings keys of its own, publishKmsIdentity follows",
    },
  ];
  if (replaced !== undefined) {
    calls.push({
      contract: "PlatformPolicy",
      function: "revokeKmsImage",
      arguments: { imageId: replaced, reason: "<reason>" },
      who: "the guardian Safe, or the governor",
      when: "cleanup",
      why: "nodes of the old image could join until it is revoked",
    });
  }
  return calls;
}

function imageCalls(image: Hex, replaced: Hex | undefined): GovernanceCall[] {
  const calls: GovernanceCall[] = [
    {
      contract: "KmsRegistry",
      function: "addImageToService",
      arguments: { serviceId: "<service id>", image, description: "<description>" },
      who: "the service's admin",
      when: "required",
      why: "the new image gets keys after the service's notice period; a service that is not upgradeable never takes one",
    },
  ];
  if (replaced !== undefined) {
    calls.push({
      contract: "KmsRegistry",
      function: "retireImageFromService",
      arguments: { serviceId: "<service id>", imageId: replaced, lastMoment: "<unix seconds>" },
      who: "the service's admin",
      when: "cleanup",
      why: "the old image keeps getting keys until it is retired or removed",
    });
  }
  return calls;
}
