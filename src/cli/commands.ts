import type { CommandModule } from "./command.ts";

/** A top-level command, not loaded yet: a list of commands shows its summary, and loads none of them. */
export interface CommandEntry {
  /** One line for `keystead --help`. */
  readonly summary: string;
  readonly load: () => Promise<{ readonly command: CommandModule }>;
}

/** Every command, by its word on the command line. */
export const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  agent: {
    summary: "get a service's keys inside a confidential VM, and hand them over",
    load: () => import("./commands/agent.ts"),
  },
  audit: {
    summary: "verify the history of services and policy, and watch it",
    load: () => import("./commands/audit/index.ts"),
  },
  cancel: { summary: "cancel a proposal that waits in the timelock", load: () => import("./commands/cancel.ts") },
  decode: {
    summary: "say in plain words what calldata or a Safe batch file does",
    load: () => import("./commands/decode.ts"),
  },
  execute: {
    summary: "take a proposal's next step on the chain: schedule it, or execute it once its delay is over",
    load: () => import("./commands/execute.ts"),
  },
  explore: {
    summary: "serve the web explorer on this machine: histories verified in the browser",
    load: () => import("./commands/explore.ts"),
  },
  image: {
    summary: "decode images, check them, and look them up on a chain",
    load: () => import("./commands/image/index.ts"),
  },
  lint: {
    summary:
      "look for every known misconfiguration of a deployment: roles, keys in offices, delays, code, Safes, lanes",
    load: () => import("./commands/lint.ts"),
  },
  measure: {
    summary: "turn evidence and sources into canonical images, with provenance",
    load: () => import("./commands/measure/index.ts"),
  },
  node: { summary: "deliver keys to attested machines", load: () => import("./commands/node.ts") },
  preview: {
    summary: "play all pending proposals on one copy of the chain, one on top of the other",
    load: () => import("./commands/preview.ts"),
  },
  propose: {
    summary: "write a proposal: Safe batches, hashes, expected state and a report, from one operation",
    load: () => import("./commands/propose/index.ts"),
  },
  report: {
    summary: "show what a proposal does: one screen, a page for a browser, or a pull request's comment",
    load: () => import("./commands/report.ts"),
  },
  rollback: {
    summary: "undo a proposal that was executed: its way back, step by step as execute does",
    load: () => import("./commands/rollback.ts"),
  },
  rollout: {
    summary: "plan a coordinated upgrade, see where it stands, what is next, and the way back",
    load: () => import("./commands/rollout/index.ts"),
  },
  "safe-service": {
    summary: "put a step into Safe's Transaction Service, and collect the confirmations that it has",
    load: () => import("./commands/safe-service.ts"),
  },
  secrets: {
    summary: "seal environment variables and registry credentials to a service's machines",
    load: () => import("./commands/secrets/index.ts"),
  },
  service: {
    summary: "create and govern a service from an account of one's own; prints the call unless told to send it",
    load: () => import("./commands/service.ts"),
  },
  sign: {
    summary: "sign one step of a proposal, or take a signature that was made elsewhere",
    load: () => import("./commands/sign.ts"),
  },
  simulate: {
    summary: "play a proposal on a private copy of the chain and compare every change with what it says",
    load: () => import("./commands/simulate.ts"),
  },
  status: {
    summary: "join the chain and the proposals: where each stands, who signed, and what nobody proposed",
    load: () => import("./commands/status.ts"),
  },
  verify: {
    summary:
      "derive a proposal's folder again from its operation and compare every byte; with --rpc, the chain as well",
    load: () => import("./commands/verify.ts"),
  },
  "vm-updates": {
    summary: "serve what may run on this machine: /vm_updates",
    load: () => import("./commands/vm-updates.ts"),
  },
};
