import { once } from "node:events";
import { type Command, Option } from "commander";
import { detectDevice } from "../../agent/devices/detect.ts";
import { type Device, withCertificates } from "../../agent/devices/device.ts";
import { AMD_KDS, withKds } from "../../agent/devices/kds.ts";
import { type Destination, parseDestination } from "../../agent/hand-over.ts";
import { parseNodeUrl } from "../../agent/http.ts";
import type { KeyFormat } from "../../agent/keys.ts";
import { type AgentResult, runAgent } from "../../agent/run.ts";
import { createSystem } from "../../agent/system.ts";
import { type RunningServer, startVmUpdates } from "../../agent/vm-updates.ts";
import { VM_UPDATES_PORT } from "../../audit/vm-updates-app.ts";
import { parseAddress } from "../../audit/walk.ts";
import type { Hex } from "../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../core/errors.ts";
import { PURPOSE_PATTERN } from "../../core/key-bundle.ts";
import { readCertificateFile } from "../certificate-input.ts";
import { type OptionValues, text, wholeNumber } from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import type { Io } from "../io.ts";
import { type ExitCode, type Output, safeText } from "../output.ts";
import { repeatable } from "../repeatable.ts";
import { openTrust, TRUST_OPTIONS } from "../trust-input.ts";

/** Longest wait that makes sense: a notice period has at most 180 days. */
const MAX_WAIT = 180 * 86_400;
const DEFAULT_WAIT = 600;

interface Options extends OptionValues {
  readonly service: string;
  readonly node: readonly string[];
  readonly signer: readonly string[];
  readonly purpose: readonly string[];
  readonly secret: readonly string[];
  readonly commandArg: readonly string[];
}

const usage = (code: string, argument: string, message: string, remedy: string) =>
  new KeysteadError(`usage/${code}`, message, { argument, remedy });

async function openDevice(io: Io, options: Options): Promise<Device> {
  const program = text(options, "command");
  const helper = text(options, "nsmHelper");
  const device = await detectDevice(createSystem(), {
    device: text(options, "device") as "tsm" | "nitro" | "dstack" | "command" | undefined,
    command: program === undefined ? undefined : [program, ...options.commandArg],
    nsmHelper: helper === undefined ? undefined : [helper],
    dstackSocket: text(options, "dstackSocket"),
    privilegeLevel: wholeNumber(options, "privlevel"),
  });
  const [vcek, ask] = [text(options, "vcek"), text(options, "ask")];
  const url = text(options, "kds");
  const fetching =
    url === "none"
      ? device
      : withKds(device, {
          ...{ url, cache: text(options, "kdsCache") },
          log: (line) => io.warn(`${safeText(line)}\n`),
        });
  if (vcek === undefined && ask === undefined) return fetching;
  return withCertificates(vcek === undefined ? fetching : device, {
    ...(vcek === undefined ? {} : { endorsementKey: await readCertificateFile(io, vcek, "vcek") }),
    ...(ask === undefined ? {} : { signer: await readCertificateFile(io, ask, "ask") }),
  });
}

function readPurposes({ purpose }: Options): readonly string[] | undefined {
  const bad = purpose.find((name) => !PURPOSE_PATTERN.test(name));
  if (bad !== undefined)
    throw usage(
      "purpose",
      "purpose",
      `${JSON.stringify(bad)} is no purpose`,
      "Give lower-case letters, digits and hyphens.",
    );
  return purpose.length === 0 ? undefined : purpose;
}

function readImageId(options: Options): Hex | undefined {
  const id = text(options, "image")?.toLowerCase();
  if (id === undefined || /^0x[0-9a-f]{64}$/.test(id)) return id as Hex | undefined;
  throw usage("image", "image", "that is no image id", "Give 0x and 64 hex digits: keystead image show says it.");
}

