import { type Claim, Refuted } from "./claim.ts";
import type { Code } from "./evm.ts";
import { Solver } from "./solver.ts";

const [ADD, SUB, LT, GT, EQ, ISZERO, AND, OR, SHL, SHR, SLOAD, JUMPDEST, CALLER, ADDRESS] = [
  1, 3, 16, 17, 20, 21, 22, 23, 27, 28, 84, 91, 51, 48,
];
/** An opcode that takes and gives as many words, and means something else. JUMPDEST does nothing. */
const OTHER = new Map([
  [ADD, SUB],
  [LT, GT],
  [GT, LT],
  [EQ, LT],
  [ISZERO, JUMPDEST],
  [AND, OR],
  [OR, AND],
  [SHL, SHR],
  [SHR, SHL],
  [SLOAD, ISZERO],
  [CALLER, ADDRESS],
]);
const PUSH1 = 0x60;

export interface MutantReport {
  readonly refuted: number;
  /** The claim could not be tried: the mutant runs into what the EVM here does not model, or for ever. */
  readonly broken: number;
  /** Where the claim still holds: what is changed there makes no difference to it, or the claim is too weak. */
  readonly survivors: readonly string[];
}

/** Changes one opcode or one small constant at a time, of those that the proof came by, and tries the claim again. */
export async function tryMutants(claim: Claim, code: Code): Promise<MutantReport> {
  const visited = new Set<number>();
  await withSolver((solver) => claim.prove({ ...code, visited }, solver));
  let refuted = 0;
  let broken = 0;
  const survivors: string[] = [];
  for (const at of [...visited].sort((a, b) => a - b)) {
    const opcode = code.bytes[at] ?? 0;
    const place = opcode === PUSH1 ? at + 1 : at;
    const value = opcode === PUSH1 ? (code.bytes[place] ?? 0) ^ 1 : OTHER.get(opcode);
    if (value === undefined) continue;
    const bytes = Uint8Array.from(code.bytes);
    bytes[place] = value;
    try {
      await withSolver((solver) => claim.prove({ ...code, bytes }, solver));
      survivors.push(`0x${opcode.toString(16)} at ${at}`);
    } catch (error) {
      if (error instanceof Refuted) refuted += 1;
      else broken += 1;
    }
  }
  return { refuted, broken, survivors };
}

async function withSolver(work: (solver: Solver) => Promise<void>): Promise<void> {
  const solver = new Solver(20_000);
  try {
    await work(solver);
  } finally {
    solver.close();
  }
}
