import { AbiCoder, Interface, keccak256, ZeroHash } from "ethers";
import { KeysteadError } from "../core/errors.ts";

/** One call that the timelock makes. */
export interface TimelockCall {
  readonly to: string;
  /** Wei. */
  readonly value: bigint;
  readonly data: string;
}

/** A batch at the timelock, with every calldata that belongs to its life. */
export interface TimelockOperation {
  /** The operation's name in this project; part of the salt. */
  readonly id: string;
  readonly timelock: string;
  readonly chainId: bigint;
  readonly calls: readonly TimelockCall[];
  /** Operation that must be done before this one executes; 0 if there is none. */
  readonly predecessor: string;
  readonly salt: string;
  /** Seconds between scheduling and execution. */
  readonly delaySeconds: bigint;
  /** The timelock's own id of the operation: what `cancel` takes and events carry. */
  readonly operationId: string;
  /** Calldata for the timelock. */
  readonly schedule: string;
  readonly execute: string;
  readonly cancel: string;
}

const TIMELOCK = new Interface([
  "function scheduleBatch(address[] targets, uint256[] values, bytes[] payloads, bytes32 predecessor, bytes32 salt, uint256 delay)",
  "function executeBatch(address[] targets, uint256[] values, bytes[] payloads, bytes32 predecessor, bytes32 salt)",
  "function cancel(bytes32 id)",
]);

/**
 * Builds a timelock operation: always a batch, since a batch of one and a single operation have different ids.
 *
 * The salt is `keccak256(abi.encode(id, chainId, timelock, targets, values, payloads, predecessor))`: never zero, so the timelock emits it,
 * and different for every operation, so that nothing done once can stand in the way of another. The operation id is OpenZeppelin's
 * `hashOperationBatch`: `keccak256(abi.encode(targets, values, payloads, predecessor, salt))`, without the delay.
 *
 * @throws KeysteadError `timelock/no-calls`, `timelock/no-id`
 * @example buildTimelockOperation({ id: "007-upgrade", chainId: 1n, timelock, calls, delaySeconds: 172800n }).schedule
 */
export function buildTimelockOperation(input: {
  readonly id: string;
  readonly chainId: bigint;
  readonly timelock: string;
  readonly calls: readonly TimelockCall[];
  readonly delaySeconds: bigint;
  readonly predecessor?: string;
}): TimelockOperation {
  const { id, chainId, timelock, calls, delaySeconds, predecessor = ZeroHash } = input;
  if (calls.length === 0) {
    throw new KeysteadError("timelock/no-calls", "an operation without calls does nothing", {
      argument: "calls",
      remedy: "pass at least one call",
    });
  }
  if (id === "") {
    throw new KeysteadError("timelock/no-id", "an operation needs a name", {
      argument: "id",
      remedy: "name it, for example 007-upgrade-registry",
    });
  }
  const targets = calls.map((call) => call.to);
  const values = calls.map((call) => call.value);
  const payloads = calls.map((call) => call.data);
  const coder = AbiCoder.defaultAbiCoder();
  const salt = keccak256(
    coder.encode(
      ["string", "uint256", "address", "address[]", "uint256[]", "bytes[]", "bytes32"],
      [id, chainId, timelock, targets, values, payloads, predecessor],
    ),
  );
  const operationId = keccak256(
    coder.encode(
      ["address[]", "uint256[]", "bytes[]", "bytes32", "bytes32"],
      [targets, values, payloads, predecessor, salt],
    ),
  );
  const batch = [targets, values, payloads, predecessor, salt];
  return {
    id,
    timelock,
    chainId,
    calls,
    predecessor,
    salt,
    delaySeconds,
    operationId,
    schedule: TIMELOCK.encodeFunctionData("scheduleBatch", [...batch, delaySeconds]),
    execute: TIMELOCK.encodeFunctionData("executeBatch", batch),
    cancel: TIMELOCK.encodeFunctionData("cancel", [operationId]),
  };
}
