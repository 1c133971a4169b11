import { getAddress, Interface } from "ethers";
import type { Client } from "../chain/client.ts";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { quoteText } from "../core/text.ts";
import { type ContractName, INTERFACES } from "./abis.ts";
import { wrap } from "./present/layout.ts";

/** One event, as its contract's interface reads it. */
export interface TracedEvent {
  readonly address: string;
  /** E.g. `EnableTee(kind: 1, …)`, or the first topic where nobody here knows it. */
  readonly text: string;
}

/** One call of a transaction, with everything inside it. */
export interface TracedCall {
  readonly type: string;
  readonly to: string;
  /** E.g. `enableTee(1)`, or the selector. */
  readonly text: string;
  readonly value: bigint;
  /** What it and everything inside it used. */
  readonly gasUsed: bigint;
  /** Why it was undone; its caller may have gone on. */
  readonly failure: string | undefined;
  readonly events: readonly TracedEvent[];
  readonly calls: readonly TracedCall[];
}

/** Safe's and the proxies' own events and views that a play meets, beside what proposals call. */
const MORE = new Interface([
  "event ExecutionSuccess(bytes32 indexed txHash, uint256 payment)",
  "event ExecutionFailure(bytes32 indexed txHash, uint256 payment)",
  "event SafeReceived(address indexed sender, uint256 value)",
  "event ApproveHash(bytes32 indexed approvedHash, address indexed owner)",
  "event AddedOwner(address indexed owner)",
  "event RemovedOwner(address indexed owner)",
  "event ChangedThreshold(uint256 threshold)",
  "event EnabledModule(address indexed module)",
  "event DisabledModule(address indexed module)",
  "event ChangedGuard(address indexed guard)",
  "event ChangedFallbackHandler(address indexed handler)",
  "event Upgraded(address indexed implementation)",
  "function proxiableUUID() view returns (bytes32)",
]);
const READERS: readonly Interface[] = [
  ...(["policy", "registry", "timelock", "safe", "multiSend"] satisfies ContractName[]).map((name) => INTERFACES[name]),
  MORE,
];

/** Deeper and wider than any play of a proposal. */
const MAX_CALLS = 2000;

const malformed = (why: string) =>
  new KeysteadError("trace/malformed", `the copy's trace cannot be read: ${why}`, {
    remedy: "Update anvil, or simulate without --trace.",
  });

/**
 * The calls of a transaction on a private copy, with events and gas.
 *
 * @param client the copy's own (`Fork.client`)
 * @throws KeysteadError `trace/malformed`; as `Client.request`
 * @example
 * renderTrace(await traceCalls(fork.client, played.hash), names);
 */
export async function traceCalls(client: Client, hash: Hex): Promise<TracedCall> {
  const options = { tracer: "callTracer", tracerConfig: { withLog: true } };
  return callOf(await client.request("debug_traceTransaction", [hash, options]), { left: MAX_CALLS });
}

type Fields = Readonly<Record<string, unknown>>;
const isFields = (value: unknown): value is Fields => typeof value === "object" && value !== null;
const text = (value: unknown): string => (typeof value === "string" ? value : "");
const number = (value: unknown): bigint => (/^0x[0-9a-f]+$/i.test(text(value)) ? BigInt(text(value)) : 0n);

function callOf(value: unknown, budget: { left: number }): TracedCall {
  budget.left--;
  if (!isFields(value) || budget.left < 0)
    throw malformed(budget.left < 0 ? "it has too many calls" : "a call is missing");
  const to = text(value.to);
  const list = (found: unknown): readonly unknown[] => (Array.isArray(found) ? found : []);
  return {
    type: text(value.type),
    to: /^0x[0-9a-f]{40}$/i.test(to) ? getAddress(to) : to,
    text: functionWords(text(value.input)),
    value: number(value.value),
    gasUsed: number(value.gasUsed),
    failure: value.error === undefined ? undefined : text(value.revertReason) || text(value.error) || "it failed",
    events: list(value.logs).map(eventOf),
    calls: list(value.calls).map((inner) => callOf(inner, budget)),
  };
}

/** Arguments in a line, long bytes by their length. */
const shown = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(shown).join(", ")}]`;
  if (typeof value !== "string") return String(value);
  if (!/^0x[0-9a-fA-F]*$/.test(value)) return quoteText(value);
  return value.length > 66 ? `${(value.length - 2) / 2} bytes` : value;
};

function functionWords(input: string): string {
  if (input === "" || input === "0x") return "(no data)";
  for (const abi of READERS) {
    try {
      const found = abi.parseTransaction({ data: input });
      if (found !== null) return `${found.name}(${[...found.args].map(shown).join(", ")})`;
    } catch {
      // a selector that is known with arguments that do not fit: the next, or the selector
    }
  }
  return input.slice(0, 10);
}

function eventOf(value: unknown): TracedEvent {
  if (!isFields(value)) throw malformed("an event is missing");
  const topics = Array.isArray(value.topics) ? value.topics.map(text) : [];
  const address = text(value.address);
  for (const abi of READERS) {
    try {
      const found = abi.parseLog({ topics, data: text(value.data) });
      if (found === null) continue;
      const parts = found.fragment.inputs.map((input, i) => `${input.name}: ${shown(found.args[i])}`);
      return { address, text: `${found.name}(${parts.join(", ")})` };
    } catch {
      // another contract's event with the same first topic
    }
  }
  return { address, text: `event ${topics[0] ?? "without a topic"}` };
}

/**
 * A trace as lines of 80 columns: who is called, how, with what gas, and the events in between.
 *
 * @param nameOf what an address is called
 * @example
 * renderTrace(trace, (address) => names.get(address) ?? address).join("\n");
 */
export function renderTrace(call: TracedCall, nameOf: (address: string) => string, depth = 0): readonly string[] {
  const indent = "  ".repeat(Math.min(depth, 12));
  const line = (mark: string, words: string): readonly string[] =>
    wrap(words, 78 - indent.length).map((part, i) => `${indent}${i === 0 ? mark : " "} ${part}`);
  const how = call.type === "CALL" ? "" : `${call.type} `;
  const paid = call.value > 0n ? ` with ${call.value} wei` : "";
  const failed = call.failure === undefined ? "" : ` FAILED: ${call.failure}`;
  return [
    ...line("→", `${how}${nameOf(call.to)}: ${call.text}${paid} [${call.gasUsed.toLocaleString("en")} gas]${failed}`),
    ...call.events.flatMap((event) => line(" •", event.text)),
    ...call.calls.flatMap((inner) => renderTrace(inner, nameOf, depth + 1)),
  ];
}
