import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { decodeUtf8 } from "../../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../../core/errors.ts";
import { parseOperation } from "../../../governance/operation.ts";
import { readProposal } from "../../../governance/folder.ts";
import { simulateProposal } from "../../../governance/simulate.ts";
import { abortActions, nextActions } from "../../../rollout/actions.ts";
import { assess, type Status } from "../../../rollout/assess.ts";
import { checkBackup, makeBackup } from "../../../rollout/backup.ts";
import { faultsOf, plannedMeasurements } from "../../../rollout/claims.ts";
import { acknowledge, buildPlan, formatPlan, parseDefinition, type Plan } from "../../../rollout/plan.ts";
import { exitOf, type PreflightProbes, preflight } from "../../../rollout/preflight.ts";
import { readChain } from "../../../rollout/read-chain.ts";
import { placeOf, resolveInputs } from "../../../rollout/resolve.ts";
import { readVsock } from "../../../rollout/vsock.ts";
import { openChain, type OptionValues, requireNow } from "../../chain-input.ts";
import type { CommandContext, CommandModule } from "../../command.ts";
import type { ExitCode } from "../../output.ts";
import { progressOf } from "../../proposal-input.ts";
import { readDeploymentFile } from "../decode.ts";
import {
  composeFaults,
  hashFileWith,
  measuring,
  type OpenRollout,
  openRollout,
  readPlan,
  ROLLOUT_OPTIONS,
} from "./input.ts";
import { propose } from "./propose.ts";
import { exitOfStatus, renderActions, renderChecks, renderPlan, renderStatus, statusJson } from "./render.ts";
import { verify } from "./verify.ts";

const PLAN = ["<plan>", "the plan file"] as const;

async function makePlan(context: CommandContext, path: string, options: OptionValues & { readonly out: string }) {
  const { io } = context;
  const progress = progressOf(io, context.output());
  const definition = parseDefinition((await io.readFile(path, { argument: "definition" })).bytes);
  const deployment = await readDeploymentFile(io, definition.deployment);
  const input = await openChain(io, { ...options, deployment: definition.deployment });
  await requireNow(input, Date.now() / 1000);
  progress("reading the chain");
  const place = placeOf(deployment, definition.deployment, definition.service);
  const chain = await readChain(input.client, place, input.witnesses);
  progress("measuring old and new");
  const measure = await measuring(io);
  const inputs = await resolveInputs(definition, {
    deployment,
    client: input.client,
    chain,
    measure,
    hashFile: hashFileWith(io),
  });
  const plan = buildPlan(inputs);
  await writeNew(options.out, formatPlan(plan));
  context
    .output()
    .result({ format: "keystead.rollout-plan/1", file: options.out, steps: plan.steps, leftOut: plan.leftOut }, () =>
      [renderPlan(plan, context.output()), "", `Wrote ${options.out}. Next: keystead rollout next ${options.out}`].join(
        "\n",
      ),
    );
  return 0 as const;
}

/** A plan holds statements of people: it is never overwritten by a new one. */
async function writeNew(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text, { flag: "wx" });
  } catch (cause) {
    const exists = cause instanceof Error && "code" in cause && cause.code === "EEXIST";
    throw new KeysteadError(
      exists ? "rollout/exists" : "rollout/not-written",
      `${path} ${exists ? "is there already" : "cannot be written"}`,
      {
        argument: "out",
        remedy: exists ? "Give another --out, or move the old plan away." : "Check the path.",
        cause,
      },
    );
  }
}

async function showStatus(context: CommandContext, file: string, options: OptionValues): Promise<ExitCode> {
  const { plan, facts } = await openRollout(context, file, options);
  const status = assess(plan, facts);
  const output = context.output();
  output.result(statusJson(plan, status), () => renderStatus(plan, status, facts.now, output));
  return exitOfStatus(status);
}

async function showActions(
  context: CommandContext,
  file: string,
  options: OptionValues,
  which: "next" | "abort",
): Promise<ExitCode> {
  const { plan, facts } = await openRollout(context, file, options);
  const status = assess(plan, facts);
  const output = context.output();
  const actions = (which === "next" ? nextActions : abortActions)(plan, status, facts, file);
  const { alarms, standing } = status;
  output.result({ format: `keystead.rollout-${which}/1`, standing, alarms, actions }, () =>
    [
      renderStatus(plan, status, facts.now, output),
      "",
      actions.length > 0 ? renderActions(actions, output) : idleWords(standing, which, file),
    ].join("\n"),
  );
  return exitOfStatus(status);
}

/** Why nothing is offered. */
function idleWords(standing: Status["standing"], which: "next" | "abort", file: string): string {
  if (standing === "rolled-back")
    return "It was taken back: nothing is left to do. To go forward again, make a new plan.";
  if (standing === "going-back" && which === "next") return `It is being taken back: keystead rollout abort ${file}`;
  if (standing === "finished" && which === "next") return "Nothing is left to do.";
  return "Nothing can be done now: see above what is waited for.";
}

