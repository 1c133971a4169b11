import type { IntentInput } from "../governance/intents.ts";
import type { Condition } from "./conditions.ts";

/** In the order in which they come. */
export const PHASES = [
  "staging",
  "contracts",
  "measurements",
  "governance",
  "nodes",
  "machines",
  "delivery",
  "cleanup",
] as const;
export type Phase = (typeof PHASES)[number];

/** A proposal of the platform's governance that a step consists of. */
export interface StepProposal {
  /** `NNN-slug`, the name of its folder. */
  readonly id: string;
  readonly intents: readonly IntentInput[];
  /** The id of the proposal that must be executed before it, on the timelock's own word. */
  readonly after: string | null;
}

/** One step of a rollout. */
export interface Step {
  readonly id: string;
  readonly phase: Phase;
  readonly title: string;
  /** Steps that must be done first. */
  readonly needs: readonly string[];
  /** `none`: this step needs no governance. */
  readonly governance: "none" | "timelock" | "guardian" | "service-admin";
  readonly who: string;
  /** What must be so, read live, before anyone acts. */
  readonly preconditions: readonly Condition[];
  readonly proposal: StepProposal | null;
  /** What to run or to do, in order. */
  readonly commands: readonly string[];
  readonly duration: string;
  readonly downtime: string;
  /** What shows that it worked. */
  readonly check: readonly Condition[];
  /** The way back from it, in order. */
  readonly rollback: readonly string[];
}

/** A step that this rollout does not need. */
export interface LeftOut {
  readonly id: string;
  readonly reason: string;
}

/** The plan's name in commands: `next` and `abort` put the file's own name there. */
export const PLAN = "<plan>";
/** The next nonces of the Safes, likewise: they are known when someone signs. */
export const GOVERNANCE_NONCE = "GOVERNANCE_NONCE";
export const GUARDIAN_NONCE = "GUARDIAN_NONCE";
/** A proposal's way back begins with one of these: which of them counts depends on where it stands. */
export const WHILE_IT_WAITS = "while it waits: ";
export const ONCE_EXECUTED = "once executed: ";

/**
 * A duration as plans write it.
 *
 * @example
 * days(172_800); // "2 d"
 */
export const days = (seconds: number): string =>
  seconds % 86_400 === 0 && seconds !== 0 ? `${seconds / 86_400} d` : `${Math.round(seconds / 360) / 10} h`;
