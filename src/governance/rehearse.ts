import type { Client } from "../chain/client.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Part } from "./life.ts";
import type { Operation } from "./operation.ts";
import { type SimulateOptions, type Simulation, simulateProposal } from "./simulate.ts";
import type { StepName } from "./transactions.ts";

/**
 * Plays what is left of a proposal before one of its steps is sent, and refuses to go on unless all is as signed for. Fits `Acting.rehearse`.
 *
 * @param options.accept names of warnings that somebody who knows better accepts
 * @throws KeysteadError `simulate/drifted` {moved}, `simulate/differs` {differences}, `simulate/not-explained` {warnings}; as {@link simulateProposal}
 * @example
 * await requireRehearsal(client, operation, "schedule", { block });
 */
export async function requireRehearsal(
  client: Client,
  operation: Operation,
  step: StepName,
  options: SimulateOptions & { readonly accept?: readonly string[] | undefined } = {},
): Promise<Simulation | undefined> {
  // a cancellation changes nothing but the timelock's own entry: it must never wait for a simulation
  if (step === "cancel") return undefined;
  const part: Part = step === "rollback" || step === "rollback-execute" ? "rollback" : "operation";
  // whoever takes the way back has made sure that there is something to undo
  const simulation = await simulateProposal(client, operation, { ...options, part, executed: true });
  const { accept = [], acceptDrift = [] } = options;
  const drifted = simulation.drift.moved.filter(({ name }) => !acceptDrift.includes(name));
  if (drifted.length > 0) {
    const moved = drifted.map(({ name, was, is }) => `${name} was ${was} and is ${is}`);
    throw new KeysteadError("simulate/drifted", `the state moved since it was proposed: ${moved.join("; ")}`, {
      argument: "operation",
      remedy: `Propose again on the present state. If what moved is meant: --accept-drift ${drifted.map(({ name }) => name).join(",")}`,
      details: { moved: drifted },
    });
  }
  if (!simulation.ok) {
    throw new KeysteadError(
      "simulate/differs",
      `played on a copy of the chain it does not do what it says: ${simulation.differences.map(({ field, message }) => `${field}: ${message}`).join("; ")}`,
      {
        argument: "operation",
        remedy: "Don't execute it: find out what differs, and propose again.",
        details: { differences: simulation.differences },
      },
    );
  }
  const warnings = simulation.warnings.filter(({ code }) => !accept.includes(code));
  if (warnings.length > 0) {
    const named = warnings.map(({ message, code }) => `${message} (${code})`);
    throw new KeysteadError("simulate/not-explained", `it could not be judged whole: ${named.join("; ")}`, {
      argument: "operation",
      remedy: `Find out what it is. If it is meant: --accept ${[...new Set(warnings.map(({ code }) => code))].join(",")}`,
      details: { warnings },
    });
  }
  return simulation;
}
