import { AbiCoder, concat, FunctionFragment, keccak256, type ParamType, toUtf8Bytes } from "ethers";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from "../core/json.ts";
import { type DecodeContext, recogniseCall } from "./decode.ts";
import { formatJson } from "./operation.ts";
import { type Call, hex } from "./safe-hash.ts";

/** What the file says that made it; part of the checksum like every field but the name. */
const TX_BUILDER_VERSION = "1.18.0";

/** What a batch file is made from. */
export interface BatchInput {
  readonly chainId: bigint;
  readonly safe: string;
  readonly name: string;
  readonly description: string;
  /** Seconds since 1970. */
  readonly time: bigint;
  readonly calls: readonly Call[];
  readonly context: DecodeContext;
}

/**
 * A batch file that Safe{Wallet}'s Transaction Builder imports. A call that is known here goes in with its method and arguments, so that the
 * signer's screen shows them, provided that the Transaction Builder will encode them to the intended bytes; any other call goes in as bytes.
 *
 * @throws KeysteadError `batch/misread` if the finished file would mean other calls: a defect, never to be signed
 * @example
 * writeFileSync("schedule.safe.json", formatBatch(input));
 */
export function formatBatch(input: BatchInput): string {
  const document = {
    version: "1.0",
    chainId: input.chainId.toString(),
    createdAt: Number(input.time) * 1000,
    meta: {
      name: input.name,
      description: input.description,
      txBuilderVersion: TX_BUILDER_VERSION,
      createdFromSafeAddress: input.safe,
      createdFromOwnerAddress: "",
    },
    transactions: input.calls.map((call) => formatTransaction(call, input.context)),
  };
  const checksum = batchChecksum(document);
  const text = formatJson({ ...document, meta: { ...document.meta, checksum } });
  const meant = readBatch(text).calls;
  const differs = input.calls.findIndex((call, i) => {
    const read = meant[i];
    return read === undefined || read.to !== call.to || read.value !== call.value || read.data !== call.data;
  });
  if (differs !== -1 || meant.length !== input.calls.length) {
    throw new KeysteadError("batch/misread", `the Transaction Builder would not read call ${differs} as it is meant`, {
      argument: "calls",
      remedy: "This is a defect of keystead: report it, and sign nothing.",
    });
  }
  return text;
}

function formatTransaction(call: Call, context: DecodeContext): JsonObject {
  const { to, value } = call;
  const asBytes = { to, value: value.toString(), data: call.data, contractMethod: null, contractInputsValues: null };
  const recognised = recogniseCall(call, context);
  if (recognised === undefined || !recognised.certain) return asBytes;
  const { inputs, values, name } = recognised;
  const method = {
    inputs: inputs.map(formatInput),
    name,
    payable: recognised.payable,
  };
  const asMethod = {
    ...{ to, value: value.toString(), data: null, contractMethod: method },
    contractInputsValues: Object.fromEntries(inputs.map((input, i) => [input.name, formatValue(input, values[i])])),
  };
  return encodeLikeTxBuilder(asMethod) === call.data ? asMethod : asBytes;
}

function formatInput(input: ParamType): JsonObject {
  const { name, type } = input;
  // ethers spells a tuple's members out in its type; an ABI says "tuple" and lists them
  const plain = type.startsWith("tuple") ? `tuple${/(\[\d*\])*$/.exec(type)?.[0] ?? ""}` : type;
  const components = input.arrayChildren?.components ?? input.components;
  return components === null
    ? { internalType: plain, name, type: plain }
    : { components: components.map(formatInput), internalType: plain, name, type: plain };
}

/** An argument as the form field's text: lists and tuples are JSON with every number in quotes. */
function formatValue(type: ParamType, value: unknown): string {
  const nested = (child: ParamType, item: unknown): JsonValue => {
    const element = child.arrayChildren;
    if (element !== null && Array.isArray(item)) return item.map((each) => nested(element, each));
    if (child.components !== null && Array.isArray(item)) {
      return child.components.map((part, i) => nested(part, item[i]));
    }
    return typeof item === "boolean" ? item : String(item);
  };
  return type.baseType === "array" || type.baseType === "tuple"
    ? JSON.stringify(nested(type, value))
    : String(nested(type, value));
}

