import { dismissalOf } from "../chain/dismissal.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { type FunctionRecord, functionRecord, type Lane } from "../protocol/functions.ts";
import { type DecodeContext, recogniseCall } from "./decode.ts";
import { type Operation, rollbackId, type TimelockTerms, timelockSide } from "./operation.ts";
import { type Call, hex } from "./safe-hash.ts";

/** Something wrong with an operation: `field` is where, in the terms of `operation.json`. */
export interface Difference {
  readonly field: string;
  readonly code: string;
  readonly message: string;
}

/** A call's lane, or `unknown` where nobody here knows the call. */
export type CallLane = FunctionRecord | "unknown";

/**
 * The lanes of a call: one, but for a `multicall`, which has those of the calls inside.
 *
 * @example
 * lanesOf(call, { contracts }); // [{ lane: "grant", by: "governor" }]
 */
export function lanesOf(call: Call, context: DecodeContext): readonly CallLane[] {
  const recognised = recogniseCall(call, context);
  if (recognised === undefined || !recognised.certain) return ["unknown"];
  const { contract, name, values } = recognised;
  // a Safe that changes itself, or carries a MultiSend of its own: no call of these contracts
  if (contract === "safe" || contract === "multiSend") return ["unknown"];
  if (name === "multicall") {
    return [...values[0]].flatMap((data) => lanesOf({ to: call.to, value: 0n, data: hex(String(data)) }, context));
  }
  return [functionRecord(contract, name) ?? "unknown"];
}

/** What an operation's addresses are known to be. */
export function contextOf(operation: Operation): DecodeContext {
  const { contracts, timelock, safe, cancellers, rollback } = operation;
  return {
    contracts,
    timelocks: [timelock, rollback?.timelock].flatMap((terms) => (terms ? [terms.address] : [])),
    safes: [safe, ...cancellers, ...(rollback === null ? [] : [rollback.safe])].map(({ address }) => address),
  };
}

/** Whether an operation or its rollback replaces a proxy's code. */
export const replacesCode = (operation: Operation): boolean =>
  [...operation.calls, ...(operation.rollback?.calls ?? [])].some(
    (call) => recogniseCall(call, contextOf(operation))?.name.startsWith("upgradeTo") === true,
  );

/**
 * Checks that an operation makes sense in itself: its salt follows from its content, each call goes the way that its lane prescribes, no function
 * is paid that takes nothing, its rollback comes after it.
 *
 * @returns every difference; none if all is well
 * @example
 * checkOperation(operation).map(({ field }) => field); // ["timelock.salt"]
 */
export function checkOperation(operation: Operation): readonly Difference[] {
  const { rollback, timelock } = operation;
  const context = contextOf(operation);
  const differences = [
    ...checkDismissal(operation),
    ...checkSalt(operation, operation.calls, timelock, operation.id, "timelock"),
    ...operation.calls.flatMap((call, i) =>
      checkRoute(call, timelock, operation.lane, `calls[${i}]`, context, operation.contracts.timelock),
    ),
  ];
  if (rollback !== null) {
    differences.push(
      ...checkSalt(operation, rollback.calls, rollback.timelock, rollbackId(operation.id), "rollback.timelock"),
      ...rollback.calls.flatMap((call, i) =>
        checkRoute(call, rollback.timelock, undefined, `rollback.calls[${i}]`, context, operation.contracts.timelock),
      ),
    );
    if (
      timelock !== null &&
      rollback.timelock !== null &&
      differences.every(({ field }) => field !== "timelock.salt")
    ) {
      const { operationId } = timelockSide(operation, timelock, operation.id);
      if (rollback.timelock.predecessor !== operationId) {
        differences.push({
          field: "rollback.timelock.predecessor",
          code: "operation/rollback-not-after",
          message: `the rollback must wait for the operation itself, ${operationId}`,
        });
      }
    }
  }
  for (const [i, { call }] of operation.measurements.entries()) {
    if (call >= operation.calls.length) {
      differences.push({
        field: `measurements[${i}].call`,
        code: "operation/measurement-without-call",
        message: `there is no call ${call}`,
      });
    }
  }
  return differences;
}

/** Nobody may be told that the guardian can stop what it cannot. */
function checkDismissal({ calls, cancellers, timelock, contracts }: Operation): readonly Difference[] {
  if (timelock?.address !== contracts.timelock || cancellers.length === 0) return [];
  const dismissal = dismissalOf(calls, timelock.predecessor, timelock.address);
  if (dismissal === undefined) return [];
  const message = `it dismisses ${dismissal.outgoing}: nobody but a proposer can cancel it`;
  return [{ field: "cancellers", code: "operation/dismissal-cancellers", message }];
}

function checkSalt(
  operation: Operation,
  calls: readonly Call[],
  terms: TimelockTerms | null,
  id: string,
  field: string,
): readonly Difference[] {
  if (terms === null) return [];
  const { salt } = timelockSide({ chainId: operation.chainId, calls }, terms, id);
  if (salt === terms.salt) return [];
  return [
    {
      field: `${field}.salt`,
      code: "operation/wrong-salt",
      message: `the salt is ${terms.salt}, but id and content give ${salt}: one of them was changed`,
    },
  ];
}

function checkRoute(
  call: Call,
  terms: TimelockTerms | null,
  lane: Lane | undefined,
  field: string,
  context: DecodeContext,
  governor: string,
): readonly Difference[] {
  const differences: Difference[] = [];
  const add = (code: string, message: string) => differences.push({ field, code, message });
  const recognised = recogniseCall(call, context);
  const name = recognised?.name ?? "an unknown call";
  if (call.value > 0n && recognised?.certain && !recognised.payable) {
    add("operation/value-to-nonpayable", `${name} takes no ether: it would revert`);
  }
  for (const rule of lanesOf(call, context)) {
    if (rule === "unknown") {
      if (lane !== undefined && lane !== "admin") {
        add("operation/crossed-lane", `${name} is in the admin lane, this operation in the ${lane} lane`);
      }
      continue;
    }
    if (lane !== undefined && rule.lane !== lane) {
      add("operation/crossed-lane", `${name} is in the ${rule.lane} lane, this operation in the ${lane} lane`);
    }
    if (rule.by === "nobody") add("operation/not-for-proposals", `${name} is made by no proposal`);
    if (rule.by === "guardian" && terms !== null) {
      add("operation/crossed-lane", `${name} tightens: it works at once from a Safe and must not wait in a timelock`);
    }
    if (rule.by === "governor" && terms?.address !== governor) {
      add("operation/crossed-lane", `${name} is the governor's: it must go through the timelock ${governor}`);
    }
    if (rule.by === "timelock" && terms?.address !== call.to) {
      add(
        "operation/crossed-lane",
        `${name} of a timelock is made by that timelock itself: it must be scheduled there`,
      );
    }
  }
  return differences;
}

/**
 * Throws what {@link checkOperation} finds first.
 *
 * @throws KeysteadError with the difference's code; `details.differences` has all of them
 * @example
 * requireSound(operation);
 */
export function requireSound(operation: Operation): void {
  const differences = checkOperation(operation);
  const [first] = differences;
  if (first === undefined) return;
  throw new KeysteadError(first.code, `${first.field}: ${first.message}`, {
    argument: first.field,
    remedy: "Propose loosening through the timelock, tightening as a direct Safe transaction, one lane an operation.",
    details: { differences },
  });
}

/** An error as a difference of a field, so that a folder that can't even be read is a mismatch and not silence. */
export function differenceOf(error: unknown, field: string): Difference {
  if (!isKeysteadError(error)) throw error;
  return { field, code: error.code, message: error.message };
}
