import type { Client } from "../chain/client.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Part } from "./life.ts";
import type { Operation } from "./operation.ts";
import { type SimulateOptions, type Simulation, simulateProposal } from "./simulate.ts";
import type { StepName } from "./transactions.ts";

/**
 * Plays what is left of a proposal before one of its steps is sent, and refuses to go on unless all is as signed for. Fits `Acting.rehearse`.
 *
 * @throws KeysteadError `simulate/drifted` {moved}, `simulate/not-recorded`, `simulate/differs` {differences}; as {@link simulateProposal}
 * @example
 * await requireRehearsal(client, operation, "schedule", { block });
 */
export async function requireRehearsal(
  client: Client,
  operation: Operation,
  step: StepName,
  options: SimulateOptions & { readonly acceptUnrecorded?: boolean | undefined } = {},
): Promise<Simulation | undefined> {
  // a cancellation changes nothing but the timelock's own entry: it must never wait for a simulation
  if (step === "cancel") return undefined;
  const part: Part = step === "rollback" || step === "rollback-execute" ? "rollback" : "operation";
  // whoever takes the way back has made sure that there is something to undo
  const simulation = await simulateProposal(client, operation, { ...options, part, executed: true });
  if (!simulation.drift.recorded && options.acceptUnrecorded !== true) {
    throw new KeysteadError(
      "simulate/not-recorded",
      "the proposal holds no start state, so nobody can say what moved",
      {
        argument: "operation",
        remedy: "Propose with --rpc; or accept that drift is not judged.",
      },
    );
  }
  if (simulation.drift.moved.length > 0) {
    const moved = simulation.drift.moved.map(({ name, was, is }) => `${name} was ${was} and is ${is}`);
    throw new KeysteadError("simulate/drifted", `the state moved since it was proposed: ${moved.join("; ")}`, {
      argument: "operation",
      remedy: "Propose again on the state that is there now, and have it signed.",
      details: { moved: simulation.drift.moved },
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
  return simulation;
}