/**
 * The `meta.checksum` of a batch file, over exactly the JSON that is written. It detects a slip of an editor and nothing more: whoever
 * changes the file can compute it again.
 *
 * @param document the file's content, with or without its checksum
 * @example
 * batchChecksum(JSON.parse(text)) === JSON.parse(text).meta.checksum;
 */
export function batchChecksum(document: JsonObject): Hex {
  const meta = isJsonObject(document.meta) ? document.meta : {};
  const rest = Object.fromEntries(Object.entries(meta).filter(([key]) => key !== "checksum"));
  return hex(keccak256(toUtf8Bytes(serialise({ ...document, meta: { ...rest, name: null } }))));
}

/** Safe's own form: sorted keys, then each value with a comma behind it. */
function serialise(value: JsonValue): string {
  if (isJsonArray(value)) return `[${value.map(serialise).join(",")}]`;
  if (!isJsonObject(value)) return JSON.stringify(value);
  const keys = Object.keys(value).sort();
  return `{${JSON.stringify(keys)}${keys.map((key) => `${serialise(value[key] ?? null)},`).join("")}}`;
}

/** What a batch file means. */
export interface ReadBatch {
  readonly chainId: string;
  readonly safe: string;
  readonly calls: readonly Call[];
  /** Whether the checksum in the file is that of its content. */
  readonly checksumFits: boolean;
}

/**
 * Reads a batch file as the Transaction Builder does, and says which calls would be signed.
 *
 * @throws KeysteadError `batch/malformed` {field}, `batch/not-encodable` where the Transaction Builder would silently put `0x` for a call, and those of
 * `parseJson`
 * @example
 * readBatch(text).calls[0]?.data;
 */
export function readBatch(text: string): ReadBatch {
  const document = parseJson(text, "batch file");
  if (!isJsonObject(document) || !isJsonObject(document.meta) || !isJsonArray(document.transactions)) {
    throw malformed("meta and transactions", "are missing");
  }
  const { chainId, meta } = document;
  // Other tools write numbers where the Transaction Builder writes texts, and it takes them.
  if (typeof chainId !== "string" && !Number.isSafeInteger(chainId)) throw malformed("chainId", "is not a number");
  return {
    chainId: String(chainId),
    safe: String(meta.createdFromSafeAddress),
    checksumFits: meta.checksum === batchChecksum(document),
    calls: document.transactions.map((item, i) => readTransaction(item, `transactions[${i}]`)),
  };
}

function readTransaction(item: JsonValue, field: string): Call {
  if (!isJsonObject(item)) throw malformed(field, "is not an object");
  const { to, value } = item;
  if (typeof to !== "string" || !/^0x[0-9a-fA-F]{40}$/.test(to)) throw malformed(`${field}.to`, "is no address");
  if (typeof value !== "string" || !/^(?:\d{1,78}|0x[0-9a-fA-F]{1,64})$/.test(value)) {
    throw malformed(`${field}.value`, "is not a number as text, in decimal or hex");
  }
  const data = isPlainTransfer(item) ? "0x" : encodeLikeTxBuilder(item);
  if (data === undefined) {
    throw new KeysteadError(
      "batch/not-encodable",
      `${field}: the Transaction Builder cannot encode it and would send 0x`,
      {
        argument: field,
        remedy: "Don't import this file.",
        details: { field },
      },
    );
  }
  return { to, value: BigInt(value), data };
}

/** An entry that calls nothing: no data, and no method, or one that only receives. */
function isPlainTransfer({ data, contractMethod: method, contractInputsValues: given }: JsonObject): boolean {
  if (data !== undefined && data !== null && data !== "" && data !== "0x") return false;
  // arguments without a method that takes them: a call was meant
  if (isJsonObject(given) && Object.keys(given).length > 0) return false;
  if (method === undefined || method === null) return true;
  const receives = isJsonObject(method) && (method.name === "receive" || method.name === "fallback");
  return receives && (method.inputs === undefined || (isJsonArray(method.inputs) && method.inputs.length === 0));
}

