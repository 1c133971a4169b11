/*
 * A symbolic EVM: runs a contract's runtime code on terms in place of numbers, and gives every way in which a call can end.
 * Semantics: Ethereum Yellow Paper, appendix H; EIP-1153, EIP-5656, EIP-3855 (Cancun). What it does not model makes it stop
 * with an error, so that no proof rests on it: offsets that are not constants, calls that change state, creation. Gas is not
 * modelled: that a call runs out of it is no way to end here.
 */
import { keccak_256 } from "@noble/hashes/sha3.js";
import type { Solver } from "./solver.ts";
import * as t from "./term.ts";
import type { Term } from "./term.ts";

/** Runtime code, with the places that an immutable fills in at deployment. */
export interface Code {
  readonly bytes: Uint8Array;
  /** Name of the immutable by the position of its 32 bytes. */
  readonly immutables: ReadonlyMap<number, string>;
  /** Where given: the positions of the opcodes that a run came by. */
  readonly visited?: Set<number>;
}

/** A call that the code made to another contract: `ok`, `size` and `answer` are unknowns, so any answer is covered. */
export interface OuterCall {
  readonly target: Term;
  readonly input: Term;
  readonly ok: Term;
  readonly size: Term;
  readonly answer: readonly Term[];
}

/** Storage after the first state: what was written, in order. */
export type Writes = readonly (readonly [slot: Term, value: Term])[];

/** One way to end: what must hold for it, and what it leaves. */
export interface Outcome {
  readonly kind: "return" | "revert";
  readonly path: readonly Term[];
  /** The bytes given back; `undefined`: none. */
  readonly data: Term | undefined;
  readonly writes: Writes;
  readonly calls: readonly OuterCall[];
}

/** What is outside of the code. */
export interface Environment {
  /** Bytes, each a term of 8 bits. */
  readonly calldata: readonly Term[];
  readonly assumptions: readonly Term[];
  /** Name of the storage; two runs with one name start from the same. */
  readonly storage: string;
  readonly caller?: Term;
  readonly value?: Term;
}

export const TIMESTAMP = t.variable("timestamp");
export const NUMBER = t.variable("block.number");
export const CALLER = t.variable("caller");

interface State {
  pc: number;
  stack: Term[];
  memory: Map<number, Term>;
  path: Term[];
  writes: (readonly [Term, Term])[];
  calls: OuterCall[];
  returned: Term;
}

const NO_BYTE = t.word(0, 8);
const STEPS = 5_000_000;

/** A term's bytes, the highest first. */
export function bytesOf(term: Term): Term[] {
  return Array.from({ length: term.bits / 8 }, (_, i) => t.extract(term, term.bits - 8 * (i + 1), 8));
}

/** One vector of all bytes; `undefined` for none. */
export const join = (bytes: readonly Term[]): Term | undefined =>
  bytes.length === 0 ? undefined : bytes.reduce((all, byte) => t.concat(all, byte));

/** Keccak-256: computed where all bytes are known, else a function that is only known to be one. */
export function hash(bytes: readonly Term[]): Term {
  const all = join(bytes);
  if (all === undefined || all.op === "const") {
    const known = Uint8Array.from(bytes, ({ value }) => Number(value));
    return t.word(BigInt(`0x${Buffer.from(keccak_256(known)).toString("hex")}`));
  }
  return t.keccak(all);
}

/** A slot as a hash and a distance from it, or as a constant. */
function split(slot: Term): { base: Term | undefined; offset: bigint } {
  if (slot.op === "const") return { base: undefined, offset: slot.value };
  const [base, offset] = slot.args;
  if (slot.op === "add" && base?.op === "keccak" && offset?.op === "const") return { base, offset: offset.value };
  if (slot.op === "keccak") return { base: slot, offset: 0n };
  throw new Error("a slot that is neither a constant nor near a hash is not modelled");
}

/**
 * Whether two slots are one. Assumes what Solidity's storage layout assumes: that Keccak-256 has no collisions, and that no
 * hash lies near another or near a constant slot.
 */
