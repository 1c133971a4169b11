import { dataLength } from "ethers";
import { KeysteadError } from "../core/errors.ts";
import type { Operation } from "./operation.ts";
import type { Call } from "./safe-hash.ts";
import { planTransactions } from "./transactions.ts";

/** EIP-7825 (Fusaka): no transaction may have more gas than 2^24, whatever a block has. */
export const MOST_GAS = 16_777_216n;

/** What a transaction costs before it does anything, and what a Safe adds with a few signatures. */
const BASE_GAS = 120_000n;
/** A byte of call data that is not zero (EIP-2028). */
const NONZERO_BYTE = 16n;
const ZERO_BYTE = 4n;
/**
 * What a call of these contracts costs by what it does to trust, call data aside, as one of many in a transaction: measured, rounded down. A
 * grant writes a new slot, what narrows trust changes one.
 */
const CALL_GAS: Readonly<Record<string, bigint>> = { grant: 41_000n, revoke: 16_000n };
const OTHER_CALL = 16_000n;
/** Storing an operation at the timelock: one hash for all of its calls, and a log for each. */
const SCHEDULED_CALL = 10_000n;

/**
 * About how much gas an operation's largest transaction needs. An estimate from below: state decides, and `simulate` says.
 *
 * @example
 * estimateGas(operation) > MOST_GAS;
 */
export function estimateGas(operation: Operation): bigint {
  const perCall = CALL_GAS[operation.lane] ?? OTHER_CALL;
  let most = 0n;
  for (const planned of planTransactions(operation)) {
    const each = planned.name === "schedule" ? SCHEDULED_CALL : perCall;
    const count = BigInt(
      planned.name === "rollback" ? (operation.rollback?.calls.length ?? 1) : operation.calls.length,
    );
    const needed = BASE_GAS + count * each + planned.calls.reduce((sum, call) => sum + dataGas(call), 0n);
    if (needed > most) most = needed;
  }
  return most;
}

function dataGas({ data }: Call): bigint {
  const zeros = BigInt(
    data
      .slice(2)
      .match(/../g)
      ?.filter((byte) => byte === "00").length ?? 0,
  );
  return zeros * ZERO_BYTE + (BigInt(dataLength(data)) - zeros) * NONZERO_BYTE;
}

/**
 * A sentence about an operation that one transaction can hardly execute; undefined for one that it can.
 *
 * @example
 * gasWarning(operation); // "it needs about 17,9…"
 */
export function gasWarning(operation: Operation | undefined): string | undefined {
  if (operation === undefined) return undefined;
  const needed = estimateGas(operation);
  if (needed <= MOST_GAS) return undefined;
  return `it needs about ${needed.toLocaleString("en")} gas, and no transaction may have more than ${MOST_GAS.toLocaleString("en")} (EIP-7825): it could be signed and never executed; propose it in parts of at most ${partsOf(operation, needed)} calls`;
}

const partsOf = ({ calls }: Operation, needed: bigint): number =>
  Math.max(1, Math.floor((calls.length * Number(MOST_GAS)) / Number(needed) / 1.25));

/**
 * The error for a transaction that no block can hold.
 *
 * @example
 * if (needed > MOST_GAS) throw tooMuchGas("relay/too-much-gas", needed);
 */
export function tooMuchGas(code: string, needed: bigint): KeysteadError {
  const [is, most] = [needed.toLocaleString("en"), MOST_GAS.toLocaleString("en")];
  return new KeysteadError(code, `it needs ${is} gas, and no transaction may have more than ${most} (EIP-7825)`, {
    argument: "operation",
    remedy: "Do it in several parts, each with fewer calls.",
    details: { needed, most: MOST_GAS },
  });
}
