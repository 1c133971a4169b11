import { keccak_256 } from "@noble/hashes/sha3.js";
import { concatBytes, fromHex, type Hex, toHex } from "./bytes.ts";
import { isKeysteadError } from "./errors.ts";
import { decodePolicyEvent, decodeServiceEvent, type PolicyEvent, type RawLog, type ServiceEvent } from "./events.ts";

/*
 * The hash chain over raw logs (contracts/registry/History.sol), and the verdict on a list of logs that claims to be a whole history:
 *
 *   head' = keccak256(head ‖ keccak256(topic0 ‖ … ‖ topicN ‖ data))
 */

/** The head of a chain without events. */
export const EMPTY_HEAD: Hex = `0x${"00".repeat(32)}`;

/** What the expected head rests on: a storage proof, or no more than an endpoint's word. */
export type HeadBasis = "proof" | "view";

/**
 * What can be wrong with a list of logs.
 *
 * `dropped` numbers are missing · `duplicated` a number is there twice · `reordered` · `edited` a log is not what the chain hashed ·
 * `foreign-address` another contract's log · `foreign-service` another service's log · `wrong-chain` collected on another chain ·
 * `head-mismatch` logs and head do not belong together, and nothing says which of the two is wrong
 */
export type FaultCode =
  | "dropped"
  | "duplicated"
  | "reordered"
  | "edited"
  | "foreign-address"
  | "foreign-service"
  | "wrong-chain"
  | "head-mismatch";

/** One thing that is wrong, and where. */
export interface Fault {
  readonly code: FaultCode;
  /** The event numbers concerned, first and last, where they are known. */
  readonly from?: number;
  readonly to?: number;
  /** The log's position in the list, from 0, where one log is at fault. */
  readonly index?: number;
  readonly message: string;
}

/** `proven`: complete and unaltered up to a proven head · `consistent`: the same up to a head that nothing proves · `broken`: not a history. */
export type Verdict = "proven" | "consistent" | "broken";

/** A list of logs, oldest first, and the chain that they were collected on. */
export interface LogList {
  readonly chainId: number;
  readonly logs: readonly RawLog[];
}

/** What the contract says about its history at one block. */
export interface ExpectedHistory {
  readonly chainId: number;
  /** The proxy, lower-case. */
  readonly address: Hex;
  /** Whose history: a service of the registry, or undefined for the policy. */
  readonly serviceId?: Hex | undefined;
  readonly head: Hex;
  /** How many events there have been: a service's `sequence`, the policy's `policyVersion`. */
  readonly count: number;
  /** The block of the latest event. */
  readonly lastUpdateBlock: number;
  readonly basis: HeadBasis;
  /**
   * What `block.number` was in the contract when it emitted a log, where that is another number than its block's (Arbitrum: the parent chain's); undefined
   * where nobody says. Default: its block's number.
   */
  readonly numberAt?: ((log: RawLog) => number | undefined) | undefined;
}

/** One event of a history. `event` is undefined where this version does not know it: hashed and in its place, but not understood. */
export interface HistoryEntry<E = ServiceEvent | PolicyEvent> {
  readonly sequence: number;
  readonly log: RawLog;
  readonly event: E | undefined;
}

/** The verdict on a list of logs, and what it rests on. */
export interface VerifiedHistory<E = ServiceEvent | PolicyEvent> {
  readonly verdict: Verdict;
  readonly basis: HeadBasis;
  readonly faults: readonly Fault[];
  /** The head that the logs fold to. */
  readonly head: Hex;
  /** The events, oldest first. Empty if the history is broken: what is shown was verified. */
  readonly entries: readonly HistoryEntry<E>[];
  /**
   * Whether the blocks that the endpoint gives agree with the chained `previousBlock` pointers. A pointer serves speed, not truth: on a chain whose
   * `block.number` is not the log's block (Arbitrum) `numberAt` says what they are compared with. A disagreement means that blocks, and so times, are not to be trusted.
   */
  readonly pointers: { readonly agree: boolean; readonly firstDisagreement?: number };
}

