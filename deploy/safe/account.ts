import protocolKit, { type SafeConfig } from "@safe-global/protocol-kit";
import { getAddress, Interface, keccak256 } from "ethers";
import { SAFE_VERSIONS, type SafeVersion as KnownSafeVersion, recogniseSafe } from "../../src/chain/safe-releases.ts";
import { KeysteadError } from "../../src/core/errors.ts";
import { type Connection, fetchSigner, type Log, sendAndWait, silent } from "../connection.ts";
import { ensureSafeContracts, type SafeVersion } from "./contracts.ts";

/** Who a new Safe belongs to. */
export interface SafeSpec {
  /** Owners' addresses, in the order in which the Safe stores them: the order is part of the Safe's address. */
  readonly owners: readonly string[];
  readonly threshold: number;
  readonly version: SafeVersion;
  /** Distinguishes Safes with the same owners; decimal. */
  readonly saltNonce: string;
}

/** What a Safe is on chain, read from it and from its proxy's storage. */
export interface SafeState {
  readonly address: string;
  /** Of its singleton: its proxy may be of an earlier release. */
  readonly version: KnownSafeVersion;
  readonly owners: readonly string[];
  readonly threshold: number;
  readonly nonce: bigint;
  /** Enabled modules: each of them can act for the Safe without any signature. */
  readonly modules: readonly string[];
  /** The transaction guard, or the zero address. */
  readonly guard: string;
}

/** One call that a Safe makes. */
export interface SafeCall {
  readonly to: string;
  /** Wei; default 0. */
  readonly value?: bigint;
  readonly data: string;
}

const SAFE_ABI = new Interface([
  "function getOwners() view returns (address[])",
  "function getThreshold() view returns (uint256)",
  "function nonce() view returns (uint256)",
  "function getModulesPaginated(address start, uint256 pageSize) view returns (address[] array, address next)",
  "event ExecutionSuccess(bytes32 indexed txHash, uint256 payment)",
]);

/** `keccak256("guard_manager.guard.address")`, Safe's GuardManager. */
const GUARD_SLOT = "0x4a204f620c8c5ccdca3fd54d003badd85ba500436a431f0cbda4f558c93c34c8";
/** Head and end marker of Safe's linked lists of owners and modules. */
const SENTINEL = "0x0000000000000000000000000000000000000001";

// The package's types describe its CommonJS build, where the class is `.default`; what Node loads is the ES build, where it is the import.
const SafeKit = protocolKit as unknown as typeof protocolKit.default;

type KitTarget = { readonly safeAddress: string } | { readonly spec: SafeSpec };

async function openKit(connection: Connection, version: KnownSafeVersion, target: KitTarget, signer?: string) {
  // 1.3.0 is deployed nowhere by these tools: where its Safes are, protocol-kit knows its contracts.
  const networks = version === "1.3.0" ? {} : { contractNetworks: await ensureSafeContracts(connection, version) };
  const common = {
    provider: connection.provider as SafeConfig["provider"],
    ...(signer === undefined ? {} : { signer }),
    isL1SafeSingleton: false,
    ...networks,
  };
  if ("safeAddress" in target) return SafeKit.init({ ...common, safeAddress: target.safeAddress });
  const { owners, threshold, saltNonce } = target.spec;
  return SafeKit.init({
    ...common,
    predictedSafe: {
      safeAccountConfig: { owners: [...owners], threshold },
      safeDeploymentConfig: { saltNonce, safeVersion: version, deploymentType: "canonical" },
    },
  });
}

/**
 * The address that {@link createSafe} gives a Safe: a function of owners, threshold, version and salt alone.
 */
export async function predictSafeAddress(connection: Connection, spec: SafeSpec): Promise<string> {
  return getAddress(await (await openKit(connection, spec.version, { spec })).getAddress());
}

/**
 * Creates a Safe through protocol-kit at its deterministic address, or takes the one that is already there.
 *
 * @returns the Safe's address
 * @throws KeysteadError `safe/differs` if a Safe with other owners, threshold or modules stands there now; the errors of
 *   {@link ensureSafeContracts} and {@link inspectSafe}
 * @example const safe = await createSafe(connection, { owners: [a, b, c], threshold: 2, version: "1.5.0", saltNonce: "1" });
 */
