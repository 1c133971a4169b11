import type { ContractName } from "./abis.ts";
import type { OperationContracts } from "./operation.ts";
import { formatTime, kindName, roleName, tcbNames } from "./words.ts";

/** A view whose answer an operation may change, or rests on. */
export interface Question {
  readonly contract: ContractName;
  readonly to: string;
  /** Signature of the view. */
  readonly view: string;
  readonly arguments: readonly string[];
  /** Fields of the answer that may change although no expected state names them: times, counters, what follows from the state met. */
  readonly free: readonly string[];
}

/**
 * A question in one line: the same question always has the same name, and no other has it.
 *
 * @example
 * nameQuestion(question, operation); // "policy.teeRules(1)"
 */
export function nameQuestion(
  { contract, to, view, arguments: args }: Question,
  { contracts }: { readonly contracts: OperationContracts },
): string {
  const known =
    (contract === "policy" || contract === "registry" || contract === "timelock") && contracts[contract] === to;
  return `${contract}${known ? "" : `@${to}`}.${view.slice(0, view.indexOf("("))}(${args.join(", ")})`;
}

/** A field of a question's answer in one line. */
export const nameField = (question: string, field: string): string =>
  field === "" ? question : `${question}.${field}`;

const STATES: Readonly<Record<string, readonly string[]>> = {
  "platform(bytes32).state": ["never allowed", "allowed", "revoked"],
  "kmsImage(bytes32).state": ["never allowed", "allowed", "revoked"],
  "kmsIdentity(bytes32).": ["never published", "trusted", "revoked"],
  "image(bytes20,bytes32).state": ["never listed", "listed", "removed"],
};
const TIMES = new Set(["since", "activeFrom", "activeUntil", "tcbRuleEnds", "nextGuardianFrom", "allowedFrom"]);

/**
 * A value of an answer as people read it, beside what the chain says.
 *
 * @example
 * describeValue(question, "state", "1"); // "allowed (1)"
 */
export function describeValue({ view }: Pick<Question, "view">, field: string, value: string): string {
  const states = STATES[`${view}.${field}`];
  if (states !== undefined) return `${states[Number(value)] ?? "unknown"} (${value})`;
  if (!/^\d+$/.test(value)) return value;
  if (field === "acceptedTcb") return `${tcbNames(value)} (${value})`;
  if (field === "kind") return value === "0" ? "none (0)" : `${kindName(value)} (${value})`;
  if (TIMES.has(field) || view === "releasePausedUntil()") {
    return value === "0" ? "never (0)" : `${formatTime(BigInt(value))} (${value})`;
  }
  return value;
}

/**
 * A question as people read it.
 *
 * @example
 * describeQuestion(question, "enabled"); // "TDX rules: enabled"
 */
export function describeQuestion({ contract, view, arguments: args }: Question, field: string): string {
  const [first = "", second = ""] = args;
  const what: Readonly<Record<string, string>> = {
    "platform(bytes32)": `platform ${first}`,
    "kmsImage(bytes32)": `KMS image ${first}`,
    "kmsIdentity(bytes32)": `KMS identity ${first}`,
    "teeRules(uint8)": `${/^\d+$/.test(first) ? kindName(first) : first} rules`,
    "isDeviceListed(uint8,bytes32)": `${/^\d+$/.test(first) ? kindName(first) : first} device ${second} listed`,
    "isDeviceAllowed(bytes20,bytes32)": `service ${first}, device ${second}`,
    "releasePausedUntil()": "releases paused until",
    "gatewayAppId()": "gateway app id",
    "appImplementation()": "app implementation",
    "implementation()": `${contract} implementation`,
    "getMinDelay()": "timelock minimum delay (s)",
    "hasRole(bytes32,address)": `${contract}: ${second} holds ${roleName(first)}`,
    "POLICY()": "the registry's policy",
    "service(bytes20)": `service ${first}`,
    "image(bytes20,bytes32)": `service ${first}, image ${second}`,
  };
  const subject = what[view] ?? `${contract}.${view}`;
  return field === "" ? subject : `${subject}: ${field}`;
}
