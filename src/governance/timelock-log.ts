import { getAddress } from "ethers";
import type { Block } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { type Dismissal, dismissalOf } from "../chain/dismissal.ts";
import { scanLogs } from "../chain/logs.ts";
import { foldOperations } from "../chain/operations.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { RawLog } from "../core/events.ts";
import type { Call } from "./safe-hash.ts";
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
  /** From when on it can no longer be executed. */
  readonly expiresAt: bigint | undefined;
  /** Whose guardian offices it takes, where that is all that it does: then that account cannot cancel it. */
  readonly dismissal: Dismissal | undefined;
}

/** Everything that a timelock ever logged, read. */
export interface TimelockLog {
  readonly operations: readonly LoggedOperation[];
  /** Changes of the minimum delay, oldest first. */
  readonly delays: readonly (Happening & { readonly from: bigint; readonly to: bigint })[];
  /** All logs, oldest first, for those who look for what nobody proposed. */
  readonly logs: readonly RawLog[];
}

const happeningOf = ({ blockNumber, transactionHash }: RawLog): Happening => ({ block: blockNumber, transactionHash });

/** Logs oldest first, whatever order the endpoint gave. */
export const inOrder = (logs: readonly RawLog[]): readonly RawLog[] =>
  [...logs].sort((a, b) => a.blockNumber - b.blockNumber || a.logIndex - b.logIndex);

/**
 * Reads every operation of a timelock from its logs since its creation, and where each stands now from the timelock itself.
 *
 * @param fromBlock the block of its creation, or an earlier one
 * @throws KeysteadError `chain/incomplete-logs` where logs and the timelock's answers cannot both be true, or calls are not those of their operation's id; as
 * `scanLogs`
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
  const { operations: logged, delays } = foldOperations(logs);
  const operations: LoggedOperation[] = [];
  for (const operation of logged) {
    const { genuine, calls, scheduled, executed, cancelled, ...rest } = operation;
    if (!genuine) throw notItsCalls(operation.id);
    const { phase, readyAt, expiresAt } = await fetchTimelockState(client, block, timelock, operation.id);
    const told = executed !== undefined ? "done" : cancelled !== undefined ? "unset" : "waiting";
    const agrees =
      told === "waiting" ? phase === "waiting" || phase === "ready" || phase === "expired" : phase === told;
    if (!agrees) throw incomplete(operation.id, told, phase);
    const made = calls.map(({ target, value, data }) => ({ to: getAddress(target), value, data }));
    operations.push({
      ...rest,
      calls: made,
      dismissal: expiresAt === undefined ? undefined : dismissalOf(made, rest.predecessor, timelock),
      scheduled: happeningOf(scheduled),
      executed: executed === undefined ? undefined : happeningOf(executed),
      cancelled: cancelled === undefined ? undefined : happeningOf(cancelled),
      phase,
      readyAt,
      expiresAt,
    });
  }
  return { operations, delays: delays.map(({ log, from, to }) => ({ ...happeningOf(log), from, to })), logs };
}

const notItsCalls = (id: Hex) =>
  new KeysteadError(
    "chain/incomplete-logs",
    `the calls that the endpoint's logs give for operation ${id} do not hash to its id`,
    {
      argument: "rpc",
      remedy: "Use another endpoint: this one leaves logs out, or changed them.",
      details: { operation: id },
    },
  );

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