/**
 * The head after one more log.
 *
 * @param head 32 bytes; {@link EMPTY_HEAD} before the first log
 * @throws KeysteadError `hex/malformed` for what is no hex
 * @example
 * foldHistory(EMPTY_HEAD, firstLog); // the service's head after its first event
 */
export function foldHistory(head: Hex, log: Pick<RawLog, "topics" | "data">): Hex {
  const record = concatBytes(...log.topics.map((topic) => fromHex(topic, "log.topics")), fromHex(log.data, "log.data"));
  return toHex(keccak_256(concatBytes(fromHex(head, "head"), keccak_256(record))));
}

/**
 * The head after all logs, oldest first.
 *
 * @example
 * foldAll(logs) === (await registry.historyHead(serviceId));
 */
export function foldAll(logs: readonly Pick<RawLog, "topics" | "data">[], head: Hex = EMPTY_HEAD): Hex {
  return logs.reduce((folded, log) => foldHistory(folded, log), head);
}

/**
 * The head of the chain over all services, in order of creation: `head' = keccak256(head ‖ serviceId)`, 52 bytes hashed.
 *
 * @param serviceIds 20 bytes each, oldest first
 * @throws KeysteadError `hex/malformed` for what is not hex
 * @example
 * foldServices(serviceIds) === (await registry.servicesHead());
 */
export function foldServices(serviceIds: readonly Hex[], head: Hex = EMPTY_HEAD): Hex {
  return serviceIds.reduce<Hex>(
    (folded, id) => toHex(keccak_256(concatBytes(fromHex(folded, "head"), fromHex(id, "serviceId")))),
    head,
  );
}

/**
 * Says whether a list of logs is a service's whole history. Total: any list gives a verdict, in time linear in its bytes.
 *
 * @example
 * const { verdict, faults } = verifyServiceHistory({ chainId, logs }, expected);
 */
export function verifyServiceHistory(list: LogList, expected: ExpectedHistory): VerifiedHistory<ServiceEvent> {
  return verify(list, expected, decodeServiceEvent, (event) => event.args.sequence);
}

/**
 * Says whether a list of logs is the policy's whole history. OpenZeppelin's own events (`isGovernedLog`) are not part of it: leave them out.
 *
 * @example
 * const { verdict, faults } = verifyPolicyHistory({ chainId, logs }, expected);
 */
export function verifyPolicyHistory(list: LogList, expected: ExpectedHistory): VerifiedHistory<PolicyEvent> {
  return verify(list, expected, decodePolicyEvent, (event) => event.args.policyVersion);
}

interface Numbered<E> extends HistoryEntry<E> {
  readonly index: number;
}

function verify<E extends ServiceEvent | PolicyEvent>(
  list: LogList,
  expected: ExpectedHistory,
  decode: (log: RawLog) => E,
  numberOf: (event: E) => number,
): VerifiedHistory<E> {
  const faults: Fault[] = [];
  if (list.chainId !== expected.chainId) {
    const message = `the logs were collected on chain ${list.chainId} and the history is on chain ${expected.chainId}`;
    faults.push({ code: "wrong-chain", message });
  }
  const own: Numbered<E>[] = [];
  list.logs.forEach((log, index) => {
    const fault = foreignFault(log, index, expected);
    if (fault !== undefined) {
      faults.push(fault);
      return;
    }
    try {
      const event = decode(log);
      const edited = imageFault(event);
      if (edited !== undefined) faults.push({ code: "edited", index, from: numberOf(event), message: edited });
      own.push({ sequence: numberOf(event), log, event, index });
    } catch (error) {
      if (isKeysteadError(error, "event/unknown")) {
        own.push({ sequence: (own.at(-1)?.sequence ?? 0) + 1, log, event: undefined, index });
      } else if (isKeysteadError(error)) faults.push({ code: "edited", index, message: error.message });
      else throw error;
    }
  });
  faults.push(...orderFaults(own, expected));

  const head = foldAll(own.map(({ log }) => log));
  if (faults.length === 0 && head !== expected.head) {
    // With a proven head only the logs can be wrong; otherwise either may be.
    faults.push(
      expected.basis === "proof"
        ? { code: "edited", message: `the logs fold to ${head} and the proven head is ${expected.head}` }
        : {
            code: "head-mismatch",
            message: `the logs fold to ${head} and the endpoint says that the head is ${expected.head}`,
          },
    );
  }
  const broken = faults.length !== 0;
  return {
    verdict: broken ? "broken" : expected.basis === "proof" ? "proven" : "consistent",
    basis: expected.basis,
    faults,
    head,
    entries: broken ? [] : own.map(({ sequence, log, event }) => ({ sequence, log, event })),
    pointers: comparePointers(own, expected),
  };
}

