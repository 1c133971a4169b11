import type { Interface, Result } from "ethers/abi";
import { Interface as AbiInterface } from "ethers/abi";
import { TIMELOCK_ABI } from "../../../src/chain/abi/timelock.ts";
import { POLICY, REGISTRY } from "../../../src/chain/reads.ts";
import type { Hex } from "../../../src/core/bytes.ts";
import type { Image } from "../../../src/core/image.ts";
import { type Danger, dangersOf } from "../../../src/protocol/dangers.ts";
import { type Direction, functionRecord } from "../../../src/protocol/functions.ts";
import { formatDuration } from "../format.ts";
import { kindName, readImageBytes, tcbNames } from "./images.ts";

/** Which way a call moves what is trusted. */
export type Lane = "loosens" | "tightens" | "upgrade" | "roles" | "neither" | "unknown";

/** One argument, for people. `text` is untrusted. */
export interface CallArgument {
  readonly name: string;
  readonly text: string;
  readonly image: Image | undefined;
}

/** A call taken apart. */
export interface CallView {
  readonly target: Hex;
  /** The contract of the suite that it goes to; undefined for any other. */
  readonly contract: "policy" | "registry" | "timelock" | undefined;
  /** e.g. `allowPlatform`; undefined: nobody here can read it. */
  readonly name: string | undefined;
  readonly lane: Lane;
  /** What hands over control or takes protection away, by the one catalogue. */
  readonly dangers: readonly Danger[];
  readonly arguments: readonly CallArgument[];
  readonly value: bigint;
  readonly data: Hex;
}

const TIMELOCK = new AbiInterface(TIMELOCK_ABI);

/** The protocol's directions by this page's words. What no one can propose here is not understood. */
const LANES = {
  ...{ loosens: "loosens", tightens: "tightens", neither: "neither" },
  ...{ upgrades: "upgrade", roles: "roles" },
} as const satisfies Readonly<Record<Direction, Lane>>;

/**
 * Takes a call of the timelock apart. It counts as understood only where it goes to a contract of the suite, and where encoding its arguments again
 * gives the same bytes: anything else is read one way here and perhaps another way by the contract.
 *
 * @example
 * readCall(call, { policy, registry, timelock }).name; // "allowPlatform"
 */
export function readCall(
  { target, value, data }: { readonly target: Hex; readonly value: bigint; readonly data: Hex },
  addresses: { readonly policy: Hex; readonly registry: Hex; readonly timelock: Hex | undefined },
): CallView {
  const places = { policy: POLICY, registry: REGISTRY, timelock: TIMELOCK };
  const contract = (["policy", "registry", "timelock"] as const).find((name) => addresses[name] === target);
  const unknown: CallView = {
    target,
    contract,
    name: undefined,
    lane: "unknown",
    dangers: [],
    arguments: [],
    value,
    data,
  };
  if (contract === undefined) return unknown;
  const decoded = decode(places[contract], data);
  if (decoded === undefined) return unknown;
  const { name, values, inputs } = decoded;
  const record = functionRecord(contract, name);
  const lane = record === undefined || record.by === "nobody" ? "unknown" : LANES[record.direction];
  const named = Object.fromEntries(inputs.map((input, index) => [input.name, values[index]]));
  const dangers = dangersOf({ contract, name, named, to: target }, {});
  const list = inputs.map(({ name: argument, type }, index) => {
    const raw: unknown = values[index];
    const image = type === "bytes" && /image$/i.test(argument) ? readImageBytes(String(raw)) : undefined;
    return { name: argument, text: words(argument, raw), image };
  });
  return { ...unknown, name, lane, dangers, arguments: list };
}

function decode(abi: Interface, data: Hex) {
  try {
    const parsed = abi.parseTransaction({ data });
    if (parsed === null || abi.encodeFunctionData(parsed.fragment, parsed.args) !== data) return undefined;
    return { name: parsed.name, values: parsed.args as Result, inputs: parsed.fragment.inputs };
  } catch {
    return undefined; // arguments that do not decode, or a text that is not UTF-8
  }
}

/** Numbers that have a meaning, with it. */
function words(argument: string, value: unknown): string {
  if (typeof value !== "bigint") return show(value);
  if (argument === "kind") return kindName(Number(value));
  if (argument === "statuses") return tcbNames(Number(value)).join(", ") || "none";
  if (argument === "duration" || argument === "newDelay") return formatDuration(Number(value));
  return show(value);
}

function show(value: unknown): string {
  if (typeof value === "object" && value !== null && Symbol.iterator in value) {
    return `(${[...(value as Iterable<unknown>)].map(show).join(", ")})`;
  }
  return String(value);
}