function readSecrets({ secret }: Options): { readonly name: string; readonly destination: Destination }[] {
  return secret.map((pair) => {
    const at = pair.indexOf("=");
    if (at >= 0) return { name: pair.slice(0, at), destination: parseDestination(pair.slice(at + 1), "secret") };
    throw usage(
      "secret",
      "secret",
      `${JSON.stringify(pair)} names no place`,
      "Give NAME=WHERE; =WHERE for a sealed service's.",
    );
  });
}

const destinationOf = (options: Options, name: string): Destination | undefined => {
  const where = text(options, name);
  return where === undefined ? undefined : parseDestination(where, name);
};

/** Keys on a screen stay in its history. */
function refuseTerminal(io: Io, destinations: readonly (Destination | undefined)[]): void {
  if (!io.terminal || !destinations.some((place) => place?.kind === "fd" && place.fd === 1)) return;
  throw usage(
    "terminal",
    "out",
    "keys are not printed on a terminal",
    "Give --out a file or fd:N, or a pipe for standard output.",
  );
}

/** What was done, on standard error where standard output carries the keys. */
function report(
  result: AgentResult,
  quiet: boolean,
  { io, output }: { readonly io: Io; readonly output: Output },
): void {
  const { release, testTee, signer, purposes, secrets } = result;
  const value = {
    service_id: release.serviceId,
    image_id: release.imageId,
    key_epoch: release.keyEpoch,
    block: { number: release.blockNumber.toString(), hash: release.blockHash },
    signer,
    test_tee: testTee,
    purposes,
    secrets,
  };
  const named = secrets.length === 0 ? "" : `, secrets ${secrets.map((name) => JSON.stringify(name)).join(", ")}`;
  const lines = [
    `keys of service ${release.serviceId}, epoch ${release.keyEpoch}: ${purposes.join(", ")}${named}`,
    `for image ${release.imageId}, by block ${release.blockNumber}, signed by ${signer}`,
    ...(testTee ? ["TEST TEE: the node accepts test roots, nothing about hardware is proven"] : []),
  ];
  if (quiet) io.warn(output.json ? `${JSON.stringify(value)}\n` : `${lines.join("\n")}\n`);
  else output.result(value, () => lines.join("\n"));
}

async function act(options: Options, { io, output: makeOutput }: CommandContext): Promise<ExitCode> {
  const output = makeOutput();
  const serviceId: Hex = parseAddress(options.service, "service");
  const nodes = options.node.map(parseNodeUrl);
  const waitSeconds = wholeNumber(options, "wait") ?? DEFAULT_WAIT;
  if (waitSeconds > MAX_WAIT) throw usage("wait", "wait", `${waitSeconds} s is too long`, `Give at most ${MAX_WAIT}.`);
  const out = destinationOf(options, "out");
  const environment = destinationOf(options, "environment");
  const receipt = destinationOf(options, "receipt");
  const secrets = readSecrets(options);
  refuseTerminal(io, [out, environment, ...secrets.map(({ destination }) => destination)]);
  const purposes = readPurposes(options);
  const imageId = readImageId(options);
  const { trust, chain } = await openTrust(io, options, options.signer);
  const server = await serveUpdates(options, chain, serviceId, io);
  try {
    const device = await openDevice(io, options);
    io.warn(`evidence from ${device.name}\n`);
    const keys =
      out === undefined ? undefined : { destination: out, format: (text(options, "format") ?? "json") as KeyFormat };
    const result = await runAgent({
      ...{ nodes, device, serviceId, trust, chain, purposes, keys, secrets, environment, receipt, waitSeconds },
      imageId,
      allEpochs: options.allEpochs === true,
      log: (line) => io.warn(`${safeText(line)}\n`),
    });
    const quiet = [out, environment, receipt, ...secrets.map(({ destination }) => destination)].some(
      (place) => place?.kind === "fd" && place.fd === 1,
    );
    report(result, quiet, { io, output });
    if (server !== undefined) await Promise.race([once(process, "SIGTERM"), once(process, "SIGINT")]);
    return 0;
  } catch (error) {
    if (!isKeysteadError(error, "agent/denied")) throw error;
    output.error(error);
    return 1;
  } finally {
    await server?.stop();
  }
}

