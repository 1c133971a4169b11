import type { Command } from "commander";
import { decodeUtf8, fromHex, type Hex, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { requireContract } from "../../governance/contract-signatures.ts";
import { renderCalls } from "../../governance/decode.ts";
import { writeSignature } from "../../governance/folder.ts";
import { stepCalls } from "../../governance/judge.ts";
import { checkSigner, requireSignable, type SignerCheck } from "../../governance/owners.ts";
import { parseNonce } from "../../governance/parameters.ts";
import { importSignature, signStep } from "../../governance/sign.ts";
import { hashesToSign, type SignatureRecord } from "../../governance/signatures.ts";
import { type PlannedTransaction, planStep } from "../../governance/transactions.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import { keyOption, readKey, SIGNER_VARIABLE } from "../key-input.ts";
import { type ExitCode, renderTable, safeText } from "../output.ts";
import { openEndpoint, openProposal, PROPOSAL_OPTIONS, refusing, type VerifiedProposal } from "../proposal-input.ts";
import { addressOption, stepOf } from "../proposal-options.ts";

const SIGNATURE_LIMIT = 64 * 1024;

/** A step of the operation by options, with the nonce that it is to have. */
function plannedBy({ operation }: VerifiedProposal, options: OptionValues): PlannedTransaction {
  const step = stepOf(options.step) ?? (operation.timelock === null ? "execute" : undefined);
  if (step === undefined) {
    throw new KeysteadError("usage/step", "which step is to be signed is not said", {
      argument: "step",
      remedy: "Add --step schedule, execute, cancel, rollback or rollback-execute.",
    });
  }
  const { nonce } = options;
  return planStep(operation, step, {
    safe: addressOption(options, "safe"),
    ...(typeof nonce === "string" ? { nonce: parseNonce(nonce) } : {}),
  });
}

/** What is about to be signed: first what the device shows. */
function renderStep(
  { operation, found, deployment }: VerifiedProposal,
  planned: PlannedTransaction,
  through: string | null,
  context: CommandContext,
): string {
  const { bold } = context.output().colors;
  const hashes = hashesToSign(operation.chainId, planned, through);
  const { safe, transaction, step } = planned;
  return [
    renderTable([
      ["domain hash", hashes.domainHash],
      ["message hash", hashes.messageHash],
      [through === null ? "(safeTxHash)" : "(hash)", hashes.safeTxHash],
    ]),
    "",
    bold(safeText(found.headline ?? "")),
    safeText(
      `${step}: chain ${operation.chainId}, Safe ${safe.address}, nonce ${transaction.nonce}${through === null ? "" : `, in the name of its owner Safe ${through}`}`,
    ),
    safeText(renderCalls(stepCalls(operation, planned, deployment)).join("\n")),
    "",
  ].join("\n");
}

async function readSignature(context: CommandContext, text: string): Promise<Hex> {
  if (/^0x[0-9a-fA-F]*$/.test(text)) return toHex(fromHex(text, "signature"));
  const file = await context.io.readFile(text, { limit: SIGNATURE_LIMIT, argument: "signature" });
  return toHex(fromHex(decodeUtf8(file.bytes, "signature").trim(), "signature"));
}

async function sign(context: CommandContext, folder: string, options: OptionValues): Promise<ExitCode> {
  const { io } = context;
  const output = context.output();
  const proposal = await openProposal(io, folder, options, stepOf(options.step));
  const { operation } = proposal;
  const planned = plannedBy(proposal, options);
  const through = addressOption(options, "through") ?? null;
  const client = await openEndpoint(io, operation, options);
  const check = client === undefined ? undefined : await requireSignable(client, planned, through);
  if (!output.json) io.warn(`${renderStep(proposal, planned, through, context)}\n`);
  if (options.show === true) return show(context, proposal, planned, through);
  const record = await makeRecord(context, proposal, planned, through, options, check);
  if (check !== undefined) checkSigner(check, record);
  if (client !== undefined && check !== undefined) await requireContract(client, check.block, planned, record);
  const { file, written } = await writeSignature(folder, proposal.signatures, record);
  const unchecked =
    check === undefined ? ["whether the signer is an owner, and the nonce the Safe's: no endpoint was named"] : [];
  output.result(
    {
      format: "keystead.signed/1",
      ...{ file, written, unchecked },
      signature: { ...record, nonce: record.nonce.toString() },
      hashes: hashesToSign(operation.chainId, planned, through),
    },
    () =>
      [
        written ? `${record.signer} signed: ${file}` : `${record.signer} had signed already: ${file} stays as it is`,
        ...unchecked.map((item) => `Not checked: ${item}`),
      ].join("\n"),
  );
  return 0;
}

async function makeRecord(
  context: CommandContext,
  { operation }: VerifiedProposal,
  planned: PlannedTransaction,
  through: string | null,
  options: OptionValues,
  check: SignerCheck | undefined,
): Promise<SignatureRecord> {
  const { signature } = options;
  if (typeof signature !== "string") {
    return signStep(operation, planned, await readKey(context.io, options, SIGNER_VARIABLE), { through });
  }
  return importSignature(operation, planned, {
    signature: await readSignature(context, signature),
    ...{ through, contract: options.contract === true, signer: addressOption(options, "signer") },
    ...(check === undefined ? {} : { owners: check.owners }),
  });
}

function show(
  context: CommandContext,
  { operation }: VerifiedProposal,
  planned: PlannedTransaction,
  through: string | null,
): ExitCode {
  const hashes = hashesToSign(operation.chainId, planned, through);
  const approve = { to: planned.safe.address, data: `0xd4d9bdcd${planned.hashes.safeTxHash.slice(2)}` };
  context.output().result(
    {
      format: "keystead.to-sign/1",
      ...{ step: planned.name, safe: planned.safe.address, through, hashes },
      nonce: planned.transaction.nonce.toString(),
      approve,
    },
    () => `To approve on chain instead, an owner calls ${approve.to} with approveHash: ${approve.data}`,
  );
  return 0;
}

function describe(command: Command): Command {
  command
    .argument("<folder>", "a proposal's folder")
    .option("--step <step>", "schedule, execute, cancel, rollback or rollback-execute; needed unless there is one only")
    .option("--safe <address>", "which Safe's transaction, where several can take the step, as with cancel")
    .option("--nonce <n>", "sign for this nonce of the Safe in place of the proposal's")
    .option("--through <safe>", "sign in the name of this owner, which is itself a Safe")
    .option("--signature <hex|file>", "take a signature that was made elsewhere, by a device or an app")
    .option("--signer <address>", "who made it")
    .option("--contract", "its signer is a contract that checks signatures itself (EIP-1271)")
    .option("--show", "show what would be signed, and sign nothing");
  for (const { flags, description } of [...PROPOSAL_OPTIONS, keyOption(SIGNER_VARIABLE)]) {
    command.option(flags, description);
  }
  return command.addHelpText(
    "after",
    "\nVerifies the folder first, shows the hashes that a hardware wallet shows, signs, and adds a file under signatures/.\nExits 0 where it is signed, 1 where something is wrong with the folder or the signature, 2 where it could not be done.",
  );
}

/** `keystead sign DIR`. */
export const command: CommandModule = {
  register(command, context) {
    describe(command).action(
      context.action((folder: string) =>
        refusing(context, () => sign(context, folder, command.opts<OptionValues & Record<string, unknown>>())),
      ),
    );
  },
};
