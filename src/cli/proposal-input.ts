import { basename, resolve } from "node:path";
import { parseEther } from "ethers";
import { type Client, connect } from "../chain/client.ts";
import type { Deployment } from "../chain/deployment.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Acting } from "../governance/execute.ts";
import { readProposal } from "../governance/folder.ts";
import { warningsFor } from "../governance/judge.ts";
import type { Operation } from "../governance/operation.ts";
import { parseNonce } from "../governance/parameters.ts";
import { isRefusal } from "../governance/refusals.ts";
import { requireRehearsal } from "../governance/rehearse.ts";
import { type FoundSignature, SIGNATURES_FOLDER } from "../governance/signatures.ts";
import { type PlannedTransaction, planStep, type StepName } from "../governance/transactions.ts";
import { type Verification, verifyProposal } from "../governance/verify.ts";
import { type ChainOption, type OptionValues, RPC_VARIABLE } from "./chain-input.ts";
import type { CommandContext } from "./command.ts";
import { readDeploymentFile } from "./commands/decode.ts";
import type { Io } from "./io.ts";
import { RELAYER_VARIABLE, readKey } from "./key-input.ts";
import { type ExitCode, type Output, safeText } from "./output.ts";
import { BUILD_OPTION, buildsFor, NO_BUILD_OPTION } from "./proposal-builds.ts";
import { addressOption, namesIn, stepOf } from "./proposal-options.ts";

/** Options of the commands that act on a proposal. */
export const PROPOSAL_OPTIONS: readonly ChainOption[] = [
  { flags: "--rpc <url>", description: `an endpoint of the chain (or ${RPC_VARIABLE} in the environment)` },
  { flags: "--deployment <file>", description: "the deployment's record, which the addresses must agree with" },
  { flags: "--accept <names>", description: "go on over these warnings, by the names in brackets; commas between" },
];

/** Options of the commands that send. */
export const SENDING_OPTIONS: readonly ChainOption[] = [
  ...PROPOSAL_OPTIONS,
  { flags: "--witness <url>", description: "another endpoint, which must have the same block" },
  { flags: "--accept-unproven", description: "take the endpoint's word where it offers no storage proof" },
  { flags: "--accept-drift <names>", description: "go on although these facts moved, by their names; commas between" },
  {
    flags: "--max-fee <ether>",
    description: "pay at most this for a transaction, in the chain's currency (default: 1)",
  },
  BUILD_OPTION,
  NO_BUILD_OPTION,
  { flags: "--skip-simulation", description: "send a revocation without playing it first: for an emergency" },
];

/** A proposal's folder that verified. */
export interface VerifiedProposal {
  readonly folder: string;
  readonly operation: Operation;
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly found: Verification;
  readonly signatures: readonly FoundSignature[];
  readonly deployment: Deployment | undefined;
  /** Files that are there and count for nothing, each with why. */
  readonly ignored: readonly string[];
}

/**
 * Reads a proposal's folder and verifies it: nothing is signed or sent that does not follow from its operation.
 *
 * @throws KeysteadError `proposal/not-verified` {differences}; `proposal/unsafe` {warnings} unless warnings are accepted; as `readProposal`
 * @example
 * const { operation } = await openProposal(io, "deploy/proposals/007-tdx", command.opts());
 */
export async function openProposal(
  io: Io,
  folder: string,
  options: OptionValues,
  step?: StepName,
): Promise<VerifiedProposal> {
  const skipped: string[] = [];
  const files = await readProposal(folder, (path, why) => skipped.push(`${path} ${why}`));
  const { deployment: record } = options;
  const deployment = typeof record === "string" ? await readDeploymentFile(io, record) : undefined;
  const found = verifyProposal(files, {
    folder: basename(resolve(folder)),
    ...(deployment === undefined ? {} : { deployment }),
  });
  const { operation, signatures } = found;
  // whoever can add files must not be able to stop anything: what does not count is left out, and said
  const differences = found.differences.filter(({ code, field }) => !isAddedFile(code, field));
  if (operation === undefined || differences.length > 0) {
    const named = differences.map(({ field, message }) => `${field}: ${message}`);
    throw new KeysteadError("proposal/not-verified", `the folder does not verify: ${named.join("; ")}`, {
      argument: "folder",
      remedy: "Sign and send nothing. See keystead verify; restore the folder from where it was reviewed.",
      details: { differences },
    });
  }
  const ignored = [
    ...found.differences
      .filter((one) => !differences.includes(one))
      .map(({ field, message }) => `${field}: ${message}`),
    ...skipped,
  ];
  const warnings = warningsFor(found.warnings, step, namesIn(options.accept));
  if (warnings.length > 0) {
    const named = warnings.map(({ where, message, code }) => `${where}: ${message} (${code})`);
    throw new KeysteadError("proposal/unsafe", named.join("; "), {
      argument: "folder",
      remedy: `Read it with keystead verify. If it is meant: --accept ${[...new Set(warnings.map(({ code }) => code))].join(",")}`,
      details: { warnings },
    });
  }
  return { folder, operation, files, found, signatures, deployment, ignored };
}

