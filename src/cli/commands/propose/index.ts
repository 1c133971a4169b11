import { join } from "node:path";
import type { Command } from "commander";
import { fetchBlock } from "../../../chain/block.ts";
import { connect } from "../../../chain/client.ts";
import type { Deployment } from "../../../chain/deployment.ts";
import { decodeUtf8 } from "../../../core/bytes.ts";
import { KeysteadError } from "../../../core/errors.ts";
import { isJsonArray, isJsonObject, parseJson } from "../../../core/json.ts";
import { buildImage, registerValues } from "../../../core/measurement.ts";
import { parseMeasurement } from "../../../core/measurement-format.ts";
import { renderCalls } from "../../../governance/decode.ts";
import { writeProposal } from "../../../governance/folder.ts";
import { gasWarning } from "../../../governance/gas.ts";
import {
  CALL_PARAMETERS,
  DISMISS_GUARDIAN,
  DISMISS_PARAMETERS,
  INTENTS,
  type IntentInput,
  type Parameter,
} from "../../../governance/intents.ts";
import type { MeasurementClaim, Operation } from "../../../governance/operation.ts";
import { parseAddress, parseDuration, parseNonce, parseParameter } from "../../../governance/parameters.ts";
import { deriveProposal } from "../../../governance/proposal.ts";
import { buildOperation, type Parties, type ProposalInput } from "../../../governance/propose.ts";
import { decodeOperation, headline } from "../../../governance/report.ts";
import { MULTI_SEND_CALL_ONLY, SAFE_VERSIONS, type SafeRef } from "../../../governance/safe-hash.ts";
import { fetchSafe } from "../../../governance/safe-state.ts";
import { readStartState } from "../../../governance/start-state.ts";
import { RPC_VARIABLE } from "../../chain-input.ts";
import type { CommandContext, CommandModule } from "../../command.ts";
import type { InputFile, Io } from "../../io.ts";
import type { ExitCode } from "../../output.ts";
import { earlierOperation, readSources, requireProvenance } from "../../proposal-files.ts";
import { deploymentContext, readDeploymentFile } from "../decode.ts";

const LIMIT = 1024 * 1024;

interface Options {
  readonly id: string;
  readonly deployment: string;
  readonly title?: string;
  readonly out: string;
  readonly rpc?: string | true;
  readonly nonce?: string;
  readonly guardianNonce?: string;
  readonly timelockDelay?: string;
  readonly predecessor?: string;
  readonly time?: string;
  readonly block?: string;
  readonly measurement?: string;
  readonly source?: readonly string[];
  readonly safe?: string;
  readonly safeVersion?: string;
  readonly safeMultiSend?: string;
  readonly safeNonce?: string;
  readonly safeTimelock?: string;
  readonly safeTimelockDelay?: string;
}

const bad = (argument: string, message: string, remedy: string) =>
  new KeysteadError("propose/bad-option", message, { argument, remedy });

const whole = (text: string, option: string): bigint => BigInt(String(parseParameter("wei", text, option)));

/** A Safe by its options; a nonce that was not given is noticed when it would be used. */
function safeRef(address: string, version: string, nonce: string | undefined, multiSend?: string): SafeRef {
  const known = SAFE_VERSIONS.find((candidate) => candidate === version);
  const fallback = known === undefined ? undefined : MULTI_SEND_CALL_ONLY[known][0];
  if (known === undefined || fallback === undefined) {
    throw bad("safe-version", `Safe version ${version} is not known`, `Give one of ${SAFE_VERSIONS.join(", ")}.`);
  }
  return {
    ...{ address, version: known, nonce: nonce === undefined ? 0n : parseNonce(nonce) },
    multiSend: multiSend === undefined ? fallback : parseAddress(multiSend, "safe-multi-send"),
  };
}

function accountOf(options: Options): Parties["account"] {
  if (options.safe === undefined) return undefined;
  const { safeVersion, safeNonce, safeTimelock, safeTimelockDelay } = options;
  if (safeVersion === undefined || safeNonce === undefined) {
    throw bad("safe", "--safe needs --safe-version and --safe-nonce", "Read both from the Safe.");
  }
  const safe = safeRef(parseAddress(options.safe, "safe"), safeVersion, safeNonce, options.safeMultiSend);
  if (safeTimelock === undefined) return { safe };
  if (safeTimelockDelay === undefined) {
    throw bad("safe-timelock", "--safe-timelock needs --safe-timelock-delay", "Give at least its minimum delay.");
  }
  const delay = parseDuration(safeTimelockDelay, "safe-timelock-delay");
  return { safe, timelock: { address: parseAddress(safeTimelock, "safe-timelock"), delay } };
}