async function serveUpdates(
  options: Options,
  chain: Parameters<typeof startVmUpdates>[0] | undefined,
  serviceId: Hex,
  io: Io,
): Promise<RunningServer | undefined> {
  const given = options.vmUpdates;
  if (given === undefined) return undefined;
  if (chain === undefined) throw usage("no-chain", "rpc", "/vm_updates is read from the chain", "Add --rpc URL.");
  const [, host = "0.0.0.0", digits] =
    /^(?:(.+):)?(\d{1,5})$/.exec(given === true ? `${VM_UPDATES_PORT}` : String(given)) ?? [];
  if (digits === undefined) throw usage("vm-updates", "vm-updates", "that is no port", "Give PORT or HOST:PORT.");
  const server = await startVmUpdates(chain, serviceId, {
    host,
    port: Number(digits),
    maxAge: wholeNumber(options, "maxAge"),
  });
  io.warn(`/vm_updates at http://${host}:${server.port}/vm_updates\n`);
  return server;
}

/** `keystead agent`: gets a service's keys inside a confidential VM. */
export const command: CommandModule = {
  register(agent: Command, context: CommandContext) {
    agent.requiredOption("--service <id>", "the service, 20 bytes");
    agent.addOption(repeatable("--node <url>", "a node; several are asked in turn"));
    agent.addOption(
      repeatable("--signer <address>", "whose receipts count, in place of the KMS identities in the policy"),
    );
    for (const { flags, description } of TRUST_OPTIONS) agent.option(flags, description);
    agent
      .option("--image <id>", "the image that the receipt must name")
      .option("--out <where>", "where keys go: a file (mode 0600, whole or not at all), fd:N, or - for standard output")
      .addOption(
        new Option("--format <format>", "how keys are written").choices(["json", "env", "raw"]).default("json"),
      )
      .addOption(repeatable("--purpose <name>", "a key; default: all standard ones"))
      .option("--all-epochs", "keys of earlier epochs too")
      .addOption(repeatable("--secret <name=where>", "opens what the service has published under a name"))
      .option("--environment <where>", "an environment file: the keys, and what is published under env")
      .option("--receipt <where>", "keeps the node's signed receipt")
      .option("--wait <seconds>", `how long to go on where time may help (default: ${DEFAULT_WAIT}; 0: ask once)`)
      .addOption(
        new Option("--device <name>", "which device; default: the one that is there").choices([
          "tsm",
          "nitro",
          "dstack",
          "command",
        ]),
      )
      .option("--command <program>", "a program that makes evidence; see src/agent/README.md")
      .addOption(repeatable("--command-arg <argument>", "an argument before the report data"))
      .option("--nsm-helper <program>", "Nitro: what makes the ioctl on /dev/nsm")
      .option("--dstack-socket <path>", "the dstack guest agent's socket")
      .option("--privlevel <n>", "SEV-SNP: the VMPL of the report")
      .option("--vcek <file>", "SEV-SNP: the VCEK or VLEK, where the host gives none (DER or PEM)")
      .option("--ask <file>", "SEV-SNP: the ASK or ASVK, where nodes do not know it (DER or PEM)")
      .option(
        "--kds <url>",
        `SEV-SNP: where the VCEK is fetched if the host gives none (default: ${AMD_KDS}); none: nowhere`,
      )
      .option("--kds-cache <folder>", "SEV-SNP: keeps what was fetched between runs")
      .option(
        "--vm-updates [host:port]",
        `serve /vm_updates meanwhile, until the agent is ended (default: ${VM_UPDATES_PORT})`,
      )
      .action(context.action((options: Options) => act(options, context)));
  },
};
