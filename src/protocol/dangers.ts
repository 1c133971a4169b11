import { functionRecord, type GovernedContractName } from "./functions.ts";
import { type Party, ROLE_MATRIX } from "./roles.ts";

/**
 * How a danger is judged. `unsafe`: it hands over control, or takes away what protects; nothing that is said about the calls makes that good.
 * `unsure`: whether it does follows from what is not at hand.
 */
export type DangerSeverity = "unsafe" | "unsure";

/** Why a call must not be signed without somebody explaining it. */
export interface Danger {
  /** Stable, e.g. `danger/safe-module`: what `--accept` takes. */
  readonly code: DangerCode;
  readonly severity: DangerSeverity;
  readonly message: string;
}

/** What each code is for; `keystead verify --help` lists them. */
export const DANGERS = {
  "danger/safe-module": "a module acts for a Safe without any signature",
  "danger/safe-guard": "a guard can block, and so hold hostage, every transaction of a Safe",
  "danger/safe-handler": "a fallback handler answers for a Safe, signatures of contracts included",
  "danger/safe-owners": "another key signs for a Safe",
  "danger/safe-threshold": "fewer owners decide for a Safe",
  "danger/safe-singleton": "a Safe runs other code",
  "danger/safe-approval": "a Safe approves a transaction that is not shown",
  "danger/role-granted": "a role goes to an account that the published matrix does not give it to",
  "danger/role-taken": "an account loses a role that the published matrix gives it",
  "danger/delay": "operations wait for less time, or for so long that nothing can be mended",
  "danger/ether": "ether leaves",
  "danger/unknown-call": "nobody here can read the call",
  "danger/unknown-target": "the call goes to an address that is not of the deployment",
  "danger/delegatecall": "foreign code runs with an account's own rights",
} as const;
export type DangerCode = keyof typeof DANGERS;

/** What is known of a deployment from elsewhere than the proposal: its record. Without it, whatever depends on it is unsure. */
export interface KnownParties {
  readonly parties?: Readonly<Record<Party, string>> | undefined;
  /** The timelock's recorded minimum delay, seconds. */
  readonly delay?: bigint | undefined;
  /** Safe's published fallback handlers. */
  readonly handlers?: readonly string[] | undefined;
}

/** A call with its arguments by the names that the ABI gives them. */
export interface NamedCall {
  readonly contract: GovernedContractName | "safe" | "multiSend";
  readonly name: string;
  readonly named: Readonly<Record<string, unknown>>;
  /** The address that it goes to, where one is known. */
  readonly to: string | undefined;
}

/** OpenZeppelin's DEFAULT_ADMIN_ROLE. */
const ADMIN_ROLE = `0x${"00".repeat(32)}`;
const ZERO = `0x${"00".repeat(20)}`;
/** GovernanceTimelock's own bound, which `keystead lint` draws too. */
export const LONGEST_DELAY = 30n * 86_400n;

const same = (a: unknown, b: unknown): boolean => String(a).toLowerCase() === String(b).toLowerCase();
const unsafe = (code: DangerCode, message: string): readonly Danger[] => [{ code, severity: "unsafe", message }];
const unsure = (code: DangerCode, message: string): readonly Danger[] => [{ code, severity: "unsure", message }];
const NONE: readonly Danger[] = [];

type Rule = (call: NamedCall, known: KnownParties) => readonly Danger[];

/** Functions of a Safe, by name: all that change who decides for it. */
const SAFE_RULES: Readonly<Record<string, Rule>> = {
  enableModule: ({ named }) =>
    unsafe("danger/safe-module", `module ${named.module} could do anything in this Safe's name, without a signature`),
  setGuard: ({ named }) =>
    same(named.guard, ZERO)
      ? NONE
      : unsafe("danger/safe-guard", `guard ${named.guard} could block every transaction of this Safe`),
  setModuleGuard: ({ named }) =>
    same(named.moduleGuard, ZERO)
      ? NONE
      : unsafe("danger/safe-guard", `module guard ${named.moduleGuard} could block this Safe's modules`),
  setFallbackHandler: ({ named }, { handlers = [] }) =>
    handlers.some((handler) => same(handler, named.handler))
      ? NONE
      : unsafe("danger/safe-handler", `${named.handler} is not a fallback handler that Safe published`),
  addOwnerWithThreshold: ({ named }) =>
    unsafe("danger/safe-owners", `${named.owner} would sign for this Safe, ${named._threshold} owners would decide`),
  removeOwner: ({ named }) =>
    unsafe("danger/safe-owners", `${named.owner} would no longer sign, ${named._threshold} owners would decide`),
  swapOwner: ({ named }) =>
    unsafe("danger/safe-owners", `${named.newOwner} would sign for this Safe in place of ${named.oldOwner}`),
  changeThreshold: ({ named }) =>
    BigInt(String(named._threshold)) < 2n
      ? unsafe("danger/safe-threshold", "any single owner would decide for this Safe")
      : unsure("danger/safe-threshold", `${named._threshold} owners would decide: whether that is fewer is not known`),
  changeMasterCopy: ({ named }) =>
    unsafe("danger/safe-singleton", `this Safe would run the code of ${named._masterCopy}`),
  approveHash: ({ named }) =>
    unsafe("danger/safe-approval", `it approves ${named.hashToApprove}, a transaction that is not shown here`),
};