/** A nonce that nobody gave must not end up under a signature. */
function requireNonces(operation: Operation, parties: Parties, options: Options, looked: boolean): void {
  if (looked) return;
  const used = [
    operation.safe,
    ...operation.cancellers,
    ...(operation.rollback === null ? [] : [operation.rollback.safe]),
  ];
  for (const [safe, given, option] of [
    [parties.governance, options.nonce, "nonce"],
    [parties.guardian, options.guardianNonce, "guardian-nonce"],
  ] as const) {
    if (given === undefined && used.some(({ address }) => address === safe.address)) {
      throw bad(
        option,
        `--${option} is missing: hashes depend on the nonce of Safe ${safe.address}`,
        "Read it from the Safe, or let --rpc do so.",
      );
    }
  }
}

/** What a chain says for a proposal: the Safes' next nonces, and the block to start from. */
async function lookAtChain(io: Io, options: Options, { chainId, safes }: Deployment) {
  if (options.rpc === undefined) return undefined;
  const client = await connect(options.rpc === true ? (io.env[RPC_VARIABLE] ?? "") : options.rpc, {
    chainId: Number(chainId),
  });
  const block = await fetchBlock(client, "latest");
  const nonces = new Map<string, string>();
  for (const { address } of [safes.governance, safes.guardian]) {
    nonces.set(address, (await fetchSafe(client, block, address)).nonce.toString());
  }
  return { client, block, nonces };
}

interface Attachments {
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly claims: readonly MeasurementClaim[];
  readonly measurement: InputFile | undefined;
}

async function readAttachments(io: Io, { measurement: path, source = [] }: Options): Promise<Attachments> {
  if (path === undefined) {
    if (source.length > 0) throw bad("source", "--source needs --measurement", "Name the measurement made from it.");
    return { files: new Map(), claims: [], measurement: undefined };
  }
  const measurement = await io.readFile(path, { limit: LIMIT, argument: "measurement" });
  const files = new Map([["measurements/measurement.json", measurement.bytes]]);
  const sources = await readSources(io, source);
  for (const { file, bytes } of sources) files.set(file, bytes);
  const kept = sources.map(({ file, sha256 }) => ({ file, sha256 }));
  const claim = { call: 0, file: "measurements/measurement.json", sha256: measurement.source.sha256, sources: kept };
  return { files, claims: [claim], measurement };
}

/** An image that was not given in so many words is the measurement's, with the usual registers. */
function completeIntent(input: IntentInput, attachments: Attachments): IntentInput {
  const wanted = INTENTS[input.intent]?.parameters.find(({ kind }) => kind.startsWith("image:"));
  if (attachments.measurement === undefined || wanted === undefined || input.arguments[wanted.name] !== undefined)
    return input;
  const measurement = parseMeasurement(decodeUtf8(attachments.measurement.bytes, "measurement"));
  const use = wanted.kind === "image:platform" ? "platform" : wanted.kind === "image:sealed" ? "sealed" : "service";
  const { text } = buildImage(measurement.kind, registerValues(measurement), use);
  return { ...input, arguments: { ...input.arguments, [wanted.name]: text } };
}

const timeOf = (given: string | undefined, earlier: Operation | undefined): bigint =>
  given === undefined
    ? (earlier?.assumptions.time ?? BigInt(Math.floor(Date.now() / 1000)))
    : BigInt(String(parseParameter("time", given, "time")));

/** The nonce that an earlier run planned a Safe's first transaction with. */
function plannedNonce(earlier: Operation | undefined, address: string): string | undefined {
  if (earlier === undefined) return undefined;
  const back = earlier.rollback === null ? [] : [earlier.rollback.safe];
  return [earlier.safe, ...earlier.cancellers, ...back].find((safe) => safe.address === address)?.nonce.toString();
}

/** Safes that made transactions since an earlier run planned: the plan stands, and what is still to be signed is signed for the next nonce. */
function movedNonces(operation: Operation, chain: { readonly nonces: ReadonlyMap<string, string> } | undefined) {
  return [...(chain?.nonces ?? [])].flatMap(([safe, next]) => {
    const planned = plannedNonce(operation, safe);
    return planned === undefined || planned === next ? [] : [{ safe, planned, next }];
  });
}

