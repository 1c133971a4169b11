import { type Command, Option } from "commander";
import { isLocalChain } from "../../../core/chain-id.ts";
import { isKeysteadError, KeysteadError } from "../../../core/errors.ts";
import { assess } from "../../../rollout/assess.ts";
import { deliverAll, judgeDeliveries, testEvidence } from "../../../rollout/deliver.ts";
import type { OptionValues } from "../../chain-input.ts";
import type { CommandContext } from "../../command.ts";
import { type ExitCode, renderTable } from "../../output.ts";
import { progressOf } from "../../proposal-input.ts";
import { openRollout } from "./input.ts";

/** `keystead rollout verify PLAN`. */
export function verify(command: Command, context: CommandContext): void {
  command
    .argument("<plan>", "the plan file")
    .addOption(new Option("--only <version>", "machines of one version alone").choices(["old", "new"]))
    .option("--run-commands", "run the programs that the plan names to get the machines' evidence")
    .option(
      "--allow-test-tee",
      "take answers of nodes that accept test roots, on a development chain: nothing is proven then",
    )
    .addHelpText(
      "after",
      `
Each machine of the plan with an "evidence" command makes evidence for a real request to every node; answers are opened, compared and wiped. The
programs are run as the plan spells them, without a shell: read them first, then give --run-commands. Without it, or without such programs, receipts
that the nodes show must prove that machines of both versions got keys since the plan was made.

Exits 0 where delivery is proven, 1 where a node refuses or gives other keys, 2 where it could not be shown.`,
    )
    .action(context.action((file: string) => prove(context, file, command.opts())));
}

interface VerifyOptions extends OptionValues {
  readonly only?: "old" | "new";
  readonly runCommands?: boolean;
  readonly allowTestTee?: boolean;
}

async function prove(context: CommandContext, file: string, options: VerifyOptions): Promise<ExitCode> {
  const { plan, facts } = await openRollout(context, file, options);
  requireLocal(plan.inputs.deployment.chainId, options);
  const { chain } = facts;
  if (isKeysteadError(chain)) throw chain;
  const output = context.output();
  const programs = plan.inputs.machines.flatMap(({ evidence }) => (evidence === null ? [] : [evidence]));
  if (options.runCommands !== true || programs.length === 0) {
    if (programs.length > 0) {
      const named = programs.map((program) => program.join(" ")).join("; ");
      context.io.warn(`The plan names programs that get evidence: ${named}\nRead them, then add --run-commands.\n`);
    }
    return byReceipts(context, plan, facts, options.only);
  }
  const deployment = plan.inputs.deployment;
  const trust = {
    chainId: BigInt(deployment.chainId),
    registry: `0x${deployment.registry.slice(2).toLowerCase()}` as const,
    signers: async () => chain.receiptSigners,
    allowTestTee: options.allowTestTee === true,
  };
  const log = progressOf(context.io, output);
  const deliveries = await deliverAll(plan.inputs, { trust, only: options.only, log });
  const { verdict, says } = judgeDeliveries(plan.inputs, deliveries, options.only);
  const shown = deliveries.map(({ mark: _, ...rest }) => ({ ...rest, code: rest.code ?? null }));
  const testTee = deliveries.some((one) => one.testTee);
  output.result({ format: "keystead.rollout-delivery/1", verdict, testTee, says, deliveries: shown }, () =>
    [
      renderTable(shown.map(({ node, machine, runs, result, says }) => [result, `${machine} (${runs})`, node, says])),
      "",
      ...says,
    ].join("\n"),
  );
  return verdict === "proven" ? 0 : verdict === "refused" ? 1 : 2;
}

/** Whoever asks for test answers where keys are worth something is told, and not merely refused. */
function requireLocal(chainId: string, { allowTestTee }: VerifyOptions): void {
  if (allowTestTee !== true || isLocalChain(BigInt(chainId))) return;
  throw new KeysteadError("rollout/test-tee-on-public-chain", `chain ${chainId} is no development chain`, {
    argument: "allow-test-tee",
    remedy: "Leave it out: nodes that accept test roots prove nothing, and must not run there.",
  });
}

/** What the nodes' receipts show, where no program can ask. */
function byReceipts(
  context: CommandContext,
  plan: Parameters<typeof assess>[0],
  facts: Parameters<typeof assess>[1],
  only: "old" | "new" | undefined,
): ExitCode {
  const { application } = plan.inputs;
  const wanted =
    only === undefined ? undefined : only === "new" ? application?.new.image.id : application?.old?.image.id;
  const step = assess(plan, facts).steps.find(({ step }) => step.id === "delivery");
  const lines = (step?.check ?? []).filter(
    ({ condition }) => wanted === undefined || (condition.is === "delivered" && condition.image === wanted),
  );
  if (lines.length === 0) {
    throw new KeysteadError("rollout/nothing-to-verify", "the plan names nothing whose delivery could be shown", {
      argument: "plan",
      remedy: "Name nodes and machines in the definition.",
    });
  }
  const proven = lines.every(({ finding }) => finding.holds === "yes");
  const test = [...facts.nodes].flatMap(([name, { testTee }]) => (testTee ? [name] : []));
  const says = [...testEvidence(test), ...lines.map(({ finding }) => finding.says)];
  const verdict = proven ? "proven" : "unknown";
  context
    .output()
    .result({ format: "keystead.rollout-delivery/1", verdict, testTee: test.length > 0, says, deliveries: [] }, () =>
      [proven ? "Receipts show that keys were delivered:" : "Receipts do not show it:", ...says].join("\n"),
    );
  return proven ? 0 : 2;
}