/** What the matrix says about a role's holder. */
function holds(contract: string, role: unknown, account: unknown, known: KnownParties): boolean | undefined {
  const row = ROLE_MATRIX.find((entry) => entry.contract === contract && same(entry.id, role));
  if (row === undefined) return false;
  const { parties } = known;
  if (parties === undefined) return undefined;
  return row.holders.some((party) => same(parties[party], account));
}

const roleName = (role: unknown): string => ROLE_MATRIX.find(({ id }) => same(id, role))?.role ?? `role ${role}`;

const granted: Rule = ({ contract, named, to }, known) => {
  const { role, account } = named;
  const name = roleName(role);
  if (contract === "timelock" && same(role, ADMIN_ROLE) && !same(account, to)) {
    return unsafe("danger/role-granted", `${account} could reassign every role of the timelock at once, with no delay`);
  }
  if (same(account, ZERO)) return unsafe("danger/role-granted", `everybody would hold ${name}`);
  const held = holds(contract, role, account, known);
  if (held === true) return NONE;
  if (held === undefined) {
    return unsure(
      "danger/role-granted",
      `${account} would hold ${name} of the ${contract}: name the deployment's record, which says whose that role is`,
    );
  }
  return unsafe("danger/role-granted", `${account} would hold ${name}, which the record gives to others`);
};

const taken: Rule = ({ contract, named }, known) => {
  const { role } = named;
  const account = named.account ?? named.callerConfirmation;
  const held = holds(contract, role, account, known);
  if (held === false) return NONE;
  if (held === undefined) {
    return unsure(
      "danger/role-taken",
      `${account} would lose ${roleName(role)}: name the deployment's record, which says whether it is to hold it`,
    );
  }
  return unsafe("danger/role-taken", `${account} would lose ${roleName(role)}, which the record gives it`);
};

/** Functions of the contracts, by name; what is not here carries no danger beyond its direction. */
const RULES: Readonly<Record<string, Rule>> = {
  grantRole: granted,
  revokeRole: taken,
  renounceRole: taken,
  updateDelay: ({ named }, { delay }) => {
    const next = BigInt(String(named.newDelay));
    if (next === 0n) return unsafe("danger/delay", "an operation could be executed as soon as it is scheduled");
    if (next > LONGEST_DELAY) return unsafe("danger/delay", "nothing could be mended for more than 30 days");
    if (delay === undefined) return unsure("danger/delay", "whether that is shorter than now is not known here");
    return next < delay ? unsafe("danger/delay", `it is shorter than the present ${delay} s`) : NONE;
  },
};

/**
 * What is dangerous about a call, from its function and arguments. It is the one list for `verify`, `sign`, `simulate`, `lint` and the explorer.
 *
 * @example
 * dangersOf({ contract: "safe", name: "enableModule", named: { module }, to }, {})[0]?.code; // "danger/safe-module"
 */
export function dangersOf(call: NamedCall, known: KnownParties): readonly Danger[] {
  const { contract, name } = call;
  const rules = contract === "safe" ? SAFE_RULES : RULES;
  if (contract === "multiSend" || !Object.hasOwn(rules, name)) return NONE;
  if (contract !== "safe" && functionRecord(contract, name) === undefined) return NONE;
  return rules[name]?.(call, known) ?? NONE;
}

/** Ether that a call sends: to whom, and that it is gone. */
export const etherDanger = (value: bigint, to: string | undefined): Danger => ({
  code: "danger/ether",
  severity: "unsafe",
  message: `${value} wei leave for ${to ?? "an unknown address"}: nothing that Keystead does needs ether`,
});