const probesOf = (context: CommandContext, { plan, client }: OpenRollout): PreflightProbes => ({
  backup: () => checkBackup(plan.inputs.backup.folder, plan.inputs.backup.files),
  pinning: async () => {
    const { application } = plan.inputs;
    return application === null ? new Map() : composeFaults(context.io, application.new.measuring);
  },
  remeasure: () => remeasure(context, plan),
  rollback: async (id) => {
    if (client === undefined)
      throw new KeysteadError("chain/unreachable", "no endpoint answered", { remedy: "Try again.", retryable: true });
    const files = await readProposal(join(plan.inputs.proposals.folder, id));
    const operation = parseOperation(decodeUtf8(files.get("operation.json") ?? new Uint8Array(0), "operation.json"));
    if (operation.rollback === null) return { ok: false, says: "no way back follows from the operation" };
    const onProgress = progressOf(context.io, context.output());
    const { ok, differences } = await simulateProposal(client, operation, {
      part: "rollback",
      acceptUnproven: true,
      onProgress,
    });
    const named = differences.map(({ field, message }) => `${field}: ${message}`);
    return { ok, says: ok ? `${id} was executed and rolled back on a copy of the chain` : named.join("; ") };
  },
  vsock: () => readVsock(),
});

/** Measures twice everything that is new, and says what is not as the plan has it. */
async function remeasure({ io }: CommandContext, plan: Plan): Promise<readonly string[]> {
  const measure = await measuring(io);
  const faults: string[] = [];
  for (const planned of plannedMeasurements(plan)) {
    const { measuring: how } = planned.measured;
    for (let time = 0; time < 2; time += 1) faults.push(...faultsOf(planned, await measure(how)));
  }
  return [...new Set(faults)];
}

async function check(context: CommandContext, file: string, options: OptionValues): Promise<ExitCode> {
  const rollout = await openRollout(context, file, options);
  const checks = await preflight(rollout.plan, rollout.facts, probesOf(context, rollout));
  const output = context.output();
  output.result({ format: "keystead.rollout-preflight/1", checks }, () => renderChecks(checks, output));
  return exitOf(checks);
}

async function backup(context: CommandContext, file: string): Promise<ExitCode> {
  const { inputs } = await readPlan(context.io, file);
  const { folder, files } = inputs.backup;
  try {
    await makeBackup(folder, files);
  } catch (error) {
    if (!isKeysteadError(error, "backup/exists")) throw error;
  }
  const faults = await checkBackup(folder, files);
  context
    .output()
    .result({ format: "keystead.rollout-backup/1", folder, files: files.length, faults }, () =>
      faults.length === 0
        ? `${folder}: ${files.length} files, restored and compared. It may hold secrets: keep it where they may be kept.`
        : faults.join("\n"),
    );
  return faults.length === 0 ? 0 : 1;
}

async function say(
  context: CommandContext,
  file: string,
  item: string,
  { by, note = "" }: { readonly by: string; readonly note?: string },
): Promise<ExitCode> {
  const plan = acknowledge(await readPlan(context.io, file), { item, by, note, at: Math.floor(Date.now() / 1000) });
  await writeFile(file, formatPlan(plan));
  const said = plan.acknowledgements.filter((one) => one.item === item);
  context
    .output()
    .result({ format: "keystead.rollout-acknowledged/1", item, said }, () =>
      said.map(({ by, at }) => `${item}: ${by}, ${new Date(at * 1000).toISOString()}`).join("\n"),
    );
  return 0;
}

function withOptions(command: Command): Command {
  for (const { flags, description } of ROLLOUT_OPTIONS) command.option(flags, description);
  return command;
}

/** `keystead rollout …`. */
export const command: CommandModule = {
  register(rollout, context) {
    const { action } = context;
    const sub = (name: string, summary: string) => rollout.command(name).summary(summary).description(`${summary}.`);
    const plan = withOptions(sub("plan", "work out the steps of an upgrade from its definition"))
      .argument(
        "<definition>",
        "what is old and what is new, in YAML or JSON: see docs/operations/coordinated-upgrade.md",
      )
      .option("--out <file>", "where the plan is written", "rollout.json");
    plan.action(action((path: string) => makePlan(context, path, plan.opts())));
    const preflightCommand = withOptions(sub("preflight", "run the checklist before an upgrade")).argument(...PLAN);
    preflightCommand.action(action((file: string) => check(context, file, preflightCommand.opts())));
    sub("backup", "copy what the plan names, restore it into a temporary folder and compare")
      .argument(...PLAN)
      .action(action((file: string) => backup(context, file)));
    const said = sub("acknowledge", "state in the plan what no program can check")
      .argument(...PLAN)
      .argument("<item>", "what is stated, e.g. stakeholders-told")
      .requiredOption("--by <name>", "who states it")
      .option("--note <text>", "what it rests on");
    said.action(action((file: string, item: string) => say(context, file, item, said.opts())));
    const status = withOptions(sub("status", "say where a rollout stands and what is waited for")).argument(...PLAN);
    status.action(action((file: string) => showStatus(context, file, status.opts())));
    const next = withOptions(sub("next", "say what can be done next, by whom, and with which commands")).argument(
      ...PLAN,
    );
    next.action(action((file: string) => showActions(context, file, next.opts(), "next")));
    const abort = withOptions(sub("abort", "print the way back from exactly here")).argument(...PLAN);
    abort.action(action((file: string) => showActions(context, file, abort.opts(), "abort")));
    propose(withOptions(sub("propose", "write the proposal that a step consists of")), context);
    verify(withOptions(sub("verify", "prove that keys are delivered, with real requests")), context);
  },
};
