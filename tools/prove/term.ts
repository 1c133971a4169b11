/*
 * Terms of the theory of bit vectors (SMT-LIB QF_UFBV), each made once, so that equal terms are the same object. Constructors
 * fold constants and take the few steps that keep an EVM's terms small; everything else is left to the solver.
 */

export type Op =
  | "const"
  | "var"
  | "true"
  | "false"
  | "add"
  | "sub"
  | "mul"
  | "udiv"
  | "urem"
  | "sdiv"
  | "srem"
  | "and"
  | "or"
  | "xor"
  | "shl"
  | "lshr"
  | "ashr"
  | "extract"
  | "concat"
  | "ite"
  | "keccak"
  | "sload"
  | "eq"
  | "ult"
  | "slt"
  | "bnot"
  | "band"
  | "bor";

/** A bit vector of `bits` bits, or a truth value where `bits` is 0. */
export interface Term {
  readonly op: Op;
  readonly bits: number;
  readonly args: readonly Term[];
  /** Of a constant, and the lowest bit of an extract. */
  readonly value: bigint;
  readonly name: string;
  readonly id: number;
}

const made = new Map<string, Term>();

function make(op: Op, bits: number, args: readonly Term[], value = 0n, name = ""): Term {
  const key = `${op}/${bits}/${value}/${name}/${args.map(({ id }) => id).join(",")}`;
  const known = made.get(key);
  if (known !== undefined) return known;
  const term: Term = { op, bits, args, value, name, id: made.size };
  made.set(key, term);
  return term;
}

const mask = (bits: number) => (1n << BigInt(bits)) - 1n;
const signed = (term: Term) => BigInt.asIntN(term.bits, term.value);
const isConst = (term: Term) => term.op === "const";

export const TRUE = make("true", 0, []);
export const FALSE = make("false", 0, []);
const truth = (value: boolean) => (value ? TRUE : FALSE);

/** A constant of 256 bits, unless told otherwise. */
export const word = (value: bigint | number, bits = 256): Term => make("const", bits, [], BigInt(value) & mask(bits));
export const variable = (name: string, bits = 256): Term => make("var", bits, [], 0n, name);
export const ZERO = word(0);
export const ONE = word(1);

type Fold = (a: bigint, b: bigint, bits: number) => bigint;
const FOLDS: Partial<Record<Op, Fold>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  udiv: (a, b) => (b === 0n ? 0n : a / b),
  urem: (a, b) => (b === 0n ? 0n : a % b),
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b, bits) => (b >= BigInt(bits) ? 0n : a << b),
  lshr: (a, b, bits) => (b >= BigInt(bits) ? 0n : a >> b),
};

/** An operation on two vectors of one width; division by zero is zero, as the EVM has it (Yellow Paper, appendix H). */
export function binary(op: Op, a: Term, b: Term): Term {
  const fold = FOLDS[op];
  if (fold !== undefined && isConst(a) && isConst(b)) return word(fold(a.value, b.value, a.bits), a.bits);
  const zeroRight = isConst(b) && b.value === 0n;
  const zeroLeft = isConst(a) && a.value === 0n;
  if (op === "add" || op === "or" || op === "xor") {
    if (zeroRight) return a;
    if (zeroLeft) return b;
    if (op === "add" && isConst(a)) return binary("add", b, a);
    if (op === "add" && isConst(b) && a.op === "add" && isConst(a.args[1] as Term)) {
      return binary("add", a.args[0] as Term, binary("add", a.args[1] as Term, b));
    }
  }
  if ((op === "sub" || op === "shl" || op === "lshr") && zeroRight) return a;
  if (op === "sub" && a === b) return word(0, a.bits);
  if (op === "sub" && isConst(b)) return binary("add", a, word(-b.value, a.bits));
  if ((op === "and" || op === "mul") && (zeroLeft || zeroRight)) return word(0, a.bits);
  if (op === "and") {
    if (isConst(a) && a.value === mask(a.bits)) return b;
    if (isConst(b) && b.value === mask(b.bits)) return a;
    if (a === b) return a;
  }
  if ((op === "udiv" || op === "urem" || op === "sdiv" || op === "srem") && !isConst(b)) {
    return ite(eq(b, word(0, b.bits)), word(0, b.bits), make(op, a.bits, [a, b]));
  }
  if (op === "sdiv" || op === "srem") {
    if (zeroRight) return word(0, a.bits);
    if (isConst(a) && isConst(b)) return word(op === "sdiv" ? signed(a) / signed(b) : signed(a) % signed(b), a.bits);
  }
  if (op === "ashr" && isConst(a) && isConst(b)) {
    return word(signed(a) >> (b.value > BigInt(a.bits) ? BigInt(a.bits) : b.value), a.bits);
  }
  return make(op, a.bits, [a, b]);
}

export const add = (a: Term, b: Term): Term => binary("add", a, b);
export const and = (a: Term, b: Term): Term => binary("and", a, b);