const malformed = (field: string, what: string) =>
  new KeysteadError("batch/malformed", `the batch file's ${field} ${what}`, {
    argument: field,
    remedy: "Don't import this file: write it again with `keystead propose`.",
    details: { field },
  });

/**
 * The calldata that the Transaction Builder makes of one entry: bytes that are given win; otherwise each argument's text is read by the rules of
 * its form fields and encoded. Undefined where it fails, as it then puts `0x` without a word.
 *
 * @example
 * encodeLikeTxBuilder({ data: null, contractMethod, contractInputsValues });
 */
export function encodeLikeTxBuilder(entry: JsonObject): Hex | undefined {
  const { data, contractMethod: method, contractInputsValues: given } = entry;
  if (typeof data === "string" && data !== "") return /^0x([0-9a-fA-F]{2})*$/.test(data) ? hex(data) : undefined;
  if (!isJsonObject(method) || typeof method.name !== "string" || ["", "receive", "fallback"].includes(method.name)) {
    return undefined;
  }
  const inputs = isJsonArray(method.inputs) ? method.inputs : [];
  try {
    const values = inputs.map((input, i) => {
      if (!isJsonObject(input) || typeof input.type !== "string") throw malformed(`inputs[${i}]`, "has no type");
      const key = typeof input.name === "string" && input.name !== "" ? input.name : String(i);
      const text = isJsonObject(given) ? given[key] : undefined;
      if (text !== undefined && typeof text !== "string") throw malformed(key, "is not a text");
      return readField(input.type, text ?? "");
    });
    // not through Interface, which writes about a malformed method to standard output
    const fragment = FunctionFragment.from({ ...method, type: "function" });
    return hex(concat([fragment.selector, AbiCoder.defaultAbiCoder().encode(fragment.inputs, values)]));
  } catch {
    return undefined;
  }
}

/** One form field's text by its type, as the Transaction Builder reads it. */
function readField(type: string, text: string): unknown {
  if (type === "bool") return readBoolean(text.trim());
  if (/^u?int\d*$/.test(type)) return readInteger(text);
  if (type.startsWith("tuple") || /^string\[/.test(type)) return JSON.parse(text);
  if (type.endsWith("]")) return readArray(type, text.trim());
  return text;
}

function readBoolean(text: string): boolean {
  const lower = text.toLowerCase();
  if (lower === "true" || lower === "1") return true;
  if (lower === "false" || lower === "0") return false;
  throw malformed("boolean", "is none");
}

/** Digits with a letter a–f among them are hex there even without 0x: `1e18` is 7704. */
function readInteger(text: string): bigint {
  const bare = text.replace(/["']/g, "").trim();
  if (bare === "") throw malformed("integer", "is empty");
  const [sign, digits] = bare.startsWith("-") ? [-1n, bare.slice(1)] : [1n, bare];
  const isHex = !/^0x/i.test(digits) && /^[0-9a-f]+$/i.test(digits) && /[a-f]/i.test(digits);
  return sign * BigInt(isHex ? `0x${digits}` : digits);
}

/** Elements are split at commas outside of brackets, and lose their quotes. */
function readArray(type: string, text: string): unknown[] {
  if (!text.startsWith("[") || !text.endsWith("]")) throw malformed("list", "is none");
  const items: string[] = [];
  let depth = 0;
  let current: string | undefined;
  for (const char of text.slice(1, -1)) {
    if (char === "," && depth === 0) {
      items.push(current ?? "");
      current = "";
      continue;
    }
    if (char === "[") depth++;
    if (char === "]") depth--;
    current = ((current ?? "") + char).trim();
  }
  if (current !== undefined) items.push(current);
  const base = type.replace(/(\[\d*\])+$/, "");
  return items.map((item) =>
    item.startsWith("[") && item.endsWith("]") ? readArray(type, item) : readField(base, item.replace(/["']/g, "")),
  );
}
