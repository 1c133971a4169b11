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

/** One Safe transaction of an operation's life. */
export interface PlannedTransaction {
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
  const plan = (file: string, step: string, by: SafeRef, nonce: bigint, calls: readonly Call[]): PlannedTransaction => {
    const transaction = buildSafeTransaction(by, calls, nonce);
    const hashes = hashSafeTransaction(chainId, by.address, transaction);
    return { file, step, safe: { ...by, nonce }, calls, transaction, hashes };
  };
  const planned: PlannedTransaction[] = [];
  if (timelock === null) planned.push(plan("execute.safe.json", "execute", safe, safe.nonce, operation.calls));
  else {
    const side = timelockSide(operation, timelock, id);
    const at = (data: string): readonly Call[] => [{ to: timelock.address, value: 0n, data: hex(data) }];
    const value = operation.calls.reduce((sum, call) => sum + call.value, 0n);
    planned.push(
      plan("schedule.safe.json", "schedule", safe, safe.nonce, at(side.schedule)),
      plan("execute.safe.json", "execute", safe, safe.nonce + 1n, [
        { to: timelock.address, value, data: hex(side.execute) },
      ]),
      ...[{ ...safe, nonce: safe.nonce + 1n }, ...cancellers].map((by) =>
        plan("cancel.safe.json", "cancel instead of execute", by, by.nonce, at(side.cancel)),
      ),
    );
  }
  if (rollback === null) return planned;
  if (rollback.timelock === null) {
    planned.push(plan("rollback.safe.json", "roll back", rollback.safe, rollback.safe.nonce, rollback.calls));
    return planned;
  }
  const back = { chainId, calls: rollback.calls };
  const side = timelockSide(back, rollback.timelock, rollbackId(id));
  const { address } = rollback.timelock;
  const value = rollback.calls.reduce((sum, call) => sum + call.value, 0n);
  planned.push(
    plan("rollback.safe.json", "schedule the rollback", rollback.safe, rollback.safe.nonce, [
      { to: address, value: 0n, data: hex(side.schedule) },
    ]),
    plan("rollback-execute.safe.json", "execute the rollback", rollback.safe, rollback.safe.nonce + 1n, [
      { to: address, value, data: hex(side.execute) },
    ]),
  );
  return planned;
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
  const { timelock, rollback, id, chainId } = operation;
  const rolledBack =
    rollback?.timelock == null
      ? null
      : timelockSide({ chainId, calls: rollback.calls }, rollback.timelock, rollbackId(id)).operationId;
  return formatJson({
    format: "keystead.hashes/1",
    operationId: timelock === null ? null : timelockSide(operation, timelock, id).operationId,
    rollbackOperationId: rolledBack,
    transactions: planned.map(({ file, step, safe, transaction, hashes }) => ({
      ...{ file, step, safe: safe.address, safeVersion: safe.version },
      ...{ domainHash: hashes.domainHash, messageHash: hashes.messageHash, safeTxHash: hashes.safeTxHash },
      transaction,
    })),
  });
}
