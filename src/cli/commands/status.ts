import { setTimeout as sleep } from "node:timers/promises";
import { fetchBlock } from "../../chain/block.ts";
import type { Deployment } from "../../chain/deployment.ts";
import type { Dismissal } from "../../chain/dismissal.ts";
import { isKeysteadError, KeysteadError } from "../../core/errors.ts";
import { readProposals } from "../../governance/folder.ts";
import { requireWitnesses } from "../../governance/proven.ts";
import { type GovernanceStatus, type ProposalStatus, readGovernance } from "../../governance/status.ts";
import { formatDuration, formatTime } from "../../governance/words.ts";
import { type OptionValues, wholeNumber } from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import { type ExitCode, type Output, renderTable, safeText } from "../output.ts";
import { addChainOptions, openProposalChain, PROPOSALS_FOLDER } from "../proposal-chain.ts";
import { alertsOf, STATUS_CHANGE_FORMAT, type StatusAlert } from "../status-alerts.ts";
import { openWebhook } from "../webhook.ts";
import { readDeploymentFile } from "./decode.ts";

/** What comes next for a proposal, in words; times by the chain's clock, which goes on. */
function nextWords(proposal: ProposalStatus, now: bigint): string {
  const { state, next, signatures, readyAt, expiresAt, executed, cancelled } = proposal;
  if (executed !== null) return `in block ${executed.block}`;
  if (cancelled !== null) return `in block ${cancelled.block}`;
  const signed =
    signatures === null ? "" : `${signatures.step} signed ${signatures.signers.length} of ${signatures.needed}`;
  if (state === "scheduled" && readyAt !== null) {
    const left = readyAt - now;
    const when = left > 0n ? `ready in ${roughly(left)}, ${formatTime(readyAt)}` : `ready since ${formatTime(readyAt)}`;
    return signatures !== null && signatures.signers.length > 0 ? `${when}; ${signed}` : when;
  }
  const until = expiresAt === null ? "" : ` until ${formatTime(expiresAt)}`;
  if (state === "ready") return `can be executed${until}; ${signed}`;
  if (state === "expired")
    return `expired${expiresAt === null ? "" : ` on ${formatTime(expiresAt)}`}: schedule it again`;
  return next === null ? "" : signed;
}

/** Who can stop an operation that nobody proposed, and how. */
const vetoWords = (id: string, dismissal: Dismissal | undefined): string =>
  dismissal === undefined
    ? `cancel it by keystead propose veto --operation ${id}`
    : `it dismisses ${dismissal.outgoing}: only the governance Safe can cancel it, not the guardian`;

/** A duration as a countdown: two units at most. */
export function roughly(seconds: bigint): string {
  if (seconds < 120n) return `${seconds} s`;
  if (seconds < 7200n) return `${seconds / 60n} min ${seconds % 60n} s`;
  if (seconds < 172_800n) return `${seconds / 3600n} h ${(seconds % 3600n) / 60n} min`;
  return `${seconds / 86_400n} d ${(seconds % 86_400n) / 3600n} h`;
}

