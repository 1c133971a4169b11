import { keccak256, toUtf8Bytes } from "ethers";
import { KeysteadError } from "../core/errors.ts";
import { formatBatch } from "./batch.ts";
import { contextOf } from "./check.ts";
import { formatJson, type Operation, rollbackId, timelockSide } from "./operation.ts";
import {
  buildSafeTransaction,
  type Call,
  hashSafeTransaction,
  hex,
  type SafeHashes,
  type SafeRef,
  type SafeTransaction,
} from "./safe-hash.ts";

/** Steps of an operation's life, as commands name them: each is the name of its batch file. */
export const STEPS = ["schedule", "execute", "cancel", "rollback", "rollback-execute"] as const;
export type StepName = (typeof STEPS)[number];

/** One Safe transaction of an operation's life. */
export interface PlannedTransaction {
  readonly name: StepName;
  /** The batch file that holds its calls. */
  readonly file: string;
  /** What it does to the operation. */
  readonly step: string;
  readonly safe: SafeRef;
  readonly calls: readonly Call[];
  readonly transaction: SafeTransaction;
  readonly hashes: SafeHashes;
}

/**
 * Every Safe transaction of an operation's life, with the nonce that it would have if nothing else came between: schedule, execute, cancel
 * by each Safe that can, rollback.
 *
 * @example
 * planTransactions(operation).map(({ file, hashes }) => [file, hashes.safeTxHash]);
 */
export function planTransactions(operation: Operation): readonly PlannedTransaction[] {
  const { chainId, safe, timelock, rollback, cancellers, id } = operation;
  const plan = (name: StepName, step: string, by: SafeRef, nonce: bigint, calls: readonly Call[]): PlannedTransaction =>
    planAt({ name, file: `${name}.safe.json`, step, safe: by, calls }, chainId, nonce);
  const planned: PlannedTransaction[] = [];
  if (timelock === null) planned.push(plan("execute", "execute", safe, safe.nonce, operation.calls));
  else {
    const side = timelockSide(operation, timelock, id);
    const at = (data: string): readonly Call[] => [{ to: timelock.address, value: 0n, data: hex(data) }];
    const value = operation.calls.reduce((sum, call) => sum + call.value, 0n);
    planned.push(
      plan("schedule", "schedule", safe, safe.nonce, at(side.schedule)),
      plan("execute", "execute", safe, safe.nonce + 1n, [{ to: timelock.address, value, data: hex(side.execute) }]),
      ...[{ ...safe, nonce: safe.nonce + 1n }, ...cancellers].map((by) =>
        plan("cancel", "cancel instead of execute", by, by.nonce, at(side.cancel)),
      ),
    );
  }
  if (rollback === null) return planned;
  if (rollback.timelock === null) {
    planned.push(plan("rollback", "roll back", rollback.safe, rollback.safe.nonce, rollback.calls));
    return planned;
  }
  const back = { chainId, calls: rollback.calls };
  const side = timelockSide(back, rollback.timelock, rollbackId(id));
  const { address } = rollback.timelock;
  const value = rollback.calls.reduce((sum, call) => sum + call.value, 0n);
  planned.push(
    plan("rollback", "schedule the rollback", rollback.safe, rollback.safe.nonce, [
      { to: address, value: 0n, data: hex(side.schedule) },
    ]),
    plan("rollback-execute", "execute the rollback", rollback.safe, rollback.safe.nonce + 1n, [
      { to: address, value, data: hex(side.execute) },
    ]),
  );
  return planned;
}

/** The same step with another nonce, and so with other hashes. */
export function planAt(
  planned: Omit<PlannedTransaction, "transaction" | "hashes">,
  chainId: bigint,
  nonce: bigint,
): PlannedTransaction {
  const { name, file, step, safe, calls } = planned;
  const transaction = buildSafeTransaction(safe, calls, nonce);
  const hashes = hashSafeTransaction(chainId, safe.address, transaction);
  return { ...{ name, file, step, safe: { ...safe, nonce }, calls }, transaction, hashes };
}

/**
 * One step of an operation's life. Where several Safes can take it, as with a cancellation, `safe` says which.
 *
 * @param options.nonce another than planned: nonces move on when a Safe does other things
 * @throws KeysteadError `step/none`, `step/ambiguous` {safes}
 * @example
 * planStep(operation, "schedule").hashes.safeTxHash;
 */
export function planStep(
  operation: Operation,
  name: StepName,
  options: { readonly safe?: string | undefined; readonly nonce?: bigint | undefined } = {},
): PlannedTransaction {
  const all = planTransactions(operation);
  const steps = all.filter((planned) => planned.name === name);
  const safes = steps.map(({ safe }) => safe.address);
  const [step, ...others] =
    options.safe === undefined ? steps : steps.filter(({ safe }) => safe.address === options.safe);
  if (step === undefined) {
    const known = [...new Set(all.map((planned) => planned.name))].join(", ");
    throw new KeysteadError(
      "step/none",
      `the operation has no step ${name}${options.safe === undefined ? "" : ` of Safe ${options.safe}`}`,
      {
        argument: steps.length === 0 ? "step" : "safe",
        remedy: steps.length === 0 ? `Its steps are ${known}.` : `The step is one of Safe ${safes.join(" or ")}.`,
        details: { safes },
      },
    );
  }
  if (others.length > 0) {
    throw new KeysteadError("step/ambiguous", `several Safes can take the step ${name}: ${safes.join(", ")}`, {
      argument: "safe",
      remedy: `Say which one with --safe ${safes.at(-1)}.`,
      details: { safes },
    });
  }
  return options.nonce === undefined ? step : planAt(step, operation.chainId, options.nonce);
}

/** The batch files by name. */
export function formatBatches(
  operation: Operation,
  planned: readonly PlannedTransaction[],
): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  for (const { file, step, safe, calls } of planned) {
    if (files.has(file)) continue;
    files.set(
      file,
      formatBatch({
        chainId: operation.chainId,
        safe: safe.address,
        name: `${operation.id}: ${step}`,
        description: operation.title,
        time: operation.assumptions.time,
        calls,
        context: contextOf(operation),
      }),
    );
  }
  return files;
}

/** `hashes.json`: what signers compare with their devices. */
export function formatHashes(operation: Operation, planned: readonly PlannedTransaction[]): string {
  const { timelock, rollback, id, chainId, assumptions } = operation;
  const { start } = assumptions;
  const rolledBack =
    rollback?.timelock == null
      ? null
      : timelockSide({ chainId, calls: rollback.calls }, rollback.timelock, rollbackId(id)).operationId;
  return formatJson({
    format: "keystead.hashes/1",
    operationId: timelock === null ? null : timelockSide(operation, timelock, id).operationId,
    rollbackOperationId: rolledBack,
    // drift is judged by the start state: a change of it must show here too
    startStateHash: start === null ? null : keccak256(toUtf8Bytes(formatJson(start))),
    transactions: planned.map(({ file, step, safe, transaction, hashes }) => ({
      ...{ file, step, safe: safe.address, safeVersion: safe.version },
      ...{ domainHash: hashes.domainHash, messageHash: hashes.messageHash, safeTxHash: hashes.safeTxHash },
      transaction,
    })),
  });
}