export function sameSlot(a: Term, b: Term): Term {
  if (a === b) return t.TRUE;
  const [one, other] = [split(a), split(b)];
  if (one.base === undefined || other.base === undefined || one.offset !== other.offset) return t.FALSE;
  return sameBytes(one.base.args[0] as Term, other.base.args[0] as Term);
}

/** Word by word: of two hashed slots, by {@link sameSlot}; a hashed slot is no constant. */
function sameBytes(a: Term, b: Term): Term {
  if (a.bits !== b.bits || a.bits % 256 !== 0) return a.bits === b.bits ? t.eq(a, b) : t.FALSE;
  const words = Array.from({ length: a.bits / 256 }, (_, i) => [
    t.extract(a, 256 * i, 256),
    t.extract(b, 256 * i, 256),
  ]);
  const isSlot = (term: Term) => term.op === "keccak" || (term.op === "add" && term.args[0]?.op === "keccak");
  const same = words.map(([one, other]) => {
    if (one === undefined || other === undefined) return t.FALSE;
    const slots = [one, other].filter(isSlot).length;
    if (slots === 2) return sameSlot(one, other);
    return slots === 1 && (one.op === "const" || other.op === "const") ? t.FALSE : t.eq(one, other);
  });
  return t.all(...same);
}

/** What a slot holds after these writes. */
export function load(storage: string, writes: Writes, slot: Term): Term {
  return writes.reduce((before, [at, value]) => t.ite(sameSlot(at, slot), value, before), t.sload(storage, slot));
}

const place = (term: Term | undefined): number => {
  if (term?.op !== "const" || term.value > 1_000_000n) throw new Error("an offset that is no constant is not modelled");
  return Number(term.value);
};

class Run {
  readonly outcomes: Outcome[] = [];
  readonly code: Code;
  readonly environment: Environment;
  private readonly solver: Solver;
  private fresh = 0;

  constructor(code: Code, environment: Environment, solver: Solver) {
    this.code = code;
    this.environment = environment;
    this.solver = solver;
  }

  async all(): Promise<Outcome[]> {
    const path = [...this.environment.assumptions];
    const start: State = { pc: 0, stack: [], memory: new Map(), path, writes: [], calls: [], returned: t.ZERO };
    const open = [start];
    for (let steps = 0, state = open.pop(); state !== undefined; state = open.pop()) {
      for (let going = true; going; steps += 1) {
        if (steps > STEPS) throw new Error("too many steps: a loop has no bound");
        const forked = await this.step(state);
        if (forked === "ended") going = false;
        else if (forked !== undefined) open.push(forked);
      }
    }
    return this.outcomes;
  }

  unknown(name: string, bits = 256): Term {
    this.fresh += 1;
    return t.variable(`${this.environment.storage}:${name}${this.fresh}`, bits);
  }

  private async step(state: State): Promise<State | "ended" | undefined> {
    const opcode = this.code.bytes[state.pc] ?? 0;
    this.code.visited?.add(state.pc);
    if (opcode === 0x57) return this.jumpIf(state);
    const end = ENDS[opcode];
    if (end !== undefined) {
      const [from, size] =
        opcode === 0x00 || opcode === 0xfe ? [0, 0] : [place(state.stack.pop()), place(state.stack.pop())];
      this.outcomes.push({ ...state, kind: end, data: join(read(state, from, size)) });
      return "ended";
    }
    state.pc += 1;
    if (opcode >= 0x5f && opcode <= 0x7f) this.push(state, opcode - 0x5f);
    else if (opcode >= 0x80 && opcode <= 0x8f) state.stack.push(state.stack.at(0x7f - opcode) as Term);
    else if (opcode >= 0x90 && opcode <= 0x9f) {
      const [top, other] = [state.stack.length - 1, state.stack.length - 2 - (opcode - 0x90)];
      [state.stack[top], state.stack[other]] = [state.stack[other] as Term, state.stack[top] as Term];
    } else if (opcode >= 0xa0 && opcode <= 0xa4) state.stack.splice(-(opcode - 0xa0 + 2));
    else {
      const action = ACTIONS[opcode];
      if (action === undefined) throw new Error(`opcode 0x${opcode.toString(16)} at ${state.pc - 1} is not modelled`);
      const args = Array.from({ length: action.length - 2 }, () => state.stack.pop() as Term);
      const result = action(state, this, ...args);
      if (result !== undefined) state.stack.push(result);
    }
    return undefined;
  }