/** Chain and proposals as text, alerts first. */
export function renderStatus(found: GovernanceStatus, output: Output, now = BigInt(found.block.timestamp)): string {
  const { bold, green, red, yellow, cyan } = output.colors;
  const paint: Readonly<Record<ProposalStatus["state"], (text: string) => string>> = {
    ...{ drafted: (text) => text, signed: cyan, scheduled: yellow, ready: green, executed: green },
    ...{ expired: red, cancelled: red, "rolled back": red },
  };
  const orphaned = found.operations.filter(({ proposal }) => proposal === null);
  const sections = [
    bold(
      found.ok
        ? green(`NO ORPHANS: all ${found.events.length} events belong to a proposal or to the deployment`)
        : red(`ALERT: ${found.orphans.length} events that no proposal explains`),
    ),
    found.orphans
      .map(
        ({ contract, words, block, transactionHash }) =>
          `${red("orphan")} ${contract}: ${safeText(words)} (block ${block}, ${transactionHash})`,
      )
      .join("\n"),
    orphaned
      .filter(({ phase }) => phase === "waiting" || phase === "ready")
      .map(
        ({ id, readyAt, expiresAt, dismissal }) =>
          `${red("pending without a proposal")} ${id}: ${readyAt === undefined ? "" : `executable from ${formatTime(readyAt)}`}${expiresAt === undefined ? "" : ` until ${formatTime(expiresAt)}`}; ${vetoWords(id, dismissal)}`,
      )
      .join("\n"),
    found.proposals.length === 0
      ? "no proposals"
      : renderTable(
          found.proposals.map((proposal) => [
            proposal.id,
            { text: proposal.state, paint: paint[proposal.state] },
            proposal.headline,
            nextWords(proposal, now),
          ]),
          ["proposal", "state", "what", "next"],
        ),
    found.proposals
      .flatMap(({ id, next, doing, signatures, cancellableBy, notes, readyAt }) => [
        ...(next === null ? [] : [`${id}: ${next} would`, ...doing.map((line) => `  ${line}`)]),
        ...(signatures !== null && signatures.signers.length > 0
          ? [`${id}: signed by ${signatures.signers.join(", ")}`]
          : []),
        ...(cancellableBy.length > 0
          ? [
              `${id}: until it is executed${readyAt === null ? "" : `, at the earliest ${formatTime(readyAt)}`}, ${cancellableBy.map((safe) => `Safe ${safe}`).join(" or ")} can cancel it`,
            ]
          : []),
        ...notes.map((note) => `${id}: ${note}`),
      ])
      .map(safeText)
      .join("\n"),
    `block ${found.block.number}, ${formatTime(BigInt(found.block.timestamp))}; minimum delay ${formatDuration(found.minDelay)}`,
    `${bold("Not checked")}\n${found.unchecked.map((item) => `- ${item}`).join("\n")}`,
  ];
  return sections.filter((section) => section !== "").join("\n\n");
}

/** One plain line a proposal and an orphan: what a log file keeps. */
function linesOf(found: GovernanceStatus): readonly string[] {
  const now = BigInt(found.block.timestamp);
  return [
    ...found.proposals.map((proposal) => `${proposal.id} ${proposal.state} ${nextWords(proposal, now)}`.trim()),
    ...found.orphans.map(({ contract, words, block }) => `ORPHAN ${contract}: ${words} (block ${block})`),
  ].map(safeText);
}

const statusJson = (found: GovernanceStatus): object =>
  JSON.parse(JSON.stringify(found, (_, value) => (typeof value === "bigint" ? value.toString() : value)));

interface Options extends OptionValues {
  readonly deployment: string;
  readonly proposals: string;
}

/** How often a watch looks: seconds between two looks, and how many there are. */
interface Pace {
  readonly interval: number;
  readonly rounds: number;
}

/** @throws KeysteadError `usage/number`, `usage/interval`, `usage/rounds` */
function paceOf(options: OptionValues): Pace {
  const interval = wholeNumber(options, "interval") ?? 12;
  const rounds = wholeNumber(options, "rounds") ?? Number.POSITIVE_INFINITY;
  for (const [argument, value] of Object.entries({ interval, rounds })) {
    if (value >= 1) continue;
    const message = "a watch looks at least once, and at most once a second";
    throw new KeysteadError(`usage/${argument}`, message, { argument, remedy: "Give at least 1." });
  }
  return { interval, rounds };
}

/** Tells a webhook what is new. */
interface Teller {
  seen(found: GovernanceStatus): Promise<void>;
  /** The watch ends because nothing can be seen: silence must not look like peace. */
  blind(error: unknown): Promise<void>;
  undelivered(): boolean;
}

function tellerOf(context: CommandContext, options: OptionValues, chainId: bigint): Teller {
  const post = openWebhook(context.io, options.webhook);
  let before: GovernanceStatus | undefined;
  let undelivered = false;
  const send = async (block: GovernanceStatus["block"] | null, alerts: readonly StatusAlert[]) => {
    if (alerts.length === 0) return;
    try {
      await post({ format: STATUS_CHANGE_FORMAT, chainId: chainId.toString(), block, alerts });
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
      undelivered = true;
      context.output().error(error);
    }
  };
  return {
    seen: async (found) => {
      const alerts = alertsOf(before, found);
      before = found;
      await send(found.block, alerts);
    },
    blind: async (error) => {
      const { code, message } = isKeysteadError(error) ? error : { code: "internal", message: String(error) };
      const text = safeText(`the watch ended, nothing is seen any more: ${message}`);
      await send(null, [{ severity: "alert", kind: "cannot-check", id: code, text }]);
    },
    undelivered: () => undelivered,
  };
}

/** Home, and everything after it gone: one picture over the other. */
const REDRAW = "\u001b[H\u001b[2J";

