import { getAddress, Interface, type LogDescription } from "ethers";
import type { Client } from "../chain/client.ts";
import type { Deployment } from "../chain/deployment.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import type { RawLog } from "../core/events.ts";
import { quoteText } from "../core/text.ts";
import { INTERFACES } from "./abis.ts";
import { recogniseCall } from "./decode.ts";
import type { StoredProposal } from "./folder.ts";
import type { Operation } from "./operation.ts";
import { type Call, hex, MULTI_SEND_CALL_ONLY, unpackMultiSend } from "./safe-hash.ts";
import { type FoundSignature, readSignatures } from "./signatures.ts";
import type { LoggedOperation } from "./timelock-log.ts";
import { planStep } from "./transactions.ts";
import { roleName } from "./words.ts";

/** One thing that happened, and the proposal that it belongs to. */
export interface GovernanceEvent {
  readonly contract: "timelock" | "policy" | "registry" | "governance Safe" | "guardian Safe";
  /** The event's name, e.g. `RoleGranted`. */
  readonly name: string;
  /** In one line; texts from the chain are quoted. */
  readonly words: string;
  readonly block: number;
  readonly transactionHash: Hex;
  readonly logIndex: number;
  /** A proposal's folder, `deployment` for what happened when it was made, or null: nobody proposed it. */
  readonly proposal: string | null;
}

/** What is attributed. */
export interface Ledger {
  readonly deployment: Deployment;
  readonly proposals: ReadonlyMap<string, StoredProposal>;
  readonly operations: readonly (LoggedOperation & { readonly proposal: string | null })[];
  readonly timelock: readonly RawLog[];
  readonly policy: readonly RawLog[];
  readonly registry: readonly RawLog[];
  /** Logs of the two offices' Safes. */
  readonly safes: ReadonlyMap<string, readonly RawLog[]>;
}

/** What changes who controls a Safe; its other events carry no change of its own. Indexing differs between releases, topics don't. */
const SAFE_EVENTS = new Interface([
  "event AddedOwner(address owner)",
  "event RemovedOwner(address owner)",
  "event ChangedThreshold(uint256 threshold)",
  "event EnabledModule(address module)",
  "event DisabledModule(address module)",
  "event ChangedGuard(address guard)",
  "event ChangedModuleGuard(address moduleGuard)",
  "event ChangedFallbackHandler(address handler)",
  "event ChangedMasterCopy(address singleton)",
  "event ExecutionFromModuleSuccess(address module)",
]);
const SAFE_TOPICS = new Map(
  SAFE_EVENTS.fragments.flatMap((fragment): [string, string][] =>
    "topicHash" in fragment && "name" in fragment ? [[String(fragment.topicHash), String(fragment.name)]] : [],
  ),
);
/** Where Safe's own MultiSendCallOnly lives, of any release. */
const MULTI_SENDS: ReadonlySet<string> = new Set(Object.values(MULTI_SEND_CALL_ONLY).flat());
const EXEC = INTERFACES.safe.getFunction("execTransaction");

/** The event that a call makes its contract emit; a call may emit none where it changes nothing. */
function eventOf(name: string): readonly string[] {
  if (name === "upgradeTo" || name === "upgradeToAndCall") return ["Upgraded", "Initialized"];
  if (name === "grantRole") return ["RoleGranted"];
  if (name === "revokeRole" || name === "renounceRole") return ["RoleRevoked"];
  if (name === "updateDelay") return ["MinDelayChange"];
  if (name === "cancel") return ["Cancelled"];
  if (name === "addOwnerWithThreshold") return ["AddedOwner", "ChangedThreshold"];
  if (name === "removeOwner") return ["RemovedOwner", "ChangedThreshold"];
  if (name === "swapOwner") return ["AddedOwner", "RemovedOwner"];
  if (name === "enableModule") return ["EnabledModule"];
  if (name === "disableModule") return ["DisabledModule"];
  const set = /^set(Guard|FallbackHandler|ModuleGuard)$/.exec(name);
  if (set !== null) return [`Changed${set[1]}`];
  return [`${name.slice(0, 1).toUpperCase()}${name.slice(1)}`];
}

