import pc from "picocolors";

/** A check that the demo makes; any that fails makes the whole demo fail. */
export interface Verdict {
  readonly what: string;
  readonly holds: boolean;
}

const started = Date.now();
const verdicts: Verdict[] = [];
let chapterNumber = 0;

const clock = () => pc.dim(`${((Date.now() - started) / 1000).toFixed(1).padStart(5)} s`);

/** A chapter's headline and what it is about. */
export function chapter(title: string, about: string): void {
  chapterNumber += 1;
  console.log(`\n${pc.bold(pc.cyan(`${chapterNumber}. ${title}`))}\n${pc.dim(about)}`);
}

/** A step that was done. */
export function did(what: string): void {
  console.log(`${clock()}  ${pc.blue("•")} ${what}`);
}

/** A detail of the step before. */
export function detail(what: string): void {
  console.log(`         ${pc.dim(what)}`);
}

/** A fact that must hold. It is printed either way, and decides the exit code. */
export function check(what: string, holds: boolean): void {
  verdicts.push({ what, holds });
  console.log(`${clock()}  ${holds ? pc.green("✓") : pc.red("✗ FAILED:")} ${what}`);
}

/** Something that must be refused: runs it and checks that it fails with exactly this error. */
export async function refused(what: string, expected: string, attempt: () => Promise<string>): Promise<void> {
  const outcome = await attempt();
  const holds = outcome === expected;
  verdicts.push({ what, holds });
  const mark = holds ? pc.green("✓ refused:") : pc.red("✗ FAILED, not refused as expected:");
  console.log(`${clock()}  ${mark} ${what} ${pc.dim(`→ ${outcome}`)}`);
}

/** How it ended: the exit code, and a last line. */
export function conclude(): number {
  const failed = verdicts.filter(({ holds }) => !holds);
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  if (failed.length === 0) {
    console.log(`\n${pc.bold(pc.green(`All ${verdicts.length} checks hold`))} ${pc.dim(`(${seconds} s)`)}`);
    return 0;
  }
  console.log(`\n${pc.bold(pc.red(`${failed.length} of ${verdicts.length} checks failed:`))}`);
  for (const { what } of failed) console.log(`  ${pc.red("✗")} ${what}`);
  return 1;
}
