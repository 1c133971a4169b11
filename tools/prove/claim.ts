import { readFileSync } from "node:fs";
import { join as joinPath } from "node:path";
import { Interface, type ParamType } from "ethers";
import { DECISIONS, type DecisionName } from "../../src/core/decision.ts";
import { bytesOf, CALLER, type Code, hash, NUMBER, type Outcome, TIMESTAMP } from "./evm.ts";
import type { Solver } from "./solver.ts";
import * as t from "./term.ts";
import type { Term } from "./term.ts";

const ROOT = joinPath(import.meta.dirname, "..", "..");

/** Something that holds of the runtime code, for every storage, time and request that its assumptions leave. */
export interface Claim {
  readonly title: string;
  /** The artifact: `contracts/policy/PlatformPolicy.sol:PlatformPolicy`. */
  readonly contract: string;
  /** Throws {@link Refuted} where it does not hold. */
  prove(code: Code, solver: Solver): Promise<void>;
}

/** A way in which a claim fails, with values that show it. */
export class Refuted extends Error {}

export interface Artifact {
  readonly code: Code;
  readonly interface: Interface;
}

/** What was compiled last: `hardhat build` first. */
export function readArtifact(contract: string): Artifact {
  const [file = "", name = ""] = contract.split(":");
  const text = readFileSync(joinPath(ROOT, "artifacts", file, `${name}.json`), "utf8");
  const { abi, deployedBytecode, immutableReferences } = JSON.parse(text);
  const bytes = Uint8Array.from(Buffer.from(deployedBytecode.slice(2), "hex"));
  const immutables = new Map<number, string>();
  for (const [id, places] of Object.entries(immutableReferences ?? {})) {
    for (const { start } of places as { start: number }[]) immutables.set(start, `immutable:${id}`);
  }
  return { code: { bytes, immutables }, interface: new Interface(abi) };
}

/** A request as an ABI encoder writes it, each of its arguments an unknown. */
export interface Request {
  readonly calldata: Term[];
  /** Arguments and fields of structs by name, each of a width of its own; of a text, the bytes. */
  readonly values: Readonly<Record<string, Term>>;
}

/**
 * @param lengths Bytes of each argument of type `string` or `bytes`, by name: a proof covers the lengths that it is run
 * with.
 */
export function request(artifact: Artifact, name: string, lengths: Readonly<Record<string, number>> = {}): Request {
  const fragment = artifact.interface.getFunction(name);
  if (fragment === null) throw new Error(`there is no function ${name}`);
  const params = fragment.inputs.flatMap((param) => param.components ?? [param]);
  const values: Record<string, Term> = {};
  const head: Term[] = [];
  const tail: Term[] = [];
  for (const param of params) {
    const length = lengths[param.name];
    if (param.type === "string" || param.type === "bytes") {
      if (length === undefined) throw new Error(`${param.name} has no length`);
      head.push(...wordBytes(t.word(32 * params.length + tail.length)));
      tail.push(...wordBytes(t.word(length)));
      if (length === 0) continue;
      const value = t.variable(`argument:${param.name}`, 8 * length);
      values[param.name] = value;
      tail.push(...bytesOf(value), ...Array.from({ length: (32 - (length % 32)) % 32 }, () => t.word(0, 8)));
      continue;
    }
    const value = t.variable(`argument:${param.name}`, widthOf(param));
    values[param.name] = value;
    head.push(...wordBytes(param.type.startsWith("bytes") ? padRight(value) : padLeft(value)));
  }
  return { calldata: [...constantBytes(fragment.selector), ...head, ...tail], values };
}

function widthOf(param: ParamType): number {
  const [, kind, size] = /^(u?int|bytes|address|bool)(\d*)$/.exec(param.type) ?? [];
  if (kind === "address") return 160;
  if (kind === "bool") return 1;
  if (kind === undefined || size === "") throw new Error(`an argument of type ${param.type} has no fixed place`);
  return kind === "bytes" ? 8 * Number(size) : Number(size);
}

export const constantBytes = (hex: string): Term[] => Array.from(Buffer.from(hex.slice(2), "hex"), (b) => t.word(b, 8));
export const padLeft = (value: Term): Term =>
  value.bits === 256 ? value : t.concat(t.word(0, 256 - value.bits), value);
export const padRight = (value: Term): Term =>
  value.bits === 256 ? value : t.concat(value, t.word(0, 256 - value.bits));
export const wordBytes = (value: Term): Term[] => bytesOf(value);

/** What every call has: times and blocks of 40 bits (until the year 36812), an address as caller. */
export const ASSUMED: readonly Term[] = [
  t.ult(TIMESTAMP, t.word(1n << 40n)),
  t.ult(NUMBER, t.word(1n << 40n)),
  t.ult(CALLER, t.word(1n << 160n)),
];

export const answer = (decision: DecisionName): Term => t.word(DECISIONS.indexOf(decision));

/** Where a mapping keeps the value of a key (Solidity's storage layout, "mappings and dynamic arrays"). */
export const mapping = (key: Term, slot: Term): Term => hash([...wordBytes(key), ...wordBytes(slot)]);

/** A field of a storage word. */
export const field = (value: Term, low: number, bits: number): Term => t.extract(value, low, bits);

/**
 * That each way to end returns one word, and that this is what `specification` says of it.
 *
 * @throws Refuted with the values that show the opposite
 */
export async function expectAnswer(
  outcomes: readonly Outcome[],
  specification: (outcome: Outcome) => Term,
  solver: Solver,
  shown: readonly Term[],
): Promise<void> {
  if (outcomes.length === 0) throw new Refuted("no way to end was found");
  for (const outcome of outcomes) {
    if (outcome.kind === "revert") {
      throw new Refuted(`it can revert:\n${await solver.model(outcome.path, shown)}`);
    }
    if (outcome.data?.bits !== 256) throw new Refuted("its answer is not one word");
    const differs = [...outcome.path, t.not(t.eq(outcome.data, specification(outcome)))];
    if (await solver.isSatisfiable(differs)) {
      throw new Refuted(`it answers otherwise than specified:\n${await solver.model(differs, shown)}`);
    }
  }
}
