import { parse as parseYaml } from "yaml";
import { z } from "zod";
import { decodeUtf8 } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { parseJson } from "../core/json.ts";
import type { Acknowledgement } from "./conditions.ts";
import { type Definition, definitionSchema, type Inputs, inputsSchema } from "./inputs.ts";
import type { LeftOut, Step } from "./step.ts";
import { deriveSteps } from "./steps.ts";

/** The `format` of a plan file. */
export const ROLLOUT_FORMAT = "keystead.rollout/1";

/** A plan file. Steps are derived from the inputs, and compared with what the file holds whenever it is read. */
export interface Plan {
  readonly inputs: Inputs;
  readonly steps: readonly Step[];
  readonly leftOut: readonly LeftOut[];
  readonly acknowledgements: readonly Acknowledgement[];
}

const fileSchema = z.strictObject({
  format: z.literal(ROLLOUT_FORMAT),
  inputs: inputsSchema,
  steps: z.array(z.unknown()),
  leftOut: z.array(z.unknown()),
  acknowledgements: z
    .array(
      z.strictObject({
        item: z.string().regex(/^[a-z0-9-]{1,80}$/),
        by: z.string().regex(/^[^\p{Cc}\p{Cf}\u2028\u2029]{1,200}$/u),
        at: z.int().min(0),
        note: z.string().regex(/^[^\p{Cc}\p{Cf}\u2028\u2029]{0,500}$/u),
      }),
    )
    .max(500),
});

/** Items that can be acknowledged are lower-case words with hyphens. */
const ITEM = /^[a-z0-9-]{1,80}$/;

/**
 * Makes a plan of its inputs.
 *
 * @throws KeysteadError `rollout/malformed` {field}, those of `deriveSteps`
 * @example
 * writeFileSync("rollout.json", formatPlan(buildPlan(inputs)));
 */
export function buildPlan(given: Inputs, acknowledgements: readonly Acknowledgement[] = []): Plan {
  // checked, and in the order of fields that files have
  const inputs = checked(inputsSchema, given, "plan");
  return { inputs, ...deriveSteps(inputs), acknowledgements };
}

/**
 * Reads a plan file strictly: no field unknown or missing, and its steps exactly those that follow from its inputs. A step that was edited by hand
 * is refused, for nobody would notice it.
 *
 * @throws KeysteadError `rollout/malformed` {field}, `rollout/steps-differ` {steps}, those of `parseJson` and `deriveSteps`
 * @example
 * const plan = parsePlan(readFileSync("rollout.json", "utf8"));
 */
export function parsePlan(text: string): Plan {
  const file = checked(fileSchema, parseJson(text, "plan"), "plan");
  const plan = buildPlan(file.inputs, file.acknowledgements);
  const differ = differences(file.steps, plan.steps).concat(differences(file.leftOut, plan.leftOut));
  if (differ.length === 0) return plan;
  throw new KeysteadError(
    "rollout/steps-differ",
    `steps of the plan are not those that follow from its inputs: ${differ.join(", ")}`,
    {
      argument: "plan",
      remedy: "Restore the file from where it was reviewed; or make the plan again with this version of keystead.",
      details: { steps: differ },
    },
  );
}

/** Ids of entries that are not equal, by the text that they are written as. */
function differences(found: readonly unknown[], derived: readonly { readonly id: string }[]): readonly string[] {
  const extra = found.length > derived.length ? [`${found.length - derived.length} too many`] : [];
  return derived
    .flatMap((entry, i) => (JSON.stringify(found[i]) === JSON.stringify(entry) ? [] : [entry.id]))
    .concat(extra);
}

/**
 * The text that {@link parsePlan} reads back, always the same for the same plan.
 *
 * @example
 * writeFileSync("rollout.json", formatPlan(plan));
 */
export function formatPlan({ inputs, steps, leftOut, acknowledgements }: Plan): string {
  return `${JSON.stringify({ format: ROLLOUT_FORMAT, inputs, steps, leftOut, acknowledgements }, null, 2)}\n`;
}

