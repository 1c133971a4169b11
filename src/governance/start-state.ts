import { keccak256 } from "ethers";
import type { Block } from "../chain/block.ts";
import { type Client, mapLimited } from "../chain/client.ts";
import { type Answer, askQuestion, footprintOf, standingOf } from "./footprint.ts";
import type { Fact, Operation, StartState } from "./operation.ts";
import { nameField, nameQuestion, type Question } from "./questions.ts";
import { fetchSafe } from "./safe-state.ts";
import { openReader, safeIn, type WitnessedReader } from "./witnessed.ts";

/** What moved since an operation was proposed. */
export interface Drift {
  /** Whether the state that it was proposed on was recorded: without it nothing can be said. */
  readonly recorded: boolean;
  /** What the operation rests on, or changes, and that is otherwise now: nobody signed for that. */
  readonly moved: readonly Moved[];
  /**
   * What moved and takes nothing away from what was signed: owners of a Safe (whose own code checks its present owners' signatures), and whatever a Safe that
   * does not act here, the guardian above all, can move by itself. Else it could hold up its own removal.
   */
  readonly noted: readonly Moved[];
}

/** One fact that is no longer what it was. */
export interface Moved {
  readonly name: string;
  readonly was: string;
  readonly is: string;
}

/** Fields that move with every event, whoever makes it: no drift. */
const RESTLESS = new Set(["sequence", "lastUpdateBlock", "historyHead"]);
const CONCURRENCY = 8;

/** Every view whose answer an operation's start is recorded with, in an order that follows from the operation alone. */
function questionsOf(operation: Operation): readonly Question[] {
  const found = new Map<string, Question>();
  for (const question of [...footprintOf(operation.calls, operation), ...standingOf(operation)]) {
    const name = nameQuestion(question, operation);
    if (!found.has(name)) found.set(name, question);
  }
  return [...found.values()];
}

/**
 * Reads the state that an operation starts from: what it will change, and what it rests on (offices, delay, code, the Safes' owners and modules). Put
 * into the operation's assumptions, it is what later states are compared with.
 *
 * @throws KeysteadError as `Client.request`; `chain/not-this-contract`, `safe/not-a-safe` where addresses are not what the operation takes them for
 * @example
 * const start = await readStartState(client, await fetchBlock(client, "latest"), operation);
 */
export async function readStartState(
  client: Client,
  block: Block,
  operation: Operation,
  reader: WitnessedReader = openReader(client, block),
): Promise<StartState> {
  const facts: Fact[] = [];
  const questions = questionsOf(operation);
  const answers = await mapLimited(questions, CONCURRENCY, (question) => askQuestion(client, block, question));
  for (const [i, question] of questions.entries()) facts.push(...factsOf(question, answers[i] ?? new Map(), operation));
  for (const address of safesOf(operation)) {
    const { version } = await fetchSafe(client, block, address);
    const safe = await safeIn(reader, address);
    const fact = (field: string, value: string) => facts.push({ name: `safe@${address}.${field}`, value });
    fact("version", version);
    fact("threshold", `${safe.threshold}`);
    fact("owners", [...safe.owners].sort().join(" "));
    fact("singleton", safe.singleton);
    fact("modules", [...safe.modules].sort().join(" "));
    fact("guard", safe.guard);
    fact("fallbackHandler", safe.fallbackHandler);
  }
  for (const address of codesOf(operation)) {
    facts.push({ name: `code@${address}`, value: keccak256(await reader.code(address)) });
  }
  return { block: BigInt(block.number), hash: block.hash, facts };
}

function factsOf(question: Question, answer: Answer, operation: Operation): readonly Fact[] {
  const name = nameQuestion(question, operation);
  return [...answer]
    .filter(([field]) => !RESTLESS.has(field))
    .map(([field, value]) => ({ name: nameField(name, field), value }));
}

const safesOf = ({ safe, cancellers, rollback }: Operation): readonly string[] => [
  ...new Set([safe, ...cancellers, ...(rollback === null ? [] : [rollback.safe])].map(({ address }) => address)),
];

const codesOf = ({ contracts, timelock, safe, calls }: Operation): readonly string[] => [
  ...new Set([
    ...[contracts.policy, contracts.registry, contracts.timelock],
    ...(timelock === null ? [] : [timelock.address]),
    ...[safe.address, ...calls.map(({ to }) => to)],
  ]),
];

/**
 * What is no longer as it was when the operation was proposed.
 *
 * @param reader through it Safes and code are read, to be proven with what else it has read
 * @param part `rollback`: what the operation itself was to change is left out, for it has
 * @returns `recorded: false` where the proposal holds no start state
 * @throws KeysteadError as {@link readStartState}
 * @example
 * (await findDrift(client, block, operation)).moved; // []
 */
export async function findDrift(
  client: Client,
  block: Block,
  operation: Operation,
  part: "operation" | "rollback" = "operation",
  reader: WitnessedReader = openReader(client, block),
): Promise<Drift> {
  const { start } = operation.assumptions;
  if (start === null) return { recorded: false, moved: [], noted: [] };
  const own =
    part === "operation" ? [] : footprintOf(operation.calls, operation).map((q) => nameQuestion(q, operation));
  const now = new Map(
    (await readStartState(client, block, operation, reader)).facts.map(({ name, value }) => [name, value]),
  );
  const then = new Map(start.facts.map(({ name, value }) => [name, value]));
  const all = [...new Set([...then.keys(), ...now.keys()])].flatMap((name): Moved[] => {
    const [before, after] = [then.get(name) ?? "not recorded", now.get(name) ?? "gone"];
    if (before === after || own.some((question) => name === question || name.startsWith(`${question}.`))) return [];
    return [{ name, was: before, is: after }];
  });
  const actor = part === "rollback" ? (operation.rollback?.safe ?? operation.safe) : operation.safe;
  const idle = safesOf(operation).filter((address) => address !== actor.address);
  const noted = all.filter((one) => isNoted(one, actor.address, idle, now));
  return { recorded: true, moved: all.filter((one) => !noted.includes(one)), noted };
}

/** Whether a fact that moved takes nothing away from what was signed. */
function isNoted({ name }: Moved, actor: string, idle: readonly string[], now: ReadonlyMap<string, string>): boolean {
  if (idle.some((safe) => name.startsWith(`safe@${safe}.`) || (name.includes(".hasRole(") && name.includes(safe)))) {
    return true;
  }
  // a lost owner replaced, with nobody less deciding
  const decided = Number(now.get(`safe@${actor}.threshold`) ?? 0) >= 2;
  return name === `safe@${actor}.owners` && decided;
}