function foreignFault(log: RawLog, index: number, expected: ExpectedHistory): Fault | undefined {
  if (log.address !== expected.address) {
    const message = `log ${index} was emitted by ${log.address} and not by ${expected.address}`;
    return { code: "foreign-address", index, message };
  }
  if (expected.serviceId === undefined) return undefined;
  const topic: Hex = `${expected.serviceId}${"00".repeat(12)}`;
  if (log.topics[1] === topic) return undefined;
  return {
    code: "foreign-service",
    index,
    message: `log ${index} is about ${log.topics[1] ?? "no service"} and not about ${expected.serviceId}`,
  };
}

/** An image that does not hash to its own id was edited after it was logged. */
function imageFault({ name, args }: ServiceEvent | PolicyEvent): string | undefined {
  if (!("image" in args)) return undefined;
  const id = "platformId" in args ? args.platformId : args.imageId;
  const actual = toHex(keccak_256(fromHex(args.image, "image")));
  return actual === id ? undefined : `${name} says image ${id} and carries one that hashes to ${actual}`;
}

function orderFaults<E>(own: readonly Numbered<E>[], { count }: ExpectedHistory): Fault[] {
  const faults: Fault[] = [];
  const seen = new Set<number>();
  const unique: Numbered<E>[] = [];
  for (const entry of own) {
    if (seen.has(entry.sequence)) {
      const message = `event ${entry.sequence} is there more than once`;
      faults.push({ code: "duplicated", from: entry.sequence, to: entry.sequence, index: entry.index, message });
    } else {
      seen.add(entry.sequence);
      unique.push(entry);
    }
  }
  const descent = unique.findIndex((entry, at) => entry.sequence < (unique[at - 1]?.sequence ?? 0));
  const first = unique[descent];
  if (first !== undefined) {
    const message = `event ${first.sequence} comes after event ${unique[descent - 1]?.sequence}`;
    faults.push({ code: "reordered", from: first.sequence, to: first.sequence, index: first.index, message });
  }
  let next = 1;
  for (const sequence of [...seen].sort((a, b) => a - b)) {
    if (sequence > next) faults.push(gap(next, sequence - 1));
    next = sequence + 1;
  }
  if (next <= count) faults.push(gap(next, count));
  else if (next > count + 1) {
    const message = `there are events up to ${next - 1} and the contract counts ${count}`;
    faults.push({ code: "head-mismatch", from: count + 1, to: next - 1, message });
  }
  return faults;
}

function gap(from: number, to: number): Fault {
  const message = from === to ? `event ${from} is missing` : `events ${from} to ${to} are missing`;
  return { code: "dropped", from, to, message };
}

function comparePointers<E extends ServiceEvent | PolicyEvent>(
  own: readonly Numbered<E>[],
  { lastUpdateBlock, numberAt = ({ blockNumber }) => blockNumber }: ExpectedHistory,
): VerifiedHistory["pointers"] {
  let before: RawLog | undefined;
  let number: number | undefined = 0;
  for (const { event, log, sequence } of own) {
    const pointer = event?.args.previousBlock;
    const ascends =
      before === undefined ||
      log.blockNumber > before.blockNumber ||
      (log.blockNumber === before.blockNumber && log.logIndex > before.logIndex);
    if (!ascends || (pointer !== undefined && number !== undefined && pointer !== number)) {
      return { agree: false, firstDisagreement: sequence };
    }
    before = log;
    number = numberAt(log);
  }
  return number === undefined || number === lastUpdateBlock
    ? { agree: true }
    : { agree: false, firstDisagreement: own.at(-1)?.sequence ?? 0 };
}
