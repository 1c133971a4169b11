import { type FunctionFragment, getAddress, type ParamType, type Result, ZeroAddress } from "ethers";
import { SAFE_RELEASES } from "../chain/safe-releases.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { quoteText } from "../core/text.ts";
import { dangersOf, etherDanger, type KnownParties } from "../protocol/dangers.ts";
import { type ContractName, INTERFACES } from "./abis.ts";
import type { OperationContracts } from "./operation.ts";
import { hex, MULTI_SEND_CALL_ONLY, unpackMultiSend } from "./safe-hash.ts";
import { type Arguments, PHRASES, type Words } from "./words.ts";

/** One argument of a decoded call. */
export interface DecodedArgument {
  readonly name: string;
  readonly type: string;
  /** Numbers in decimal, bytes and addresses in hex, texts quoted with invisible characters made visible. */
  readonly value: string;
}

/** What a signer must not overlook. `unsafe`: it fails or does more than it seems. `unsure`: it could not be read for certain. */
export interface Warning {
  readonly severity: "unsafe" | "unsure";
  /** Stable, e.g. `danger/safe-module`: by it somebody who knows better accepts the warning (`--accept`). */
  readonly code: string;
  readonly message: string;
}

/** A call, taken apart down to the last one inside it. */
export interface DecodedCall {
  /** Absent where bare calldata was given. */
  readonly to: string | undefined;
  readonly value: bigint;
  readonly data: Hex;
  /** The contract that `to` is known to be; undefined where the function was recognised by its selector alone, or not at all. */
  readonly contract: ContractName | undefined;
  /** Signature, e.g. `allowPlatform(bytes,string)`; undefined: nobody here knows this call. */
  readonly signature: string | undefined;
  readonly arguments: readonly DecodedArgument[];
  readonly words: Words;
  readonly warnings: readonly Warning[];
  /** The calls that this one makes. */
  readonly calls: readonly DecodedCall[];
}

/** Which address is what. */
export interface DecodeContext {
  readonly contracts?: OperationContracts | undefined;
  /** Further timelocks and Safes. */
  readonly timelocks?: readonly string[] | undefined;
  readonly safes?: readonly string[] | undefined;
  /** What the deployment's record says; without it, whatever depends on it is unsure. */
  readonly known?: KnownParties | undefined;
}

const unsafe = (code: string, message: string): Warning => ({ severity: "unsafe", code, message });
const unsure = (code: string, message: string): Warning => ({ severity: "unsure", code, message });

/** Every fallback handler that Safe published. */
const HANDLERS: readonly string[] = Object.values(SAFE_RELEASES).flatMap(({ fallbackHandlers }) =>
  fallbackHandlers.flatMap(({ addresses }) => addresses),
);

/** Deeper than Safe → MultiSend → timelock → proxy → multicall. */
const MAX_DEPTH = 12;
const MAX_CALLS = 512;

/** A call that was recognised. */
export interface RecognisedCall {
  readonly contract: ContractName;
  /** Whether the address is known, not only the selector. */
  readonly certain: boolean;
  readonly name: string;
  readonly signature: string;
  readonly payable: boolean;
  readonly inputs: readonly ParamType[];
  readonly values: Result;
  /** The same, by name. */
  readonly named: Arguments;
}

const selectorsOf = (contract: ContractName): ReadonlyMap<string, FunctionFragment> => {
  const selectors = new Map<string, FunctionFragment>();
  INTERFACES[contract].forEachFunction((item) => {
    if (!item.constant) selectors.set(item.selector, item);
  });
  return selectors;
};

/** Functions that change state, by selector. */
const SELECTORS: Readonly<Record<ContractName, ReadonlyMap<string, FunctionFragment>>> = {
  policy: selectorsOf("policy"),
  registry: selectorsOf("registry"),
  timelock: selectorsOf("timelock"),
  safe: selectorsOf("safe"),
  multiSend: selectorsOf("multiSend"),
};

/**
 * Recognises a call by its address, or else by its selector alone. Calldata counts as recognised only where encoding its arguments again gives
 * the same bytes: anything else is read one way here and perhaps another way by the contract.
 *
 * @example
 * recogniseCall({ to: policy, value: 0n, data }, { contracts })?.name; // "allowPlatform"
 */