async function propose(context: CommandContext, intents: readonly IntentInput[], options: Options): Promise<ExitCode> {
  const { io } = context;
  const deployment = await readDeploymentFile(io, options.deployment);
  const contracts = deploymentContext(deployment).contracts;
  if (contracts === undefined) throw bad("deployment", "the record names no contracts", "Deploy again: it resumes.");
  const account = accountOf(options);
  const { governance, guardian } = deployment.safes;
  const chain = await lookAtChain(io, options, deployment);
  const folder = join(options.out, options.id);
  const earlier = await earlierOperation(folder);
  const nonceOf = ({ address }: { readonly address: string }) =>
    chain === undefined ? undefined : (plannedNonce(earlier, address) ?? chain.nonces.get(address));
  const parties: Parties = {
    governance: safeRef(governance.address, governance.version, options.nonce ?? nonceOf(governance)),
    guardian: safeRef(guardian.address, guardian.version, options.guardianNonce ?? nonceOf(guardian)),
    delay:
      options.timelockDelay === undefined
        ? BigInt(deployment.delaySeconds)
        : parseDuration(options.timelockDelay, "timelock-delay"),
    minDelay: BigInt(deployment.delaySeconds),
    ...(account === undefined ? {} : { account }),
  };
  const attachments = await readAttachments(io, options);
  const input: ProposalInput = {
    id: options.id,
    title: options.title,
    ...{ chainId: deployment.chainId, contracts, parties, measurements: attachments.claims },
    intents: intents.map((intent) => completeIntent(intent, attachments)),
    ...(options.predecessor === undefined
      ? {}
      : {
          predecessor: `0x${String(parseParameter("bytes32", options.predecessor, "predecessor")).slice(2)}` as const,
        }),
    time: timeOf(options.time, earlier),
    block: options.block === undefined ? null : whole(options.block, "block"),
  };
  const draft = buildOperation(input);
  requireNonces(draft, parties, options, chain !== undefined);
  const operation =
    chain === undefined
      ? draft
      : buildOperation({
          ...input,
          start: earlier?.assumptions.start ?? (await readStartState(chain.client, chain.block, draft)),
        });
  const derived = deriveProposal(operation, attachments.files);
  const encoder = new TextEncoder();
  const files = new Map([
    ...attachments.files,
    ...[...derived].map(([name, text]) => [name, encoder.encode(text)] as const),
  ]);
  requireProvenance(operation, attachments.files);
  const written = await writeProposal(folder, files);
  const { line } = headline(operation);
  const rollback = operation.rollback !== null;
  const moved = movedNonces(operation, chain);
  const gas = gasWarning(operation) ?? null;
  context.output().result(
    {
      format: "keystead.proposal/1",
      folder,
      headline: line,
      written,
      files: [...files.keys()],
      rollback,
      moved,
      gas,
    },
    () =>
      [
        line,
        "",
        ...renderCalls(decodeOperation(operation)),
        "",
        `${folder}: ${written.length === 0 ? "already there, byte for byte" : `wrote ${written.join(", ")}`}`,
        ...(gas === null ? [] : [`UNSAFE: ${gas}`]),
        rollback ? "" : "No rollback follows from these calls: have the way back ready before this is executed.",
        ...moved.map(
          ({ safe, planned, next }) =>
            `Safe ${safe} is at nonce ${next}, planned with ${planned}: sign what is still to be signed with --nonce ${next} (keystead status tells what that is).`,
        ),
        `Next: keystead verify ${folder} --deployment ${options.deployment}`,
      ].join("\n"),
  );
  return 0;
}

