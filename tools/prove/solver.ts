import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Term } from "./term.ts";

const NAMES: Partial<Record<Term["op"], string>> = {
  add: "bvadd",
  sub: "bvsub",
  mul: "bvmul",
  udiv: "bvudiv",
  urem: "bvurem",
  sdiv: "bvsdiv",
  srem: "bvsrem",
  and: "bvand",
  or: "bvor",
  xor: "bvxor",
  shl: "bvshl",
  lshr: "bvlshr",
  ashr: "bvashr",
  concat: "concat",
  ite: "ite",
  eq: "=",
  ult: "bvult",
  slt: "bvslt",
  bnot: "not",
  band: "and",
  bor: "or",
};

const sort = (bits: number) => (bits === 0 ? "Bool" : `(_ BitVec ${bits})`);

/**
 * z3 as a process, asked in SMT-LIB 2. Each term is defined once; a question is asserted, answered and forgotten.
 */
export class Solver {
  /** How many questions were put. */
  questions = 0;
  private readonly process: ChildProcessWithoutNullStreams;
  private readonly lines: AsyncIterator<string>;
  private readonly known = new Map<number, string>();
  private readonly functions = new Set<string>();

  /** @param timeoutMs for one question; one that takes longer is answered `unknown`, which proves nothing. */
  constructor(timeoutMs = 120_000) {
    this.process = spawn("z3", ["-in", "-smt2", `-t:${timeoutMs}`]);
    this.process.on("error", () => {
      console.error("z3 is not installed: apt-get install -y z3");
      process.exit(2);
    });
    this.lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
    this.process.stdin.write("(set-option :print-success false)\n(set-logic QF_UFBV)\n");
  }

  close(): void {
    this.process.stdin.end("(exit)\n");
  }

  /** Whether some values make all of `terms` true. */
  async isSatisfiable(terms: readonly Term[]): Promise<boolean> {
    const asserts = terms.map((term) => `(assert ${this.define(term)})`).join("\n");
    this.process.stdin.write(`(push)\n${asserts}\n(check-sat)\n(pop)\n`);
    this.questions += 1;
    const { value: answer } = await this.lines.next();
    if (answer === "sat") return true;
    if (answer === "unsat") return false;
    throw new Error(`z3 answers ${answer}: nothing is proved`);
  }

  /** Values of `shown` that make all of `terms` true, for a counterexample. */
  async model(terms: readonly Term[], shown: readonly Term[]): Promise<string> {
    const names = shown.map((term) => this.define(term));
    const asserts = terms.map((term) => `(assert ${this.define(term)})`).join("\n");
    this.process.stdin.write(
      `(push)\n${asserts}\n(check-sat)\n(get-value (${names.join(" ")}))\n(echo "end")\n(pop)\n`,
    );
    const text: string[] = [];
    for (let next = await this.lines.next(); next.value !== "end"; next = await this.lines.next()) {
      text.push(next.value as string);
    }
    return text.join("\n");
  }

  private define(term: Term): string {
    const known = this.known.get(term.id);
    if (known !== undefined) return known;
    const args = term.args.map((arg) => this.define(arg));
    const name = `t${term.id}`;
    this.known.set(term.id, name);
    if (term.op === "var") this.send(`(declare-const ${name} ${sort(term.bits)}) ; ${term.name}`);
    else this.send(`(define-fun ${name} () ${sort(term.bits)} ${this.body(term, args)})`);
    return name;
  }

  private body(term: Term, args: readonly string[]): string {
    switch (term.op) {
      case "true":
      case "false":
        return term.op;
      case "const":
        return `(_ bv${term.value} ${term.bits})`;
      case "extract":
        return `((_ extract ${Number(term.value) + term.bits - 1} ${term.value}) ${args[0]})`;
      case "keccak":
        return `(${this.named(`keccak${term.args[0]?.bits}`, term.args[0]?.bits ?? 0)} ${args[0]})`;
      case "sload":
        return `(${this.named(`storage_${term.name}`, 256)} ${args[0]})`;
      default:
        return `(${NAMES[term.op]} ${args.join(" ")})`;
    }
  }

  private named(name: string, bits: number): string {
    if (!this.functions.has(name)) this.send(`(declare-fun ${name} (${sort(bits)}) (_ BitVec 256))`);
    this.functions.add(name);
    return name;
  }

  private send(line: string): void {
    this.process.stdin.write(`${line}\n`);
  }
}
