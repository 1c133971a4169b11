import protocolKit, { buildContractSignature, EthSafeSignature, type SafeConfig } from "@safe-global/protocol-kit";
import { id } from "ethers";
import { type Block, blockParameter, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { findContractRefusal } from "./contract-signatures.ts";
import type { Operation } from "./operation.ts";
import { requireAnswerable, requireVersion } from "./owners.ts";
import { lowerAddress, type Receipt, sendTransaction, waitForReceipt } from "./relay.ts";
import { hex } from "./safe-hash.ts";
import { fetchApprovals, fetchSafe, findExecution, type SafeOnChain } from "./safe-state.ts";
import type { Key } from "./sign.ts";
import type { FoundSignature } from "./signatures.ts";
import { type PlannedTransaction, planStep, type StepName } from "./transactions.ts";

// The package's types describe its CommonJS build, where the class is `.default`; what Node loads is the ES build, where it is the import.
const SafeKit = protocolKit as unknown as typeof protocolKit.default;
type Kit = Awaited<ReturnType<typeof SafeKit.init>>;
type KitTransaction = Awaited<ReturnType<Kit["createTransaction"]>>;

/** In every release. */
const SUCCESS = id("ExecutionSuccess(bytes32,uint256)");

/** What a Safe transaction is sent with. */
export interface Sending {
  readonly client: Client;
  readonly operation: Operation;
  /** Signatures of the folder, checked. */
  readonly signatures: readonly FoundSignature[];
  /** Told each thing that was done, one line at a time. */
  readonly progress: (line: string) => void;
  /** The most that a transaction may cost, wei. Default: no limit. */
  readonly maxFee?: bigint | undefined;
}

/** A step as it can be sent now: the Safe's present nonce, and enough signatures. */
export interface ReadyStep {
  readonly planned: PlannedTransaction;
  readonly safe: SafeOnChain;
  /** Owners that signed or approved. */
  readonly signers: readonly string[];
  /** Calldata of `execTransaction`, by protocol-kit. */
  readonly data: Hex;
  /** The block that was looked at. */
  readonly block: number;
}

/** What was sent. */
export interface SentStep {
  readonly step: StepName;
  readonly safe: string;
  readonly nonce: bigint;
  readonly safeTxHash: Hex;
  readonly transactionHash: Hex;
  readonly block: number;
  readonly gasUsed: bigint;
}

/**
 * Collects what a step needs to be sent now: the Safe as it is, the step with its present nonce, and the signatures and approvals for that.
 *
 * @throws KeysteadError `safe/other-version`; `safe/nonce-moved` {nonce, signed, sign}, `safe/nonce-ahead` {nonce, signed} where signatures are for another
 * nonce; `safe/too-few-signatures` {have, need, missing}; `safe/hashes-differ`; `safe/bad-signatures` {reason} where the Safe refuses them;
 * those of `planStep`
 * @example
 * const ready = await prepareStep(sending, block, "schedule");
 */
export async function prepareStep(
  sending: Sending,
  block: Block,
  step: StepName,
  options: { readonly safe?: string | undefined; readonly from?: string | undefined } = {},
): Promise<ReadyStep> {
  const { client, operation, signatures } = sending;
  const first = planStep(operation, step, { safe: options.safe });
  const safe = await fetchSafe(client, block, first.safe.address);
  requireVersion(safe, first);
  const planned = planStep(operation, step, { safe: safe.address, nonce: safe.nonce });
  const { safeTxHash } = planned.hashes;
  const approvals = await fetchApprovals(client, block, safe, safeTxHash);
  const found = signatures.filter((signature) => signature.safeTxHash === safeTxHash);
  const kit = await openKit(client, planned, safe, options.from);
  const transaction = await buildKitTransaction(kit, planned);
  const signers = new Set(approvals);
  const ignored: string[] = [];
  const note = (line: string) => {
    ignored.push(line);
    sending.progress(line);
  };
  for (const signature of await usableSignatures({ ...sending, note }, block, safe, planned, found)) {
    if (signers.has(signature.signer)) continue;
    transaction.addSignature(signature);
    signers.add(signature.signer);
  }
  if (signers.size < safe.threshold) throw tooFew(sending, planned, safe, [...signers], ignored);
  for (const owner of approvals) transaction.addSignature(approvalOf(owner));
  const data = hex(await kit.getEncodedTransaction(transaction));
  await requireSignatures(client, block, safe, data, options.from);
  return { planned, safe, signers: [...signers], data, block: block.number };
}

/**
 * Sends a prepared step, waits for it and sees that the Safe executed it.
 *
 * Where another operator has sent it, or does so meanwhile, that one counts.
 *
 * @throws KeysteadError `safe/would-fail` {reason} before anything is paid for; `safe/execution-failed` {transactionHash}; those of `sendTransaction` and `waitForReceipt`
 * @example
 * await sendStep(sending, await prepareStep(sending, block, "schedule"), relayer);
 */
export async function sendStep(sending: Sending, ready: ReadyStep, relayer: Key): Promise<SentStep> {
  const { client, progress, maxFee } = sending;
  const { planned, safe, data } = ready;
  const block = await fetchLatest(client);
  const refusal = await findRefusal(client, block, safe, data, relayer.address);
  if (refusal !== undefined) {
    const other = await findOther(sending, ready);
    if (other !== undefined) return other;
    throw new KeysteadError("safe/would-fail", `Safe ${safe.address} would fail to execute it: ${refusal}`, {
      remedy:
        "Run the same command again: the chain may have moved. Simulate the proposal to see which call fails, and why.",
      details: { safe: safe.address, reason: refusal },
    });
  }
  const pending = await findPending(client, safe.address, data);
  if (pending !== undefined && pending.from !== lowerAddress(relayer.address)) {
    progress(`${planned.step}: another operator sent it: pending in ${pending.hash}; waiting for that`);
    return settled(sending, ready, pending.hash);
  }
  progress(`${planned.step}: sending from ${relayer.address}, nonce ${safe.nonce} of Safe ${safe.address}`);
  const show = (line: string) => progress(`${planned.step}: ${line}`);
  const announce = (sent: Hex) => progress(`${planned.step}: sent ${sent}`);
  const hash = await sendTransaction(client, relayer, { to: safe.address, data }, announce, {
    ...{ max: maxFee, show },
  });
  return settled(sending, ready, hash);
}

/** Waits for a transaction; where it came too late, another operator's counts. */
async function settled(sending: Sending, ready: ReadyStep, hash: Hex): Promise<SentStep> {
  const { client, progress } = sending;
  const { planned, safe } = ready;
  const receipt = await waitForReceipt(client, hash);
  if (!receipt.succeeded || !executed(receipt, safe.address, planned.hashes.safeTxHash)) {
    const other = await findOther(sending, ready);
    if (other !== undefined) return other;
    throw new KeysteadError("safe/execution-failed", `Safe ${safe.address} did not execute it in ${hash}`, {
      remedy: "Run the same command again: it looks at the chain first.",
      details: { transactionHash: hash },
    });
  }
  progress(`${planned.step}: executed by the Safe in block ${receipt.block}, ${receipt.gasUsed} gas`);
  return sentOf(ready, hash, receipt);
}

const sentOf = ({ planned, safe }: ReadyStep, hash: Hex, receipt: Pick<Receipt, "block" | "gasUsed">): SentStep => ({
  ...{ step: planned.name, safe: safe.address, nonce: safe.nonce, safeTxHash: planned.hashes.safeTxHash },
  ...{ transactionHash: hash, block: receipt.block, gasUsed: receipt.gasUsed },
});

/** The same Safe transaction, executed by somebody else since this command looked. */
async function findOther({ client, progress }: Sending, ready: ReadyStep): Promise<SentStep | undefined> {
  const { planned, safe } = ready;
  const found = await findExecution(
    client,
    await fetchLatest(client),
    safe.address,
    planned.hashes.safeTxHash,
    ready.block,
  );
  if (found === undefined) return undefined;
  progress(`${planned.step}: another operator sent it: executed in ${found.transactionHash}, block ${found.block}`);
  return sentOf(ready, found.transactionHash, { block: found.block, gasUsed: 0n });
}

/** The same call to the Safe, waiting to be mined, as far as the endpoint shows what waits. */
async function findPending(
  client: Client,
  safe: string,
  data: Hex,
): Promise<{ readonly hash: Hex; readonly from: string } | undefined> {
  let block: unknown;
  try {
    block = await client.request("eth_getBlockByNumber", ["pending", true]);
  } catch (error) {
    // endpoints need not offer it; then the race is settled when it is over
    if (!isKeysteadError(error)) throw error;
    return undefined;
  }
  const transactions: unknown = Reflect.get(Object(block), "transactions");
  if (!Array.isArray(transactions)) return undefined;
  // signatures may differ in number and order: what the Safe is to do comes before them (ten words; the last of them says where they start)
  const head = data.slice(0, 10 + 9 * 64);
  for (const transaction of transactions) {
    const { to, input, hash, from } = Object(transaction);
    const call = typeof input === "string" ? input.toLowerCase() : "";
    if (typeof to !== "string" || to.toLowerCase() !== safe.toLowerCase() || !call.startsWith(head)) continue;
    if (bodyOf(call) !== bodyOf(data)) continue;
    if (typeof hash === "string" && typeof from === "string") return { hash: hex(hash), from: from.toLowerCase() };
  }
  return undefined;
}

/** The bytes of `data` inside an encoded `execTransaction`: its offset stands in the third word. */
function bodyOf(call: string): string {
  const words = call.slice(10);
  const at = 2 * Number(BigInt(`0x${words.slice(128, 192) || "0"}`));
  const length = 2 * Number(BigInt(`0x${words.slice(at, at + 64) || "0"}`));
  return words.slice(at + 64, at + 64 + length);
}

const executed = (receipt: Receipt, safe: string, safeTxHash: Hex): boolean =>
  receipt.logs.some(
    ({ address, topics, data }) =>
      address === lowerAddress(safe) &&
      topics[0] === SUCCESS &&
      (topics[1] === safeTxHash || data.slice(0, 66) === safeTxHash),
  );

async function openKit(
  client: Client,
  { safe: { address, multiSend } }: PlannedTransaction,
  { singleton }: SafeOnChain,
  signer: string | undefined,
): Promise<Kit> {
  const request = ({ method, params }: { method: string; params?: unknown }) =>
    client.request(method, Array.isArray(params) ? params : []);
  const config = {
    provider: { request } as unknown as SafeConfig["provider"],
    ...(signer === undefined ? {} : { signer }),
    safeAddress: address,
    // stated for every chain, so that local ones work, the MultiSend is the one that was signed, and none is used that may DELEGATECALL
    contractNetworks: {
      [client.chainId]: {
        ...{ safeSingletonAddress: singleton, multiSendAddress: multiSend, multiSendCallOnlyAddress: multiSend },
      },
    },
  };
  return SafeKit.init(config);
}

/** The step as protocol-kit builds it from its calls; it must come to the hash that was signed. */
async function buildKitTransaction(kit: Kit, planned: PlannedTransaction): Promise<KitTransaction> {
  const transaction = await kit.createTransaction({
    transactions: planned.calls.map(({ to, value, data }) => ({ to, value: value.toString(), data, operation: 0 })),
    onlyCalls: true,
    options: { nonce: Number(planned.transaction.nonce), safeTxGas: "0", baseGas: "0", gasPrice: "0" },
  });
  const hash = await kit.getTransactionHash(transaction);
  if (hash !== planned.hashes.safeTxHash) {
    throw new KeysteadError(
      "safe/hashes-differ",
      `protocol-kit builds ${hash} where ${planned.hashes.safeTxHash} was signed`,
      {
        remedy: "Send nothing, and report it: one of two implementations is wrong, or was tampered with.",
        details: { ours: planned.hashes.safeTxHash, protocolKit: hash },
      },
    );
  }
  return transaction;
}

const approvalOf = (owner: string): EthSafeSignature =>
  new EthSafeSignature(owner, `0x${owner.slice(2).toLowerCase().padStart(64, "0")}${"00".repeat(32)}01`);

/** Where signatures are looked at, and whoever is told of those that do not count. */
type Noting = Pick<Sending, "client" | "progress"> & { readonly note: (line: string) => void };

/**
 * The folder's signatures that count now: of present owners, a contract's only where it answers for it, an owner that is a Safe where enough of its own
 * present owners signed. What does not count is said and left out: a file that anybody can add must not stop a transaction.
 */
async function usableSignatures(
  { client, progress, note }: Noting,
  block: Block,
  safe: SafeOnChain,
  planned: PlannedTransaction,
  found: readonly FoundSignature[],
): Promise<readonly EthSafeSignature[]> {
  const usable: EthSafeSignature[] = [];
  for (const { through, signer, kind, signature } of found) {
    if (through !== null) continue;
    if (!safe.owners.includes(signer)) {
      note(`the signature of ${signer} does not count: it is not an owner of Safe ${safe.address}`);
      continue;
    }
    const refusal =
      kind === "contract" ? await findContractRefusal(client, block, planned, signer, signature) : undefined;
    if (refusal === undefined) usable.push(new EthSafeSignature(signer, signature, kind === "contract"));
    else note(`the signature of ${signer} does not count: ${refusal}`);
  }
  for (const child of new Set(found.flatMap(({ through }) => (through === null ? [] : [through])))) {
    const signature = await signatureOfSafe({ client, progress, note }, block, safe, child, found);
    if (signature !== undefined) usable.push(signature);
  }
  return usable;
}

/** What an owner that is itself a Safe signs, once enough of its owners did. */
async function signatureOfSafe(
  { client, progress, note }: Noting,
  block: Block,
  safe: SafeOnChain,
  child: string,
  found: readonly FoundSignature[],
): Promise<EthSafeSignature | undefined> {
  const ignored = (why: string): undefined => void note(`signatures for ${child} do not count: ${why}`);
  if (!safe.owners.includes(child)) return ignored(`it is not an owner of Safe ${safe.address}`);
  let inner: SafeOnChain;
  try {
    inner = await fetchSafe(client, block, child);
    requireAnswerable(safe, inner);
  } catch (error) {
    const expected = ["safe/not-a-safe", "safe/owner-cannot-answer", "chain/not-this-contract", "chain/reverted"];
    if (!isKeysteadError(error) || !expected.includes(error.code)) throw error;
    return ignored(error.message);
  }
  const own = found.filter(({ through, signer }) => through === child && inner.owners.includes(signer));
  progress(`Safe ${child}, itself an owner: ${own.length} of ${inner.threshold} signatures`);
  if (own.length < inner.threshold) return undefined;
  return (await buildContractSignature(
    own.map(({ signer, signature }) => new EthSafeSignature(signer, signature)),
    child,
  )) as EthSafeSignature;
}

/** Says what to sign again where signatures are for another nonce, else who is missing. */
function tooFew(
  { operation, signatures }: Sending,
  planned: PlannedTransaction,
  safe: SafeOnChain,
  signers: readonly string[],
  ignored: readonly string[],
): KeysteadError {
  const { name, hashes } = planned;
  const missing = safe.owners.filter((owner) => !signers.includes(owner));
  const command = `keystead sign ${operation.id} --step ${name} --safe ${safe.address} --nonce ${safe.nonce}`;
  const others = signatures.filter(
    ({ step, safe: by, nonce }) => step === name && by === safe.address && nonce !== safe.nonce,
  );
  const last =
    others
      .map(({ nonce }) => nonce)
      .sort((a, b) => (a < b ? -1 : 1))
      .at(-1) ?? -1n;
  const details = {
    ...{ step: name, safe: safe.address, nonce: safe.nonce, have: signers, need: safe.threshold, missing },
    ...{ signed: [...new Set(others.map(({ nonce }) => nonce))], sign: { ...hashes, command }, ignored },
  };
  const again = `domain hash ${hashes.domainHash}, message hash ${hashes.messageHash}`;
  if (last > safe.nonce) {
    return new KeysteadError(
      "safe/nonce-ahead",
      `Safe ${safe.address} is at nonce ${safe.nonce}, the signatures for ${name} are for nonce ${last}`,
      {
        argument: "nonce",
        remedy: `Have the Safe execute what comes before, or sign again for nonce ${safe.nonce}: ${command} (${again}).`,
        details,
      },
    );
  }
  if (last >= 0n) {
    return new KeysteadError(
      "safe/nonce-moved",
      `Safe ${safe.address} has moved on to nonce ${safe.nonce}: the signatures for ${name} at nonce ${last} are void`,
      {
        argument: "nonce",
        remedy: `${safe.threshold} of ${safe.owners.join(", ")} must sign again: ${command} (${again}).`,
        details,
      },
    );
  }
  return new KeysteadError(
    "safe/too-few-signatures",
    `Safe ${safe.address} needs ${safe.threshold} signatures for ${name}, ${[`${signers.length} are there`, ...ignored].join("; ")}`,
    {
      argument: "signatures",
      remedy: `Have more owners sign (${missing.join(", ")}): ${command}.`,
      details,
    },
  );
}

/** Asks the Safe about the signatures; whether its calls would succeed is the rehearsal's to say, in more words. */
async function requireSignatures(
  client: Client,
  block: Block,
  safe: SafeOnChain,
  data: Hex,
  from: string | undefined,
): Promise<void> {
  const reason = await findRefusal(client, block, safe, data, from);
  if (reason === undefined || !/^GS02\d$/.test(reason)) return;
  throw new KeysteadError("safe/bad-signatures", `Safe ${safe.address} does not take the signatures (${reason})`, {
    argument: "signatures",
    remedy: "Look at contracts' signatures first, which only their contract can check; have their owners sign again.",
    details: { safe: safe.address, reason },
  });
}

/** Why the Safe would not execute it at a block: Safe's own short code where it gives one. */
async function findRefusal(
  client: Client,
  block: Block,
  safe: SafeOnChain,
  data: Hex,
  from: string | undefined,
): Promise<string | undefined> {
  const call = { to: safe.address, data, ...(from === undefined ? {} : { from }) };
  try {
    await client.request("eth_call", [call, blockParameter(block.number)]);
    return undefined;
  } catch (error) {
    if (!isKeysteadError(error, "chain/reverted")) throw error;
    return /GS\d{3}/.exec(error.message)?.[0] ?? error.message;
  }
}

/** The newest block, as every look at the chain starts with. */
export const fetchLatest = (client: Client): Promise<Block> => fetchBlock(client, "latest");