/**
 * Reads what a person wrote: YAML 1.2 or JSON.
 *
 * @throws KeysteadError `rollout/malformed` {field}, `text/not-utf8`
 * @example
 * const definition = parseDefinition(readFileSync("rollout.yaml"));
 */
export function parseDefinition(bytes: Uint8Array): Definition {
  let value: unknown;
  try {
    value = parseYaml(decodeUtf8(bytes, "definition"), { maxAliasCount: 0, uniqueKeys: true, strict: true });
  } catch (cause) {
    if (cause instanceof KeysteadError) throw cause;
    throw new KeysteadError(
      "rollout/malformed",
      `the definition is no YAML: ${cause instanceof Error ? cause.message : cause}`,
      {
        argument: "definition",
        remedy: "Write it as docs/operations/coordinated-upgrade.md shows, without anchors and aliases.",
        details: { field: "definition" },
        cause,
      },
    );
  }
  return checked(definitionSchema, value, "definition");
}

function checked<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const field = issue === undefined || issue.path.length === 0 ? what : issue.path.join(".");
  throw new KeysteadError("rollout/malformed", `the ${what}'s ${field}: ${issue?.message ?? "is not as it must be"}`, {
    argument: what,
    remedy:
      what === "plan"
        ? "Restore the file from where it was reviewed."
        : "Write it as docs/operations/coordinated-upgrade.md shows.",
    details: { field },
  });
}

/**
 * Adds a statement to a plan: who says so, and when. The same item by the same person is said once.
 *
 * @throws KeysteadError `rollout/unknown-item` {known}, `rollout/no-name`
 * @example
 * const said = acknowledge(plan, { item: "stakeholders-told", by: "Ada", at: 1764000000, note: "mail of 3 June" });
 */
export function acknowledge(plan: Plan, said: Acknowledgement): Plan {
  const known = acknowledgeable(plan);
  if (!ITEM.test(said.item) || !known.includes(said.item)) {
    throw new KeysteadError(
      "rollout/unknown-item",
      `there is nothing to acknowledge under ${JSON.stringify(said.item)}`,
      {
        argument: "item",
        remedy: `Give one of ${known.join(", ")}.`,
        details: { known },
      },
    );
  }
  if (!/^[^\p{Cc}\p{Cf}\u2028\u2029]{1,200}$/u.test(said.by) || said.by.trim() === "") {
    throw new KeysteadError("rollout/no-name", "an acknowledgement needs the name of who gives it", {
      argument: "by",
      remedy: "Give a name of one line, up to 200 characters.",
    });
  }
  if (plan.acknowledgements.some(({ item, by }) => item === said.item && by === said.by)) return plan;
  return { ...plan, acknowledgements: [...plan.acknowledgements, said] };
}

/**
 * Everything that someone can acknowledge in a plan: what no program can check, and what a program could not reach.
 *
 * @example
 * acknowledgeable(plan); // ["changelog-reviewed", …, "traffic-switched"]
 */
export function acknowledgeable(plan: Plan): readonly string[] {
  const fromSteps = plan.steps.flatMap(({ check, preconditions }) =>
    [...check, ...preconditions].flatMap((condition) => (condition.is === "acknowledged" ? [condition.item] : [])),
  );
  const stopped = plan.inputs.machines.filter(({ updates }) => updates === null).map(({ name }) => `stopped-${name}`);
  const proxies = plan.inputs.nodes
    .filter(({ vsockProxy }) => vsockProxy !== null)
    .map(({ name }) => `vsock-proxy-${name}`);
  const joined = plan.steps
    .filter(({ check }) => check.some(({ is }) => is === "node-joined"))
    .flatMap(({ id }) => [id.replace("node-", "node-image-"), id.replace("node-", "node-back-")]);
  return [...new Set([...fromSteps, ...stopped, ...proxies, ...joined])];
}
