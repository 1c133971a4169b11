import { type Command, Option } from "commander";
import { parseSystemInfo } from "../../audit/system-info.ts";
import { createVmUpdatesApp, VM_UPDATES_PATHS, VM_UPDATES_PORT } from "../../audit/vm-updates-app.ts";
import { auditService, parseAddress } from "../../audit/walk.ts";
import type { BlockTag } from "../../chain/block.ts";
import type { Hex } from "../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../core/errors.ts";
import {
  CHAIN_OPTIONS,
  type ChainInput,
  type OptionValues,
  openChain,
  requireRegistry,
  wholeNumber,
} from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import type { Io } from "../io.ts";
import { type Serving, serveApp, untilStopped } from "../serve.ts";

const FILE_LIMIT = 1024 * 1024;

function register(command: Command, { io, output, action }: CommandContext): void {
  command
    .description(
      "Serves what may run on this machine, past and future: JSON at /vm_updates for clients of SecretVM's server, a page at /vm_updates.html.\nEnds on SIGINT or SIGTERM.",
    )
    .option("--service <id>", "the machine's service")
    .option("--system-info <file>", "the machine's system_info.json, secret-vm.json or .instance_info, which names it")
    .option("--host <address>", "where to listen", "127.0.0.1")
    .option("--port <n>", "0: any free one", String(VM_UPDATES_PORT))
    .option("--tls-cert <file>", "PEM: certificate and chain; with --tls-key")
    .option("--tls-key <file>", "PEM: its private key")
    .addOption(
      new Option("--at <block>", "the block to read at").choices(["latest", "safe", "finalized"]).default("finalized"),
    );
  for (const { flags, description } of CHAIN_OPTIONS.filter(({ flags }) => !flags.startsWith("--accept-unproven")))
    command.option(flags, description);
  command.action(
    action(async () => {
      const out = output();
      const { serving, serviceId } = await startVmUpdates(io, command.opts());
      const document = { url: serving.url, serviceId: serviceId ?? null, paths: VM_UPDATES_PATHS };
      out.result(document, () => `Serving ${serving.url}${VM_UPDATES_PATHS[0]} and ${VM_UPDATES_PATHS[0]}.html`);
      await untilStopped();
      await serving.close();
      return 0;
    }),
  );
}

/** `keystead vm-updates`. */
export const command: CommandModule = { register };

async function startVmUpdates(
  io: Io,
  options: OptionValues,
): Promise<{ readonly serving: Serving; readonly serviceId: Hex | undefined }> {
  const serviceId = await findService(io, options);
  const tls = await readTls(io, options);
  const port = wholeNumber(options, "port") ?? VM_UPDATES_PORT;
  if (port > 65_535) throw usage("number", `${port} is no port`, "port", "Give a number from 0 to 65535.");
  const app = createVmUpdatesApp(serviceId === undefined ? { serviceId, read: noService } : await readerOf(serviceId));
  return { serving: await serveApp(app, { host: String(options.host), port, tls }), serviceId };

  async function readerOf(id: Hex) {
    let chain: ChainInput | undefined;
    const open = async () => {
      chain ??= await openChain(io, options);
      return chain;
    };
    const read = async () => {
      const input = await open();
      const { client, witnesses, fromBlock } = input;
      return auditService(client, requireRegistry(input), id, { at: options.at as BlockTag, witnesses, fromBlock });
    };
    try {
      requireRegistry(await open());
    } catch (error) {
      // A machine may boot before its network: then it says that nothing is verified, until the chain answers.
      if (!isKeysteadError(error) || !error.retryable) throw error;
    }
    return { serviceId: id, read, maxAge: wholeNumber(options, "maxAge") };
  }
}

function noService(): never {
  throw new Error("a machine without a service has nothing to read");
}

/** The service that the options name; undefined where the machine says that it has none. */
async function findService(io: Io, options: OptionValues): Promise<Hex | undefined> {
  const named = typeof options.service === "string" ? parseAddress(options.service, "service") : undefined;
  if (typeof options.systemInfo !== "string") {
    if (named !== undefined) return named;
    const remedy = "Add --service ID, or --system-info FILE.";
    throw usage("service", "which service the machine belongs to is not said", "service", remedy);
  }
  const file = await io.readFile(options.systemInfo, { limit: FILE_LIMIT, argument: "system-info" });
  const told = parseSystemInfo(file.bytes);
  if (named === undefined || named === told) return told;
  const remedy = "Leave one of the two out: they must name one service.";
  throw usage("two-sources", `--service and the file name two services`, "system-info", remedy);
}

async function readTls(io: Io, { tlsCert, tlsKey }: OptionValues) {
  if (tlsCert === undefined && tlsKey === undefined) return undefined;
  if (typeof tlsCert !== "string" || typeof tlsKey !== "string") {
    throw usage("tls", "TLS needs both files", "tls-cert", "Add --tls-cert FILE and --tls-key FILE.");
  }
  const cert = await io.readFile(tlsCert, { limit: FILE_LIMIT, argument: "tls-cert" });
  const key = await io.readFile(tlsKey, { limit: FILE_LIMIT, argument: "tls-key" });
  return { cert: cert.bytes, key: key.bytes };
}

function usage(code: string, message: string, argument: string, remedy: string): KeysteadError {
  return new KeysteadError(`usage/${code}`, message, { argument, remedy });
}