/** A file that somebody added, and that changes nothing: one more name, or a signature that does not count. */
const isAddedFile = (code: string, field: string): boolean =>
  code === "verify/unexpected-file" || field.startsWith(SIGNATURES_FOLDER);

/**
 * The endpoint that is named, on the proposal's chain; undefined where none is.
 *
 * @throws KeysteadError as `connect`
 * @example
 * const client = await openEndpoint(io, operation, command.opts());
 */
export async function openEndpoint(io: Io, operation: Operation, options: OptionValues): Promise<Client | undefined> {
  const rpc = typeof options.rpc === "string" ? options.rpc : io.env[RPC_VARIABLE];
  if (rpc === undefined || rpc === "") return undefined;
  return connect(rpc, { chainId: Number(operation.chainId) });
}

/** One line of progress on standard error; none with `--json`, where an error stands there alone. */
export const progressOf =
  (io: Io, output: Output) =>
  (line: string): void => {
    if (!output.json) io.warn(`${output.colors.dim("·")} ${safeText(line)}\n`);
  };

/**
 * Everything that a command needs to act on a proposal: the folder verified, an endpoint, the relayer's key.
 *
 * @throws KeysteadError `usage/no-endpoint`; as {@link openProposal}, {@link openEndpoint} and `readKey`
 * @example
 * const acting = await openActing(context, folder, command.opts());
 */
export async function openActing(
  context: CommandContext,
  folder: string,
  options: OptionValues,
  step?: StepName,
): Promise<Acting> {
  const { io } = context;
  const progress = progressOf(io, context.output());
  const { operation, signatures, deployment, found, ignored } = await openProposal(io, folder, options, step);
  for (const line of ignored) progress(`does not count: ${line}`);
  const client = await openEndpoint(io, operation, options);
  if (client === undefined) {
    throw new KeysteadError("usage/no-endpoint", "no endpoint to ask", {
      argument: "rpc",
      remedy: `Add --rpc URL, or set ${RPC_VARIABLE}.`,
    });
  }
  const relayer = await readKey(io, options, RELAYER_VARIABLE);
  if (found.headline !== undefined) progress(found.headline);
  return {
    ...{ client, operation, signatures, progress, relayer },
    fromBlock: deployment?.block ?? Number(operation.assumptions.block ?? 0n),
    ...{ deployment, maxFee: maxFeeOf(options) },
    rehearse: await rehearsalBy(client, operation, options, progress, deployment),
  };
}

/** Plays each step before it is sent, on a copy of the chain; without, only what tightens may be sent. */
async function rehearsalBy(
  client: Client,
  operation: Operation,
  options: OptionValues,
  progress: (line: string) => void,
  deployment: Deployment | undefined,
): Promise<Acting["rehearse"]> {
  if (options.skipSimulation === true) {
    if (operation.lane === "revoke") return async () => progress("sent without playing it first, as asked");
    throw new KeysteadError(
      "usage/skip-simulation",
      `a proposal of the ${operation.lane} lane is played before it is sent`,
      {
        argument: "skip-simulation",
        remedy: "Leave it out: it is for emergencies, in which something is taken away.",
      },
    );
  }
  const { witness } = options;
  const witnesses = typeof witness === "string" ? [await connect(witness, { chainId: Number(operation.chainId) })] : [];
  const builds = await buildsFor(operation, options);
  const accepted = {
    acceptUnproven: options.acceptUnproven === true,
    accept: namesIn(options.accept),
    acceptDrift: namesIn(options.acceptDrift),
  };
  return async (step, block) => {
    await requireRehearsal(client, operation, step, {
      ...{ block, witnesses, onProgress: progress, deployment, builds },
      ...accepted,
    });
  };
}

/** The most that a transaction may cost, wei. */
function maxFeeOf({ maxFee = "1" }: OptionValues): bigint {
  try {
    return parseEther(String(maxFee));
  } catch {
    throw new KeysteadError("usage/max-fee", `${JSON.stringify(maxFee)} is not an amount of the chain's currency`, {
      argument: "max-fee",
      remedy: "Give a decimal number, e.g. --max-fee 0.05.",
    });
  }
}

/**
 * A step of the operation by options, with the nonce that it is to have.
 *
 * @throws KeysteadError `usage/step`; as `planStep`
 * @example
 * const planned = plannedBy(proposal, command.opts());
 */
export function plannedBy({ operation }: VerifiedProposal, options: OptionValues): PlannedTransaction {
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

/**
 * Runs an action whose refusals are exit 1: something is wrong, and not merely unknown.
 *
 * @example
 * return refusing(context, async () => 0);
 */
export async function refusing(context: CommandContext, act: () => Promise<ExitCode>): Promise<ExitCode> {
  try {
    return await act();
  } catch (error) {
    if (!isRefusal(error)) throw error;
    context.output().error(error);
    return 1;
  }
}
