import { id } from "ethers";
import { type Client, mapLimited } from "../chain/client.ts";
import { IMPLEMENTATION_SLOT, namespaceSlot, policySlots } from "../chain/slots.ts";
import type { Hex } from "../core/bytes.ts";
import { INTERFACES } from "./abis.ts";
import { contextOf, type Difference } from "./check.ts";
import { recogniseCall, type Warning } from "./decode.ts";
import { type ExpectedState, type ExpectedView, UNKNOWN_CALL } from "./effects.ts";
import { type Answer, askQuestion, footprintOf, sentinelsOf, standingOf } from "./footprint.ts";
import type { Change } from "./fork.ts";
import type { Operation } from "./operation.ts";
import { describeQuestion, describeValue, nameField, nameQuestion, type Question } from "./questions.ts";
import type { Call } from "./safe-hash.ts";
import { NONCE_SLOT } from "./safe-setup.ts";
import { mappingSlot } from "./slots.ts";

/** One change as a view tells it. */
export interface DomainChange {
  /** E.g. `policy.platform(0x…).state`. */
  readonly name: string;
  /** The same for people. */
  readonly subject: string;
  readonly before: string;
  readonly after: string;
  /** `expected`: the expected state says so. `follows`: times and counters that move with it, or what depends on the state met. `extra`: nothing says so. */
  readonly verdict: "expected" | "follows" | "extra";
}

/** One raw change, and which view reads it. */
export interface SlotChange extends Change {
  /** Names of views, or of a contract's own bookkeeping; empty where nothing explains it. */
  readonly explained: readonly string[];
}

/** What is looked at before and after. */
export interface Watched {
  readonly question: Question;
  readonly name: string;
  /** Whether the operation may change its answer. */
  readonly touched: boolean;
}

/** What watched views answered, and which slots each of them read. */
export interface Observation {
  readonly watched: readonly Watched[];
  readonly answers: readonly Answer[];
  /** `address/slot` → names of the views that read it. */
  readonly readers: ReadonlyMap<string, readonly string[]>;
}

interface AccessListAnswer {
  readonly accessList: readonly { readonly address: string; readonly storageKeys: readonly string[] }[];
}

const CONCURRENCY = 6;
const INITIALIZABLE_SLOT = namespaceSlot("openzeppelin.storage.Initializable");

/**
 * Every view that is looked at before and after: what the calls may change, what they rest on, and what nothing changes in passing.
 *
 * @example
 * watchedOf(operation, operation.calls).map(({ name }) => name);
 */
export function watchedOf(operation: Operation, calls: readonly Call[]): readonly Watched[] {
  const found = new Map<string, Watched>();
  const add = (questions: readonly Question[], touched: boolean) => {
    for (const question of questions) {
      const name = nameQuestion(question, operation);
      if (!found.has(name)) found.set(name, { question, name, touched });
    }
  };
  add(footprintOf(calls, operation), true);
  add([...standingOf(operation), ...sentinelsOf(operation)], false);
  return [...found.values()];
}

/**
 * Asks all watched views, and which slots each of them reads (`eth_createAccessList`).
 *
 * @throws KeysteadError as `Client.request`
 * @example
 * const before = await observe(fork.client, watchedOf(operation, operation.calls));
 */
export async function observe(client: Client, watched: readonly Watched[]): Promise<Observation> {
  const answers = await mapLimited(watched, CONCURRENCY, ({ question }) => askQuestion(client, "latest", question));
  const readers = new Map<string, string[]>();
  await mapLimited(watched, CONCURRENCY, async ({ question, name }) => {
    const data = INTERFACES[question.contract].encodeFunctionData(question.view, question.arguments);
    const call = { from: `0x${"00".repeat(20)}`, to: question.to, data, gasPrice: "0x0" };
    // the fork is this process's own: its answer has the shape that it has
    const { accessList } = (await client.request("eth_createAccessList", [call, "latest"])) as AccessListAnswer;
    for (const { address, storageKeys } of accessList) {
      for (const slot of storageKeys) {
        const key = `${address.toLowerCase()}/${slot.toLowerCase()}`;
        readers.set(key, [...(readers.get(key) ?? []), name]);
      }
    }
  });
  return { watched, answers, readers };
}