export async function createSafe(connection: Connection, spec: SafeSpec, log: Log = silent): Promise<string> {
  const kit = await openKit(connection, spec.version, { spec });
  const address = getAddress(await kit.getAddress());
  if ((await connection.ethers.provider.getCode(address)) === "0x") {
    const transaction = await kit.createSafeDeploymentTransaction();
    await sendAndWait(connection, { to: transaction.to, value: BigInt(transaction.value), data: transaction.data });
    log(`Safe ${address}: created, ${spec.threshold} of ${spec.owners.length}, version ${spec.version}`);
  } else {
    log(`Safe ${address}: already there`);
  }
  const state = await inspectSafe(connection, address);
  const same = (list: readonly string[]) => JSON.stringify(list.map((a) => a.toLowerCase()).sort());
  const differences = [
    ...(same(state.owners) === same(spec.owners) ? [] : [`owners are ${state.owners.join(", ")}`]),
    ...(state.threshold === spec.threshold ? [] : [`threshold is ${state.threshold}`]),
    ...(state.modules.length === 0 ? [] : [`modules ${state.modules.join(", ")} are enabled`]),
  ];
  if (differences.length > 0) {
    throw new KeysteadError("safe/differs", `Safe ${address} is not what was asked for: ${differences.join("; ")}`, {
      argument: "owners",
      remedy: "name the Safe by its address if it is meant as it is now, or choose another saltNonce",
      details: { address, differences },
    });
  }
  return address;
}

/**
 * Reads what stands at an address and proves that it is a Safe: the account's code is Safe's proxy of a known release, and its
 * singleton is a known release's contract, by code hash ({@link recogniseSafe}).
 *
 * @throws KeysteadError `safe/not-a-safe`, naming what is there instead
 */
export async function inspectSafe(connection: Connection, account: string): Promise<SafeState> {
  const { provider } = connection.ethers;
  const address = getAddress(account);
  const refuse = (why: string) =>
    new KeysteadError("safe/not-a-safe", `${address} is not a Safe: ${why}`, {
      argument: "address",
      remedy: `use a Safe of version ${SAFE_VERSIONS.join(", ")} that exists on this chain`,
      details: { address },
    });
  const code = await provider.getCode(address);
  if (code === "0x") throw refuse("it has no code");
  if (code.toLowerCase().startsWith("0xef0100")) throw refuse("it is an EOA that delegates its code (EIP-7702)");

  const singleton = getAddress(`0x${(await provider.getStorage(address, 0)).slice(-40)}`);
  const found = recogniseSafe({
    codeHash: keccak256(code),
    singleton,
    singletonCodeHash: keccak256(await provider.getCode(singleton)),
  });
  if (found.version === undefined) throw refuse(found.why);
  const { version } = found;

  const read = async (name: string, args: readonly unknown[] = []) => {
    const data = await provider.call({ to: address, data: SAFE_ABI.encodeFunctionData(name, args) });
    return SAFE_ABI.decodeFunctionResult(name, data);
  };
  const [owners] = await read("getOwners");
  const [threshold] = await read("getThreshold");
  const [nonce] = await read("nonce");
  const [modules] = await read("getModulesPaginated", [SENTINEL, 50]);
  return {
    address,
    version,
    owners: [...owners],
    threshold: Number(threshold),
    nonce: BigInt(nonce),
    modules: [...modules],
    guard: getAddress(`0x${(await provider.getStorage(address, GUARD_SLOT)).slice(-40)}`),
  };
}

/** What {@link executeThroughSafe} did. */
export interface SafeExecution {
  readonly hash: string;
  readonly safeTxHash: string;
  readonly blockNumber: number;
  /** Gas units that the whole transaction used. */
  readonly gasUsed: bigint;
}

/**
 * Makes a Safe perform calls: protocol-kit builds the transaction, each of `signers` signs it, the first one sends it. One call is a
 * plain CALL; several are one DELEGATECALL to the release's MultiSendCallOnly, so that all of them happen or none.
 *
 * @param options.signers owners that the connection can sign for, at least the Safe's threshold
 * @throws KeysteadError `safe/too-few-signers`, `safe/no-calls`, `safe/execution-failed` (`details.reason` is the first failing call's raw
 *   revert data, where the node gives it), and the errors of {@link inspectSafe}
 * @example await executeThroughSafe(connection, { safe, signers: [alice, bob], calls: [{ to: timelock, data }] });
 */
