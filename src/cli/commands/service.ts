import type { Command } from "commander";
import { fetchBlock } from "../../chain/block.ts";
import { type Client, connect } from "../../chain/client.ts";
import { readService } from "../../chain/reads.ts";
import { fromHex, type Hex, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { computeServiceId } from "../../core/service-id.ts";
import { decodeCall, renderCalls } from "../../governance/decode.ts";
import { makeCall, tryCall } from "../../governance/direct.ts";
import { buildIntent, INTENTS } from "../../governance/intents.ts";
import { parseAddress, parseParameter } from "../../governance/parameters.ts";
import { type OptionValues, RPC_VARIABLE } from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import { keyOptions, readKey } from "../key-input.ts";
import { type ExitCode, renderTable, safeText } from "../output.ts";
import { progressOf } from "../proposal-input.ts";
import { callsJson, deploymentContext, judgeCalls, readDeploymentFile } from "./decode.ts";

/** Where the key of the account that makes the call is taken from. */
const SENDER_VARIABLE = "KEYSTEAD_SENDER_KEY";

/** Commands of a service's developer, and the intent that each is: the same calls that a Safe proposes. */
const COMMANDS: Readonly<Record<string, string>> = {
  create: "create-service",
  "create-sealed": "create-sealed",
  "add-image": "add-image",
  "remove-image": "remove-image",
  "remove-images": "remove-images",
  "retire-image": "retire-image",
  rotate: "rotate-key",
  "publish-secrets": "publish-secrets",
  "withdraw-secrets": "withdraw-secrets",
  "extend-notice": "extend-notice",
  "set-guardian": "set-service-guardian",
  "set-device": "set-device",
  "restrict-devices": "restrict-service-devices",
  "set-tcb-rule": "set-tcb-rule",
  "transfer-admin": "transfer-admin",
  "accept-admin": "accept-admin",
  "renounce-admin": "renounce-admin",
};

const camel = (name: string): string => name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());

async function endpoint(context: CommandContext, options: OptionValues, chainId: bigint): Promise<Client | undefined> {
  const rpc = typeof options.rpc === "string" ? options.rpc : context.io.env[RPC_VARIABLE];
  return rpc === undefined || rpc === "" ? undefined : connect(rpc, { chainId: Number(chainId) });
}

const noEndpoint = () =>
  new KeysteadError("usage/no-endpoint", "no endpoint to ask", {
    argument: "rpc",
    remedy: `Add --rpc URL, or set ${RPC_VARIABLE}.`,
  });

const lower = (address: string): Hex => toHex(fromHex(address, "address"));

async function act(context: CommandContext, intent: string, options: OptionValues): Promise<ExitCode> {
  const { io } = context;
  const output = context.output();
  const deployment = await readDeploymentFile(io, String(options.deployment));
  const known = deploymentContext(deployment);
  if (known.contracts === undefined) throw new Error("a deployment's record names its contracts");
  const given = (INTENTS[intent]?.parameters ?? []).flatMap(({ name }): [string, string][] => {
    const value = options[camel(name)];
    return typeof value === "string" ? [[name, value]] : [];
  });
  const { call } = buildIntent({ intent, arguments: Object.fromEntries(given) }, known.contracts);
  const decoded = [decodeCall(call, known)];
  const client = await endpoint(context, options, deployment.chainId);
  const send = options.send === true;
  if (send && client === undefined) throw noEndpoint();
  const key = send ? await readKey(io, options, SENDER_VARIABLE) : undefined;
  const from = key?.address ?? (typeof options.from === "string" ? parseAddress(options.from, "from") : undefined);
  const service =
    intent.startsWith("create-") && from !== undefined
      ? computeServiceId(
          { chainId: deployment.chainId, registry: lower(known.contracts.registry) },
          lower(from),
          toHex(fromHex(String(options.salt ?? `0x${"00".repeat(32)}`), "salt")),
        )
      : null;
  const judged = judgeCalls(decoded);
  if (send && judged !== 0) {
    throw new KeysteadError("service/unsafe", renderCalls(decoded).join("; "), {
      argument: "call",
      remedy: "Read the warnings: it would fail, or do something else than it seems.",
    });
  }
  const tried = client !== undefined && from !== undefined;
  if (tried && !send) await tryCall(client, await fetchBlock(client, "latest"), from, call);
  const done =
    client === undefined || key === undefined
      ? undefined
      : await makeCall(client, key, call, known, progressOf(io, output));
  output.result(
    {
      format: "keystead.service-call/1",
      ...{ to: call.to, value: call.value.toString(), data: call.data, calls: callsJson(decoded), service },
      ...{ from: from ?? null, tried, sent: done === undefined ? null : done.receipt.transactionHash },
      block: done?.receipt.block ?? null,
      effects: done?.effects ?? [],
    },
    () =>
      [
        ...renderCalls(decoded),
        ...(service === null ? [] : [`service ${service}`]),
        ...(done === undefined
          ? [
              `to   ${call.to}`,
              `data ${call.data}`,
              tried ? `From ${from} the contract would take it now.` : "Not tried: name --rpc and --from.",
              "Nothing was sent: add --send to send it.",
            ]
          : [
              `Done in ${done.receipt.transactionHash}, block ${done.receipt.block}; ${done.effects.length} effects hold.`,
            ]),
      ]
        .map((line) => safeText(line))
        .join("\n"),
  );
  return judged;
}

async function show(context: CommandContext, service: string, options: OptionValues): Promise<ExitCode> {
  const deployment = await readDeploymentFile(context.io, String(options.deployment));
  const client = await endpoint(context, options, deployment.chainId);
  if (client === undefined) throw noEndpoint();
  const id = lower(String(parseParameter("service", service, "service")));
  const block = await fetchBlock(client, "latest");
  const view = await readService(client, lower(deployment.contracts.registry.address), block, id);
  context
    .output()
    .result({ format: "keystead.service/1", service: id, block: block.number, proven: false, view }, () =>
      [
        renderTable([["service", id], ...Object.entries(view).map(([name, value]) => [name, String(value)])]),
        "",
        "An endpoint's word: keystead audit proves it.",
      ].join("\n"),
    );
  return view.exists ? 0 : 1;
}

function common(command: Command): Command {
  return command
    .requiredOption("--deployment <file>", "the deployment's record")
    .option("--rpc <url>", `an endpoint of the chain (or ${RPC_VARIABLE} in the environment)`);
}

/** `keystead service …`: a service's developer, without a Safe. */
export const command: CommandModule = {
  register(service, context) {
    for (const [name, intent] of Object.entries(COMMANDS)) {
      const { summary = "", parameters = [] } = INTENTS[intent] ?? {};
      const sub = common(service.command(name).summary(summary).description(`To ${summary}.`))
        .option("--from <address>", "who would make the call, to have it tried")
        .option("--send", `send it, with the key in ${SENDER_VARIABLE}`);
      for (const { flags, description } of keyOptions(SENDER_VARIABLE)) sub.option(flags, description);
      for (const { name: option, help, default: fallback, optional, kind } of parameters) {
        const spelled = `--${option} <${kind.startsWith("image:") ? "image" : kind}>`;
        if (optional || fallback !== undefined) sub.option(spelled, help);
        else sub.requiredOption(spelled, help);
      }
      sub.action(context.action(() => act(context, intent, sub.opts<OptionValues & Record<string, unknown>>())));
    }
    const shown = common(service.command("show").summary("a service as it stands").argument("<service>", "its id"));
    shown.action(
      context.action((id: string) => show(context, id, shown.opts<OptionValues & Record<string, unknown>>())),
    );
  },
};
