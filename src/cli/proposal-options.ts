import { KeysteadError } from "../core/errors.ts";
import { parseAddress } from "../governance/parameters.ts";
import { STEPS, type StepName } from "../governance/transactions.ts";
import type { OptionValues } from "./chain-input.ts";

/* Options of the commands that look at a proposal, read. Nothing here signs or sends. */

/**
 * The names that an option holds, with commas between them.
 *
 * @example
 * namesIn("danger/ether,start/not-recorded"); // ["danger/ether", "start/not-recorded"]
 */
export const namesIn = (value: unknown): readonly string[] =>
  typeof value === "string"
    ? value
        .split(",")
        .map((name) => name.trim())
        .filter((name) => name !== "")
    : [];

/**
 * A step by its name.
 *
 * @throws KeysteadError `usage/step`
 * @example
 * stepOf("schedule");
 */
export function stepOf(name: unknown): StepName | undefined {
  if (name === undefined) return undefined;
  const step = STEPS.find((known) => known === name);
  if (step !== undefined) return step;
  throw new KeysteadError("usage/step", `${JSON.stringify(name)} is no step`, {
    argument: "step",
    remedy: `Give one of ${STEPS.join(", ")}.`,
  });
}

/** An address option, checked. */
export const addressOption = (options: OptionValues, name: string): string | undefined => {
  const value = options[name];
  return typeof value === "string" ? parseAddress(value, name) : undefined;
};
