import type { Command } from "commander";
import type { Block } from "../chain/block.ts";
import type { BasisOptions } from "../governance/proven.ts";
import {
  CHAIN_OPTIONS,
  type ChainInput,
  type OptionValues,
  openChain,
  RPC_VARIABLE,
  requireNow,
} from "./chain-input.ts";
import type { Io } from "./io.ts";

/** Where proposals are kept. */
export const PROPOSALS_FOLDER = "deploy/proposals";

/** The options of commands that compare proposals with a chain. */
const USED = ["--rpc", "--witness", "--max-age", "--accept-unproven"];

/**
 * Adds an endpoint and how far it is believed.
 *
 * @param optional the command works without a chain: it asks one only where `--rpc` is there, alone for the one in the environment
 * @example
 * addChainOptions(verify, true);
 */
export function addChainOptions(command: Command, optional = false): Command {
  for (const { flags, description } of CHAIN_OPTIONS) {
    if (!USED.some((name) => flags.startsWith(name))) continue;
    if (optional && flags.startsWith("--rpc")) {
      command.option("--rpc [url]", `compare with the chain as well, through this endpoint (alone: ${RPC_VARIABLE})`);
    } else command.option(flags, description);
  }
  return command;
}

/** The chain that a proposal is compared with, at its newest block, which must be from now. */
export interface ProposalChain extends BasisOptions {
  readonly chain: ChainInput;
  readonly block: Block;
}

/**
 * Connects to the chain that a proposal or a deployment is on, and takes its newest block.
 *
 * @throws KeysteadError `chain/not-now` (retryable) where that block is not from now: the endpoint lags; as `openChain`, e.g. `chain/wrong-chain`
 * @example
 * const { chain, block } = await openProposalChain(io, command.opts(), operation.chainId);
 */
export async function openProposalChain(io: Io, options: OptionValues, chainId: bigint): Promise<ProposalChain> {
  const { witness, maxAge, acceptUnproven } = options;
  const rpc = options.rpc === true ? undefined : options.rpc;
  const chain = await openChain(io, { rpc, witness, maxAge, acceptUnproven, chainId: chainId.toString() });
  const block = await requireNow(chain, Date.now() / 1000);
  return { chain, block, witnesses: chain.witnesses, acceptUnproven: chain.acceptUnproven };
}
