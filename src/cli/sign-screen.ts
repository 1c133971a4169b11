import { KeysteadError } from "../core/errors.ts";
import { type Row, renderRows } from "../governance/present/layout.ts";
import type { Names } from "../governance/present/names.ts";
import { qrLines } from "../governance/present/qr.ts";
import { deviceLines, type SigningAs, screenRows } from "../governance/present/screen.ts";
import { storyOf } from "../governance/present/step.ts";
import { hashesToSign } from "../governance/signatures.ts";
import type { PlannedTransaction } from "../governance/transactions.ts";
import type { CommandContext } from "./command.ts";
import { safeText } from "./output.ts";
import type { VerifiedProposal } from "./proposal-input.ts";

/** What the screen of one step is made from. */
export interface Asked {
  readonly proposal: VerifiedProposal;
  readonly planned: PlannedTransaction;
  readonly through: string | null;
  readonly names: Names;
  readonly as: SigningAs;
  /** Seconds since 1970. */
  readonly now: bigint;
  readonly qr: boolean;
}

const ALARMS = new Set(["WARNING", "UNKNOWN"]);

/**
 * One step as one screen of 80 columns; the hashes last, next to the question.
 *
 * @example
 * io.warn(`${renderAsked(context, asked)}\n`);
 */
export function renderAsked(context: CommandContext, asked: Asked): string {
  const { bold, red, yellow, green } = context.output().colors;
  const { proposal, planned, through, names, as, now } = asked;
  const { operation, found, deployment } = proposal;
  const rows = screenRows({
    ...{ operation, planned, through, names, as, recorded: deployment !== undefined },
    story: storyOf(operation, planned, names, now),
    warnings: found.warnings.map(({ message }) => safeText(message)),
  });
  const paint = (row: Row): readonly string[] => {
    const [first = "", ...rest] = renderRows([row]).map(safeText);
    const [label] = row;
    const loud = (line: string) =>
      line
        .replace(/UNKNOWN(?: CALL)?|REPLACES CODE|MOVES POWER|NOT AN OWNER/g, (word) => red(bold(word)))
        .replace(/\bLOOSENS/g, (word) => yellow(bold(word)))
        .replace(/\bTIGHTENS/g, (word) => green(bold(word)));
    const head = ALARMS.has(label) ? red(bold(label)) : bold(label);
    return [head + loud(first.slice(label.length)), ...rest.map(loud)];
  };
  const [compare = "", ...hashes] = deviceLines(operation.chainId, planned, through);
  const qr = asked.qr ? ["", ...qrLines(hashesToSign(operation.chainId, planned, through))] : [];
  return [...rows.flatMap(paint), "", compare, ...hashes.map((line) => bold(line)), ...qr, ""].join("\n");
}

/**
 * Yes or no, of somebody at a terminal who saw the screen; elsewhere `--yes` says it.
 *
 * @throws KeysteadError `usage/not-confirmed`, `sign/declined`, `input/no-answer`
 * @example
 * await requireYes(context, options.yes === true);
 */
export async function requireYes(context: CommandContext, yes: boolean): Promise<void> {
  if (yes) return;
  const { io } = context;
  if (!io.interactive || context.output().json) {
    throw new KeysteadError("usage/not-confirmed", "nobody can be asked here whether to sign", {
      argument: "yes",
      remedy: "Run it in a terminal, without --json; or add --yes, if a person has read what --show prints.",
    });
  }
  const answer = (await io.ask("Sign it? Type yes or no: ")).trim().toLowerCase();
  if (answer === "yes" || answer === "y") return;
  throw new KeysteadError("sign/declined", "nothing was signed", {
    argument: "yes",
    remedy: "Ask whoever proposed it; run the command again once all of it is understood.",
  });
}
