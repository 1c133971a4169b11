import type { Basis } from "../audit/standing.ts";
import { parseAddress } from "../audit/walk.ts";
import { type Block, fetchBlock } from "../chain/block.ts";
import { type Client, type ClientOptions, connect } from "../chain/client.ts";
import { type Deployment, parseDeployment } from "../chain/deployment.ts";
import { decodeUtf8, type Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Io } from "./io.ts";

const RECORD_LIMIT = 1024 * 1024;
/** How far the newest block's time may be from this machine's clock, in seconds, for an answer about "now". */
const MAX_AGE = 3600;
/** Where the endpoint may be named instead: a URL often holds a key, which other users of a machine could read in a command line. */
export const RPC_VARIABLE = "KEYSTEAD_RPC_URL";

/** An option as commander spells it. */
export interface ChainOption {
  readonly flags: string;
  readonly description: string;
}

/** The options of every command that asks a chain. */
export const CHAIN_OPTIONS: readonly ChainOption[] = [
  { flags: "--rpc <url>", description: `an endpoint of the chain (or ${RPC_VARIABLE} in the environment)` },
  { flags: "--registry <address>", description: "the registry's proxy" },
  { flags: "--policy <address>", description: "the policy's proxy" },
  { flags: "--deployment <file>", description: "the deployment's record, in place of addresses and chain id" },
  { flags: "--chain-id <n>", description: "the chain that must answer" },
  { flags: "--from-block <n>", description: "scan from this block: the one in which the registry was deployed" },
  { flags: "--witness <url>", description: "another endpoint, which must have the same block" },
  { flags: "--max-age <seconds>", description: `how old the newest block may be (default: ${MAX_AGE})` },
  { flags: "--accept-unproven", description: "take the endpoint's word where it offers no storage proof" },
];

/** Option values by commander's camel-case name. */
export type OptionValues = Readonly<Record<string, unknown>>;

/** What a command asks: one chain, through one endpoint, about the proxies there. */
export interface ChainInput {
  readonly client: Client;
  readonly witnesses: readonly Client[];
  readonly registry: Hex | undefined;
  readonly policy: Hex | undefined;
  /** Where scans start; undefined: walk. */
  readonly fromBlock: number | undefined;
  /** The first block of the deployment, from its record. */
  readonly deployedAt: number | undefined;
  readonly maxAge: number;
  readonly acceptUnproven: boolean;
}

/**
 * Whether any option asks for a chain.
 *
 * @example
 * if (asksChain(command.opts())) await openChain(io, command.opts());
 */
export function asksChain(options: OptionValues): boolean {
  return ["rpc", "registry", "policy", "deployment", "chainId", "witness", "service", "platform"].some(
    (name) => options[name] !== undefined,
  );
}

/**
 * Reads {@link CHAIN_OPTIONS} and connects.
 *
 * @param client how patient to be with the endpoint
 * @throws KeysteadError `usage/no-endpoint`, `usage/two-sources`, `usage/number`, `audit/bad-address`; as `parseDeployment` and `connect`, e.g.
 * `chain/wrong-chain` and `chain/unreachable`
 * @example
 * const { client, registry } = await openChain(io, { rpc: "http://127.0.0.1:8545", registry: "0x…" });
 */
export async function openChain(io: Io, options: OptionValues, client: ClientOptions = {}): Promise<ChainInput> {
  const rpc = text(options, "rpc") ?? io.env[RPC_VARIABLE];
  if (rpc === undefined || rpc === "") {
    throw usage("no-endpoint", "no endpoint to ask", "rpc", `Add --rpc URL, or set ${RPC_VARIABLE}.`);
  }
  const { deployment, chainId, ...addresses } = await readAddresses(io, options);
  const numbers = { fromBlock: wholeNumber(options, "fromBlock"), maxAge: wholeNumber(options, "maxAge") ?? MAX_AGE };
  const connected = await connect(rpc, { ...client, chainId });
  const witness = text(options, "witness");
  const witnesses = witness === undefined ? [] : [await connect(witness, { ...client, chainId: connected.chainId })];
  const acceptUnproven = options.acceptUnproven === true;
  return { client: connected, witnesses, ...addresses, ...numbers, deployedAt: deployment?.block, acceptUnproven };
}

/** Which deployment is meant, as far as the options say it. */
export interface Addresses {
  readonly registry: Hex | undefined;
  readonly policy: Hex | undefined;
  readonly chainId: number | undefined;
  /** Its record, where one was given. */
  readonly deployment: Deployment | undefined;
}