/**
 * Looks again and again. In a terminal the picture is drawn anew every second, so that times count down; elsewhere a line is printed where something
 * changed. It ends with the last look's exit code, after as many looks as were asked for.
 */
async function watch(
  context: CommandContext,
  look: () => Promise<GovernanceStatus>,
  pace: Pace,
  tell: Teller,
): Promise<ExitCode> {
  const { io } = context;
  const output = context.output();
  const { interval, rounds } = pace;
  const live = io.terminal && !output.json && io.env.TERM !== "dumb";
  let shown = new Set<string>();
  let exit: ExitCode = 0;
  for (let round = 1; ; round++) {
    let found: GovernanceStatus;
    try {
      found = await look();
    } catch (error) {
      await tell.blind(error);
      throw error;
    }
    await tell.seen(found);
    exit = found.ok ? (tell.undelivered() ? 2 : 0) : 1;
    const seenAt = Date.now();
    if (output.json) io.print(`${JSON.stringify({ format: "keystead.status/1", ...statusJson(found) })}\n`);
    else if (!live) {
      const lines = linesOf(found);
      // an ETA alone is no news: what is the same but for its countdown is printed once
      const bare = (line: string) => line.replace(/ready in [^,;]+, /, "");
      for (const line of lines)
        if (!shown.has(bare(line))) io.print(`${formatTime(BigInt(found.block.timestamp))} ${line}\n`);
      shown = new Set(lines.map(bare));
    }
    if (round >= rounds) {
      if (live) io.print(`${REDRAW}${renderStatus(found, output)}\n`);
      return exit;
    }
    for (let second = 0; second < interval; second++) {
      if (live) {
        const passed = BigInt(Math.floor((Date.now() - seenAt) / 1000));
        io.print(`${REDRAW}${renderStatus(found, output, BigInt(found.block.timestamp) + passed)}\n`);
      }
      await sleep(1000);
    }
  }
}

/** `keystead status`. */
export const command: CommandModule = {
  register(status, context) {
    status.requiredOption("--deployment <file>", "the deployment's record, e.g. deploy/deployments/sepolia.json");
    addChainOptions(status)
      .option("--proposals <folder>", "where proposals are kept", PROPOSALS_FOLDER)
      .option("--watch", "look again and again; in a terminal with live ETAs, elsewhere a line for each change")
      .option("--interval <seconds>", "between two looks", "12")
      .option("--rounds <n>", "end after so many looks")
      .option("--webhook <url>", "with --watch: post what is new there, signed with KEYSTEAD_WEBHOOK_SECRET")
      .addHelpText(
        "after",
        `
Every operation at the timelock, every change of roles, code, delay and Safes, and every event of the policy belongs to a proposal of the folder, or to
the deployment itself; what belongs to none is an orphan, and an alert.

Exits 0 where there is no orphan, 1 where there is one, 2 where something could not be checked.`,
      )
      .action(
        context.action(async () => {
          const options = status.opts<Options>();
          const deployment = await readDeploymentFile(context.io, options.deployment);
          if (options.webhook !== undefined && options.watch !== true) {
            throw new KeysteadError("usage/webhook", "a webhook is for --watch", {
              argument: "webhook",
              remedy: "Add --watch, or leave --webhook out.",
            });
          }
          if (options.watch === true) {
            const pace = paceOf(options);
            const { chain, witnesses } = await openProposalChain(context.io, options, deployment.chainId);
            return watch(
              context,
              async () => {
                const block = await fetchBlock(chain.client, "latest");
                await requireWitnesses(witnesses ?? [], block);
                return readGovernance(chain.client, block, deployment, await proposalsIn(options.proposals));
              },
              pace,
              tellerOf(context, options, deployment.chainId),
            );
          }
          const found = await look(context, options, deployment);
          const output = context.output();
          output.result({ format: "keystead.status/1", ...statusJson(found) }, () => renderStatus(found, output));
          return found.ok ? 0 : 1;
        }),
      );
  },
};

const proposalsIn = async (folder: string) => (await readProposals(folder)).proposals;

async function look(context: CommandContext, options: Options, deployment: Deployment): Promise<GovernanceStatus> {
  const { chain, block, witnesses } = await openProposalChain(context.io, options, deployment.chainId);
  await requireWitnesses(witnesses ?? [], block);
  return readGovernance(chain.client, block, deployment, await proposalsIn(options.proposals));
}
