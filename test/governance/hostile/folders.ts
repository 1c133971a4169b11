import { CONTRADICTIONS } from "./contradictions.ts";
import type { HostileFolder } from "./kinds.ts";
import { MEASUREMENTS } from "./measurements.ts";
import { ROLLBACKS } from "./rollbacks.ts";
import { LOOKALIKES, STALLS } from "./stalls.ts";
import { TAKEOVERS } from "./takeovers.ts";

/** Folders that do harm and contradict themselves nowhere, or nearly so; and what every command says of each. */
export const HOSTILE: readonly HostileFolder[] = [
  ...ROLLBACKS,
  ...TAKEOVERS,
  ...LOOKALIKES,
  ...STALLS,
  ...MEASUREMENTS,
  ...CONTRADICTIONS,
];
