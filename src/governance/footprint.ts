import { type Interface, id } from "ethers";
import { type Block, blockParameter } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { KeysteadError } from "../core/errors.ts";
import { type ContractName, INTERFACES } from "./abis.ts";
import { contextOf } from "./check.ts";
import { type RecognisedCall, recogniseCall } from "./decode.ts";
import { deriveExpectedState } from "./effects.ts";
import type { Operation } from "./operation.ts";
import { nameQuestion, type Question } from "./questions.ts";
import { type Call, hex } from "./safe-hash.ts";

/** A view's answer, field by field; a single value has the empty name. */
export type Answer = ReadonlyMap<string, string>;

type Arguments = RecognisedCall["named"];
type Touched = Omit<Question, "contract" | "to">;

const touches = (view: string, args: readonly unknown[], ...free: readonly string[]): Touched => ({
  ...{ view, free },
  arguments: args.map(String),
});

/** Moves with every event of a service, or of the policy. */
const COUNTERS: readonly string[] = ["sequence", "lastUpdateBlock", "historyHead"];
const SERVICE = "service(bytes20)";
const IMAGE = "image(bytes20,bytes32)";

const GUARDIANS = ["guardian", "nextGuardian", "nextGuardianFrom", "formerGuardian", "formerGuardianUntil"];
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const service = (a: Arguments, ...free: readonly string[]): Touched =>
  touches(SERVICE, [a.serviceId], ...COUNTERS, ...free);
const paused = (): readonly Touched[] => [touches("releasePausedUntil()", [], "")];

/** What functions touch beyond what their expected effects name. */
const TOUCHED: Readonly<Partial<Record<ContractName, Readonly<Record<string, (a: Arguments) => readonly Touched[]>>>>> =
  {
    policy: {
      allowPlatform: () => [],
      pauseRelease: paused,
      extendPause: paused,
      resumeRelease: paused,
    },
    registry: {
      addImageToService: (a) => [service(a)],
      addImagesToService: (a) => [service(a)],
      removeImageFromService: (a) => [service(a)],
      removeImagesFromService: (a) => [
        service(a),
        ...list(a.imageIds).map((id) => touches(IMAGE, [a.serviceId, id], "state")),
      ],
      withdrawPendingSecrets: (a) => [service(a)],
      restrictServiceDevices: (a) => [
        service(a, "restrictDevices"),
        ...list(a.devices).map((id) =>
          touches("isDeviceAllowed(bytes20,bytes32)", [a.serviceId, id], "allowed", "allowedFrom"),
        ),
      ],
      retireImageFromService: (a) => [service(a)],
      rotateServiceKey: (a) => [service(a, "keyEpoch", "rotatedAt")],
      publishSealedSecrets: (a) => [service(a)],
      extendNoticePeriod: (a) => [service(a)],
      setServiceGuardian: (a) => [service(a, ...GUARDIANS)],
      setDevice: (a) => [
        service(a, "restrictDevices"),
        touches("isDeviceAllowed(bytes20,bytes32)", [a.serviceId, a.deviceId], "allowed", "allowedFrom"),
      ],
      setRequireUpToDateTcb: (a) => [service(a, "requireUpToDateTcb", "tcbRuleEnds")],
      transferServiceAdmin: (a) => [service(a)],
      acceptServiceAdmin: (a) => [service(a, "admin", "pendingAdmin")],
      renounceServiceAdmin: (a) => [service(a, "pendingAdmin")],
    },
  };

/** Fields that move with the clock wherever their view is touched. */
const CLOCKED: Readonly<Record<string, readonly string[]>> = {
  "platform(bytes32)": ["since"],
  "kmsImage(bytes32)": ["since"],
  [IMAGE]: ["activeFrom", "activeUntil", "kind", "mask", "restrictsDevices"],
  [SERVICE]: COUNTERS,
};

/**
 * Every view that some calls may change: those of their expected effects, and those whose change depends on the state or the time that they meet.
 *
 * @example
 * footprintOf(operation.calls, operation).map(nameQuestion); // ["policy.platform(0x…)"]
 */
export function footprintOf(calls: readonly Call[], operation: Operation): readonly Question[] {
  const context = contextOf(operation);
  const found = new Map<string, Question>();
  const add = (question: Question): void => {
    const key = nameQuestion(question, operation);
    const free = [...(found.get(key)?.free ?? []), ...question.free, ...(CLOCKED[question.view] ?? [])];
    found.set(key, { ...question, free: [...new Set(free)] });
  };
  for (const { contract, to, view, arguments: args } of deriveExpectedState(calls, context).views) {
    add({ contract, to, view, arguments: args, free: [] });
  }
  const open = (call: Call): void => {
    const recognised = recogniseCall(call, context);
    if (recognised === undefined || !recognised.certain) return;
    const { contract, name, named, values } = recognised;
    if (name === "multicall") for (const data of values[0]) open({ ...call, data: hex(String(data)) });
    for (const touched of TOUCHED[contract]?.[name]?.(named) ?? []) add({ ...touched, contract, to: call.to });
  };
  for (const call of calls) open(call);
  return [...found.values()];
}

