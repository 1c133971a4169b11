import { fromHex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { imageId } from "../core/image.ts";
import { type ContractName, INTERFACES } from "./abis.ts";
import { type DecodeContext, recogniseCall } from "./decode.ts";
import { identityId } from "./effects.ts";
import type { Operation } from "./operation.ts";
import { nameField, nameQuestion, type Question } from "./questions.ts";
import { type Call, hex } from "./safe-hash.ts";
import type { Arguments } from "./words.ts";

/** An argument of the call that undoes another: a value, anything (why, in somebody's words), or what a view answered before. */
type Wanted =
  | { readonly is: unknown }
  | { readonly any: true }
  | { readonly before: string; readonly field?: string; readonly arguments?: readonly string[] };

interface Undo {
  readonly function: string;
  readonly arguments: readonly Wanted[];
}

const is = (value: unknown): Wanted => ({ is: value });
const ANY: Wanted = { any: true };
const before = (view: string, field = "", ...args: readonly unknown[]): Wanted => ({
  before: view,
  field,
  arguments: args.map(String),
});
const undo = (name: string, ...args: readonly Wanted[]): readonly Undo[] => [{ function: name, arguments: args }];
const idOf = (bytes: unknown): string => imageId(fromHex(String(bytes), "image"));

type Undoing = (a: Arguments) => readonly Undo[];

const ROLES: Readonly<Record<string, Undoing>> = {
  grantRole: (a) => undo("revokeRole", is(a.role), is(a.account)),
  renounceRole: (a) => undo("grantRole", is(a.role), is(a.callerConfirmation)),
};
const GOVERNED: Readonly<Record<string, Undoing>> = {
  ...ROLES,
  upgradeTo: () => undo("upgradeTo", before("implementation()")),
  upgradeToAndCall: () => undo("upgradeTo", before("implementation()")),
};

/** What undoes each call. One direction is enough where the other call's arguments do not hold what is needed: see {@link undoes}. */
const UNDO: Readonly<Partial<Record<ContractName, Readonly<Record<string, Undoing>>>>> = {
  policy: {
    ...GOVERNED,
    allowPlatform: (a) => undo("revokePlatform", is(idOf(a.image)), ANY),
    allowKmsImage: (a) => undo("revokeKmsImage", is(idOf(a.image)), ANY),
    enableTee: (a) => undo("suspendTee", is(a.kind), ANY),
    acceptTcb: (a) => undo("rejectTcb", is(a.kind), is(a.statuses)),
    allowDevice: (a) => undo("revokeDevice", is(a.kind), is(a.deviceId)),
    restrictDevices: (a) => undo("unrestrictDevices", is(a.kind)),
    publishKmsIdentity: (a) => undo("revokeKmsIdentity", is(identityId(a.identity)), ANY),
    setGatewayAppId: () => undo("setGatewayAppId", before("gatewayAppId()")),
    setAppImplementation: () => undo("setAppImplementation", before("appImplementation()")),
    pauseRelease: () => undo("resumeRelease"),
  },
  registry: {
    ...GOVERNED,
    addImageToService: (a) => undo("removeImageFromService", is(a.serviceId), is(idOf(a.newImage)), ANY),
    addImagesToService: (a) =>
      (Array.isArray(a.images) ? a.images : []).flatMap((item) =>
        undo("removeImageFromService", is(a.serviceId), is(idOf(item.image)), ANY),
      ),
    setServiceGuardian: (a) =>
      undo("setServiceGuardian", is(a.serviceId), before("service(bytes20)", "guardian", a.serviceId)),
    setDevice: (a) => undo("setDevice", is(a.serviceId), is(a.deviceId), is(a.allowed !== true)),
    setRequireUpToDateTcb: (a) => undo("setRequireUpToDateTcb", is(a.serviceId), is(a.required !== true)),
  },
  timelock: {
    ...ROLES,
    updateDelay: () => undo("updateDelay", before("getMinDelay()")),
  },
};

/** What a rollback undoes. */
export interface RollbackCheck {
  /** Indexes of the operation's calls that no call of the rollback undoes. */
  readonly left: readonly number[];
  /** Indexes of the rollback's calls that undo no call of the operation. */
  readonly foreign: readonly number[];
  /** Views whose value before is restored by it, and was not recorded. */
  readonly unrecorded: readonly string[];
}

/**
 * Compares a rollback with its operation, call by call: each call of the one must be undone by the other, and nothing besides. What a value was before
 * is read from the recorded start.
 *
 * @example
 * checkUndo(operation, contextOf(operation)); // { left: [], foreign: [], unrecorded: [] }
 */
export function checkUndo(operation: Operation, context: DecodeContext): RollbackCheck {
  const given = operation.rollback?.calls ?? [];
  const parts = given.flatMap((call, index) => apart(call, context).map((part) => ({ part, index })));
  const calls = parts.map(({ part }) => part);
  const facts = new Map((operation.assumptions.start?.facts ?? []).map(({ name, value }) => [name, value]));
  const unrecorded = new Set<string>();
  const used = new Set<number>();
  const take = (matches: (call: Call) => boolean): boolean => {
    const found = calls.findIndex((call, i) => !used.has(i) && matches(call));
    if (found !== -1) used.add(found);
    return found !== -1;
  };
  const left: number[] = [];
  for (const [index, call] of operation.calls.entries()) {
    const wanted = undoing(call, context);
    const done =
      wanted.length > 0
        ? wanted.every((one) => take((back) => matches(one, call, back, { operation, context, facts, unrecorded })))
        : // the other way round: what revokes a platform names it by its id alone
          take((back) => {
            const [only, ...others] = undoing(back, context);
            const setting = { operation, context, facts: new Map(), unrecorded: new Set<string>() };
            return only !== undefined && others.length === 0 && matches(only, back, call, setting);
          });
    if (!done) left.push(index);
  }
  const foreign = [...new Set(parts.flatMap(({ index }, i) => (used.has(i) ? [] : [index])))];
  return { left, foreign, unrecorded: [...unrecorded] };
}

/** One removal of several images as that many removals of one. */
function apart(call: Call, context: DecodeContext): readonly Call[] {
  const recognised = recogniseCall(call, context);
  if (recognised?.certain !== true || recognised.name !== "removeImagesFromService") return [call];
  const [service, images, reason] = recognised.values;
  return [...images].map((image) => ({
    ...call,
    data: hex(INTERFACES.registry.encodeFunctionData("removeImageFromService", [service, image, reason])),
  }));
}

interface Setting {
  readonly operation: Operation;
  readonly context: DecodeContext;
  readonly facts: ReadonlyMap<string, string>;
  readonly unrecorded: Set<string>;
}

function undoing(call: Call, context: DecodeContext): readonly Undo[] {
  const recognised = recogniseCall(call, context);
  if (recognised === undefined || !recognised.certain) return [];
  const { contract, name, named, values } = recognised;
  try {
    if (name === "multicall") {
      return [...values[0]].flatMap((data) => undoing({ to: call.to, value: 0n, data: hex(String(data)) }, context));
    }
    const known = UNDO[contract];
    return known !== undefined && Object.hasOwn(known, name) ? (known[name]?.(named) ?? []) : [];
  } catch (error) {
    // an image that does not parse has no id: nothing undoes it
    if (!isKeysteadError(error)) throw error;
    return [];
  }
}

function matches(wanted: Undo, of: Call, back: Call, setting: Setting): boolean {
  const recognised = recogniseCall(back, setting.context);
  if (recognised === undefined || !recognised.certain || back.to !== of.to || back.value !== 0n) return false;
  if (recognised.name !== wanted.function) return false;
  return wanted.arguments.every((argument, i) => {
    const found = String(recognised.values[i]).toLowerCase();
    if ("any" in argument) return true;
    if ("is" in argument) return found === String(argument.is).toLowerCase();
    const { operation, facts, unrecorded } = setting;
    const question: Question = {
      ...{ contract: recognised.contract, to: back.to, view: argument.before },
      ...{ arguments: argument.arguments ?? [], free: [] },
    };
    const name = nameField(nameQuestion(question, operation), argument.field ?? "");
    const fact = facts.get(name);
    if (fact === undefined) unrecorded.add(name);
    return fact === undefined || fact.toLowerCase() === found;
  });
}