/** What one transaction did for which proposal: events are taken off as they are found, so that one call never explains two. */
interface Transaction {
  readonly proposals: readonly string[];
  /** `address/event` → proposals whose calls explain one such event each. */
  readonly explained: Map<string, string[]>;
}

/**
 * Names the proposal behind everything that happened: an operation at the timelock by its id; what an execution changed by the operation executed in the
 * same transaction and its calls; what a Safe did directly by the calls of its transaction. One call explains one event: whatever else a transaction
 * did stays an orphan.
 *
 * @returns every event, oldest first
 * @throws KeysteadError as `Client.request`; `chain/no-transaction` where the endpoint does not know a transaction whose log it gave
 */
export async function attributeEvents(client: Client, ledger: Ledger): Promise<readonly GovernanceEvent[]> {
  const { deployment } = ledger;
  const creations = new Set(Object.values(deployment.contracts).map(({ transaction }) => transaction.toLowerCase()));
  const transactions = new Map<Hex, Transaction>();
  const found: GovernanceEvent[] = [];
  const spent = knownExecutions(ledger);
  const inOrder = [...eventsOf(ledger)].sort(
    (a, b) => a.log.blockNumber - b.log.blockNumber || a.log.logIndex - b.log.logIndex,
  );
  for (const { contract, address, log, event } of inOrder) {
    const base = {
      ...{ contract, name: event.name, words: describe(event), block: log.blockNumber },
      ...{ transactionHash: log.transactionHash, logIndex: log.logIndex },
    };
    if (creations.has(log.transactionHash)) {
      found.push({ ...base, proposal: "deployment" });
      continue;
    }
    if (contract === "timelock" && ["CallScheduled", "CallExecuted", "Cancelled"].includes(event.name)) {
      found.push({
        ...base,
        proposal: ledger.operations.find((operation) => operation.id === log.topics[1])?.proposal ?? null,
      });
      continue;
    }
    let transaction = transactions.get(log.transactionHash);
    if (transaction === undefined) {
      transaction = await readTransaction(client, ledger, log.transactionHash, spent);
      transactions.set(log.transactionHash, transaction);
    }
    const left = transaction.explained.get(`${address.toLowerCase()}/${event.name}`) ?? [];
    found.push({ ...base, proposal: left.shift() ?? null });
  }
  return found.sort((a, b) => a.block - b.block || a.logIndex - b.logIndex);
}

interface Found {
  readonly contract: GovernanceEvent["contract"];
  readonly address: string;
  readonly log: RawLog;
  readonly event: { readonly name: string; readonly fields: readonly (readonly [string, string])[] };
}

function* eventsOf({ deployment, timelock, policy, registry, safes }: Ledger): Generator<Found> {
  const { contracts } = deployment;
  for (const [contract, logs] of [
    ["timelock", timelock],
    ["policy", policy],
    ["registry", registry],
  ] as const) {
    const seen = new Set<string>();
    for (const log of logs) {
      const event = INTERFACES[contract].parseLog(log);
      // the salt says no more than the scheduling that it goes with
      if (event?.name === "CallSalt") continue;
      // one line a scheduling and an execution, however many calls it has
      const batch = `${event?.name} ${log.topics[1]} ${log.transactionHash}`;
      if (event?.name === "CallScheduled" || event?.name === "CallExecuted") {
        if (seen.has(batch)) continue;
        seen.add(batch);
      }
      const { address } = contracts[contract];
      yield { contract, address, log, event: event === null ? unknownEvent(log) : fieldsOf(event) };
    }
  }
  const deployed = Math.max(...Object.values(contracts).map(({ block }) => block));
  for (const [address, logs] of safes) {
    const contract = address === deployment.safes.governance.address ? "governance Safe" : "guardian Safe";
    for (const log of logs) {
      const name = SAFE_TOPICS.get(log.topics[0] ?? "");
      if (name === undefined) continue;
      // Safes are created with their owners, before or with the deployment: that is no change. Later its event explains nothing: a Safe can be made to
      // say anything by a delegate call.
      const early = log.blockNumber <= deployed;
      if (early && logs.some((one) => one.transactionHash === log.transactionHash && isSetup(one))) continue;
      const word = log.topics[1] ?? log.data.slice(0, 66);
      const value = name === "ChangedThreshold" ? BigInt(word).toString() : getAddress(`0x${word.slice(-40)}`);
      yield { contract, address, log, event: { name, fields: [["", value]] } };
    }
  }
}