/** Bits `low` to `low + bits - 1`, the lowest being 0. */
export function extract(term: Term, low: number, bits: number): Term {
  if (low === 0 && bits === term.bits) return term;
  if (isConst(term)) return word(term.value >> BigInt(low), bits);
  if (term.op === "extract") return extract(term.args[0] as Term, low + Number(term.value), bits);
  if (term.op === "concat") {
    const [high, rest] = term.args as [Term, Term];
    if (low + bits <= rest.bits) return extract(rest, low, bits);
    if (low >= rest.bits) return extract(high, low - rest.bits, bits);
  }
  return extractThrough(term, low, bits) ?? make("extract", bits, [term], BigInt(low));
}

/** A packed field, through what puts it beside others: masks, shifts by a constant, a choice. */
function extractThrough(term: Term, low: number, bits: number): Term | undefined {
  const [a, b, c] = term.args as [Term, Term, Term];
  if (term.op === "and" || term.op === "or" || term.op === "xor") {
    return binary(term.op, extract(a, low, bits), extract(b, low, bits));
  }
  if (term.op === "ite") return ite(a, extract(b, low, bits), extract(c, low, bits));
  if ((term.op !== "shl" && term.op !== "lshr") || !isConst(b)) return undefined;
  if (b.value >= BigInt(term.bits)) return word(0, bits);
  const by = Number(b.value);
  const from = term.op === "shl" ? low - by : low + by;
  if (from >= term.bits || from + bits <= 0) return word(0, bits);
  return from >= 0 && from + bits <= term.bits ? extract(a, from, bits) : undefined;
}

/** `high` above `low`. */
export function concat(high: Term, low: Term): Term {
  const bits = high.bits + low.bits;
  if (isConst(high) && isConst(low)) return word((high.value << BigInt(low.bits)) | low.value, bits);
  if (high.op === "extract" && low.op === "extract" && high.args[0] === low.args[0]) {
    if (Number(high.value) === Number(low.value) + low.bits)
      return extract(high.args[0] as Term, Number(low.value), bits);
  }
  if (high.op === "concat") {
    const joined = concat(high.args[1] as Term, low);
    if (joined.op !== "concat") return concat(high.args[0] as Term, joined);
  }
  return make("concat", bits, [high, low]);
}

export function ite(condition: Term, yes: Term, no: Term): Term {
  if (condition === TRUE || yes === no) return yes;
  if (condition === FALSE) return no;
  return make("ite", yes.bits, [condition, yes, no]);
}

/** 1 or 0, as the EVM's comparisons answer. */
export const bit = (condition: Term): Term => ite(condition, ONE, ZERO);

export function eq(a: Term, b: Term): Term {
  if (a === b) return TRUE;
  if (isConst(a) && isConst(b)) return truth(a.value === b.value);
  if (isConst(a)) return eq(b, a);
  if (isConst(b) && a.op === "ite" && isConst(a.args[1] as Term) && isConst(a.args[2] as Term)) {
    const [condition, yes, no] = a.args as [Term, Term, Term];
    return or(yes.value === b.value ? condition : FALSE, no.value === b.value ? not(condition) : FALSE);
  }
  return make("eq", 0, [a, b]);
}

export function ult(a: Term, b: Term): Term {
  if (isConst(a) && isConst(b)) return truth(a.value < b.value);
  if (a === b || (isConst(b) && b.value === 0n)) return FALSE;
  return make("ult", 0, [a, b]);
}

export function slt(a: Term, b: Term): Term {
  if (isConst(a) && isConst(b)) return truth(signed(a) < signed(b));
  return a === b ? FALSE : make("slt", 0, [a, b]);
}

export function not(a: Term): Term {
  if (a === TRUE) return FALSE;
  if (a === FALSE) return TRUE;
  return a.op === "bnot" ? (a.args[0] as Term) : make("bnot", 0, [a]);
}

export function all(...terms: readonly Term[]): Term {
  if (terms.includes(FALSE)) return FALSE;
  const rest = terms.filter((term) => term !== TRUE);
  return rest.length < 2 ? (rest[0] ?? TRUE) : make("band", 0, rest);
}

export function or(...terms: readonly Term[]): Term {
  if (terms.includes(TRUE)) return TRUE;
  const rest = terms.filter((term) => term !== FALSE);
  return rest.length < 2 ? (rest[0] ?? FALSE) : make("bor", 0, rest);
}

export const implies = (a: Term, b: Term): Term => or(not(a), b);

/** Keccak-256 of `bytes` (8 bits a byte), a function of which nothing is assumed here; of constants too, see evm.ts. */
export const keccak = (bytes: Term): Term => make("keccak", 256, [bytes]);

/** What the storage named `name` held at `slot` before the call. */
export const sload = (name: string, slot: Term): Term => make("sload", 256, [slot], 0n, name);
