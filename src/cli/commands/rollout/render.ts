import { isoTime } from "../../../audit/table.ts";
import type { Action } from "../../../rollout/actions.ts";
import { isUnknown } from "../../../rollout/alarms.ts";
import type { Status, StepState } from "../../../rollout/assess.ts";
import type { Plan } from "../../../rollout/plan.ts";
import type { Check } from "../../../rollout/preflight.ts";
import { type ExitCode, type Output, renderTable, safeText } from "../../output.ts";

/**
 * The exit code of a status: 1 where something is wrong, 2 where something could not be read, else 0.
 *
 * @example
 * return exitOfStatus(assess(plan, facts));
 */
export function exitOfStatus({ alarms, standing }: Status): ExitCode {
  if (standing === "failed" || alarms.some((alarm) => !isUnknown(alarm))) return 1;
  return standing === "unknown" || alarms.some(({ code }) => code === "chain-unreadable") ? 2 : 0;
}

const LABEL: Readonly<Record<StepState, string>> = {
  done: "done",
  ready: "READY",
  waiting: "waits",
  blocked: "blocked",
  failed: "FAILED",
  unknown: "unknown",
  undone: "undone",
};

/** A plan's steps, for people. */
export function renderPlan({ inputs, steps, leftOut }: Plan, { colors }: Output): string {
  const rows = steps.map(({ id, title, governance, duration, downtime }) => [
    ...[id, title, governance === "none" ? "no governance" : governance, duration, downtime],
  ]);
  return [
    colors.bold(`Rollout ${inputs.id} of service ${inputs.service.id}`),
    renderTable(rows, ["step", "what", "governance", "takes", "downtime"]),
    leftOut.length === 0 ? "" : `Not needed:\n${renderTable(leftOut.map(({ id, reason }) => [`  ${id}`, reason]))}`,
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

/** Where a rollout stands, for people: what is wrong first. */
export function renderStatus(plan: Plan, status: Status, now: number, { colors }: Output): string {
  const paint: Readonly<Record<StepState, (text: string) => string>> = {
    ...{ done: colors.green, ready: colors.bold, waiting: colors.yellow, blocked: colors.dim },
    ...{ failed: colors.red, unknown: colors.yellow, undone: colors.dim },
  };
  const rows = status.steps.map(({ step, state, says, until }) => [
    ...[LABEL[state], step.id, until === undefined ? "" : `until ${isoTime(until)} (${leftOf(until - now)})`, says],
  ]);
  const lines = renderTable(rows)
    .split("\n")
    .map((line, i) => (status.steps[i] === undefined ? line : paint[status.steps[i].state](line)));
  return [
    status.alarms.map(({ code, says }) => `${colors.red("ALARM")} ${code}: ${safeText(says)}`).join("\n"),
    `${colors.bold(`Rollout ${plan.inputs.id}: ${status.standing}`)}`,
    lines.join("\n"),
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

function leftOf(seconds: number): string {
  if (seconds <= 0) return "now";
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.ceil((seconds % 3600) / 60)];
  return hours >= 48 ? `${Math.round(hours / 24)} d` : hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min`;
}

/** What someone can do, for people. */
export function renderActions(actions: readonly Action[], { colors }: Output): string {
  return actions
    .map(({ title, who, governance, note, commands }, i) => {
      const by = governance === "none" ? who : `${who} (${governance})`;
      const head = `${colors.bold(`${i + 1}. ${safeText(title)}`)}\n   ${safeText(by)}${note === "" ? "" : ` · ${safeText(note)}`}`;
      return `${head}\n${commands.map((command) => `     ${safeText(command)}`).join("\n")}`;
    })
    .join("\n\n");
}

/** A checklist, for people. */
export function renderChecks(checks: readonly Check[], { colors }: Output): string {
  const mark = { ok: colors.green("ok     "), failed: colors.red("FAILED "), unknown: colors.yellow("UNKNOWN") };
  const words = { ...mark, "not-needed": colors.dim("-      ") };
  return checks.map(({ result, title, says }) => `${words[result]} ${title}\n        ${safeText(says)}`).join("\n");
}

/** A status as JSON output carries it. */
export const statusJson = (plan: Plan, { steps, alarms, standing }: Status): object => ({
  format: "keystead.rollout-status/1",
  ...{ id: plan.inputs.id, standing, alarms },
  steps: steps.map(({ step, state, says, until, check, preconditions, operation }) => ({
    ...{ id: step.id, title: step.title, governance: step.governance, who: step.who, state, says },
    ...{ until: until ?? null, operation: operation?.id ?? null, check, preconditions },
  })),
});
