import { basename, resolve } from "node:path";
import { type Client, connect } from "../chain/client.ts";
import type { Deployment } from "../chain/deployment.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Acting } from "../governance/execute.ts";
import { readProposal } from "../governance/folder.ts";
import type { Operation } from "../governance/operation.ts";
import { parseAddress, parseParameter } from "../governance/parameters.ts";
import { isRefusal } from "../governance/refusals.ts";
import { requireRehearsal } from "../governance/rehearse.ts";
import type { FoundSignature } from "../governance/signatures.ts";
import { type PlannedTransaction, planStep, STEPS, type StepName } from "../governance/transactions.ts";
import { type Verification, verifyProposal } from "../governance/verify.ts";
import { type ChainOption, type OptionValues, RPC_VARIABLE } from "./chain-input.ts";
import type { CommandContext } from "./command.ts";
import { readDeploymentFile } from "./commands/decode.ts";
import type { Io } from "./io.ts";
import { RELAYER_VARIABLE, readKey } from "./key-input.ts";
import { type ExitCode, type Output, safeText } from "./output.ts";

/** Options of the commands that act on a proposal. */
export const PROPOSAL_OPTIONS: readonly ChainOption[] = [
  { flags: "--rpc <url>", description: `an endpoint of the chain (or ${RPC_VARIABLE} in the environment)` },
  { flags: "--deployment <file>", description: "the deployment's record, which the addresses must agree with" },
  { flags: "--accept-warnings", description: "go on where a call is unsafe or could not be read" },
];

/** Options of the commands that send. */
export const SENDING_OPTIONS: readonly ChainOption[] = [
  ...PROPOSAL_OPTIONS,
  { flags: "--witness <url>", description: "another endpoint, which must have the same block" },
  { flags: "--accept-unproven", description: "take the endpoint's word where it offers no storage proof" },
  { flags: "--accept-unrecorded", description: "go on where the proposal holds no start state to judge drift by" },
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
}

/**
 * Reads a proposal's folder and verifies it: nothing is signed or sent that does not follow from its operation.
 *
 * @throws KeysteadError `proposal/not-verified` {differences}; `proposal/unsafe` {warnings} unless warnings are accepted; as `readProposal`
 * @example
 * const { operation } = await openProposal(io, "deploy/proposals/007-tdx", command.opts());
 */
export async function openProposal(io: Io, folder: string, options: OptionValues): Promise<VerifiedProposal> {
  const files = await readProposal(folder);
  const { deployment: record } = options;
  const deployment = typeof record === "string" ? await readDeploymentFile(io, record) : undefined;
  const found = verifyProposal(files, {
    folder: basename(resolve(folder)),
    ...(deployment === undefined ? {} : { deployment }),
  });
  const { operation, differences, warnings, signatures } = found;
  if (!found.ok || operation === undefined) {
    const named = differences.map(({ field, message }) => `${field}: ${message}`);
    throw new KeysteadError("proposal/not-verified", `the folder does not verify: ${named.join("; ")}`, {
      argument: "folder",
      remedy: "Sign and send nothing. See keystead verify; restore the folder from where it was reviewed.",
      details: { differences },
    });
  }
  if (warnings.length > 0 && options.acceptWarnings !== true) {
    throw new KeysteadError("proposal/unsafe", `${warnings.map(({ message }) => message).join("; ")}`, {
      argument: "folder",
      remedy: "Read the calls with keystead verify; if they are meant, add --accept-warnings.",
      details: { warnings },
    });
  }
  return { folder, operation, files, found, signatures, deployment };
}

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
export async function openActing(context: CommandContext, folder: string, options: OptionValues): Promise<Acting> {
  const { io } = context;
  const progress = progressOf(io, context.output());
  const { operation, signatures, deployment, found } = await openProposal(io, folder, options);
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
    rehearse: await rehearsalBy(client, operation, options, progress),
  };
}

/** Plays each step before it is sent, on a copy of the chain; without, only what tightens may be sent. */
async function rehearsalBy(
  client: Client,
  operation: Operation,
  options: OptionValues,
  progress: (line: string) => void,
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
  const accepted = {
    acceptUnproven: options.acceptUnproven === true,
    acceptUnrecorded: options.acceptUnrecorded === true,
  };
  return async (step, block) => {
    await requireRehearsal(client, operation, step, { block, witnesses, onProgress: progress, ...accepted });
  };
}

/**
 * A step by its name.
 *
 * @throws KeysteadError `usage/step`
 * @example
 * stepOf("schedule");
 */
export function stepOf(name: unknown): StepName | undefined {
  if (name === undefined) return undefined;
  const step = STEPS.find((known) => known === name);
  if (step !== undefined) return step;
  throw new KeysteadError("usage/step", `${JSON.stringify(name)} is no step`, {
    argument: "step",
    remedy: `Give one of ${STEPS.join(", ")}.`,
  });
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
    ...(typeof nonce === "string" ? { nonce: BigInt(String(parseParameter("wei", nonce, "nonce"))) } : {}),
  });
}

/** An address option, checked. */
export const addressOption = (options: OptionValues, name: string): string | undefined => {
  const value = options[name];
  return typeof value === "string" ? parseAddress(value, name) : undefined;
};

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