export function recogniseCall(
  call: { readonly to: string | undefined; readonly data: Hex },
  context: DecodeContext,
): RecognisedCall | undefined {
  const known = call.to === undefined ? undefined : contractAt(call.to, context);
  const names: readonly ContractName[] =
    known === undefined ? ["policy", "registry", "timelock", "safe", "multiSend"] : [known];
  for (const contract of names) {
    const abi = INTERFACES[contract];
    const found = SELECTORS[contract].get(call.data.slice(0, 10));
    if (found === undefined) continue;
    try {
      const values = abi.decodeFunctionData(found, call.data);
      if (abi.encodeFunctionData(found, values) !== call.data) continue;
      return {
        ...{ contract, certain: known !== undefined, name: found.name, signature: found.format("sighash") },
        payable: found.payable,
        ...{ inputs: found.inputs, values, named: Object.fromEntries(found.inputs.map((p, i) => [p.name, values[i]])) },
      };
    } catch {
      // arguments that do not decode, or a text that is not UTF-8: shown as unknown
    }
  }
  return undefined;
}

function contractAt(to: string, { contracts, timelocks = [], safes = [] }: DecodeContext): ContractName | undefined {
  const address = getAddress(to);
  if (contracts !== undefined) {
    for (const name of ["policy", "registry", "timelock"] as const) if (contracts[name] === address) return name;
  }
  if (timelocks.includes(address)) return "timelock";
  if (safes.includes(address)) return "safe";
  if (Object.values(MULTI_SEND_CALL_ONLY).some((list) => list.includes(address))) return "multiSend";
  return undefined;
}

/**
 * Takes a call apart: Safe transaction → MultiSend → timelock batch → upgrade → initialiser, down to what each call does in plain words. It
 * never throws on calldata: what is not understood is shown as unknown, with its bytes.
 *
 * @example
 * decodeCall({ to: timelock, value: 0n, data }, { contracts }).calls[0]?.words.sentence;
 */
export function decodeCall(
  call: { readonly to: string | undefined; readonly value: bigint; readonly data: Hex },
  context: DecodeContext = {},
): DecodedCall {
  return decodeAt(call, context, 0, { left: MAX_CALLS });
}

function decodeAt(
  call: { readonly to: string | undefined; readonly value: bigint; readonly data: Hex },
  context: DecodeContext,
  depth: number,
  budget: { left: number },
): DecodedCall {
  budget.left--;
  const recognised = recogniseCall(call, context);
  if (recognised === undefined) return unknownCall(call, context);
  const { contract, certain, name, signature, inputs, values, named } = recognised;
  const warnings: Warning[] = [];
  if (!certain && call.to !== undefined) {
    const message = `${call.to} is not a contract known here: the function was recognised by its selector alone`;
    warnings.push(unsure("danger/unknown-target", message));
  }
  warnings.push(...dangersOf({ contract, name, named, to: call.to }, { handlers: HANDLERS, ...context.known }));
  if (call.value > 0n && !recognised.payable) {
    const message = `sends ${call.value} wei to a function that takes none: it will revert`;
    warnings.push(unsafe("operation/value-to-nonpayable", message));
  }
  // what carries other calls passes their ether on: it is judged where it leaves
  if (call.value > 0n && !certain) warnings.push(etherDanger(call.value, call.to));
  const words = PHRASES[contract][name]?.(named);
  if (words === undefined) return unknownCall(call, context);
  let calls: readonly DecodedCall[] = [];
  try {
    calls = innerCalls(recognised, call.to, warnings).map((inner) => {
      if (depth + 1 >= MAX_DEPTH || budget.left <= 0) {
        throw new KeysteadError("decode/too-deep", "it holds more calls than can be shown", {
          argument: "data",
          remedy: "Don't sign it.",
        });
      }
      return decodeAt(inner, context, depth + 1, budget);
    });
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    warnings.push(unsafe("danger/unknown-call", `the calls inside cannot be read: ${error.message}`));
  }
  return {
    ...{ to: call.to, value: call.value, data: call.data, contract: certain ? contract : undefined, signature, words },
    arguments: inputs.map((input, i) => ({ name: input.name, type: input.type, value: showValue(input, values[i]) })),
    ...{ warnings, calls },
  };
}

function unknownCall(
  call: { readonly to: string | undefined; readonly value: bigint; readonly data: Hex },
  context: DecodeContext,
): DecodedCall {
  const known = call.to === undefined ? undefined : contractAt(call.to, context);
  const transfer = call.data === "0x" && call.to !== undefined;
  const sentence = transfer
    ? `send ${call.value} wei to ${call.to}, with no data`
    : `UNKNOWN CALL${call.to === undefined ? "" : ` of ${call.to}`}${call.value > 0n ? ` with ${call.value} wei` : ""}: ${call.data.length / 2 - 1} bytes that nobody here can read`;
  return {
    ...{ to: call.to, value: call.value, data: call.data, contract: known, signature: undefined, arguments: [] },
    words: { noun: transfer ? "transfer" : "unknown call", sentence },
    warnings: [
      ...(transfer
        ? []
        : [
            unsure(
              "danger/unknown-call",
              `not understood: sign it only if you know what ${call.data.slice(0, 10)} does there`,
            ),
          ]),
      ...(call.value > 0n ? [etherDanger(call.value, call.to)] : []),
    ],
    calls: [],
  };
}

