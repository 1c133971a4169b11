import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { scanLogs } from "../chain/logs.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { RawLog } from "../core/events.ts";
import { INTERFACES } from "./abis.ts";
import { type Call, hex } from "./safe-hash.ts";
import { fetchTimelockState, type TimelockPhase } from "./timelock-state.ts";

/** Where something happened. */
export interface Happening {
  readonly block: number;
  readonly transactionHash: Hex;
}

/** An operation as the timelock's own logs tell it. */
export interface LoggedOperation {
  readonly id: Hex;
  readonly calls: readonly Call[];
  readonly predecessor: Hex;
  /** Zero where it was scheduled with none: then the timelock logs none. */
  readonly salt: Hex;
  readonly delay: bigint;
  readonly scheduled: Happening;
  readonly executed: Happening | undefined;
  readonly cancelled: Happening | undefined;
  /** Now, by the timelock itself. */
  readonly phase: TimelockPhase;
  readonly readyAt: bigint | undefined;
}

/** Everything that a timelock ever logged, read. */
export interface TimelockLog {
  readonly operations: readonly LoggedOperation[];
  /** Changes of the minimum delay, oldest first. */
  readonly delays: readonly (Happening & { readonly from: bigint; readonly to: bigint })[];
  /** All logs, oldest first, for those who look for what nobody proposed. */
  readonly logs: readonly RawLog[];
}

interface Draft {
  id: Hex;
  calls: (Call | undefined)[];
  predecessor: Hex;
  salt: Hex;
  delay: bigint;
  scheduled: Happening;
  executed: Happening | undefined;
  cancelled: Happening | undefined;
}

const happeningOf = ({ blockNumber, transactionHash }: RawLog): Happening => ({ block: blockNumber, transactionHash });

/** Logs oldest first, whatever order the endpoint gave. */
export const inOrder = (logs: readonly RawLog[]): readonly RawLog[] =>
  [...logs].sort((a, b) => a.blockNumber - b.blockNumber || a.logIndex - b.logIndex);

/**
 * Reads every operation of a timelock from its logs since its creation, and where each stands now from the timelock itself.
 *
 * @param fromBlock the block of its creation, or an earlier one
 * @throws KeysteadError `chain/incomplete-logs` where logs and the timelock's answers cannot both be true; as `scanLogs`
 * @example
 * (await readTimelockLog(client, block, timelock, deployment.block)).operations.filter(({ phase }) => phase === "waiting");
 */
export async function readTimelockLog(
  client: Client,
  block: Block,
  timelock: string,
  fromBlock: number,
): Promise<TimelockLog> {
  const address = toHex(fromHex(timelock, "timelock"));
  const logs = inOrder(await scanLogs(client, { address }, fromBlock, block.number));
  const drafts = new Map<Hex, Draft>();
  const delays: (Happening & { from: bigint; to: bigint })[] = [];
  for (const log of logs) {
    const event = INTERFACES.timelock.parseLog(log);
    if (event === null) continue;
    const operationId = log.topics[1] ?? "0x";
    const draft = drafts.get(operationId);
    if (event.name === "CallScheduled") {
      const { index, target, value, data, predecessor, delay } = event.args;
      // an operation that was cancelled can be scheduled again
      const fresh = draft === undefined || draft.cancelled !== undefined;
      const open: Draft = fresh
        ? {
            ...{ id: operationId, calls: [], predecessor: hex(predecessor), salt: `0x${"00".repeat(32)}`, delay },
            ...{ scheduled: happeningOf(log), executed: undefined, cancelled: undefined },
          }
        : draft;
      if (Number(index) < 1024) open.calls[Number(index)] = { to: String(target), value, data: hex(String(data)) };
      drafts.set(operationId, open);
    } else if (event.name === "CallSalt" && draft !== undefined) draft.salt = hex(String(event.args.salt));
    else if (event.name === "Cancelled" && draft !== undefined) draft.cancelled = happeningOf(log);
    else if (event.name === "CallExecuted" && draft !== undefined) draft.executed = happeningOf(log);
    else if (event.name === "MinDelayChange") {
      delays.push({ ...happeningOf(log), from: event.args.oldDuration, to: event.args.newDuration });
    }
  }
  const operations: LoggedOperation[] = [];
  for (const draft of drafts.values()) {
    const { phase, readyAt } = await fetchTimelockState(client, block, timelock, draft.id);
    const logged = draft.executed !== undefined ? "done" : draft.cancelled !== undefined ? "unset" : "waiting";
    const agrees = logged === "waiting" ? phase === "waiting" || phase === "ready" : phase === logged;
    if (!agrees || draft.calls.includes(undefined)) throw incomplete(draft.id, logged, phase);
    operations.push({
      ...draft,
      calls: draft.calls.flatMap((call) => (call === undefined ? [] : [call])),
      phase,
      readyAt,
    });
  }
  return { operations, delays, logs };
}

const incomplete = (id: Hex, logged: string, phase: string) =>
  new KeysteadError(
    "chain/incomplete-logs",
    `by the logs that the endpoint gives operation ${id} is ${logged}, by the timelock's answer ${phase}`,
    {
      argument: "rpc",
      remedy: "Use an endpoint that keeps all logs: this one leaves some out.",
      details: { operation: id, logged, phase },
    },
  );
