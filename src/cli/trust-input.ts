import { type AgentChain, fetchKmsIdentities } from "../agent/chain-trust.ts";
import type { Trust } from "../agent/receipt.ts";
import { requirePolicyOf } from "../audit/standing.ts";
import { parseAddress } from "../audit/walk.ts";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import {
  CHAIN_OPTIONS,
  type ChainOption,
  type OptionValues,
  openChain,
  RPC_VARIABLE,
  readAddresses,
  requireRegistry,
  text,
} from "./chain-input.ts";
import type { Io } from "./io.ts";

/** The options of every command that believes a node: beside {@link CHAIN_OPTIONS}. */
export const TRUST_OPTIONS: readonly ChainOption[] = [
  ...CHAIN_OPTIONS,
  { flags: "--allow-test-tee", description: "take answers of nodes that accept test roots: nothing is proven then" },
];

/** What a command believes nodes by. */
export interface TrustInput {
  readonly trust: Trust;
  /** The chain, where an endpoint is given. */
  readonly chain: AgentChain | undefined;
}

/**
 * Reads whose answers are taken: signers given by hand, or those that the policy publishes, read from the chain at every use.
 *
 * @param signers addresses given by hand
 * @throws KeysteadError `usage/no-trust` where neither signers nor an endpoint with a policy are given; `usage/registry`, `usage/chain-id`; as `openChain`
 * @example
 * const { trust } = await openTrust(io, options, ["0x…"]);
 */
export async function openTrust(io: Io, options: OptionValues, signers: readonly string[]): Promise<TrustInput> {
  const pinned = new Set(signers.map((signer) => parseAddress(signer, "signer")));
  const allowTestTee = options.allowTestTee === true;
  const endpoint = text(options, "rpc") ?? io.env[RPC_VARIABLE];
  if (endpoint === undefined || endpoint === "") {
    const { registry, chainId } = await readAddresses(io, options);
    if (registry === undefined)
      throw usage("registry", "which registry is not said", "Add --registry or --deployment.");
    if (chainId === undefined) throw usage("chain-id", "which chain is not said", "Add --chain-id or --deployment.");
    if (pinned.size === 0) throw noTrust();
    const trust = { chainId: BigInt(chainId), registry, signers: async () => pinned, allowTestTee };
    return { trust, chain: undefined };
  }
  const input = await openChain(io, options);
  const registry = requireRegistry(input);
  const { client, witnesses, fromBlock, policy, acceptUnproven, maxAge } = input;
  const chain: AgentChain = { client, registry, read: { witnesses, fromBlock }, acceptUnproven, maxAge };
  const base = { chainId: BigInt(client.chainId), registry, allowTestTee };
  if (pinned.size > 0) return { trust: { ...base, signers: async () => pinned }, chain };
  if (policy === undefined) throw noTrust();
  const published = async (): Promise<ReadonlySet<Hex>> => {
    await requirePolicyOf(client, registry, policy);
    return new Set((await fetchKmsIdentities(chain, policy)).map(({ receiptSigner }) => receiptSigner));
  };
  return { trust: { ...base, signers: published }, chain };
}

function noTrust(): KeysteadError {
  return usage(
    "no-trust",
    "whose signature counts is not said",
    "Add --rpc with --deployment or --policy, whose KMS identities count then, or name the signer with --signer.",
  );
}

function usage(code: string, message: string, remedy: string): KeysteadError {
  return new KeysteadError(`usage/${code}`, message, { argument: "signer", remedy });
}