function addCommon(command: Command): Command {
  return command
    .requiredOption("--id <NNN-slug>", "the proposal's number and name, e.g. 007-tdx-firmware")
    .requiredOption("--deployment <file>", "the deployment's record, e.g. deploy/deployments/sepolia.json")
    .option(
      "--rpc [url]",
      `look at the chain: next nonces, and the state that it starts from, for drift (alone: ${RPC_VARIABLE})`,
    )
    .option("--nonce <n>", "the governance Safe's next nonce; default: the chain's, with --rpc")
    .option("--guardian-nonce <n>", "the guardian Safe's next nonce; default: the chain's, with --rpc")
    .option("--title <text>", "one line for people; default: what it does")
    .option("--timelock-delay <duration>", "seconds, or with s, min, h, d; default: the deployment's")
    .option("--predecessor <operation>", "timelock id of an operation that must be done first")
    .option("--safe <address>", "for a service's own calls: the Safe that is its admin or guardian, or proposes for it")
    .option("--safe-version <version>", SAFE_VERSIONS.join(", "))
    .option("--safe-nonce <n>", "that Safe's next nonce")
    .option("--safe-multi-send <address>", "its MultiSendCallOnly, where the version has several")
    .option("--safe-timelock <address>", "the timelock that is the service's admin")
    .option("--safe-timelock-delay <duration>", "its delay")
    .option("--time <seconds>", "when it is proposed, in seconds since 1970; default: now")
    .option("--block <n>", "the block whose state was looked at")
    .option("--out <folder>", "where proposals are kept", "deploy/proposals");
}

const camel = (name: string): string => name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());

function addIntent(
  parent: Command,
  name: string,
  summary: string,
  parameters: readonly Parameter[],
  context: CommandContext,
) {
  const command = addCommon(parent.command(name).summary(summary).description(`Proposes to ${summary}.`));
  const hasImage = parameters.some(({ kind }) => kind.startsWith("image:"));
  if (hasImage) {
    command
      .option("--measurement <file>", "what keystead measure … --json printed: the image, and where it comes from")
      .option("--source <files...>", "files that it was measured from, to be kept with the proposal");
  }
  for (const { name: option, help, default: fallback, optional, kind } of parameters) {
    const flags = `--${option} <${kind.startsWith("image:") ? "image" : kind}>`;
    if (optional || fallback !== undefined || (hasImage && kind.startsWith("image:"))) command.option(flags, help);
    else command.requiredOption(flags, help);
  }
  command.action(
    context.action(async () => {
      const options = command.opts<Options & Readonly<Record<string, unknown>>>();
      const given = parameters.flatMap(({ name: option }): [string, string][] => {
        const value = options[camel(option)];
        return typeof value === "string" ? [[option, value]] : [];
      });
      return propose(context, [{ intent: name, arguments: Object.fromEntries(given) }], options);
    }),
  );
}

/** A list of intents: `[{ "intent": "enable-tee", "arguments": { "kind": "tdx" } }]`. */
function parseIntents(text: string): readonly IntentInput[] {
  const malformed = () =>
    bad("intents", "the file is no list of intents", 'Write [{"intent": "enable-tee", "arguments": {"kind": "tdx"}}].');
  const list = parseJson(text, "intents");
  if (!isJsonArray(list)) throw malformed();
  return list.map((item) => {
    if (!isJsonObject(item) || typeof item.intent !== "string" || !isJsonObject(item.arguments)) throw malformed();
    const given = Object.entries(item.arguments).map(([name, value]): [string, string] => {
      if (typeof value !== "string")
        throw bad("intents", `argument ${name} is not a text`, "Put every argument in quotes.");
      return [name, value];
    });
    return { intent: item.intent, arguments: Object.fromEntries(given) };
  });
}

/** `keystead propose …`: one subcommand an intent, `call` for anything else, `batch` for several. */
export const command: CommandModule = {
  register(propose_, context) {
    for (const [name, { summary, parameters }] of Object.entries(INTENTS)) {
      addIntent(propose_, name, summary, parameters, context);
    }
    const dismissal = "take both offices from a guardian that governance no longer trusts, which cannot cancel it";
    addIntent(propose_, DISMISS_GUARDIAN, dismissal, DISMISS_PARAMETERS, context);
    addIntent(propose_, "call", "make any call, shown as what it is", CALL_PARAMETERS, context);
    const batch = addCommon(
      propose_
        .command("batch")
        .summary("several intents in one operation: all of them or none")
        .description(
          'Proposes a list of intents from a JSON file: [{"intent": "enable-tee", "arguments": {"kind": "tdx"}}].',
        )
        .argument("<intents>", "the file, or - for standard input"),
    );
    batch.action(
      context.action(async (path: string) => {
        const file = await context.io.readFile(path, { limit: LIMIT, argument: "intents" });
        return propose(context, parseIntents(decodeUtf8(file.bytes, "intents")), batch.opts<Options>());
      }),
    );
  },
};
