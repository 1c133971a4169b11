import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { fromHex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { type Operation, rollbackId, type TimelockTerms, timelockSide } from "./operation.ts";
import type { Call, SafeRef } from "./safe-hash.ts";
import { fetchSafe, findExecution } from "./safe-state.ts";
import { fetchTimelockState, type TimelockPhase } from "./timelock-state.ts";
import { planStep } from "./transactions.ts";

/** Which of a proposal's two operations is played: itself, or its way back. */
export type Part = "operation" | "rollback";

/** What is known of an operation whose way back is played, beyond its proposal. */
export interface BeforeOptions {
  /** The first block that holds the deployment's logs. With it, upgrades are played there and back and there again. */
  readonly fromBlock?: number | undefined;
  /**
   * Whether the operation itself was executed, where no timelock keeps that: then its way back is played alone. Default: what the Safe's own events say
   * about the planned nonce and `signedNonces`.
   */
  readonly executed?: boolean | undefined;
  /** Nonces with which the operation's own transaction was signed beside the planned one. */
  readonly signedNonces?: readonly bigint[] | undefined;
}

/** One of the two operations, as it is played. */
export interface Life {
  readonly name: string;
  readonly calls: readonly Call[];
  readonly safe: SafeRef;
  readonly terms: TimelockTerms | null;
  readonly side: ReturnType<typeof timelockSide> | null;
}

/**
 * One of a proposal's two operations.
 *
 * @throws KeysteadError `rollback/none`
 * @example
 * lifeOf(operation, "rollback").calls;
 */
export function lifeOf(operation: Operation, part: Part): Life {
  const { id, chainId, rollback } = operation;
  if (part === "operation") {
    const { calls, safe, timelock: terms } = operation;
    return {
      name: "the operation",
      calls,
      safe,
      terms,
      side: terms === null ? null : timelockSide(operation, terms, id),
    };
  }
  if (rollback === null) {
    throw new KeysteadError("rollback/none", "no way back follows from this operation", {
      argument: "operation",
      remedy: "Propose its inverse as an operation of its own.",
    });
  }
  const { calls, safe, timelock: terms } = rollback;
  const side = terms === null ? null : timelockSide({ chainId, calls }, terms, rollbackId(id));
  return { name: "the rollback", calls, safe, terms, side };
}

/**
 * Where an operation stands at the timelock; `unset` for one that goes through none.
 *
 * @throws KeysteadError as `Client.request`
 * @example
 * await phaseOf(client, block, lifeOf(operation, "operation")); // "waiting"
 */
export async function phaseOf(client: Client, block: Block, { terms, side }: Life): Promise<TimelockPhase> {
  if (terms === null || side === null) return "unset";
  return (await fetchTimelockState(client, block, terms.address, toHex(fromHex(side.operationId, "id")))).phase;
}

/**
 * Where the operation itself stands, before its way back: at the timelock, or, for a direct transaction, by the Safe's own events.
 *
 * @throws KeysteadError as `Client.request`
 * @example
 * await phaseBefore(client, block, operation, { signedNonces: [7n] }); // "done"
 */
export async function phaseBefore(
  client: Client,
  block: Block,
  operation: Operation,
  { executed, signedNonces = [], fromBlock }: BeforeOptions,
): Promise<TimelockPhase> {
  const life = lifeOf(operation, "operation");
  if (life.terms !== null) return phaseOf(client, block, life);
  if (executed !== undefined) return executed ? "done" : "unset";
  const { nonce: next } = await fetchSafe(client, block, operation.safe.address);
  const from = fromBlock ?? Number(operation.assumptions.block ?? 0n);
  for (const nonce of new Set([operation.safe.nonce, ...signedNonces])) {
    const { safeTxHash } = planStep(operation, "execute", { nonce }).hashes;
    if (nonce < next && (await findExecution(client, block, operation.safe.address, safeTxHash, from))) return "done";
  }
  return "unset";
}

/**
 * What a Safe calls to execute an operation.
 *
 * @example
 * executionOf(life)[0]?.to; // the timelock
 */
export function executionOf({ calls, terms, side }: Life): readonly Call[] {
  const value = calls.reduce((sum, call) => sum + call.value, 0n);
  return terms === null || side === null ? calls : [{ to: terms.address, value, data: side.execute }];
}