  private push(state: State, size: number): void {
    const name = this.code.immutables.get(state.pc);
    const bytes = this.code.bytes.subarray(state.pc, state.pc + size);
    const value = t.word(size === 0 ? 0n : BigInt(`0x${Buffer.from(bytes).toString("hex")}`));
    state.stack.push(name === undefined ? value : t.variable(name));
    state.pc += size;
  }

  /** Both ways where both are possible. */
  private async jumpIf(state: State): Promise<State | undefined> {
    const target = place(state.stack.pop());
    const taken = t.not(t.eq(state.stack.pop() as Term, t.ZERO));
    state.pc += 1;
    if (taken === t.FALSE) return undefined;
    if (taken !== t.TRUE && (await this.solver.isSatisfiable([...state.path, t.not(taken)]))) {
      if (!(await this.solver.isSatisfiable([...state.path, taken]))) return undefined;
      const copy = structuredState(state);
      copy.path.push(t.not(taken));
      state.path.push(taken);
      state.pc = target;
      return copy;
    }
    state.pc = target;
    return undefined;
  }
}

const structuredState = (state: State): State => ({
  ...state,
  stack: [...state.stack],
  memory: new Map(state.memory),
  path: [...state.path],
  writes: [...state.writes],
  calls: [...state.calls],
});

const read = ({ memory }: State, from: number, size: number): Term[] =>
  Array.from({ length: size }, (_, i) => memory.get(from + i) ?? NO_BYTE);

const write = ({ memory }: State, to: number, bytes: readonly Term[]): void => {
  for (const [i, byte] of bytes.entries()) memory.set(to + i, byte);
};

/** Bytes `from` on of `bytes`, zero behind their end. */
const slice = (bytes: readonly Term[], from: number, size: number): Term[] =>
  Array.from({ length: size }, (_, i) => bytes[from + i] ?? NO_BYTE);

/** Opcodes that end a call. 0xfe is what the compiler puts where it believes that nobody comes. */
const ENDS: Readonly<Record<number, Outcome["kind"]>> = { 0: "return", 243: "return", 253: "revert", 254: "revert" };

type Action = (state: State, run: Run, ...args: Term[]) => Term | undefined;
const calculate =
  (op: t.Op): Action =>
  (_state, _run, a: Term, b: Term) =>
    t.binary(op, a, b);
const shift =
  (op: t.Op): Action =>
  (_state, _run, by: Term, value: Term) =>
    t.binary(op, value, by);
const environment =
  (term: Term): Action =>
  (_state, _run) =>
    term;

function byteAt(_state: State, _run: Run, index: Term, value: Term): Term {
  if (index.op !== "const") throw new Error("BYTE with an index that is no constant is not modelled");
  return index.value > 31n ? t.ZERO : t.concat(t.word(0, 248), t.extract(value, 8 * (31 - Number(index.value)), 8));
}

function signExtend(_state: State, _run: Run, size: Term, value: Term): Term {
  const left = t.word(256 - 8 * (place(size) + 1));
  return t.binary("ashr", t.binary("shl", value, left), left);
}

function power(_state: State, _run: Run, base: Term, exponent: Term): Term {
  if (base.op !== "const" || exponent.op !== "const") throw new Error("EXP of unknowns is not modelled");
  let result = 1n;
  for (let i = 0n; i < exponent.value; i += 1n) result = BigInt.asUintN(256, result * base.value);
  return t.word(result);
}