type Inner = { readonly to: string | undefined; readonly value: bigint; readonly data: Hex };

function innerCalls({ contract, name, values }: RecognisedCall, to: string | undefined, warnings: Warning[]): Inner[] {
  const bytesAt = (index: number): Hex => hex(String(values[index]));
  if (contract === "multiSend") {
    return unpackMultiSend(bytesAt(0)).map((packed, i) => {
      if (packed.operation !== 0) {
        const message = `call ${i} is a DELEGATECALL, which MultiSendCallOnly refuses`;
        warnings.push(unsafe("danger/delegatecall", message));
      }
      return packed;
    });
  }
  if (contract === "safe" && name === "execTransaction") {
    const target = getAddress(String(values[0]));
    if (BigInt(values[3]) !== 0n && !Object.values(MULTI_SEND_CALL_ONLY).some((list) => list.includes(target))) {
      const message = `DELEGATECALL to ${target}, which is not MultiSendCallOnly: it can do anything to the Safe`;
      warnings.push(unsafe("danger/delegatecall", message));
    }
    if (BigInt(values[6]) !== 0n || String(values[7]) !== ZeroAddress || String(values[8]) !== ZeroAddress) {
      const message = "the Safe pays gas back: gasPrice, gasToken or refundReceiver is set";
      warnings.push(unsafe("danger/ether", message));
    }
    return [{ to: target, value: BigInt(values[1]), data: bytesAt(2) }];
  }
  if (contract === "timelock" && (name === "schedule" || name === "execute")) {
    return [{ to: getAddress(String(values[0])), value: BigInt(values[1]), data: bytesAt(2) }];
  }
  if (contract === "timelock" && (name === "scheduleBatch" || name === "executeBatch")) {
    // copies: a decoded list throws where it has no such element
    const targets: unknown[] = [...values[0]];
    const amounts: unknown[] = [...values[1]];
    const payloads: unknown[] = [...values[2]];
    if (targets.length !== amounts.length || targets.length !== payloads.length) {
      const message = "targets, values and payloads differ in number: it will revert";
      warnings.push(unsafe("operation/uneven-batch", message));
    }
    return targets.map((target, i) => ({
      to: getAddress(String(target)),
      value: BigInt(String(amounts[i] ?? 0)),
      data: hex(String(payloads[i] ?? "0x")),
    }));
  }
  if (name === "upgradeToAndCall") return String(values[1]) === "0x" ? [] : [{ to, value: 0n, data: bytesAt(1) }];
  if (name === "multicall") return [...values[0]].map((data) => ({ to, value: 0n, data: hex(String(data)) }));
  return [];
}

function showValue(type: ParamType, value: unknown): string {
  if (type.arrayChildren !== null && Array.isArray(value)) {
    const child = type.arrayChildren;
    return `[${value.map((item) => showValue(child, item)).join(", ")}]`;
  }
  if (type.components !== null && Array.isArray(value)) {
    return `(${type.components.map((part, i) => `${part.name}: ${showValue(part, value[i])}`).join(", ")})`;
  }
  return type.type === "string" ? quoteText(String(value)) : String(value);
}

/**
 * A decoded call as an indented list, one line a call, each warning below its call.
 *
 * @example
 * console.log(renderCalls([decodeCall(call)]).join("\n"));
 */
export function renderCalls(calls: readonly DecodedCall[], indent = ""): readonly string[] {
  return calls.flatMap((call, i) => [
    `${indent}${i + 1}. ${call.contract ?? "?"} ${call.to ?? "(no address)"}: ${call.words.sentence}`,
    ...(call.signature === undefined ? [`${indent}   data ${call.data}`] : [`${indent}   ${call.signature}`]),
    ...call.warnings.map(
      ({ severity, code, message }) =>
        `${indent}   ${severity === "unsafe" ? "UNSAFE" : "UNSURE"}: ${message} (${code})`,
    ),
    ...renderCalls(call.calls, `${indent}   `),
  ]);
}

/** Every call inside a list of decoded calls, outermost first. */
export function flattenCalls(calls: readonly DecodedCall[]): readonly DecodedCall[] {
  return calls.flatMap((call) => [call, ...flattenCalls(call.calls)]);
}
