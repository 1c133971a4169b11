import type { Command } from "commander";
import { decodeUtf8, fromHex, type Hex, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { requireContract } from "../../governance/contract-signatures.ts";
import { writeSignature } from "../../governance/folder.ts";
import { describeApproval, planApproval } from "../../governance/nested.ts";
import { checkSigner, requireSignable, type SignerCheck } from "../../governance/owners.ts";
import type { SigningAs } from "../../governance/present/screen.ts";
import { importSignature, signStep } from "../../governance/sign.ts";
import { hashesToSign, type SignatureRecord } from "../../governance/signatures.ts";
import type { PlannedTransaction } from "../../governance/transactions.ts";
import { typedDataOf } from "../../governance/typed-data.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import { keyOptions, readKey, SIGNER_VARIABLE } from "../key-input.ts";
import { ADDRESS_BOOK_OPTION, readNames } from "../names-input.ts";
import type { ExitCode } from "../output.ts";
import {
  openEndpoint,
  openProposal,
  PROPOSAL_OPTIONS,
  plannedBy,
  refusing,
  type VerifiedProposal,
} from "../proposal-input.ts";
import { addressOption, stepOf } from "../proposal-options.ts";
import { type Asked, renderAsked, requireYes } from "../sign-screen.ts";

const SIGNATURE_LIMIT = 64 * 1024;

async function readSignature(context: CommandContext, text: string): Promise<Hex> {
  // A device's or an app's signature is 64 or 65 bytes, with or without 0x; a file's name is none of these.
  if (/^0x[0-9a-fA-F]*$/.test(text) || /^(?:[0-9a-fA-F]{128}|[0-9a-fA-F]{130})$/.test(text))
    return toHex(fromHex(text, "signature"));
  const file = await context.io.readFile(text, { limit: SIGNATURE_LIMIT, argument: "signature" });
  const given = decodeUtf8(file.bytes, "signature").trim();
  // what tools print beside it: trezorctl's "signature: 0x…", a wallet's {"signature": "0x…"}
  const labelled = [...given.matchAll(/^[\s{]*"?signature"?\s*[:=]\s*"?((?:0x)?[0-9a-fA-F]+)"?[\s,}]*$/gm)];
  const [only, ...others] = labelled;
  return toHex(fromHex(only !== undefined && others.length === 0 ? (only[1] ?? "") : given, "signature"));
}

/** Who may sign: by the chain, else by the record as it was at deployment, else nobody knows. */
function signingAs(
  { deployment, signatures }: VerifiedProposal,
  planned: PlannedTransaction,
  through: string | null,
  check: SignerCheck | undefined,
  signer: string | undefined,
): SigningAs {
  const of = through ?? planned.safe.address;
  const recorded =
    deployment === undefined
      ? undefined
      : [deployment.safes.governance, deployment.safes.guardian].find(({ address }) => address === of);
  const signed = signatures.filter(
    (one) => one.recovered && one.through === through && one.safeTxHash === planned.hashes.safeTxHash,
  );
  return {
    signer,
    owners: check?.owners ?? recorded?.owners,
    threshold: check?.safe.threshold ?? recorded?.threshold,
    source: check !== undefined ? "the chain" : recorded !== undefined ? "the record, as deployed" : undefined,
    signed: signed.map((one) => one.signer),
  };
}

async function sign(context: CommandContext, folder: string, options: OptionValues): Promise<ExitCode> {
  const { io } = context;
  const output = context.output();
  const proposal = await openProposal(io, folder, options, stepOf(options.step));
  const { operation, deployment } = proposal;
  const planned = plannedBy(proposal, options);
  const through = addressOption(options, "through") ?? null;
  const names = await readNames(io, options, operation.chainId, deployment);
  const client = await openEndpoint(io, operation, options);
  const check =
    client === undefined
      ? undefined
      : await requireSignable(client, planned, through, options.show === true ? "show" : "sign");
  const byKey = options.show !== true && options.typedData !== true && options.signature === undefined;
  const key = byKey ? await readKey(io, options, SIGNER_VARIABLE) : undefined;
  const signer = key?.address ?? addressOption(options, "signer");
  // before anybody reads anything: what the key signs would not count
  if (check !== undefined && key !== undefined) checkSigner(check, { signer: key.address });
  const as = signingAs(proposal, planned, through, check, signer);
  const now = BigInt(check?.block.timestamp ?? Math.floor(Date.now() / 1000));
  const asked: Asked = { proposal, planned, through, names, as, now, qr: options.qr === true };
  if (!output.json) io.warn(`${renderAsked(context, asked)}\n`);
  if (options.typedData === true) {
    io.print(`${JSON.stringify(typedDataOf(operation.chainId, planned, through), null, 2)}\n`);
    return 0;
  }
  if (options.show === true) {
    const nonce = check?.through?.nonce ?? wholeOption(options, "throughNonce");
    return show(context, proposal, planned, through, nonce);
  }
  let record: SignatureRecord;
  if (key === undefined) record = await takeSignature(context, proposal, planned, through, options, as.owners);
  else {
    await requireYes(context, options.yes === true);
    record = signStep(operation, planned, key, { through });
  }
  if (check !== undefined) checkSigner(check, record);
  if (client !== undefined && check !== undefined) await requireContract(client, check.block, planned, record);
  const { file, written } = await writeSignature(folder, proposal.signatures, record);
  const unchecked =
    check === undefined ? ["whether the signer is an owner, and the nonce the Safe's: no endpoint was named"] : [];
  const who = names.get(record.signer) ?? record.signer;
  output.result(
    {
      format: "keystead.signed/1",
      ...{ file, written, unchecked },
      signature: { ...record, nonce: record.nonce.toString() },
      hashes: hashesToSign(operation.chainId, planned, through),
    },
    () =>
      [
        written ? `${who} signed: ${file}` : `${who} had signed already: ${file} stays as it is`,
        ...unchecked.map((item) => `Not checked: ${item}`),
      ].join("\n"),
  );
  return 0;
}

async function takeSignature(
  context: CommandContext,
  { operation }: VerifiedProposal,
  planned: PlannedTransaction,
  through: string | null,
  options: OptionValues,
  owners: readonly string[] | undefined,
): Promise<SignatureRecord> {
  return importSignature(operation, planned, {
    signature: await readSignature(context, String(options.signature)),
    ...{ through, contract: options.contract === true, signer: addressOption(options, "signer") },
    ...(owners === undefined ? {} : { owners }),
  });
}

function show(
  context: CommandContext,
  { operation }: VerifiedProposal,
  planned: PlannedTransaction,
  through: string | null,
  throughNonce: bigint | undefined,
): ExitCode {
  const hashes = hashesToSign(operation.chainId, planned, through);
  const approve = { to: planned.safe.address, data: `0xd4d9bdcd${planned.hashes.safeTxHash.slice(2)}` };
  const approval =
    through === null || throughNonce === undefined
      ? undefined
      : planApproval(operation.chainId, planned, { address: through, nonce: throughNonce });
  const plain = `To approve on chain instead, an owner calls ${approve.to} with approveHash: ${approve.data}`;
  const unknown =
    "The hashes of that Safe's own transaction need its nonce: name an endpoint, or give --through-nonce.";
  context.output().result(
    {
      format: "keystead.to-sign/1",
      ...{ step: planned.name, safe: planned.safe.address, through, hashes },
      nonce: planned.transaction.nonce.toString(),
      approve,
      ...(approval === undefined
        ? {}
        : { approval: { safe: approval.safe, nonce: approval.transaction.nonce.toString(), hashes: approval.hashes } }),
    },
    () =>
      approval !== undefined
        ? describeApproval(approval).join("\n")
        : through === null
          ? plain
          : `${plain}\n${unknown}`,
  );
  return 0;
}

function wholeOption(options: OptionValues, name: string): bigint | undefined {
  const text = options[name];
  if (text === undefined) return undefined;
  if (typeof text === "string" && /^\d{1,18}$/.test(text)) return BigInt(text);
  throw new KeysteadError("sign/bad-nonce", "--through-nonce is not a whole number", {
    argument: "through-nonce",
    remedy: "Give the nonce of that Safe's next transaction.",
  });
}

function describe(command: Command): Command {
  command
    .argument("<folder>", "a proposal's folder")
    .option("--step <step>", "schedule, execute, cancel, rollback or rollback-execute; needed unless there is one only")
    .option("--safe <address>", "which Safe's transaction, where several can take the step, as with cancel")
    .option("--nonce <n>", "sign for this nonce of the Safe in place of the proposal's")
    .option("--through <safe>", "sign in the name of this owner, which is itself a Safe")
    .option("--through-nonce <n>", "with --show: that Safe's next nonce, for the hashes of its own approval")
    .option("--signature <hex|file>", "take a signature that was made elsewhere, by a device or an app")
    .option("--signer <address>", "who made it")
    .option("--contract", "its signer is a contract that checks signatures itself (EIP-1271)")
    .option("--show", "show what would be signed, and sign nothing")
    .option("--typed-data", "print it as EIP-712 JSON, which any wallet signs, and sign nothing")
    .option("--qr", "show both hashes as a QR code too")
    .option("--yes", "do not ask: for scripts, once a person has read what --show prints");
  for (const { flags, description } of [...PROPOSAL_OPTIONS, ADDRESS_BOOK_OPTION, ...keyOptions(SIGNER_VARIABLE)]) {
    command.option(flags, description);
  }
  return command.addHelpText(
    "after",
    `
Verifies the folder, shows the step on one screen (on standard error), asks yes or no, signs, and adds a file under signatures/. Where standard
input is no terminal, or with --json, nobody can be asked: a key then signs with --yes alone. A signature that was made elsewhere (--signature) was
confirmed there, and is not asked about again.

With a hardware wallet: --typed-data > step.json; cast wallet sign --ledger --data --from-file step.json (or --trezor), or trezorctl ethereum
sign-typed-data step.json; then --signature with what it printed. docs/operations/sign-a-step.md shows each.

Exits 0 where it is signed, 1 where something is wrong with the folder or the signature, 2 where it could not be done.`,
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
