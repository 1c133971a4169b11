/*
 * Proves claims about the runtime code of the contracts, for every storage, time and request: docs/proofs.md.
 *
 *   npm run prove                   every claim, and that each can fail
 *   npm run prove -- decide         those whose title has this word
 *
 * Exit code 0: proved. 1: refuted, with values that show it. 2: nothing was proved (z3 missing or out of time).
 */
import { type Claim, Refuted, readArtifact } from "./claim.ts";
import { tryMutants } from "./mutants.ts";
import { POLICY_CLAIMS } from "./policy.ts";
import { REGISTRY_CLAIMS } from "./registry.ts";
import { Solver } from "./solver.ts";

const CLAIMS: readonly Claim[] = [...POLICY_CLAIMS, ...REGISTRY_CLAIMS];

const seconds = (since: number) => `${((Date.now() - since) / 1000).toFixed(1)} s`;

/** A claim that holds of many changed codes says little. */
const MUTANT_FLOOR = 0.8;

async function mutants(claim: Claim): Promise<number> {
  const started = Date.now();
  const { refuted, broken, survivors } = await tryMutants(claim, readArtifact(claim.contract).code);
  const all = refuted + broken + survivors.length;
  const weak = refuted + broken < MUTANT_FLOOR * all;
  console.log(
    `${weak ? "WEAK    " : "         "}${refuted} of ${all} mutants refuted, ${broken} cannot run (${seconds(started)})`,
  );
  console.log(`         survive: ${survivors.join(", ")}`);
  return weak ? 1 : 0;
}

async function main(args: readonly string[]): Promise<number> {
  const mutate = args.includes("--mutants");
  const words = args.filter((arg) => arg !== "--mutants");
  let refuted = 0;
  for (const claim of CLAIMS.filter(({ title }) => words.every((word) => title.includes(word)))) {
    const started = Date.now();
    const solver = new Solver();
    try {
      await claim.prove(readArtifact(claim.contract).code, solver);
      console.log(`proved   ${claim.title} (${seconds(started)}, ${solver.questions} questions)`);
      if (mutate) refuted += await mutants(claim);
    } catch (error) {
      if (!(error instanceof Refuted)) throw error;
      refuted += 1;
      console.log(`REFUTED  ${claim.title}: ${error.message}`);
    } finally {
      solver.close();
    }
  }
  return refuted === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