const ask = (contract: ContractName, to: string, view: string, ...args: readonly string[]): Question => ({
  ...{ contract, to, view, arguments: args, free: [] },
});

/** Facts of the policy that nothing changes in passing, asked beside the footprint so that a change of them is seen. */
export const sentinelsOf = ({ contracts: { policy } }: Operation): readonly Question[] => [
  ...[1, 2, 3, 4].map((kind) => ask("policy", policy, "teeRules(uint8)", `${kind}`)),
  ...["releasePausedUntil()", "gatewayAppId()", "appImplementation()"].map((view) => ask("policy", policy, view)),
];

/**
 * What an operation rests on without changing it: who holds the offices, the delay, the code behind the proxies.
 *
 * @example
 * standingOf(operation).map((question) => nameQuestion(question, operation)); // ["policy.implementation()", …]
 */
export function standingOf(operation: Operation): readonly Question[] {
  const { contracts, timelock, safe, cancellers, rollback } = operation;
  const role = (contract: ContractName, to: string, name: string, account: string) =>
    ask(contract, to, "hasRole(bytes32,address)", roleId(name), account);
  const questions = [
    ask("policy", contracts.policy, "implementation()"),
    ask("registry", contracts.registry, "implementation()"),
    ask("registry", contracts.registry, "POLICY()"),
    ask("timelock", contracts.timelock, "getMinDelay()"),
    role("policy", contracts.policy, "GOVERNOR_ROLE", contracts.timelock),
    role("registry", contracts.registry, "GOVERNOR_ROLE", contracts.timelock),
  ];
  if (timelock !== null) {
    if (timelock.address !== contracts.timelock) questions.push(ask("timelock", timelock.address, "getMinDelay()"));
    for (const name of ["PROPOSER_ROLE", "EXECUTOR_ROLE", "CANCELLER_ROLE"]) {
      questions.push(role("timelock", timelock.address, name, safe.address));
    }
    for (const { address } of cancellers) questions.push(role("timelock", timelock.address, "CANCELLER_ROLE", address));
  }
  for (const { address } of [safe, ...cancellers, ...(rollback === null ? [] : [rollback.safe])]) {
    questions.push(role("policy", contracts.policy, "GUARDIAN_ROLE", address));
  }
  const named = new Map(questions.map((question) => [nameQuestion(question, operation), question]));
  return [...named.values()];
}

function roleId(name: string): string {
  const keystead = name === "GOVERNOR_ROLE" || name === "GUARDIAN_ROLE";
  return id(keystead ? `keystead.${name.replace("_ROLE", "")}` : name);
}

/**
 * Asks a chain.
 *
 * @throws KeysteadError `chain/not-this-contract`; as `Client.request`
 * @example
 * (await askQuestion(client, block, question)).get("state"); // "1"
 */
export async function askQuestion(client: Client, block: Block | "latest", question: Question): Promise<Answer> {
  const abi = INTERFACES[question.contract];
  const data = abi.encodeFunctionData(question.view, question.arguments);
  const tag = block === "latest" ? block : blockParameter(block.number);
  const answer = String(await client.request("eth_call", [{ to: question.to, data }, tag]));
  return decodeAnswer(abi, question, answer);
}

function decodeAnswer(abi: Interface, question: Question, answer: string): Answer {
  const outputs = abi.getFunction(question.view)?.outputs ?? [];
  try {
    const result = abi.decodeFunctionResult(question.view, answer);
    const [only, ...others] = outputs;
    if (only === undefined) throw new Error("the view answers nothing");
    const fields = others.length > 0 ? outputs : only.baseType === "tuple" ? (only.components ?? []) : undefined;
    if (fields === undefined) return new Map([["", textOf(() => result[0], answer)]]);
    const values = others.length > 0 ? result : result[0];
    return new Map(fields.map((field, i) => [field.name, textOf(() => values[i], answer)]));
  } catch (cause) {
    throw new KeysteadError(
      "chain/not-this-contract",
      `${question.to} does not answer ${question.view} as the interface says`,
      {
        argument: "address",
        remedy: "Check the address, the chain, and that the contract existed at that block.",
        details: { address: question.to, view: question.view },
        cause,
      },
    );
  }
}

/** A text that is no UTF-8 makes ethers throw when it is looked at: its bytes stand for it. */
function textOf(read: () => unknown, answer: string): string {
  try {
    const value = read();
    return typeof value === "string" && /^0x[0-9a-fA-F]*$/.test(value) && value.length !== 42
      ? value.toLowerCase()
      : String(value);
  } catch {
    return answer.toLowerCase();
  }
}