function staticCall(
  state: State,
  run: Run,
  _gas: Term,
  target: Term,
  from: Term,
  size: Term,
  to: Term,
  room: Term,
): Term {
  const ok = run.unknown("ok", 256);
  const returned = run.unknown("size");
  const answer = Array.from({ length: Math.ceil(place(room) / 32) }, () => run.unknown("answer"));
  const input = join(read(state, place(from), place(size))) ?? t.word(0, 8);
  state.path.push(t.ult(ok, t.word(2)), t.ult(returned, t.word(1n << 32n)));
  state.calls.push({ target, input, ok, size: returned, answer });
  // Bytes beyond a short answer keep what was there; an unknown covers that too.
  write(state, place(to), answer.flatMap(bytesOf).slice(0, place(room)));
  state.returned = returned;
  return ok;
}

const ACTIONS: Readonly<Record<number, Action>> = {
  1: calculate("add"),
  2: calculate("mul"),
  3: calculate("sub"),
  4: calculate("udiv"),
  5: calculate("sdiv"),
  6: calculate("urem"),
  7: calculate("srem"),
  10: power,
  11: signExtend,
  16: (_state, _run, a: Term, b: Term) => t.bit(t.ult(a, b)),
  17: (_state, _run, a: Term, b: Term) => t.bit(t.ult(b, a)),
  18: (_state, _run, a: Term, b: Term) => t.bit(t.slt(a, b)),
  19: (_state, _run, a: Term, b: Term) => t.bit(t.slt(b, a)),
  20: (_state, _run, a: Term, b: Term) => t.bit(t.eq(a, b)),
  21: (_state, _run, a: Term) => t.bit(t.eq(a, t.ZERO)),
  22: calculate("and"),
  23: calculate("or"),
  24: calculate("xor"),
  25: (_state, _run, a: Term) => t.binary("xor", a, t.word(-1n)),
  26: byteAt,
  27: shift("shl"),
  28: shift("lshr"),
  29: shift("ashr"),
  32: (state, _run, from: Term, size: Term) => hash(read(state, place(from), place(size))),
  48: environment(t.variable("address")),
  51: (_state, run) => run.environment.caller ?? CALLER,
  52: (_state, run) => run.environment.value ?? t.ZERO,
  53: (_state, run, at: Term) => join(slice(run.environment.calldata, place(at), 32)),
  54: (_state, run) => t.word(run.environment.calldata.length),
  55: (state, run, to: Term, from: Term, size: Term) =>
    void write(state, place(to), slice(run.environment.calldata, place(from), place(size))),
  56: (_state, run) => t.word(run.code.bytes.length),
  57: (state, run, to: Term, from: Term, size: Term) => {
    const bytes = Array.from(run.code.bytes, (byte) => t.word(byte, 8));
    write(state, place(to), slice(bytes, place(from), place(size)));
    return undefined;
  },
  59: (_state, run, _account: Term) => run.unknown("codesize"),
  60: (state, run, _account: Term, to: Term, _from: Term, size: Term) =>
    void write(state, place(to), bytesOf(run.unknown("code", 8 * place(size)))),
  61: (state, _run) => state.returned,
  66: environment(TIMESTAMP),
  67: environment(NUMBER),
  70: environment(t.variable("chainid")),
  80: (_state, _run, _dropped: Term) => undefined,
  81: (state, _run, at: Term) => join(read(state, place(at), 32)),
  82: (state, _run, at: Term, value: Term) => void write(state, place(at), bytesOf(value)),
  83: (state, _run, at: Term, value: Term) => void write(state, place(at), [t.extract(value, 0, 8)]),
  84: (state, run, slot: Term) => load(run.environment.storage, state.writes, slot),
  85: (state, _run, slot: Term, value: Term) => void state.writes.push([slot, value]),
  86: (state, _run, target: Term) => {
    state.pc = place(target);
    return undefined;
  },
  90: (_state, run) => run.unknown("gas"),
  91: (_state, _run) => undefined,
  94: (state, _run, to: Term, from: Term, size: Term) =>
    void write(state, place(to), read(state, place(from), place(size))),
  250: staticCall,
};

/** Every way in which a call can end, each with a path that the solver found possible. */
export const execute = (code: Code, environment: Environment, solver: Solver): Promise<Outcome[]> =>
  new Run(code, environment, solver).all();