export async function executeThroughSafe(
  connection: Connection,
  options: {
    readonly safe: string;
    readonly signers: readonly string[];
    readonly calls: readonly SafeCall[];
    readonly log?: Log;
  },
): Promise<SafeExecution> {
  const { safe, calls, log = silent } = options;
  const signers = [...new Set(options.signers.map((signer) => getAddress(signer)))];
  const state = await inspectSafe(connection, safe);
  const first = signers[0];
  if (calls.length === 0) {
    throw new KeysteadError("safe/no-calls", "there is nothing to execute", {
      argument: "calls",
      remedy: "pass at least one call",
    });
  }
  if (first === undefined || signers.length < state.threshold) {
    throw new KeysteadError(
      "safe/too-few-signers",
      `Safe ${safe} needs ${state.threshold} signatures, ${signers.length} different signers were given`,
      { argument: "signers", remedy: "have more of its owners sign" },
    );
  }
  const stranger = signers.find((signer) => !state.owners.includes(signer));
  if (stranger !== undefined) {
    throw new KeysteadError("safe/not-an-owner", `${stranger} is not an owner of Safe ${safe}`, {
      argument: "signers",
      remedy: `sign with owners only: ${state.owners.join(", ")}`,
    });
  }

  const kit = await openKit(connection, state.version, { safeAddress: state.address }, first);
  let transaction = await kit.createTransaction({
    transactions: calls.map(({ to, value = 0n, data }) => ({ to, value: value.toString(), data, operation: 0 })),
    onlyCalls: true,
  });
  for (const signer of signers) {
    const own =
      signer === first ? kit : await openKit(connection, state.version, { safeAddress: state.address }, signer);
    transaction = await own.signTransaction(transaction);
  }
  const safeTxHash = await kit.getTransactionHash(transaction);
  const data = await kit.getEncodedTransaction(transaction);
  const sender = await fetchSigner(connection, first);
  try {
    // Estimated first: a Safe whose inner call fails reverts as a whole (safeTxGas and gasPrice are 0).
    const receipt = await sendAndWait(connection, { to: state.address, data }, sender.address);
    const done = receipt.logs.some(
      (entry) =>
        entry.address === state.address && entry.topics[0] === SAFE_ABI.getEvent("ExecutionSuccess")?.topicHash,
    );
    if (!done) throw new Error(`no ExecutionSuccess in ${receipt.hash}`);
    log(`Safe ${safe}: executed ${calls.length} call${calls.length === 1 ? "" : "s"} in block ${receipt.blockNumber}`);
    return { hash: receipt.hash, safeTxHash, blockNumber: receipt.blockNumber, gasUsed: receipt.gasUsed };
  } catch (cause) {
    const reason = await findRevertData(connection, state.address, calls);
    throw new KeysteadError("safe/execution-failed", `Safe ${safe} refused or failed to execute its calls`, {
      remedy: "simulate each call from the Safe's address; `details.reason` is the failing call's revert data",
      details: { safe, ...(reason === undefined ? {} : { reason }) },
      cause,
    });
  }
}

/** Safe 1.4.1 hides an inner call's error behind GS013, so the calls are asked again one by one, from the Safe. */
async function findRevertData(connection: Connection, safe: string, calls: readonly SafeCall[]) {
  for (const { to, value = 0n, data } of calls) {
    try {
      await connection.ethers.provider.call({ from: safe, to, value, data });
    } catch (error) {
      return extractRevertData(error);
    }
  }
  return undefined;
}

/**
 * Finds a call's raw revert data wherever the client library put it (`data`, `error.data`, `info.error.data`, `cause`).
 *
 * @returns 0x-prefixed bytes, or `undefined` if there are none
 */
export function extractRevertData(error: unknown, depth = 0): string | undefined {
  if (typeof error === "string") return /^0x([0-9a-f]{2})+$/i.test(error) ? error : undefined;
  if (typeof error !== "object" || error === null || depth > 6) return undefined;
  for (const key of ["data", "error", "info", "cause"]) {
    const found = extractRevertData(Reflect.get(error, key), depth + 1);
    if (found !== undefined) return found;
  }
  return undefined;
}