/**
 * Reads the addresses among {@link CHAIN_OPTIONS}, or the record that stands for them, without asking a chain.
 *
 * @throws KeysteadError `usage/two-sources`, `usage/number`, `audit/bad-address`; as `parseDeployment`
 * @example
 * const { registry, chainId } = await readAddresses(io, { deployment: "deploy/deployments/sepolia.json" });
 */
export async function readAddresses(io: Io, options: OptionValues): Promise<Addresses> {
  const record = text(options, "deployment");
  const named = ["registry", "policy", "chainId"].filter((name) => options[name] !== undefined);
  if (record !== undefined && named.length !== 0) {
    const remedy = "Leave out the addresses and the chain id: the record has them.";
    throw usage("two-sources", "addresses are given twice", named[0] ?? "deployment", remedy);
  }
  const deployment =
    record === undefined
      ? undefined
      : parseDeployment(
          decodeUtf8((await io.readFile(record, { limit: RECORD_LIMIT, argument: "deployment" })).bytes, "deployment"),
        );
  const registry = deployment?.contracts.registry.address ?? text(options, "registry");
  const policy = deployment?.contracts.policy.address ?? text(options, "policy");
  const chainId = deployment === undefined ? wholeNumber(options, "chainId") : Number(deployment.chainId);
  const parsed = (address: string | undefined, argument: string) =>
    address === undefined ? undefined : parseAddress(address, argument);
  return { registry: parsed(registry, "registry"), policy: parsed(policy, "policy"), chainId, deployment };
}

/**
 * The registry, for a question that needs it.
 *
 * @throws KeysteadError `usage/registry`
 * @example
 * requireRegistry(await openChain(io, options));
 */
export function requireRegistry({ registry }: ChainInput): Hex {
  if (registry !== undefined) return registry;
  throw usage("registry", "which registry is not said", "registry", "Add --registry ADDRESS or --deployment FILE.");
}

/**
 * Refuses an answer about "now" from a chain whose newest block is not from now: an endpoint that stands still shows what held then.
 *
 * @param clock seconds since 1970
 * @throws KeysteadError `chain/not-now` (retryable) {blockTime, clock, maxAge}
 * @example
 * await requireNow(chain, Date.now() / 1000);
 */
export async function requireNow({ client, maxAge }: ChainInput, clock: number): Promise<Block> {
  const block = await fetchBlock(client, "latest");
  const apart = Math.abs(clock - block.timestamp);
  if (apart <= maxAge) return block;
  const when = clock > block.timestamp ? "older" : "newer";
  throw new KeysteadError(
    "chain/not-now",
    `the newest block is ${Math.round(apart)} s ${when} than this machine's time`,
    {
      argument: "rpc",
      remedy:
        "Use an endpoint that keeps up and check the clock; where the chain is really like this, raise --max-age.",
      retryable: true,
      details: { blockTime: block.timestamp, clock: Math.round(clock), maxAge },
    },
  );
}

/**
 * Refuses what is not proven, unless the user takes the endpoint's word; an event that this version does not know is refused in any case, for the state
 * may be another than it seems.
 *
 * @throws KeysteadError `chain/unproven` {reasons}
 * @example
 * requireProof("the service's history", standing.rests, chain);
 */
export function requireProof(what: string, { verdict, reasons }: Basis, { acceptUnproven }: ChainInput): void {
  const codes = reasons.map(({ code }) => code);
  const unknown = codes.includes("unknown-events");
  if (verdict === "proven" || (acceptUnproven && !unknown)) return;
  const remedy = unknown
    ? "Upgrade keystead."
    : "Use an endpoint that offers eth_getProof, or add --accept-unproven to take this one's word.";
  throw new KeysteadError(
    "chain/unproven",
    `${what} is not proven: ${reasons.map(({ message }) => message).join("; ")}`,
    {
      argument: "rpc",
      remedy,
      details: { reasons: codes },
    },
  );
}

/**
 * An option's value as text; undefined if it was not given.
 *
 * @example
 * text({ rpc: "http://127.0.0.1:8545" }, "rpc");
 */
export function text(options: OptionValues, name: string): string | undefined {
  const value = options[name];
  return typeof value === "string" ? value : undefined;
}

/**
 * An option that is a whole number.
 *
 * @throws KeysteadError `usage/number`
 * @example
 * wholeNumber(options, "maxAge") ?? 3600;
 */
export function wholeNumber(options: OptionValues, name: string): number | undefined {
  const value = text(options, name);
  if (value === undefined) return undefined;
  const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
  if (Number.isSafeInteger(number)) return number;
  throw usage("number", `${JSON.stringify(value)} is no whole number`, name, "Give decimal digits.");
}

function usage(code: string, message: string, argument: string, remedy: string): KeysteadError {
  return new KeysteadError(`usage/${code}`, message, { argument, remedy });
}