/** What is compared. */
export interface Comparison {
  readonly operation: Operation;
  readonly calls: readonly Call[];
  readonly expected: ExpectedState;
  readonly before: Observation;
  readonly after: Observation;
  readonly raw: readonly Change[];
  /** The way that the calls went: its own bookkeeping is no effect. */
  readonly own: {
    readonly safe: string;
    readonly timelock: string | undefined;
    readonly operationId: string | undefined;
    readonly value: bigint;
  };
}

/**
 * Compares what changed with what was to change, both ways: every expected value must be there, and every change must be expected, follow from one
 * that is, or be the bookkeeping of the contracts on the way.
 *
 * @example
 * compareEffects(comparison).differences; // []
 */
export function compareEffects(comparison: Comparison): {
  readonly changes: readonly DomainChange[];
  readonly slots: readonly SlotChange[];
  readonly differences: readonly Difference[];
  readonly warnings: readonly Warning[];
  readonly unjudged: readonly string[];
} {
  const { operation, calls, expected, before, after, raw } = comparison;
  const differences: Difference[] = [];
  const names = new Map<string, ExpectedView[]>();
  for (const view of expected.views) {
    const question: Question = { ...view, free: [] };
    const name = nameField(nameQuestion(question, operation), view.field);
    names.set(name, [...(names.get(name) ?? []), view]);
  }
  const changes: DomainChange[] = [];
  const found = new Map<string, string>();
  for (const [i, { question, name, touched }] of after.watched.entries()) {
    const then = before.answers[i] ?? new Map<string, string>();
    for (const [field, value] of after.answers[i] ?? []) {
      const full = nameField(name, field);
      found.set(full, value);
      const old = then.get(field) ?? "";
      if (old === value) continue;
      const verdict = names.has(full) ? "expected" : touched && question.free.includes(field) ? "follows" : "extra";
      changes.push({
        ...{ name: full, subject: describeQuestion(question, field), verdict },
        ...{ before: describeValue(question, field, old), after: describeValue(question, field, value) },
      });
      if (verdict === "extra") {
        differences.push({
          field: full,
          code: "simulate/extra",
          message: `it changes from ${JSON.stringify(old)} to ${JSON.stringify(value)}, and expected-state.json does not say so`,
        });
      }
    }
  }
  for (const [name, views] of names) {
    const value = found.get(name);
    for (const view of views) {
      if (value !== undefined && holds(view, value)) continue;
      differences.push({
        field: name,
        code: "simulate/missing",
        message: `afterwards it is ${JSON.stringify(value ?? "not answered")}, expected-state.json says ${view.rule} ${JSON.stringify(view.value)}`,
      });
    }
  }
  const slots = explainSlots(comparison, raw);
  const warnings: Warning[] = [];
  const open = (code: string, message: string) => warnings.push({ severity: "unsure", code, message });
  const unjudged: string[] = [];
  for (const { call, why } of expected.underived) {
    if (why === UNKNOWN_CALL) open("simulate/unknown-call", `call ${call + 1}: ${why}`);
    else unjudged.push(`call ${call + 1}: ${why}`);
  }
  const opaque = calls.some((call) => isOpaque(call, operation));
  for (const { address, kind, slot, before: was, after: is, explained } of slots) {
    if (explained.length > 0) continue;
    const what = kind === "slot" ? `${address} slot ${slot}` : `${address} ${kind}`;
    if (kind === "balance" && BigInt(is) < BigInt(was) && isOwn(address, operation)) {
      const message = `${BigInt(was) - BigInt(is)} wei leave it`;
      differences.push({ field: what, code: "simulate/ether-leaves", message });
    } else if (opaque) open("simulate/unexplained-slot", `${what} changes, and nothing expected reads it`);
    else {
      const message = "it changes, and nothing expected reads it";
      differences.push({ field: what, code: "simulate/extra-slot", message });
    }
  }
  return { changes, slots, differences, warnings, unjudged };
}