/** Safe's `SafeSetup(address,address[],uint256,address,address)`. */
const SAFE_SETUP = "0x141df868a6331af528e38c83b7aa03edc19be66e37ae67f9285bf4f8e3c6a1a8";
const isSetup = (log: RawLog): boolean => log.topics[0] === SAFE_SETUP;

const unknownEvent = (log: RawLog): Found["event"] => ({
  name: `unknown event ${log.topics[0] ?? ""}`,
  fields: [],
});

function fieldsOf(event: LogDescription): Found["event"] {
  const fields = event.fragment.inputs.map((input, i): readonly [string, string] => {
    let value: string;
    try {
      value = String(event.args[i]);
    } catch {
      value = "no UTF-8"; // a text that ethers refuses when it is looked at
    }
    return [input.name, input.name === "role" || input.name.endsWith("Role") ? roleName(value) : value];
  });
  return { name: event.name, fields };
}

/** Not worth a line: who acted is the timelock or a Safe, and counters are the history's own. */
const SILENT = new Set(["actor", "sender", "policyVersion", "previousBlock", "image", "data"]);

function describe({ name, fields }: Found["event"]): string {
  const shown = fields
    .filter(([field]) => !SILENT.has(field))
    .map(([field, value]) => {
      const text = /^[\w.:+-]*$/.test(value) && value !== "" ? value : quoteText(value.slice(0, 200));
      return field === "" ? text : `${field} ${text}`;
    });
  return [name, ...shown].join(" ");
}

/** The direct parts of proposals, each with the one transaction that explains what it did. */
type Spent = Map<string, Hex>;

/**
 * The Safe transaction hashes that a proposal's direct transaction may have: of the planned nonce, and of those that it was signed with.
 *
 * @example
 * directHashes(operation, "execute", signatures).has(log.topics[1]);
 */
export function directHashes(
  operation: Operation,
  step: "execute" | "rollback",
  signatures: readonly FoundSignature[],
): ReadonlySet<string> {
  const nonces = new Set([
    planStep(operation, step).transaction.nonce,
    ...signatures.filter((one) => one.step === step).map(({ nonce }) => nonce),
  ]);
  return new Set([...nonces].map((nonce) => planStep(operation, step, { nonce }).hashes.safeTxHash));
}

/** Executions with a nonce that was planned or signed: each is its proposal's own, and the same calls made again are nobody's. */
function knownExecutions({ proposals, safes }: Ledger): Spent {
  const spent: Spent = new Map();
  for (const [name, { operation, files }] of proposals) {
    const { signatures } = readSignatures(operation, files);
    const parts = [
      ...(operation.timelock === null ? [["execute", operation.safe.address] as const] : []),
      ...(operation.rollback !== null && operation.rollback.timelock === null
        ? [["rollback", operation.rollback.safe.address] as const]
        : []),
    ];
    for (const [step, safe] of parts) {
      const logs = safes.get(safe) ?? [];
      if (logs.length === 0) continue;
      const hashes = directHashes(operation, step, signatures);
      const log = logs.find(({ topics, data }) => hashes.has(topics[1] ?? "") || hashes.has(data.slice(0, 66)));
      if (log !== undefined) spent.set(`${name} ${step}`, log.transactionHash);
    }
  }
  return spent;
}

