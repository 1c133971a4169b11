import type { Command } from "commander";
import { isKeysteadError } from "../../core/errors.ts";
import { writeSignature } from "../../governance/folder.ts";
import {
  fetchConfirmations,
  proposalBody,
  proposeToService,
  type SafeService,
  serviceOf,
} from "../../governance/safe-service.ts";
import { importSignature } from "../../governance/sign.ts";
import type { FoundSignature } from "../../governance/signatures.ts";
import type { PlannedTransaction } from "../../governance/transactions.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import { ADDRESS_BOOK_OPTION, readNames } from "../names-input.ts";
import { type ExitCode, safeText } from "../output.ts";
import { openProposal, PROPOSAL_OPTIONS, plannedBy, refusing, type VerifiedProposal } from "../proposal-input.ts";
import { stepOf } from "../proposal-options.ts";

const KEY_VARIABLE = "SAFE_API_KEY";

interface Opened {
  readonly proposal: VerifiedProposal;
  readonly planned: PlannedTransaction;
  readonly service: SafeService;
  /** Signatures of this very transaction, by keys. */
  readonly signatures: readonly FoundSignature[];
}

async function open({ io }: CommandContext, folder: string, options: OptionValues): Promise<Opened> {
  const proposal = await openProposal(io, folder, options, stepOf(options.step));
  const planned = plannedBy(proposal, options);
  const url = typeof options.service === "string" ? options.service : undefined;
  const key = io.env[KEY_VARIABLE];
  const service = serviceOf(proposal.operation.chainId, url, key === "" ? undefined : key);
  const signatures = proposal.signatures.filter(
    (one) => one.through === null && one.recovered && one.safeTxHash === planned.hashes.safeTxHash,
  );
  return { proposal, planned, service, signatures };
}

async function propose(context: CommandContext, folder: string, options: OptionValues): Promise<ExitCode> {
  const { proposal, planned, service, signatures } = await open(context, folder, options);
  const origin = `keystead ${proposal.operation.id}`;
  const [first] = signatures;
  if (options.dry === true && first !== undefined) {
    context.io.print(`${JSON.stringify(proposalBody(planned, first, origin).body, null, 2)}\n`);
    return 0;
  }
  const { known, confirmed } = await proposeToService(service, planned, signatures, origin);
  const names = await readNames(context.io, options, proposal.operation.chainId, proposal.deployment);
  const { safeTxHash } = planned.hashes;
  context
    .output()
    .result({ format: "keystead.safe-service/1", safeTxHash, known, confirmed }, () =>
      safeText(
        [
          known ? "The service had it already." : "The service has it now: owners see it in Safe{Wallet}'s queue.",
          ...confirmed.map((one) => `confirmation added: ${names.get(one) ?? one}`),
          "Whoever confirms there compares the hashes with keystead sign --show: the service shows only what it was given.",
        ].join("\n"),
      ),
    );
  return 0;
}

async function collect(context: CommandContext, folder: string, options: OptionValues): Promise<ExitCode> {
  const { proposal, planned, service } = await open(context, folder, options);
  const names = await readNames(context.io, options, proposal.operation.chainId, proposal.deployment);
  const found = await fetchConfirmations(service, planned);
  const added: string[] = [];
  const refused: { owner: string; why: string }[] = [];
  for (const { owner, signature } of found ?? []) {
    try {
      const given = { signature, signer: owner, through: null };
      const record = importSignature(proposal.operation, planned, given);
      if ((await writeSignature(folder, proposal.signatures, record)).written) added.push(owner);
    } catch (error) {
      // what a stranger put there must not keep the others' signatures out
      if (!isKeysteadError(error)) throw error;
      refused.push({ owner, why: `${error.code}: ${error.message}` });
    }
  }
  const nameOf = (address: string) => names.get(address) ?? address;
  context
    .output()
    .result({ format: "keystead.safe-service/1", known: found !== undefined, added, refused }, () =>
      safeText(
        [
          found === undefined
            ? "The service does not know this transaction: propose it, or name the nonce that it was proposed with."
            : `${found.length} confirmations there, ${added.length} added here.`,
          ...added.map((one) => `added: ${nameOf(one)}`),
          ...refused.map(({ owner, why }) => `NOT TAKEN: ${nameOf(owner)}: ${why}`),
          "Not checked: whether they are owners. keystead execute asks the chain.",
        ].join("\n"),
      ),
    );
  if (refused.length > 0) return 1;
  return found === undefined ? 2 : 0;
}

function common(command: Command): Command {
  command
    .argument("<folder>", "a proposal's folder")
    .option("--step <step>", "schedule, execute, cancel, rollback or rollback-execute; needed unless there is one only")
    .option("--safe <address>", "which Safe's transaction, where several can take the step, as with cancel")
    .option("--nonce <n>", "for this nonce of the Safe in place of the proposal's")
    .option("--service <url>", "the service (default: the one that Safe hosts for the chain)");
  for (const { flags, description } of [...PROPOSAL_OPTIONS, ADDRESS_BOOK_OPTION]) {
    if (!flags.startsWith("--rpc")) command.option(flags, description);
  }
  return command;
}

/** `keystead safe-service`. */
export const command: CommandModule = {
  register(group, context) {
    const sub = (
      name: string,
      summary: string,
      act: (context: CommandContext, folder: string, options: OptionValues) => Promise<ExitCode>,
      more: (command: Command) => Command = (one) => one,
    ) => {
      const command = more(common(group.command(name).summary(summary).description(summary)));
      command.action(
        context.action((folder: string) => refusing(context, () => act(context, folder, command.opts<OptionValues>()))),
      );
    };
    sub(
      "propose",
      "put a signed step into Safe's Transaction Service, with every signature of the folder",
      propose,
      (one) => one.option("--dry", "print what would be posted, and post nothing"),
    );
    sub("collect", "take the confirmations that the service has into the folder, each checked", collect);
    group.addHelpText(
      "after",
      `
Safe's hosted service wants a key: ${KEY_VARIABLE} in the environment. The service is a post box: what it says is compared with the proposal, and
nothing of it counts but signatures that are the named owners'.

Exits 0 where it is done, 1 where something is wrong, 2 where it could not be done.`,
    );
  },
};