/** Whether an account is the deployment's own, or a Safe of the proposal. */
const isOwn = (address: string, operation: Operation): boolean => {
  const { contracts, safe, cancellers, rollback } = operation;
  const own = [
    ...[contracts.policy, contracts.registry, contracts.timelock, safe.address],
    ...cancellers.map((one) => one.address),
    ...(rollback === null ? [] : [rollback.safe.address]),
  ];
  return own.some((one) => one.toLowerCase() === address);
};

/** Whether a call may change what no view here tells: one that nobody knows, one that makes something new, an upgrade that runs an initialiser. */
function isOpaque(call: Call, operation: Operation): boolean {
  const recognised = recogniseCall(call, contextOf(operation));
  if (recognised?.name === "upgradeToAndCall" && recognised.named.data !== "0x") return true;
  return footprintOf([call], operation).length === 0;
}

function holds({ rule, value }: ExpectedView, found: string): boolean {
  if (rule === "equals") return found === value || found.toLowerCase() === value.toLowerCase();
  const overlap = BigInt(found) & BigInt(value);
  return overlap === (rule === "contains" ? BigInt(value) : 0n);
}

function explainSlots(
  { operation, before, after, own, calls }: Comparison,
  raw: readonly Change[],
): readonly SlotChange[] {
  const { policy, registry } = operation.contracts;
  const proxies = [policy, registry].map((address) => address.toLowerCase());
  const touched = new Set([...before.watched, ...after.watched].filter((one) => one.touched).map(({ name }) => name));
  const roleCalls = calls.length > 0 && [...touched].some((name) => name.includes(".hasRole("));
  return raw.map((change) => {
    const { address, kind, slot } = change;
    const explained = new Set<string>();
    if (kind === "slot") {
      const key = `${address}/${slot}`;
      for (const name of [...(before.readers.get(key) ?? []), ...(after.readers.get(key) ?? [])]) {
        if (touched.has(name)) explained.add(name);
      }
      if (address === own.safe.toLowerCase() && slot === NONCE_SLOT) explained.add("the Safe's nonce");
      if (address === own.timelock?.toLowerCase() && own.operationId !== undefined) {
        if (slot === timestampSlot(own.operationId)) explained.add("the timelock's entry of the operation");
        if (roleCalls && slot !== "" && HOLDERS_SLOTS.has(slot)) explained.add("the number of a role's holders");
      }
      if (address === policy.toLowerCase()) {
        const { head, counters } = policySlots();
        if (slot === head) explained.add("the policy's history head");
        if (slot === counters) explained.add("the policy's version and latest block");
      }
      if (proxies.includes(address) && slot === IMPLEMENTATION_SLOT && touched.size > 0) {
        for (const name of touched) if (name.endsWith(".implementation()")) explained.add(name);
      }
      if (proxies.includes(address) && slot === INITIALIZABLE_SLOT) {
        for (const name of touched) if (name.endsWith(".implementation()")) explained.add("the initialised version");
      }
    } else if (kind === "balance" && own.value > 0n) {
      const parties = [
        own.safe,
        own.timelock ?? own.safe,
        ...calls.filter((call) => call.value > 0n).map(({ to }) => to),
      ];
      if (parties.some((party) => party.toLowerCase() === address)) explained.add("the value that is sent");
    }
    return { ...change, explained: [...explained] };
  });
}

/** TimelockController keeps `_timestamps` in slot 1, after AccessControl's `_roles`. */
const timestampSlot = (operationId: string): Hex => mappingSlot(operationId, 1n);

/** GovernanceTimelock counts a role's holders in slot 4, after OpenZeppelin's three and the delay's floor. */
const HOLDERS_SLOTS: ReadonlySet<Hex> = new Set(
  ["PROPOSER_ROLE", "EXECUTOR_ROLE", "CANCELLER_ROLE"].map((role) => mappingSlot(id(role), 4n)),
);
