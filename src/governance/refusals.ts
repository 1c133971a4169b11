import type { Block } from "../chain/block.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { formatDuration, formatTime } from "./words.ts";

/** What an operation is called in a message. */
interface Named {
  readonly name: string;
}

/** It cannot be executed before it is scheduled. */
export const notScheduled = ({ name }: Named) =>
  new KeysteadError("execute/not-scheduled", `${name} is not scheduled, so it cannot be executed`, {
    argument: "step",
    remedy: "Schedule it first: leave --step out, or give schedule.",
  });

/** When an operation expired, in words. */
export const whenExpired = ({ name }: Named, at: bigint): string => `${name} expired on ${formatTime(at)}`;

/** It was ready for the whole grace period. */
export const expired = ({ name }: Named, expiresAt: bigint) =>
  new KeysteadError("execute/expired", `${whenExpired({ name }, expiresAt)}: it can no longer be executed`, {
    argument: "operation",
    remedy: "If it is still wanted, schedule it again, with new signatures: keystead sign --step schedule --nonce N.",
    details: { expiresAt },
  });

/** Its delay is not over. */
export const notReady = ({ name }: Named, readyAt: bigint, block: Block) =>
  new KeysteadError(
    "execute/not-ready",
    `the delay of ${name} is not over: ready at ${formatTime(readyAt)}, in ${formatDuration(readyAt - BigInt(block.timestamp))}`,
    {
      argument: "operation",
      remedy: "Run the same command after that time.",
      retryable: true,
      details: { readyAt, now: BigInt(block.timestamp) },
    },
  );

/** Whether an error says that something is wrong, and not merely that it could not be done or seen now. */
export const isRefusal = (error: unknown): error is KeysteadError => isKeysteadError(error) && REFUSALS.has(error.code);

const REFUSALS: ReadonlySet<string> = new Set([
  ...[
    "execute/effects-differ",
    "execute/was-cancelled",
    "simulate/drifted",
    "simulate/differs",
    "sign/not-its-own",
    "simulate/other-hash",
    "safe/hashes-differ",
  ],
  ...["safe/bad-signatures", "safe/would-fail", "sign/hashes-differ", "sign/not-an-owner", "sign/other-signer"],
  ...["proposal/not-verified", "proposal/unsafe", "safe-service/other-transaction"],
]);