async function readTransaction(client: Client, ledger: Ledger, hash: Hex, spent: Spent): Promise<Transaction> {
  /** Whether this transaction is the one that a proposal's direct part explains: no other is, however often its calls are made. */
  const own = (key: string): boolean => {
    const known = spent.get(key) ?? hash;
    spent.set(key, known);
    return known === hash;
  };
  const explained = new Map<string, string[]>();
  const proposals: string[] = [];
  const explain = (proposal: string, calls: readonly Call[]) => {
    proposals.push(proposal);
    for (const call of calls) {
      const contracts = {
        policy: ledger.deployment.contracts.policy.address,
        registry: ledger.deployment.contracts.registry.address,
        timelock: ledger.deployment.contracts.timelock.address,
      };
      const recognised = recogniseCall(call, { contracts, safes: [...ledger.safes.keys()] });
      if (recognised === undefined || !recognised.certain) continue;
      for (const event of eventOf(recognised.name)) {
        const key = `${call.to.toLowerCase()}/${event}`;
        explained.set(key, [...(explained.get(key) ?? []), proposal]);
      }
    }
  };
  for (const operation of ledger.operations) {
    if (operation.executed?.transactionHash !== hash || operation.proposal === null) continue;
    explain(operation.proposal, operation.calls);
  }
  for (const call of await safeCallsOf(client, hash)) {
    for (const [name, { operation }] of ledger.proposals) {
      const direct = operation.timelock === null && call.safe === operation.safe.address;
      if (direct && sameCalls(operation.calls, call.calls) && own(`${name} execute`)) {
        explain(name, operation.calls);
        break;
      }
      const back = operation.rollback;
      const undoes = back !== null && back.timelock === null && call.safe === back.safe.address;
      if (undoes && sameCalls(back.calls, call.calls) && own(`${name} rollback`)) {
        explain(name, back.calls);
        break;
      }
    }
  }
  return { proposals, explained };
}

const sameCalls = (a: readonly Call[], b: readonly Call[]): boolean =>
  a.length === b.length &&
  a.every((call, i) => call.to === b[i]?.to && call.value === b[i]?.value && call.data === b[i]?.data);

/** The calls that a transaction makes a Safe make, where it is a plain Safe transaction. */
async function safeCallsOf(
  client: Client,
  hash: Hex,
): Promise<readonly { readonly safe: string; readonly calls: readonly Call[] }[]> {
  const transaction = await client.request("eth_getTransactionByHash", [hash]);
  const { to, input, data } = Object(transaction);
  const calldata = input ?? data;
  if (transaction === null || transaction === undefined || typeof calldata !== "string") {
    throw new KeysteadError(
      "chain/no-transaction",
      `the endpoint does not know transaction ${hash}, whose log it gave`,
      {
        argument: "rpc",
        remedy: "Use an endpoint that keeps all transactions.",
        details: { hash },
      },
    );
  }
  if (typeof to !== "string" || EXEC === null || !calldata.startsWith(EXEC.selector)) return [];
  try {
    const values = INTERFACES.safe.decodeFunctionData(EXEC, calldata);
    const call = { to: getAddress(String(values.to)), value: BigInt(values.value), data: hex(String(values.data)) };
    const safe = getAddress(to);
    if (BigInt(values.operation) === 0n) return [{ safe, calls: [call] }];
    // Any other contract may do what it likes with the calls that it is given.
    if (!MULTI_SENDS.has(call.to)) return [];
    const [packed] = INTERFACES.multiSend.decodeFunctionData("multiSend", call.data);
    return [
      {
        safe,
        calls: unpackMultiSend(hex(String(packed))).map(({ to: at, value, data: bytes }) => ({
          to: at,
          value,
          data: bytes,
        })),
      },
    ];
  } catch (error) {
    // no such Safe transaction: then no proposal explains it
    if (isKeysteadError(error) || error instanceof Error) return [];
    throw error;
  }
}
