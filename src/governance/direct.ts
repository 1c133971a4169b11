import { type Block, blockParameter, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import type { DecodeContext } from "./decode.ts";
import { askView, deriveExpectedState, type ExpectedView } from "./effects.ts";
import { type Receipt, sendTransaction, waitForReceipt } from "./relay.ts";
import { revertWords } from "./revert.ts";
import type { Call } from "./safe-hash.ts";
import type { Key } from "./sign.ts";

/** An effect of a call, and whether it holds. */
export interface CheckedEffect extends ExpectedView {
  readonly holds: boolean;
}

/** A call that an account made by itself. */
export interface DirectCall {
  readonly receipt: Receipt;
  readonly effects: readonly CheckedEffect[];
}

/**
 * Asks what a call would answer if an account made it now.
 *
 * @returns the raw answer
 * @throws KeysteadError `direct/would-fail` {reason} with the contract's own error; as `Client.request`
 * @example
 * const answer = await tryCall(client, await fetchBlock(client, "latest"), account, call);
 */
export async function tryCall(client: Client, block: Block, from: string, { to, value, data }: Call): Promise<string> {
  const call = { from, to, data, value: `0x${value.toString(16)}` };
  try {
    return String(await client.request("eth_call", [call, blockParameter(block.number)]));
  } catch (error) {
    if (!isKeysteadError(error, "chain/reverted")) throw error;
    const reason = wordsOf(error.cause) ?? error.message;
    throw new KeysteadError("direct/would-fail", `the contract refuses it from ${from}: ${reason}`, {
      argument: "account",
      remedy: "Nothing was sent. Check that the account holds the office, and the service's state.",
      details: { from, to, reason },
      cause: error,
    });
  }
}

/** Revert data lies in different places of an endpoint's error. */
function wordsOf(error: unknown, depth = 0): string | undefined {
  if (typeof error === "string" && /^0x([0-9a-f]{2})+$/i.test(error))
    return revertWords(`0x${error.slice(2).toLowerCase()}`);
  if (typeof error !== "object" || error === null || depth > 5) return undefined;
  for (const key of ["data", "error", "info", "cause"]) {
    const found = wordsOf(Reflect.get(error, key), depth + 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

/**
 * Makes a call from an account whose key is here, and checks the effects that follow from it.
 *
 * @throws KeysteadError `direct/failed` {transactionHash}, `direct/effects-differ` {effects}; those of {@link tryCall}, `sendTransaction` and
 * `waitForReceipt`
 * @example
 * const { receipt } = await makeCall(client, key, call, { contracts }, () => {});
 */
export async function makeCall(
  client: Client,
  key: Key,
  call: Call,
  context: DecodeContext,
  progress: (line: string) => void,
): Promise<DirectCall> {
  await tryCall(client, await fetchBlock(client, "latest"), key.address, call);
  const hash = await sendTransaction(client, key, call, (sent) => progress(`sent ${sent}`));
  const receipt = await waitForReceipt(client, hash);
  if (!receipt.succeeded) throw failed(hash);
  const tag = blockParameter(receipt.block);
  const effects: CheckedEffect[] = [];
  for (const view of deriveExpectedState([call], context).views) {
    const { data, accepts } = askView(view);
    effects.push({ ...view, holds: accepts(String(await client.request("eth_call", [{ to: view.to, data }, tag]))) });
  }
  const wrong = effects.filter(({ holds }) => !holds);
  if (wrong.length > 0) {
    throw new KeysteadError("direct/effects-differ", `${wrong.length} of its expected effects do not hold`, {
      remedy: "Look at the service on the chain: something else changed it in the same block.",
      details: { effects: wrong, transactionHash: hash },
    });
  }
  return { receipt, effects };
}

const failed = (hash: Hex) =>
  new KeysteadError("direct/failed", `the transaction ${hash} failed`, {
    remedy: "The state changed between the check and the block: look at the service, then try again.",
    details: { transactionHash: hash },
  });
